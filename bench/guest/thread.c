/* Signals, switches between threads, and one or two threads that only compute. */
#define _GNU_SOURCE
#include "bench.h"

#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <stdlib.h>
#include <unistd.h>

#define THREAD_SIGNALS  200
#define THREAD_SWITCHES 50
#define THREAD_WORK     20

static volatile sig_atomic_t thread_signals;
static sem_t thread_ping, thread_pong;

static void thread_handler(int sig) { thread_signals += sig == SIGUSR1; }

void signal_setup(void)
{
    struct sigaction act = { .sa_handler = thread_handler };

    sigaction(SIGUSR1, &act, NULL);
}

/* Each is a system call, a frame on the stack, the handler and the return from it. */
uint64_t signal_round(void)
{
    thread_signals = 0;
    for (int i = 0; i < THREAD_SIGNALS; i++)
        kill(getpid(), SIGUSR1);
    return (uint64_t)thread_signals;
}

static void *thread_partner(void *arg)
{
    for (;;) {
        sem_wait(&thread_ping);
        sem_post(&thread_pong);
    }
    return arg;
}

static void thread_start(pthread_t *thread, void *(*code)(void *), void *arg)
{
    if (pthread_create(thread, NULL, code, arg))
        exit(1);
}

void thread_setup(void)
{
    pthread_t thread;

    sem_init(&thread_ping, 0, 0);
    sem_init(&thread_pong, 0, 0);
    thread_start(&thread, thread_partner, NULL);
}

/* Each round trip is two futex hand-offs. */
uint64_t thread_round(void)
{
    uint64_t done = 0;

    for (int i = 0; i < THREAD_SWITCHES; i++) {
        sem_post(&thread_ping);
        done += sem_wait(&thread_pong) == 0;
    }
    return done;
}

static void *thread_compute(void *arg)
{
    uint64_t *sum = arg;

    for (int i = 0; i < THREAD_WORK; i++)
        *sum = bench_mix(*sum, fib_round());
    return NULL;
}

static uint64_t thread_several(unsigned n)
{
    pthread_t threads[2];
    uint64_t sums[2] = { 0 };

    for (unsigned i = 0; i < n; i++)
        thread_start(&threads[i], thread_compute, &sums[i]);
    for (unsigned i = 0; i < n; i++)
        pthread_join(threads[i], NULL);
    return bench_mix(sums[0], sums[1] + n);
}

uint64_t solo_round(void) { return thread_several(1); }

uint64_t pair_round(void) { return thread_several(2); }
