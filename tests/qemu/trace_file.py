"""A trace file of `parapet run --trace`, for the scripts that check one."""

import json


def check(path, look):
    """Has `look` read the trace, and says what it raises. Returns an exit status."""
    try:
        with open(path, encoding="ascii") as file:
            look(json.load(file))
    except (ValueError, KeyError, OSError) as error:
        print(f"# {path}: {error}")
        return 1
    return 0
