/* When and how user code runs in a runner. See direct.h. */
#include "engine/direct/direct.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

#include "base/clock.h"
#include "base/log.h"
#include "engine/direct/odd.h"
#include "engine/direct/space.h"
#include "engine/direct/state.h"
#include "ram/move.h"
#include "ram/share.h"
#include "x86/debug.h"
#include "x86/mmu.h"

#define DIRECT_SPACES 6
#define DIRECT_PRICE  40000   /* ns: a stop and the way back, at first; 7 us on some hosts, 45 on others */
#define DIRECT_BEGIN  6000000 /* ns on the account from which on a space runs here, at first */
#define DIRECT_TRIAL  3000000 /* ns: what it may lose here before it has to go */
#define DIRECT_BAR    500000000 /* and where that ends, if it never pays */
#define DIRECT_MOST   4000000 /* ns: an account holds no more, so that it is closed in time */
#define DIRECT_SWITCH 6000    /* ns: what a stop costs that is in no thread's time, or in the runner's */
#define DIRECT_WITHIN 200     /* instructions that are interpreted to leave a page that must not run here; else it costs: */
#define DIRECT_DECLINED 500000 /* ns */
#define DIRECT_JOINED 20000000 /* ns: the thread and its runners stay on one CPU, until the host may choose again */
#define DIRECT_TICK   4000000 /* ns: longer than this no stretch of user code counts, it may have slept */

#define DIRECT_NEAR 0x10000ULL /* bytes whose memory is moved together */

#define VSYSCALL_PAGE 0xffffffffff600000ULL
#define UNSEEN_SYSCALL 335 /* uretprobe(2), which newer kernels show to no filter */

struct direct_space {
    struct space space;
    uint8_t *area;      /* the runner's vector registers, as far as we know */
    bool known;         /* we do */
    bool hot;
    int64_t account;    /* ns, */
    int64_t bar;        /* and from how much on it runs here */
    uint64_t ran;       /* runner_ns() */
    uint64_t cr3, used;
    uint64_t missing;   /* an address that the guest's page tables did not allow; 0: none. They may soon. */
    uint64_t mapped[2]; /* address and RIP of the last fault after which something was mapped */
    uint64_t declined;  /* direct_entries() when it could not run here */
};

struct direct {
    struct vcpu *vcpu;
    struct runners runners;
    struct state_layout layout;
    struct space_rules rules;
    struct direct_space space[DIRECT_SPACES];
    struct direct_space *now; /* the one that was looked at last */
    uint64_t clock;           /* counts looks, for `used` */
    uint64_t seen_ns, seen_entries, seen_halts;
    uint64_t joined;          /* ns: since then on one CPU */
    uint64_t since;           /* ns of this thread: until then all is paid for */
    uint64_t price;           /* ns: what a stop and the way back have cost lately */
    uint64_t calls;           /* system calls and the like that were made here */
};

/* -- life -- */

struct direct *direct_create(struct vcpu *v)
{
    int files[RUNNER_FILES], any = 0;
    const struct ram *ram = v->cpu.ram;
    uint64_t off;

    for (unsigned n = 0; n < RUNNER_FILES; n++) {
        files[n] = n < ram->nslots ? ram_shared_fd(&ram->slot[n], &off) : -1;
        any |= files[n] >= 0;
    }
    struct direct *d = any ? calloc(1, sizeof(*d)) : NULL;
    if (!d)
        return NULL;
    d->vcpu = v;
    d->price = DIRECT_PRICE;
    state_layout(&d->layout);
    if (d->layout.size > STATE_MAX || !state_layout_shown(&d->layout, v->cpu.cpuid) || runner_init_signal() < 0 || runners_init(&d->runners, files) < 0) {
        free(d);
        return NULL;
    }
    d->rules = (struct space_rules){ .cpuid = !d->runners.cpuid_faults, .xcr0 = !d->layout.same_xcr0 };
    runner_thread(&d->runners);
    if (cpu_tsc_is_host(&v->cpu))
        runners_set_tsc(&d->runners, true);
    for (unsigned n = 0; n < DIRECT_SPACES; n++)
        d->space[n].cr3 = ~0ULL;
    return d;
}

int direct_probe(bool *cpuid_faults)
{
    int files[RUNNER_FILES];
    struct runners all;

    memset(files, 0xff, sizeof(files));
    int r = runners_init(&all, files);
    *cpuid_faults = r == 0 && all.cpuid_faults;
    if (r == 0)
        runners_fini(&all);
    return r;
}

static void direct_close(struct direct_space *s)
{
    if (s->area) {
        space_fini(&s->space);
        free(s->area);
    }
    *s = (struct direct_space){ .cr3 = ~0ULL };
}

void direct_destroy(struct direct *d)
{
    if (!d)
        return;
    for (unsigned n = 0; n < DIRECT_SPACES; n++)
        direct_close(&d->space[n]);
    runners_fini(&d->runners);
    free(d);
}

/* -- which space, and its account -- */

static uint64_t direct_entries(const struct direct *d, uint64_t syscalls)
{
    const struct engine_stats *s = &d->vcpu->stats;

    return s->faults + s->interrupts + syscalls + d->calls;
}

/* One that has no runner, or else the one that was used longest ago. */
static struct direct_space *direct_victim(struct direct *d)
{
    struct direct_space *best = &d->space[0];

    for (unsigned n = 1; n < DIRECT_SPACES; n++) {
        struct direct_space *s = &d->space[n];
        if (s->hot < best->hot || (s->hot == best->hot && s->used < best->used))
            best = s;
    }
    return best;
}

static struct direct_space *direct_find(struct direct *d, uint64_t cr3)
{
    if (d->now && d->now->cr3 == cr3)
        return d->now;
    for (unsigned n = 0; n < DIRECT_SPACES; n++)
        if (d->space[n].cr3 == cr3)
            return d->now = &d->space[n];
    return NULL;
}

bool direct_hot(const struct direct *d, const struct cpu *cpu)
{
    return d->now && d->now->cr3 == cpu->cr3 && d->now->hot;
}

static bool direct_open(struct direct *d, struct direct_space *s)
{
    if (!s->area) {
        s->area = aligned_alloc(64, (d->layout.size + 63) & ~63UL);
        if (!s->area || space_init(&s->space, &d->runners, d->vcpu->cpu.ram) < 0) {
            free(s->area);
            s->area = NULL;
            return false;
        }
        memset(s->area, 0, d->layout.size);
        s->space.cr3 = s->cr3;
    }
    s->account = DIRECT_TRIAL;
    s->hot = true;
    return true;
}

/* Who ran here and spent more than he earned needs twice as much the next time. */
static void direct_pay(struct direct_space *s, int64_t ns)
{
    int64_t most = s->hot ? DIRECT_MOST : s->bar;

    s->account += ns;
    if (s->account >= most) {
        s->account = most;
        s->bar = s->hot ? DIRECT_BEGIN : s->bar;
    }
    if (s->account > 0)
        return;
    s->account = 0;
    if (s->hot && s->bar < DIRECT_BAR)
        s->bar *= 2;
    s->hot = false;
}

bool direct_wants(struct direct *d, struct cpu *cpu, uint64_t syscalls)
{
    uint64_t now = clock_host_ns(CLOCK_MONOTONIC), entries = direct_entries(d, syscalls), past = now - d->seen_ns, ways = entries - d->seen_entries;
    bool slept = d->vcpu->stats.halts != d->seen_halts, same = d->now && d->now->cr3 == cpu->cr3;
    struct direct_space *s = direct_find(d, cpu->cr3);

    d->seen_ns = now;
    d->seen_entries = entries;
    d->seen_halts = d->vcpu->stats.halts;
    if (!s) {
        s = d->now = direct_victim(d);
        direct_close(s);
        s->cr3 = cpu->cr3;
        s->declined = ~0ULL;
        s->bar = DIRECT_BEGIN;
    }
    s->used = ++d->clock;
    if (!s->hot && same && !slept && past < DIRECT_TICK * 2)
        direct_pay(s, (int64_t)past - (int64_t)(ways * d->price));
    if (!s->hot && s->account >= s->bar && !direct_open(d, s))
        s->account = 0;
    if (d->runners.joined && (!s->hot || now - d->joined > DIRECT_JOINED))
        runner_part(&d->runners);
    if (!d->runners.joined)
        d->joined = now;
    return s->hot && s->declined != entries;
}

/* -- what stopped it -- */

enum direct_next { NEXT_GO, NEXT_STEP, NEXT_LEAVE, NEXT_DECLINE, NEXT_TRAP };

/* The two bytes in front of RIP, or 0. */
static unsigned direct_before(struct cpu *cpu, uint64_t rip)
{
    uint8_t b[2] = { 0, 0 };

    for (unsigned n = 0; n < 2; n++) {
        uint64_t at = rip - 2 + n;
        struct mmu_look look = rip > 0x10000 && rip < RUNNER_TOP ? mmu_look(cpu, at) : (struct mmu_look){ 0 };
        if (look.readable)
            ram_read(cpu->ram, mmu_look_page(&look, at) | PAGE_OFFSET(at), &b[n], 1);
    }
    return (unsigned)b[0] << 8 | b[1];
}

static bool direct_is_call(unsigned before) { return before == 0x0f05 || before == 0x0f34 || before == 0xcd80; }

/* A system call: back to it. Calls into the vsyscall page were taken for one by the host's kernel, which has returned from there. */
static enum direct_next direct_call(struct direct *d, struct cpu *cpu, struct user_regs_struct *regs, const siginfo_t *info)
{
    static const int vsyscalls[] = { 96, 201, 309 };

    d->calls++;
    if (direct_is_call(direct_before(cpu, regs->rip))) {
        regs->rip -= 2;
        return NEXT_STEP;
    }
    for (unsigned n = 0; n < 3; n++)
        if (info->si_syscall == vsyscalls[n]) {
            regs->rip = VSYSCALL_PAGE + n * 0x400ULL;
            regs->rsp -= 8;
        }
    return NEXT_STEP;
}

/* That there is an instruction in the guest's code at rip that would show the host's CPU. */
static void direct_note_odd(struct cpu *cpu, uint64_t rip)
{
    struct mmu_look look = mmu_look(cpu, rip);
    const uint8_t *page = look.executable ? ram_borrow(cpu->ram, mmu_look_page(&look, rip), PAGE_SIZE) : NULL;

    if (page)
        odd_note(page, rip & (PAGE_SIZE - 1));
}

void direct_identified(const struct direct *d, struct cpu *cpu)
{
    if (cpu->code_size == 8 && (d->rules.cpuid || d->rules.xcr0))
        direct_note_odd(cpu, cpu->start_rip);
}

static enum direct_next direct_trap(struct direct *d, struct cpu *cpu, struct user_regs_struct *regs, const siginfo_t *info)
{
    if (info->si_code == TRAP_HWBKPT) { /* in front of an odd instruction; a single step that ends there is TRAP_TRACE */
        d->vcpu->stats.direct_odd++;
        direct_note_odd(cpu, regs->rip);
        return NEXT_STEP;
    }
    if (regs->eflags & FL_TF && info->si_code != SI_KERNEL)
        return NEXT_TRAP;
    unsigned before = direct_before(cpu, regs->rip);
    if (before == 0xcd03)
        regs->rip--;
    else if ((before & 0xff) != 0xcc && info->si_code == SI_KERNEL)
        d->vcpu->stats.direct_odd++; /* in a copy, space_break() */
    regs->rip--; /* INT3, INT1 */
    return NEXT_STEP;
}

/* It is about to execute a page with odd instructions. Nobody decodes the page if it can run here; but it is code, whose stores are told of. */
static enum direct_next direct_break(struct direct *d, struct direct_space *s, struct cpu *cpu, uint64_t lin)
{
    struct mmu_look look = mmu_look(cpu, lin);

    cache_mark(d->vcpu, mmu_look_page(&look, lin), PAGE_SIZE);
    return space_break(&s->space, cpu, &d->rules, lin) ? NEXT_GO : NEXT_DECLINE;
}

/* Pages at lin and near it whose memory is a file's get a place where runners can map them. */
static void direct_move(struct direct *d, struct cpu *cpu, uint64_t lin)
{
    uint64_t at = lin & ~(DIRECT_NEAR - 1), end = at + DIRECT_NEAR;
    bool stand = false;

    if (!cpu->ram->moves || lin >= RUNNER_TOP)
        return;
    for (; at < end; at += PAGE_SIZE) {
        struct mmu_look look = mmu_look(cpu, at);
        uint64_t gpa = mmu_look_page(&look, at);
        struct ram_slot *s = look.readable ? ram_slot_seen(cpu->ram, &gpa) : NULL;

        if (!s || !ram_may_move(s, gpa - s->gpa))
            continue;
        if (!stand)
            quiesce_begin(d->vcpu);
        stand = true;
        if (ram_may_move(s, gpa - s->gpa) && ram_move(cpu->ram, s, gpa - s->gpa) == 0)
            d->vcpu->stats.direct_moves++;
    }
    if (stand)
        quiesce_end(d->vcpu);
}

/* Something was mapped for it. Should the same fault come once more, the interpreter does the instruction: it must go on in any case. */
static enum direct_next direct_mapped(struct direct_space *s, uint64_t lin, uint64_t rip)
{
    bool again = s->mapped[0] == lin && s->mapped[1] == rip;

    s->mapped[0] = again ? 0 : lin;
    s->mapped[1] = rip;
    return again ? NEXT_STEP : NEXT_GO;
}

static enum direct_next direct_memory(struct direct *d, struct direct_space *s, struct cpu *cpu, struct user_regs_struct *regs, const siginfo_t *info)
{
    if (info->si_code == SI_KERNEL) { /* #GP, or a trap: INT 4 */
        regs->rip -= direct_before(cpu, regs->rip) == 0xcd04 ? 2 : 0;
        return NEXT_STEP;
    }
    direct_move(d, cpu, (uintptr_t)info->si_addr);
    switch (space_fault(&s->space, cpu, &d->rules, (uintptr_t)info->si_addr, regs->rip)) {
    case SPACE_MAPPED: return direct_mapped(s, (uintptr_t)info->si_addr, regs->rip);
    case SPACE_ODD: return direct_break(d, s, cpu, (uintptr_t)info->si_addr);
    default: s->missing = (uintptr_t)info->si_addr; return NEXT_STEP;
    }
}

static enum direct_next direct_stopped(struct direct *d, struct direct_space *s, struct cpu *cpu, struct user_regs_struct *regs,
                                       const struct runner_stop *stop)
{
    switch (stop->signal) {
    case 0:
        return NEXT_LEAVE;
    case SIGSYS:
        return direct_call(d, cpu, regs, &stop->info);
    case SIGSEGV:
        return direct_memory(d, s, cpu, regs, &stop->info);
    case SIGTRAP:
        return direct_trap(d, cpu, regs, &stop->info);
    case SIGILL:
        if (direct_before(cpu, regs->rip) == 0x0f05 && regs->rcx == regs->rip) {
            regs->rip -= 2;
            regs->rax = UNSEEN_SYSCALL;
        }
        return NEXT_STEP;
    default:
        return NEXT_STEP;
    }
}

/* -- running -- */

/* The guest has nothing where the stub is. */
static bool direct_no_stub(const struct cpu *cpu)
{
    uint64_t entry = 1, gpa = (cpu->cr3 & 0x000ffffffffff000ULL) + (RUNNER_STUB / RUNNER_SLOT) * 8;

    return ram_read(cpu->ram, gpa, &entry, 8) == 0 && !(entry & 1);
}

/* Its registers are gone, and so is the guest. */
static void direct_lost(struct direct *d, struct direct_space *s, struct cpu *cpu)
{
    log_msg(LOG_ERROR, "vCPU %u: a process that ran its code was ended from outside; the guest cannot go on", cpu->index);
    direct_close(s);
    d->now = NULL;
    cpu->activity = CPU_SHUTDOWN;
    cpu_attention(cpu, ATT_EXIT);
}

static int direct_put(struct direct *d, struct direct_space *s, const struct cpu *cpu, struct user_regs_struct *regs)
{
    uint8_t area[STATE_MAX] __attribute__((aligned(64)));

    state_put_regs(cpu, regs);
    memcpy(area, s->area, d->layout.size);
    state_put_vectors(cpu, &d->layout, area);
    if (s->known && !memcmp(area, s->area, d->layout.size))
        return 0;
    memcpy(s->area, area, d->layout.size);
    s->known = true;
    return runner_put_xstate(&s->space.runner, s->area, d->layout.size);
}

static int direct_get(struct direct *d, struct direct_space *s, struct cpu *cpu, const struct user_regs_struct *regs)
{
    int r = runner_get_xstate(&s->space.runner, s->area, d->layout.size);

    if (r == 0)
        state_get_vectors(cpu, &d->layout, s->area);
    state_get_regs(cpu, regs);
    return r;
}

/* Whether runners read the TSC by themselves has to change: all of them go. Where that fails it is tried again, and none runs until then. */
static void direct_switch_tsc(struct direct *d, bool plain)
{
    for (unsigned n = 0; n < DIRECT_SPACES; n++)
        direct_close(&d->space[n]);
    d->now = NULL;
    runners_set_tsc(&d->runners, plain);
}

/* Pay for what has happened since the last time: the runner ran, and this thread's time is what it cost (what passed besides is a busy host's: both wait for their turn). */
static void direct_settle(struct direct *d, struct direct_space *s, uint64_t ran)
{
    uint64_t now = clock_host_ns(CLOCK_THREAD_CPUTIME_ID), cost = now - d->since + DIRECT_SWITCH;

    d->since = now;
    d->price += ((int64_t)(cost < DIRECT_BEGIN ? cost : DIRECT_BEGIN) - (int64_t)d->price) / 16;
    direct_pay(s, (int64_t)ran - (int64_t)cost);
}

/* It did not run: with its registers, it goes on elsewhere; or it is gone. */
static void direct_broken(struct direct *d, struct direct_space *s, struct cpu *cpu, const struct user_regs_struct *regs, int error)
{
    if (error == -ESRCH || direct_get(d, s, cpu, regs) < 0) {
        direct_lost(d, s, cpu);
        return;
    }
    direct_close(s);
    d->now = NULL;
    state_get_segments(cpu, regs);
}

/* One stretch: from regs to the next stop. */
static int direct_stretch(struct direct *d, struct direct_space *s, struct cpu *cpu, struct user_regs_struct *regs, struct runner_stop *stop)
{
    uint64_t before = s->ran;
    int r = 0;

    stop->signal = 0;
    atomic_store(&d->runners.running, s->space.runner.pid);
    if (!atomic_load(&cpu->attention))
        r = runner_run(&s->space.runner, regs, stop);
    atomic_store(&d->runners.running, 0);
    s->ran = runner_ns(&s->space.runner);
    d->vcpu->stats.direct_stops++;
    d->vcpu->elsewhere_ns += s->ran - before;
    direct_settle(d, s, s->ran - before);
    return r;
}

/* Code in a page that must not run there: it may be left soon. False: it was not, the translator is better at it. */
static bool direct_within(struct interp *it, struct cpu *cpu)
{
    uint64_t page = cpu->r[R_RIP] >> PAGE_SHIFT;

    for (unsigned n = 0; n < DIRECT_WITHIN; n++) {
        interp_step(it, cpu);
        if (cpu->r[R_RIP] >> PAGE_SHIFT != page || cpu->cpl != 3 || interp_special(it, cpu))
            return true;
    }
    return false;
}

/* What is left to do when it has stopped. *more: it may run again from *regs. */
static void direct_after(struct direct *d, struct direct_space *s, struct interp *it, struct cpu *cpu, struct user_regs_struct *regs, enum direct_next next,
                         bool *more)
{
    *more = false;
    if (direct_get(d, s, cpu, regs) < 0) {
        direct_lost(d, s, cpu);
        return;
    }
    state_get_segments(cpu, regs);
    if (next == NEXT_TRAP)
        debug_after(cpu, true);
    if (next == NEXT_STEP)
        interp_step(it, cpu);
    if (next == NEXT_DECLINE && !direct_within(it, cpu)) {
        s->declined = d->seen_entries;
        direct_pay(s, -DIRECT_DECLINED);
        return;
    }
    if (next == NEXT_LEAVE || !s->hot || cpu->cpl != 3 || cpu->cr3 != s->cr3 || interp_special(it, cpu) || !state_fits(cpu, &d->layout))
        return;
    *more = direct_put(d, s, cpu, regs) == 0;
}

bool direct_run(struct direct *d, struct interp *it, struct cpu *cpu)
{
    struct direct_space *s = d->now;
    struct user_regs_struct regs;
    struct runner_stop stop;
    bool more = true;

    d->since = clock_host_ns(CLOCK_THREAD_CPUTIME_ID);
    if (d->runners.tsc_plain != cpu_tsc_is_host(cpu)) {
        direct_switch_tsc(d, !d->runners.tsc_plain);
        return false;
    }
    if ((d->runners.tsc_plain && (cpu->cr4 & CR4_TSD)) || !state_fits(cpu, &d->layout) || !direct_no_stub(cpu) || direct_put(d, s, cpu, &regs) < 0) {
        direct_pay(s, -DIRECT_BAR);
        return false;
    }
    it->current = NULL;
    d->vcpu->stats.direct_runs++;
    while (more) {
        if (s->missing) {
            direct_move(d, cpu, s->missing);
            space_expect(&s->space, cpu, &d->rules, s->missing);
        }
        s->missing = 0;
        space_settle(&s->space, cpu, &d->rules);
        runner_join(&s->space.runner);
        int r = direct_stretch(d, s, cpu, &regs, &stop);
        if (r < 0) {
            direct_broken(d, s, cpu, &regs, r);
            break;
        }
        enum direct_next next = direct_stopped(d, s, cpu, &regs, &stop);
        if (next != NEXT_GO)
            direct_after(d, s, it, cpu, &regs, next, &more);
        else
            d->vcpu->stats.direct_maps++;
    }
    return true;
}

/* -- the choke point -- */

void direct_flushed(struct direct *d, const struct tlb_flush *f)
{
    for (unsigned n = 0; n < DIRECT_SPACES; n++)
        if (d->space[n].area)
            space_flush(&d->space[n].space, f);
}

void direct_protected(struct direct *d, uint64_t gpa)
{
    for (unsigned n = 0; n < DIRECT_SPACES; n++)
        if (d->space[n].area)
            space_protect(&d->space[n].space, gpa);
}

void direct_changed(struct direct *d, uint64_t gpa)
{
    for (unsigned n = 0; n < DIRECT_SPACES; n++)
        if (d->space[n].area)
            space_changed(&d->space[n].space, gpa);
}

void direct_notice(const struct direct *d) { runner_poke(&d->runners); }
