"""Which http_version is right for which API: 96 pages of 20, for a new session and a warm one."""
import asyncio
import statistics
import time
import urllib.parse

from contenders import YelpSync
from plan import Cell
from web import NARROW_STREAMS

ROUNDS = 3
ROUND_TRIP = 0.2                # seconds, to the server that is far away
RATE = 1_000_000                # bytes a second and connection, where that is limited
LISTINGS = {1913: ({20}, {"a"})}

PROTOCOLS = ("https 1.1", "https 2")


class Proxy:
    """On loopback, it makes what is behind it far away, or slow by the connection.

    What a client sends first comes a whole round trip later still: the client's connection is
    open at once, where over a network the handshake of TCP would have taken that long.
    """

    def __init__(self, port, round_trip=0, rate=None):
        self.port, self.round_trip, self.rate = port, round_trip, rate

    async def __aenter__(self):
        self.server = await asyncio.start_server(self.connected, "127.0.0.1", 0)
        return self.server.sockets[0].getsockname()[1]

    async def __aexit__(self, *_):
        self.server.close()
        await self.server.wait_closed()

    async def connected(self, reader, writer):
        await asyncio.sleep(self.round_trip)
        behind_reader, behind_writer = await asyncio.open_connection("127.0.0.1", self.port)
        await asyncio.gather(self.carry(reader, behind_writer),
                             self.carry(behind_reader, writer))

    async def carry(self, reader, writer):
        loop = asyncio.get_running_loop()
        while data := await reader.read(16384):
            loop.call_later(self.round_trip / 2, writer.write, data)
            if self.rate:
                await asyncio.sleep(len(data) / self.rate)
        loop.call_later(self.round_trip / 2, writer.close)


def with_port(url, port):
    return urllib.parse.urlsplit(url)._replace(netloc=f"127.0.0.1:{port}").geturl()


async def time_syncs(bench, latency, protocol, port):
    """Medians in seconds: the first sync of a new session, and the next one."""
    contender = YelpSync(bench, Cell(1913, latency, protocol), 20)
    contender.url = with_port(contender.url, port)
    await contender.start()
    cold, warm = [], []
    await contender.sync()
    for _ in range(ROUNDS):
        await contender.reconnect()
        for times in (cold, warm):
            began = time.perf_counter()
            await contender.sync()
            times.append(time.perf_counter() - began)
    await contender.stop()
    return statistics.median(cold), statistics.median(warm)


async def experiment(bench):
    """(API, http_version, new session, warm session) of each."""
    ports = bench.web.ports
    rows = []
    async with (Proxy(ports["https"], round_trip=ROUND_TRIP) as far,
                Proxy(ports["https"], rate=RATE) as limited):
        for api, latency, port in (
                ("slow: 500 ms a request", 500, ports["https"]),
                (f"slow, {NARROW_STREAMS} streams a connection", 500, ports["narrow"]),
                ("slow, 1 MB/s a connection", 500, limited),
                ("fast", 0, ports["https"]),
                ("fast, 200 ms a round trip", 0, far)):
            for protocol in PROTOCOLS:
                times = await time_syncs(bench, latency, protocol, port)
                rows.append((api, protocol.split()[1], *times))
    return rows
