/* What --trace tells and counts in all engines. See trace.h. */
#include "engine/trace.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/log.h"

bool engine_profile_create(struct vcpu *v)
{
    if (!(v->engine->trace & ENGINE_TRACE_STATS))
        return true;
    v->profile = calloc(1, sizeof(*v->profile));
    return v->profile != NULL;
}

void engine_profile_destroy(struct vcpu *v)
{
    free(v->profile);
    v->profile = NULL;
}

static uint64_t trace_sum(const uint64_t *n, uint64_t *sum)
{
    uint64_t v = __atomic_load_n(n, __ATOMIC_RELAXED);
    *sum += v;
    return v;
}

/* What it costs, roughly: all of them leave translated code for C. */
static uint64_t trace_weight(const struct engine_top *t) { return t->inside + t->end + t->slow + t->miss; }

static struct engine_top trace_of_op(const struct engine *e, unsigned op)
{
    struct engine_top t = { .name = ZydisMnemonicGetString((ZydisMnemonic)op) };
    for (unsigned n = 0; n < e->nvcpus; n++) {
        const struct engine_profile *p = e->vcpu[n]->profile;
        if (!p)
            continue;
        trace_sum(&p->inside[op], &t.inside);
        trace_sum(&p->end[op], &t.end);
        trace_sum(&p->slow[op], &t.slow);
        trace_sum(&p->miss[op], &t.miss);
    }
    return t;
}

unsigned engine_top(const struct engine *e, struct engine_top *top, unsigned max)
{
    unsigned used = 0;
    for (unsigned op = 0; op < ENGINE_OPS; op++) {
        struct engine_top t = trace_of_op(e, op);
        unsigned at = used;
        if (!trace_weight(&t))
            continue;
        while (at > 0 && trace_weight(&top[at - 1]) < trace_weight(&t))
            at--;
        if (at == max)
            continue;
        used += used < max;
        for (unsigned n = used - 1; n > at; n--)
            top[n] = top[n - 1];
        top[at] = t;
    }
    return used;
}

uint64_t engine_exceptions(const struct engine *e, unsigned n)
{
    uint64_t sum = 0;
    for (unsigned k = 0; k < e->nvcpus; k++)
        if (e->vcpu[k]->profile)
            trace_sum(&e->vcpu[k]->profile->exception[n % 32], &sum);
    return sum;
}

void engine_trace_exit(const struct cpu *cpu, uint64_t rip, const char *fmt, ...)
{
    char text[256];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof(text), fmt, ap);
    va_end(ap);
    log_msg(LOG_INFO, "trace: cpu %u %016" PRIx64 ": exit: %s", cpu->index, rip, text);
}

void engine_trace_exception(const struct vcpu *v)
{
    const struct cpu *cpu = &v->cpu;
    char error[24] = "", address[32] = "";
    if (v->profile)
        v->profile->exception[cpu->event.vector % 32]++;
    if (!(v->engine->trace & ENGINE_TRACE_EXITS))
        return;
    if (cpu->event.has_error)
        snprintf(error, sizeof(error), ", error code %x", cpu->event.error);
    if (cpu->event.vector == VEC_PF)
        snprintf(address, sizeof(address), ", address %" PRIx64, cpu->event.cr2);
    engine_trace_exit(cpu, cpu->start_rip, "exception %u%s%s", cpu->event.vector, error, address);
}

void engine_trace_interrupt(const struct vcpu *v, unsigned vector)
{
    if (v->engine->trace & ENGINE_TRACE_EXITS)
        engine_trace_exit(&v->cpu, v->cpu.start_rip, "interrupt %u", vector);
}
