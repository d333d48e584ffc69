"""A throw-away cluster."""
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

    async def create_database(self, name):
        """With the extension and its tables."""
        await self.execute("postgres", f"CREATE DATABASE {name}")
        await self.execute(name, "CREATE EXTENSION yelp_sync", "SELECT yelp_sync_create_tables()")

    async def drop_database(self, name):
        await self.execute("postgres", f"DROP DATABASE {name} WITH (FORCE)")
