/* SPDX-License-Identifier: MIT
 * Where connections leave from: an address of their own, a range of ports. */
#include "fixture.h"

#include "socket/addr.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static void on_data(struct gyre_conn *c)
{
    (void)gyre_conn_discard(c, SIZE_MAX);
}

static void own_address(const struct end *e, char *out, size_t size)
{
    struct gyre__addr addr;
    cr_assert_eq(gyre_conn_local_address(&addr.ss, &addr.len, e->c), 0);
    gyre__addr_format(&addr, out, size);
}

/* From the address given, and from a range of ports until that is used up. */
BACKEND_TEST(api_source, address_and_ports)
{
    struct api api;
    struct stage stage;
    struct peer peers[3];
    struct end *ends[3];
    char text[160];
    uint16_t first = (uint16_t)(22000 + getpid() % 2000 * 3), seen[3];
    api_init(&api, p);
    api.quiet_sim = true;
    api_open(&api);
    stage_open(&api, &stage);
    struct gyre_conn_options from = {.source_address = "tcp://127.0.0.9:0"};
    struct end *e = api_connect(&api, stage.address, NULL, &from);
    struct peer peer;
    stage_accept(&stage, &peer, e);
    api_until(&api, e->opens == 1);
    own_address(e, text, sizeof text);
    cr_assert_eq(strncmp(text, "tcp://127.0.0.9:", 16), 0, "it left from %s", text);

    from = (struct gyre_conn_options){.source_port_first = first, .source_port_last = (uint16_t)(first + 2)};
    for (unsigned i = 0; i < 3; i++) {
        ends[i] = api_connect(&api, stage.address, NULL, &from);
        stage_accept(&stage, &peers[i], ends[i]);
        api_until(&api, ends[i]->opens == 1);
        own_address(ends[i], text, sizeof text);
        seen[i] = (uint16_t)atoi(strrchr(text, ':') + 1);
        cr_assert(seen[i] >= first && seen[i] <= first + 2, "it left from %s", text);
        for (unsigned k = 0; k < i; k++)
            cr_assert_neq(seen[k], seen[i]);
    }
    struct gyre_conn *c = NULL;
    static const struct gyre_conn_handlers none = {.on_data = on_data};
    int err = gyre_connect(&c, api.loop, stage.address, &none, &from);
    if (err == 0) /* told by on_close */
        api_until(&api, gyre_loop_conn_count(api.loop) == 4);
    else
        cr_assert_eq(err, -EADDRNOTAVAIL, "%s", gyre_err_name(err));
    for (unsigned i = 0; i < 3; i++)
        peer_close(&peers[i]);
    peer_close(&peer);
    api_until(&api, gyre_loop_conn_count(api.loop) == 0);
    stage_close(&stage);
    api_close(&api);
}

/* What does not fit together. */
BACKEND_TEST(api_source, errors)
{
    struct api api;
    static const struct gyre_conn_handlers none = {.on_data = on_data};
    const struct {
        const char *to;
        struct gyre_conn_options o;
        int err;
    } table[] = {
        {"tcp://127.0.0.1:9", {.source_address = "tcp://[::1]:0"}, GYRE_EADDRESS},
        {"tcp://127.0.0.1:9", {.source_address = "here"}, GYRE_EADDRESS},
        {"tcp://127.0.0.1:9", {.source_address = "unix:///tmp/x"}, GYRE_EADDRESS},
        {"tcp://127.0.0.1:9", {.source_port_first = 2000, .source_port_last = 1000}, GYRE_EOPTION},
        {"tcp://127.0.0.1:9", {.source_port_last = 1000}, GYRE_EOPTION},
        {"tcp://127.0.0.1:9",
         {.source_address = "tcp://127.0.0.1:5", .source_port_first = 7, .source_port_last = 8}, GYRE_EOPTION},
        {"unix:///tmp/x", {.source_address = "tcp://127.0.0.1:0"}, GYRE_EOPTION},
    };
    api_init(&api, p);
    api_open(&api);
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++) {
        int err = gyre_connect(NULL, api.loop, table[i].to, &none, &table[i].o);
        cr_assert_eq(err, table[i].err, "row %zu: %s", i, gyre_err_name(err));
    }
    if (!api.is_sim) {
        struct gyre_conn_options o = {.source_address = "tcp://203.0.113.1:0"};
        cr_assert_eq(gyre_connect(NULL, api.loop, "tcp://127.0.0.1:9", &none, &o), -EADDRNOTAVAIL);
    }
    api_close(&api);
}

/* The simulator has no devices, and says so. */
BACKEND_TEST(api_source, device)
{
    struct api api;
    struct gyre_conn *c = NULL;
    static const struct gyre_conn_handlers none = {.on_data = on_data};
    api_init(&api, p);
    api_open(&api);
    int err = gyre_connect(&c, api.loop, "tcp://127.0.0.1:1", &none, &(struct gyre_conn_options){.device = "lo"});
    cr_assert_eq(err, api.is_sim ? -EOPNOTSUPP : 0, "%s", gyre_err_name(err));
    cr_assert_eq(c != NULL, err == 0);
    api_until(&api, gyre_loop_conn_count(api.loop) == 0);
    api_close(&api);
}
