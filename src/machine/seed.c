/* --cloud-init USER-DATA[,META-DATA]: the seed disk that cloud-init's NoCloud data source looks for, an ISO
 * 9660 file system with the label cidata that holds the files user-data and meta-data. It is made in memory;
 * no program of the host is needed.
 *
 * Without META-DATA there is an instance-id that depends on the user-data, so that a guest takes changed
 * user-data as a new instance and the same as the one that it knows; and a hostname if --name was given.
 *
 * Thread: whoever builds the machine; no locks.
 */
#include "machine/seed.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>

#include "base/err.h"
#include "block/block.h"
#include "block/iso9660.h"
#include "machine/config.h"

#define SEED_FILE_MAX (4U << 20)

/* The whole file, to be freed. 0 or -errno with a sentence. */
static int seed_read(const char *path, char **out, size_t *len, struct err *err)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK), r = 0;
    struct stat st;
    ssize_t n = 1;

    *len = 0;
    if (fd < 0)
        return err_set(err, errno, "cloud-init: '%.300s' cannot be opened: %s", path, strerror(errno));
    if (fstat(fd, &st) < 0 || !S_ISREG(st.st_mode) || st.st_size > SEED_FILE_MAX)
        r = err_set(err, EINVAL, "cloud-init: '%.300s' is not a file of at most %u MiB", path,
                    SEED_FILE_MAX >> 20);
    *out = r == 0 ? malloc(SEED_FILE_MAX) : NULL;
    if (r == 0 && !*out)
        r = err_set(err, ENOMEM, "out of memory");
    while (r == 0 && n > 0 && *len < SEED_FILE_MAX) {
        n = read(fd, *out + *len, SEED_FILE_MAX - *len);
        if (n < 0)
            r = err_set(err, errno, "cloud-init: '%.300s' cannot be read: %s", path, strerror(errno));
        else
            *len += (size_t)n;
    }
    close(fd);
    return r;
}

static int seed_meta(const struct machine_config *c, const char *user, size_t len, char **out,
                     size_t *out_len)
{
    bool named = strcmp(c->name, CONFIG_NAME_DEFAULT) != 0;
    int n = asprintf(out, "instance-id: vitro-%016" PRIx64 "\n%s%s%s", (uint64_t)XXH64(user, len, 0),
                     named ? "local-hostname: " : "", named ? c->name : "", named ? "\n" : "");

    if (n < 0) {
        *out = NULL;
        return -ENOMEM;
    }
    *out_len = (size_t)n;
    return 0;
}

static int seed_files(const struct machine_config *c, char *user_path, char **user, size_t *user_len,
                      char **meta, size_t *meta_len, struct err *err)
{
    char *comma = strchr(user_path, ',');
    int r;

    if (comma)
        *comma++ = 0;
    if (!*user_path || (comma && !*comma))
        return err_set(err, EINVAL,
                       "cloud-init '%.200s' names no file: write it like user-data or user-data,meta-data",
                       c->cloud_init);
    r = seed_read(user_path, user, user_len, err);
    if (r == 0 && comma)
        return seed_read(comma, meta, meta_len, err);
    if (r == 0 && seed_meta(c, *user, *user_len, meta, meta_len) < 0)
        return err_set(err, ENOMEM, "out of memory");
    return r;
}

int seed_open(struct block **out, const struct machine_config *c, struct err *err)
{
    char *path = strdup(c->cloud_init), *user = NULL, *meta = NULL;
    size_t user_len = 0, meta_len = 0, size = 0;
    uint8_t *image = NULL;
    int r = path ? seed_files(c, path, &user, &user_len, &meta, &meta_len, err)
                 : err_set(err, ENOMEM, "out of memory");

    *out = NULL;
    if (r == 0) {
        struct iso_file file[] = { { "meta-data", meta, meta_len }, { "user-data", user, user_len } };

        if (iso_build("cidata", file, 2, &image, &size) < 0 || block_memory_open(out, image, size) < 0)
            r = err_set(err, ENOMEM, "out of memory for the seed disk");
    }
    free(path);
    free(user);
    free(meta);
    return r;
}
