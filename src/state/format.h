/* The bytes of described state; shared by save.c, load.c and desc.c.
 *
 *   section = "VST1" name instance:u32 version:u32 length:u64 body checksum:u64
 *   name    = n:u8, then n bytes out of A-Z a-z 0-9 _ . - (n is 1 to STATE_NAME_MAX)
 *   body    = fields:u16, then that many fields; length counts its bytes
 *   field   = name kind:u8 count:u32 payload
 *   payload = u8 u16 u32 u64: count numbers
 *             bool: count bytes, each 0 or 1
 *             bytes: count bytes
 *             struct: version:u32 of the inner description, then count bodies
 *
 * Numbers are little-endian and unaligned. The checksum is XXH64 with seed 0 over everything of
 * the section before it. A stream of states is sections one after another with nothing between.
 */
#ifndef VITRO_STATE_FORMAT_H
#define VITRO_STATE_FORMAT_H

#include "state/state.h"

#define STATE_MAGIC     "VST1"
#define STATE_MAGIC_LEN 4

/* Bytes of one element of a plain kind; 0 for STATE_STRUCT and unknown kinds. */
static inline size_t state_width(enum state_kind kind)
{
    switch (kind) {
    case STATE_U8:
    case STATE_BOOL:
    case STATE_BYTES:
        return 1;
    case STATE_U16:
        return 2;
    case STATE_U32:
        return 4;
    case STATE_U64:
        return 8;
    case STATE_STRUCT:
        break;
    }
    return 0;
}

/* True for 1 to STATE_NAME_MAX bytes of the alphabet above. */
bool state_name_ok(const char *name, size_t len);

#endif
