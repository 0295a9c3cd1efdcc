/* The end of a machine one of whose vCPUs does not stop: its thread loops or waits without end, by an error of vitro that a guest may have found.
 * SIGTERM, the timeout and all other ends must end the process nevertheless.
 *
 * Nothing can be taken down, since the thread may use all of it. So this is what SIGKILL would leave, which every file of the machine's
 * is safe against, with the terminal given back and the status that was due. Runs on the machine's thread. */
#include <signal.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include "base/log.h"
#include "machine/vm.h"

void vm_stuck(struct vm *vm)
{
    console_rescue();
    log_msg(LOG_ERROR, "a vCPU does not stop: that is an error of vitro; the machine ends as if it were killed");
    if (vm->stuck)
        vm->stuck(vm);
}

bool vm_signal_ends(unsigned signo) { return signo == SIGTERM || signo == SIGINT || signo == SIGHUP || signo == SIGQUIT; }

/* The next signal that ends the machine, or 0. */
static int stuck_signal(const struct vm *vm)
{
    struct signalfd_siginfo info;

    while (vm->signals.fd >= 0 && read(vm->signals.fd, &info, sizeof(info)) == sizeof(info))
        if (vm_signal_ends(info.ssi_signo))
            return (int)info.ssi_signo;
    return 0;
}

void vm_stuck_if_ending(struct vm *vm)
{
    uint64_t times;

    vm->life.signal = stuck_signal(vm);
    if (vm->life.signal)
        vm->life.end = VM_END_SIGNAL;
    else if (vm->deadline.fd >= 0 && read(vm->deadline.fd, &times, sizeof(times)) == sizeof(times))
        vm->life.end = VM_END_TIMEOUT;
    if (vm->life.end != VM_RUNS)
        vm_stuck(vm);
}
