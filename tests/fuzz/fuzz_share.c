/* A hostile guest of a shared folder: FUSE messages from the input against the server on a folder of this process, and a host that
 * moves things meanwhile. Whatever comes, no answer is malformed, nothing outside of the folder is touched or read, and in the end
 * all nodes and handles are given back.
 *
 * In between its session is saved and goes on in another server, as it was or changed.
 *
 * An input is a list of records: an op byte, then what the message's parts are made of, see send_record(). Small numbers stand for
 * node numbers and handles that earlier answers gave.
 */
#include "fuzz.h"

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <linux/fuse.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/bits.h"
#include "base/err.h"
#include "base/log.h"
#include "share/share.h"

#define KNOWN 8
#define SECRET "must-stay-out-of-reach"
enum { MAX_RECORDS = 64, MAX_REPLY = 16384 };

static struct {
    char base[64]; /* base/in is shared, base/out is not */
    struct share *s;
    uint8_t how; /* options */
    uint64_t node[KNOWN], fh[KNOWN];
    unsigned nodes, fhs;
    _Alignas(8) uint8_t req[8192];
    _Alignas(8) uint8_t reply[MAX_REPLY];
} f;

static const char *at(const char *name)
{
    static char path[2][256];
    static unsigned turn;

    turn ^= 1;
    snprintf(path[turn], sizeof(path[turn]), "%s/%s", f.base, name);
    return path[turn];
}

static void put_file(const char *name, const char *text)
{
    int fd = open(at(name), O_WRONLY | O_CREAT | O_TRUNC, 0644);

    FUZZ_CHECK(fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text));
    close(fd);
}

static int drop(const char *path, const struct stat *st, int type, struct FTW *w)
{
    return w->level ? remove(path) : 0;
}

static void clean(void)
{
    nftw(at("in"), drop, 16, FTW_DEPTH | FTW_PHYS);
    rmdir(at("in"));
    unlink(at("out/secret"));
    rmdir(at("out/moved"));
    rmdir(at("out"));
    rmdir(f.base);
}

/* The folder as each input finds it. */
static void make_folder(void)
{
    nftw(at("in"), drop, 16, FTW_DEPTH | FTW_PHYS);
    mkdir(at("in/d"), 0755);
    put_file("in/a", "hello");
    put_file("in/d/b", "world");
    FUZZ_CHECK(symlink("../out/secret", at("in/l")) == 0);
    FUZZ_CHECK(symlink("../out", at("in/o")) == 0);
}

static void once(void)
{
    if (f.base[0])
        return;
    log_set_level(LOG_ERROR);
    strcpy(f.base, access("/dev/shm", W_OK) == 0 ? "/dev/shm/vitro-fuzz-XXXXXX" : "/tmp/vitro-fuzz-XXXXXX");
    FUZZ_CHECK(mkdtemp(f.base));
    FUZZ_CHECK(mkdir(at("in"), 0755) == 0 && mkdir(at("out"), 0755) == 0);
    put_file("out/secret", SECRET);
    atexit(clean);
}

/* Nodes and handles that an answer brings: they become small numbers. */
static void learn(uint32_t op, const struct fuse_out_header *out)
{
    const uint8_t *body = f.reply + sizeof(*out);
    size_t len = out->len - sizeof(*out);

    if (out->error)
        return;
    if ((op == FUSE_LOOKUP || op == FUSE_MKDIR || op == FUSE_CREATE || op == FUSE_MKNOD || op == FUSE_SYMLINK ||
         op == FUSE_LINK) && len >= 8)
        memcpy(&f.node[f.nodes++ % KNOWN], body, 8);
    if ((op == FUSE_OPEN || op == FUSE_OPENDIR) && len >= 8)
        memcpy(&f.fh[f.fhs++ % KNOWN], body, 8);
    if (op == FUSE_CREATE && len >= sizeof(struct fuse_entry_out) + 8)
        memcpy(&f.fh[f.fhs++ % KNOWN], body + sizeof(struct fuse_entry_out), 8);
}

static uint64_t known(const uint64_t *list, uint64_t v) { return v < KNOWN ? list[v] : v; }

/* Only what READLINK says may have the secret's name in it; the secret itself may be nowhere. */
static void check_answer(uint32_t op, const struct fuse_in_header *in, size_t n, size_t room)
{
    struct fuse_out_header out;

    if (!n)
        return;
    FUZZ_CHECK(n >= sizeof(out) && n <= room);
    memcpy(&out, f.reply, sizeof(out));
    FUZZ_CHECK(out.len == n && out.unique == in->unique && out.error <= 0 && out.error > -4096);
    FUZZ_CHECK(!out.error || n == sizeof(out));
    FUZZ_CHECK(!memmem(f.reply, n, SECRET, strlen(SECRET)));
    learn(op, &out);
}

/* op; flags: bit 0 the header's length lies, bit 1 little room; node; n times 8 bytes of arguments, of which the first may be a known
 * handle or node; then a text with what follows (names, data). */
static void send_record(struct fuzz_input *in, uint32_t op)
{
    struct fuse_in_header h = { .opcode = op, .unique = 77 };
    uint8_t flags = (uint8_t)fuzz_take(in, 1);
    unsigned words = fuzz_take(in, 1) % 14;
    size_t len = sizeof(h), room = flags & 2 ? fuzz_take(in, 1) * 4 : MAX_REPLY, text;
    bool first_is_node = op == FUSE_LINK || op == FUSE_RENAME || op == FUSE_RENAME2;

    h.nodeid = known(f.node, fuzz_take(in, 1));
    for (unsigned i = 0; i < words; i++, len += 8) {
        uint64_t v = fuzz_take(in, i ? 4 : 1);
        if (i == 0)
            v = known(first_is_node ? f.node : f.fh, v);
        st_le64(f.req + len, v);
    }
    text = fuzz_take(in, 1);
    if (text > in->left)
        text = in->left;
    memcpy(f.req + len, in->at, text);
    in->at += text;
    in->left -= text;
    len += text;
    h.len = (uint32_t)(flags & 1 ? len + 8 : len);
    memcpy(f.req, &h, sizeof(h));
    if (op == FUSE_SETATTR && len > 48) /* no file of terabytes, please */
        st_le64(f.req + sizeof(h) + 16, ld_le64(f.req + sizeof(h) + 16) & 0xfffff);
    if (op == FUSE_FALLOCATE || op == FUSE_WRITE || op == FUSE_COPY_FILE_RANGE)
        for (size_t i = 1; i < 6 && sizeof(h) + 8 * i + 8 <= len; i++)
            f.req[sizeof(h) + 8 * i + 3] = f.req[sizeof(h) + 8 * i + 2] &= 7;
    check_answer(op, &h, share_call(f.s, f.req, len, f.reply, room), room);
}

static void serve(struct share **s)
{
    char shared[80];
    struct err err = { "" };
    struct share_options o = { .path = shared, .tag = "fuzz", .ro = f.how & 0x80, .cache = (enum share_cache)(f.how % 3), .max_nodes = 16,
                               .max_handles = 8 };

    snprintf(shared, sizeof(shared), "%s/in", f.base);
    FUZZ_CHECK(share_open(s, &o, &err) == 0);
}

/* The machine is saved and goes on in another server; or what was saved is changed, and then the old one goes on. */
static void move_session(struct fuzz_input *in, bool good)
{
    struct err err = { "" };
    struct share *next;
    uint8_t *bytes, *again;
    size_t len, len2;
    int r = share_session_save(f.s, SHARE_WHOLE, &bytes, &len, &err);

    FUZZ_CHECK(r == 0 || err.text[0]);
    if (r < 0)
        return;
    for (unsigned n = good ? 0 : 1 + fuzz_take(in, 1) % 4; n > 0; n--) {
        size_t where = fuzz_take(in, 2) % len;
        bytes[where] = (uint8_t)fuzz_take(in, 1);
    }
    serve(&next);
    r = share_session_load(next, SHARE_WHOLE, bytes, good ? len : len - fuzz_take(in, 1) % 2, &err);
    FUZZ_CHECK(r == 0 || (!good && err.text[0]));
    if (good)
        FUZZ_CHECK(share_session_save(next, SHARE_WHOLE, &again, &len2, &err) < 0 || (len2 == len && (free(again), true)));
    if (r == 0 && share_in_session(next)) {
        struct share *old = f.s;

        f.s = next;
        next = old;
    }
    share_close(next);
    free(bytes);
}

/* What another process may do. */
static void host_acts(uint8_t what)
{
    switch (what % 6) {
    case 0:
        rename(at("in/d"), at("out/moved"));
        break;
    case 1:
        rename(at("out/moved"), at("in/d"));
        break;
    case 2:
        rename(at("in/o"), at("in/d"));
        break;
    case 3:
        unlink(at("in/a"));
        break;
    case 4:
        unlink(at("in/d"));
        mkdir(at("in/d"), 0755);
        break;
    case 5:
        rename(at("in/l"), at("in/a"));
        break;
    }
}

static void hello(void)
{
    struct fuse_init_in init = { .major = 7, .minor = 36, .flags = 0xffffffff };
    struct fuse_in_header h = { .len = sizeof(h) + sizeof(init), .opcode = FUSE_INIT };

    memcpy(f.req, &h, sizeof(h));
    memcpy(f.req + sizeof(h), &init, sizeof(init));
    FUZZ_CHECK(share_call(f.s, f.req, h.len, f.reply, MAX_REPLY) == 16 + sizeof(struct fuse_init_out));
}

static void check_secret(void)
{
    char text[sizeof(SECRET) + 8] = "";
    int fd = open(at("out/secret"), O_RDONLY);

    FUZZ_CHECK(fd >= 0 && read(fd, text, sizeof(text)) == (ssize_t)strlen(SECRET) && !strcmp(text, SECRET));
    close(fd);
    nftw(at("out/moved"), drop, 16, FTW_DEPTH | FTW_PHYS);
    rmdir(at("out/moved"));
    unlink(at("out/moved"));
    FUZZ_CHECK(unlink(at("out/secret")) == 0 && rmdir(at("out")) == 0); /* nothing else is in it */
    FUZZ_CHECK(mkdir(at("out"), 0755) == 0);
    put_file("out/secret", SECRET);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fuzz_input in = { data, size };
    unsigned nodes, handles;

    once();
    make_folder();
    f.how = (uint8_t)fuzz_take(&in, 1);
    serve(&f.s);
    memset(f.fh, 0, sizeof(f.fh));
    for (unsigned i = 0; i < KNOWN; i++)
        f.node[i] = FUSE_ROOT_ID;
    f.nodes = 1;
    f.fhs = 0;
    hello();
    for (unsigned n = 0; in.left && n < MAX_RECORDS; n++) {
        uint8_t op = (uint8_t)fuzz_take(&in, 1);
        if (op >= 0xf0)
            host_acts(op);
        else if (op >= 0xe0)
            move_session(&in, op & 1);
        else if (op != FUSE_SYNCFS && op != FUSE_FSYNC && op != FUSE_FSYNCDIR) /* of the whole disk of the host */
            send_record(&in, op);
    }
    share_end_session(f.s);
    share_count(f.s, &nodes, &handles);
    FUZZ_CHECK(nodes == 0 && handles == 0);
    share_close(f.s);
    check_secret();
    return 0;
}

/* -- seeds: honest sequences -- */

struct script {
    uint8_t *buf;
    size_t len;
};

/* A message; args are bytes: the first is a known number, the others become 8-byte words each. */
static void say(struct script *s, uint8_t op, uint8_t node, const uint32_t *args, unsigned words, const char *text, uint8_t len)
{
    uint8_t head[] = { op, 0, (uint8_t)words, node };

    memcpy(s->buf + s->len, head, sizeof(head));
    s->len += sizeof(head);
    for (unsigned i = 0; i < words; i++) {
        memcpy(s->buf + s->len, &args[i], i ? 4 : 1);
        s->len += i ? 4 : 1;
    }
    s->buf[s->len++] = len;
    memcpy(s->buf + s->len, text, len);
    s->len += len;
}

#define NAME(t) t, sizeof(t)
#define ARGS(...) (const uint32_t[]){ __VA_ARGS__ }, sizeof((const uint32_t[]){ __VA_ARGS__ }) / 4
#define NONE NULL, 0

static void seed_files(struct script *s)
{
    say(s, FUSE_LOOKUP, 0, NONE, NAME("a"));
    say(s, FUSE_OPEN, 1, ARGS(2), "", 0);
    say(s, FUSE_READ, 1, ARGS(0, 0, 5, 0, 0), "", 0);
    say(s, FUSE_WRITE, 1, ARGS(0, 2, 3, 0, 0), "xyz", 3);
    say(s, FUSE_UNLINK, 0, NONE, NAME("a"));
    say(s, FUSE_GETATTR, 1, ARGS(0, 0), "", 0);
    say(s, FUSE_FALLOCATE, 1, ARGS(0, 0, 100, 0), "", 0);
    say(s, FUSE_LSEEK, 1, ARGS(0, 0, 3), "", 0);
    say(s, FUSE_RELEASE, 1, ARGS(0, 0, 0), "", 0);
    say(s, FUSE_FORGET, 1, ARGS(1), "", 0);
}

static void seed_names(struct script *s)
{
    say(s, FUSE_LOOKUP, 0, NONE, NAME("d"));
    say(s, FUSE_CREATE, 1, ARGS(66, 0), NAME("new"));
    say(s, FUSE_LINK, 0, ARGS(2), NAME("hard"));
    say(s, FUSE_RENAME2, 1, ARGS(0, 0), "new\0other", 10);
    say(s, FUSE_RENAME2, 0, ARGS(0, 2), "d\0other", 8);
    say(s, FUSE_SYMLINK, 0, NONE, "sym\0../out/secret", 18);
    say(s, FUSE_READLINK, 4, NONE, "", 0);
    say(s, FUSE_MKDIR, 0, ARGS(7), NAME("m"));
    say(s, FUSE_RMDIR, 0, NONE, NAME("m"));
    say(s, FUSE_MKNOD, 0, ARGS(0, 0), NAME("fifo"));
    say(s, FUSE_SETATTR, 1, ARGS(9, 0, 100, 0, 0, 0, 0, 0, 0, 0, 0), "", 0);
}

static void seed_escape(struct script *s)
{
    say(s, FUSE_LOOKUP, 0, NONE, NAME("d"));
    s->buf[s->len++] = 0xf0;
    say(s, FUSE_LOOKUP, 1, NONE, NAME("b"));
    s->buf[s->len++] = 0xf2;
    say(s, FUSE_LOOKUP, 1, NONE, NAME("secret"));
    say(s, FUSE_LOOKUP, 0, NONE, NAME("l"));
    say(s, FUSE_OPEN, 2, ARGS(0), "", 0);
    say(s, FUSE_LOOKUP, 0, NONE, NAME("o"));
    say(s, FUSE_LOOKUP, 3, NONE, NAME("secret"));
    say(s, FUSE_LOOKUP, 0, NONE, NAME(".."));
    say(s, FUSE_CREATE, 3, ARGS(66, 0), NAME("secret"));
}

static void seed_folders(struct script *s)
{
    say(s, FUSE_OPENDIR, 0, ARGS(0), "", 0);
    say(s, FUSE_READDIRPLUS, 0, ARGS(0, 0, 4096, 0, 0), "", 0);
    say(s, FUSE_READDIR, 0, ARGS(0, 0, 60, 0, 0), "", 0);
    say(s, FUSE_READDIR, 0, ARGS(0, 0, 4096, 0, 0), "", 0);
    say(s, FUSE_RELEASEDIR, 0, ARGS(0, 0, 0), "", 0);
    say(s, FUSE_SETXATTR, 0, ARGS(3), "user.x\0abc", 10);
    say(s, FUSE_GETXATTR, 0, ARGS(100), NAME("user.x"));
    say(s, FUSE_LISTXATTR, 0, ARGS(100), "", 0);
    say(s, FUSE_STATFS, 0, NONE, "", 0);
    say(s, FUSE_BATCH_FORGET, 0, ARGS(1, 1, 1), "", 0);
}

static void seed_moves(struct script *s)
{
    say(s, FUSE_LOOKUP, 0, NONE, NAME("d"));
    say(s, FUSE_LOOKUP, 1, NONE, NAME("b"));
    say(s, FUSE_OPEN, 2, ARGS(2), "", 0);
    say(s, FUSE_OPENDIR, 1, ARGS(0), "", 0);
    s->buf[s->len++] = 0xe1;
    say(s, FUSE_READ, 2, ARGS(0, 0, 5, 0, 0), "", 0);
    s->buf[s->len++] = 0xf0;
    s->buf[s->len++] = 0xe1;
    say(s, FUSE_READ, 2, ARGS(0, 0, 5, 0, 0), "", 0);
    say(s, FUSE_READDIR, 1, ARGS(0, 0, 4096, 0, 0), "", 0);
    for (uint8_t n = 0; n < 8; n++) {
        const uint8_t change[] = { 0xe0, 0, (uint8_t)(72 + 21 * n), 0, n, 0 };

        memcpy(s->buf + s->len, change, sizeof(change));
        s->len += sizeof(change);
    }
    say(s, FUSE_RELEASE, 1, ARGS(0, 0, 0), "", 0);
    say(s, FUSE_GETATTR, 2, ARGS(0, 0), "", 0);
}

size_t fuzz_seed(unsigned n, uint8_t *buf, size_t size)
{
    static void (*const seeds[])(struct script *s) = { seed_files, seed_names, seed_escape, seed_folders, seed_moves };
    struct script s = { .buf = buf };

    if (n >= 2 * ARRAY_LEN(seeds))
        return 0;
    buf[s.len++] = n & 1 ? 0x80 : 0;
    seeds[n / 2](&s);
    return s.len;
}
