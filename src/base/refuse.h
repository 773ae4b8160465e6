/* SPDX-License-Identifier: MIT
 * Refusing an option or an argument with a sentence that names it, for gyre_last_option_error(). */
#ifndef GYRE_BASE_REFUSE_H
#define GYRE_BASE_REFUSE_H

#include "check.h"

#include <gyre/base.h>

/* Keep the sentence for this thread. Returns GYRE_EOPTION. */
int gyre__refuse(const char *format, ...) GYRE_PRINTF(1, 2);

/* An option or argument, its value, and the smallest and largest value that is allowed. */
struct gyre__range {
    const char *name;
    int64_t value;
    int64_t min;
    int64_t max; /* INT64_MAX: no limit */
};

/* Refuse the first value that is out of its range. Returns 0 or GYRE_EOPTION. */
int gyre__check_ranges(const struct gyre__range *ranges, size_t count);

/* The same for one value. */
int gyre__check_range(const char *name, int64_t value, int64_t min, int64_t max);

/* The same for a time or a delay, in a call that may come often. */
static inline int gyre__check_not_negative(const char *name, int64_t value)
{
    return GYRE_LIKELY(value >= 0) ? 0 : gyre__check_range(name, value, 0, INT64_MAX);
}

/* A size as the value of a range. */
static inline int64_t gyre__size_value(size_t size)
{
    return (uint64_t)size > INT64_MAX ? INT64_MAX : (int64_t)size;
}

#endif
