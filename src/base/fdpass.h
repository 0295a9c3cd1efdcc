/* Descriptors beside bytes, over a unix socket (SCM_RIGHTS, unix(7)). */
#ifndef VITRO_BASE_FDPASS_H
#define VITRO_BASE_FDPASS_H

#include <stddef.h>
#include <sys/types.h>

enum { FDPASS_MAX = 32 };

/* Send len bytes (at least 1) and, with the first of them, count descriptors, which stay the caller's; count is 0 to FDPASS_MAX.
 * Returns the bytes sent, which a stream may cut short, or -errno. */
ssize_t fdpass_send(int sock, const void *data, size_t len, const int *fds, unsigned count);

/* Receive up to len bytes, with recv()'s flags, and at most `most` descriptors (1 to FDPASS_MAX), which become the caller's and
 * close on exec; the kernel closes what is more. *count is how many came. Returns the bytes, 0 at the end, or -errno. */
ssize_t fdpass_recv(int sock, void *data, size_t len, int flags, int *fds, unsigned most, unsigned *count);

#endif
