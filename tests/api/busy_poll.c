/* SPDX-License-Identifier: MIT
 * Busy polling as a program asks for it: the report and the log say whether there is any, and a loop or an engine that
 * was asked for it serves as any other does. */
#include "crew.h"

#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

struct heard {
    unsigned told; /* that there is none */
    unsigned loud; /* warnings and worse */
};

static void listen_in(enum gyre_log_level level, const char *text, void *user)
{
    struct heard *heard = user;
    heard->told += level == GYRE_LOG_INFO && strstr(text, "no busy polling") != NULL;
    heard->loud += level >= GYRE_LOG_WARN;
}

static bool reported(const struct gyre_loop *loop)
{
    struct gyre_backend_report report;
    gyre_loop_backend(&report, loop);
    return strstr(report.features, "napi") != NULL;
}

static void ping(struct api *api, const struct script *script)
{
    struct peer peer;
    api_listen(api, script, NULL);
    (void)peer_open(api, &peer);
    peer.key_in = peer.key_out;
    peer_send(&peer, 10000);
    peer_expect(&peer, 10000);
    peer_close(&peer);
}

/* Either it is reported, or the log says once that there is none; never both, and no warning of it. */
BACKEND_TEST(api_busy_poll, on_a_loop)
{
    struct api api;
    struct heard heard = {.told = 0};
    const struct gyre_log log = {.line = listen_in, .user = &heard, .level_min = GYRE_LOG_INFO};
    const struct script echo = {.data = end_forward_back};
    api_init(&api, p);
    api.options.log = &log;
    api.options.busy_poll_us = 100;
    api_open(&api);
    cr_assert_eq(heard.told, reported(api.loop) ? 0 : 1);
    ping(&api, &echo);
    api_close(&api);
    cr_assert_leq(heard.told, 1);
    cr_assert_eq(heard.loud, 0);
}

/* A loop that was not asked to poll says nothing of it. */
BACKEND_TEST(api_busy_poll, not_asked_for)
{
    struct api api;
    struct heard heard = {.told = 0};
    const struct gyre_log log = {.line = listen_in, .user = &heard, .level_min = GYRE_LOG_INFO};
    api_init(&api, p);
    api.options.log = &log;
    api_open(&api);
    cr_assert_not(reported(api.loop));
    api_close(&api);
    cr_assert_eq(heard.told, 0);
}

/* Left out of the ring by the environment, as on a kernel that lacks it; the other backends have no such switch. */
BACKEND_TEST(api_busy_poll, left_out)
{
    struct api api;
    struct heard heard = {.told = 0};
    const struct gyre_log log = {.line = listen_in, .user = &heard, .level_min = GYRE_LOG_INFO};
    const struct script echo = {.data = end_forward_back};
    cr_assert_eq(setenv("GYRE_URING_OFF", "napi", 1), 0);
    api_init(&api, p);
    api.options.log = &log;
    api.options.busy_poll_us = 100;
    api.options.busy_poll_prefer = true;
    api_open(&api);
    if (strcmp(p->backend, "io_uring") == 0)
        cr_assert_not(reported(api.loop));
    cr_assert_eq(heard.told, reported(api.loop) ? 0 : 1);
    cr_assert_eq(heard.loud, 0);
    ping(&api, &echo);
    api_close(&api);
}

/* All loops of an engine do as the first. */
REAL_TEST(api_busy_poll, on_an_engine)
{
    struct crew crew;
    char text[5];
    crew_init(&crew, p, 2);
    crew.loop_options.busy_poll_us = 100;
    crew_open(&crew);
    cr_assert_eq(reported(gyre_engine_loop(crew.engine, 0)), reported(gyre_engine_loop(crew.engine, 1)));
    crew_listen(&crew, NULL);
    crew_start(&crew);
    crew_connect(&crew, 6);
    for (unsigned round = 0; round < 20; round++)
        for (unsigned i = 0; i < crew.client_count; i++) {
            cr_assert_eq(send(crew.clients[i], "hello", 5, 0), 5);
            cr_assert_eq(crew_receive(crew.clients[i], text, 5), 5);
            cr_assert_arr_eq(text, "hello", 5);
        }
    crew_close(&crew);
}
