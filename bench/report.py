"""Results: lines with their spread, as a table for people, as Markdown and as JSON."""
import statistics
from dataclasses import asdict, dataclass, field


@dataclass
class Spread:
    """A figure of several rounds: median, least, most."""

    median: float
    least: float
    most: float

    @classmethod
    def of(cls, values):
        values = [v for v in values if v is not None]
        return cls(statistics.median(values), min(values), max(values)) if values else None

    def __str__(self):
        if self.least == self.most:
            return short(self.median)
        return f"{short(self.median)} ({short(self.least)}-{short(self.most)})"


def short(value):
    """Three digits that count."""
    if value is None:
        return ""
    magnitude = abs(value)
    return f"{value:.0f}" if magnitude >= 100 else f"{value:.1f}" if magnitude >= 10 else f"{value:.2f}"


@dataclass
class Line:
    """One figure of a row, the peer's beside it where the peer was measured in the same rounds."""

    what: str
    unit: str
    quire: Spread
    peer: Spread = None
    ratio: Spread = None       # quire over peer, round by round
    bandwidth: Spread = None   # share of the measured read roof
    int8: Spread = None        # share of the measured int8 roof, weight products only
    roof: Spread = None        # share of what both roofs together allow
    least: float = None        # wanted: at least (of `judged`)
    most: float = None         # wanted: below
    judged: str = "quire"      # which of the figures above the wish is about

    def met(self):
        figure = getattr(self, self.judged)
        if figure is None or (self.least is None and self.most is None):
            return None
        return (self.least is None or figure.median >= self.least) and (self.most is None or figure.median < self.most)

    def wanted(self):
        of = {"quire": "", "ratio": "x the peer", "int8": " of int8", "bandwidth": " of bandwidth", "roof": " of the roof"}
        words = ([f">= {short(self.least)}"] if self.least is not None else []) + \
                ([f"< {short(self.most)}"] if self.most is not None else [])
        return " and ".join(words) + (of[self.judged] if words else "")


@dataclass
class Row:
    """One question of the requirements with its figures, and how they were made."""

    name: str
    title: str
    how: str
    lines: list = field(default_factory=list)
    notes: list = field(default_factory=list)
    text: str = ""  # as another program printed it
    raw: object = None  # everything that was measured, for the JSON


COLUMNS = ["what", "unit", "quire", "peer", "quire/peer", "of bandwidth", "of int8", "of roof", "wanted", "met"]


def percent(spread):
    return "" if spread is None else f"{Spread(100 * spread.median, 100 * spread.least, 100 * spread.most)} %"


def cells(line):
    met = line.met()
    return [line.what, line.unit, str(line.quire or ""), str(line.peer or ""), str(line.ratio or ""),
            percent(line.bandwidth), percent(line.int8), percent(line.roof), line.wanted(),
            "" if met is None else "yes" if met else "NO"]


def used_columns(lines):
    """Columns that some line fills."""
    table = [cells(line) for line in lines]
    kept = [i for i in range(len(COLUMNS)) if any(row[i] for row in table)]
    return [COLUMNS[i] for i in kept], [[row[i] for i in kept] for row in table]


def table_text(rows):
    """For a terminal: every row's figures, aligned."""
    out = []
    for row in rows:
        out.append(f"\n{row.name}: {row.title}")
        if row.lines:
            head, body = used_columns(row.lines)
            widths = [max(len(r[i]) for r in [head, *body]) for i in range(len(head))]
            out += ["  " + "  ".join(cell.ljust(width) for cell, width in zip(r, widths)).rstrip() for r in [head, *body]]
        out += ["  " + line for line in row.text.splitlines()]
        out += [f"  note: {note}" for note in row.notes]
    return "\n".join(out)


def markdown(about, rows, picture):
    out = [f"# {about['processor']['name']}, {about['processor']['cores']} cores, {about['date']}", ""]
    out += [f"- {key}: {value}" for key, value in about["said"].items()]
    out += ["", f"![tokens a second and share of the roof]({picture})", ""] if picture else [""]
    for row in rows:
        out += [f"## {row.name}: {row.title}", "", row.how, ""]
        if row.lines:
            head, body = used_columns(row.lines)
            out += ["| " + " | ".join(r) + " |" for r in [head, ["---"] * len(head), *body]] + [""]
        if row.text:
            out += ["```", row.text.rstrip(), "```", ""]
        out += [f"- {note}" for note in row.notes] + ([""] if row.notes else [])
    return "\n".join(out)


def as_json(about, rows):
    return {"about": about, "rows": [{**asdict(row), "met": [line.met() for line in row.lines]} for row in rows]}
