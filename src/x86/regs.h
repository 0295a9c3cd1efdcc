/* Architectural constants: flags, control registers, MSRs, vectors, error-code bits.
 * Sources: Intel SDM vol. 3 ch. 2, 4, 6 and vol. 4; AMD APM vol. 2 ch. 3, 5, 8. */
#ifndef VITRO_X86_REGS_H
#define VITRO_X86_REGS_H

/* General registers, in encoding order. */
enum { RAX, RCX, RDX, RBX, RSP, RBP, RSI, RDI, R8, R9, R10, R11, R12, R13, R14, R15 };
/* Two more slots of cpu->r: a register that is always zero, and the address of the next instruction. */
enum { R_ZERO = 16, R_RIP = 17, R_COUNT = 18 };

/* Segment registers, in encoding order. */
enum { SEG_ES, SEG_CS, SEG_SS, SEG_DS, SEG_FS, SEG_GS, SEG_COUNT };

/* RFLAGS */
#define FL_CF   0x0001u
#define FL_ONE  0x0002u
#define FL_PF   0x0004u
#define FL_AF   0x0010u
#define FL_ZF   0x0040u
#define FL_SF   0x0080u
#define FL_TF   0x0100u
#define FL_IF   0x0200u
#define FL_DF   0x0400u
#define FL_OF   0x0800u
#define FL_IOPL 0x3000u
#define FL_NT   0x4000u
#define FL_RF   0x10000u
#define FL_VM   0x20000u
#define FL_AC   0x40000u
#define FL_VIF  0x80000u
#define FL_VIP  0x100000u
#define FL_ID   0x200000u
#define FL_ARITH (FL_CF | FL_PF | FL_AF | FL_ZF | FL_SF | FL_OF)

#define CR0_PE 0x1u
#define CR0_MP 0x2u
#define CR0_EM 0x4u
#define CR0_TS 0x8u
#define CR0_ET 0x10u
#define CR0_NE 0x20u
#define CR0_WP 0x10000u
#define CR0_AM 0x40000u
#define CR0_NW 0x20000000u
#define CR0_CD 0x40000000u
#define CR0_PG 0x80000000u

#define CR4_VME        0x1u
#define CR4_PVI        0x2u
#define CR4_TSD        0x4u
#define CR4_DE         0x8u
#define CR4_PSE        0x10u
#define CR4_PAE        0x20u
#define CR4_MCE        0x40u
#define CR4_PGE        0x80u
#define CR4_PCE        0x100u
#define CR4_OSFXSR     0x200u
#define CR4_OSXMMEXCPT 0x400u
#define CR4_UMIP       0x800u
#define CR4_LA57       0x1000u
#define CR4_FSGSBASE   0x10000u
#define CR4_PCIDE      0x20000u
#define CR4_OSXSAVE    0x40000u
#define CR4_SMEP       0x100000u
#define CR4_SMAP       0x200000u

#define EFER_SCE 0x1u
#define EFER_LME 0x100u
#define EFER_LMA 0x400u
#define EFER_NXE 0x800u
#define EFER_FFXSR 0x4000u

#define XCR0_X87    0x1u
#define XCR0_SSE    0x2u
#define XCR0_AVX    0x4u
#define XCR0_AVX512 0xe0u /* opmask, ZMM_Hi256, Hi16_ZMM */

/* Exception vectors */
enum {
    VEC_DE = 0, VEC_DB = 1, VEC_NMI = 2, VEC_BP = 3, VEC_OF = 4, VEC_BR = 5, VEC_UD = 6, VEC_NM = 7,
    VEC_DF = 8, VEC_TS = 10, VEC_NP = 11, VEC_SS = 12, VEC_GP = 13, VEC_PF = 14, VEC_MF = 16,
    VEC_AC = 17, VEC_MC = 18, VEC_XM = 19,
};

/* Page-fault error code */
#define PF_P  0x1u
#define PF_W  0x2u
#define PF_U  0x4u
#define PF_RSVD 0x8u
#define PF_I  0x10u

/* Descriptor attributes as packed by the AMD APM vol. 2 section 15.5 (VMCB): descriptor bits 40-47 and
 * 52-55. */
#define ATTR_TYPE 0x00fu
#define ATTR_S    0x010u
#define ATTR_DPL  0x060u
#define ATTR_P    0x080u
#define ATTR_AVL  0x100u
#define ATTR_L    0x200u
#define ATTR_DB   0x400u
#define ATTR_G    0x800u
#define ATTR_DPL_SHIFT 5

/* MSRs */
#define MSR_TSC             0x10u
#define MSR_APIC_BASE       0x1bu
#define MSR_TSC_ADJUST      0x3bu
#define MSR_BIOS_SIGN_ID    0x8bu
#define MSR_MTRRCAP         0xfeu
#define MSR_SYSENTER_CS     0x174u
#define MSR_SYSENTER_ESP    0x175u
#define MSR_SYSENTER_EIP    0x176u
#define MSR_MCG_CAP         0x179u
#define MSR_MCG_STATUS      0x17au
#define MSR_MISC_ENABLE     0x1a0u
#define MSR_DEBUGCTL        0x1d9u
#define MSR_PAT             0x277u
#define MSR_MTRR_DEF_TYPE   0x2ffu
#define MSR_TSC_DEADLINE    0x6e0u
#define MSR_X2APIC_BASE     0x800u
#define MSR_XSS             0xda0u
#define MSR_EFER            0xc0000080u
#define MSR_STAR            0xc0000081u
#define MSR_LSTAR           0xc0000082u
#define MSR_CSTAR           0xc0000083u
#define MSR_SFMASK          0xc0000084u
#define MSR_FS_BASE         0xc0000100u
#define MSR_GS_BASE         0xc0000101u
#define MSR_KERNEL_GS_BASE  0xc0000102u
#define MSR_TSC_AUX         0xc0000103u

#endif
