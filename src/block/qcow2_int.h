/* What the qcow2_*.c share: the open image, its caches, and the calls between the files.
 *
 * Lock: one reader-writer lock an image. Shared: reads, and writes into clusters that are the image's own
 * already, which change no metadata in memory. Alone: everything else. Functions here are called with it held
 * alone, unless they say otherwise. A backing file's lock is taken inside its overlay's.
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

static inline uint16_t ld_be16(const void *p) { return __builtin_bswap16(ld_le16(p)); }
static inline uint32_t ld_be32(const void *p) { return __builtin_bswap32(ld_le32(p)); }
static inline uint64_t ld_be64(const void *p) { return __builtin_bswap64(ld_le64(p)); }
static inline void st_be16(void *p, uint16_t v) { st_le16(p, __builtin_bswap16(v)); }
static inline void st_be32(void *p, uint32_t v) { st_le32(p, __builtin_bswap32(v)); }
static inline void st_be64(void *p, uint64_t v) { st_le64(p, __builtin_bswap64(v)); }

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

struct qcow2 {
    struct block block; /* first */
    struct imgfile *f;
    struct block *backing;
    char *name;
    pthread_rwlock_t lock;
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
/* Now they go down; what gets free is given back to the file system. */
void qcow2_drop_apply(struct qcow2 *q);

/* qcow2_commit.c */
/* Write all metadata in the safe order and make everything durable. */
int qcow2_commit(struct qcow2 *q);
bool qcow2_pending(const struct qcow2 *q);
/* fdatasync; a failure is final. Lock shared is enough. */
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
/* How [off, off+len) is mapped, up to the end of the L2 table at most. Lock shared: -EAGAIN when the table
 * must be read first, for which call qcow2_lookup(). */
int qcow2_lookup_cached(struct qcow2 *q, uint64_t off, uint64_t len, struct qextent *e);
int qcow2_lookup(struct qcow2 *q, uint64_t off, uint64_t len, struct qextent *e);
/* The L2 table for the disk's offset, ready to be changed; valid until the next call that loads an L2 table.
 */
int qcow2_l2_own(struct qcow2 *q, uint64_t off, struct qtable **t);
/* The same without making one: *t is NULL where there is none. */
int qcow2_l2_load(struct qcow2 *q, uint64_t off, struct qtable **t);
/* Replace the entry of the disk's offset; what it referred to is dropped (room must be reserved). */
int qcow2_l2_set(struct qcow2 *q, struct qtable *t, uint64_t off, uint64_t entry);
/* The clusters of the file that an L2 entry refers to: 0 to n of them. */
uint64_t qcow2_entry_clusters(const struct qcow2 *q, uint64_t entry, uint64_t *first);
/* Is it a legal entry that stays inside the file? */
bool qcow2_entry_ok(const struct qcow2 *q, uint64_t entry);

/* qcow2_compress.c: the compressed cluster of an L2 entry, in q->comp_data. */
int qcow2_decompress(struct qcow2 *q, uint64_t entry);

/* qcow2_io.c */
int qcow2_read(struct block *b, uint64_t off, void *buf, size_t len);
int qcow2_write(struct block *b, uint64_t off, const void *buf, size_t len);
int qcow2_discard(struct block *b, uint64_t off, uint64_t len);
int qcow2_write_zeroes(struct block *b, uint64_t off, uint64_t len, bool unmap);
/* The same with the lock held, whatever the disk's size is. */
int qcow2_zero_locked(struct qcow2 *q, uint64_t off, uint64_t len, bool edges);

/* qcow2_header.c */
/* Parse and check the header of a file. q holds f, name and block.ro. */
int qcow2_header_read(struct qcow2 *q, struct err *err);

#endif
