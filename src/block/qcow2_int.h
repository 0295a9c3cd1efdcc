/* What the qcow2_*.c share: the open image, its caches, and the calls between the files.
 *
 * Locks of an image, in the order in which they are taken; none is held while data is moved but `io`, shared.
 *   change   a mutex: who changes metadata has it from the first change to the last. A commit has it all the
 *            time, and so do its waits for the disk.
 *   io       shared: data is read or written in mapped clusters. Alone, for a moment: all such transfers that
 *            began earlier are over, so clusters that nothing refers to any more may be used again.
 *   lock     the tables in memory. Shared: looking things up. Alone: loading tables (no more than that
 * without `change`), and changing them (with `change`). spans    a leaf: the disk's clusters for which new
 * ones are being filled. Nobody else maps those. comp     a leaf: the buffers for compressed clusters.
 *   barrier  a leaf: held around fdatasync, so that an error of it is known before the next one begins.
 * Functions here are called with `change`, and `lock` alone, unless they say otherwise. A backing file's
 * locks are taken inside its overlay's.
 */
#ifndef VITRO_BLOCK_QCOW2_INT_H
#define VITRO_BLOCK_QCOW2_INT_H

#include <pthread.h>
#include <stdatomic.h>

#include "base/bits.h"
#include "block/image_file.h"
#include "block/qcow2.h"

#define QCOW2_MAGIC      0x514649fbU
#define QCOW2_V2_HEADER  72
#define QCOW2_V3_HEADER  104
#define QCOW2_HEADER     112           /* what we write: with the compression type */
#define QCOW2_L1_MAX     (32ULL << 20) /* bytes, as in QEMU */
#define QCOW2_RT_MAX     (8ULL << 20)
#define QCOW2_SNAP_MAX   65536U
#define QCOW2_SNAP_BYTES (64ULL << 20) /* of the snapshot table */

#define QCOW2_INCOMPAT_DIRTY   BIT(0)
#define QCOW2_INCOMPAT_CORRUPT BIT(1)
#define QCOW2_INCOMPAT_DATA    BIT(2)
#define QCOW2_INCOMPAT_COMP    BIT(3)
#define QCOW2_INCOMPAT_L2EXT   BIT(4)
#define QCOW2_COMPAT_LAZY      BIT(0)
#define QCOW2_AUTOCLEAR_BITMAP BIT(0)

#define QCOW2_COPIED     BIT(63) /* the cluster's reference count is exactly 1 */
#define QCOW2_COMPRESSED BIT(62)
#define QCOW2_ZERO       BIT(0)
#define QCOW2_OFFSET     0x00fffffffffffe00ULL
#define QCOW2_L1_RSVD    (~(QCOW2_COPIED | QCOW2_OFFSET))
#define QCOW2_L2_RSVD    (~(QCOW2_COPIED | QCOW2_OFFSET | QCOW2_ZERO))

/* A table of one cluster in memory: an L2 table or a refcount block. */
struct qtable {
    uint64_t off; /* where it is in the file */
    uint8_t *data;
    uint32_t dirty_lo, dirty_hi; /* bytes that the file does not have yet; empty: clean */
    bool fresh;                  /* nothing on the disk points to it yet */
    _Atomic uint32_t used;       /* for finding the least recently used one */
    int next;                    /* in its hash chain, -1: the last */
};

/* Tables by their offset. Lookups need the lock shared, everything else alone. */
struct qcache {
    struct qtable *t;
    int *head; /* hash chains */
    unsigned count, max, mask;
    size_t size; /* of a table */
    _Atomic uint32_t clock;
};

/* Clusters that hold metadata, by their number: what nobody may write over. */
enum qmeta { QMETA_NONE, QMETA_HEADER, QMETA_L1, QMETA_L2, QMETA_RT, QMETA_RB, QMETA_SNAP };
struct qmap {
    uint64_t *key; /* cluster + 1; 0: empty */
    uint8_t *kind;
    uint64_t used, mask;
};

/* Clusters whose reference is gone from the tables in memory, but not yet from the disk. */
struct qrange {
    uint64_t first, n;
};

/* [first, last] of the disk's clusters get new ones. On the stack of who does it. */
struct qspan {
    uint64_t first, last;
    struct qspan *next;
};

struct qcow2 {
    struct block block; /* first */
    struct imgfile *f;
    struct block *backing;
    char *name;
    pthread_mutex_t change, span_lock, comp_lock, barrier_lock;
    pthread_rwlock_t io, lock;
    pthread_cond_t span_end;
    struct qspan *spans;
    struct qcow2_info info;
    uint64_t incompat, autoclear;
    unsigned cbits, l2_bits, rc_order,
        rb_bits; /* log2: cluster, entries of an L2 table, refcount's bits, block's entries */
    uint64_t csize, size;
    bool repair, borrowed;

    uint64_t *l1; /* in the host's byte order */
    uint64_t l1_off, l1_dirty_lo, l1_dirty_hi;
    uint32_t l1_size;
    uint64_t *rt; /* refcount table, in the host's byte order */
    uint64_t rt_off, rt_dirty_lo, rt_dirty_hi;
    uint32_t rt_size, rt_clusters;
    bool rt_moved; /* the header still names another place */
    bool rt_growing;
    uint32_t snap_count;
    uint64_t snap_off, snap_len;

    struct qcache l2c, rbc;
    struct qmap meta;
    struct qrange *drop;
    unsigned drop_n, drop_max;

    uint64_t end;   /* bytes: data and tables lie below; a multiple of the cluster size */
    uint64_t fresh; /* bytes: behind this the file was never written, so it reads as zeroes */
    uint64_t hint;  /* no free cluster below this one */

    uint64_t comp_entry; /* the compressed cluster in comp_data; 0: none */
    uint8_t *comp_data, *comp_raw;
};

static inline struct qcow2 *qcow2_of(struct block *b) { return container_of(b, struct qcow2, block); }

/* qcow2_cache.c */
int qcache_init(struct qcache *c, unsigned max, size_t size);
void qcache_fini(struct qcache *c);
/* The table at off, or NULL. Lock shared is enough. */
struct qtable *qcache_find(struct qcache *c, uint64_t off);
/* A place for the table at off: a new one or that of the least recently used clean one. Contents are
 * undefined, and it is found from now on. NULL: no memory, or all are dirty. */
struct qtable *qcache_add(struct qcache *c, uint64_t off);
/* Forget the table. */
void qcache_drop(struct qcache *c, struct qtable *t);
void qtable_mark(struct qtable *t, size_t lo, size_t hi);
static inline bool qtable_dirty(const struct qtable *t) { return t->dirty_lo < t->dirty_hi; }
/* Write the dirty part of t, which must be of this kind according to the map. */
int qcow2_table_write(struct qcow2 *q, struct qtable *t, enum qmeta kind);

/* qcow2_meta.c */
int qmap_init(struct qmap *m, uint64_t expect);
void qmap_fini(struct qmap *m);
enum qmeta qmap_get(const struct qmap *m, uint64_t cluster);
/* -ENOMEM, or -EEXIST when the cluster has a kind already. */
int qmap_add(struct qmap *m, uint64_t cluster, enum qmeta kind);
void qmap_del(struct qmap *m, uint64_t cluster);
/* Put all metadata of a freshly opened image into the map; twice the same place is refused. */
int qcow2_meta_load(struct qcow2 *q, struct err *err);
/* The image contradicts itself: mark it on disk and take no more writes. Returns -EIO. Lock shared is enough.
 */
int qcow2_corrupt(struct qcow2 *q, const char *what, uint64_t where);
/* [off, off+len) may be overwritten with data: it lies in the file and holds no metadata. Lock shared is
 * enough. */
bool qcow2_data_ok(const struct qcow2 *q, uint64_t off, uint64_t len);

/* One snapshot's L1 table. Call with *pos = 0 first; 1: there is one, 0: no more, -errno. */
struct qsnap {
    uint64_t l1_off;
    uint32_t l1_size;
};
int qcow2_snap_next(struct qcow2 *q, uint64_t *pos, uint32_t *index, struct qsnap *s);

/* qcow2_refcount.c */
int qcow2_rc_get(struct qcow2 *q, uint64_t cluster, uint64_t *count);
/* The cluster's block must exist. */
int qcow2_rc_set(struct qcow2 *q, uint64_t cluster, uint64_t count);
/* The count, only if that needs no reading (lock shared is enough): -EAGAIN else. */
int qcow2_rc_peek(struct qcow2 *q, uint64_t cluster, uint64_t *count);
/* min to max free clusters in a row get the count 1: *n from *first on. */
int qcow2_alloc(struct qcow2 *q, uint64_t min, uint64_t max, uint64_t *first, uint64_t *n);
/* Take back an allocation that nothing points to. */
void qcow2_unalloc(struct qcow2 *q, uint64_t first, uint64_t n);
/* Room for n more calls of qcow2_drop(). */
int qcow2_drop_reserve(struct qcow2 *q, unsigned n);
/* One reference to each of n clusters is gone from the tables; their counts go down after the next commit. */
void qcow2_drop(struct qcow2 *q, uint64_t first, uint64_t n);
/* Now they go down, and what got free moves to the front of q->drop: how many ranges. */
unsigned qcow2_drop_apply(struct qcow2 *q);
/* Give n ranges in q->drop back to the file system. `change` is enough. */
void qcow2_drop_punch(struct qcow2 *q, unsigned n);

/* qcow2_commit.c */
/* Write all metadata in the safe order and make everything durable. Lets go of `lock` in between, but not of
 * `change`. */
int qcow2_commit(struct qcow2 *q);
bool qcow2_pending(const struct qcow2 *q);
/* fdatasync; a failure is final. No lock needed. */
int qcow2_barrier(struct qcow2 *q);
int qcow2_header_write(struct qcow2 *q);

/* qcow2_map.c */
enum qkind { QK_UNALLOC, QK_ZERO, QK_DATA, QK_COMPRESSED };
struct qextent {
    enum qkind kind;
    uint64_t len;  /* bytes for which this holds, from the asked offset on */
    uint64_t host; /* QK_DATA: of the asked offset; QK_COMPRESSED: the entry */
    bool own;      /* QK_DATA: may be written in place */
};
/* How [off, off+len) is mapped, up to the end of the L2 table at most. `lock` shared: -EAGAIN when the table
 * must be read first, for which call qcow2_lookup(), with `lock` alone; `change` is not needed. */
int qcow2_lookup_cached(struct qcow2 *q, uint64_t off, uint64_t len, struct qextent *e);
int qcow2_lookup(struct qcow2 *q, uint64_t off, uint64_t len, struct qextent *e);
/* The L2 table for the disk's offset, ready to be changed; valid until the next call that loads an L2 table.
 */
int qcow2_l2_own(struct qcow2 *q, uint64_t off, struct qtable **t);
/* The same without making one: *t is NULL where there is none. `lock` alone is enough. */
int qcow2_l2_load(struct qcow2 *q, uint64_t off, struct qtable **t);
/* Replace the entry of the disk's offset; what it referred to is dropped (room must be reserved). */
int qcow2_l2_set(struct qcow2 *q, struct qtable *t, uint64_t off, uint64_t entry);
/* The clusters of the file that an L2 entry refers to: 0 to n of them. */
uint64_t qcow2_entry_clusters(const struct qcow2 *q, uint64_t entry, uint64_t *first);
/* Is it a legal entry that stays inside the file? */
bool qcow2_entry_ok(const struct qcow2 *q, uint64_t entry);

/* qcow2_compress.c: len bytes at in of the compressed cluster of an L2 entry. `io` shared is enough. */
int qcow2_decompress(struct qcow2 *q, uint64_t entry, uint64_t in, uint8_t *buf, uint64_t len);

/* qcow2_io.c: no lock held. */
int qcow2_read(struct block *b, uint64_t off, void *buf, size_t len);
int qcow2_read_now(struct block *b, uint64_t off, const struct iovec *iov, unsigned n, size_t len);
int qcow2_write_from(struct block *b, uint64_t off, const struct iovec *iov, unsigned n, size_t len);
int qcow2_hold(struct block *b, uint64_t off, size_t len, struct block_place *p);
void qcow2_release(struct block *b);
int qcow2_write(struct block *b, uint64_t off, const void *buf, size_t len);
int qcow2_discard(struct block *b, uint64_t off, uint64_t len);
int qcow2_write_zeroes(struct block *b, uint64_t off, uint64_t len, bool unmap);
/* Whatever the disk's size is. edges: also the parts of clusters at both ends. */
int qcow2_zero(struct qcow2 *q, uint64_t off, uint64_t len, bool edges);
static inline void qcow2_change_begin(struct qcow2 *q)
{
    pthread_mutex_lock(&q->change);
    pthread_rwlock_wrlock(&q->lock);
}
static inline void qcow2_change_end(struct qcow2 *q)
{
    pthread_rwlock_unlock(&q->lock);
    pthread_mutex_unlock(&q->change);
}

/* qcow2_header.c */
/* Parse and check the header of a file. q holds f, name and block.ro. */
int qcow2_header_read(struct qcow2 *q, struct err *err);

#endif
