/* SPDX-License-Identifier: MIT
 * A queue of descriptors, for backends: those to be served, in turn.
 *
 * A ring and not a list, so that a descriptor needs no room for a link: there are many more of them than ever wait. It
 * has a place for each descriptor that is attached, so that pushing cannot fail; a descriptor is in it once at most,
 * which a flag of the backend's sees to. When it runs empty it begins anew, so that few descriptors stay in few
 * lines. */
#ifndef GYRE_SEAM_FDQ_H
#define GYRE_SEAM_FDQ_H

#include "base/check.h"
#include "base/mem.h"
#include "op.h"

struct gyre__fdq {
    struct gyre__fd **fds;
    uint32_t head, tail; /* of those between, the place is the number & mask */
    uint32_t mask;
};

/* Room for `count` in all. Returns 0 or -ENOMEM. */
int gyre__fdq_reserve(struct gyre__fdq *q, const struct gyre_mem *mem, uint32_t count);
void gyre__fdq_fini(struct gyre__fdq *q, const struct gyre_mem *mem);

/* Take out one that is in it, wherever. */
void gyre__fdq_remove(struct gyre__fdq *q, const struct gyre__fd *f);

static inline uint32_t gyre__fdq_count(const struct gyre__fdq *q)
{
    return q->tail - q->head;
}

static inline void gyre__fdq_push(struct gyre__fdq *q, struct gyre__fd *f)
{
    GYRE_ASSERT(q->fds != NULL && gyre__fdq_count(q) <= q->mask);
    q->fds[q->tail++ & q->mask] = f;
}

/* The oldest; there is one. */
static inline struct gyre__fd *gyre__fdq_pop(struct gyre__fdq *q)
{
    GYRE_ASSERT(q->head != q->tail);
    struct gyre__fd *f = q->fds[q->head++ & q->mask];
    if (q->head == q->tail)
        q->head = q->tail = 0;
    return f;
}

#endif
