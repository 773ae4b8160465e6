/* SPDX-License-Identifier: MIT
 * Outgoing connections, and the settings that connections share.
 *
 * The normal course: a socket, a connection in state CONNECTING around it, a CONNECT op (in the place of the send op),
 * and on success the same way on as an accepted one. What can go wrong before the op is submitted is returned at once
 * and leaves nothing behind; what goes wrong after it is told by on_close alone. */
#include "addr.h"
#include "conn.h"
#include "option.h"
#include "frame.h"
#include "listener.h"

#include <errno.h>
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

static int open_socket(struct gyre_loop *l, const struct gyre__profile *profile, const struct gyre_addr *addr)
{
    const struct gyre_sock_ops *sock = l->be->ops->sock;
    bool inet = !gyre__addr_is_unix(addr);
    int fd = sock->open(l->be, addr->ss.ss_family);
    if (fd < 0)
        return fd;
    int err = inet && !profile->options.delay ? sock->set_nodelay(l->be, fd) : 0;
    if (err == 0)
        err = gyre__options_apply(l, fd, &profile->options, inet);
    if (err == 0)
        return fd;
    sock->close(l->be, fd);
    return err;
}

/* Takes one reference of `profile` on success. */
static int connect_with(struct gyre_conn **out, struct gyre_loop *l, const struct gyre_addr *addr,
                        struct gyre__profile *profile)
{
    struct gyre_conn *c;
    int fd = open_socket(l, profile, addr);
    if (fd < 0)
        return fd;
    int err = gyre__conn_new(&c, l, fd, profile, gyre__addr_is_unix(addr) ? 0 : GYRE_FDF_INET);
    if (err != 0)
        return err;
    profile->refs++;
    err = start_connect(c, addr);
    if (err != 0) {
        gyre__conn_discard(c);
        return err;
    }
    *out = c;
    return 0;
}

int gyre_connect_sized(struct gyre_conn **out, struct gyre_loop *l, const char *address,
                       const struct gyre_conn_handlers *handlers, const struct gyre_conn_options *options,
                       size_t size_bytes)
{
    struct gyre__address parsed;
    struct gyre_conn_options copy;
    struct gyre_conn *c;
    if (l == NULL || address == NULL)
        return -EINVAL;
    if (gyre__loop_is_forked(l))
        return GYRE_EFORK;
    if (!gyre__loop_allows(l))
        return GYRE_ETHREAD;
    if (l->phase != GYRE_PHASE_SERVING)
        return GYRE_ESHUTDOWN;
    int err = gyre__addr_parse(&parsed, address);
    if (err == 0)
        err = gyre__options_copy(&copy, sizeof copy, options, size_bytes);
    if (err != 0)
        return err;
    struct gyre__profile *profile = gyre__alloc(l->mem, sizeof *profile);
    if (profile == NULL)
        return -ENOMEM;
    err = gyre__profile_init(profile, &copy, handlers);
    if (err == 0)
        err = connect_with(&c, l, &parsed.addr, profile);
    if (err != 0) {
        gyre__free(l->mem, profile);
        return err;
    }
    if (out != NULL)
        *out = c;
    return 0;
}
