"""GET /programs/v1, as Yelp documents it, behind the limiters and with the faults asked for."""
import asyncio
import base64
import binascii
import contextlib
import re
import time

from aiohttp import web

import deliver
from answer import Page, Refusal, compress
from drift import Drift
from faults import Faults
from limiter import retry_after_header
from settings import DEFAULT_ACCOUNTS, Accounts, Settings
from traffic import Traffic

PATH = "/programs/v1"
STATUSES = ("PAST", "PAUSED", "CURRENT", "FUTURE", "ALL")

# From the requested offset, the served one, and the page size
ECHOED_OFFSETS = {
    "asked": lambda asked, served, limit: asked,
    "served": lambda asked, served, limit: served,
    "page": lambda asked, served, limit: asked // limit,
    "page_from_1": lambda asked, served, limit: asked // limit + 1,
    "zero": lambda asked, served, limit: 0,
}


class Holds:
    """Requests that wait until a test releases them."""

    def __init__(self):
        self.waiting = []

    async def wait(self):
        released = asyncio.Event()
        self.waiting.append(released)
        try:
            await released.wait()
        finally:
            if released in self.waiting:        # its client has gone
                self.waiting.remove(released)

    def release(self, count=None):
        """The first `count` that wait, or all; returns how many."""
        chosen, self.waiting[:count] = self.waiting[:count], ()
        for released in chosen:
            released.set()
        return len(chosen)


class Api:
    """All that the endpoint needs, and that the control port changes."""

    def __init__(self):
        self.traffic = Traffic()
        self.holds = Holds()
        self.reset()

    def reset(self):
        self.settings = Settings()
        self.accounts = Accounts()
        self.accounts.change(DEFAULT_ACCOUNTS)
        self.faults = Faults()
        self.drift = Drift()
        self.limiters = []
        self.holds.release()
        self.traffic.reset()

    async def handle(self, request):
        """Called for each request of any listener."""
        entry = self.traffic.begin(**described(request))
        try:
            return await self.respond(request, entry)
        except asyncio.CancelledError:
            entry["status"] = "gone"        # the client, before it was answered
            raise
        except Exception:
            entry["status"] = "error"       # of the stand-in, or a fault that fits no page
            raise
        finally:
            self.traffic.end(entry)

    async def respond(self, request, entry):
        try:
            self.admit()
        except Refusal as refusal:
            return self.send(request, refusal.answer(), entry)
        except ConnectionRefusedError:
            entry["status"] = "reset"
            deliver.reset_connection(request.transport)
            return deliver.ConnectionOver()
        for limiter in self.limiters:
            await limiter.wait(request.protocol)
        action = self.faults.take(entry["account"], entry["offset"], entry["limit"],
                                  entry["connection"])
        answer = self.answer(request, entry, action)
        await self.wait(entry, action)
        if action and action.delivery:
            return await self.misdeliver(request, answer, entry, action)
        return self.send(request, answer, entry)

    def admit(self):
        for limiter in self.limiters:
            seconds = limiter.admit(time.monotonic())
            if seconds is None:
                continue
            if limiter.refusal == "reset":
                raise ConnectionRefusedError
            raise Refusal(limiter.refusal, "TOO_MANY_REQUESTS_PER_SECOND",
                          "You have exceeded the queries-per-second limit for this endpoint. "
                          "Try reducing the rate at which you make queries.",
                          retry_after_header(limiter.retry_after, seconds))

    def answer(self, request, entry, action):
        def right_answer(replacements=()):
            try:
                return self.page(request, entry).answer(replacements)
            except Refusal as refusal:
                return refusal.answer()

        answer = action.answer(right_answer) if action else right_answer()
        # A fault's own response is not encoded; padding is encoded as it is generated
        as_it_is = action and (action.respond or action.delivery == "pad")
        if not as_it_is and "gzip" in self.settings.encodings and \
                "gzip" in request.headers.get("Accept-Encoding", ""):
            compress(answer)
        return answer

    async def wait(self, entry, action):
        """Until the latency is over, which counts from the request's arrival."""
        delay = self.settings.latency_ms / 1000 + (action.delay if action else 0)
        left = entry["t_start"] + delay - time.monotonic()
        if left > 0:
            await asyncio.sleep(left)
        if action and action.hold:
            await self.holds.wait()

    def send(self, request, answer, entry):
        entry["status"], entry["bytes"] = answer.status, len(answer.body)
        response = web.Response(status=answer.status, body=answer.body,
                                headers=answer.headers)
        if self.settings.connection_close:
            response.force_close()
        return response

    async def misdeliver(self, request, answer, entry, action):
        # With many of them, the client is expected to disconnect
        with contextlib.suppress(ConnectionError):
            await deliver.DELIVERIES[action.delivery](request, answer, self, **action.options)
        entry["status"] = action.delivery
        return deliver.ConnectionOver()

    def page(self, request, entry):
        """The page asked for; raises Refusal."""
        if request.path != PATH or request.method != "GET":
            raise Refusal(404, "NOT_FOUND", "Resource could not be found.")
        username, account = self.authenticate(request)
        offset, limit, status = entry["offset"], entry["limit"], entry["program_status"]
        if offset is None or not limit or status not in STATUSES:
            raise invalid("offset, limit or program_status is wrong")
        if limit > self.settings.max_limit:
            if self.settings.over_limit == "reject":
                raise invalid(f"limit: {limit} is greater than the maximum of"
                              f" {self.settings.max_limit}")
            limit = self.settings.max_limit
        self.drift.before_page(username, offset, account.listing)
        page = self.cut_page(account.listing.matching(status), offset, limit, status)
        self.drift.after_page(username, account.listing)
        return page

    def cut_page(self, programs, offset, limit, status):
        settings, size = self.settings, limit
        if settings.window is not None:
            programs = windowed(programs, offset, limit, settings)
        if offset >= settings.serve_from_offset:
            size += settings.serve_extra
            if settings.serve_at_most is not None:
                size = min(size, settings.serve_at_most)
        start = self.served_offset(len(programs), offset, size)
        texts = programs[start:start + size]
        if settings.broken_position in range(start, start + len(texts)):
            raise broken(settings.broken_status)
        echoed_limit = size if settings.echo_limit == "served" else limit
        return Page(texts=None if settings.beyond == "null" and not texts else texts,
                    offset=ECHOED_OFFSETS[settings.echo_offset](offset, start, echoed_limit),
                    limit=echoed_limit, total=self.reported_total(len(programs)),
                    program_status=getattr(status, settings.echo_status)(), omit=settings.omit)

    def served_offset(self, count, offset, size):
        """Where the page begins that is served; raises Refusal."""
        beyond = self.settings.beyond
        if count == 0 and beyond == 204:
            raise broken(beyond)
        if offset < count or offset == 0 or beyond in ("empty", "null"):
            return offset
        if beyond == "last":
            return max(count - 1, 0) // size * size
        if beyond == "first":
            return 0
        raise broken(beyond)

    def reported_total(self, count):
        total = self.settings.total
        return count + self.settings.total_offset if total is None else total

    def authenticate(self, request):
        username, password = credentials(request)
        account = self.accounts.get(username)
        if account is None or account.password != password:
            raise Refusal(403, "ACCESS_DENIED",
                          "The authorization server denied the request.")
        return username, account


def described(request):
    """The log entry of a request, without the password."""
    return {"account": credentials(request)[0],
            "offset": number(request.query.get("offset", "0")),
            "limit": number(request.query.get("limit", "20")),
            "program_status": request.query.get("program_status", "CURRENT"),
            "connection": request.protocol.number,
            "tls": request.transport.get_extra_info("sslcontext") is not None,
            "accept_encoding": request.headers.get("Accept-Encoding"),
            "user_agent": request.headers.get("User-Agent")}


def credentials(request):
    """Username and password of Basic authentication, or None twice."""
    scheme, _, text = request.headers.get("Authorization", "").partition(" ")
    try:
        username, colon, password = base64.b64decode(text, validate=True).partition(b":")
        if scheme.lower() == "basic" and colon:
            return username.decode(), password.decode()
    except (binascii.Error, UnicodeDecodeError):
        pass
    return None, None


def number(text):
    return int(text) if re.fullmatch("[0-9]{1,18}", text) else None


def invalid(description):
    return Refusal(400, "VALIDATION_ERROR", description)


def windowed(programs, offset, limit, settings):
    """What is listed, seen through the window; raises Refusal."""
    end = offset + limit if settings.window_kind == "sum" else offset + 1
    if end > settings.window:
        raise Refusal(400, "RESULT_WINDOW_TOO_LARGE",
                      f"offset + limit must be at most {settings.window}.")
    return programs[:settings.window] if settings.window_kind == "cut" else programs


def broken(status):
    return Refusal(status, "NO_SUCH_PAGE" if status < 500 else "INTERNAL_ERROR",
                   "This page is not available.")
