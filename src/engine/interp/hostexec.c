/* Stub memory, binding, and the host's signals.
 *
 * Stub memory is one memfd mapped twice, writable in one place and executable in the other. It never grows;
 * when it is full the engine drops all decoded instructions and starts again. Signals: an unmasked SIMD
 * exception of the guest arrives as SIGFPE at the stub's instruction; the handler takes MXCSR from the signal
 * frame into the guest and resumes at the stub's fault exit. What is not ours goes to the handler that was
 * there before.
 *
 * Thread: the vCPU's; a thread-local pair tells the signal handler which stub runs. */
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <ucontext.h>
#include <unistd.h>

#include "engine/interp/hostexec.h"

static _Thread_local struct {
    const struct stub *volatile stub; /* running; NULL: none */
    struct cpu *volatile cpu;
} hx_live;

static _Thread_local const uint8_t *(*hx_fault_to)(const void *opaque, uintptr_t pc);
static _Thread_local const void *hx_fault_opaque;

void hostexec_fault_to(const uint8_t *(*fn)(const void *opaque, uintptr_t pc), const void *opaque)
{
    hx_fault_opaque = opaque;
    hx_fault_to = fn;
}

/* Signal dispositions belong to the process, and so does what was there before ours. */
static struct sigaction hx_previous[4];
static pthread_mutex_t hx_install_lock = PTHREAD_MUTEX_INITIALIZER;
static const int hx_signals[4] = { SIGFPE, SIGILL, SIGSEGV, SIGBUS };

static void hx_chain(int sig, siginfo_t *si, void *uc)
{
    const struct sigaction *old = NULL;
    for (unsigned n = 0; n < 4; n++)
        if (hx_signals[n] == sig)
            old = &hx_previous[n];
    if (!old)
        return;
    if (old->sa_flags & SA_SIGINFO)
        old->sa_sigaction(sig, si, uc);
    else if (old->sa_handler != SIG_DFL && old->sa_handler != SIG_IGN)
        old->sa_handler(sig);
    else
        signal(sig, SIG_DFL); /* it happens again, for good */
}

static enum hx_result hx_signal_result(int sig, const struct stub *s, uintptr_t pc)
{
    if (pc == s->pc_insn && sig == SIGFPE)
        return HX_FP_FAULT;
    if (pc == s->pc_insn && sig == SIGILL)
        return HX_ILLEGAL;
    return pc < s->pc_end && (sig == SIGSEGV || sig == SIGBUS) ? HX_BAD_ACCESS : HX_OK;
}

static void hx_on_signal(int sig, siginfo_t *si, void *context)
{
    ucontext_t *uc = context;
    greg_t *g = uc->uc_mcontext.gregs;
    const struct stub *s = hx_live.stub;
    enum hx_result r = HX_OK;
    if (sig == SIGBUS && si->si_code == BUS_ADRERR) { /* never the guest's: a mapped file became shorter */
        hx_chain(sig, si, context);
        return;
    }
    const uint8_t *to = hx_fault_to ? hx_fault_to(hx_fault_opaque, (uintptr_t)g[REG_RIP]) : NULL;
    if (to) {
        g[REG_RIP] = (greg_t)(uintptr_t)to;
        return;
    }
    if (s && (uintptr_t)g[REG_RIP] >= (uintptr_t)s->code)
        r = hx_signal_result(sig, s, (uintptr_t)g[REG_RIP] - (uintptr_t)s->code);
    if (r == HX_OK || !uc->uc_mcontext.fpregs) {
        hx_chain(sig, si, context);
        return;
    }
    if (r == HX_FP_FAULT)
        hx_live.cpu->mxcsr = uc->uc_mcontext.fpregs->mxcsr;
    uc->uc_mcontext.fpregs->mxcsr = HX_MXCSR;
    g[REG_RIP] = (greg_t)((uintptr_t)s->code + s->pc_fault);
    g[REG_RAX] = r;
}

void hostexec_init_signals(void)
{
    struct sigaction sa = { .sa_sigaction = hx_on_signal, .sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER },
                     old;
    sigemptyset(&sa.sa_mask);
    pthread_mutex_lock(&hx_install_lock);
    for (unsigned n = 0; n < 4; n++) {
        if (sigaction(hx_signals[n], NULL, &old) < 0 || old.sa_sigaction == hx_on_signal)
            continue;
        hx_previous[n] = old;
        sigaction(hx_signals[n], &sa, NULL);
    }
    pthread_mutex_unlock(&hx_install_lock);
}

enum hx_result hx_call(struct cpu *cpu, const struct stub *s, void *mem)
{
    unsigned (*fn)(struct cpu *, void *) = (unsigned (*)(struct cpu *, void *))(uintptr_t)s->code;
    hx_live.cpu = cpu;
    hx_live.stub = s;
    enum hx_result r = fn(cpu, mem);
    hx_live.stub = NULL;
    return r;
}

static int hx_memfd(void)
{
#ifdef MFD_EXEC
    int fd = memfd_create("stubs", MFD_CLOEXEC | MFD_EXEC);
    if (fd >= 0)
        return fd;
#endif
    return memfd_create("stubs", MFD_CLOEXEC);
}

static bool hx_map(struct hostexec *hx)
{
    int fd = hx_memfd();
    if (fd < 0)
        return false;
    void *rw = MAP_FAILED, *rx = MAP_FAILED;
    if (ftruncate(fd, HX_BYTES) == 0) {
        rw = mmap(NULL, HX_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
        rx = mmap(NULL, HX_BYTES, PROT_READ | PROT_EXEC, MAP_SHARED, fd, 0);
    }
    close(fd);
    hx->rw = rw == MAP_FAILED ? NULL : rw;
    hx->rx = rx == MAP_FAILED ? NULL : rx;
    return hx->rw && hx->rx;
}

struct hostexec *hostexec_create(void)
{
    struct hostexec *hx = calloc(1, sizeof(*hx));
    if (!hx)
        return NULL;
    hostexec_init_signals();
    if (!hx_map(hx)) {
        hostexec_destroy(hx);
        return NULL;
    }
    hostexec_clear(hx);
    return hx;
}

void hostexec_destroy(struct hostexec *hx)
{
    if (!hx)
        return;
    if (hx->rw)
        munmap(hx->rw, HX_BYTES);
    if (hx->rx)
        munmap(hx->rx, HX_BYTES);
    free(hx);
}

void hostexec_clear(struct hostexec *hx)
{
    memset(hx->hash, 0, sizeof(hx->hash));
    hx->used = 64; /* offset 0 means "none" */
}

void hostexec_rest(struct hostexec *hx)
{
    madvise(hx->rw, HX_BYTES, MADV_REMOVE);
}

static uint32_t hx_hash(const struct hx_code *c)
{
    uint32_t h = 2166136261u ^ c->rename;
    for (unsigned n = 0; n < c->len; n++)
        h = (h ^ c->bytes[n]) * 16777619u;
    return (h ^ h >> 15) % HX_HASH;
}

static const struct stub *hx_find(const struct hostexec *hx, const struct hx_code *c, uint32_t slot)
{
    for (uint32_t at = hx->hash[slot]; at;) {
        const struct stub *s = (const void *)(hx->rx + at);
        if (s->key_len == c->len && s->rename == c->rename && memcmp(s->key, c->bytes, c->len) == 0)
            return s;
        at = s->next;
    }
    return NULL;
}

/* Write a new stub; NULL: no room. */
static const struct stub *hx_make(struct hostexec *hx, const struct cpu *cpu, const struct decoded *d,
                                  const struct hx_class *c, const struct hx_code *hc, uint32_t slot)
{
    uint32_t at = (uint32_t)ALIGN_UP(hx->used, 64);
    if (at + sizeof(struct stub) + 512 > HX_BYTES)
        return NULL;
    struct stub *s = (void *)(hx->rw + at);
    *s = (struct stub){ .c = *c, .fn = hx_handler(c), .next = hx->hash[slot], .rename = hc->rename };
    s->key_len = hc->len;
    memcpy(s->key, hc->bytes, sizeof(s->key));
    unsigned n =
        hx_generate(s, d, hc, hx_vec_width(cpu->cpuid), s->code, HX_BYTES - at - sizeof(struct stub));
    if (!n)
        return NULL;
    hx->used = at + (uint32_t)sizeof(struct stub) + n;
    hx->hash[slot] = at;
    return (const void *)(hx->rx + at);
}

bool hostexec_bind(struct hostexec *hx, struct cpu *cpu, struct insn *i, const struct decoded *d, bool *full)
{
    struct hx_class c;
    struct hx_code hc;
    *full = false;
    if (!hx_allow(cpu->cpuid, d, &c) || !hx_encode(d, &hc))
        return false;
    uint32_t slot = hx_hash(&hc);
    const struct stub *s = hx_find(hx, &hc, slot);
    if (!s)
        s = hx_make(hx, cpu, d, &c, &hc, slot);
    if (!s) {
        *full = true;
        return false;
    }
    if (c.flags & HX_X87) /* the x87 opcode register: SDM vol. 1, 8.1.9 */
        i->sel = (uint16_t)((d->z.opcode & 7u) << 8 | d->raw[d->z.raw.modrm.offset]);
    i->stub = s;
    i->fn = s->fn;
    return true;
}
