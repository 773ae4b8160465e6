/* SPDX-License-Identifier: MIT
 * <gyre/base.h> as programs were compiled with it when the interface got its shape, without the comments. */
#ifndef GYRE_BASE_H
#define GYRE_BASE_H
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#ifdef __cplusplus
extern "C" {
#endif
#define GYRE_VERSION_MAJOR 0
#define GYRE_VERSION_MINOR 1
#define GYRE_VERSION_PATCH 0
#define GYRE_VERSION "0.1.0"
#if defined(__GNUC__)
#define GYRE_API __attribute__((visibility("default")))
#define GYRE_PRINTF(fmt, args) __attribute__((format(printf, fmt, args)))
#else
#define GYRE_API
#define GYRE_PRINTF(fmt, args)
#endif
#ifdef __cplusplus
#define GYRE_LAST_ARGUMENT_IS_OPTIONS_OR_NULL(type, ...) __VA_ARGS__, sizeof(type)
#else
#define GYRE_LAST_ARGUMENT_IS_OPTIONS_OR_NULL(type, ...)                                                               \
    __VA_ARGS__, _Generic((__VA_ARGS__), type *: sizeof(type), const type *: sizeof(type), void *: sizeof(type))
#endif
GYRE_API const char *gyre_version(void);
#define GYRE_ERRORS(X)                                                                                                 \
    X(GYRE_ECLOSED, -100001, "the connection, socket or watch is closed or closing; it takes no more data")            \
    X(GYRE_ETHREAD, -100002, "called from the wrong thread; call it on the loop's thread, with gyre_loop_post()")      \
    X(GYRE_EADDRESS, -100003, "the address is not valid here: streams use tcp://IP:PORT or unix:///PATH, datagrams "   \
      "udp://IP:PORT or unixgram:///PATH (gyre_engine_listen_udp); an IP address is needed here, not a name")          \
    X(GYRE_EPATHLEN, -100004, "the unix socket path is empty or longer than the system allows (107 bytes on Linux)")   \
    X(GYRE_EHANDLERS, -100005, "the handlers are NULL or lack a required one (on_data, on_frame, on_datagram)")        \
    X(GYRE_EBACKEND, -100006, "unknown backend name; use auto, io_uring, epoll or kqueue")                             \
    X(GYRE_ENOBACKEND, -100007, "this library was built without that backend")                                         \
    X(GYRE_EOPTION, -100008, "an option or argument is out of its range (see the header) or does not fit the call")    \
    X(GYRE_ESTALE, -100009, "the connection, socket or job with this id no longer exists")                             \
    X(GYRE_ETIMEOUT, -100010, "a time limit was exceeded")                                                             \
    X(GYRE_ESHUTDOWN, -100011, "the loop, engine or pool is stopping")                                                 \
    X(GYRE_ECONNS, -100012, "the limit on connections is reached (conns_max)")                                         \
    X(GYRE_ESTATE, -100013, "wrong state for this call: already running, ended or closed, or not yet connected")       \
    X(GYRE_ESOCKTYPE, -100014, "the descriptor is not a socket of the type and state that this call needs")            \
    X(GYRE_EFRAME, -100015, "the peer sent an invalid frame: it is too long, or its length field is invalid")          \
    X(GYRE_EFILE, -100016, "the file ends before the last byte to send")                                               \
    X(GYRE_EFORK, -100017, "the object belongs to the parent process; after fork(2) the child must create its own")    \
    X(GYRE_EFDTYPE, -100018, "a descriptor of this kind cannot be watched, such as a regular file")
enum {
#define GYRE_ERROR_ENUM(name, number, text) name = number,
    GYRE_ERRORS(GYRE_ERROR_ENUM)
#undef GYRE_ERROR_ENUM
};
GYRE_API const char *gyre_err_name(int err);
GYRE_API const char *gyre_err_text(int err);
struct gyre_mem {
    void *(*resize)(void *ptr, size_t size_bytes, void *user);
    void *user;
};
enum gyre_log_level { GYRE_LOG_DEBUG = 0, GYRE_LOG_INFO, GYRE_LOG_WARN, GYRE_LOG_ERROR };
struct gyre_log {
    void (*line)(enum gyre_log_level level, const char *text, void *user);
    void *user;
    enum gyre_log_level level_min;
};
struct gyre_backend_report {
    const char *backend;
    char reason[384];
    char features[384];
};
typedef void gyre_sent_fn(int err, void *user);
#ifdef __cplusplus
}
#endif
#endif
