"""The methods that are compared.  Each fetches a listing; all but the downloads also store it.

A contender is made for one cell of the plan, works in a database of its own and stays warm from
round to round: its processes, sessions and connections are kept.  prepare() is not measured,
sync() is.
"""
import contextlib
import os
import resource
import subprocess
import sys

import meter
from database import Table
from web import changed_programs

HERE = os.path.dirname(os.path.abspath(__file__))
CONCURRENCY = 100
ACCOUNT = "bench"


class Contender:
    syncs = ("first", "repeat", "changed")

    def __init__(self, bench, cell, page_size):
        self.bench, self.cell, self.page_size = bench, cell, page_size
        self.url = bench.web.url(cell.programs, cell.latency, cell.protocol)
        self.ca_file = bench.web.ca_file if cell.protocol != "http" else ""
        self.processes = {}         # role -> pid
        self.expected = None        # what sync() must return

    async def start(self):
        pass

    async def prepare(self, sync):
        pass

    async def stop(self):
        pass

    def memories(self):
        """What watches each process's memory, by role."""
        return {}

    def start_clock(self):
        return meter.Stopwatch(self.processes)

    @contextlib.asynccontextmanager
    async def counted(self):
        """Fills a dict with what the sync within did to the table."""
        yield {}


class Storing(Contender):
    """With a table, in a database of its own."""

    table_name = "programs"

    async def start(self):
        self.database = f"{self.name}_{self.page_size}"
        await self.bench.cluster.create_database(self.database)
        self.observer = await self.bench.cluster.connect(self.database)
        self.table = Table(self.observer, self.table_name)
        await self.make_table()

    async def make_table(self):
        """Like yelp_programs with its indexes, but without the trigger."""
        await self.observer.execute(
            f"CREATE TABLE {self.table_name} (LIKE yelp_programs INCLUDING ALL)")

    def add_backend(self, pid):
        self.processes["backend"] = pid
        self.idle = meter.memory(pid, "RssAnon")

    def memories(self):
        return {"backend": meter.BackendMemory(self.processes["backend"], self.idle)}

    async def prepare(self, sync):
        if sync == "first":
            await self.table.empty()
            await self.observer.execute("CHECKPOINT")
        elif sync == "repeat":
            await self.table.analyze()

    async def stop(self):
        await self.observer.close()
        await self.bench.cluster.drop_database(self.database)

    @contextlib.asynccontextmanager
    async def counted(self):
        counts = {}
        start = await self.table.wal_position()
        yield counts
        counts["wal"] = await self.table.wal_since(start)
        counts["table_wal"] = await self.table.own_wal_since(start)


class YelpSync(Storing):
    """The extension, called from a session that stays connected."""

    name = "yelp_sync"
    syncs = ("first", "repeat", "edited", "changed")
    table_name = "yelp_programs"

    async def make_table(self):
        options = {"endpoint": self.url, "page_size": self.page_size, "concurrency": CONCURRENCY,
                   "http_version": "2" if self.cell.protocol == "https 2" else "1.1"}
        if self.ca_file:
            options["ca_file"] = self.ca_file
        spelt = ", ".join(f"{name} '{value}'" for name, value in options.items())
        await self.observer.execute(f"""
            CREATE SERVER bench FOREIGN DATA WRAPPER yelp_sync OPTIONS ({spelt});
            CREATE USER MAPPING FOR CURRENT_USER SERVER bench
                OPTIONS (username '{ACCOUNT}', password 'bench')""")

    async def start(self):
        await super().start()
        await self.connect()

    async def connect(self):
        self.session = await self.bench.cluster.connect(self.database)
        await self.session.execute("SET yelp_sync.progress = off")
        self.processes = {"client": os.getpid()}
        self.add_backend(self.session.get_server_pid())

    async def prepare(self, sync):
        if sync == "edited":
            await self.observer.execute("UPDATE yelp_programs SET budget = coalesce(budget, 0) + 1")
            await self.table.analyze()
        await super().prepare(sync)
        if sync == "first":         # as if there had been no sync before
            await self.observer.execute("TRUNCATE yelp_sync_runs")
        self.expected = {"first": self.cell.programs, "repeat": 0, "edited": self.cell.programs,
                         "changed": changed_programs(self.cell.programs)}[sync]

    async def sync(self):
        return await self.session.fetchval(f"SELECT count(*) FROM yelp_sync('{ACCOUNT}')")

    async def stop(self):
        await self.session.close()
        await super().stop()

    @contextlib.asynccontextmanager
    async def counted(self):
        before = await self.tuples()
        async with super().counted() as counts:
            yield counts
        counts["tuples"] = await self.tuples() - before

    async def tuples(self):
        # Otherwise, a session's statistics can be a second late
        await self.session.execute("SELECT pg_stat_force_next_flush()")
        return await self.table.tuples()


class Process(Contender):
    """A program that does one sync for each line that it reads, and answers with a line."""

    def launch(self, *command):
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                        text=True)
        self.bench.processes.append(self.process)
        self.processes = {"client": self.process.pid}

    async def sync(self):
        self.process.stdin.write(f"{self.cell.programs}\n")
        self.process.stdin.flush()
        if not self.process.stdout.readline():
            raise RuntimeError(f"{self.name} has died")

    async def stop(self):
        self.process.terminate()
        self.process.communicate()
        await super().stop()

    def memories(self):
        return {"client": meter.ProcessMemory(self.process.pid)}


class Peer(Process, Storing):
    """A Python program with a bulk merge."""

    async def start(self):
        await Storing.start(self)
        self.launch(sys.executable, os.path.join(HERE, f"{self.name}.py"), self.url,
                    str(self.page_size), self.ca_file, self.bench.cluster.directory,
                    self.database, self.table_name)
        self.add_backend(int(self.process.stdout.readline()))

    def memories(self):
        return {**Process.memories(self), **Storing.memories(self)}


class Original(Peer):
    name = "original"


class Threads(Peer):
    name = "threads"


class Download(Process):
    """A bare libcurl multi program: the limit of every sync by libcurl."""

    name = "download"
    syncs = ("repeat",)

    async def start(self):
        self.launch(self.bench.download, self.url, str(self.page_size), str(CONCURRENCY),
                    "2" if self.cell.protocol == "https 2" else "1.1",
                    *((self.ca_file,) if self.ca_file else ()))


class ChildrenClock(meter.Stopwatch):
    """For processes that begin and end within the measured time."""

    def cpu(self):
        usage = resource.getrusage(resource.RUSAGE_CHILDREN)
        return {"client": usage.ru_utime + usage.ru_stime}


class Curl(Contender):
    """One page after the other by curl, over one connection; nothing is stored."""

    name = "curl"
    syncs = ("repeat",)

    def start_clock(self):
        return ChildrenClock(self.processes)

    async def sync(self):
        last = (self.cell.programs - 1) // self.page_size * self.page_size
        tls = ("--cacert", self.ca_file) if self.ca_file else ()
        subprocess.run(
            ("curl", "--silent", "--show-error", "--fail", "--user", "bench:bench", *tls,
             "--output", os.devnull, f"{self.url}?offset=[0-{last}:{self.page_size}]"
             f"&limit={self.page_size}&program_status=ALL"), check=True)


class Copy(YelpSync):
    """COPY of the rows of such a sync into such a table: the limit of every first load."""

    name = "copy"
    syncs = ("first",)

    async def start(self):
        await super().start()
        self.path = os.path.join(self.bench.cluster.directory, "rows")
        await super().sync()
        await self.session.execute(f"COPY {self.table_name} TO '{self.path}'")

    async def sync(self):
        await self.session.execute(f"COPY {self.table_name} FROM '{self.path}'")
        return self.cell.programs

    async def stop(self):
        await super().stop()
        os.remove(self.path)


CONTENDERS = {kind.name: kind for kind in (YelpSync, Original, Threads, Curl, Download, Copy)}
