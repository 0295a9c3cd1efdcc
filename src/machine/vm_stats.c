/* What a machine's CPUs counted: for `--trace stats`, the console key and whoever asks over a socket.
 *
 * Thread: any; counters are read while vCPUs run, each by itself. */
#include <inttypes.h>
#include <jansson.h>
#include <stdlib.h>

#include "engine/trace.h"
#include "machine/vm.h"

#define STATS_TOP 20 /* mnemonics shown */

static const char *const stats_exceptions[32] = { "#DE", "#DB", "NMI", "#BP", "#OF", "#BR", "#UD", "#NM", "#DF", NULL, "#TS",
                                                  "#NP", "#SS", "#GP", "#PF", NULL,  "#MF", "#AC", "#MC", "#XM", "#VE", "#CP" };

static uint64_t stats_insns(const struct vm *vm, unsigned n)
{
    return __atomic_load_n(&vm->engine.vcpu[n]->cpu.insns, __ATOMIC_RELAXED);
}

/* One counter of all CPUs; c NULL: interpreted instructions, which struct cpu counts. */
static uint64_t stats_get(const struct vm *vm, const struct engine_counter *c, unsigned n)
{
    return c ? engine_counter_get(&vm->engine.vcpu[n]->stats, c) : stats_insns(vm, n);
}

static uint64_t stats_sum(const struct vm *vm, const struct engine_counter *c)
{
    uint64_t sum = 0;

    for (unsigned n = 0; n < vm->engine.nvcpus; n++)
        sum += stats_get(vm, c, n);
    return sum;
}

/* -- for people -- */

static void stats_counter_line(const struct vm *vm, FILE *f, const char *head, const struct engine_counter *c)
{
    uint64_t sum = stats_sum(vm, c);

    if (!sum)
        return;
    fprintf(f, "%s%s %" PRIu64 " (%s; by CPU:", head, c ? c->name : "interpreted", sum,
            c ? c->what : "instructions that the interpreter ran");
    for (unsigned n = 0; n < vm->engine.nvcpus && n < 8; n++)
        fprintf(f, " %" PRIu64, stats_get(vm, c, n));
    fprintf(f, "%s)\n", vm->engine.nvcpus > 8 ? " ..." : "");
}

static void stats_top_lines(const struct vm *vm, FILE *f, const char *head)
{
    struct engine_top top[STATS_TOP];
    unsigned count = engine_top(&vm->engine, top, STATS_TOP);

    for (unsigned n = 0; n < count; n++)
        fprintf(f, "%shandler %s: %" PRIu64 " inside blocks, %" PRIu64 " at their ends, %" PRIu64 " slow accesses, %" PRIu64 " misses\n",
                head, top[n].name, top[n].inside, top[n].end, top[n].slow, top[n].miss);
}

void vm_stats_text(const struct vm *vm, FILE *f, const char *head)
{
    stats_counter_line(vm, f, head, NULL);
    for (const struct engine_counter *c = engine_counters; c->name; c++)
        stats_counter_line(vm, f, head, c);
    for (unsigned n = 0; n < 32; n++) {
        uint64_t times = engine_exceptions(&vm->engine, n);

        if (times)
            fprintf(f, "%sexception %u %s %" PRIu64 "\n", head, n, stats_exceptions[n] ? stats_exceptions[n] : "", times);
    }
    stats_top_lines(vm, f, head);
}

/* -- for programs -- */

static void stats_put(const struct vm *vm, json_t *to, const struct engine_counter *c)
{
    json_t *each = json_array();

    for (unsigned n = 0; n < vm->engine.nvcpus; n++)
        json_array_append_new(each, json_integer((json_int_t)stats_get(vm, c, n)));
    json_object_set_new(to, c ? c->name : "interpreted", each);
}

static json_t *stats_handlers(const struct vm *vm)
{
    struct engine_top top[STATS_TOP];
    unsigned count = engine_top(&vm->engine, top, STATS_TOP);
    json_t *list = json_array();

    for (unsigned n = 0; n < count; n++)
        json_array_append_new(list, json_pack("{s:s, s:I, s:I, s:I, s:I}", "mnemonic", top[n].name, "inside",
                                              (json_int_t)top[n].inside, "end", (json_int_t)top[n].end, "slow",
                                              (json_int_t)top[n].slow, "misses", (json_int_t)top[n].miss));
    return list;
}

json_t *vm_stats_json(const struct vm *vm)
{
    json_t *counters = json_object(), *exceptions = json_object();

    stats_put(vm, counters, NULL);
    for (const struct engine_counter *c = engine_counters; c->name; c++)
        stats_put(vm, counters, c);
    for (unsigned n = 0; n < 32; n++) {
        uint64_t times = engine_exceptions(&vm->engine, n);
        char name[8];

        snprintf(name, sizeof(name), "%u", n);
        if (times)
            json_object_set_new(exceptions, name, json_integer((json_int_t)times));
    }
    return json_pack("{s:s, s:s, s:i, s:o, s:o, s:o}", "event", "stats", "engine", vm->engine.ops->name, "cpus",
                     (int)vm->engine.nvcpus, "counters", counters, "exceptions", exceptions, "handlers", stats_handlers(vm));
}

void vm_stats_say(const struct vm *vm)
{
    json_t *all;
    char *text;

    if (!(vm->cfg->trace & TRACE_JSON)) {
        vm_stats_text(vm, stderr, "vitro: info: trace: stats: ");
        return;
    }
    all = vm_stats_json(vm);
    text = all ? json_dumps(all, JSON_COMPACT) : NULL;
    if (text)
        fprintf(stderr, "%s\n", text);
    free(text);
    json_decref(all);
}
