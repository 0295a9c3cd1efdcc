/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a test says: "FAIL NAME expected X got Y" for each check that fails, at the end "ok TEST checks N" or
 * "failed TEST checks N", or "skip: REASON", on the serial port at 0x3F8; then the verdict to port 0xF4:
 * 0 passed, 1 failed, 2 skipped (exit status 1, 3, 5). A test without a single check has failed.
 */
#include "rt.h"

    .section .lowdata, "aw"
    .globl rt_checks, rt_fails
rt_checks: .quad 0
rt_fails: .quad 0

    .text
    CODE32
    .globl rt_serial_init
rt_serial_init: /* 115200 baud, 8N1, FIFOs on, no interrupts */
    OUTB 0x3F9, $0
    OUTB 0x3FB, $0x80
    OUTB 0x3F8, $1
    OUTB 0x3F9, $0
    OUTB 0x3FB, $3
    OUTB 0x3FA, $7
    OUTB 0x3FC, $3
    ret

#define BITS 64
#include "report.inc"
#undef BITS
#define BITS 32
#include "report.inc"
#undef BITS
    .section .low, "awx"
#define BITS 16
#include "report.inc"
