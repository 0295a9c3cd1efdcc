/* One machine: memory, CPUs, chips, and its life.
 *
 * Threads: the thread that calls vm_run() owns the machine (the "machine's thread"): it runs the event loop
 * and is the only one that pauses, resumes and resets. Each vCPU has a thread of its own (vcpu_thread.c).
 * Whoever wants something done (a chip on a vCPU's thread, a callback, a signal) notes it with vm_request();
 * the machine's thread does it between two runs of the loop, when it holds no lock.
 *
 * Lock order: the device lock (loop), then vm->life.lock (a leaf).
 */
#ifndef VITRO_MACHINE_VM_H
#define VITRO_MACHINE_VM_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "ata/ahci.h"
#include "base/clock.h"
#include "base/loop.h"
#include "base/rand.h"
#include "block/block.h"
#include "boot/boot.h"
#include "bus/bus.h"
#include "bus/device.h"
#include "chip/acpi_pm.h"
#include "chip/debug_exit.h"
#include "chip/dma8237.h"
#include "chip/fpu_error.h"
#include "chip/hpet.h"
#include "chip/i8042.h"
#include "chip/ioapic.h"
#include "chip/pic8259.h"
#include "chip/pit8254.h"
#include "chip/post.h"
#include "chip/pvpanic.h"
#include "chip/rtc.h"
#include "chip/uart16550.h"
#include "chip/vmgenid.h"
#include "engine/engine.h"
#include "machine/config.h"
#include "machine/console.h"
#include "machine/firmware.h"
#include "machine/serial.h"
#include "pci/display.h"
#include "pci/host.h"
#include "pci/lpc.h"
#include "ram/ram.h"
#include "virtio/balloon.h"
#include "virtio/blk.h"
#include "virtio/console.h"
#include "virtio/net.h"
#include "virtio/rng.h"
#include "x86/cpuid.h"
#include "x86/lapic.h"

struct err;
struct json_t;

#define VM_UARTS       4
#define VM_SERIALS     (VM_UARTS + CONFIG_CONSOLES) /* the ends of UARTs, then of virtio consoles */
#define VM_MAX_DEVICES 64

/* What somebody wants from the machine's thread; bits. */
enum {
    VM_REQ_POWER_OFF = 1, /* ACPI S5 */
    VM_REQ_RESET = 2,     /* reset register, keyboard controller, port 0x92, console */
    VM_REQ_TRIPLE = 4,    /* a vCPU shut down */
    VM_REQ_PANIC = 8,     /* pvpanic */
    VM_REQ_DEBUG_EXIT = 16,
    VM_REQ_TIMEOUT = 32,
    VM_REQ_QUIT = 64,    /* console */
    VM_REQ_SIGNAL = 128, /* life.signal says which */
    VM_REQ_PAUSE = 256,  /* pause, or go on if paused */
    VM_REQ_HOOK = 512,   /* call vm->hook.serve */
    VM_REQ_CALL = 1024,   /* life.calls */
    VM_REQ_MOVED = 2048,  /* it runs elsewhere now */
};

/* Why a machine ended. */
enum vm_end {
    VM_RUNS,
    VM_END_POWER_OFF,
    VM_END_REBOOT,
    VM_END_DEBUG,
    VM_END_TIMEOUT,
    VM_END_TRIPLE,
    VM_END_PANIC,
    VM_END_QUIT,
    VM_END_SIGNAL,
    VM_END_MOVED,
    VM_END_ERROR
};

struct vm_vcpu {
    struct vcpu vcpu;
    struct lapic lapic;
    struct vm *vm;
    pthread_t thread;
    bool has_thread;
};

/* A port of the virtio console. */
struct vm_port {
    struct virtio_console *device;
    unsigned number;
};

/* Something for the machine's thread to do between two runs of the loop, when no lock is held: fn may pause, save and
 * resume the machine. Embed it; it must live until fn is called, and is not touched after that. */
struct vm_call {
    void (*fn)(struct vm_call *call, struct vm *vm);
    struct vm_call *next;
};

struct vm_life {
    pthread_mutex_t lock; /* guards what follows; a leaf */
    pthread_cond_t go;    /* vCPUs wait here while the machine stands */
    pthread_cond_t idle;  /* the machine's thread waits here until all vCPUs stand */
    bool run, quit;
    unsigned standing; /* vCPU threads that are not inside the engine */
    uint32_t requests;
    struct vm_call *calls;
    uint32_t debug_value;
    int signal;
    _Atomic unsigned nap_us; /* see vm_slow_down() */
    /* the machine's thread only */
    bool paused;
    bool handing; /* it is being handed over: vm_set_paused() does nothing */
    bool hold; /* a machine that begins paused stays so */
    uint64_t resets;
    enum vm_end end;
};

/* What somebody above the machine does on the machine's thread. */
struct vm_hook {
    void (*started)(void *opaque); /* before the first instruction, nobody waits any more; no lock held */
    void (*serve)(void *opaque);   /* after VM_REQ_HOOK, between two runs of the loop; no lock held */
    void *opaque;
};

struct vm {
    struct machine_config *cfg; /* borrowed; vm_disk_overlay() changes it, under the device lock */
    struct clock clock;
    struct loop loop;
    struct ram ram;
    struct bus io, mmio;
    struct engine engine;
    struct cpuid_table cpuid;
    struct lapic_bus lapics;
    struct vm_vcpu *vcpu[MAX_VCPUS]; /* owned */
    unsigned nvcpus;

    struct pic pic;
    struct pit pit;
    struct ioapic ioapic;
    struct hpet hpet;
    struct rtc rtc;
    struct i8042 i8042;
    struct dma8237 dma;
    struct post post;
    struct uart uart[VM_UARTS];
    struct acpi_pm pm;
    struct pci_host pci;
    struct lpc lpc;
    struct vm_firmware firmware;
    struct pvpanic pvpanic;
    struct debug_exit debug_exit;
    struct fpu_error fpu_error;
    struct vmgenid genid;
    uint8_t isa_sources[16]; /* who drives each ISA interrupt high: see pc.c */

    struct rand_source rand;
    struct virtio_rng rng;
    struct virtio_balloon balloon;
    struct virtio_console vcon; /* if cfg->consoles */
    struct vm_port port[CONFIG_CONSOLES];
    struct vm_disk *disk[CONFIG_DISKS + 2]; /* owned, see pc_virtio.c; behind them CD and seed */
    unsigned ndisks;
    struct {
        struct block *block; /* owned; NULL: there is no drive */
        struct ahci ahci;
    } cd;
    struct vm_net *net[CONFIG_NETS]; /* owned, see pc_net.c */
    unsigned nnets;
    struct vm_share *share[CONFIG_SHARES]; /* owned, see pc_share.c */
    unsigned nshares;
    struct display display;   /* if cfg->vga */
    struct vm_vsock *vsock; /* owned, see pc_vsock.c; NULL: none */

    struct device device[VM_MAX_DEVICES]; /* all of the above but CPUs and local APICs */
    unsigned ndevices;

    /* What Ctrl-] s and SIGUSR1 do, on the machine's thread with the device lock held; may be NULL. */
    void (*on_save)(struct vm *vm, void *opaque);
    void *save_opaque;

    struct serial serial[VM_SERIALS];
    struct console console;
    struct loop_fd signals, deadline, woken; /* signalfd and timerfds; -1: none */
    struct vm_call on_woken;
    bool woken_called;

    struct boot_image kernel;
    uint8_t *initrd; /* owned */
    size_t initrd_len;
    int boot_fd[2]; /* kernel and initrd that are read when the machine is reset; -1: none, or read already */

    struct vm_life life;
    struct vm_hook hook; /* set before vm_run() */
    /* A vCPU does not stop, life.end says why the machine ends: end the process with its status, taking nothing down. NULL: wait on. */
    void (*stuck)(struct vm *vm);
};

/* Build a machine that stands at its first instruction. cfg is borrowed for the machine's life and has passed
 * config_check(); ops is the engine. Returns 0, or -errno with a sentence in err and *out NULL: nothing is
 * left behind. */
int vm_create(struct vm **out, struct machine_config *cfg, const struct engine_ops *ops,
              struct err *err);
/* The same, but nothing is loaded into its memory: it waits, paused, for a saved state. vm_run() then lets it go on,
 * unless life.hold is set. */
int vm_create_blank(struct vm **out, struct machine_config *cfg, const struct engine_ops *ops,
                    struct err *err);
/* The same, for a state whose memory is written into the machine's: user code may run by itself then, which it does not in memory that is a file's (mapped). */
int vm_create_filled(struct vm **out, struct machine_config *cfg, const struct engine_ops *ops, struct err *err);
/* User code of such a machine runs by itself, if its memory is shared (ram_share()). */
bool vm_wants_direct(const struct machine_config *cfg, const struct engine_ops *ops);
/* vm_run() has returned or was never called. NULL is allowed. */
void vm_destroy(struct vm *vm);

/* Run until the machine ends; returns why. signals is a signalfd's descriptor whose signals end the machine,
 * or -1. */
enum vm_end vm_run(struct vm *vm, int signals);

/* Stop all vCPUs, devices and guest time, or let them go on; nothing if it is so already. The machine's thread (a hook),
 * no lock held. */
void vm_set_paused(struct vm *vm, bool paused);

/* Put disk n (as --disk was given, from 0) under an overlay: from now on the guest's writes go to the qcow2 image at path, and
 * the image that was there is its backing file, durable, read-only, and open to other readers (other overlays). For snapshots:
 * whoever asks makes the new image (image_overlay_make(), which needs no lock on the present one) and hands over its descriptor; the machine opens nothing. fd is taken over, also on failure; path, absolute, is what the
 * configuration (and so a saved machine) says from now on, see config_overlay_begin().
 * The machine's thread, no lock held, the machine paused. 0; or -errno with a sentence, and the disk is as it was. */
int vm_disk_overlay(struct vm *vm, unsigned n, int fd, const char *path, struct err *err);

/* The images `go`, which disk n stands on just below `image`, become part of that. An image that the disk is written to (fd -1) takes in what they hold, a
 * piece from *pos on with each call, until *done; one below it is replaced by the file open as fd (taken over, also on failure), which holds all of that. *done: the
 * machine and its configuration do without them, or did already. The machine's thread, no lock held. 0, or -errno with a sentence. */
struct vm_merge {
    const char *image;
    const char *const *go;
    unsigned gone;
    int fd;
};
int vm_disk_merge(struct vm *vm, unsigned n, const struct vm_merge *m, uint64_t *pos, bool *done, struct err *err);

/* Disk n, raw and not ephemeral, is block from now on (taken over, also on failure), the open file path without its lock: another medium. What was
 * written to the old one is durable, and its file is closed. The machine's thread, no lock held. 0; or -errno with a sentence, and the disk is
 * as it was. */
int vm_change_disk(struct vm *vm, unsigned n, struct block *block, const char *path, struct err *err);

/* The machine was forked, or set back to an older state: give it a new generation ID and tell the guest. Any
 * thread, no lock held. 0 or -errno. */
int vm_change_generation(struct vm *vm);

enum vm_generation {
    VM_GENERATION_UNHEARD, /* since its last reset no driver of the guest has asked for the ID: it knows nothing of changes */
    VM_GENERATION_PENDING, /* there is one, and it has not dealt with the last change yet */
    VM_GENERATION_TAKEN    /* it has dealt with all of them (Linux: the kernel's random numbers begin anew) */
};
/* The device lock is held. */
enum vm_generation vm_generation(const struct vm *vm);

/* Ask the guest to live with so much memory (at most what the machine has): the rest goes into the balloon,
 * if and when the guest wants. Any thread, no lock held. 0, or -ERANGE. */
int vm_set_memory(struct vm *vm, uint64_t bytes);

/* Other limits for disk n or network card n (what it receives, or sends) from now on; a rate that is NULL stays as it is. Any thread,
 * no lock held. 0, or -ENOENT. */
int vm_limit_disk(struct vm *vm, unsigned n, const struct limit_rate *bytes, const struct limit_rate *ops);
int vm_limit_net(struct vm *vm, unsigned n, bool rx, const struct limit_rate *bytes, const struct limit_rate *ops);
/* The same of the entropy device, which each machine has. */
void vm_limit_rng(struct vm *vm, const struct limit_rate *bytes, const struct limit_rate *ops);

/* The exit status of `vitro run` for how the machine ended (128+n stands for signal n). */
int vm_status(const struct vm *vm);
/* "powered off", ... */
const char *vm_end_name(enum vm_end end);

/* The port that a person uses: the first one on stdio or the control socket, else COM1. */
struct serial *vm_console_port(struct vm *vm);

/* Ask for something. Any thread, any lock held but life.lock. */
void vm_request(struct vm *vm, uint32_t requests);
/* Any thread, any lock held but life.lock. Calls that come after the machine's end are not made. */
void vm_call(struct vm *vm, struct vm_call *call);

/* Stop vCPUs, devices and guest time: nothing is under way then; and let them go on. The machine's thread, no lock
 * held. Pausing what is paused does nothing. */
void vm_pause(struct vm *vm);
void vm_resume(struct vm *vm);

/* vm_dirty.c: note which pages are written, by vCPUs and devices, or stop that. The machine's thread, no lock held. */
void vm_dirty_log(struct vm *vm, bool on);
/* Where the pages of each slot are told, as ram_dirty_collect() wants it. */
struct vm_dirty {
    uint8_t *bitmap[RAM_MAX_SLOTS];
    size_t size[RAM_MAX_SLOTS];
};
/* What was written since the last time. Whoever copies the pages afterwards has them as they are now, or as they are later, and
 * then they are told again. Returns how many, or -errno. The machine's thread, no lock held. */
int64_t vm_dirty_collect(struct vm *vm, const struct vm_dirty *d);
/* Let a child process that is forked now see the memory as it is now, while the machine goes on: ram_still_begin(), which says what it returns;
 * ram_still_end() follows. The machine's thread, no lock held, the machine paused. */
int vm_still_begin(struct vm *vm);
/* Each vCPU sleeps for so many microseconds (at most 100,000) now; 0: not any more. Any thread, any lock but life.lock. */
void vm_slow_down(struct vm *vm, unsigned us);

/* vm_woken.c: look at the clock when the host has slept. 0 or -errno. */
int vm_watch_clock(struct vm *vm);
/* The host's TSC may have begun again: guest time goes on from where it was. The machine's thread, no lock held. */
void vm_woken(struct vm *vm);

/* vm_stats.c: what the CPUs counted so far. As lines that begin with head; as an object (the caller's), which has every counter as an
 * array by CPU; in the form that the configuration asks for on stderr. Any thread. */
void vm_stats_text(const struct vm *vm, FILE *f, const char *head);
struct json_t *vm_stats_json(const struct vm *vm);
void vm_stats_say(const struct vm *vm);

/* --- between the parts of the machine --- */

/* pc.c: the memory, before the engine; make and connect all chips; put them into the state after reset, with
 * the kernel loaded. */
int pc_init_ram(struct vm *vm, struct err *err);
int pc_init(struct vm *vm, struct err *err);
void pc_fini(struct vm *vm);
int pc_reset(struct vm *vm, struct err *err);
void pc_reset_blank(struct vm *vm); /* the same with nothing loaded */
/* For pc_virtio.c: note a device for reset, pause and destroy; deliver an MSI-X message (opaque is the vm). */
void pc_add_device(struct vm *vm, const struct device_ops *ops, void *dev, unsigned instance);
void pc_deliver(void *opaque, const struct apic_msg *msg);

/* pc_virtio.c: what is on PCI slots; after the rest, and undone after it. */
int pc_init_virtio(struct vm *vm, struct err *err);
void pc_fini_virtio(struct vm *vm);
/* Everything that was written is in the files of disks and firmware variables, for whoever opens them next; nothing is under way. */
int pc_flush_disks(struct vm *vm, struct err *err);
/* A machine that was made with disks_late: its disks are looked at when it is made, and opened by this, without their locks, when nobody
 * writes to them any more. No vCPU has run; the machine stands. 0 or -errno with a sentence. */
int pc_open_disks(struct vm *vm, struct err *err);
/* Disk n, which was not there yet, is block, of the same size; it is the machine's from now on. As above. */
void pc_set_disk(struct vm *vm, unsigned n, struct block *block);
/* A machine that moves: take the locks of disks (and of firmware variables) that were opened without; give them up for good, after a flush. */
int pc_take_disks(struct vm *vm, struct err *err);
void pc_give_disks(struct vm *vm);
struct block *pc_disk_block(const struct vm *vm, unsigned n); /* what is behind disk n, borrowed; the machine stands */
unsigned pc_disk_slot(const struct vm *vm, unsigned n); /* PCI slot of disk n */

/* pc_console.c: the virtio console; tell it how large the terminal is (device lock held). */
int pc_init_console(struct vm *vm, struct err *err);
void pc_console_resize(struct vm *vm);

/* Disk n or network card n as a device (borrowed), for its counters; device lock held. */
const struct virtio_blk *pc_disk(const struct vm *vm, unsigned n);
const struct virtio_net *pc_net(const struct vm *vm, unsigned n);

/* pc_net.c: network cards. Their ports' threads end before any device is destroyed. */
int pc_init_net(struct vm *vm, struct err *err);
/* The machine is a copy of another one: its cards get addresses of their own, see virtio_net_readdress(). No lock held. 0 or -errno. */
int pc_readdress_nets(struct vm *vm);
void pc_stop_net(struct vm *vm);
void pc_fini_net(struct vm *vm);
/* pc_share.c, called by these */
int pc_init_shares(struct vm *vm, struct err *err);
void pc_fini_shares(struct vm *vm);
/* What the guest wrote to open files of shared folders is where another host finds it. Any thread. */
void pc_flush_shares(struct vm *vm);

/* pc_display.c: the display card, on the slot after all others; its memory, before the engine; what firmware would have done,
 * device lock held. Nothing if there is none. */
int pc_display_init_ram(struct vm *vm);
int pc_init_display(struct vm *vm, struct err *err);
void pc_display_set_up(struct vm *vm);

/* pc_vsock.c, the same */
int pc_init_vsock(struct vm *vm, struct err *err);
void pc_fini_vsock(struct vm *vm);

/* pc_agent.c: put the agent into the initrd that was read, if it is wanted; the kernel's command line with what starts it, to
 * free() (NULL: no memory). */
int pc_agent_initrd(struct vm *vm, struct err *err);
char *pc_agent_cmdline(const struct vm *vm, const char *text);

/* vm_stuck.c: a vCPU's thread does not stop, which is an error of vitro: say so, and end the process without it by vm->stuck. The
 * machine's thread. */
void vm_stuck(struct vm *vm);
/* Is it one of those that end a machine? */
bool vm_signal_ends(unsigned signo);
/* The same if a signal or the timeout waits to end the machine; else nothing. life.lock may be held. */
void vm_stuck_if_ending(struct vm *vm);

/* vcpu_thread.c */
extern const struct cpu_ops vcpu_thread_ops;
int vcpu_threads_start(struct vm *vm, struct err *err);
/* For good. If one does not stop in seconds, the process ends here (vm_stuck()). */
void vcpu_threads_join(struct vm *vm);
/* vCPU 0 starts as the loader says, the others wait for a start-up IPI. */
void vcpu_set_entry(struct cpu *cpu, const struct boot_entry *e);
/* Stop all vCPUs, and let them go. The machine's thread, no lock held. If one does not stop in seconds, and the machine is to end by a
 * signal or its timeout, the process ends here (vm_stuck()). */
void vcpu_threads_halt(struct vm *vm);
void vcpu_threads_go(struct vm *vm);

#endif
