"""The requests that were received: the counters and the log that tests read."""
import collections
import time

MAX_LOGGED = 100_000


class Traffic:
    def __init__(self):
        self.open = 0               # TCP connections
        self.in_flight = 0          # requests
        self.reset()

    def reset(self):
        """Counts start anew; requests in flight are not counted when they end."""
        self.since = time.monotonic()
        self.accepted = self.failed_handshakes = self.tls_resumed = 0
        self.requests = 0
        self.bytes = 0
        self.max_in_flight = self.in_flight
        self.by_status = collections.Counter()
        self.log = []
        self.chain = 0              # see waves()
        self.chain_end = self.since
        self.last_start = float("-inf")

    def begin(self, **what):
        self.requests += 1
        self.in_flight += 1
        self.max_in_flight = max(self.max_in_flight, self.in_flight)
        self.last_start = time.monotonic()
        entry = {**what, "status": None, "bytes": 0, "t_start": self.last_start, "t_end": None}
        if len(self.log) < MAX_LOGGED:
            self.log.append(entry)
        return entry

    def end(self, entry):
        """To be called before the answer's last byte goes out, so that waves() is exact."""
        self.in_flight -= 1
        entry["t_end"] = time.monotonic()
        if entry["t_start"] < self.since:
            return
        self.by_status[str(entry["status"])] += 1
        self.bytes += entry["bytes"]
        if entry["t_start"] >= self.chain_end:
            self.chain += 1
            self.chain_end = entry["t_end"]

    def waves(self):
        """The longest chain of requests of which each began after the one before had ended:
        the round trips that the client took, where the API has a latency; without one, requests
        are answered one by one, and each is a link.  Requests end in the order of end(), so taking
        each one that began late enough gives the longest chain; one that is still running may
        be its last link."""
        return self.chain + (self.last_start >= self.chain_end)

    def counters(self):
        return {"requests": self.requests, "in_flight": self.in_flight,
                "max_in_flight": self.max_in_flight,
                "connections": self.accepted, "open_connections": self.open,
                "failed_handshakes": self.failed_handshakes, "tls_resumed": self.tls_resumed,
                "by_status": self.by_status, "bytes": self.bytes, "waves": self.waves()}
