"""Of selftest.py: the endpoint and the connections to it."""
import contextlib
import json
import socket
import ssl
import time
import zlib

from selftest_tools import Response, case, equal, fault, request


@case("a page: members, order, programs as the control port lists them")
def _(api):
    page = api.get("offset=40&limit=40&program_status=ALL").json()
    equal(list(page), ["program_status", "total", "offset", "limit", "payment_programs"])
    equal((page["total"], page["offset"], page["limit"]), (1913, 40, 40))
    equal(page["payment_programs"], api.order("programs")[40:80])
    equal(len(set(api.ids())), 1913)


@case("defaults: offset 0, limit 20, CURRENT; nothing beyond the end")
def _(api):
    page = api.get("").json()
    equal((page["program_status"], page["offset"], page["limit"]), ("CURRENT", 0, 20))
    found = {status: api.get(f"program_status={status}").json()["total"]
             for status in ("PAST", "PAUSED", "CURRENT", "FUTURE")}
    equal((sum(found.values()), min(found.values()) > 0), (1913, True))
    equal(api.get("offset=1913&program_status=ALL").programs(), [])


@case("parameters out of their range are answered with 400")
def _(api):
    for query in ("limit=0", "limit=41", "limit=x", "offset=-1", "offset=1.5",
                  "program_status=all"):
        answer = api.get(query)
        equal((answer.status, answer.json()["error"]["id"]), (400, "VALIDATION_ERROR"))
    api.order("config", over_limit="clamp")
    page = api.get("limit=100&program_status=ALL").json()
    equal((page["limit"], len(page["payment_programs"])), (40, 40))
    api.order("config", echo_limit="asked", max_limit=100)
    equal(len(api.get("limit=100&program_status=ALL").programs()), 100)


@case("credentials: none 401, wrong 403 or 401 as set, odd usernames right")
def _(api):
    odd = "0il7Tv&R$#6\\"
    api.order("config", accounts={odd: {"password": "p:ä", "count": 3}})
    equal(api.get(user=f"{odd}:p:ä").json()["total"], 3)
    equal(api.get(user=None).status, 401)
    answer = api.get(user="acme:wrong")
    equal((answer.status, answer.json()["error"]["id"]), (403, "ACCESS_DENIED"))
    equal(api.get(user="nobody:s3cret").status, 403)
    equal(api.get(headers=["Authorization: Basic !"], user=None).status, 403)
    api.order("config", denied_status=401)
    equal(api.get(user="acme:wrong").status, 401)
    assert "s3cret" not in json.dumps(api.read("log"))


@case("other paths 404, other methods 405")
def _(api):
    equal(api.get(path="/programs/v2").status, 404)
    equal(api.get(method="DELETE").status, 405)


@case("gzip and deflate where the client offers them and the server may")
def _(api):
    for offer, bits in (("gzip", 31), ("deflate", 15), ("br, deflate, gzip;q=1", 31)):
        answer = api.get(headers=[f"Accept-Encoding: {offer}"])
        equal(len(json.loads(zlib.decompress(answer.body, bits))["payment_programs"]), 20)
    equal("content-encoding" in api.get().headers, False)
    api.order("config", encodings=[])
    equal("content-encoding" in api.get(headers=["Accept-Encoding: gzip"]).headers, False)


@case("settings of the page: smaller, longer, without members, total that is off")
def _(api):
    api.order("config", serve_at_most=7, serve_from_offset=20)
    equal(len(api.get("offset=0&program_status=ALL").programs()), 20)
    page = api.get("offset=20&program_status=ALL").json()
    equal((page["limit"], len(page["payment_programs"])), (7, 7))
    api.order("config", serve_at_most=None, serve_extra=3, omit=["limit", "offset"],
              total_offset=-2)
    page = api.get("offset=20&program_status=ALL").json()
    equal((list(page), page["total"]), (["program_status", "total", "payment_programs"], 1911))
    equal(len(page["payment_programs"]), 23)


@case("behind the last program: nothing, null, a page once more, or a status")
def _(api):
    def behind(offset=20, **settings):
        api.order("config", **settings)
        return api.get(f"offset={offset}&limit=8&program_status=ALL")

    api.order("config", accounts={"acme": {"count": 20}})
    ids = api.ids()
    equal(behind().programs(), [])
    equal(behind(beyond="null").json()["payment_programs"], None)
    for beyond, start in (("last", 16), ("first", 0)):
        page = behind(offset=40, beyond=beyond, echo_offset="served").json()
        equal(page["offset"], start)
        equal([program["program_id"] for program in page["payment_programs"]],
              ids[start:start + 8])
    for status in (400, 404, 416, 422, 500, 503):
        equal(behind(beyond=status).status, status)
    equal(len(behind(offset=19).programs()), 1)
    api.order("config", accounts={"acme": {"count": 0}})
    for beyond, programs in (("last", []), ("null", None), (404, [])):
        equal(behind(offset=0, beyond=beyond).json()["payment_programs"], programs)


@case("echoes: the page's number, 0, another spelling; a total of its own; a page that is broken")
def _(api):
    for echo, offset in (("asked", 40), ("page", 2), ("page_from_1", 3), ("zero", 0)):
        api.order("config", echo_offset=echo)
        equal(api.get("offset=40&limit=20&program_status=ALL").json()["offset"], offset)
    for spelling, status in (("lower", "all"), ("title", "All")):
        api.order("config", echo_status=spelling)
        equal(api.get("program_status=ALL").json()["program_status"], status)
    api.order("config", total=7)
    equal(api.get().json()["total"], 7)
    api.order("config", broken_position=45, broken_status=503)
    found = [api.get(f"offset={offset}&limit=20&program_status=ALL").status
             for offset in (20, 25, 26, 40, 45, 46)]
    equal(found, [200, 200, 503, 503, 503, 200])


@case("keep-alive, Connection: close, idle connections closed and reset")
def _(api):
    with api.ask() as connection:
        equal(Response(connection).end, "whole")
        connection.sendall(request())
        equal(Response(connection).status, 200)
        equal(api.order("disconnect")["connections"], 1)
        equal(Response(connection).end, "closed")
    with api.ask() as connection:
        Response(connection)
        equal(api.order("disconnect", how="reset")["connections"], 1)
        equal(Response(connection).end, "reset")
    api.order("config", connection_close=True)
    equal(api.get().headers["connection"], "close")
    equal(api.counter("connections"), 3)


@case("latency, and the wait before the handshake")
def _(api):
    api.order("config", latency_ms=60)
    start = time.monotonic()
    api.get()
    assert time.monotonic() - start > 0.055
    api.order("config", latency_ms=0, connection_delay_ms=60)
    start = time.monotonic()
    with api.connect("https", api.tls()):
        assert time.monotonic() - start > 0.055


@case("TLS: verified, resumed; wrong host and unknown CA are refused by clients")
def _(api):
    tls = api.tls()
    with api.connect("https", tls) as connection:
        connection.sendall(request())
        equal(Response(connection).status, 200)
        session = connection.session
    with socket.create_connection(("127.0.0.1", api.port("https"))) as raw:
        with tls.wrap_socket(raw, server_hostname="localhost", session=session) as connection:
            connection.sendall(request())
            equal(Response(connection).status, 200)
    equal(api.counter("tls_resumed"), 1)
    for port in ("wrong_host", "untrusted"):
        with contextlib.suppress(ssl.SSLCertVerificationError):
            api.connect(port, tls)
            raise AssertionError(f"{port} was accepted")
    api.poll_counter("failed_handshakes", 2)
    api.poll_counter("open_connections", 0)


@case("counters and log: in flight, waves, statuses, bytes, clients that go away")
def _(api):
    api.get()
    fault(api, {"hold": True})
    held = [api.ask(f"offset={20 * n}&program_status=ALL") for n in range(5)]
    api.poll_counter("held", 5)
    counters = api.read("counters")
    equal((counters["in_flight"], counters["max_in_flight"], counters["waves"]), (5, 5, 2))
    held.pop().close()
    api.poll_counter("in_flight", 4)
    equal(api.order("release", count=1)["released"], 1)
    equal(api.order("release")["released"], 3)
    equal([Response(connection).status for connection in held], [200] * 4)
    for connection in held:
        connection.close()
    counters = api.read("counters")
    equal(counters["by_status"], {"200": 5, "gone": 1})
    equal(counters["bytes"], sum(entry["bytes"] for entry in api.read("log")))
    equal([entry["offset"] for entry in api.read("log")], [0, 0, 20, 40, 60, 80])
