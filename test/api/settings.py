"""How the API behaves, and its accounts."""
import collections

from programs import Listing

# Name: (default, valid values)
SETTINGS = {
    # The time from a request's arrival to its answer
    "latency_ms": (0, "number"),
    # Before the TLS handshake, or before the first byte is read where there is no TLS
    "connection_delay_ms": (0, "number"),
    # Further connections are reset as soon as they are established
    "max_connections": (None, "integer"),
    # In the order of the server's preference
    "encodings": (["gzip", "deflate"], "list"),
    "connection_close": (False, "boolean"),
    # New connections are closed after this idle time (checked once a second)
    "keepalive_s": (75, "number"),
    # The largest `limit`, and how a larger one is handled
    "max_limit": (40, "integer"),
    "over_limit": ("reject", ("reject", "clamp")),
    # Pages from this offset on have at most this many programs, or this many more than requested
    "serve_from_offset": (0, "integer"),
    "serve_at_most": (None, "integer"),
    "serve_extra": (0, "integer"),
    # The member `limit`: the page's capacity, or the requested one
    "echo_limit": ("served", ("served", "asked")),
    # Members of the page that are left out
    "omit": ([], "list"),
    # Added to the true total; or a total that is reported in its place
    "total_offset": (0, "integer"),
    "total": (None, "integer"),
    # The answer to an offset past the last program: no programs, null instead of a list, the
    # last or the first page again, or a status
    "beyond": ("empty", ("empty", "null", "last", "first", 204, 400, 404, 410, 416, 422, 500,
                         503)),
    # A result window: requests that begin or (sum) end past it are refused; where it cuts, the
    # listing seems to end there
    "window": (None, "integer"),
    "window_kind": ("offset", ("offset", "sum", "cut")),
    # The member `offset`: the requested or the served one, the page's number from 0 or 1, or 0
    "echo_offset": ("asked", ("asked", "served", "page", "page_from_1", "zero")),
    # The spelling of the member `program_status`
    "echo_status": ("upper", ("upper", "lower", "title")),
    # Each page with the program at this position is answered with this status instead
    "broken_position": (None, "integer"),
    "broken_status": (500, "integer"),
    # For wrong credentials; none at all are always answered with 401
    "denied_status": (403, (401, 403)),
}

KINDS = {
    "number": lambda v: type(v) in (int, float) and v >= 0,
    "integer": lambda v: type(v) is int,
    "boolean": lambda v: type(v) is bool,
    "list": lambda v: type(v) is list,
}

DEFAULT_ACCOUNTS = {"acme": {"password": "s3cret", "count": 1913}}


class Settings:
    """One attribute for each of SETTINGS."""

    def __init__(self):
        for name, (default, _) in SETTINGS.items():
            setattr(self, name, default)

    def change(self, **values):
        for name, value in values.items():
            check(name, value)
        for name, value in values.items():
            setattr(self, name, value)

    def as_dict(self):
        return {name: getattr(self, name) for name in SETTINGS}


def check(name, value):
    if name not in SETTINGS:
        raise ValueError(f"no setting {name!r}: there are {', '.join(SETTINGS)}")
    default, allowed = SETTINGS[name]
    if value is None and default is None:
        return
    if not (KINDS[allowed](value) if isinstance(allowed, str) else value in allowed):
        raise ValueError(f"{name} is to be {allowed}, not {value!r}")


class Account:
    """A username's password and programs.  `style` is "full" or "cheap"."""

    def __init__(self, username, password="s3cret", count=0, seed=None, style="full"):
        self.password = password
        self.seed, self.style = username if seed is None else seed, style
        self.listing = Listing(self.seed, count, style)

    def change(self, password=None, count=None, seed=None, style=None):
        """Makes a new listing only if count, seed or style is given."""
        if password is not None:
            self.password = password
        if (count, seed, style) == (None, None, None):
            return
        self.seed = self.seed if seed is None else seed
        self.style = style or self.style
        self.listing = Listing(self.seed, len(self.listing) if count is None else count,
                               self.style)


class Accounts(collections.UserDict):
    def change(self, accounts):
        """From {username: {"password", "count", "seed", "style"} or None to remove it}."""
        for username, values in accounts.items():
            if values is None:
                self.data.pop(username, None)
            elif username in self.data:
                self.data[username].change(**values)
            else:
                self.data[username] = Account(username, **values)

    def find(self, username):
        if username not in self.data:
            raise ValueError(f"no account {username!r}")
        return self.data[username]
