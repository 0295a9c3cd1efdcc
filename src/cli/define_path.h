/* Paths in a definition, made absolute: a machine is started from anywhere. */
#ifndef VITRO_CLI_DEFINE_PATH_H
#define VITRO_CLI_DEFINE_PATH_H

#include <jansson.h>

/* Every path in an object with the keys of `vitro run`. 0 or -errno. */
int define_absolute(json_t *root);

#endif
