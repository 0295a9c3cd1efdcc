/* A program whose output is the same wherever it runs: computing, interrupted by all that makes user code leave the CPU. tests/boot/direct runs it on the host
 * and in a guest whose user code runs by itself. Each line is one kind of event between stretches of computing that are long enough to make a program hot there. */
#define _GNU_SOURCE
#include <cpuid.h>
#include <errno.h>
#include <fcntl.h>
#include <fenv.h>
#include <math.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/sysinfo.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <time.h>
#include <ucontext.h>
#include <unistd.h>

#define ROUNDS 12

/* Whole pages for what follows: the C library's beginning has more CPUID in it than there are breakpoints. */
__asm__(".text 9\n.balign 4096\n.text\n");

static uint64_t now_ns(void)
{
    struct timespec t;

    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

/* Always the same steps, whose number does not depend on the time. */
static uint64_t compute(uint64_t x, unsigned n)
{
    static _Thread_local uint32_t table[4096];

    for (unsigned k = 0; k < n; k++) {
        x = x * 6364136223846793005ULL + 1442695040888963407ULL;
        table[x >> 52] += (uint32_t)x;
        x ^= table[x >> 20 & 4095];
    }
    memset(table, 0, sizeof(table));
    return x;
}

/* For at least 5 ms of CPU time, in steps of a fixed size, whose results do not add up to anything. */
static void warm(void)
{
    static volatile uint64_t sink;
    uint64_t until = now_ns() + 5000000;

    while (now_ns() < until)
        sink = compute(sink, 200000);
    syscall(SYS_getpid); /* what comes next begins by itself: the page of clock_gettime() may not run so */
}

/* Code in a page of its own, with nothing in it that could be a reason to run it elsewhere. */
static void *code_page(const uint8_t *code, size_t n)
{
    void *p = mmap(NULL, 4096, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    if (p == MAP_FAILED)
        exit(1);
    return memcpy(p, code, n);
}

#define CODE(type, ...) ((type)(uintptr_t)code_page((const uint8_t[]){ __VA_ARGS__ }, sizeof((const uint8_t[]){ __VA_ARGS__ })))

static void say(const char *what, uint64_t value) { printf("%s %016llx\n", what, (unsigned long long)value); }

/* -- signals and faults -- */

static volatile uint64_t caught, fault_at, fault_signal;
static volatile int skip;
static atomic_uint ticks;

static void on_fault(int signal, siginfo_t *info, void *context)
{
    ucontext_t *c = context;

    caught++;
    fault_signal = (uint64_t)signal << 16 | (uint32_t)info->si_code;
    fault_at = (uintptr_t)info->si_addr;
    c->uc_mcontext.gregs[REG_RIP] += skip;
    c->uc_mcontext.gregs[REG_EFL] &= ~0x40100LL; /* TF, AC */
}

static void on_tick(int signal) { atomic_fetch_add(&ticks, 1); }

static void handlers(void)
{
    static const int all[] = { SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGTRAP };
    struct sigaction a = { .sa_sigaction = on_fault, .sa_flags = SA_SIGINFO | SA_NODEFER };

    for (unsigned n = 0; n < 5; n++)
        sigaction(all[n], &a, NULL);
    a.sa_handler = on_tick;
    a.sa_flags = SA_RESTART;
    sigaction(SIGALRM, &a, NULL);
}

#define FAULT(name, length, ...)                                              \
    do {                                                                      \
        warm();                                                               \
        skip = length;                                                        \
        fault_signal = 0;                                                     \
        __asm__ volatile(__VA_ARGS__ ::: "rax", "rcx", "rdx", "memory", "cc"); \
        say("fault " name, fault_signal);                                     \
    } while (0)

static void faults(void)
{
    FAULT("ud2", 2, "ud2");
    FAULT("int3", 0, "int3");
    FAULT("int4", 0, "int $4");
    FAULT("hlt", 1, "hlt");
    FAULT("divide", 2, "xor %%ecx,%%ecx\n\txor %%edx,%%edx\n\tmov $1,%%eax\n\tdiv %%ecx");
    FAULT("null", 2, "xor %%ecx,%%ecx\n\tmov (%%rcx),%%al");
    FAULT("kernel", 2, "mov $0xffffffff81000000,%%rcx\n\tmov (%%rcx),%%al");
    FAULT("noncanonical", 2, "mov $0x800000000000,%%rcx\n\tmov (%%rcx),%%al");
    FAULT("step", 0, "pushf\n\torl $0x100,(%%rsp)\n\tpopf\n\tnop\n\tnop");
    FAULT("align", 3, "sub $128,%%rsp\n\tpushf\n\torl $0x40000,(%%rsp)\n\tpopf\n\tlea 1(%%rsp),%%rcx\n\tmov (%%rcx),%%rax\n\tadd $128,%%rsp");
    FAULT("in", 1, "in %%dx,%%al");
    FAULT("cli", 1, "cli");
}

/* In a page of their own: a runner has four breakpoints. */
static __attribute__((noinline, aligned(4096))) void odd_faults(void)
{
    FAULT("step onto odd code", 0, "mov $0x7b,%%ecx\n\tpushf\n\torl $0x100,(%%rsp)\n\tpopf\n\tlsl %%cx,%%eax\n\tnop");
    FAULT("step to odd code", 0, "mov $0x7b,%%ecx\n\tpushf\n\torl $0x100,(%%rsp)\n\tpopf\n\tnop\n\tlsl %%cx,%%eax\n\tnop");
}

/* Selectors that user code loads stay loaded, also behind a system call and a signal. */
static uint64_t selectors(void)
{
    uint64_t ds = 0, es = 0, gs = 0;

    warm();
    __asm__ volatile("mov %0, %%ds" ::"r"(0x2b));
    syscall(SYS_getpid);
    __asm__ volatile("mov %%ds, %0" : "=r"(ds));
    warm();
    skip = 2;
    __asm__ volatile("mov %2, %%es\n\tmov %2, %%gs\n\tud2\n\tmov %%es, %0\n\tmov %%gs, %1" : "=&r"(es), "=&r"(gs) : "r"(0x33));
    __asm__ volatile("mov %0, %%ds\n\tmov %0, %%es\n\tmov %0, %%gs" ::"r"(0));
    return ds | es << 16 | gs << 32;
}

/* Code of 32 bits: a loop, and an instruction that is not one. What it has in EAX, and 48 is DEC there, not a prefix. */
static uint64_t compatibility(void)
{
    uint8_t *p = mmap(NULL, 32768, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_32BIT, -1, 0);
    static const uint8_t in[] = { 0xff, 0x2d, 0, 0, 0, 0 }, /* ljmp *0(%rip) */
        code[] = { 0xb8, 0x78, 0x56, 0x34, 0x12, 0x48, 0xb9, 0x80, 0xf0, 0xfa, 0x02, 0x49, 0x75, 0xfd, 0x0f, 0x0b, 0xea }; /* mov, dec, mov, dec, jnz, ud2, ljmp */
    uint32_t there = (uint32_t)(uintptr_t)p + 16, back = (uint32_t)(uintptr_t)p + 64;
    uint64_t value = 0;

    if (p == MAP_FAILED)
        return 0;
    memcpy(p, in, sizeof(in));
    memcpy(p + 6, &there, 4);
    p[10] = 0x23;
    memcpy(p + 16, code, sizeof(code));
    memcpy(p + 16 + sizeof(code), &back, 4);
    p[16 + sizeof(code) + 4] = 0x33;
    p[64] = 0xc3;
    mprotect(p, 4096, PROT_READ | PROT_EXEC);
    for (unsigned n = 0; n < 3; n++) {
        uint64_t eax = 0;
        warm();
        skip = 2;
        __asm__ volatile("mov %%rsp,%%r12\n\tmov %1,%%rsp\n\tcall *%2\n\tmov %%r12,%%rsp" : "=&a"(eax) : "r"(p + 32768), "r"(p) : "r12", "rcx", "memory", "cc");
        value = value * 31 + (uint32_t)eax + fault_signal;
    }
    munmap(p, 32768);
    return value;
}

/* XSAVE has mask registers where CPUID says that they are. */
static uint64_t saved(void)
{
    static uint8_t area[16384] __attribute__((aligned(64)));
    /* kmovq %rsi,%k3; mov $0x20,%eax; xor %edx,%edx; xsave (%rdi); kxorq %k3,%k3,%k3; ret */
    void (*save)(void *, uint64_t) = CODE(void (*)(void *, uint64_t), 0xc4, 0xe1, 0xfb, 0x92, 0xde, 0xb8, 0x20, 0, 0, 0, 0x31, 0xd2, 0x0f, 0xae, 0x27, 0xc4, 0xe1, 0xe4,
                                          0x47, 0xdb, 0xc3);
    unsigned a, b, c, d;
    uint64_t bad = 0;

    if (!__builtin_cpu_supports("avx512bw"))
        return 0;
    __cpuid_count(0xd, 5, a, b, c, d);
    for (unsigned n = 0; n < ROUNDS && a == 64 && b < sizeof(area) - 64; n++) {
        warm();
        save(area, n + 1);
        bad += area[b + 24] != n + 1;
    }
    return bad;
}

static uint64_t interrupted(void)
{
    struct itimerval often = { { 0, 3000 }, { 0, 3000 } }, never = { { 0, 0 }, { 0, 0 } };
    uint64_t x = 1;

    setitimer(ITIMER_REAL, &often, NULL);
    while (atomic_load(&ticks) < 20)
        x = compute(1, 300000);
    setitimer(ITIMER_REAL, &never, NULL);
    return x;
}

/* -- memory -- */

static uint64_t mappings(void)
{
    uint64_t sum = 0;

    for (unsigned n = 0; n < ROUNDS; n++) {
        uint8_t *p = mmap(NULL, 1 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        warm();
        for (unsigned k = 0; k < 1 << 20; k += 1000)
            p[k] = (uint8_t)(k + n);
        for (unsigned k = 0; k < 1 << 20; k += 500)
            sum = sum * 31 + p[k];
        madvise(p + 65536, 65536, MADV_DONTNEED);
        sum = sum * 31 + p[65536 + 1000 - 65536 % 1000];
        mprotect(p, 4096, PROT_READ);
        skip = 3;
        fault_at = 0;
        __asm__ volatile("movb $7,(%0)" ::"r"(p) : "memory");
        sum = sum * 31 + (fault_at == (uintptr_t)p) + p[0];
        munmap(p, 1 << 20);
    }
    return sum;
}

static uint64_t children(void)
{
    static uint64_t data[8192];
    uint64_t sum = 0;

    for (unsigned n = 0; n < ROUNDS; n++) {
        int status, tube[2];
        uint64_t theirs = 0;
        warm();
        data[n * 500] = n;
        if (pipe(tube) < 0)
            return 0;
        pid_t pid = fork();
        if (pid == 0) {
            warm();
            for (unsigned k = 0; k < 8192; k++)
                data[k] += k;
            theirs = compute(data[n * 500], 100000);
            _exit(write(tube[1], &theirs, 8) != 8);
        }
        warm();
        for (unsigned k = 0; k < 8192; k++)
            data[k] ^= k + n;
        sum += read(tube[0], &theirs, 8) == 8 ? theirs : 1;
        waitpid(pid, &status, 0);
        close(tube[0]);
        close(tube[1]);
        sum = sum * 31 + (uint64_t)status;
    }
    for (unsigned k = 0; k < 8192; k++)
        sum = sum * 31 + data[k];
    return sum;
}

/* Code that is made, run, changed and run again. */
static uint64_t made_code(void)
{
    uint8_t *p = mmap(NULL, 8192, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    uint64_t sum = 0;

    for (unsigned n = 0; n < 3000; n++) {
        unsigned at = n % 7 * 600;
        uint8_t code[] = { 0x48, 0x8d, 0x87, (uint8_t)n, 0x00, 0x00, 0x00, 0xc3 }; /* lea n(%rdi),%rax; ret */
        memcpy(p + at, code, sizeof(code));
        uint64_t (*f)(uint64_t) = (uint64_t(*)(uint64_t))(uintptr_t)(p + at);
        for (unsigned k = 0; k < 50; k++)
            sum = f(sum) * 3;
        if (n % 300 == 0)
            warm();
    }
    munmap(p, 8192);
    return sum;
}

/* -- the rest -- */

static uint64_t calls(void)
{
    uint64_t bad = 0;
    pid_t pid = getpid();

    for (unsigned n = 0; n < 40; n++) {
        warm();
        bad += syscall(SYS_getpid) != pid;
        bad += syscall(5000) != -1 || errno != ENOSYS;
        bad += syscall(335) != -1;
        __asm__ volatile("" ::: "memory");
    }
    return bad;
}

static uint64_t floats(void)
{
    double d = 1, e = 0;
    long double l = 1;

    for (unsigned n = 0; n < ROUNDS; n++) {
        fesetround(n % 2 ? FE_UPWARD : FE_DOWNWARD);
        for (unsigned k = 0; k < 200000; k++) {
            d = d * 1.0000001 + 1e-9 * (double)k;
            e += sqrt(d);
            l = l * 1.0000001L + 1e-9L;
        }
        warm();
        usleep(100);
    }
    fesetround(FE_TONEAREST);
    uint64_t a, b;
    double q = (double)l;
    memcpy(&a, &e, 8);
    memcpy(&b, &q, 8);
    return a ^ b;
}

/* CPUID in the page of a hot loop. */
static __attribute__((noinline, aligned(4096))) uint64_t tsc_and_cpuid(void)
{
    uint64_t bad = 0, last = 0, x = 1;
    unsigned first[4] = { 0 }, a, b, c, d;

    for (unsigned n = 0; n < 2 * ROUNDS; n++) {
        uint64_t t = __builtin_ia32_rdtsc();
        bad += t <= last;
        last = t;
        warm();
        for (unsigned k = 0; k < 1000000; k++)
            x = x * 6364136223846793005ULL + (x >> 40);
        __cpuid_count(0x40000000, 0, a, b, c, d);
        if (n == 0)
            first[0] = a, first[1] = b, first[2] = c, first[3] = d;
        bad += a != first[0] || b != first[1] || c != first[2] || d != first[3];
    }
    return bad ^ x << 32;
}

/* The vDSO: getcpu() has LSL or RDPID in it, next to the clock. */
static uint64_t vdso(void)
{
    uint64_t bad = 0, last = 0;
    int cpus = get_nprocs_conf();

    for (unsigned n = 0; n < 2 * ROUNDS; n++) {
        warm();
        for (unsigned k = 0; k < 200; k++) {
            struct timespec t;
            unsigned cpu = 0;
            clock_gettime(CLOCK_MONOTONIC, &t);
            uint64_t now = (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
            bad += now < last;
            last = now;
            if (k % 8 == 0)
                bad += getcpu(&cpu, NULL) != 0 || (int)cpu >= cpus;
        }
    }
    return bad;
}

/* Who made this CPU, by that code. */
static uint64_t asked(const uint8_t *code)
{
    uint64_t b, c, d, a = 0x40000000;

    __asm__ volatile("call *%4" : "+a"(a), "=b"(b), "=c"(c), "=d"(d) : "r"(code), "2"(0ULL) : "memory", "cc");
    return a ^ b << 16 ^ c << 24 ^ d << 32;
}

/* CPUID at one place after the other of a page that runs, put there by its own code, by another mapping of the page, and by the kernel. */
static uint64_t moving_cpuid(void)
{
    static const uint8_t code[] = { 0x0f, 0xa2, 0xc3 }, plain[] = { 0x90, 0x90, 0xc3 };
    int fd = memfd_create("code", 0), tube[2];
    uint8_t *p = mmap(NULL, 4096, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_SHARED, fd, 0), *alias = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    uint64_t bad = 0, sum = 0;

    if (ftruncate(fd, 4096) < 0 || pipe(tube) < 0)
        return 1;
    memcpy(p, code, sizeof(code));
    uint64_t first = asked(p);
    for (unsigned n = 0; n < 3 * ROUNDS; n++) {
        uint8_t *at = p + n % 5 * 700;
        warm();
        for (unsigned k = 0; k < 40; k++)
            bad += asked(at) != first;
        memcpy(at, plain, sizeof(plain));
        for (unsigned k = 0; k < 40; k++)
            sum += asked(at);
        at = p + (n + 1) % 5 * 700;
        if (n % 3 == 0)
            memcpy(at, code, sizeof(code));
        else if (n % 3 == 1)
            memcpy(alias + (at - p), code, sizeof(code));
        else
            bad += write(tube[1], code, sizeof(code)) < 0 || read(tube[0], at, sizeof(code)) < 0;
    }
    munmap(p, 4096);
    munmap(alias, 4096);
    close(fd);
    return bad + (sum == 0);
}

static uint64_t clock_of(bool kernel)
{
    struct timespec t;

    if (kernel)
        syscall(SYS_clock_gettime, CLOCK_MONOTONIC, &t);
    else
        clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

/* The kernel's clock, the one that the vDSO makes of the TSC, and the TSC as the program itself reads it agree, until something can be read. */
static uint64_t clocks(void)
{
    uint64_t (*tsc)(void) = CODE(uint64_t (*)(void), 0x0f, 0xae, 0xe8, 0x0f, 0x31, 0x48, 0xc1, 0xe2, 0x20, 0x48, 0x09, 0xd0, 0xc3);
    uint64_t first_ns = clock_of(true), first = tsc(), bad = 0;
    struct pollfd in = { .events = POLLIN };
    double rate = 0;

    for (unsigned n = 0; n < 8 * ROUNDS || poll(&in, 1, 0) == 0; n++) {
        if (n == 4 * ROUNDS)
            puts("now pause"); /* and say so */
        uint64_t a = clock_of(false), b = clock_of(true), c = clock_of(false);
        bad += a > b || b > c;
        for (unsigned k = 0; k < 1000; k++, a = b)
            bad += (b = clock_of(false)) < c || b < a;
        warm();
        b = tsc();
        uint64_t ns = clock_of(true);
        bad += ns < a;
        if (n < 4 * ROUNDS)
            rate = (double)(ns - first_ns) / (double)(b - first);
        else
            bad += fabs((double)(b - first) * rate - (double)(ns - first_ns)) > 2e8 + (double)(ns - first_ns) / 100;
    }
    return bad;
}

static _Atomic uint64_t tsc_seen;

/* Of several CPUs, none sees less than another one has seen. */
static void *tsc_reader(void *arg)
{
    /* mov (%rdi),%r8; lfence; rdtsc; shl $32,%rdx; or %rdx,%rax; cmp %r8,%rax; adc $0,%r9; mov %rax,(%rdi); dec %rsi; jnz again */
    uint64_t (*readings)(_Atomic uint64_t *, uint64_t) =
        CODE(uint64_t (*)(_Atomic uint64_t *, uint64_t), 0x45, 0x31, 0xc9, 0x4c, 0x8b, 0x07, 0x0f, 0xae, 0xe8, 0x0f, 0x31, 0x48, 0xc1, 0xe2, 0x20, 0x48, 0x09, 0xd0,
             0x4c, 0x39, 0xc0, 0x49, 0x83, 0xd1, 0x00, 0x48, 0x89, 0x07, 0x48, 0xff, 0xce, 0x75, 0xe2, 0x4c, 0x89, 0xc8, 0xc3);
    uint64_t bad = 0;

    for (unsigned n = 0; n < ROUNDS; n++) {
        warm();
        bad += readings(&tsc_seen, 20000);
    }
    return (void *)(uintptr_t)bad;
}

static uint64_t tsc_everywhere(void)
{
    pthread_t t[2];
    uint64_t bad = 0;
    void *theirs;

    for (unsigned n = 0; n < 2; n++)
        if (pthread_create(&t[n], NULL, tsc_reader, NULL) != 0)
            return 1;
    for (unsigned n = 0; n < 2; n++) {
        pthread_join(t[n], &theirs);
        bad += (uintptr_t)theirs;
    }
    return bad;
}

/* RDTSCP shows the kernel's number of the CPU, here that of the first, or nothing; not one that somebody else has written there. */
static uint64_t tsc_aux(void)
{
    uint32_t (*aux)(void) = CODE(uint32_t (*)(void), 0x0f, 0x01, 0xf9, 0x89, 0xc8, 0xc3);
    uint64_t bad = 0;
    cpu_set_t first, all;

    CPU_ZERO(&first);
    CPU_SET(0, &first);
    sched_getaffinity(0, sizeof(all), &all);
    if (sched_setaffinity(0, sizeof(first), &first) < 0)
        return 0;
    for (unsigned n = 0; n < ROUNDS; n++) {
        warm();
        bad += aux() != 0;
    }
    sched_setaffinity(0, sizeof(all), &all);
    return bad;
}

static atomic_ulong shared_count;

static void *worker(void *arg)
{
    uint64_t x = (uintptr_t)arg;

    for (unsigned n = 0; n < 2 * ROUNDS; n++) {
        x = compute(x, 300000);
        atomic_fetch_add(&shared_count, x & 0xffff);
    }
    return (void *)(uintptr_t)x;
}

static uint64_t threads(void)
{
    pthread_t t[3];
    uint64_t sum = 0;

    for (unsigned n = 0; n < 3; n++)
        if (pthread_create(&t[n], NULL, worker, (void *)(uintptr_t)(n + 1)) != 0)
            return 0;
    for (unsigned n = 0; n < 3; n++) {
        void *x;
        pthread_join(t[n], &x);
        sum = sum * 31 + (uintptr_t)x;
    }
    return sum ^ atomic_load(&shared_count) << 20;
}

int main(void)
{
    setvbuf(stdout, NULL, _IOLBF, 0);
    handlers();
    say("compute", compute(1, 20000000));
    faults();
    odd_faults();
    say("faults", caught);
    say("selectors", selectors());
    say("compatibility", compatibility());
    say("saved", saved());
    say("interrupted", interrupted());
    say("mappings", mappings());
    say("children", children());
    say("made code", made_code());
    say("calls", calls());
    say("floats", floats());
    say("tsc and cpuid", tsc_and_cpuid());
    say("vdso", vdso());
    say("moving cpuid", moving_cpuid());
    say("tsc everywhere", tsc_everywhere());
    say("tsc aux", tsc_aux());
    say("threads", threads());
    say("clocks", clocks());
    puts("end");
    return 0;
}
