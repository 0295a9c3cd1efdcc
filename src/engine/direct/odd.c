/* Odd instructions. See odd.h; opcodes: Intel SDM vol. 2, appendix A. */
#include "engine/direct/odd.h"

#include <Zydis/Zydis.h>
#include <string.h>

#include "base/bits.h"
#include "ram/ram.h"

#define ODD_BACK   96u /* bytes before the place in question, in which decoding finds its step */
#define ODD_STARTS 8u
#define ODD_PREFIXES 14u

struct odd_scan {
    const uint8_t *page;
    ZydisDecoder dec;
    uint8_t length[PAGE_SIZE]; /* of what begins there, 0: not decoded yet */
};

static unsigned modrm_reg(uint8_t m) { return m >> 3 & 7; }

/* The three bytes from an 0F on, an opcode. */
static bool odd_bytes(const uint8_t *p, bool cpuid, bool xcr0)
{
    bool memory = p[2] < 0xc0;

    switch (p[1]) {
    case 0x00: return modrm_reg(p[2]) != 2 && modrm_reg(p[2]) != 3 && modrm_reg(p[2]) < 6;
    case 0x01: return (memory && modrm_reg(p[2]) < 2) || modrm_reg(p[2]) == 4 || p[2] == 0xf9 || (xcr0 && p[2] == 0xd0);
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

/* Where the instruction with the opcode at `at` begins at the earliest. */
static unsigned odd_first(const uint8_t *page, unsigned at)
{
    unsigned n = at;

    while (n && at - n < ODD_PREFIXES && odd_is_prefix(page[n - 1]))
        n--;
    return n;
}

/* Decoding from `from` on: the first instruction that does not end before `to`. */
static unsigned odd_walk(struct odd_scan *scan, unsigned from, unsigned to)
{
    while (from < to) {
        ZydisDecodedInstruction z;

        if (!scan->length[from])
            scan->length[from] = ZYAN_SUCCESS(ZydisDecoderDecodeInstruction(&scan->dec, NULL, scan->page + from, PAGE_SIZE - from, &z)) ? z.length : 1;
        from += scan->length[from];
    }
    return from;
}

/* Does an instruction begin with the opcode at `at`, or with prefixes of it? By the word of most of the places from which it is decoded: x86 code falls into step
 * after a few instructions. Where it begins, or -1. */
static int odd_really(struct odd_scan *scan, unsigned at)
{
    unsigned first = odd_first(scan->page, at), from = first > ODD_BACK ? first - ODD_BACK : 0, yes = 0, all = 0, votes[ODD_PREFIXES + 1] = { 0 }, best = 0;
    bool no = first > ODD_BACK && odd_walk(scan, from, first) > at && odd_walk(scan, from + ODD_STARTS / 2, first) > at;

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
    bool rdpid = scan->page[at + 1] == 0xc7;
    return rdpid && !memchr(scan->page + begin, 0xf3, at - begin) ? -1 : (int)begin;
}

/* RDTSCP right behind RDTSC: the alternatives of a Linux vDSO, as its build left them behind the code. Nobody runs both; and they are more than there are breakpoints. */
static bool odd_unused(const uint8_t *page, const uint8_t *p)
{
    return p[1] == 0x01 && p[2] == 0xf9 && p - page >= 2 && p[-2] == 0x0f && p[-1] == 0x31;
}

unsigned odd_find(const uint8_t *page, bool cpuid, bool xcr0, uint16_t *at, unsigned max)
{
    const uint8_t *end = page + PAGE_SIZE - 2, *p = page;
    struct odd_scan scan NO_INIT;
    unsigned found = 0;

    scan.page = NULL;
    while (found < max && (p = memchr(p, 0x0f, (size_t)(end - p)))) {
        if (odd_bytes(p, cpuid, xcr0) && !odd_unused(page, p)) {
            if (!scan.page) {
                scan.page = page;
                ZydisDecoderInit(&scan.dec, ZYDIS_MACHINE_MODE_LONG_64, ZYDIS_STACK_WIDTH_64);
                ZydisDecoderEnableMode(&scan.dec, ZYDIS_DECODER_MODE_MINIMAL, ZYAN_TRUE);
                memset(scan.length, 0, sizeof(scan.length));
            }
            int begin = odd_really(&scan, (unsigned)(p - page));
            if (begin >= 0)
                at[found++] = (uint16_t)begin;
        }
        p++;
    }
    return found;
}
