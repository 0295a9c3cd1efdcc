/* Registers between struct cpu and ptrace(2)'s. See state.h. */
#include "engine/direct/state.h"

#include <cpuid.h>
#include <string.h>
#include <sys/auxv.h>

#include "base/bits.h"
#include "x86/cpuid.h"
#include "x86/regs.h"
#include "x86/seg.h"

#define STATE_CS    0x33 /* Linux' selectors at level 3; whoever has others can tell */
#define STATE_SS    0x2b
#define STATE_TOP   0x7ffffffff000ULL
#define STATE_FLAGS (FL_ARITH | FL_DF | FL_AC | FL_IF | FL_ONE) /* that ptrace(2) sets, or a process has anyway */
#define STATE_HWCAP2_FSGSBASE 2

enum { XS_X87, XS_SSE, XS_AVX, XS_OPMASK = 5, XS_ZMM_HIGH, XS_HIGH_ZMM };
#define XS_HEADER 512
#define XS_MXCSR  24
#define XS_XMM    160

static uint64_t state_host_xcr0(void)
{
    uint32_t low, high;

    __asm__("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return low | (uint64_t)high << 32;
}

void state_layout(struct state_layout *l)
{
    unsigned a, b, c, d;

    memset(l, 0, sizeof(*l));
    __cpuid_count(0xd, 0, a, b, c, d);
    l->size = b; /* what the host's XCR0 has enabled */
    l->have = 1u << XS_X87 | 1u << XS_SSE;
    for (unsigned n = XS_AVX; n <= XS_HIGH_ZMM; n++) {
        if (n > XS_AVX && n < XS_OPMASK)
            continue;
        __cpuid_count(0xd, n, a, b, c, d);
        l->at[n] = a && b + a <= l->size ? b : 0;
        l->have |= l->at[n] ? 1u << n : 0;
    }
    l->same_xcr0 = state_host_xcr0() == l->have;
    l->fsgsbase = getauxval(AT_HWCAP2) & STATE_HWCAP2_FSGSBASE;
}

bool state_layout_shown(const struct state_layout *l, const struct cpuid_table *t)
{
    for (unsigned n = 0; n < t->count && n < ARRAY_LEN(t->leaf); n++) {
        const struct cpuid_leaf *f = &t->leaf[n];
        if (f->leaf == 0xd && f->subleaf >= XS_AVX && f->subleaf <= XS_HIGH_ZMM && f->ebx != l->at[f->subleaf])
            return false;
    }
    return true;
}

static bool state_usual_segments(const struct seg *s)
{
    return s[SEG_CS].sel == STATE_CS && s[SEG_SS].sel == STATE_SS && !s[SEG_DS].sel && !s[SEG_ES].sel && !s[SEG_FS].sel && !s[SEG_GS].sel &&
           s[SEG_FS].base < STATE_TOP && s[SEG_GS].base < STATE_TOP;
}

bool state_fits(const struct cpu *cpu, const struct state_layout *l)
{
    const uint64_t cr0 = CR0_AM | CR0_WP | CR0_PE | CR0_PG;

    return cpu->code_size == 8 && state_usual_segments(cpu->seg) && !(cpu->rflags & ~STATE_FLAGS) && (cpu->rflags & FL_IF) && cpu->paging_levels == 4 &&
           (cpu->cr0 & (cr0 | CR0_EM | CR0_TS)) == cr0 && !(cpu->cr4 & CR4_FSGSBASE) == !l->fsgsbase && (cpu->cr4 & CR4_OSFXSR) &&
           (cpu->cr4 & CR4_OSXSAVE) && (cpu->xcr0 & (XCR0_X87 | XCR0_SSE | XCR0_AVX | XCR0_AVX512)) == l->have;
}

void state_put_regs(const struct cpu *cpu, struct user_regs_struct *regs)
{
    const uint64_t *r = cpu->r;

    *regs = (struct user_regs_struct){
        .rax = r[RAX], .rcx = r[RCX], .rdx = r[RDX], .rbx = r[RBX], .rsp = r[RSP], .rbp = r[RBP], .rsi = r[RSI], .rdi = r[RDI],
        .r8 = r[R8], .r9 = r[R9], .r10 = r[R10], .r11 = r[R11], .r12 = r[R12], .r13 = r[R13], .r14 = r[R14], .r15 = r[R15],
        .rip = r[R_RIP], .eflags = cpu_rflags(cpu), .cs = STATE_CS, .ss = STATE_SS, .orig_rax = ~0ULL,
        .fs_base = cpu->seg[SEG_FS].base, .gs_base = cpu->seg[SEG_GS].base,
    };
}

static void state_base(struct cpu *cpu, unsigned seg, uint64_t base)
{
    cpu->seg[seg].base = base;
    cpu->lin_base[seg] = base;
}

void state_get_regs(struct cpu *cpu, const struct user_regs_struct *regs)
{
    uint64_t *r = cpu->r;

    r[RAX] = regs->rax, r[RCX] = regs->rcx, r[RDX] = regs->rdx, r[RBX] = regs->rbx;
    r[RSP] = regs->rsp, r[RBP] = regs->rbp, r[RSI] = regs->rsi, r[RDI] = regs->rdi;
    r[R8] = regs->r8, r[R9] = regs->r9, r[R10] = regs->r10, r[R11] = regs->r11;
    r[R12] = regs->r12, r[R13] = regs->r13, r[R14] = regs->r14, r[R15] = regs->r15;
    r[R_RIP] = regs->rip;
    state_base(cpu, SEG_FS, regs->fs_base);
    state_base(cpu, SEG_GS, regs->gs_base);
    cpu_set_rflags(cpu, (regs->eflags & (FL_ARITH | FL_DF | FL_AC | FL_TF | FL_NT | FL_ID)) | FL_IF | FL_ONE);
}

/* The base stays: FS' and GS' are known already, and may have been written since. */
static void state_segment(struct cpu *cpu, unsigned seg, uint64_t sel)
{
    uint64_t base = cpu->seg[seg].base;

    if (cpu->seg[seg].sel == sel)
        return;
    seg_load(cpu, seg, (uint16_t)sel);
    if (seg == SEG_FS || seg == SEG_GS)
        state_base(cpu, seg, base);
}

void state_get_segments(struct cpu *cpu, const struct user_regs_struct *regs)
{
    cpu->start_rip = cpu->r[R_RIP];
    state_segment(cpu, SEG_DS, regs->ds);
    state_segment(cpu, SEG_ES, regs->es);
    state_segment(cpu, SEG_FS, regs->fs);
    state_segment(cpu, SEG_GS, regs->gs);
    state_segment(cpu, SEG_SS, regs->ss);
    if (cpu->seg[SEG_CS].sel != regs->cs)
        far_jump(cpu, (uint16_t)regs->cs, regs->rip, 8);
}

/* Component n's part of size bytes of each of count registers: at cpu->zmm[first + i] + off. */
static void state_part(struct cpu *cpu, uint8_t *area, uint32_t at, unsigned first, unsigned off, unsigned size, bool put)
{
    for (unsigned n = 0; n < 16; n++) {
        uint8_t *reg = cpu->zmm[first + n] + off, *mem = area + at + (size_t)n * size;
        memcpy(put ? mem : reg, put ? reg : mem, size);
    }
}

static void state_vectors(struct cpu *cpu, const struct state_layout *l, uint8_t *area, bool put)
{
    if (put)
        memcpy(area, &cpu->fx, XS_XMM);
    else
        memcpy(&cpu->fx, area, XS_XMM);
    state_part(cpu, area, XS_XMM, 0, 0, 16, put);
    if (l->at[XS_AVX])
        state_part(cpu, area, l->at[XS_AVX], 0, 16, 16, put);
    if (!l->at[XS_HIGH_ZMM] || !l->at[XS_OPMASK] || !l->at[XS_ZMM_HIGH])
        return;
    memcpy(put ? area + l->at[XS_OPMASK] : (uint8_t *)cpu->k, put ? (uint8_t *)cpu->k : area + l->at[XS_OPMASK], sizeof(cpu->k));
    state_part(cpu, area, l->at[XS_ZMM_HIGH], 0, 32, 32, put);
    state_part(cpu, area, l->at[XS_HIGH_ZMM], 16, 0, 64, put);
}

/* Components that are as after a reset are left out: the host's CPU is faster without them, where the upper parts of registers are in use. */
void state_put_vectors(const struct cpu *cpu, const struct state_layout *l, uint8_t *area)
{
    static const uint32_t bytes[8] = { [XS_AVX] = 256, [XS_OPMASK] = 64, [XS_ZMM_HIGH] = 512, [XS_HIGH_ZMM] = 1024 };
    uint64_t have = l->have;

    memset(area + XS_HEADER, 0, 64);
    state_vectors((struct cpu *)(uintptr_t)cpu, l, area, true);
    memcpy(area + XS_MXCSR, &cpu->mxcsr, 4);
    for (unsigned n = XS_AVX; n <= XS_HIGH_ZMM; n++)
        if (have >> n & 1 && mem_is_zero(area + l->at[n], bytes[n]))
            have &= ~(1ULL << n);
    memcpy(area + XS_HEADER, &have, 8);
}

/* What the kernel left out is as after a reset: zero; it writes that out (ptrace(2)'s form is complete). */
void state_get_vectors(struct cpu *cpu, const struct state_layout *l, const uint8_t *area)
{
    uint32_t mask = cpu->fx.mxcsr_mask, old = cpu->fx.mxcsr;

    state_vectors(cpu, l, (uint8_t *)(uintptr_t)area, false);
    memcpy(&cpu->mxcsr, area + XS_MXCSR, 4);
    cpu->fx.mxcsr_mask = mask;
    cpu->fx.mxcsr = old;
}
