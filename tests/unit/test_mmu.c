/* Paging: every combination of U, W, NX at two levels with WP, SMEP, SMAP, AC, NXE, privilege and kind of
 * access, in every paging mode, against the rules of SDM vol. 3, 4.6.1 written out as a table; accessed and
 * dirty bits; reserved bits; large pages; TLB flush rules. */
#include "x86_fixture.h"

#include "ram/still.h"
#include "x86/mem.h"
#include "x86/mmu.h"

#define P  0x1ULL
#define W  0x2ULL
#define U  0x4ULL
#define A  0x20ULL
#define D  0x40ULL
#define PS 0x80ULL
#define NX (1ULL << 63)

enum mode { M_32, M_32_4M, M_PAE, M_PAE_2M, M_4L, M_4L_2M, M_4L_1G, M_5L, M_COUNT };

/* The two entries that a test varies: the leaf and the one above it (0: there is none). */
struct tables {
    enum mode mode;
    uint64_t lin, upper, leaf, page; /* guest-physical addresses of the entries and the page */
    unsigned width;
};

static void put_entry(struct fx *f, const struct tables *t, uint64_t gpa, uint64_t v)
{
    if (t->width == 4) {
        uint32_t v32 = (uint32_t)v;
        ram_load(&f->ram, gpa, &v32, 4);
    } else {
        fx_put(f, gpa, v);
    }
}

static uint64_t get_entry(struct fx *f, const struct tables *t, uint64_t gpa)
{
    uint64_t v = 0;
    ram_read(&f->ram, gpa, &v, t->width);
    return v;
}

/* Tables at 0x1000.. with everything allowed; returns where the entries under test are. */
static struct tables make_tables(struct fx *f, enum mode mode)
{
    struct cpu *cpu = f->cpu;
    struct tables t = {
        .mode = mode, .lin = 0x00c05abcULL, .page = 0x200000, .width = mode <= M_32_4M ? 4 : 8
    };
    ram_fill(&f->ram, 0x1000, 0, 0x8000);
    cpu->cr4 = mode <= M_32_4M ? CR4_PSE : CR4_PAE | (mode == M_5L ? CR4_LA57 : 0);
    cpu->efer = mode >= M_4L ? EFER_LME | EFER_LMA : 0;
    cpu->cr0 = CR0_PE | CR0_PG;
    cpu->cr3 = 0x1000;
    uint64_t link = P | W | U;
    switch (mode) {
    case M_32:
        t.upper = 0x1000 + 3 * 4;
        t.leaf = 0x2000 + 5 * 4;
        break;
    case M_32_4M:
        t.leaf = 0x1000 + 3 * 4;
        t.page = 0x400000;
        break;
    case M_PAE:
        fx_put(f, 0x1000, 0x2000 | P);
        t.upper = 0x2000 + 6 * 8;
        t.leaf = 0x3000 + 5 * 8;
        break;
    case M_PAE_2M:
        fx_put(f, 0x1000, 0x2000 | P);
        t.leaf = 0x2000 + 6 * 8;
        break;
    case M_4L:
    case M_5L:
        t.upper = 0x3000 + 6 * 8;
        t.leaf = 0x4000 + 5 * 8;
        break;
    case M_4L_2M:
        t.upper = 0x2000;
        t.leaf = 0x3000 + 6 * 8;
        break;
    default:
        t.upper = 0x1000;
        t.leaf = 0x2000;
        t.page = 0;
        break;
    }
    if (mode == M_5L) {
        cpu->cr3 = 0x7000;
        fx_put(f, 0x7000, 0x1000 | link);
    }
    if (mode >= M_4L) {
        fx_put(f, 0x1000, 0x2000 | link);
        fx_put(f, 0x2000, 0x3000 | link);
        fx_put(f, 0x3000 + 6 * 8, 0x4000 | link);
    }
    if (mode == M_PAE || mode == M_PAE_2M)
        mmu_load_pdptes(cpu, 0x1000);
    return t;
}

static bool large(enum mode m) { return m == M_32_4M || m == M_PAE_2M || m == M_4L_2M || m == M_4L_1G; }

static uint64_t upper_target(const struct tables *t)
{
    return t->mode == M_32      ? 0x2000
           : t->mode == M_PAE   ? 0x3000
           : t->mode == M_4L_2M ? 0x3000
           : t->mode == M_4L_1G ? 0x2000
                                : 0x4000;
}

struct env {
    bool wp, smep, smap, ac, nxe, user;
    unsigned acc;
};

/* --- the rules, section 4.6.1, one row each: first match decides --- */

enum tri { N = 0, Y = 1, X = 2 }; /* X: either */

static const struct rule {
    unsigned acc;
    enum tri user_mode, user_page, page_w, page_nx, wp, smep, smap_blocks;
    bool allowed;
} rules[] = {
    /* access   mode page  W  NX WP SMEP SMAP */
    { ACC_READ, N, N, X, X, X, X, X, true }, /* supervisor data read, supervisor page */
    { ACC_READ, N, Y, X, X, X, X, N, true }, /* ... user page: unless SMAP blocks */
    { ACC_READ, N, Y, X, X, X, X, Y, false },
    { ACC_WRITE, N, N, X, X, N, X, X, true }, /* supervisor write, WP=0: any supervisor page */
    { ACC_WRITE, N, N, Y, X, Y, X, X, true },
    { ACC_WRITE, N, N, N, X, Y, X, X, false },
    { ACC_WRITE, N, Y, X, X, N, X, N, true }, /* ... user page, WP=0 */
    { ACC_WRITE, N, Y, X, X, N, X, Y, false },
    { ACC_WRITE, N, Y, Y, X, Y, X, N, true },
    { ACC_WRITE, N, Y, Y, X, Y, X, Y, false },
    { ACC_WRITE, N, Y, N, X, Y, X, X, false },
    { ACC_EXEC, N, N, X, N, X, X, X, true }, /* supervisor fetch */
    { ACC_EXEC, N, N, X, Y, X, X, X, false },
    { ACC_EXEC, N, Y, X, N, X, N, X, true },
    { ACC_EXEC, N, Y, X, Y, X, N, X, false },
    { ACC_EXEC, N, Y, X, X, X, Y, X, false },
    { ACC_READ, Y, Y, X, X, X, X, X, true }, /* user mode */
    { ACC_READ, Y, N, X, X, X, X, X, false },
    { ACC_WRITE, Y, Y, Y, X, X, X, X, true },
    { ACC_WRITE, Y, Y, N, X, X, X, X, false },
    { ACC_WRITE, Y, N, X, X, X, X, X, false },
    { ACC_EXEC, Y, Y, X, N, X, X, X, true },
    { ACC_EXEC, Y, Y, X, Y, X, X, X, false },
    { ACC_EXEC, Y, N, X, X, X, X, X, false },
};

static bool fits(enum tri want, bool is) { return want == X || (want == Y) == is; }

static bool model_allows(const struct env *e, uint64_t upper, uint64_t leaf)
{
    bool user_page = (upper & U) && (leaf & U), w = (upper & W) && (leaf & W),
         nx = (upper & NX) || (leaf & NX);
    for (unsigned n = 0; n < ARRAY_LEN(rules); n++) {
        const struct rule *r = &rules[n];
        if (r->acc == e->acc && fits(r->user_mode, e->user) && fits(r->user_page, user_page) &&
            fits(r->page_w, w) && fits(r->page_nx, nx) && fits(r->wp, e->wp) && fits(r->smep, e->smep) &&
            fits(r->smap_blocks, e->smap && !e->ac))
            return r->allowed;
    }
    fail_msg("no rule");
    return false;
}

/* 0 or the whole expected answer of mmu_walk(). */
static uint32_t model_error(const struct tables *t, const struct env *e, uint64_t upper, uint64_t leaf)
{
    uint32_t err = PF_ERR | (e->acc == ACC_WRITE ? PF_W : 0) | (e->user ? PF_U : 0);
    if (e->acc == ACC_EXEC && (e->smep || (e->nxe && t->width == 8)))
        err |= PF_I;
    if (t->upper && !(upper & P))
        return err;
    if (t->upper && !e->nxe && (upper & NX))
        return err | PF_P | PF_RSVD;
    if (!(leaf & P))
        return err;
    if (!e->nxe && (leaf & NX))
        return err | PF_P | PF_RSVD;
    return model_allows(e, t->upper ? upper : U | W, leaf) ? 0 : err | PF_P;
}

static void set_env(struct cpu *cpu, const struct env *e)
{
    cpu->cr0 = (cpu->cr0 & ~(uint64_t)CR0_WP) | (e->wp ? CR0_WP : 0);
    cpu->cr4 =
        (cpu->cr4 & ~(uint64_t)(CR4_SMEP | CR4_SMAP)) | (e->smep ? CR4_SMEP : 0) | (e->smap ? CR4_SMAP : 0);
    cpu->efer = (cpu->efer & ~(uint64_t)EFER_NXE) | (e->nxe ? EFER_NXE : 0);
    cpu->rflags = FL_ONE | (e->ac ? FL_AC : 0);
    cpu->seg[SEG_CS].attr = (uint16_t)(0x9b | (e->user ? ATTR_DPL : 0));
    cpu_update_mode(cpu);
}

static void check_one(struct fx *f, const struct tables *t, const struct env *e, uint64_t upper,
                      uint64_t leaf)
{
    struct mmu_result r;
    uint64_t leaf_value = leaf | t->page | (large(t->mode) ? PS : 0);
    set_env(f->cpu, e);
    if (t->upper)
        put_entry(f, t, t->upper, upper | upper_target(t));
    put_entry(f, t, t->leaf, leaf_value);
    mmu_flush_page(f->cpu, t->lin);
    uint32_t want = model_error(t, e, upper, leaf);
    uint32_t got =
        mmu_walk(f->cpu, t->lin, (enum mmu_access)e->acc, mem_index_of(f->cpu, e->user ? 3 : 0), &r);
    if (got != want)
        fail_msg("mode %d acc %u user %d wp %d smep %d smap %d ac %d nxe %d upper %llx leaf %llx: %x, not %x",
                 t->mode, e->acc, e->user, e->wp, e->smep, e->smap, e->ac, e->nxe, (unsigned long long)upper,
                 (unsigned long long)leaf, got, want);
    uint64_t now = get_entry(f, t, t->leaf), touched = want ? 0 : e->acc == ACC_WRITE ? A | D : A;
    assert_int_equal(now, leaf_value | touched);
    if (want)
        return;
    uint64_t mask = t->mode == M_4L_1G   ? (1 << 30) - 1
                    : t->mode == M_32_4M ? (1 << 22) - 1
                    : large(t->mode)     ? (1 << 21) - 1
                                         : 0xfff;
    assert_int_equal(r.gpa, t->page | (t->lin & mask));
    assert_int_equal(r.page_size, mask + 1);
    /* What later accesses through the TLB may do, by the same rules. */
    struct env rd = *e, wr = *e;
    rd.acc = ACC_READ;
    wr.acc = ACC_WRITE;
    assert_int_equal(r.readable, model_error(t, &rd, upper, leaf) == 0);
    assert_int_equal(r.writable,
                     e->acc == ACC_WRITE || ((leaf & D) && model_error(t, &wr, upper, leaf) == 0));
    if (t->upper)
        assert_int_equal(get_entry(f, t, t->upper) & (A | D), A);
}

static uint64_t flag_bits(unsigned n, bool wide)
{
    return (n & 1 ? W : 0) | (n & 2 ? U : 0) | (n & 4 && wide ? NX : 0) | (n & 8 ? 0 : P) | (n & 16 ? D : 0);
}

static void test_rights(void **state)
{
    struct fx *f = fx_create(1, NULL);
    unsigned long count = 0;
    for (enum mode m = 0; m < M_COUNT; m++) {
        struct tables t = make_tables(f, m);
        bool wide = t.width == 8;
        for (unsigned upper = 0; upper < 16; upper++)
            for (unsigned leaf = 0; leaf < 32; leaf++)
                for (unsigned c = 0; c < 192; c++) {
                    struct env e = { c & 1, c & 2, c & 4, c & 8, wide && (c & 16), c & 32, 1u << (c >> 6) };
                    check_one(f, &t, &e, flag_bits(upper, wide), flag_bits(leaf, wide));
                    count++;
                }
    }
    assert_int_equal(count, M_COUNT * 16 * 32 * 192);
    fx_destroy(f);
}

/* --- reserved bits --- */

static uint32_t walk_read(struct fx *f, const struct tables *t)
{
    struct mmu_result r;
    return mmu_walk(f->cpu, t->lin, ACC_READ, MMU_SUP, &r);
}

static void check_reserved(struct fx *f, enum mode m, bool upper, uint64_t bit, bool reserved)
{
    struct tables t = make_tables(f, m);
    struct env e = { .nxe = true };
    set_env(f->cpu, &e);
    if (t.upper)
        put_entry(f, &t, t.upper, P | W | U | upper_target(&t) | (upper ? bit : 0));
    put_entry(f, &t, t.leaf, P | W | U | t.page | (large(m) ? PS : 0) | (upper ? 0 : bit));
    uint32_t want = reserved ? PF_ERR | PF_P | PF_RSVD : 0, got = walk_read(f, &t);
    if (got != want)
        fail_msg("mode %d %s bit %llx: %x, not %x", m, upper ? "upper" : "leaf", (unsigned long long)bit, got,
                 want);
}

static void test_reserved(void **state)
{
    struct fx *f = fx_create(1, NULL);
    unsigned phys = f->cpuid.phys_bits;
    for (unsigned b = 12; b < 63; b++) {
        uint64_t bit = 1ULL << b;
        bool high = b >= phys && b < 52;
        check_reserved(f, M_4L, false, bit, high);
        check_reserved(f, M_5L, false, bit, high);
        check_reserved(f, M_4L_2M, false, bit, high || (b > 12 && b < 21));
        check_reserved(f, M_4L_1G, false, bit, high || (b > 12 && b < 30));
        check_reserved(f, M_PAE, false, bit, b >= phys);
        check_reserved(f, M_PAE_2M, false, bit, b >= phys || (b > 12 && b < 21));
        if (b >= phys) {
            check_reserved(f, M_4L, true, bit, high);
            check_reserved(f, M_PAE, true, bit, true);
        }
    }
    check_reserved(f, M_4L_1G, true, PS, true); /* in a PML4E */
    check_reserved(f, M_32_4M, false, 1 << 21, true);
    check_reserved(f, M_32_4M, false, 1 << 13, false); /* PSE-36: an address bit */
    fx_destroy(f);
}

static void test_pse36(void **state)
{
    struct fx *f = fx_create(1, NULL);
    struct tables t = make_tables(f, M_32_4M);
    struct mmu_result r;
    put_entry(f, &t, t.leaf, 0x00400000 | 3 << 13 | PS | P | W);
    set_env(f->cpu, &(struct env){ 0 });
    assert_int_equal(mmu_walk(f->cpu, t.lin, ACC_READ, MMU_SUP, &r), 0);
    assert_int_equal(r.gpa, 0x300400000ULL + (t.lin & 0x3fffff));
    /* Without CR4.PSE bit 7 is ignored: the entry is a table's address, and nothing is there. */
    f->cpu->cr4 &= ~(uint64_t)CR4_PSE;
    put_entry(f, &t, t.leaf, 0x2000 | PS | P | W);
    put_entry(f, &t, 0x2000 + 5 * 4, 0x9000 | P);
    assert_int_equal(mmu_walk(f->cpu, t.lin, ACC_READ, MMU_SUP, &r), 0);
    assert_int_equal(r.gpa, 0x9abc);
    fx_destroy(f);
}

static void test_pdptes(void **state)
{
    struct fx *f = fx_create(1, NULL);
    struct tables t = make_tables(f, M_PAE_2M);
    put_entry(f, &t, t.leaf, P | W | PS | t.page);
    set_env(f->cpu, &(struct env){ 0 });
    /* They are registers: a change in memory counts only when CR3 is loaded. */
    fx_put(f, 0x1000, 0);
    assert_int_equal(walk_read(f, &t), 0);
    ASSERT_CALM(f, cpu_write_cr3(f->cpu, 0x1000));
    assert_int_equal(walk_read(f, &t), PF_ERR);
    /* Bits 1, 2, 5 to 8 and beyond the address fault in a present one, and nothing is loaded. */
    fx_put(f, 0x1000, 0x2000 | P);
    cpu_write_cr3(f->cpu, 0x1000);
    static const uint64_t bad[] = { 2, 4, 0x20, 0x40, 0x80, 0x100, 1ULL << 46, 1ULL << 62, NX };
    for (volatile unsigned n = 0; n < ARRAY_LEN(bad); n++) {
        fx_put(f, 0x1018, 0x5000 | P | bad[n]);
        ASSERT_RAISES(f, VEC_GP, 0, cpu_write_cr3(f->cpu, 0x1000));
        assert_int_equal(f->cpu->pdpte[3], 0);
        fx_put(f, 0x1018, bad[n]); /* not present: anything goes */
        ASSERT_CALM(f, cpu_write_cr3(f->cpu, 0x1000));
        fx_put(f, 0x1018, 0);
        cpu_write_cr3(f->cpu, 0x1000);
    }
    fx_destroy(f);
}

/* --- accessed and dirty bits --- */

static void test_accessed_upper(void **state)
{
    struct fx *f = fx_create(1, NULL);
    struct tables t = make_tables(f, M_5L);
    put_entry(f, &t, t.leaf, t.page | P);
    set_env(f->cpu, &(struct env){ .wp = true });
    struct mmu_result r;
    static const uint64_t entries[] = { 0x7000, 0x1000, 0x2000, 0x3000 + 6 * 8 };
    assert_int_equal(mmu_walk(f->cpu, t.lin, ACC_WRITE, MMU_SUP, &r), PF_ERR | PF_P | PF_W);
    for (unsigned n = 0; n < 4; n++)
        assert_int_equal(fx_get(f, entries[n]) & (A | D), A); /* used, though the access failed in the end */
    assert_int_equal(fx_get(f, t.leaf) & (A | D), 0);
    fx_destroy(f);
}

static void test_peek(void **state)
{
    struct fx *f = fx_create(1, NULL);
    struct tables t = make_tables(f, M_4L);
    uint64_t gpa;
    put_entry(f, &t, t.leaf, t.page | P);
    set_env(f->cpu, &(struct env){ 0 });
    assert_int_equal(mmu_peek(f->cpu, t.lin, &gpa), 0);
    assert_int_equal(gpa, t.page | 0xabc);
    assert_int_equal(fx_get(f, t.leaf) & A, 0);
    assert_int_equal(fx_get(f, 0x1000) & A, 0);
    assert_true(mmu_peek(f->cpu, t.lin + 0x1000, &gpa) < 0);
    assert_true(mmu_peek(f->cpu, 1ULL << 50, &gpa) < 0);
    fx_destroy(f);
}

/* Accessed bits in page tables are stores like any other. */
static void test_table_stores(void **state)
{
    uint8_t was[PAGE_SIZE];
    struct fx *f = fx_create(1, NULL);
    struct tables t = make_tables(f, M_4L);
    struct mmu_result r;
    put_entry(f, &t, t.leaf, t.page | P | W);
    set_env(f->cpu, &(struct env){ 0 });
    atomic_fetch_or(ram_page_flags(&f->ram, t.leaf), PAGE_CODE);
    ram_dirty_log(&f->ram, true);
    assert_int_equal(ram_still_begin(&f->ram), 0);
    assert_int_equal(mmu_walk(f->cpu, t.lin, ACC_WRITE, MMU_SUP, &r), 0);
    assert_int_equal(f->code_count, 1);
    assert_false(ram_must_keep(&f->ram, t.leaf) || ram_must_keep(&f->ram, 0x1000));
    assert_true(ram_must_keep(&f->ram, t.page));
    assert_int_equal(ram_still_read(&f->ram, &f->ram.slot[0], PAGE_BASE(t.leaf), PAGE_SIZE, was), 0);
    assert_int_equal(ld_le64(was + PAGE_OFFSET(t.leaf)), t.page | P | W);
    ram_still_end(&f->ram);
    assert_int_equal(f->code[0].gpa, t.leaf);
    assert_int_equal(f->code[0].len, 8);
    assert_true(*ram_page_flags(&f->ram, t.leaf) & PAGE_DIRTY);
    assert_true(*ram_page_flags(&f->ram, 0x1000) & PAGE_DIRTY);
    assert_false(*ram_page_flags(&f->ram, t.page) & PAGE_DIRTY);
    /* Set already: nothing is stored. */
    assert_int_equal(mmu_walk(f->cpu, t.lin, ACC_WRITE, MMU_SUP, &r), 0);
    assert_int_equal(f->code_count, 1);
    fx_destroy(f);
}

/* Tables in ROM or nowhere: no store, no crash. */
static void test_odd_tables(void **state)
{
    struct fx *f = fx_create(1, NULL);
    struct tables t = make_tables(f, M_32);
    struct mmu_result r;
    uint32_t e = 0x9000 | P | W;
    ram_load(&f->ram, 0xffff0000 + 5 * 4, &e, 4);
    put_entry(f, &t, t.upper, 0xffff0000 | P | W);
    set_env(f->cpu, &(struct env){ 0 });
    assert_int_equal(mmu_walk(f->cpu, t.lin, ACC_WRITE, MMU_SUP, &r), 0);
    assert_int_equal(r.gpa, 0x9abc);
    assert_true(r.writable);
    assert_int_equal(get_entry(f, &t, 0xffff0000 + 5 * 4), e);
    put_entry(f, &t, t.upper, 0xe0000000 | P | W); /* a hole reads all ones */
    assert_int_equal(mmu_walk(f->cpu, t.lin, ACC_WRITE, MMU_SUP, &r), 0);
    assert_int_equal(r.gpa, 0xfffffabc);
    fx_long_mode(f, 0);
    f->cpu->cr3 = 0xe0000000;
    assert_int_equal(mmu_walk(f->cpu, 0, ACC_READ, MMU_SUP, &r), PF_ERR | PF_P | PF_RSVD);
    fx_destroy(f);
}

/* Tables in a device's memory: read, and marked, where the guest has put that, and nowhere else. */
static void test_tables_in_window(void **state)
{
    struct fx *f = fx_create(1, NULL);
    struct mmu_result r;
    uint64_t own = 1ULL << 32, seen = 0xe0000000, pde;
    fx_long_mode(f, 0);
    fx_map(f, 0x400000, 0x100000, P | W);
    fx_map(f, 0x600000, 0x200000, P | W);
    pde = 0x4000 + 2 * 8;
    ram_set_device(&f->ram, ram_slot_of(&f->ram, own));
    fx_put(f, own + 0x1000, 0x345000 | P | W);
    fx_put(f, pde, (seen + 0x1000) | P | W);
    assert_int_equal(mmu_walk(f->cpu, 0x400abc, ACC_READ, MMU_SUP, &r), PF_ERR | PF_P | PF_RSVD); /* nobody is there yet */
    atomic_store(&f->ram.window.at, seen);
    assert_int_equal(mmu_walk(f->cpu, 0x400abc, ACC_WRITE, MMU_SUP, &r), 0);
    assert_int_equal(r.gpa, 0x345abc);
    assert_int_equal(fx_get(f, own + 0x1000), 0x345000 | P | W | A | D);
    fx_put(f, pde, (own + 0x1000) | P | W);
    assert_int_equal(mmu_walk(f->cpu, 0x400abc, ACC_READ, MMU_SUP, &r), PF_ERR | PF_P | PF_RSVD); /* it is not there any more */

    /* From a directory in it to a table in it, and to its own place, which is none, and to RAM. */
    fx_put(f, own + 0x2000 + 2 * 8, (seen + 0x1000) | P | W);
    fx_put(f, own + 0x2000 + 3 * 8, (own + 0x1000) | P | W);
    fx_put(f, own + 0x2000 + 4 * 8, 0x6000 | P | W);
    fx_put(f, 0x6000, 0x678000 | P | W);
    fx_put(f, 0x3000, (seen + 0x2000) | P | W);
    mmu_flush_all(f->cpu);
    assert_int_equal(mmu_walk(f->cpu, 0x400abc, ACC_READ, MMU_SUP, &r), 0);
    assert_int_equal(r.gpa, 0x345abc);
    assert_int_equal(mmu_walk(f->cpu, 0x600abc, ACC_READ, MMU_SUP, &r), PF_ERR | PF_P | PF_RSVD);
    assert_int_equal(mmu_walk(f->cpu, 0x800abc, ACC_READ, MMU_SUP, &r), 0);
    assert_int_equal(r.gpa, 0x678abc);
    fx_destroy(f);
}

/* --- the TLB --- */

static void test_stale_until_flushed(void **state)
{
    struct fx *f = fx_create(1, NULL);
    fx_long_mode(f, 0);
    fx_map(f, 0x400000, 0x100000, P | W);
    fx_map(f, 0x401000, 0x101000, P | W);
    fx_put(f, 0x100000, 0x1111);
    fx_put(f, 0x102000, 0x2222);
    assert_int_equal(mem_ld64(f->cpu, SEG_DS, 0x400000), 0x1111);
    assert_int_equal(mem_ld64(f->cpu, SEG_DS, 0x401000), 0);
    fx_map(f, 0x400000, 0x102000, P | W);
    assert_int_equal(mem_ld64(f->cpu, SEG_DS, 0x400000), 0x1111); /* allowed, and what a TLB does */
    mmu_flush_page(f->cpu, 0x401fff);
    assert_int_equal(mem_ld64(f->cpu, SEG_DS, 0x400000), 0x1111);
    mmu_flush_page(f->cpu, 0x400123);
    assert_int_equal(mem_ld64(f->cpu, SEG_DS, 0x400000), 0x2222);
    fx_map(f, 0x400000, 0x100000, P | W);
    cpu_write_cr3(f->cpu, 0x1000);
    assert_int_equal(mem_ld64(f->cpu, SEG_DS, 0x400000), 0x1111);
    fx_destroy(f);
}

static void test_large_page_flush(void **state)
{
    struct fx *f = fx_create(1, NULL);
    fx_long_mode(f, 0);
    fx_map(f, 0x400000, 0, 0);
    uint64_t pde = 0x4000 + 2 * 8; /* tables come from the pool in order */
    assert_int_equal(fx_get(f, pde) & ~0x67ULL, 0x5000);
    fx_put(f, pde, 0x200000 | PS | P | W);
    fx_put(f, 0x200000, 1);
    fx_put(f, 0x3ff000, 2);
    fx_put(f, 0x600000, 3);
    fx_put(f, 0x7ff000, 4);
    assert_int_equal(mem_ld64(f->cpu, SEG_DS, 0x400000), 1);
    assert_int_equal(mem_ld64(f->cpu, SEG_DS, 0x5ff000), 2);
    fx_put(f, pde, 0x600000 | PS | P | W);
    mmu_flush_page(f->cpu, 0x4a0000); /* one address inside drops all of the large page */
    assert_int_equal(mem_ld64(f->cpu, SEG_DS, 0x400000), 3);
    assert_int_equal(mem_ld64(f->cpu, SEG_DS, 0x5ff000), 4);
    /* The engine hears of the whole region, until everything went. */
    mmu_flush_page(f->cpu, 0x5ff123);
    assert_int_equal(f->flush.lin, 0x400000);
    assert_int_equal(f->flush.size, 0x400000);
    mmu_flush_page(f->cpu, 0x800000);
    assert_int_equal(f->flush.lin, 0x800000);
    assert_int_equal(f->flush.size, 0x1000);
    mmu_flush_all(f->cpu);
    mmu_flush_page(f->cpu, 0x5ff123);
    assert_int_equal(f->flush.lin, 0x5ff000);
    assert_int_equal(mmu_fetch(f->cpu, 0x400123), 0x600123); /* fetches count too */
    mmu_flush_page(f->cpu, 0x5ff123);
    assert_int_equal(f->flush.size, 0x400000);
    fx_destroy(f);
}

/* Pages of 1 GiB: each region is known by itself, until there are too many of them. */
static void test_huge_page_flush(void **state)
{
    struct fx *f = fx_create(1, NULL);
    struct mmu_result r;
    fx_long_mode(f, 0);
    fx_map(f, 0x400000, 0, 0);
    for (uint64_t n = 1; n <= 9; n++)
        fx_put(f, 0x3000 + n * 8, PS | P | W);
    fx_put(f, 0x100000, 7);
    for (uint64_t n = 1; n <= 8; n++)
        assert_int_equal(mem_ld64(f->cpu, SEG_DS, (n << 30) + 0x100000), 7);
    fx_put(f, 0x3000 + 8 * 8, 0);
    mmu_flush_page(f->cpu, (8ULL << 30) + 0x12345678);
    assert_int_equal(f->flush.lin, 8ULL << 30);
    assert_int_equal(f->flush.size, 1ULL << 30);
    assert_int_equal(mem_ld64(f->cpu, SEG_DS, (7ULL << 30) + 0x100000), 7);
    ASSERT_RAISES(f, VEC_PF, 0, mem_ld64(f->cpu, SEG_DS, (8ULL << 30) + 0x100000));
    mmu_flush_page(f->cpu, 0x400000);
    assert_int_equal(f->flush.size, 0x1000);
    assert_int_equal(mmu_walk(f->cpu, 9ULL << 30, ACC_READ, MMU_SUP, &r), 0);
    mem_ld64(f->cpu, SEG_DS, 9ULL << 30);
    mmu_flush_page(f->cpu, 0x400000);
    assert_int_equal(f->flush.size, 1ULL << 30);
    fx_destroy(f);
}

/* What each way of flushing tells the engine, and what it leaves in the TLB. */
static void test_flush_kinds(void **state)
{
    struct fx *f = fx_create(1, NULL);
    struct cpu *cpu = f->cpu;
    fx_long_mode(f, 0);
    fx_map(f, 0x400000, 0x100000, P | W);
    fx_map(f, 0x401000, 0x100000, P | W | 0x100);
    fx_put(f, 0x100000, 1);
    fx_put(f, 0x101000, 2);
    cpu_write_cr4(cpu, cpu->cr4 | CR4_PCIDE);
    assert_int_equal(f->flush.kind, TLB_FLUSH_ALL);
    cpu_write_cr3(cpu, 0x1005);
    assert_int_equal(f->flush.kind, TLB_FLUSH_PCID);
    assert_int_equal(f->flush.pcid, 5);
    assert_int_equal(f->switched, 1);
    unsigned all = f->flushed_all;
    cpu_write_cr3(cpu, 0x1006 | 1ULL << 63);
    assert_int_equal(cpu->cr3, 0x1006);
    assert_int_equal(f->flushed_all, all);
    assert_int_equal(f->switched, 2);

    assert_int_equal(mem_ld64(cpu, SEG_DS, 0x400000) + mem_ld64(cpu, SEG_DS, 0x401000), 2);
    fx_map(f, 0x400000, 0x101000, P | W);
    fx_map(f, 0x401000, 0x101000, P | W | 0x100);
    mmu_flush_pcid(cpu, 7);
    assert_int_equal(mem_ld64(cpu, SEG_DS, 0x400000), 1);
    mmu_flush_page_pcid(cpu, 6, 0x400abc);
    assert_int_equal(f->flush.kind, TLB_FLUSH_PAGE_PCID);
    assert_int_equal(f->flush.lin, 0x400000);
    assert_int_equal(mem_ld64(cpu, SEG_DS, 0x400000), 2);
    fx_map(f, 0x400000, 0x100000, P | W);
    mmu_flush_pcid(cpu, 6);
    assert_int_equal(f->flush.pcid, 6);
    assert_int_equal(mem_ld64(cpu, SEG_DS, 0x400000), 1);
    assert_int_equal(mem_ld64(cpu, SEG_DS, 0x401000), 1); /* global */
    mmu_flush_nonglobal(cpu);
    assert_int_equal(f->flush.kind, TLB_FLUSH_NONGLOBAL);
    assert_int_equal(mem_ld64(cpu, SEG_DS, 0x401000), 1);
    mmu_protect(cpu, 0x100abc);
    assert_int_equal(f->protected, 0x100000);
    ASSERT_RAISES(f, VEC_GP, 0, cpu_write_cr0(cpu, cpu->cr0 & ~(uint64_t)CR0_PG));
    cpu_write_cr4(cpu, cpu->cr4 & ~(uint64_t)CR4_PCIDE);
    assert_int_equal(f->flush.kind, TLB_FLUSH_ALL);
    ASSERT_RAISES(f, VEC_GP, 0, cpu_write_cr3(cpu, 0x1000 | 1ULL << 63));
    fx_destroy(f);
}

/* A page directory is remembered: more rights further up count at once (a fault looks again), fewer and other
 * tables after any INVLPG or MOV to CR3, for pages never seen before too. */
static void test_walk_cache(void **state)
{
    struct fx *f = fx_create(1, NULL);
    struct mmu_result r;
    fx_long_mode(f, 0);
    fx_map(f, 0x400000, 0x100000, P | W | U);
    fx_map(f, 0x401000, 0x101000, P | W | U);
    uint64_t pdpte = 0x3000;
    fx_put(f, pdpte, fx_get(f, pdpte) & ~U);
    assert_int_equal(mmu_walk(f->cpu, 0x400000, ACC_READ, MMU_SUP, &r), 0);
    assert_int_equal(mmu_walk(f->cpu, 0x401000, ACC_READ, MMU_USER, &r), PF_ERR | PF_P | PF_U);
    fx_put(f, pdpte, fx_get(f, pdpte) | U);
    assert_int_equal(mmu_walk(f->cpu, 0x401000, ACC_READ, MMU_USER, &r), 0);
    fx_put(f, pdpte, fx_get(f, pdpte) | NX);
    mmu_flush_page(f->cpu, 0x80000000);
    assert_int_equal(mmu_walk(f->cpu, 0x401000, ACC_EXEC, MMU_USER, &r), PF_ERR | PF_P | PF_U | PF_I);
    assert_int_equal(mmu_walk(f->cpu, 0x400000, ACC_READ, MMU_USER, &r), 0);
    assert_int_equal(mmu_walk(f->cpu, 0x400000, ACC_EXEC, MMU_USER, &r),
                     PF_ERR | PF_P | PF_U | PF_I); /* remembered */
    fx_put(f, pdpte, 0);
    cpu_write_cr3(f->cpu, 0x1000);
    assert_int_equal(mmu_walk(f->cpu, 0x400000, ACC_READ, MMU_USER, &r), PF_ERR | PF_U);
    /* Same slot of the cache, another GiB. */
    fx_map(f, 0x400400000, 0x102000, P);
    assert_int_equal(mmu_walk(f->cpu, 0x400400000, ACC_READ, MMU_SUP, &r), 0);
    assert_int_equal(mmu_walk(f->cpu, 0x400000, ACC_READ, MMU_SUP, &r), PF_ERR);
    fx_destroy(f);
}

static void test_global(void **state)
{
    struct fx *f = fx_create(1, NULL);
    fx_long_mode(f, 0);
    fx_map(f, 0x400000, 0x100000, P | W | 0x100);
    fx_map(f, 0x401000, 0x101000, P | W);
    fx_put(f, 0x100000, 1);
    fx_put(f, 0x101000, 2);
    fx_put(f, 0x102000, 3);
    assert_int_equal(mem_ld64(f->cpu, SEG_DS, 0x400000) + mem_ld64(f->cpu, SEG_DS, 0x401000), 3);
    fx_map(f, 0x400000, 0x102000, P | W | 0x100);
    fx_map(f, 0x401000, 0x102000, P | W);
    unsigned all = f->flushed_all;
    cpu_write_cr3(f->cpu, 0x1000);
    assert_int_equal(f->flushed_all, all + 1);
    assert_int_equal(mem_ld64(f->cpu, SEG_DS, 0x400000), 1); /* kept */
    assert_int_equal(mem_ld64(f->cpu, SEG_DS, 0x401000), 3);
    mmu_flush_page(f->cpu, 0x400000); /* INVLPG drops global ones too */
    assert_int_equal(mem_ld64(f->cpu, SEG_DS, 0x400000), 3);
    fx_map(f, 0x400000, 0x100000, P | W | 0x100);
    cpu_write_cr4(f->cpu, f->cpu->cr4 & ~(uint64_t)CR4_PGE);
    assert_int_equal(mem_ld64(f->cpu, SEG_DS, 0x400000), 1);
    fx_map(f, 0x400000, 0x101000, P | W | 0x100);
    cpu_write_cr3(f->cpu, 0x1000); /* without PGE the bit means nothing */
    assert_int_equal(mem_ld64(f->cpu, SEG_DS, 0x400000), 2);
    fx_destroy(f);
}

static void test_permission_changes(void **state)
{
    struct fx *f = fx_create(1, NULL);
    fx_long_mode(f, 0);
    fx_map(f, 0x400000, 0x100000, P);
    f->cpu->cr0 &= ~(uint64_t)CR0_WP;
    mmu_flush_all(f->cpu);
    ASSERT_CALM(f, mem_st32(f->cpu, SEG_DS, 0x400000, 7));
    ASSERT_CALM(f, cpu_write_cr0(f->cpu, f->cpu->cr0 | CR0_WP));
    ASSERT_RAISES(f, VEC_PF, PF_P | PF_W, mem_st32(f->cpu, SEG_DS, 0x400000, 7));
    assert_int_equal(f->cpu->event.cr2, 0x400000);
    /* User pages under SMAP: AC decides, without any flush. */
    fx_map(f, 0x402000, 0x102000, P | W | U);
    ASSERT_CALM(f, cpu_write_cr4(f->cpu, f->cpu->cr4 | CR4_SMAP));
    ASSERT_RAISES(f, VEC_PF, PF_P, mem_ld8(f->cpu, SEG_DS, 0x402001));
    cpu_set_rflags(f->cpu, FL_AC);
    ASSERT_CALM(f, mem_st8(f->cpu, SEG_DS, 0x402001, 1));
    ASSERT_RAISES(f, VEC_PF, PF_P, mem_sys_ld(f->cpu, 0x402001, 1)); /* implicit: AC does not help */
    cpu_set_rflags(f->cpu, 0);
    ASSERT_RAISES(f, VEC_PF, PF_P | PF_W, mem_st8(f->cpu, SEG_DS, 0x402001, 1));
    /* Fetches: SMEP, NX, supervisor pages from user mode, non-canonical. */
    ASSERT_CALM(f, mmu_fetch(f->cpu, 0x402000));
    ASSERT_CALM(f, cpu_write_cr4(f->cpu, f->cpu->cr4 | CR4_SMEP));
    ASSERT_RAISES(f, VEC_PF, PF_P | PF_I, mmu_fetch(f->cpu, 0x402000));
    ASSERT_RAISES(f, VEC_GP, 0, mmu_fetch(f->cpu, 1ULL << 47));
    fx_set_cpl(f, 3);
    ASSERT_RAISES(f, VEC_PF, PF_P | PF_U | PF_I, mmu_fetch(f->cpu, 0x400000));
    ASSERT_CALM(f, mmu_fetch(f->cpu, 0x402000));
    fx_destroy(f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_rights),
        cmocka_unit_test(test_reserved),
        cmocka_unit_test(test_pse36),
        cmocka_unit_test(test_pdptes),
        cmocka_unit_test(test_accessed_upper),
        cmocka_unit_test(test_peek),
        cmocka_unit_test(test_table_stores),
        cmocka_unit_test(test_odd_tables),
        cmocka_unit_test(test_tables_in_window),
        cmocka_unit_test(test_stale_until_flushed),
        cmocka_unit_test(test_large_page_flush),
        cmocka_unit_test(test_huge_page_flush),
        cmocka_unit_test(test_flush_kinds),
        cmocka_unit_test(test_walk_cache),
        cmocka_unit_test(test_global),
        cmocka_unit_test(test_permission_changes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
