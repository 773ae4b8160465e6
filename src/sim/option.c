/* SPDX-License-Identifier: MIT
 * Options of simulated sockets: integers, kept and given back, which change nothing in how the network behaves. What is
 * measured (TCP_INFO), named or known of the peer's process does not exist here. */
#include "world.h"

#include <errno.h>

static bool is_of_tcp(enum gyre_sockopt option)
{
    return option != GYRE_SOCKOPT_LINGER_S && option != GYRE_SOCKOPT_RECV_BUFFER_BYTES &&
           option != GYRE_SOCKOPT_SEND_BUFFER_BYTES && option != GYRE_SOCKOPT_PRIORITY && option != GYRE_SOCKOPT_MARK &&
           option != GYRE_SOCKOPT_COOKIE;
}

static int find_for(struct gyre__backend *be, int fd, enum gyre_sockopt option, struct sim_sock **out)
{
    *out = gyre__sim_fd_find(((struct sim_backend *)be)->sim, fd);
    if (*out == NULL)
        return -EBADF;
    return (*out)->family != AF_UNIX || !is_of_tcp(option) ? 0 : -EOPNOTSUPP;
}

static int sockopt_set(struct gyre__backend *be, int fd, enum gyre_sockopt option, int64_t value)
{
    struct sim_sock *s;
    int err = find_for(be, fd, option, &s);
    if (err != 0)
        return err;
    if (option == GYRE_SOCKOPT_COOKIE)
        return -EOPNOTSUPP;
    if (option == GYRE_SOCKOPT_LINGER_S)
        s->reset_on_close = value == 0;
    s->options[option] = value;
    return 0;
}

static int sockopt_get(struct gyre__backend *be, int fd, enum gyre_sockopt option, int64_t *out)
{
    struct sim_sock *s;
    int err = find_for(be, fd, option, &s);
    if (err != 0)
        return err;
    *out = option == GYRE_SOCKOPT_COOKIE     ? (int64_t)s->id
           : option == GYRE_SOCKOPT_LINGER_S ? (s->reset_on_close ? 0 : -1)
                                             : s->options[option];
    return 0;
}

static int set_congestion(struct gyre__backend *be, int fd, const char *name)
{
    (void)be;
    (void)fd;
    (void)name;
    return -EOPNOTSUPP;
}

static int congestion(struct gyre__backend *be, int fd, char *out, size_t size)
{
    (void)be;
    (void)fd;
    (void)out;
    (void)size;
    return -EOPNOTSUPP;
}

static int tcp_info(struct gyre__backend *be, int fd, struct gyre_tcp_info *out)
{
    (void)be;
    (void)fd;
    (void)out;
    return -EOPNOTSUPP;
}

static int credentials(struct gyre__backend *be, int fd, struct gyre_credentials *out)
{
    (void)be;
    (void)fd;
    (void)out;
    return -EOPNOTSUPP;
}

static int original(struct gyre__backend *be, int fd, struct gyre__addr *out)
{
    (void)be;
    (void)fd;
    (void)out;
    return -EOPNOTSUPP;
}

const struct gyre__sockopt_ops gyre__sockopt_sim = {
    .set = sockopt_set,
    .get = sockopt_get,
    .set_congestion = set_congestion,
    .congestion = congestion,
    .tcp_info = tcp_info,
    .credentials = credentials,
    .original = original,
};
