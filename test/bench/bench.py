"""The benchmark: every method on one server, in interleaved rounds.

Called by ./run, which brings what it needs:

    bench.py PLAN DIRECTORY DOWNLOAD

DIRECTORY is for what is made, and DOWNLOAD is download.c, compiled.
"""
import asyncio
import contextlib
import os
import signal
import sys
import time

import chart
import machine
import promises
import report
from contenders import CONTENDERS
from database import Cluster
from plan import PLANS, listings
from web import Web


class Bench:
    """What all contests share."""

    def __init__(self, directory, download):
        self.download = download
        for name in ("web", "cluster"):
            os.mkdir(os.path.join(directory, name))
        self.web = Web(os.path.join(directory, "web"))
        self.cluster = Cluster(os.path.join(directory, "cluster"))
        self.processes = []         # the contenders' own, which may have ended

    def stop(self):
        """Leave nothing running; may be called at any moment."""
        for process in self.processes:
            process.kill()
        self.web.stop()
        self.cluster.stop()

    def stop_on_signals(self, seconds):
        """Ctrl-C, a signal, or the time limit ends everything at once."""
        def end(number, _):
            self.stop()
            print("bench: " + ("out of time" if number == signal.SIGALRM else "interrupted"),
                  file=sys.stderr, flush=True)
            os._exit(1)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGALRM):
            signal.signal(number, end)
        signal.alarm(seconds)


class Result:
    """All measurements of one method's syncs of one kind in one cell."""

    def __init__(self, cell, contender, sync):
        self.cell, self.sync = cell, sync
        self.name, self.page_size = contender.name, contender.page_size
        self.wall = []              # seconds, one entry per round
        self.cpu = {}               # role -> seconds, one entry per round
        self.memory = {}            # role -> bytes
        self.requests = self.received = None
        self.wal = None             # bytes, of those that store


async def sync(contender, result):
    returned = await contender.sync()
    if returned != contender.expected:
        raise RuntimeError(f"the {result.sync} sync by {contender.name} changed {returned} "
                           f"programs, not {contender.expected}")


async def measure(contender, result):
    """One sync with nothing else going on."""
    cpu, began = contender.cpu(), time.perf_counter()
    await sync(contender, result)
    result.wall.append(time.perf_counter() - began)
    for role, seconds in contender.cpu().items():
        result.cpu.setdefault(role, []).append(seconds - cpu[role])


async def count(bench, contender, result):
    """One sync that also warms up: its time does not count, all else about it does."""
    bench.web.new_traffic()
    async with contender.counted(result):
        await sync(contender, result)
    result.requests, result.received = bench.web.new_traffic()


def state_of(sync):
    """The state of the listing that a sync finds."""
    return "b" if sync == "changed" else "a"


async def hold(bench, contest):
    """All rounds of a contest; returns its results."""
    contenders = [CONTENDERS[name](bench, contest.cell, page_size)
                  for name, page_size in contest.entries]
    results = {}
    async with contextlib.AsyncExitStack() as stack:
        for contender in contenders:
            await contender.start()
            stack.push_async_callback(contender.stop)
            if "first" not in contest.syncs:
                await contender.prepare("first")
                await contender.sync()
        for number in range(contest.rounds + 1):
            # Each round begins with another contender
            first = number % len(contenders)
            for contender in contenders[first:] + contenders[:first]:
                if number <= contest.rounds_of(contender.name):
                    await play(bench, contest, contender, number, results)
        await compare(contest, contenders)
    return list(results.values())


def syncs_of(contest, contender):
    return [sync for sync in contest.syncs if sync in contender.syncs]


async def play(bench, contest, contender, number, results):
    """One contender's syncs of one round; those of round 0 count and warm up."""
    for name in syncs_of(contest, contender):
        bench.web.show(contest.cell.programs, state_of(name))
        await contender.prepare(name)
        key = contender.name, contender.page_size, name
        result = results.setdefault(key, Result(contest.cell, contender, name))
        if number == 0:
            await count(bench, contender, result)
        else:
            await measure(contender, result)


async def compare(contest, contenders):
    """All who stored the listing in the same state must have stored the same."""
    found = {}
    for contender in contenders:
        if hasattr(contender, "checksum"):
            state = state_of(syncs_of(contest, contender)[-1])
            found.setdefault(state, set()).add(await contender.checksum())
    if any(len(sums) > 1 for sums in found.values()):
        raise RuntimeError(f"{contest.cell}: the tables differ: {found}")


async def hold_all(bench, contests):
    results = []
    for number, contest in enumerate(contests, 1):
        print("== {}/{}: {} programs, {} ms, {}".format(number, len(contests), *contest.cell),
              flush=True)
        results += await hold(bench, contest)
    return results


async def run(bench, plan):
    """Everything that the plan asks for, as findings to report."""
    contests, is_whole = PLANS[plan], plan == "default"

    print("== preparing the pages", flush=True)
    bench.web.prepare(listings(contests, promises.LISTINGS if is_whole else {}))
    bench.web.start()
    bench.cluster.start()
    findings = report.Findings(machine=await machine.describe(bench.cluster))
    findings.results = await hold_all(bench, contests)
    if is_whole:
        print("== a rate limiter, cancels, many accounts", flush=True)
        findings.limiter = await promises.sync_through_limiter(bench)
        findings.cancels = await promises.cancel_often(bench)
        findings.accounts = await promises.sync_accounts(bench)
    return findings


# Seconds after which a run is given up: several times what it takes
TIME_LIMITS = {"quick": 600, "default": 1800}


def main():
    plan, directory, download = sys.argv[1:]
    bench = Bench(directory, download)
    bench.stop_on_signals(TIME_LIMITS[plan])
    try:
        findings = asyncio.run(run(bench, plan))
    finally:
        bench.stop()
    text = report.render(findings)
    print(text)
    if plan == "default":
        with open(os.path.join(directory, "results.md"), "w") as file:
            file.write(text)
        chart.draw(findings.results, os.path.join(directory, "chart.svg"))


if __name__ == "__main__":
    main()
