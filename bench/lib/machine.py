"""The machine that measures, as far as it matters to the figures. No names, no places."""
import os
import platform


def describe():
    return {"cores": len(os.sched_getaffinity(0)), "load_before": os.getloadavg()[0],
            "kernel": platform.release().split("-")[0], "system": platform.system()}


def is_quiet(machine):
    """Was nothing else running to speak of? The load average lags by a minute."""
    return machine["load_before"] < 1.0
