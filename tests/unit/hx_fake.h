/* Surroundings for tests of vector and x87 instructions: a CPU whose linear addresses are the host's own
 * within one arena, everything else a page fault; exceptions are caught; and the same instruction run
 * natively. */
#ifndef VITRO_TEST_HX_FAKE_H
#define VITRO_TEST_HX_FAKE_H

#include "engine/interp/hostexec.h"

#define ARENA_BASE 0x20000000ULL
#define ARENA_SIZE 0x4000ULL /* followed by an inaccessible page */

struct hx_outcome {
    int vector; /* -1: completed */
    uint32_t error;
};

struct hx_env {
    struct cpu cpu;
    struct cpuid_table cpuid;
    struct cpu_ops ops;
    struct hostexec *hx;
    const struct op_entry *op[ZYDIS_MNEMONIC_MAX_VALUE + 1];
    bool bounce;   /* pages are not reachable directly: every view is a bounce buffer */
    unsigned ferr; /* calls of ferr(true) */
};

struct hx_env *hx_env_create(void);
void hx_env_destroy(struct hx_env *e);
/* Decode and bind as 64-, 32- or 16-bit code. False: no such instruction for this guest. */
bool hx_env_bind(struct hx_env *e, const uint8_t *code, unsigned code_size, struct insn *i,
                 struct decoded *d);
struct hx_outcome hx_env_run(struct hx_env *e, const struct insn *i, uint64_t rip);
/* hx_env_bind() and hx_env_run(); vector -2: not bound. */
struct hx_outcome hx_env_exec(struct hx_env *e, const uint8_t *code, unsigned code_size);

/* Run the len bytes at code natively with e's registers (not RSP), and put the registers back into e. Returns
 * the exception's vector, or -1. rip: where they ran. */
int hx_native(struct cpu *cpu, const uint8_t *code, unsigned len);
/* Host address at which hx_native() executes. */
uint64_t hx_native_rip(void);
void hx_native_init(void);
/* Registers, flags, MXCSR and x87 state of a (ours) and b (native) are the same; else *what names the
 * difference. */
bool hx_same_state(const struct cpu *a, const struct cpu *b, const char **what);

#endif
