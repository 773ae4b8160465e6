/* SPDX-License-Identifier: MIT
 * The default memory hook, and zeroed allocation through any. */
#include "mem.h"

#include <stdlib.h>
#include <string.h>

static void *system_resize(void *ptr, size_t size_bytes, void *user)
{
    (void)user;
    if (size_bytes == 0) {
        free(ptr);
        return NULL;
    }
    return realloc(ptr, size_bytes);
}

const struct gyre_mem gyre__mem_system = {.resize = system_resize};

void *gyre__alloc(const struct gyre_mem *mem, size_t size_bytes)
{
    void *ptr = mem->resize(NULL, size_bytes, mem->user);
    if (ptr != NULL)
        memset(ptr, 0, size_bytes);
    return ptr;
}
