/* SPDX-License-Identifier: MIT
 * Queues of descriptors: growing, removing. */
#include "fdq.h"

#include <errno.h>

enum { PLACES_FIRST = 64 };

int gyre__fdq_reserve(struct gyre__fdq *q, const struct gyre_mem *mem, uint32_t count)
{
    uint32_t room = q->fds != NULL ? q->mask + 1 : 0, n = 0;
    if (count <= room)
        return 0;
    for (room = room > 0 ? room : PLACES_FIRST; room < count; room *= 2)
        ;
    struct gyre__fd **fds = gyre__resize_many(mem, NULL, 0, room, sizeof(struct gyre__fd *));
    if (fds == NULL)
        return -ENOMEM;
    for (; q->head != q->tail; q->head++)
        fds[n++] = q->fds[q->head & q->mask];
    gyre__free(mem, q->fds);
    *q = (struct gyre__fdq){.fds = fds, .tail = n, .mask = room - 1};
    return 0;
}

void gyre__fdq_fini(struct gyre__fdq *q, const struct gyre_mem *mem)
{
    gyre__free(mem, q->fds);
    *q = (struct gyre__fdq){.fds = NULL};
}

void gyre__fdq_remove(struct gyre__fdq *q, const struct gyre__fd *f)
{
    uint32_t at = q->head;
    for (; q->fds[at & q->mask] != f; at++)
        GYRE_CHECK(at != q->tail);
    for (; at + 1 != q->tail; at++)
        q->fds[at & q->mask] = q->fds[(at + 1) & q->mask];
    q->tail--;
}
