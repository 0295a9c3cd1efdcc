/* SPDX-License-Identifier: Apache-2.0 */
/*
 * An exception with an IDT of limit 0 is a #GP, then a #DF that cannot be delivered, then shutdown.
 * expect: shutdown
 * Manual: SDM 3A 6.15 "Interrupt 8".
 */
#include "rt.h"

TEST32 exc_triple_limit
    lidtl none
    SHUTDOWN_NEXT ud2

    .data
none: .word 0
    .long 0
