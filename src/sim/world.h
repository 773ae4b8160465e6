/* SPDX-License-Identifier: MIT
 * The parts of the simulator and what they know of each other.
 *
 *     seam.c     the backend: requests in, events out, waiting        perform.c  what one request does
 *     sock.c     the socket operations of core, on our descriptors    peer.c     scripted peers
 *     net.c      sockets, descriptors, listening, connecting          stream.c   the bytes between two sockets
 *     due.c      what happens when                                    sim.c      options, clock, beginning and end
 *     dgram.c    datagrams                                            option.c   socket options, which are only kept
 *     address.c  choosing ports, conflicts, who serves an address     chance.c   random numbers, delays, the trace
 *     requests.c the queues of requests                       names.c    what names stand for
 *
 * reactor/sim_run.c drives several loops on one simulation.
 *
 * Nothing here depends on an address in memory or on the time of day: lists are in order of creation, chance comes from
 * the seed alone. That is what makes a run repeatable. */
#ifndef GYRE_SIM_WORLD_H
#define GYRE_SIM_WORLD_H

#include "seam/backend.h"
#include "buffer/bufpool.h"
#include "base/check.h"
#include "base/mem.h"

#include <gyre/sim.h>
#include <stdatomic.h>

#define SIM_NEVER_NS   UINT64_MAX
#define SIM_KIND(kind) (1u << (kind)) /* a set of enum gyre__op_kind */
#define SIM_KINDS_OUT  (SIM_KIND(GYRE_OP_SEND) | SIM_KIND(GYRE_OP_SENDMSG))

enum {
    SIM_FD_FIRST = 1000000, /* no kernel descriptor is this large */
    SIM_MARKS = 16,         /* segments of one direction that are told apart */
    SIM_SCRIBBLE = 0xdb,    /* what buffers are filled with that nobody may read */
};

struct sim_backend;
struct sim_name;
struct sim_packet;
struct sim_sock;
struct sim_stream;

/* ---- due.c: what happens when ---- */

enum sim_due_kind { SIM_DUE_PIPE = 1, SIM_DUE_CONNECT, SIM_DUE_PACKET, SIM_DUE_KINDS };

struct sim_due {
    uint64_t at_ns;
    uint64_t seq;   /* of those due at the same time the one that was set first comes first */
    uint32_t index; /* in the heap, plus one; 0: not set */
    uint8_t kind;   /* what it is part of */
};

typedef void sim_due_fn(struct sim_due *due);

struct sim_dues {
    struct sim_due **heap;
    uint32_t count;
    uint32_t cap;
    uint32_t reserved; /* sim_due structs that exist; never more than `cap`, so that setting one cannot fail */
    uint64_t seq;
};

/* ---- stream.c ---- */

/* The end of a segment in the stream, and when it arrives. */
struct sim_mark {
    uint64_t end;
    uint64_t due_ns;
};

/* One direction of a stream. Positions count bytes from its beginning: taken <= arrived <= sent. What lies between
 * `arrived` and `sent` is on its way, what lies between `taken` and `arrived` waits to be read. */
struct sim_pipe {
    struct sim_due due;
    struct sim_stream *stream;
    uint8_t *ring;
    uint64_t taken;
    uint64_t arrived;
    uint64_t sent;
    uint64_t last_ns; /* when the segment sent last arrives; later ones do not overtake it */
    uint64_t fin_ns;
    uint64_t reset_ns; /* SIM_NEVER_NS: no reset on its way */
    struct sim_mark marks[SIM_MARKS];
    uint32_t ring_size;
    uint32_t send_max;
    uint32_t recv_max;
    uint8_t from; /* which end it comes from */
    uint8_t mark_first;
    uint8_t mark_count;
    bool fin_sent;
    bool fin_arrived;
    bool cut; /* a reset was sent along it: nothing after that arrives */
};

struct sim_stream {
    struct gyre_sim *sim;
    struct sim_stream *prev, *next; /* all of the simulation */
    struct sim_pipe pipe[2];        /* pipe[i] goes from end[i] to the other */
    struct sim_sock *end[2];        /* NULL: closed; the stream is freed with the second */
    bool local;                     /* a unix socket's: there is no network between its ends */
};

/* ---- net.c ---- */

enum sim_state { SIM_FRESH = 0, SIM_LISTENING, SIM_CONNECTING, SIM_CONNECTED };

struct sim_sock {
    struct gyre_sim *sim;
    struct sim_sock *prev, *next; /* all of the simulation */
    uint64_t id;                  /* how many were made before it; names it in the trace */
    struct sim_due due;           /* of connecting */
    struct sim_backend *be;       /* whose it is, between attach() and close() */
    struct gyre__fd *f;
    struct sim_req *reqs; /* in flight on it, in order of submission */
    int fd;               /* -1: a scripted peer's, or not yet accepted */
    uint32_t watches;     /* descriptors of GYRE_FDF_FOREIGN attached to it */
    bool orphan;          /* its owner closed it; it goes with the last of those */
    int family;
    uint8_t state; /* enum sim_state */
    uint8_t side;  /* which end of `stream` it is */
    bool reset_on_close;
    bool shut;  /* it has sent FIN */
    bool dead;  /* reset: receives get the end, sends -EPIPE, once `err` was told */
    bool share; /* SO_REUSEPORT */
    bool v6_only;
    bool local_given;       /* `local` was given before connecting; its port, if 0, is chosen then */
    in_port_t port_last;    /* of a range that begins with the port of `local`; 0: no range */
    bool connect_done; /* with `err_connect`, which nobody has seen yet */
    int err;           /* -ECONNRESET or -EPIPE, told once */
    int err_connect;
    int fault;      /* with what the connect under way shall fail; 0: with nothing */
    unsigned tries; /* of connecting, when the listener's queue was full */
    struct gyre__addr local;
    struct gyre__addr remote;
    struct sim_stream *stream;
    struct sim_sock *listener_next; /* of all that listen */
    struct sim_sock *queue_first;   /* of a listener: connections to accept */
    struct sim_sock *queue_last;
    struct sim_sock *queue_next; /* in that queue */
    uint32_t queue_count;
    uint32_t backlog;
    int64_t options[GYRE_SOCKOPT_END]; /* as set, or inherited from the listener */
    bool dgram; /* a datagram socket; of these: */
    bool bound;
    bool dgram_connected; /* to `remote` */
    struct sim_packet *packet_first; /* received, not taken */
    struct sim_packet *packet_last;
    uint32_t packet_count;
    uint64_t packet_bytes;
    uint64_t drops;
    void *handle; /* the scripted peer or listener it belongs to; freed with it */
};

/* ---- seam.c ---- */

enum sim_queue {
    SIM_PARKED = 0, /* waits for the network: gyre__sim_ready() moves it on */
    SIM_READY,      /* may be able to do something */
    SIM_LATER,      /* has had its share of this wait() */
    SIM_BUSY,       /* being performed */
};

/* An operation in flight. */
struct sim_req {
    struct sim_req *next;       /* of its socket; or free */
    struct sim_req *queue_next; /* in the ready or the later queue */
    struct sim_req *held_next;  /* of those cancelled and not yet told so */
    struct gyre__op *op;
    struct sim_sock *sock;
    struct sim_backend *be; /* it was submitted to; not the socket's own if it only watches */
    uint64_t content; /* a hash of the bytes to send, which must not change */
    uint64_t wait_no; /* the wait() that `burst` is of */
    uint32_t moved;   /* bytes sent so far */
    uint16_t gen;     /* of the operation */
    uint8_t queue;    /* enum sim_queue */
    uint8_t burst;    /* events of this wait() */
    uint8_t held;     /* waits until the cancel gets through */
    bool cancelled;
    bool started;
    bool again; /* made ready while it was being performed */
};

struct sim_queue_list {
    struct sim_req *first;
    struct sim_req *last;
};

struct sim_chunk;

struct sim_backend {
    struct gyre__backend base; /* first */
    struct gyre_sim *sim;
    const struct gyre_mem *mem;
    struct sim_backend *next; /* of the simulation, in order of creation */
    struct gyre__bufpool *pool;
    uint64_t bufs_taken;
    uint64_t bufs_delivered;
    atomic_bool woken;
    struct sim_queue_list ready;
    struct sim_queue_list later;
    struct sim_req *held;
    struct sim_req *free;
    struct sim_chunk *chunks;
    struct gyre__op *broken; /* submitted when there was no memory for them */
    uint64_t wait_no;
    uint32_t inflight;
    bool one_accept; /* multishot is off: one event each */
    bool one_recv;
};

/* ---- sim.c ---- */

struct gyre_sim {
    const struct gyre_mem *mem;
    struct gyre_sim_options opt; /* as in force: 0 is a probability of none */
    uint64_t chance;             /* the generator's state */
    uint64_t now_ns;
    uint64_t trace;
    uint64_t activity; /* goes up whenever something happens */
    uint64_t socks_made;
    struct sim_dues dues;
    sim_due_fn *const *due_fns; /* by enum sim_due_kind */
    struct sim_sock *socks;
    struct sim_sock *listeners; /* in order of listening */
    struct sim_stream *streams;
    struct sim_packet *packets; /* on their way */
    struct sim_name *names;
    struct sim_backend *backends;
    struct sim_sock **fds; /* by descriptor less SIM_FD_FIRST */
    uint32_t fds_cap;
    uint32_t fd_low; /* none below it is free */
    uint16_t port_next;
    struct gyre_sim_counts counts;
};

/* chance.c */
uint64_t gyre__sim_random(struct gyre_sim *sim);
uint64_t gyre__sim_below(struct gyre_sim *sim, uint64_t bound);
bool gyre__sim_chance(struct gyre_sim *sim, uint16_t permille);
/* How long a segment takes; without a network in between, no time. */
uint64_t gyre__sim_delay_ns(struct gyre_sim *sim);
void gyre__sim_trace(struct gyre_sim *sim, uint64_t value);
uint64_t gyre__sim_mix(uint64_t hash, uint64_t value);
uint64_t gyre__sim_hash(uint64_t hash, const void *data, size_t len);
/* sim.c: move the clock to `at_ns`, letting happen what is due on the way. */
void gyre__sim_clock_to(struct gyre_sim *sim, uint64_t at_ns);

/* due.c: room for `count` more sim_due structs. Returns 0 or -ENOMEM. */
int gyre__sim_due_reserve(struct gyre_sim *sim, uint32_t count);
void gyre__sim_due_unreserve(struct gyre_sim *sim, uint32_t count);
void gyre__sim_due_set(struct gyre_sim *sim, struct sim_due *due, uint64_t at_ns);
void gyre__sim_due_clear(struct gyre_sim *sim, struct sim_due *due);
uint64_t gyre__sim_due_next_ns(const struct gyre_sim *sim); /* SIM_NEVER_NS: nothing is due */
/* Let happen what is due by now. */
void gyre__sim_due_run(struct gyre_sim *sim);

/* net.c. Returns NULL when out of memory. */
struct sim_sock *gyre__sim_sock_create(struct gyre_sim *sim, int family);
/* Close it: FIN, or RST, as the rules say. */
void gyre__sim_sock_destroy(struct sim_sock *s);
/* Its owner closes it: destroyed now, or when nobody watches it any more, as a socket of the kernel with copies. */
void gyre__sim_sock_close(struct sim_sock *s);
/* Give it a descriptor, the lowest that is free. Returns it, or -EMFILE, -ENOMEM. */
int gyre__sim_fd_install(struct sim_sock *s);
struct sim_sock *gyre__sim_fd_find(const struct gyre_sim *sim, int fd);
/* The address to connect from. Returns 0 or -errno. */
int gyre__sim_bind(struct sim_sock *s, const struct gyre__addr *addr, in_port_t port_last);
int gyre__sim_listen(struct sim_sock *s, const struct gyre__addr *addr, const struct gyre__listen_config *cfg);
/* Begin to connect. Returns 0 (`connect_done` tells when it is over), or -errno. */
int gyre__sim_sock_connect(struct sim_sock *s, const struct sockaddr *addr, socklen_t len);
void gyre__sim_connect_due(struct sim_sock *s);
/* The oldest connection of a listener's queue, off it. The queue must not be empty. */
struct sim_sock *gyre__sim_accept(struct sim_sock *listener);
int gyre__sim_shutdown(struct sim_sock *s);

/* ---- address.c ---- */

/* An internet address, either family: IPv4 as a mapped IPv6 one. */
struct sim_inet {
    uint8_t host[16];
    in_port_t port; /* as on the wire */
    bool v4;
    bool any;
};

struct sim_inet gyre__sim_inet_of(const struct gyre__addr *addr);
int gyre__sim_choose_port(struct sim_sock *s, struct gyre__addr *addr, bool v6_only);
bool gyre__sim_in_use(const struct sim_sock *s, const struct gyre__addr *addr, bool v6_only);
void gyre__sim_set_port(struct gyre__addr *addr, in_port_t port);
in_port_t gyre__sim_next_port(struct gyre_sim *sim);
void gyre__sim_unix_unnamed(struct gyre__addr *out);
void gyre__sim_any_to_loopback(struct gyre__addr *addr);

/* Of addresses. serves(): 0 if `l` is not for it, 1 as one of many, 2 as its own. choose(): a port if it has none, and
 * whether the address is free; -EADDRINUSE if not. check_addr(): whether it is whole and of the socket's family. */
int gyre__sim_serves(const struct sim_sock *l, const struct gyre__addr *addr);
int gyre__sim_choose(struct sim_sock *s, struct gyre__addr *addr);
int gyre__sim_check_addr(const struct sim_sock *s, const struct sockaddr *addr, socklen_t len);
bool gyre__sim_same_address(const struct gyre__addr *a, const struct gyre__addr *b);
void gyre__sim_map_to_v6(struct gyre__addr *addr);
/* The address as a socket of the family is told it. */
void gyre__sim_see_as(struct gyre__addr *addr, int family);
/* Where a datagram to `to` comes from: a socket bound to every address answers from the one that was asked. */
struct gyre__addr gyre__sim_source(const struct sim_sock *s, const struct gyre__addr *to);

/* ---- dgram.c ---- */

int gyre__sim_dgram_bind(struct sim_sock *s, const struct gyre__addr *addr);
int gyre__sim_dgram_connect(struct sim_sock *s, const struct gyre__addr *addr);
void gyre__sim_dgram_leave(struct sim_sock *s);
void gyre__sim_packet_due(struct sim_due *due);
void gyre__sim_packets_free(struct gyre_sim *sim);
bool gyre__sim_perform_sendmsg(struct sim_backend *be, struct sim_req *req, struct gyre__event *ev);
bool gyre__sim_perform_recvmsg(struct sim_backend *be, struct sim_req *req, struct gyre__event *ev, bool goes_on);

/* names.c: the backend's lookup(); free all. */
int gyre__sim_lookup(struct gyre__backend *base, struct sockaddr_storage *out, uint32_t max, const char *name,
                     int family, uint64_t *delay_ns);
void gyre__sim_names_free(struct gyre_sim *sim);

/* stream.c: a stream between two sockets. Returns 0 or -ENOMEM. */
int gyre__sim_stream_create(struct sim_sock *a, struct sim_sock *b);
void gyre__sim_stream_due(struct sim_pipe *p);
/* One end closes. `embryo`: it was never accepted. */
void gyre__sim_stream_leave(struct sim_sock *s, bool embryo);
/* Free it whatever its ends do; for the end of the simulation. */
void gyre__sim_stream_free(struct sim_stream *st);
void gyre__sim_stream_fin(struct sim_sock *s);
uint64_t gyre__sim_stream_inbound(const struct sim_sock *s);
uint32_t gyre__sim_stream_take(struct sim_sock *s, void *dst, uint32_t len);
uint32_t gyre__sim_stream_room(const struct sim_sock *s);
/* Add bytes, at most as many as there is room for; then send those added as one segment. */
void gyre__sim_stream_put(struct sim_sock *s, const void *src, uint32_t len);
void gyre__sim_stream_flush(struct sim_sock *s);
uint64_t gyre__sim_stream_unacked(const struct sim_sock *s);
/* What poll(2) would say of a connected one. */
unsigned gyre__sim_stream_poll(const struct sim_sock *s);
/* Both sides have sent FIN and got the other's. */
bool gyre__sim_stream_over(const struct sim_sock *s);

/* Why there is nothing to receive: 0 at the end, an error (which is then told), or -EAGAIN. And why nothing can be
 * sent: an error, or 0 if something can. */
int gyre__sim_recv_end(struct sim_sock *s);
int gyre__sim_send_err(struct sim_sock *s);

/* ---- requests.c ---- */

void gyre__sim_req_push(struct sim_queue_list *list, struct sim_req *req, enum sim_queue queue);
void gyre__sim_req_push_front(struct sim_queue_list *list, struct sim_req *req);
struct sim_req *gyre__sim_req_pop(struct sim_queue_list *list);
void gyre__sim_req_make_ready(struct sim_backend *be, struct sim_req *req);

/* Something happened on `s` that concerns its requests of these kinds, and those of POLL always. */
void gyre__sim_ready(struct sim_sock *s, unsigned kinds);
/* Whether a loop has something to do without time passing. */
bool gyre__sim_pending(const struct gyre_sim *sim);

/* perform.c: try it. Returns true and the event (its `op` is set by the caller), or false if it must wait. */
bool gyre__sim_perform(struct sim_backend *be, struct sim_req *req, struct gyre__event *ev);
/* A hash of what a send is to send; 0 for other operations. */
uint64_t gyre__sim_content(const struct gyre__op *op);

extern const struct gyre__sock_ops gyre__sock_sim;
extern const struct gyre__sockopt_ops gyre__sockopt_sim;
extern const struct gyre__backend_ops gyre__backend_sim;

#endif
