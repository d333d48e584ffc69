#!/usr/bin/python3
"""Proves the stand-in itself, with a client that sees raw bytes.  Prints TAP."""
import sys
import traceback

# Each of them registers its cases
import selftest_endpoint    # noqa: F401
import selftest_control     # noqa: F401
import selftest_faults      # noqa: F401
from selftest_tools import CASES, Server


def run(api, number, title, function):
    api.order("reset")
    try:
        api.poll_counter("open_connections", 0)
        function(api)
    except Exception:
        print(f"not ok {number} - {title}", flush=True)
        print("".join(f"# {line}\n" for line in traceback.format_exc().splitlines()), end="")
        return False
    print(f"ok {number} - {title}", flush=True)
    return True


def main():
    print(f"1..{len(CASES)}")
    api = Server()
    try:
        passed = [run(api, number, *what) for number, what in enumerate(CASES, 1)]
    finally:
        api.stop()
    sys.exit(not all(passed))


main()
