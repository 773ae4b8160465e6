/* SPDX-License-Identifier: MIT
 * What the connections of one listener or one connect call have in common: handlers and options. */
#include "conn.h"
#include "frame.h"
#include "base/options.h"
#include "socket/prepare.h"

#include <errno.h>
#include <string.h>

enum {
    READ_MAX_DEFAULT = 1 << 20,
    WRITE_HIGH_DEFAULT = 256 << 10,
    WRITE_MAX_DEFAULT = 16 << 20,
    BYTES_MAX = 1 << 30,
};

static const int64_t connect_timeout_default_ns = INT64_C(30000000000);
static const int64_t attempt_delay_default_ns = INT64_C(250000000); /* RFC 8305, 5; and the least that it allows: */
static const int64_t attempt_delay_min_ns = INT64_C(10000000);
static const int64_t linger_timeout_default_ns = INT64_C(30000000000);

int gyre__profile_init(struct gyre__profile *profile, const struct gyre_conn_options *options,
                       const struct gyre_conn_handlers *handlers)
{
    struct gyre_conn_options *o = &profile->options;
    if (handlers == NULL || (options->framer != NULL ? handlers->on_frame == NULL : handlers->on_data == NULL))
        return GYRE_EHANDLERS;
    int err = options->framer != NULL ? gyre__framer_check(options->framer) : 0;
    if (err != 0)
        return err;
    *profile = (struct gyre__profile){.options = *options, .handlers = handlers};
    profile->on_data = handlers->on_frame != NULL ? gyre__conn_on_frames : handlers->on_data;
    if (o->read_max_bytes == 0)
        o->read_max_bytes = READ_MAX_DEFAULT;
    if (o->write_max_bytes == 0)
        o->write_max_bytes = o->write_high_bytes > WRITE_MAX_DEFAULT ? o->write_high_bytes : WRITE_MAX_DEFAULT;
    if (o->write_high_bytes == 0)
        o->write_high_bytes = o->write_max_bytes < WRITE_HIGH_DEFAULT ? o->write_max_bytes : WRITE_HIGH_DEFAULT;
    if (o->write_low_bytes == 0)
        o->write_low_bytes = o->write_high_bytes / 4;
    if (o->connect_timeout_ns == 0)
        o->connect_timeout_ns = connect_timeout_default_ns;
    if (o->attempt_delay_ns == 0)
        o->attempt_delay_ns = attempt_delay_default_ns;
    if (o->linger_timeout_ns == 0)
        o->linger_timeout_ns = linger_timeout_default_ns;
    const struct gyre__range ranges[] = {
        {"read_max_bytes", o->read_max_bytes, 1, BYTES_MAX},
        {"write_max_bytes", o->write_max_bytes, 1, BYTES_MAX},
        {"write_high_bytes", o->write_high_bytes, 1, o->write_max_bytes},
        {"write_low_bytes", o->write_low_bytes, 0, o->write_high_bytes},
        {"read_timeout_ns", o->read_timeout_ns, 0, INT64_MAX},
        {"write_timeout_ns", o->write_timeout_ns, 0, INT64_MAX},
        {"lifetime_ns", o->lifetime_ns, 0, INT64_MAX},
        {"idle_timeout_ns", o->idle_timeout_ns, 0, INT64_MAX},
        {"linger_timeout_ns", o->linger_timeout_ns, 0, INT64_MAX},
        {"close_timeout_ns", o->close_timeout_ns, 0, INT64_MAX},
        {"connect_timeout_ns", o->connect_timeout_ns, 0, INT64_MAX},
        {"attempt_delay_ns", o->attempt_delay_ns, attempt_delay_min_ns, INT64_MAX},
    };
    err = gyre__check_ranges(ranges, sizeof ranges / sizeof ranges[0]);
    return err != 0 ? err : gyre__options_check(o);
}

static void release(struct gyre_loop *l, struct gyre__profile *profile)
{
    if (--profile->refs == 0)
        gyre__free(l->mem, profile);
}

int gyre__profile_new(struct gyre__profile **out, const struct gyre_mem *mem,
                      const struct gyre_conn_handlers *handlers, const struct gyre_conn_options *options,
                      size_t size_bytes)
{
    struct gyre_conn_options copy;
    int err = gyre__options_copy(&copy, sizeof copy, options, size_bytes);
    if (err != 0)
        return err;
    struct gyre__profile *profile = gyre__alloc(mem, sizeof *profile);
    if (profile == NULL)
        return -ENOMEM;
    err = gyre__profile_init(profile, &copy, handlers);
    if (err != 0) {
        gyre__free(mem, profile);
        return err;
    }
    profile->release = release;
    *out = profile;
    return 0;
}
