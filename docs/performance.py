"""Draws docs/performance.csv: the ratio of every row, and its target.

    python3 docs/performance.py docs/performance.csv docs/performance.svg

Needs the standard library of Python only.
"""

import csv
import math
import sys
from html import escape

LEFT, WIDTH, ROW, TOP = 520, 520, 22, 60
LOW, HIGH = 0.004, 10.0  # the ends of the axis


def position(ratio):
    """Returns the position of a ratio on the logarithmic axis."""
    ratio = min(max(ratio, LOW), HIGH)
    return LEFT + WIDTH * math.log(ratio / LOW) / math.log(HIGH / LOW)


def draw(rows):
    height = TOP + ROW * len(rows) + 30
    yield (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{LEFT + WIDTH + 90}" height="{height}" '
        'font-family="sans-serif" font-size="12">'
    )
    yield '<rect width="100%" height="100%" fill="white"/>'
    yield (
        f'<text x="{LEFT}" y="20">time as a multiple of the other side\'s (logarithmic; '
        "left is better)</text>"
    )
    for tick in (0.01, 0.1, 1, 10):
        x = position(tick)
        yield f'<line x1="{x:.0f}" y1="{TOP - 12}" x2="{x:.0f}" y2="{height - 20}" stroke="#ccc"/>'
        yield f'<text x="{x:.0f}" y="{TOP - 16}" text-anchor="middle">{tick:g}</text>'
    for index, row in enumerate(rows):
        y = TOP + ROW * index
        ratio, target = float(row["ratio"]), float(row["target"])
        has_target = not math.isnan(target)
        color = "#888" if not has_target else "#2a7" if ratio <= target else "#c63"
        start, end = sorted((position(1), position(ratio)))
        label = escape(f'{row["work"]} / {row["against"]}')
        yield f'<text x="{LEFT - 8}" y="{y + 13}" text-anchor="end">{label}</text>'
        yield (
            f'<rect x="{start:.1f}" y="{y + 3}" width="{max(end - start, 1):.1f}" height="13" '
            f'fill="{color}"/>'
        )
        if has_target:
            x = position(target)
            yield (
                f'<line x1="{x:.1f}" y1="{y}" x2="{x:.1f}" y2="{y + 19}" stroke="black" '
                'stroke-width="2"/>'
            )
        yield f'<text x="{LEFT + WIDTH + 10}" y="{y + 13}">{ratio:.3g} ×</text>'
    yield (
        f'<text x="{LEFT}" y="{height - 5}">green: meets the target (black mark); orange: misses it; '
        "grey: no target</text>"
    )
    yield "</svg>"


def main():
    source, target = sys.argv[1:]
    with open(source, newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    with open(target, "w", encoding="utf-8") as file:
        file.write("\n".join(draw(rows)) + "\n")


main()
