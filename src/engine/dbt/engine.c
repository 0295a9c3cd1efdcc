/* The engine "dbt": the interpreter's loop with translated blocks in it.
 *
 * Once a 64-bit block has run often enough it is translated; from then on the loop enters its host code, which goes on from
 * block to block until it meets something that it leaves to the loop. What the interpreter's cache drops, this drops too:
 * forgetting linear addresses empties the table of branch targets; when blocks of a page go, code that is running
 * is told to leave at the next instruction boundary; the code memory itself is only emptied together with the
 * interpreter's arena, outside of translated code.
 *
 * Thread: the vCPU's; see dbt.h. */
#include <asm/prctl.h>
#include <errno.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/err.h"
#include "engine/dbt/dbt.h"
#include "engine/interp/hostexec.h"

static void dbt_forget(struct interp *it)
{
    struct dbt *t = it->translator_data;
    t->generation++;
    t->data->mode = DBT_NO_MODE;
    t->link.site = 0;
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
    dbt_code_clear(t);
    t->stat_dropped++;
}

/* Host code of b, made if it is time. NULL: not yet, or never; or *dropped: every block is gone, b too. */
static const uint8_t *dbt_host_code(struct dbt *t, struct cpu *cpu, struct block *b, bool *dropped)
{
    *dropped = false;
    if (b->count == DBT_NEVER || ++b->count < t->threshold)
        return NULL;
    const struct code_page *page = t->it->page;
    if (page->code_size != 8) {
        b->count = DBT_NEVER;
        return NULL;
    }
    if (DBT_CODE - t->used < DBT_BLOCK_MAX) {
        cache_drop_all(t->it);
        *dropped = true;
        return NULL;
    }
    b->host = dbt_translate(t, cpu, b, page->gpa, cpu->r[R_RIP] & 0xfff);
    if (!b->host)
        b->count = DBT_NEVER;
    return b->host;
}

static bool dbt_run_block(struct interp *it, struct cpu *cpu, struct block *b)
{
    struct dbt *t = it->translator_data;
    const uint8_t *host = b->host;
    uint64_t rip = cpu->r[R_RIP];
    if (!host) {
        bool dropped;
        host = dbt_host_code(t, cpu, b, &dropped);
        if (!host)
            return dropped; /* then look again */
    }
    if (t->link.site && t->link.rip == rip)
        dbt_code_link(t, t->link.site, host);
    t->link.site = 0;
    uint64_t mode = t->generation << 1 | (cpu->cpl == 3);
    *dbt_jump_slot(t, rip) = (struct dbt_jump){ .rip = rip, .mode = mode, .host = host };
    t->data->page = rip & ~0xfffULL;
    t->data->mode = mode;
    t->data->stale = 0;
    t->data->fp = 0;
    t->data->vec = dbt_vec_bits(cpu);
    it->current = NULL;
    t->stat_entered++;
    uint64_t (*enter)(const uint8_t *) = (uint64_t (*)(const uint8_t *))(uintptr_t)t->thunk.enter;
    uint32_t site = (uint32_t)enter(host);
    if (site && !t->data->stale) {
        t->link.site = site;
        t->link.rip = cpu->r[R_RIP];
    }
    return true;
}

static const struct interp_translator dbt_translator = {
    .run = dbt_run_block,
    .forget = dbt_forget,
    .stale = dbt_stale,
    .drop = dbt_drop,
};

static void dbt_vcpu_fini(struct vcpu *v)
{
    struct interp *it = v->cpu.engine;
    if (!it)
        return;
    struct dbt *t = it->translator_data;
    it->translator = NULL;
    it->translator_data = NULL;
    if (t) {
        dbt_code_fini(t);
        free(t->work);
    }
    free(t);
    engine_interp.vcpu_fini(v);
}

static int dbt_vcpu_init(struct vcpu *v, struct err *err)
{
    int r = engine_interp.vcpu_init(v, err);
    if (r < 0)
        return r;
    struct interp *it = v->cpu.engine;
    struct dbt *t = calloc(1, sizeof(*t));
    it->translator_data = t;
    if (t)
        t->work = calloc(1, dbt_work_size());
    if (!t || !t->work || !dbt_code_init(t)) {
        dbt_vcpu_fini(v);
        return err_set(err, ENOMEM, "out of memory for the translator's code cache");
    }
    t->it = it;
    t->data->cpu = &v->cpu;
    t->data->host_mxcsr = HX_MXCSR;
    t->generation = 1;
    t->threshold = v->engine->dbt_threshold ? v->engine->dbt_threshold : DBT_THRESHOLD;
    it->translator = &dbt_translator;
    return 0;
}

static enum vcpu_exit dbt_run(struct vcpu *v)
{
    syscall(SYS_arch_prctl, ARCH_SET_GS, &v->cpu); /* nobody else uses GS in a 64-bit process */
    return engine_interp.run(v);
}

static int dbt_init(struct engine *e, struct err *err) { return engine_interp.init(e, err); }
static void dbt_fini(struct engine *e) { engine_interp.fini(e); }
static void dbt_invalidate(struct engine *e, uint64_t gpa, uint64_t len) { engine_interp.invalidate(e, gpa, len); }

const struct engine_ops engine_dbt = {
    .name = "dbt",
    .init = dbt_init,
    .fini = dbt_fini,
    .vcpu_init = dbt_vcpu_init,
    .vcpu_fini = dbt_vcpu_fini,
    .run = dbt_run,
    .invalidate = dbt_invalidate,
};
