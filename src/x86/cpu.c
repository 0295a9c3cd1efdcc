/* A CPU's life: reset and INIT, the derived state of its mode, RFLAGS, the time-stamp counter, raising
 * faults.
 *
 * Sources: Intel SDM vol. 3, table 9-1 (state after power-up, reset, INIT), 5.5 (CPL), 3.4.3 and 5.2.1 (code
 * size and segment bases in 64-bit mode); vol. 1, 3.4.3 (EFLAGS).
 *
 * Thread: the vCPU's own, or any while the vCPU is stopped.
 */
#include "x86/cpu.h"

#include <string.h>

#include "base/clock.h"
#include "x86/cpuid.h"
#include "x86/flags.h"
#include "x86/lapic.h"
#include "x86/mem.h"
#include "x86/tlb.h"

/* --- reset --- */

static void cpu_reset_segments(struct cpu *cpu)
{
    for (unsigned n = 0; n < SEG_COUNT; n++)
        cpu->seg[n] = (struct seg){ .limit = 0xffff, .attr = 0x93 };
    cpu->seg[SEG_CS] = (struct seg){ .base = 0xffff0000, .limit = 0xffff, .sel = 0xf000, .attr = 0x9b };
    cpu->ldtr = (struct seg){ .limit = 0xffff, .attr = 0x82 };
    cpu->tr = (struct seg){ .limit = 0xffff, .attr = 0x8b };
    cpu->gdtr = cpu->idtr = (struct dtr){ .limit = 0xffff };
}

/* What RESET and INIT have in common. */
static void cpu_reset_common(struct cpu *cpu)
{
    uint32_t id[4];
    memset(cpu->r, 0, sizeof(cpu->r));
    cpuid_query(cpu, 1, 0, id);
    cpu->r[RDX] = id[0];
    cpu->r[R_RIP] = cpu->start_rip = 0xfff0;
    cpu->rflags = FL_ONE;
    cpu->aflags = aflags_from_rflags(0);
    cpu_reset_segments(cpu);
    cpu->cr2 = cpu->cr3 = cpu->cr4 = cpu->cr8 = 0;
    memset(cpu->dr, 0, sizeof(cpu->dr));
    cpu->dr[6] = 0xffff0ff0;
    cpu->dr[7] = 0x400;
    cpu->efer = 0;
    memset(cpu->pdpte, 0, sizeof(cpu->pdpte));
    cpu->debugctl = 0;
    cpu->shadow = 0;
    cpu->nmi_blocked = cpu->nmi_pending = false;
    cpu->pending_db = 0;
    memset(&cpu->event, 0, sizeof(cpu->event));
    memset(&cpu->delivering, 0, sizeof(cpu->delivering));
    cpu->view.write = cpu->view.exclusive = false;
    cpu->insn = NULL;
    cpu->phys_bits = cpu->cpuid->phys_bits;
    cpu->mode_key = 0;
    kvmpv_reset(cpu);
}

static void cpu_reset_fpu(struct cpu *cpu)
{
    memset(cpu->zmm, 0, sizeof(cpu->zmm));
    memset(cpu->k, 0, sizeof(cpu->k));
    memset(&cpu->fx, 0, sizeof(cpu->fx));
    cpu->mxcsr = cpu->fx.mxcsr = 0x1f80;
    cpu->fx.fcw = 0x40;
    cpu->fx.ftw = 0xff; /* all registers hold +0.0 */
    cpu->xcr0 = XCR0_X87;
    cpu->xss = 0;
}

static void cpu_reset_msrs(struct cpu *cpu)
{
    cpu->star = cpu->lstar = cpu->cstar = cpu->sfmask = cpu->kernel_gs_base = 0;
    cpu->sysenter_cs = cpu->sysenter_esp = cpu->sysenter_eip = 0;
    cpu->pat = 0x0007040600070406;
    cpu->tsc_aux = cpu->spec_ctrl = cpu->smbase = 0;
    cpu->misc_enable = 1; /* fast strings */
    cpu->apic_base = LAPIC_GPA | APIC_BASE_EN | (cpu->index == 0 ? APIC_BASE_BSP : 0);
    cpu->mtrr_def_type = 0;
    memset(cpu->mtrr_fixed, 0, sizeof(cpu->mtrr_fixed));
    memset(cpu->mtrr_base, 0, sizeof(cpu->mtrr_base));
    memset(cpu->mtrr_mask, 0, sizeof(cpu->mtrr_mask));
    cpu->mcg_status = 0;
    cpu->mcg_ctl = ~0ULL;
    memset(cpu->mc_bank, 0, sizeof(cpu->mc_bank));
    cpu->hwcr = 1 << 24; /* the TSC counts at the P0 frequency */
    cpu->syscfg = cpu->nb_cfg = 0;
    /* Zero is the machine's creation, not this reset: so that the TSCs of all vCPUs agree. Or the host's TSC, if the clock runs on that. */
    cpu->tsc_offset = clock_host_tsc(cpu->clock);
    cpu->tsc_adjust = 0;
}

void cpu_reset(struct cpu *cpu)
{
    cpu_reset_common(cpu);
    cpu_reset_fpu(cpu);
    cpu_reset_msrs(cpu);
    cpu->cr0 = CR0_CD | CR0_NW | CR0_ET;
    cpu->activity = cpu->apic_base & APIC_BASE_BSP ? CPU_RUNNING : CPU_WAIT_SIPI;
    tlb_init(cpu);
    cpu_update_mode(cpu);
}

void cpu_init(struct cpu *cpu)
{
    uint64_t keep = cpu->cr0 & (CR0_CD | CR0_NW);
    cpu_reset_common(cpu);
    cpu->cr0 = keep | CR0_ET;
    mmu_flush_all(cpu);
    cpu_update_mode(cpu);
}

/* --- derived state --- */

/* CPL is the RPL of CS but for the moments after CR0.PE was set, when CS still holds a real-mode selector: a
 * non-conforming code segment's DPL, as loaded, is always the CPL. */
static unsigned cpu_mode_cpl(const struct cpu *cpu)
{
    const struct seg *cs = &cpu->seg[SEG_CS];
    if (!(cpu->cr0 & CR0_PE))
        return 0;
    if (cpu->rflags & FL_VM)
        return 3;
    bool conforming = (cs->attr & 0x1c) == 0x1c;
    return conforming ? cs->sel & 3 : (cs->attr & ATTR_DPL) >> ATTR_DPL_SHIFT;
}

static void cpu_mode_paging(struct cpu *cpu)
{
    cpu->long_mode = cpu->efer & EFER_LMA;
    if (!(cpu->cr0 & CR0_PG))
        cpu->paging_levels = 0;
    else if (cpu->long_mode)
        cpu->paging_levels = cpu->cr4 & CR4_LA57 ? 5 : 4;
    else
        cpu->paging_levels = cpu->cr4 & CR4_PAE ? 3 : 2;
}

static void cpu_mode_segments(struct cpu *cpu)
{
    bool code64 = cpu->long_mode && (cpu->seg[SEG_CS].attr & ATTR_L);
    cpu->code_size = code64 ? 8 : cpu->seg[SEG_CS].attr & ATTR_DB ? 4 : 2;
    for (unsigned n = 0; n < SEG_COUNT; n++)
        cpu->lin_base[n] = code64 && n < SEG_FS ? 0 : cpu->seg[n].base;
    cpu->sp_mask = code64 ? ~0ULL : cpu->seg[SEG_SS].attr & ATTR_DB ? 0xffffffffULL : 0xffffULL;
}

/* Enabled breakpoints: on code in *code, on data in the result. */
static bool cpu_breakpoints(const struct cpu *cpu, bool *code)
{
    bool data = false;
    for (unsigned n = 0; n < 4; n++) {
        unsigned rw = (unsigned)(cpu->dr[7] >> (16 + 4 * n)) & 3;
        if (!(cpu->dr[7] >> (2 * n) & 3))
            continue;
        data |= rw & 1;
        *code |= rw == 0;
    }
    return data;
}

void cpu_update_mode(struct cpu *cpu)
{
    bool code_bp = false, data_bp = false;
    if (unlikely(cpu->dr[7] & 0xff))
        data_bp = cpu_breakpoints(cpu, &code_bp);
    cpu->step = (cpu->rflags & FL_TF) || code_bp || cpu->shadow;
    cpu_mode_paging(cpu);
    cpu_mode_segments(cpu);
    cpu->cpl = (uint8_t)cpu_mode_cpl(cpu);
    cpu->mmu_idx = (uint8_t)mem_index_of(cpu, cpu->cpl);
    bool align = (cpu->cr0 & CR0_AM) && (cpu->rflags & FL_AC) && cpu->cpl == 3;
    cpu->tlb = align ? (struct tlb_entry *)tlb_nothing : cpu->tlbs[cpu->mmu_idx];
    if (unlikely(data_bp != cpu->data_bp)) {
        cpu->data_bp = data_bp; /* before: entries say for each page whether it is watched */
        mmu_flush_all(cpu);
    }
    uint32_t key = 1u << 31 | cpu->code_size | (uint32_t)cpu->cpl << MODE_KEY_CPL | (uint32_t)cpu->paging_levels << 6 |
                   (uint32_t)cpu->long_mode << 9 | (uint32_t)cpu->step << 10 | (uint32_t)cpu->mmu_idx << MODE_KEY_MMU |
                   (uint32_t)(cpu->cr0 & CR0_PE) << 13 | (uint32_t)align << MODE_KEY_ALIGN | (cpu->rflags & FL_VM);
    if (key != cpu->mode_key) {
        cpu->mode_key = key;
        if (cpu->ops && cpu->ops->mode_changed)
            cpu->ops->mode_changed(cpu);
    }
}

/* --- RFLAGS --- */

#define FL_ALL                                                                                               \
    (FL_ARITH | FL_TF | FL_IF | FL_DF | FL_IOPL | FL_NT | FL_RF | FL_VM | FL_AC | FL_VIF | FL_VIP | FL_ID)

uint64_t cpu_rflags(const struct cpu *cpu) { return aflags_to_rflags(cpu->aflags) | cpu->rflags; }

void cpu_set_rflags(struct cpu *cpu, uint64_t v)
{
    uint32_t f = (uint32_t)(v & FL_ALL & ~(uint64_t)FL_ARITH) | FL_ONE;
    uint32_t changed = f ^ cpu->rflags;
    cpu->aflags = aflags_from_rflags((uint32_t)v);
    cpu->rflags = f;
    if (changed & (FL_TF | FL_VM | FL_AC))
        cpu_update_mode(cpu);
}

/* --- time --- */

uint64_t cpu_tsc(struct cpu *cpu) { return clock_ticks(cpu->clock) + cpu->tsc_offset; }

bool cpu_tsc_is_host(const struct cpu *cpu)
{
    uint64_t host = clock_host_tsc(cpu->clock);

    return host && cpu->tsc_offset == host;
}

/* --- faults --- */

static _Noreturn void cpu_leave(struct cpu *cpu, unsigned vector, bool has_error, uint32_t error,
                                uint64_t cr2)
{
    cpu->event.valid = true;
    cpu->event.soft = false;
    cpu->event.vector = (uint8_t)vector;
    cpu->event.has_error = has_error;
    cpu->event.error = error;
    cpu->event.cr2 = cr2;
    cpu->r[R_RIP] = cpu->start_rip;
    cpu->view.write = false;
    if (cpu->view.exclusive) {
        cpu->view.exclusive = false;
        cpu->ops->exclusive_end(cpu);
    }
    siglongjmp(*cpu->unwind, 1);
}

void cpu_raise(struct cpu *cpu, unsigned vector, uint32_t error) { cpu_leave(cpu, vector, true, error, 0); }

void cpu_raise_noerr(struct cpu *cpu, unsigned vector) { cpu_leave(cpu, vector, false, 0, 0); }

void cpu_raise_pf(struct cpu *cpu, uint64_t gva, uint32_t error) { cpu_leave(cpu, VEC_PF, true, error, gva); }
