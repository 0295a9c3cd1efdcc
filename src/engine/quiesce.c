/* Stopping all other vCPUs: for changes that no vCPU may see half done (a page becomes code, code is
 * dropped, a locked access that crosses pages).
 *
 * A vCPU is "running" between quiesce_enter() and quiesce_leave(); it looks at ATT_QUIESCE at every
 * block boundary. One that waits to become the owner counts as stopped, so two cannot block each other.
 * Locks: quiesce.lock, a leaf.
 *
 * Who waits, for whatever, waits for quiesce.changed to become another number (futex(2)). A condition variable would do, but glibc before 2.41 may lose
 * a wake-up where several threads wait for one (its bug 25847), and a vCPU that missed it would stand for good.
 */
#include "engine/engine.h"

#include <limits.h>
#include <linux/futex.h>
#include <sys/syscall.h>
#include <unistd.h>

/* quiesce.lock is held. */
static void quiesce_tell(struct engine *e)
{
    atomic_fetch_add(&e->quiesce.changed, 1);
    if (e->quiesce.waiting)
        syscall(SYS_futex, &e->quiesce.changed, FUTEX_WAKE_PRIVATE, INT_MAX, NULL, NULL, 0);
}

/* Until it is told, or for no reason; quiesce.lock is held, but not meanwhile. */
static void quiesce_wait(struct engine *e)
{
    uint32_t seen = atomic_load(&e->quiesce.changed);
    e->quiesce.waiting++;
    pthread_mutex_unlock(&e->quiesce.lock);
    syscall(SYS_futex, &e->quiesce.changed, FUTEX_WAIT_PRIVATE, seen, NULL, NULL, 0);
    pthread_mutex_lock(&e->quiesce.lock);
    e->quiesce.waiting--;
}

/* The owner waits only for vCPUs other than itself; with one vCPU there is nobody to stop. */
static bool quiesce_alone(const struct vcpu *v)
{
    return v->engine->nvcpus == 1;
}

void quiesce_enter(struct vcpu *v)
{
    struct engine *e = v->engine;
    if (quiesce_alone(v))
        return;
    pthread_mutex_lock(&e->quiesce.lock);
    while (e->quiesce.owner)
        quiesce_wait(e);
    e->quiesce.running++;
    v->in_guest = true;
    pthread_mutex_unlock(&e->quiesce.lock);
}

void quiesce_leave(struct vcpu *v)
{
    struct engine *e = v->engine;
    if (quiesce_alone(v))
        return;
    pthread_mutex_lock(&e->quiesce.lock);
    e->quiesce.running--;
    v->in_guest = false;
    quiesce_tell(e);
    pthread_mutex_unlock(&e->quiesce.lock);
}

void quiesce_begin(struct vcpu *v)
{
    struct engine *e = v->engine;
    if (quiesce_alone(v) || v->exclusive_depth++ > 0)
        return;
    pthread_mutex_lock(&e->quiesce.lock);
    e->quiesce.running--;
    v->in_guest = false;
    quiesce_tell(e);
    while (e->quiesce.owner)
        quiesce_wait(e);
    e->quiesce.owner = v;
    for (unsigned n = 0; n < e->nvcpus; n++)
        if (e->vcpu[n]->in_guest)
            vcpu_kick(e->vcpu[n], ATT_QUIESCE);
    while (e->quiesce.running)
        quiesce_wait(e);
    pthread_mutex_unlock(&e->quiesce.lock);
}

void quiesce_end(struct vcpu *v)
{
    struct engine *e = v->engine;
    if (quiesce_alone(v) || --v->exclusive_depth > 0)
        return;
    pthread_mutex_lock(&e->quiesce.lock);
    e->quiesce.owner = NULL;
    e->quiesce.running++;
    v->in_guest = true;
    quiesce_tell(e);
    pthread_mutex_unlock(&e->quiesce.lock);
}
