/* The state of a whole machine: what a running machine's CPUs, local APICs and devices save, another machine that was just
 * made can load, and saves again as the same bytes. RAM is not part of it here. */
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
#include "machine/vm.h"
#include "state/state.h"

#define LOAD 0x100000u
#define CODE 48u /* offset of the code in the image */
#define MAX_SECTIONS (VM_MAX_DEVICES + 2 * MAX_VCPUS)

/* Sets up both 8259s, channel 0 and 2 of the PIT, the RTC's register B, the first UART's divisor and the keyboard
 * controller's mode, then loads registers and ends by the debug port: state that differs from that after reset. */
static const uint8_t guest_code[] = {
    0xb0, 0x11, 0xe6, 0x20, 0xb0, 0x40, 0xe6, 0x21, 0xb0, 0x04, 0xe6, 0x21, 0xb0, 0x01, 0xe6, 0x21, /* PIC master */
    0xb0, 0x11, 0xe6, 0xa0, 0xb0, 0x48, 0xe6, 0xa1, 0xb0, 0x02, 0xe6, 0xa1, 0xb0, 0x01, 0xe6, 0xa1, /* slave */
    0xb0, 0x34, 0xe6, 0x43, 0xb0, 0x9c, 0xe6, 0x40, 0xb0, 0x2e, 0xe6, 0x40,                         /* PIT 0, mode 2 */
    0xb0, 0xb6, 0xe6, 0x43, 0xb0, 0x12, 0xe6, 0x42, 0xb0, 0x34, 0xe6, 0x42,                         /* PIT 2, mode 3 */
    0xb0, 0x8b, 0xe6, 0x70, 0xb0, 0x42, 0xe6, 0x71,                                                 /* RTC B */
    0x66, 0xba, 0xfb, 0x03, 0xb0, 0x83, 0xee, 0x66, 0xba, 0xf8, 0x03, 0xb0, 0x0c, 0xee,             /* UART divisor */
    0xb0, 0x60, 0xe6, 0x64, 0xb0, 0x45, 0xe6, 0x60,                                                 /* i8042 mode */
    0xb8, 0x78, 0x56, 0x34, 0x12, 0xbb, 0xef, 0xbe, 0xad, 0xde, 0xf9,                               /* EAX, EBX, CF */
    0xb9, 0x05, 0x00, 0x00, 0x00, 0xe6, 0xf4, 0xf4, 0xeb, 0xfd,                                     /* ECX; exit; halt */
};

static void write_kernel(const char *path)
{
    uint8_t image[512] = { 0 };
    uint32_t head[8] = { 0x1badb002, 0x10000, 0, LOAD, LOAD, 0, 0, LOAD + CODE };
    FILE *f = fopen(path, "we");
    head[2] = -(head[0] + head[1]);
    memcpy(image, head, sizeof(head));
    memcpy(image + CODE, guest_code, sizeof(guest_code));
    assert_non_null(f);
    assert_int_equal(fwrite(image, 1, sizeof(image), f), sizeof(image));
    assert_int_equal(fclose(f), 0);
}

static void set(struct machine_config *cfg, const char *key, const char *value)
{
    struct err err = { "" };
    if (config_set(cfg, key, value, &err) < 0)
        fail_msg("%s", err.text);
}

static struct vm *make(struct machine_config *cfg)
{
    struct err err = { "" };
    struct vm *vm = NULL;
    char path[64];
    snprintf(path, sizeof(path), "/tmp/vitro-state-%d", (int)getpid());
    write_kernel(path);
    assert_int_equal(config_init(cfg), 0);
    set(cfg, "kernel", path);
    set(cfg, "serial", "none");
    set(cfg, "memory", "16M");
    set(cfg, "cpus", "2");
    set(cfg, "timeout", "30");
    set(cfg, "debug-exit", NULL);
    if (vm_create(&vm, cfg, &engine_interp, &err) < 0)
        fail_msg("%s", err.text);
    unlink(path);
    return vm;
}

struct section {
    const struct state_desc *desc;
    uint32_t instance;
    void *obj;
};

/* Everything of a machine that has state. */
static unsigned sections(struct vm *vm, struct section *s)
{
    unsigned n = 0;
    for (unsigned k = 0; k < vm->ndevices; k++)
        s[n++] = (struct section){ vm->device[k].ops->state, vm->device[k].instance, vm->device[k].dev };
    for (unsigned k = 0; k < vm->nvcpus; k++) {
        s[n++] = (struct section){ &cpu_state_desc, k, &vm->vcpu[k]->vcpu.cpu };
        s[n++] = (struct section){ lapic_ops.state, k, &vm->vcpu[k]->lapic };
    }
    return n;
}

static void save_all(struct vm *vm, struct state_buf *out)
{
    struct section s[MAX_SECTIONS];
    unsigned n = sections(vm, s);
    loop_lock(&vm->loop);
    for (unsigned k = 0; k < n; k++)
        assert_int_equal(state_save(out, s[k].desc, s[k].instance, s[k].obj), 0);
    loop_unlock(&vm->loop);
    assert_false(out->failed);
}

static void test_descriptions(void **state)
{
    static struct machine_config cfg;
    struct section s[MAX_SECTIONS];
    struct vm *vm = make(&cfg);
    unsigned n = sections(vm, s);
    assert_true(n >= 18);
    for (unsigned k = 0; k < n; k++) {
        struct err err = { "" };
        if (state_desc_check(s[k].desc, &err) < 0)
            fail_msg("%s: %s", s[k].desc->name, err.text);
        for (unsigned j = 0; j < k; j++) /* a section is found by name and instance */
            assert_false(s[j].instance == s[k].instance && strcmp(s[j].desc->name, s[k].desc->name) == 0);
    }
    vm_destroy(vm);
    config_fini(&cfg);
}

/* Load into b, which was just made, what a saves; b must then save the same bytes. */
static void move_state(struct vm *a, struct vm *b)
{
    struct state_buf fresh = { 0 }, saved = { 0 }, again = { 0 };
    struct section s[MAX_SECTIONS];
    save_all(b, &fresh);
    save_all(a, &saved);
    /* The guest has moved the machine away from reset, or this test shows nothing. */
    assert_true(fresh.len != saved.len || memcmp(fresh.data, saved.data, saved.len) != 0);

    unsigned n = sections(b, s);
    loop_lock(&b->loop);
    for (unsigned k = 0; k < n; k++) {
        struct err err = { "" };
        if (state_load(saved.data, saved.len, s[k].desc, s[k].instance, s[k].obj, &err) < 0)
            fail_msg("%s: %s", s[k].desc->name, err.text);
    }
    loop_unlock(&b->loop);
    save_all(b, &again);
    assert_int_equal(again.len, saved.len);
    assert_memory_equal(again.data, saved.data, saved.len);
    state_buf_fini(&fresh);
    state_buf_fini(&saved);
    state_buf_fini(&again);
}

static void test_save_load_save(void **state)
{
    static struct machine_config cfg_a, cfg_b;
    struct vm *a = make(&cfg_a), *b = make(&cfg_b);
    assert_int_equal(vm_run(a, -1), VM_END_DEBUG);
    move_state(a, b);
    assert_int_equal(b->vcpu[0]->vcpu.cpu.r[RBX], 0xdeadbeef);
    vm_destroy(a);
    vm_destroy(b);
    config_fini(&cfg_a);
    config_fini(&cfg_b);
}

/* -- with firmware -- */

#define ROM_LEN  0x10000u
#define VARS_LEN 0x2000u
#define VARS_GPA (0x100000000ULL - ROM_LEN - VARS_LEN)

/* From the reset vector: two bytes of fw_cfg's directory, the ECAM switched on, the end. */
static const uint8_t rom_code[] = {
    0xba, 0x10, 0x05, 0xb8, 0x19, 0x00, 0xef, 0x42, 0xec, 0xec,             /* 510 = 19; twice from 511 */
    0xba, 0xf8, 0x0c, 0x66, 0xb8, 0x60, 0x00, 0x00, 0x80, 0x66, 0xef,       /* CF8 = 80000060 */
    0xba, 0xfc, 0x0c, 0x66, 0xb8, 0x01, 0x00, 0x00, 0xb0, 0x66, 0xef,       /* CFC = B0000001 */
    0xb0, 0x05, 0xe6, 0xf4, 0xf4, 0xeb, 0xfd,                               /* exit; halt */
};

static void write_file(const char *path, const uint8_t *data, size_t len)
{
    FILE *f = fopen(path, "we");
    assert_non_null(f);
    assert_int_equal(fwrite(data, 1, len, f), len);
    assert_int_equal(fclose(f), 0);
}

/* A machine with that ROM and with flash, whose contents are in the file vars. */
static struct vm *make_firmware(struct machine_config *cfg, const char *vars)
{
    static uint8_t rom[ROM_LEN];
    struct err err = { "" };
    struct vm *vm = NULL;
    char path[64], value[160];
    snprintf(path, sizeof(path), "/tmp/vitro-state-%d.rom", (int)getpid());
    memset(rom, 0xf4, sizeof(rom));
    memcpy(rom + 0xff00, rom_code, sizeof(rom_code));
    memcpy(rom + 0xfff0, "\xe9\x0d\xff", 3); /* jmp ff00 */
    write_file(path, rom, sizeof(rom));
    snprintf(value, sizeof(value), "%s,vars=%s", path, vars);
    assert_int_equal(config_init(cfg), 0);
    set(cfg, "firmware", value);
    set(cfg, "serial", "none");
    set(cfg, "memory", "16M");
    set(cfg, "timeout", "30");
    set(cfg, "trace", "firmware"); /* a debug console */
    set(cfg, "debug-exit", NULL);
    if (vm_create(&vm, cfg, &engine_interp, &err) < 0)
        fail_msg("%s", err.text);
    unlink(path);
    return vm;
}

static void test_firmware(void **state)
{
    static struct machine_config cfg_a, cfg_b;
    static uint8_t contents[VARS_LEN];
    char vars_a[64], vars_b[64];
    snprintf(vars_a, sizeof(vars_a), "/tmp/vitro-state-%d.a", (int)getpid());
    snprintf(vars_b, sizeof(vars_b), "/tmp/vitro-state-%d.b", (int)getpid());
    write_file(vars_a, contents, sizeof(contents));
    write_file(vars_b, contents, sizeof(contents));
    struct vm *a = make_firmware(&cfg_a, vars_a), *b = make_firmware(&cfg_b, vars_b);
    assert_int_equal(vm_run(a, -1), VM_END_DEBUG);
    bus_write(&a->mmio, VARS_GPA + 5, 0x10, 1);
    bus_write(&a->mmio, VARS_GPA + 5, 0xab, 1);
    bus_write(&a->io, 0x402, 'x', 1);
    move_state(a, b);
    assert_int_equal(b->firmware.fw_cfg.selector, FW_CFG_DIR);
    assert_int_equal(b->firmware.fw_cfg.offset, 2);
    assert_int_equal(b->firmware.flash.data[5], 0xab);
    assert_int_equal(b->firmware.debugcon.len, 1);
    assert_int_equal(pci_host_ecam_base(&b->pci), 0xb0000000);
    vm_destroy(a);
    vm_destroy(b);
    config_fini(&cfg_a);
    config_fini(&cfg_b);
    FILE *f = fopen(vars_a, "re");
    assert_non_null(f);
    assert_int_equal(fread(contents, 1, sizeof(contents), f), sizeof(contents));
    assert_int_equal(contents[5], 0xab);
    fclose(f);
    unlink(vars_a);
    unlink(vars_b);
}

/* A flipped bit anywhere in the saved state: no device takes its part of it, and none changes. */
static void test_damage(void **state)
{
    static struct machine_config cfg;
    struct vm *vm = make(&cfg);
    struct state_buf saved = { 0 };
    struct section s[MAX_SECTIONS];
    save_all(vm, &saved);
    unsigned n = sections(vm, s);
    for (size_t at = 0; at < saved.len; at += 1 + saved.len / 400) {
        unsigned refused = 0;
        struct state_buf after = { 0 };
        saved.data[at] ^= 1u << (at % 8);
        loop_lock(&vm->loop);
        for (unsigned k = 0; k < n; k++)
            refused += state_load(saved.data, saved.len, s[k].desc, s[k].instance, s[k].obj, NULL) < 0;
        loop_unlock(&vm->loop);
        saved.data[at] ^= 1u << (at % 8);
        assert_true(refused >= 1);
        save_all(vm, &after);
        assert_int_equal(after.len, saved.len);
        assert_memory_equal(after.data, saved.data, saved.len);
        state_buf_fini(&after);
    }
    state_buf_fini(&saved);
    vm_destroy(vm);
    config_fini(&cfg);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_descriptions),
        cmocka_unit_test(test_save_load_save),
        cmocka_unit_test(test_firmware),
        cmocka_unit_test(test_damage),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
