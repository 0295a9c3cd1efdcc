"""Machines with network cards for tests and the benchmark: a guest whose shell is talked to by its console, and a namespace
of the host's network in which nothing of the real one can be disturbed.
"""
import os
import re
import select
import shutil
import subprocess
import sys
import tarfile
import time

TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
CACHE = os.environ.get("VITRO_CACHE", os.path.join(TOP, "cache"))
GUEST = os.path.join(TOP, "tests/boot/guest")
DRIVERS = ["virtio_ring", "virtio", "virtio_pci_modern_dev", "virtio_pci_legacy_dev", "virtio_pci", "failover", "net_failover",
           "virtio_net"]
BOOT = 120  # seconds that a guest may take to its shell on a busy host


class Failure(Exception):
    """A test failed; the text says how."""


def skip(reason):
    print(f"SKIP: {reason}")
    sys.exit(77)


def expect(condition, text):
    if not condition:
        raise Failure(text)


def isolate():
    """Run this program again in network and mount namespaces of its own (root, or user namespaces, is needed)."""
    if os.environ.get("VITRO_NETLAB") == "inside":
        subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
        with open("/tmp/vitro-resolv.conf", "w", encoding="ascii") as f:
            f.write("nameserver 127.0.0.1\n")
        subprocess.run(["mount", "--bind", "/tmp/vitro-resolv.conf", os.path.realpath("/etc/resolv.conf")], check=True)
        return
    tool("fetch-guests", "cloud", "busybox", "modules") # now: inside there is no network to fetch them by
    unshare = ["unshare", "--net", "--mount"] + ([] if os.getuid() == 0 else ["--map-root-user"])
    if subprocess.run([*unshare, "true"], stderr=subprocess.DEVNULL, check=False).returncode != 0:
        skip("no namespaces here: this needs root, or user namespaces")
    os.environ["VITRO_NETLAB"] = "inside"
    # A private /tmp: also the switches' folder.
    os.execvp("unshare", [*unshare, "sh", "-ec", 'mount -t tmpfs -o mode=1777 none /tmp; exec "$@"', "sh", sys.executable,
                          *sys.argv])


def tool(*argv):
    done = subprocess.run([os.path.join(TOP, "tools", argv[0]), *argv[1:]], stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, text=True, check=False)
    if done.returncode != 0:
        skip(f"tools/{argv[0]}: {done.stdout.strip() or 'failed'}")


def libraries(program):
    """The files that a dynamic program needs, as its own loader sees them."""
    out = subprocess.run(["ldd", program], stdout=subprocess.PIPE, text=True, check=True).stdout
    return re.findall(r"(/\S+) \(0x", out)


def make_initrd(work):
    """busybox, the drivers, iperf3 with its libraries: the guest of all tests here."""
    tool("fetch-guests", "cloud", "busybox", "modules")
    iperf3 = shutil.which("iperf3") or skip("there is no iperf3: install it")
    pairs = [f"{iperf3}=usr/bin/iperf3", f"{GUEST}/udhcpc.script=bin/udhcpc.script"]
    pairs += [f"{path}={path.lstrip('/')}" for path in libraries(iperf3)]
    with tarfile.open(os.path.join(CACHE, "modules-cloud.tar")) as tar:
        for member in tar.getmembers():
            name = os.path.basename(member.name)[:-len(".ko")]
            if member.isfile() and name in DRIVERS:
                path = os.path.join(work, name + ".ko")
                with open(path, "wb") as out:
                    out.write(tar.extractfile(member).read())
                pairs.append(f"{path}=mod/{name}.ko")
    initrd = os.path.join(work, "initrd.gz")
    tool("mkinitramfs", initrd, os.path.join(CACHE, "busybox"), os.path.join(GUEST, "init-net"), *pairs)
    return initrd


class Machine:
    """A guest and its shell. argv(cmdline) is the monitor's command."""

    def __init__(self, name, argv):
        self.name, self.data = name, b""
        self.proc = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        self.serial = 0

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.kill()

    def pull(self, seconds):
        if select.select([self.proc.stdout], [], [], max(0, seconds))[0]:
            more = os.read(self.proc.stdout.fileno(), 65536)
            self.data += more.replace(b"\r", b"")
            return bool(more)
        return True

    def until(self, pattern, seconds):
        end = time.monotonic() + seconds
        while not (found := re.search(pattern, self.data)):
            left = end - time.monotonic()
            if left <= 0 or not self.pull(left):
                errors = self.proc.stderr.read().decode("utf-8", "replace") if self.proc.poll() is not None else ""
                raise Failure(f"{self.name}: no {pattern!r} in {seconds} s, only {self.data[-400:]!r} {errors}")
        return found

    def ready(self):
        self.until(rb"READY\n", BOOT)
        self.run("true")  # with it comes the shell's greeting
        return self

    def start(self, command):
        """Begin a command; finish() waits for it."""
        self.serial += 1
        self.data = b""
        self.proc.stdin.write(f"{command}\necho \"<<$?:{self.serial}>>\"\n".encode())
        self.proc.stdin.flush()

    def finish(self, seconds=60):
        found = self.until(rb"<<(\d+):%d>>" % self.serial, seconds)
        return int(found.group(1)), self.data[:found.start()].decode("utf-8", "replace").strip()

    def run(self, command, seconds=60):
        """(status, output)"""
        self.start(command)
        return self.finish(seconds)

    def good(self, command, seconds=60):
        """The output of a command that must work."""
        status, out = self.run(command, seconds)
        expect(status == 0, f"{self.name}: '{command}': status {status}: {out}")
        return out

    def power_off(self):
        self.proc.stdin.write(b"poweroff -f\n")
        self.proc.stdin.flush()
        try:
            out, errors = self.proc.communicate(timeout=60)
        except subprocess.TimeoutExpired as e:
            raise Failure(f"{self.name}: does not power off") from e
        expect(self.proc.returncode == 0, f"{self.name}: status {self.proc.returncode}: {errors!r} {out[-200:]!r}")

    def kill(self):
        if self.proc.poll() is None:
            self.proc.kill()
        self.proc.wait()
        for pipe in (self.proc.stdin, self.proc.stdout, self.proc.stderr):
            try:
                pipe.close()
            except OSError:
                pass


def vitro(program, engine, initrd, *options, name="vitro", cpus=1, memory="192M"):
    argv = [program, "run", *(["--engine", engine] if engine else []), "--cpus", str(cpus), "--memory", memory, "--kernel",
            os.path.join(CACHE, "vmlinuz-cloud"), "--initrd", initrd, "--cmdline", "console=ttyS0 quiet", "--no-reboot",
            "--name", name, "--timeout", "900", *options]
    return Machine(name, argv)


def qemu(initrd, *options, name="qemu", cpus=1, memory="192M"):
    argv = ["qemu-system-x86_64", "-accel", "tcg,thread=multi", "-M", "q35", "-cpu", "max", "-smp", str(cpus), "-m", memory,
            "-nodefaults", "-display", "none", "-serial", "stdio", "-no-reboot", "-kernel",
            os.path.join(CACHE, "vmlinuz-cloud"), "-initrd", initrd, "-append", "console=ttyS0 quiet", *options]
    return Machine(name, argv)


RECEIVER = re.compile(r"\s([0-9.]+) ([KMG]?)bits/sec.*receiver")


def megabits(text):
    """What an iperf3 client says that arrived, in Mbit/s."""
    found = RECEIVER.findall(text)
    expect(found, f"iperf3 says nothing of a receiver: {text[-600:]}")
    number, unit = found[-1]
    return float(number) * {"": 1e-6, "K": 1e-3, "M": 1, "G": 1000}[unit]
