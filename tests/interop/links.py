#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Every relative link of the pages below a folder leads to a file: links.py FOLDER PREFIX.

A link is `](target)`, `src="target"`, `srcset="target"` or `href="target"` outside of code. Its file has to lie below
PREFIX, the place that was installed to. Prints what is wrong and exits with 1, or says how many links there are.
"""

import re
import sys
from pathlib import Path

CODE = re.compile(r"^```.*?^```|`[^`\n]*`", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"""\]\(\s*<?([^)>\s]*)[^)]*\)|(?:src|srcset|href)="([^"\s]*)[^"]*\"""")


def wrong(page, prefix):
    """How many relative links the page has, and those that lead nowhere."""
    count = 0
    bad = []
    for match in LINK.finditer(CODE.sub("", page.read_text(encoding="utf-8"))):
        link = match.group(1) or match.group(2) or ""
        path = link.split("#")[0]
        if path == "" or re.match(r"[a-z]+:", path):
            continue
        count += 1
        target = (page.parent / path).resolve()
        if not target.exists() or prefix not in target.parents:
            bad.append(f"{page}: {link} leads nowhere")
    return count, bad


def main():
    folder, prefix = Path(sys.argv[1]).resolve(), Path(sys.argv[2]).resolve()
    pages = sorted(folder.rglob("*.md"))
    found = [wrong(page, prefix) for page in pages]
    for _, bad in found:
        for line in bad:
            print(line)
    if not pages:
        print(f"{folder}: there is no page")
    print(f"{sum(count for count, _ in found)} relative links in {len(pages)} pages")
    return 1 if not pages or any(bad for _, bad in found) else 0


if __name__ == "__main__":
    sys.exit(main())
