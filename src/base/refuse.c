/* SPDX-License-Identifier: MIT
 * The sentence about the option that this thread's last refused call was given. */
#include "refuse.h"

#include <stdio.h>

enum { SENTENCE_SIZE = 192 };

static _Thread_local char sentence[SENTENCE_SIZE];

const char *gyre_last_option_error(void)
{
    return sentence;
}

int gyre__refuse(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    (void)vsnprintf(sentence, sizeof sentence, format, args);
    va_end(args);
    return GYRE_EOPTION;
}

int gyre__check_range(const char *name, int64_t value, int64_t min, int64_t max)
{
    if (value >= min && value <= max)
        return 0;
    if (max == INT64_MAX && min == 0)
        return gyre__refuse("%s is %lld; it must not be negative", name, (long long)value);
    if (max == INT64_MAX)
        return gyre__refuse("%s is %lld; it must be at least %lld", name, (long long)value, (long long)min);
    return gyre__refuse("%s is %lld; it must be %lld to %lld", name, (long long)value, (long long)min, (long long)max);
}

int gyre__check_ranges(const struct gyre__range *ranges, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        int err = gyre__check_range(ranges[i].name, ranges[i].value, ranges[i].min, ranges[i].max);
        if (err != 0)
            return err;
    }
    return 0;
}
