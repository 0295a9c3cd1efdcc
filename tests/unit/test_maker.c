/* The process that makes files for a machine inside its sandbox (save/maker.h). */
#include "test.h"

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/err.h"
#include "save/maker.h"

struct place {
    char dir[64];
    struct maker m;
    struct err err;
};

static void place_maker(struct place *p) { assert_int_equal(maker_start(&p->m, NULL, &p->err), 0); }

static int setup(void **state)
{
    struct place *p = calloc(1, sizeof(*p));

    strcpy(p->dir, "maker.XXXXXX");
    if (!mkdtemp(p->dir))
        return -1;
    place_maker(p);
    *state = p;
    return 0;
}

static const char *place_path(const struct place *p, const char *name)
{
    static char path[2][128];
    static unsigned n;

    n = !n;
    snprintf(path[n], sizeof(path[n]), "%s/%s", p->dir, name);
    return path[n];
}

static int teardown(void **state)
{
    static const char *const names[] = { "a", "b", "link" };
    struct place *p = *state;
    int r;

    maker_fini(&p->m);
    for (unsigned n = 0; n < sizeof(names) / sizeof(*names); n++)
        unlink(place_path(p, names[n]));
    r = rmdir(p->dir); /* nothing else was left behind */
    free(p);
    return r;
}

static void place_write(const struct place *p, const char *name, const char *text)
{
    int fd = open(place_path(p, name), O_WRONLY | O_CREAT | O_TRUNC, 0600);

    assert_int_equal(write(fd, text, strlen(text)), strlen(text));
    close(fd);
}

static void place_expect(const struct place *p, const char *name, const char *text)
{
    char have[64] = "";
    int fd = open(place_path(p, name), O_RDONLY);

    assert_true(fd >= 0 && read(fd, have, sizeof(have) - 1) >= 0);
    close(fd);
    assert_string_equal(have, text);
}

static void place_make(struct place *p, unsigned slot, const char *name, const char *text)
{
    int fd = maker_begin(&p->m, slot, place_path(p, name), &p->err);

    assert_true(fd >= 0);
    assert_int_equal(write(fd, text, strlen(text)), strlen(text));
    close(fd);
}

/* A file has its name only when it is committed; two at a time. */
static void test_made(void **state)
{
    struct place *p = *state;

    place_make(p, 0, "a", MAKER_TEXT "1");
    place_make(p, 1, "b", "VITROSAV 2");
    assert_int_equal(access(place_path(p, "a"), F_OK), -1);
    assert_int_equal(maker_commit(&p->m, 1, &p->err), 0);
    assert_int_equal(access(place_path(p, "a"), F_OK), -1);
    assert_int_equal(maker_commit(&p->m, 0, &p->err), 0);
    place_expect(p, "a", MAKER_TEXT "1");
    place_expect(p, "b", "VITROSAV 2");
    assert_true(maker_commit(&p->m, 0, &p->err) < 0); /* there is nothing in it any more */
}

/* Its own files and empty ones are replaced, by a whole file or not at all. */
static void test_replaced(void **state)
{
    struct place *p = *state;

    place_write(p, "a", "");
    place_make(p, 0, "a", "VITROSAV 1");
    assert_int_equal(maker_commit(&p->m, 0, &p->err), 0);
    place_make(p, 0, "a", "half");
    maker_abort(&p->m, 0);
    place_expect(p, "a", "VITROSAV 1");
    place_make(p, 0, "a", "half");
    maker_fini(&p->m);
    place_expect(p, "a", "VITROSAV 1");
    place_maker(p);
    place_make(p, 0, "a", MAKER_TEXT);
    assert_int_equal(maker_commit(&p->m, 0, &p->err), 0);
    place_expect(p, "a", MAKER_TEXT);
}

static void test_refused(void **state)
{
    struct place *p = *state;
    char longer[5000];

    memset(longer, 'x', sizeof(longer) - 1);
    longer[sizeof(longer) - 1] = 0;
    place_write(p, "a", "VITROSA");
    assert_int_equal(symlink("b", place_path(p, "link")), 0);
    assert_true(maker_begin(&p->m, 0, place_path(p, "a"), &p->err) < 0);
    assert_non_null(strstr(p->err.text, "no snapshot"));
    assert_true(maker_begin(&p->m, 0, place_path(p, "link"), &p->err) < 0);
    assert_true(maker_begin(&p->m, 0, p->dir, &p->err) < 0);
    assert_true(maker_begin(&p->m, 0, "/dev/null", &p->err) < 0);
    assert_true(maker_begin(&p->m, 0, "none/b", &p->err) < 0);
    assert_true(maker_begin(&p->m, 0, longer, &p->err) < 0);
    assert_true(maker_begin(&p->m, 0, "", &p->err) < 0);
    place_expect(p, "a", "VITROSA");
}

/* What comes to be there in between is not replaced either. */
static void test_meanwhile(void **state)
{
    struct place *p = *state;

    place_make(p, 0, "a", "VITROSAV");
    place_write(p, "a", "letter");
    assert_true(maker_commit(&p->m, 0, &p->err) < 0);
    place_expect(p, "a", "letter");
}

static void test_gone(void **state)
{
    struct place *p = *state;

    kill(p->m.pid, SIGKILL);
    assert_true(maker_begin(&p->m, 0, place_path(p, "a"), &p->err) < 0 || maker_commit(&p->m, 0, &p->err) < 0);
    assert_non_null(strstr(p->err.text, "has ended"));
}

/* A slot that does not exist ends the process: its peer is not what it should be. */
static void test_slot(void **state)
{
    struct place *p = *state;

    assert_true(maker_commit(&p->m, MAKER_SLOTS, &p->err) < 0);
    assert_non_null(strstr(p->err.text, "has ended"));
}

/* Images of folders that were named before, after that was all; by no way out of them, and nothing that is no image. */
static void test_images(void **state)
{
    struct place *p = *state;
    char up[160];
    uint64_t size = 0;
    int fd;

    place_write(p, "a", "image");
    assert_true(maker_open(&p->m, place_path(p, "a"), true, &size, &p->err) < 0);
    assert_true(maker_allow(&p->m, "none/there", &p->err) < 0);
    assert_int_equal(maker_allow(&p->m, place_path(p, "b"), &p->err), 0);
    assert_true(maker_open(&p->m, place_path(p, "a"), true, &size, &p->err) < 0);
    maker_seal(&p->m);
    assert_true(maker_allow(&p->m, "/etc/passwd", &p->err) < 0);
    assert_true(maker_open(&p->m, "/etc/passwd", true, &size, &p->err) < 0);
    assert_non_null(strstr(p->err.text, "no folder that had a drive"));
    snprintf(up, sizeof(up), "%s/../%s", p->dir, "meson.build");
    assert_true(maker_open(&p->m, up, true, &size, &p->err) < 0);
    assert_non_null(strstr(p->err.text, "no folder that had a drive"));
    assert_true(maker_open(&p->m, place_path(p, "b"), false, &size, &p->err) < 0);
    assert_non_null(strstr(p->err.text, "cannot open image"));
    fd = maker_open(&p->m, place_path(p, "a"), false, &size, &p->err);
    assert_true(fd >= 0 && size == 5 && (fcntl(fd, F_GETFL) & O_ACCMODE) == O_RDWR);
    close(fd);
    fd = maker_open(&p->m, place_path(p, "a"), true, &size, &p->err);
    assert_true(fd >= 0 && (fcntl(fd, F_GETFL) & O_ACCMODE) == O_RDONLY);
    close(fd);
}

/* The path that the user named, whatever is there; no other. */
static void test_only(void **state)
{
    struct place *p = *state;
    const char *only = place_path(p, "a");

    maker_fini(&p->m);
    assert_int_equal(maker_start(&p->m, only, &p->err), 0);
    place_write(p, "a", "letter");
    assert_true(maker_begin(&p->m, 0, place_path(p, "b"), &p->err) < 0);
    place_make(p, 0, "a", "VITROSAV");
    assert_int_equal(maker_commit(&p->m, 0, &p->err), 0);
    place_expect(p, "a", "VITROSAV");
}

#define CASE(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(test_made), CASE(test_replaced), CASE(test_refused), CASE(test_meanwhile), CASE(test_gone), CASE(test_slot), CASE(test_only),
        CASE(test_images),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
