/* The options of a machine: one table, its setters, and the checks that span options.
 *
 * Thread: whoever builds the machine; no locks.
 */
#include "machine/config.h"

#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/bits.h"
#include "base/err.h"
#include "engine/engine.h"
#include "ram/swap.h"

#define CONFIG_NAME_MAX    64
#define CONFIG_CMDLINE_MAX 65535

int config_parse_size(const char *text, uint64_t *out)
{
    static const char suffixes[] = "KMGT";
    const char *suffix;
    uint64_t v = 0;

    if (!isdigit((unsigned char)*text))
        return -EINVAL;
    for (; isdigit((unsigned char)*text); text++) {
        if (__builtin_mul_overflow(v, 10u, &v) || __builtin_add_overflow(v, (uint64_t)(*text - '0'), &v))
            return -ERANGE;
    }
    suffix = *text ? strchr(suffixes, toupper((unsigned char)*text)) : NULL;
    if (suffix) {
        unsigned shift = 10 * (unsigned)(suffix - suffixes + 1);

        if (v > UINT64_MAX >> shift)
            return -ERANGE;
        v <<= shift;
        text++;
        if (*text == 'i' && text[1] == 'B')
            text++;
    }
    if (*text == 'B')
        text++;
    if (*text)
        return -EINVAL;
    *out = v;
    return 0;
}

static int config_set_memory(struct machine_config *c, const char *value, struct err *err)
{
    uint64_t bytes = 0;
    int r = config_parse_size(value, &bytes);

    if (r == -EINVAL)
        return err_set(err, EINVAL, "memory '%s' is not a size: write it like 512M or 4G", value);
    if (r == -ERANGE || bytes > CONFIG_MEMORY_MAX)
        return err_set(err, EINVAL, "memory '%s' is more than the 1T that a machine can have", value);
    if (bytes < CONFIG_MEMORY_MIN)
        return err_set(err, EINVAL,
                       "memory '%s' is less than the 2M that a machine needs: write it like 512M or 4G",
                       value);
    if (bytes & 0xfffff)
        return err_set(err, EINVAL, "memory '%s' is not a multiple of 1M", value);
    c->memory = bytes;
    return 0;
}

static int config_set_cpus(struct machine_config *c, const char *value, struct err *err)
{
    char *end;
    unsigned long n;

    errno = 0;
    n = strtoul(value, &end, 10);
    if (!isdigit((unsigned char)*value) || *end || errno || n < 1 || n > MAX_VCPUS)
        return err_set(err, EINVAL, "cpus '%s' is not a number from 1 to %d", value, MAX_VCPUS);
    c->cpus = (unsigned)n;
    return 0;
}

static int config_set_timeout(struct machine_config *c, const char *value, struct err *err)
{
    char *end;
    double s;

    errno = 0;
    s = strtod(value, &end);
    if (!isdigit((unsigned char)*value) || *end || errno || !(s >= 0.001 && s <= 1e9))
        return err_set(err, EINVAL, "timeout '%s' is not a number of seconds: write it like 30 or 0.5",
                       value);
    c->timeout_ns = (uint64_t)(s * 1e9);
    return 0;
}

static int config_set_serial(struct machine_config *c, const char *value, struct err *err)
{
    if (!config_is_serial(value))
        return err_set(err, EINVAL, "serial '%s' is unknown: use stdio, none, file:PATH, unix:PATH, pty or control",
                       value);
    if (c->serials == CONFIG_SERIALS)
        return err_set(err, EINVAL, "serial was given more than %d times: a machine has COM1 to COM4",
                       CONFIG_SERIALS);
    c->serial[c->serials] = strdup(value);
    if (!c->serial[c->serials])
        return err_set(err, ENOMEM, "out of memory");
    c->serials++;
    return 0;
}

static const struct {
    const char *name;
    unsigned bits;
} config_traces[] = {
    { "io", TRACE_IO },
    { "mmio", TRACE_MMIO },
    { "irq", TRACE_IRQ },
    { "exits", TRACE_EXITS },
    { "firmware", TRACE_FIRMWARE },
    { "stats", TRACE_STATS },
    { "stats=json", TRACE_STATS | TRACE_JSON },
    { "blocks", TRACE_BLOCKS },
    { "host", TRACE_BLOCKS | TRACE_HOST },
    { "all", TRACE_IO | TRACE_MMIO | TRACE_IRQ | TRACE_EXITS | TRACE_FIRMWARE | TRACE_STATS | TRACE_BLOCKS | TRACE_HOST },
};

static unsigned config_trace_bits(const char *word, size_t len)
{
    for (size_t i = 0; i < ARRAY_LEN(config_traces); i++) {
        if (strlen(config_traces[i].name) == len && !strncmp(config_traces[i].name, word, len))
            return config_traces[i].bits;
    }
    return 0;
}

static int config_set_trace(struct machine_config *c, const char *value, struct err *err)
{
    for (const char *p = value;;) {
        size_t len = strcspn(p, ",");
        unsigned bits = config_trace_bits(p, len);

        if (!bits)
            return err_set(err, EINVAL,
                           "trace '%.*s' is unknown: use blocks, host, exits, stats, stats=json, io, mmio, irq, firmware or all, "
                           "with commas between",
                           (int)(len > 64 ? 64 : len), p);
        c->trace |= bits;
        if (!p[len])
            return 0;
        p += len + 1;
    }
}

static int config_set_engine(struct machine_config *c, const char *value, struct err *err)
{
    static const char *const known[] = { "auto", "kvm", "dbt", "interp" };
    char *copy;

    for (size_t i = 0; i < ARRAY_LEN(known); i++) {
        if (strcmp(value, known[i]))
            continue;
        copy = strdup(value);
        if (!copy)
            return err_set(err, ENOMEM, "out of memory");
        free(c->engine);
        c->engine = copy;
        return 0;
    }
    return err_set(err, EINVAL, "engine '%s' is unknown: use auto, kvm, dbt or interp", value);
}

static int config_set_firmware(struct machine_config *c, const char *value, struct err *err)
{
    size_t len = strcspn(value, ",");
    const char *vars = value[len] ? value + len + 1 : NULL;
    char *name;

    if (!len)
        return err_set(err, EINVAL, "firmware '%s' has no name: use seabios, ovmf or a file", value);
    if (vars && (strncmp(vars, "vars=", 5) || !vars[5]))
        return err_set(err, EINVAL, "firmware: '%.80s' is unknown: the only option is vars=FILE", vars);
    name = strndup(value, len);
    vars = vars ? strdup(vars + 5) : NULL;
    if (!name || (value[len] && !vars)) {
        free(name);
        return err_set(err, ENOMEM, "out of memory");
    }
    free(c->firmware);
    free(c->firmware_vars);
    c->firmware = name;
    c->firmware_vars = (char *)vars;
    return 0;
}

static int config_set_swap(struct machine_config *c, const char *value, struct err *err)
{
    size_t len = strcspn(value, ",");
    const char *limit = value[len] ? value + len + 1 : NULL;
    uint64_t bytes = 0;
    char *path;

    if (!len)
        return err_set(err, EINVAL, "swap '%.80s' names no file", value);
    if (limit && strncmp(limit, "limit=", 6))
        return err_set(err, EINVAL, "swap: '%.80s' is unknown: the only option is limit=SIZE", limit);
    if (limit && (config_parse_size(limit + 6, &bytes) < 0 || bytes < RAM_SWAP_LIMIT_MIN))
        return err_set(err, EINVAL, "swap: limit '%.80s' is not a size of 8M or more: write it like 300M", limit + 6);
    path = strndup(value, len);
    if (!path)
        return err_set(err, ENOMEM, "out of memory");
    free(c->swap);
    c->swap = path;
    c->swap_limit = bytes;
    return 0;
}

static int config_set_name(struct machine_config *c, const char *value, struct err *err)
{
    size_t len = strlen(value);
    char *copy;

    if (!len || len > CONFIG_NAME_MAX || *value == '-' || *value == '.' ||
        strspn(value, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-") != len)
        return err_set(err, EINVAL, "name '%.80s' is not 1 to %d letters, digits, '.', '_' or '-'", value,
                       CONFIG_NAME_MAX);
    copy = strdup(value);
    if (!copy)
        return err_set(err, ENOMEM, "out of memory");
    free(c->name);
    c->name = copy;
    return 0;
}

static int config_set_seccomp(struct machine_config *c, const char *value, struct err *err)
{
    static const char *const modes[] = { [SANDBOX_ON] = "on", [SANDBOX_LOG] = "log", [SANDBOX_OFF] = "off" };

    for (unsigned n = 0; n < ARRAY_LEN(modes); n++) {
        if (!strcmp(value, modes[n])) {
            c->seccomp = (enum sandbox_mode)n;
            return 0;
        }
    }
    return err_set(err, EINVAL, "seccomp '%.64s' is unknown: use on, off or log", value);
}

static int config_set_display(struct machine_config *c, const char *value, struct err *err)
{
    if (strcmp(value, "none") && strcmp(value, "vga"))
        return err_set(err, EINVAL, "display '%.64s' is unknown: use none or vga", value);
    c->vga = !strcmp(value, "vga");
    return 0;
}

#define PARSED(fn)   .kind = CONFIG_PARSED, .parse = fn
#define MEMBER(k, m) .kind = k, .offset = offsetof(struct machine_config, m)

const struct config_key config_keys[] = {
    { "engine", "NAME", "what runs the CPUs: auto, or one that 'vitro version' lists", "auto kvm dbt interp",
      PARSED(config_set_engine) },
    { "cpu", "MODEL", "what CPU the guest sees: host, x86-64-v1 .. v4; then ,+NAME ,-NAME",
      "host x86-64-v1 x86-64-v2 x86-64-v3 x86-64-v4", MEMBER(CONFIG_TEXT, cpu) },
    { "cpus", "N", "number of virtual CPUs, 1 to 64", "1 2 4 8", PARSED(config_set_cpus) },
    { "memory", "SIZE", "guest memory, like 512M or 4G", "512M 1G 2G 4G", PARSED(config_set_memory) },
    { "kernel", "FILE", "bzImage, ELF with a PVH entry, or Multiboot 1 kernel", NULL,
      MEMBER(CONFIG_FILE, kernel) },
    { "initrd", "FILE", "initial RAM disk for the kernel", NULL, MEMBER(CONFIG_FILE, initrd) },
    { "cmdline", "TEXT", "the kernel's command line (Linux default: console=ttyS0)", NULL,
      MEMBER(CONFIG_TEXT, cmdline) },
    { "firmware", "NAME[,vars=FILE]", "seabios, ovmf or a ROM's file; vars keeps OVMF's variables", "seabios ovmf",
      PARSED(config_set_firmware) },
    { "serial", "WHERE", "stdio, none, file:PATH, unix:PATH, pty or control; again for COM2 ..",
      "stdio none file: unix: pty control", PARSED(config_set_serial), .repeatable = true },
    { "virtio-console", "WHERE", "hvc0 ..: as --serial; ,name=NAME: a port by that name",
      "stdio none file: unix: pty", PARSED(config_set_console), .repeatable = true },
    { "display", "WHAT", "none, or vga: a display card, see 'vitro screen'", "none vga", PARSED(config_set_display) },
    { "disk", "FILE[,OPT]", "disk image; options: format=, ro, ephemeral, backing=, bps=, iops= ..", NULL,
      PARSED(config_set_disk), .repeatable = true },
    { "share", "DIR[,OPT]", "folder for the guest; options: tag=, ro, cache=, owner=; repeatable", NULL,
      PARSED(config_set_share), .repeatable = true },
    { "cdrom", "FILE[,OPT]", "CD image (ISO 9660) in a SATA drive; options: bus=ahci|virtio, boot=N", NULL,
      PARSED(config_set_cdrom) },
    { "cloud-init", "USER[,META]", "user-data and meta-data for the guest, on a seed disk (NoCloud)", NULL,
      MEMBER(CONFIG_FILE, cloud_init) },
    { "net", "WHAT[,OPT]", "none, user[,forward=tcp:H:G], tap,ifname=IF, switch=NAME; mac=, rx-bps=",
      "none user user,forward=tcp: tap,ifname= switch=", PARSED(config_set_net), .repeatable = true },
    { "vsock", "path=PATH[,cid=N]", "sockets between guest and host (AF_VSOCK), at PATH and PATH_PORT", "path=",
      PARSED(config_set_vsock) },
    { "agent", NULL, "let 'vitro exec' in: a socket device, and an agent in the initrd", NULL,
      MEMBER(CONFIG_FLAG, agent) },
    { "name", "NAME", "what other verbs and messages call the machine", NULL, PARSED(config_set_name) },
    { "debug-exit", NULL, "a value v written to port 0xF4 ends with status (v<<1)|1", NULL,
      MEMBER(CONFIG_FLAG, debug_exit) },
    { "no-reboot", NULL, "end when the guest reboots; a triple fault then is status 126", NULL,
      MEMBER(CONFIG_FLAG, no_reboot) },
    { "timeout", "SECONDS", "end with status 124 after this time", NULL, PARSED(config_set_timeout) },
    { "trace", "WHAT", "tell blocks, host, exits, stats[=json], io, mmio, irq, firmware, all",
      "blocks host exits stats stats=json io mmio irq firmware all",
      PARSED(config_set_trace) },
    { "dedup", NULL, "let the host keep equal pages of machines once (a side channel)", NULL,
      MEMBER(CONFIG_FLAG, dedup) },
    { "swap", "FILE[,limit=SIZE]", "guest memory on a file of its own; limit: this much of it in memory", NULL,
      PARSED(config_set_swap) },
    { "seccomp", "MODE", "the sandbox: on, off, or log: a forbidden call is told and fails", "on off log",
      PARSED(config_set_seccomp) },
    { "detach", NULL, "run in the background: see 'vitro list', 'vitro console', 'vitro stop'", NULL,
      MEMBER(CONFIG_FLAG, detach) },
    { "gdb", "PORT", "", NULL, .kind = CONFIG_LATER },
    { .key = NULL },
};

const struct config_key *config_find(const char *key)
{
    for (const struct config_key *k = config_keys; k->key; k++) {
        if (!strcmp(k->key, key))
            return k;
    }
    return NULL;
}

int config_init(struct machine_config *c)
{
    memset(c, 0, sizeof(*c));
    c->cpus = 1;
    c->memory = 512ULL << 20;
    c->engine = strdup("auto");
    c->cpu = strdup("host");
    c->name = strdup(CONFIG_NAME_DEFAULT);
    if (c->engine && c->cpu && c->name)
        return 0;
    config_fini(c);
    return -ENOMEM;
}

void config_fini(struct machine_config *c)
{
    free(c->engine);
    free(c->cpu);
    free(c->name);
    free(c->kernel);
    free(c->initrd);
    free(c->cmdline);
    free(c->firmware);
    free(c->firmware_vars);
    for (unsigned i = 0; i < CONFIG_SERIALS; i++)
        free(c->serial[i]);
    free(c->cdrom);
    free(c->cloud_init);
    free(c->vsock_path);
    free(c->swap);
    config_free_disks(c);
    config_free_consoles(c);
    config_free_nets(c);
    config_free_shares(c);
    config_forget(c, NULL);
    memset(c, 0, sizeof(*c));
}

static int config_set_flag(struct machine_config *c, const struct config_key *k, const char *value,
                           struct err *err)
{
    bool on = !value || !strcmp(value, "true");

    if (!on && strcmp(value, "false"))
        return err_set(err, EINVAL, "%s takes no value", k->key);
    memcpy((char *)c + k->offset, &on, sizeof(on));
    return 0;
}

static int config_set_text(struct machine_config *c, const struct config_key *k, const char *value,
                           struct err *err)
{
    char **member = (char **)(void *)((char *)c + k->offset);
    char *copy;

    if (k->kind == CONFIG_FILE && !*value)
        return err_set(err, EINVAL, "%s is empty: give the name of a file", k->key);
    if (strlen(value) > CONFIG_CMDLINE_MAX)
        return err_set(err, EINVAL, "%s is longer than %d bytes", k->key, CONFIG_CMDLINE_MAX);
    copy = strdup(value);
    if (!copy)
        return err_set(err, ENOMEM, "out of memory");
    free(*member);
    *member = copy;
    return 0;
}

void config_forget(struct machine_config *c, const char *key)
{
    unsigned kept = 0;

    for (unsigned i = 0; i < c->givens; i++) {
        if (!key || !strcmp(c->given[i].key->key, key))
            free(c->given[i].value);
        else
            c->given[kept++] = c->given[i];
    }
    c->givens = kept;
    if (!key) {
        free(c->given);
        c->given = NULL;
    }
}

/* What was given, for whoever wants to write it down again. */
static int config_remember(struct machine_config *c, const struct config_key *k, const char *value, struct err *err)
{
    struct config_given *more;
    char *copy = strdup(value);

    if (!k->repeatable)
        config_forget(c, k->key);
    more = copy ? realloc(c->given, (c->givens + 1) * sizeof(*more)) : NULL;
    if (!more) {
        free(copy);
        return err_set(err, ENOMEM, "out of memory");
    }
    c->given = more;
    c->given[c->givens++] = (struct config_given){ .key = k, .value = copy };
    return 0;
}

int config_set(struct machine_config *c, const char *key, const char *value, struct err *err)
{
    const struct config_key *k = config_find(key);
    int r;

    if (!k)
        return err_set(err, EINVAL, "option '%.80s' is unknown: see 'vitro help run'", key);
    if (k->kind == CONFIG_LATER)
        return err_set(err, ENOTSUP, "option '%s' is not supported yet in this version", key);
    if (k->kind != CONFIG_FLAG && !value)
        return err_set(err, EINVAL, "option '%s' needs a value: %s", key, k->arg);
    if (k->kind == CONFIG_FLAG)
        r = config_set_flag(c, k, value, err);
    else if (k->kind == CONFIG_PARSED)
        r = k->parse(c, value, err);
    else
        r = config_set_text(c, k, value, err);
    return r < 0 ? r : config_remember(c, k, value ? value : "true", err);
}

int config_check(const struct machine_config *c, struct err *err)
{
    if (!c->kernel && !c->firmware)
        return err_set(err, EINVAL,
                       "there is nothing to run: give a kernel with --kernel FILE, or --firmware and a disk");
    if (!c->kernel && (c->initrd || c->cmdline))
        return err_set(err, EINVAL, "%s is for a kernel: give one with --kernel FILE",
                       c->initrd ? "initrd" : "cmdline");
    if (c->agent && c->kernel && !c->initrd)
        return err_set(err, EINVAL, "agent: a kernel that is given gets the agent in its initrd: add --initrd FILE");
    if (c->agent && c->cmdline && strstr(c->cmdline, "rdinit="))
        return err_set(err, EINVAL, "agent: the agent itself takes rdinit=: leave it out of the command line, or --agent");
    if (c->swap && c->dedup)
        return err_set(err, EINVAL, "dedup: the host merges no pages of a file: leave out either --dedup or --swap");
    return config_check_stdio(c, err);
}
