/* Blocks of one instruction whose bytes lie in two pages.
 *
 * Such a block is found like others, by its first page and its offset there, but is only good while the next linear page is the
 * guest-physical one that the rest was read from, and has not been written to since. The former is looked at whenever the block is
 * looked up; for the latter all such blocks count as void when a page is written to that may hold the end of one.
 * 64-bit code only; what cannot be kept so (MMIO, wrong encodings) is left to step.c.
 */
#include <string.h>

#include "engine/interp/interp.h"
#include "ram/ram.h"

/* Behind the block's instruction and its form. */
struct cross_tail {
    uint64_t gpa;   /* of the second page */
    uint32_t epoch; /* interp.cross_epoch */
    uint8_t bytes[15];
};

static struct cross_tail *cross_tail(const struct block *b)
{
    return (struct cross_tail *)((uintptr_t)b + ALIGN_UP(BLOCK_BYTES(1), 8));
}

size_t cross_size(void) { return ALIGN_UP(BLOCK_BYTES(1), 8) + sizeof(struct cross_tail); }

const uint8_t *cross_bytes(const struct block *b) { return cross_tail(b)->bytes; }

static unsigned cross_bloom(uint64_t gpa) { return (unsigned)(gpa >> PAGE_SHIFT ^ gpa >> (PAGE_SHIFT + 9)) % (64 * CROSS_BLOOM); }

/* The guest-physical page behind the one that RIP is in; raises what fetching from there raises. */
static uint64_t cross_second(const struct interp *it, struct cpu *cpu, bool *global)
{
    uint64_t lin = (interp_lin_rip(cpu) | (PAGE_SIZE - 1)) + 1;
    const struct itlb_entry *e = &it->itlb[(lin >> PAGE_SHIFT) % ITLB_SIZE];
    if (e->key == cache_key(cpu, lin)) {
        *global = e->global;
        return e->page->gpa;
    }
    cpu->start_rip = cpu->r[R_RIP];
    cpu->insn = NULL;
    uint64_t gpa = PAGE_BASE(mmu_fetch(cpu, lin));
    *global = cpu->fetch_global;
    return gpa;
}

static bool cross_decode(struct interp *it, const struct code_page *page, unsigned off, struct block *b, uint64_t gpa)
{
    struct cross_tail *tail = cross_tail(b);
    unsigned first = PAGE_SIZE - off;
    uint32_t form;
    bool full;
    const uint8_t *head = ram_borrow(it->vcpu->cpu.ram, page->gpa + off, first);
    const uint8_t *rest = ram_borrow(it->vcpu->cpu.ram, gpa, 15);
    memcpy(tail->bytes, head, first);
    memcpy(tail->bytes + first, rest, 15 - first);
    if (form_decode(it, tail->bytes, 15, b->insn, &form, &full) != DECODE_OK || full || b->insn->len <= first)
        return false;
    b->epoch = it->forms->epoch;
    b->host = b->plain = NULL;
    b->len = b->insn->len;
    b->n = 1;
    memcpy(b->insn + 1, &form, sizeof(form));
    tail->gpa = gpa;
    tail->epoch = it->cross_epoch;
    it->cross_bloom[cross_bloom(gpa) / 64] |= 1ULL << (cross_bloom(gpa) % 64);
    it->vcpu->stats.decoded++;
    return true;
}

/* Are there bytes behind off that begin an instruction, but not all of it? */
static bool cross_is(struct interp *it, const struct code_page *page, unsigned off)
{
    const uint8_t *code = ram_borrow(it->vcpu->cpu.ram, page->gpa + off, PAGE_SIZE - off);
    struct insn i;
    uint32_t form;
    bool full;
    return form_decode(it, code, PAGE_SIZE - off, &i, &form, &full) == DECODE_TRUNCATED;
}

/* While the second page was marked, another vCPU may have written to the first, which is no page of code then: nobody would notice the next write.
 * So nothing is kept this time. */
static bool cross_head_marked(const struct interp *it, const struct code_page *page, unsigned off)
{
    return cache_marked(it->vcpu, page->gpa + off, PAGE_SIZE - off);
}

bool cross_make(struct interp *it, struct cpu *cpu, const struct code_page *page, unsigned off, struct block *b)
{
    bool global;
    if (page->code_size != 8 || off <= PAGE_SIZE - 15 || !cross_is(it, page, off))
        return false;
    uint64_t gpa = cross_second(it, cpu, &global);
    if (!ram_borrow(cpu->ram, gpa, PAGE_SIZE))
        return false;
    cache_mark(it->vcpu, gpa, 14);
    if (!cross_head_marked(it, page, off) || !cross_decode(it, page, off, b, gpa))
        return false;
    it->page_global &= global;
    b->cross = true;
    return true;
}

bool cross_good(struct interp *it, struct cpu *cpu, struct block *b)
{
    const struct cross_tail *tail = cross_tail(b);
    bool global;
    uint64_t gpa = cross_second(it, cpu, &global);
    it->page_global &= global;
    if (likely(gpa == tail->gpa && tail->epoch == it->cross_epoch))
        return true;
    /* Read again, in its place: nothing may run any more what was made of it. */
    if (it->translator)
        it->translator->stale(it);
    b->count = 0;
    if (!ram_borrow(cpu->ram, gpa, PAGE_SIZE))
        return false;
    cache_mark(it->vcpu, gpa, 14);
    return cross_head_marked(it, b->page, b->off) && cross_decode(it, b->page, b->off, b, gpa);
}

void cross_written(struct interp *it, uint64_t gpa)
{
    unsigned bit = cross_bloom(gpa);
    if (!(it->cross_bloom[bit / 64] >> (bit % 64) & 1))
        return;
    memset(it->cross_bloom, 0, sizeof(it->cross_bloom));
    it->cross_epoch++;
    if (it->translator)
        it->translator->stale(it);
}
