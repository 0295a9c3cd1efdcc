/* The host's asynchronous reads (uring.h), by the system calls themselves: one kind of operation and one thread need little of
 * what liburing does.
 * Source: io_uring(7), io_uring_setup(2), io_uring_register(2), io_uring_enter(2).
 * Runs on: whoever builds the disk (init), then the disk's reader; no lock.
 */
#include "block/uring.h"

#include <errno.h>
#include <linux/io_uring.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/bits.h"

static int uring_register(const struct uring *r, unsigned what, const void *arg, unsigned n)
{
    return syscall(SYS_io_uring_register, r->fd, what, arg, n) < 0 ? -errno : 0;
}

static int uring_enter(const struct uring *r, unsigned submit, unsigned wait)
{
    long n = syscall(SYS_io_uring_enter, r->fd, submit, wait, wait ? IORING_ENTER_GETEVENTS : 0, NULL, 0);

    return n < 0 ? -errno : 0;
}

/* Reads only, without any flags; then it may start. A filter that allows the setup may still refuse what comes later: asked here. */
static int uring_restrict(const struct uring *r)
{
    static const struct io_uring_restriction only = { .opcode = IORING_RESTRICTION_SQE_OP, .sqe_op = IORING_OP_READ };
    int e = uring_register(r, IORING_REGISTER_RESTRICTIONS, &only, 1);

    if (e == 0)
        e = uring_register(r, IORING_REGISTER_ENABLE_RINGS, NULL, 0);
    return e == 0 ? uring_enter(r, 0, 0) : e;
}

static void *uring_at(const struct uring *r, uint32_t off) { return (uint8_t *)r->map + off; }

static int uring_map(struct uring *r, const struct io_uring_params *p)
{
    size_t sq = p->sq_off.array + p->sq_entries * sizeof(uint32_t),
           cq = p->cq_off.cqes + p->cq_entries * sizeof(struct io_uring_cqe);
    int prot = PROT_READ | PROT_WRITE, flags = MAP_SHARED | MAP_POPULATE;
    uint32_t *array;

    r->map_len = sq > cq ? sq : cq;
    r->sqe_len = p->sq_entries * sizeof(*r->sqe);
    r->map = mmap(NULL, r->map_len, prot, flags, r->fd, IORING_OFF_SQ_RING);
    r->sqe = mmap(NULL, r->sqe_len, prot, flags, r->fd, IORING_OFF_SQES);
    if (r->map == MAP_FAILED || (void *)r->sqe == MAP_FAILED)
        return -ENOMEM;
    r->sq_head = uring_at(r, p->sq_off.head);
    r->sq_tail = uring_at(r, p->sq_off.tail);
    r->cq_head = uring_at(r, p->cq_off.head);
    r->cq_tail = uring_at(r, p->cq_off.tail);
    r->cqe = uring_at(r, p->cq_off.cqes);
    r->sq_mask = p->sq_entries - 1;
    r->cq_mask = p->cq_entries - 1;
    array = uring_at(r, p->sq_off.array);
    for (uint32_t i = 0; i < p->sq_entries; i++)
        array[i] = i;
    return 0;
}

int uring_init(struct uring *r, unsigned entries)
{
    struct io_uring_params p = { .flags = IORING_SETUP_R_DISABLED };
    int e;

    *r = (struct uring){ .map = MAP_FAILED, .sqe = MAP_FAILED };
    r->fd = (int)syscall(SYS_io_uring_setup, entries, &p);
    if (r->fd < 0)
        return errno == EINVAL ? -EOPNOTSUPP : -errno;
    e = p.features & IORING_FEAT_SINGLE_MMAP && p.features & IORING_FEAT_NODROP ? uring_map(r, &p) : -EOPNOTSUPP;
    if (e == 0)
        e = uring_restrict(r);
    if (e < 0)
        uring_fini(r);
    return e;
}

void uring_fini(struct uring *r)
{
    if (r->map != MAP_FAILED)
        munmap(r->map, r->map_len);
    if ((void *)r->sqe != MAP_FAILED)
        munmap(r->sqe, r->sqe_len);
    close(r->fd);
}

void uring_read(struct uring *r, int fd, uint64_t off, void *buf, size_t len, uint64_t tag)
{
    uint32_t tail = atomic_load_explicit(r->sq_tail, memory_order_relaxed);

    r->sqe[tail & r->sq_mask] = (struct io_uring_sqe){
        .opcode = IORING_OP_READ, .fd = fd, .off = off, .addr = (uintptr_t)buf, .len = (uint32_t)len, .user_data = tag
    };
    atomic_store_explicit(r->sq_tail, tail + 1, memory_order_release);
}

int uring_wait(struct uring *r)
{
    uint32_t tail = atomic_load_explicit(r->sq_tail, memory_order_relaxed);

    return uring_enter(r, tail - atomic_load_explicit(r->sq_head, memory_order_acquire), 1);
}

bool uring_next(struct uring *r, uint64_t *tag, int *result)
{
    uint32_t head = atomic_load_explicit(r->cq_head, memory_order_relaxed);
    const struct io_uring_cqe *c = &r->cqe[head & r->cq_mask];

    if (head == atomic_load_explicit(r->cq_tail, memory_order_acquire))
        return false;
    *tag = c->user_data;
    *result = c->res;
    atomic_store_explicit(r->cq_head, head + 1, memory_order_release);
    return true;
}

static const char *uring_why(int e)
{
    switch (-e) {
    case ENOSYS:
        return "is not in this kernel";
    case EOPNOTSUPP:
        return "is too old in this kernel (before Linux 5.10)";
    case EPERM:
    case EACCES:
        return "is refused (kernel.io_uring_disabled, or a filter around vitro)";
    case ENOMEM:
        return "finds no memory (before Linux 5.12 it counts as locked memory: ulimit -l)";
    default:
        return strerror(-e);
    }
}

bool uring_probe(char *out, size_t len)
{
    struct uring r;
    int e = uring_init(&r, 1);

    if (e < 0) {
        snprintf(out, len, "threads: io_uring %s", uring_why(e));
        return false;
    }
    uring_fini(&r);
    snprintf(out, len, "io_uring");
    return true;
}
