/* SPDX-License-Identifier: MIT
 * <gyre/conn.h> as programs were compiled with it when the interface got its shape, without the comments. */
#ifndef GYRE_CONN_H
#define GYRE_CONN_H
#include <gyre/base.h>
#include <gyre/buf.h>
#include <gyre/loop.h>
#include <gyre/sockopt.h>
#include <sys/socket.h>
#include <sys/uio.h>
#ifdef __cplusplus
extern "C" {
#endif
struct gyre_conn;
struct gyre_framer;
struct gyre_listener;
enum gyre_close_reason {
    GYRE_CLOSE_NONE = 0,
    GYRE_CLOSE_USER,
    GYRE_CLOSE_EOF,
    GYRE_CLOSE_ABORT,
    GYRE_CLOSE_ERROR,
    GYRE_CLOSE_CONNECT,
    GYRE_CLOSE_TIMEOUT,
    GYRE_CLOSE_SHUTDOWN
};
enum gyre_timeout_kind {
    GYRE_TIMEOUT_NONE = 0,
    GYRE_TIMEOUT_IDLE,
    GYRE_TIMEOUT_READ,
    GYRE_TIMEOUT_WRITE,
    GYRE_TIMEOUT_LIFETIME,
    GYRE_TIMEOUT_LINGER,
    GYRE_TIMEOUT_CONNECT
};
struct gyre_conn_handlers {
    void (*on_open)(struct gyre_conn *c);
    void (*on_data)(struct gyre_conn *c);
    void (*on_drain)(struct gyre_conn *c);
    void (*on_eof)(struct gyre_conn *c);
    void (*on_timeout)(struct gyre_conn *c);
    void (*on_close)(struct gyre_conn *c, int err);
    void (*on_frame)(struct gyre_conn *c, struct gyre_slice frame);
    void (*on_bad_frame)(struct gyre_conn *c, int err);
};
struct gyre_conn_options {
    uint32_t read_max_bytes;
    uint32_t write_high_bytes;
    uint32_t write_low_bytes;
    uint32_t write_max_bytes;
    int64_t idle_timeout_ns;
    int64_t linger_timeout_ns;
    int64_t connect_timeout_ns;
    bool nagle;
    bool start_paused;
    void *user;
    uint32_t turn_max_bytes;
    const struct gyre_framer *framer;
    struct gyre_keepalive keepalive;
    int64_t user_timeout_ns;
    uint32_t recv_buffer_bytes;
    uint32_t send_buffer_bytes;
    uint32_t notsent_lowat_bytes;
    uint32_t max_segment_bytes;
    uint32_t mark;
    uint8_t traffic_class;
    bool transparent;
    bool freebind;
    int64_t read_timeout_ns;
    int64_t write_timeout_ns;
    int64_t lifetime_ns;
    const char *source_address;
    uint16_t source_port_first;
    uint16_t source_port_last;
    const char *device;
    gyre_socket_fn *on_socket;
};
typedef void gyre_detached_fn(struct gyre_conn *c, int fd, void *user);
GYRE_API int gyre_conn_detach(struct gyre_conn *c, gyre_detached_fn *done, void *user);
GYRE_API int gyre_conn_dup_fd(const struct gyre_conn *c);
GYRE_API size_t gyre_conn_inbound(const struct gyre_conn *c);
GYRE_API int gyre_conn_peek(struct gyre_slice *out, struct gyre_conn *c, size_t len);
GYRE_API int gyre_conn_peekv(struct iovec *iov, int iov_count, struct gyre_conn *c);
GYRE_API int gyre_conn_next(struct gyre_slice *out, struct gyre_conn *c, size_t len);
GYRE_API size_t gyre_conn_discard(struct gyre_conn *c, size_t len);
GYRE_API size_t gyre_conn_read(void *dst, size_t len, struct gyre_conn *c);
GYRE_API size_t gyre_conn_copy(void *dst, size_t len, struct gyre_conn *c, size_t from);
GYRE_API int64_t gyre_conn_find(struct gyre_conn *c, const void *needle, size_t needle_len, size_t from);
GYRE_API int gyre_conn_write(struct gyre_conn *c, const void *data, size_t len);
GYRE_API int gyre_conn_writev(struct gyre_conn *c, const struct iovec *iov, int iov_count);
GYRE_API int gyre_conn_write_ref(struct gyre_conn *c, const void *data, size_t len, gyre_sent_fn *done, void *user);
GYRE_API int64_t gyre_conn_try_write(struct gyre_conn *c, const void *data, size_t len);
GYRE_API int gyre_conn_sendfile(struct gyre_conn *c, int fd, uint64_t offset, uint64_t len, gyre_sent_fn *done,
                                void *user);
GYRE_API int64_t gyre_conn_forward(struct gyre_conn *src, struct gyre_conn *dst, size_t max_bytes);
GYRE_API size_t gyre_conn_outbound(const struct gyre_conn *c);
GYRE_API bool gyre_conn_congested(const struct gyre_conn *c);
GYRE_API void gyre_conn_cork(struct gyre_conn *c);
GYRE_API void gyre_conn_uncork(struct gyre_conn *c);
GYRE_API int gyre_conn_pause(struct gyre_conn *c);
GYRE_API int gyre_conn_resume(struct gyre_conn *c);
GYRE_API int gyre_conn_wake(struct gyre_conn *c);
GYRE_API int gyre_conn_shutdown(struct gyre_conn *c);
GYRE_API int gyre_conn_close(struct gyre_conn *c);
GYRE_API int gyre_conn_abort(struct gyre_conn *c);
GYRE_API enum gyre_close_reason gyre_conn_close_reason(const struct gyre_conn *c);
GYRE_API uint64_t gyre_conn_unsent(const struct gyre_conn *c);
GYRE_API int gyre_conn_set_idle_timeout(struct gyre_conn *c, int64_t timeout_ns);
GYRE_API int gyre_conn_set_read_timeout(struct gyre_conn *c, int64_t timeout_ns);
GYRE_API int gyre_conn_set_write_timeout(struct gyre_conn *c, int64_t timeout_ns);
GYRE_API int gyre_conn_set_lifetime(struct gyre_conn *c, int64_t lifetime_ns);
GYRE_API enum gyre_timeout_kind gyre_conn_timeout_kind(const struct gyre_conn *c);
GYRE_API struct gyre_loop *gyre_conn_loop(const struct gyre_conn *c);
GYRE_API struct gyre_listener *gyre_conn_listener(const struct gyre_conn *c);
GYRE_API void *gyre_conn_user(const struct gyre_conn *c);
GYRE_API void gyre_conn_set_user(struct gyre_conn *c, void *user);
GYRE_API int gyre_conn_fd(const struct gyre_conn *c);
GYRE_API int gyre_conn_local_address(struct sockaddr_storage *out, socklen_t *out_len, const struct gyre_conn *c);
GYRE_API int gyre_conn_peer_address(struct sockaddr_storage *out, socklen_t *out_len, const struct gyre_conn *c);
GYRE_API int gyre_conn_original_address(struct sockaddr_storage *out, socklen_t *out_len, const struct gyre_conn *c);
struct gyre_conn_id {
    struct gyre_loop *loop;
    uint32_t slot;
    uint32_t generation;
};
GYRE_API struct gyre_conn_id gyre_conn_id_of(const struct gyre_conn *c);
GYRE_API struct gyre_conn *gyre_conn_from_id(struct gyre_conn_id id);
GYRE_API int gyre_conn_id_write(struct gyre_conn_id id, const void *data, size_t len, gyre_sent_fn *done, void *user);
GYRE_API int gyre_conn_id_writev(struct gyre_conn_id id, const struct iovec *iov, int iov_count, gyre_sent_fn *done,
                                 void *user);
GYRE_API int gyre_conn_id_write_ref(struct gyre_conn_id id, const void *data, size_t len, gyre_sent_fn *done,
                                    void *user);
GYRE_API int gyre_conn_id_wake(struct gyre_conn_id id);
GYRE_API int gyre_conn_id_close(struct gyre_conn_id id);
GYRE_API int gyre_conn_id_abort(struct gyre_conn_id id);
typedef void gyre_closed_fn(int err, void *user);
GYRE_API int gyre_conn_id_close_then(struct gyre_conn_id id, gyre_closed_fn *done, void *user);
typedef bool gyre_each_fn(struct gyre_conn *c, void *user);
GYRE_API int64_t gyre_loop_each_conn(struct gyre_loop *loop, gyre_each_fn *fn, void *user);
GYRE_API int gyre_conn_share(struct gyre_conn *c, void *shared);
GYRE_API void *gyre_conn_shared(const struct gyre_conn *c);
GYRE_API int gyre_conn_id_shared(void **out, struct gyre_conn_id id);
GYRE_API int gyre_conn_id_set_shared(void **old, struct gyre_conn_id id, void *shared);
GYRE_API int64_t gyre_conn_id_outbound(struct gyre_conn_id id);
#ifdef __cplusplus
}
#endif
#endif
