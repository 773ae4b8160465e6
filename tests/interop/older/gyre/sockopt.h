/* SPDX-License-Identifier: MIT
 * <gyre/sockopt.h> as programs were compiled with it when the interface got its shape, without the comments. */
#ifndef GYRE_SOCKOPT_H
#define GYRE_SOCKOPT_H
#include <gyre/base.h>
#include <sys/types.h>
#ifdef __cplusplus
extern "C" {
#endif
struct gyre_conn;
enum gyre_sockopt {
    GYRE_SOCKOPT_NODELAY = 1,
    GYRE_SOCKOPT_QUICKACK,
    GYRE_SOCKOPT_CORK,
    GYRE_SOCKOPT_NOTSENT_LOWAT_BYTES,
    GYRE_SOCKOPT_USER_TIMEOUT_MS,
    GYRE_SOCKOPT_MAX_SEGMENT_BYTES,
    GYRE_SOCKOPT_KEEPALIVE,
    GYRE_SOCKOPT_KEEPALIVE_IDLE_S,
    GYRE_SOCKOPT_KEEPALIVE_INTERVAL_S,
    GYRE_SOCKOPT_KEEPALIVE_COUNT,
    GYRE_SOCKOPT_LINGER_S,
    GYRE_SOCKOPT_RECV_BUFFER_BYTES,
    GYRE_SOCKOPT_SEND_BUFFER_BYTES,
    GYRE_SOCKOPT_PRIORITY,
    GYRE_SOCKOPT_MARK,
    GYRE_SOCKOPT_TRAFFIC_CLASS,
    GYRE_SOCKOPT_TRANSPARENT,
    GYRE_SOCKOPT_FREEBIND,
    GYRE_SOCKOPT_BIND_NO_PORT,
    GYRE_SOCKOPT_INCOMING_CPU,
    GYRE_SOCKOPT_BUSY_POLL_US,
    GYRE_SOCKOPT_COOKIE,
    GYRE_SOCKOPT_PREFER_BUSY_POLL,
    GYRE_SOCKOPT_END
};
GYRE_API int gyre_conn_set_sockopt(struct gyre_conn *c, enum gyre_sockopt option, int64_t value);
GYRE_API int gyre_conn_sockopt(int64_t *out, const struct gyre_conn *c, enum gyre_sockopt option);
struct gyre_keepalive {
    int64_t idle_ns;
    int64_t interval_ns;
    uint32_t count;
};
GYRE_API int gyre_conn_set_keepalive(struct gyre_conn *c, const struct gyre_keepalive *keepalive);
GYRE_API int gyre_conn_keepalive(struct gyre_keepalive *out, const struct gyre_conn *c);
GYRE_API int gyre_conn_set_congestion(struct gyre_conn *c, const char *name);
GYRE_API int gyre_conn_congestion(char *out, size_t size, const struct gyre_conn *c);
struct gyre_tcp_info {
    uint32_t rtt_us;
    uint32_t rtt_var_us;
    uint32_t rto_us;
    uint32_t segment_bytes;
    uint32_t cwnd;
    uint32_t ssthresh;
    uint32_t unacked;
    uint32_t lost;
    uint32_t retransmits;
    uint32_t total_retransmits;
    uint32_t last_recv_ms;
};
GYRE_API int gyre_conn_tcp_info(struct gyre_tcp_info *out, const struct gyre_conn *c);
struct gyre_credentials {
    pid_t pid;
    uid_t uid;
    gid_t gid;
};
GYRE_API int gyre_conn_credentials(struct gyre_credentials *out, const struct gyre_conn *c);
enum gyre_socket_purpose {
    GYRE_SOCKET_LISTEN = 1,
    GYRE_SOCKET_CONNECT,
    GYRE_SOCKET_ACCEPT
};
typedef int gyre_socket_fn(int fd, enum gyre_socket_purpose purpose, void *user);
#ifdef __cplusplus
}
#endif
#endif
