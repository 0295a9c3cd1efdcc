/* Hostile migration streams: whatever comes, the destination ends with a sentence, in bounded memory, and its guest memory only
 * changes by whole, right chunks.
 *
 * An input is a program that writes frames: good ones (right number and checksum) with contents from the input, damaged ones, and raw
 * bytes. ALL never carries the right token, so that no machine is made: state has fuzz targets of its own.
 */
#include "fuzz.h"

#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#define XXH_STATIC_LINKING_ONLY
#include <xxhash.h>
#include <zstd.h>

#include "base/bits.h"
#include "base/err.h"
#include "migrate/migrate.h"
#include "save/internal.h"
#include "virtio/fs.h"

#include "../unit/share_client.h"

#define STREAM_MAX (96u << 10) /* fits a socket's buffer: nobody reads while we write */
#define MEMORY     (4u << 20)

#define DISK_SIZE  (1u << 20)
#define FOLDER     "/dev/shm" /* in memory; nothing gets a name there */

/* Without and with a disk that is copied; a shared folder that is mounted. */
static const char *const abouts[2] = {
    "{\"format\":\"vitro machine\",\"config\":{\"memory\":\"4M\",\"share\":[\"" FOLDER ",tag=fuzz\"]},\"disks\":[]}",
    "{\"format\":\"vitro machine\",\"config\":{\"memory\":\"4M\",\"disk\":[\"fuzz-migrate-no-such.qcow2\"]},\"disks\":[]}",
};

/* What a machine of that configuration is like, from one that was made once. */
static struct state_buf shape[2];
static uint8_t slots[RAM_MAX_SLOTS * SAVE_SLOT];
static unsigned slot_count;
static bool copied; /* a disk is copied */
static bool clean; /* HELLO is as it should be */

static void mount(struct vm *vm)
{
    struct sc c;

    for (unsigned n = 0; n < vm->ndevices; n++) {
        struct virtio_fs *f = vm->device[n].dev;

        if (vm->device[n].ops != &virtio_fs_ops)
            continue;
        f->ended = false;
        sc_init(&c, f->share);
        FUZZ_CHECK(sc_hello(&c, 0) == 0 && c.out_len > 0);
        sc_fini(&c);
    }
}

static void learn(bool copies)
{
    struct machine_config cfg;
    struct err err = { "" };
    struct vm *vm;

    FUZZ_CHECK(config_init(&cfg) == 0);
    cfg.memory = MEMORY;
    if (copies) {
        FUZZ_CHECK(config_set(&cfg, "disk", "x.qcow2", &err) == 0);
        cfg.disk[0].later = DISK_SIZE;
    } else {
        FUZZ_CHECK(config_set(&cfg, "share", FOLDER ",tag=fuzz", &err) == 0);
    }
    FUZZ_CHECK(vm_create_blank(&vm, &cfg, &engine_interp, &err) == 0);
    mount(vm);
    FUZZ_CHECK(save_shape_take(vm, &shape[copies], &err) == 0);
    slot_count = vm->ram.nslots;
    for (unsigned n = 0; n < slot_count; n++) {
        st_le64(slots + n * SAVE_SLOT, vm->ram.slot[n].gpa);
        st_le64(slots + n * SAVE_SLOT + 8, vm->ram.slot[n].size);
        st_le64(slots + n * SAVE_SLOT + 16, vm->ram.slot[n].readonly);
    }
    vm_destroy(vm);
    config_fini(&cfg);
}

struct stream {
    uint8_t data[STREAM_MAX];
    size_t len;
    uint32_t number;
};

static void put(struct stream *s, const void *data, size_t len)
{
    if (len > sizeof(s->data) - s->len)
        len = sizeof(s->data) - s->len;
    memcpy(s->data + s->len, data, len);
    s->len += len;
}

static void put_frame(struct stream *s, uint32_t type, const uint8_t *body, size_t len)
{
    uint8_t head[MIG_HEAD];
    XXH64_state_t x;

    st_le32(head, 0x47494d56u);
    st_le32(head + 4, type);
    st_le32(head + 8, (uint32_t)len);
    st_le32(head + 12, s->number++);
    XXH64_reset(&x, 0);
    XXH64_update(&x, head, 16);
    XXH64_update(&x, body, len);
    st_le64(head + 16, XXH64_digest(&x));
    put(s, head, sizeof(head));
    put(s, body, len);
}

static void put_hello(struct stream *s, struct fuzz_input *in, uint8_t how)
{
    static uint8_t body[MIG_HELLO_HEAD + sizeof(slots) + STREAM_MAX];
    size_t len = MIG_HELLO_HEAD + slot_count * SAVE_SLOT, about;

    copied = how & 8;
    about = strlen(abouts[copied]);

    memset(body, 0, len);
    st_le32(body, MIG_VERSION);
    st_le32(body + 4, slot_count);
    st_le32(body + 8, SAVE_CHUNK);
    st_le32(body + 12, (uint32_t)about);
    st_le32(body + 40, copied);
    st_le32(body + 44, copied);
    memcpy(body + MIG_HELLO_HEAD, slots, slot_count * SAVE_SLOT);
    if (copied) {
        st_le64(body + len, DISK_SIZE);
        st_le64(body + len + 8, 4096);
        len += MIG_DISK_ENTRY;
    }
    memcpy(body + len, abouts[copied], about);
    len += about;
    memcpy(body + len, shape[copied].data, shape[copied].len);
    len += shape[copied].len;
    clean = (how & 7) == 0;
    for (unsigned n = 0; n < (how & 3u); n++) { /* a few bytes are others */
        size_t at = (uint16_t)fuzz_take(in, 2) % len;
        body[at] = (uint8_t)fuzz_take(in, 1);
    }
    put_frame(s, MIG_HELLO, body, how & 4 ? (uint16_t)fuzz_take(in, 2) % len : len);
}

/* A chunk of pages that are all alike, told rightly or not. */
static void put_chunk(struct stream *s, struct fuzz_input *in, uint8_t how)
{
    uint8_t body[MIG_PAGES + 16384] = { 0 }, pages[16384];
    size_t count = 1 + (how & 3), len = count * PAGE_SIZE, at;

    st_le32(body, how & 4 ? (uint16_t)fuzz_take(in, 2) : 0);
    for (size_t n = 0; n < count; n++)
        body[8 + (how & 8 ? (uint8_t)fuzz_take(in, 1) % 32 : 0)] |= (uint8_t)(1u << n);
    at = (uint8_t)fuzz_take(in, 1) % 32;
    body[40 + at] |= (uint8_t)fuzz_take(in, 1) & 0xf0;
    memset(pages, (uint8_t)fuzz_take(in, 1), sizeof(pages));
    if (how & 16) {
        body[4] = MIG_ZSTD;
        len = ZSTD_compress(body + MIG_PAGES, 16384, pages, how & 32 ? len / 2 : len, 1);
    } else {
        memcpy(body + MIG_PAGES, pages, len);
    }
    if (how & 64)
        body[(uint16_t)fuzz_take(in, 2) % (MIG_PAGES + len)] = (uint8_t)fuzz_take(in, 1);
    put_frame(s, MIG_CHUNK, body, MIG_PAGES + len - (how & 128 ? (uint8_t)fuzz_take(in, 1) % len : 0));
}

/* A piece of a disk, told rightly or not. */
static void put_disk(struct stream *s, struct fuzz_input *in, uint8_t how)
{
    uint8_t body[MIG_DISK_HEAD + 8192] = { 0 }, data[8192];
    size_t count = (1 + (how & 15)) * 512, len = count;

    st_le32(body + 4, how >> 4 & 3);
    st_le64(body + 8, (uint64_t)(uint16_t)fuzz_take(in, 2) * 512 >> (how & 7));
    st_le64(body + 16, count);
    memset(data, (uint8_t)fuzz_take(in, 1), sizeof(data));
    if ((how >> 4 & 3) == MIG_ZSTD)
        len = ZSTD_compress(body + MIG_DISK_HEAD, 8192, data, count, 1);
    else if ((how >> 4 & 3) == MIG_ZEROES)
        len = 0;
    else
        memcpy(body + MIG_DISK_HEAD, data, len);
    if (how & 64)
        body[(uint8_t)fuzz_take(in, 1) % (MIG_DISK_HEAD + len)] = (uint8_t)fuzz_take(in, 1);
    put_frame(s, MIG_DISK, body, MIG_DISK_HEAD + len - (how & 128 && len ? (uint8_t)fuzz_take(in, 1) % len : 0));
    if ((how & 15) == 3)
        put_frame(s, MIG_SYNC, body, 0);
}

static void put_any(struct stream *s, struct fuzz_input *in)
{
    uint8_t body[300];
    size_t len = (uint8_t)fuzz_take(in, 1), type = (uint8_t)fuzz_take(in, 1) % 14;

    for (size_t n = 0; n < len; n++)
        body[n] = (uint8_t)fuzz_take(in, 1);
    if (type == MIG_ALL && len >= 9)
        body[8] |= 1; /* HELLO's token is zeroes, but where it was changed */
    put_frame(s, (uint32_t)type, body, type == MIG_ALL && len > 8 ? 8 + MIG_TOKEN + 1 : len);
}

static void put_something(struct stream *s, struct fuzz_input *in)
{
    uint8_t what = (uint8_t)fuzz_take(in, 1);
    uint32_t raw;

    switch (what % 8) {
    case 0:
        put_any(s, in);
        break;
    case 1:
        raw = (uint16_t)fuzz_take(in, 2);
        put(s, &raw, 1 + what / 8 % 4);
        break;
    case 2: /* one damaged byte in what was written */
        clean = false;
        if (s->len)
            s->data[(uint16_t)fuzz_take(in, 2) % s->len] ^= (uint8_t)fuzz_take(in, 1);
        break;
    case 3: /* twice, or out of order */
        s->number -= what / 8 % 2;
        break;
    case 4:
    case 5:
        put_disk(s, in, (uint8_t)fuzz_take(in, 1));
        break;
    default:
        put_chunk(s, in, (uint8_t)fuzz_take(in, 1));
    }
}

/* What the destination does with it. */
static void take(int fd)
{
    const struct migrate_in_options o = { .stall_s = 1, .trust_disks = true, .copy_disks = copied, .disk_folder = FOLDER };
    struct machine_config cfg;
    struct migrate_in *in = NULL;
    struct err err = { "" };
    struct vm *vm = NULL;
    int r = migrate_hello(&in, fd, fd, &o, &err);

    FUZZ_CHECK(config_init(&cfg) == 0);
    if (r == 0)
        r = migrate_config(in, &cfg, NULL, &err);
    if (r == 0 && cfg.memory <= 64u << 20)
        r = migrate_make(in, &vm, &cfg, &engine_interp, &err);
    else if (r == 0)
        r = err_set(&err, 22, "too large for a test");
    FUZZ_CHECK(r == 0 || (err.text[0] && !vm && !clean));
    if (r == 0)
        r = migrate_receive(in, vm, &err);
    FUZZ_CHECK(r < 0 && err.text[0]);
    migrate_in_close(in, &err);
    vm_destroy(vm);
    config_fini(&cfg);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fuzz_input in = { data, size };
    struct stream *s = calloc(1, sizeof(*s));
    int pair[2];

    if (!shape[0].len) {
        learn(false);
        learn(true);
    }
    FUZZ_CHECK(s && shape[1].len < STREAM_MAX / 2 && socketpair(AF_UNIX, SOCK_STREAM, 0, pair) == 0);
    put_hello(s, &in, (uint8_t)fuzz_take(&in, 1) % 16);
    for (unsigned n = 0; n < 64 && in.left; n++)
        put_something(s, &in);
    FUZZ_CHECK(write(pair[0], s->data, s->len) == (ssize_t)s->len);
    shutdown(pair[0], SHUT_WR);
    take(pair[1]);
    close(pair[0]);
    free(s);
    return 0;
}

/* A clean HELLO, then good chunks in several ways, then whatever the bytes say. */
size_t fuzz_seed(unsigned n, uint8_t *buf, size_t size)
{
    static const uint8_t ways[] = { 0, 1, 2, 3, 16, 17, 18, 19 };
    size_t len = 0;

    if (n >= 16 || size < 256)
        return 0;
    buf[len++] = n % 4 == 3 ? 8 : 0;
    for (unsigned i = 0; i < 8; i++) {
        buf[len++] = n % 4 == 3 ? 4 : 6; /* a piece of a disk, or a chunk */
        buf[len++] = ways[(i + n) % 8];
        buf[len++] = 1;                 /* where the map of zeroes has its bits */
        buf[len++] = n % 2 ? 0xf0 : 0;
        buf[len++] = (uint8_t)(i * 37 + n);
    }
    for (; len < 128 + n * 8; len++)
        buf[len] = (uint8_t)(len * 131 + n * 17);
    return len;
}
