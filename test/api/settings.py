"""How the API behaves, and its accounts."""
import collections

from programs import Listing

DEFAULTS = {
    # The time from a request's arrival to its response
    "latency_ms": 0,
    # Before the TLS handshake, or before the first byte is read where there is no TLS
    "connection_delay_ms": 0,
    # Further connections are reset as soon as they are established
    "max_connections": None,
    # Where empty, pages are sent as they are; else the client may have them in gzip
    "encodings": ["gzip"],
    "connection_close": False,
    # The largest `limit`, and how a larger one is handled: reject or clamp
    "max_limit": 40,
    "over_limit": "reject",
    # Pages from this offset on have at most this many programs, or this many more than requested
    "serve_from_offset": 0,
    "serve_at_most": None,
    "serve_extra": 0,
    # The member `limit`: the page's capacity (served), or the requested one (asked)
    "echo_limit": "served",
    # Members of the page that are left out
    "omit": [],
    # Added to the true total; or a total that is reported in its place
    "total_offset": 0,
    "total": None,
    # The response to an offset past the last program: no programs (empty), null instead of a list, the
    # last or the first page again, or a status
    "beyond": "empty",
    # A result window: requests that begin (offset) or end (sum) past it are refused; or the listing
    # seems to end there (cut)
    "window": None,
    "window_kind": "offset",
    # The member `offset`: the requested (asked) or the served one, the page's number from 0 (page) or 1
    # (page_from_1), or zero
    "echo_offset": "asked",
    # The spelling of the member `program_status`: upper, lower or title
    "echo_status": "upper",
    # Each page with the program at this position is answered with this status instead
    "broken_position": None,
    "broken_status": 500,
}

DEFAULT_ACCOUNTS = {"acme": {"password": "s3cret", "count": 1913}}


class Settings:
    """One attribute for each of DEFAULTS."""

    def __init__(self):
        self.__dict__.update(DEFAULTS)

    def change(self, **values):
        unknown = values.keys() - DEFAULTS.keys()
        if unknown:
            raise ValueError(f"no setting {unknown}: there are {', '.join(DEFAULTS)}")
        self.__dict__.update(values)


class Account:
    """A username's password and programs.  `style` is "full" or "cheap"."""

    def __init__(self, username):
        self.password = "s3cret"
        self.of_listing = {"seed": username, "count": 0, "style": "full"}
        self.listing = Listing(**self.of_listing)

    def change(self, password=None, **of_listing):
        """Makes a new listing only if count, seed or style is given."""
        if password is not None:
            self.password = password
        if of_listing:
            self.of_listing.update({"count": len(self.listing), **of_listing})
            self.listing = Listing(**self.of_listing)


class Accounts(collections.UserDict):
    def change(self, accounts):
        """From {username: {"password", "count", "seed", "style"} or None to remove it}."""
        for username, values in accounts.items():
            if values is None:
                self.data.pop(username, None)
            else:
                self.data.setdefault(username, Account(username)).change(**values)

    def find(self, username):
        if username not in self.data:
            raise ValueError(f"no account {username!r}")
        return self.data[username]
