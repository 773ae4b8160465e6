/* SPDX-License-Identifier: MIT
 * Opening a listener: its sockets and its acceptors.
 *
 * The normal course: the first socket is bound with the address free for us alone; with one socket per loop the others
 * then join it under SO_REUSEPORT, so a port that a stranger of the same user listens on is still refused. Whatever
 * fails on the way, what was opened is closed again before the error is returned. */
#include "listener.h"
#include "base/options.h"
#include "base/refuse.h"
#include "resolve/resolve.h"
#include "socket/prepare.h"

#include <errno.h>
#include <netinet/in.h>
#include <string.h>
#include <unistd.h>

enum {
    BACKLOG_DEFAULT = 4096,
    BACKLOG_MAX = 1 << 20,
    UNIX_MODE_MAX = 0777,
    DEFER_MAX_S = 3600,
    FASTOPEN_MAX = 1 << 20,
};

/* What opening a listener has been asked to do. */
struct plan {
    struct gyre__address address;
    struct gyre_listener_options options;
    struct gyre__listen_config config;
    bool inet;
    bool per_loop; /* a socket for each */
};

/* A bound, listening socket on `addr`. Returns the descriptor or an error. */
static int open_socket(struct gyre_loop *l, const struct plan *plan, const struct gyre__addr *addr,
                       const struct gyre__listen_config *config)
{
    const struct gyre__sock_ops *sock = l->be->ops->sock;
    int fd = sock->open(l->be, addr->ss.ss_family);
    if (fd < 0)
        return fd;
    /* What is accepted inherits them, which saves system calls. */
    int err = gyre__options_apply(l->be, fd, &plan->options.conn, !gyre__addr_is_unix(addr));
    if (err == 0)
        err = gyre__options_ask(&plan->options.conn, fd, GYRE_SOCKET_LISTEN);
    if (err == 0)
        err = sock->listen(l->be, fd, addr, config);
    if (err == 0)
        return fd;
    sock->close(l->be, fd);
    return err;
}

/* The first socket; its bound address becomes the listener's. */
static int open_first(struct gyre_listener *listener, const struct plan *plan, bool more_follow)
{
    struct gyre_loop *l = listener->acceptors[0]->loop;
    struct gyre__listen_config config = plan->config;
    config.share = plan->options.share_port;
    config.share_later = more_follow && !config.share;
    listener->addr = plan->address.addr;
    int fd = open_socket(l, plan, &listener->addr, &config);
    if (fd == -EAFNOSUPPORT && plan->address.any_host) { /* no IPv6 on this machine */
        listener->addr = gyre__addr_any_v4(&plan->address.addr);
        fd = open_socket(l, plan, &listener->addr, &config);
    }
    if (fd < 0)
        return fd;
    (void)l->be->ops->sock->name(l->be, fd, false, &listener->addr);
    gyre__path_remember(&listener->path, l->be, &listener->addr);
    listener->acceptors[0]->f.fd = fd;
    return 0;
}

/* From acceptor `from` on. */
static int open_others(struct gyre_listener *listener, const struct plan *plan, uint32_t from)
{
    struct gyre__listen_config config = plan->config;
    config.share = true;
    for (uint32_t i = from; i < listener->acceptor_count; i++) {
        int fd = open_socket(listener->acceptors[i]->loop, plan, &listener->addr, &config);
        if (fd < 0)
            return fd;
        listener->acceptors[i]->f.fd = fd;
    }
    return 0;
}

/* Listening sockets that somebody else made. With several of them, each loop is to have one: where the sockets that
 * came let others join them, the missing ones are made, and else some loops have none. */
static int take_sockets(struct gyre_listener *listener, const struct plan *plan,
                        const struct gyre__listen_request *request)
{
    struct gyre_loop *l = listener->acceptors[0]->loop;
    const struct gyre__sock_ops *sock = l->be->ops->sock;
    for (uint32_t i = 0; i < request->fd_count; i++) {
        int err = gyre__options_apply(l->be, request->fds[i], &plan->options.conn, plan->inet);
        if (err != 0)
            return err;
    }
    int err = sock->name(l->be, request->fds[0], false, &listener->addr);
    if (err != 0)
        return err;
    for (uint32_t i = 0; i < request->fd_count; i++)
        listener->acceptors[i]->f.fd = request->fds[i];
    if (request->takes_path)
        gyre__path_remember(&listener->path, l->be, &listener->addr);
    if (plan->per_loop)
        (void)open_others(listener, plan, request->fd_count);
    return 0;
}

static int open_sockets(struct gyre_listener *listener, const struct plan *plan,
                        const struct gyre__listen_request *request)
{
    if (request->address == NULL)
        return take_sockets(listener, plan, request);
    bool more_follow = plan->per_loop && listener->acceptor_count > 1;
    int err = open_first(listener, plan, more_follow);
    return err == 0 && more_follow ? open_others(listener, plan, 1) : err;
}

static int check_options(const struct plan *plan, uint32_t given)
{
    const struct gyre_listener_options *o = &plan->options;
    const struct gyre__range ranges[] = {
        {"balance", (int)o->balance, GYRE_BALANCE_AUTO, GYRE_BALANCE_CUSTOM},
        {"backlog", o->backlog, 0, BACKLOG_MAX},
        {"unix_mode", o->unix_mode, 0, UNIX_MODE_MAX},
        {"defer_accept_s", o->defer_accept_s, 0, DEFER_MAX_S},
        {"fastopen_queue", o->fastopen_queue, 0, FASTOPEN_MAX},
    };
    int err = gyre__check_ranges(ranges, sizeof ranges / sizeof ranges[0]);
    if (err != 0)
        return err;
    if ((o->balance == GYRE_BALANCE_CUSTOM) != (o->choose != NULL))
        return gyre__refuse("choose is %s; it goes with GYRE_BALANCE_CUSTOM", o->choose != NULL ? "set" : "NULL");
    if (given == 1 && o->balance == GYRE_BALANCE_KERNEL)
        return gyre__refuse("balance is GYRE_BALANCE_KERNEL; it needs one socket per loop, and one was given");
    if (given > 1 && o->balance != GYRE_BALANCE_AUTO && o->balance != GYRE_BALANCE_KERNEL)
        return gyre__refuse("balance is %u; with several sockets it is the kernel's, GYRE_BALANCE_KERNEL",
                            (unsigned)o->balance);
    if (!plan->inet && (o->balance == GYRE_BALANCE_KERNEL || o->defer_accept_s > 0 || o->fastopen_queue > 0 ||
                        o->device != NULL)) /* unix sockets know no SO_REUSEPORT and none of the others */
        return gyre__refuse("GYRE_BALANCE_KERNEL, defer_accept_s, fastopen_queue and device are for TCP only");
    return 0;
}

/* Whether the descriptors are what they must be: listening sockets of one address. */
static int inspect(struct plan *plan, const struct gyre__listen_request *request)
{
    struct gyre__backend *be = request->loops[0]->be;
    char first[GYRE_ADDR_TEXT_MAX], text[GYRE_ADDR_TEXT_MAX];
    for (uint32_t i = 0; i < request->fd_count; i++) {
        struct gyre__sock_info info;
        struct gyre__addr addr;
        int err = gyre__addr_inspect(be, request->fds[i], &info);
        if (err == 0)
            err = info.stream && info.listening ? be->ops->sock->name(be, request->fds[i], false, &addr)
                                                : GYRE_ESOCKTYPE;
        if (err != 0)
            return err;
        plan->inet = info.family != AF_UNIX;
        gyre__addr_format(&addr, i == 0 ? first : text, GYRE_ADDR_TEXT_MAX);
        if (i > 0 && strcmp(first, text) != 0)
            return gyre__refuse("the first descriptor listens on %s, but number %u on %s", first, i, text);
    }
    return 0;
}

int gyre__listen_look_up(struct gyre__listen_request *request, struct gyre_loop *const *loops, uint32_t loop_count)
{
    struct gyre__host host;
    request->named = gyre__addr_parse_host(&host, request->address) == 0;
    return request->named ? gyre__resolve_now(&request->found, loops, loop_count, &host) : 0;
}

static int make_plan(struct plan *plan, const struct gyre__listen_request *request)
{
    struct gyre_listener_options *o = &plan->options;
    int err = 0;
    if (request->address == NULL)
        err = inspect(plan, request);
    else if (request->named)
        plan->address = request->found;
    else
        err = gyre__addr_parse(&plan->address, request->address);
    if (err == 0)
        err = gyre__options_copy_nested(o, sizeof *o, sizeof o->conn, request->options, request->size,
                                        request->conn_size);
    if (err != 0)
        return err;
    if (request->address != NULL)
        plan->inet = !gyre__addr_is_unix(&plan->address.addr);
    err = check_options(plan, request->fd_count);
    if (err != 0)
        return err;
    plan->per_loop = request->fd_count != 1 && plan->inet &&
                     (o->balance == GYRE_BALANCE_AUTO || o->balance == GYRE_BALANCE_KERNEL);
    plan->config = (struct gyre__listen_config){.backlog = o->backlog != 0 ? o->backlog : BACKLOG_DEFAULT,
                                                .unix_mode = o->unix_mode,
                                                .v6_only = plan->address.v6_only || o->v6_only,
                                                .defer_accept_s = o->defer_accept_s,
                                                .fastopen_queue = o->fastopen_queue,
                                                .device = o->device};
    return 0;
}

static uint32_t acceptors_for(const struct gyre__listen_request *request)
{
    return request->fd_count > request->loop_count ? request->fd_count : request->loop_count;
}

static struct gyre_listener *new_listener(const struct gyre__listen_request *request)
{
    const struct gyre_mem *mem = request->loops[0]->mem;
    uint32_t count = acceptors_for(request);
    struct gyre_listener *listener = gyre__alloc(mem, sizeof *listener);
    if (listener == NULL)
        return NULL;
    *listener = (struct gyre_listener){.magic = GYRE_LISTENER_MAGIC,
                                       .acceptor_count = count,
                                       .loop_count = request->loop_count,
                                       .engine = request->engine,
                                       .set = request->set,
                                       .mem = mem};
    listener->acceptors = gyre__alloc_many(mem, count, sizeof(struct gyre__acceptor *));
    bool ok = listener->acceptors != NULL;
    for (uint32_t i = 0; ok && i < listener->acceptor_count; i++)
        ok = gyre__acceptor_new(&listener->acceptors[i], request->loops[i % request->loop_count], listener) == 0;
    if (ok) {
        atomic_store(&listener->refs, listener->acceptor_count);
        return listener;
    }
    gyre__listener_free(listener);
    return NULL;
}

/* One that was closed, and that nothing refers to any more. */
static struct gyre_listener *idle_listener(const struct gyre__listen_request *request)
{
    struct gyre_listener *listener = *request->list;
    while (listener != NULL &&
           !(atomic_load(&listener->idle) && listener->acceptor_count == acceptors_for(request)))
        listener = listener->next;
    if (listener == NULL)
        return NULL;
    atomic_store(&listener->idle, false);
    atomic_store(&listener->refs, listener->acceptor_count);
    atomic_store(&listener->sockets, 0);
    listener->path.ours = false;
    for (uint32_t i = 0; i < listener->acceptor_count; i++)
        gyre__acceptor_init(listener->acceptors[i], listener->acceptors[i]->loop, listener);
    return listener;
}

static struct gyre_listener *find_or_make(const struct gyre__listen_request *request)
{
    struct gyre_listener *listener = idle_listener(request);
    if (listener != NULL)
        return listener;
    listener = new_listener(request);
    if (listener != NULL) {
        listener->next = *request->list;
        *request->list = listener;
    }
    return listener;
}

static void set_up(struct gyre_listener *listener, const struct plan *plan, const struct gyre__profile *profile,
                   uint32_t index, bool shared)
{
    const struct gyre_listener_options *o = &plan->options;
    listener->index = index;
    listener->inet = plan->inet;
    atomic_store(&listener->shared, shared);
    listener->hands_over = listener->loop_count > 1 && !plan->per_loop;
    listener->conns_max = o->conns_max;
    listener->filter = o->filter;
    listener->on_closed = o->on_closed;
    listener->user = o->user;
    listener->balance = (struct gyre__balancer){.kind = o->balance, .choose = o->choose, .random = o->seed};
    for (uint32_t i = 0; i < listener->acceptor_count; i++) {
        struct gyre__profile *own = &listener->acceptors[i]->profile;
        *own = *profile;
        own->listener = listener;
        own->refs = 1;
        own->release = gyre__acceptor_release_profile;
    }
}

/* Begin accepting, or being ready to take over, on each loop. What fails on a loop that is not the caller's is tried
 * again there. */
static int start(struct gyre_listener *listener)
{
    uint32_t sockets = 0;
    int err = 0;
    for (uint32_t i = 0; i < listener->acceptor_count; i++) {
        struct gyre__acceptor *a = listener->acceptors[i];
        a->f.flags = GYRE_FDF_LISTEN | (listener->inet ? GYRE_FDF_INET : 0);
        sockets += a->f.fd >= 0;
    }
    atomic_store(&listener->sockets, sockets);
    for (uint32_t i = 0; err == 0 && i < listener->acceptor_count; i++)
        if (gyre__loop_allows(listener->acceptors[i]->loop))
            err = gyre__acceptor_start(listener->acceptors[i]);
    if (err != 0)
        return err;
    /* An engine that does not run yet arms its own when it does, so that until then closing one is immediate. */
    atomic_store(&listener->want, GYRE_LISTENER_ACCEPT);
    for (uint32_t i = 0; i < listener->acceptor_count; i++)
        gyre__acceptor_look(listener->acceptors[i]);
    return 0;
}

/* Close what was opened; on no loop an op is in flight, and no other thread's has seen it. */
static void undo(struct gyre_listener *listener)
{
    listener->on_closed = NULL;
    atomic_store(&listener->want, GYRE_LISTENER_CLOSE);
    gyre__listener_hold(listener);
    for (uint32_t i = 0; i < listener->acceptor_count; i++)
        gyre__acceptor_discard(listener->acceptors[i]);
    gyre__path_remove(&listener->path, &listener->addr);
    gyre__listener_release(listener);
}

int gyre__listener_make(struct gyre_listener **out, const struct gyre__listen_request *request)
{
    struct plan plan = {.inet = false};
    struct gyre__profile profile;
    int err = make_plan(&plan, request);
    if (err == 0)
        err = gyre__profile_init(&profile, &plan.options.conn, request->handlers);
    if (err != 0)
        return err;
    struct gyre_listener *listener = find_or_make(request);
    if (listener == NULL)
        return -ENOMEM;
    set_up(listener, &plan, &profile, request->index, request->address == NULL);
    err = open_sockets(listener, &plan, request);
    if (err == 0) {
        gyre__addr_format(&listener->addr, listener->address, sizeof listener->address);
        err = start(listener);
    }
    if (err != 0) {
        for (uint32_t i = 0; i < request->fd_count; i++)
            gyre__acceptor_forget_socket(listener->acceptors[i]); /* they stay the caller's, and so does their file */
        if (request->address == NULL)
            gyre__path_forget(&listener->path);
        undo(listener);
        return err;
    }
    *out = listener;
    return 0;
}

static int loop_listen(struct gyre_listener **out, struct gyre_loop *loop, struct gyre__listen_request *request)
{
    struct gyre_listener *listener;
    if (!gyre__loop_allows(loop))
        return GYRE_ETHREAD;
    if (loop->phase != GYRE_PHASE_SERVING)
        return GYRE_ESHUTDOWN;
    request->loops = &loop;
    request->loop_count = 1;
    request->list = &loop->acceptors->listeners;
    int err = request->address != NULL ? gyre__listen_look_up(request, &loop, 1) : 0;
    if (err == 0)
        err = gyre__listener_make(&listener, request);
    if (err == 0 && out != NULL)
        *out = listener;
    return err;
}

int gyre_loop_listen_sized(struct gyre_listener **out, struct gyre_loop *loop, const char *address,
                           const struct gyre_conn_handlers *handlers, const struct gyre_listener_options *options,
                           size_t size_bytes, size_t conn_size_bytes)
{
    struct gyre__listen_request request = {
        .address = address, .handlers = handlers, .options = options, .size = size_bytes, .conn_size = conn_size_bytes};
    return loop == NULL || address == NULL ? -EINVAL : loop_listen(out, loop, &request);
}

int gyre_loop_listen_fd_sized(struct gyre_listener **out, struct gyre_loop *loop, int fd,
                              const struct gyre_conn_handlers *handlers, const struct gyre_listener_options *options,
                              size_t size_bytes, size_t conn_size_bytes)
{
    struct gyre__listen_request request = {
        .fds = &fd, .fd_count = 1, .handlers = handlers, .options = options, .size = size_bytes,
        .conn_size = conn_size_bytes};
    return loop == NULL ? -EINVAL : loop_listen(out, loop, &request);
}
