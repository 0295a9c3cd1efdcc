/* One or two vCPUs with memory, a manual clock and recording surroundings, but no engine: for tests of
 * src/x86. A fault that the code under test raises comes back to CATCH(). */
#ifndef VITRO_TESTS_X86_FIXTURE_H
#define VITRO_TESTS_X86_FIXTURE_H

#include "test.h"

#include "base/clock.h"
#include "base/loop.h"
#include "ram/ram.h"
#include "x86/cpu.h"
#include "x86/cpuid.h"
#include "x86/lapic.h"

#define FX_CPUS 4
#define FX_LOG  64

struct fx_access {
    bool write;
    uint64_t gpa, value;
    unsigned size;
};

struct fx {
    struct ram ram;
    struct clock clock;
    struct loop loop;
    struct cpuid_table cpuid;
    struct lapic_bus bus;
    struct cpu_ops ops;
    struct cpu *cpu; /* cpus[0] */
    struct cpu *cpus[FX_CPUS];
    struct lapic lapic[FX_CPUS];
    sigjmp_buf env;

    /* what the surroundings saw */
    struct fx_access mmio[FX_LOG]; /* reads give the low byte of each address, byte by byte */
    unsigned mmio_count;
    struct {
        uint64_t gpa, len;
        bool exclusive;
    } code[FX_LOG];
    unsigned code_count;
    bool code_keeps_flag; /* code_write() leaves PAGE_CODE set */
    unsigned exclusive, exclusive_max, flushed_all, flushed_page, switched, mode_changes;
    struct tlb_flush flush; /* the last one */
    uint64_t protected;     /* the page that was, last */
    uint32_t kicked[FX_CPUS]; /* ATT_* since last looked at */
    uint8_t eoi[FX_LOG];
    unsigned eoi_count;
};

/* model: "host" unless NULL. RAM: 16 MiB at 0, 2 MiB at 4 GiB, 64 KiB of ROM at 0xffff0000. */
struct fx *fx_create(unsigned cpus, const char *model);
void fx_destroy(struct fx *f);

/* False at first; true when something below raised: then f->cpu->event tells what. */
#define CATCH(f) (sigsetjmp((f)->env, 0) != 0)

/* Run statement; it must raise vector with error (-1: none). */
#define ASSERT_RAISES(f, vec, err, statement)                                                                \
    do {                                                                                                     \
        if (!CATCH(f)) {                                                                                     \
            statement;                                                                                       \
            fail_msg("line %d: nothing raised", __LINE__);                                                   \
        }                                                                                                    \
        assert_int_equal((f)->cpu->event.vector, vec);                                                       \
        assert_int_equal((f)->cpu->event.has_error ? (int)(f)->cpu->event.error : -1, err);                  \
    } while (0)

/* Run statement; it must not raise. */
#define ASSERT_CALM(f, statement)                                                                            \
    do {                                                                                                     \
        if (CATCH(f))                                                                                        \
            fail_msg("line %d: raised vector %d error %x", __LINE__, (f)->cpu->event.vector,                 \
                     (f)->cpu->event.error);                                                                 \
        statement;                                                                                           \
    } while (0)

/* 64-bit mode at CPL 0 or 3 with 4-level tables at PML4 0x1000 whose entries the caller writes. */
void fx_long_mode(struct fx *f, unsigned cpl);
void fx_set_cpl(struct fx *f, unsigned cpl);
/* Map a 4 KiB page in the tables of fx_long_mode() (makes the upper levels); flags are PTE bits. */
void fx_map(struct fx *f, uint64_t lin, uint64_t gpa, uint64_t flags);

uint64_t fx_get(struct fx *f, uint64_t gpa);
void fx_put(struct fx *f, uint64_t gpa, uint64_t v);
uint32_t fx_kicked(struct fx *f, unsigned cpu); /* and forget */

#endif
