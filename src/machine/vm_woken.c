/* Hosts that sleep. Their TSC may begin again at zero then, and with it the time of a guest whose clock lies on it (docs/design/machine.md, Time).
 *
 * Linux tells of it by a timer that is cancelled whenever the host's time of day jumps, as it does at the end of a sleep (timerfd_create(2)). Until the machine's thread
 * has looked, some milliseconds, the guest sees a clock that went back. */
#include <errno.h>
#include <stdint.h>
#include <sys/epoll.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include "base/log.h"
#include "machine/vm.h"

#define NEVER (1LL << 33) /* s since 1970 */

static int woken_arm(struct vm *vm)
{
    const struct itimerspec when = { .it_value = { .tv_sec = NEVER } };

    return timerfd_settime(vm->woken.fd, TFD_TIMER_ABSTIME | TFD_TIMER_CANCEL_ON_SET, &when, NULL) < 0 ? -errno : 0;
}

void vm_woken(struct vm *vm)
{
    if (!clock_began_again(&vm->clock))
        return;
    log_msg(LOG_INFO, "the host's TSC began again: guest time goes on from where it was");
    vm_pause(vm);
    clock_go_on(&vm->clock);
    vm_resume(vm);
}

static void woken_call(struct vm_call *call, struct vm *vm)
{
    vm->woken_called = false;
    vm_woken(vm);
}

static void woken_event(void *opaque, uint32_t events)
{
    struct vm *vm = opaque;
    uint64_t times;

    if (read(vm->woken.fd, &times, sizeof(times)) < 0 && errno == EAGAIN)
        return;
    if (woken_arm(vm) < 0) {
        loop_del_fd(&vm->loop, &vm->woken);
        return;
    }
    if (!vm->woken_called)
        vm_call(vm, &vm->on_woken);
    vm->woken_called = true;
}

int vm_watch_clock(struct vm *vm)
{
    if (!vm->clock.tsc)
        return 0;
    vm->on_woken.fn = woken_call;
    vm->woken = (struct loop_fd){ .fd = timerfd_create(CLOCK_REALTIME, TFD_CLOEXEC | TFD_NONBLOCK), .fn = woken_event, .opaque = vm };
    int r = vm->woken.fd < 0 ? -errno : woken_arm(vm);
    return r < 0 ? r : loop_add_fd(&vm->loop, &vm->woken, EPOLLIN);
}
