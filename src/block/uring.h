/* The host's asynchronous reads: io_uring, and of it nothing but reads of open files.
 *
 * The ring is made such that the kernel itself refuses all other operations on it, so it allows a thread no more than
 * pread(2) does, whatever a seccomp filter does not see of it.
 *
 * Threads: one at a time.
 */
#ifndef VITRO_BLOCK_URING_H
#define VITRO_BLOCK_URING_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct io_uring_sqe;
struct io_uring_cqe;

struct uring {
    int fd;
    void *map; /* both queues */
    size_t map_len;
    struct io_uring_sqe *sqe;
    size_t sqe_len;
    struct io_uring_cqe *cqe;
    _Atomic uint32_t *sq_head, *sq_tail, *cq_head, *cq_tail;
    uint32_t sq_mask, cq_mask;
};

/* A ring for so many reads at a time (a power of two). 0, or -errno when the host has none for us: ENOSYS (the kernel), EPERM
 * (kernel.io_uring_disabled, a container's filter), EOPNOTSUPP (before Linux 5.10). Then r is only good for nothing. */
int uring_init(struct uring *r, unsigned entries);
/* No read is under way. */
void uring_fini(struct uring *r);

/* Prepare a read of len bytes (at most 1 GiB) at off; tag comes back with its result. No more than `entries` are prepared or
 * under way. */
void uring_read(struct uring *r, int fd, uint64_t off, void *buf, size_t len, uint64_t tag);
/* Start what was prepared, and wait until something has ended: 0 or -errno (EINTR; EAGAIN, EBUSY: not now). */
int uring_wait(struct uring *r);
/* The next that has ended, with what pread(2) would have returned, or -errno. False: none. */
bool uring_next(struct uring *r, uint64_t *tag, int *result);

/* Can this host do it? One sentence without a full stop for people; true: yes. */
bool uring_probe(char *out, size_t len);

#endif
