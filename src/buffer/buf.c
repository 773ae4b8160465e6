/* SPDX-License-Identifier: MIT
 * A piece of received bytes that the user holds beyond the handler: making it of a segment, releasing it. The calls
 * that hold bytes are in stream/read.c and datagram/receive.c. */
#include "buf.h"

#include <errno.h>
#include <string.h>

int gyre__buf_wrap(struct gyre_buf **out, struct gyre__segs *segs, struct gyre__seg *seg)
{
    struct gyre_buf *buf = gyre__alloc(segs->mem, sizeof *buf);
    if (buf == NULL)
        return -ENOMEM;
    buf->segs = segs;
    buf->seg = seg;
    *out = buf;
    return 0;
}

void gyre__buf_free(struct gyre_buf *buf)
{
    gyre__seg_free(buf->segs, buf->seg, 0);
    gyre__free(buf->segs->mem, buf);
}
