# SPDX-License-Identifier: MIT
"""What is measured: a cell is work and connections, written [KIND:]SIZE[xPIPELINE]@CONNECTIONS.

The kinds: `echo` (may be left out); `all`, the same with the other libraries' echo servers; `relay`, through a relay to
an echo server on the load's processor; `churn`, connect, one request, close; `two`, two reactors on both processors
beside one, the load on one of them."""
import re

LIMITS = {"size": 16777216, "pipeline": 65536, "connections": 65536}
KINDS = ("echo", "all", "relay", "churn", "two")

SETS = {
    "short": "64@1,all:64@64,64@1000,64x16@1,64x16@64,64x16@1000,16384@1,all:16384@64,16384@1000,"
             "relay:64@64,relay:16384@64,churn:64@64,two:64@64",
    "full": ",".join(
        # Beyond 1000, nine servers at once would need more descriptors than a process often may have.
        [f"{'all:' if n <= 1000 else ''}{work}@{n}" for work in ("64", "64x16", "1024", "16384")
         for n in (1, 64, 1000, 4000)]
        + [f"all:262144@{n}" for n in (1, 64)]
        + [f"relay:{work}@{n}" for work in ("64", "64x16", "1024", "16384") for n in (1, 64, 1000)]
        + [f"relay:262144@{n}" for n in (1, 16, 64)]
        + ["churn:64@1", "churn:64@64", "churn:1024@64", "two:64@64", "two:64x16@64", "two:64@1000", "two:16384@64"]),
}


class Cell:
    """Work and connections."""

    def __init__(self, text):
        match = re.fullmatch(r"(?:([a-z]+):)?(\d{1,9})(?:x(\d{1,9}))?@(\d{1,9})", text)
        if not match or (match[1] or "echo") not in KINDS:
            raise ValueError(f"a cell is [KIND:]SIZE[xPIPELINE]@CONNECTIONS, the kind one of {', '.join(KINDS)}, "
                             f"not {text!r}")
        self.kind = match[1] or "echo"
        self.size, self.pipeline, self.connections = (int(part or 1) for part in match.groups()[1:])
        for name, most in LIMITS.items():
            if not 1 <= getattr(self, name) <= most:
                raise ValueError(f"the {name} of cell {text!r} must be from 1 to {most}")
        if self.kind == "churn" and self.pipeline > 1:
            raise ValueError(f"cell {text!r}: with churn a connection has one request")

    @property
    def group(self):
        """Cells of the same group run the same programs."""
        return "relay" if self.kind == "relay" else "echo"

    def __str__(self):
        size = f"{self.size // 1024} KiB" if self.size % 1024 == 0 else f"{self.size} B"
        work = f"{size} x{self.pipeline}" if self.pipeline > 1 else size
        kind = "" if self.kind in ("echo", "all") else self.kind + " "
        return f"{kind}{work} @ {self.connections}"


def parse(text):
    return [Cell(part) for part in text.split(",")]
