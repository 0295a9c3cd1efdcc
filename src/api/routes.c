/* The native API: one line a path. Thread: the machine's, no lock held; see docs/openapi.json. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "api/control.h"
#include "api/screen.h"
#include "base/bits.h"
#include "base/err.h"
#include "block/image.h"
#include "machine/vm.h"

#define ROUTE_KEY "error"

/* What a handler gets: the machine, the request, and the body if it is an object. */
struct route_call {
    struct control *c;
    const struct http_request *q;
    const json_t *body; /* NULL: none */
    struct api_reply *r;
};

static void route_done(struct route_call *k) { k->r->status = 204; }

/* -- looking -- */

static void route_machine(struct route_call *k) { api_reply_json(k->r, 200, describe_machine(k->c)); }

static void route_stats(struct route_call *k) { api_reply_json(k->r, 200, describe_stats(k->c)); }

static void route_metrics(struct route_call *k)
{
    json_t *stats = describe_stats(k->c);

    api_reply_text(k->r, "text/plain; version=0.0.4", stats ? metrics_text(stats) : NULL);
    json_decref(stats);
}

/* "?NAME=VALUE&..." without escapes, which nothing here needs. */
static bool route_query(const struct http_request *q, const char *name, char *value, size_t size)
{
    size_t len = strlen(name);

    for (const char *p = q->query; p; p = strchr(p, '&') ? strchr(p, '&') + 1 : NULL) {
        if (!strncmp(p, name, len) && p[len] == '=') {
            snprintf(value, size, "%.*s", (int)strcspn(p + len + 1, "&"), p + len + 1);
            return true;
        }
    }
    return false;
}

/* GET /v1/console with "Upgrade: vitro-console". replay=N: so many bytes of what was shown before (default: all). */
static void route_console(struct route_call *k)
{
    struct control *c = k->c;
    char value[24] = "";
    uint64_t oldest, replay = RING_SIZE;

    if (strcmp(k->q->upgrade, "vitro-console")) {
        api_reply_error(k->r, 426, ROUTE_KEY, "the console needs 'Connection: Upgrade' and 'Upgrade: vitro-console'");
        return;
    }
    if (route_query(k->q, "replay", value, sizeof(value)))
        replay = strtoull(value, NULL, 10);
    k->r->read_only = route_query(k->q, "readonly", value, sizeof(value)) && !strcmp(value, "1");
    loop_lock(&c->vm->loop);
    oldest = ring_oldest(&c->ring);
    k->r->from = c->ring.head->written - oldest > replay ? c->ring.head->written - replay : oldest;
    loop_unlock(&c->vm->loop);
    k->r->status = 101;
}

/* -- doing -- */

static void route_pause(struct route_call *k)
{
    vm_set_paused(k->c->vm, true);
    route_done(k);
}

static void route_resume(struct route_call *k)
{
    vm_set_paused(k->c->vm, false);
    route_done(k);
}

static void route_reset(struct route_call *k)
{
    vm_request(k->c->vm, VM_REQ_RESET);
    route_done(k);
}

static void route_kill(struct route_call *k)
{
    vm_request(k->c->vm, VM_REQ_QUIT);
    route_done(k);
}

/* The button is pressed in any case; the answer says whether anybody hears it. */
static void route_power_button(struct route_call *k)
{
    struct vm *vm = k->c->vm;
    bool heard;

    loop_lock(&vm->loop);
    heard = acpi_pm_power_button(&vm->pm);
    loop_unlock(&vm->loop);
    api_reply_json(k->r, 200, json_pack("{s:b}", "heard", heard && !vm->life.paused));
}

static void route_break(struct route_call *k)
{
    struct vm *vm = k->c->vm;

    loop_lock(&vm->loop);
    uart_break(&vm->uart[0]);
    loop_unlock(&vm->loop);
    route_done(k);
}

static void route_memory(struct route_call *k)
{
    const json_t *bytes = json_object_get(k->body, "bytes");
    json_int_t v = json_integer_value(bytes);

    if (!json_is_integer(bytes) || v < 0)
        api_reply_error(k->r, 400, ROUTE_KEY, "memory needs {\"bytes\": N}");
    else if (vm_set_memory(k->c->vm, (uint64_t)v) < 0)
        api_reply_error(k->r, 400, ROUTE_KEY, "the machine was made with %" PRIu64 " MiB: it cannot be given more",
                        k->c->vm->cfg->memory >> 20);
    else
        route_done(k);
}

/* -- screen and keyboard -- */

static bool route_display(struct route_call *k)
{
    if (k->c->vm->cfg->vga)
        return true;
    api_reply_error(k->r, 409, ROUTE_KEY, "the machine has no display: make it with --display vga");
    return false;
}

static void route_screen(struct route_call *k)
{
    if (route_display(k))
        api_reply_json(k->r, 200, screen_describe(k->c->vm));
}

static void route_screen_png(struct route_call *k)
{
    struct err err = { "" };

    if (!route_display(k))
        return;
    if (screen_png(k->c->vm, &k->r->text, &k->r->len, &err) < 0) {
        api_reply_error(k->r, 500, ROUTE_KEY, "%s", err.text);
        return;
    }
    k->r->status = 200;
    k->r->type = "image/png";
}

/* The keyboard is there without a display, too. */
static void route_keys(struct route_call *k)
{
    const char *text = json_string_value(json_object_get(k->body, "text")), *key = json_string_value(json_object_get(k->body, "key"));
    int n = text && !key ? screen_type(k->c->vm, text) : key && !text ? screen_press(k->c->vm, key) : -ENOENT;

    if (n == -ENOENT)
        api_reply_error(k->r, 400, ROUTE_KEY, "keys needs {\"text\": TEXT} or {\"key\": NAME}");
    else if (n < 0)
        api_reply_error(k->r, 400, ROUTE_KEY, key ? "there is no key '%.32s'" : "the keyboard has ASCII characters only", key);
    else
        api_reply_json(k->r, 200, json_pack("{s:i}", "taken", n));
}

/* -- moving -- */

static bool route_number(const json_t *body, const char *key, unsigned least, unsigned most, unsigned *v)
{
    const json_t *n = json_object_get(body, key);

    if (!n)
        return true;
    if (!json_is_integer(n) || json_integer_value(n) < least || json_integer_value(n) > most)
        return false;
    *v = (unsigned)json_integer_value(n);
    return true;
}

/* The other side's connection comes with the request. */
static void route_migrate(struct route_call *k)
{
    struct migrate_options o = { .downtime_ms = MIGRATE_DOWNTIME_MS, .stall_s = MIGRATE_STALL_S, .pagemap = k->c->pagemap };
    struct err err = { "" };
    const json_t *copy = json_object_get(k->body, "copy_disks");
    int fd = k->r->passed[0];

    o.copy_disks = json_is_true(copy);
    if (fd < 0 || (copy && !json_is_boolean(copy)) || !route_number(k->body, "downtime_ms", 1, 60000, &o.downtime_ms) ||
        !route_number(k->body, "stall_s", 1, 3600, &o.stall_s)) {
        api_reply_error(k->r, 400, ROUTE_KEY, "migrate needs a connected socket beside the request (SCM_RIGHTS), numbers and a boolean");
        return;
    }
    k->r->passed[0] = -1;
    if (migrate_begin(&k->c->migrate, k->c->vm, fd, &o, &err) < 0)
        api_reply_error(k->r, 409, ROUTE_KEY, "%s", err.text);
    else
        route_done(k);
}

static void route_migration(struct route_call *k)
{
    struct migrate_progress p;

    migrate_get(&k->c->migrate, &p);
    api_reply_json(k->r, 200,
                   json_pack("{s:s, s:i, s:i, s:I, s:I, s:I, s:I, s:I, s:I, s:s}", "phase", migrate_phase_name(p.phase), "round",
                             (int)p.round, "throttle", (int)p.throttle, "total", (json_int_t)p.total, "left",
                             (json_int_t)p.left, "sent", (json_int_t)p.sent, "wire", (json_int_t)p.wire, "rate",
                             (json_int_t)p.rate, "stood_ns", (json_int_t)p.stood_ns, "why", p.why));
}

static void route_migrate_cancel(struct route_call *k)
{
    migrate_cancel(&k->c->migrate);
    route_done(k);
}

/* -- saving -- */

static void route_save(struct route_call *k)
{
    struct err err = { "" };
    int r = control_save_begin(k->c, k->r->passed, k->body, &err);

    if (r < 0)
        api_reply_error(k->r, r == -EBUSY ? 409 : 400, ROUTE_KEY, "%s", err.text);
    else
        route_done(k);
    k->r->tied = k->c->save.holds;
}

static void route_saved(struct route_call *k) { api_reply_json(k->r, 200, control_save_describe(k->c)); }

/* -- merging -- */

/* The words of an array; how many, or -1: it is none, or has others in it. */
static int route_words(const json_t *list, const char *word[IMAGE_CHAIN_MAX])
{
    const json_t *v;
    size_t n;

    if (!json_is_array(list) || json_array_size(list) > IMAGE_CHAIN_MAX)
        return -1;
    json_array_foreach (list, n, v) {
        if (!json_is_string(v))
            return -1;
        word[n] = json_string_value(v);
    }
    return (int)json_array_size(list);
}

/* With a descriptor: of the file that takes the image's place. */
static void route_merge(struct route_call *k)
{
    const char *go[IMAGE_CHAIN_MAX];
    struct vm_merge m = { .image = json_string_value(json_object_get(k->body, "image")), .go = go, .fd = k->r->passed[0] };
    const json_t *at = json_object_get(k->body, "at");
    uint64_t pos = (uint64_t)json_integer_value(at);
    int n = route_words(json_object_get(k->body, "go"), go), r;
    unsigned disk = CONFIG_DISKS;
    struct err err = { "" };
    bool done;

    if (!m.image || n < 0 || (at && (!json_is_integer(at) || json_integer_value(at) < 0)) || !route_number(k->body, "disk", 0, CONFIG_DISKS - 1, &disk)) {
        api_reply_error(k->r, 400, ROUTE_KEY, "merge needs {\"disk\": N, \"image\": PATH, \"go\": [PATH ...], \"at\": BYTES}");
        return;
    }
    m.gone = (unsigned)n;
    r = control_idle(k->c, &err);
    if (r == 0) {
        k->r->passed[0] = -1;
        r = vm_disk_merge(k->c->vm, disk, &m, &pos, &done, &err);
    }
    if (r < 0)
        api_reply_error(k->r, 409, ROUTE_KEY, "%s", err.text);
    else
        api_reply_json(k->r, 200, json_pack("{s:I, s:b}", "at", (json_int_t)pos, "done", done));
}

static const struct route {
    const char *method, *path;
    void (*fn)(struct route_call *k);
} routes[] = {
    { "GET", "/v1/machine", route_machine },
    { "GET", "/v1/stats", route_stats },
    { "GET", "/metrics", route_metrics },
    { "GET", "/v1/console", route_console },
    { "POST", "/v1/pause", route_pause },
    { "POST", "/v1/resume", route_resume },
    { "POST", "/v1/reset", route_reset },
    { "POST", "/v1/kill", route_kill },
    { "POST", "/v1/power-button", route_power_button },
    { "POST", "/v1/break", route_break },
    { "PUT", "/v1/memory", route_memory },
    { "GET", "/v1/screen", route_screen },
    { "GET", "/v1/screen.png", route_screen_png },
    { "POST", "/v1/keys", route_keys },
    { "GET", "/v1/migrate", route_migration },
    { "POST", "/v1/migrate", route_migrate },
    { "DELETE", "/v1/migrate", route_migrate_cancel },
    { "GET", "/v1/save", route_saved },
    { "POST", "/v1/save", route_save },
    { "POST", "/v1/merge", route_merge },
};

bool control_route(struct control *c, const struct http_request *q, struct api_reply *r)
{
    struct route_call k = { .c = c, .q = q, .r = r };
    json_t *body = NULL;
    bool path = false;

    for (size_t i = 0; i < ARRAY_LEN(routes); i++) {
        if (strcmp(q->target, routes[i].path))
            continue;
        path = true;
        if (strcmp(q->method, routes[i].method))
            continue;
        if (q->len && !(body = json_loadb(q->body, q->len, JSON_REJECT_DUPLICATES, NULL))) {
            api_reply_error(r, 400, ROUTE_KEY, "the body is not JSON");
            return true;
        }
        k.body = body;
        routes[i].fn(&k);
        json_decref(body);
        return true;
    }
    if (path)
        api_reply_error(r, 405, ROUTE_KEY, "'%s' does not know %s", q->target, q->method);
    return path;
}
