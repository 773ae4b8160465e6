/* SPDX-License-Identifier: MIT
 * Bulk that is forwarded without being looked at goes through pipes: within the kernel, from socket to socket.
 *
 * The normal course: a source of which receive after receive fills its buffer and is forwarded is marked
 * GYRE_FDF_PIPE. From then on its receives bring pipes, each a segment whose bytes nobody has seen. Forwarding moves it
 * like any other; the destination sends it with a SPLICE. An emptied pipe goes back to the loop's few. When receives
 * grow small the mark is taken back.
 *
 * What can go wrong: the handler wants to look. Then the bytes are read out of the pipe into a chunk first, and the
 * source is never marked again, for it is no mere relay. The same if they are forwarded in parts, or to what is no TCP
 * socket. No pipe is free, or none can be opened: receives bring buffers as ever. A pipe whose bytes are thrown away
 * is closed. */
#include "conn.h"
#include "buffer/pipes.h"

#include <errno.h>

enum { SCORE_MAX = 15 };

/* ---- whether to ---- */

static void mark(struct gyre_conn *c)
{
    gyre__pipes_open(&c->loop->pool, c->loop->be);
    if (c->loop->pool.pipe_count == 0) {
        c->bulk = 0; /* to be tried again, but not with each receive */
        return;
    }
    c->f.flags |= GYRE_FDF_PIPE;
    c->flags |= GYRE_CF_MARKED;
}

static void unmark(struct gyre_conn *c)
{
    c->f.flags &= (uint8_t)~GYRE_FDF_PIPE;
    c->flags &= ~(unsigned)GYRE_CF_MARKED;
}

void gyre__pipe_weigh(struct gyre_conn *src, const struct gyre_conn *dst, uint32_t len)
{
    const struct gyre_loop *l = src->loop;
    bool large = len >= l->pool.size;
    if (large && src->bulk < SCORE_MAX)
        src->bulk++;
    else if (!large && src->bulk > 0)
        src->bulk--;
    if (src->bulk == 0)
        unmark(src);
    if (src->bulk < SCORE_MAX || (src->f.flags & GYRE_FDF_PIPE) || (src->flags & GYRE_CF_LOOKED))
        return;
    if (src->flags & GYRE_CF_MARKED)
        src->flags |= GYRE_CF_LOOKED; /* the backend has taken the mark back: it cannot */
    else if ((src->f.flags & dst->f.flags & GYRE_FDF_INET) && l->be->ops->sock->pipe != NULL &&
             src->profile->options.turn_max_bytes == 0)
        mark(src);
}

/* ---- receiving ---- */

struct gyre__seg *gyre__pipe_received(struct gyre_conn *c, const struct gyre__event *ev)
{
    struct gyre__seg *seg = gyre__seg_new(&c->loop->segs, GYRE_SEG_PIPE, NULL, (uint32_t)ev->res);
    if (seg == NULL) {
        gyre__pipes_close(&c->loop->pool, c->loop->be, ev->buf);
        return NULL;
    }
    seg->buf = ev->buf;
    if (c->state == GYRE_CONN_OPEN || c->state == GYRE_CONN_DETACHING) {
        c->flags |= GYRE_CF_PIPED;
        gyre__pipes_open(&c->loop->pool, c->loop->be);
    } else {
        c->f.flags &= (uint8_t)~GYRE_FDF_PIPE; /* it would be closed with each receive */
    }
    return seg;
}

/* What is in the pipe of `seg` as a chunk; `seg` is freed then. NULL if there is no memory. */
static struct gyre__seg *read_out(struct gyre_loop *l, struct gyre__seg *seg)
{
    const struct gyre__pipe_ops *ops = l->be->ops->sock->pipe;
    struct gyre__seg *chunk = gyre__seg_chunk(&l->segs, seg->len);
    if (chunk == NULL)
        return NULL;
    while (seg->len > 0) {
        int64_t n = ops->read(l->be, &l->pool.pipes[seg->buf], chunk->data + chunk->len, seg->len);
        GYRE_CHECK(n > 0); /* they are there: nobody else has the pipe */
        chunk->len += (uint32_t)n;
        chunk->u.chunk.room -= (uint32_t)n;
        seg->len -= (uint32_t)n;
    }
    gyre__count(&l->be->stats.bytes_copied_in, chunk->len);
    gyre__seg_free(&l->segs, seg, 0);
    return chunk;
}

int gyre__pipe_read_out(struct gyre_conn *c)
{
    struct gyre__segq kept = {.bytes = 0};
    int err = 0;
    c->flags |= GYRE_CF_LOOKED;
    unmark(c);
    while (c->in.tail != NULL) {
        struct gyre__seg *seg = gyre__segq_pop(&c->in), *chunk = NULL;
        if (seg->kind == GYRE_SEG_PIPE) {
            chunk = read_out(c->loop, seg);
            err = chunk == NULL ? -ENOMEM : err;
        }
        gyre__segq_push(&kept, chunk != NULL ? chunk : seg);
    }
    c->in = kept;
    if (err == 0)
        c->flags &= ~(unsigned)GYRE_CF_PIPED;
    return err;
}

/* ---- sending ---- */

void gyre__pipe_send(struct gyre_conn *c, const struct gyre__seg *seg)
{
    struct gyre_loop *l = c->loop;
    c->send.kind = GYRE_OP_SPLICE;
    c->send.flags = 0;
    c->send.u.splice.pipe = &l->pool.pipes[seg->buf];
    c->send.u.splice.len = seg->len;
    gyre__count(&l->be->stats.send_pieces, 1);
    gyre__count(&l->be->stats.sends, 1);
    gyre__op_submit(l, &c->send);
}

void gyre__pipe_sent(struct gyre_conn *c, uint32_t len)
{
    struct gyre__seg *seg = gyre__segq_head(&c->out);
    GYRE_CHECK(seg != NULL && seg->kind == GYRE_SEG_PIPE && len <= seg->len);
    gyre__count(&c->loop->be->stats.bytes_spliced, len);
    c->out.bytes -= len;
    seg->len -= len;
    if (seg->len == 0)
        gyre__seg_free(&c->loop->segs, gyre__segq_pop(&c->out), 0);
}
