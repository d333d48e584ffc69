"""The syncs that run here, and those who follow them.

A sync belongs to its account: whoever asks for one that is running already joins it, and it runs
to its end, or until somebody cancels it, even if nobody is left to look on.  It keeps what it has
told, so that those who come later see what the others saw.
"""
import asyncio
import collections
import datetime
import logging

import database

ENDS = ("changes", "error", "cancelled")    # a sync's last event is one of these
KEPT = {"progress": 1}                      # the last events of a type that a sync keeps
KEPT_OTHERS = 100
MAX_ACCOUNTS = 1000                         # whose last sync is kept
STOP_S = 5
ALIVE = {"type": "alive"}                   # when there is nothing to tell


class Sync:
    def __init__(self, account, user):
        self.account, self.user = account, user
        self.started_at = now()
        self.events = {}                    # each with its number, in the order of their numbers
        self.counts = collections.Counter()
        self.cancelled = asyncio.Event()
        self.cancelled_by = None
        self.end = None                     # the last event

    def add(self, event):
        kind = event["type"]
        key = kind, self.counts[kind] % KEPT.get(kind, KEPT_OTHERS)
        self.counts[kind] += 1
        self.events.pop(key, None)
        self.events[key] = (self.counts.total(), event)
        if kind in ENDS:
            self.end = event

    def since(self, number):
        return [entry for entry in self.events.values() if entry[0] > number]


class Syncs:
    def __init__(self, max_running):
        self.max_running = max_running
        self.last = {}                      # sync of each account, which may be running
        self.tasks = set()
        self.news = asyncio.Event()         # replaced when it is set
        self.stopped = False

    def running(self, account):
        sync = self.last.get(account)
        return sync if sync and not sync.end else None

    def start(self, account, user):
        """Starts a sync or joins the one that runs; None if too many are running."""
        if sync := self.running(account):
            return sync
        if len(self.tasks) >= self.max_running or self.stopped:
            return None
        self.last.pop(account, None)
        sync = self.last[account] = Sync(account, user)
        task = asyncio.create_task(self.run(sync))
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)
        self.forget()
        self.tell_followers()
        return sync

    async def run(self, sync):
        def tell(event):
            sync.add(event)
            self.tell_followers()

        try:
            end = await database.sync(sync.account, tell, sync.cancelled)
        except Exception:
            logging.exception("sync of %s", sync.account)
            end = {"type": "error", "account": sync.account, "message": "the server failed"}
        if end["type"] == "cancelled":
            end["by"] = sync.cancelled_by
        tell({**end, "at": now()})

    def cancel(self, account, user):
        """Whether there was one to cancel."""
        sync = self.running(account)
        if sync:
            sync.cancelled_by = sync.cancelled_by or user
            sync.cancelled.set()
        return sync is not None

    async def stop(self):
        for account in self.last:
            self.cancel(account, None)
        if self.tasks:
            await asyncio.wait(self.tasks, timeout=STOP_S)
        self.stopped = True
        self.tell_followers()

    def forget(self):
        ended = [account for account, sync in self.last.items() if sync.end]
        for account in ended[:max(0, len(self.last) - MAX_ACCOUNTS)]:
            del self.last[account]

    def tell_followers(self):
        self.news.set()
        self.news = asyncio.Event()

    async def events(self, sync, idle_s):
        """Its events as they happen, up to the last one; ALIVE if nothing has for idle_s."""
        seen, event = 0, None
        while event is None or event is not sync.end:
            news = self.news
            event = None
            for seen, event in sync.since(seen):
                yield event
            if event is None and not await happened(news, idle_s):
                yield ALIVE

    async def follow(self, account, idle_s):
        """The account's last sync, and each later one: a state, and then its events."""
        while not self.stopped:
            news = self.news
            sync = self.last.get(account)
            yield state(account, sync)
            if sync:
                async for event in self.events(sync, idle_s):
                    yield event
            while not self.stopped and self.last.get(account) is sync:
                if not await happened(news, idle_s):
                    yield ALIVE
                news = self.news


async def happened(news, wait_s):
    try:
        return await asyncio.wait_for(news.wait(), wait_s)
    except asyncio.TimeoutError:
        return False


def state(account, sync):
    event = {"type": "state", "account": account, "running": bool(sync and not sync.end)}
    if sync:
        event |= {"started_by": sync.user, "started_at": sync.started_at}
    return event


def now():
    return datetime.datetime.now(datetime.timezone.utc).isoformat()
