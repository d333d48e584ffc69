"""The chart of the README: the same findings always give the same file."""
import statistics

import report

LABELS = {"yelp_sync": "yelp_sync", "original": "original's method", "threads": "50 threads",
          "curl": "curl, page by page", "download": "bare libcurl (limit)",
          "copy": "COPY (limit)"}
COLOURS = {"yelp_sync": "#c8102e", "download": "#c9ced6", "copy": "#c9ced6"}
OTHERS = "#6b7f99"

PANELS = (      # title, (programs, latency, page size, sync), what is drawn
    ("1,913 programs, unchanged, latency 500 ms: time", (1913, 500, 20, "repeat"), report.wall),
    ("… and CPU time of all processes", (1913, 500, 20, "repeat"), report.cpu),
    ("100,000 programs, unchanged, no latency: time", (100_000, 0, 40, "repeat"), report.wall),
    ("100,000 programs, first sync: time", (100_000, 0, 40, "first"), report.wall),
)
WIDTH, HEIGHT, LABEL, BAR, STEP = 460, 150, 130, 230, 24     # of a panel, and in it


def bars(results, programs, latency, page_size, sync, of):
    """(method, seconds) of each method that was measured there."""
    for name in LABELS:
        result = report.find(results, programs, latency, name, page_size, sync)
        if result:
            yield name, statistics.median(of(result))


def panel(number, title, found):
    x, y = number % 2 * WIDTH, number // 2 * HEIGHT
    longest = max((value for _, value in found), default=1)
    yield f'<text x="{x}" y="{y + 20}" font-weight="bold">{title}</text>'
    for row, (name, value) in enumerate(found):
        top, width = y + 30 + row * STEP, round(BAR * value / longest, 1)
        yield (f'<text x="{x + LABEL - 8}" y="{top + 13}" text-anchor="end">{LABELS[name]}</text>'
               f'<rect x="{x + LABEL}" y="{top}" width="{width}" height="17"'
               f' fill="{COLOURS.get(name, OTHERS)}"/>'
               f'<text x="{x + LABEL + width + 6}" y="{top + 13}">{report.seconds(value)}</text>')


def draw(results, path):
    lines = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="-8 0 {2 * WIDTH} {2 * HEIGHT}"'
             ' font-family="sans-serif" font-size="12">',
             '<rect x="-8" width="100%" height="100%" fill="white"/>']
    for number, (title, where, of) in enumerate(PANELS):
        lines += panel(number, title, list(bars(results, *where, of)))
    with open(path, "w") as file:
        file.write("\n".join([*lines, "</svg>"]) + "\n")
