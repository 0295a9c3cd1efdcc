/* isa: run generated sequences on the host and in an engine, and tell every difference.
 *
 *   isa [--engine interp|dbt] [--seed N] [--count N] [--only N] [--keep-going N] [--x87 1] [--against interp] [--intel 1]
 *       [--kick USEC]
 *
 * --x87: mostly x87 and MMX code. --against: no host, another engine, x87 pointers too; with --intel such a CPU's. --kick: the engine is made to leave its code that often.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <Zydis/Zydis.h>

#include "isa.h"

static const char *const reg_name[16] = { "rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi",
                                          "r8",  "r9",  "r10", "r11", "r12", "r13", "r14", "r15" };

static void show_code(const struct isa_seq *s)
{
    ZydisDisassembledInstruction d;
    for (unsigned n = 0; n < s->n; n++) {
        unsigned off = s->start[n], len = s->start[n + 1] - off;
        printf("  %llx:", (unsigned long long)(s->at + off));
        for (unsigned k = 0; k < len; k++)
            printf(" %02x", s->code[off + k]);
        if (ZYAN_SUCCESS(ZydisDisassembleIntel(s->code32 ? ZYDIS_MACHINE_MODE_LONG_COMPAT_32
                                                          : ZYDIS_MACHINE_MODE_LONG_64,
                                                s->at + off, s->code + off, len, &d)))
            printf("    %s", d.text);
        printf("\n");
    }
}

static void show_bytes(const char *what, const uint8_t *a, const uint8_t *b, unsigned len)
{
    if (memcmp(a, b, len) == 0)
        return;
    printf("  %s\n    host  ", what);
    for (unsigned n = 0; n < len; n++)
        printf("%02x", a[n]);
    printf("\n    guest ");
    for (unsigned n = 0; n < len; n++)
        printf("%02x", b[n]);
    printf("\n");
}

static void show_u64(const char *what, uint64_t in, uint64_t h, uint64_t g)
{
    if (h != g)
        printf("  %-7s before %016llx  host %016llx  guest %016llx\n", what, (unsigned long long)in, (unsigned long long)h,
               (unsigned long long)g);
}

/* The number of the instruction at rip; s->n: none. */
static unsigned insn_at(const struct isa_seq *s, uint64_t rip)
{
    unsigned n = 0;
    while (n < s->n && s->at + s->start[n] != rip)
        n++;
    return n;
}

static bool at_cmps(const struct isa_seq *s, uint64_t rip)
{
    unsigned n = insn_at(s, rip);
    return n < s->n && (s->mnemonic[n] == ZYDIS_MNEMONIC_CMPSB || s->mnemonic[n] == ZYDIS_MNEMONIC_CMPSW ||
                        s->mnemonic[n] == ZYDIS_MNEMONIC_CMPSD || s->mnemonic[n] == ZYDIS_MNEMONIC_CMPSQ);
}

/* The opcode of instruction n, behind its prefixes; in 64-bit code, or where no one-byte INC and DEC can be meant. */
static const uint8_t *opcode_of(const struct isa_seq *s, unsigned n, bool *short_address)
{
    const uint8_t *p = s->code + s->start[n];
    *short_address = false;
    while (*p == 0x66 || *p == 0x67 || *p == 0xf2 || *p == 0xf3 || (*p & 0xe7) == 0x26 || *p == 0x64 || *p == 0x65 || *p >> 4 == 4)
        *short_address |= *p++ == 0x67;
    return p;
}

/* A string instruction of 64-bit code whose address registers have 32 bits. */
static bool at_short_string(const struct isa_seq *s, uint64_t rip)
{
    unsigned n = insn_at(s, rip);
    bool short_address;
    if (n == s->n || s->code32)
        return false;
    const uint8_t *p = opcode_of(s, n, &short_address);
    return short_address && *p >= 0xa4 && *p <= 0xaf && *p != 0xa8 && *p != 0xa9;
}

/* FSTP of 80 bits (DB /7) or FBSTP (DF /6). */
static bool at_ten_byte_store(const struct isa_seq *s, uint64_t rip)
{
    unsigned n = insn_at(s, rip);
    bool short_address;
    if (n == s->n || (s->mnemonic[n] != ZYDIS_MNEMONIC_FSTP && s->mnemonic[n] != ZYDIS_MNEMONIC_FBSTP))
        return false;
    const uint8_t *p = opcode_of(s, n, &short_address);
    return (p[0] == 0xdb && (p[1] >> 3 & 7) == 7) || (p[0] == 0xdf && (p[1] >> 3 & 7) == 6);
}

/* The memory operand of instruction n, registers being as in h; its size, or 0: it has none. */
static unsigned operand_of(const struct isa_seq *s, unsigned n, const struct isa_state *h, uint64_t *at)
{
    ZydisDecoder decoder;
    ZydisDecodedInstruction z;
    ZydisDecodedOperand op[ZYDIS_MAX_OPERAND_COUNT];
    if (s->code32)
        ZydisDecoderInit(&decoder, ZYDIS_MACHINE_MODE_LONG_COMPAT_32, ZYDIS_STACK_WIDTH_32);
    else
        ZydisDecoderInit(&decoder, ZYDIS_MACHINE_MODE_LONG_64, ZYDIS_STACK_WIDTH_64);
    if (n == s->n ||
        !ZYAN_SUCCESS(ZydisDecoderDecodeFull(&decoder, s->code + s->start[n], (ZyanUSize)(s->start[n + 1] - s->start[n]), &z, op)))
        return 0;
    for (unsigned k = 0; k < z.operand_count_visible; k++) {
        ZydisRegisterContext registers = { 0 };
        if (op[k].type != ZYDIS_OPERAND_TYPE_MEMORY)
            continue;
        for (unsigned r = 0; r < 16; r++) {
            registers.values[ZYDIS_REGISTER_RAX + r] = h->r[r];
            registers.values[ZYDIS_REGISTER_EAX + r] = (uint32_t)h->r[r];
            registers.values[ZYDIS_REGISTER_AX + r] = (uint16_t)h->r[r];
        }
        return ZYAN_SUCCESS(ZydisCalcAbsoluteAddressEx(&z, &op[k], s->at + s->start[n], &registers, at)) ? op[k].size / 8 : 0;
    }
    return 0;
}

/* Does the memory operand of instruction n of 32-bit code reach beyond 4 GiB? */
static bool reaches_beyond(const struct isa_seq *s, unsigned n, const struct isa_state *h)
{
    uint64_t at;
    unsigned size = operand_of(s, n, h, &at);
    return size && at + size > 1ULL << 32;
}

/* Did LDMXCSR refuse MXCSR.MM? That is AMD's MISALIGNSSE, which the host has and guests are not shown. */
static bool refuses_mm(const struct isa_seq *s, const struct isa_state *g, const uint8_t *data)
{
    uint64_t at;
    uint32_t v = 0;
    unsigned n = insn_at(s, g->rip);
    if (!__builtin_cpu_is("amd") || g->vector != 13 || n == s->n ||
        (s->mnemonic[n] != ZYDIS_MNEMONIC_LDMXCSR && s->mnemonic[n] != ZYDIS_MNEMONIC_VLDMXCSR) || operand_of(s, n, g, &at) != 4)
        return false;
    if (at - ISA_DATA <= ISA_DATA_SIZE - 4)
        memcpy(&v, data + (at - ISA_DATA), 4);
    return v >> 17 & 1;
}

static bool memory_fault(const struct isa_state *s)
{
    return s->vector == 12 || s->vector == 13 || s->vector == 14 || s->vector == 17;
}

/* Both fault at the same place, and the manuals leave open how: the engine's answer counts as the host's. */
static void mask_fault(const struct isa_seq *s, const struct isa_state *h, struct isa_state *g)
{
    unsigned at = insn_at(s, h->rip);
    bool converts = at < s->n && s->mnemonic[at] == ZYDIS_MNEMONIC_VCVTPS2PH;
    bool host_fault = memory_fault(h) || (converts && h->vector == 19);
    if (!host_fault || !memory_fault(g) || h->rip != g->rip)
        return;
    /* CMPS reads two operands in either order. An operand beyond a limit of 4 GiB - 1 may wrap around (SDM vol. 3, 5.3), and
     * then fault otherwise, an aligned one with #GP also in the stack's segment. A conversion may note its exceptions, and even
     * raise them, before the store's faults (table 6-2). */
    bool wrapped = h->vector == 17 || (h->vector == 14 && (h->cr2 >= 0xffffff00 || h->cr2 < 0x100)) ||
                   (h->vector == 13 && s->code32 && reaches_beyond(s, at, h));
    bool wraps = s->code32 && wrapped && (g->vector == 12 || g->vector == 13);
    if (at_cmps(s, h->rip) || wraps || converts) {
        g->vector = h->vector;
        g->cr2 = h->cr2;
        g->error = h->error;
    }
    if (converts)
        g->mxcsr = (g->mxcsr & ~0x3fu) | (h->mxcsr & 0x3f);
    /* Some CPUs cut registers to 32 bits before the first element arrives. */
    for (int n = 1; n < 8 && at_short_string(s, h->rip); n++)
        if ((n == 1 || n >= 6) && (uint32_t)h->r[n] == (uint32_t)g->r[n])
            g->r[n] = h->r[n];
}

/* Take out of both what the architecture leaves open. */
static void mask_state(const struct isa_seq *s, struct isa_state *h, struct isa_state *g)
{
    uint64_t keep = ~0ULL;
    if (h->vector != 3 || g->vector != 3 || s->undefined)
        keep = ~s->undefined;
    h->rflags &= keep;
    g->rflags &= keep;
    for (int n = 0; n < 8; n++) /* an empty x87 register's contents do not count */
        if (!(h->ftw >> ((n + (h->fsw >> 11)) & 7) & 1) && !(g->ftw >> ((n + (g->fsw >> 11)) & 7) & 1)) {
            memset(h->st[n], 0, 10);
            memset(g->st[n], 0, 10);
        }
    for (int n = 0; n < 8 && s->code32; n++) { /* upper halves are not defined outside of 64-bit code */
        h->r[n] = (uint32_t)h->r[n];
        g->r[n] = (uint32_t)g->r[n];
    }
    mask_fault(s, h, g);
    /* Linux reports every fault above the user's last page as one on a present page, so that P tells nothing there. */
    if (h->vector == 14 && g->vector == 14 && h->cr2 >= 0x7ffffffff000)
        h->error |= 1, g->error |= 1;
}

static void report(const struct isa_seq *s, uint64_t seed, uint64_t n, const struct isa_state *h, const struct isa_state *g,
                   const uint8_t *hd, const uint8_t *gd)
{
    printf("DIFF seed %llu sequence %llu\n", (unsigned long long)seed, (unsigned long long)n);
    show_code(s);
    printf("  ends with vector %u error %llx at rip %llx, cr2 %llx\n", h->vector, (unsigned long long)h->error,
           (unsigned long long)h->rip, (unsigned long long)h->cr2);
    show_u64("vector", 0, h->vector, g->vector);
    show_u64("error", 0, h->error, g->error);
    show_u64("cr2", 0, h->cr2, g->cr2);
    show_u64("rip", s->in.rip, h->rip, g->rip);
    show_u64("rflags", s->in.rflags, h->rflags, g->rflags);
    for (int k = 0; k < 16; k++)
        show_u64(reg_name[k], s->in.r[k], h->r[k], g->r[k]);
    for (int k = 0; k < 8; k++)
        show_u64("k", s->in.k[k], h->k[k], g->k[k]);
    show_u64("mxcsr", s->in.mxcsr, h->mxcsr, g->mxcsr);
    show_u64("fcw", s->in.fcw, h->fcw, g->fcw);
    show_u64("fsw", s->in.fsw, h->fsw, g->fsw);
    show_u64("ftw", s->in.ftw, h->ftw, g->ftw);
    show_u64("fip", 0, h->fip, g->fip);
    show_u64("fdp", 0, h->fdp, g->fdp);
    show_u64("fop", 0, h->fop, g->fop);
    for (int k = 0; k < 32; k++) {
        char name[16];
        snprintf(name, sizeof(name), "zmm%d", k);
        show_bytes(name, h->zmm[k], g->zmm[k], 64);
    }
    for (int k = 0; k < 8; k++)
        show_bytes("st", h->st[k], g->st[k], 10);
    for (unsigned k = 0; k < ISA_DATA_SIZE; k++)
        if (hd[k] != gd[k]) {
            printf("  memory at %llx: host %02x guest %02x\n", (unsigned long long)(ISA_DATA + k), hd[k], gd[k]);
            break;
        }
}

/* A store of ten bytes that faults in its second page has written into its first on Intel's CPUs, nothing on AMD's, after which the
 * engine goes. */
static void mask_memory(const struct isa_seq *s, const struct isa_state *h, const uint8_t *hd, uint8_t *gd)
{
    uint64_t end = h->cr2 - ISA_DATA;
    if (!__builtin_cpu_is("intel") || h->vector != 14 || end % 0x1000 || end - 1 >= ISA_DATA_SIZE || !at_ten_byte_store(s, h->rip))
        return;
    memcpy(gd + end - 9, hd + end - 9, 9);
}

static void (*reference)(const struct isa_seq *s, struct isa_state *out, uint8_t *data) = host_run;
static void other_engine(const struct isa_seq *s, struct isa_state *out, uint8_t *data) { guest_run(1, s, out, data); }

static unsigned unsteady; /* how often the host contradicted itself */

static bool equal(const struct isa_seq *s, struct isa_state *h, struct isa_state *g, const uint8_t *hd, uint8_t *gd)
{
    mask_state(s, h, g);
    mask_memory(s, h, hd, gd);
    return memcmp(h, g, sizeof(*h)) == 0 && memcmp(hd, gd, ISA_DATA_SIZE) == 0;
}

/* After a difference the host runs the sequence again: a virtual host, whose kernel emulates faults of its own, now and then
 * reports one that does not come twice. The engine gets no second chance. */
static bool run_one(struct isa_seq *s, uint64_t seed, uint64_t n)
{
    static struct isa_state h, g, masked;
    static uint8_t hd[ISA_DATA_SIZE], gd[ISA_DATA_SIZE];
    gen_seq(s, seed, n);
    if (getenv("ISA_VERBOSE"))
        fprintf(stderr, "%llu\n", (unsigned long long)n);
    reference(s, &h, hd);
    guest_run(0, s, &g, gd);
    if (h.mxcsr >> 17 & 1 || refuses_mm(s, &g, gd)) /* MXCSR.MM: AMD's MISALIGNSSE is not shown to guests */
        return true;
    for (unsigned tries = 0; tries < 3; tries++) {
        masked = g;
        if (equal(s, &h, &masked, hd, gd)) {
            unsteady += tries;
            return true;
        }
        reference(s, &h, hd);
    }
    equal(s, &h, &g, hd, gd);
    report(s, seed, n, &h, &g, hd, gd);
    return false;
}

int main(int argc, char **argv)
{
    uint64_t seed = 1, count = 20000, first = 0, fails = 0, limit = 20;
    const char *engine = "interp", *against = NULL;
    unsigned kick = 0;
    static struct isa_seq s;
    for (int a = 1; a + 1 < argc; a += 2) {
        uint64_t v = strtoull(argv[a + 1], NULL, 0);
        if (strcmp(argv[a], "--seed") == 0)
            seed = v;
        else if (strcmp(argv[a], "--count") == 0)
            count = v;
        else if (strcmp(argv[a], "--keep-going") == 0)
            limit = v;
        else if (strcmp(argv[a], "--only") == 0)
            first = v, count = 1;
        else if (strcmp(argv[a], "--engine") == 0)
            engine = argv[a + 1];
        else if (strcmp(argv[a], "--against") == 0)
            against = argv[a + 1];
        else if (strcmp(argv[a], "--intel") == 0)
            guest_intel = v;
        else if (strcmp(argv[a], "--kick") == 0)
            kick = (unsigned)v;
        else if (strcmp(argv[a], "--x87") == 0)
            gen_x87 = v;
        else
            return fprintf(stderr, "isa: unknown option %s\n", argv[a]), 2;
    }
    if (host_init() < 0 || guest_init(0, engine, kick) < 0 || (against && guest_init(1, against, 0) < 0))
        return 2;
    gen_pointers = against;
    reference = against ? other_engine : host_run;
    gen_no_code32 = !host_runs_code32();
    if (gen_no_code32)
        printf("isa: this host runs no 32-bit code (a kernel without IA-32 emulation), so only 64-bit code is compared\n");
    gen_no_wild_rsp = !host_runs_wild_rsp();
    if (gen_no_wild_rsp)
        printf("isa: this host refuses a non-canonical RSP in IRET, so sequences begin with a canonical one\n");
    uint64_t n;
    for (n = first; n < first + count && fails < limit; n++)
        fails += !run_one(&s, seed, n);
    if (unsteady)
        printf("isa: the host contradicted itself %u times\n", unsteady);
    printf("isa: seed %llu: %llu sequences, %u different mnemonics, %llu differences\n", (unsigned long long)seed,
           (unsigned long long)(n - first), gen_coverage(), (unsigned long long)fails);
    guest_fini();
    return fails != 0;
}
