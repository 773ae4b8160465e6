/* SPDX-License-Identifier: MIT
 * Holding received bytes beyond the handler. */
#include "buf.h"
#include "stream/conn.h"

#include <errno.h>
#include <string.h>

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
