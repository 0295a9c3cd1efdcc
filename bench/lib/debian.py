"""The Debian user land whose programs are rows: its folder (for a chroot) and its initramfs (for the machines).

mmdebstrap unpacks the packages without running their scripts, so any user can make it; it is kept in the cache.
"""
import glob
import os
import re
import shutil
import subprocess
import tempfile

import build
from build import BenchError

RELEASE = "bookworm"
PACKAGES = ["coreutils", "dash", "sed", "openssl", "xz-utils", "zstd", "python3-minimal", "perl-base", "sqlite3", "gcc",
            "libc6-dev"]
# What no row uses, half of it all: a guest keeps its user land in memory, twice while it boots.
UNUSED = ["usr/share/doc", "usr/share/man", "usr/share/locale", "usr/share/info", "usr/share/perl5", "var/cache", "var/lib/apt",
          "usr/lib/gcc/*/*/lto1", "usr/lib/gcc/*/*/*san*", "usr/bin/*lto-dump*", "usr/bin/*gold", "usr/bin/*dwp",
          "usr/bin/*gprof*", "usr/lib/*/*san.so*", "usr/lib/*/gprofng", "usr/lib/*/gconv", "usr/lib/*/*.a"]
KEY_SIZE = "2048"


def rows():
    """Workloads, as the comments at the head of rows.sh describe them."""
    with open(os.path.join(build.HERE, "guest/rows.sh"), encoding="utf-8") as f:
        lines = re.findall(r"^#row (\w+) (\w+) (.*)$", f.read(), re.M)
    return [build.Workload(f"{name} {group} 1 0 {what}") for name, group, what in lines]


def is_program(row):
    return row.group in ("cold", "program")


def named(chosen):
    """Names for `vbench programs`: a cold row has a dash before it, and there is no warm-up."""
    return [("-" if row.group == "cold" else "") + row.name for row in chosen]


def unpacked(half):
    build.tool(["mmdebstrap", "--quiet", "--variant=extract", "--mode=" + ("root" if os.getuid() == 0 else "chrootless"),
                "--include=" + ",".join(PACKAGES), "--format=directory", RELEASE, half])
    for pattern in UNUSED:
        for path in glob.glob(os.path.join(half, pattern)):
            (shutil.rmtree if os.path.isdir(path) and not os.path.islink(path) else os.unlink)(path)
    shutil.rmtree(os.path.join(half, "dev"), ignore_errors=True)
    for name in ("dev", "proc", "tmp", "bin"):
        os.makedirs(os.path.join(half, name), exist_ok=True)
    shutil.copy(os.path.join(build.CACHE, "busybox"), os.path.join(half, "bin/busybox"))


def root():
    """The folder of the user land."""
    path = os.path.join(build.folder(), "debian-" + build.digest([], RELEASE, *PACKAGES, *UNUSED))
    if os.path.isdir(path):
        return path
    build.tool([os.path.join(build.TOP, "tools/fetch-guests"), "busybox"])
    build.note("unpacking Debian's user land; this takes a minute, once")
    half = tempfile.mkdtemp(prefix="half-", dir=build.folder())
    try:
        os.chmod(half, 0o755)
        unpacked(half)
        os.rename(half, path)
    finally:
        shutil.rmtree(half, ignore_errors=True)
    return path


def key(base):
    """A key for the signatures, made by the user land's own openssl."""
    lib = ":".join(os.path.join(base, d, "x86_64-linux-gnu") for d in ("usr/lib", "lib"))
    return build.kept("rsa2048.pem", lambda out: build.tool(
        [os.path.join(base, "lib64/ld-linux-x86-64.so.2"), "--library-path", lib, os.path.join(base, "usr/bin/openssl"),
         "genrsa", "-out", out, KEY_SIZE]))


def kit(base, program):
    """{path under /tmp/bench: file on this host}"""
    guest = os.path.join(build.HERE, "guest")
    files = {"vbench": program, "rows.sh": os.path.join(guest, "rows.sh"), "files/key.pem": key(base),
             "files/bench.h": os.path.join(guest, "bench.h")}
    files.update({f"files/{n}": os.path.join(guest, "files", n) for n in os.listdir(os.path.join(guest, "files"))})
    files.update({f"files/{n}": os.path.join(guest, n) for n in os.listdir(guest) if n.endswith(".c")})
    return files


def lay_out(files, where):
    for name, source in files.items():
        os.makedirs(os.path.dirname(os.path.join(where, name)), exist_ok=True)
        shutil.copy(source, os.path.join(where, name))
        os.chmod(os.path.join(where, name), 0o755)


def archive(folder, out):
    """Append a folder to an initramfs: not compressed, for to unpack is not what is measured."""
    build.tool(["sh", "-ec", 'cd "$1"; find . | LC_ALL=C sort | cpio --quiet -o -H newc -R 0:0 >>"$2"', "sh", folder, out])


def initramfs(program):
    """The user land, the kit and /init."""
    base = root()
    files = kit(base, program)
    init = os.path.join(build.HERE, "guest/init")

    def make(out):
        archive(base, out)
        with tempfile.TemporaryDirectory(dir=build.folder()) as top:
            lay_out(files, os.path.join(top, "tmp/bench"))
            shutil.copy(init, os.path.join(top, "init"))
            archive(top, out)

    name = f"debian-{build.digest([*files.values(), init], base)}.cpio"
    for old in glob.glob(os.path.join(build.folder(), "debian-*.cpio")):
        if os.path.basename(old) != name:
            os.unlink(old)  # they are large
    return build.kept(name, make)


SETUP = """mount -t tmpfs -o mode=1777 bench "$1/tmp"; cp -r "$2" "$1/tmp/bench"; mount --rbind /proc "$1/proc"
mount --rbind /dev "$1/dev"; base=$1; shift 2
exec chroot "$base" /bin/busybox env -i PATH=/usr/bin:/bin LC_ALL=C "$@" """


class Chroot:
    """The user land on the host: a command for `vbench programs` in it. As root, or by a user namespace if there may be one."""

    def __init__(self, program):
        self.base = root()
        self.kit = os.path.join(build.folder(), f"kit-{os.path.basename(program)}")
        lay_out(kit(self.base, program), self.kit)
        self.unshare = ["unshare", "--mount"] + ([] if os.getuid() == 0 else ["--map-root-user"])

    def command(self, *words):
        return [*self.unshare, "sh", "-ec", SETUP, "sh", self.base, self.kit, *words]

    def missing(self):
        """Why it cannot be used here, or None."""
        done = subprocess.run(self.command("/bin/true"), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
                              check=False)
        return None if done.returncode == 0 else (done.stderr.strip() or "chroot failed")


def chroot(program):
    """(Chroot, None), or (None, why not)."""
    try:
        found = Chroot(program)
    except OSError as e:
        raise BenchError(f"the chroot: {e}") from e
    why = found.missing()
    return (None, why) if why else (found, None)
