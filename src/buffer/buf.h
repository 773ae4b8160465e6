/* SPDX-License-Identifier: MIT
 * A piece of received bytes that the user holds. */
#ifndef GYRE_BUFFER_BUF_H
#define GYRE_BUFFER_BUF_H

#include "seg.h"

#include <gyre/buf.h>

struct gyre_buf {
    struct gyre__segs *segs;
    struct gyre__seg *seg;
};

/* A buffer for the user around `seg`. Returns 0, or -ENOMEM, and then `seg` stays the caller's. */
int gyre__buf_wrap(struct gyre_buf **out, struct gyre__segs *segs, struct gyre__seg *seg);

/* The user's part is over: release the bytes and free the buffer. */
void gyre__buf_free(struct gyre_buf *buf);

#endif
