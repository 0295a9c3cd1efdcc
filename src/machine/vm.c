/* The life of a machine: building it, running it, what ends it. See vm.h for threads and locks. */
#include "machine/vm.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/signalfd.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include "base/err.h"
#include "base/log.h"
#include "boot/layout.h"
#include "engine/trace.h"
#include "machine/host.h"
#include "ram/share.h"
#include "ram/swap.h"

#define VM_DRAIN_MS 2000

/* Requests after which the guest must not run on until they are served. */
#define VM_REQ_STOPS                                                                                         \
    (VM_REQ_POWER_OFF | VM_REQ_RESET | VM_REQ_TRIPLE | VM_REQ_PANIC | VM_REQ_DEBUG_EXIT | VM_REQ_TIMEOUT |   \
     VM_REQ_QUIT | VM_REQ_SIGNAL | VM_REQ_MOVED)

static const char *const vm_end_names[] = {
    [VM_RUNS] = "running",
    [VM_END_POWER_OFF] = "the guest powered off",
    [VM_END_REBOOT] = "the guest rebooted",
    [VM_END_DEBUG] = "the guest wrote to the debug-exit port",
    [VM_END_TIMEOUT] = "the time ran out",
    [VM_END_TRIPLE] = "the guest crashed: triple fault",
    [VM_END_PANIC] = "the guest's kernel panicked",
    [VM_END_QUIT] = "quit from the console",
    [VM_END_SIGNAL] = "ended by a signal",
    [VM_END_MOVED] = "it was moved, and runs elsewhere",
    [VM_END_ERROR] = "an error of vitro",
};

const char *vm_end_name(enum vm_end end) { return vm_end_names[end]; }

int vm_status(const struct vm *vm)
{
    switch (vm->life.end) {
    case VM_END_DEBUG:
        return (int)((vm->life.debug_value << 1 | 1) & 0xff);
    case VM_END_TIMEOUT:
        return 124;
    case VM_END_TRIPLE:
    case VM_END_PANIC:
        return 126;
    case VM_END_SIGNAL:
        return 128 + vm->life.signal;
    case VM_END_ERROR:
        return 125;
    default:
        return 0;
    }
}

/* -- requests -- */

void vm_request(struct vm *vm, uint32_t requests)
{
    pthread_mutex_lock(&vm->life.lock);
    vm->life.requests |= requests;
    if (requests & VM_REQ_STOPS)
        vm->life.run = false;
    pthread_mutex_unlock(&vm->life.lock);
    for (unsigned n = 0; n < vm->nvcpus && (requests & VM_REQ_STOPS); n++)
        vcpu_kick(&vm->vcpu[n]->vcpu, ATT_EXIT);
    loop_stop(&vm->loop);
}

void vm_call(struct vm *vm, struct vm_call *call)
{
    struct vm_call **at = &vm->life.calls;

    call->next = NULL;
    pthread_mutex_lock(&vm->life.lock);
    while (*at)
        at = &(*at)->next;
    *at = call;
    pthread_mutex_unlock(&vm->life.lock);
    vm_request(vm, VM_REQ_CALL);
}

static void vm_serve_calls(struct vm *vm)
{
    struct vm_call *call;

    pthread_mutex_lock(&vm->life.lock);
    call = vm->life.calls;
    vm->life.calls = NULL;
    pthread_mutex_unlock(&vm->life.lock);
    while (call) {
        struct vm_call *next = call->next;

        call->fn(call, vm);
        call = next;
    }
}

static void vm_status_line(struct vm *vm)
{
    uint64_t insns = 0;

    for (unsigned n = 0; n < vm->nvcpus; n++)
        insns += vm->vcpu[n]->vcpu.cpu.insns;
    fprintf(stderr,
            "\nvitro: '%s' %s, %u vCPUs, %" PRIu64 " MiB, guest time %.1f s, %" PRIu64
            " instructions, %" PRIu64 " resets\n",
            vm->cfg->name, vm->life.paused ? "is paused" : "runs", vm->nvcpus, vm->cfg->memory >> 20,
            (double)clock_ns(&vm->clock) / 1e9, insns, vm->life.resets);
}

static void vm_save_wanted(struct vm *vm)
{
    if (vm->on_save)
        vm->on_save(vm, vm->save_opaque);
    else
        fputs("\nvitro: say with --save FILE where the machine is to be saved\n", stderr);
}

/* Console keys; device lock held. */
static void vm_on_console(void *opaque, enum console_command cmd)
{
    struct vm *vm = opaque;

    switch (cmd) {
    case CONSOLE_QUIT:
        vm_request(vm, VM_REQ_QUIT);
        break;
    case CONSOLE_RESET:
        vm_request(vm, VM_REQ_RESET);
        break;
    case CONSOLE_PAUSE:
        vm_request(vm, VM_REQ_PAUSE);
        break;
    case CONSOLE_BREAK:
        uart_break(&vm->uart[0]);
        break;
    case CONSOLE_SAVE:
        vm_save_wanted(vm);
        break;
    case CONSOLE_STATUS:
        vm_status_line(vm);
        break;
    case CONSOLE_COUNTERS:
        fputs("\nvitro: what the CPUs counted so far:\n", stderr);
        vm_stats_text(vm, stderr, "  ");
        break;
    case CONSOLE_POWER:
        if (!acpi_pm_power_button(&vm->pm))
            fputs("\nvitro: the guest does not listen to the power button\n", stderr);
        break;
    }
}

static void vm_on_signal(void *opaque, uint32_t events)
{
    struct vm *vm = opaque;
    struct signalfd_siginfo info;

    if (read(vm->signals.fd, &info, sizeof(info)) != sizeof(info))
        return;
    switch (info.ssi_signo) {
    case SIGTSTP: /* the shell wants its terminal back for a while */
        console_leave(&vm->console);
        kill(getpid(), SIGSTOP);
        break;
    case SIGCONT:
        if (vm->console.wanted)
            console_enter(&vm->console);
        break;
    case SIGUSR1:
        vm_save_wanted(vm);
        break;
    case SIGWINCH:
        pc_console_resize(vm);
        break;
    default:
        if (!vm_signal_ends(info.ssi_signo))
            break;
        vm->life.signal = (int)info.ssi_signo;
        vm_request(vm, VM_REQ_SIGNAL);
        break;
    }
}

static void vm_on_deadline(void *opaque, uint32_t events) { vm_request(opaque, VM_REQ_TIMEOUT); }

/* --timeout is host time: a timerfd, not a timer of the guest's clock. */
static int vm_arm_timeout(struct vm *vm)
{
    uint64_t ns = vm->cfg->timeout_ns;
    struct itimerspec when = { .it_value = { .tv_sec = (time_t)(ns / NSEC_PER_SEC),
                                             .tv_nsec = (long)(ns % NSEC_PER_SEC) } };

    if (!ns)
        return 0;
    vm->deadline.fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
    if (vm->deadline.fd < 0 || timerfd_settime(vm->deadline.fd, 0, &when, NULL) < 0)
        return -errno;
    vm->deadline.fn = vm_on_deadline;
    vm->deadline.opaque = vm;
    return loop_add_fd(&vm->loop, &vm->deadline, EPOLLIN);
}

int vm_change_generation(struct vm *vm)
{
    int r;

    loop_lock(&vm->loop);
    r = vmgenid_change(&vm->genid);
    loop_unlock(&vm->loop);
    return r;
}

enum vm_generation vm_generation(const struct vm *vm)
{
    if (!vm->genid.asked)
        return VM_GENERATION_UNHEARD;
    return acpi_pm_gpe_settled(&vm->pm, LAYOUT_GPE_VMGENID) ? VM_GENERATION_TAKEN : VM_GENERATION_PENDING;
}

int vm_set_memory(struct vm *vm, uint64_t bytes)
{
    if (bytes > vm->cfg->memory)
        return -ERANGE;
    loop_lock(&vm->loop);
    virtio_balloon_set(&vm->balloon, vm->cfg->memory - bytes);
    loop_unlock(&vm->loop);
    return 0;
}

/* -- building -- */

/* A machine whose memory comes from elsewhere needs its kernel only when it is reset: the files are opened now, as they
 * may be out of reach later, and read then. Firmware is given them at once. */
static int vm_open_late(struct vm *vm, struct err *err)
{
    const char *path[2] = { vm->cfg->kernel, vm->cfg->initrd };

    for (unsigned n = 0; n < ARRAY_LEN(path); n++) {
        vm->boot_fd[n] = path[n] ? open(path[n], O_RDONLY | O_CLOEXEC | O_NONBLOCK) : -1;
        if (path[n] && vm->boot_fd[n] < 0)
            return err_set(err, errno, "%s '%s', which the machine needs when it is reset, cannot be opened: %s",
                           n ? "initrd" : "kernel", path[n], strerror(errno));
    }
    return 0;
}

static int vm_read_files(struct vm *vm, bool blank, struct err *err)
{
    int r = pc_firmware_open(vm, err);

    if (r == 0 && blank && !vm->cfg->firmware)
        return vm_open_late(vm, err);
    if (r == 0 && vm->cfg->kernel)
        r = boot_image_open(&vm->kernel, vm->cfg->kernel, err);
    if (r < 0 || !vm->cfg->initrd)
        return r;
    r = boot_read_file(vm->cfg->initrd, "initrd", vm->cfg->memory, &vm->initrd, &vm->initrd_len, err);
    if (r == -EFBIG)
        return err_set(err, EFBIG,
                       "initrd '%s' is larger than the guest's memory of %" PRIu64
                       " MiB: give the guest more with --memory",
                       vm->cfg->initrd, vm->cfg->memory >> 20);
    return r < 0 ? r : pc_agent_initrd(vm, err);
}

/* What end n is to be, and what messages call it. */
static const char *vm_serial_spec(const struct vm *vm, unsigned n, char *name, size_t size)
{
    unsigned i = n - VM_UARTS;

    const char *spec = "none";

    snprintf(name, size, n < VM_UARTS ? "COM%u" : "virtio-console %u", n < VM_UARTS ? n + 1 : i + 1);
    if (n < VM_UARTS)
        spec = config_serial(vm->cfg, n);
    else if (i < vm->cfg->consoles)
        spec = vm->cfg->console[i].where;
    /* In the background there is no terminal, but there is the control socket. */
    return vm->cfg->detach && !strcmp(spec, "stdio") ? "control" : spec;
}

struct serial *vm_console_port(struct vm *vm)
{
    for (unsigned n = 0; n < VM_SERIALS; n++) {
        if (vm->serial[n].kind == SERIAL_STDIO || vm->serial[n].kind == SERIAL_CONTROL)
            return &vm->serial[n];
    }
    return &vm->serial[0];
}

static int vm_open_serials(struct vm *vm, struct err *err)
{
    struct serial_filter filter = { .fn = console_filter, .opaque = &vm->console };
    char name[32];
    int r = 0;

    for (unsigned n = 0; r == 0 && n < VM_SERIALS; n++) {
        const char *where = vm_serial_spec(vm, n, name, sizeof(name));
        r = serial_open(&vm->serial[n], where, name, err);
        if (r == 0 && vm->serial[n].kind == SERIAL_STDIO && vm->console.is_terminal)
            serial_set_filter(&vm->serial[n], filter);
    }
    return r;
}

static unsigned vm_engine_trace(unsigned trace)
{
    return (trace & TRACE_BLOCKS ? ENGINE_TRACE_BLOCKS : 0) | (trace & TRACE_HOST ? ENGINE_TRACE_HOST : 0) |
           (trace & TRACE_EXITS ? ENGINE_TRACE_EXITS : 0) | (trace & TRACE_STATS ? ENGINE_TRACE_STATS : 0);
}

bool vm_wants_direct(const struct machine_config *cfg, const struct engine_ops *ops)
{
    const char *direct = getenv("VITRO_DIRECT");

    return ops == &engine_dbt && !(direct && !strcmp(direct, "off")) && !cfg->swap && !cfg->dedup;
}

/* What comes into a machine's memory. */
enum vm_content {
    VM_LOADED, /* what it begins with */
    VM_FILLED, /* another one's state, written there */
    VM_PLACED  /* or mapped, or taken over */
};

/* User code that runs by itself may read the TSC, if the machine's is the host's: in one that begins here. */
static void vm_init_clock(struct vm *vm, const struct engine_ops *ops, enum vm_content content)
{
    const char *how;
    uint64_t khz = content == VM_LOADED && vm_wants_direct(vm->cfg, ops) ? host_tsc_khz(&how) : 0;

    if (khz)
        clock_init_tsc(&vm->clock, khz);
    else
        clock_init_host(&vm->clock);
}

static int vm_build(struct vm *vm, const struct engine_ops *ops, enum vm_content content, struct err *err)
{
    bool blank = content != VM_LOADED;
    int r = vm_read_files(vm, blank, err);

    ram_share(&vm->ram, content != VM_PLACED && vm_wants_direct(vm->cfg, ops));
    if (r == 0)
        r = pc_init_ram(vm, err); /* an engine wants to know the slots */
    if (r == 0)
        r = engine_init(&vm->engine, ops, &vm->ram, err);
    if (r < 0)
        return r;
    vm->engine.trace = vm_engine_trace(vm->cfg->trace);
    r = pc_init(vm, err);
    if (r == 0 && blank)
        pc_reset_blank(vm);
    else if (r == 0)
        r = pc_reset(vm, err);
    if (r == 0)
        r = vm_open_serials(vm, err); /* last: what it makes is seen from outside */
    return r;
}

static int vm_make(struct vm **out, struct machine_config *cfg, const struct engine_ops *ops, enum vm_content content, struct err *err)
{
    struct vm *vm = calloc(1, sizeof(*vm));
    int r;

    *out = NULL;
    if (!vm)
        return err_set(err, ENOMEM, "out of memory");
    vm->cfg = cfg;
    vm->signals.fd = vm->deadline.fd = vm->woken.fd = -1;
    vm->boot_fd[0] = vm->boot_fd[1] = -1;
    pthread_mutex_init(&vm->life.lock, NULL);
    pthread_cond_init(&vm->life.go, NULL);
    pthread_cond_init(&vm->life.idle, NULL);
    vm_init_clock(vm, ops, content);
    r = loop_init(&vm->loop, &vm->clock);
    if (r < 0) {
        free(vm);
        return err_set(err, -r, "cannot make an event loop: %s", strerror(-r));
    }
    pc_firmware_prepare(vm);
    console_init(&vm->console, vm_on_console, vm);
    for (unsigned n = 0; n < VM_SERIALS; n++)
        serial_init(&vm->serial[n], &vm->loop);
    ram_init(&vm->ram);
    bus_init(&vm->io, "io", &vm->loop, 0x10000);
    bus_init(&vm->mmio, "mmio", &vm->loop, 0);
    r = vm_build(vm, ops, content, err);
    if (r == 0) {
        *out = vm;
        return 0;
    }
    for (unsigned n = 0; n < VM_SERIALS; n++)
        serial_abandon(&vm->serial[n]);
    vm_destroy(vm);
    return r;
}

int vm_create(struct vm **out, struct machine_config *cfg, const struct engine_ops *ops, struct err *err)
{
    return vm_make(out, cfg, ops, VM_LOADED, err);
}

void vm_destroy(struct vm *vm)
{
    if (!vm)
        return;
    for (unsigned n = 0; n < ARRAY_LEN(vm->boot_fd); n++) {
        if (vm->boot_fd[n] >= 0)
            close(vm->boot_fd[n]);
    }
    console_leave(&vm->console);
    pc_fini(vm);
    for (unsigned n = 0; n < VM_SERIALS; n++)
        serial_close(&vm->serial[n]);
    if (vm->engine.ops)
        engine_fini(&vm->engine);
    for (unsigned n = 0; n < MAX_VCPUS; n++)
        free(vm->vcpu[n]);
    if (vm->deadline.fd >= 0)
        close(vm->deadline.fd);
    if (vm->woken.fd >= 0)
        close(vm->woken.fd);
    ram_fini(&vm->ram);
    pc_firmware_close(vm);
    boot_image_close(&vm->kernel);
    free(vm->initrd);
    loop_fini(&vm->loop);
    pthread_mutex_destroy(&vm->life.lock);
    pthread_cond_destroy(&vm->life.go);
    pthread_cond_destroy(&vm->life.idle);
    free(vm);
}

/* -- running -- */

static void vm_each_device(struct vm *vm, bool pause)
{
    for (unsigned n = 0; n < vm->ndevices; n++) {
        const struct device_ops *ops = vm->device[n].ops;
        void (*fn)(void *dev) = pause ? ops->pause : ops->resume;

        if (fn)
            fn(vm->device[n].dev);
    }
    for (unsigned n = 0; n < vm->nvcpus; n++) {
        void (*fn)(void *dev) = pause ? lapic_ops.pause : lapic_ops.resume;

        if (fn)
            fn(&vm->vcpu[n]->lapic);
    }
}

/* Guest time stands while the machine does. */
static void vm_freeze(struct vm *vm)
{
    loop_lock(&vm->loop);
    vm_each_device(vm, true);
    clock_stop(&vm->clock);
    loop_unlock(&vm->loop);
    vm->life.paused = true;
}

void vm_pause(struct vm *vm)
{
    if (vm->life.paused)
        return;
    vcpu_threads_halt(vm);
    vm_freeze(vm);
}

static int vm_create_without(struct vm **out, struct machine_config *cfg, const struct engine_ops *ops, enum vm_content content, struct err *err)
{
    int r = vm_make(out, cfg, ops, content, err);

    if (r == 0)
        vm_freeze(*out);
    return r;
}

int vm_create_blank(struct vm **out, struct machine_config *cfg, const struct engine_ops *ops, struct err *err)
{
    return vm_create_without(out, cfg, ops, VM_PLACED, err);
}

int vm_create_filled(struct vm **out, struct machine_config *cfg, const struct engine_ops *ops, struct err *err)
{
    return vm_create_without(out, cfg, ops, VM_FILLED, err);
}

void vm_resume(struct vm *vm)
{
    loop_lock(&vm->loop);
    clock_start(&vm->clock);
    vm_each_device(vm, false);
    loop_unlock(&vm->loop);
    loop_kick(&vm->loop);
    vm->life.paused = false;
    vcpu_threads_go(vm);
}

void vm_set_paused(struct vm *vm, bool paused)
{
    if (paused == vm->life.paused || vm->life.handing)
        return;
    if (paused)
        vm_pause(vm);
    else
        vm_resume(vm);
}

static void vm_toggle_pause(struct vm *vm)
{
    vm_set_paused(vm, !vm->life.paused);
    if (vm->console.wanted)
        fprintf(stderr, "\nvitro: '%s' %s\n", vm->cfg->name,
                vm->life.paused ? "is paused: Ctrl-] p lets it go on" : "goes on");
}

static void vm_reset(struct vm *vm)
{
    struct err err = { "" };

    vcpu_threads_halt(vm);
    pthread_mutex_lock(&vm->life.lock);
    vm->life.requests &= ~(VM_REQ_RESET | VM_REQ_TRIPLE); /* of the same crash, from other vCPUs */
    pthread_mutex_unlock(&vm->life.lock);
    if (vm->cfg->trace & TRACE_EXITS)
        log_msg(LOG_INFO, "trace: reset");
    if (pc_reset(vm, &err) < 0) {
        log_msg(LOG_ERROR, "cannot reset the machine: %s", err.text);
        vm->life.end = VM_END_ERROR;
        return;
    }
    vm->life.resets++;
    if (!vm->life.paused)
        vcpu_threads_go(vm);
}

/* What the pending requests mean for the machine; the first that matches counts. */
static enum vm_end vm_ending(const struct vm *vm, uint32_t req)
{
    static const struct {
        uint32_t request;
        enum vm_end end;
    } ends[] = {
        { VM_REQ_MOVED, VM_END_MOVED },
        { VM_REQ_SIGNAL, VM_END_SIGNAL },       { VM_REQ_QUIT, VM_END_QUIT },
        { VM_REQ_DEBUG_EXIT, VM_END_DEBUG },    { VM_REQ_PANIC, VM_END_PANIC },
        { VM_REQ_POWER_OFF, VM_END_POWER_OFF }, { VM_REQ_TIMEOUT, VM_END_TIMEOUT },
    };

    for (size_t i = 0; i < ARRAY_LEN(ends); i++) {
        if (req & ends[i].request)
            return ends[i].end;
    }
    if (vm->cfg->no_reboot && (req & VM_REQ_TRIPLE))
        return VM_END_TRIPLE;
    if (vm->cfg->no_reboot && (req & VM_REQ_RESET))
        return VM_END_REBOOT;
    return VM_RUNS;
}

/* Between two runs of the loop: no lock is held. */
static void vm_serve(struct vm *vm)
{
    uint32_t req;

    pthread_mutex_lock(&vm->life.lock);
    req = vm->life.requests;
    vm->life.requests = 0;
    pthread_mutex_unlock(&vm->life.lock);
    vm->life.end = vm_ending(vm, req);
    if (vm->life.end != VM_RUNS)
        return;
    if (req & (VM_REQ_RESET | VM_REQ_TRIPLE))
        vm_reset(vm);
    if (req & VM_REQ_PAUSE)
        vm_toggle_pause(vm);
    if ((req & VM_REQ_HOOK) && vm->hook.serve)
        vm->hook.serve(vm->hook.opaque);
    if (req & VM_REQ_CALL)
        vm_serve_calls(vm);
}

static void vm_finish(struct vm *vm)
{
    vcpu_threads_join(vm);
    loop_lock(&vm->loop);
    for (unsigned n = 0; n < VM_SERIALS; n++) {
        serial_drain(&vm->serial[n], VM_DRAIN_MS);
        serial_stop(&vm->serial[n]);
    }
    loop_unlock(&vm->loop);
    if (vm->signals.fd >= 0)
        loop_del_fd(&vm->loop, &vm->signals);
    console_leave(&vm->console);
    if (vm->cfg->trace & TRACE_STATS)
        vm_stats_say(vm);
    if (vm->cfg->trace & TRACE_EXITS)
        log_msg(LOG_INFO, "trace: end: %s", vm_end_name(vm->life.end));
}

/* --dedup. The memory has its last place by now. */
static int vm_merge(struct vm *vm, struct err *err)
{
    int r = vm->cfg->dedup ? ram_merge(&vm->ram) : 0;

    if (r < 0)
        return err_set(err, -r, "--dedup: this host's kernel merges no pages (KSM): %s", strerror(-r));
    if (!vm->cfg->dedup)
        return 0;
    log_msg(LOG_WARN, "--dedup: a guest can find out, by how long a write takes, that another machine has the same page: it is for guests that "
                      "trust each other");
    if (host_ksm() != HOST_KSM_ON)
        log_msg(LOG_WARN, "--dedup: nothing is merged, as KSM is off: as root, write 1 to /sys/kernel/mm/ksm/run");
    return 0;
}

static int vm_begin(struct vm *vm, int signals, struct err *err)
{
    int r = vm_merge(vm, err);

    if (r < 0)
        return r;
    r = vm_arm_timeout(vm);
    if (r == 0)
        r = vm_watch_clock(vm);
    vm->signals = (struct loop_fd){ .fd = signals, .fn = vm_on_signal, .opaque = vm };
    if (r == 0 && signals >= 0)
        r = loop_add_fd(&vm->loop, &vm->signals, EPOLLIN);
    if (r < 0)
        return err_set(err, -r, "cannot watch signals and time: %s", strerror(-r));
    r = ram_swap_start(&vm->ram);
    if (r < 0)
        return err_set(err, -r, "cannot start a thread for the swap file: %s", strerror(-r));
    r = vcpu_threads_start(vm, err);
    if (r == 0)
        r = sandbox_enter(err); /* all is open, and no vCPU has run */
    if (r < 0)
        return r;
    for (unsigned n = 0; n < VM_SERIALS; n++)
        vm->console.wanted |= vm->serial[n].kind == SERIAL_STDIO;
    if (vm->console.wanted)
        console_enter(&vm->console);
    loop_lock(&vm->loop);
    for (unsigned n = 0; n < VM_SERIALS; n++)
        serial_start(&vm->serial[n]);
    pc_console_resize(vm);
    loop_unlock(&vm->loop);
    return 0;
}

enum vm_end vm_run(struct vm *vm, int signals)
{
    struct err err = { "" };
    void *stack = console_stack_init();
    int r = vm_begin(vm, signals, &err);

    if (r == 0 && vm->hook.started)
        vm->hook.started(vm->hook.opaque);
    if (r == 0 && !vm->life.paused)
        vcpu_threads_go(vm);
    else if (r == 0 && !vm->life.hold)
        vm_resume(vm);
    while (r == 0 && vm->life.end == VM_RUNS) {
        r = loop_run(&vm->loop);
        vm_serve(vm);
    }
    if (r < 0) {
        vm->life.end = VM_END_ERROR;
        log_msg(LOG_ERROR, "%s", err.text[0] ? err.text : strerror(-r));
    }
    vm_finish(vm);
    console_stack_fini(stack);
    return vm->life.end;
}
