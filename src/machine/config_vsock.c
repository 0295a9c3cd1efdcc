/* --vsock path=PATH[,cid=N]: from text to the machine's virtio socket device.
 *
 *   path=PATH   where the host's programs connect; the guest's connections to port N go to PATH_N
 *   cid=N       the guest's address, 3 (the default) to 4294967294
 *
 * Thread: whoever builds the machine; no locks.
 */
#include <ctype.h>
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/err.h"
#include "machine/config.h"
#include "virtio/vsock.h"

#define VSOCK_PORT_TEXT sizeof("_4294967295")

static int config_vsock_cid(struct machine_config *c, const char *value, struct err *err)
{
    unsigned long long n;
    char *end;

    errno = 0;
    n = strtoull(value, &end, 10);
    if (!isdigit((unsigned char)*value) || *end || errno || n < VSOCK_CID_MIN || n > VSOCK_CID_MAX)
        return err_set(err, EINVAL, "vsock: cid '%.64s' is not a number from %d to %u", value, VSOCK_CID_MIN,
                       VSOCK_CID_MAX);
    c->vsock_cid = (uint32_t)n;
    return 0;
}

/* Absolute: whoever looks for the socket later may be in another folder. */
static int config_vsock_path(struct machine_config *c, const char *value, struct err *err)
{
    const size_t max = sizeof(((struct sockaddr_un *)0)->sun_path) - VSOCK_PORT_TEXT;
    char whole[PATH_MAX], *path;
    int r;

    if (!*value)
        return err_set(err, EINVAL, "vsock: path is empty: write it like path=/run/user/1000/guest.sock");
    r = config_whole_path(value, strlen(value), whole);
    if (r < 0 && r != -ENAMETOOLONG)
        return err_set(err, -r, "vsock: the current folder's path cannot be had: %s", strerror(-r));
    if (r < 0 || strlen(whole) > max)
        return err_set(err, EINVAL, "vsock: the path '%.40s...' is longer than %zu bytes, which a socket's name with a port behind it may have",
                       r < 0 ? value : whole, max);
    path = strdup(whole);
    if (!path)
        return err_set(err, ENOMEM, "out of memory");
    free(c->vsock_path);
    c->vsock_path = path;
    return 0;
}

static int config_vsock_word(struct machine_config *c, const char *word, struct err *err)
{
    if (!strncmp(word, "cid=", 4))
        return config_vsock_cid(c, word + 4, err);
    if (!strncmp(word, "path=", 5))
        return config_vsock_path(c, word + 5, err);
    return err_set(err, EINVAL, "vsock: '%.64s' is unknown: use path= and cid=", word);
}

int config_set_vsock(struct machine_config *c, const char *value, struct err *err)
{
    char *text = strdup(value), *word = text, *next;
    int r = 0;

    if (!text)
        return err_set(err, ENOMEM, "out of memory");
    c->vsock_cid = VSOCK_CID_MIN;
    for (; r == 0 && word; word = next) {
        next = strchr(word, ',');
        if (next)
            *next++ = '\0';
        r = config_vsock_word(c, word, err);
    }
    free(text);
    if (r == 0 && !c->vsock_path)
        return err_set(err, EINVAL, "vsock: there is no path: write it like path=FILE,cid=3");
    return r;
}

int config_agent_vsock(struct machine_config *c, int folder, struct err *err)
{
    char link[64], path[PATH_MAX];
    ssize_t n;

    if (!c->agent || c->vsock_path)
        return 0;
    snprintf(link, sizeof(link), "/proc/self/fd/%d", folder);
    n = readlink(link, path, sizeof(path) - sizeof("/vsock"));
    if (n < 0)
        return err_set(err, errno, "agent: the machine has no folder of its own: %s; give --vsock path=FILE", strerror(errno));
    strcpy(path + n, "/vsock");
    c->vsock_cid = VSOCK_CID_MIN;
    return config_vsock_path(c, path, err);
}
