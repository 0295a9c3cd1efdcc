/* Pointer chase through 1 MiB in random order: one dependent load after another, a new page nearly every time. */
#include "bench.h"

#define CHASE_NODES 16384
#define CHASE_STEPS 40000

struct chase_node {
    struct chase_node *next;
    uint64_t pad[7]; /* a cache line */
};

static struct chase_node chase_nodes[CHASE_NODES] __attribute__((aligned(4096)));

/* One cycle through all nodes (Sattolo's shuffle). */
void chase_setup(void)
{
    static unsigned order[CHASE_NODES];

    for (unsigned i = 0; i < CHASE_NODES; i++)
        order[i] = i;
    for (unsigned i = CHASE_NODES - 1; i > 0; i--) {
        unsigned j = (unsigned)(bench_random(i) % i), t = order[i];

        order[i] = order[j];
        order[j] = t;
    }
    for (unsigned i = 0; i < CHASE_NODES; i++)
        chase_nodes[order[i]].next = &chase_nodes[order[(i + 1) % CHASE_NODES]];
}

uint64_t chase_round(void)
{
    struct chase_node *n = chase_nodes;

    for (unsigned i = 0; i < CHASE_STEPS; i++)
        n = n->next;
    return (uint64_t)(n - chase_nodes);
}
