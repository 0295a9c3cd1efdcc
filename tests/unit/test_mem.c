/* Guest memory behind the TLB: page crossings, MMIO pieces, ROM, code pages, dirty log, views, alignment and
 * data breakpoints, canonical addresses and wrap-around. */
#include "x86_fixture.h"

#include "ram/still.h"
#include "x86/mem.h"

#define P 0x1ULL
#define W 0x2ULL
#define U 0x4ULL
#define D 0x40ULL

#define LIN   0x400000ULL /* two pages, far apart in guest-physical memory */
#define GPA0  0x100000ULL
#define GPA1  0x180000ULL
#define MMIO  0x410000ULL /* maps 0xd0000000 */
#define ROM   0x420000ULL /* maps the ROM */
#define TWIN  0x430000ULL /* two pages that follow each other in memory too */
#define GPA_T 0x200000ULL

static struct fx *mem_fixture(void)
{
    struct fx *f = fx_create(1, NULL);
    fx_long_mode(f, 0);
    fx_map(f, LIN, GPA0, P | W | U);
    fx_map(f, LIN + 0x1000, GPA1, P | W | U);
    fx_map(f, LIN + 0x2000, 0, 0);
    fx_map(f, MMIO, 0xd0000000, P | W | U);
    fx_map(f, MMIO + 0x1000, 0xd0005000, P | W | U);
    fx_map(f, ROM, 0xffff0000, P | W | U);
    fx_map(f, TWIN, GPA_T, P | W | U);
    fx_map(f, TWIN + 0x1000, GPA_T + 0x1000, P | W | U);
    fx_put(f, GPA0 + 0xff8, 0x0706050403020100);
    fx_put(f, GPA1, 0x0f0e0d0c0b0a0908);
    return f;
}

static void test_crossing(void **state)
{
    struct fx *f = mem_fixture();
    static const unsigned sizes[] = { 2, 4, 8 };
    for (unsigned s = 0; s < 3; s++)
        for (unsigned back = 1; back < sizes[s]; back++) {
            uint64_t lin = LIN + 0x1000 - back, want = 0;
            for (unsigned n = 0; n < sizes[s]; n++)
                want |= (uint64_t)(8 - back + n) << (8 * n);
            assert_int_equal(mem_ld(f->cpu, SEG_DS, lin, sizes[s]), want);
            mem_st(f->cpu, SEG_DS, lin, ~want, sizes[s]);
            assert_int_equal(mem_ld(f->cpu, SEG_DS, lin, sizes[s]), ~want & mask_bytes(sizes[s]));
            mem_st(f->cpu, SEG_DS, lin, want, sizes[s]);
            assert_int_equal(fx_get(f, GPA0 + 0xff8), 0x0706050403020100);
            assert_int_equal(fx_get(f, GPA1), 0x0f0e0d0c0b0a0908);
        }
    fx_destroy(f);
}

/* The second page faults: nothing is stored, CR2 is its first byte. */
static void test_crossing_fault(void **state)
{
    struct fx *f = mem_fixture();
    fx_put(f, GPA1 + 0xff8, 0x1122334455667788);
    ASSERT_RAISES(f, VEC_PF, PF_W, mem_st64(f->cpu, SEG_DS, LIN + 0x1ffc, 0));
    assert_int_equal(f->cpu->event.cr2, LIN + 0x2000);
    assert_int_equal(fx_get(f, GPA1 + 0xff8), 0x1122334455667788);
    ASSERT_RAISES(f, VEC_PF, 0, mem_ld16(f->cpu, SEG_DS, LIN + 0x1fff));
    assert_int_equal(f->cpu->event.cr2, LIN + 0x2000);
    /* The first page faults first. */
    fx_map(f, LIN + 0x3000, GPA0, P | W);
    ASSERT_RAISES(f, VEC_PF, 0, mem_ld32(f->cpu, SEG_DS, LIN + 0x2ffe));
    assert_int_equal(f->cpu->event.cr2, LIN + 0x2ffe);
    /* A fault goes back to the instruction. */
    f->cpu->start_rip = 0x1234;
    f->cpu->r[R_RIP] = 0x1238;
    ASSERT_RAISES(f, VEC_PF, 0, mem_probe(f->cpu, SEG_DS, LIN + 0x1fff, 4, ACC_READ));
    assert_int_equal(f->cpu->r[R_RIP], 0x1234);
    fx_destroy(f);
}

static void expect_mmio(struct fx *f, unsigned at, bool write, uint64_t gpa, unsigned size, uint64_t value)
{
    assert_true(at < f->mmio_count);
    assert_int_equal(f->mmio[at].write, write);
    assert_int_equal(f->mmio[at].gpa, gpa);
    assert_int_equal(f->mmio[at].size, size);
    assert_int_equal(f->mmio[at].value, value);
}

static void test_mmio(void **state)
{
    struct fx *f = mem_fixture();
    assert_int_equal(mem_ld32(f->cpu, SEG_DS, MMIO + 0x10), 0x13121110);
    mem_st64(f->cpu, SEG_DS, MMIO + 0x23, 0x8877665544332211); /* unaligned: one piece */
    mem_st8(f->cpu, SEG_DS, MMIO + 7, 0xab);
    assert_int_equal(f->mmio_count, 3);
    expect_mmio(f, 0, false, 0xd0000010, 4, 0x13121110);
    expect_mmio(f, 1, true, 0xd0000023, 8, 0x8877665544332211);
    expect_mmio(f, 2, true, 0xd0000007, 1, 0xab);
    /* Across pages: the part in each page, in pieces that a bus takes. */
    f->mmio_count = 0;
    mem_st64(f->cpu, SEG_DS, MMIO + 0xffd, 0x8877665544332211);
    assert_int_equal(f->mmio_count, 4);
    expect_mmio(f, 0, true, 0xd0000ffd, 2, 0x2211);
    expect_mmio(f, 1, true, 0xd0000fff, 1, 0x33);
    expect_mmio(f, 2, true, 0xd0005000, 4, 0x77665544);
    expect_mmio(f, 3, true, 0xd0005004, 1, 0x88);
    f->mmio_count = 0;
    assert_int_equal(mem_ld32(f->cpu, SEG_DS, MMIO + 0xffe), 0x0100fffe);
    assert_int_equal(f->mmio_count, 2);
    fx_destroy(f);
}

static void test_mmio_views(void **state)
{
    struct fx *f = mem_fixture();
    const uint8_t *r = mem_view_r(f->cpu, SEG_DS, MMIO + 0x40, 32);
    assert_int_equal(f->mmio_count, 4);
    for (unsigned n = 0; n < 32; n++)
        assert_int_equal(r[n], 0x40 + n);
    for (unsigned n = 0; n < 4; n++)
        expect_mmio(f, n, false, 0xd0000040 + 8 * n, 8, ld_le64(r + 8 * n));
    f->mmio_count = 0;
    uint8_t *w = mem_view_w(f->cpu, SEG_DS, MMIO + 0x80, 10);
    memset(w, 0x5a, 10);
    assert_int_equal(f->mmio_count, 0); /* nothing before the commit */
    mem_commit(f->cpu);
    assert_int_equal(f->mmio_count, 2);
    expect_mmio(f, 0, true, 0xd0000080, 8, 0x5a5a5a5a5a5a5a5a);
    expect_mmio(f, 1, true, 0xd0000088, 2, 0x5a5a);
    mem_commit(f->cpu);
    assert_int_equal(f->mmio_count, 2); /* once only */
    fx_destroy(f);
}

static void test_rom(void **state)
{
    struct fx *f = mem_fixture();
    fx_put(f, 0xffff0100, 42);
    mem_st64(f->cpu, SEG_DS, ROM + 0x100, 7);
    assert_int_equal(mem_ld64(f->cpu, SEG_DS, ROM + 0x100), 42);
    assert_non_null(mem_fast_rd(f->cpu, ROM + 0x100, 8));
    assert_null(mem_fast_wr(f->cpu, ROM + 0x100, 8));
    uint64_t *v = mem_view_rmw(f->cpu, SEG_DS, ROM + 0x100, 8, true);
    assert_int_equal(*v, 42);
    *v = 1;
    mem_commit(f->cpu);
    assert_int_equal(f->exclusive, 0);
    assert_int_equal(fx_get(f, 0xffff0100), 42);
    assert_int_equal(f->mmio_count, 0);
    fx_destroy(f);
}

/* --- stores to pages with decoded code --- */

static void set_code(struct fx *f, uint64_t gpa)
{
    atomic_fetch_or(ram_page_flags(&f->ram, gpa), PAGE_CODE);
    mmu_protect(f->cpu, gpa);
}

static void test_code_page(void **state)
{
    struct fx *f = mem_fixture();
    mem_st32(f->cpu, SEG_DS, LIN + 0x10, 1);
    assert_non_null(mem_fast_wr(f->cpu, LIN + 0x10, 4));
    set_code(f, GPA0);
    assert_null(mem_fast_wr(f->cpu, LIN + 0x10, 4));
    assert_non_null(mem_fast_rd(f->cpu, LIN + 0x10, 4));
    f->code_keeps_flag = true;
    mem_st32(f->cpu, SEG_DS, LIN + 0x20, 2);
    mem_st16(f->cpu, SEG_DS, LIN + 0x30, 3);
    assert_int_equal(f->code_count, 2);
    assert_int_equal(f->code[0].gpa, GPA0 + 0x20);
    assert_int_equal(f->code[0].len, 4);
    assert_int_equal(f->code[1].len, 2);
    f->code_keeps_flag = false;
    mem_st32(f->cpu, SEG_DS, LIN + 0x20, 4);
    assert_int_equal(f->code_count, 3);
    assert_non_null(mem_fast_wr(f->cpu, LIN + 0x10, 4)); /* the code is gone: fast again */
    assert_int_equal(mem_ld32(f->cpu, SEG_DS, LIN + 0x20), 4);
    /* All mappings of a page lose the fast path, and a page that is filled while it has code never gets it.
     */
    fx_map(f, 0x440000, GPA0, P | W);
    mem_st8(f->cpu, SEG_DS, 0x440000, 1);
    set_code(f, GPA0);
    assert_null(mem_fast_wr(f->cpu, 0x440000, 1));
    assert_null(mem_fast_wr(f->cpu, LIN, 1));
    mmu_flush_all(f->cpu);
    f->code_keeps_flag = true;
    mem_st8(f->cpu, SEG_DS, 0x440000, 1);
    assert_int_equal(f->code_count, 4);
    assert_null(mem_fast_wr(f->cpu, 0x440000, 1));
    fx_destroy(f);
}

static void test_code_crossing(void **state)
{
    struct fx *f = mem_fixture();
    set_code(f, GPA1);
    mem_st64(f->cpu, SEG_DS, LIN + 0xffe, 0x1122334455667788);
    assert_int_equal(f->code_count, 1);
    assert_int_equal(f->code[0].gpa, GPA1);
    assert_int_equal(f->code[0].len, 6);
    assert_true(f->code[0].exclusive); /* both parts while nobody can decode in between */
    assert_int_equal(f->exclusive, 0);
    assert_int_equal(mem_ld64(f->cpu, SEG_DS, LIN + 0xffe), 0x1122334455667788);
    set_code(f, GPA0); /* the first page only */
    mem_st16(f->cpu, SEG_DS, LIN + 0xfff, 0xaabb);
    assert_int_equal(f->code_count, 2);
    assert_int_equal(f->code[1].gpa, GPA0 + 0xfff);
    assert_true(f->code[1].exclusive);
    f->code_count = 1;
    /* Views into it: direct in one page, bounced across two. */
    set_code(f, GPA_T);
    uint8_t *v = mem_view_w(f->cpu, SEG_DS, TWIN + 0x40, 16);
    assert_int_equal(f->code_count, 2);
    assert_ptr_equal(v, ram_borrow(&f->ram, GPA_T + 0x40, 16));
    set_code(f, GPA_T);
    v = mem_view_w(f->cpu, SEG_DS, TWIN + 0xff8, 16);
    assert_ptr_not_equal(v, ram_borrow(&f->ram, GPA_T + 0xff8, 16));
    memset(v, 9, 16);
    assert_int_equal(f->code_count, 2);
    mem_commit(f->cpu);
    assert_int_equal(f->code_count, 3);
    assert_int_equal(fx_get(f, GPA_T + 0x1000), 0x0909090909090909);
    fx_destroy(f);
}

static void test_dirty_log(void **state)
{
    struct fx *f = mem_fixture();
    uint8_t bitmap[512];
    mem_st8(f->cpu, SEG_DS, LIN, 1);
    mem_st8(f->cpu, SEG_DS, LIN + 0x1000,
            1); /* all of them once, so that no dirty bit in the page tables is set below */
    mem_st8(f->cpu, SEG_DS, TWIN, 1);
    mem_st8(f->cpu, SEG_DS, TWIN + 0x1000, 1);
    ram_dirty_log(&f->ram, true);
    mmu_protect(f->cpu, ~0ULL);
    assert_null(mem_fast_wr(f->cpu, LIN, 1));
    mem_st8(f->cpu, SEG_DS, LIN, 2);
    assert_non_null(mem_fast_wr(f->cpu, LIN, 1)); /* dirty now */
    assert_null(mem_fast_wr(f->cpu, TWIN, 1));
    assert_int_equal(ram_dirty_collect(&f->ram, 0, bitmap, sizeof(bitmap)), 1);
    assert_int_equal(bitmap[(GPA0 >> 12) / 8], 1 << (GPA0 >> 12) % 8);
    mmu_protect(f->cpu, ~0ULL);
    /* Views, and both pages of a crossing. */
    memset(mem_view_w(f->cpu, SEG_DS, LIN + 0xff0, 32), 1, 32);
    mem_commit(f->cpu);
    memset(mem_view_w(f->cpu, SEG_DS, TWIN + 0xff0, 32), 1, 32);
    mem_commit(f->cpu);
    assert_int_equal(ram_dirty_collect(&f->ram, 0, bitmap, sizeof(bitmap)), 4);
    fx_destroy(f);
}

/* A page as it was, by a still that goes on. */
static uint64_t was(struct fx *f, uint64_t gpa)
{
    uint8_t page[PAGE_SIZE];
    uint64_t v;
    assert_int_equal(ram_still_read(&f->ram, &f->ram.slot[0], PAGE_BASE(gpa), PAGE_SIZE, page), 0);
    memcpy(&v, page + PAGE_OFFSET(gpa), sizeof(v));
    return v;
}

/* Every way of storing keeps the page first; so do pages with code, and while the dirty log is on. */
static void test_still(void **state)
{
    struct fx *f = mem_fixture();
    uint8_t bitmap[512];
    mem_st(f->cpu, SEG_DS, LIN, 1, 8);
    mem_st(f->cpu, SEG_DS, LIN + 0x1000, 2, 8);
    mem_st(f->cpu, SEG_DS, TWIN, 3, 8);
    mem_st(f->cpu, SEG_DS, TWIN + 0x1000, 4, 8);
    assert_non_null(mem_fast_wr(f->cpu, LIN, 1));
    ram_dirty_log(&f->ram, true);
    set_code(f, GPA0);
    assert_int_equal(ram_still_begin(&f->ram), 0);
    mmu_protect(f->cpu, ~0ULL);
    assert_null(mem_fast_wr(f->cpu, LIN, 1));
    mem_st(f->cpu, SEG_DS, LIN, 11, 8);
    assert_int_equal(f->code_count, 1);
    assert_non_null(mem_fast_wr(f->cpu, LIN, 1)); /* kept, dirty and without code */
    assert_int_equal(ram_dirty_collect(&f->ram, 0, bitmap, sizeof(bitmap)), 1);
    mmu_protect(f->cpu, ~0ULL);
    mem_st(f->cpu, SEG_DS, LIN, 12, 8); /* dirty again, kept already */
    assert_int_equal(ram_dirty_collect(&f->ram, 0, bitmap, sizeof(bitmap)), 1);
    mmu_protect(f->cpu, ~0ULL);
    memset(mem_view_w(f->cpu, SEG_DS, TWIN + 0xff0, 32), 9, 32); /* a crossing, by a buffer or not */
    mem_commit(f->cpu);
    ram_dirty_log(&f->ram, false);
    assert_null(mem_fast_wr(f->cpu, LIN + 0x1000, 1));
    memset(mem_view_rmw(f->cpu, SEG_DS, LIN + 0x1000, 8, true), 9, 8);
    assert_non_null(mem_fast_wr(f->cpu, LIN + 0x1000, 1));
    assert_int_equal(was(f, GPA0), 1);
    assert_int_equal(was(f, GPA1), 2);
    assert_int_equal(was(f, GPA_T), 3);
    assert_int_equal(was(f, GPA_T + 0x1000), 4);
    assert_int_equal(fx_get(f, GPA0), 12);
    ram_still_end(&f->ram);
    fx_destroy(f);
}

/* What the reader has, nobody needs to keep; when the still has ended, nobody keeps anything. */
static void test_still_read(void **state)
{
    struct fx *f = mem_fixture();
    mem_st(f->cpu, SEG_DS, LIN, 1, 8);
    mem_st(f->cpu, SEG_DS, TWIN, 3, 8);
    assert_int_equal(ram_still_begin(&f->ram), 0);
    mmu_protect(f->cpu, ~0ULL);
    assert_int_equal(was(f, GPA0), 1);
    mem_st(f->cpu, SEG_DS, LIN, 2, 8);
    assert_non_null(mem_fast_wr(f->cpu, LIN, 1));
    ram_still_end(&f->ram);
    mem_st(f->cpu, SEG_DS, TWIN, 4, 8);
    assert_non_null(mem_fast_wr(f->cpu, TWIN, 1));
    fx_destroy(f);
}

/* --- views --- */

static void test_views_direct(void **state)
{
    struct fx *f = mem_fixture();
    assert_ptr_equal(mem_view_r(f->cpu, SEG_DS, LIN + 8, 64), ram_borrow(&f->ram, GPA0 + 8, 64));
    assert_ptr_equal(mem_view_w(f->cpu, SEG_DS, LIN + 0xfc0, 64), ram_borrow(&f->ram, GPA0 + 0xfc0, 64));
    assert_ptr_equal(mem_view_rmw(f->cpu, SEG_DS, LIN + 8, 16, true), ram_borrow(&f->ram, GPA0 + 8, 16));
    /* Neighbours in linear and physical memory: direct, also locked. */
    assert_ptr_equal(mem_view_rmw(f->cpu, SEG_DS, TWIN + 0xffc, 8, true),
                     ram_borrow(&f->ram, GPA_T + 0xffc, 8));
    assert_int_equal(f->exclusive_max, 0);
    assert_false(f->cpu->view.write);
    fx_destroy(f);
}

static void test_views_bounced(void **state)
{
    struct fx *f = mem_fixture();
    const uint8_t *r = mem_view_r(f->cpu, SEG_DS, LIN + 0xff8, 16);
    for (unsigned n = 0; n < 16; n++)
        assert_int_equal(r[n], n);
    uint8_t *w = mem_view_rmw(f->cpu, SEG_DS, LIN + 0xffc, 8, true);
    assert_int_equal(f->exclusive, 1);
    assert_int_equal(ld_le64(w), 0x0b0a090807060504);
    st_le64(w, ~0ULL);
    assert_int_equal(fx_get(f, GPA1), 0x0f0e0d0c0b0a0908);
    mem_commit(f->cpu);
    assert_int_equal(f->exclusive, 0);
    assert_int_equal(fx_get(f, GPA1), 0x0f0e0d0cffffffff);
    assert_int_equal(fx_get(f, GPA0 + 0xff8), 0xffffffff03020100);
    /* Not locked: nobody is stopped. A fault after opening leaves memory alone. */
    f->exclusive_max = 0;
    w = mem_view_rmw(f->cpu, SEG_DS, LIN + 0xffc, 8, false);
    st_le64(w, 0);
    if (!CATCH(f))
        cpu_raise(f->cpu, VEC_GP, 0);
    mem_commit(f->cpu);
    assert_int_equal(f->exclusive_max, 0);
    assert_int_equal(fx_get(f, GPA1), 0x0f0e0d0cffffffff);
    fx_destroy(f);
}

/* A read-modify-write view needs both rights, and its fault is that of a write. */
static void test_views_rights(void **state)
{
    struct fx *f = mem_fixture();
    fx_map(f, 0x450000, GPA0, P | U);
    assert_int_equal(mem_ld8(f->cpu, SEG_DS, 0x450000), 0);
    ASSERT_RAISES(f, VEC_PF, PF_P | PF_W, mem_view_rmw(f->cpu, SEG_DS, 0x450000, 4, true));
    ASSERT_RAISES(f, VEC_PF, PF_P | PF_W, mem_view_w(f->cpu, SEG_DS, 0x450000, 4));
    assert_int_equal(f->exclusive, 0);
    ASSERT_CALM(f, mem_probe(f->cpu, SEG_DS, 0x450000, 64, ACC_READ));
    ASSERT_RAISES(f, VEC_PF, PF_P | PF_W, mem_probe(f->cpu, SEG_DS, 0x450000, 64, ACC_WRITE));
    fx_destroy(f);
}

/* --- addresses --- */

static void test_canonical(void **state)
{
    struct fx *f = mem_fixture();
    ASSERT_RAISES(f, VEC_GP, 0, mem_ld8(f->cpu, SEG_DS, 1ULL << 47));
    ASSERT_RAISES(f, VEC_SS, 0, mem_st64(f->cpu, SEG_SS, 0x8000000000000000ULL, 0));
    ASSERT_RAISES(f, VEC_GP, 0, mem_ld64(f->cpu, SEG_DS, 0x00007ffffffffffcULL)); /* its end */
    ASSERT_RAISES(f, VEC_PF, 0, mem_ld64(f->cpu, SEG_DS, 0x00007ffffffffff8ULL));
    ASSERT_RAISES(f, VEC_PF, 0, mem_ld64(f->cpu, SEG_DS, 0xffff800000000000ULL));
    ASSERT_RAISES(f, VEC_GP, 0, mem_view_r(f->cpu, SEG_ES, 0x0001000000000000ULL, 64));
    fx_destroy(f);
}

/* 32-bit linear addresses wrap around at 4 GiB; paging off here. */
static void test_wrap(void **state)
{
    struct fx *f = fx_create(1, NULL);
    f->cpu->seg[SEG_CS].attr |= ATTR_DB;
    cpu_update_mode(f->cpu);
    fx_put(f, 0xfffffff8, 0xaabbccddeeff0011);
    fx_put(f, 0, 0x1122334455667788);
    assert_int_equal(mem_ld32(f->cpu, SEG_DS, 0xfffffffe), 0x7788aabb);
    mem_st32(f->cpu, SEG_DS, 0xfffffffe, 0x99887766); /* the ROM's half is dropped */
    assert_int_equal(fx_get(f, 0), 0x1122334455669988);
    fx_destroy(f);
}

/* --- alignment checks --- */

static void test_alignment(void **state)
{
    struct fx *f = mem_fixture();
    f->cpu->cr0 |= CR0_AM;
    fx_set_cpl(f, 3);
    assert_int_equal(mem_ld32(f->cpu, SEG_DS, LIN + 1), 0);
    cpu_set_rflags(f->cpu, FL_AC);
    ASSERT_RAISES(f, VEC_AC, 0, mem_ld32(f->cpu, SEG_DS, LIN + 1));
    ASSERT_RAISES(f, VEC_AC, 0, mem_st16(f->cpu, SEG_DS, LIN + 1, 1));
    ASSERT_RAISES(f, VEC_AC, 0, mem_ld64(f->cpu, SEG_DS, LIN + 4));
    f->cpuid.vendor = VENDOR_AMD;
    ASSERT_RAISES(f, VEC_AC, 0, mem_view_r(f->cpu, SEG_DS, LIN + 8, 16));
    f->cpuid.vendor = VENDOR_INTEL; /* checks no unaligned vectors */
    ASSERT_CALM(f, mem_view_r(f->cpu, SEG_DS, LIN + 8, 16));
    ASSERT_RAISES(f, VEC_AC, 0, mem_ld32(f->cpu, SEG_DS, LIN + 0x2001)); /* page faults come later */
    ASSERT_CALM(f, mem_ld32(f->cpu, SEG_DS, LIN + 4));
    ASSERT_CALM(f, mem_st8(f->cpu, SEG_DS, LIN + 3, 1));
    ASSERT_CALM(f, mem_view_r(f->cpu, SEG_DS, LIN + 8, 10));
    /* What the CPU itself does at CPL 0 is not checked, nor is CPL 0. */
    ASSERT_CALM(f, mem_sys_ld(f->cpu, LIN + 1, 4));
    ASSERT_CALM(f, mem_st_idx(f->cpu, MMU_SUP, SEG_SS, LIN + 1, 0, 8));
    ASSERT_RAISES(f, VEC_AC, 0, mem_ld_idx(f->cpu, MMU_USER, SEG_SS, LIN + 1, 4));
    fx_set_cpl(f, 0);
    ASSERT_CALM(f, mem_ld32(f->cpu, SEG_DS, LIN + 1));
    fx_set_cpl(f, 3);
    ASSERT_RAISES(f, VEC_AC, 0, mem_ld32(f->cpu, SEG_DS, LIN + 1));
    cpu_set_rflags(f->cpu, 0);
    ASSERT_CALM(f, mem_ld32(f->cpu, SEG_DS, LIN + 1));
    fx_destroy(f);
}

/* --- data breakpoints --- */

static void test_breakpoints(void **state)
{
    struct fx *f = mem_fixture();
    mem_st32(f->cpu, SEG_DS, LIN + 0x100, 0);
    f->cpu->dr[1] = LIN + 0x104;
    f->cpu->dr[7] = 0x400 | 1 << 2 | 1u << 20 | 3u << 22; /* L1, write, 4 bytes */
    cpu_update_mode(f->cpu);
    assert_true(f->cpu->data_bp);
    mem_st32(f->cpu, SEG_DS, LIN + 0x100, 0);
    mem_ld32(f->cpu, SEG_DS, LIN + 0x104);
    assert_int_equal(f->cpu->pending_db & 15, 0);
    mem_probe(f->cpu, SEG_DS, LIN + 0x104, 4, ACC_WRITE);
    assert_int_equal(f->cpu->pending_db & 15, 0);
    mem_st8(f->cpu, SEG_DS, LIN + 0x107, 0);
    assert_int_equal(f->cpu->pending_db & 15, 2);
    f->cpu->pending_db = 0;
    mem_view_rmw(f->cpu, SEG_DS, LIN + 0x100, 8, true);
    mem_commit(f->cpu);
    assert_int_equal(f->cpu->pending_db & 15, 2);
    /* Other pages keep the fast path. */
    mem_st8(f->cpu, SEG_DS, TWIN, 0);
    assert_non_null(mem_fast_wr(f->cpu, TWIN, 1));
    assert_null(mem_fast_wr(f->cpu, LIN, 1));
    f->cpu->dr[7] = 0x400;
    cpu_update_mode(f->cpu);
    mem_st8(f->cpu, SEG_DS, LIN, 0);
    assert_non_null(mem_fast_wr(f->cpu, LIN, 1));
    fx_destroy(f);
}

/* --- the local APIC's page --- */

static void test_apic_page(void **state)
{
    struct fx *f = mem_fixture();
    fx_map(f, 0x460000, LAPIC_GPA, P | W);
    fx_map(f, 0x461000, GPA0, P | W);
    assert_int_equal(mem_ld32(f->cpu, SEG_DS, 0x460030) & 0xff, 0x14);
    mem_st32(f->cpu, SEG_DS, 0x460080, 0x50);
    assert_int_equal(f->cpu->cr8, 5);
    assert_int_equal(f->mmio_count, 0);
    /* Moved over RAM: it wins there, and its old place is the bus's. */
    loop_lock(&f->loop);
    assert_true(lapic_base_write(f->cpu->lapic, GPA0 | APIC_BASE_EN | APIC_BASE_BSP));
    loop_unlock(&f->loop);
    assert_int_equal(mem_ld32(f->cpu, SEG_DS, 0x461080), 0x50);
    assert_int_equal(mem_ld32(f->cpu, SEG_DS, LIN + 0x80), 0x50);
    mem_ld32(f->cpu, SEG_DS, 0x460080);
    assert_int_equal(f->mmio_count, 1);
    /* x2APIC mode has no page. */
    loop_lock(&f->loop);
    assert_true(lapic_base_write(f->cpu->lapic, GPA0 | APIC_BASE_EN | APIC_BASE_X2 | APIC_BASE_BSP));
    loop_unlock(&f->loop);
    assert_int_equal(mem_ld32(f->cpu, SEG_DS, 0x461080), 0);
    fx_destroy(f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_crossing),      cmocka_unit_test(test_crossing_fault),
        cmocka_unit_test(test_mmio),          cmocka_unit_test(test_mmio_views),
        cmocka_unit_test(test_rom),           cmocka_unit_test(test_code_page),
        cmocka_unit_test(test_code_crossing), cmocka_unit_test(test_dirty_log),
        cmocka_unit_test(test_still), cmocka_unit_test(test_still_read),
        cmocka_unit_test(test_views_direct),  cmocka_unit_test(test_views_bounced),
        cmocka_unit_test(test_views_rights),  cmocka_unit_test(test_canonical),
        cmocka_unit_test(test_wrap),          cmocka_unit_test(test_alignment),
        cmocka_unit_test(test_breakpoints),   cmocka_unit_test(test_apic_page),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
