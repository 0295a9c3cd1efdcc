#!/usr/bin/env python3
"""The benchmark itself, tested: the integer rows run natively, and wrong results of every kind are found.

Usage: smoke.py [unittest options]. Needs a compiler, no kernel, no monitor: machines are played by shell scripts.
"""
import contextlib
import importlib.machinery
import importlib.util
import io
import json
import os
import sys
import unittest

sys.dont_write_bytecode = True
HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "lib"))

import build  # noqa: E402
import column  # noqa: E402
import debian  # noqa: E402
import report  # noqa: E402

INTEGER = ["mix", "sieve", "qsort", "fib", "hash", "chase", "crc", "bytecode"]


def load_run():
    loader = importlib.machinery.SourceFileLoader("bench_run", os.path.join(HERE, "run"))
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader("bench_run", loader))
    loader.exec_module(module)
    return module


def row(name, group="integer", ops=1, insns=0):
    return build.Workload(f"{name} {group} {ops} {insns} what it is")


def result(boot=None, problems=(), **samples):
    """samples: name=(seconds a round, operations, checksum)."""
    r = column.Result()
    r.boot, r.problems = boot, list(problems)
    r.samples = {n: column.Sample(s * 1e9, 1, ops, check) for n, (s, ops, check) in samples.items()}
    return r


def machine(script):
    return column.Guest("fake", lambda cmdline: ["sh", "-c", script, "fake", cmdline])


class RealTest(unittest.TestCase):
    """What runs for real, on this host."""

    def run_main(self, *argv):
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            status = load_run().main(list(argv))
        return status, out.getvalue(), err.getvalue()

    def test_integer_rows(self):
        status, out, err = self.run_main("--columns", "native", "--rows", "integer", "--quick", "--no-count", "--json")
        self.assertEqual(status, 0, err)
        data = json.loads(out)
        self.assertEqual([r["name"] for r in data["rows"]], INTEGER)
        for r in data["rows"]:
            self.assertGreater(r["median"]["native"], 1e-6, r)
            self.assertLess(r["median"]["native"], 1.0, r)
        mix = data["rows"][0]
        self.assertAlmostEqual(mix["instructions_per_second"]["native"], mix["instructions"] / mix["median"]["native"])
        self.assertEqual(data["problems"], [])

    def test_known_count_is_the_count(self):
        program = build.guest_program()
        mix = next(w for w in build.workloads(program) if w.name == "mix")
        steps = build.stepped(program, "mix") - build.stepped(program, "empty") + build.EMPTY_ROUND
        self.assertEqual(mix.insns, steps)

    def test_checksums_are_the_right_ones(self):
        """Results that are known from elsewhere: the sum of primes below 32768, fib(20)."""
        got = column.Native("native", build.guest_program()).run(["sieve", "fib"], 0.01, 60)
        primes = [n for n in range(2, 32768) if all(n % d for d in range(2, int(n ** 0.5) + 1))]
        self.assertEqual(int(got.samples["sieve"].checksum, 16), sum(primes))
        self.assertEqual(int(got.samples["fib"].checksum, 16), 6765)

    def test_bad_row_and_missing_vitro(self):
        status, _, err = self.run_main("--columns", "native", "--rows", "nonsense")
        self.assertEqual((status, "no row 'nonsense'" in err), (2, True), err)
        with self.assertRaisesRegex(build.BenchError, "there is no /nonexistent/vitro"):
            column.vitro("/nonexistent/vitro", "interp", "k", "i")

    def test_program_that_fails(self):
        got = column.Native("native", build.guest_program()).run(["nonsense"], 0.01, 60)
        self.assertRegex(got.problems[0], "status 1: .*no workload 'nonsense'")


class DebianTest(unittest.TestCase):
    def test_rows(self):
        """Each row of the list has its step, and no step is without a row; cold rows come first and are not warmed up."""
        rows = debian.rows()
        with open(os.path.join(HERE, "guest/rows.sh"), encoding="utf-8") as f:
            steps = {line[4:line.index("(")] for line in f if line.startswith("run_")}
        self.assertEqual({r.name for r in rows}, steps)
        groups = [r.group for r in rows]
        self.assertEqual(groups, sorted(groups))
        self.assertEqual(debian.named(rows)[0], "-start")
        self.assertIn("xz", debian.named(rows))

    def test_data_is_the_same_every_time(self):
        program = build.guest_program()
        one, two = (build.tool([program, "data", "50000"]) for _ in range(2))
        self.assertEqual((one, len(one)), (two, 50000))


class MachineTest(unittest.TestCase):
    """Machines that do well, and that do not."""

    def test_good(self):
        got = machine("sleep 0.2; printf 'BENCH-UP\\r\\nSTART fib\\r\\n'; sleep 0.3; "
                      "echo '[ 1.0] noise BENCH fib 300000000 3 1 00000000000000ff'; echo BENCH-DONE").run(["fib"], 1, 10)
        self.assertEqual(got.problems, [])
        self.assertTrue(0.2 <= got.boot < 2, got.boot)
        self.assertAlmostEqual(got.samples["fib"].op, 0.1)

    def test_command_line(self):
        got = machine('echo "BENCH-UP"; echo "START fib"; case "$1" in *bench_seconds=0.25\\ bench=fib,crc) '
                      'echo BENCH fib 1000 1 1 00000000000000ff;; esac; echo BENCH-DONE').run(["fib", "crc"], 0.25, 10)
        self.assertEqual(list(got.samples), ["fib"])

    def test_clock_that_lies(self):
        got = machine("echo BENCH-UP; echo START fib; sleep 0.5; echo BENCH fib 50000000 3 1 00000000000000ff; "
                      "echo BENCH-DONE").run(["fib"], 1, 10)
        self.assertRegex(got.problems[0], "0.05 s by the guest's clock, 0.[45]")

    def test_program_row_is_checked_after_it_stopped(self):
        """Time after STOP is the check's and not the row's; a row may know its own time better than the stop says."""
        got = machine("echo BENCH-UP; case \"$1\" in *'bench_size=8 bench_programs=-gcc'*) echo START gcc; sleep 0.1; "
                      "echo STOP gcc 100000000; sleep 0.7; echo BENCH gcc 5000000000 50 1 00000000000000ff;; esac; "
                      "echo BENCH-DONE").run(["-gcc"], 8, 10, "programs")
        self.assertEqual(got.problems, [])
        self.assertAlmostEqual(got.samples["gcc"].op, 0.1)

    def test_column_of_several_machines(self):
        first = machine("echo BENCH-UP; echo BENCH fib 1000 1 1 0a; echo BENCH fib 1000 1 1 00000000000000ff; echo BENCH-DONE")
        second = machine("sleep 0.3; echo BENCH-UP; echo BENCH gcc 2000 1 1 00000000000000fe; echo BENCH-DONE; exit 3")
        col = column.Column("dbt", [(first, ["fib"], "run", 1), (second, ["-gcc"], "programs", 8)])
        got = col.run(10)
        self.assertEqual((sorted(got.samples), col.rows()), (["fib", "gcc"], {"fib", "gcc"}))
        self.assertLess(got.boot, 0.3)
        self.assertRegex(" ".join(got.problems), "status 3")

    def test_never_up_hung_failed_wrong(self):
        for script, text in (("echo Kernel panic", "never came to its /init"),
                             ("echo BENCH-UP; exec sleep 30", "did not come to the end"),
                             ("echo BENCH-UP; echo BENCH-DONE; echo why >&2; exit 125", "status 125.*why"),
                             ("echo BENCH-UP; echo WRONG fib round 7; echo BENCH-DONE", "another checksum.*fib round 7")):
            got = machine(script).run(["fib"], 1, 0.5)
            self.assertRegex(" ".join(got.problems), text)


class ReportTest(unittest.TestCase):
    """Tables of invented numbers."""

    def table(self, interp_sum="0a", interp_seconds=0.5, boot=20.0):
        rows = [row("mix", insns=10_000_000), row("call", "system", ops=10)]
        runs = {"native": [result(mix=(s, 1, "0a"), call=(0.1, 10, "0b")) for s in (0.001, 0.5, 0.002)],
                "tcg": [result(boot=b, mix=(0.01, 1, "0a"), call=(0.2, 10, "0b")) for b in (2.0, 2.2, 1.9)],
                "interp": [result(boot=boot, mix=(interp_seconds, 1, interp_sum), call=(0.4, 10, "0b"))]}
        return report.Table(rows, runs, True)

    def test_medians_and_ratios(self):
        t = self.table()
        self.assertAlmostEqual(t.op("mix", "native"), 0.002)
        self.assertAlmostEqual(t.op("call", "interp"), 0.04)
        self.assertAlmostEqual(t.boot_time("tcg"), 2.0)
        self.assertAlmostEqual(t.speed(t.rows[0], "interp"), 20e6)
        self.assertIsNone(t.speed(t.rows[1], "interp"))
        self.assertAlmostEqual(report.geometric([1, 100]), 10)
        self.assertEqual(list(report.problems(t)), [])
        head, body = report.cells(t)
        self.assertEqual(head[2:], ["native", "tcg", "interp", "tcg/native", "interp/native", "interp/tcg"])
        self.assertEqual(body[0][2:], ["-", "2.00 s", "20.0 s", "-", "-", "10.0x"])
        self.assertEqual(body[1][2:], ["2.00 ms", "10.0 ms", "500 ms", "5.00x", "250x", "50.0x"])
        self.assertEqual(body[2][2:], ["10.0 ms", "20.0 ms", "40.0 ms", "2.00x", "4.00x", "2.00x"])

    def test_wrong_checksum_and_missing_row(self):
        self.assertEqual(list(report.problems(self.table(interp_sum="0c"))),
                         ["mix: the checksums differ: 0a in native, tcg; 0c in interp"])
        t = self.table()
        del t.runs["interp"][0].samples["call"]
        t.runs["tcg"][1].problems.append("it burns")
        self.assertEqual(list(report.problems(t)), ["tcg, run 2: it burns", "interp, run 1: no result for call"])
        self.assertIsNone(t.op("call", "interp"))

    def test_column_that_cannot_run_a_row(self):
        """A row that a column says it cannot run is no problem there, and shows no ratio; the means are of what is there."""
        t = self.table()
        del t.runs["native"][0].samples["call"], t.runs["native"][1].samples["call"], t.runs["native"][2].samples["call"]
        self.assertEqual(len(list(report.problems(t))), 3)
        t.able = {"native": {"mix"}, "tcg": {"mix", "call"}, "interp": {"mix", "call"}}
        self.assertEqual(list(report.problems(t)), [])
        mean, count = report.mean_ratio(t, ("interp", "native"), t.rows, t.boot)
        self.assertEqual(count, 1)
        self.assertAlmostEqual(mean, 250)

    def test_means(self):
        t = self.table()
        mean, count = report.mean_ratio(t, ("interp", "tcg"), t.rows, True)
        self.assertEqual(count, 3)
        self.assertAlmostEqual(mean, (10 * 50 * 2) ** (1 / 3))
        t.rows[1].group = "cold"
        head, body = report.mean_cells(t)
        self.assertEqual(head[2:], ["tcg/native", "interp/native", "interp/tcg", "tcg/interp"])
        self.assertEqual([line[0] for line in body], ["integer", "cold", "all hot", "all"])
        self.assertEqual(body[0][2:], ["5.00x", "250x", "50.0x", "0.02x"])
        self.assertEqual([line[0] for line in report.cells(t, True)[1]], ["boot", "call"])
        self.assertEqual([line[0] for line in report.cells(t, False)[1]], ["mix"])

    def test_best(self):
        t = self.table()
        t.pick = min
        self.assertEqual(t.op("mix", "native"), 0.001)

    def test_translator_goals(self):
        t = self.table()
        t.runs["dbt"] = [result(boot=0.2, mix=(0.00125, 1, "0a"), call=(0.025, 10, "0b"))]
        t.columns = list(t.runs)
        self.assertEqual(list(report.goals(t, "dbt")),
                         [("dbt, 2 rows: 0.40 times native, goal at most 1.8", True),
                          ("dbt, 3 rows: 8.62 times faster than TCG, goal at least 8.0", True)])
        t.runs["dbt"][0].boot, t.runs["dbt"][0].samples["mix"].op = 1.0, 0.03
        self.assertEqual([ok for _, ok in report.goals(t, "dbt")], [False, False])

    def test_goals(self):
        reached = [ok for _, ok in report.goals(self.table(interp_seconds=0.199, boot=24.0), "interp")]
        self.assertEqual(reached, [True, True, True])
        missed = [ok for _, ok in report.goals(self.table(interp_seconds=0.201, boot=24.1), "interp")]
        self.assertEqual(missed, [False, False, False])

    def test_forms(self):
        t, host = self.table(), {"host": "a test"}
        data = json.loads(report.as_json(t, host, [], []))
        self.assertAlmostEqual(data["boot"]["ratio"]["interp/tcg"], 10)
        self.assertAlmostEqual(data["rows"][1]["ratio"]["interp/native"], 4)
        lines = report.as_text(t, host).splitlines()
        self.assertTrue(any(line.split() == ["mix", "10000000", "5000.0", "1000.0", "20.0"] for line in lines), lines)
        self.assertIn("| mix | what it is | 2.00 ms | 10.0 ms | 500 ms | 5.00x | 250x | 50.0x |",
                      report.as_markdown(t, host))


if __name__ == "__main__":
    unittest.main()
