/* Forms of instructions, see form.h.
 *
 * What makes this right: where a form's borders are depends on its key only (split.c), and so does everything that Zydis and
 * bind.c say but for the two values. What is not so is refused when a form is made: the template, with the values
 * of the instruction that it was made from, must give exactly what the decoder gave. tests/unit/test_form.c compares
 * millions of others. */
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "base/map.h"
#include "engine/interp/form.h"
#include "engine/interp/interp.h"
#include "x86/cpuid.h"

static void *forms_map(size_t size)
{
    void *p = map_memory(size);
    if (p)
        madvise((char *)p + LARGE_PAGE, size - LARGE_PAGE, MADV_HUGEPAGE);
    return p;
}

struct forms *forms_create(void)
{
    struct forms *f = calloc(1, sizeof(*f));
    if (!f)
        return NULL;
    f->epoch = 1;
    f->form = forms_map(FORM_MAX * sizeof(struct form));
    f->note = forms_map((size_t)FORM_MAX * FORM_NOTE);
    if (!f->form || !f->note) {
        forms_destroy(f);
        return NULL;
    }
    return f;
}

void forms_destroy(struct forms *f)
{
    if (!f)
        return;
    if (f->form)
        munmap(f->form, FORM_MAX * sizeof(struct form));
    if (f->note)
        munmap(f->note, (size_t)FORM_MAX * FORM_NOTE);
    free(f);
}

void forms_clear(struct forms *f)
{
    memset(f->hash, 0, sizeof(f->hash));
    f->used = 0;
    f->epoch++;
}

void forms_rest(struct forms *f)
{
    map_give_back(f->form, FORM_MAX * sizeof(struct form));
    map_give_back(f->note, (size_t)FORM_MAX * FORM_NOTE);
    map_give_back(f->hash, sizeof(f->hash));
}

/* --- keys and values --- */

static void form_key(const union form_bytes *p, const struct insn_parts *s, uint64_t key[2])
{
    unsigned h = s->head;
    uint64_t imm = s->imm_is_opcode ? p->b[h + s->disp] : 0;
    key[0] = h < 8 ? p->q[0] & ~(~0ULL << 8 * h) : p->q[0];
    key[1] = h > 8 ? p->q[1] & ~(~0ULL << 8 * (h - 8)) : 0;
    key[h / 8] |= imm << 8 * (h % 8);
}

static uint32_t *form_slot(struct forms *f, const uint64_t key[2])
{
    uint64_t x = (key[0] ^ key[1] * 0xc2b2ae3d27d4eb4fULL) * 0x9e3779b97f4a7c15ULL;
    return &f->hash[x >> 49];
}

static uint32_t form_find(const struct forms *f, const uint64_t key[2], uint32_t n)
{
    while (n && (f->form[n].key[0] != key[0] || f->form[n].key[1] != key[1]))
        n = f->form[n].next;
    return n;
}

/* Put the values of the instruction at p into i, a copy of f's template. */
static inline void form_values(const struct form *f, const union form_bytes *p, struct insn *i)
{
    const struct insn_parts *s = &f->parts;
    const uint8_t *at = p->b + s->head;
    int32_t disp;
    uint64_t imm;
    if (s->disp == 1) {
        i->disp = (int8_t)at[0] * (int64_t)f->scale;
    } else if (s->disp) {
        memcpy(&disp, at, 4);
        i->disp = disp;
    }
    if (!s->imm || s->imm_is_opcode)
        return;
    memcpy(&imm, at + s->disp, 8);
    unsigned unused = 64 - 8 * s->imm;
    imm <<= unused;
    i->imm = f->imm_signed ? (uint64_t)((int64_t)imm >> unused) : imm >> unused;
}

/* --- a new form --- */

/* The factor of an 8-bit displacement: what the decoder makes of 1. 0: it cannot be told. */
static unsigned form_scale(const union form_bytes *p, const struct insn_parts *s, const struct decoded *d)
{
    if (s->disp != 1 || d->z.encoding != ZYDIS_INSTRUCTION_ENCODING_EVEX)
        return 1;
    union form_bytes one = *p;
    struct insn scaled;
    struct decoded again;
    one.b[s->head] = 1;
    if (insn_decode(one.b, 15, 8, true, &scaled, &again) != DECODE_OK || scaled.disp < 1 || scaled.disp > 64)
        return 0;
    return (unsigned)scaled.disp;
}

static bool form_imm_signed(const struct decoded *d)
{
    for (unsigned n = 0; n < d->z.operand_count_visible; n++)
        if (d->ops[n].type == ZYDIS_OPERAND_TYPE_IMMEDIATE)
            return d->ops[n].imm.is_signed;
    return false;
}

/* Does the decoder agree about the borders? */
static bool form_borders(const struct insn_parts *s, const struct insn *i, const struct decoded *d)
{
    const ZydisDecodedInstruction *z = &d->z;
    return i->len == s->head + s->disp + s->imm && z->raw.disp.size == s->disp * 8 && z->raw.imm[0].size == s->imm * 8 &&
           !z->raw.imm[1].size && (!s->disp || (i->flags & INSN_MEM)) && !(s->imm && !s->imm_is_opcode && i->stub);
}

static bool form_same(const struct insn *a, const struct insn *b) { return memcmp(a, b, sizeof(*a)) == 0; }

/* Remember i, just decoded from p. Returns its form's number; 0: it gets none. */
static uint32_t form_add(struct forms *f, const union form_bytes *p, const struct insn_parts *s, const struct insn *i,
                         const struct decoded *d)
{
    if (f->used + 1 >= FORM_MAX)
        forms_clear(f);
    struct form new = { .insn = *i, .parts = *s, .imm_signed = form_imm_signed(d), .scale = 1 };
    if (!form_borders(s, i, d))
        return 0;
    new.scale = (uint8_t)form_scale(p, s, d);
    if (s->disp)
        new.insn.disp = 0;
    if (s->imm && !s->imm_is_opcode)
        new.insn.imm = 0;
    struct insn check = new.insn;
    form_values(&new, p, &check);
    if (!new.scale || !form_same(&check, i))
        return 0;
    form_key(p, s, new.key);
    uint32_t *slot = form_slot(f, new.key);
    new.next = *slot;
    *slot = ++f->used;
    f->form[f->used] = new;
    return f->used;
}

static enum decode_result form_miss(struct interp *it, const union form_bytes *p, unsigned n, const struct insn_parts *s,
                                    struct insn *i, uint32_t *form, bool *full)
{
    const struct cpu *cpu = &it->vcpu->cpu;
    struct decoded d;
    it->forms->stat_missed++;
    enum decode_result r = insn_decode(p->b, n, cpu->code_size, cpu->cpuid->vendor == VENDOR_AMD, i, &d);
    if (r != DECODE_OK)
        return r;
    *full = !bind_insn(it, i, &d);
    if (s && !*full)
        *form = form_add(it->forms, p, s, i, &d);
    return r;
}

/* --- looking instructions up --- */

/* Where the instruction at code ends, and by what it will be found. False: only decoding it will tell. */
static bool form_look(const struct interp *it, const uint8_t *code, unsigned n, struct form_look *l)
{
    /* A copy: somebody may be writing to these bytes. */
    l->p = (union form_bytes){ .q = { 0 } };
    if (likely(n >= 16))
        memcpy(l->p.b, code, 16);
    else
        memcpy(l->p.b, code, n);
    struct insn_parts *s = &l->parts;
    l->n = n < 15 ? n : 15;
    l->len = 0;
    if (it->vcpu->cpu.code_size != 8 || !insn_split(l->p.b, s) || (unsigned)s->head + (s->imm_is_opcode ? s->disp + s->imm : 0) > l->n)
        return false;
    l->len = (unsigned)s->head + s->disp + s->imm;
    form_key(&l->p, s, l->key);
    return true;
}

/* Does a block seem to end here? Of a wrong guess comes nothing but a detour. */
static bool form_ends(const struct form_look *l)
{
    const uint8_t *b = l->p.b;
    return (b[0] & 0xf0) == 0x70 || b[0] == 0xe8 || b[0] == 0xe9 || b[0] == 0xeb || b[0] == 0xc3 || (b[0] == 0x0f && (b[1] & 0xf0) == 0x80);
}

unsigned form_look_ahead(const struct interp *it, const uint8_t *code, unsigned n, struct form_look look[FORM_AHEAD])
{
    struct forms *f = it->forms;
    unsigned k = 0, at = 0;
    bool more = true, known = true;
    while (more) {
        struct form_look *l = &look[k++];
        known = form_look(it, code + at, n - at, l);
        if (known)
            __builtin_prefetch(form_slot(f, l->key));
        at += l->len;
        more = known && k < FORM_AHEAD && at < n && !form_ends(l);
    }
    for (unsigned j = 0; j < (known ? k : k - 1); j++) {
        const char *first = (const char *)&f->form[*form_slot(f, look[j].key)];
        __builtin_prefetch(first);
        __builtin_prefetch(first + sizeof(struct form) - 1);
    }
    return k;
}

enum decode_result form_found(struct interp *it, const struct form_look *l, struct insn *i, uint32_t *form, bool *full)
{
    struct forms *f = it->forms;
    *form = 0;
    *full = false;
    if (!l->len)
        return form_miss(it, &l->p, l->n, NULL, i, form, full);
    uint32_t found = form_find(f, l->key, *form_slot(f, l->key));
    if (unlikely(!found))
        return form_miss(it, &l->p, l->n, l->len <= l->n ? &l->parts : NULL, i, form, full);
    if (unlikely(l->len > l->n))
        return DECODE_TRUNCATED; /* a valid one, so it cannot be anything else */
    const struct form *known = &f->form[found];
    *i = known->insn;
    form_values(known, &l->p, i);
    *form = found;
    return DECODE_OK;
}

enum decode_result form_decode(struct interp *it, const uint8_t *code, unsigned n, struct insn *i, uint32_t *form, bool *full)
{
    struct form_look l;
    form_look(it, code, n, &l);
    return form_found(it, &l, i, form, full);
}

void form_sample(const struct form *f, uint8_t bytes[15])
{
    union form_bytes p = { .q = { f->key[0], f->key[1] } };
    const struct insn_parts *s = &f->parts;
    if (s->imm_is_opcode) {
        p.b[s->head + s->disp] = p.b[s->head];
        if (s->disp)
            memset(p.b + s->head, 0, s->disp);
    }
    memcpy(bytes, p.b, 15);
}
