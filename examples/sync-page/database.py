"""The database: the sync, and the queries behind the tables of the page.

Where it is and who we are is for libpq's environment to say (PGHOST, PGUSER, PGSERVICE,
PGPASSFILE …).  The queries make their JSON in PostgreSQL, which knows dates that Python does not.
"""
import asyncio
import contextlib
import json
import logging

import psycopg

# The server itself notices when this program is killed in the middle of a sync
SYNC = "-c yelp_sync.progress=json -c client_connection_check_interval=1000"
READ = "-c default_transaction_read_only=on -c statement_timeout=10000"
MAX_READS = 5               # at once
CANCEL_AGAIN_S = 1
HIDDEN = ("XX", "58")       # classes of errors that are about the server and not the sync
OWN = ("start", "info", "progress", "complete", "warning")      # types of the sync's events

ACCOUNTS = """
    SELECT coalesce(json_agg(a ORDER BY username, server), '[]')::text
    FROM sync_page.accounts() AS a"""

RUNS = """
    SELECT coalesce(json_agg(r), '[]')::text FROM (
        SELECT * FROM sync_page.runs WHERE username = %(username)s
        ORDER BY finished_at DESC LIMIT 10) AS r"""

# As far as the server option record_changes keeps them
CHANGES = """
    SELECT json_build_object('run_id', run_id, 'finished_at', finished_at,
        'total', added + updated + deleted + missing, 'rows', (
            SELECT coalesce(json_agg(c), '[]') FROM (
                SELECT action, program_id, changed, old, new FROM sync_page.changes
                WHERE run_id = r.run_id ORDER BY program_id LIMIT 1000) AS c))::text
    FROM sync_page.runs AS r
    WHERE username = %(username)s AND status <> 'failed'
    ORDER BY finished_at DESC LIMIT 1"""

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
    """The JSON text that a query returns in its only row; null without a row."""
    async with reads, await connect(READ) as connection:
        row = await (await connection.execute(query, parameters)).fetchone()
        return row[0] if row else "null"


async def sync(account, tell, cancelled):
    """Syncs an account; tell() is given each event as it happens.  Returns the last one.

    Once the event cancelled is set, the statement is cancelled.  It may have ended before that:
    what is returned is what happened.
    """
    try:
        async with await connect(SYNC) as connection:
            connection.add_notice_handler(lambda notice: tell(notice_event(account, notice)))
            result = await run(connection, "SELECT sync_page.sync(%s)", (account,), cancelled)
            return cleared({**result, "account": account})
    except psycopg.Error as error:
        if cancelled.is_set() and isinstance(error, psycopg.errors.QueryCanceled):
            return {"type": "cancelled", "account": account}
        return cleared({"type": "error", "account": account, **words(error.diag, str(error))})


async def run(connection, query, parameters, cancelled):
    statement = asyncio.ensure_future(connection.execute(query, parameters))
    cancel = asyncio.ensure_future(cancelled.wait())
    await asyncio.wait([statement, cancel], return_when=asyncio.FIRST_COMPLETED)
    cancel.cancel()
    # Again and again, since a cancel that comes before the statement has no effect
    while not statement.done():
        with contextlib.suppress(psycopg.Error):
            await asyncio.to_thread(connection.cancel)
        await asyncio.wait([statement], timeout=CANCEL_AGAIN_S)
    return (await statement.result().fetchone())[0]


def notice_event(account, notice):
    """The sync's own messages are events; what triggers say is made one."""
    try:
        own = dict(json.loads(notice.message_primary))
    except (ValueError, TypeError):
        own = {}
    if own.get("type") not in OWN:
        own = {"type": notice.severity_nonlocalized.lower(), **words(notice)}
    return {**own, "account": account}


def cleared(event):
    """Without what is about the server and not the sync, which is logged."""
    if event["type"] != "error" or event["sqlstate"][:2] not in HIDDEN:
        return event
    logging.error("sync of %(account)s: %(message)s", event)
    kept = {name: event[name] for name in ("type", "account", "run_id", "sqlstate") if name in event}
    return {**kept, "message": "the database failed",
            "hint": "The log of this page's server has the reason."}


def words(diagnostic, otherwise=None):
    """What PostgreSQL says; an error without any of it is a lost connection."""
    if not diagnostic.sqlstate:
        return {"sqlstate": "58000", "message": otherwise}
    members = {"sqlstate": diagnostic.sqlstate, "message": diagnostic.message_primary,
               "detail": diagnostic.message_detail, "hint": diagnostic.message_hint}
    return {name: text for name, text in members.items() if text is not None}
