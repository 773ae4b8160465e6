/* SPDX-License-Identifier: MIT
 * What the tests of datagram sockets stand on: sockets that count and check their callbacks, on the loop of fixture.h.
 *
 * Each datagram begins with its number and is filled from a pattern of its own, so that loss, doubling and exchange
 * show. */
#ifndef GYRE_TEST_API_UDP_H
#define GYRE_TEST_API_UDP_H

#include "fixture.h"

#include <gyre/udp.h>

enum { UDP_NUMBERS = 4096 };

struct dsock;

/* What the sockets of one kind do. NULL: datagrams are counted and compared. */
struct dscript {
    void (*datagram)(struct dsock *s, const struct gyre_datagram *d);
    void (*drain)(struct dsock *s);
    void (*error)(struct dsock *s, int err);
    void (*close)(struct dsock *s);
};

struct dsock {
    struct api *api;
    const struct dscript *script;
    struct gyre_udp *u; /* NULL once closed */
    unsigned datagrams, drains, errors, closes;
    int err;       /* on_close's */
    int last_err;  /* on_error's */
    uint64_t bytes;
    uint8_t seen[UDP_NUMBERS]; /* how often each number came */
    unsigned distinct;
    int64_t newest;            /* the number of the last one, -1: none */
    bool disorder;             /* one came after a later one */
    size_t len_last;
    bool truncated_last;
    struct gyre_udp_counts stats; /* final, from on_close */
    void *user;
    unsigned n; /* for the test */
};

/* api_init(), and with it api_open(), with a network that loses nothing on the simulator. */
void udp_init(struct api *api, const struct backend_param *p);
void udp_start(struct api *api, const struct backend_param *p);
/* On the simulator also one whose send buffers are never full, so that nothing is overtaken. */
void udp_start_roomy(struct api *api, const struct backend_param *p);
/* Where to bind: the transport's, a fresh one. */
void udp_fresh_address(struct api *api, char *out, size_t size);
/* Open, bound to a fresh address; or connected to `address`. The socket must live until api_close(). */
void udp_bind(struct api *api, struct dsock *s, const struct dscript *script, const struct gyre_udp_options *options);
void udp_connect(struct api *api, struct dsock *s, const char *address, const struct dscript *script,
                 const struct gyre_udp_options *options);
/* Make a socket of `fd`, of the kernel's or the simulator's. */
int udp_try_adopt(struct api *api, struct dsock *s, int fd, const struct dscript *script,
                  const struct gyre_udp_options *options);
/* The same, as the library says. */
int udp_try_bind(struct api *api, struct dsock *s, const char *address, const struct dscript *script,
                 const struct gyre_udp_options *options);
int udp_try_connect(struct api *api, struct dsock *s, const char *address, const struct dscript *script,
                    const struct gyre_udp_options *options);
/* Close, and turn until on_close. */
void udp_close(struct dsock *s);
/* Fill `len` bytes (at least 4) as datagram `number`; check that they are one, and count it. */
void udp_fill(uint8_t *data, size_t len, uint32_t number);
void udp_check(struct dsock *s, const struct gyre_datagram *d);
/* gyre_udp_send() of datagram `number`, `len` bytes long. */
int udp_send(struct dsock *s, uint32_t number, size_t len);
/* A script's datagram: count, check, and answer with the same bytes. */
void udp_echo(struct dsock *s, const struct gyre_datagram *d);

static inline bool is_udp(const struct api *api)
{
    return is_tcp(api);
}

#endif
