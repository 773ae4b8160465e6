/* SPDX-License-Identifier: MIT
 * The sockets and threads of the yardsticks. */
#include "raw_listen.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>

enum { LOOPS_MAX = 16 };

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

struct arguments {
    uint16_t port;
    unsigned loops;
};

/* Takes `--port N` and, where more than one loop is known, `--loops N`. */
static struct arguments parse(int argc, char **argv, unsigned loops_max)
{
    struct arguments out = {.loops = 1};
    bool is_right = argc % 2 == 1;
    for (int i = 1; i + 1 < argc && is_right; i += 2) {
        char *end;
        unsigned long value = strtoul(argv[i + 1], &end, 10);
        is_right = argv[i + 1][0] >= '0' && argv[i + 1][0] <= '9' && *end == '\0';
        if (strcmp(argv[i], "--port") == 0 && value <= UINT16_MAX)
            out.port = (uint16_t)value;
        else if (strcmp(argv[i], "--loops") == 0 && value >= 1 && value <= loops_max)
            out.loops = (unsigned)value;
        else
            is_right = false;
    }
    if (is_right)
        return out;
    (void)fprintf(stderr, "usage: %s [--port 0..65535]", argv[0]);
    if (loops_max > 1)
        (void)fprintf(stderr, " [--loops 1..%u]", loops_max);
    (void)fputs("\n", stderr);
    exit(2);
}

static void raise_descriptors(void)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) != 0)
        bench_raw_die("getrlimit", errno);
    limit.rlim_cur = limit.rlim_max;
    if (setrlimit(RLIMIT_NOFILE, &limit) != 0)
        bench_raw_die("setrlimit", errno);
}

static void set_option(int fd, int name)
{
    const int one = 1;
    if (setsockopt(fd, SOL_SOCKET, name, &one, sizeof one) != 0)
        bench_raw_die("setsockopt", errno);
}

/* Returns a bound socket, and in `*port` the port that it got. */
static int bind_any(int type, uint16_t *port, bool shared)
{
    struct sockaddr_in in = {
        .sin_family = AF_INET, .sin_port = htons(*port), .sin_addr = {.s_addr = htonl(INADDR_LOOPBACK)}};
    socklen_t length = sizeof in;
    int fd = socket(AF_INET, type | SOCK_CLOEXEC, 0);
    if (fd < 0)
        bench_raw_die("socket", errno);
    if (type == SOCK_STREAM)
        set_option(fd, SO_REUSEADDR);
    if (shared)
        set_option(fd, SO_REUSEPORT);
    if (bind(fd, (const struct sockaddr *)&in, sizeof in) != 0)
        bench_raw_die("bind", errno);
    if (getsockname(fd, (struct sockaddr *)&in, &length) != 0)
        bench_raw_die("getsockname", errno);
    *port = ntohs(in.sin_port);
    return fd;
}

static int listen_on(uint16_t *port, bool shared)
{
    int fd = bind_any(SOCK_STREAM, port, shared);
    if (listen(fd, 4096) != 0)
        bench_raw_die("listen", errno);
    return fd;
}

static void announce(const char *scheme, uint16_t port)
{
    (void)printf("listening on %s://127.0.0.1:%u\n", scheme, (unsigned)port);
    (void)fflush(stdout);
}

int bench_raw_listen(int argc, char **argv)
{
    uint16_t port = parse(argc, argv, 1).port;
    raise_descriptors();
    int fd = listen_on(&port, false);
    announce("tcp", port);
    return fd;
}

int bench_raw_bind_udp(int argc, char **argv)
{
    uint16_t port = parse(argc, argv, 1).port;
    int fd = bind_any(SOCK_DGRAM, &port, false);
    announce("udp", port);
    return fd;
}

struct job {
    void (*loop)(int listener);
    int listener;
};

static void *run(void *argument)
{
    const struct job *job = argument;
    job->loop(job->listener);
    return NULL;
}

void bench_raw_serve(int argc, char **argv, void (*loop)(int listener))
{
    static struct job jobs[LOOPS_MAX];
    struct arguments arguments = parse(argc, argv, LOOPS_MAX);
    raise_descriptors();
    for (unsigned i = 0; i < arguments.loops; i++)
        jobs[i] = (struct job){.loop = loop, .listener = listen_on(&arguments.port, arguments.loops > 1)};
    announce("tcp", arguments.port);
    for (unsigned i = 1; i < arguments.loops; i++) {
        pthread_t thread;
        int err = pthread_create(&thread, NULL, run, &jobs[i]);
        if (err != 0)
            bench_raw_die("pthread_create", err);
    }
    (void)run(&jobs[0]);
    abort();
}
