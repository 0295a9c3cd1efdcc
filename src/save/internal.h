/* Between the parts of src/save: memory to and from a file, state to and from a machine, what a file says about it. */
#ifndef VITRO_SAVE_INTERNAL_H
#define VITRO_SAVE_INTERNAL_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "save/format.h"
#include "save/save.h"
#include "state/state.h"

/* machine.c: everything but RAM of a machine that is paused; and into one that was made blank and has its RAM already. */
int save_state_take(struct vm *vm, struct state_buf *out, struct err *err);
int save_state_give(struct vm *vm, const uint8_t *data, size_t len, struct err *err);
/* ns have passed while the machine, which does not run yet, was away: its clocks go on by them, and its guest is told that it stood. */
void save_state_skip(struct vm *vm, uint64_t ns);
/* Which parts a machine has, and what CPUs its guest sees: what a machine has to be like that takes its state. It may run.
 * And is vm like that? 0, or -errno with a sentence. */
int save_shape_take(struct vm *vm, struct state_buf *out, struct err *err);
int save_shape_check(struct vm *vm, const uint8_t *data, size_t len, struct err *err);

/* about.c: what the machine is and which disks belong to it. NULL, with a sentence, if it cannot be saved. */
char *save_about_make(struct vm *vm, struct err *err);
/* The same, read and checked for form. NULL with a sentence. */
json_t *save_about_parse(const uint8_t *text, size_t len, struct err *err);
int save_about_config(const json_t *about, struct machine_config *c, const char *const *without, const char *name,
                      struct err *err);
/* Are the disks of c what they were then, but for those whose bit is set in trusted, which are in any case? 0, or -ESTALE with a sentence. */
int save_about_disks(const json_t *about, const struct machine_config *c, uint64_t trusted, struct err *err);
uint64_t save_about_number(const json_t *about, const char *key);

/* overlays.c: what is on ephemeral disks, behind the header; sets h's flag, overlays and ram_off. The machine stands. */
int save_overlays_write(struct vm *vm, int fd, struct save_header *h, struct err *err);
int save_overlays_read(struct vm *vm, int fd, const struct save_header *h, struct err *err);

/* layers.c: files that stand on one another, the uppermost first. */
struct save_layer {
    int fd;
    struct save_header h;
    uint8_t *table; /* its sum is right */
};
struct save_layers {
    struct save_layer at[SAVE_LAYERS];
    unsigned count;
};
/* The next one down; fd is taken over, also on failure. 0, or -errno with a sentence. */
int save_layers_add(struct save_layers *s, int fd, struct err *err);
void save_layers_fini(struct save_layers *s);
bool save_layers_whole(const struct save_layers *s); /* the last one stands on none */
/* save_ram_check() of all: what the others are for. */
int save_layers_check(const struct save_layers *s, const struct ram *ram, struct err *err);
void save_layer_entry(const struct save_layer *l, const struct ram *ram, uint64_t n, struct save_entry *e);
/* Chunk n, c, as they have it, zeroes in between, into SAVE_CHUNK bytes. Sums are not looked at. 0 or -errno. */
int save_layers_read(const struct save_layers *s, const struct ram *ram, uint64_t n, const struct save_chunk *c, uint8_t *buf);
/* A part of a file, its sum checked; at most as long as the file. *out is the caller's, also on failure. */
int save_part_read(int fd, const struct save_part *p, uint8_t **out, const char *what, struct err *err);

/* ram_out.c: write memory from h->ram_off on, then the table. Changes h. Nobody else changes the memory. base: what the file stands on
 * (SAVE_BASE), or none. still: this is a child process that sees shared memory by a still (ram/still.h). */
int save_ram_write(struct ram *ram, int fd, struct save_header *h, const struct save_layers *base, bool still, struct err *err);
/* ram_in.c: table is the checked bytes of the table's part. The memory is not touched unless all of it could be. */
int save_ram_check(const struct ram *ram, const struct save_header *h, const uint8_t *table, struct err *err);
int save_ram_read(struct ram *ram, int fd, const struct save_header *h, const uint8_t *table, struct err *err);
int save_ram_map(struct ram *ram, int fd, const struct save_header *h, struct err *err);
/* Memory holds what the last one has: put over it what the others have. */
int save_ram_lift(struct ram *ram, const struct save_layers *s, struct err *err);

/* Some threads for work on chunks. */
#define SAVE_THREADS_MAX 4
unsigned save_threads(void);

#endif
