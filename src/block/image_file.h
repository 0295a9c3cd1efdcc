/* The bytes under an image: a file of the host, or a stand-in that records, forgets or fails (tests).
 *
 * All calls are synchronous and may come from several threads at once; who writes where is the caller's
 * business.
 */
#ifndef VITRO_BLOCK_IMAGE_FILE_H
#define VITRO_BLOCK_IMAGE_FILE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <sys/uio.h>

struct err;
struct imgfile;

/* What a kind of file does. Results are those of the system calls, but with -errno. Short counts are allowed.
 */
struct imgfile_ops {
    ssize_t (*pread)(struct imgfile *f, void *buf, size_t len, uint64_t off);
    ssize_t (*pwrite)(struct imgfile *f, const void *buf, size_t len, uint64_t off);
    int (*read_now)(struct imgfile *f, uint64_t off, const struct iovec *iov, unsigned n,
                    size_t len);     /* see file.h; may be NULL */
    int (*write_from)(struct imgfile *f, uint64_t off, const struct iovec *iov, unsigned n,
                      size_t len);   /* see file.h; may be NULL */
    int (*fd)(struct imgfile *f);    /* the host's file itself; may be NULL: there is none */
    int (*flush)(struct imgfile *f); /* everything written is on stable storage afterwards */
    int (*share)(struct imgfile *f); /* from the exclusive lock to a reader's (file.h); may be NULL: there is none */
    int (*truncate)(struct imgfile *f, uint64_t size);
    int (*punch)(struct imgfile *f, uint64_t off, uint64_t len); /* gives space back; reads as zeroes then */
    int64_t (*size)(struct imgfile *f);
    /* Do the bytes from off on lie in a hole, and for how many of len does the answer hold? May be NULL. */
    int (*extent)(struct imgfile *f, uint64_t off, uint64_t len, bool *hole, uint64_t *n);
    int (*lock)(struct imgfile *f, bool ro, bool take); /* block_file_take() and give(); may be NULL */
    void (*close)(struct imgfile *f);
};

struct imgfile {
    const struct imgfile_ops *ops;
};

/* Open a regular file or a block device with the lock of file.h. 0 with *out, or -errno with a sentence. */
int imgfile_open(struct imgfile **out, const char *path, bool ro, struct err *err);
/* The same, also without the lock. */
int imgfile_open_how(struct imgfile **out, const char *path, bool ro, bool lock, struct err *err);

/* Take over an open descriptor, on which no lock is taken. NULL when there is no memory (fd stays the
 * caller's). */
struct imgfile *imgfile_from_fd(int fd);

/* NULL is allowed. */
void imgfile_close(struct imgfile *f);

/* Read or write exactly len bytes at off: 0 or -errno. Bytes behind the end of the file read as zeroes. */
int imgfile_read(struct imgfile *f, uint64_t off, void *buf, size_t len);
int imgfile_write(struct imgfile *f, uint64_t off, const void *buf, size_t len);
/* As block_file_read_now(), file.h. */
int imgfile_read_now(struct imgfile *f, uint64_t off, const struct iovec *iov, unsigned n, size_t len);
/* As block_file_write_from(); -EOPNOTSUPP: this kind never does. */
int imgfile_write_from(struct imgfile *f, uint64_t off, const struct iovec *iov, unsigned n, size_t len);

#endif
