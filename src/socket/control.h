/* SPDX-License-Identifier: MIT
 * Walking the control messages that recvmsg(2) brought (cmsg(3)), without trusting their lengths. Not by CMSG_NXTHDR():
 * compilers find fault with what some systems have there. */
#ifndef GYRE_SOCKET_CONTROL_H
#define GYRE_SOCKET_CONTROL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/socket.h>

struct gyre__control {
    int level, type;
    const uint8_t *data; /* may not be aligned for what it is */
    size_t len;
};

/* Take the next message off the `*left` bytes at `*at`. Returns false if there is none that is whole. */
static inline bool gyre__control_next(struct gyre__control *out, const uint8_t **at, size_t *left)
{
    struct cmsghdr head;
    const size_t head_bytes = CMSG_LEN(0);
    if (*left < sizeof head)
        return false;
    memcpy(&head, *at, sizeof head);
    size_t whole = head.cmsg_len;
    if (whole < head_bytes || whole > *left)
        return false;
    *out = (struct gyre__control){head.cmsg_level, head.cmsg_type, *at + head_bytes, whole - head_bytes};
    size_t step = CMSG_SPACE(out->len);
    if (step > *left)
        step = *left;
    *at += step;
    *left -= step;
    return true;
}

#endif
