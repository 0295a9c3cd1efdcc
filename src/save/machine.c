/* The described state of a whole machine: one section a device, a CPU and a local APIC, and one for what the board itself
 * keeps. What has no fixed size (struct device_more) is a section with one field of bytes.
 *
 * A machine that state is given to was just made blank and is thrown away if anything is refused, so sections are
 * committed one by one. Every section must be for something that the machine has, and everything that it has must have its
 * section.
 *
 * Thread: the machine's, no vCPU runs; takes the device lock.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/bits.h"
#include "base/err.h"
#include "machine/vm.h"
#include "save/internal.h"
#include "virtio/fs.h"
#include "x86/mmu.h"

#define SECTIONS (2 * VM_MAX_DEVICES + 3 * MAX_VCPUS + 2)
#define MORE_FIELD "bytes"
#define MORE_FRAME (2 + 1 + sizeof(MORE_FIELD) - 1 + 1 + 4) /* state/format.h: a body of one such field, but for the bytes */

/* What belongs to no device. */
struct save_board {
    uint64_t clock_ns, resets, tsc_khz;
    uint8_t isa_sources[16];
};

/* INIT and start-up IPIs that a vCPU has not seen, the only attention that nothing else remembers. */
struct save_vcpu {
    uint32_t attention;
};

static int board_check(void *obj, struct err *err)
{
    const struct save_board *b = obj;

    return b->tsc_khz >= 1000 && b->tsc_khz <= UINT32_MAX ? 0 : err_set(err, EINVAL, "its TSC runs at a frequency that no machine has");
}

static const struct state_field board_fields[] = {
    STATE_F64(struct save_board, clock_ns),
    STATE_F64(struct save_board, resets),
    STATE_F8(struct save_board, isa_sources),
    { "tsc_khz", STATE_U64, offsetof(struct save_board, tsc_khz), 1, 0, NULL, 2 },
    STATE_END,
};
static const struct state_desc board_state = {
    .name = "board", .version = 2, .size = sizeof(struct save_board), .fields = board_fields, .check = board_check
};

static const struct state_field vcpu_fields[] = {
    STATE_F32(struct save_vcpu, attention),
    STATE_END,
};
static const struct state_desc vcpu_state = {
    .name = "vcpu", .version = 1, .size = sizeof(struct save_vcpu), .fields = vcpu_fields
};

static const struct state_field leaf_fields[] = {
    STATE_F32(struct cpuid_leaf, leaf), STATE_F32(struct cpuid_leaf, subleaf), STATE_F32(struct cpuid_leaf, eax),
    STATE_F32(struct cpuid_leaf, ebx),  STATE_F32(struct cpuid_leaf, ecx),     STATE_F32(struct cpuid_leaf, edx),
    STATE_END,
};
static const struct state_desc leaf_state = {
    .name = "leaf", .version = 1, .size = sizeof(struct cpuid_leaf), .fields = leaf_fields
};

static const struct state_field cpuid_fields[] = {
    STATE_FSTRUCT(struct cpuid_table, leaf, struct cpuid_leaf, leaf_state),
    STATE_F32(struct cpuid_table, count),
    STATE_F32(struct cpuid_table, cpus),
    STATE_F32(struct cpuid_table, vendor),
    STATE_F32(struct cpuid_table, feat),
    STATE_F64(struct cpuid_table, xcr0_mask),
    STATE_F8(struct cpuid_table, phys_bits),
    STATE_F8(struct cpuid_table, lin_bits),
    STATE_END,
};
static const struct state_desc cpuid_state = {
    .name = "cpuid", .version = 1, .size = sizeof(struct cpuid_table), .fields = cpuid_fields
};
_Static_assert(sizeof(enum cpu_vendor) == 4 && sizeof(unsigned) == 4, "they are saved as 32 bits");

struct section {
    const char *name;
    const struct state_desc *desc; /* or more */
    const struct device_more *more;
    uint32_t instance;
    void *obj;
    const uint8_t *data; /* where it is in the file; NULL: not found yet */
    size_t len;
};

struct section_list {
    struct section s[SECTIONS];
    unsigned count;
    struct save_board board;
    struct save_vcpu vcpu[MAX_VCPUS];
    struct cpuid_table cpuid;
};

static void section_add(struct section_list *l, const struct state_desc *desc, unsigned instance, void *obj)
{
    l->s[l->count++] = (struct section){ .name = desc->name, .desc = desc, .instance = instance, .obj = obj };
}

static void section_add_device(struct section_list *l, const struct device *d)
{
    section_add(l, d->ops->state, d->instance, d->dev);
    if (d->ops->more)
        l->s[l->count++] = (struct section){ .name = d->ops->more->name, .more = d->ops->more, .instance = d->instance, .obj = d->dev };
}

/* ---- bytes of a device's own ---- */

/* One field of len bytes, which are the object. f has room for it and the end. */
static struct state_desc more_desc(const struct device_more *more, size_t len, struct state_field f[2])
{
    f[0] = (struct state_field){ .name = MORE_FIELD, .kind = STATE_BYTES, .count = len };
    f[1] = (struct state_field)STATE_END;
    return (struct state_desc){ .name = more->name, .version = more->version, .size = len, .fields = f };
}

static int more_put(struct state_buf *out, const struct section *s, bool shape, struct err *err)
{
    struct state_field f[2];
    struct state_desc d;
    uint8_t *bytes;
    size_t len;
    int r = s->more->save(s->obj, shape, &bytes, &len, err);

    if (r < 0)
        return r;
    d = more_desc(s->more, len, f);
    r = state_save(out, &d, s->instance, bytes);
    free(bytes);
    return r;
}

static int more_load(const struct section *s, bool shape, struct err *err)
{
    struct state_section found;
    struct state_field f[2];
    struct state_desc d;
    uint8_t *bytes;
    size_t pos = 0;
    int r = s->data ? state_next(s->data, s->len, &pos, &found, err) : 0;

    if (r < 0)
        return r;
    if (!s->data)
        return s->more->load(s->obj, shape, NULL, 0, err);
    if (found.body_len <= MORE_FRAME)
        return err_set(err, EINVAL, "the saved state of %s is cut off", s->name);
    d = more_desc(s->more, found.body_len - MORE_FRAME, f);
    bytes = calloc(1, d.size);
    if (!bytes)
        return err_set(err, ENOMEM, "out of memory while loading the state of %s", s->name);
    r = state_load(s->data, s->len, &d, s->instance, bytes, err);
    if (r == 0)
        r = s->more->load(s->obj, shape, bytes, d.size, err);
    free(bytes);
    return r;
}

/* Of a share that is mounted in the stream: what it is called there. */
static bool more_share_tag(const uint8_t *data, size_t len, unsigned instance, char *tag)
{
    struct state_section s;
    size_t pos = 0;

    while (state_next(data, len, &pos, &s, NULL) > 0) {
        if (!strcmp(s.name, SHARE_SECTION) && s.instance == instance && s.body_len > MORE_FRAME)
            return share_session_tag(s.body + MORE_FRAME, s.body_len - MORE_FRAME, tag);
    }
    return false;
}

/* ---- all of them ---- */

/* All parts of a machine. NULL: no memory. */
static struct section_list *section_list(struct vm *vm)
{
    struct section_list *l = calloc(1, sizeof(*l));

    if (!l)
        return NULL;
    l->cpuid = vm->cpuid;
    l->board.tsc_khz = CLOCK_KHZ; /* of files that do not say */
    section_add(l, &board_state, 0, &l->board);
    section_add(l, &cpuid_state, 0, &l->cpuid);
    for (unsigned n = 0; n < vm->ndevices; n++)
        section_add_device(l, &vm->device[n]);
    for (unsigned n = 0; n < vm->nvcpus; n++) {
        section_add(l, &vcpu_state, n, &l->vcpu[n]);
        section_add(l, &cpu_state_desc, n, &vm->vcpu[n]->vcpu.cpu);
        section_add(l, lapic_ops.state, n, &vm->vcpu[n]->lapic);
    }
    return l;
}

static int section_put(struct state_buf *out, const struct section *s, struct err *err)
{
    int r = s->desc && s->desc->check ? s->desc->check(s->obj, err) : 0; /* what could not be loaded is not saved */

    if (r < 0)
        return r;
    return s->more ? more_put(out, s, false, err) : state_save(out, s->desc, s->instance, s->obj);
}

int save_state_take(struct vm *vm, struct state_buf *out, struct err *err)
{
    struct section_list *l = section_list(vm);
    int r = l ? 0 : -ENOMEM;

    loop_lock(&vm->loop);
    if (l) {
        l->board.clock_ns = clock_ns(&vm->clock);
        l->board.resets = vm->life.resets;
        l->board.tsc_khz = vm->clock.khz;
        memcpy(l->board.isa_sources, vm->isa_sources, sizeof(vm->isa_sources));
    }
    for (unsigned n = 0; r == 0 && n < vm->nvcpus; n++)
        l->vcpu[n].attention = atomic_load(&vm->vcpu[n]->vcpu.cpu.attention) & (ATT_INIT | ATT_SIPI);
    for (unsigned n = 0; r == 0 && n < l->count; n++)
        r = section_put(out, &l->s[n], err);
    loop_unlock(&vm->loop);
    free(l);
    if (r == 0 && out->len > SAVE_ABOUT_MAX - SAVE_JSON_MAX)
        return err_set(err, EFBIG, "the guest knows too many files of its shared folders (%zu MiB of state): have it forget some, by "
                                   "`echo 2 >/proc/sys/vm/drop_caches`", out->len >> 20);
    return r == -ENOMEM ? err_set(err, ENOMEM, "out of memory for the machine's state") : r;
}

/* One section that only says that it is there, and of which version. */
static int shape_put(struct state_buf *out, const struct section *s, struct err *err)
{
    static const struct state_field none[] = { STATE_END };
    struct state_desc d = { .name = s->name, .fields = none };

    if (s->more)
        return more_put(out, s, true, err);
    d.version = s->desc->version;
    d.size = s->desc->size;
    return state_save(out, s->desc == &cpuid_state ? s->desc : &d, s->instance, s->obj);
}

int save_shape_take(struct vm *vm, struct state_buf *out, struct err *err)
{
    struct section_list *l = section_list(vm);
    int r = l ? 0 : -ENOMEM;

    loop_lock(&vm->loop);
    for (unsigned n = 0; r == 0 && n < l->count; n++)
        r = shape_put(out, &l->s[n], err);
    loop_unlock(&vm->loop);
    free(l);
    return r == -ENOMEM ? err_set(err, ENOMEM, "out of memory for the machine's state") : r;
}

/* ---- loading ---- */

static struct section *section_find(struct section_list *l, const struct state_section *s)
{
    for (unsigned n = 0; n < l->count; n++) {
        if (l->s[n].instance == s->instance && !strcmp(l->s[n].name, s->name))
            return &l->s[n];
    }
    return NULL;
}

/* It has something that this machine has not. */
static int section_unknown(const struct state_section *s, const uint8_t *data, size_t len, struct err *err)
{
    char tag[SHARE_TAG + 1];

    if (!strcmp(s->name, virtio_fs_ops.state->name) && more_share_tag(data, len, s->instance, tag))
        return err_set(err, EINVAL, "the guest has mounted the shared folder '%s', which this machine does not offer: add --share DIR,tag=%s",
                       tag, tag);
    return err_set(err, EINVAL, "it has a %s (number %u), which this machine has not: the options differ", s->name, s->instance);
}

/* Find every section's place, so that each is looked at once. */
static int section_index(struct section_list *l, const uint8_t *data, size_t len, struct err *err)
{
    struct state_section s;
    size_t pos = 0, start = 0;
    int r;

    while ((r = state_next(data, len, &pos, &s, err)) > 0) {
        struct section *here = section_find(l, &s);

        if (!here)
            return section_unknown(&s, data, len, err);
        if (here->data)
            return err_set(err, EINVAL, "it holds %s %u twice", s.name, s.instance);
        here->data = data + start;
        here->len = pos - start;
        start = pos;
    }
    for (unsigned n = 0; r == 0 && n < l->count; n++) {
        if (!l->s[n].data && !l->s[n].more) /* of a vitro that did not know it: the device says what that means */
            return err_set(err, EINVAL, "it has no %s (number %u), which this machine has: the options differ",
                           l->s[n].name, l->s[n].instance);
    }
    return r;
}

/* Can this host show the guest the CPU that it has seen so far? Then it is what it sees from now on. */
static int save_check_cpuid(struct vm *vm, const struct cpuid_table *t, struct err *err)
{
    const struct cpuid_table *have = &vm->cpuid;
    uint32_t missing = 0;
    unsigned word = 0;

    for (unsigned n = 0; n < FEAT_WORDS && !missing; n++) {
        missing = t->feat[n] & ~have->feat[n];
        word = n;
    }
    if (missing || t->xcr0_mask & ~have->xcr0_mask)
        return err_set(err, ENOTSUP,
                       "the guest was shown CPU features that this host or --cpu does not give (word %u, bits %08x; XCR0 "
                       "%llx): restore it on a host like the one that saved it, and run machines that shall move with "
                       "--cpu x86-64-v2",
                       word, missing, (unsigned long long)(t->xcr0_mask & ~have->xcr0_mask));
    if (t->count > ARRAY_LEN(t->leaf) || t->cpus != have->cpus || t->phys_bits != have->phys_bits ||
        t->lin_bits != have->lin_bits || t->vendor > VENDOR_AMD)
        return err_set(err, EINVAL, "its CPUs are not those of this machine");
    return 0;
}

static int save_check_cpu(const struct vm *vm, const struct cpu *cpu, struct err *err)
{
    uint64_t known = vm->cpuid.xcr0_mask;

    if ((cpu->xcr0 | cpu->xss) & ~known)
        return err_set(err, EINVAL, "vCPU %u has register sets that its CPUID does not show", cpu->index);
    return 0;
}

/* Derived state of a vCPU. Interrupts are looked for again: what the engine knew about them is gone. */
static void save_wake_cpu(struct vm_vcpu *v, uint32_t attention)
{
    struct cpu *cpu = &v->vcpu.cpu;

    atomic_store(&cpu->attention, (attention & (ATT_INIT | ATT_SIPI)) | ATT_IRQ | ATT_STEP);
    cpu_update_mode(cpu);
    mmu_flush_all(cpu);
}

static int save_commit(struct vm *vm, struct section_list *l, struct err *err)
{
    int r = 0;

    for (unsigned n = 0; r == 0 && n < l->count; n++)
        r = l->s[n].more ? more_load(&l->s[n], false, err)
                         : state_load(l->s[n].data, l->s[n].len, l->s[n].desc, l->s[n].instance, l->s[n].obj, err);
    if (r == 0)
        r = save_check_cpuid(vm, &l->cpuid, err);
    if (r < 0)
        return r;
    memcpy(l->cpuid.model, vm->cpuid.model, sizeof(l->cpuid.model));
    vm->cpuid = l->cpuid;
    for (unsigned n = 0; r == 0 && n < vm->nvcpus; n++)
        r = save_check_cpu(vm, &vm->vcpu[n]->vcpu.cpu, err);
    for (unsigned n = 0; r == 0 && n < vm->nvcpus; n++)
        save_wake_cpu(vm->vcpu[n], l->vcpu[n].attention);
    memcpy(vm->isa_sources, l->board.isa_sources, sizeof(vm->isa_sources));
    vm->life.resets = l->board.resets;
    return r;
}

int save_state_give(struct vm *vm, const uint8_t *data, size_t len, struct err *err)
{
    struct section_list *l = section_list(vm);
    int r;

    if (!l)
        return err_set(err, ENOMEM, "out of memory for the machine's state");
    loop_lock(&vm->loop);
    r = section_index(l, data, len, err);
    if (r == 0)
        r = save_commit(vm, l, err);
    if (r == 0) {
        clock_set_khz(&vm->clock, l->board.tsc_khz); /* it is blank: on the host's own clock */
        clock_set_ns(&vm->clock, l->board.clock_ns);
    }
    for (unsigned n = 0; r == 0 && n < vm->nvcpus; n++)
        kvmpv_loaded(&vm->vcpu[n]->vcpu.cpu);
    loop_unlock(&vm->loop);
    if (r == 0)
        vm->engine.ops->invalidate(&vm->engine, 0, UINT64_MAX);
    free(l);
    return r;
}

void save_state_skip(struct vm *vm, uint64_t ns)
{
    loop_lock(&vm->loop);
    clock_set_ns(&vm->clock, clock_ns(&vm->clock) + ns);
    for (unsigned n = 0; n < vm->nvcpus; n++)
        kvmpv_slept(&vm->vcpu[n]->vcpu.cpu);
    loop_unlock(&vm->loop);
}

static int shape_check_section(struct section_list *l, const struct section *s, struct err *err)
{
    struct state_section found;
    size_t pos = 0;
    int r;

    if (s->more)
        return more_load(s, true, err);
    if (s->desc == &cpuid_state)
        return state_load(s->data, s->len, &cpuid_state, 0, &l->cpuid, err);
    r = state_next(s->data, s->len, &pos, &found, err);
    if (r > 0 && found.version > s->desc->version)
        return err_set(err, ENOTSUP, "its %s is of version %u, this vitro knows up to %u", s->name, found.version, s->desc->version);
    return r < 0 ? r : 0;
}

int save_shape_check(struct vm *vm, const uint8_t *data, size_t len, struct err *err)
{
    struct section_list *l = section_list(vm);
    int r = l ? section_index(l, data, len, err) : err_set(err, ENOMEM, "out of memory for the machine's state");

    for (unsigned n = 0; r == 0 && n < l->count; n++)
        r = shape_check_section(l, &l->s[n], err);
    if (r == 0)
        r = save_check_cpuid(vm, &l->cpuid, err);
    free(l);
    return r;
}
