/* Instructions of kernels' entries, exits and switches, inline: fences, SWAPGS, STAC and CLAC, the bases of FS and GS, selectors as data,
 * CLD and STD.
 *
 * What privilege and control registers they need is one word of struct dbt_data each, made whenever the CPU's mode may have changed
 * (dbt_entering()): where it is zero the handler raises what is to be raised. None of this touches a flag of the host's. */
#include "engine/dbt/place.h"
#include "x86/cpuid.h"

uint8_t x_classify_system(struct xinsn *x, const struct decoded *d)
{
    const struct insn *i = x->i;
    switch (i->op) {
    case ZYDIS_MNEMONIC_LFENCE: case ZYDIS_MNEMONIC_MFENCE: case ZYDIS_MNEMONIC_SFENCE:
        x->ext = d->z.raw.modrm.reg;
        return X_FENCE;
    case ZYDIS_MNEMONIC_CLD: case ZYDIS_MNEMONIC_STD: return X_SET_DF;
    case ZYDIS_MNEMONIC_STAC: case ZYDIS_MNEMONIC_CLAC: return X_SET_AC;
    case ZYDIS_MNEMONIC_SWAPGS: return X_SWAPGS;
    case ZYDIS_MNEMONIC_RDTSC: case ZYDIS_MNEMONIC_RDTSCP: return X_TSC;
    case ZYDIS_MNEMONIC_SYSCALL: return d->code_size == 8 ? X_SYSCALL : 0xff;
    case ZYDIS_MNEMONIC_SYSRET: return d->code_size == 8 && i->esz == 8 ? X_SYSRET : 0xff;
    case ZYDIS_MNEMONIC_RDFSBASE: case ZYDIS_MNEMONIC_RDGSBASE:
    case ZYDIS_MNEMONIC_WRFSBASE: case ZYDIS_MNEMONIC_WRGSBASE:
        x->rm = i->r0 / 8;
        x->ext = d->z.raw.modrm.reg;
        return X_SEG_BASE;
    case ZYDIS_MNEMONIC_MOV:
        if (d->z.opcode_map == ZYDIS_OPCODE_MAP_0F && d->z.opcode == 0x20 && d->code_size == 8) {
            x->rm = i->r0 / 8;
            return X_FROM_CR;
        }
        if (d->z.opcode_map != ZYDIS_OPCODE_MAP_DEFAULT || d->z.opcode != 0x8c || i->flags & INSN_MEM)
            return 0xff;
        x->rm = i->r0 / 8;
        return X_SELECTOR;
    default:
        return 0xff;
    }
}

void x_fence(struct xblock *xb, const struct xinsn *x) { EMIT(&xb->e, 0x0f, 0xae, 0xc0 | x->ext << 3); }

/* The handler, if the word of struct dbt_data is zero. */
static void system_only_if(struct xblock *xb, const struct xinsn *x, uint32_t word)
{
    emit_data(&xb->e, OP_W | 0x8b, T0, word, 0);
    place_jrcxz(xb, &place_pend(xb, PEND_CALLOUT, x)->from[0]);
}

/* In struct cpu's rflags, one of the flags that live there. Destroys T2. */
static void system_set_flag(struct xblock *xb, uint32_t without, uint32_t flag)
{
    struct emit *e = &xb->e;
    emit_cpu(e, 0x8b, T2, CPU_OFF(rflags));
    place_pext(e, T2, T2, without);
    place_pdep(e, T2, T2, without);
    if (flag)
        emit_rm(e, OP_W | 0x8d, T2, T2, (int32_t)flag);
    emit_cpu(e, 0x89, T2, CPU_OFF(rflags));
}

/* CLI, and STI while no interrupt waits, which makes its shadow invisible; where IOPL lets them. One may have come since this code was entered. */
void x_set_if(struct xblock *xb, const struct xinsn *x)
{
    bool on = x->kind == X_STI;
    system_only_if(xb, x, on ? DATA_OFF(sti_plain) : DATA_OFF(cli_plain));
    if (on)
        system_only_if(xb, x, DATA_OFF(calm));
    system_set_flag(xb, DATA_OFF(mask_no_if), on ? FL_IF : 0);
}

void x_set_df(struct xblock *xb, const struct xinsn *x)
{
    system_set_flag(xb, DATA_OFF(mask_no_df), x->i->op == ZYDIS_MNEMONIC_STD ? FL_DF : 0);
}

/* What cpu_update_mode() would find: at level 0 nothing but the way of accessing memory changes. */
void x_set_ac(struct xblock *xb, const struct xinsn *x)
{
    struct emit *e = &xb->e;
    unsigned on = x->i->op == ZYDIS_MNEMONIC_STAC, index = on ? MMU_SUP : MMU_SUP_SMAP;
    system_only_if(xb, x, DATA_OFF(smap));
    system_set_flag(xb, DATA_OFF(mask_no_ac), on ? FL_AC : 0);
    emit_cpu(e, 0xc6, 0, CPU_OFF(mmu_idx)); /* mov byte */
    emit_byte(e, index);
    emit_mov_imm64(e, T2, (uintptr_t)xb->cpu->tlbs[index]);
    emit_cpu(e, OP_W | 0x89, T2, CPU_OFF(tlb));
    emit_data(e, 0x8b, T2, DATA_OFF(smap_key) + 4 * on, 0);
    emit_cpu(e, 0x89, T2, CPU_OFF(mode_key));
    emit_data(e, OP_W | 0x8b, TBASE, DATA_OFF(smap_read) + 8 * on, 0);
    emit_data(e, OP_W | 0x89, TBASE, DATA_OFF(read), 0);
}

#define SEG_BASE(n) (CPU_OFF(seg) + (n) * (uint32_t)sizeof(struct seg) + (uint32_t)offsetof(struct seg, base))
#define SEG_SEL(n)  (CPU_OFF(seg) + (n) * (uint32_t)sizeof(struct seg) + (uint32_t)offsetof(struct seg, sel))

static void system_put_base(struct xblock *xb, unsigned seg, unsigned host)
{
    emit_cpu(&xb->e, OP_W | 0x89, host, SEG_BASE(seg));
    emit_cpu(&xb->e, OP_W | 0x89, host, CPU_OFF(lin_base) + 8 * seg);
}

void x_swapgs(struct xblock *xb, const struct xinsn *x)
{
    struct emit *e = &xb->e;
    system_only_if(xb, x, DATA_OFF(kernel));
    emit_cpu(e, OP_W | 0x8b, T0, CPU_OFF(kernel_gs_base));
    emit_cpu(e, OP_W | 0x8b, T2, SEG_BASE(SEG_GS));
    emit_cpu(e, OP_W | 0x89, T2, CPU_OFF(kernel_gs_base));
    system_put_base(xb, SEG_GS, T0);
}

/* The host's TSC, if the guest's is that. */
static void system_host_tsc(struct emit *e, bool rdtscp)
{
    if (rdtscp)
        EMIT(e, 0x0f, 0xae, 0xe8); /* lfence */
    EMIT(e, 0x0f, 0x31);
    if (rdtscp)
        emit_cpu(e, 0x8b, place_of(RCX), CPU_OFF(tsc_aux));
}

/* What reads the clock otherwise is C, which needs fewer registers saved than a handler, unless vectors are in the host's. */
void x_tsc(struct xblock *xb, const struct xinsn *x)
{
    struct emit *e = &xb->e;
    bool rdtscp = x->i->op == ZYDIS_MNEMONIC_RDTSCP, mem = xb->flags_mem;
    if (rdtscp && !cpu_has(xb->cpu, CPU_FEAT(FEAT_8_1_EDX, 27))) {
        x_callout(xb, x);
        return;
    }
    place_island(xb, true); /* what follows is longer than what it counts on */
    flags_load(xb);
    emit_data(e, OP_W | 0x8b, T0, DATA_OFF(tsc_host), 0);
    EMIT(e, 0xe3, 0); /* jrcxz to what asks further */
    uint8_t *ask = e->p;
    system_host_tsc(e, rdtscp);
    uint8_t *done = emit_jmp(e);
    ask[-1] = (uint8_t)(e->p - ask);
    emit_data(e, OP_W | 0x8b, T0, DATA_OFF(tsc_plain), 0);
    EMIT(e, 0xe3, 8); /* jrcxz over the next two */
    const uint8_t *load = e->p;
    emit_data(e, 0x8b, T0, DATA_OFF(vec_live), 0);
    EMIT(e, 0xe3, 0); /* jrcxz to the call of the thunk */
    e->overflow |= e->p - load != 8;
    uint8_t *quick = e->p;
    x_callout(xb, x);
    uint8_t *end = emit_jmp(e);
    quick[-1] = (uint8_t)(e->p - quick);
    emit_call_rx(e, xb->t->thunk.tsc);
    if (rdtscp)
        emit_cpu(e, 0x8b, place_of(RCX), CPU_OFF(tsc_aux));
    emit_here(e, end);
    emit_here(e, done);
    xb->flags_mem = mem;
}

/* RDFSBASE /0, RDGSBASE /1, WRFSBASE /2, WRGSBASE /3. */
void x_seg_base(struct xblock *xb, const struct xinsn *x)
{
    struct emit *e = &xb->e;
    unsigned seg = x->ext & 1 ? SEG_GS : SEG_FS, host = place_of(x->rm);
    uint32_t wide = x->i->osz == 8 ? OP_W : 0;
    system_only_if(xb, x, DATA_OFF(fsgsbase));
    if (!(x->ext & 2)) {
        emit_cpu(e, wide | 0x8b, host = host == PLACE_MEMORY ? T2 : host, SEG_BASE(seg));
        if (host == T2)
            emit_guest(e, OP_W | 0x89, T2, x->rm);
        return;
    }
    if (host == PLACE_MEMORY)
        emit_guest(e, wide | 0x8b, T2, x->rm);
    else
        emit_rr(e, wide | 0x89, host, T2);
    if (wide) { /* canonical: the upper 17 bits are all clear or all set */
        place_pext(e, T0, T2, DATA_OFF(mask_high));
        EMIT(e, 0xe3, 14, 0x48, 0x8d, 0x89, 0x01, 0x00, 0xfe, 0xff); /* jrcxz behind it all; lea rcx, [rcx - 0x1ffff] */
        place_jrcxnz(xb, &place_pend(xb, PEND_CALLOUT, x)->from[0]);
    }
    system_put_base(xb, seg, T2);
}

/* MOV from a control register. */
void x_from_cr(struct xblock *xb, const struct xinsn *x)
{
    static const uint32_t field[16] = { [0] = CPU_OFF(cr0), [2] = CPU_OFF(cr2), [3] = CPU_OFF(cr3), [4] = CPU_OFF(cr4), [8] = CPU_OFF(cr8) };
    struct emit *e = &xb->e;
    unsigned host = place_of(x->rm);
    if (!field[x->i->cc & 15]) {
        x_callout(xb, x);
        return;
    }
    system_only_if(xb, x, DATA_OFF(kernel));
    emit_cpu(e, OP_W | 0x8b, host == PLACE_MEMORY ? T2 : host, field[x->i->cc & 15]);
    if (host == PLACE_MEMORY)
        emit_guest(e, OP_W | 0x89, T2, x->rm);
}

/* MOV from a segment register to a general one. */
void x_selector(struct xblock *xb, const struct xinsn *x)
{
    struct emit *e = &xb->e;
    unsigned host = place_of(x->rm);
    emit_cpu(e, 0x0fb7, T2, SEG_SEL(x->i->cc));
    uint32_t op = (x->i->osz == 2 ? OP_66 : OP_W) | 0x89;
    if (host == PLACE_MEMORY)
        emit_guest(e, op, T2, x->rm);
    else
        emit_rr(e, op, T2, host);
}
