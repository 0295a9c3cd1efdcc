/* Tying a server to a machine. See control.h. */
#include "api/control.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "base/err.h"
#include "machine/vm.h"

void control_init(struct control *c)
{
    memset(c, 0, sizeof(*c));
    c->ready = c->statm = c->pagemap = c->site.parent = c->site.dir = c->site.lock = -1;
}

/* -- the machine's calls -- */

static void control_started(void *opaque)
{
    struct control *c = opaque;
    ssize_t n;

    if (c->ready < 0)
        return;
    n = write(c->ready, "", 1);
    (void)n; /* who started us may be gone: its loss */
    close(c->ready);
    c->ready = -1;
}

static void control_serve(void *opaque)
{
    struct control *c = opaque;

    control_save_let_go(c);
    api_serve(&c->server);
}

static void control_out(void *opaque, const uint8_t *data, size_t len)
{
    struct control *c = opaque;

    ring_write(&c->ring, data, len);
    api_shown(&c->server);
}

static void control_room(void *opaque)
{
    struct control *c = opaque;
    api_typed(&c->server);
}

/* -- the server's calls -- */

static void control_wake(void *opaque)
{
    struct control *c = opaque;
    vm_request(c->vm, VM_REQ_HOOK);
}

static void control_gone(void *opaque) { control_save_gone(opaque); }

static size_t control_type(void *opaque, const uint8_t *data, size_t len)
{
    struct control *c = opaque;
    return serial_type(vm_console_port(c->vm), data, len);
}

static void control_answer(void *opaque, const struct http_request *q, struct api_reply *r)
{
    if (!control_route(opaque, q, r))
        api_reply_error(r, 404, "error", "there is no '%s' here: docs/openapi.json lists what there is", q->target);
}

const struct api_ops control_ops = {
    .serve = control_answer, .wake = control_wake, .type = control_type, .gone = control_gone, .error_key = "error"
};

/* -- life -- */

int control_adopt(struct control *c, struct vm *vm, struct err *err)
{
    int fd = c->site.dir >= 0 ? site_file(&c->site, "console") : -1;
    int r = ring_init(&c->ring, fd);

    if (fd >= 0)
        close(fd);
    if (r < 0)
        return err_set(err, -r, "cannot keep the console's text: %s", strerror(-r));
    c->vm = vm;
    c->statm = open("/proc/self/statm", O_RDONLY | O_CLOEXEC);
    c->pagemap = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
    c->server.ring = &c->ring;
    vm->hook = (struct vm_hook){ .started = control_started, .serve = control_serve, .opaque = c };
    serial_set_tap(vm_console_port(vm), (struct serial_tap){ .out = control_out, .room = control_room, .opaque = c });
    c->on = true;
    return 0;
}

int control_start(struct control *c, struct vm *vm, struct err *err)
{
    int r, fd = site_listen(&c->site, err);

    if (fd < 0)
        return fd;
    r = api_init(&c->server, &vm->loop, fd, &control_ops, c, err);
    return r < 0 ? r : control_adopt(c, vm, err);
}

void control_fini(struct control *c)
{
    struct site site = c->site;

    migrate_finish(&c->migrate);
    if (c->save.state == CONTROL_SAVE_WRITING)
        save_finish(&c->save.job, false);
    if (c->on) {
        c->vm->hook = (struct vm_hook){ .opaque = NULL };
        vm_console_port(c->vm)->tap = (struct serial_tap){ .opaque = NULL };
    }
    api_fini(&c->server);
    ring_fini(&c->ring);
    if (c->statm >= 0)
        close(c->statm);
    if (c->pagemap >= 0)
        close(c->pagemap);
    if (c->ready >= 0)
        close(c->ready);
    control_init(c);
    c->site = site;
}
