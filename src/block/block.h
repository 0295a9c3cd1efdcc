/* A virtual disk: what devices read and write, whatever form it has on the host.
 *
 *   a device (virtio/blk.c)      block_submit(io, req) ... req->move(req, piece) ... req->done(req, result)
 *        |
 *   struct block_io (workers.c)  a few I/O threads a disk, each with a buffer; they report under the device
 * lock
 *        |
 *   struct block (raw.c, overlay.c, ...)  plain blocking functions that any thread may call
 *
 * A form of disk therefore writes straight-line code with its own lock, and never sees the loop. Layers stack
 * by holding another struct block.
 *
 * Errors are final: a back end retries nothing but EINTR and short transfers. After a failed flush nobody
 * knows which writes are on the disk, so block_flush() and all writes fail from then on (the host's kernel
 * would report success the second time); reads go on.
 */
#ifndef VITRO_BLOCK_BLOCK_H
#define VITRO_BLOCK_BLOCK_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#include "base/loop.h"
#include "base/pool.h"

struct err;
struct block;
struct block_reader;
struct block_log;

#define BLOCK_SECTOR 512U

/* Where bytes of a disk lie, see block_hold(). */
struct block_place {
    int fd;
    uint64_t off;
    struct block *holder; /* whom to release */
};

/* One form of disk. All but close are called by several I/O threads at a time; [off, off+len) lies inside the
 * disk and is a multiple of BLOCK_SECTOR, len is not 0. They return 0 or -errno, and transfer everything or
 * fail. write, discard and write_zeroes are never called on a read-only disk. */
struct block_ops {
    const char *format; /* "raw", "qcow2" ... */
    int (*read)(struct block *b, uint64_t off, void *buf, size_t len);
    int (*write)(struct block *b, uint64_t off, const void *buf, size_t len);
    /* Read into iov (len bytes in all) if that needs no waiting, neither for a disk nor for a lock that is
     * held during I/O: 0, -EAGAIN (use read; what iov holds is undefined), -EOPNOTSUPP (it never will), or
     * -errno. May be NULL: never. */
    int (*read_now)(struct block *b, uint64_t off, const struct iovec *iov, unsigned n, size_t len);
    /* Write from iov (len bytes in all), memory that may change meanwhile, if that is as good as a write: 0, -EAGAIN (use
     * write; some of it may have been written), -EOPNOTSUPP (it never will), or -errno. May be NULL: never. */
    int (*write_from)(struct block *b, uint64_t off, const struct iovec *iov, unsigned n, size_t len);
    /* Find the place of all of [off, off+len) in a file, with no more waiting than read_now, and keep it where it is until
     * release: 0, -EAGAIN or -EOPNOTSUPP. Any thread; the same one releases, and makes no other calls in between but these
     * two. May be NULL: never; release too: there is nothing to do. */
    int (*hold)(struct block *b, uint64_t off, size_t len, struct block_place *p);
    void (*release)(struct block *b);
    /* What was written before the call is durable when it returns 0. */
    int (*flush)(struct block *b);
    /* The contents do not matter any more; doing nothing is allowed. */
    int (*discard)(struct block *b, uint64_t off, uint64_t len);
    /* Reads as zeroes afterwards; unmap: the space may be given back. */
    int (*write_zeroes)(struct block *b, uint64_t off, uint64_t len, bool unmap);
    /* It is only read from now on: everything is durable, and others may read the file, too. 0, or -errno and nothing has
     * changed. No other call is running. May be NULL: it cannot. */
    int (*freeze)(struct block *b);
    /* Take the lock of the file that is written, or give it up. NULL: there is none. */
    int (*lock)(struct block *b, bool take);
    /* Close files and free b. No other call is running. */
    void (*close)(struct block *b);
};

/* Flushes in turn: one that is asked for while another runs is served by the next, for all who wait. All
 * zeroes is a fresh one (so are a mutex and a condition on Linux). */
struct block_turns {
    pthread_mutex_t lock; /* a leaf; guards what follows */
    pthread_cond_t change;
    uint64_t begun, done; /* counts */
};

/* Embed it first in the form's own struct. */
struct block {
    const struct block_ops *ops;
    uint64_t size; /* bytes, a multiple of BLOCK_SECTOR; does not change while the disk is open */
    bool ro;
    _Atomic bool failed;  /* a flush failed: see above */
    _Atomic bool not_now; /* read_now never works */
    _Atomic bool not_from; /* write_from never works */
    _Atomic(struct block_log *) log; /* owned; NULL: nobody has asked for one */
    struct block_turns turns;
};

/* Checked calls for devices' requests and for layers: -EINVAL for a range that is empty, odd or outside,
 * -EROFS, -EIO after a failed flush, else what the form says. Any thread. */
int block_read(struct block *b, uint64_t off, void *buf, size_t len);
int block_write(struct block *b, uint64_t off, const void *buf, size_t len);
/* As block_read(), but -EAGAIN or -EOPNOTSUPP when it would have to wait. */
int block_read_now(struct block *b, uint64_t off, const struct iovec *iov, unsigned n, size_t len);
/* As block_write(), from memory that may change meanwhile, but -EAGAIN or -EOPNOTSUPP where block_write() must do it. */
int block_write_from(struct block *b, uint64_t off, const struct iovec *iov, unsigned n, size_t len);
/* Where all of [off, off+len) lies in one file, for a read that goes on after this call: until block_release(p->holder), on the
 * same thread, the place stays as it is. -EAGAIN or -EOPNOTSUPP: use block_read(). */
int block_hold(struct block *b, uint64_t off, size_t len, struct block_place *p);
void block_release(struct block *holder);
int block_flush(struct block *b);
int block_discard(struct block *b, uint64_t off, uint64_t len);
int block_write_zeroes(struct block *b, uint64_t off, uint64_t len, bool unmap);
/* Make a disk that is written read-only for the rest of its life, as the base of an overlay: what was written is durable then,
 * and the lock on its file is a reader's. No other call may run. 0 (also when it is so already), or -errno: it is as before. */
int block_freeze(struct block *b);
/* For a disk that goes from one process to another: take the lock of one that was opened without (-EAGAIN: another has
 * it); give it up, after a flush and for good: nothing can be written any more. */
int block_take(struct block *b);
void block_give(struct block *b);
/* One disk takes the place of another, maybe of the same file: take its lock and give up that one's. 0, -EAGAIN (somebody else has it) or
 * -errno: the locks are as they were. */
int block_trade(struct block *from, struct block *to);
/* For whoever copies a disk that is written meanwhile: note which parts are written; to begin with all of them, or none. One thread at a time,
 * while requests go on. 0 or -ENOMEM. */
#define BLOCK_LOG_PART (64ULL << 10)
int block_log_begin(struct block *b, bool all);
void block_log_end(struct block *b);
bool block_log_is_on(const struct block *b);
/* The next marked bytes from *off on, at most most (a multiple of BLOCK_LOG_PART); they are not marked any more. False: there are none. */
bool block_log_take(struct block *b, uint64_t *off, uint64_t *len, uint64_t most);
uint64_t block_log_left(const struct block *b); /* bytes that are marked */
/* For block.c: [off, off+len) was written, or may have been. */
void block_log_mark(struct block *b, uint64_t off, uint64_t len);
/* NULL is allowed. */
void block_close(struct block *b);

/* --- opening --- */

/* A raw image: a file or a block device, taken with an OFD lock (shared for ro) until it is closed; an image
 * that another process uses is refused. A size that is not a multiple of 512 is refused. 0, or -errno with a
 * sentence in err that names the file. */
int block_raw_open(struct block **out, const char *path, bool ro, struct err *err);
/* The same, also without the lock: then nothing may be written before block_take(). */
int block_raw_open_how(struct block **out, const char *path, bool ro, bool lock, struct err *err);
/* The same from a descriptor of the file, of size bytes, that is taken over, also on failure; without the lock. */
int block_raw_adopt(struct block **out, int fd, uint64_t size, const char *path, bool ro, struct err *err);

/* A layer that keeps all writes in an unlinked temporary file, lost when it is closed. Takes over base (also
 * on failure it is closed), which is only read. The file is made in $TMPDIR, else /var/tmp. */
int block_overlay_open(struct block **out, struct block *base, struct err *err);

/* What such a layer is over, borrowed; NULL: it is none. Another one, of the same size, takes its place, and is taken over: no other call runs. */
struct block *block_overlay_base(struct block *b);
void block_overlay_set_base(struct block *b, struct block *base);
/* Of such a layer: from *off on, the next run of bytes that it holds itself; 0 with *len, at most 1 MiB, or *len 0 when there is
 * no more. -EINVAL for another form of disk. What is being written may be there already, or not yet. */
int block_overlay_next(struct block *b, uint64_t *off, uint64_t *len);

/* A read-only disk that is data, which is taken over (also on failure) and freed. size is a multiple of
 * BLOCK_SECTOR. 0 or -errno. */
int block_memory_open(struct block **out, uint8_t *data, size_t size);

/* In the place of a disk that comes later, of a size that is known: everything fails. 0 or -ENOMEM. */
int block_absent_open(struct block **out, uint64_t size, bool ro);
bool block_is_absent(const struct block *b);

/* --- asynchronous requests --- */

enum block_op { BLOCK_READ, BLOCK_WRITE, BLOCK_FLUSH, BLOCK_DISCARD, BLOCK_WRITE_ZEROES };

/* One request; embed it. It belongs to the I/O threads from block_submit() until done is called. */
struct block_req {
    enum block_op op;
    bool unmap; /* BLOCK_WRITE_ZEROES */
    bool fua;   /* BLOCK_WRITE, BLOCK_WRITE_ZEROES: flush before reporting success */
    bool cold;  /* BLOCK_READ: the device has tried read_now, which said -EAGAIN */
    uint64_t off, len;
    /* BLOCK_READ, BLOCK_WRITE: data moves in pieces through the I/O thread's own buffer. Called with bytes
     * [at, at+len) of the request: to fill the piece before it is written, to take it after it was read. On
     * an I/O thread, no lock held; anything but 0 ends the request with that error. */
    int (*move)(struct block_req *req, uint64_t at, void *piece, size_t len);
    /* BLOCK_READ: read bytes [at, at+len) to where they go, without a buffer in between, by block_read_now().
     * Threads as move. -EAGAIN and -EOPNOTSUPP: then by way of the buffer. May be NULL. */
    int (*read_now)(struct block_req *req, uint64_t at, size_t len);
    /* BLOCK_WRITE: the same by block_write_from(). */
    int (*write_from)(struct block_req *req, uint64_t at, size_t len);
    /* Device lock held; on the loop's thread, an I/O thread, or in block_drain(). result is 0 or -errno. May
     * free the request and submit others. */
    void (*done)(struct block_req *req, int result);
    /* The I/O threads' own: */
    bool by_thread; /* the reader has given it back */
    uint64_t at;    /* the first byte to be read */
    int result;
    struct block_io *io;
    struct pool_job job;
    struct block_req *next; /* the reader's */
};

#define BLOCK_PIECE (256UL << 10) /* fits a CPU's cache, so the second copy is cheap */
#define BLOCK_FROM  (1UL << 20)   /* a piece without a second copy: fewer calls of the host; a reset waits for one */

/* How reads that the host must wait for are done: by the ring where the host allows it, by the threads, or not at all
 * without the ring. */
enum block_aio { BLOCK_AIO_AUTO, BLOCK_AIO_THREADS, BLOCK_AIO_IO_URING };

/* The I/O threads of one disk; the first is started with it, the others when there is work for them. */
struct block_io {
    struct block *block;         /* guarded by the pool's lock */
    struct block_reader *reader; /* NULL: the threads read */
    struct pool pool;
};

/* block is borrowed and outlives io. batch_end(opaque): for work that is better done once for many
 * completions, like interrupts. 0 or -errno; with BLOCK_AIO_IO_URING also that of uring_init() (uring.h). */
int block_io_create(struct block_io **io, struct block *block, enum block_aio aio, struct loop *loop,
                    void (*batch_end)(void *opaque), void *opaque);
/* Waits for what was submitted (done is called), then ends the threads. NULL: nothing. */
void block_io_destroy(struct block_io *io);

/* Start a request. Never blocks on the disk; device lock held. */
void block_submit(struct block_io *io, struct block_req *req);
/* Requests that come from now on go to another disk, of the same size. Device lock held; block_drain() was called, and nothing
 * has been submitted since. */
void block_io_switch(struct block_io *io, struct block *block);
/* Wait until all requests are finished and have been reported; device lock held. */
void block_drain(struct block_io *io);

#endif
