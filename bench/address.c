/* SPDX-License-Identifier: MIT
 * Parsing addresses and connecting to them. Connecting waits, because a load begins only when all its connections are
 * made; what follows never blocks. */
#include "address.h"

#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <string.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

static int parse_unix(struct bench_address *out, const char *path, char *why, size_t why_size)
{
    struct sockaddr_un un = {.sun_family = AF_UNIX};
    size_t length = strlen(path);
    if (length == 0 || length >= sizeof un.sun_path) {
        (void)snprintf(why, why_size, "the path must have 1 to %zu bytes", sizeof un.sun_path - 1);
        return -1;
    }
    memcpy(un.sun_path, path, length);
    out->length = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + length + 1);
    if (path[0] == '@') {
        un.sun_path[0] = '\0';
        out->length--;
    }
    memcpy(&out->storage, &un, sizeof un);
    return 0;
}

/* Cuts "host:port" or "[host]:port" in two. */
static int split_port(char *host, size_t host_size, const char **port, const char *text)
{
    const char *colon = strrchr(text, ':');
    if (colon == NULL || colon[1] == '\0')
        return -1;
    const char *begin = text;
    const char *end = colon;
    if (*begin == '[' && end > begin + 1 && end[-1] == ']') {
        begin++;
        end--;
    }
    size_t length = (size_t)(end - begin);
    if (length == 0 || length >= host_size)
        return -1;
    memcpy(host, begin, length);
    host[length] = '\0';
    *port = colon + 1;
    return 0;
}

static int parse_inet(struct bench_address *out, const char *text, char *why, size_t why_size)
{
    char host[256];
    const char *port;
    if (split_port(host, sizeof host, &port, text) != 0) {
        (void)snprintf(why, why_size, "it must be %s://HOST:PORT", out->is_datagram ? "udp" : "tcp");
        return -1;
    }
    const struct addrinfo hints = {.ai_socktype = out->is_datagram ? SOCK_DGRAM : SOCK_STREAM,
                                   .ai_flags = AI_NUMERICSERV};
    struct addrinfo *found;
    int err = getaddrinfo(host, port, &hints, &found);
    if (err != 0) {
        (void)snprintf(why, why_size, "%s", gai_strerror(err));
        return -1;
    }
    memcpy(&out->storage, found->ai_addr, found->ai_addrlen);
    out->length = found->ai_addrlen;
    freeaddrinfo(found);
    return 0;
}

int bench_address_parse(struct bench_address *out, const char *text, char *why, size_t why_size)
{
    *out = (struct bench_address){.text = text};
    if (strncmp(text, "tcp://", 6) == 0)
        return parse_inet(out, text + 6, why, why_size);
    out->is_datagram = strncmp(text, "udp://", 6) == 0;
    if (out->is_datagram)
        return parse_inet(out, text + 6, why, why_size);
    if (strncmp(text, "unix://", 7) == 0)
        return parse_unix(out, text + 7, why, why_size);
    (void)snprintf(why, why_size, "it must begin with tcp://, udp:// or unix://");
    return -1;
}

static int connect_within(int fd, const struct bench_address *address, uint32_t timeout_ms)
{
    const struct timeval limit = {.tv_sec = timeout_ms / 1000, .tv_usec = (timeout_ms % 1000) * 1000};
    if (setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit) != 0)
        return -errno;
    if (connect(fd, (const struct sockaddr *)&address->storage, address->length) != 0)
        return errno == EINPROGRESS || errno == EAGAIN ? -ETIMEDOUT : -errno;
    const int one = 1;
    bool is_tcp = address->storage.ss_family != AF_UNIX && !address->is_datagram;
    if (is_tcp && setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one) != 0)
        return -errno;
    return fcntl(fd, F_SETFL, O_NONBLOCK) == 0 ? 0 : -errno;
}

int bench_address_connect(const struct bench_address *address, uint32_t timeout_ms)
{
    int fd = socket(address->storage.ss_family, (address->is_datagram ? SOCK_DGRAM : SOCK_STREAM) | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return -errno;
    int err = connect_within(fd, address, timeout_ms);
    if (err != 0) {
        (void)close(fd);
        return err;
    }
    return fd;
}
