# SPDX-License-Identifier: MIT
"""The servers that are compared, and which ratios are told. Each prints the address it listens on in its first line."""
import os

import harness

RATIOS = [
    ("gyre-io_uring", "raw-io_uring"),
    ("gyre-io_uring", "raw-epoll"),
    ("gyre-epoll", "raw-epoll"),
    ("gyre-io_uring", "gyre-epoll"),
    ("raw-io_uring", "raw-epoll"),
]


def echo_command(build, backend=None):
    """The echo example on any free port; it prints its counters when it is stopped."""
    choice = ["--backend", backend] if backend else []
    return [os.path.join(build, "examples", "echo"), *choice, "--stats", "tcp://127.0.0.1:0"]


def table(build):
    """Name -> command line."""
    return {
        "gyre-io_uring": echo_command(build, "io_uring"),
        "gyre-epoll": echo_command(build, "epoll"),
        "raw-io_uring": [os.path.join(build, "bench", "raw_uring")],
        "raw-epoll": [os.path.join(build, "bench", "raw_epoll")],
    }


def start(name, command, cpu):
    """Starts a server and makes sure that it is what its name says: a gyre server may have chosen another backend."""
    if os.sep in command[0] and not os.access(command[0], os.X_OK):
        raise harness.Unavailable(f"{command[0]} is not built: run `make release`")
    server = harness.Server(name, command, cpu)
    if name.startswith("gyre-") and f"backend {name[len('gyre-'):]}" not in server.line:
        line = server.line
        server.stop()
        raise harness.Unavailable(f"it runs on another backend: {line}")
    return server
