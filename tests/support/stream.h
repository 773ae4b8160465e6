/* SPDX-License-Identifier: MIT
 * Connections over the seam: a listener, a connected pair, and for each end a sender and a receiver of pattern bytes.
 *
 * Every byte that arrives is compared with what must come at its place in the stream, so loss, doubling, reordering and
 * mixing of connections all show at the first wrong byte. A receiver that found the pool exhausted is armed again after
 * a turn, when buffers are free, and not before. */
#ifndef GYRE_TEST_STREAM_H
#define GYRE_TEST_STREAM_H

#include "seam.h"

struct listener {
    struct gyre__fd f;
    struct gyre__addr addr; /* what to connect to */
    struct seam_op *accept;
};

void listener_open(struct seam *s, struct listener *l, uint32_t backlog);
void listener_close(struct seam *s, struct listener *l); /* cancels its accept if that is in flight */

/* One end of a connection. Zeroed memory is one that is closed. */
struct stream {
    struct seam *s;
    struct gyre__fd f;
    struct gyre__addr peer; /* of one that connects: where to */
    bool open;
    uint32_t key_out; /* which pattern it sends */
    uint32_t key_in;  /* and which it must get */

    struct seam_op *recv;
    unsigned recv_flags; /* GYRE_OPF_MULTI, GYRE_OPF_POOL, GYRE_OPF_POLL_FIRST */
    uint8_t *in;         /* where to receive without a pool */
    uint32_t in_size;
    bool receiving;   /* arm again when an op ended with data */
    bool starved;     /* ended with -ENOBUFS, waits for buffers */
    uint64_t got;     /* bytes */
    uint64_t pipes;   /* events that brought one */
    bool eof;
    int recv_err;     /* what ended receiving, other than its end; -ECANCELED too */
    unsigned after_end; /* must stay 0: data after the end */

    struct seam_op *send;
    uint8_t *out;
    uint32_t out_size;  /* most bytes of one send */
    uint64_t sent;      /* bytes the kernel took */
    uint64_t send_goal; /* keep sending until there */
    bool shutdown_after; /* FIN once the goal is reached */
    int send_err;
    struct stream *next_open; /* of the seam's */
};

/* Connect two ends through a listener of the seam's transport. `key` and `key`+1 are the patterns. */
void stream_pair(struct seam *s, struct stream *a, struct stream *b, uint32_t key);
/* Make ends of descriptors that came otherwise. */
void stream_adopt(struct seam *s, struct stream *st, int fd, bool accepted, uint32_t key_out, uint32_t key_in);

/* Set the size of the buffers used from now on (64 KiB if never called). */
void stream_sizes(struct stream *st, uint32_t out_size, uint32_t in_size);

/* Receive with the given op flags (without GYRE_OPF_POOL: one buffer of one's own) until the end or stream_pause(). */
void stream_receive(struct stream *st, unsigned flags);
void stream_pause(struct stream *st); /* request; over when seam_idle(st->recv) */

/* Send so many bytes more. */
void stream_send(struct stream *st, uint64_t bytes);
/* FIN now, or when what stream_send() was asked for is out. */
void stream_finish(struct stream *st);

/* Cancel what is in flight, wait for it, close. */
void stream_close(struct stream *st);

#endif
