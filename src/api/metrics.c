/* A machine's counters for Prometheus (exposition format 0.0.4), made from the JSON of describe_stats(). No threads. */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "api/control.h"
#include "base/bits.h"

/* One number of a machine, or of each object in one of its lists. */
static const struct metric {
    const char *list;  /* NULL: the machine's own; "memory": in that object */
    const char *field; /* in the JSON */
    const char *name, *type, *help;
} metrics[] = {
    { NULL, "guest_seconds", "vitro_guest_seconds_total", "counter", "Guest time since the machine was made." },
    { NULL, "cpu_seconds", "vitro_cpu_seconds_total", "counter", "Host CPU time of the whole machine." },
    { NULL, "resets", "vitro_resets_total", "counter", "Resets of the machine." },
    { "memory", "size", "vitro_memory_bytes", "gauge", "Memory that the machine was made with." },
    { "memory", "target", "vitro_memory_target_bytes", "gauge", "Memory that the guest is asked to live with." },
    { "memory", "balloon", "vitro_memory_balloon_bytes", "gauge", "Memory in the balloon." },
    { "memory", "given_back", "vitro_memory_given_back_bytes_total", "counter", "Memory given back to the host." },
    { "memory", "resident", "vitro_memory_resident_bytes", "gauge", "Host memory in use." },
    { "memory", "swapped", "vitro_memory_swapped_bytes", "gauge", "Guest memory that only the swap file has." },
    { "vcpus", "cpu_seconds", "vitro_vcpu_seconds_total", "counter", "Host CPU time of a virtual CPU." },
    { "disks", "reads", "vitro_disk_reads_total", "counter", "Read requests." },
    { "disks", "writes", "vitro_disk_writes_total", "counter", "Write requests." },
    { "disks", "flushes", "vitro_disk_flushes_total", "counter", "Flush requests." },
    { "disks", "errors", "vitro_disk_errors_total", "counter", "Failed requests." },
    { "disks", "read_bytes", "vitro_disk_read_bytes_total", "counter", "Bytes read." },
    { "disks", "written_bytes", "vitro_disk_written_bytes_total", "counter", "Bytes written." },
    { "nets", "sent", "vitro_net_sent_packets_total", "counter", "Frames from the guest." },
    { "nets", "received", "vitro_net_received_packets_total", "counter", "Frames to the guest." },
    { "nets", "sent_bytes", "vitro_net_sent_bytes_total", "counter", "Bytes from the guest." },
    { "nets", "received_bytes", "vitro_net_received_bytes_total", "counter", "Bytes to the guest." },
    { "nets", "dropped", "vitro_net_dropped_packets_total", "counter", "Frames that were dropped." },
};

static void metrics_line(FILE *f, const struct metric *m, const char *machine, const char *label, const char *value,
                         const json_t *number)
{
    fprintf(f, "%s{machine=\"%s\"", m->name, machine);
    if (label)
        fprintf(f, ",%s=\"%s\"", label, value);
    if (json_is_integer(number))
        fprintf(f, "} %lld\n", (long long)json_integer_value(number));
    else
        fprintf(f, "} %.6f\n", json_number_value(number));
}

static void metrics_list(FILE *f, const struct metric *m, const char *machine, const json_t *list)
{
    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *item = json_array_get(list, i);
        const char *name = json_string_value(json_object_get(item, "name"));
        char number[24];

        snprintf(number, sizeof(number), "%zu", i);
        metrics_line(f, m, machine, name ? "device" : "vcpu", name ? name : number, json_object_get(item, m->field));
    }
}

char *metrics_text(const json_t *stats)
{
    const char *machine = json_string_value(json_object_get(stats, "name"));
    char *text = NULL;
    size_t size = 0;
    FILE *f = open_memstream(&text, &size);

    if (!f)
        return NULL;
    for (size_t i = 0; i < ARRAY_LEN(metrics); i++) {
        const struct metric *m = &metrics[i];
        const json_t *list = m->list ? json_object_get(stats, m->list) : NULL;

        if (json_is_array(list) && !json_array_size(list))
            continue;
        fprintf(f, "# HELP %s %s\n# TYPE %s %s\n", m->name, m->help, m->name, m->type);
        if (json_is_array(list))
            metrics_list(f, m, machine, list);
        else
            metrics_line(f, m, machine, NULL, NULL, json_object_get(m->list ? list : stats, m->field));
    }
    if (fclose(f)) {
        free(text);
        return NULL;
    }
    return text;
}
