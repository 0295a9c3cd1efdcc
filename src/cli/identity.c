/* See identity.h. Linux reads a card's address only when its driver binds, and a host name is the guest's own affair: so a program in the guest
 * has to do it (tools/agent/identity.c). */
#include "cli/identity.h"

#include <ctype.h>
#include <errno.h>
#include <jansson.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "api/client.h"
#include "base/err.h"
#include "base/rand.h"
#include "cli/agent_link.h"

#define IDENTITY_HOST 63 /* letters of a host name (RFC 1035, 2.3.4) */

struct identity {
    char words[2048];
    size_t len;
};

static void identity_word(struct identity *i, char letter, const char *text)
{
    size_t len = strlen(text) + 2;

    if (len > sizeof(i->words) - i->len)
        return; /* more cards than a machine has */
    i->words[i->len] = letter;
    memcpy(i->words + i->len + 1, text, len - 1);
    i->len += len;
}

/* The machine's name, of letters that a host name may have. */
static void identity_host(struct identity *i, const char *name)
{
    char host[IDENTITY_HOST + 1];
    size_t n;

    for (n = 0; n < IDENTITY_HOST && name[n]; n++)
        host[n] = isalnum((unsigned char)name[n]) ? name[n] : '-';
    host[n] = 0;
    identity_word(i, WORD_HOST, host);
}

static void identity_cards(struct identity *i, const json_t *list)
{
    for (size_t n = 0; n < json_array_size(list); n++) {
        const json_t *card = json_array_get(list, n);
        const char *mac = json_string_value(json_object_get(card, "mac")), *own = json_string_value(json_object_get(card, "own_mac"));
        char text[64];

        if (!mac || !own || !strcmp(mac, own))
            continue;
        snprintf(text, sizeof(text), "%.17s %.17s", mac, own);
        identity_word(i, WORD_CARD, text);
    }
}

static int identity_seed(struct identity *i, struct err *err)
{
    struct rand_source source;
    uint8_t data[WIRE_SEED];
    char text[2 * WIRE_SEED + 1];
    int r;

    rand_init_host(&source);
    r = rand_bytes(&source, data, sizeof(data));
    if (r < 0)
        return err_set(err, -r, "there is no randomness: %s", strerror(-r));
    for (size_t n = 0; n < sizeof(data); n++)
        snprintf(text + 2 * n, 3, "%02x", data[n]);
    identity_word(i, WORD_SEED, text);
    return 0;
}

/* 0, or -errno with a sentence. */
static int identity_send(const struct identity *i, struct wire *w, int ms, struct err *err)
{
    size_t len;
    int r = wire_send(w, WIRE_IDENTITY, i->words, i->len, ms);

    if (r == 0)
        r = wire_wait(w, ms);
    if (r == 1 && wire_type(w) == WIRE_EXIT && wire_data(w, &len) && len == 1 && !*wire_data(w, &len))
        return 0;
    agent_link_failed(w, r, err);
    return -EIO;
}

int identity_tell(const char *name, unsigned seconds, struct err *err)
{
    static struct wire w;
    struct identity i = { .len = 0 };
    json_t *machine = NULL;
    int r = client_call(name, "GET", "/v1/machine", NULL, &machine, err);
    bool agent = json_is_true(json_object_get(json_object_get(machine, "config"), "agent"));

    identity_host(&i, name);
    identity_cards(&i, json_object_get(machine, "networks"));
    json_decref(machine);
    if (r < 0 || !agent)
        return r;
    r = identity_seed(&i, err);
    if (r == 0)
        r = agent_link(&w, name, seconds, err);
    if (r < 0)
        return r;
    r = identity_send(&i, &w, (int)seconds * 1000, err);
    close(w.fd);
    return r < 0 ? r : 1;
}
