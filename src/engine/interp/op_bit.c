/* Bit tests and scans: BT BTS BTR BTC, BSF BSR TZCNT LZCNT POPCNT (SDM vol. 2). A register bit offset with a memory
 * operand reaches beyond the operand: it is signed and addresses the whole bit string. */
#include "engine/interp/op_int.h"
#include "x86/cpuid.h"

/* CF becomes the bit, other flags stay as the host leaves them. */
#define BIT_ASM(name, bits, sfx)                                                                         \
    static inline uint##bits##_t bit_##name##bits(struct cpu *cpu, uint##bits##_t v, uint##bits##_t n)   \
    {                                                                                                    \
        uint32_t fl = cpu->aflags;                                                                       \
        __asm__(ASM_LOAD_FLAGS #name #sfx " %[n], %[v]" ASM_STORE_FLAGS                                  \
                : [v] "+&r"(v), [fl] "+&a"(fl) : [n] "r"(n) : "cc");                                     \
        cpu->aflags = (uint16_t)fl;                                                                      \
        return v;                                                                                        \
    }                                                                                                    \
    static void op_##name##bits##_r(struct cpu *cpu, const struct insn *i)                               \
    {                                                                                                    \
        uint##bits##_t n = i->form == FORM_RI ? (uint##bits##_t)i->imm : REG##bits(cpu, i->r1);          \
        uint##bits##_t v = bit_##name##bits(cpu, REG##bits(cpu, i->r0), n);                              \
        if (i->op != ZYDIS_MNEMONIC_BT)                                                                  \
            reg_set##bits(cpu, i->r0, v);                                                                \
    }
#define BIT_SIZES(name) BIT_ASM(name, 16, w) BIT_ASM(name, 32, l) BIT_ASM(name, 64, q)
BIT_SIZES(bt)
BIT_SIZES(bts)
BIT_SIZES(btr)
BIT_SIZES(btc)

/* Linear address of the operand that holds the bit; *n becomes the bit's number in it. */
static uint64_t bit_address(struct cpu *cpu, const struct insn *i, uint64_t *n, enum mmu_access acc)
{
    unsigned width = i->osz * 8u;
    uint64_t ea = insn_ea(cpu, i);
    if (i->form == FORM_MR) {
        int64_t off = (int64_t)reg_get(cpu, i->r0, i->osz);
        off = i->osz == 2 ? (int16_t)off : i->osz == 4 ? (int32_t)off : off;
        ea = (ea + (uint64_t)(off >> (i->osz == 2 ? 4 : i->osz == 4 ? 5 : 6)) * i->osz) & i->addr_mask;
        *n = (uint64_t)off & (width - 1);
    } else {
        *n = i->imm & (width - 1);
    }
    return insn_lin_at(cpu, i, i->seg, ea, i->osz, acc);
}

static void bit_set_cf(struct cpu *cpu, bool bit)
{
    cpu->aflags = bit ? cpu->aflags | AF_CF : cpu->aflags & ~AF_CF;
}

static void op_bt_m(struct cpu *cpu, const struct insn *i)
{
    uint64_t n, lin = bit_address(cpu, i, &n, ACC_READ);
    bit_set_cf(cpu, mem_ld(cpu, i->seg, lin, i->osz) >> n & 1);
}

/* The exchange is atomic whether locked or not; n is below the operand's width. */
#define BIT_RMW(name, bits, sfx)                                                                         \
    static bool bit_rmw_##name##bits(void *p, uint64_t n)                                                \
    {                                                                                                    \
        bool old;                                                                                        \
        __asm__ volatile("lock " #name #sfx " %[n], %[m]" : [m] "+m"(*(op_u##bits *)p), "=@ccc"(old)     \
                         : [n] "r"((uint##bits##_t)n) : "memory");                                       \
        return old;                                                                                      \
    }
#define BIT_RMW_SIZES(name) BIT_RMW(name, 16, w) BIT_RMW(name, 32, l) BIT_RMW(name, 64, q)
BIT_RMW_SIZES(bts)
BIT_RMW_SIZES(btr)
BIT_RMW_SIZES(btc)

static unsigned bit_row(unsigned op)
{
    return op == ZYDIS_MNEMONIC_BT ? 0 : op == ZYDIS_MNEMONIC_BTS ? 1 : op == ZYDIS_MNEMONIC_BTR ? 2 : 3;
}

static void op_btx_m(struct cpu *cpu, const struct insn *i)
{
    static bool (*const rmw[4][3])(void *p, uint64_t n) = { { NULL },
                                                            { bit_rmw_bts16, bit_rmw_bts32, bit_rmw_bts64 },
                                                            { bit_rmw_btr16, bit_rmw_btr32, bit_rmw_btr64 },
                                                            { bit_rmw_btc16, bit_rmw_btc32, bit_rmw_btc64 } };
    uint64_t n, lin = bit_address(cpu, i, &n, ACC_WRITE);
    void *p = mem_view_rmw(cpu, i->seg, lin, i->osz, i->flags & INSN_LOCK);
    bool old = rmw[bit_row(i->op)][op_size_index(i->osz) - 1](p, n);
    mem_commit(cpu);
    bit_set_cf(cpu, old);
}

static insn_fn *select_bit(struct insn *i, const struct decoded *d)
{
    static insn_fn *const reg[4][3] = { { op_bt16_r, op_bt32_r, op_bt64_r },
                                        { op_bts16_r, op_bts32_r, op_bts64_r },
                                        { op_btr16_r, op_btr32_r, op_btr64_r },
                                        { op_btc16_r, op_btc32_r, op_btc64_r } };
    if (i->flags & INSN_MEM)
        return i->op == ZYDIS_MNEMONIC_BT ? op_bt_m : op_btx_m;
    return reg[bit_row(i->op)][op_size_index(i->osz) - 1];
}

/* Scans. The destination is loaded before: BSF and BSR of zero leave it alone, in the host's own way. */
#define SCAN(name, bits, sfx)                                                                            \
    static void op_##name##bits(struct cpu *cpu, const struct insn *i)                                   \
    {                                                                                                    \
        uint##bits##_t s = i->flags & INSN_MEM ? (uint##bits##_t)op_load_mem(cpu, i, bits / 8)           \
                                               : REG##bits(cpu, i->r1);                                  \
        uint64_t v = REG64(cpu, i->r0);                                                                  \
        uint32_t fl = cpu->aflags;                                                                       \
        __asm__(ASM_LOAD_FLAGS #name #sfx " %[s], %" SCAN_REG_##bits "[v]" ASM_STORE_FLAGS               \
                : [v] "+&r"(v), [fl] "+&a"(fl) : [s] "r"(s) : "cc");                                     \
        cpu->aflags = (uint16_t)fl;                                                                      \
        REG64(cpu, i->r0) = v;                                                                           \
    }
#define SCAN_REG_16 "w"
#define SCAN_REG_32 "k"
#define SCAN_REG_64 "q"
#define SCAN_SIZES(name)                                                                                 \
    SCAN(name, 16, w) SCAN(name, 32, l) SCAN(name, 64, q)                                                \
    static insn_fn *const scan_##name[3] = { op_##name##16, op_##name##32, op_##name##64 };
SCAN_SIZES(bsf)
SCAN_SIZES(bsr)
SCAN_SIZES(tzcnt)
SCAN_SIZES(lzcnt)
SCAN_SIZES(popcnt)

static insn_fn *select_scan(struct insn *i, const struct decoded *d)
{
    unsigned size = op_size_index(i->osz) - 1;
    switch (i->op) {
    case ZYDIS_MNEMONIC_BSF: return scan_bsf[size];
    case ZYDIS_MNEMONIC_BSR: return scan_bsr[size];
    case ZYDIS_MNEMONIC_TZCNT: return scan_tzcnt[size];
    case ZYDIS_MNEMONIC_LZCNT: return scan_lzcnt[size];
    default: return scan_popcnt[size];
    }
}

const struct op_entry ops_bit[] = {
    { ZYDIS_MNEMONIC_BT, 0, NULL, select_bit },     { ZYDIS_MNEMONIC_BTS, 0, NULL, select_bit },
    { ZYDIS_MNEMONIC_BTR, 0, NULL, select_bit },    { ZYDIS_MNEMONIC_BTC, 0, NULL, select_bit },
    { ZYDIS_MNEMONIC_BSF, 0, NULL, select_scan },   { ZYDIS_MNEMONIC_BSR, 0, NULL, select_scan },
    { ZYDIS_MNEMONIC_TZCNT, 0, NULL, select_scan }, { ZYDIS_MNEMONIC_LZCNT, 0, NULL, select_scan },
    { ZYDIS_MNEMONIC_POPCNT, 0, NULL, select_scan }, { ZYDIS_MNEMONIC_INVALID, 0, NULL, NULL },
};
