#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Bar charts of a result: charts.py RESULT.json writes RESULT-KIND.svg beside it, one for each kind of work.

A bar is the median over the rounds of requests per second of server CPU, relative to one server of the same round,
which is the line at 1.00; the whisker on it spans the quartiles.
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
LEFT, WIDTH, RIGHT, ROW, GAP, TOP, BOTTOM = 150, 520, 60, 16, 30, 84, 44
TICKS = (0.1, 0.2, 0.25, 0.5, 1.0, 2.0, 5.0)
HALO = 'stroke="#fff" stroke-width="3" paint-order="stroke"'  # so that a number stays legible on a line


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


def whisker(low, high, y):
    return (f'<path d="M{low:.1f} {y - 3}v6M{low:.1f} {y}H{high:.1f}M{high:.1f} {y - 3}v6" stroke="#222" '
            'fill="none"/>')


def draw_axis(y, scale):
    """A line with ticks, about six of them."""
    step = next(step for step in TICKS if WIDTH / scale / step <= 8 or step == TICKS[-1])
    lines = [f'<path d="M{LEFT} {y}H{LEFT + WIDTH}" stroke="#555"/>']
    for number in range(int(WIDTH / scale / step) + 1):
        x = LEFT + number * step * scale
        lines.append(f'<path d="M{x:.1f} {y}v5" stroke="#555"/>')
        lines.append(text(x, y + 18, f"{number * step:.2f}", 'text-anchor="middle" fill="#555"'))
    return lines


def draw_cell(lines, y, label, reference, rows, scale):
    lines.append(text(LEFT, y - 5, f"{label}, {reference} = 1.00", 'font-weight="bold"'))
    x, labels = LEFT + scale, []
    bottom = y + ROW * len(rows)
    for name, median, low, high in rows:
        middle = y + ROW / 2
        lines.append(text(LEFT - 6, middle + 4, name, 'text-anchor="end"'))
        lines.append(f'<rect x="{LEFT}" y="{y + 2:.0f}" width="{median * scale:.1f}" height="{ROW - 4}" '
                     f'fill="{colour(name)}"/>')
        lines.append(whisker(LEFT + low * scale, LEFT + high * scale, middle))
        labels.append(text(LEFT + max(median, high) * scale + 6, middle + 4, f"{median:.2f}", HALO))
        y += ROW
    lines.append(f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{bottom - ROW * len(rows)}" y2="{bottom}" stroke="#b00020"/>')
    lines += labels
    return y


def draw(title, cells, environment):
    """An SVG document, or None when no cell has anything to show."""
    drawn = [(cell["cell"], *found) for cell in cells if (found := bars(cell))]
    if not drawn:
        return None
    scale = WIDTH / max(1.0, max(high for _, _, rows in drawn for _, _, _, high in rows))
    where = f"Linux {environment['kernel']}, {environment['processor']}, revision {environment['revision']}"
    lines = [text(LEFT, 22, f"{title}: requests per second of server CPU", 'font-size="15" font-weight="bold"'),
             text(LEFT, 40, where, 'fill="#555"'),
             text(LEFT, 56, "bar: median of the rounds; whisker: their quartiles; red line: the reference of the cell",
                  'fill="#555"')]
    y = TOP
    for label, reference, rows in drawn:
        y = draw_cell(lines, y, label, reference, rows, scale) + GAP
    lines += draw_axis(y - GAP + 8, scale)
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
