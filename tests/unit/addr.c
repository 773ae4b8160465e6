/* SPDX-License-Identifier: MIT
 * Addresses: what parses and to what, what does not and with which error, and that printing gives back what parses. */
#include "socket/addr.h"

#include "env.h"

#include <arpa/inet.h>
#include <criterion/criterion.h>
#include <net/if.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <sys/un.h>

enum { PATH_ROOM = sizeof(((struct sockaddr_un *)0)->sun_path) };

/* Loopback is called lo on Linux and lo0 elsewhere. */
static const char *loopback(void)
{
    return if_nametoindex("lo") != 0 ? "lo" : "lo0";
}

static const struct {
    const char *text;
    const char *host; /* as inet_pton takes it */
    int family;
    unsigned port;
    const char *printed; /* NULL: as it was written */
    bool v6_only, any_host;
} good[] = {
    {"tcp://127.0.0.1:7000", "127.0.0.1", AF_INET, 7000, NULL, false, false},
    {"tcp://0.0.0.0:0", "0.0.0.0", AF_INET, 0, NULL, false, false},
    {"tcp://255.255.255.255:65535", "255.255.255.255", AF_INET, 65535, NULL, false, false},
    {"tcp://127.0.0.1:00080", "127.0.0.1", AF_INET, 80, "tcp://127.0.0.1:80", false, false},
    {"tcp4://10.0.0.1:1", "10.0.0.1", AF_INET, 1, "tcp://10.0.0.1:1", false, false},
    {"tcp4://:9", "0.0.0.0", AF_INET, 9, "tcp://0.0.0.0:9", false, false},
    {"tcp://[::1]:7000", "::1", AF_INET6, 7000, NULL, false, false},
    {"tcp://[::]:0", "::", AF_INET6, 0, NULL, false, false},
    {"tcp6://[::1]:7000", "::1", AF_INET6, 7000, "tcp://[::1]:7000", true, false},
    {"tcp6://:9", "::", AF_INET6, 9, "tcp://[::]:9", true, false},
    {"tcp://:7000", "::", AF_INET6, 7000, "tcp://[::]:7000", false, true},
    {"tcp://[::ffff:1.2.3.4]:5", "::ffff:1.2.3.4", AF_INET6, 5, NULL, false, false},
    {"tcp://[2001:DB8:0:0:0:0:0:1]:5", "2001:db8::1", AF_INET6, 5, "tcp://[2001:db8::1]:5", false, false},
    {"tcp://[ffff:ffff:ffff:ffff:ffff:ffff:255.255.255.255]:65535", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
     AF_INET6, 65535, "tcp://[ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff]:65535", false, false},
};

static void check_host(const struct gyre__addr *addr, const char *host, int family, unsigned port)
{
    struct in6_addr want6;
    struct in_addr want4;
    const struct sockaddr_in6 *in6 = (const struct sockaddr_in6 *)&addr->ss;
    const struct sockaddr_in *in4 = (const struct sockaddr_in *)&addr->ss;
    cr_assert_eq(addr->ss.ss_family, family);
    if (family == AF_INET) {
        cr_assert_eq(inet_pton(AF_INET, host, &want4), 1);
        cr_assert_eq(addr->len, sizeof *in4);
        cr_assert_eq(ntohs(in4->sin_port), port);
        cr_assert_eq(memcmp(&in4->sin_addr, &want4, sizeof want4), 0);
        return;
    }
    cr_assert_eq(inet_pton(AF_INET6, host, &want6), 1);
    cr_assert_eq(addr->len, sizeof *in6);
    cr_assert_eq(ntohs(in6->sin6_port), port);
    cr_assert_eq(memcmp(&in6->sin6_addr, &want6, sizeof want6), 0);
}

Test(addr, good_tcp)
{
    char text[GYRE_ADDR_TEXT_MAX];
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) {
        struct gyre__address a, again;
        cr_assert_eq(gyre__addr_parse(&a, good[i].text), 0, "%s", good[i].text);
        check_host(&a.addr, good[i].host, good[i].family, good[i].port);
        cr_assert_eq(a.v6_only, good[i].v6_only, "%s", good[i].text);
        cr_assert_eq(a.any_host, good[i].any_host, "%s", good[i].text);
        cr_assert_not(gyre__addr_is_unix(&a.addr));
        cr_assert_null(gyre__addr_path(&a.addr));
        gyre__addr_format(&a.addr, text, sizeof text);
        cr_assert_str_eq(text, good[i].printed != NULL ? good[i].printed : good[i].text);
        cr_assert_eq(gyre__addr_parse(&again, text), 0, "what was printed does not parse: %s", text);
        cr_assert_eq(again.addr.len, a.addr.len);
        cr_assert_eq(memcmp(&again.addr.ss, &a.addr.ss, a.addr.len), 0, "%s", text);
    }
}

/* A zone is an interface's name; it survives the round trip, and one that does not exist is refused. */
Test(addr, zones)
{
    char text[64], printed[GYRE_ADDR_TEXT_MAX], long_zone[160];
    struct gyre__address a;
    (void)snprintf(text, sizeof text, "tcp://[::1%%%s]:1", loopback());
    cr_assert_eq(gyre__addr_parse(&a, text), 0, "%s", text);
    cr_assert_eq(((const struct sockaddr_in6 *)&a.addr.ss)->sin6_scope_id, if_nametoindex(loopback()));
    gyre__addr_format(&a.addr, printed, sizeof printed);
    cr_assert_str_eq(printed, text);
    cr_assert_eq(gyre__addr_parse(&a, "tcp://[fe80::1%no-such-if]:1"), GYRE_EADDRESS);
    cr_assert_eq(gyre__addr_parse(&a, "tcp://[fe80::1%]:1"), GYRE_EADDRESS);
    cr_assert_eq(gyre__addr_parse(&a, "tcp://[%lo]:1"), GYRE_EADDRESS);
    cr_assert_eq(gyre__addr_parse(&a, "tcp://[::1%lo%lo]:1"), GYRE_EADDRESS);
    for (unsigned len = 10; len < 120; len++) {
        (void)snprintf(long_zone, sizeof long_zone, "tcp://[fe80::1%%%0*d]:1", (int)len, 0);
        cr_assert_eq(gyre__addr_parse(&a, long_zone), GYRE_EADDRESS, "%s", long_zone);
    }
}

static const char *const bad[] = {
    "",
    "tcp",
    "tcp:",
    "tcp:/",
    "tcp://",
    "tcp:///",
    "tcp://:",
    "tcp://127.0.0.1",
    "tcp://127.0.0.1:",
    "tcp://127.0.0.1:65536",
    "tcp://127.0.0.1:99999",
    "tcp://127.0.0.1:000080",
    "tcp://127.0.0.1:4294967297",
    "tcp://127.0.0.1:-1",
    "tcp://127.0.0.1:+1",
    "tcp://127.0.0.1: 1",
    "tcp://127.0.0.1:1 ",
    "tcp://127.0.0.1:1\n",
    "tcp://127.0.0.1:0x50",
    "tcp://127.0.0.1:8o",
    "tcp://127.0.0.1:80/",
    "tcp://127.0.0.1:80?x",
    "tcp://127.0.0.1:80:80",
    "tcp:// 127.0.0.1:80",
    "tcp://127.0.0.1 :80",
    "tcp://127.0.0.01x:80",
    "tcp://127.1:80",
    "tcp://2130706433:80",
    "tcp://127.0.0.256:80",
    "tcp://127.0.0.1.1:80",
    "tcp://localhost:80",
    "tcp://example.invalid:80",
    "tcp://user@127.0.0.1:80",
    "tcp://::1:80",
    "tcp://::1",
    "tcp://[::1]",
    "tcp://[::1]80",
    "tcp://[::1:80",
    "tcp://::1]:80",
    "tcp://[::1]]:80",
    "tcp://[[::1]]:80",
    "tcp://[]:80",
    "tcp://[:80",
    "tcp://]:80",
    "tcp://[127.0.0.1]:80",
    "tcp://[::1]x:80",
    "tcp://x[::1]:80",
    "tcp://[::g]:80",
    "tcp://[1:2:3:4:5:6:7:8:9]:80",
    "tcp4://[::1]:80",
    "tcp4://::1:80",
    "tcp6://127.0.0.1:80",
    "tcp6://[127.0.0.1]:80",
    "tcp5://127.0.0.1:80",
    "TCP://127.0.0.1:80",
    " tcp://127.0.0.1:80",
    "udp://127.0.0.1:80",
    "127.0.0.1:80",
    "http://127.0.0.1:80",
    "unix:/run/x",
    "unix://relative",
    "unix://~/x",
    "unix:// /x",
    "/run/x.sock",
    "@name",
    "tcp://\xff\xfe:80",
    "tcp://%00:80",
};

Test(addr, bad)
{
    struct gyre__address a;
    memset(&a, 0x5a, sizeof a);
    const struct gyre__address untouched = a;
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        cr_assert_eq(gyre__addr_parse(&a, bad[i]), GYRE_EADDRESS, "\"%s\"", bad[i]);
        cr_assert_eq(memcmp(&a, &untouched, sizeof a), 0, "\"%s\" was refused and has set the result", bad[i]);
    }
    cr_assert_eq(gyre__addr_parse(&a, NULL), GYRE_EADDRESS);
}

/* A path or name of `len` bytes after "unix://", the first of them as given. */
static int parse_unix_of(struct gyre__address *a, char *text, size_t text_size, char first, size_t len)
{
    int n = snprintf(text, text_size, "unix://%c", first);
    cr_assert(n > 0 && (size_t)n + len < text_size && len >= 1);
    memset(text + n, 'x', len - 1);
    text[(size_t)n + len - 1] = '\0';
    return gyre__addr_parse(a, text);
}

/* A path may have one byte less than there is room; an abstract name uses it all, its @ standing for a NUL. */
Test(addr, unix_lengths)
{
    char text[300], printed[GYRE_ADDR_TEXT_MAX];
    struct gyre__address a;
    for (size_t len = 1; len < 250; len++) {
        int want = len <= PATH_ROOM - 1 ? 0 : GYRE_EPATHLEN;
        cr_assert_eq(parse_unix_of(&a, text, sizeof text, '/', len), want, "a path of %zu bytes", len);
        if (want == 0) {
            cr_assert_eq(a.addr.len, offsetof(struct sockaddr_un, sun_path) + len + 1);
            cr_assert_str_eq(gyre__addr_path(&a.addr), text + 7);
            gyre__addr_format(&a.addr, printed, sizeof printed);
            cr_assert_str_eq(printed, text);
        }
        want = len >= 2 && len <= PATH_ROOM ? 0 : GYRE_EPATHLEN;
        cr_assert_eq(parse_unix_of(&a, text, sizeof text, '@', len), want, "an abstract name of %zu bytes", len);
        if (want == 0) {
            cr_assert_eq(a.addr.len, offsetof(struct sockaddr_un, sun_path) + len);
            cr_assert_null(gyre__addr_path(&a.addr), "an abstract name is no file");
            gyre__addr_format(&a.addr, printed, sizeof printed);
            cr_assert_str_eq(printed, text);
        }
    }
    cr_assert_eq(gyre__addr_parse(&a, "unix://"), GYRE_EPATHLEN);
    cr_assert_eq(gyre__addr_parse(&a, "unix://@"), GYRE_EPATHLEN);
    cr_assert_eq(gyre__addr_parse(&a, "unix://./here"), 0);
    cr_assert_str_eq(gyre__addr_path(&a.addr), "./here");
}

/* Whatever is to be printed and however little room there is: terminated, and nothing written behind. */
Test(addr, printing_into_little_room)
{
    static const char *const texts[] = {"tcp://127.0.0.1:7000", "tcp://[2001:db8::1]:65535", "unix:///run/some.sock",
                                        "unix://@abstract"};
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        struct gyre__address a;
        cr_assert_eq(gyre__addr_parse(&a, texts[i]), 0);
        for (size_t size = 1; size <= strlen(texts[i]) + 1; size++) {
            char out[64];
            memset(out, '#', sizeof out);
            gyre__addr_format(&a.addr, out, size);
            cr_assert_eq(strlen(out), size - 1);
            cr_assert_eq(strncmp(out, texts[i], size - 1), 0);
            cr_assert_eq(out[size], '#');
        }
    }
}

/* What the kernel says of sockets without a name, or of another family, prints as something. */
Test(addr, printing_what_has_no_name)
{
    char out[64];
    struct gyre__addr none = {.len = 0}, unnamed = {.len = sizeof(sa_family_t)}, full = {.len = 0};
    struct sockaddr_un *un = (struct sockaddr_un *)&full.ss;
    unnamed.ss.ss_family = AF_UNIX;
    gyre__addr_format(&unnamed, out, sizeof out);
    cr_assert_str_eq(out, "unix://");
    cr_assert_null(gyre__addr_path(&unnamed));
    gyre__addr_format(&none, out, sizeof out);
    cr_assert_str_not_empty(out);

    char long_out[GYRE_ADDR_TEXT_MAX]; /* a path that fills its room and has no terminator, as Linux may return it */
    un->sun_family = AF_UNIX;
    memset(un->sun_path, 'p', sizeof un->sun_path);
    memset((char *)un + sizeof *un, 'q', sizeof full.ss - sizeof *un);
    full.len = sizeof *un;
    gyre__addr_format(&full, long_out, sizeof long_out);
    cr_assert_eq(strlen(long_out), 7 + sizeof un->sun_path);
    cr_assert_eq(strchr(long_out, 'q'), NULL);
}

/* Random text, made mostly of what addresses are made of: never a crash, and what is accepted can be printed and read
 * again as the same. */
Test(addr, random_text)
{
    static const char *const pieces[] = {"tcp://", "tcp4://", "tcp6://", "unix://", "[", "]", ":", "::1", "127.0.0.1",
                                         "%", "lo", "/", "@", "0", "65535", ".", "fe80::1", "x", "\x80", " "};
    struct env_rng rng;
    unsigned accepted = 0;
    env_rng_init(&rng, 8);
    for (unsigned i = 0; i < 300000; i++) {
        char text[400] = "", printed[GYRE_ADDR_TEXT_MAX];
        size_t used = 0;
        for (unsigned n = env_rng_below(&rng, 8); n > 0; n--)
            used += (size_t)snprintf(text + used, sizeof text - used, "%s", pieces[env_rng_below(&rng, 20)]);
        struct gyre__address a, again;
        if (gyre__addr_parse(&a, text) != 0)
            continue;
        accepted++;
        gyre__addr_format(&a.addr, printed, sizeof printed);
        cr_assert_eq(gyre__addr_parse(&again, printed), 0, "\"%s\" was accepted and printed as \"%s\"", text, printed);
        cr_assert_eq(again.addr.len, a.addr.len);
        cr_assert_eq(memcmp(&again.addr.ss, &a.addr.ss, a.addr.len), 0, "\"%s\" and \"%s\"", text, printed);
    }
    cr_assert_gt(accepted, 100);
}

/* Those of datagrams: the same hosts and paths, other words in front, and none of the streams'. */
Test(addr, datagrams)
{
    static const char *const same[] = {"udp://127.0.0.1:7000", "udp://[::1]:7000", "unixgram:///run/x.sock",
                                       "unixgram://@name"};
    static const char *const wrong[] = {
        "tcp://127.0.0.1:1",  "unix:///x", "udp://x:1",    "udp://127.0.0.1:", "udp4://[::1]:1",
        "udp6://127.0.0.1:1", "udp",       "unixgram://x", "unixgrams:///x",   "UDP://1.1.1.1:1"};
    struct gyre__address a;
    char text[GYRE_ADDR_TEXT_MAX];
    for (size_t i = 0; i < sizeof same / sizeof same[0]; i++) {
        cr_assert_eq(gyre__addr_parse_dgram(&a, same[i]), 0, "%s", same[i]);
        gyre__addr_format_dgram(&a.addr, text, sizeof text);
        cr_assert_str_eq(text, same[i]);
        cr_assert_eq(gyre__addr_parse(&a, same[i]), GYRE_EADDRESS, "%s", same[i]);
    }
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++)
        cr_assert_eq(gyre__addr_parse_dgram(&a, wrong[i]), GYRE_EADDRESS, "%s", wrong[i]);
    cr_assert_eq(gyre__addr_parse_dgram(&a, "unixgram://"), GYRE_EPATHLEN);
    cr_assert_eq(gyre__addr_parse_dgram(&a, NULL), GYRE_EADDRESS);
    cr_assert_eq(gyre__addr_parse_dgram(&a, "udp://:9"), 0);
    cr_assert(a.any_host && !a.v6_only && a.addr.ss.ss_family == AF_INET6);
    cr_assert_eq(gyre__addr_parse_dgram(&a, "udp6://:9"), 0);
    cr_assert(!a.any_host && a.v6_only);
    cr_assert_eq(gyre__addr_parse_dgram(&a, "udp4://:9"), 0);
    cr_assert_eq(a.addr.ss.ss_family, AF_INET);
}
