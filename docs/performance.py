"""Draws docs/performance.csv as two pictures: the ratio of every row and its target, and the times of messages and
locks as lines.

    python3 docs/performance.py docs/performance.csv docs/performance.svg docs/channels.svg

Needs the standard library of Python only.
"""

import csv
import math
import re
import sys
from html import escape

LEFT, WIDTH, ROW, TOP = 520, 520, 22, 60
LOW, HIGH = 0.004, 10.0  # the ends of the axis


def svg(width, height):
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
        'font-family="sans-serif" font-size="12">\n<rect width="100%" height="100%" fill="white"/>'
    )


def position(ratio):
    """Returns the position of a ratio on the logarithmic axis."""
    ratio = min(max(ratio, LOW), HIGH)
    return LEFT + WIDTH * math.log(ratio / LOW) / math.log(HIGH / LOW)


def ratios(rows):
    """Draws a bar for every row."""
    height = TOP + ROW * len(rows) + 30
    yield svg(LEFT + WIDTH + 90, height)
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


# What becomes a line: the words before and after the value on the horizontal axis, and the title.
CHARTS = (
    (r"a message of (.+) through", "Time of a message, by its size"),
    (r"lock, increment, unlock, (\d+) process", "Time of lock, increment and unlock, by the number of processes"),
    (r"pass a turn around (\d+) process", "Time to pass a turn on, by the number of processes"),
)
COLORS = ("#c22", "#333", "#27c", "#2a7", "#a5c", "#c80", "#888")


def chart(rows, pattern, title, top):
    """Draws one line for this crate and one for each of the others, both axes logarithmic or ordinal."""
    lines, ticks = {}, []
    for row in rows:
        found = re.search(pattern, row["work"])
        if not found:
            continue
        if found[1] not in ticks:
            ticks.append(found[1])
        lines.setdefault("this crate", {}).setdefault(found[1], float(row["ours_ns"]))
        lines.setdefault(row["against"], {})[found[1]] = float(row["theirs_ns"])
    times = [time for line in lines.values() for time in line.values()]
    if not times:
        return
    low = 10 ** math.floor(math.log10(min(times)))
    high = 10 ** math.ceil(math.log10(max(times)))

    def x(tick):
        return 90 + 420 * ticks.index(tick) / max(len(ticks) - 1, 1)

    def y(time):
        return top + 290 - 250 * math.log(time / low) / math.log(high / low)

    yield f'<text x="90" y="{top + 20}" font-weight="bold">{escape(title)}</text>'
    time = low
    while time <= high * 1.01:
        label = f"{time:g} ns" if time < 1e3 else f"{time / 1e3:g} µs" if time < 1e6 else f"{time / 1e6:g} ms"
        yield f'<line x1="90" y1="{y(time):.0f}" x2="510" y2="{y(time):.0f}" stroke="#ddd"/>'
        yield f'<text x="82" y="{y(time) + 4:.0f}" text-anchor="end">{label}</text>'
        time *= 10
    for tick in ticks:
        yield f'<text x="{x(tick):.0f}" y="{top + 308}" text-anchor="middle">{escape(tick)}</text>'
    for index, (name, line) in enumerate(lines.items()):
        color = COLORS[index % len(COLORS)]
        points = [(x(tick), y(time)) for tick, time in line.items()]
        path = " ".join(f"{a:.1f},{b:.1f}" for a, b in points)
        width = 3 if index == 0 else 1.5
        yield f'<polyline points="{path}" fill="none" stroke="{color}" stroke-width="{width}"/>'
        for a, b in points:
            yield f'<circle cx="{a:.1f}" cy="{b:.1f}" r="{width + 0.5}" fill="{color}"/>'
        yield f'<rect x="540" y="{top + 40 + 22 * index}" width="14" height="4" fill="{color}"/>'
        yield f'<text x="562" y="{top + 46 + 22 * index}">{escape(name)}</text>'


def charts(rows):
    yield svg(760, 330 * len(CHARTS))
    for index, (pattern, title) in enumerate(CHARTS):
        yield from chart(rows, pattern, title, 330 * index)
    yield "</svg>"


def main():
    source, *targets = sys.argv[1:]
    with open(source, newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    for target, draw in zip(targets, (ratios, charts), strict=True):
        with open(target, "w", encoding="utf-8") as file:
            file.write("\n".join(draw(rows)) + "\n")


main()
