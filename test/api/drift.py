"""Drift: a listing that changes while its pages are read.

A step is {"account", a moment, changes}, the account left out for any.  Moments, counted in
pages of the account that were served since the steps were set (errors do not count):
    after: K                once K pages were served
    every: K                each time another K pages were served
    at_offset: O, nth: N    when offset O is asked for the Nth time (1), before it is served
Changes, in this order; positions may be negative, to count from the end:
    remove: [position, …]
    add: [position, …]              a program that was never listed
    move: [[from, to], …]
"""
import collections
import json

from faults import known

MEMBERS = ("account", "after", "every", "at_offset", "nth", "remove", "add", "move")


class Step:
    def __init__(self, **members):
        known(members, MEMBERS, "member")
        if sum(name in members for name in ("after", "every", "at_offset")) != 1:
            raise ValueError("a step has one moment: after, every or at_offset")
        self.members = members
        self.nth = members.get("nth", 1)

    def get(self, name):
        return self.members.get(name)

    def concerns(self, account):
        return self.get("account") in (None, account)

    def due_before(self, offset, nth):
        return self.get("at_offset") == offset and self.nth == nth

    def due_after(self, served):
        every = self.get("every")
        return self.get("after") == served or (every and served % every == 0)


class Drift:
    def __init__(self, steps=()):
        self.steps = [Step(**step) for step in steps]
        self.served = collections.Counter()
        self.asked = collections.Counter()
        self.done = []

    def before_page(self, account, offset, listing):
        self.asked[account, offset] += 1
        self.take(account, listing,
                  lambda step: step.due_before(offset, self.asked[account, offset]))

    def after_page(self, account, listing):
        self.served[account] += 1
        self.take(account, listing, lambda step: step.due_after(self.served[account]))

    def take(self, account, listing, due):
        for step in self.steps:
            if step.concerns(account) and due(step):
                self.done.append({"account": account, **change(listing, step)})


def program_id(text):
    return json.loads(text)["program_id"]


def change(listing, step):
    """Returns the ids of the programs that were changed."""
    removed = [program_id(listing[position]) for position in step.get("remove") or ()]
    listing.remove(step.get("remove") or ())
    added = [program_id(listing.add(range(len(listing) + 1)[position]))
             for position in step.get("add") or ()]
    moved = []
    for old, new in step.get("move") or ():
        moved.append(program_id(listing[old]))
        listing.move(old, range(len(listing))[new])
    return {"removed": removed, "added": added, "moved": moved}
