/* See hx_fake.h. Stands in for memory, segmentation and exceptions of src/x86. */
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>

#include <cpuid.h>

#include "hx_fake.h"

static struct hx_env *fake_env(struct cpu *cpu) { return container_of(cpu, struct hx_env, cpu); }

_Noreturn void cpu_raise(struct cpu *cpu, unsigned vector, uint32_t error)
{
    cpu->event.valid = true;
    cpu->event.vector = (uint8_t)vector;
    cpu->event.error = error;
    siglongjmp(*cpu->unwind, 1);
}

_Noreturn void cpu_raise_noerr(struct cpu *cpu, unsigned vector) { cpu_raise(cpu, vector, 0); }

_Noreturn void cpu_raise_pf(struct cpu *cpu, uint64_t gva, uint32_t error)
{
    cpu->cr2 = gva;
    cpu_raise(cpu, VEC_PF, error);
}

static void fake_need(struct cpu *cpu, uint64_t lin, unsigned size)
{
    if (lin < ARENA_BASE || lin + size > ARENA_BASE + ARENA_SIZE)
        cpu_raise_pf(cpu, lin < ARENA_BASE ? lin : ARENA_BASE + ARENA_SIZE, 0);
    if (fake_env(cpu)->bounce)
        return;
    for (uint64_t p = lin & ~0xfffULL; p < lin + size; p += 4096)
        cpu->tlb[(p >> 12) & (TLB_SIZE - 1)] = (struct tlb_entry){ .rd = p, .wr = p };
}

uint64_t mem_slow_ld(struct cpu *cpu, unsigned seg, uint64_t lin, unsigned size)
{
    uint64_t v = 0;
    fake_need(cpu, lin, size);
    memcpy(&v, (void *)lin, size);
    return v;
}

void mem_slow_st(struct cpu *cpu, unsigned seg, uint64_t lin, uint64_t value, unsigned size)
{
    fake_need(cpu, lin, size);
    memcpy((void *)lin, &value, size);
}

uint64_t mem_ld(struct cpu *cpu, unsigned seg, uint64_t lin, unsigned size)
{
    return mem_slow_ld(cpu, seg, lin, size);
}
void mem_st(struct cpu *cpu, unsigned seg, uint64_t lin, uint64_t v, unsigned size)
{
    mem_slow_st(cpu, seg, lin, v, size);
}

const void *mem_slow_view_r(struct cpu *cpu, unsigned seg, uint64_t lin, unsigned size)
{
    fake_need(cpu, lin, size);
    memset(cpu->bounce[0], 0xee, 64);
    memcpy(cpu->bounce[0], (void *)lin, size);
    return cpu->bounce[0];
}

void *mem_slow_view_w(struct cpu *cpu, unsigned seg, uint64_t lin, unsigned size)
{
    fake_need(cpu, lin, size);
    memset(cpu->bounce[0], 0xee, 64);
    cpu->view.lin = lin;
    cpu->view.size = size;
    cpu->view.write = true;
    return cpu->bounce[0];
}

void *mem_slow_view_rmw(struct cpu *cpu, unsigned seg, uint64_t lin, unsigned size, bool locked)
{
    void *p = mem_slow_view_w(cpu, seg, lin, size);
    memcpy(p, (void *)lin, size);
    return p;
}

void mem_slow_commit(struct cpu *cpu)
{
    memcpy((void *)cpu->view.lin, cpu->bounce[0], cpu->view.size);
    cpu->view.write = false;
}

void mem_probe(struct cpu *cpu, unsigned seg, uint64_t lin, unsigned size, enum mmu_access acc)
{
    fake_need(cpu, lin, size);
}

uint64_t seg_lin(struct cpu *cpu, unsigned seg, uint64_t off, unsigned size, enum mmu_access acc)
{
    return (uint32_t)(cpu->lin_base[seg] + off);
}

static void fake_ferr(struct cpu *cpu, bool level) { fake_env(cpu)->ferr += level; }

/* A guest that has everything this host has. */
static void fake_cpuid(struct cpuid_table *t)
{
    unsigned a, b, c, d;
    __cpuid(1, a, b, c, d);
    t->feat[FEAT_1_ECX] = c;
    t->feat[FEAT_1_EDX] = d;
    __cpuid_count(7, 0, a, b, c, d);
    t->feat[FEAT_7_EBX] = b;
    t->feat[FEAT_7_ECX] = c;
    t->feat[FEAT_7_EDX] = d;
    __cpuid(0x80000001, a, b, c, d);
    t->feat[FEAT_8_1_ECX] = c;
    t->feat[FEAT_8_1_EDX] = d;
    __cpuid_count(0xd, 1, a, b, c, d);
    t->feat[FEAT_D1_EAX] = a;
    __cpuid_count(7, 1, a, b, c, d);
    t->leaf[t->count++] = (struct cpuid_leaf){ 7, 1, a, b, c, d };
    __cpuid_count(0xd, 0, a, b, c, d);
    t->xcr0_mask = a & (XCR0_X87 | XCR0_SSE | XCR0_AVX | XCR0_AVX512);
    for (unsigned n = 0; n < 16; n++) {
        __cpuid_count(0xd, n, a, b, c, d);
        t->leaf[t->count++] = (struct cpuid_leaf){ 0xd, n, a, b, c, d };
    }
    __cpuid(0, a, b, c, d);
    t->vendor = b == 0x68747541 ? VENDOR_AMD : VENDOR_INTEL;
}

struct hx_env *hx_env_create(void)
{
    struct hx_env *e = aligned_alloc(64, ALIGN_UP(sizeof(*e), 64));
    if (!e)
        return NULL;
    memset(e, 0, sizeof(*e));
    void *p = mmap((void *)ARENA_BASE, ARENA_SIZE + 4096, PROT_READ | PROT_WRITE,
                   MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
    if (p != (void *)ARENA_BASE || mprotect((char *)p + ARENA_SIZE, 4096, PROT_NONE) < 0)
        perror("arena");
    fake_cpuid(&e->cpuid);
    struct cpu *c = &e->cpu;
    c->cr0 = CR0_PE | CR0_NE | CR0_MP | CR0_PG;
    c->cr4 = CR4_OSFXSR | CR4_OSXMMEXCPT | CR4_OSXSAVE;
    c->xcr0 = e->cpuid.xcr0_mask;
    c->cpuid = &e->cpuid;
    e->ops.ferr = fake_ferr;
    c->ops = &e->ops;
    c->long_mode = true;
    c->code_size = 8;
    c->mxcsr = HX_MXCSR;
    c->fx.fcw = HX_FCW;
    c->tlb = c->tlbs[0];
    for (unsigned n = 0; n < TLB_SIZE; n++)
        c->tlb[n] = (struct tlb_entry){ .rd = TLB_INVALID, .wr = TLB_INVALID };
    static const struct op_entry *const tables[] = { ops_fpu, ops_xsave, ops_vecmem };
    for (unsigned t = 0; t < ARRAY_LEN(tables); t++)
        for (const struct op_entry *o = tables[t]; o->op != ZYDIS_MNEMONIC_INVALID; o++)
            e->op[o->op] = o;
    e->hx = hostexec_create();
    return e;
}

void hx_env_destroy(struct hx_env *e)
{
    hostexec_destroy(e->hx);
    munmap((void *)ARENA_BASE, ARENA_SIZE + 4096);
    free(e);
}

bool hx_env_bind(struct hx_env *e, const uint8_t *code, unsigned code_size, struct insn *i, struct decoded *d)
{
    bool full = false;
    if (insn_decode(code, 15, code_size, e->cpuid.vendor == VENDOR_AMD, i, d) != DECODE_OK)
        return false;
    const struct op_entry *o = e->op[i->op];
    if (o) {
        i->fn = o->fn ? o->fn : o->select(i, d);
        return i->fn != NULL;
    }
    if (hostexec_bind(e->hx, &e->cpu, i, d, &full))
        return true;
    if (!full)
        return false;
    hostexec_clear(e->hx);
    return hostexec_bind(e->hx, &e->cpu, i, d, &full);
}

struct hx_outcome hx_env_run(struct hx_env *e, const struct insn *i, uint64_t rip)
{
    struct cpu *c = &e->cpu;
    sigjmp_buf jb;
    c->unwind = &jb;
    c->event.valid = false;
    c->view.write = false;
    c->start_rip = rip;
    c->r[R_RIP] = rip + i->len;
    int why = sigsetjmp(jb, 0);
    if (why == 0) {
        c->insn = i;
        i->fn(c, i);
        return (struct hx_outcome){ -1, 0 };
    }
    return (struct hx_outcome){ why == 1 ? c->event.vector : 0x100, c->event.error };
}

struct hx_outcome hx_env_exec(struct hx_env *e, const uint8_t *code, unsigned code_size)
{
    struct insn i;
    struct decoded d;
    if (!hx_env_bind(e, code, code_size, &i, &d))
        return (struct hx_outcome){ -2, 0 };
    return hx_env_run(e, &i, hx_native_rip());
}
