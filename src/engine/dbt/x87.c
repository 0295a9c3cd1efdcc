/* x87 instructions, and what they share with MMX (vec.c): the guest's registers are in the host's from the first one on until C code runs
 * that needs them, like vectors. Control, status and tag words come along, and are right by themselves.
 *
 * That is so only while the guest masks all x87 exceptions and none is pending, so that none arrives as a signal here: an FLDCW that
 * unmasks one is for its handler, as is all that loads more of the state (FNINIT, FLDENV, FRSTOR, FXRSTOR, XRSTOR) or shows its pointers
 * (FNSTENV, FNSAVE, FXSAVE, XSAVE). With CR0.NE clear handlers do it all: errors there go out as FERR#, which FNCLEX takes back.
 *
 * Pointers (SDM vol. 1, 8.1.8 and 8.1.9): the host's own would be those of translated code. So each instruction that sets them notes which one it is,
 * and its operand, where the guest's CPU shows operands of instructions that raise nothing; dbt_x87_out() makes of that what the
 * interpreter would have stored (run_x87_pointers()). */
#include "engine/dbt/place.h"
#include "engine/interp/hostexec.h"
#include "x86/cpuid.h"

/* dbt_data.x87_last: offset in the page, opcode, code that is not 64-bit; and there is one. */
#define X87_LAST(off, sel, legacy) ((uint32_t)(off) | (uint32_t)(sel) << 12 | (uint32_t)(legacy) << 30 | 1u << 31)
#define X87_MASKS                  0x3fu

static bool x87_no_selectors(const struct cpu *cpu) { return cpu_has(cpu, CPU_FEAT(FEAT_7_EBX, 13)); }

/* --- the state --- */

bool dbt_x87_allowed(const struct cpu *cpu)
{
    return (cpu->cr0 & (CR0_EM | CR0_TS | CR0_NE)) == CR0_NE && (cpu->fx.fcw & X87_MASKS) == X87_MASKS && !(cpu->fx.fsw & HX_FSW_ES);
}

void dbt_x87_in(struct dbt *t, struct cpu *cpu)
{
    struct dbt_data *d = t->data;
    cpu->fx.mxcsr = HX_MXCSR;
    d->x87_last = 0;
    d->x87_ip = cpu->fx.fip;
    d->x87_op = cpu->fx.fop;
    d->x87_dp = cpu->fx.fdp;
}

void dbt_x87_out(struct cpu *cpu)
{
    const struct interp *it = cpu->engine;
    const struct dbt *t = it->translator_data;
    const struct dbt_data *d = t->data;
    struct x87_image *fx = &cpu->fx;
    uint32_t last = d->x87_last;
    fx->fip = d->x87_ip;
    fx->fop = d->x87_op;
    fx->fdp = d->x87_dp;
    if (!last)
        return;
    fx->fip = d->x87_page + (last & 0xfff);
    if (last >> 30 & 1)
        fx->fip = (uint32_t)fx->fip | (x87_no_selectors(cpu) ? 0 : (uint64_t)cpu->seg[SEG_CS].sel << 32);
    if (cpu->cpuid->vendor == VENDOR_AMD)
        fx->fop = last >> 12 & 0x7ff;
}

/* --- classification --- */

static void x87_operand(struct xinsn *x, const struct decoded *d, unsigned size, bool write)
{
    x->op = d->z.opcode;
    x->ext = d->z.raw.modrm.reg;
    x->size = (uint8_t)size;
    x->mem = !size ? MEM_NONE : write ? MEM_WRITE : MEM_READ;
}

uint8_t x_classify_x87(struct xinsn *x, const struct decoded *d)
{
    const struct stub *s = x->i->stub;
    if (!s || !(s->c.flags & HX_X87) || d->z.opcode_map != ZYDIS_OPCODE_MAP_DEFAULT)
        return X_CALL;
    x87_operand(x, d, s->c.mem_size, s->c.mem_write);
    if (!x->mem)
        x->op = d->z.opcode << 8 | d->raw[d->z.raw.modrm.offset];
    return X_X87;
}

uint8_t x_classify_x87_control(struct xinsn *x, const struct decoded *d)
{
    bool mem = x->i->flags & INSN_MEM;
    x87_operand(x, d, mem ? 2 : 0, x->i->op != ZYDIS_MNEMONIC_FLDCW);
    x->reg_write = x->i->op == ZYDIS_MNEMONIC_FNSTSW && !mem;
    return X_X87_CONTROL;
}

/* --- emission --- */

/* The operand pointer, outside of 64-bit code with its selector. Destroys T0 and T1. */
static void x87_note_operand(struct xblock *xb, const struct xinsn *x)
{
    struct emit *e = &xb->e;
    if (cpu_has(xb->cpu, CPU_FEAT(FEAT_7_EBX, 6)))
        return;
    place_ea(xb, x, T1, true);
    emit_data(e, OP_W | 0x89, T1, DATA_OFF(x87_dp), 0);
    if (xb->word == 8 || x87_no_selectors(xb->cpu))
        return;
    emit_cpu(e, 0x0fb7, T0, CPU_OFF(seg) + x->i->seg * (uint32_t)sizeof(struct seg) + (uint32_t)offsetof(struct seg, sel));
    emit_data(e, 0x89, T0, DATA_OFF(x87_dp) + 4, 0);
}

/* Behind x comes another one that does the same, and cannot be left before it has? */
static bool x87_noted_soon(const struct xblock *xb, const struct xinsn *x)
{
    return x + 1 < xb->x + xb->n && x->through == THROUGH_NOT && x[1].kind == X_X87 && !x[1].mem;
}

static void x87_note(struct xblock *xb, const struct xinsn *x)
{
    struct emit *e = &xb->e;
    place_island_soon(xb);
    if (x->mem)
        x87_note_operand(xb, x);
    if (x87_noted_soon(xb, x))
        return;
    if (!xb->x87_page) {
        emit_data(e, OP_W | 0x8b, T0, DATA_OFF(page), 0);
        emit_data(e, OP_W | 0x89, T0, DATA_OFF(x87_page), 0);
        xb->x87_page = true;
    }
    emit_data(e, 0xc7, 0, DATA_OFF(x87_last), 4);
    emit_u32(e, X87_LAST(x->off, x->i->sel & 0x7ff, xb->word != 8));
}

static void x87_verify(struct xblock *xb, const struct xinsn *x, const uint8_t *start, const struct xmem *m)
{
    if (!xb->e.overflow && !vec_verify(x, start, (unsigned)(xb->e.p - start), m))
        xb->e.overflow = true;
}

void x_x87(struct xblock *xb, const struct xinsn *x)
{
    struct emit *e = &xb->e;
    struct pending *p = NULL;
    struct xmem m = { 0 };
    vec_check(xb, x, VEC_X87);
    place_island_soon(xb);
    if (x->mem)
        p = place_mem(xb, x, &m);
    x_flags_before(xb, x);
    const uint8_t *start = e->p;
    if (x->mem)
        place_emit(xb, x->op, x->ext, &m);
    else
        EMIT(e, x->op >> 8, x->op & 0xff);
    x87_verify(xb, x, start, &m);
    x_flags_after(xb, x);
    if (p)
        place_done(xb, p);
    x87_note(xb, x); /* also behind a handler, who has said the same */
}

/* What is loaded is looked at first, in a place where no other CPU of the guest's can change it. */
static void x87_load_control(struct xblock *xb, const struct xinsn *x)
{
    struct emit *e = &xb->e;
    struct xmem m;
    struct pending *p = place_mem(xb, x, &m);
    p->leaves = true; /* if the handler does it, what follows may not run here any more */
    place_emit(xb, 0x0fb7, T0, &m);
    emit_rm(e, 0x89, T0, RSP, FRAME_TARGET);
    EMIT(e, 0xf7, 0xd1); /* not ecx */
    place_pext(e, T0, T0, DATA_OFF(mask_x87));
    place_unless(xb, x);
    emit_rm(e, 0xd9, 5, RSP, FRAME_TARGET); /* fldcw */
    place_done(xb, p);
}

void x_x87_control(struct xblock *xb, const struct xinsn *x)
{
    struct emit *e = &xb->e;
    struct xmem m = { 0 };
    if (x->i->op == ZYDIS_MNEMONIC_EMMS && !cpu_has(xb->cpu, CPU_FEAT(FEAT_1_EDX, 23))) {
        x_callout(xb, x);
        return;
    }
    vec_check(xb, x, VEC_X87);
    place_island_soon(xb);
    if (x->mem == MEM_READ) {
        x87_load_control(xb, x);
        return;
    }
    if (x->mem) {
        struct pending *p = place_mem(xb, x, &m);
        place_emit(xb, x->op, x->ext, &m);
        place_done(xb, p);
        return;
    }
    switch (x->i->op) {
    case ZYDIS_MNEMONIC_FNSTSW: EMIT(e, 0xdf, 0xe0); break;
    case ZYDIS_MNEMONIC_FNCLEX: EMIT(e, 0xdb, 0xe2); break;
    case ZYDIS_MNEMONIC_EMMS: EMIT(e, 0x0f, 0x77); break;
    default: break; /* FWAIT: nothing is pending */
    }
}
