"""Limiters in front of the API.  The clock of admit() is an argument, in seconds.

Each refuses with 429, or as `refusal` says: with another status, or with "reset", a TCP reset;
or it makes requests wait.
"""
import asyncio
import email.utils
import math
import time


class Limiter:
    def admit(self, now):
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

    def admit(self, now):
        if self.filled_at is not None:
            gained = (now - self.filled_at) * self.rate
            self.tokens = min(self.burst, self.tokens + gained)
        self.filled_at = now
        if self.tokens >= 1:
            self.tokens -= 1
            return None
        return (1 - self.tokens) / self.rate


class Period(Limiter):
    """Refuses all but the first `limit` requests of each period."""

    retry_after = "none"

    def __init__(self, limit, seconds, refusal=429):
        self.limit, self.seconds, self.refusal = limit, seconds, refusal
        self.begun_at, self.count = -math.inf, 0

    def admit(self, now):
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


KINDS = {"token_bucket": TokenBucket, "period": Period, "queue": Queue, "threads": Threads}


def make_limiters(kinds):
    """From {"token_bucket": {"rate": 20}, "queue": {"rate": 30}}; {} takes all away."""
    return [KINDS[kind](**options) for kind, options in kinds.items()]


def retry_after_header(form, seconds):
    """In the form "seconds", "date" or "none"; RFC 9110 allows whole seconds only."""
    if form == "none":
        return {}
    seconds = max(1, math.ceil(seconds))
    if form == "date":
        # Whole seconds again: the date must not lie before the moment meant
        return {"Retry-After": email.utils.formatdate(math.ceil(time.time()) + seconds,
                                                      usegmt=True)}
    return {"Retry-After": str(seconds)}
