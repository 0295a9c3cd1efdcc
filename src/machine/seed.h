/* The seed disk of --cloud-init. */
#ifndef VITRO_MACHINE_SEED_H
#define VITRO_MACHINE_SEED_H

struct block;
struct err;
struct machine_config;

/* Read what c->cloud_init names, and make the disk of it. 0, or -errno with a sentence. */
int seed_open(struct block **out, const struct machine_config *c, struct err *err);

#endif
