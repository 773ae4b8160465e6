/* SPDX-License-Identifier: MIT
 * Taking frames from a connection and queueing them, whatever the framer.
 *
 * The normal course: a receive brings whole frames, each is described by the framer's decode, and its payload is a view
 * of the receive buffer. A payload that lies in several pieces is copied into one of its own, only it and not what
 * follows.
 *
 * What can go wrong: the frame is not whole. Then what the decoder wants to remember is kept in the connection's side
 * record until bytes are taken, and receiving goes on past `read_max_bytes` as far as this frame needs. */
#include "frame.h"
#include "conn.h"

#include <errno.h>

enum { TURN_BYTES = 256 << 10 };

/* Keep what an incomplete frame is known to be. Returns -EAGAIN, GYRE_EFRAME or -ENOMEM. */
static int remember(struct gyre_conn *c, const struct gyre_framer *framer, const struct gyre_frame *frame)
{
    size_t need = frame->need > c->in.bytes ? frame->need : (size_t)c->in.bytes + 1;
    if (need > gyre__frame_max(framer))
        return GYRE_EFRAME;
    struct gyre__extra *extra = gyre__conn_extra(c);
    if (extra == NULL)
        return -ENOMEM;
    extra->frame.framer = framer;
    extra->frame.need = need;
    extra->frame.state = frame->state;
    if (c->recv.state == GYRE_OPS_IDLE)
        gyre__conn_settle_later(c);
    return -EAGAIN;
}

static bool makes_sense(const struct gyre_conn *c, const struct gyre_frame *frame)
{
    size_t here = c->in.bytes;
    if (frame->skip > here || frame->len > here || frame->drop > here)
        return false;
    size_t total = frame->skip + frame->len + frame->drop;
    return total > 0 && total <= here;
}

int gyre_frame_next(struct gyre_slice *out, struct gyre_conn *c, const struct gyre_framer *framer)
{
    struct gyre_frame frame = {.skip = 0};
    int err = gyre__conn_usable(c);
    if (err == 0)
        err = gyre__conn_look(c);
    if (err != 0)
        return err;
    if (framer == NULL || framer->decode == NULL || out == NULL)
        return -EINVAL;
    if (framer->frame_max_bytes > GYRE_FRAME_LIMIT)
        return gyre__framer_check(framer);
    if (c->extra != NULL && c->extra->frame.framer == framer) {
        frame.need = c->extra->frame.need;
        frame.state = c->extra->frame.state;
    }
    if (c->in.bytes == 0 || c->in.bytes < frame.need)
        return -EAGAIN;
    frame.need = 0;
    err = framer->decode(&frame, framer, c);
    if (err != 0)
        return err == -EAGAIN ? remember(c, framer, &frame) : err;
    if (!makes_sense(c, &frame))
        return -EINVAL;
    if (frame.skip + frame.len + frame.drop > gyre__frame_max(framer))
        return GYRE_EFRAME;
    return gyre__conn_take(c, frame.skip, frame.len, frame.drop, out);
}

/* ---- push ---- */

/* The peer's bytes make no frame. If the handler neither closed nor took any, nobody ever will. */
static void bad_frame(struct gyre_conn *c, int err)
{
    const struct gyre_conn_handlers *handlers = c->profile->handlers;
    uint32_t before = c->in.bytes;
    if (handlers->on_bad_frame != NULL)
        handlers->on_bad_frame(c, err);
    if (c->state == GYRE_CONN_OPEN && c->in.bytes == before)
        gyre__conn_fail(c, err);
}

static const struct gyre_framer *framer_of(const struct gyre_conn *c)
{
    return c->extra != NULL && c->extra->framer_set ? c->extra->framer : c->profile->options.framer;
}

bool gyre__frame_cut_short(const struct gyre_conn *c)
{
    const struct gyre_framer *framer = framer_of(c);
    return framer != NULL && c->extra != NULL && c->extra->frame.framer == framer;
}

void gyre__conn_on_frames(struct gyre_conn *c)
{
    const struct gyre_conn_handlers *handlers = c->profile->handlers;
    size_t bytes = 0;
    while (gyre__conn_may_deliver(c)) {
        const struct gyre_framer *framer = framer_of(c);
        struct gyre_slice frame;
        uint32_t before = c->in.bytes;
        if (framer == NULL) {
            c->flags &= ~(unsigned)GYRE_CF_DELIVER;
            handlers->on_data(c);
            return;
        }
        if (bytes >= TURN_BYTES) { /* the others' turn */
            c->flags |= GYRE_CF_FRAMES;
            gyre__conn_settle_later(c);
            return;
        }
        int err = gyre_frame_next(&frame, c, framer);
        if (err == -EAGAIN)
            return;
        bytes += before - c->in.bytes;
        if (err == 0)
            handlers->on_frame(c, frame);
        else
            bad_frame(c, err);
        gyre__segs_settle(&c->loop->segs);
    }
}

int gyre_conn_set_framer(struct gyre_conn *c, const struct gyre_framer *framer)
{
    int err = gyre__conn_usable(c);
    if (err != 0)
        return err;
    const struct gyre_conn_handlers *handlers = c->profile->handlers;
    err = framer != NULL ? gyre__framer_check(framer) : 0;
    if (err != 0)
        return err;
    if (framer != NULL ? handlers->on_frame == NULL : handlers->on_data == NULL)
        return GYRE_EHANDLERS;
    struct gyre__extra *extra = gyre__conn_extra(c);
    if (extra == NULL)
        return -ENOMEM;
    extra->framer = framer;
    extra->framer_set = true;
    gyre__conn_forget_frame(c);
    c->flags |= GYRE_CF_DELIVER;
    gyre__conn_settle_later(c);
    return 0;
}

/* ---- writing ---- */

int gyre_frame_writev(struct gyre_conn *c, const struct gyre_framer *framer, const struct iovec *iov, int iov_count)
{
    int err = gyre__conn_usable(c);
    if (err != 0)
        return err;
    if (framer == NULL || !gyre__iov_count_valid(iov, iov_count, GYRE_FRAME_PIECES_MAX))
        return -EINVAL;
    if (framer->encode == NULL)
        return -EOPNOTSUPP;
    if (!gyre__iov_pieces_valid(iov, iov_count))
        return -EINVAL;
    return framer->encode(framer, c, iov, iov_count);
}

int gyre_frame_write(struct gyre_conn *c, const struct gyre_framer *framer, const void *data, size_t len)
{
    const struct iovec iov = gyre__iov_of(data, len);
    return gyre_frame_writev(c, framer, &iov, 1);
}
