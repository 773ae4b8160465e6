/* SPDX-License-Identifier: MIT
 * Options: copying a struct of another size, the defaults, and what is out of range. */
#include "base/options.h"
#include "stream/conn.h"

#include "env.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <gyre.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { KNOWN = 32 };

static char here[64]; /* an abstract name, this process's own: tests run side by side */

static void name_address(void)
{
    (void)snprintf(here, sizeof here, "unix://@gyre-options-%d", (int)getpid());
}

TestSuite(options, .init = name_address);

/* Whatever the two sizes are: what both know is copied, the rest is zero, and something set in what only the caller
 * knows is refused. */
Test(options, copied_at_every_size)
{
    uint8_t src[2 * KNOWN], dst[KNOWN + 8];
    for (size_t size = 0; size <= sizeof src; size++) {
        memset(src, 0, sizeof src);
        memset(src, 0xab, size < KNOWN ? size : KNOWN);
        memset(dst, 0x5a, sizeof dst);
        cr_assert_eq(gyre__options_copy(dst, KNOWN, src, size), 0, "size %zu", size);
        for (size_t i = 0; i < KNOWN; i++)
            cr_assert_eq(dst[i], i < size ? 0xab : 0, "byte %zu of size %zu", i, size);
        for (size_t i = KNOWN; i < sizeof dst; i++)
            cr_assert_eq(dst[i], 0x5a, "written behind the end");
    }
}

/* One bit set anywhere beyond what the library knows: -E2BIG. Beyond the caller's size it does not count. */
Test(options, too_big)
{
    uint8_t src[2 * KNOWN] = {0}, dst[KNOWN];
    for (size_t at = KNOWN; at < sizeof src; at++) {
        src[at] = 0x80;
        cr_assert_eq(gyre__options_copy(dst, KNOWN, src, sizeof src), -E2BIG);
        cr_assert_eq(gyre__options_copy(dst, KNOWN, src, at + 1), -E2BIG);
        cr_assert_eq(gyre__options_copy(dst, KNOWN, src, at), 0);
        src[at] = 0;
    }
}

/* NULL means all defaults, at whatever size. */
Test(options, null)
{
    uint8_t dst[KNOWN];
    memset(dst, 0x5a, sizeof dst);
    cr_assert_eq(gyre__options_copy(dst, KNOWN, NULL, 1000), 0);
    for (size_t i = 0; i < KNOWN; i++)
        cr_assert_eq(dst[i], 0);
}

/* ---- The public calls keep the rule. ---- */

/* A caller of tomorrow: its struct is longer. */
struct longer {
    union {
        struct gyre_loop_options loop;
        struct gyre_conn_options conn;
        struct gyre_sim_options sim;
        uint8_t bytes[512];
    } u;
};

static void on_data(struct gyre_conn *c)
{
    (void)c;
}

static const struct gyre_conn_handlers handlers = {.on_data = on_data};

Test(options, calls_refuse_what_they_do_not_know)
{
    struct longer future;
    struct gyre_loop *loop = NULL;
    struct gyre_sim *sim = NULL;
    struct gyre_conn *c = NULL;
    memset(&future, 0, sizeof future);
    cr_assert_eq(gyre_loop_create_sized(&loop, &future.u.loop, sizeof future), 0, "all zero in the part not known");
    future.u.bytes[sizeof future - 1] = 1;
    struct gyre_loop *other = NULL;
    cr_assert_eq(gyre_loop_create_sized(&other, &future.u.loop, sizeof future), -E2BIG);
    cr_assert_null(other);
    cr_assert_eq(gyre_sim_create_sized(&sim, &future.u.sim, sizeof future), -E2BIG);
    cr_assert_null(sim);
    cr_assert_eq(gyre_connect_sized(&c, loop, "tcp://127.0.0.1:1", &handlers, &future.u.conn, sizeof future), -E2BIG);
    cr_assert_null(c);
    cr_assert_eq(gyre_loop_conn_count(loop), 0);
    gyre_loop_destroy(loop);
}

/* Nested options of a caller whose header is another: `own` bytes before them, `nested` bytes of them. Each of the two
 * parts is the library's cut off or with zeroes appended. `at` is where the nested part begins. */
struct foreign {
    uint8_t bytes[1024];
    size_t size;
    size_t nested;
    size_t at;
};

static void put_foreign(struct foreign *f, const void *known, size_t known_size, size_t known_nested, size_t own,
                        size_t nested)
{
    size_t known_own = known_size - known_nested;
    *f = (struct foreign){.size = own + nested, .nested = nested, .at = own};
    memcpy(f->bytes, known, own < known_own ? own : known_own);
    memcpy(f->bytes + own, (const uint8_t *)known + known_own, nested < known_nested ? nested : known_nested);
}

/* Both parts of nested options grow by themselves, at any two sizes. */
Test(options, nested_at_every_size)
{
    enum { OWN = 16, NESTED = 24, LONGEST = 32 };
    uint8_t known[OWN + NESTED], dst[OWN + NESTED];
    struct foreign f;
    memset(known, 0xab, OWN);
    memset(known + OWN, 0xcd, NESTED);
    for (size_t own = 0; own <= LONGEST; own++) {
        for (size_t nested = 0; nested <= LONGEST; nested++) {
            put_foreign(&f, known, sizeof known, NESTED, own, nested);
            cr_assert_eq(gyre__options_copy_nested(dst, sizeof dst, NESTED, f.bytes, f.size, nested), 0);
            for (size_t i = 0; i < OWN; i++)
                cr_assert_eq(dst[i], i < own ? 0xab : 0, "own byte %zu of %zu", i, own);
            for (size_t i = 0; i < NESTED; i++)
                cr_assert_eq(dst[OWN + i], i < nested ? 0xcd : 0, "nested byte %zu of %zu", i, nested);
        }
    }
    cr_assert_eq(gyre__options_copy_nested(dst, sizeof dst, NESTED, f.bytes, 4, 5), -EINVAL);
    cr_assert_eq(gyre__options_copy_nested(dst, sizeof dst, NESTED, NULL, 1000, 5), 0);
    for (size_t i = 0; i < sizeof dst; i++)
        cr_assert_eq(dst[i], 0);
}

static int listen_as(struct gyre_listener **out, struct gyre_loop *loop, const struct foreign *f)
{
    struct gyre_listener_options options[2]; /* aligned, and at least as long as what is passed */
    memcpy(options, f->bytes, f->size);
    return gyre_loop_listen_sized(out, loop, here, &handlers, options, f->size, f->nested);
}

/* A newer and an older caller of a call with nested options. */
Test(options, nested_calls)
{
    const struct gyre_listener_options known = {.backlog = 7, .conn = {.idle_timeout_ns = -1}};
    const size_t conn = sizeof known.conn, own = sizeof known - sizeof known.conn;
    struct gyre_listener *listener = NULL;
    struct gyre_loop *loop = NULL;
    struct foreign f;
    cr_assert_eq(gyre_loop_create(&loop, NULL), 0);
    put_foreign(&f, &known, sizeof known, conn, own + 8, conn + 8);
    cr_assert_eq(listen_as(&listener, loop, &f), GYRE_EOPTION, "the negative timeout is found where it lies");
    put_foreign(&f, &(struct gyre_listener_options){.backlog = 7}, sizeof known, conn, own + 8, conn + 8);
    f.bytes[own + 7] = 1;
    cr_assert_eq(listen_as(&listener, loop, &f), -E2BIG, "a field of its own");
    f.bytes[own + 7] = 0;
    f.bytes[f.size - 1] = 1;
    cr_assert_eq(listen_as(&listener, loop, &f), -E2BIG, "a field of the nested options");
    cr_assert_null(listener);
    f.bytes[f.size - 1] = 0;
    cr_assert_eq(listen_as(&listener, loop, &f), 0);
    cr_assert_eq(gyre_listener_close(listener), 0);
    cr_assert_geq(gyre_loop_run_nowait(loop), 0); /* its socket is closed now, and the name is free */
    put_foreign(&f, &known, sizeof known, conn, 8, 16);
    int err = listen_as(&listener, loop, &f);
    cr_assert_eq(err, 0, "an older one, without a timeout: %s", gyre_err_name(err));
    gyre_loop_destroy(loop);
}

/* ---- What is said of a refused option ---- */

static void expect_said(const char *sentence)
{
    cr_expect_str_eq(gyre_last_option_error(), sentence);
}

static int connect_with(struct gyre_loop *loop, const struct gyre_conn_options *o)
{
    return gyre_connect(NULL, loop, here, &handlers, o);
}

/* The option, its value and its range, of one call of each kind; what succeeds or fails otherwise leaves it alone. */
Test(options, refused_by_name)
{
    struct gyre_loop *loop = NULL, *other = NULL;
    struct gyre_framer framer;
    cr_assert_eq(gyre_loop_create(&loop, NULL), 0);
    expect_said("");
    cr_expect_eq(gyre_loop_create(&other, &(struct gyre_loop_options){.buf_size_bytes = 7}), GYRE_EOPTION);
    expect_said("buf_size_bytes is 7; it must be 256 to 1048576");
    cr_expect_eq(connect_with(loop, &(struct gyre_conn_options){.write_max_bytes = 10, .write_high_bytes = 11}),
                 GYRE_EOPTION);
    expect_said("write_high_bytes is 11; it must be 1 to 10");
    cr_expect_eq(connect_with(loop, &(struct gyre_conn_options){.idle_timeout_ns = -5}), GYRE_EOPTION);
    expect_said("idle_timeout_ns is -5; it must not be negative");
    cr_expect_eq(connect_with(loop, &(struct gyre_conn_options){.keepalive = {.count = 128}}), GYRE_EOPTION);
    expect_said("keepalive.count is 128; it must be 0 to 127");
    cr_expect_eq(gyre_loop_listen(NULL, loop, here, &handlers, &(struct gyre_listener_options){.defer_accept_s = 1}),
                 GYRE_EOPTION);
    expect_said("GYRE_BALANCE_KERNEL, defer_accept_s, fastopen_queue and device are for TCP only");
    cr_expect_eq(gyre_framer_init_fixed(&framer, 0), GYRE_EOPTION);
    expect_said("len is 0; it must be 1 to 1073741824");
    cr_expect_eq(gyre_framer_init_fixed(&framer, SIZE_MAX), GYRE_EOPTION);
    cr_expect_eq(gyre_framer_init_line(&framer, 4, 0), GYRE_EOPTION);
    expect_said("flags is 0x4; the flags are GYRE_FRAME_KEEP and GYRE_FRAME_CRLF");
    cr_expect_eq(gyre_framer_init_line(&framer, 0, 0), 0);
    cr_expect_eq(gyre_connect(NULL, loop, "nonsense", &handlers, NULL), GYRE_EADDRESS);
    expect_said("flags is 0x4; the flags are GYRE_FRAME_KEEP and GYRE_FRAME_CRLF");
    gyre_loop_destroy(loop);
}

/* A caller of yesterday: only the first fields are there, and what lies behind them in its memory is not looked at. */
Test(options, calls_take_less)
{
    struct gyre_loop_options options;
    struct gyre_loop *loop;
    memset(&options, 0xff, sizeof options);
    options.backend = NULL;
    cr_assert_eq(gyre_loop_create_sized(&loop, &options, sizeof options.backend), 0);
    gyre_loop_destroy(loop);
    cr_assert_eq(gyre_loop_create_sized(&loop, &options, 0), 0);
    gyre_loop_destroy(loop);
    cr_assert_eq(gyre_loop_create(&loop, NULL), 0);
    gyre_loop_destroy(loop);
}

/* ---- Ranges. ---- */

Test(options, of_a_loop)
{
    static const struct {
        struct gyre_loop_options o;
        int err;
    } table[] = {
        {{.ops_max = 1}, 0},
        {{.ops_max = 65536}, 0},
        {{.ops_max = 65537}, GYRE_EOPTION},
        {{.ops_max = UINT32_MAX}, GYRE_EOPTION},
        {{.buf_size_bytes = 256}, 0},
        {{.buf_size_bytes = 255}, GYRE_EOPTION},
        {{.buf_size_bytes = 1}, GYRE_EOPTION},
        {{.buf_size_bytes = 1 << 20, .buf_count_max = 16}, 0},
        {{.buf_size_bytes = (1 << 20) + 1}, GYRE_EOPTION},
        {{.buf_size_bytes = UINT32_MAX}, GYRE_EOPTION},
        {{.buf_size_bytes = 257, .buf_count = 3, .buf_count_max = 3}, 0},
        {{.buf_count = 1, .buf_count_max = 1}, 0},
        {{.buf_count_max = 1}, 0},
        {{.buf_count_max = 16384}, 0},
        {{.buf_count_max = 16385}, GYRE_EOPTION},
        {{.buf_size_bytes = 1 << 20, .buf_count_max = 16384}, sizeof(size_t) > 4 ? 0 : GYRE_EOPTION},
        {{.buf_count = 16385}, GYRE_EOPTION},
        {{.buf_count = 2000}, 0},
        {{.buf_count = 17, .buf_count_max = 16}, GYRE_EOPTION},
        {{.conns_max = 1}, 0},
        {{.conns_max = UINT32_MAX}, 0},
        {{.tasks_max = 1}, 0},
        {{.tasks_max = UINT32_MAX}, 0},
        {{.busy_poll_us = 1}, 0},
        {{.busy_poll_us = 10000, .busy_poll_prefer = true}, 0},
        {{.busy_poll_us = 10001}, GYRE_EOPTION},
        {{.busy_poll_us = UINT32_MAX}, GYRE_EOPTION},
        {{.busy_poll_prefer = true}, GYRE_EOPTION},
        {{.urgent_tasks_max = 1}, 0},
        {{.urgent_tasks_max = UINT32_MAX}, 0},
        {{.buf_keep_ns = 1}, 0},
        {{.buf_keep_ns = INT64_MAX}, 0},
        {{.buf_keep_ns = -1}, GYRE_EOPTION},
        {{.buf_keep_ns = INT64_MIN}, GYRE_EOPTION},
    };
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++) {
        struct gyre_loop *loop = NULL;
        cr_assert_eq(gyre_loop_create(&loop, &table[i].o), table[i].err, "row %zu", i);
        cr_assert_eq(loop != NULL, table[i].err == 0, "row %zu", i);
        gyre_loop_destroy(loop);
    }
}

static const struct {
    struct gyre_conn_options o;
    int err;
} conn_table[] = {
    {{.nagle = false}, 0},
    {{.read_max_bytes = 1, .write_max_bytes = 1}, 0},
    {{.read_max_bytes = 1 << 30, .write_max_bytes = 1 << 30}, 0},
    {{.write_max_bytes = (1 << 30) + 1}, GYRE_EOPTION},
    {{.write_max_bytes = UINT32_MAX}, GYRE_EOPTION},
    {{.write_high_bytes = 100, .write_max_bytes = 99}, GYRE_EOPTION},
    {{.write_high_bytes = 100, .write_max_bytes = 100}, 0},
    {{.write_high_bytes = 100, .write_low_bytes = 100}, 0},
    {{.write_high_bytes = 100, .write_low_bytes = 101}, GYRE_EOPTION},
    {{.write_high_bytes = 1, .write_max_bytes = 1}, 0},
    {{.write_high_bytes = 100 << 20}, 0},
    {{.idle_timeout_ns = -1}, GYRE_EOPTION},
    {{.linger_timeout_ns = -1}, GYRE_EOPTION},
    {{.connect_timeout_ns = INT64_MIN}, GYRE_EOPTION},
    {{.idle_timeout_ns = INT64_MAX, .linger_timeout_ns = INT64_MAX, .connect_timeout_ns = INT64_MAX}, 0},
};

/* The same settings mean the same to a listener and to a connection made, and a refused one leaves nothing open. */
Test(options, of_a_connection)
{
    struct gyre_loop *loop;
    cr_assert_eq(gyre_loop_create(&loop, NULL), 0);
    int before = env_fd_count();
    for (size_t i = 0; i < sizeof conn_table / sizeof conn_table[0]; i++) {
        struct gyre_listener *listener = NULL;
        struct gyre_conn *c = NULL;
        struct gyre_listener_options options = {.conn = conn_table[i].o};
        int err = gyre_loop_listen(&listener, loop, here, &handlers, &options);
        cr_assert_eq(err, conn_table[i].err, "listening, row %zu: %s", i, gyre_err_name(err));
        cr_assert_eq(listener != NULL, err == 0);
        err = gyre_connect(&c, loop, here, &handlers, &conn_table[i].o);
        cr_assert_eq(err, conn_table[i].err, "connecting, row %zu: %s", i, gyre_err_name(err));
        if (err == 0)
            cr_assert_eq(gyre_conn_abort(c), 0);
        gyre_listener_close(listener);
        for (int turn = 0; turn < 100 && env_fd_count() > before; turn++)
            cr_assert_geq(gyre_loop_run_nowait(loop), 0);
        cr_assert_eq(env_fd_count(), before, "row %zu leaves a descriptor open", i);
    }
    gyre_loop_destroy(loop);
}

Test(options, defaults_of_a_connection)
{
    struct gyre__profile p = {.refs = 1};
    cr_assert_eq(gyre__profile_init(&p, &(struct gyre_conn_options){.nagle = false}, &handlers), 0);
    cr_assert_eq(p.options.read_max_bytes, 1 << 20);
    cr_assert_eq(p.options.write_high_bytes, 256 << 10);
    cr_assert_eq(p.options.write_low_bytes, 64 << 10);
    cr_assert_eq(p.options.write_max_bytes, 16 << 20);
    cr_assert_eq(p.options.idle_timeout_ns, 0);
    cr_assert_eq(p.options.linger_timeout_ns, INT64_C(30000000000));
    cr_assert_eq(p.options.connect_timeout_ns, INT64_C(30000000000));
    cr_assert_eq(gyre__profile_init(&p, &(struct gyre_conn_options){.write_high_bytes = 1000}, &handlers), 0);
    cr_assert_eq(p.options.write_low_bytes, 250);
    cr_assert_eq(gyre__profile_init(&p, &(struct gyre_conn_options){.write_max_bytes = 1000}, &handlers), 0);
    cr_assert_leq(p.options.write_high_bytes, 1000);
}

static uint32_t first_loop(struct gyre_listener *listener, const struct sockaddr *peer, socklen_t len, void *user)
{
    (void)listener;
    (void)peer;
    (void)len;
    (void)user;
    return 0;
}

Test(options, of_a_listener)
{
    const struct {
        const char *address;
        struct gyre_listener_options o;
        int err;
    } table[] = {
        {"tcp://127.0.0.1:0", {.backlog = 1}, 0},
        {"tcp://127.0.0.1:0", {.backlog = 1 << 20}, 0},
        {"tcp://127.0.0.1:0", {.backlog = (1 << 20) + 1}, GYRE_EOPTION},
        {"tcp://127.0.0.1:0", {.backlog = UINT32_MAX}, GYRE_EOPTION},
        {"tcp://127.0.0.1:0", {.balance = GYRE_BALANCE_KERNEL}, 0},
        {"tcp://127.0.0.1:0", {.balance = GYRE_BALANCE_ROUND_ROBIN}, 0},
        {"tcp://127.0.0.1:0", {.balance = GYRE_BALANCE_LEAST_CONNS}, 0},
        {"tcp://127.0.0.1:0", {.balance = GYRE_BALANCE_CUSTOM}, GYRE_EOPTION},
        {"tcp://127.0.0.1:0", {.balance = GYRE_BALANCE_CUSTOM, .choose = first_loop}, 0},
        {"tcp://127.0.0.1:0", {.balance = GYRE_BALANCE_RANDOM, .choose = first_loop}, GYRE_EOPTION},
        {"tcp://127.0.0.1:0", {.balance = (enum gyre_balance)(GYRE_BALANCE_CUSTOM + 1)}, GYRE_EOPTION},
        {"tcp://127.0.0.1:0", {.balance = (enum gyre_balance) - 1}, GYRE_EOPTION},
        {"tcp://127.0.0.1:0", {.defer_accept_s = 3600}, 0},
        {"tcp://127.0.0.1:0", {.defer_accept_s = 3601}, GYRE_EOPTION},
        {"tcp://127.0.0.1:0", {.fastopen_queue = (1 << 20) + 1}, GYRE_EOPTION},
        {"tcp://127.0.0.1:0", {.device = "nosuchdevice"}, -ENODEV},
        {here, {.device = "lo"}, GYRE_EOPTION},
        {here, {.defer_accept_s = 1}, GYRE_EOPTION},
        {here, {.fastopen_queue = 1}, GYRE_EOPTION},
        {here, {.balance = GYRE_BALANCE_SOURCE_HASH, .conns_max = 1}, 0},
        {here, {.balance = GYRE_BALANCE_KERNEL}, GYRE_EOPTION},
        {here, {.unix_mode = 0777}, 0},
        {here, {.unix_mode = 01000}, GYRE_EOPTION},
    };
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++) {
        struct gyre_engine *engine;
        cr_assert_eq(gyre_engine_create(&engine, &(struct gyre_engine_options){.loops = 2}), 0);
        int err = gyre_engine_listen(NULL, engine, table[i].address, &handlers, &table[i].o);
        cr_assert_eq(err, table[i].err, "row %zu: %s", i, gyre_err_name(err));
        gyre_engine_destroy(engine);
    }
}

Test(options, of_an_engine)
{
    static const struct {
        uint32_t loops;
        int err;
    } table[] = {{0, 0}, {1, 0}, {3, 0}, {GYRE_LOOPS_PER_CORE, 0}, {1025, GYRE_EOPTION}, {65534, GYRE_EOPTION},
                 {UINT32_MAX, GYRE_EOPTION}};
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++) {
        struct gyre_engine *engine = NULL;
        int err = gyre_engine_create(&engine, &(struct gyre_engine_options){.loops = table[i].loops});
        cr_assert_eq(err, table[i].err, "%u loops: %s", table[i].loops, gyre_err_name(err));
        if (err != 0)
            continue;
        cr_assert_geq(gyre_engine_loop_count(engine), 1);
        if (table[i].loops > 0 && table[i].loops < 1000)
            cr_assert_eq(gyre_engine_loop_count(engine), table[i].loops);
        cr_assert_null(gyre_engine_loop(engine, gyre_engine_loop_count(engine)));
        cr_assert_null(gyre_engine_loop(engine, UINT32_MAX));
        gyre_engine_destroy(engine);
    }
}
