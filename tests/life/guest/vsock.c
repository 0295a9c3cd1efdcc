/* vsock echo PORT | vsock send PORT BYTES | vsock knock CID PORT: sockets between guest and host, from the guest. echo answers connections, one after the
 * other, with what they say; send connects to the host, sends that many bytes, closes its half, and says what came back; knock connects
 * to whatever CID, and says whether it is let in, and whether anything comes. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <linux/vm_sockets.h>
#include <unistd.h>

enum { CHUNK = 65536 };

static int fail(const char *what)
{
    perror(what);
    return 1;
}

static unsigned char byte_at(unsigned long n) { return (unsigned char)(n * 31 + (n >> 16)); }

static int echo(struct sockaddr_vm *a)
{
    static char buf[CHUNK];
    int fd = socket(AF_VSOCK, SOCK_STREAM, 0), c;

    a->svm_cid = VMADDR_CID_ANY;
    if (fd < 0 || bind(fd, (struct sockaddr *)a, sizeof(*a)) < 0 || listen(fd, 8) < 0)
        return fail("listen");
    puts("LISTENS");
    fflush(stdout);
    while ((c = accept(fd, NULL, NULL)) >= 0) {
        for (ssize_t n, done; (n = read(c, buf, sizeof(buf))) > 0;) {
            for (done = 0; done < n;) {
                ssize_t w = write(c, buf + done, (size_t)(n - done));

                if (w <= 0)
                    break;
                done += w;
            }
        }
        close(c);
    }
    return fail("accept");
}

/* A child sends, so that both directions are busy at once. */
static int chat(struct sockaddr_vm *a, unsigned long len)
{
    static unsigned char buf[CHUNK];
    unsigned long got = 0, wrong = 0;
    int fd = socket(AF_VSOCK, SOCK_STREAM, 0);
    ssize_t n;

    a->svm_cid = VMADDR_CID_HOST;
    if (fd < 0 || connect(fd, (struct sockaddr *)a, sizeof(*a)) < 0)
        return fail("connect");
    if (fork() == 0) {
        for (unsigned long at = 0; at < len; at += (unsigned long)n) {
            for (n = 0; n < CHUNK && at + (unsigned long)n < len; n++)
                buf[n] = byte_at(at + (unsigned long)n);
            n = write(fd, buf, (size_t)n);
            if (n <= 0)
                _exit(fail("write"));
        }
        shutdown(fd, SHUT_WR);
        _exit(0);
    }
    while ((n = read(fd, buf, sizeof(buf))) > 0) {
        for (ssize_t i = 0; i < n; i++)
            wrong += buf[i] != byte_at(got++);
    }
    printf("CAME %lu WRONG %lu\n", got, wrong);
    return 0;
}

static int knock(struct sockaddr_vm *a)
{
    char byte;
    int fd = socket(AF_VSOCK, SOCK_STREAM, 0);

    if (fd < 0 || connect(fd, (struct sockaddr *)a, sizeof(*a)) < 0)
        return fail("KNOCKED connect");
    printf("KNOCKED %s\n", read(fd, &byte, 1) > 0 ? "heard" : "nothing");
    return 0;
}

int main(int argc, char **argv)
{
    struct sockaddr_vm a = { .svm_family = AF_VSOCK };

    if (argc < 3)
        return 2;
    a.svm_port = (unsigned)atoi(argv[2]);
    if (!strcmp(argv[1], "knock") && argc > 3) {
        a.svm_cid = a.svm_port;
        a.svm_port = (unsigned)atoi(argv[3]);
        return knock(&a);
    }
    return strcmp(argv[1], "echo") ? chat(&a, argc > 3 ? strtoul(argv[3], NULL, 10) : 0) : echo(&a);
}
