/* SPDX-License-Identifier: MIT
 * Listening: addresses, how accepted connections are spread over the loops, limits. */
#ifndef GYRE_LISTENER_H
#define GYRE_LISTENER_H

#include <gyre/conn.h>

#ifdef __cplusplus
extern "C" {
#endif

struct gyre_engine;

/* How connections reach the loops. */
enum gyre_balance {
    GYRE_BALANCE_AUTO = 0, /* GYRE_BALANCE_KERNEL where the address can (TCP with several loops), else round-robin */
    GYRE_BALANCE_KERNEL,   /* one listening socket per loop, SO_REUSEPORT (socket(7)): the kernel chooses */
    /* The others: the first loop accepts and hands over. A loop that is full (conns_max) is passed over. */
    GYRE_BALANCE_ROUND_ROBIN, /* in turn */
    GYRE_BALANCE_LEAST_CONNS, /* to the loop with the fewest connections, in turn among equals */
    GYRE_BALANCE_SOURCE_HASH, /* one client address, whatever its port, always the same loop; unix peers in turn */
    GYRE_BALANCE_RANDOM,      /* seeded with `seed` */
    GYRE_BALANCE_CUSTOM       /* as `choose` says */
};

enum gyre_accept_verdict {
    GYRE_ACCEPT_YES = 0,
    GYRE_ACCEPT_NO,   /* close it */
    GYRE_ACCEPT_RESET /* close it with RST, which leaves nothing behind on this side */
};

/* Whether the connection of `peer` is let in, as an enum gyre_accept_verdict; before anything was made of it. Runs on
 * the loop that accepts: on all loops at once with GYRE_BALANCE_KERNEL. `peer` is borrowed until it returns. */
typedef int gyre_accept_filter_fn(struct gyre_listener *listener, const struct sockaddr *peer, socklen_t peer_len,
                                  void *user);

/* The index of the loop that shall have the connection of `peer`. One that there is not is counted
 * (gyre_stats.balance_errors) and the next in turn taken. Runs on the first loop; not called if that is the only
 * one. */
typedef uint32_t gyre_balance_fn(struct gyre_listener *listener, const struct sockaddr *peer, socklen_t peer_len,
                                 void *user);

typedef void gyre_listener_closed_fn(void *user);

struct gyre_listener_options {
    enum gyre_balance balance;
    uint32_t backlog;     /* listen(2); 0: 4096, which the kernel cuts to net.core.somaxconn */
    bool share_port;      /* other processes may listen on the same TCP port (SO_REUSEPORT); else it must be free */
    bool v6_only;         /* "tcp://[::]:80" takes no IPv4, as with "tcp6://" */
    uint32_t unix_mode;   /* permission bits of the unix socket file, such as 0660; 0: as umask(2) says */
    /* Accept no more while so many connections of this listener are open; the others wait in the backlog. Accepting
     * goes on at once when one closes on the accepting loop, within 100 ms when one closes elsewhere. Where several
     * loops accept, connections that come in on them in the same instant may be too many, and are then closed.
     * 0: no such limit. */
    uint32_t conns_max;
    uint32_t defer_accept_s; /* TCP_DEFER_ACCEPT: silent clients stay with the kernel for so long; 0: not; to 3600 */
    uint32_t fastopen_queue; /* TCP_FASTOPEN: as many may send data with their SYN at once; 0: none */
    const char *device;      /* SO_BINDTODEVICE: only what comes in there; borrowed during the call; NULL: any */
    gyre_accept_filter_fn *filter;      /* NULL: everybody is let in */
    gyre_balance_fn *choose;            /* for GYRE_BALANCE_CUSTOM, and only for that */
    gyre_listener_closed_fn *on_closed; /* its sockets are closed, the address is free; on a loop. May be NULL */
    void *user;                         /* for these three, and gyre_listener_user() */
    uint64_t seed;        /* of GYRE_BALANCE_RANDOM, and of GYRE_BALANCE_SOURCE_HASH: another seed, another spread */
    uint32_t reserved[8]; /* zero: room for more, so that what follows can grow */
    struct gyre_conn_options conn; /* for what is accepted; stays last */
};

/* Listen on `address`: "tcp://0.0.0.0:7000", "tcp://[::1]:0" (port 0: any free one), "tcp4://…", "tcp6://…" (that
 * family only), "tcp://:7000" (every address, both families), "unix:///run/x.sock", "unix://@name" (Linux's abstract
 * names). gyre_listener_open() is the same and tells the listener, which has the port that 0 became; `out` may be NULL.
 * Borrowed, valid until gyre_listener_close() and as long as it has connections, at the latest until the engine is
 * destroyed. A unix path that is left over, a socket nobody listens
 * on, is replaced; it is unlinked again at the end.
 *
 * While the engine runs it does the same at once: when it returns 0 the address is bound and clients can connect; the
 * loops begin to accept with their next turn. (Should a loop fail at that, for want of kernel memory, it tries again
 * and says so in the log, as when accepting fails.)
 *
 * Returns 0, or: GYRE_EADDRESS; GYRE_EPATHLEN; GYRE_EHANDLERS; GYRE_EOPTION; -EADDRINUSE (port taken, path a socket in
 * use; also for some milliseconds after a process that used io_uring was killed, for the kernel closes its sockets
 * later), -EEXIST (path is not a socket), -EADDRNOTAVAIL, -EACCES, -EMFILE, -ENOMEM; -ENODEV, -EPERM for the device;
 * GYRE_ESHUTDOWN while it stops; GYRE_ESTATE when it has run. On error nothing stays open. Thread: any. */
#define gyre_engine_listen(engine, address, handlers, ...)                                                             \
    gyre_listener_open(NULL, (engine), (address), (handlers), __VA_ARGS__)
#define gyre_listener_open(out, engine, address, handlers, ...)                                                        \
    gyre_engine_listen_sized((out), (engine), (address), (handlers), (__VA_ARGS__),                                    \
                             sizeof(struct gyre_listener_options))
GYRE_API int gyre_engine_listen_sized(struct gyre_listener **out, struct gyre_engine *engine, const char *address,
                                      const struct gyre_conn_handlers *handlers,
                                      const struct gyre_listener_options *options, size_t size_bytes);

/* Listen on a socket that is bound and listening already: inherited from a parent, or from a service manager, whose
 * first is descriptor 3 and who gives their number in LISTEN_FDS. Takes `fd` on success, makes it close-on-exec, and
 * blocking or not as the backend needs, which whoever shares it sees. Of the options those about binding have no
 * effect; GYRE_BALANCE_KERNEL is not for one socket; without a choice, connections go in turn. A unix path is not
 * unlinked.
 *
 * Returns 0, or: GYRE_ESOCKTYPE if it is not a stream socket that listens; -EBADF; GYRE_EHANDLERS; GYRE_EOPTION;
 * -ENOMEM; GYRE_ESHUTDOWN, GYRE_ESTATE as above. On error `fd` stays open and the caller's. Thread: any. */
#define gyre_engine_listen_fd(out, engine, fd, handlers, ...)                                                          \
    gyre_engine_listen_fd_sized((out), (engine), (fd), (handlers), (__VA_ARGS__), sizeof(struct gyre_listener_options))
GYRE_API int gyre_engine_listen_fd_sized(struct gyre_listener **out, struct gyre_engine *engine, int fd,
                                         const struct gyre_conn_handlers *handlers,
                                         const struct gyre_listener_options *options, size_t size_bytes);

/* The same on a single loop. Thread: the loop's. */
#define gyre_loop_listen(out, loop, address, handlers, ...)                                                            \
    gyre_loop_listen_sized((out), (loop), (address), (handlers), (__VA_ARGS__), sizeof(struct gyre_listener_options))
GYRE_API int gyre_loop_listen_sized(struct gyre_listener **out, struct gyre_loop *loop, const char *address,
                                    const struct gyre_conn_handlers *handlers,
                                    const struct gyre_listener_options *options, size_t size_bytes);
#define gyre_loop_listen_fd(out, loop, fd, handlers, ...)                                                              \
    gyre_loop_listen_fd_sized((out), (loop), (fd), (handlers), (__VA_ARGS__), sizeof(struct gyre_listener_options))
GYRE_API int gyre_loop_listen_fd_sized(struct gyre_listener **out, struct gyre_loop *loop, int fd,
                                       const struct gyre_conn_handlers *handlers,
                                       const struct gyre_listener_options *options, size_t size_bytes);

/* Stop accepting for good and close the listening socket(s); its connections live on. Sockets of loops that are not the
 * caller's, and those that are just accepting, are closed in the loops' next turns; `on_closed` says when all are.
 * A second call does nothing, as long as the engine has not begun to listen on something else.
 * Thread: any, for an engine's; the loop's, for one made with gyre_loop_listen(). */
GYRE_API void gyre_listener_close(struct gyre_listener *listener);

/* Stop accepting for a while: who connects waits in the backlog, until that is full. Connections that the kernel had
 * accepted by then are still served. Both may be called any number of times. Return 0, or GYRE_ESTATE once it is
 * closed, -EINVAL. Thread: as gyre_listener_close(). */
GYRE_API int gyre_listener_pause(struct gyre_listener *listener);
GYRE_API int gyre_listener_resume(struct gyre_listener *listener);

/* What its options gave as `user`; how many listeners its engine had made before it; its engine, NULL for a loop's own.
 * Thread: any. */
GYRE_API void *gyre_listener_user(const struct gyre_listener *listener);
GYRE_API uint32_t gyre_listener_index(const struct gyre_listener *listener);
GYRE_API struct gyre_engine *gyre_listener_engine(const struct gyre_listener *listener);

/* Its connections that are open, those included that are on their way to their loop. Thread: any (a moment's value). */
GYRE_API uint32_t gyre_listener_conn_count(const struct gyre_listener *listener);

/* How many sockets it listens with: one, or with GYRE_BALANCE_KERNEL one per loop; 0 once it is closed. Another
 * descriptor for the one at `index`, close-on-exec, owned by the caller: to hand to the program that takes over. The
 * socket then goes on listening until all its descriptors are closed; a connection that comes meanwhile waits for
 * whoever accepts. Returns the descriptor, or: -EINVAL if there is none at `index`; GYRE_ESTATE once it is closed;
 * -EMFILE; -EOPNOTSUPP on the simulator. Thread: any, while no other thread closes it. */
GYRE_API uint32_t gyre_listener_socket_count(const struct gyre_listener *listener);
GYRE_API int gyre_listener_dup_fd(const struct gyre_listener *listener, uint32_t index);

/* The address it listens on, port 0 resolved, as gyre_engine_listen() would take it ("tcp://127.0.0.1:40123").
 * Static to the listener. Thread: any. */
GYRE_API const char *gyre_listener_address(const struct gyre_listener *listener);

#ifdef __cplusplus
}
#endif

#endif
