/* SPDX-License-Identifier: MIT
 * The connections to one server, and what is sent over them.
 *
 * A request is `size` bytes, its answer the same bytes. A connection that has requests to send writes all it may at
 * once, and counts answers by bytes. Every byte that comes back is compared with what was sent at that place of the
 * stream. A connection that breaks, that brings a byte it should not, or that waits for an answer without progress for
 * `stall_ms` spoils its target for good, with the reason in `error`. */
#ifndef BENCH_TARGET_H
#define BENCH_TARGET_H

#include "address.h"
#include "histogram.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct bench_shape {
    uint32_t connections;
    uint32_t size;     /* bytes of a request */
    uint32_t pipeline; /* requests on a connection at once */
    uint32_t stall_ms;
    bool churn; /* a new connection for each request */
};

struct bench_conn {
    int fd;
    uint32_t tx;          /* place in the pattern of the next byte to send */
    uint32_t rx;          /* and of the next byte to come back */
    uint32_t partial;     /* bytes here of the answer that is not complete yet */
    bool ending;          /* churn: answered, our side is shut down, and the server's end is to come */
    bool wants_out;       /* the kernel took less than offered: EPOLLOUT is asked for */
    uint64_t unsent;      /* bytes of requests begun that the kernel has not taken */
    uint64_t unanswered;  /* bytes of requests begun that have not come back */
    uint64_t due;         /* open loop: requests that should have been sent and are not begun */
    uint64_t answers;     /* open loop: answers so far; the next one answers the request of this number */
    uint64_t began_ns;    /* closed loop: when the batch in flight was written */
    uint64_t progress_ns; /* when a byte came back last, or when the wait for one began */
    uint64_t received;    /* bytes since the connection was made, for messages */
};

/* What a stretch of load brought. "Window" is the time that is measured: the warm-up and the wait for the last answers
 * lie outside. */
struct bench_result {
    uint64_t window_ns;
    uint64_t requests;       /* answered within the window */
    uint64_t requests_total; /* answered at all: what the server has worked for */
    uint64_t bytes;          /* of the answers within the window */
    uint64_t unanswered;     /* open loop: due within the window and given up; they are in `latency` as far as known */
    uint64_t lost;           /* UDP: datagrams without an answer */
    uint64_t late;           /* UDP: answers to those that came all the same */
    struct bench_histogram latency;
};

struct bench_target;
struct bench_udp;

/* What a kind of load does with what comes. Each returns 0, or -1 with `error` set. */
struct bench_kind {
    /* `count` answers came at `now_ns`. */
    int (*answered)(struct bench_target *t, struct bench_conn *c, uint32_t count, uint64_t now_ns);
    /* The server has ended a connection that is `ending`. NULL in a kind that sets none so. */
    int (*ended)(struct bench_target *t, struct bench_conn *c);
};

struct bench_target {
    const struct bench_address *address;
    struct bench_shape shape;
    struct bench_conn *conns;
    uint32_t nopen;        /* connections made */
    struct bench_udp *udp; /* instead of connections where the address is one of datagrams; udp.h */
    int epoll_fd;
    uint64_t busy;   /* connections with an answer to wait for */
    char error[200]; /* empty: sound */

    /* Of the stretch of load under way. */
    const struct bench_kind *kind;
    struct bench_result *result;
    uint64_t from_ns; /* the window */
    uint64_t until_ns;
    uint64_t last_ns;  /* closed loop: no batch begins after this */
    uint64_t start_ns; /* open loop: when request 0 is due */
    uint64_t rate;     /* open loop: requests per second over all connections */
    uint64_t scan_ns;  /* when to look for stalls again */
};

uint64_t bench_now_ns(void);

/* Make the record of a target without connections. Returns 0, or -1 with `error` set. Close it in any case. */
int bench_target_init(struct bench_target *t, const struct bench_address *address, const struct bench_shape *shape);
/* Make all its connections. Likewise. */
int bench_target_connect(struct bench_target *t);
void bench_target_close(struct bench_target *t);

/* Mark the target spoilt; the first reason stays. Returns -1. */
__attribute__((format(printf, 2, 3))) int bench_target_fail(struct bench_target *t, const char *format, ...);

/* Begin `count` requests on a connection and write them. Returns 0, or -1 with `error` set. */
int bench_conn_begin(struct bench_target *t, struct bench_conn *c, uint32_t count, uint64_t now_ns);

/* Wait up to `timeout_ns` for events, and read and check what came. Calls `answered` and `ended` of the kind of load
 * under way. Returns 0, or -1 with `error` set. */
int bench_target_poll(struct bench_target *t, uint64_t timeout_ns);

/* Make the connection of this number. Returns 0, or -1 with `error` set. */
int bench_conn_open(struct bench_target *t, uint32_t index);

#endif
