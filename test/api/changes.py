"""Changes to a listing between syncs, and what a sync must then report.

What it must report is not declared per change but derived: row() maps a program to the typed
columns of yelp_programs, and two rows are compared.
"""
import json

import paths
from programs import Dice, dumps

COLUMNS = ("program_type", "program_status", "program_pause_status", "start_date", "end_date",
           "yelp_business_id", "partner_business_id", "budget", "max_bid", "ad_cost",
           "currency", "fee_period", "is_autobid", "billed_impressions", "billed_clicks",
           "active_features", "available_features")
METRICS = ("budget", "max_bid", "ad_cost", "currency", "fee_period", "is_autobid",
           "billed_impressions", "billed_clicks")


def row(program):
    """The typed columns of a program (money still in cents)."""
    metrics = program.get("program_metrics") or {}
    business = (program.get("businesses") or [{}])[0]
    return {column: (metrics if column in METRICS else
                     business if column.endswith("business_id") else program).get(column)
            for column in COLUMNS}


def changed_columns(before, after):
    """What the result column `changed` of yelp_sync() must say; None for equal documents."""
    if canonical(before) == canonical(after):
        return None
    old, new = row(before), row(after)
    return [c for c in COLUMNS if canonical(old[c]) != canonical(new[c])] or ["data"]


def canonical(value):
    """Text, since Python's True == 1 would hide a change."""
    return json.dumps(value, sort_keys=True)


# Each alteration changes a program in place; `dice` gives it values

def other(dice, old, values):
    return dice.pick([value for value in values if value != old])


def set_field(name, *values):
    def alter(program, dice):
        program[name] = other(dice, program.get(name), values)
    return alter


def set_metric(name, values):
    def alter(program, dice):
        found = dict(program.get("program_metrics") or {})
        found[name] = other(dice, found.get(name), values)
        program["program_metrics"] = found
    return alter


def set_business(name):
    def alter(program, dice):
        first, *rest = program.get("businesses") or [{}]
        program["businesses"] = [{**first, name: dice.id()}, *rest]
    return alter


def add_business(program, dice):
    """Only the first business has columns: with one there already, only `data` changes."""
    program["businesses"] = [*(program.get("businesses") or []),
                             {"yelp_business_id": dice.id(), "partner_business_id": None}]


def drop_metrics(program, dice):
    if program.pop("program_metrics", None) is None:
        program["program_metrics"] = {"budget": dice.roll(1000)}


ALTERATIONS = (
    set_metric("budget", range(5_000, 300_000, 2_500)),
    set_metric("max_bid", range(50, 2_500, 25)),
    set_metric("ad_cost", range(1, 200_000, 997)),
    set_metric("currency", ("USD", "CHF", "JPY")),
    set_metric("fee_period", ("Calendar Month", "Quarter")),
    set_metric("is_autobid", (True, False)),
    set_metric("billed_impressions", range(1, 3_000_000_000, 7_919_003)),
    set_metric("billed_clicks", range(1, 9_000, 7)),
    set_field("start_date", "2020-02-29", "2024-02-29", None),
    set_field("end_date", "2027-01-31", "9999-12-31", None),
    set_field("program_status", "ACTIVE", "INACTIVE"),
    set_field("program_pause_status", "PAUSED", "NOT_PAUSED"),
    set_field("program_type", "CPC", "BP", "A_NEW_TYPE"),
    set_business("yelp_business_id"),
    set_business("partner_business_id"),
    set_field("active_features", [], ["AD_GOAL"], ["AD_GOAL", "CALL_TRACKING"]),
    set_field("available_features", [], ["CUSTOM_RADIUS"], ["ÜBER_FEATURE", "A,B", "\"q\""]),
    set_field("ad_campaign_id", "changed-1", "changed-2"),
    set_field("a_field_of_tomorrow", {"x": [1, None]}, {"x": [1, False]}),
    set_field("future_budget_changes", [{"budget": 12345}], [{"budget": 54321}]),
    set_field("page_upgrade_info", {"cost": 8.24, "monthly_rate": 30}, {"cost": 9.5}),
    add_business,
    drop_metrics,
)


def edit(listing, position, values):
    """Set members of one program by path; returns its id and what changed."""
    before, program = json.loads(listing[position]), json.loads(listing[position])
    for path, value in values.items():
        paths.put(program, path, value)
    listing.replace(position, dumps(program))
    return program["program_id"], changed_columns(before, program)


def mutate(listing, seed=0, remove=0, add=0, alter=0, respell=0):
    """Change the listing: the programs removed, altered and respelled are distinct."""
    if remove + alter + respell > len(listing):
        raise ValueError(f"the listing has only {len(listing)} programs")
    chosen = sample(len(listing), remove + alter + respell, seed)
    to_remove, to_alter = chosen[:remove], chosen[remove:remove + alter]
    done = {"removed": [], "added": [], "altered": {}, "respelled": []}

    for number, position in enumerate(to_alter):
        program = json.loads(listing[position])
        text, columns = altered(program, number, Dice("alter", seed, number))
        listing.replace(position, text)
        done["altered"][program["program_id"]] = columns
    for position in chosen[remove + alter:]:
        program = json.loads(listing[position])
        listing.replace(position, respelled(program, listing[position]))
        done["respelled"].append(program["program_id"])
    done["removed"] = [json.loads(listing[position])["program_id"] for position in to_remove]
    listing.remove(to_remove)
    for number in range(add):
        position = Dice("add", seed, number).roll(len(listing) + 1)
        done["added"].append(json.loads(listing.add(position))["program_id"])
    return done


def sample(population, count, seed):
    """`count` distinct positions, in an order that depends on the seed."""
    chosen, dice_number = {}, 0
    while len(chosen) < count:
        dice = Dice("sample", seed, dice_number)
        for _ in range(8):
            chosen[dice.roll(population)] = True
        dice_number += 1
    return list(chosen)[:count]


def altered(program, number, dice):
    """The program's new text, and what changed; alteration `number`, counted round."""
    before = json.loads(json.dumps(program))
    ALTERATIONS[number % len(ALTERATIONS)](program, dice)
    return dumps(program), changed_columns(before, program)


def respelled(program, text):
    """The same values in another spelling: key order, spaces, escapes."""
    backwards = dict(reversed(list(program.items())))
    for indent in (1, 2):
        text_now = json.dumps(backwards, indent=indent).encode()
        if text_now != text:
            return text_now
