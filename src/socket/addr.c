/* SPDX-License-Identifier: MIT
 * Parsing and printing addresses. Names are taken apart here and resolved elsewhere. */
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

static bool is_digit(char ch)
{
    return ch >= '0' && ch <= '9';
}

static bool is_letter(char ch)
{
    return (ch >= 'a' && ch <= 'z') || (ch >= 'A' && ch <= 'Z');
}

/* Whether getaddrinfo(3) could take the label for a number: "17", "0x11". */
static bool is_number(const char *label, size_t len)
{
    bool hex = len > 1 && label[0] == '0' && (label[1] == 'x' || label[1] == 'X');
    for (size_t i = hex ? 2 : 0; i < len; i++)
        if (!is_digit(label[i]) && !(hex && is_letter(label[i]) && (label[i] | 0x20) <= 'f'))
            return false;
    return true;
}

bool gyre__addr_is_name(const char *text, size_t len)
{
    size_t label = 0; /* where the label begins */
    len -= len > 0 && text[len - 1] == '.';
    if (len == 0 || len > GYRE_HOST_MAX)
        return false;
    for (size_t i = 0; i <= len; i++) {
        if (i < len && text[i] != '.') {
            if (!is_digit(text[i]) && !is_letter(text[i]) && text[i] != '_' && (text[i] != '-' || i == label))
                return false;
            continue;
        }
        if (i == label || i - label > 63)
            return false;
        if (i == len)
            return !is_number(text + label, len - label);
        label = i + 1;
    }
    return false;
}

/* The family of the scheme of TCP that `*text` starts with, which is then skipped; -1: another scheme. */
static int skip_tcp(const char **text)
{
    if (skip(text, "tcp://"))
        return AF_UNSPEC;
    if (skip(text, "tcp4://"))
        return AF_INET;
    return skip(text, "tcp6://") ? AF_INET6 : -1;
}

int gyre__addr_parse_host(struct gyre__host *out, const char *text)
{
    struct gyre__host host = {.family = skip_tcp(&text)};
    if (host.family < 0)
        return GYRE_EADDRESS;
    const char *colon = strrchr(text, ':');
    size_t len = colon != NULL ? (size_t)(colon - text) : 0;
    if (len == 0 || len >= sizeof host.name || !gyre__addr_is_name(text, len) || parse_port(colon + 1, &host.port) != 0)
        return GYRE_EADDRESS;
    memcpy(host.name, text, len);
    *out = host;
    return 0;
}

uint32_t gyre__addr_list_count(const char *text)
{
    uint32_t count = 1;
    if (skip_tcp(&text) < 0)
        return 0;
    for (; *text != '\0'; text++)
        count += *text == ',';
    return count;
}

int gyre__addr_list_item(struct gyre__address *out, const char *text, uint32_t index)
{
    char item[INET6_ADDRSTRLEN + IF_NAMESIZE + 16];
    int family = skip_tcp(&text);
    for (; index > 0; index--)
        text = strchr(text, ',') + 1;
    size_t len = strcspn(text, ",");
    if (family < 0 || len >= sizeof item)
        return GYRE_EADDRESS;
    memcpy(item, text, len);
    item[len] = '\0';
    struct gyre__address address = {.v6_only = false};
    int err = item[0] != ':' ? parse_inet(&address, item, family) : GYRE_EADDRESS;
    if (err == 0)
        *out = address;
    return err;
}

in_port_t gyre__addr_port(const struct gyre__addr *addr)
{
    return addr->ss.ss_family == AF_INET6 ? ((const struct sockaddr_in6 *)&addr->ss)->sin6_port
                                          : ((const struct sockaddr_in *)&addr->ss)->sin_port;
}

bool gyre__addr_same_host(const struct gyre__addr *a, const struct gyre__addr *b)
{
    const struct sockaddr_in6 *a6 = (const struct sockaddr_in6 *)&a->ss, *b6 = (const struct sockaddr_in6 *)&b->ss;
    const struct sockaddr_in *a4 = (const struct sockaddr_in *)&a->ss, *b4 = (const struct sockaddr_in *)&b->ss;
    if (a->ss.ss_family != b->ss.ss_family)
        return false;
    if (a->ss.ss_family == AF_INET6)
        return memcmp(&a6->sin6_addr, &b6->sin6_addr, sizeof a6->sin6_addr) == 0;
    return a4->sin_addr.s_addr == b4->sin_addr.s_addr;
}

void gyre__addr_set(struct gyre__addr *out, const struct sockaddr_storage *ss, in_port_t port)
{
    out->ss = *ss;
    if (ss->ss_family == AF_INET6) {
        ((struct sockaddr_in6 *)&out->ss)->sin6_port = port;
        out->len = sizeof(struct sockaddr_in6);
    } else {
        ((struct sockaddr_in *)&out->ss)->sin_port = port;
        out->len = sizeof(struct sockaddr_in);
    }
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
