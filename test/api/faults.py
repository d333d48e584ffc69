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
import collections
import dataclasses
from base64 import b64decode as decoded

import paths
from answer import JSON, Answer
from deliver import check_options
from programs import Dice, dumps

CONDITIONS = ("account", "offset", "page", "from_offset", "nth", "up_to_connection", "probability",
              "seed")


class Action:
    def __init__(self, delay_ms=0, hold=False, respond=None, replace=None, **deliveries):
        self.delay, self.hold = delay_ms / 1000, hold
        self.respond = None if respond is None else response(**respond)
        self.replace = None if replace is None else replacements(**replace)
        if len(deliveries) > 1:
            raise ValueError(f"one delivery at most: {', '.join(deliveries)}")
        self.delivery, self.options = next(iter(deliveries.items()), (None, {}))
        if self.delivery:
            check_options(self.delivery, self.options)

    def answer(self, page_answer):
        """`page_answer` makes the right answer from replacements."""
        if self.respond:
            return dataclasses.replace(self.respond, headers=dict(self.respond.headers))
        if not self.replace:
            return page_answer(())
        answer = page_answer(self.replace["paths"])
        answer.body = self.replace["prefix"] + answer.body + self.replace["suffix"]
        return answer


class Rule:
    def __init__(self, action, match=None, times=None):
        self.match, self.times, self.used = match or {}, times, 0
        for name in self.match:
            if name not in CONDITIONS:
                raise ValueError(f"no condition {name!r}: there are {', '.join(CONDITIONS)}")
        self.action = Action(**({action: {}} if isinstance(action, str) else action))

    def matches(self, asked):
        """`asked` holds the values of this request's conditions."""
        if self.times is not None and self.used >= self.times:
            return False
        return all(self.holds(name, wanted, asked) for name, wanted in self.match.items()
                   if name != "seed")

    def holds(self, name, wanted, asked):
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


def response(status=200, headers={}, body="", base64=None, json=None):
    content = dumps(json) if json is not None else decoded(base64) if base64 else body.encode()
    return Answer(status, content, {**JSON, **headers})


def replacements(json={}, text={}, base64={}, remove=(), prefix="", suffix=""):
    found = [(path, dumps(value)) for path, value in json.items()]
    found += [(path, member.encode()) for path, member in text.items()]
    found += [(path, decoded(member)) for path, member in base64.items()]
    found += [(path, paths.REMOVED) for path in remove]
    return {"paths": found, "prefix": prefix.encode(), "suffix": suffix.encode()}
