/* The guest's side of a share, for tests: one FUSE message after the other, as Linux would send them. */
#ifndef VITRO_TESTS_UNIT_SHARE_CLIENT_H
#define VITRO_TESTS_UNIT_SHARE_CLIENT_H

#include <linux/fuse.h>
#include <stddef.h>
#include <stdint.h>

#include "share/share.h"

#define SC_ROOM (SHARE_MAX_WRITE + 65536U)

struct sc {
    struct share *s;
    uint64_t unique;
    uint32_t uid, gid; /* of the caller in the guest */
    uint8_t *req;      /* SC_ROOM bytes */
    uint8_t *reply;
    size_t len;  /* of the request that is being built, after its header */
    size_t room; /* that the answer has; SC_ROOM if not changed */
    const void *out; /* the last answer, after its header */
    size_t out_len;
};

void sc_init(struct sc *c, struct share *s);
void sc_fini(struct sc *c);

/* Build a request. */
void sc_begin(struct sc *c);
void sc_put(struct sc *c, const void *bytes, size_t n);
void sc_str(struct sc *c, const char *s); /* with its NUL */
/* Send it: 0 or -errno as the answer says; -9999 if there was none. */
int sc_send(struct sc *c, uint32_t opcode, uint64_t nodeid);

/* Whole operations. They return 0 (or a count) or -errno. */
int sc_hello(struct sc *c, uint32_t flags); /* INIT */
int sc_lookup(struct sc *c, uint64_t dir, const char *name, struct fuse_entry_out *e); /* a miss is -ENOENT */
int sc_create(struct sc *c, uint64_t dir, const char *name, uint32_t flags, uint32_t mode, struct fuse_entry_out *e,
              uint64_t *fh);
int sc_mkdir(struct sc *c, uint64_t dir, const char *name, uint32_t mode, struct fuse_entry_out *e);
int sc_mknod(struct sc *c, uint64_t dir, const char *name, uint32_t mode);
int sc_symlink(struct sc *c, uint64_t dir, const char *name, const char *target);
int sc_link(struct sc *c, uint64_t node, uint64_t dir, const char *name);
int sc_remove(struct sc *c, uint32_t opcode, uint64_t dir, const char *name);
int sc_rename(struct sc *c, uint64_t dir, const char *name, uint64_t to, const char *new_name, uint32_t flags);
int sc_open(struct sc *c, uint32_t opcode, uint64_t node, uint32_t flags, uint64_t *fh);
int sc_release(struct sc *c, uint32_t opcode, uint64_t fh);
int sc_read(struct sc *c, uint64_t fh, uint64_t off, uint32_t size);
int sc_write(struct sc *c, uint64_t fh, uint64_t off, const void *data, uint32_t size, uint32_t flags);
int sc_getattr(struct sc *c, uint64_t node, struct fuse_attr *a);
int sc_setattr(struct sc *c, uint64_t node, const struct fuse_setattr_in *in);
int sc_readdir(struct sc *c, uint32_t opcode, uint64_t fh, uint64_t off, uint32_t size);
void sc_forget(struct sc *c, uint64_t node, uint64_t n);

#endif
