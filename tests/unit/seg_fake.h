/* A CPU in RAM without a machine, for tests of src/x86 by direct calls: descriptor tables at fixed places,
 * paging off. */
#ifndef VITRO_TESTS_UNIT_SEG_FAKE_H
#define VITRO_TESTS_UNIT_SEG_FAKE_H

#include "base/clock.h"
#include "ram/ram.h"
#include "x86/cpu.h"
#include "x86/cpuid.h"
#include "x86/debug.h"
#include "x86/insn.h"
#include "x86/mem.h"
#include "x86/seg.h"

enum {
    AT_GDT = 0x1000,
    AT_IDT = 0x2000,
    AT_TSS = 0x3000,
    AT_TSS2 = 0x3800,
    AT_TSS16 = 0x3c00,
    AT_LDT = 0x5000,
    AT_STACK0 = 0x8000,
    AT_STACK3 = 0xa000,
    AT_STACK_IST = 0xc000,
    GDT_LIMIT = 0xff,
};

/* Selectors of the fake GDT. */
enum {
    S_CODE0 = 0x08,
    S_DATA0 = 0x10,
    S_CODE3 = 0x1b,
    S_DATA3 = 0x23,
    S_TSS = 0x28,
    S_TSS2 = 0x30,
    S_GATE32 = 0x38,
    S_CONF = 0x40,
    S_ABSENT = 0x48,
    S_EXEC = 0x50,
    S_RDONLY = 0x58,
    S_DOWN = 0x60,
    S_LDT = 0x68,
    S_DATA16 = 0x70,
    S_CODE16 = 0x78,
    S_TASKGATE = 0x80,
    S_GATE16 = 0x88,
    S_TSS16 = 0x90,
    S_TSS_SHORT = 0x98,
    S_CODE64 = 0xa0,
    S_GATE64 = 0xa8 /* and 0xb0 */,
    S_CODE64_3 = 0xbb,
    S_DATA64_3 = 0xc3,
    S_CODE_ABSENT = 0xc8,
};

struct fake {
    struct cpu cpu;
    struct ram ram;
    struct clock clock;
    struct cpuid_table id;
    struct cpu_ops ops;
    sigjmp_buf unwind;
};

/* Vector and error code of what stmt raises in fake f, as vector << 16 | error; -1: nothing. */
#define RAISED(f, stmt)                                                                                      \
    __extension__({                                                                                          \
        volatile int raised_ = -1;                                                                           \
        if (sigsetjmp((f)->unwind, 0) == 0) {                                                                \
            stmt;                                                                                            \
        } else {                                                                                             \
            raised_ = (f)->cpu.event.vector << 16;                                                           \
            if ((f)->cpu.event.has_error)                                                                    \
                raised_ |= (int)(f)->cpu.event.error;                                                        \
        }                                                                                                    \
        raised_;                                                                                             \
    })
#define FAULT(vec, err) ((vec) << 16 | (int)(err))
#define NOTHING         (-1)

/* Protected mode at level cpl, 32-bit flat segments, TR loaded, an IDT of 32-bit interrupt gates to
 * 0x08:0x4000 + vector. */
struct fake *fake_create(unsigned cpl);
void fake_destroy(struct fake *f);
/* Switch an existing fake over. */
void fake_real(struct fake *f);
void fake_v86(struct fake *f, unsigned iopl);
void fake_long(struct fake *f, unsigned cpl);

uint64_t fake_desc(uint32_t base, uint32_t limit, unsigned access, unsigned flags);
void fake_gate(struct fake *f, uint32_t at, uint16_t sel, uint32_t off, unsigned access, unsigned params);
void fake_gate64(struct fake *f, unsigned vector, uint16_t sel, uint64_t off, unsigned access, unsigned ist);
uint64_t fake_ld(struct fake *f, uint64_t gpa, unsigned size);
void fake_st(struct fake *f, uint64_t gpa, uint64_t v, unsigned size);

#endif
