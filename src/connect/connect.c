/* SPDX-License-Identifier: MIT
 * Outgoing connections, and the settings that connections share.
 *
 * The normal course: a socket, a connection in state CONNECTING around it, a CONNECT op (in the place of the send op),
 * and on success the same way on as an accepted one. What can go wrong before the op is submitted is returned at once
 * and leaves nothing behind; what goes wrong after it is told by on_close alone. */
#include "socket/addr.h"
#include "connect.h"
#include "stream/frame.h"
#include "listen/listener.h"

#include <errno.h>
#include <netinet/in.h>
#include <string.h>

static const int64_t connect_timeout_default_ns = INT64_C(30000000000);
static const int64_t linger_timeout_default_ns = INT64_C(30000000000);

enum {
    READ_MAX_DEFAULT = 1 << 20,
    WRITE_HIGH_DEFAULT = 256 << 10,
    WRITE_MAX_DEFAULT = 16 << 20,
    BYTES_MAX = 1 << 30,
};

int gyre__options_copy(void *dst, size_t dst_size, const void *src, size_t src_size)
{
    const uint8_t *bytes = src;
    memset(dst, 0, dst_size);
    if (src == NULL)
        return 0;
    for (size_t i = dst_size; i < src_size; i++)
        if (bytes[i] != 0)
            return -E2BIG;
    memcpy(dst, src, src_size < dst_size ? src_size : dst_size);
    return 0;
}

int gyre__profile_init(struct gyre__profile *profile, const struct gyre_conn_options *options,
                       const struct gyre_conn_handlers *handlers)
{
    struct gyre_conn_options *o = &profile->options;
    if (handlers == NULL || (options->framer != NULL ? handlers->on_frame == NULL : handlers->on_data == NULL))
        return GYRE_EHANDLERS;
    if (options->framer != NULL && (options->framer->decode == NULL || options->framer->frame_max_bytes > BYTES_MAX))
        return GYRE_EOPTION;
    profile->handlers = handlers;
    profile->on_data = handlers->on_frame != NULL ? gyre__conn_on_frames : handlers->on_data;
    *o = *options;
    if (o->read_max_bytes == 0)
        o->read_max_bytes = READ_MAX_DEFAULT;
    if (o->write_max_bytes == 0)
        o->write_max_bytes = o->write_high_bytes > WRITE_MAX_DEFAULT ? o->write_high_bytes : WRITE_MAX_DEFAULT;
    if (o->write_high_bytes == 0)
        o->write_high_bytes = o->write_max_bytes < WRITE_HIGH_DEFAULT ? o->write_max_bytes : WRITE_HIGH_DEFAULT;
    if (o->write_low_bytes == 0)
        o->write_low_bytes = o->write_high_bytes / 4;
    if (o->connect_timeout_ns == 0)
        o->connect_timeout_ns = connect_timeout_default_ns;
    if (o->linger_timeout_ns == 0)
        o->linger_timeout_ns = linger_timeout_default_ns;
    if (o->read_max_bytes > BYTES_MAX || o->write_max_bytes > BYTES_MAX || o->write_high_bytes > o->write_max_bytes ||
        o->write_low_bytes > o->write_high_bytes)
        return GYRE_EOPTION;
    if (o->read_timeout_ns < 0 || o->write_timeout_ns < 0 || o->lifetime_ns < 0)
        return GYRE_EOPTION;
    if (o->idle_timeout_ns < 0 || o->linger_timeout_ns < 0 || o->connect_timeout_ns < 0)
        return GYRE_EOPTION;
    return gyre__options_check(o);
}

void gyre__profile_release(struct gyre_loop *l, struct gyre__profile *profile)
{
    if (profile->listener != NULL)
        gyre__acceptor_conn_closed(GYRE_CONTAINER(profile, struct gyre__acceptor, profile));
    else if (--profile->refs == 0)
        gyre__free(l->mem, profile);
}

void gyre__conn_on_connect(struct gyre_op *op, const struct gyre_event *ev)
{
    struct gyre_conn *c = GYRE_CONTAINER(op, struct gyre_conn, send);
    struct gyre_loop *l = c->loop;
    gyre__free(l->mem, (void *)(uintptr_t)op->u.connect.addr);
    op->done = GYRE_DONE_SENT;
    if (c->state == GYRE_CONN_ENDING) {
        gyre__conn_settle_later(c);
        return;
    }
    if (ev->res != 0) {
        gyre__conn_end(c, GYRE_CLOSE_CONNECT, ev->res);
        return;
    }
    gyre__count(&l->be->stats.connected, 1);
    gyre__conn_opened(c);
}

/* From here on failures are events. */
static int start_connect(struct gyre_conn *c, const struct gyre_addr *addr)
{
    struct gyre_loop *l = c->loop;
    struct gyre_addr *copy = gyre__alloc(l->mem, sizeof *copy);
    if (copy == NULL)
        return -ENOMEM;
    *copy = *addr;
    c->send.kind = GYRE_OP_CONNECT;
    c->send.flags = 0;
    c->send.done = GYRE_DONE_CONNECT;
    c->send.u.connect.addr = (const struct sockaddr *)&copy->ss;
    c->send.u.connect.len = (uint16_t)copy->len;
    c->send.u.connect.started = false;
    gyre__conn_start_timer(c);
    gyre__op_submit(l, &c->send);
    return 0;
}

static int open_socket(struct gyre_loop *l, const struct gyre__profile *profile, const struct gyre__route *route)
{
    const struct gyre_sock_ops *sock = l->be->ops->sock;
    bool inet = !gyre__addr_is_unix(&route->to);
    int fd = sock->open(l->be, route->to.ss.ss_family);
    if (fd < 0)
        return fd;
    int err = inet && !profile->options.delay ? sock->set_nodelay(l->be, fd) : 0;
    if (err == 0)
        err = gyre__options_apply(l, fd, &profile->options, inet);
    if (err == 0 && route->device[0] != '\0')
        err = sock->device(l->be, fd, route->device);
    if (err == 0)
        err = gyre__options_ask(&profile->options, fd, GYRE_SOCKET_CONNECT);
    if (err == 0 && route->bound)
        err = sock->bind(l->be, fd, &route->from, route->port_last);
    if (err == 0)
        return fd;
    sock->close(l->be, fd);
    return err;
}

int gyre__connect_with(struct gyre_conn **out, struct gyre_loop *l, const struct gyre__route *route,
                       struct gyre__profile *profile, unsigned how)
{
    struct gyre_conn *c;
    int fd = open_socket(l, profile, route);
    if (fd < 0) {
        if (how & GYRE_CONN_RESERVED)
            gyre__loop_unreserve(l);
        return fd;
    }
    int err = gyre__conn_new(&c, l, fd, profile, how | (gyre__addr_is_unix(&route->to) ? 0 : GYRE_FDF_INET));
    if (err != 0)
        return err;
    err = start_connect(c, &route->to);
    if (err != 0) {
        gyre__conn_discard(c);
        return err;
    }
    profile->refs++;
    *out = c;
    return 0;
}

static in_port_t *port_in(struct gyre_addr *addr)
{
    return addr->ss.ss_family == AF_INET6 ? &((struct sockaddr_in6 *)&addr->ss)->sin6_port
                                          : &((struct sockaddr_in *)&addr->ss)->sin_port;
}

/* The address to connect from, if the options say one. */
static int find_source(struct gyre__route *route, const struct gyre_conn_options *o)
{
    struct gyre__address source = {.addr = {.len = route->to.len}};
    route->bound = o->source_address != NULL || o->source_port_first != 0;
    if (o->source_port_first > o->source_port_last || (o->source_port_first == 0 && o->source_port_last != 0))
        return GYRE_EOPTION;
    if (!route->bound)
        return 0;
    if (gyre__addr_is_unix(&route->to))
        return GYRE_EOPTION;
    source.addr.ss.ss_family = route->to.ss.ss_family; /* every address of that family */
    int err = o->source_address != NULL ? gyre__addr_parse(&source, o->source_address) : 0;
    if (err != 0)
        return err;
    if (source.addr.ss.ss_family != route->to.ss.ss_family)
        return GYRE_EADDRESS;
    if (o->source_port_first != 0 && *port_in(&source.addr) != 0)
        return GYRE_EOPTION;
    if (o->source_port_first != 0)
        *port_in(&source.addr) = htons(o->source_port_first);
    route->from = source.addr;
    route->port_last = o->source_port_last;
    return 0;
}

/* The device to leave by, if the options say one. A name that is none's is not left to the kernel, which may cut it. */
static int find_device(struct gyre__route *route, const char *device)
{
    if (device == NULL)
        return 0;
    if (gyre__addr_is_unix(&route->to))
        return GYRE_EOPTION;
    size_t len = strnlen(device, GYRE_DEVICE_SIZE);
    if (len == 0 || len == GYRE_DEVICE_SIZE)
        return -ENODEV;
    memcpy(route->device, device, len + 1);
    return 0;
}

int gyre__route_find(struct gyre__route *out, const char *address, const struct gyre_conn_options *options)
{
    struct gyre__address parsed;
    int err = gyre__addr_parse(&parsed, address);
    if (err != 0)
        return err;
    *out = (struct gyre__route){.to = parsed.addr};
    err = find_device(out, options->device);
    return err != 0 ? err : find_source(out, options);
}

int gyre__profile_new(struct gyre__profile **out, const struct gyre_mem *mem,
                      const struct gyre_conn_handlers *handlers, const struct gyre_conn_options *options,
                      size_t size_bytes)
{
    struct gyre_conn_options copy;
    int err = gyre__options_copy(&copy, sizeof copy, options, size_bytes);
    if (err != 0)
        return err;
    struct gyre__profile *profile = gyre__alloc(mem, sizeof *profile);
    if (profile == NULL)
        return -ENOMEM;
    err = gyre__profile_init(profile, &copy, handlers);
    if (err != 0) {
        gyre__free(mem, profile);
        return err;
    }
    *out = profile;
    return 0;
}

int gyre_connect_sized(struct gyre_conn **out, struct gyre_loop *l, const char *address,
                       const struct gyre_conn_handlers *handlers, const struct gyre_conn_options *options,
                       size_t size_bytes)
{
    struct gyre__profile *profile;
    struct gyre__route route;
    struct gyre_conn *c;
    int err = address == NULL ? -EINVAL : gyre__loop_may_connect(l);
    if (err == 0)
        err = gyre__profile_new(&profile, l->mem, handlers, options, size_bytes);
    if (err != 0)
        return err;
    err = gyre__route_find(&route, address, &profile->options);
    if (err == 0)
        err = gyre__connect_with(&c, l, &route, profile, 0);
    if (err != 0) {
        gyre__free(l->mem, profile);
        return err;
    }
    if (out != NULL)
        *out = c;
    return 0;
}

/* ---- on whichever loop of an engine ---- */

struct remote_connect {
    struct gyre__task task;
    struct gyre__profile *profile;
    struct gyre__route route;
    gyre_connected_fn *done;
    void *user;
};

static void run_connect(struct gyre_loop *l, void *user)
{
    struct remote_connect *r = user;
    struct gyre_conn *c = NULL;
    int err = l->phase == GYRE_PHASE_SERVING ? 0 : GYRE_ESHUTDOWN;
    if (err == 0)
        err = gyre__connect_with(&c, l, &r->route, r->profile, GYRE_CONN_RESERVED);
    else
        gyre__loop_unreserve(l);
    if (err != 0)
        gyre__free(l->mem, r->profile);
    gyre_connected_fn *done = r->done;
    void *done_user = r->user;
    gyre__free(l->mem, r);
    if (done != NULL)
        done(l, c, err, done_user);
}

/* In turn among equals. */
static struct gyre_loop *least_loaded(struct gyre_engine *engine)
{
    uint32_t count = gyre_engine_loop_count(engine), start = gyre__engine_turn(engine) % count;
    struct gyre_loop *best = gyre_engine_loop(engine, start);
    for (uint32_t i = 1; i < count; i++) {
        struct gyre_loop *l = gyre_engine_loop(engine, (start + i) % count);
        if (gyre__loop_load(l) < gyre__loop_load(best))
            best = l;
    }
    return best;
}

/* Take a place. Returns NULL if all loops are full; the last place of one may go to another thread meanwhile. */
static struct gyre_loop *reserve(struct gyre_engine *engine)
{
    for (uint32_t i = 0, count = gyre_engine_loop_count(engine); i <= count; i++) {
        struct gyre_loop *l = least_loaded(engine);
        if (gyre__loop_reserve(l))
            return l;
        if (gyre__loop_room(l) == 0)
            break;
    }
    return NULL;
}

/* From success on `r` is the loop's, and may be gone. */
static int post_connect(struct gyre_engine *engine, struct remote_connect *r)
{
    struct gyre_loop *l = reserve(engine);
    if (l == NULL)
        return GYRE_ECONNS;
    int err = gyre__loop_post_task(l, &r->task);
    if (err != 0)
        gyre__loop_unreserve(l);
    return err;
}

int gyre_engine_connect_sized(struct gyre_engine *engine, const char *address,
                              const struct gyre_conn_handlers *handlers, gyre_connected_fn *done, void *user,
                              const struct gyre_conn_options *options, size_t size_bytes)
{
    struct gyre__profile *profile;
    struct gyre__route route;
    if (engine == NULL || address == NULL)
        return -EINVAL;
    if (gyre__loop_is_forked(gyre_engine_loop(engine, 0)))
        return GYRE_EFORK;
    const struct gyre_mem *mem = gyre_engine_loop(engine, 0)->mem;
    int err = gyre__profile_new(&profile, mem, handlers, options, size_bytes);
    if (err != 0)
        return err;
    err = gyre__route_find(&route, address, &profile->options);
    struct remote_connect *r = err == 0 ? gyre__alloc(mem, sizeof *r) : NULL;
    if (r == NULL) {
        gyre__free(mem, profile);
        return err != 0 ? err : -ENOMEM;
    }
    *r = (struct remote_connect){.profile = profile, .route = route, .done = done, .user = user};
    r->task = (struct gyre__task){.run = run_connect, .user = r, .embedded = true};
    err = post_connect(engine, r);
    if (err != 0) {
        gyre__free(mem, profile);
        gyre__free(mem, r);
    }
    return err;
}
