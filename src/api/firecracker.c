/* The Firecracker API's paths. See firecracker.h. Thread: the machine's, no lock held. */
#include "api/firecracker.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "api/fc_call.h"
#include "base/bits.h"
#include "base/err.h"
#include "base/log.h"
#include "engine/engine.h"
#include "machine/host.h"
#include "machine/sandbox.h"
#include "machine/vm.h"

void fc_done(struct fc_call *k) { k->r->status = 204; }

void fc_fault(struct fc_call *k, const char *text) { api_reply_error(k->r, 400, FC_KEY, "%s", text); }

bool fc_early(struct fc_call *k)
{
    if (k->f->vm)
        fc_fault(k, "the requested operation is not supported after starting the microVM");
    return !k->f->vm;
}

bool fc_late(struct fc_call *k)
{
    if (!k->f->vm)
        fc_fault(k, "the requested operation is not supported before starting the microVM");
    return k->f->vm != NULL;
}

json_t *fc_said(const struct firecracker *f, const char *key) { return json_object_get(f->said, key); }

void fc_keep(struct fc_call *k, const char *key)
{
    if (json_object_set(k->f->said, key, k->body) < 0)
        fc_fault(k, "out of memory");
    else
        fc_done(k);
}

/* -- looking -- */

static void fc_root(struct fc_call *k)
{
    const struct vm *vm = k->f->vm;

    api_reply_json(k->r, 200, json_pack("{s:s, s:s, s:s, s:s}", "app_name", "vitro", "id", k->f->id, "state",
                                        !vm ? "Not started" : vm->life.paused ? "Paused" : "Running", "vmm_version",
                                        FC_VERSION));
}

static void fc_version(struct fc_call *k)
{
    api_reply_json(k->r, 200, json_pack("{s:s}", "firecracker_version", FC_VERSION));
}

static void fc_vm_config(struct fc_call *k) { api_reply_json(k->r, 200, json_incref(k->f->said)); }

/* -- configuring -- */

/* "None" is what clients say who want none of it. */
static bool fc_none(const struct fc_call *k, const char *key)
{
    const json_t *v = json_object_get(k->body, key);

    return !v || json_is_null(v) || (json_is_string(v) && !strcmp(json_string_value(v), "None"));
}

static void fc_machine_config(struct fc_call *k)
{
    const json_t *cpus = json_object_get(k->body, "vcpu_count"), *mib = json_object_get(k->body, "mem_size_mib");

    if (!strcmp(k->method, "GET")) {
        api_reply_json(k->r, 200, json_incref(fc_said(k->f, "machine-config")));
        return;
    }
    if (!fc_early(k))
        return;
    if (!strcmp(k->method, "PUT") && (!cpus || !mib))
        fc_fault(k, "machine-config needs vcpu_count and mem_size_mib");
    else if ((cpus && !json_is_integer(cpus)) || (mib && !json_is_integer(mib)))
        fc_fault(k, "vcpu_count and mem_size_mib are whole numbers");
    else if (cpus && (json_integer_value(cpus) < 1 || json_integer_value(cpus) > MAX_VCPUS))
        fc_fault(k, "vcpu_count is not between 1 and 64");
    else if (mib && (json_integer_value(mib) < 2 || json_integer_value(mib) > (json_int_t)(CONFIG_MEMORY_MAX >> 20)))
        fc_fault(k, "mem_size_mib is not between 2 and 1048576");
    else if (!fc_none(k, "cpu_template"))
        fc_fault(k, "cpu_template is not supported");
    else if (!fc_none(k, "huge_pages"))
        fc_fault(k, "huge_pages is not supported");
    else if (json_object_update(fc_said(k->f, "machine-config"), k->body) < 0)
        fc_fault(k, "out of memory");
    else
        fc_done(k);
}

static void fc_boot_source(struct fc_call *k)
{
    const char *path = json_string_value(json_object_get(k->body, "kernel_image_path"));

    if (!fc_early(k))
        return;
    if (!path)
        fc_fault(k, "boot-source needs kernel_image_path");
    else if (access(path, R_OK) < 0)
        api_reply_error(k->r, 400, FC_KEY, "the kernel file cannot be opened: %s: %s", path, strerror(errno));
    else
        fc_keep(k, "boot-source");
}

/* For what is written later: once the machine runs, its sandbox lets nothing be opened. A FIFO that nobody reads keeps nobody waiting. The answer
 * says if it cannot be opened. */
static int fc_sink(struct fc_call *k, const char *key)
{
    const char *path = json_string_value(json_object_get(k->body, key));
    int fd = path ? open(path, O_RDWR | O_APPEND | O_CREAT | O_CLOEXEC | O_NOCTTY | O_NONBLOCK, 0600) : -1;

    if (!path)
        api_reply_error(k->r, 400, FC_KEY, "%s is missing", key);
    else if (fd < 0)
        api_reply_error(k->r, 400, FC_KEY, "%s '%.200s' cannot be opened: %s", key, path, strerror(errno));
    return fd;
}

/* What the monitor says goes to that file, if one is named. */
static void fc_logger(struct fc_call *k)
{
    int fd;

    if (!fc_early(k))
        return;
    if (!json_object_get(k->body, "log_path")) {
        fc_done(k);
        return;
    }
    fd = fc_sink(k, "log_path");
    if (fd < 0)
        return;
    if (dup2(fd, STDERR_FILENO) < 0)
        fc_fault(k, "log_path cannot be used");
    else
        fc_done(k);
    close(fd);
}

static void fc_metrics(struct fc_call *k)
{
    int fd = fc_early(k) ? fc_sink(k, "metrics_path") : -1;

    if (fd < 0)
        return;
    if (k->f->metrics_fd >= 0)
        close(k->f->metrics_fd);
    k->f->metrics_fd = fd;
    fc_done(k);
}

static void fc_vsock(struct fc_call *k)
{
    if (!fc_early(k))
        return;
    if (!json_is_integer(json_object_get(k->body, "guest_cid")) || !json_is_string(json_object_get(k->body, "uds_path")))
        fc_fault(k, "vsock needs guest_cid and uds_path");
    else
        fc_keep(k, "vsock");
}

/* -- steering -- */

static int fc_make(struct firecracker *f, struct save_file *file, const struct engine_ops *ops, struct err *err)
{
    const struct save_how how = { .clone = true }, trusting = { .clone = true, .trust_disks = true };
    int r = sandbox_init(&f->cfg, -1, -1, err);

    if (r < 0)
        return r;
    if (!file)
        return vm_create(&f->vm, &f->cfg, ops, err);
    r = vm_create_blank(&f->vm, &f->cfg, ops, err);
    if (r == 0)
        r = save_restore(file, f->vm, &how, err);
    if (r == -ESTALE) { /* said before anything was done: in this API it is the client's affair */
        log_msg(LOG_WARN, "%s", err->text);
        r = save_restore(file, f->vm, &trusting, err);
    }
    return r;
}

/* What a drive's file may be changed to, from now on: what is in the folders of drives. */
static void fc_allow_images(struct firecracker *f)
{
    struct err err = { "" };

    for (unsigned n = 0; n < f->cfg.disks; n++) {
        if (maker_allow(&f->maker, f->cfg.disk[n].path, &err) < 0)
            log_msg(LOG_WARN, "%s", err.text);
    }
    maker_seal(&f->maker);
}

int fc_start(struct firecracker *f, struct save_file *file, struct err *err)
{
    const struct engine_ops *ops;
    char why[256];
    int r = host_pick_engine(f->cfg.engine, &ops, why, sizeof(why), err);

    if (r == 0)
        r = fc_make(f, file, ops, err);
    if (r == 0)
        r = control_adopt(&f->control, f->vm, err);
    if (r < 0) {
        vm_destroy(f->vm);
        f->vm = NULL;
        sandbox_fini();
        return r;
    }
    fc_allow_images(f);
    r = api_move(&f->control.server, &f->vm->loop);
    return r < 0 ? err_set(err, -r, "cannot serve the API: %s", strerror(-r)) : 0;
}

static void fc_instance_start(struct fc_call *k)
{
    struct err err = { "" };

    if (!fc_early(k))
        return;
    if (fc_configure(k->f, &err) < 0 || fc_start(k->f, NULL, &err) < 0) {
        fc_fault(k, err.text[0] ? err.text : "the machine cannot be started");
        return;
    }
    fc_balloon_begin(k->f);
    fc_entropy_begin(k->f);
    fc_done(k);
}

/* Scan codes of set 2: press and release. */
static void fc_ctrl_alt_del(struct fc_call *k)
{
    static const uint8_t keys[] = { 0x14, 0x11, 0xe0, 0x71, 0xe0, 0xf0, 0x71, 0xf0, 0x11, 0xf0, 0x14 };
    struct vm *vm = k->f->vm;

    if (!fc_late(k))
        return;
    loop_lock(&vm->loop);
    i8042_key(&vm->i8042, keys, sizeof(keys));
    loop_unlock(&vm->loop);
    fc_done(k);
}

/* One line of JSON more in the file. */
static void fc_flush_metrics(struct fc_call *k)
{
    json_t *stats = k->f->metrics_fd >= 0 && k->f->vm ? describe_stats(&k->f->control) : NULL;
    bool good = stats && json_dumpfd(stats, k->f->metrics_fd, JSON_COMPACT) == 0 && write(k->f->metrics_fd, "\n", 1) == 1;

    json_decref(stats);
    if (good)
        fc_done(k);
    else
        fc_fault(k, "the metrics cannot be written: is there a metrics_path, and has the machine started?");
}

static void fc_actions(struct fc_call *k)
{
    const char *type = json_string_value(json_object_get(k->body, "action_type"));

    if (type && !strcmp(type, "InstanceStart"))
        fc_instance_start(k);
    else if (type && !strcmp(type, "SendCtrlAltDel"))
        fc_ctrl_alt_del(k);
    else if (type && !strcmp(type, "FlushMetrics"))
        fc_flush_metrics(k);
    else
        fc_fault(k, "action_type is none of InstanceStart, SendCtrlAltDel, FlushMetrics");
}

static void fc_vm_state(struct fc_call *k)
{
    const char *state = json_string_value(json_object_get(k->body, "state"));

    if (!fc_late(k))
        return;
    if (!state || (strcmp(state, "Paused") && strcmp(state, "Resumed"))) {
        fc_fault(k, "state is neither Paused nor Resumed");
        return;
    }
    vm_set_paused(k->f->vm, !strcmp(state, "Paused"));
    fc_done(k);
}

static const struct fc_route {
    const char *path;    /* one that ends in '/' takes an id */
    const char *methods; /* with spaces around */
    void (*fn)(struct fc_call *k);
    const char *lacks; /* no fn: why it is refused */
} fc_routes[] = {
    { "/", " GET ", fc_root, NULL },
    { "/version", " GET ", fc_version, NULL },
    { "/vm/config", " GET ", fc_vm_config, NULL },
    { "/machine-config", " GET PUT PATCH ", fc_machine_config, NULL },
    { "/boot-source", " PUT ", fc_boot_source, NULL },
    { "/drives/", " PUT PATCH ", fc_drive, NULL },
    { "/network-interfaces/", " PUT PATCH ", fc_net, NULL },
    { "/logger", " PUT ", fc_logger, NULL },
    { "/metrics", " PUT ", fc_metrics, NULL },
    { "/entropy", " PUT ", fc_entropy, NULL },
    { "/vsock", " PUT ", fc_vsock, NULL },
    { "/balloon", " GET PUT PATCH ", fc_balloon, NULL },
    { "/balloon/statistics", " GET PATCH ", fc_balloon_stats, NULL },
    { "/actions", " PUT ", fc_actions, NULL },
    { "/vm", " PATCH ", fc_vm_state, NULL },
    { "/snapshot/create", " PUT ", fc_snapshot_create, NULL },
    { "/snapshot/load", " PUT ", fc_snapshot_load, NULL },
    { "/mmds", " GET PUT PATCH ", fc_metadata, NULL },
    { "/mmds/config", " PUT ", fc_metadata_config, NULL },
    { "/cpu-config", " PUT ", NULL, "CPU templates are not supported" },
};

static const struct fc_route *fc_find(const struct http_request *q, const char **id)
{
    char method[24];

    snprintf(method, sizeof(method), " %.16s ", q->method);
    for (size_t i = 0; i < ARRAY_LEN(fc_routes); i++) {
        size_t len = strlen(fc_routes[i].path);
        bool takes = len > 1 && fc_routes[i].path[len - 1] == '/';

        *id = q->target + len;
        if (strstr(fc_routes[i].methods, method) &&
            (takes ? !strncmp(q->target, fc_routes[i].path, len) && **id : !strcmp(q->target, fc_routes[i].path)))
            return &fc_routes[i];
    }
    return NULL;
}

static void fc_serve(void *opaque, const struct http_request *q, struct api_reply *r)
{
    struct firecracker *f = opaque;
    struct fc_call k = { .f = f, .method = q->method, .r = r };
    const struct fc_route *route = fc_find(q, &k.id);

    if (!route) {
        if (!f->vm || !control_route(&f->control, q, r))
            api_reply_error(r, 400, FC_KEY, "Invalid request method and/or path: %s %s", q->method, q->target);
        return;
    }
    if (route->lacks) {
        fc_fault(&k, route->lacks);
        return;
    }
    if (strcmp(q->method, "GET")) {
        k.body = q->len ? json_loadb(q->body, q->len, JSON_REJECT_DUPLICATES, NULL) : NULL;
        if (!json_is_object(k.body)) {
            fc_fault(&k, "the body is not a JSON object");
            json_decref(k.body);
            return;
        }
    }
    route->fn(&k);
    json_decref(k.body);
}

static void fc_wake(void *opaque)
{
    struct firecracker *f = opaque;

    if (f->vm)
        vm_request(f->vm, VM_REQ_HOOK);
    else
        loop_stop(&f->loop);
}

static size_t fc_type(void *opaque, const uint8_t *data, size_t len)
{
    struct firecracker *f = opaque;
    return f->vm ? serial_type(vm_console_port(f->vm), data, len) : len;
}

static void fc_gone(void *opaque)
{
    struct firecracker *f = opaque;
    control_save_gone(&f->control);
}

static const struct api_ops fc_ops = {
    .serve = fc_serve, .wake = fc_wake, .type = fc_type, .gone = fc_gone, .error_key = FC_KEY
};

int fc_init(struct firecracker *f, const char *id, int listen_fd, const struct maker *maker, struct err *err)
{
    int r;

    memset(f, 0, sizeof(*f));
    f->maker = *maker;
    f->id = id;
    f->metrics_fd = -1;
    mmds_init(&f->mmds);
    control_init(&f->control);
    snprintf(f->control.site.info.name, sizeof(f->control.site.info.name), "%s", id);
    f->said = json_pack("{s:{s:i, s:i, s:b, s:b}, s:[], s:[]}", "machine-config", "vcpu_count", 1, "mem_size_mib", 128, "smt", 0,
                        "track_dirty_pages", 0, "drives", "network-interfaces");
    clock_init_host(&f->clock);
    r = f->said ? loop_init(&f->loop, &f->clock) : -ENOMEM;
    if (r == 0)
        return api_init(&f->control.server, &f->loop, listen_fd, &fc_ops, f, err);
    close(listen_fd);
    return err_set(err, -r, "cannot serve the API: %s", strerror(-r));
}

int fc_wait(struct firecracker *f, struct err *err)
{
    int r = 0;

    while (r == 0 && !f->vm) {
        r = loop_run(&f->loop);
        if (r == 0)
            api_serve(&f->control.server);
    }
    if (f->vm)
        fc_wake(f); /* for those who asked already */
    return r < 0 ? err_set(err, -r, "cannot serve the API: %s", strerror(-r)) : 0;
}

void fc_fini(struct firecracker *f)
{
    int status = f->vm ? vm_status(f->vm) : 0;
    const char *why = f->vm ? vm_end_name(f->vm->life.end) : "";

    control_fini(&f->control);
    vm_destroy(f->vm);
    site_leave(&f->control.site, status, why);
    sandbox_fini();
    config_fini(&f->cfg);
    loop_fini(&f->loop);
    json_decref(f->said);
    if (f->metrics_fd >= 0)
        close(f->metrics_fd);
    fc_base_drop(&f->base);
    mmds_fini(&f->mmds);
    maker_fini(&f->maker);
}
