/* SPDX-License-Identifier: MIT
 * How many completions to wait for.
 *
 * Waiting for one, a busy loop wakes for every two or three receives: it is as fast as its peers, so it never finds
 * many. Waiting for a few more saves system calls and time, if they are sure to come soon. So the number follows
 * what came lately, and is bounded: by WAIT_FOR_MAX, by what fits the first-level cache, and by a share of the
 * receives that are armed, or peers who wait for their answers would be made to wait for each other (datagrams:
 * reach.h). Sends complete as they are submitted and are waited for on top. Where the kernel can (6.12) it holds out
 * for all of them for HOLD_US; after that, and with little traffic or large messages, one completion is enough.
 *
 * Bulk that goes through pipes is another matter. Its messages come in pieces, and a loop that is faster than its peers
 * wakes for each. So with CROWD such streams or more a wait lasts up to BULK_HOLD_US, in which messages become whole
 * and fewer, larger moves make them up. A few streams may all be waiting for the loop, so they are never held up.
 * TUNING.md has the figures. */
#ifndef GYRE_URING_BATCH_H
#define GYRE_URING_BATCH_H

#include "reach.h"

#include <stdbool.h>
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

    GYRE_BATCH_ROUND = 64,         /* moves over which bulk streams are counted */
    GYRE_BATCH_CROWD = 20,         /* that many have enough to do without each other's answers */
    GYRE_BATCH_FRESH = 4,          /* waits without a move after which nobody is held up any longer */
    GYRE_BATCH_BULK_WAIT_FOR = 16, /* completions that end the wait early */
    GYRE_BATCH_BULK_HOLD_US = 100,
};

struct gyre__batch {
    uint32_t armed;    /* receives in flight */
    uint32_t receives; /* done since the last note */
    uint64_t bytes;    /* in them */
    uint32_t rate;     /* receives per wait, times 64: an average over the last eight or so */
    uint32_t size;     /* bytes per receive, times 8: likewise */
    uint8_t moves;     /* of bulk into pipes, in this round */
    uint8_t streams;   /* that made them */
    uint8_t crowd;     /* streams of the round before */
    uint8_t round;     /* its number */
    uint8_t fresh;     /* counts down with the waits since the last move */
    struct gyre__reach reach;
};

/* A bulk stream brought a pipe; `seen` is the stream's own note of the round that it was last counted in. */
static inline void gyre__batch_bulk(struct gyre__batch *b, uint8_t *seen)
{
    b->fresh = GYRE_BATCH_FRESH;
    if (*seen != b->round) {
        *seen = b->round;
        b->streams++;
    }
    if (++b->moves < GYRE_BATCH_ROUND)
        return;
    b->crowd = b->streams;
    b->streams = 0;
    b->moves = 0;
    b->round++;
}

/* Whether to let more of the bulk gather. */
static inline bool gyre__batch_crowded(const struct gyre__batch *b)
{
    return b->crowd >= GYRE_BATCH_CROWD && b->fresh > 0;
}

static inline void gyre__batch_received(struct gyre__batch *b, uint32_t bytes)
{
    b->receives++;
    b->bytes += bytes;
}

static inline void gyre__batch_heard(struct gyre__batch *b, uint32_t bytes)
{
    gyre__batch_received(b, bytes);
    b->reach.heard++;
}

/* A wait is over. */
static inline void gyre__batch_note(struct gyre__batch *b)
{
    if (b->reach.heard > 0 || b->reach.trying)
        gyre__reach_learn(&b->reach);
    b->reach.asked = 0;
    b->rate = b->rate - b->rate / 8 + b->receives * 8;
    if (b->receives > 0)
        b->size = b->size - b->size / 8 + (uint32_t)(b->bytes / b->receives);
    b->receives = 0;
    b->bytes = 0;
    if (b->fresh > 0)
        b->fresh--;
}

static inline bool gyre__batch_busy(const struct gyre__batch *b)
{
    return b->rate >= GYRE_BATCH_WORTH * 64;
}

/* Whether the next wait is to be a trial of how many datagrams are under way. A flood comes many at a time anyway. */
static inline bool gyre__batch_tries(const struct gyre__batch *b)
{
    bool flood = b->rate >= GYRE_BATCH_WAIT_FOR_MAX * 64 && b->reach.found == 0;
    return gyre__reach_due(&b->reach) && gyre__batch_busy(b) && !flood;
}

/* How many receives to wait for; 1: whatever comes. */
static inline uint32_t gyre__batch_want(const struct gyre__batch *b)
{
    uint32_t want = b->rate / 64 + GYRE_BATCH_MORE, fits = GYRE_BATCH_BYTES / (b->size / 8 + 1);
    uint32_t share = b->reach.found > 0 ? GYRE_BATCH_WAIT_FOR_MAX : b->armed / GYRE_BATCH_SHARE;
    if (!gyre__batch_busy(b))
        return 1;
    if (want > share)
        want = share;
    if (want > fits)
        want = fits;
    if (want > GYRE_BATCH_WAIT_FOR_MAX)
        want = GYRE_BATCH_WAIT_FOR_MAX;
    return want > 1 ? want : 1;
}

#endif
