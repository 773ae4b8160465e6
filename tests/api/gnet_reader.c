/* SPDX-License-Identifier: MIT
 * What each way of reading returns for nothing, too little, exactly enough, more than there is, and for a length of
 * none: one table, on bytes that came together and on bytes that came in two parts. */
#include "fixture.h"

#include <errno.h>

enum { READ_MAX = 4096, HAVE = 10, LARGE = 64 };

enum way { INBOUND, NEXT, PEEK, PEEKV, DISCARD, READ, COPY, FIND, HOLD, FORWARD, WAYS };

static const char *const names[WAYS] = {"inbound", "next", "peek", "peekv", "discard",
                                        "read",    "copy", "find", "hold",  "forward"};

struct row {
    enum way way;
    size_t have; /* bytes received and not taken */
    size_t ask;  /* how many are asked for; SIZE_MAX: all */
    int64_t result;
    size_t view; /* bytes the view has, for those that give one */
    size_t left;
};

static const struct row rows[] = {
    {INBOUND, 0, 0, 0, 0, 0},
    {INBOUND, HAVE, 0, HAVE, 0, HAVE},
    /* Next: all or nothing; no length is what lies together. */
    {NEXT, 0, 0, 0, 0, 0},
    {NEXT, 0, 1, -EAGAIN, 0, 0},
    {NEXT, HAVE, 0, 0, HAVE, 0},
    {NEXT, HAVE, 4, 0, 4, 6},
    {NEXT, HAVE, HAVE, 0, HAVE, 0},
    {NEXT, HAVE, HAVE + 1, -EAGAIN, 0, HAVE},
    {NEXT, HAVE, READ_MAX, -EAGAIN, 0, HAVE},
    {NEXT, HAVE, READ_MAX + 1, -EMSGSIZE, 0, HAVE},
    {NEXT, 0, READ_MAX + 1, -EMSGSIZE, 0, 0},
    /* Peek: the same, and nothing is taken. */
    {PEEK, 0, 0, 0, 0, 0},
    {PEEK, 0, 1, -EAGAIN, 0, 0},
    {PEEK, HAVE, 0, 0, HAVE, HAVE},
    {PEEK, HAVE, 4, 0, 4, HAVE},
    {PEEK, HAVE, HAVE, 0, HAVE, HAVE},
    {PEEK, HAVE, HAVE + 1, -EAGAIN, 0, HAVE},
    {PEEK, HAVE, READ_MAX + 1, -EMSGSIZE, 0, HAVE},
    /* Pieces, so many at most. */
    {PEEKV, 0, 4, 0, 0, 0},
    {PEEKV, HAVE, 0, 0, 0, HAVE},
    {PEEKV, HAVE, 4, 1, HAVE, HAVE},
    /* Discard and read: as many as there are; none is none. */
    {DISCARD, 0, 0, 0, 0, 0},
    {DISCARD, 0, 5, 0, 0, 0},
    {DISCARD, HAVE, 0, 0, 0, HAVE},
    {DISCARD, HAVE, 4, 4, 0, 6},
    {DISCARD, HAVE, HAVE, HAVE, 0, 0},
    {DISCARD, HAVE, HAVE + 1, HAVE, 0, 0},
    {DISCARD, HAVE, SIZE_MAX, HAVE, 0, 0},
    {READ, 0, 0, 0, 0, 0},
    {READ, 0, 5, 0, 0, 0},
    {READ, HAVE, 0, 0, 0, HAVE},
    {READ, HAVE, 4, 4, 4, 6},
    {READ, HAVE, HAVE, HAVE, HAVE, 0},
    {READ, HAVE, LARGE, HAVE, HAVE, 0},
    {COPY, 0, 5, 0, 0, 0},
    {COPY, HAVE, 0, 0, 0, HAVE},
    {COPY, HAVE, 4, 4, 4, HAVE},
    {COPY, HAVE, LARGE, HAVE, HAVE, HAVE},
    /* Find: the last byte there is, one that cannot be found, one of no length. */
    {FIND, 0, 1, -EAGAIN, 0, 0},
    {FIND, HAVE, 1, HAVE - 1, 0, HAVE},
    {FIND, HAVE, LARGE, -EAGAIN, 0, HAVE},
    {FIND, HAVE, LARGE + 1, -EINVAL, 0, HAVE},
    {FIND, HAVE, 0, -EINVAL, 0, HAVE},
    {HOLD, 0, 1, -EAGAIN, 0, 0},
    {HOLD, HAVE, 0, -EINVAL, 0, HAVE},
    {HOLD, HAVE, 4, 0, 4, 6},
    {HOLD, HAVE, HAVE, 0, HAVE, 0},
    {HOLD, HAVE, HAVE + 1, -EAGAIN, 0, HAVE},
    /* Forward, to itself: as many as there are. */
    {FORWARD, 0, SIZE_MAX, 0, 0, 0},
    {FORWARD, HAVE, 0, 0, 0, HAVE},
    {FORWARD, HAVE, 4, 4, 0, 6},
    {FORWARD, HAVE, SIZE_MAX, HAVE, 0, 0},
};

enum { ROWS = sizeof rows / sizeof rows[0] };

static int64_t hold(struct gyre_conn *c, size_t len, uint8_t *into, size_t *view_len)
{
    struct gyre_buf *buf = NULL;
    struct gyre_slice view = {NULL, 0};
    int err = gyre_buf_hold(&buf, &view, c, len);
    *view_len = view.len;
    for (size_t i = 0; i < view.len && i < LARGE; i++)
        into[i] = view.data[i];
    if (err == 0)
        gyre_buf_release(buf);
    return err;
}

static int64_t find_last(struct gyre_conn *c, size_t len)
{
    uint8_t needle[LARGE + 1] = {0};
    if (len == 1)
        (void)gyre_conn_copy(needle, 1, c, HAVE - 1);
    return gyre_conn_find(c, needle, len, len == 1 && gyre_conn_inbound(c) > 0 ? HAVE - 1 : 0);
}

/* The call of a row; what it gave to look at goes to `into`. */
static int64_t call(const struct row *row, struct gyre_conn *c, uint8_t *into, size_t *view_len)
{
    struct gyre_slice view = {NULL, 0};
    struct iovec iov[4];
    int64_t n = 0;
    *view_len = 0;
    switch (row->way) {
    case INBOUND:
        return (int64_t)gyre_conn_inbound(c);
    case NEXT:
    case PEEK:
        n = row->way == NEXT ? gyre_conn_next(&view, c, row->ask) : gyre_conn_peek(&view, c, row->ask);
        break;
    case PEEKV:
        n = gyre_conn_peekv(iov, (int)row->ask, c);
        for (int64_t i = 0; i < n; i++) {
            for (size_t k = 0; k < iov[i].iov_len; k++)
                into[*view_len + k] = ((const uint8_t *)iov[i].iov_base)[k];
            *view_len += iov[i].iov_len;
        }
        return n;
    case DISCARD:
        return (int64_t)gyre_conn_discard(c, row->ask);
    case READ:
        return (int64_t)(*view_len = gyre_conn_read(into, row->ask, c));
    case COPY:
        return (int64_t)(*view_len = gyre_conn_copy(into, row->ask, c, 0));
    case FIND:
        return find_last(c, row->ask);
    case HOLD:
        return hold(c, row->ask, into, view_len);
    case FORWARD:
    case WAYS:
        return gyre_conn_forward(c, c, row->ask);
    }
    *view_len = view.len;
    for (size_t i = 0; i < view.len; i++)
        into[i] = view.data[i];
    return n;
}

static void try_row(const struct row *row, struct end *e, struct peer *peer, bool parted)
{
    uint8_t seen[LARGE];
    size_t view_len, first = parted ? 3 : row->have;
    for (size_t sent = 0; sent < row->have; first = row->have - sent) {
        peer_send(peer, first);
        sent += first;
        api_until(e->api, gyre_conn_inbound(e->c) == sent);
    }
    int64_t result = call(row, e->c, seen, &view_len);
    const char *how = parted ? ", which came in two parts" : "";
    /* Bytes in two parts may lie in two pieces: then no length is the first of them. */
    bool pieces = parted && row->have > 0 && row->ask == 0 && (row->way == NEXT || row->way == PEEK);
    if (pieces) {
        cr_assert(result == 0 && view_len > 0 && view_len <= row->have);
    } else {
        cr_assert(result == row->result || (row->way == PEEKV && parted && result == 2),
                  "%s %zu of %zu%s: %lld, not %lld", names[row->way], row->ask, row->have, how, (long long)result,
                  (long long)row->result);
        cr_assert_eq(view_len, row->view, "%s %zu of %zu%s: a view of %zu", names[row->way], row->ask, row->have, how,
                     view_len);
        cr_assert_eq(gyre_conn_inbound(e->c), row->left, "%s %zu of %zu%s: %zu are left", names[row->way], row->ask,
                     row->have, how, gyre_conn_inbound(e->c));
    }
    cr_assert_eq(env_pattern_check(seen, view_len, e->key_in, e->got), -1, "%s %zu of %zu%s: other bytes",
                 names[row->way], row->ask, row->have, how);
    e->got += row->have - gyre_conn_inbound(e->c);
    (void)end_take(e);
    cr_assert_eq(e->got, peer->sent);
}

/* Nothing is given back for what was not there, and what was not asked for stays. */
BACKEND_TEST(gnet_reader, table)
{
    struct api api;
    struct peer peer;
    const struct script script = {.data = end_ignore};
    const struct gyre_listener_options options = {.conn = {.read_max_bytes = READ_MAX}};
    api_init(&api, p);
    api_open(&api);
    api_listen(&api, &script, &options);
    struct end *e = peer_open(&api, &peer);
    for (unsigned parted = 0; parted < 2; parted++)
        for (unsigned i = 0; i < ROWS; i++)
            try_row(&rows[i], e, &peer, parted == 1);
    peer_close(&peer);
    api_close(&api);
}

/* Woken before anything came: on_data finds nothing, and each call says so as the table does. */
static void look_at_nothing(struct end *e)
{
    uint8_t seen[LARGE];
    size_t view_len;
    if (e->datas > 1)
        return;
    for (unsigned i = 0; i < ROWS; i++)
        if (rows[i].have == 0)
            cr_assert_eq(call(&rows[i], e->c, seen, &view_len), rows[i].result, "%s %zu of none", names[rows[i].way],
                         rows[i].ask);
}

static void wake_at_once(struct end *e)
{
    cr_assert_eq(gyre_conn_wake(e->c), 0);
}

TRANSPORT_TEST(gnet_reader, woken_before_data)
{
    struct api api;
    struct peer peer;
    const struct script script = {.open = wake_at_once, .data = look_at_nothing};
    const struct gyre_listener_options options = {.conn = {.read_max_bytes = READ_MAX}};
    api_init(&api, p);
    api_open(&api);
    api_listen(&api, &script, &options);
    struct end *e = peer_open(&api, &peer);
    api_until(&api, e->datas == 1);
    peer_close(&peer);
    api_close(&api);
}
