# SPDX-License-Identifier: MIT
"""Servers and load as processes: started, pinned, measured, and never left behind.

A server is started, says in its first line where it listens, and is stopped with SIGTERM. The load is gyre-load in its
slices mode: it holds connections to several servers and gives each a slice when told to. Both run in sessions of their
own, so that Ctrl-C reaches only this program, which ends them; and the kernel kills them should this program be killed.
"""
import argparse
import contextlib
import ctypes
import json
import os
import re
import select
import signal
import subprocess
import tempfile
import time

PR_SET_PDEATHSIG = 1
START_SECONDS = 10
STOP_SECONDS = 8  # gyre servers drain for up to 5
ANSWER_SECONDS = 30  # beyond what a command asks for; the load itself gives up on a stall after 5

_libc = ctypes.CDLL(None, use_errno=True)


class Unavailable(Exception):
    """A server that cannot be measured here: not built, refused by the kernel, its port taken."""


class Failed(Exception):
    """A server or the load that went wrong while it was measured."""


def processors():
    """The processors for the server and for the load. The same one twice if there is no other."""
    allowed = sorted(os.sched_getaffinity(0))
    return allowed[0], allowed[1 if len(allowed) > 1 else 0]


def raise_on_signals():
    """Turns the signals that would end this program into an exception, so that everything is cleaned up."""

    def interrupt(number, _frame):
        raise KeyboardInterrupt(signal.Signals(number).name)

    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, interrupt)


def _die_with_parent():
    _libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def _spawn(command, cpu, **streams):
    """Starts a process on one processor, or a set of them. It inherits this thread's, so that it runs nowhere else even
    at first."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {cpu} if isinstance(cpu, int) else cpu)
    try:
        return subprocess.Popen(command, start_new_session=True, preexec_fn=_die_with_parent, **streams)
    except OSError as err:
        raise Unavailable(f"{command[0]}: {err.strerror}") from err
    finally:
        os.sched_setaffinity(0, before)


def _end(process):
    """Asks, waits, insists. Returns what was left on its standard output."""
    if process.poll() is None:
        process.terminate()
    try:
        return process.communicate(timeout=STOP_SECONDS)[0]
    except subprocess.TimeoutExpired:
        process.kill()
        return process.communicate()[0]
    except BaseException:
        process.kill()
        process.communicate()
        raise


class _Lines:
    """Lines from a pipe, with a time limit."""

    def __init__(self, stream):
        self.fd = stream.fileno()
        self.pending = b""

    def next(self, seconds):
        """The next line, or None at the end. Raises TimeoutError."""
        deadline = time.monotonic() + seconds
        while b"\n" not in self.pending:
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([self.fd], [], [], left)[0]:
                raise TimeoutError
            data = os.read(self.fd, 65536)
            if not data:
                return None
            self.pending += data
        line, self.pending = self.pending.split(b"\n", 1)
        return line.decode(errors="replace")


class Server:
    """A running server. `line` is what it said first, `address` where it listens."""

    def __init__(self, name, command, cpu):
        self.name = name
        self._stderr = tempfile.TemporaryFile()
        try:
            self.process = _spawn(command, cpu, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=self._stderr)
        except Unavailable:
            self._stderr.close()
            raise
        self._lines = _Lines(self.process.stdout)
        self.ended = None
        try:
            self.line = self._first_line()
            found = re.search(r"\b(?:tcp|udp|unix)://[^\s,;()]+", self.line)
            if not found:
                raise Unavailable(f"its first line names no address: {self.line!r}")
            self.address = found.group().rstrip(".:'\"")
        except BaseException:
            self.stop()
            raise

    def _first_line(self):
        try:
            line = self._lines.next(START_SECONDS)
        except TimeoutError:
            raise Unavailable(f"it said nothing for {START_SECONDS} s") from None
        if line is None:
            self.process.wait()
            raise Unavailable(self.how_it_ended())
        return line

    def said(self):
        """The end of what it wrote to standard error."""
        self._stderr.seek(0)
        return " | ".join(self._stderr.read().decode(errors="replace").strip().splitlines()[-3:])

    def how_it_ended(self):
        status = self.process.returncode
        how = f"ended by {signal.Signals(-status).name}" if status < 0 else f"ended with status {status}"
        said = self.said()
        return f"{how}: {said}" if said else how

    def check(self):
        if self.process.poll() is not None:
            raise Failed(self.how_it_ended())

    def cpu_ns(self):
        """Processor time of all its threads so far."""
        total = 0
        try:
            for task in os.listdir(f"/proc/{self.process.pid}/task"):
                with contextlib.suppress(FileNotFoundError), open(
                    f"/proc/{self.process.pid}/task/{task}/schedstat", encoding="ascii"
                ) as file:
                    total += int(file.read().split()[0])
        except (FileNotFoundError, ProcessLookupError):
            self.check()
        return total

    def resident_bytes(self):
        with open(f"/proc/{self.process.pid}/smaps_rollup", encoding="ascii") as file:
            for line in file:
                if line.startswith("Rss:"):
                    return int(line.split()[1]) * 1024
        raise Failed("its smaps_rollup has no Rss line")

    def stop(self):
        """Ends it, once; `ended` says how it ended. Returns the counters it printed: lines of a name, a number and
        perhaps a text."""
        if self.ended is None:
            rest = _end(self.process) or b""
            text = (self._lines.pending + rest).decode(errors="replace")
            self._counters = dict(re.findall(r"^(\w+)[ \t]+(\d+)(?:\s|$)", text, re.MULTILINE))
            self.ended = self.how_it_ended()
            self._stderr.close()
        return {name: int(value) for name, value in self._counters.items()}


class Load:
    """gyre-load with connections to all the servers given, by index."""

    def __init__(self, program, addresses, cpu, connections, size, pipeline=1, churn=False):
        command = [program, "--slices", "--connections", str(connections), "--size", str(size), "--pipeline",
                   str(pipeline), *(["--churn"] if churn else [])]
        for address in addresses:
            command += ["--address", address]
        self.process = _spawn(command, cpu, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self._lines = _Lines(self.process.stdout)
        try:
            self.ready = [self._answer(0) for _ in addresses]  # each with "ready" or "error"
        except BaseException:
            self.stop()
            raise

    def _answer(self, seconds):
        try:
            line = self._lines.next(seconds + ANSWER_SECONDS)
        except TimeoutError:
            raise Failed("gyre-load does not answer") from None
        if line is None:
            raise Failed(f"gyre-load ended with status {self.process.wait()}")
        return json.loads(line)

    def require_ready(self, index):
        if "error" in self.ready[index]:
            raise Failed(self.ready[index]["error"])

    def _command(self, text, seconds):
        try:
            self.process.stdin.write(text.encode() + b"\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            raise Failed("gyre-load is gone") from None
        answer = self._answer(seconds)
        if "error" in answer:
            raise Failed(answer["error"])
        return answer

    def run(self, index, milliseconds):
        return self._command(f"run {index} {milliseconds}", milliseconds / 1000)

    def once(self, index):
        return self._command(f"once {index}", 0)

    def stop(self):
        _end(self.process)


@contextlib.contextmanager
def blaming(server):
    """When the load finds something wrong, the reason is rather how the server ended, if it did."""
    try:
        yield
    except Failed:
        with contextlib.suppress(subprocess.TimeoutExpired):
            server.process.wait(timeout=0.2)
        server.check()
        raise


def measured_slice(server, load, index, milliseconds):
    """One slice: gyre-load's answer, with the processor time the server spent on it added."""
    before = server.cpu_ns()
    with blaming(server):
        answer = load.run(index, milliseconds)
    answer["cpu_ns"] = server.cpu_ns() - before
    if answer["cpu_ns"] <= 0:
        raise Failed("its processor time does not advance: /proc/PID/task/*/schedstat is needed")
    if answer["requests_total"] == 0:
        raise Failed(f"no request was answered within a slice of {milliseconds} ms")
    return answer


def calls_per_request(stats, requests):
    """System calls per request by a gyre server's own count, or None."""
    if "enters" not in stats or "calls" not in stats or requests == 0:
        return None
    return (stats["enters"] + stats["calls"]) / requests


def program(build, *parts):
    """A program in the build directory, which must be there."""
    path = os.path.join(build, *parts)
    if not os.access(path, os.X_OK):
        raise Unavailable(f"{path} is not built: run `make release`")
    return path


def in_range(low, high):
    """For argparse: a whole number within a range."""

    def parse(text):
        if not text.isdecimal() or not low <= int(text) <= high:
            raise argparse.ArgumentTypeError(f"must be a number from {low} to {high}, not {text!r}")
        return int(text)

    return parse
