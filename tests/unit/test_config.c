/* The options of a machine: sizes, setters, defaults, JSON files. Bad values as whole programs are in
 * tests/boot/badinput; here are the values that come out. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/bits.h"
#include "base/err.h"
#include "machine/config.h"

/* A virtio console on stdio takes the terminal away from COM1 and the kernel's console with it. */
static void test_consoles(void **state)
{
    struct machine_config c;
    struct err err = { "" };

    assert_int_equal(config_init(&c), 0);
    assert_string_equal(config_cmdline(&c), "console=ttyS0");
    assert_int_equal(config_set(&c, "virtio-console", "unix:a,name=b,name=agent.0", &err), 0);
    assert_string_equal(c.console[0].where, "unix:a,name=b");
    assert_string_equal(c.console[0].name, "agent.0");
    assert_string_equal(config_serial(&c, 0), "stdio");
    assert_int_equal(config_set(&c, "virtio-console", "pty,name=agent.0", &err), -EINVAL);
    assert_int_equal(config_set(&c, "virtio-console", "stdio", &err), 0);
    assert_null(c.console[1].name);
    assert_string_equal(config_serial(&c, 0), "none");
    assert_string_equal(config_cmdline(&c), "console=hvc0");
    assert_int_equal(config_set(&c, "serial", "stdio", &err), 0);
    assert_int_equal(config_set(&c, "kernel", "k", &err), 0);
    assert_int_equal(config_check(&c, &err), -EINVAL);
    config_fini(&c);
}

static void test_sizes(void **state)
{
    static const struct {
        const char *text;
        uint64_t bytes;
    } good[] = {
        { "0", 0 },
        { "4096", 4096 },
        { "512M", 512ULL << 20 },
        { "4G", 4ULL << 30 },
        { "4g", 4ULL << 30 },
        { "1T", 1ULL << 40 },
        { "64KiB", 65536 },
        { "64KB", 65536 },
        { "18446744073709551615", UINT64_MAX },
        { "16777215T", 16777215ULL << 40 },
    };
    static const char *const bad[] = { "", "M", "-1", "1.5G", "1GG", "1Gi", "0x10", " 1", "1 ", "1P" };
    static const char *const huge[] = { "18446744073709551616", "16777216T", "99999999999999999999999" };
    uint64_t v;

    for (size_t i = 0; i < ARRAY_LEN(good); i++) {
        v = 77;
        assert_int_equal(config_parse_size(good[i].text, &v), 0);
        assert_int_equal(v, good[i].bytes);
    }
    for (size_t i = 0; i < ARRAY_LEN(bad); i++)
        assert_int_equal(config_parse_size(bad[i], &v), -EINVAL);
    for (size_t i = 0; i < ARRAY_LEN(huge); i++)
        assert_int_equal(config_parse_size(huge[i], &v), -ERANGE);
}

static void test_defaults(void **state)
{
    struct machine_config c;
    struct err err = { "" };

    assert_int_equal(config_init(&c), 0);
    assert_string_equal(c.engine, "auto");
    assert_string_equal(c.cpu, "host");
    assert_int_equal(c.cpus, 1);
    assert_int_equal(c.memory, 512ULL << 20);
    assert_string_equal(config_serial(&c, 0), "stdio");
    assert_string_equal(config_serial(&c, 1), "none");
    assert_int_equal(config_check(&c, &err), -EINVAL); /* no kernel */
    assert_non_null(strstr(err.text, "--kernel"));
    assert_int_equal(config_set(&c, "kernel", "k", &err), 0);
    assert_int_equal(config_check(&c, &err), 0);
    config_fini(&c);
}

static void test_set(void **state)
{
    struct machine_config c;
    struct err err = { "" };

    assert_int_equal(config_init(&c), 0);
    assert_int_equal(config_set(&c, "memory", "1G", &err), 0);
    assert_int_equal(config_set(&c, "memory", "2G", &err), 0); /* the later one counts */
    assert_int_equal(c.memory, 2ULL << 30);
    assert_int_equal(config_set(&c, "cpus", "64", &err), 0);
    assert_int_equal(c.cpus, 64);
    assert_int_equal(config_set(&c, "cpus", "65", &err), -EINVAL);
    assert_int_equal(c.cpus, 64); /* a refused value changes nothing */
    assert_int_equal(config_set(&c, "timeout", "0.5", &err), 0);
    assert_int_equal(c.timeout_ns, 500000000);
    assert_int_equal(config_set(&c, "trace", "io,irq", &err), 0);
    assert_int_equal(c.trace, TRACE_IO | TRACE_IRQ);
    assert_int_equal(config_set(&c, "trace", "host,stats=json", &err), 0);
    assert_int_equal(c.trace, TRACE_IO | TRACE_IRQ | TRACE_BLOCKS | TRACE_HOST | TRACE_STATS | TRACE_JSON);
    assert_int_equal(config_set(&c, "no-reboot", NULL, &err), 0);
    assert_true(c.no_reboot);
    assert_int_equal(config_set(&c, "no-reboot", "false", &err), 0);
    assert_false(c.no_reboot);
    assert_int_equal(config_set(&c, "serial", "file:log", &err), 0);
    assert_int_equal(config_set(&c, "serial", "stdio", &err), 0);
    assert_string_equal(config_serial(&c, 0), "file:log");
    assert_string_equal(config_serial(&c, 1), "stdio");
    assert_int_equal(config_set(&c, "gdb", "x", &err), -ENOTSUP);
    assert_int_equal(config_set(&c, "colour", "red", &err), -EINVAL);
    config_fini(&c);
}

/* Rates of disks and cards: with and without a time and a burst. */
static void test_rates(void **state)
{
    static const char *const bad[] = { "user,rx-bps=", "user,tx-pps=x", "user,rx-pps=1:1:1:1", "user,tx-bps=0", "user,rx-bps=1:99999999999" };
    struct machine_config c;
    struct limit_rate r;
    struct err err;
    char text[64];

    assert_int_equal(config_init(&c), 0);
    assert_int_equal(config_set(&c, "disk", "a.img,bps=10M,iops=50:100:7", &err), 0);
    assert_int_equal(config_set(&c, "net", "user,rx-bps=1M:10,mac=52:54:00:01:02:03,tx-pps=9,tx-bps=2K:3:4,rx-pps=8", &err), 0);
    assert_true(c.disk[0].limit.bytes.size == 10 << 20 && c.disk[0].limit.bytes.ms == 1000 && !c.disk[0].limit.bytes.burst);
    assert_true(c.disk[0].limit.ops.size == 50 && c.disk[0].limit.ops.ms == 100 && c.disk[0].limit.ops.burst == 7);
    assert_true(c.net[0]->rx.bytes.size == 1 << 20 && c.net[0]->rx.bytes.ms == 10 && c.net[0]->rx.ops.size == 8);
    assert_true(c.net[0]->tx.bytes.size == 2048 && c.net[0]->tx.bytes.burst == 4 && c.net[0]->tx.ops.size == 9 && c.net[0]->has_mac);
    config_rate_text(&c.net[0]->tx.bytes, text, sizeof(text));
    assert_int_equal(config_parse_rate(text, &r), 0);
    assert_memory_equal(&r, &c.net[0]->tx.bytes, sizeof(r));
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        err.text[0] = 0;
        assert_int_equal(config_set(&c, "net", bad[i], &err), -EINVAL);
        assert_non_null(strstr(err.text, "is not a rate"));
    }
    config_fini(&c);
}

/* Every key of the table is usable by name, and has what the help needs. */
static void test_table(void **state)
{
    for (const struct config_key *k = config_keys; k->key; k++) {
        assert_ptr_equal(config_find(k->key), k);
        if (k->kind == CONFIG_LATER)
            continue;
        assert_true(strlen(k->help) > 0 && strlen(k->help) < 72);
        assert_int_equal(k->kind == CONFIG_FLAG, k->arg == NULL);
        assert_int_equal(k->kind == CONFIG_PARSED, k->parse != NULL);
    }
}

static int load_text(struct machine_config *c, const char *text, size_t len, struct err *err)
{
    char path[] = "/tmp/vitro-config-XXXXXX";
    int fd = mkstemp(path), r;

    assert_true(fd >= 0);
    assert_int_equal(write(fd, text, len), (ssize_t)len);
    close(fd);
    r = config_load_json(c, path, err);
    unlink(path);
    return r;
}

static void test_json(void **state)
{
    static const char text[] =
        "{\"kernel\": \"/boot/k\", \"memory\": \"1G\", \"cpus\": 3, \"debug-exit\": true,"
        " \"serial\": [\"none\", \"pty\"], \"timeout\": 2.5, \"no-reboot\": false}";
    struct machine_config c;
    struct err err = { "" };

    assert_int_equal(config_init(&c), 0);
    assert_int_equal(load_text(&c, text, sizeof(text) - 1, &err), 0);
    assert_string_equal(c.kernel, "/boot/k");
    assert_int_equal(c.memory, 1ULL << 30);
    assert_int_equal(c.cpus, 3);
    assert_true(c.debug_exit);
    assert_false(c.no_reboot);
    assert_string_equal(config_serial(&c, 1), "pty");
    assert_int_equal(c.timeout_ns, 2500000000ULL);
    config_fini(&c);
}

/* Cut at every length, and with every byte changed: refused or taken, never worse. */
static void test_json_damage(void **state)
{
    char text[] = "{\"kernel\": \"k\", \"serial\": [\"none\"], \"cpus\": 2, \"debug-exit\": true}";
    size_t len = sizeof(text) - 1;

    for (size_t i = 0; i <= len; i++) {
        struct machine_config c;
        struct err err = { "" };
        char kept = text[i];

        assert_int_equal(config_init(&c), 0);
        if (i < len)
            assert_true(load_text(&c, text, i, &err) < 0 && err.text[0]);
        text[i] = i < len ? (char)(text[i] ^ 0x15) : 0;
        load_text(&c, text, len, &err);
        text[i] = kept;
        config_fini(&c);
    }
}

static void test_disks(void **state)
{
    static const char *const bad[] = { "",       ",ro",          "a.img,",        "a.img,rw",         "a",
                                       "a.img,", "a.img,ro,ro,", "a.img,format=", "a.img,format=vdi", "a.img,ro,ephemeral", "a.qcow2,backing=", "a.img,backing=allow",
                                       "a.img,serial=", "a.img,serial=123456789012345678901", "a.img,queues=0", "a.img,aio=", "a.img,aio=native",
                                       "a.img,bps=", "a.img,bps=0", "a.img,bps=1M:0", "a.img,iops=1:2:3:4", "a.img,bps=2000T", "a.img,iops=-1" };
    struct machine_config c;
    struct err err = { "" };

    assert_int_equal(config_init(&c), 0);
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        assert_int_equal(config_set(&c, "disk", bad[i], &err), -EINVAL);
        assert_non_null(strstr(err.text, "disk"));
    }
    assert_int_equal(c.disks, 0);
    assert_int_equal(config_set(&c, "disk", "a.img", &err), 0);
    assert_int_equal(config_set(&c, "disk", "dir.d/b,format=raw,ro", &err), 0);
    assert_int_equal(config_set(&c, "disk", "c.raw,ephemeral", &err), 0);
    assert_int_equal(c.disks, 3);
    assert_string_equal(c.disk[0].path, "a.img");
    assert_string_equal(c.disk[1].path, "dir.d/b");
    assert_true(!c.disk[0].ro && c.disk[1].ro && !c.disk[2].ro && c.disk[2].ephemeral);
    for (unsigned n = 0; n < 3; n++)
        assert_int_equal(c.disk[n].format, IMAGE_RAW);
    assert_int_equal(config_set(&c, "disk", "d.qcow2,backing=allow,serial=abc,queues=2", &err), 0);
    assert_int_equal(c.disk[3].format, IMAGE_QCOW2);
    assert_true(c.disk[3].allow_backing && c.disk[3].queues == 2);
    assert_string_equal(c.disk[3].serial, "abc");
    assert_int_equal(c.disk[3].aio, BLOCK_AIO_AUTO);
    assert_int_equal(config_set(&c, "disk", "e.img,format=qcow2,backing=f,backing=g.raw,aio=threads", &err), 0);
    assert_int_equal(c.disk[4].aio, BLOCK_AIO_THREADS);
    assert_true(c.disk[4].format == IMAGE_QCOW2 && c.disk[4].backings == 2 && !c.disk[4].allow_backing);
    assert_string_equal(c.disk[4].backing[1], "g.raw");
    for (unsigned n = 5; n < CONFIG_DISKS; n++)
        assert_int_equal(config_set(&c, "disk", "x.img", &err), 0);
    assert_int_equal(config_set(&c, "disk", "x.img", &err), -EINVAL);
    config_fini(&c);
}

static void test_shares(void **state)
{
    static const char *const bad[] = { "",       ",ro",        "d,",          "d,rw",         "d,tag=",       "d,tag=a/b",
                                       "d,cache=maybe", "d,owner=1", "d,owner=a:b", "d,owner=1:2:3", "d,owner=-1:0", "d,owner=4294967295:0",
                                       "d,tag=1234567890123456789012345678901234567" };
    struct machine_config c;
    struct err err = { "" };

    assert_int_equal(config_init(&c), 0);
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        assert_int_equal(config_set(&c, "share", bad[i], &err), -EINVAL);
        assert_non_null(strstr(err.text, "share"));
    }
    assert_int_equal(c.shares, 0);
    assert_int_equal(config_set(&c, "share", "/a", &err), 0);
    assert_int_equal(config_set(&c, "share", "/b,ro,cache=always,owner=1000:100", &err), 0);
    assert_string_equal(c.share[0].tag, "share");
    assert_string_equal(c.share[1].tag, "share1");
    assert_true(!c.share[0].ro && !c.share[0].map && c.share[0].cache == SHARE_CACHE_AUTO);
    assert_true(c.share[1].ro && c.share[1].map && c.share[1].uid == 1000 && c.share[1].gid == 100);
    assert_int_equal(config_set(&c, "share", "/c,tag=share", &err), -EINVAL); /* taken */
    for (unsigned n = 2; n < CONFIG_SHARES; n++)
        assert_int_equal(config_set(&c, "share", "/x", &err), 0);
    assert_int_equal(config_set(&c, "share", "/x", &err), -EINVAL);
    config_fini(&c);
}

/* What is dumped makes the same machine from another folder: paths are absolute, and only paths. */
static void test_dump(void **state)
{
    static const char *const set[][2] = { { "kernel", "k" }, { "firmware", "seabios,vars=v" }, { "serial", "file:log" }, { "serial", "none" },
                                          { "disk", "d.qcow2,backing=allow,ro" }, { "disk", "/e.qcow2,backing=f" }, { "cloud-init", "u,m" },
                                          { "share", "s,tag=t" }, { "vsock", "cid=5,path=x" } };
    static const char *const want[] = { "@/k", "seabios,vars=@/v", "file:@/log", "none", "@/d.qcow2,backing=allow,ro", "/e.qcow2,backing=@/f",
                                        "@/u,@/m", "@/s,tag=t", "cid=5,path=@/x" };
    struct machine_config c;
    struct err err = { "" };
    char *folder = getcwd(NULL, 0), *text, quoted[8192];

    assert_int_equal(config_init(&c), 0);
    for (size_t i = 0; i < ARRAY_LEN(set); i++)
        assert_int_equal(config_set(&c, set[i][0], set[i][1], &err), 0);
    text = config_dump(&c);
    assert_non_null(text);
    for (size_t i = 0; i < ARRAY_LEN(want); i++) {
        size_t n = (size_t)snprintf(quoted, sizeof(quoted), "\"");

        for (const char *p = want[i]; *p; p++)
            n += (size_t)snprintf(quoted + n, sizeof(quoted) - n, *p == '@' ? "%s" : "%.1s", *p == '@' ? folder : p);
        snprintf(quoted + n, sizeof(quoted) - n, "\"");
        if (!strstr(text, quoted))
            fail_msg("%s is not in %s", quoted, text);
    }
    free(text);
    assert_true(!strncmp(c.vsock_path, folder, strlen(folder)) && !strcmp(c.vsock_path + strlen(folder), "/x"));
    free(folder);
    config_fini(&c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_consoles), cmocka_unit_test(test_sizes),       cmocka_unit_test(test_defaults),
        cmocka_unit_test(test_set),      cmocka_unit_test(test_disks),       cmocka_unit_test(test_table), cmocka_unit_test(test_rates),
        cmocka_unit_test(test_json),     cmocka_unit_test(test_json_damage), cmocka_unit_test(test_shares),
        cmocka_unit_test(test_dump),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
