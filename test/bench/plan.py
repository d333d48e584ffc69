"""What is measured: not every combination, but each dimension where the others stand still."""
import typing

WHOLE = ("first", "repeat", "changed")
LARGE = ("first", "repeat", "edited", "changed")


class Cell(typing.NamedTuple):
    programs: int
    latency: int                # ms
    protocol: str               # http, https 1.1 or https 2


class Contest(typing.NamedTuple):
    """The methods that are compared in a cell."""

    cell: Cell
    entries: tuple              # (method, page size)
    syncs: tuple
    rounds: int
    fewer_rounds: dict = {}     # method -> its rounds, where it would take too long

    def rounds_of(self, method):
        return self.fewer_rounds.get(method, self.rounds)


def both_sizes(*methods, sizes=(20, 40)):
    return tuple((method, page_size) for page_size in sizes for method in methods)


def with_pages_of_40(*methods):
    return both_sizes(*methods, sizes=(40,))


STORING = both_sizes("yelp_sync", "original", "threads")
BEST = with_pages_of_40("yelp_sync", "original", "threads")
LIMITS = with_pages_of_40("download", "copy")

QUICK = (
    Contest(Cell(1913, 100, "http"), STORING + with_pages_of_40("download"),
            ("first", "repeat"), 3),
    Contest(Cell(10_000, 0, "http"), BEST + LIMITS, WHOLE, 3),
)

DEFAULT = (
    Contest(Cell(1913, 0, "http"), STORING + both_sizes("curl", "download"), WHOLE, 5),
    Contest(Cell(1913, 100, "http"), STORING + both_sizes("download") + with_pages_of_40("curl"),
            ("first", "repeat"), 3, {"curl": 1}),
    Contest(Cell(1913, 500, "http"), STORING + both_sizes("download"), ("first", "repeat"), 3),
    Contest(Cell(1913, 100, "https 1.1"), BEST + with_pages_of_40("download"),
            ("first", "repeat"), 3),
    Contest(Cell(1913, 100, "https 2"), with_pages_of_40("yelp_sync", "download"),
            ("first", "repeat"), 3),
    Contest(Cell(10_000, 0, "http"), BEST + LIMITS, WHOLE, 5),
    Contest(Cell(10_000, 0, "https 1.1"), with_pages_of_40("yelp_sync", "original", "download"),
            ("repeat",), 5),
    Contest(Cell(10_000, 0, "https 2"), with_pages_of_40("yelp_sync", "download"),
            ("repeat",), 5),
    Contest(Cell(100_000, 0, "http"), BEST + LIMITS, LARGE, 5, {"original": 1, "threads": 1}),
)

PLANS = {"quick": QUICK, "default": DEFAULT}


def listings(contests, *others):
    """What has to be prepared: programs -> (page sizes, states); `others` are of that form."""
    needed = {}
    for contest in contests:
        others += ({contest.cell.programs: ({page_size for _, page_size in contest.entries},
                                            "ab" if "changed" in contest.syncs else "a")},)
    for other in others:
        for programs, (page_sizes, states) in other.items():
            all_sizes, all_states = needed.setdefault(programs, (set(), set()))
            all_sizes.update(page_sizes)
            all_states.update(states)
    return needed
