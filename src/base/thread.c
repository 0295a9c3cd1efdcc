/* See thread.h. A new thread enters its fence by itself, because only it can; who starts it waits for that, so that a
 * thread without its fence is an error and never runs. */
#include "base/thread.h"

#include <errno.h>
#include <semaphore.h>
#include <signal.h>
#include <sys/prctl.h>

#include "base/bits.h"

struct thread_birth {
    enum guard_kind kind, parent;
    void (*before)(void *opaque);
    void *(*fn)(void *opaque);
    void *opaque;
    int result;
    sem_t entered;
};

static void *thread_main(void *arg)
{
    struct thread_birth *b = arg;
    void *(*fn)(void *opaque) = b->fn;
    void *opaque = b->opaque;
    int r;

    prctl(PR_SET_NAME, guard_names[b->kind]);
    guard_inherit(b->parent);
    if (b->before)
        b->before(opaque);
    r = guard_enter(b->kind);
    b->result = r;
    sem_post(&b->entered); /* b is gone from here on */
    return r < 0 ? NULL : fn(opaque);
}

static int thread_create(pthread_t *t, struct thread_birth *b)
{
    static const int faults[] = { SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGTRAP, SIGABRT, SIGSYS };
    sigset_t set, old;
    int r;

    sigfillset(&set);
    for (unsigned n = 0; n < ARRAY_LEN(faults); n++)
        sigdelset(&set, faults[n]);
    pthread_sigmask(SIG_SETMASK, &set, &old);
    r = pthread_create(t, NULL, thread_main, b);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    return -r;
}

int thread_start(pthread_t *t, enum guard_kind kind, void *(*fn)(void *opaque), void *opaque)
{
    return thread_start_before(t, kind, NULL, fn, opaque);
}

int thread_start_before(pthread_t *t, enum guard_kind kind, void (*before)(void *opaque), void *(*fn)(void *opaque), void *opaque)
{
    struct thread_birth b = { .kind = kind, .parent = guard_inside(), .before = before, .fn = fn, .opaque = opaque };
    int r;

    sem_init(&b.entered, 0, 0);
    r = thread_create(t, &b);
    while (r == 0 && sem_wait(&b.entered) < 0 && errno == EINTR)
        continue;
    if (r == 0 && b.result < 0) {
        pthread_join(*t, NULL);
        r = b.result;
    }
    sem_destroy(&b.entered);
    return r;
}
