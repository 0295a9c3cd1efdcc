/* Raw keys from standard input, and back. Thread: the main thread. */
#include "cli/terminal.h"

#include <unistd.h>

void terminal_raw(struct terminal *t, bool newlines)
{
    struct termios raw;

    if (!isatty(STDIN_FILENO) || tcgetattr(STDIN_FILENO, &t->saved) < 0)
        return;
    raw = t->saved;
    cfmakeraw(&raw);
    if (newlines)
        raw.c_oflag |= OPOST;
    t->raw = tcsetattr(STDIN_FILENO, TCSADRAIN, &raw) == 0;
}

void terminal_give_back(struct terminal *t)
{
    if (t->raw)
        tcsetattr(STDIN_FILENO, TCSADRAIN, &t->saved);
    t->raw = false;
}
