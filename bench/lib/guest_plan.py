"""Which guests are run, in which order, and what is taken from each run. A plan yields one record
per run; what the records mean together is guest_summary's business.
"""
from .guest_run import GuestRun, RunError

APPEND = "console=ttyS0 panic=-1"
BARE, SIPI, MAILBOX, DEFAULT = "bare", "sipi", "mailbox", "default"
SEALED = "sealed"
VARIANT_ARGUMENTS = {
    BARE: ["--no-paravisor"],
    SIPI: ["--ap-start", "sipi"],
    MAILBOX: ["--ap-start", "mailbox"],
    DEFAULT: [],
    SEALED: ["--protect", "kernel"],
}
PARTS = ("costs", "boot", "work", "parked")
BOOT_CPUS = (1, 2, 4, 8)
WORK_CPUS = (1, 2, 4)
PARKED_CPUS = 8
PARKED_ROUNDS = 3
EXIT_DEVICE = ["-device", "isa-debug-exit,iobase=0xf4,iosize=4"]


class Plan:
    def __init__(self, parapet, build, rounds, parts, idle_seconds, say):
        self.parapet = parapet
        self.build = build
        self.rounds = rounds
        self.parts = parts
        self.idle_seconds = idle_seconds
        self.say = say
        self.mailbox = True  # until a run shows otherwise
        self.failures = []
        self.machine = {}

    def steps(self):
        """(round, part, variant, cpus, workload) of every run, interleaved: whole rounds, and in
        each the variants of one comparison next to each other."""
        for number in range(1, self.rounds + 1):
            if "costs" in self.parts:
                for variant in (BARE, DEFAULT):
                    yield number, "costs", variant, 1, None
            if "boot" in self.parts:
                for cpus in BOOT_CPUS:
                    variants = (BARE, DEFAULT) if cpus == 1 else (BARE, SIPI, MAILBOX)
                    for variant in variants:
                        yield number, "boot", variant, cpus, None
            if "work" in self.parts:
                for cpus in WORK_CPUS:
                    for workload in ("cpu", "fork"):
                        for variant in (BARE, DEFAULT, SEALED):
                            yield number, "work", variant, cpus, workload
            if "parked" in self.parts and number <= PARKED_ROUNDS:
                for variant in (BARE, SIPI, MAILBOX):
                    yield number, "parked", variant, PARKED_CPUS, None

    def run_all(self):
        records = []
        for step in self.steps():
            number, part, variant, cpus, workload = step
            if variant == MAILBOX and not self.mailbox:
                continue
            name = f"round {number}/{self.rounds}: {workload or part}, {cpus} CPUs, {variant}"
            # Once more: a figure that is missing leaves its partner without a pair.
            for attempt in (1, 2):
                try:
                    record = self._run(part, variant, cpus, workload)
                    break
                except RunError as error:
                    self.failures.append(f"{name}, attempt {attempt}: {error}")
                    self.say(f"FAILED {self.failures[-1]}")
                    record = None
            if record is None:
                continue
            if variant == MAILBOX and not self._used_mailbox(record, part):
                self.say("--ap-start mailbox changes nothing in this image: left out")
                self.mailbox = False
                continue
            record.update(round=number, part=part, variant=variant, cpus=cpus, workload=workload)
            records.append(record)
            self.say(f"{name}: {self._headline(record)}")
        return records

    @staticmethod
    def _used_mailbox(record, part):
        """A guest that was given a mailbox starts its processors through it; parked ones do not."""
        if part == "parked":
            return True
        return bool((record["stats"].get("mailbox") or {}).get("wakeups"))

    @staticmethod
    def _headline(record):
        if "work_us" in record:
            return f"{record['work_us'] / 1e3:,.0f} ms"
        if "boot" in record:
            return f"{record['boot']['wall_us'] / 1e3:,.0f} ms to init"
        if "idle" in record:
            idle = record["idle"]
            return f"{idle['processor_seconds']:.2f} s of processor in {idle['seconds']:.1f} s"
        return f"CPUID {record['costs_ns']['cpuid'][0]:,.0f} ns"

    def _run(self, part, variant, cpus, workload):
        arguments = VARIANT_ARGUMENTS[variant] + ["--cpus", str(cpus)]
        if part == "costs":
            # What VTL calls cost is measured where there can be some.
            run = GuestRun(self.parapet, arguments + ([] if variant == BARE else ["--vsm"]) + [
                "--memory", "256M", "--kernel", f"{self.build}/guest/tests/exitcost.elf",
                "--allow-io", "f4-f7"], qemu_arguments=EXIT_DEVICE)
            return {"costs_ns": run.costs_ns(), "stats": run.stats}
        if part == "parked":
            run = GuestRun(self.parapet, arguments + [
                "--kernel", f"{self.build}/guest/vmlinuz",
                "--initrd", f"{self.build}/bench/idle.img", "--append",
                f"{APPEND} maxcpus=1 bench.seconds={self.idle_seconds}"],
                timeout=120 + self.idle_seconds)
            return {"idle": run.idle(), "stats": run.stats}
        run = GuestRun(self.parapet, arguments + [
            "--append", f"{APPEND} demo.run={workload or 'none'}"])
        if not self.machine:
            self.machine = dict(run.model(), qemu=run.stats["qemu"])
        record = {"boot": run.boot(), "stats": run.stats, "processor_s": run.processor,
                  "wall_s": run.wall}
        if cpus > 1:
            if run.processors() != cpus:
                raise RunError(f"{run.processors()} of {cpus} processors came up")
            record["ap_start_log_us"] = run.ap_start_us()
        if workload:
            record["work_us"] = run.work_us(workload)
        return record
