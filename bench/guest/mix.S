/* An integer loop whose instruction count is known exactly: ALU, shifts, multiply, loads, stores, read-modify-write,
 * byte loads, a branch that is taken every other time, conditional moves, push and pop, call and return.
 *
 * uint64_t mix_round(void) clears its 4 KiB buffer and runs the loop; mix_insns is the count of one call. Both paths
 * of the alternating branch are two instructions long, so the count does not depend on the data.
 */
        .set    QUADS, 520              /* 4096 bytes, and the few beyond that the last index reaches */
        .set    TURNS, 8000
        .set    ENTRY, 4
        .set    CLEAR, 3                /* per quad */
        .set    BEFORE, 4
        .set    TURN, 28
        .set    AFTER, 4

        .section .rodata
        .balign 8
        .globl  mix_insns
mix_insns:
        .quad   ENTRY + CLEAR * QUADS + BEFORE + TURN * TURNS + AFTER

        .local  mix_buf
        .comm   mix_buf, QUADS * 8, 64

        .text
        .globl  mix_round
        .type   mix_round, @function
        .p2align 6
mix_round:
        push    %rbx
        lea     mix_buf(%rip), %rdi
        mov     $QUADS, %ecx
        xor     %eax, %eax

0:      mov     %rax, -8(%rdi,%rcx,8)
        dec     %ecx
        jnz     0b

        mov     $TURNS, %ecx
        mov     $0x2545f491, %eax
        xor     %edx, %edx
        xor     %r8d, %r8d

1:      mov     %rax, %r9
        shr     $17, %r9
        xor     %r9, %rax
        lea     (%rax,%rax,4), %rax
        add     $0x3d, %rax
        mov     %eax, %r10d
        and     $0xff8, %r10d
        mov     (%rdi,%r10), %r11
        add     %rax, %r11
        rol     $7, %r11
        mov     %r11, (%rdi,%r10)
        add     %r11, %r8
        test    $1, %cl
        jz      2f
        sub     $3, %rdx
        jmp     3f
2:      xor     %r8, %rdx
        adc     $0, %r8
3:      cmp     %r8, %rdx
        cmovb   %r8, %rdx
        movzbl  5(%rdi,%r10), %r9d
        imul    $33, %r9, %r9
        add     %r9, 16(%rdi,%r10)
        push    %rax
        pop     %rbx
        call    mix_leaf
        dec     %ecx
        jnz     1b

        mov     %r8, %rax
        xor     %rdx, %rax
        pop     %rbx
        ret
        .size   mix_round, . - mix_round

        .type   mix_leaf, @function
mix_leaf:
        xor     %rbx, %r8
        ret
        .size   mix_leaf, . - mix_leaf

        .section .note.GNU-stack, "", @progbits
