/* The connection of a migration: frames over a socket.
 *
 *   frame     magic:u32 type:u32 length:u32 number:u32 sum:u64, then so many bytes. Little-endian; number counts a
 *             direction's frames from 0; sum is XXH64 of the 16 bytes before it and of the bytes after it.
 *
 *   source                                destination
 *   HELLO  version:u32 slots:u32 max:u32
 *          about:u32 token:u8[16] used:u64
 *          flags:u32 disks:u32, then a slot
 *          each { gpa:u64 size:u64
 *          readonly:u64 }, a disk each that is
 *          copied { size:u64 allocated:u64 },
 *          what the machine is as JSON
 *          (save/about.c, `about` bytes) and
 *          its shape (save/machine.c)
 *                                         READY  version:u32 0:u32: there is a machine that can take all that comes;
 *                                         or REFUSE and a sentence, which may come at any time
 *   PAGES  chunk:u32 form:u32 here:u8[32]   as often as it takes
 *          zero:u8[32], then the pages of
 *          `here`, as they are or packed
 *   DISK   disk:u32 form:u32 off:u64        if disks are copied; of ephemeral ones what
 *          len:u64, then the bytes, as they      the guest has written, always
 *          are, packed, or none for zeroes
 *   SYNC                                    after some of them
 *                                         SYNCED: what was sent is on the disk
 *   STATE  flags:u32 0:u32 about:u32
 *          0:u32, JSON again, then
 *          described state
 *   ALL    frames:u64 token
 *                                         HELD   token: complete and checked, not running
 *   COMMIT token: I shall never run again
 *                                         RUNS   token
 *
 * Either side may be hostile: a frame is never longer than its type can be, memory grows only with what has come in, and
 * nothing waits for longer than stall_ms without a byte.
 *
 * Thread: one at a time.
 */
#ifndef VITRO_MIGRATE_STREAM_H
#define VITRO_MIGRATE_STREAM_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct err;

#define MIG_VERSION 3
#define MIG_TOKEN   16
#define MIG_HEAD    24
#define MIG_HELLO_HEAD 48
#define MIG_SHAPE_MAX  (1u << 20)
#define MIG_PAGES   72 /* bytes of PAGES before its pages */

enum mig_type { MIG_HELLO = 1, MIG_READY, MIG_REFUSE, MIG_CHUNK, MIG_STATE, MIG_ALL, MIG_HELD, MIG_COMMIT, MIG_RUNS,
                MIG_DISK, MIG_SYNC, MIG_SYNCED };
enum { MIG_PLAIN, MIG_ZSTD, MIG_ZEROES }; /* form of pages and of pieces of disks; the last one of these only */
#define MIG_IMAGE 0x80000000U /* with the disk's number in DISK: the image of an ephemeral one, where disks are copied */
enum { MIG_COPIES = 1 };      /* flags of HELLO: disks are copied */
enum { MIG_PAUSED = 1 };      /* flags of STATE: it stood already, and shall stand */

struct mig_stream {
    int in, out; /* owned; non-blocking; may be the same */
    int stall_ms;
    _Atomic bool cancel;           /* set from another thread: everything fails with -ECANCELED soon */
    void (*tick)(void *opaque);    /* called at least every 10 ms while something is sent; may be NULL */
    void *opaque;
    uint32_t sent, received; /* frames */
    uint64_t bytes;          /* sent */
    uint8_t *buf;            /* owned: the last frame that was received */
    size_t room;
};

struct mig_frame {
    enum mig_type type;
    const uint8_t *data; /* until the next frame */
    size_t len;
};

/* Takes the descriptors over. 0 or -errno. */
int mig_stream_init(struct mig_stream *s, int in, int out, int stall_ms);
void mig_stream_fini(struct mig_stream *s);

/* One frame of two pieces (b may be empty). 0, or -errno with a sentence. */
int mig_send(struct mig_stream *s, enum mig_type type, const void *a, size_t alen, const void *b, size_t blen,
             struct err *err);
/* The next frame, whole and checked. A REFUSE fails with the sentence that it brought. 0, or -errno with a sentence. */
int mig_receive(struct mig_stream *s, struct mig_frame *f, struct err *err);
/* The same, of a type that is expected, and of exactly len bytes unless len is 0. */
int mig_expect(struct mig_stream *s, enum mig_type type, size_t len, struct mig_frame *f, struct err *err);
/* Has the other side said something, or gone? */
bool mig_readable(const struct mig_stream *s);

#endif
