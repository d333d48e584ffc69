"""The programs that the stand-in for Yelp's API lists: the same ones for the same seed.

A program is a function of (seed, index), so a listing of a million costs nothing until its
pages are asked for.  Its text is made once and kept.  Generators of prepared pages use

    listing = Listing("acme", 1913)
    body = page_text(listing, offset=340, limit=20)     # bytes
"""
import base64
import datetime
import functools
import hashlib
import json

TODAY = "2026-06-01"            # the listing's own clock: data must not depend on the date
FIRST_DAY = datetime.date(2019, 1, 1).toordinal()
LAST_PAST_DAY = datetime.date(2026, 5, 31).toordinal()
NO_END = "9999-12-31"

TYPES = ("CPC",) * 6 + ("BP", "EP", "RCA", "CTA", "SLIDESHOW", "BH", "VL", "LOGO", "PORTFOLIO")
CURRENCIES = ("USD",) * 6 + ("CAD", "EUR", "GBP")
FEE_PERIODS = ("Calendar Month", "Calendar Month", "Rolling Month", "Calendar Week")
FEATURES = ("AD_GOAL", "AD_SCHEDULING", "CALL_TRACKING", "CUSTOM_AD_TEXT", "CUSTOM_LOCATION",
            "CUSTOM_RADIUS", "LINK_TRACKING", "NEGATIVE_KEYWORD_TARGETING")
CATEGORIES = ("restaurants", "plumbing", "cafés", "寿司", "lüftung", "auto repair \"24/7\"")
NOTES = ("crêpes & 🥞", "Ελληνικά", "tab\there", "a\\b/c", "naïve — “quoted”", "")

# Most texts kept in memory
MAX_KEPT = 200_000

# A listing's style "cheap": for the very many programs of a load test
CHEAP = (b'{"program_id":"%s%014d","program_type":"CPC","program_status":"ACTIVE",'
         b'"program_pause_status":"NOT_PAUSED","start_date":"2026-03-23",'
         b'"end_date":"9999-12-31","program_metrics":{"budget":%d,"currency":"USD",'
         b'"is_autobid":true,"max_bid":null,"billed_impressions":%d,"billed_clicks":56,'
         b'"ad_cost":245000,"fee_period":"Calendar Month"},"businesses":[{"yelp_business_id":'
         b'"ys4FVTHxbSepIkvCLHYxCA","partner_business_id":null}],"active_features":["AD_GOAL"],'
         b'"available_features":["AD_GOAL","CALL_TRACKING"]}')

_utf8 = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False).encode
_escaped = json.JSONEncoder(separators=(",", ":"), ensure_ascii=True).encode


def dumps(value):
    """Compact JSON as UTF-8 bytes."""
    return _utf8(value).encode()


class Dice:
    """One hash read as a number in mixed radix: far cheaper than random.Random(seed)."""

    def __init__(self, *seed):
        text = "\0".join(map(str, seed)).encode()
        self.left = int.from_bytes(hashlib.blake2b(text).digest(), "big")

    def roll(self, sides):
        self.left, face = divmod(self.left, sides)
        return face

    def pick(self, things):
        return things[self.roll(len(things))]

    def id(self):
        """22 characters of URL-safe base64, as Yelp's ids are."""
        return base64.urlsafe_b64encode(self.roll(1 << 128).to_bytes(16, "big"))[:22].decode()


def day(ordinal):
    return datetime.date.fromordinal(ordinal).isoformat()


def make_program(seed, index):
    """The program number `index` of the listing `seed`, as a dict."""
    dice = Dice(seed, index)
    program_id = dice.id()
    program_type = dice.pick(TYPES)
    phase = dice.roll(20)       # 0: not begun; 1 to 5: over; the rest runs
    start, end = dates(dice, phase)
    program = {
        "program_id": program_id,
        "program_type": program_type,
        "program_status": "INACTIVE" if 1 <= phase <= 5 else "ACTIVE",
        "program_pause_status": "PAUSED" if dice.roll(10) == 0 else "NOT_PAUSED",
        "start_date": start,
        "end_date": end,
        "program_metrics": None,
        "businesses": businesses(dice, seed, index),
    }
    if program_type == "CPC" and dice.roll(25):
        program["program_metrics"] = metrics(dice)
    elif dice.roll(2):
        del program["program_metrics"]
    if program_type not in ("CPC", "RCA"):
        program["page_upgrade_info"] = {"cost": dice.roll(5000) / 100, "monthly_rate": 30}
    rare_fields(dice, program, seed, index)
    return program


def dates(dice, phase):
    if phase == 0:
        start = LAST_PAST_DAY + 2 + dice.roll(90)
        return day(start), NO_END
    start = FIRST_DAY + dice.roll(LAST_PAST_DAY - FIRST_DAY - 40)
    if 1 <= phase <= 5:
        return day(start), day(start + 1 + dice.roll(LAST_PAST_DAY - start))
    end = dice.pick((NO_END, NO_END, NO_END, None, day(LAST_PAST_DAY + 1 + dice.roll(400))))
    return (day(start) if dice.roll(40) else None), end


def businesses(dice, seed, index):
    count = dice.pick((1,) * 16 + (2, 2, 3, 0))
    found = []
    for number in range(count):
        # Neighbours share a business, as the programs of one customer do
        business = Dice(seed, "business", index // 3 + number)
        found.append({
            "yelp_business_id": business.id(),
            "partner_business_id": business.pick((None, None, f"A-{index // 3}", f"Łódź-{index}")),
        })
    return found


def metrics(dice):
    autobid = dice.roll(3) > 0
    found = {
        "budget": dice.pick((None, 100, 1_000_000, 99_999_999)) if dice.roll(12) == 0
                  else 5000 + dice.roll(500_000),
        "currency": dice.pick(CURRENCIES),
        "is_autobid": autobid,
        "max_bid": None if autobid else 25 + dice.roll(2000),
        "billed_impressions": dice.roll(2_000_000),
        "billed_clicks": dice.roll(20_000),
        "ad_cost": dice.roll(1_000_000),
        "fee_period": dice.pick(FEE_PERIODS),
    }
    if dice.roll(15) == 0:      # any may be absent
        del found[dice.pick(tuple(found))]
    return found


def rare_fields(dice, program, seed, index):
    """Optional members, and some that the documentation does not mention."""
    budget_changes = dice.roll(8)
    if budget_changes == 0:
        program["future_budget_changes"] = [
            {"budget": 1000 * (1 + dice.roll(900)), "effective_date": "2026-07-01"}]
    elif budget_changes < 6:
        program["future_budget_changes"] = []
    if dice.roll(12) == 0:
        del program["program_pause_status"]
    for name in ("active_features", "available_features"):
        count = dice.roll(6)
        if count < 5:           # absent is not the same as empty
            first = dice.roll(len(FEATURES))
            program[name] = list((FEATURES + FEATURES)[first:first + count])
    if dice.roll(3) == 0:
        program["ad_campaign_id"] = Dice(seed, "campaign", index).id()
    if dice.roll(5) == 0:
        program["ad_categories"] = [dice.pick(CATEGORIES)]
    if dice.roll(9) == 0:
        program["note"] = dice.pick(NOTES)


class Listing:
    """An account's programs in the order in which the API serves them.

    An entry is the index of a program that make_program() makes, or a text that a change put
    there.
    """

    def __init__(self, seed, count, style="full"):
        if style not in ("full", "cheap"):
            raise ValueError(f"no style {style!r}: there are full and cheap")
        self.seed = seed
        self.style = style
        self.prefix = Dice(seed).id()[:8].encode()      # of the cheap programs' ids
        self.entries = list(range(count))
        self.next_index = count

    def __len__(self):
        return len(self.entries)

    def __getitem__(self, where):
        """The text, or the list of texts of a slice."""
        if isinstance(where, slice):
            return [self.text(entry) for entry in self.entries[where]]
        return self.text(self.entries[where])

    def text(self, entry):
        if isinstance(entry, bytes):
            return entry
        if self.style == "full":
            return full_text(self.seed, entry)
        return CHEAP % (self.prefix, entry, 10_000 + entry % 990_000, entry)

    def replace(self, position, text):
        self.entries[position] = text

    def replace_all(self, texts):
        self.entries[:] = texts

    def remove(self, positions):
        gone = {range(len(self.entries))[position] for position in positions}
        self.entries = [e for n, e in enumerate(self.entries) if n not in gone]

    def move(self, old, new):
        self.entries.insert(new, self.entries.pop(old))

    def add(self, position):
        """Insert a program that was never listed; returns its text."""
        self.entries.insert(position, self.next_index)
        self.next_index += 1
        return self.text(self.next_index - 1)

    def matching(self, status):
        """The listing itself for ALL, else the texts of the programs with this status."""
        if status == "ALL":
            return self
        return [text for text in self[:] if status_of(text) == status]


@functools.lru_cache(MAX_KEPT)
def full_text(seed, index):
    # Every third program spells non-ASCII text as \u escapes, emoji as surrogate pairs
    encode = _escaped if index % 3 == 0 else _utf8
    return encode(make_program(seed, index)).encode()


@functools.lru_cache(MAX_KEPT)
def status_of(text):
    """Which program_status finds a program; a text that is no program counts as CURRENT."""
    try:
        program = json.loads(text)
        if (program.get("end_date") or NO_END) < TODAY:
            return "PAST"
        if (program.get("start_date") or "") > TODAY:
            return "FUTURE"
        return "PAUSED" if program.get("program_pause_status") == "PAUSED" else "CURRENT"
    except (ValueError, AttributeError, TypeError):
        return "CURRENT"


def page_members(texts, offset, limit, total, status="ALL"):
    """The members of a page, each as JSON text, in Yelp's order."""
    return {
        "program_status": dumps(status),
        "total": b"%d" % total,
        "offset": b"%d" % offset,
        "limit": b"%d" % limit,
        "payment_programs": b"[" + b",".join(texts) + b"]",
    }


def render(members):
    return b"{" + b",".join(dumps(k) + b":" + v for k, v in members.items()) + b"}"


def page_text(listing, offset, limit):
    """A page as the API serves it."""
    return render(page_members(listing[offset:offset + limit], offset, limit, len(listing)))
