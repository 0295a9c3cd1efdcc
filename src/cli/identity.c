/* See identity.h. Linux reads a card's address only when its driver binds, and a host name is the guest's own affair: so a program in the guest
 * has to do it (tools/agent/identity.c). */
#include "cli/identity.h"

#include <ctype.h>
#include <errno.h>
#include <jansson.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "api/client.h"
#include "base/clock.h"
#include "base/err.h"
#include "base/rand.h"
#include "cli/agent_link.h"

#define IDENTITY_HOST    63 /* letters of a host name (RFC 1035, 2.3.4) */
#define IDENTITY_LOOK_MS 5

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

/* Random numbers come first: whatever else a guest does not take, it has those. */
static int identity_words(struct identity *i, const char *name, const json_t *machine, bool other, struct err *err)
{
    int r = identity_seed(i, err);

    if (other)
        identity_host(i, name);
    if (other)
        identity_cards(i, json_object_get(machine, "networks"));
    return r;
}

int identity_tell(const char *name, bool other, unsigned seconds, struct err *err)
{
    static struct wire w;
    struct identity i = { .len = 0 };
    json_t *machine = NULL;
    int r = client_call(name, "GET", "/v1/machine", NULL, &machine, err);
    bool agent = json_is_true(json_object_get(json_object_get(machine, "config"), "agent"));

    if (r == 0 && agent)
        r = identity_words(&i, name, machine, other, err);
    json_decref(machine);
    if (r < 0 || !agent)
        return r;
    r = agent_link(&w, name, seconds, err);
    if (r < 0)
        return r;
    r = identity_send(&i, &w, (int)seconds * 1000, err);
    close(w.fd);
    return r < 0 ? r : 1;
}

/* 1 and 0 as identity_await(), -EAGAIN: not yet, or -errno with a sentence. */
static int identity_heard(const char *name, struct err *err)
{
    json_t *machine = NULL;
    int r = client_call(name, "GET", "/v1/machine", NULL, &machine, err);
    const char *said = json_string_value(json_object_get(machine, "generation_id"));

    if (r == 0 && said && !strcmp(said, "pending"))
        r = -EAGAIN;
    else if (r == 0)
        r = said && !strcmp(said, "taken");
    json_decref(machine);
    return r;
}

int identity_await(const char *name, unsigned seconds, struct err *err)
{
    double end = clock_host_seconds(CLOCK_MONOTONIC) + seconds;
    int r;

    while ((r = identity_heard(name, err)) == -EAGAIN) {
        if (clock_host_seconds(CLOCK_MONOTONIC) > end)
            return err_set(err, ETIMEDOUT, "its kernel has not dealt with the new generation ID in %u seconds", seconds);
        usleep(IDENTITY_LOOK_MS * 1000);
    }
    return r;
}

void identity_settle(const char *name, bool other)
{
    struct err err = { "" }, unheard = { "its kernel has no driver for the generation ID, and there is no agent" };
    int r = identity_tell(name, other, IDENTITY_SECONDS, &err);

    if (r < 0 && other)
        fprintf(stderr, "vitro: the guest keeps its host name and network addresses: %s\n", err.text);
    else if (r < 0)
        fprintf(stderr, "vitro: the agent of '%s' does not take random numbers: %s\n", name, err.text);
    if (r <= 0 && identity_await(name, IDENTITY_SECONDS, &unheard) <= 0)
        fprintf(stderr, "vitro: the guest of '%s' goes on with the random numbers that it was saved with until its kernel reseeds by itself: %s\n", name, unheard.text);
}
