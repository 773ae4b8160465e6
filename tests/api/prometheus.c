/* SPDX-License-Identifier: MIT
 * The text for Prometheus, read back by a parser that knows the format (exposition format 0.0.4) and not how the text
 * is made: every line, the order of families, labels and their escapes, and histograms that are cumulative. */
#include "fixture.h"

#include <errno.h>
#include <gyre/stats.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { LABELS_MAX = 8, SAMPLES_MAX = 4096, TEXT_MAX = 1 << 20 };

struct label {
    char name[32];
    char value[64]; /* unescaped */
};

struct sample {
    char name[64];
    struct label labels[LABELS_MAX];
    unsigned label_count;
    double value;
};

struct scrape {
    struct sample samples[SAMPLES_MAX];
    unsigned count;
    char family[64]; /* being read */
    char type[16];
    char families[256][64];
    unsigned family_count;
};

static struct scrape scrape;
static char text[TEXT_MAX];

static size_t span_of_name(const char *at)
{
    return strspn(at, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_:");
}

/* Copy a name to `out` and return what follows it. */
static const char *take_name(char *out, size_t size, const char *at)
{
    size_t len = span_of_name(at);
    cr_assert(len > 0 && len < size && !(at[0] >= '0' && at[0] <= '9'), "no name: %.40s", at);
    memcpy(out, at, len);
    out[len] = '\0';
    return at + len;
}

static const char *take_value(struct label *label, const char *at)
{
    size_t n = 0;
    cr_assert_eq(*at++, '"');
    while (*at != '"') {
        cr_assert(*at != '\0' && *at != '\n' && n + 1 < sizeof label->value, "a value has no end");
        char c = *at++;
        if (c == '\\') {
            cr_assert(*at == '\\' || *at == '"' || *at == 'n', "no such escape: \\%c", *at);
            c = *at == 'n' ? '\n' : *at;
            at++;
        }
        label->value[n++] = c;
    }
    label->value[n] = '\0';
    return at + 1;
}

static const char *take_labels(struct sample *s, const char *at)
{
    cr_assert_eq(*at++, '{');
    while (*at != '}') {
        cr_assert_lt(s->label_count, (unsigned)LABELS_MAX);
        struct label *label = &s->labels[s->label_count++];
        at = take_name(label->name, sizeof label->name, at);
        cr_assert_eq(*at++, '=');
        at = take_value(label, at);
        cr_assert(*at == ',' || *at == '}');
        at += *at == ',';
    }
    return at + 1;
}

static bool belongs(const char *name)
{
    size_t len = strlen(scrape.family);
    if (strcmp(scrape.type, "histogram") != 0)
        return strcmp(name, scrape.family) == 0;
    return strncmp(name, scrape.family, len) == 0 && (strcmp(name + len, "_bucket") == 0 ||
                                                       strcmp(name + len, "_sum") == 0 ||
                                                       strcmp(name + len, "_count") == 0);
}

static void take_sample(const char *line)
{
    cr_assert_lt(scrape.count, (unsigned)SAMPLES_MAX);
    struct sample *s = &scrape.samples[scrape.count++];
    *s = (struct sample){.label_count = 0};
    const char *at = take_labels(s, take_name(s->name, sizeof s->name, line));
    cr_assert(belongs(s->name), "%s in the family of %s (%s)", s->name, scrape.family, scrape.type);
    cr_assert_eq(*at++, ' ');
    char *end;
    s->value = strtod(at, &end);
    cr_assert(end > at && *end == '\0', "no number: %s", at);
}

static void take_comment(const char *line)
{
    char name[64];
    bool help = strncmp(line, "# HELP ", 7) == 0;
    cr_assert(help || strncmp(line, "# TYPE ", 7) == 0, "neither help nor type: %s", line);
    const char *at = take_name(name, sizeof name, line + 7);
    cr_assert_eq(*at++, ' ');
    cr_assert_eq(strncmp(name, "gyre_", 5), 0);
    if (help) {
        for (unsigned i = 0; i < scrape.family_count; i++)
            cr_assert_str_neq(scrape.families[i], name, "two families of one name");
        cr_assert_gt(strlen(at), 5, "%s has no help", name);
        cr_assert_null(strchr(at, '\\'));
        (void)snprintf(scrape.families[scrape.family_count++], sizeof name, "%s", name);
        (void)snprintf(scrape.family, sizeof scrape.family, "%s", name);
        scrape.type[0] = '\0';
        return;
    }
    cr_assert_str_eq(name, scrape.family, "a type without its help");
    cr_assert_str_empty(scrape.type, "two types");
    cr_assert(strcmp(at, "counter") == 0 || strcmp(at, "gauge") == 0 || strcmp(at, "histogram") == 0);
    size_t len = strlen(name);
    cr_assert_eq(strcmp(at, "counter") == 0, len > 6 && strcmp(name + len - 6, "_total") == 0);
    (void)snprintf(scrape.type, sizeof scrape.type, "%s", at);
}

/* Read it, which must be lines to the end. */
static void parse(const char *from)
{
    char line[512];
    memset(&scrape, 0, sizeof scrape);
    while (*from != '\0') {
        size_t len = strcspn(from, "\n");
        cr_assert(from[len] == '\n' && len < sizeof line, "not a whole line: %.60s", from);
        memcpy(line, from, len);
        line[len] = '\0';
        if (line[0] == '#')
            take_comment(line);
        else
            take_sample(line);
        from += len + 1;
    }
}

static const char *label_of(const struct sample *s, const char *name)
{
    for (unsigned i = 0; i < s->label_count; i++)
        if (strcmp(s->labels[i].name, name) == 0)
            return s->labels[i].value;
    return "";
}

static double value_of(const char *name, const char *loop, const char *le)
{
    for (unsigned i = 0; i < scrape.count; i++) {
        const struct sample *s = &scrape.samples[i];
        if (strcmp(s->name, name) == 0 && strcmp(label_of(s, "loop"), loop) == 0 &&
            strcmp(label_of(s, "le"), le) == 0)
            return s->value;
    }
    cr_assert_fail("no sample %s{loop=\"%s\",le=\"%s\"}", name, loop, le);
    return 0;
}

/* The buckets of each histogram of each loop rise to +Inf, which is the count. */
static void check_histograms(void)
{
    unsigned ends = 0;
    for (unsigned i = 0; i < scrape.count; i++) {
        const struct sample *s = &scrape.samples[i], *next = s + 1;
        if (strstr(s->name, "_bucket") == NULL)
            continue;
        if (strcmp(label_of(s, "le"), "+Inf") != 0) {
            cr_assert_str_eq(next->name, s->name);
            cr_assert_str_eq(label_of(next, "loop"), label_of(s, "loop"));
            cr_assert_leq(s->value, next->value);
            cr_assert_lt(strtod(label_of(s, "le"), NULL), strtod(label_of(next, "le"), NULL));
            continue;
        }
        cr_assert_not_null(strstr(next->name, "_sum"));
        cr_assert_not_null(strstr(next[1].name, "_count"));
        cr_assert_eq(next[1].value, s->value);
        ends++;
    }
    cr_assert_geq(ends, 4);
}

static void scrape_loop(const struct gyre_loop *loop, const struct gyre_label *labels, size_t label_count)
{
    int64_t len = gyre_loop_prometheus(text, sizeof text, loop, labels, label_count);
    cr_assert(len > 0 && len < (int64_t)sizeof text);
    cr_assert_eq(strlen(text), (size_t)len);
    parse(text);
    check_histograms();
}

/* The text says what the counters say, under the names and types that go with them. */
BACKEND_TEST(api_prometheus, says_what_was_counted)
{
    struct api api;
    struct peer peer;
    const struct script script = {.data = end_forward_back};
    api_start(&api, p, &script);
    struct end *e = peer_open(&api, &peer);
    peer.key_in = peer.key_out;
    peer_send(&peer, 50000);
    peer_expect(&peer, 50000);
    api_until(&api, api_stats(&api).bytes_out == 50000); /* the peer may have it before we are told */
    struct gyre_stats s = api_stats(&api);
    scrape_loop(api.loop, NULL, 0);
    cr_assert_eq(value_of("gyre_received_bytes_total", "0", ""), 50000);
    cr_assert_eq(value_of("gyre_sent_bytes_total", "0", ""), 50000);
    cr_assert_eq(value_of("gyre_connections", "0", ""), 1);
    cr_assert_eq(value_of("gyre_outbound_bytes", "0", ""), 0);
    cr_assert_eq(value_of("gyre_receive_bytes_sum", "0", ""), 50000);
    cr_assert_eq(value_of("gyre_receive_bytes_bucket", "0", "+Inf"), value_of("gyre_receive_bytes_count", "0", ""));
    cr_assert_eq(value_of("gyre_turn_events_count", "0", ""), (double)s.turns);
    cr_assert_eq(value_of("gyre_turn_events_sum", "0", ""), (double)s.events);
    cr_assert_eq(value_of("gyre_turn_events_bucket", "0", "0"), (double)s.turn_events.buckets[0]);
    cr_assert_eq(value_of("gyre_turn_events_bucket", "0", "256"), (double)s.turns);
    (void)value_of("gyre_turn_duration_seconds_bucket", "0", "0.000001024");
    for (unsigned i = 0; i < scrape.count; i++)
        cr_assert_str_eq(label_of(&scrape.samples[i], "backend"), p->backend);
    cr_assert_eq(gyre_conn_close(e->c), 0);
    peer_until_end(&peer);
    peer_close(&peer);
    api_close(&api);
}

/* ---- the text itself; the simulator will do ---- */

static struct gyre_sim *sim;
static struct gyre_loop *loop;

static void open_sim(void)
{
    cr_assert_eq(gyre_sim_create(&sim, &(struct gyre_sim_options){.seed = 1}), 0);
    cr_assert_eq(gyre_loop_create(&loop, &(struct gyre_loop_options){.sim = sim}), 0);
}

static void close_sim(void)
{
    gyre_loop_destroy(loop);
    gyre_sim_destroy(sim);
}

TestSuite(prometheus, .init = open_sim, .fini = close_sim, .timeout = 60);

/* Labels of the user's are on every sample, and come back as they were given. */
Test(prometheus, labels)
{
    static const struct gyre_label labels[] = {
        {"zone", "eu \"west\"\n\\n"}, {"_x9", ""}, {"name", "\xce\xbb \xf0\x9f\x8c\x80\t{},="}};
    scrape_loop(loop, labels, 3);
    cr_assert_gt(scrape.count, 100);
    for (unsigned i = 0; i < scrape.count; i++)
        for (unsigned k = 0; k < 3; k++)
            cr_assert_str_eq(label_of(&scrape.samples[i], labels[k].name), labels[k].value);
}

Test(prometheus, bad_labels)
{
    static const struct gyre_label bad[] = {
        {NULL, "x"},       {"", "x"},      {"9a", "x"},           {"a-b", "x"},          {"a b", "x"},
        {"\xc3\xa4", "x"}, {"__a", "x"},   {"loop", "x"},         {"backend", "x"},      {"le", "x"},
        {"a", NULL},       {"a", "\xff"},  {"a", "\xc3"},         {"a", "\xc0\x80"},     {"a", "\xed\xa0\x80"},
        {"a", "\x80"},     {"a", "\xe2("}, {"a", "\xf4\x90\x80\x80"}, {"a", "\xf0\x80\x80\x80"}, {"a:b", "x"}};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        const struct gyre_label both[] = {{"good", "x"}, bad[i]};
        text[0] = 'x';
        cr_assert_eq(gyre_loop_prometheus(text, sizeof text, loop, both, 2), -EINVAL, "label %zu", i);
        cr_assert_str_empty(text);
    }
    const struct gyre_label twice[] = {{"a", "1"}, {"b", "2"}, {"a", "3"}};
    cr_assert_eq(gyre_loop_prometheus(text, sizeof text, loop, twice, 3), -EINVAL);
    cr_assert_eq(gyre_loop_prometheus(NULL, 0, loop, twice, 3), -EINVAL);
}

/* Whatever the size: never beyond it, the length needed all the same, and whole lines only. */
Test(prometheus, sizes)
{
    static char whole[TEXT_MAX];
    int64_t need = gyre_loop_prometheus(NULL, 0, loop, NULL, 0);
    cr_assert_eq(gyre_loop_prometheus(whole, (size_t)need + 1, loop, NULL, 0), need);
    cr_assert_eq(strlen(whole), (size_t)need);
    parse(whole);
    for (size_t size = 0; size <= (size_t)need + 2; size += size < 300 || size > (size_t)need - 300 ? 1 : 97) {
        memset(text, 'x', (size_t)need + 8);
        cr_assert_eq(gyre_loop_prometheus(text, size, loop, NULL, 0), need);
        cr_assert_eq(text[size], 'x', "written beyond %zu bytes", size);
        if (size == 0)
            continue;
        size_t len = strlen(text);
        cr_assert_lt(len, size);
        cr_assert_eq(strncmp(text, whole, len), 0);
        cr_assert(len == 0 || text[len - 1] == '\n', "a line is cut at %zu bytes", size);
        size_t line = len < (size_t)need ? strcspn(whole + len, "\n") + 1 : size;
        cr_assert_geq(len + line, size, "with %zu bytes a line more would fit", size);
    }
}

/* One sample per loop under one heading; the sums are of all. */
Test(prometheus, engine)
{
    static struct gyre_stats sum;
    struct gyre_engine *engine;
    const struct gyre_loop_options options = {.sim = sim};
    cr_assert_eq(gyre_engine_create(&engine, &(struct gyre_engine_options){.loops = 3, .loop = options}), 0);
    static const char *const loops[] = {"0", "1", "2"};
    for (uint32_t i = 0; i < 3; i++)
        for (uint32_t turns = 0; turns <= i; turns++)
            cr_assert_eq(gyre_loop_run_nowait(gyre_engine_loop(engine, i)), 0);
    int64_t len = gyre_engine_prometheus(text, sizeof text, engine, NULL, 0);
    cr_assert(len > 0 && (size_t)len == strlen(text));
    parse(text);
    check_histograms();
    for (uint32_t i = 0; i < 3; i++)
        cr_assert_eq(value_of("gyre_turns_total", loops[i], ""), i + 1);
    gyre_engine_stats(&sum, engine);
    cr_assert_eq(sum.turns, 6);
    cr_assert_eq(sum.enters, 6);
    cr_assert_eq(sum.enter_completions.buckets[0], 6);
    gyre_engine_destroy(engine);
}

/* A caller built with a smaller struct gets that, one with a larger gets zeroes. */
Test(prometheus, stats_of_other_versions)
{
    struct {
        struct gyre_stats stats;
        uint64_t more[4];
    } out;
    memset(&out, 0xaa, sizeof out);
    cr_assert_eq(gyre_loop_run_nowait(loop), 0);
    gyre_loop_stats_sized(&out.stats, 2 * sizeof(uint64_t), loop);
    cr_assert_eq(out.stats.turns, 1);
    cr_assert_eq(out.stats.enters, 1);
    cr_assert_eq(out.stats.sqes, UINT64_C(0xaaaaaaaaaaaaaaaa));
    gyre_loop_stats_sized(&out.stats, sizeof out, loop);
    cr_assert_eq(out.stats.sqes, 0);
    cr_assert_eq(out.more[0] | out.more[3], 0);
}
