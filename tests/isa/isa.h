/* tests/isa: generated instruction sequences on the real host CPU and in an engine, compared.
 *
 * A sequence is user-level 64- or 32-bit code with a full register state and a small memory, laid out at the same
 * linear addresses on both sides. Some sequences are loops, so that they get hot;
 * some of those change their own code on the way, and let their operands wander: off their alignment, across pages, to pages that are
 * read-only or not there. It ends at the first fault; the last instruction is INT3, so that a clean run ends
 * in #BP. gen.c makes sequences, host.c runs them natively (signals), guest.c in an engine, main.c compares.
 */
#ifndef VITRO_TESTS_ISA_H
#define VITRO_TESTS_ISA_H

#include <stdbool.h>
#include <stdint.h>

/* Linear layout, the same on both sides. Pages around are not mapped. */
#define ISA_CODE       0x10000000ULL
#define ISA_CODE_SIZE  0x4000ULL
#define ISA_DATA       0x20000000ULL
#define ISA_DATA_SIZE  0x4000ULL
#define ISA_RO         0x20010000ULL /* read-only page */
#define ISA_RO_SIZE    0x1000ULL
#define ISA_COUNT      0x20020000ULL /* a page that only loops touch: how often they still go round */
#define ISA_COUNT_SIZE 0x1000ULL

#define ISA_PAGES (ISA_DATA_SIZE / 0x1000)
enum { ISA_RW, ISA_R, ISA_NONE };

#define SEQ_MAX_BYTES 512
#define SEQ_MAX_INSNS 48

struct isa_state {
    uint64_t r[16];
    uint64_t rip;
    uint64_t rflags; /* arithmetic flags and DF; AC at the beginning */
    uint8_t zmm[32][64];
    uint64_t k[8];
    uint32_t mxcsr;
    uint16_t fcw, fsw;
    uint8_t ftw; /* abridged */
    uint8_t st[8][10];
    uint64_t fip, fdp; /* where engines are compared with each other: gen_pointers */
    uint16_t fop;
    /* how it ended */
    unsigned vector; /* 3: ran to the end */
    uint64_t error;
    uint64_t cr2; /* #PF only */
};

struct isa_seq {
    uint8_t code[SEQ_MAX_BYTES];
    unsigned len, n;
    uint64_t at;             /* address of the first byte */
    uint16_t start[SEQ_MAX_INSNS + 1]; /* offset of each instruction, and of the end */
    uint16_t mnemonic[SEQ_MAX_INSNS];
    uint64_t undefined; /* RFLAGS bits that the last instruction leaves undefined */
    bool code32;        /* runs as 32-bit code (compatibility mode) */
    uint32_t loops;     /* times round; 1: no loop */
    struct isa_state in;
    uint8_t data[ISA_DATA_SIZE];
    uint8_t where[ISA_PAGES]; /* which page of the guest's memory is behind each page of data */
    uint8_t rights[ISA_PAGES]; /* ISA_RW ... */
};

struct isa_rand {
    uint64_t s;
};
static inline uint64_t isa_rand(struct isa_rand *r)
{
    uint64_t z = (r->s += 0x9e3779b97f4a7c15ULL); /* splitmix64 */
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ULL;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebULL;
    return z ^ (z >> 31);
}

/* Sequence number n of a seed; the same every time. */
void gen_seq(struct isa_seq *s, uint64_t seed, uint64_t n);
/* How many different mnemonics were generated so far. */
unsigned gen_coverage(void);
extern bool gen_no_code32;    /* 64-bit sequences only */
extern bool gen_no_wild_rsp; /* RSP is canonical at the beginning */
extern bool gen_x87;          /* mostly x87 and MMX instructions, more of them, in loops */
extern bool gen_pointers;     /* also what loads and stores the x87 pointers */

int host_init(void);
/* Can it run 32-bit code? A kernel without IA-32 emulation has no segment for it. */
bool host_runs_code32(void);
/* Can a program get a non-canonical RSP there? Some CPUs refuse it in IRET. */
bool host_runs_wild_rsp(void);
void host_run(const struct isa_seq *s, struct isa_state *out, uint8_t *data);

extern bool guest_intel; /* x87 and MMX as on Intel's CPUs, whatever the host's: for engines that are compared with each other */
/* Machine number which (0 or 1) of that engine. kick: how often it is interrupted, in microseconds of CPU time; 0: never. */
int guest_init(unsigned which, const char *engine, unsigned kick);
void guest_run(unsigned which, const struct isa_seq *s, struct isa_state *out, uint8_t *data);
void guest_fini(void);

#endif
