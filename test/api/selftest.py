#!/usr/bin/python3
"""Tests the stand-in itself, as far as a fault of it would leave another test without effect.
Prints TAP."""
import base64
import contextlib
import http.client
import json
import os
import subprocess
import sys
import tempfile
import time
import traceback
import zlib

import changes

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

    def connect(self, port="http"):
        return http.client.HTTPConnection("127.0.0.1", self.ready["ports"][port], TIMEOUT_S)

    def order(self, path, **what):
        connection = self.connect("control")
        connection.request("POST" if what else "GET", f"/{path}", json.dumps(what) if what else None)
        answer = connection.getresponse()
        body = json.loads(answer.read())
        assert answer.status == 200, body
        return body

    def fault(self, action, times=None, **match):
        self.order("faults", rules=[{"match": match, "times": times, "action": action}])

    def ask(self, query="", user="acme:s3cret", headers={}):
        connection = self.connect()
        given = {"Authorization": "Basic " + base64.b64encode(user.encode()).decode()} if user else {}
        connection.request("GET", f"/programs/v1?{query or 'program_status=ALL'}",
                           headers={**given, **headers})
        return connection

    def get(self, *arguments, **keywords):
        answer = self.ask(*arguments, **keywords).getresponse()
        answer.content = answer.read()
        return answer

    def page(self, *arguments):
        return json.loads(self.get(*arguments).content)

    def how_it_ends(self):
        try:
            self.get()
        except (http.client.HTTPException, OSError) as error:
            return type(error).__name__
        return "whole"

    def poll_counter(self, name, wanted):
        poll(lambda: self.order("counters")[name] == wanted, f"{name} = {wanted}")

    def programs(self):
        return self.order("programs", account="acme")

    def ids(self):
        return [program["program_id"] for program in self.programs()]


@case("pages: members, order, defaults, filters, sizes, credentials, errors")
def _(api):
    page = api.page("offset=40&limit=40&program_status=ALL")
    equal(list(page), ["program_status", "total", "offset", "limit", "payment_programs"])
    equal((page["total"], page["offset"], page["limit"]), (1913, 40, 40))
    equal(page["payment_programs"], api.programs()[40:80])
    equal(sum(api.page(f"program_status={status}")["total"]
              for status in ("PAST", "PAUSED", "CURRENT", "FUTURE")), 1913)
    for query in ("limit=41", "limit=x", "offset=-1", "program_status=all"):
        equal(api.get(query).status, 400)
    equal([api.get(user=user).status for user in (None, "acme:wrong", "nobody:s3cret")],
          [401, 403, 403])
    body = api.get(headers={"Accept-Encoding": "br, gzip"}).content
    equal(len(json.loads(zlib.decompress(body, 31))["payment_programs"]), 20)


@case("habits: smaller pages, other totals, what lies behind the end, echoes, a broken page")
def _(api):
    def behind(**settings):
        api.order("config", **settings)
        return api.get("offset=40&limit=8&program_status=ALL")

    api.order("config", accounts={"acme": {"count": 20}}, serve_at_most=7, total_offset=-2)
    page = api.page()
    equal((page["limit"], len(page["payment_programs"]), page["total"]), (7, 7, 18))
    api.order("config", serve_at_most=None)
    for beyond, start in (("last", 16), ("first", 0)):
        page = json.loads(behind(beyond=beyond).content)
        equal([program["program_id"] for program in page["payment_programs"]],
              api.ids()[start:start + 8])
    equal([behind(beyond=status).status for status in (400, 404, 503)], [400, 404, 503])
    equal(json.loads(behind(beyond="null").content)["payment_programs"], None)
    api.order("config", accounts={"acme": {"count": 100}}, broken_position=45, broken_status=503)
    equal([api.get(f"offset={offset}&limit=20&program_status=ALL").status
           for offset in (25, 26, 45, 46)], [200, 503, 503, 200])


@case("mutate reports what differs between the listings")
def _(api):
    before = {program["program_id"]: program for program in api.programs()}
    told = api.order("mutate", seed=3, remove=5, add=5, alter=46, respell=4)
    after = {program["program_id"]: program for program in api.programs()}
    equal(set(told["removed"]), before.keys() - after.keys())
    equal(set(told["added"]), after.keys() - before.keys())
    equal(told["altered"], {key: changes.changed_columns(before[key], after[key])
                            for key in before.keys() & after.keys()
                            if before[key] != after[key]})
    equal((len(told["altered"]), len(told["respelled"])), (46, 4))


@case("faults: which requests, and how often")
def _(api):
    def statuses(match, times, *queries):
        api.fault({"respond": {"status": 500}}, times, **match)
        return [api.get(query).status for query in queries]

    equal(statuses({"offset": 20}, 1, "offset=0", "offset=20", "offset=20"), [200, 500, 200])
    equal(statuses({"nth": 2, "offset": 0}, None, "", "offset=20", "", ""), [200, 200, 500, 200])
    equal(statuses({"from_offset": 20}, None, "", "offset=40"), [200, 500])
    equal(statuses({"account": "other"}, None, ""), [200])
    equal(api.order("faults"), {"used": [0], "requests": 1})
    equal(set(statuses({"probability": 0.5}, None, *[""] * 30)), {200, 500})


@case("faults: what is answered, and how it is sent")
def _(api):
    for action, end in (("close", "RemoteDisconnected"), ({"close": {"at": 10}}, "IncompleteRead"),
                        ("chunked_cut", "IncompleteRead"), ("reset", "ConnectionResetError"),
                        ({"reset": {"at": 10}}, "ConnectionResetError"),
                        ("endless_headers", "HTTPException"), ({"raw": {"text": "nonsense\r\n\r\n"}}, "BadStatusLine")):
        api.fault(action)
        equal((action, api.how_it_ends()), (action, end))
    api.fault({"replace": {"json": {"total": -1}, "remove": ["limit"], "suffix": "x",
                           "text": {"payment_programs.2.program_metrics.budget": "00"}}})
    body = api.get().content
    assert body.startswith(b'{"program_status":"ALL","total":-1,"offset":0,"payment_programs"')
    assert body.endswith(b"}x") and b'"budget":00' in body
    api.fault({"pad": {"bytes": 5_000_000, "encoding": "gzip"}})
    equal(len(zlib.decompress(api.get().content, 31)), 5_000_000)
    for action in ({"delay_ms": 60}, {"drip": {"at": 0, "every_ms": 0}}):
        api.fault(action)
        equal(len(api.page()["payment_programs"]), 20)


@case("held requests and stalled answers; counters: in flight, waves, statuses, bytes")
def _(api):
    api.get()
    api.fault({"hold": True})
    held = [api.ask(f"offset={20 * n}&program_status=ALL") for n in range(5)]
    api.poll_counter("held", 5)
    counters = api.order("counters")
    equal((counters["in_flight"], counters["max_in_flight"], counters["waves"]), (5, 5, 2))
    held.pop().close()
    api.poll_counter("in_flight", 4)
    equal(api.order("release", count=4)["released"], 4)
    equal([connection.getresponse().status for connection in held], [200] * 4)
    api.fault("stall")
    stalled = api.ask()
    api.poll_counter("held", 1)
    api.order("release", count=1)
    equal(len(json.loads(stalled.getresponse().read())["payment_programs"]), 20)
    counters = api.order("counters")
    equal(counters["by_status"], {"200": 5, "gone": 1, "stall": 1})
    equal(counters["bytes"], sum(entry["bytes"] for entry in api.order("log")))
    equal(api.order("disconnect", how="close")["connections"] > 0, True)


@case("limiters: rate, requests at a time, connections; each kind of refusal")
def _(api):
    for refusal in (429, 403, 503, "reset"):
        api.order("limiter", token_bucket={"rate": 0.001, "refusal": refusal})
        equal(api.get().status, 200)
        equal(api.how_it_ends() if refusal == "reset" else api.get().status,
              "ConnectionResetError" if refusal == "reset" else refusal)
    for form in ("seconds", "date", "none"):
        api.order("limiter", token_bucket={"rate": 0.5, "burst": 1, "retry_after": form})
        told = [api.get() for _ in range(2)][1].headers.get("Retry-After")
        assert {"seconds": told == "2", "none": told is None,
                "date": told is not None and told.endswith(" GMT")}[form], told
    api.order("limiter", in_flight={"limit": 1})
    api.fault({"hold": True}, times=1)
    held = api.ask()
    api.poll_counter("held", 1)
    equal(api.get().status, 429)
    api.order("release", count=1)
    equal(held.getresponse().status, 200)


@case("drift: after, every and at_offset; remove, add and move")
def _(api):
    api.order("config", accounts={"acme": {"count": 6}})
    before = api.ids()
    api.order("drift", steps=[{"after": 1, "remove": [0], "add": [-1]},
                              {"at_offset": 4, "move": [[0, -1]]}])
    pages = [[program["program_id"] for program in
              api.page(f"offset={offset}&limit=2&program_status=ALL")["payment_programs"]]
             for offset in (0, 2, 4)]
    done = api.order("drift")["done"]
    equal(pages, [before[0:2], before[3:5], [done[0]["added"][0], before[1]]])
    equal((done[0]["removed"], done[1]["moved"]), ([before[0]], [before[1]]))
    api.order("drift", steps=[{"every": 2, "add": [0], "account": "acme"}])
    equal([api.page()["total"] for _ in range(5)], [6, 6, 7, 7, 8])


@case("a wrong order is refused")
def _(api):
    for path, order in (("config", {"latencyms": 5}), ("faults", {"rules": [{"action": "explode"}]}),
                        ("faults", {"rules": [{"match": {"ofset": 1}, "action": "close"}]}),
                        ("drift", {"steps": [{"add": [0]}]}), ("reset", {"what": ["x"]}),
                        ("limiter", {"token_bucket": {"rate": 0}})):
        refused = False
        with contextlib.suppress(AssertionError):
            refused = True
            api.order(path, **order)
            refused = False
        equal((path, refused), (path, True))


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
