/* SYSCALL and SYSRET between 64-bit code of both levels, inline.
 *
 * What they change beside registers and flags is what follows from the level: the stack's and code's segments, the way to memory, where
 * branches are looked up, and what else may run inline. All of it is worked out whenever C code may have changed what it depends on
 * (dbt_doors()): system registers, the space, what waits. Then each way is a lookup of its target, and stores.
 *
 * Nothing is done before the lookup has found the target: else, and for flags that mean more than themselves, their handler does it
 * all. So a target is canonical, and has run at that level. */
#include "engine/dbt/place.h"
#include "x86/desc.h"
#include "x86/mem.h"

#define DOOR_CLEAR (FL_ARITH | FL_TF | FL_AC) /* of RFLAGS: what SFMASK must clear */

/* --- what is known beforehand --- */

/* The part of a flat segment that is not its base, as SYSCALL and SYSRET load it. */
static uint64_t door_segment(unsigned sel, unsigned cpl, unsigned attr)
{
    attr |= ATTR_P | ATTR_S | cpl << ATTR_DPL_SHIFT | TYPE_RW | TYPE_ACCESSED | ATTR_G;
    return 0xffffffffULL | (uint64_t)(uint16_t)((sel & ~(unsigned)SEL_RPL) | cpl) << 32 | (uint64_t)attr << 48;
}
_Static_assert(offsetof(struct seg, limit) == 8 && offsetof(struct seg, sel) == 12 && offsetof(struct seg, attr) == 14, "as above");
_Static_assert(offsetof(struct cpu, code_size) == offsetof(struct cpu, cpl) + 1 && offsetof(struct cpu, mmu_idx) == offsetof(struct cpu, cpl) + 2 &&
                   offsetof(struct cpu, shadow) == offsetof(struct cpu, cpl) + 3,
               "as modes below");

static uint32_t door_key(const struct cpu *cpu, unsigned cpl, unsigned index)
{
    uint32_t same = cpu->mode_key & ~(3u << MODE_KEY_CPL | 3u << MODE_KEY_MMU | 1u << MODE_KEY_ALIGN);
    return same | cpl << MODE_KEY_CPL | index << MODE_KEY_MMU;
}

/* To level cpl with the stack segment's selector ss, accesses by index through s, branch targets by code. */
static void door_make(struct dbt_door *d, struct cpu *cpu, unsigned cpl, unsigned cs, unsigned ss, unsigned index, const struct flat_set *s,
                      const struct flat_set *code)
{
    d->cs = door_segment(cs, cpl, TYPE_CODE | ATTR_L);
    d->ss = door_segment(ss, cpl, ATTR_DB);
    d->read = s->read;
    d->jumps = code->jumps;
    d->returns = flat_returns(s->read);
    d->good = &code->good;
    d->tlb = cpu->tlbs[index];
    d->modes = cpl | 8u << 8 | index << 16;
    d->mode_key = door_key(cpu, cpl, index);
}

/* From what now is, which door_seen() notes. */
static void door_work_out(struct dbt *t, struct cpu *cpu, uint32_t key)
{
    struct dbt_data *d = t->data;
    bool smap = cpu->cr4 & CR4_SMAP;
    const struct flat_set *sets = t->flat.set, *sup = &sets[smap ? FLAT_SUP_SMAP : FLAT_SUP], *user = &sets[t->flat.user];
    unsigned star = (unsigned)(cpu->star >> 32), in = star & 0xffff & ~(unsigned)SEL_RPL, out = star >> 16;
    bool both = sets[FLAT_SUP_SMAP].read && sets[FLAT_SUP].read;
    d->smap_ready = smap && both;
    d->smap_read[0] = sets[FLAT_SUP_SMAP].read;
    d->smap_read[1] = sets[FLAT_SUP].read;
    d->smap_key[0] = key | MMU_SUP_SMAP << MODE_KEY_MMU;
    d->smap_key[1] = key | MMU_SUP << MODE_KEY_MMU;
    t->doors_made = cpu->efer & EFER_SCE && (cpu->sfmask & DOOR_CLEAR) == DOOR_CLEAR && both && user->read;
    d->door_rip = cpu->lstar;
    d->door_keep = ~(uint32_t)cpu->sfmask | FL_ONE;
    if (!t->doors_made)
        return;
    door_make(&d->door[0], cpu, 0, in, in + 8, smap ? MMU_SUP_SMAP : MMU_SUP, sup, &sets[FLAT_SUP_SMAP]);
    door_make(&d->door[1], cpu, 3, out + 16, out + 8, MMU_USER, user, user);
}

/* Was this what was seen the last time? It is from now on. */
static bool door_seen(struct door_seen *seen, const struct door_seen *now)
{
    bool same = !memcmp(seen, now, sizeof(*now));
    *seen = *now;
    return same;
}

void dbt_doors(struct dbt *t, struct cpu *cpu, bool tables)
{
    struct dbt_data *d = t->data;
    struct door_seen now = { .star = cpu->star, .lstar = cpu->lstar, .sfmask = cpu->sfmask, .cr4 = cpu->cr4, .efer = cpu->efer,
                             .user = t->flat.user, .key = door_key(cpu, 0, 0) };
    if (!door_seen(&t->seen, &now))
        door_work_out(t, cpu, now.key);
    bool wide = cpu->code_size == 8 && tables;
    d->kernel = wide && cpu->cpl == 0;
    d->smap = d->kernel && d->smap_ready;
    d->doors = wide && t->doors_made && !(t->direct && direct_hot(t->direct, cpu));
    d->door_user = d->doors && cpu->cpl == 3;
}

/* --- code --- */

static void door_need(struct xblock *xb, uint32_t word)
{
    emit_data(&xb->e, OP_W | 0x8b, T0, word, 0);
    place_jrcxz(xb, branch_miss(xb));
}

/* FRAME_TARGET = where T1 goes on behind that door. Behind it, everything is decided. */
static void door_lookup(struct xblock *xb, const struct xinsn *x, unsigned n)
{
    x_lookup(xb, x, DATA_OFF(door[n].jumps));
    place_island(xb, true);
    x_keep_target(&xb->e);
}

static void door_word(struct emit *e, uint32_t word, uint32_t value)
{
    emit_data(e, OP_W | 0xc7, 0, word, 4);
    emit_u32(e, value);
}

static void door_copy(struct emit *e, uint32_t from, uint32_t to)
{
    emit_data(e, OP_W | 0x8b, T2, from, 0);
    emit_data(e, OP_W | 0x89, T2, to, 0);
}

static void door_cpu(struct emit *e, uint32_t wide, uint32_t from, uint32_t to)
{
    emit_data(e, wide | 0x8b, T2, from, 0);
    emit_cpu(e, wide | 0x89, T2, to);
}

static void door_base(struct emit *e, unsigned seg)
{
    emit_cpu(e, OP_W | 0xc7, 0, CPU_OFF(seg) + seg * (uint32_t)sizeof(struct seg));
    emit_u32(e, 0);
}

/* Through it; T0 and T2 are destroyed, flags are not. The last store is a fence too: whoever wants attention from here on comes after it. */
static void door_pass(struct xblock *xb, unsigned n)
{
    struct emit *e = &xb->e;
    const uint32_t half = offsetof(struct seg, limit), size = (uint32_t)sizeof(struct seg);
    door_base(e, SEG_CS);
    door_base(e, SEG_SS);
    door_cpu(e, OP_W, DATA_OFF(door[n].cs), CPU_OFF(seg) + SEG_CS * size + half);
    door_cpu(e, OP_W, DATA_OFF(door[n].ss), CPU_OFF(seg) + SEG_SS * size + half);
    door_cpu(e, OP_W, DATA_OFF(door[n].tlb), CPU_OFF(tlb));
    door_cpu(e, 0, DATA_OFF(door[n].modes), CPU_OFF(cpl));
    door_cpu(e, 0, DATA_OFF(door[n].mode_key), CPU_OFF(mode_key));
    emit_data(e, OP_W | 0x8b, TBASE, DATA_OFF(door[n].read), 0);
    emit_data(e, OP_W | 0x89, TBASE, DATA_OFF(read), 0);
    door_word(e, DATA_OFF(door_user), n);
    door_word(e, DATA_OFF(kernel), !n);
    door_word(e, DATA_OFF(cli_plain), !n);
    if (n == 0) {
        door_copy(e, DATA_OFF(smap_ready), DATA_OFF(smap));
        door_copy(e, DATA_OFF(nothing_held), DATA_OFF(sti_plain));
    } else {
        door_word(e, DATA_OFF(smap), 0);
        door_word(e, DATA_OFF(sti_plain), 0);
    }
    door_copy(e, DATA_OFF(door[n].jumps), DATA_OFF(jumps));
    door_copy(e, DATA_OFF(door[n].returns), DATA_OFF(returns));
    emit_data(e, OP_W | 0x8b, T2, DATA_OFF(door[n].good), 0);
    emit_rm(e, OP_W | 0x8b, T2, T2, 0);
    emit_data(e, OP_W | 0x87, T2, DATA_OFF(good), 0); /* xchg */
}

/* To FRAME_TARGET with T1 = RIP, unless somebody wants attention: what he made of the words above is gone. */
static void door_go(struct xblock *xb)
{
    struct emit *e = &xb->e;
    emit_cpu(e, 0x8b, T0, CPU_OFF(attention));
    place_jrcxnz(xb, &place_pend(xb, PEND_LEAVE_AT, NULL)->from[0]);
    emit_rm(e, 0xff, 4, RSP, FRAME_TARGET);
}

void x_syscall(struct xblock *xb, const struct xinsn *x)
{
    struct emit *e = &xb->e;
    door_need(xb, DATA_OFF(door_user));
    door_need(xb, DATA_OFF(calm));
    emit_data(e, OP_W | 0x8b, T1, DATA_OFF(door_rip), 0);
    door_lookup(xb, x, 0);
    EMIT(e, 0x9c, 0x59, 0x81, 0xe1); /* pushfq; pop rcx; and ecx: what follows may change flags, which all become 0 */
    emit_u32(e, FL_ARITH);
    emit_data(e, OP_W | 0xff, 0, DATA_OFF(syscalls), 0); /* inc */
    emit_cpu(e, 0x8b, T2, CPU_OFF(rflags));
    emit_rr(e, 0x09, T2, T0);
    emit_guest(e, OP_W | 0x89, T0, R11);
    emit_data(e, 0x23, T2, DATA_OFF(door_keep), 0);
    emit_cpu(e, 0x89, T2, CPU_OFF(rflags));
    emit_data(e, OP_W | 0x8b, T2, DATA_OFF(page), 0);
    emit_rm(e, OP_W | 0x8d, place_of(RCX), T2, x->off + x->i->len);
    door_pass(xb, 0);
    emit_mov_imm32(e, T0, 0);
    EMIT(e, 0x83, 0xc1, 0x01); /* add ecx, 1: leaves none of them */
    door_go(xb);
}

/* To 64-bit code with interrupts allowed, which must not have been waited for. */
void x_sysret(struct xblock *xb, const struct xinsn *x)
{
    struct emit *e = &xb->e;
    door_need(xb, DATA_OFF(kernel));
    door_need(xb, DATA_OFF(doors));
    door_need(xb, DATA_OFF(sti_plain));
    door_need(xb, DATA_OFF(calm));
    emit_guest(e, OP_W | 0x8b, T2, R11);
    place_pext(e, T0, T2, DATA_OFF(mask_if));
    place_jrcxz(xb, branch_miss(xb));
    place_pext(e, T0, T2, DATA_OFF(mask_odd));
    place_jrcxnz(xb, branch_miss(xb));
    emit_rr(e, OP_W | 0x89, place_of(RCX), T1);
    door_lookup(xb, x, 1);
    emit_guest(e, 0x8b, T0, R11);
    EMIT(e, 0x81, 0xe1); /* and ecx */
    emit_u32(e, FL_IF | DOOR_PASS);
    EMIT(e, 0x83, 0xc9, FL_ONE); /* or ecx */
    emit_cpu(e, 0x89, T0, CPU_OFF(rflags));
    door_pass(xb, 1);
    emit_rr(e, OP_W | 0x89, RAX, T2);
    emit_guest(e, 0x8b, RAX, R11);
    EMIT(e, 0x89, 0xc1, 0xc1, 0xe9, 0x0b, 0x83, 0xe1, 0x01); /* mov ecx, eax; shr ecx, 11; and ecx, 1: OF */
    EMIT(e, 0xc1, 0xe0, 0x08, 0x88, 0xc8);                   /* shl eax, 8; mov al, cl: as LAHF and SETO leave them */
    EMIT(e, 0x04, 0x7f, 0x9e);                               /* add al, 127; sahf */
    emit_rr(e, OP_W | 0x89, T2, RAX);
    door_go(xb);
}
