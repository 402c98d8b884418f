"""The tables of bench/guest: (title, name, header, rows), made from a summary. One place, so that
the terminal and docs/benchmarks.md show the same figures.
"""
from .guest_plan import BARE, DEFAULT, MAILBOX, SEALED, SIPI
from .tables import number, spread

NAMES = {BARE: "bare machine", SIPI: "Parapet, sipi", MAILBOX: "Parapet, mailbox",
         DEFAULT: "Parapet"}
PARTS = {"apic_eoi": "EOI", "apic_timer": "timer", "apic_icr": "ICR", "apic_other": "other APIC",
         "pci_config": "PCI configuration"}


def _cpus(count):
    return "1 CPU" if int(count) == 1 else f"{count} CPUs"


def _boot(summary):
    rows = []
    for cpus, found in summary["boot"].items():
        for variant, entry in found["wall_us"].items():
            rows.append([f"{_cpus(cpus)}, {NAMES[variant]}",
                         spread(entry["value"], 1e3),
                         "1" if variant == BARE else spread(entry["ratio"], 1, 2),
                         spread(found["printk_us"][variant]["value"], 1e3),
                         "1" if variant == BARE else spread(
                             found["printk_us"][variant]["ratio"], 1, 2),
                         spread(found["processor_s"][variant]["value"], 1, 1)])
    return ("Boot to init", "boot", ["", "wall clock, ms", "ratio", "printk time, ms", "ratio",
                                     "host processor, s"], rows)


def _work(summary):
    rows = []
    for name, found in summary["work"].items():
        workload, cpus = name.split()
        if DEFAULT not in found or BARE not in found:
            continue
        # Runs from before there was such a variant have none.
        sealed = found.get(SEALED)
        rows.append([f"{workload}, {_cpus(cpus)}", spread(found[BARE]["value"], 1e3),
                     spread(found[DEFAULT]["value"], 1e3), spread(found[DEFAULT]["ratio"], 1, 3),
                     spread(sealed["value"], 1e3) if sealed else "",
                     spread(sealed["default_ratio"], 1, 3) if sealed else ""])
    return ("Workloads", "work", ["", "bare machine, ms", "Parapet, ms", "ratio",
                                  "kernel sealed, ms", "against Parapet"], rows)


def _ap_log(summary):
    rows = []
    for cpus, found in summary["ap_start"].items():
        for variant, entry in found["log_us"].items():
            against = found["log_ratio"] if variant == MAILBOX else None
            rows.append([f"{_cpus(cpus)}, {NAMES[variant]}", spread(entry["value"], 1e3, 1),
                         "1" if variant == BARE else spread(entry["ratio"], 1, 2),
                         "1" if variant == SIPI else spread(against, 1, 2)])
    return ("AP start, first request to last processor online, by the guest's own log", "ap-log",
            ["", "ms", "against bare", "against sipi"], rows)


def _ap_each(summary):
    rows = []
    for cpus, found in summary["ap_start"].items():
        for variant, entry in found["per_vp_us"].items():
            against = found["per_vp_ratio"] if variant == MAILBOX else None
            rows.append([f"{_cpus(cpus)}, {NAMES[variant]}", spread(entry),
                         "1" if variant == SIPI else spread(against, 1, 2),
                         spread(found["total_us"].get(variant), 1e3, 1)])
    return ("AP start, request to first guest instruction, by Parapet's clock", "ap-each",
            ["", "each, us", "against sipi", "first to last, ms"], rows)


def _costs(summary):
    rows = [[name, spread(entry["bare_ns"], 1, 1), spread(entry["paravisor_ns"], 1, 1),
             number(entry["extra_ns"], 0)] for name, entry in summary["costs"].items()]
    return ("What one costs, ns", "costs", ["", "bare machine", "Parapet", "more"], rows)


def _exits(summary):
    rows = []
    for name, entry in summary["exits"].items():
        words = name.split()
        title = f"{words[0]}, {_cpus(words[1])}"
        if len(words) > 2 and words[2] != DEFAULT:
            title += f", {words[2]}"
        rows.append([title, number(entry["count"]), number(entry["per_second"]), "",
                     number(entry["cost_us"] / 1e3)])
        for kind, found in entry["kinds"].items():
            if found["count"]:
                rows.append([f"- {kind.replace('_', ' ')}", number(found["count"]),
                             number(found["per_second"]),
                             number(found["cost_ns"] and found["cost_ns"] / 1e3, 1),
                             number(found["cost_us"] and found["cost_us"] / 1e3)])
        rows += [[f"- - {PARTS[part]}", number(found["count"]), number(found["per_second"]), "", ""]
                 for part, found in entry["parts"].items() if found["count"]]
    return ("Exits, and what they cost all VPs together", "exits",
            ["", "exits", "per second", "us each", "ms in all"], rows)


def _parked(summary):
    rows = [[NAMES[variant], spread(entry["value"], 0.01, 2),
             "1" if variant == BARE else spread(entry["ratio"], 1, 2)]
            for variant, entry in summary["parked"].items()]
    return ("Seven of eight processors parked: host processor time of QEMU, % of one core",
            "parked", ["", "%", "ratio"], rows)


def tables(summary):
    """All tables that have something to show."""
    made = [make(summary) for make in (_boot, _work, _ap_each, _ap_log, _parked, _costs, _exits)]
    return [table for table in made if table[3]]
