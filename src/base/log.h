/* SPDX-License-Identifier: MIT
 * Log lines, through the user's hook. Never called per event above debug. */
#ifndef GYRE_BASE_LOG_H
#define GYRE_BASE_LOG_H

#include <gyre/base.h>

extern const struct gyre_log gyre__log_system; /* warnings and errors to standard error */

void gyre__log_line(const struct gyre_log *log, enum gyre_log_level level, const char *format, ...) GYRE_PRINTF(3, 4);

#endif
