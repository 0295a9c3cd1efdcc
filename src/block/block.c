/* The checked face of every form of disk, see block.h.
 * Runs on: I/O threads, several at a time; no lock but that of flushes' turns, the failure mark is atomic.
 */
#include "block/block.h"

#include <errno.h>
#include <stdlib.h>

#include "base/bits.h"

static int block_check(const struct block *b, uint64_t off, uint64_t len)
{
    if (!len || (off | len) % BLOCK_SECTOR || range_outside(off, len, b->size))
        return -EINVAL;
    return 0;
}

static int block_check_change(struct block *b, uint64_t off, uint64_t len)
{
    int r = block_check(b, off, len);

    if (r == 0 && b->ro)
        return -EROFS;
    if (r == 0 && atomic_load(&b->failed))
        return -EIO;
    return r;
}

/* Also what failed may have changed something. */
static int block_changed(struct block *b, uint64_t off, uint64_t len, int r)
{
    block_log_mark(b, off, len);
    return r;
}

int block_read(struct block *b, uint64_t off, void *buf, size_t len)
{
    int r = block_check(b, off, len);
    return r ? r : b->ops->read(b, off, buf, len);
}

int block_write(struct block *b, uint64_t off, const void *buf, size_t len)
{
    int r = block_check_change(b, off, len);

    return r ? r : block_changed(b, off, len, b->ops->write(b, off, buf, len));
}

int block_read_now(struct block *b, uint64_t off, const struct iovec *iov, unsigned n, size_t len)
{
    int r = block_check(b, off, len);

    if (r == 0 && (!b->ops->read_now || atomic_load(&b->not_now)))
        r = -EOPNOTSUPP;
    if (r < 0)
        return r;
    r = b->ops->read_now(b, off, iov, n, len);
    if (r == -EOPNOTSUPP)
        atomic_store(&b->not_now, true);
    return r;
}

int block_write_from(struct block *b, uint64_t off, const struct iovec *iov, unsigned n, size_t len)
{
    int r = block_check_change(b, off, len);

    if (r == 0 && (!b->ops->write_from || atomic_load(&b->not_from)))
        r = -EOPNOTSUPP;
    if (r < 0)
        return r;
    r = b->ops->write_from(b, off, iov, n, len);
    if (r == -EOPNOTSUPP)
        atomic_store(&b->not_from, true);
    return block_changed(b, off, len, r);
}

int block_hold(struct block *b, uint64_t off, size_t len, struct block_place *p)
{
    int r = block_check(b, off, len);

    if (r < 0)
        return r;
    return b->ops->hold ? b->ops->hold(b, off, len, p) : -EOPNOTSUPP;
}

void block_release(struct block *holder)
{
    if (holder->ops->release)
        holder->ops->release(holder);
}

/* One at a time: the host tells an error to one fdatasync only, and another that ends at the same time must
 * not report success. lock held. */
static int block_flush_turn(struct block *b)
{
    uint64_t turn = ++b->turns.begun;
    int r;

    pthread_mutex_unlock(&b->turns.lock);
    r = atomic_load(&b->failed) ? -EIO : b->ops->flush(b);
    if (r < 0)
        atomic_store(&b->failed, true);
    pthread_mutex_lock(&b->turns.lock);
    b->turns.done = turn;
    pthread_cond_broadcast(&b->turns.change);
    return r;
}

int block_flush(struct block *b)
{
    struct block_turns *t = &b->turns;
    uint64_t mine;
    int r = 0;

    if (b->ro)
        return 0;
    pthread_mutex_lock(&t->lock);
    mine = t->begun + 1; /* the one that runs may have begun before what was written last */
    while (t->done < mine && t->begun > t->done)
        pthread_cond_wait(&t->change, &t->lock);
    if (t->done < mine)
        r = block_flush_turn(b);
    else if (atomic_load(&b->failed))
        r = -EIO;
    pthread_mutex_unlock(&t->lock);
    return r;
}

int block_discard(struct block *b, uint64_t off, uint64_t len)
{
    int r = block_check_change(b, off, len);

    return r ? r : block_changed(b, off, len, b->ops->discard(b, off, len));
}

int block_write_zeroes(struct block *b, uint64_t off, uint64_t len, bool unmap)
{
    int r = block_check_change(b, off, len);

    return r ? r : block_changed(b, off, len, b->ops->write_zeroes(b, off, len, unmap));
}

int block_freeze(struct block *b)
{
    int r;

    if (b->ro)
        return 0;
    if (!b->ops->freeze)
        return -EOPNOTSUPP;
    r = block_flush(b);
    if (r == 0)
        r = b->ops->freeze(b);
    b->ro = r == 0;
    return r;
}

int block_take(struct block *b) { return b->ops->lock ? b->ops->lock(b, true) : 0; }

int block_trade(struct block *from, struct block *to)
{
    int r = block_take(to);

    if (r != -EAGAIN || !from->ops->lock)
        return r;
    from->ops->lock(from, false); /* it may be ours */
    r = block_take(to);
    if (r < 0)
        block_take(from);
    return r;
}

void block_give(struct block *b)
{
    atomic_store(&b->failed, true);
    if (b->ops->lock)
        b->ops->lock(b, false);
}

void block_close(struct block *b)
{
    struct block_log *log = b ? atomic_load(&b->log) : NULL;

    if (b)
        b->ops->close(b);
    free(log);
}
