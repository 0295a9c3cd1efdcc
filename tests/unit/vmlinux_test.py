#!/usr/bin/env python3
"""tools/vmlinux: what it takes out of a bzImage is what was put in; everything else is one sentence.

Usage: vmlinux_test.py PATH-OF-tools/vmlinux
"""

import bz2
import gzip
import lzma
import os
import shutil
import struct
import subprocess
import sys
import tempfile
import unittest

TOOL = ""
ELF = b"\x7fELF" + bytes(range(256)) * 100


def bzimage(packed, size=len(ELF)):
    """A bzImage with one setup sector and this payload, its length at the end."""
    payload = packed + struct.pack("<I", size)
    setup = bytearray(1024)
    setup[0x1F1] = 1
    setup[0x202:0x206] = b"HdrS"
    struct.pack_into("<H", setup, 0x206, 0x20F)
    struct.pack_into("<II", setup, 0x248, 0x100, len(payload))
    return bytes(setup) + bytes(0x100) + payload + b"trailer"


def tool(*command):
    """What an outside compressor makes of ELF."""
    return subprocess.run(command, input=ELF, stdout=subprocess.PIPE, check=True).stdout


class VmlinuxTest(unittest.TestCase):
    def run_on(self, image):
        """Exit status, stderr, and the output file's bytes (None: not there)."""
        with tempfile.TemporaryDirectory() as d:
            src, dst = os.path.join(d, "bz"), os.path.join(d, "out")
            with open(src, "wb") as f:
                f.write(image)
            r = subprocess.run([sys.executable, TOOL, src, dst], capture_output=True, text=True, timeout=60)
            self.assertEqual(sorted(os.listdir(d)), ["bz", "out"] if r.returncode == 0 else ["bz"])
            out = None
            if r.returncode == 0:
                with open(dst, "rb") as f:
                    out = f.read()
            return r.returncode, r.stderr, out

    def good(self, packed):
        self.assertEqual(self.run_on(bzimage(packed)), (0, "", ELF))

    def bad(self, image, says):
        status, text, _ = self.run_on(image)
        self.assertEqual(status, 1)
        self.assertIn(says, text)
        self.assertEqual(text.count("\n"), 1)

    def test_formats(self):
        self.good(gzip.compress(ELF))
        self.good(bz2.compress(ELF))
        self.good(lzma.compress(ELF))
        self.good(lzma.compress(ELF, format=lzma.FORMAT_ALONE))

    def test_formats_of_tools(self):
        for command in (["zstd", "-cq"], ["lz4", "-clq"]):
            with self.subTest(command[0]):
                if not shutil.which(command[0]):
                    self.skipTest(command[0] + " is not installed")
                self.good(tool(*command))

    def test_bad_images(self):
        whole = bzimage(gzip.compress(ELF))
        self.bad(b"", "not a bzImage")
        self.bad(whole[:0x202] + b"XXXX" + whole[0x206:], "not a bzImage")
        self.bad(whole[:0x206] + b"\7\2" + whole[0x208:], "older than 2.08")
        self.bad(whole[:-50], "truncated")
        self.bad(bzimage(b"no known format"), "not known")
        self.bad(bzimage(gzip.compress(ELF), 5), "not the 5 it announces")
        self.bad(bzimage(gzip.compress(b"text"), 4), "no ELF file")
        packed = gzip.compress(ELF)
        self.bad(bzimage(packed[:50] + bytes(b ^ 0xFF for b in packed[50:])), "corrupt gzip payload")

    def test_usage_and_paths(self):
        r = subprocess.run([sys.executable, TOOL], capture_output=True, text=True, timeout=60)
        self.assertEqual(r.returncode, 1)
        self.assertIn("usage:", r.stderr)
        r = subprocess.run([sys.executable, TOOL, "/nonexistent", "x"], capture_output=True, text=True, timeout=60)
        self.assertEqual(r.returncode, 1)
        self.assertIn("/nonexistent: No such file", r.stderr)


if __name__ == "__main__":
    TOOL = os.path.abspath(sys.argv.pop(1))
    unittest.main()
