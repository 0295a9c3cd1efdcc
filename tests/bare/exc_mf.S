/* SPDX-License-Identifier: Apache-2.0 */
/*
 * #MF with CR0.NE = 1: an unmasked x87 exception shows at the next waiting x87 or MMX instruction, not at
 * FNxxx control instructions, and again until it is cleared.
 * Manual: SDM 1 8.7.1; 3A 6.15 "Interrupt 16".
 * qemu: differs (fld1): TCG delivers #MF only on FWAIT
 * qemu: differs (fst to memory): TCG delivers #MF only on FWAIT
 * qemu: differs (an MMX instruction): TCG delivers #MF only on FWAIT
 * qemu: differs (emms): TCG delivers #MF only on FWAIT
 * qemu: differs (fldcw waits): TCG delivers #MF only on FWAIT
 * qemu: differs (unmasked later): TCG does not re-evaluate or detect this exception
 * qemu: differs (status: ES, SF, IE): TCG does not re-evaluate or detect this exception
 * qemu: differs (stack underflow: the next): TCG does not re-evaluate or detect this exception
 */
#include "rt.h"

TEST64 exc_mf
    fninit
    fldcw cw_zm
    fld1
    fldz
    NOFAULT "the division itself does not fault", fdivrp
    NOFAULT "fnstsw does not wait", fnstsw %ax
    EXPECT_BITS "status: ES, ZE, B", %rax, $0x8084, $0x8084
    NOFAULT "fnstcw does not wait", fnstcw rt_buf
    NOFAULT "fnstenv does not wait", fnstenv rt_buf
    fninit
    fldcw cw_zm
    fld1
    fldz
    fdivrp
    FAULTS "fwait", MF, 0, fwait
    FAULTS "fld1", MF, 0, fld1
    FAULTS "fst to memory", MF, 0, fsts rt_buf
    FAULTS "an MMX instruction", MF, 0, pxor %mm0, %mm0
    FAULTS "emms", MF, 0, emms
    FAULTS "fldcw waits", MF, 0, fldcw cw_zm
    NOFAULT "SSE does not look", pxor %xmm0, %xmm0
    NOFAULT "fxsave does not look", fxsave rt_buf
    NOFAULT "fnclex", fnclex
    NOFAULT "after fnclex", fld1
    fninit
    NOFAULT "masked: no exception", fld1
    fldz
    fdivrp
    NOFAULT "masked: no exception later", fwait
    /* unmasking a flag that is set raises it at the next waiting instruction */
    fldcw cw_zm
    FAULTS "unmasked later", MF, 0, fwait
    fninit
    fldcw cw_im
    NOFAULT "stack underflow: the instruction itself", fstp %st(1)
    fnstsw %ax
    EXPECT_BITS "status: ES, SF, IE", %rax, $0xC1, $0xC1
    FAULTS "stack underflow: the next", MF, 0, fwait
    fnclex
    DONE

    .data
cw_zm: .word 0x37B  /* ZM clear */
cw_im: .word 0x37E  /* IM clear */
