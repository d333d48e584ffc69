"""The listeners, all on 127.0.0.1, and the connections that they accept."""
import asyncio
import itertools
import socket

from aiohttp import web, web_protocol

import deliver

ADDRESS = "127.0.0.1"
BACKLOG = 4096
KEEPALIVE_S = 75
NUMBERS = itertools.count(1)


class Connection(web_protocol.RequestHandler):
    __slots__ = ("number", "handling")


class ApiServer(web.Server):
    """aiohttp's server, with connections that are counted, and a request's handler that ends
    at once when its client is gone."""

    def __init__(self, api):
        super().__init__(self.handle, access_log=None)
        self.api = api

    def __call__(self):
        connection = Connection(self, loop=self._loop, access_log=None,
                                keepalive_timeout=KEEPALIVE_S)
        connection.number = next(NUMBERS)
        connection.handling = None
        return connection

    async def handle(self, request):
        connection = request.protocol
        if connection.transport is None:        # gone before its request was looked at
            return deliver.ConnectionOver()
        connection.handling = asyncio.current_task()
        try:
            return await self.api.handle(request)
        finally:
            connection.handling = None

    def connection_made(self, connection, transport):
        super().connection_made(connection, transport)
        tls = transport.get_extra_info("ssl_object")
        self.api.traffic.tls_resumed += tls is not None and tls.session_reused

    def connection_lost(self, connection, exc=None):
        super().connection_lost(connection, exc)
        self.api.traffic.open -= 1
        if connection.handling:
            connection.handling.cancel()

    def disconnect(self, how):
        """Close or reset the connections that wait for a request; returns how many."""
        idle = [c for c in self.connections
                if not c.handling and c.transport and not c.transport.is_closing()]
        for connection in idle:
            if how == "reset":
                deliver.reset_connection(connection.transport)
            else:
                connection.transport.close()
        return len(idle)


class Listener:
    """Accepts connections for a server; with `tls`, an SSLContext, over TLS.

    Accepting is done here, since asyncio's own servers neither tell of connections whose
    handshake fails nor can wait before the handshake.
    """

    def __init__(self, server, tls=None):
        self.socket = listening_socket()
        self.port = self.socket.getsockname()[1]
        self.server, self.tls = server, tls
        self.traffic, self.api = server.api.traffic, server.api
        self.tasks = set()

    async def run(self):
        loop = asyncio.get_running_loop()
        while True:
            connection, _ = await loop.sock_accept(self.socket)
            if self.is_full():
                deliver.reset_socket(connection)
                continue
            self.traffic.accepted += 1
            self.traffic.open += 1
            task = loop.create_task(self.begin(connection))
            self.tasks.add(task)
            task.add_done_callback(self.tasks.discard)

    def is_full(self):
        most = self.api.settings.max_connections
        return most is not None and self.traffic.open >= most

    async def begin(self, connection):
        if self.api.settings.connection_delay_ms:
            await asyncio.sleep(self.api.settings.connection_delay_ms / 1000)
        try:
            await asyncio.get_running_loop().connect_accepted_socket(
                self.server, connection, ssl=self.tls)
        except OSError:         # ssl.SSLError is one
            self.traffic.open -= 1
            self.traffic.failed_handshakes += 1


def listening_socket(backlog=BACKLOG):
    sock = socket.socket()
    sock.bind((ADDRESS, 0))
    sock.listen(backlog)
    sock.setblocking(False)
    return sock


class Swallow:
    """A port whose backlog is full: connecting to it never ends (on Linux, which drops what
    it has no room for)."""

    def __init__(self):
        self.socket = listening_socket(backlog=0)
        self.port = self.socket.getsockname()[1]
        self.fillers = [socket.socket() for _ in range(4)]
        for filler in self.fillers:
            filler.setblocking(False)
            filler.connect_ex((ADDRESS, self.port))

    def connecting(self):
        """How many other connections are being attempted."""
        remote, syn_sent = f"{self.port:04X}", "02"
        own = {f"{filler.getsockname()[1]:04X}" for filler in self.fillers}
        with open("/proc/net/tcp") as table:
            rows = [line.split()[1:4] for line in table][1:]
        return sum(state == syn_sent and to.endswith(f":{remote}") and origin[-4:] not in own
                   for origin, to, state in rows)


class Silence(asyncio.Protocol):
    """A port that accepts, reads and never sends anything."""

    open = 0

    def connection_made(self, transport):
        Silence.open += 1

    def connection_lost(self, exc):
        Silence.open -= 1
