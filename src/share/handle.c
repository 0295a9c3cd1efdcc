/* Open files and folders of the guest. See internal.h.
 *
 * A handle holds its node, and is closed when the guest has released it and no call uses it. While a file is open,
 * its node is reached through the handle: that is how removed files stay alive.
 * Locks: share->lock.
 */
#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

#include "share/internal.h"

static void share_handle_free(struct share_handle *h)
{
    if (h->fd >= 0)
        close(h->fd);
    pthread_mutex_destroy(&h->dir_lock);
    free(h->buf);
    free(h);
}

/* It has its number: the guest has it open. */
static void share_handle_link_locked(struct share *s, struct share_node *n, struct share_handle *h)
{
    h->users = 1;
    h->node = n;
    h->next = n->handles;
    n->handles = h;
    n->refs++;
    s->folders += h->folder;
}

int share_handle_add(struct share *s, struct share_node *n, int fd, bool folder, uint64_t *fh)
{
    struct share_handle *h = calloc(1, sizeof(*h));
    int r = 0;

    if (!h) {
        close(fd);
        return -ENOMEM;
    }
    h->fd = fd;
    h->folder = folder;
    pthread_mutex_init(&h->dir_lock, NULL);
    pthread_mutex_lock(&s->lock);
    if (folder && s->folders == s->max_folders)
        r = -ENFILE;
    else if (!(h->fh = share_table_add(&s->handles, h)))
        r = -ENFILE;
    if (r == 0) {
        share_handle_link_locked(s, n, h);
        *fh = h->fh;
    }
    pthread_mutex_unlock(&s->lock);
    if (r < 0)
        share_handle_free(h);
    return r;
}

bool share_handle_load(struct share *s, struct share_node *n, struct share_handle *h)
{
    bool good;

    pthread_mutex_init(&h->dir_lock, NULL);
    pthread_mutex_lock(&s->lock);
    good = (!h->folder || s->folders < s->max_folders) && share_table_put(&s->handles, h->fh, h);
    if (good)
        share_handle_link_locked(s, n, h);
    pthread_mutex_unlock(&s->lock);
    if (!good)
        share_handle_free(h);
    return good;
}

int share_handle_get(struct share *s, uint64_t fh, bool folder, struct share_handle **out)
{
    struct share_handle *h;
    int r = 0;

    pthread_mutex_lock(&s->lock);
    h = share_table_get(&s->handles, fh);
    if (!h || h->folder != folder)
        r = -EBADF;
    else if (h->fd < 0)
        r = -ESTALE;
    else
        h->users++;
    pthread_mutex_unlock(&s->lock);
    *out = r == 0 ? h : NULL;
    return r;
}

struct share_handle *share_handle_of(struct share *s, struct share_node *n)
{
    struct share_handle *h;

    pthread_mutex_lock(&s->lock);
    for (h = n->handles; h && h->fd < 0; h = h->next)
        ;
    if (h)
        h->users++;
    pthread_mutex_unlock(&s->lock);
    return h;
}

static void share_handle_unlink(struct share_handle *h)
{
    struct share_handle **p = &h->node->handles;

    while (*p != h)
        p = &(*p)->next;
    *p = h->next;
}

void share_handle_put(struct share *s, struct share_handle *h)
{
    bool last;

    pthread_mutex_lock(&s->lock);
    last = --h->users == 0;
    if (last) {
        share_handle_unlink(h);
        s->folders -= h->folder;
    }
    pthread_mutex_unlock(&s->lock);
    if (!last)
        return;
    share_node_put(s, h->node);
    share_handle_free(h);
}

int share_handle_release(struct share *s, uint64_t fh, bool folder)
{
    struct share_handle *h;

    pthread_mutex_lock(&s->lock);
    h = share_table_get(&s->handles, fh);
    if (h && h->folder == folder)
        share_table_del(&s->handles, fh);
    else
        h = NULL;
    pthread_mutex_unlock(&s->lock);
    if (!h)
        return -EBADF;
    share_handle_put(s, h);
    return 0;
}

/* No call is running, or all that are have a reference of their own. */
void share_handles_clear(struct share *s)
{
    for (uint32_t i = 0;; i++) {
        struct share_handle *h;
        uint64_t fh = 0;

        pthread_mutex_lock(&s->lock);
        bool end = i >= s->handles.used;
        h = share_table_at(&s->handles, i);
        if (h)
            fh = h->fh;
        pthread_mutex_unlock(&s->lock);
        if (end)
            return;
        if (h)
            share_handle_release(s, fh, h->folder);
    }
}
