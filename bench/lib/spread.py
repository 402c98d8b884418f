"""Medians with their spread, and ratios taken pairwise: a value divided by its partner's of the
same round, so that what slows the machine down for a minute slows down both. Nothing about guests.
"""
import statistics


def spread(values):
    """Median, least, most and number of some values; None when there are none."""
    values = [value for value in values if value is not None]
    if not values:
        return None
    return {"median": statistics.median(values), "min": min(values), "max": max(values),
            "count": len(values)}


def ratios(by_round, baseline_by_round):
    """The ratios of two {round: value}, over the rounds that have both."""
    return [by_round[number] / baseline_by_round[number]
            for number in sorted(by_round)
            if baseline_by_round.get(number)]
