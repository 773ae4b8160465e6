/* SPDX-License-Identifier: MIT
 * For the tests of what only the readiness backends promise, epoll and kqueue: one end of a connection is attached to
 * the backend and driven through the seam, the other is a plain socket of the test, so that the test says exactly which
 * bytes, which FIN and which free space the kernel knows of at any moment. */
#ifndef GYRE_TEST_READINESS_H
#define GYRE_TEST_READINESS_H

#include "seam.h"

enum { RD_ENDS_MAX = 64, RD_BUF = 16384 };

/* One attached end with its operations, and the plain socket at the other side. */
struct rd_end {
    struct seam *s;
    struct gyre__fd f;
    int peer; /* does not block; -1 once closed */
    struct seam_op *recv, *send;
    uint8_t *in; /* what came, in order */
    size_t in_len, in_cap;
    bool keep; /* buffers stay held, in `held` */
    uint16_t held[32];
    unsigned held_count;
};

struct criterion_test_params rd_backends(void);

/* Successful epoll_ctl() calls of this thread; the shim makes kqueue's changes out of the same. */
extern _Thread_local long rd_ctl_calls;

#define READINESS_TEST(suite, name) BACKENDS_TEST_OF(rd_backends, suite, name)

/* The transport of the seam decides whether it is TCP or a unix socket pair. */
void rd_open(struct seam *s, struct rd_end *e);
void rd_close(struct rd_end *e);

void rd_receive(struct rd_end *e, unsigned flags); /* from the seam's pool */
void rd_send(struct rd_end *e, const void *data, uint32_t len);

/* At the plain side. rd_peer_send() returns how much went; rd_peer_write() wants all to go. */
size_t rd_peer_send(struct rd_end *e, const void *data, size_t len);
void rd_peer_write(struct rd_end *e, const void *data, size_t len);
void rd_peer_read(struct rd_end *e, void *data, size_t len); /* just that much, waiting for it */
void rd_peer_fin(struct rd_end *e);
/* Wait until the kernel has so many bytes for the attached end. */
void rd_arrived(struct rd_end *e, int bytes);

#endif
