/* SPDX-License-Identifier: Apache-2.0 */
/* PCI configuration space by ports 0xCF8 and 0xCFC (PCI 3.0, 3.2.2.3.2), of one device on bus 0: dev_at, which cfg_find() sets. For programs in C. */
#ifndef BARE_PCI_H
#define BARE_PCI_H

#include "hot.h"

static inline void out32(u16 port, u32 v) { __asm__ volatile("outl %0, %1" ::"a"(v), "Nd"(port)); }
static inline u32 in32(u16 port)
{
    u32 v;
    __asm__ volatile("inl %1, %0" : "=a"(v) : "Nd"(port));
    return v;
}

static u32 dev_at;
static inline u32 cfg_read(u32 off)
{
    out32(0xcf8, 0x80000000 | dev_at << 11 | (off & 0xfc));
    return in32(0xcfc) >> 8 * (off & 3);
}
static inline void cfg_write(u32 off, u32 v)
{
    out32(0xcf8, 0x80000000 | dev_at << 11 | off);
    out32(0xcfc, v);
}

/* The first device with this vendor (low half) and device. */
static inline int cfg_find(u32 id)
{
    for (dev_at = 0; dev_at < 32; dev_at++)
        if (cfg_read(0) == id)
            return 1;
    return 0;
}

#endif
