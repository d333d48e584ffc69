"""Of selftest.py: the orders to the control port, and the server's process."""
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys

import changes

from selftest_tools import PROGRAM, Response, case, equal, fault, poll


@case("mutate: what it tells is what differs between the listings")
def _(api):
    before = {program["program_id"]: program for program in api.order("programs")}
    told = api.order("mutate", seed=3, remove=5, add=5, alter=46, respell=4)
    after = {program["program_id"]: program for program in api.order("programs")}
    equal(set(told["removed"]), before.keys() - after.keys())
    equal(set(told["added"]), after.keys() - before.keys())
    equal(told["altered"], {key: changes.changed_columns(before[key], after[key])
                            for key in before.keys() & after.keys()
                            if before[key] != after[key]})
    equal((len(told["altered"]), len(told["respelled"])), (46, 4))
    told = api.order("mutate", edit=[[0, {"program_metrics.budget": 1}], [1, {"x.y": None}]])
    equal(sorted(told["altered"].values()), [["budget"], ["data"]])


@case("programs: texts are served as they are set")
def _(api):
    equal(api.order("programs", texts=["17", '{"a":"é"}'])["total"], 2)
    assert '"payment_programs":[17,{"a":"é"}]'.encode() in api.get().body


@case("reset: in parts, and of all")
def _(api):
    api.order("config", latency_ms=1, accounts={"acme": {"count": 1}, "b": {}})
    fault(api, "close")
    api.order("reset", what=["faults", "accounts"])
    equal(api.get().json()["total"], 1913)
    equal((api.counter("requests"), api.read("config")["latency_ms"]), (1, 1))
    api.order("reset")
    equal((api.counter("requests"), api.read("config")["latency_ms"]), (0, 0))


@case("orders that cannot be carried out are refused")
def _(api):
    for path, order in (("config", {"latencyms": 5}), ("config", {"over_limit": "x"}),
                        ("faults", {"rules": [{"action": "explode"}]}),
                        ("faults", {"rules": [{"action": {"close": {}, "reset": {}}}]}),
                        ("faults", {"rules": [{"match": {"ofset": 1}, "action": "close"}]}),
                        ("drift", {"steps": [{"add": [0]}]}), ("reset", {"what": ["x"]}),
                        ("limiter", {"token_bucket": {"rate": 0}}),
                        ("programs", {"account": "nobody"})):
        try:
            api.order(path, **order)
        except AssertionError as error:
            assert "error" in str(error)
        else:
            raise AssertionError(f"{path} took {order}")


@case("token bucket: seconds, date and no Retry-After; in-flight limit")
def _(api):
    for form in ("seconds", "date", "none"):
        api.order("limiter", token_bucket={"rate": 0.5, "burst": 2, "retry_after": form})
        answers = [api.get() for _ in range(3)]
        equal([answer.status for answer in answers], [200, 200, 429])
        told = answers[2].headers.get("retry-after")
        assert {"seconds": told == "2", "none": told is None,
                "date": told is not None and told.endswith(" GMT")}[form], told
    api.order("limiter", in_flight={"limit": 1})
    fault(api, {"hold": True}, times=1)
    with api.ask() as held:
        api.poll_counter("held", 1)
        equal(api.get().status, 429)
        api.order("release")
        equal(Response(held).status, 200)
    equal(api.get().status, 200)


@case("limiters that refuse with another status, or with a reset; more connections than allowed")
def _(api):
    for refusal in (403, 503, "reset"):
        api.order("limiter", token_bucket={"rate": 0.001, "refusal": refusal})
        equal(api.get().status, 200)
        with contextlib.suppress(ConnectionResetError):
            equal(api.get().status, None if refusal == "reset" else refusal)
    api.order("limiter")
    api.order("config", max_connections=1)
    fault(api, {"hold": True}, times=1)
    with api.ask() as held:
        api.poll_counter("held", 1)
        with contextlib.suppress(ConnectionResetError):     # while it connects, or later
            equal(api.get().status, None)
        equal(api.read("counters")["turned_away"], 1)
        api.order("release")
        equal(Response(held).status, 200)


# Drift

@case("drift: after, every and at_offset; remove, add and move")
def _(api):
    api.order("config", accounts={"acme": {"count": 6}})
    before = api.ids()
    api.order("drift", steps=[{"after": 1, "remove": [0], "add": [-1]},
                              {"at_offset": 4, "move": [[0, -1]]}])
    pages = [api.get(f"offset={offset}&limit=2&program_status=ALL").ids()
             for offset in (0, 2, 4, 4)]
    done = api.read("drift")["done"]
    added = done[0]["added"][0]
    equal(pages, [before[0:2], before[3:5], [added, before[1]], [added, before[1]]])
    equal((done[0]["removed"], done[1]["moved"]), ([before[0]], [before[1]]))
    api.order("drift", steps=[{"every": 2, "add": [0], "account": "acme"},
                              {"every": 1, "add": [0], "account": "other"}])
    equal([api.get().json()["total"] for _ in range(5)], [6, 6, 7, 7, 8])


# Ports that never answer

@case("swallow: connecting does not end; silent: not a word")
def _(api):
    with socket.socket() as connection:
        connection.setblocking(False)
        connection.connect_ex(("127.0.0.1", api.port("swallow")))
        if sys.platform == "linux":
            api.poll_counter("swallow_connecting", 1)
    with api.connect("silent") as connection:
        connection.sendall(b"hello")
        api.poll_counter("silent_received", 5)
        equal(api.counter("silent_open"), 1)
    api.poll_counter("silent_open", 0)


# The process

@case("a million programs: the last page")
def _(api):
    api.order("config", max_limit=100,
              accounts={"acme": {"count": 1_000_000, "style": "cheap"}})
    page = api.get("offset=999900&limit=100&program_status=ALL").json()
    equal((page["total"], len(page["payment_programs"])), (1_000_000, 100))


@case("the server ends with its parent, and after its time")
def _(api):
    directory = api.directory.name
    ready = os.path.join(directory, "orphan")
    command = [sys.executable, PROGRAM, "--certs", f"{directory}/orphan-certs",
               "--ready-file", ready]
    # The last command is there so that the shell does not become the server
    shell = subprocess.Popen(["sh", "-c", '"$@"; :', "sh", *command])
    pid = json.loads(poll(lambda: content(ready), "the server"))["pid"]
    shell.send_signal(signal.SIGKILL)
    shell.wait()
    poll(lambda: not alive(pid), "the orphan to end")
    timed = subprocess.Popen([*command, "--max-seconds", "0.01"])
    equal(timed.wait(timeout=60), 0)


def content(path):
    with contextlib.suppress(FileNotFoundError), open(path) as file:
        return file.read()


def alive(pid):
    """Whoever inherits an orphan may be slow to reap it: a zombie counts as ended."""
    state = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True)
    return state.stdout.strip()[:1] not in ("", "Z")
