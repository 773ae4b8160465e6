/* SPDX-License-Identifier: MIT
 * <gyre/watch.h> as programs were compiled with it when the interface got its shape, without the comments. */
#ifndef GYRE_WATCH_H
#define GYRE_WATCH_H
#include <gyre/base.h>
#include <gyre/loop.h>
#ifdef __cplusplus
extern "C" {
#endif
struct gyre_watch;
enum {
    GYRE_WATCH_READABLE = 1u << 0,
    GYRE_WATCH_WRITABLE = 1u << 1,
    GYRE_WATCH_PRIORITY = 1u << 2,
    GYRE_WATCH_HANGUP = 1u << 3,
    GYRE_WATCH_ERROR = 1u << 4,
};
typedef void gyre_watch_fn(struct gyre_watch *watch, unsigned events, int err, void *user);
GYRE_API int gyre_watch_open(struct gyre_watch **out, struct gyre_loop *loop, int fd, unsigned events,
                             gyre_watch_fn *fn, void *user);
GYRE_API int gyre_watch_set(struct gyre_watch *watch, unsigned events);
GYRE_API int gyre_watch_close(struct gyre_watch *watch);
GYRE_API int gyre_watch_fd(const struct gyre_watch *watch);
GYRE_API unsigned gyre_watch_events(const struct gyre_watch *watch);
#ifdef __cplusplus
}
#endif
#endif
