/* Machine definitions: a JSON file a machine, NAME.json in "machines" of the user's data folder ($XDG_DATA_HOME/vitro or
 * ~/.local/share/vitro), with the keys of `vitro run`; templates are the same in "templates". */
#ifndef VITRO_CLI_DEFINE_H
#define VITRO_CLI_DEFINE_H

#include <stdbool.h>
#include <stddef.h>

struct err;
struct machine_config;

/* The file of a definition, or of a template; the folder is made if need be. 0 or -errno with a sentence. */
int define_path(char *path, size_t size, const char *kind, const char *name, struct err *err);
/* The folder of that name in that of the kind, without a slash at its end; made if `make`. 0 or -errno with a sentence. */
int define_folder(char *path, size_t size, const char *kind, const char *name, bool make, struct err *err);
/* Put text at path: the old file or the new one is there, whenever we are killed. 0 or -errno. */
int define_store(const char *path, const char *text);
bool define_exists(const char *name);
/* Write down what cfg was given, with absolute paths. -EEXIST with a sentence unless force. */
int define_write(const struct machine_config *cfg, const char *name, bool force, struct err *err);
/* The definition of a machine into cfg. */
int define_load(struct machine_config *cfg, const char *name, struct err *err);
/* A template: a file (a path, or a name that ends in .json), a template's name or a machine's. */
int define_load_template(struct machine_config *cfg, const char *from, struct err *err);
int define_remove(const char *name, struct err *err);
/* The names of all definitions: an array of strings to free() each and all. 0 or -errno with a sentence. */
int define_list(char ***names, size_t *n, struct err *err);

#endif
