/* SPDX-License-Identifier: MIT
 * The counters as text for Prometheus (exposition format 0.0.4).
 *
 * Metric by metric, and for each one sample per loop, as the format asks. Every sample is read from its loop anew: that
 * costs microseconds and saves holding a copy of every loop.
 *
 * What does not fit is left out by whole lines, so that no number is ever cut short. */
#include "loop/loop.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <gyre/engine.h>

struct text {
    char *out;
    size_t size;
    size_t len;  /* that it takes, so far */
    size_t kept; /* up to the end of the last line that fits */
    bool full;
};

/* What is exposed: one loop, or all of an engine. */
struct source {
    const struct gyre_loop *loop; /* NULL: the engine's */
    const struct gyre_engine *engine;
    const struct gyre_label *labels;
    size_t label_count;
};

struct metric {
    const char *name;
    const char *help;
    size_t offset; /* in struct gyre_stats */
    char kind;     /* 'c', 'g' or 'h' */
    uint8_t first, last, unit; /* of a histogram */
};

static const struct metric metrics[] = {
#define COUNTER(field, name, text) {"gyre_" name "_total", text, offsetof(struct gyre_stats, field), 'c', 0, 0, 0},
#define GAUGE(field, name, text) {"gyre_" name, text, offsetof(struct gyre_stats, field), 'g', 0, 0, 0},
#define HISTOGRAM(field, name, first, last, unit, text)                                                                \
    {"gyre_" name, text, offsetof(struct gyre_stats, field), 'h', first, last, unit},
    GYRE_STATS(COUNTER, GAUGE, HISTOGRAM)};

/* ---- writing ---- */

static void put_bytes(struct text *t, const char *bytes, size_t len)
{
    if (!t->full && len < t->size && t->len < t->size - len)
        memcpy(t->out + t->len, bytes, len);
    else
        t->full = true;
    t->len += len;
}

static void put(struct text *t, const char *string)
{
    put_bytes(t, string, strlen(string));
}

static void put_number(struct text *t, uint64_t value, unsigned unit)
{
    char digits[32];
    int len = unit == GYRE_UNIT_NS ? snprintf(digits, sizeof digits, "%" PRIu64 ".%09u", value / 1000000000,
                                              (unsigned)(value % 1000000000))
                                   : snprintf(digits, sizeof digits, "%" PRIu64, value);
    put_bytes(t, digits, (size_t)len);
}

static void end_line(struct text *t)
{
    put_bytes(t, "\n", 1);
    if (!t->full)
        t->kept = t->len;
}

static void put_escaped(struct text *t, const char *value)
{
    for (; *value != '\0'; value++) {
        if (*value == '\\' || *value == '"')
            put_bytes(t, "\\", 1);
        if (*value == '\n')
            put(t, "\\n");
        else
            put_bytes(t, value, 1);
    }
}

/* ---- samples ---- */

/* Everything of a sample but its value; `le` UINT64_MAX: +Inf, NULL: no such label. */
static void put_head(struct text *t, const struct source *src, const struct gyre_loop *l, const struct metric *m,
                     const char *suffix, const uint64_t *le)
{
    put(t, m->name);
    put(t, suffix);
    put(t, "{loop=\"");
    put_number(t, l->index, GYRE_UNIT_ONE);
    put(t, "\",backend=\"");
    put(t, l->report.backend);
    put(t, "\"");
    for (size_t i = 0; i < src->label_count; i++) {
        put(t, ",");
        put(t, src->labels[i].name);
        put(t, "=\"");
        put_escaped(t, src->labels[i].value);
        put(t, "\"");
    }
    if (le != NULL) {
        put(t, ",le=\"");
        if (*le == UINT64_MAX)
            put(t, "+Inf");
        else
            put_number(t, *le, m->unit);
        put(t, "\"");
    }
    put(t, "} ");
}

static void put_sample(struct text *t, const struct source *src, const struct gyre_loop *l, const struct metric *m,
                       const char *suffix, uint64_t value, unsigned unit)
{
    put_head(t, src, l, m, suffix, NULL);
    put_number(t, value, unit);
    end_line(t);
}

static void put_histogram(struct text *t, const struct source *src, const struct gyre_loop *l, const struct metric *m,
                          const struct gyre_histogram *h)
{
    uint64_t count = 0, inf = UINT64_MAX;
    for (unsigned i = 0; i < GYRE_HISTOGRAM_BUCKETS; i++) {
        count += h->buckets[i];
        if (i < m->first || i > m->last)
            continue;
        uint64_t le = i == 0 ? 0 : UINT64_C(1) << (i - 1);
        put_head(t, src, l, m, "_bucket", &le);
        put_number(t, count, GYRE_UNIT_ONE);
        end_line(t);
    }
    put_head(t, src, l, m, "_bucket", &inf);
    put_number(t, count, GYRE_UNIT_ONE);
    end_line(t);
    put_sample(t, src, l, m, "_sum", h->sum, m->unit);
    put_sample(t, src, l, m, "_count", count, GYRE_UNIT_ONE);
}

static const struct gyre_loop *loop_at(const struct source *src, uint32_t index)
{
    if (src->engine != NULL)
        return gyre_engine_loop(src->engine, index);
    return index == 0 ? src->loop : NULL;
}

static void put_metric(struct text *t, const struct source *src, const struct metric *m)
{
    const struct gyre_loop *l;
    put(t, "# HELP ");
    put(t, m->name);
    put(t, " ");
    put(t, m->help);
    end_line(t);
    put(t, "# TYPE ");
    put(t, m->name);
    put(t, m->kind == 'c' ? " counter" : m->kind == 'g' ? " gauge" : " histogram");
    end_line(t);
    for (uint32_t i = 0; (l = loop_at(src, i)) != NULL; i++) {
        struct gyre_stats stats;
        gyre__stats_read(l, &stats);
        const void *value = (const char *)&stats + m->offset;
        if (m->kind == 'h')
            put_histogram(t, src, l, m, value);
        else
            put_sample(t, src, l, m, "", *(const uint64_t *)value, GYRE_UNIT_ONE);
    }
}

/* ---- labels ---- */

static bool is_name(const char *name)
{
    static const char allowed[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ_0123456789";
    if (name == NULL || name[0] == '\0' || (name[0] >= '0' && name[0] <= '9'))
        return false;
    return name[strspn(name, allowed)] == '\0' && strncmp(name, "__", 2) != 0;
}

static bool is_taken(const char *name, const struct gyre_label *labels, size_t count)
{
    if (strcmp(name, "loop") == 0 || strcmp(name, "backend") == 0 || strcmp(name, "le") == 0)
        return true;
    for (size_t i = 0; i < count; i++)
        if (strcmp(labels[i].name, name) == 0)
            return true;
    return false;
}

/* The bytes of the UTF-8 sequence at `s` (RFC 3629), 0 if there is none. */
static unsigned sequence(const unsigned char *s)
{
    unsigned len = s[0] < 0x80 ? 1 : s[0] < 0xc2 ? 0 : s[0] < 0xe0 ? 2 : s[0] < 0xf0 ? 3 : s[0] < 0xf5 ? 4 : 0;
    for (unsigned i = 1; i < len; i++)
        if ((s[i] & 0xc0) != 0x80)
            return 0;
    bool overlong = (s[0] == 0xe0 && s[1] < 0xa0) || (s[0] == 0xf0 && s[1] < 0x90);
    bool none = (s[0] == 0xed && s[1] >= 0xa0) || (s[0] == 0xf4 && s[1] >= 0x90); /* surrogates, above 10FFFF */
    return overlong || none ? 0 : len;
}

static bool is_utf8(const char *value)
{
    const unsigned char *s = (const unsigned char *)value;
    if (value == NULL)
        return false;
    for (unsigned len; *s != '\0'; s += len) {
        len = sequence(s);
        if (len == 0)
            return false;
    }
    return true;
}

static bool are_labels(const struct gyre_label *labels, size_t count)
{
    for (size_t i = 0; i < count; i++)
        if (!is_name(labels[i].name) || is_taken(labels[i].name, labels, i) || !is_utf8(labels[i].value))
            return false;
    return true;
}

/* ---- the user's side ---- */

static int64_t expose(char *out, size_t size_bytes, const struct source *src)
{
    struct text t = {.out = out, .size = size_bytes};
    bool good = are_labels(src->labels, src->label_count);
    for (size_t i = 0; good && i < sizeof metrics / sizeof metrics[0]; i++)
        put_metric(&t, src, &metrics[i]);
    if (size_bytes > 0)
        out[t.kept] = '\0';
    return good ? (int64_t)t.len : -EINVAL;
}

int64_t gyre_loop_prometheus(char *out, size_t size_bytes, const struct gyre_loop *loop,
                             const struct gyre_label *labels, size_t label_count)
{
    return expose(out, size_bytes, &(struct source){.loop = loop, .labels = labels, .label_count = label_count});
}

int64_t gyre_engine_prometheus(char *out, size_t size_bytes, const struct gyre_engine *engine,
                               const struct gyre_label *labels, size_t label_count)
{
    return expose(out, size_bytes, &(struct source){.engine = engine, .labels = labels, .label_count = label_count});
}
