/* SPDX-License-Identifier: MIT
 * A datagram socket from the inside.
 *
 *   OPEN    one receive is in flight, unless paused; sends go out as they come.
 *   CLOSING gyre_udp_close(): no more receiving; what is queued is sent, or the linger time passes.
 *   ENDING  every op was asked to cancel; waits for their last events. Nothing is freed before that.
 *   FREE    on_close was called; the slot may be used again.
 *
 * What can go wrong: an error that the network reported ends the receive, which is armed again; one of the socket
 * itself leads to ENDING. All callbacks run from events, timers, tasks and settling. */
#ifndef GYRE_DATAGRAM_UDP_H
#define GYRE_DATAGRAM_UDP_H

#include "socket/addr.h"
#include "socket/path.h"
#include "parse.h"
#include "loop/loop.h"

#include <gyre/udp.h>

enum { GYRE_UDP_MAGIC = 0x75647020, GYRE_UDP_DEAD_MAGIC = 0x64656164 };

enum gyre__udp_state { GYRE_UDP_FREE = 0, GYRE_UDP_OPEN, GYRE_UDP_CLOSING, GYRE_UDP_ENDING };

enum {
    GYRE_UDPF_SETTLE = 1u << 0,     /* on the loop's settle list */
    GYRE_UDPF_PAUSED = 1u << 1,     /* gyre_udp_pause() */
    GYRE_UDPF_STARVED = 1u << 2,    /* on the loop's list of those */
    GYRE_UDPF_CONNECTED = 1u << 3,
    GYRE_UDPF_DRAIN_OWED = 1u << 4, /* a send was refused: on_drain must follow */
    GYRE_UDPF_BLOCKED = 1u << 5,    /* the socket's buffer was full: one send at a time, which waits */
    GYRE_UDPF_DUAL = 1u << 6,       /* IPv6 that carries IPv4 */
    GYRE_UDPF_GSO_KNOWN = 1u << 7,  /* whether the kernel cuts was asked; */
    GYRE_UDPF_GSO = 1u << 8,        /* it does */
    GYRE_UDPF_NO_RUNS = 1u << 9,    /* what goes to one receiver does not leave as one */
    GYRE_UDPF_ENTERED = 1u << 10,   /* its state was changed by a mark; settling has yet to act on that */
};

enum {
    GYRE_UDP_WINDOW = 64,          /* sends in flight */
    GYRE_UDP_SENDS_PER_SLAB = 64,
    GYRE_UDP_SEGMENTS_MAX = 64,    /* of one cut send; Linux has that limit */
    GYRE_UDP_NAME_ROOM = 32,       /* in receive buffers, for the sender's address; */
    GYRE_UDP_UNIX_NAME_ROOM = 112, /* of a unix one */
    GYRE_UDP_CONTROL_ROOM = 128,   /* for control data, if any were asked for */
    GYRE_UDP_GRO_BUF_MIN = 65536 + 256,
};

struct gyre__udp_item;
struct gyre__udp_run;

struct gyre_udp {
    uint32_t magic;
    uint32_t flags; /* GYRE_UDPF_* */
    struct gyre__fd f;
    struct gyre__op recv;
    struct msghdr room; /* in receive buffers; see seam/op.h */
    struct gyre_loop *loop;
    const struct gyre_udp_handlers *handlers;
    struct gyre_udp_options options;
    struct gyre_udp *next;        /* free; or on the settle list */
    struct gyre_udp *starved_next;
    struct gyre__segq in;         /* received while paused, whole receive buffers */
    size_t in_skip;               /* bytes of the first one's datagram that were delivered: segments of GRO */
    const struct gyre_datagram *now; /* what on_datagram is looking at; */
    const struct gyre__dgram_info *now_info;
    uint16_t now_buf;
    struct gyre__udp_item *head, **tail;          /* queued, not in flight */
    struct gyre__udp_item *flying, **flying_tail; /* in flight, oldest first; */
    uint32_t sending;             /* how many */
    uint32_t window;              /* and how many at most, unless one waits */
    uint32_t out_count;           /* both */
    size_t out_bytes;
    uint64_t send_seq;
    struct gyre__loop_timer timer; /* CLOSING: the linger time */
    struct gyre_udp_counts stats;
    struct gyre__path path;       /* the socket file that bind made */
    uint32_t slot;
    uint32_t generation;
    int err;       /* for on_close */
    int family;
    uint32_t errors; /* that receives have told since the last datagram */
    uint8_t state; /* enum gyre__udp_state */
    struct gyre__addr addr; /* bound */
    char address[GYRE_ADDR_TEXT_MAX];
};

/* The datagram sockets of a loop. */
struct gyre__udps {
    struct gyre_udp **table; /* by slot; their memory stays until the loop goes */
    uint32_t count, cap;     /* of `table` */
    uint32_t open;           /* sockets in use */
    struct gyre_udp *free;
    struct gyre_udp *settle_head, **settle_tail;
    struct gyre_udp *starved; /* receives that found no buffer or no memory */
    struct gyre__udp_item *free_sends;
    struct gyre__udp_slab *slabs; /* of them */
    struct gyre__udp_run *free_runs;
};

/* ---- udp.c, life.c ---- */

/* A fresh record, with what outlives a slot's holders: its number and generations. NULL when out of memory. */
struct gyre_udp *gyre__udp_take_slot(struct gyre_loop *l);
void gyre__udp_give_slot(struct gyre_udp *u);

void gyre__udp_settle_later(struct gyre_udp *u);
/* Give up what is queued; on_close(err) follows when the last event has come. */
void gyre__udp_end(struct gyre_udp *u, int err);
/* For the loop: close gently; end; settle all; free all. */
void gyre__udp_drain(struct gyre_udp *u);
void gyre__udp_shut(struct gyre_udp *u);
void gyre__udps_settle(struct gyre_loop *l);
void gyre__udps_each(struct gyre_loop *l, void (*fn)(struct gyre_udp *u));
void gyre__udps_abandon(struct gyre_loop *l);
/* Make, and free, what this room keeps of a loop. Returns 0 or -ENOMEM. */
int gyre__udps_init(struct gyre_loop *l);
void gyre__udps_fini(struct gyre_loop *l);
/* A socket around `fd`, OPEN, with nothing in flight. Returns 0 or an error, and then `fd` stays the caller's. */
int gyre__udp_new(struct gyre_udp **out, struct gyre_loop *l, int fd, int family,
                  const struct gyre_udp_handlers *handlers, const struct gyre_udp_options *options);
/* Undo it, before anything was submitted. */
void gyre__udp_discard(struct gyre_udp *u);

/* Whether the user may steer it. Returns 0, GYRE_ECLOSED or GYRE_ETHREAD. */
static inline int gyre__udp_usable(const struct gyre_udp *u)
{
    if (GYRE_UNLIKELY(u == NULL || u->magic != GYRE_UDP_MAGIC))
        return GYRE_ECLOSED;
    if (GYRE_UNLIKELY(!gyre__loop_allows(u->loop)))
        return GYRE_ETHREAD;
    return GYRE_LIKELY(u->state == GYRE_UDP_OPEN) ? 0 : GYRE_ECLOSED;
}

/* ---- receive.c; gyre__udp_on_sent(): send.c; gyre__udp_on_timer(): udp.c ---- */

void gyre__udp_on_recv(struct gyre__op *op, const struct gyre__event *ev);
void gyre__udp_on_sent(struct gyre__op *op, const struct gyre__event *ev);
/* Whether `err` is of the socket itself; else the network reported it, or one send failed. */
bool gyre__udp_is_sockets(int err);
void gyre__udp_on_timer(struct gyre__loop_timer *t);
/* Arm or cancel the receive as the state of `u` asks; deliver what waits. */
void gyre__udp_update_recv(struct gyre_udp *u);
void gyre__udp_deliver_kept(struct gyre_udp *u);
/* Throw away what was received while paused. Returns how many datagrams. */
unsigned gyre__udp_drop_kept(struct gyre_udp *u);
void gyre__udp_unstarve(struct gyre_udp *u);
void gyre__udps_feed_starved(struct gyre_loop *l);

/* ---- send.c ---- */

/* Submit what the window lets. */
void gyre__udp_flush(struct gyre_udp *u);
/* Throw away what is not in flight; ask for the end of what is. */
void gyre__udp_drop_queue(struct gyre_udp *u);
void gyre__udp_cancel_sends(struct gyre_udp *u);
/* on_drain, if it is owed and there is room. */
void gyre__udp_tell_drain(struct gyre_udp *u);

/* ---- run.c ---- */

/* Let `s`, just taken from the queue, be followed by those next in it that can leave with it. */
void gyre__udp_gather(struct gyre_udp *u, struct gyre__udp_item *s);
/* Undo that. Returns the others, linked in order, or NULL. */
struct gyre__udp_item *gyre__udp_scatter(struct gyre_udp *u, struct gyre__udp_item *s);
void gyre__udp_runs_fini(struct gyre_loop *l);

/* ---- open.c ---- */

/* gyre_engine_listen_udp(), for the engine's loops. */
int gyre__udp_listen(struct gyre_udp_id *ids, struct gyre_loop *const *loops, uint32_t loop_count, const char *address,
                     const struct gyre_udp_handlers *handlers, const struct gyre_udp_options *options,
                     size_t size_bytes);

#endif
