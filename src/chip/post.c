/* Models: the POST code port 0x80 and the delay port 0xED, which software writes to in order to wait.
 * Source: IBM PC AT technical reference (manufacturing checkpoint port); Linux uses either for io_delay.
 * Runs on: any thread, under the device lock.
 */
#include "chip/post.h"

#include "state/state.h"

static uint64_t post_code_read(void *dev, uint64_t off, unsigned size) { return ((struct post *)dev)->code; }

static void post_code_write(void *dev, uint64_t off, uint64_t value, unsigned size)
{
    ((struct post *)dev)->code = (uint8_t)value;
}

static uint64_t post_delay_read(void *dev, uint64_t off, unsigned size) { return 0xff; }

static void post_delay_write(void *dev, uint64_t off, uint64_t value, unsigned size)
{
    /* The access itself is the delay. */
}

static const struct bus_ops post_code_bus = {
    .read = post_code_read, .write = post_code_write, .min_size = 1, .max_size = 1
};
static const struct bus_ops post_delay_bus = {
    .read = post_delay_read, .write = post_delay_write, .min_size = 1, .max_size = 1
};

void post_init(struct post *p)
{
    *p = (struct post){
        .code_port = { .base = 0x80, .len = 1, .ops = &post_code_bus, .dev = p, .name = "post" },
        .delay_port = { .base = 0xed, .len = 1, .ops = &post_delay_bus, .dev = p, .name = "io-delay" },
    };
}

int post_attach(struct post *p, struct bus *io)
{
    int rc = bus_add(io, &p->code_port);
    if (rc)
        return rc;
    rc = bus_add(io, &p->delay_port);
    if (rc)
        bus_remove(io, &p->code_port);
    return rc;
}

static void post_reset(void *dev) { ((struct post *)dev)->code = 0; }

static void post_destroy(void *dev) { (void)dev; }

static const struct state_field post_fields[] = {
    STATE_F8(struct post, code),
    STATE_END,
};
static const struct state_desc post_state = {
    .name = "post", .version = 1, .size = sizeof(struct post), .fields = post_fields
};

const struct device_ops post_ops = {
    .type = "post",
    .reset = post_reset,
    .destroy = post_destroy,
    .state = &post_state,
};
