/* Odd pages in a runner (engine/direct/space.h): they run, with breakpoints at the instructions that would show the host's CPU, as long as there are enough of them.
 * The oracle is the host's CPU, and its debug registers as ptrace(2) shows them. */
#include "x86_fixture.h"

#include <errno.h>
#include <signal.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <unistd.h>

#include "base/bits.h"
#include "engine/direct/odd.h"
#include "engine/direct/space.h"
#include "ram/share.h"
#include "x86/mmu.h"

#define PAGE_BYTES 4096u
#define CODE  0x40000000ULL /* a page each, 32 pages apart: no neighbours */
#define APART 0x20000ULL
#define GPA   0x100000ULL
#define PTE   0x25ULL /* present, user, accessed */
#define LSL   "\x0f\x03\xc1"
#define CPUID "\x0f\xa2"
#define RDPID "\xf3\x0f\xc7\xf8"
#define INT3  "\xcc"

static struct {
    struct fx *fx;
    struct runners all;
    struct space space;
    struct space_rules rules;
} f;

static int setup(void **state)
{
    int files[RUNNER_FILES];
    uint64_t off;

    f.fx = fx_create(1, NULL);
    fx_long_mode(f.fx, 3);
    for (unsigned n = 0; n < RUNNER_FILES; n++)
        files[n] = n < f.fx->ram.nslots ? ram_shared_fd(&f.fx->ram.slot[n], &off) : -1;
    int r = runners_init(&f.all, files);
    if (r == -EPERM || r == -ENOSYS) {
        print_message("this host lets nobody be traced\n");
        skip();
    }
    assert_int_equal(r, 0);
    runner_thread(&f.all);
    f.rules = (struct space_rules){ .cpuid = true };
    assert_int_equal(space_init(&f.space, &f.all, &f.fx->ram), 0);
    f.space.cr3 = f.fx->cpu->cr3;
    return 0;
}

static int teardown(void **state)
{
    space_fini(&f.space);
    runners_fini(&f.all);
    fx_destroy(f.fx);
    return 0;
}

static uint64_t lin_of(unsigned n) { return CODE + n * APART; }
static uint64_t gpa_of(unsigned n) { return GPA + n * PAGE_BYTES; }

/* Page n is NOPs with that code at its beginning. */
static void page(unsigned n, const char *code, size_t len)
{
    uint8_t bytes[PAGE_BYTES];

    memset(bytes, 0x90, sizeof(bytes));
    memcpy(bytes, code, len);
    assert_int_equal(ram_load(&f.fx->ram, gpa_of(n), bytes, sizeof(bytes)), 0);
    fx_map(f.fx, lin_of(n), gpa_of(n), PTE);
}
#define PAGE(n, code) page(n, code, sizeof(code) - 1)

/* Run from rip on, mapping what it asks for. Where it stopped; *why: the signal and its code, or SPACE_*. */
enum { STOP_BREAK = SIGTRAP << 8 | TRAP_HWBKPT, STOP_INT3 = SIGTRAP << 8 | (SI_KERNEL & 0xff), STOP_ODD = -1, STOP_REAL = -2, STOP_NEVER = -3 };
static uint64_t run(uint64_t rip, int *why)
{
    struct user_regs_struct regs = { .rip = rip, .cs = 0x33, .ss = 0x2b, .eflags = 0x202 };
    struct runner_stop stop;

    for (unsigned n = 0; n < 100; n++) {
        space_settle(&f.space, f.fx->cpu, &f.rules);
        assert_int_equal(runner_run(&f.space.runner, &regs, &stop), 0);
        *why = stop.signal << 8 | (stop.info.si_code & 0xff);
        if (stop.signal != SIGSEGV || stop.info.si_code == SI_KERNEL)
            return regs.rip;
        uint64_t lin = (uintptr_t)stop.info.si_addr;
        enum space_fault e = space_fault(&f.space, f.fx->cpu, &f.rules, lin, regs.rip);
        if (e == SPACE_MAPPED || (e == SPACE_ODD && space_break(&f.space, f.fx->cpu, &f.rules, lin)))
            continue;
        *why = e == SPACE_ODD ? STOP_ODD : STOP_REAL;
        return regs.rip;
    }
    *why = STOP_NEVER;
    return regs.rip;
}

#define RUNS(rip, to, cause)                     \
    do {                                         \
        int why_;                                \
        assert_int_equal(run(rip, &why_), to);   \
        assert_int_equal(why_, cause);           \
    } while (0)

/* Breakpoints that are enabled, by the kernel's word. */
static unsigned enabled(void)
{
    return (unsigned)ptrace(PTRACE_PEEKUSER, f.space.runner.pid, offsetof(struct user, u_debugreg[7]), 0) & 0xff;
}

static void test_odd_instructions_stop_in_front(void **state)
{
    PAGE(0, "\x90" LSL "\x90" CPUID "\x90" RDPID INT3);
    RUNS(lin_of(0), lin_of(0) + 1, STOP_BREAK);
    RUNS(lin_of(0) + 4, lin_of(0) + 5, STOP_BREAK);
    RUNS(lin_of(0) + 7, lin_of(0) + 8, STOP_BREAK); /* with its prefix */
    RUNS(lin_of(0) + 12, lin_of(0) + 13, STOP_INT3);
    assert_int_equal(enabled(), 0x15);
}

/* The fetch that faulted left RF in the flags. */
static void test_who_enters_at_an_odd_instruction_stops_too(void **state)
{
    PAGE(0, CPUID INT3);
    RUNS(lin_of(0), lin_of(0), STOP_BREAK);
    RUNS(lin_of(0), lin_of(0), STOP_BREAK);
}

static void test_plain_pages_and_neighbours_set_none(void **state)
{
    PAGE(0, "\x90\x90" INT3);
    PAGE(1, CPUID);
    fx_map(f.fx, lin_of(0) + PAGE_BYTES, gpa_of(1), PTE);
    RUNS(lin_of(0), lin_of(0) + 3, STOP_INT3);
    assert_int_equal(enabled(), 0);
    RUNS(lin_of(0) + PAGE_BYTES, lin_of(0) + PAGE_BYTES, STOP_BREAK);
    assert_int_equal(enabled(), 1);
    RUNS(lin_of(0), lin_of(0) + 3, STOP_INT3);
}

static void test_five_are_too_many(void **state)
{
    PAGE(0, LSL CPUID LSL CPUID INT3);
    PAGE(1, LSL CPUID LSL CPUID LSL INT3);
    RUNS(lin_of(1) + 100, lin_of(1) + 100, STOP_ODD);
    assert_int_equal(enabled(), 0);
    RUNS(lin_of(0), lin_of(0), STOP_BREAK);
    assert_int_equal(enabled(), 0x55);
}

/* One physical page at two addresses. */
static void test_aliases_have_their_own(void **state)
{
    PAGE(0, LSL CPUID INT3);
    fx_map(f.fx, lin_of(1), gpa_of(0), PTE);
    RUNS(lin_of(0), lin_of(0), STOP_BREAK);
    assert_int_equal(enabled(), 5);
    RUNS(lin_of(1), lin_of(1), STOP_BREAK);
    RUNS(lin_of(1) + 3, lin_of(1) + 3, STOP_BREAK);
    assert_int_equal(enabled(), 0x55);
    space_changed(&f.space, gpa_of(0));
    RUNS(lin_of(5), lin_of(5), STOP_REAL);
    assert_int_equal(enabled(), 0);
}

/* What is unmapped, by whichever way, gives them back. */
static void test_pages_give_them_back(void **state)
{
    for (unsigned way = 0; way < 5; way++) {
        const struct tlb_flush one = { .kind = TLB_FLUSH_PAGE, .lin = lin_of(0), .size = PAGE_BYTES }, all = { .kind = TLB_FLUSH_ALL };
        PAGE(0, LSL CPUID LSL CPUID INT3);
        PAGE(1, CPUID INT3);
        RUNS(lin_of(0), lin_of(0), STOP_BREAK);
        RUNS(lin_of(1) + 9, lin_of(1) + 9, STOP_ODD);
        fx_map(f.fx, lin_of(0), gpa_of(2), 0);
        switch (way) {
        case 0: space_flush(&f.space, &one); break;
        case 1: space_flush(&f.space, &all); break;
        case 2: space_changed(&f.space, gpa_of(0)); break;
        case 3: space_changed(&f.space, ~0ULL); break;
        default: space_protect(&f.space, ~0ULL); break;
        }
        RUNS(lin_of(0), lin_of(0), STOP_REAL);
        assert_int_equal(enabled(), 0);
        RUNS(lin_of(1), lin_of(1), STOP_BREAK);
        space_protect(&f.space, ~0ULL);
    }
}

static void test_changed_code_is_looked_at_again(void **state)
{
    PAGE(0, CPUID INT3);
    RUNS(lin_of(0), lin_of(0), STOP_BREAK);
    space_changed(&f.space, gpa_of(0));
    PAGE(0, "\x90" INT3);
    RUNS(lin_of(0), lin_of(0) + 2, STOP_INT3);
    assert_int_equal(enabled(), 0);
    space_flush(&f.space, &(struct tlb_flush){ .kind = TLB_FLUSH_PAGE, .lin = lin_of(0), .size = PAGE_BYTES });
    PAGE(0, "\x90" LSL INT3);
    RUNS(lin_of(0), lin_of(0) + 1, STOP_BREAK);
}

/* All in use by pages that nobody needs any more: not for ever. */
static void test_those_that_wait_get_them_at_last(void **state)
{
    int why = STOP_ODD;

    PAGE(0, LSL CPUID LSL CPUID INT3);
    PAGE(1, LSL CPUID INT3);
    RUNS(lin_of(0), lin_of(0), STOP_BREAK);
    for (unsigned n = 0; n < 50 && why == STOP_ODD; n++)
        run(lin_of(1) + 9, &why);
    assert_int_not_equal(why, STOP_ODD);
    RUNS(lin_of(1), lin_of(1), STOP_BREAK);
    RUNS(lin_of(1) + 3, lin_of(1) + 3, STOP_BREAK);
    assert_int_equal(enabled(), 5);
}

static unsigned copies(void)
{
    unsigned n = 0;

    for (unsigned k = 0; k < ARRAY_LEN(f.all.copied); k++)
        n += (unsigned)__builtin_popcountll(f.all.copied[k]);
    return n;
}

/* More than there are breakpoints, and the code that runs leads there: by going on, and by branches both ways. */
static void test_a_copy_stops_where_code_leads(void **state)
{
    static const char code[] = LSL CPUID "\x75\x02\xeb\x03" LSL "\x90\xeb\x01\x90" CPUID LSL INT3; /* ...; jne 9; jmp 12; 9: lsl; nop; 13: jmp 16; nop; 16: ... */
    const uint8_t *guest;

    PAGE(0, code);
    guest = ram_borrow(&f.fx->ram, gpa_of(0), PAGE_BYTES);
    RUNS(lin_of(0), lin_of(0) + 1, STOP_INT3);
    assert_int_equal(copies(), 1);
    assert_int_equal(enabled(), 0);
    RUNS(lin_of(0) + 3, lin_of(0) + 4, STOP_INT3);
    RUNS(lin_of(0) + 5, lin_of(0) + 10, STOP_INT3);
    RUNS(lin_of(0) + 12, lin_of(0) + 17, STOP_INT3);
    RUNS(lin_of(0) + 18, lin_of(0) + 19, STOP_INT3);
    RUNS(lin_of(0) + 21, lin_of(0) + 22, STOP_INT3); /* the guest's own */
    assert_memory_equal(guest, code, sizeof(code) - 1);
    space_protect(&f.space, ~0ULL);
    assert_int_equal(copies(), 0);
}

/* Bytes that only look like an instruction, so far, keep their values. */
static void test_a_copy_has_only_what_is_certain(void **state)
{
    static const char code[] = LSL CPUID LSL CPUID INT3 CPUID INT3;

    PAGE(0, code);
    RUNS(lin_of(0), lin_of(0) + 1, STOP_INT3);
    RUNS(lin_of(0) + 11, lin_of(0) + 11, STOP_BREAK);
    assert_int_equal(enabled(), 1);
    space_protect(&f.space, ~0ULL);
    odd_note(ram_borrow(&f.fx->ram, gpa_of(0), PAGE_BYTES), 11); /* it has run there */
    RUNS(lin_of(0), lin_of(0) + 1, STOP_INT3);
    RUNS(lin_of(0) + 11, lin_of(0) + 12, STOP_INT3);
    assert_int_equal(enabled(), 0);
}

/* What stood in the page when it was copied is not run once it has changed. */
static void test_a_copy_goes_with_its_page(void **state)
{
    PAGE(0, LSL CPUID LSL CPUID LSL INT3);
    RUNS(lin_of(0), lin_of(0) + 1, STOP_INT3);
    space_changed(&f.space, gpa_of(0));
    assert_int_equal(copies(), 0);
    PAGE(0, "\x90" LSL CPUID LSL CPUID LSL INT3);
    RUNS(lin_of(0), lin_of(0) + 2, STOP_INT3);
    fx_map(f.fx, lin_of(0), gpa_of(2), 0);
    space_flush(&f.space, &(struct tlb_flush){ .kind = TLB_FLUSH_PAGE, .lin = lin_of(0), .size = PAGE_BYTES });
    RUNS(lin_of(0), lin_of(0), STOP_REAL);
    assert_int_equal(copies(), 0);
}

static void test_copies_have_an_end(void **state)
{
    PAGE(0, LSL CPUID LSL CPUID LSL INT3);
    for (unsigned n = 0; n < RUNNER_COPIES_MAX; n++) {
        fx_map(f.fx, lin_of(n), gpa_of(0), PTE);
        RUNS(lin_of(n), lin_of(n) + 1, STOP_INT3);
    }
    assert_int_equal(copies(), RUNNER_COPIES_MAX);
    fx_map(f.fx, lin_of(RUNNER_COPIES_MAX), gpa_of(0), PTE);
    RUNS(lin_of(RUNNER_COPIES_MAX), lin_of(RUNNER_COPIES_MAX), STOP_ODD);
    space_flush(&f.space, &(struct tlb_flush){ .kind = TLB_FLUSH_PAGE, .lin = lin_of(3), .size = PAGE_BYTES });
    RUNS(lin_of(RUNNER_COPIES_MAX), lin_of(RUNNER_COPIES_MAX) + 1, STOP_INT3);
}

/* A neighbour that was taken for odd, as nobody knew how it begins, until the page before it was used. */
static void test_an_odd_page_may_turn_out_plain(void **state)
{
    uint64_t lin = lin_of(0);
    uint8_t before[PAGE_BYTES];

    memset(before, 0x90, sizeof(before));
    memcpy(before + PAGE_BYTES - 2, "\xb9\x90", 2); /* mov $0xa20f90,%ecx across both */
    assert_int_equal(ram_load(&f.fx->ram, gpa_of(0), before, sizeof(before)), 0);
    PAGE(1, "\x0f\xa2\x00" INT3);
    PAGE(2, INT3);
    fx_map(f.fx, lin, gpa_of(0), PTE & ~0x20ULL); /* not accessed yet */
    fx_map(f.fx, lin + PAGE_BYTES, gpa_of(1), PTE);
    fx_map(f.fx, lin + 2 * PAGE_BYTES, gpa_of(2), PTE);
    RUNS(lin + 2 * PAGE_BYTES, lin + 2 * PAGE_BYTES + 1, STOP_INT3);
    fx_map(f.fx, lin, gpa_of(0), PTE);
    RUNS(lin + PAGE_BYTES - 2, lin + PAGE_BYTES + 4, STOP_INT3);
    assert_int_equal(enabled(), 0);
}

/* Stores are the interpreter's: the page is mapped, and not for them. */
static void test_stores_to_an_odd_page_are_seen(void **state)
{
    PAGE(0, CPUID "\x88\x05\xfa\x01\x00\x00" INT3); /* mov %al,CODE+0x202 */
    fx_map(f.fx, lin_of(0), gpa_of(0), PTE | 0x42); /* dirty, writable */
    atomic_fetch_or(ram_page_flags(&f.fx->ram, gpa_of(0)), PAGE_CODE);
    RUNS(lin_of(0), lin_of(0), STOP_BREAK);
    RUNS(lin_of(0) + 2, lin_of(0) + 2, STOP_REAL);
    atomic_fetch_and(ram_page_flags(&f.fx->ram, gpa_of(0)), (uint8_t)~PAGE_CODE);
    space_changed(&f.space, gpa_of(0));
    RUNS(lin_of(0) + 2, lin_of(0) + 2, STOP_ODD); /* nobody would be told of a store */
}

/* Code that may be written to runs only where stores are told of, and after one it is looked at again. */
static void test_writable_code_is_looked_at_again(void **state)
{
    PAGE(0, "\x90" INT3);
    fx_map(f.fx, lin_of(0), gpa_of(0), PTE | 0x42);
    RUNS(lin_of(0), lin_of(0), STOP_ODD);
    atomic_fetch_or(ram_page_flags(&f.fx->ram, gpa_of(0)), PAGE_CODE);
    RUNS(lin_of(0), lin_of(0) + 2, STOP_INT3);
    assert_int_equal(enabled(), 0);
    for (unsigned n = 0; n < 2; n++) {
        space_changed(&f.space, n ? ~0ULL : gpa_of(0));
        PAGE(0, "\x90" CPUID INT3);
        fx_map(f.fx, lin_of(0), gpa_of(0), PTE | 0x42);
        RUNS(lin_of(0), lin_of(0) + 1, STOP_BREAK);
    }
}

/* A device's memory is where its BAR is and not at its slot's own address; what moves is asked for anew. */
static void test_a_device_s_memory_is_where_it_is_seen(void **state)
{
    const uint64_t own = 1ULL << 32, elsewhere = 0xe0000000;
    const struct tlb_flush all = { .kind = TLB_FLUSH_ALL };
    struct ram *ram = &f.fx->ram;

    ram_set_device(ram, ram_slot_of(ram, own));
    PAGE(0, "\xa2\x00\x00\x02\x40\x00\x00\x00\x00" INT3); /* mov %al,lin_of(1) */
    PAGE(2, "\xa2\x00\x00\x06\x40\x00\x00\x00\x00" INT3); /* mov %al,lin_of(3) */
    fx_map(f.fx, lin_of(1), own, PTE | 0x42);
    fx_map(f.fx, lin_of(3), elsewhere, PTE | 0x42);
    RUNS(lin_of(0), lin_of(0), STOP_REAL);
    RUNS(lin_of(2), lin_of(2), STOP_REAL);
    atomic_store(&ram->window.at, own);
    space_flush(&f.space, &all);
    RUNS(lin_of(0), lin_of(0) + 10, STOP_INT3);
    RUNS(lin_of(2), lin_of(2), STOP_REAL);
    RUNS(lin_of(1), lin_of(1), STOP_REAL); /* it is not for code */
    atomic_store(&ram->window.at, elsewhere);
    space_flush(&f.space, &all);
    ram_fill(ram, own, 0x77, 1);
    RUNS(lin_of(0), lin_of(0), STOP_REAL);
    assert_int_equal(*(uint8_t *)ram_slot_of(ram, own)->hva, 0x77);
    RUNS(lin_of(2), lin_of(2) + 10, STOP_INT3);
    assert_int_equal(*(uint8_t *)ram_slot_of(ram, own)->hva, 0);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_odd_instructions_stop_in_front),
        TEST(test_who_enters_at_an_odd_instruction_stops_too),
        TEST(test_plain_pages_and_neighbours_set_none),
        TEST(test_five_are_too_many),
        TEST(test_aliases_have_their_own),
        TEST(test_pages_give_them_back),
        TEST(test_changed_code_is_looked_at_again),
        TEST(test_those_that_wait_get_them_at_last),
        TEST(test_a_copy_stops_where_code_leads),
        TEST(test_a_copy_has_only_what_is_certain),
        TEST(test_a_copy_goes_with_its_page),
        TEST(test_copies_have_an_end),
        TEST(test_an_odd_page_may_turn_out_plain),
        TEST(test_stores_to_an_odd_page_are_seen),
        TEST(test_writable_code_is_looked_at_again),
        TEST(test_a_device_s_memory_is_where_it_is_seen),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
