/* SPDX-License-Identifier: MIT
 * Addresses in, one connection out (RFC 8305): the addresses are tried one after the other, and the next one begins
 * before the last has failed. The first socket that connects becomes the connection's. */
#ifndef GYRE_CONNECT_RACE_H
#define GYRE_CONNECT_RACE_H

#include "route.h"

/* An address, and what came of it. */
struct gyre__target {
    struct gyre__addr addr;
    int err; /* 0: not tried yet, or no answer so far */
};

struct gyre__attempt;

/* It belongs to the connection until that has its socket or is gone. */
struct gyre__race {
    struct gyre__dialing dialing;
    struct gyre_conn *conn;
    struct gyre__route route; /* where attempts leave from; `to` is each one's own */
    struct gyre__target *targets;
    uint32_t count;
    uint32_t next; /* those before it were tried */
    struct gyre__attempt *attempts; /* in flight */
    struct gyre__loop_timer timer;  /* until the next one begins */
    struct gyre_lookup *lookup;     /* dial.c: NULL: none under way */
    int err;                        /* dial.c: of the lookup */
    char text[];                    /* the address as the user gave it */
};

/* Begin with the first target. From here on failures are told by on_close. */
void gyre__race_start(struct gyre__race *r);

/* Give up what is in flight, which ends later and by itself. */
void gyre__race_stop(struct gyre__race *r);

/* So that families take turns, as far as there are addresses of both; the first stays the first. */
void gyre__race_interleave(struct gyre__target *targets, uint32_t count);

/* What this room keeps of a loop: attempts. any(): whether one has a socket. abandon(): the backend is lost. */
int gyre__attempts_init(struct gyre_loop *l);
void gyre__attempts_fini(struct gyre_loop *l);
bool gyre__attempts_any(const struct gyre_loop *l);
void gyre__attempts_abandon(struct gyre_loop *l);
void gyre__attempt_on_connect(struct gyre__op *op, const struct gyre__event *ev);
void gyre__race_on_timer(struct gyre__loop_timer *t);

#endif
