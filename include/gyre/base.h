/* SPDX-License-Identifier: MIT
 * What every other header needs: the version, errors, memory and log hooks, and the rules that hold everywhere.
 *
 * Callbacks. The loop invokes callbacks. A function that you call invokes no callback during the call, unless its
 * comment says so. Each loop runs one callback at a time. A callback may call every function, unless the comment of the
 * function forbids it. Closing and stopping are allowed. The `on_close` of a connection runs exactly once and is the
 * connection's last handler. If gyre_conn_detach() hands the descriptor out, the `done` of that call runs instead of
 * `on_close`.
 *
 * Errors. A function that can fail returns 0 on success (or a count, an offset or a descriptor) and a negative number
 * on failure. A value -errno is an error of the system, unchanged, or an error that the library reports with a number
 * of errno.h, such as -EINVAL for a NULL argument and -EAGAIN for a full queue. A value GYRE_E… is an error of gyre and
 * lies outside the range of errno. After GYRE_EOPTION, gyre_last_option_error() says which option was refused and why.
 * Out parameters are set only on success.
 *
 * Order of parameters. What the call fills in comes first, with its size. The object follows, then the arguments. A
 * callback and its `user` are last; only options come after them. A callback gets its `user` as the last argument.
 *
 * Ownership. The comments use these words:
 *   "borrows until …"    the library reads the memory until then; the caller keeps the memory valid
 *   "takes"              the library frees the memory or closes the descriptor
 *   "returns owned"      the caller frees the object
 *   "returns borrowed"   the caller must not free the object
 *
 * Threads. The comment of each function says which thread may call it.
 *   "any"                any thread
 *   "the loop's"         the thread that runs the loop with gyre_loop_run() or gyre_loop_run_nowait(), or the thread on
 *                        which an engine runs the loop. Before the loop first runs, this is the thread that sets the
 *                        loop up.
 * Once the loop has run, a call from the wrong thread is refused with GYRE_ETHREAD, if the comment of the function or
 * of its section lists this error. Other functions do not check the thread: a call from the wrong thread may do harm.
 *
 * fork(2). Loops, and all objects on them, stay with the parent, which is not affected. In the child, functions that
 * run a loop or an engine, post to a loop, or give work to an engine or a pool return GYRE_EFORK. Other functions for
 * the loop's thread return GYRE_ETHREAD, and destroying does nothing. The child may create loops of its own. exec(2)
 * and _exit(2) release what the child inherited: every descriptor is close-on-exec. A child that is forked in a
 * callback must call exec(2) or _exit(2) before the callback returns.
 *
 * Options. A call with options is a macro. Its last argument is a pointer to the options, which may be a compound
 * literal, or NULL for all defaults. A field that is 0 has its default. Options of another call, a missing last
 * argument and an argument too many do not compile.
 *
 * Options can grow. New fields are only appended, before the options that are nested in the struct (`conn`, `loop`),
 * which are its last field. The macro calls a function whose name ends in _sized, with the size of the struct that the
 * caller was compiled with, and the size of the nested options, if there are any. So a program that was compiled with
 * an older or a newer header works with this library. If the caller's struct is larger than the library's, and a field
 * that the library does not know is not 0, the call returns -E2BIG. Programs in other languages call the _sized
 * function. */
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

/* The last arguments of a _sized function: options and the size of their struct. In C the type is checked here, because
 * compilers may only warn of a pointer to another type. The name is long because compilers print it with the error. */
#ifdef __cplusplus
#define GYRE_LAST_ARGUMENT_IS_OPTIONS_OR_NULL(type, ...) __VA_ARGS__, sizeof(type)
#else
#define GYRE_LAST_ARGUMENT_IS_OPTIONS_OR_NULL(type, ...)                                                               \
    __VA_ARGS__, _Generic((__VA_ARGS__), type *: sizeof(type), const type *: sizeof(type), void *: sizeof(type))
#endif

/* Returns the version of the linked library as "major.minor.patch". GYRE_VERSION is the version of the header.
 * Thread: any. */
GYRE_API const char *gyre_version(void);

/* The errors of gyre: name, number, and a sentence that says what is wrong. */
#define GYRE_ERRORS(X)                                                                                                 \
    X(GYRE_ECLOSED, -100001, "the connection, socket or watch is closed or closing; it takes no more data")            \
    X(GYRE_ETHREAD, -100002, "called from the wrong thread; call it on the loop's thread, with gyre_loop_post()")      \
    X(GYRE_EADDRESS, -100003, "the address is not valid here: streams use tcp://HOST:PORT or unix:///PATH, datagrams " \
      "udp://IP:PORT or unixgram:///PATH (gyre_engine_listen_udp); other calls than connecting need an IP address")    \
    X(GYRE_EPATHLEN, -100004, "the unix socket path is empty or longer than the system allows (107 bytes on Linux)")   \
    X(GYRE_EHANDLERS, -100005, "the handlers are NULL or lack a required one (on_data, on_frame, on_datagram)")        \
    X(GYRE_EBACKEND, -100006, "unknown backend name; use auto, io_uring, epoll or kqueue")                             \
    X(GYRE_ENOBACKEND, -100007, "this library was built without that backend")                                         \
    X(GYRE_EOPTION, -100008, "an option or argument is out of its range or does not fit the call; "                    \
      "gyre_last_option_error() says which")    \
    X(GYRE_ESTALE, -100009, "the connection, socket or job with this id no longer exists")                             \
    X(GYRE_ETIMEOUT, -100010, "a time limit was exceeded")                                                             \
    X(GYRE_ESHUTDOWN, -100011, "the loop, engine or pool is stopping")                                                 \
    X(GYRE_ECONNS, -100012, "the limit on connections is reached (conns_max)")                                         \
    X(GYRE_ESTATE, -100013, "wrong state for this call: already running, ended or closed, or not yet connected")       \
    X(GYRE_ESOCKTYPE, -100014, "the descriptor is not a socket of the type and state that this call needs")            \
    X(GYRE_EFRAME, -100015, "the peer sent an invalid frame: it is too long, or its length field is invalid")          \
    X(GYRE_EFILE, -100016, "the file ends before the last byte to send")                                               \
    X(GYRE_EFORK, -100017, "the object belongs to the parent process; after fork(2) the child must create its own")    \
    X(GYRE_EFDTYPE, -100018, "a descriptor of this kind cannot be watched, such as a regular file")                    \
    X(GYRE_ENONAME, -100019, "no such host: the name does not exist or has no address of the family asked for")        \
    X(GYRE_ENAMESERVER, -100020, "the name could not be looked up: no name server answered, or it failed; try later")  \
    X(GYRE_ESELF, -100021, "the connection leads to itself: nothing listens there, and the system chose the same port")

enum {
#define GYRE_ERROR_ENUM(name, number, text) name = number,
    GYRE_ERRORS(GYRE_ERROR_ENUM)
#undef GYRE_ERROR_ENUM
};

/* Return the symbol of an error, such as "ECONNRESET" or "GYRE_ECLOSED", and a sentence that describes it. Never NULL.
 * If gyre has no sentence for the error, the text is name, number and strerror(3), such as "EDEADLK (35): Resource
 * deadlock avoided". If gyre has no name either, the name is the number, such as "E524". Such a text or name is valid
 * until the thread's next call of gyre_err_name() or gyre_err_text(). All other strings are static.
 * Thread: any. */
GYRE_API const char *gyre_err_name(int err);
GYRE_API const char *gyre_err_text(int err);

/* Returns a sentence about the last GYRE_EOPTION that a call on this thread returned. The sentence names the option or
 * argument, its value and the range, such as "write_low_bytes is 4096; it must be 0 to 1024". The sentence is empty if
 * no call on this thread has returned GYRE_EOPTION. The string is valid and unchanged until the thread's next call that
 * returns GYRE_EOPTION. Calls that succeed do not clear the sentence.
 * Thread: any. */
GYRE_API const char *gyre_last_option_error(void);

/* The source of the library's memory, except receive buffers and the rings of io_uring, which come from mmap(2).
 * `resize(NULL, n, user)` allocates `n` bytes. `resize(p, 0, user)` frees `p` and returns NULL. Any other call behaves
 * like realloc(3). Return NULL when out of memory. Any thread that calls the library may call `resize`, and several
 * threads may call it at the same time. */
struct gyre_mem {
    void *(*resize)(void *ptr, size_t size_bytes, void *user);
    void *user;
};

enum gyre_log_level { GYRE_LOG_DEBUG = 0, GYRE_LOG_INFO, GYRE_LOG_WARN, GYRE_LOG_ERROR };

/* The receiver of the library's few log lines. `line` gets one line without a newline. `text` is borrowed until `line`
 * returns. `line` runs on the thread of a loop, or on the thread that creates the loop. Several threads may call `line`
 * at the same time. `line` NULL: no log. The default log writes warnings and errors to standard error. */
struct gyre_log {
    void (*line)(enum gyre_log_level level, const char *text, void *user);
    void *user;
    enum gyre_log_level level_min; /* lines below this level are not formatted; 0: GYRE_LOG_DEBUG, so all lines */
};

/* Which backend a loop has, and why. Filled by gyre_loop_backend(). */
struct gyre_backend_report {
    const char *backend; /* "io_uring", "epoll", "kqueue" or "sim"; static */
    char reason[384];    /* why this backend was chosen; for each better backend, why it does not work and the remedy */
    char features[384];  /* kernel features in use, comma-separated */
};

/* Reports the end of a send. `err` is 0 if the kernel accepted all bytes. Otherwise the kernel accepted none or only a
 * part of the bytes, and `err` is:
 *   GYRE_ECLOSED  the connection was closed without an error (on_close gets 0)
 *   GYRE_ESTALE   the connection of the id was gone
 *   otherwise     the error that on_close gets, such as GYRE_ETIMEOUT, GYRE_ESHUTDOWN, GYRE_EFILE or -errno; or the
 *                 error of gyre_conn_write(), if the bytes could not be queued */
typedef void gyre_sent_fn(int err, void *user);

#ifdef __cplusplus
}
#endif

#endif
