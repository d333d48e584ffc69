#!/usr/bin/python3
"""A stand-in for Yelp's programs API, which ends with the process that started it.  See
`server.py --help`, and control.py for its orders.

When all ports listen, --ready-file is written:

    {"ca_file": "…/ca.pem",
     "ports": {"http", "https", "wrong_host", "untrusted", "control", "swallow", "silent"}}

wrong_host and untrusted are HTTPS with a certificate for another host, and one by a CA that is
not ca_file; connecting to swallow never completes, and silent accepts connections but never sends anything.
"""
import argparse
import asyncio
import json
import os
import resource
import signal

from aiohttp import web

from certificates import make_certificates, server_context
from control import Control
from endpoint import Api
from listeners import ApiServer, Listener, Silence, Swallow, listening_socket

PARENT_CHECK_S = 0.5
TLS_LISTENERS = {"https": "server", "wrong_host": "wrong_host", "untrusted": "untrusted"}


def arguments():
    parser = argparse.ArgumentParser(description="A stand-in for Yelp's programs API, on"
                                     " 127.0.0.1 only.")
    parser.add_argument("--certs", required=True, metavar="DIR",
                        help="where the test CA and the certificates are made")
    parser.add_argument("--ready-file", required=True, metavar="FILE",
                        help="written when the ports listen")
    return parser.parse_args()


def allow_many_connections():
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def write_ready_file(path, ready):
    with open(f"{path}.new", "w") as new:
        json.dump(ready, new)
    os.rename(f"{path}.new", path)


async def listen(options, api, server):
    """Open all ports; returns them by name, and what has to run."""
    loop = asyncio.get_running_loop()
    listeners = {"http": Listener(server)}
    for name, certificate in TLS_LISTENERS.items():
        listeners[name] = Listener(server, server_context(options.certs, certificate))

    swallow = Swallow()
    silent = listening_socket()
    await loop.create_server(Silence, sock=silent)
    runner = web.AppRunner(Control(api, server, swallow).application(), access_log=None)
    await runner.setup()
    control = listening_socket()
    await web.SockSite(runner, control).start()

    found = {name: listener.port for name, listener in listeners.items()}
    found.update(control=control.getsockname()[1], swallow=swallow.port,
                 silent=silent.getsockname()[1])
    return found, [listener.run() for listener in listeners.values()]


async def parent_ends(parent):
    """An orphan gets another parent, on every Unix."""
    while os.getppid() == parent:
        await asyncio.sleep(PARENT_CHECK_S)


async def serve(options, parent):
    api = Api()
    server = ApiServer(api)
    ports, running = await listen(options, api, server)
    stopped = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    write_ready_file(options.ready_file, {
        "ports": ports, "ca_file": os.path.join(os.path.abspath(options.certs), "ca.pem")})

    ends = [*running, stopped.wait(), parent_ends(parent)]
    done, _ = await asyncio.wait([asyncio.ensure_future(end) for end in ends],
                                 return_when=asyncio.FIRST_COMPLETED)
    for end in done:
        end.result()        # raises what ended a listener


def main():
    parent = os.getppid()
    options = arguments()
    allow_many_connections()
    make_certificates(options.certs)
    asyncio.run(serve(options, parent))


if __name__ == "__main__":
    main()
