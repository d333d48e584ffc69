#!/usr/bin/python3
"""The page's own users, in a file with one line for each: name:n:r:p:salt:hash.

Hashes are scrypt's.  `users.py FILE NAME` adds a user or changes the password, which it asks
for, or reads from standard input where that is no terminal.
"""
import asyncio
import base64
import getpass
import hashlib
import hmac
import os
import sys

COST = (1 << 14, 8, 1)                      # 16 MB and some 50 ms for each check
NOBODY = (*COST, b"nobody's salt", b"")     # takes as long to check, and matches nothing
MOST_CHECKS = 2                             # at once


def scrypt(password, n, r, p, salt):
    return hashlib.scrypt(password.encode(), salt=salt, n=n, r=r, p=p)


def read(path):
    """The entries of the file, by name."""
    with open(path, encoding="utf-8") as file:
        lines = [line.rstrip("\n").split(":") for line in file if line.strip()]
    return {name: (int(n), int(r), int(p), base64.b64decode(salt), base64.b64decode(wanted))
            for name, n, r, p, salt, wanted in lines}


def write(path, entries):
    """Replaces the file as a whole, for its owner's eyes only."""
    new = os.open(f"{path}.new", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with open(new, "w", encoding="utf-8") as file:
        for name, (*cost, salt, wanted) in entries.items():
            texts = (base64.b64encode(octets).decode() for octets in (salt, wanted))
            print(name, *cost, *texts, sep=":", file=file)
    os.rename(f"{path}.new", path)


class Users:
    def __init__(self, path):
        read(path)                          # a file that cannot be read is to be known at once
        self.path, self.key, self.known = path, os.urandom(32), set()
        self.checks = asyncio.Semaphore(MOST_CHECKS)

    async def check(self, name, password):
        """Whether it is the user's password.  What was found right is not hashed again."""
        entry = read(self.path).get(name, NOBODY)
        proof = hmac.digest(self.key, repr((name, password, entry)).encode(), "sha256")
        if proof in self.known:
            return True
        async with self.checks:
            found = await asyncio.to_thread(scrypt, password, *entry[:-1])
        if not hmac.compare_digest(found, entry[-1]):
            return False
        self.known.add(proof)
        return True


def main():
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    path, name = sys.argv[1:]
    if not name or ":" in name or not name.isprintable():
        sys.exit("a name is printable and has no colon")
    password = getpass.getpass() if sys.stdin.isatty() else sys.stdin.readline().rstrip("\n")
    if not password:
        sys.exit("a user needs a password")
    salt = os.urandom(16)
    try:
        entries = read(path) if os.path.exists(path) else {}
        write(path, {**entries, name: (*COST, salt, scrypt(password, *COST, salt))})
    except OSError as error:
        sys.exit(f"{os.path.basename(sys.argv[0])}: {error}")


if __name__ == "__main__":
    main()
