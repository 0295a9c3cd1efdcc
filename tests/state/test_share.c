/* A machine whose guest has mounted a shared folder: its session goes along, and a machine that does not offer the folder refuses the state before it
 * is sent. What a session is made of is tests/unit/test_share_session.c's. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/err.h"
#include "machine/vm.h"
#include "save/internal.h"
#include "virtio/fs.h"

#include "../unit/share_client.h"

static char folder[64], kernel[80];
static struct machine_config cfg; /* of the machine that there is */

static int group_setup(void **state)
{
    uint32_t image[128] = { 0x1badb002, 0x10000, -(0x1badb002u + 0x10000), 0x100000, 0x100000, 0, 0, 0x100030, [12] = 0xfdebf4 };
    FILE *f;

    strcpy(folder, "/tmp/vitro-state-share-XXXXXX");
    assert_non_null(mkdtemp(folder));
    snprintf(kernel, sizeof(kernel), "%s/kernel", folder);
    f = fopen(kernel, "we");
    assert_non_null(f);
    assert_int_equal(fwrite(image, 1, sizeof(image), f), sizeof(image));
    return fclose(f);
}

static int group_teardown(void **state)
{
    unlink(kernel);
    return rmdir(folder);
}

static void set(const char *key, const char *value)
{
    struct err err = { "" };

    if (config_set(&cfg, key, value, &err) < 0)
        fail_msg("%s", err.text);
}

/* With such a share; tag NULL: with none. */
static struct vm *make(const char *tag)
{
    struct err err = { "" };
    struct vm *vm;
    char text[120];

    assert_int_equal(config_init(&cfg), 0);
    set("kernel", kernel);
    set("serial", "none");
    set("memory", "4M");
    set("net", "none");
    snprintf(text, sizeof(text), "%s,tag=%s", folder, tag ? tag : "");
    if (tag)
        set("share", text);
    if (vm_create_blank(&vm, &cfg, &engine_interp, &err) < 0)
        fail_msg("%s", err.text);
    return vm;
}

static void drop(struct vm *vm)
{
    vm_destroy(vm);
    config_fini(&cfg);
}

static struct virtio_fs *fs_of(struct vm *vm)
{
    for (unsigned n = 0; n < vm->ndevices; n++) {
        if (vm->device[n].ops == &virtio_fs_ops)
            return vm->device[n].dev;
    }
    return NULL;
}

/* The guest mounts it, as far as its server is concerned, and the machine stands. */
static void mount(struct vm *vm)
{
    struct virtio_fs *f = fs_of(vm);
    struct sc c;

    f->ended = false; /* as its first request has it */
    sc_init(&c, f->share);
    assert_int_equal(sc_hello(&c, 0), 0);
    assert_true(c.out_len > 0);
    sc_fini(&c);
    virtio_fs_ops.pause(f);
}

/* What a machine with that share has to say to them. */
static int give(const char *tag, const struct state_buf *state, bool shape, struct err *err)
{
    struct vm *vm = make(tag);
    int r;

    err->text[0] = 0;
    r = shape ? save_shape_check(vm, state->data, state->len, err) : save_state_give(vm, state->data, state->len, err);
    if (r == 0 && !shape && fs_of(vm)) {
        virtio_fs_ops.pause(fs_of(vm));
        r = fs_of(vm)->mounted;
    }
    drop(vm);
    return r;
}

/* Without sections of that name. */
static void strip(struct state_buf *b, const char *name)
{
    struct state_section s;
    size_t from = 0, pos = 0;

    while (state_next(b->data, b->len, &pos, &s, NULL) > 0) {
        if (strcmp(s.name, name)) {
            from = pos;
            continue;
        }
        memmove(b->data + from, b->data + pos, b->len - pos);
        b->len -= pos - from;
        pos = from;
    }
}

static void assert_names(const struct err *err, const char *tag)
{
    char text[80];

    snprintf(text, sizeof(text), "'%s'", tag);
    if (!strstr(err->text, text))
        fail_msg("no %s in: %s", text, err->text);
}

static void test_mounted(void **state)
{
    struct state_buf shape = { .data = NULL }, whole = { .data = NULL };
    struct vm *vm = make("work");
    struct err err = { "" };

    mount(vm);
    assert_int_equal(save_shape_take(vm, &shape, &err), 0);
    assert_int_equal(save_state_take(vm, &whole, &err), 0);
    drop(vm);
    assert_int_equal(give("work", &shape, true, &err), 0);
    assert_int_equal(give("work", &whole, false, &err), 1);
    for (unsigned n = 0; n < 2; n++) {
        const struct state_buf *b = n ? &whole : &shape;

        assert_true(give(NULL, b, !n, &err) < 0);
        assert_names(&err, "work");
        assert_true(give("other", b, !n, &err) < 0);
        assert_names(&err, "work");
    }
    strip(&whole, SHARE_SECTION);
    assert_int_equal(give("work", &whole, false, &err), -EINVAL); /* mounted, and its session is missing */
    state_buf_fini(&shape);
    state_buf_fini(&whole);
}

static void test_not_mounted(void **state)
{
    struct state_buf shape = { .data = NULL }, whole = { .data = NULL };
    struct vm *vm = make("work");
    struct err err = { "" };

    assert_int_equal(save_shape_take(vm, &shape, &err), 0);
    assert_int_equal(save_state_take(vm, &whole, &err), 0);
    drop(vm);
    assert_int_equal(give("other", &shape, true, &err), 0);
    assert_int_equal(give("other", &whole, false, &err), 0);
    strip(&shape, SHARE_SECTION); /* from before there were sessions */
    strip(&whole, SHARE_SECTION);
    assert_int_equal(give("work", &shape, true, &err), 0);
    assert_int_equal(give("work", &whole, false, &err), 0);
    assert_true(give(NULL, &whole, false, &err) < 0);
    state_buf_fini(&shape);
    state_buf_fini(&whole);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_mounted), cmocka_unit_test(test_not_mounted) };

    return cmocka_run_group_tests(tests, group_setup, group_teardown);
}
