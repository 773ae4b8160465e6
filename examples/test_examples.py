#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Runs the example programs as a user would and talks to them through plain sockets.

usage: test_examples.py DIRECTORY-OF-THE-PROGRAMS [BACKEND...]

Prints what failed and exits with 1, or says how many checks passed. A backend that the library does not have, or
that does not work here, is a failure: the caller names those that must be there.
"""

import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading

PATTERN = bytes(range(251)) * 8400  # 2.1 MB, of a length that fits no buffer
checks = []


def check(what, ok):
    checks.append((what, ok))
    if not ok:
        print(f"FAILED: {what}")


class Program:
    """An example with its addresses; ended with SIGTERM, which it must answer with status 0."""

    def __init__(self, path, *arguments):
        self.child = subprocess.Popen([path, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        self.line = self.child.stdout.readline()
        self.address = re.search(r"(tcp|udp|unix)://[^ ,]+", self.line)
        self.address = self.address.group(0) if self.address else ""

    def end(self, what):
        self.child.send_signal(signal.SIGTERM)
        try:
            out, err = self.child.communicate(timeout=30)
        except subprocess.TimeoutExpired:
            self.child.kill()
            self.child.communicate()
            check(f"{what}: ends on SIGTERM", False)
            return ""
        check(f"{what}: status 0 on SIGTERM (it was {self.child.returncode}: {err})", self.child.returncode == 0)
        return out


def connect(address):
    if address.startswith("unix://@"):
        s = socket.socket(socket.AF_UNIX)
        s.connect("\0" + address[len("unix://@"):])
    elif address.startswith("unix://"):
        s = socket.socket(socket.AF_UNIX)
        s.connect(address[len("unix://"):])
    else:
        host, port = address[len("tcp://"):].rsplit(":", 1)
        s = socket.create_connection((host.strip("[]"), int(port)))
    s.settimeout(60)
    return s


def exchange(address):
    """Send everything, close our direction, read to the end: what comes back?"""
    with connect(address) as s:
        def send():
            s.sendall(PATTERN)
            s.shutdown(socket.SHUT_WR)

        sender = threading.Thread(target=send)
        sender.start()
        got = bytearray()
        while part := s.recv(65536):
            got += part
        sender.join()
        return bytes(got)


def exchange_datagrams(address):
    """Do datagrams of several sizes come back as they were sent?"""
    host, port = address[len("udp://"):].rsplit(":", 1)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        s.settimeout(60)
        s.connect((host, int(port)))
        for size in (0, 1, 64, 1400, 9000):
            s.send(PATTERN[:size])
            if s.recv(65536) != PATTERN[:size]:
                return False
    return True


def run_backend(programs, backend, directory):
    echo, relay = os.path.join(programs, "echo"), os.path.join(programs, "relay")
    flags = ["--backend", backend, "--loops", "2", "--stats"]
    server = Program(echo, *flags, "tcp://127.0.0.1:0", f"unix://{directory}/{backend}.sock")
    check(f"echo on {backend} says so: {server.line!r}", f"backend {backend} (" in server.line)
    datagrams = Program(echo, *flags, "udp://127.0.0.1:0")
    check(f"echo on {backend}, UDP, too", exchange_datagrams(datagrams.address))
    datagrams.end(f"UDP echo on {backend}")
    front = Program(relay, *flags, "tcp://127.0.0.1:0", server.address)
    check(f"echo on {backend} returns every byte", exchange(server.address) == PATTERN)
    check(f"echo on {backend}, unix, too", exchange(f"unix://{directory}/{backend}.sock") == PATTERN)
    check(f"relay on {backend} returns every byte", exchange(front.address) == PATTERN)
    with connect(front.address) as left_open:
        left_open.sendall(b"x")
        check(f"relay on {backend} answers", left_open.recv(1) == b"x")
        out = front.end(f"relay on {backend} with a connection open")
        check(f"relay on {backend} prints its counters", re.search(r"^bytes_forwarded +[1-9]", out, re.M) is not None)
    server.end(f"echo on {backend}")
    check(f"echo on {backend} removes its socket", not os.path.exists(f"{directory}/{backend}.sock"))

    dead = Program(relay, *flags, "tcp://127.0.0.1:0", "tcp://127.0.0.1:1")
    with connect(dead.address) as s:
        try:
            ended = s.recv(1) == b""
        except ConnectionResetError:
            ended = True
        check(f"relay on {backend} ends a connection it has no upstream for", ended)
    dead.end(f"relay on {backend} without upstream")


def refused(path, arguments, status, words):
    done = subprocess.run([path, *arguments], capture_output=True, text=True, timeout=30, check=False)
    name = " ".join([os.path.basename(path), *arguments])
    check(f"`{name}` exits with {status} (it was {done.returncode})", done.returncode == status)
    check(f"`{name}` says {words!r} (it said {done.stderr!r})", words in done.stderr)


def run_bad_input(programs):
    echo, relay = os.path.join(programs, "echo"), os.path.join(programs, "relay")
    refused(echo, [], 2, "address")
    refused(echo, ["--loops", "0", "tcp://127.0.0.1:0"], 2, "--loops")
    refused(echo, ["--no-such-flag"], 2, "flag")
    refused(echo, ["--backend", "abacus", "tcp://127.0.0.1:0"], 1, "GYRE_EBACKEND")
    refused(echo, ["127.0.0.1:0"], 1, "GYRE_EADDRESS")
    refused(echo, ["unix://" + "/x" * 80], 1, "GYRE_EPATHLEN")
    refused(relay, ["tcp://127.0.0.1:0"], 2, "two addresses")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        refused(echo, [f"tcp://127.0.0.1:{taken.getsockname()[1]}"], 1, "EADDRINUSE")


def main():
    programs, backends = sys.argv[1], sys.argv[2:]
    with tempfile.TemporaryDirectory() as directory:
        for backend in backends:
            run_backend(programs, backend, directory)
    run_bad_input(programs)
    failed = [what for what, ok in checks if not ok]
    print(f"{len(checks) - len(failed)} of {len(checks)} checks passed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
