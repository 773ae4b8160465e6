/* SPDX-License-Identifier: MIT
 * How many completions to wait for.
 *
 * Waiting for one, a busy loop wakes for every two or three receives: it is as fast as its peers, so it never finds
 * many. Waiting for a few more saves system calls and time, if they are sure to come soon. So the number follows what
 * came lately, and is bounded: by WAIT_FOR_MAX, by what fits the first-level cache, and by a share of the receives that
 * are armed, or peers who wait for their answers would be made to wait for each other. Sends complete as they are
 * submitted and are waited for on top. Where the kernel can (6.12) it holds out for all of them for HOLD_US; after
 * that, and with little traffic or large messages, one completion is enough.
 * README.md has the figures. */
#ifndef GYRE_URING_BATCH_H
#define GYRE_URING_BATCH_H

#include <stdint.h>

enum {
    GYRE_BATCH_WORTH = 3, /* receives per wait from which on it pays */
    GYRE_BATCH_MORE = 2,
    GYRE_BATCH_WAIT_FOR_MAX = 12,
    GYRE_BATCH_ALL_MAX = 24, /* sends included: the kernel runs as many receives as are waited for, 20 at the least, and
                                each takes a buffer until its answer was sent */
    GYRE_BATCH_SHARE = 5, /* never for more than one in so many of the receives that are armed */
    GYRE_BATCH_BYTES = 24 << 10,
    GYRE_BATCH_HOLD_US = 50,
};

struct gyre_batch {
    uint32_t armed;    /* receives in flight */
    uint32_t receives; /* done since the last note */
    uint64_t bytes;    /* in them */
    uint32_t rate;     /* receives per wait, times 64: an average over the last eight or so */
    uint32_t size;     /* bytes per receive, times 8: likewise */
};

static inline void gyre__batch_received(struct gyre_batch *b, uint32_t bytes)
{
    b->receives++;
    b->bytes += bytes;
}

/* A wait is over. */
static inline void gyre__batch_note(struct gyre_batch *b)
{
    b->rate = b->rate - b->rate / 8 + b->receives * 8;
    if (b->receives > 0)
        b->size = b->size - b->size / 8 + (uint32_t)(b->bytes / b->receives);
    b->receives = 0;
    b->bytes = 0;
}

/* How many receives to wait for; 1: whatever comes. */
static inline uint32_t gyre__batch_want(const struct gyre_batch *b)
{
    uint32_t want = b->rate / 64 + GYRE_BATCH_MORE, fits = GYRE_BATCH_BYTES / (b->size / 8 + 1);
    if (b->rate < GYRE_BATCH_WORTH * 64)
        return 1;
    if (want > b->armed / GYRE_BATCH_SHARE)
        want = b->armed / GYRE_BATCH_SHARE;
    if (want > fits)
        want = fits;
    if (want > GYRE_BATCH_WAIT_FOR_MAX)
        want = GYRE_BATCH_WAIT_FOR_MAX;
    return want > 1 ? want : 1;
}

#endif
