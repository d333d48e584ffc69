#!/usr/bin/python3
"""A page that syncs Yelp programs and shows how it goes.  See README.md.

    POST /api/reseller/programs/sync-stream     {"username"}: starts or joins; Server-Sent Events
    GET  /api/reseller/programs/sync-stream     ?username: its syncs, without starting one
    POST /api/reseller/programs/cancel          {"username"}
    GET  /api/reseller/programs/changes         ?username: what its last sync changed
    GET  /api/reseller/programs                 ?username&state&type&business&limit&offset
    GET  /api/reseller/accounts
    GET  /api/reseller/runs                     ?username
"""
import argparse
import contextlib
import json
import logging
import pathlib
import socket
import sys
import urllib.parse

from aiohttp import BasicAuth, hdrs, web

import database
from syncs import Syncs
from users import Users

STATIC = pathlib.Path(__file__).parent / "static"
FILES = {"/": STATIC / "index.html"} | {f"/{file.name}": file for file in STATIC.iterdir()}
HEADERS = {
    "Server": "sync-page",
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self';"
                               " connect-src 'self'; base-uri 'none'; form-action 'none';"
                               " frame-ancestors 'none'; require-trusted-types-for 'script';"
                               " trusted-types 'none'",
    "X-Content-Type-Options": "nosniff",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store, no-transform",
}
STATES = ("CURRENT", "FUTURE", "PAST", "PAUSED", "INACTIVE", "GONE")
MAX_ROWS = 200
MAX_TEXT = 255
HEARTBEAT_S = 5


class Page:
    def __init__(self, users, max_syncs):
        self.users, self.syncs = users, Syncs(max_syncs)

    def application(self):
        app = web.Application(middlewares=[self.guard], client_max_size=4096)
        app.router.add_post("/api/reseller/programs/sync-stream", self.sync)
        app.router.add_get("/api/reseller/programs/sync-stream", self.follow)
        app.router.add_post("/api/reseller/programs/cancel", self.cancel)
        app.router.add_get("/api/reseller/programs/changes", self.changes)
        app.router.add_get("/api/reseller/programs", self.programs)
        app.router.add_get("/api/reseller/accounts", self.accounts)
        app.router.add_get("/api/reseller/runs", self.runs)
        for path in FILES:
            app.router.add_get(path, self.file)
        app.on_response_prepare.append(self.add_headers)
        app.on_shutdown.append(self.shut_down)
        return app

    @web.middleware
    async def guard(self, request, handler):
        """Lets in users of ours who come from our own page, and no detail of a fault out."""
        try:
            await self.authenticate(request)
            if request.path.startswith("/api/") and not from_our_page(request):
                raise web.HTTPForbidden(reason="not from this page")
            return await handler(request)
        except web.HTTPException as error:
            return answer_error(error.status, error.reason, error.headers)
        except Exception:
            logging.exception("%s %s", request.method, request.path)
            return answer_error(500, "the server failed")

    async def authenticate(self, request):
        try:
            given = BasicAuth.decode(request.headers.get(hdrs.AUTHORIZATION, ""), "utf-8")
        except ValueError:
            given = None
        if given is None or not await self.users.check(given.login, given.password):
            raise web.HTTPUnauthorized(headers={
                hdrs.WWW_AUTHENTICATE: 'Basic realm="Sync Programs", charset="UTF-8"'})
        request["user"] = given.login

    async def add_headers(self, request, response):
        response.headers.update(HEADERS)

    async def shut_down(self, app):
        await self.syncs.stop()

    async def file(self, request):
        return web.FileResponse(FILES[request.path])

    async def sync(self, request):
        sync = self.syncs.start(await asked_username(request), request["user"])
        if sync is None:
            return answer_error(503, f"{self.syncs.max_running} syncs are running already",
                                {hdrs.RETRY_AFTER: "5"})
        return await stream(request, self.syncs.events(sync, HEARTBEAT_S))

    async def follow(self, request):
        return await stream(request, self.syncs.follow(text(request, "username"), HEARTBEAT_S))

    async def cancel(self, request):
        if not self.syncs.cancel(await asked_username(request), request["user"]):
            return answer_error(404, "no sync of this account is running here")
        return web.json_response({})

    async def changes(self, request):
        """Of the last run: as its sync has told them or, if it ran elsewhere, as recorded."""
        username = text(request, "username")
        recorded = await database.read(database.CHANGES, username=username)
        sync = self.syncs.last.get(username)
        run_id = (json.loads(recorded) or {}).get("run_id")
        if run_id and sync and sync.end and sync.end.get("run_id") == run_id:
            return web.json_response(sync.end)
        return answer(recorded)

    async def programs(self, request):
        state = text(request, "state", optional=True)
        if state not in (None, *STATES):
            raise web.HTTPBadRequest(reason=f"state is one of {', '.join(STATES)}")
        return answer(await database.read(
            database.PROGRAMS, username=text(request, "username"), state=state,
            type=text(request, "type", optional=True),
            business=text(request, "business", optional=True),
            limit=number(request, "limit", 50, MAX_ROWS),
            offset=number(request, "offset", 0, 1_000_000_000)))

    async def accounts(self, request):
        return answer(await database.read(database.ACCOUNTS))

    async def runs(self, request):
        return answer(await database.read(database.RUNS, username=text(request, "username")))


def answer(text):
    return web.Response(text=text, content_type="application/json")


def answer_error(status, message, headers=None):
    kept = {name: headers[name] for name in (hdrs.WWW_AUTHENTICATE, hdrs.RETRY_AFTER, hdrs.ALLOW)
            if headers and name in headers}
    return web.json_response({"message": message}, status=status, headers=kept)


def from_our_page(request):
    """Not some other site's page, which a browser would send our password from as well."""
    origin = request.headers.get(hdrs.ORIGIN)
    return (request.headers.get("Sec-Fetch-Site", "same-origin") in ("same-origin", "none")
            and (origin is None or urllib.parse.urlsplit(origin).netloc == request.host)
            and (request.method != "POST" or request.content_type == "application/json"))


async def asked_username(request):
    try:
        username = (await request.json())["username"]
    except (ValueError, TypeError, LookupError, RecursionError):
        username = None
    return usable(username, "username")


def text(request, name, optional=False):
    value = request.query.get(name, "")
    return None if optional and not value else usable(value, name)


def usable(value, name):
    """A text that PostgreSQL takes: no NUL, no half of a surrogate pair."""
    if (not isinstance(value, str) or not 0 < len(value) <= MAX_TEXT or "\0" in value
            or any("\ud800" <= character <= "\udfff" for character in value)):
        raise web.HTTPBadRequest(reason=f"{name} is a text of 1 to {MAX_TEXT} characters")
    return value


def number(request, name, default, most):
    value = request.query.get(name, str(default))
    if not value.isascii() or not value.isdigit() or len(value) > 10 or int(value) > most:
        raise web.HTTPBadRequest(reason=f"{name} is a number from 0 to {most}")
    return int(value)


async def stream(request, events):
    """Server-Sent Events.  A browser that has gone is noticed at the next of them."""
    response = web.StreamResponse(headers={"X-Accel-Buffering": "no"})
    response.content_type = "text/event-stream"
    with contextlib.suppress(ConnectionError):
        await response.prepare(request)
        async for event in events:
            await response.write(f"data: {json.dumps(event)}\n\n".encode())
    return response


def main():
    parser = argparse.ArgumentParser(description="A page that syncs Yelp programs.",
                                     epilog="libpq's environment (PGHOST, PGUSER, …) says where"
                                     " the database is.")
    parser.add_argument("--users", required=True, metavar="FILE", help="made by users.py")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (%(default)s)")
    parser.add_argument("--port", type=int, default=8080, help="0: any free one (%(default)s)")
    parser.add_argument("--max-syncs", type=int, default=4, help="at once (%(default)s)")
    options = parser.parse_args()
    try:
        page = Page(Users(options.users), options.max_syncs)
        listening = socket.create_server((options.host, options.port))
    except OSError as error:
        sys.exit(f"{parser.prog}: {error}")
    print(f"http://{options.host}:{listening.getsockname()[1]}/", flush=True)
    web.run_app(page.application(), sock=listening, print=None, access_log=None,
                shutdown_timeout=5)


if __name__ == "__main__":
    main()
