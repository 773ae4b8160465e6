/* SPDX-License-Identifier: MIT
 * Who waits for whom: connections whose forwarding is blocked by a congested destination. */
#include "conn.h"

void gyre__forward_forget(struct gyre_conn *src)
{
    if (!(src->flags & GYRE_CF_BLOCKED))
        return;
    struct gyre_conn **at = &src->extra->forward_to->extra->waiters;
    while (*at != src)
        at = &(*at)->extra->forward_next;
    *at = src->extra->forward_next;
    src->extra->forward_to = NULL;
    src->extra->forward_next = NULL;
    src->flags &= ~(unsigned)GYRE_CF_BLOCKED;
}

void gyre__forward_release_waiters(struct gyre_conn *dst)
{
    while (dst->extra != NULL && dst->extra->waiters != NULL) {
        struct gyre_conn *src = dst->extra->waiters;
        gyre__forward_forget(src);
        src->flags |= GYRE_CF_DELIVER;
        gyre__conn_settle_later(src);
    }
}
