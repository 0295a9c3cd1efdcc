/* Raw terminal, console keys, and handlers that give the terminal back when vitro itself crashes. See
 * console.h. */
#include "machine/console.h"

#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/bits.h"

#define CONSOLE_STACK_SIZE 65536

/* For the crash handlers: the console whose terminal is raw, or NULL. */
static struct console *_Atomic console_active;

static const int console_fatal[] = { SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGABRT, SIGTRAP, SIGSYS };

/* Only async-signal-safe calls. */
void console_rescue(void)
{
    struct console *c = atomic_load(&console_active);

    if (c)
        tcsetattr(STDIN_FILENO, TCSANOW, &c->saved);
}

/* The default action then ends the process and reports the signal. */
static void console_crashed(int sig)
{
    console_rescue();
    signal(sig, SIG_DFL);
    raise(sig);
}

/* Before the engine puts handlers of its own in front, which pass on what is not their guest's doing. */
static void console_catch(void)
{
    struct sigaction sa = { .sa_handler = console_crashed, .sa_flags = SA_ONSTACK | SA_NODEFER }, old;

    sigemptyset(&sa.sa_mask);
    for (size_t i = 0; i < ARRAY_LEN(console_fatal); i++) {
        if (sigaction(console_fatal[i], NULL, &old) == 0 && !(old.sa_flags & SA_SIGINFO) &&
            old.sa_handler == SIG_DFL)
            sigaction(console_fatal[i], &sa, NULL);
    }
}

void console_init(struct console *c, void (*command)(void *opaque, enum console_command cmd), void *opaque)
{
    memset(c, 0, sizeof(*c));
    c->command = command;
    c->opaque = opaque;
    console_catch();
    c->is_terminal = isatty(STDIN_FILENO) && tcgetattr(STDIN_FILENO, &c->saved) == 0;
}

void console_enter(struct console *c)
{
    struct termios raw;

    if (!c->is_terminal || tcgetpgrp(STDIN_FILENO) != getpgrp())
        return;
    raw = c->saved;
    cfmakeraw(&raw);
    raw.c_oflag |= OPOST; /* our own lines on stderr end with a plain newline */
    raw.c_cc[VMIN] = 1;
    raw.c_cc[VTIME] = 0;
    atomic_store(&console_active, c);
    c->active = tcsetattr(STDIN_FILENO, TCSADRAIN, &raw) == 0;
}

void console_leave(struct console *c)
{
    if (!c->active)
        return;
    tcsetattr(STDIN_FILENO, TCSADRAIN, &c->saved);
    c->active = false;
    atomic_store(&console_active, NULL);
}

static void console_help(void)
{
    static const char text[] = "\nvitro: console keys, after Ctrl-]:\n"
                               "  ?       this list\n"
                               "  q       quit: the machine is gone at once, as if its power failed\n"
                               "  p       pause, and go on again\n"
                               "  r       reset\n"
                               "  o       press the power button\n"
                               "  b       send a break on the serial line\n"
                               "  s       say how the machine is\n"
                               "  c       say what the CPUs counted so far\n"
                               "  S       save the machine to the file of --save\n"
                               "  Ctrl-]  send Ctrl-] itself to the guest\n";

    fputs(text, stderr);
}

static void console_key(struct console *c, uint8_t key)
{
    switch (key) {
    case 'q':
        c->command(c->opaque, CONSOLE_QUIT);
        break;
    case 'p':
        c->command(c->opaque, CONSOLE_PAUSE);
        break;
    case 'r':
        c->command(c->opaque, CONSOLE_RESET);
        break;
    case 'o':
        c->command(c->opaque, CONSOLE_POWER);
        break;
    case 'b':
        c->command(c->opaque, CONSOLE_BREAK);
        break;
    case 's':
        c->command(c->opaque, CONSOLE_STATUS);
        break;
    case 'c':
        c->command(c->opaque, CONSOLE_COUNTERS);
        break;
    case 'S':
        c->command(c->opaque, CONSOLE_SAVE);
        break;
    case 'd':
        fputs("\nvitro: detach is not supported yet\n", stderr);
        break;
    default:
        console_help();
        break;
    }
}

size_t console_filter(void *opaque, uint8_t *data, size_t len)
{
    struct console *c = opaque;
    size_t kept = 0;

    for (size_t i = 0; i < len; i++) {
        bool escape = data[i] == CONSOLE_ESCAPE;

        if (!c->escaped && escape) {
            c->escaped = true;
        } else if (c->escaped && !escape) {
            c->escaped = false;
            console_key(c, data[i]);
        } else {
            c->escaped = false;
            data[kept++] = data[i];
        }
    }
    return kept;
}

void *console_stack_init(void)
{
    stack_t ss = { .ss_size = CONSOLE_STACK_SIZE };

    ss.ss_sp = mmap(NULL, CONSOLE_STACK_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (ss.ss_sp == MAP_FAILED)
        return NULL;
    if (sigaltstack(&ss, NULL) == 0)
        return ss.ss_sp;
    munmap(ss.ss_sp, CONSOLE_STACK_SIZE);
    return NULL;
}

void console_stack_fini(void *stack)
{
    stack_t off = { .ss_flags = SS_DISABLE };

    if (!stack)
        return;
    sigaltstack(&off, NULL);
    munmap(stack, CONSOLE_STACK_SIZE);
}
