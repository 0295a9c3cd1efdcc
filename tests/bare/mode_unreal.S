/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What segment registers keep across changes of mode: a 4 GiB limit loaded in protected mode holds in real
 * mode ("unreal") after a new selector is loaded there, which changes only selector and base; a 32-bit
 * stack segment keeps its B bit; the code segment keeps its attributes until the far jump; big offsets
 * work, also for string instructions.
 * Manual: SDM 3A 3.4.3, 9.9.2, 20.1.1.
 */
#include "rt.h"

TEST_LOW mode_unreal
    movl $0x1BADCAFE, TPA
    GDT_SET SEL(0), $0x3000, $0xFFFFF, 0xC93
    REAL
    lgdtl rt_gdtr_low
    cli
    mov %cr0, %eax
    or $CR0_PE, %eax
    mov %eax, %cr0
    jmp 1f
1:  mov $KDS, %ax
    mov %ax, %fs
    mov $SEL(0), %ax
    mov %ax, %gs
    mov %cr0, %eax
    and $~CR0_PE, %eax
    mov %eax, %cr0
    jmp 2f
2:  mov $TPA, %ebx
    mov %fs:(%ebx), %eax
    EXPECT "4 GiB limit in real mode", %eax, $0x1BADCAFE
    mov $TPA - 0x3000, %ebx
    mov %gs:(%ebx), %eax
    EXPECT "the cached base holds in real mode", %eax, $0x1BADCAFE
    mov %gs, %ax
    movzwl %ax, %eax
    EXPECT "and the selector", %eax, $SEL(0)
    xor %ax, %ax
    mov %ax, %fs
    mov $TPA, %ebx
    mov %fs:(%ebx), %eax
    EXPECT "a selector loaded in real mode keeps the limit", %eax, $0x1BADCAFE
    mov $0x100, %ax
    mov %ax, %gs
    mov $TPA - 0x1000, %ebx
    mov %gs:(%ebx), %eax
    EXPECT "and sets the base", %eax, $0x1BADCAFE
    /* string instruction with 32-bit addresses */
    mov $TPA + 16, %esi
    movl $0x600DF00D, %fs:(%esi)
    mov $rt_buf16, %edi
    xor %eax, %eax
    .byte 0x64, 0x67
    movsl
    EXPECT "movs beyond 64 KiB", rt_buf16, $0x600DF00D
    /* CS: PE off without a far jump keeps 32-bit code running */
    PM32
    mov %cr0, %eax
    and $~CR0_PE, %eax
    mov %eax, %cr0
    mov $0x11223344, %edx       /* five bytes only in 32-bit code */
    mov %edx, %esi
    mov %cr0, %eax
    or $CR0_PE, %eax
    mov %eax, %cr0
    EXPECT "32-bit code goes on with PE = 0", %esi, $0x11223344
    DONE

    .section .lowdata, "aw"
rt_buf16: .quad 0
