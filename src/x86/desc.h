/* Inside of segmentation: descriptor fields, selectors, and stacks that are not (yet) the current one.
 * For seg.c, far.c, gate.c, ret.c, iret.c, intr.c and task.c; everybody else uses seg.h.
 * Source: SDM vol. 3, 3.4.5, 3.5, 5.8.3 and 6.11. */
#ifndef VITRO_X86_DESC_H
#define VITRO_X86_DESC_H

#include "x86/insn.h"
#include "x86/mem.h"
#include "x86/seg.h"

/* System descriptor types (bits 43:40 with S = 0). */
enum {
    DESC_TSS16 = 1,
    DESC_LDT = 2,
    DESC_TSS16_BUSY = 3,
    DESC_CALL16 = 4,
    DESC_TASK = 5,
    DESC_INT16 = 6,
    DESC_TRAP16 = 7,
    DESC_TSS32 = 9,
    DESC_TSS32_BUSY = 11,
    DESC_CALL32 = 12,
    DESC_INT32 = 14,
    DESC_TRAP32 = 15,
};
#define DESC_BUSY 2u /* of a TSS type */

/* Bits of a code or data descriptor's type. */
#define TYPE_ACCESSED 1u
#define TYPE_RW       2u /* data: writable; code: readable */
#define TYPE_CE       4u /* data: expand-down; code: conforming */
#define TYPE_CODE     8u

static inline unsigned desc_type(uint64_t d) { return (unsigned)bits(d, 43, 40); }
static inline bool desc_s(uint64_t d) { return d >> 44 & 1; }
static inline unsigned desc_dpl(uint64_t d) { return (unsigned)bits(d, 46, 45); }
static inline bool desc_present(uint64_t d) { return d >> 47 & 1; }
static inline bool desc_long(uint64_t d) { return d >> 53 & 1; }
static inline bool desc_big(uint64_t d) { return d >> 54 & 1; }
static inline bool desc_code(uint64_t d) { return desc_s(d) && (desc_type(d) & TYPE_CODE); }
static inline bool desc_conforming(uint64_t d) { return desc_type(d) & TYPE_CE; }
/* Of a data segment: may SS hold it? */
static inline bool desc_stack(uint64_t d)
{
    return desc_s(d) && (desc_type(d) & (TYPE_CODE | TYPE_RW)) == TYPE_RW;
}
/* May DS, ES, FS and GS hold it? */
static inline bool desc_readable(uint64_t d)
{
    return desc_s(d) && (!(desc_type(d) & TYPE_CODE) || (desc_type(d) & TYPE_RW));
}

/* Gates: target selector, the low 32 bits of the offset, parameter count. */
static inline uint16_t gate_sel(uint64_t d) { return (uint16_t)(d >> 16); }
static inline uint32_t gate_off(uint64_t d) { return (uint32_t)((d & 0xffff) | bits(d, 63, 48) << 16); }
static inline unsigned gate_count(uint64_t d) { return (unsigned)bits(d, 36, 32); }

#define SEL_RPL 3u
#define SEL_TI  4u
static inline bool sel_null(uint16_t sel) { return !(sel & ~SEL_RPL); }
/* The selector part of an error code. */
static inline uint32_t sel_err(uint16_t sel) { return sel & ~SEL_RPL; }

static inline unsigned seg_dpl(const struct seg *s) { return (s->attr & ATTR_DPL) >> ATTR_DPL_SHIFT; }
static inline bool seg_code64(const struct cpu *cpu, const struct seg *s)
{
    return cpu->long_mode && (s->attr & ATTR_L);
}

/* Fetch a descriptor; raises vec(sel | ext) outside its table. addr may be NULL. */
uint64_t seg_fetch(struct cpu *cpu, uint16_t sel, unsigned vec, uint32_t ext, uint64_t *addr);
/* Set the accessed bit of a code or data descriptor, in memory and in *desc. */
void seg_mark_accessed(struct cpu *cpu, uint64_t addr, uint64_t *desc);
/* What real and virtual-8086 mode make of a selector. */
void seg_set_real(struct cpu *cpu, struct seg *s, uint16_t sel);
void seg_set_v86(struct seg *s, uint16_t sel);
/* A null selector; its attributes keep the privilege level, for a null SS in 64-bit mode. */
void seg_set_null(struct seg *s, uint16_t sel, unsigned dpl);
/* The checks that a new SS gets when the stack changes with the privilege level to cpl. Null raises null_vec,
 * other faults vec, a not-present one #SS; error codes are the selector | ext. */
uint64_t seg_fetch_ss(struct cpu *cpu, uint16_t sel, unsigned cpl, unsigned vec, uint32_t ext,
                      uint64_t *addr);
/* Null every data segment that the new, outer CPL may not use. */
void seg_drop_inner(struct cpu *cpu, unsigned cpl);

/* A stack in use by a transfer that may still fault: nothing of it is in cpu yet. */
struct stack {
    struct seg ss;
    uint64_t sp, mask;
    enum mmu_index idx;
    bool flat;          /* 64-bit mode: no limit, no base */
    uint32_t fault_err; /* error code of a #SS by limit or a non-canonical address */
};

/* The current stack. */
void stack_init(struct cpu *cpu, struct stack *st);
/* A stack of level cpl whose SS and SP are given; flat for 64-bit mode. */
void stack_set(struct cpu *cpu, struct stack *st, const struct seg *ss, uint64_t sp, unsigned cpl, bool flat);
void stack_push(struct cpu *cpu, struct stack *st, uint64_t v, unsigned size);
uint64_t stack_pop(struct cpu *cpu, struct stack *st, unsigned size);
/* RSP with only the bits of sp replaced that this stack's width owns. */
uint64_t stack_merge(uint64_t rsp, const struct stack *st);
/* Raise #SS now unless bytes more fit on the stack (legacy: limit). */
void stack_room(struct cpu *cpu, const struct stack *st, unsigned bytes);

/* The stack of an inner level from the current TSS, legacy modes: reads SS:ESP and checks them; ext goes into
 * the error codes. */
void tss_stack(struct cpu *cpu, unsigned cpl, uint32_t ext, struct stack *st);
/* The same in long mode: slot 0-2 is RSPn, 3 + n is IST n+1. */
uint64_t tss_rsp(struct cpu *cpu, unsigned slot, uint32_t ext);

/* A code segment that a transfer is about to enter. */
struct code_target {
    uint64_t desc, addr;
    struct seg seg;
};
/* Fetch the code descriptor of sel for a transfer; raises #GP(sel | ext) when null (error ext), outside its
 * table or not code, or with L and D both set in long mode. Presence and privilege are left to the caller. */
void code_fetch(struct cpu *cpu, uint16_t sel, uint32_t ext, struct code_target *t);
void code_present(struct cpu *cpu, uint16_t sel, uint32_t ext, const struct code_target *t);
/* Check an entry point against the target: #GP(ext). */
void code_check_rip(struct cpu *cpu, const struct code_target *t, uint64_t rip, uint32_t ext);
/* Commit: CS with RPL = cpl, RIP. */
void code_enter(struct cpu *cpu, struct code_target *t, uint16_t sel, unsigned cpl, uint64_t rip);

/* 1 while an exception or an external interrupt is being delivered: the EXT bit of error codes. */
static inline uint32_t event_ext(const struct cpu *cpu) { return cpu->delivering.active; }

/* A far CALL (or JMP) through a call gate whose own checks (DPL, presence, type for the mode) are done. */
void gate_transfer(struct cpu *cpu, uint16_t sel, uint64_t gate, bool call);

/* Return through the back link of the current TSS (IRET with NT). */
void task_return(struct cpu *cpu);
/* Through a task gate's TSS selector, with the checks of a transfer; raises vec(sel | ext). */
void task_gate(struct cpu *cpu, uint64_t gate, enum task_reason why, unsigned vec, bool has_error,
               uint32_t error);

#endif
