/* An image file in memory (memfile.h). One thread at a time. */
#include "memfile.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/bits.h"

static struct memfile *mem(struct imgfile *f) { return container_of(f, struct memfile, base); }

/* Counts a call; true when this one is to fail. */
static bool mem_fails(struct memfile *m)
{
    bool hit;

    m->calls++;
    hit = m->fail && (m->for_ever ? m->calls >= m->fail_at : m->calls == m->fail_at);
    m->failed += hit;
    return hit;
}

static int mem_error(const struct memfile *m) { return m->fail == MEMFAIL_ENOSPC ? -ENOSPC : -EIO; }

static void mem_resize(struct memfile *m, uint64_t len)
{
    if (len > m->cap) {
        uint64_t cap = m->cap ? m->cap : 65536;

        while (cap < len)
            cap *= 2;
        m->data = realloc(m->data, cap);
        if (!m->data)
            abort();
        memset(m->data + m->cap, 0, cap - m->cap);
        m->cap = cap;
    }
    if (len < m->len)
        memset(m->data + len, 0, m->len - len);
    m->len = len;
}

static void mem_log(struct memfile *m, enum memevent_kind kind, uint64_t off, uint64_t len, const void *data)
{
    struct memevent *e;

    if (!m->record)
        return;
    if (m->log_n == m->log_max) {
        m->log_max = m->log_max ? m->log_max * 2 : 256;
        m->log = realloc(m->log, m->log_max * sizeof(*m->log));
        if (!m->log)
            abort();
    }
    e = &m->log[m->log_n++];
    *e = (struct memevent){ .kind = kind, .off = off, .len = len };
    if (data) {
        e->data = malloc(len ? len : 1);
        if (!e->data)
            abort();
        memcpy(e->data, data, len);
    }
}

static void mem_put(struct memfile *m, uint64_t off, const void *buf, uint64_t len)
{
    if (off + len > m->len)
        mem_resize(m, off + len);
    memcpy(m->data + off, buf, len);
}

static void mem_zero(struct memfile *m, uint64_t off, uint64_t len)
{
    if (off < m->len)
        memset(m->data + off, 0, len < m->len - off ? len : m->len - off);
}

static ssize_t mem_pread(struct imgfile *f, void *buf, size_t len, uint64_t off)
{
    struct memfile *m = mem(f);
    uint64_t n = off < m->len ? m->len - off : 0;

    if (mem_fails(m) && m->fail == MEMFAIL_EIO)
        return -EIO;
    n = n < len ? n : len;
    m->reads += n;
    if (n)
        memcpy(buf, m->data + off, n);
    return (ssize_t)n;
}

static ssize_t mem_pwrite(struct imgfile *f, const void *buf, size_t len, uint64_t off)
{
    struct memfile *m = mem(f);

    if (m->limit && range_outside(off, len, m->limit))
        return -EFBIG;
    if (mem_fails(m)) {
        if (m->fail != MEMFAIL_SHORT)
            return mem_error(m);
        len = ALIGN_DOWN(len / 2, 512); /* 0 in the end: that must not loop */
    }
    if (len) {
        mem_put(m, off, buf, len);
        mem_log(m, MEM_WRITE, off, len, buf);
    }
    return (ssize_t)len;
}

static int mem_write_from(struct imgfile *f, uint64_t off, const struct iovec *iov, unsigned n, size_t len)
{
    ssize_t done;

    for (unsigned i = 0; i < n; off += iov[i].iov_len, i++) {
        done = mem_pwrite(f, iov[i].iov_base, iov[i].iov_len, off);
        if (done < 0)
            return (int)done;
        if ((size_t)done < iov[i].iov_len)
            return -EAGAIN;
        mem(f)->straight++;
    }
    return 0;
}

/* As Linux does it: what could not be written is clean afterwards, and forgotten. */
static void mem_lose(struct memfile *m)
{
    for (size_t i = m->log_n; i-- > 0 && m->log[i].kind != MEM_FLUSH;)
        m->log[i].lost = m->log[i].kind != MEM_MARK;
}

static int mem_flush(struct imgfile *f)
{
    if (mem_fails(mem(f)) && mem(f)->fail != MEMFAIL_SHORT) {
        mem_lose(mem(f));
        return mem_error(mem(f));
    }
    mem_log(mem(f), MEM_FLUSH, 0, 0, NULL);
    return 0;
}

static int mem_truncate(struct imgfile *f, uint64_t size)
{
    if (mem_fails(mem(f)))
        return mem_error(mem(f));
    mem_resize(mem(f), size);
    mem_log(mem(f), MEM_TRUNCATE, size, 0, NULL);
    return 0;
}

static int mem_punch(struct imgfile *f, uint64_t off, uint64_t len)
{
    if (mem_fails(mem(f)))
        return mem_error(mem(f));
    mem_zero(mem(f), off, len);
    mem_log(mem(f), MEM_PUNCH, off, len, NULL);
    return 0;
}

static int64_t mem_size(struct imgfile *f) { return (int64_t)mem(f)->len; }

static void mem_close(struct imgfile *f) { (void)f; } /* the test looks at it afterwards */

static const struct imgfile_ops mem_ops = {
    .pread = mem_pread,
    .pwrite = mem_pwrite,
    .write_from = mem_write_from,
    .flush = mem_flush,
    .truncate = mem_truncate,
    .punch = mem_punch,
    .size = mem_size,
    .close = mem_close,
};

void memfile_init(struct memfile *m) { *m = (struct memfile){ .base.ops = &mem_ops }; }

void memfile_fini(struct memfile *m)
{
    for (size_t i = 0; i < m->log_n; i++)
        free(m->log[i].data);
    free(m->log);
    free(m->data);
    memfile_init(m);
}

void memfile_set(struct memfile *m, const uint8_t *data, uint64_t len)
{
    mem_resize(m, 0);
    if (len)
        mem_put(m, 0, data, len);
}

void memfile_copy(struct memfile *to, const struct memfile *from) { memfile_set(to, from->data, from->len); }

void memfile_mark(struct memfile *m, uint64_t a, uint64_t b) { mem_log(m, MEM_MARK, a, b, NULL); }

void memfile_apply(struct memfile *m, const struct memevent *e)
{
    if (e->kind == MEM_WRITE)
        mem_put(m, e->off, e->data, e->len);
    else if (e->kind == MEM_PUNCH)
        mem_zero(m, e->off, e->len);
    else if (e->kind == MEM_TRUNCATE)
        mem_resize(m, e->off);
}
