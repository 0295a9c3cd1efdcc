/* Described state of a CPU: everything architectural in struct cpu, and the check of what a file says about
 * it.
 *
 * The local APIC describes itself (lapic.c). Derived fields are rebuilt by whoever loads: cpu_update_mode()
 * and mmu_flush_all() after state_load().
 */
#include <errno.h>

#include "base/err.h"
#include "state/state.h"
#include "x86/cpu.h"
#include "x86/flags.h"

static const struct state_field seg_fields[] = {
    STATE_F64(struct seg, base),
    STATE_F32(struct seg, limit),
    STATE_F16(struct seg, sel),
    STATE_F16(struct seg, attr),
    STATE_END,
};

static const struct state_desc seg_desc = {
    .name = "segment",
    .version = 1,
    .size = sizeof(struct seg),
    .fields = seg_fields,
};

static const struct state_field dtr_fields[] = {
    STATE_F64(struct dtr, base),
    STATE_F16(struct dtr, limit),
    STATE_END,
};

static const struct state_desc dtr_desc = {
    .name = "table",
    .version = 1,
    .size = sizeof(struct dtr),
    .fields = dtr_fields,
};

static const struct state_field x87_fields[] = {
    STATE_F16(struct x87_image, fcw),   STATE_F16(struct x87_image, fsw),
    STATE_F8(struct x87_image, ftw),    STATE_F16(struct x87_image, fop),
    STATE_F64(struct x87_image, fip),   STATE_F64(struct x87_image, fdp),
    STATE_FBYTES(struct x87_image, st), STATE_END,
};

static const struct state_desc x87_desc = {
    .name = "x87",
    .version = 1,
    .size = sizeof(struct x87_image),
    .fields = x87_fields,
};

/* Saved at an instruction boundary, so that there is no event that is recorded and not delivered. */
static const struct state_field cpu_fields[] = {
    STATE_F64(struct cpu, r),
    STATE_F32(struct cpu, aflags),
    STATE_F32(struct cpu, rflags),
    STATE_F8(struct cpu, shadow),
    STATE_FBYTES(struct cpu, zmm),
    STATE_F64(struct cpu, k),
    STATE_F32(struct cpu, mxcsr),
    STATE_FSTRUCT(struct cpu, fx, struct x87_image, x87_desc),
    STATE_FSTRUCT(struct cpu, seg, struct seg, seg_desc),
    STATE_FSTRUCT(struct cpu, ldtr, struct seg, seg_desc),
    STATE_FSTRUCT(struct cpu, tr, struct seg, seg_desc),
    STATE_FSTRUCT(struct cpu, gdtr, struct dtr, dtr_desc),
    STATE_FSTRUCT(struct cpu, idtr, struct dtr, dtr_desc),
    STATE_F64(struct cpu, cr0),
    STATE_F64(struct cpu, cr2),
    STATE_F64(struct cpu, cr3),
    STATE_F64(struct cpu, cr4),
    STATE_F64(struct cpu, cr8),
    STATE_F64(struct cpu, dr),
    STATE_F64(struct cpu, efer),
    STATE_F64(struct cpu, xcr0),
    STATE_F64(struct cpu, xss),
    STATE_F64(struct cpu, pdpte),
    STATE_F64(struct cpu, star),
    STATE_F64(struct cpu, lstar),
    STATE_F64(struct cpu, cstar),
    STATE_F64(struct cpu, sfmask),
    STATE_F64(struct cpu, kernel_gs_base),
    STATE_F64(struct cpu, sysenter_cs),
    STATE_F64(struct cpu, sysenter_esp),
    STATE_F64(struct cpu, sysenter_eip),
    STATE_F64(struct cpu, pat),
    STATE_F64(struct cpu, tsc_aux),
    STATE_F64(struct cpu, tsc_adjust),
    STATE_F64(struct cpu, misc_enable),
    STATE_F64(struct cpu, apic_base),
    STATE_F64(struct cpu, mtrr_def_type),
    STATE_F64(struct cpu, mtrr_fixed),
    STATE_F64(struct cpu, mtrr_base),
    STATE_F64(struct cpu, mtrr_mask),
    STATE_F64(struct cpu, mcg_status),
    STATE_F64(struct cpu, mcg_ctl),
    STATE_F64(struct cpu, mc_bank),
    STATE_F64(struct cpu, smbase),
    STATE_F64(struct cpu, debugctl),
    STATE_F64(struct cpu, spec_ctrl),
    STATE_F64(struct cpu, hwcr),
    STATE_F64(struct cpu, syscfg),
    STATE_F64(struct cpu, nb_cfg),
    STATE_F64(struct cpu, tsc_offset),
    STATE_FSTRUCT(struct cpu, pv, struct kvmpv, kvmpv_state_desc),
    STATE_F8(struct cpu, activity),
    STATE_FBOOL(struct cpu, nmi_blocked),
    STATE_FBOOL(struct cpu, nmi_pending),
    STATE_F8(struct cpu, sipi_vector),
    STATE_F64(struct cpu, pending_db),
    STATE_END,
};

/* Combinations that no sequence of checked writes could have made would break what the semantics rely on. */
static int cpu_state_check(void *obj, struct err *err)
{
    struct cpu *cpu = obj;
    bool pg = cpu->cr0 & CR0_PG, lma = cpu->efer & EFER_LMA, lme = cpu->efer & EFER_LME;
    if (cpu->cr0 >> 32 || (pg && !(cpu->cr0 & CR0_PE)) || lma != (pg && lme) ||
        (lma && !(cpu->cr4 & CR4_PAE)))
        return err_set(err, EINVAL, "CPU state: CR0, CR4 and EFER contradict each other");
    if ((cpu->rflags & FL_VM) && (lma || !(cpu->cr0 & CR0_PE)))
        return err_set(err, EINVAL, "CPU state: virtual-8086 mode in a mode that has none");
    if (cpu->activity > CPU_SHUTDOWN)
        return err_set(err, EINVAL, "CPU state: activity %u does not exist", cpu->activity);
    if (!(cpu->xcr0 & XCR0_X87) || (cpu->mxcsr & ~0x2ffffu))
        return err_set(err, EINVAL, "CPU state: XCR0 or MXCSR has an impossible value");
    cpu->r[R_ZERO] = 0;
    cpu->start_rip = cpu->r[R_RIP];
    cpu->rflags = (cpu->rflags & ~FL_ARITH) | FL_ONE;
    cpu->aflags = aflags_from_rflags(aflags_to_rflags(cpu->aflags));
    cpu->shadow &= SHADOW_STI | SHADOW_MOVSS;
    cpu->cr8 &= 15;
    return 0;
}

const struct state_desc cpu_state_desc = {
    .name = "cpu",
    .version = 1,
    .size = sizeof(struct cpu),
    .fields = cpu_fields,
    .check = cpu_state_check,
};
