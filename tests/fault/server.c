/* SPDX-License-Identifier: MIT
 * The echo engine and its client. */
#include "server.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "socket/addr.h"

enum { FDS_LOOKED_AT = 20000, PATIENCE_MS = 20000, CHECK_BYTES = 100 * 1024 };

static struct server *server_of(struct gyre_conn *c)
{
    return gyre_loop_user(gyre_conn_loop(c));
}

static void on_open(struct gyre_conn *c)
{
    (void)atomic_fetch_add(&server_of(c)->opened, 1);
}

static void on_data(struct gyre_conn *c)
{
    (void)gyre_conn_forward(c, c, SIZE_MAX);
}

static void on_close(struct gyre_conn *c, int err)
{
    (void)err;
    (void)atomic_fetch_add(&server_of(c)->closed, 1);
}

static const struct gyre_conn_handlers echo = {.on_open = on_open, .on_data = on_data, .on_close = on_close};

static void no_line(enum gyre_log_level level, const char *text, void *user)
{
    (void)user;
    (void)level;
    (void)text;
}

static const struct gyre_log silent = {.line = no_line};

static void *run(void *arg)
{
    struct server *s = arg;
    s->run_err = gyre_engine_run(s->engine);
    return NULL;
}

int open_descriptors(void)
{
    int count = 0;
    for (int fd = 0; fd < FDS_LOOKED_AT; fd++)
        count += fcntl(fd, F_GETFD) >= 0;
    return count;
}

int server_start(struct server *s, const struct gyre_loop_options *loop, uint32_t loops)
{
    struct gyre_loop_options each = loop != NULL ? *loop : (struct gyre_loop_options){.backend = NULL};
    char name[64];
    *s = (struct server){.engine = NULL};
    env_mem_init(&s->mem);
    s->fds_before = open_descriptors();
    each.mem = &s->mem.mem;
    each.log = &silent;
    each.user = s;
    const struct gyre_engine_options options = {.loops = loops, .loop = each};
    int err = gyre_engine_create(&s->engine, &options);
    if (err != 0)
        return err;
    (void)snprintf(name, sizeof name, "unix://@gyre-fault-%d-%p", (int)getpid(), (void *)s);
    err = gyre_engine_listen(&s->tcp, s->engine, "tcp://127.0.0.1:0", &echo, NULL);
    if (err == 0)
        err = gyre_engine_listen(&s->local, s->engine, name, &echo, NULL);
    if (err == 0)
        err = -pthread_create(&s->thread, NULL, run, s);
    s->running = err == 0;
    if (err != 0)
        gyre_engine_destroy(s->engine);
    return err;
}

const char *server_stop(struct server *s)
{
    static char wrong[160];
    gyre_engine_stop(s->engine);
    (void)pthread_join(s->thread, NULL);
    gyre_engine_destroy(s->engine);
    int fds = open_descriptors();
    if (s->run_err == 0 && atomic_load(&s->mem.blocks) == 0 && fds == s->fds_before &&
        atomic_load(&s->opened) == atomic_load(&s->closed))
        return NULL;
    (void)snprintf(wrong, sizeof wrong, "run: %s; %ld blocks left; %d descriptors more; %lu opened and %lu closed",
                   gyre_err_name(s->run_err), atomic_load(&s->mem.blocks), fds - s->fds_before,
                   atomic_load(&s->opened), atomic_load(&s->closed));
    return wrong;
}

/* Without the socket's own time-outs: with one set, connect(2) and recv(2) are not restarted after an interruption
 * (signal(7)), and there were some. */
int client_connect(const char *address)
{
    struct gyre__address to;
    if (gyre__addr_parse(&to, address) != 0)
        return -1;
    int fd = socket(to.addr.ss.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return -1;
    if (connect(fd, (const struct sockaddr *)&to.addr.ss, to.addr.len) == 0)
        return fd;
    (void)close(fd);
    return -1;
}

/* Whatever is there now is read and compared. Returns how many bytes, or -1. */
static ssize_t take_some(int fd, uint32_t key, size_t got, size_t bytes)
{
    uint8_t in[16384];
    size_t want = bytes - got < sizeof in ? bytes - got : sizeof in;
    ssize_t n = recv(fd, in, want, 0);
    if (n <= 0 || env_pattern_check(in, (size_t)n, key, got) >= 0)
        return -1;
    return n;
}

const char *client_echo(int fd, size_t bytes, size_t piece, uint32_t key)
{
    uint8_t out[16384];
    size_t sent = 0, got = 0;
    while (got < bytes) {
        struct pollfd p = {.fd = fd, .events = (short)(POLLIN | (sent < bytes ? POLLOUT : 0))};
        if (poll(&p, 1, PATIENCE_MS) <= 0)
            return "nothing comes back";
        if (p.revents & POLLIN) {
            ssize_t n = take_some(fd, key, got, bytes);
            if (n < 0)
                return "the echo ended early or has wrong bytes";
            got += (size_t)n;
        }
        if (sent == bytes || !(p.revents & POLLOUT))
            continue;
        size_t len = bytes - sent < piece ? bytes - sent : piece;
        len = len < sizeof out ? len : sizeof out;
        env_pattern_fill(out, len, key, sent);
        ssize_t n = send(fd, out, len, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (n < 0 && errno != EAGAIN)
            return "sending failed";
        sent += n > 0 ? (size_t)n : 0;
    }
    return NULL;
}

static const char *check_one(const char *address, uint32_t key)
{
    int fd = client_connect(address);
    if (fd < 0)
        return "cannot connect";
    const char *wrong = client_echo(fd, CHECK_BYTES, SIZE_MAX, key);
    (void)close(fd);
    return wrong;
}

const char *server_check(struct server *s)
{
    const char *wrong = check_one(gyre_listener_address(s->tcp), 1);
    return wrong != NULL ? wrong : check_one(gyre_listener_address(s->local), 2);
}
