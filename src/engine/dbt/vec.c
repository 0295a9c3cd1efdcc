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
    *need = 0;
    if (!c->cr0_mask && !c->cr4_need && !c->xcr0_need)
        return true;
    uint32_t cr0 = c->xcr0_need ? CR0_PE | CR0_TS : CR0_EM | CR0_TS, cr4 = c->xcr0_need ? CR4_OSXSAVE : CR4_OSFXSR;
    if ((c->cr0_mask & ~cr0) || (c->cr0_want & ~(uint32_t)CR0_PE) || (c->cr4_need & ~cr4))
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
        return place_of(n) == n;
    }
}

/* Legacy instructions that write all of their destination's 128 bits. */
static bool vec_whole(const struct insn *i)
{
    switch (i->op) {
    case ZYDIS_MNEMONIC_MOVAPS: case ZYDIS_MNEMONIC_MOVUPS: case ZYDIS_MNEMONIC_MOVAPD: case ZYDIS_MNEMONIC_MOVUPD:
    case ZYDIS_MNEMONIC_MOVDQA: case ZYDIS_MNEMONIC_MOVDQU: case ZYDIS_MNEMONIC_PSHUFD: case ZYDIS_MNEMONIC_LDDQU:
        return true;
    case ZYDIS_MNEMONIC_MOVSS: case ZYDIS_MNEMONIC_MOVSD: case ZYDIS_MNEMONIC_MOVQ: case ZYDIS_MNEMONIC_MOVD:
        return i->flags & INSN_MEM;
    default:
        return false;
    }
}

static void vec_note(struct xvec *v, const struct insn *i, const ZydisDecodedOperand *op, unsigned size, bool legacy)
{
    unsigned n = (unsigned)ZydisRegisterGetId(op->reg.value) & 31;
    bool wr = op->actions & ZYDIS_OPERAND_ACTION_MASK_WRITE, rd = op->actions & ZYDIS_OPERAND_ACTION_MASK_READ;
    if (wr)
        v->out |= 1u << n;
    if (rd || (legacy && !vec_whole(i)) || (op->actions & ZYDIS_OPERAND_ACTION_CONDWRITE))
        v->in |= 1u << n;
    if (size > v->width)
        v->width = (uint8_t)size;
}

/* Masks are loaded before and stored after each instruction. Under a mask the destination is read too. */
static void vec_note_mask(struct xvec *v, const ZydisDecodedOperand *op, bool wr)
{
    unsigned bit = 1u << (ZydisRegisterGetId(op->reg.value) & 7);
    if (op->encoding == ZYDIS_OPERAND_ENCODING_MASK && bit == 1)
        return; /* no masking */
    v->masked |= op->encoding == ZYDIS_OPERAND_ENCODING_MASK;
    v->mask_in |= (uint8_t)bit;
    v->mask_out |= (uint8_t)(wr ? bit : 0);
}

static bool vec_operands(struct xinsn *x, const struct decoded *d)
{
    struct xvec *v = &x->v;
    bool legacy = d->z.encoding == ZYDIS_INSTRUCTION_ENCODING_LEGACY;
    for (unsigned n = 0; n < d->z.operand_count; n++) {
        const ZydisDecodedOperand *op = &d->ops[n];
        if (op->type != ZYDIS_OPERAND_TYPE_REGISTER)
            continue;
        bool wr = op->actions & ZYDIS_OPERAND_ACTION_MASK_WRITE;
        switch (ZydisRegisterGetClass(op->reg.value)) {
        case ZYDIS_REGCLASS_XMM: vec_note(v, x->i, op, 16, legacy); break;
        case ZYDIS_REGCLASS_YMM: vec_note(v, x->i, op, 32, legacy); break;
        case ZYDIS_REGCLASS_ZMM: vec_note(v, x->i, op, 64, legacy); break;
        case ZYDIS_REGCLASS_GPR8:
            x->op |= OP_BYTE;
            if (!vec_gpr(v, x, op, wr))
                return false;
            break;
        case ZYDIS_REGCLASS_GPR16: case ZYDIS_REGCLASS_GPR32: case ZYDIS_REGCLASS_GPR64:
            if (!vec_gpr(v, x, op, wr))
                return false;
            break;
        case ZYDIS_REGCLASS_FLAGS: break;
        case ZYDIS_REGCLASS_MASK: vec_note_mask(v, op, wr); break;
        default: return false;
        }
    }
    if (v->masked)
        v->in |= v->out;
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
        return !v->reg_gpr && !v->rm_gpr && !v->vvvv_gpr;
    }
}

bool x_classify_vec(struct xinsn *x, const struct decoded *d)
{
    const struct stub *s = x->i->stub;
    if (!s || d->z.raw.imm[1].size || s->c.flags & (HX_MMX | HX_X87) || s->c.mask_reg || s->c.packed)
        return false;
    x->op = 0;
    if (!vec_need_bits(&s->c, &x->v.need) || !vec_operands(x, d) || !vec_encoding(x, d))
        return false;
    x->v.mxcsr = s->c.flags & HX_MXCSR_USE;
    x->v.align = s->c.align;
    x->size = s->c.mem_size;
    x->mem = !s->c.mem_size ? MEM_NONE : s->c.mem_write ? MEM_WRITE : MEM_READ;
    x->ext = NO_REG;
    return true;
}

/* --- the registers --- */

static void vec_move(struct emit *e, unsigned op, unsigned v, unsigned size)
{
    uint32_t off = CPU_OFF(zmm) + 64 * v;
    unsigned l = size == 64 ? 2 : size == 32 ? 1 : 0;
    if (size == 16 && v < 16) {
        emit_cpu(e, 0x0f00 | op, v, off);
        return;
    }
    emit_byte(e, 0x65);
    if (size == 64 || v >= 16)
        EMIT(e, 0x62, (~v >> 3 & 1) << 7 | 0x60 | (~v >> 4 & 1) << 4 | 1, 0x7c, l << 5 | 8, op);
    else
        EMIT(e, 0xc4, (~v >> 3 & 1) << 7 | 0x61, 0x78 | l << 2, op);
    EMIT(e, (v & 7) << 3 | 4, 0x25);
    emit_u32(e, off);
}

/* KMOVQ (KMOVW without AVX512BW): op 0x90 loads, 0x91 stores. */
static void vec_move_masks(struct emit *e, unsigned op, unsigned masks)
{
    for (unsigned k = 0; k < 8; k++) {
        if (!(masks >> k & 1))
            continue;
        EMIT(e, 0x65, 0xc4, 0xe1, __builtin_cpu_supports("avx512bw") ? 0xf8 : 0x78, op, k << 3 | 4, 0x25);
        emit_u32(e, CPU_OFF(k) + 8 * k);
    }
}

void vec_store_dirty(struct xblock *xb, const struct vec_state *s)
{
    for (unsigned v = 0; v < 32; v++)
        if (s->dirty[v])
            vec_move(&xb->e, 0x11, v, s->dirty[v]);
}

void vec_load_again(struct xblock *xb, const struct vec_state *s)
{
    unsigned width = hx_vec_width(xb->cpu->cpuid);
    for (unsigned v = 0; v < 32; v++)
        if (s->size[v])
            vec_move(&xb->e, 0x10, v, s->size[v] < width ? s->size[v] : width);
}

void vec_flush(struct xblock *xb)
{
    vec_store_dirty(xb, &xb->vec);
    memset(&xb->vec, 0, sizeof(xb->vec));
}

static void vec_load(struct xblock *xb, unsigned v, unsigned size)
{
    struct vec_state *s = &xb->vec;
    if (v >= 16)
        size = 64;
    if (s->size[v] >= size)
        return;
    if (s->dirty[v])
        vec_move(&xb->e, 0x11, v, s->dirty[v]);
    s->dirty[v] = 0;
    vec_move(&xb->e, 0x10, v, size);
    s->size[v] = (uint8_t)size;
}

static void vec_loads(struct xblock *xb, const struct xinsn *x)
{
    for (unsigned v = 0; v < 32; v++)
        if (x->v.in >> v & 1)
            vec_load(xb, v, x->v.width);
}

static void vec_written(struct xblock *xb, const struct xinsn *x)
{
    struct vec_state *s = &xb->vec;
    unsigned width = hx_vec_width(xb->cpu->cpuid);
    for (unsigned v = 0; v < 32; v++) {
        if (!(x->v.out >> v & 1))
            continue;
        if (x->v.enc) { /* the rest of the register was cleared */
            s->size[v] = 64;
            s->dirty[v] = (uint8_t)width;
            continue;
        }
        if (s->size[v] < 16)
            s->size[v] = 16;
        if (s->dirty[v] < 16)
            s->dirty[v] = 16;
    }
}

/* --- emission --- */

static void vec_check(struct xblock *xb, const struct xinsn *x)
{
    struct emit *e = &xb->e;
    unsigned need = x->v.need & ~xb->vec_ok;
    if (need) {
        flags_save(xb);
        emit_data(e, 0xf6, 0, DATA_OFF(vec), 1); /* test byte, bit */
        emit_byte(e, need);
        place_pend_callout(xb, emit_jcc(e, 4), x, false);
        xb->flags_host = false;
        xb->vec_ok |= (uint8_t)need;
    }
    if (x->v.mxcsr && !xb->fp_on) {
        flags_save(xb);
        emit_data(e, 0x80, 7, DATA_OFF(fp), 1); /* cmp byte, 0 */
        emit_byte(e, 0);
        place_pend_callout(xb, emit_jcc(e, 4), x, true);
        xb->flags_host = false;
        xb->fp_on = true;
    }
}

/* The instruction with host registers reg, vvvv, and rm or [R15]. */
static void vec_encode(struct xblock *xb, const struct xinsn *x, unsigned reg, unsigned vvvv, unsigned rm)
{
    struct emit *e = &xb->e;
    const struct xvec *v = &x->v;
    unsigned b = x->mem ? R15 : rm, modrm = (reg & 7) << 3 | (b & 7) | (x->mem ? 0 : 0xc0);
    switch (v->enc) {
    case ENC_LEGACY:
        if (x->mem)
            emit_rm(e, x->op, reg, R15, 0);
        else
            emit_rr(e, x->op, reg, rm);
        break;
    case ENC_VEX:
        EMIT(e, 0xc4, (~reg >> 3 & 1) << 7 | 0x40 | (~b >> 3 & 1) << 5 | v->map, v->tail | (~vvvv & 15) << 3, v->opcode,
             modrm);
        break;
    default:
        emit_byte(e, 0x62);
        emit_byte(e, x->mem ? (v->evex[0] & ~0x20u) | 0x40 : v->evex[0]);
        EMIT(e, v->evex[1], v->evex[2], v->opcode, modrm);
        break;
    }
    emit_bytes(e, x->imm, x->imm_len);
}

/* What was written must be the same instruction, by the decoder's word: this is where guest bytes become host bytes. */
static bool vec_verify(const struct xinsn *x, const uint8_t *p, unsigned len)
{
    struct insn again;
    struct decoded d;
    if (insn_decode(p, len, 8, false, &again, &d) != DECODE_OK || again.len != len || again.op != x->i->op)
        return false;
    uint32_t regs = 0;
    for (unsigned n = 0; n < d.z.operand_count; n++) {
        const ZydisDecodedOperand *op = &d.ops[n];
        ZydisRegisterClass c = op->type == ZYDIS_OPERAND_TYPE_REGISTER ? ZydisRegisterGetClass(op->reg.value) : 0;
        if (op->type == ZYDIS_OPERAND_TYPE_MEMORY &&
            (op->mem.base != ZYDIS_REGISTER_R15 || op->mem.index != ZYDIS_REGISTER_NONE || op->mem.disp.value ||
             op->size / 8 != x->size))
            return false;
        if (c == ZYDIS_REGCLASS_XMM || c == ZYDIS_REGCLASS_YMM || c == ZYDIS_REGCLASS_ZMM)
            regs |= 1u << (ZydisRegisterGetId(op->reg.value) & 31);
    }
    return regs == (x->v.in | x->v.out);
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

static void vec_operation(struct xblock *xb, const struct xinsn *x)
{
    const struct xvec *v = &x->v;
    x_flags_before(xb, x);
    vec_loads(xb, x);
    vec_move_masks(&xb->e, 0x90, v->mask_in);
    unsigned reg = vec_place(xb, x->reg, v->reg_gpr, R14);
    unsigned vvvv = vec_place(xb, v->vvvv, v->vvvv_gpr, RAX);
    unsigned rm = x->mem ? 0 : vec_place(xb, x->rm, v->rm_gpr, R15);
    uint8_t *start = xb->e.p;
    vec_encode(xb, x, reg, vvvv, rm);
    if (!vec_verify(x, start, (unsigned)(xb->e.p - start)))
        xb->e.overflow = true;
    vec_move_masks(&xb->e, 0x91, v->mask_out);
    vec_put(xb, x->reg, v->reg_gpr && x->reg_write, reg);
    vec_put(xb, v->vvvv, v->vvvv_gpr && v->vvvv_write, vvvv);
    vec_put(xb, x->rm, v->rm_gpr && x->rm_write, rm);
    vec_written(xb, x);
    x_flags_after(xb, x);
}

void x_vec(struct xblock *xb, const struct xinsn *x)
{
    struct emit *e = &xb->e;
    struct pending *p = NULL;
    vec_check(xb, x);
    if (x->mem) {
        flags_save(xb);
        place_linear(xb, x);
        if (x->v.align) {
            EMIT(e, 0x41, 0xf6, 0xc7, x->v.align); /* test r15b */
            place_pend_callout(xb, emit_jcc(e, 5), x, false);
        }
        if (x->mem & MEM_WRITE)
            p = place_write(xb, x, x->i->seg, x->size, false);
        else
            place_read(xb, x, x->i->seg, x->size);
    }
    vec_operation(xb, x);
    if (p)
        place_store_done(xb, p);
}
