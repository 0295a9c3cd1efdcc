/* Overlays below one that is in use are taken out of its chain. See image.h.
 *
 * What they hold is brought into the one above, a piece at a time, while that is read and written: it reads the same all the time, over them and over
 * what they stand on, once all is there. Or another file, which holds what several of them hold, takes their place.
 * Threads: the caller's, beside requests, but for image_unlink() and image_swap(). No state.
 */
#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "base/err.h"
#include "block/block.h"
#include "block/file.h"
#include "block/image.h"
#include "block/image_file.h"
#include "block/qcow2.h"

#define PULL_SPAN (256ULL << 20) /* that is looked at for one piece */

/* The nth image below b; NULL: the chain has no such, or one that is no qcow2 image. */
static struct block *pull_below(struct block *b, unsigned n)
{
    while (b && n-- > 0)
        b = qcow2_is(b) ? qcow2_backing(b) : NULL;
    return b && qcow2_is(b) ? b : NULL;
}

/* Who of the n below top has what is at off: for *len bytes. NULL: none, or top itself. */
static int pull_find(struct block *top, unsigned n, uint64_t off, uint64_t *len, struct block **from, bool *zero)
{
    enum qcow2_extent kind;
    int r = qcow2_map(top, off, *len, &kind, len);

    *from = NULL;
    for (unsigned i = 1; r == 0 && kind == QCOW2_FROM_BACKING && i <= n; i++) {
        struct block *b = pull_below(top, i);

        r = qcow2_map(b, off, *len, &kind, len);
        *from = r == 0 && kind != QCOW2_FROM_BACKING ? b : NULL;
        *zero = kind == QCOW2_READS_ZERO;
    }
    return r;
}

static bool pull_alike(const struct block *top, const struct block *b)
{
    return b && qcow2_info_of(b)->has_backing && qcow2_info_of(b)->cluster_bits == qcow2_info_of(top)->cluster_bits && b->size == top->size;
}

int image_pull(struct block *top, unsigned n, uint64_t *at, uint64_t most)
{
    uint64_t looked = 0, len;
    struct block *from;
    bool zero = false;
    int r = 0;

    for (unsigned i = 0; i <= n; i++) {
        if (!pull_alike(top, pull_below(top, i)))
            return -EINVAL;
    }
    if (*at % (1ULL << qcow2_info_of(top)->cluster_bits) && *at < top->size)
        return -EINVAL;
    for (; r == 0 && most > 0 && looked < PULL_SPAN && *at < top->size; *at += r == 0 ? len : 0, looked += len) {
        len = top->size - *at < PULL_SPAN ? top->size - *at : PULL_SPAN;
        r = pull_find(top, n, *at, &len, &from, &zero);
        if (r < 0 || !from)
            continue;
        if (!zero)
            len = len < most ? len : most;
        r = qcow2_pull(top, *at, len, zero, &len);
        if (r == 0 && !zero)
            most -= len < most ? len : most;
    }
    return r;
}

int image_pulled(struct block *top, unsigned n)
{
    const struct qcow2_info *low = pull_below(top, n) ? qcow2_info_of(pull_below(top, n)) : NULL;
    int r = low ? block_flush(top) : -EINVAL;

    return r == 0 ? qcow2_name_backing(top, low->backing, low->backing_format) : r;
}

void image_unlink(struct block *above, unsigned n)
{
    struct block *first = qcow2_backing(above), *last = pull_below(above, n);

    if (n == 0 || !last)
        return;
    qcow2_set_backing(above, qcow2_backing(last));
    qcow2_set_backing(last, NULL);
    block_close(first);
}

int image_swap(struct block *top, unsigned at, unsigned n, int fd, const char *path, struct err *err)
{
    struct qcow2_opts o = { .name = path, .ro = true, .no_backing = true };
    struct block *made, *above = at > 0 ? pull_below(top, at - 1) : NULL, *first = above ? pull_below(above, 1) : NULL;
    int r = first && pull_below(above, n + 1) ? block_file_take(fd, true) : -EINVAL;
    struct imgfile *f = r == 0 ? imgfile_from_fd(fd) : NULL;

    if (!f) {
        close(fd);
        return err_set(err, r < 0 ? -r : ENOMEM, "image '%s': cannot be taken: %s", path, strerror(r < 0 ? -r : ENOMEM));
    }
    r = block_qcow2_open(&made, f, &o, err);
    if (r < 0)
        return r;
    if (!pull_alike(first, made)) {
        block_close(made);
        return err_set(err, EINVAL, "image '%s': is not like the one that it should replace", path);
    }
    image_unlink(above, n + 1);
    qcow2_set_backing(made, qcow2_backing(above));
    qcow2_set_backing(above, made);
    return 0;
}
