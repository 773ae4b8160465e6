/* SPDX-License-Identifier: MIT
 * Listening, from the inside.
 *
 * A gyre_listener is what the user sees: an address and how its connections are spread. It has one acceptor per loop.
 * With SO_REUSEPORT each acceptor has a socket of its own; else only the first has one, and hands accepted descriptors
 * to the others as balance.c chooses.
 *
 * What the user wants of a listener (accept, pause, close) is one word, written by any thread. Each loop looks at it
 * and does its part, at once where the writer is on that loop, else by a task that lies in the acceptor and so cannot
 * fail. Starting an acceptor on its loop is the first such look.
 *
 * A listener counts what keeps it: acceptors that are open or have connections, descriptors being handed over, looks on
 * their way. At 0 it is idle, and serves again when its engine or loop listens next. Its memory stays until then, so
 * that a call on a listener that has closed finds one that is closed. */
#ifndef GYRE_LISTEN_LISTENER_H
#define GYRE_LISTEN_LISTENER_H

#include "loop/set.h"
#include "socket/addr.h"
#include "socket/path.h"
#include "stream/conn.h"

#include <gyre/listener.h>

enum { GYRE_LISTENER_MAGIC = 0x6c697374, GYRE_ACCEPTOR_MAGIC = 0x61636370 };

enum gyre__listener_want { GYRE_LISTENER_ACCEPT = 0, GYRE_LISTENER_PAUSE, GYRE_LISTENER_CLOSE };

/* The states of an acceptor. The thread of its loop changes the state; only NEW may be left by the opener, too. */
enum gyre__acceptor_state {
    /* Just made, or made new after it was closed. The loop has not seen the acceptor. Its socket, if it has one, is
     * bound and listens, but is not attached to the backend. The loop's first look starts the acceptor: it goes to OPEN
     * with a socket, to TAKING_OVER without one, to RETRYING if attaching fails. Goes to CLOSED if the listener is
     * closed before that look, or if opening the listener fails. */
    GYRE_ACCEPTOR_NEW = 0,

    /* The backend could not attach the socket. The timer runs. When it fires, or when a connection of this loop closes,
     * attaching is tried again: goes to OPEN, or stays with a longer time. Closing the listener leads to CLOSED at
     * once, because nothing is in flight. */
    GYRE_ACCEPTOR_RETRYING,

    /* Has no socket and never accepts. The first acceptor of the listener hands connections over to this one. The
     * operation is idle and the timer does not run. Closing the listener leads to CLOSED at once. The end of the loop
     * does not change this state. */
    GYRE_ACCEPTOR_TAKING_OVER,

    /* Has an attached socket and accepts. The ACCEPT operation is in flight, except while the listener is paused and
     * until an engine runs its loops. An operation that ends for another reason is submitted again. The timer does not
     * run. Goes to WAITING if a limit on connections is reached or accepting fails, to CLOSING if the listener is
     * closed or the loop ends. */
    GYRE_ACCEPTOR_OPEN,

    /* Has an attached socket, and submits no operation for now. An ACCEPT that is in flight was asked to cancel, or has
     * failed; a connection that it still brings is taken. The timer runs. When it fires, or when a connection of this
     * loop closes, goes to OPEN, or stays if the limit is still reached. Goes to CLOSING as OPEN does. */
    GYRE_ACCEPTOR_WAITING,

    /* Stops for good. The ACCEPT operation is in flight and was asked to cancel; a connection that it still brings is
     * taken. Its last event closes the socket and leads to CLOSED. Without an operation in flight this state is passed
     * in one step. */
    GYRE_ACCEPTOR_CLOSING,

    /* Has no socket and does not keep the listener. Its connections may live on: they refer to its profile. Descriptors
     * that were handed over to it before may still come. Once no acceptor of the listener is referred to, the listener
     * is idle; when it is opened again, goes to NEW. */
    GYRE_ACCEPTOR_CLOSED,
};

/* One loop's share of a listener, to which it belongs: freed no earlier than the loop, because it has an op in it. */
struct gyre__acceptor {
    uint32_t magic;
    uint32_t errors; /* in a row */
    struct gyre_loop *loop;
    struct gyre_listener *listener;
    struct gyre__acceptor *next; /* on the loop's list, if `linked` */
    struct gyre__profile profile; /* of what it accepts; refs: its connections, and one until it is CLOSED */
    struct gyre__fd f;            /* fd -1: no socket */
    struct gyre__op op;
    struct gyre__loop_timer timer; /* RETRYING, WAITING: until the next attempt */
    uint64_t warned_ns;       /* when the log was last told of trouble */
    uint32_t backoff_ms;
    struct gyre__task look_task; /* queued while `look_posted` */
    _Atomic(bool) look_posted; /* no state: any thread sets it, in any state */
    _Atomic(uint32_t) conns; /* its connections, those on their way to it included */
    enum gyre__acceptor_state state;
    bool linked; /* on the loop's list; no state: a CLOSED acceptor is on it until its last connection is gone */
};

/* The acceptors of a loop. */
struct gyre__acceptors {
    struct gyre__acceptor *list;     /* those that the loop has seen and that are referred to */
    struct gyre_listener *listeners; /* the loop's own, idle ones too */
    uint32_t open;      /* OPEN, WAITING or CLOSING: a socket is attached */
    uint32_t held_back; /* RETRYING or WAITING: to go on when a connection closes */
};

/* How to choose a loop; balance.c. */
struct gyre__balancer {
    enum gyre_balance kind;
    uint32_t next;   /* whose turn it is, or where to begin looking */
    uint64_t random; /* state, or the key of the hash */
    gyre_balance_fn *choose;
};

struct gyre_listener {
    uint32_t magic;
    uint32_t acceptor_count; /* one for each loop, and one more for each socket beyond that */
    uint32_t loop_count;
    uint32_t index;
    uint32_t conns_max; /* 0: none */
    _Atomic(uint32_t) conns; /* of all acceptors, if there is a limit */
    struct gyre_listener *next; /* on the list of the engine or the loop */
    struct gyre_engine *engine; /* NULL: a loop's own */
    struct gyre__set *set;      /* the engine's loops; likewise */
    const struct gyre_mem *mem;
    struct gyre__acceptor **acceptors;
    struct gyre__balancer balance; /* the accepting loop's */
    gyre_accept_filter_fn *filter;
    gyre_listener_closed_fn *on_closed;
    void *user;
    struct gyre__task closed_task;
    _Atomic(uint32_t) refs;
    _Atomic(uint32_t) sockets; /* open */
    _Atomic(int) want;         /* enum gyre__listener_want */
    _Atomic(bool) idle;
    _Atomic(bool) shared; /* others may accept on its sockets, too: they came from somewhere, or were duplicated */
    bool inet;
    bool hands_over;       /* only the first acceptor has a socket */
    struct gyre__path path; /* the socket file that bind made */
    struct gyre__addr addr; /* bound */
    char address[GYRE_ADDR_TEXT_MAX];
};

/* ---- open.c, listener.c ---- */

/* What to listen on, and for whom. */
struct gyre__listen_request {
    struct gyre_loop **loops;
    uint32_t loop_count;
    uint32_t index;
    struct gyre_engine *engine;
    struct gyre__set *set;
    struct gyre_listener **list; /* the engine's, or the loop's */
    const char *address;         /* or NULL: */
    struct gyre__address found;  /* if `named`: what the name in `address` stands for */
    bool named;
    const int *fds;              /* listening sockets of one address, taken on success */
    uint32_t fd_count;           /* 0 with `address` */
    bool takes_path;             /* the file of their unix path is ours from now on */
    const struct gyre_conn_handlers *handlers;
    const struct gyre_listener_options *options;
    size_t size; /* of `options` in the caller, and of `conn` in them */
    size_t conn_size;
};

/* Look up the name in the address of a request, if there is one. The calling thread may wait, so no lock is held.
 * Returns 0, GYRE_EADDRESS or an error of a lookup. */
int gyre__listen_look_up(struct gyre__listen_request *request, struct gyre_loop *const *loops, uint32_t loop_count);

/* Make a listener. It is put on the list, even if opening fails later on, and is freed with gyre__listener_free() when
 * the loops have ended. Each loop that the calling thread may not touch starts its part by a task. Errors as
 * gyre_engine_listen(). */
int gyre__listener_make(struct gyre_listener **out, const struct gyre__listen_request *request);

/* A socket of its is closed. Thread: that of `l`. */
void gyre__listener_socket_closed(struct gyre_listener *listener, struct gyre_loop *l);

static inline void gyre__listener_hold(struct gyre_listener *listener)
{
    atomic_fetch_add_explicit(&listener->refs, 1, memory_order_relaxed);
}

/* One reference less; at the last it is idle. */
void gyre__listener_release(struct gyre_listener *listener);

/* For how many more connections the limits of listener and engine leave a place. */
uint32_t gyre__listener_room(const struct gyre_listener *listener);

/* Take a place for a connection that `a` has accepted, on the loop of `to`, or the next one with room. Returns whose it
 * is, or NULL if a limit is reached. Thread: that of the accepting loop. */
struct gyre__acceptor *gyre__listener_take_place(struct gyre_listener *listener, struct gyre__acceptor *to);
/* A connection has gone, or did not come to be: its place in the listener is free, that on the loop is seen to. Thread:
 * any. */
void gyre__listener_give_place(struct gyre__acceptor *a);

void gyre__listener_free(struct gyre_listener *listener);

/* ---- balance.c ---- */

/* The acceptor whose loop gets the connection of `peer`, past loops that are full. */
struct gyre__acceptor *gyre__balance_choose(struct gyre_listener *listener, const struct gyre__addr *peer);

/* Whether it needs to know the peer. */
static inline bool gyre__balance_by_peer(const struct gyre__balancer *balance)
{
    return balance->kind == GYRE_BALANCE_SOURCE_HASH || balance->kind == GYRE_BALANCE_CUSTOM;
}

/* ---- acceptor.c ---- */

/* An acceptor for `listener` on `l`, which need not be the caller's. Returns 0 or -ENOMEM. */
int gyre__acceptor_new(struct gyre__acceptor **out, struct gyre_loop *l, struct gyre_listener *listener);
/* Make one that was closed new again, with the memory it has. */
void gyre__acceptor_init(struct gyre__acceptor *a, struct gyre_loop *l, struct gyre_listener *listener);
/* Put it on its loop's list, if it is not there. Thread: the loop's. */
void gyre__acceptor_link(struct gyre__acceptor *a);
/* One reference of an acceptor's profile more or less. */
void gyre__acceptor_hold(struct gyre__acceptor *a);
void gyre__acceptor_release(struct gyre__acceptor *a);
/* A connection of its profile is gone. */
void gyre__acceptor_release_profile(struct gyre_loop *l, struct gyre__profile *profile);

/* Make what this room keeps of a loop. Returns 0 or -ENOMEM. */
int gyre__acceptors_init(struct gyre_loop *l);
void gyre__acceptors_fini(struct gyre_loop *l);

/* ---- take.c ---- */

/* `a` has accepted `fd`: make a connection of it, on the loop whose turn it is, or close it. */
void gyre__acceptor_take(struct gyre__acceptor *a, int fd);

/* ---- accept.c ---- */

/* Have its loop look at what the listener's user wants: now if the caller may, else by a task. */
void gyre__acceptor_look(struct gyre__acceptor *a);
/* Take on its socket, if it has one. Returns 0 or what attaching said; the socket stays in `f`, not attached.
 * Thread: the loop's. */
int gyre__acceptor_start(struct gyre__acceptor *a);
/* Accept, if it has a socket and nothing speaks against it. */
void gyre__acceptor_arm(struct gyre__acceptor *a);
/* Stop accepting for good; the socket is closed when the op has ended. */
void gyre__acceptor_stop(struct gyre__acceptor *a);
/* Opening the listener failed. Thread: the opener's; if that is not the loop's, the loop must not have seen it. */
void gyre__acceptor_discard(struct gyre__acceptor *a);
/* Leave the socket to whom it came from. Thread: the opener's, as above. */
void gyre__acceptor_forget_socket(struct gyre__acceptor *a);

/* The loop is run for the first time: accept on all it has. */
void gyre__acceptors_arm(struct gyre_loop *l);

/* Whether another loop may hand a connection to this one still. */
bool gyre__acceptors_expect(const struct gyre_loop *l);

/* The loop stops accepting, on all it has; does so without its backend, which is lost. */
void gyre__acceptors_close(struct gyre_loop *l);
void gyre__acceptors_abandon(struct gyre_loop *l);

/* Its operation and its timer tell. */
void gyre__acceptor_on_accept(struct gyre__op *op, const struct gyre__event *ev);
void gyre__acceptor_on_timer(struct gyre__loop_timer *t);

void gyre__acceptors_retry_now(struct gyre_loop *l);

/* A connection closed: acceptors that were held back may go on. */
static inline void gyre__acceptors_retry(struct gyre_loop *l)
{
    if (GYRE_UNLIKELY(l->acceptors->held_back > 0))
        gyre__acceptors_retry_now(l);
}

#endif
