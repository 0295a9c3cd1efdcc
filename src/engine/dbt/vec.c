/* SSE, AVX and what else the host executes itself (BMI, CRC32, ...): the guest's own instruction with its memory operand
 * and general registers renamed. Vector registers are in the host's register of the same number for as long as a
 * block lasts: loaded at the first use, stored where C code may look (calls, slow accesses, block ends).
 *
 * Which instructions may run so, and what must hold for them, hostexec's list says (struct hx_class). What does not hold, or
 * would fault, goes to the handler. MXCSR is the guest's from the first instruction that needs it until C code runs; only while
 * the guest masks all SIMD exceptions, so that none arrives as a signal here. */
#include <string.h>

#include "engine/dbt/place.h"
#include "engine/interp/hostexec.h"

/* --- classification --- */

/* Bits of dbt_data.vec that an instruction of this class needs; false: not of a known kind. */
static bool vec_need_bits(const struct hx_class *c, uint8_t *need)
{
    uint32_t mask = c->cr0_mask & ~(c->cr0_want & CR0_PE); /* that is so in 64-bit code */
    *need = 0;
    if (!c->cr4_need && !c->xcr0_need && (!mask || c->flags & HX_MMX))
        return !(mask & ~(CR0_EM | CR0_TS)); /* BMI among others */
    uint32_t cr0 = c->xcr0_need ? CR0_TS : CR0_EM | CR0_TS, cr4 = c->xcr0_need ? CR4_OSXSAVE : CR4_OSFXSR;
    if ((mask & ~cr0) || (c->cr0_want & ~(uint32_t)CR0_PE) || (c->cr4_need & ~cr4))
        return false;
    *need = !c->xcr0_need ? VEC_SSE : c->xcr0_need & XCR0_AVX512 ? VEC_AVX512 : VEC_AVX;
    return !(c->xcr0_need & ~(uint32_t)(XCR0_SSE | XCR0_AVX | XCR0_AVX512));
}

uint8_t dbt_vec_bits(const struct cpu *cpu)
{
    unsigned v = 0;
    uint64_t x = cpu->xcr0, avx = XCR0_SSE | XCR0_AVX;
    if (!(cpu->cr0 & (CR0_EM | CR0_TS)) && (cpu->cr4 & CR4_OSFXSR))
        v |= VEC_SSE;
    if (!(cpu->cr0 & CR0_TS) && (cpu->cr4 & CR4_OSXSAVE) && (x & avx) == avx)
        v |= VEC_AVX | ((x & XCR0_AVX512) == XCR0_AVX512 ? VEC_AVX512 : 0);
    return (uint8_t)v;
}

/* One general register operand: by its place in the encoding, or implicit and then only in a register that keeps its number. */
static bool vec_gpr(struct xvec *v, struct xinsn *x, const ZydisDecodedOperand *op, bool wr)
{
    unsigned n = (unsigned)ZydisRegisterGetId(ZydisRegisterGetLargestEnclosing(ZYDIS_MACHINE_MODE_LONG_64, op->reg.value));
    switch (op->encoding) {
    case ZYDIS_OPERAND_ENCODING_MODRM_REG:
        v->reg_gpr = true;
        x->reg_write |= wr;
        return true;
    case ZYDIS_OPERAND_ENCODING_MODRM_RM:
        v->rm_gpr = true;
        x->rm_write |= wr;
        return true;
    case ZYDIS_OPERAND_ENCODING_NDSNDD:
        v->vvvv_gpr = true;
        v->vvvv_write |= wr;
        return true;
    default:
        v->rcx_out |= n == RCX && op->actions == ZYDIS_OPERAND_ACTION_WRITE; /* PCMPISTRI and its like */
        return place_of(n) == n || v->rcx_out;
    }
}

static bool vec_operands(struct xinsn *x, const struct decoded *d)
{
    struct xvec *v = &x->v;
    for (unsigned n = 0; n < d->z.operand_count; n++) {
        const ZydisDecodedOperand *op = &d->ops[n];
        if (op->type != ZYDIS_OPERAND_TYPE_REGISTER)
            continue;
        bool wr = op->actions & ZYDIS_OPERAND_ACTION_MASK_WRITE;
        switch (ZydisRegisterGetClass(op->reg.value)) {
        case ZYDIS_REGCLASS_XMM: case ZYDIS_REGCLASS_YMM: case ZYDIS_REGCLASS_ZMM:
            v->regs |= 1u << (ZydisRegisterGetId(op->reg.value) & 31);
            break;
        case ZYDIS_REGCLASS_MMX: v->mmx |= (uint8_t)(1u << (ZydisRegisterGetId(op->reg.value) & 7)); break;
        case ZYDIS_REGCLASS_GPR8:
            x->op |= OP_BYTE;
            if (!vec_gpr(v, x, op, wr))
                return false;
            break;
        case ZYDIS_REGCLASS_GPR16: case ZYDIS_REGCLASS_GPR32: case ZYDIS_REGCLASS_GPR64:
            if (!vec_gpr(v, x, op, wr))
                return false;
            break;
        case ZYDIS_REGCLASS_FLAGS: case ZYDIS_REGCLASS_MASK: break;
        default: return false;
        }
    }
    return true;
}

/* The pieces of the encoding. */
static bool vec_encoding(struct xinsn *x, const struct decoded *d)
{
    const ZydisDecodedInstruction *z = &d->z;
    struct xvec *v = &x->v;
    const uint8_t *b;
    x->rm = (uint8_t)(z->raw.modrm.rm), x->reg = z->raw.modrm.reg;
    v->opcode = z->opcode;
    switch (z->encoding) {
    case ZYDIS_INSTRUCTION_ENCODING_LEGACY:
        x->op |= z->raw.rex.W ? OP_W : 0;
        for (unsigned n = 0; n < z->raw.prefix_count; n++)
            if (z->raw.prefixes[n].type != ZYDIS_PREFIX_TYPE_IGNORED)
                x->op |= z->raw.prefixes[n].value == 0x66   ? OP_66
                         : z->raw.prefixes[n].value == 0xf2 ? OP_F2
                         : z->raw.prefixes[n].value == 0xf3 ? OP_F3
                                                            : 0;
        x->op |= z->opcode | (z->opcode_map == ZYDIS_OPCODE_MAP_0F38   ? 0x0f3800
                              : z->opcode_map == ZYDIS_OPCODE_MAP_0F3A ? 0x0f3a00
                                                                       : 0x0f00);
        x->rm |= z->raw.rex.B << 3;
        x->reg |= z->raw.rex.R << 3;
        return z->opcode_map == ZYDIS_OPCODE_MAP_0F38 || z->opcode_map == ZYDIS_OPCODE_MAP_0F3A ||
               z->opcode_map == ZYDIS_OPCODE_MAP_0F;
    case ZYDIS_INSTRUCTION_ENCODING_VEX:
        b = d->raw + z->raw.vex.offset;
        v->enc = ENC_VEX;
        v->map = b[0] == 0xc5 ? 1 : b[1] & 31;
        v->tail = (b[0] == 0xc5 ? b[1] & 7 : b[2] & 0x87);
        v->vvvv = ~(b[0] == 0xc5 ? b[1] : b[2]) >> 3 & 15;
        x->reg |= (~b[1] >> 7 & 1) << 3;
        x->rm |= b[0] == 0xc5 ? 0 : (~b[1] >> 5 & 1) << 3;
        return true;
    default:
        b = d->raw + z->raw.evex.offset;
        v->enc = ENC_EVEX;
        memcpy(v->evex, b + 1, 3);
        x->reg |= (~b[1] >> 7 & 1) << 3; /* of general registers; vector registers stay as they are */
        x->rm |= (~b[1] >> 5 & 1) << 3;
        return !v->vvvv_gpr;
    }
}

bool x_classify_vec(struct xinsn *x, const struct decoded *d)
{
    const struct stub *s = x->i->stub;
    if (!s || d->z.raw.imm[1].size || s->c.flags & HX_X87 || s->c.packed || s->c.whole ||
        (s->c.align && s->c.align + 1u != s->c.mem_size))
        return false;
    x->op = 0;
    if (!vec_need_bits(&s->c, &x->v.need) || !vec_operands(x, d) || !vec_encoding(x, d))
        return false;
    x->v.x87 = s->c.flags & HX_MMX;
    x->v.align = s->c.align != 0;
    x->v.quiet = s->c.mask_reg || (x->v.x87 && s->c.mem_write); /* an MMX store that faults has set TOP, on Intel's CPUs */
    x->size = s->c.mem_size;
    x->mem = !s->c.mem_size ? MEM_NONE : s->c.mem_write ? MEM_WRITE : MEM_READ;
    x->ext = NO_REG;
    return true;
}

/* --- the registers --- */

/* VMOVUPS, EVEX.VMOVUPS with [gs:off]. op 0x10 loads, 0x11 stores. */
static void vec_move(struct emit *e, unsigned op, unsigned v, unsigned size)
{
    uint32_t off = CPU_OFF(zmm) + 64 * v;
    unsigned l = size == 64 ? 2 : size == 32 ? 1 : 0;
    emit_byte(e, 0x65);
    if (size == 64 || v >= 16)
        EMIT(e, 0x62, (~v >> 3 & 1) << 7 | 0x60 | (~v >> 4 & 1) << 4 | 1, 0x7c, l << 5 | 8, op);
    else
        EMIT(e, 0xc4, (~v >> 3 & 1) << 7 | 0x61, 0x78 | l << 2, op);
    EMIT(e, (v & 7) << 3 | 4, 0x25);
    emit_u32(e, off);
}

/* KMOVQ (KMOVW without AVX512BW): op 0x90 loads, 0x91 stores. */
static void vec_move_masks(struct emit *e, unsigned op)
{
    for (unsigned k = 0; k < 8; k++) {
        EMIT(e, 0x65, 0xc4, 0xe1, __builtin_cpu_supports("avx512bw") ? 0xf8 : 0x78, op, k << 3 | 4, 0x25);
        emit_u32(e, CPU_OFF(k) + 8 * k);
    }
}

/* Registers 0 to 15. SSE alone: MOVUPS, since the host may have no more. */
static void vec_move_first(struct emit *e, unsigned op, unsigned level)
{
    for (unsigned v = 0; v < 16; v++) {
        if (level == VEC_SSE)
            emit_cpu(e, 0x0f00 | op, v, CPU_OFF(zmm) + 64 * v);
        else
            vec_move(e, op, v, level == VEC_AVX512 ? 64 : level == VEC_AVX ? 32 : 16);
    }
}

static void vec_move_rest(struct emit *e, unsigned op)
{
    for (unsigned v = 16; v < 32; v++)
        vec_move(e, op, v, 64);
    vec_move_masks(e, op | 0x80);
}

static void vec_move_all(struct emit *e, unsigned op, unsigned level)
{
    vec_move_first(e, op, level);
    if (level == VEC_AVX512)
        vec_move_rest(e, op);
}

void dbt_vec_emit_load(struct emit *e, unsigned level) { vec_move_all(e, 0x10, level); }
void dbt_vec_emit_load_low(struct emit *e) { vec_move_first(e, 0x10, VEC_LOW); }
void dbt_vec_emit_load_rest(struct emit *e) { vec_move_rest(e, 0x10); }

bool dbt_vec_low(const struct cpu *cpu)
{
    uint64_t any = 0;
    for (unsigned v = 0; v < 16; v++)
        for (unsigned n = 16; n < 64; n += 8)
            any |= ld_le64(&cpu->zmm[v][n]);
    return !any;
}

void dbt_vec_emit_save(struct emit *e, unsigned level)
{
    vec_move_all(e, 0x11, level);
    emit_cpu(e, 0x0fae, 3, CPU_OFF(mxcsr)); /* stmxcsr */
    if (level != VEC_SSE)
        EMIT(e, 0xc5, 0xf8, 0x77); /* vzeroupper: C code may be SSE code */
}

/* --- emission --- */

void vec_check(struct xblock *xb, const struct xinsn *x, unsigned need)
{
    struct emit *e = &xb->e;
    if (!need || (xb->vec_ok & need))
        return;
    emit_data(e, OP_W | 0x8b, T0, DATA_OFF(vec_ok) + 8u * need, 0);
    struct pending *p = place_pend(xb, PEND_VEC, x);
    p->need = (uint8_t)need;
    place_jrcxz(xb, &p->from[0]);
    p->op = e->p;
    xb->vec_ok |= (uint8_t)(need == VEC_X87 ? need : need | (need - 1)); /* AVX is only on where SSE is */
}

/* EVEX's first byte, with R, X and B for what was renamed. */
static unsigned vec_evex0(const struct xinsn *x, unsigned reg, unsigned rm, unsigned index)
{
    unsigned p = x->v.evex[0];
    if (x->v.reg_gpr)
        p = (p & ~0x80u) | 0x10 | (~reg >> 3 & 1) << 7;
    if (x->mem)
        return (p & ~0x60u) | 0x20 | (~index >> 3 & 1) << 6;
    return x->v.rm_gpr ? (p & ~0x20u) | 0x40 | (~rm >> 3 & 1) << 5 : p;
}

/* The instruction with host registers reg, vvvv, and rm or the memory operand. */
static void vec_encode(struct xblock *xb, const struct xinsn *x, unsigned reg, unsigned vvvv, unsigned rm, const struct xmem *m)
{
    struct emit *e = &xb->e;
    const struct xvec *v = &x->v;
    bool sib = x->mem && m->ea != NO_REG;
    unsigned b = sib ? T0 : x->mem ? m->host : rm, index = sib ? m->ea : 0;
    bool any = x->mem && m->disp, small = any && v->enc == ENC_VEX && m->disp == (int8_t)m->disp; /* EVEX would scale it */
    unsigned modrm = (small ? 0x40 : any ? 0x80 : x->mem ? 0 : 0xc0) | (reg & 7) << 3 | (sib ? 4 : b & 7);
    switch (v->enc) {
    case ENC_LEGACY:
        if (x->mem)
            place_emit(xb, x->op, reg, m);
        else
            emit_rr(e, x->op, reg, rm);
        break;
    case ENC_VEX:
        EMIT(e, 0xc4, (~reg >> 3 & 1) << 7 | (~index >> 3 & 1) << 6 | (~b >> 3 & 1) << 5 | v->map, v->tail | (~vvvv & 15) << 3,
             v->opcode, modrm);
        break;
    default:
        emit_byte(e, 0x62);
        emit_byte(e, vec_evex0(x, reg, rm, index));
        EMIT(e, v->evex[1], v->evex[2], v->opcode, modrm);
        break;
    }
    if (sib && v->enc != ENC_LEGACY)
        emit_byte(e, (index & 7) << 3 | (b & 7));
    if (small)
        emit_byte(e, (uint8_t)m->disp);
    else if (any && v->enc != ENC_LEGACY)
        emit_u32(e, (uint32_t)m->disp);
    emit_bytes(e, x->imm, x->imm_len);
}

/* What was written must be the same instruction, by the decoder's word: this is where guest bytes become host bytes. */
bool vec_verify(const struct xinsn *x, const uint8_t *p, unsigned len, const struct xmem *m)
{
    struct insn again;
    struct decoded d;
    if (insn_decode(p, len, 8, false, &again, &d) != DECODE_OK || again.len != len || again.op != x->i->op)
        return false;
    uint32_t regs = 0, mmx = 0;
    for (unsigned n = 0; n < d.z.operand_count; n++) {
        const ZydisDecodedOperand *op = &d.ops[n];
        ZydisRegisterClass c = op->type == ZYDIS_OPERAND_TYPE_REGISTER ? ZydisRegisterGetClass(op->reg.value) : 0;
        if (op->type == ZYDIS_OPERAND_TYPE_MEMORY &&
            (op->mem.base != ZYDIS_REGISTER_RCX || (m->ea == NO_REG ? op->mem.index != ZYDIS_REGISTER_NONE
                                                                    : (unsigned)op->mem.index != ZYDIS_REGISTER_RAX + m->ea) ||
             op->mem.disp.value != m->disp || op->size / 8 != x->size))
            return false;
        if (c == ZYDIS_REGCLASS_XMM || c == ZYDIS_REGCLASS_YMM || c == ZYDIS_REGCLASS_ZMM)
            regs |= 1u << (ZydisRegisterGetId(op->reg.value) & 31);
        if (c == ZYDIS_REGCLASS_MMX)
            mmx |= 1u << (ZydisRegisterGetId(op->reg.value) & 7);
    }
    return regs == x->v.regs && mmx == x->v.mmx;
}

static unsigned vec_place(struct xblock *xb, unsigned n, bool gpr, unsigned temp)
{
    return gpr ? place_get(xb, n, temp) : n;
}

static void vec_put(struct xblock *xb, unsigned n, bool written, unsigned host)
{
    if (written && place_of(n) == PLACE_MEMORY)
        emit_guest(&xb->e, OP_W | 0x89, host, n);
}

/* With a memory operand and two general registers that are in memory (MULX, ANDN ...), T1 is needed for the second one. */
static bool vec_crowded(const struct xinsn *x)
{
    return x->mem && x->v.vvvv_gpr && place_of(x->v.vvvv) == PLACE_MEMORY;
}

static void vec_operation(struct xblock *xb, const struct xinsn *x, struct xmem *m)
{
    const struct xvec *v = &x->v;
    if (vec_crowded(x))
        place_host(xb, m, T0);
    x_flags_before(xb, x);
    unsigned reg = vec_place(xb, x->reg, v->reg_gpr, T2);
    unsigned vvvv = vec_place(xb, v->vvvv, v->vvvv_gpr, x->mem ? T1 : T0);
    unsigned rm = x->mem ? 0 : vec_place(xb, x->rm, v->rm_gpr, T1);
    if (vec_crowded(x))
        place_fault_to_handler(xb, x); /* the address is gone */
    uint8_t *start = xb->e.p;
    vec_encode(xb, x, reg, vvvv, rm, m);
    if (!xb->e.overflow && !vec_verify(x, start, (unsigned)(xb->e.p - start), m))
        xb->e.overflow = true;
    vec_put(xb, v->vvvv, v->vvvv_gpr && v->vvvv_write, vvvv);
    vec_put(xb, x->reg, v->reg_gpr && x->reg_write, reg); /* MULX to the same register twice: the upper half stays */
    vec_put(xb, x->rm, v->rm_gpr && x->rm_write, rm);
    if (v->rcx_out)
        emit_rr(&xb->e, OP_W | 0x89, RCX, place_of(RCX));
    x_flags_after(xb, x);
}

void x_vec(struct xblock *xb, const struct xinsn *x)
{
    struct pending *p = NULL;
    struct xmem m = { 0 };
    vec_check(xb, x, x->v.need);
    if (x->v.x87) {
        place_island_soon(xb);
        vec_check(xb, x, VEC_X87);
    }
    if (x->mem)
        p = place_mem(xb, x, &m);
    vec_operation(xb, x, &m);
    if (p)
        place_done(xb, p);
}

/* VZEROUPPER, VZEROALL. */
void x_vzero(struct xblock *xb, const struct xinsn *x)
{
    vec_check(xb, x, x->v.need);
    EMIT(&xb->e, 0xc5, x->i->op == ZYDIS_MNEMONIC_VZEROALL ? 0xfc : 0xf8, 0x77);
}

/* The host's MXCSR is the guest's. One that unmasks exceptions, which would come as signals, or has bits that are reserved for the guest
 * (AMD's MM is not shown to it), is for the handler, and the block is left, as it is when the handler did it for any other reason: what follows
 * counts on the masks. It is looked at in a place where no other CPU of the guest's can change it. */
void x_mxcsr(struct xblock *xb, const struct xinsn *x)
{
    struct emit *e = &xb->e;
    struct xmem m;
    vec_check(xb, x, x->v.need);
    struct pending *p = place_mem(xb, x, &m);
    if (x->mem == MEM_READ) {
        p->leaves = true;
        place_emit(xb, 0x8b, T0, &m);
        emit_rm(e, 0x89, T0, RSP, FRAME_TARGET);
        place_pext(e, T0, T0, DATA_OFF(mask_reserved));
        place_unless(xb, x);
        emit_rm(e, 0x8b, T0, RSP, FRAME_TARGET);
        EMIT(e, 0xf7, 0xd1); /* not ecx */
        place_pext(e, T0, T0, DATA_OFF(mask_unmasked));
        place_unless(xb, x);
        place_fault_to_handler(xb, x); /* reserved bits: #GP */
        emit_rm(e, 0x0fae, x->ext, RSP, FRAME_TARGET);
    } else {
        place_emit(xb, 0x0fae, x->ext, &m);
    }
    place_done(xb, p);
}
