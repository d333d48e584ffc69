"""Of selftest.py: its cases, the server as a process, orders to it, and a client that sees raw bytes."""
import base64
import json
import os
import socket
import ssl
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request

TIMEOUT_S = 10
PROGRAM = os.path.join(os.path.dirname(os.path.abspath(__file__)), "server.py")
CASES = []


def case(title):
    """Registers a function that is given the Server, which was reset before."""
    def register(function):
        CASES.append((title, function))
        return function
    return register


def equal(got, wanted):
    assert got == wanted, f"got {got!r}, wanted {wanted!r}"


def fault(api, action, times=None, **match):
    api.order("faults", rules=[{"match": match, "times": times, "action": action}])


def poll(condition, what):
    deadline = time.monotonic() + TIMEOUT_S
    while time.monotonic() < deadline:
        result = condition()
        if result:
            return result
        time.sleep(0.005)
    raise AssertionError(f"timed out waiting for {what}")


class Server:
    def __init__(self, *arguments):
        self.directory = tempfile.TemporaryDirectory()
        ready = os.path.join(self.directory.name, "ready")
        self.process = subprocess.Popen([
            sys.executable, PROGRAM, "--certs", os.path.join(self.directory.name, "certs"),
            "--ready-file", ready, *arguments])
        poll(lambda: os.path.exists(ready) or self.process.poll() is not None, "the server")
        with open(ready) as file:
            self.ready = json.load(file)

    def stop(self):
        self.process.terminate()
        self.process.wait()
        self.directory.cleanup()

    def port(self, name):
        return self.ready["ports"][name]

    def order(self, path, **what):
        return json.loads(self.order_raw(path, json.dumps(what).encode()))

    def read(self, path):
        return json.loads(self.order_raw(path, None))

    def order_raw(self, path, body):
        url = f"http://127.0.0.1:{self.port('control')}/{path}"
        try:
            with urllib.request.urlopen(url, body, timeout=TIMEOUT_S) as answer:
                return answer.read()
        except urllib.error.HTTPError as error:
            raise AssertionError(error.read().decode()) from error

    def counter(self, name):
        return self.read("counters")[name]

    def poll_counter(self, name, wanted):
        poll(lambda: self.counter(name) == wanted, f"{name} = {wanted}")

    def tls(self):
        return ssl.create_default_context(cafile=self.ready["ca_file"])

    def connect(self, port="http", tls=None):
        raw = socket.create_connection(("127.0.0.1", self.port(port)), timeout=TIMEOUT_S)
        return tls.wrap_socket(raw, server_hostname="localhost") if tls else raw

    def ask(self, *arguments, **keywords):
        """Send a request over a new connection; returns the connection."""
        connection = self.connect()
        connection.sendall(request(*arguments, **keywords))
        return connection

    def get(self, *arguments, **keywords):
        """One request and its answer."""
        with self.ask(*arguments, **keywords) as connection:
            return Response(connection)

    def ids(self, account="acme"):
        return ids(self.order("programs", account=account))


def request(query="program_status=ALL", user="acme:s3cret", path="/programs/v1", method="GET",
            headers=()):
    lines = [f"{method} {path}?{query} HTTP/1.1", "Host: localhost", *headers]
    if user is not None:
        lines.append("Authorization: Basic " + base64.b64encode(user.encode()).decode())
    return "\r\n".join(lines).encode() + b"\r\n\r\n"


class Response:
    """What came: `end` is "whole", "closed" (too early), or "reset"."""

    def __init__(self, connection):
        self.status, self.headers, self.body, self.rest = None, {}, b"", b""
        self.end = "whole"
        try:
            self.read(connection)
        except ConnectionResetError:
            self.end = "reset"
        except EOFError:
            self.end = "closed"

    def read(self, connection):
        while b"\r\n\r\n" not in self.rest:
            self.more(connection)
        head, _, self.body = self.rest.partition(b"\r\n\r\n")
        self.rest = b""
        first, *lines = head.decode().split("\r\n")
        self.status = int(first.split()[1])
        self.headers = {name.lower(): value for name, value
                        in (line.split(": ", 1) for line in lines)}
        if self.headers.get("transfer-encoding") == "chunked":
            self.read_chunks(connection)
        while len(self.body) < int(self.headers.get("content-length", 0)):
            self.body += received(connection)

    def more(self, connection):
        self.rest += received(connection)

    def read_chunks(self, connection):
        self.rest, self.body = self.body, b""
        size = None
        while size != 0:
            while b"\r\n" not in self.rest:
                self.more(connection)
            line, _, self.rest = self.rest.partition(b"\r\n")
            size = int(line, 16)
            while len(self.rest) < size + 2:
                self.more(connection)
            self.body += self.rest[:size]
            self.rest = self.rest[size + 2:]

    def json(self):
        return json.loads(self.body)

    def programs(self):
        return self.json()["payment_programs"]

    def ids(self):
        return ids(self.programs())


def received(connection):
    data = connection.recv(1 << 16)
    if not data:
        raise EOFError
    return data


def ids(programs):
    return [program["program_id"] for program in programs]
