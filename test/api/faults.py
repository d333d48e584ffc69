"""Faults: which requests are answered wrongly, and with what.

A rule is {"match": {…}, "times": N, "action": {…}}; of several that match, the first is taken.

match, all of what is given (a number, or a list of which one is to match):
    account         the username
    offset, page    as asked for; pages count from 0
    from_offset     this offset and beyond
    nth             how often the account has asked for this offset: 1 is the first time
    up_to_connection  this connection, by the log's numbers, or an earlier one
    probability     0 to 1, decided by the number of the request and "seed"
Counting begins when the rules are set.

times: how often the rule applies; left out, always.

action, what is done to the right answer:
    delay_ms        wait before answering, over and above the latency
    hold            true: wait until a release first
    respond         {"status", "headers", "body" or "base64" or "json"} instead
    replace         {"json": {path: value}, "text": {path: JSON or not}, "base64": {path: …},
                    "remove": [path], "prefix": text, "suffix": text} on the page; paths as
                    "total", "payment_programs.3", "payment_programs.3.program_metrics.budget"
    and at most one of the deliveries in deliver.py
An action without options may be written as its name only: "close" for {"close": {}}.
"""
import base64
import collections
import dataclasses

import paths
from answer import JSON, Answer
from deliver import DELIVERIES
from programs import Dice, dumps

CONDITIONS = ("account", "offset", "page", "from_offset", "nth", "up_to_connection", "probability",
              "seed")
ACTIONS = ("delay_ms", "hold", "respond", "replace", *DELIVERIES)


class Action:
    def __init__(self, what):
        what = {what: {}} if isinstance(what, str) else dict(what)
        known(what, ACTIONS, "action")
        self.delay = what.pop("delay_ms", 0) / 1000
        self.hold = what.pop("hold", False)
        self.respond = response(what.pop("respond")) if "respond" in what else None
        self.replace = replacements(what.pop("replace")) if "replace" in what else None
        if len(what) > 1:
            raise ValueError(f"one delivery at most: {', '.join(what)}")
        self.delivery, options = next(iter(what.items()), (None, {}))
        self.options = options if isinstance(options, dict) else {}
        if self.delivery:
            known(self.options, DELIVERIES[self.delivery].options, "option")

    def answer(self, page_answer):
        """`page_answer` makes the right answer from replacements."""
        if self.respond:
            return dataclasses.replace(self.respond, headers=dict(self.respond.headers))
        if not self.replace:
            return page_answer(())
        answer = page_answer(self.replace["paths"])
        answer.body = self.replace["prefix"] + answer.body + self.replace["suffix"]
        return answer

    def name(self):
        return (self.delivery or ("respond" if self.respond else "replace" if self.replace
                                  else "hold" if self.hold else "delay"))


class Rule:
    def __init__(self, match=None, times=None, action=None):
        self.match, self.times, self.used = match or {}, times, 0
        known(self.match, CONDITIONS, "condition")
        if action is None:
            raise ValueError("a fault without action")
        self.action = Action(action)

    def matches(self, asked):
        """`asked` holds the values of this request's conditions."""
        if self.times is not None and self.used >= self.times:
            return False
        return all(self.holds(name, wanted, asked) for name, wanted in self.match.items())

    def holds(self, name, wanted, asked):
        if name == "seed":
            return True
        if name == "probability":
            dice = Dice("fault", self.match.get("seed", 0), asked["request"])
            return dice.roll(1_000_000) < wanted * 1_000_000
        if name == "from_offset":
            return asked["offset"] is not None and asked["offset"] >= wanted
        if name == "up_to_connection":
            return asked["connection"] <= wanted
        return asked[name] in (wanted if isinstance(wanted, list) else [wanted])


class Faults:
    def __init__(self, rules=()):
        self.rules = [Rule(**rule) for rule in rules]
        self.requests = 0
        self.asked = collections.Counter()

    def take(self, account, offset, limit, connection=0):
        """The action for this request, or None."""
        if not self.rules:
            return None
        self.requests += 1
        self.asked[account, offset] += 1
        asked = {"account": account, "offset": offset, "request": self.requests,
                 "connection": connection,
                 "nth": self.asked[account, offset],
                 "page": offset // limit if limit and offset is not None else None}
        for rule in self.rules:
            if rule.matches(asked):
                rule.used += 1
                return rule.action
        return None

    def used(self):
        return [rule.used for rule in self.rules]


def known(given, names, kind):
    for name in given:
        if name not in names:
            raise ValueError(f"no {kind} {name!r}: there are {', '.join(names)}")


def raw_bytes(options, text="body"):
    if "base64" in options:
        return base64.b64decode(options["base64"], validate=True)
    return options.get(text, "").encode()


def response(options):
    known(options, ("status", "headers", "body", "base64", "json"), "member")
    body = dumps(options["json"]) if "json" in options else raw_bytes(options)
    return Answer(options.get("status", 200), body, {**JSON, **options.get("headers", {})})


def replacements(options):
    known(options, ("json", "text", "base64", "remove", "prefix", "suffix"), "member")
    found = [(path, dumps(value)) for path, value in options.get("json", {}).items()]
    found += [(path, text.encode()) for path, text in options.get("text", {}).items()]
    found += [(path, base64.b64decode(text, validate=True))
              for path, text in options.get("base64", {}).items()]
    found += [(path, paths.REMOVED) for path in options.get("remove", ())]
    return {"paths": found, "prefix": options.get("prefix", "").encode(),
            "suffix": options.get("suffix", "").encode()}
