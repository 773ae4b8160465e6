/* SPDX-License-Identifier: MIT
 * Assertions. GYRE_CHECK is always on and aborts: for corruption (a double completion, a wrong magic). GYRE_ASSERT is
 * for debug builds: arguments and order. Neither is for anything a peer, the kernel or the user can cause. */
#ifndef GYRE_BASE_CHECK_H
#define GYRE_BASE_CHECK_H

#include <stdio.h>
#include <stdlib.h>

#define GYRE_LIKELY(x) __builtin_expect(!!(x), 1)
#define GYRE_UNLIKELY(x) __builtin_expect(!!(x), 0)

__attribute__((noreturn, cold)) static inline void gyre__check_failed(const char *what, const char *file, int line)
{
    (void)fprintf(stderr, "gyre: internal check failed: %s (%s:%d)\n", what, file, line);
    abort();
}

#define GYRE_CHECK(cond)                                                                                               \
    do {                                                                                                               \
        if (GYRE_UNLIKELY(!(cond)))                                                                                    \
            gyre__check_failed(#cond, __FILE__, __LINE__);                                                             \
    } while (0)

#ifdef NDEBUG
#define GYRE_ASSERT(cond) ((void)sizeof(!(cond)))
#else
#define GYRE_ASSERT(cond) GYRE_CHECK(cond)
#endif

/* The struct that contains `member`, from a pointer to that member. */
#define GYRE_CONTAINER(ptr, type, member) ((type *)(void *)((char *)(ptr)-offsetof(type, member)))

#endif
