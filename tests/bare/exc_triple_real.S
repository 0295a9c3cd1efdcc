/* SPDX-License-Identifier: Apache-2.0 */
/*
 * In real mode too an interrupt vector past the IDT's limit ends in shutdown when no exception can be
 * delivered.
 * expect: shutdown
 * Manual: SDM 3A 20.1.4, 6.15 "Interrupt 8".
 */
#include "rt.h"

TEST_LOW exc_triple_real
    REAL
    lidtl none
    SHUTDOWN_NEXT int $0x21

    .section .lowdata, "aw"
none: .word 0
    .long 0
