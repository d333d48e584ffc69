"""What a sync costs: wall time, CPU time of the processes at work, and their peak memory."""
import contextlib
import ctypes
import re
import threading
import time

libc = ctypes.CDLL(None, use_errno=True)

SAMPLE_INTERVAL = 0.001         # seconds, of a backend's memory


def cpu_seconds(pid):
    """CPU time of a process, the threads that it has ended included; exact to the nanosecond."""
    clock = ctypes.c_int()
    error = libc.clock_getcpuclockid(pid, ctypes.byref(clock))
    if error:
        raise ProcessLookupError(error, f"no CPU clock of process {pid}")
    return time.clock_gettime(clock.value)


def memory(pid, field):
    """A field of /proc/PID/status in bytes."""
    with open(f"/proc/{pid}/status") as status:
        return 1024 * int(re.search(rf"^{field}:\s*(\d+)", status.read(), re.MULTILINE)[1])


class BackendMemory:
    """The most memory of its own that a backend has at a time, over what it had when idle.

    VmHWM would count the shared buffers that it has touched, so RssAnon is watched instead.
    """

    def __init__(self, pid, idle):
        self.pid = pid
        self.idle = idle
        self.peak = 0
        self.over = threading.Event()

    def watch(self):
        while True:
            self.peak = max(self.peak, memory(self.pid, "RssAnon") - self.idle)
            if self.over.wait(SAMPLE_INTERVAL):
                return

    @contextlib.contextmanager
    def watched(self):
        thread = threading.Thread(target=self.watch)
        thread.start()
        try:
            yield
        finally:
            self.over.set()
            thread.join()


class ProcessMemory:
    """The most memory that another process has: the kernel's own high-water mark."""

    def __init__(self, pid):
        self.pid = pid
        self.peak = 0

    @contextlib.contextmanager
    def watched(self):
        with open(f"/proc/{self.pid}/clear_refs", "w") as marks:
            marks.write("5")
        yield
        self.peak = memory(self.pid, "VmHWM")


class Stopwatch:
    """Wall time and the CPU time of each process, by its role, from start to stop."""

    def __init__(self, processes):
        self.processes = processes
        self.cpu_before = self.cpu()
        self.wall_before = time.perf_counter()

    def cpu(self):
        return {role: cpu_seconds(pid) for role, pid in self.processes.items()}

    def stop(self):
        wall = time.perf_counter() - self.wall_before
        after = self.cpu()
        return wall, {role: after[role] - self.cpu_before[role] for role in after}
