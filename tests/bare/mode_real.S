/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Real mode: segment * 16, offsets that pass 0xFFFF (#GP 13, or #SS 12 through SS), the 1 MiB edge with A20
 * on, interrupts through the IVT (FLAGS, CS, IP of 16 bits; IF and TF clear), IRET, far calls, instructions
 * that are #UD, PUSH SP, #DE and #UD, segment registers of any value, 32-bit operands, GS and FS.
 * Manual: SDM 3A 20.1.
 * qemu: differs (word at 0xFFFF): TCG does not check the limit
 * qemu: differs (dword at 0xFFFD): TCG does not check the limit
 * qemu: differs (word at ss:0xFFFF): TCG does not check the limit
 * qemu: differs (32-bit offset past the limit): TCG does not check the limit
 */
#include "rt.h"

TEST_LOW mode_real
    movb $0x5A, 0x12345
    movb $0xA5, 0x10FFE0
    movb $0x3C, 0xFFE0
    REAL
    mov %cr0, %eax
    EXPECT_BITS "PE", %eax, $CR0_PE, $0
    mov $0x1234, %ax
    mov %ax, %fs
    movzbl %fs:5, %eax
    EXPECT "fs * 16 + 5", %eax, $0x5A
    mov $0xFFFF, %ax
    mov %ax, %gs
    movzbl %gs:0xFFF0, %eax
    EXPECT "0xFFFF0 + 0xFFF0: above 1 MiB", %eax, $0xA5
    mov %gs, %ax
    movzwl %ax, %eax
    EXPECT "any value in a segment register", %eax, $0xFFFF
    FAULTS "word at 0xFFFF", GP, 0, movw %fs:0xFFFF, %ax
    FAULTS "dword at 0xFFFD", GP, 0, movl %fs:0xFFFD, %eax
    NOFAULT "byte at 0xFFFF", movb %fs:0xFFFF, %al
    FAULTS "word at ss:0xFFFF", SSF, 0, movw %ss:0xFFFF, %ax
    mov $0x10000, %ebx
    FAULTS "32-bit offset past the limit", GP, 0, movb %fs:(%ebx), %al
    /* interrupts */
    pushfl
    pop %ebx
    mov %esp, %ecx
    TRAPS "int 0x40", 0x40, 0, int $0x40
    EXPECT "cs in the frame", x_cs, $0
    lea -6(%ecx), %edx
    EXPECT "the frame has six bytes", x_frame, %edx
    sti
    ARM 1f
    int $0x41
1:  EXPECT_BITS "IF in the frame", x_flags, $FL_IF, $FL_IF
    EXPECT_BITS "IF and TF are clear in the handler", x_hflags, $(FL_IF|FL_TF), $0
    cli
    FAULTS "ud2", UD, 0, ud2
    xor %edx, %edx
    xor %ecx, %ecx
    FAULTS "div by zero", DE, 0, div %cx
    TRAPS "int3", BP, 0, int3
    /* an own handler by the IVT, with IRET */
    movw $handler, 0x42 * 4
    movw $0x0100, 0x42 * 4 + 2
    subw $0x1000, 0x42 * 4
    stc
    int $0x42
    EXPECT_FLAGS "iret restores the flags", FL_CF, FL_CF
    EXPECT "the handler ran", %ebp, $0x0100
    /* protected-mode instructions */
    FAULTS "sldt", UD, 0, sldt %ax
    FAULTS "str", UD, 0, str %ax
    FAULTS "lldt", UD, 0, lldt %ax
    FAULTS "ltr", UD, 0, ltr %ax
    FAULTS "lar", UD, 0, lar %ax, %ax
    FAULTS "verr", UD, 0, verr %ax
    FAULTS "arpl", UD, 0, .byte 0x63, 0xC0
    FAULTS "syscall", UD, 0, syscall
    FAULTS "sysenter", GP, 0, sysenter
    NOFAULT "smsw", smsw %ax
    NOFAULT "clts", clts
    NOFAULT "sgdt", sgdtl rt_buf16
    /* far call and return, with another CS for the same code */
    lcall $0x0100, $(far_target - 0x1000)
    EXPECT "far call: cs was", %ebp, $0x0100
    mov $0x7000, %esp
    push %sp
    pop %ax
    movzwl %ax, %eax
    EXPECT "push sp pushes the old value", %eax, $0x7000
    mov $0, %esp
    mov $0x6000, %ax
    mov %ax, %ss
    pushw $0x1234
    mov %esp, %edx
    xor %ax, %ax
    mov %ax, %ss
    mov $0x7000, %esp
    EXPECT "push at sp = 0 wraps to 0xFFFE", %edx, $0xFFFE
    mov $0x66778899, %eax
    push %eax
    pop %bx
    pop %cx
    movzwl %bx, %ebx
    EXPECT "32-bit push, 16-bit pops", %ebx, $0x8899
    PM32
    DONE

    CODE16
handler:
    mov %cs, %bp
    movzwl %bp, %ebp
    clc
    iretw
far_target:
    mov %cs, %bp
    movzwl %bp, %ebp
    lretw
    .section .lowdata, "aw"
rt_buf16: .quad 0
