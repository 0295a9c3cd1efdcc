/* Network back ends without a machine: checksums and cutting against a plain reckoning, the switch with several members, with
 * one that stands still and one that is killed, user networking by hand-made packets. */
#include <dirent.h>
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/bits.h"
#include "base/err.h"
#include "base/rand.h"
#include "base/rundir.h"
#include "net/offload.h"
#include "net/port.h"
#include "test.h"

/* ---- offloads ---- */

static uint16_t plain_sum(const uint8_t *d, size_t len, uint32_t sum)
{
    for (size_t i = 0; i < len; i++)
        sum += i & 1 ? d[i] : (uint32_t)d[i] << 8;
    while (sum >> 16)
        sum = (sum & 0xffff) + (sum >> 16);
    return (uint16_t)~sum;
}

static void test_sum(void **state)
{
    struct rand_source r;
    static uint8_t d[70000];

    rand_init_seeded(&r, 1);
    rand_bytes(&r, d, sizeof(d));
    for (unsigned n = 0; n < 2000; n++) {
        size_t len = n < 200 ? n : rand_below(&r, sizeof(d)), off = rand_below(&r, sizeof(d) - len + 1);
        uint16_t got = net_fold(net_sum(d + off, len, 0));
        assert_int_equal((got & 0xff) << 8 | got >> 8, plain_sum(d + off, len, 0));
    }
}

struct joined {
    struct rand_source *r;
    uint8_t bytes[NET_FRAME_MAX];
    uint32_t len, headers, segments, size, l4;
    bool v6;
};

static int on_segment(void *opaque, uint8_t *d, uint32_t len)
{
    struct joined *j = opaque;
    uint32_t payload = len - j->headers, seq = (uint32_t)d[j->l4 + 4] << 24 | (uint32_t)d[j->l4 + 5] << 16 |
                                               (uint32_t)d[j->l4 + 6] << 8 | d[j->l4 + 7];
    uint32_t pseudo = 6 + len - j->l4, a = j->v6 ? 22 : 26, n = j->v6 ? 32 : 8;

    for (uint32_t i = 0; i < n; i += 2)
        pseudo += (uint32_t)d[a + i] << 8 | d[a + i + 1];
    assert_int_equal(plain_sum(d + j->l4, len - j->l4, pseudo), 0);
    if (!j->v6)
        assert_int_equal(plain_sum(d + 14, 20, 0), 0);
    assert_int_equal((uint32_t)d[j->v6 ? 18 : 16] << 8 | d[j->v6 ? 19 : 17], len - (j->v6 ? 54 : 14));
    assert_true(payload <= j->size);
    assert_int_equal(seq, 0x01020304 + j->len);
    memcpy(j->bytes + j->len, d + j->headers, payload);
    j->len += payload;
    j->segments++;
    return 0;
}

/* A TCP packet of random length, cut and joined again. */
static void test_cut(void **state)
{
    static struct joined j;
    static uint8_t d[NET_FRAME_MAX], buf[NET_FRAME_MAX];
    struct rand_source r;

    rand_init_seeded(&r, 2);
    for (unsigned n = 0; n < 400; n++) {
        bool v6 = n & 1;
        uint32_t l4 = v6 ? 54 : 34, opts = 4 * (uint32_t)rand_below(&r, 11), headers = l4 + 20 + opts;
        uint32_t len = headers + (uint32_t)rand_below(&r, 65000 - headers);
        struct net_frame f = { .data = d, .len = len, .meta = { .flags = 1, .csum_start = (uint16_t)l4, .csum_offset = 16 } };

        rand_bytes(&r, d, len);
        d[12] = v6 ? 0x86 : 8;
        d[13] = v6 ? 0xdd : 0;
        d[14] = v6 ? 0x60 : 0x45;
        d[20] = v6 ? 6 : 0; /* IPv4: no fragment; IPv6: TCP */
        if (!v6) {
            d[21] = 0;
            d[23] = 6;
        }
        memcpy(d + l4 + 4, "\1\2\3\4", 4);
        d[l4 + 12] = (uint8_t)((5 + opts / 4) << 4);
        f.meta.gso_type = v6 ? NET_GSO_TCP6 : NET_GSO_TCP4;
        f.meta.gso_size = (uint16_t)(100 + rand_below(&r, 3000));
        j = (struct joined){ .headers = headers, .size = f.meta.gso_size, .l4 = l4, .v6 = v6 };
        assert_true(net_meta_ok(&f.meta, len));
        assert_int_equal(net_segment(&f, 0, buf, on_segment, &j), 0);
        assert_int_equal(j.len, len - headers);
        assert_memory_equal(j.bytes, d + headers, j.len);
        assert_int_equal(j.segments, j.len ? (j.len + j.size - 1) / j.size : 1);
    }
}

/* ---- a client ---- */

#define CLIENT_FRAMES 4096

struct client {
    struct net_port *port;
    pthread_mutex_t lock;
    unsigned want; /* frames to send, still */
    uint32_t len;
    struct net_meta meta;
    uint8_t frame[NET_FRAME_MAX];
    unsigned got, bytes; /* frames of our test that came */
    struct net_meta last_meta;
    uint8_t last[NET_FRAME_MAX];
    uint32_t last_len;
    bool full; /* takes nothing */
};

static bool client_fetch(void *opaque, struct net_batch *b)
{
    struct client *c = opaque;
    struct net_frame *f;
    bool more;

    pthread_mutex_lock(&c->lock);
    while (c->want && (f = net_batch_room(b, c->len))) {
        memcpy(f->data, c->frame, c->len);
        f->meta = c->meta;
        b->count++;
        c->want--;
    }
    more = c->want;
    pthread_mutex_unlock(&c->lock);
    return more;
}

static int client_deliver(void *opaque, struct net_frame *f)
{
    struct client *c = opaque;

    pthread_mutex_lock(&c->lock);
    if (!c->full) {
        c->got++;
        memcpy(c->last, f->data, f->len);
        c->last_len = f->len;
        c->last_meta = f->meta;
    }
    bool full = c->full;
    pthread_mutex_unlock(&c->lock);
    return full ? -ENOBUFS : 0;
}

static void client_flush(void *opaque) { (void)opaque; }

static const struct net_client_ops client_ops = { .fetch = client_fetch,
                                                  .deliver = client_deliver,
                                                  .flush = client_flush };

static void client_open(struct client *c, const struct net_config *cfg)
{
    struct err err = { "" };

    memset(c, 0, sizeof(*c));
    pthread_mutex_init(&c->lock, NULL);
    if (net_open(&c->port, cfg, &err) < 0)
        fail_msg("%s", err.text);
    assert_int_equal(net_start(c->port, &client_ops, c), 0);
}

static void client_send(struct client *c, const void *frame, uint32_t len, unsigned times)
{
    pthread_mutex_lock(&c->lock);
    memcpy(c->frame, frame, len);
    c->len = len;
    c->want = times;
    pthread_mutex_unlock(&c->lock);
    net_peer_of(c->port)->kick(net_peer_of(c->port));
}

static unsigned client_got(struct client *c)
{
    pthread_mutex_lock(&c->lock);
    unsigned n = c->got;
    pthread_mutex_unlock(&c->lock);
    return n;
}

static unsigned client_unsent(struct client *c)
{
    pthread_mutex_lock(&c->lock);
    unsigned n = c->want;
    pthread_mutex_unlock(&c->lock);
    return n;
}

/* Wait until the last frame has byte v at place at; false: it does not come. */
static bool client_sees(struct client *c, unsigned at, uint8_t v)
{
    bool is = false;

    for (unsigned n = 0; n < 5000 && !is; n++) {
        usleep(1000);
        pthread_mutex_lock(&c->lock);
        is = c->last_len > at && c->last[at] == v;
        pthread_mutex_unlock(&c->lock);
    }
    return is;
}

static void wait_for(struct client *c, unsigned frames)
{
    for (unsigned n = 0; n < 10000 && client_got(c) < frames; n++)
        usleep(1000);
    assert_true(client_got(c) >= frames);
}

/* ---- the switch ---- */

static char place[] = "/tmp/vitro-net.XXXXXX";

static struct net_config lan(const char *name)
{
    struct net_config c = { .kind = NET_SWITCH };

    strcpy(c.name, name);
    return c;
}

static void eth(uint8_t *d, uint8_t to, uint8_t from)
{
    memset(d, to == 0xff ? 0xff : 0, 6);
    if (to != 0xff)
        d[0] = 2, d[5] = to;
    memset(d + 6, 0, 6);
    d[6] = 2, d[11] = from;
    d[12] = 0x88, d[13] = 0xb5; /* for experiments */
}

static void send_eth(struct client *c, uint8_t to, uint8_t from, uint32_t len, unsigned times)
{
    static uint8_t d[NET_FRAME_MAX];

    memset(d, to ^ from, len);
    eth(d, to, from);
    client_send(c, d, len, times);
}

static unsigned members(const char *name)
{
    char path[128];
    struct dirent *e;
    unsigned n = 0;
    DIR *d;

    snprintf(path, sizeof(path), "%s/vitro/switch/%s", place, name);
    d = opendir(path);
    assert_non_null(d);
    while ((e = readdir(d)))
        n += e->d_name[0] != '.';
    closedir(d);
    return n;
}

static struct client a, b, c, other;

static void test_switch(void **state)
{
    struct net_config red = lan("red"), blue = lan("blue");
    struct stat st;
    char path[128];

    client_open(&a, &red);
    client_open(&b, &red);
    client_open(&c, &red);
    client_open(&other, &blue);
    snprintf(path, sizeof(path), "%s/vitro/switch/red", place);
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0700);
    send_eth(&a, 0xff, 1, 100, 1); /* everybody of red */
    wait_for(&b, 1);
    wait_for(&c, 1);
    send_eth(&b, 1, 2, 200, 1); /* learned: only a */
    wait_for(&a, 1);
    assert_int_equal(a.last_len, 200);
    a.meta = (struct net_meta){ .flags = 1, .gso_type = 1, .gso_size = 1000, .csum_start = 34, .csum_offset = 16 };
    send_eth(&a, 2, 1, 65000, 500); /* whole, with what is still to be done, and not one is lost */
    wait_for(&b, 501);
    assert_int_equal(b.last_len, 65000);
    assert_memory_equal(&b.last_meta, &a.meta, sizeof(a.meta));
    assert_int_equal(b.last[64999], 3);
    usleep(20000);
    assert_int_equal(client_got(&c), 1);
    assert_int_equal(client_got(&a), 1);
    assert_int_equal(client_got(&other), 0);
    net_close(a.port);
    net_close(b.port);
    net_close(c.port);
    net_close(other.port);
    assert_int_equal(members("red"), 0);
}

/* One takes nothing: it gets its frames later, up to what queues hold, and the others are served meanwhile. */
static void test_stuck(void **state)
{
    struct net_config red = lan("red");

    client_open(&a, &red);
    client_open(&b, &red);
    client_open(&c, &red);
    send_eth(&b, 0xff, 2, 100, 1);
    wait_for(&a, 1);
    send_eth(&c, 0xff, 3, 100, 1);
    wait_for(&a, 2);
    pthread_mutex_lock(&b.lock);
    b.full = true;
    pthread_mutex_unlock(&b.lock);
    unsigned before = client_got(&c);
    send_eth(&a, 2, 1, 60000, 200);
    for (unsigned n = 0; n < 5000 && client_unsent(&a); n++)
        usleep(1000);
    assert_int_equal(client_unsent(&a), 0); /* waited for, then dropped */
    send_eth(&a, 3, 1, 60000, 200);
    wait_for(&c, before + 200);
    before = client_got(&b);
    pthread_mutex_lock(&b.lock);
    b.full = false;
    pthread_mutex_unlock(&b.lock);
    net_peer_of(b.port)->kick(net_peer_of(b.port));
    wait_for(&b, before + 3);
    net_close(a.port);
    net_close(b.port);
    net_close(c.port);
}

/* A member that is killed leaves a socket; whoever meets it removes it, and the others go on. */
static void test_killed(void **state)
{
    struct net_config red = lan("red");
    int ready[2];
    char byte;
    pid_t pid;

    assert_int_equal(pipe(ready), 0);
    pid = fork();
    if (pid == 0) {
        client_open(&c, &red);
        if (write(ready[1], "x", 1) == 1)
            pause();
        _exit(1);
    }
    assert_int_equal(read(ready[0], &byte, 1), 1);
    client_open(&a, &red);
    client_open(&b, &red);
    kill(pid, SIGKILL);
    waitpid(pid, NULL, 0);
    assert_int_equal(members("red"), 3);
    send_eth(&a, 0xff, 1, 100, 3);
    wait_for(&b, 3);
    assert_int_equal(members("red"), 2);
    net_close(a.port);
    net_close(b.port);
    /* and one that nobody met */
    pid = fork();
    if (pid == 0) {
        client_open(&c, &red);
        if (write(ready[1], "x", 1) == 1)
            pause();
        _exit(1);
    }
    assert_int_equal(read(ready[0], &byte, 1), 1);
    kill(pid, SIGKILL);
    waitpid(pid, NULL, 0);
    client_open(&a, &red);
    assert_int_equal(members("red"), 1);
    net_close(a.port);
    close(ready[0]);
    close(ready[1]);
}

/* A folder that others may write to is refused. */
static void test_place(void **state)
{
    struct net_config red = lan("open");
    struct err err = { "" };
    struct net_port *p;
    char path[128];
    int fd = rundir_open("switch", "open", &err);

    assert_true(fd >= 0);
    assert_int_equal(fchmod(fd, 0777), 0);
    close(fd);
    assert_int_equal(net_open(&p, &red, &err), -EPERM);
    assert_non_null(strstr(err.text, "not this user's alone"));
    snprintf(path, sizeof(path), "%s/vitro/switch/link", place);
    assert_int_equal(symlink("/tmp", path), 0);
    red = lan("link");
    assert_true(net_open(&p, &red, &err) < 0);
}

/* ---- user networking ---- */

/* A DHCP DISCOVER, and the offer; then an ARP question for the host. */
static void test_user(void **state)
{
    static uint8_t d[14 + 20 + 8 + 244];
    struct net_config cfg = { .kind = NET_USER, .index = 1 };
    static const uint8_t arp[42] = { 255, 255, 255, 255, 255, 255, 2, 0, 0, 0, 0, 9, 8, 6, 0, 1, 8, 0, 6, 4, 0, 1, 2, 0, 0, 0, 0, 9,
                                     10, 0, 3, 15, 0, 0, 0, 0, 0, 0, 10, 0, 3, 2 };
    uint16_t sum;

    memset(d, 255, 6);
    memcpy(d + 6, arp + 6, 6);
    d[12] = 8;
    memcpy(d + 14, "\x45\0\1\x10\0\0\0\0\x40\x11\0\0\0\0\0\0\xff\xff\xff\xff", 20);
    sum = net_fold(net_sum(d + 14, 20, 0));
    memcpy(d + 24, &sum, 2);
    memcpy(d + 34, "\0\x44\0\x43\0\xfc\0\0\1\1\6\0\1\2\3\4", 16); /* no checksum */
    memcpy(d + 42 + 28, arp + 6, 6);
    memcpy(d + 42 + 236, "\x63\x82\x53\x63\x35\1\1\xff", 8);
    client_open(&a, &cfg);
    assert_int_equal(net_peer_of(a.port)->mtu, 16384);
    client_send(&a, d, sizeof(d), 1);
    assert_true(client_sees(&a, 23, 17));
    assert_memory_equal(a.last + 42 + 16, "\12\0\3\17", 4); /* yours: 10.0.3.15 */
    client_send(&a, arp, sizeof(arp), 1);
    assert_true(client_sees(&a, 31, 2));
    assert_memory_equal(a.last + 28, "\12\0\3\2", 4);
    net_close(a.port);
}

enum { DISCOVER = 1, OFFER, REQUEST, ACK = 5, NAK };

/* Send a DHCP message from one hardware address, of a client that knows another; ciaddr and wanted (option 50) are last bytes of 10.0.2.x, 0: none. Returns the answer's type; *given: the last byte of its yiaddr. */
static int dhcp(struct client *cl, uint8_t from, uint8_t mac, int type, uint8_t ciaddr, uint8_t wanted, uint8_t *given)
{
    static uint8_t d[14 + 20 + 8 + 300];
    static uint8_t number;
    uint8_t *boot = d + 42, *option = boot + 240;
    uint16_t sum;

    memset(d, 0, sizeof(d));
    memset(d, 255, 6);
    memcpy(d + 6, "\2\0\0\0\0", 5);
    d[11] = from;
    d[12] = 8;
    memcpy(d + 14, "\x45\0\1\x48\0\0\0\0\x40\x11\0\0\0\0\0\0\xff\xff\xff\xff", 20);
    sum = net_fold(net_sum(d + 14, 20, 0));
    memcpy(d + 24, &sum, 2);
    memcpy(d + 34, "\0\x44\0\x43\1\x34\0\0\1\1\6\0", 12);
    boot[7] = ++number;
    if (ciaddr)
        memcpy(boot + 12, (uint8_t[]){ 10, 0, 2, ciaddr }, 4);
    memcpy(boot + 28, d + 6, 5);
    boot[33] = mac;
    memcpy(boot + 236, "\x63\x82\x53\x63\x35\1", 6);
    option[2] = (uint8_t)type;
    option += 3;
    if (wanted)
        memcpy(option, (uint8_t[]){ 50, 4, 10, 0, 2, wanted }, 6);
    option[wanted ? 6 : 0] = 255;
    client_send(cl, d, sizeof(d), 1);
    assert_true(client_sees(cl, 23, 17));
    for (unsigned tries = 0; cl->last[42 + 7] != number && tries < 1000; tries++)
        usleep(1000);
    assert_int_equal(cl->last[42 + 7], number);
    *given = cl->last[42 + 19];
    assert_int_equal(cl->last[42 + 240], 53);
    return cl->last[42 + 242];
}

static void expect_dhcp(uint8_t mac, int type, uint8_t ciaddr, uint8_t wanted, int answer, uint8_t address)
{
    uint8_t given;

    assert_int_equal(dhcp(&a, mac, mac, type, ciaddr, wanted, &given), answer);
    if (answer != NAK)
        assert_int_equal(given, address);
}

/* A copy of a machine, and one that was restored, renew what another process gave them: as clients that hold the address (RFC 2131, 4.3.2), and as those
 * that have begun anew. */
static void test_renewal(void **state)
{
    struct net_config cfg = { .kind = NET_USER };

    client_open(&a, &cfg);
    expect_dhcp(2, REQUEST, 15, 0, ACK, 15);
    expect_dhcp(2, REQUEST, 15, 0, ACK, 15);
    expect_dhcp(2, REQUEST, 0, 15, ACK, 15);
    /* The card has another address now, and its old one has the lease: the client begins anew. */
    expect_dhcp(3, REQUEST, 15, 0, NAK, 0);
    expect_dhcp(3, DISCOVER, 0, 15, OFFER, 16);
    expect_dhcp(3, REQUEST, 0, 16, ACK, 16);
    expect_dhcp(3, REQUEST, 16, 0, ACK, 16);
    expect_dhcp(2, REQUEST, 15, 0, ACK, 15);
    net_close(a.port);
    /* What that one had, in the next process. */
    client_open(&a, &cfg);
    expect_dhcp(4, REQUEST, 16, 0, ACK, 16);
    net_close(a.port);
    client_open(&a, &cfg);
    expect_dhcp(5, REQUEST, 0, 16, ACK, 16);
    net_close(a.port);
}

/* To which hardware address the host's answer to a ping goes. */
static uint8_t answered_to(struct client *cl, uint8_t from, uint8_t address)
{
    static uint8_t d[14 + 20 + 8 + 24];
    uint16_t sum;

    memset(d, 0, sizeof(d));
    memcpy(d, "\x52\x55\12\0\2\2\2\0\0\0\0", 11);
    d[11] = from;
    d[12] = 8;
    memcpy(d + 14, "\x45\0\0\x34\0\0\0\0\x40\1\0\0\12\0\2\0\12\0\2\2", 20);
    d[29] = address;
    sum = net_fold(net_sum(d + 14, 20, 0));
    memcpy(d + 24, &sum, 2);
    d[34] = 8;
    sum = net_fold(net_sum(d + 34, sizeof(d) - 34, 0));
    memcpy(d + 36, &sum, 2);
    client_send(cl, d, sizeof(d), 1);
    assert_true(client_sees(cl, 23, 1));
    return cl->last[5];
}

/* A client that runs on in a copy of its machine renews for the address that its card had; the card has another one. */
static void test_old_address(void **state)
{
    struct net_config cfg = { .kind = NET_USER };
    uint8_t given;

    for (unsigned wanted = 0; wanted < 2; wanted++) {
        client_open(&a, &cfg);
        assert_int_equal(dhcp(&a, 7, 2, REQUEST, wanted ? 0 : 15, wanted ? 15 : 0, &given), ACK);
        assert_int_equal(given, 15);
        assert_int_equal(a.last[42 + 33], 2); /* the client looks for what it knows */
        assert_int_equal(answered_to(&a, 7, 15), 7);
        net_close(a.port);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sum),   cmocka_unit_test(test_cut),    cmocka_unit_test(test_switch),
        cmocka_unit_test(test_stuck), cmocka_unit_test(test_killed), cmocka_unit_test(test_place),
        cmocka_unit_test(test_user),  cmocka_unit_test(test_renewal), cmocka_unit_test(test_old_address),
    };
    char command[64];
    int r;

    if (!mkdtemp(place))
        return 1;
    setenv("XDG_RUNTIME_DIR", place, 1);
    r = cmocka_run_group_tests(tests, NULL, NULL);
    snprintf(command, sizeof(command), "rm -rf %s", place);
    return system(command) ? 1 : r;
}
