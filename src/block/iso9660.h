/* A small ISO 9660 file system, made in memory: a few files in one folder, such as a seed disk for a guest. */
#ifndef VITRO_BLOCK_ISO9660_H
#define VITRO_BLOCK_ISO9660_H

#include <stddef.h>
#include <stdint.h>

#define ISO_SECTOR   2048U
#define ISO_FILES    8
#define ISO_NAME_MAX 30

struct iso_file {
    const char *name; /* as Joliet gives it: letters, digits, '-', '_' and '.' */
    const void *data;
    size_t len;
};

/* Make an image with the volume's label (at most 16 characters). *out is to be freed, *size a multiple of
 * ISO_SECTOR. 0, -EINVAL (too many files, a name or the label too long) or -ENOMEM. */
int iso_build(const char *label, const struct iso_file *file, unsigned files, uint8_t **out, size_t *size);

#endif
