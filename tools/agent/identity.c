/* A copy of a machine becomes another one: host name, addresses of network cards, random numbers. Runs in the process of a connection. */
#include <errno.h>
#include <fcntl.h>
#include <net/if.h>
#include <net/if_arp.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>
#include <linux/random.h>

#include "agent.h"

/* In the kernel, and where the system reads it from when it starts; a system that has no such file gets none. 0 or an errno. */
static int identity_host_name(const char *name)
{
    size_t len = strlen(name);
    int fd;

    if (!len || len > 63 || strspn(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-") != len)
        return EINVAL;
    if (sethostname(name, len) < 0)
        return errno;
    fd = open("/etc/hostname", O_WRONLY | O_TRUNC | O_NOFOLLOW | O_CLOEXEC);
    if (fd >= 0) {
        dprintf(fd, "%s\n", name);
        close(fd);
    }
    return 0;
}

static bool identity_mac(const char *text, uint8_t mac[6])
{
    int used = -1;

    return sscanf(text, "%2hhx:%2hhx:%2hhx:%2hhx:%2hhx:%2hhx%n", &mac[0], &mac[1], &mac[2], &mac[3], &mac[4], &mac[5], &used) == 6 && used == 17;
}

/* The interface, if it has the old address. 0 or an errno. */
static int identity_readdress(int fd, const char *interface, const uint8_t old[6], const uint8_t new[6])
{
    struct ifreq r = { .ifr_flags = 0 };

    snprintf(r.ifr_name, sizeof(r.ifr_name), "%s", interface);
    if (ioctl(fd, SIOCGIFHWADDR, &r) < 0 || r.ifr_hwaddr.sa_family != ARPHRD_ETHER || memcmp(r.ifr_hwaddr.sa_data, old, 6))
        return 0;
    memcpy(r.ifr_hwaddr.sa_data, new, 6);
    return ioctl(fd, SIOCSIFHWADDR, &r) < 0 ? errno : 0;
}

/* "OLD NEW", of one card: the interface that has the old address gets the new one. Its driver tells the card. 0 or an errno. */
static int identity_card(const char *text)
{
    uint8_t old[6], new[6];
    struct if_nameindex *all;
    int fd, r = 0;

    if (strlen(text) != 35 || text[17] != ' ' || !identity_mac(text, old) || !identity_mac(text + 18, new))
        return EINVAL;
    fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    all = fd >= 0 ? if_nameindex() : NULL;
    if (!all)
        r = errno;
    for (struct if_nameindex *i = all; i && i->if_index && r == 0; i++)
        r = identity_readdress(fd, i->if_name, old, new);
    if (all)
        if_freenameindex(all);
    if (fd >= 0)
        close(fd);
    return r;
}

/* Hexadecimal digits: into the kernel's pool, whose generator begins anew with it. 0 or an errno. */
static int identity_seed(const char *text)
{
    struct { /* struct rand_pool_info, and the bytes behind it */
        int entropy_count, buf_size;
        uint8_t data[WIRE_SEED];
    } pool = { .entropy_count = 8 * WIRE_SEED, .buf_size = WIRE_SEED };
    int fd, r = 0;

    if (strlen(text) != 2 * sizeof(pool.data))
        return EINVAL;
    for (size_t n = 0; n < sizeof(pool.data); n++) {
        if (sscanf(text + 2 * n, "%2hhx", &pool.data[n]) != 1)
            return EINVAL;
    }
    fd = open("/dev/urandom", O_WRONLY | O_CLOEXEC);
    if (fd < 0)
        return errno;
    if (ioctl(fd, RNDADDENTROPY, &pool) < 0 || ioctl(fd, RNDRESEEDCRNG) < 0)
        r = errno;
    close(fd);
    return r;
}

void agent_identity(struct wire *w)
{
    static char words[WIRE_MAX];
    static const uint8_t done;
    const char *what = "words";
    size_t len;
    const uint8_t *data = wire_data(w, &len);
    int r = len && !data[len - 1] ? 0 : EINVAL;

    memcpy(words, data, len);
    wire_done(w);
    for (char *p = words; r == 0 && p < words + len; p += strlen(p) + 1) {
        if (*p == WORD_HOST)
            what = "host name", r = identity_host_name(p + 1);
        else if (*p == WORD_CARD)
            what = "network card", r = identity_card(p + 1);
        else if (*p == WORD_SEED)
            what = "random numbers", r = identity_seed(p + 1);
        else
            r = EINVAL;
    }
    if (r)
        agent_fail(w, AGENT_FAILED, "the guest does not take a new identity (%s): %s", what, strerror(r));
    else
        wire_send(w, WIRE_EXIT, &done, 1, AGENT_LEAVE_MS);
}
