/* --net none|user[,forward=..]|tap,ifname=IF|switch=NAME[,mac=..][,queues=N][,rx-bps=..]: from text to struct config_net.
 *
 * Thread: whoever builds the machine; no locks.
 */
#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bits.h"
#include "base/err.h"
#include "machine/config.h"
#include "virtio/net.h"

#define NET_USAGE "use none, user, tap,ifname=IF or switch=NAME"

/* A word of the option: text up to a comma. */
struct net_word {
    const char *at;
    size_t len;
};

static int net_word_shown(const struct net_word *w) { return (int)(w->len > 64 ? 64 : w->len); }

static bool net_word_is(const struct net_word *w, const char *text)
{
    return w->len == strlen(text) && !strncmp(w->at, text, w->len);
}

/* If the word is KEY=VALUE, the value. */
static bool net_word_value(const struct net_word *w, const char *key, struct net_word *value)
{
    size_t n = strlen(key);

    if (w->len <= n || strncmp(w->at, key, n) || w->at[n] != '=')
        return false;
    *value = (struct net_word){ w->at + n + 1, w->len - n - 1 };
    return true;
}

/* A port at *at, which moves behind it; 0: there is none. */
static uint16_t net_port_number(const char **at, const char *end)
{
    unsigned v = 0;

    for (; *at < end && isdigit((unsigned char)**at) && v <= 65535; (*at)++)
        v = 10 * v + (unsigned)(**at - '0');
    return v <= 65535 ? (uint16_t)v : 0;
}

static int config_net_forward(struct config_net *n, const struct net_word *w, struct err *err)
{
    struct net_forward f = { .udp = w->len > 4 && !strncmp(w->at, "udp:", 4) };
    const char *at = w->at + 4, *end = w->at + w->len;

    if (w->len > 4 && (f.udp || !strncmp(w->at, "tcp:", 4))) {
        f.host = net_port_number(&at, end);
        f.guest = at < end && *at == ':' ? (at++, net_port_number(&at, end)) : 0;
    }
    if (!f.host || !f.guest || at != end)
        return err_set(err, EINVAL, "net: forward '%.*s' is not like tcp:HOSTPORT:GUESTPORT or udp:HOSTPORT:GUESTPORT",
                       net_word_shown(w), w->at);
    if (n->port.kind != NET_USER)
        return err_set(err, EINVAL, "net: forward belongs to user networking: write it like user,forward=tcp:2222:22");
    if (n->port.forwards == NET_FORWARDS)
        return err_set(err, EINVAL, "net: forward was given more than %d times", NET_FORWARDS);
    n->port.forward[n->port.forwards++] = f;
    return 0;
}

static int config_net_mac(struct config_net *n, const struct net_word *w, struct err *err)
{
    char text[18] = "";
    int used = 0;

    if (w->len == 17)
        memcpy(text, w->at, 17);
    if (sscanf(text, "%2hhx:%2hhx:%2hhx:%2hhx:%2hhx:%2hhx%n", &n->mac[0], &n->mac[1], &n->mac[2], &n->mac[3],
               &n->mac[4], &n->mac[5], &used) != 6 ||
        used != 17 || strspn(text, "0123456789abcdefABCDEF:") != 17)
        return err_set(err, EINVAL, "net: mac '%.*s' is not like 52:54:00:12:34:56", net_word_shown(w), w->at);
    if (n->mac[0] & 1)
        return err_set(err, EINVAL, "net: mac '%.*s' is a group's address: the first byte must be even",
                       net_word_shown(w), w->at);
    n->has_mac = true;
    return 0;
}

static int config_net_queues(struct config_net *n, const struct net_word *w, struct err *err)
{
    if (w->len != 1 || *w->at < '1' || *w->at > '0' + VIRTIO_NET_PAIRS)
        return err_set(err, EINVAL, "net: queues '%.*s' is not a number from 1 to %d", net_word_shown(w), w->at,
                       VIRTIO_NET_PAIRS);
    n->queues = (unsigned)(*w->at - '0');
    return 0;
}

/* If the word is one of the rates: 1, or -EINVAL with a sentence; else 0. */
static int config_net_rate(struct config_net *n, const struct net_word *w, struct err *err)
{
    const struct {
        const char *key, *like;
        struct limit_rate *rate;
    } rates[] = { { "rx-bps", "10M", &n->rx.bytes }, { "rx-pps", "5000", &n->rx.ops },
                  { "tx-bps", "10M", &n->tx.bytes }, { "tx-pps", "5000", &n->tx.ops } };
    struct net_word value;
    char text[65];

    for (size_t i = 0; i < ARRAY_LEN(rates); i++) {
        if (!net_word_value(w, rates[i].key, &value))
            continue;
        snprintf(text, sizeof(text), "%.*s", net_word_shown(&value), value.at);
        if (value.len < sizeof(text) && config_parse_rate(text, rates[i].rate) == 0)
            return 1;
        return err_set(err, EINVAL, "net: %s '%s' is not a rate: write it like %s, or SIZE:MILLISECONDS", rates[i].key, text,
                       rates[i].like);
    }
    return 0;
}

/* The name of an interface or of a switch. */
static int config_net_name(struct config_net *n, const struct net_word *w, const char *what, size_t max,
                           struct err *err)
{
    size_t good = 0;

    while (good < w->len && (isalnum((unsigned char)w->at[good]) || strchr("._-", w->at[good])))
        good++;
    if (!w->len || w->len > max || good != w->len || *w->at == '.' || *w->at == '-')
        return err_set(err, EINVAL, "net: %s '%.*s' is not 1 to %zu letters, digits, '.', '_' or '-'", what,
                       net_word_shown(w), w->at, max);
    memcpy(n->port.name, w->at, w->len);
    n->port.name[w->len] = 0;
    return 0;
}

static int config_net_kind(struct config_net *n, const struct net_word *w, struct err *err)
{
    struct net_word value;

    if (net_word_is(w, "none"))
        n->port.kind = NET_NONE;
    else if (net_word_is(w, "user"))
        n->port.kind = NET_USER;
    else if (net_word_is(w, "tap"))
        n->port.kind = NET_TAP;
    else if (net_word_is(w, "switch") || net_word_is(w, "switch="))
        return err_set(err, EINVAL, "net: the switch has no name: write it like switch=lan");
    else if (net_word_value(w, "switch", &value)) {
        n->port.kind = NET_SWITCH;
        return config_net_name(n, &value, "switch", NET_NAME_MAX, err);
    } else
        return err_set(err, EINVAL, "net '%.*s' is unknown: " NET_USAGE, net_word_shown(w), w->at);
    return 0;
}

static int config_net_word(struct config_net *n, const struct net_word *w, struct err *err)
{
    struct net_word value;
    int r = config_net_rate(n, w, err);

    if (r)
        return r < 0 ? r : 0;
    if (net_word_value(w, "forward", &value))
        return config_net_forward(n, &value, err);
    if (net_word_value(w, "mac", &value))
        return config_net_mac(n, &value, err);
    if (net_word_value(w, "queues", &value))
        return config_net_queues(n, &value, err);
    if (n->port.kind == NET_TAP && net_word_value(w, "ifname", &value))
        return config_net_name(n, &value, "ifname", 15, err);
    return err_set(err, EINVAL, "net: '%.*s' is unknown: use forward=, mac=, queues=, rx-bps=, rx-pps=, tx-bps= or tx-pps=, and ifname= for tap",
                   net_word_shown(w), w->at);
}

static int config_net_parse(struct config_net *n, const char *value, struct err *err)
{
    struct net_word w = { value, strcspn(value, ",") };
    int r = config_net_kind(n, &w, err);

    while (r == 0 && w.at[w.len]) {
        w.at += w.len + 1;
        w.len = strcspn(w.at, ",");
        r = config_net_word(n, &w, err);
    }
    if (r == 0 && n->port.kind == NET_TAP && !n->port.name[0])
        return err_set(err, EINVAL, "net: tap needs the name of its interface: write it like tap,ifname=tap0");
    return r;
}

int config_set_net(struct machine_config *c, const char *value, struct err *err)
{
    struct config_net *n;
    int r;

    if (c->nets == CONFIG_NETS)
        return err_set(err, EINVAL, "net was given more than %d times", CONFIG_NETS);
    n = calloc(1, sizeof(*n));
    if (!n)
        return err_set(err, ENOMEM, "out of memory");
    n->queues = 1;
    n->port.index = c->nets;
    r = config_net_parse(n, value, err);
    if (r < 0 || n->port.kind == NET_NONE) { /* none: no card at all */
        free(n);
        return r;
    }
    c->net[c->nets++] = n;
    return 0;
}

void config_free_nets(struct machine_config *c)
{
    while (c->nets)
        free(c->net[--c->nets]);
}
