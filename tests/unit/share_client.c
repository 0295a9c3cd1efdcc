/* See share_client.h. */
#include "share_client.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define HEAD sizeof(struct fuse_in_header)

void sc_init(struct sc *c, struct share *s)
{
    *c = (struct sc){ .s = s, .room = SC_ROOM };
    c->req = malloc(SC_ROOM);
    c->reply = malloc(SC_ROOM);
    if (!c->req || !c->reply)
        abort();
}

void sc_fini(struct sc *c)
{
    free(c->req);
    free(c->reply);
}

void sc_begin(struct sc *c) { c->len = 0; }

void sc_put(struct sc *c, const void *bytes, size_t n)
{
    memcpy(c->req + HEAD + c->len, bytes, n);
    c->len += n;
}

void sc_str(struct sc *c, const char *s) { sc_put(c, s, strlen(s) + 1); }

int sc_send(struct sc *c, uint32_t opcode, uint64_t nodeid)
{
    struct fuse_in_header in = {
        .len = (uint32_t)(HEAD + c->len),
        .opcode = opcode,
        .unique = ++c->unique,
        .nodeid = nodeid,
        .uid = c->uid,
        .gid = c->gid,
    };
    struct fuse_out_header out;
    size_t n;

    memcpy(c->req, &in, sizeof(in));
    n = share_call(c->s, c->req, in.len, c->reply, c->room);
    c->out_len = 0;
    if (n < sizeof(out))
        return -9999;
    memcpy(&out, c->reply, sizeof(out));
    if (out.len != n || n > c->room || out.unique != in.unique || out.error > 0 || (out.error && n != sizeof(out)))
        abort(); /* no answer may look like this, whatever the question */
    c->out = c->reply + sizeof(out);
    c->out_len = n - sizeof(out);
    return out.error;
}

int sc_hello(struct sc *c, uint32_t flags)
{
    struct fuse_init_in in = { .major = 7, .minor = 36, .max_readahead = 131072, .flags = flags };

    sc_begin(c);
    sc_put(c, &in, sizeof(in));
    return sc_send(c, FUSE_INIT, 0);
}

static int sc_entry(struct sc *c, int r, struct fuse_entry_out *e)
{
    struct fuse_entry_out entry;

    if (r < 0)
        return r;
    if (c->out_len < sizeof(entry))
        abort();
    memcpy(&entry, c->out, sizeof(entry));
    if (e)
        *e = entry;
    return entry.nodeid ? 0 : -ENOENT;
}

int sc_lookup(struct sc *c, uint64_t dir, const char *name, struct fuse_entry_out *e)
{
    sc_begin(c);
    sc_str(c, name);
    return sc_entry(c, sc_send(c, FUSE_LOOKUP, dir), e);
}

int sc_create(struct sc *c, uint64_t dir, const char *name, uint32_t flags, uint32_t mode, struct fuse_entry_out *e,
              uint64_t *fh)
{
    struct fuse_create_in in = { .flags = flags, .mode = mode | 0100000 };
    struct fuse_open_out o;
    int r;

    sc_begin(c);
    sc_put(c, &in, sizeof(in));
    sc_str(c, name);
    r = sc_entry(c, sc_send(c, FUSE_CREATE, dir), e);
    if (r == 0) {
        memcpy(&o, (const uint8_t *)c->out + sizeof(struct fuse_entry_out), sizeof(o));
        *fh = o.fh;
    }
    return r;
}

int sc_mkdir(struct sc *c, uint64_t dir, const char *name, uint32_t mode, struct fuse_entry_out *e)
{
    struct fuse_mkdir_in in = { .mode = mode };

    sc_begin(c);
    sc_put(c, &in, sizeof(in));
    sc_str(c, name);
    return sc_entry(c, sc_send(c, FUSE_MKDIR, dir), e);
}

int sc_mknod(struct sc *c, uint64_t dir, const char *name, uint32_t mode)
{
    struct fuse_mknod_in in = { .mode = mode };

    sc_begin(c);
    sc_put(c, &in, sizeof(in));
    sc_str(c, name);
    return sc_send(c, FUSE_MKNOD, dir);
}

int sc_symlink(struct sc *c, uint64_t dir, const char *name, const char *target)
{
    sc_begin(c);
    sc_str(c, name);
    sc_str(c, target);
    return sc_send(c, FUSE_SYMLINK, dir);
}

int sc_link(struct sc *c, uint64_t node, uint64_t dir, const char *name)
{
    struct fuse_link_in in = { .oldnodeid = node };

    sc_begin(c);
    sc_put(c, &in, sizeof(in));
    sc_str(c, name);
    return sc_send(c, FUSE_LINK, dir);
}

int sc_remove(struct sc *c, uint32_t opcode, uint64_t dir, const char *name)
{
    sc_begin(c);
    sc_str(c, name);
    return sc_send(c, opcode, dir);
}

int sc_rename(struct sc *c, uint64_t dir, const char *name, uint64_t to, const char *new_name, uint32_t flags)
{
    struct fuse_rename2_in in = { .newdir = to, .flags = flags };

    sc_begin(c);
    sc_put(c, &in, sizeof(in));
    sc_str(c, name);
    sc_str(c, new_name);
    return sc_send(c, FUSE_RENAME2, dir);
}

int sc_open(struct sc *c, uint32_t opcode, uint64_t node, uint32_t flags, uint64_t *fh)
{
    struct fuse_open_in in = { .flags = flags };
    struct fuse_open_out o;
    int r;

    sc_begin(c);
    sc_put(c, &in, sizeof(in));
    r = sc_send(c, opcode, node);
    if (r < 0)
        return r;
    memcpy(&o, c->out, sizeof(o));
    *fh = o.fh;
    return (int)o.open_flags;
}

int sc_release(struct sc *c, uint32_t opcode, uint64_t fh)
{
    struct fuse_release_in in = { .fh = fh };

    sc_begin(c);
    sc_put(c, &in, sizeof(in));
    return sc_send(c, opcode, 0);
}

int sc_read(struct sc *c, uint64_t fh, uint64_t off, uint32_t size)
{
    struct fuse_read_in in = { .fh = fh, .offset = off, .size = size };
    int r;

    sc_begin(c);
    sc_put(c, &in, sizeof(in));
    r = sc_send(c, FUSE_READ, 0);
    return r < 0 ? r : (int)c->out_len;
}

int sc_write(struct sc *c, uint64_t fh, uint64_t off, const void *data, uint32_t size, uint32_t flags)
{
    struct fuse_write_in in = { .fh = fh, .offset = off, .size = size, .flags = flags };
    struct fuse_write_out o;
    int r;

    sc_begin(c);
    sc_put(c, &in, sizeof(in));
    sc_put(c, data, size);
    r = sc_send(c, FUSE_WRITE, 0);
    if (r < 0)
        return r;
    memcpy(&o, c->out, sizeof(o));
    return (int)o.size;
}

static int sc_attr(struct sc *c, int r, struct fuse_attr *a)
{
    struct fuse_attr_out o;

    if (r < 0)
        return r;
    memcpy(&o, c->out, sizeof(o));
    if (a)
        *a = o.attr;
    return 0;
}

int sc_getattr(struct sc *c, uint64_t node, struct fuse_attr *a)
{
    struct fuse_getattr_in in = { .getattr_flags = 0 };

    sc_begin(c);
    sc_put(c, &in, sizeof(in));
    return sc_attr(c, sc_send(c, FUSE_GETATTR, node), a);
}

int sc_setattr(struct sc *c, uint64_t node, const struct fuse_setattr_in *in)
{
    sc_begin(c);
    sc_put(c, in, sizeof(*in));
    return sc_attr(c, sc_send(c, FUSE_SETATTR, node), NULL);
}

int sc_readdir(struct sc *c, uint32_t opcode, uint64_t fh, uint64_t off, uint32_t size)
{
    struct fuse_read_in in = { .fh = fh, .offset = off, .size = size };
    int r;

    sc_begin(c);
    sc_put(c, &in, sizeof(in));
    r = sc_send(c, opcode, 0);
    return r < 0 ? r : (int)c->out_len;
}

void sc_forget(struct sc *c, uint64_t node, uint64_t n)
{
    struct fuse_forget_in in = { .nlookup = n };

    sc_begin(c);
    sc_put(c, &in, sizeof(in));
    sc_send(c, FUSE_FORGET, node);
}
