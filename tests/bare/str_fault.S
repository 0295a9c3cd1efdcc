/* SPDX-License-Identifier: Apache-2.0 */
/*
 * String instructions that fault midway: the registers show how far they came, the saved RIP is that of the
 * instruction (its first prefix), what was done is done, and it can be resumed; with REP, REPE, REPNE, DF =
 * 0 and 1, each operand size, elements that straddle the edge, 32-bit address size, and faults on either
 * operand.
 * Manual: SDM 2B REP, MOVS, STOS, LODS, CMPS, SCAS; 1 7.3.9.
 */
#include "rt.h"

#define EDGE (TVA + 0x1000)

TEST64 str_fault
    movl $TPA + 7, rt_pt        /* one page; the one behind is missing */
    mov $EDGE - 40, %edi
    mov $100, %ecx
    mov $0x55, %al
    FAULTS "rep stosb", PF, 2, rep stosb
    EXPECT "stosb: rdi", %rdi, $EDGE
    EXPECT "stosb: rcx", %rcx, $60
    EXPECT "stosb: cr2", x_cr2, $EDGE
    EXPECT_BITS "stosb: the last byte", TPA+0xFF8, $0x7F000000, $0x55000000
    mov $EDGE - 40, %edi
    mov $100, %ecx
    mov $0x1122334455667788, %rax
    FAULTS "rep stosq", PF, 2, rep stosq
    EXPECT "stosq: rdi", %rdi, $EDGE
    EXPECT "stosq: rcx", %rcx, $95
    EXPECT "stosq: the last", TPA+0xFF8, %rax
    mov $EDGE - 10, %edi
    mov $9, %ecx
    FAULTS "rep stosl with an element across", PF, 2, rep stosl
    EXPECT "stosl: rdi", %rdi, $(EDGE-2)
    EXPECT "stosl: rcx", %rcx, $7
    EXPECT "stosl: cr2", x_cr2, $EDGE
    EXPECT_BITS "stosl: nothing of the element across", TPA+0xFF8, $0xFF, $0x66
    EXPECT_BITS "stosl: its bytes in the first page", TPA+0xFFC, $0x7FFF0000, $0x11220000
    /* movs: fault on the source, then on the destination */
    mov $EDGE - 12, %esi
    mov $rt_buf, %edi
    mov $50, %ecx
    FAULTS "rep movsl, source", PF, 0, rep movsl
    EXPECT "movsl: rsi", %rsi, $EDGE
    EXPECT "movsl: rdi", %rdi, $(rt_buf+12)
    EXPECT "movsl: rcx", %rcx, $47
    mov $rt_buf, %esi
    mov $EDGE - 5, %edi
    mov $50, %ecx
    FAULTS "rep movsb, destination", PF, 2, rep movsb
    EXPECT "movsb: rsi", %rsi, $(rt_buf+5)
    EXPECT "movsb: rdi", %rdi, $EDGE
    EXPECT "movsb: rcx", %rcx, $45
    /* map it and go on: the instruction resumes */
    movl $TPA + 0x3007, rt_pt + 8
    movb $0, TPA + 0x3000 + 44
    movb $0x77, rt_buf + 49
    rep movsb
    EXPECT "resumed: rcx", %rcx, $0
    EXPECT "resumed: rdi", %rdi, $(EDGE+45)
    EXPECT_BITS "resumed: the last byte", TPA+0x3000+44, $0xFF, $0x77
    movl $0, rt_pt + 8
    FLUSH_TLB
    /* DF = 1, downwards into a missing page */
    movl $0, rt_pt
    movl $TPA + 7, rt_pt + 8
    FLUSH_TLB
    std
    mov $EDGE + 16, %edi
    mov $50, %ecx
    FAULTS "std; rep stosl", PF, 2, rep stosl
    EXPECT "std stosl: rdi", %rdi, $(EDGE-4)
    EXPECT "std stosl: rcx", %rcx, $45
    EXPECT "std stosl: cr2", x_cr2, $(EDGE-4)
    mov $EDGE + 1, %esi
    mov $rt_buf + 100, %edi
    mov $9, %ecx
    FAULTS "std; rep movsb, source", PF, 0, rep movsb
    EXPECT "std movsb: rsi", %rsi, $(EDGE-1)
    EXPECT "std movsb: rdi", %rdi, $(rt_buf+98)
    EXPECT "std movsb: rcx", %rcx, $7
    EXPECT_BITS "DF is in the frame", x_flags, $FL_DF, $FL_DF
    cld
    movl $TPA + 7, rt_pt
    movl $0, rt_pt + 8
    FLUSH_TLB
    /* lods, scas, cmps */
    mov $EDGE - 3, %esi
    mov $9, %ecx
    FAULTS "rep lodsb", PF, 0, rep lodsb
    EXPECT "lodsb: rcx", %rcx, $6
    EXPECT "lodsb: rsi", %rsi, $EDGE
    mov $TVA + 0xF00, %edi
    mov $0x100, %ecx
    xor %eax, %eax
    rep stosb
    mov $EDGE - 16, %edi
    mov $99, %ecx
    FAULTS "repe scasw", PF, 0, repe scasw
    EXPECT "scasw: rcx", %rcx, $91
    EXPECT "scasw: rdi", %rdi, $EDGE
    mov $EDGE - 16, %edi
    mov $99, %ecx
    mov $1, %eax
    FAULTS "repne scasb", PF, 0, repne scasb
    EXPECT "repne scasb: rcx", %rcx, $83
    mov $EDGE - 8, %esi
    mov $rt_pages, %edi
    mov $99, %ecx
    FAULTS "repe cmpsb", PF, 0, repe cmpsb
    EXPECT "cmpsb: rcx", %rcx, $91
    EXPECT "cmpsb: rsi", %rsi, $EDGE
    EXPECT "cmpsb: rdi", %rdi, $(rt_pages+8)
    mov $rt_pages, %esi
    mov $EDGE - 8, %edi
    mov $99, %ecx
    FAULTS "repe cmpsq, destination", PF, 0, repe cmpsq
    EXPECT "cmpsq: rcx", %rcx, $98
    EXPECT "cmpsq: rdi", %rdi, $EDGE
    /* no count, no fault; single ones fault without moving */
    mov $EDGE, %edi
    xor %ecx, %ecx
    NOFAULT "rep stosb of nothing", rep stosb
    FAULTS "stosb", PF, 2, stosb
    EXPECT "stosb: rdi", %rdi, $EDGE
    mov $EDGE - 2, %edi
    mov %edi, %esi
    FAULTS "movsl across", PF, 0, movsl
    EXPECT "movsl across: rsi", %rsi, $(EDGE-2)
    /* 32-bit addresses: only ESI, EDI, ECX count, and their upper halves are cleared when they change */
    mov $0xFFFFFFFF00000000 + EDGE - 8, %rdi
    mov $0xFFFFFFFF00000010, %rcx
    ARM 1f
2:  .byte 0x67
    rep stosb
1:  RT_CHECK "rep stosb, 32-bit addresses", PF, 2, 2b
    EXPECT "32-bit: edi", %rdi, $EDGE
    EXPECT "32-bit: ecx", %rcx, $8
    mov $EDGE - 8, %edi
    mov $rt_buf, %esi
    mov $0xFFFFFFFF00000000, %rax
    or %rax, %rsi
    mov $0xFFFFFFFF00000004, %rcx
    .byte 0x67
    rep movsb
    EXPECT "32-bit: rcx after", %rcx, $0
    EXPECT "32-bit: rsi after", %rsi, $(rt_buf+4)
    /* ins and outs */
    mov $0x3FD, %edx
    mov $EDGE - 2, %edi
    mov $5, %ecx
    FAULTS "rep insb", PF, 2, rep insb
    EXPECT "insb: rdi", %rdi, $EDGE
    EXPECT "insb: rcx", %rcx, $3
    mov $0x80, %edx
    mov $EDGE - 2, %esi
    mov $5, %ecx
    FAULTS "rep outsb", PF, 0, rep outsb
    EXPECT "outsb: rsi", %rsi, $EDGE
    EXPECT "outsb: rcx", %rcx, $3
    DONE
