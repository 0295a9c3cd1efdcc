"""Numbers to tables: medians, ratios, speeds, the goals, and whether the columns agree about the results."""
import json
import math
from statistics import median

GOAL_SPEED = 50e6   # guest instructions a second that the interpreter reaches on integer loops
GOAL_BOOT = 12.0    # times the time of qemu TCG from start to userland, at most
GOAL_NATIVE = 1.8   # the translator: times native, at most, geometric mean of all rows
GOAL_TCG = 8.0      # the translator: times faster than qemu TCG, at least, likewise


class Table:
    """Everything measured: rows are workloads; runs is {column name: [Result, ...]} in the order of the columns; able, if
    given, is {column name: names of the rows that it can run here}; pick makes one number of those of all repetitions."""

    def __init__(self, rows, runs, boot, able=None, pick=median):
        self.rows, self.runs, self.boot, self.able, self.pick = rows, runs, boot, able, pick
        self.columns = list(runs)

    def ops(self, name, column):
        """Seconds for one operation, each repetition."""
        return [r.samples[name].op for r in self.runs[column] if name in r.samples]

    def can(self, name, column):
        return self.able is None or name in self.able[column]

    def boots(self, column):
        return [r.boot for r in self.runs[column] if r.boot is not None]

    def op(self, name, column):
        values = self.ops(name, column)
        return self.pick(values) if values else None

    def boot_time(self, column):
        values = self.boots(column)
        return self.pick(values) if values else None

    def speed(self, row, column):
        """Instructions a second, or None where the count is not known."""
        op = self.op(row.name, column)
        return row.insns / row.ops / op if op and row.insns else None

    def integer_speed(self, column):
        """The geometric mean over the integer rows, or None if one is missing."""
        speeds = [self.speed(row, column) for row in self.rows if row.group == "integer"]
        return geometric(speeds) if speeds and all(speeds) else None


def geometric(values):
    return math.exp(sum(math.log(v) for v in values) / len(values))


def ratio(a, b):
    return a / b if a is not None and b else None


def problems(table):
    """Sentences: what went wrong in a run, what is missing, and checksums that differ."""
    for column in table.columns:
        for n, result in enumerate(table.runs[column]):
            yield from (f"{column}, run {n + 1}: {text}" for text in result.problems)
            yield from (f"{column}, run {n + 1}: no result for {row.name}" for row in table.rows
                        if row.name not in result.samples and table.can(row.name, column))
    for row in table.rows:
        sums = {}
        for column in table.columns:
            for result in table.runs[column]:
                if row.name in result.samples:
                    sums.setdefault(result.samples[row.name].checksum, set()).add(column)
        if len(sums) > 1:
            found = "; ".join(f"{s} in {', '.join(sorted(c))}" for s, c in sums.items())
            yield f"{row.name}: the checksums differ: {found}"


def goals(table, engine):
    """(sentence, reached) for each goal that this run can judge."""
    return interpreter_goals(table, engine) if engine == "interp" else translator_goals(table, engine)


def translator_goals(table, engine):
    for (a, b), least in (((engine, "native"), None), (("tcg", engine), GOAL_TCG)):
        mean, count = mean_ratio(table, (a, b), table.rows, table.boot) if {a, b} <= set(table.columns) else (None, 0)
        if mean and least:
            yield f"{engine}, {count} rows: {mean:.2f} times faster than TCG, goal at least {least}", mean >= least
        elif mean:
            yield f"{engine}, {count} rows: {mean:.2f} times native, goal at most {GOAL_NATIVE}", mean <= GOAL_NATIVE


def interpreter_goals(table, engine):
    speed = table.integer_speed(engine)
    mix = next((table.speed(r, engine) for r in table.rows if r.name == "mix"), None)
    for what, value in (("counted loop (mix)", mix), ("geometric mean of the integer rows", speed)):
        if value:
            yield (f"{engine}, {what}: {value / 1e6:.1f} million instructions/s, goal at least {GOAL_SPEED / 1e6:.0f}",
                   value >= GOAL_SPEED)
    boots = ratio(table.boot_time(engine), table.boot_time("tcg")) if {engine, "tcg"} <= set(table.columns) else None
    if table.boot and boots:
        yield f"{engine}, kernel to userland: {boots:.2f} times TCG, goal at most {GOAL_BOOT:.0f}", boots <= GOAL_BOOT


def seconds(value):
    """Three digits and a unit."""
    if value is None:
        return "-"
    for scale, unit in ((1, "s"), (1e-3, "ms"), (1e-6, "us"), (1e-9, "ns")):
        if value >= scale or unit == "ns":
            n = value / scale
            return f"{n:.{2 if n < 10 else 1 if n < 100 else 0}f} {unit}"
    return "-"


def times(value):
    return "-" if value is None else f"{value:.{2 if value < 10 else 1 if value < 100 else 0}f}x"


def against(table):
    """The pairs whose ratio is shown: each machine by native, then each engine of vitro by TCG."""
    guests = [c for c in table.columns if c != "native"]
    pairs = [(c, "native") for c in guests if "native" in table.columns]
    return pairs + [(c, "tcg") for c in guests if c != "tcg" and "tcg" in table.columns]


def is_cold(row):
    return row.group == "cold"


def cells(table, cold=None):
    """Heading and body of the table of times: of all rows, or of the cold ones (the boot is one) or of the hot ones only."""
    pairs = against(table)
    lines = [(row.name, row.what, {c: table.op(row.name, c) for c in table.columns}) for row in table.rows
             if cold is None or is_cold(row) == cold]
    if table.boot and cold is not False:
        lines.insert(0, ("boot", "cloud kernel, start to /init", {c: table.boot_time(c) for c in table.columns}))
    body = [[name, what, *(seconds(at[c]) for c in table.columns), *(times(ratio(at[a], at[b])) for a, b in pairs)]
            for name, what, at in lines]
    return ["row", "what", *table.columns, *(f"{a}/{b}" for a, b in pairs)], body


def mean_ratio(table, pair, rows, boot):
    """(geometric mean of the ratio, how many rows it is of); (None, 0) if there is none."""
    a, b = pair
    found = [ratio(table.op(row.name, a), table.op(row.name, b)) for row in rows]
    if boot:
        found.append(ratio(table.boot_time(a), table.boot_time(b)))
    found = [r for r in found if r]
    return (geometric(found), len(found)) if found else (None, 0)


def mean_sets(table):
    """(what, rows, whether the boot is one of them) for each geometric mean that is shown."""
    for group in dict.fromkeys(row.group for row in table.rows):
        yield group, [row for row in table.rows if row.group == group], table.boot and group == "cold"
    yield "all hot", [row for row in table.rows if not is_cold(row)], False
    yield "all", table.rows, table.boot


def mean_cells(table):
    """Heading and body of the table of geometric means. TCG by vitro, how many times faster, is the last."""
    pairs = against(table)
    faster = [("tcg", c) for c in table.columns if c not in ("native", "tcg") and "tcg" in table.columns]
    body = []
    for what, rows, boot in mean_sets(table):
        means = [mean_ratio(table, pair, rows, boot) for pair in pairs + faster]
        count = max((n for _, n in means), default=0)
        if count:
            body.append([what, f"{count} rows", *(times(mean) for mean, _ in means)])
    return ["geometric mean", "of", *(f"{a}/{b}" for a, b in pairs + faster)], body


def speed_cells(table):
    """Heading and body of the table of speeds, in millions of instructions a second."""
    body = []
    for row in table.rows:
        speeds = [table.speed(row, c) for c in table.columns]
        if any(speeds):
            body.append([row.name, f"{row.insns}", *("-" if s is None else f"{s / 1e6:.1f}" for s in speeds)])
    means = [table.integer_speed(c) for c in table.columns]
    if any(means):
        body.append(["mean", "geometric", *("-" if s is None else f"{s / 1e6:.1f}" for s in means)])
    return ["million/s", "instructions", *table.columns], body


def text_table(head, body):
    widths = [max(len(line[i]) for line in [head, *body]) for i in range(len(head))]

    def show(line):
        return "  ".join(c.ljust(w) if i < 2 else c.rjust(w) for i, (c, w) in enumerate(zip(line, widths))).rstrip()

    return "\n".join([show(head), "  ".join("-" * w for w in widths), *(show(line) for line in body)])


def markdown_table(head, body):
    marks = ["---" if i < 2 else "---:" for i in range(len(head))]
    return "\n".join("| " + " | ".join(line) + " |" for line in [head, marks, *body])


def both(table, show):
    """All tables: hot rows, cold rows, means, speeds."""
    shown = [cells(table, False), cells(table, True), mean_cells(table), speed_cells(table)]
    return "\n\n".join(show(head, body) for head, body in shown if body)


def as_text(table, host):
    return "\n".join(f"{k}: {v}" for k, v in host.items()) + "\n\n" + both(table, text_table)


def as_markdown(table, host):
    return "\n".join(f"* {k}: {v}" for k, v in host.items()) + "\n\n" + both(table, markdown_table)


def as_json(table, host, found, judged):
    rows = [{"name": row.name, "group": row.group, "what": row.what, "instructions": row.insns or None,
             "seconds": {c: table.ops(row.name, c) for c in table.columns},
             "median": {c: table.op(row.name, c) for c in table.columns},
             "instructions_per_second": {c: table.speed(row, c) for c in table.columns},
             "ratio": {f"{a}/{b}": ratio(table.op(row.name, a), table.op(row.name, b)) for a, b in against(table)}}
            for row in table.rows]
    boot = {"seconds": {c: table.boots(c) for c in table.columns if table.boots(c)},
            "ratio": {f"{a}/{b}": ratio(table.boot_time(a), table.boot_time(b)) for a, b in against(table)
                      if table.boot_time(b)}} if table.boot else None
    means = {what: {f"{a}/{b}": mean_ratio(table, (a, b), chosen, also)[0] for a, b in against(table)}
             for what, chosen, also in mean_sets(table)}
    return json.dumps({"host": host, "boot": boot, "rows": rows, "geometric_means": means,
                       "integer_instructions_per_second": {c: table.integer_speed(c) for c in table.columns},
                       "goals": [{"goal": text, "reached": reached} for text, reached in judged],
                       "problems": found}, indent=2)
