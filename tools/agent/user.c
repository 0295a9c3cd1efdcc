/* Who a program runs as: /etc/passwd and /etc/group, read by hand (the libc's way loads libraries, which a static program on an
 * unknown system must not). Source: passwd(5), group(5). Runs in the process of a connection. */
#include <errno.h>
#include <grp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "agent.h"

#define USER_FIELDS 7

/* Cut a line at its colons. Returns how many fields there are, at most n. */
static unsigned user_fields(char *line, char **field, unsigned n)
{
    unsigned have = 0;

    line[strcspn(line, "\n")] = '\0';
    while (line && have < n) {
        field[have++] = line;
        line = strchr(line, ':');
        if (line)
            *line++ = '\0';
    }
    return have;
}

static bool user_number(const char *text, unsigned *n)
{
    char *end;
    unsigned long v;

    errno = 0;
    v = strtoul(text, &end, 10);
    *n = (unsigned)v;
    return *text >= '0' && *text <= '9' && !*end && !errno && v < UINT32_MAX;
}

static void user_set(struct agent_user *u, char **f)
{
    unsigned uid = 0, gid = 0;

    if (!user_number(f[2], &uid) || !user_number(f[3], &gid))
        return;
    u->uid = uid;
    u->gid = gid;
    snprintf(u->name, sizeof(u->name), "%s", f[0]);
    snprintf(u->home, sizeof(u->home), "%s", *f[5] ? f[5] : "/");
    snprintf(u->shell, sizeof(u->shell), "%s", *f[6] ? f[6] : "/bin/sh");
}

/* The line whose name or number it is. */
static bool user_passwd(struct agent_user *u, const char *who)
{
    FILE *file = fopen("/etc/passwd", "re");
    char *line = NULL, *f[USER_FIELDS];
    bool found = false;
    size_t size = 0;

    while (file && !found && getline(&line, &size, file) > 0) {
        found = user_fields(line, f, USER_FIELDS) == USER_FIELDS && (!strcmp(f[0], who) || !strcmp(f[2], who));
        if (found)
            user_set(u, f);
    }
    free(line);
    if (file)
        fclose(file);
    return found;
}

static bool user_is_member(char *members, const char *name)
{
    char *save = NULL;

    for (char *m = strtok_r(members, ",", &save); m; m = strtok_r(NULL, ",", &save)) {
        if (!strcmp(m, name))
            return true;
    }
    return false;
}

static void user_groups(struct agent_user *u)
{
    FILE *file = fopen("/etc/group", "re");
    char *line = NULL, *f[4];
    size_t size = 0;
    unsigned gid;

    while (file && u->groups < AGENT_GROUPS && getline(&line, &size, file) > 0) {
        if (user_fields(line, f, 4) == 4 && user_number(f[2], &gid) && gid != u->gid && user_is_member(f[3], u->name))
            u->group[u->groups++] = gid;
    }
    free(line);
    if (file)
        fclose(file);
}

bool agent_user_find(struct agent_user *u, const char *who)
{
    unsigned id = 0;

    *u = (struct agent_user){ .name = "root", .home = "/root", .shell = "/bin/sh", .groups = 1 };
    if (!user_passwd(u, who)) {
        if (strcmp(who, "root") && !user_number(who, &id))
            return false;
        if (id) {
            snprintf(u->name, sizeof(u->name), "%u", id);
            strcpy(u->home, "/");
        }
        u->uid = u->gid = id;
    }
    u->group[0] = u->gid;
    user_groups(u);
    return true;
}

bool agent_user_become(const struct agent_user *u)
{
    return setgroups(u->groups, u->group) == 0 && setgid(u->gid) == 0 && setuid(u->uid) == 0;
}
