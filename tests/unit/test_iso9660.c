/* The seed disk's file system, read back by its own rules; and disks in memory.
 *
 * With arguments, OUT LABEL NAME=FILE ..., it writes an image for outside judges (tests/image/seed) instead.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/bits.h"
#include "block/block.h"
#include "block/iso9660.h"

static uint32_t word(const uint8_t *p) { return p[0] | p[1] << 8 | p[2] << 16 | (uint32_t)p[3] << 24; }

/* The record of a name in the folder that a descriptor's root record points to; NULL: none. */
static const uint8_t *find(const uint8_t *image, unsigned descriptor, const char *name, size_t len)
{
    const uint8_t *root = image + (size_t)descriptor * ISO_SECTOR + 156;
    const uint8_t *p = image + (size_t)word(root + 2) * ISO_SECTOR, *end = p + word(root + 10);

    for (; p < end && *p; p += *p) {
        if (p[32] == len && !memcmp(p + 33, name, len))
            return p;
    }
    return NULL;
}

static void test_contents(void **state)
{
    static char big[5000];
    const struct iso_file file[] = { { "meta-data", "a: b\n", 5 },
                                     { "user-data", big, sizeof(big) },
                                     { "none", "", 0 } };
    static const char joliet[] = "\0u\0s\0e\0r\0-\0d\0a\0t\0a";
    const uint8_t *r;
    uint8_t *image;
    size_t size;

    memset(big, 'x', sizeof(big));
    assert_int_equal(iso_build("cidata", file, 3, &image, &size), 0);
    assert_int_equal(size, (25 + 1 + 3) * ISO_SECTOR);
    assert_memory_equal(image + 16 * ISO_SECTOR, "\1CD001\1", 7);
    assert_memory_equal(image + 16 * ISO_SECTOR + 40, "cidata    ", 10);
    assert_memory_equal(image + 17 * ISO_SECTOR, "\2CD001\1", 7);
    assert_memory_equal(image + 18 * ISO_SECTOR, "\377CD001\1", 7);
    assert_int_equal(word(image + 16 * ISO_SECTOR + 80), size / ISO_SECTOR);
    r = find(image, 16, "META_DATA.;1", 12);
    assert_non_null(r);
    assert_memory_equal(image + (size_t)word(r + 2) * ISO_SECTOR, "a: b\n\0", 6);
    r = find(image, 17, joliet, sizeof(joliet) - 1);
    assert_non_null(r);
    assert_int_equal(word(r + 10), sizeof(big));
    assert_memory_equal(image + (size_t)word(r + 2) * ISO_SECTOR, big, sizeof(big));
    free(image);
}

static void test_refused(void **state)
{
    struct iso_file file[ISO_FILES + 1];
    uint8_t *image;
    size_t size;

    for (unsigned i = 0; i < ARRAY_LEN(file); i++)
        file[i] = (struct iso_file){ "a", "", 0 };
    assert_int_equal(iso_build("cidata", file, ISO_FILES + 1, &image, &size), -22);
    assert_int_equal(iso_build("a label that is too long", file, 1, &image, &size), -22);
    file[0].name = "a-name-that-is-longer-than-thirty-letters";
    assert_int_equal(iso_build("cidata", file, 1, &image, &size), -22);
    file[0].name = "";
    assert_int_equal(iso_build("cidata", file, 1, &image, &size), -22);
    assert_null(image);
}

static void test_memory(void **state)
{
    uint8_t *data = calloc(1, 2048), buf[512];
    struct block *b;

    data[512] = 7;
    assert_int_equal(block_memory_open(&b, data, 2048), 0);
    assert_int_equal(block_read(b, 512, buf, 512), 0);
    assert_int_equal(buf[0], 7);
    assert_int_equal(block_read(b, 2048, buf, 512), -22);
    assert_int_equal(block_write(b, 0, buf, 512), -30);
    assert_int_equal(block_flush(b), 0);
    block_close(b);
    assert_int_equal(block_memory_open(&b, malloc(100), 100), -22);
    assert_null(b);
}

static int write_image(int argc, char **argv)
{
    struct iso_file file[ISO_FILES];
    uint8_t *image;
    size_t size;
    FILE *f;

    for (int i = 3; i < argc && i - 3 < (int)ISO_FILES; i++) {
        char *path = strchr(argv[i], '='), *data = malloc(1 << 20);

        *path++ = 0;
        f = fopen(path, "rb");
        if (!f)
            return 1;
        file[i - 3] = (struct iso_file){ argv[i], data, fread(data, 1, 1 << 20, f) };
        fclose(f);
    }
    if (iso_build(argv[2], file, (unsigned)argc - 3, &image, &size) < 0)
        return 1;
    f = fopen(argv[1], "wb");
    if (!f || fwrite(image, 1, size, f) != size || fclose(f))
        return 1;
    return 0;
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_contents),
        cmocka_unit_test(test_refused),
        cmocka_unit_test(test_memory),
    };

    if (argc > 3)
        return write_image(argc, argv);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
