"""A throw-away cluster, and what is asked of a database besides the syncs."""
import os
import subprocess

import asyncpg

SETTINGS = """
listen_addresses = ''
unix_socket_directories = '{directory}'
jit = off
autovacuum = off                # the benchmark runs VACUUM ANALYZE where it would
shared_buffers = 1GB
max_wal_size = 8GB              # no checkpoint but the benchmark's own
checkpoint_timeout = 1h
max_connections = 50
"""

TEMPLATE = "extended"           # a database with the extension, which the others are copies of

# The columns that every method fills; the fingerprint is yelp_sync's own
COMPARED = """program_id, program_type, program_status, program_pause_status, start_date, end_date,
    yelp_business_id, partner_business_id, budget, max_bid, ad_cost, currency, fee_period,
    is_autobid, billed_impressions, billed_clicks, active_features, available_features, data"""


class Cluster:
    def __init__(self, directory):
        self.directory = directory
        self.data = os.path.join(directory, "data")

    def start(self):
        subprocess.run(("initdb", "-D", self.data, "-U", "postgres", "-A", "trust", "-E", "UTF8",
                        "--no-locale"), check=True, stdout=subprocess.DEVNULL)
        with open(os.path.join(self.data, "postgresql.conf"), "a") as settings:
            settings.write(SETTINGS.format(directory=self.directory))
        self.pg_ctl("start", "-w", "-l", os.path.join(self.directory, "server.log"))

    def stop(self):
        if os.path.exists(os.path.join(self.data, "postmaster.pid")):
            self.pg_ctl("stop", "-m", "immediate")

    def pg_ctl(self, *arguments):
        subprocess.run(("pg_ctl", "-s", "-D", self.data, *arguments), check=True)

    async def connect(self, database="postgres"):
        return await asyncpg.connect(host=self.directory, user="postgres", database=database)

    async def execute(self, database, *statements):
        """Returns the last one's first value."""
        session = await self.connect(database)
        for statement in statements:
            value = await session.fetchval(statement)
        await session.close()
        return value

    async def make_template(self):
        await self.execute("postgres", f"CREATE DATABASE {TEMPLATE}")
        await self.execute(TEMPLATE, "CREATE EXTENSION yelp_sync",
                           "SELECT yelp_sync_create_tables()", "CREATE EXTENSION pg_walinspect")

    async def create_database(self, name):
        await self.execute("postgres", f"CREATE DATABASE {name} TEMPLATE {TEMPLATE}")

    async def drop_database(self, name):
        await self.execute("postgres", f"DROP DATABASE {name} WITH (FORCE)")


class Table:
    """What a sync did to a table, seen from a session that is not measured."""

    def __init__(self, session, name):
        self.session = session
        self.name = name

    async def checksum(self):
        """(rows, a number that depends on each of them but not on their order)"""
        return tuple(await self.session.fetchrow(
            f"SELECT count(*), sum(hashtextextended(ROW({COMPARED})::text, 0)) FROM {self.name}"))

    async def wal_position(self):
        return await self.session.fetchval("SELECT pg_current_wal_insert_lsn()::text")

    async def wal_since(self, start):
        """Bytes of WAL that the cluster has written since."""
        return int(await self.session.fetchval(
            "SELECT pg_current_wal_insert_lsn() - $1::text::pg_lsn", start))

    async def own_wal_since(self, start):
        """Bytes of those WAL records that touch the table, its indexes or its TOAST table."""
        if await self.wal_since(start) == 0:
            return 0
        return int(await self.session.fetchval("""
            WITH heap AS (SELECT oid, reltoastrelid FROM pg_class WHERE oid = $2::text::regclass),
                 files AS (
                     SELECT pg_relation_filenode(c.oid) AS node FROM pg_class c, heap h
                     WHERE c.oid IN (h.oid, h.reltoastrelid) OR c.oid IN (
                         SELECT indexrelid FROM pg_index
                         WHERE indrelid IN (h.oid, h.reltoastrelid)))
            SELECT coalesce(sum(record_length), 0)
            FROM pg_get_wal_records_info($1::text::pg_lsn, pg_current_wal_flush_lsn()) r
            WHERE EXISTS (SELECT FROM files
                          WHERE r.block_ref ~ ('rel \\d+/\\d+/' || node || '\\y'))
            """, start, self.name))

    async def tuples(self):
        """Rows inserted, updated and deleted so far, as the statistics count them."""
        await self.session.execute("SELECT pg_stat_clear_snapshot()")
        return await self.session.fetchval(
            "SELECT n_tup_ins + n_tup_upd + n_tup_del FROM pg_stat_user_tables"
            " WHERE relid = $1::text::regclass", self.name)
