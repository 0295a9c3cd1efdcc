/* Odd instructions. See odd.h; opcodes: Intel SDM vol. 2, appendix A. */
#include "engine/direct/odd.h"

#include <Zydis/Zydis.h>
#include <string.h>

#include "ram/ram.h"

#define ODD_BACK   96u /* bytes before the place in question, in which decoding finds its step */
#define ODD_STARTS 8u

static unsigned modrm_reg(uint8_t m) { return m >> 3 & 7; }

/* The three bytes from an 0F on. */
static bool odd_bytes(const uint8_t *p, bool cpuid, bool xcr0)
{
    bool memory = p[2] < 0xc0;

    switch (p[1]) {
    case 0x00: return modrm_reg(p[2]) != 2 && modrm_reg(p[2]) != 3 && modrm_reg(p[2]) < 6;
    case 0x01: return (memory && modrm_reg(p[2]) < 2) || modrm_reg(p[2]) == 4 || (xcr0 && p[2] == 0xd0);
    case 0x02:
    case 0x03: return true;
    case 0xa2: return cpuid;
    case 0xae: return xcr0 && memory && modrm_reg(p[2]) == 4;
    case 0xc7: return p[2] >= 0xf8; /* RDPID with F3, which RDSEED has not */
    default: return false;
    }
}

static bool odd_mnemonic(ZydisMnemonic m, bool cpuid, bool xcr0)
{
    switch (m) {
    case ZYDIS_MNEMONIC_LAR:
    case ZYDIS_MNEMONIC_LSL:
    case ZYDIS_MNEMONIC_VERR:
    case ZYDIS_MNEMONIC_VERW:
    case ZYDIS_MNEMONIC_SLDT:
    case ZYDIS_MNEMONIC_STR:
    case ZYDIS_MNEMONIC_SGDT:
    case ZYDIS_MNEMONIC_SIDT:
    case ZYDIS_MNEMONIC_SMSW:
    case ZYDIS_MNEMONIC_RDPID:
        return true;
    case ZYDIS_MNEMONIC_CPUID:
        return cpuid;
    case ZYDIS_MNEMONIC_XGETBV:
    case ZYDIS_MNEMONIC_XSAVE:
    case ZYDIS_MNEMONIC_XSAVE64:
        return xcr0;
    default:
        return false;
    }
}

/* Decoding from `from` on, is there an odd instruction that holds the byte at `at`? */
static bool odd_from(const ZydisDecoder *dec, const uint8_t *page, unsigned from, unsigned at, bool cpuid, bool xcr0)
{
    while (from <= at) {
        ZydisDecodedInstruction z;
        bool ok = ZYAN_SUCCESS(ZydisDecoderDecodeInstruction(dec, NULL, page + from, PAGE_SIZE - from, &z));
        unsigned length = ok ? z.length : 1;

        if (from + length > at)
            return ok && odd_mnemonic(z.mnemonic, cpuid, xcr0);
        from += length;
    }
    return false;
}

/* By the word of most of the places from which it is decoded: x86 code falls into step after a few instructions. */
static bool odd_really(const uint8_t *page, unsigned at, bool cpuid, bool xcr0)
{
    unsigned first = at > ODD_BACK ? at - ODD_BACK : 0, yes = 0, all = 0;
    ZydisDecoder dec;

    ZydisDecoderInit(&dec, ZYDIS_MACHINE_MODE_LONG_64, ZYDIS_STACK_WIDTH_64);
    for (unsigned n = 0; n < ODD_STARTS && first + n <= at; n++) {
        yes += odd_from(&dec, page, first + n, at, cpuid, xcr0);
        all++;
    }
    return yes * 2 >= all;
}

bool odd_page(const uint8_t *page, bool cpuid, bool xcr0)
{
    const uint8_t *end = page + PAGE_SIZE - 2, *p = page;

    while ((p = memchr(p, 0x0f, (size_t)(end - p)))) {
        if (odd_bytes(p, cpuid, xcr0) && odd_really(page, (unsigned)(p - page), cpuid, xcr0))
            return true;
        p++;
    }
    return false;
}
