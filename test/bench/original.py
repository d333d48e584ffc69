"""The original program's method: asyncio and aiohttp, all pages at once, a bulk merge.

After the first page, which has the total, all other pages are requested at once.  A page that fails
is tried again as aiohttp-retry does with the original's options: three attempts, waits of 1 s
that double up to 10 s.  aiohttp's own limit of 100 connections is left as it is: it is also
yelp_sync's concurrency.  Connections are kept between syncs, which the original did not do.
"""
import asyncio

import aiohttp

import peer

ATTEMPTS, FIRST_WAIT, FACTOR, LONGEST_WAIT = 3, 1.0, 2.0, 10.0


async def get_page(session, orders, offset):
    for attempt in range(1, ATTEMPTS + 1):
        try:
            async with session.get(orders.page(offset), ssl=orders.tls) as response:
                if response.status < 500 or attempt == ATTEMPTS:
                    response.raise_for_status()
                    return await response.json()
        except aiohttp.ClientConnectionError:
            if attempt == ATTEMPTS:
                raise
        await asyncio.sleep(min(FIRST_WAIT * FACTOR ** (attempt - 1), LONGEST_WAIT))


async def fetch(session, orders):
    first = await get_page(session, orders, 0)
    rest = await asyncio.gather(*(
        get_page(session, orders, offset)
        for offset in range(orders.page_size, first["total"], orders.page_size)))
    return [program for page in (first, *rest) for program in page["payment_programs"]]


async def main():
    orders = peer.Orders()
    credentials = aiohttp.BasicAuth("bench", "bench")
    async with aiohttp.ClientSession(auth=credentials) as session:
        await orders.serve(lambda: fetch(session, orders))


asyncio.run(main())
