/* SPDX-License-Identifier: MIT
 * Forwarding: moving segments from one connection's inbound queue to another's outbound queue.
 *
 * The normal course: the receive buffers themselves change queues; nothing is copied. When buffers are getting scarce
 * (slow destinations hold them) the bytes are copied into chunks instead, which the write marks bound.
 *
 * Bulk goes through pipes instead, see splice.c: a pipe that the source received into changes queues like a buffer.
 *
 * Back-pressure: a destination above its high mark takes no more. The source then waits on the destination's list and
 * does not receive; when the destination drains, or closes, the source's on_data is called again. waiters.c says in
 * which order. */
#include "conn.h"

#include <errno.h>

/* Whether `src` may have to wait for `dst` when `max` bytes at most have moved. */
static bool may_wait(const struct gyre_conn *src, const struct gyre_conn *dst, size_t max)
{
    uint64_t bytes = src->in.bytes < max ? src->in.bytes : max;
    return (dst->flags & GYRE_CF_CONGESTED) || dst->out.bytes + bytes > dst->profile->options.write_high_bytes ||
           (dst->extra != NULL && dst->extra->forward_share != 0);
}

/* Whether the head of `src`'s queue, in a pipe, can be moved as it is; else what there is in pipes is read out. Returns
 * 0 or -ENOMEM. */
static int prepare_pipe(struct gyre_conn *src, const struct gyre_conn *dst, const struct gyre__seg *head, size_t max)
{
    if (head->len <= max && (dst->f.flags & GYRE_FDF_INET))
        return 0;
    return gyre__pipe_read_out(src);
}

/* Copy the first `len` bytes of `src`'s queue, all in its head. Returns `len` or -ENOMEM. */
static int64_t copy_front(struct gyre_conn *src, struct gyre_conn *dst, uint32_t len)
{
    struct gyre__segs *segs = &src->loop->segs;
    if (gyre__segq_append(&dst->out, segs, gyre__segq_head(&src->in)->data, len) != 0)
        return -ENOMEM;
    gyre__segq_consume(&src->in, segs, len, false);
    gyre__conn_forget_frame(src);
    gyre__count(&src->loop->be->stats.bytes_forward_copied, len);
    return len;
}

/* Move the head of `src`'s queue, at most `max` bytes of it. Returns how many, or -ENOMEM. */
static int64_t move_head(struct gyre_conn *src, struct gyre_conn *dst, size_t max)
{
    struct gyre__segs *segs = &src->loop->segs;
    struct gyre__seg *head = gyre__segq_head(&src->in);
    if (GYRE_UNLIKELY(head->kind == GYRE_SEG_PIPE)) {
        if (prepare_pipe(src, dst, head, max) != 0)
            return -ENOMEM;
        head = gyre__segq_head(&src->in);
    }
    uint32_t len = head->len;
    if (GYRE_UNLIKELY(len >= segs->pool->size || src->bulk > 0))
        gyre__pipe_weigh(src, dst, len);
    if (len > max) {
        len = (uint32_t)max;
        if (head->kind == GYRE_SEG_CHUNK) /* it would be copied, into a chunk of its own, however short it is */
            return copy_front(src, dst, len);
        if (gyre__segq_split_head(&src->in, segs, len) != 0)
            return -ENOMEM;
    }
    head = gyre__segq_pop(&src->in);
    gyre__conn_forget_frame(src);
    if (head->kind == GYRE_SEG_BUF && gyre__bufpool_scarce(segs->pool) &&
        gyre__segq_append(&dst->out, segs, head->data, len) == 0) {
        gyre__count(&src->loop->be->stats.bytes_forward_copied, len);
        gyre__seg_free(segs, head, 0);
        return len;
    }
    gyre__count(&src->loop->be->stats.bytes_forwarded, len);
    gyre__segq_push(&dst->out, head);
    return len;
}

int64_t gyre_conn_forward(struct gyre_conn *src, struct gyre_conn *dst, size_t max_bytes)
{
    int err = gyre__conn_usable(src);
    /* Before anything else of `dst` is looked at, which then is another thread's. */
    if (err == 0 && dst != NULL && dst->magic == GYRE_CONN_MAGIC && src->loop != dst->loop)
        return -EXDEV;
    if (err == 0)
        err = gyre__conn_usable(dst);
    if (err != 0)
        return err;
    if (dst->flags & GYRE_CF_SEND_FAILED)
        return dst->err;
    if (dst->flags & GYRE_CF_SHUT)
        return -EPIPE;

    /* First of all, so that running out of memory leaves nothing half done. */
    if (GYRE_UNLIKELY(may_wait(src, dst, max_bytes)) &&
        (gyre__conn_extra(src) == NULL || gyre__conn_extra(dst) == NULL))
        return -ENOMEM;

    int64_t moved = 0;
    while (src->in.tail != NULL && (size_t)moved < max_bytes && !gyre__forward_must_wait(src, dst)) {
        int64_t n = move_head(src, dst, max_bytes - (size_t)moved);
        if (n < 0 && moved == 0)
            return n;
        if (n < 0)
            break;
        moved += n;
        gyre__conn_queued(dst, (size_t)n);
        if (GYRE_UNLIKELY(src->extra != NULL)) {
            src->extra->passed_over = NULL;
            src->extra->forward_moved += dst->extra != NULL && dst->extra->forward_share != 0 ? (uint64_t)n : 0;
        }
    }
    if (src->in.tail == NULL)
        src->flags &= ~(unsigned)GYRE_CF_PIPED;
    if ((size_t)moved < max_bytes &&
        ((dst->flags & GYRE_CF_CONGESTED) || (src->in.tail != NULL && gyre__forward_must_wait(src, dst))))
        gyre__forward_wait(src, dst);
    if (GYRE_UNLIKELY(src->recv.state == GYRE_OPS_IDLE))
        gyre__conn_settle_later(src);
    return moved;
}
