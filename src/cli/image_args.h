/* The words and options of `vitro image`, as its files share them. */
#ifndef VITRO_CLI_IMAGE_ARGS_H
#define VITRO_CLI_IMAGE_ARGS_H

#include <stdbool.h>

#include "block/image.h"

#define IMAGE_WORDS 2

/* Strings are borrowed from argv. NULL: not given. */
struct image_args {
    const char *word[IMAGE_WORDS]; /* file and size, or source and destination */
    unsigned words;
    const char *format, *to, *backing, *backing_format, *cluster_size;
    bool json, force, repair, allow_backing, keep;
};

/* The format of a file: as given, else by its suffix. IMAGE_FORMAT_NONE after an error, which is told. */
enum image_format image_args_format(const struct image_args *a, const char *given, const char *path);

/* What image_open() needs to know of the options; named is room for one backing file. 0, or CLI_ERROR after a
 * sentence. */
int image_args_opts(const struct image_args *a, struct image_backing *named, struct image_opts *o);

/* cmd_image_tell.c */
int image_info(const struct image_args *a);
int image_check(const struct image_args *a);

#endif
