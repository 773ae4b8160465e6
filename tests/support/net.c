/* SPDX-License-Identifier: MIT
 * A network of the test's own; the kernel is told what to do by its own messages, so that no program need be there. */
#include "net.h"
#include "backends.h"

#include <arpa/inet.h>
#include <errno.h>
#include <linux/netfilter.h>
#include <linux/netfilter/nf_tables.h>
#include <linux/netfilter/nfnetlink.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <net/if.h>
#include <netinet/in.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

/* Skip the test, or fail it where a network is required. */
static void lack(const char *what, int err)
{
    if (backends_required("network"))
        cr_assert_fail("GYRE_TEST_REQUIRE has \"network\", but there is %s: %s", what, strerror(err));
    cr_skip_test("%s: %s (it takes root, network namespaces, and nftables with NAT in the kernel)", what,
                 strerror(err));
}

void net_set_loopback(bool up)
{
    struct ifreq ifr = {.ifr_flags = up ? IFF_UP : 0};
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    (void)snprintf(ifr.ifr_name, sizeof ifr.ifr_name, "lo");
    cr_assert_eq(ioctl(fd, SIOCSIFFLAGS, &ifr), 0, "%s", strerror(errno));
    cr_assert_eq(close(fd), 0);
}

void net_own(void)
{
    if (unshare(CLONE_NEWNET) != 0)
        lack("no network namespace", errno);
    net_set_loopback(true);
}

/* The kernel takes a route by the loopback device for one that leads nowhere, unless it is local. */
void net_route_multicast6(void)
{
    struct {
        struct nlmsghdr head;
        struct rtmsg route;
        struct rtattr to;
        uint8_t group[16];
        struct rtattr via;
        uint32_t device;
    } ask = {
        .head = {.nlmsg_len = sizeof ask,
                 .nlmsg_type = RTM_NEWROUTE,
                 .nlmsg_flags = NLM_F_REQUEST | NLM_F_CREATE | NLM_F_ACK},
        .route = {.rtm_family = AF_INET6, .rtm_dst_len = 8, .rtm_table = RT_TABLE_LOCAL, .rtm_type = RTN_LOCAL},
        .to = {.rta_len = RTA_LENGTH(16), .rta_type = RTA_DST},
        .group = {0xff},
        .via = {.rta_len = RTA_LENGTH(4), .rta_type = RTA_OIF},
        .device = if_nametoindex("lo"),
    };
    struct {
        struct nlmsghdr head;
        struct nlmsgerr told;
    } answer;
    int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE);
    cr_assert_eq(send(fd, &ask, sizeof ask, 0), (ssize_t)sizeof ask, "%s", strerror(errno));
    cr_assert_geq(recv(fd, &answer, sizeof answer, 0), (ssize_t)sizeof answer);
    cr_assert_eq(answer.head.nlmsg_type, NLMSG_ERROR);
    cr_assert_eq(answer.told.error, 0, "no route: %s", strerror(-answer.told.error));
    cr_assert_eq(close(fd), 0);
}

/* ---- nftables ---- */

enum { BATCH_MAX = 2048 };

/* Messages for the kernel, one behind the other. */
struct batch {
    _Alignas(struct nlmsghdr) uint8_t bytes[BATCH_MAX];
    size_t len;
    struct nlmsghdr *message; /* the last */
    uint32_t asked;           /* answers to come */
};

static void *reserve(struct batch *b, size_t len)
{
    void *at = b->bytes + b->len;
    b->len += NLMSG_ALIGN(len);
    cr_assert_leq(b->len, sizeof b->bytes);
    if (b->message != NULL)
        b->message->nlmsg_len = (uint32_t)(b->bytes + b->len - (uint8_t *)b->message);
    return at;
}

static void begin(struct batch *b, uint16_t type, uint16_t flags)
{
    bool is_frame = type == NFNL_MSG_BATCH_BEGIN || type == NFNL_MSG_BATCH_END;
    b->message = NULL;
    struct nlmsghdr *message = reserve(b, sizeof *message);
    b->message = message;
    message->nlmsg_type = is_frame ? type : (uint16_t)(NFNL_SUBSYS_NFTABLES << 8 | type);
    message->nlmsg_flags = (uint16_t)(NLM_F_REQUEST | flags | (is_frame ? 0 : NLM_F_ACK));
    b->asked += !is_frame;
    struct nfgenmsg *family = reserve(b, sizeof *family);
    family->nfgen_family = is_frame ? AF_UNSPEC : NFPROTO_INET;
    family->version = NFNETLINK_V0;
    family->res_id = is_frame ? htons(NFNL_SUBSYS_NFTABLES) : 0;
}

static void put(struct batch *b, uint16_t type, const void *data, size_t len)
{
    struct nlattr *attr = reserve(b, sizeof *attr + len);
    attr->nla_type = type;
    attr->nla_len = (uint16_t)(sizeof *attr + len);
    memcpy(attr + 1, data, len);
}

static void put_text(struct batch *b, uint16_t type, const char *text)
{
    put(b, type, text, strlen(text) + 1);
}

static void put_number(struct batch *b, uint16_t type, uint32_t number)
{
    number = htonl(number);
    put(b, type, &number, sizeof number);
}

/* Attributes within an attribute, until nest_end(). */
static struct nlattr *nest(struct batch *b, uint16_t type)
{
    struct nlattr *attr = reserve(b, sizeof *attr);
    attr->nla_type = (uint16_t)(type | NLA_F_NESTED);
    return attr;
}

static void nest_end(const struct batch *b, struct nlattr *attr)
{
    attr->nla_len = (uint16_t)(b->bytes + b->len - (const uint8_t *)attr);
}

static void put_value(struct batch *b, uint16_t type, const void *data, size_t len)
{
    struct nlattr *value = nest(b, type);
    put(b, NFTA_DATA_VALUE, data, len);
    nest_end(b, value);
}

struct expression {
    struct nlattr *element, *data;
};

static struct expression expression(struct batch *b, const char *name)
{
    struct expression e = {.element = nest(b, NFTA_LIST_ELEM)};
    put_text(b, NFTA_EXPR_NAME, name);
    e.data = nest(b, NFTA_EXPR_DATA);
    return e;
}

static void expression_end(const struct batch *b, struct expression e)
{
    nest_end(b, e.data);
    nest_end(b, e.element);
}

static void compare(struct batch *b, const void *data, size_t len)
{
    struct expression e = expression(b, "cmp");
    put_number(b, NFTA_CMP_SREG, NFT_REG_1);
    put_number(b, NFTA_CMP_OP, NFT_CMP_EQ);
    put_value(b, NFTA_CMP_DATA, data, len);
    expression_end(b, e);
}

/* TCP, to this port. */
static void match(struct batch *b, uint16_t port)
{
    uint8_t tcp = IPPROTO_TCP;
    struct expression e = expression(b, "meta");
    put_number(b, NFTA_META_DREG, NFT_REG_1);
    put_number(b, NFTA_META_KEY, NFT_META_L4PROTO);
    expression_end(b, e);
    compare(b, &tcp, sizeof tcp);
    e = expression(b, "payload");
    put_number(b, NFTA_PAYLOAD_DREG, NFT_REG_1);
    put_number(b, NFTA_PAYLOAD_BASE, NFT_PAYLOAD_TRANSPORT_HEADER);
    put_number(b, NFTA_PAYLOAD_OFFSET, 2);
    put_number(b, NFTA_PAYLOAD_LEN, sizeof port);
    expression_end(b, e);
    port = htons(port);
    compare(b, &port, sizeof port);
}

static void redirect(struct batch *b, uint16_t port)
{
    struct expression e = expression(b, "immediate");
    port = htons(port);
    put_number(b, NFTA_IMMEDIATE_DREG, NFT_REG_1);
    put_value(b, NFTA_IMMEDIATE_DATA, &port, sizeof port);
    expression_end(b, e);
    e = expression(b, "redir");
    put_number(b, NFTA_REDIR_REG_PROTO_MIN, NFT_REG_1);
    expression_end(b, e);
}

/* Send it all and read an answer to each message that is to have one. Returns 0 or the first error. */
static int tell_kernel(const struct batch *b)
{
    struct {
        struct nlmsghdr head;
        struct nlmsgerr err;
        uint8_t rest[BATCH_MAX];
    } answer;
    struct sockaddr_nl kernel = {.nl_family = AF_NETLINK};
    int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_NETFILTER), err = 0;
    if (fd < 0)
        return errno;
    if (sendto(fd, b->bytes, b->len, 0, (const struct sockaddr *)&kernel, sizeof kernel) != (ssize_t)b->len)
        err = errno;
    for (uint32_t i = 0; err == 0 && i < b->asked; i++) {
        ssize_t n = recv(fd, &answer, sizeof answer, 0);
        cr_assert_geq(n, (ssize_t)(sizeof answer.head + sizeof answer.err.error), "%s", strerror(errno));
        cr_assert_eq(answer.head.nlmsg_type, NLMSG_ERROR);
        err = -answer.err.error;
    }
    cr_assert_eq(close(fd), 0);
    return err;
}

void net_redirect(uint16_t from_port, uint16_t to_port)
{
    struct batch b = {.len = 0};
    begin(&b, NFNL_MSG_BATCH_BEGIN, 0);
    begin(&b, NFT_MSG_NEWTABLE, NLM_F_CREATE);
    put_text(&b, NFTA_TABLE_NAME, "gyre");
    begin(&b, NFT_MSG_NEWCHAIN, NLM_F_CREATE);
    put_text(&b, NFTA_CHAIN_TABLE, "gyre");
    put_text(&b, NFTA_CHAIN_NAME, "out");
    struct nlattr *hook = nest(&b, NFTA_CHAIN_HOOK);
    put_number(&b, NFTA_HOOK_HOOKNUM, NF_INET_LOCAL_OUT);
    put_number(&b, NFTA_HOOK_PRIORITY, (uint32_t)-100); /* where destinations are changed */
    nest_end(&b, hook);
    put_text(&b, NFTA_CHAIN_TYPE, "nat");
    begin(&b, NFT_MSG_NEWRULE, NLM_F_CREATE | NLM_F_APPEND);
    put_text(&b, NFTA_RULE_TABLE, "gyre");
    put_text(&b, NFTA_RULE_CHAIN, "out");
    struct nlattr *all = nest(&b, NFTA_RULE_EXPRESSIONS);
    match(&b, from_port);
    redirect(&b, to_port);
    nest_end(&b, all);
    begin(&b, NFNL_MSG_BATCH_END, 0);
    int err = tell_kernel(&b);
    if (err != 0)
        lack("no redirection by nftables", err);
}
