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
import dataclasses
import json


@dataclasses.dataclass
class Step:
    account: str = None
    after: int = None
    every: int = None
    at_offset: int = None
    nth: int = 1
    remove: list = ()
    add: list = ()
    move: list = ()

    def __post_init__(self):
        if (self.after, self.every, self.at_offset).count(None) != 2:
            raise ValueError("a step has one moment: after, every or at_offset")

    def due_before(self, offset, nth):
        return self.at_offset == offset and self.nth == nth

    def due_after(self, served):
        return self.after == served or (self.every and served % self.every == 0)

    def change(self, listing):
        """Returns the ids of the programs that were removed."""
        removed = [json.loads(listing[position])["program_id"] for position in self.remove]
        listing.remove(self.remove)
        for position in self.add:
            listing.add(range(len(listing) + 1)[position])
        for old, new in self.move:
            listing.move(old, range(len(listing))[new])
        return removed


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
            if step.account in (None, account) and due(step):
                self.done.append({"account": account, "removed": step.change(listing)})
