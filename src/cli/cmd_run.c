/* vitro run: options to a machine, the machine's end to an exit status.
 *
 * Thread: the main thread, which becomes the machine's thread. Signals that end vitro are blocked in all
 * threads and come through a signalfd into the machine's loop.
 */
#include <errno.h>
#include <inttypes.h>
#include <jansson.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <time.h>
#include <unistd.h>

#include "base/bits.h"
#include "base/err.h"
#include "base/log.h"
#include "cli/cli.h"
#include "machine/config.h"
#include "machine/host.h"
#include "machine/vm.h"

void cmd_run_help(void)
{
    puts("options:");
    for (const struct config_key *k = config_keys; k->key; k++) {
        char left[40];

        if (k->kind == CONFIG_LATER)
            continue;
        snprintf(left, sizeof(left), "--%s%s%s", k->key, k->arg ? " " : "", k->arg ? k->arg : "");
        printf("  %-22s%s\n", left, k->help);
    }
    puts("  --config FILE         a JSON object with these options as keys; the command line wins\n"
         "  --json                what vitro itself says on stderr is JSON, one object a line\n"
         "\n"
         "Ctrl-] then ? lists the console's keys; Ctrl-] q ends the machine.\n"
         "\n"
         "exit status: 0 the guest powered off (or rebooted, with --no-reboot); (v<<1)|1 with --debug-exit;\n"
         "124 --timeout ran out; 125 vitro's own error; 126 the guest crashed for good.");
}

/* -- options -- */

struct run_options {
    struct machine_config cfg;
    bool json;
    bool serial_given;
};

static int run_unknown(const char *word, struct err *err)
{
    const struct config_key *best = NULL;

    for (const struct config_key *k = config_keys; k->key; k++) {
        if (k->kind != CONFIG_LATER && (!best || cli_distance(word, k->key) < cli_distance(word, best->key)))
            best = k;
    }
    if (best && cli_distance(word, best->key) <= 2)
        return err_set(err, EINVAL, "option '--%.80s' is unknown: did you mean '--%s'?", word, best->key);
    return err_set(err, EINVAL, "option '--%.80s' is unknown: see 'vitro help run'", word);
}

/* The first --serial on the command line replaces what a configuration file said. */
static void run_forget_serials(struct run_options *o)
{
    if (o->serial_given)
        return;
    o->serial_given = true;
    while (o->cfg.serials > 0) {
        o->cfg.serials--;
        free(o->cfg.serial[o->cfg.serials]);
        o->cfg.serial[o->cfg.serials] = NULL;
    }
}

/* One option, split into its name and the value after '=' (NULL: none). Returns how many words it took, or
 * -errno. */
static int run_option(struct run_options *o, const char *name, const char *value, const char *next,
                      struct err *err)
{
    const struct config_key *k = config_find(name);
    bool config = !strcmp(name, "config");
    int words = 1, r;

    if (!strcmp(name, "json")) {
        o->json = true;
        return value ? err_set(err, EINVAL, "option '--json' takes no value") : 1;
    }
    if (!k && !config)
        return run_unknown(name, err);
    if (k && k->kind != CONFIG_LATER && !k->arg && value)
        return err_set(err, EINVAL, "option '--%s' takes no value", name);
    if ((config || (k->arg && k->kind != CONFIG_LATER)) && !value) {
        if (!next)
            return err_set(err, EINVAL, "option '--%s' needs a value: %s", name, config ? "FILE" : k->arg);
        value = next;
        words = 2;
    }
    if (config)
        return words; /* read before all others */
    if (!strcmp(name, "serial"))
        run_forget_serials(o);
    r = config_set(&o->cfg, name, value, err);
    return r < 0 ? r : words;
}

static int run_options(struct run_options *o, int argc, char **argv, struct err *err)
{
    for (int i = 0; i < argc;) {
        char name[32];
        const char *word = argv[i], *eq = strchr(word, '=');
        size_t len = eq ? (size_t)(eq - word) : strlen(word);
        int words;

        if (strncmp(word, "--", 2) || len < 3)
            return err_set(err, EINVAL, "'%.80s' is not an option: see 'vitro help run'", word);
        if (len - 2 >= sizeof(name))
            return err_set(err, EINVAL, "option '%.80s' is unknown: see 'vitro help run'", word);
        memcpy(name, word + 2, len - 2);
        name[len - 2] = 0;
        words = run_option(o, name, eq ? eq + 1 : NULL, i + 1 < argc ? argv[i + 1] : NULL, err);
        if (words < 0)
            return words;
        i += words;
    }
    return 0;
}

/* Configuration files come first, so that the command line wins. */
static int run_config_files(struct run_options *o, int argc, char **argv, struct err *err)
{
    int r = 0;

    for (int i = 0; r == 0 && i < argc; i++) {
        if (!strncmp(argv[i], "--config=", 9))
            r = config_load_json(&o->cfg, argv[i] + 9, err);
        else if (!strcmp(argv[i], "--config") && i + 1 < argc)
            r = config_load_json(&o->cfg, argv[i + 1], err);
    }
    return r;
}

static int run_parse(struct run_options *o, int argc, char **argv, struct err *err)
{
    int r;

    for (int i = 0; i < argc; i++)
        o->json |= !strcmp(argv[i], "--json");
    r = run_config_files(o, argc, argv, err);
    if (r == 0)
        r = run_options(o, argc, argv, err);
    if (o->json && o->cfg.trace & TRACE_STATS)
        o->cfg.trace |= TRACE_JSON;
    return r < 0 ? r : config_check(&o->cfg, err);
}

/* -- messages -- */

static void run_say_engine(const struct run_options *o, const char *engine, const char *why)
{
    char *text;
    json_t *line;

    if (!o->json) {
        fprintf(stderr, "vitro: engine %s\n", why);
        return;
    }
    line = json_pack("{s:s, s:s, s:s}", "event", "engine", "engine", engine, "why", why);
    text = line ? json_dumps(line, JSON_COMPACT) : NULL;
    if (text)
        fprintf(stderr, "%s\n", text);
    free(text);
    json_decref(line);
}

static void run_say_places(const struct run_options *o, const struct vm *vm)
{
    for (unsigned n = 0; n < VM_SERIALS; n++) {
        const char *path = serial_path(&vm->serial[n]);
        const char *event = n < VM_UARTS ? "serial" : "virtio-console";
        unsigned port = n < VM_UARTS ? n + 1 : n - VM_UARTS + 1;

        if (path && o->json)
            fprintf(stderr, "{\"event\":\"%s\",\"port\":%u,\"path\":\"%s\"}\n", event, port, path);
        else if (path)
            fprintf(stderr, "vitro: %s%u is at %s\n", n < VM_UARTS ? "COM" : "virtio-console ", port, path);
    }
}

static void run_say_end(const struct run_options *o, const struct vm *vm, double seconds)
{
    enum vm_end end = vm->life.end;

    if (o->json)
        fprintf(stderr, "{\"event\":\"end\",\"status\":%d,\"why\":\"%s\",\"seconds\":%.3f}\n", vm_status(vm),
                vm_end_name(end), seconds);
    else if (end == VM_END_TIMEOUT || end == VM_END_TRIPLE || end == VM_END_PANIC || end == VM_END_QUIT)
        fprintf(stderr, "vitro: %s\n", vm_end_name(end));
}

/* -- signals -- */

/* A signalfd for the signals that end vitro or concern its terminal; what the caller ignores (nohup) stays
 * ignored. */
static int run_take_signals(void)
{
    static const int wanted[] = { SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGTSTP, SIGCONT, SIGWINCH };
    struct sigaction old;
    sigset_t set;

    sigemptyset(&set);
    for (size_t i = 0; i < ARRAY_LEN(wanted); i++) {
        if (sigaction(wanted[i], NULL, &old) == 0 && old.sa_handler != SIG_IGN)
            sigaddset(&set, wanted[i]);
    }
    signal(SIGPIPE, SIG_IGN);
    sigprocmask(SIG_BLOCK, &set, NULL);
    return signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
}

/* End as the signal would have ended us, so that the caller sees the truth. */
static void run_die_by(int sig)
{
    sigset_t set;

    sigemptyset(&set);
    sigaddset(&set, sig);
    signal(sig, SIG_DFL);
    raise(sig);
    sigprocmask(SIG_UNBLOCK, &set, NULL);
}

/* -- running -- */

static double run_seconds(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

static int run_machine(const struct run_options *o, const struct engine_ops *ops, const char *why)
{
    double start = run_seconds();
    struct err err = { "" };
    int signals, status, sig;
    struct vm *vm;

    signals = run_take_signals();
    if (vm_create(&vm, &o->cfg, ops, &err) < 0) {
        close(signals);
        return cli_fail(o->json, &err);
    }
    run_say_engine(o, ops->name, why);
    run_say_places(o, vm);
    vm_run(vm, signals);
    run_say_end(o, vm, run_seconds() - start);
    status = vm_status(vm);
    sig = vm->life.end == VM_END_SIGNAL ? vm->life.signal : 0;
    vm_destroy(vm);
    close(signals);
    if (sig)
        run_die_by(sig);
    return status;
}

int cmd_run(int argc, char **argv)
{
    struct run_options o = { .json = false };
    const struct engine_ops *ops;
    struct err err = { "" };
    char why[256];
    int status;

    if (config_init(&o.cfg) < 0)
        return cli_failf("out of memory");
    if (run_parse(&o, argc, argv, &err) < 0 ||
        host_pick_engine(o.cfg.engine, &ops, why, sizeof(why), &err) < 0) {
        status = cli_fail(o.json, &err);
    } else {
        if (o.cfg.trace)
            log_set_level(LOG_INFO);
        status = run_machine(&o, ops, why);
    }
    config_fini(&o.cfg);
    return status;
}
