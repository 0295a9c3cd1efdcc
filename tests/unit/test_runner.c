/* Processes that run guest code (engine/direct/runner.h): what stops them, what they cannot do, and that their registers go both ways. The oracle is the host's CPU
 * and kernel. And pages of code that must not run there (odd.h). */
#include "test.h"

#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <sched.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/bits.h"
#include "engine/direct/odd.h"
#include "engine/direct/runner.h"
#include "engine/direct/state.h"

#define CODE 0x400000ULL
#define DATA 0x500000ULL
#define STUB_CALLS (RUNNER_STUB + 41) /* its SYSCALL */

static struct {
    struct runners all;
    struct runner r;
    uint8_t *ram; /* two pages of the file: code, data */
    int fd;
} f;

static int setup(void **state)
{
    int files[RUNNER_FILES];

    memset(files, 0xff, sizeof(files));
    f.fd = memfd_create("ram", MFD_CLOEXEC);
    assert_true(f.fd >= 0 && ftruncate(f.fd, 8192) == 0);
    f.ram = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_SHARED, f.fd, 0);
    assert_true(f.ram != MAP_FAILED);
    files[3] = f.fd;
    int r = runners_init(&f.all, files);
    if (r == -EPERM || r == -ENOSYS) {
        print_message("this host lets nobody be traced\n");
        skip();
    }
    assert_int_equal(r, 0);
    assert_int_equal(runner_init_signal(), 0);
    runner_thread(&f.all);
    assert_int_equal(runner_start(&f.r, &f.all), 0);
    assert_true(runner_map(&f.r, CODE, 4096, PROT_READ | PROT_EXEC, 3, 0));
    assert_true(runner_map(&f.r, DATA, 4096, PROT_READ | PROT_WRITE, 3, 4096));
    return 0;
}

static int teardown(void **state)
{
    runner_end(&f.r);
    runners_fini(&f.all);
    munmap(f.ram, 8192);
    close(f.fd);
    assert_int_equal(waitpid(-1, NULL, __WALL | WNOHANG), -1); /* none is left */
    return 0;
}

static struct user_regs_struct at(uint64_t rip)
{
    return (struct user_regs_struct){ .rip = rip, .rsp = DATA + 4096, .cs = 0x33, .ss = 0x2b, .eflags = 0x202 };
}

/* Run the bytes from CODE on. */
#define RUN(stop, regs, ...)                                       \
    do {                                                           \
        static const uint8_t code[] = { __VA_ARGS__ };             \
        memcpy(f.ram, code, sizeof(code));                         \
        assert_int_equal(runner_run(&f.r, &(regs), &(stop)), 0);   \
    } while (0)

static void test_computes(void **state)
{
    struct user_regs_struct regs = at(CODE);
    struct runner_stop stop;

    regs.rdi = 40;
    RUN(stop, regs, 0x48, 0x8d, 0x47, 0x02, 0x48, 0x89, 0x04, 0x25, 0x08, 0x00, 0x50, 0x00, 0xcc); /* lea 2(%rdi),%rax; mov %rax,DATA+8; int3 */
    assert_int_equal(stop.signal, SIGTRAP);
    assert_int_equal(regs.rax, 42);
    assert_int_equal(regs.rip, CODE + 13);
    assert_int_equal(f.ram[4096 + 8], 42);
}

static void test_system_calls_stop(void **state)
{
    struct user_regs_struct regs = at(CODE);
    struct runner_stop stop;

    regs.rax = SYS_exit_group;
    RUN(stop, regs, 0x0f, 0x05);
    assert_int_equal(stop.signal, SIGSYS);
    assert_int_equal(regs.rip, CODE + 2);
    assert_int_equal(regs.rax, SYS_exit_group);
    regs = at(CODE);
    regs.rax = 1;
    RUN(stop, regs, 0xcd, 0x80); /* int $0x80: exit of the 32-bit table */
    assert_int_equal(stop.signal, SIGSYS);
    assert_int_equal(regs.rip, CODE + 2);
}

/* Held back as a vCPU's thread does: what stays pending would go to the loop's thread. */
static void test_stops_are_no_signals(void **state)
{
    struct user_regs_struct regs = at(CODE);
    struct runner_stop stop;
    sigset_t child, old, pending;

    sigemptyset(&child);
    sigaddset(&child, SIGCHLD);
    pthread_sigmask(SIG_BLOCK, &child, &old);
    RUN(stop, regs, 0x0f, 0x05);
    assert_int_equal(stop.signal, SIGSYS);
    sigpending(&pending);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    assert_false(sigismember(&pending, SIGCHLD));
}

static void test_the_stub_serves_its_tracer_only(void **state)
{
    static const int calls[] = { SYS_mmap, SYS_munmap, SYS_mprotect, SYS_write, SYS_fork, SYS_exit_group };
    struct user_regs_struct first = at(CODE);
    struct runner_stop stop;

    RUN(stop, first, 0xcc); /* behind this, nothing is to be mapped */

    for (unsigned n = 0; n < ARRAY_LEN(calls); n++) {
        struct user_regs_struct regs = at(STUB_CALLS);
        regs.rax = (uint64_t)calls[n];
        regs.rdi = DATA;
        regs.rsi = 4096;
        regs.rdx = PROT_READ | PROT_WRITE | PROT_EXEC;
        regs.r10 = MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED;
        assert_int_equal(runner_run(&f.r, &regs, &stop), 0);
        assert_int_equal(stop.signal, SIGSYS);
    }
    /* With one of the secrets, or both for another call, or both from elsewhere, it is no better. */
    for (unsigned n = 0; n < 4; n++) {
        struct user_regs_struct regs = at(n < 3 ? STUB_CALLS : CODE);
        f.ram[0] = 0x0f;
        f.ram[1] = 0x05;
        regs.rax = n == 2 ? SYS_mprotect : SYS_mmap;
        regs.rdi = DATA;
        regs.rsi = 4096;
        regs.r10 = (n != 0 ? f.r.secret[0] : 0) | MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED;
        regs.r8 = n != 1 ? f.r.secret[1] : 0;
        assert_int_equal(runner_run(&f.r, &regs, &stop), 0);
        assert_int_equal(stop.signal, SIGSYS);
    }
}

/* Its tracer, taken over, cannot have the template do more than that either. */
static void test_the_template_may_do_little(void **state)
{
    static const int calls[] = { SYS_openat, SYS_execve, SYS_socket, SYS_mprotect, SYS_kill, SYS_ptrace };

    for (unsigned n = 0; n < ARRAY_LEN(calls); n++) {
        struct user_regs_struct regs = at(STUB_CALLS);
        int status;
        regs.rax = (uint64_t)calls[n];
        regs.orig_rax = ~0ULL;
        assert_int_equal(ptrace(PTRACE_SETREGS, f.all.template, 0, &regs), 0);
        assert_int_equal(ptrace(PTRACE_CONT, f.all.template, 0, 0), 0);
        assert_int_equal(waitpid(f.all.template, &status, __WALL), f.all.template);
        assert_true(WIFSTOPPED(status) && WSTOPSIG(status) == SIGSYS);
    }
}

static void test_faults_tell_where(void **state)
{
    struct user_regs_struct regs = at(CODE);
    struct runner_stop stop;

    RUN(stop, regs, 0x8a, 0x04, 0x25, 0x00, 0x00, 0x60, 0x00); /* mov 0x600000,%al */
    assert_int_equal(stop.signal, SIGSEGV);
    assert_int_equal(stop.info.si_code, SEGV_MAPERR);
    assert_ptr_equal(stop.info.si_addr, (void *)0x600000);
    assert_int_equal(regs.rip, CODE);
    RUN(stop, regs, 0x88, 0x04, 0x25, 0x00, 0x00, 0x40, 0x00); /* mov %al,CODE */
    assert_int_equal(stop.info.si_code, SEGV_ACCERR);
    assert_ptr_equal(stop.info.si_addr, (void *)CODE);
    RUN(stop, regs, 0x0f, 0x31); /* rdtsc */
    assert_int_equal(stop.signal, SIGSEGV);
    assert_int_equal(stop.info.si_code, SI_KERNEL);
    assert_int_equal(regs.rip, CODE);
    regs = at(DATA);
    assert_int_equal(runner_run(&f.r, &regs, &stop), 0);
    assert_ptr_equal(stop.info.si_addr, (void *)DATA);
}

static void test_it_stops_at_breakpoints(void **state)
{
    const uint64_t breaks[RUNNER_BREAKS] = { CODE + 1, 0, CODE + 3 }, bad[RUNNER_BREAKS] = { CODE + 1, ~0ULL << 47 }, none[RUNNER_BREAKS] = { 0 };
    struct user_regs_struct regs = at(CODE);
    struct runner_stop stop;

    assert_int_equal(runner_breaks(&f.r, breaks), 0);
    RUN(stop, regs, 0x90, 0x90, 0x90, 0x0f, 0xa2, 0xcc); /* nop; nop; nop; cpuid; int3 */
    assert_int_equal(stop.signal, SIGTRAP);
    assert_int_equal(stop.info.si_code, TRAP_HWBKPT);
    assert_int_equal(regs.rip, CODE + 1);
    regs.rip++;
    assert_int_equal(runner_run(&f.r, &regs, &stop), 0);
    assert_int_equal(regs.rip, CODE + 3);
    assert_true(runner_breaks(&f.r, bad) < 0); /* what was good still is */
    regs = at(CODE);
    assert_int_equal(runner_run(&f.r, &regs, &stop), 0);
    assert_int_equal(regs.rip, CODE + 1);
    assert_int_equal(runner_breaks(&f.r, breaks), 0);
    assert_int_equal(runner_breaks(&f.r, none), 0);
    regs = at(CODE);
    assert_int_equal(runner_run(&f.r, &regs, &stop), 0);
    assert_int_equal(regs.rip, CODE + 6);
}

/* A single step that ends in front of a breakpoint is a single step; then comes the breakpoint. */
static void test_steps_onto_breakpoints(void **state)
{
    const uint64_t breaks[RUNNER_BREAKS] = { CODE + 1 };
    struct user_regs_struct regs = at(CODE);
    struct runner_stop stop;

    assert_int_equal(runner_breaks(&f.r, breaks), 0);
    regs.eflags |= 0x100;
    RUN(stop, regs, 0x90, 0x90, 0xcc);
    assert_int_equal(stop.info.si_code, TRAP_TRACE);
    assert_int_equal(regs.rip, CODE + 1);
    regs.eflags |= 0x100;
    assert_int_equal(runner_run(&f.r, &regs, &stop), 0);
    assert_int_equal(stop.info.si_code, TRAP_HWBKPT);
    assert_int_equal(regs.rip, CODE + 1);
}

/* Runners that are made after the template was switched read the host's TSC; and the template may switch nothing else. */
static void test_tsc_plain(void **state)
{
    struct user_regs_struct regs = at(CODE);
    struct runner_stop stop;
    int status;

    for (unsigned n = 0; n < 2; n++) {
        struct runner r;
        assert_int_equal(runners_set_tsc(&f.all, n == 0), 0);
        assert_int_equal(f.all.tsc_plain, n == 0);
        assert_int_equal(runner_start(&r, &f.all), 0);
        assert_true(runner_map(&r, CODE, 4096, PROT_READ | PROT_EXEC, 3, 0));
        memcpy(f.ram, "\x0f\x31\xcc", 3); /* rdtsc; int3 */
        regs = at(CODE);
        uint64_t before = __builtin_ia32_rdtsc();
        assert_int_equal(runner_run(&r, &regs, &stop), 0);
        assert_int_equal(stop.signal, n ? SIGSEGV : SIGTRAP);
        uint64_t tsc = regs.rdx << 32 | regs.rax;
        assert_true(n || (tsc >= before && tsc <= __builtin_ia32_rdtsc()));
        regs = at(CODE);
        RUN(stop, regs, 0x0f, 0x31); /* the one that was there before */
        assert_int_equal(stop.signal, SIGSEGV);
        runner_end(&r);
    }
    regs = at(STUB_CALLS);
    regs.rax = SYS_prctl;
    regs.rdi = PR_SET_DUMPABLE;
    regs.orig_rax = ~0ULL;
    assert_int_equal(ptrace(PTRACE_SETREGS, f.all.template, 0, &regs), 0);
    assert_int_equal(ptrace(PTRACE_CONT, f.all.template, 0, 0), 0);
    assert_int_equal(waitpid(f.all.template, &status, __WALL), f.all.template);
    assert_true(WIFSTOPPED(status) && WSTOPSIG(status) == SIGSYS);
}

static void test_unmapped_is_gone(void **state)
{
    struct user_regs_struct regs = at(CODE);
    struct runner_stop stop;

    assert_true(runner_map(&f.r, DATA, 4096, -1, 0, 0));
    RUN(stop, regs, 0x8a, 0x04, 0x25, 0x00, 0x00, 0x50, 0x00); /* mov DATA,%al */
    assert_ptr_equal(stop.info.si_addr, (void *)DATA);
    assert_true(runner_unmap_all(&f.r));
    assert_int_equal(runner_run(&f.r, &regs, &stop), 0);
    assert_ptr_equal(stop.info.si_addr, (void *)CODE);
}

static void test_the_list_has_an_end(void **state)
{
    struct user_regs_struct regs = at(CODE);
    struct runner_stop stop;

    for (unsigned n = 2; n < RUNNER_LIST; n++)
        assert_true(runner_map(&f.r, DATA, 4096, PROT_READ, 3, 4096));
    assert_false(runner_map(&f.r, DATA, 4096, PROT_READ, 3, 4096));
    RUN(stop, regs, 0xcc);
    assert_int_equal(stop.signal, SIGTRAP);
}

/* All registers come to guest code by way of the stub as they do without it. */
static void test_registers_by_way_of_the_stub(void **state)
{
    struct user_regs_struct regs = at(CODE), was;
    struct runner_stop stop;

    for (unsigned n = 0; n < 15; n++)
        (&regs.r15)[n] = 0x1000000 + n;
    regs.eflags |= 0x8d5; /* OF, SF, ZF, AF, PF, CF */
    regs.fs_base = 0x7000;
    regs.gs_base = 0x8000;
    for (unsigned n = 0; n < 2; n++) {
        was = regs;
        RUN(stop, was, 0xcc);
        assert_int_equal(stop.signal, SIGTRAP);
        assert_int_equal(was.rip, CODE + 1);
        was.rip = CODE;
        was.orig_rax = regs.orig_rax;
        assert_memory_equal(&was, &regs, sizeof(regs));
    }
}

/* What cannot be mapped: an error, and guest code has not run. */
static void test_a_mapping_that_fails(void **state)
{
    struct user_regs_struct regs = at(CODE), was = regs;
    struct runner_stop stop;

    regs.orig_rax = was.orig_rax = ~0ULL;
    assert_true(runner_map(&f.r, DATA, 4096, PROT_READ, 5, 0)); /* there is no such file */
    memset(f.ram, 0xcc, 1);
    assert_int_equal(runner_run(&f.r, &regs, &stop), -EFAULT);
    assert_memory_equal(&was, &regs, sizeof(regs));
}

static void *poke_later(void *arg)
{
    while (!atomic_load(&f.all.running))
        sched_yield();
    usleep(20000);
    runner_poke(&f.all);
    return NULL;
}

/* jmp . until another thread has it stopped. */
static void run_until(void *(*other)(void *arg))
{
    struct user_regs_struct regs = at(CODE);
    struct runner_stop stop;
    pthread_t t;

    assert_int_equal(pthread_create(&t, NULL, other, NULL), 0);
    atomic_store(&f.all.running, f.r.pid);
    RUN(stop, regs, 0xeb, 0xfe);
    atomic_store(&f.all.running, 0);
    assert_int_equal(stop.signal, 0);
    assert_int_equal(regs.rip, CODE);
    pthread_join(t, NULL);
}

static void test_a_poke_stops_it(void **state) { run_until(poke_later); }

/* A poke at the same time as a system call must not hide it: RAX counts calls down, and each must be seen. */
static void *poke_often(void *arg)
{
    while (!atomic_load((_Atomic bool *)arg)) {
        runner_poke(&f.all);
        usleep(rand() % 100U);
    }
    return NULL;
}

static void test_pokes_hide_no_system_call(void **state)
{
    struct user_regs_struct regs = at(CODE);
    struct runner_stop stop;
    _Atomic bool end = false;
    unsigned calls = 0, pokes = 0;
    cpu_set_t here, there;
    pthread_t t;

    /* Runner and tracer on two CPUs, where there are two: a poke comes while it is on its way into the kernel. */
    CPU_ZERO(&here);
    CPU_SET(0, &here);
    CPU_ZERO(&there);
    CPU_SET(1, &there);
    sched_setaffinity(f.r.pid, sizeof(there), &there);
    sched_setaffinity(0, sizeof(here), &here);
    assert_int_equal(pthread_create(&t, NULL, poke_often, &end), 0);
    while (calls < 2000) {
        atomic_store(&f.all.running, f.r.pid);
        RUN(stop, regs, 0x48, 0xff, 0xc3, 0x0f, 0x05, 0xeb, 0xf9); /* inc %rbx; syscall; jmp CODE */
        atomic_store(&f.all.running, 0);
        if (stop.signal == SIGSYS) {
            assert_int_equal(regs.rip, CODE + 5);
            assert_int_equal(regs.rbx, ++calls);
        } else {
            assert_int_equal(stop.signal, 0);
            assert_true(regs.rip == CODE || regs.rip == CODE + 3 || (regs.rip == CODE + 5 && regs.rbx == calls));
            pokes++;
        }
    }
    atomic_store(&end, true);
    pthread_join(t, NULL);
    sched_setaffinity(0, sizeof(f.all.may), &f.all.may);
    assert_true(pokes > 0);
}

static void test_vectors_go_both_ways(void **state)
{
    static struct cpu cpu, back; /* not on the stack */
    struct user_regs_struct regs = at(CODE);
    struct state_layout l;
    struct runner_stop stop;
    static uint8_t area[16384] __attribute__((aligned(64)));

    state_layout(&l);
    assert_true(l.size && l.size <= sizeof(area));
    for (unsigned n = 0; n < 32; n++)
        for (unsigned k = 0; k < 64; k++)
            cpu.zmm[n][k] = (uint8_t)(n * 64 + k * 3 + 1);
    for (unsigned n = 0; n < 8; n++)
        cpu.k[n] = n * 0x0101010101010101ULL + 5;
    cpu.mxcsr = 0x1f80;
    cpu.fx.fcw = 0x37f;
    unsigned wide = l.have & XCR0_AVX512 ? 64 : l.have & XCR0_AVX ? 32 : 16, many = wide == 64 ? 32 : 16;
    state_put_vectors(&cpu, &l, area);
    assert_int_equal(runner_put_xstate(&f.r, area, l.size), 0);
    RUN(stop, regs, 0x0f, 0x57, 0xc0, 0xd9, 0xe8, 0xcc); /* xorps %xmm0,%xmm0; fld1; int3 */
    assert_int_equal(stop.signal, SIGTRAP);
    memset(area, 0xee, sizeof(area));
    assert_int_equal(runner_get_xstate(&f.r, area, l.size), 0);
    back.fx.mxcsr_mask = 0xffff;
    state_get_vectors(&back, &l, area);
    memset(cpu.zmm[0], 0, 16);
    for (unsigned n = 0; n < many; n++)
        assert_memory_equal(cpu.zmm[n], back.zmm[n], wide);
    if (wide == 64)
        assert_memory_equal(cpu.k, back.k, sizeof(cpu.k));
    assert_int_equal(back.fx.st[0][9] << 8 | back.fx.st[0][8], 0x3fff); /* 1.0 */
    assert_int_equal(back.fx.fsw >> 11 & 7, 7);
    assert_int_equal(back.mxcsr, 0x1f80);
}

static void test_who_is_killed_is_gone(void **state)
{
    struct user_regs_struct regs = at(CODE);
    struct runner_stop stop;
    static const uint8_t loop[] = { 0xeb, 0xfe };

    memcpy(f.ram, loop, sizeof(loop));
    kill(f.r.pid, SIGKILL);
    assert_true(runner_run(&f.r, &regs, &stop) < 0);
    runner_end(&f.r);
    assert_int_equal(runner_start(&f.r, &f.all), 0); /* the next one */
}

/* Signals from outside are not the guest's. */
static void *signal_later(void *arg)
{
    usleep(20000);
    kill(f.r.pid, SIGTERM);
    kill(f.r.pid, SIGINT);
    usleep(20000);
    runner_poke(&f.all);
    return NULL;
}

static void test_signals_from_outside_do_nothing(void **state) { run_until(signal_later); }

static void put(uint8_t *page, unsigned off, const char *bytes, unsigned n)
{
    memset(page, 0x90, 4096);
    memcpy(page + off, bytes, n);
}

static void test_odd_pages(void **state)
{
    static uint8_t page[4096];
    uint16_t at[5];
    static const struct {
        const char *bytes;
        unsigned n;
        bool plain, cpuid, xcr0;
    } t[] = {
        { "\x0f\xa2", 2, false, true, false },                     /* cpuid */
        { "\x0f\x01\xd0", 3, false, false, true },                 /* xgetbv */
        { "\xf3\x0f\xc7\xf8", 4, true, true, true },               /* rdpid %rax */
        { "\x0f\xc7\xf8", 3, false, false, false },                /* rdseed %eax */
        { "\x0f\x03\xc0", 3, true, true, true },                   /* lsl */
        { "\x0f\x01\xf9", 3, true, true, true },                   /* rdtscp */
        { "\x0f\x01\xc1", 3, true, true, true },                   /* vmcall */
        { "\x0f\x01\xd9", 3, true, true, true },                   /* vmmcall */
        { "\x0f\x01\xfd", 3, true, true, true },                   /* rdpru */
        { "\x0f\x01\xee", 3, false, false, true },                 /* rdpkru */
        { "\x0f\x01\xd6", 3, false, false, false },                /* xtest */
        { "\x0f\xae\xe8\x0f\x31\x0f\x01\xf9", 8, false, false, false }, /* lfence; rdtsc; rdtscp: what a vDSO's build left */
        { "\x0f\x01\x38", 3, false, false, false },                /* invlpg: faults by itself */
        { "\x83\xe0\x0f\x01\xc8", 5, false, false, false },        /* and $15,%eax; add %ecx,%eax */
        { "\x83\xe0\x0f\x03\xc1", 5, false, false, false },        /* and $15,%eax; add %ecx,%eax in its other form */
        { "\x48\xb8\x0f\xa2\x00\x00\x0f\x01\x0f\x03", 10, false, false, false }, /* a constant */
        { "\x0f\x00\xc8", 3, true, true, true },                   /* str %eax */
        { "\x0f\xae\x20", 3, false, false, true },                 /* xsave (%rax) */
        { "\x0f\xc7\x20", 3, false, false, false },                /* xsavec (%rax) */
    };

    for (unsigned n = 0; n < ARRAY_LEN(t); n++)
        for (unsigned off = 123; off < 4096 - 16; off += 123) { /* at a page's beginning nobody knows where instructions begin */
            put(page, off, t[n].bytes, t[n].n);
            assert_int_equal(odd_find(page, NULL, false, false, at, 5), t[n].plain);
            assert_int_equal(odd_find(page, NULL, true, false, at, 5), t[n].cpuid || t[n].plain);
            assert_int_equal(odd_find(page, NULL, false, true, at, 5), t[n].xcr0 || t[n].plain);
            if (t[n].plain)
                assert_int_equal(at[0], off);
        }
}

/* The last byte of a constant in front of it looks like a prefix, and two of eight places say that it is one. */
static void test_odd_instructions_begin_where_most_say(void **state)
{
    static uint8_t page[4096];
    uint16_t at[5];

    put(page, 300, "\x90\x90", 2);
    for (unsigned n = 0; n < 19; n++)
        memcpy(page + 302 + n * 5, "\xb8\x01\x00\x00\x48", 5); /* mov $0x48000001,%eax */
    memcpy(page + 397, "\x0f\xa2", 2);
    assert_int_equal(odd_find(page, NULL, true, false, at, 5), 1);
    assert_int_equal(at[0], 397);
}

/* mov $0xa20f90,%ecx across two pages: its last bytes look like CPUID, and only the page before knows better. */
static void test_the_page_before_tells(void **state)
{
    static uint8_t page[4096], before[4096];
    uint16_t at[5];

    put(page, 0, "\x0f\xa2\x00", 3);
    put(before, 4094, "\xb9\x90", 2);
    assert_int_equal(odd_find(page, NULL, true, false, at, 5), 1);
    assert_true(odd_any(page, NULL, true, false));
    assert_int_equal(odd_find(page, before, true, false, at, 5), 0);
    assert_false(odd_any(page, before, true, false));
    put(before, 4094, "\x90\x90", 2);
    assert_int_equal(odd_find(page, before, true, false, at, 5), 1);
    assert_int_equal(at[0], 0);
}

/* What was found is remembered for these contents, and for this question. */
static void test_answers_are_remembered_by_contents(void **state)
{
    static uint8_t page[4096];

    put(page, 700, "\x0f\xa2", 2);
    for (unsigned n = 0; n < 2; n++) {
        assert_false(odd_any(page, NULL, false, false));
        assert_true(odd_any(page, NULL, true, false));
        assert_false(odd_any(page, NULL, false, true));
    }
    page[700] = 0x90;
    assert_false(odd_any(page, NULL, true, false));
}

static uint64_t certain(const char *code, unsigned n, unsigned from, const uint16_t *at, unsigned places)
{
    static uint8_t page[4096];

    memset(page, 0xcc, sizeof(page));
    memcpy(page, code, n);
    return odd_certain(page, from, at, places);
}

static void test_certain_is_what_code_leads_to(void **state)
{
    static const struct {
        const char *code;
        unsigned n;
        bool certain; /* CPUID at 8 */
    } t[] = {
        { "\x90\x90\x90\x90\x90\x90\x90\x90\x0f\xa2", 10, true },
        { "\x75\x06\xc3\x90\x90\x90\x90\x90\x0f\xa2", 10, true },             /* jne */
        { "\xeb\x06\xc3\x90\x90\x90\x90\x90\x0f\xa2", 10, true },             /* jmp */
        { "\xe8\x03\x00\x00\x00\xc3\x90\x90\x0f\xa2", 10, true },             /* call */
        { "\xe8\x02\x00\x00\x00\x90\x90\xc3\x0f\xa2", 10, false },            /* call to where ret is */
        { "\xc3\x90\x90\x90\x90\x90\x90\x90\x0f\xa2", 10, false },            /* ret */
        { "\xff\xe0\x90\x90\x90\x90\x90\x90\x0f\xa2", 10, false },            /* jmp *%rax */
        { "\xff\xd0\x90\x90\x90\x90\x90\x90\x0f\xa2", 10, true },             /* call *%rax */
        { "\x0f\x0b\x90\x90\x90\x90\x90\x90\x0f\xa2", 10, false },            /* ud2 */
        { "\x90\x90\x90\x90\x90\x90\x90\xb8\x0f\xa2\x00\x00\xc3", 13, false }, /* a constant */
    };
    const uint16_t at = 8;

    for (unsigned n = 0; n < ARRAY_LEN(t); n++)
        assert_int_equal(certain(t[n].code, t[n].n, 0, &at, 1), t[n].certain);
}

/* Branches to themselves and to each other have an end. */
static void test_loops_have_an_end(void **state)
{
    const uint16_t at = 4;

    assert_int_equal(certain("\x75\xfe\xeb\xfc\x0f\xa2", 6, 0, &at, 1), 0);
    assert_int_equal(certain("\x75\xfe\x75\xfc\x0f\xa2", 6, 0, &at, 1), 1);
}

/* On a host that forbids ptrace(2) there are no runners, and nobody waits for one. */
static void test_no_ptrace(void **state)
{
    struct sock_filter code[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_ptrace, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog prog = { ARRAY_LEN(code), code };
    int status, files[RUNNER_FILES];
    pid_t pid = fork();

    if (pid == 0) {
        memset(files, 0xff, sizeof(files));
        alarm(20);
        if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0 || prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &prog) < 0)
            _exit(0);
        int r = runners_init(&f.all, files);
        _exit(r != -EPERM || waitpid(-1, NULL, __WALL) != -1);
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_computes),
        TEST(test_system_calls_stop),
        TEST(test_stops_are_no_signals),
        TEST(test_the_stub_serves_its_tracer_only),
        TEST(test_the_template_may_do_little),
        TEST(test_faults_tell_where),
        TEST(test_it_stops_at_breakpoints),
        TEST(test_steps_onto_breakpoints),
        TEST(test_tsc_plain),
        TEST(test_unmapped_is_gone),
        TEST(test_the_list_has_an_end),
        TEST(test_registers_by_way_of_the_stub),
        TEST(test_a_mapping_that_fails),
        TEST(test_a_poke_stops_it),
        TEST(test_pokes_hide_no_system_call),
        TEST(test_vectors_go_both_ways),
        TEST(test_who_is_killed_is_gone),
        TEST(test_signals_from_outside_do_nothing),
        cmocka_unit_test(test_no_ptrace),
        cmocka_unit_test(test_odd_pages),
        cmocka_unit_test(test_odd_instructions_begin_where_most_say),
        cmocka_unit_test(test_the_page_before_tells),
        cmocka_unit_test(test_answers_are_remembered_by_contents),
        cmocka_unit_test(test_certain_is_what_code_leads_to),
        cmocka_unit_test(test_loops_have_an_end),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
