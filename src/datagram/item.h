/* SPDX-License-Identifier: MIT
 * What is being sent by a datagram socket: one send, or several that leave as one. */
#ifndef GYRE_DATAGRAM_ITEM_H
#define GYRE_DATAGRAM_ITEM_H

#include "udp.h"

#include <netinet/in.h>
#include <sys/un.h>

union gyre__udp_name {
    struct sockaddr sa;
    struct sockaddr_in in4;
    struct sockaddr_in6 in6;
    struct sockaddr_un un;
};

/* A datagram on its way out. They live in slabs that are freed with the loop, because they have an op in them. */
struct gyre__udp_item {
    struct gyre__op op;
    struct gyre__udp_item *next; /* in its socket's queue; or free */
    struct gyre__seg *seg;       /* the bytes */
    struct msghdr hdr;
    struct iovec iov;
    struct gyre__udp_run *run; /* others go with it; see run.c */
    uint64_t seq;    /* the order of queueing */
    uint16_t pieces; /* datagrams the kernel makes of it */
    uint16_t segment_bytes; /* of each but the last, if it is no run; 0: it is one datagram */
    int16_t met;     /* 0, or the error of its first try, which may have been another's */
    bool alone;      /* of a run that failed: never again in one */
    _Alignas(struct cmsghdr) uint8_t control[CMSG_SPACE(sizeof(uint16_t)) + CMSG_SPACE(sizeof(struct in6_pktinfo))];
    union gyre__udp_name to;
};

/* Datagrams that leave as one send, which the kernel cuts. */
struct gyre__udp_run {
    struct gyre__udp_run *next;   /* free */
    struct gyre__udp_item *rest;  /* in order, all but the first, which has the op */
    size_t bytes;
    size_t control_len;           /* of the first one's own control data */
    struct iovec iov[GYRE_UDP_SEGMENTS_MAX];
};

/* A send from the loop's free ones, or NULL; and back to them, with the bytes it refers to. */
struct gyre__udp_item *gyre__udp_new_send(struct gyre_loop *l);
void gyre__udp_free_send(struct gyre_loop *l, struct gyre__udp_item *s);

/* Have `s` go to `to`; NULL: where the socket is connected to. Returns 0, -EDESTADDRREQ, -EAFNOSUPPORT or
 * GYRE_EADDRESS. */
int gyre__udp_place(const struct gyre_udp *u, struct gyre__udp_item *s, const struct sockaddr *to, socklen_t len);

/* Add one control message to what is sent along. */
void gyre__udp_add_control(struct gyre__udp_item *s, int level, int type, const void *data, size_t len);

void gyre__udp_sends_fini(struct gyre_loop *l);

/* Whether the kernel cuts what this socket sends. */
bool gyre__udp_kernel_cuts(struct gyre_udp *u);

/* It did not: do not ask it again for this socket. */
void gyre__udp_doubt_cutting(struct gyre_udp *u);

/* The datagrams that the kernel was to make of `s`, the last one first. NULL when out of memory. */
struct gyre__udp_item *gyre__udp_cut(struct gyre_loop *l, const struct gyre__udp_item *s);

/* Have the kernel cut `s`. */
void gyre__udp_add_segment_size(struct gyre__udp_item *s, size_t segment_bytes);

#endif
