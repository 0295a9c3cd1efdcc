/* Models: the virtio console device with multiple ports.
 * Source: virtio 1.2, 5.3. The order of the fields of a RESIZE message is the specification's: columns first.
 * Linux had them swapped until 2025. Runs on: vCPU threads (kicks) and the loop's thread (back ends, timer),
 * under the device lock.
 *
 * Control messages are not queued: what the guest has still to hear about a port is a set of bits, so that a
 * driver which takes no messages costs nothing. A chain that the back end took only in part goes back into
 * the ring (vq_unpop()), with the offset noted.
 */
#include "virtio/console.h"

#include <errno.h>
#include <string.h>

#include "base/bits.h"
#include "base/err.h"

#define VIRTIO_CONSOLE_F_SIZE        (1ULL << 0)
#define VIRTIO_CONSOLE_F_MULTIPORT   (1ULL << 1)
#define VIRTIO_CONSOLE_F_EMERG_WRITE (1ULL << 2)

#define VCON_BUDGET 262144U /* bytes that one call moves; a chain counts as VCON_CHAIN at least */
#define VCON_CHAIN  512U
#define VCON_CHUNK  4096U

enum { QUEUE_RX0 = 0, QUEUE_TX0 = 1, QUEUE_TO_GUEST = 2, QUEUE_FROM_GUEST = 3 };
enum {
    EVENT_DEVICE_READY = 0,
    EVENT_DEVICE_ADD = 1,
    EVENT_PORT_READY = 3,
    EVENT_CONSOLE_PORT = 4,
    EVENT_RESIZE = 5,
    EVENT_OPEN = 6,
    EVENT_NAME = 7
};
enum { CONFIG_COLS = 0, CONFIG_ROWS = 2, CONFIG_PORTS = 4, CONFIG_EMERG = 8 };
enum { CONTROL_LEN = 8 };

/* What the guest must be told, in the order in which it is told. */
enum { TELL_ADD = 1, TELL_CONSOLE = 2, TELL_NAME = 4, TELL_OPEN = 8, TELL_RESIZE = 16, TELL_ALL = 31 };

static unsigned vcon_rx_queue(unsigned port) { return port ? 2 * port + 2 : QUEUE_RX0; }
static unsigned vcon_tx_queue(unsigned port) { return port ? 2 * port + 3 : QUEUE_TX0; }
static unsigned vcon_port_of(unsigned queue) { return queue < 2 ? 0 : queue / 2 - 1; }

static bool vcon_multiport(const struct virtio_console *v)
{
    return virtio_has(&v->vp, VIRTIO_CONSOLE_F_MULTIPORT);
}

static bool vcon_host_open(const struct vcon_port *p)
{
    return !p->backend.is_open || p->backend.is_open(p->backend.opaque);
}

static void vcon_later(struct virtio_console *v)
{
    if (!timer_armed(&v->again))
        timer_arm(&v->again, timer_now(&v->again));
}

/* ---- to the guest ---- */

size_t vcon_room(struct virtio_console *v, unsigned n)
{
    const struct vcon_port *p = &v->port[n];

    return virtio_is_live(&v->vp) && p->present && p->guest_open ? VCON_CHUNK : 0;
}

size_t vcon_receive(struct virtio_console *v, unsigned n, const uint8_t *data, size_t len)
{
    struct vq *q = &v->vp.vq[vcon_rx_queue(n)];
    unsigned budget = VQ_MAX_SIZE; /* chains without room are work too */
    struct vq_chain c;
    size_t done = 0;

    if (!vcon_room(v, n))
        return 0;
    while (done < len && budget-- && vq_pop(q, &c) > 0) {
        if (c.read_len) {
            virtio_needs_reset(&v->vp, "console: input buffer that is not for writing");
            return done;
        }
        size_t m = vq_chain_write(&c, 0, data + done, len - done);
        vq_push(q, &c, (uint32_t)m);
        done += m;
    }
    virtio_notify(&v->vp, vcon_rx_queue(n));
    return done;
}

/* ---- from the guest ---- */

/* Hand a chain to the back end, from where it stopped; false when it did not take all. */
static bool vcon_tx_chain(struct vcon_port *p, const struct vq_chain *c, uint32_t *budget)
{
    uint8_t buf[VCON_CHUNK];

    while (p->tx_off < c->read_len && *budget) {
        size_t n = vq_chain_read(c, p->tx_off, buf, *budget < sizeof(buf) ? *budget : sizeof(buf));
        int taken = p->backend.tx(p->backend.opaque, buf, n);
        uint32_t m = taken < 0 || (size_t)taken > n ? (uint32_t)n : (uint32_t)taken;
        p->tx_off += m;
        *budget -= m;
        if (m < n)
            return false;
    }
    return p->tx_off >= c->read_len;
}

static void vcon_run_tx(struct virtio_console *v, unsigned n)
{
    struct vcon_port *p = &v->port[n];
    struct vq *q = &v->vp.vq[vcon_tx_queue(n)];
    uint32_t budget = VCON_BUDGET;
    struct vq_chain c;

    if (!virtio_is_live(&v->vp) || !p->present)
        return;
    while (budget && vq_pop(q, &c) > 0) {
        if (c.write_len) {
            virtio_needs_reset(&v->vp, "console: output buffer that is not for reading");
            return;
        }
        if (!vcon_tx_chain(p, &c, &budget)) {
            vq_unpop(q, &c);
            break;
        }
        p->tx_off = 0;
        vq_push(q, &c, 0);
        budget -= budget < VCON_CHAIN ? budget : VCON_CHAIN;
    }
    virtio_notify(&v->vp, vcon_tx_queue(n));
    if (!budget)
        vcon_later(v);
}

void vcon_tx_ready(struct virtio_console *v, unsigned n) { vcon_run_tx(v, n); }

/* ---- control messages to the guest ---- */

/* The message for one bit into buf; returns its length. */
static size_t vcon_message(struct virtio_console *v, unsigned n, unsigned bit, uint8_t *buf)
{
    struct vcon_port *p = &v->port[n];
    uint16_t event = EVENT_DEVICE_ADD, value = 1;
    size_t len = CONTROL_LEN;

    switch (bit) {
    case TELL_CONSOLE:
        event = EVENT_CONSOLE_PORT;
        break;
    case TELL_NAME:
        event = EVENT_NAME;
        memcpy(buf + len, p->name, strlen(p->name));
        len += strlen(p->name);
        break;
    case TELL_OPEN:
        event = EVENT_OPEN;
        value = p->told_open = vcon_host_open(p);
        break;
    case TELL_RESIZE:
        event = EVENT_RESIZE;
        st_le16(buf + len, p->cols);
        st_le16(buf + len + 2, p->rows);
        len += 4;
        break;
    }
    st_le32(buf, n);
    st_le16(buf + 4, event);
    st_le16(buf + 6, value);
    return len;
}

/* Tell one thing; false when the driver has no buffer for it. */
static bool vcon_tell(struct virtio_console *v, unsigned n, unsigned bit)
{
    struct vq *q = &v->vp.vq[QUEUE_TO_GUEST];
    uint8_t buf[CONTROL_LEN + VCON_NAME_MAX];
    struct vq_chain c;
    size_t len;

    if (vq_pop(q, &c) <= 0)
        return false;
    len = vcon_message(v, n, bit, buf);
    if (c.read_len || c.write_len < len) {
        virtio_needs_reset(&v->vp, "console: buffer that holds no control message");
        return false;
    }
    vq_chain_write(&c, 0, buf, len);
    vq_push(q, &c, (uint32_t)len);
    v->port[n].pending &= (uint8_t)~bit;
    return true;
}

static void vcon_tell_all(struct virtio_console *v)
{
    if (!virtio_is_live(&v->vp) || !vcon_multiport(v))
        return;
    for (unsigned n = 0; n < VCON_PORTS; n++) {
        for (unsigned bit = 1; bit < TELL_ALL && v->port[n].pending; bit <<= 1) {
            if ((v->port[n].pending & bit) && !vcon_tell(v, n, bit))
                goto out;
        }
    }
out:
    virtio_notify(&v->vp, QUEUE_TO_GUEST);
}

void vcon_opened(struct virtio_console *v, unsigned n)
{
    struct vcon_port *p = &v->port[n];

    if (!p->ready || vcon_host_open(p) == p->told_open)
        return;
    p->pending |= TELL_OPEN;
    vcon_tell_all(v);
}

static void vcon_set_config(struct virtio_console *v)
{
    st_le16(v->config + CONFIG_COLS, v->port[0].cols);
    st_le16(v->config + CONFIG_ROWS, v->port[0].rows);
}

void vcon_resize(struct virtio_console *v, unsigned n, uint16_t cols, uint16_t rows)
{
    struct vcon_port *p = &v->port[n];

    if (!p->console || (p->cols == cols && p->rows == rows))
        return;
    p->cols = cols;
    p->rows = rows;
    if (n == 0) {
        vcon_set_config(v);
        virtio_config_changed(&v->vp);
    }
    if (p->ready)
        p->pending |= TELL_RESIZE;
    vcon_tell_all(v);
}

/* ---- control messages from the guest ---- */

static void vcon_on_device_ready(struct virtio_console *v, bool ok)
{
    for (unsigned n = 0; n < VCON_PORTS && ok; n++)
        v->port[n].pending = v->port[n].present ? TELL_ADD : 0;
}

static void vcon_on_port_ready(struct vcon_port *p, bool ok)
{
    p->ready = ok;
    p->pending = 0;
    if (!ok)
        return;
    p->pending = TELL_OPEN | (p->name[0] ? TELL_NAME : 0);
    if (p->console)
        p->pending |= TELL_CONSOLE | (p->cols ? TELL_RESIZE : 0);
}

static void vcon_on_control(struct virtio_console *v, const uint8_t *msg)
{
    uint32_t n = ld_le32(msg);
    uint16_t event = ld_le16(msg + 4), value = ld_le16(msg + 6);
    struct vcon_port *p = n < VCON_PORTS && v->port[n].present ? &v->port[n] : NULL;

    if (event == EVENT_DEVICE_READY) {
        vcon_on_device_ready(v, value == 1);
        return;
    }
    if (!p)
        return; /* a message about a port that is not there */
    if (event == EVENT_PORT_READY)
        vcon_on_port_ready(p, value == 1);
    if (event != EVENT_OPEN)
        return;
    p->guest_open = value;
    if (p->guest_open)
        p->backend.rx_ready(p->backend.opaque);
}

static void vcon_run_control(struct virtio_console *v)
{
    struct vq *q = &v->vp.vq[QUEUE_FROM_GUEST];
    unsigned budget = VQ_MAX_SIZE;
    uint8_t msg[CONTROL_LEN];
    struct vq_chain c;

    if (!virtio_is_live(&v->vp) || !vcon_multiport(v))
        return;
    while (budget && vq_pop(q, &c) > 0) {
        if (c.write_len || vq_chain_read(&c, 0, msg, sizeof(msg)) < sizeof(msg)) {
            virtio_needs_reset(&v->vp, "console: buffer that holds no control message");
            return;
        }
        vq_push(q, &c, 0);
        vcon_on_control(v, msg);
        budget--;
    }
    virtio_notify(&v->vp, QUEUE_FROM_GUEST);
    if (!budget)
        vcon_later(v);
    vcon_tell_all(v);
}

/* ---- the transport's calls ---- */

static void vcon_run_all(void *opaque)
{
    struct virtio_console *v = opaque;

    vcon_run_control(v);
    for (unsigned n = 0; n < VCON_PORTS; n++) {
        if (!v->port[n].present)
            continue;
        vcon_run_tx(v, n);
        if (vcon_room(v, n))
            v->port[n].backend.rx_ready(v->port[n].backend.opaque);
    }
}

static void vcon_notify(void *dev, unsigned queue)
{
    struct virtio_console *v = dev;
    unsigned n = vcon_port_of(queue);

    if (queue == QUEUE_TO_GUEST)
        vcon_tell_all(v);
    else if (queue == QUEUE_FROM_GUEST)
        vcon_run_control(v);
    else if (queue & 1)
        vcon_run_tx(v, n);
    else if (vcon_room(v, n))
        v->port[n].backend.rx_ready(v->port[n].backend.opaque);
}

/* Without multiple ports there are no messages: the one console is open. */
static void vcon_start(void *dev)
{
    struct virtio_console *v = dev;

    if (!vcon_multiport(v))
        v->port[0].guest_open = true;
    vcon_run_all(v);
}

static void vcon_virtio_reset(void *dev)
{
    struct virtio_console *v = dev;

    timer_cancel(&v->again);
    for (unsigned n = 0; n < VCON_PORTS; n++) {
        struct vcon_port *p = &v->port[n];
        p->pending = 0;
        p->ready = p->guest_open = p->told_open = false;
        p->tx_off = 0;
    }
}

/* A character for the log of a kernel that has no queues yet (5.3.4). */
static void vcon_config_write(void *dev, unsigned off, uint32_t value, unsigned size)
{
    struct virtio_console *v = dev;
    uint8_t byte = (uint8_t)value;

    if (off == CONFIG_EMERG && v->port[0].present)
        v->port[0].backend.tx(v->port[0].backend.opaque, &byte, 1);
}

static const struct virtio_ops vcon_virtio_ops = {
    .start = vcon_start, .notify = vcon_notify, .reset = vcon_virtio_reset, .config_write = vcon_config_write
};

int virtio_console_init(struct virtio_console *v, unsigned ports, struct loop *loop, struct ram *ram,
                        apic_deliver_fn deliver, void *deliver_opaque)
{
    struct virtio_setup setup = {
        .name = "virtio-console",
        .ops = &vcon_virtio_ops,
        .dev = v,
        .id = VIRTIO_ID_CONSOLE,
        .class_code = 0x07,
        .subclass = 0x80,
        .queues = (uint16_t)(2 * (ports + 1)),
        .queue_size = 64,
        .features = VIRTIO_CONSOLE_F_SIZE | VIRTIO_CONSOLE_F_MULTIPORT | VIRTIO_CONSOLE_F_EMERG_WRITE,
        .config = v->config,
        .config_len = sizeof(v->config),
        .ram = ram,
        .deliver = deliver,
        .deliver_opaque = deliver_opaque,
    };

    if (!ports || ports > VCON_PORTS)
        return -EINVAL;
    memset(v, 0, sizeof(*v));
    st_le32(v->config + CONFIG_PORTS, ports);
    timer_init(&v->again, loop, vcon_run_all, v);
    return virtio_pci_init(&v->vp, &setup);
}

int virtio_console_add(struct virtio_console *v, unsigned n, const char *name, struct vcon_backend backend)
{
    size_t len = strlen(name);

    if (n >= ld_le32(v->config + CONFIG_PORTS) || len > VCON_NAME_MAX || (n == 0 && len))
        return -EINVAL;
    if (v->port[n].present)
        return -EEXIST;
    v->port[n].present = true;
    v->port[n].console = !len;
    memcpy(v->port[n].name, name, len + 1);
    v->port[n].backend = backend;
    return 0;
}

/* ---- life cycle ---- */

static void vcon_reset(void *dev) { virtio_pci_reset(&((struct virtio_console *)dev)->vp); }

static void vcon_pause(void *dev) { timer_cancel(&((struct virtio_console *)dev)->again); }

/* Somebody may have come or gone meanwhile, or the host is another one. */
static void vcon_resume(void *dev)
{
    struct virtio_console *v = dev;

    virtio_pci_resume(&v->vp);
    vcon_set_config(v);
    for (unsigned n = 0; n < VCON_PORTS; n++) {
        if (v->port[n].present)
            vcon_opened(v, n);
        else
            v->port[n].pending = 0;
    }
    vcon_run_all(v);
}

static void vcon_destroy(void *dev)
{
    struct virtio_console *v = dev;

    timer_cancel(&v->again);
    pci_dev_unplug(&v->vp.pci);
}

static int vcon_port_check(void *obj, struct err *err)
{
    const struct vcon_port *p = obj;

    if ((p->pending & ~TELL_ALL) || p->tx_off > VQ_MAX_BYTES)
        return err_set(err, EINVAL, "virtio-console: a port is in an impossible state");
    return 0;
}

static const struct state_field vcon_port_fields[] = {
    STATE_F8(struct vcon_port, pending),       STATE_FBOOL(struct vcon_port, ready),
    STATE_FBOOL(struct vcon_port, guest_open), STATE_FBOOL(struct vcon_port, told_open),
    STATE_F32(struct vcon_port, tx_off),       STATE_F16(struct vcon_port, cols),
    STATE_F16(struct vcon_port, rows),         STATE_END,
};
static const struct state_desc vcon_port_state = { .name = "virtio-console-port",
                                                   .version = 1,
                                                   .size = sizeof(struct vcon_port),
                                                   .fields = vcon_port_fields,
                                                   .check = vcon_port_check };

static const struct state_field vcon_fields[] = {
    STATE_FSTRUCT(struct virtio_console, vp, struct virtio_pci, virtio_pci_state),
    STATE_FSTRUCT(struct virtio_console, port, struct vcon_port, vcon_port_state),
    STATE_END,
};
static const struct state_desc vcon_state = {
    .name = "virtio-console", .version = 1, .size = sizeof(struct virtio_console), .fields = vcon_fields
};

const struct device_ops virtio_console_ops = {
    .type = "virtio-console",
    .reset = vcon_reset,
    .pause = vcon_pause,
    .resume = vcon_resume,
    .destroy = vcon_destroy,
    .state = &vcon_state,
};
