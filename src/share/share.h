/* A shared folder: a FUSE server over one folder of the host, for virtio/fs.c.
 *
 *     share_open(&s, &options, err)                    opens the folder; nothing above it is reachable from here
 *     n = share_call(s, request, len, reply, room)     one FUSE message, answered in place; any thread
 *     share_end_session(s)                             forget all that the guest knew (reset, unmount)
 *     share_session_save(), share_session_load()       what it knows, for a machine that is saved or moves
 *     share_close(s)
 *
 * The guest is hostile, and other processes of the host may do what they like inside the folder meanwhile.
 * What keeps the server inside:
 *  - The guest names things by node numbers and single names. A node is a *path* below the folder, not a
 *    descriptor: each operation opens it afresh from the folder's own descriptor with openat2() and
 *    RESOLVE_BENEATH, NO_SYMLINKS, NO_MAGICLINKS, NO_XDEV, and compares device, inode number and birth time
 *    with what the guest was told. So the host's kernel follows no link and crosses no mount, and what was
 *    moved out of the folder is out of reach (ESTALE).
 *  - That descriptor is O_PATH. Only what turned out to be a regular file or a folder is then opened, through
 *    /proc/self/fd, so that no device, FIFO or socket ever is.
 * All tables are bounded. The answer to nonsense is an error number.
 *
 * Protocol: FUSE 7.31 and later, <linux/fuse.h>; virtio 1.2, 5.11.
 */
#ifndef VITRO_SHARE_SHARE_H
#define VITRO_SHARE_SHARE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct err;
struct share;

/* How long the guest may believe what it was told. */
enum share_cache {
    SHARE_CACHE_AUTO,   /* a second */
    SHARE_CACHE_NONE,   /* not at all */
    SHARE_CACHE_ALWAYS, /* until it forgets: only the guest changes the folder. Writes are cached, too */
};

#define SHARE_TAG 36 /* bytes */
#define SHARE_SECTION "share" /* of a saved machine: its session */

struct share_options {
    const char *path;
    const char *tag; /* what the guest mounts it by, for sentences; at most SHARE_TAG bytes; may be NULL */
    bool ro; /* everything that would change something is refused with EROFS */
    enum share_cache cache;
    bool map; /* show what belongs to vitro's own user and group as uid and gid, and the other way round */
    uint32_t uid, gid;
    unsigned max_nodes, max_handles; /* 0: the defaults */
};

#define SHARE_MAX_NODES   (1U << 20) /* files that the guest knows; about 200 bytes each */
#define SHARE_MAX_HANDLES 16384U     /* open files; less if the process may have fewer */
#define SHARE_MAX_WRITE   (1U << 20) /* bytes of one WRITE or READ */

/* 0, or -errno with a sentence in err. */
int share_open(struct share **out, const struct share_options *o, struct err *err);
/* No call is running. NULL is allowed. */
void share_close(struct share *s);

/* Handle one message. req has len bytes and is aligned to 8; the answer goes to reply, which has room for
 * `room` bytes and does not overlap. Returns the length of the answer; 0: none is due, or there is no room for
 * one. May block on the host's disk. Thread-safe. */
size_t share_call(struct share *s, const void *req, size_t len, void *reply, size_t room);
/* True for messages that never block and have no answer (FORGET): worth no thread. */
bool share_is_quick(const void *req, size_t len);

/* Drop all nodes and open files. No call is running. */
void share_end_session(struct share *s);
/* The guest has mounted it. */
bool share_in_session(const struct share *s);
/* How much of a session is wanted. */
enum share_part {
    SHARE_NOTHING, /* the guest has not mounted it */
    SHARE_SHAPE,   /* only that there is one, and whether it could be saved now; calls may run */
    SHARE_WHOLE
};

/* The session as bytes (session.c has their form), *out is the caller's to free. No call is running, but for SHAPE. A file that
 * is open but has no name any more cannot be carried: -ENOTSUP. 0, or -errno with a sentence. */
int share_session_save(struct share *s, enum share_part part, uint8_t **out, size_t *len, struct err *err);
/* Into a share that has no session; of what is not to be WHOLE only the tag is compared. The bytes are hostile: everything is checked. What the guest knew
 * and had open is looked for by its path, in this folder; what is not there, or is something else, answers ESTALE from now on. On failure
 * share_end_session() is due. No call is running. 0, or -errno with a sentence. */
int share_session_load(struct share *s, enum share_part part, const uint8_t *data, size_t len, struct err *err);
/* Of such bytes: true if it is a session, with the tag (SHARE_TAG + 1 bytes). */
bool share_session_tag(const uint8_t *data, size_t len, char *tag);
/* Have the host write down what the guest wrote to files that are open: another host may open them next. Any thread. */
void share_flush(struct share *s);

/* For tests: what the tables hold now, without the root. */
void share_count(struct share *s, unsigned *nodes, unsigned *handles);

#endif
