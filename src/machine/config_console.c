/* --virtio-console WHERE[,name=NAME]: from text to struct config_console, and what the choice of consoles
 * means for COM1 and the kernel's command line.
 *
 * Thread: whoever builds the machine; no locks.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "machine/config.h"

bool config_is_serial(const char *where)
{
    return !strcmp(where, "stdio") || !strcmp(where, "none") || !strcmp(where, "pty") ||
           !strcmp(where, "control") ||
           (!strncmp(where, "file:", 5) && where[5]) || (!strncmp(where, "unix:", 5) && where[5]);
}

static int config_console_name(const struct machine_config *c, const char *name, struct err *err)
{
    size_t len = strlen(name);

    if (!len || len > CONFIG_PORT_NAME_MAX ||
        strspn(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-") != len)
        return err_set(err, EINVAL,
                       "virtio-console: name '%.80s' is not 1 to %d letters, digits, '.', '_' or '-'", name,
                       CONFIG_PORT_NAME_MAX);
    for (unsigned n = 0; n < c->consoles; n++) {
        if (c->console[n].name && !strcmp(c->console[n].name, name))
            return err_set(err, EINVAL, "virtio-console: two ports cannot both be called '%s'", name);
    }
    return 0;
}

int config_set_console(struct machine_config *c, const char *value, struct err *err)
{
    const char *name = NULL;
    struct config_console p;
    size_t len = strlen(value);

    for (const char *at = strstr(value, ",name="); at; at = strstr(at + 1, ",name=")) {
        name = at + 6; /* the last one: a path may hold anything */
        len = (size_t)(at - value);
    }
    if (c->consoles == CONFIG_CONSOLES)
        return err_set(err, EINVAL, "virtio-console was given more than %d times", CONFIG_CONSOLES);
    if (name && config_console_name(c, name, err) < 0)
        return -EINVAL;
    p.where = strndup(value, len);
    p.name = name ? strdup(name) : NULL;
    if (!p.where || (name && !p.name) || !config_is_serial(p.where)) {
        int r =
            p.where && (!name || p.name)
                ? err_set(err, EINVAL,
                          "virtio-console '%s' is unknown: use stdio, none, file:PATH, unix:PATH, pty or control, and "
                          ",name=NAME for a port that is no console",
                          value)
                : err_set(err, ENOMEM, "out of memory");
        free(p.where);
        free(p.name);
        return r;
    }
    c->console[c->consoles++] = p;
    return 0;
}

void config_free_consoles(struct machine_config *c)
{
    while (c->consoles > 0) {
        struct config_console *p = &c->console[--c->consoles];

        free(p->where);
        free(p->name);
    }
}

/* Where a person is, or will be: on the terminal, or at the control socket. */
static bool config_is_manned(const char *where)
{
    return !strcmp(where, "stdio") || !strcmp(where, "control");
}

/* A console of the guest's is on the terminal. */
static bool config_console_stdio(const struct machine_config *c)
{
    for (unsigned n = 0; n < c->consoles; n++) {
        if (config_is_manned(c->console[n].where))
            return true;
    }
    return false;
}

const char *config_serial(const struct machine_config *c, unsigned n)
{
    if (n < c->serials)
        return c->serial[n];
    return n == 0 && !config_console_stdio(c) ? "stdio" : "none";
}

const char *config_cmdline(const struct machine_config *c)
{
    if (c->cmdline)
        return c->cmdline;
    for (unsigned n = 0; n < c->consoles; n++) {
        if (config_is_manned(c->console[n].where) && !c->console[n].name)
            return "console=hvc0";
    }
    return "console=ttyS0";
}

int config_check_stdio(const struct machine_config *c, struct err *err)
{
    unsigned stdio = 0;

    for (unsigned n = 0; n < CONFIG_SERIALS; n++)
        stdio += !strcmp(config_serial(c, n), "stdio");
    for (unsigned n = 0; n < c->consoles; n++)
        stdio += !strcmp(c->console[n].where, "stdio");
    if (stdio > 1 && c->consoles)
        return err_set(err, EINVAL,
                       "stdio can be the end of one port only: give the others another --serial or "
                       "--virtio-console");
    if (stdio > 1)
        return err_set(err, EINVAL,
                       "two serial ports cannot both be on stdio: give one of them another --serial");
    return 0;
}
