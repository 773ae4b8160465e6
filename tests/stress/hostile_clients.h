/* SPDX-License-Identifier: MIT
 * The clients of hostile.c, all in one thread, on sockets of their own without the library: 200 of them, each in one of
 * the states that a peer can be in, until it is closed or reset and another one takes its place.
 *
 * A gate stops them and whoever else passes it: then nothing moves, and all stay in the states that they are in. */
#ifndef GYRE_STRESS_HOSTILE_CLIENTS_H
#define GYRE_STRESS_HOSTILE_CLIENTS_H

#include "hostile_server.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/un.h>

enum { CLIENTS = 200, FEED = 16 * 1000, FEED_FRAME = 1000, GATE_MS = 2 };

enum state {
    HALF_CLOSED,      /* sent FIN, does not read */
    HALF_CLOSED_SLOW, /* sent FIN, reads a few bytes at a time */
    DEAF,             /* sends what it can, does not read */
    SHUT,             /* will not receive: on a unix socket a send to it fails */
    RESET,            /* resets soon, with bytes of both sides under way */
    URGENT,           /* sends urgent data */
    SILENT,           /* sends nothing */
    SILENT_FIN,       /* sends nothing but FIN */
    TRICKLE,          /* sends one byte a second */
    GARBAGE,          /* sends what is no frame */
    STATES
};

struct client {
    int fd; /* -1: none */
    enum state state;
    bool reads;
    size_t at, len; /* bytes sent, and how many shall be; then it may send FIN */
    double end, next; /* when it is closed, when the next byte is due */
};

struct gate {
    atomic_bool shut;
    atomic_uint waiting; /* threads */
};

struct crowd {
    struct server *server;
    struct gate *gate; /* or NULL */
    atomic_bool over;
    atomic_ulong made, met[STATES]; /* clients */
    uint64_t random; /* of the crowd's thread */
    uint8_t feed[FEED];
    struct client clients[CLIENTS];
    pthread_t thread;
};

static inline void rest_ms(unsigned ms)
{
    const struct timespec rest = {.tv_sec = ms / 1000, .tv_nsec = (long)(ms % 1000) * 1000000};
    (void)nanosleep(&rest, NULL);
}

static inline void gate_pass(struct gate *gate)
{
    if (!atomic_load(&gate->shut))
        return;
    (void)atomic_fetch_add(&gate->waiting, 1);
    while (atomic_load(&gate->shut))
        rest_ms(GATE_MS);
    (void)atomic_fetch_sub(&gate->waiting, 1);
}

/* ---- Sockets ---- */

/* Returns a socket that is connected, or being connected, or -1: nobody listens there now. */
static inline int dial(const char *address, bool blocking)
{
    struct sockaddr_in in = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    struct sockaddr_un un = {.sun_family = AF_UNIX};
    bool tcp = address[0] == 't';
    int fd = socket(tcp ? AF_INET : AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | (blocking ? 0 : SOCK_NONBLOCK), 0);
    MUST(fd >= 0);
    in.sin_port = htons((uint16_t)strtoul(strrchr(address, ':') + 1, NULL, 10));
    (void)snprintf(un.sun_path, sizeof un.sun_path, "%s", address + strlen("unix://"));
    int err = tcp ? connect(fd, (struct sockaddr *)&in, sizeof in) : connect(fd, (struct sockaddr *)&un, sizeof un);
    if (err == 0 || errno == EINPROGRESS)
        return fd;
    (void)close(fd);
    return -1;
}

static inline void finish(struct client *cl, bool reset)
{
    const struct linger none = {.l_onoff = 1};
    if (reset)
        (void)setsockopt(cl->fd, SOL_SOCKET, SO_LINGER, &none, sizeof none);
    (void)close(cl->fd);
    cl->fd = -1;
}

static inline bool is_final(ssize_t n)
{
    return n < 0 && errno != EAGAIN && errno != EINTR && errno != EOPNOTSUPP;
}

/* Each returns whether the socket is still good. */
static inline bool read_some(struct client *cl, size_t max)
{
    uint8_t bytes[16 * 1024];
    return !is_final(recv(cl->fd, bytes, max < sizeof bytes ? max : sizeof bytes, MSG_DONTWAIT));
}

static inline bool send_some(struct crowd *crowd, struct client *cl, size_t max, int flags)
{
    size_t from = cl->at % FEED, len = cl->len - cl->at;
    len = len < max ? len : max;
    len = len < FEED - from ? len : FEED - from;
    ssize_t n = send(cl->fd, crowd->feed + from, len, flags | MSG_DONTWAIT | MSG_NOSIGNAL);
    if (n > 0)
        cl->at += (size_t)n;
    else if (n < 0 && errno == EAGAIN)
        cl->len = cl->at; /* full: this is as much as it gets rid of */
    return !is_final(n);
}

/* ---- One client ---- */

static inline uint32_t random_below(struct crowd *crowd, uint32_t n)
{
    return (uint32_t)(stress_random(&crowd->random) % n);
}

static inline void begin(struct crowd *crowd, struct client *cl, double now)
{
    static const int small = 4096;
    const char *address = crowd->server->addresses[random_below(crowd, SERVICES)][random_below(crowd, 2)];
    *cl = (struct client){.fd = dial(address, false), .state = (enum state)random_below(crowd, STATES),
                          .reads = random_below(crowd, 2)};
    if (cl->fd < 0)
        return;
    if (random_below(crowd, 2))
        (void)setsockopt(cl->fd, SOL_SOCKET, SO_RCVBUF, &small, sizeof small);
    if (cl->state == SHUT)
        (void)shutdown(cl->fd, SHUT_RD);
    cl->len = random_below(crowd, 4) == 0 ? 4u << 20 : 1 + random_below(crowd, 100000);
    cl->end = now + 0.02 + (double)random_below(crowd, cl->state == RESET ? 300 : 4000) / 1000;
    cl->next = now;
    (void)atomic_fetch_add(&crowd->made, 1);
    (void)atomic_fetch_add(&crowd->met[cl->state], 1);
}

static inline bool send_then_fin(struct crowd *crowd, struct client *cl)
{
    if (cl->at < cl->len)
        return send_some(crowd, cl, FEED, 0);
    if (cl->len > 0) {
        cl->len = cl->at = 0;
        return shutdown(cl->fd, SHUT_WR) == 0 || errno == ENOTCONN;
    }
    return true;
}

static inline bool send_due_byte(struct crowd *crowd, struct client *cl, double now)
{
    if (now < cl->next)
        return read_some(cl, 100);
    cl->next = now + 1;
    cl->len = cl->at + 1;
    return send_some(crowd, cl, 1, 0);
}

static inline bool send_garbage(struct client *cl)
{
    static const uint8_t garbage[] = {0xff, 0xff, 0xff, 0xff, 'g', 'a', 'r', 'b', 'a', 'g', 'e'};
    ssize_t n = 0;
    if (cl->at == 0 && (n = send(cl->fd, garbage, sizeof garbage, MSG_DONTWAIT | MSG_NOSIGNAL)) > 0)
        cl->at = (size_t)n;
    return !is_final(n);
}

/* What it does now. Returns whether it goes on. */
static inline bool act(struct crowd *crowd, struct client *cl, double now)
{
    switch (cl->state) {
    case HALF_CLOSED: return send_then_fin(crowd, cl);
    case HALF_CLOSED_SLOW: return send_then_fin(crowd, cl) && read_some(cl, 1 + random_below(crowd, 600));
    case DEAF:
    case SHUT:
    case RESET: return cl->at == cl->len || send_some(crowd, cl, FEED, 0);
    case URGENT:
        return send_some(crowd, cl, random_below(crowd, 2000), 0) && (!cl->reads || read_some(cl, 4000)) &&
               (random_below(crowd, 4) != 0 || send_some(crowd, cl, 1, MSG_OOB));
    case SILENT: return true;
    case SILENT_FIN:
        cl->len = cl->len > 0;
        cl->at = cl->len;
        return send_then_fin(crowd, cl);
    case TRICKLE: return send_due_byte(crowd, cl, now);
    case GARBAGE: return send_garbage(cl) && (!cl->reads || read_some(cl, 100));
    case STATES: break;
    }
    return false;
}

/* ---- All of them ---- */

static inline void crowd_turn(struct crowd *crowd)
{
    double now = stress_seconds();
    for (unsigned i = 0; i < CLIENTS; i++) {
        struct client *cl = &crowd->clients[i];
        if (cl->fd < 0)
            begin(crowd, cl, now);
        if (cl->fd < 0)
            continue;
        bool good = act(crowd, cl, now);
        if (!good || now >= cl->end)
            finish(cl, cl->state == RESET || random_below(crowd, 2));
    }
}

static inline void *crowd_run(void *arg)
{
    struct crowd *crowd = arg;
    while (!atomic_load(&crowd->over)) {
        if (crowd->gate != NULL)
            gate_pass(crowd->gate);
        crowd_turn(crowd);
        rest_ms(1 + random_below(crowd, 4));
    }
    for (unsigned i = 0; i < CLIENTS; i++)
        if (crowd->clients[i].fd >= 0)
            finish(&crowd->clients[i], i % 2);
    return NULL;
}

static inline struct crowd *crowd_open(struct server *server, struct gate *gate, uint64_t seed)
{
    struct crowd *crowd = calloc(1, sizeof *crowd);
    MUST(crowd != NULL);
    crowd->server = server;
    crowd->gate = gate;
    crowd->random = seed;
    for (unsigned i = 0; i < FEED; i += FEED_FRAME) {
        crowd->feed[i + 2] = (FEED_FRAME - 4) >> 8;
        crowd->feed[i + 3] = (FEED_FRAME - 4) & 0xff;
    }
    for (unsigned i = 0; i < CLIENTS; i++)
        crowd->clients[i].fd = -1;
    crowd->thread = stress_thread(crowd_run, crowd);
    return crowd;
}

static inline void crowd_close(struct crowd *crowd)
{
    atomic_store(&crowd->over, true);
    MUST(pthread_join(crowd->thread, NULL) == 0);
    free(crowd);
}

#endif
