/* Rates in options: SIZE[:MS[:BURST]] is SIZE bytes (or requests, or packets) in MS milliseconds, 1000 by default, and BURST more once.
 *
 * Thread: whoever builds the machine; no locks.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "machine/config.h"

#define RATE_MS 1000 /* by default */

int config_parse_rate(const char *text, struct limit_rate *out)
{
    uint64_t part[3] = { 0, RATE_MS, 0 };
    char copy[80], *rest = copy, *word;

    if (strlen(text) >= sizeof(copy))
        return -EINVAL;
    strcpy(copy, text);
    for (unsigned n = 0; (word = strsep(&rest, ":")); n++) {
        if (n == 3 || config_parse_size(word, &part[n]) < 0)
            return -EINVAL;
    }
    *out = (struct limit_rate){ .size = part[0], .burst = part[2], .ms = (uint32_t)part[1] };
    return part[0] && part[1] == out->ms && limit_rate_ok(out) ? 0 : -EINVAL;
}

void config_rate_text(const struct limit_rate *r, char *out, size_t size)
{
    snprintf(out, size, "%" PRIu64 ":%u:%" PRIu64, r->size, r->ms, r->burst);
}
