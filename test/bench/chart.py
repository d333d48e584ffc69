"""The chart of the README: the same findings always give the same file."""
import statistics

import matplotlib

import report

matplotlib.use("svg")
matplotlib.rcParams.update({
    "svg.hashsalt": "yelp_sync", "svg.fonttype": "none", "font.family": "sans-serif",
    "font.size": 9, "axes.titlesize": 9.5, "axes.titleweight": "bold",
    "axes.titlelocation": "left"})

import matplotlib.pyplot as plt         # reads the settings above

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


def bars(results, programs, latency, page_size, sync, of):
    """(method, seconds) of each method that was measured there."""
    found = []
    for name in LABELS:
        result = report.find(results, programs, latency, name, page_size, sync)
        if result:
            found.append((name, statistics.median(of(result))))
    return found


def draw_panel(axes, title, found):
    names = [name for name, _ in found]
    values = [value for _, value in found]
    drawn = axes.barh([LABELS[name] for name in names], values, height=0.65,
                      color=[COLOURS.get(name, OTHERS) for name in names])
    axes.bar_label(drawn, [report.seconds(value) for value in values], padding=3)
    axes.set_title(title)
    axes.set_xlim(0, max(values) * 1.2)
    axes.invert_yaxis()
    axes.xaxis.set_visible(False)
    axes.tick_params(left=False)
    for side in ("top", "right", "bottom"):
        axes.spines[side].set_visible(False)


def draw(results, path):
    figure, panels = plt.subplots(2, 2, figsize=(10, 4.8), layout="constrained")
    figure.get_layout_engine().set(h_pad=0.12, w_pad=0.12)
    for axes, (title, where, of) in zip(panels.flat, PANELS):
        draw_panel(axes, title, bars(results, *where, of))
    figure.savefig(path, metadata={"Date": None})
