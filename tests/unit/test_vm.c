/* Whole machines with guests of a few instructions: every way to end, reset, pause, and two machines in one
 * process.
 *
 * A guest is a flat Multiboot 1 image (Multiboot specification 0.6.96, 3.1): a header with addresses, then
 * 32-bit code that runs in protected mode with paging off. */
#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/bits.h"
#include "base/err.h"
#include "machine/host.h"
#include "machine/vm.h"

#define LOAD 0x100000u
#define CODE 48u /* offset of the code in the image */

/* cli; hlt; jmp to the hlt */
#define STAND 0xfa, 0xf4, 0xeb, 0xfd

struct guest {
    struct machine_config cfg;
    struct vm *vm;
    enum vm_end end;
    char path[64];
};

static void write_kernel(const char *path, const uint8_t *code, size_t len)
{
    uint8_t image[512] = { 0 };
    uint32_t head[8] = { 0x1badb002, 0x10000, 0, LOAD, LOAD, 0, 0, LOAD + CODE };
    FILE *f = fopen(path, "we");

    head[2] = -(head[0] + head[1]);
    memcpy(image, head, sizeof(head));
    assert_true(len <= sizeof(image) - CODE);
    memcpy(image + CODE, code, len);
    assert_non_null(f);
    assert_int_equal(fwrite(image, 1, sizeof(image), f), sizeof(image));
    assert_int_equal(fclose(f), 0);
}

static void set(struct guest *g, const char *key, const char *value)
{
    struct err err = { "" };

    if (config_set(&g->cfg, key, value, &err) < 0)
        fail_msg("%s", err.text);
}

static void guest_make(struct guest *g, const uint8_t *code, size_t len)
{
    memset(g, 0, sizeof(*g));
    snprintf(g->path, sizeof(g->path), "/tmp/vitro-vm-%d-%p", (int)getpid(), (void *)g);
    write_kernel(g->path, code, len);
    assert_int_equal(config_init(&g->cfg), 0);
    set(g, "kernel", g->path);
    set(g, "serial", "none");
    set(g, "memory", "16M");
    set(g, "timeout", "20");
    set(g, "debug-exit", NULL);
}

static void guest_create(struct guest *g)
{
    struct err err = { "" };

    if (vm_create(&g->vm, &g->cfg, &engine_interp, &err) < 0)
        fail_msg("%s", err.text);
    unlink(g->path);
}

static void guest_free(struct guest *g)
{
    vm_destroy(g->vm);
    config_fini(&g->cfg);
}

/* The exit status of a machine that runs code, with or without --no-reboot. */
static int status_of(const uint8_t *code, size_t len, bool no_reboot)
{
    struct guest g;
    int status;

    guest_make(&g, code, len);
    if (no_reboot)
        set(&g, "no-reboot", NULL);
    guest_create(&g);
    vm_run(g.vm, -1);
    status = vm_status(g.vm);
    guest_free(&g);
    return status;
}

static void test_debug_exit(void **state)
{
    static const uint8_t code[] = { 0xb0, 0x15, 0xe6, 0xf4, STAND }; /* mov al, 0x15; out 0xf4, al */

    assert_int_equal(status_of(code, sizeof(code), true), 0x15 << 1 | 1);
}

static void test_power_off(void **state)
{
    /* mov dx, 0x604; mov ax, SLP_EN | S5; out dx, ax */
    static const uint8_t code[] = { 0x66, 0xba, 0x04, 0x06, 0x66, 0xb8, 0x00, 0x34, 0x66, 0xef, STAND };

    assert_int_equal(status_of(code, sizeof(code), false), 0);
}

static void test_panic(void **state)
{
    static const uint8_t code[] = { 0x66, 0xba, 0x05, 0x05, 0xb0, 0x01, 0xee, STAND }; /* out 0x505, 1 */

    assert_int_equal(status_of(code, sizeof(code), false), 126);
}

static void test_triple_fault(void **state)
{
    /* lidt of six zero bytes (the image's tail), then int3 */
    static const uint8_t code[] = { 0x0f, 0x01, 0x1d, 0x00, 0x01, 0x10, 0x00, 0xcc, STAND };

    assert_int_equal(status_of(code, sizeof(code), true), 126);
}

/* A counter in memory that survives resets; at three the guest ends with 0x2a, before that it resets by
 * `way`. */
static int status_of_resets(const uint8_t *way, size_t len, uint64_t *resets)
{
    uint8_t code[64] = {
        0xff, 0x05, 0x00, 0x00, 0x20,  0x00,       /* inc dword [0x200000] */
        0x83, 0x3d, 0x00, 0x00, 0x20,  0x00, 0x03, /* cmp dword [0x200000], 3 */
        0x72, 0x08,                                /* jb past the next */
        0xb0, 0x2a, 0xe6, 0xf4, STAND,             /* debug exit 0x2a */
    };
    struct guest g;
    int status;

    memcpy(code + 23, way, len);
    guest_make(&g, code, sizeof(code));
    guest_create(&g);
    vm_run(g.vm, -1);
    status = vm_status(g.vm);
    *resets = g.vm->life.resets;
    guest_free(&g);
    return status;
}

static void test_resets(void **state)
{
    static const struct {
        const char *name;
        size_t len;
        uint8_t code[16];
    } way[] = {
        { "reset register", 11, { 0x66, 0xba, 0xf9, 0x0c, 0xb0, 0x06, 0xee, STAND } },
        { "keyboard controller", 8, { 0xb0, 0xfe, 0xe6, 0x64, STAND } },
        { "port 92", 8, { 0xb0, 0x01, 0xe6, 0x92, STAND } },
        { "triple fault", 12, { 0x0f, 0x01, 0x1d, 0x00, 0x01, 0x10, 0x00, 0xcc, STAND } },
    };

    for (size_t i = 0; i < ARRAY_LEN(way); i++) {
        uint64_t resets = 0;
        int status = status_of_resets(way[i].code, way[i].len, &resets);

        if (status != (0x2a << 1 | 1) || resets != 2)
            fail_msg("%s: status %d after %llu resets", way[i].name, status, (unsigned long long)resets);
        status = status_of(way[i].code, way[i].len, true);
        if (status != (i == 3 ? 126 : 0))
            fail_msg("%s with --no-reboot: status %d", way[i].name, status);
    }
}

static void test_timeout(void **state)
{
    static const uint8_t loop[] = { 0xeb, 0xfe }, stand[] = { STAND };
    const uint8_t *code[] = { loop, stand };
    const size_t len[] = { sizeof(loop), sizeof(stand) };

    for (size_t i = 0; i < ARRAY_LEN(code); i++) {
        struct guest g;

        guest_make(&g, code[i], len[i]);
        set(&g, "timeout", "0.2");
        set(&g, "cpus", "4");
        guest_create(&g);
        assert_int_equal(vm_run(g.vm, -1), VM_END_TIMEOUT);
        assert_int_equal(vm_status(g.vm), 124);
        guest_free(&g);
    }
}

/* The host's TSC, but that it began at zero. */
static uint64_t tsc_slept;
static uint64_t tsc_began_again(struct clock *c) { return __builtin_ia32_rdtsc() - tsc_slept; }

struct sleeper {
    struct vm_call call;
    struct vm *vm;
    struct timer timer;
    uint64_t before, after;
};

static void sleeper_timer(void *opaque) { vm_request(((struct sleeper *)opaque)->vm, VM_REQ_QUIT); }

static void sleeper_call(struct vm_call *call, struct vm *vm)
{
    struct sleeper *s = container_of(call, struct sleeper, call);

    s->before = clock_ns(&vm->clock);
    tsc_slept = __builtin_ia32_rdtsc() - 1000;
    vm->clock.source = tsc_began_again;
    vm_woken(vm);
    s->after = clock_ns(&vm->clock);
    loop_lock(&vm->loop);
    timer_init(&s->timer, &vm->loop, sleeper_timer, s);
    timer_arm(&s->timer, s->after + 20000000);
    loop_unlock(&vm->loop);
}

/* After a sleep of the host guest time goes on, and what waits for it comes. */
static void test_sleep(void **state)
{
    static const uint8_t stand[] = { STAND };
    struct sleeper s = { .call.fn = sleeper_call };
    struct err err = { "" };
    struct guest g;
    const char *how;
    uint64_t khz = host_tsc_khz(&how);

    if (!khz) {
        print_message("this host has no TSC that all CPUs share\n");
        skip();
    }
    guest_make(&g, stand, sizeof(stand));
    if (vm_create(&g.vm, &g.cfg, &engine_dbt, &err) < 0)
        fail_msg("%s", err.text);
    unlink(g.path);
    s.vm = g.vm;
    clock_init_tsc(&g.vm->clock, khz);
    vm_call(g.vm, &s.call);
    assert_int_equal(vm_run(g.vm, -1), VM_END_QUIT);
    assert_in_range(s.after, s.before, s.before + 10000000000);
    guest_free(&g);
}

/* The guest's output reaches the file whole, also what it wrote just before its end. */
static void test_serial(void **state)
{
    /* mov dx, 0x3f8; mov ecx, 1000; mov al, 'x'; out dx, al; loop; mov al, 0; out 0xf4, al */
    static const uint8_t code[] = { 0x66, 0xba, 0xf8, 0x03, 0xb9, 0xe8, 0x03, 0x00, 0x00, 0xb0,
                                    'x',  0xee, 0xe2, 0xfd, 0xb0, 0x00, 0xe6, 0xf4, STAND };
    char path[] = "/tmp/vitro-serial-XXXXXX", spec[64], data[2000];
    struct guest g;
    ssize_t n;
    int fd = mkstemp(path);

    assert_true(fd >= 0);
    snprintf(spec, sizeof(spec), "file:%s", path);
    guest_make(&g, code, sizeof(code));
    g.cfg.serials = 0;
    free(g.cfg.serial[0]);
    set(&g, "serial", spec);
    guest_create(&g);
    assert_int_equal(vm_run(g.vm, -1), VM_END_DEBUG);
    guest_free(&g);
    n = read(fd, data, sizeof(data));
    assert_int_equal(n, 1000);
    for (ssize_t i = 0; i < n; i++)
        assert_int_equal(data[i], 'x');
    close(fd);
    unlink(path);
}

static void *run_thread(void *arg)
{
    struct guest *g = arg;

    g->end = vm_run(g->vm, -1);
    return NULL;
}

/* Ask for resets until one was done: on a busy host the machine's thread may not have had its turn yet. */
static void reset_once(struct vm *vm)
{
    uint64_t resets = 0;

    for (unsigned i = 0; i < 60000 && !resets; i++) {
        vm_request(vm, VM_REQ_RESET);
        usleep(1000);
        resets = __atomic_load_n(&vm->life.resets, __ATOMIC_RELAXED);
    }
    assert_true(resets >= 1);
}

/* Two machines at once, each with its own end; and requests from another thread. */
static void test_two_machines(void **state)
{
    static const uint8_t loop[] = { 0xeb, 0xfe };
    static const uint8_t leave[] = {
        0xb9, 0x00, 0x00, 0x10, 0x00, 0xe2, 0xfe, 0xb0, 0x07, 0xe6, 0xf4, STAND
    };
    struct guest a, b;
    pthread_t ta, tb;

    guest_make(&a, loop, sizeof(loop));
    guest_make(&b, leave, sizeof(leave));
    set(&a, "cpus", "2");
    guest_create(&a);
    guest_create(&b);
    assert_int_equal(pthread_create(&ta, NULL, run_thread, &a), 0);
    assert_int_equal(pthread_create(&tb, NULL, run_thread, &b), 0);
    pthread_join(tb, NULL);
    assert_int_equal(b.end, VM_END_DEBUG);
    assert_int_equal(vm_status(b.vm), 15);
    for (unsigned i = 0; i < 50; i++) { /* reset, pause and go on, while it runs */
        vm_request(a.vm, VM_REQ_RESET);
        vm_request(a.vm, VM_REQ_PAUSE);
        usleep(2000);
    }
    reset_once(a.vm);
    vm_request(a.vm, VM_REQ_QUIT);
    pthread_join(ta, NULL);
    assert_int_equal(a.end, VM_END_QUIT);
    guest_free(&a);
    guest_free(&b);
}

/* A disk goes under an overlay; the configuration then says the chain, and opens it again. */
static void test_disk_overlay(void **state)
{
    static const uint8_t code[] = { STAND };
    char base[80], over[80], disk[128], want[256], *text;
    struct machine_config again;
    struct err err = { "" };
    struct guest g;
    int fd;

    guest_make(&g, code, sizeof(code));
    snprintf(base, sizeof(base), "%s.bin", g.path);
    snprintf(over, sizeof(over), "%s.qcow2", g.path);
    snprintf(disk, sizeof(disk), "%s,format=raw,serial=x1", base);
    write_kernel(base, code, sizeof(code));
    assert_int_equal(truncate(base, 1 << 20), 0);
    set(&g, "disk", disk);
    assert_int_equal(vm_create_blank(&g.vm, &g.cfg, &engine_interp, &err), 0);
    fd = image_overlay_make(over, base, IMAGE_RAW, &err);
    assert_true(fd >= 0);
    assert_int_equal(vm_disk_overlay(g.vm, 1, dup(fd), over, &err), -ENOENT);
    assert_int_equal(vm_disk_overlay(g.vm, 0, dup(fd), "a,b", &err), -EINVAL);
    if (vm_disk_overlay(g.vm, 0, fd, over, &err) < 0)
        fail_msg("%s", err.text);
    assert_string_equal(g.cfg.disk[0].path, over);
    text = config_dump(&g.cfg);
    snprintf(want, sizeof(want), "%s,format=qcow2,backing=%s,serial=x1", over, base);
    assert_non_null(strstr(text, want));
    guest_free(&g);
    assert_int_equal(config_init(&again), 0);
    assert_int_equal(config_load_text(&again, text, strlen(text), "again", &err), 0);
    if (vm_create_blank(&g.vm, &again, &engine_interp, &err) < 0)
        fail_msg("%s", err.text);
    vm_destroy(g.vm);
    config_fini(&again);
    free(text);
    unlink(g.path);
    unlink(base);
    unlink(over);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_debug_exit),   cmocka_unit_test(test_power_off),
        cmocka_unit_test(test_panic),        cmocka_unit_test(test_resets),
        cmocka_unit_test(test_triple_fault), cmocka_unit_test(test_timeout),
        cmocka_unit_test(test_sleep),
        cmocka_unit_test(test_serial),       cmocka_unit_test(test_two_machines),
        cmocka_unit_test(test_disk_overlay),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
