/* Run a machine as `vitro run` does, and steer it from outside through the calls that other parts of vitro
 * will make: for tests of what has no face for people yet.
 *
 * usage: steer COMMANDS-FD --OPTION VALUE ...      (options of vitro run, each with a value; flags take
 * "true")
 *
 * Each line that comes from the descriptor is a command; the answer is a line on standard error, "steer:
 * COMMAND RESULT". The end of the commands changes nothing. Threads: the main thread is the machine's;
 * another one reads commands.
 */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/bits.h"
#include "base/err.h"
#include "machine/host.h"
#include "machine/vm.h"

static long long steer_genid(struct vm *vm, const char *arg) { return vm_change_generation(vm); }

/* So many MiB for the guest. */
static long long steer_memory(struct vm *vm, const char *arg)
{
    return vm_set_memory(vm, strtoull(arg, NULL, 10) << 20);
}

/* MiB in the balloon. */
static long long steer_balloon(struct vm *vm, const char *arg)
{
    long long v;

    loop_lock(&vm->loop);
    v = (long long)(virtio_balloon_size(&vm->balloon) >> 20);
    loop_unlock(&vm->loop);
    return v;
}

/* MiB given back to the host so far. */
static long long steer_given(struct vm *vm, const char *arg)
{
    long long v;

    loop_lock(&vm->loop);
    v = (long long)(vm->balloon.given_back >> 20);
    loop_unlock(&vm->loop);
    return v;
}

/* MiB that the guest says are free; -1: it said nothing for five seconds. */
static long long steer_free(struct vm *vm, const char *arg)
{
    long long v = -1;
    uint64_t was;

    loop_lock(&vm->loop);
    was = vm->balloon.stat_time;
    virtio_balloon_poll(&vm->balloon);
    for (unsigned n = 0; n < 100 && v < 0; n++) {
        loop_unlock(&vm->loop);
        usleep(50000);
        loop_lock(&vm->loop);
        if (vm->balloon.stat_time != was)
            v = (long long)(vm->balloon.stat[BALLOON_FREE] >> 20);
    }
    loop_unlock(&vm->loop);
    return v;
}

static const struct {
    const char *name;
    long long (*run)(struct vm *vm, const char *arg);
} steer_commands[] = {
    { "genid", steer_genid }, { "memory", steer_memory }, { "balloon", steer_balloon },
    { "given", steer_given }, { "free", steer_free },
};

static void steer_one(struct vm *vm, char *line)
{
    char *arg = strchr(line, ' ');

    if (arg)
        *arg++ = 0;
    for (size_t i = 0; i < ARRAY_LEN(steer_commands); i++) {
        if (strcmp(line, steer_commands[i].name))
            continue;
        fprintf(stderr, "steer: %s %lld\n", line, steer_commands[i].run(vm, arg ? arg : ""));
        return;
    }
    fprintf(stderr, "steer: %s is unknown\n", line);
}

struct steer {
    struct vm *vm;
    FILE *commands;
};

static void *steer_thread(void *arg)
{
    struct steer *s = arg;
    char line[128];

    while (fgets(line, sizeof(line), s->commands)) {
        line[strcspn(line, "\n")] = 0;
        steer_one(s->vm, line);
    }
    return NULL;
}

static int steer_fail(const char *what)
{
    fprintf(stderr, "steer: %s\n", what);
    return 125;
}

int main(int argc, char **argv)
{
    struct machine_config cfg;
    const struct engine_ops *ops;
    struct err err = { "" };
    struct steer s = { .commands = argc > 1 ? fdopen(atoi(argv[1]), "r") : NULL };
    char why[160];
    pthread_t thread;
    int status, r = config_init(&cfg);

    if (!s.commands || r < 0)
        return steer_fail("no descriptor for commands");
    for (int i = 2; r == 0 && i + 1 < argc; i += 2)
        r = config_set(&cfg, argv[i] + 2, argv[i + 1], &err);
    if (r == 0)
        r = config_check(&cfg, &err);
    if (r == 0)
        r = host_pick_engine(cfg.engine, &ops, why, sizeof(why), &err);
    if (r == 0)
        r = vm_create(&s.vm, &cfg, ops, &err);
    if (r < 0)
        return steer_fail(err.text);
    if (pthread_create(&thread, NULL, steer_thread, &s))
        return steer_fail("no thread");
    vm_run(s.vm, -1);
    pthread_cancel(thread);
    pthread_join(thread, NULL);
    fclose(s.commands);
    status = vm_status(s.vm);
    vm_destroy(s.vm);
    config_fini(&cfg);
    return status;
}
