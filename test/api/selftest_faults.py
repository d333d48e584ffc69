"""Of selftest.py: each fault at least once."""
import errno
import socket
import time
import zlib

from selftest_tools import Response, case, equal, fault, received, request


# Faults: which requests

@case("match: offset, page, nth, request, from_offset, account, times")
def _(api):
    bad = {"respond": {"status": 500}}

    def statuses(match, times, *queries):
        fault(api, bad, times, **match)
        return [api.get(query).status for query in queries]

    equal(statuses({"offset": 20}, 1, "offset=0", "offset=20", "offset=20"), [200, 500, 200])
    equal(statuses({"page": [1, 2]}, None, "limit=5", "limit=5&offset=10"), [200, 500])
    equal(statuses({"nth": 2, "offset": 0}, None, "", "offset=20", "", ""), [200, 200, 500, 200])
    equal(statuses({"request": [1, 3]}, None, "", "", ""), [500, 200, 500])
    equal(statuses({"from_offset": 20}, None, "", "offset=40"), [200, 500])
    equal(statuses({"account": "other"}, None, ""), [200])
    equal(api.read("faults"), {"used": [0], "requests": 1})
    first = statuses({"probability": 0.5}, None, *[""] * 30)
    equal((first, set(first)), (statuses({"probability": 0.5}, None, *[""] * 30), {200, 500}))


# Faults: what is answered

@case("respond: status, reason, headers and any body")
def _(api):
    fault(api, {"respond": {"status": 302, "headers": {"Location": "http://localhost/"}}})
    answer = api.get()
    equal((answer.status, answer.headers["location"], answer.body),
          (302, "http://localhost/", b""))
    fault(api, {"respond": {"headers": {"Content-Type": "text/html"}, "body": "<html>ü"}})
    equal(api.get(headers=["Accept-Encoding: gzip"]).body, "<html>ü".encode())
    fault(api, {"respond": {"base64": "/wA=", "headers": {"Content-Encoding": "gzip"}}})
    equal(api.get().body, b"\xff\0")
    fault(api, {"respond": {"status": 429, "headers": {"Retry-After": "soon"}, "json": None}})
    answer = api.get()
    equal((answer.headers["retry-after"], answer.body), ("soon", b"null"))
    fault(api, {"respond": {"body": "[" * 200_000}})
    equal(len(api.get().body), 200_000)


@case("replace: members of the page and of its programs")
def _(api):
    fault(api, {"replace": {
        "json": {"total": -1, "payment_programs.0.program_id": None},
        "text": {"offset": "1e999", "payment_programs.1": "7",
                 "payment_programs.2.program_metrics.budget": "00"},
        "base64": {"payment_programs.3.program_id": "Iv8i"},
        "remove": ["limit", "payment_programs.4.program_id"],
        "prefix": " ", "suffix": "x"}})
    body = api.get().body
    assert body.startswith(b' {"program_status":"ALL","total":-1,"offset":1e999,"payment_pr')
    assert body.endswith(b"}x") and b'[{"program_id":null,' in body
    assert b'},7,{' in body and b'"budget":00' in body and b'"program_id":"\xff"' in body
    equal(body.count(b'"program_id":'), 18)
    fault(api, {"replace": {"json": {"payment_programs": {}}}})
    equal(api.get().programs(), {})


@case("delay_ms, and hold before any other action")
def _(api):
    fault(api, {"delay_ms": 60})
    start = time.monotonic()
    api.get()
    assert time.monotonic() - start > 0.055
    fault(api, {"hold": True, "reset": {}})
    with api.ask() as connection:
        api.poll_counter("held", 1)
        api.order("release")
        equal(Response(connection).end, "reset")


# Faults: how it is sent

@case("close: before the answer, and in the body")
def _(api):
    fault(api, "close")
    answer = api.get()
    equal((answer.status, answer.end), (None, "closed"))
    fault(api, {"close": {"at": 10}})
    answer = api.get()
    equal((answer.status, answer.end, len(answer.body)), (200, "closed", 10))
    equal(api.counter("by_status"), {"close": 2})


@case("chunked_cut")
def _(api):
    fault(api, "chunked_cut")
    answer = api.get()
    equal((answer.end, answer.headers["transfer-encoding"]), ("closed", "chunked"))
    assert len(answer.body) > 1000


@case("reset: before the answer, and in the body; over TLS as well")
def _(api):
    fault(api, "reset")
    equal((api.get().status, api.get().end), (None, "reset"))
    fault(api, {"reset": {"at": None}})
    answer = api.get()
    equal((answer.status, answer.end), (200, "reset"))
    with api.connect("https", api.tls()) as connection:
        connection.sendall(request())
        # Asked of the socket itself: Python reports a reset below TLS as an end
        api.poll_counter("open_connections", 0)
        equal(connection.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR), errno.ECONNRESET)


@case("stall: in the body, until released or given up")
def _(api):
    fault(api, "stall")
    with api.ask() as connection, api.ask() as given_up:
        api.poll_counter("held", 2)
        assert b"\r\n\r\n{" in received(given_up)
        given_up.close()
        api.poll_counter("held", 1)
        api.order("release")
        equal(len(Response(connection).programs()), 20)
    api.poll_counter("in_flight", 0)


@case("drip: byte by byte")
def _(api):
    api.order("programs", texts=[])
    length = len(api.get().body)
    fault(api, {"drip": {"every_ms": 50}})
    with api.ask() as connection:
        assert received(connection).endswith(b"\r\n\r\n")
        assert len(received(connection)) < length / 2
    fault(api, {"drip": {"every_ms": 0, "headers": True}})
    equal(api.get().programs(), [])


@case("endless headers, given up by the client")
def _(api):
    fault(api, "endless_headers")
    with api.ask() as connection:
        total = 0
        while total < 1 << 22:
            total += len(received(connection))
    api.poll_counter("in_flight", 0)


@case("pad: a large body, and a gzip bomb")
def _(api):
    fault(api, {"pad": {"bytes": 2_000_000}})
    answer = api.get()
    equal((len(answer.body), len(answer.programs())), (2_000_000, 20))
    fault(api, {"pad": {"bytes": 50_000_000, "encoding": "gzip"}})
    answer = api.get()
    assert len(answer.body) < 100_000
    equal(len(zlib.decompress(answer.body, 31)), 50_000_000)


@case("raw: any bytes at all")
def _(api):
    fault(api, {"raw": {"text": "HTTP/1.1 299\r\nContent-Length: 1\r\n\r\nx"}})
    answer = api.get()
    equal((answer.status, answer.body), (299, b"x"))
    fault(api, {"raw": {"base64": "AAE="}})
    equal(api.get().rest, b"\0\1")
