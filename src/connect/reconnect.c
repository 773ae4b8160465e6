/* SPDX-License-Identifier: MIT
 * Keeping one outgoing connection alive.
 *
 * The user's handlers are copied into a table in which on_open and on_close are ours, which call the user's; the table
 * lies in the reconnector, so a connection's handlers lead to it. The timer does two things: after a failure it waits
 * for the next attempt; with a delay of nothing it makes the callback for a connect that failed at once come from the
 * loop. */
#include "connect.h"
#include "base/options.h"
#include "base/refuse.h"
#include "base/random.h"

#include <gyre/reconnect.h>

#include <errno.h>
#include <string.h>

enum { RECONNECTOR_MAGIC = 0x7265636f };

static const int64_t delay_min_default_ns = INT64_C(100000000);
static const int64_t delay_max_default_ns = INT64_C(30000000000);
static const int64_t stable_default_ns = INT64_C(10000000000);

struct gyre_reconnector {
    uint32_t magic;
    uint32_t failures;
    struct gyre_loop *loop;
    struct gyre_conn *conn;
    const struct gyre_conn_handlers *handlers; /* the user's */
    struct gyre_conn_handlers wrapped;         /* what connections get */
    struct gyre_reconnector_options options;
    struct gyre__loop_timer timer;
    uint64_t random;
    uint64_t opened_ns; /* if `opened` */
    struct gyre__segq kept;   /* for the next connection */
    uint64_t kept_file_bytes; /* of files in `kept` */
    int err;            /* of a connect that failed at once */
    bool opened;
    bool running;
    bool failed_at_once; /* the timer tells of it */
    bool dying;          /* destroyed by the user, kept for its connection */
    char address[];
};

/* From the lower bound to one that doubles with each failure. */
static int64_t next_delay(struct gyre_reconnector *r)
{
    uint64_t low = (uint64_t)r->options.delay_min_ns, max = (uint64_t)r->options.delay_max_ns, high = low;
    for (uint32_t i = 0; i < r->failures && high < max; i++)
        high *= 2;
    if (high > max)
        high = max;
    return (int64_t)(low + gyre__random_next(&r->random) % (high - low + 1));
}

static void connect_now(struct gyre_reconnector *r);

static void drop_kept(struct gyre_reconnector *r)
{
    gyre__count(&r->loop->be->stats.bytes_dropped, r->kept.bytes);
    gyre__segq_clear(&r->kept, &r->loop->segs, GYRE_ECLOSED);
    r->kept_file_bytes = 0;
}

/* `r` may be gone when it returns. */
static void failed(struct gyre_reconnector *r, int err)
{
    const struct gyre_reconnector_handlers *h = r->options.handlers;
    r->failures += r->failures < UINT32_MAX;
    if (r->options.failures_max != 0 && r->failures >= r->options.failures_max) {
        r->running = false;
        drop_kept(r);
        if (h != NULL && h->on_give_up != NULL)
            h->on_give_up(r, err, r->options.user);
        return;
    }
    int64_t delay_ns = next_delay(r);
    gyre__wheel_start(&r->loop->wheel, &r->timer, gyre__loop_now(r->loop) + (uint64_t)delay_ns);
    if (h != NULL && h->on_wait != NULL)
        h->on_wait(r, err, delay_ns, r->options.user);
}

void gyre__reconnector_on_timer(struct gyre__loop_timer *t)
{
    struct gyre_reconnector *r = GYRE_CONTAINER(t, struct gyre_reconnector, timer);
    GYRE_CHECK(r->magic == RECONNECTOR_MAGIC);
    if (!r->failed_at_once) {
        connect_now(r);
        return;
    }
    r->failed_at_once = false;
    failed(r, r->err);
}

static struct gyre_reconnector *of(const struct gyre_conn *c)
{
    const struct gyre_conn_handlers *wrapped = c->profile->handlers;
    struct gyre_reconnector *r = GYRE_CONTAINER((void *)(uintptr_t)wrapped, struct gyre_reconnector, wrapped);
    GYRE_CHECK(r->magic == RECONNECTOR_MAGIC);
    return r;
}

/* Files are not part of the bytes of a queue. */
static uint64_t take_file_bytes(struct gyre_conn *c)
{
    uint64_t bytes = c->extra != NULL ? c->extra->file_bytes : 0;
    if (c->extra != NULL)
        c->extra->file_bytes = 0;
    return bytes;
}

/* The queue of a connection that could not be made. */
static void keep(struct gyre_conn *c)
{
    struct gyre_reconnector *r = of(c);
    if (!r->running || r->dying || c->out.tail == NULL)
        return;
    r->kept_file_bytes = take_file_bytes(c);
    r->kept = c->out;
    c->out = (struct gyre__segq){.tail = NULL};
}

/* To a connection that has just been made. Without memory for what a file needs, it fails, and the next one gets it. */
static void hand_over(struct gyre_reconnector *r, struct gyre_conn *c)
{
    c->profile->keep = keep;
    if (r->kept.tail == NULL)
        return;
    if (r->kept_file_bytes > 0 && gyre__conn_extra(c) == NULL) {
        gyre__conn_end(c, GYRE_CLOSE_CONNECT, -ENOMEM);
        return;
    }
    if (r->kept_file_bytes > 0)
        c->extra->file_bytes = r->kept_file_bytes;
    c->out = r->kept;
    r->kept = (struct gyre__segq){.tail = NULL};
    r->kept_file_bytes = 0;
    gyre__conn_queued(c, 0);
}

static void connect_now(struct gyre_reconnector *r)
{
    r->opened = false;
    r->err = r->loop->phase == GYRE_PHASE_SERVING
                 ? gyre_connect(&r->conn, r->loop, r->address, &r->wrapped, &r->options.conn)
                 : GYRE_ESHUTDOWN;
    if (r->err == 0) {
        r->conn->profile->pinned = true; /* its handlers lie in `r` */
        if (r->options.keep_queued)
            hand_over(r, r->conn);
        return;
    }
    r->conn = NULL;
    if (r->err == GYRE_ESHUTDOWN) {
        r->running = false;
        return;
    }
    r->failed_at_once = true;
    gyre__wheel_start(&r->loop->wheel, &r->timer, gyre__loop_now(r->loop));
}

static void on_open(struct gyre_conn *c)
{
    struct gyre_reconnector *r = of(c);
    r->opened = true;
    r->opened_ns = r->loop->now_ns;
    if (r->handlers->on_open != NULL)
        r->handlers->on_open(c);
}

static void on_close(struct gyre_conn *c, int err)
{
    struct gyre_reconnector *r = of(c);
    bool over = gyre_conn_close_reason(c) == GYRE_CLOSE_SHUTDOWN;
    if (r->handlers->on_close != NULL)
        r->handlers->on_close(c, err);
    r->conn = NULL;
    if (r->dying) {
        r->magic = 0;
        gyre__free(r->loop->mem, r);
        return;
    }
    if (over)
        r->running = false;
    if (r->opened && r->loop->now_ns - r->opened_ns >= (uint64_t)r->options.stable_ns)
        r->failures = 0;
    if (r->running)
        failed(r, err);
}

static int complete(struct gyre_reconnector_options *o)
{
    const struct gyre__range ranges[] = {
        {"delay_max_ns", o->delay_max_ns, 0, INT64_MAX / 4},
        {"delay_min_ns", o->delay_min_ns, 0, o->delay_max_ns != 0 ? o->delay_max_ns : INT64_MAX / 4},
        {"stable_ns", o->stable_ns, 0, INT64_MAX},
    };
    int err = gyre__check_ranges(ranges, sizeof ranges / sizeof ranges[0]);
    if (err != 0)
        return err;
    if (o->delay_min_ns == 0)
        o->delay_min_ns = o->delay_max_ns != 0 && o->delay_max_ns < delay_min_default_ns ? o->delay_max_ns
                                                                                         : delay_min_default_ns;
    if (o->delay_max_ns == 0)
        o->delay_max_ns = o->delay_min_ns > delay_max_default_ns ? o->delay_min_ns : delay_max_default_ns;
    if (o->stable_ns == 0)
        o->stable_ns = stable_default_ns;
    return 0;
}

/* What connecting would refuse each time is refused once. */
static int check(const char *address, const struct gyre_conn_handlers *handlers, const struct gyre_conn_options *conn)
{
    struct gyre__profile profile;
    struct gyre__route route;
    int err = gyre__profile_init(&profile, conn, handlers);
    return err != 0 ? err : gyre__route_find(&route, address, conn);
}

int gyre_reconnector_create_sized(struct gyre_reconnector **out, struct gyre_loop *loop, const char *address,
                                  const struct gyre_conn_handlers *handlers,
                                  const struct gyre_reconnector_options *options, size_t size_bytes,
                                  size_t conn_size_bytes)
{
    struct gyre_reconnector_options o;
    if (out == NULL || loop == NULL || address == NULL)
        return -EINVAL;
    if (!gyre__loop_allows(loop))
        return GYRE_ETHREAD;
    int err = gyre__options_copy_nested(&o, sizeof o, sizeof o.conn, options, size_bytes, conn_size_bytes);
    if (err == 0)
        err = complete(&o);
    if (err == 0)
        err = check(address, handlers, &o.conn);
    if (err != 0)
        return err;
    size_t len = strlen(address) + 1;
    struct gyre_reconnector *r = gyre__alloc(loop->mem, sizeof *r + len);
    if (r == NULL)
        return -ENOMEM;
    *r = (struct gyre_reconnector){.magic = RECONNECTOR_MAGIC, .loop = loop, .handlers = handlers, .options = o};
    memcpy(r->address, address, len);
    r->wrapped = *handlers;
    r->wrapped.on_open = on_open;
    r->wrapped.on_close = on_close;
    r->timer.kind = GYRE_TIMER_RECONNECT;
    /* Neither those of one loop or of several, whose clock may stand still, nor those of several programs shall wait
     * alike. */
    uint64_t number = (uint64_t)++loop->reconnectors << 48 ^ (uint64_t)loop->index << 32;
    r->random = o.seed != 0 ? o.seed : gyre__loop_clock(loop) ^ number;
    *out = r;
    return 0;
}

int gyre_reconnector_destroy(struct gyre_reconnector *r)
{
    if (r == NULL)
        return 0;
    GYRE_CHECK(r->magic == RECONNECTOR_MAGIC);
    int err = gyre_reconnector_stop(r);
    if (err != 0)
        return err;
    r->dying = true;
    drop_kept(r);
    if (r->conn != NULL)
        return 0;
    r->magic = 0;
    gyre__free(r->loop->mem, r);
    return 0;
}

int gyre_reconnector_start(struct gyre_reconnector *r)
{
    if (!gyre__loop_allows(r->loop))
        return GYRE_ETHREAD;
    if (r->loop->phase != GYRE_PHASE_SERVING)
        return GYRE_ESHUTDOWN;
    r->running = true;
    r->failures = 0;
    if (r->conn != NULL || r->failed_at_once)
        return 0;
    gyre__wheel_stop(&r->loop->wheel, &r->timer);
    connect_now(r);
    return 0;
}

int gyre_reconnector_stop(struct gyre_reconnector *r)
{
    if (!gyre__loop_allows(r->loop))
        return GYRE_ETHREAD;
    r->running = false;
    r->failed_at_once = false;
    gyre__wheel_stop(&r->loop->wheel, &r->timer);
    return 0;
}

struct gyre_conn *gyre_reconnector_conn(const struct gyre_reconnector *r)
{
    return r->conn;
}

uint32_t gyre_reconnector_failures(const struct gyre_reconnector *r)
{
    return r->failures;
}

uint64_t gyre_reconnector_queued(const struct gyre_reconnector *r)
{
    return r->kept.bytes + r->kept_file_bytes;
}
