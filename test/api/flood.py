#!/usr/bin/python3
"""A server that never stops sending.  See `flood.py --help`.

    tickets         TLS 1.3 session tickets after the request
    idle_tickets    the same after a page, when the connection is idle
    ack, window, goaway
                    frames of HTTP/2 after the request
    connect         the body of a proxy's refusal
    codings         a page in many codings, between which a header looks like a status line

Writes a line when it listens, with its port; one when it begins to send; and one when it ends:
"closed" where the client has closed the connection, "stopped" after --seconds.
"""
import argparse
import ctypes
import ctypes.util
import hashlib
import hmac
import json
import os
import re
import signal
import socket
import ssl
import struct
import tempfile
import threading
import time
import zlib

PAGE = json.dumps({"total": 1, "offset": 0, "limit": 20, "program_status": "ALL",
                   "payment_programs": [{"program_id": "a"}]}).encode()
MEGABYTE = 1 << 20
MOST_SECONDS = 900


def say(*words):
    print(*words, flush=True)


def flood(send, data, seconds):
    say("floods")
    end = time.monotonic() + seconds
    try:
        while time.monotonic() < end:
            send(data())
        say("stopped")
    except OSError:
        say("closed")


# ---- TLS: records of session tickets, sealed with the connection's own key ----

class Sealer:
    """AES-256-GCM with the keys of the server's side of a TLS 1.3 connection."""

    def __init__(self, secret, sequence):
        self.crypto = ctypes.CDLL(ctypes.util.find_library("crypto"))
        for name in ("EVP_CIPHER_CTX_new", "EVP_aes_256_gcm"):
            getattr(self.crypto, name).restype = ctypes.c_void_p
        self.context = ctypes.c_void_p(self.crypto.EVP_CIPHER_CTX_new())
        self.cipher = ctypes.c_void_p(self.crypto.EVP_aes_256_gcm())
        self.key, self.iv = (self.expand(secret, label, size) for label, size in ((b"key", 32), (b"iv", 12)))
        self.sequence = sequence

    @staticmethod
    def expand(secret, label, size):
        """HKDF-Expand-Label of RFC 8446"""
        label = b"tls13 " + label
        info = struct.pack(">HB", size, len(label)) + label + b"\0\1"
        return hmac.new(secret, info, hashlib.sha384).digest()[:size]

    def seal(self, plain):
        crypto, context = self.crypto, self.context
        nonce = (int.from_bytes(self.iv, "big") ^ self.sequence).to_bytes(12, "big")
        header = struct.pack(">BHH", 23, 0x0303, len(plain) + 16)
        out, tag, size = ctypes.create_string_buffer(len(plain) + 16), ctypes.create_string_buffer(16), ctypes.c_int()
        crypto.EVP_EncryptInit_ex(context, self.cipher, None, self.key, nonce)
        crypto.EVP_EncryptUpdate(context, None, ctypes.byref(size), header, len(header))
        crypto.EVP_EncryptUpdate(context, out, ctypes.byref(size), plain, len(plain))
        crypto.EVP_EncryptFinal_ex(context, tag, ctypes.byref(size))
        crypto.EVP_CIPHER_CTX_ctrl(context, 16, 16, tag)      # EVP_CTRL_GCM_GET_TAG
        self.sequence += 1
        return header + out.raw[:len(plain)] + tag.raw


TICKET = b"\4\0\0\x0e\0\0\x1c\x20\1\2\3\4\0\0\1x\0\0"
TICKETS = TICKET * 900 + b"\x16"        # of the content type handshake


def tls(options, *protocols):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(options.certificate)
    context.num_tickets = 0
    if protocols:
        context.set_alpn_protocols(protocols)
    return context


def tickets(plain, options):
    with tempfile.NamedTemporaryFile("r") as keys:
        context = tls(options)
        context.keylog_filename = keys.name
        connection = context.wrap_socket(plain, server_side=True, suppress_ragged_eofs=False)
        secret = bytes.fromhex(re.search(r"SERVER_TRAFFIC_SECRET_0 \w+ (\w+)", keys.read())[1])
    connection.recv(65536)
    sent = 0
    if options.what == "idle_tickets":
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(PAGE), PAGE))
        sent = 1
        # The test says when (SIGUSR1) the connection is idle
        options.idle.wait()
    sealer = Sealer(secret, sent)
    raw = socket.socket(fileno=os.dup(connection.fileno()))
    flood(raw.sendall, lambda: sealer.seal(TICKETS), options.seconds)


# ---- HTTP/2 ----

def frame(kind, flags, stream, payload=b""):
    return struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + payload


FRAMES = {
    "ack": frame(6, 1, 0, b"x" * 8),
    "window": frame(8, 0, 0, b"\0\0\0\1"),
    "goaway": frame(7, 0, 0, b"\0\0\0\1\0\0\0\0"),
}


def frames(plain, options):
    connection = tls(options, "h2").wrap_socket(plain, server_side=True)
    while b"PRI" not in connection.recv(65536):
        pass
    connection.sendall(frame(4, 0, 0))
    connection.recv(65536)
    block = FRAMES[options.what] * 900
    flood(connection.sendall, lambda: block, options.seconds)


# ---- without TLS ----

def refusal(connection, options):
    connection.recv(65536)
    connection.sendall(b"HTTP/1.1 407 No\r\nTransfer-Encoding: chunked\r\n\r\n")
    block = b"4000\r\n" + b"x" * 0x4000 + b"\r\n"
    flood(connection.sendall, lambda: block, options.seconds)


def nested(layers):
    """Empty blocks in so many layers of gzip: a few bytes that take hours to decode"""
    head, unit, count = b"\x1f\x8b\x08\0\0\0\0\0\0\xff", b"\0\0\0\xff\xff" * 200_000, 1000
    for _ in range(layers - 1):
        times = max(1, min(count, MEGABYTE // len(unit)))
        packer = zlib.compressobj(9, zlib.DEFLATED, -15)
        start = packer.compress(head) + packer.flush(zlib.Z_FULL_FLUSH)
        unit, count = packer.compress(unit * times) + packer.flush(zlib.Z_FULL_FLUSH), max(1, count // times)
        head = b"\x1f\x8b\x08\0\0\0\0\0\0\xff" + start
    return head + unit * count


def codings(connection, options):
    connection.recv(65536)
    body = nested(4)
    say("floods")
    connection.sendall(b"HTTP/1.1 200 OK\r\n" + b"HTTP/x: y\r\n".join([b"Content-Encoding: gzip\r\n"] * 4)
                       + b"Content-Length: %d\r\n\r\n%s" % (len(body), body))
    say("closed" if connection.recv(65536) == b"" else "stopped")


KINDS = {"tickets": tickets, "idle_tickets": tickets, "connect": refusal, "codings": codings,
         **dict.fromkeys(FRAMES, frames)}


def serve(connection, options):
    try:
        with connection:
            KINDS[options.what](connection, options)
    except OSError:
        pass        # the client has gone before


def main():
    parser = argparse.ArgumentParser(description="A server that never stops sending, on 127.0.0.1 only.")
    parser.add_argument("what", choices=KINDS)
    parser.add_argument("--certificate", help="with its key, where it speaks TLS")
    parser.add_argument("--seconds", type=float, default=60, help="of a flood, at most (60)")
    options = parser.parse_args()
    options.idle = threading.Event()
    listener = socket.create_server(("127.0.0.1", 0), backlog=64)
    say("listens", listener.getsockname()[1])

    def accept():
        while True:
            threading.Thread(target=serve, args=(listener.accept()[0], options), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    signal.signal(signal.SIGUSR1, lambda *_: options.idle.set())
    signal.alarm(MOST_SECONDS)
    while True:
        signal.pause()


if __name__ == "__main__":
    main()
