"""What the records of a run of bench/guest say together: medians, pairwise ratios, and the exits
with their price. Reads records only; runs nothing and formats nothing.
"""
import statistics

from .guest_plan import BARE, BOOT_CPUS, DEFAULT, MAILBOX, SEALED, SIPI, WORK_CPUS
from .spread import ratios, spread

# The kinds of exit, and which of exitcost's figures stand for the price of one (their mean): the
# port exits are PCI configuration, half of them its address and half its data; the MSR is the EOI's
# mostly.
PRICES = {"cpuid": ("cpuid",), "msr": ("msr-eoi",), "io": ("io-pci-select", "io-pci-read"),
          "memory_fault": ("apic-timer",), "nmi": ("nmi-self",)}
PARTS = (("apic_eoi", "eoi"), ("apic_timer", "timer"), ("apic_icr", "icr"),
         ("apic_other", "other"))
# What the bare machine does instead; the rest is done there under the same name.
BARE_NAMES = {"msr-eoi": "apic-eoi", "msr-synthetic": None, "vtl-call": None,
              "vtl-protect": None, "vtl-protect-64": None}


class Records:
    def __init__(self, records):
        self.records = records

    def select(self, **wanted):
        return [record for record in self.records
                if all(record.get(key) == value for key, value in wanted.items())]

    def by_round(self, get, **wanted):
        return {record["round"]: get(record) for record in self.select(**wanted)}


def _compared(records, get, variants, **wanted):
    """{variant: {value, ratio}}: the ratio is against the bare machine, pairwise."""
    bare = records.by_round(get, variant=BARE, **wanted)
    result = {}
    for variant in (BARE,) + variants:
        values = records.by_round(get, variant=variant, **wanted)
        if values:
            result[variant] = {"value": spread(values.values()),
                               "ratio": spread(ratios(values, bare))}
    return result


def _boot(records):
    result = {}
    for cpus in BOOT_CPUS:
        wanted = {"part": "boot", "cpus": cpus}
        variants = (DEFAULT, SIPI, MAILBOX)
        result[cpus] = {
            "wall_us": _compared(records, lambda r: r["boot"]["wall_us"], variants, **wanted),
            "printk_us": _compared(records, lambda r: r["boot"]["printk_us"], variants, **wanted),
            "processor_s": _compared(records, lambda r: r["processor_s"], variants, **wanted),
        }
    return {cpus: found for cpus, found in result.items() if found["wall_us"]}


def _work(records):
    result = {}
    for workload in ("cpu", "fork"):
        for cpus in WORK_CPUS:
            wanted = {"part": "work", "cpus": cpus, "workload": workload}
            found = _compared(records, lambda r: r["work_us"], (DEFAULT, SEALED), **wanted)
            if found:
                if SEALED in found:
                    found[SEALED]["default_ratio"] = spread(ratios(
                        records.by_round(lambda r: r["work_us"], variant=SEALED, **wanted),
                        records.by_round(lambda r: r["work_us"], variant=DEFAULT, **wanted)))
                result[f"{workload} {cpus}"] = found
    return result


def _ap_start(records):
    """Figures (a) and (b); mailbox against SIPI pairwise too, by the median of each run."""
    def per_vp(record):
        return statistics.median(record["stats"]["ap_start"]["per_vp_us"])

    result = {}
    for cpus in BOOT_CPUS:
        if cpus == 1 or not records.select(part="boot", cpus=cpus):
            continue
        wanted = {"part": "boot", "cpus": cpus}
        found = {"log_us": _compared(records, lambda r: r["ap_start_log_us"], (SIPI, MAILBOX),
                                     **wanted), "per_vp_us": {}, "total_us": {}}
        for variant in (SIPI, MAILBOX):
            runs = records.select(variant=variant, **wanted)
            if not runs:
                continue
            starts = [run["stats"]["ap_start"] for run in runs]
            found["per_vp_us"][variant] = spread(
                [us for start in starts for us in start["per_vp_us"]])
            found["total_us"][variant] = spread([start["total_us"] for start in starts])
        found["per_vp_ratio"] = spread(ratios(
            records.by_round(per_vp, variant=MAILBOX, **wanted),
            records.by_round(per_vp, variant=SIPI, **wanted)))
        found["log_ratio"] = spread(ratios(
            records.by_round(lambda r: r["ap_start_log_us"], variant=MAILBOX, **wanted),
            records.by_round(lambda r: r["ap_start_log_us"], variant=SIPI, **wanted)))
        result[cpus] = found
    return result


def _costs(records):
    result = {}
    bare, under = (records.select(part="costs", variant=variant) for variant in (BARE, DEFAULT))
    if not bare or not under:
        return result
    for name in under[0]["costs_ns"]:
        bare_name = BARE_NAMES.get(name, name)
        result[name] = {"paravisor_ns": _cost(under, name), "bare_ns": _cost(bare, bare_name)}
        result[name]["extra_ns"] = result[name]["paravisor_ns"]["median"] - (
            result[name]["bare_ns"]["median"] if bare_name else 0)
    return result


def _cost(runs, name):
    """The median of the runs' medians, between the fastest batch of all and the slowest median."""
    pairs = [run["costs_ns"][name] for run in runs if name in run["costs_ns"]]
    found = spread([pair[0] for pair in pairs])
    return found and dict(found, min=min(pair[1] for pair in pairs), count=len(pairs) + 1)


def _counts(stats):
    """(by kind of exit, by what some of those exits were for)"""
    kinds = {kind: count for kind, count in stats["exits"].items()
             if isinstance(count, (int, float)) and kind != "total"}
    parts = {name: stats["apic"][key] for name, key in PARTS}
    parts["pci_config"] = stats["events"]["pci_config"]
    return kinds, parts


def _median_counts(runs):
    counts = [_counts(run["stats"]) for run in runs]
    return tuple({name: statistics.median([count[which].get(name, 0) for count in counts])
                  for name in counts[0][which]} for which in (0, 1))


def _less(counts, boot):
    """The few exits by which two boots differ may come out negative."""
    return tuple({name: max(0, count - less.get(name, 0)) for name, count in more.items()}
                 for more, less in zip(counts, boot))


def _priced(counts, seconds, costs):
    """Counts, counts per second, and what they cost together, in microseconds of VP time."""
    prices = {kind: statistics.mean([costs[name]["extra_ns"] for name in names])
              for kind, names in PRICES.items() if all(name in costs for name in names)}
    kinds = {kind: {"count": count, "per_second": count / seconds,
                    "cost_ns": prices.get(kind),
                    "cost_us": count * prices[kind] / 1e3 if kind in prices else None}
             for kind, count in counts[0].items()}
    parts = {name: {"count": count, "per_second": count / seconds}
             for name, count in counts[1].items()}
    total = sum(counts[0].values())
    return {"seconds": seconds, "kinds": kinds, "parts": parts,
            "count": total, "per_second": total / seconds,
            "cost_us": sum(entry["cost_us"] or 0 for entry in kinds.values())}


def _exits(records, costs):
    """Of a boot as it is; of a workload, what its run has more than a run that only boots."""
    result = {}
    boots = {}
    for cpus in BOOT_CPUS:
        for variant in (DEFAULT, SIPI, MAILBOX):
            runs = records.select(part="boot", cpus=cpus, variant=variant)
            if runs:
                counts = _median_counts(runs)
                seconds = statistics.median([run["stats"]["guest_us"] for run in runs]) / 1e6
                result[f"boot {cpus} {variant}"] = _priced(counts, seconds, costs)
                method = runs[0]["stats"]["ap_start"]["method"]
                boots[cpus, DEFAULT if variant == DEFAULT else method] = counts
    for workload in ("cpu", "fork"):
        for cpus in WORK_CPUS:
            runs = records.select(part="work", cpus=cpus, workload=workload, variant=DEFAULT)
            if not runs:
                continue
            method = runs[0]["stats"]["ap_start"]["method"]
            boot = boots.get((cpus, method), boots.get((cpus, DEFAULT)))
            if not boot:
                continue
            counts = _less(_median_counts(runs), boot)
            seconds = statistics.median([run["work_us"] for run in runs]) / 1e6
            result[f"{workload} {cpus}"] = _priced(counts, seconds, costs)
    return result


def _parked(records):
    """Processor seconds of QEMU per second that the guest slept."""
    return _compared(records, lambda r: r["idle"]["processor_seconds"] / r["idle"]["seconds"],
                     (SIPI, MAILBOX), part="parked")


def summarise(records):
    records = Records(records)
    costs = _costs(records)
    return {"boot": _boot(records), "work": _work(records), "ap_start": _ap_start(records),
            "costs": costs, "exits": _exits(records, costs), "parked": _parked(records)}
