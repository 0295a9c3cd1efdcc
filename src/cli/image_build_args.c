/* The options of vitro image build, and what it needs of the host. Everything is checked here: the script
 * puts these values into command lines and files of the guest.
 *
 * Thread: the main thread.
 */
#include <ctype.h>
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/bits.h"
#include "base/err.h"
#include "cli/cli.h"
#include "cli/image_build.h"
#include "machine/config.h"

#define BUILD_SIZE_MIN (1ULL << 30)
#define BUILD_SIZE_MAX (16ULL << 40) /* of ext4 with blocks of 4 KiB */

static const struct build_option {
    const char *name;
    bool text; /* has a value; else it is a flag */
    size_t offset;
} build_options[] = {
    { "-o", true, offsetof(struct build_args, out) },
    { "--output", true, offsetof(struct build_args, out) },
    { "--format", true, offsetof(struct build_args, format_text) },
    { "--size", true, offsetof(struct build_args, size_text) },
    { "--suite", true, offsetof(struct build_args, suite) },
    { "--mirror", true, offsetof(struct build_args, mirror) },
    { "--packages", true, offsetof(struct build_args, packages) },
    { "--hostname", true, offsetof(struct build_args, host) },
    { "--user", true, offsetof(struct build_args, user) },
    { "--ssh-key", true, offsetof(struct build_args, keys) },
    { "--password-hash", true, offsetof(struct build_args, hash) },
    { "--kernel-out", true, offsetof(struct build_args, kernel_out) },
    { "--initrd-out", true, offsetof(struct build_args, initrd_out) },
    { "--force", false, offsetof(struct build_args, force) },
    { "--json", false, offsetof(struct build_args, json) },
};

/* One word, and maybe the next. How many words it took, or -errno. */
static int build_word(struct build_args *a, char **argv, struct err *err)
{
    if (argv[0][0] != '-') {
        if (a->distribution)
            return err_set(err, EINVAL, "'image build' takes no word '%.80s': see 'vitro help image'",
                           argv[0]);
        a->distribution = argv[0];
        return 1;
    }
    for (size_t i = 0; i < ARRAY_LEN(build_options); i++) {
        const struct build_option *o = &build_options[i];
        size_t len = strlen(o->name);
        const char *value = NULL;

        if (strncmp(argv[0], o->name, len) || (argv[0][len] && (argv[0][len] != '=' || len == 2 || !o->text)))
            continue;
        if (!o->text) {
            *(bool *)((char *)a + o->offset) = true;
            return 1;
        }
        value = argv[0][len] == '=' ? argv[0] + len + 1 : argv[1];
        if (!value)
            return err_set(err, EINVAL, "option '%s' needs a value: see 'vitro help image'", o->name);
        *(const char **)((char *)a + o->offset) = value;
        return argv[0][len] == '=' ? 1 : 2;
    }
    return err_set(err, EINVAL, "'image build' does not know '%.80s': see 'vitro help image'", argv[0]);
}

/* Only letters, digits and those of more; begins with a lower-case letter, a digit, or one of first. */
static bool build_is_name(const char *s, const char *first, const char *more, size_t max)
{
    size_t len = strlen(s);

    if (!len || len > max || !(islower((unsigned char)*s) || isdigit((unsigned char)*s) || strchr(first, *s)))
        return false;
    for (; *s; s++) {
        if (!isalnum((unsigned char)*s) && !strchr(more, *s))
            return false;
    }
    return true;
}

static int build_check_packages(const char *list, struct err *err)
{
    while (list && *list) {
        size_t len = strcspn(list, ",");
        char name[128];

        snprintf(name, sizeof(name), "%.*s", (int)(len < 127 ? len : 127), list);
        if (len > 100 || !build_is_name(name, "", "+-.:", 100))
            return err_set(err, EINVAL, "'%.100s' is no name of a package: write them like vim,curl", name);
        list += len;
        list += *list == ',';
    }
    return 0;
}

/* The file must hold public keys: a private one by mistake must not end up in an image. */
static int build_check_keys(const char *path, struct err *err)
{
    char line[16384];
    unsigned keys = 0;
    FILE *f = fopen(path, "r");

    if (!f)
        return err_set(err, errno, "the ssh key '%.200s' cannot be read: %s", path, strerror(errno));
    while (fgets(line, sizeof(line), f)) {
        if (strstr(line, "PRIVATE KEY")) {
            fclose(f);
            return err_set(err, EINVAL, "'%.200s' is a private key: give the public one, often '%.200s.pub'",
                           path, path);
        }
        keys += strstr(line, "ssh-") || strstr(line, "ecdsa-") || strstr(line, "sk-");
    }
    fclose(f);
    return keys ? 0 : err_set(err, EINVAL, "'%.200s' holds no public ssh key", path);
}

static int build_check_login(const struct build_args *a, struct err *err)
{
    if (!build_is_name(a->host, "ABCDEFGHIJKLMNOPQRSTUVWXYZ", "-", 63))
        return err_set(err, EINVAL, "'%.80s' is no name of a machine: use letters, digits and dashes",
                       a->host);
    if (a->user && (isdigit((unsigned char)*a->user) || !build_is_name(a->user, "_", "_-", 32)))
        return err_set(err, EINVAL, "'%.80s' is no name of a user: use small letters, digits and dashes",
                       a->user);
    if (a->hash && (*a->hash != '$' || strpbrk(a->hash, ": \n\t") || strlen(a->hash) > 500))
        return err_set(err, EINVAL,
                       "the password must be given as its hash, like $6$...: 'openssl passwd -6' makes one");
    return a->keys ? build_check_keys(a->keys, err) : 0;
}

static int build_check_size(struct build_args *a, struct err *err)
{
    if (config_parse_size(a->size_text, &a->size) < 0 || a->size < BUILD_SIZE_MIN || a->size > BUILD_SIZE_MAX)
        return err_set(err, EINVAL, "'%.60s' is no size of a disk: use 1G to 16T, like 4G", a->size_text);
    a->size = ALIGN_UP(a->size, 1ULL << 20);
    return 0;
}

/* What would otherwise be found out only after minutes. */
static int build_check_files(const struct build_args *a, struct err *err)
{
    const char *file[] = { a->out, a->kernel_out, a->initrd_out };

    for (size_t i = 0; i < ARRAY_LEN(file); i++) {
        char folder[PATH_SIZE];
        char *slash;

        if (!file[i])
            continue;
        if (!a->force && access(file[i], F_OK) == 0)
            return err_set(err, EEXIST, "'%.300s' exists already; --force replaces it", file[i]);
        snprintf(folder, sizeof(folder), "%s", file[i]);
        slash = strrchr(folder, '/');
        if (slash)
            slash[slash == folder] = 0;
        if (access(slash ? folder : ".", W_OK) < 0)
            return err_set(err, errno, "'%.300s' cannot be made: %s", file[i], strerror(errno));
    }
    return 0;
}

static int build_check(struct build_args *a, struct err *err)
{
    if (!a->distribution || strcmp(a->distribution, "debian"))
        return err_set(err, EINVAL, "say what to build: vitro image build debian -o FILE.qcow2");
    a->format = a->format_text ? image_format_named(a->format_text) : image_format_suffix(a->out);
    if (a->format == IMAGE_FORMAT_NONE)
        return err_set(err, EINVAL, "'%.200s': its name does not say its format: add --format raw or qcow2",
                       a->out);
    if (!build_is_name(a->suite, "", "-.", 40))
        return err_set(err, EINVAL, "'%.60s' is no name of a suite: use one like bookworm", a->suite);
    if (a->mirror && (!strstr(a->mirror, ":/") || strpbrk(a->mirror, " \t\n[]")))
        return err_set(err, EINVAL, "'%.200s' is no address of a mirror: use one like http://HOST/debian",
                       a->mirror);
    if (build_check_size(a, err) < 0 || build_check_packages(a->packages, err) < 0 ||
        build_check_login(a, err) < 0 || build_check_files(a, err) < 0)
        return -EINVAL;
    return 0;
}

int build_parse(struct build_args *a, int argc, char **argv, struct err *err)
{
    *a = (struct build_args){
        .out = "debian.qcow2", .size_text = "4G", .suite = "bookworm", .host = "debian", .json = false
    };
    for (int i = 0; i < argc; i++)
        a->json |= !strcmp(argv[i], "--json");
    for (int i = 0; i < argc;) {
        int words = build_word(a, argv + i, err); /* argv ends with NULL */

        if (words < 0)
            return words;
        i += words;
    }
    return build_check(a, err);
}

/* --- the host --- */

int build_find_script(char *path, size_t size, struct err *err)
{
    static const char *const places[] = { "/../tools/image/debian", "/../share/vitro/image/debian" };
    char self[PATH_MAX];
    ssize_t len = readlink("/proc/self/exe", self, sizeof(self) - 1);
    char *slash;

    self[len > 0 ? len : 0] = 0;
    slash = strrchr(self, '/');
    if (slash)
        *slash = 0;
    for (size_t i = 0; slash && i < ARRAY_LEN(places); i++) {
        snprintf(path, size, "%s%s", self, places[i]);
        if (access(path, R_OK) == 0)
            return 0;
    }
    snprintf(path, size, "%s/image/debian", VITRO_DATADIR);
    if (access(path, R_OK) == 0)
        return 0;
    return err_set(err, ENOENT, "the script '%.300s' is missing: install vitro with 'ninja install'", path);
}

static bool build_has_program(const char *name)
{
    const char *path = getenv("PATH");
    char *copy = NULL, *rest, *folder, file[PATH_SIZE];
    bool found = false;

    if (asprintf(&copy, "%s:/usr/sbin:/sbin", path ? path : "/usr/bin:/bin") < 0)
        return false;
    for (rest = copy; !found && (folder = strsep(&rest, ":"));) {
        snprintf(file, sizeof(file), "%s/%s", folder, name);
        found = access(file, X_OK) == 0;
    }
    free(copy);
    return found;
}

int build_need_programs(struct err *err)
{
    static const struct {
        const char *name, *package;
        bool root_too;
    } need[] = {
        { "mmdebstrap", "mmdebstrap", true },
        { "mke2fs", "e2fsprogs", true },
        { "mcopy", "mtools", true },
        { "sfdisk", "fdisk", true },
        { "grub-mkimage", "grub-common", true },
        { "/usr/lib/grub/i386-pc/boot.img", "grub-pc-bin", true },
        { "/usr/lib/grub/x86_64-efi/moddep.lst", "grub-efi-amd64-bin", true },
        { "fakeroot", "fakeroot", false },
    };
    char missing[256] = "";

    for (size_t i = 0; i < ARRAY_LEN(need); i++) {
        size_t len = strlen(missing);
        bool has = *need[i].name == '/' ? access(need[i].name, R_OK) == 0 : build_has_program(need[i].name);

        if (!has && (need[i].root_too || getuid() != 0))
            snprintf(missing + len, sizeof(missing) - len, " %s", need[i].package);
    }
    return *missing
               ? err_set(err, ENOENT, "the build needs programs that are missing: apt-get install%s", missing)
               : 0;
}
