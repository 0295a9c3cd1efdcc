/* System and far-transfer handlers that the decoder binds by itself, because Zydis gives their forms the same
 * mnemonic as ordinary instructions (MOV, PUSH, POP, CALL, JMP). */
#ifndef VITRO_INTERP_OP_SYS_H
#define VITRO_INTERP_OP_SYS_H

#include "x86/insn.h"

/* MOV r, CRn / MOV CRn, r / MOV r, DRn / MOV DRn, r: i->cc is the control or debug register's number (0 to
 * 15), i->r0 the general register's byte offset, FORM_RR. The operand size is 64 bits in 64-bit mode,
 * else 32. INSN_END belongs to op_mov_to_cr and op_mov_to_dr. */
insn_fn op_mov_from_cr, op_mov_to_cr, op_mov_from_dr, op_mov_to_dr;

/* MOV r/m, Sreg (FORM_RR: r0 gets it, osz bytes; FORM_MR: 16 bits to memory) and MOV Sreg, r/m16 (FORM_RR:
 * from r0; FORM_RM: from memory). i->cc is the segment register's number; CS (or above GS) as destination is
 * #UD. op_mov_to_seg needs INSN_END when it loads SS, or anything outside 64-bit mode; simplest: always. */
insn_fn op_mov_from_seg, op_mov_to_seg;

/* PUSH Sreg, POP Sreg: i->cc the segment register's number, i->esz the operand size. op_pop_seg needs
 * INSN_END. */
insn_fn op_push_seg, op_pop_seg;

/* CALL and JMP to ptr16:16/32 (FORM_FAR: imm = offset, sel = selector) or m16:16/32/64 (FORM_M), i->esz the
 * operand size. Both need INSN_END and INSN_BRANCH. */
insn_fn op_far_call, op_far_jmp;

/* RETF and RETF imm16 (Zydis gives them ZYDIS_MNEMONIC_RET with branch type FAR): i->imm the bytes to drop
 * (FORM_I, else none), i->esz the operand size. Needs INSN_END and INSN_BRANCH. */
insn_fn op_far_ret;

#endif
