/* The terminal of a verb that passes keys on as they are typed. */
#ifndef VITRO_CLI_TERMINAL_H
#define VITRO_CLI_TERMINAL_H

#include <stdbool.h>
#include <termios.h>

struct terminal {
    struct termios saved;
    bool raw; /* saved is what it was before */
};

/* Standard input without echo, lines or signals, if it is a terminal. newlines: what is printed still ends its lines with a plain newline. */
void terminal_raw(struct terminal *t, bool newlines);
/* As it was; once is enough. */
void terminal_give_back(struct terminal *t);

#endif
