/* SPDX-License-Identifier: MIT
 * Where the server is: "tcp://127.0.0.1:7000", "tcp://[::1]:7000", "unix:///run/x.sock", "unix://@name",
 * "udp://127.0.0.1:7000". */
#ifndef BENCH_ADDRESS_H
#define BENCH_ADDRESS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>

struct bench_address {
    struct sockaddr_storage storage;
    socklen_t length;
    bool is_datagram;
    const char *text; /* as given; borrowed */
};

/* Returns 0, or -1 with the reason in `why`. */
int bench_address_parse(struct bench_address *out, const char *text, char *why, size_t why_size);

/* A connected, non-blocking socket, TCP_NODELAY set on streams. Waits up to `timeout_ms`. Returns the descriptor, or
 * -errno. */
int bench_address_connect(const struct bench_address *address, uint32_t timeout_ms);

#endif
