/* SPDX-License-Identifier: MIT
 * Connections of a target: making them, writing, reading, checking. Reads are as large as can be and level-triggered,
 * one per event; a batch of requests is one write. */
#include "target.h"
#include "pattern.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <time.h>
#include <unistd.h>

enum { EVENTS_MAX = 512, CONNECT_TIMEOUT_MS = 5000, SCAN_MS = 100 };

static uint8_t read_buffer[BENCH_PATTERN_RUN];

uint64_t bench_now_ns(void)
{
    struct timespec ts;
    (void)clock_gettime(CLOCK_MONOTONIC, &ts); /* cannot fail with this clock */
    return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

int bench_target_fail(struct bench_target *t, const char *format, ...)
{
    if (t->error[0] != '\0')
        return -1;
    va_list args;
    va_start(args, format);
    (void)vsnprintf(t->error, sizeof t->error, format, args);
    va_end(args);
    return -1;
}

static int conn_fail(struct bench_target *t, const struct bench_conn *c, const char *what)
{
    return bench_target_fail(t, "connection %td to %s: %s, after %llu bytes", c - t->conns, t->address->text, what,
                             (unsigned long long)c->received);
}

int bench_conn_open(struct bench_target *t, uint32_t index)
{
    struct bench_conn *c = &t->conns[index];
    *c = (struct bench_conn){.tx = bench_pattern_start(index), .rx = bench_pattern_start(index)};
    c->fd = bench_address_connect(t->address, CONNECT_TIMEOUT_MS);
    if (c->fd < 0)
        return bench_target_fail(t, "connection %u to %s: cannot connect: %s", index, t->address->text,
                                 strerror(-c->fd));
    t->nopen += t->shape.churn ? 0 : 1; /* there, places count from the start */
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = c};
    if (epoll_ctl(t->epoll_fd, EPOLL_CTL_ADD, c->fd, &event) != 0)
        return bench_target_fail(t, "epoll_ctl: %s", strerror(errno));
    return 0;
}

int bench_target_init(struct bench_target *t, const struct bench_address *address, const struct bench_shape *shape)
{
    *t = (struct bench_target){.address = address, .shape = *shape};
    t->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    return t->epoll_fd >= 0 ? 0 : bench_target_fail(t, "epoll_create1: %s", strerror(errno));
}

int bench_target_connect(struct bench_target *t)
{
    uint32_t count = t->shape.connections;
    t->conns = calloc(count, sizeof *t->conns);
    if (t->conns == NULL)
        return bench_target_fail(t, "out of memory");
    for (uint32_t i = 0; t->shape.churn && i < count; i++) {
        t->conns[i].fd = -1;
        t->nopen++;
    }
    for (uint32_t i = t->nopen; i < count; i++) {
        if (bench_conn_open(t, i) != 0)
            return -1;
    }
    return 0;
}

void bench_target_close(struct bench_target *t)
{
    for (uint32_t i = 0; i < t->nopen; i++) {
        if (t->conns[i].fd >= 0)
            (void)close(t->conns[i].fd);
    }
    if (t->epoll_fd >= 0)
        (void)close(t->epoll_fd);
    free(t->conns);
    t->conns = NULL;
    t->nopen = 0;
}

/* Asks for EPOLLOUT while there is something the kernel did not take. */
static int conn_want_out(struct bench_target *t, struct bench_conn *c, bool want)
{
    if (c->wants_out == want)
        return 0;
    struct epoll_event event = {.events = want ? EPOLLIN | EPOLLOUT : EPOLLIN, .data.ptr = c};
    if (epoll_ctl(t->epoll_fd, EPOLL_CTL_MOD, c->fd, &event) != 0)
        return bench_target_fail(t, "epoll_ctl: %s", strerror(errno));
    c->wants_out = want;
    return 0;
}

static int conn_write(struct bench_target *t, struct bench_conn *c)
{
    while (c->unsent > 0) {
        size_t run = c->unsent < BENCH_PATTERN_RUN ? (size_t)c->unsent : BENCH_PATTERN_RUN;
        ssize_t n = send(c->fd, bench_pattern_at(c->tx), run, MSG_NOSIGNAL);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 && errno == EAGAIN)
            return conn_want_out(t, c, true);
        if (n < 0)
            return conn_fail(t, c, strerror(errno));
        c->tx = bench_pattern_advance(c->tx, (size_t)n);
        c->unsent -= (uint64_t)n;
    }
    return conn_want_out(t, c, false);
}

int bench_conn_begin(struct bench_target *t, struct bench_conn *c, uint32_t count, uint64_t now_ns)
{
    if (c->unanswered == 0) {
        t->busy++;
        c->progress_ns = now_ns;
    }
    uint64_t bytes = (uint64_t)count * t->shape.size;
    c->unsent += bytes;
    c->unanswered += bytes;
    return conn_write(t, c);
}

/* Finds the first byte that is wrong; called when there is one, or when there are more bytes than were sent. */
static int conn_mismatch(struct bench_target *t, struct bench_conn *c, size_t n)
{
    const uint8_t *expected = bench_pattern_at(c->rx);
    size_t i = 0;
    while (i < n && read_buffer[i] == expected[i])
        i++;
    uint64_t sent = c->unanswered - c->unsent;
    if (i >= sent)
        return conn_fail(t, c, "the server sent bytes that nobody had sent to it");
    char what[96];
    (void)snprintf(what, sizeof what, "byte %llu came back as 0x%02x and was sent as 0x%02x",
                   (unsigned long long)(c->received + i), read_buffer[i], expected[i]);
    return conn_fail(t, c, what);
}

static uint32_t count_answers(const struct bench_target *t, struct bench_conn *c, size_t n)
{
    uint64_t bytes = c->partial + n;
    if (bytes < t->shape.size) {
        c->partial = (uint32_t)bytes;
        return 0;
    }
    if (bytes == t->shape.size) { /* the usual case, without a division */
        c->partial = 0;
        return 1;
    }
    c->partial = (uint32_t)(bytes % t->shape.size);
    return (uint32_t)(bytes / t->shape.size);
}

static int conn_read(struct bench_target *t, struct bench_conn *c)
{
    ssize_t n = recv(c->fd, read_buffer, sizeof read_buffer, 0);
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return 0;
    if (n < 0)
        return conn_fail(t, c, strerror(errno));
    if (n == 0 && c->ending)
        return t->kind->ended(t, c);
    if (n == 0)
        return conn_fail(t, c, "the server closed it");
    if ((uint64_t)n > c->unanswered - c->unsent || memcmp(read_buffer, bench_pattern_at(c->rx), (size_t)n) != 0)
        return conn_mismatch(t, c, (size_t)n);

    uint64_t now = bench_now_ns();
    c->rx = bench_pattern_advance(c->rx, (size_t)n);
    c->received += (uint64_t)n;
    c->unanswered -= (uint64_t)n;
    c->progress_ns = now;
    if (c->unanswered == 0)
        t->busy--;
    bool in_window = now >= t->from_ns && now <= t->until_ns;
    uint32_t answers = count_answers(t, c, (size_t)n);
    t->result->requests_total += answers;
    if (in_window) {
        t->result->requests += answers;
        t->result->bytes += (uint64_t)n;
    }
    return answers == 0 ? 0 : t->kind->answered(t, c, answers, now);
}

static int find_stalled(struct bench_target *t, uint64_t now)
{
    if (now < t->scan_ns)
        return 0;
    t->scan_ns = now + SCAN_MS * 1000000ull;
    uint64_t limit_ns = t->shape.stall_ms * 1000000ull;
    for (uint32_t i = 0; i < t->nopen; i++) {
        const struct bench_conn *c = &t->conns[i];
        if ((c->unanswered == 0 && !c->ending) || now - c->progress_ns < limit_ns)
            continue;
        if (c->ending)
            return conn_fail(t, c, "the server does not close when the other side has ended");
        char what[96];
        (void)snprintf(what, sizeof what, "no progress for %u ms with %llu bytes to come", t->shape.stall_ms,
                       (unsigned long long)c->unanswered);
        return conn_fail(t, c, what);
    }
    return 0;
}

int bench_target_poll(struct bench_target *t, uint64_t timeout_ns)
{
    uint64_t longest_ns = SCAN_MS * 1000000ull;
    uint64_t wait_ns = timeout_ns < longest_ns ? timeout_ns : longest_ns;
    const struct timespec timeout = {.tv_nsec = (long)wait_ns}; /* below a second */
    struct epoll_event events[EVENTS_MAX];
    int n = epoll_pwait2(t->epoll_fd, events, EVENTS_MAX, &timeout, NULL);
    if (n < 0 && errno != EINTR)
        return bench_target_fail(t, "epoll_pwait2: %s", strerror(errno));
    for (int i = 0; i < n; i++) {
        struct bench_conn *c = events[i].data.ptr;
        if ((events[i].events & ~(uint32_t)EPOLLOUT) != 0 && conn_read(t, c) != 0)
            return -1;
        if ((events[i].events & EPOLLOUT) != 0 && conn_write(t, c) != 0)
            return -1;
    }
    return find_stalled(t, bench_now_ns());
}
