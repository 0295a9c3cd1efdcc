/* One instruction at a time: single step, breakpoints, shadows, code that is not in RAM, 16- and 32-bit code that straddles two
 * pages, and fetches that fault. Instructions are cached by linear address and bytes, so that a loop with such an instruction
 * does not decode it again each time. */
#include <string.h>

#include "engine/interp/interp.h"
#include "ram/ram.h"
#include "x86/debug.h"

/* Up to n bytes of code at lin, all in one page. */
static void step_fetch_part(struct interp *it, struct cpu *cpu, uint64_t lin, uint8_t *buf, unsigned n)
{
    uint64_t gpa = cache_fetch(it, cpu, lin);
    if (ram_read(cpu->ram, gpa, buf, n) == 0)
        return;
    for (unsigned k = 0; k < n; k++)
        buf[k] = (uint8_t)cpu->ops->mmio_read(cpu, gpa + k, 1);
}

/* Bytes that CS's limit leaves for an instruction at RIP; raises #GP(0) when none. */
static unsigned step_room(struct cpu *cpu)
{
    if (cpu->code_size == 8)
        return 15;
    uint64_t limit = cpu->seg[SEG_CS].limit, rip = cpu->r[R_RIP];
    if (rip > limit)
        CPU_GP0(cpu);
    return limit - rip >= 14 ? 15 : (unsigned)(limit - rip) + 1;
}

/* Decode and bind the instruction at lin; fetches the next page only if the first does not hold all of it. */
static enum decode_result step_decode(struct interp *it, struct cpu *cpu, uint64_t lin, struct step_entry *e, bool *full)
{
    unsigned room = step_room(cpu), first = PAGE_REST(lin);
    unsigned n = room < first ? room : first;
    uint32_t form;
    step_fetch_part(it, cpu, lin, e->bytes, n);
    enum decode_result r = form_decode(it, e->bytes, n, &e->insn, &form, full);
    if (r != DECODE_TRUNCATED)
        return r;
    if (room > first) {
        uint64_t next = cpu->code_size == 8 ? lin + n : (uint32_t)(lin + n);
        step_fetch_part(it, cpu, next, e->bytes + n, room - n);
        r = form_decode(it, e->bytes, room, &e->insn, &form, full);
    }
    if (r == DECODE_TRUNCATED)
        CPU_GP0(cpu); /* the limit of CS cuts it off */
    return r;
}

static bool step_cached(struct interp *it, struct cpu *cpu, const struct step_entry *e, uint64_t lin)
{
    uint8_t buf[15];
    unsigned len = e->insn.len, first = PAGE_REST(lin);
    if (e->key != lin || !len || e->ctx != cpu->code_size || len > step_room(cpu))
        return false;
    step_fetch_part(it, cpu, lin, buf, len < first ? len : first);
    if (len > first)
        step_fetch_part(it, cpu, cpu->code_size == 8 ? lin + first : (uint32_t)(lin + first), buf + first, len - first);
    return memcmp(buf, e->bytes, len) == 0;
}

/* The bound instruction at lin; raises what fetching and decoding raise. */
static const struct insn *step_get(struct interp *it, struct cpu *cpu, uint64_t lin)
{
    struct step_entry *e = &it->step[(lin ^ lin >> PAGE_SHIFT) % STEP_CACHE];
    if (step_cached(it, cpu, e, lin))
        return &e->insn;
    bool full;
    e->insn.len = 0;
    e->key = 0; /* until it is bound: what follows may raise */
    enum decode_result r = step_decode(it, cpu, lin, e, &full);
    if (r == DECODE_OK && full) {
        cache_drop_all(it);
        r = step_decode(it, cpu, lin, e, &full);
    }
    if (r != DECODE_OK) {
        e->insn.len = 0;
        if (r == DECODE_TOO_LONG)
            CPU_GP0(cpu);
        CPU_UD(cpu);
    }
    e->key = lin;
    e->ctx = cpu->code_size;
    return &e->insn;
}

void interp_step(struct interp *it, struct cpu *cpu)
{
    uint64_t lin = interp_lin_rip(cpu), rip = cpu->r[R_RIP];
    bool tf = cpu->rflags & FL_TF, rf = cpu->rflags & FL_RF;
    cpu->start_rip = rip;
    cpu->insn = NULL;
    it->current = NULL;
    it->vcpu->stats.steps++;
    if (!rf && cpu->step)
        debug_check_code(cpu, lin);
    const struct insn *i = step_get(it, cpu, lin);
    cpu->shadow = 0;
    cpu->rflags &= ~FL_RF;
    cpu->insn = i;
    cpu->r[R_RIP] = rip + i->len;
    i->fn(cpu, i);
    cpu->insns++;
    if (rf && cpu->r[R_RIP] == rip)
        cpu->rflags |= FL_RF; /* a repeated instruction that is not done yet */
    if ((tf || cpu->pending_db) && !(cpu->shadow & SHADOW_MOVSS))
        debug_after(cpu, tf);
}
