"""Columns of the table: where the same program runs. Each runs all rows once and reports what it saw.

A guest's lines are stamped with the host's clock as they come; that measures the boot, and checks the guest's clock.
"""
import os
import re
import subprocess
import threading
import time

from build import BenchError

MEMORY = "512M"
MEMORY_DEBIAN = "1280M"  # the user land is in memory
# How far a guest's clock may be off the host's over all rows: a share, and the noise of a busy host in seconds (a line is
# stamped late when the host has no time; over many rows that cancels out).
CLOCK_SHARE, CLOCK_NOISE = 0.10, 0.25


class Sample:
    """One row, run once: seconds for one round, seconds for one operation, and the checksum."""

    def __init__(self, ns, rounds, ops, checksum):
        self.round = ns / 1e9 / rounds
        self.op = self.round / ops
        self.checksum = checksum


class Result:
    """What one run of a column brought."""

    def __init__(self):
        self.boot = None    # seconds from the start of the process to the first line of /init
        self.samples = {}   # row name: Sample
        self.problems = []  # sentences


BENCH = re.compile(r"BENCH (\w+) (\d+) (\d+) (\d+) ([0-9a-f]{16})\b")


def parse(lines, result, is_guest):
    """Lines of vbench, as (host's seconds, text), into samples. A guest's clock that runs wrong is a problem."""
    started, stopped, by_host, by_guest = {}, {}, 0.0, 0.0
    for when, line in lines:
        if m := re.search(r"START (\w+)", line):
            started[m.group(1)] = when
        elif m := re.search(r"STOP (\w+) (\d+)", line):
            stopped[m.group(1)] = when, int(m.group(2))
        elif m := re.search(r"WRONG (.*)", line):
            result.problems.append(f"a round came to another checksum than the one before: {m.group(1).strip()}")
        elif m := BENCH.search(line):
            name, ns, rounds, ops = m.group(1), int(m.group(2)), int(m.group(3)), int(m.group(4))
            result.samples[name] = Sample(ns, rounds, ops, m.group(5))
            when, ns = stopped.get(name, (when, ns))  # a row of rows.sh is checked after it stopped
            by_host += when - started.get(name, when)
            by_guest += ns / 1e9
    if is_guest and abs(by_host - by_guest) > CLOCK_NOISE + CLOCK_SHARE * by_host:
        result.problems.append(f"the rows took {by_guest:.2f} s by the guest's clock, {by_host:.2f} s by the host's")


def read_lines(argv, limit):
    """Run a program to its end: its lines with seconds since the start, and its standard error."""
    began = time.monotonic()
    lines, errors = [], []
    try:
        proc = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    except OSError as e:
        raise BenchError(f"cannot run {argv[0]}: {e.strerror}") from e
    reader = threading.Thread(target=lambda: errors.append(proc.stderr.read().decode("utf-8", "replace")))
    reader.start()
    timer = threading.Timer(limit, proc.kill)
    timer.start()
    try:
        for raw in proc.stdout:
            text = raw.decode("utf-8", "replace").strip()
            lines.append((time.monotonic() - began, text))
            if text.endswith("BENCH-DONE"):
                timer.cancel()
                timer = threading.Timer(20, proc.kill)  # to power off
                timer.start()
        status = proc.wait()
    finally:
        timer.cancel()
        proc.kill()
        reader.join()
        proc.stdout.close()
        proc.stderr.close()
    return lines, status, errors[0]


class Native:
    """The program on the host itself, or what command(arguments) makes of it (a chroot)."""

    def __init__(self, name, program, command=None):
        self.name, self.is_guest = name, False
        self.command = command or (lambda *words: [program, *words])

    def run(self, rows, amount, limit, verb="run"):
        result = Result()
        if rows:
            lines, status, errors = read_lines(self.command(verb, str(amount), *rows), limit)
            parse(lines, result, self.is_guest)
            if status != 0:
                result.problems.append(f"the program ended with status {status}: {errors.strip()}")
        return result


class Guest:
    """The program in a machine. argv(cmdline) is the monitor's command."""

    WORDS = {"run": ("bench_seconds", "bench"), "programs": ("bench_size", "bench_programs")}

    def __init__(self, name, argv):
        self.name, self.argv, self.is_guest = name, argv, True

    def run(self, rows, amount, limit, verb="run"):
        result = Result()
        how_much, which = self.WORDS[verb]
        cmdline = f"console=ttyS0 quiet {how_much}={amount}" + (f" {which}={','.join(rows)}" if rows else "")
        lines, status, errors = read_lines(self.argv(cmdline), limit)
        result.boot = next((when for when, line in lines if line.endswith("BENCH-UP")), None)
        parse(lines, result, self.is_guest)
        if result.boot is None:
            result.problems.append("the guest never came to its /init")
        elif not any(line.endswith("BENCH-DONE") for _, line in lines):
            result.problems.append("the guest did not come to the end of its script")
        if result.problems or status != 0:
            tail = [line for _, line in lines[-6:]] + errors.strip().splitlines()[-6:]
            result.problems.append(f"status {status}; the last lines: " + " | ".join(tail))
        return result


def qemu(kernel, initrd, cpus=1, memory=MEMORY):
    return Guest("tcg", lambda cmdline: [
        "qemu-system-x86_64", "-accel", "tcg,thread=multi", "-M", "q35", "-cpu", "max", "-smp", str(cpus), "-m", memory,
        "-nodefaults", "-display", "none", "-serial", "stdio", "-no-reboot", "-kernel", kernel, "-initrd", initrd,
        "-append", cmdline])


def vitro(program, engine, kernel, initrd, cpus=1, memory=MEMORY):
    if not os.access(program, os.X_OK):
        raise BenchError(f"there is no {program}: build it first, or name it with --vitro")
    return Guest(engine, lambda cmdline: [
        program, "run", "--engine", engine, "--cpus", str(cpus), "--memory", memory, "--no-reboot", "--kernel", kernel,
        "--initrd", initrd, "--cmdline", cmdline])


class Column:
    """Everything that a column runs, one part after the other: (where, its rows, "run" or "programs", amount)."""

    def __init__(self, name, parts, skipped=()):
        self.name, self.parts = name, parts
        self.skipped = list(skipped)  # sentences: what this column cannot run here, and why
        self.is_guest = any(where.is_guest for where, *_ in parts)

    def rows(self):
        """Names of the rows that it can run here."""
        return {row.lstrip("-") for _, rows, *_ in self.parts for row in rows}

    def run(self, limit):
        whole = Result()
        for where, rows, verb, amount in self.parts:
            part = where.run(rows, amount, limit, verb)
            whole.boot = whole.boot or part.boot  # the first part is the small machine
            whole.samples.update(part.samples)
            whole.problems += part.problems
        return whole
