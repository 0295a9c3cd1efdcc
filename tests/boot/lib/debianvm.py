"""The Debian image of the boot tests, and a machine on a terminal of its own that a test talks to over its serial line."""
import fcntl
import glob
import hashlib
import os
import pty
import re
import select
import subprocess
import sys
import termios
import time

TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))
CACHE = os.environ.get("VITRO_CACHE", os.path.join(TOP, "cache"))
USER, PASSWORD = "tester", "a secret"
LOGIN = 300  # seconds that a boot may take on a busy host


class Failure(Exception):
    pass


def expect(condition, text):
    if not condition:
        raise Failure(text)


def skip(reason):
    print(f"SKIP: {reason}")
    sys.exit(77)


class Image:
    """Built once for each version of what goes into it."""

    OPTIONS = ["--size", "2G", "--hostname", "testvm", "--user", USER, "--packages", "iperf3"]

    def __init__(self, vitro):
        digest = hashlib.sha256(repr(self.OPTIONS).encode())
        for path in sorted([p for where in ("tools/image", "tools/agent", "src/agent") for p in glob.glob(os.path.join(TOP, where, "*"))]):
            with open(path, "rb") as f:
                digest.update(f.read())
        self.folder = os.path.join(CACHE, "debian-" + digest.hexdigest()[:12])
        self.disk, self.kernel, self.initrd, self.key = (os.path.join(self.folder, n) for n in ("disk.qcow2", "vmlinuz", "initrd", "key"))
        os.makedirs(self.folder, exist_ok=True)
        with open(os.path.join(self.folder, ".lock"), "w", encoding="ascii") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not os.path.exists(os.path.join(self.folder, "complete")):
                self.build(vitro)

    def build(self, vitro):
        started = time.monotonic()
        if not os.path.exists(self.key):
            subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", self.key], check=True)
        hashed = subprocess.run(["openssl", "passwd", "-6", PASSWORD], stdout=subprocess.PIPE, text=True, check=True).stdout.strip()
        done = subprocess.run([vitro, "image", "build", "debian", "-o", self.disk, *self.OPTIONS, "--ssh-key", self.key + ".pub",
                               "--password-hash", hashed, "--kernel-out", self.kernel, "--initrd-out", self.initrd, "--force"],
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
        if done.returncode != 0:
            text = done.stdout.strip().split("\n")[-1]
            if "package lists" in text or "missing" in text: # no network, or tools that may not be installed
                skip(text)
            sys.exit(f"FAIL: {done.stdout}")
        print(f"built the image in {time.monotonic() - started:.0f} s: {done.stdout.strip().split(chr(10))[-1]}")
        with open(os.path.join(self.folder, "complete"), "w", encoding="ascii"):
            pass


class Machine:
    """vitro with its console on a pseudo-terminal."""

    def __init__(self, argv):
        self.master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, b"\x32\0\xe8\3\0\0\0\0")  # 50 lines of 1000 columns: nothing is wrapped
        self.proc = subprocess.Popen(argv, stdin=slave, stdout=slave, stderr=slave, start_new_session=True,
                                     preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0))
        os.close(slave)
        self.data, self.count, self.began = b"", 0, time.monotonic()
        self.times, self.what = [], " ".join(argv[2:])

    def pull(self, seconds):
        if not select.select([self.master], [], [], seconds)[0]:
            return False
        try:
            more = os.read(self.master, 65536)
        except OSError:
            return False
        self.data += more
        return bool(more)

    def until(self, pattern, seconds):
        """What came before the pattern, and the match; both are used up."""
        end = time.monotonic() + seconds
        while not (found := re.search(pattern, self.data)):
            if time.monotonic() > end or (not self.pull(0.5) and self.proc.poll() is not None):
                raise Failure(f"no {pattern!r} from the guest ({self.what}); last: {self.data[-1500:].decode(errors='replace')}")
        before, self.data = self.data[:found.start()], self.data[found.end():]
        return before, found

    def keys(self, text):
        os.write(self.master, text.encode())

    def login(self):
        began = time.monotonic()
        self.until(rb"login: ", LOGIN)
        self.times.append(f"login prompt after {time.monotonic() - began:.1f} s")
        self.keys(USER + "\r")
        self.until(rb"Password: ", 120)
        self.keys(PASSWORD + "\r")
        self.until(rb"\$ $", 120)
        self.keys("stty -echo; bind 'set enable-bracketed-paste off'; PS1= PS2=; export TERM=dumb PAGER=cat SYSTEMD_COLORS=0\r")
        self.run("true")

    def run(self, command, seconds=180, wait=True):
        """What a shell command prints, without its last newline."""
        self.count += 1
        mark = f"END{self.count}"
        self.keys(f"{command}\n" if not wait else f"{{ {command.rstrip('; &')}{' &' if command.endswith('&') else ''}\n}}; echo {mark[:3]}''{mark[3:]}\n")
        if not wait:
            return ""
        before, _ = self.until(mark.encode() + rb"\r*\n", seconds)
        return before.decode(errors="replace").replace("\r", "").strip("\n").split("\x1b[?2004l")[-1].strip()

    def power_button(self):
        self.keys("\x1do")

    def end(self, seconds=180):
        """The guest powers itself off."""
        limit = time.monotonic() + seconds
        while self.proc.poll() is None:
            expect(time.monotonic() < limit, f"the machine does not end: {self.data[-800:].decode(errors='replace')}")
            self.pull(0.2)
        expect(self.proc.returncode == 0, f"status {self.proc.returncode}: {self.data[-800:].decode(errors='replace')}")

    def kill(self):
        if self.proc.poll() is None:
            self.proc.kill()
            self.proc.wait()
