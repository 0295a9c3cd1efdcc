/* Decoding with a memory: an instruction whose bytes but for displacement and immediate were seen before is not decoded again.
 *
 * Programs are made of some ten thousand such forms. The first of each goes through Zydis and bind.c; the result is kept as a
 * template, into which later ones only put their own displacement and immediate. 64-bit code only.
 *
 * Thread: the vCPU's. Forms live until forms_clear(); the epoch tells whether a number is still good.
 */
#ifndef VITRO_INTERP_FORM_H
#define VITRO_INTERP_FORM_H

#include "x86/insn.h"

#define FORM_MAX  65536u /* then all are forgotten */
#define FORM_HASH 32768u
#define FORM_NOTE 128u   /* bytes that a translator may keep with each form, in cache lines of their own */

struct form {
    uint64_t key[2];  /* the bytes of head, and of an immediate that is part of the opcode; then zeros */
    struct insn insn; /* bound; displacement and immediate 0 unless they are in the key or implied */
    uint32_t next;    /* with the same hash; 0: last */
    struct insn_parts parts;
    bool imm_signed;
    uint8_t scale;    /* of an 8-bit displacement: EVEX compresses it (SDM vol. 2, 2.7.5) */
};

struct forms {
    uint32_t used, epoch; /* forms are numbered from 1 on; epochs too, so that a note of zeros is of none */
    struct form *form;
    uint8_t *note;        /* FORM_NOTE bytes each; the translator's */
    uint32_t hash[FORM_HASH];
    uint64_t stat_missed; /* instructions that went through Zydis */
};

struct interp;

/* NULL: no memory. */
struct forms *forms_create(void);
void forms_destroy(struct forms *f);
/* Everything is void, as its stubs are. */
void forms_clear(struct forms *f);
/* After that: their memory goes back to the host. */
void forms_rest(struct forms *f);

/* Decode and bind up to n bytes at code in the current mode. DECODE_OK: *form is its form's number, or 0 if it has none.
 * *full is set if stub memory is full: the caller drops everything decoded and tries again. */
enum decode_result form_decode(struct interp *it, const uint8_t *code, unsigned n, struct insn *i, uint32_t *form, bool *full);

/* The same in two steps, so that caches are filled for several instructions at once: nearly all of the time goes there. */
#define FORM_AHEAD 8u

/* Instruction bytes with room behind them for loads of 8. */
union form_bytes {
    uint8_t b[24];
    uint64_t q[3];
};

struct form_look {
    union form_bytes p;
    uint64_t key[2];
    unsigned n, len; /* bytes that there are, of those that it has; len 0: only decoding it will tell */
    struct insn_parts parts;
};

/* What the instructions at code seem to be. Returns how many it looked at; only the last one may be without a length. n: at least 1. */
unsigned form_look_ahead(const struct interp *it, const uint8_t *code, unsigned n, struct form_look look[FORM_AHEAD]);
/* Decode what was looked at, as form_decode(). If i->len is not the length there, what was looked at behind it is nothing. */
enum decode_result form_found(struct interp *it, const struct form_look *l, struct insn *i, uint32_t *form, bool *full);

/* An instruction of this form, with displacement and immediate 0: decode it if the translator needs to know more. */
void form_sample(const struct form *f, uint8_t bytes[15]);

#endif
