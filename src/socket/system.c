/* SPDX-License-Identifier: MIT
 * The table of the kernel's sockets: streams are in sock.c, datagrams in sock_dgram.c, pipes in sock_pipe.c, options in
 * sockopt.c. */
#include "sock.h"

const struct gyre__sock_ops gyre__sock_system = {
    .open = gyre__sock_open,
    .listen = gyre__sock_listen,
    .bind = gyre__sock_bind,
    .inspect = gyre__sock_inspect,
    .dup = gyre__sock_dup,
    .device = gyre__sock_device,
    .shutdown = gyre__sock_shutdown,
    .set_nodelay = gyre__sock_set_nodelay,
    .set_reset = gyre__sock_set_reset,
    .name = gyre__sock_name,
    .try_send = gyre__sock_try_send,
    .error = gyre__sock_error,
    .unacked = gyre__sock_unacked,
    .close = gyre__sock_close,
    .options = &gyre__sockopt_system,
    .pipe = GYRE_PIPE_SYSTEM,
    .dgram_open = gyre__sock_dgram_open,
    .dgram_bind = gyre__sock_dgram_bind,
    .dgram_connect = gyre__sock_dgram_connect,
    .dgram_set = gyre__sock_dgram_set,
    .dgram_member = gyre__sock_dgram_member,
    .dgram_drops = gyre__sock_dgram_drops,
};
