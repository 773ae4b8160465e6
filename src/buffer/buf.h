/* SPDX-License-Identifier: MIT
 * A piece of received bytes that the user holds. */
#ifndef GYRE_BUFFER_BUF_H
#define GYRE_BUFFER_BUF_H

#include "seg.h"

#include <gyre/buf.h>

struct gyre_buf {
    struct gyre_loop *loop;
    struct gyre__seg *seg;
};

#endif
