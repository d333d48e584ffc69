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
from web import changed_programs

HERE = os.path.dirname(os.path.abspath(__file__))
CONCURRENCY = 100
ACCOUNT = "bench"

# The columns that every method fills; the fingerprint is yelp_sync's own
COMPARED = """program_id, program_type, program_status, program_pause_status, start_date, end_date,
    yelp_business_id, partner_business_id, budget, max_bid, ad_cost, currency, fee_period,
    is_autobid, billed_impressions, billed_clicks, active_features, available_features, data"""


class Contender:
    syncs = ("first", "repeat", "changed")

    def __init__(self, bench, cell, page_size):
        self.bench, self.cell, self.page_size = bench, cell, page_size
        self.url = bench.web.url(cell.programs, cell.latency, cell.protocol)
        self.ca_file = bench.web.ca_file if cell.protocol != "http" else ""
        self.http_version = "2" if cell.protocol == "https 2" else "1.1"
        self.processes = {}         # role -> pid
        self.expected = None        # what sync() must return

    async def start(self):
        pass

    async def prepare(self, sync):
        pass

    async def stop(self):
        pass

    def cpu(self):
        """CPU seconds so far, by role."""
        return {role: meter.cpu_seconds(pid) for role, pid in self.processes.items()}

    @contextlib.asynccontextmanager
    async def counted(self, result):
        """Adds to the result what the sync within did to the table, and the memory it took."""
        yield


class Storing(Contender):
    """With a table, in a database of its own."""

    table_name = "programs"

    async def start(self):
        self.database = f"{self.name}_{self.page_size}"
        await self.bench.cluster.create_database(self.database)
        self.observer = await self.bench.cluster.connect(self.database)
        await self.make_table()

    async def make_table(self):
        """Like yelp_programs with its indexes, but without the trigger."""
        await self.observer.execute(
            f"CREATE TABLE {self.table_name} (LIKE yelp_programs INCLUDING ALL)")

    def add_backend(self, pid):
        self.processes["backend"] = pid
        self.idle = meter.memory(pid, "RssAnon")

    async def prepare(self, sync):
        if sync == "first":
            await self.observer.execute(f"TRUNCATE {self.table_name}")
            await self.observer.execute("CHECKPOINT")
        elif sync == "repeat":
            await self.analyze()

    async def checksum(self):
        """(rows, a number that depends on each of them but not on their order)"""
        return tuple(await self.observer.fetchrow(
            f"SELECT count(*), sum(hashtextextended(ROW({COMPARED})::text, 0))"
            f" FROM {self.table_name}"))

    async def analyze(self):
        await self.observer.execute(f"VACUUM (ANALYZE) {self.table_name}")

    async def stop(self):
        await self.observer.close()
        await self.bench.cluster.drop_database(self.database)

    @contextlib.asynccontextmanager
    async def counted(self, result):
        start = await self.observer.fetchval("SELECT pg_current_wal_insert_lsn()::text")
        with meter.watched_backend(self.processes["backend"], self.idle, result.memory):
            yield
        result.wal = int(await self.observer.fetchval(
            "SELECT pg_current_wal_insert_lsn() - $1::text::pg_lsn", start))


class YelpSync(Storing):
    """The extension, called from a session that stays connected."""

    name = "yelp_sync"
    syncs = ("first", "repeat", "edited", "changed")
    table_name = "yelp_programs"

    async def make_table(self):
        await self.make_server("bench", ACCOUNT, page_size=self.page_size, concurrency=CONCURRENCY,
                               http_version=self.http_version,
                               **({"ca_file": self.ca_file} if self.ca_file else {}))

    async def make_server(self, name, account, **options):
        spelt = ", ".join(f"{option} '{value}'" for option, value in options.items())
        await self.observer.execute(f"""
            CREATE SERVER {name} FOREIGN DATA WRAPPER yelp_sync
                OPTIONS (endpoint '{self.url}', {spelt});
            CREATE USER MAPPING FOR CURRENT_USER SERVER {name}
                OPTIONS (username '{account}', password 'bench')""")

    async def start(self):
        await super().start()
        self.session = await self.bench.cluster.connect(self.database)
        await self.session.execute("SET yelp_sync.progress = off")
        self.processes = {"client": os.getpid()}
        self.add_backend(self.session.get_server_pid())

    async def prepare(self, sync):
        if sync == "edited":
            await self.observer.execute("UPDATE yelp_programs SET budget = coalesce(budget, 0) + 1")
            await self.analyze()
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

    @contextlib.asynccontextmanager
    async def counted(self, result):
        with meter.watched_process(self.process.pid, result.memory):
            async with super().counted(result):
                yield


class Original(Process, Storing):
    """A Python program with a bulk merge."""

    name = "original"

    async def start(self):
        await super().start()
        self.launch(sys.executable, os.path.join(HERE, "peer.py"), self.name, self.url,
                    str(self.page_size), self.ca_file, self.bench.cluster.directory,
                    self.database, self.table_name)
        self.add_backend(int(self.process.stdout.readline()))


class Threads(Original):
    name = "threads"


class Download(Process):
    """A bare libcurl multi program: the limit of every sync by libcurl."""

    name = "download"
    syncs = ("repeat",)

    async def start(self):
        self.launch(self.bench.download, self.url, str(self.page_size), str(CONCURRENCY),
                    self.http_version, *((self.ca_file,) if self.ca_file else ()))


class Curl(Contender):
    """One page after the other by curl, over one connection; nothing is stored."""

    name = "curl"
    syncs = ("repeat",)

    def cpu(self):
        """Its processes begin and end within the measured time."""
        usage = resource.getrusage(resource.RUSAGE_CHILDREN)
        return {"client": usage.ru_utime + usage.ru_stime}

    async def sync(self):
        last = (self.cell.programs - 1) // self.page_size * self.page_size
        tls = ("--cacert", self.ca_file) if self.ca_file else ()
        subprocess.run(
            ("curl", "--silent", "--show-error", "--fail", "--user", "bench:bench", *tls,
             "--output", os.devnull, f"{self.url}?offset=[0-{last}:{self.page_size}]"
             f"&limit={self.page_size}&program_status=ALL"), check=True)


CONTENDERS = {kind.name: kind for kind in (YelpSync, Original, Threads, Curl, Download, Copy)}
