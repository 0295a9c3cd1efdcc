/* Log lines on stderr, one write(2) a line.
 *
 * The level and the guest budget belong to the process, as stderr does: they are the only state
 * that machines in one process share. Any thread may log; the budget's mutex is a leaf lock
 * (nothing is taken inside it), the line itself is written outside it.
 */
#include "base/log.h"

#include <errno.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define LOG_LINE_MAX      512
#define LOG_GUEST_PER_SEC 100

static _Atomic int log_level_now = LOG_WARN;
static _Atomic bool log_terminal; /* stderr is one */

/* Lines that guests caused in the current second of host time. */
static struct {
    pthread_mutex_t lock;
    time_t second;
    unsigned lines;
    unsigned long dropped;
} log_budget = { .lock = PTHREAD_MUTEX_INITIALIZER };

static const char *const log_names[] = {
    [LOG_ERROR] = "error",
    [LOG_WARN] = "warning",
    [LOG_INFO] = "info",
    [LOG_DEBUG] = "debug",
};

void log_init(void) { atomic_store(&log_terminal, isatty(STDERR_FILENO)); }

void log_set_level(enum log_level level) { atomic_store(&log_level_now, (int)level); }

static bool log_wanted(enum log_level level) { return (int)level <= atomic_load(&log_level_now); }

static void log_put(const char *s, size_t n)
{
    while (n > 0) {
        ssize_t done = write(STDERR_FILENO, s, n);

        if (done < 0 && errno == EINTR)
            continue;
        if (done <= 0)
            return; /* nowhere left to complain */
        s += done;
        n -= (size_t)done;
    }
}

static void log_line(enum log_level level, const char *fmt, va_list ap)
{
    char line[LOG_LINE_MAX + 2];
    int saved = errno, head, n;
    size_t len, i;

    head = snprintf(line, LOG_LINE_MAX, "vitro: %s: ", log_names[level]);
    n = vsnprintf(line + head, LOG_LINE_MAX - (size_t)head, fmt, ap);
    len = n < 0 ? (size_t)head : strlen(line);
    for (i = 0; i < len; i++) {
        if ((unsigned char)line[i] < 0x20 || line[i] == 0x7f)
            line[i] = '?'; /* a guest's string must not drive the terminal */
    }
    if (atomic_load(&log_terminal))
        line[len++] = '\r'; /* the console may have put the terminal into raw mode */
    line[len++] = '\n';
    log_put(line, len);
    errno = saved;
}

void log_msg(enum log_level level, const char *fmt, ...)
{
    va_list ap;

    if (!log_wanted(level))
        return;
    va_start(ap, fmt);
    log_line(level, fmt, ap);
    va_end(ap);
}

/* Take one line from this second's budget; *dropped gets what earlier seconds swallowed. */
static bool log_take(unsigned long *dropped)
{
    struct timespec ts;
    bool ok;

    clock_gettime(CLOCK_MONOTONIC, &ts);
    *dropped = 0;
    pthread_mutex_lock(&log_budget.lock);
    if (ts.tv_sec != log_budget.second) {
        *dropped = log_budget.dropped;
        log_budget.second = ts.tv_sec;
        log_budget.lines = 0;
        log_budget.dropped = 0;
    }
    ok = log_budget.lines < LOG_GUEST_PER_SEC;
    if (ok)
        log_budget.lines++;
    else
        log_budget.dropped++;
    pthread_mutex_unlock(&log_budget.lock);
    return ok;
}

void log_guest(const char *fmt, ...)
{
    unsigned long dropped;
    va_list ap;

    if (!log_wanted(LOG_DEBUG) || !log_take(&dropped))
        return;
    if (dropped > 0)
        log_msg(LOG_DEBUG, "%lu more lines caused by the guest were dropped", dropped);
    va_start(ap, fmt);
    log_line(LOG_DEBUG, fmt, ap);
    va_end(ap);
}
