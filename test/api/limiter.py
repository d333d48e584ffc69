"""Limiters in front of the API.  The clock of admit() is an argument, in seconds.

Each refuses with 429, or as `refusal` says: with another status, or with "reset", a TCP reset;
or it makes requests wait.
"""
import asyncio
import email.utils
import math
import time

FORMS = ("seconds", "date", "none")
REFUSALS = (403, 429, 503, "reset")


class Limiter:
    refusal = 429

    def admit(self, now, in_flight):
        """None, or the seconds after which to try again."""

    async def wait(self, connection):
        """Until it is the turn of a request that was admitted."""


class TokenBucket(Limiter):
    """`rate` requests a second, and `burst` at once after a rest."""

    def __init__(self, rate, burst=1, retry_after="seconds", refusal=429):
        if rate <= 0 or burst < 1:
            raise ValueError("rate is above 0, burst is 1 at least")
        self.rate, self.burst = rate, burst
        self.retry_after, self.refusal = retry_after, refusal
        self.tokens, self.filled_at = burst, None

    def admit(self, now, in_flight):
        if self.filled_at is not None:
            gained = (now - self.filled_at) * self.rate
            self.tokens = min(self.burst, self.tokens + gained)
        self.filled_at = now
        if self.tokens >= 1:
            self.tokens -= 1
            return None
        return (1 - self.tokens) / self.rate


class InFlight(Limiter):
    """Refuses what would make more than `limit` requests at the same time."""

    def __init__(self, limit, retry_after="none", refusal=429):
        self.limit, self.retry_after, self.refusal = limit, retry_after, refusal

    def admit(self, now, in_flight):
        return None if in_flight <= self.limit else 1.0


class Period(Limiter):
    """Refuses all but the first `limit` requests of each period."""

    def __init__(self, limit, seconds, retry_after="none", refusal=429):
        self.limit, self.seconds = limit, seconds
        self.retry_after, self.refusal = retry_after, refusal
        self.begun_at, self.count = -math.inf, 0

    def admit(self, now, in_flight):
        if now - self.begun_at >= self.seconds:
            self.begun_at, self.count = now, 0
        self.count += 1
        return None if self.count <= self.limit else self.begun_at + self.seconds - now


class Queue(Limiter):
    """Works on one request after the other, whether or not the client is still there."""

    def __init__(self, rate):
        self.seconds, self.free_at = 1 / rate, 0

    async def wait(self, connection):
        now = time.monotonic()
        self.free_at = max(self.free_at, now) + self.seconds
        await asyncio.sleep(self.free_at - now)


class Threads(Limiter):
    """Serves `limit` connections, each until it has been idle for so long; others wait."""

    def __init__(self, limit, idle_seconds):
        self.limit, self.idle_seconds, self.served = limit, idle_seconds, {}

    async def wait(self, connection):
        while connection not in self.served and self.count() >= self.limit:
            await asyncio.sleep(0.005)
        self.served[connection] = time.monotonic()

    def count(self):
        for connection, since in list(self.served.items()):
            idle = not connection.handling and time.monotonic() - since > self.idle_seconds
            if idle and connection.transport:
                connection.transport.close()
            if idle or not connection.transport:
                del self.served[connection]
        return len(self.served)


KINDS = {"token_bucket": TokenBucket, "in_flight": InFlight, "period": Period, "queue": Queue,
         "threads": Threads}


def make_limiters(kinds):
    """From {"token_bucket": {"rate": 20}, "in_flight": {"limit": 30}}; {} takes all away."""
    limiters = []
    for kind, options in kinds.items():
        if kind not in KINDS:
            raise ValueError(f"no limiter {kind!r}: there are {', '.join(KINDS)}")
        if options.get("retry_after", "none") not in FORMS:
            raise ValueError(f"retry_after is one of {', '.join(FORMS)}")
        if options.get("refusal", 429) not in REFUSALS:
            raise ValueError(f"refusal is one of {', '.join(map(str, REFUSALS))}")
        limiters.append(KINDS[kind](**options))
    return limiters


def retry_after_header(form, seconds):
    """The header in the form asked for; RFC 9110 allows whole seconds only."""
    if form == "none":
        return {}
    seconds = max(1, math.ceil(seconds))
    if form == "date":
        # Whole seconds again: the date must not lie before the moment meant
        return {"Retry-After": email.utils.formatdate(math.ceil(time.time()) + seconds,
                                                      usegmt=True)}
    return {"Retry-After": str(seconds)}
