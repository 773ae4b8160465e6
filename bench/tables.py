# SPDX-License-Identifier: MIT
"""Results as text, for a terminal."""
import servers


def server_table(results):
    lines = [f"{'work @ connections':<22}{'server':<18}{'requests/s':>12}{'per CPU-s':>12}{'p50 us':>10}{'p99 us':>10}"
             f"{'calls/request':>15}"]
    for result in results:
        label = result["cell"]
        for name, s in result["servers"].items():
            calls = "-" if s["calls_per_request"] is None else f"{s['calls_per_request']:.3f}"
            lines.append(f"{label:<22}{name:<18}{s['requests_per_second']:>12.0f}{s['requests_per_cpu_second']:>12.0f}"
                         f"{s['p50_ns'] / 1000:>10.0f}{s['p99_ns'] / 1000:>10.0f}{calls:>15}")
            label = ""
    return lines


def ratio_tables(results, pairs, key):
    """One table for each set of servers that were compared: a row has no gaps but those of servers that fell out."""
    yardsticks = [pair for pair in pairs if pair in servers.YARDSTICKS]
    others = [pair for pair in pairs if pair not in servers.YARDSTICKS]
    lines = []
    for kinds in (("echo",), ("peers",), ("relay",), ("churn",), ("two",), ("flat",), ("udp",)):
        of_kind = [result for result in results if result["kind"] in kinds]
        for columns in (yardsticks, others):
            rows = [r for r in of_kind if any((x["of"], x["to"]) in columns for x in r["ratios"])]
            if rows:
                lines += [*([""] if lines else []), *ratio_table(rows, columns, key)]
    return lines


def short(name):
    return name.replace("io_uring", "uring")


def ratio_table(results, pairs, key):
    pairs = [pair for pair in pairs if any((r["of"], r["to"]) == pair for result in results for r in result["ratios"])]
    columns = [f"{short(a)}/{short(b)}" for a, b in pairs]
    widths = [max(len(column), len("1.00 (1.00-1.00)")) + 2 for column in columns]
    lines = [f"{'work @ connections':<22}" + "".join(f"{c:>{w}}" for c, w in zip(columns, widths))]
    for result in results:
        found = {(r["of"], r["to"]): r[key] for r in result["ratios"]}
        cells = ["{:.2f} ({:.2f}-{:.2f})".format(*found[pair]) if pair in found else "-" for pair in pairs]
        lines.append(f"{result['cell']:<22}" + "".join(f"{c:>{w}}" for c, w in zip(cells, widths)))
    return lines
