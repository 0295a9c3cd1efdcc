/* The Firecracker API's drives, network interfaces and entropy device, and what limits them. See fc_call.h.
 *
 * A limiter is { "bandwidth": BUCKET, "ops": BUCKET }, and a bucket { "size": N, "one_time_burst": N, "refill_time": MS }. A bucket of no
 * size, or that is never filled, limits nothing; one that a PATCH does not name stays as it is. Thread: the machine's, no lock held.
 */
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>

#include "api/fc_call.h"
#include "base/err.h"
#include "machine/vm.h"

static const char *const device_buckets[] = { "bandwidth", "ops" };

/* ---- limiters ---- */

/* A number of a bucket, 0 if it is not there. False: it is none. */
static bool bucket_number(const json_t *bucket, const char *key, uint64_t *out)
{
    const json_t *v = json_object_get(bucket, key);

    *out = (uint64_t)json_integer_value(v);
    return !v || json_is_null(v) || (json_is_integer(v) && json_integer_value(v) >= 0);
}

static bool bucket_parse(const json_t *bucket, struct limit_rate *out)
{
    uint64_t ms = 0;

    *out = (struct limit_rate){ .size = 0 };
    if (!json_is_object(bucket) || !bucket_number(bucket, "size", &out->size) || !bucket_number(bucket, "one_time_burst", &out->burst) ||
        !bucket_number(bucket, "refill_time", &ms) || ms > UINT32_MAX)
        return false;
    out->ms = (uint32_t)ms;
    if (!out->size || !out->ms)
        *out = (struct limit_rate){ .size = 0 };
    return limit_rate_ok(out);
}

/* The buckets of a limiter, NULL for those that it does not name. False, with a fault: it is no good. */
static bool limiter_parse(struct fc_call *k, const char *key, struct limit_rates *r, const struct limit_rate *out[2])
{
    const json_t *limiter = json_object_get(k->body, key);
    struct limit_rate *const to[2] = { &r->bytes, &r->ops };

    if (limiter && !json_is_null(limiter) && !json_is_object(limiter)) {
        api_reply_error(k->r, 400, FC_KEY, "%s is not an object", key);
        return false;
    }
    for (unsigned n = 0; n < 2; n++) {
        const json_t *bucket = json_object_get(limiter, device_buckets[n]);

        out[n] = bucket && !json_is_null(bucket) ? to[n] : NULL;
        if (out[n] && !bucket_parse(bucket, to[n])) {
            api_reply_error(k->r, 400, FC_KEY, "%s: %s needs size and refill_time (milliseconds, at most a week), and may have one_time_burst: "
                            "whole numbers", key, device_buckets[n]);
            return false;
        }
    }
    return true;
}

static bool limiter_ok(struct fc_call *k, const char *key)
{
    const struct limit_rate *rate[2];
    struct limit_rates r;

    return limiter_parse(k, key, &r, rate);
}

void fc_limiter_text(const json_t *device, const char *key, const char *bytes, const char *ops, char *out, size_t size)
{
    const char *const names[2] = { bytes, ops };

    *out = 0;
    for (unsigned n = 0; n < 2; n++) {
        const json_t *bucket = json_object_get(json_object_get(device, key), device_buckets[n]);
        struct limit_rate rate;
        char text[64];

        if (!bucket_parse(bucket, &rate) || !rate.size)
            continue;
        config_rate_text(&rate, text, sizeof(text));
        snprintf(out + strlen(out), size - strlen(out), ",%s=%s", names[n], text);
    }
}

/* What clients see of a device's limiter from now on: the buckets that a PATCH named. */
static bool limiter_note(struct fc_call *k, json_t *device, const char *key)
{
    const json_t *change = json_object_get(k->body, key);
    json_t *limiter = json_object_get(device, key);

    if (!json_is_object(change))
        return true;
    if (!json_is_object(limiter)) {
        limiter = json_object();
        if (json_object_set_new(device, key, limiter) < 0)
            return false;
    }
    for (unsigned n = 0; n < 2; n++) {
        json_t *bucket = json_object_get(change, device_buckets[n]);

        if (json_is_object(bucket) && json_object_set(limiter, device_buckets[n], bucket) < 0)
            return false;
    }
    return true;
}

/* ---- lists ---- */

/* The body has the id of the path. */
static bool device_named(struct fc_call *k, const char *key)
{
    const char *id = json_string_value(json_object_get(k->body, key));
    bool same = id && !strcmp(id, k->id);

    if (!same)
        api_reply_error(k->r, 400, FC_KEY, "%s is missing, or is not the one of the path", key);
    return same;
}

/* Put an object with its id into a list, in the place of an older one. */
static void device_put(struct fc_call *k, json_t *list, const char *key, size_t most)
{
    json_t *old;
    size_t i;

    if (!device_named(k, key))
        return;
    json_array_foreach(list, i, old)
    {
        if (!strcmp(json_string_value(json_object_get(old, key)), k->id)) {
            json_array_set(list, i, k->body);
            fc_done(k);
            return;
        }
    }
    if (json_array_size(list) >= most || json_array_append(list, k->body) < 0)
        fc_fault(k, "there are too many devices");
    else
        fc_done(k);
}

/* The device of the path. NULL: there is none, which the answer says. */
static json_t *device_find(struct fc_call *k, json_t *list, const char *key, size_t *at)
{
    json_t *d;
    size_t i;

    if (!device_named(k, key))
        return NULL;
    json_array_foreach(list, i, d)
    {
        const char *id = json_string_value(json_object_get(d, key));

        *at = i;
        if (id && !strcmp(id, k->id))
            return d;
    }
    api_reply_error(k->r, 400, FC_KEY, "there is no device with this %s", key);
    return NULL;
}

/* ---- drives ---- */

static bool drive_is_root(const json_t *d) { return json_is_true(json_object_get(d, "is_root_device")); }

/* Which of the machine's disks a drive is: root devices come first, see fc_config.c. */
static unsigned drive_number(const struct firecracker *f, size_t at)
{
    const json_t *list = fc_said(f, "drives"), *d;
    bool root = drive_is_root(json_array_get(list, at));
    unsigned n = 0;
    size_t i;

    json_array_foreach(list, i, d)
        n += drive_is_root(d) == root ? i < at : drive_is_root(d);
    return n;
}

static void drive_put(struct fc_call *k)
{
    if (!fc_early(k) || !limiter_ok(k, "rate_limiter"))
        return;
    if (!json_is_string(json_object_get(k->body, "path_on_host")))
        fc_fault(k, "a drive needs path_on_host");
    else
        device_put(k, fc_said(k->f, "drives"), "drive_id", FC_DRIVES);
}

/* Another file for the drive, if one is named. False: the answer says why not. */
static bool drive_change(struct fc_call *k, json_t *d, unsigned n)
{
    json_t *path = json_object_get(k->body, "path_on_host");
    bool ro = json_is_true(json_object_get(d, "is_read_only"));
    const char *name = json_string_value(path);
    struct err err = { "" };
    struct block *block;
    char real[PATH_MAX];
    uint64_t size;
    int r, fd;

    if (!path || json_is_null(path))
        return true;
    r = name ? fc_path(name, "path_on_host", &err) : err_set(&err, EINVAL, "path_on_host is not a text");
    if (r == 0 && (r = config_whole_path(name, strlen(name), real)) < 0)
        err_set(&err, -r, "path_on_host '%.100s' cannot be used: %s", name, strerror(-r));
    fd = r < 0 ? r : maker_open(&k->f->maker, real, ro, &size, &err);
    r = fd < 0 ? fd : block_raw_adopt(&block, fd, size, real, ro, &err);
    if (r == 0)
        r = vm_change_disk(k->f->vm, n, block, real, &err);
    if (r == 0 && json_object_set(d, "path_on_host", path) < 0)
        r = err_set(&err, ENOMEM, "out of memory");
    if (r < 0)
        fc_fault(k, err.text);
    return r == 0;
}

static void drive_patch(struct fc_call *k)
{
    const struct limit_rate *rate[2];
    struct limit_rates r;
    size_t at;
    json_t *d = fc_late(k) ? device_find(k, fc_said(k->f, "drives"), "drive_id", &at) : NULL;

    if (!d || !limiter_parse(k, "rate_limiter", &r, rate))
        return;
    if (!drive_change(k, d, drive_number(k->f, at)))
        return;
    if (vm_limit_disk(k->f->vm, drive_number(k->f, at), rate[0], rate[1]) < 0)
        fc_fault(k, "the machine has no such disk");
    else if (!limiter_note(k, d, "rate_limiter"))
        fc_fault(k, "out of memory");
    else
        fc_done(k);
}

void fc_drive(struct fc_call *k)
{
    if (!strcmp(k->method, "PUT"))
        drive_put(k);
    else
        drive_patch(k);
}

/* ---- network interfaces ---- */

static void net_put(struct fc_call *k)
{
    if (fc_early(k) && limiter_ok(k, "rx_rate_limiter") && limiter_ok(k, "tx_rate_limiter"))
        device_put(k, fc_said(k->f, "network-interfaces"), "iface_id", FC_NETS);
}

static void net_patch(struct fc_call *k)
{
    const struct limit_rate *rx[2], *tx[2];
    struct limit_rates r, t;
    size_t at;
    json_t *n = fc_late(k) ? device_find(k, fc_said(k->f, "network-interfaces"), "iface_id", &at) : NULL;

    if (!n || !limiter_parse(k, "rx_rate_limiter", &r, rx) || !limiter_parse(k, "tx_rate_limiter", &t, tx))
        return;
    if (vm_limit_net(k->f->vm, (unsigned)at, true, rx[0], rx[1]) < 0 || vm_limit_net(k->f->vm, (unsigned)at, false, tx[0], tx[1]) < 0)
        fc_fault(k, "the machine has no such network card");
    else if (!limiter_note(k, n, "rx_rate_limiter") || !limiter_note(k, n, "tx_rate_limiter"))
        fc_fault(k, "out of memory");
    else
        fc_done(k);
}

void fc_net(struct fc_call *k)
{
    if (!strcmp(k->method, "PUT"))
        net_put(k);
    else
        net_patch(k);
}

/* ---- entropy: every machine has such a device ---- */

void fc_entropy(struct fc_call *k)
{
    if (fc_early(k) && limiter_ok(k, "rate_limiter"))
        fc_keep(k, "entropy");
}

void fc_entropy_begin(struct firecracker *f)
{
    const json_t *limiter = json_object_get(fc_said(f, "entropy"), "rate_limiter");
    struct limit_rate rate[2];

    for (unsigned n = 0; n < 2; n++) {
        if (!bucket_parse(json_object_get(limiter, device_buckets[n]), &rate[n]))
            rate[n] = (struct limit_rate){ .size = 0 };
    }
    vm_limit_rng(f->vm, &rate[0], &rate[1]);
}
