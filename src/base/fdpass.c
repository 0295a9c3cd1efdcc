/* See fdpass.h. */
#include "base/fdpass.h"

#include <errno.h>
#include <stdint.h>
#include <string.h>
#include <sys/socket.h>

union fdpass_control {
    struct cmsghdr head;
    char room[CMSG_SPACE(FDPASS_MAX * sizeof(int))];
};

ssize_t fdpass_send(int sock, const void *data, size_t len, const int *fds, unsigned count)
{
    union fdpass_control control = { .room = { 0 } };
    struct iovec iov = { .iov_base = (void *)(uintptr_t)data, .iov_len = len };
    struct msghdr m = { .msg_iov = &iov, .msg_iovlen = 1 };
    ssize_t n;

    if (count > FDPASS_MAX)
        return -E2BIG;
    if (count) {
        m.msg_control = &control;
        m.msg_controllen = CMSG_SPACE(count * sizeof(int));
        control.head = (struct cmsghdr){ .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS, .cmsg_len = CMSG_LEN(count * sizeof(int)) };
        memcpy(CMSG_DATA(&control.head), fds, count * sizeof(int));
    }
    do
        n = sendmsg(sock, &m, MSG_NOSIGNAL);
    while (n < 0 && errno == EINTR);
    return n < 0 ? -errno : n;
}

ssize_t fdpass_recv(int sock, void *data, size_t len, int flags, int *fds, unsigned most, unsigned *count)
{
    union fdpass_control control = { .room = { 0 } };
    struct iovec iov = { .iov_base = data, .iov_len = len };
    /* CMSG_LEN: in all of CMSG_SPACE there may be room for one more, which would stay open. */
    struct msghdr m = { .msg_iov = &iov, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = CMSG_LEN(most * sizeof(int)) };
    struct cmsghdr *h;
    ssize_t n;

    *count = 0;
    do
        n = recvmsg(sock, &m, flags | MSG_CMSG_CLOEXEC);
    while (n < 0 && errno == EINTR);
    if (n < 0)
        return -errno;
    h = CMSG_FIRSTHDR(&m);
    if (h && h->cmsg_level == SOL_SOCKET && h->cmsg_type == SCM_RIGHTS && h->cmsg_len > CMSG_LEN(0)) {
        *count = (unsigned)((h->cmsg_len - CMSG_LEN(0)) / sizeof(int));
        memcpy(fds, CMSG_DATA(h), *count * sizeof(int));
    }
    return n;
}
