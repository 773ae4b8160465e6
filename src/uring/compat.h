/* SPDX-License-Identifier: MIT
 * What the kernel offers and liburing 2.3 has no name for.
 *
 * Everything here is a constant of the kernel's interface, which never changes; liburing 2.3 exports the raw system
 * calls that take them. The names are our own, because a newer liburing has some of them as enum constants, which no
 * #ifndef can see; where it has them as macros the values are compared. */
#ifndef GYRE_URING_COMPAT_H
#define GYRE_URING_COMPAT_H

#include <liburing.h>

#define GYRE_IORING_SETUP_NO_SQARRAY  (1u << 16) /* Linux 6.6: no index array between the ring and its entries */
#define GYRE_IORING_ENTER_NO_IOWAIT   (1u << 7)  /* Linux 6.15: waiting is idleness, not waiting for a disk */
#define GYRE_IORING_FEAT_REG_REG_RING (1u << 13) /* Linux 6.3: a registered ring works, in register calls too */
#define GYRE_IORING_FEAT_NO_IOWAIT    (1u << 17)
#define GYRE_IORING_FEAT_MIN_TIMEOUT  (1u << 15) /* Linux 6.12: waits take a least time */

/* What a wait takes with IORING_ENTER_EXT_ARG. The third field has had two names in liburing, of which each version has
 * one: pad, and from 2.8 on min_wait_usec. */
struct gyre__io_uring_getevents_arg {
    uint64_t sigmask;
    uint32_t sigmask_size;
    uint32_t min_wait_us; /* Linux 6.12, else 0 */
    uint64_t ts;
};

_Static_assert(sizeof(struct gyre__io_uring_getevents_arg) == 24, "the kernel's layout");

enum { GYRE_IORING_REGISTER_NAPI = 27 }; /* Linux 6.9 */

/* What that takes; it writes the former settings back. Zero in the rest means what it did in 6.9: sockets are tracked
 * as they are polled. */
struct gyre__io_uring_napi {
    uint32_t busy_poll_us;
    uint8_t prefer_busy_poll;
    uint8_t rest[11];
};

#ifdef IORING_SETUP_NO_SQARRAY
_Static_assert(IORING_SETUP_NO_SQARRAY == GYRE_IORING_SETUP_NO_SQARRAY, "the kernel's value");
#endif
#ifdef IORING_ENTER_NO_IOWAIT
_Static_assert(IORING_ENTER_NO_IOWAIT == GYRE_IORING_ENTER_NO_IOWAIT, "the kernel's value");
#endif
#ifdef IORING_FEAT_REG_REG_RING
_Static_assert(IORING_FEAT_REG_REG_RING == GYRE_IORING_FEAT_REG_REG_RING, "the kernel's value");
#endif
#ifdef IORING_FEAT_NO_IOWAIT
_Static_assert(IORING_FEAT_NO_IOWAIT == GYRE_IORING_FEAT_NO_IOWAIT, "the kernel's value");
#endif

#endif
