/* CRC-32 by table over 32 KiB: a byte load and a table load that depend on each other. */
#include "bench.h"

#define CRC_BYTES 32768

static uint32_t crc_table[256];
static uint8_t crc_data[CRC_BYTES];

void crc_setup(void)
{
    for (uint32_t i = 0; i < 256; i++) {
        uint32_t c = i;

        for (int bit = 0; bit < 8; bit++)
            c = (c >> 1) ^ (c & 1 ? 0xedb88320u : 0);
        crc_table[i] = c;
    }
    for (unsigned i = 0; i < CRC_BYTES; i++)
        crc_data[i] = (uint8_t)bench_random(i);
}

uint64_t crc_round(void)
{
    uint32_t c = ~0u;

    for (unsigned i = 0; i < CRC_BYTES; i++)
        c = crc_table[(c ^ crc_data[i]) & 0xff] ^ (c >> 8);
    return ~c;
}
