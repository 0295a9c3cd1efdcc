/* See x86_fixture.h. */
#include "x86_fixture.h"

#include <stdlib.h>
#include <string.h>

#include "ram/share.h"
#include "x86/mmu.h"

static struct fx *fx_of(struct cpu *cpu) { return cpu->vcpu; }

static uint64_t fx_mmio_read(struct cpu *cpu, uint64_t gpa, unsigned size)
{
    struct fx *f = fx_of(cpu);
    uint64_t v = 0;
    for (unsigned n = 0; n < size; n++)
        v |= (uint64_t)((gpa + n) & 0xff) << (8 * n);
    assert_true(f->mmio_count < FX_LOG);
    f->mmio[f->mmio_count++] = (struct fx_access){ false, gpa, v, size };
    return v;
}

static void fx_mmio_write(struct cpu *cpu, uint64_t gpa, uint64_t value, unsigned size)
{
    struct fx *f = fx_of(cpu);
    assert_true(f->mmio_count < FX_LOG);
    f->mmio[f->mmio_count++] = (struct fx_access){ true, gpa, value, size };
}

static void fx_code_write(struct cpu *cpu, uint64_t gpa, uint64_t len)
{
    struct fx *f = fx_of(cpu);
    assert_true(f->code_count < FX_LOG);
    f->code[f->code_count].gpa = gpa;
    f->code[f->code_count].len = len;
    f->code[f->code_count++].exclusive = f->exclusive != 0;
    if (!f->code_keeps_flag)
        atomic_fetch_and(ram_page_flags(&f->ram, gpa), (uint8_t)~PAGE_CODE);
}

static void fx_exclusive_begin(struct cpu *cpu)
{
    struct fx *f = fx_of(cpu);
    if (++f->exclusive > f->exclusive_max)
        f->exclusive_max = f->exclusive;
}

static void fx_exclusive_end(struct cpu *cpu)
{
    assert_true(fx_of(cpu)->exclusive > 0);
    fx_of(cpu)->exclusive--;
}

static void fx_tlb_flushed(struct cpu *cpu, const struct tlb_flush *f)
{
    fx_of(cpu)->flush = *f;
    if (f->kind == TLB_FLUSH_PAGE || f->kind == TLB_FLUSH_PAGE_PCID)
        fx_of(cpu)->flushed_page++;
    else
        fx_of(cpu)->flushed_all++;
}

static void fx_context_switched(struct cpu *cpu) { fx_of(cpu)->switched++; }
static void fx_write_protected(struct cpu *cpu, uint64_t gpa) { fx_of(cpu)->protected = gpa; }

static void fx_mode_changed(struct cpu *cpu) { fx_of(cpu)->mode_changes++; }

static void fx_kick(void *opaque, unsigned index, uint32_t attention)
{
    ((struct fx *)opaque)->kicked[index] |= attention;
}

static void fx_eoi(void *opaque, uint8_t vector)
{
    struct fx *f = opaque;
    assert_true(f->eoi_count < FX_LOG);
    f->eoi[f->eoi_count++] = vector;
}

static void fx_add_cpu(struct fx *f, unsigned n)
{
    struct cpu *cpu = aligned_alloc(64, ALIGN_UP(sizeof(*cpu), 64));
    assert_non_null(cpu);
    memset(cpu, 0, sizeof(*cpu));
    cpu->index = cpu->apic_id = n;
    cpu->ops = &f->ops;
    cpu->ram = &f->ram;
    cpu->loop = &f->loop;
    cpu->clock = &f->clock;
    cpu->cpuid = &f->cpuid;
    cpu->vcpu = f;
    cpu->unwind = &f->env;
    f->cpus[n] = cpu;
    cpu_reset(cpu);
    assert_int_equal(lapic_init(&f->lapic[n], cpu, &f->bus), 0);
}

struct fx *fx_create(unsigned cpus, const char *model)
{
    struct fx *f = calloc(1, sizeof(*f));
    assert_non_null(f);
    f->ops = (struct cpu_ops){
        .mmio_read = fx_mmio_read,
        .mmio_write = fx_mmio_write,
        .code_write = fx_code_write,
        .exclusive_begin = fx_exclusive_begin,
        .exclusive_end = fx_exclusive_end,
        .tlb_flushed = fx_tlb_flushed,
        .context_switched = fx_context_switched,
        .write_protected = fx_write_protected,
        .mode_changed = fx_mode_changed,
    };
    ram_init(&f->ram);
    ram_share(&f->ram, true); /* for stills */
    assert_int_equal(ram_add_slot(&f->ram, 0, 16 << 20, false), 0);
    assert_int_equal(ram_add_slot(&f->ram, 1ULL << 32, 2 << 20, false), 0);
    assert_int_equal(ram_add_slot(&f->ram, 0xffff0000, 64 << 10, true), 0);
    clock_init_manual(&f->clock, 0);
    clock_set_khz(&f->clock, 2000000);
    assert_int_equal(loop_init(&f->loop, &f->clock), 0);
    assert_int_equal(cpuid_build(&f->cpuid, model ? model : "host", cpus, 2000000, NULL), 0);
    f->bus.kick = fx_kick;
    f->bus.eoi = fx_eoi;
    f->bus.opaque = f;
    for (unsigned n = 0; n < cpus; n++)
        fx_add_cpu(f, n);
    f->cpu = f->cpus[0];
    return f;
}

void fx_destroy(struct fx *f)
{
    for (unsigned n = 0; n < FX_CPUS; n++) {
        if (f->cpus[n])
            lapic_ops.destroy(&f->lapic[n]);
        free(f->cpus[n]);
    }
    loop_fini(&f->loop);
    ram_fini(&f->ram);
    free(f);
}

void fx_set_cpl(struct fx *f, unsigned cpl)
{
    f->cpu->seg[SEG_CS].sel = (uint16_t)(0x10 | cpl);
    f->cpu->seg[SEG_CS].attr = (uint16_t)(0xb | ATTR_S | ATTR_P | ATTR_L | cpl << ATTR_DPL_SHIFT);
    cpu_update_mode(f->cpu);
    assert_int_equal(f->cpu->cpl, cpl);
}

#define FX_PML4 0x1000ULL
#define FX_POOL                                                                                              \
    0x2000ULL /* the next free table's address lives in the last entry of the PML4 page's neighbour */

void fx_long_mode(struct fx *f, unsigned cpl)
{
    struct cpu *cpu = f->cpu;
    ram_fill(&f->ram, 0x1000, 0, 0x40000);
    fx_put(f, FX_POOL, 0x3000);
    cpu->cr4 = CR4_PAE | CR4_PGE;
    cpu->efer = EFER_LME | EFER_LMA | EFER_NXE | EFER_SCE;
    cpu->cr0 = CR0_PE | CR0_PG | CR0_ET | CR0_WP;
    cpu->cr3 = FX_PML4;
    fx_set_cpl(f, cpl);
    mmu_flush_all(cpu);
}

void fx_map(struct fx *f, uint64_t lin, uint64_t gpa, uint64_t flags)
{
    uint64_t table = FX_PML4;
    for (unsigned level = 4; level > 1; level--) {
        uint64_t at = table + ((lin >> (12 + 9 * (level - 1)) & 511) << 3);
        if (!(fx_get(f, at) & 1)) {
            uint64_t fresh = fx_get(f, FX_POOL);
            assert_true(fresh < 0x40000);
            fx_put(f, FX_POOL, fresh + 0x1000);
            fx_put(f, at, fresh | 7);
        }
        table = fx_get(f, at) & 0xffffffffff000ULL;
    }
    fx_put(f, table + ((lin >> 12 & 511) << 3), gpa | flags);
}

uint64_t fx_get(struct fx *f, uint64_t gpa)
{
    uint64_t v;
    assert_int_equal(ram_read(&f->ram, gpa, &v, 8), 0);
    return v;
}

void fx_put(struct fx *f, uint64_t gpa, uint64_t v) { assert_int_equal(ram_load(&f->ram, gpa, &v, 8), 0); }

uint32_t fx_kicked(struct fx *f, unsigned cpu)
{
    uint32_t v = f->kicked[cpu];
    f->kicked[cpu] = 0;
    return v;
}
