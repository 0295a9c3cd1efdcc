#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""tools/testlog and the end of tests/bare/run: the failing cases of a test are named where a log's end shows them.

Usage: testlog_test.py PATH-OF-tools/testlog PATH-OF-tests/bare/run
"""
import json
import os
import subprocess
import sys
import tempfile
import unittest

TESTLOG = RUN = ""


def run(*command):
    r = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=60, encoding="utf-8")
    return r.returncode, r.stdout


class LogTest(unittest.TestCase):
    def setUp(self):
        self.dir = tempfile.TemporaryDirectory()
        self.addCleanup(self.dir.cleanup)

    def write(self, name, text):
        path = os.path.join(self.dir.name, name)
        with open(path, "w", encoding="utf-8") as f:
            f.write(text)
        return path

    def results(self, *tests):
        log = self.write("log.json", "".join(json.dumps(t) + "\n" for t in tests))
        out = os.path.join(self.dir.name, "results")
        self.assertEqual(run(TESTLOG, log, out, "build")[0], 0 if tests else 1)
        with open(out, encoding="utf-8") as f:
            return f.read().splitlines()

    def test_cases_are_named(self):
        out = "ok      a\nFAIL    smp_x: timed out\n        FAIL text expected 1 got 2\n1 passed, 1 failed, 0 skipped\nFAIL    smp_x: timed out\n"
        self.assertEqual(self.results({"name": "bare", "result": "FAIL", "stdout": out},
                                      {"name": "unit", "result": "FAIL", "stderr": "[  FAILED  ] one\n[  FAILED  ] 1 test(s)\n"},
                                      {"name": "mute", "result": "TIMEOUT"},
                                      {"name": "skip", "result": "SKIP", "stdout": "SKIP: no disk\n"},
                                      {"name": "good", "result": "OK", "stdout": out}),
                         ["FAIL build: bare: smp_x", "FAIL build: unit: one", "FAIL build: mute", "SKIP build: skip: no disk",
                          "OK build: good"])

    def test_nothing_ran(self):
        self.assertEqual(self.results(), [])

    def test_bare_ends_with_its_failures(self):
        vmm = self.write("vmm", "#!/bin/sh\ncase $* in *bad*) seq 9; exit 3;; esac\necho ok good checks 1\nexit 1\n")
        os.chmod(vmm, 0o755)
        for name in "bad", "good":
            self.write(name + ".S", "#include \"rt.h\"\n")
        status, out = run(RUN, "--vmm", vmm, "--src", self.dir.name, "bad.elf", "good.elf")
        self.assertEqual(status, 1)
        self.assertEqual(out.splitlines()[-7:], ["1 passed, 1 failed, 0 skipped", "FAIL    bad: status 3",
                                                 *(f"        {n}" for n in range(5, 10))])


if __name__ == "__main__":
    TESTLOG, RUN = sys.argv[1:3]
    unittest.main(argv=sys.argv[:1])
