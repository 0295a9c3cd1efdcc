/* A share's session as bytes: what the guest knew and had open is there again in another server on the same folder and on a copy of it;
 * what is gone answers ESTALE; what cannot be carried is refused; bytes that were changed are refused or harmless. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/bits.h"
#include "base/err.h"
#include "base/log.h"
#include "share_client.h"
#include "test.h"

enum { NODES = 80, NODE = 96 }; /* in session.c's form: how many nodes, and where the first one is */

/* base/in is shared; base/copy is its copy, another folder for who looks at identities. */
static struct {
    char base[64];
    struct share *s;
    struct sc c;
    uint8_t *bytes; /* a session */
    size_t len;
} f;

static const char *at(const char *name)
{
    static char path[2][256]; /* one call may want two */
    static unsigned turn;

    turn ^= 1;
    snprintf(path[turn], sizeof(path[turn]), "%s/%s", f.base, name);
    return path[turn];
}

static void put_file(const char *name, const char *text)
{
    int fd = open(at(name), O_WRONLY | O_CREAT | O_TRUNC, 0644);

    assert_true(fd >= 0);
    assert_int_equal(write(fd, text, strlen(text)), strlen(text));
    close(fd);
}

static void assert_file(const char *name, const char *text)
{
    char have[64] = "";
    int fd = open(at(name), O_RDONLY);

    assert_true(fd >= 0);
    assert_true(read(fd, have, sizeof(have) - 1) >= 0);
    close(fd);
    assert_string_equal(have, text);
}

static void serve(const char *folder, bool ro, const char *tag)
{
    char path[256];
    struct share_options o = { .path = path, .ro = ro, .tag = tag };

    strcpy(path, at(folder));
    assert_int_equal(share_open(&f.s, &o, NULL), 0);
    sc_init(&f.c, f.s);
}

static void leave(void)
{
    if (f.s)
        sc_fini(&f.c);
    share_close(f.s);
    f.s = NULL;
}

static int setup(void **state)
{
    memset(&f, 0, sizeof(f));
    strcpy(f.base, "/tmp/vitro-session-XXXXXX");
    assert_non_null(mkdtemp(f.base));
    for (unsigned n = 0; n < 2; n++) {
        const char *folder[2][3] = { { "in", "in/d", "in/d/e" }, { "copy", "copy/d", "copy/d/e" } };
        const char *file[2][2] = { { "in/file", "in/d/e/deep" }, { "copy/file", "copy/d/e/deep" } };

        for (unsigned i = 0; i < 3; i++)
            assert_int_equal(mkdir(at(folder[n][i]), 0755), 0);
        put_file(file[n][0], "contents");
        put_file(file[n][1], "deep");
    }
    serve("in", false, "tag");
    assert_int_equal(sc_hello(&f.c, 0xffffffff & ~(1U << 30)), 0);
    return 0;
}

static int teardown(void **state)
{
    char command[100];

    leave();
    free(f.bytes);
    snprintf(command, sizeof(command), "rm -rf '%s'", f.base);
    return system(command);
}

static uint64_t look(uint64_t dir, const char *name)
{
    struct fuse_entry_out e = { .nodeid = 0 };

    assert_int_equal(sc_lookup(&f.c, dir, name, &e), 0);
    return e.nodeid;
}

static uint64_t open_as(uint32_t op, uint64_t node, uint32_t flags)
{
    uint64_t fh = 0;

    assert_true(sc_open(&f.c, op, node, flags, &fh) >= 0);
    return fh;
}

static void assert_read(uint64_t fh, const char *text)
{
    assert_int_equal(sc_read(&f.c, fh, 0, 4096), strlen(text));
    assert_memory_equal(f.c.out, text, strlen(text));
}

static void keep(void)
{
    struct err err = { "" };

    free(f.bytes);
    assert_int_equal(share_session_save(f.s, SHARE_WHOLE, &f.bytes, &f.len, &err), 0);
}

/* To another server on this folder; 0 or what it says. */
static int move(const char *folder, bool ro)
{
    keep();
    leave();
    serve(folder, ro, "tag");
    return share_session_load(f.s, SHARE_WHOLE, f.bytes, f.len, &(struct err){ "" });
}

static void test_goes_on(void **state)
{
    uint64_t file = look(1, "file"), d = look(1, "d"), e = look(d, "e"), deep = look(e, "deep");
    uint64_t w = open_as(FUSE_OPEN, file, O_RDWR), r = open_as(FUSE_OPEN, deep, O_RDONLY), dir = open_as(FUSE_OPENDIR, d, 0);
    uint64_t again, fh = open_as(FUSE_OPEN, deep, O_RDWR);
    unsigned nodes, handles;
    struct fuse_attr a;
    uint8_t *first;
    size_t len;

    sc_release(&f.c, FUSE_RELEASE, fh); /* a hole in the table */
    look(1, "file");                    /* known twice */
    sc_write(&f.c, w, 0, "CON", 3, 0);
    assert_int_equal(move("in", false), 0);
    share_count(f.s, &nodes, &handles);
    assert_int_equal(nodes, 4);
    assert_int_equal(handles, 3);
    assert_true(share_in_session(f.s));
    assert_read(w, "CONtents");
    assert_read(r, "deep");
    assert_int_equal(sc_write(&f.c, w, 8, "!", 1, 0), 1);
    assert_int_equal(sc_write(&f.c, r, 0, "x", 1, 0), -EBADF); /* opened for reading */
    assert_file("in/file", "CONtents!");
    assert_true(sc_readdir(&f.c, FUSE_READDIR, dir, 0, 4096) > 0);
    assert_int_equal(look(1, "file"), file); /* one file, one node */
    assert_int_equal(look(e, "deep"), deep);
    sc_forget(&f.c, file, 2);
    assert_int_equal(sc_getattr(&f.c, file, &a), 0); /* known once more, and open */
    sc_forget(&f.c, file, 1);
    sc_release(&f.c, FUSE_RELEASE, w);
    assert_int_equal(sc_getattr(&f.c, file, &a), -ESTALE);
    again = open_as(FUSE_OPEN, deep, O_RDONLY);
    assert_int_not_equal(again, w); /* numbers that were used do not come again */
    assert_int_not_equal(again, fh);
    sc_release(&f.c, FUSE_RELEASE, again);

    keep();
    first = f.bytes;
    len = f.len;
    f.bytes = NULL;
    leave();
    serve("in", false, "tag");
    assert_int_equal(share_session_load(f.s, SHARE_WHOLE, first, len, NULL), 0);
    keep();
    assert_int_equal(f.len, len); /* saved, loaded, saved: the same bytes */
    assert_memory_equal(f.bytes, first, len);
    free(first);
    share_end_session(f.s);
    share_count(f.s, &nodes, &handles);
    assert_int_equal(nodes + handles, 0);
}

/* Children were known before their folder came to where it is. */
static void test_moved_folder(void **state)
{
    uint64_t deep, e, d = look(1, "d");
    struct fuse_entry_out made;

    e = look(d, "e");
    deep = look(e, "deep");
    assert_int_equal(sc_mkdir(&f.c, 1, "new", 0755, &made), 0);
    assert_int_equal(sc_rename(&f.c, 1, "d", made.nodeid, "d", 0), 0);
    assert_int_equal(move("in", false), 0);
    assert_read(open_as(FUSE_OPEN, deep, O_RDONLY), "deep");
    assert_int_equal(look(made.nodeid, "d"), d);
}

static void test_copy(void **state)
{
    uint64_t file = look(1, "file"), d = look(1, "d"), e = look(d, "e"), deep = look(e, "deep");
    uint64_t w = open_as(FUSE_OPEN, file, O_RDWR), dir = open_as(FUSE_OPENDIR, d, 0);

    assert_true(sc_readdir(&f.c, FUSE_READDIR, dir, 0, 4096) > 0);
    assert_int_equal(move("copy", false), 0);
    assert_int_equal(sc_write(&f.c, w, 0, "COPIED", 6, 0), 6);
    assert_file("copy/file", "COPIEDts");
    assert_file("in/file", "contents");
    assert_read(open_as(FUSE_OPEN, deep, O_RDONLY), "deep");
    assert_int_equal(look(e, "deep"), deep);
    assert_int_equal(sc_readdir(&f.c, FUSE_READDIR, dir, 1, 4096), -ESTALE); /* a position in another folder */
    assert_true(sc_readdir(&f.c, FUSE_READDIR, dir, 0, 4096) > 0);
}

/* What is not there, or is not what it was. */
static void test_gone(void **state)
{
    uint64_t file = look(1, "file"), deep = look(look(look(1, "d"), "e"), "deep"), fh = open_as(FUSE_OPEN, file, O_RDWR);
    uint64_t kept = open_as(FUSE_OPEN, deep, O_RDWR), other;
    struct fuse_setattr_in set = { .valid = FATTR_SIZE | FATTR_FH, .fh = fh };
    struct fuse_attr a;

    keep();
    for (unsigned copy = 0; copy < 2; copy++) {
        leave();
        if (copy) {
            assert_int_equal(unlink(at("copy/file")), 0);
            assert_int_equal(mkdir(at("copy/file"), 0755), 0); /* another type */
        } else {
            put_file("in/new", "another's");
            assert_int_equal(rename(at("in/new"), at("in/file")), 0); /* another file */
        }
        serve(copy ? "copy" : "in", false, "tag");
        assert_int_equal(share_session_load(f.s, SHARE_WHOLE, f.bytes, f.len, NULL), 0);
        assert_int_equal(sc_read(&f.c, fh, 0, 10), -ESTALE);
        assert_int_equal(sc_write(&f.c, fh, 0, "x", 1, 0), -ESTALE);
        assert_int_equal(sc_setattr(&f.c, file, &set), -ESTALE);
        assert_int_equal(sc_getattr(&f.c, file, &a), -ESTALE);
        assert_true(sc_open(&f.c, FUSE_OPEN, file, O_RDONLY, &other) < 0);
        assert_int_not_equal(look(1, "file"), file);
        assert_read(kept, "deep");
        keep(); /* and it stays away */
        assert_int_equal(sc_release(&f.c, FUSE_RELEASE, fh), 0);
        assert_int_equal(sc_read(&f.c, fh, 0, 10), -EBADF);
    }
    assert_file("in/file", "another's");
}

/* A path that leads outside by now leads nowhere. */
static void test_stays_inside(void **state)
{
    uint64_t file = look(1, "file"), deep = look(look(look(1, "d"), "e"), "deep"), fh = open_as(FUSE_OPEN, deep, O_RDWR), other;
    struct fuse_attr a;

    keep();
    leave();
    put_file("secret", "secret");
    assert_int_equal(rename(at("copy/d"), at("out")), 0);
    assert_int_equal(symlink("../out", at("copy/d")), 0);
    assert_int_equal(unlink(at("copy/file")), 0);
    assert_int_equal(symlink("../secret", at("copy/file")), 0);
    serve("copy", false, "tag");
    assert_int_equal(share_session_load(f.s, SHARE_WHOLE, f.bytes, f.len, NULL), 0);
    assert_int_equal(sc_read(&f.c, fh, 0, 10), -ESTALE);
    assert_int_equal(sc_getattr(&f.c, deep, &a), -ESTALE);
    assert_true(sc_open(&f.c, FUSE_OPEN, file, O_RDONLY, &other) < 0);
}

static void assert_refused(enum share_part part, const char *why)
{
    struct err err = { "" };
    uint8_t *bytes;
    size_t len;

    assert_int_equal(share_session_save(f.s, part, &bytes, &len, &err), -ENOTSUP);
    assert_null(bytes);
    assert_non_null(strstr(err.text, why));
    assert_non_null(strstr(err.text, "'tag'"));
}

static void test_removed_but_open(void **state)
{
    uint64_t file = look(1, "file"), d = look(1, "d"), fh = open_as(FUSE_OPEN, file, O_RDWR), deep;

    assert_int_equal(sc_remove(&f.c, FUSE_UNLINK, 1, "file"), 0);
    assert_refused(SHARE_WHOLE, "still open");
    assert_refused(SHARE_SHAPE, "still open"); /* before anything is sent */
    sc_release(&f.c, FUSE_RELEASE, fh);
    keep(); /* known, but not open */
    deep = look(look(d, "e"), "deep");
    fh = open_as(FUSE_OPEN, deep, O_RDONLY);
    assert_int_equal(unlink(at("in/d/e/deep")), 0); /* by the host */
    assert_refused(SHARE_WHOLE, "still open");
    sc_release(&f.c, FUSE_RELEASE, fh);
    assert_int_equal(move("in", false), 0);
    assert_int_equal(sc_getattr(&f.c, deep, &(struct fuse_attr){ .ino = 0 }), -ESTALE);
}

static void test_read_only(void **state)
{
    uint64_t file = look(1, "file"), w = open_as(FUSE_OPEN, file, O_RDWR), r = open_as(FUSE_OPEN, file, O_RDONLY);

    assert_int_equal(move("in", true), 0);
    assert_int_equal(sc_read(&f.c, w, 0, 10), -ESTALE); /* it was not opened for writing */
    assert_read(r, "contents");
    assert_int_equal(sc_write(&f.c, w, 0, "x", 1, 0), -EROFS);
}

static void test_tag(void **state)
{
    struct err err = { "" };
    uint8_t *shape;
    char tag[SHARE_TAG + 1];
    size_t len;

    keep();
    assert_int_equal(share_session_save(f.s, SHARE_SHAPE, &shape, &len, &err), 0);
    assert_true(share_session_tag(shape, len, tag));
    assert_string_equal(tag, "tag");
    leave();
    serve("in", false, "other");
    assert_true(share_session_load(f.s, SHARE_SHAPE, shape, len, &err) < 0);
    assert_non_null(strstr(err.text, "'tag'"));
    assert_true(share_session_load(f.s, SHARE_WHOLE, f.bytes, f.len, &err) < 0);
    leave();
    serve("in", false, "tag");
    assert_int_equal(share_session_load(f.s, SHARE_SHAPE, f.bytes, f.len, &err), 0); /* only looked at */
    assert_false(share_in_session(f.s));
    free(shape);
    assert_int_equal(share_session_save(f.s, SHARE_NOTHING, &shape, &len, &err), 0);
    assert_false(share_session_tag(shape, len, tag));
    leave();
    serve("in", false, "other"); /* not mounted: it may be called as it likes */
    assert_int_equal(share_session_load(f.s, SHARE_WHOLE, shape, len, &err), 0);
    assert_false(share_in_session(f.s));
    free(shape);
}

/* Load what is in f.bytes but for one change; it must be refused. */
static void assert_bad(size_t where, uint64_t value, unsigned width)
{
    uint8_t old[8];

    memcpy(old, f.bytes + where, width);
    memcpy(f.bytes + where, &value, width);
    leave();
    serve("in", false, "tag");
    assert_true(share_session_load(f.s, SHARE_WHOLE, f.bytes, f.len, &(struct err){ "" }) < 0);
    assert_false(share_in_session(f.s));
    memcpy(f.bytes + where, old, width);
}

static void test_bad_bytes(void **state)
{
    uint64_t d = look(1, "d"), fh = open_as(FUSE_OPENDIR, d, 0);
    size_t handle;
    struct err err = { "" };

    (void)fh;
    keep();
    handle = f.len - 24;
    assert_bad(0, 2, 4);                     /* whole, but none */
    assert_bad(0, 7, 4);                     /* flags that nobody knows */
    assert_bad(4, UINT32_MAX, 4);            /* agreed on what nobody knows */
    assert_bad(72, UINT32_MAX, 4);           /* more slots than there may be */
    assert_bad(84, 1U << 30, 4);
    assert_bad(72, 1, 4);                    /* fewer than nodes */
    assert_bad(NODES, 2, 4);                 /* more nodes than bytes */
    assert_bad(NODES, UINT32_MAX, 4);
    assert_bad(NODES, 0, 4);                 /* bytes are left */
    assert_bad(NODE, 1, 8);                  /* the root's number */
    assert_bad(NODE, 0, 8);
    assert_bad(NODE + 8, 0, 8);              /* a name without a folder */
    assert_bad(NODE + 8, 99, 8);             /* a folder that is not there */
    assert_bad(NODE + 8, d, 8);              /* its own */
    assert_bad(NODE + 48, 0100644, 2);       /* a mode for a type */
    assert_bad(NODE + 50, 0x80, 1);
    assert_bad(NODE + 51, 200, 1);           /* a name longer than the rest */
    assert_bad(NODE + 52, '/', 1);
    assert_bad(NODE + 52, 0, 1);
    assert_bad(NODE + 52, '.', 1);
    assert_bad(handle, 0, 8);
    assert_bad(handle, 77, 8);
    assert_bad(handle + 8, 77, 8);           /* of no node */
    assert_bad(handle + 16, O_RDWR | O_TRUNC, 4);
    assert_bad(handle + 16, O_CREAT, 4);
    assert_bad(handle + 16, O_ACCMODE, 4);
    assert_bad(handle + 20, 0x11, 4);
    for (size_t len = 0; len < f.len; len++) {
        leave();
        serve("in", false, "tag");
        assert_true(share_session_load(f.s, SHARE_WHOLE, f.bytes, len, &err) < 0);
    }
    assert_file("in/file", "contents");
    leave();
    serve("in", false, "tag");
    assert_int_equal(share_session_load(f.s, SHARE_WHOLE, f.bytes, f.len, &err), 0);
    assert_true(share_session_load(f.s, SHARE_WHOLE, f.bytes, f.len, &err) < 0); /* it has one */
}

/* A node that nobody knows, and one that is twice there. */
static void test_bad_nodes(void **state)
{
    look(1, "d");
    look(1, "file");
    keep();
    assert_bad(NODE + 40, 0, 8); /* lookups */
    assert_bad(NODE + 52 + 1, 2, 8); /* the second one has the first one's number */
}

/* Any byte becomes any other: refused, or a server that still answers. */
static void test_mutated(void **state)
{
    uint64_t file = look(1, "file"), deep = look(look(look(1, "d"), "e"), "deep");
    struct fuse_entry_out e;
    unsigned loaded = 0, refused = 0, nodes, handles;
    uint32_t x = 1;

    open_as(FUSE_OPEN, file, O_RDWR);
    open_as(FUSE_OPEN, deep, O_RDONLY);
    open_as(FUSE_OPENDIR, 1, 0);
    keep();
    for (unsigned n = 0; n < 4000; n++) {
        uint8_t *where = f.bytes + (x = x * 1664525 + 1013904223) / 7 % f.len, old = *where;

        leave();
        serve(n & 1 ? "copy" : "in", n & 2, "tag");
        *where ^= (uint8_t)(1U << (x >> 8 & 7));
        if (share_session_load(f.s, SHARE_WHOLE, f.bytes, f.len, &(struct err){ "" }) == 0) {
            int r = share_in_session(f.s) ? sc_lookup(&f.c, 1, "file", &e) : 0;

            assert_true(r == 0 || r == -ENFILE);
            loaded++;
        } else {
            refused++;
        }
        *where = old;
        share_end_session(f.s);
        share_count(f.s, &nodes, &handles);
        assert_int_equal(nodes + handles, 0);
    }
    assert_true(loaded > 500 && refused > 500);
    assert_file("in/file", "contents");
    assert_file("in/d/e/deep", "deep");
}

#define TEST(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_goes_on), TEST(test_moved_folder), TEST(test_copy),      TEST(test_gone),      TEST(test_stays_inside), TEST(test_removed_but_open),
        TEST(test_read_only), TEST(test_tag),        TEST(test_bad_bytes), TEST(test_bad_nodes), TEST(test_mutated),
    };
    log_set_level(LOG_ERROR); /* what is gone is what is tested */
    return cmocka_run_group_tests(tests, NULL, NULL);
}
