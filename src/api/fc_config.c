/* From Firecracker's objects to a machine's configuration. See firecracker.h. */
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "api/fc_call.h"
#include "base/err.h"

static const char *fc_text(const json_t *o, const char *key) { return json_string_value(json_object_get(o, key)); }

/* A path becomes a part of an option, where a comma would begin another. */
int fc_path(const char *path, const char *what, struct err *err)
{
    if (!path || !*path)
        return err_set(err, EINVAL, "%s is missing", what);
    return strchr(path, ',') ? err_set(err, EINVAL, "%s '%.200s' holds a comma", what, path) : 0;
}

static int fc_number(struct machine_config *c, const char *key, const json_t *v, const char *suffix, struct err *err)
{
    char text[32];

    snprintf(text, sizeof(text), "%lld%s", (long long)json_integer_value(v), suffix);
    return config_set(c, key, text, err);
}

/* As Firecracker does, the root device is named on the kernel's command line. */
static int fc_boot(struct firecracker *f, struct err *err)
{
    const json_t *boot = fc_said(f, "boot-source"), *d;
    const char *args = fc_text(boot, "boot_args"), *initrd = fc_text(boot, "initrd_path");
    char line[8192];
    size_t i;
    int r = config_set(&f->cfg, "kernel", fc_text(boot, "kernel_image_path"), err);

    snprintf(line, sizeof(line), "%s", args ? args : "reboot=k panic=1 pci=off 8250.nr_uarts=0");
    json_array_foreach(fc_said(f, "drives"), i, d)
    {
        if (json_is_true(json_object_get(d, "is_root_device")))
            snprintf(line + strlen(line), sizeof(line) - strlen(line), " root=/dev/vda %s",
                     json_is_true(json_object_get(d, "is_read_only")) ? "ro" : "rw");
    }
    /* Its machines have no PCI, and its clients say so to the kernel; here all virtio devices are on PCI. */
    for (char *p; (p = strstr(line, "pci=off"));)
        memmove(p, p + 7, strlen(p + 7) + 1);
    if (r == 0 && initrd)
        r = config_set(&f->cfg, "initrd", initrd, err);
    return r < 0 ? r : config_set(&f->cfg, "cmdline", line, err);
}

static int fc_one_drive(struct firecracker *f, const json_t *d, struct err *err)
{
    const char *path = fc_text(d, "path_on_host");
    char limit[FC_LIMITER_TEXT], text[PATH_MAX + 32 + FC_LIMITER_TEXT];
    int r = fc_path(path, "path_on_host", err);

    fc_limiter_text(d, "rate_limiter", "bps", "iops", limit, sizeof(limit));
    snprintf(text, sizeof(text), "%s,format=raw%s%s", path ? path : "",
             json_is_true(json_object_get(d, "is_read_only")) ? ",ro" : "", limit);
    return r < 0 ? r : config_set(&f->cfg, "disk", text, err);
}

/* The root device is the first disk. */
static int fc_drives(struct firecracker *f, bool root, struct err *err)
{
    const json_t *d;
    size_t i;
    int r = 0;

    json_array_foreach(fc_said(f, "drives"), i, d)
    {
        if (r == 0 && json_is_true(json_object_get(d, "is_root_device")) == root)
            r = fc_one_drive(f, d, err);
    }
    return r;
}

/* A tap interface if there is one of that name, else user networking. */
static int fc_one_net(struct firecracker *f, const json_t *n, struct err *err)
{
    const char *dev = fc_text(n, "host_dev_name"), *mac = fc_text(n, "guest_mac");
    char path[PATH_MAX], text[128], rx[FC_LIMITER_TEXT], tx[FC_LIMITER_TEXT], all[sizeof(text) + sizeof(rx) + sizeof(tx)];
    int r = fc_path(dev, "host_dev_name", err);

    if (r < 0)
        return r;
    if (strlen(dev) > 15 || strchr(dev, '/') || *dev == '.')
        return err_set(err, EINVAL, "host_dev_name '%.40s' is no interface's name", dev);
    snprintf(path, sizeof(path), "/sys/class/net/%s/tun_flags", dev);
    if (access(path, F_OK) == 0)
        snprintf(text, sizeof(text), "tap,ifname=%s%s%.20s", dev, mac ? ",mac=" : "", mac ? mac : "");
    else
        snprintf(text, sizeof(text), "user%s%.20s", mac ? ",mac=" : "", mac ? mac : "");
    fc_limiter_text(n, "rx_rate_limiter", "rx-bps", "rx-pps", rx, sizeof(rx));
    fc_limiter_text(n, "tx_rate_limiter", "tx-bps", "tx-pps", tx, sizeof(tx));
    snprintf(all, sizeof(all), "%s%s%s", text, rx, tx);
    return config_set(&f->cfg, "net", all, err);
}

static int fc_vsock_device(struct firecracker *f, const json_t *v, struct err *err)
{
    const char *path = fc_text(v, "uds_path");
    char text[PATH_MAX + 64];
    int r = fc_path(path, "uds_path", err);

    if (r < 0)
        return r;
    snprintf(text, sizeof(text), "cid=%lld,path=%s", (long long)json_integer_value(json_object_get(v, "guest_cid")), path);
    return config_set(&f->cfg, "vsock", text, err);
}

int fc_configure(struct firecracker *f, struct err *err)
{
    const json_t *machine = fc_said(f, "machine-config"), *vsock = fc_said(f, "vsock"), *n;
    size_t i;
    int r;

    if (!fc_said(f, "boot-source"))
        return err_set(err, EINVAL, "there is no boot source: PUT /boot-source first");
    config_fini(&f->cfg);
    if (config_init(&f->cfg) < 0)
        return err_set(err, ENOMEM, "out of memory");
    r = fc_number(&f->cfg, "cpus", json_object_get(machine, "vcpu_count"), "", err);
    if (r == 0)
        r = fc_number(&f->cfg, "memory", json_object_get(machine, "mem_size_mib"), "M", err);
    if (r == 0)
        r = fc_boot(f, err);
    if (r == 0)
        r = fc_drives(f, true, err);
    if (r == 0)
        r = fc_drives(f, false, err);
    json_array_foreach(fc_said(f, "network-interfaces"), i, n)
    {
        if (r == 0)
            r = fc_one_net(f, n, err);
    }
    if (r == 0)
        fc_metadata_begin(f, f->said);
    if (r == 0 && vsock)
        r = fc_vsock_device(f, vsock, err);
    /* Its reboot ends the process. */
    if (r == 0)
        r = config_set(&f->cfg, "no-reboot", NULL, err);
    return r < 0 ? r : config_check(&f->cfg, err);
}
