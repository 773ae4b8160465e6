/* SPDX-License-Identifier: MIT
 * Writing: what a handler queues, copied or borrowed; corking. outbound.c sends it. */
#include "conn.h"
#include "shared.h"

#include <errno.h>
#include <string.h>

void gyre__conn_queued(struct gyre_conn *c, size_t len)
{
    struct gyre_stats *stats = &c->loop->be->stats;
    gyre__count(&stats->bytes_queued, len);
    if (GYRE_UNLIKELY(c->out.bytes > c->profile->options.write_high_bytes && !(c->flags & GYRE_CF_CONGESTED))) {
        c->flags |= GYRE_CF_CONGESTED;
        gyre__count(&stats->congestions, 1);
    }
    if (GYRE_UNLIKELY(c->extra != NULL))
        gyre__limits_queued(c);
    if (GYRE_UNLIKELY(c->flags & GYRE_CF_SHARED))
        gyre__shared_publish(c);
    c->flags &= ~(unsigned)GYRE_CF_HEARD;
    gyre__conn_settle_later(c);
}

int gyre_conn_write(struct gyre_conn *c, const void *data, size_t len)
{
    int err = gyre__conn_may_queue(c, len);
    if (err != 0)
        return err;
    if (len == 0)
        return 0;
    if (data == NULL)
        return -EINVAL;
    err = gyre__segq_append(&c->out, &c->loop->segs, data, len);
    if (err != 0)
        return err;
    gyre__count(&c->loop->be->stats.bytes_copied_out, len);
    gyre__conn_queued(c, len);
    return 0;
}

int gyre_conn_writev(struct gyre_conn *c, const struct iovec *iov, int iov_count)
{
    if (!gyre__iov_count_valid(iov, iov_count, GYRE_WRITEV_MAX) || !gyre__iov_pieces_valid(iov, iov_count))
        return -EINVAL;
    size_t len = gyre__iov_bytes(iov, iov_count);
    int err = gyre__conn_may_queue(c, len);
    if (err != 0 || len == 0)
        return err;

    struct gyre__seg *tail = c->out.tail;
    size_t room = tail != NULL && tail->kind == GYRE_SEG_CHUNK ? tail->u.chunk.room : 0;
    if (room < len) { /* one chunk for all, so that running out of memory leaves nothing half done */
        tail = gyre__seg_chunk(&c->loop->segs, (uint32_t)len);
        if (tail == NULL)
            return -ENOMEM;
        gyre__segq_push(&c->out, tail);
    }
    for (int i = 0; i < iov_count; i++)
        (void)gyre__segq_append(&c->out, &c->loop->segs, iov[i].iov_base, iov[i].iov_len);
    gyre__count(&c->loop->be->stats.bytes_copied_out, len);
    gyre__conn_queued(c, len);
    return 0;
}

int gyre_conn_write_ref(struct gyre_conn *c, const void *data, size_t len, gyre_sent_fn *done, void *user)
{
    int err = gyre__conn_may_queue(c, len);
    if (err != 0)
        return err;
    if (data == NULL && len > 0)
        return -EINVAL;
    /* The kernel only reads it. */
    struct gyre__seg *seg = gyre__seg_new(&c->loop->segs, GYRE_SEG_REF, (void *)(uintptr_t)data, (uint32_t)len);
    if (seg == NULL)
        return -ENOMEM;
    seg->u.ref.done = done;
    seg->u.ref.user = user;
    gyre__segq_push(&c->out, seg);
    gyre__conn_queued(c, len);
    return 0;
}

size_t gyre_conn_outbound(const struct gyre_conn *c)
{
    return c->out.bytes;
}

bool gyre_conn_congested(const struct gyre_conn *c)
{
    return (c->flags & GYRE_CF_CONGESTED) != 0;
}

void gyre_conn_cork(struct gyre_conn *c)
{
    if (gyre__conn_usable(c) == 0)
        c->flags |= GYRE_CF_CORKED;
}

void gyre_conn_uncork(struct gyre_conn *c)
{
    if (gyre__conn_usable(c) != 0)
        return;
    c->flags &= ~(unsigned)GYRE_CF_CORKED;
    gyre__conn_settle_later(c);
}
