/* SPDX-License-Identifier: MIT
 * Listening, from the inside.
 *
 * A gyre_listener is what the user sees: an address and how its connections are spread. It has one acceptor per loop.
 * With SO_REUSEPORT each acceptor has a socket of its own; else only the first has one, and hands accepted descriptors
 * to the others in turn. */
#ifndef GYRE_CORE_LISTENER_H
#define GYRE_CORE_LISTENER_H

#include "addr.h"
#include "conn.h"

enum { GYRE_LISTENER_MAGIC = 0x6c697374, GYRE_ACCEPTOR_MAGIC = 0x61636370 };

/* One loop's share of a listener. Its memory goes back to the loop's list and is freed with the loop, because it has an
 * op in it. */
struct gyre__acceptor {
    uint32_t magic;
    uint32_t errors; /* in a row */
    struct gyre_loop *loop;
    struct gyre_listener *listener;
    struct gyre__acceptor *next; /* on the loop's list */
    struct gyre__profile profile; /* of what it accepts; refs: its connections, and one while the listener is open */
    struct gyre_fd f;             /* fd -1: this one only takes over */
    struct gyre_op op;
    struct gyre__timer timer; /* back-off */
    uint64_t warned_ns;       /* when the log was last told of trouble */
    uint32_t backoff_ms;
    struct gyre__task stop_task; /* posted when `stop_posted` */
    _Atomic(bool) stop_posted;
    bool used;    /* not on its way to reuse */
    bool open;    /* has a socket that is not being closed */
    bool waiting; /* not accepting until the timer fires or a connection closes */
};

struct gyre_listener {
    uint32_t magic;
    uint32_t acceptor_count;
    struct gyre_listener *next; /* on the engine's list, if `kept` */
    const struct gyre_mem *mem;
    struct gyre__acceptor **acceptors;
    uint32_t next_loop;    /* whose turn it is; the accepting loop's */
    bool inet;
    bool kept;             /* until the engine goes; else it frees itself */
    bool hands_over;       /* only the first acceptor has a socket */
    bool unlink;           /* the path is ours to remove */
    uint64_t path_device;  /* of the socket file that bind made */
    uint64_t path_inode;
    struct gyre_addr addr; /* bound */
    char address[GYRE_ADDR_TEXT_MAX];
};

/* ---- listener.c ---- */

/* Make a listener over `loops`. With `list` it is put there, even if opening fails later on, and is freed with
 * gyre__listener_free() when the loops have ended; without, it frees itself with its last connection once closed.
 * Errors as gyre_engine_listen(). */
int gyre__listener_open(struct gyre_listener **out, struct gyre_loop **loops, uint32_t loop_count,
                        struct gyre_listener **list, const char *address, const struct gyre_conn_handlers *handlers,
                        const struct gyre_listener_options *options, size_t options_size);

/* Stop accepting on one of its loops, and remove the socket file. Thread: that loop's. */
void gyre__listener_stop(struct gyre_listener *listener, struct gyre_loop *l);

void gyre__listener_free(struct gyre_listener *listener);

/* ---- acceptor.c ---- */

int gyre__acceptor_new(struct gyre__acceptor **out, struct gyre_loop *l, struct gyre_listener *listener);
/* Take on a listening socket, which is the acceptor's from now on; on failure it stays the caller's. */
int gyre__acceptor_open(struct gyre__acceptor *a, int fd, bool inet);
/* Accept, if it has a socket and nothing speaks against it. */
void gyre__acceptor_arm(struct gyre__acceptor *a);
/* Stop accepting; the socket is closed when the op has ended. */
void gyre__acceptor_stop(struct gyre__acceptor *a);
/* The same from another thread; cannot fail. */
void gyre__acceptor_post_stop(struct gyre__acceptor *a);
void gyre__acceptor_closed(struct gyre__acceptor *a);
/* One reference less of an acceptor's profile. */
void gyre__acceptor_release(struct gyre__acceptor *a);

/* The loop stops accepting, on all it has; and frees them. */
void gyre__acceptors_close(struct gyre_loop *l);
void gyre__acceptors_fini(struct gyre_loop *l);

/* Its operation and its timer tell. */
void gyre__acceptor_on_accept(struct gyre_op *op, const struct gyre_event *ev);
void gyre__acceptor_on_timer(struct gyre__timer *t);

void gyre__acceptors_retry_now(struct gyre_loop *l);

/* A connection closed: acceptors that were held back may go on. */
static inline void gyre__acceptors_retry(struct gyre_loop *l)
{
    if (GYRE_UNLIKELY(l->acceptors_waiting > 0))
        gyre__acceptors_retry_now(l);
}

#endif
