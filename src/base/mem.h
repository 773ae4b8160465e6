/* SPDX-License-Identifier: MIT
 * All memory goes through the user's hook. */
#ifndef GYRE_BASE_MEM_H
#define GYRE_BASE_MEM_H

#include <gyre/base.h>

#include <limits.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/uio.h>

extern const struct gyre_mem gyre__mem_system; /* malloc, realloc, free */

/* Zeroed memory, or NULL. */
void *gyre__alloc(const struct gyre_mem *mem, size_t size_bytes);

/* Like realloc(3); on failure NULL and `ptr` stays as it was. */
static inline void *gyre__resize(const struct gyre_mem *mem, void *ptr, size_t size_bytes)
{
    return mem->resize(ptr, size_bytes, mem->user);
}

/* Whether a head of `head_bytes` and `count` times `each_bytes` are a size that memory can have here: 32 bits are soon
 * too few, and a product that wraps is a small one. */
static inline bool gyre__fits(size_t head_bytes, size_t count, size_t each_bytes)
{
    return head_bytes <= PTRDIFF_MAX && (each_bytes == 0 || count <= (PTRDIFF_MAX - head_bytes) / each_bytes);
}

/* gyre__alloc() and gyre__resize() of so much; NULL too if it does not fit. */
static inline void *gyre__alloc_many(const struct gyre_mem *mem, size_t count, size_t each_bytes)
{
    return gyre__fits(0, count, each_bytes) ? gyre__alloc(mem, count * each_bytes) : NULL;
}

static inline void *gyre__resize_many(const struct gyre_mem *mem, void *ptr, size_t head_bytes, size_t count,
                                      size_t each_bytes)
{
    return gyre__fits(head_bytes, count, each_bytes) ? gyre__resize(mem, ptr, head_bytes + count * each_bytes) : NULL;
}

/* The bytes of all pieces; PTRDIFF_MAX, which is more than anything takes, where they are more. The same memory may be
 * named many times, so 32 bits may not hold the sum. */
static inline size_t gyre__iov_bytes(const struct iovec *iov, int iov_count)
{
    size_t bytes = 0;
    for (int i = 0; i < iov_count; i++)
        bytes = iov[i].iov_len <= PTRDIFF_MAX - bytes ? bytes + iov[i].iov_len : PTRDIFF_MAX;
    return bytes;
}

/* Whether `iov_count` is from 0 to `count_max`, and `iov` is there if it is not 0. */
static inline bool gyre__iov_count_valid(const struct iovec *iov, int iov_count, int count_max)
{
    return iov_count >= 0 && iov_count <= count_max && (iov != NULL || iov_count == 0);
}

/* Whether each piece has at most INT_MAX bytes, and memory if it has any. */
static inline bool gyre__iov_pieces_valid(const struct iovec *iov, int iov_count)
{
    for (int i = 0; i < iov_count; i++)
        if (iov[i].iov_len > INT_MAX || (iov[i].iov_base == NULL && iov[i].iov_len > 0))
            return false;
    return true;
}

/* One piece. An iovec is not const, but nobody writes through this one. */
static inline struct iovec gyre__iov_of(const void *data, size_t len)
{
    return (struct iovec){.iov_base = (void *)(uintptr_t)data, .iov_len = len};
}

static inline void gyre__free(const struct gyre_mem *mem, void *ptr)
{
    if (ptr != NULL)
        (void)mem->resize(ptr, 0, mem->user);
}

#endif
