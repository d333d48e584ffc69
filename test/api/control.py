"""The control port: HTTP, JSON in and out.

    POST /reset         {"what": ["counters", …]}; all of it where nothing is named
    POST /config        settings (settings.py), and {"accounts": {username: {…} or null}}
    GET  /config
    POST /mutate        {"account", "seed", "remove", "add", "alter", "respell"}: how many; or
                        {"account", "edit": [[position, {path: value}], …]}.  Answers what a
                        sync must report: {"removed": [id], "added": [id],
                        "altered": {id: [column]}, "respelled": [id]}
    POST /programs      {"account"}: the listing, a JSON array of the texts as they are served;
                        with {"texts": [text, …]}, sets it and answers {"total"}
    GET  /counters      Traffic.counters(), and the ports that never answer
    GET  /log           one object per request, oldest first
    POST /faults        {"rules": [rule, …]} (faults.py), in place of those that are set
    GET  /faults        {"used": how often each applied}
    POST /release       {"count"}: requests held that go on, or all; answers {"released"}
    POST /limiter       {"token_bucket": {"rate", "burst", "retry_after", "refusal"},
                        "period": {"limit", "seconds", "refusal"}, "queue": {"rate"},
                        "threads": {"limit", "idle_seconds"}}, in place of those that are set
    POST /drift         {"steps": [step, …]} (drift.py), in place of those that are set
    GET  /drift         {"done": [{"account", "removed"}]}: what the steps that were due did
    POST /disconnect    {"how": "close" or "reset"}: idle connections; answers {"connections"}

What cannot be done is answered with 400 and {"error"}.  Usernames stand in bodies only, so
that none needs an escape.
"""
import json

from aiohttp import web

import changes
from drift import Drift
from faults import Faults
from limiter import make_limiters
from listeners import Silence
from settings import DEFAULT_ACCOUNTS, Accounts, Settings


class Control:
    def __init__(self, api, server, swallow):
        self.api, self.server, self.swallow = api, server, swallow

    def application(self):
        application = web.Application(middlewares=[report_errors], client_max_size=1 << 30)
        application.router.add_get("/{order:config|faults|drift|counters|log}", self.handle)
        application.router.add_post("/{order:reset|config|mutate|programs|faults|release|limiter"
                                    "|drift|disconnect}", self.handle)
        return application

    async def handle(self, request):
        body = await request.read()
        prefix = "get_" if request.method == "GET" else ""
        function = getattr(self, prefix + request.match_info["order"])
        answer = function(**(json.loads(body) if body else {}))
        if isinstance(answer, bytes):
            return web.Response(body=answer, content_type="application/json")
        return web.json_response(answer)

    def reset(self, what=()):
        parts = {"config": self.reset_config, "accounts": self.reset_accounts,
                 "faults": self.faults, "drift": self.drift, "limiter": self.limiter,
                 "counters": self.api.traffic.reset}
        chosen = [parts[name] for name in what]     # a wrong name does nothing at all
        for part in chosen or [self.api.reset]:
            part()
        return {}

    def reset_config(self):
        self.api.settings = Settings()

    def reset_accounts(self):
        self.api.accounts = Accounts()
        self.api.accounts.change(DEFAULT_ACCOUNTS)

    def config(self, accounts=None, **values):
        self.api.settings.change(**values)
        self.api.accounts.change(accounts or {})
        return self.get_config()

    def get_config(self):
        accounts = {username: {"count": len(account.listing)}
                    for username, account in self.api.accounts.items()}
        return {**vars(self.api.settings), "accounts": accounts}

    def listing(self, account):
        return self.api.accounts.find(account).listing

    def mutate(self, account="acme", edit=None, **counts):
        listing = self.listing(account)
        if edit is None:
            return changes.mutate(listing, **counts)
        altered = dict(changes.edit(listing, position, values) for position, values in edit)
        return {"removed": [], "added": [], "altered": altered, "respelled": []}

    def programs(self, account="acme", texts=None):
        listing = self.listing(account)
        if texts is None:
            return b"[" + b",".join(listing[:]) + b"]"
        listing.replace_all([text.encode() for text in texts])
        return {"total": len(listing)}

    def get_counters(self):
        return {**self.api.traffic.counters(), "held": len(self.api.holds.waiting),
                "swallow_connecting": self.swallow.connecting(), "silent_open": Silence.open}

    def get_log(self):
        return self.api.traffic.log

    def faults(self, rules=()):
        self.api.faults = Faults(rules)
        return {}

    def get_faults(self):
        return {"used": [rule.used for rule in self.api.faults.rules]}

    def release(self, count=None):
        return {"released": self.api.holds.release(count)}

    def limiter(self, **kinds):
        self.api.limiters = make_limiters(kinds)
        return {}

    def drift(self, steps=()):
        self.api.drift = Drift(steps)
        return {}

    def get_drift(self):
        return {"done": self.api.drift.done}

    def disconnect(self, how="close"):
        if how not in ("close", "reset"):
            raise ValueError("how is close or reset")
        return {"connections": self.server.disconnect(how)}


@web.middleware
async def report_errors(request, handler):
    try:
        return await handler(request)
    except web.HTTPException:
        raise
    except Exception as error:      # a wrong order must not end the server
        return web.json_response({"error": f"{type(error).__name__}: {error}"}, status=400)
