#!/usr/bin/env python3
"""tools/house must be able to fail: small trees with one thing wrong each, and good ones.

Usage: house_test.py PATH-OF-tools/house
"""

import os
import subprocess
import sys
import tempfile
import unittest

HOUSE = ""
HEAD = "/* A unit that exists for this test. */\n"
GOOD = HEAD + '#include "base/err.h"\n\nint base_one(void)\n{\n    return 1;\n}\n'


def function(name, body_lines, opening="static int {}(void)\n"):
    return opening.format(name) + "{\n" + "    work();\n" * body_lines + "}\n"


class HouseTest(unittest.TestCase):
    def run_house(self, files):
        with tempfile.TemporaryDirectory() as root:
            for path, text in files.items():
                full = os.path.join(root, path)
                os.makedirs(os.path.dirname(full), exist_ok=True)
                with open(full, "w", encoding="utf-8") as f:
                    f.write(text)
            r = subprocess.run([sys.executable, HOUSE, "--root", root], capture_output=True, text=True, timeout=60)
            self.assertEqual(r.stderr if r.returncode != 2 else "", "")
            return r.returncode, r.stdout

    def good(self, files, warns=None):
        status, out = self.run_house({"src/base/good.c": GOOD, **files})
        self.assertEqual(status, 0, out)
        self.assertIn("0 violations", out)
        if warns:
            self.assertIn(warns, out)
            self.assertIn("warning: ", out)
        else:
            self.assertIn("0 warnings", out)

    def bad(self, path, text, place, says):
        """Exactly one violation, at path:place, whose line contains says."""
        status, out = self.run_house({"src/base/good.c": GOOD, path: text})
        self.assertEqual(status, 1, out)
        self.assertIn("; 1 violations", out)
        line = next((x for x in out.split("\n") if x.startswith(f"{path}:{place} ")), None)
        self.assertIsNotNone(line, out)
        self.assertIn(says, line)

    def test_good_tree(self):
        self.good({})

    def test_empty_tree_is_not_green(self):
        self.assertEqual(self.run_house({"src/base/meson.build": "x\n"})[0], 2)

    # Sizes of files

    def test_file_of_1200_lines_with_reason(self):
        pad = "extern int x;\n"
        self.good({"src/base/long.c": HEAD + "/* House: long because the table is. */\n" + pad * 1198})
        self.bad("src/base/long.c", HEAD + "/* House: long because it is. */\n" + pad * 1199, 1201, "1201 lines")

    def test_file_over_800_warns(self):
        self.good({"src/base/long.c": HEAD + "extern int x;\n" * 799})
        self.good({"src/base/long.c": HEAD + "extern int x;\n" * 800}, warns="src/base/long.c:801")

    def test_table_may_be_longer(self):
        mark = "/* House: table because it is the encoding space. */\n"
        self.good({"src/x86/table.c": HEAD + mark + "extern int x;\n" * 3000})
        funcs = "".join(function(f"f{i}", 10) for i in range(120))
        self.bad("src/x86/table.c", HEAD + mark + funcs, 1562, "called a table")

    def test_sizes_of_tests_count(self):
        self.bad("tests/unit/t.c", HEAD + "extern int x;\n" * 1200, 1201, "1201 lines")

    # Sizes of functions

    def test_function_of_100_lines_is_the_end(self):
        some = "".join(function(f"s{i}", 3) for i in range(20))
        self.good({"src/base/f.c": HEAD + some + function("big", 100)})
        self.bad("src/base/f.c", HEAD + some + function("big", 101), 123, "big() has 101 lines")

    def test_function_lengths_are_robust(self):
        some = "".join(function(f"s{i}", 3) for i in range(20))
        tricky = {
            "braces in strings": '    put("{{{", \'{\', "\\"{");\n' + "    work();\n" * 101,
            "braces in comments": "    /* { */ // {\n" + "    work();\n" * 101,
            "inner blocks": "    if (x) {\n        y();\n    }\n" * 40,
            "unbalanced #if": "#if A\n    if (a) {\n#else\n    if (b) {\n#endif\n    }\n" + "    work();\n" * 101,
        }
        for what, body in tricky.items():
            with self.subTest(what):
                text = HEAD + some + "static int big(void)\n{\n" + body + "}\n" + function("after", 3)
                self.bad("src/base/f.c", text, 123, "big() has 1")

    def test_signatures(self):
        some = "".join(function(f"s{i}", 3) for i in range(20))
        for opening in ("static struct foo *big(int a,\n                       int b)\n",
                        "__attribute__((format(printf, 1, 2))) void big(const char *f, ...)\n",
                        "void big(void) __attribute__((noinline))\n",
                        "static void (*big(int x))(void)\n"):
            with self.subTest(opening):
                text = HEAD + some + opening + "{\n" + "    work();\n" * 101 + "}\n"
                status, out = self.run_house({"src/base/f.c": text})
                self.assertEqual(status, 1, out)
                self.assertIn("has 101 lines", out)

    def test_tables_structs_and_macro_handlers_are_no_functions(self):
        some = "".join(function(f"s{i}", 3) for i in range(20))
        row = "    { 1, 2 },\n"
        self.good({"src/base/f.c": HEAD + some + "static const int t[] = {\n" + row * 120 + "};\n"
                   + "struct wide {\n" + "    int x;\n" * 120 + "};\n"
                   + "struct __attribute__((packed)) tight {\n" + "    int x;\n" * 120 + "};\n"
                   + "OP(add)\n{\n" + "    work();\n" * 120 + "}\n"
                   + "#define BIG(x) do { \\\n" + "    work(); \\\n" * 120 + "} while (0)\n"})

    def test_macro_call_before_a_function_does_not_hide_it(self):
        some = "".join(function(f"s{i}", 3) for i in range(20))
        text = HEAD + some + "DECLARE(x)\n" + function("big", 101)
        status, out = self.run_house({"src/base/f.c": text})
        self.assertEqual(status, 1, out)

    def test_median(self):
        self.good({"src/base/f.c": HEAD + "".join(function(f"f{i}", 14) for i in range(9))})
        self.tree_bad("".join(function(f"f{i}", 15) for i in range(9)), "the median function has 15")

    def test_nine_in_ten(self):
        short = "".join(function(f"s{i}", 3) for i in range(17))
        self.good({"src/base/f.c": HEAD + short + function("l0", 45) + function("l1", 45)})
        self.tree_bad(short + "".join(function(f"l{i}", 45) for i in range(3)), "under 45")

    def tree_bad(self, code, says):
        status, out = self.run_house({"src/base/f.c": HEAD + code})
        self.assertEqual(status, 1, out)
        self.assertIn("src:0", out)
        self.assertIn(says, out)

    # Words

    def test_typedef_struct(self):
        self.bad("src/base/f.h", HEAD + "typedef struct { int x; } foo;\n", 2, "typedef struct")
        self.bad("tests/unit/f.h", HEAD + "\ntypedef\nunion foo bar;\n", 3, "typedef union")
        self.good({"src/base/f.h": HEAD + "/* typedef struct */\ntypedef int (*fn)(void);\n"})

    def test_endings(self):
        for word in ("abort", "assert", "exit", "_exit", "__builtin_trap"):
            with self.subTest(word):
                self.bad("src/base/f.c", HEAD + f"static void f(void)\n{{\n    {word}(1);\n}}\n", 4, f"{word}()")
                self.good({"src/cli/f.c": HEAD + f"static void f(void)\n{{\n    {word}(1);\n}}\n",
                           "tests/unit/f.c": HEAD + f"static void f(void)\n{{\n    {word}(1);\n}}\n"})
        self.bad("src/base/f.c", HEAD + "#define DIE() abort()\n", 2, "abort()")

    def test_words_like_endings(self):
        self.good({"src/base/f.c": HEAD + "/* abort() */\nstatic void f(struct x *x)\n{\n    x->exit(x);\n"
                   '    x->ops.abort(x);\n    vm_exit(1);\n    static_assert(1, "assert(");\n}\n'})

    def test_machine_path(self):
        path = "/" + "work/main"
        self.bad("src/base/f.c", HEAD + f"/* see {path} */\n", 2, "path of one machine")
        self.bad("README.md", f"Run\nit in {path}\n", 2, "path of one machine")
        self.bad("docs/x/y.md", f"{path}\n", 1, "path of one machine")

    def test_head_comment(self):
        self.bad("src/base/f.c", "int x;\n", 1, "comment")
        self.bad("src/base/f.c", '#include "base/err.h"\n/* Too late to say so. */\n', 1, "comment")
        self.bad("src/base/f.h", "/* */\nint x;\n", 1, "comment")
        self.bad("tests/bare/f.asm", "mov eax, 1\n", 1, "comment")
        self.bad("tools/run", "#!/bin/sh\nset -e\n", 1, "comment")
        self.good({"tests/bare/f.asm": "; What this guest shows.\nmov eax, 1\n",
                   "tools/run": "#!/bin/sh\n# Runs all that runs.\nset -e\n",
                   "tools/x.py": '#!/usr/bin/env python3\n"""Says what it does."""\n'})

    # Include direction

    def test_include_direction(self):
        self.bad("src/base/f.c", HEAD + '#include "ram/ram.h"\n', 2, "may not include ram/")
        self.bad("src/x86/f.h", HEAD + '\n  #  include "engine/engine.h"\n', 3, "may not include engine/")
        self.good({"src/machine/f.c": HEAD + '#include "base/err.h"\n#include "machine/vm.h"\n#include <stdio.h>\n'
                   '/* #include "cli/x.h" */\n', "src/engine/interp/f.c": HEAD + '#include "x86/cpu.h"\n'})
        self.bad("src/engine/interp/f.c", HEAD + '#include "chip/pit.h"\n', 2, "may not include chip/")

    def test_include_paths(self):
        self.bad("src/base/f.c", HEAD + '#include "err.h"\n', 2, "relative to src/")
        self.bad("src/base/f.c", HEAD + '#include "../base/err.h"\n', 2, "relative to src/")
        self.bad("src/base/f.c", HEAD + '#include "xxx/err.h"\n', 2, "not a folder")

    def test_unknown_folder(self):
        self.bad("src/misc/f.c", HEAD, 1, "src/misc")


if __name__ == "__main__":
    HOUSE = os.path.abspath(sys.argv.pop(1))
    unittest.main()
