/* A session as bytes: what the guest knows by number and has open, for a machine that is saved or moves. See share.h.
 *
 *   head    SESSION_HEAD bytes: flags:u32 agreed:u32 tag:u8[40] dev:u64 ino:u64 born:u64 (of the folder)
 *           then, of nodes and of handles: slots:u32 generation:u32 count:u32
 *   node    nodeid:u64 parent:u64 dev:u64 ino:u64 born:u64 lookups:u64 type:u16 flags:u8 length:u8, then its name; a parent comes
 *           before its children, the root is not among them; parent 0: it has no name any more
 *   handle  fh:u64 nodeid:u64 open:u32 flags:u32
 *
 * Little-endian. Nodes are paths, so this is all there is: no descriptor, no position (the guest says it each time), no lock (they are the
 * guest's own).
 *
 * Is it still the same? In the folder that it was, identities decide, as ever: nothing is looked at before the guest asks. A folder with
 * another identity is a copy, on another host or made by hand: there each node is looked for by its path, and is what has the same type.
 * Numbers of devices are given out by each host as it likes, so the folder's own is translated.
 *
 * Thread: the machine's, or whoever builds one. Locks: share->lock.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/bits.h"
#include "base/err.h"
#include "base/log.h"
#include "share/internal.h"

#define SESSION_HEAD   96U
#define SESSION_NODE   52U
#define SESSION_HANDLE 24U
#define SESSION_TAG    8U  /* where it is */
#define SESSION_ROOT   48U
#define SESSION_NODES  72U
#define SESSION_HANDLES 84U
_Static_assert(SHARE_TAG < SESSION_ROOT - SESSION_TAG, "the tag has its end");

enum { SESSION_IS = 1, SESSION_IS_WHOLE = 2 }; /* flags of the head */
enum { NODE_KNOWN = 1 };                       /* of a node: it was found by its identity */
enum { HANDLE_FOLDER = 1, HANDLE_FAILED = 2, HANDLE_LOST = 4, HANDLE_FOREIGN = 8, HANDLE_ALL = 15 };
#define SESSION_OPEN (O_ACCMODE | O_DSYNC | O_SYNC) /* flags of open() that last */

/* ---- writing ---- */

static void session_put_id(uint8_t *at, const struct share_id *id)
{
    st_le64(at, id->dev);
    st_le64(at + 8, id->ino);
    st_le64(at + 16, id->born);
}

static void session_put_table(uint8_t *at, const struct share_table *t, uint32_t count)
{
    st_le32(at, t->used);
    st_le32(at + 4, share_table_generation(t));
    st_le32(at + 8, count);
}

static uint8_t *session_put_node(uint8_t *at, const struct share_node *n)
{
    size_t len = n->name ? strlen(n->name) : 0;

    st_le64(at, n->nodeid);
    st_le64(at + 8, n->parent ? n->parent->nodeid : 0);
    session_put_id(at + 16, &n->id);
    st_le64(at + 40, n->lookups);
    st_le16(at + 48, n->type);
    at[50] = n->hashed ? NODE_KNOWN : 0;
    at[51] = (uint8_t)len;
    memcpy(at + SESSION_NODE, n->name ? n->name : "", len);
    return at + SESSION_NODE + len;
}

/* A node, behind those above it that have not been written yet. chain has room for all nodes. */
static uint8_t *session_put_chain(uint8_t *at, struct share_node *n, struct share_node **chain)
{
    size_t depth = 0;

    for (; n && !n->written; n = n->parent) {
        n->written = true;
        chain[depth++] = n;
    }
    while (depth)
        at = session_put_node(at, chain[--depth]);
    return at;
}

static uint8_t *session_put_nodes_locked(struct share *s, uint8_t *at, struct share_node **chain)
{
    for (uint32_t i = 0; i < s->nodes.used; i++) {
        struct share_node *n = share_table_at(&s->nodes, i);
        if (n)
            n->written = n == s->root;
    }
    for (uint32_t i = 0; i < s->nodes.used; i++)
        at = session_put_chain(at, share_table_at(&s->nodes, i), chain);
    return at;
}

static uint8_t *session_put_handle(uint8_t *at, const struct share_handle *h)
{
    int open = h->fd < 0 ? 0 : fcntl(h->fd, F_GETFL);

    st_le64(at, h->fh);
    st_le64(at + 8, h->node->nodeid);
    st_le32(at + 16, (uint32_t)open & SESSION_OPEN);
    st_le32(at + 20, (h->folder ? HANDLE_FOLDER : 0) | (h->failed ? HANDLE_FAILED : 0) | (h->fd < 0 ? HANDLE_LOST : 0) |
                         (h->foreign ? HANDLE_FOREIGN : 0));
    return at + SESSION_HANDLE;
}

/* Everything behind the head. */
static int session_put_locked(struct share *s, uint8_t **out, size_t *len)
{
    struct share_node **chain = calloc(s->nodes.count, sizeof(struct share_node *));
    size_t size = SESSION_HEAD + s->handles.count * SESSION_HANDLE;
    uint8_t *all, *at;

    for (uint32_t i = 0; i < s->nodes.used; i++) {
        const struct share_node *n = share_table_at(&s->nodes, i);
        if (n && n != s->root)
            size += SESSION_NODE + (n->name ? strlen(n->name) : 0);
    }
    all = chain ? realloc(*out, size) : NULL;
    if (all) {
        session_put_table(all + SESSION_NODES, &s->nodes, s->nodes.count - 1);
        session_put_table(all + SESSION_HANDLES, &s->handles, s->handles.count);
        at = session_put_nodes_locked(s, all + SESSION_HEAD, chain);
        for (uint32_t i = 0; i < s->handles.used; i++) {
            const struct share_handle *h = share_table_at(&s->handles, i);
            if (h)
                at = session_put_handle(at, h);
        }
        *out = all;
        *len = size;
    }
    free(chain);
    return all ? 0 : -ENOMEM;
}

/* Is all that is open to be found by a name? */
static bool session_named_locked(const struct share *s)
{
    for (uint32_t i = 0; i < s->handles.used; i++) {
        const struct share_handle *h = share_table_at(&s->handles, i);
        struct stat st;

        if (!h || h->fd < 0)
            continue;
        if ((!h->node->name && h->node != s->root) || (fstat(h->fd, &st) == 0 && !st.st_nlink))
            return false;
    }
    return true;
}

static int session_save_locked(struct share *s, enum share_part part, uint8_t **out, size_t *len, struct err *err)
{
    uint8_t *head = *out;

    if (part == SHARE_NOTHING)
        return 0;
    st_le32(head, SESSION_IS | (part == SHARE_WHOLE ? SESSION_IS_WHOLE : 0));
    st_le32(head + 4, s->flags);
    memcpy(head + SESSION_TAG, s->tag, sizeof(s->tag));
    session_put_id(head + SESSION_ROOT, &s->root->id);
    if (!session_named_locked(s))
        return err_set(err, ENOTSUP, "a file of the shared folder '%s' was removed and is still open in the guest: it has no name by which "
                                     "it could be found again; close it first", s->tag);
    if (part == SHARE_SHAPE)
        return 0;
    return session_put_locked(s, out, len) < 0 ? err_set(err, ENOMEM, "out of memory for the shared folder '%s'", s->tag) : 0;
}

int share_session_save(struct share *s, enum share_part part, uint8_t **out, size_t *len, struct err *err)
{
    int r;

    *len = SESSION_HEAD;
    *out = calloc(1, SESSION_HEAD);
    if (!*out)
        return err_set(err, ENOMEM, "out of memory for the shared folder '%s'", s->tag);
    pthread_mutex_lock(&s->lock);
    r = session_save_locked(s, part, out, len, err);
    pthread_mutex_unlock(&s->lock);
    if (r < 0) {
        free(*out);
        *out = NULL;
    }
    return r;
}

/* ---- reading ---- */

/* Bytes not read yet, and how they are meant. */
struct session {
    struct share *s;
    const uint8_t *at;
    size_t left;
    bool same;         /* the folder is the one that it was */
    uint64_t dev;      /* what was its device */
    unsigned lost;     /* open files that are not there */
    struct share_node *folder; /* in a copy: the one that was looked in last, as nodes of one folder come in a row; NULL: none */
    int folder_fd;             /* open as a place only; -1: it is not there */
};

static const uint8_t *session_take(struct session *in, size_t len)
{
    const uint8_t *at = in->at;

    if (len > in->left)
        return NULL;
    in->at += len;
    in->left -= len;
    return at;
}

static struct share_id session_id(const uint8_t *at)
{
    return (struct share_id){ .dev = ld_le64(at), .ino = ld_le64(at + 8), .born = ld_le64(at + 16) };
}

/* As share_name() wants them. */
static bool session_name_ok(const char *name, size_t len)
{
    return len && !memchr(name, 0, len) && !memchr(name, '/', len) && !(name[0] == '.' && (len == 1 || (len == 2 && name[1] == '.')));
}

static void session_shut(struct session *in)
{
    if (in->folder && in->folder_fd >= 0)
        close(in->folder_fd);
    in->folder = NULL;
}

/* What is there by the node's name in its folder, which was found before it. */
static bool session_find(struct session *in, struct share_node *n, struct share_id *id)
{
    struct statx stx;

    if (in->folder != n->parent) {
        session_shut(in);
        in->folder = n->parent;
        in->folder_fd = n->parent->id.ino || n->parent->id.dev ? share_folder_fd(in->s, n->parent, &stx) : -1;
    }
    if (in->folder_fd < 0 || statx(in->folder_fd, n->name, AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT, STATX_BASIC_STATS | STATX_BTIME, &stx) < 0)
        return false;
    share_id_of(id, &stx);
    return (stx.stx_mode & S_IFMT) == n->type;
}

static struct share_node *session_new_node(const uint8_t *at, const char *name, size_t len)
{
    struct share_node *n = calloc(1, sizeof(*n));

    if (n && len)
        n->name = strndup(name, len);
    if (n && len && !n->name) {
        free(n);
        return NULL;
    }
    if (n) {
        n->nodeid = ld_le64(at);
        n->lookups = ld_le64(at + 40);
        n->type = ld_le16(at + 48);
    }
    return n;
}

static int session_take_node(struct session *in)
{
    const uint8_t *at = session_take(in, SESSION_NODE), *name = at ? session_take(in, at[51]) : NULL;
    struct share_node *n, *parent;
    struct share_id id;

    if (!name || (ld_le16(at + 48) & ~S_IFMT) || (at[50] & ~NODE_KNOWN) || !ld_le64(at + 8) != !at[51])
        return -EINVAL;
    parent = share_table_get(&in->s->nodes, ld_le64(at + 8)); /* nobody else is at the tables yet */
    if (at[51] && (!session_name_ok((const char *)name, at[51]) || !parent))
        return -EINVAL;
    n = session_new_node(at, (const char *)name, at[51]);
    if (!n)
        return -ENOMEM;
    if (!share_node_load(in->s, n, at[51] ? parent : NULL)) {
        free(n->name);
        free(n);
        return -EINVAL;
    }
    id = session_id(at + 16);
    if (in->same && id.dev == in->dev)
        id.dev = in->s->root->id.dev;
    if ((at[50] & NODE_KNOWN) && (in->same || (n->name && session_find(in, n, &id))))
        share_node_know(in->s, n, &id);
    return 0;
}

/* A descriptor like the one that there was, or -errno. */
static int session_open(struct share *s, struct share_node *n, uint32_t flags, bool folder)
{
    struct statx stx;
    int path, fd;

    if (s->ro && (flags & O_ACCMODE) != O_RDONLY)
        return -EROFS;
    path = share_node_fd(s, n, &stx);
    if (path < 0)
        return path;
    fd = !S_ISDIR(stx.stx_mode) == !folder ? share_reopen(s, path, &stx, folder ? O_RDONLY | O_DIRECTORY : (int)flags) : -ESTALE;
    close(path);
    return fd;
}

static int session_take_handle(struct session *in)
{
    const uint8_t *at = session_take(in, SESSION_HANDLE);
    uint32_t open = at ? ld_le32(at + 16) : 0, flags = at ? ld_le32(at + 20) : 0;
    struct share_node *n = at ? share_table_get(&in->s->nodes, ld_le64(at + 8)) : NULL;
    bool folder = flags & HANDLE_FOLDER;
    struct share_handle *h;

    if (!n || (flags & ~(uint32_t)HANDLE_ALL) || (open & ~(uint32_t)SESSION_OPEN) || (open & O_ACCMODE) == O_ACCMODE)
        return -EINVAL;
    h = calloc(1, sizeof(*h));
    if (!h)
        return -ENOMEM;
    h->fh = ld_le64(at);
    h->folder = folder;
    h->failed = flags & HANDLE_FAILED;
    h->foreign = folder && (!in->same || flags & HANDLE_FOREIGN);
    h->fd = flags & HANDLE_LOST ? -ESTALE : session_open(in->s, n, open, folder);
    if (h->fd < 0) {
        h->fd = -1;
        in->lost++;
    }
    return share_handle_load(in->s, n, h) ? 0 : -EINVAL; /* took it over */
}

/* Nobody would ever forget a node that the guest does not know and nothing refers to. */
static int session_check_nodes(const struct share *s)
{
    for (uint32_t i = 0; i < s->nodes.used; i++) {
        const struct share_node *n = share_table_at(&s->nodes, i);
        if (n && !n->lookups && !n->refs)
            return -EINVAL;
    }
    return 0;
}

static int session_take_all(struct session *in, const uint8_t *head)
{
    struct share *s = in->s;
    int r = share_table_widen(&s->nodes, ld_le32(head + SESSION_NODES), ld_le32(head + SESSION_NODES + 4));

    if (r == 0)
        r = share_table_widen(&s->handles, ld_le32(head + SESSION_HANDLES), ld_le32(head + SESSION_HANDLES + 4));
    for (uint32_t n = ld_le32(head + SESSION_NODES + 8); r == 0 && n > 0; n--)
        r = session_take_node(in);
    for (uint32_t n = ld_le32(head + SESSION_HANDLES + 8); r == 0 && n > 0; n--)
        r = session_take_handle(in);
    if (r == 0)
        r = in->left ? -EINVAL : session_check_nodes(s);
    share_table_link(&s->nodes);
    share_table_link(&s->handles);
    return r;
}

bool share_session_tag(const uint8_t *data, size_t len, char *tag)
{
    if (len < SESSION_HEAD || !(ld_le32(data) & SESSION_IS))
        return false;
    snprintf(tag, SHARE_TAG + 1, "%.*s", SHARE_TAG, (const char *)data + SESSION_TAG);
    return true;
}

static int session_check_head(const struct share *s, const uint8_t *data, size_t len, struct err *err)
{
    uint32_t known = share_features(s) | FUSE_WRITEBACK_CACHE | FUSE_AUTO_INVAL_DATA;
    char tag[SHARE_TAG + 1];

    if (len < SESSION_HEAD || (ld_le32(data) & ~(uint32_t)(SESSION_IS | SESSION_IS_WHOLE)) || ld_le32(data) == SESSION_IS_WHOLE)
        return err_set(err, EINVAL, "what the guest knows of the shared folder '%s' is damaged", s->tag);
    if (share_session_tag(data, len, tag) && strcmp(tag, s->tag))
        return err_set(err, EINVAL, "the guest has mounted the shared folder '%s', and here is '%s' in its place: add --share DIR,tag=%s", tag,
                       s->tag, tag);
    if (ld_le32(data + 4) & ~known)
        return err_set(err, ENOTSUP, "the guest agreed with its shared folder '%s' on what this vitro does not know (%x)", s->tag,
                       ld_le32(data + 4) & ~known);
    return 0;
}

int share_session_load(struct share *s, enum share_part part, const uint8_t *data, size_t len, struct err *err)
{
    struct session in = { .s = s, .at = data + SESSION_HEAD, .left = len - SESSION_HEAD };
    int r = session_check_head(s, data, len, err);
    struct share_id root;

    if (r < 0 || part != SHARE_WHOLE || !(ld_le32(data) & SESSION_IS_WHOLE))
        return r;
    if (share_in_session(s) || s->nodes.count > 1)
        return err_set(err, EBUSY, "the shared folder '%s' is mounted already", s->tag);
    root = session_id(data + SESSION_ROOT);
    in.dev = root.dev;
    in.same = root.ino == s->root->id.ino && root.born == s->root->id.born && (root.born || root.dev == s->root->id.dev);
    r = session_take_all(&in, data);
    session_shut(&in);
    if (r == -ENFILE)
        return err_set(err, ENFILE, "the guest has more of its shared folder '%s' open than this process may (%u files): raise `ulimit -n`",
                       s->tag, s->handles.max);
    if (r < 0)
        return err_set(err, -r, "what the guest knows of the shared folder '%s' is damaged: %s", s->tag, strerror(-r));
    if (in.lost)
        log_msg(LOG_WARN, "shared folder '%s': %u files that the guest has open are not here; it gets ESTALE", s->tag, in.lost);
    s->flags = ld_le32(data + 4);
    atomic_store(&s->writeback, s->flags & FUSE_WRITEBACK_CACHE);
    atomic_store(&s->session, true);
    return 0;
}
