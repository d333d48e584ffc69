"""The findings as Markdown."""
import dataclasses
import math
import statistics
import typing

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


# Looking up

SYNCS = ("first", "repeat", "edited", "changed")


def find(results, programs, latency, name, page_size, sync, protocol="http"):
    for result in results:
        if ((*result.cell, result.name, result.page_size, result.sync)
                == (programs, latency, protocol, name, page_size, sync)):
            return result
    return None


def pairs(results, programs, latency, page_size, *methods_and_syncs):
    """The results of these methods and syncs in a cell, if all were measured: none or one tuple."""
    found = tuple(find(results, programs, latency, method, page_size, sync)
                  for method, sync in methods_and_syncs)
    return [found] if all(found) else []


# The targets

class Target(typing.NamedTuple):
    what: str
    target: str
    values: list
    most: float = math.inf      # what the median may be
    least: float = -math.inf
    form: typing.Callable = number

    def row(self):
        reached = self.least <= statistics.median(self.values) <= self.most
        return (self.what, self.target, spread(self.values, self.form), str(len(self.values)),
                "yes" if reached else "**no**")


def latency_targets(results):
    for sync, most in (("first", 2.2), ("repeat", 1.1)):
        for page_size in (20, 40):
            for ours, in pairs(results, 1913, 500, page_size, ("yelp_sync", sync)):
                yield Target(
                    f"{sync} sync of 1,913 programs, pages of {page_size}, latency L = 500 ms",
                    f"≤ {most} × L", [seconds / 0.5 for seconds in ours.wall], most)
    for page_size in (20, 40):
        for ours, theirs in pairs(results, 1913, 500, page_size, ("yelp_sync", "repeat"),
                                  ("original", "repeat")):
            for what, of, least in (("wall time", wall, 2), ("CPU time", cpu, 8)):
                yield Target(f"{what} of that repeat sync by the original's method, pages of"
                             f" {page_size}", f"≥ {least} × yelp_sync's",
                             ratios(theirs, ours, of), least=least)


def large_targets(results):
    for what, sync, other, most in (
            ("unchanged sync of 100,000 programs", "repeat", ("download", "repeat"), 2),
            ("first sync of 100,000 programs", "first", ("copy", "first"), 1.5),
            ("sync of 100,000 programs of which 1 % changed, with deletions", "changed",
             ("yelp_sync", "repeat"), 5)):
        title = TITLES[other[0]].rstrip("¹") if other[0] != "yelp_sync" else "the unchanged one"
        for ours, limit in pairs(results, 100_000, 0, 40, ("yelp_sync", sync), other):
            yield Target(f"{what}, pages of 40, no latency", f"≤ {most} × {title}",
                         ratios(ours, limit, wall), most)


def promise_targets(findings):
    if findings.limiter:
        taken, requests, least = findings.limiter
        yield Target(f"first sync of 1,913 programs through a rate limiter at 20 requests/s"
                     f" ({requests} requests for 96 pages)", "≤ 1.5 × its own minimum",
                     [taken / least], 1.5)
    if findings.cancels:
        times, growth = findings.cancels
        yield Target(f"slowest of {len(times)} cancels at random moments (memory grew by"
                     f" {size(max(growth, 0))})", "≤ 100 ms", [max(times)], 0.1, form=seconds)
    if findings.accounts:
        yield Target("CALL yelp_sync_all() of 20 accounts of 100 programs, latency L = 500 ms",
                     "≤ 1.1 × 20 L", findings.accounts, 1.1)


def target_rows(findings):
    return [target.row() for targets in (
        latency_targets(findings.results), large_targets(findings.results),
        promise_targets(findings)) for target in targets]


# Tables

def table(head, rows):
    lines = [head, ["---"] + ["--:"] * (len(head) - 1), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def cell_title(cell):
    latency = f"{cell.latency} ms of latency" if cell.latency else "no latency"
    protocol = {"http": "HTTP", "https 1.1": "HTTPS, HTTP/1.1", "https 2": "HTTPS, HTTP/2"}
    return f"{cell.programs:,} programs, {latency}, {protocol[cell.protocol]}"


def result_row(results, result):
    def of_roles(values, form):
        return [form(values[role]) if role in values else "" for role in ("client", "backend")]

    ours = find(results, result.cell.programs, result.cell.latency, "yelp_sync",
                result.page_size, result.sync, result.cell.protocol)
    fetched = ((str(result.page_size), f"{result.requests:,}", size(result.received))
               if result.requests else ("", "", ""))
    return (TITLES[result.name], fetched[0], result.sync,
            spread(result.wall, seconds), spread(ratios(result, ours, wall), number),
            *of_roles(result.cpu, lambda times: seconds(statistics.median(times))), *fetched[1:],
            size(result.wal) if result.wal is not None else "",
            *of_roles(result.memory, size))


def cell_table(results, cell):
    rows = [r for r in results if r.cell == cell]
    rows.sort(key=lambda r: (SYNCS.index(r.sync), r.page_size,
                             list(TITLES).index(r.name)))
    return (f"### {cell_title(cell)}\n\n" + table(
        ("method", "page size", "sync", "wall time", "× yelp_sync's", "CPU, client",
         "CPU, backend", "requests", "received", "WAL", "memory, client", "memory, backend"),
        [result_row(results, row) for row in rows]))


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
    rows = target_rows(findings)
    if rows:
        parts.append(table(("what", "target", "measured", "rounds", "reached"), rows))
    parts += [cell_table(findings.results, cell)
              for cell in dict.fromkeys(result.cell for result in findings.results)]
    return "\n".join([*parts, NOTES.lstrip()])
