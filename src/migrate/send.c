/* The source of a migration: rounds of copying while the machine runs, the hand-over. See migrate.h and stream.h.
 *
 * Threads: its own, which talks to the other side and reads memory; what stops, looks at or gives up the machine is done by the
 * machine's thread, for which the own one waits (send_ask()).
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/bits.h"
#include "base/clock.h"
#include "base/err.h"
#include "base/log.h"
#include "base/rand.h"
#include "base/thread.h"
#include "migrate/migrate.h"
#include "save/internal.h"

#define SEND_ROUNDS   60
#define SEND_NAP_MS   10  /* a vCPU that is slowed down sleeps a part of each of these */
#define SEND_LINGER_S 1
#define SEND_SMALLEST 256 /* pages: fewer are always few enough */

static const char *const send_phases[] = { "none", "copying", "handing over", "done", "failed" };

const char *migrate_phase_name(enum migrate_phase phase) { return send_phases[phase]; }

void migrate_get(struct migrate *m, struct migrate_progress *p)
{
    if (!m->started) {
        memset(p, 0, sizeof(*p));
        return;
    }
    pthread_mutex_lock(&m->lock);
    *p = m->p;
    m->told |= p->phase == MIGRATE_DONE;
    pthread_cond_signal(&m->turn);
    pthread_mutex_unlock(&m->lock);
}

static void send_tell(struct migrate *m, enum migrate_phase phase, const char *why)
{
    pthread_mutex_lock(&m->lock);
    m->p.phase = phase;
    snprintf(m->p.why, sizeof(m->p.why), "%s", why ? why : "");
    pthread_mutex_unlock(&m->lock);
}

/* -- what the machine's thread does -- */

static void send_call(struct vm_call *call, struct vm *vm)
{
    struct migrate *m = container_of(call, struct migrate, call);

    m->call_err.text[0] = 0;
    m->call_result = m->call_fn(m, &m->call_err);
    pthread_mutex_lock(&m->lock);
    m->call_done = true;
    pthread_cond_signal(&m->turn);
    pthread_mutex_unlock(&m->lock);
}

/* Have it done, and wait. -ESHUTDOWN if the machine has ended. */
static int send_ask(struct migrate *m, int (*fn)(struct migrate *m, struct err *err), struct err *err)
{
    bool done;

    pthread_mutex_lock(&m->lock);
    m->call_done = false;
    pthread_mutex_unlock(&m->lock);
    m->call_fn = fn;
    m->call.fn = send_call;
    vm_call(m->vm, &m->call);
    pthread_mutex_lock(&m->lock);
    while (!m->call_done && !m->dead)
        pthread_cond_wait(&m->turn, &m->lock);
    done = m->call_done;
    pthread_mutex_unlock(&m->lock);
    if (!done)
        return err_set(err, ESHUTDOWN, "the machine has ended");
    if (m->call_result < 0 && err)
        *err = m->call_err;
    return m->call_result;
}

static int send_log_on(struct migrate *m, struct err *err)
{
    vm_dirty_log(m->vm, true);
    return mig_disks_log(m->vm, m->o.copy_disks, err);
}

static int send_collect(struct migrate *m, struct err *err)
{
    m->dirty_pages = vm_dirty_collect(m->vm, &m->dirty);
    return m->dirty_pages < 0 ? err_set(err, (int)-m->dirty_pages, "the dirty log cannot be read") : 0;
}

/* The same, beside what was told before and is not sent yet. */
static int send_collect_more(struct migrate *m, struct err *err)
{
    int64_t r = vm_dirty_collect(m->vm, &m->more);

    for (unsigned n = 0; n < m->vm->ram.nslots; n++) {
        for (size_t i = 0; i < m->dirty.size[n]; i++)
            m->dirty.bitmap[n][i] |= m->more.bitmap[n][i];
    }
    return r < 0 ? err_set(err, (int)-r, "the dirty log cannot be read") : 0;
}

/* The machine stands from here on: what it wrote last, and everything else that it is. */
static int send_stop(struct migrate *m, struct err *err)
{
    struct vm *vm = m->vm;
    int r;

    m->was_paused = vm->life.paused;
    m->stopped = true;
    m->stop_ns = clock_host_ns(CLOCK_MONOTONIC);
    vm_pause(vm);
    vm->life.handing = true;
    r = pc_flush_disks(vm, err);
    pc_flush_shares(vm);
    if (r == 0)
        r = send_collect_more(m, err);
    if (r == 0)
        r = save_state_take(vm, &m->state, err);
    free(m->about);
    m->about = r == 0 ? save_about_make(vm, err) : NULL;
    return r == 0 && !m->about ? -EINVAL : r;
}

/* Back to how it was. */
static int send_go_on(struct migrate *m, struct err *err)
{
    vm_slow_down(m->vm, 0);
    vm_dirty_log(m->vm, false);
    mig_disks_log_end(m->vm);
    if (!m->stopped)
        return 0;
    m->vm->life.handing = false;
    if (!m->was_paused)
        vm_resume(m->vm);
    return 0;
}

/* There is no way back. */
static int send_give_up(struct migrate *m, struct err *err)
{
    pc_give_disks(m->vm);
    return 0;
}

/* -- copying -- */

/* While something is sent: vCPUs sleep, as much as it takes. */
static void send_tick(void *opaque)
{
    struct migrate *m = opaque;
    uint64_t now = clock_host_ns(CLOCK_MONOTONIC) / 1000000;

    if (!m->nap_us || now - m->nap_ms < SEND_NAP_MS)
        return;
    m->nap_ms = now;
    vm_slow_down(m->vm, m->nap_us);
}

static void send_throttle(struct migrate *m, unsigned percent)
{
    m->nap_us = percent * SEND_NAP_MS * 10;
    if (!percent)
        vm_slow_down(m->vm, 0);
    pthread_mutex_lock(&m->lock);
    m->p.throttle = percent;
    pthread_mutex_unlock(&m->lock);
}

/* So much is done; shall it go on? */
static int send_note(void *opaque, uint64_t bytes, struct err *err)
{
    struct migrate *m = opaque;

    pthread_mutex_lock(&m->lock);
    m->p.left -= bytes < m->p.left ? bytes : m->p.left;
    m->p.sent += bytes;
    m->p.wire = m->stream.bytes;
    pthread_mutex_unlock(&m->lock);
    send_tick(m);
    return atomic_load(&m->stream.cancel) ? err_set(err, ECANCELED, "it was cancelled") : 0;
}

static uint64_t send_bytes(const uint8_t want[32])
{
    uint64_t pages = 0;

    for (unsigned n = 0; n < 32; n++)
        pages += (unsigned)__builtin_popcount(want[n]);
    return pages * PAGE_SIZE;
}

/* What the dirty log said of chunk n; in the first round everything. */
static bool send_wanted(struct migrate *m, uint64_t n, bool first, uint8_t want[32])
{
    bool any = false;
    struct save_chunk c;
    size_t slot, at;

    if (!save_chunk_at(&m->vm->ram, n, &c))
        return false;
    slot = (size_t)(c.slot - m->vm->ram.slot);
    at = c.off / PAGE_SIZE / 8;
    memset(want, 0, 32);
    for (unsigned i = 0; i < (c.pages + 7) / 8; i++) {
        want[i] = first ? 0xff : m->dirty.bitmap[slot][at + i];
        any |= want[i] != 0;
    }
    return any;
}

static int send_round(struct migrate *m, bool first, struct err *err)
{
    uint64_t count = save_chunks(&m->vm->ram);
    uint8_t want[32];
    int r = mig_disks_send(m->vm, &m->packer, &m->stream, first, m->o.copy_disks && !m->stopped, send_note, m, err);

    for (uint64_t n = 0; r == 0 && n < count; n++) {
        if (!send_wanted(m, n, first, want))
            continue;
        r = mig_send_chunk(&m->packer, &m->stream, &m->vm->ram, n, want, first, err);
        if (r == 0)
            r = send_note(m, send_bytes(want), err);
    }
    if (r < 0 && mig_readable(&m->stream)) { /* why it broke, from who broke it */
        struct mig_frame f;
        struct err said = { "" };

        if (mig_receive(&m->stream, &f, &said) == -EREMOTEIO)
            *err = said;
    }
    return r;
}

/* One round at the speed of the last one; how many pages are dirty after it, or -errno. */
static int64_t send_round_timed(struct migrate *m, bool first, int64_t pages, struct err *err)
{
    uint64_t start = clock_host_ns(CLOCK_MONOTONIC), moved = m->packer.moved, ns;
    int r;

    pthread_mutex_lock(&m->lock);
    m->p.round++;
    m->p.left = (uint64_t)pages * PAGE_SIZE;
    pthread_mutex_unlock(&m->lock);
    r = send_round(m, first, err);
    ns = clock_host_ns(CLOCK_MONOTONIC) - start;
    if (r == 0)
        r = send_ask(m, send_collect, err);
    pthread_mutex_lock(&m->lock);
    moved = m->packer.moved - moved;
    if (moved > SEND_SMALLEST * PAGE_SIZE && ns)
        m->p.rate = (uint64_t)((double)moved * 1e9 / (double)ns);
    pthread_mutex_unlock(&m->lock);
    if (r < 0)
        return r;
    return m->dirty_pages + (int64_t)(mig_disks_left(m->vm) / PAGE_SIZE);
}

static bool send_few(const struct migrate *m, int64_t pages)
{
    return pages <= SEND_SMALLEST || (double)pages * PAGE_SIZE <= (double)m->p.rate * m->o.downtime_ms / 2000;
}

static unsigned send_slower(unsigned percent) { return percent ? percent + (99 - percent + 1) / 2 : 20; }

/* Until what is left takes no longer than it may: it is then in m->dirty. */
static int send_rounds(struct migrate *m, struct err *err)
{
    int64_t before = (int64_t)(m->p.total / PAGE_SIZE), pages = send_round_timed(m, true, before, err);
    unsigned throttle = 0;

    for (unsigned round = 1; pages >= 0 && !send_few(m, pages); round++) {
        if (round == SEND_ROUNDS)
            return err_set(err, EBUSY, "the guest changes its memory faster than the connection takes it, even with its CPUs "
                                       "slowed down: allow a longer --max-downtime");
        if (round > 1 && pages > before * 6 / 10 && throttle < 99)
            send_throttle(m, throttle = send_slower(throttle));
        before = pages;
        pages = send_round_timed(m, false, pages, err);
    }
    return pages < 0 ? (int)pages : 0;
}

/* -- the whole -- */

#define SEND_HELLO (MIG_HELLO_HEAD + RAM_MAX_SLOTS * SAVE_SLOT + CONFIG_DISKS * MIG_DISK_ENTRY)

/* Returns its length. */
static size_t send_hello_head(const struct migrate *m, uint8_t head[SEND_HELLO])
{
    const struct ram *ram = &m->vm->ram;
    uint8_t *at = head + MIG_HELLO_HEAD;

    memset(head, 0, MIG_HELLO_HEAD);
    st_le32(head, MIG_VERSION);
    st_le32(head + 4, ram->nslots);
    st_le32(head + 8, SAVE_CHUNK);
    st_le32(head + 12, (uint32_t)strlen(m->about));
    memcpy(head + 16, m->token, MIG_TOKEN);
    st_le64(head + 32, mig_ram_used(&m->packer, &m->vm->ram));
    for (unsigned n = 0; n < ram->nslots; n++, at += SAVE_SLOT) {
        st_le64(at, ram->slot[n].gpa);
        st_le64(at + 8, ram->slot[n].size);
        st_le64(at + 16, ram->slot[n].readonly);
    }
    if (m->o.copy_disks) {
        st_le32(head + 40, MIG_COPIES);
        st_le32(head + 44, m->vm->cfg->disks);
        memcpy(at, m->disks, m->vm->cfg->disks * MIG_DISK_ENTRY);
        at += m->vm->cfg->disks * MIG_DISK_ENTRY;
    }
    return (size_t)(at - head);
}

static int send_hello(struct migrate *m, struct err *err)
{
    uint8_t head[SEND_HELLO];
    size_t len = send_hello_head(m, head), about = strlen(m->about);
    uint8_t *rest = malloc(about + m->state.len);
    struct mig_frame f;
    int r;

    if (!rest)
        return err_set(err, ENOMEM, "out of memory");
    memcpy(rest, m->about, about);
    memcpy(rest + about, m->state.data, m->state.len);
    r = mig_send(&m->stream, MIG_HELLO, head, len, rest, about + m->state.len, err);
    free(rest);
    state_buf_fini(&m->state);
    return r < 0 ? r : mig_expect(&m->stream, MIG_READY, 8, &f, err);
}

static int send_state(struct migrate *m, struct err *err)
{
    size_t len = strlen(m->about);
    uint8_t *head = malloc(16 + len);
    int r;

    if (!head)
        return err_set(err, ENOMEM, "out of memory");
    memset(head, 0, 16);
    st_le32(head, m->was_paused ? MIG_PAUSED : 0);
    st_le32(head + 8, (uint32_t)len);
    memcpy(head + 16, m->about, len);
    r = mig_send(&m->stream, MIG_STATE, head, 16 + len, m->state.data, m->state.len, err);
    free(head);
    return r;
}

static int send_token(struct mig_stream *s, enum mig_type wanted, const uint8_t token[MIG_TOKEN], struct err *err)
{
    struct mig_frame f;
    int r = mig_expect(s, wanted, MIG_TOKEN, &f, err);

    if (r == 0 && memcmp(f.data, token, MIG_TOKEN))
        return err_set(err, EBADMSG, "the other side speaks of another machine");
    return r;
}

/* Everything is there, checked, and waits for our word. */
static int send_rest(struct migrate *m, struct err *err)
{
    uint8_t all[8 + MIG_TOKEN];
    int r;

    pc_flush_shares(m->vm); /* most of it while the machine still runs */
    r = send_ask(m, send_stop, err);

    if (r == 0)
        r = send_round(m, false, err);
    if (r == 0)
        r = send_state(m, err);
    st_le64(all, m->stream.sent);
    memcpy(all + 8, m->token, MIG_TOKEN);
    if (r == 0)
        r = mig_send(&m->stream, MIG_ALL, all, sizeof(all), NULL, 0, err);
    return r < 0 ? r : send_token(&m->stream, MIG_HELD, m->token, err);
}

/* 0, or -errno and nothing was given up. */
static int send_all(struct migrate *m, struct err *err)
{
    int r = send_hello(m, err);

    if (r == 0)
        r = send_ask(m, send_log_on, err);
    if (r == 0)
        r = send_rounds(m, err);
    send_throttle(m, 0);
    if (r == 0) {
        send_tell(m, MIGRATE_HANDS_OVER, NULL);
        r = send_rest(m, err);
    }
    return r == 0 ? send_ask(m, send_give_up, err) : r;
}

/* Whatever was heard last: it is gone. */
static void send_moved(struct migrate *m, int r, const struct err *err)
{
    pthread_mutex_lock(&m->lock);
    m->p.stood_ns = clock_host_ns(CLOCK_MONOTONIC) - m->stop_ns;
    pthread_mutex_unlock(&m->lock);
    if (r == 0)
        fprintf(stderr, "vitro: '%s' was moved after %u rounds; it stood for %.1f ms\n", m->vm->cfg->name, m->p.round,
                (double)m->p.stood_ns / 1e6);
    else
        log_msg(LOG_ERROR, "the machine was given up, but that it runs at the other side was not heard: %s", err->text);
    mig_stream_fini(&m->stream);
    send_tell(m, MIGRATE_DONE, r < 0 ? err->text : NULL);
}

/* Whoever watches shall learn how it went before the machine and its control socket end. */
static void send_linger(struct migrate *m)
{
    struct timespec end;
    int r = 0;

    clock_gettime(CLOCK_REALTIME, &end);
    end.tv_sec += SEND_LINGER_S;
    pthread_mutex_lock(&m->lock);
    while (r == 0 && !m->told && !m->dead)
        r = pthread_cond_timedwait(&m->turn, &m->lock, &end);
    pthread_mutex_unlock(&m->lock);
}

static void *send_main(void *arg)
{
    struct migrate *m = arg;
    struct err err = { "" };
    int r;

    r = send_all(m, &err);
    if (r < 0) {
        mig_stream_fini(&m->stream); /* the other side throws away what it has */
        send_ask(m, send_go_on, NULL);
        send_tell(m, MIGRATE_FAILED, err.text[0] ? err.text : strerror(-r));
        return NULL;
    }
    atomic_store(&m->stream.cancel, false); /* too late */
    r = mig_send(&m->stream, MIG_COMMIT, m->token, MIG_TOKEN, NULL, 0, &err);
    if (r == 0)
        r = send_token(&m->stream, MIG_RUNS, m->token, &err);
    send_moved(m, r, &err);
    send_linger(m);
    vm_request(m->vm, VM_REQ_MOVED);
    return NULL;
}

/* -- life -- */

static void send_free(struct migrate *m)
{
    for (unsigned n = 0; n < RAM_MAX_SLOTS; n++) {
        free(m->dirty.bitmap[n]);
        free(m->more.bitmap[n]);
        m->dirty.bitmap[n] = m->more.bitmap[n] = NULL;
    }
    mig_packer_fini(&m->packer);
    mig_stream_fini(&m->stream);
    state_buf_fini(&m->state);
    free(m->about);
    m->about = NULL;
}

static int send_alloc(struct migrate *m)
{
    const struct ram *ram = &m->vm->ram;
    int r = mig_packer_init(&m->packer);

    m->packer.pagemap = m->o.pagemap;
    for (unsigned n = 0; r == 0 && n < ram->nslots; n++) {
        m->dirty.size[n] = m->more.size[n] = (ram->slot[n].size / PAGE_SIZE + 7) / 8;
        m->dirty.bitmap[n] = malloc(m->dirty.size[n]);
        m->more.bitmap[n] = malloc(m->more.size[n]);
        m->p.total += ram->slot[n].size;
        r = m->dirty.bitmap[n] && m->more.bitmap[n] ? 0 : -ENOMEM;
    }
    for (unsigned n = 0; m->o.copy_disks && n < m->vm->cfg->disks; n++)
        m->p.total += pc_disk_block(m->vm, n)->size;
    return r;
}

static int send_prepare(struct migrate *m, struct err *err)
{
    struct rand_source rand;
    int r;

    m->about = save_about_make(m->vm, err);
    if (!m->about)
        return -EINVAL;
    mig_disks_describe(m->vm, m->disks);
    rand_init_host(&rand);
    r = rand_bytes(&rand, m->token, sizeof(m->token));
    if (r == 0)
        r = send_alloc(m);
    if (r == 0)
        return save_shape_take(m->vm, &m->state, err);
    return r < 0 ? err_set(err, -r, "cannot prepare the migration: %s", strerror(-r)) : 0;
}

int migrate_begin(struct migrate *m, struct vm *vm, int fd, const struct migrate_options *o, struct err *err)
{
    struct migrate_progress p;
    int r;

    migrate_get(m, &p);
    if (p.phase == MIGRATE_COPIES || p.phase == MIGRATE_HANDS_OVER || p.phase == MIGRATE_DONE) {
        close(fd);
        return err_set(err, EBUSY, "the machine is being migrated already");
    }
    migrate_finish(m);
    memset(m, 0, sizeof(*m));
    m->vm = vm;
    m->o = *o;
    m->p.phase = MIGRATE_COPIES;
    r = mig_stream_init(&m->stream, fd, fd, (int)o->stall_s * 1000);
    r = r < 0 ? err_set(err, -r, "the connection cannot be used: %s", strerror(-r)) : send_prepare(m, err);
    m->stream.tick = send_tick;
    m->stream.opaque = m;
    pthread_mutex_init(&m->lock, NULL);
    pthread_cond_init(&m->turn, NULL);
    if (r == 0 && (r = thread_start(&m->thread, GUARD_BLOCK, send_main, m)) < 0)
        err_set(err, -r, "cannot start a thread: %s", strerror(-r));
    m->started = r == 0;
    if (r < 0)
        send_free(m);
    return r;
}

void migrate_cancel(struct migrate *m)
{
    if (m->started)
        atomic_store(&m->stream.cancel, true);
}

void migrate_finish(struct migrate *m)
{
    if (!m->started)
        return;
    pthread_mutex_lock(&m->lock);
    m->dead = true;
    pthread_cond_signal(&m->turn);
    pthread_mutex_unlock(&m->lock);
    migrate_cancel(m);
    pthread_join(m->thread, NULL);
    m->started = false;
    send_free(m);
}
