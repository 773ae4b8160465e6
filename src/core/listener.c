/* SPDX-License-Identifier: MIT
 * Listeners: opening their sockets, closing them.
 *
 * The normal course: the first socket is bound with the address free for us alone; with one socket per loop the others
 * then join it under SO_REUSEPORT, so a port that a stranger of the same user listens on is still refused. Whatever
 * fails on the way, what was opened is closed again before the error is returned. */
#include "listener.h"
#include "option.h"

#include <errno.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { BACKLOG_DEFAULT = 4096, BACKLOG_MAX = 1 << 20, UNIX_MODE_MAX = 0777 };

/* What opening a listener has been asked to do. */
struct plan {
    struct gyre__address address;
    struct gyre_listener_options options;
    struct gyre_listen_config config;
};

static bool is_kernel(const struct gyre_loop *l)
{
    return l->be->ops->sock == &gyre__sock_system;
}

/* Remember which file bind made, so that only that one is ever removed. */
static void remember_path(struct gyre_listener *listener, const struct gyre_loop *l)
{
    struct stat st;
    const char *path = gyre__addr_path(&listener->addr);
    if (path == NULL || !is_kernel(l) || lstat(path, &st) != 0)
        return;
    listener->unlink = true;
    listener->path_device = st.st_dev;
    listener->path_inode = st.st_ino;
}

static void remove_path(struct gyre_listener *listener)
{
    struct stat st;
    const char *path = gyre__addr_path(&listener->addr);
    if (!listener->unlink)
        return;
    listener->unlink = false;
    if (lstat(path, &st) == 0 && st.st_dev == listener->path_device && st.st_ino == listener->path_inode)
        (void)unlink(path);
}

/* A bound, listening socket on `addr`. Returns the descriptor or an error. */
static int open_socket(struct gyre_loop *l, const struct plan *plan, const struct gyre_addr *addr,
                       const struct gyre_listen_config *config)
{
    const struct gyre_sock_ops *sock = l->be->ops->sock;
    bool inet = !gyre__addr_is_unix(addr);
    int fd = sock->open(l->be, addr->ss.ss_family);
    if (fd < 0)
        return fd;
    /* What is accepted inherits it, which saves a system call each. */
    int err = inet && !plan->options.conn.delay ? sock->set_nodelay(l->be, fd) : 0;
    if (err == 0)
        err = gyre__options_apply(l, fd, &plan->options.conn, inet);
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
    struct gyre_listen_config config = plan->config;
    config.share = plan->options.share_port;
    config.share_later = more_follow && !config.share;
    listener->addr = plan->address.addr;
    int fd = open_socket(l, plan, &listener->addr, &config);
    if (fd == -EAFNOSUPPORT && plan->address.any_host) { /* no IPv6 on this machine */
        struct sockaddr_in *in4 = (struct sockaddr_in *)&listener->addr.ss;
        in_port_t port = ((const struct sockaddr_in6 *)&plan->address.addr.ss)->sin6_port;
        memset(&listener->addr, 0, sizeof listener->addr);
        in4->sin_family = AF_INET;
        in4->sin_port = port;
        listener->addr.len = sizeof *in4;
        fd = open_socket(l, plan, &listener->addr, &config);
    }
    if (fd < 0)
        return fd;
    (void)l->be->ops->sock->name(l->be, fd, false, &listener->addr);
    remember_path(listener, l);
    int err = gyre__acceptor_open(listener->acceptors[0], fd, listener->inet);
    if (err != 0) {
        l->be->ops->sock->close(l->be, fd);
        remove_path(listener);
    }
    return err;
}

static int open_others(struct gyre_listener *listener, const struct plan *plan)
{
    struct gyre_listen_config config = plan->config;
    config.share = true;
    for (uint32_t i = 1; i < listener->acceptor_count; i++) {
        struct gyre_loop *l = listener->acceptors[i]->loop;
        int fd = open_socket(l, plan, &listener->addr, &config);
        if (fd < 0)
            return fd;
        int err = gyre__acceptor_open(listener->acceptors[i], fd, listener->inet);
        if (err != 0) {
            l->be->ops->sock->close(l->be, fd);
            return err;
        }
    }
    return 0;
}

static int make_plan(struct plan *plan, const char *address, const struct gyre_listener_options *options, size_t size)
{
    int err = gyre__addr_parse(&plan->address, address);
    if (err == 0)
        err = gyre__options_copy(&plan->options, sizeof plan->options, options, size);
    if (err != 0)
        return err;
    const struct gyre_listener_options *o = &plan->options;
    for (size_t i = 0; i < sizeof o->reserved / sizeof o->reserved[0]; i++)
        if (o->reserved[i] != 0)
            return -E2BIG;
    if ((int)o->balance < GYRE_BALANCE_AUTO || (int)o->balance > GYRE_BALANCE_ROUND_ROBIN ||
        o->backlog > BACKLOG_MAX || o->unix_mode > UNIX_MODE_MAX)
        return GYRE_EOPTION;
    if (o->balance == GYRE_BALANCE_KERNEL && gyre__addr_is_unix(&plan->address.addr))
        return GYRE_EOPTION; /* unix sockets know no SO_REUSEPORT */
    plan->config = (struct gyre_listen_config){.backlog = o->backlog != 0 ? o->backlog : BACKLOG_DEFAULT,
                                               .unix_mode = o->unix_mode,
                                               .v6_only = plan->address.v6_only};
    return 0;
}

/* Close what was opened (no op is in flight yet) and give the acceptors back. */
static void release_idle(struct gyre_listener *listener, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) {
        struct gyre__acceptor *a = listener->acceptors[i];
        if (a->f.fd < 0)
            gyre__acceptor_release(a);
        else
            gyre__acceptor_stop(a);
    }
}

static int make_acceptors(struct gyre_listener *listener, struct gyre_loop **loops, const struct plan *plan,
                          const struct gyre_conn_handlers *handlers)
{
    for (uint32_t i = 0; i < listener->acceptor_count; i++) {
        struct gyre__acceptor *a;
        struct gyre__profile profile;
        int err = gyre__profile_init(&profile, &plan->options.conn, handlers);
        if (err == 0)
            err = gyre__acceptor_new(&a, loops[i], listener);
        if (err != 0) {
            for (uint32_t k = 0; k < i; k++)
                listener->acceptors[k]->used = false;
            return err;
        }
        a->profile.options = profile.options;
        a->profile.handlers = profile.handlers;
        a->profile.on_data = profile.on_data;
        listener->acceptors[i] = a;
    }
    return 0;
}

static struct gyre_listener *new_listener(const struct gyre_mem *mem, bool kept, uint32_t loop_count)
{
    struct gyre_listener *listener = gyre__alloc(mem, sizeof *listener);
    if (listener == NULL)
        return NULL;
    *listener = (struct gyre_listener){.magic = GYRE_LISTENER_MAGIC, .acceptor_count = loop_count, .mem = mem};
    listener->kept = kept;
    listener->acceptors = gyre__alloc(mem, loop_count * sizeof(struct gyre__acceptor *));
    if (listener->acceptors != NULL)
        return listener;
    gyre__free(mem, listener);
    return NULL;
}

int gyre__listener_open(struct gyre_listener **out, struct gyre_loop **loops, uint32_t loop_count,
                        struct gyre_listener **list, const char *address, const struct gyre_conn_handlers *handlers,
                        const struct gyre_listener_options *options, size_t options_size)
{
    struct plan plan;
    int err = make_plan(&plan, address, options, options_size);
    if (err != 0)
        return err;
    struct gyre_listener *listener = new_listener(loops[0]->mem, list != NULL, loop_count);
    if (listener == NULL)
        return -ENOMEM;
    listener->inet = !gyre__addr_is_unix(&plan.address.addr);
    listener->hands_over =
        loop_count > 1 && (!listener->inet || plan.options.balance == GYRE_BALANCE_ROUND_ROBIN);
    err = make_acceptors(listener, loops, &plan, handlers);
    if (err != 0) {
        gyre__listener_free(listener);
        return err;
    }
    if (list != NULL) {
        listener->next = *list;
        *list = listener;
    }
    bool per_loop = loop_count > 1 && !listener->hands_over;
    err = open_first(listener, &plan, per_loop);
    if (err == 0 && per_loop)
        err = open_others(listener, &plan);
    if (err != 0) {
        remove_path(listener);
        release_idle(listener, loop_count);
        return err;
    }
    gyre__addr_format(&listener->addr, listener->address, sizeof listener->address);
    if (list == NULL) /* an engine arms its own when it runs, so that until then closing one is immediate */
        gyre__acceptor_arm(listener->acceptors[0]);
    *out = listener;
    return 0;
}

void gyre__listener_stop(struct gyre_listener *listener, struct gyre_loop *l)
{
    uint32_t count = listener->acceptor_count; /* a single loop's listener may be gone after its acceptor stopped */
    if (listener->acceptors[0]->loop == l)
        remove_path(listener);
    for (uint32_t i = 0; i < count; i++) {
        struct gyre__acceptor *a = listener->acceptors[i];
        if (a->loop == l && a->listener == listener) /* else closed before, and the acceptor is another's by now */
            gyre__acceptor_stop(a);
    }
}

void gyre__listener_free(struct gyre_listener *listener)
{
    gyre__free(listener->mem, listener->acceptors);
    gyre__free(listener->mem, listener);
}

/* ---- the user's side ---- */

int gyre_loop_listen_sized(struct gyre_listener **out, struct gyre_loop *loop, const char *address,
                           const struct gyre_conn_handlers *handlers, const struct gyre_listener_options *options,
                           size_t size_bytes)
{
    struct gyre_listener *listener;
    if (loop == NULL || address == NULL)
        return -EINVAL;
    if (!gyre__loop_allows(loop))
        return GYRE_ETHREAD;
    if (loop->phase != GYRE_PHASE_SERVING)
        return GYRE_ESHUTDOWN;
    int err = gyre__listener_open(&listener, &loop, 1, NULL, address, handlers, options, size_bytes);
    if (err == 0 && out != NULL)
        *out = listener;
    return err;
}

void gyre_listener_close(struct gyre_listener *listener)
{
    if (listener == NULL || listener->magic != GYRE_LISTENER_MAGIC)
        return;
    uint32_t count = listener->acceptor_count;
    for (uint32_t i = 0; i < count; i++) {
        struct gyre_loop *l = listener->acceptors[i]->loop;
        if (gyre__loop_allows(l))
            gyre__listener_stop(listener, l);
        else
            gyre__acceptor_post_stop(listener->acceptors[i]);
    }
}

const char *gyre_listener_address(const struct gyre_listener *listener)
{
    return listener->address;
}
