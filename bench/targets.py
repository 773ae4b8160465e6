# SPDX-License-Identifier: MIT
"""What the project promises itself, and how far a result keeps it.

A target over several cells is met when the median of every cell reaches it. Where one does not, it is told how many do
not, and in how many of them even the upper quartile stays below: those are no matter of noise."""
import measure

PEERS_NOT_HERE = "uSockets, gnet, gev and evio are not packaged and not measured"


class Figure:
    """One ratio of one cell: median, quartiles, and where it is from."""

    def __init__(self, values, label):
        self.median, self.low, self.high = values
        self.label = label

    def __str__(self):
        return f"{self.median:.2f} ({self.low:.2f}–{self.high:.2f}) {self.label}"


def label(cell, pair):
    return f"{cell['cell']}, {short(pair[0])} ÷ {short(pair[1])}"


def short(name):
    return name.replace("gyre-", "").replace("io_uring", "uring")


def figures(cells, pairs, kinds, keep=lambda cell: True):
    return [Figure(ratio["per_cpu_second"], label(cell, (ratio["of"], ratio["to"]))) for cell in cells
            if cell["kind"] in kinds and keep(cell)
            for ratio in cell["ratios"] if (ratio["of"], ratio["to"]) in pairs]


def per_round(cell, name):
    return [measure.per_cpu_second(s) for s in cell["servers"][name]["slices"]]


def quotients(cells, kind, fours):
    """(a ÷ b) ÷ (c ÷ d), taken within each round: what we lose beside what a raw loop loses."""
    found = []
    for cell in cells:
        for four in fours:
            if cell["kind"] == kind and all(name in cell["servers"] for name in four):
                rounds = zip(*(per_round(cell, name) for name in four))
                values = measure.median_and_quartiles([(a / b) / (c / d) for a, b, c, d in rounds])
                found.append(Figure(values, f"{cell['cell']}, {short(four[0])}"))
    return found


def judge(found, threshold):
    """(what was reached, the verdict)"""
    if not found:
        return "–", "not measured"
    worst = min(found, key=lambda figure: figure.median)
    below = [figure for figure in found if figure.median < threshold]
    clearly = [figure for figure in below if figure.high < threshold]
    if not below:
        return f"lowest {worst}", "**met**" if len(found) == 1 else f"**met** in all {len(found)}"
    return f"lowest {worst}", f"**missed** in {len(below)} of {len(found)}, in {len(clearly)} beyond the spread"


def judge_most(values, most, unit):
    """The same for figures that should be low: (value, where)."""
    if not values:
        return "–", "not measured"
    worst, where = max(values)
    verdict = "**met**" if worst <= most else f"**missed** in {sum(v > most for v, _ in values)} of {len(values)}"
    return f"highest {worst:.{0 if worst > 10 else 3}f} {unit}, {where}", verdict


def calls(cells):
    return [(cell["servers"]["gyre-io_uring"]["calls_per_request"], cell["cell"]) for cell in cells
            if cell["kind"] == "echo" and cell["connections"] == 64 and cell["size"] <= 16384
            and (cell["servers"].get("gyre-io_uring") or {}).get("calls_per_request") is not None]


def small(cell):
    return cell["size"] <= 1024 and cell["connections"] >= 64


URING, EPOLL = "gyre-io_uring", "gyre-epoll"
ALL = ("echo", "relay", "churn", "udp")
SMALL_KINDS = ("echo", "relay", "udp")


def judged(cells, memory):
    """Rows of (target, threshold as text, what was reached, verdict)."""
    def ratio(text, threshold, pairs, kinds, keep=lambda cell: True):
        return (text, f"≥ {threshold:.2f}", *judge(figures(cells, pairs, kinds, keep), threshold))

    def quotient(text, kind, fours):
        return (text, "≥ 1.00", *judge(quotients(cells, kind, fours), 1.0))

    asio = [(URING, "asio-epoll"), (URING, "asio-io_uring")]
    relays = [(URING, name) for name in ("haproxy", "haproxy-splice", "nginx")]
    twos = [(URING, "raw-io_uring"), (EPOLL, "raw-epoll")]
    idle = [(figure["per_connection"], name) for name, figure in memory.items() if name.startswith("gyre-")]
    return [
        ratio("gyre on io_uring ÷ raw io_uring, echo", 0.97, [(URING, "raw-io_uring")], ("echo",)),
        ratio("gyre on io_uring ÷ raw epoll, every cell", 1.00, [(URING, "raw-epoll")], ALL),
        ratio("gyre on epoll ÷ raw epoll, every cell", 0.97, [(EPOLL, "raw-epoll")], ALL),
        ratio("gyre on io_uring ÷ gyre on epoll, up to 1 KiB from 64 connections up", 1.03, [(URING, EPOLL)],
              SMALL_KINDS, small),
        ratio("gyre on io_uring ÷ gyre on epoll, every cell", 1.00, [(URING, EPOLL)], ALL),
        ratio("÷ Asio, both its ways", 1.03, asio, ("peers",)),
        ratio("÷ libuv as its guide writes it, libevent", 1.35, [(URING, "libuv-queued"), (URING, "libevent")],
              ("peers",)),
        ratio("÷ libuv as fast as we could make it", 1.35, [(URING, "libuv")], ("peers",)),
        ratio("relay ÷ haproxy, haproxy with splice, nginx stream", 1.15, relays, ("relay",)),
        ("system calls per request on io_uring, 64 connections up to 16 KiB", "≤ 0.1",
         *judge_most(calls(cells), 0.1, "calls")),
        ("resident bytes per idle TCP connection", "≤ 256", *judge_most(idle, 256, "bytes")),
        ratio("two reactors ÷ one, per CPU", 1.00, [(f"{name}-x2", name) for name, _ in twos], ("two",)),
        quotient("two reactors ÷ one, ÷ the same of the raw loop", "two",
                 [(f"{us}-x2", us, f"{raw}-x2", raw) for us, raw in twos]),
        quotient("8000 connections ÷ 64, ÷ the same of the raw loop", "flat",
                 [(us, f"{us}@64", raw, f"{raw}@64") for us, raw in twos]),
    ]
