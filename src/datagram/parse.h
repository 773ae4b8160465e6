/* SPDX-License-Identifier: MIT
 * Reading what RECVMSG left in a buffer (struct gyre__dgram_head in seam/op.h), with every length checked. */
#ifndef GYRE_DATAGRAM_PARSE_H
#define GYRE_DATAGRAM_PARSE_H

#include "seam/op.h"

#include <netinet/in.h>
#include <stddef.h>

/* A datagram in its buffer. */
struct gyre__dgram {
    const struct sockaddr *name; /* NULL: the sender has none */
    socklen_t name_len;
    const uint8_t *control;
    size_t control_len;
    const uint8_t *data;
    size_t len;
    bool truncated;
};

union gyre__dgram_address {
    struct sockaddr sa;
    struct sockaddr_in in4;
    struct sockaddr_in6 in6;
};

/* What control data may say. */
struct gyre__dgram_info {
    union gyre__dgram_address local;  /* family AF_UNSPEC: not told; the port is 0 */
    union gyre__dgram_address source; /* an own address to answer from: the same, unless that is a group's */
    uint32_t interface;
    uint16_t segment_bytes; /* 0: one datagram */
    uint8_t traffic_class;
};

/* Read the `len` bytes at `buf`, which is aligned as for a struct gyre__dgram_head. `room` is the op's. Returns 0, or
 * -EBADMSG if they cannot be what was received. */
int gyre__dgram_parse(struct gyre__dgram *out, const uint8_t *buf, size_t len, const struct msghdr *room);

/* Read control data; what is not known or does not fit is passed over. */
void gyre__dgram_control(struct gyre__dgram_info *out, const uint8_t *control, size_t len);

/* Bytes of a buffer before the datagram's own. */
static inline size_t gyre__dgram_overhead(const struct msghdr *room)
{
    return sizeof(struct gyre__dgram_head) + room->msg_namelen + room->msg_controllen;
}

#endif
