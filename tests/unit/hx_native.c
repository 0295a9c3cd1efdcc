/* The reference: one instruction executed by this CPU with all registers loaded, and saved after it. */
#include <signal.h>
#include <stdio.h>
#include <sys/mman.h>
#include <ucontext.h>

#include "hx_fake.h"

/* What the assembly below loads and saves. */
static struct {
    uint64_t r[16];                                   /* 0 */
    uint64_t flags;                                   /* 128 */
    uint64_t host_rsp;                                /* 136 */
    uint64_t code;                                    /* 144 */
    uint32_t mxcsr, host_mxcsr;                       /* 152, 156 */
    uint64_t k[8];                                    /* 160 */
    uint64_t avx512, spare[3];                        /* 224 */
    uint8_t fx[512] __attribute__((aligned(64)));     /* 256 */
    uint8_t zmm[32][64] __attribute__((aligned(64))); /* 768 */
} native __attribute__((used));

static uint8_t *native_page;
static volatile int native_vector;

void native_enter(void);
void native_back(void);

/* clang-format off */
#define Z4(op, n, a, b, c, d) op(n, a) op(n, b) op(n, c) op(n, d)
#define LDZ(n) "vmovups native+768+64*" #n "(%rip), %zmm" #n "\n"
#define STZ(n) "vmovups %zmm" #n ", native+768+64*" #n "(%rip)\n"
#define LDY(n) "vmovups native+768+64*" #n "(%rip), %ymm" #n "\n"
#define STY(n) "vmovups %ymm" #n ", native+768+64*" #n "(%rip)\n"
#define LDK(n) "kmovq native+160+8*" #n "(%rip), %k" #n "\n"
#define STK(n) "kmovq %k" #n ", native+160+8*" #n "(%rip)\n"
#define ALL16(x) x(0) x(1) x(2) x(3) x(4) x(5) x(6) x(7) x(8) x(9) x(10) x(11) x(12) x(13) x(14) x(15)
#define HIGH16(x) x(16) x(17) x(18) x(19) x(20) x(21) x(22) x(23) x(24) x(25) x(26) x(27) x(28) x(29) x(30) x(31)
#define ALL8(x) x(0) x(1) x(2) x(3) x(4) x(5) x(6) x(7)
#define GPRS(x) x(0, rax) x(1, rcx) x(2, rdx) x(3, rbx) x(5, rbp) x(6, rsi) x(7, rdi) x(8, r8) x(9, r9) x(10, r10) \
                x(11, r11) x(12, r12) x(13, r13) x(14, r14) x(15, r15)
#define LDR(n, name) "mov native+8*" #n "(%rip), %" #name "\n"
#define STR(n, name) "mov %" #name ", native+8*" #n "(%rip)\n"

__asm__(
    ".text\n.globl native_enter\n.globl native_back\n"
    "native_enter:\n"
    "push %rbx\npush %rbp\npush %r12\npush %r13\npush %r14\npush %r15\n"
    "mov %rsp, native+136(%rip)\n"
    "fxrstor64 native+256(%rip)\n"
    "cmpl $0, native+224(%rip)\nje 1f\n"
    ALL16(LDZ) HIGH16(LDZ) ALL8(LDK) "jmp 2f\n"
    "1:\n" ALL16(LDY)
    "2: stmxcsr native+156(%rip)\nldmxcsr native+152(%rip)\n"
    "push native+128(%rip)\npopfq\n"
    GPRS(LDR)
    "jmp *native+144(%rip)\n"
    "native_back:\n"
    GPRS(STR)
    "mov native+136(%rip), %rsp\n"
    "pushfq\npop native+128(%rip)\n"
    "stmxcsr native+152(%rip)\nldmxcsr native+156(%rip)\n"
    "cmpl $0, native+224(%rip)\nje 3f\n"
    ALL16(STZ) HIGH16(STZ) ALL8(STK) "jmp 4f\n"
    "3:\n" ALL16(STY)
    "4: fxsave64 native+256(%rip)\nfninit\nvzeroupper\ncld\n"
    "pop %r15\npop %r14\npop %r13\npop %r12\npop %rbp\npop %rbx\nret\n");
/* clang-format on */

static void native_signal(int sig, siginfo_t *si, void *context)
{
    ucontext_t *uc = context;
    uint64_t rip = (uint64_t)uc->uc_mcontext.gregs[REG_RIP];
    if (rip < (uint64_t)native_page || rip >= (uint64_t)native_page + 4096) {
        fprintf(stderr, "unexpected signal %d at %#lx\n", sig, (unsigned long)rip);
        signal(sig, SIG_DFL);
        return;
    }
    native_vector = (int)uc->uc_mcontext.gregs[REG_TRAPNO];
    uc->uc_mcontext.gregs[REG_RIP] = (greg_t)(uintptr_t)native_back;
}

void hx_native_init(void)
{
    struct sigaction sa = { .sa_sigaction = native_signal, .sa_flags = SA_SIGINFO };
    const int sigs[] = { SIGFPE, SIGILL, SIGSEGV, SIGBUS };
    for (unsigned n = 0; n < 4; n++)
        sigaction(sigs[n], &sa, NULL);
    native_page = mmap(NULL, 4096, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    native.avx512 = __builtin_cpu_supports("avx512bw") != 0;
}

uint64_t hx_native_rip(void) { return (uint64_t)native_page + 64; }

static void native_put_code(const uint8_t *code, unsigned len)
{
    uint8_t *p = native_page + 64;
    uint64_t back = (uint64_t)(uintptr_t)native_back;
    memcpy(p, code, len);
    memcpy(p + len, "\xff\x25\0\0\0\0", 6);
    memcpy(p + len + 6, &back, 8);
    native.code = (uint64_t)p;
}

int hx_native(struct cpu *cpu, const uint8_t *code, unsigned len)
{
    native_put_code(code, len);
    memcpy(native.r, cpu->r, sizeof(native.r));
    memcpy(native.zmm, cpu->zmm, sizeof(native.zmm));
    memcpy(native.k, cpu->k, sizeof(native.k));
    memcpy(native.fx, &cpu->fx, 512);
    *(uint32_t *)(native.fx + 24) = HX_MXCSR;
    native.mxcsr = cpu->mxcsr;
    native.flags = 0x202 | aflags_to_rflags(cpu->aflags);
    native_vector = -1;
    native_enter();
    uint64_t rsp = cpu->r[RSP];
    memcpy(cpu->r, native.r, sizeof(native.r));
    cpu->r[RSP] = rsp;
    memcpy(cpu->zmm, native.zmm, sizeof(native.zmm));
    memcpy(cpu->k, native.k, sizeof(native.k));
    memcpy(&cpu->fx, native.fx, 160);
    cpu->mxcsr = native.mxcsr;
    cpu->aflags = aflags_from_rflags((uint32_t)native.flags);
    return native_vector;
}
