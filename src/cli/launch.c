/* A machine of this process, or of a child in the background: its life from options to an exit status.
 *
 * Thread: the main thread, which becomes the machine's thread. Signals that end vitro are blocked in all
 * threads and come through a signalfd into the machine's loop.
 *
 * In the background: the child takes the machine's place, and tells its parent through a pipe who it is and when the machine
 * runs, or in a sentence why not.
 */
#include "cli/launch.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <jansson.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include "api/control.h"
#include "base/bits.h"
#include "base/clock.h"
#include "base/err.h"
#include "base/log.h"
#include "cli/cli.h"
#include "cli/snap_tree.h"
#include "machine/host.h"
#include "machine/sandbox.h"
#include "machine/vm.h"

/* -- messages -- */

static void launch_say_engine(const struct run_options *o, const char *engine, const char *why)
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

static void launch_say_places(const struct run_options *o, const struct vm *vm)
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

static void launch_say_end(const struct run_options *o, const struct vm *vm, double seconds)
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
static int launch_take_signals(bool save)
{
    static const int wanted[] = { SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGTSTP, SIGCONT, SIGWINCH, SIGUSR1 };
    struct sigaction old;
    sigset_t set;

    sigemptyset(&set);
    for (size_t i = 0; i < ARRAY_LEN(wanted) - !save; i++) {
        if (sigaction(wanted[i], NULL, &old) == 0 && old.sa_handler != SIG_IGN)
            sigaddset(&set, wanted[i]);
    }
    signal(SIGPIPE, SIG_IGN);
    sigprocmask(SIG_BLOCK, &set, NULL);
    return signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
}

/* End as the signal would have ended us, so that the caller sees the truth. */
static void launch_die_by(int sig)
{
    sigset_t set;

    sigemptyset(&set);
    sigaddset(&set, sig);
    signal(sig, SIG_DFL);
    raise(sig);
    sigprocmask(SIG_UNBLOCK, &set, NULL);
}

/* vm.stuck. */
static void launch_stuck(struct vm *vm)
{
    if (vm->life.end == VM_END_SIGNAL)
        launch_die_by(vm->life.signal);
    _exit(vm_status(vm));
}

/* -- running -- */

/* The name that was chosen, or NULL. */
static const char *launch_name(const struct machine_config *cfg)
{
    for (unsigned i = 0; i < cfg->givens; i++) {
        if (!strcmp(cfg->given[i].key->key, "name"))
            return cfg->name;
    }
    return NULL;
}

/* Disks of a machine that has snapshots are where it goes on. */
static int launch_settle(struct run_options *o, struct err *err)
{
    return launch_name(&o->cfg) ? snap_tree_settle(o->cfg.name, &o->cfg, err) : 0;
}

/* A machine that nobody named and that runs on a terminal works without a place, too. */
static int launch_claim(const struct run_options *o, struct control *c, struct err *err)
{
    const char *name = launch_name(&o->cfg);
    int r = site_claim(&c->site, name, o->cfg.detach, err);

    if (r == 0 || name || o->cfg.detach)
        return r;
    log_msg(LOG_WARN, "no control socket: %s", err->text);
    err->text[0] = 0;
    return 0;
}

/* The machine that comes from elsewhere does not come: its source hears why. */
static void launch_refuse(struct run_options *o, const struct err *err)
{
    migrate_in_close(o->incoming, err);
    o->incoming = NULL;
}

/* New, from a file, or from elsewhere. */
static int launch_create(struct run_options *o, struct vm **vm, const struct engine_ops *ops, struct err *err)
{
    int r;

    if (!o->incoming)
        return run_restore_create(&o->restore, vm, &o->cfg, ops, err);
    r = migrate_make(o->incoming, vm, &o->cfg, ops, err);
    return r < 0 ? r : migrate_receive(o->incoming, *vm, err);
}

/* The last step: a machine that comes from elsewhere is given up there. */
static int launch_take_over(struct run_options *o, struct vm *vm, struct err *err)
{
    int r = o->incoming ? migrate_take_over(o->incoming, vm, err) : 0;

    if (r == 0)
        launch_refuse(o, NULL);
    return r;
}

/* The place is claimed; says errors only in err. Returns the exit status. */
static int launch_machine(struct run_options *o, struct control *c, const struct engine_ops *ops, const char *why,
                          struct err *err)
{
    double start = clock_host_seconds(CLOCK_MONOTONIC);
    int status, sig, signals = launch_take_signals(o->save.path);
    struct vm *vm = NULL;

    if (config_agent_vsock(&o->cfg, c->site.dir, err) < 0 || run_save_prepare(&o->save, err) < 0 ||
        sandbox_init(&o->cfg, c->site.dir, c->site.parent, err) < 0 || launch_create(o, &vm, ops, err) < 0 ||
        (c->site.lock >= 0 && control_start(c, vm, err) < 0) || launch_take_over(o, vm, err) < 0) {
        launch_refuse(o, err);
        run_save_finish(&o->save);
        c->site.info.keep = false; /* it never was: there is nothing to look at */
        control_fini(c);
        vm_destroy(vm);
        site_leave(&c->site, CLI_ERROR, "could not start");
        close(signals);
        return CLI_ERROR;
    }
    if (!o->cfg.detach)
        launch_say_engine(o, ops->name, why);
    launch_say_places(o, vm);
    run_save_attach(&o->save, vm);
    vm->stuck = launch_stuck;
    vm_run(vm, signals);
    run_save_finish(&o->save);
    launch_say_end(o, vm, clock_host_seconds(CLOCK_MONOTONIC) - start);
    status = vm_status(vm);
    sig = vm->life.end == VM_END_SIGNAL ? vm->life.signal : 0;
    const char *end = vm_end_name(vm->life.end);
    control_fini(c);
    vm_destroy(vm);
    site_leave(&c->site, status, end);
    sandbox_fini();
    close(signals);
    if (sig)
        launch_die_by(sig);
    return status;
}

static int launch_foreground(struct run_options *o, const struct engine_ops *ops, const char *why)
{
    struct err err = { "" };
    struct control c;
    int status;

    control_init(&c);
    if (launch_settle(o, &err) < 0 || launch_claim(o, &c, &err) < 0) {
        launch_refuse(o, &err);
        return cli_fail(o->json, &err);
    }
    status = launch_machine(o, &c, ops, why, &err);
    return err.text[0] ? cli_fail(o->json, &err) : status;
}

/* -- in the background -- */

/* "NAME ID\n" when the place is taken; then a zero byte when the machine runs (control.c), or a sentence. */
static void launch_tell(int fd, const char *text)
{
    ssize_t n = write(fd, text, strlen(text));
    (void)n; /* nobody waits: nobody needs to know */
}

/* The standard streams of a machine without a terminal. */
static int launch_streams(struct control *c, struct err *err)
{
    int null = open("/dev/null", O_RDWR | O_CLOEXEC), log = site_file(&c->site, "log");
    int r = null < 0 ? -errno : log < 0 ? log : 0;

    if (r == 0 && (dup2(null, 0) < 0 || dup2(log, 1) < 0 || dup2(log, 2) < 0))
        r = -errno;
    if (null >= 0)
        close(null);
    if (log >= 0)
        close(log);
    return r < 0 ? err_set(err, -r, "cannot open the machine's log: %s", strerror(-r)) : 0;
}

/* The child. Returns its exit status. */
static int launch_child(struct run_options *o, const struct engine_ops *ops, const char *why, int tell)
{
    struct err err = { "" };
    struct control c;
    char line[128];
    int status;

    setsid();
    control_init(&c);
    if (launch_settle(o, &err) < 0 || launch_claim(o, &c, &err) < 0) {
        launch_refuse(o, &err);
        launch_tell(tell, err.text);
        return CLI_ERROR;
    }
    snprintf(line, sizeof(line), "%s %s\n", c.site.info.name, c.site.info.id);
    launch_tell(tell, line);
    if (launch_streams(&c, &err) < 0) {
        launch_refuse(o, &err);
        launch_tell(tell, err.text);
        c.site.info.keep = false;
        control_fini(&c);
        site_leave(&c.site, CLI_ERROR, "could not start");
        return CLI_ERROR;
    }
    c.ready = tell;
    tell = fcntl(tell, F_DUPFD_CLOEXEC, 3);
    status = launch_machine(o, &c, ops, why, &err);
    if (err.text[0]) {
        fprintf(stderr, "vitro: %s\n", err.text);
        launch_tell(tell, err.text);
    }
    return status;
}

/* What the child says until the machine runs. Returns its length; *up is true if it runs. */
static size_t launch_listen(int fd, char *text, size_t size, bool *up)
{
    size_t len = 0;

    *up = false;
    while (!*up && len < size - 1) {
        ssize_t n = read(fd, text + len, size - 1 - len);

        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            break;
        len += (size_t)n;
        *up = memchr(text, 0, len) != NULL;
    }
    text[len] = 0;
    return len;
}

static int launch_started(const struct run_options *o, char *text, pid_t pid)
{
    char *name = strtok(text, " \n"), *id = strtok(NULL, " \n");

    if (o->json)
        printf("{\"event\":\"started\",\"name\":\"%s\",\"id\":\"%s\",\"pid\":%d}\n", name, id, (int)pid);
    else
        printf("%s\n", name);
    return CLI_OK;
}

static int launch_failed(const struct run_options *o, const char *text)
{
    const char *line = strchr(text, '\n');
    struct err err;

    err_set(&err, EIO, "%s", line ? line + 1 : text);
    if (!err.text[0])
        err_set(&err, EIO, "the machine ended before it ran: 'vitro logs --monitor %.64s' may say why",
                launch_name(&o->cfg) ? o->cfg.name : "NAME");
    return cli_fail(o->json, &err);
}

int launch_begin(struct run_options *o, struct launch_child *c)
{
    int pipes[2];

    if (pipe2(pipes, O_CLOEXEC) < 0)
        return cli_failf("cannot make a pipe: %s", strerror(errno));
    fflush(NULL);
    c->pid = fork();
    if (c->pid == 0) {
        close(pipes[0]);
        _exit(launch_child(o, c->engine, c->why, pipes[1]));
    }
    close(pipes[1]);
    c->tells = pipes[0];
    if (c->pid > 0)
        return CLI_OK;
    close(pipes[0]);
    return cli_failf("cannot start a process: %s", strerror(errno));
}

int launch_await(const struct run_options *o, const struct launch_child *c)
{
    char text[1024];
    bool up;

    launch_listen(c->tells, text, sizeof(text), &up);
    close(c->tells);
    if (up)
        return launch_started(o, text, c->pid);
    waitpid(c->pid, NULL, 0);
    return launch_failed(o, text);
}

static int launch_background(struct run_options *o, struct launch_child *c)
{
    int status = launch_begin(o, c);

    if (status == CLI_OK)
        status = launch_await(o, c);
    if (status == CLI_OK)
        launch_say_engine(o, c->engine->name, c->why);
    return status;
}

int launch_words(int n, const char **words, bool json)
{
    struct run_options o = { .json = json };
    struct err err = { "" };
    int status;

    if (config_init(&o.cfg) < 0)
        return cli_failf("out of memory");
    if (run_parse(&o, n, (char **)(uintptr_t)words, &err) < 0) {
        status = cli_fail(json, &err);
    } else {
        o.cfg.detach = true;
        status = launch(&o);
    }
    run_fini(&o);
    return status;
}

int launch_engine(const struct run_options *o, struct launch_child *c, struct err *err)
{
    int r = host_pick_engine(o->cfg.engine, &c->engine, c->why, sizeof(c->why), err);

    if (r == 0 && o->cfg.trace)
        log_set_level(LOG_INFO);
    return r;
}

int launch(struct run_options *o)
{
    struct launch_child c;
    struct err err = { "" };

    if (launch_engine(o, &c, &err) < 0) {
        launch_refuse(o, &err);
        return cli_fail(o->json, &err);
    }
    return o->cfg.detach ? launch_background(o, &c) : launch_foreground(o, c.engine, c.why);
}
