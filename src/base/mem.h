/* SPDX-License-Identifier: MIT
 * All memory goes through the user's hook. */
#ifndef GYRE_BASE_MEM_H
#define GYRE_BASE_MEM_H

#include <gyre/base.h>

extern const struct gyre_mem gyre__mem_system; /* malloc, realloc, free */

/* Zeroed memory, or NULL. */
void *gyre__alloc(const struct gyre_mem *mem, size_t size_bytes);

/* Like realloc(3); on failure NULL and `ptr` stays as it was. */
static inline void *gyre__resize(const struct gyre_mem *mem, void *ptr, size_t size_bytes)
{
    return mem->resize(mem->user, ptr, size_bytes);
}

static inline void gyre__free(const struct gyre_mem *mem, void *ptr)
{
    if (ptr != NULL)
        (void)mem->resize(mem->user, ptr, 0);
}

#endif
