/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A double fault whose gate is not present is shutdown, in 64-bit mode.
 * expect: shutdown
 * Manual: SDM 3A 6.15 "Interrupt 8".
 */
#include "rt.h"

TEST64 exc_triple_df
    movb $0x0E, rt_idt64 + 16 * DF + 5
    movb $0x0E, rt_idt64 + 16 * GP + 5
    mov $0xFFF8, %ecx
    SHUTDOWN_NEXT mov %ecx, %fs
