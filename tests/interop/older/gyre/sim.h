/* SPDX-License-Identifier: MIT
 * <gyre/sim.h> as programs were compiled with it when the interface got its shape, without the comments. */
#ifndef GYRE_SIM_H
#define GYRE_SIM_H
#include <gyre/base.h>
#ifdef __cplusplus
extern "C" {
#endif
struct gyre_loop;
struct gyre_sim;
struct gyre_sim_listener;
struct gyre_sim_peer;
enum gyre_sim_profile {
    GYRE_SIM_CHAOS = 0,
    GYRE_SIM_QUIET
};
enum { GYRE_SIM_NEVER = UINT16_MAX };
#define GYRE_SIM_NO_DELAY UINT64_MAX
struct gyre_sim_options {
    uint64_t seed;
    enum gyre_sim_profile profile;
    const struct gyre_mem *mem;
    uint16_t recv_short_permille;
    uint16_t send_short_permille;
    uint16_t more_dropped_permille;
    uint16_t cancel_late_permille;
    uint16_t enobufs_permille;
    uint16_t shuffle_permille;
    uint16_t few_events_permille;
    uint16_t accept_emfile_permille;
    uint16_t accept_aborted_permille;
    uint16_t connect_timeout_permille;
    uint16_t connect_unreachable_permille;
    uint16_t reset_permille;
    uint16_t loss_permille;
    uint64_t delay_min_ns;
    uint64_t delay_max_ns;
    uint32_t send_buffer_bytes;
    uint32_t recv_buffer_bytes;
    uint32_t fds_max;
    uint16_t duplicate_permille;
};
#define gyre_sim_create(out, ...)                                                                                      \
    gyre_sim_create_sized((out), GYRE_LAST_ARGUMENT_IS_OPTIONS_OR_NULL(struct gyre_sim_options, __VA_ARGS__))
GYRE_API int gyre_sim_create_sized(struct gyre_sim **out, const struct gyre_sim_options *options, size_t size_bytes);
GYRE_API void gyre_sim_destroy(struct gyre_sim *sim);
GYRE_API uint64_t gyre_sim_seed(const struct gyre_sim *sim);
GYRE_API uint64_t gyre_sim_trace_hash(const struct gyre_sim *sim);
struct gyre_sim_counts {
    uint64_t events;
    uint64_t segments;
    uint64_t bytes;
    uint64_t recvs_short;
    uint64_t sends_short;
    uint64_t mores_dropped;
    uint64_t cancels_late;
    uint64_t enobufs;
    uint64_t connects_failed;
    uint64_t accepts_failed;
    uint64_t resets;
    uint64_t losses;
    uint64_t idle_waits;
    uint64_t datagrams;
    uint64_t datagrams_lost;
    uint64_t datagrams_repeated;
};
GYRE_API void gyre_sim_stats(struct gyre_sim_counts *out, const struct gyre_sim *sim);
GYRE_API uint64_t gyre_sim_now_ns(const struct gyre_sim *sim);
GYRE_API void gyre_sim_advance(struct gyre_sim *sim, uint64_t ns);
GYRE_API bool gyre_sim_step(struct gyre_sim *sim);
GYRE_API bool gyre_sim_idle(const struct gyre_sim *sim);
typedef bool gyre_sim_until_fn(void *user);
GYRE_API int gyre_sim_run(struct gyre_sim *sim, struct gyre_loop *const *loops, size_t count, uint64_t rounds_max,
                          gyre_sim_until_fn *until, void *user);
enum gyre_sim_peer_phase {
    GYRE_SIM_PEER_CONNECTING = 0,
    GYRE_SIM_PEER_OPEN,
    GYRE_SIM_PEER_EOF,
    GYRE_SIM_PEER_FAILED
};
GYRE_API int gyre_sim_connect(struct gyre_sim_peer **out, struct gyre_sim *sim, const char *address);
GYRE_API int gyre_sim_listen_peer(struct gyre_sim_listener **out, struct gyre_sim *sim, const char *address);
GYRE_API const char *gyre_sim_listener_address(const struct gyre_sim_listener *listener);
GYRE_API int gyre_sim_listener_accept(struct gyre_sim_peer **out, struct gyre_sim_listener *listener);
GYRE_API void gyre_sim_listener_close(struct gyre_sim_listener *listener);
GYRE_API int64_t gyre_sim_peer_send(struct gyre_sim_peer *peer, const void *data, size_t len);
GYRE_API int64_t gyre_sim_peer_recv(void *buf, size_t len, struct gyre_sim_peer *peer);
GYRE_API size_t gyre_sim_peer_inbound(const struct gyre_sim_peer *peer);
GYRE_API size_t gyre_sim_peer_unacked(const struct gyre_sim_peer *peer);
GYRE_API int gyre_sim_peer_shutdown(struct gyre_sim_peer *peer);
GYRE_API enum gyre_sim_peer_phase gyre_sim_peer_state(const struct gyre_sim_peer *peer);
GYRE_API bool gyre_sim_peer_eof(const struct gyre_sim_peer *peer);
GYRE_API int gyre_sim_peer_error(const struct gyre_sim_peer *peer);
GYRE_API void gyre_sim_peer_close(struct gyre_sim_peer *peer);
GYRE_API void gyre_sim_peer_reset(struct gyre_sim_peer *peer);
#ifdef __cplusplus
}
#endif
#endif
