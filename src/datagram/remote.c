/* SPDX-License-Identifier: MIT
 * Names of datagram sockets that are safe to use from other threads: finding, sending and closing by name. */
#include "item.h"

#include <errno.h>
#include <string.h>

struct gyre_udp *gyre_udp_from_id(struct gyre_udp_id id)
{
    if (id.loop == NULL || id.slot >= id.loop->udps->count)
        return NULL;
    struct gyre_udp *u = id.loop->udps->table[id.slot];
    return u->generation == id.generation && u->state != GYRE_UDP_FREE ? u : NULL;
}

struct remote_send {
    struct gyre__task task;
    struct gyre_udp_id id;
    union gyre__udp_name to;
    socklen_t to_len; /* 0: where it is connected to */
    size_t len;
    uint8_t data[];
};

static void run_send(struct gyre_loop *l, void *user)
{
    struct remote_send *r = user;
    struct gyre_udp *u = gyre_udp_from_id(r->id);
    if (u != NULL && r->to_len == 0)
        (void)gyre_udp_send(u, r->data, r->len); /* the socket counts what it refuses */
    else if (u != NULL)
        (void)gyre_udp_send_to(u, &r->to.sa, r->to_len, r->data, r->len);
    gyre__free(l->mem, r);
}

int gyre_udp_id_send(struct gyre_udp_id id, const struct sockaddr *to, socklen_t to_len, const void *data, size_t len)
{
    if (id.loop == NULL || (data == NULL && len > 0))
        return -EINVAL;
    if (to != NULL && (to_len == 0 || to_len > sizeof(union gyre__udp_name)))
        return GYRE_EADDRESS;
    struct remote_send *r = gyre__resize_many(id.loop->mem, NULL, sizeof *r, len, 1);
    if (r == NULL)
        return -ENOMEM;
    *r = (struct remote_send){.id = id, .to_len = to != NULL ? to_len : 0, .len = len};
    if (to != NULL)
        memcpy(&r->to, to, to_len);
    if (len > 0)
        memcpy(r->data, data, len);
    return gyre__loop_post_block(id.loop, r, run_send);
}

struct remote_close {
    struct gyre__task task;
    struct gyre_udp_id id;
};

static void run_close(struct gyre_loop *l, void *user)
{
    struct remote_close *r = user;
    struct gyre_udp *u = gyre_udp_from_id(r->id);
    gyre__free(l->mem, r);
    if (u != NULL)
        (void)gyre_udp_close(u);
}

int gyre_udp_id_close(struct gyre_udp_id id)
{
    if (id.loop == NULL)
        return -EINVAL;
    struct remote_close *r = gyre__alloc(id.loop->mem, sizeof *r);
    if (r == NULL)
        return -ENOMEM;
    *r = (struct remote_close){.id = id};
    return gyre__loop_post_block(id.loop, r, run_close);
}
