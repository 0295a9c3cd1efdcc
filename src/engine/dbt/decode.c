/* Classification: which instructions are translated, and how each one is encoded and behaves.
 *
 * Flags that the manual calls undefined count as set where CPUs compute them from the operands alone (logic, shifts
 * by a constant, scans), and as read where they may depend on their old value (multiplication, BT, rotates): then
 * the old value is in the host's flags when the instruction runs, and the result is what the host makes of it. */
#include <string.h>

#include "engine/dbt/place.h"
#include "x86/cpuid.h"

/* Shape of an opcode that is handled as it is. */
enum shape {
    S_NONE,
    S_MODRM,  /* ModRM.reg is a register */
    S_EXT,    /* ModRM.reg is part of the opcode */
    S_ACC,    /* accumulator and immediate: becomes the ModRM form */
};

static enum shape shape_one_byte(const ZydisDecodedInstruction *z)
{
    unsigned op = z->opcode;
    if (op < 0x40)
        return (op & 7) < 4 ? S_MODRM : (op & 7) < 6 ? S_ACC : S_NONE;
    switch (op) {
    case 0x63: case 0x69: case 0x6b: case 0x84: case 0x85: case 0x86: case 0x87:
    case 0x88: case 0x89: case 0x8a: case 0x8b:
        return S_MODRM;
    case 0x80: case 0x81: case 0x83: case 0xc0: case 0xc1: case 0xc6: case 0xc7:
    case 0xd0: case 0xd1: case 0xd2: case 0xd3: case 0xf6: case 0xf7: case 0xfe: case 0xff:
        return S_EXT;
    case 0xa8: case 0xa9:
        return S_ACC;
    default:
        return S_NONE;
    }
}

/* BT, BTS, BTR, BTC: a bit number in a register reaches beyond a memory operand. */
static bool shape_bit(unsigned op) { return op == 0xa3 || op == 0xab || op == 0xb3 || op == 0xbb; }

static enum shape shape_0f(const ZydisDecodedInstruction *z)
{
    unsigned op = z->opcode;
    bool reg = z->raw.modrm.mod == 3;
    if ((op & 0xf0) == 0x40)
        return S_MODRM;
    if ((op & 0xf0) == 0x90 || op == 0xba)
        return S_EXT;
    if (shape_bit(op))
        return reg ? S_MODRM : S_NONE;
    switch (op) {
    case 0xa4: case 0xa5: case 0xac: case 0xad: case 0xaf: case 0xb6: case 0xb7: case 0xbe: case 0xbf:
    case 0xb8: case 0xbc: case 0xbd: case 0xc0: case 0xc1:
        return S_MODRM;
    default:
        return S_NONE;
    }
}

/* Mnemonics that may be handled so; everything else that has such an opcode is left to its handler. */
static bool generic_mnemonic(const ZydisDecodedInstruction *z)
{
    if (z->meta.category == ZYDIS_CATEGORY_CMOV || z->meta.category == ZYDIS_CATEGORY_SETCC)
        return true;
    switch (z->mnemonic) {
    case ZYDIS_MNEMONIC_ADD: case ZYDIS_MNEMONIC_OR: case ZYDIS_MNEMONIC_ADC: case ZYDIS_MNEMONIC_SBB:
    case ZYDIS_MNEMONIC_AND: case ZYDIS_MNEMONIC_SUB: case ZYDIS_MNEMONIC_XOR: case ZYDIS_MNEMONIC_CMP:
    case ZYDIS_MNEMONIC_TEST: case ZYDIS_MNEMONIC_MOV: case ZYDIS_MNEMONIC_MOVZX: case ZYDIS_MNEMONIC_MOVSX:
    case ZYDIS_MNEMONIC_MOVSXD: case ZYDIS_MNEMONIC_XCHG: case ZYDIS_MNEMONIC_XADD: case ZYDIS_MNEMONIC_IMUL:
    case ZYDIS_MNEMONIC_INC: case ZYDIS_MNEMONIC_DEC: case ZYDIS_MNEMONIC_NEG: case ZYDIS_MNEMONIC_NOT:
    case ZYDIS_MNEMONIC_SHL: case ZYDIS_MNEMONIC_SHR: case ZYDIS_MNEMONIC_SAR: case ZYDIS_MNEMONIC_ROL:
    case ZYDIS_MNEMONIC_ROR: case ZYDIS_MNEMONIC_RCL: case ZYDIS_MNEMONIC_RCR: case ZYDIS_MNEMONIC_SHLD:
    case ZYDIS_MNEMONIC_SHRD: case ZYDIS_MNEMONIC_BT: case ZYDIS_MNEMONIC_BTS: case ZYDIS_MNEMONIC_BTR:
    case ZYDIS_MNEMONIC_BTC: case ZYDIS_MNEMONIC_BSF: case ZYDIS_MNEMONIC_BSR: case ZYDIS_MNEMONIC_TZCNT:
    case ZYDIS_MNEMONIC_LZCNT: case ZYDIS_MNEMONIC_POPCNT:
        return true;
    default:
        return false;
    }
}

/* --- flags --- */

/* Undefined flags that do not depend on what they were. */
static bool undefined_is_set(const struct insn *i, const ZydisDecodedInstruction *z)
{
    switch (z->mnemonic) {
    case ZYDIS_MNEMONIC_AND: case ZYDIS_MNEMONIC_OR: case ZYDIS_MNEMONIC_XOR: case ZYDIS_MNEMONIC_TEST:
    case ZYDIS_MNEMONIC_POPCNT:
        return true;
    case ZYDIS_MNEMONIC_SHL: case ZYDIS_MNEMONIC_SHR: case ZYDIS_MNEMONIC_SAR:
        return (i->osz >= 4);
    default:
        return false;
    }
}

/* Does the instruction leave all flags alone for some counts? */
static bool flags_conditional(const struct insn *i, const ZydisDecodedInstruction *z)
{
    switch (z->mnemonic) {
    case ZYDIS_MNEMONIC_SHL: case ZYDIS_MNEMONIC_SHR: case ZYDIS_MNEMONIC_SAR: case ZYDIS_MNEMONIC_ROL:
    case ZYDIS_MNEMONIC_ROR: case ZYDIS_MNEMONIC_RCL: case ZYDIS_MNEMONIC_RCR: case ZYDIS_MNEMONIC_SHLD:
    case ZYDIS_MNEMONIC_SHRD:
        break;
    default:
        return false;
    }
    if (z->opcode == 0xd0 || z->opcode == 0xd1)
        return false;
    bool by_cl = z->opcode == 0xd2 || z->opcode == 0xd3 || z->opcode == 0xa5 || z->opcode == 0xad;
    return by_cl || !(i->imm & (i->osz == 8 ? 63 : 31));
}

static void classify_flags(struct xinsn *x, const ZydisDecodedInstruction *z)
{
    const ZydisAccessedFlags *f = z->cpu_flags;
    if (!f)
        return;
    uint16_t set = (uint16_t)(f->modified | f->set_0 | f->set_1) & FL_ARITH, undef = f->undefined & FL_ARITH;
    x->use = f->tested & FL_ARITH;
    x->write = set | undef;
    x->kill = set & ~undef;
    if (flags_conditional(x->i, z)) {
        x->kill = 0;
        x->use |= x->write;
    } else if (undefined_is_set(x->i, z)) {
        x->kill |= undef;
    } else {
        x->use |= undef;
    }
}

/* --- operands --- */

/* Guest register of a ModRM field, from Zydis' raw fields. */
static void classify_modrm(struct xinsn *x, const ZydisDecodedInstruction *z, enum shape s)
{
    x->reg = x->rm = x->ext = NO_REG;
    if (s == S_EXT)
        x->ext = z->raw.modrm.reg;
    else
        x->reg = (uint8_t)(z->raw.modrm.reg | z->raw.rex.R << 3);
    if (z->raw.modrm.mod == 3)
        x->rm = (uint8_t)(z->raw.modrm.rm | z->raw.rex.B << 3);
}

static void classify_actions(struct xinsn *x, const struct decoded *d)
{
    for (unsigned n = 0; n < d->z.operand_count_visible; n++) {
        const ZydisDecodedOperand *op = &d->ops[n];
        bool wr = op->actions & ZYDIS_OPERAND_ACTION_MASK_WRITE, rd = op->actions & ZYDIS_OPERAND_ACTION_MASK_READ;
        if (op->type == ZYDIS_OPERAND_TYPE_MEMORY) {
            x->mem = (uint8_t)((rd ? MEM_READ : 0) | (wr ? MEM_WRITE : 0));
            x->size = (uint8_t)(op->size / 8);
        } else if (op->type == ZYDIS_OPERAND_TYPE_REGISTER) {
            if (op->encoding == ZYDIS_OPERAND_ENCODING_MODRM_REG)
                x->reg_write = wr;
            else
                x->rm_write |= wr;
        }
    }
}

static void classify_imm(struct xinsn *x, const struct decoded *d)
{
    if (!d->z.raw.imm[0].size)
        return;
    x->imm_len = d->z.raw.imm[0].size / 8;
    memcpy(x->imm, d->raw + d->z.raw.imm[0].offset, x->imm_len);
}

static uint32_t classify_options(const struct xinsn *x, const struct decoded *d)
{
    uint32_t op = d->z.raw.rex.W ? OP_W : 0;
    if (!op && d->z.operand_width == 16 && x->i->esz == 2)
        op = OP_66;
    if (x->i->osz == 1 || x->i->osz2 == 1)
        op |= OP_BYTE;
    return op;
}

/* add al, imm and its like: the accumulator becomes ModRM.rm. */
static void classify_acc(struct xinsn *x, const ZydisDecodedInstruction *z)
{
    bool test = z->opcode >= 0xa8;
    unsigned wide = z->opcode & 1;
    x->op = (x->op & ~0xffffffu) | ((test ? 0xf6 : 0x80) + wide);
    x->ext = test ? 0 : z->opcode >> 3 & 7;
    x->reg = NO_REG;
    x->rm = RAX;
    x->rm_write = !test && z->mnemonic != ZYDIS_MNEMONIC_CMP;
}

static bool classify_generic(struct xinsn *x, const struct decoded *d)
{
    const ZydisDecodedInstruction *z = &d->z;
    bool map_0f = z->opcode_map == ZYDIS_OPCODE_MAP_0F;
    if (z->encoding != ZYDIS_INSTRUCTION_ENCODING_LEGACY || (!map_0f && z->opcode_map != ZYDIS_OPCODE_MAP_DEFAULT))
        return false;
    enum shape s = map_0f ? shape_0f(z) : shape_one_byte(z);
    if (s == S_NONE || !generic_mnemonic(z))
        return false;
    x->op = classify_options(x, d) | (map_0f ? 0x0f00 : 0) | z->opcode;
    if (map_0f && (z->mnemonic == ZYDIS_MNEMONIC_POPCNT || z->mnemonic == ZYDIS_MNEMONIC_TZCNT ||
                   z->mnemonic == ZYDIS_MNEMONIC_LZCNT))
        x->op |= OP_F3;
    classify_actions(x, d);
    classify_imm(x, d);
    if (s == S_ACC)
        classify_acc(x, z);
    else
        classify_modrm(x, z, s);
    x->reg_read = !(z->mnemonic == ZYDIS_MNEMONIC_MOV && x->reg_write && x->i->osz >= 4);
    x->rm_read = !(z->mnemonic == ZYDIS_MNEMONIC_MOV && x->rm_write && x->i->osz >= 4);
    x->no_direct = z->mnemonic == ZYDIS_MNEMONIC_XCHG || z->mnemonic == ZYDIS_MNEMONIC_XADD ||
                   (map_0f && shape_bit(z->opcode));
    x->by_cl = map_0f ? z->opcode == 0xa5 || z->opcode == 0xad : (z->opcode | 1) == 0xd3;
    if (x->by_cl && map_0f && x->mem)
        return false; /* no register left for its operand */
    x->lock = (x->i->flags & INSN_LOCK) || (z->mnemonic == ZYDIS_MNEMONIC_XCHG && x->mem);
    classify_flags(x, z);
    /* One-operand multiplication and the stack forms have their own code or none. */
    return !(s == S_EXT && !map_0f && (z->opcode | 1) == 0xf7 && z->raw.modrm.reg >= 4);
}

/* --- what is not generic --- */

static uint8_t classify_branch(struct xinsn *x, const struct decoded *d)
{
    const struct insn *i = x->i;
    if (d->z.meta.branch_type == ZYDIS_BRANCH_TYPE_FAR || i->esz != d->code_size)
        return X_CALL;
    classify_actions(x, d);
    x->rm = (uint8_t)(d->z.raw.modrm.rm | d->z.raw.rex.B << 3);
    switch (i->op) {
    case ZYDIS_MNEMONIC_JMP: return i->form == FORM_I ? X_JMP : X_JMP_IND;
    case ZYDIS_MNEMONIC_CALL: return i->form == FORM_I ? X_CALL_REL : X_CALL_IND;
    case ZYDIS_MNEMONIC_RET: return X_RET;
    case ZYDIS_MNEMONIC_JRCXZ: return X_JRCXZ;
    default: break;
    }
    bool jcc = (d->z.opcode_map == ZYDIS_OPCODE_MAP_0F && (d->z.opcode & 0xf0) == 0x80) || (d->z.opcode & 0xf0) == 0x70;
    return d->z.meta.category == ZYDIS_CATEGORY_COND_BR && jcc ? X_JCC : X_CALL;
}

static uint8_t classify_stack(struct xinsn *x, const struct decoded *d)
{
    const struct insn *i = x->i;
    unsigned op = d->z.opcode;
    bool map_1 = d->z.opcode_map == ZYDIS_OPCODE_MAP_DEFAULT;
    if (!map_1 || i->esz != d->code_size)
        return X_CALL;
    x->rm = (uint8_t)((op & 7) | d->z.raw.rex.B << 3);
    if ((op & 0xf8) == 0x50)
        return X_PUSH;
    if ((op & 0xf8) == 0x58)
        return X_POP;
    if (op == 0x68 || op == 0x6a) {
        x->rm = NO_REG;
        return X_PUSH;
    }
    if (op == 0xff && d->z.raw.modrm.mod != 3) {
        x->mem = MEM_READ;
        x->size = d->code_size;
        return X_PUSH;
    }
    return X_CALL;
}

/* By mnemonic; X_GENERIC: try that. */
static uint8_t classify_special(struct xinsn *x, const struct decoded *d)
{
    const ZydisDecodedInstruction *z = &d->z;
    const struct insn *i = x->i;
    switch (i->op) {
    case ZYDIS_MNEMONIC_NOP: case ZYDIS_MNEMONIC_ENDBR64: case ZYDIS_MNEMONIC_ENDBR32:
        return X_NOTHING;
    case ZYDIS_MNEMONIC_PREFETCHT0: case ZYDIS_MNEMONIC_PREFETCHT1: case ZYDIS_MNEMONIC_PREFETCHT2:
    case ZYDIS_MNEMONIC_PREFETCHNTA: case ZYDIS_MNEMONIC_PREFETCHW:
        x->op = 0x0f00u | z->opcode;
        x->ext = z->raw.modrm.reg;
        return X_PREFETCH;
    case ZYDIS_MNEMONIC_LEA:
        x->reg = (uint8_t)(z->raw.modrm.reg | z->raw.rex.R << 3);
        return X_LEA;
    case ZYDIS_MNEMONIC_PUSH: case ZYDIS_MNEMONIC_POP:
        return classify_stack(x, d);
    case ZYDIS_MNEMONIC_CLI: return X_CLI;
    case ZYDIS_MNEMONIC_STI: return X_STI;
    case ZYDIS_MNEMONIC_PUSHFQ:
        x->use = FL_ARITH;
        return i->esz == 8 ? X_PUSHF : X_CALL;
    case ZYDIS_MNEMONIC_LDMXCSR: case ZYDIS_MNEMONIC_STMXCSR: case ZYDIS_MNEMONIC_VLDMXCSR: case ZYDIS_MNEMONIC_VSTMXCSR:
        x->ext = z->raw.modrm.reg;
        x->size = 4;
        x->mem = x->ext == 2 ? MEM_READ : MEM_WRITE;
        x->v.need = z->encoding == ZYDIS_INSTRUCTION_ENCODING_LEGACY ? VEC_SSE : VEC_AVX;
        return X_MXCSR;
    case ZYDIS_MNEMONIC_MOVSB: case ZYDIS_MNEMONIC_MOVSW: case ZYDIS_MNEMONIC_MOVSD: case ZYDIS_MNEMONIC_MOVSQ:
    case ZYDIS_MNEMONIC_STOSB: case ZYDIS_MNEMONIC_STOSW: case ZYDIS_MNEMONIC_STOSD: case ZYDIS_MNEMONIC_STOSQ:
        return z->meta.category == ZYDIS_CATEGORY_STRINGOP ? x_classify_string(x, d) : 0xff; /* MOVSD is an SSE2 instruction, too */
    case ZYDIS_MNEMONIC_FNSTCW: case ZYDIS_MNEMONIC_FLDCW: case ZYDIS_MNEMONIC_FNSTSW: case ZYDIS_MNEMONIC_FNCLEX:
    case ZYDIS_MNEMONIC_FWAIT: case ZYDIS_MNEMONIC_EMMS:
        return x_classify_x87_control(x, d);
    case ZYDIS_MNEMONIC_VZEROUPPER: case ZYDIS_MNEMONIC_VZEROALL:
        x->v.need = VEC_AVX;
        return X_VZERO;
    case ZYDIS_MNEMONIC_LEAVE:
        return i->esz == d->code_size ? X_LEAVE : X_CALL;
    case ZYDIS_MNEMONIC_CBW: case ZYDIS_MNEMONIC_CWDE: case ZYDIS_MNEMONIC_CDQE:
    case ZYDIS_MNEMONIC_CWD: case ZYDIS_MNEMONIC_CDQ: case ZYDIS_MNEMONIC_CQO:
        x->op = z->opcode | (i->esz == 8 ? OP_W : i->esz == 2 ? OP_66 : 0);
        return X_EXTEND;
    case ZYDIS_MNEMONIC_CLC: case ZYDIS_MNEMONIC_STC: case ZYDIS_MNEMONIC_CMC:
        x->op = z->opcode;
        x->rm = NO_REG;
        classify_flags(x, z);
        return X_GENERIC;
    default:
        return x_classify_system(x, d);
    }
}

/* MOV between the accumulator and an absolute address: as 88 to 8B. */
static uint8_t classify_moffs(struct xinsn *x, const ZydisDecodedInstruction *z)
{
    bool store = z->opcode & 2;
    x->op = (x->op & ~0xffu) | 0x88 | (z->opcode & 1) | (store ? 0 : 2);
    x->reg = RAX;
    x->mem = store ? MEM_WRITE : MEM_READ;
    x->size = x->i->osz;
    x->reg_read = store || x->i->osz < 4;
    x->reg_write = !store;
    return X_GENERIC;
}

/* CMPXCHG16B, and a bit string in memory with its number in a register. */
static uint8_t classify_wide(struct xinsn *x, const ZydisDecodedInstruction *z)
{
    bool bit = z->mnemonic != ZYDIS_MNEMONIC_CMPXCHG16B;
    if (x->i->asz != 8 || x->i->osz < 4)
        return X_CALL;
    classify_modrm(x, z, bit ? S_MODRM : S_EXT);
    x->op |= 0x0f00;
    x->mem = MEM_READ | (z->mnemonic == ZYDIS_MNEMONIC_BT ? 0 : MEM_WRITE);
    x->size = bit ? x->i->osz : 16;
    x->v.align = !bit;
    x->lock = x->i->flags & INSN_LOCK;
    classify_flags(x, z);
    return bit ? X_BIT : X_CMPXCHG16;
}

/* MUL, IMUL, DIV, IDIV with one operand; CMPXCHG with memory; MOV r, imm; BSWAP; XCHG rAX, r. */
static uint8_t classify_rest(struct xinsn *x, const struct decoded *d)
{
    const ZydisDecodedInstruction *z = &d->z;
    unsigned low = (z->opcode & 7) | z->raw.rex.B << 3;
    bool map_1 = z->opcode_map == ZYDIS_OPCODE_MAP_DEFAULT, map_0f = z->opcode_map == ZYDIS_OPCODE_MAP_0F;
    if (z->encoding != ZYDIS_INSTRUCTION_ENCODING_LEGACY)
        return X_CALL;
    x->op = classify_options(x, d) | z->opcode;
    if (map_1 && z->opcode == 0xf7 && z->raw.modrm.reg >= 4 && x->i->osz >= 4) {
        classify_modrm(x, z, S_EXT);
        x->divides = z->raw.modrm.reg >= 6;
        if (x->i->flags & INSN_MEM) {
            x->mem = MEM_READ;
            x->size = x->i->osz;
        }
        classify_flags(x, z);
        return X_MUL;
    }
    if (map_0f && (z->opcode | 1) == 0xb1 && z->raw.modrm.mod != 3) {
        classify_modrm(x, z, S_MODRM);
        x->op |= 0x0f00;
        x->mem = MEM_READ | MEM_WRITE;
        x->size = x->i->osz;
        x->lock = true;
        x->reg_read = true;
        classify_flags(x, z);
        return X_CMPXCHG;
    }
    if (d->code_size == 4 && map_1 && (z->opcode & 0xf0) == 0x40) { /* INC, DEC: as FF */
        x->op = (x->op & ~0xffu) | 0xff;
        x->ext = z->opcode >> 3 & 1;
        x->rm = z->opcode & 7;
        x->rm_read = x->rm_write = true;
        classify_flags(x, z);
        return X_GENERIC;
    }
    if (map_1 && (z->opcode & 0xfc) == 0xa0)
        return classify_moffs(x, z);
    if (map_0f && (shape_bit(z->opcode) || z->mnemonic == ZYDIS_MNEMONIC_CMPXCHG16B))
        return classify_wide(x, z);
    x->rm = (uint8_t)low;
    if (map_1 && (z->opcode & 0xf8) == 0xb8 && x->i->osz >= 4)
        return X_MOV_IMM;
    if (map_1 && (z->opcode & 0xf0) == 0xb0) { /* 8 and 16 bits: as C6 and C7 */
        x->op = (x->op & ~0xffu) | (z->opcode & 8 ? 0xc7 : 0xc6);
        x->ext = 0;
        x->rm_read = x->rm_write = true;
        classify_imm(x, d);
        return X_GENERIC;
    }
    if (map_1 && (z->opcode & 0xf8) == 0x90 && z->mnemonic == ZYDIS_MNEMONIC_XCHG) {
        x->op = (x->op & ~0xffu) | 0x87;
        x->reg = RAX;
        x->reg_read = x->reg_write = x->rm_read = x->rm_write = x->no_direct = true;
        return X_GENERIC;
    }
    if (map_0f && (z->opcode & 0xf8) == 0xc8 && x->i->osz >= 4)
        return X_BSWAP;
    return X_CALL;
}

static uint8_t classify_vec(struct xinsn *x, const struct decoded *d)
{
    uint8_t kind = x_classify_x87(x, d);
    if (kind == X_CALL && !x_classify_vec(x, d))
        return X_CALL;
    classify_imm(x, d);
    classify_flags(x, &d->z);
    return kind == X_CALL ? X_VEC : kind;
}

/* AH and its like: there is no REX, so the fields are as they will be written. */
static uint8_t classify_high(struct xinsn *x, const struct decoded *d)
{
    if (!classify_generic(x, d) && classify_rest(x, d) != X_GENERIC)
        return X_CALL;
    bool moves = x->i->op == ZYDIS_MNEMONIC_MOVZX || x->i->op == ZYDIS_MNEMONIC_MOVSX;
    if ((moves && x->reg == RSP) || (x->mem && (x->reg == 5 || x->by_cl)))
        return X_CALL;
    x->op &= ~OP_BYTE;
    return X_HIGH;
}

/* Is a vector instruction of 32-bit code the same in 64-bit code, with the same registers? Bits of VEX that would name others, or make a general register 64 bits wide,
 * mean nothing there (SDM vol. 2, 2.3.5). */
static bool classify_vec32(const struct xinsn *x)
{
    const struct xvec *v = &x->v;

    return v->x87 || v->enc == ENC_LEGACY || (v->enc == ENC_VEX && !(v->vvvv & 8) && !(x->rm & 8) && !(v->tail & 0x80));
}

/* 32-bit code: what is left to handlers. Segments other than DS, ES and SS have bases and limits of their own. */
static bool classify_left32(const struct xinsn *x)
{
    const struct insn *i = x->i;
    if ((x->kind == X_VEC && !classify_vec32(x)) || x->kind == X_MXCSR || x->kind == X_VZERO)
        return true;
    if (x->kind == X_LEA)
        return i->asz != 4;
    return x->kind != X_NOTHING && i->flags & INSN_MEM && (i->asz != 4 || i->seg >= SEG_FS || i->seg == SEG_CS);
}

static void classify_any(struct xinsn *x, const struct decoded *d)
{
    const struct insn *i = x->i;
    x->kind = X_CALL;
    x->reg = x->rm = x->ext = NO_REG;
    if (i->fn == op_ud)
        return;
    if ((i->r0 | i->r1) & 7) {
        x->kind = classify_high(x, d);
        return;
    }
    if (d->z.meta.branch_type != ZYDIS_BRANCH_TYPE_NONE) {
        x->kind = classify_branch(x, d);
        return;
    }
    uint8_t kind = classify_special(x, d);
    if (kind == 0xff) {
        struct xinsn saved = *x;
        kind = X_GENERIC;
        if (!classify_generic(x, d)) {
            *x = saved;
            kind = x->i->stub ? classify_vec(x, d) : classify_rest(x, d);
        }
    }
    x->kind = kind;
}

static void classify(struct xinsn *x, const struct decoded *d)
{
    classify_any(x, d);
    if (d->code_size == 4 && classify_left32(x))
        *x = (struct xinsn){ .i = x->i, .kind = X_CALL, .reg = NO_REG, .rm = NO_REG, .ext = NO_REG };
}

/* --- by form --- */

/* Decode again and classify. False: it is not i any more. */
static bool classify_decoded(struct xblock *xb, struct xinsn *x, const struct insn *i, const uint8_t *code, unsigned n)
{
    struct decoded d;
    struct insn again;
    if (insn_decode(code, n, xb->word, xb->cpu->cpuid->vendor == VENDOR_AMD, &again, &d) != DECODE_OK || again.len != i->len ||
        again.op != i->op || again.form != i->form)
        return false;
    *x = (struct xinsn){ .i = i };
    classify(x, &d);
    return true;
}

/* What is kept with a form, so that forms themselves need not be looked at. */
struct note {
    struct xinsn x;
    uint32_t epoch; /* of the forms */
    bool imm_varies;
};
_Static_assert(sizeof(struct note) <= FORM_NOTE && FORM_NOTE % _Alignof(struct note) == 0, "a note must hold it");

static struct note *classify_note(const struct forms *f, uint32_t n) { return (struct note *)(void *)(f->note + (size_t)n * FORM_NOTE); }

/* They lie at random: wait for all of them at once. */
static void classify_ahead(const struct forms *f, const uint32_t *form, unsigned n)
{
    for (unsigned k = 0; k < n; k++) {
        const char *note = (const char *)classify_note(f, form[k]);
        __builtin_prefetch(note);
        __builtin_prefetch(note + 64);
    }
}

/* All that classify() finds out depends on the form only, but for the bytes of the immediate: so it is done once a form. (It may look at
 * i->imm only where form.h makes the immediate a part of the form: shift counts, vector controls.) */
static bool classify_form(struct xblock *xb, struct xinsn *x, const struct insn *i, uint32_t n)
{
    const struct forms *f = xb->t->it->forms;
    struct note *note = classify_note(f, n);
    if (unlikely(note->epoch != f->epoch)) {
        const struct form *form = &f->form[n];
        uint8_t sample[15];
        form_sample(form, sample);
        if (!classify_decoded(xb, &note->x, i, sample, sizeof(sample)))
            return false;
        note->imm_varies = !form->parts.imm_is_opcode;
        note->epoch = f->epoch;
    }
    *x = note->x;
    x->i = i;
    if (x->imm_len && note->imm_varies)
        memcpy(x->imm, &i->imm, sizeof(x->imm));
    return true;
}

bool x_classify(struct xblock *xb, const struct block *b, const uint8_t *code, unsigned off)
{
    const uint32_t *form = block_forms(b);
    bool forms = b->epoch == xb->t->it->forms->epoch;
    unsigned at = 0;
    if (forms)
        classify_ahead(xb->t->it->forms, form, b->n);
    for (unsigned n = 0; n < b->n; n++) {
        const struct insn *i = &b->insn[n];
        struct xinsn *x = &xb->x[xb->n + n];
        bool done = forms && form[n] && classify_form(xb, x, i, form[n]);
        if (!done && !classify_decoded(xb, x, i, code + at, b->len - at))
            return false;
        x->off = (uint16_t)(off + at);
        at += i->len;
    }
    xb->n += b->n;
    return true;
}
