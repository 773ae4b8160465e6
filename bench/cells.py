# SPDX-License-Identifier: MIT
"""What is measured: a cell is work and connections, written [KIND:]SIZE[xPIPELINE]@CONNECTIONS."""
import re

LIMITS = {"size": 16777216, "pipeline": 65536, "connections": 65536}
KINDS = {
    "echo": "the kind that need not be named",
    "peers": "beside other libraries' echo servers",
    "relay": "through a relay to an echo server on the load's processor",
    "churn": "connect, one request, close",
    "two": "two reactors on both processors beside one, the load on one of them",
    "flat": "beside the same server with 64 connections",
    "udp": "datagrams, each connection a socket",
}
FEW = 64  # connections that `flat` compares with

# 256 KiB on 4000 connections is not among them: a gigabyte in flight, of which a slice does not see the end.
SHORT = ("64@1,64@64,64@1000,64x16@64,64x16@1000,16384@64,16384@1000,peers:64@64,relay:64@64,relay:16384@64,"
         "churn:64@64,two:64@64,udp:64x16@4")
# The whole is cut into parts, because a run of many minutes may be interrupted: each is measured and kept by itself.
PARTS = {
    "echo": ",".join([f"{work}@{n}" for work in ("64", "64x16", "1024", "16384") for n in (1, 64, 1000, 4000)]
                     + [f"262144@{n}" for n in (1, 64, 1000)] + ["flat:64@8000"]),
    "peers": "peers:64@64,peers:64@1000,peers:64x16@64,peers:64x16@1000,peers:1024@64,peers:16384@64,peers:16384@1000,"
             "peers:262144@64",
    "relay": "relay:64@1,relay:64@64,relay:64@1000,relay:64@4000,relay:64x16@64,relay:1024@64,relay:1024@1000,"
             "relay:16384@1,relay:16384@64,relay:16384@1000,relay:262144@16,relay:262144@64",
    "churn": "churn:64@1,churn:64@64,churn:1024@64",
    "two": "two:64@64,two:64x16@64,two:64@1000,two:16384@64",
    "udp": "udp:64@1,udp:64@64,udp:64x16@4,udp:1400@64,udp:1400x16@4",
    "memory": "",
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
        if self.kind == "udp" and not 8 <= self.size <= 65507:
            raise ValueError(f"cell {text!r}: a datagram has from 8 to 65507 bytes")

    @property
    def group(self):
        """Cells of the same group run the same programs."""
        return self.kind if self.kind in ("relay", "udp") else "echo"

    def connections_of(self, row):
        """How many connections a row of this cell has."""
        return FEW if row.endswith(f"@{FEW}") else self.connections

    @property
    def descriptors(self):
        """How many a process may need: a relay has two for each connection."""
        return self.connections * (2 if self.kind == "relay" else 1) + 64

    def __str__(self):
        size = f"{self.size // 1024} KiB" if self.size % 1024 == 0 else f"{self.size} B"
        work = f"{size} x{self.pipeline}" if self.pipeline > 1 else size
        kind = "" if self.kind in ("echo", "peers") else self.kind + " "
        return f"{kind}{work} @ {self.connections}"


def parse(text):
    return [Cell(part) for part in text.split(",")]
