/* Shifts and rotates (SDM vol. 2). The host runs the same instruction with the guest's flags loaded, so that a masked
 * count of zero, partial flag updates and the carry input of RCL/RCR are right without special cases. */
#include "engine/interp/op_int.h"

#define SHIFT(name, bits, sfx)                                                                           \
    static inline uint##bits##_t sh_##name##bits(struct cpu *cpu, uint##bits##_t v, uint8_t count)       \
    {                                                                                                    \
        uint32_t fl = cpu->aflags;                                                                       \
        __asm__(ASM_LOAD_FLAGS #name #sfx " %%cl, %[v]" ASM_STORE_FLAGS                                  \
                : [v] "+&q"(v), [fl] "+&a"(fl) : "c"(count) : "cc");                                     \
        cpu->aflags = (uint16_t)fl;                                                                      \
        return v;                                                                                        \
    }                                                                                                    \
    static void op_##name##bits##_ri(struct cpu *cpu, const struct insn *i)                              \
    {                                                                                                    \
        reg_set##bits(cpu, i->r0, sh_##name##bits(cpu, REG##bits(cpu, i->r0), (uint8_t)i->imm));         \
    }                                                                                                    \
    static void op_##name##bits##_rc(struct cpu *cpu, const struct insn *i)                              \
    {                                                                                                    \
        reg_set##bits(cpu, i->r0, sh_##name##bits(cpu, REG##bits(cpu, i->r0), (uint8_t)cpu->r[RCX]));    \
    }                                                                                                    \
    static void op_##name##bits##_m(struct cpu *cpu, const struct insn *i)                               \
    {                                                                                                    \
        op_u##bits *p = op_rmw(cpu, i, bits / 8);                                                        \
        uint8_t count = i->form == FORM_MI ? (uint8_t)i->imm : (uint8_t)cpu->r[RCX];                     \
        *p = sh_##name##bits(cpu, *p, count);                                                            \
        mem_commit(cpu);                                                                                 \
    }
#define SHIFT_SELECT(name)                                                                               \
    SHIFT(name, 8, b) SHIFT(name, 16, w) SHIFT(name, 32, l) SHIFT(name, 64, q)                           \
    static insn_fn *select_##name(struct insn *i, const struct decoded *d)                               \
    {                                                                                                    \
        static insn_fn *const by[4][3] = { { op_##name##8_ri, op_##name##8_rc, op_##name##8_m },         \
                                           { op_##name##16_ri, op_##name##16_rc, op_##name##16_m },      \
                                           { op_##name##32_ri, op_##name##32_rc, op_##name##32_m },      \
                                           { op_##name##64_ri, op_##name##64_rc, op_##name##64_m } };    \
        unsigned form = i->flags & INSN_MEM ? 2 : i->form == FORM_RI ? 0 : 1;                            \
        return by[op_size_index(i->osz)][form];                                                          \
    }
SHIFT_SELECT(shl)
SHIFT_SELECT(shr)
SHIFT_SELECT(sar)
SHIFT_SELECT(rol)
SHIFT_SELECT(ror)
SHIFT_SELECT(rcl)
SHIFT_SELECT(rcr)

/* Double shifts. */
#define DSHIFT(name, bits, sfx)                                                                          \
    static inline uint##bits##_t sh_##name##bits(struct cpu *cpu, uint##bits##_t d, uint##bits##_t s,    \
                                                 uint8_t count)                                          \
    {                                                                                                    \
        uint32_t fl = cpu->aflags;                                                                       \
        __asm__(ASM_LOAD_FLAGS #name #sfx " %%cl, %[s], %[d]" ASM_STORE_FLAGS                            \
                : [d] "+&r"(d), [fl] "+&a"(fl) : [s] "r"(s), "c"(count) : "cc");                         \
        cpu->aflags = (uint16_t)fl;                                                                      \
        return d;                                                                                        \
    }                                                                                                    \
    static void op_##name##bits(struct cpu *cpu, const struct insn *i)                                   \
    {                                                                                                    \
        bool by_cl = i->form == FORM_RRC || i->form == FORM_MRC;                                         \
        uint8_t count = by_cl ? (uint8_t)cpu->r[RCX] : (uint8_t)i->imm;                                  \
        if (i->flags & INSN_MEM) {                                                                       \
            op_u##bits *p = op_rmw(cpu, i, bits / 8);                                                    \
            *p = sh_##name##bits(cpu, *p, REG##bits(cpu, i->r0), count);                                 \
            mem_commit(cpu);                                                                             \
        } else {                                                                                         \
            reg_set##bits(cpu, i->r0,                                                                    \
                          sh_##name##bits(cpu, REG##bits(cpu, i->r0), REG##bits(cpu, i->r1), count));    \
        }                                                                                                \
    }
#define DSHIFT_SELECT(name)                                                                              \
    DSHIFT(name, 16, w) DSHIFT(name, 32, l) DSHIFT(name, 64, q)                                          \
    static insn_fn *select_##name(struct insn *i, const struct decoded *d)                               \
    {                                                                                                    \
        return i->osz == 2 ? op_##name##16 : i->osz == 4 ? op_##name##32 : op_##name##64;                \
    }
DSHIFT_SELECT(shld)
DSHIFT_SELECT(shrd)

const struct op_entry ops_shift[] = {
    { ZYDIS_MNEMONIC_SHL, 0, NULL, select_shl },   { ZYDIS_MNEMONIC_SHR, 0, NULL, select_shr },
    { ZYDIS_MNEMONIC_SAR, 0, NULL, select_sar },   { ZYDIS_MNEMONIC_ROL, 0, NULL, select_rol },
    { ZYDIS_MNEMONIC_ROR, 0, NULL, select_ror },   { ZYDIS_MNEMONIC_RCL, 0, NULL, select_rcl },
    { ZYDIS_MNEMONIC_RCR, 0, NULL, select_rcr },   { ZYDIS_MNEMONIC_SHLD, 0, NULL, select_shld },
    { ZYDIS_MNEMONIC_SHRD, 0, NULL, select_shrd }, { ZYDIS_MNEMONIC_INVALID, 0, NULL, NULL },
};
