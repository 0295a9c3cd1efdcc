/* What the files of `vitro image build` share. */
#ifndef VITRO_CLI_IMAGE_BUILD_H
#define VITRO_CLI_IMAGE_BUILD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "block/image.h"

struct err;

#define PATH_SIZE 4096

/* Strings are borrowed from argv; NULL: not given. All have been checked by build_parse(). */
struct build_args {
    const char *distribution, *out, *size_text, *suite, *mirror, *packages, *host, *user, *keys, *hash;
    const char *kernel_out, *initrd_out, *format_text;
    enum image_format format;
    uint64_t size; /* bytes, whole MiB */
    bool json, force;
};

/* cmd_image_build.c: the verb; args are the words after "build". Returns the exit status. */
int image_build(int argc, char **argv);

/* image_build_args.c. 0, or -errno with a sentence; a->json is set in any case. */
int build_parse(struct build_args *a, int argc, char **argv, struct err *err);
/* The path of the script: beside this program as it was built, or where it was installed. */
int build_find_script(char *path, size_t size, struct err *err);
/* Are all programs there that the script runs? The sentence says how to get them. */
int build_need_programs(struct err *err);

#endif
