/* Bit and integer helpers; all inline, no state. */
#ifndef VITRO_BASE_BITS_H
#define VITRO_BASE_BITS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define BIT(n) (1ULL << (n))
#define ARRAY_LEN(a) (sizeof(a) / sizeof((a)[0]))
#define ALIGN_UP(x, a) (((x) + ((a) - 1)) & ~((uint64_t)(a) - 1))
#define ALIGN_DOWN(x, a) ((x) & ~((uint64_t)(a) - 1))
#define container_of(ptr, type, member) ((type *)((char *)(ptr) - offsetof(type, member)))
#define likely(x) __builtin_expect(!!(x), 1)
#define unlikely(x) __builtin_expect(!!(x), 0)
/* A variable that is not made zero (the build does that to all others). For large ones on hot paths, of which only what was written is read. */
#define NO_INIT __attribute__((uninitialized))

/* Bits hi..lo of v, right-aligned (the manuals' v[hi:lo]). hi - lo must be below 63. */
static inline uint64_t bits(uint64_t v, unsigned hi, unsigned lo)
{
    return (v >> lo) & ((1ULL << (hi - lo + 1)) - 1);
}

/* v with bits hi..lo replaced by x. */
static inline uint64_t bits_set(uint64_t v, unsigned hi, unsigned lo, uint64_t x)
{
    uint64_t mask = ((1ULL << (hi - lo + 1)) - 1) << lo;
    return (v & ~mask) | ((x << lo) & mask);
}

/* All ones in the low `bytes` bytes; bytes is 1 to 8. */
static inline uint64_t mask_bytes(unsigned bytes)
{
    return ~0ULL >> (64 - 8 * bytes);
}

/* True when [start, start+len) wraps or leaves [0, limit). */
static inline bool range_outside(uint64_t start, uint64_t len, uint64_t limit)
{
    return len > limit || start > limit - len;
}

/* Nothing but zeroes, len bytes of them. */
static inline bool mem_is_zero(const void *p, size_t len)
{
    return len == 0 || (*(const uint8_t *)p == 0 && !memcmp(p, (const uint8_t *)p + 1, len - 1));
}

/* Little-endian loads and stores at any alignment. */
static inline uint16_t ld_le16(const void *p) { uint16_t v; memcpy(&v, p, 2); return v; }
static inline uint32_t ld_le32(const void *p) { uint32_t v; memcpy(&v, p, 4); return v; }
static inline uint64_t ld_le64(const void *p) { uint64_t v; memcpy(&v, p, 8); return v; }
static inline void st_le16(void *p, uint16_t v) { memcpy(p, &v, 2); }
static inline void st_le32(void *p, uint32_t v) { memcpy(p, &v, 4); }
static inline void st_le64(void *p, uint64_t v) { memcpy(p, &v, 8); }

/* The same, big-endian. */
static inline uint16_t ld_be16(const void *p) { return __builtin_bswap16(ld_le16(p)); }
static inline uint32_t ld_be32(const void *p) { return __builtin_bswap32(ld_le32(p)); }
static inline uint64_t ld_be64(const void *p) { return __builtin_bswap64(ld_le64(p)); }
static inline void st_be16(void *p, uint16_t v) { st_le16(p, __builtin_bswap16(v)); }
static inline void st_be32(void *p, uint32_t v) { st_le32(p, __builtin_bswap32(v)); }
static inline void st_be64(void *p, uint64_t v) { st_le64(p, __builtin_bswap64(v)); }

#endif
