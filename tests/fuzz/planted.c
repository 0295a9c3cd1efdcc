/* A planted defect, to show that the driver finds one: tests/fuzz/meson.build expects this to fail.
 * The input must keep its magic and get a length field that is beyond the input. */
#include "fuzz.h"

#include <string.h>

#include "base/bits.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size >= 8 && memcmp(data, "MAGI", 4) == 0)
        FUZZ_CHECK(ld_le32(data + 4) < 0x1000);
    return 0;
}

size_t fuzz_seed(unsigned n, uint8_t *buf, size_t size)
{
    if (n > 0)
        return 0;
    memcpy(buf, "MAGI\x08\0\0\0somebody", 16);
    return 16;
}
