/* Starting a thread: inside its fence (guard.h), named, and without signals, which are for the threads that wait for them
 * (faults of the thread itself cannot be blocked).
 */
#ifndef VITRO_BASE_THREAD_H
#define VITRO_BASE_THREAD_H

#include <pthread.h>

#include "base/guard.h"

/* 0, or -errno: then nothing of fn has run. Any thread that may start threads, any lock held. */
int thread_start(pthread_t *t, enum guard_kind kind, void *(*fn)(void *opaque), void *opaque);
/* The same. before: called on the new thread before its fence closes; or NULL. */
int thread_start_before(pthread_t *t, enum guard_kind kind, void (*before)(void *opaque), void *(*fn)(void *opaque), void *opaque);

#endif
