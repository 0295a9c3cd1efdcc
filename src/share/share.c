/* The share: opening the folder, the session, and which operation a message means. See share.h.
 *
 * Runs on: the share's threads. Locks: see internal.h; here the tree's lock is taken for operations that want it.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/statfs.h>
#include <unistd.h>

#include "base/bits.h"
#include "base/err.h"
#include "share/internal.h"

#define SHARE_MINOR       38U /* of the protocol: what we know */
#define SHARE_MIN_MINOR   31U /* and what virtio began with */
#define SHARE_BACKGROUND  64U /* requests that a guest may have waiting */
#define SHARE_MAX_FOLDERS 1024U
#define SHARE_QUICK_MAX   16384U /* bytes of a message that is worth no thread */
#define SHARE_SPARE_FDS   256U /* for the rest of the monitor */

/* ---- pieces of a message ---- */

bool share_arg(const struct share_msg *m, void *v, size_t len)
{
    if (m->arg_len < len)
        return false;
    memcpy(v, m->arg, len);
    return true;
}

int share_text(const struct share_msg *m, size_t off, const char **text, size_t *next)
{
    const char *at = (const char *)m->arg + off, *end;

    if (off >= m->arg_len)
        return -EINVAL;
    end = memchr(at, '\0', m->arg_len - off);
    if (!end || end == at)
        return -EINVAL;
    *text = at;
    if (next)
        *next = off + (size_t)(end - at) + 1;
    return 0;
}

int share_name(const struct share_msg *m, size_t off, const char **name, size_t *next)
{
    int r = share_text(m, off, name, next);

    if (r < 0)
        return r;
    if (strlen(*name) > SHARE_NAME_MAX)
        return -ENAMETOOLONG;
    if (strchr(*name, '/') || !strcmp(*name, ".") || !strcmp(*name, ".."))
        return -EINVAL;
    return 0;
}

int share_answer(struct share_msg *m, const void *v, size_t len)
{
    if (len > m->room)
        return -EINVAL;
    memcpy(m->out, v, len);
    m->out_len = len;
    return 0;
}

/* ---- the session ---- */

uint32_t share_features(const struct share *s)
{
    uint32_t f = FUSE_ASYNC_READ | FUSE_ATOMIC_O_TRUNC | FUSE_BIG_WRITES | FUSE_DO_READDIRPLUS | FUSE_READDIRPLUS_AUTO |
                 FUSE_PARALLEL_DIROPS | FUSE_MAX_PAGES | FUSE_HANDLE_KILLPRIV_V2 | FUSE_CACHE_SYMLINKS | FUSE_ASYNC_DIO;

    return f | (s->cache == SHARE_CACHE_ALWAYS ? FUSE_WRITEBACK_CACHE : FUSE_AUTO_INVAL_DATA);
}

/* What DESTROY and a second INIT do: calls under way keep what they use. */
static void share_drop_all(struct share *s)
{
    uint32_t used;

    share_handles_clear(s);
    pthread_mutex_lock(&s->lock);
    used = s->nodes.used;
    pthread_mutex_unlock(&s->lock);
    for (uint32_t i = 0; i < used; i++) {
        pthread_mutex_lock(&s->lock);
        const struct share_node *n = share_table_at(&s->nodes, i);
        uint64_t nodeid = n ? n->nodeid : 0;
        pthread_mutex_unlock(&s->lock);
        share_node_forget(s, nodeid, UINT64_MAX);
    }
}

static int share_op_init(struct share_msg *m, struct share_node *n)
{
    struct fuse_init_out out = { .major = FUSE_KERNEL_VERSION, .minor = SHARE_MINOR };
    struct fuse_init_in in = { .major = 0 };

    if (!share_arg(m, &in, 16))
        return -EINVAL;
    if (in.major > FUSE_KERNEL_VERSION) /* the guest asks again, in our version */
        return share_answer(m, &out, sizeof(out));
    if (in.major < FUSE_KERNEL_VERSION || in.minor < SHARE_MIN_MINOR)
        return -EPROTO;
    share_drop_all(m->s);
    out.max_readahead = in.max_readahead;
    out.flags = in.flags & share_features(m->s);
    out.max_background = SHARE_BACKGROUND;
    out.congestion_threshold = SHARE_BACKGROUND * 3 / 4;
    out.max_write = SHARE_MAX_WRITE;
    out.max_pages = SHARE_MAX_WRITE / 4096;
    out.time_gran = 1;
    m->s->flags = out.flags;
    m->s->writeback = out.flags & FUSE_WRITEBACK_CACHE;
    atomic_store(&m->s->session, true);
    return share_answer(m, &out, sizeof(out));
}

static int share_op_destroy(struct share_msg *m, struct share_node *n)
{
    atomic_store(&m->s->session, false);
    share_drop_all(m->s);
    return 0;
}

static void share_forget_many(struct share *s, const struct share_msg *m)
{
    struct fuse_batch_forget_in in;
    struct fuse_forget_one one;

    if (!SHARE_ARG(m, &in))
        return;
    for (size_t at = sizeof(in); in.count && m->arg_len - at >= sizeof(one); at += sizeof(one), in.count--) {
        memcpy(&one, m->arg + at, sizeof(one));
        share_node_forget(s, one.nodeid, one.nlookup);
    }
}

static void share_forget(struct share *s, const struct share_msg *m)
{
    struct fuse_forget_in in;

    if (m->in.opcode == FUSE_BATCH_FORGET)
        share_forget_many(s, m);
    else if (SHARE_ARG(m, &in))
        share_node_forget(s, m->in.nodeid, in.nlookup);
}

/* ---- dispatch ---- */

enum {
    OP_NODE = 1,   /* wants the node that the header names */
    OP_TREE = 2,   /* and turns it into a path, which must not change meanwhile */
    OP_WRITES = 4, /* not on a read-only share */
    OP_ALWAYS = 8, /* also before INIT */
};

static const struct share_op {
    share_op_fn *fn;
    unsigned flags;
} share_ops[] = {
    [FUSE_INIT] = { share_op_init, OP_ALWAYS },
    [FUSE_DESTROY] = { share_op_destroy, OP_ALWAYS },
    [FUSE_LOOKUP] = { share_op_lookup, OP_NODE | OP_TREE },
    [FUSE_GETATTR] = { share_op_getattr, OP_NODE | OP_TREE },
    [FUSE_SETATTR] = { share_op_setattr, OP_NODE | OP_TREE | OP_WRITES },
    [FUSE_READLINK] = { share_op_readlink, OP_NODE | OP_TREE },
    [FUSE_SYMLINK] = { share_op_symlink, OP_NODE | OP_TREE | OP_WRITES },
    [FUSE_MKNOD] = { share_op_mknod, OP_NODE | OP_TREE | OP_WRITES },
    [FUSE_MKDIR] = { share_op_mkdir, OP_NODE | OP_TREE | OP_WRITES },
    [FUSE_UNLINK] = { share_op_unlink, OP_NODE | OP_TREE | OP_WRITES },
    [FUSE_RMDIR] = { share_op_rmdir, OP_NODE | OP_TREE | OP_WRITES },
    [FUSE_RENAME] = { share_op_rename, OP_NODE | OP_WRITES },
    [FUSE_RENAME2] = { share_op_rename2, OP_NODE | OP_WRITES },
    [FUSE_LINK] = { share_op_link, OP_NODE | OP_TREE | OP_WRITES },
    [FUSE_CREATE] = { share_op_create, OP_NODE | OP_TREE | OP_WRITES },
    [FUSE_OPEN] = { share_op_open, OP_NODE | OP_TREE },
    [FUSE_READ] = { share_op_read, 0 },
    [FUSE_WRITE] = { share_op_write, OP_WRITES },
    [FUSE_STATFS] = { share_op_statfs, 0 },
    [FUSE_RELEASE] = { share_op_release, 0 },
    [FUSE_FSYNC] = { share_op_fsync, 0 },
    [FUSE_SETXATTR] = { share_op_setxattr, OP_NODE | OP_TREE | OP_WRITES },
    [FUSE_GETXATTR] = { share_op_getxattr, OP_NODE | OP_TREE },
    [FUSE_LISTXATTR] = { share_op_listxattr, OP_NODE | OP_TREE },
    [FUSE_REMOVEXATTR] = { share_op_removexattr, OP_NODE | OP_TREE | OP_WRITES },
    [FUSE_OPENDIR] = { share_op_opendir, OP_NODE | OP_TREE },
    [FUSE_READDIR] = { share_op_readdir, 0 },
    [FUSE_READDIRPLUS] = { share_op_readdirplus, 0 },
    [FUSE_RELEASEDIR] = { share_op_releasedir, 0 },
    [FUSE_FSYNCDIR] = { share_op_fsyncdir, 0 },
    [FUSE_FALLOCATE] = { share_op_fallocate, OP_WRITES },
    [FUSE_LSEEK] = { share_op_lseek, 0 },
    [FUSE_COPY_FILE_RANGE] = { share_op_copy, OP_WRITES },
    [FUSE_SYNCFS] = { share_op_syncfs, 0 },
};

static int share_run_op(struct share_msg *m, const struct share_op *op)
{
    struct share_node *n = NULL;
    int r;

    if (op->flags & OP_NODE) {
        n = share_node_get(m->s, m->in.nodeid);
        if (!n)
            return -ESTALE;
    }
    if (op->flags & OP_TREE)
        pthread_rwlock_rdlock(&m->s->tree);
    r = op->fn(m, n);
    if (op->flags & OP_TREE)
        pthread_rwlock_unlock(&m->s->tree);
    if (n)
        share_node_put(m->s, n);
    return r;
}

static int share_dispatch(struct share_msg *m)
{
    const struct share_op *op = m->in.opcode < ARRAY_LEN(share_ops) ? &share_ops[m->in.opcode] : NULL;

    if (!op || !op->fn)
        return -ENOSYS;
    if (!(op->flags & OP_ALWAYS) && !share_in_session(m->s))
        return -EIO;
    if ((op->flags & OP_WRITES) && m->s->ro)
        return -EROFS;
    return share_run_op(m, op);
}

/* No answer is due. INTERRUPT is ignored: nothing takes so long that it would help. */
static bool share_is_mute(uint32_t opcode)
{
    return opcode == FUSE_FORGET || opcode == FUSE_BATCH_FORGET || opcode == FUSE_INTERRUPT;
}

bool share_is_quick(const void *req, size_t len)
{
    struct fuse_in_header in;

    if (len < sizeof(in) || len > SHARE_QUICK_MAX)
        return len < sizeof(in);
    memcpy(&in, req, sizeof(in));
    return share_is_mute(in.opcode);
}

size_t share_call(struct share *s, const void *req, size_t len, void *reply, size_t room)
{
    struct share_msg m = { .s = s };
    struct fuse_out_header out;
    int r;

    if (len < sizeof(m.in))
        return 0;
    memcpy(&m.in, req, sizeof(m.in));
    m.arg = (const uint8_t *)req + sizeof(m.in);
    m.arg_len = len - sizeof(m.in);
    if (share_is_mute(m.in.opcode)) {
        share_forget(s, &m);
        return 0;
    }
    if (room < sizeof(out))
        return 0;
    m.out = (uint8_t *)reply + sizeof(out);
    m.room = room - sizeof(out);
    r = m.in.len == len ? share_dispatch(&m) : -EINVAL;
    out.len = (uint32_t)(sizeof(out) + (r < 0 ? 0 : m.out_len));
    out.error = r < 0 ? r : 0;
    out.unique = m.in.unique;
    memcpy(reply, &out, sizeof(out));
    return out.len;
}

/* ---- life ---- */

/* How many files the guest may have open: the process's limit is raised as far as it goes. */
static unsigned share_handle_limit(unsigned wanted)
{
    struct rlimit lim;

    if (getrlimit(RLIMIT_NOFILE, &lim) < 0)
        return 256;
    if (lim.rlim_cur < lim.rlim_max) {
        struct rlimit more = { .rlim_cur = lim.rlim_max, .rlim_max = lim.rlim_max };
        if (setrlimit(RLIMIT_NOFILE, &more) == 0)
            lim = more;
    }
    if (lim.rlim_cur / 2 <= SHARE_SPARE_FDS)
        return 64;
    return lim.rlim_cur / 2 - SHARE_SPARE_FDS < wanted ? (unsigned)(lim.rlim_cur / 2 - SHARE_SPARE_FDS) : wanted;
}

static int share_open_root(struct share *s, const char *path, struct err *err)
{
    struct statfs st;
    int fd = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);

    if (fd < 0)
        return err_set(err, errno, "cannot share '%s': %s: name a folder that is there", path, strerror(errno));
    s->root_fd = fd;
    /* What these show as files is the host's kernel itself. */
    if (fstatfs(fd, &st) < 0 || st.f_type == PROC_SUPER_MAGIC || st.f_type == SYSFS_MAGIC)
        return err_set(err, EPERM, "cannot share '%s': a folder of the kernel's own cannot be shared", path);
    fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return err_set(err, errno, "cannot share '%s': %s: choose a folder that you may read", path, strerror(errno));
    close(fd);
    s->proc_fd = open("/proc/self/fd", O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (s->proc_fd < 0)
        return err_set(err, errno, "cannot share '%s': /proc/self/fd: %s: mount /proc", path, strerror(errno));
    return 0;
}

static int share_setup(struct share *s, const struct share_options *o, struct err *err)
{
    struct statx stx;
    int r = share_open_root(s, o->path, err), fd;

    if (r < 0)
        return r;
    r = share_nodes_init(s, o->max_nodes ? o->max_nodes : SHARE_MAX_NODES);
    if (r < 0)
        return err_set(err, -r, "cannot share '%s': %s", o->path, strerror(-r));
    fd = share_node_fd(s, s->root, &stx); /* does this kernel have openat2()? */
    if (fd < 0)
        return err_set(err, -fd, "cannot share '%s': %s: Linux 5.8 or later is needed for it", o->path, strerror(-fd));
    close(fd);
    return 0;
}

int share_open(struct share **out, const struct share_options *o, struct err *err)
{
    struct share *s = calloc(1, sizeof(*s));
    int r;

    if (!s)
        return err_set(err, ENOMEM, "out of memory");
    s->root_fd = s->proc_fd = -1;
    s->ro = o->ro;
    snprintf(s->tag, sizeof(s->tag), "%s", o->tag ? o->tag : "");
    s->cache = o->cache;
    s->valid = o->cache == SHARE_CACHE_NONE ? 0 : o->cache == SHARE_CACHE_AUTO ? 1 : 86400;
    s->map = o->map;
    s->map_uid = o->uid;
    s->map_gid = o->gid;
    s->own_uid = geteuid();
    s->own_gid = getegid();
    s->as_root = s->own_uid == 0;
    s->handles.max = share_handle_limit(o->max_handles ? o->max_handles : SHARE_MAX_HANDLES);
    s->max_folders = s->handles.max < SHARE_MAX_FOLDERS ? s->handles.max : SHARE_MAX_FOLDERS;
    pthread_mutex_init(&s->lock, NULL);
    pthread_rwlock_init(&s->tree, NULL);
    r = share_setup(s, o, err);
    if (r < 0)
        share_close(s);
    else
        *out = s;
    return r;
}

void share_end_session(struct share *s)
{
    atomic_store(&s->session, false);
    share_handles_clear(s);
    pthread_mutex_lock(&s->lock);
    share_nodes_clear(s);
    pthread_mutex_unlock(&s->lock);
}

void share_close(struct share *s)
{
    if (!s)
        return;
    if (s->root)
        share_end_session(s);
    share_nodes_fini(s);
    share_table_fini(&s->handles);
    if (s->root_fd >= 0)
        close(s->root_fd);
    if (s->proc_fd >= 0)
        close(s->proc_fd);
    pthread_mutex_destroy(&s->lock);
    pthread_rwlock_destroy(&s->tree);
    free(s);
}

bool share_in_session(const struct share *s) { return atomic_load(&s->session); }

void share_count(struct share *s, unsigned *nodes, unsigned *handles)
{
    pthread_mutex_lock(&s->lock);
    *nodes = s->nodes.count - 1;
    *handles = s->handles.count;
    pthread_mutex_unlock(&s->lock);
}
