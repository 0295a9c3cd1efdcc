/* What a machine is made of: every option of `vitro run`, as text from the command line or from a JSON file.
 *
 * One table (config_keys) describes the options; the command line, the JSON reader, the help text and
 * the shell completion all come from it, so that they cannot disagree.
 */
#ifndef VITRO_MACHINE_CONFIG_H
#define VITRO_MACHINE_CONFIG_H

#include <limits.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "block/block.h"
#include "block/image.h"
#include "machine/sandbox.h"
#include "net/net.h"
#include "share/share.h"
#include "virtio/limit.h"

struct err;
struct json_t; /* jansson.h */

#define CONFIG_SERIALS    4
#define CONFIG_CONSOLES      8
#define CONFIG_PORT_NAME_MAX 31
#define CONFIG_DISKS      16
#define CONFIG_NAME_DEFAULT "vitro"
#define CONFIG_NETS       8
#define CONFIG_SHARES     8
#define CONFIG_MEMORY_MIN (2ULL << 20)
#define CONFIG_MEMORY_MAX (1ULL << 40)

/* --trace: what is told on stderr while the guest runs. */
enum {
    TRACE_IO = 1,    /* every port access */
    TRACE_MMIO = 2,  /* every access to a device's memory */
    TRACE_IRQ = 4,   /* every interrupt line and message */
    TRACE_EXITS = 8, /* every time that guest code needs the monitor, with the cause, and the machine's life */
    TRACE_STATS = 32,    /* the engine's counters, at the end */
    TRACE_BLOCKS = 64,   /* each translated block with the guest's code */
    TRACE_HOST = 128,    /* and the host's */
    TRACE_JSON = 256,    /* counters as JSON */
    TRACE_FIRMWARE = 16, /* what firmware writes to its debug console, port 0x402 */
};

#define CONFIG_SERIAL_MAX 20 /* what a virtio disk can tell (virtio 1.2, 5.2.6) */
#define CONFIG_QUEUES_MAX 16

#define CONFIG_TAG_MAX    36 /* what a virtio file system device can tell (virtio 1.2, 5.11.4) */

/* --share */
struct config_share {
    char *path;
    char tag[CONFIG_TAG_MAX + 1];
    bool ro, map;
    enum share_cache cache;
    uint32_t uid, gid; /* map */
};

/* --disk */
struct config_disk {
    char *path;
    enum image_format format;
    bool ro, ephemeral; /* not both */
    bool allow_backing; /* open the backing files that images name */
    unsigned backings;  /* named by the user: the first image's, the next one's ... */
    char *backing[IMAGE_CHAIN_MAX - 1];
    char serial[CONFIG_SERIAL_MAX + 1]; /* "": the default */
    unsigned queues;                    /* 0: the default */
    enum block_aio aio;
    struct limit_rates limit;
    unsigned boot; /* firmware tries the lowest number first; 0: after those, in the order given */
    uint64_t later; /* no option: not 0: it has so many bytes and comes later, see pc_set_disk() */
};

/* --virtio-console */
struct config_console {
    char *where; /* as for --serial */
    char *name;  /* NULL: a console */
};

/* --net; none makes no entry */
struct config_net {
    struct net_config port;
    unsigned queues; /* pairs */
    struct limit_rates rx, tx;
    bool has_mac;
    uint8_t mac[6];
};

/* All strings are owned by the struct; NULL means not given. */
struct machine_config {
    char *engine; /* "auto", "interp" ...: checked against what is built in when the machine is created */
    char *cpu;    /* CPU model: "host", "x86-64-v1" ... */
    char *name;
    char *kernel, *initrd, *cmdline;
    char *firmware;      /* "seabios", "ovmf" or a file */
    char *firmware_vars; /* where OVMF's variables are kept */
    char *serial[CONFIG_SERIALS]; /* COM1..COM4 */
    unsigned serials;             /* how many --serial were given */
    struct config_console console[CONFIG_CONSOLES];
    unsigned consoles;
    struct config_disk disk[CONFIG_DISKS];
    unsigned disks;
    struct config_share share[CONFIG_SHARES];
    unsigned shares;
    char *cdrom;
    bool cdrom_virtio;   /* a virtio disk instead of a drive */
    unsigned cdrom_boot; /* as config_disk.boot */
    char *cloud_init; /* USER-DATA[,META-DATA], see seed.c */
    struct config_net *net[CONFIG_NETS]; /* owned */
    unsigned nets;
    char *vsock_path; /* NULL: no virtio socket device */
    uint32_t vsock_cid;
    uint64_t memory;              /* bytes */
    uint64_t timeout_ns;          /* host time; 0: none */
    unsigned cpus;
    unsigned trace; /* TRACE_* */
    bool vga; /* --display */
    bool debug_exit, no_reboot, detach, agent;
    char *swap;          /* the monitor's swap file; NULL: none */
    uint64_t swap_limit; /* bytes of guest memory that may be in the host's; 0: the host decides */
    bool dedup;      /* guest memory may be shared with other machines' by its contents */
    bool disks_late; /* no option: disks that are written are opened later, see pc_open_disks() */
    enum sandbox_mode seccomp;
    struct config_given *given; /* in the order given; the last one of those that do not repeat */
    unsigned givens;
};

/* An option as it was given: config_to_json() makes a configuration of them again. */
struct config_given {
    const struct config_key *key;
    char *value; /* owned; flags: "true" or "false" */
};

enum config_kind { CONFIG_FLAG, CONFIG_TEXT, CONFIG_FILE, CONFIG_PARSED, CONFIG_LATER };

struct config_key {
    const char *key;     /* without the dashes */
    const char *arg;     /* what the help calls the value; NULL: a flag without value */
    const char *help;    /* one line, without a full stop */
    const char *choices; /* space-separated values for completion, or NULL */
    enum config_kind kind;
    size_t offset; /* CONFIG_FLAG, CONFIG_TEXT, CONFIG_FILE: the member */
    int (*parse)(struct machine_config *c, const char *value, struct err *err); /* CONFIG_PARSED */
    bool repeatable;
};

/* Ends with a NULL key. CONFIG_LATER: part of the contract, but this version refuses it. */
extern const struct config_key config_keys[];

/* The key's entry, or NULL. */
const struct config_key *config_find(const char *key);

/* Defaults: engine auto, cpu host, one vCPU, 512 MiB, COM1 on stdio. Returns 0 or -ENOMEM. */
int config_init(struct machine_config *c);
void config_fini(struct machine_config *c);

/* Set one option from text; value is NULL for a flag (true), or "true"/"false". A later value replaces an
 * earlier one; --serial, --disk, --share and --net collect instead. 0, or -EINVAL/-ENOMEM with a sentence in err. */
int config_set(struct machine_config *c, const char *key, const char *value, struct err *err);

/* Forget what was given for key (NULL: for all), not what it did. */
void config_forget(struct machine_config *c, const char *key);

/* config_overlay.c: disk n becomes a qcow2 overlay at path over the image that it was, as if --disk had said so. begin: 0, and
 * one of the others follows; or -errno with a sentence. commit cannot fail. */
struct config_overlay {
    struct config_disk *disk;
    struct config_given *given;
    char *path, *text;
};
int config_overlay_begin(struct config_overlay *o, struct machine_config *c, unsigned n, const char *path, struct err *err);
void config_overlay_commit(struct config_overlay *o);
/* Disk n is a copy now, at path, that needs no backing files: the same as --disk would have to say. 0 or -errno with a sentence. */
int config_move_disk(struct machine_config *c, unsigned n, const char *path, struct err *err);
void config_overlay_abort(struct config_overlay *o);
/* Disk n does without the backing file that was named as number `at` of its own: it is part of the one above now. 0 or -errno with a sentence. */
int config_forget_backing(struct machine_config *c, unsigned n, unsigned at, struct err *err);

/* Set options from a JSON object whose keys are the options' names. Values: strings, integers, booleans, and
 * for repeatable options arrays of strings. The file is at most 1 MiB. 0 or -errno with a sentence in err. */
int config_load_json(struct machine_config *c, const char *path, struct err *err);

/* The same from an object that is in memory, and an object with what was given (a new reference, or NULL: out of
 * memory), which makes the same configuration. */
int config_apply_json(struct machine_config *c, const struct json_t *root, struct err *err);
struct json_t *config_to_json(const struct machine_config *c);

/* The same from len bytes of text; name is for messages. */
int config_load_text(struct machine_config *c, const char *text, size_t len, const char *name, struct err *err);

/* Make every path in an object with the keys of `vitro run` absolute. 0 or -errno. */
int config_absolute(struct json_t *root); /* config_dump.c */
/* The first len bytes of a path, from the root on. 0 or -errno. */
int config_whole_path(const char *path, size_t len, char out[PATH_MAX]);

/* Everything that was set, as such an object, with absolute paths: a machine like this one can be made from it in
 * another folder. To be freed; NULL: no memory, or there is no current folder. */
char *config_dump(const struct machine_config *c); /* config_dump.c */

/* Check what belongs together once everything is set. 0, or -EINVAL with a sentence in err. */
int config_check(const struct machine_config *c, struct err *err);

/* config_share.c: the same for --share. */
int config_set_share(struct machine_config *c, const char *value, struct err *err);
void config_free_shares(struct machine_config *c);

/* config_limit.c: a rate as options have it, SIZE[:MS[:BURST]]. 0 or -EINVAL. And such a text of a rate that limits something. */
int config_parse_rate(const char *text, struct limit_rate *out);
void config_rate_text(const struct limit_rate *r, char *out, size_t size);

/* config_disk.c: --disk and --cdrom for the table, and what config_fini() does about it. */
int config_set_disk(struct machine_config *c, const char *value, struct err *err);
int config_set_cdrom(struct machine_config *c, const char *value, struct err *err);
void config_free_disks(struct machine_config *c);

/* config_console.c: the same for --virtio-console; what a port's back end may be called; no two ends on
 * stdio. */
int config_set_console(struct machine_config *c, const char *value, struct err *err);
void config_free_consoles(struct machine_config *c);
bool config_is_serial(const char *where);
int config_check_stdio(const struct machine_config *c, struct err *err);

/* config_vsock.c: the same for --vsock; and the device of --agent, when there is no --vsock: its socket is in folder, which is open.
 * 0 or -errno with a sentence. */
int config_set_vsock(struct machine_config *c, const char *value, struct err *err);
int config_agent_vsock(struct machine_config *c, int folder, struct err *err);

/* config_net.c: the same for --net. */
int config_set_net(struct machine_config *c, const char *value, struct err *err);
void config_free_nets(struct machine_config *c);

/* "512M", "4G", "1048576": bytes in *out. Suffixes K, M, G, T (powers of 1024), optionally followed by "iB"
 * or "B". 0, -EINVAL (not a size) or -ERANGE (more than 64 bits). */
int config_parse_size(const char *text, uint64_t *out);

/* What COM n (0..3) is connected to: "stdio", "none" ... */
const char *config_serial(const struct machine_config *c, unsigned n);
/* The command line of a Linux kernel: what was given, or the console that is on stdio. */
const char *config_cmdline(const struct machine_config *c);

#endif
