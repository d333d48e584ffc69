"""Ways to send an answer that no well-behaved server has.

Each is an action of a fault (faults.py) and ends with the connection closed.  `at` is how many
bytes of the body go out first; half of them, where it is left out.

    close               close before the first byte; {"at"}: the promised body ends there
    chunked_cut         the same in a body sent in chunks: its last chunk is missing
    reset               as close, with a TCP reset
    stall               headers and {"at"} bytes, then nothing until a release sends the rest
    drip                a byte every {"every_ms"} after {"at"} bytes of the body (0),
                        or from the status line on, where "headers" is true
    endless_headers     headers that never end, {"bytes"} of them at most (by default 1 GB)
    pad                 the page and white space up to {"bytes"}, a chunk at a time; in
                        {"encoding"}: "gzip", a bomb
    raw                 {"text"} as it is, instead of a response
"""
import asyncio
import http
import inspect
import socket
import struct
import zlib

from aiohttp import web

BLOCK = 1 << 16
GIGABYTE = 1 << 30


class ConnectionOver(web.StreamResponse):
    """For aiohttp, when all has been sent that will be: it takes the client for gone."""

    async def prepare(self, request):
        raise ConnectionResetError


def head(answer, **headers):
    """Status line and headers; Content_Length=5 stands for Content-Length: 5."""
    reason = http.HTTPStatus(answer.status).phrase
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    lines = [f"HTTP/1.1 {answer.status} {reason}", "Connection: close"]
    lines += [f"{name}: {value}" for name, value in {**answer.headers, **named}.items()]
    return "\r\n".join(lines).encode() + b"\r\n\r\n"


def whole_head(answer):
    return head(answer, Content_Length=len(answer.body))


def chunk(data):
    return b"%x\r\n%s\r\n" % (len(data), data)


def split(answer, at):
    at = len(answer.body) // 2 if at is None else at
    return answer.body[:at], answer.body[at:]


async def send(request, data):
    """For many writes in a row.  Where the client reads as fast as it is written, or is gone,
    writing alone never lets another task run, nor notices that the client is gone."""
    await request.writer.write(data)
    await asyncio.sleep(0)


async def send_start(request, answer, at):
    """So much of the body, after its head; nothing at all, where it is left out."""
    if at is not None:
        await request.writer.write(whole_head(answer) + answer.body[:at])


async def close(request, answer, api, at=None):
    await send_start(request, answer, at)
    request.transport.close()


async def chunked_cut(request, answer, api, at=None):
    start = chunk(split(answer, at)[0])
    await request.writer.write(head(answer, Transfer_Encoding="chunked") + start)
    request.transport.close()


async def reset(request, answer, api, at=None):
    await send_start(request, answer, at)
    reset_connection(request.transport)


NO_LINGER = struct.pack("ii", 1, 0)     # close with a TCP reset


def reset_connection(transport):
    sock = transport.get_extra_info("socket")
    if sock is not None:        # over TLS: the connection is not gone already
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, NO_LINGER)
    transport.abort()


def reset_socket(sock):
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, NO_LINGER)
    sock.close()


async def stall(request, answer, api, at=None):
    start, rest = split(answer, at)
    await request.writer.write(whole_head(answer) + start)
    await api.holds.wait()
    await request.writer.write(rest)
    request.transport.close()


async def drip(request, answer, api, every_ms=1000, at=0, headers=False):
    text = whole_head(answer) + answer.body
    at = 0 if headers else len(text) - len(answer.body) + at
    await request.writer.write(text[:at])
    for position in range(at, len(text)):
        await asyncio.sleep(every_ms / 1000)
        await request.writer.write(text[position:position + 1])
    request.transport.close()


async def endless_headers(request, answer, api, bytes=GIGABYTE):
    await send(request, head(answer)[:-2])
    lines = (b"X-Endless: " + b"x" * 1000 + b"\r\n") * 64
    for _ in range(bytes // len(lines)):
        await send(request, lines)
    request.transport.close()


async def pad(request, answer, api, bytes, encoding="identity"):
    answer.headers["Content-Encoding"] = encoding
    await send(request, head(answer, Transfer_Encoding="chunked"))
    packer = zlib.compressobj(9, wbits=31) if encoding == "gzip" else None
    for block in padded(answer.body, bytes):
        packed = packer.compress(block) if packer else block
        await send(request, chunk(packed) if packed else b"")
    await send(request, (chunk(packer.flush()) if packer else b"") + chunk(b""))
    request.transport.close()


def padded(body, size):
    yield body
    spaces = b" " * BLOCK
    for _ in range((size - len(body)) // BLOCK):
        yield spaces
    yield b" " * ((size - len(body)) % BLOCK)


async def raw(request, answer, api, text):
    await request.writer.write(text.encode())
    request.transport.close()


DELIVERIES = {function.__name__: function for function in (
    close, chunked_cut, reset, stall, drip, endless_headers, pad, raw)}


def check_options(name, options):
    """Raises TypeError where one is missing, or unknown."""
    inspect.signature(DELIVERIES[name]).bind(None, None, None, **options)
