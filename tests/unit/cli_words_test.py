#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The words of the command line: usage lines, help texts, the manual page and the shell completion say the same.

Usage: cli_words_test.py PATH-OF-vitro PATH-OF-docs/vitro.1
"""
import functools
import os
import re
import subprocess
import sys
import tempfile
import unittest

VITRO = MANUAL = ""
OPTION = r"(?<![\w-])--?[a-z][a-z-]*"
COMPLETE = """
source <("$VITRO" completion bash)
compopt() { echo "compopt $*"; }
COMP_WORDS=("$VITRO" "$@") COMP_CWORD=$#
_vitro
printf '%s\\n' "${COMPREPLY[@]}"
"""


class WordsTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.dir = tempfile.TemporaryDirectory()
        cls.env = {**os.environ, "VITRO": VITRO, "HOME": cls.dir.name,
                   **{k: cls.dir.name for k in ("XDG_RUNTIME_DIR", "XDG_DATA_HOME", "XDG_CACHE_HOME", "XDG_STATE_HOME")}}
        for name in "web-1", "web-2", "db":
            cls.vitro("create", name, "--kernel", MANUAL)
        cls.verbs = re.findall(r"^  ([a-z-]+) ", cls.vitro("help"), re.M)

    @classmethod
    def tearDownClass(cls):
        cls.dir.cleanup()

    @classmethod
    def vitro(cls, *args):
        """What it says, on both streams."""
        return subprocess.run([VITRO, *args], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                              cwd=cls.dir.name, env=cls.env, timeout=60, encoding="utf-8").stdout

    @classmethod
    @functools.cache
    def help(cls, verb):
        return cls.vitro("help", verb)

    def complete(self, *words):
        out = subprocess.run(["bash", "-c", COMPLETE, "bash", *words], stdout=subprocess.PIPE, env=self.env, timeout=60,
                             cwd=self.dir.name, encoding="utf-8", check=True).stdout.split("\n")
        return {w for w in out if w}

    def usages(self, verb):
        """(words that begin the command, its usage) of each way to use the verb."""
        text = self.help(verb)
        head = re.match(r"usage: (.*?)\n(?! )", text, re.S)[1]
        for form in re.split(r"\n {7}(?=vitro )", head):
            words = form.split()
            sub = words[2:3] if len(words) > 2 and re.fullmatch("[a-z]+", words[2]) and words[2] != "options" else []
            yield [verb, *sub], form

    def said(self, command, option):
        """What the verb says to an option."""
        return self.vitro(*command, *(["new"] if command == ["create"] else []), option, "/no/such/file")

    def test_every_option_of_a_usage_line_is_taken(self):
        for verb in set(self.verbs) - {"help", "completion", "restore"}:    # restore opens its file before it looks
            for command, form in self.usages(verb):
                if "--receive" in form:                                     # and this its socket
                    continue
                unknown = self.said(command, "--no-such-word")
                self.assertIn("--no-such-word", unknown, command)
                for option in set(re.findall(OPTION, form)):
                    self.assertNotEqual(self.said(command, option), unknown.replace("--no-such-word", option), command)

    def test_every_option_of_a_help_text_is_in_the_usage(self):
        run = set(re.findall(r"^  (--[a-z-]+)", self.help("run"), re.M))
        for verb in set(self.verbs) - {"run"}:
            text, usage = self.help(verb), "\n".join(form for _, form in self.usages(verb))
            told = set(re.findall(r"^  (--?[a-z][a-z-]*)", text, re.M))
            self.assertEqual(told - set(re.findall(OPTION, usage)) - (run if "options of run" in usage else set()), set(), verb)

    def test_the_manual_has_every_verb_and_option(self):
        with open(MANUAL, encoding="utf-8") as f:
            manual = f.read().replace("\\-", "-")
        words = set(re.findall(r"--?[a-z][a-z-]*", manual))
        for verb in self.verbs:
            self.assertRegex(manual, rf"(vitro |\| ){verb}\b", verb)
            missing = set(re.findall(r"^  (--[a-z-]+)", self.help(verb), re.M))
            missing |= {o for _, form in self.usages(verb) for o in re.findall(OPTION, form)}
            self.assertEqual(missing - words, set(), verb)

    def test_completion_of_options(self):
        for verb in self.verbs:
            for command, form in self.usages(verb):
                self.assertLessEqual(set(re.findall(OPTION, form)), self.complete(*command, "-"), command)
            runs = {"--kernel", "--engine", "--disk"}
            self.assertEqual(self.complete(*command, "-") & runs, runs if "options" in self.help(verb).split("\n\n")[0] else set(), verb)
        self.assertEqual(self.complete("stop", "--t"), {"--time"})

    def test_completion_of_verbs_and_subcommands(self):
        self.assertEqual(self.complete(""), set(self.verbs))
        self.assertEqual(self.complete("help", "re"), {v for v in self.verbs if v.startswith("re")})
        self.assertEqual(self.complete("image", "c"), {"create", "check", "convert", "commit"})
        self.assertEqual(self.complete("image", "b"), {"build"})
        self.assertEqual(self.complete("image", "build", "d"), {"debian"})
        self.assertEqual(self.complete("completion", ""), {"bash", "--help"})

    def test_completion_of_machines(self):
        for verb in self.verbs:
            takes = any(re.search(r"^vitro \S+ \[?NAME(?![:\w])", form) for _, form in self.usages(verb))
            self.assertEqual("db" in self.complete(verb, ""), takes, verb)
        self.assertEqual(self.complete("start", "web"), {"web-1", "web-2"})
        self.assertEqual(self.complete("stop", "db", "we"), {"web-1", "web-2"})

    def test_completion_of_values(self):
        self.assertEqual(self.complete("run", "--engine", "d"), {"dbt"})
        self.assertEqual(self.complete("create", "new", "--engine", "=", "i"), {"interp"})
        self.assertEqual(self.complete("image", "convert", "--to", ""), {"raw", "qcow2"})
        self.assertEqual(self.complete("run", "--kernel", ""), {"compopt -o default"})
        self.assertEqual(self.complete("image", "info", ""), {"compopt -o default"})
        self.assertEqual(self.complete("image", "build", "--ssh-key", ""), {"compopt -o default"})
        self.assertEqual(self.complete("restore", "a"), {"compopt -o default"})
        self.assertEqual(self.complete("stop", "db", "--time", ""), set())


if __name__ == "__main__":
    VITRO, MANUAL = map(os.path.abspath, sys.argv[1:3])
    unittest.main(argv=sys.argv[:1])
