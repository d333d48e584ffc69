"""What a sync costs: CPU time of the processes at work, and their peak memory."""
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


@contextlib.contextmanager
def watched_process(pid, peaks):
    """peaks["client"] is the kernel's own high-water mark of another process."""
    with open(f"/proc/{pid}/clear_refs", "w") as marks:
        marks.write("5")
    yield
    peaks["client"] = memory(pid, "VmHWM")


@contextlib.contextmanager
def watched_backend(pid, idle, peaks):
    """peaks["backend"] is the most memory of its own, over what it had when idle.

    VmHWM would count the shared buffers that it has touched, so RssAnon is watched instead.
    """
    over = threading.Event()
    peaks["backend"] = 0

    def watch():
        while True:
            peaks["backend"] = max(peaks["backend"], memory(pid, "RssAnon") - idle)
            if over.wait(SAMPLE_INTERVAL):
                return

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
