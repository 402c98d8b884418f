"""Tables as lists of rows of text, for the terminal and for Markdown, and figures as text."""


def terminal(header, rows):
    widths = [max(len(row[i]) for row in [header] + rows) for i in range(len(header))]
    lines = []
    for row in [header] + rows:
        cells = [row[0].ljust(widths[0])]
        cells += [cell.rjust(width) for cell, width in zip(row[1:], widths[1:])]
        lines.append("  " + "  ".join(cells).rstrip())
    return "\n".join(lines)


def markdown(header, rows):
    def line(cells):
        return "| " + " | ".join(cells) + " |"
    marks = ["---"] + ["---:"] * (len(header) - 1)
    return "\n".join([line(header), line(marks)] + [line(row) for row in rows])


def number(value, digits=0):
    return "-" if value is None else f"{value:,.{digits}f}"


def spread(found, scale=1.0, digits=0):
    """'median (min-max)', each divided by the scale."""
    if found is None:
        return "-"
    median, least, most = (found[key] / scale for key in ("median", "min", "max"))
    if found["count"] == 1:
        return f"{median:,.{digits}f}"
    return f"{median:,.{digits}f} ({least:,.{digits}f}-{most:,.{digits}f})"
