/* Saved machines: a machine's CPUs, devices and memory in one file, and machines made of such files.
 *
 *     vm_pause(vm); save_machine(vm, path, &options, &err); vm_resume(vm);     write and wait
 *     vm_pause(vm); save_begin(&job, vm, path, &options, &err); vm_resume(vm); a child process writes meanwhile
 *
 * Inside the sandbox, which opens no files, somebody else opens one and gives it its name afterwards (options.given).
 *
 *     save_open(&file, path, &err);                 looks at all but the memory
 *     save_config(file, &cfg, &err); config_set ... the machine that it was, and what shall be different
 *     vm_create_blank(&vm, &cfg, engine, &err);
 *     save_restore(file, vm, &how, &err); save_close(file);
 *     vm_run(vm, ...);
 *
 * The file belongs to no engine. It is a hostile input: everything is parsed into staging with its bounds checked,
 * memory is bounded by what the configuration in it says. The file's form is in format.h, the reasons in
 * docs/design/save.md.
 *
 * Threads: the machine's thread, no lock held, the machine paused.
 */
#ifndef VITRO_SAVE_SAVE_H
#define VITRO_SAVE_SAVE_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/loop.h"

struct err;
struct machine_config;
struct save_file;
struct vm;

struct save_options {
    bool plain;   /* memory as it is: larger, but a machine can be restored from it at once */
    bool replace; /* there may be a file of that name */
    bool given;   /* write to fd, an empty file, which is taken over also on failure; path is for sentences only */
    int fd;
    /* Plain: a file, and those that it stands on, in this order: what of memory is as it was there is not written again, if the machine has
     * the memory for which they were made. The descriptors are taken over, also on failure. */
    unsigned bases;
    const int *base;
    const char *base_name; /* of the first, in the folder where the new file will be */
};

/* Write the machine to path: the old file or the whole new one is there, whenever we are killed. 0, or -errno with a
 * sentence. */
int save_machine(struct vm *vm, const char *path, const struct save_options *o, struct err *err);

/* The same in the background; embed it. */
struct save_job {
    /* Device lock held, on the loop's thread: the file is there, or why it is not. */
    void (*done)(struct save_job *job, int result, const char *why);
    void *opaque;
    /* save.c */
    struct vm *vm;
    struct loop_fd pipe;
    pid_t child;
    size_t len;
    char text[600];
    bool still; /* the child reads the memory by one */
};
/* 0: done() will be called. */
int save_begin(struct save_job *job, struct vm *vm, const char *path, const struct save_options *o, struct err *err);
/* Wait for the writer, or end it (no file then), and have done() called. Nothing if it has ended. Device lock held, or the
 * loop does not run any more. */
void save_finish(struct save_job *job, bool cancel);

/* Look at a file. 0 with *out (save_close()), or -errno with a sentence. */
int save_open(struct save_file **out, const char *path, struct err *err);
void save_close(struct save_file *f);

/* How many files it stands on, and the descriptor of it (0) and of those, borrowed. */
unsigned save_stands_on(const struct save_file *f);
int save_borrow_fd(const struct save_file *f, unsigned n);

/* Set what the machine was, but for options that `without` names (NULL at its end): the caller sets those himself. Nothing
 * must have been set before. */
int save_config(const struct save_file *f, struct machine_config *c, const char *const *without, struct err *err);

/* Are the disks of c what they were then? trusted: bit n: disk n is, whatever it looks like. 0, or -ESTALE with a sentence. */
int save_check_disks(const struct save_file *f, const struct machine_config *c, uint64_t trusted, struct err *err);

struct save_how {
    bool whole;       /* read all of the memory first and check it, where it could be mapped */
    bool trust_disks; /* do not ask whether disks have changed since */
    bool stand;       /* guest time goes on where it stood; else the time in between is added */
    bool clone;       /* the machine that was saved may go on as well: a new generation ID, and addresses */
    bool rewind;      /* it went on since, and has ended: a new generation ID */
};
/* Will a machine's memory lie on the file? If not, it is read into what the machine has (vm_create_filled()). */
bool save_maps(const struct save_file *f, const struct save_how *how);
/* Make vm, which was just made blank, the saved machine. On failure it is only good for vm_destroy(). */
int save_restore(struct save_file *f, struct vm *vm, const struct save_how *how, struct err *err);

#endif
