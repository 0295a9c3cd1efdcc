/* The handlers that run stubs: one for each shape (registers only, load, store, masked ...), so that the
 * common ones are short. Order of checks: #UD, #NM, #MF, then the memory operand (alignment, segment, page),
 * then the instruction. */
#include <setjmp.h>
#include <string.h>

#include "engine/interp/vecstate.h"

_Noreturn static void run_denied(struct cpu *cpu, const struct hx_class *c)
{
    uint32_t nm = CR0_TS | (c->nm_on_em ? CR0_EM : 0);
    uint64_t ud = (((cpu->cr0 & c->cr0_mask) ^ c->cr0_want) & ~(uint64_t)nm) | (c->cr4_need & ~cpu->cr4) |
                  (c->rflags_bad & cpu->rflags) | (c->xcr0_need & ~cpu->xcr0);
    cpu_raise_noerr(cpu, ud ? VEC_UD : VEC_NM);
}

static inline void run_guard(struct cpu *cpu, const struct hx_class *c)
{
    if (unlikely(((cpu->cr0 & c->cr0_mask) ^ c->cr0_want) | (c->cr4_need & ~cpu->cr4) |
                 (c->rflags_bad & cpu->rflags) | (c->xcr0_need & ~cpu->xcr0)))
        run_denied(cpu, c);
}

void hx_check(struct cpu *cpu, const struct hx_class *c) { run_guard(cpu, c); }

void hx_need_avx(struct cpu *cpu, bool evex)
{
    struct hx_class c = {
        .cr0_mask = CR0_PE | CR0_TS, .cr0_want = CR0_PE, .cr4_need = CR4_OSXSAVE, .rflags_bad = FL_VM
    };
    c.xcr0_need = XCR0_SSE | XCR0_AVX | (evex ? XCR0_AVX512 : 0);
    run_guard(cpu, &c);
}

void hx_need_sse(struct cpu *cpu)
{
    struct hx_class c = { .cr0_mask = CR0_EM | CR0_TS, .cr4_need = CR4_OSFXSR };
    run_guard(cpu, &c);
}

void hx_need_x87(struct cpu *cpu, bool waiting)
{
    struct hx_class c = { .cr0_mask = CR0_EM | CR0_TS, .nm_on_em = true };
    run_guard(cpu, &c);
    if (waiting && cpu->fx.fsw & HX_FSW_ES)
        hx_x87_error(cpu);
}

/* With CR0.NE=0 the error goes out as FERR# to IRQ 13, and the CPU waits at this instruction for the
 * interrupt (SDM vol. 1, 8.7.2). The engine's second unwind value means "leave the block, nothing to
 * deliver". */
_Noreturn void hx_x87_error(struct cpu *cpu)
{
    if (cpu->cr0 & CR0_NE || !cpu->ops->ferr)
        cpu_raise_noerr(cpu, VEC_MF);
    cpu->ops->ferr(cpu, true);
    cpu->r[R_RIP] = cpu->start_rip;
    siglongjmp(*cpu->unwind, 2);
}

/* MMX register n is physical x87 register n, which the image holds as ST((n - TOP) & 7). */
static void run_mmx_top(struct cpu *cpu)
{
    if (cpu->fx.fsw & 0x3800)
        x87_set_top(&cpu->fx, 0);
}

void hx_mmx_enter(struct cpu *cpu)
{
    run_mmx_top(cpu);
    cpu->fx.ftw = 0xff;
}

uint64_t hx_elem_lin(struct cpu *cpu, const struct insn *i, uint64_t off, unsigned size, enum mmu_access acc)
{
    uint64_t ea = (insn_ea(cpu, i) + off) & i->addr_mask;
    if (unlikely(i->flags & INSN_LEGACY))
        return seg_lin(cpu, i->seg, ea, size, acc);
    return cpu->lin_base[i->seg] + ea;
}

_Noreturn static void run_fault(struct cpu *cpu, enum hx_result r)
{
    if (r == HX_FP_FAULT && cpu->cr4 & CR4_OSXMMEXCPT)
        cpu_raise_noerr(cpu, VEC_XM);
    if (r == HX_BAD_ACCESS)
        CPU_GP0(cpu);
    CPU_UD(cpu);
}

static inline void run_stub(struct cpu *cpu, const struct stub *s, void *mem)
{
    cpu->fx.mxcsr = HX_MXCSR; /* what the stub puts back */
    enum hx_result r = hx_call(cpu, s, mem);
    if (unlikely(r != HX_OK))
        run_fault(cpu, r);
}

static void run_reg(struct cpu *cpu, const struct insn *i)
{
    const struct stub *s = i->stub;
    run_guard(cpu, &s->c);
    run_stub(cpu, s, NULL);
}

/* #GP(0), not #SS, also for the stack segment (SDM vol. 2, 2.4.1). */
static inline uint64_t run_lin(struct cpu *cpu, const struct insn *i, const struct hx_class *c,
                               enum mmu_access acc)
{
    uint64_t lin = insn_lin(cpu, i, c->mem_size, acc);
    if (unlikely(lin & c->align))
        CPU_GP0(cpu);
    return lin;
}

static void run_load(struct cpu *cpu, const struct insn *i)
{
    const struct stub *s = i->stub;
    run_guard(cpu, &s->c);
    uint64_t lin = run_lin(cpu, i, &s->c, ACC_READ);
    run_stub(cpu, s, (void *)(uintptr_t)mem_view_r(cpu, i->seg, lin, s->c.mem_size));
}

static void run_store(struct cpu *cpu, const struct insn *i)
{
    const struct stub *s = i->stub;
    run_guard(cpu, &s->c);
    uint64_t lin = run_lin(cpu, i, &s->c, ACC_WRITE);
    run_stub(cpu, s, mem_view_w(cpu, i->seg, lin, s->c.mem_size));
    mem_commit(cpu);
}

static void run_mmx_guard(struct cpu *cpu, const struct stub *s)
{
    run_guard(cpu, &s->c);
    if (unlikely(cpu->fx.fsw & HX_FSW_ES))
        hx_x87_error(cpu);
}

/* The transition stays when the instruction (a conversion) raises #XM. */
static void run_mmx(struct cpu *cpu, const struct stub *s, void *mem)
{
    hx_mmx_enter(cpu);
    run_stub(cpu, s, mem);
}

static void run_mmx_reg(struct cpu *cpu, const struct insn *i)
{
    const struct stub *s = i->stub;
    run_mmx_guard(cpu, s);
    run_mmx(cpu, s, NULL);
}

static void run_mmx_load(struct cpu *cpu, const struct insn *i)
{
    const struct stub *s = i->stub;
    run_mmx_guard(cpu, s);
    uint64_t lin = run_lin(cpu, i, &s->c, ACC_READ);
    run_mmx(cpu, s, (void *)(uintptr_t)mem_view_r(cpu, i->seg, lin, s->c.mem_size));
}

/* On Intel's CPUs TOP stays 0 also when the store faults. */
static void run_mmx_store(struct cpu *cpu, const struct insn *i)
{
    const struct stub *s = i->stub;
    run_mmx_guard(cpu, s);
    if (cpu->cpuid->vendor == VENDOR_INTEL)
        run_mmx_top(cpu);
    uint64_t lin = run_lin(cpu, i, &s->c, ACC_WRITE);
    run_mmx(cpu, s, mem_view_w(cpu, i->seg, lin, s->c.mem_size));
    mem_commit(cpu);
}

/* -- x87 -- */

static void run_x87_guard(struct cpu *cpu, const struct stub *s)
{
    run_guard(cpu, &s->c);
    if (unlikely(cpu->fx.fsw & HX_FSW_ES))
        hx_x87_error(cpu);
}

/* The guest's instruction, operand and opcode pointers, in the place of the host's. Outside of 64-bit code
 * the selectors are kept in bits 47..32, as FXSAVE's 32-bit format has them. Opcode and operand pointer may
 * be such that only an unmasked exception updates them (SDM vol. 1, 8.1.8 and 8.1.9). */
static void run_x87_pointers(struct cpu *cpu, const struct insn *i, uint64_t fdp, uint16_t fop, bool mem)
{
    struct x87_image *fx = &cpu->fx;
    bool legacy = i->flags & INSN_LEGACY, error = fx->fsw & HX_FSW_ES;
    bool selectors = legacy && !cpu_has(cpu, CPU_FEAT(FEAT_7_EBX, 13));
    fx->fip = cpu->start_rip;
    if (legacy)
        fx->fip = (uint32_t)fx->fip | (selectors ? (uint64_t)cpu->seg[SEG_CS].sel << 32 : 0);
    fx->fop = error || cpu->cpuid->vendor == VENDOR_AMD ? i->sel : fop;
    fx->fdp = fdp;
    if (!mem || (!error && cpu_has(cpu, CPU_FEAT(FEAT_7_EBX, 6))))
        return;
    fx->fdp = insn_ea(cpu, i);
    if (legacy)
        fx->fdp = (uint32_t)fx->fdp | (selectors ? (uint64_t)cpu->seg[i->seg].sel << 32 : 0);
}

/* Run it on the image and clean the host's x87 state. */
static void run_x87(struct cpu *cpu, const struct insn *i, void *mem)
{
    struct x87_image *fx = &cpu->fx;
    uint64_t fdp = fx->fdp;
    uint16_t fop = fx->fop;
    fx->mxcsr = HX_MXCSR;
    enum hx_result r = hx_call(cpu, i->stub, mem);
    if (likely(fx->fcw == HX_FCW && !(fx->fsw & HX_FSW_ES)))
        __asm__ volatile("emms");
    else
        __asm__ volatile("fninit");
    if (unlikely(r != HX_OK))
        run_fault(cpu, r);
    run_x87_pointers(cpu, i, fdp, fop, mem);
}

static void run_x87_reg(struct cpu *cpu, const struct insn *i)
{
    run_x87_guard(cpu, i->stub);
    run_x87(cpu, i, NULL);
}

static void run_x87_load(struct cpu *cpu, const struct insn *i)
{
    const struct stub *s = i->stub;
    run_x87_guard(cpu, s);
    uint64_t lin = run_lin(cpu, i, &s->c, ACC_READ);
    run_x87(cpu, i, (void *)(uintptr_t)mem_view_r(cpu, i->seg, lin, s->c.mem_size));
}

/* An unmasked invalid operation, overflow or underflow leaves memory as it was: then a bounced view is
 * dropped. */
static void run_x87_store(struct cpu *cpu, const struct insn *i)
{
    const struct stub *s = i->stub;
    run_x87_guard(cpu, s);
    uint64_t lin = run_lin(cpu, i, &s->c, ACC_WRITE);
    run_x87(cpu, i, mem_view_w(cpu, i->seg, lin, s->c.mem_size));
    if (unlikely(cpu->fx.fsw & HX_FSW_ES && cpu->fx.fsw & ~cpu->fx.fcw & 0x19))
        cpu->view.write = false;
    else
        mem_commit(cpu);
}

/* -- masked memory operands (AVX-512): elements whose mask bit is clear do not touch memory -- */

/* Bit j: element j of the memory operand is used. */
static uint64_t run_active(const struct cpu *cpu, const struct hx_class *c)
{
    uint64_t k = c->mask_reg ? cpu->k[c->mask_reg] : ~0ULL, all = c->mask_bits >= 64 ? ~0ULL : (1ULL << c->mask_bits) - 1;
    uint64_t m = k & all;
    if (c->packed)
        return (uint64_t)__builtin_popcountll(m);
    for (unsigned n = c->mask_bits; n > c->el_count;
         n /= 2) /* broadcast: several mask bits use one element */
        m |= m >> (n / 2);
    return c->el_count >= 64 ? m : m & ((1ULL << c->el_count) - 1);
}

/* Alignment of the operand as a whole. Under EFLAGS.AC Intel's CPUs look at a store of up to eight bytes so, too. */
static void run_masked_align(struct cpu *cpu, const struct insn *i, const struct hx_class *c)
{
    uint64_t lin = cpu->lin_base[i->seg] + insn_ea(cpu, i);
    if (unlikely(lin & c->align))
        CPU_GP0(cpu);
    bool checked = cpu->rflags & FL_AC && cpu->cr0 & CR0_AM && cpu->cpl == 3 && cpu->cpuid->vendor == VENDOR_INTEL;
    if (unlikely(checked && c->mem_write && c->mem_size <= 8 && lin & (c->mem_size - 1u) && cpu_canonical(cpu, lin)))
        cpu_raise(cpu, VEC_AC, 0);
}

/* Does #AC not look at the elements? On Intel's CPUs: those of a vector (see mem_alignment()). */
static bool run_unchecked(const struct cpu *cpu, const struct hx_class *c)
{
    return cpu->cpuid->vendor == VENDOR_INTEL && c->mem_size >= 16;
}

static void run_load_elements(struct cpu *cpu, const struct insn *i, const struct hx_class *c, uint64_t m, uint8_t *buf)
{
    bool unchecked = run_unchecked(cpu, c);
    for (; m; m &= m - 1) {
        unsigned off = (unsigned)__builtin_ctzll(m) * c->el_size;
        uint64_t lin = hx_elem_lin(cpu, i, off, c->el_size, ACC_READ);
        uint64_t v = unchecked ? vec_ld_elem(cpu, i->seg, lin, c->el_size) : mem_ld(cpu, i->seg, lin, c->el_size);
        memcpy(buf + off, &v, c->el_size);
    }
}

static void run_load_masked(struct cpu *cpu, const struct insn *i)
{
    const struct stub *s = i->stub;
    const struct hx_class *c = &s->c;
    uint8_t buf[64] __attribute__((aligned(64))) = { 0 };
    run_guard(cpu, c);
    uint64_t m = run_active(cpu, c);
    if (m) {
        run_masked_align(cpu, i, c);
        void *p = i->flags & INSN_LEGACY
                      ? NULL
                      : mem_fast_rd(cpu, cpu->lin_base[i->seg] + insn_ea(cpu, i), c->mem_size);
        if (likely(p != NULL)) {
            run_stub(cpu, s, p);
            return;
        }
    }
    run_load_elements(cpu, i, c, m, buf);
    run_stub(cpu, s, buf);
}

static void run_probe_elements(struct cpu *cpu, const struct insn *i, const struct hx_class *c, uint64_t m)
{
    bool unchecked = run_unchecked(cpu, c);
    for (; m; m &= m - 1) {
        unsigned off = (unsigned)__builtin_ctzll(m) * c->el_size;
        uint64_t lin = hx_elem_lin(cpu, i, off, c->el_size, ACC_WRITE);
        if (unchecked)
            vec_probe_elem(cpu, i->seg, lin, c->el_size);
        else
            mem_probe(cpu, i->seg, lin, c->el_size, ACC_WRITE);
    }
}

/* All faults first, then the stores: what a fault leaves is then what was there before. */
static void run_store_elements(struct cpu *cpu, const struct insn *i, const struct hx_class *c, uint64_t m,
                               const uint8_t *buf)
{
    bool unchecked = run_unchecked(cpu, c);
    for (; m; m &= m - 1) {
        unsigned off = (unsigned)__builtin_ctzll(m) * c->el_size;
        uint64_t v = 0, lin = hx_elem_lin(cpu, i, off, c->el_size, ACC_WRITE);
        memcpy(&v, buf + off, c->el_size);
        if (unchecked)
            vec_st_elem(cpu, i->seg, lin, v, c->el_size);
        else
            mem_st(cpu, i->seg, lin, v, c->el_size);
    }
}

static void run_store_masked(struct cpu *cpu, const struct insn *i)
{
    const struct stub *s = i->stub;
    const struct hx_class *c = &s->c;
    uint8_t buf[64] __attribute__((aligned(64))) = { 0 };
    run_guard(cpu, c);
    uint64_t m = run_active(cpu, c);
    if (m) {
        run_masked_align(cpu, i, c);
        void *p = i->flags & INSN_LEGACY
                      ? NULL
                      : mem_fast_wr(cpu, cpu->lin_base[i->seg] + insn_ea(cpu, i), c->mem_size);
        if (likely(p != NULL)) {
            run_stub(cpu, s, p);
            return;
        }
    }
    if (c->whole)
        mem_probe(cpu, i->seg, insn_lin(cpu, i, c->mem_size, ACC_WRITE), c->mem_size, ACC_WRITE);
    run_probe_elements(cpu, i, c, m);
    run_stub(cpu, s, buf);
    run_store_elements(cpu, i, c, m, buf);
}

/* VPEXPAND and friends: as many contiguous elements as mask bits are set. Alignment, where it is checked, is an element's. */
static void run_load_packed(struct cpu *cpu, const struct insn *i)
{
    const struct stub *s = i->stub;
    uint8_t buf[64] __attribute__((aligned(64))) = { 0 };
    run_guard(cpu, &s->c);
    unsigned count = (unsigned)run_active(cpu, &s->c), n = count * s->c.el_size;
    if (unlikely(n && cpu->rflags & FL_AC))
        run_load_elements(cpu, i, &s->c, ~0ULL >> (64 - count), buf);
    else if (n)
        memcpy(buf, mem_view_r(cpu, i->seg, insn_lin(cpu, i, n, ACC_READ), n), n);
    run_stub(cpu, s, buf);
}

static void run_store_packed(struct cpu *cpu, const struct insn *i)
{
    const struct stub *s = i->stub;
    uint8_t buf[64] __attribute__((aligned(64))) = { 0 };
    run_guard(cpu, &s->c);
    unsigned count = (unsigned)run_active(cpu, &s->c), n = count * s->c.el_size;
    if (unlikely(n && cpu->rflags & FL_AC)) {
        uint64_t m = ~0ULL >> (64 - count);
        run_probe_elements(cpu, i, &s->c, m);
        run_stub(cpu, s, buf);
        run_store_elements(cpu, i, &s->c, m, buf);
        return;
    }
    void *p = n ? mem_view_w(cpu, i->seg, insn_lin(cpu, i, n, ACC_WRITE), n) : NULL;
    run_stub(cpu, s, buf);
    if (!n)
        return;
    memcpy(p, buf, n);
    mem_commit(cpu);
}

insn_fn *hx_handler(const struct hx_class *c)
{
    unsigned shape = !c->mem_size ? 0 : c->mem_write ? 2 : 1;
    static insn_fn *const plain[] = { run_reg, run_load, run_store };
    static insn_fn *const mmx[] = { run_mmx_reg, run_mmx_load, run_mmx_store };
    static insn_fn *const x87[] = { run_x87_reg, run_x87_load, run_x87_store };
    static insn_fn *const masked[] = { run_reg, run_load_masked, run_store_masked };
    static insn_fn *const packed[] = { run_reg, run_load_packed, run_store_packed };
    if (c->flags & HX_X87)
        return x87[shape];
    if (c->flags & HX_MMX)
        return mmx[shape];
    if (c->packed)
        return packed[shape];
    if (c->mask_reg)
        return masked[shape];
    return plain[shape];
}
