"""One run of a guest through `parapet run`: its console with arrival times, its statistics, and
what its QEMU used of the host's processors. Nothing that compares runs may enter.
"""
import json
import os
import re
import resource
import subprocess
import tempfile
import threading
import time

INIT = re.compile(r"^\[ *(\d+\.\d+)\] Run /init as init process")
SMP_BEGIN = re.compile(r"^\[ *(\d+\.\d+)\] smp: Bringing up secondary CPUs")
SMP_END = re.compile(r"^\[ *(\d+\.\d+)\] smp: Brought up \d+ nodes?, (\d+) CPUs?")
WORK = re.compile(r"^bench: (cpu|fork) (\d+)$")
COST = re.compile(r"^exitcost: (\S+) (\d+) (\d+\.\d) (\d+\.\d)$")
IDLE = re.compile(r"^bench: idle (begin|end)")
TSC = re.compile(r"tsc: Detected (\d+\.\d+) MHz")
CPU_MODEL = re.compile(r"smpboot: CPU0: (.*?)(?: \(family.*)?$")

# Kept of --stats; arrays per VP are not.
KEPT = ("boot_us", "guest_us", "ap_start", "exits", "apic", "events", "mailbox", "denied", "flush",
        "text_bytes", "qemu", "accel")


class RunError(Exception):
    """A run that did not end well or did not print what it should have."""


def _without_per_vp(value):
    if isinstance(value, dict):
        return {key: item for key, item in value.items() if key != "per_vp"}
    return value


def _descendants(pid):
    """The processes below one, as /proc shows them now."""
    try:
        with open(f"/proc/{pid}/task/{pid}/children", encoding="ascii") as file:
            children = [int(word) for word in file.read().split()]
    except OSError:
        return []
    found = []
    for child in children:
        found += [child] + _descendants(child)
    return found


def _processor_seconds(pids):
    """User and system time that these processes have used so far."""
    ticks = 0
    for pid in pids:
        try:
            with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
                fields = file.read().rpartition(")")[2].split()
        except OSError:
            continue
        ticks += int(fields[11]) + int(fields[12])  # utime, stime: fields 14 and 15 of proc(5)
    return ticks / os.sysconf("SC_CLK_TCK")


class GuestRun:
    """Runs a guest at once. Times are seconds of the host's monotonic clock unless said otherwise.

    Raises RunError when the command's exit status is not 0.
    """

    def __init__(self, parapet, arguments, timeout=120, qemu_arguments=()):
        self.lines = []
        self.stats = {}
        self.marks = {}  # idle begin and end: (time, processor seconds of QEMU)
        self._said = ""
        with tempfile.TemporaryDirectory(prefix="bench.") as directory:
            stats = os.path.join(directory, "stats.json")
            command = [parapet, "run", "--accel", "tcg", "--stats", stats, "--timeout",
                       str(timeout)] + list(arguments)
            if qemu_arguments:
                command += ["--"] + list(qemu_arguments)
            self._execute(command, timeout)
            try:
                with open(stats, encoding="utf-8") as file:
                    everything = json.load(file)
            except (OSError, ValueError) as error:
                raise RunError(f"no statistics: {error}") from error
            self.stats = {key: _without_per_vp(everything.get(key)) for key in KEPT}

    def _execute(self, command, timeout):
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        start = time.monotonic()
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                   stderr=subprocess.PIPE)
        speaker = threading.Thread(target=self._listen, args=(process.stderr,), daemon=True)
        speaker.start()
        # The command has a limit of its own; this one is for a command that does not keep to it.
        guard = threading.Timer(timeout + 30, process.kill)
        guard.start()
        try:
            for line in process.stdout:
                now = time.monotonic() - start
                text = line.decode("utf-8", "replace").rstrip("\r\n")
                self.lines.append((now, text))
                mark = IDLE.match(text)
                if mark:
                    used_now = _processor_seconds(_descendants(process.pid))
                    self.marks[mark.group(1)] = (now, used_now)
            status = process.wait()
        except BaseException:
            process.terminate()
            process.wait()
            raise
        finally:
            guard.cancel()
        speaker.join()
        self.wall = time.monotonic() - start
        now_used = resource.getrusage(resource.RUSAGE_CHILDREN)
        self.processor = (now_used.ru_utime + now_used.ru_stime - used.ru_utime - used.ru_stime)
        if status != 0:
            last = [text for text in self._said.splitlines() if text.strip()][-3:]
            raise RunError(f"status {status}: " + " / ".join(last))

    def _listen(self, stream):
        self._said = stream.read().decode("utf-8", "replace")

    def _find(self, pattern):
        for when, text in self.lines:
            match = pattern.search(text)
            if match:
                return when, match
        raise RunError(f"the console never says {pattern.pattern!r}")

    def boot(self):
        """Wall clock to init and the kernel's own time stamp there, both in microseconds."""
        when, match = self._find(INIT)
        return {"wall_us": when * 1e6, "printk_us": float(match.group(1)) * 1e6}

    def ap_start_us(self):
        """What the guest's log says from the first request to the last processor online."""
        begin = self._find(SMP_BEGIN)[1]
        end = self._find(SMP_END)[1]
        return (float(end.group(1)) - float(begin.group(1))) * 1e6

    def processors(self):
        return int(self._find(SMP_END)[1].group(2))

    def work_us(self, name):
        match = self._find(WORK)[1]
        if match.group(1) != name:
            raise RunError(f"the workload was {match.group(1)}, not {name}")
        return float(match.group(2))

    def costs_ns(self):
        """{name: (median, least)} of the batches."""
        found = {}
        for _, text in self.lines:
            match = COST.match(text)
            if match:
                found[match.group(1)] = (float(match.group(3)), float(match.group(4)))
        if not found:
            raise RunError("no exit was timed")
        return found

    def idle(self):
        """While the guest slept: seconds that passed, and processor seconds of QEMU."""
        if set(self.marks) != {"begin", "end"}:
            raise RunError("the guest did not sleep between its two marks")
        (begin, used_before), (end, used_after) = self.marks["begin"], self.marks["end"]
        return {"seconds": end - begin, "processor_seconds": used_after - used_before}

    def model(self):
        """The processor as the guest's kernel names it, and its TSC in MHz."""
        return {"cpu": self._find(CPU_MODEL)[1].group(1).strip(),
                "tsc_mhz": float(self._find(TSC)[1].group(1))}
