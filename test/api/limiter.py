"""Limiters in front of the API.  The clock is an argument, in seconds.

Each refuses with 429, or as `refusal` says: with another status, or with "reset", a TCP reset.
"""
import email.utils
import math
import time

FORMS = ("seconds", "date", "none")
REFUSALS = (403, 429, 503, "reset")


class TokenBucket:
    """`rate` requests a second, and `burst` at once after a rest."""

    def __init__(self, rate, burst=1, retry_after="seconds", refusal=429):
        if rate <= 0 or burst < 1:
            raise ValueError("rate is above 0, burst is 1 at least")
        self.rate, self.burst = rate, burst
        self.retry_after, self.refusal = retry_after, refusal
        self.tokens, self.filled_at = burst, None

    def admit(self, now, in_flight):
        """None, or the seconds after which to try again."""
        if self.filled_at is not None:
            gained = (now - self.filled_at) * self.rate
            self.tokens = min(self.burst, self.tokens + gained)
        self.filled_at = now
        if self.tokens >= 1:
            self.tokens -= 1
            return None
        return (1 - self.tokens) / self.rate


class InFlight:
    """Refuses what would make more than `limit` requests at the same time."""

    def __init__(self, limit, retry_after="none", refusal=429):
        self.limit, self.retry_after, self.refusal = limit, retry_after, refusal

    def admit(self, now, in_flight):
        return None if in_flight <= self.limit else 1.0


KINDS = {"token_bucket": TokenBucket, "in_flight": InFlight}


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
