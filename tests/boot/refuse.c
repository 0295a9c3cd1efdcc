/* Runs a program on a host that refuses some system calls, as a container's filter does:
 *
 *   refuse FIRST LAST ERRNO PROGRAM [ARG...]      (numbers of x86-64's calls, and of the error)
 */
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <unistd.h>

#define FIELD(name) offsetof(struct seccomp_data, name)

int main(int argc, char **argv)
{
    if (argc < 5) {
        fprintf(stderr, "usage: refuse FIRST LAST ERRNO PROGRAM [ARG...]\n");
        return 2;
    }
    uint32_t first = (uint32_t)atoi(argv[1]), last = (uint32_t)atoi(argv[2]), error = (uint32_t)atoi(argv[3]);
    struct sock_filter code[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, FIELD(arch)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, AUDIT_ARCH_X86_64, 0, 4),
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, FIELD(nr)),
        BPF_JUMP(BPF_JMP | BPF_JGE | BPF_K, first, 0, 2),
        BPF_JUMP(BPF_JMP | BPF_JGT | BPF_K, last, 1, 0),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | error),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog prog = { .len = sizeof(code) / sizeof(code[0]), .filter = code };

    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0 || prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &prog) < 0) {
        perror("refuse: seccomp");
        return 77;
    }
    execv(argv[4], argv + 4);
    perror(argv[4]);
    return 2;
}
