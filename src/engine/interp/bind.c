/* From a decoded instruction to its handler. */
#include "engine/interp/interp.h"
#include "engine/interp/op_int.h"
#include "engine/interp/op_sys.h"

void op_ud(struct cpu *cpu, const struct insn *i)
{
    CPU_UD(cpu);
}

void bind_init(struct interp_shared *s)
{
    static const struct op_entry *const tables[] = {
        ops_alu, ops_shift, ops_data, ops_bit, ops_branch, ops_string, ops_misc,
        ops_sys, ops_far,   ops_io,   ops_fpu, ops_xsave,  ops_vecmem,
    };
    for (unsigned t = 0; t < ARRAY_LEN(tables); t++)
        for (const struct op_entry *e = tables[t]; e->op != ZYDIS_MNEMONIC_INVALID; e++)
            s->op[e->op] = e;
}

static const struct op_entry *bind_entry(const struct interp *it, const struct insn *i)
{
    const struct interp_shared *s = it->vcpu->engine->priv;
    return s->op[i->op];
}

bool bind_insn(struct interp *it, struct insn *i, const struct decoded *d)
{
    const struct op_entry *e = bind_entry(it, i);
    bool full = false;
    i->fn = NULL;
    if (e)
        i->fn = e->fn ? e->fn : e->select(i, d);
    if (!i->fn && !hostexec_bind(it->hx, &it->vcpu->cpu, i, d, &full))
        i->fn = op_ud;
    if (!full && (i->fn == op_ud || (e && e->flags & INSN_END))) /* else it is bound once more */
        i->flags |= INSN_END;
    return !full;
}
