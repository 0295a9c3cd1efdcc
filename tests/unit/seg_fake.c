/* The fake CPU of seg_fake.h. */
#include "seg_fake.h"

#include <stdlib.h>

/* The real table needs the host; here one leaf is enough. */
void cpuid_query(struct cpu *cpu, uint32_t leaf, uint32_t subleaf, uint32_t out[4])
{
    memset(out, 0, 4 * sizeof(out[0]));
}

uint64_t fake_ld(struct fake *f, uint64_t gpa, unsigned size)
{
    uint64_t v = 0;
    if (ram_read(&f->ram, gpa, &v, size) < 0)
        abort();
    return v;
}

void fake_st(struct fake *f, uint64_t gpa, uint64_t v, unsigned size)
{
    if (ram_write(&f->ram, gpa, &v, size) < 0)
        abort();
}

uint64_t fake_desc(uint32_t base, uint32_t limit, unsigned access, unsigned flags)
{
    return (limit & 0xffff) | (uint64_t)(base & 0xffffff) << 16 | (uint64_t)access << 40 |
           (uint64_t)(limit >> 16 & 15) << 48 | (uint64_t)flags << 52 | (uint64_t)(base >> 24) << 56;
}

void fake_gate(struct fake *f, uint32_t at, uint16_t sel, uint32_t off, unsigned access, unsigned params)
{
    uint64_t d = (off & 0xffff) | (uint64_t)sel << 16 | (uint64_t)params << 32 | (uint64_t)access << 40 |
                 (uint64_t)(off >> 16) << 48;
    fake_st(f, at, d, 8);
}

void fake_gate64(struct fake *f, unsigned vector, uint16_t sel, uint64_t off, unsigned access, unsigned ist)
{
    fake_gate(f, AT_IDT + vector * 16, sel, (uint32_t)off, access, ist);
    fake_st(f, AT_IDT + vector * 16 + 8, off >> 32, 8);
}

static void fake_tables(struct fake *f)
{
    static const struct {
        uint16_t sel;
        uint32_t base, limit;
        uint8_t access, flags;
    } rows[] = {
        { S_CODE0, 0, 0xfffff, 0x9a, 0xc },     { S_DATA0, 0, 0xfffff, 0x92, 0xc },
        { S_CODE3, 0, 0xfffff, 0xfa, 0xc },     { S_DATA3, 0, 0xfffff, 0xf2, 0xc },
        { S_TSS, AT_TSS, 0x1ff, 0x89, 0 },      { S_TSS2, AT_TSS2, 0x67, 0x89, 0 },
        { S_CONF, 0, 0xfffff, 0x9e, 0xc },      { S_ABSENT, 0, 0xfffff, 0x12, 0xc },
        { S_EXEC, 0, 0xfffff, 0x98, 0xc },      { S_RDONLY, 0, 0xfffff, 0x90, 0xc },
        { S_DOWN, 0, 0xfff, 0x96, 0x4 },        { S_LDT, AT_LDT, 0xf, 0x82, 0 },
        { S_DATA16, 0x20000, 0xffff, 0x92, 0 }, { S_CODE16, 0, 0xffff, 0x9a, 0 },
        { S_TSS16, AT_TSS16, 0x2b, 0x81, 0 },   { S_TSS_SHORT, AT_TSS2, 0x66, 0x89, 0 },
        { S_CODE64, 0, 0xfffff, 0x9a, 0xa },    { S_CODE64_3, 0, 0xfffff, 0xfa, 0xa },
        { S_DATA64_3, 0, 0xfffff, 0xf2, 0xc },  { S_CODE_ABSENT, 0, 0xfffff, 0x1a, 0xc },
    };
    for (unsigned n = 0; n < ARRAY_LEN(rows); n++)
        fake_st(f, AT_GDT + (rows[n].sel & ~7u),
                fake_desc(rows[n].base, rows[n].limit, rows[n].access, rows[n].flags), 8);
    fake_gate(f, AT_GDT + S_GATE32, S_CODE0, 0x4000, 0xec, 2);
    fake_gate(f, AT_GDT + S_GATE16, S_CODE16, 0x12344000, 0xe4, 1);
    fake_gate(f, AT_GDT + S_GATE64, S_CODE64, 0x4000, 0xec, 0);
    fake_st(f, AT_GDT + S_GATE64 + 8, 0x7fff, 8);
    fake_gate(f, AT_GDT + S_TASKGATE, S_TSS2, 0, 0xe5, 0);
    fake_st(f, AT_LDT + 8, fake_desc(0x1234, 0xff, 0x92, 0x4), 8);
    for (unsigned n = 0; n < 32; n++)
        fake_gate(f, AT_IDT + n * 8, S_CODE0, 0x4000 + n, 0x8e, 0);
    fake_st(f, AT_TSS + 4, AT_STACK0, 4);
    fake_st(f, AT_TSS + 8, S_DATA0, 2);
}

static void fake_flat(struct fake *f, unsigned cpl)
{
    uint16_t cs = cpl ? S_CODE3 : S_CODE0, ds = cpl ? S_DATA3 : S_DATA0;
    for (unsigned n = 0; n < SEG_COUNT; n++)
        seg_unpack(&f->cpu.seg[n], n == SEG_CS ? cs : ds,
                   fake_ld(f, AT_GDT + ((n == SEG_CS ? cs : ds) & ~7u), 8));
    f->cpu.r[RSP] = cpl ? AT_STACK3 : AT_STACK0;
    f->cpu.r[R_RIP] = f->cpu.start_rip = 0x600;
}

struct fake *fake_create(unsigned cpl)
{
    struct fake *f = aligned_alloc(64, ALIGN_UP(sizeof(*f), 64));
    if (!f)
        abort();
    memset(f, 0, sizeof(*f));
    ram_init(&f->ram);
    if (ram_add_slot(&f->ram, 0, 0x100000, false) < 0)
        abort();
    clock_init_manual(&f->clock, 0);
    f->id = (struct cpuid_table){ .vendor = VENDOR_INTEL, .phys_bits = 40, .lin_bits = 48, .cpus = 1 };
    f->cpu.ram = &f->ram;
    f->cpu.clock = &f->clock;
    f->cpu.cpuid = &f->id;
    f->cpu.ops = &f->ops;
    f->cpu.unwind = &f->unwind;
    cpu_reset(&f->cpu);
    fake_tables(f);
    f->cpu.gdtr = (struct dtr){ .base = AT_GDT, .limit = GDT_LIMIT };
    f->cpu.idtr = (struct dtr){ .base = AT_IDT, .limit = 32 * 8 - 1 };
    f->cpu.cr0 |= CR0_PE;
    fake_flat(f, cpl);
    cpu_update_mode(&f->cpu);
    seg_load_tr(&f->cpu, S_TSS);
    return f;
}

void fake_destroy(struct fake *f)
{
    ram_fini(&f->ram);
    free(f);
}

void fake_real(struct fake *f)
{
    f->cpu.cr0 &= ~(uint64_t)CR0_PE;
    f->cpu.idtr = (struct dtr){ .base = 0, .limit = 0x3ff };
    for (unsigned n = 0; n < SEG_COUNT; n++)
        f->cpu.seg[n] =
            (struct seg){ .sel = (uint16_t)(0x100 * n), .base = 0x1000 * n, .limit = 0xffff, .attr = 0x93 };
    f->cpu.seg[SEG_SS] = (struct seg){ .limit = 0xffff, .attr = 0x93 };
    f->cpu.r[RSP] = 0x7000;
    cpu_update_mode(&f->cpu);
}

void fake_v86(struct fake *f, unsigned iopl)
{
    for (unsigned n = 0; n < SEG_COUNT; n++)
        f->cpu.seg[n] =
            (struct seg){ .sel = (uint16_t)(0x100 * n), .base = 0x1000 * n, .limit = 0xffff, .attr = 0xf3 };
    cpu_set_rflags(&f->cpu, FL_VM | FL_IF | iopl << 12);
    f->cpu.r[RSP] = 0x7000;
    cpu_update_mode(&f->cpu);
}

void fake_long(struct fake *f, unsigned cpl)
{
    uint16_t cs = cpl ? S_CODE64_3 : S_CODE64, ss = cpl ? S_DATA64_3 : S_DATA0;
    f->cpu.efer |= EFER_LME | EFER_LMA;
    seg_unpack(&f->cpu.seg[SEG_CS], cs, fake_ld(f, AT_GDT + (cs & ~7u), 8));
    seg_unpack(&f->cpu.seg[SEG_SS], ss, fake_ld(f, AT_GDT + (ss & ~7u), 8));
    f->cpu.idtr.limit = 32 * 16 - 1;
    for (unsigned n = 0; n < 32; n++)
        fake_gate64(f, n, S_CODE64, 0xffff800000004000 + n, 0x8e, 0);
    fake_st(f, AT_TSS + 4, AT_STACK0, 8);
    fake_st(f, AT_TSS + 0x24, AT_STACK_IST + 5, 8);
    cpu_update_mode(&f->cpu);
}
