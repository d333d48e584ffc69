#!/usr/bin/python3
"""Tests the stand-in where a bug in it would leave another test without effect.  Prints TAP."""
import base64
import http.client
import json
import os
import subprocess
import sys
import tempfile
import time

TIMEOUT_S = 20
SERVER = os.path.join(os.path.dirname(os.path.abspath(__file__)), "server.py")
AUTHORIZATION = "Basic " + base64.b64encode(b"acme:s3cret").decode()


def start(directory):
    """The process, and its ports by name."""
    ready = os.path.join(directory, "ready")
    process = subprocess.Popen([sys.executable, SERVER, "--ready-file", ready, "--certs", directory])
    deadline = time.monotonic() + TIMEOUT_S
    while not os.path.exists(ready):
        if process.poll() is not None or time.monotonic() > deadline:
            sys.exit("the server does not start")
        time.sleep(0.005)
    with open(ready) as file:
        return process, json.load(file)["ports"]


def ask(port, method, path, body=None, headers={}):
    """The status, and the answer."""
    connection = http.client.HTTPConnection("127.0.0.1", port, TIMEOUT_S)
    connection.request(method, path, body, headers)
    answer = connection.getresponse()
    content = answer.read()
    connection.close()
    return answer.status, json.loads(content)


def tests(ports):
    """(what, what is got, what is wanted) of each test."""
    def order(path, **what):
        return ask(ports["control"], "POST", f"/{path}", json.dumps(what))

    def get(offset, limit):
        return ask(ports["http"], "GET", f"/programs/v1?offset={offset}&limit={limit}"
                   "&program_status=ALL", headers={"Authorization": AUTHORIZATION})

    order("config", accounts={"acme": {"count": 20}}, serve_at_most=7, total_offset=-2)
    page = get(0, 20)[1]
    yield ("smaller pages, another total",
           (page["limit"], len(page["payment_programs"]), page["total"]), (7, 7, 18))
    order("config", serve_at_most=None)
    programs = order("programs", account="acme")[1]
    for beyond, found in (("last", programs[16:]), ("first", programs[:8]), ("null", None)):
        order("config", beyond=beyond)
        yield f"{beyond} past the end", get(40, 8)[1]["payment_programs"], found
    for status in (400, 404, 503):
        order("config", beyond=status)
        yield f"{status} past the end", get(40, 8)[0], status
    order("config", accounts={"acme": {"count": 100}}, broken_position=45, broken_status=503)
    yield ("a broken page", [get(offset, 20)[0] for offset in (25, 26, 45, 46)],
           [200, 503, 503, 200])
    for path, what in (("config", {"latencyms": 5}), ("faults", {"rules": [{"action": "explode"}]}),
                       ("faults", {"rules": [{"match": {"ofset": 1}, "action": "close"}]}),
                       ("drift", {"steps": [{"add": [0]}]}), ("reset", {"what": ["x"]}),
                       ("limiter", {"token_bucket": {"rate": 0}})):
        yield f"a wrong order is refused: {path} {what}", order(path, **what)[0], 400


def main():
    with tempfile.TemporaryDirectory() as directory:
        process, ports = start(directory)
        failed = number = 0
        for number, (what, got, wanted) in enumerate(tests(ports), 1):
            print(f"{'ok' if got == wanted else 'not ok'} {number} - {what}", flush=True)
            if got != wanted:
                failed += 1
                print(f"# got {got!r}, wanted {wanted!r}")
        print(f"1..{number}")
        process.terminate()
        process.wait()
    sys.exit(failed > 0)


main()
