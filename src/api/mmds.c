/* What the metadata service holds, and its answers to the guest. See fc_mmds.h. Requests are hostile and end where their bytes end: nothing of
 * them is taken for a string before it has been copied. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "api/fc_mmds.h"
#include "api/http.h"
#include "base/clock.h"

#define MMDS_PATH_MAX 1024
#define MMDS_DEPTH    64   /* of what is merged */
#define MMDS_HEAD     1024 /* bytes of an answer before the contents; the service's own texts fit as well */

void mmds_init(struct mmds *m)
{
    memset(m, 0, sizeof(*m));
    pthread_mutex_init(&m->lock, NULL);
    rand_init_host(&m->rand);
    m->server = (struct inner_server){ .ip = { 169, 254, 169, 254 }, .port = 80, .answer = mmds_answer, .opaque = m };
    mmds_limit(m, MMDS_SIZE);
}

void mmds_limit(struct mmds *m, uint32_t most)
{
    m->most = most;
    m->server.answer_max = most + MMDS_HEAD;
}

void mmds_fini(struct mmds *m)
{
    json_decref(m->contents);
    pthread_mutex_destroy(&m->lock);
}

/* ---- contents ---- */

static int mmds_check(const struct mmds *m, const json_t *contents)
{
    return json_dumpb(contents, NULL, 0, JSON_COMPACT | JSON_ENCODE_ANY) > m->most ? -E2BIG : 0;
}

/* Take contents over. */
static void mmds_set(struct mmds *m, json_t *contents)
{
    pthread_mutex_lock(&m->lock);
    json_decref(m->contents);
    m->contents = contents;
    pthread_mutex_unlock(&m->lock);
}

/* A copy each time: the guest's side must not share counts of references with the API's. */
int mmds_put(struct mmds *m, json_t *contents)
{
    json_t *copy;

    if (mmds_check(m, contents) < 0)
        return -E2BIG;
    copy = json_deep_copy(contents);
    if (!copy)
        return -ENOMEM;
    mmds_set(m, copy);
    return 0;
}

/* RFC 7396; to is an object. */
static int mmds_merge(json_t *to, const json_t *patch, unsigned depth)
{
    const char *key;
    json_t *v;
    int r = depth > MMDS_DEPTH ? -E2BIG : 0;

    json_object_foreach((json_t *)patch, key, v)
    {
        json_t *old = json_object_get(to, key);

        if (r < 0)
            break;
        if (json_is_null(v)) {
            json_object_del(to, key);
        } else if (json_is_object(v)) {
            if (!json_is_object(old)) {
                old = json_object();
                r = json_object_set_new(to, key, old) < 0 ? -ENOMEM : 0;
            }
            r = r < 0 ? r : mmds_merge(old, v, depth + 1);
        } else if (json_object_set_new(to, key, json_deep_copy(v)) < 0) {
            r = -ENOMEM;
        }
    }
    return r;
}

int mmds_patch(struct mmds *m, const json_t *patch)
{
    json_t *copy = m->contents ? json_deep_copy(m->contents) : NULL;
    int r = !m->contents ? -ENOENT : !copy ? -ENOMEM : mmds_merge(copy, patch, 0);

    if (r == 0)
        r = mmds_check(m, copy);
    if (r == 0)
        mmds_set(m, copy);
    else
        json_decref(copy);
    return r;
}

json_t *mmds_get(struct mmds *m) { return m->contents ? json_deep_copy(m->contents) : json_object(); }

/* ---- requests ---- */

struct mmds_request {
    const char *text, *end; /* of its head */
    char method[8], path[MMDS_PATH_MAX];
};

/* The answer: a head and a body of len bytes. */
static size_t mmds_reply(char *out, int status, const char *more, const char *body, size_t len)
{
    size_t n = (size_t)snprintf(out, 512, "HTTP/1.1 %d %s\r\n%sContent-Length: %zu\r\nConnection: close\r\n\r\n", status, http_reason(status), more, len);

    memcpy(out + n, body, len);
    return n + len;
}

static size_t mmds_say(char *out, int status, const char *more, const char *body)
{
    char head[256];

    snprintf(head, sizeof(head), "Content-Type: text/plain\r\n%s", more);
    return mmds_reply(out, status, head, body, strlen(body));
}

/* A header's value into buf. False: it is not there, or too long to be any good. */
static bool mmds_header(const struct mmds_request *q, const char *name, char *buf, size_t size)
{
    size_t len = strlen(name);

    for (const char *at = memchr(q->text, '\n', (size_t)(q->end - q->text)); at && ++at < q->end;
         at = memchr(at, '\n', (size_t)(q->end - at))) {
        const char *v = at + len + 1, *stop = memchr(at, '\r', (size_t)(q->end - at));

        if ((size_t)(q->end - at) <= len || at[len] != ':' || strncasecmp(at, name, len))
            continue;
        stop = stop ? stop : q->end;
        while (v < stop && (*v == ' ' || *v == '\t'))
            v++;
        while (stop > v && (stop[-1] == ' ' || stop[-1] == '\t'))
            stop--;
        if (v > stop || (size_t)(stop - v) >= size)
            return false;
        memcpy(buf, v, (size_t)(stop - v));
        buf[stop - v] = 0;
        return true;
    }
    return false;
}

/* The path, without a scheme and an authority before it, and a query behind it. */
static bool mmds_path(struct mmds_request *q, const char *at, size_t len)
{
    const char *query;

    if (len > 7 && !strncasecmp(at, "http://", 7)) {
        const char *slash = memchr(at + 7, '/', len - 7);

        len = slash ? len - (size_t)(slash - at) : 0;
        at = slash ? slash : at;
    } else if (!len || *at != '/') {
        return false;
    }
    query = memchr(at, '?', len);
    len = query ? (size_t)(query - at) : len;
    if (len >= sizeof(q->path) || memchr(at, 0, len))
        return false;
    memcpy(q->path, at, len);
    q->path[len] = 0;
    return true;
}

/* False: it is no request. */
static bool mmds_parse(struct mmds_request *q)
{
    const char *line = memchr(q->text, '\r', (size_t)(q->end - q->text)), *one, *two;

    line = line ? line : q->end;
    one = memchr(q->text, ' ', (size_t)(line - q->text));
    two = one ? memchr(one + 1, ' ', (size_t)(line - one - 1)) : NULL;
    if (!two || one == q->text || (size_t)(one - q->text) >= sizeof(q->method) || line - two != 9 || strncmp(two + 1, "HTTP/1.", 7))
        return false;
    memcpy(q->method, q->text, (size_t)(one - q->text));
    return mmds_path(q, one + 1, (size_t)(two - one - 1));
}

/* ---- tokens ---- */

static bool mmds_token_good(struct mmds *m, const char *text)
{
    uint64_t now = clock_host_ns(CLOCK_MONOTONIC);

    for (unsigned n = 0; n < MMDS_TOKENS; n++) {
        unsigned differs = strlen(text) != MMDS_TOKEN;

        for (unsigned i = 0; !differs && i < MMDS_TOKEN; i++)
            differs |= (unsigned)(text[i] ^ m->token[n].text[i]);
        if (!differs && m->token[n].end > now)
            return true;
    }
    return false;
}

static size_t mmds_make_token(struct mmds *m, unsigned long ttl, char *out)
{
    struct mmds_token *t = &m->token[m->next++ % MMDS_TOKENS];
    uint8_t raw[MMDS_TOKEN / 2];
    char text[MMDS_TOKEN + 1], head[128];

    if (rand_bytes(&m->rand, raw, sizeof(raw)) < 0)
        return mmds_say(out, 500, "", "");
    for (unsigned n = 0; n < sizeof(raw); n++)
        snprintf(text + 2 * n, 3, "%02x", raw[n]);
    memcpy(t->text, text, MMDS_TOKEN);
    t->end = clock_host_ns(CLOCK_MONOTONIC) + ttl * NSEC_PER_SEC;
    snprintf(head, sizeof(head), "X-metadata-token-ttl-seconds: %lu\r\n", ttl);
    return mmds_say(out, 200, head, text);
}

/* One of the two names that each of the headers has. */
static bool mmds_header_of(const struct mmds_request *q, const char *what, char *buf, size_t size)
{
    char name[64];

    snprintf(name, sizeof(name), "X-metadata-%s", what);
    if (mmds_header(q, name, buf, size))
        return true;
    snprintf(name, sizeof(name), "X-aws-ec2-metadata-%s", what);
    return mmds_header(q, name, buf, size);
}

static size_t mmds_put_token(struct mmds *m, const struct mmds_request *q, char *out)
{
    char ttl[16], forwarded[INNER_REQUEST], *end;
    unsigned long n;

    if (mmds_header(q, "X-Forwarded-For", forwarded, sizeof(forwarded)))
        return mmds_say(out, 400, "", "The request was forwarded by somebody (X-Forwarded-For).\n");
    if (strcmp(q->path, "/latest/api/token"))
        return mmds_say(out, 404, "", "PUT is for /latest/api/token only.\n");
    if (!mmds_header_of(q, "token-ttl-seconds", ttl, sizeof(ttl)))
        return mmds_say(out, 400, "", "X-metadata-token-ttl-seconds is missing.\n");
    n = strtoul(ttl, &end, 10);
    if (*ttl < '0' || *ttl > '9' || *end || n < 1 || n > MMDS_TTL_MAX)
        return mmds_say(out, 400, "", "X-metadata-token-ttl-seconds is not a number from 1 to 21600.\n");
    return mmds_make_token(m, n, out);
}

/* ---- what the guest gets ---- */

/* "~1" is "/", "~0" is "~" (RFC 6901). */
static void mmds_unescape(char *text)
{
    char *to = text;

    for (; *text; text++) {
        if (*text == '~' && (text[1] == '0' || text[1] == '1'))
            *to++ = *++text == '0' ? '~' : '/';
        else
            *to++ = *text;
    }
    *to = 0;
}

/* The value that a path leads to. NULL: none. More slashes than one are one. */
static const json_t *mmds_find(const json_t *at, char *path)
{
    char *rest = path, *word;

    while (at && (word = strsep(&rest, "/"))) {
        char *end = word;

        if (!*word)
            continue;
        mmds_unescape(word);
        if (json_is_array(at)) {
            unsigned long n = strtoul(word, &end, 10);

            at = *word >= '0' && *word <= '9' && !*end ? json_array_get(at, n) : NULL;
        } else {
            at = json_object_get(at, word);
        }
    }
    return at;
}

static int mmds_by_name(const void *a, const void *b) { return strcmp(*(const char *const *)a, *(const char *const *)b); }

/* An object as a list of its names, those of objects with a slash; a text as it is. NULL: it has no such form, or no memory. */
static char *mmds_text(const json_t *v)
{
    size_t count = json_object_size(v), n = 0, size = 0;
    const char **names, *key;
    char *out = NULL;
    json_t *sub;
    FILE *f;

    if (json_is_string(v))
        return strdup(json_string_value(v));
    names = json_is_object(v) ? malloc((count + 1) * sizeof(*names)) : NULL;
    f = names ? open_memstream(&out, &size) : NULL;
    if (f) {
        json_object_foreach((json_t *)v, key, sub)
            names[n++] = key;
        qsort(names, n, sizeof(*names), mmds_by_name);
        for (size_t i = 0; i < n; i++)
            fprintf(f, "%s%s%s", i ? "\n" : "", names[i], json_is_object(json_object_get(v, names[i])) ? "/" : "");
        fclose(f);
    }
    free(names);
    return out;
}

static size_t mmds_tell(const struct mmds *m, const struct mmds_request *q, const json_t *v, char *out)
{
    char accept[128];
    bool json = !m->imds && mmds_header(q, "Accept", accept, sizeof(accept)) && !strcasecmp(accept, "application/json");
    char *text = json ? json_dumps(v, JSON_COMPACT | JSON_ENCODE_ANY | JSON_SORT_KEYS) : mmds_text(v);
    size_t n;

    if (!text)
        return mmds_say(out, 501, "", "What is there cannot be told as text: ask for application/json.\n");
    n = strlen(text) > m->most ? mmds_say(out, 500, "", "") /* it cannot be: its JSON is longer */
                               : mmds_reply(out, 200, json ? "Content-Type: application/json\r\n" : "Content-Type: text/plain\r\n",
                                            text, strlen(text));
    free(text);
    return n;
}

static size_t mmds_get_value(struct mmds *m, struct mmds_request *q, char *out)
{
    const json_t *v;
    char token[128];

    if (m->v2 && !mmds_header_of(q, "token", token, sizeof(token)))
        return mmds_say(out, 401, "", "There is no session token: PUT /latest/api/token, and say it in X-metadata-token.\n");
    if (m->v2 && !mmds_token_good(m, token))
        return mmds_say(out, 401, "", "The session token is not valid (any more).\n");
    v = mmds_find(m->contents, q->path);
    return v ? mmds_tell(m, q, v, out) : mmds_say(out, 404, "", "There is no such metadata.\n");
}

static size_t mmds_serve(struct mmds *m, struct mmds_request *q, char *out)
{
    if (!mmds_parse(q))
        return mmds_say(out, 400, "", "This is not a request.\n");
    if (!strcmp(q->method, "GET"))
        return mmds_get_value(m, q, out);
    if (!strcmp(q->method, "PUT"))
        return mmds_put_token(m, q, out);
    return mmds_say(out, 405, "Allow: GET, PUT\r\n", "Only GET and PUT are known.\n");
}

size_t mmds_answer(void *opaque, const char *request, size_t len, char *out)
{
    const char *end = memmem(request, len, "\r\n\r\n", 4);
    struct mmds_request q = { .text = request, .end = end };
    struct mmds *m = opaque;
    size_t n;

    if (!end)
        return len < INNER_REQUEST ? 0 : mmds_say(out, 400, "", "The request is too long.\n");
    pthread_mutex_lock(&m->lock);
    n = mmds_serve(m, &q, out);
    pthread_mutex_unlock(&m->lock);
    return n;
}
