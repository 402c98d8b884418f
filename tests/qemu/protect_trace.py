#!/usr/bin/env python3
"""The changes of permissions in a trace file, checked.

usage: protect_trace.py FILE VP ADDRESS:BYTES:OLD:NEW...

On every VP each change must be one span that holds as many ranges as it was asked for, and then its commit.
The last changes of VP must be of one range each, those that are named.
Permissions are written as in the statistics: rwx, r-x, ---.
"""

import sys

sys.dont_write_bytecode = True
import trace_file  # noqa: E402

ASKED, RANGE, COMMITTED, DONE = (
    "protect asked for",
    "permissions changed",
    "protect committed",
    "protect done",
)
SUCCESS = (0, 1)  # done; done, once TLB locks are released
PAGE = 4096
BITS = {"r": 1, "w": 2, "x": 4 | 8}


def access_name(bits):
    """Names permissions; None if they have no name."""
    for name in ("---", "r--", "rw-", "r-x", "rwx"):
        if sum(BITS.get(letter, 0) for letter in name) == bits:
            return name
    return None


def kind(event):
    """Tells a span's two ends, which have a name of their own, from what is in between."""
    return event["args"].get("event", event["name"])


def read_range(event):
    """Takes apart what one range's event says: address, bytes, old and new permissions."""
    new, old = event["args"]["address_new"], event["args"]["bytes_old"]
    return new - new % PAGE, old - old % PAGE, access_name(old % PAGE), access_name(new % PAGE)


def read_changes(events):
    """Lists the changes of one VP, in their order, each as its ranges; events in the ring's order."""
    changes, current, before = [], None, 0
    for event in events:
        args, what = event["args"], kind(event)
        if event["ts"] < before:
            raise ValueError(f"an event that is earlier than the one before: {event}")
        before = event["ts"]
        if what == ASKED:
            if current or event["ph"] != "B" or event["name"] != "protect":
                raise ValueError(f"not the beginning of a change: {event}")
            current = {"asked": args, "ranges": [], "committed": False}
        elif what in (RANGE, COMMITTED, DONE) and not current:
            # Its beginning has been overwritten; only the first one's can have been.
            if changes:
                raise ValueError(f"outside of any change: {event}")
        elif what == RANGE:
            if current["committed"] or event["ph"] != "i":
                raise ValueError(f"a range behind the commit: {event}")
            current["ranges"].append(read_range(event))
        elif what == COMMITTED:
            if current["committed"] or args["transaction"] != current["asked"]["transaction"]:
                raise ValueError(f"not the commit of {current}: {event}")
            if len(current["ranges"]) != current["asked"]["ranges"]:
                raise ValueError(f"other ranges than asked for: {current}")
            current["committed"] = True
        elif what == DONE:
            if event["ph"] != "E" or event["name"] != "protect":
                raise ValueError(f"not the end of a change: {event}")
            if args["transaction"] != current["asked"]["transaction"] or not current["committed"]:
                raise ValueError(f"not the end of {current}: {event}")
            if args["status"] not in SUCCESS:
                raise ValueError(f"a change that failed: {event}")
            changes.append(current["ranges"])
            current = None
    if current:
        raise ValueError(f"a change without an end: {current}")
    return changes


def main():
    path, vp = sys.argv[1], int(sys.argv[2] or -1)
    wanted = []
    for argument in sys.argv[3:]:
        address, size, old, new = argument.split(":")
        wanted.append([(int(address or -1), int(size), old, new)])

    def look(trace):
        events = [e for e in trace["traceEvents"] if e["ph"] != "M"]
        changes = {
            tid: read_changes([e for e in events if e["tid"] == tid])
            for tid in {e["tid"] for e in events}
        }
        print(f"# {sum(len(c) for c in changes.values())} changes in the trace")
        found = changes.get(vp, [])[-len(wanted) :]
        if not wanted or found != wanted:
            raise ValueError(f"the last changes of VP {vp} are {found}, not {wanted}")

    return trace_file.check(path, look)


if __name__ == "__main__":
    sys.exit(main())
