/* vitro image build: a bootable Debian disk. The distribution's own tools do the heavy work, in the script
 * tools/image/debian; here are its options, its progress, and the finished image.
 *
 * The script gets an empty folder of its own and leaves disk.raw, vmlinuz and initrd.img there. It runs in a
 * process group of its own: who interrupts vitro interrupts all of it, and the folder is gone afterwards.
 *
 * Thread: the main thread.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <jansson.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "agent/program.h"
#include "base/bits.h"
#include "base/clock.h"
#include "base/err.h"
#include "block/block.h"
#include "block/qcow2.h"
#include "cli/cli.h"
#include "cli/image_build.h"

#define BUILD_STEPS 7 /* lines of progress that the script says, the last being the disk's */

/* What was interrupted, for the parent to pass on. */
static volatile sig_atomic_t build_signal;

static void build_on_signal(int sig) { build_signal = sig; }

static void build_path(char *out, const char *work, const char *name)
{
    snprintf(out, PATH_SIZE, "%.3500s%.100s", work, name);
}

/* --- progress --- */

static void build_event(const struct build_args *a, unsigned step, const char *text)
{
    json_t *line;
    char *json;

    if (!a->json) {
        fprintf(stderr, "vitro: [%u/%d] %s\n", step, BUILD_STEPS + 1, text);
        return;
    }
    line = json_pack("{s:s, s:i, s:i, s:s}", "event", "progress", "step", (int)step, "steps", BUILD_STEPS + 1,
                     "what", text);
    json = line ? json_dumps(line, JSON_COMPACT) : NULL;
    if (json)
        fprintf(stderr, "%s\n", json);
    free(json);
    json_decref(line);
}

/* Lines of the script until it ends; the last one stays in what. */
static void build_follow(const struct build_args *a, int fd, pid_t pid, char *what, size_t size)
{
    FILE *f = fdopen(fd, "r");
    unsigned step = 0;
    char line[200];

    if (!f) {
        close(fd);
        return;
    }
    for (;;) {
        if (build_signal)
            kill(-pid, build_signal);
        if (!fgets(line, sizeof(line), f)) {
            if (!ferror(f) || errno != EINTR)
                break;
            clearerr(f);
            continue;
        }
        line[strcspn(line, "\n")] = 0;
        snprintf(what, size, "%s", line);
        build_event(a, ++step, line);
    }
    fclose(f);
}

/* --- the script --- */

static int build_setenv(const struct build_args *a, const char *work)
{
    char size[24];
    const struct {
        const char *name, *value;
    } var[] = {
        { "VI_WORK", work },        { "VI_SIZE", size },    { "VI_SUITE", a->suite },
        { "VI_MIRROR", a->mirror }, { "VI_HOST", a->host }, { "VI_PACKAGES", a->packages },
        { "VI_USER", a->user },     { "VI_KEYS", a->keys }, { "VI_HASH", a->hash },
    };
    int r = 0;

    snprintf(size, sizeof(size), "%" PRIu64, a->size);
    for (size_t i = 0; i < ARRAY_LEN(var); i++)
        r |= setenv(var[i].name, var[i].value ? var[i].value : "", 1);
    return r;
}

static void build_child(const struct build_args *a, const char *script, const char *work, int progress)
{
    int null = open("/dev/null", O_RDWR);

    setpgid(0, 0);
    signal(SIGPIPE, SIG_DFL);
    /* The pipe's end first: it may be descriptor 3 itself. */
    if (null < 0 || dup2(null, 0) < 0 || dup2(null, 1) < 0 || build_setenv(a, work))
        _exit(127);
    if (progress != 3 ? dup2(progress, 3) < 0 : fcntl(3, F_SETFD, 0) < 0)
        _exit(127);
    execl("/bin/sh", "sh", script, "build", (char *)NULL);
    _exit(127);
}

/* The last line of the log that begins with E:, else its last line. */
static void build_reason(const char *work, char *out, size_t size)
{
    char path[PATH_SIZE], line[300];
    bool error = false;
    FILE *f;

    build_path(path, work, "/log");
    snprintf(out, size, "the log is empty");
    f = fopen(path, "r");
    if (!f)
        return;
    while (fgets(line, sizeof(line), f)) {
        bool is_error = !strncmp(line, "E: ", 3);

        line[strcspn(line, "\n")] = 0;
        if (!*line || (error && !is_error) || !strncmp(line, "E: mmdebstrap ", 14) ||
            (!strncmp(line, "I: ", 3) && !error))
            continue;
        error |= is_error;
        snprintf(out, size, "%.220s", line + (is_error ? 3 : 0));
    }
    fclose(f);
}

/* The log survives the folder. */
static void build_keep_log(const char *work, char *kept)
{
    char path[PATH_SIZE];

    build_path(path, work, "/log");
    build_path(kept, work, ".log");
    if (rename(path, kept) < 0)
        *kept = 0;
}

static int build_run(const struct build_args *a, const char *script, const char *work, struct err *err)
{
    char what[200] = "starting", why[256], kept[PATH_SIZE];
    int end[2], status = 0;
    pid_t pid;

    if (pipe2(end, O_CLOEXEC) < 0)
        return err_set(err, errno, "cannot make a pipe: %s", strerror(errno));
    pid = fork();
    if (pid == 0)
        build_child(a, script, work, end[1]);
    close(end[1]);
    if (pid < 0) {
        close(end[0]);
        return err_set(err, EAGAIN, "cannot start the build: %s", strerror(errno));
    }
    setpgid(pid, pid);
    build_follow(a, end[0], pid, what, sizeof(what));
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR) {
        if (build_signal)
            kill(-pid, build_signal);
    }
    if (build_signal)
        return err_set(err, EINTR, "the build was interrupted; nothing is left of it");
    if (WIFEXITED(status) && WEXITSTATUS(status) == 0)
        return 0;
    build_reason(work, why, sizeof(why));
    build_keep_log(work, kept);
    return err_set(err, EIO, "the image could not be built (%.80s): %.200s; the whole log is %.150s", what,
                   why, kept);
}

/* --- results --- */

static int build_image(const struct build_args *a, const char *work, struct err *err)
{
    struct image_opts from = { .format = IMAGE_RAW, .ro = true }, to = { .format = a->format };
    struct image_new n = { .format = a->format, .size = a->size, .cluster_bits = QCOW2_CLUSTER_BITS };
    struct block *src, *dst = NULL;
    struct image_draft d;
    char path[PATH_SIZE];
    int r;

    build_path(path, work, "/disk.raw");
    if (image_open(&src, path, &from, err) < 0)
        return -EIO;
    r = image_draft_begin(&d, a->out, a->force, err);
    if (r == 0) {
        r = image_make(&d, &n, err);
        if (r == 0)
            r = image_open(&dst, d.open, &to, err);
        if (r == 0)
            r = image_copy(src, dst, a->format == IMAGE_QCOW2 ? BIT(n.cluster_bits) : 4096, NULL, err);
        block_close(dst);
        if (r == 0)
            r = image_draft_commit(&d, err);
        else
            image_draft_abort(&d);
    }
    block_close(src);
    return r;
}

/* One of the files that direct boot wants; out may be NULL. */
static int build_extra(const struct build_args *a, const char *work, const char *name, const char *out,
                       struct err *err)
{
    struct image_draft d;
    char path[PATH_SIZE];
    ssize_t n = 1;
    int fd, r;

    if (!out)
        return 0;
    build_path(path, work, name);
    fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return err_set(err, errno, "the build left no %s", name + 1);
    r = image_draft_begin(&d, out, a->force, err);
    if (r == 0) {
        while (n > 0)
            n = copy_file_range(fd, NULL, d.fd, NULL, 1 << 24, 0);
        if (n == 0) {
            r = image_draft_commit(&d, err);
        } else {
            r = err_set(err, errno, "'%s' cannot be written: %s", out, strerror(errno));
            image_draft_abort(&d);
        }
    }
    close(fd);
    return r;
}

static void build_tell(const struct build_args *a, double seconds)
{
    struct stat st = { .st_blocks = 0 };
    json_t *line;
    char *text;

    stat(a->out, &st);
    if (!a->json) {
        printf("%s: Debian %s, %" PRIu64 " MiB, %" PRIu64 " MiB on this disk, %.0f s\n", a->out, a->suite,
               a->size >> 20, (uint64_t)st.st_blocks >> 11, seconds);
        return;
    }
    line = json_pack("{s:s, s:s, s:s, s:I, s:I, s:f, s:s*, s:s*}", "image", a->out, "format",
                     image_format_name(a->format), "suite", a->suite, "bytes", (json_int_t)a->size,
                     "allocated", (json_int_t)st.st_blocks * 512, "seconds", seconds, "kernel", a->kernel_out,
                     "initrd", a->initrd_out);
    text = line ? json_dumps(line, JSON_INDENT(2)) : NULL;
    if (text)
        puts(text);
    free(text);
    json_decref(line);
}

/* --- all of it --- */

static void build_remove(const char *work)
{
    pid_t pid = fork();

    if (pid == 0) {
        execlp("rm", "rm", "-rf", "--one-file-system", "--", work, (char *)NULL);
        _exit(127);
    }
    while (pid > 0 && waitpid(pid, NULL, 0) < 0 && errno == EINTR) {
    }
}

/* The agent is part of this program; the image gets it as a file. */
static int build_agent(const char *work, struct err *err)
{
    size_t len = (size_t)(agent_program_end - agent_program);
    char path[PATH_SIZE];
    bool good;
    int fd;

    build_path(path, work, "/agent");
    fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0755);
    good = fd >= 0 && write(fd, agent_program, len) == (ssize_t)len && fchmod(fd, 0755) == 0;
    if (!good)
        err_set(err, errno, "'%.300s' cannot be written: %s", path, strerror(errno));
    if (fd >= 0)
        close(fd);
    return good ? 0 : -EIO;
}

static int build_work(const struct build_args *a, const char *script, const char *work, struct err *err)
{
    int r = build_agent(work, err);

    if (r == 0)
        r = build_run(a, script, work, err);
    if (r == 0) {
        build_event(a, BUILD_STEPS + 1, "writing the image");
        r = build_image(a, work, err);
    }
    if (r == 0)
        r = build_extra(a, work, "/vmlinuz", a->kernel_out, err);
    if (r == 0)
        r = build_extra(a, work, "/initrd.img", a->initrd_out, err);
    return r;
}

int image_build(int argc, char **argv)
{
    static const int signals[] = { SIGINT, SIGTERM, SIGHUP };
    struct sigaction sa = { .sa_handler = build_on_signal };
    char script[PATH_SIZE], work[PATH_SIZE];
    const char *temp = getenv("TMPDIR");
    double start = clock_host_seconds(CLOCK_MONOTONIC);
    struct build_args a;
    struct err err = { "" };
    int r = build_parse(&a, argc, argv, &err);

    if (r < 0 || build_find_script(script, sizeof(script), &err) < 0 || build_need_programs(&err) < 0)
        return cli_fail(a.json, &err);
    for (size_t i = 0; i < ARRAY_LEN(signals); i++)
        sigaction(signals[i], &sa, NULL);
    snprintf(work, sizeof(work), "%.3000s/vitro-image-XXXXXX", temp && *temp ? temp : "/var/tmp");
    if (!mkdtemp(work)) {
        err_set(&err, errno, "no folder can be made in '%.300s': %s; TMPDIR names another place", work,
                strerror(errno));
        return cli_fail(a.json, &err);
    }
    /* mmdebstrap may work as another user of a user namespace. */
    chmod(work, 0711);
    r = build_work(&a, script, work, &err);
    build_remove(work);
    if (r < 0)
        return cli_fail(a.json, &err);
    build_tell(&a, clock_host_seconds(CLOCK_MONOTONIC) - start);
    return CLI_OK;
}
