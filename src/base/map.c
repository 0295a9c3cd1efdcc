/* See map.h. */
#include "base/map.h"

#include <sys/mman.h>

#define PAGE ((uintptr_t)4096)

void *map_memory(size_t size)
{
    void *p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

    return p == MAP_FAILED ? NULL : p;
}

void *map_memory_at(size_t size, uint64_t at)
{
    uint8_t *p = map_memory(size + LARGE_PAGE);
    size_t skip;

    if (!p)
        return NULL;
    skip = (at - (uintptr_t)p) & (LARGE_PAGE - 1);
    if (skip)
        munmap(p, skip);
    munmap(p + skip + size, LARGE_PAGE - skip);
    return p + skip;
}

void map_give_back(void *p, size_t size)
{
    uintptr_t at = (uintptr_t)p, from = (at + PAGE - 1) & ~(PAGE - 1), to = (at + size) & ~(PAGE - 1);

    if (from < to)
        madvise((uint8_t *)p + (from - at), to - from, MADV_DONTNEED);
}
