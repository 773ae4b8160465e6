/* SPDX-License-Identifier: MIT
 * Names to addresses, without blocking a loop.
 *
 * gyre_connect() and the other calls that connect take names by themselves ("tcp://example.org:80"). This header is for
 * looking a name up without connecting, and for the limits of the lookups.
 *
 * A resolver calls getaddrinfo(3) on threads of its own. So /etc/hosts, /etc/nsswitch.conf and /etc/resolv.conf are
 * obeyed, and the addresses come in the order of RFC 6724. Requests for a name that is being looked up share that
 * lookup. Answers are kept in a cache. getaddrinfo(3) does not say how long an answer is valid, so the cache keeps an
 * answer for a fixed time, `ttl_ns`. The answer that a name does not exist is kept for `negative_ttl_ns`. Other
 * failures are not kept.
 *
 * A loop has the resolver of its options. The loops of an engine without one share a resolver that the first name
 * creates, and so does a loop of its own. On the simulator no thread runs and no name server is asked: names are those
 * that gyre_sim_set_name() sets, and the cache goes by the simulator's clock.
 *
 * Errors of a lookup:
 *   GYRE_ENONAME      the name does not exist, or has no address of the family
 *   GYRE_ENAMESERVER  no name server answered, or it failed; a later lookup may succeed
 *   GYRE_ETIMEOUT     the time limit of the request passed
 *   -ENOMEM           out of memory
 *   -errno            another failure of getaddrinfo(3) */
#ifndef GYRE_RESOLVE_H
#define GYRE_RESOLVE_H

#include <gyre/base.h>
#include <gyre/loop.h>
#include <sys/socket.h>

#ifdef __cplusplus
extern "C" {
#endif

struct gyre_lookup;
struct gyre_resolver;

struct gyre_resolver_options {
    uint32_t threads;        /* number of lookups that run at once; a thread is started when needed; 0: 4; at most 64 */
    uint32_t lookups_max;    /* limit on names that are looked up or wait for a thread; 0: 1024; at most 1048576 */
    uint32_t requests_max;   /* limit on requests that wait for an answer; 0: 65536; at most 1048576 */
    uint32_t cache_max;      /* limit on names in the cache; the least recently used goes first; 0: 1024; at most
                                1048576 */
    uint32_t addresses_max;  /* limit on addresses of a name; more are ignored; 0: 64; at most 1024 */
    int64_t ttl_ns;          /* how long the addresses of a name are kept; 0: 30 s; negative: not at all */
    int64_t negative_ttl_ns; /* how long GYRE_ENONAME is kept; 0: 5 s; negative: not at all */
    const struct gyre_mem *mem; /* borrowed until the resolver is destroyed; NULL: malloc. Questions and answers, which
                                   threads hold, always come from malloc */
};

/* Create a resolver for gyre_loop_options.resolver. Several loops may share it. Returns owned in `*out`; free it with
 * gyre_resolver_destroy().
 *
 * Returns 0, or:
 *   -EINVAL       `out` is NULL
 *   GYRE_EOPTION  an option is out of range
 *   -E2BIG        an option is set that this library does not know
 *   -ENOMEM       out of memory
 * Thread: any. */
#define gyre_resolver_create(out, ...)                                                                                 \
    gyre_resolver_create_sized((out), GYRE_LAST_ARGUMENT_IS_OPTIONS_OR_NULL(struct gyre_resolver_options, __VA_ARGS__))
GYRE_API int gyre_resolver_create_sized(struct gyre_resolver **out, const struct gyre_resolver_options *options,
                                        size_t size_bytes);

/* Destroy the resolver. Destroy its loops first. The call does not wait for a running getaddrinfo(3), which cannot be
 * interrupted: its thread ends by itself afterwards and touches no memory of `mem`. NULL is allowed.
 * Thread: any. */
GYRE_API void gyre_resolver_destroy(struct gyre_resolver *resolver);

/* Forget the answers in the cache. Requests that wait are not affected. Thread: any. */
GYRE_API void gyre_resolver_flush(struct gyre_resolver *resolver);

struct gyre_resolver_counts {
    uint64_t requests;   /* requests for names; addresses given as numbers are not counted */
    uint64_t hits;       /* requests that the cache answered */
    uint64_t joined;     /* requests that shared a lookup under way */
    uint64_t lookups;    /* lookups that ended */
    uint64_t failures;   /* of these, with an error */
    uint64_t refused;    /* requests that a limit refused */
    uint64_t evicted;    /* names that left the cache for want of room */
    uint32_t waiting;    /* requests that wait for an answer now */
    uint32_t under_way;  /* names that are looked up or wait for a thread now */
    uint32_t cached;     /* names in the cache now, expired ones included */
};

/* Copy the counters of the resolver to `*out`. Thread: any. */
#define gyre_resolver_stats(out, resolver)                                                                             \
    gyre_resolver_stats_sized((out), sizeof(struct gyre_resolver_counts), (resolver))
GYRE_API void gyre_resolver_stats_sized(struct gyre_resolver_counts *out, size_t size_bytes,
                                        struct gyre_resolver *resolver);

/* Get the resolver that the loop uses; if it has none yet, create it. Returned borrowed, valid as long as the loop, or
 * as long as its engine.
 *
 * Returns 0, or:
 *   -EINVAL      `out` or `loop` is NULL
 *   -ENOMEM      out of memory
 *   GYRE_EFORK   the loop belongs to the parent process
 *   GYRE_ETHREAD the calling thread is not the loop's
 * Thread: the loop's. */
GYRE_API int gyre_loop_resolver(struct gyre_resolver **out, struct gyre_loop *loop);

struct gyre_resolve_options {
    int family;         /* AF_INET, AF_INET6 or 0: both */
    bool fresh;         /* do not answer from the cache; the new answer is kept as usual */
    int64_t timeout_ns; /* limit on the time until the answer; 0: 30 s; 25 days or more: none */
};

/* The end of a request. Runs once, on the loop, never inside gyre_resolve(). `err` is 0 and `addresses` are `count`
 * addresses with port 0, at least one, borrowed until the function returns. Or `err` is an error of a lookup (see
 * above), -ECANCELED after gyre_resolve_cancel(), or GYRE_ESHUTDOWN if the loop ended first; then `count` is 0. */
typedef void gyre_resolved_fn(struct gyre_loop *loop, int err, const struct sockaddr_storage *addresses, size_t count,
                              void *user);

/* Look up the addresses of `name`: a host name of letters, digits, '-', '_' and '.', or an IP address without brackets.
 * `name` is copied. `*out` (may be NULL) receives the request, borrowed, valid until `done` runs.
 *
 * Returns 0, or one of these; then `done` does not run:
 *   -EINVAL         `loop`, `name` or `done` is NULL
 *   GYRE_EADDRESS   `name` is neither a host name nor an IP address of the family
 *   GYRE_EOPTION    an option is out of range
 *   -E2BIG          an option is set that this library does not know
 *   -EAGAIN         `lookups_max` or `requests_max` is reached, or no thread could be created
 *   -ENOMEM         out of memory
 *   GYRE_ETHREAD    the calling thread is not the loop's
 *   GYRE_EFORK      the loop belongs to the parent process
 *   GYRE_ESHUTDOWN  the loop is stopping
 * Thread: the loop's. */
#define gyre_resolve(out, loop, name, done, user, ...)                                                                 \
    gyre_resolve_sized((out), (loop), (name), (done), (user),                                                          \
                       GYRE_LAST_ARGUMENT_IS_OPTIONS_OR_NULL(struct gyre_resolve_options, __VA_ARGS__))
GYRE_API int gyre_resolve_sized(struct gyre_lookup **out, struct gyre_loop *loop, const char *name,
                                gyre_resolved_fn *done, void *user, const struct gyre_resolve_options *options,
                                size_t size_bytes);

/* Cancel a request. Its `done` runs with -ECANCELED, unless the answer is already on its way. A lookup that nobody else
 * waits for is dropped if it has not started. Returns 0, or GYRE_ETHREAD. NULL is allowed. Thread: the loop's. */
GYRE_API int gyre_resolve_cancel(struct gyre_lookup *lookup);

#ifdef __cplusplus
}
#endif

#endif
