/* Hostile saved machines: whole files, as `restore` reads them. Whatever is in one, the end is a sentence or a machine whose state can be
 * saved again and that runs for a moment without harm, in bounded memory and time.
 *
 * The pristine files (packed and plain) are of one small machine with an ephemeral disk and a shared folder that is mounted, with things open. An input is a program that changes one of them:
 * numbers of the header, the table of memory, bytes of the description, of state (anywhere, or a field's value), of memory and of the disk's
 * part, and the length. Nearly always all sums are made right afterwards, so that what is behind them is reached. A machine is made only if
 * the configuration is still the pristine one: any other is the user's to judge, as a command line is.
 */
#include "fuzz.h"

#include <fcntl.h>
#include <linux/fuse.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>
#include <xxhash.h>

#include "base/bits.h"
#include "base/err.h"
#include "base/log.h"
#include "machine/vm.h"
#include "save/internal.h"
#include "state/format.h"
#include "virtio/fs.h"

#define MEMORY     "4M"
#define DISK       (64u << 10)
#define FILE_MAX   (8u << 20)
#define PLACES_MAX 8192
#define PARTS_MAX  256
#define RUN_NS     300000

/* Somewhere in the file. */
struct place {
    uint32_t off, len;
};

/* A pristine file, and what is where in it. */
struct pristine {
    uint8_t *data;
    size_t len;
    struct save_header h;
    size_t json, state; /* offsets */
    struct place section[PARTS_MAX], value[PLACES_MAX];
    unsigned sections, values;
};

static struct {
    bool made;
    int kernel, disk, file; /* descriptors without names */
    struct pristine form[2]; /* packed, plain */
    char folder[64]; /* what the machine shares */
    char *config;
    uint8_t *data; /* the file that is tried */
    size_t len;
} fuzz;

/* ---- the pristine files ---- */

static int fuzz_memory_file(size_t len)
{
    int fd = memfd_create("fuzz", MFD_CLOEXEC);

    FUZZ_CHECK(fd >= 0 && ftruncate(fd, (off_t)len) == 0);
    return fd;
}

static void fuzz_configure(struct machine_config *c)
{
    const char *const set[][2] = { { "memory", MEMORY }, { "serial", "none" }, { "net", "none" }, { "debug-exit", NULL },
                                   { "no-reboot", NULL } };
    char text[64];

    FUZZ_CHECK(config_init(c) == 0);
    for (unsigned n = 0; n < ARRAY_LEN(set); n++)
        FUZZ_CHECK(config_set(c, set[n][0], set[n][1], NULL) == 0);
    snprintf(text, sizeof(text), "/proc/self/fd/%d", fuzz.kernel);
    FUZZ_CHECK(config_set(c, "kernel", text, NULL) == 0);
    snprintf(text, sizeof(text), "/proc/self/fd/%d,format=raw,ephemeral", fuzz.disk);
    FUZZ_CHECK(config_set(c, "disk", text, NULL) == 0);
    snprintf(text, sizeof(text), "%s,tag=fuzz", fuzz.folder);
    FUZZ_CHECK(config_set(c, "share", text, NULL) == 0 && config_check(c, NULL) == 0);
}

/* A kernel by Multiboot that halts. */
static void fuzz_kernel(void)
{
    uint32_t image[128] = { 0x1badb002, 0x10000, -(0x1badb002u + 0x10000), 0x100000, 0x100000, 0, 0, 0x100030 };

    image[12] = 0xfdebf4; /* hlt; jmp */
    fuzz.kernel = fuzz_memory_file(0);
    FUZZ_CHECK(write(fuzz.kernel, image, sizeof(image)) == (ssize_t)sizeof(image));
}

/* Memory that packs well and memory that does not, a zero chunk, and something on the disk. */
static void fuzz_fill(struct vm *vm)
{
    uint8_t page[PAGE_SIZE];
    uint32_t x = 1;

    for (unsigned n = 0; n < 24; n++) {
        for (unsigned i = 0; i < sizeof(page); i++)
            page[i] = n % 2 ? (uint8_t)n : (uint8_t)((x = x * 1664525 + 1013904223) >> 24);
        FUZZ_CHECK(ram_write(&vm->ram, 0x100000 + n * 0x13000, page, sizeof(page)) == 0);
    }
    FUZZ_CHECK(block_write(pc_disk_block(vm, 0), 4096, page, sizeof(page)) == 0);
}

static void fuzz_clean(void)
{
    char path[80];

    snprintf(path, sizeof(path), "%s/file", fuzz.folder);
    unlink(path);
    rmdir(fuzz.folder);
}

static void fuzz_folder(void)
{
    char path[80];
    int fd;

    strcpy(fuzz.folder, "/tmp/vitro-fuzz-saved-XXXXXX");
    FUZZ_CHECK(mkdtemp(fuzz.folder));
    atexit(fuzz_clean);
    snprintf(path, sizeof(path), "%s/file", fuzz.folder);
    fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0644);
    FUZZ_CHECK(fd >= 0 && write(fd, "text", 4) == 4 && close(fd) == 0);
}

/* A message to the share. Returns the first 8 bytes of its answer: a node's number, or a handle. */
static uint64_t fuzz_message(struct share *s, uint32_t op, uint64_t node, const void *arg, uint32_t len)
{
    struct fuse_in_header h = { .len = (uint32_t)sizeof(h) + len, .opcode = op, .nodeid = node };
    _Alignas(8) uint8_t request[256], reply[256];

    memcpy(request, &h, sizeof(h));
    memcpy(request + sizeof(h), arg, len);
    FUZZ_CHECK(share_call(s, request, h.len, reply, sizeof(reply)) >= 24 && !ld_le32(reply + 4));
    return ld_le64(reply + 16);
}

/* The guest has mounted the folder, and has it and a file in it open. */
static void fuzz_mount(struct vm *vm)
{
    struct fuse_init_in init = { .major = 7, .minor = 36, .flags = ~0U };
    struct fuse_open_in flags = { .flags = O_RDWR };

    for (unsigned n = 0; n < vm->ndevices; n++) {
        struct virtio_fs *f = vm->device[n].dev;

        if (vm->device[n].ops != &virtio_fs_ops)
            continue;
        f->ended = false;
        fuzz_message(f->share, FUSE_INIT, 0, &init, sizeof(init));
        fuzz_message(f->share, FUSE_OPEN, fuzz_message(f->share, FUSE_LOOKUP, 1, "file", 5), &flags, sizeof(flags));
        fuzz_message(f->share, FUSE_OPENDIR, 1, &(struct fuse_open_in){ .flags = 0 }, sizeof(flags));
        virtio_fs_ops.pause(f);
    }
}

/* The values of one body of fields, with those of the structs in it. Returns where it ends. */
static size_t fuzz_index_body(struct pristine *p, size_t at)
{
    unsigned fields = ld_le16(p->data + at);

    for (at += 2; fields > 0; fields--) {
        uint8_t kind;
        uint32_t count;

        at += 1 + p->data[at];
        kind = p->data[at];
        count = ld_le32(p->data + at + 1);
        at += 5;
        if (kind == STATE_STRUCT) {
            for (at += 4; count > 0; count--)
                at = fuzz_index_body(p, at);
            continue;
        }
        for (; count > 0; count--, at += state_width(kind)) {
            if (p->values < PLACES_MAX)
                p->value[p->values++] = (struct place){ (uint32_t)at, (uint32_t)state_width(kind) };
        }
    }
    return at;
}

static void fuzz_index(struct pristine *p)
{
    size_t pos = 0, start = 0, len;
    struct state_section s;

    p->json = p->h.about.off + 4;
    p->state = p->json + ld_le32(p->data + p->h.about.off);
    len = p->h.about.off + p->h.about.len - p->state;
    while (state_next(p->data + p->state, len, &pos, &s, NULL) > 0) {
        FUZZ_CHECK(p->sections < PARTS_MAX);
        p->section[p->sections++] = (struct place){ (uint32_t)(p->state + start), (uint32_t)(pos - start) };
        FUZZ_CHECK(fuzz_index_body(p, (size_t)(s.body - p->data)) == p->state + pos - 8);
        start = pos;
    }
    FUZZ_CHECK(pos == len && p->values > 500);
}

static void fuzz_save(struct vm *vm, struct pristine *p, bool plain)
{
    int fd = fuzz_memory_file(0);
    const struct save_options o = { .plain = plain, .given = true, .fd = dup(fd) };

    FUZZ_CHECK(save_machine(vm, "pristine", &o, NULL) == 0);
    p->len = (size_t)lseek(fd, 0, SEEK_END);
    p->data = malloc(p->len);
    FUZZ_CHECK(p->data && p->len < FILE_MAX && pread(fd, p->data, p->len, 0) == (ssize_t)p->len);
    FUZZ_CHECK(save_header_get(&p->h, p->data, p->len, NULL) == 0);
    close(fd);
    fuzz_index(p);
}

static void fuzz_make(void)
{
    struct machine_config cfg;
    struct vm *vm;

    if (fuzz.made)
        return;
    log_set_level(LOG_ERROR); /* open files that are not there are nothing to say */
    fuzz_kernel();
    fuzz.disk = fuzz_memory_file(DISK);
    fuzz.file = fuzz_memory_file(0);
    fuzz.data = malloc(FILE_MAX);
    fuzz_folder();
    fuzz_configure(&cfg);
    fuzz.config = config_dump(&cfg);
    FUZZ_CHECK(fuzz.data && fuzz.config && vm_create_blank(&vm, &cfg, &engine_interp, NULL) == 0);
    fuzz_fill(vm);
    fuzz_mount(vm);
    fuzz_save(vm, &fuzz.form[0], false);
    fuzz_save(vm, &fuzz.form[1], true);
    vm_destroy(vm);
    config_fini(&cfg);
    fuzz.made = true;
}

/* ---- changes ---- */

/* One to eight bytes of a part become others. */
static void change(struct fuzz_input *in, size_t off, size_t len)
{
    uint8_t how = (uint8_t)fuzz_take(in, 1), raw[8];
    size_t width = (size_t)1 << (how & 3), at = fuzz_take(in, 3);

    if (len < width || off + len > fuzz.len)
        return;
    at = off + at % (len - width + 1);
    st_le64(raw, fuzz_take(in, (unsigned)width));
    if (how & 4) /* a little more or less */
        st_le64(raw, ld_le64(fuzz.data + at) + (uint64_t)(int8_t)raw[0]);
    memcpy(fuzz.data + at, raw, width);
}

static void change_value(struct fuzz_input *in, const struct pristine *p)
{
    const struct place *v = &p->value[fuzz_take(in, 2) % p->values];
    uint8_t raw[8];

    st_le64(raw, fuzz_take(in, v->len));
    if (v->off + v->len <= fuzz.len)
        memcpy(fuzz.data + v->off, raw, v->len);
}

static void change_length(struct fuzz_input *in)
{
    size_t len = fuzz.len + (size_t)(int16_t)fuzz_take(in, 2);

    if (len > FILE_MAX)
        return;
    if (len > fuzz.len)
        memset(fuzz.data + fuzz.len, 0, len - fuzz.len);
    fuzz.len = len;
    if (fuzz.len >= SAVE_HEADER && fuzz_take(in, 1) & 1)
        st_le64(fuzz.data + 16, fuzz.len);
}

static void change_something(struct fuzz_input *in, const struct pristine *p)
{
    switch (fuzz_take(in, 1) % 16) {
    case 0:
        change(in, 8, 96); /* the header's numbers */
        break;
    case 1:
        change(in, p->h.table.off, p->h.table.len);
        break;
    case 2:
        change(in, p->h.about.off, p->state - p->h.about.off);
        break;
    case 3:
        change(in, p->state, p->h.about.off + p->h.about.len - p->state);
        break;
    case 4:
        change(in, p->h.ram_off, p->h.table.off - p->h.ram_off);
        break;
    case 5:
        change(in, p->h.overlays.off, p->h.overlays.len);
        break;
    case 6:
        change_length(in);
        break;
    default:
        change_value(in, p);
    }
}

/* ---- sums ---- */

static bool inside(uint64_t off, uint64_t len) { return !range_outside(off, len, fuzz.len); }

static void right_part(unsigned at)
{
    uint64_t off = ld_le64(fuzz.data + at), len = ld_le64(fuzz.data + at + 8);

    if (inside(off, len))
        st_le64(fuzz.data + at + 16, XXH64(fuzz.data + off, len, 0));
}

/* Of frames: what a plain file has in its place is only looked at where all is read. */
static void right_chunks(const struct pristine *p)
{
    uint64_t end = p->h.table.off + p->h.table.len;

    for (uint64_t at = p->h.table.off + 8 + ld_le32(p->data + p->h.table.off) * SAVE_SLOT; at + SAVE_ENTRY <= end; at += SAVE_ENTRY) {
        uint64_t off, len;

        if (!inside(at, SAVE_ENTRY))
            return;
        off = ld_le64(fuzz.data + at), len = ld_le32(fuzz.data + at + 8);
        if (len && inside(off, len))
            st_le64(fuzz.data + at + 16, XXH64(fuzz.data + off, len, 0));
    }
}

static void right_sums(const struct pristine *p)
{
    for (unsigned n = 0; n < p->sections; n++) {
        const struct place *s = &p->section[n];

        if (inside(s->off, s->len))
            st_le64(fuzz.data + s->off + s->len - 8, XXH64(fuzz.data + s->off, s->len - 8, 0));
    }
    right_chunks(p);
    for (unsigned at = 32; at <= 80; at += 24)
        right_part(at);
    st_le64(fuzz.data + SAVE_HEADER - 8, XXH64(fuzz.data, SAVE_HEADER - 8, 0));
}

/* ---- what is done with it ---- */

static void stop_it(void *opaque) { vm_request(opaque, VM_REQ_QUIT); }

/* A moment of its life. */
static void live(struct vm *vm)
{
    struct timer timer;

    loop_lock(&vm->loop);
    timer_init(&timer, &vm->loop, stop_it, vm);
    timer_arm(&timer, timer_now(&timer) + RUN_NS);
    loop_unlock(&vm->loop);
    vm_run(vm, -1);
    loop_lock(&vm->loop);
    timer_cancel(&timer);
    loop_unlock(&vm->loop);
}

static int try_machine(struct save_file *f, struct machine_config *cfg, uint8_t flags, struct err *err)
{
    const struct save_how how = { .whole = flags & 16, .trust_disks = true, .clone = flags & 32, .stand = true };
    struct state_buf again = { .data = NULL };
    struct vm *vm;
    int r;

    FUZZ_CHECK(vm_create_blank(&vm, cfg, &engine_interp, err) == 0);
    r = save_restore(f, vm, &how, err);
    if (r == 0) {
        FUZZ_CHECK(save_state_take(vm, &again, err) == 0);
        if (flags & 8)
            live(vm);
    }
    state_buf_fini(&again);
    vm_destroy(vm);
    return r;
}

static int try_file(uint8_t flags, struct err *err)
{
    struct save_file *f = NULL;
    struct machine_config cfg;
    char path[32], *config;
    int r;

    snprintf(path, sizeof(path), "/proc/self/fd/%d", fuzz.file);
    r = save_open(&f, path, err);
    if (r < 0)
        return r;
    FUZZ_CHECK(config_init(&cfg) == 0);
    r = save_config(f, &cfg, NULL, err);
    if (r == 0)
        r = config_check(&cfg, err);
    config = r == 0 ? config_dump(&cfg) : NULL;
    if (r == 0 && (!config || strcmp(config, fuzz.config)))
        r = err_set(err, 22, "another machine");
    if (r == 0)
        r = try_machine(f, &cfg, flags, err);
    free(config);
    config_fini(&cfg);
    save_close(f);
    return r;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fuzz_input in = { data, size };
    uint8_t flags = (uint8_t)fuzz_take(&in, 1);
    const struct pristine *p = &fuzz.form[flags & 1];
    bool changed = in.left;
    struct err err = { "" };
    int r;

    fuzz_make();
    fuzz.len = p->len;
    memcpy(fuzz.data, p->data, p->len);
    for (unsigned n = 0; n < 32 && in.left; n++)
        change_something(&in, p);
    if ((flags & 6) != 6 && fuzz.len >= SAVE_HEADER)
        right_sums(p);
    FUZZ_CHECK(ftruncate(fuzz.file, 0) == 0 && pwrite(fuzz.file, fuzz.data, fuzz.len, 0) == (ssize_t)fuzz.len);
    r = try_file(flags, &err);
    FUZZ_CHECK(r == 0 ? !err.text[0] : err.text[0] != 0);
    FUZZ_CHECK(changed || r == 0);
    return 0;
}

/* Unchanged files of both forms; then each kind of change by itself, and values of state. */
size_t fuzz_seed(unsigned n, uint8_t *buf, size_t size)
{
    size_t len = 0;

    if (n >= 32 || size < 64)
        return 0;
    buf[len++] = (uint8_t)(n % 4 < 2 ? n % 2 : 8 + n * 16 + n % 2);
    for (unsigned i = 0; n >= 4 && i < 1 + n % 4; i++) {
        buf[len++] = (uint8_t)(n / 2);
        for (unsigned k = 0; k < 10; k++)
            buf[len++] = (uint8_t)((n * 131 + i * 71 + k * 37) >> (k % 3));
    }
    return len;
}
