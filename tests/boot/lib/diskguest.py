"""What the tests and measurements of disks share: a guest that does a job, its images, and their judges.

The guest is Debian's cloud kernel with tests/boot/guest/init-job, which runs the job (a shell script) and powers off. The
first disk is the one under test, the second one holds fio (tools/fio-image) where the job wants it.
"""
import os
import shutil
import subprocess
import sys
import tarfile

TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))
CACHE = os.environ.get("VITRO_CACHE", os.path.join(TOP, "cache"))
DRIVERS = ["virtio_ring", "virtio", "virtio_pci_modern_dev", "virtio_pci_legacy_dev", "virtio_pci", "virtio_blk"]


def skip(reason):
    print(f"SKIP: {reason}")
    sys.exit(77)


def sh(*argv, ok=(0,), **more):
    """Run a program of the host: its output. Any other status than ok is an error with all that it said."""
    done = subprocess.run([str(a) for a in argv], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False, **more)
    if ok is not None and done.returncode not in ok:
        raise RuntimeError(f"{' '.join(map(str, argv))}: status {done.returncode}: {done.stdout.decode('utf-8', 'replace')}")
    return done.stdout


def tool(*argv):
    try:
        sh(os.path.join(TOP, "tools", argv[0]), *argv[1:])
    except RuntimeError as e:
        skip(str(e).strip())


def program(name, package):
    path = shutil.which(name, path=os.environ.get("PATH", "") + ":/sbin:/usr/sbin")
    return path or skip(f"there is no {name}: install {package}")


def kernel():
    tool("fetch-guests", "cloud")
    return os.path.join(CACHE, "vmlinuz-cloud")


def fio_image():
    path = os.path.join(CACHE, "fio.img")
    tool("fio-image", path)
    return path


def initrd(work, job, files=()):
    """An initramfs in the folder work; files are pairs FILE=PATH_IN_GUEST."""
    tool("fetch-guests", "cloud", "busybox", "modules")
    pairs = []
    with tarfile.open(os.path.join(CACHE, "modules-cloud.tar")) as tar:
        for member in tar.getmembers():
            name = os.path.basename(member.name)[:-len(".ko")]
            if member.isfile() and name in DRIVERS:
                path = os.path.join(work, name + ".ko")
                with open(path, "wb") as out:
                    out.write(tar.extractfile(member).read())
                pairs.append(f"{path}=mod/{name}.ko")
    script = os.path.join(work, "job")
    with open(script, "w", encoding="ascii") as f:
        f.write(job)
    out = os.path.join(work, "initrd.gz")
    tool("mkinitramfs", out, os.path.join(CACHE, "busybox"), os.path.join(TOP, "tests/boot/guest/init-job"), f"{script}=job",
         *pairs, *files)
    return out


def vitro(program_path, image, disks, cpus=1, memory="512M", cmdline="", more=()):
    """The command line of a machine."""
    return [program_path, "run", "--cpus", str(cpus), "--memory", memory, "--kernel", kernel(), "--initrd", image,
            "--cmdline", f"console=ttyS0 quiet {cmdline}", "--no-reboot",
            *[word for disk in disks for word in ("--disk", disk)], *more]


def raw_view(image, work, form):
    """The disk of an image as a raw file of its own."""
    raw = os.path.join(work, "view.raw")
    if os.path.exists(raw):
        os.unlink(raw)
    if form == "raw":
        sh("cp", "--sparse=always", image, raw)
    else:
        sh(program("qemu-img", "qemu-utils"), "convert", "-f", form, "-O", "raw", image, raw)
    return raw


def check_image(image, form, leaks=False):
    """qemu-img's judgement. leaks: clusters that nobody uses are allowed (a killed writer leaves them)."""
    if form == "qcow2":
        sh(program("qemu-img", "qemu-utils"), "check", "-f", form, image, ok=(0, 3) if leaks else (0,))
