"""Promises beside the contests: a rate limiter is got past, a cancel is quick, and accounts
are synced one after the other in a round trip each."""
import asyncio
import random
import time

import asyncpg

import meter
import web
from contenders import YelpSync
from plan import Cell

LIMITED = Cell(1913, "limited", "http")
CANCELLED = (Cell(10_000, 0, "http"), Cell(1913, 100, "http"))
CANCELS = 25                    # in each half, in each of these cells
MANY = Cell(100, 500, "http")
ACCOUNTS = 20
ACCOUNT_ROUNDS = 3
LISTINGS = {100: ({20}, {"a"}), 1913: ({20, 40}, {"a"}), 10_000: ({40}, {"a"})}


async def sync_through_limiter(bench):
    """(seconds, requests, the least that the limiter allows in seconds) of a first sync."""
    contender = YelpSync(bench, LIMITED, 20)
    await contender.start()
    await contender.prepare("first")
    bench.web.new_traffic()
    began = time.perf_counter()
    await contender.sync()
    seconds = time.perf_counter() - began
    requests, _ = bench.web.new_traffic()
    await contender.stop()
    pages = -(-LIMITED.programs // contender.page_size)
    return seconds, requests, (pages - 1 - web.BURST) / web.RATE


async def cancel_once(contender, wait):
    """Seconds from the cancel to its error; None where the sync was done first."""
    await contender.prepare("first")
    sync = asyncio.ensure_future(contender.sync())
    await asyncio.sleep(wait)
    began = time.perf_counter()
    await contender.observer.execute(
        "SELECT pg_cancel_backend($1)", contender.processes["backend"])
    try:
        await sync
    except asyncpg.QueryCanceledError:
        return time.perf_counter() - began
    return None


async def cancel_often(bench):
    """(seconds of each cancel, bytes by which a backend grew in the later half of them)"""
    times, growth = [], []
    for cell in CANCELLED:
        contender = YelpSync(bench, cell, 40)
        await contender.start()
        earlier, _ = await cancel_some(contender)
        later, grown = await cancel_some(contender)
        times += earlier + later
        growth.append(grown)
        await contender.stop()
    return times, max(growth)


async def cancel_some(contender):
    """The same of CANCELS cancels, each at a random moment of a sync."""
    dice = random.Random(1)
    times = []
    await contender.prepare("first")
    began = time.perf_counter()
    await contender.sync()
    whole = time.perf_counter() - began
    before = meter.memory(contender.processes["backend"], "RssAnon")
    while len(times) < CANCELS:
        seconds = await cancel_once(contender, dice.uniform(0, whole))
        times += [seconds] if seconds is not None else []
    return times, meter.memory(contender.processes["backend"], "RssAnon") - before


class ManyAccounts(YelpSync):
    """Accounts of one endpoint, by one call."""

    name = "accounts"

    async def make_table(self):
        for number in range(ACCOUNTS):
            await self.make_server(f"bench{number}", f"bench{number}", page_size=self.page_size)

    async def sync(self):
        await self.session.execute("CALL yelp_sync_all()")


async def sync_accounts(bench):
    """The time of each unchanged sync of all accounts, in round trips of each account."""
    contender = ManyAccounts(bench, MANY, 20)
    await contender.start()
    await contender.sync()
    times = []
    for _ in range(ACCOUNT_ROUNDS):
        began = time.perf_counter()
        await contender.sync()
        times.append((time.perf_counter() - began) / (ACCOUNTS * MANY.latency / 1000))
    await contender.stop()
    return times
