/* --share DIR[,OPTION]...: from text to struct config_share.
 *
 *   tag=TAG              what the guest mounts it by; default "share", "share1" ...
 *   ro                   the guest may only read
 *   cache=auto|none|always   how long the guest may believe what it has read
 *   owner=UID:GID        show what belongs to vitro's own user and group as these, and the other way round
 *
 * Thread: whoever builds the machine; no locks.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bits.h"
#include "base/err.h"
#include "machine/config.h"

static int config_share_tag(struct config_share *d, const char *tag, struct err *err)
{
    size_t len = strlen(tag);

    if (!len || len > CONFIG_TAG_MAX || strchr(tag, '/'))
        return err_set(err, EINVAL, "share '%s': tag '%.80s' is not 1 to %d characters without a slash", d->path, tag,
                       CONFIG_TAG_MAX);
    strcpy(d->tag, tag);
    return 0;
}

static int config_share_cache(struct config_share *d, const char *value, struct err *err)
{
    static const char *const names[] = {
        [SHARE_CACHE_AUTO] = "auto", [SHARE_CACHE_NONE] = "none", [SHARE_CACHE_ALWAYS] = "always"
    };

    for (unsigned i = 0; i < ARRAY_LEN(names); i++) {
        if (!strcmp(value, names[i])) {
            d->cache = (enum share_cache)i;
            return 0;
        }
    }
    return err_set(err, EINVAL, "share '%s': cache '%.64s' is unknown: use auto, none or always", d->path, value);
}

static int config_share_owner(struct config_share *d, const char *value, struct err *err)
{
    char rest;

    if (strspn(value, "0123456789:") != strlen(value) || strlen(value) > 21 ||
        sscanf(value, "%u:%u%c", &d->uid, &d->gid, &rest) != 2 || d->uid == UINT32_MAX || d->gid == UINT32_MAX)
        return err_set(err, EINVAL, "share '%s': owner '%.64s' is not UID:GID, like 1000:1000", d->path, value);
    d->map = true;
    return 0;
}

static int config_share_word(struct config_share *d, const char *word, struct err *err)
{
    if (!strncmp(word, "tag=", 4))
        return config_share_tag(d, word + 4, err);
    if (!strncmp(word, "cache=", 6))
        return config_share_cache(d, word + 6, err);
    if (!strncmp(word, "owner=", 6))
        return config_share_owner(d, word + 6, err);
    if (strcmp(word, "ro"))
        return err_set(err, EINVAL, "share '%s': '%.64s' is unknown: use tag=, ro, cache= or owner=", d->path, word);
    d->ro = true;
    return 0;
}

/* text is a copy of the option's value that may be cut up. */
static int config_share_parse(struct config_share *d, char *text, struct err *err)
{
    char *word = strchr(text, ','), *next;
    int r = 0;

    if (!*text || word == text)
        return err_set(err, EINVAL, "share '%s' names no folder: write it like DIR or DIR,ro", text);
    if (word)
        *word++ = '\0';
    d->path = strdup(text);
    if (!d->path)
        return err_set(err, ENOMEM, "out of memory");
    for (; r == 0 && word; word = next) {
        next = strchr(word, ',');
        if (next)
            *next++ = '\0';
        r = config_share_word(d, word, err);
    }
    return r;
}

static int config_share_place(const struct machine_config *c, struct config_share *d, struct err *err)
{
    if (!d->tag[0] && c->shares)
        snprintf(d->tag, sizeof(d->tag), "share%u", c->shares);
    else if (!d->tag[0])
        strcpy(d->tag, "share");
    for (unsigned n = 0; n < c->shares; n++) {
        if (!strcmp(c->share[n].tag, d->tag))
            return err_set(err, EINVAL, "share '%s': tag '%s' is taken by '%s': give it another with tag=", d->path,
                           d->tag, c->share[n].path);
    }
    return 0;
}

int config_set_share(struct machine_config *c, const char *value, struct err *err)
{
    struct config_share d = { .path = NULL };
    char *text;
    int r;

    if (c->shares == CONFIG_SHARES)
        return err_set(err, EINVAL, "share was given more than %d times", CONFIG_SHARES);
    text = strdup(value);
    if (!text)
        return err_set(err, ENOMEM, "out of memory");
    r = config_share_parse(&d, text, err);
    free(text);
    if (r == 0)
        r = config_share_place(c, &d, err);
    if (r < 0) {
        free(d.path);
        return r;
    }
    c->share[c->shares++] = d;
    return 0;
}

void config_free_shares(struct machine_config *c)
{
    for (unsigned n = 0; n < c->shares; n++)
        free(c->share[n].path);
    c->shares = 0;
}
