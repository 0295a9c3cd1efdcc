/* Requests by http_parser, with our own bounds around it. See http.h.
 *
 * http_parser's own limit of a header is a global of the library; ours counts what was fed before the head was whole.
 */
#include "api/http.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/bits.h"

/* Note why the request is refused, and stop the parser. */
static int http_refuse(struct http_request *h, int status)
{
    h->status = status;
    return -1;
}

/* -- the parser's calls: 0 to go on -- */

static int http_on_url(http_parser *p, const char *at, size_t len)
{
    struct http_request *h = p->data;

    if (len > HTTP_TARGET_MAX - h->target_len)
        return http_refuse(h, 414);
    for (size_t i = 0; i < len; i++) {
        if (at[i] <= ' ' || at[i] > '~')
            return http_refuse(h, 400);
        h->target[h->target_len++] = at[i];
    }
    h->target[h->target_len] = 0;
    return 0;
}

/* A header is whole: only two matter here, the rest the parser has looked at. */
static void http_header(struct http_request *h)
{
    h->field[h->field_len] = 0;
    h->value[h->value_len] = 0;
    if (!strcasecmp(h->field, "expect"))
        h->expects = !strcasecmp(h->value, "100-continue");
    else if (!strcasecmp(h->field, "upgrade"))
        memcpy(h->upgrade, h->value, sizeof(h->upgrade));
    h->field_len = h->value_len = 0;
    h->in_value = false;
}

/* What does not fit cannot be one of those that matter: a full buffer compares unequal. */
static void http_append(char *buf, size_t size, size_t *used, const char *at, size_t len)
{
    size_t room = size - 1 - *used, n = len < room ? len : room;

    memcpy(buf + *used, at, n);
    *used += n;
}

static int http_on_field(http_parser *p, const char *at, size_t len)
{
    struct http_request *h = p->data;

    if (h->in_value)
        http_header(h);
    http_append(h->field, sizeof(h->field), &h->field_len, at, len);
    return 0;
}

static int http_on_value(http_parser *p, const char *at, size_t len)
{
    struct http_request *h = p->data;

    h->in_value = true;
    http_append(h->value, sizeof(h->value), &h->value_len, at, len);
    return 0;
}

/* 1: there is no body, whatever follows (it is another protocol's). */
static int http_on_head(http_parser *p)
{
    struct http_request *h = p->data;

    if (h->in_value)
        http_header(h);
    h->head_done = true;
    h->keep_alive = http_should_keep_alive(p);
    h->method = http_method_str((enum http_method)p->method);
    if (h->target[0] != '/') {
        http_refuse(h, 400);
        return -1;
    }
    if (p->content_length != UINT64_MAX && p->content_length > HTTP_BODY_MAX) {
        http_refuse(h, 413);
        return -1;
    }
    if (!p->upgrade)
        h->upgrade[0] = 0;
    return 0;
}

static int http_on_body(http_parser *p, const char *at, size_t len)
{
    struct http_request *h = p->data;

    if (len > HTTP_BODY_MAX - h->len)
        return http_refuse(h, 413);
    if (!h->body)
        h->body = malloc(HTTP_BODY_MAX + 1);
    if (!h->body)
        return http_refuse(h, 503);
    memcpy(h->body + h->len, at, len);
    h->len += len;
    h->body[h->len] = 0;
    return 0;
}

static int http_on_whole(http_parser *p)
{
    struct http_request *h = p->data;

    h->complete = true;
    http_parser_pause(p, 1); /* what follows is the next request's */
    return 0;
}

static const http_parser_settings http_calls = {
    .on_url = http_on_url,
    .on_header_field = http_on_field,
    .on_header_value = http_on_value,
    .on_headers_complete = http_on_head,
    .on_body = http_on_body,
    .on_message_complete = http_on_whole,
};

/* -- the outside -- */

void http_init(struct http_request *h)
{
    memset(h, 0, sizeof(*h));
    http_parser_init(&h->parser, HTTP_REQUEST);
    h->parser.data = h;
}

void http_fini(struct http_request *h)
{
    free(h->body);
    h->body = NULL;
}

void http_reset(struct http_request *h)
{
    http_fini(h);
    http_init(h);
}

/* The path is what stands before the '?'. */
static enum http_state http_finish(struct http_request *h)
{
    char *mark = strchr(h->target, '?');

    if (mark) {
        *mark = 0;
        h->query = mark + 1;
    }
    return h->state = HTTP_WHOLE;
}

enum http_state http_feed(struct http_request *h, const char *data, size_t len, size_t *used)
{
    bool head = h->head_done;
    enum http_errno why;

    *used = 0;
    if (h->state == HTTP_BAD || h->state == HTTP_WHOLE)
        return h->state;
    *used = http_parser_execute(&h->parser, &http_calls, data, len);
    why = HTTP_PARSER_ERRNO(&h->parser);
    if (why != HPE_OK && why != HPE_PAUSED) {
        if (!h->status)
            h->status = why == HPE_HEADER_OVERFLOW ? 431 : 400;
        return h->state = HTTP_BAD;
    }
    h->head_len += head ? 0 : *used;
    if (!h->head_done && h->head_len > HTTP_HEAD_MAX) {
        h->status = 431;
        return h->state = HTTP_BAD;
    }
    if (h->complete)
        return http_finish(h);
    if (h->head_done && h->expects && !h->told) {
        h->told = true;
        return h->state = HTTP_CONTINUE;
    }
    return h->state = HTTP_MORE;
}

static const struct {
    int status;
    const char *reason;
} http_reasons[] = {
    { 101, "Switching Protocols" },
    { 200, "OK" },
    { 204, "No Content" },
    { 400, "Bad Request" },
    { 401, "Unauthorized" },
    { 403, "Forbidden" },
    { 404, "Not Found" },
    { 405, "Method Not Allowed" },
    { 408, "Request Timeout" },
    { 409, "Conflict" },
    { 413, "Content Too Large" },
    { 414, "URI Too Long" },
    { 426, "Upgrade Required" },
    { 431, "Request Header Fields Too Large" },
    { 500, "Internal Server Error" },
    { 501, "Not Implemented" },
    { 503, "Service Unavailable" },
};

const char *http_reason(int status)
{
    for (size_t i = 0; i < ARRAY_LEN(http_reasons); i++) {
        if (http_reasons[i].status == status)
            return http_reasons[i].reason;
    }
    return "Unknown";
}

size_t http_head(char *buf, size_t size, int status, const char *type, size_t len, bool keep_alive)
{
    int n = snprintf(buf, size, "HTTP/1.1 %d %s\r\nServer: vitro\r\nConnection: %s\r\n", status, http_reason(status),
                     keep_alive ? "keep-alive" : "close");

    if (status != 204)
        n += snprintf(buf + n, size - (size_t)n, "Content-Length: %zu\r\n", len);
    if (type && len)
        n += snprintf(buf + n, size - (size_t)n, "Content-Type: %s\r\n", type);
    n += snprintf(buf + n, size - (size_t)n, "\r\n");
    return (size_t)n;
}
