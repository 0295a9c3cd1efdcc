/* The wiring of the `pc` machine: which chips there are, at which ports and addresses, and whose output goes
 * to whose input. Addresses come from boot/layout.h, so that the ACPI tables tell the truth.
 *
 *   ISA interrupt n ---> 8259 pair input n ---> INTR ---> LINT0 of the boot CPU (ExtINT), I/O APIC pin 0
 *                  \---> I/O APIC pin n (0 goes to pin 2) ---> messages to the local APICs
 *   PCI INTA..D    ---> I/O APIC pins 16..19, and 8259 inputs 10, 11
 *
 * Threads: pc_init() and pc_fini() while no other thread knows the machine; pc_reset() on the machine's
 * thread while no vCPU runs; the interrupt functions with the device lock held.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/err.h"
#include "base/log.h"
#include "boot/layout.h"
#include "machine/vm.h"
#include "ram/large.h"
#include "ram/share.h"
#include "ram/swap.h"
#include "x86/mmu.h"

_Static_assert(LAYOUT_S5_TYP == ACPI_PM_SLP_TYP_S5, "the tables and the chip agree on S5");
_Static_assert(LAYOUT_GSI_SCI == ACPI_PM_SCI_IRQ, "the tables and the wiring agree on the SCI");
_Static_assert(LAYOUT_IOAPIC == IOAPIC_GPA && LAYOUT_HPET == HPET_GPA && LAYOUT_LAPIC == LAPIC_GPA,
               "the tables and the chips agree on addresses");

/* Who may drive an ISA interrupt. Interrupts 3 and 4 have two serial ports each; 0 and 8 have the HPET beside
 * their own chip; 10 and 11 have two PCI lines each. The line is high while one of them drives it. */
enum { PC_SRC_CHIP, PC_SRC_SECOND, PC_SRC_HPET, PC_SRC_INTA /* and three more */ };

#define PC_IRQ_PIN(irq, source) ((irq) | (unsigned)(source) << 4)

/* -- interrupts -- */

static void pc_trace_irq(struct vm *vm, const char *what, unsigned n, bool level)
{
    if (vm->cfg->trace & TRACE_IRQ)
        log_msg(LOG_INFO, "trace: irq: %s %u %s", what, n, level ? "high" : "low");
}

/* Note who drives an ISA interrupt; true when the line's level changed. */
static bool pc_drive(struct vm *vm, unsigned irq, unsigned source, bool level)
{
    uint8_t was = vm->isa_sources[irq], bit = (uint8_t)(1u << source);
    uint8_t now = (uint8_t)(level ? was | bit : was & ~bit);

    vm->isa_sources[irq] = now;
    return !was != !now;
}

/* An ISA interrupt line; pin is PC_IRQ_PIN(). */
static void pc_isa_irq(void *opaque, unsigned pin, bool level)
{
    struct vm *vm = opaque;
    unsigned irq = pin & 15;

    if (!pc_drive(vm, irq, pin >> 4, level))
        return;
    level = vm->isa_sources[irq];
    pc_trace_irq(vm, "isa", irq, level);
    pic_set_irq(&vm->pic, irq, level);
    ioapic_set_irq(&vm->ioapic, irq == 0 ? 2 : irq, level);
}

static struct irq_line pc_isa_line(struct vm *vm, unsigned irq, unsigned source)
{
    return (struct irq_line){ .fn = pc_isa_irq, .opaque = vm, .pin = PC_IRQ_PIN(irq, source) };
}

/* PCI INTA..INTD of the host bridge; line n carries the pins with (slot + pin) mod 4 = n. I/O APIC pins 10
 * and 11 are not connected to PCI, only the 8259 pair's are. */
static void pc_pci_irq(void *opaque, unsigned n, bool level)
{
    struct vm *vm = opaque;
    unsigned irq = layout_pci_pic_irq(0, n);

    pc_trace_irq(vm, "pci", n, level);
    ioapic_set_irq(&vm->ioapic, layout_pci_gsi(0, n), level);
    if (pc_drive(vm, irq, PC_SRC_INTA + n, level))
        pic_set_irq(&vm->pic, irq, vm->isa_sources[irq]);
}

/* The 8259 pair's INTR output. */
static void pc_intr(void *opaque, unsigned pin, bool level)
{
    struct vm *vm = opaque;

    lapic_set_lint0(&vm->vcpu[0]->lapic, pin, level);
    ioapic_set_irq(&vm->ioapic, 0, level);
}

/* HPET comparators outside legacy mode: straight to the I/O APIC. */
static void pc_hpet_route(void *opaque, unsigned pin, bool level)
{
    struct vm *vm = opaque;

    ioapic_set_irq(&vm->ioapic, pin, level);
}

/* Legacy replacement: the HPET has interrupts 0 and 8, their own chips are cut off. */
static void pc_hpet_legacy(void *opaque, unsigned pin, bool on)
{
    struct vm *vm = opaque;

    pit_block_irq(&vm->pit, pin, on);
    rtc_block_irq(&vm->rtc, pin, on);
}

void pc_deliver(void *opaque, const struct apic_msg *msg)
{
    struct vm *vm = opaque;

    if (vm->cfg->trace & TRACE_IRQ)
        log_msg(LOG_INFO, "trace: irq: message vector %02x mode %u to %s %x", msg->vector, msg->delivery_mode,
                msg->logical ? "logical" : "cpu", msg->dest);
    lapic_deliver(&vm->lapics, msg);
}

static void pc_lapic_kick(void *opaque, unsigned cpu_index, uint32_t attention)
{
    struct vm *vm = opaque;

    cpu_attention(&vm->vcpu[cpu_index]->vcpu.cpu, attention);
    loop_after(&vm->loop, cpu_index);
}

/* Not before: the first thing that a vCPU which was asleep wants is the device lock. */
static void pc_after(void *opaque, unsigned cpu_index)
{
    struct vm *vm = opaque;

    vcpu_wake(&vm->vcpu[cpu_index]->vcpu);
}

static void pc_lapic_eoi(void *opaque, uint8_t vector)
{
    struct vm *vm = opaque;

    ioapic_eoi(&vm->ioapic, vector);
}

static void pc_tell_generation(void *opaque)
{
    struct vm *vm = opaque;

    acpi_pm_raise_gpe(&vm->pm, LAYOUT_GPE_VMGENID);
}

/* -- what the guest asks of the machine -- */

static void pc_on_power_off(void *opaque) { vm_request(opaque, VM_REQ_POWER_OFF); }
static void pc_on_reset(void *opaque) { vm_request(opaque, VM_REQ_RESET); }

static void pc_on_panic(void *opaque, uint8_t events)
{
    if (events & PVPANIC_PANICKED)
        vm_request(opaque, VM_REQ_PANIC);
}

static void pc_on_debug_exit(void *opaque, uint32_t value)
{
    struct vm *vm = opaque;

    pthread_mutex_lock(&vm->life.lock);
    if (!(vm->life.requests & VM_REQ_DEBUG_EXIT))
        vm->life.debug_value = value;
    pthread_mutex_unlock(&vm->life.lock);
    vm_request(vm, VM_REQ_DEBUG_EXIT);
}

/* -- making and connecting -- */

void pc_add_device(struct vm *vm, const struct device_ops *ops, void *dev, unsigned instance)
{
    if (vm->ndevices < VM_MAX_DEVICES)
        vm->device[vm->ndevices++] = (struct device){ .ops = ops, .dev = dev, .instance = instance };
}

int pc_init_ram(struct vm *vm, struct err *err)
{
    uint64_t below = layout_below_4g(vm->cfg->memory), above = layout_above_4g(vm->cfg->memory);
    int r = ram_add_slot(&vm->ram, 0, LAYOUT_VGA_BASE, false);

    if (r == 0)
        r = ram_add_slot(&vm->ram, LAYOUT_VGA_END, below - LAYOUT_VGA_END, false);
    if (r == 0 && above)
        r = ram_add_slot(&vm->ram, LAYOUT_4G, above, false);
    ram_share(&vm->ram, false);
    if (r == 0)
        r = ram_add_slot(&vm->ram, LAYOUT_VMGENID, LAYOUT_VMGENID_SIZE, true);
    if (r == 0)
        r = pc_firmware_init_ram(vm);
    if (r == 0)
        r = pc_display_init_ram(vm);
    if (r < 0)
        return err_set(err, -r, "the host does not give %llu MiB of memory to the guest: %s",
                       (unsigned long long)(vm->cfg->memory >> 20), strerror(-r));
    r = ram_large_start(&vm->ram);
    if (r < 0)
        return err_set(err, -r, "cannot start a thread for large pages: %s", strerror(-r));
    /* what is received from another machine comes in memory of its own, which takes this one's place */
    return vm->cfg->swap && !vm->cfg->disks_late ? ram_swap_create(&vm->ram, vm->cfg->swap, vm->cfg->swap_limit, err) : 0;
}

static int pc_make_cpu(struct vm *vm, unsigned n, struct err *err)
{
    struct vm_vcpu *v = aligned_alloc(64, ALIGN_UP(sizeof(*v), 64));
    struct cpu *cpu;
    int r;

    if (!v)
        return err_set(err, ENOMEM, "out of memory for vCPU %u", n);
    memset(v, 0, sizeof(*v));
    v->vm = vm;
    vm->vcpu[n] = v;
    cpu = &v->vcpu.cpu;
    cpu->index = cpu->apic_id = n;
    cpu->ops = &vcpu_thread_ops;
    cpu->ram = &vm->ram;
    cpu->loop = &vm->loop;
    cpu->clock = &vm->clock;
    cpu->cpuid = &vm->cpuid;
    r = lapic_init(&v->lapic, cpu, &vm->lapics);
    if (r < 0)
        return err_set(err, -r, "cannot make the local APIC of vCPU %u: %s", n, strerror(-r));
    r = engine_add_vcpu(&vm->engine, &v->vcpu, err);
    if (r == 0)
        vm->nvcpus = n + 1;
    return r;
}

/* 40 bits are enough for all but the largest machines. OVMF makes 2 MiB pages for all that the CPU can address from 41
 * bits on, and would take 256 MiB for that with 46. */
static void pc_limit_phys_bits(struct vm *vm)
{
    uint64_t end = layout_pci64_base(layout_above_4g(vm->cfg->memory)) + LAYOUT_PCI64_SIZE;

    if (end <= 1ULL << 40)
        cpuid_limit_phys_bits(&vm->cpuid, 40);
}

static int pc_make_cpus(struct vm *vm, struct err *err)
{
    int r = cpuid_build(&vm->cpuid, vm->cfg->cpu, vm->cfg->cpus, vm->clock.khz, err);

    if (r == 0)
        pc_limit_phys_bits(vm);
    if (r == 0 && vm->clock.tsc)
        cpuid_hide_tsc_aux(&vm->cpuid);
    vm->lapics.kick = pc_lapic_kick;
    loop_set_after(&vm->loop, pc_after, vm);
    vm->lapics.eoi = pc_lapic_eoi;
    vm->lapics.opaque = vm;
    for (unsigned n = 0; r == 0 && n < vm->cfg->cpus; n++)
        r = pc_make_cpu(vm, n, err);
    return r;
}

/* 8259 pair, I/O APIC, DMA controller, delay ports. */
static int pc_wire_core(struct vm *vm)
{
    int r;

    pic_init(&vm->pic, (struct irq_line){ .fn = pc_intr, .opaque = vm });
    ioapic_init(&vm->ioapic, pc_deliver, vm);
    dma8237_init(&vm->dma);
    post_init(&vm->post);
    r = pic_attach(&vm->pic, &vm->io);
    if (r == 0)
        r = ioapic_attach(&vm->ioapic, &vm->mmio, LAYOUT_IOAPIC);
    if (r == 0)
        r = dma8237_attach(&vm->dma, &vm->io);
    if (r == 0)
        r = post_attach(&vm->post, &vm->io);
    pc_add_device(vm, &pic_ops, &vm->pic, 0);
    pc_add_device(vm, &ioapic_ops, &vm->ioapic, 0);
    pc_add_device(vm, &dma8237_ops, &vm->dma, 0);
    pc_add_device(vm, &post_ops, &vm->post, 0);
    return r;
}

/* 8254, HPET and RTC. The HPET may be routed to I/O APIC pins 20 to 23, which nothing else uses. */
static int pc_wire_timers(struct vm *vm)
{
    struct irq_line route = { .fn = pc_hpet_route, .opaque = vm };
    struct irq_line select = { .fn = pc_hpet_legacy, .opaque = vm };
    int r;

    pit_init(&vm->pit, &vm->loop, pc_isa_line(vm, 0, PC_SRC_CHIP));
    rtc_init(&vm->rtc, &vm->loop, pc_isa_line(vm, 8, PC_SRC_CHIP));
    rtc_set_memory(&vm->rtc, layout_below_4g(vm->cfg->memory), layout_above_4g(vm->cfg->memory));
    hpet_init(&vm->hpet, &vm->loop, route, 0xf00000, pc_isa_line(vm, 0, PC_SRC_HPET),
              pc_isa_line(vm, 8, PC_SRC_HPET), select);
    r = pit_attach(&vm->pit, &vm->io);
    if (r == 0)
        r = rtc_attach(&vm->rtc, &vm->io);
    if (r == 0)
        r = hpet_attach(&vm->hpet, &vm->mmio, LAYOUT_HPET);
    pc_add_device(vm, &pit_ops, &vm->pit, 0);
    pc_add_device(vm, &rtc_ops, &vm->rtc, 0);
    pc_add_device(vm, &hpet_ops, &vm->hpet, 0);
    return r;
}

/* Keyboard controller with port 0x92. A20 is always open: its line is not connected. */
static int pc_wire_keyboard(struct vm *vm)
{
    i8042_init(&vm->i8042, pc_isa_line(vm, 1, PC_SRC_CHIP), pc_isa_line(vm, 12, PC_SRC_CHIP),
               (struct irq_line){ .fn = NULL }, pc_on_reset, vm);
    pc_add_device(vm, &i8042_ops, &vm->i8042, 0);
    return i8042_attach(&vm->i8042, &vm->io);
}

static int pc_wire_serial(struct vm *vm)
{
    static const struct {
        uint16_t port;
        uint8_t irq, source;
    } com[VM_UARTS] = {
        { 0x3f8, 4, PC_SRC_CHIP },
        { 0x2f8, 3, PC_SRC_CHIP },
        { 0x3e8, 4, PC_SRC_SECOND },
        { 0x2e8, 3, PC_SRC_SECOND },
    };
    int r = 0;

    for (unsigned n = 0; r == 0 && n < VM_UARTS; n++) {
        uart_init(&vm->uart[n], pc_isa_line(vm, com[n].irq, com[n].source), serial_backend(&vm->serial[n]));
        serial_attach(&vm->serial[n], &vm->uart[n]);
        pc_add_device(vm, &uart_ops, &vm->uart[n], n);
        r = uart_attach(&vm->uart[n], &vm->io, com[n].port);
    }
    return r;
}

/* Power management: port 0xCF9 lies inside the PCI host's address register, so the host passes it on. */
static int pc_wire_power(struct vm *vm)
{
    struct acpi_pm_hooks hooks = { .power_off = pc_on_power_off, .reset = pc_on_reset, .opaque = vm };

    acpi_pm_init(&vm->pm, &vm->loop, pc_isa_line(vm, LAYOUT_GSI_SCI, PC_SRC_CHIP), false, hooks);
    pc_add_device(vm, &acpi_pm_ops, &vm->pm, 0);
    rtc_connect_alarm(&vm->rtc, (struct irq_line){ .fn = acpi_pm_rtc_alarm, .opaque = &vm->pm });
    return acpi_pm_attach(&vm->pm, &vm->io);
}

/* The ECAM is where the tables say; with firmware it is nowhere until that has put it somewhere. */
static int pc_wire_pci(struct vm *vm)
{
    struct irq_line intx[4];
    int r;

    for (unsigned n = 0; n < 4; n++)
        intx[n] = (struct irq_line){ .fn = pc_pci_irq, .opaque = vm, .pin = n };
    pci_host_init(&vm->pci, &vm->io, &vm->mmio, intx);
    pci_host_set_cf9(&vm->pci, &vm->pm.reset_region);
    pc_add_device(vm, &pci_host_ops, &vm->pci, 0);
    lpc_init(&vm->lpc, LAYOUT_PM_BASE);
    pc_add_device(vm, &lpc_ops, &vm->lpc, 0);
    r = pci_dev_plug(&vm->lpc.pci, &vm->pci, LPC_SLOT);
    if (r < 0)
        return r;
    return pci_host_attach(&vm->pci, vm->cfg->firmware ? 0 : LAYOUT_ECAM_BASE);
}

static int pc_wire_generation(struct vm *vm)
{
    int r;

    rand_init_host(&vm->rand);
    r = vmgenid_init(&vm->genid, &vm->ram, LAYOUT_VMGENID, &vm->rand, pc_tell_generation, vm);
    pc_add_device(vm, &vmgenid_ops, &vm->genid, 0);
    return r < 0 ? r : vmgenid_attach(&vm->genid, &vm->io);
}

/* Ports by which the guest talks about its own end. */
static int pc_wire_ends(struct vm *vm)
{
    int r;

    pvpanic_init(&vm->pvpanic, pc_on_panic, vm);
    pc_add_device(vm, &pvpanic_ops, &vm->pvpanic, 0);
    r = pvpanic_attach(&vm->pvpanic, &vm->io);
    if (r < 0)
        return r;
    fpu_error_init(&vm->fpu_error, pc_isa_line(vm, 13, PC_SRC_CHIP));
    pc_add_device(vm, &fpu_error_ops, &vm->fpu_error, 0);
    r = fpu_error_attach(&vm->fpu_error, &vm->io);
    if (r < 0 || !vm->cfg->debug_exit)
        return r;
    debug_exit_init(&vm->debug_exit, pc_on_debug_exit, vm);
    pc_add_device(vm, &debug_exit_ops, &vm->debug_exit, 0);
    return debug_exit_attach(&vm->debug_exit, &vm->io, 0xf4);
}

int pc_init(struct vm *vm, struct err *err)
{
    static int (*const step[])(struct vm * vm) = {
        pc_wire_core,  pc_wire_timers, pc_wire_keyboard,   pc_wire_serial,
        pc_wire_power, pc_wire_pci,    pc_wire_generation, pc_wire_ends,
        pc_firmware_wire,
    };
    int r = pc_make_cpus(vm, err);

    if (r < 0)
        return r;
    for (size_t i = 0; i < ARRAY_LEN(step); i++) {
        r = step[i](vm);
        if (r < 0)
            return err_set(err, -r, "cannot build the machine (step %zu): %s", i, strerror(-r));
    }
    r = pc_init_virtio(vm, err);
    if (r == 0)
        r = pc_init_net(vm, err);
    if (r == 0)
        r = pc_init_display(vm, err);
    return r < 0 ? r : pc_firmware_fill(vm, err);
}

void pc_fini(struct vm *vm)
{
    pc_stop_net(vm);
    while (vm->ndevices > 0) {
        struct device *d = &vm->device[--vm->ndevices];

        if (d->ops->destroy)
            d->ops->destroy(d->dev);
    }
    pc_fini_virtio(vm);
    pc_fini_net(vm);
}

/* -- reset -- */

/* What firmware leaves behind: caching on for RAM, off for the hole below 4 GiB, on every CPU (SDM vol.
 * 3, 12.11). */
static void pc_set_mtrrs(struct cpu *cpu)
{
    enum { TYPE_UC = 0, TYPE_WB = 6 };
    uint64_t hole = LAYOUT_PCI32_BASE, mask = (1ULL << cpu->cpuid->phys_bits) - 1;

    cpu->mtrr_def_type = TYPE_WB | 3u << 10; /* E, FE */
    for (unsigned i = 0; i < ARRAY_LEN(cpu->mtrr_fixed); i++)
        cpu->mtrr_fixed[i] = 0x0101010101010101ULL * TYPE_WB;
    cpu->mtrr_fixed[2] = 0; /* A0000..BFFFF: video */
    cpu->mtrr_base[0] = LAYOUT_ECAM_BASE | TYPE_UC;
    cpu->mtrr_mask[0] = (~(LAYOUT_ECAM_SIZE - 1) & mask) | 1u << 11;
    cpu->mtrr_base[1] = hole | TYPE_UC;
    cpu->mtrr_mask[1] = (~(LAYOUT_4G - hole - 1) & mask) | 1u << 11;
}

/* entry is NULL with firmware, which starts at the reset vector and sets up the rest itself. */
static void pc_reset_cpu(struct vm_vcpu *v, const struct boot_entry *entry)
{
    struct cpu *cpu = &v->vcpu.cpu;

    atomic_store(&cpu->attention, 0);
    cpu_reset(cpu);
    lapic_ops.reset(&v->lapic);
    if (entry)
        pc_set_mtrrs(cpu);
    if (entry && cpu->index == 0) {
        vcpu_set_entry(cpu, entry);
        lapic_virtual_wire(cpu->lapic);
    } else if (cpu->index) {
        cpu->activity = CPU_WAIT_SIPI;
    }
    cpu_update_mode(cpu);
    mmu_flush_all(cpu);
}

/* The firmware's part of chip setup: the SCI and the PCI interrupts are level-triggered at the 8259s (ELCR).
 */
static void pc_set_elcr(struct vm *vm)
{
    bus_write_locked(&vm->io, 0x4d1, BIT(LAYOUT_GSI_SCI - 8) | BIT(10 - 8) | BIT(11 - 8), 1);
}

/* What a restored machine has not read so far. */
static int pc_read_late(struct vm *vm, struct err *err)
{
    int r = 0;

    if (vm->boot_fd[0] >= 0)
        r = boot_image_read(&vm->kernel, vm->boot_fd[0], vm->cfg->kernel, err);
    if (r == 0 && vm->boot_fd[1] >= 0)
        r = boot_read_fd(vm->boot_fd[1], vm->cfg->initrd, "initrd", vm->cfg->memory, &vm->initrd, &vm->initrd_len,
                         err);
    if (r == 0 && vm->boot_fd[1] >= 0)
        r = pc_agent_initrd(vm, err);
    for (unsigned n = 0; r == 0 && n < ARRAY_LEN(vm->boot_fd); n++) {
        if (vm->boot_fd[n] >= 0)
            close(vm->boot_fd[n]);
        vm->boot_fd[n] = -1;
    }
    return r;
}

static int pc_load_kernel(struct vm *vm, struct boot_entry *entry, struct err *err)
{
    struct boot_config cfg;
    int r = pc_read_late(vm, err);
    char *line;

    if (r < 0)
        return r;
    line = pc_agent_cmdline(vm, config_cmdline(vm->cfg));
    if (!line)
        return err_set(err, ENOMEM, "out of memory");
    cfg = (struct boot_config){
        .kernel = &vm->kernel,
        .initrd = vm->initrd,
        .initrd_len = vm->initrd_len,
        .cmdline = vm->kernel.kind == BOOT_MULTIBOOT1 ? vm->cfg->cmdline : line,
        .cpus = vm->cfg->cpus,
        .mem_below_4g = layout_below_4g(vm->cfg->memory),
        .mem_above_4g = layout_above_4g(vm->cfg->memory),
        .vga = vm->cfg->vga,
    };

    r = boot_load(&vm->ram, &cfg, entry, err);
    free(line);
    return r;
}

static void pc_reset_devices(struct vm *vm, const struct boot_entry *entry)
{
    loop_lock(&vm->loop);
    for (unsigned n = 0; n < vm->ndevices; n++)
        vm->device[n].ops->reset(vm->device[n].dev);
    if (entry) {
        pc_set_elcr(vm);
        pc_display_set_up(vm);
    }
    for (unsigned n = 0; n < vm->nvcpus; n++)
        pc_reset_cpu(vm->vcpu[n], entry);
    loop_unlock(&vm->loop);
    vm->engine.ops->invalidate(&vm->engine, 0, UINT64_MAX);
}

void pc_reset_blank(struct vm *vm) { pc_reset_devices(vm, NULL); }

int pc_reset(struct vm *vm, struct err *err)
{
    struct boot_entry entry;
    bool firmware = vm->cfg->firmware;
    int r = firmware ? pc_firmware_reset(vm, err) : pc_load_kernel(vm, &entry, err);

    if (r == 0)
        pc_reset_devices(vm, firmware ? NULL : &entry);
    return r;
}
