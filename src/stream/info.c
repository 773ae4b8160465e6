/* SPDX-License-Identifier: MIT
 * What a connection is: its loop, listener, descriptor, addresses, and the options of its socket. */
#include "conn.h"
#include "base/refuse.h"
#include "socket/addr.h"
#include "socket/prepare.h"

#include <errno.h>

struct gyre_loop *gyre_conn_loop(const struct gyre_conn *c)
{
    return c->loop;
}

struct gyre_listener *gyre_conn_listener(const struct gyre_conn *c)
{
    return c->profile->listener;
}

void *gyre_conn_user(const struct gyre_conn *c)
{
    return c->user;
}

void gyre_conn_set_user(struct gyre_conn *c, void *user)
{
    c->user = user;
}

int gyre_conn_fd(const struct gyre_conn *c)
{
    gyre__conn_touch(c);
    return c->f.fd;
}

static const int64_t second_ns = INT64_C(1000000000);

static int address(const struct gyre_conn *c, bool peer, struct sockaddr_storage *out, socklen_t *out_len)
{
    if (c == NULL)
        return GYRE_ECLOSED;
    if (!gyre__loop_allows(c->loop))
        return GYRE_ETHREAD;
    return c->f.fd >= 0 ? gyre__addr_of(c->loop->be, c->f.fd, peer, out, out_len) : -ENOTCONN;
}

int gyre_conn_local_address(struct sockaddr_storage *out, socklen_t *out_len, const struct gyre_conn *c)
{
    return address(c, false, out, out_len);
}

int gyre_conn_peer_address(struct sockaddr_storage *out, socklen_t *out_len, const struct gyre_conn *c)
{
    return address(c, true, out, out_len);
}

/* The options of its socket, if it has one still and this thread may ask. */
static int options_of(const struct gyre_conn *c, const struct gyre__sockopt_ops **out)
{
    if (c == NULL || c->magic != GYRE_CONN_MAGIC)
        return GYRE_ECLOSED;
    if (!gyre__loop_allows(c->loop))
        return GYRE_ETHREAD;
    *out = c->loop->be->ops->sock->options;
    return c->f.fd >= 0 ? 0 : -ENOTCONN;
}

static bool is_option(enum gyre_sockopt option)
{
    return (int)option > 0 && (int)option < GYRE_SOCKOPT_END;
}

int gyre_conn_set_sockopt(struct gyre_conn *c, enum gyre_sockopt option, int64_t value)
{
    const struct gyre__sockopt_ops *ops;
    int err = options_of(c, &ops);
    if (err != 0)
        return err;
    int64_t max = option == GYRE_SOCKOPT_MARK ? UINT32_MAX : INT32_MAX;
    if (!is_option(option) || value < INT32_MIN || value > max)
        return -EINVAL;
    if (option == GYRE_SOCKOPT_LINGER_S && value != 0 && value != -1)
        return gyre__refuse("GYRE_SOCKOPT_LINGER_S is %lld; it must be -1 or 0: others block the loop",
                            (long long)value);
    return ops->set(c->loop->be, c->f.fd, option, value);
}

int gyre_conn_sockopt(int64_t *out, const struct gyre_conn *c, enum gyre_sockopt option)
{
    const struct gyre__sockopt_ops *ops;
    int err = options_of(c, &ops);
    if (err != 0)
        return err;
    if (out == NULL || !is_option(option))
        return -EINVAL;
    return ops->get(c->loop->be, c->f.fd, option, out);
}

int gyre_conn_set_keepalive(struct gyre_conn *c, const struct gyre_keepalive *keepalive)
{
    const struct gyre__sockopt_ops *ops;
    int err = options_of(c, &ops);
    if (err == 0)
        err = keepalive == NULL ? -EINVAL : gyre__keepalive_check(keepalive);
    return err != 0 ? err : gyre__keepalive_apply(c->loop->be, c->f.fd, keepalive);
}

int gyre_conn_keepalive(struct gyre_keepalive *out, const struct gyre_conn *c)
{
    int64_t on = 0, idle_s = 0, interval_s = 0, count = 0;
    if (out == NULL)
        return -EINVAL;
    int err = gyre_conn_sockopt(&on, c, GYRE_SOCKOPT_KEEPALIVE);
    if (err == 0)
        err = gyre_conn_sockopt(&idle_s, c, GYRE_SOCKOPT_KEEPALIVE_IDLE_S);
    if (err == 0)
        err = gyre_conn_sockopt(&interval_s, c, GYRE_SOCKOPT_KEEPALIVE_INTERVAL_S);
    if (err == 0)
        err = gyre_conn_sockopt(&count, c, GYRE_SOCKOPT_KEEPALIVE_COUNT);
    if (err != 0)
        return err;
    *out = (struct gyre_keepalive){.idle_ns = on != 0 ? idle_s * second_ns : 0};
    out->interval_ns = interval_s * second_ns;
    out->count = (uint32_t)count;
    return 0;
}

int gyre_conn_set_congestion(struct gyre_conn *c, const char *name)
{
    const struct gyre__sockopt_ops *ops;
    int err = options_of(c, &ops);
    if (err != 0)
        return err;
    return name == NULL ? -EINVAL : ops->set_congestion(c->loop->be, c->f.fd, name);
}

int gyre_conn_congestion(char *out, size_t size, const struct gyre_conn *c)
{
    const struct gyre__sockopt_ops *ops;
    int err = options_of(c, &ops);
    if (err != 0)
        return err;
    return out == NULL ? -EINVAL : ops->congestion(c->loop->be, c->f.fd, out, size);
}

int gyre_conn_tcp_info(struct gyre_tcp_info *out, const struct gyre_conn *c)
{
    const struct gyre__sockopt_ops *ops;
    int err = options_of(c, &ops);
    if (err != 0)
        return err;
    return out == NULL ? -EINVAL : ops->tcp_info(c->loop->be, c->f.fd, out);
}

int gyre_conn_credentials(struct gyre_credentials *out, const struct gyre_conn *c)
{
    const struct gyre__sockopt_ops *ops;
    int err = options_of(c, &ops);
    if (err != 0)
        return err;
    return out == NULL ? -EINVAL : ops->credentials(c->loop->be, c->f.fd, out);
}

int gyre_conn_original_address(struct sockaddr_storage *out, socklen_t *out_len, const struct gyre_conn *c)
{
    const struct gyre__sockopt_ops *ops;
    struct gyre__addr addr;
    int err = options_of(c, &ops);
    if (err == 0)
        err = out == NULL || out_len == NULL ? -EINVAL : ops->original(c->loop->be, c->f.fd, &addr);
    if (err != 0)
        return err;
    *out = addr.ss;
    *out_len = addr.len;
    return 0;
}
