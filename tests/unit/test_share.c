/* The share's server by scripted messages on a folder of the test: what works, and every way out that we could think of.
 * House: long because each of them is a test of its own. */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "base/err.h"
#include "share_client.h"
#include "test.h"

/* base/in is shared; base/out is what must stay out of reach. */
static struct {
    char base[64];
    char path[512];
    struct share *s;
    struct sc c;
} f;

static const char *at(const char *name)
{
    snprintf(f.path, sizeof(f.path), "%s/%s", f.base, name);
    return f.path;
}

static void put_file(const char *name, const char *text)
{
    int fd = open(at(name), O_WRONLY | O_CREAT | O_TRUNC, 0644);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, text, strlen(text)), strlen(text));
    close(fd);
}

static const char *get_file(const char *name)
{
    static char text[256];
    int fd = open(at(name), O_RDONLY);
    ssize_t n = fd < 0 ? -1 : read(fd, text, sizeof(text) - 1);

    if (fd >= 0)
        close(fd);
    text[n < 0 ? 0 : n] = '\0';
    return n < 0 ? NULL : text;
}

static void move(const char *from, const char *to)
{
    char a[512];

    strcpy(a, at(from));
    assert_int_equal(rename(a, at(to)), 0);
}

static void mount(const struct share_options *more)
{
    struct share_options o = *more;
    struct err err = { "" };
    char path[128];

    snprintf(path, sizeof(path), "%s/in", f.base);
    o.path = path;
    assert_int_equal(share_open(&f.s, &o, &err), 0);
    sc_init(&f.c, f.s);
    assert_int_equal(sc_hello(&f.c, 0xffffffff & ~(1U << 30)), 0);
}

static void unmount(void)
{
    share_close(f.s);
    sc_fini(&f.c);
    f.s = NULL;
}

static void remount(const struct share_options *more)
{
    unmount();
    mount(more);
}

static int setup(void **state)
{
    strcpy(f.base, "/tmp/vitro-share-XXXXXX");
    assert_non_null(mkdtemp(f.base));
    assert_int_equal(mkdir(at("in"), 0755), 0);
    assert_int_equal(mkdir(at("out"), 0755), 0);
    put_file("out/secret", "secret");
    put_file("in/file", "contents");
    mount(&(struct share_options){ .ro = false });
    return 0;
}

static int teardown(void **state)
{
    unmount();
    char command[sizeof(f.base) + 16]; /* paths in there may be too long for nftw() */
    snprintf(command, sizeof(command), "rm -rf '%s'", f.base);
    return system(command);
}

static uint64_t look(uint64_t dir, const char *name)
{
    struct fuse_entry_out e = { .nodeid = 0 };
    assert_int_equal(sc_lookup(&f.c, dir, name, &e), 0);
    return e.nodeid;
}

static void assert_read(uint64_t fh, const char *text)
{
    assert_int_equal(sc_read(&f.c, fh, 0, 4096), strlen(text));
    assert_memory_equal(f.c.out, text, strlen(text));
}

/* ---- what works ---- */

static void test_files(void **state)
{
    struct fuse_entry_out e;
    struct fuse_attr a;
    uint64_t fh;

    assert_int_equal(sc_create(&f.c, 1, "new", O_RDWR, 0640, &e, &fh), 0);
    assert_int_equal(e.attr.mode, 0100640);
    assert_int_equal(sc_write(&f.c, fh, 0, "hello", 5, 0), 5);
    assert_int_equal(sc_write(&f.c, fh, 0, " again", 6, O_APPEND), 6); /* the offset does not count */
    assert_read(fh, "hello again");
    assert_int_equal(sc_read(&f.c, fh, 100, 10), 0);
    assert_int_equal(sc_getattr(&f.c, e.nodeid, &a), 0);
    assert_int_equal(a.size, 11);
    assert_int_equal(sc_release(&f.c, FUSE_RELEASE, fh), 0);
    assert_int_equal(sc_release(&f.c, FUSE_RELEASE, fh), -EBADF);
    assert_int_equal(sc_read(&f.c, fh, 0, 10), -EBADF);
    assert_string_equal(get_file("in/new"), "hello again");
    assert_int_equal(sc_create(&f.c, 1, "new", O_RDWR | O_EXCL, 0600, &e, &fh), -EEXIST);
    assert_int_equal(sc_create(&f.c, 1, "new", O_RDWR | O_TRUNC, 0600, &e, &fh), 0);
    assert_int_equal(e.attr.size, 0);
    assert_int_equal(e.attr.mode, 0100640);
}

static void test_umask_does_not_count(void **state)
{
    mode_t old = umask(077);
    struct fuse_entry_out e;
    uint64_t fh;

    assert_int_equal(sc_create(&f.c, 1, "open", O_RDWR, 0666, &e, &fh), 0);
    assert_int_equal(e.attr.mode, 0100666);
    assert_int_equal(sc_mkdir(&f.c, 1, "wide", 01777, &e), 0);
    assert_int_equal(e.attr.mode, 041777);
    umask(old);
}

static void test_removed_but_open(void **state)
{
    struct fuse_setattr_in set = { .valid = FATTR_MODE, .mode = 0600 };
    struct fuse_attr a;
    uint64_t n = look(1, "file"), fh, again;

    assert_true(sc_open(&f.c, FUSE_OPEN, n, O_RDWR, &fh) >= 0);
    assert_int_equal(sc_remove(&f.c, FUSE_UNLINK, 1, "file"), 0);
    assert_null(get_file("in/file"));
    assert_read(fh, "contents");
    assert_int_equal(sc_write(&f.c, fh, 0, "CON", 3, 0), 3);
    assert_int_equal(sc_getattr(&f.c, n, &a), 0); /* without the handle, as fstat() does */
    assert_int_equal(a.nlink, 0);
    assert_int_equal(sc_setattr(&f.c, n, &set), 0);
    assert_true(sc_open(&f.c, FUSE_OPEN, n, O_RDONLY, &again) >= 0); /* through /proc/self/fd */
    assert_read(again, "CONtents");
    put_file("in/file", "other");
    assert_int_not_equal(look(1, "file"), n);
    sc_release(&f.c, FUSE_RELEASE, fh);
    sc_release(&f.c, FUSE_RELEASE, again);
    assert_int_equal(sc_getattr(&f.c, n, &a), -ESTALE);
}

static void test_hard_links(void **state)
{
    uint64_t n = look(1, "file");
    struct fuse_attr a;

    assert_int_equal(sc_link(&f.c, n, 1, "second"), 0);
    assert_int_equal(look(1, "second"), n); /* one file, one node */
    assert_int_equal(sc_remove(&f.c, FUSE_UNLINK, 1, "second"), 0);
    assert_int_equal(sc_getattr(&f.c, n, &a), -ESTALE); /* the name that we knew: Linux looks up again */
    assert_int_equal(look(1, "file"), n);
    assert_int_equal(sc_getattr(&f.c, n, &a), 0);
    assert_int_equal(a.nlink, 1);
    assert_int_equal(sc_link(&f.c, n, 1, "file"), -EEXIST);
    assert_int_equal(sc_symlink(&f.c, 1, "l", "anywhere"), 0);
    assert_int_equal(sc_link(&f.c, look(1, "l"), 1, "l2"), 0); /* the link itself */
    assert_int_equal(lstat(at("in/l2"), &(struct stat){ .st_dev = 0 }), 0);
}

static void test_rename(void **state)
{
    struct fuse_entry_out d, e;
    struct fuse_attr a;
    uint64_t fh;

    assert_int_equal(sc_mkdir(&f.c, 1, "d", 0755, &d), 0);
    assert_int_equal(sc_mkdir(&f.c, d.nodeid, "e", 0755, &e), 0);
    assert_int_equal(sc_create(&f.c, e.nodeid, "deep", O_RDWR, 0644, &e, &fh), 0);
    sc_release(&f.c, FUSE_RELEASE, fh);
    assert_int_equal(sc_rename(&f.c, 1, "d", 1, "moved", 0), 0);
    assert_int_equal(sc_getattr(&f.c, e.nodeid, &a), 0); /* below a folder with a new name */
    assert_int_equal(sc_rename(&f.c, 1, "moved", d.nodeid, "in-itself", 0), -EINVAL);
    assert_int_equal(sc_rename(&f.c, 1, "file", 1, "moved", 0), -EISDIR);
    assert_int_equal(sc_rename(&f.c, 1, "file", 1, "moved", 1 /* no replace */), -EEXIST);
    assert_int_equal(sc_rename(&f.c, 1, "file", 1, "moved", 2 /* exchange */), 0);
    assert_int_equal(look(1, "file"), d.nodeid);
    assert_int_equal(sc_getattr(&f.c, e.nodeid, &a), 0);
    assert_int_equal(sc_rename(&f.c, 1, "moved", 1, "x", 4 /* whiteout */), -EINVAL);
    put_file("in/target", "t");
    uint64_t t = look(1, "target"), m = look(1, "moved");
    assert_int_equal(sc_rename(&f.c, 1, "moved", 1, "target", 0), 0);
    assert_int_equal(sc_getattr(&f.c, t, &a), -ESTALE);
    assert_int_equal(look(1, "target"), m);
}

static unsigned list(uint32_t opcode, uint64_t fh, uint32_t size, bool remove_as_we_go, char *seen)
{
    size_t head = opcode == FUSE_READDIRPLUS ? sizeof(struct fuse_entry_out) : 0;
    uint64_t off = 0;
    unsigned n = 0;
    int len;

    while ((len = sc_readdir(&f.c, opcode, fh, off, size)) > 0) {
        uint8_t *copy = malloc((size_t)len);
        struct fuse_dirent d;

        memcpy(copy, f.c.out, (size_t)len);
        for (int p = 0; p < len; p += (int)((head + sizeof(d) + d.namelen + 7) & ~7ULL)) {
            char name[256] = "";
            unsigned k;

            memcpy(&d, copy + p + head, sizeof(d));
            memcpy(name, copy + p + head + sizeof(d), d.namelen);
            off = d.off;
            if (sscanf(name, "n%u", &k) != 1)
                continue;
            assert_int_equal(seen[k]++, 0);
            n++;
            if (remove_as_we_go)
                assert_int_equal(sc_remove(&f.c, FUSE_UNLINK, 1, name), 0);
        }
        free(copy);
    }
    assert_int_equal(len, 0);
    return n;
}

static void test_folders(void **state)
{
    static const uint32_t size[] = { 4096, 400, 65536 };
    char seen[1000];
    uint64_t fh;
    unsigned nodes, handles;

    for (unsigned i = 0; i < 1000; i++) {
        char name[16];
        snprintf(name, sizeof(name), "in/n%u", i);
        put_file(name, "");
    }
    for (unsigned i = 0; i < 3; i++) {
        assert_true(sc_open(&f.c, FUSE_OPENDIR, 1, 0, &fh) >= 0);
        memset(seen, 0, sizeof(seen));
        assert_int_equal(list(FUSE_READDIR, fh, size[i], false, seen), 1000);
        memset(seen, 0, sizeof(seen));
        assert_int_equal(list(FUSE_READDIRPLUS, fh, size[i], i == 2, seen), 1000);
        assert_int_equal(sc_readdir(&f.c, FUSE_READDIR, fh, 0, 16), -EINVAL);
        assert_int_equal(sc_readdir(&f.c, FUSE_READDIR, fh, ~0ULL, 4096), -EINVAL);
        assert_int_equal(sc_release(&f.c, FUSE_RELEASE, fh), -EBADF); /* it is a folder's */
        assert_int_equal(sc_release(&f.c, FUSE_RELEASEDIR, fh), 0);
    }
    share_count(f.s, &nodes, &handles);
    assert_int_equal(handles, 0);
    assert_true(nodes >= 1000);
}

static void test_attributes(void **state)
{
    struct fuse_setattr_in set = { .valid = FATTR_SIZE, .size = 3 };
    uint64_t n = look(1, "file"), link;
    struct fuse_attr a;

    assert_int_equal(sc_setattr(&f.c, n, &set), 0);
    assert_string_equal(get_file("in/file"), "con");
    set = (struct fuse_setattr_in){ .valid = FATTR_SIZE, .size = ~0ULL };
    assert_int_equal(sc_setattr(&f.c, n, &set), -EFBIG);
    set = (struct fuse_setattr_in){ .valid = FATTR_MODE | FATTR_MTIME | FATTR_ATIME_NOW, .mode = 04711, .mtime = 1000 };
    assert_int_equal(sc_setattr(&f.c, n, &set), 0);
    assert_int_equal(sc_getattr(&f.c, n, &a), 0);
    assert_int_equal(a.mode, 0104711);
    assert_int_equal(a.mtime, 1000);
    assert_true(a.atime > 1000000);
    set.mtimensec = (1 << 30) - 1; /* UTIME_NOW */
    assert_int_equal(sc_setattr(&f.c, n, &set), -EINVAL);
    assert_int_equal(sc_symlink(&f.c, 1, "link", "../out/secret"), 0);
    link = look(1, "link");
    set = (struct fuse_setattr_in){ .valid = FATTR_MODE, .mode = 0777 };
    assert_int_equal(sc_setattr(&f.c, link, &set), -EOPNOTSUPP);
    set = (struct fuse_setattr_in){ .valid = FATTR_SIZE, .size = 0 };
    assert_int_equal(sc_setattr(&f.c, link, &set), -EINVAL);
    set = (struct fuse_setattr_in){ .valid = FATTR_MTIME, .mtime = 77 };
    assert_int_equal(sc_setattr(&f.c, link, &set), 0); /* the link's own */
    assert_string_equal(get_file("out/secret"), "secret");
    sc_begin(&f.c);
    assert_int_equal(sc_send(&f.c, FUSE_STATFS, 1), 0);
}

static void test_suid_is_dropped(void **state)
{
    struct fuse_setattr_in set = { .valid = FATTR_MODE, .mode = 06755 };
    struct fuse_write_in in = { .size = 1, .write_flags = FUSE_WRITE_KILL_SUIDGID };
    uint64_t n = look(1, "file");
    struct fuse_attr a;

    assert_int_equal(sc_setattr(&f.c, n, &set), 0);
    assert_true(sc_open(&f.c, FUSE_OPEN, n, O_WRONLY, &in.fh) >= 0);
    sc_begin(&f.c);
    sc_put(&f.c, &in, sizeof(in));
    sc_put(&f.c, "x", 1);
    assert_int_equal(sc_send(&f.c, FUSE_WRITE, 0), 0);
    assert_int_equal(sc_getattr(&f.c, n, &a), 0);
    assert_int_equal(a.mode, 0100755);
}

static void test_owner(void **state)
{
    struct fuse_setattr_in set = { .valid = FATTR_UID | FATTR_GID, .uid = 0, .gid = 0 };
    struct fuse_entry_out e;
    struct fuse_attr a;
    uint64_t fh;

    remount(&(struct share_options){ .map = true, .uid = 1234, .gid = 5678 });
    assert_int_equal(sc_getattr(&f.c, look(1, "file"), &a), 0);
    assert_int_equal(a.uid, 1234);
    assert_int_equal(a.gid, 5678);
    f.c.uid = 1234;
    f.c.gid = 5678;
    assert_int_equal(sc_create(&f.c, 1, "mine", O_RDWR, 0600, &e, &fh), 0);
    assert_int_equal(e.attr.uid, 1234);
    struct stat st;
    assert_int_equal(stat(at("in/mine"), &st), 0);
    assert_int_equal(st.st_uid, geteuid());
    set.uid = 1234;
    set.gid = 5678;
    assert_int_equal(sc_setattr(&f.c, e.nodeid, &set), 0); /* nothing changes */
    if (geteuid() == 0) { /* as root, files are the guest's users' */
        remount(&(struct share_options){ .ro = false });
        f.c.uid = 1000;
        f.c.gid = 1001;
        assert_int_equal(sc_mkdir(&f.c, 1, "theirs", 0700, &e), 0);
        assert_int_equal(e.attr.uid, 1000);
        assert_int_equal(e.attr.gid, 1001);
        assert_int_equal(sc_symlink(&f.c, 1, "l", "x"), 0);
        assert_int_equal(sc_mknod(&f.c, 1, "fifo", S_IFIFO | 0600), 0);
        assert_int_equal(stat(at("in/fifo"), &st), 0);
        assert_int_equal(st.st_gid, 1001);
    } else {
        assert_int_equal(sc_setattr(&f.c, e.nodeid, &(struct fuse_setattr_in){ .valid = FATTR_UID, .uid = 1 }), -EPERM);
    }
}

static int set_xattr(uint64_t n, const char *name, const char *value)
{
    uint32_t in[2] = { (uint32_t)strlen(value), 0 };

    sc_begin(&f.c);
    sc_put(&f.c, in, sizeof(in));
    sc_str(&f.c, name);
    sc_put(&f.c, value, strlen(value));
    return sc_send(&f.c, FUSE_SETXATTR, n);
}

static int get_xattr(uint32_t op, uint64_t n, const char *name, uint32_t size)
{
    struct fuse_getxattr_in in = { .size = size };

    sc_begin(&f.c);
    sc_put(&f.c, &in, sizeof(in));
    if (name)
        sc_str(&f.c, name);
    return sc_send(&f.c, op, n);
}

static void test_xattr(void **state)
{
    uint64_t n = look(1, "file");

    assert_int_equal(set_xattr(n, "security.capability", "x"), -EOPNOTSUPP);
    assert_int_equal(set_xattr(n, "trusted.overlay.opaque", "y"), -EOPNOTSUPP);
    assert_int_equal(set_xattr(n, "user.", "y"), -EOPNOTSUPP);
    assert_int_equal(get_xattr(FUSE_GETXATTR, n, "system.posix_acl_access", 100), -EOPNOTSUPP);
    if (set_xattr(n, "user.colour", "blue") == -EOPNOTSUPP)
        return; /* the file system of /tmp has none */
    assert_int_equal(get_xattr(FUSE_GETXATTR, n, "user.colour", 100), 0);
    assert_int_equal(f.c.out_len, 4);
    assert_memory_equal(f.c.out, "blue", 4);
    assert_int_equal(get_xattr(FUSE_GETXATTR, n, "user.colour", 3), -ERANGE);
    assert_int_equal(get_xattr(FUSE_GETXATTR, n, "user.none", 3), -ENODATA);
    assert_int_equal(get_xattr(FUSE_LISTXATTR, n, NULL, 100), 0);
    assert_int_equal(f.c.out_len, 12);
    assert_int_equal(sc_remove(&f.c, FUSE_REMOVEXATTR, n, "user.colour"), 0);
    assert_int_equal(get_xattr(FUSE_LISTXATTR, n, NULL, 100), 0);
    assert_int_equal(f.c.out_len, 0);
}

static void test_cache_is_kept_only_if_unchanged(void **state)
{
    uint64_t n = look(1, "file"), fh;

    assert_int_equal(sc_open(&f.c, FUSE_OPEN, n, O_RDONLY, &fh) & FOPEN_KEEP_CACHE, 0);
    assert_int_equal(sc_open(&f.c, FUSE_OPEN, n, O_RDONLY, &fh), FOPEN_KEEP_CACHE);
    usleep(10000);
    put_file("in/file", "CONTENTS");
    assert_int_equal(sc_open(&f.c, FUSE_OPEN, n, O_RDONLY, &fh) & FOPEN_KEEP_CACHE, 0);
    remount(&(struct share_options){ .cache = SHARE_CACHE_NONE });
    n = look(1, "file");
    for (unsigned i = 0; i < 2; i++)
        assert_int_equal(sc_open(&f.c, FUSE_OPEN, n, O_RDONLY, &fh), FOPEN_DIRECT_IO);
    remount(&(struct share_options){ .cache = SHARE_CACHE_ALWAYS });
    assert_int_equal(sc_open(&f.c, FUSE_OPEN, look(1, "file"), O_RDONLY, &fh), FOPEN_KEEP_CACHE);
}

/* ---- read-only ---- */

static void test_read_only(void **state)
{
    struct fuse_fallocate_in fa = { .length = 100 };
    struct fuse_entry_out e;
    uint64_t n, fh;

    remount(&(struct share_options){ .ro = true });
    n = look(1, "file");
    assert_int_equal(sc_create(&f.c, 1, "new", O_RDWR, 0600, &e, &fh), -EROFS);
    assert_int_equal(sc_mkdir(&f.c, 1, "new", 0700, &e), -EROFS);
    assert_int_equal(sc_mknod(&f.c, 1, "new", S_IFIFO), -EROFS);
    assert_int_equal(sc_symlink(&f.c, 1, "new", "x"), -EROFS);
    assert_int_equal(sc_link(&f.c, n, 1, "new"), -EROFS);
    assert_int_equal(sc_remove(&f.c, FUSE_UNLINK, 1, "file"), -EROFS);
    assert_int_equal(sc_remove(&f.c, FUSE_RMDIR, 1, "file"), -EROFS);
    assert_int_equal(sc_rename(&f.c, 1, "file", 1, "new", 0), -EROFS);
    assert_int_equal(sc_setattr(&f.c, n, &(struct fuse_setattr_in){ .valid = FATTR_MODE }), -EROFS);
    assert_int_equal(set_xattr(n, "user.x", "y"), -EROFS);
    assert_int_equal(sc_remove(&f.c, FUSE_REMOVEXATTR, n, "user.x"), -EROFS);
    assert_int_equal(sc_open(&f.c, FUSE_OPEN, n, O_RDWR, &fh), -EROFS);
    assert_int_equal(sc_open(&f.c, FUSE_OPEN, n, O_WRONLY, &fh), -EROFS);
    assert_int_equal(sc_open(&f.c, FUSE_OPEN, n, O_RDONLY | O_TRUNC, &fh), -EROFS);
    assert_int_equal(sc_open(&f.c, FUSE_OPEN, n, O_RDONLY, &fh), 0);
    assert_read(fh, "contents");
    assert_int_equal(sc_write(&f.c, fh, 0, "x", 1, 0), -EROFS);
    fa.fh = fh;
    sc_begin(&f.c);
    sc_put(&f.c, &fa, sizeof(fa));
    assert_int_equal(sc_send(&f.c, FUSE_FALLOCATE, 0), -EROFS);
    assert_string_equal(get_file("in/file"), "contents");
}

/* ---- ways out ---- */

static void test_names(void **state)
{
    static const char *const bad[] = { ".", "..", "/", "../out/secret", "a/b", "/etc/passwd", "file/", "./file" };
    struct fuse_entry_out e;
    char longer[300];
    uint64_t fh;

    for (unsigned i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        assert_int_equal(sc_lookup(&f.c, 1, bad[i], &e), -EINVAL);
        assert_int_equal(sc_create(&f.c, 1, bad[i], O_RDWR, 0600, &e, &fh), -EINVAL);
        assert_int_equal(sc_mkdir(&f.c, 1, bad[i], 0700, &e), -EINVAL);
        assert_int_equal(sc_symlink(&f.c, 1, bad[i], "x"), -EINVAL);
        assert_int_equal(sc_link(&f.c, look(1, "file"), 1, bad[i]), -EINVAL);
        assert_int_equal(sc_remove(&f.c, FUSE_UNLINK, 1, bad[i]), -EINVAL);
        assert_int_equal(sc_remove(&f.c, FUSE_RMDIR, 1, bad[i]), -EINVAL);
        assert_int_equal(sc_rename(&f.c, 1, "file", 1, bad[i], 0), -EINVAL);
        assert_int_equal(sc_rename(&f.c, 1, bad[i], 1, "file", 0), -EINVAL);
    }
    assert_int_equal(sc_lookup(&f.c, 1, "", &e), -EINVAL);
    memset(longer, 'n', sizeof(longer));
    longer[256] = '\0';
    assert_int_equal(sc_lookup(&f.c, 1, longer, &e), -ENAMETOOLONG);
    longer[255] = '\0';
    assert_int_equal(sc_mkdir(&f.c, 1, longer, 0755, &e), 0);
    /* A NUL ends a name: what comes after is not looked at. Without one there is no name. */
    sc_begin(&f.c);
    sc_put(&f.c, "file\0/../../x", 14);
    assert_int_equal(sc_send(&f.c, FUSE_LOOKUP, 1), 0);
    sc_begin(&f.c);
    sc_put(&f.c, "file", 4);
    assert_int_equal(sc_send(&f.c, FUSE_LOOKUP, 1), -EINVAL);
}

static void test_deep(void **state)
{
    struct fuse_entry_out e = { .nodeid = 1 };
    uint64_t dir = 1;
    char name[201];
    unsigned depth = 0;
    int r;

    memset(name, 'd', 200);
    name[200] = '\0';
    while ((r = sc_mkdir(&f.c, dir, name, 0755, &e)) == 0) {
        dir = e.nodeid;
        depth++;
        assert_true(depth < 100);
    }
    assert_true(r == -ENAMETOOLONG || r == -ENOENT);
    assert_true(depth >= 19);
}

/* A link to the outside, in every place where the host could follow it. */
static void test_symlinks(void **state)
{
    struct fuse_entry_out e;
    uint64_t n, fh;
    char target[128];

    snprintf(target, sizeof(target), "%s/out", f.base);
    assert_int_equal(sc_symlink(&f.c, 1, "abs", target), 0);
    assert_int_equal(sc_symlink(&f.c, 1, "rel", "../out/secret"), 0);
    n = look(1, "abs");
    assert_int_equal(sc_lookup(&f.c, n, "secret", &e), -ESTALE);
    assert_int_equal(sc_create(&f.c, n, "new", O_RDWR, 0600, &e, &fh), -ENOTDIR);
    assert_int_equal(sc_open(&f.c, FUSE_OPENDIR, n, 0, &fh), -ENOTDIR);
    assert_int_equal(sc_remove(&f.c, FUSE_UNLINK, n, "secret"), -ENOTDIR);
    n = look(1, "rel");
    assert_int_equal(sc_open(&f.c, FUSE_OPEN, n, O_RDWR, &fh), -ELOOP);
    assert_int_equal(sc_create(&f.c, 1, "rel", O_RDWR | O_TRUNC, 0600, &e, &fh), -ELOOP);
    assert_int_equal(get_xattr(FUSE_GETXATTR, n, "user.x", 10), -EOPNOTSUPP);
    sc_begin(&f.c);
    assert_int_equal(sc_send(&f.c, FUSE_READLINK, n), 0);
    assert_memory_equal(f.c.out, "../out/secret", 13);
    sc_begin(&f.c);
    assert_int_equal(sc_send(&f.c, FUSE_READLINK, look(1, "file")), -EINVAL);
    assert_string_equal(get_file("out/secret"), "secret");
}

/* The host puts a link where the guest knows a folder, and moves a folder out of the share. */
static void test_host_moves_things(void **state)
{
    struct fuse_entry_out d, e;
    struct fuse_attr a;
    uint64_t fh;

    assert_int_equal(sc_mkdir(&f.c, 1, "d", 0755, &d), 0);
    put_file("in/d/secret", "inside");
    assert_int_equal(sc_lookup(&f.c, d.nodeid, "secret", &e), 0);
    move("in/d", "out/moved");
    assert_int_equal(sc_getattr(&f.c, d.nodeid, &a), -ESTALE);
    assert_int_equal(sc_open(&f.c, FUSE_OPEN, e.nodeid, O_RDONLY, &fh), -ESTALE);
    assert_int_equal(sc_create(&f.c, d.nodeid, "new", O_RDWR, 0600, &e, &fh), -ESTALE);
    assert_int_equal(sc_rename(&f.c, 1, "file", d.nodeid, "gone", 0), -ESTALE);
    assert_int_equal(symlink("../out", at("in/d")), 0);
    assert_int_equal(sc_lookup(&f.c, d.nodeid, "secret", &e), -ESTALE);
    assert_int_equal(sc_open(&f.c, FUSE_OPENDIR, d.nodeid, 0, &fh), -ESTALE);
    assert_int_equal(sc_remove(&f.c, FUSE_UNLINK, d.nodeid, "secret"), -ESTALE);
    assert_int_equal(unlink(at("in/d")), 0);
    assert_int_equal(mkdir(at("in/d"), 0755), 0); /* another folder of that name */
    assert_int_equal(sc_getattr(&f.c, d.nodeid, &a), -ESTALE);
    assert_int_equal(sc_mkdir(&f.c, d.nodeid, "x", 0755, &e), -ESTALE);
    assert_int_not_equal(look(1, "d"), d.nodeid);
    assert_string_equal(get_file("out/secret"), "secret");
}

static void test_special_files(void **state)
{
    uint64_t n, fh;
    struct fuse_entry_out e;

    assert_int_equal(sc_mknod(&f.c, 1, "dev", S_IFCHR | 0600), -EPERM);
    assert_int_equal(sc_mknod(&f.c, 1, "dev", S_IFBLK | 0600), -EPERM);
    assert_int_equal(sc_mknod(&f.c, 1, "dev", 0600), -EPERM);
    assert_int_equal(sc_mknod(&f.c, 1, "fifo", S_IFIFO | 0600), 0);
    assert_int_equal(sc_mknod(&f.c, 1, "sock", S_IFSOCK | 0600), 0);
    assert_int_equal(sc_mknod(&f.c, 1, "reg", S_IFREG | 0600), 0);
    assert_int_equal(sc_open(&f.c, FUSE_OPEN, look(1, "reg"), O_RDWR, &fh), 0);
    n = look(1, "fifo");
    assert_int_equal(sc_open(&f.c, FUSE_OPEN, n, O_RDONLY, &fh), -ENXIO); /* it would hang */
    assert_int_equal(sc_create(&f.c, 1, "fifo", O_WRONLY, 0600, &e, &fh), -ENXIO);
    assert_int_equal(sc_open(&f.c, FUSE_OPEN, look(1, "sock"), O_RDWR, &fh), -ENXIO);
    assert_int_equal(sc_open(&f.c, FUSE_OPEN, 1, O_RDONLY, &fh), -EISDIR);
    assert_int_equal(sc_open(&f.c, FUSE_OPENDIR, n, 0, &fh), -ENOTDIR);
    assert_int_equal(sc_setattr(&f.c, n, &(struct fuse_setattr_in){ .valid = FATTR_SIZE }), -EINVAL);
    if (geteuid() == 0 && mknod(at("in/null"), S_IFCHR | 0666, 0x103) == 0) {
        assert_int_equal(sc_open(&f.c, FUSE_OPEN, look(1, "null"), O_RDWR, &fh), -ENXIO);
        assert_int_equal(sc_lookup(&f.c, 1, "null", &e), 0);
        assert_int_equal(e.attr.rdev, 0x103);
    }
}

static void test_refused_folders(void **state)
{
    struct err err = { "" };
    struct share *s;

    assert_int_equal(share_open(&s, &(struct share_options){ .path = "/proc" }, &err), -EPERM);
    assert_int_equal(share_open(&s, &(struct share_options){ .path = "/sys" }, &err), -EPERM);
    assert_int_equal(share_open(&s, &(struct share_options){ .path = "/nowhere" }, &err), -ENOENT);
    assert_non_null(strstr(err.text, "/nowhere"));
    assert_int_equal(share_open(&s, &(struct share_options){ .path = "/dev/null" }, &err), -ENOTDIR);
    /* A mount below the folder is not entered. */
    struct statfs root, proc;
    if (statfs("/", &root) == 0 && statfs("/proc", &proc) == 0 && root.f_type != proc.f_type) {
        assert_int_equal(share_open(&s, &(struct share_options){ .path = "/" }, &err), 0);
        struct sc c;
        sc_init(&c, s);
        assert_int_equal(sc_hello(&c, 0), 0);
        assert_int_equal(sc_lookup(&c, 1, "proc", NULL), -EXDEV);
        assert_int_equal(sc_remove(&c, FUSE_RMDIR, 1, "proc"), -EBUSY);
        sc_fini(&c);
        share_close(s);
    }
}

/* A process of the host swaps a folder for a link to the outside while the guest works in it. */
static void *swapper(void *stop)
{
    char d[80], aside[80], link[80];

    snprintf(d, sizeof(d), "%s/in/d", f.base);
    snprintf(aside, sizeof(aside), "%s/aside", f.base);
    snprintf(link, sizeof(link), "%s/link", f.base);
    while (!__atomic_load_n((int *)stop, __ATOMIC_RELAXED)) {
        if (rename(d, aside) || symlink("../out", link) || rename(link, d))
            abort();
        if (rename(d, link) || unlink(link) || rename(aside, d))
            abort();
    }
    return NULL;
}

static void test_race(void **state)
{
    struct fuse_entry_out d, e;
    pthread_t thread;
    int stop = 0;
    unsigned inside = 0;

    assert_int_equal(sc_mkdir(&f.c, 1, "d", 0755, &d), 0);
    put_file("in/d/secret", "inside");
    assert_int_equal(pthread_create(&thread, NULL, swapper, &stop), 0);
    for (unsigned i = 0; i < 20000; i++) {
        uint64_t fh;

        if (sc_lookup(&f.c, d.nodeid, "secret", &e) == 0) {
            if (sc_open(&f.c, FUSE_OPEN, e.nodeid, O_RDONLY, &fh) >= 0) {
                assert_read(fh, "inside");
                sc_release(&f.c, FUSE_RELEASE, fh);
                inside++;
            }
            sc_forget(&f.c, e.nodeid, 1);
        }
        if (sc_create(&f.c, d.nodeid, "made", O_RDWR, 0600, &e, &fh) == 0) {
            sc_release(&f.c, FUSE_RELEASE, fh);
            sc_forget(&f.c, e.nodeid, 1);
        }
        sc_remove(&f.c, FUSE_UNLINK, d.nodeid, "made");
    }
    __atomic_store_n(&stop, 1, __ATOMIC_RELAXED);
    pthread_join(thread, NULL);
    assert_true(inside > 0);
    assert_string_equal(get_file("out/secret"), "secret");
    assert_null(get_file("out/made"));
}

/* ---- bounds and nonsense ---- */

static void test_limits(void **state)
{
    struct fuse_entry_out e;
    uint64_t fh[9], n;
    unsigned nodes, handles;
    int r = 0;

    remount(&(struct share_options){ .max_nodes = 8, .max_handles = 4 });
    n = look(1, "file");
    for (unsigned i = 0; i < 4; i++)
        assert_true(sc_open(&f.c, FUSE_OPEN, n, O_RDONLY, &fh[i]) >= 0);
    assert_int_equal(sc_open(&f.c, FUSE_OPEN, n, O_RDONLY, &fh[4]), -ENFILE);
    assert_int_equal(sc_open(&f.c, FUSE_OPENDIR, 1, 0, &fh[4]), -ENFILE);
    sc_release(&f.c, FUSE_RELEASE, fh[0]);
    assert_true(sc_open(&f.c, FUSE_OPEN, n, O_RDONLY, &fh[0]) >= 0);
    for (unsigned i = 0; i < 20 && r == 0; i++) {
        char name[8];
        snprintf(name, sizeof(name), "%u", i);
        r = sc_mkdir(&f.c, 1, name, 0755, &e);
        if (i < 7)
            assert_int_equal(r, 0);
    }
    assert_int_equal(r, -ENFILE);
    sc_forget(&f.c, e.nodeid, 1);
    share_count(f.s, &nodes, &handles);
    assert_int_equal(nodes, 7);
    assert_int_equal(handles, 4);
    assert_int_equal(sc_lookup(&f.c, 1, "7", &e), 0);
    sc_begin(&f.c);
    assert_int_equal(sc_send(&f.c, FUSE_DESTROY, 0), 0);
    share_count(f.s, &nodes, &handles);
    assert_int_equal(nodes, 0);
    assert_int_equal(handles, 0);
    assert_int_equal(sc_lookup(&f.c, 1, "file", &e), -EIO); /* not mounted */
}

static void test_forget(void **state)
{
    struct fuse_entry_out d, e;
    struct fuse_attr a;
    uint64_t fh;
    unsigned nodes, handles;

    assert_int_equal(sc_mkdir(&f.c, 1, "d", 0755, &d), 0);
    assert_int_equal(sc_create(&f.c, d.nodeid, "f", O_RDWR, 0600, &e, &fh), 0);
    sc_forget(&f.c, d.nodeid, 100); /* more than there were; and f needs its parent */
    sc_forget(&f.c, e.nodeid, 1);
    sc_forget(&f.c, 1, ~0ULL);
    sc_forget(&f.c, 999, 1);
    share_count(f.s, &nodes, &handles);
    assert_int_equal(nodes, 2);
    assert_int_equal(sc_release(&f.c, FUSE_RELEASE, fh), 0);
    share_count(f.s, &nodes, &handles);
    assert_int_equal(nodes, 0);
    assert_int_equal(sc_getattr(&f.c, e.nodeid, &a), -ESTALE);
    assert_int_equal(sc_getattr(&f.c, 1, &a), 0);
}

static void test_messages(void **state)
{
    uint64_t aligned[64] = { 0 };
    struct fuse_in_header in = { .len = 40, .opcode = FUSE_GETATTR, .nodeid = 1, .unique = 5 };
    struct fuse_out_header out;
    uint8_t *req = (uint8_t *)aligned;

    for (size_t n = 0; n < 40; n++)
        assert_int_equal(share_call(f.s, req, n, f.c.reply, SC_ROOM), 0);
    memcpy(req, &in, sizeof(in));
    for (size_t room = 0; room < 16; room++)
        assert_int_equal(share_call(f.s, req, 40, f.c.reply, room), 0);
    assert_int_equal(share_call(f.s, req, 40, f.c.reply, 20), 16); /* no room for attributes */
    memcpy(&out, f.c.reply, sizeof(out));
    assert_int_equal(out.error, -EINVAL);
    assert_int_equal(share_call(f.s, req, 41, f.c.reply, 200), 16); /* the lengths disagree */
    for (uint32_t op = 0; op < 70; op++) { /* no arguments at all */
        if (op == FUSE_DESTROY)
            continue;
        in.opcode = op;
        memcpy(req, &in, sizeof(in));
        size_t n = share_call(f.s, req, 40, f.c.reply, SC_ROOM);
        memcpy(&out, f.c.reply, sizeof(out));
        if (op == FUSE_FORGET || op == FUSE_BATCH_FORGET || op == FUSE_INTERRUPT)
            assert_int_equal(n, 0);
        else if (op != FUSE_GETATTR && op != FUSE_STATFS && op != FUSE_SYNCFS && op != FUSE_OPENDIR)
            assert_true(n == 16 && out.error < 0);
    }
    sc_begin(&f.c);
    assert_int_equal(sc_send(&f.c, 0xffffffff, 1), -ENOSYS);
    assert_int_equal(sc_write(&f.c, 12345, 0, "x", 1, 0), -EBADF);
}

static void test_lying_lengths(void **state)
{
    uint64_t n = look(1, "file");
    struct fuse_write_in w = { .size = 1000 };
    struct fuse_batch_forget_in b = { .count = 0xffffffff };

    assert_true(sc_open(&f.c, FUSE_OPEN, n, O_RDWR, &w.fh) >= 0);
    sc_begin(&f.c);
    sc_put(&f.c, &w, sizeof(w));
    sc_put(&f.c, "short", 5);
    assert_int_equal(sc_send(&f.c, FUSE_WRITE, 0), -EINVAL);
    assert_int_equal(sc_read(&f.c, w.fh, ~0ULL, 100), -EINVAL);
    assert_int_equal(sc_read(&f.c, w.fh, 0, 0xffffffff), 8); /* what there is and what there is room for */
    sc_begin(&f.c);
    sc_put(&f.c, &b, sizeof(b));
    assert_int_equal(sc_send(&f.c, FUSE_BATCH_FORGET, 0), -9999);
    uint32_t x[2] = { 0xffffffff, 0 };
    sc_begin(&f.c);
    sc_put(&f.c, x, sizeof(x));
    sc_str(&f.c, "user.x");
    assert_int_equal(sc_send(&f.c, FUSE_SETXATTR, n), -EINVAL);
}

#define TEST(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_files),
        TEST(test_umask_does_not_count),
        TEST(test_removed_but_open),
        TEST(test_hard_links),
        TEST(test_rename),
        TEST(test_folders),
        TEST(test_attributes),
        TEST(test_suid_is_dropped),
        TEST(test_owner),
        TEST(test_xattr),
        TEST(test_cache_is_kept_only_if_unchanged),
        TEST(test_read_only),
        TEST(test_names),
        TEST(test_deep),
        TEST(test_symlinks),
        TEST(test_host_moves_things),
        TEST(test_special_files),
        TEST(test_refused_folders),
        TEST(test_race),
        TEST(test_limits),
        TEST(test_forget),
        TEST(test_messages),
        TEST(test_lying_lengths),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
