"""The server that all methods are measured against: nginx with prepared pages, on loopback.

The URL of a listing is SCHEME://127.0.0.1:PORT/LATENCY/PROGRAMS/programs/v1, the latency in ms.
A listing has two states, `a` and `b`, of which 1 % of the programs differ; which one is served
is a symbolic link that show() switches.
"""
import concurrent.futures
import contextlib
import os
import socket
import subprocess
import sys
import time
import urllib.request

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "api"))
import certificates
import changes
import programs

LATENCIES = (0, 100, 500)
ECHO_MODULE = "/usr/lib/nginx/modules/ngx_http_echo_module.so"

# How many of a listing's programs are (altered, removed, added) between its two states
PER_STATE = (0.008, 0.001, 0.001)

CONFIGURATION = """
load_module {module};
daemon off;
worker_processes 1;
worker_rlimit_nofile 8192;
pid nginx.pid;
error_log error.log;
events {{ worker_connections 4096; }}
http {{
    default_type application/json;
    client_body_temp_path tmp; proxy_temp_path tmp; fastcgi_temp_path tmp;
    uwsgi_temp_path tmp; scgi_temp_path tmp;
    sendfile on;
    tcp_nopush on;
    keepalive_requests 100000000;
    keepalive_timeout 1h;
    http2_max_concurrent_streams 1000;
    log_format size $bytes_sent;
    access_log access.log size;
    limit_req_zone $server_port zone=limited:1m rate={rate}r/s;
    limit_req_status 429;
    server {{
        listen 127.0.0.1:{http};
        listen 127.0.0.1:{https} ssl http2;
        ssl_certificate tls/server.pem;
        ssl_certificate_key tls/server.pem;
        ssl_session_cache shared:sessions:4m;
        location ~ ^/0/(?<listing>\\d+)/programs/v1$ {{ {page} }}
        {sleeping}
        location ~ ^/limited/(?<listing>\\d+)/programs/v1$ {{
            limit_req zone=limited burst={burst} nodelay;
            {page}
        }}
        location ~ ^/pages/(?<listing>\\d+)/ {{
            internal;
            try_files $uri /pages/$listing/empty.json;
        }}
        root {root};
    }}
    server {{
        listen 127.0.0.1:{status};
        access_log off;
        location / {{ return 204; }}
    }}
}}
"""

PAGE = "try_files /pages/$listing/$arg_limit/$arg_offset.json /pages/$listing/empty.json;"
SLEEPING = """
        location ~ ^/{ms}/(?<listing>\\d+)/programs/v1$ {{
            echo_sleep {seconds};
            echo_exec /pages/$listing/$arg_limit/$arg_offset.json;
        }}"""

RATE, BURST = 20, 20            # of the rate limiter at /limited/


def free_ports(names):
    """A free port for each name; all are held until the last is found: none comes twice."""
    with contextlib.ExitStack() as stack:
        return {name: stack.enter_context(socket.create_server(("127.0.0.1", 0))).getsockname()[1]
                for name in names}


def write_pages(directory, listing, page_size):
    """The whole pages, and all that a look at the end may ask for."""
    end = len(listing)
    near_end = range(max(end - 2 * page_size, 1), end)
    requests = [(page_size, offset) for offset in range(0, end, page_size)]
    requests += [(page_size, offset) for offset in near_end]
    for limit, offset in requests:
        name = os.path.join(directory, str(limit), f"{offset}.json")
        os.makedirs(os.path.dirname(name), exist_ok=True)
        with open(name, "wb") as page:
            page.write(programs.page_text(listing, offset, limit))
    with open(os.path.join(directory, "empty.json"), "wb") as page:
        page.write(programs.page_text(listing, end, page_size))


def prepare(pages, state, count, page_sizes):
    """Write the pages of a listing in one of its states."""
    listing = programs.Listing("bench", count)
    if state == "b":
        alter, remove, add = (round(count * share) for share in PER_STATE)
        changes.mutate(listing, "bench", alter=alter, remove=remove, add=add)
    for page_size in page_sizes:
        write_pages(os.path.join(pages, f"{count}-{state}"), listing, page_size)


def changed_programs(count):
    return sum(round(count * share) for share in PER_STATE)


class Web:
    def __init__(self, directory):
        self.directory = directory
        self.pages = os.path.join(directory, "pages")
        self.ca_file = os.path.join(directory, "tls", "ca.pem")
        self.ports = free_ports(("http", "https", "status"))
        self.process = None
        self.logged = 0             # where the part of the access log begins that is not read yet
        self.shown = {}             # programs -> state

    def prepare(self, listings):
        """`listings` maps a number of programs to (page sizes, states)."""
        os.makedirs(self.pages)
        with concurrent.futures.ProcessPoolExecutor() as pool:
            tasks = [pool.submit(prepare, self.pages, state, count, page_sizes)
                     for count, (page_sizes, states) in sorted(listings.items(), reverse=True)
                     for state in states]
            for task in tasks:
                task.result()
        for count in listings:
            self.show(count, "a")

    def show(self, count, state):
        """From now on the listing is in this state."""
        if self.shown.get(count) == state:
            return
        link = os.path.join(self.pages, str(count))
        os.symlink(f"{count}-{state}", link + ".new")
        os.replace(link + ".new", link)
        self.shown[count] = state

    def start(self):
        os.makedirs(os.path.join(self.directory, "tmp"))
        certificates.make_certificates(os.path.join(self.directory, "tls"))
        sleeping = "".join(SLEEPING.format(ms=ms, seconds=ms / 1000) for ms in LATENCIES if ms)
        with open(os.path.join(self.directory, "nginx.conf"), "w") as file:
            file.write(CONFIGURATION.format(
                module=ECHO_MODULE, sleeping=sleeping, page=PAGE, root=self.directory,
                rate=RATE, burst=BURST, **self.ports))
        self.process = subprocess.Popen(
            ("nginx", "-p", self.directory, "-e", "error.log", "-c", "nginx.conf"),
            stdin=subprocess.DEVNULL)
        self.wait_until_up()

    def wait_until_up(self):
        """nginx does not report that it is listening, so ask until it answers."""
        while self.process.poll() is None:
            try:
                return self.ask()
            except OSError:
                time.sleep(0.02)
        raise RuntimeError("nginx does not start")

    def stop(self):
        if self.process:
            self.process.terminate()
            self.process.wait()

    def url(self, count, latency, protocol):
        scheme = "http" if protocol == "http" else "https"
        return f"{scheme}://127.0.0.1:{self.ports[scheme]}/{latency}/{count}/programs/v1"

    def new_traffic(self):
        """The requests that ended since the last call, and the bytes sent in answer to them."""
        self.ask()
        with open(os.path.join(self.directory, "access.log")) as log:
            log.seek(self.logged)
            sizes = [int(size) for size in log.read().split()]
            self.logged = log.tell()
        return len(sizes), sum(sizes)

    def ask(self):
        """One request that is not counted.

        There is one worker: when it answers, what it served before is in its log.
        """
        urllib.request.urlopen(f"http://127.0.0.1:{self.ports['status']}/").close()
