/* Stopping all other vCPUs: for changes that no vCPU may see half done (a page becomes code, code is
 * dropped, a locked access that crosses pages).
 *
 * A vCPU is "running" between quiesce_enter() and quiesce_leave(); it looks at ATT_QUIESCE at every
 * block boundary. One that waits to become the owner counts as stopped, so two cannot block each other.
 * Locks: quiesce.lock, a leaf but for vcpu->wait_lock taken inside (through vcpu_kick()).
 */
#include "engine/engine.h"

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
        pthread_cond_wait(&e->quiesce.idle, &e->quiesce.lock);
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
    pthread_cond_broadcast(&e->quiesce.idle);
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
    pthread_cond_broadcast(&e->quiesce.idle);
    while (e->quiesce.owner)
        pthread_cond_wait(&e->quiesce.idle, &e->quiesce.lock);
    e->quiesce.owner = v;
    for (unsigned n = 0; n < e->nvcpus; n++)
        if (e->vcpu[n]->in_guest)
            vcpu_kick(e->vcpu[n], ATT_QUIESCE);
    while (e->quiesce.running)
        pthread_cond_wait(&e->quiesce.idle, &e->quiesce.lock);
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
    pthread_cond_broadcast(&e->quiesce.idle);
    pthread_mutex_unlock(&e->quiesce.lock);
}
