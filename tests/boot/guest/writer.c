/* The load of tests/boot/crash: records that are synced one by one and told on the console only then.
 *
 * usage: writer FOLDER BOOT     (static; ends only with the machine)
 * Record n of boot b is 4 to 64 KiB of 64-bit words b << 48 | n << 24 | index. It is appended to log.b, and written over
 * slot n % SLOTS of the file slots.b; every eighth also makes a file of its own under a temporary name, and renames it to
 * file.b.n. After fsync of all: the line "REC b n offset length".
 */
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define SLOTS 64
#define SLOT  65536U

static uint64_t record[SLOT / 8];

static void must(int good, const char *what)
{
    if (good)
        return;
    perror(what);
    exit(1);
}

static void fill(uint64_t boot, uint64_t n, size_t len)
{
    for (size_t i = 0; i < len / 8; i++)
        record[i] = boot << 48 | n << 24 | i;
}

static void write_file(const char *dir, unsigned boot, unsigned n, size_t len)
{
    char temp[256], name[256];
    int fd, d;

    snprintf(temp, sizeof(temp), "%s/temp", dir);
    snprintf(name, sizeof(name), "%s/file.%u.%u", dir, boot, n);
    fd = open(temp, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    must(fd >= 0 && write(fd, record, len) == (ssize_t)len && fsync(fd) == 0 && close(fd) == 0, temp);
    must(rename(temp, name) == 0, name);
    if (n > 64) { /* old ones go, so that space is given back and used again */
        snprintf(temp, sizeof(temp), "%s/file.%u.%u", dir, boot, n - 64);
        must(unlink(temp) == 0, temp);
    }
    d = open(dir, O_RDONLY | O_DIRECTORY);
    must(d >= 0 && fsync(d) == 0 && close(d) == 0, dir);
}

int main(int argc, char **argv)
{
    unsigned boot = argc > 2 ? (unsigned)atoi(argv[2]) : 0;
    char name[256];
    uint64_t at = 0;
    int log, slots;

    must(argc > 2, "usage");
    snprintf(name, sizeof(name), "%s/log.%u", argv[1], boot);
    log = open(name, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    snprintf(name, sizeof(name), "%s/slots.%u", argv[1], boot);
    slots = open(name, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    must(log >= 0 && slots >= 0 && ftruncate(slots, SLOTS * SLOT) == 0, "open");
    sync();
    for (unsigned n = 1;; n++) {
        size_t len = 4096 * (1 + (n * 7 + boot) % 16);
        fill(boot, n, len);
        must(write(log, record, len) == (ssize_t)len, "log");
        must(pwrite(slots, record, len, (off_t)(n % SLOTS) * SLOT) == (ssize_t)len, "slots");
        must(fdatasync(log) == 0 && fdatasync(slots) == 0, "fdatasync");
        if (n % 8 == 0)
            write_file(argv[1], boot, n, len);
        printf("REC %u %u %llu %zu\n", boot, n, (unsigned long long)at, len);
        fflush(stdout);
        at += len;
    }
}
