/* The VM generation ID while a guest writes over it, the host changes it, memory or randomness fails, and states from outside
 * are loaded. What the guest reads is always what the device says; a change that fails changes nothing.
 *
 * An input is a list of records: an op byte, then up to 16 bytes of data.
 */
#include "fuzz.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "chip/vmgenid.h"
#include "state/state.h"

#define GPA 0xfeffb000ULL

struct bench {
    struct ram ram;
    struct rand_source rand;
    struct vmgenid g;
    unsigned told;
    uint64_t seed;
    bool dry;
};

static struct bench *current;

static int source(struct rand_source *r, void *buf, size_t len)
{
    uint8_t *p = buf;

    if (current->dry)
        return -EIO;
    while (len--)
        *p++ = (uint8_t)((current->seed = current->seed * 6364136223846793005ULL + 1442695040888963407ULL) >> 56);
    return 0;
}

static void tell(void *opaque) { ((struct bench *)opaque)->told++; }

static void change(struct bench *t)
{
    uint8_t before[VMGENID_LEN];
    unsigned told = t->told;
    int r;

    memcpy(before, t->g.id, sizeof(before));
    r = vmgenid_change(&t->g);
    FUZZ_CHECK((r < 0) == t->dry && t->told == told + !t->dry);
    FUZZ_CHECK(!memcmp(before, t->g.id, sizeof(before)) == t->dry);
}

/* The state, saved, perhaps damaged, and loaded. */
static void load(struct bench *t, const uint8_t *bytes, size_t len)
{
    struct state_buf x = { .data = NULL };
    uint8_t before[VMGENID_LEN];
    struct err err = { "" };
    int r;

    memcpy(before, t->g.id, sizeof(before));
    FUZZ_CHECK(state_save(&x, vmgenid_ops.state, 0, &t->g) == 0);
    for (size_t n = 0; n + 1 < len; n += 2)
        x.data[bytes[n] % x.len] ^= bytes[n + 1];
    vmgenid_ops.pause ? vmgenid_ops.pause(&t->g) : (void)0;
    r = state_load(x.data, x.len, vmgenid_ops.state, 0, &t->g, &err);
    FUZZ_CHECK(r == 0 || !memcmp(before, t->g.id, sizeof(before)));
    vmgenid_ops.resume(&t->g);
    state_buf_fini(&x);
}

static void record(struct bench *t, uint8_t op, const uint8_t *bytes, size_t len)
{
    switch (op % 5) {
    case 0:
        change(t);
        break;
    case 1: /* the guest writes: it is ROM */
        ram_write(&t->ram, GPA + (len ? bytes[0] % 32 : 0), bytes, len);
        break;
    case 2:
        t->dry = len && bytes[0] & 1;
        break;
    case 3:
        load(t, bytes, len);
        break;
    case 4:
        vmgenid_ops.reset(&t->g);
        break;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct bench *t = calloc(1, sizeof(*t));
    uint8_t seen[VMGENID_LEN];

    FUZZ_CHECK(t);
    current = t;
    ram_init(&t->ram);
    FUZZ_CHECK(ram_add_slot(&t->ram, GPA, PAGE_SIZE, true) == 0);
    t->rand.fill = source;
    FUZZ_CHECK(vmgenid_init(&t->g, &t->ram, GPA, &t->rand, tell, t) == 0);
    vmgenid_ops.reset(&t->g);
    while (size) {
        size_t n = size - 1 < 16 ? size - 1 : 16;

        record(t, data[0], data + 1, n);
        data += n + 1;
        size -= n + 1;
        FUZZ_CHECK(ram_read(&t->ram, GPA, seen, sizeof(seen)) == 0 && !memcmp(seen, t->g.id, sizeof(seen)));
    }
    vmgenid_ops.destroy(&t->g);
    ram_fini(&t->ram);
    free(t);
    return 0;
}

size_t fuzz_seed(unsigned n, uint8_t *buf, size_t size)
{
    static const uint8_t ops[8][5] = { { 0, 3, 0, 3, 4 }, { 1, 0, 1, 3, 0 }, { 2, 0, 2, 0, 3 }, { 4, 3, 1, 0, 3 },
                                       { 3, 3, 3, 0, 1 }, { 0, 4, 0, 4, 0 }, { 2, 4, 0, 3, 1 }, { 3, 0, 4, 2, 0 } };

    if (n >= 8)
        return 0;
    for (unsigned i = 0; i < 5; i++) {
        memset(buf + 17 * i, (int)(n + i), 17);
        buf[17 * i] = ops[n][i];
    }
    return 5 * 17;
}
