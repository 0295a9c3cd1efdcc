/* Host calls that fail on purpose (hostcalls.h). Any thread. */
#include "hostcalls.h"

#include <errno.h>
#include <sys/types.h>
#include <sys/uio.h>

#include "block/uring.h"

struct hostcalls hostcalls;

ssize_t __real_pread64(int fd, void *buf, size_t len, off_t off);
ssize_t __real_pwrite64(int fd, const void *buf, size_t len, off_t off);
ssize_t __real_pwritev64(int fd, const struct iovec *iov, int n, off_t off);
ssize_t __real_preadv64v2(int fd, const struct iovec *iov, int n, off_t off, int flags);
int __real_fallocate64(int fd, int mode, off_t off, off_t len);
int __real_ftruncate64(int fd, off_t len);

bool __real_uring_next(struct uring *r, uint64_t *tag, int *result);

bool __wrap_uring_next(struct uring *r, uint64_t *tag, int *result);
ssize_t __wrap_pread64(int fd, void *buf, size_t len, off_t off);
ssize_t __wrap_pwrite64(int fd, const void *buf, size_t len, off_t off);
ssize_t __wrap_pwritev64(int fd, const struct iovec *iov, int n, off_t off);
ssize_t __wrap_preadv64v2(int fd, const struct iovec *iov, int n, off_t off, int flags);
int __wrap_fdatasync(int fd);
int __wrap_fallocate64(int fd, int mode, off_t off, off_t len);
int __wrap_ftruncate64(int fd, off_t len);

void hostcalls_set(enum hostcall_fault fault, unsigned at, bool for_ever)
{
    hostcalls.fault = fault;
    hostcalls.at = at;
    hostcalls.for_ever = for_ever;
    hostcalls.calls = hostcalls.failed = hostcalls.failed_data = 0;
}

/* Counts a call; true when it is one of those that are to fail. */
static bool hostcalls_hit(void)
{
    unsigned n = atomic_fetch_add(&hostcalls.calls, 1) + 1;

    return hostcalls.fault && (hostcalls.for_ever ? n >= hostcalls.at : n == hostcalls.at);
}

/* True: the call fails, with errno. */
static bool hostcalls_error(bool hit, bool reads, bool data)
{
    if (!hit || (hostcalls.fault != HOSTCALL_EIO && (reads || hostcalls.fault != HOSTCALL_ENOSPC)))
        return false;
    hostcalls.failed++;
    hostcalls.failed_data += data;
    errno = hostcalls.fault == HOSTCALL_ENOSPC ? ENOSPC : EIO;
    return true;
}

/* Never nothing: that would be the end of a file, not a short transfer. */
static size_t hostcalls_cut(bool hit, enum hostcall_fault which, size_t len)
{
    if (!hit || hostcalls.fault != which || len < 2)
        return len;
    hostcalls.failed++;
    return len / 2;
}

ssize_t __wrap_pread64(int fd, void *buf, size_t len, off_t off)
{
    bool hit = hostcalls_hit();

    if (hostcalls_error(hit, true, true))
        return -1;
    return __real_pread64(fd, buf, hostcalls_cut(hit, HOSTCALL_SHORT_READ, len), off);
}

/* Short: only what the first entry takes. */
ssize_t __wrap_preadv64v2(int fd, const struct iovec *iov, int n, off_t off, int flags)
{
    struct iovec first;
    bool hit;

    if (atomic_load(&hostcalls.cold)) {
        errno = EAGAIN;
        return -1;
    }
    hit = hostcalls_hit();
    if (hostcalls_error(hit, true, true))
        return -1;
    first = (struct iovec){ .iov_base = iov->iov_base,
                            .iov_len = hostcalls_cut(hit, HOSTCALL_SHORT_READ, iov->iov_len) };
    if (first.iov_len < iov->iov_len)
        return __real_preadv64v2(fd, &first, 1, off, flags);
    return __real_preadv64v2(fd, iov, n, off, flags);
}

/* The reader's bell has no data. */
bool __wrap_uring_next(struct uring *r, uint64_t *tag, int *result)
{
    bool hit;

    if (!__real_uring_next(r, tag, result))
        return false;
    if (*tag == UINT64_MAX)
        return true;
    hostcalls.ring++;
    hit = hostcalls_hit();
    if (hostcalls_error(hit, true, true))
        *result = -errno;
    else if (*result > 0)
        *result = (int)hostcalls_cut(hit, HOSTCALL_SHORT_READ, (size_t)*result);
    return true;
}

ssize_t __wrap_pwrite64(int fd, const void *buf, size_t len, off_t off)
{
    bool hit = hostcalls_hit();

    if (hostcalls_error(hit, false, true))
        return -1;
    return __real_pwrite64(fd, buf, hostcalls_cut(hit, HOSTCALL_SHORT_WRITE, len), off);
}

/* Short: half of the first entry. */
ssize_t __wrap_pwritev64(int fd, const struct iovec *iov, int n, off_t off)
{
    bool hit = hostcalls_hit();
    size_t len;

    hostcalls.straight++;
    if (hostcalls_error(hit, false, true))
        return -1;
    len = hostcalls_cut(hit, HOSTCALL_SHORT_WRITE, iov->iov_len);
    return len < iov->iov_len ? __real_pwrite64(fd, iov->iov_base, len, off) : __real_pwritev64(fd, iov, n, off);
}

/* What is on the disk after a power cut is not seen here (tests/unit/test_qcow2.c does that): no real flush.
 */
int __wrap_fdatasync(int fd) { return hostcalls_error(hostcalls_hit(), false, true) ? -1 : 0; }

int __wrap_fallocate64(int fd, int mode, off_t off, off_t len)
{
    return hostcalls_error(hostcalls_hit(), false, false) ? -1 : __real_fallocate64(fd, mode, off, len);
}

int __wrap_ftruncate64(int fd, off_t len)
{
    return hostcalls_error(hostcalls_hit(), false, false) ? -1 : __real_ftruncate64(fd, len);
}
