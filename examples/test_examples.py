#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Runs the example programs as a user would and talks to them through plain sockets.

usage: test_examples.py DIRECTORY-OF-THE-PROGRAMS [BACKEND[=DIRECTORY]...]

A backend may have programs of its own: those that are linked with the library that has it.

Prints what failed and exits with 1, or says how many checks passed. A backend that the library does not have, or
that does not work here, is a failure: the caller names those that must be there.
"""

import errno
import os
import re
import select
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time

import test_usage

PATTERN = bytes(range(251)) * 8400  # 2.1 MB, of a length that fits no buffer
checks = []


def check(what, ok):
    checks.append((what, ok))
    if not ok:
        print(f"FAILED: {what}")


class Program:
    """An example with its addresses, one line for each; ended with a signal, which it must answer with status 0."""

    def __init__(self, path, *arguments, lines=1):
        self.child = subprocess.Popen([path, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        self.lines = [self.child.stdout.readline() for _ in range(lines)]
        self.line = self.lines[0]
        found = [re.search(r"(tcp|udp|unix)://[^ ,]+", line) for line in self.lines]
        self.addresses = [match.group(0) if match else "" for match in found]
        self.address = self.addresses[0]
        self.asked = None

    def ask_to_end(self, number=signal.SIGTERM):
        self.asked = number
        self.child.send_signal(number)

    def end(self, what, number=signal.SIGTERM):
        if self.asked is None:
            self.ask_to_end(number)
        number = self.asked
        try:
            out, err = self.child.communicate(timeout=30)
        except subprocess.TimeoutExpired:
            self.child.kill()
            self.child.communicate()
            check(f"{what}: ends on {number.name}", False)
            return ""
        check(f"{what}: status 0 on {number.name} (it was {self.child.returncode}: {err})", self.child.returncode == 0)
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


def flags(backend):
    return ["--backend", backend, "--loops", "2", "--stats"]


def run_echo(programs, backend, directory):
    """TCP, UDP and a unix socket, all served by one echo at once."""
    path = f"{directory}/{backend}.sock"
    echo = Program(os.path.join(programs, "echo"), *flags(backend), "--busy-poll", "20", "tcp://127.0.0.1:0",
                   "udp://127.0.0.1:0", f"unix://{path}", lines=3)
    check(f"echo on {backend} says so: {echo.lines}", all(f"backend {backend} (" in line for line in echo.lines))
    results = {}
    clients = [threading.Thread(target=lambda a=address: results.update({a: exchange(a) == PATTERN}))
               for address in (echo.addresses[0], echo.addresses[2])]
    for client in clients:
        client.start()
    check(f"echo on {backend}, UDP, returns datagrams of all sizes", exchange_datagrams(echo.addresses[1]))
    for client in clients:
        client.join()
    check(f"echo on {backend}, TCP, returns every byte", results.get(echo.addresses[0]))
    check(f"echo on {backend}, unix, returns every byte", results.get(f"unix://{path}"))
    echo.end(f"echo on {backend}", signal.SIGINT)
    check(f"echo on {backend} removes its socket", not os.path.exists(path))


def run_relay(programs, backend, _directory):
    path = os.path.join(programs, "relay")
    server = Program(os.path.join(programs, "echo"), *flags(backend), "tcp://127.0.0.1:0")
    front = Program(path, *flags(backend), "tcp://localhost:0", server.address.replace("127.0.0.1", "localhost"))
    check(f"relay on {backend} returns every byte", exchange(front.address) == PATTERN)
    with connect(front.address) as left_open:
        left_open.sendall(b"x")
        check(f"relay on {backend} answers", left_open.recv(1) == b"x")
        out = front.end(f"relay on {backend} with a connection open")
        check(f"relay on {backend} prints its counters", re.search(r"^bytes_forwarded +[1-9]", out, re.M) is not None)
    server.end(f"echo behind relay on {backend}")

    dead = Program(path, *flags(backend), "tcp://127.0.0.1:0", "tcp://127.0.0.1:1")
    with connect(dead.address) as s:
        check(f"relay on {backend} ends a connection it has no upstream for", ends(s))
    dead.end(f"relay on {backend} without upstream")


def ticks(data):
    """The numbers of the whole lines in `data`, or None if one is not as push makes it."""
    lines = data.split(b"\n")[:-1]
    found = [re.fullmatch(rb"tick (\d+)\.*", line) for line in lines]
    return [int(match.group(1)) for match in found] if all(found) and len({*map(len, lines)}) <= 1 else None


def run_push(programs, backend, directory):
    """Everybody gets every line, until somebody does not read: that one misses some, and nobody else does."""
    push = Program(os.path.join(programs, "push"), *flags(backend), "tcp://127.0.0.1:0", "2")
    with connect(push.address) as one, connect(push.address) as other:
        one.sendall(PATTERN[:5000])  # what clients say is not kept
        heard = [ticks(s.makefile("rb").read(32 * 30)) or [] for s in (one, other)]
        check(f"push on {backend} sends every tick to all", all(len(h) == 30 and h[-1] - h[0] == 29 for h in heard))
    out = push.end(f"push on {backend}", signal.SIGINT)
    check(f"push on {backend} says what it did: {out[-80:]!r}",
          re.search(r"^\d+ ticks, \d+ lines queued, 0 left out", out, re.M) is not None)

    path = f"{directory}/{backend}-push.sock"
    push = Program(os.path.join(programs, "push"), *flags(backend), f"unix://{path}", "1", "65536")
    with connect(push.address) as slow, connect(push.address) as fast:
        total = 0
        while total < 16 << 20:
            total += len(fast.recv(1 << 20))
        collector = threading.Thread(target=lambda: drain(fast))
        collector.start()
        push.ask_to_end()
        late = drain(slow)
        collector.join()
    out = push.end(f"push on {backend} with a slow client")
    numbers = ticks(late)
    check(f"push on {backend} sends a slow client whole lines, in order", numbers and numbers == sorted(set(numbers)))
    check(f"push on {backend} keeps less than 2 MiB for a slow client (it got {len(late)})", len(late) < 2 << 20)
    check(f"push on {backend} counts what it left out", re.search(r", [1-9]\d* left out", out) is not None)


def drain(s):
    """What is left to be read, up to the end."""
    got = bytearray()
    while part := s.recv(65536):
        got += part
    return bytes(got)


def ends(s):
    """Whether the other side closes or resets, without sending more."""
    try:
        return s.recv(1) == b""
    except ConnectionResetError:
        return True


class Guest:
    """A client of line protocols."""

    def __init__(self, address, *lines):
        self.socket = connect(address)
        self.lines = self.socket.makefile("rb")
        for line in lines:
            self.say(line)

    def say(self, line):
        self.socket.sendall(line.encode() + b"\n")

    def hear(self):
        return self.lines.readline().decode().rstrip("\n")

    def hear_until(self, pattern):
        """The lines up to one that matches, which may be the end."""
        heard = []
        while not heard or (heard[-1] and not re.search(pattern, heard[-1])):
            heard.append(self.hear())
        return heard

    def close(self):
        self.lines.close()
        self.socket.close()


def run_chat(programs, backend, directory):
    chat = Program(os.path.join(programs, "chat"), *flags(backend), "tcp://127.0.0.1:0")
    stranger, guests = Guest(chat.address), []
    for number in range(8):  # with two loops, some on each as a rule
        guests.append(Guest(chat.address, f"guest-{number}"))
        check(f"chat on {backend} asks for a name", guests[-1].hear() == "* your name?")
        for guest in guests:
            check(f"chat on {backend} tells all who joined", guest.hear() == f"* guest-{number} joined")
    for number in (3, 0):
        guests[number].say(f"hello \x1b[2J from {number}\r")
        heard = {guest.hear() for guest in guests}
        check(f"chat on {backend} is heard by all ({heard})", heard == {f"guest-{number}: hello ?[2J from {number}"})
    for name in ("guest-3", "guest 9", "", "x" * 25):
        stranger.say(name)
    check(f"chat on {backend} tells who has no name nothing", stranger.hear() == "* your name?")
    check(f"chat on {backend} refuses names that are taken", stranger.hear() == "! that name is taken")
    check(f"chat on {backend} refuses names that are none", all("a name is" in stranger.hear() for _ in range(3)))
    loud = guests.pop(5)
    loud.say("y" * 1200)
    check(f"chat on {backend} puts out who sends a line too long",
          loud.hear_until("!")[-1] == "! a line has at most 1000 bytes" and loud.hear() == "")
    loud.close()
    check(f"chat on {backend} says who left", guests[1].hear() == "* guest-5 left")
    chat.ask_to_end()
    for guest in [*guests, stranger]:
        guest.hear_until("^$")
        guest.close()
    chat.end(f"chat on {backend} with guests")
    for policy in ([], ["abort"]):
        run_slow_guest(programs, backend, f"unix://{directory}/{backend}-chat.sock", policy)


def run_slow_guest(programs, backend, address, policy):
    """One guest does not read; who talks hears all of it all the same."""
    chat = Program(os.path.join(programs, "chat"), *flags(backend), address, *policy)
    slow, talker = Guest(address, "slow"), Guest(address, "talker")
    slow.hear_until("slow joined")
    talker.hear_until("talker joined")
    missed, heard = 0, []
    for number in range(1200):
        talker.say(f"{number} " + "z" * 990)
        heard += talker.hear_until("^talker: ")
        missed += not heard[-1].startswith(f"talker: {number} ")
    name = f"chat on {backend} {' '.join(policy)}"
    check(f"{name}: who reads misses nothing", missed == 0)
    if not policy:
        chat.ask_to_end()
        numbers = [int(number) for number in re.findall(rb"^talker: (\d+) z{990}$", drain(slow.socket), re.M)]
        check(f"{name}: who does not read misses some lines, as a whole",
              numbers == sorted(set(numbers)) and 0 < len(numbers) < 1200)
    else:
        check(f"{name}: who does not read is put out", "* slow left" in heard)
        chat.ask_to_end()
    slow.close()
    talker.close()
    chat.end(name)


def frame(body, magic=b"\x05\x22", length=None):
    return magic + struct.pack(">I", len(body) if length is None else length) + body


def exchange_raw(address, data):
    """What comes back to `data`, up to the end that the server makes."""
    with connect(address) as s:
        s.sendall(data)
        return drain(s)


def run_framed(programs, backend, _directory):
    server = Program(os.path.join(programs, "framed_server"), *flags(backend), "tcp://127.0.0.1:0")
    name = f"framed_server on {backend}"
    with connect(server.address) as s:
        data = b"".join(frame(PATTERN[:size]) for size in (0, 1, 5, 65536, 700))
        for piece in (data[:3], data[3:7], data[7:]):
            s.sendall(piece)
        s.shutdown(socket.SHUT_WR)
        check(f"{name} answers every frame with its body", drain(s) == data)
    magic, long = frame(b"error: a frame begins with 05 22"), frame(b"error: a body has at most 64 KiB")
    check(f"{name} tells and closes at a bad magic number", exchange_raw(server.address, b"G") == magic)
    mixed = exchange_raw(server.address, frame(b"a") + b"\x05!")
    check(f"{name} answers what came before", mixed == frame(b"a") + magic)
    check(f"{name} tells and closes at a long body", exchange_raw(server.address, frame(b"", length=65537)) == long)
    run_unread_answers(name, server.address)

    out = run_client(programs, backend, server.address, ["200", "5", "20"], 0)
    check(f"framed_client on {backend} counts its answers: {out[0]!r}",
          out[0].startswith("20000 answers of 20000 were right, 0 connections of 200 failed\n"))
    server.end(name)
    out = run_client(programs, backend, server.address, ["3", "1"], 1)
    check(f"framed_client on {backend} says why it failed: {out!r}",
          "3 connections of 3 failed" in out[0] and "nothing listens on that address" in out[1])
    run_bad_servers(programs, backend)


def run_unread_answers(name, address):
    """Who asks and does not take the answers is stopped: what it can send is bounded by buffers."""
    with connect(address) as s:
        s.setblocking(False)
        sent, data = 0, frame(PATTERN[:65530]) * 16  # of 65536 bytes each
        try:
            while sent < 256 << 20 and select.select([], [s], [], 3)[1]:
                sent += s.send(data[sent % len(data):])
        except BlockingIOError:
            pass
        check(f"{name} does not read from who does not take the answers ({sent} bytes)", sent < 64 << 20)
        s.settimeout(60)
        s.shutdown(socket.SHUT_WR)
        got = drain(s)
        whole = len(got) // 65536
        check(f"{name} then sends them all, in order", whole == sent // 65536 and got == frame(PATTERN[:65530]) * whole)


def run_client(programs, backend, address, arguments, status):
    path = os.path.join(programs, "framed_client")
    done = subprocess.run([path, *flags(backend), address, *arguments], capture_output=True, text=True, timeout=60,
                          check=False)
    check(f"framed_client on {backend} exits with {status} (it was {done.returncode}: {done.stderr})",
          done.returncode == status)
    return done.stdout, done.stderr


def run_bad_servers(programs, backend):
    """Servers that answer wrongly: other bytes, another length, no frame, nothing and a close."""
    answers = ((lambda sent: sent[:-1] + bytes([sent[-1] ^ 1]), "not what was sent"),
               (lambda sent: frame(b""), "not what was sent"), (lambda sent: sent + sent, "after 1 answers: not what"),
               (lambda sent: b"HTTP/1.1 400", "rotocol"), (lambda sent: b"", "server closed"))
    for answer, words in answers:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            def serve(listener=listener, answer=answer):
                s, _ = listener.accept()
                with s:
                    head = s.recv(6, socket.MSG_WAITALL)
                    s.sendall(answer(head + s.recv(struct.unpack(">I", head[2:])[0], socket.MSG_WAITALL)))
                    ends_after_all(s)

            server = threading.Thread(target=serve)
            server.start()
            address = f"tcp://127.0.0.1:{listener.getsockname()[1]}"
            out = run_client(programs, backend, address, ["1", "2", "1"], 1)
            server.join()
            check(f"framed_client on {backend} says {words!r}: {out[1]!r}", words in out[1])


def ends_after_all(s):
    """The client may have reset the connection by now."""
    try:
        s.shutdown(socket.SHUT_WR)
        drain(s)
    except OSError as error:
        if error.errno not in (errno.ECONNRESET, errno.ENOTCONN):
            raise


def fnv1a(data):
    value = 0xCBF29CE484222325
    for byte in data:
        value = (value ^ byte) * 0x100000001B3 % (1 << 64)
    return value


def ask(guest, request):
    guest.say(request)
    return guest.hear()


def ask_until_taken(address, request):
    """A connection whose request was not answered with "busy", or one whose was, if all are for a minute."""
    deadline = time.monotonic() + 60
    while True:
        guest = Guest(address, request, "what")
        answer = guest.hear()  # if it is not to the request, then to what is none
        if answer != "busy" or time.monotonic() > deadline:
            check(f"{request!r} is taken at last: {answer!r}", answer.startswith("ask: "))
            return guest
        guest.close()


def run_worker(programs, backend, directory):
    """One thread, one job that waits: two jobs that take long keep it busy, until they are called off."""
    folder = tempfile.mkdtemp(dir=directory)
    files = {"empty": b"", "some": PATTERN[:70001]}
    for name, data in files.items():
        with open(os.path.join(folder, name), "wb") as file:
            file.write(data)
    with open(os.path.join(folder, "long"), "wb") as file:
        file.truncate(1 << 40)  # nothing is stored, and reading it would take minutes
    os.mkfifo(os.path.join(folder, "fifo"))
    worker = Program(os.path.join(programs, "worker"), *flags(backend), "tcp://127.0.0.1:0", folder, "1", "1")
    name = f"worker on {backend}"

    guest = Guest(worker.address)
    for file, data in files.items():
        expected = f"{file}: {fnv1a(data):016x}, {len(data)} bytes"
        check(f"{name} digests {file}", ask(guest, f"digest {file}") == expected)
    for file, words in (("none", "no such file"), ("fifo", "invalid"), ("..", "invalid"), ("", "no such file")):
        heard = ask(guest, f"digest {file}")
        check(f"{name} does not digest {file!r}: {heard}", heard.startswith(f"{file}: ") and words in heard.lower())
    for request in ("", "digest", "digest ../test", "sum x", "cancel\r\n?"):
        check(f"{name} says what to ask, to {request!r}", ask(guest, request).startswith("ask: "))

    running, waiting = ask_until_taken(worker.address, "digest long"), ask_until_taken(worker.address, "digest long")
    check(f"{name}: one job at a time", ask(waiting, "digest some") == "one at a time")
    check(f"{name}: no room is told", ask(guest, "digest some") == "busy")
    check(f"{name}: loops go on meanwhile", ask(guest, "what") == "ask: digest FILE, or cancel")
    running.close()  # which calls off its job, or the next would never be taken
    third = ask_until_taken(worker.address, "digest long")
    check(f"{name}: a job is called off by asking", ask(waiting, "cancel") == "long: cancelled")
    check(f"{name}: and so is one that waits or has just begun", ask(third, "cancel") == "long: cancelled")
    check(f"{name}: one that ends in an error leaves room", ask(waiting, "digest none").startswith("none: "))
    check(f"{name}: a line too long ends", Guest(worker.address, "digest " + "x" * 300).hear() == "")
    last = ask_until_taken(worker.address, "digest long")
    worker.ask_to_end()
    for each in (guest, waiting, third, last):
        each.close()
    worker.end(f"{name} with a job under way")


def main():
    programs, backends = sys.argv[1], [argument.partition("=") for argument in sys.argv[2:]]
    with tempfile.TemporaryDirectory() as directory:
        for backend, _, own_programs in backends:
            for run in (run_echo, run_relay, run_push, run_chat, run_framed, run_worker):
                run(own_programs or programs, backend, directory)
    test_usage.run_bad_input(programs, check)
    test_usage.run_help(programs, check)
    failed = [what for what, ok in checks if not ok]
    print(f"{len(checks) - len(failed)} of {len(checks)} checks passed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
