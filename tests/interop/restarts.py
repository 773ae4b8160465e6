#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Restarts a server again and again while clients come: none is refused, and no request is cut.

usage: restarts.py DIRECTORY-OF-THE-EXAMPLES [--restarts N] [--rate N] [--backends A,B,…]

`restart`, the example, is started again and again on one address, each copy with the next of all combinations of
backends and of 1 and 2 loops. Meanwhile one kind of client connects anew for each request, and another keeps its
connection and sends a request now and then. A kept connection may end between two requests. It may do so in the moment
in which the client sends the next one: then no byte of an answer comes, and the client repeats it on a new connection,
as RFC 9112 (9.3.1) has it. Everything else is a fault.

Prints what it did; exits with 1 if a client was refused or a request was cut.
"""

import argparse
import itertools
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time

MESSAGE = b"hello, is anybody there?"
STEADY = 8  # clients that keep their connections
STEADY_PAUSE = 0.3  # seconds; longer than a connection must be quiet to be idle


NOTHING = "no answer"


class Clients:
    """Threads that ask until they are told to stop, and what went wrong."""

    def __init__(self, port, rate, threads=8):
        self.port = port
        self.over = threading.Event()
        self.lock = threading.Lock()
        self.asked = self.repeated = 0
        self.faults = []
        self.threads = [threading.Thread(target=self.run, args=(self.anew, threads / rate)) for _ in range(threads)]
        self.threads += [threading.Thread(target=self.run, args=(self.steady, STEADY_PAUSE)) for _ in range(STEADY)]
        for thread in self.threads:
            thread.start()

    def run(self, ask, pause):
        keep = [None]
        due = time.monotonic()
        while not self.over.is_set():
            fault = ask(keep)
            with self.lock:
                self.asked += 1
                if fault:
                    self.faults.append(fault)
            due = max(due + pause, time.monotonic() - 1)
            self.over.wait(max(0, due - time.monotonic()))
        if keep[0]:
            keep[0].close()

    def connect(self):
        client = socket.create_connection(("127.0.0.1", self.port), timeout=30)
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return client

    @staticmethod
    def request(client):
        """Returns None or what was wrong; NOTHING if the connection ended before the answer began."""
        client.sendall(MESSAGE)
        got = b""
        while len(got) < len(MESSAGE):
            data = client.recv(len(MESSAGE) - len(got))
            if not data:
                return f"cut after {len(got)} bytes" if got else NOTHING
            got += data
        return None if got == MESSAGE else "a wrong answer"

    def anew(self, _):
        try:
            with self.connect() as client:
                return self.request(client)
        except OSError as error:
            return f"a new connection: {error}"

    def steady(self, keep):
        """An end that came between two requests is seen before the next one."""
        try:
            if keep[0] is not None:
                keep[0].setblocking(False)
                try:
                    ended = keep[0].recv(1) == b""
                except BlockingIOError:
                    ended = False
                keep[0].settimeout(30)
                if ended:
                    keep[0].close()
                    keep[0] = None
            fresh = keep[0] is None
            if fresh:
                keep[0] = self.connect()
            fault = self.request(keep[0])
            if fault == NOTHING and not fresh:
                with self.lock:
                    self.repeated += 1
                keep[0].close()
                keep[0] = self.connect()
                fault = self.request(keep[0])
            return fault
        except OSError as error:
            keep[0] = None
            return f"a kept connection: {error}"

    def stop(self):
        self.over.set()
        for thread in self.threads:
            thread.join()


def start(program, backend, loops, control, address):
    child = subprocess.Popen([program, "--backend", backend, "--loops", str(loops), control, address],
                             stdout=subprocess.PIPE, text=True)
    line = child.stdout.readline()
    if f"backend {backend}" not in line:
        sys.exit(f"restart does not say that it serves on {backend}: {line!r}")
    return child, line.split()[2].rstrip(",")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("examples")
    parser.add_argument("--restarts", type=int, default=16)
    parser.add_argument("--rate", type=int, default=400)
    parser.add_argument("--backends", default="io_uring,epoll")
    args = parser.parse_args()
    program = os.path.join(args.examples, "restart")
    pairs = itertools.product(args.backends.split(","), args.backends.split(","))
    kinds = [(backend, loops) for pair in pairs for backend in pair for loops in (1, 2)]
    with tempfile.TemporaryDirectory() as folder:
        control = os.path.join(folder, "control")
        child, address = start(program, *kinds[0], control, "tcp://127.0.0.1:0")
        clients = Clients(int(address.rsplit(":", 1)[1]), args.rate)
        began = time.monotonic()
        for number in range(1, args.restarts + 1):
            old = child
            child, again = start(program, *kinds[number % len(kinds)], control, address)
            if again != address or old.wait(timeout=60) != 0:
                sys.exit(f"restart {number}: the new copy is on {again}; the old one ended with {old.returncode}")
        seconds = time.monotonic() - began
        clients.stop()
        child.send_signal(signal.SIGTERM)
        status = child.wait(timeout=60)
    print(f"{args.restarts} restarts in {seconds:.0f} s, {clients.asked} requests "
          f"({clients.asked / seconds:.0f} a second), {len(clients.faults)} refused or cut, "
          f"{clients.repeated} repeated on a new connection")
    for fault in sorted(set(clients.faults)):
        print(f"  {clients.faults.count(fault)}: {fault}")
    return 1 if clients.faults or status != 0 else 0


if __name__ == "__main__":
    sys.exit(main())
