/* Odd instructions. See odd.h; opcodes: Intel SDM vol. 2, appendix A. */
#include "engine/direct/odd.h"

#include <Zydis/Zydis.h>
#include <stdatomic.h>
#include <string.h>
#include <xxhash.h>

#include "base/bits.h"
#include "ram/ram.h"

#define ODD_BACK   96u /* bytes before the place in question, in which decoding finds its step */
#define ODD_STARTS 8u
#define ODD_PREFIXES 14u
#define ODD_NOTES    1024u
#define ODD_ANSWERS  8192u

/* Offsets in it are the page's and ODD_BACK. */
struct odd_scan {
    unsigned begin; /* nothing is known of what lies before it */
    ZydisDecoder dec;
    uint8_t code[ODD_BACK + PAGE_SIZE];
    uint8_t length[ODD_BACK + PAGE_SIZE]; /* of what begins there, 0: not decoded yet */
};

static unsigned modrm_reg(uint8_t m) { return m >> 3 & 7; }

/* The byte behind 0F 01. VMCALL and VMMCALL are heard by the hypervisor that the host runs on, RDPRU tells the host's frequency. */
static bool odd_is_own(uint8_t b, bool xcr0)
{
    switch (b) {
    case 0xc1: /* VMCALL */
    case 0xd9: /* VMMCALL */
    case 0xf9: /* RDTSCP */
    case 0xfd: /* RDPRU */
        return true;
    case 0xd0: /* XGETBV */
    case 0xee: /* RDPKRU */
    case 0xef: /* WRPKRU */
        return xcr0;
    default:
        return false;
    }
}

/* The three bytes from an 0F on, an opcode. */
static bool odd_bytes(const uint8_t *p, bool cpuid, bool xcr0)
{
    bool memory = p[2] < 0xc0;

    switch (p[1]) {
    case 0x00: return modrm_reg(p[2]) != 2 && modrm_reg(p[2]) != 3 && modrm_reg(p[2]) < 6;
    case 0x01: return (memory && modrm_reg(p[2]) < 2) || modrm_reg(p[2]) == 4 || odd_is_own(p[2], xcr0);
    case 0x02:
    case 0x03: return true;
    case 0xa2: return cpuid;
    case 0xae: return xcr0 && memory && modrm_reg(p[2]) == 4;
    case 0xc7: return p[2] >= 0xf8; /* RDPID with F3, else RDSEED */
    default: return false;
    }
}

static bool odd_is_prefix(uint8_t b)
{
    switch (b) {
    case 0x26:
    case 0x2e:
    case 0x36:
    case 0x3e:
    case 0x64 ... 0x67:
    case 0xf0:
    case 0xf2:
    case 0xf3:
        return true;
    default:
        return b >> 4 == 4; /* REX */
    }
}

static void odd_decoder(ZydisDecoder *dec)
{
    ZydisDecoderInit(dec, ZYDIS_MACHINE_MODE_LONG_64, ZYDIS_STACK_WIDTH_64);
    ZydisDecoderEnableMode(dec, ZYDIS_DECODER_MODE_MINIMAL, ZYAN_TRUE);
}

static void odd_scan_init(struct odd_scan *scan, const uint8_t *page, const uint8_t *before)
{
    scan->begin = before ? 0 : ODD_BACK;
    if (before)
        memcpy(scan->code, before + PAGE_SIZE - ODD_BACK, ODD_BACK);
    memcpy(scan->code + ODD_BACK, page, PAGE_SIZE);
    memset(scan->length, 0, sizeof(scan->length));
    odd_decoder(&scan->dec);
}

/* Where the instruction with the opcode at `at` begins at the earliest. */
static unsigned odd_first(const struct odd_scan *scan, unsigned at)
{
    unsigned n = at;

    while (n > scan->begin && at - n < ODD_PREFIXES && odd_is_prefix(scan->code[n - 1]))
        n--;
    return n;
}

/* Decoding from `from` on: the first instruction that does not end before `to`. */
static unsigned odd_walk(struct odd_scan *scan, unsigned from, unsigned to)
{
    while (from < to) {
        ZydisDecodedInstruction z;
        uint8_t *length = &scan->length[from];

        if (!*length)
            *length = ZYAN_SUCCESS(ZydisDecoderDecodeInstruction(&scan->dec, NULL, scan->code + from, sizeof(scan->code) - from, &z)) ? z.length : 1;
        from += *length;
    }
    return from;
}

/* Does an instruction begin with the opcode at `at`, or with prefixes of it? By the word of most of the places from which it is decoded: x86 code falls into step
 * after a few instructions. Where it begins, or -1. */
static int odd_really(struct odd_scan *scan, unsigned at)
{
    unsigned first = odd_first(scan, at), from = first - scan->begin > ODD_BACK ? first - ODD_BACK : scan->begin, yes = 0, all = 0;
    unsigned votes[ODD_PREFIXES + 1] = { 0 }, best = 0;
    bool no = first - from == ODD_BACK && odd_walk(scan, from, first) > at && odd_walk(scan, from + ODD_STARTS / 2, first) > at;

    if (no)
        return -1; /* as good as always, all say the same */
    for (; all < ODD_STARTS && from + all <= first; all++) {
        unsigned there = odd_walk(scan, from + all, first);

        if (there > at)
            continue;
        yes++;
        if (++votes[at - there] > votes[best])
            best = at - there;
    }
    unsigned begin = at - best;
    if (yes * 2 < all)
        return -1;
    bool rdpid = scan->code[at + 1] == 0xc7;
    return rdpid && !memchr(scan->code + begin, 0xf3, at - begin) ? -1 : (int)begin;
}

/* RDTSCP right behind RDTSC: the alternatives of a Linux vDSO, as its build left them behind the code. Nobody runs both; and they are more than there are breakpoints. */
static bool odd_unused(const uint8_t *page, const uint8_t *p)
{
    return p[1] == 0x01 && p[2] == 0xf9 && p - page >= 2 && p[-2] == 0x0f && p[-1] == 0x31;
}

unsigned odd_find(const uint8_t *page, const uint8_t *before, bool cpuid, bool xcr0, uint16_t *at, unsigned max)
{
    const uint8_t *end = page + PAGE_SIZE - 2, *p = page;
    struct odd_scan scan NO_INIT;
    unsigned found = 0;
    bool begun = false;

    for (; found < max && (p = memchr(p, 0x0f, (size_t)(end - p))); p++) {
        if (!odd_bytes(p, cpuid, xcr0) || odd_unused(page, p))
            continue;
        if (!begun)
            odd_scan_init(&scan, page, before);
        begun = true;
        int begin = odd_really(&scan, (unsigned)(p - page) + ODD_BACK);
        if (begin >= (int)ODD_BACK)
            at[found++] = (uint16_t)((unsigned)begin - ODD_BACK);
    }
    return found;
}

/* -- what is remembered, by pages' contents; races lose answers, but give no wrong ones -- */

static _Atomic uint64_t odd_answers[ODD_ANSWERS]; /* a question, with the answer as its lowest bit */

static uint64_t odd_print(const uint8_t *page) { return XXH3_64bits(page, PAGE_SIZE); }

bool odd_any(const uint8_t *page, const uint8_t *before, bool cpuid, bool xcr0)
{
    uint64_t tail = before ? XXH3_64bits(before + PAGE_SIZE - ODD_BACK, ODD_BACK) : 0;
    uint64_t question = (odd_print(page) + tail * 3 + cpuid * 4 + xcr0 * 8) | 1;
    _Atomic uint64_t *answer = &odd_answers[question >> 32 & (ODD_ANSWERS - 1)];
    uint64_t last = atomic_load_explicit(answer, memory_order_relaxed);
    uint16_t at;

    if ((last | 1) == question)
        return last == question;
    bool any = odd_find(page, before, cpuid, xcr0, &at, 1);
    atomic_store_explicit(answer, question - !any, memory_order_relaxed);
    return any;
}

/* -- what is certain -- */

static _Atomic uint64_t odd_notes[ODD_NOTES];

/* A note of one instruction in one page's contents. */
static uint64_t odd_key(uint64_t print, unsigned off) { return (print + off) * 0x9e3779b97f4a7c15ULL | 1; }

static _Atomic uint64_t *odd_note_at(uint64_t key) { return &odd_notes[key >> 32 & (ODD_NOTES - 1)]; }

void odd_note(const uint8_t *page, unsigned off)
{
    uint64_t key = odd_key(odd_print(page), off);

    atomic_store_explicit(odd_note_at(key), key, memory_order_relaxed);
}

static bool odd_noted(uint64_t print, unsigned off)
{
    uint64_t key = odd_key(print, off);

    return atomic_load_explicit(odd_note_at(key), memory_order_relaxed) == key;
}

struct odd_flow {
    const uint8_t *page;
    ZydisDecoder dec;
    uint64_t seen[PAGE_SIZE / 64];
    uint16_t todo[PAGE_SIZE]; /* each place once */
    unsigned todos;
};

static bool odd_seen(const struct odd_flow *f, unsigned off) { return f->seen[off / 64] >> off % 64 & 1; }

/* An instruction begins there. */
static void odd_flow_to(struct odd_flow *f, uint64_t off)
{
    if (off >= PAGE_SIZE || odd_seen(f, (unsigned)off))
        return;
    f->seen[off / 64] |= 1ULL << off % 64;
    f->todo[f->todos++] = (uint16_t)off;
}

/* Nothing goes on behind it. */
static bool odd_ends(const ZydisDecodedInstruction *z)
{
    bool ff = z->opcode_map == ZYDIS_OPCODE_MAP_DEFAULT && z->opcode == 0xff;

    if (z->opcode_map == ZYDIS_OPCODE_MAP_0F)
        return z->opcode == 0x0b || z->opcode == 0xb9 || z->opcode == 0xff; /* UD2, UD1, UD0 */
    if (z->opcode_map != ZYDIS_OPCODE_MAP_DEFAULT)
        return false;
    switch (z->opcode) {
    case 0xc2: /* RET */
    case 0xc3:
    case 0xca:
    case 0xcb:
    case 0xcc: /* INT3 */
    case 0xcf: /* IRET */
    case 0xe9: /* JMP */
    case 0xeb:
    case 0xf4: /* HLT */
        return true;
    default:
        return ff && (z->raw.modrm.reg == 4 || z->raw.modrm.reg == 5); /* JMP */
    }
}

static void odd_flow_on(struct odd_flow *f, unsigned off)
{
    ZydisDecodedInstruction z;

    if (!ZYAN_SUCCESS(ZydisDecoderDecodeInstruction(&f->dec, NULL, f->page + off, PAGE_SIZE - off, &z)))
        return;
    if (z.raw.imm[0].is_relative)
        odd_flow_to(f, off + z.length + (uint64_t)z.raw.imm[0].value.s);
    if (!odd_ends(&z))
        odd_flow_to(f, off + z.length);
}

uint64_t odd_certain(const uint8_t *page, unsigned from, const uint16_t *at, unsigned n)
{
    uint64_t print = odd_print(page), certain = 0;
    struct odd_flow f NO_INIT;

    f.page = page;
    f.todos = 0;
    memset(f.seen, 0, sizeof(f.seen));
    odd_decoder(&f.dec);
    odd_flow_to(&f, from);
    for (unsigned k = 0; k < n; k++)
        if (odd_noted(print, at[k]))
            odd_flow_to(&f, at[k]);
    while (f.todos)
        odd_flow_on(&f, f.todo[--f.todos]);
    for (unsigned k = 0; k < n && k < ODD_MAX; k++)
        certain |= (uint64_t)odd_seen(&f, at[k]) << k;
    return certain;
}
