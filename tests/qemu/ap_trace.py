#!/usr/bin/env python3
"""The starts of a guest's processors in a trace file, checked and drawn as text.

usage: ap_trace.py FILE STARTS [OVERLAP]

Each start must be one span from the request to the first instruction, with its named steps in order;
there must be exactly STARTS of them, and at some moment at least OVERLAP (1) under way. Drawn are all
spans, or if they are many those at the busiest moment.
"""

import sys

sys.dont_write_bytecode = True
import trace_file  # noqa: E402

STEPS = ["AP requested", "AP accepted", "AP started", "AP running"]
WIDTH = 60
LINES = 8


def read_spans(trace):
    """Lists the spans as [(vp, [time of each step])], in the order of their requests."""
    if trace["otherData"]["lost"]:
        raise ValueError(f"{trace['otherData']['lost']} records were overwritten")
    events = [e for e in trace["traceEvents"] if e.get("args", {}).get("event") in STEPS]
    # The steps of one moment stay in their order.
    events.sort(key=lambda e: (e["ts"], STEPS.index(e["args"]["event"])))
    spans, under_way = [], {}
    for event in events:
        vp, step = event["args"]["vp"], STEPS.index(event["args"]["event"])
        if event["id"] != hex(vp) or event["cat"] != "ap":
            raise ValueError(f"an event that belongs to no span: {event}")
        if event["ph"] != "bnne"[step]:
            raise ValueError(f"step {STEPS[step]} is drawn as {event['ph']}")
        if step == 0:
            if vp in under_way:
                raise ValueError(f"VP {vp} was requested twice")
            under_way[vp] = []
            spans.append((vp, under_way[vp]))
        if vp not in under_way or len(under_way[vp]) != step:
            raise ValueError(f"VP {vp}: {STEPS[step]} is out of order")
        under_way[vp].append(event["ts"])
        if step == len(STEPS) - 1:
            del under_way[vp]
    if under_way:
        raise ValueError(f"VPs {sorted(under_way)} were requested and never ran")
    return spans


def count_overlap(spans, moment):
    """Counts how many spans are under way."""
    return sum(times[0] <= moment < times[-1] for _, times in spans)


def find_busiest(spans):
    """Finds the span at whose request most are under way."""
    return max(range(len(spans)), key=lambda i: count_overlap(spans, spans[i][1][0]))


def draw(spans):
    first, last = spans[0][1][0], max(times[-1] for _, times in spans)
    scale = WIDTH / max(last - first, 0.001)
    for vp, times in spans:
        line = [" "] * (WIDTH + 1)
        begin, end = (int((t - first) * scale) for t in (times[0], times[-1]))
        line[begin : end + 1] = "-" * (end + 1 - begin)
        for mark, time in zip("|a>R", times):
            line[int((time - first) * scale)] = mark
        print(f"# VP {vp:2} {''.join(line)} {times[-1] - times[0]:9.1f} us")
    print(f"# | requested  a accepted  > started  R running; {last - first:.1f} us from left to right")


def main():
    path, starts = sys.argv[1], int(sys.argv[2])
    wanted = int(sys.argv[3]) if len(sys.argv) > 3 else 1

    def look(trace):
        spans = read_spans(trace)
        if len(spans) != starts:
            raise ValueError(f"{len(spans)} starts, not {starts}")
        busiest = find_busiest(spans)
        moment = spans[busiest][1][0]
        draw([s for s in spans if len(spans) <= LINES or s[1][0] <= moment < s[1][-1]])
        overlap = count_overlap(spans, moment)
        print(f"# {overlap} under way at a time")
        if overlap < wanted:
            raise ValueError(f"not {wanted}")

    return trace_file.check(path, look)


if __name__ == "__main__":
    sys.exit(main())
