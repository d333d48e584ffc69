"""The two methods of Python programs: fetch all pages, then merge them in bulk.

    peer.py METHOD URL PAGE_SIZE CA_FILE SOCKET_DIRECTORY DATABASE TABLE

`original` is the original program's method: asyncio and aiohttp.  After the first page, which has
the total, all other pages are requested at once.  A page that fails is tried again as
aiohttp-retry does with the original's options: three attempts, waits of 1 s that double up to
10 s.  aiohttp's own limit of 100 connections, which is also yelp_sync's concurrency, is kept.

`threads` is the older method: 50 threads that fetch one page each at a time.  http.client is the
lightest client that Python has, so that only the method is measured.

A peer is a process that stays alive between syncs and keeps its database session and its HTTP
connections, which the original did not do: neither Python's start nor a connection is measured.
Each line on standard input asks for a sync, and is answered by a line when that is committed.

The merge inserts what is missing, updates all common rows whether they changed or not, and
deletes what is gone, by asyncpg's quickest means: COPY for what is new, and COPY into a temporary
table and one joining UPDATE for the rest.
"""
import asyncio
import base64
import concurrent.futures
import contextlib
import datetime
import decimal
import http.client
import json
import ssl
import sys
import threading
import urllib.parse

import asyncpg

USERNAME = "bench"
ATTEMPTS, FIRST_WAIT, FACTOR, LONGEST_WAIT = 3, 1.0, 2.0, 10.0
THREADS = 50

COLUMNS = ("username", "program_id", "program_type", "program_status", "program_pause_status",
           "start_date", "end_date", "yelp_business_id", "partner_business_id", "budget",
           "max_bid", "ad_cost", "currency", "fee_period", "is_autobid", "billed_impressions",
           "billed_clicks", "active_features", "available_features", "data")
EPOCH = datetime.date(2000, 1, 1).toordinal()       # PostgreSQL's

METHOD, URL, PAGE_SIZE, CA_FILE, SOCKET_DIRECTORY, DATABASE, TABLE = sys.argv[1:]
PAGE_SIZE = int(PAGE_SIZE)
TLS = ssl.create_default_context(cafile=CA_FILE) if CA_FILE else None
if METHOD == "original":
    import aiohttp              # whose memory the threads do not need


def page_url(offset):
    return f"{URL}?offset={offset}&limit={PAGE_SIZE}&program_status=ALL"


def other_offsets(first):
    return range(PAGE_SIZE, first["total"], PAGE_SIZE)


def programs_of(pages):
    return [program for page in pages for program in page["payment_programs"]]


# The original's method

async def get_page(session, offset):
    for attempt in range(1, ATTEMPTS + 1):
        try:
            async with session.get(page_url(offset), ssl=TLS) as response:
                if response.status < 500 or attempt == ATTEMPTS:
                    response.raise_for_status()
                    return await response.json()
        except aiohttp.ClientConnectionError:
            if attempt == ATTEMPTS:
                raise
        await asyncio.sleep(min(FIRST_WAIT * FACTOR ** (attempt - 1), LONGEST_WAIT))


@contextlib.asynccontextmanager
async def original():
    async def fetch():
        first = await get_page(session, 0)
        rest = await asyncio.gather(*(get_page(session, n) for n in other_offsets(first)))
        return programs_of((first, *rest))

    async with aiohttp.ClientSession(auth=aiohttp.BasicAuth(USERNAME, "bench")) as session:
        yield fetch


# Threads

@contextlib.asynccontextmanager
async def threads():
    where = urllib.parse.urlsplit(URL)
    headers = {"Authorization": "Basic " + base64.b64encode(b"bench:bench").decode()}
    mine = threading.local()

    def connect():
        if TLS:
            mine.connection = http.client.HTTPSConnection(where.hostname, where.port, context=TLS)
        else:
            mine.connection = http.client.HTTPConnection(where.hostname, where.port)

    def get(offset):
        target = urllib.parse.urlsplit(page_url(offset))
        mine.connection.request("GET", f"{target.path}?{target.query}", headers=headers)
        response = mine.connection.getresponse()
        if response.status != 200:
            raise RuntimeError(f"the page at offset {offset} answered {response.status}")
        return json.load(response)

    def fetch_all():
        first = pool.submit(get, 0).result()
        return programs_of((first, *pool.map(get, other_offsets(first))))

    with concurrent.futures.ThreadPoolExecutor(THREADS, initializer=connect) as pool:
        loop = asyncio.get_running_loop()
        yield lambda: loop.run_in_executor(None, fetch_all)


# The merge

def date(text):
    return text and datetime.date.fromisoformat(text)


def money(cents):
    return None if cents is None else decimal.Decimal(cents) / 100


def row_of(program):
    metrics = program.get("program_metrics") or {}
    business = (program.get("businesses") or [{}])[0]
    return (USERNAME, program["program_id"], program["program_type"], program["program_status"],
            program.get("program_pause_status"), date(program.get("start_date")),
            date(program.get("end_date")), business.get("yelp_business_id"),
            business.get("partner_business_id"), money(metrics.get("budget")),
            money(metrics.get("max_bid")), money(metrics.get("ad_cost")),
            metrics.get("currency"), metrics.get("fee_period"), metrics.get("is_autobid"),
            metrics.get("billed_impressions"), metrics.get("billed_clicks"),
            program.get("active_features"), program.get("available_features"),
            json.dumps(program))


async def merge(connection, programs):
    """Make the account's rows in the table the programs that were fetched."""
    rows = {program["program_id"]: row_of(program) for program in programs}
    async with connection.transaction():
        stored = await connection.fetch(
            f"SELECT program_id FROM {TABLE} WHERE username = $1", USERNAME)
        stored = {record[0] for record in stored}
        missing = [row for key, row in rows.items() if key not in stored]
        common = [row for key, row in rows.items() if key in stored]
        gone = list(stored - rows.keys())
        if missing:
            await connection.copy_records_to_table(TABLE, records=missing, columns=COLUMNS)
        if common:
            await update(connection, common)
        if gone:
            await connection.execute(
                f"DELETE FROM {TABLE} WHERE username = $1 AND program_id = ANY ($2)",
                USERNAME, gone)


async def update(connection, rows):
    await connection.execute(
        f"CREATE TEMPORARY TABLE fetched ON COMMIT DROP AS"
        f" SELECT {', '.join(COLUMNS)} FROM {TABLE} WITH NO DATA")
    await connection.copy_records_to_table("fetched", records=rows, columns=COLUMNS)
    await connection.execute(
        f"UPDATE {TABLE} t SET {', '.join(f'{c} = f.{c}' for c in COLUMNS[2:])}, updated_at = now()"
        f" FROM fetched f WHERE (t.username, t.program_id) = (f.username, f.program_id)")


async def main():
    connection = await asyncpg.connect(host=SOCKET_DIRECTORY, user="postgres", database=DATABASE)
    # asyncpg would store 9999-12-31 as infinity
    await connection.set_type_codec(
        "date", schema="pg_catalog", format="tuple",
        encoder=lambda day: (day.toordinal() - EPOCH,),
        decoder=lambda days: datetime.date.fromordinal(days[0] + EPOCH))
    loop = asyncio.get_running_loop()
    async with {"original": original, "threads": threads}[METHOD]() as fetch:
        print(connection.get_server_pid(), flush=True)
        while await loop.run_in_executor(None, sys.stdin.readline):
            await merge(connection, await fetch())
            print("done", flush=True)


asyncio.run(main())
