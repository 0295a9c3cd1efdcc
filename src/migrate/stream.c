/* Frames over a socket, see stream.h. */
#include "migrate/stream.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#define XXH_STATIC_LINKING_ONLY /* a state on the stack */
#include <xxhash.h>
#include <zstd.h>

#include "base/bits.h"
#include "base/clock.h"
#include "base/err.h"
#include "migrate/disks.h"
#include "save/format.h"

#define MIG_MAGIC    0x47494d56u /* "VMIG" */
#define MIG_STEP     (64u << 10)  /* memory for a frame grows by at least this */
#define MIG_TICK_MS  10
#define MIG_TEXT_MAX 500

static bool mig_known(uint32_t type) { return type >= MIG_HELLO && type <= MIG_SYNCED; }

/* How long a frame of a type can be. */
static size_t mig_most(uint32_t type)
{
    switch (type) {
    case MIG_HELLO:
        return MIG_HELLO_HEAD + RAM_MAX_SLOTS * SAVE_SLOT + CONFIG_DISKS * MIG_DISK_ENTRY + SAVE_JSON_MAX +
               MIG_SHAPE_MAX;
    case MIG_READY:
        return 8;
    case MIG_REFUSE:
        return MIG_TEXT_MAX;
    case MIG_CHUNK:
        return MIG_PAGES + ZSTD_COMPRESSBOUND(SAVE_CHUNK);
    case MIG_DISK:
        return MIG_DISK_HEAD + ZSTD_COMPRESSBOUND(SAVE_CHUNK);
    case MIG_STATE:
        return SAVE_ABOUT_MAX;
    case MIG_ALL:
        return 8 + MIG_TOKEN;
    case MIG_HELD:
    case MIG_COMMIT:
    case MIG_RUNS:
        return MIG_TOKEN;
    default:
        return 0;
    }
}

static uint64_t mig_now_ms(void) { return clock_host_ns(CLOCK_MONOTONIC) / 1000000; }

int mig_stream_init(struct mig_stream *s, int in, int out, int stall_ms)
{
    memset(s, 0, sizeof(*s));
    s->in = in;
    s->out = out;
    s->stall_ms = stall_ms;
    if (fcntl(in, F_SETFL, fcntl(in, F_GETFL) | O_NONBLOCK) < 0 || fcntl(out, F_SETFL, fcntl(out, F_GETFL) | O_NONBLOCK) < 0)
        return -errno;
    return 0;
}

void mig_stream_fini(struct mig_stream *s)
{
    if (s->out >= 0 && s->out != s->in)
        close(s->out);
    if (s->in >= 0)
        close(s->in);
    s->in = s->out = -1;
    free(s->buf);
    s->buf = NULL;
    s->room = 0;
}

/* Until fd is ready: 0, -ETIMEDOUT after stall_ms, or -ECANCELED. */
static int mig_wait(struct mig_stream *s, int fd, short events)
{
    uint64_t end = mig_now_ms() + (uint64_t)s->stall_ms;

    for (;;) {
        struct pollfd p = { .fd = fd, .events = events };
        int r = poll(&p, 1, MIG_TICK_MS);

        if (atomic_load(&s->cancel))
            return -ECANCELED;
        if (s->tick)
            s->tick(s->opaque);
        if (r > 0)
            return 0;
        if (r < 0 && errno != EINTR)
            return -errno;
        if (mig_now_ms() >= end)
            return -ETIMEDOUT;
    }
}

bool mig_readable(const struct mig_stream *s)
{
    struct pollfd p = { .fd = s->in, .events = POLLIN };

    return poll(&p, 1, 0) > 0;
}

static int mig_write(struct mig_stream *s, const uint8_t *data, size_t len)
{
    while (len) {
        ssize_t n = write(s->out, data, len);
        int r = 0;

        if (n > 0) {
            data += n;
            len -= (size_t)n;
            s->bytes += (uint64_t)n;
        } else if (n < 0 && errno == EAGAIN) {
            r = mig_wait(s, s->out, POLLOUT);
        } else if (n == 0 || errno != EINTR) {
            r = n == 0 ? -EIO : -errno;
        }
        if (r == 0 && atomic_load(&s->cancel))
            r = -ECANCELED;
        if (r < 0)
            return r;
    }
    return 0;
}

static int mig_read(struct mig_stream *s, uint8_t *data, size_t len)
{
    while (len) {
        ssize_t n = read(s->in, data, len);
        int r = 0;

        if (n > 0) {
            data += n;
            len -= (size_t)n;
        } else if (n < 0 && errno == EAGAIN) {
            r = mig_wait(s, s->in, POLLIN);
        } else if (n == 0 || errno != EINTR) {
            r = n == 0 ? -ECONNRESET : -errno;
        }
        if (r < 0)
            return r;
    }
    return 0;
}

static uint64_t mig_sum(const uint8_t head[16], const void *a, size_t alen, const void *b, size_t blen)
{
    XXH64_state_t st;

    XXH64_reset(&st, 0);
    XXH64_update(&st, head, 16);
    if (alen)
        XXH64_update(&st, a, alen);
    if (blen)
        XXH64_update(&st, b, blen);
    return XXH64_digest(&st);
}

static int mig_lost(const struct mig_stream *s, int r, struct err *err)
{
    if (r == -ETIMEDOUT)
        return err_set(err, ETIMEDOUT, "the other side was silent for %d seconds", s->stall_ms / 1000);
    if (r == -ECANCELED)
        return err_set(err, ECANCELED, "it was cancelled");
    if (r == -ECONNRESET || r == -EPIPE)
        return err_set(err, ECONNRESET, "the other side closed the connection");
    return err_set(err, -r, "the connection broke: %s", strerror(-r));
}

int mig_send(struct mig_stream *s, enum mig_type type, const void *a, size_t alen, const void *b, size_t blen,
             struct err *err)
{
    uint8_t head[MIG_HEAD];
    int r;

    if (alen + blen > mig_most(type))
        return err_set(err, E2BIG, "the machine has more state than a migration takes");
    st_le32(head, MIG_MAGIC);
    st_le32(head + 4, type);
    st_le32(head + 8, (uint32_t)(alen + blen));
    st_le32(head + 12, s->sent++);
    st_le64(head + 16, mig_sum(head, a, alen, b, blen));
    r = mig_write(s, head, sizeof(head));
    if (r == 0)
        r = mig_write(s, a, alen);
    if (r == 0)
        r = mig_write(s, b, blen);
    return r < 0 ? mig_lost(s, r, err) : 0;
}

/* Room for len bytes, taken as they come: who only claims to send much gets nothing. */
static int mig_read_body(struct mig_stream *s, size_t len)
{
    size_t done = 0;
    int r = 0;

    while (r == 0 && done < len) {
        size_t want = len - done, step = done > MIG_STEP ? done : MIG_STEP;

        if (want > step)
            want = step;
        if (done + want > s->room) {
            uint8_t *more = realloc(s->buf, done + want);

            if (!more)
                return -ENOMEM;
            s->buf = more;
            s->room = done + want;
        }
        r = mig_read(s, s->buf + done, want);
        done += want;
    }
    return r;
}

/* A sentence from outside, for a terminal. */
static int mig_refused(const struct mig_frame *f, struct err *err)
{
    char text[MIG_TEXT_MAX + 1];

    memcpy(text, f->data, f->len);
    text[f->len] = 0;
    for (size_t n = 0; n < f->len; n++) {
        if ((unsigned char)text[n] < ' ' || text[n] == 0x7f)
            text[n] = '?';
    }
    return err_set(err, EREMOTEIO, "the other side refuses: %.400s", text);
}

int mig_receive(struct mig_stream *s, struct mig_frame *f, struct err *err)
{
    uint8_t head[MIG_HEAD];
    uint32_t type, len;
    int r = mig_read(s, head, sizeof(head));

    if (r < 0)
        return mig_lost(s, r, err);
    type = ld_le32(head + 4);
    len = ld_le32(head + 8);
    if (ld_le32(head) != MIG_MAGIC || !mig_known(type) || len > mig_most(type))
        return err_set(err, EBADMSG, "the other side does not speak vitro's migration");
    if (ld_le32(head + 12) != s->received++)
        return err_set(err, EBADMSG, "a piece of the migration is missing, or came twice");
    r = mig_read_body(s, len);
    if (r < 0)
        return mig_lost(s, r, err);
    if (ld_le64(head + 16) != mig_sum(head, s->buf, len, NULL, 0))
        return err_set(err, EBADMSG, "a piece of the migration is damaged (the checksum is wrong)");
    *f = (struct mig_frame){ .type = (enum mig_type)type, .data = s->buf, .len = len };
    return type == MIG_REFUSE ? mig_refused(f, err) : 0;
}

int mig_expect(struct mig_stream *s, enum mig_type type, size_t len, struct mig_frame *f, struct err *err)
{
    int r = mig_receive(s, f, err);

    if (r == 0 && (f->type != type || (len && f->len != len)))
        return err_set(err, EBADMSG, "a piece of the migration is not the one that belongs here");
    return r;
}
