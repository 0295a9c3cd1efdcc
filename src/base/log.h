/* Log lines on stderr. Guest-driven messages go through log_guest(), which is rate-limited
 * so that no guest can flood the host (safety.md, invariant 5). Thread-safe. */
#ifndef VITRO_BASE_LOG_H
#define VITRO_BASE_LOG_H

enum log_level { LOG_ERROR, LOG_WARN, LOG_INFO, LOG_DEBUG };

/* Once, early: look whether stderr is a terminal. A thread in a sandbox could not ask. */
void log_init(void);

/* Messages above this level are dropped. Default LOG_WARN. */
void log_set_level(enum log_level level);

void log_msg(enum log_level level, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* As log_msg(LOG_DEBUG), for things that a guest can provoke: at most 100 lines a second, the
 * rest is counted and summed up. */
void log_guest(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

#endif
