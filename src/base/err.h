/* User-facing errors: one sentence that says what was wrong, where, and what to do.
 *
 * Plumbing returns 0 or -errno. Functions at an edge that a user sees (command line,
 * configuration, files) also fill a struct err. A caller may always pass NULL.
 */
#ifndef VITRO_BASE_ERR_H
#define VITRO_BASE_ERR_H

struct err {
    char text[512]; /* NUL-terminated sentence without a newline; "" when nothing was set */
};

/* Fill e with a printf-style sentence and return -code, so that callers can write
 * `return err_set(e, EINVAL, "...")`. e may be NULL. code is a positive errno value. */
int err_set(struct err *e, int code, const char *fmt, ...) __attribute__((format(printf, 3, 4)));

/* Put "prefix: " before what e says already. e may be NULL. */
void err_prefix(struct err *e, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

#endif
