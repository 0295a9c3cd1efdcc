"""What the benchmark runs: the guest program, its initramfs, and the instruction counts. All of it is kept in the cache.

The name of each file holds a hash of all that went into it, so nothing is ever stale.
"""
import hashlib
import os
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

HERE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
TOP = os.path.dirname(HERE)
CACHE = os.environ.get("VITRO_CACHE", os.path.join(TOP, "cache"))
# Vectors are off so that the integer rows hold integer instructions only.
CFLAGS = ["-std=gnu11", "-O2", "-fno-tree-vectorize", "-Wall", "-Wextra", "-Werror"]


class BenchError(Exception):
    """The benchmark cannot go on; the text says why."""


class Workload:
    """One row: as `vbench list` describes it, and the instructions of one round (0: not known)."""

    def __init__(self, line):
        self.name, self.group, ops, insns, self.what = line.split(" ", 4)
        self.ops, self.insns = int(ops), int(insns)


def note(text):
    print(f"bench: {text}", file=sys.stderr, flush=True)


def tool(argv):
    try:
        done = subprocess.run(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, check=False)
    except OSError as e:
        raise BenchError(f"cannot run {argv[0]}: {e.strerror}") from e
    if done.returncode != 0:
        raise BenchError(f"{' '.join(argv)}: {(done.stderr or done.stdout).strip() or 'failed'}")
    return done.stdout


def digest(paths, *more):
    h = hashlib.sha256("\0".join(more).encode())
    for path in paths:
        with open(path, "rb") as f:
            h.update(os.path.basename(path).encode() + b"\0" + f.read())
    return h.hexdigest()[:16]


def folder():
    path = os.path.join(CACHE, "bench")
    os.makedirs(path, exist_ok=True)
    return path


def kept(name, make):
    """The file of this name in the cache; make(path) makes it where it is missing. A half-made file never stays."""
    path = os.path.join(folder(), name)
    if not os.path.exists(path):
        half = f"{path}.{os.getpid()}"
        try:
            make(half)
            os.rename(half, path)
        finally:
            if os.path.exists(half):
                os.unlink(half)
    return path


def compiled(stem, sources, inputs, flags, libraries=()):
    compiler = os.environ.get("BENCH_CC", "gcc")
    key = digest(inputs, compiler, tool([compiler, "--version"]), *flags)
    return kept(f"{stem}-{key}", lambda out: tool([compiler, *flags, "-o", out, *sources, *libraries]))


def guest_program():
    where = os.path.join(HERE, "guest")
    inputs = [os.path.join(where, n) for n in sorted(os.listdir(where)) if n.endswith((".c", ".S", ".h"))]
    return compiled("vbench", [p for p in inputs if not p.endswith(".h")], inputs, [*CFLAGS, "-static", "-s"], ["-lm"])


def workloads(program):
    return [Workload(line) for line in tool([program, "list"]).splitlines()]


def initramfs(program):
    """The kernel too: (kernel, initramfs)."""
    tool([os.path.join(TOP, "tools/fetch-guests"), "cloud", "busybox"])
    busybox, init = os.path.join(CACHE, "busybox"), os.path.join(HERE, "guest/init")
    maker = os.path.join(TOP, "tools/mkinitramfs")
    name = f"initrd-{digest([program, busybox, init, maker])}.gz"
    return (os.path.join(CACHE, "vmlinuz-cloud"),
            kept(name, lambda out: tool([maker, out, busybox, init, f"{program}=tmp/bench/vbench"])))


def stepped(program, name):
    """Instructions between the two stops of `vbench step NAME`, counted by single-stepping on this host."""
    source = os.path.join(HERE, "count.c")
    counter = compiled("count", [source], [source], CFLAGS)

    def count(out):
        with open(out, "w", encoding="ascii") as f:
            f.write(tool([counter, program, name]))

    key = re.sub(r".*-", "", os.path.basename(program))
    with open(kept(f"count-{name}-{key}", count), encoding="ascii") as f:
        return int(f.read())


EMPTY_ROUND = 2  # what the round of the workload "empty" executes: xor, ret


def count_instructions(program, rows):
    """Fill in .insns of the integer rows that do not know theirs."""
    unknown = [w for w in rows if w.group == "integer" and not w.insns]
    if not unknown:
        return
    base = stepped(program, "empty") - EMPTY_ROUND
    if not all(os.path.exists(os.path.join(folder(), f"count-{w.name}-{program.rsplit('-', 1)[1]}")) for w in unknown):
        note("counting instructions by single steps; this takes a minute, once")
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        for w, steps in zip(unknown, pool.map(lambda w: stepped(program, w.name), unknown)):
            w.insns = steps - base
