/* SPDX-License-Identifier: MIT
 * Datagrams under way, many to a system call where a socket has many, so that the load keeps up with a server that
 * takes many at once. A socket is read when it is readable, one recvmmsg each time, and what was answered is sent
 * again with one sendmmsg. */
#include "udp.h"
#include "pattern.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

enum { BATCH_MAX = 64, EVENTS_MAX = 512, LOST_MS = 100, SCAN_MS = 10, RECEIVE_BUFFER = 1 << 20 };

struct header {
    uint32_t slot;
    uint32_t turn; /* how often this slot was sent before */
};

struct slot {
    uint64_t sent_ns;
    uint32_t turn; /* of the next one, or of the one under way */
    bool is_busy;
};

struct socket {
    int fd;
    uint32_t number;
    uint64_t lost;
    uint64_t late; /* never more than `lost`, or an answer came twice */
    struct slot *slots;
};

struct bench_udp {
    struct socket *sockets;
    struct slot *slots;
    uint32_t nopen;
    uint64_t progress_ns; /* when an answer came last */
    uint8_t *input;       /* BATCH_MAX datagrams and a byte more of each, to notice one that is too long */
    struct header headers[BATCH_MAX];
    struct iovec iov[2 * BATCH_MAX];
    struct mmsghdr out[BATCH_MAX];
    struct iovec in_iov[BATCH_MAX];
    struct mmsghdr in[BATCH_MAX];
};

_Static_assert(sizeof(struct header) == BENCH_UDP_SIZE_MIN, "the least datagram is a header");
_Static_assert((int)BENCH_UDP_SIZE_MAX <= (int)BENCH_PATTERN_RUN, "a datagram is a run of the pattern");

static int socket_fail(struct bench_target *t, const struct socket *s, const char *what)
{
    return bench_target_fail(t, "socket %u to %s: %s", s->number, t->address->text, what);
}

static const uint8_t *payload_of(const struct bench_target *t, const struct socket *s, uint32_t slot, uint32_t turn)
{
    uint64_t nth = (uint64_t)turn * t->shape.pipeline + slot;
    uint64_t place = bench_pattern_start(s->number) + nth % BENCH_PATTERN_PERIOD * t->shape.size;
    return bench_pattern_at((uint32_t)(place % BENCH_PATTERN_PERIOD));
}

static int open_socket(struct bench_target *t, struct socket *s)
{
    s->fd = bench_address_connect(t->address, 0);
    if (s->fd < 0)
        return socket_fail(t, s, strerror(-s->fd));
    const int room = RECEIVE_BUFFER;
    (void)setsockopt(s->fd, SOL_SOCKET, SO_RCVBUF, &room, sizeof room); /* what does not fit is counted as lost */
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = s};
    if (epoll_ctl(t->epoll_fd, EPOLL_CTL_ADD, s->fd, &event) != 0)
        return bench_target_fail(t, "epoll_ctl: %s", strerror(errno));
    return 0;
}

static void prepare_input(struct bench_udp *u, size_t size)
{
    for (size_t i = 0; i < BATCH_MAX; i++) {
        u->in_iov[i] = (struct iovec){.iov_base = u->input + i * (size + 1), .iov_len = size + 1};
        u->in[i].msg_hdr = (struct msghdr){.msg_iov = &u->in_iov[i], .msg_iovlen = 1};
        u->out[i].msg_hdr = (struct msghdr){.msg_iov = &u->iov[2 * i], .msg_iovlen = 2};
    }
}

int bench_udp_open(struct bench_target *t)
{
    uint32_t n = t->shape.connections;
    struct bench_udp *u = calloc(1, sizeof *u);
    t->udp = u;
    if (u == NULL)
        return bench_target_fail(t, "out of memory");
    u->sockets = calloc(n, sizeof *u->sockets);
    u->slots = calloc((size_t)n * t->shape.pipeline, sizeof *u->slots);
    u->input = malloc((size_t)BATCH_MAX * (t->shape.size + 1));
    if (u->sockets == NULL || u->slots == NULL || u->input == NULL)
        return bench_target_fail(t, "out of memory");
    prepare_input(u, t->shape.size);
    for (uint32_t i = 0; i < n; i++) {
        struct socket *s = &u->sockets[i];
        *s = (struct socket){.number = i, .slots = u->slots + (size_t)i * t->shape.pipeline};
        if (open_socket(t, s) != 0)
            return -1;
        u->nopen++;
    }
    return 0;
}

void bench_udp_close(struct bench_target *t)
{
    struct bench_udp *u = t->udp;
    if (u == NULL)
        return;
    for (uint32_t i = 0; i < u->nopen; i++)
        (void)close(u->sockets[i].fd);
    free(u->sockets);
    free(u->slots);
    free(u->input);
    free(u);
    t->udp = NULL;
}

/* Sends what was put together. What the kernel does not take is lost like what it loses on the way. */
static int flush(struct bench_target *t, const struct socket *s, unsigned count)
{
    for (unsigned sent = 0; sent < count;) {
        int n = sendmmsg(s->fd, t->udp->out + sent, count - sent, MSG_DONTWAIT);
        if (n > 0)
            sent += (unsigned)n;
        else if (errno == EAGAIN || errno == ENOBUFS)
            break;
        else if (errno != EINTR)
            return socket_fail(t, s, strerror(errno));
    }
    return 0;
}

/* Sends a datagram for every slot that has none under way. */
static int send_idle(struct bench_target *t, struct socket *s, uint64_t now)
{
    struct bench_udp *u = t->udp;
    unsigned count = 0;
    for (uint32_t i = 0; i < t->shape.pipeline; i++) {
        struct slot *slot = &s->slots[i];
        if (slot->is_busy)
            continue;
        slot->is_busy = true;
        slot->sent_ns = now;
        t->busy++;
        u->headers[count] = (struct header){.slot = i, .turn = slot->turn};
        u->iov[2 * count] = (struct iovec){.iov_base = &u->headers[count], .iov_len = sizeof(struct header)};
        u->iov[2 * count + 1] = (struct iovec){.iov_base = (void *)(uintptr_t)payload_of(t, s, i, slot->turn),
                                               .iov_len = t->shape.size - sizeof(struct header)};
        if (++count < BATCH_MAX)
            continue;
        if (flush(t, s, count) != 0)
            return -1;
        count = 0;
    }
    return flush(t, s, count);
}

static void answered(struct bench_target *t, struct slot *slot, uint64_t now)
{
    struct bench_result *result = t->result;
    slot->is_busy = false;
    slot->turn++;
    t->busy--;
    t->udp->progress_ns = now;
    result->requests_total++;
    if (now < t->from_ns || now > t->until_ns)
        return;
    result->requests++;
    result->bytes += t->shape.size;
    bench_histogram_add(&result->latency, now - slot->sent_ns, 1);
}

/* Checks one datagram that came and counts it. */
static int take(struct bench_target *t, struct socket *s, const uint8_t *bytes, size_t size, uint64_t now)
{
    if (size != t->shape.size)
        return bench_target_fail(t, "socket %u to %s: a datagram came back with %s%zu bytes and was sent with %u",
                                 s->number, t->address->text, size > t->shape.size ? "at least " : "", size,
                                 t->shape.size);
    struct header header;
    memcpy(&header, bytes, sizeof header);
    if (header.slot >= t->shape.pipeline || header.turn > s->slots[header.slot].turn)
        return socket_fail(t, s, "a datagram came that nobody had sent");
    if (memcmp(bytes + sizeof header, payload_of(t, s, header.slot, header.turn), size - sizeof header) != 0)
        return socket_fail(t, s, "a datagram came back with other bytes than it was sent with");
    struct slot *slot = &s->slots[header.slot];
    if (slot->is_busy && header.turn == slot->turn) {
        answered(t, slot, now);
        return 0;
    }
    if (header.turn == slot->turn) /* it is not under way */
        return socket_fail(t, s, "a datagram came that nobody had sent");
    if (s->late == s->lost)
        return socket_fail(t, s, "a datagram came back twice");
    s->late++;
    t->result->late++;
    return 0;
}

static int receive(struct bench_target *t, struct socket *s)
{
    struct bench_udp *u = t->udp;
    int n = recvmmsg(s->fd, u->in, BATCH_MAX, MSG_DONTWAIT, NULL);
    if (n < 0)
        return errno == EAGAIN || errno == EINTR ? 0 : socket_fail(t, s, strerror(errno));
    uint64_t now = bench_now_ns();
    for (int i = 0; i < n; i++) {
        if (take(t, s, u->in_iov[i].iov_base, u->in[i].msg_len, now) != 0)
            return -1;
    }
    return now < t->last_ns ? send_idle(t, s, now) : 0;
}

static bool give_up_lost(struct bench_target *t, struct socket *s, uint64_t now)
{
    bool found = false;
    for (uint32_t i = 0; i < t->shape.pipeline; i++) {
        struct slot *slot = &s->slots[i];
        if (!slot->is_busy || now - slot->sent_ns < LOST_MS * 1000000ull)
            continue;
        found = true;
        slot->is_busy = false;
        slot->turn++;
        s->lost++;
        t->result->lost++;
        t->busy--;
    }
    return found;
}

static int find_lost(struct bench_target *t, uint64_t now)
{
    if (now < t->scan_ns)
        return 0;
    t->scan_ns = now + SCAN_MS * 1000000ull;
    if (t->busy > 0 && now - t->udp->progress_ns >= t->shape.stall_ms * 1000000ull)
        return bench_target_fail(t, "%s: no answer at all for %u ms", t->address->text, t->shape.stall_ms);
    for (uint32_t i = 0; i < t->udp->nopen; i++) {
        struct socket *s = &t->udp->sockets[i];
        if (give_up_lost(t, s, now) && now < t->last_ns && send_idle(t, s, now) != 0)
            return -1;
    }
    return 0;
}

static int poll_once(struct bench_target *t, int timeout_ms)
{
    struct epoll_event events[EVENTS_MAX];
    int n = epoll_wait(t->epoll_fd, events, EVENTS_MAX, timeout_ms);
    if (n < 0 && errno != EINTR)
        return bench_target_fail(t, "epoll_wait: %s", strerror(errno));
    for (int i = 0; i < n; i++) {
        if (receive(t, events[i].data.ptr) != 0)
            return -1;
    }
    return find_lost(t, bench_now_ns());
}

int bench_udp_run(struct bench_target *t)
{
    struct bench_udp *u = t->udp;
    u->progress_ns = bench_now_ns();
    for (uint32_t i = 0; i < u->nopen; i++) {
        if (send_idle(t, &u->sockets[i], bench_now_ns()) != 0)
            return -1;
    }
    while (t->busy > 0) {
        if (poll_once(t, SCAN_MS) != 0)
            return -1;
    }
    return poll_once(t, 0); /* whatever comes now is late or too much */
}
