# SPDX-License-Identifier: MIT
"""What the example programs say to wrong arguments and to --help; a part of test_examples.py, which gives `check`."""

import os
import socket
import subprocess


def check_refused(check, path, arguments, status, words):
    done = subprocess.run([path, *arguments], capture_output=True, text=True, timeout=30, check=False)
    name = " ".join([os.path.basename(path), *arguments])
    check(f"`{name}` exits with {status} (it was {done.returncode})", done.returncode == status)
    check(f"`{name}` says {words!r} (it said {done.stderr!r})", words in done.stderr)


def run_bad_input(programs, check):
    def refused(path, arguments, status, words):
        check_refused(check, path, arguments, status, words)

    echo, relay = os.path.join(programs, "echo"), os.path.join(programs, "relay")
    refused(echo, [], 2, "address")
    refused(echo, ["--loops", "0", "tcp://127.0.0.1:0"], 2, "--loops")
    refused(echo, ["--loops", "2x", "tcp://127.0.0.1:0"], 2, '"2x"')
    refused(echo, ["--busy-poll", "10001", "tcp://127.0.0.1:0"], 2, "--busy-poll")
    refused(echo, ["--no-such-flag"], 2, "flag")
    refused(echo, ["--backend", "abacus", "tcp://127.0.0.1:0"], 1, "GYRE_EBACKEND")
    refused(echo, ["127.0.0.1:0"], 1, "GYRE_EADDRESS")
    refused(echo, ["unix://" + "/x" * 80], 1, "GYRE_EPATHLEN")
    refused(relay, ["tcp://127.0.0.1:0"], 2, "two addresses")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        refused(echo, [f"tcp://127.0.0.1:{taken.getsockname()[1]}"], 1, "EADDRINUSE")
    push, chat = os.path.join(programs, "push"), os.path.join(programs, "chat")
    refused(push, ["tcp://127.0.0.1:0"], 2, "a time")
    refused(push, ["tcp://127.0.0.1:0", "0"], 2, "MILLISECONDS")
    refused(push, ["tcp://127.0.0.1:0", "1s"], 2, "MILLISECONDS")
    refused(push, ["tcp://127.0.0.1:0", "100", "31"], 2, "BYTES")
    refused(push, ["127.0.0.1:0", "100"], 1, "GYRE_EADDRESS")
    refused(chat, [], 2, "an address")
    refused(chat, ["tcp://127.0.0.1:0", "close"], 2, "abort")
    refused(chat, ["--backend", "abacus", "tcp://127.0.0.1:0"], 1, "GYRE_EBACKEND")
    server, client = os.path.join(programs, "framed_server"), os.path.join(programs, "framed_client")
    refused(server, [], 2, "one address")
    refused(server, ["tcp://127.0.0.1"], 1, "GYRE_EADDRESS")
    refused(client, ["tcp://127.0.0.1:1", "1"], 2, "two or three numbers")
    refused(client, ["tcp://127.0.0.1:1", "many", "1"], 2, 'CONNECTIONS is a number from 1 to 100000, not "many"')
    refused(client, ["tcp://127.0.0.1:1", "1", "0"], 2, "BATCHES")
    refused(client, ["tcp://127.0.0.1:1", "1", "1", "-1"], 2, "FRAMES")
    refused(client, ["here", "2", "1"], 1, "streams use tcp://HOST:PORT")
    worker = os.path.join(programs, "worker")
    refused(worker, ["tcp://127.0.0.1:0"], 2, "a directory")
    refused(worker, ["tcp://127.0.0.1:0", ".", "4"], 2, "two numbers")
    refused(worker, ["tcp://127.0.0.1:0", ".", "257", "1"], 2, "THREADS")
    refused(worker, ["tcp://127.0.0.1:0", ".", "1", "0"], 2, "WAITING")
    refused(worker, ["tcp://127.0.0.1:0", "/no/such/directory"], 1, "ENOENT")


def run_help(programs, check):
    for name in ("echo", "relay", "push", "chat", "framed_server", "framed_client", "worker"):
        done = subprocess.run([os.path.join(programs, name), "--help"], capture_output=True, text=True, timeout=30,
                              check=False)
        check(f"`{name} --help` exits with 0 (it was {done.returncode}: {done.stderr!r})",
              done.returncode == 0 and not done.stderr)
        check(f"`{name} --help` says how it is used (it said {done.stdout!r})",
              done.stdout.startswith(f"usage: {name} ") and "--backend" in done.stdout)
