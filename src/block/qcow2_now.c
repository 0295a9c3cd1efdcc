/* Reads of a qcow2 disk that need not wait: tables in memory, data in the host's page cache; and where data lies, for those that
 * wait elsewhere.
 *
 * Any thread, also one that must not stop (a vCPU's). Locks are only tried: whoever has `lock` alone may be
 * loading a table, and who has `io` alone is in a commit. What cannot be had at once is -EAGAIN, and is then
 * read by qcow2_read().
 */
#include <errno.h>
#include <string.h>

#include "block/qcow2_int.h"

#define NOW_PARTS 256

/* Where a piece of the request goes. */
struct now_piece {
    unsigned n;
    struct iovec iov[NOW_PARTS];
};

/* Bytes [at, at+len) of a vector, which has them. */
static int now_slice(struct now_piece *p, const struct iovec *iov, unsigned n, size_t at, size_t len)
{
    p->n = 0;
    for (unsigned i = 0; i < n && len > 0; i++) {
        size_t here = at < iov[i].iov_len ? iov[i].iov_len - at : 0;

        here = here < len ? here : len;
        if (here && p->n == NOW_PARTS)
            return -EAGAIN;
        if (here)
            p->iov[p->n++] = (struct iovec){ (uint8_t *)iov[i].iov_base + at, here };
        at -= at < iov[i].iov_len ? at : iov[i].iov_len;
        len -= here;
    }
    return len ? -EINVAL : 0;
}

static int now_zero(const struct now_piece *p)
{
    for (unsigned i = 0; i < p->n; i++)
        memset(p->iov[i].iov_base, 0, p->iov[i].iov_len);
    return 0;
}

static int now_backing(struct qcow2 *q, const struct qextent *e, uint64_t off, const struct now_piece *p)
{
    if (!q->backing || off >= q->backing->size)
        return now_zero(p);
    if (off + e->len > q->backing->size)
        return -EAGAIN;
    return block_read_now(q->backing, off, p->iov, p->n, e->len);
}

static int now_extent(struct qcow2 *q, const struct qextent *e, uint64_t off, const struct now_piece *p)
{
    int r = -EAGAIN;

    if (e->kind == QK_DATA)
        r = imgfile_read_now(q->f, e->host, p->iov, p->n, e->len);
    else if (e->kind == QK_ZERO)
        r = now_zero(p);
    else if (e->kind == QK_UNALLOC)
        r = now_backing(q, e, off, p);
    /* A file of a chain that never can does not speak for the others. */
    return r == -EOPNOTSUPP ? -EAGAIN : r;
}

/* io held shared. */
static int now_read(struct qcow2 *q, uint64_t off, const struct iovec *iov, unsigned n, size_t len)
{
    struct now_piece p;
    struct qextent e;
    int r = 0;

    for (size_t at = 0; r == 0 && at < len; at += e.len) {
        if (pthread_rwlock_tryrdlock(&q->lock))
            return -EAGAIN;
        r = qcow2_lookup_cached(q, off + at, len - at, &e);
        pthread_rwlock_unlock(&q->lock);
        if (r == 0)
            r = now_slice(&p, iov, n, at, e.len);
        if (r == 0)
            r = now_extent(q, &e, off + at, &p);
    }
    return r;
}

int qcow2_read_now(struct block *b, uint64_t off, const struct iovec *iov, unsigned n, size_t len)
{
    struct qcow2 *q = qcow2_of(b);
    int r;

    if (pthread_rwlock_tryrdlock(&q->io))
        return -EAGAIN;
    r = now_read(q, off, iov, n, len);
    pthread_rwlock_unlock(&q->io);
    return r;
}

/* io held shared. */
static int now_place(struct qcow2 *q, uint64_t off, size_t len, struct block_place *p)
{
    struct qextent e;
    int r;

    if (pthread_rwlock_tryrdlock(&q->lock))
        return -EAGAIN;
    r = qcow2_lookup_cached(q, off, len, &e);
    pthread_rwlock_unlock(&q->lock);
    if (r < 0)
        return r;
    if (e.len < len)
        return -EAGAIN;
    if (e.kind == QK_UNALLOC && q->backing && !range_outside(off, len, q->backing->size))
        return block_hold(q->backing, off, len, p);
    if (e.kind != QK_DATA || !q->f->ops->fd)
        return -EOPNOTSUPP;
    *p = (struct block_place){ .fd = q->f->ops->fd(q->f), .off = e.host, .holder = &q->block };
    return 0;
}

/* A data cluster is not used for anything else while `io` is held, for as long as that takes. */
int qcow2_hold(struct block *b, uint64_t off, size_t len, struct block_place *p)
{
    struct qcow2 *q = qcow2_of(b);
    int r;

    if (pthread_rwlock_tryrdlock(&q->io))
        return -EAGAIN;
    r = now_place(q, off, len, p);
    if (r < 0 || p->holder != b)
        pthread_rwlock_unlock(&q->io);
    return r;
}

void qcow2_release(struct block *b) { pthread_rwlock_unlock(&qcow2_of(b)->io); }
