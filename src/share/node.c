/* What the guest knows by number: files, folders and links, each as a name in a parent. See internal.h.
 *
 * The tree of names is the server's memory of where things were, not the truth: the host may have changed it, and
 * a hard link has one name here, the one that was looked up last. A path that leads elsewhere by now gives ESTALE,
 * on which Linux looks the names up again and retries, which mends the memory.
 *
 * Locks: all of it under share->lock; functions with "locked" in their name are called with it held.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "share/internal.h"

#define SHARE_FIRST_BUCKETS 64U

void share_id_of(struct share_id *id, const struct statx *stx)
{
    id->dev = (uint64_t)stx->stx_dev_major << 32 | stx->stx_dev_minor;
    id->ino = stx->stx_ino;
    id->born = stx->stx_mask & STATX_BTIME
                   ? (uint64_t)stx->stx_btime.tv_sec * 1000000000U + stx->stx_btime.tv_nsec
                   : 0;
}

static bool share_id_same(const struct share_id *a, const struct share_id *b)
{
    return a->ino == b->ino && a->dev == b->dev && a->born == b->born;
}

/* ---- the hash, by identity ---- */

static struct share_node **share_bucket(struct share_node **hash, size_t buckets, const struct share_id *id)
{
    uint64_t h = (id->ino ^ id->dev << 7 ^ id->born) * 0x9e3779b97f4a7c15ULL;
    return &hash[(h >> 32) & (buckets - 1)];
}

static struct share_node *share_find_locked(struct share *s, const struct share_id *id)
{
    struct share_node *n = *share_bucket(s->hash, s->buckets, id);

    while (n && !share_id_same(&n->id, id))
        n = n->chain;
    return n;
}

static void share_hash_locked(struct share *s, struct share_node *n)
{
    struct share_node **b = share_bucket(s->hash, s->buckets, &n->id);

    n->chain = *b;
    *b = n;
    n->hashed = true;
}

static void share_unhash_locked(struct share *s, struct share_node *n)
{
    struct share_node **b = share_bucket(s->hash, s->buckets, &n->id);

    if (!n->hashed)
        return;
    while (*b != n)
        b = &(*b)->chain;
    *b = n->chain;
    n->hashed = false;
}

/* More buckets, as nodes become more; without memory the chains get longer, that is all. */
static void share_rehash_locked(struct share *s)
{
    size_t buckets = 2 * s->buckets;
    struct share_node **hash;

    if (s->nodes.count < s->buckets)
        return;
    hash = calloc(buckets, sizeof(struct share_node *));
    if (!hash)
        return;
    free(s->hash);
    s->hash = hash;
    s->buckets = buckets;
    for (uint32_t i = 0; i < s->nodes.used; i++) {
        struct share_node *n = share_table_at(&s->nodes, i);
        if (n && n->hashed)
            share_hash_locked(s, n);
    }
}

/* ---- life ---- */

/* Give back a reference, and the node and its parents if it was the last. */
static void share_unref_locked(struct share *s, struct share_node *n)
{
    while (n && --n->refs == 0 && !n->lookups) {
        struct share_node *parent = n->parent;

        share_unhash_locked(s, n);
        share_table_del(&s->nodes, n->nodeid);
        free(n->name);
        free(n);
        n = parent;
    }
}

/* Take the name away. The parent's reference goes with it. */
static void share_unname_locked(struct share *s, struct share_node *n)
{
    struct share_node *parent = n->parent;

    free(n->name);
    n->name = NULL;
    n->parent = NULL;
    share_unref_locked(s, parent);
}

/* Is n the node `below`, or above it? The host may have turned the tree around since we saw parts of it. */
static bool share_is_above_locked(const struct share_node *n, const struct share_node *below)
{
    while (below && below != n)
        below = below->parent;
    return below != NULL;
}

static bool share_is_named(const struct share_node *n, const struct share_node *parent, const char *name)
{
    return n->parent == parent && n->name && !strcmp(n->name, name);
}

static int share_name_locked(struct share *s, struct share_node *n, struct share_node *parent, const char *name)
{
    char *copy;

    if (share_is_named(n, parent, name))
        return 0;
    if (n == s->root || share_is_above_locked(n, parent))
        return -ELOOP;
    copy = strdup(name);
    if (!copy)
        return -ENOMEM;
    parent->refs++; /* first: it may be above the old one */
    share_unname_locked(s, n);
    n->parent = parent;
    n->name = copy;
    return 0;
}

static struct share_node *share_new_locked(struct share *s, const struct share_id *id, uint16_t mode, int *error)
{
    struct share_node *n = calloc(1, sizeof(*n));

    *error = -ENOMEM;
    if (!n)
        return NULL;
    n->id = *id;
    n->type = mode & S_IFMT;
    n->nodeid = share_table_add(&s->nodes, n);
    if (!n->nodeid) {
        *error = -ENFILE;
        free(n);
        return NULL;
    }
    share_rehash_locked(s);
    share_hash_locked(s, n);
    return n;
}

int share_nodes_init(struct share *s, unsigned max)
{
    struct share_id id;
    struct statx stx;
    int r = share_stat(s->root_fd, &stx);

    if (r < 0)
        return r;
    s->nodes.max = max + 1;
    s->buckets = SHARE_FIRST_BUCKETS;
    s->hash = calloc(s->buckets, sizeof(struct share_node *));
    if (!s->hash)
        return -ENOMEM;
    share_id_of(&id, &stx);
    s->root = share_new_locked(s, &id, stx.stx_mode, &r);
    if (!s->root)
        return r;
    s->root->lookups = 1;
    s->root->refs = 1; /* for ever */
    return 0;
}

/* All but the root: their handles are closed, no call is running. */
void share_nodes_clear(struct share *s)
{
    for (uint32_t i = 0; i < s->nodes.used; i++) {
        struct share_node *n = share_table_at(&s->nodes, i);

        if (!n || n == s->root)
            continue;
        share_unhash_locked(s, n);
        share_table_del(&s->nodes, n->nodeid);
        free(n->name);
        free(n);
    }
    s->root->refs = 1;
}

void share_nodes_fini(struct share *s)
{
    if (s->root)
        share_nodes_clear(s);
    free(s->root);
    free(s->hash);
    share_table_fini(&s->nodes);
}

/* ---- what calls do ---- */

struct share_node *share_node_get(struct share *s, uint64_t nodeid)
{
    struct share_node *n;

    pthread_mutex_lock(&s->lock);
    n = share_table_get(&s->nodes, nodeid);
    if (n)
        n->refs++;
    pthread_mutex_unlock(&s->lock);
    return n;
}

void share_node_put(struct share *s, struct share_node *n)
{
    pthread_mutex_lock(&s->lock);
    share_unref_locked(s, n);
    pthread_mutex_unlock(&s->lock);
}

void share_node_forget(struct share *s, uint64_t nodeid, uint64_t lookups)
{
    struct share_node *n;

    pthread_mutex_lock(&s->lock);
    n = share_table_get(&s->nodes, nodeid);
    if (n && n != s->root) {
        n->refs++;
        n->lookups -= lookups < n->lookups ? lookups : n->lookups;
        share_unref_locked(s, n);
    }
    pthread_mutex_unlock(&s->lock);
}

int share_node_enter(struct share *s, struct share_node *parent, const char *name, const struct statx *stx,
                     uint64_t *nodeid)
{
    struct share_node *n;
    struct share_id id;
    int r = 0;

    share_id_of(&id, stx);
    pthread_mutex_lock(&s->lock);
    n = share_find_locked(s, &id);
    if (!n)
        n = share_new_locked(s, &id, stx->stx_mode, &r);
    if (n) {
        n->refs++;
        r = share_name_locked(s, n, parent, name);
        if (r == 0)
            n->lookups++;
        *nodeid = n->nodeid;
        share_unref_locked(s, n);
    }
    pthread_mutex_unlock(&s->lock);
    return r;
}

void share_node_removed(struct share *s, struct share_node *parent, const char *name, const struct share_id *id,
                        bool gone)
{
    struct share_node *n;

    pthread_mutex_lock(&s->lock);
    n = share_find_locked(s, id);
    if (n && n != s->root) {
        n->refs++;
        if (share_is_named(n, parent, name))
            share_unname_locked(s, n);
        if (gone)
            share_unhash_locked(s, n);
        share_unref_locked(s, n);
    }
    pthread_mutex_unlock(&s->lock);
}

void share_node_moved(struct share *s, struct share_node *from, const char *name, const struct share_id *id,
                      struct share_node *to, const char *new_name)
{
    struct share_node *n;

    pthread_mutex_lock(&s->lock);
    n = share_find_locked(s, id);
    if (n && share_is_named(n, from, name)) {
        n->refs++;
        if (share_name_locked(s, n, to, new_name) < 0)
            share_unname_locked(s, n);
        share_unref_locked(s, n);
    }
    pthread_mutex_unlock(&s->lock);
}

bool share_node_load(struct share *s, struct share_node *n, struct share_node *parent)
{
    bool good;

    pthread_mutex_lock(&s->lock);
    good = share_table_put(&s->nodes, n->nodeid, n);
    if (good && parent) {
        n->parent = parent;
        parent->refs++;
    }
    pthread_mutex_unlock(&s->lock);
    return good;
}

void share_node_know(struct share *s, struct share_node *n, const struct share_id *id)
{
    pthread_mutex_lock(&s->lock);
    if (!share_find_locked(s, id)) {
        n->id = *id;
        share_rehash_locked(s);
        share_hash_locked(s, n);
    }
    pthread_mutex_unlock(&s->lock);
}

/* Put text and a slash before what is at path + *at. */
static bool share_prepend(char *path, size_t *at, const char *text)
{
    size_t len = strlen(text);

    if (len + 1 > *at)
        return false;
    *at -= len + 1;
    memcpy(path + *at, text, len);
    path[*at + len] = '/';
    return true;
}

int share_node_path(struct share *s, struct share_node *n, const char *name, char path[SHARE_PATH_MAX])
{
    size_t at = SHARE_PATH_MAX;
    bool fits = !name || share_prepend(path, &at, name);
    int r = 0;

    pthread_mutex_lock(&s->lock);
    for (; fits && n->name; n = n->parent)
        fits = share_prepend(path, &at, n->name);
    if (!fits)
        r = -ENAMETOOLONG;
    else if (n != s->root)
        r = -ESTALE;
    pthread_mutex_unlock(&s->lock);
    if (r < 0)
        return r;
    if (at == SHARE_PATH_MAX) {
        strcpy(path, ".");
        return 0;
    }
    path[SHARE_PATH_MAX - 1] = '\0'; /* in place of the last slash */
    memmove(path, path + at, SHARE_PATH_MAX - at);
    return 0;
}
