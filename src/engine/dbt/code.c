/* Code memory: one memfd mapped twice, writable in one place and executable in the other (W^X), the latter right behind
 * the data that generated code uses, so that both are in reach of 32-bit displacements. Bounded; emptied as a whole.
 *
 * Thread: the vCPU's. */
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/map.h"
#include "engine/dbt/dbt.h"

#define DATA_BYTES (DBT_DATA_BYTES + DBT_FAR_BYTES)

static int code_memfd(void)
{
#ifdef MFD_EXEC
    int fd = memfd_create("translated", MFD_CLOEXEC | MFD_EXEC);
    if (fd >= 0)
        return fd;
#endif
    return memfd_create("translated", MFD_CLOEXEC);
}

/* Data and executable view side by side. Both views begin where one of the host's large pages may. */
static bool code_map(struct dbt *t, int fd)
{
    uint8_t *at = map_memory_at(DATA_BYTES + DBT_CODE, 0 - DATA_BYTES);
    if (!at)
        return false;
    t->data = (struct dbt_data *)(void *)at;
    t->far = (struct dbt_far *)(void *)(at + DBT_DATA_BYTES);
    t->rx = at + DATA_BYTES;
    if (mmap(t->rx, DBT_CODE, PROT_READ | PROT_EXEC, MAP_SHARED | MAP_FIXED, fd, 0) == MAP_FAILED)
        return false;
    t->rw = map_memory_at(DBT_CODE, 0);
    return t->rw && mmap(t->rw, DBT_CODE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, fd, 0) != MAP_FAILED;
}

static void code_masks(struct dbt_data *d)
{
    d->mask_high = 0xffff800000000000ULL;
    d->mask_if = FL_IF;
    d->mask_odd = DOOR_ODD;
    d->mask_no_if = 0xffffffff & ~(uint32_t)FL_IF;
    d->mask_no_df = 0xffffffff & ~(uint32_t)FL_DF;
    d->mask_no_ac = 0xffffffff & ~(uint32_t)FL_AC;
    d->mask_df = FL_DF;
    d->mask_offset = 0xfff;
    d->mask_beyond = ~0xfffULL;
    d->mask_arith = FL_ARITH;
    d->mask_unmasked = 0x1f80; /* MXCSR's exception masks */
    d->mask_reserved = 0xffff0000;
    d->mask_x87 = 0x3f; /* the exception masks of the x87 control word */
    for (unsigned k = 0; k < ARRAY_LEN(d->mask_low); k++)
        d->mask_low[k] = (1u << k) - 1;
    d->vec_ok[0] = 1;
}

bool dbt_code_init(struct dbt *t)
{
    int fd = code_memfd();
    if (fd < 0)
        return false;
    bool ok = ftruncate(fd, DBT_CODE) == 0 && code_map(t, fd);
    close(fd);
    t->site = map_memory(DBT_SITES * sizeof(*t->site));
    t->far_site = map_memory(DBT_FARS * sizeof(*t->far_site));
    if (!ok || !t->site || !t->far_site)
        return false;
    code_masks(t->data);
    t->nfars = 1;
    t->filled[1] = DBT_HOT;
    return true;
}

void dbt_code_fini(struct dbt *t)
{
    if (t->rw)
        munmap(t->rw, DBT_CODE);
    if (t->data)
        munmap(t->data, DATA_BYTES + DBT_CODE);
    if (t->site)
        munmap(t->site, DBT_SITES * sizeof(*t->site));
    if (t->far_site)
        munmap(t->far_site, DBT_FARS * sizeof(*t->far_site));
    t->far_site = NULL;
    t->far = NULL;
    t->rw = t->rx = NULL;
    t->data = NULL;
    t->site = NULL;
}

/* Pages of a part of the memfd, beyond what is in use again before long, go back to the host. */
static void code_give_back(const struct dbt *t, uint32_t from, uint32_t end, uint32_t used, uint32_t *filled)
{
    uint32_t keep = from + (end - from) / 4;
    if (used > keep)
        madvise(t->rw + keep, end - keep, MADV_REMOVE);
    if (*filled > keep)
        *filled = keep;
}

void dbt_code_clear(struct dbt *t)
{
    code_give_back(t, 0, DBT_HOT, t->used, &t->filled[0]);
    code_give_back(t, DBT_HOT, DBT_CODE, t->cold, &t->filled[1]);
    t->used = t->shared;
    t->cold = DBT_HOT;
    t->nsites = 0;
    if (t->nfars > 1)
        map_give_back(t->far, DBT_FAR_BYTES); /* zeros again */
    t->nfars = 1;
    t->link.site = 0;
}

void dbt_code_rest(struct dbt *t)
{
    uint32_t from = ALIGN_UP(t->shared, 4096u);
    madvise(t->rw + from, DBT_CODE - from, MADV_REMOVE);
    map_give_back(t->site, DBT_SITES * sizeof(*t->site));
    t->filled[0] = from;
    t->filled[1] = DBT_HOT;
}

#define CODE_AHEAD (256u << 10)
#define CODE_SMALL (4u << 20) /* of what usually runs: in small pages as long as there is no more; then this much at a time in large ones */

/* The host's large pages for [from, to): nothing else spares its TLB where code is spread so widely. (Linux 6.1; madvise() beforehand only works
 * where the administrator lets shared memory have them, and then as well.) A range of which no page exists would be refused. */
static void code_enlarge(const struct dbt *t, uint32_t from, uint32_t to)
{
    for (uint32_t at = from; at < to; at += LARGE_PAGE)
        *(volatile uint8_t *)(t->rw + at) |= 0;
    madvise(t->rw + from, to - from, MADV_COLLAPSE);
}

/* [*filled, used + room) of a part that ends at end gets its host pages, in both views. */
static void code_fill(const struct dbt *t, uint32_t *filled, uint32_t used, uint32_t end)
{
#ifdef MADV_POPULATE_WRITE
    if (used + DBT_BLOCK_MAX <= *filled)
        return;
    uint32_t from = *filled, to = ALIGN_UP(used + DBT_BLOCK_MAX, CODE_AHEAD);
    bool large = end == DBT_HOT && to > CODE_SMALL;
    if (large)
        to = ALIGN_UP(to, CODE_SMALL);
    *filled = to = to < end ? to : end;
    if (large)
        code_enlarge(t, from = from > CODE_SMALL ? from : 0, to);
    madvise(t->rw + from, to - from, MADV_POPULATE_WRITE);
    madvise((void *)(uintptr_t)(t->rx + from), to - from, MADV_POPULATE_READ);
#endif
}

void dbt_code_ahead(struct dbt *t)
{
    code_fill(t, &t->filled[0], t->used, DBT_HOT);
    code_fill(t, &t->filled[1], t->cold, DBT_CODE);
}

void dbt_code_link(struct dbt *t, uint32_t site, const uint8_t *host)
{
    int32_t d = (int32_t)(host - (t->rx + site + 4));
    memcpy(t->rw + site, &d, 4);
}

bool dbt_code_link_far(struct dbt *t, uint32_t n, const uint8_t *host, uint64_t page, uint64_t good)
{
    struct dbt_far *far = &t->far[n];
    bool first = !far->neg;
    dbt_code_link(t, t->far_site[n], host);
    *far = (struct dbt_far){ .sum = 0 - (page + good), .neg = 0 - (uintptr_t)host };
    return first;
}

bool dbt_code_site(struct dbt *t, uint32_t at, uint32_t end, uint32_t to)
{
    if (t->nsites == DBT_SITES)
        return false;
    t->site[t->nsites++] = (struct dbt_site){ .at = at, .end = end, .to = to };
    return true;
}

const uint8_t *dbt_code_fault(const struct dbt *t, uintptr_t pc)
{
    uintptr_t off = pc - (uintptr_t)t->rx;
    if (off >= DBT_CODE || !t->nsites)
        return NULL;
    uint32_t lo = 0, hi = t->nsites;
    while (hi - lo > 1) {
        uint32_t mid = lo + (hi - lo) / 2;
        if (t->site[mid].at <= off)
            lo = mid;
        else
            hi = mid;
    }
    const struct dbt_site *s = &t->site[lo];
    return s->at <= off && off < s->end ? t->rx + s->to : NULL;
}
