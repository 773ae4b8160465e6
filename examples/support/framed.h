/* SPDX-License-Identifier: MIT
 * The protocol of framed_server and framed_client, and how one writes a framer of one's own. A frame is the magic
 * number 05 22, four bytes that say how long the body is, the highest first, and the body, of at most 64 KiB. */
#ifndef FRAMED_H
#define FRAMED_H

#include <errno.h>
#include <gyre.h>

enum { FRAMED_BODY_MAX_BYTES = 64 << 10, FRAMED_EMAGIC = -EPROTO };

/* What on_bad_frame gets: FRAMED_EMAGIC as soon as the first bytes are not the magic number, GYRE_EFRAME for a body
 * that is too long. */
extern const struct gyre_framer framed_protocol;

#endif
