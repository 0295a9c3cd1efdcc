/* The dirty log of running machines: whoever copies all of the memory once and then what the log tells, round by round, has
 * the memory as it is, on each engine, whatever the guest and its devices write meanwhile.
 *
 * The guest (64-bit code, so that it is translated) counts, and writes its count to pages that a hash of it chooses: through
 * 2 MiB pages, and through 4 KiB pages that are aliases of them, by moves, string and locked instructions and the stack. A
 * thread writes as disks and network cards do.
 */
#include <errno.h>
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
#include "ram/lend.h"

#define LOAD    0x100000u
#define CODE    48u
#define WORD    0x200000u /* where the guest counts */
#define DEVICE  0x800000u /* where the thread writes: 256 pages */
#define MEMORY  (16u << 20)
#define ROUNDS  40
#define STEP    2000 /* counts that the guest has to do between two rounds */

extern const uint8_t guest_begin[], guest_end[];

/* Tables at 400000h: 16 pages of 2 MiB, then at 2000000h a table of 512 small pages of the memory at 600000h. */
__asm__(".pushsection .rodata\n"
        "guest_begin:\n"
        ".code32\n"
        "  movl $0x401003, 0x400000\n"
        "  movl $0x402003, 0x401000\n"
        "  xorl %ecx, %ecx\n"
        "1: movl %ecx, %eax\n"
        "  shll $21, %eax\n"
        "  orl $0x83, %eax\n"
        "  movl %eax, 0x402000(,%ecx,8)\n"
        "  incl %ecx\n"
        "  cmpl $16, %ecx\n"
        "  jb 1b\n"
        "  movl $0x403003, 0x402080\n"
        "  xorl %ecx, %ecx\n"
        "2: movl %ecx, %eax\n"
        "  shll $12, %eax\n"
        "  orl $0x600003, %eax\n"
        "  movl %eax, 0x403000(,%ecx,8)\n"
        "  incl %ecx\n"
        "  cmpl $512, %ecx\n"
        "  jb 2b\n"
        "  movl %cr4, %eax\n"
        "  orl $0x220, %eax\n"
        "  movl %eax, %cr4\n"
        "  movl $0x400000, %eax\n"
        "  movl %eax, %cr3\n"
        "  movl $0xc0000080, %ecx\n"
        "  rdmsr\n"
        "  orl $0x100, %eax\n"
        "  wrmsr\n"
        "  movl %cr0, %eax\n"
        "  orl $0x80000000, %eax\n"
        "  movl %eax, %cr0\n"
        "  lgdt 0x100030 + (gdt_pointer - guest_begin)\n"
        "  ljmp $8, $0x100030 + (long_mode - guest_begin)\n"
        ".code64\n"
        "long_mode:\n"
        "  movl $0x280000, %esp\n"
        "  xorl %eax, %eax\n"
        "3: incq %rax\n"
        "  movq %rax, 0x200000\n"
        "  imull $0x9e3779b1, %eax, %ebx\n"
        "  shrl $24, %ebx\n"
        "  shll $12, %ebx\n"
        "  movq %rax, 0x600000(%rbx)\n"
        "  lock addq %rax, 0x2000008(%rbx)\n" /* the same page by its other name */
        "  pushq %rax\n"
        "  call 5f\n"
        "  popq %rax\n"
        "  testl $0xff, %eax\n"
        "  jnz 4f\n"
        "  leaq 0x20f0010(%rbx), %rdi\n"
        "  movl $0x1800, %ecx\n"
        "  rep stosb\n"
        "  leaq 0x2ffffc(%rbx), %rdi\n" /* across pages */
        "  movq %rax, (%rdi)\n"
        "  cvtsi2sd %rax, %xmm0\n"
        "  movups %xmm0, 0x4f0(%rdi)\n"
        "4: cmpb $0, 0x201000\n"
        "  je 3b\n"
        "  movb $5, %al\n"
        "  outb %al, $0xf4\n"
        "6: hlt\n"
        "  jmp 6b\n"
        "5: xorq %rbx, 0x20(%rsp)\n"
        "  ret\n"
        ".balign 8\n"
        "gdt:\n"
        "  .quad 0, 0x00af9b000000ffff\n"
        "gdt_pointer:\n"
        "  .word 15\n"
        "  .long 0x100030 + (gdt - guest_begin)\n"
        "guest_end:\n"
        ".popsection\n");

static char kernel[64];

static int group_setup(void **state)
{
    uint8_t image[1024] = { 0 };
    uint32_t head[8] = { 0x1badb002, 0x10000, 0, LOAD, LOAD, 0, 0, LOAD + CODE };
    size_t len = (size_t)(guest_end - guest_begin);
    int fd;

    head[2] = -(head[0] + head[1]);
    assert_true(CODE + len <= sizeof(image));
    memcpy(image, head, sizeof(head));
    memcpy(image + CODE, guest_begin, len);
    snprintf(kernel, sizeof(kernel), "/tmp/vitro-dirty-XXXXXX");
    fd = mkstemp(kernel);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, image, sizeof(image)), sizeof(image));
    return close(fd);
}

static int group_teardown(void **state) { return unlink(kernel); }

/* -- what copies -- */

struct copier {
    struct vm *vm;
    struct vm_call call;
    struct timer timer;
    uint8_t *copy[RAM_MAX_SLOTS];
    struct vm_dirty d;
    unsigned round;
    uint64_t count;  /* the guest's, at the last round */
    int64_t told;    /* pages, in all rounds */
    bool off;        /* the log is off again */
    pthread_t device;
    _Atomic bool stop;
    _Atomic unsigned writes;
};

static uint64_t count(struct vm *vm)
{
    uint64_t v;

    assert_int_equal(ram_read(&vm->ram, WORD, &v, 8), 0);
    return v;
}

/* As a disk does: copies, and memory that is lent. */
static void *device_main(void *arg)
{
    struct copier *c = arg;
    struct ram *ram = &c->vm->ram;
    uint8_t bytes[700];

    for (unsigned n = 0; !atomic_load(&c->stop); n++) {
        uint64_t gpa = DEVICE + (n * 2654435761u >> 24) * PAGE_SIZE + n % PAGE_SIZE, len;
        void *lent;

        memset(bytes, (int)n, sizeof(bytes));
        assert_int_equal(ram_write(ram, gpa, bytes, sizeof(bytes)), 0);
        lent = ram_lend(ram, gpa + 0x200000, 300, &len);
        assert_non_null(lent);
        memset(lent, (int)n, len);
        ram_lend_end(ram, gpa + 0x200000, len);
        atomic_store(&c->writes, n);
        if (n % 64 == 0)
            usleep(200);
    }
    return NULL;
}

static void copy_all(struct copier *c)
{
    for (unsigned n = 0; n < c->vm->ram.nslots; n++)
        memcpy(c->copy[n], c->vm->ram.slot[n].hva, c->vm->ram.slot[n].size);
}

static void copy_told(struct copier *c)
{
    int64_t told = vm_dirty_collect(c->vm, &c->d);

    assert_true(told >= 0);
    c->told += told;
    for (unsigned n = 0; n < c->vm->ram.nslots; n++) {
        const struct ram_slot *s = &c->vm->ram.slot[n];

        for (uint64_t p = 0; p < s->size / PAGE_SIZE; p++) {
            if (c->d.bitmap[n][p / 8] >> p % 8 & 1)
                memcpy(c->copy[n] + p * PAGE_SIZE, s->hva + p * PAGE_SIZE, PAGE_SIZE);
        }
    }
}

/* Everything stands: nothing may differ. */
static void copy_compare(struct copier *c)
{
    for (unsigned n = 0; n < c->vm->ram.nslots; n++) {
        const struct ram_slot *s = &c->vm->ram.slot[n];

        for (uint64_t p = 0; p < s->size; p += PAGE_SIZE) {
            if (memcmp(c->copy[n] + p, s->hva + p, PAGE_SIZE))
                fail_msg("page %llx was written, and nobody was told", (unsigned long long)(s->gpa + p));
        }
    }
}

static void copier_call(struct vm_call *call, struct vm *vm)
{
    struct copier *c = container_of(call, struct copier, call);

    if (c->round == 0) {
        vm_dirty_log(vm, true);
        copy_all(c);
    } else if (c->round < ROUNDS) {
        copy_told(c);
    } else {
        atomic_store(&c->stop, true);
        pthread_join(c->device, NULL);
        vm_pause(vm);
        copy_told(c);
        copy_compare(c);
        vm_dirty_log(vm, false);
        vm_request(vm, VM_REQ_QUIT);
        return;
    }
    c->round++;
    c->count = count(vm);
    loop_lock(&vm->loop);
    timer_arm(&c->timer, timer_now(&c->timer) + 1000000);
    loop_unlock(&vm->loop);
}

/* The guest has done its share since the last round. */
static void copier_timer(void *opaque)
{
    struct copier *c = opaque;

    vm_slow_down(c->vm, c->round % 2 ? 200 : 0);
    if (count(c->vm) >= c->count + STEP && atomic_load(&c->writes) > c->round * 10)
        vm_call(c->vm, &c->call);
    else
        timer_arm(&c->timer, timer_now(&c->timer) + 1000000);
}

static void copier_init(struct copier *c)
{
    for (unsigned n = 0; n < c->vm->ram.nslots; n++) {
        c->copy[n] = malloc(c->vm->ram.slot[n].size);
        c->d.size[n] = (c->vm->ram.slot[n].size / PAGE_SIZE + 7) / 8;
        c->d.bitmap[n] = malloc(c->d.size[n]);
        assert_true(c->copy[n] && c->d.bitmap[n]);
    }
    c->call.fn = copier_call;
    loop_lock(&c->vm->loop);
    timer_init(&c->timer, &c->vm->loop, copier_timer, c);
    timer_arm(&c->timer, 1000000);
    loop_unlock(&c->vm->loop);
    assert_int_equal(pthread_create(&c->device, NULL, device_main, c), 0);
}

static void set(struct machine_config *cfg, const char *key, const char *value)
{
    struct err err = { "" };

    if (config_set(cfg, key, value, &err) < 0)
        fail_msg("%s", err.text);
}

static void run(const struct engine_ops *engine)
{
    struct machine_config cfg;
    struct copier c = { .round = 0 };
    struct err err = { "" };

    assert_int_equal(config_init(&cfg), 0);
    set(&cfg, "kernel", kernel);
    set(&cfg, "serial", "none");
    set(&cfg, "memory", "16M");
    set(&cfg, "debug-exit", NULL);
    set(&cfg, "no-reboot", NULL);
    set(&cfg, "timeout", "60");
    if (vm_create(&c.vm, &cfg, engine, &err) < 0)
        fail_msg("%s", err.text);
    copier_init(&c);
    assert_int_equal(vm_run(c.vm, -1), VM_END_QUIT);
    assert_int_equal(c.round, ROUNDS);
    assert_true(c.told > ROUNDS * 100); /* each round writes most of 256 pages twice over */
    assert_true(c.told < ROUNDS * (int64_t)(MEMORY / PAGE_SIZE) / 2);
    if (engine == &engine_dbt)
        assert_true(c.vm->vcpu[0]->vcpu.stats.blocks > 0);
    for (unsigned n = 0; n < c.vm->ram.nslots; n++) {
        free(c.copy[n]);
        free(c.d.bitmap[n]);
    }
    vm_destroy(c.vm);
    config_fini(&cfg);
}

static void test_interp(void **state) { run(&engine_interp); }
static void test_dbt(void **state) { run(&engine_dbt); }

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_interp),
        cmocka_unit_test(test_dbt),
    };

    return cmocka_run_group_tests(tests, group_setup, group_teardown);
}
