/* SPDX-License-Identifier: MIT
 * Listening sockets to and from another process.
 *
 * Over a unix socket: messages of a fixed head and up to 64 descriptors each (SCM_RIGHTS), by plain sendmsg(2) and
 * recvmsg(2); then one byte back. Nothing that the other process says is trusted: the number of descriptors is held
 * against those that came, and each is looked at. */
#include "handover.h"
#include "base/clock.h"
#include "base/mem.h"
#include "base/refuse.h"
#include "listener.h"
#include "socket/addr.h"
#include "socket/control.h"

#include <errno.h>
#include <gyre/handover.h>
#include <poll.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { PER_MESSAGE = 64 };

static const char magic[8] = "gyre-ho1";
static const char confirmation = 'k';

struct head {
    char magic[8];
    uint32_t total; /* descriptors of all messages */
    uint32_t here;  /* of this one */
};

union control {
    struct cmsghdr align;
    char bytes[CMSG_SPACE(PER_MESSAGE * sizeof(int))];
};

#ifdef MSG_CMSG_CLOEXEC
#define RECV_FLAGS (MSG_DONTWAIT | MSG_CMSG_CLOEXEC)
#else
#define RECV_FLAGS MSG_DONTWAIT
#endif
#ifdef MSG_NOSIGNAL
#define SEND_FLAGS (MSG_DONTWAIT | MSG_NOSIGNAL)
#else
#define SEND_FLAGS MSG_DONTWAIT
#endif

/* ---- waiting ---- */

static int64_t end_of(int64_t timeout_ns)
{
    int64_t now = (int64_t)gyre__clock_ns();
    return timeout_ns < INT64_MAX - now ? now + timeout_ns : INT64_MAX;
}

/* Until `fd` can be read or written, or the time has passed. Returns 0, GYRE_ETIMEOUT or -errno. */
static int wait_for(int fd, short events, int64_t end_ns)
{
    for (;;) {
        int64_t left_ms = (end_ns - (int64_t)gyre__clock_ns() + 999999) / 1000000;
        struct pollfd p = {.fd = fd, .events = events};
        int n = poll(&p, 1, left_ms <= 0 ? 0 : left_ms > 60000 ? 60000 : (int)left_ms);
        if (n > 0)
            return 0;
        if (n < 0 && errno != EINTR)
            return -errno;
        if (n == 0 && left_ms <= 60000)
            return GYRE_ETIMEOUT;
    }
}

/* ---- sending ---- */

static void close_all(const int *fds, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++)
        (void)close(fds[i]);
}

static int send_message(int fd, const struct head *head, const int *fds, int64_t end_ns)
{
    union control control;
    struct iovec iov = {.iov_base = (void *)(uintptr_t)head, .iov_len = sizeof *head};
    struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1, .msg_control = control.bytes};
    size_t bytes = head->here * sizeof(int);
    memset(&control, 0, sizeof control);
    msg.msg_controllen = (socklen_t)CMSG_SPACE(bytes);
    struct cmsghdr *cmsg = CMSG_FIRSTHDR(&msg);
    cmsg->cmsg_level = SOL_SOCKET;
    cmsg->cmsg_type = SCM_RIGHTS;
    cmsg->cmsg_len = (socklen_t)CMSG_LEN(bytes);
    memcpy(CMSG_DATA(cmsg), fds, bytes);
    for (;;) {
        ssize_t n = sendmsg(fd, &msg, SEND_FLAGS);
        if (n == (ssize_t)sizeof *head)
            return 0;
        if (n >= 0)
            return -EPROTO; /* a unix socket takes so few bytes whole */
        if (errno == EPIPE)
            return -ECONNRESET;
        if (errno != EAGAIN && errno != EINTR)
            return -errno;
        int err = wait_for(fd, POLLOUT, end_ns);
        if (err != 0)
            return err;
    }
}

static int await_confirmation(int fd, int64_t end_ns)
{
    for (;;) {
        char byte;
        ssize_t n = recv(fd, &byte, 1, MSG_DONTWAIT);
        if (n == 1)
            return byte == confirmation ? 0 : -EPROTO;
        if (n == 0)
            return -ECONNRESET;
        if (errno != EAGAIN && errno != EINTR)
            return -errno;
        int err = wait_for(fd, POLLIN, end_ns);
        if (err != 0)
            return err;
    }
}

/* Copies of all sockets of one listener. Returns 0 or an error. */
static int gather(int *fds, uint32_t *count, const struct gyre_listener *listener)
{
    if (listener == NULL || listener->magic != GYRE_LISTENER_MAGIC)
        return -EINVAL;
    if (gyre__loop_is_forked(listener->acceptors[0]->loop))
        return GYRE_EFORK;
    for (uint32_t i = 0; i < listener->acceptor_count; i++) {
        if (listener->acceptors[i]->f.fd < 0)
            continue;
        if (*count == GYRE_HANDOVER_MAX)
            return -E2BIG;
        int fd = gyre_listener_dup_fd(listener, i);
        if (fd < 0)
            return fd;
        fds[(*count)++] = fd;
    }
    return 0;
}

static int send_all(int fd, const int *fds, uint32_t count, int64_t end_ns)
{
    int err = count > 0 ? 0 : GYRE_ESTATE;
    for (uint32_t sent = 0; err == 0 && sent < count;) {
        struct head head = {.total = count, .here = count - sent < PER_MESSAGE ? count - sent : PER_MESSAGE};
        memcpy(head.magic, magic, sizeof magic);
        err = send_message(fd, &head, fds + sent, end_ns);
        sent += head.here;
    }
    return err == 0 ? await_confirmation(fd, end_ns) : err;
}

int gyre_handover_send(int fd, struct gyre_listener *const *listeners, size_t count, int64_t timeout_ns)
{
    int fds[GYRE_HANDOVER_MAX];
    uint32_t fd_count = 0;
    int err = listeners == NULL ? -EINVAL : fd < 0 ? -EBADF : gyre__check_not_negative("timeout_ns", timeout_ns);
    if (err != 0)
        return err;
    int64_t end_ns = end_of(timeout_ns);
    for (size_t i = 0; err == 0 && i < count; i++)
        err = gather(fds, &fd_count, listeners[i]);
    if (err == 0)
        err = send_all(fd, fds, fd_count, end_ns);
    close_all(fds, fd_count);
    return err;
}

/* ---- what came ---- */

struct gyre_handover *gyre__handover_new(int from, uint32_t room)
{
    struct gyre_handover *h = gyre__alloc(&gyre__mem_system, sizeof *h);
    if (h == NULL)
        return NULL;
    h->from = from;
    h->handed = gyre__alloc_many(&gyre__mem_system, room > 0 ? room : 1, sizeof *h->handed);
    if (h->handed != NULL)
        return h;
    gyre__free(&gyre__mem_system, h);
    return NULL;
}

int gyre__handover_look(int fd)
{
    struct gyre__sock_info info;
    int err = gyre__sock_system.inspect(NULL, fd, &info);
    if (err == -ENOTSOCK)
        return GYRE_ESOCKTYPE;
    if (err != 0)
        return err;
    bool known = info.family == AF_INET || info.family == AF_INET6 || info.family == AF_UNIX;
    return known && info.stream && info.listening ? 0 : GYRE_ESOCKTYPE;
}

static bool has_already(const struct gyre_handover *h, int fd)
{
    struct stat st, other;
    if (fstat(fd, &st) != 0)
        return false;
    for (uint32_t i = 0; i < h->count; i++)
        if (fstat(h->handed[i].fd, &other) == 0 && other.st_ino == st.st_ino && other.st_dev == st.st_dev)
            return true;
    return false;
}

/* Takes `fd`, or closes it: also if the same socket is there already, under another number. Returns 0 or an error. */
static int keep(struct gyre_handover *h, int fd)
{
    int err = gyre__handover_look(fd);
    if (err == 0 && !has_already(h, fd)) {
        h->handed[h->count++] = (struct gyre__handed){.fd = fd};
        return 0;
    }
    (void)close(fd);
    return err;
}

/* The descriptors of one control message. Returns 0, or what has gone wrong so far: then it closes them. */
static int keep_some(struct gyre_handover *h, const uint8_t *data, size_t count, uint32_t room, uint32_t *came, int err)
{
    for (size_t i = 0; i < count; i++) {
        int fd;
        memcpy(&fd, data + i * sizeof fd, sizeof fd);
        if (err == 0 && (*came)++ >= room)
            err = -EPROTO;
        if (err == 0)
            err = keep(h, fd);
        else
            (void)close(fd);
    }
    return err;
}

/* Take what came with a message; close all of it if there is an error. Other control messages are there if whoever made
 * the socket asked for them. */
static int keep_fds(struct gyre_handover *h, const struct msghdr *msg, uint32_t announced, uint32_t room)
{
    const uint8_t *at = msg->msg_control;
    size_t left = msg->msg_controllen;
    struct gyre__control c;
    uint32_t came = 0;
    int err = msg->msg_flags & MSG_CTRUNC ? -EMFILE : 0;
    while (gyre__control_next(&c, &at, &left))
        if (c.level == SOL_SOCKET && c.type == SCM_RIGHTS)
            err = keep_some(h, c.data, c.len / sizeof(int), room, &came, err);
    return err == 0 && came != announced ? -EPROTO : err;
}

/* One message. `*left`: descriptors that are still to come; UINT32_MAX before the first message. */
static int receive_message(struct gyre_handover *h, uint32_t *left, int64_t end_ns)
{
    union control control;
    struct head head;
    struct iovec iov = {.iov_base = &head, .iov_len = sizeof head};
    struct msghdr msg = {
        .msg_iov = &iov, .msg_iovlen = 1, .msg_control = control.bytes, .msg_controllen = sizeof control.bytes};
    int err = wait_for(h->from, POLLIN, end_ns);
    if (err != 0)
        return err;
    ssize_t n = recvmsg(h->from, &msg, RECV_FLAGS);
    if (n < 0)
        return errno == EAGAIN || errno == EINTR ? 0 : -errno;
    bool good = n == (ssize_t)sizeof head && memcmp(head.magic, magic, sizeof magic) == 0 && head.here > 0 &&
                head.here <= PER_MESSAGE && head.total <= GYRE_HANDOVER_MAX &&
                (*left == UINT32_MAX ? head.here <= head.total : head.here <= *left);
    err = keep_fds(h, &msg, good ? head.here : UINT32_MAX, good ? head.here : 0);
    if (n == 0)
        return -ECONNRESET;
    if (!good)
        return -EPROTO;
    if (err == 0)
        *left = (*left == UINT32_MAX ? head.total : *left) - head.here;
    return err;
}

int gyre_handover_receive(struct gyre_handover **out, int fd, int64_t timeout_ns)
{
    int err = out == NULL ? -EINVAL : fd < 0 ? -EBADF : gyre__check_not_negative("timeout_ns", timeout_ns);
    if (err != 0)
        return err;
    struct gyre_handover *h = gyre__handover_new(fd, GYRE_HANDOVER_MAX);
    int64_t end_ns = end_of(timeout_ns);
    uint32_t left = UINT32_MAX;
    if (h == NULL)
        return -ENOMEM;
    while (err == 0 && left > 0)
        err = receive_message(h, &left, end_ns);
    if (err == 0)
        *out = h;
    else
        gyre_handover_destroy(h);
    return err;
}

/* ---- using them ---- */

static bool is_bound_to(int fd, const char *address)
{
    struct gyre__addr addr;
    char text[GYRE_ADDR_TEXT_MAX];
    if (gyre__sock_system.name(NULL, fd, false, &addr) != 0)
        return false;
    gyre__addr_format(&addr, text, sizeof text);
    return strcmp(text, address) == 0;
}

int gyre__handover_named(int *fds, const struct gyre_handover *h, const char *name)
{
    int count = 0;
    for (uint32_t i = 0; i < h->count; i++)
        if (h->handed[i].fd >= 0 && strcmp(h->handed[i].name, name) == 0)
            fds[count++] = h->handed[i].fd;
    return count;
}

int gyre__handover_bound(int *fds, const struct gyre_handover *h, const struct gyre__address *address)
{
    char text[GYRE_ADDR_TEXT_MAX], text_v4[GYRE_ADDR_TEXT_MAX] = "";
    int count = 0;
    gyre__addr_format(&address->addr, text, sizeof text);
    if (address->any_host) { /* where there is no IPv6, it is every IPv4 address */
        struct gyre__addr any = gyre__addr_any_v4(&address->addr);
        gyre__addr_format(&any, text_v4, sizeof text_v4);
    }
    for (uint32_t i = 0; i < h->count; i++) {
        int fd = h->handed[i].fd;
        if (fd >= 0 && (is_bound_to(fd, text) || is_bound_to(fd, text_v4)))
            fds[count++] = fd;
    }
    return count;
}

void gyre__handover_taken(struct gyre_handover *h, const int *fds, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++)
        for (uint32_t k = 0; k < h->count; k++)
            if (h->handed[k].fd == fds[i])
                h->handed[k].fd = -1;
}

uint32_t gyre_handover_count(const struct gyre_handover *h)
{
    uint32_t count = 0;
    for (uint32_t i = 0; h != NULL && i < h->count; i++)
        count += h->handed[i].fd >= 0;
    return count;
}

int gyre_handover_confirm(struct gyre_handover *h)
{
    if (h == NULL || h->from < 0)
        return 0;
    return send(h->from, &confirmation, 1, SEND_FLAGS) == 1 ? 0 : -errno;
}

void gyre_handover_destroy(struct gyre_handover *h)
{
    if (h == NULL)
        return;
    for (uint32_t i = 0; i < h->count; i++)
        if (h->handed[i].fd >= 0)
            (void)close(h->handed[i].fd);
    gyre__free(&gyre__mem_system, h->handed);
    gyre__free(&gyre__mem_system, h);
}
