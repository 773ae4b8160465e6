# SPDX-License-Identifier: MIT
"""The servers that are compared for each kind of work, and which ratios are told. Each prints the address it listens on
in its first line; only haproxy and nginx do not, and relays.py knows how to start those."""
import os
import re

import cells
import harness
import relays

YARDSTICKS = [
    ("gyre-io_uring", "raw-io_uring"),
    ("gyre-io_uring", "raw-epoll"),
    ("gyre-epoll", "raw-epoll"),
    ("gyre-io_uring", "gyre-epoll"),
    ("raw-io_uring", "raw-epoll"),
]
PEERS = {
    "libuv": "libuv_echo",
    "libuv-queued": "libuv_queued_echo",
    "libevent": "libevent_echo",
    "libev": "libev_echo",
    "asio-epoll": "asio_echo",
    "asio-io_uring": "asio_uring_echo",
}
PACKAGED = ("haproxy", "haproxy-splice", "nginx")
BASIC = ("gyre-io_uring", "gyre-epoll", "raw-io_uring", "raw-epoll")
TWO = tuple(f"{name}-x2" for name in BASIC)
FEW = tuple(f"{name}@{cells.FEW}" for name in BASIC)

RATIOS = YARDSTICKS + [("gyre-io_uring", other) for other in (*PEERS, *PACKAGED)] + \
    [(two, one) for two, one in zip(TWO, BASIC)] + [("gyre-io_uring-x2", "raw-io_uring-x2"),
                                                    ("gyre-epoll-x2", "raw-epoll-x2")] + \
    [(many, few) for many, few in zip(BASIC, FEW)]

BY_KIND = {
    "echo": BASIC,
    "peers": ("gyre-io_uring", "raw-epoll", *PEERS),
    "churn": BASIC + tuple(PEERS),
    "relay": BASIC + PACKAGED,
    "two": BASIC + TWO,
    "flat": BASIC + FEW,
    "udp": (*BASIC, "libuv"),
}


def echo_command(build, backend=None):
    """The echo example on any free port; it prints its counters when it is stopped."""
    choice = ["--backend", backend] if backend else []
    return [os.path.join(build, "examples", "echo"), *choice, "--stats", "tcp://127.0.0.1:0"]


def table(build):
    """Name -> command line of the echo servers that are always there."""
    return {
        "gyre-io_uring": echo_command(build, "io_uring"),
        "gyre-epoll": echo_command(build, "epoll"),
        "raw-io_uring": [os.path.join(build, "bench", "raw_uring")],
        "raw-epoll": [os.path.join(build, "bench", "raw_epoll")],
    }


def echo_commands(build):
    """Name -> command line of all echo servers."""
    commands = table(build)
    commands.update((name, [os.path.join(build, "bench", program)]) for name, program in PEERS.items())
    for two, one in zip(TWO, BASIC):
        commands[two] = [commands[one][0], "--loops", "2", *commands[one][1:]]
    commands.update((few, commands[one]) for few, one in zip(FEW, BASIC))
    return commands


def udp_commands(build):
    """Name -> command line of the UDP echo servers."""
    def gyre(choice):
        return [os.path.join(build, "examples", "echo"), "--backend", choice, "--stats", "udp://127.0.0.1:0"]

    return {
        "gyre-io_uring": gyre("io_uring"),
        "gyre-epoll": gyre("epoll"),
        "raw-io_uring": [os.path.join(build, "bench", "raw_udp_uring")],
        "raw-epoll": [os.path.join(build, "bench", "raw_udp_epoll")],
        "libuv": [os.path.join(build, "bench", "libuv_udp_echo")],
    }


def relay_commands(build, backend):
    """Name -> command line of the relays to the address `backend`, those of packages left out."""
    def gyre(choice):
        return [os.path.join(build, "examples", "relay"), "--backend", choice, "--stats", "tcp://127.0.0.1:0", backend]

    return {
        "gyre-io_uring": gyre("io_uring"),
        "gyre-epoll": gyre("epoll"),
        "raw-io_uring": [os.path.join(build, "bench", "raw_uring_relay"), backend],
        "raw-epoll": [os.path.join(build, "bench", "raw_epoll_relay"), backend],
    }


def not_built(name, command):
    if name in PEERS:
        return f"{os.path.basename(command)} is not built: run `make bench-setup` and `make release`"
    return f"{command} is not built: run `make release`"


def start(name, command, cpu):
    """Starts a server and makes sure that it is what its name says: a gyre server may have chosen another backend."""
    if os.sep in command[0] and not os.access(command[0], os.X_OK):
        raise harness.Unavailable(not_built(name, command[0]))
    server = harness.Server(name, command, cpu)
    if name.startswith("gyre-") and f"backend {re.split('[-@]', name)[1]}" not in server.line:
        line = server.line
        server.stop()
        raise harness.Unavailable(f"it runs on another backend: {line}")
    return server


def starters(commands):
    """Name -> function that starts it: what Run.start() takes."""
    return {name: lambda name, cpu, command=command: start(name, command, cpu) for name, command in commands.items()}


def relay_starters(build, backends, connections):
    """`backends` maps the name of each relay to the address behind it."""
    found = {name: starters(relay_commands(build, backend))[name] for name, backend in backends.items()
             if name in BASIC}
    found.update((name, relays.starters(backend.removeprefix("tcp://"), connections)[name])
                 for name, backend in backends.items() if name in PACKAGED)
    return found
