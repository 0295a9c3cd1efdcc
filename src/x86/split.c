/* Where a 64-bit instruction's displacement and immediate are (SDM vol. 2, 2.1 to 2.3 and appendix A).
 *
 * Not a decoder: it finds the borders in the bytes of what programs are made of, so that an instruction can be recognised by
 * the bytes before its displacement. It may refuse anything ('!' in the tables), and it need not notice that an
 * encoding is invalid; but where it does answer, the borders depend on nothing behind them. */
#include "x86/insn.h"

/* One letter an opcode, sixteen a row:
 *   .  neither ModRM nor immediate      m  ModRM
 *   b  imm8 or rel8   w  imm16   z  imm16 or imm32   v  the same or imm64   d  rel32
 *   B  ModRM, imm8    Z  ModRM, imm16 or imm32       G  ModRM; the immediate only if ModRM.reg is 0 or 1
 *   s  ModRM, imm8 that says what the instruction does (shift counts, vector controls)
 *   !  not here: prefixes, escapes, invalid opcodes, direct addresses, ENTER, XOP, 3DNow! ... */
static const char split_map_1[256 + 1] =
    "mmmmbz!!mmmmbz!!" /* 00 */
    "mmmmbz!!mmmmbz!!" /* 10 */
    "mmmmbz!!mmmmbz!!" /* 20 */
    "mmmmbz!!mmmmbz!!" /* 30 */
    "!!!!!!!!!!!!!!!!" /* 40 REX */
    "................" /* 50 */
    "!!!m!!!!zZbB...." /* 60 */
    "bbbbbbbbbbbbbbbb" /* 70 */
    "BZ!Bmmmmmmmmmmm!" /* 80 */
    "..........!....." /* 90 */
    "!!!!....bz......" /* a0 */
    "bbbbbbbbvvvvvvvv" /* b0 */
    "ssw.!!BZ!.w..b!." /* c0 */
    "mmmm!!!.mmmmmmmm" /* d0 */
    "bbbbbbbbdd!b...." /* e0 */
    "!.!!..GG......mm"; /* f0 */

static const char split_map_0f[256 + 1] =
    "mmmm!.....!.!m!!" /* 00 */
    "mmmmmmmmmmmmmmmm" /* 10 */
    "!!!!!!!!mmmmmmmm" /* 20 */
    "......!!!!!!!!!!" /* 30 */
    "mmmmmmmmmmmmmmmm" /* 40 */
    "mmmmmmmmmmmmmmmm" /* 50 */
    "mmmmmmmmmmmmmmmm" /* 60 */
    "ssssmmm.!!!!mmmm" /* 70 */
    "dddddddddddddddd" /* 80 */
    "mmmmmmmmmmmmmmmm" /* 90 */
    "...msm!!...msmmm" /* a0 */
    "mmmmmmmmmmsmmmmm" /* b0 */
    "mmsmsssm........" /* c0 */
    "mmmmmmmmmmmmmmmm" /* d0 */
    "mmmmmmmmmmmmmmmm" /* e0 */
    "mmmmmmmmmmmmmmmm"; /* f0 */

enum { SPLIT_66 = 1, SPLIT_F = 2, SPLIT_LOCK = 4, SPLIT_OTHER = 8 };

static const uint8_t split_prefix[256] = {
    [0x66] = SPLIT_66,    [0xf2] = SPLIT_F,     [0xf3] = SPLIT_F,     [0xf0] = SPLIT_LOCK,
    [0x67] = SPLIT_OTHER, [0x26] = SPLIT_OTHER, [0x2e] = SPLIT_OTHER, [0x36] = SPLIT_OTHER,
    [0x3e] = SPLIT_OTHER, [0x64] = SPLIT_OTHER, [0x65] = SPLIT_OTHER,
};

#define SPLIT_PREFIXES 4 /* more legacy prefixes than this are refused */

/* Maps 1 to 3; EVEX has 5 and 6 too. *n moves behind the opcode. */
static char split_vex(const uint8_t *p, unsigned *n)
{
    unsigned lead = p[*n], byte = p[*n + 1];
    unsigned map = lead == 0xc5 ? 1 : lead == 0xc4 ? byte & 31 : byte & 7;
    *n += lead == 0xc5 ? 2 : lead == 0xc4 ? 3 : 4;
    unsigned op = p[(*n)++];
    switch (map) {
    case 1: return split_map_0f[op] == 's' ? 's' : op == 0x77 ? '.' : 'm';
    case 2: return 'm';
    case 3: return 's';
    default: return (map == 5 || map == 6) && lead == 0x62 ? 'm' : '!';
    }
}

static char split_opcode(const uint8_t *p, unsigned *n)
{
    unsigned op = p[(*n)++];
    if (op != 0x0f)
        return split_map_1[op];
    op = p[(*n)++];
    if (op == 0x38 || op == 0x3a) {
        (*n)++;
        return op == 0x38 ? 'm' : 's';
    }
    return split_map_0f[op];
}

/* ModRM and SIB: how long the displacement is. *n moves behind them. */
static unsigned split_modrm(const uint8_t *p, unsigned *n)
{
    unsigned modrm = p[(*n)++], mod = modrm >> 6;
    if (mod == 3)
        return 0;
    unsigned base = modrm & 7;
    if (base == 4)
        base = p[(*n)++] & 7;
    return mod == 1 ? 1 : mod == 2 || base == 5 ? 4 : 0;
}

static unsigned split_imm(char kind, unsigned reg, unsigned op, bool wide, bool narrow)
{
    unsigned z = narrow && !wide ? 2 : 4;
    switch (kind) {
    case 'b': case 'B': case 's': return 1;
    case 'w': return 2;
    case 'z': case 'Z': return z;
    case 'v': return wide ? 8 : z;
    case 'd': return 4;
    case 'G': return reg > 1 ? 0 : op & 1 ? z : 1;
    default: return 0;
    }
}

bool insn_split(const uint8_t *p, struct insn_parts *s)
{
    unsigned n = 0, prefixes = 0, rex = 0;
    while (split_prefix[p[n]]) {
        prefixes |= split_prefix[p[n]];
        if (++n > SPLIT_PREFIXES)
            return false;
    }
    if ((p[n] & 0xf0) == 0x40)
        rex = p[n++];
    char kind;
    unsigned op = p[n];
    if (op == 0xc4 || op == 0xc5 || op == 0x62) {
        if (rex || (prefixes & ~(unsigned)SPLIT_OTHER))
            return false;
        kind = split_vex(p, &n);
    } else {
        kind = split_opcode(p, &n);
    }
    if (kind == '!' || (kind == 'd' && (prefixes & SPLIT_66))) /* there CPUs differ */
        return false;
    unsigned reg = p[n] >> 3 & 7;
    s->disp = 0;
    if (kind == 'm' || kind == 's' || kind == 'B' || kind == 'Z' || kind == 'G')
        s->disp = (uint8_t)split_modrm(p, &n);
    s->head = (uint8_t)n;
    s->imm = (uint8_t)split_imm(kind, reg, op, rex & 8, prefixes & SPLIT_66);
    s->imm_is_opcode = kind == 's';
    return n + s->disp + s->imm <= 15;
}
