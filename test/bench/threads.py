"""The older method: 50 threads that each fetch a page at a time, then the same bulk merge.

Each thread keeps its connection open from page to page and from sync to sync.  http.client is
the lightest client that Python has, so that nothing but the method is measured.
"""
import asyncio
import base64
import concurrent.futures
import http.client
import json
import threading
import urllib.parse

import peer

THREADS = 50

orders = peer.Orders()
mine = threading.local()
headers = {"Authorization": "Basic " + base64.b64encode(b"bench:bench").decode()}


def connect():
    where = urllib.parse.urlsplit(orders.url)
    if where.scheme == "https":
        return http.client.HTTPSConnection(where.hostname, where.port, context=orders.tls)
    return http.client.HTTPConnection(where.hostname, where.port)


def get_page(offset):
    if not hasattr(mine, "connection"):
        mine.connection = connect()
    where = urllib.parse.urlsplit(orders.page(offset))
    mine.connection.request("GET", f"{where.path}?{where.query}", headers=headers)
    response = mine.connection.getresponse()
    if response.status != 200:
        raise RuntimeError(f"the page at offset {offset} answered {response.status}")
    return json.load(response)


def fetch_all(pool):
    first = pool.submit(get_page, 0).result()
    rest = pool.map(get_page, range(orders.page_size, first["total"], orders.page_size))
    return [program for page in (first, *rest) for program in page["payment_programs"]]


async def main():
    with concurrent.futures.ThreadPoolExecutor(THREADS) as pool:
        loop = asyncio.get_running_loop()
        await orders.serve(lambda: loop.run_in_executor(None, fetch_all, pool))


asyncio.run(main())
