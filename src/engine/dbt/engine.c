/* The engine "dbt": the interpreter's loop with translated blocks in it.
 *
 * Once a block of 64-bit code, or of 32-bit code with flat segments, has run often enough it is translated; from then on the loop enters its host code, which goes on from
 * block to block until it meets something that it leaves to the loop. What the interpreter's cache drops, this drops too:
 * forgetting linear addresses empties the table of branch targets; when blocks of a page go, code that is running
 * is told to leave at the next instruction boundary; the code memory itself is only emptied together with the
 * interpreter's arena, outside of translated code.
 *
 * Thread: the vCPU's; see dbt.h. */
#include <asm/prctl.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/err.h"
#include "engine/dbt/dbt.h"
#include "engine/interp/hostexec.h"
#include "x86/desc.h"

/* Linear mappings changed, who knows how: only the ways that code takes by itself, the tables are told by flushed(). */
static void dbt_forget(struct interp *it)
{
    struct dbt *t = it->translator_data;
    flat_forget_jumps(&t->flat);
    t->link.site = 0;
}

static void dbt_notice(struct cpu *cpu)
{
    const struct interp *it = cpu->engine;
    struct dbt *t = it->translator_data;
    atomic_store(&t->data->jumps, t->flat.no_jumps);
    atomic_store(&t->data->returns, &t->flat.no_returns);
    atomic_store(&t->data->good, 0);
    atomic_store(&t->data->calm, 0);
    if (t->direct)
        direct_notice(t->direct);
}

/* Links anew: each costs a way through the loop. Where address spaces that share code take turns, they would go on for ever. */
#define LINK_BUDGET 64

/* What generated code accesses memory through, in the mode that the CPU is in now. Most often nothing has changed; then nothing is
 * stored, and so nothing need be ordered. */
static void dbt_select_set(struct dbt *t, struct flat_set *s)
{
    struct dbt_data *d = t->data;
    const struct flat_set *code = flat_code_of(&t->flat, s);
    struct flat_jump *jumps = code ? code->jumps : t->flat.no_jumps;
    uint64_t good = code ? code->good : 0;
    struct flat_returns *returns = s ? flat_returns(s->read) : &t->flat.no_returns;
    d->read = s ? s->read : t->flat.nothing;
    if (atomic_load_explicit(&d->jumps, memory_order_relaxed) == jumps && atomic_load_explicit(&d->calm, memory_order_relaxed) &&
        atomic_load_explicit(&d->returns, memory_order_relaxed) == returns && atomic_load_explicit(&d->good, memory_order_relaxed) == good)
        return;
    if (!atomic_load_explicit(&d->calm, memory_order_relaxed)) {
        t->link.budget = LINK_BUDGET;
        d->may_link = 1;
    }
    atomic_store_explicit(&d->good, good, memory_order_relaxed);
    atomic_store_explicit(&d->jumps, jumps, memory_order_relaxed);
    atomic_store_explicit(&d->returns, returns, memory_order_relaxed);
    atomic_store_explicit(&d->calm, 1, memory_order_relaxed);
    atomic_thread_fence(memory_order_seq_cst);
    if (atomic_load_explicit(&t->flat.cpu->attention, memory_order_relaxed)) /* it came before the stores above, which must not hide it */
        dbt_notice(t->flat.cpu);
}

static void dbt_select(struct dbt *t) { dbt_select_set(t, flat_current(&t->flat)); }

static void dbt_mode_changed(struct cpu *cpu)
{
    const struct interp *it = cpu->engine;
    struct dbt *t = it->translator_data;
    if (!t->ending)
        dbt_select(t);
}

static void dbt_flushed(struct interp *it, const struct tlb_flush *f)
{
    struct dbt *t = it->translator_data;
    flat_flushed(&t->flat, f);
    if (t->direct)
        direct_flushed(t->direct, f);
    t->link.site = 0;
    dbt_select(t);
}

static void dbt_switched(struct interp *it)
{
    struct dbt *t = it->translator_data;
    flat_switched(&t->flat);
    t->link.site = 0;
    dbt_select(t);
}

static void dbt_protected(struct interp *it, uint64_t gpa)
{
    struct dbt *t = it->translator_data;
    flat_protect(&t->flat, gpa);
    if (t->direct)
        direct_protected(t->direct, gpa);
}

static void dbt_changed(struct interp *it, uint64_t gpa)
{
    struct dbt *t = it->translator_data;
    if (t->direct)
        direct_changed(t->direct, gpa);
}

static void dbt_identified(struct cpu *cpu)
{
    const struct interp *it = cpu->engine;
    const struct dbt *t = it->translator_data;
    if (t && t->direct)
        direct_identified(t->direct, cpu);
}

static void dbt_stale(struct interp *it)
{
    struct dbt *t = it->translator_data;
    dbt_forget(it);
    t->data->stale = 1;
}

static void dbt_drop(struct interp *it)
{
    struct dbt *t = it->translator_data;
    dbt_stale(it);
    dbt_changed(it, ~0ULL);
    dbt_code_clear(t);
    t->stats->code_emptied++;
}

static void dbt_rest(struct interp *it)
{
    struct dbt *t = it->translator_data;
    dbt_code_rest(t);
    flat_rest(&t->flat);
    dbt_select(t);
}

static bool dbt_flat_segment(const struct seg *s, uint16_t mask, uint16_t want)
{
    return !s->base && s->limit == 0xffffffff && (s->attr & mask) == want;
}

/* 32-bit code whose CS, SS, DS and ES are all 4 GiB from 0: no check is left, linear addresses are offsets. It wraps at 4 GiB in ways that are the
 * interpreter's matter. */
static bool dbt_flat32(const struct cpu *cpu)
{
    const uint16_t data = ATTR_P | ATTR_S | TYPE_CODE | TYPE_CE | TYPE_RW;
    const struct seg *s = cpu->seg;
    return cpu->code_size == 4 && (cpu->cr0 & CR0_PE) && !(cpu->rflags & FL_VM) && cpu->sp_mask == 0xffffffff &&
           cpu->r[R_RIP] < 0xfffff000 && dbt_flat_segment(&s[SEG_CS], ATTR_P | ATTR_S | TYPE_CODE, ATTR_P | ATTR_S | TYPE_CODE) &&
           dbt_flat_segment(&s[SEG_SS], data, ATTR_P | ATTR_S | TYPE_RW) && dbt_flat_segment(&s[SEG_DS], data, ATTR_P | ATTR_S | TYPE_RW) &&
           dbt_flat_segment(&s[SEG_ES], data, ATTR_P | ATTR_S | TYPE_RW);
}

/* Is there translated code for the mode that the CPU is in? */
static bool dbt_mode(const struct cpu *cpu) { return cpu->code_size == 8 || dbt_flat32(cpu); }

/* Host code of b, made if it is time. NULL: not yet, or never; or *dropped: every block is gone, b too. */
static const uint8_t *dbt_host_code(struct dbt *t, struct cpu *cpu, struct block *b, bool plain, bool *dropped)
{
    *dropped = false;
    if (plain && b->plain)
        return b->plain;
    if (!plain && b->host)
        return b->host;
    if (plain)
        b->count = b->count < t->threshold ? t->threshold : b->count;
    if (b->count == DBT_NEVER || ++b->count < t->threshold)
        return NULL;
    if (!dbt_code_room(t)) {
        cache_drop_all(t->it);
        *dropped = true;
        return NULL;
    }
    if (plain)
        return b->plain = dbt_translate(t, cpu, b, true);
    b->host = dbt_translate(t, cpu, b, false);
    if (b->host) {
        dbt_translate_along(t, cpu, b);
    } else {
        b->count = DBT_NEVER;
        t->stats->block_limit++;
    }
    return b->host;
}

/* Should user code that is about to run be left to the tier above? */
static bool dbt_direct(struct dbt *t, struct cpu *cpu)
{
    return t->direct && cpu->cpl == 3 && cpu->code_size == 8 && direct_wants(t->direct, cpu, t->data->syscalls);
}

/* What translated code assumes of the CPU from here on. No vector registers are in the host's. */
static void dbt_entering(struct dbt *t, struct cpu *cpu)
{
    const struct interp *it = t->it;
    struct flat_set *s = flat_current(&t->flat);
    t->data->cli_plain = !(cpu->rflags & FL_VM) && cpu_iopl(cpu) >= cpu->cpl;
    t->data->nothing_held = !it->irq_hold && !cpu->nmi_pending;
    t->data->sti_plain = t->data->cli_plain && t->data->nothing_held;
    t->data->fsgsbase = cpu->code_size == 8 && cpu->cr4 & CR4_FSGSBASE;
    t->data->tsc_plain = !(cpu->cr4 & CR4_TSD);
    t->data->tsc_host = t->data->tsc_plain && cpu_tsc_is_host(cpu);
    dbt_doors(t, cpu, s);
    dbt_select_set(t, s);
    t->ending = false;
}

const uint8_t *dbt_handler_end(struct cpu *cpu, const struct insn *i)
{
    const struct interp *it = cpu->engine;
    struct dbt *t = it->translator_data;
    t->ending = true;
    if (unlikely(t->trace))
        dbt_trace_handler_end(cpu, i);
    else
        i->fn(cpu, i);
    uint32_t rf = cpu->step ? 0 : cpu->rflags & FL_RF; /* behind the IRET of a fault's handler; see interp_boundary() */
    const uint8_t *host = NULL;
    cpu->rflags &= ~rf;
    if (!t->data->stale && !interp_special(it, cpu) && dbt_mode(cpu) && !dbt_direct(t, cpu)) {
        dbt_entering(t, cpu);
        host = flat_jump_find(&t->flat, atomic_load_explicit(&t->data->jumps, memory_order_relaxed), cpu->r[R_RIP]);
    }
    if (!host)
        cpu->rflags |= rf; /* an interrupt may come before the next instruction */
    t->stats->continued += host != NULL;
    return host;
}

/* Branches from elsewhere found no way to b, at RIP. After mappings were forgotten (an address space is new, or one that was switched away from comes
 * back), all that ever went into this page get theirs again with the first one, instead of coming by here one after the other. */
static void dbt_target(struct dbt *t, const struct cpu *cpu, const struct block *b, const uint8_t *host, bool remember)
{
    struct code_page *p = b->page;
    const struct flat_set *s = flat_current_code(&t->flat);
    uint64_t rip = cpu->r[R_RIP], lin = rip - b->off;
    bool global = t->it->page_global, found = false;
    if (unlikely(flat_crowded(&t->flat, t->it->block_mask == BLOCK_HASH - 1)))
        flat_spread(&t->flat);
    flat_jump_add(&t->flat, rip, b->len, host - BLOCK_PROLOGUE, global);
    if (!s || b->cross)
        return;
    bool again = p->known != s->jump_epoch || p->known_lin != lin;
    for (unsigned n = 0; again && n < p->ntargets; n++)
        flat_jump_soon(&t->flat, s, lin + p->target[n].off);
    for (unsigned n = 0; n < p->ntargets; n++) {
        if (again)
            flat_jump_add(&t->flat, lin + p->target[n].off, 1, t->rx + p->target[n].host, global);
        found |= p->target[n].off == b->off;
    }
    p->known = s->jump_epoch;
    p->known_lin = lin;
    if (found || !remember)
        return;
    unsigned n = p->ntargets < PAGE_TARGETS ? p->ntargets++ : p->oldest++ % PAGE_TARGETS;
    p->target[n].off = b->off;
    p->target[n].host = (uint32_t)(host - BLOCK_PROLOGUE - t->rx);
}

/* The branch t->link goes to b, whose pages are among those that code has run in. */
static void dbt_link_far(struct dbt *t, const struct block *b, const uint8_t *host)
{
    const struct flat_set *s = flat_current_code(&t->flat);
    uint64_t good = s ? s->good : 0;
    bool first = good && dbt_code_link_far(t, t->link.site, host - BLOCK_PROLOGUE, t->link.page, good);
    if (!first && t->link.budget)
        t->link.budget--;
    t->data->may_link = t->link.budget != 0;
}

/* Translated code was left behind an STI, since what follows had no code: link it as soon as it has. The next instruction comes before any interrupt. */
static void dbt_behind_sti(struct dbt *t, struct cpu *cpu, uint32_t site)
{
    bool dropped;
    uint64_t emptied = t->stats->code_emptied;
    struct block *b = cache_lookup(t->it, cpu);
    const uint8_t *host = b && !b->cross ? dbt_host_code(t, cpu, b, false, &dropped) : NULL;
    if (host && !t->data->stale && emptied == t->stats->code_emptied)
        dbt_code_link(t, site, host);
    cpu->shadow = SHADOW_STI;
}

static bool dbt_run_block(struct interp *it, struct cpu *cpu, struct block *b)
{
    struct dbt *t = it->translator_data;
    uint64_t rip = cpu->r[R_RIP];
    if (!dbt_mode(cpu))
        return false;
    if (dbt_direct(t, cpu) && direct_run(t->direct, it, cpu))
        return true;
    bool dropped, linked = t->link.site && t->link.rip == rip, plain = linked && t->link.plain;
    const uint8_t *host = dbt_host_code(t, cpu, b, plain, &dropped);
    if (!host)
        return dropped; /* then look again */
    if (!plain)
        dbt_target(t, cpu, b, host, !linked || t->link.far);
    if (linked && t->link.far)
        dbt_link_far(t, b, host);
    else if (linked && !b->cross) /* that must be found through the linear mappings each time */
        dbt_code_link(t, t->link.site, host);
    t->link.site = 0;
    t->data->page = rip & ~0xfffULL;
    t->data->stale = 0;
    t->data->vec_live = 0;
    memset(&t->data->vec_ok[1], 0, sizeof(t->data->vec_ok) - sizeof(t->data->vec_ok[0]));
    dbt_entering(t, cpu);
    it->current = NULL;
    t->stats->entered++;
    uint64_t (*enter)(const uint8_t *) = (uint64_t (*)(const uint8_t *))(uintptr_t)t->thunk.enter;
    uint32_t site = (uint32_t)enter(host);
    dbt_trace_left(t, cpu, site);
    if (site >= DBT_SITE_MIN && site & DBT_SITE_STI) {
        dbt_behind_sti(t, cpu, site & ~DBT_SITE_STI);
    } else if (site >= DBT_SITE_MIN && !t->data->stale) {
        t->link.far = site & DBT_SITE_FAR;
        t->link.site = t->link.far ? (site & ~DBT_SITE_FAR) / 2 : site & ~DBT_SITE_PLAIN;
        t->link.page = t->data->page;
        t->link.plain = !t->link.far && site & DBT_SITE_PLAIN;
        t->link.rip = cpu->r[R_RIP];
    }
    return true;
}

static const struct interp_translator dbt_translator = {
    .run = dbt_run_block,
    .forget = dbt_forget,
    .flushed = dbt_flushed,
    .switched = dbt_switched,
    .protected = dbt_protected,
    .changed = dbt_changed,
    .stale = dbt_stale,
    .drop = dbt_drop,
    .rest = dbt_rest,
};

static void dbt_vcpu_fini(struct vcpu *v)
{
    struct interp *it = v->cpu.engine;
    if (!it)
        return;
    struct dbt *t = it->translator_data;
    it->translator = NULL;
    v->cpu.notice = NULL;
    it->translator_data = NULL;
    if (t) {
        direct_destroy(t->direct);
        dbt_code_fini(t);
        flat_fini(&t->flat);
        free(t->work);
    }
    free(t);
    engine_interp.vcpu_fini(v);
}

/* Each set takes 1 TiB of address space, of which a process has 128: two for the supervisor and these. */
static int dbt_user_sets(unsigned index) { return index < 4 ? 8 : index < 8 ? 4 : index < 16 ? 2 : index < 24 ? 0 : -1; }

/* The tables of vCPU 0, which is the first to come and the last to run. */
static const struct flat *dbt_first_flat(const struct vcpu *v)
{
    const struct vcpu *first = v->engine->vcpu[0];
    if (!first || first == v || !first->cpu.engine)
        return NULL;
    const struct interp *it = first->cpu.engine;
    const struct dbt *t = it->translator_data;
    return t ? &t->flat : NULL;
}

static const uint8_t *dbt_fault_to(const void *translator, uintptr_t pc)
{
    const struct dbt *t = translator;
    const uint8_t *to = dbt_code_fault(t, pc);
    t->stats->host_faults += to != NULL;
    return to;
}

static int dbt_vcpu_init(struct vcpu *v, struct err *err)
{
    int r = engine_interp.vcpu_init(v, err);
    if (r < 0)
        return r;
    struct interp *it = v->cpu.engine;
    struct dbt *t = calloc(1, sizeof(*t));
    it->translator_data = t;
    if (t) {
        t->work = calloc(1, dbt_work_size());
        t->trace = v->engine->trace;
        t->stats = &v->stats;
    }
    bool made = t && t->work && dbt_code_init(t) && dbt_thunks_make(t);
    if (made) {
        t->flat.nowhere = t->thunk.leave_at;
        t->flat.running = &t->data->page;
        t->flat.good = &t->data->good;
    }
    if (!made || !flat_init(&t->flat, &v->cpu, dbt_user_sets(v->cpu.index), dbt_first_flat(v))) {
        dbt_vcpu_fini(v);
        return err_set(err, ENOMEM, "cannot reserve memory for the translator of vCPU %u: see 'ulimit -v', or use --engine interp",
                       v->cpu.index);
    }
    t->it = it;
    t->data->cpu = &v->cpu;
    t->data->host_mxcsr = HX_MXCSR;
    t->data->host_fcw = HX_FCW;
    t->threshold = v->engine->dbt_threshold ? v->engine->dbt_threshold : DBT_THRESHOLD;
    it->translator = &dbt_translator;
    it->ops.mode_changed = dbt_mode_changed;
    it->ops.identified = dbt_identified;
    v->cpu.notice = dbt_notice;
    dbt_select(t);
    return 0;
}

static void dbt_vcpu_begin(struct vcpu *v)
{
    const struct interp *it = v->cpu.engine;
    struct dbt *t = it->translator_data;
    if (!t->direct)
        t->direct = direct_create(v);
}

static enum vcpu_exit dbt_run(struct vcpu *v)
{
    const struct interp *it = v->cpu.engine;
    syscall(SYS_arch_prctl, ARCH_SET_GS, &v->cpu); /* nobody else uses GS in a 64-bit process */
    hostexec_fault_to(dbt_fault_to, it->translator_data);
    return engine_interp.run(v);
}

static int dbt_init(struct engine *e, struct err *err) { return engine_interp.init(e, err); }
static void dbt_fini(struct engine *e) { engine_interp.fini(e); }
static void dbt_invalidate(struct engine *e, uint64_t gpa, uint64_t len) { engine_interp.invalidate(e, gpa, len); }

const struct engine_ops engine_dbt = {
    .name = "dbt",
    .probe = dbt_probe,
    .init = dbt_init,
    .fini = dbt_fini,
    .vcpu_init = dbt_vcpu_init,
    .vcpu_fini = dbt_vcpu_fini,
    .vcpu_begin = dbt_vcpu_begin,
    .run = dbt_run,
    .invalidate = dbt_invalidate,
};
