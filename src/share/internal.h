/* Between the files of the share's server. See share.h for what it promises.
 *
 * Locks, in this order:
 *  1. tree: held for reading by everything that turns a node into a descriptor, for writing by renames, which
 *     change paths; so no path is half old and half new.
 *  2. a folder handle's dir_lock: its position and buffer.
 *  3. lock: a leaf, held for moments only: the tables of nodes and handles, names, counts.
 */
#ifndef VITRO_SHARE_INTERNAL_H
#define VITRO_SHARE_INTERNAL_H

#include <linux/fuse.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/stat.h>

#include "share/share.h"

#define SHARE_PATH_MAX 4096U /* of a node's path below the folder: what one system call takes */
#define SHARE_NAME_MAX 255U

/* The same object as before? Inode numbers are used again, birth times (where the file system has them) are not. */
struct share_id {
    uint64_t dev, ino, born;
};

/* A file, folder or link that the guest knows. It lives as long as the guest has looked it up, or something
 * refers to it. */
struct share_node {
    struct share_id id;
    struct share_node *parent; /* with name: where it was last seen; NULL: the root, or removed */
    char *name;
    struct share_node *chain; /* in the hash */
    struct share_handle *handles;
    uint64_t lookups;  /* the guest's count */
    uint64_t refs;     /* children, handles and calls that use it */
    uint64_t nodeid;   /* what the guest calls it */
    uint64_t seen_mtime, seen_ctime, seen_size; /* when it was last opened: may the guest keep its cache? */
    uint16_t type; /* S_IFMT of its mode */
    bool hashed;
    bool written; /* session.c, while it writes */
};

struct share_handle {
    int fd; /* -1: it was open when the machine was saved, and is not to be had here: ESTALE */
    bool folder;
    bool foreign; /* the guest's position is from the folder that this one stands for; until it reads from the beginning */
    bool failed; /* an fsync failed: so do all later ones */
    unsigned users; /* calls under way, and 1 while the guest has it open */
    uint64_t fh;
    struct share_node *node;
    struct share_handle *next; /* of the node */
    /* folders */
    pthread_mutex_t dir_lock;
    int64_t pos; /* what the guest will ask for if it goes on reading */
    uint8_t *buf; /* entries from the host that did not fit into the last answer */
    unsigned at, end;
};

/* A growing table of pointers whose numbers carry a generation, so that an old number finds nothing. */
struct share_table {
    struct share_slot {
        void *p;
        uint32_t generation, next_free;
    } *slot;
    uint32_t used, cap, max, free; /* free: 0: none, else number + 1 */
    uint32_t count;
};

struct share {
    int root_fd; /* O_PATH: the folder */
    int proc_fd; /* O_PATH: /proc/self/fd */
    char tag[SHARE_TAG + 1]; /* for sentences */
    bool ro, map;
    _Atomic bool session, writeback;
    _Atomic uint32_t flags; /* that were agreed on in INIT */
    bool as_root;
    uint32_t own_uid, own_gid, map_uid, map_gid;
    enum share_cache cache;
    uint64_t valid; /* seconds */
    pthread_rwlock_t tree;
    pthread_mutex_t lock;
    struct share_table nodes, handles;
    unsigned max_folders, folders; /* handles of folders: they have buffers */
    struct share_node *root;
    struct share_node **hash;
    size_t buckets; /* a power of two */
};

/* One message. */
struct share_msg {
    struct share *s;
    struct fuse_in_header in;
    const uint8_t *arg; /* after the header; aligned to 8 */
    size_t arg_len;
    uint8_t *out; /* after the answer's header; aligned to 8 */
    size_t room, out_len;
};

/* Get the fixed argument of an operation into *v. False: the message is too short. */
#define SHARE_ARG(m, v) share_arg(m, v, sizeof(*(v)))
bool share_arg(const struct share_msg *m, void *v, size_t len);
/* The name at off of the arguments, and where the next one begins. 0, -EINVAL, -ENAMETOOLONG. */
int share_name(const struct share_msg *m, size_t off, const char **name, size_t *next);
/* Text of any contents (a link's target). */
int share_text(const struct share_msg *m, size_t off, const char **text, size_t *next);
/* Set the answer. -EINVAL if there is no room. */
int share_answer(struct share_msg *m, const void *v, size_t len);

/* --- table.c --- */
uint64_t share_table_add(struct share_table *t, void *p); /* its number, or 0: full */
void *share_table_get(const struct share_table *t, uint64_t number);
void share_table_del(struct share_table *t, uint64_t number);
/* The nth entry, whatever its number; NULL if empty. */
void *share_table_at(const struct share_table *t, uint32_t n);
void share_table_fini(struct share_table *t);
/* For loading, in this order: slots up to so many, empty ones of this generation; things by the numbers that they had (false: no such slot,
 * or it is taken); what is still empty becomes free. 0 or -errno. The generation is one that no number had. */
int share_table_widen(struct share_table *t, uint32_t slots, uint32_t generation);
bool share_table_put(struct share_table *t, uint64_t number, void *p);
void share_table_link(struct share_table *t);
uint32_t share_table_generation(const struct share_table *t);

/* --- node.c --- */
int share_nodes_init(struct share *s, unsigned max);
void share_nodes_fini(struct share *s);
void share_nodes_clear(struct share *s);
void share_id_of(struct share_id *id, const struct statx *stx);
/* The node with one more reference, or NULL. */
struct share_node *share_node_get(struct share *s, uint64_t nodeid);
void share_node_put(struct share *s, struct share_node *n);
void share_node_forget(struct share *s, uint64_t nodeid, uint64_t lookups);
/* The guest looks up name in parent and stx is what it is: its node, counted once more. -ENFILE, -ENOMEM, -ELOOP. */
int share_node_enter(struct share *s, struct share_node *parent, const char *name, const struct statx *stx,
                     uint64_t *nodeid);
/* After a successful operation on names. gone: the object itself does not exist any more. */
void share_node_removed(struct share *s, struct share_node *parent, const char *name, const struct share_id *id,
                        bool gone);
void share_node_moved(struct share *s, struct share_node *from, const char *name, const struct share_id *id,
                      struct share_node *to, const char *new_name);
/* Put a node of a saved session into its place below parent (NULL: it has no name). False: it cannot be there, and n is still the caller's. */
bool share_node_load(struct share *s, struct share_node *n, struct share_node *parent);
/* Have it found by its identity, if there is no other of that: else, or if it has none, nothing that is there is it. */
void share_node_know(struct share *s, struct share_node *n, const struct share_id *id);
/* The node's path below the folder, with name appended if there is one. "." for the root. -ESTALE, -ENAMETOOLONG. */
int share_node_path(struct share *s, struct share_node *n, const char *name, char path[SHARE_PATH_MAX]);

/* --- open.c: from nodes to descriptors; the tree's lock is held --- */

/* statx() of a descriptor. 0 or -errno. */
int share_stat(int fd, struct statx *stx);
/* An O_PATH descriptor of the node, checked to be what the guest knows. -ESTALE if it is not there. stx may not
 * be NULL. */
int share_node_fd(struct share *s, struct share_node *n, struct statx *stx);
/* As share_node_fd(), for a folder whose entries will change. */
int share_folder_fd(struct share *s, struct share_node *n, struct statx *stx);
/* An O_PATH descriptor of name in the folder n. */
int share_child_fd(struct share *s, struct share_node *n, const char *name, struct statx *stx);
/* Open what an O_PATH descriptor stands for: a regular file or a folder only. */
int share_reopen(struct share *s, int path_fd, const struct statx *stx, int flags);
/* The name of an O_PATH descriptor in proc_fd. */
#define SHARE_FD_NAME 16
const char *share_fd_name(int fd, char buf[SHARE_FD_NAME]);

/* A descriptor to look at or change a node's attributes by: of an open file if there is one, which works for
 * removed files, too; else O_PATH. */
struct share_ref {
    int fd;
    struct share_handle *handle; /* it is this one's; else fd is ours */
    struct statx stx;
};
int share_ref_get(struct share *s, struct share_node *n, struct share_ref *ref);
void share_ref_put(struct share *s, struct share_ref *ref);

/* --- handle.c --- */
/* Takes over fd, also on failure. */
int share_handle_add(struct share *s, struct share_node *n, int fd, bool folder, uint64_t *fh);
/* 0 with *h, -EBADF, or -ESTALE: the file is not here any more. */
int share_handle_get(struct share *s, uint64_t fh, bool folder, struct share_handle **h);
/* Put a handle of a saved session into its place; takes over h, which is zeroed but for fd, folder, fh and flags. False: it cannot be there. */
bool share_handle_load(struct share *s, struct share_node *n, struct share_handle *h);
void share_handle_put(struct share *s, struct share_handle *h);
/* Any open file of the node, or NULL. */
struct share_handle *share_handle_of(struct share *s, struct share_node *n);
int share_handle_release(struct share *s, uint64_t fh, bool folder);
void share_handles_clear(struct share *s);

/* --- attr.c --- */
void share_fill_attr(const struct share *s, struct fuse_attr *a, const struct statx *stx);
int share_fill_entry(struct share *s, struct share_node *parent, const char *name, const struct statx *stx,
                     struct fuse_entry_out *e);
/* What the guest calls (uid, gid) is this on the host. */
uint32_t share_host_uid(const struct share *s, uint32_t uid);
uint32_t share_host_gid(const struct share *s, uint32_t gid);
/* Drop set-user-id and set-group-id bits, as a write by an ordinary user does. */
void share_drop_suid(int fd);

/* --- the operations: 0 with the answer set, or -errno. --- */
typedef int share_op_fn(struct share_msg *m, struct share_node *n);
share_op_fn share_op_getattr, share_op_setattr, share_op_statfs, share_op_readlink; /* attr.c */
share_op_fn share_op_lookup, share_op_mknod, share_op_mkdir, share_op_symlink, share_op_link, share_op_unlink,
    share_op_rmdir, share_op_rename, share_op_rename2, share_op_create; /* name.c, make.c */
share_op_fn share_op_open, share_op_read, share_op_write, share_op_release, share_op_fsync, share_op_fallocate,
    share_op_lseek, share_op_copy, share_op_syncfs; /* file.c */
share_op_fn share_op_opendir, share_op_readdir, share_op_readdirplus, share_op_releasedir,
    share_op_fsyncdir; /* folder.c */
share_op_fn share_op_getxattr, share_op_setxattr, share_op_listxattr, share_op_removexattr; /* xattr.c */

/* What INIT may agree on. */
uint32_t share_features(const struct share *s);
/* The guest's open() flags as the host shall see them. */
int share_open_flags(const struct share *s, uint32_t flags);
/* After a successful open: the answer's flags and handle. Takes over fd. */
int share_open_done(struct share *s, struct share_node *n, int fd, struct fuse_open_out *o);

#endif
