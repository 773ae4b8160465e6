# SPDX-License-Identifier: MIT
"""One cell being measured: slices in turn, in rotated order, and the ratios within each round."""
import statistics

import harness
import servers


def median_and_quartiles(values):
    """(median, lower quartile, upper quartile)"""
    if len(values) == 1:
        return values[0], values[0], values[0]
    quartiles = statistics.quantiles(values, n=4, method="inclusive")
    return quartiles[1], quartiles[0], quartiles[2]


class Run:
    """One cell being measured: running servers, rounds so far, servers that fell out."""

    def __init__(self, cell, missing, progress):
        self.cell = cell
        self.backends = {}  # name of a relay -> the server behind it
        self.progress = progress
        self.running = {}
        self.loads = {}  # name -> the load on it; each a process of its own, asleep when it is not its turn
        self.rounds = {}  # name -> slices, one per round
        self.requests = {}  # name -> answered in all, warm-up included
        self.calls = {}  # name -> system calls per request
        self.dropped = {name: (reason, False) for name, reason in missing.items()}  # (reason, was it being measured)

    def drop(self, name, err):
        self.dropped[name] = (str(err), isinstance(err, harness.Failed))
        self.rounds.pop(name, None)
        for process in (self.loads.pop(name, None), self.running.pop(name, None)):
            if process:
                process.stop()
        self.progress(f"{self.cell}: {name} dropped: {err}", last=True)

    def start_backend(self, name, command, load_cpu):
        """The echo server behind a relay, on the load's processor. Returns its address. Raises Unavailable."""
        self.backends[name] = servers.start("the backend", command, load_cpu)
        return self.backends[name].address

    def start(self, starters, load_program, server_cpu, load_cpu):
        for name, starter in starters.items():
            if name in self.dropped:
                continue
            self.progress(f"{self.cell}: starting {name}")
            try:
                self.running[name] = starter(name, {server_cpu, load_cpu} if name in servers.TWO else {server_cpu})
                self.rounds[name], self.requests[name] = [], 0
                self.require_scheme(name)
                self.connect(name, load_program, load_cpu)
            except harness.Unavailable as err:
                self.drop(name, err)
            except harness.Failed as err:
                self.drop(name, self.blame_backend(name, err))

    def require_scheme(self, name):
        address = self.running[name].address
        if address.startswith("udp://") != (self.cell.kind == "udp"):
            wanted = "udp://" if self.cell.kind == "udp" else "tcp:// or unix://"
            raise harness.Unavailable(f"it does not speak {wanted} but {address}")

    def connect(self, name, load_program, load_cpu):
        cell = self.cell
        with harness.blaming(self.running[name]):
            self.loads[name] = harness.Load(load_program, [self.running[name].address], load_cpu,
                                            cell.connections_of(name), cell.size, cell.pipeline,
                                            churn=cell.kind == "churn")
            self.loads[name].require_ready(0)

    def slice(self, name, milliseconds, keep):
        try:
            answer = harness.measured_slice(self.running[name], self.loads[name], 0, milliseconds)
        except harness.Failed as err:
            self.drop(name, self.blame_backend(name, err))
            return
        self.requests[name] += answer["requests_total"]
        if keep:
            self.rounds[name].append(answer)

    def blame_backend(self, name, err):
        """A relay is not to blame when the server behind it is gone: it is dropped with that reason."""
        try:
            if name in self.backends:
                self.backends[name].check()
        except harness.Failed as behind:
            return harness.Failed(f"the backend of the relay {behind}")
        return err

    def measure(self, rounds, milliseconds):
        for number in range(rounds + 1):  # the first one warms up and is thrown away
            self.progress(f"{self.cell}: round {number}/{rounds}")
            names = list(self.running)
            turn = number % len(names) if names else 0
            for name in names[turn:] + names[:turn]:
                self.slice(name, milliseconds, keep=number > 0)

    def stop(self):
        for load in self.loads.values():
            load.stop()
        for name, server in self.running.items():
            stats = server.stop()
            self.calls[name] = harness.calls_per_request(stats, self.requests[name])
        for backend in self.backends.values():
            backend.stop()
        self.loads, self.running, self.backends = {}, {}, {}

    def result(self, pairs):
        return {
            "cell": str(self.cell),
            "kind": self.cell.kind,
            "size": self.cell.size,
            "pipeline": self.cell.pipeline,
            "connections": self.cell.connections,
            "servers": {name: self._server(name, slices) for name, slices in self.rounds.items() if slices},
            "ratios": [self._ratio(a, b) for a, b in pairs if self.rounds.get(a) and self.rounds.get(b)],
            "dropped": {name: reason for name, (reason, _) in self.dropped.items()},
        }

    def _server(self, name, slices):
        def median(value):
            return statistics.median(value(s) for s in slices)

        return {
            "requests_per_second": median(lambda s: s["requests_per_second"]),
            "requests_per_cpu_second": median(per_cpu_second),
            "p50_ns": median(lambda s: s["latency_ns"]["p50"]),
            "p99_ns": median(lambda s: s["latency_ns"]["p99"]),
            "calls_per_request": self.calls.get(name),
            "lost": sum(s["lost"] for s in slices),
            "slices": slices,
        }

    def _ratio(self, a, b):
        both = list(zip(self.rounds[a], self.rounds[b]))
        cpu = [per_cpu_second(x) / per_cpu_second(y) for x, y in both]
        rate = [x["requests_per_second"] / y["requests_per_second"] for x, y in both if y["requests_per_second"] > 0]
        return {"of": a, "to": b, "per_cpu_second": median_and_quartiles(cpu),
                "per_second": median_and_quartiles(rate or [0.0])}


def per_cpu_second(measured):
    return measured["requests_total"] * 1e9 / measured["cpu_ns"]
