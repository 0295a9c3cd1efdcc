/* What `vitro run --trace blocks, host, exits, stats` wants to know of the translator.
 *
 * Translated code is not slowed down by any of it: why it was left is known from where it was left, and handlers are counted and
 * told by functions that the shared pieces call in their stead when they are made for a traced machine.
 *
 * Thread: the vCPU's. */
#include <inttypes.h>
#include <stddef.h>
#include <stdio.h>

#include "base/log.h"
#include "engine/dbt/place.h"
#include "engine/trace.h"
#include "ram/ram.h"

static const char *trace_name(const struct insn *i) { return ZydisMnemonicGetString((ZydisMnemonic)i->op); }

static void trace_count(const struct cpu *cpu, const struct insn *i, size_t table)
{
    struct engine_profile *p = ((struct vcpu *)cpu->vcpu)->profile;
    if (p && i->op < ENGINE_OPS)
        ((uint64_t *)(void *)((char *)p + table))[i->op]++;
}

static bool trace_exits(const struct cpu *cpu)
{
    const struct vcpu *v = cpu->vcpu;
    return v->engine->trace & ENGINE_TRACE_EXITS;
}

void dbt_trace_handler(struct cpu *cpu, const struct insn *i)
{
    trace_count(cpu, i, offsetof(struct engine_profile, inside));
    if (trace_exits(cpu))
        engine_trace_exit(cpu, cpu->start_rip, "handler of %s", trace_name(i));
    i->fn(cpu, i);
}

void dbt_trace_handler_end(struct cpu *cpu, const struct insn *i)
{
    trace_count(cpu, i, offsetof(struct engine_profile, end));
    if (trace_exits(cpu))
        engine_trace_exit(cpu, cpu->start_rip, "handler of %s, which ends the block", trace_name(i));
    i->fn(cpu, i);
}

void dbt_trace_miss(struct dbt *t, struct cpu *cpu, const struct insn *i, uint64_t lin, uint32_t access, uint64_t addend)
{
    static const char *const ways[4] = { "access", "load", "store", "load and store" };
    trace_count(cpu, i, addend ? offsetof(struct engine_profile, miss) : offsetof(struct engine_profile, slow));
    if (t->trace & ENGINE_TRACE_EXITS)
        engine_trace_exit(cpu, cpu->start_rip, "miss: %s of %u bytes at %" PRIx64 " by %s: %s", ways[access >> 28 & 3],
                          access >> 20 & 255, lin, trace_name(i), addend ? "entry made" : "done by its handler");
}

/* --- leaving --- */

static bool trace_is_branch(const struct insn *i)
{
    return i && (i->op == ZYDIS_MNEMONIC_JMP || i->op == ZYDIS_MNEMONIC_CALL || i->op == ZYDIS_MNEMONIC_RET);
}

/* Handlers do branches that were not found; with somebody waiting, nothing is found. */
static enum dbt_left trace_cause(struct cpu *cpu, uint32_t how)
{
    if (how >= DBT_SITE_MIN)
        return LEFT_LINK;
    if (how == LEFT_HANDLER && trace_is_branch(cpu->insn))
        how = LEFT_TARGET;
    if (how == LEFT_TARGET && atomic_load_explicit(&cpu->attention, memory_order_relaxed))
        how = LEFT_ATTENTION;
    return (enum dbt_left)how;
}

void dbt_trace_left(struct dbt *t, struct cpu *cpu, uint32_t how)
{
    static const struct {
        size_t counter;
        const char *what;
    } causes[] = {
        [LEFT_ATTENTION] = { offsetof(struct engine_stats, left_attention), "somebody wants attention" },
        [LEFT_TARGET] = { offsetof(struct engine_stats, left_target), "the target of a branch is not known" },
        [LEFT_ACCESS] = { offsetof(struct engine_stats, left_access), "a handler did the branch's access" },
        [LEFT_HANDLER] = { offsetof(struct engine_stats, left_handler), "a handler ended the block" },
        [LEFT_STALE] = { offsetof(struct engine_stats, left_stale), "code was overwritten" },
        [LEFT_LINK] = { offsetof(struct engine_stats, left_link), "the next block is not linked" },
    };
    enum dbt_left why = trace_cause(cpu, how);
    ++*(uint64_t *)(void *)((char *)t->stats + causes[why].counter);
    if (unlikely(t->trace & ENGINE_TRACE_EXITS))
        engine_trace_exit(cpu, cpu->r[R_RIP], "left: %s", causes[why].what);
}

/* --- blocks --- */

static void trace_hex(char *to, const uint8_t *p, unsigned n)
{
    *to = 0;
    for (unsigned k = 0; k < n && k < 15; k++)
        to += sprintf(to, k ? " %02x" : "%02x", p[k]);
}

/* One instruction at p, code of word bytes (8 or 4), which runs at address at; returns its length, or 0: not an instruction. */
static unsigned trace_disassemble(const uint8_t *p, size_t n, unsigned word, uint64_t at, char hex[48], char *text, size_t size)
{
    ZydisDecoder decoder;
    ZydisFormatter formatter;
    ZydisDecodedInstruction z;
    ZydisDecodedOperand ops[ZYDIS_MAX_OPERAND_COUNT];
    if (word == 8)
        ZydisDecoderInit(&decoder, ZYDIS_MACHINE_MODE_LONG_64, ZYDIS_STACK_WIDTH_64);
    else
        ZydisDecoderInit(&decoder, ZYDIS_MACHINE_MODE_LEGACY_32, ZYDIS_STACK_WIDTH_32);
    if (!ZYAN_SUCCESS(ZydisDecoderDecodeFull(&decoder, p, n < 15 ? n : 15, &z, ops)))
        return 0;
    ZydisFormatterInit(&formatter, ZYDIS_FORMATTER_STYLE_INTEL);
    ZydisFormatterFormatInstruction(&formatter, &z, ops, z.operand_count_visible, text, size, at, NULL);
    trace_hex(hex, p, z.length);
    return z.length;
}

static void trace_line(const struct cpu *cpu, const char *what, uint64_t at, const char *hex, const char *text, const char *note)
{
    log_msg(LOG_INFO, "trace: cpu %u:   %s %016" PRIx64 ": %-24s %s%s", cpu->index, what, at, hex, text, note);
}

static void trace_host(const struct dbt *t, const struct cpu *cpu, const uint8_t *start, const uint8_t *end)
{
    const struct emit *e = &t->work->e;
    for (const uint8_t *p = start; p < end;) {
        char hex[48], text[128];
        uint64_t at = (uintptr_t)emit_rx(e, p);
        unsigned n = trace_disassemble(p, (size_t)(end - p), 8, at, hex, text, sizeof(text));
        if (!n) {
            trace_line(cpu, "host", at, "", "(no instruction)", "");
            return;
        }
        trace_line(cpu, "host", at, hex, text, "");
        p += n;
    }
}

void dbt_trace_block(const struct dbt *t, const struct cpu *cpu, const struct block *b)
{
    const struct xblock *xb = t->work;
    uint64_t lin = cpu->r[R_RIP] & ~0xfffULL;
    unsigned bytes = 0;
    if (!(t->trace & (ENGINE_TRACE_BLOCKS | ENGINE_TRACE_HOST)))
        return;
    for (unsigned n = 0; n < xb->n; n++)
        bytes += xb->x[n].i->len;
    log_msg(LOG_INFO, "trace: cpu %u: block %016" PRIx64 " at guest-physical %" PRIx64
            ": %u instructions, %u bytes; %u bytes of host code, %u that seldom run", cpu->index, lin + b->off, b->page->gpa | b->off, xb->n,
            bytes, (unsigned)(xb->hot_end - xb->entry), (unsigned)(xb->e.p - (t->rw + t->cold)));
    for (const struct xinsn *x = xb->x; x < xb->x + xb->n; x++) {
        char hex[48], text[128];
        const uint8_t *code = b->cross ? cross_bytes(b) : xb->page + x->off;
        if (!trace_disassemble(code, b->cross ? 15 : PAGE_SIZE - x->off, xb->word, lin + x->off, hex, text, sizeof(text)))
            return; /* somebody is writing to it */
        trace_line(cpu, "guest", lin + x->off, hex, text, x->kind == X_CALL ? "; by its handler" : "");
    }
    if (!(t->trace & ENGINE_TRACE_HOST))
        return;
    trace_host(t, cpu, xb->entry, xb->hot_end);
    trace_host(t, cpu, t->rw + t->cold, xb->e.p);
}
