"""A test CA and server certificates, made with openssl.

    ca.pem         the CA that clients trust
    server.pem     for localhost, 127.0.0.1 and ::1
    wrong_host.pem by the same CA, for another host
    other_ca.pem   a CA that nobody trusts
    untrusted.pem  for localhost, by that CA

Each NAME.pem of a server holds certificate and key.
"""
import fcntl
import os
import ssl
import subprocess

LOCAL = "DNS:localhost,IP:127.0.0.1,IP:0:0:0:0:0:0:0:1"
SERVERS = {             # name: (CA, subjectAltName)
    "server": ("ca", LOCAL),
    "wrong_host": ("ca", "DNS:elsewhere.example"),
    "untrusted": ("other_ca", LOCAL),
}


def make(directory, name, key, *options):
    """NAME.pem, and its key in a file that may be the same."""
    command = ("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1",
               "-nodes", "-days", "30", "-subj", f"/CN=Test {name}", "-keyout", key,
               "-out", f"{name}.pem", *options)
    done = subprocess.run(command, cwd=directory, text=True, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command)}\n{done.stdout}")


def make_certificates(directory):
    """Where there are none.  Servers that share the directory wait for the first."""
    os.makedirs(directory, mode=0o700, exist_ok=True)
    complete = os.path.join(directory, "complete")
    with open(os.path.join(directory, "lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if os.path.exists(complete):
            return
        for ca in ("ca", "other_ca"):
            make(directory, ca, f"{ca}.key", "-addext", "keyUsage=critical,keyCertSign,cRLSign")
        for name, (ca, hosts) in SERVERS.items():
            make(directory, name, f"{name}.pem", "-CA", f"{ca}.pem", "-CAkey", f"{ca}.key",
                 "-addext", f"subjectAltName={hosts}", "-addext", "basicConstraints=CA:FALSE",
                 "-addext", "extendedKeyUsage=serverAuth")
        open(complete, "w").close()


def server_context(directory, name):
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(os.path.join(directory, f"{name}.pem"))
    return context
