/* The interpreter's instruction handlers: one table a file, merged by bind.c.
 *
 * A handler runs with r[R_RIP] already at the next instruction. It must raise before it changes
 * anything, or leave the state that the manual asks for (string instructions: progress so far). Branches
 * set r[R_RIP]. Whatever the translator does not inline it calls through the same handlers.
 */
#ifndef VITRO_INTERP_OPS_H
#define VITRO_INTERP_OPS_H

#include "x86/flags.h"
#include "x86/insn.h"

struct op_entry {
    uint16_t op;   /* ZydisMnemonic; ZYDIS_MNEMONIC_INVALID ends a table */
    uint8_t flags; /* INSN_END: the block ends after it. To be set for everything that writes RIP, changes mode,
                      paging, privilege or interrupt masking, or may halt */
    insn_fn *fn;   /* the handler; or NULL and: */
    insn_fn *(*select)(struct insn *i, const struct decoded *d); /* picks one by form and size; NULL: not ours,
                                                                     the host executes it (or #UD) */
};

/* Owners: op_alu.c op_shift.c op_data.c op_bit.c op_branch.c op_string.c op_misc.c (integer);
 * op_sys.c op_far.c op_io.c (system); op_fpu.c op_xsave.c op_vecmem.c (state and special memory forms of vectors) */
extern const struct op_entry ops_alu[], ops_shift[], ops_data[], ops_bit[], ops_branch[], ops_string[], ops_misc[];
extern const struct op_entry ops_sys[], ops_far[], ops_io[];
extern const struct op_entry ops_fpu[], ops_xsave[], ops_vecmem[];

insn_fn op_ud; /* raises #UD */

/* hostexec.c: instructions executed by the host CPU itself through small generated stubs (vectors, x87, MMX, and any
 * user-level integer instruction without a handler). One struct hostexec a vCPU owns the stub memory. */
struct hostexec;
struct hostexec *hostexec_create(void); /* NULL: no memory */
void hostexec_destroy(struct hostexec *hx);
/* Bind i (fn, stub) to a stub made from d. false: not an instruction that may be executed so (#UD), or the feature is not
 * shown by the guest's CPUID. *full is set when stub memory ran out: the caller drops every decoded instruction, calls
 * hostexec_clear() and tries again. */
bool hostexec_bind(struct hostexec *hx, struct cpu *cpu, struct insn *i, const struct decoded *d, bool *full);
void hostexec_clear(struct hostexec *hx);
/* After that: its memory goes back to the host. */
void hostexec_rest(struct hostexec *hx);

#endif
