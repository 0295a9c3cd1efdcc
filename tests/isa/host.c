/* The real CPU: state goes in and comes out through signal frames, so that no code of ours stands between the
 * sequence and the processor. SIGUSR1's handler replaces its own return context by the sequence's; the fault at the
 * end is a signal whose frame has the result, and whose handler returns to where SIGUSR1 was raised. */
#include <cpuid.h>
#include <errno.h>
#include <semaphore.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <ucontext.h>
#include <unistd.h>

#include "isa.h"

static struct {
    const struct isa_seq *seq;
    struct isa_state *out;
    ucontext_t back;
    uint8_t back_fp[16384];
    size_t fp_size;
    unsigned off_avx, off_k, off_zmmh, off_hi16;
    uint8_t altstack[65536];
} host;

#define FP_MAGIC1 0x46505853u

/* struct _fpx_sw_bytes in the software-reserved bytes of the FXSAVE image. */
struct host_sw {
    uint32_t magic1, extended_size;
    uint64_t features;
    uint32_t xstate_size;
};

static struct host_sw *host_sw_bytes(uint8_t *fp)
{
    return (struct host_sw *)(fp + 464);
}

static void host_put_vectors(uint8_t *fp, const struct isa_state *s)
{
    struct host_sw *sw = host_sw_bytes(fp);
    memset(fp + 32, 0, 128);
    memcpy(fp + 0, &s->fcw, 2);
    memcpy(fp + 2, &s->fsw, 2);
    fp[4] = s->ftw;
    memset(fp + 6, 0, 18);
    memcpy(fp + 24, &s->mxcsr, 4);
    for (int n = 0; n < 8; n++)
        memcpy(fp + 32 + 16 * n, s->st[n], 10);
    for (int n = 0; n < 16; n++)
        memcpy(fp + 160 + 16 * n, s->zmm[n], 16);
    if (sw->magic1 != FP_MAGIC1)
        return;
    uint64_t bv = sw->features & 0xe7;
    memcpy(fp + 512, &bv, 8);
    memset(fp + 520, 0, 56);
    for (int n = 0; n < 16; n++) {
        if (bv & 4)
            memcpy(fp + host.off_avx + 16 * n, s->zmm[n] + 16, 16);
        if (bv & 0x40)
            memcpy(fp + host.off_zmmh + 32 * n, s->zmm[n] + 32, 32);
        if (bv & 0x80)
            memcpy(fp + host.off_hi16 + 64 * n, s->zmm[16 + n], 64);
    }
    if (bv & 0x20)
        memcpy(fp + host.off_k, s->k, 64);
}

static void host_get_vectors(const uint8_t *fp, struct isa_state *s)
{
    uint64_t bv;
    memcpy(&bv, fp + 512, 8);
    if (host_sw_bytes((uint8_t *)fp)->magic1 != FP_MAGIC1)
        bv = 3;
    memset(s->zmm, 0, sizeof(s->zmm));
    memset(s->k, 0, sizeof(s->k));
    memset(s->st, 0, sizeof(s->st));
    s->fcw = 0x37f;
    s->fsw = 0;
    s->ftw = 0;
    memcpy(&s->mxcsr, fp + 24, 4);
    if (bv & 1) {
        memcpy(&s->fcw, fp, 2);
        memcpy(&s->fsw, fp + 2, 2);
        s->ftw = fp[4];
        for (int n = 0; n < 8; n++)
            memcpy(s->st[n], fp + 32 + 16 * n, 10);
    }
    for (int n = 0; n < 16; n++) {
        if (bv & 2)
            memcpy(s->zmm[n], fp + 160 + 16 * n, 16);
        if (bv & 4)
            memcpy(s->zmm[n] + 16, fp + host.off_avx + 16 * n, 16);
        if (bv & 0x40)
            memcpy(s->zmm[n] + 32, fp + host.off_zmmh + 32 * n, 32);
        if (bv & 0x80)
            memcpy(s->zmm[16 + n], fp + host.off_hi16 + 64 * n, 64);
    }
    if (bv & 0x20)
        memcpy(s->k, fp + host.off_k, 64);
}

/* ucontext's order of r8..r15, rdi, rsi, rbp, rbx, rdx, rax, rcx, rsp. */
static const int host_greg[16] = { REG_RAX, REG_RCX, REG_RDX, REG_RBX, REG_RSP, REG_RBP, REG_RSI, REG_RDI,
                                   REG_R8,  REG_R9,  REG_R10, REG_R11, REG_R12, REG_R13, REG_R14, REG_R15 };

#define HOST_FLAGS 0xcd5u /* CF PF AF ZF SF DF OF */
#define HOST_AC    0x40000u

static void host_start(int sig, siginfo_t *si, void *ctx)
{
    ucontext_t *uc = ctx;
    const struct isa_state *s = &host.seq->in;
    uint8_t *fp = (uint8_t *)uc->uc_mcontext.fpregs;
    (void)sig;
    (void)si;
    struct host_sw *sw = host_sw_bytes(fp);
    host.fp_size = sw->magic1 == FP_MAGIC1 ? sw->extended_size : 512;
    memcpy(&host.back, uc, sizeof(*uc));
    if (host.fp_size <= sizeof(host.back_fp))
        memcpy(host.back_fp, fp, host.fp_size);
    for (int n = 0; n < 16; n++)
        uc->uc_mcontext.gregs[host_greg[n]] = (long long)s->r[n];
    uc->uc_mcontext.gregs[REG_RIP] = (long long)s->rip;
    uc->uc_mcontext.gregs[REG_EFL] = (long long)((s->rflags & (HOST_FLAGS | HOST_AC)) | 0x202);
    /* 0x33 and 0x23 are Linux' 64- and 32-bit user code segments. */
    uint64_t segs = (uint64_t)uc->uc_mcontext.gregs[REG_CSGSFS] & ~0xffffULL;
    uc->uc_mcontext.gregs[REG_CSGSFS] = (long long)(segs | (host.seq->code32 ? 0x23 : 0x33));
    host_put_vectors(fp, s);
}

static void host_end(int sig, siginfo_t *si, void *ctx)
{
    __builtin_ia32_writeeflags_u64(__builtin_ia32_readeflags_u64() & ~(uint64_t)HOST_AC); /* Linux leaves it set */
    ucontext_t *uc = ctx;
    struct isa_state *s = host.out;
    uint8_t *fp = (uint8_t *)uc->uc_mcontext.fpregs;
    (void)si;
    if (!host.seq) {
        signal(sig, SIG_DFL); /* a fault of the test program itself */
        return;
    }
    for (int n = 0; n < 16; n++)
        s->r[n] = (uint64_t)uc->uc_mcontext.gregs[host_greg[n]];
    s->rip = (uint64_t)uc->uc_mcontext.gregs[REG_RIP];
    s->rflags = (uint64_t)uc->uc_mcontext.gregs[REG_EFL] & HOST_FLAGS;
    s->vector = (unsigned)uc->uc_mcontext.gregs[REG_TRAPNO];
    s->error = (uint64_t)uc->uc_mcontext.gregs[REG_ERR];
    s->cr2 = s->vector == 14 ? (uint64_t)uc->uc_mcontext.gregs[REG_CR2] : 0;
    host_get_vectors(fp, s);
    struct _libc_fpstate *mine = uc->uc_mcontext.fpregs;
    memcpy(fp, host.back_fp, host.fp_size);
    sigset_t mask = uc->uc_sigmask;
    memcpy(&uc->uc_mcontext.gregs, &host.back.uc_mcontext.gregs, sizeof(uc->uc_mcontext.gregs));
    uc->uc_mcontext.fpregs = mine;
    uc->uc_sigmask = mask;
    host.seq = NULL;
}

static unsigned host_xsave_offset(unsigned component)
{
    unsigned a, b, c, d;
    __cpuid_count(0xd, component, a, b, c, d);
    return b;
}

static int host_map(uint64_t at, uint64_t size, int prot)
{
    void *p = mmap((void *)at, size, prot, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
    return p == (void *)at ? 0 : -errno;
}

static int host_prepare(void)
{
    if (host_map(ISA_CODE, ISA_CODE_SIZE, PROT_READ | PROT_WRITE | PROT_EXEC) ||
        host_map(ISA_DATA, ISA_DATA_SIZE, PROT_READ | PROT_WRITE) || host_map(ISA_RO, ISA_RO_SIZE, PROT_READ) ||
        host_map(ISA_COUNT, ISA_COUNT_SIZE, PROT_READ | PROT_WRITE))
        return -1;
    host.off_avx = host_xsave_offset(2);
    host.off_k = host_xsave_offset(5);
    host.off_zmmh = host_xsave_offset(6);
    host.off_hi16 = host_xsave_offset(7);
    /* 32-bit code needs DS and ES; Linux leaves them null in a 64-bit process. The read-only page is made present. */
    __asm__ volatile("mov %0, %%ds\n\tmov %0, %%es" : : "r"(0x2b));
    (void)*(volatile uint8_t *)ISA_RO;
    stack_t ss = { .ss_sp = host.altstack, .ss_size = sizeof(host.altstack) };
    sigaltstack(&ss, NULL);
    static const int ends[] = { SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGTRAP };
    struct sigaction sa = { .sa_sigaction = host_start, .sa_flags = SA_SIGINFO | SA_ONSTACK };
    sigfillset(&sa.sa_mask);
    sigaction(SIGUSR1, &sa, NULL);
    sa.sa_sigaction = host_end;
    for (unsigned n = 0; n < sizeof(ends) / sizeof(ends[0]); n++)
        sigaction(ends[n], &sa, NULL);
    return 0;
}

/* The rights of the data pages, whose contents are written before. */
static void host_rights(const struct isa_seq *s, bool all)
{
    static const int prot[] = { PROT_READ | PROT_WRITE, PROT_READ, PROT_NONE };
    for (unsigned n = 0; n < ISA_PAGES; n++)
        if (s->rights[n] != ISA_RW)
            mprotect((void *)(ISA_DATA + n * 0x1000), 0x1000, prot[all ? ISA_RW : s->rights[n]]);
}

static void host_execute(const struct isa_seq *s, struct isa_state *out, uint8_t *data)
{
    memcpy((void *)s->at, s->code, s->len);
    memcpy((void *)ISA_DATA, s->data, ISA_DATA_SIZE);
    *(volatile uint32_t *)ISA_COUNT = s->loops;
    memset(out, 0, sizeof(*out));
    host_rights(s, false);
    host.seq = s;
    host.out = out;
    raise(SIGUSR1);
    host_rights(s, true);
    memcpy(data, (void *)ISA_DATA, ISA_DATA_SIZE);
}

/* Sequences run in a process of their own: what else this one maps (an engine's tables take TiBs) would catch their
 * wild addresses. */
static struct host_peer {
    sem_t go, done;
    int status; /* of host_prepare() */
    struct isa_seq seq;
    struct isa_state out;
    uint8_t data[ISA_DATA_SIZE];
} *peer;

static _Noreturn void host_serve(void)
{
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    peer->status = host_prepare();
    for (;;) {
        sem_post(&peer->done);
        while (sem_wait(&peer->go) < 0) {
        }
        host_execute(&peer->seq, &peer->out, peer->data);
    }
}

int host_init(void)
{
    void *p = mmap(NULL, sizeof(*peer), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED)
        return -1;
    peer = p;
    sem_init(&peer->go, 1, 0);
    sem_init(&peer->done, 1, 0);
    pid_t pid = fork();
    if (pid == 0)
        host_serve();
    if (pid < 0)
        return -1;
    sem_wait(&peer->done);
    return peer->status;
}

void host_run(const struct isa_seq *s, struct isa_state *out, uint8_t *data)
{
    peer->seq = *s;
    sem_post(&peer->go);
    sem_wait(&peer->done);
    *out = peer->out;
    memcpy(data, peer->data, ISA_DATA_SIZE);
}

/* Does this one-byte instruction, followed by INT3, get there? */
static bool host_probe(uint8_t insn, bool code32, uint64_t rsp, struct isa_state *out)
{
    static struct isa_seq s;
    static uint8_t data[ISA_DATA_SIZE];
    s = (struct isa_seq){ .code = { insn, 0xcc }, .len = 2, .at = ISA_CODE, .code32 = code32, .loops = 1 };
    s.in.rip = s.at;
    s.in.r[4] = rsp;
    s.in.mxcsr = 0x1f80;
    s.in.fcw = 0x37f;
    host_run(&s, out, data);
    return out->vector == 3;
}

bool host_runs_code32(void)
{
    static struct isa_state out;
    return host_probe(0x40 /* inc eax */, true, 0, &out) && out.r[0] == 1;
}

bool host_runs_wild_rsp(void)
{
    static struct isa_state out;
    return host_probe(0x90, false, 1ULL << 60, &out);
}
