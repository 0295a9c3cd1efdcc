/* Memory that takes host pages only when it is touched. Give it back with munmap(). */
#ifndef VITRO_BASE_MAP_H
#define VITRO_BASE_MAP_H

#include <stddef.h>
#include <stdint.h>
#include <sys/mman.h>

#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE 25 /* Linux 6.1 */
#endif
#define LARGE_PAGE (2UL << 20) /* the host's, in bytes */

/* size bytes of zeros, or NULL. */
void *map_memory(size_t size);

/* The same, at an address that equals `at` modulo LARGE_PAGE, so that large pages fit where they would there. */
void *map_memory_at(size_t size, uint64_t at);

/* The host takes back the whole pages of [p, p + size), private memory: they are zeros again. What lies in the other two stays as it is. */
void map_give_back(void *p, size_t size);

#endif
