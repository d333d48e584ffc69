"""The machine and the versions of the programs, for the report."""
import os
import platform
import re
import subprocess

import aiohttp
import asyncpg


def version(*command):
    """The first thing that looks like a version in what the program prints."""
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    return re.search(r"\d+(\.\d+)+", done.stdout)[0]


async def describe(cluster):
    memory = round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2 ** 30)
    shared_buffers = await cluster.execute("postgres", "SHOW shared_buffers")
    return (f"{os.cpu_count()} CPUs ({platform.machine()}), {memory} GB of memory,"
            f" Linux {platform.release().split('-')[0]};"
            f" PostgreSQL {version('postgres', '-V')} (JIT off, shared_buffers {shared_buffers}),"
            f" libcurl {version('curl', '-V')}, nginx {version('nginx', '-v')} with one worker;"
            f" Python {platform.python_version()}, aiohttp {aiohttp.__version__},"
            f" asyncpg {asyncpg.__version__}")
