/* SPDX-License-Identifier: MIT
 * Options that a socket gets before it is bound or connected, and those that an accepted socket does not inherit. Those
 * of an open connection are in stream/info.c. */
#include "prepare.h"
#include "base/refuse.h"

#include <errno.h>

enum { KEEPALIVE_S_MAX = 32767, KEEPALIVE_COUNT_MAX = 127, KEEPALIVE_COUNT_DEFAULT = 5 };

static const int64_t second_ns = INT64_C(1000000000);
static const int64_t millisecond_ns = INT64_C(1000000);

static int64_t round_up(int64_t ns, int64_t unit_ns)
{
    return ns / unit_ns + (ns % unit_ns != 0);
}

/* ---- before there is a connection ---- */

int gyre__keepalive_check(const struct gyre_keepalive *k)
{
    const int64_t max_ns = KEEPALIVE_S_MAX * second_ns;
    const struct gyre__range ranges[] = {
        {"keepalive.idle_ns", k->idle_ns, 0, max_ns},
        {"keepalive.interval_ns", k->interval_ns, 0, max_ns},
        {"keepalive.count", k->count, 0, KEEPALIVE_COUNT_MAX},
    };
    return gyre__check_ranges(ranges, sizeof ranges / sizeof ranges[0]);
}

int gyre__options_check(const struct gyre_conn_options *o)
{
    const struct gyre__range ranges[] = {
        {"user_timeout_ns", o->user_timeout_ns, 0, INT32_MAX * millisecond_ns},
        {"notsent_lowat_bytes", o->notsent_lowat_bytes, 0, INT32_MAX},
        {"recv_buffer_bytes", o->recv_buffer_bytes, 0, INT32_MAX},
        {"send_buffer_bytes", o->send_buffer_bytes, 0, INT32_MAX},
        {"max_segment_bytes", o->max_segment_bytes, 0, INT32_MAX},
    };
    int err = gyre__check_ranges(ranges, sizeof ranges / sizeof ranges[0]);
    return err != 0 ? err : gyre__keepalive_check(&o->keepalive);
}

static int set(struct gyre__backend *be, int fd, enum gyre_sockopt option, int64_t value)
{
    return be->ops->sock->options->set(be, fd, option, value);
}

int gyre__keepalive_apply(struct gyre__backend *be, int fd, const struct gyre_keepalive *k)
{
    int64_t idle_s = round_up(k->idle_ns, second_ns);
    int64_t interval_s = k->interval_ns > 0 ? round_up(k->interval_ns, second_ns) : idle_s / 5;
    int err = set(be, fd, GYRE_SOCKOPT_KEEPALIVE, idle_s > 0);
    if (err != 0 || idle_s == 0)
        return err;
    err = set(be, fd, GYRE_SOCKOPT_KEEPALIVE_IDLE_S, idle_s);
    if (err == 0)
        err = set(be, fd, GYRE_SOCKOPT_KEEPALIVE_INTERVAL_S, interval_s > 0 ? interval_s : 1);
    if (err == 0)
        err = set(be, fd, GYRE_SOCKOPT_KEEPALIVE_COUNT, k->count > 0 ? k->count : KEEPALIVE_COUNT_DEFAULT);
    return err;
}

int gyre__options_apply(struct gyre__backend *be, int fd, const struct gyre_conn_options *o, bool inet)
{
    const struct {
        enum gyre_sockopt option;
        int64_t value; /* 0: not asked for */
        bool inet;
    } wishes[] = {
        {GYRE_SOCKOPT_RECV_BUFFER_BYTES, o->recv_buffer_bytes, false},
        {GYRE_SOCKOPT_SEND_BUFFER_BYTES, o->send_buffer_bytes, false},
        {GYRE_SOCKOPT_MARK, o->mark, true},
        {GYRE_SOCKOPT_TRAFFIC_CLASS, o->traffic_class, true},
        {GYRE_SOCKOPT_NOTSENT_LOWAT_BYTES, o->notsent_lowat_bytes, true},
        {GYRE_SOCKOPT_USER_TIMEOUT_MS, round_up(o->user_timeout_ns, millisecond_ns), true},
        {GYRE_SOCKOPT_MAX_SEGMENT_BYTES, o->max_segment_bytes, true},
        {GYRE_SOCKOPT_TRANSPARENT, o->transparent, true},
        {GYRE_SOCKOPT_FREEBIND, o->freebind, true},
    };
    int err = inet && !o->nagle ? be->ops->sock->set_nodelay(be, fd) : 0;
    for (size_t i = 0; err == 0 && i < sizeof wishes / sizeof wishes[0]; i++)
        if (wishes[i].value != 0 && (inet || !wishes[i].inet))
            err = set(be, fd, wishes[i].option, wishes[i].value);
    if (err == 0 && inet && o->keepalive.idle_ns > 0)
        err = gyre__keepalive_apply(be, fd, &o->keepalive);
    return err;
}

void gyre__options_apply_accepted(struct gyre__backend *be, int fd, const struct gyre_conn_options *o, bool inet)
{
    if (!inet && (o->recv_buffer_bytes != 0 || o->send_buffer_bytes != 0))
        (void)gyre__options_apply(be, fd, o, false);
}

int gyre__options_ask(const struct gyre_conn_options *o, int fd, enum gyre_socket_purpose purpose)
{
    if (o->on_socket == NULL)
        return 0;
    int err = o->on_socket(fd, purpose, o->user);
    return err <= 0 ? err : -EINVAL;
}
