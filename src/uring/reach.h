/* SPDX-License-Identifier: MIT
 * Whether to wait for several datagrams at once.
 *
 * batch.h bounds its waits by a share of the receives that are armed, one for each stream. A datagram socket has one
 * for all its peers, and how many those are, and how much each has under way, cannot be seen; and it wakes its ring
 * once for all that comes meanwhile, so a wait for two lasts as long as may be held out, as one for twelve does.
 * With few peers all of them would soon wait for that. So it is tried: now and then a busy loop holds out four times
 * as long, and counts what comes. A peer that waits for its answer sends nothing more meanwhile, so what comes is
 * under way at once, and if that is much, a short wait leaves most of it on its way. The next trial is 64 waits
 * later, then 128, up to 1024. Three waits in a row that found far less than they were for, or most of what the
 * trial found, are the last until then. */
#ifndef GYRE_URING_REACH_H
#define GYRE_URING_REACH_H

#include <stdbool.h>
#include <stdint.h>

enum {
    GYRE_REACH_HOLD_US = 200, /* how long a trial waits */
    GYRE_REACH_ENOUGH = 28,   /* datagrams that must come meanwhile */
    GYRE_REACH_PAUSE = 64,    /* waits between trials, doubled so often */
    GYRE_REACH_DOUBLED_MAX = 4,
    GYRE_REACH_STRIKES = 3, /* waits in vain, one after the other, until none more is made */
};

struct gyre__reach {
    uint32_t heard;   /* datagrams since the last note */
    uint32_t found;   /* in the last trial; 0: not enough, or not any more */
    uint32_t waits;   /* that brought datagrams, since that trial */
    uint32_t doubled; /* so often has the pause been */
    uint32_t asked;   /* receives that the wait under way is for; 0: whatever comes */
    uint32_t strikes;
    bool trying;
};

/* Whether the next wait of a busy loop should be a trial. */
static inline bool gyre__reach_due(const struct gyre__reach *r)
{
    return r->waits >= (uint32_t)GYRE_REACH_PAUSE << r->doubled;
}

/* A wait is over that brought datagrams, or was a trial. */
static inline void gyre__reach_learn(struct gyre__reach *r)
{
    r->waits++;
    if (r->trying) {
        r->found = r->heard >= GYRE_REACH_ENOUGH ? r->heard : 0;
        r->doubled += r->doubled < GYRE_REACH_DOUBLED_MAX;
        r->waits = 0;
        r->strikes = 0;
    } else if (r->asked > 0 && r->found > 0) {
        bool vain = r->heard < r->asked / 2 || r->heard > r->found / 4 * 3;
        r->strikes = vain ? r->strikes + 1 : 0;
        if (r->strikes == GYRE_REACH_STRIKES)
            r->found = 0;
    }
    r->heard = 0;
    r->trying = false;
}

#endif
