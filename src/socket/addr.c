/* SPDX-License-Identifier: MIT
 * Parsing and printing addresses. Names are not resolved here: a host is a number. */
#include "addr.h"

#include <arpa/inet.h>
#include <net/if.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <sys/un.h>
#include <errno.h>

/* Whether `*text` starts with `prefix`, which is then skipped. */
static bool skip(const char **text, const char *prefix)
{
    size_t len = strlen(prefix);
    if (strncmp(*text, prefix, len) != 0)
        return false;
    *text += len;
    return true;
}

static int parse_unix(struct gyre__address *out, const char *path)
{
    struct sockaddr_un *un = (struct sockaddr_un *)&out->addr.ss;
    size_t len = strlen(path);
    bool abstract = path[0] == '@';
    if (path[0] != '/' && path[0] != '.' && !abstract)
        return len == 0 ? GYRE_EPATHLEN : GYRE_EADDRESS;
    /* A path needs room for its terminator; an abstract name trades the @ for a NUL and has none. */
    if (abstract ? len < 2 || len > sizeof un->sun_path : len >= sizeof un->sun_path)
        return GYRE_EPATHLEN;
    un->sun_family = AF_UNIX;
    memcpy(un->sun_path, path, len);
    if (abstract)
        un->sun_path[0] = '\0';
    out->addr.len = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + len + (abstract ? 0 : 1));
    return 0;
}

static int parse_port(const char *text, in_port_t *out)
{
    unsigned port = 0;
    if (*text == '\0' || strlen(text) > 5)
        return GYRE_EADDRESS;
    for (; *text != '\0'; text++) {
        if (*text < '0' || *text > '9')
            return GYRE_EADDRESS;
        port = port * 10 + (unsigned)(*text - '0');
    }
    if (port > 65535)
        return GYRE_EADDRESS;
    *out = htons((in_port_t)port);
    return 0;
}

static int parse_v6(struct gyre__address *out, char *host, in_port_t port)
{
    struct sockaddr_in6 *in6 = (struct sockaddr_in6 *)&out->addr.ss;
    char *zone = strchr(host, '%');
    if (zone != NULL) {
        *zone++ = '\0';
        in6->sin6_scope_id = if_nametoindex(zone);
        if (in6->sin6_scope_id == 0)
            return GYRE_EADDRESS;
    }
    if (inet_pton(AF_INET6, host, &in6->sin6_addr) != 1)
        return GYRE_EADDRESS;
    in6->sin6_family = AF_INET6;
    in6->sin6_port = port;
    out->addr.len = sizeof *in6;
    return 0;
}

static int parse_v4(struct gyre__address *out, const char *host, in_port_t port)
{
    struct sockaddr_in *in4 = (struct sockaddr_in *)&out->addr.ss;
    if (host[0] != '\0' && inet_pton(AF_INET, host, &in4->sin_addr) != 1)
        return GYRE_EADDRESS;
    in4->sin_family = AF_INET;
    in4->sin_port = port;
    out->addr.len = sizeof *in4;
    return 0;
}

/* `family` AF_UNSPEC: what the host says. */
static int parse_inet(struct gyre__address *out, const char *text, int family)
{
    char host[INET6_ADDRSTRLEN + IF_NAMESIZE + 2];
    const char *colon = strrchr(text, ':');
    in_port_t port = 0;
    if (colon == NULL || (size_t)(colon - text) >= sizeof host || parse_port(colon + 1, &port) != 0)
        return GYRE_EADDRESS;
    size_t len = (size_t)(colon - text);
    memcpy(host, text, len);
    host[len] = '\0';

    out->v6_only = family == AF_INET6;
    if (len == 0 && family == AF_INET)
        return parse_v4(out, host, port);
    if (len == 0) {
        char any[] = "::";
        out->any_host = family == AF_UNSPEC;
        return parse_v6(out, any, port);
    }
    if (host[0] != '[')
        return family == AF_INET6 ? GYRE_EADDRESS : parse_v4(out, host, port);
    if (family == AF_INET || len < 3 || host[len - 1] != ']')
        return GYRE_EADDRESS;
    host[len - 1] = '\0';
    return parse_v6(out, host + 1, port);
}

int gyre__addr_parse(struct gyre__address *out, const char *text)
{
    struct gyre__address address = {.v6_only = false};
    int err = GYRE_EADDRESS;
    if (text == NULL)
        return GYRE_EADDRESS;
    if (skip(&text, "tcp://"))
        err = parse_inet(&address, text, AF_UNSPEC);
    else if (skip(&text, "tcp4://"))
        err = parse_inet(&address, text, AF_INET);
    else if (skip(&text, "tcp6://"))
        err = parse_inet(&address, text, AF_INET6);
    else if (skip(&text, "unix://"))
        err = parse_unix(&address, text);
    if (err == 0)
        *out = address;
    return err;
}

int gyre__addr_parse_dgram(struct gyre__address *out, const char *text)
{
    struct gyre__address address = {.v6_only = false};
    int err = GYRE_EADDRESS;
    if (text == NULL)
        return GYRE_EADDRESS;
    if (skip(&text, "udp://"))
        err = parse_inet(&address, text, AF_UNSPEC);
    else if (skip(&text, "udp4://"))
        err = parse_inet(&address, text, AF_INET);
    else if (skip(&text, "udp6://"))
        err = parse_inet(&address, text, AF_INET6);
    else if (skip(&text, "unixgram://"))
        err = parse_unix(&address, text);
    if (err == 0)
        *out = address;
    return err;
}

/* What addresses begin with. */
struct schemes {
    const char *inet, *local;
};

static void format_unix(const struct gyre__addr *addr, const char *scheme, char *out, size_t size)
{
    const struct sockaddr_un *un = (const struct sockaddr_un *)&addr->ss;
    size_t len = addr->len > offsetof(struct sockaddr_un, sun_path)
                     ? addr->len - offsetof(struct sockaddr_un, sun_path)
                     : 0;
    if (len == 0) {
        (void)snprintf(out, size, "%s://", scheme);
        return;
    }
    bool abstract = un->sun_path[0] == '\0';
    int shown = abstract ? (int)len - 1 : (int)strnlen(un->sun_path, len);
    (void)snprintf(out, size, "%s://%s%.*s", scheme, abstract ? "@" : "", shown, un->sun_path + (abstract ? 1 : 0));
}

static void format_v6(const struct gyre__addr *addr, const char *scheme, char *out, size_t size)
{
    const struct sockaddr_in6 *in6 = (const struct sockaddr_in6 *)&addr->ss;
    char host[INET6_ADDRSTRLEN] = "";
    char zone[IF_NAMESIZE + 1] = "";
    (void)inet_ntop(AF_INET6, &in6->sin6_addr, host, sizeof host);
    if (in6->sin6_scope_id != 0 && if_indextoname(in6->sin6_scope_id, zone + 1) != NULL)
        zone[0] = '%';
    (void)snprintf(out, size, "%s://[%s%s]:%u", scheme, host, zone, ntohs(in6->sin6_port));
}

static void format(const struct gyre__addr *addr, const struct schemes *schemes, char *out, size_t size)
{
    const struct sockaddr_in *in4 = (const struct sockaddr_in *)&addr->ss;
    char host[INET_ADDRSTRLEN] = "";
    switch (addr->ss.ss_family) {
    case AF_UNIX:
        format_unix(addr, schemes->local, out, size);
        break;
    case AF_INET6:
        format_v6(addr, schemes->inet, out, size);
        break;
    case AF_INET:
        (void)inet_ntop(AF_INET, &in4->sin_addr, host, sizeof host);
        (void)snprintf(out, size, "%s://%s:%u", schemes->inet, host, ntohs(in4->sin_port));
        break;
    default:
        (void)snprintf(out, size, "?");
        break;
    }
}

void gyre__addr_format(const struct gyre__addr *addr, char *out, size_t size)
{
    format(addr, &(struct schemes){.inet = "tcp", .local = "unix"}, out, size);
}

void gyre__addr_format_dgram(const struct gyre__addr *addr, char *out, size_t size)
{
    format(addr, &(struct schemes){.inet = "udp", .local = "unixgram"}, out, size);
}

const char *gyre__addr_path(const struct gyre__addr *addr)
{
    const struct sockaddr_un *un = (const struct sockaddr_un *)&addr->ss;
    if (!gyre__addr_is_unix(addr) || addr->len <= offsetof(struct sockaddr_un, sun_path) || un->sun_path[0] == '\0')
        return NULL;
    return un->sun_path;
}

int gyre__addr_of(struct gyre__backend *be, int fd, bool peer, struct sockaddr_storage *out, socklen_t *out_len)
{
    struct gyre__addr addr;
    if (out == NULL || out_len == NULL)
        return -EINVAL;
    int err = be->ops->sock->name(be, fd, peer, &addr);
    if (err != 0)
        return err;
    *out = addr.ss;
    *out_len = addr.len;
    return 0;
}

struct gyre__addr gyre__addr_any_v4(const struct gyre__addr *any)
{
    struct gyre__addr addr = {.len = sizeof(struct sockaddr_in)};
    struct sockaddr_in *in4 = (struct sockaddr_in *)&addr.ss;
    in4->sin_family = AF_INET;
    in4->sin_port = ((const struct sockaddr_in6 *)&any->ss)->sin6_port;
    return addr;
}

int gyre__addr_inspect(struct gyre__backend *be, int fd, struct gyre__sock_info *info)
{
    int err = be->ops->sock->inspect(be, fd, info);
    if (err != 0)
        return err == -ENOTSOCK ? GYRE_ESOCKTYPE : err;
    return info->family == AF_INET || info->family == AF_INET6 || info->family == AF_UNIX ? 0 : GYRE_ESOCKTYPE;
}
