/* Arithmetic flags as the host's own LAHF and SETO leave them in AX: SF ZF 0 AF 0 PF 1 CF in bits
 * 15..8, OF in bit 0. An instruction's flags are captured from the host CPU that executes the
 * same operation, which makes them exact, and a condition is one bit test away. */
#ifndef VITRO_X86_FLAGS_H
#define VITRO_X86_FLAGS_H

#include <stdbool.h>
#include <stdint.h>

#include "x86/regs.h"

#define AF_OF 0x0001u
#define AF_CF 0x0100u
#define AF_PF 0x0400u
#define AF_AF 0x1000u
#define AF_ZF 0x4000u
#define AF_SF 0x8000u

/* To and from the layout of RFLAGS. */
static inline uint32_t aflags_to_rflags(uint32_t a) { return ((a >> 8) & 0xd5) | ((a & 1) << 11); }
static inline uint32_t aflags_from_rflags(uint32_t f) { return ((f & 0xd5) << 8) | ((f >> 11) & 1) | 0x200; }

/* Condition cc (0 O, 1 NO, 2 B, ... 15 NLE: SDM vol. 1 appendix B) on a. */
static inline bool aflags_cond(uint32_t a, unsigned cc)
{
    bool v;
    switch (cc >> 1) {
    case 0: v = a & AF_OF; break;
    case 1: v = a & AF_CF; break;
    case 2: v = a & AF_ZF; break;
    case 3: v = a & (AF_CF | AF_ZF); break;
    case 4: v = a & AF_SF; break;
    case 5: v = a & AF_PF; break;
    case 6: v = ((a >> 15) ^ a) & 1; break;
    default: v = (a & AF_ZF) || (((a >> 15) ^ a) & 1); break;
    }
    return v ^ (cc & 1);
}

#endif
