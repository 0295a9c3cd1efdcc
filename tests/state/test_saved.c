/* Saved machines as files: saved, restored and saved again they are the same bytes (memory aside), whatever engine; what is
 * damaged, cut off or does not fit is refused; a file is there whole or not at all. */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>
#include <xxhash.h>

#include "base/bits.h"
#include "base/err.h"
#include "base/rand.h"
#include "boot/layout.h"
#include "machine/vm.h"
#include "save/internal.h"
#include "save/save.h"

#define LOAD 0x100000u
#define CODE 48u
#define WORD 0x200000u /* where the guest counts */
#define STOP 0x201000u /* it ends when this is not 0 */

/* Counts at WORD, and in a page that it chooses by the count; sets the PIT and a UART's scratch register to it. */
static const uint8_t guest_code[] = {
    0xb0, 0x34, 0xe6, 0x43, 0xb0, 0x9c, 0xe6, 0x40, 0xb0, 0x2e, 0xe6, 0x40, /* PIT 0, mode 2 */
    0x31, 0xc0,                                                             /* xor eax, eax */
    0x40,                                                                   /* again: inc eax */
    0xa3, 0x00, 0x00, 0x20, 0x00,                                           /* mov [WORD], eax */
    0x0f, 0xb6, 0xd8,                                                       /* movzx ebx, al */
    0xc1, 0xe3, 0x0c,                                                       /* shl ebx, 12 */
    0x89, 0x83, 0x00, 0x00, 0x30, 0x00,                                     /* mov [ebx + 300000h], eax */
    0x66, 0xba, 0xff, 0x03, 0xee,                                           /* mov dx, 3ffh; out dx, al */
    0x80, 0x3d, 0x00, 0x10, 0x20, 0x00, 0x00,                               /* cmp byte [STOP], 0 */
    0x74, 0xe0,                                                             /* je again */
    0xb0, 0x05, 0xe6, 0xf4, 0xf4, 0xeb, 0xfd,                               /* exit; halt */
};

static char folder[64], kernel[96], file[96], other[96];

static int group_setup(void **state)
{
    uint8_t image[512] = { 0 };
    uint32_t head[8] = { 0x1badb002, 0x10000, 0, LOAD, LOAD, 0, 0, LOAD + CODE };
    FILE *f;

    snprintf(folder, sizeof(folder), "/tmp/vitro-saved-XXXXXX");
    assert_non_null(mkdtemp(folder));
    snprintf(kernel, sizeof(kernel), "%s/kernel", folder);
    snprintf(file, sizeof(file), "%s/file", folder);
    snprintf(other, sizeof(other), "%s/other", folder);
    head[2] = -(head[0] + head[1]);
    memcpy(image, head, sizeof(head));
    memcpy(image + CODE, guest_code, sizeof(guest_code));
    f = fopen(kernel, "we");
    assert_non_null(f);
    assert_int_equal(fwrite(image, 1, sizeof(image), f), sizeof(image));
    return fclose(f);
}

static int group_teardown(void **state)
{
    unlink(kernel);
    unlink(file);
    unlink(other);
    return rmdir(folder); /* fails if anything else was left */
}

static void set(struct machine_config *cfg, const char *key, const char *value)
{
    struct err err = { "" };
    if (config_set(cfg, key, value, &err) < 0)
        fail_msg("%s", err.text);
}

static void configure(struct machine_config *cfg, const char *memory)
{
    assert_int_equal(config_init(cfg), 0);
    set(cfg, "kernel", kernel);
    set(cfg, "serial", "none");
    set(cfg, "memory", memory);
    set(cfg, "cpus", "2");
    set(cfg, "timeout", "20");
    set(cfg, "debug-exit", NULL);
    set(cfg, "net", "user");
}

static uint32_t word(struct vm *vm)
{
    uint32_t v;
    assert_int_equal(ram_read(&vm->ram, WORD, &v, 4), 0);
    return v;
}

/* A call on the machine's thread once the guest works. */
struct saver {
    struct vm_call call;
    struct save_options o;
    struct save_job job;
    struct timer timer;
    struct vm *vm;
    bool background, stop;
    int result;
    struct state_buf state;
    uint64_t khz, tsc; /* khz: of a clock on the host's TSC; 0: the clock that it has. tsc: what was saved */
};

static void saver_done(struct save_job *job, int result, const char *why)
{
    struct saver *s = job->opaque;
    if (result < 0)
        fail_msg("%s", why);
    s->result = result;
    if (s->stop)
        vm_request(s->vm, VM_REQ_QUIT);
}

static void saver_call(struct vm_call *call, struct vm *vm)
{
    struct saver *s = container_of(call, struct saver, call);
    struct err err = { "" };
    int r;

    vm_pause(vm);
    s->tsc = cpu_tsc(&vm->vcpu[0]->vcpu.cpu);
    assert_int_equal(save_state_take(vm, &s->state, &err), 0);
    s->job.done = saver_done;
    s->job.opaque = s;
    r = s->background ? save_begin(&s->job, vm, file, &s->o, &err) : save_machine(vm, file, &s->o, &err);
    if (r < 0)
        fail_msg("%s", err.text);
    if (s->background) {
        vm_resume(vm);
        return;
    }
    s->result = 0;
    vm_request(vm, VM_REQ_QUIT);
}

static void saver_timer(void *opaque)
{
    struct saver *s = opaque;
    if (word(s->vm) > 1000)
        vm_call(s->vm, &s->call);
    else
        timer_arm(&s->timer, timer_now(&s->timer) + 1000000);
}

/* Run a new machine for a while and save it. */
static void run_and_save(struct saver *s, const struct engine_ops *engine)
{
    static struct machine_config cfg;
    struct err err = { "" };

    configure(&cfg, "16M");
    if (vm_create(&s->vm, &cfg, engine, &err) < 0)
        fail_msg("%s", err.text);
    if (s->khz)
        clock_init_tsc(&s->vm->clock, s->khz);
    s->result = -1;
    s->call.fn = saver_call;
    loop_lock(&s->vm->loop);
    timer_init(&s->timer, &s->vm->loop, saver_timer, s);
    timer_arm(&s->timer, 1000000);
    loop_unlock(&s->vm->loop);
    enum vm_end end = vm_run(s->vm, -1);
    assert_int_equal(end, VM_END_QUIT);
    assert_int_equal(s->result, 0);
    vm_destroy(s->vm);
    config_fini(&cfg);
}

static struct vm *restore(struct machine_config *cfg, const char *path, const struct engine_ops *engine,
                          struct save_how how)
{
    struct err err = { "" };
    struct save_file *f;
    struct vm *vm = NULL;

    assert_int_equal(config_init(cfg), 0);
    if (save_open(&f, path, &err) < 0 || save_config(f, cfg, NULL, &err) < 0 ||
        (save_maps(f, &how) ? vm_create_blank : vm_create_filled)(&vm, cfg, engine, &err) < 0 || save_restore(f, vm, &how, &err) < 0)
        fail_msg("%s", err.text);
    save_close(f);
    return vm;
}

struct stopper {
    struct timer timer;
    struct vm *vm;
    uint32_t before;
};

/* On a busy host the guest may not have been given the CPU yet. */
static void stop_timer(void *opaque)
{
    static const uint8_t one = 1;
    struct stopper *s = opaque;

    if (word(s->vm) > s->before)
        assert_int_equal(ram_write(&s->vm->ram, STOP, &one, 1), 0);
    else
        timer_arm(&s->timer, timer_now(&s->timer) + 1000000);
}

/* Let it run on and to its end, after which its memory must be of one piece: page k has the last count that ends in k. */
static void finish(struct vm *vm, uint32_t before)
{
    struct stopper s = { .vm = vm, .before = before };
    uint32_t count, v;

    loop_lock(&vm->loop);
    timer_init(&s.timer, &vm->loop, stop_timer, &s);
    timer_arm(&s.timer, timer_now(&s.timer) + 50000000);
    loop_unlock(&vm->loop);
    assert_int_equal(vm_run(vm, -1), VM_END_DEBUG);
    count = word(vm);
    assert_true(count > before && count >> 8 == (uint32_t)vm->vcpu[0]->vcpu.cpu.r[RAX] >> 8);
    for (unsigned k = 0; before && k < 256; k++) {
        assert_int_equal(ram_read(&vm->ram, 0x300000 + k * 4096, &v, 4), 0);
        assert_int_equal(v & 0xff, k);
        assert_true(count - v < 256);
    }
}

/* What was saved at some moment is what a restored machine saves before it runs; and it runs to the right end. */
static void same_again(const struct engine_ops *first, const struct engine_ops *second, bool plain, bool background)
{
    static struct machine_config cfg;
    struct saver s = { .o = { .plain = plain, .replace = true }, .background = background, .stop = true };
    struct state_buf again = { 0 };
    struct err err = { "" };
    struct vm *vm;

    run_and_save(&s, first);
    vm = restore(&cfg, file, second, (struct save_how){ .stand = true });
    assert_int_equal(save_state_take(vm, &again, &err), 0);
    assert_int_equal(again.len, s.state.len);
    assert_memory_equal(again.data, s.state.data, again.len);
    uint32_t count = word(vm);
    assert_int_equal(count, (uint32_t)vm->vcpu[0]->vcpu.cpu.r[RAX] - (vm->vcpu[0]->vcpu.cpu.r[RAX] != count));
    assert_true(count > 1000);
    uint64_t then = clock_ns(&vm->clock);
    set(&cfg, "timeout", "20");
    finish(vm, count);
    assert_true(clock_ns(&vm->clock) > then);
    vm_destroy(vm);
    config_fini(&cfg);
    state_buf_fini(&s.state);
    state_buf_fini(&again);
}

static void test_interp_dbt(void **state) { same_again(&engine_interp, &engine_dbt, false, false); }
static void test_dbt_interp(void **state) { same_again(&engine_dbt, &engine_interp, false, false); }
static void test_plain(void **state) { same_again(&engine_dbt, &engine_dbt, true, false); }
static void test_background(void **state) { same_again(&engine_interp, &engine_interp, false, true); }
static void test_background_plain(void **state) { same_again(&engine_interp, &engine_dbt, true, true); }

/* Memory that a child process shares, and sees as it was. */
static void test_background_shared(void **state)
{
    same_again(&engine_dbt, &engine_dbt, false, true);
    same_again(&engine_dbt, &engine_interp, true, true);
}

static void test_background_private(void **state)
{
    setenv("VITRO_DIRECT", "off", 1);
    same_again(&engine_dbt, &engine_dbt, false, true);
    same_again(&engine_dbt, &engine_interp, true, false);
    unsetenv("VITRO_DIRECT");
}

static const struct state_field old_board_fields[] = {
    { "clock_ns", STATE_U64, 0, 1, 0, NULL, 0 },
    { "resets", STATE_U64, 8, 1, 0, NULL, 0 },
    { "isa_sources", STATE_U8, 16, 16, 0, NULL, 0 },
    STATE_END,
};
static const struct state_desc old_board = { .name = "board", .version = 1, .size = 32, .fields = old_board_fields };

/* A machine that was saved by a version whose machines all had a TSC of 1 GHz. */
static void old_state(const struct state_buf *state)
{
    static struct machine_config cfg;
    uint64_t board[4] = { 12345678 };
    struct state_buf old = { 0 };
    struct err err = { "" };
    struct state_section s;
    size_t pos = 0;
    struct vm *vm;

    configure(&cfg, "16M");
    assert_int_equal(vm_create_blank(&vm, &cfg, &engine_interp, &err), 0);
    assert_int_equal(state_save(&old, &old_board, 0, board), 0);
    assert_int_equal(state_next(state->data, state->len, &pos, &s, &err), 1);
    assert_string_equal(s.name, "board"); /* the first: the others behind it are as they were */
    uint8_t *all = malloc(old.len + state->len - pos);
    assert_non_null(all);
    memcpy(all, old.data, old.len);
    memcpy(all + old.len, state->data + pos, state->len - pos);
    assert_int_equal(save_state_give(vm, all, old.len + state->len - pos, &err), 0);
    assert_int_equal(vm->clock.khz, 1000000);
    assert_int_equal(clock_ns(&vm->clock), 12345678);
    assert_int_equal(cpu_tsc(&vm->vcpu[0]->vcpu.cpu), 12345678 + vm->vcpu[0]->vcpu.cpu.tsc_offset);
    vm_destroy(vm);
    config_fini(&cfg);
    state_buf_fini(&old);
    free(all);
}

/* The TSC goes on where it stood, at the frequency that it had, on whatever clock. */
static void test_tsc(void **state)
{
    static struct machine_config cfg;
    struct saver s = { .o = { .replace = true }, .khz = 2596000 };

    run_and_save(&s, &engine_dbt);
    struct vm *vm = restore(&cfg, file, &engine_interp, (struct save_how){ .stand = true });
    const struct cpu *cpu = &vm->vcpu[0]->vcpu.cpu;
    assert_false(vm->clock.tsc);
    assert_int_equal(vm->clock.khz, 2596000);
    assert_in_range(s.tsc - cpu_tsc(&vm->vcpu[0]->vcpu.cpu), 0, 4); /* a nanosecond */
    finish(vm, 0);
    uint64_t before = clock_ns(&vm->clock), tsc = cpu_tsc(&vm->vcpu[0]->vcpu.cpu), after = clock_ns(&vm->clock);
    assert_true(tsc > s.tsc);
    assert_in_range(tsc - cpu->tsc_offset, before * 2596 / 1000, after * 2596 / 1000 + 10);
    vm_destroy(vm);
    config_fini(&cfg);
    old_state(&s.state);
    state_buf_fini(&s.state);
}

/* A restored machine is reset: its kernel is read then. */
static void test_reset(void **state)
{
    static struct machine_config cfg;
    struct saver s = { .o = { .replace = true } };
    struct err err = { "" };

    run_and_save(&s, &engine_interp);
    state_buf_fini(&s.state);
    struct vm *vm = restore(&cfg, file, &engine_interp, (struct save_how){ .clone = true });
    assert_int_equal(pc_reset(vm, &err), 0);
    finish(vm, 0);
    vm_destroy(vm);
    config_fini(&cfg);
}

/* A clone is told that it is another one; a restored machine is the same. */
static void test_generation(void **state)
{
    static struct machine_config cfg;
    uint8_t id[3][VMGENID_LEN], rom[VMGENID_LEN];

    for (unsigned n = 0; n < 3; n++) {
        struct vm *vm = restore(&cfg, file, &engine_interp, (struct save_how){ .clone = n > 0 });
        memcpy(id[n], vm->genid.id, VMGENID_LEN);
        assert_int_equal(ram_read(&vm->ram, vm->genid.gpa, rom, VMGENID_LEN), 0);
        assert_memory_equal(rom, id[n], VMGENID_LEN);
        /* The event is there before the first instruction runs. */
        assert_int_equal(vm->pm.gpe_sts >> LAYOUT_GPE_VMGENID & 1, n > 0);
        vm_destroy(vm);
        config_fini(&cfg);
    }
    assert_memory_not_equal(id[0], id[1], VMGENID_LEN);
    assert_memory_not_equal(id[1], id[2], VMGENID_LEN);
}

/* ---- what must be refused ---- */

/* Try to restore path into a machine of so much memory without disks, or (NULL) as the file says. 0 or -errno with err. */
static int try_restore(const char *path, const char *memory, struct err *err)
{
    static struct machine_config cfg;
    struct save_how how = { .stand = true };
    struct save_file *f = NULL;
    struct vm *vm = NULL;
    int r;

    if (memory)
        configure(&cfg, memory);
    else
        assert_int_equal(config_init(&cfg), 0);
    r = save_open(&f, path, err);
    if (r == 0 && !memory)
        r = save_config(f, &cfg, NULL, err);
    if (r == 0)
        r = vm_create_blank(&vm, &cfg, &engine_interp, err);
    if (r == 0)
        r = save_restore(f, vm, &how, err);
    vm_destroy(vm);
    save_close(f);
    config_fini(&cfg);
    return r;
}

static void refused(const char *path, const char *memory, const char *why)
{
    struct err err = { "" };
    assert_true(try_restore(path, memory, &err) < 0);
    if (!strstr(err.text, why))
        fail_msg("'%s' does not say '%s'", err.text, why);
}

static uint8_t *slurp(const char *path, size_t *len)
{
    struct stat st;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    assert_true(fd >= 0 && fstat(fd, &st) == 0);
    uint8_t *data = malloc((size_t)st.st_size);
    assert_int_equal(read(fd, data, (size_t)st.st_size), st.st_size);
    close(fd);
    *len = (size_t)st.st_size;
    return data;
}

static void spill(const char *path, const uint8_t *data, size_t len)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, data, len), len);
    close(fd);
}

static void test_refused(void **state)
{
    struct err err = { "" };
    size_t len;

    assert_int_equal(try_restore(file, "16M", &err), 0);
    refused(file, "17M", "amount of memory");
    refused("/nonexistent", "16M", "No such file");
    refused(kernel, "16M", "too short");
    uint8_t *data = slurp(file, &len);
    spill(other, data, len - 1);
    refused(other, "16M", "cut off");
    data[0] ^= 1;
    spill(other, data, len);
    refused(other, "16M", "not a saved machine");
    data[0] ^= 1;
    data[SAVE_HEADER + 100] ^= 1;
    spill(other, data, len);
    refused(other, "16M", "damaged");
    free(data);
}

/* Any flipped bit is found. */
static void test_damage(void **state)
{
    struct rand_source rand;
    size_t len;
    uint8_t *data = slurp(file, &len);

    rand_init_seeded(&rand, 7);
    for (unsigned n = 0; n < 60; n++) {
        size_t at = n < 20 ? rand_below(&rand, SAVE_HEADER) : rand_below(&rand, len);
        struct err err = { "" };
        data[at] ^= 1u << (n % 8);
        spill(other, data, len);
        data[at] ^= 1u << (n % 8);
        if (try_restore(other, "16M", &err) == 0)
            fail_msg("bit flipped at %zu of %zu was not seen", at, len);
        assert_true(err.text[0]);
    }
    free(data);
}

static void test_cpuid(void **state)
{
    static struct machine_config cfg;
    struct err err = { "" };
    struct save_file *f;
    struct vm *vm;

    assert_int_equal(config_init(&cfg), 0);
    assert_int_equal(save_open(&f, file, &err), 0);
    assert_int_equal(save_config(f, &cfg, NULL, &err), 0);
    set(&cfg, "cpu", "x86-64-v1");
    assert_int_equal(vm_create_blank(&vm, &cfg, &engine_interp, &err), 0);
    assert_int_equal(save_restore(f, vm, &(struct save_how){ .stand = true }, &err), -ENOTSUP);
    assert_non_null(strstr(err.text, "CPU features"));
    vm_destroy(vm);
    save_close(f);
    config_fini(&cfg);
}

/* Killed at any moment the writer leaves the old file or the new one, and nothing else in the folder. */
static void test_kill(void **state)
{
    struct rand_source rand;
    struct err err = { "" };

    rand_init_seeded(&rand, 11);
    for (unsigned n = 0; n < 25; n++) {
        pid_t child = fork();
        if (child == 0) {
            static struct machine_config cfg;
            struct vm *vm = restore(&cfg, file, &engine_interp, (struct save_how){ .stand = true });
            for (;;)
                save_machine(vm, file, &(struct save_options){ .plain = n & 1, .replace = true }, &err);
        }
        assert_true(child > 0);
        usleep((useconds_t)(20000 + rand_below(&rand, 60000)));
        kill(child, SIGKILL);
        waitpid(child, NULL, 0);
        if (try_restore(file, "16M", &err) < 0)
            fail_msg("%s", err.text);
    }
}

/* ---- ephemeral disks ---- */

#define DISK (4U << 20)

static uint8_t disk_was[DISK], disk_is[DISK];

/* A machine whose guest wrote to its ephemeral disk, saved as other. */
static void save_ephemeral(const char *base, bool plain)
{
    static struct machine_config cfg;
    char disk[128];
    struct err err = { "" };
    struct block *b;
    struct vm *vm;

    snprintf(disk, sizeof(disk), "%s,ephemeral", base);
    configure(&cfg, "16M");
    set(&cfg, "disk", disk);
    if (vm_create_blank(&vm, &cfg, &engine_interp, &err) < 0)
        fail_msg("%s", err.text);
    b = pc_disk_block(vm, 0);
    memset(disk_is, plain ? 0x5a : 0xa5, 3 << 20);
    assert_int_equal(block_write(b, 512, disk_is, (2 << 20) + 1024), 0); /* more than a run */
    assert_int_equal(block_write_zeroes(b, (3 << 20) - 512, 2048, true), 0);
    assert_int_equal(block_write(b, DISK - 512, disk_is, 512), 0);
    assert_int_equal(block_read(b, 0, disk_was, DISK), 0);
    if (save_machine(vm, other, &(struct save_options){ .plain = plain, .replace = true }, &err) < 0)
        fail_msg("%s", err.text);
    vm_destroy(vm);
    config_fini(&cfg);
}

/* The saved machine with one byte of its overlays changed, the sums right or not. */
static void refuse_changed(const uint8_t *good, size_t len, size_t at, bool sums, const char *why)
{
    uint8_t *data = malloc(len);
    struct save_header h;
    struct err err = { "" };

    memcpy(data, good, len);
    data[SAVE_HEADER + at] ^= 0x40;
    assert_int_equal(save_header_get(&h, data, len, &err), 0);
    assert_true(h.flags & SAVE_OVERLAYS && at < h.overlays.len);
    h.overlays.sum = sums ? XXH64(data + h.overlays.off, h.overlays.len, 0) : h.overlays.sum;
    save_header_put(&h, data);
    spill(other, data, len);
    refused(other, NULL, why);
    free(data);
}

static void test_ephemeral(void **state)
{
    static struct machine_config cfg;
    char base[96];
    uint8_t *data;
    struct vm *vm;
    size_t len;

    snprintf(base, sizeof(base), "%s/base.img", folder);
    memset(disk_is, 0x11, DISK);
    spill(base, disk_is, DISK);
    for (unsigned plain = 0; plain < 2; plain++) {
        save_ephemeral(base, plain);
        vm = restore(&cfg, other, &engine_interp, (struct save_how){ .stand = true });
        assert_int_equal(block_read(pc_disk_block(vm, 0), 0, disk_is, DISK), 0);
        assert_memory_equal(disk_is, disk_was, DISK);
        vm_destroy(vm);
        config_fini(&cfg);
    }
    data = slurp(base, &len);
    for (size_t n = 0; n < len; n++)
        assert_int_equal(data[n], 0x11);
    free(data);
    refused(other, "16M", "does not have");
    data = slurp(other, &len);
    refuse_changed(data, len, 5000, false, "damaged");
    refuse_changed(data, len, 0, true, "does not have");       /* the disk's number */
    refuse_changed(data, len, 9, true, "does not have");       /* its size */
    refuse_changed(data, len, 16 + 3, true, "damaged");        /* where the first run goes */
    refuse_changed(data, len, 16 + 8, true, "damaged");        /* its length: not of whole sectors */
    refuse_changed(data, len, 16 + 8 + 7, true, "damaged");    /* longer than a run, than the file */
    free(data);
    unlink(base);
}

/* ---- files that stand on one another ---- */

/* Save vm as it is over the file `below` (NULL: over none) and what that stands on. */
static void save_over(struct vm *vm, const char *path, const char *below)
{
    struct save_options o = { .plain = true, .replace = true };
    struct save_file *f = NULL;
    struct err err = { "" };
    int fd[SAVE_LAYERS];

    if (below) {
        if (save_open(&f, below, &err) < 0)
            fail_msg("%s", err.text);
        while (o.bases <= save_stands_on(f)) {
            fd[o.bases] = dup(save_borrow_fd(f, o.bases));
            o.bases++;
        }
        o.base = fd;
        o.base_name = strrchr(below, '/') + 1;
        save_close(f);
    }
    if (save_machine(vm, path, &o, &err) < 0)
        fail_msg("%s", err.text);
}

static uint64_t blocks(const char *path)
{
    struct stat st;
    assert_int_equal(stat(path, &st), 0);
    return (uint64_t)st.st_blocks * 512;
}

static void same_memory(struct vm *vm, const char *path, bool whole)
{
    static struct machine_config cfg;
    struct vm *again = restore(&cfg, path, &engine_interp, (struct save_how){ .stand = true, .whole = whole });

    for (unsigned n = 0; n < vm->ram.nslots; n++)
        assert_memory_equal(vm->ram.slot[n].hva, again->ram.slot[n].hva, vm->ram.slot[n].size);
    vm_destroy(again);
    config_fini(&cfg);
}

/* Pages that change, come and go, and that become again what they were. */
static void change(struct vm *vm, uint8_t with)
{
    static uint8_t page[4096];

    memset(page, with, sizeof(page));
    assert_int_equal(ram_write(&vm->ram, 0x500000, page, sizeof(page)), 0);             /* changes */
    assert_int_equal(ram_write(&vm->ram, 0x600000 + with * 4096u, page, sizeof(page)), 0); /* comes */
    memset(page, 0, sizeof(page));
    assert_int_equal(ram_write(&vm->ram, 0x300000 + with * 4096u, page, sizeof(page)), 0); /* goes */
}

static void test_layers(void **state)
{
    static struct machine_config cfg;
    char third[112], spare[112];
    struct err err = { "" };
    struct vm *vm;
    uint8_t *data;
    size_t len;

    snprintf(third, sizeof(third), "%s-3", other);
    snprintf(spare, sizeof(spare), "%s-4", other);
    vm = restore(&cfg, file, &engine_interp, (struct save_how){ .stand = true });
    save_over(vm, spare, NULL);
    change(vm, 1);
    save_over(vm, other, spare);
    assert_true(blocks(other) < blocks(spare) / 4);
    same_memory(vm, other, false);
    same_memory(vm, other, true);
    change(vm, 2);
    assert_int_equal(ram_write(&vm->ram, 0x601000, (uint8_t[4096]){ 0 }, 4096), 0); /* comes in the one, goes in the next */
    save_over(vm, third, other);
    same_memory(vm, third, false);
    same_memory(vm, third, true);
    /* The bits of its own pages, table and description are all watched; and it stands on nothing else. */
    data = slurp(third, &len);
    for (unsigned n = 0; n < 64; n++) {
        size_t at = n < 20 ? n * 8 : len - 1 - n * 16;
        data[at] ^= 1u << (n % 8);
        spill(third, data, len);
        data[at] ^= 1u << (n % 8);
        if (try_restore(third, NULL, &err) == 0)
            fail_msg("bit flipped at %zu of %zu was not seen", at, len);
    }
    spill(third, data, len);
    free(data);
    assert_int_equal(try_restore(third, NULL, &err), 0);
    save_over(vm, other, spare); /* another of that name */
    refused(third, NULL, "not the file that the one above it was made over");
    unlink(other);
    refused(third, NULL, "No such file");
    vm_destroy(vm);
    config_fini(&cfg);
    unlink(third);
    unlink(spare);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_interp_dbt), cmocka_unit_test(test_dbt_interp), cmocka_unit_test(test_plain),
        cmocka_unit_test(test_background), cmocka_unit_test(test_background_plain),
        cmocka_unit_test(test_background_shared),
        cmocka_unit_test(test_background_private), cmocka_unit_test(test_tsc), cmocka_unit_test(test_reset),
        cmocka_unit_test(test_generation), cmocka_unit_test(test_refused), cmocka_unit_test(test_damage),
        cmocka_unit_test(test_cpuid), cmocka_unit_test(test_kill),
        cmocka_unit_test(test_ephemeral), cmocka_unit_test(test_layers),
    };
    return cmocka_run_group_tests(tests, group_setup, group_teardown);
}
