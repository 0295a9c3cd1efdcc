/* The Firecracker API's balloon: its size, and what the guest says of its memory. See fc_call.h.
 *
 * Its deflate_on_oom is always so: the guest decides. Statistics are those of the guest's last answer, and each look
 * asks again; the interval only says whether there are any. Thread: the machine's, no lock held.
 */
#include <string.h>

#include "api/fc_call.h"
#include "machine/vm.h"

#define BALLOON_MIB_MAX (1 << 20)
#define BALLOON_SECONDS "stats_polling_interval_s"

/* A size of the balloon that the machine has memory for, from the start on. */
static int balloon_set(struct firecracker *f, const json_t *mib)
{
    uint64_t bytes = (uint64_t)json_integer_value(mib) << 20;

    return bytes > f->vm->cfg->memory ? -1 : vm_set_memory(f->vm, f->vm->cfg->memory - bytes);
}

void fc_balloon_begin(struct firecracker *f)
{
    if (fc_said(f, "balloon"))
        balloon_set(f, json_object_get(fc_said(f, "balloon"), "amount_mib"));
}

/* One member of the balloon that was said to be there. */
static void balloon_change(struct fc_call *k, const char *key)
{
    if (json_object_set(fc_said(k->f, "balloon"), key, json_object_get(k->body, key)) < 0)
        fc_fault(k, "out of memory");
    else
        fc_done(k);
}

static bool balloon_is_there(struct fc_call *k)
{
    if (!fc_said(k->f, "balloon"))
        fc_fault(k, "there is no balloon: PUT /balloon before the start");
    return fc_said(k->f, "balloon") != NULL;
}

void fc_balloon(struct fc_call *k)
{
    const json_t *mib = json_object_get(k->body, "amount_mib");

    if (!strcmp(k->method, "GET")) {
        if (balloon_is_there(k))
            api_reply_json(k->r, 200, json_incref(fc_said(k->f, "balloon")));
        return;
    }
    if (!json_is_integer(mib) || json_integer_value(mib) < 0 || json_integer_value(mib) > BALLOON_MIB_MAX)
        fc_fault(k, "a balloon needs amount_mib");
    else if (!strcmp(k->method, "PUT")) {
        if (fc_early(k))
            fc_keep(k, "balloon");
    } else if (fc_late(k) && balloon_is_there(k)) {
        if (balloon_set(k->f, mib) < 0)
            fc_fault(k, "amount_mib is more than the machine has");
        else
            balloon_change(k, "amount_mib");
    }
}

/* ---- statistics ---- */

static json_t *balloon_describe(struct firecracker *f)
{
    static const char *const names[BALLOON_STATS] = {
        [BALLOON_SWAP_IN] = "swap_in", [BALLOON_SWAP_OUT] = "swap_out", [BALLOON_MAJOR_FAULTS] = "major_faults",
        [BALLOON_MINOR_FAULTS] = "minor_faults", [BALLOON_FREE] = "free_memory", [BALLOON_TOTAL] = "total_memory",
        [BALLOON_AVAILABLE] = "available_memory", [BALLOON_CACHES] = "disk_caches",
        [BALLOON_HUGE_ALLOC] = "hugetlb_allocations", [BALLOON_HUGE_FAIL] = "hugetlb_failures",
    };
    struct virtio_balloon *b = &f->vm->balloon;
    json_int_t target = json_integer_value(json_object_get(fc_said(f, "balloon"), "amount_mib")), actual;
    json_t *root;

    loop_lock(&f->vm->loop);
    actual = (json_int_t)virtio_balloon_size(b);
    root = json_pack("{s:I, s:I, s:I, s:I}", "target_pages", target << 8, "actual_pages", actual >> 12, "target_mib", target,
                     "actual_mib", actual >> 20);
    for (unsigned n = 0; root && b->stat_time && n < BALLOON_STATS; n++) {
        if (b->stat[n] != UINT64_MAX)
            json_object_set_new(root, names[n], json_integer((json_int_t)b->stat[n]));
    }
    virtio_balloon_poll(b);
    loop_unlock(&f->vm->loop);
    return root;
}

void fc_balloon_stats(struct fc_call *k)
{
    const json_t *every = json_object_get(fc_said(k->f, "balloon"), BALLOON_SECONDS), *now = json_object_get(k->body, BALLOON_SECONDS);

    if (!fc_late(k) || !balloon_is_there(k))
        return;
    if (json_integer_value(every) <= 0)
        fc_fault(k, "statistics are off: PUT /balloon needs a " BALLOON_SECONDS " before the start");
    else if (!strcmp(k->method, "GET"))
        api_reply_json(k->r, 200, balloon_describe(k->f));
    else if (!json_is_integer(now) || json_integer_value(now) <= 0)
        fc_fault(k, BALLOON_SECONDS " is a whole number, and not 0 after the start");
    else
        balloon_change(k, BALLOON_SECONDS);
}
