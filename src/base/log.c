/* SPDX-License-Identifier: MIT
 * Formatting one log line and handing it to the hook. */
#include "log.h"

#include <stdio.h>

static void system_line(enum gyre_log_level level, const char *text, void *user)
{
    static const char *const names[] = {"debug", "info", "warning", "error"};
    (void)user;
    (void)fprintf(stderr, "gyre: %s: %s\n", names[level], text);
}

const struct gyre_log gyre__log_system = {.line = system_line, .level_min = GYRE_LOG_WARN};

void gyre__log_line(const struct gyre_log *log, enum gyre_log_level level, const char *format, ...)
{
    char text[512];
    va_list args;
    if (log->line == NULL || level < log->level_min)
        return;
    va_start(args, format);
    (void)vsnprintf(text, sizeof text, format, args);
    va_end(args);
    log->line(level, text, log->user);
}
