"""What the two Python peers share: the rows, the merge, and answering the benchmark.

A peer is a process that stays alive between syncs, with its database session and its HTTP
connections open, so that neither Python's start nor a connection is ever on its bill.  Each
line on standard input asks for one sync and is answered by a line when it has been committed.

The merge is the one that these programs have: insert what is missing, update every common row
whether it changed or not, delete what is gone.  It uses the quickest means that asyncpg has
for that: COPY for what is new, COPY into a temporary table and one joining UPDATE for the rest.
"""
import asyncio
import datetime
import decimal
import json
import ssl
import sys

import asyncpg

COLUMNS = ("username", "program_id", "program_type", "program_status", "program_pause_status",
           "start_date", "end_date", "yelp_business_id", "partner_business_id", "budget",
           "max_bid", "ad_cost", "currency", "fee_period", "is_autobid", "billed_impressions",
           "billed_clicks", "active_features", "available_features", "data")
VALUES = COLUMNS[2:]
EPOCH = datetime.date(2000, 1, 1).toordinal()       # PostgreSQL's


def date(text):
    return text and datetime.date.fromisoformat(text)


def money(cents):
    return None if cents is None else decimal.Decimal(cents) / 100


def row_of(username, program):
    metrics = program.get("program_metrics") or {}
    business = (program.get("businesses") or [{}])[0]
    return (username, program["program_id"], program["program_type"], program["program_status"],
            program.get("program_pause_status"), date(program.get("start_date")),
            date(program.get("end_date")), business.get("yelp_business_id"),
            business.get("partner_business_id"), money(metrics.get("budget")),
            money(metrics.get("max_bid")), money(metrics.get("ad_cost")),
            metrics.get("currency"), metrics.get("fee_period"), metrics.get("is_autobid"),
            metrics.get("billed_impressions"), metrics.get("billed_clicks"),
            program.get("active_features"), program.get("available_features"),
            json.dumps(program))


async def merge(connection, table, username, programs):
    """Make the account's rows in `table` the programs that were fetched."""
    rows = {program["program_id"]: row_of(username, program) for program in programs}
    async with connection.transaction():
        stored = await connection.fetch(
            f"SELECT program_id FROM {table} WHERE username = $1", username)
        stored = {record[0] for record in stored}
        missing = [row for key, row in rows.items() if key not in stored]
        common = [row for key, row in rows.items() if key in stored]
        gone = list(stored - rows.keys())
        if missing:
            await connection.copy_records_to_table(table, records=missing, columns=COLUMNS)
        if common:
            await update(connection, table, common)
        if gone:
            await connection.execute(
                f"DELETE FROM {table} WHERE username = $1 AND program_id = ANY ($2)",
                username, gone)


async def update(connection, table, rows):
    await connection.execute(
        f"CREATE TEMPORARY TABLE fetched ON COMMIT DROP AS"
        f" SELECT {', '.join(COLUMNS)} FROM {table} WITH NO DATA")
    await connection.copy_records_to_table("fetched", records=rows, columns=COLUMNS)
    await connection.execute(
        f"UPDATE {table} t SET {', '.join(f'{c} = f.{c}' for c in VALUES)}, updated_at = now()"
        f" FROM fetched f WHERE (t.username, t.program_id) = (f.username, f.program_id)")


def tls_context(ca_file):
    return ssl.create_default_context(cafile=ca_file) if ca_file else None


class Orders:
    """The command line, and the lines of standard input that ask for a sync."""

    def __init__(self):
        url, page_size, ca_file, socket_directory, database, table = sys.argv[1:]
        self.url = url
        self.page_size = int(page_size)
        self.tls = tls_context(ca_file)
        self.socket_directory, self.database = socket_directory, database
        self.table = table
        self.username = "bench"

    def page(self, offset):
        return f"{self.url}?offset={offset}&limit={self.page_size}&program_status=ALL"

    async def serve(self, fetch):
        """Answer each order with fetch(), which returns the programs, and a merge."""
        connection = await asyncpg.connect(
            host=self.socket_directory, user="postgres", database=self.database)
        # asyncpg would store 9999-12-31 as infinity
        await connection.set_type_codec(
            "date", schema="pg_catalog", format="tuple",
            encoder=lambda day: (day.toordinal() - EPOCH,),
            decoder=lambda days: datetime.date.fromordinal(days[0] + EPOCH))
        print(connection.get_server_pid(), flush=True)
        loop = asyncio.get_running_loop()
        while await loop.run_in_executor(None, sys.stdin.readline):
            await merge(connection, self.table, self.username, await fetch())
            print("done", flush=True)
        await connection.close()
