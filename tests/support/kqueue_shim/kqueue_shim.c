/* SPDX-License-Identifier: MIT
 * kqueue over epoll: enough of it, with the semantics that src/kqueue_fallback relies on, to run that on Linux.
 *
 * A kqueue is an epoll descriptor, so close() ends it and it can be polled; what else there is to know about it lies in
 * a table by descriptor number, and is reset when kqueue() gets the same number again. A socket has one registration
 * in the epoll and a slot in the kqueue's own table with its two filters. EV_CLEAR is EPOLLET.
 *
 * close() of a socket removes its filters without the shim seeing it, because epoll forgets the socket too. So the slot
 * is believed only as far as epoll confirms it: EV_ADD first tries EPOLL_CTL_ADD, and if that succeeds whatever the
 * slot said is stale. A generation in epoll's data tells registrations of one descriptor number apart.
 *
 * One epoll answer can be two events. The one that finds no room is owed: kept in the slot, delivered next time if the
 * registration still exists, and meanwhile the kqueue polls readable.
 *
 * EVFILT_USER: every kqueue also watches one descriptor that is always ready, shared by the whole process;
 * EPOLL_CTL_MOD of it is an edge. So a kqueue owns no second descriptor that close() would leak, and a trigger takes no
 * lock and is safe in a signal handler. */
#include "sys/event.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

enum { QUEUES_MAX = 65536, USERS_MAX = 4, BATCH = 128, READ = 0, WRITE = 1 };
enum { NS_PER_S = 1000000000, FOREVER_S = 1000000000 /* thirty years */ };

#define USER_MARK UINT64_MAX

struct filter {
    bool on;
    bool disabled;
    uint32_t owed; /* epoll's bits of an event that found no room; 0: none */
    unsigned owed_error;
    void *udata;
};

/* What is known of one descriptor number. */
struct slot {
    uint32_t gen; /* goes up with each registration in the epoll */
    bool other;   /* no socket: a pipe, or something of Linux's own that only tests hand in */
    struct filter filter[2];
};

struct user {
    atomic_uintptr_t ident; /* plus 1; 0: unused */
    atomic_bool triggered;
    bool disabled;
    void *udata;
};

struct queue {
    pthread_mutex_t lock; /* all but `users`' atomics */
    struct slot *slots;   /* by descriptor */
    int slot_count;
    int owed; /* filters with `owed`, at most */
    struct user users[USERS_MAX];
};

static _Atomic(struct queue *) queues[QUEUES_MAX];
static pthread_mutex_t queues_lock = PTHREAD_MUTEX_INITIALIZER;
static int always_ready = -1;
static atomic_bool takes_errors;

/* Before main(), so that a test that counts its descriptors counts this one on both sides. */
__attribute__((constructor)) static void open_always_ready(void)
{
    always_ready = eventfd(1, EFD_CLOEXEC);
}

/* ---- Queues. ---- */

static void reset(struct queue *q)
{
    free(q->slots);
    q->slots = NULL;
    q->slot_count = 0;
    q->owed = 0;
    for (int i = 0; i < USERS_MAX; i++) {
        atomic_store(&q->users[i].ident, 0);
        atomic_store(&q->users[i].triggered, false);
    }
}

static int register_queue(int kq)
{
    int err = 0;
    pthread_mutex_lock(&queues_lock);
    struct queue *q = atomic_load(&queues[kq]);
    if (q != NULL) {
        reset(q); /* the one that had this number was closed */
    } else if ((q = calloc(1, sizeof *q)) != NULL) {
        pthread_mutex_init(&q->lock, NULL);
        atomic_store(&queues[kq], q);
    } else {
        err = ENOMEM;
    }
    pthread_mutex_unlock(&queues_lock);
    return err;
}

int kqueue(void)
{
    struct epoll_event ev = {.events = 0, .data.u64 = USER_MARK};
    int kq = epoll_create1(EPOLL_CLOEXEC);
    if (kq < 0)
        return -1;
    int err = kq < QUEUES_MAX ? register_queue(kq) : EMFILE;
    if (err == 0 && epoll_ctl(kq, EPOLL_CTL_ADD, always_ready, &ev) != 0)
        err = errno;
    if (err == 0)
        return kq;
    (void)close(kq);
    errno = err;
    return -1;
}

/* ---- Changes to sockets. ---- */

static struct slot *slot_of(struct queue *q, int fd)
{
    if (fd < q->slot_count)
        return &q->slots[fd];
    int count = fd < 512 ? 1024 : 2 * fd;
    struct slot *slots = realloc(q->slots, (size_t)count * sizeof *slots);
    if (slots == NULL)
        return NULL;
    memset(slots + q->slot_count, 0, (size_t)(count - q->slot_count) * sizeof *slots);
    q->slots = slots;
    q->slot_count = count;
    return &slots[fd];
}

static bool is_armed(const struct filter *f)
{
    return f->on && !f->disabled;
}

static struct epoll_event wanted(int fd, const struct slot *s)
{
    uint32_t events = EPOLLET;
    if (is_armed(&s->filter[READ]))
        events |= EPOLLIN | EPOLLRDHUP;
    if (is_armed(&s->filter[WRITE]))
        events |= EPOLLOUT;
    return (struct epoll_event){.events = events, .data.u64 = (uint64_t)s->gen << 32 | (uint32_t)fd};
}

static int filter_add(int kq, int fd, struct slot *s, int dir, const struct kevent *change)
{
    struct slot next = {.gen = s->gen + 1, .other = s->other};
    next.filter[dir] = (struct filter){.on = true, .disabled = change->flags & EV_DISABLE, .udata = change->udata};
    struct epoll_event ev = wanted(fd, &next);
    if (epoll_ctl(kq, EPOLL_CTL_ADD, fd, &ev) == 0) {
        *s = next;
        return 0;
    }
    if (errno != EEXIST)
        return errno;
    next.gen = s->gen;
    next.filter[!dir] = s->filter[!dir];
    if (s->filter[dir].on && !(change->flags & (EV_DISABLE | EV_ENABLE)))
        next.filter[dir].disabled = s->filter[dir].disabled;
    ev = wanted(fd, &next);
    if (epoll_ctl(kq, EPOLL_CTL_MOD, fd, &ev) != 0)
        return errno;
    *s = next;
    return 0;
}

/* EV_DELETE, EV_ENABLE, EV_DISABLE: of a filter that exists. */
static int filter_change(int kq, int fd, struct slot *s, int dir, const struct kevent *change)
{
    struct slot next = *s;
    struct filter *f = &next.filter[dir];
    if (!f->on)
        return ENOENT;
    if (change->flags & EV_DELETE)
        *f = (struct filter){.on = false};
    else
        f->disabled = change->flags & EV_DISABLE;
    struct epoll_event ev = wanted(fd, &next);
    bool gone = !next.filter[READ].on && !next.filter[WRITE].on;
    if (epoll_ctl(kq, gone ? EPOLL_CTL_DEL : EPOLL_CTL_MOD, fd, &ev) != 0)
        return errno;
    *s = next;
    return 0;
}

static int change_socket(struct queue *q, int kq, const struct kevent *change)
{
    int type;
    socklen_t len = sizeof type;
    int fd = (int)change->ident;
    if (change->ident >= QUEUES_MAX)
        return EBADF;
    bool other = getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &len) != 0;
    if (other && errno != ENOTSOCK)
        return errno;
    struct slot *s = slot_of(q, fd);
    if (s == NULL)
        return ENOMEM;
    s->other = other;
    int dir = change->filter == EVFILT_WRITE ? WRITE : READ;
    if (!(change->flags & EV_ADD))
        return filter_change(kq, fd, s, dir, change);
    bool exists = s->filter[dir].on;
    if (!exists && !(change->flags & EV_CLEAR))
        return EINVAL; /* level-triggered filters are not what this shim is for */
    return filter_add(kq, fd, s, dir, change);
}

/* ---- Changes to EVFILT_USER. ---- */

static struct user *user_find(struct queue *q, uintptr_t stored)
{
    for (int i = 0; i < USERS_MAX; i++)
        if (atomic_load(&q->users[i].ident) == stored)
            return &q->users[i];
    return NULL;
}

/* The edge. It also makes the kqueue readable for poll(). */
static int ring_bell(int kq)
{
    struct epoll_event ev = {.events = EPOLLIN | EPOLLET, .data.u64 = USER_MARK};
    return epoll_ctl(kq, EPOLL_CTL_MOD, always_ready, &ev) == 0 ? 0 : errno;
}

static int user_trigger(struct queue *q, int kq, const struct kevent *change)
{
    struct user *u = user_find(q, change->ident + 1);
    if (u == NULL)
        return ENOENT;
    atomic_store(&u->triggered, true);
    return ring_bell(kq);
}

static int change_user(struct queue *q, int kq, const struct kevent *change)
{
    struct user *u = user_find(q, change->ident + 1);
    if (u == NULL && !(change->flags & EV_ADD))
        return ENOENT;
    if (change->flags & EV_DELETE) {
        atomic_store(&u->ident, 0);
        return 0;
    }
    if (u == NULL) {
        u = user_find(q, 0);
        if (u == NULL)
            return ENOMEM;
        if (!(change->flags & EV_CLEAR))
            return EINVAL;
        atomic_store(&u->triggered, false);
        u->disabled = false;
    }
    if (change->flags & EV_ADD)
        u->udata = change->udata;
    if (change->flags & (EV_ENABLE | EV_DISABLE))
        u->disabled = change->flags & EV_DISABLE;
    atomic_store(&u->ident, change->ident + 1);
    if (change->fflags & NOTE_TRIGGER)
        atomic_store(&u->triggered, true);
    return atomic_load(&u->triggered) && !u->disabled ? ring_bell(kq) : 0;
}

static int apply(struct queue *q, int kq, const struct kevent *change)
{
    unsigned action = change->flags & (EV_ADD | EV_DELETE | EV_ENABLE | EV_DISABLE);
    if (change->filter == EVFILT_USER && action == 0)
        return change->fflags & NOTE_TRIGGER ? user_trigger(q, kq, change) : 0;
    int err = EINVAL;
    pthread_mutex_lock(&q->lock);
    if (change->filter == EVFILT_USER)
        err = change_user(q, kq, change);
    else if ((change->filter == EVFILT_READ || change->filter == EVFILT_WRITE) && action != 0)
        err = change_socket(q, kq, change);
    pthread_mutex_unlock(&q->lock);
    return err;
}

/* Returns how many entries of `events` say what became of changes, or -1 with errno if one failed and found no room. */
static int apply_all(struct queue *q, int kq, const struct kevent *changes, int nchanges, struct kevent *events,
                     int nevents)
{
    int said = 0;
    for (int i = 0; i < nchanges; i++) {
        int err = apply(q, kq, &changes[i]);
        if (err == 0 && !(changes[i].flags & EV_RECEIPT))
            continue;
        if (said == nevents) {
            if (err == 0)
                continue;
            errno = err;
            return -1;
        }
        events[said] = changes[i];
        events[said].flags = EV_ERROR;
        events[said++].data = err;
    }
    return said;
}

/* ---- Events. ---- */

void kqueue_shim_take_errors(bool on)
{
    atomic_store(&takes_errors, on);
}

/* Linux shows a socket's error only by consuming it, and on a BSD the system call that follows still finds it; so there
 * is one error for all, unless errors are to be taken. */
static unsigned error_of(int fd, uint32_t events)
{
    int err = ECONNRESET;
    socklen_t len = sizeof err;
    if (!(events & EPOLLERR))
        return 0;
    if (atomic_load(&takes_errors) && getsockopt(fd, SOL_SOCKET, SO_ERROR, &err, &len) != 0)
        return 0;
    return (unsigned)err;
}

static int64_t readable_bytes(int fd)
{
    int n = 0;
    return ioctl(fd, FIONREAD, &n) == 0 ? n : 0; /* EINVAL: a listener */
}

static bool is_due(int dir, uint32_t got)
{
    if (dir == READ)
        return got & (EPOLLIN | EPOLLRDHUP | EPOLLHUP | EPOLLERR);
    return got & (EPOLLOUT | EPOLLHUP | EPOLLERR);
}

static struct kevent event_of(int fd, const struct slot *s, int dir, uint32_t got, unsigned error)
{
    struct kevent kev;
    bool eof = got & (dir == READ ? EPOLLRDHUP : EPOLLHUP | EPOLLERR);
    EV_SET(&kev, (uintptr_t)fd, dir == READ ? EVFILT_READ : EVFILT_WRITE, EV_CLEAR, error,
           dir == READ ? readable_bytes(fd) : 0, s->filter[dir].udata);
    kev.flags |= eof ? EV_EOF : 0;
    return kev;
}

/* Turn one epoll answer into up to two events. A socket that was never connected polls HUP without RDHUP on Linux; on
 * a BSD it is silent. */
static int translate(struct queue *q, const struct epoll_event *ev, struct kevent *out, int room)
{
    int fd = (int)(uint32_t)ev->data.u64, n = 0;
    struct slot *s = &q->slots[fd];
    if (s->gen != (uint32_t)(ev->data.u64 >> 32))
        return 0;
    if (!s->other && (ev->events & (EPOLLHUP | EPOLLRDHUP | EPOLLERR)) == EPOLLHUP)
        return 0;
    unsigned error = error_of(fd, ev->events);
    for (int dir = READ; dir <= WRITE; dir++) {
        struct filter *f = &s->filter[dir];
        if (!is_due(dir, ev->events) || !is_armed(f))
            continue;
        if (n < room) {
            out[n++] = event_of(fd, s, dir, ev->events, error);
            continue;
        }
        q->owed += f->owed == 0;
        f->owed |= ev->events;
        f->owed_error = error != 0 ? error : f->owed_error;
    }
    return n;
}

static bool is_registered(int kq, int fd)
{
    struct epoll_event ev = {.events = 0, .data.u64 = USER_MARK - 1};
    if (epoll_ctl(kq, EPOLL_CTL_ADD, fd, &ev) != 0)
        return errno == EEXIST;
    (void)epoll_ctl(kq, EPOLL_CTL_DEL, fd, NULL);
    return false;
}

/* Deliver events that found no room before. */
static int take_owed(struct queue *q, int kq, struct kevent *out, int room)
{
    int n = 0;
    if (q->owed == 0)
        return 0;
    q->owed = 0;
    for (int i = 0; i < 2 * q->slot_count; i++) {
        struct slot *s = &q->slots[i / 2];
        struct filter *f = &s->filter[i % 2];
        if (f->owed == 0)
            continue;
        if (n == room) {
            q->owed++;
            continue;
        }
        if (is_armed(f) && is_registered(kq, i / 2))
            out[n++] = event_of(i / 2, s, i % 2, f->owed, f->owed_error);
        f->owed = 0;
        f->owed_error = 0;
    }
    return n;
}

static int take_users(struct queue *q, struct kevent *out, int room)
{
    int n = 0;
    for (int i = 0; i < USERS_MAX && n < room; i++) {
        struct user *u = &q->users[i];
        uintptr_t stored = atomic_load(&u->ident);
        if (stored == 0 || u->disabled || !atomic_exchange(&u->triggered, false))
            continue;
        EV_SET(&out[n], stored - 1, EVFILT_USER, EV_CLEAR, 0, 0, u->udata);
        n++;
    }
    return n;
}

static bool users_wait(struct queue *q)
{
    for (int i = 0; i < USERS_MAX; i++)
        if (atomic_load(&q->users[i].ident) != 0 && !q->users[i].disabled && atomic_load(&q->users[i].triggered))
            return true;
    return false;
}

static int collect(struct queue *q, int kq, const struct epoll_event *got, int ngot, struct kevent *out, int room)
{
    pthread_mutex_lock(&q->lock);
    int n = take_owed(q, kq, out, room);
    for (int i = 0; i < ngot; i++)
        if (got[i].data.u64 != USER_MARK)
            n += translate(q, &got[i], out + n, room - n);
    n += take_users(q, out + n, room - n);
    if (q->owed > 0 || users_wait(q))
        (void)ring_bell(kq);
    pthread_mutex_unlock(&q->lock);
    return n;
}

static int64_t now_ns(void)
{
    struct timespec now;
    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * NS_PER_S + now.tv_nsec;
}

/* In milliseconds where there is nothing better (before Linux 5.11, under emulators): up, for early would be wrong. */
static int wait_epoll(int kq, struct epoll_event *got, int room, int64_t left_ns)
{
    struct timespec ts = {.tv_sec = (time_t)(left_ns / NS_PER_S), .tv_nsec = (long)(left_ns % NS_PER_S)};
    int n = epoll_pwait2(kq, got, room, left_ns < 0 ? NULL : &ts, NULL);
    if (n >= 0 || errno != ENOSYS)
        return n;
    int64_t ms = left_ns < 0 ? -1 : (left_ns + NS_PER_S / 1000 - 1) / (NS_PER_S / 1000);
    return epoll_wait(kq, got, room, ms < INT32_MAX ? (int)ms : INT32_MAX);
}

/* An answer of epoll may come to no event; then it is asked again for the rest of the time. */
static int wait_events(struct queue *q, int kq, struct kevent *events, int nevents, const struct timespec *timeout)
{
    struct epoll_event got[BATCH];
    bool forever = timeout == NULL || timeout->tv_sec > FOREVER_S;
    int64_t left = forever ? 0 : (int64_t)timeout->tv_sec * NS_PER_S + timeout->tv_nsec;
    int64_t end = left == 0 ? 0 : now_ns() + left;
    for (;;) {
        int n = wait_epoll(kq, got, nevents < BATCH ? nevents : BATCH, forever ? -1 : left);
        if (n <= 0)
            return n;
        n = collect(q, kq, got, n, events, nevents);
        if (n > 0)
            return n;
        left = end - now_ns();
        if (left < 0)
            left = 0;
    }
}

int kevent(int kq, const struct kevent *changes, int nchanges, struct kevent *events, int nevents,
           const struct timespec *timeout)
{
    struct queue *q = kq >= 0 && kq < QUEUES_MAX ? atomic_load(&queues[kq]) : NULL;
    if (q == NULL) {
        errno = EBADF;
        return -1;
    }
    int said = apply_all(q, kq, changes, nchanges, events, nevents);
    if (said != 0 || nevents == 0)
        return said;
    return wait_events(q, kq, events, nevents, timeout);
}
