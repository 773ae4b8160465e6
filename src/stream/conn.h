/* SPDX-License-Identifier: MIT
 * A stream connection from the inside.
 *
 * The normal course of an accepted connection: OPEN, CLOSING, LINGERING, ENDING, and then its slot is FREE. A
 * connection that was made with gyre_connect() starts in CONNECTING. enum gyre__conn_state describes each state.
 *
 * What can go wrong: a failed receive, or a failed connect, leads to ENDING at once. A failed send drops what is queued
 * but lets receiving go on to its end, because the peer may have answered before it closed. gyre_conn_abort() leads to
 * ENDING from every state. All callbacks run from events, timers, tasks and settling, never inside a call of the
 * user. */
#ifndef GYRE_STREAM_CONN_H
#define GYRE_STREAM_CONN_H

#include "loop/loop.h"

#include <gyre/conn_id.h>
#include <string.h>

enum { GYRE_CONN_MAGIC = 0x636f6e6e, GYRE_CONN_DEAD_MAGIC = 0x64656164 };

enum { GYRE_WRITEV_MAX = 1024 }; /* pieces of one write */

/* The states of a connection. Calls and events move it on; settling acts on the state at the end of the turn. */
enum gyre__conn_state {
    /* The slot is free. Its memory stays until the loop is destroyed, for a late event may look at the operations. */
    GYRE_CONN_FREE = 0,

    /* Made, and not open yet. The connect operation is in flight, in the place of the send operation; or the socket
     * came connected, and the next settling opens it. Writes are queued. Goes to OPEN with on_open, or to ENDING. */
    GYRE_CONN_CONNECTING,

    /* Bytes flow. A receive is in flight unless the user, a blocked forward, a limit or a lack of buffers holds it
     * back; a send is in flight while something is queued. gyre_conn_shutdown() and the peer's FIN do not change the
     * state. After the peer's FIN, when all was taken, a poll for a reset is in the place of the receive. */
    GYRE_CONN_OPEN,

    /* A graceful close has begun. What is queued is still sent; what comes in is thrown away. When all is sent the FIN
     * follows, and the state is LINGERING, or ENDING if the peer's FIN is here already. */
    GYRE_CONN_CLOSING,

    /* Our FIN was sent. Waits for the peer's FIN, at most for the linger time. */
    GYRE_CONN_LINGERING,

    /* Over. Every operation was asked to cancel; the last of their events brings on_close, and the slot is free.
     * Nothing is freed before that event. Every other state may lead here. */
    GYRE_CONN_ENDING,

    /* gyre_conn_detach() was called. What is queued is sent and what comes in is kept; when nothing is in flight the
     * descriptor is handed to the user, and the slot is free. Only OPEN leads here. */
    GYRE_CONN_DETACHING,
};

enum {
    GYRE_CF_SETTLE = 1u << 0,       /* on the loop's settle list */
    GYRE_CF_PAUSED = 1u << 1,       /* gyre_conn_pause() */
    GYRE_CF_BLOCKED = 1u << 2,      /* forwarding to a congested connection; see forward.c */
    GYRE_CF_STARVED = 1u << 3,      /* on the loop's starved list */
    GYRE_CF_WAKE = 1u << 4,         /* on_data is due at settle */
    GYRE_CF_EOF = 1u << 5,          /* the peer's end came */
    GYRE_CF_EOF_TOLD = 1u << 6,     /* and was acted on */
    GYRE_CF_SHUT = 1u << 7,         /* gyre_conn_shutdown(): FIN after the queue */
    GYRE_CF_FIN_SENT = 1u << 8,
    GYRE_CF_CONGESTED = 1u << 9,    /* above the high mark, until the low one */
    GYRE_CF_CORKED = 1u << 10,
    GYRE_CF_SEND_FAILED = 1u << 11, /* c->err says why */
    GYRE_CF_RESET = 1u << 12,       /* close with RST */
    GYRE_CF_HEAP_RECV = 1u << 13,   /* the receive in flight fills a chunk, for want of receive buffers */
    GYRE_CF_CONNECTED = 1u << 14,   /* the socket is: ops other than CONNECT may be submitted */
    GYRE_CF_DELIVER = 1u << 15,     /* receiving goes on: on_data is due at settle if there are bytes */
    GYRE_CF_DRAIN_OWED = 1u << 16,  /* a write was refused: on_drain must follow */
    GYRE_CF_FRAMES = 1u << 17,      /* whole frames are left for the next turn, and the end waits for them */
    GYRE_CF_SHARED = 1u << 18,      /* gyre_conn_share() */
    GYRE_CF_TURN_OVER = 1u << 19,   /* has received its share of this turn */
    GYRE_CF_PIPED = 1u << 20,       /* there may be PIPE segments in `in` */
    GYRE_CF_LOOKED = 1u << 21,      /* the handler has looked at bytes that came by pipe, or no pipe can be filled */
    GYRE_CF_MARKED = 1u << 22,      /* this room has set GYRE_FDF_PIPE */
    GYRE_CF_ENTERED = 1u << 23,     /* its state was changed by a mark; settling has yet to act on that */
    GYRE_CF_AGAIN = 1u << 24,       /* on the loop's list of those that wait to connect again */
    GYRE_CF_REFUSED = 1u << 25,     /* and was there before */
    GYRE_CF_HUNG_UP = 1u << 26,     /* after the peer's end its hang-up was seen, too: there is nothing to be watched */
    GYRE_CF_HEARD = 1u << 27,       /* bytes have come since the last were written */
    GYRE_CF_CALLER = 1u << 28,      /* it was connected: the answers are the peer's */
    GYRE_CF_DRAINING = 1u << 29,    /* was told that the engine drains; drain.c */
    GYRE_CF_RESET_LAST = 1u << 30,  /* gyre_conn_close_reset(): a reset follows what was queued, and no FIN */
};

/* Options of the connections of one listener, or of one gyre_connect(); checked and with the defaults filled in. */
struct gyre__profile {
    struct gyre_conn_options options;
    const struct gyre_conn_handlers *handlers;
    void (*on_data)(struct gyre_conn *c); /* the user's, or gyre__conn_on_frames() */
    struct gyre_listener *listener; /* NULL: connected */
    uint32_t refs; /* of a connected one, freed at 0; a listener's lives as long as the listener */
    bool pinned;   /* its connections cannot be detached */
    void (*release)(struct gyre_loop *l, struct gyre__profile *profile); /* a connection of it is gone */
    void (*keep)(struct gyre_conn *c); /* connecting failed: take what is queued and was never sent; NULL: drop it */
};

/* What looks for the socket of a connection that has none yet; see connect/race.h. */
struct gyre__dialing {
    void (*stop)(struct gyre__dialing *d); /* the connection is ENDING */
    void (*free)(struct gyre__dialing *d); /* the connection is gone */
};

struct gyre__closed_waiter {
    struct gyre__task task;
    struct gyre__closed_waiter *next;
    struct gyre_conn_id id;
    gyre_closed_fn *done;
    void *user;
};

/* What only some connections need: made by gyre__conn_extra() at the first use, zeroed, and freed with the connection.
 * No operation lives in it, for a backend may look at one that was given up long ago; what the user must free or be
 * told of is seen to in finish(). */
struct gyre__extra {
    struct { /* a frame that is not whole; all 0 once bytes are taken */
        const struct gyre_framer *framer;
        size_t need; /* bytes that must be here, whatever read_max_bytes says */
        uint64_t state;
    } frame;
    const struct gyre_framer *framer; /* if `framer_set`: in place of the profile's */
    bool framer_set;
    int64_t idle_ns; /* if `idle_set`: the idle limit in place of the profile's */
    bool idle_set;
    bool writing; /* timeouts.c: bytes have been queued since all were sent */
    uint32_t write_seen; /* timeouts.c */
    struct gyre_conn *conn;
    struct gyre__loop_timer limits_timer; /* timeouts.c: the next of these that can pass */
    int64_t read_ns, write_ns;            /* 0: no limit */
    uint64_t read_from_ns, write_from_ns; /* when the time began that may not be longer than that */
    uint64_t write_look_ns;               /* when `write_seen` was in the kernel */
    uint64_t life_end_ns;                 /* 0: no limit */
    uint64_t close_end_ns;                /* 0: not closing, or not for long */
    struct gyre__closed_waiter *closed_waiters; /* told after on_close; id.c */
    uint64_t turn;       /* the turn that `turn_bytes` were received in */
    uint64_t turn_bytes;
    uint64_t file_bytes; /* of files that are queued, not yet read; sendfile.c */
    struct gyre_conn *forward_to;   /* as a source: waits for this one to drain */
    struct gyre_conn *forward_next; /* as a source: the next that waits for the same */
    const struct gyre_conn *passed_over; /* as a source: this one drained, and nothing has been moved since */
    uint64_t forward_moved;         /* as a source: bytes of its shares, and beyond, that were not settled so far */
    struct gyre_conn *waiters;      /* as a destination: the sources that wait, in order; see waiters.c */
    struct gyre_conn *last_passed_over, *last_waiter; /* of them */
    uint32_t forward_share;         /* as a destination: of each source, before it waits again; 0: no limit */
    struct gyre__dialing *dialing;  /* NULL: the connection has its socket */
    gyre_detached_fn *detached; /* of gyre_conn_detach(); detach.c */
    void *detached_user;
};

struct gyre__sendv;

enum { GYRE_CONNS_PER_SLAB = 64 };

/* The connections of a loop. */
struct gyre__conns {
    struct gyre_conn *settle_head, **settle_tail; /* looked at by the end of the turn, by settle_next */
    struct gyre__op *starved_head, **starved_tail; /* receives that found no buffer, oldest first, by op->next */
    struct gyre__op *again_head, **again_tail; /* connects that found a full backlog, oldest first; again.c */
    struct gyre__loop_timer again_timer;
    uint64_t again_ns; /* until they are tried again */
    struct gyre__sendv *free_sendv;
    uint32_t free_sendv_count;
    uint32_t slab_count;
    uint64_t compact_steps;   /* segments that inbound.c has looked at to free receive buffers; for tests */
    struct gyre_conn **slabs; /* slot >> 6, then slot & 63 */
    struct gyre_conn *free;   /* by settle_next */
};

/* What a small request touches comes first; what opening, closing and timers need is at the end. */
struct gyre_conn {
    uint32_t magic;
    uint32_t flags; /* GYRE_CF_* */
    struct gyre__fd f;
    struct gyre__op recv;
    struct gyre__op send;  /* also CONNECT */
    struct gyre__segq in;  /* received, not taken */
    struct gyre__segq out; /* queued; the first of it may be in flight */
    struct gyre_loop *loop;
    struct gyre__profile *profile;
    struct gyre_conn *settle_next; /* also links the free ones */
    uint32_t active;               /* when bytes last moved: the lower half of the loop's now_tick */
    uint8_t state;                 /* enum gyre__conn_state */
    uint8_t reason;                /* enum gyre_close_reason; set when closing begins */
    uint8_t timeout_kind;          /* enum gyre_timeout_kind: the limit that passed last */
    uint8_t bulk;                  /* how much of a bulk stream it is, from 0 to 15; splice.c */
    void *user;
    struct gyre__extra *extra; /* NULL: none needed so far */
    struct gyre__loop_timer timer; /* CONNECTING: the connect limit; OPEN: idle; CLOSING, LINGERING: linger */
    union {
        uint32_t seen_unacked; /* while sending works: what was on its way when the idle or linger timer last looked */
        uint32_t unsent;       /* once sending has failed or the connection is ENDING: what gyre_conn_unsent() says */
    };
    uint32_t slot;
    uint32_t generation;
    int err; /* for on_close */
};

_Static_assert(sizeof(void *) != 8 || sizeof(struct gyre_conn) <= 224, "what an idle connection costs");

/* ---- again.c ---- */

/* The CONNECT of `c`, a unix socket's, ended with -EAGAIN: submit it again some time. Its address stays. */
void gyre__conn_connect_later(struct gyre_conn *c);
/* Not any more, if it was to be. */
void gyre__conn_connect_forget(struct gyre_conn *c);
void gyre__conns_on_again(struct gyre__loop_timer *t);

/* ---- conn.c, life.c, each.c, profile.c ---- */

/* A fresh record, in the place reserved for it if there is one. Returns 0, GYRE_ECONNS or -ENOMEM. */
int gyre__conn_take_slot(struct gyre_conn **out, struct gyre_loop *l, bool reserved);
void gyre__conn_give_slot(struct gyre_conn *c);

/* With GYRE_FDF_ACCEPTED and GYRE_FDF_INET: how a connection comes to be. */
enum {
    GYRE_CONN_RESERVED = 1u << 8, /* gyre__loop_reserve() was called for it */
    GYRE_CONN_FOREIGN = 1u << 9,  /* somebody else's so far; on failure it stays open */
    GYRE_CONN_TOUCHED = 1u << 10, /* accepted on a socket that others have had, whose options it inherited */
};

/* A connection in state CONNECTING around `fd`, attached; the caller then starts it. On failure the descriptor is
 * closed and the place given back. With -1 it gets its descriptor later. Returns 0, GYRE_ECONNS, -ENOMEM or what attach
 * said. */
int gyre__conn_new(struct gyre_conn **out, struct gyre_loop *l, int fd, struct gyre__profile *profile, unsigned how);

/* The descriptor of a connection that has none, connected. Returns 0, or what attach said, and then it is closed. */
int gyre__conn_take_socket(struct gyre_conn *c, int fd, unsigned how);

/* Undo gyre__conn_new(): nothing was submitted, no callback comes; the profile is not released. */
void gyre__conn_unmake(struct gyre_conn *c);

/* The side record of `c`, made if it has none yet; NULL when out of memory. */
struct gyre__extra *gyre__conn_extra(struct gyre_conn *c);

/* Connected or accepted: tell the user, start receiving, send what is queued. */
void gyre__conn_opened(struct gyre_conn *c);

/* Begin a graceful close for `reason`. */
void gyre__conn_begin_close(struct gyre_conn *c, enum gyre_close_reason reason);

/* Give up: cancel what is in flight; on_close(err) follows when the last event has come. */
void gyre__conn_end(struct gyre_conn *c, enum gyre_close_reason reason, int err);

/* Close gracefully, and have on_close told `err`. */
void gyre__conn_fail(struct gyre_conn *c, int err);

/* Bytes sent that the peer's side has not acknowledged, FIN not counted. */
uint64_t gyre__conn_unacked(const struct gyre_conn *c);

/* Look at `c` at the end of the turn. */
void gyre__conn_settle_later(struct gyre_conn *c);

/* drain.c: the loop drains: tell `c` if it is its turn, and close it if it is idle. */
void gyre__conn_drain(struct gyre_conn *c);

/* Settle every connection on the list as it is now. */
void gyre__conns_settle(struct gyre_loop *l);

/* Call `fn` for every connection of the loop. */
void gyre__conns_each(struct gyre_loop *l, void (*fn)(struct gyre_conn *c));

/* each.c: call `fn` for every connection that is open or connecting, until it returns false. Returns for how many. */
int64_t gyre__conns_walk(struct gyre_loop *l, gyre_each_fn *fn, void *user);

/* The backend is lost and no event will come: tell the user and close the descriptors all the same. */
void gyre__conns_abandon(struct gyre_loop *l);

/* Make, and free, what this room keeps of a loop. Returns 0 or -ENOMEM. */
int gyre__conns_init(struct gyre_loop *l);
void gyre__conns_fini(struct gyre_loop *l);

/* timeouts.c: the connection's timer, set to what its state needs. */
void gyre__conn_start_timer(struct gyre_conn *c);
void gyre__conn_on_timer(struct gyre__loop_timer *t);
/* How long it may be idle; 0: for ever. */
int64_t gyre__conn_idle_limit(const struct gyre_conn *c);
/* LINGERING, with GYRE_CF_RESET_LAST: reset it once the peer's side has acknowledged all. */
void gyre__conn_reset_when_taken(struct gyre_conn *c);

/* Whether the user may read, write or steer it: OPEN or CONNECTING. Returns 0, GYRE_ECLOSED or GYRE_ETHREAD. */
static inline int gyre__conn_usable(const struct gyre_conn *c)
{
    if (GYRE_UNLIKELY(c == NULL || c->magic != GYRE_CONN_MAGIC))
        return GYRE_ECLOSED;
    if (GYRE_UNLIKELY(!gyre__loop_allows(c->loop)))
        return GYRE_ETHREAD;
    return GYRE_LIKELY(c->state == GYRE_CONN_OPEN || c->state == GYRE_CONN_CONNECTING) ? 0 : GYRE_ECLOSED;
}

/* Bytes moved. */
static inline void gyre__conn_note_active(struct gyre_conn *c)
{
    c->active = (uint32_t)c->loop->now_tick;
}

/* The user gets the descriptor, and may set on it what makes closing wait. Of the connection nothing else changes. */
static inline void gyre__conn_touch(const struct gyre_conn *c)
{
    ((struct gyre_conn *)(uintptr_t)c)->f.flags |= GYRE_FDF_TOUCHED;
}

/* Whether a receive is in flight, that nobody has asked to end. */
static inline bool gyre__conn_receives(const struct gyre_conn *c)
{
    return c->recv.state == GYRE_OPS_INFLIGHT && c->recv.kind == GYRE_OP_RECV;
}

/* Whether on_data may be called. */
static inline bool gyre__conn_may_deliver(const struct gyre_conn *c)
{
    return c->state == GYRE_CONN_OPEN && !(c->flags & (GYRE_CF_PAUSED | GYRE_CF_BLOCKED));
}

/* The front of what was received has changed: what is known of a frame there is void. */
static inline void gyre__conn_forget_frame(struct gyre_conn *c)
{
    if (GYRE_UNLIKELY(c->extra != NULL))
        memset(&c->extra->frame, 0, sizeof c->extra->frame);
}

/* Whether what it received may be read: also while the user is being handed its descriptor. */
static inline int gyre__conn_readable(const struct gyre_conn *c)
{
    int err = gyre__conn_usable(c);
    return err == GYRE_ECLOSED && c != NULL && c->magic == GYRE_CONN_MAGIC && c->state == GYRE_CONN_DETACHING ? 0 : err;
}

/* Check options and fill in the defaults. Returns 0, GYRE_EHANDLERS or GYRE_EOPTION. */
int gyre__profile_init(struct gyre__profile *profile, const struct gyre_conn_options *options,
                       const struct gyre_conn_handlers *handlers);

/* A checked profile of its own for one connection, with no reference. Returns 0, -E2BIG, -ENOMEM, GYRE_EHANDLERS or
 * GYRE_EOPTION. */
int gyre__profile_new(struct gyre__profile **out, const struct gyre_mem *mem,
                      const struct gyre_conn_handlers *handlers, const struct gyre_conn_options *options,
                      size_t size_bytes);

/* ---- timeouts.c ---- */

/* Take limits from the profile. Returns 0 or -ENOMEM. */
int gyre__limits_new(struct gyre_conn *c);

/* For a connection with a side record: it is open; bytes were queued; bytes were sent. */
void gyre__limits_open(struct gyre_conn *c);
void gyre__limits_queued(struct gyre_conn *c);
void gyre__limits_sent(struct gyre_conn *c);
void gyre__conn_on_limit(struct gyre__loop_timer *t);
/* Whether a limit goes by what sends tell, so that each should be small. */
bool gyre__limits_watch_sends(const struct gyre_conn *c);

/* ---- conn.c ---- */

/* Call and free those who wait for the end of a connection that has just been freed. */
void gyre__tell_closed(struct gyre_loop *l, struct gyre__closed_waiter *waiters, int err);

/* ---- inbound.c: receiving ---- */

/* Arm or cancel the receive as the state of `c` asks. */
void gyre__conn_update_recv(struct gyre_conn *c);
void gyre__conn_on_recv(struct gyre__op *op, const struct gyre__event *ev);
/* Call on_data if bytes are `fresh` or it is due for another reason, then on_eof if that is due, as far as the
 * connection's state allows. */
void gyre__conn_deliver(struct gyre_conn *c, bool fresh);
/* Take `skip`, `len` and `drop` bytes (all here, not all 0), of which `*out` is the middle part, as one piece that is
 * valid until the handler returns. Returns 0, or -ENOMEM with nothing taken. */
int gyre__conn_take(struct gyre_conn *c, size_t skip, size_t len, size_t drop, struct gyre_slice *out);
/* For settling, of one that has received its share of a turn: whether that turn is over. If not it is settled again. */
bool gyre__conn_next_turn(struct gyre_conn *c);
/* Let receives that found no buffer try again. */
void gyre__conns_feed_starved(struct gyre_loop *l);
void gyre__conn_unstarve(struct gyre_conn *c);

/* ---- outbound.c: sending ---- */

/* Submit one gathered send if there is something to send and none is in flight. */
void gyre__conn_flush(struct gyre_conn *c);
void gyre__conn_on_sent(struct gyre__op *op, const struct gyre__event *ev);
/* write.c: account for `len` bytes just queued: marks, flush. */
void gyre__conn_queued(struct gyre_conn *c, size_t len);
void gyre__conns_free_sendvs(struct gyre__conns *conns, const struct gyre_mem *mem);

/* conn.c: whether `len` more bytes may be queued. Returns 0 or what gyre_conn_write() is to return. */
int gyre__conn_may_queue(struct gyre_conn *c, size_t len);

/* ---- sendfile.c ---- */

/* Whether `seg` is a file of which not all was read. */
bool gyre__file_has_more(const struct gyre__seg *seg);
/* Submit the read of the next piece of `seg`, a file that is first in the queue. */
void gyre__file_read(struct gyre_conn *c, const struct gyre__seg *seg);
void gyre__file_on_read(struct gyre_conn *c, int32_t res);

/* ---- splice.c ---- */

/* `len` bytes of `src`, received together, were forwarded to `dst`: whether receives are to bring pipes. */
void gyre__pipe_weigh(struct gyre_conn *src, const struct gyre_conn *dst, uint32_t len);
/* The segment of an event with GYRE_EV_PIPE, or NULL: no memory, and the bytes are lost. */
struct gyre__seg *gyre__pipe_received(struct gyre_conn *c, const struct gyre__event *ev);
/* Read everything of the inbound queue out of pipes. Returns 0, or -ENOMEM with nothing lost. */
int gyre__pipe_read_out(struct gyre_conn *c);
/* Submit a SPLICE of `seg`, which is first in the queue; account for what it moved. */
void gyre__pipe_send(struct gyre_conn *c, const struct gyre__seg *seg);
void gyre__pipe_sent(struct gyre_conn *c, uint32_t len);
/* Before anybody looks at the inbound queue. Returns 0, or -ENOMEM. */
static inline int gyre__conn_look(struct gyre_conn *c)
{
    return GYRE_UNLIKELY(c->flags & GYRE_CF_PIPED) ? gyre__pipe_read_out(c) : 0;
}

/* ---- frame.c ---- */

/* In place of on_data: take the frames and call on_frame; without a framer, on_data. */
void gyre__conn_on_frames(struct gyre_conn *c);
/* Whether what was received is the beginning of a frame for on_frame. After the peer's end nothing makes it whole. */
bool gyre__frame_cut_short(const struct gyre_conn *c);

/* ---- waiters.c ---- */

/* `src` stops receiving until `dst` has drained. Both have their side records. */
void gyre__forward_wait(struct gyre_conn *src, struct gyre_conn *dst);
/* `dst` has room: its waiting sources go on, as far as it is their turn. */
void gyre__forward_serve(struct gyre_conn *dst);
/* `dst` takes no more bytes: all its waiting sources go on. */
void gyre__forward_release_waiters(struct gyre_conn *dst);
/* `src` no longer waits. */
void gyre__forward_forget(struct gyre_conn *src);
/* Whether `src` may move no more to `dst` now. */
static inline bool gyre__forward_must_wait(const struct gyre_conn *src, const struct gyre_conn *dst)
{
    if (GYRE_UNLIKELY(dst->flags & GYRE_CF_CONGESTED))
        return true;
    return GYRE_UNLIKELY(dst->extra != NULL && dst->extra->forward_share != 0) &&
           src->extra->forward_moved >= dst->extra->forward_share;
}

/* ---- connect/connect.c ---- */

void gyre__conn_on_connect(struct gyre__op *op, const struct gyre__event *ev);

#endif
