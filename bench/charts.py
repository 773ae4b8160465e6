#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Bar charts of a result: charts.py RESULT.json writes RESULT-KIND.svg beside it, one for each kind of work.

A bar is the median over the rounds of requests per second of server CPU, relative to one server of the same round,
which is the line at 1.00; the thin line on it spans the quartiles.
"""
import argparse
import json
import os
import sys
from xml.sax.saxutils import escape

import measure

REFERENCES = ("raw-epoll", "gyre-epoll")  # the first of these that was measured is the line at 1.00
TITLES = {"echo": "Echo", "peers": "Echo, other libraries", "relay": "Relay", "churn": "Connect, one request, close",
          "two": "Two reactors", "flat": "Many connections and few", "udp": "UDP echo"}
COLOURS = (("gyre-io_uring", "#0b6e4f"), ("gyre-epoll", "#6bb392"), ("raw-", "#9a9a9a"), ("", "#c9b27c"))
LEFT, WIDTH, RIGHT, ROW, GAP, TOP, BOTTOM = 150, 520, 60, 16, 30, 64, 30


def colour(name):
    return next(colour for prefix, colour in COLOURS if name.startswith(prefix))


def bars(cell):
    """(reference, [(server, median, low, high)]) of a cell, or None when there is nothing to relate to."""
    servers = cell["servers"]
    reference = next((name for name in REFERENCES if name in servers), None)
    if reference is None:
        return None
    base = [measure.per_cpu_second(s) for s in servers[reference]["slices"]]
    rows = []
    for name, server in servers.items():
        ratios = [measure.per_cpu_second(s) / b for s, b in zip(server["slices"], base)]
        rows.append((name, *measure.median_and_quartiles(ratios)))
    return reference, rows


def text(x, y, content, extra=""):
    return f'<text x="{x:.0f}" y="{y:.0f}" {extra}>{escape(content)}</text>'


def draw_cell(lines, y, label, reference, rows, scale):
    lines.append(text(LEFT, y - 5, f"{label}, {reference} = 1.00", 'font-weight="bold"'))
    for name, median, low, high in rows:
        middle = y + ROW / 2
        lines.append(text(LEFT - 6, middle + 4, name, 'text-anchor="end"'))
        lines.append(f'<rect x="{LEFT}" y="{y + 2:.0f}" width="{median * scale:.1f}" height="{ROW - 4}" '
                     f'fill="{colour(name)}"/>')
        lines.append(f'<line x1="{LEFT + low * scale:.1f}" x2="{LEFT + high * scale:.1f}" y1="{middle}" y2="{middle}" '
                     'stroke="#222"/>')
        lines.append(text(LEFT + max(median, high) * scale + 5, middle + 4, f"{median:.2f}"))
        y += ROW
    x = LEFT + scale
    lines.append(f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{y - ROW * len(rows):.0f}" y2="{y:.0f}" stroke="#b00020"/>')
    return y


def draw(title, cells, environment):
    """An SVG document, or None when no cell has anything to show."""
    drawn = [(cell["cell"], *found) for cell in cells if (found := bars(cell))]
    if not drawn:
        return None
    scale = WIDTH / max(1.0, max(high for _, _, rows in drawn for _, _, _, high in rows))
    where = f"Linux {environment['kernel']}, {environment['processor']}, revision {environment['revision']}"
    lines = [text(LEFT, 22, f"{title}: requests per second of server CPU", 'font-size="15" font-weight="bold"'),
             text(LEFT, 40, where, 'fill="#555"')]
    y = TOP
    for label, reference, rows in drawn:
        y = draw_cell(lines, y, label, reference, rows, scale) + GAP
    width, height = LEFT + WIDTH + RIGHT, y - GAP + BOTTOM
    return "\n".join([f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
                      f'viewBox="0 0 {width} {height}" font-family="sans-serif" font-size="12">',
                      f'<rect width="{width}" height="{height}" fill="#fff"/>', *lines, "</svg>", ""])


def write(report, path):
    """Writes the charts of `report`, which is or will be the file `path`. Returns their paths."""
    written = []
    for kind, title in TITLES.items():
        svg = draw(title, [cell for cell in report["cells"] if cell["kind"] == kind], report["environment"])
        if svg is None:
            continue
        written.append(f"{os.path.splitext(path)[0]}-{kind}.svg")
        with open(written[-1], "w", encoding="utf-8") as file:
            file.write(svg)
    return written


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("result", help="what run.py has written")
    path = parser.parse_args().result
    try:
        with open(path, encoding="utf-8") as file:
            written = write(json.load(file), path)
    except (OSError, ValueError) as err:
        sys.exit(f"charts.py: {path}: {err}")
    except (KeyError, TypeError, AttributeError) as err:
        sys.exit(f"charts.py: {path} is not a result of run.py: {type(err).__name__}: {err}")
    print("\n".join(written) if written else "There is nothing to show in it.")


if __name__ == "__main__":
    main()
