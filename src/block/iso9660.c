/* ISO 9660 with Joliet names, one folder, in memory. See iso9660.h.
 *
 * Sources: ECMA-119 (volume descriptors 8, directory records 9.1, path tables 9.4) and Microsoft's Joliet
 * specification (a supplementary descriptor whose names are UCS-2, big-endian). All readers since 1995 take
 * the Joliet names where they are there, so that "user-data" keeps its dash and its small letters; the
 * primary names are the standard's own capitals.
 *
 *   sector 16 primary descriptor, 17 Joliet's, 18 the terminator
 *          19 20 path tables (little, big), 21 22 Joliet's, 23 root folder, 24 Joliet's, 25.. the files
 *
 * Dates are left zero ("not specified"), so that the same files make the same image. No state, any thread.
 */
#include "block/iso9660.h"

#include <ctype.h>
#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

enum { ISO_PRIMARY, ISO_JOLIET, ISO_TREES };
enum { ISO_DESCRIPTOR = 16, ISO_PATHS = 19, ISO_FOLDER = 23, ISO_DATA = 25 };

#define ISO_RECORD    33 /* bytes of a directory record before the name */
#define ISO_FLAG_DIR  2
#define ISO_ROOT_NAME 1 /* the length of the names of "." and "..": one byte, 0 or 1 */

/* Numbers are stored little-endian, then big-endian ("both-byte orders", 7.2.3 and 7.3.3). */
static void iso_both16(uint8_t *p, uint16_t v)
{
    p[0] = p[3] = (uint8_t)v;
    p[1] = p[2] = (uint8_t)(v >> 8);
}

static void iso_both32(uint8_t *p, uint32_t v)
{
    for (unsigned i = 0; i < 4; i++)
        p[i] = p[7 - i] = (uint8_t)(v >> 8 * i);
}

/* Text padded with blanks, as bytes or as UCS-2. */
static void iso_text(uint8_t *p, size_t size, const char *text, int tree)
{
    size_t len = strlen(text);

    for (size_t i = 0; i < size; i++) {
        if (tree == ISO_PRIMARY)
            p[i] = i < len ? (uint8_t)text[i] : ' ';
        else
            p[i] = i & 1 ? (i / 2 < len ? (uint8_t)text[i / 2] : ' ') : 0;
    }
}

/* One record; the length that it took. name is raw bytes. */
static size_t iso_record(uint8_t *p, uint32_t sector, uint32_t len, uint8_t flags, const uint8_t *name,
                         size_t n)
{
    size_t size = (ISO_RECORD + n + 1) & ~(size_t)1;

    p[0] = (uint8_t)size;
    iso_both32(p + 2, sector);
    iso_both32(p + 10, len);
    p[25] = flags;
    iso_both16(p + 28, 1);
    p[32] = (uint8_t)n;
    memcpy(p + ISO_RECORD, name, n);
    return size;
}

static size_t iso_root_record(uint8_t *p, int tree, uint8_t name)
{
    return iso_record(p, (uint32_t)(ISO_FOLDER + tree), ISO_SECTOR, ISO_FLAG_DIR, &name, ISO_ROOT_NAME);
}

/* The file's name in a tree. Primary: d-characters, one dot, a version. */
static size_t iso_file_name(uint8_t *out, const char *name, int tree)
{
    size_t n = 0;
    bool dot = false;

    for (; *name; name++) {
        if (tree == ISO_JOLIET) {
            out[n++] = 0;
            out[n++] = (uint8_t)*name;
            continue;
        }
        if (*name == '.' && !dot) {
            dot = true;
            out[n++] = '.';
        } else {
            out[n++] = isalnum((unsigned char)*name) ? (uint8_t)toupper((unsigned char)*name) : '_';
        }
    }
    if (tree == ISO_JOLIET)
        return n;
    if (!dot)
        out[n++] = '.';
    out[n++] = ';';
    out[n++] = '1';
    return n;
}

static uint32_t iso_sectors(size_t len) { return (uint32_t)((len + ISO_SECTOR - 1) / ISO_SECTOR); }

static void iso_folder(uint8_t *p, const struct iso_file *file, unsigned files, int tree)
{
    uint32_t sector = ISO_DATA;

    p += iso_root_record(p, tree, 0);
    p += iso_root_record(p, tree, 1);
    for (unsigned i = 0; i < files; i++) {
        uint8_t name[2 * ISO_NAME_MAX + 4];
        size_t n = iso_file_name(name, file[i].name, tree);

        p += iso_record(p, sector, (uint32_t)file[i].len, 0, name, n);
        sector += iso_sectors(file[i].len);
    }
}

#define ISO_PATH_SIZE 10 /* the root's entry, the only one */

static void iso_path_tables(uint8_t *image, int tree)
{
    uint32_t folder = (uint32_t)(ISO_FOLDER + tree);
    uint8_t *little = image + (size_t)(ISO_PATHS + 2 * tree) * ISO_SECTOR, *big = little + ISO_SECTOR;

    little[0] = big[0] = ISO_ROOT_NAME;
    for (unsigned i = 0; i < 4; i++)
        little[2 + i] = big[5 - i] = (uint8_t)(folder >> 8 * i);
    little[6] = big[7] = 1; /* its parent is itself */
}

static void iso_descriptor(uint8_t *p, const char *label, uint32_t sectors, int tree)
{
    p[0] = tree == ISO_PRIMARY ? 1 : 2;
    memcpy(p + 1, "CD001", 5);
    p[6] = 1;
    iso_text(p + 8, 32, "", tree);
    iso_text(p + 40, 32, label, tree);
    iso_both32(p + 80, sectors);
    if (tree == ISO_JOLIET)
        memcpy(p + 88, "%/E", 3); /* UCS-2 level 3 */
    iso_both16(p + 120, 1);
    iso_both16(p + 124, 1);
    iso_both16(p + 128, ISO_SECTOR);
    iso_both32(p + 132, ISO_PATH_SIZE);
    p[140] = (uint8_t)(ISO_PATHS + 2 * tree);     /* one little-endian word */
    p[151] = (uint8_t)(ISO_PATHS + 2 * tree + 1); /* one big-endian word */
    iso_root_record(p + 156, tree, 0);
    iso_text(p + 190, 813 - 190, "", tree);
    for (unsigned at = 813; at < 881; at += 17) /* four dates, not specified */
        memset(p + at, '0', 16);
    p[881] = 1;
}

static bool iso_fits(const char *label, const struct iso_file *file, unsigned files)
{
    if (files > ISO_FILES || strlen(label) > 16)
        return false;
    for (unsigned i = 0; i < files; i++) {
        size_t len = strlen(file[i].name);

        if (!len || len > ISO_NAME_MAX || file[i].len > UINT32_MAX / 2)
            return false;
    }
    return true;
}

int iso_build(const char *label, const struct iso_file *file, unsigned files, uint8_t **out, size_t *size)
{
    uint32_t sectors = ISO_DATA, at = ISO_DATA;
    uint8_t *image;

    *out = NULL;
    if (!iso_fits(label, file, files))
        return -EINVAL;
    for (unsigned i = 0; i < files; i++)
        sectors += iso_sectors(file[i].len);
    image = calloc(sectors, ISO_SECTOR);
    if (!image)
        return -ENOMEM;
    for (int tree = 0; tree < ISO_TREES; tree++) {
        iso_descriptor(image + (size_t)(ISO_DESCRIPTOR + tree) * ISO_SECTOR, label, sectors, tree);
        iso_path_tables(image, tree);
        iso_folder(image + (size_t)(ISO_FOLDER + tree) * ISO_SECTOR, file, files, tree);
    }
    image[(ISO_DESCRIPTOR + 2) * ISO_SECTOR] = 255;
    memcpy(image + (ISO_DESCRIPTOR + 2) * ISO_SECTOR + 1, "CD001\1", 6);
    for (unsigned i = 0; i < files; i++) {
        if (file[i].len)
            memcpy(image + (size_t)at * ISO_SECTOR, file[i].data, file[i].len);
        at += iso_sectors(file[i].len);
    }
    *out = image;
    *size = (size_t)sectors * ISO_SECTOR;
    return 0;
}
