/* SPDX-License-Identifier: MIT
 * The listening socket of the yardsticks. */
#include "raw_listen.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>

_Noreturn void bench_raw_die(const char *call, int err)
{
    (void)fprintf(stderr, "%s: %s\n", call, strerror(err < 0 ? -err : err));
    exit(EXIT_FAILURE);
}

int bench_raw_nodelay(int fd)
{
    const int one = 1;
    if (setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one) != 0)
        bench_raw_die("setsockopt", errno);
    return fd;
}

static uint16_t parse_port(int argc, char **argv)
{
    if (argc == 1)
        return 0;
    char *end = NULL;
    unsigned long port = argc == 3 && strcmp(argv[1], "--port") == 0 ? strtoul(argv[2], &end, 10) : 0;
    if (end == NULL || end == argv[2] || *end != '\0' || argv[2][0] == '-' || port > UINT16_MAX) {
        (void)fprintf(stderr, "usage: %s [--port 0..65535]\n", argv[0]);
        exit(2);
    }
    return (uint16_t)port;
}

int bench_raw_listen(int argc, char **argv)
{
    struct sockaddr_in in = {.sin_family = AF_INET,
                             .sin_port = htons(parse_port(argc, argv)),
                             .sin_addr = {.s_addr = htonl(INADDR_LOOPBACK)}};
    socklen_t length = sizeof in;
    const int one = 1;
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) != 0)
        bench_raw_die("getrlimit", errno);
    limit.rlim_cur = limit.rlim_max;
    if (setrlimit(RLIMIT_NOFILE, &limit) != 0)
        bench_raw_die("setrlimit", errno);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        bench_raw_die("socket", errno);
    if (setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one) != 0)
        bench_raw_die("setsockopt", errno);
    if (bind(fd, (const struct sockaddr *)&in, sizeof in) != 0)
        bench_raw_die("bind", errno);
    if (listen(fd, 4096) != 0)
        bench_raw_die("listen", errno);
    if (getsockname(fd, (struct sockaddr *)&in, &length) != 0)
        bench_raw_die("getsockname", errno);
    (void)printf("listening on tcp://127.0.0.1:%u\n", (unsigned)ntohs(in.sin_port));
    (void)fflush(stdout);
    return fd;
}
