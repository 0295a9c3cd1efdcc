/* Debug registers, breakpoints and single step (SDM vol. 3, 17.2 and 17.3). vCPU thread; no locks.
 *
 * DR6 and DR7 are kept with their reserved bits as a read shows them. RF lives for one instruction: the
 * engine takes it away before the instruction that it protects, so that whatever sets it (IRET) sets it for
 * the next one.
 */
#include "x86/debug.h"

#define DR6_FIXED 0xffff0ff0u
#define DR6_VALID 0x0000e00fu
#define DR6_BD    0x2000u
#define DR6_BS    0x4000u
#define DR6_BT    0x8000u
#define DR7_FIXED 0x400u
#define DR7_VALID 0xffff23ffu
#define DR7_LOCAL 0x155u /* L0-L3, LE */
#define DR7_GD    0x2000u

enum dr_kind { DR_EXEC, DR_WRITE, DR_IO, DR_ACCESS };

static bool dr_enabled(const struct cpu *cpu, unsigned n) { return cpu->dr[7] >> (2 * n) & 3; }

static enum dr_kind dr_kind(const struct cpu *cpu, unsigned n)
{
    return (enum dr_kind)(cpu->dr[7] >> (16 + 4 * n) & 3);
}

static unsigned dr_len(const struct cpu *cpu, unsigned n)
{
    static const uint8_t len[4] = { 1, 2, 8, 4 };
    return len[cpu->dr[7] >> (18 + 4 * n) & 3];
}

/* Do [addr, addr+size) and breakpoint n touch? A breakpoint is aligned to its length. */
static bool dr_hit(const struct cpu *cpu, unsigned n, uint64_t addr, unsigned size)
{
    unsigned len = dr_len(cpu, n);
    uint64_t start = cpu->dr[n] & ~(uint64_t)(len - 1);
    return addr < start + len && start < addr + size;
}

static _Noreturn void debug_raise(struct cpu *cpu, uint64_t dr6)
{
    /* Bits of earlier exceptions stay until software clears them, but for B0-B3. */
    cpu->dr[6] = (cpu->dr[6] & ~0xfULL) | dr6 | DR6_FIXED;
    cpu->pending_db = 0;
    cpu_raise_noerr(cpu, VEC_DB);
}

void debug_enter(struct cpu *cpu) { cpu->dr[7] &= ~(uint64_t)DR7_GD; }

static unsigned debug_number(struct cpu *cpu, unsigned n)
{
    if (n > 7 || ((n == 4 || n == 5) && (cpu->cr4 & CR4_DE)))
        CPU_UD(cpu);
    if (cpu->cpl != 0)
        CPU_GP0(cpu);
    if (cpu->dr[7] & DR7_GD)
        debug_raise(cpu, DR6_BD);
    return n == 4 || n == 5 ? n + 2 : n;
}

/* Does DR7 watch any data? Then pages are marked in the TLB. */
static bool debug_watches_data(uint64_t dr7)
{
    for (unsigned n = 0; n < 4; n++)
        if ((dr7 >> (2 * n) & 3) && (dr7 >> (16 + 4 * n) & 1))
            return true;
    return false;
}

static void debug_changed(struct cpu *cpu, bool watched)
{
    cpu_update_mode(cpu);
    if (watched || debug_watches_data(cpu->dr[7]))
        mmu_flush_all(cpu);
    cpu_attention(cpu, ATT_STEP);
}

void debug_write_dr(struct cpu *cpu, unsigned n, uint64_t v)
{
    n = debug_number(cpu, n);
    bool watched = debug_watches_data(cpu->dr[7]);
    if (n >= 6 && v >> 32)
        CPU_GP0(cpu);
    if (n < 4)
        cpu->dr[n] = v;
    else if (n == 6)
        cpu->dr[6] = (v & DR6_VALID) | DR6_FIXED;
    else
        cpu->dr[7] = (v & DR7_VALID) | DR7_FIXED;
    debug_changed(cpu, watched);
}

uint64_t debug_read_dr(struct cpu *cpu, unsigned n) { return cpu->dr[debug_number(cpu, n)]; }

void debug_check_code(struct cpu *cpu, uint64_t lin)
{
    uint64_t hit = 0;
    if (cpu->rflags & FL_RF)
        return;
    for (unsigned n = 0; n < 4; n++)
        if (dr_enabled(cpu, n) && dr_kind(cpu, n) == DR_EXEC && dr_hit(cpu, n, lin, 1))
            hit |= BIT(n);
    if (hit)
        debug_raise(cpu, hit);
}

static void debug_collect(struct cpu *cpu, uint64_t hit)
{
    if (!hit)
        return;
    cpu->pending_db |= hit;
    cpu_attention(cpu, ATT_STEP);
}

void debug_check_data(struct cpu *cpu, uint64_t lin, unsigned size, enum mmu_access acc)
{
    uint64_t hit = 0;
    for (unsigned n = 0; n < 4; n++) {
        enum dr_kind kind = dr_kind(cpu, n);
        bool wanted = kind == DR_ACCESS || (kind == DR_WRITE && (acc & ACC_WRITE));
        if (dr_enabled(cpu, n) && wanted && dr_hit(cpu, n, lin, size))
            hit |= BIT(n);
    }
    debug_collect(cpu, hit);
}

void debug_check_io(struct cpu *cpu, uint16_t port, unsigned size)
{
    uint64_t hit = 0;
    if (likely(!(cpu->dr[7] & 0xff)) || !(cpu->cr4 & CR4_DE))
        return;
    for (unsigned n = 0; n < 4; n++)
        if (dr_enabled(cpu, n) && dr_kind(cpu, n) == DR_IO && dr_hit(cpu, n, port, size))
            hit |= BIT(n);
    debug_collect(cpu, hit);
}

void debug_flags_written(struct cpu *cpu, bool new_tf)
{
    if ((cpu->rflags & FL_TF) && !new_tf)
        debug_step_now(cpu);
}

void debug_step_now(struct cpu *cpu) { debug_collect(cpu, DR6_BS); }

void debug_task_switch(struct cpu *cpu, bool trap)
{
    bool watched = debug_watches_data(cpu->dr[7]);
    if (cpu->dr[7] & DR7_LOCAL) {
        cpu->dr[7] &= ~(uint64_t)DR7_LOCAL;
        debug_changed(cpu, watched);
    }
    if (trap)
        debug_collect(cpu, DR6_BT);
}

void debug_after(struct cpu *cpu, bool tf)
{
    if (cpu->shadow & SHADOW_MOVSS)
        return; /* both wait for the instruction after a load of SS */
    uint64_t dr6 = cpu->pending_db;
    if (tf && (cpu->rflags & FL_TF)) /* INT n and SYSCALL that cleared TF do not trap */
        dr6 |= DR6_BS;
    if (!dr6)
        return;
    cpu->start_rip = cpu->r[R_RIP]; /* a trap: the next instruction is where it is reported */
    debug_raise(cpu, dr6);
}
