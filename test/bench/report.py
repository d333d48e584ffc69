"""The findings as Markdown."""
import dataclasses
import math
import statistics

TITLES = {
    "yelp_sync": "**yelp_sync**",
    "original": "original's method (aiohttp)",
    "threads": "50 threads",
    "curl": "curl, one page after the other¹",
    "download": "bare libcurl multi¹",
    "copy": "COPY of the same rows",
}


@dataclasses.dataclass
class Findings:
    machine: str
    results: list = ()
    scale: list = ()
    limiter: tuple = None
    cancels: tuple = None
    accounts: list = None


# Numbers

def seconds(value):
    if value < 0.9995:
        return f"{value * 1000:.{1 if value < 0.01 else 0}f} ms"
    return f"{value:.2f} s" if value < 10 else f"{value:.1f} s"


def size(count):
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000 or unit == "GB":
            return f"{count:.0f} {unit}" if unit == "B" or count >= 100 else f"{count:.1f} {unit}"
        count /= 1000


def number(value):
    return f"{value:.{2 if value < 10 else 1 if value < 100 else 0}f}"


def spread(values, form):
    """The median, and where there are several the least and the most."""
    middle = form(statistics.median(values))
    if len(values) == 1:
        return middle
    return f"{middle} ({form(min(values))} – {form(max(values))})"


def ratios(result, other, of):
    """Round by round, since what disturbs one sync of a round may disturb the next as well."""
    return [a / b for a, b in zip(of(result), of(other))]


def wall(result):
    return result.wall


def cpu(result):
    """CPU time of client and backend together, per round."""
    return [sum(parts) for parts in zip(*result.cpu.values())]


SYNCS = ("first", "repeat", "edited", "changed")


# Looking up

def find(results, programs, latency, name, page_size, sync, protocol="http"):
    for result in results:
        if ((*result.cell, result.name, result.page_size, result.sync)
                == (programs, latency, protocol, name, page_size, sync)):
            return result
    return None


def cells(results):
    return list(dict.fromkeys(result.cell for result in results))


# The targets

def latency_targets(results):
    for sync, most in (("first", 2.2), ("repeat", 1.1)):
        for page_size in (20, 40):
            ours = find(results, 1913, 500, "yelp_sync", page_size, sync)
            if ours:
                yield (f"{sync} sync of 1,913 programs, pages of {page_size}, latency L = 500 ms",
                       f"≤ {most} × L", [seconds / 0.5 for seconds in ours.wall],
                       number, lambda value, most=most: value <= most)


def original_targets(results):
    for page_size in (20, 40):
        ours = find(results, 1913, 500, "yelp_sync", page_size, "repeat")
        theirs = find(results, 1913, 500, "original", page_size, "repeat")
        if ours and theirs:
            for what, of, least in (("wall time", wall, 2), ("CPU time", cpu, 10)):
                yield (f"{what} of that repeat sync by the original's method, pages of"
                       f" {page_size}", f"≥ {least} × yelp_sync's",
                       ratios(theirs, ours, of), number,
                       lambda value, least=least: value >= least)


def limit_targets(results):
    for sync, name, most, what in (
            ("repeat", "download", 2, "unchanged sync of 100,000 programs"),
            ("first", "copy", 1.5, "first sync of 100,000 programs")):
        ours = find(results, 100_000, 0, "yelp_sync", 40, sync)
        limit = find(results, 100_000, 0, name, 40, sync)
        if ours and limit:
            title = TITLES[name].rstrip("¹")
            yield (f"{what}, pages of 40, no latency", f"≤ {most} × {title}",
                   ratios(ours, limit, wall), number, lambda value, most=most: value <= most)


def write_targets(results):
    repeats = [r for r in results if r.name == "yelp_sync" and r.sync == "repeat"]
    for count, what, form in (("table_wal", "WAL", size), ("tuples", "rows written", str)):
        if repeats:
            yield (f"{what} of unchanged syncs, for yelp_programs", f"{form(0)}",
                   [max(r.counts[count] for r in repeats)], form, lambda value: value == 0)


def scale_targets(scale):
    for sync in ("first", "repeat"):
        ours = [r for r in scale if r.sync == sync]
        if ours:
            yield (f"{sync} sync of 1,000 to 1,000,000 programs: time grows with their number"
                   " to the power of", "about 1", [exponent(ours)], number,
                   lambda value: value <= 1.1)
    if scale:
        yield ("memory of the backend over idle, 1,000,000 programs, work_mem 4 MB", "≤ 64 MB",
               [max(r.memory["backend"] for r in scale)], size, lambda value: value <= 64e6)


def exponent(results):
    """The slope of the least-squares line through the logarithms."""
    return statistics.linear_regression(
        [math.log(r.cell.programs) for r in results],
        [math.log(statistics.median(r.wall)) for r in results]).slope


def promise_targets(findings):
    if findings.limiter:
        taken, requests, least = findings.limiter
        yield (f"first sync of 1,913 programs through a rate limiter at 20 requests/s"
               f" ({requests} requests for 96 pages)", "≤ 1.5 × its own minimum",
               [taken / least], number, lambda value: value <= 1.5)
    if findings.cancels:
        times, growth = findings.cancels
        yield (f"slowest of {len(times)} cancels at random moments (memory grew by"
               f" {size(max(growth, 0))})", "≤ 100 ms", [max(times)], seconds,
               lambda value: value <= 0.1)
    if findings.accounts:
        yield ("CALL yelp_sync_all() of 20 accounts of 100 programs, latency L = 500 ms",
               "≤ 1.1 × 20 L", findings.accounts, number, lambda value: value <= 1.1)


def targets(findings):
    """(what, target, values, their form, whether one is good enough) of each."""
    yield from latency_targets(findings.results)
    yield from original_targets(findings.results)
    yield from limit_targets(findings.results)
    yield from write_targets([*findings.results, *findings.scale])
    yield from scale_targets(findings.scale)
    yield from promise_targets(findings)


# Tables

def table(head, rows):
    lines = [head, ["---"] + ["--:"] * (len(head) - 1), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def target_table(findings):
    return table(("what", "target", "measured", "rounds", "reached"), [
        (what, target, spread(values, form), str(len(values)),
         "yes" if good(statistics.median(values)) else "**no**")
        for what, target, values, form, good in targets(findings)])


def cell_title(cell):
    latency = f"{cell.latency} ms of latency" if cell.latency else "no latency"
    protocol = {"http": "HTTP", "https 1.1": "HTTPS, HTTP/1.1", "https 2": "HTTPS, HTTP/2"}
    return f"{cell.programs:,} programs, {latency}, {protocol[cell.protocol]}"


def result_row(results, result):
    ours = find(results, result.cell.programs, result.cell.latency, "yelp_sync",
                result.page_size, result.sync, result.cell.protocol)
    memory = [size(result.memory[role]) if role in result.memory else ""
              for role in ("client", "backend")]
    cpu_times = [seconds(statistics.median(result.cpu[role])) if role in result.cpu else ""
                 for role in ("client", "backend")]
    fetched = ((str(result.page_size), f"{result.requests:,}", size(result.received))
               if result.requests else ("", "", ""))
    return (TITLES[result.name], fetched[0], result.sync,
            spread(result.wall, seconds), spread(ratios(result, ours, wall), number),
            *cpu_times, *fetched[1:],
            size(result.counts["wal"]) if "wal" in result.counts else "", *memory)


def cell_table(results, cell):
    rows = [r for r in results if r.cell == cell]
    rows.sort(key=lambda r: (SYNCS.index(r.sync), r.page_size,
                             list(TITLES).index(r.name)))
    return (f"### {cell_title(cell)}\n\n" + table(
        ("method", "page size", "sync", "wall time", "× yelp_sync's", "CPU, client",
         "CPU, backend", "requests", "received", "WAL", "memory, client", "memory, backend"),
        [result_row(results, row) for row in rows]))


def scale_table(scale):
    return "### Scale: yelp_sync, pages of 40, no latency, HTTP\n\n" + table(
        ("programs", "sync", "wall time", "CPU, backend", "programs/s", "memory over idle"),
        [(f"{r.cell.programs:,}", r.sync, spread(r.wall, seconds),
          seconds(statistics.median(r.cpu["backend"])),
          f"{r.cell.programs / statistics.median(r.wall):,.0f}", size(r.memory["backend"]))
         for r in scale])


INTRODUCTION = """\
# Benchmark

Written by `make bench`, which repeats it: every method against one nginx on the loopback
interface that serves prepared pages, with the latency of its echo module, in interleaved rounds.

{machine}.

A time is the median of the rounds (least – most); a ratio is that of each round's two times.
"""

NOTES = """
¹ Fetches the pages and throws them away; nothing is stored.

Every process is warm: it has done a sync before, and keeps its connections. *first*: the table
is empty; *repeat*: nothing has changed; *edited*: each row was edited by hand, so that all are
written; *changed*: of 1,000 programs 8 have, 1 is gone and 1 is new. Before yelp_sync deletes, it
reads the listing a second time, which the others do not. The client of yelp_sync and of COPY is
the benchmark itself. Bytes are counted by the server; WAL is that of the whole cluster. The
memory of a client is the most that the process had; that of a backend is the most of its own (no
shared buffers) over what it had before its first sync. After each contest the tables of all
methods held the same rows.
"""


def render(findings):
    parts = [INTRODUCTION.format(machine=findings.machine)]
    if any(targets(findings)):
        parts.append(target_table(findings))
    parts += [cell_table(findings.results, cell) for cell in cells(findings.results)]
    if findings.results:
        parts.append(NOTES.lstrip())
    if findings.scale:
        parts.append(scale_table(findings.scale))
    return "\n".join(parts)
