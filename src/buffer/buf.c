/* SPDX-License-Identifier: MIT
 * Holding received bytes beyond the handler. */
#include "stream/conn.h"

#include <errno.h>
#include <string.h>

struct gyre_buf {
    struct gyre_loop *loop;
    struct gyre__seg *seg;
};

/* The first `len` bytes as a segment of its own: in place if they lie in one receive buffer and those are plenty. */
static struct gyre__seg *detach(struct gyre_conn *c, uint32_t len)
{
    struct gyre__segs *segs = &c->loop->segs;
    struct gyre__seg *head = gyre__segq_head(&c->in), *seg;
    if (head->kind == GYRE_SEG_BUF && head->len >= len && !gyre__bufpool_scarce(segs->pool)) {
        seg = gyre__seg_new(segs, GYRE_SEG_BUF, head->data, len);
        if (seg != NULL) {
            seg->buf = head->buf;
            gyre__bufpool_hold(segs->pool, head->buf);
        }
        return seg;
    }
    seg = gyre__seg_chunk(segs, len);
    if (seg == NULL)
        return NULL;
    for (; seg->len < len; head = head->next) {
        uint32_t part = head->len < len - seg->len ? head->len : len - seg->len;
        memcpy(seg->data + seg->len, head->data, part);
        seg->len += part;
    }
    gyre__count(&c->loop->be->stats.bytes_copied_in, len);
    return seg;
}

int gyre_buf_hold(struct gyre_buf **out, struct gyre_slice *view, struct gyre_conn *c, size_t len)
{
    int err = gyre__conn_readable(c);
    if (err == 0)
        err = gyre__conn_look(c);
    if (err != 0)
        return err;
    if (len == 0)
        return -EINVAL;
    if (len > c->in.bytes)
        return -EAGAIN;
    struct gyre_buf *buf = gyre__alloc(c->loop->mem, sizeof *buf);
    if (buf == NULL)
        return -ENOMEM;
    buf->loop = c->loop;
    buf->seg = detach(c, (uint32_t)len);
    if (buf->seg == NULL) {
        gyre__free(c->loop->mem, buf);
        return -ENOMEM;
    }
    *view = (struct gyre_slice){.data = buf->seg->data, .len = buf->seg->len};
    *out = buf;
    (void)gyre_conn_discard(c, len);
    return 0;
}

int gyre__buf_wrap(struct gyre_buf **out, struct gyre_loop *l, struct gyre__seg *seg)
{
    struct gyre_buf *buf = gyre__alloc(l->mem, sizeof *buf);
    if (buf == NULL)
        return -ENOMEM;
    buf->loop = l;
    buf->seg = seg;
    *out = buf;
    return 0;
}

void gyre_buf_release(struct gyre_buf *buf)
{
    if (buf == NULL)
        return;
    gyre__seg_free(&buf->loop->segs, buf->seg, 0);
    gyre__free(buf->loop->mem, buf);
}
