/* SPDX-License-Identifier: MIT
 * Addresses as text and as the kernel takes them. */
#ifndef GYRE_SOCKET_ADDR_H
#define GYRE_SOCKET_ADDR_H

#include "seam/backend.h"

enum { GYRE_ADDR_TEXT_MAX = 160 }; /* room for any address as text */

struct gyre__address {
    struct gyre__addr addr;
    bool v6_only;  /* tcp6://, udp6:// */
    bool any_host; /* tcp://:PORT, udp://:PORT: every address of both families */
};

/* Parse "tcp://HOST:PORT", "tcp4://…", "tcp6://…", "unix:///PATH", "unix://@NAME". HOST is a number ("127.0.0.1",
 * "[::1]", "[fe80::1%eth0]"), or empty for all. Returns 0, GYRE_EADDRESS or GYRE_EPATHLEN. */
int gyre__addr_parse(struct gyre__address *out, const char *text);

enum { GYRE_HOST_MAX = 253 }; /* of a host name, in bytes (RFC 1035); a trailing dot is not counted */

/* An address whose host is a name. */
struct gyre__host {
    char name[GYRE_HOST_MAX + 2];
    in_port_t port; /* as on the wire */
    int family;     /* AF_UNSPEC: both */
};

/* Parse "tcp://NAME:PORT", "tcp4://…", "tcp6://…". Returns 0 or GYRE_EADDRESS. */
int gyre__addr_parse_host(struct gyre__host *out, const char *text);

/* Whether `text` is a host name: labels of letters, digits, '-' and '_', the last of which is no number, so that a
 * mistyped IP address is not looked up. */
bool gyre__addr_is_name(const char *text, size_t len);

/* Several addresses in one text, "tcp://127.0.0.1:80,[::1]:80": how many, 0 if it is not of TCP; and the one at
 * `index`. Returns 0 or GYRE_EADDRESS. */
uint32_t gyre__addr_list_count(const char *text);
int gyre__addr_list_item(struct gyre__address *out, const char *text, uint32_t index);

/* Of an internet address; as on the wire. */
in_port_t gyre__addr_port(const struct gyre__addr *addr);
bool gyre__addr_same_host(const struct gyre__addr *a, const struct gyre__addr *b);

/* An internet address with another port. */
void gyre__addr_set(struct gyre__addr *out, const struct sockaddr_storage *ss, in_port_t port);

/* The other way, as gyre__addr_parse() takes it; always terminated. */
void gyre__addr_format(const struct gyre__addr *addr, char *out, size_t size);

/* The same for "udp://…", "udp4://…", "udp6://…", "unixgram://…". */
int gyre__addr_parse_dgram(struct gyre__address *out, const char *text);
void gyre__addr_format_dgram(const struct gyre__addr *addr, char *out, size_t size);

static inline bool gyre__addr_is_unix(const struct gyre__addr *addr)
{
    return addr->ss.ss_family == AF_UNIX;
}

/* The file of a unix socket, or NULL for TCP, abstract and unnamed ones. */
const char *gyre__addr_path(const struct gyre__addr *addr);

/* The bound address of a socket, or its peer's, for the user. Returns 0, -EINVAL or what the system said. */
int gyre__addr_of(struct gyre__backend *be, int fd, bool peer, struct sockaddr_storage *out, socklen_t *out_len);

/* Every IPv4 address, with the port of `any`, which is every IPv6 address: for machines without IPv6. */
struct gyre__addr gyre__addr_any_v4(const struct gyre__addr *any);

/* Look at a descriptor that the caller brings. Returns 0, GYRE_ESOCKTYPE if it is no socket of IPv4, IPv6 or unix, or
 * -errno. */
int gyre__addr_inspect(struct gyre__backend *be, int fd, struct gyre__sock_info *info);

#endif
