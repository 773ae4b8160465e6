/* SPDX-License-Identifier: MIT
 * Datagram sockets of the library that watch their own callbacks. */
#include "udp.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static struct dsock *dsock_of(struct gyre_udp *u)
{
    struct dsock *s = gyre_udp_user(u);
    cr_assert_not_null(s);
    cr_assert_eq(s->closes, 0, "a callback after on_close");
    cr_assert(s->u == NULL || s->u == u);
    api_enter(s->api);
    return s;
}

static void on_datagram(struct gyre_udp *u, const struct gyre_datagram *d)
{
    struct dsock *s = dsock_of(u);
    s->datagrams++;
    s->bytes += d->data.len;
    s->len_last = d->data.len;
    s->truncated_last = d->truncated;
    if (s->script != NULL && s->script->datagram != NULL)
        s->script->datagram(s, d);
    else
        udp_check(s, d);
    api_leave(s->api);
}

static void on_drain(struct gyre_udp *u)
{
    struct dsock *s = dsock_of(u);
    s->drains++;
    if (s->script != NULL && s->script->drain != NULL)
        s->script->drain(s);
    api_leave(s->api);
}

static void on_error(struct gyre_udp *u, int err)
{
    struct dsock *s = dsock_of(u);
    cr_assert_lt(err, 0);
    s->errors++;
    s->last_err = err;
    if (s->script != NULL && s->script->error != NULL)
        s->script->error(s, err);
    api_leave(s->api);
}

static void on_close(struct gyre_udp *u, int err)
{
    struct dsock *s = dsock_of(u);
    gyre_udp_stats(&s->stats, u);
    s->closes++;
    s->err = err;
    if (s->script != NULL && s->script->close != NULL)
        s->script->close(s);
    s->u = NULL;
    api_leave(s->api);
}

static const struct gyre_udp_handlers handlers = {on_datagram, on_drain, on_error, on_close};

static const struct gyre_sim_options lossless = {
    .seed = 11,
    .loss_permille = GYRE_SIM_NEVER,
    .duplicate_permille = GYRE_SIM_NEVER,
    .delay_max_ns = GYRE_SIM_NO_DELAY,
};

void udp_init(struct api *api, const struct backend_param *p)
{
    api_init(api, p);
    api->sim_options = &lossless;
}

void udp_start(struct api *api, const struct backend_param *p)
{
    udp_init(api, p);
    api_open(api);
}

void udp_start_roomy(struct api *api, const struct backend_param *p)
{
    static struct gyre_sim_options roomy;
    roomy = lossless;
    roomy.send_short_permille = GYRE_SIM_NEVER;
    api_init(api, p);
    api->sim_options = &roomy;
    api_open(api);
}

void udp_fresh_address(struct api *api, char *out, size_t size)
{
    int n = 0;
    unsigned number = api->paths++;
    switch (api->transport) {
    case TRANSPORT_TCP4:
        n = snprintf(out, size, "udp://127.0.0.1:0");
        break;
    case TRANSPORT_TCP6:
        n = snprintf(out, size, "udp://[::1]:0");
        break;
    case TRANSPORT_UNIX:
        n = snprintf(out, size, "unixgram://%s/d%u", api->dir, number);
        break;
    case TRANSPORT_ABSTRACT:
        n = snprintf(out, size, "unixgram://@%s/d%u", api->dir + 1, number);
        break;
    }
    cr_assert(n > 0 && (size_t)n < size);
}

static struct gyre_udp_options prepare(struct api *api, struct dsock *s, const struct dscript *script,
                                       const struct gyre_udp_options *options)
{
    struct gyre_udp_options o = {.user = NULL};
    *s = (struct dsock){.api = api, .script = script, .newest = -1};
    if (options != NULL)
        o = *options;
    o.user = s;
    return o;
}

int udp_try_bind(struct api *api, struct dsock *s, const char *address, const struct dscript *script,
                 const struct gyre_udp_options *options)
{
    struct gyre_udp_options o = prepare(api, s, script, options);
    return gyre_udp_open(&s->u, api->loop, address, &handlers, &o);
}

int udp_try_connect(struct api *api, struct dsock *s, const char *address, const struct dscript *script,
                    const struct gyre_udp_options *options)
{
    struct gyre_udp_options o = prepare(api, s, script, options);
    return gyre_udp_connect(&s->u, api->loop, address, &handlers, &o);
}

int udp_try_adopt(struct api *api, struct dsock *s, int fd, const struct dscript *script,
                  const struct gyre_udp_options *options)
{
    struct gyre_udp_options o = prepare(api, s, script, options);
    return gyre_udp_adopt_fd(&s->u, api->loop, fd, &handlers, &o);
}

void udp_bind(struct api *api, struct dsock *s, const struct dscript *script, const struct gyre_udp_options *options)
{
    char address[160];
    udp_fresh_address(api, address, sizeof address);
    int err = udp_try_bind(api, s, address, script, options);
    cr_assert_eq(err, 0, "open %s: %s", address, gyre_err_name(err));
}

void udp_connect(struct api *api, struct dsock *s, const char *address, const struct dscript *script,
                 const struct gyre_udp_options *options)
{
    int err = udp_try_connect(api, s, address, script, options);
    cr_assert_eq(err, 0, "connect to %s: %s", address, gyre_err_name(err));
}

void udp_close(struct dsock *s)
{
    if (s->u == NULL)
        return;
    cr_assert_eq(gyre_udp_close(s->u), 0);
    cr_assert_eq(s->closes, 0, "on_close from inside gyre_udp_close()");
    api_until(s->api, s->closes == 1);
}

void udp_fill(uint8_t *data, size_t len, uint32_t number)
{
    cr_assert_geq(len, sizeof number);
    memcpy(data, &number, sizeof number);
    env_pattern_fill(data + sizeof number, len - sizeof number, number, 0);
}

void udp_check(struct dsock *s, const struct gyre_datagram *d)
{
    uint32_t number;
    cr_assert_geq(d->data.len, sizeof number);
    memcpy(&number, d->data.data, sizeof number);
    cr_assert_lt(number, UDP_NUMBERS);
    int64_t bad = env_pattern_check(d->data.data + sizeof number, d->data.len - sizeof number, number, 0);
    cr_assert_eq(bad, -1, "datagram %u: wrong byte at %lld", number, (long long)bad);
    s->distinct += s->seen[number]++ == 0;
    s->disorder |= (int64_t)number < s->newest;
    s->newest = number;
}

int udp_send(struct dsock *s, uint32_t number, size_t len)
{
    uint8_t *data = malloc(len);
    cr_assert_not_null(data);
    udp_fill(data, len, number);
    int err = gyre_udp_send(s->u, data, len);
    memset(data, 0x5a, len);
    free(data);
    return err;
}

void udp_echo(struct dsock *s, const struct gyre_datagram *d)
{
    udp_check(s, d);
    int err = gyre_udp_reply(s->u, d, d->data.data, d->data.len);
    cr_assert_eq(err, 0, "gyre_udp_reply: %s", gyre_err_name(err));
}
