/* Image files: opening with a lock, whole transfers. For the forms of disk that live in one file. */
#ifndef VITRO_BLOCK_FILE_H
#define VITRO_BLOCK_FILE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

struct err;

/* Open an image file or block device and take its OFD lock: exclusive, or shared for ro. Returns a descriptor
 * (the lock goes with it) and *size in bytes, or -errno with a sentence in err. */
int block_file_open(const char *path, bool ro, uint64_t *size, struct err *err);
/* The same, also without the lock. */
int block_file_open_how(const char *path, bool ro, bool lock, uint64_t *size, struct err *err);
/* Take the lock now: 0, -EAGAIN if another has it, or -errno; and give it up. */
int block_file_take(int fd, bool ro);
void block_file_give(int fd);

/* The exclusive lock of an open file. 0 or -errno (-EAGAIN, -EACCES: somebody has it). */
int block_file_lock_alone(int fd);
/* Turn the exclusive lock into a reader's, at no moment of which a writer gets in. 0, or -errno: it is still exclusive. */
int block_file_lock_share(int fd);

/* All of it or -errno; reading beyond the end is -EIO. Any thread. */
int block_file_read(int fd, uint64_t off, void *buf, size_t len);
int block_file_write(int fd, uint64_t off, const void *buf, size_t len);
/* Read [off, off+len) into iov (len bytes) if the host can do that without waiting for a disk: 0; -EAGAIN
 * when it cannot, or not all of it (what iov holds is undefined then); -EOPNOTSUPP when this file never can;
 * or -errno. */
int block_file_read_now(int fd, uint64_t off, const struct iovec *iov, unsigned n, size_t len);
/* Write iov (len bytes), which may change meanwhile: 0; -EAGAIN when not all of it was, and block_file_write() has to; or
 * -errno. */
int block_file_write_from(int fd, uint64_t off, const struct iovec *iov, unsigned n, size_t len);
/* fdatasync(2). */
int block_file_flush(int fd);
/* Give space back: 0 also where the file system cannot. */
int block_file_discard(int fd, uint64_t off, uint64_t len);
/* Inside the file's length. Falls back to writing zeroes. */
int block_file_zero(int fd, uint64_t off, uint64_t len, bool unmap);

/* An unlinked temporary file in $TMPDIR, else /var/tmp. A descriptor, or -errno with a sentence in err. */
int block_file_temp(struct err *err);

#endif
