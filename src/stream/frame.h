/* SPDX-License-Identifier: MIT
 * What the two files of framing share: frame.c takes and queues frames for any framer, framer.c has those built in. */
#ifndef GYRE_STREAM_FRAME_H
#define GYRE_STREAM_FRAME_H

#include "base/mem.h"
#include "base/refuse.h"

#include <gyre/frame.h>

enum { GYRE_FRAME_LIMIT = 1 << 30, GYRE_FRAME_MAX_DEFAULT = 1 << 20 };

enum { GYRE_FRAME_PIECES_MAX = 1022 }; /* of a frame's payload; head and end make GYRE_WRITEV_MAX of it */

static inline size_t gyre__frame_max(const struct gyre_framer *f)
{
    return f->frame_max_bytes != 0 ? f->frame_max_bytes : GYRE_FRAME_MAX_DEFAULT;
}

/* Whether it can be used. Returns 0 or GYRE_EOPTION. */
static inline int gyre__framer_check(const struct gyre_framer *f)
{
    if (f->decode == NULL)
        return gyre__refuse("the framer has no decode; make it with gyre_framer_init_line() or one of its siblings");
    return gyre__check_range("frame_max_bytes", gyre__size_value(f->frame_max_bytes), 0, GYRE_FRAME_LIMIT);
}

#endif
