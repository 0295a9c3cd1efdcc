/* The engine under test: a minimal long-mode machine with the same linear layout, one vCPU at CPL 3. Every exception
 * comes to a stub at CPL 0 that writes to a port of the vector's number, which ends the run. */
#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/time.h>

#include "base/clock.h"
#include "base/err.h"
#include "base/loop.h"
#include "engine/engine.h"
#include "isa.h"
#include "ram/ram.h"
#include "x86/cpuid.h"
#include "x86/flags.h"
#include "x86/lapic.h"
#include "x86/mmu.h"

/* Guest-physical layout */
enum {
    G_PML4 = 0x1000, G_PDPT = 0x2000, G_PD = 0x3000, G_PT = 0x4000, /* one page table for each 2 MiB used, up from here */
    G_GDT = 0x10000, G_IDT = 0x11000, G_TSS = 0x12000, G_STUBS = 0x13000, G_STACK = 0x15000,
    G_CODE = 0x20000, G_DATA = 0x30000, G_RO = 0x40000, G_COUNT = 0x41000, G_SIZE = 0x100000,
};
bool guest_intel;

#define K_BASE 0xffff800000000000ULL /* kernel half: all of guest RAM, supervisor */

static struct {
    struct ram ram;
    struct loop loop;
    struct clock clock;
    struct engine engine;
    struct vcpu vcpu;
    struct lapic lapic;
    struct lapic_bus bus;
    struct cpuid_table cpuid;
    unsigned next_pt, kick;
    int vector;
} guests[2], *g = guests;

static uint64_t guest_ld(uint64_t gpa)
{
    uint64_t v = 0;
    ram_read(&g->ram, gpa, &v, 8);
    return v;
}
static void guest_st(uint64_t gpa, uint64_t v) { ram_write(&g->ram, gpa, &v, 8); }

/* Walk and make the tables for lin; returns the address of its page-table entry. */
static uint64_t guest_pte(uint64_t lin)
{
    uint64_t table = G_PML4;
    for (int level = 4; level > 1; level--) {
        uint64_t at = table + (lin >> (12 + 9 * (level - 1)) & 511) * 8;
        if (!(guest_ld(at) & 1)) {
            guest_st(at, (G_PDPT + 0x1000ULL * g->next_pt) | 7);
            g->next_pt++;
        }
        table = guest_ld(at) & ~0xfffULL;
    }
    return table + (lin >> 12 & 511) * 8;
}

static void guest_map(uint64_t lin, uint64_t gpa, uint64_t size, uint64_t bits)
{
    for (uint64_t off = 0; off < size; off += PAGE_SIZE)
        guest_st(guest_pte(lin + off), (gpa + off) | bits);
}

static uint64_t guest_io_in(struct cpu *cpu, uint16_t port, unsigned size) { return ~0ULL; }
static void guest_io_out(struct cpu *cpu, uint16_t port, uint64_t value, unsigned size)
{
    g->vector = port;
    cpu_attention(cpu, ATT_EXIT);
}
static uint64_t guest_mmio_read(struct cpu *cpu, uint64_t gpa, unsigned size) { return ~0ULL; }
static void guest_mmio_write(struct cpu *cpu, uint64_t gpa, uint64_t value, unsigned size) {}
static void guest_kick(void *opaque, unsigned index, uint32_t att) { vcpu_kick(&g->vcpu, att); }

static void guest_tick(int sig) { vcpu_kick(&g->vcpu, ATT_EXIT); }

static void guest_tables(void)
{
    guest_map(ISA_CODE, G_CODE, ISA_CODE_SIZE, 7);
    guest_map(ISA_DATA, G_DATA, ISA_DATA_SIZE, 7);
    guest_map(ISA_RO, G_RO, ISA_RO_SIZE, 5);
    guest_map(ISA_COUNT, G_COUNT, ISA_COUNT_SIZE, 7);
    guest_map(K_BASE, 0, 0x20000, 3);
    guest_st(G_GDT + 8, 0x00af9a000000ffff);  /* 0x08 kernel code */
    guest_st(G_GDT + 16, 0x00cf92000000ffff); /* 0x10 kernel data */
    guest_st(G_GDT + 24, 0x00cff2000000ffff); /* 0x18 user data */
    guest_st(G_GDT + 32, 0x00affa000000ffff); /* 0x20 user code */
    guest_st(G_GDT + 48, 0x00cffa000000ffff); /* 0x30 user code, 32-bit */
    guest_st(G_TSS + 4, K_BASE + G_STACK);
    for (unsigned v = 0; v < 32; v++) {
        uint64_t at = K_BASE + G_STUBS + v * 16;
        uint8_t stub[] = { 0xe6, (uint8_t)v, 0xf4, 0xeb, 0xfd };
        ram_write(&g->ram, G_STUBS + v * 16, stub, sizeof(stub));
        uint64_t dpl = v == 3 || v == 4 ? 3 : 0;
        guest_st(G_IDT + v * 16, (at & 0xffff) | 0x080000 | (0x8e00 | dpl << 13) << 32 | (at >> 16 & 0xffff) << 48);
        guest_st(G_IDT + v * 16 + 8, at >> 32);
    }
}

static void guest_seg(struct seg *s, uint16_t sel, uint16_t attr)
{
    *s = (struct seg){ .sel = sel, .attr = attr, .limit = 0xffffffff };
}

static void guest_system_state(struct cpu *c)
{
    c->cr0 = CR0_PE | CR0_MP | CR0_ET | CR0_NE | CR0_WP | CR0_AM | CR0_PG;
    c->cr3 = G_PML4;
    c->cr4 = CR4_PAE | CR4_OSFXSR | CR4_OSXMMEXCPT | CR4_OSXSAVE | CR4_PGE;
    c->efer = EFER_LME | EFER_LMA | EFER_NXE | EFER_SCE;
    c->xcr0 = g->cpuid.xcr0_mask;
    c->gdtr = (struct dtr){ K_BASE + G_GDT, 0x3f };
    c->idtr = (struct dtr){ K_BASE + G_IDT, 0x1ff };
    guest_seg(&c->tr, 0x28, ATTR_P | 0xb);
    c->tr.base = K_BASE + G_TSS;
    c->tr.limit = 0x67;
}

static void guest_user_state(struct cpu *c, bool code32)
{
    guest_seg(&c->seg[SEG_CS], code32 ? 0x33 : 0x23,
              ATTR_P | ATTR_DPL | ATTR_S | 0xb | ATTR_G | (code32 ? ATTR_DB : ATTR_L));
    for (unsigned n = 0; n < SEG_COUNT; n++)
        if (n != SEG_CS)
            guest_seg(&c->seg[n], 0x1b, ATTR_P | ATTR_DPL | ATTR_S | 3 | ATTR_DB | ATTR_G);
    c->rflags = FL_ONE | FL_IF;
    c->activity = CPU_RUNNING;
}

/* No FCS and FDS, FDP for exceptions only. Not SHA, whose alignment the host checks as its maker does. */
static void guest_make_intel(struct cpuid_table *t)
{
    t->vendor = VENDOR_INTEL;
    t->feat[FEAT_7_EBX] = (t->feat[FEAT_7_EBX] | 1u << 6 | 1u << 13) & ~(1u << 29);
}

int guest_init(unsigned which, const char *engine, unsigned kick)
{
    g = &guests[which];
    struct err err = { "" };
    static const struct cpu_ops ops = { .io_in = guest_io_in, .io_out = guest_io_out, .mmio_read = guest_mmio_read,
                                        .mmio_write = guest_mmio_write };
    const struct engine_ops *eo = strcmp(engine, "interp") == 0 ? &engine_interp
                                  : strcmp(engine, "dbt") == 0  ? &engine_dbt
                                                                : NULL;
    g->next_pt = 0;
    g->kick = kick;
    signal(SIGALRM, guest_tick);
    if (!eo || cpuid_build(&g->cpuid, "host", 1, 1000000, &err) < 0) {
        fprintf(stderr, "isa: engine %s: %s\n", engine, err.text);
        return -1;
    }
    if (guest_intel)
        guest_make_intel(&g->cpuid);
    clock_init_host(&g->clock);
    loop_init(&g->loop, &g->clock);
    ram_init(&g->ram);
    ram_add_slot(&g->ram, 0, G_SIZE, false);
    struct cpu *c = &g->vcpu.cpu;
    c->ops = &ops;
    c->ram = &g->ram;
    c->loop = &g->loop;
    c->clock = &g->clock;
    c->cpuid = &g->cpuid;
    g->bus.kick = guest_kick;
    lapic_init(&g->lapic, c, &g->bus);
    int r = engine_init(&g->engine, eo, &g->ram, &err);
    g->engine.dbt_threshold = 1; /* every sequence is translated */
    if (r < 0 || engine_add_vcpu(&g->engine, &g->vcpu, &err) < 0) {
        fprintf(stderr, "isa: %s\n", err.text);
        return -1;
    }
    cpu_reset(c);
    guest_tables();
    guest_system_state(c);
    guest_user_state(c, false);
    cpu_update_mode(c);
    mmu_flush_all(c);
    return 0;
}

void guest_fini(void)
{
    for (unsigned n = 0; n < 2; n++)
        if (guests[n].vcpu.engine) {
            engine_fini(&guests[n].engine);
            ram_fini(&guests[n].ram);
            loop_fini(&guests[n].loop);
        }
}

static void guest_put(struct cpu *c, const struct isa_state *s, bool code32)
{
    memcpy(c->r, s->r, sizeof(s->r));
    c->r[R_RIP] = s->rip;
    c->aflags = aflags_from_rflags((uint32_t)s->rflags);
    guest_user_state(c, code32);
    c->rflags |= s->rflags & (FL_DF | FL_AC);
    memcpy(c->zmm, s->zmm, sizeof(s->zmm));
    memcpy(c->k, s->k, sizeof(s->k));
    c->mxcsr = s->mxcsr;
    memset(&c->fx, 0, sizeof(c->fx));
    c->fx.fcw = s->fcw;
    c->fx.fsw = s->fsw;
    c->fx.ftw = s->ftw;
    for (int n = 0; n < 8; n++)
        memcpy(c->fx.st[n], s->st[n], 10);
    cpu_update_mode(c);
}

/* What the exception pushed on the inner stack; the error code only where the vector has one. */
static void guest_get(const struct cpu *c, struct isa_state *s)
{
    uint64_t frame = c->r[RSP] - K_BASE;
    bool has_error = (0x227d00u >> g->vector) & 1;
    memset(s, 0, sizeof(*s));
    s->vector = (unsigned)g->vector;
    s->error = has_error ? guest_ld(frame) : 0;
    frame += has_error ? 8 : 0;
    memcpy(s->r, c->r, sizeof(s->r));
    s->rip = guest_ld(frame);
    s->rflags = guest_ld(frame + 16) & 0xcd5;
    s->r[RSP] = guest_ld(frame + 24);
    s->cr2 = s->vector == 14 ? c->cr2 : 0;
    memcpy(s->zmm, c->zmm, sizeof(s->zmm));
    memcpy(s->k, c->k, sizeof(s->k));
    s->mxcsr = c->mxcsr;
    s->fcw = c->fx.fcw;
    s->fsw = c->fx.fsw;
    s->ftw = c->fx.ftw;
    for (int n = 0; n < 8; n++)
        memcpy(s->st[n], c->fx.st[n], 10);
    if (gen_pointers) {
        s->fip = c->fx.fip;
        s->fdp = c->fx.fdp;
        s->fop = c->fx.fop;
    }
}

static void guest_layout(const struct isa_seq *s)
{
    static const uint8_t bits[] = { 7, 5, 0 };
    for (unsigned n = 0; n < ISA_PAGES; n++) {
        uint64_t lin = ISA_DATA + n * PAGE_SIZE, gpa = G_DATA + s->where[n] * PAGE_SIZE;
        memcpy(ram_borrow(&g->ram, gpa, PAGE_SIZE), s->data + n * PAGE_SIZE, PAGE_SIZE);
        guest_st(guest_pte(lin), gpa | bits[s->rights[n]]);
        mmu_flush_page(&g->vcpu.cpu, lin);
    }
}

static void guest_timer(unsigned usec)
{
    struct itimerval t = { { 0, usec }, { 0, usec } };
    if (g->kick)
        setitimer(ITIMER_REAL, &t, NULL);
}

void guest_run(unsigned which, const struct isa_seq *s, struct isa_state *out, uint8_t *data)
{
    g = &guests[which];
    struct cpu *c = &g->vcpu.cpu;
    uint64_t gpa = s->at - ISA_CODE + G_CODE;
    guest_layout(s);
    c->ops->code_write(c, gpa, s->len);
    memcpy(ram_borrow(&g->ram, gpa, s->len), s->code, s->len);
    ram_write(&g->ram, G_COUNT, &s->loops, sizeof(s->loops));
    guest_put(c, &s->in, s->code32);
    g->vector = -1;
    guest_timer(g->kick);
    while (g->vector < 0 && g->engine.ops->run(&g->vcpu) == EXIT_KICK)
        ;
    guest_timer(0);
    memset(out, 0, sizeof(*out));
    if (g->vector >= 0)
        guest_get(c, out);
    else
        out->vector = 256; /* shutdown: the stubs themselves went wrong */
    for (unsigned n = 0; n < ISA_PAGES; n++)
        ram_read(&g->ram, G_DATA + s->where[n] * PAGE_SIZE, data + n * PAGE_SIZE, PAGE_SIZE);
}
