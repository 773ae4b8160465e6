/* SPDX-License-Identifier: MIT
 * <gyre/udp.h> as programs were compiled with it when the interface got its shape, without the comments. */
#ifndef GYRE_UDP_H
#define GYRE_UDP_H
#include <gyre/base.h>
#include <gyre/buf.h>
#include <gyre/loop.h>
#include <sys/socket.h>
#ifdef __cplusplus
extern "C" {
#endif
struct gyre_udp;
struct gyre_datagram {
    struct gyre_slice data;
    const struct sockaddr *peer;
    socklen_t peer_len;
    const struct sockaddr *local;
    socklen_t local_len;
    uint32_t interface;
    uint32_t segment_bytes;
    uint8_t traffic_class;
    bool truncated;
};
struct gyre_udp_handlers {
    void (*on_datagram)(struct gyre_udp *u, const struct gyre_datagram *d);
    void (*on_drain)(struct gyre_udp *u);
    void (*on_error)(struct gyre_udp *u, int err);
    void (*on_close)(struct gyre_udp *u, int err);
};
enum gyre_udp_gro {
    GYRE_UDP_GRO_OFF = 0,
    GYRE_UDP_GRO_SPLIT,
    GYRE_UDP_GRO_WHOLE
};
struct gyre_udp_options {
    uint32_t send_queue_max_bytes;
    uint32_t send_queue_max_count;
    uint32_t recv_buffer_bytes;
    uint32_t send_buffer_bytes;
    int64_t linger_timeout_ns;
    const char *device;
    const char *source_address;
    uint32_t multicast_interface;
    uint32_t unix_mode;
    uint8_t ttl;
    uint8_t multicast_ttl;
    uint8_t traffic_class;
    bool no_multicast_loop;
    bool share_port;
    bool reuse_address;
    bool broadcast;
    bool pktinfo;
    bool ecn;
    bool start_paused;
    enum gyre_udp_gro gro;
    void *user;
    bool no_runs;
};
#define gyre_udp_open(out, loop, address, handlers, ...)                                                               \
    gyre_udp_open_sized((out), (loop), (address), (handlers),                                                          \
                        GYRE_LAST_ARGUMENT_IS_OPTIONS_OR_NULL(struct gyre_udp_options, __VA_ARGS__))
GYRE_API int gyre_udp_open_sized(struct gyre_udp **out, struct gyre_loop *loop, const char *address,
                                 const struct gyre_udp_handlers *handlers, const struct gyre_udp_options *options,
                                 size_t size_bytes);
#define gyre_udp_connect(out, loop, address, handlers, ...)                                                            \
    gyre_udp_connect_sized((out), (loop), (address), (handlers),                                                       \
                           GYRE_LAST_ARGUMENT_IS_OPTIONS_OR_NULL(struct gyre_udp_options, __VA_ARGS__))
GYRE_API int gyre_udp_connect_sized(struct gyre_udp **out, struct gyre_loop *loop, const char *address,
                                    const struct gyre_udp_handlers *handlers, const struct gyre_udp_options *options,
                                    size_t size_bytes);
#define gyre_udp_adopt_fd(out, loop, fd, handlers, ...)                                                                \
    gyre_udp_adopt_fd_sized((out), (loop), (fd), (handlers),                                                           \
                            GYRE_LAST_ARGUMENT_IS_OPTIONS_OR_NULL(struct gyre_udp_options, __VA_ARGS__))
GYRE_API int gyre_udp_adopt_fd_sized(struct gyre_udp **out, struct gyre_loop *loop, int fd,
                                     const struct gyre_udp_handlers *handlers, const struct gyre_udp_options *options,
                                     size_t size_bytes);
struct gyre_udp_id {
    struct gyre_loop *loop;
    uint32_t slot;
    uint32_t generation;
};
GYRE_API int gyre_udp_reply(struct gyre_udp *u, const struct gyre_datagram *d, const void *data, size_t len);
GYRE_API int gyre_udp_send(struct gyre_udp *u, const void *data, size_t len);
GYRE_API int gyre_udp_send_to(struct gyre_udp *u, const struct sockaddr *to, socklen_t to_len, const void *data,
                              size_t len);
GYRE_API int gyre_udp_send_segments(struct gyre_udp *u, const struct sockaddr *to, socklen_t to_len, const void *data,
                                    size_t len, size_t segment_bytes);
GYRE_API size_t gyre_udp_outbound(const struct gyre_udp *u);
GYRE_API int gyre_udp_parse(struct sockaddr_storage *out, socklen_t *out_len, const char *address);
GYRE_API int gyre_udp_hold(struct gyre_buf **out, struct gyre_slice *view, struct gyre_udp *u,
                           const struct gyre_datagram *d);
GYRE_API int gyre_udp_pause(struct gyre_udp *u);
GYRE_API int gyre_udp_resume(struct gyre_udp *u);
GYRE_API int gyre_udp_join(struct gyre_udp *u, const struct sockaddr *group, socklen_t group_len, uint32_t interface);
GYRE_API int gyre_udp_leave(struct gyre_udp *u, const struct sockaddr *group, socklen_t group_len, uint32_t interface);
GYRE_API int gyre_udp_close(struct gyre_udp *u);
GYRE_API int gyre_udp_abort(struct gyre_udp *u);
#define GYRE_UDP_STATS(X)                                                                                              \
    X(received, "datagrams received, those cut included")                                                              \
    X(received_bytes, "bytes in them")                                                                                 \
    X(truncated, "datagrams that were cut")                                                                            \
    X(dropped, "datagrams received and thrown away: while closing, or for want of memory while paused")                \
    X(kernel_dropped, "datagrams that the kernel threw away because nobody fetched them in time, if it says")          \
    X(sent, "datagrams that the kernel took")                                                                          \
    X(sent_bytes, "bytes in them")                                                                                     \
    X(send_refused, "sends refused because the queue was full")                                                        \
    X(send_errors, "datagrams that could not be sent")                                                                 \
    X(send_dropped, "datagrams queued and dropped when the socket closed")                                             \
    X(errors, "errors told by the network")
struct gyre_udp_counts {
#define GYRE_UDP_STATS_FIELD(name, text) uint64_t name;
    GYRE_UDP_STATS(GYRE_UDP_STATS_FIELD)
#undef GYRE_UDP_STATS_FIELD
};
GYRE_API void gyre_udp_stats(struct gyre_udp_counts *out, const struct gyre_udp *u);
GYRE_API struct gyre_loop *gyre_udp_loop(const struct gyre_udp *u);
GYRE_API void *gyre_udp_user(const struct gyre_udp *u);
GYRE_API void gyre_udp_set_user(struct gyre_udp *u, void *user);
GYRE_API int gyre_udp_fd(const struct gyre_udp *u);
GYRE_API const char *gyre_udp_address(const struct gyre_udp *u);
GYRE_API int gyre_udp_local_address(struct sockaddr_storage *out, socklen_t *out_len, const struct gyre_udp *u);
GYRE_API int gyre_udp_peer_address(struct sockaddr_storage *out, socklen_t *out_len, const struct gyre_udp *u);
GYRE_API struct gyre_udp_id gyre_udp_id_of(const struct gyre_udp *u);
GYRE_API struct gyre_udp *gyre_udp_from_id(struct gyre_udp_id id);
GYRE_API int gyre_udp_id_send(struct gyre_udp_id id, const struct sockaddr *to, socklen_t to_len, const void *data,
                              size_t len);
GYRE_API int gyre_udp_id_close(struct gyre_udp_id id);
#ifdef __cplusplus
}
#endif
#endif
