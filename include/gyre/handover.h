/* SPDX-License-Identifier: MIT
 * Listening sockets from another process: a restart that refuses no client.
 *
 * The new process gets the listening sockets of the old one over a unix socket (SCM_RIGHTS, unix(7)), or from a service
 * manager (LISTEN_FDS, sd_listen_fds(3)). Both processes accept until the old one drains. Connections that are open
 * stay with the old process.
 *
 *   old process                                    new process
 *   -----------------------------------------------+-------------------------------------------------
 *                                                    connect to the old process
 *   gyre_handover_send(): sends, and waits           gyre_handover_receive()
 *                                                    gyre_engine_listen_handover(), for each address
 *                                                    gyre_engine_run(); in on_boot gyre_handover_confirm()
 *   gyre_handover_send() returns 0                   gyre_handover_destroy()
 *   gyre_engine_drain()
 *
 * If the new process fails before it confirms, the old one goes on as before. The processes may use different backends
 * and different numbers of loops. */
#ifndef GYRE_HANDOVER_H
#define GYRE_HANDOVER_H

#include <gyre/engine.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Listening sockets that came from elsewhere and that no listener has taken so far. */
struct gyre_handover;

enum { GYRE_HANDOVER_MAX = 1024 }; /* sockets at once */

/* Send all sockets of `count` listeners to the process at the other end of `fd`, a connected unix stream socket
 * (borrowed), and wait until that process confirms. The listeners go on accepting. Blocks for at most `timeout_ns`
 * nanoseconds: do not call it on a loop's thread; a job of a pool will do. Do not close the listeners meanwhile.
 *
 * Returns 0 once the other process has confirmed, or:
 *   GYRE_ETIMEOUT  the time has passed
 *   -ECONNRESET    the other process closed `fd` without a confirmation
 *   -EPROTO        the other process answered something else
 *   -E2BIG         the listeners have more than GYRE_HANDOVER_MAX sockets
 *   GYRE_ESTATE    a listener is closed, or none of them has a socket
 *   GYRE_EFORK     a listener belongs to the parent process
 *   GYRE_EOPTION   `timeout_ns` is negative
 *   -EINVAL        `listeners` or one of them is NULL
 *   -EBADF         `fd` is negative
 *   -EOPNOTSUPP    the listeners are on the simulator
 *   -errno         sending or duplicating a descriptor failed
 * Thread: any but a loop's. */
GYRE_API int gyre_handover_send(int fd, struct gyre_listener *const *listeners, size_t count, int64_t timeout_ns);

/* Receive the sockets that gyre_handover_send() sends over `fd`, a connected unix stream socket. `fd` is borrowed until
 * gyre_handover_destroy(). Blocks for at most `timeout_ns` nanoseconds. Each descriptor is checked: it must be a
 * listening stream socket, and there must be as many as announced. All become close-on-exec. Returns owned in `*out`.
 *
 * Returns 0, or an error, and then no received descriptor stays open:
 *   GYRE_ETIMEOUT   the time has passed
 *   -ECONNRESET     the other process closed `fd` before everything came
 *   -EPROTO         the other process sent something else, or not as many descriptors as it said
 *   GYRE_ESOCKTYPE  a descriptor is not a listening stream socket of TCP or unix
 *   -EMFILE         out of descriptors
 *   -ENOMEM         out of memory
 *   GYRE_EOPTION    `timeout_ns` is negative
 *   -EINVAL         `out` is NULL
 *   -EBADF          `fd` is negative
 *   -errno          receiving failed
 * Thread: any. */
GYRE_API int gyre_handover_receive(struct gyre_handover **out, int fd, int64_t timeout_ns);

/* Take the listening stream sockets that a service manager passed: descriptors from 3 on, LISTEN_FDS of them, if
 * LISTEN_PID is this process. Their names are in LISTEN_FDNAMES. They become close-on-exec. Descriptors of other kinds,
 * such as datagram sockets, stay yours (gyre_udp_adopt_fd()). Without LISTEN_FDS there are none, which is no error.
 * Call this once: a second call would take the same descriptors. Returns owned in `*out`.
 *
 * Returns 0, or:
 *   -EPROTO  LISTEN_PID is this process, but LISTEN_FDS is not a number from 0 to GYRE_HANDOVER_MAX
 *   -EBADF   one of the descriptors is not open
 *   -ENOMEM  out of memory
 *   -EINVAL  `out` is NULL
 * Thread: any, while no other thread changes the environment. */
GYRE_API int gyre_handover_inherit(struct gyre_handover **out);

/* Listen on `address` with the sockets of `handover` that are bound to it. All of them become one listener: its limits
 * count once. `address` is written as for gyre_engine_listen(), or "fd:NAME" for the sockets with this name in
 * LISTEN_FDNAMES. If there is no such socket, the call listens afresh, as gyre_engine_listen(). (A port of 0 matches
 * none.)
 *
 * With several sockets, each loop accepts on its own. Where there are fewer sockets than loops, more are opened if the
 * old process had SO_REUSEPORT set, as it has with GYRE_BALANCE_KERNEL; otherwise the remaining loops get no
 * connections of this listener. The options are treated as by gyre_engine_listen_fd(). The file of a unix socket that
 * came from gyre_handover_receive() is removed when the last process closes the socket; that of a service manager is
 * not removed.
 *
 * Returns 0, or an error as gyre_engine_listen() or gyre_engine_listen_fd(), and:
 *   -ENOENT       `address` is "fd:NAME", and no socket has this name
 *   GYRE_EOPTION  `balance` is not GYRE_BALANCE_AUTO or GYRE_BALANCE_KERNEL, and there are several sockets; or two
 *                 sockets with the same name have different addresses
 * After an error the sockets stay in `handover`.
 * Thread: any. */
#define gyre_engine_listen_handover(out, engine, handover, address, handlers, ...)                                     \
    gyre_engine_listen_handover_sized(                                                                                 \
        (out), (engine), (handover), (address), (handlers),                                                            \
        GYRE_LAST_ARGUMENT_IS_OPTIONS_OR_NULL(struct gyre_listener_options, __VA_ARGS__),                              \
        sizeof(struct gyre_conn_options))
GYRE_API int gyre_engine_listen_handover_sized(struct gyre_listener **out, struct gyre_engine *engine,
                                               struct gyre_handover *handover, const char *address,
                                               const struct gyre_conn_handlers *handlers,
                                               const struct gyre_listener_options *options, size_t size_bytes,
                                               size_t conn_size_bytes);

/* Return how many sockets no listener has taken so far. Thread: any. */
GYRE_API uint32_t gyre_handover_count(const struct gyre_handover *handover);

/* Tell the old process that this one serves: its gyre_handover_send() returns 0. Does nothing after
 * gyre_handover_inherit(). Returns 0, or -errno if the old process is gone, which is then no longer of concern.
 * Thread: any. */
GYRE_API int gyre_handover_confirm(struct gyre_handover *handover);

/* Close the sockets that no listener has taken. Clients that wait in their backlogs are reset once the old process has
 * closed them, too. NULL is allowed. Thread: any. */
GYRE_API void gyre_handover_destroy(struct gyre_handover *handover);

#ifdef __cplusplus
}
#endif

#endif
