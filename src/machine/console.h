/* The terminal that a machine runs on: raw while the guest runs, and always given back.
 *
 * The terminal belongs to the process, so at most one console is active at a time; the handlers for crashes
 * of vitro itself need that one fact in a static variable (console.c), the only one beside the log's.
 *
 * Thread: the machine's thread. console_filter() with the device lock held.
 */
#ifndef VITRO_MACHINE_CONSOLE_H
#define VITRO_MACHINE_CONSOLE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <termios.h>

#define CONSOLE_ESCAPE 0x1d /* Ctrl-] */

enum console_command {
    CONSOLE_QUIT,
    CONSOLE_PAUSE, /* or go on */
    CONSOLE_RESET,
    CONSOLE_POWER, /* press the power button */
    CONSOLE_BREAK, /* a break condition on the serial line */
    CONSOLE_STATUS,
    CONSOLE_COUNTERS, /* of the CPUs */
    CONSOLE_SAVE,
};

struct console {
    bool active;      /* the terminal is raw now */
    bool wanted;      /* a serial port is on stdio */
    bool is_terminal; /* stdin is one, and ours */
    bool escaped;     /* Ctrl-] was the last byte */
    struct termios saved;
    void (*command)(void *opaque, enum console_command cmd); /* must only note what is to be done */
    void *opaque;
};

/* Look at stdin, and install the handlers for crashes (before engine_init()). command is called from
 * console_filter(). Does not change the terminal. */
void console_init(struct console *c, void (*command)(void *opaque, enum console_command cmd), void *opaque);

/* Make the terminal raw. Nothing if stdin is not a terminal or vitro is in its background. */
void console_enter(struct console *c);
/* Give the terminal back. Idempotent. */
void console_leave(struct console *c);

/* From a signal handler, before the process ends: give the terminal back. */
void console_rescue(void);

/* Remove console keys from len bytes of input and act on them; returns how many bytes are left for the guest.
 */
size_t console_filter(void *opaque, uint8_t *data, size_t len);

/* A stack for the crash handlers on the calling thread, so that a stack overflow gives the terminal back too.
 * Freed by console_stack_fini() with what console_stack_init() returned (NULL: none). */
void *console_stack_init(void);
void console_stack_fini(void *stack);

#endif
