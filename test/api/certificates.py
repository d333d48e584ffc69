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

EC = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
LOCAL = "DNS:localhost,IP:127.0.0.1,IP:0:0:0:0:0:0:0:1"
SERVERS = {             # name: (CA, subjectAltName)
    "server": ("ca", LOCAL),
    "wrong_host": ("ca", "DNS:elsewhere.example"),
    "untrusted": ("other_ca", LOCAL),
}


def openssl(directory, *arguments):
    done = subprocess.run(("openssl", *arguments), cwd=directory, text=True,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    if done.returncode != 0:
        raise RuntimeError(f"openssl {' '.join(arguments)}\n{done.stdout}")


def make_ca(directory, name):
    openssl(directory, "req", "-x509", *EC, "-days", "30", "-subj", f"/CN=Test CA {name}",
            "-addext", "keyUsage=critical,keyCertSign,cRLSign",
            "-keyout", f"{name}.key", "-out", f"{name}.pem")


def make_server(directory, name, ca, hosts):
    with open(os.path.join(directory, f"{name}.ext"), "w") as extensions:
        extensions.write(f"subjectAltName={hosts}\nbasicConstraints=CA:FALSE\n"
                         "extendedKeyUsage=serverAuth\n")
    openssl(directory, "req", *EC, "-subj", f"/CN=Test {name}",
            "-keyout", f"{name}.key", "-out", f"{name}.csr")
    openssl(directory, "x509", "-req", "-days", "30", "-in", f"{name}.csr", "-CA", f"{ca}.pem",
            "-CAkey", f"{ca}.key", "-CAcreateserial", "-extfile", f"{name}.ext",
            "-out", f"{name}.crt")
    with open(os.path.join(directory, f"{name}.pem"), "w") as both:
        for part in ("crt", "key"):
            with open(os.path.join(directory, f"{name}.{part}")) as one:
                both.write(one.read())


def make_certificates(directory):
    """Where there are none.  Servers that share the directory wait for the first."""
    os.makedirs(directory, mode=0o700, exist_ok=True)
    complete = os.path.join(directory, "complete")
    with open(os.path.join(directory, "lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if os.path.exists(complete):
            return
        for ca in ("ca", "other_ca"):
            make_ca(directory, ca)
        for name, (ca, hosts) in SERVERS.items():
            make_server(directory, name, ca, hosts)
        open(complete, "w").close()


def server_context(directory, name):
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(os.path.join(directory, f"{name}.pem"))
    return context
