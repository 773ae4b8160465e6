/* SPDX-License-Identifier: MIT
 * Telling results, to people and to programs. */
#ifndef BENCH_REPORT_H
#define BENCH_REPORT_H

#include "options.h"
#include "target.h"

void bench_report_text(const struct bench_options *options, const struct bench_result *result);

/* One JSON object on one line: of a whole run, of one slice, of something that went wrong (`index` below 0: of no
 * target in particular). */
void bench_report_json(const struct bench_options *options, const struct bench_result *result);
void bench_report_slice(uint32_t index, const struct bench_result *result);
void bench_report_error(int64_t index, const char *text);

#endif
