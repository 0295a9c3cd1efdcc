/* SPDX-License-Identifier: Apache-2.0 */
/*
 * EFER: reserved bits are #GP(0); LME cannot change with paging on; LMA follows LME and PG and writes to it
 * do not count; NXE and SCE read back.
 * Manual: SDM 3A 2.2.1, 9.8.5; 4 table 2-2; APM 2 3.1.7.
 * qemu: differs (reserved bit 1): TCG ignores unknown bits
 * qemu: differs (reserved bit 16): TCG ignores unknown bits
 * qemu: differs (reserved bit 32): TCG ignores unknown bits
 * qemu: differs (reserved bit 63): TCG ignores unknown bits
 * qemu: differs (LME cannot be cleared with paging on): TCG lets it be cleared or ignores it
 * qemu: differs (LME cannot be set with paging on): TCG lets LME change
 */
#include "rt.h"

TEST64 sys_efer
    RDMSR_ MSR_EFER
    mov %eax, %ebx
    EXPECT_BITS "LME and LMA", %rax, $(EFER_LME|EFER_LMA), $(EFER_LME|EFER_LMA)
    .irp bit, 1, 16
    mov %ebx, %eax
    bts $\bit, %eax
    xor %edx, %edx
    FAULTS "reserved bit \bit", GP, 0, wrmsr
    .endr
    .irp bit, 32, 63
    mov %ebx, %eax
    xor %edx, %edx
    bts $(\bit - 32), %edx
    FAULTS "reserved bit \bit", GP, 0, wrmsr
    .endr
    mov %ebx, %eax
    xor %edx, %edx
    NOFAULT "the old value", wrmsr
    and $~EFER_LME, %eax
    FAULTS "LME cannot be cleared with paging on", GP, 0, wrmsr
    mov %ebx, %eax
    wrmsr
    or $EFER_SCE, %eax
    wrmsr
    xor %eax, %eax
    rdmsr
    EXPECT_BITS "SCE reads back", %rax, $EFER_SCE, $EFER_SCE
    EXPECT "the upper half is zero", %rdx, $0
    mov %ebx, %eax
    wrmsr
    UNLONG
    RDMSR_ MSR_EFER
    EXPECT "zero after leaving", %eax, $0
    WRMSR_ MSR_EFER, $EFER_LME
    rdmsr
    EXPECT "LME without paging: no LMA", %eax, $EFER_LME
    WRMSR_ MSR_EFER, $0
    call rt_pae_on
    WRMSR_ MSR_EFER, $0
    mov $EFER_LME, %eax
    FAULTS "LME cannot be set with paging on", GP, 0, wrmsr
    call rt_pg_off
    DONE
