"""The database: the sync, and the queries behind the tables of the page.

Where it is and who we are is for libpq's environment to say (PGHOST, PGUSER, PGSERVICE,
PGPASSFILE …).  The queries make their JSON in PostgreSQL, which knows dates that Python does not.
"""
import asyncio
import datetime
import json
import logging

import psycopg

# The server itself notices when this program is killed in the middle of a sync
SYNC = "-c yelp_sync.progress=json -c client_connection_check_interval=1000"
READ = "-c default_transaction_read_only=on -c statement_timeout=10000"
MAX_READS = 5               # at once
MAX_CHANGES = 1000          # shown of one sync; all of them are counted
CANCEL_AGAIN_S = 1
HIDDEN = ("XX", "58")       # classes of errors that tell about the server and not the sync

CHANGES = """
    SELECT action, program_id, changed, count(*) OVER ()
    FROM sync_page.sync(%s) LIMIT %s"""

ACCOUNTS = """
    SELECT coalesce(json_agg(a ORDER BY username, server), '[]')::text
    FROM sync_page.accounts() AS a"""

RUNS = """
    SELECT coalesce(json_agg(r), '[]')::text FROM (
        SELECT * FROM sync_page.runs WHERE username = %(username)s
        ORDER BY finished_at DESC LIMIT 10) AS r"""

PROGRAMS = """
    WITH found AS NOT MATERIALIZED (
        SELECT * FROM sync_page.programs
        WHERE username = %(username)s
            AND (%(state)s::text IS NULL OR state = %(state)s)
            AND (%(type)s::text IS NULL OR program_type = %(type)s)
            AND (%(business)s::text IS NULL
                OR %(business)s IN (yelp_business_id, partner_business_id)))
    SELECT json_build_object(
        'total', (SELECT count(*) FROM found),
        'types', (SELECT coalesce(json_agg(program_type ORDER BY program_type), '[]') FROM (
            SELECT DISTINCT program_type FROM sync_page.programs
            WHERE username = %(username)s AND program_type IS NOT NULL LIMIT 100) AS t),
        'rows', (SELECT coalesce(json_agg(p), '[]') FROM (
            SELECT * FROM found ORDER BY program_id
            LIMIT %(limit)s OFFSET %(offset)s) AS p))::text"""

reads = asyncio.Semaphore(MAX_READS)


async def connect(options):
    return await psycopg.AsyncConnection.connect(
        autocommit=True, options=options, application_name="sync-page", connect_timeout=10)


async def read(query, **parameters):
    """The query's one value."""
    async with reads, await connect(READ) as connection:
        cursor = await connection.execute(query, parameters)
        return (await cursor.fetchone())[0]


async def sync(account, tell):
    """Syncs an account; tell() is given each event as it happens.  Returns the last one.

    To cancel the sync, cancel the task: it ends when the database has ended the statement.
    """
    try:
        async with await connect(SYNC) as connection:
            connection.add_notice_handler(lambda notice: tell(notice_event(account, notice)))
            rows = await run(connection, CHANGES, (account, MAX_CHANGES))
        last = changes_event(account, rows)
    except psycopg.Error as error:
        last = error_event(account, error)
    tell(last)
    return last


async def run(connection, query, parameters):
    statement = asyncio.ensure_future(connection.execute(query, parameters))
    try:
        return await (await asyncio.shield(statement)).fetchall()
    finally:
        # Again and again, since a cancel that comes before the statement has no effect
        while not statement.done():
            await asyncio.to_thread(connection.cancel)
            await asyncio.wait([statement], timeout=CANCEL_AGAIN_S)


def changes_event(account, rows):
    now = datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
    changes = [{"action": action, "program_id": program_id, "changed": changed}
               for action, program_id, changed, _ in rows]
    return {"type": "changes", "account": account, "finished_at": now,
            "total": rows[0][-1] if rows else 0, "rows": changes}


def notice_event(account, notice):
    """The sync's own messages are events; what triggers say is made one."""
    try:
        own = dict(json.loads(notice.message_primary))
    except (ValueError, TypeError):
        own = {}
    severity = notice.severity_nonlocalized
    if own and severity == "NOTICE":
        return {**own, "account": account}
    return {"type": severity.lower(), "account": account, **words(notice), **own}


def error_event(account, error):
    found = words(error.diag)
    if found.get("sqlstate", "XX")[:2] in HIDDEN:
        logging.error("sync of %s: %s", account, error)
        found = {"sqlstate": found.get("sqlstate", "08006"), "message": "the database failed",
                 "hint": "The log of this page's server has the reason."}
    return {"type": "error", "account": account, **found}


def words(diagnostic):
    members = {"sqlstate": diagnostic.sqlstate, "message": diagnostic.message_primary,
               "detail": diagnostic.message_detail, "hint": diagnostic.message_hint}
    return {name: text for name, text in members.items() if text is not None}
