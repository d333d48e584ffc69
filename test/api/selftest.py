#!/usr/bin/python3
"""Tests the stand-in itself, where a bug in it would leave another test without effect.  Prints TAP."""
import base64
import http.client
import json
import os
import subprocess
import sys
import tempfile
import time
import traceback
import zlib

TIMEOUT_S = 20
SERVER = os.path.join(os.path.dirname(os.path.abspath(__file__)), "server.py")
CASES = []


def case(title):
    def register(function):
        CASES.append((title, function))
        return function
    return register


def equal(got, wanted):
    assert got == wanted, f"got {got!r}, wanted {wanted!r}"


def poll(condition, what):
    deadline = time.monotonic() + TIMEOUT_S
    while not condition():
        assert time.monotonic() < deadline, f"timed out waiting for {what}"
        time.sleep(0.005)


class Server:
    def __init__(self):
        self.directory = tempfile.TemporaryDirectory()
        self.process, self.ready = self.start()

    def start(self, *arguments):
        ready = os.path.join(self.directory.name, f"ready{len(arguments)}")
        process = subprocess.Popen([sys.executable, SERVER, "--ready-file", ready, "--certs",
                                    os.path.join(self.directory.name, "certs"), *arguments])
        poll(lambda: os.path.exists(ready) or process.poll() is not None, "the server")
        with open(ready) as file:
            return process, json.load(file)

    def send(self, port, method, path, body=None, headers={}):
        connection = http.client.HTTPConnection("127.0.0.1", self.ready["ports"][port], TIMEOUT_S)
        connection.request(method, path, body, headers)
        return connection

    def order(self, path, **what):
        answer = self.send("control", "POST" if what else "GET", f"/{path}",
                           json.dumps(what) if what else None).getresponse()
        body = json.loads(answer.read())
        assert answer.status == 200, body
        return body

    def ask(self, query="program_status=ALL", user="acme:s3cret", headers={}):
        given = {"Authorization": "Basic " + base64.b64encode(user.encode()).decode()} if user else {}
        return self.send("http", "GET", f"/programs/v1?{query}", headers={**given, **headers})

    def get(self, *arguments, **keywords):
        answer = self.ask(*arguments, **keywords).getresponse()
        answer.content = answer.read()
        return answer

    def page(self, *arguments):
        return json.loads(self.get(*arguments).content)

    def poll_counter(self, name, wanted):
        poll(lambda: self.order("counters")[name] == wanted, f"{name} = {wanted}")


@case("pages: members, order, filters, sizes, credentials, errors")
def _(api):
    page = api.page("offset=40&limit=40&program_status=ALL")
    equal(list(page), ["program_status", "total", "offset", "limit", "payment_programs"])
    equal((page["total"], page["offset"], page["limit"]), (1913, 40, 40))
    equal(page["payment_programs"], api.order("programs", account="acme")[40:80])
    equal(sum(api.page(f"program_status={status}")["total"]
              for status in ("PAST", "PAUSED", "CURRENT", "FUTURE")), 1913)
    for query in ("limit=41", "limit=x", "offset=-1", "program_status=all"):
        equal(api.get(query).status, 400)
    equal([api.get(user=user).status for user in (None, "acme:wrong", "nobody:s3cret")],
          [401, 403, 403])
    body = api.get(headers={"Accept-Encoding": "br, gzip"}).content
    equal(len(json.loads(zlib.decompress(body, 31))["payment_programs"]), 20)


@case("habits: smaller pages, other totals, what lies past the end, a broken page")
def _(api):
    def past_end(**settings):
        api.order("config", **settings)
        return api.get("offset=40&limit=8&program_status=ALL")

    api.order("config", accounts={"acme": {"count": 20}}, serve_at_most=7, total_offset=-2)
    page = api.page()
    equal((page["limit"], len(page["payment_programs"]), page["total"]), (7, 7, 18))
    api.order("config", serve_at_most=None)
    programs = api.order("programs", account="acme")
    for beyond, start in (("last", 16), ("first", 0)):
        equal(json.loads(past_end(beyond=beyond).content)["payment_programs"], programs[start:start + 8])
    equal([past_end(beyond=status).status for status in (400, 404, 503)], [400, 404, 503])
    equal(json.loads(past_end(beyond="null").content)["payment_programs"], None)
    api.order("config", accounts={"acme": {"count": 100}}, broken_position=45, broken_status=503)
    equal([api.get(f"offset={offset}&limit=20&program_status=ALL").status
           for offset in (25, 26, 45, 46)], [200, 503, 503, 200])


@case("held requests; counters: in flight, waves, statuses, bytes")
def _(api):
    api.get()
    api.order("faults", rules=[{"action": {"hold": True}}])
    held = [api.ask(f"offset={20 * n}&program_status=ALL") for n in range(5)]
    api.poll_counter("held", 5)
    counters = api.order("counters")
    equal((counters["in_flight"], counters["max_in_flight"], counters["waves"]), (5, 5, 2))
    held.pop().close()
    api.poll_counter("in_flight", 4)
    equal(api.order("release", count=4)["released"], 4)
    equal([connection.getresponse().status for connection in held], [200] * 4)
    counters = api.order("counters")
    equal(counters["by_status"], {"200": 5, "gone": 1})
    equal(counters["bytes"], sum(entry["bytes"] for entry in api.order("log")))


@case("a wrong order is refused")
def _(api):
    for path, order in (("config", {"latencyms": 5}), ("faults", {"rules": [{"action": "explode"}]}),
                        ("faults", {"rules": [{"match": {"ofset": 1}, "action": "close"}]}),
                        ("drift", {"steps": [{"add": [0]}]}), ("reset", {"what": ["x"]}),
                        ("limiter", {"token_bucket": {"rate": 0}})):
        equal(api.send("control", "POST", f"/{path}", json.dumps(order)).getresponse().status, 400)


@case("the server ends after its time")
def _(api):
    timed, _ = api.start("--max-seconds", "0.01")
    equal(timed.wait(timeout=60), 0)


def run(api, number, title, function):
    api.order("reset", what=[])
    try:
        function(api)
    except Exception:
        print(f"not ok {number} - {title}", flush=True)
        print("".join(f"# {line}\n" for line in traceback.format_exc().splitlines()), end="")
        return False
    print(f"ok {number} - {title}", flush=True)
    return True


def main():
    print(f"1..{len(CASES)}")
    api = Server()
    try:
        passed = [run(api, number, *what) for number, what in enumerate(CASES, 1)]
    finally:
        api.process.terminate()
        api.process.wait()
    sys.exit(not all(passed))


main()
