/* mapped FILE: a shared mapping of a file in the share: what is stored through it is what read() gives, and the other way round. */
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum { LEN = 65536 };

static int fail(const char *what)
{
    perror(what);
    return 1;
}

int main(int argc, char **argv)
{
    char text[8] = "";
    int fd = argc == 2 ? open(argv[1], O_RDWR | O_CREAT | O_TRUNC, 0644) : -1;
    char *p;

    if (fd < 0 || ftruncate(fd, LEN) < 0)
        return fail("open");
    p = mmap(NULL, LEN, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (p == MAP_FAILED)
        return fail("mmap");
    memcpy(p + LEN - 6, "mapped", 6);
    if (pread(fd, text, 6, LEN - 6) != 6 || memcmp(text, "mapped", 6))
        return fail("what was stored is not what was read");
    if (pwrite(fd, "written", 7, 5000) != 7 || memcmp(p + 5000, "written", 7))
        return fail("what was written is not in the mapping");
    if (msync(p, LEN, MS_SYNC) < 0 || munmap(p, LEN) < 0 || close(fd) < 0)
        return fail("msync");
    return 0;
}
