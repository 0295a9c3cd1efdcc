/* The Firecracker API's side of the metadata service (fc_mmds.h): PUT, PATCH and GET /mmds, PUT /mmds/config. What is in it is not in snapshots;
 * how it is reached is. Thread: the machine's, no lock held. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "api/fc_call.h"
#include "machine/vm.h"

static void metadata_done(struct fc_call *k, int r)
{
    char text[80];

    snprintf(text, sizeof(text), "the MMDS data store would have more than %u bytes", k->f->mmds.most);
    if (r == -ENOENT)
        fc_fault(k, "the MMDS data store is not initialized: PUT /mmds first");
    else if (r == -E2BIG)
        fc_fault(k, text);
    else if (r < 0)
        fc_fault(k, "out of memory");
    else
        fc_done(k);
}

void fc_metadata(struct fc_call *k)
{
    if (!strcmp(k->method, "GET"))
        api_reply_json(k->r, 200, mmds_get(&k->f->mmds));
    else
        metadata_done(k, strcmp(k->method, "PUT") ? mmds_patch(&k->f->mmds, k->body) : mmds_put(&k->f->mmds, k->body));
}

/* A link-local address that hosts may have (RFC 3927). False: it is none. */
static bool metadata_address(const char *text, uint8_t ip[4])
{
    int used = 0;

    return sscanf(text, "%3hhu.%3hhu.%3hhu.%3hhu%n", &ip[0], &ip[1], &ip[2], &ip[3], &used) == 4 && !text[used] && strlen(text) <= 15 && ip[0] == 169 &&
           ip[1] == 254 && ip[2] >= 1 && ip[2] <= 254;
}

/* Is this interface one of those of which the guest reaches the service? */
static bool metadata_listed(const json_t *config, const char *id)
{
    const json_t *list = json_object_get(config, "network_interfaces"), *v;
    size_t i;

    json_array_foreach(list, i, v)
    {
        if (json_is_string(v) && !strcmp(json_string_value(v), id))
            return true;
    }
    return false;
}

static bool metadata_known(const struct firecracker *f, const json_t *list)
{
    const json_t *v, *n;
    size_t i, k;

    json_array_foreach(list, i, v)
    {
        bool found = false;

        json_array_foreach(fc_said(f, "network-interfaces"), k, n)
            found |= json_equal(json_object_get(n, "iface_id"), v);
        if (!found)
            return false;
    }
    return json_array_size(list) > 0;
}

/* What is wrong with a configuration, or NULL. */
static const char *metadata_wrong(const struct firecracker *f, const json_t *config)
{
    const json_t *version = json_object_get(config, "version"), *address = json_object_get(config, "ipv4_address");
    const char *v = json_string_value(version), *ip = json_string_value(address);
    uint8_t raw[4];

    if (!metadata_known(f, json_object_get(config, "network_interfaces")))
        return "network_interfaces is not a list of interfaces that were put there: at least one";
    if (version && !json_is_null(version) && (!v || (strcmp(v, "V1") && strcmp(v, "V2"))))
        return "version is neither V1 nor V2";
    if (address && !json_is_null(address) && (!ip || !metadata_address(ip, raw)))
        return "ipv4_address is no link-local address, 169.254.1.0 to 169.254.254.255";
    return NULL;
}

void fc_metadata_config(struct fc_call *k)
{
    const char *wrong;

    if (!fc_early(k))
        return;
    wrong = metadata_wrong(k->f, k->body);
    if (wrong)
        fc_fault(k, wrong);
    else
        fc_keep(k, "mmds-config");
}

/* A loaded snapshot may say anything. */
void fc_metadata_begin(struct firecracker *f, const json_t *said)
{
    const json_t *config = json_object_get(said, "mmds-config"), *n;
    const char *version = json_string_value(json_object_get(config, "version")), *ip = json_string_value(json_object_get(config, "ipv4_address"));
    size_t i;

    f->mmds.v2 = version && !strcmp(version, "V2");
    f->mmds.imds = json_is_true(json_object_get(config, "imds_compat"));
    if (ip && !metadata_address(ip, f->mmds.server.ip))
        return;
    json_array_foreach(json_object_get(said, "network-interfaces"), i, n)
    {
        const char *id = json_string_value(json_object_get(n, "iface_id"));

        if (id && i < f->cfg.nets && metadata_listed(config, id))
            f->cfg.net[i]->port.inner = &f->mmds.server;
    }
}
