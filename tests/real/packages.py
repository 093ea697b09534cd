#!/usr/bin/env python3
"""The packages of a release, made from this checkout and used as their users would.

  packages.py --binary STATIC_PROGRAM [--cache DIR] [--dist DIR] [-v]

  archive     the same bytes twice; its program is --binary and needs no library; action/install.sh takes it
  debian      what dpkg says of it, installed into a root of its own and removed; manual pages; completions
  wheel       pip chooses it for either C library; installed, it says what --binary says; twine
  container   made by buildah: two files, not root; runs with nothing else there, and cudalint itself looks into it
  host        the static program asks nvidia-smi for the profile of the machine

packaging/dist.sh builds the program as packaging/build.sh does, so --binary is to be what that made of this checkout.
"""
import email
import gzip
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import tomllib
import zipfile
from pathlib import Path

sys.dont_write_bytecode = True
from common import Checks, Cudalint, REPO, Registry, arguments, environment, need, push, sha256, venv

PYPI = ["maturin==1.16.0", "wheel==0.48.0", "twine==7.0.0"]
EPOCH = 1_700_000_000
MACHINE = platform.machine()
DEBIAN = {"x86_64": "amd64", "aarch64": "arm64"}[MACHINE]
DEMO = REPO / "fixtures/images/demo"
H100 = ["--host-driver", "535", "--gpu", "h100", "--no-timing"]
HOSTS = REPO / "fixtures/hosts"

# A command line as bash hands it to the completion function -> what that offers.
COMPLETE = """
. "$1"; shift
COMP_WORDS=("$@") COMP_CWORD=$(($# - 1)) COMP_LINE="$*" COMP_POINT=${#COMP_LINE} COMP_TYPE=9 COMP_KEY=9
[[ $(complete -p cudalint) =~ -F\\ ([^ ]+) ]] || exit 9
"${BASH_REMATCH[1]}" cudalint "${!#}" "${@: -2:1}"
printf '%s\\n' "${COMPREPLY[@]}"
"""


class Place:
    """What every part needs: the packages, the program, a folder."""

    def __init__(self, a, c, t):
        self.a, self.c, self.t = a, c, t
        self.tools = venv(a.cache / "venv-packages", PYPI).parent
        self.env = environment(t / "home")
        self.cudalint = Cudalint(a.binary, t / "home", c)
        self.version = self.cudalint("--version").out.split()[1]
        commands = self.cudalint("--help").out.split("Commands:\n")[1].split("\n\n")[0]
        self.commands = set(re.findall(r"^  (\w+) ", commands, re.M))
        self.name = f"cudalint-{self.version}-linux-{MACHINE}"
        self.demo = self.cudalint(f"oci:{DEMO}", *H100).out
        c.ok("RUNS" in self.demo and len(self.commands) > 10, "--binary works here", self.demo)

    def file(self, ending):
        found = sorted(self.dist.glob(f"*{ending}"))
        if not self.c.eq(len(found), 1, f"one file *{ending}"):
            self.c.end()
        return found[0]

    def is_program(self, path, what):
        self.c.eq(sha256(path), sha256(self.a.binary), f"{what}: the program is --binary, byte for byte")

    def does_as_binary(self, command, what, **how):
        ran = said(command, env=self.env, **how)
        self.c.eq((ran.returncode, ran.stdout), (0, self.demo), f"{what}: says what --binary says {ran.stderr[-300:]}")


def said(command, **how):
    return subprocess.run([str(x) for x in command], capture_output=True, text=True, **how)


def well(c, command, what, **how):
    """A command that must end with 0 and say nothing on standard error; its output."""
    ran = said(command, **how)
    c.ok((ran.returncode, ran.stderr) == (0, ""), what, f"exit {ran.returncode}: {ran.stderr[-600:]}")
    return ran.stdout


def make(p):
    """Two runs, between which everything differs that must not matter."""
    c = p.c
    workflow = (REPO / ".github/workflows/release.yml").read_text()
    c.ok(all(pin in workflow for pin in PYPI[:2]), "the release is made with these versions of maturin and wheel")
    env = os.environ | {"PATH": f"{p.tools}:{os.environ['PATH']}", "SOURCE_DATE_EPOCH": str(EPOCH)}
    outs = []
    for name, umask, more in (("first", 0o022, {"LC_ALL": "C.UTF-8"}), ("second", 0o002, {"LC_ALL": "C", "TZ": "Asia/Kolkata"})):
        outs.append(p.t / name)
        ran = said([REPO / "packaging/dist.sh", outs[-1]], cwd=p.t, env=env | more, umask=umask)
        if not c.ok(ran.returncode == 0, f"packaging/dist.sh, {name} run", ran.stderr[-1000:]):
            c.end()
    files = [{f.name: sha256(f) for f in out.iterdir()} for out in outs]
    # The wheel's own bill of materials has a number drawn by chance.
    same = [{n: s for n, s in sums.items() if not n.endswith(".whl")} for sums in files]
    c.eq(same[1], same[0], "archive and Debian package: the second run gives the same bytes")
    c.eq((set(files[1]), len(files[0])), (set(files[0]), 3), "archive, Debian package, wheel")
    return outs[0]


def archive(p):
    c, path = p.c, p.file(".tar.gz")
    c.eq(path.name, f"{p.name}.tar.gz", "archive: name")
    with tarfile.open(path) as tar:
        members = tar.getmembers()
    stamps = {(m.uid, m.gid, m.mtime) for m in members}
    c.eq(stamps, {(0, 0, members[0].mtime if p.a.dist else EPOCH)}, "archive: owner and date")
    modes = {m.name.removeprefix(f"{p.name}/"): oct(m.mode) for m in members if m.isfile()}
    pages = {n for n in modes if n.startswith("man/")}
    plain = {"README.md", "CHANGELOG.md", "LICENSE-APACHE", "LICENSE-MIT",
             *(f"completions/{n}" for n in ("cudalint", "_cudalint", "cudalint.fish"))}
    c.eq({n: mode for n, mode in modes.items() if n not in pages}, {n: "0o644" for n in plain} | {"cudalint": "0o755"},
         "archive: files and modes")
    c.eq({oct(m.mode) for m in members if m.isdir()}, {"0o755"}, "archive: directories")
    c.eq({modes[n] for n in pages}, {"0o644"}, "archive: modes of manual pages")
    wanted = {"man/cudalint.1", *(f"man/cudalint-{n}.1" for n in p.commands)}
    c.eq(sorted(wanted - pages), [], "archive: a manual page for every command")
    subprocess.run(["tar", "-xzf", path, "-C", p.t], check=True)
    program = p.t / p.name / "cudalint"
    p.is_program(program, "archive")
    headers = well(c, ["readelf", "-lW", program], "archive: program headers", env=p.env)
    dynamic = well(c, ["readelf", "-dW", program], "archive: dynamic section", env=p.env)
    c.ok("LOAD" in headers and "INTERP" not in headers and "NEEDED" not in dynamic, "the program is static", headers + dynamic)

    # As the action gets it.
    action, base = p.t / "action", p.t / "releases"
    shutil.copytree(REPO / "action", action)
    with open(action / "checksums.txt", "a") as f:
        f.write(f"{sha256(path)}  {path.name}\n")
    (base / f"v{p.version}").mkdir(parents=True)
    shutil.copy(path, base / f"v{p.version}")
    (p.t / "runner").mkdir()
    inputs = dict.fromkeys(("VERSION", "CACHE", "CACHE_DIR", "IMAGE", "PATH", "PLATFORM"), "")
    env = p.env | {f"INPUT_{n}": v for n, v in inputs.items()} | {
        "RUNNER_OS": "Linux", "RUNNER_ARCH": {"amd64": "X64", "arm64": "ARM64"}[DEBIAN], "RUNNER_TEMP": str(p.t / "runner"),
        "GITHUB_OUTPUT": str(p.t / "outputs"), "CUDALINT_RELEASE_BASE": f"file://{base}"}
    well(c, ["bash", action / "install.sh"], "the action installs the archive", env=env)
    installed = list((p.t / "runner").glob(f"*/{p.name}/cudalint"))
    if c.eq(len(installed), 1, "the action's program"):
        p.is_program(installed[0], "the action")


def debian(p):
    c, path = p.c, p.file(".deb")
    c.eq(path.name, f"cudalint_{p.version}_{DEBIAN}.deb", "Debian package: name")
    fields = email.message_from_string(well(c, ["dpkg-deb", "-f", path], "dpkg-deb -f"))
    want = {"Package": "cudalint", "Version": p.version, "Architecture": DEBIAN, "Recommends": "ca-certificates"}
    c.eq({n: fields[n] for n in want}, want, "Debian package: fields")
    c.eq((fields["Depends"], fields["Pre-Depends"]), (None, None), "Debian package: depends on nothing")
    size = p.a.binary.stat().st_size // 1024
    c.ok(size < int(fields["Installed-Size"]) < size + 2048, "Debian package: installed size", fields["Installed-Size"])
    listed = well(c, ["dpkg-deb", "-c", path], "dpkg-deb -c", env=p.env)
    rows = [line.split(None, 5) for line in listed.splitlines()]
    c.eq({row[1] for row in rows}, {"root/root"}, "Debian package: all is root's")
    strange = [row for row in rows if (row[0], row[5] == "./usr/bin/cudalint") not in
               (("drwxr-xr-x", False), ("-rw-r--r--", False), ("-rwxr-xr-x", True))]
    c.eq(strange, [], "Debian package: modes")
    well(c, ["dpkg-deb", "-x", path, p.t / "unpacked"], "dpkg-deb -x")
    p.is_program(p.t / "unpacked/usr/bin/cudalint", "Debian package")

    # dpkg itself, on a system that has nothing yet.
    root = p.t / "root"
    for name in ("info", "updates"):
        (root / "var/lib/dpkg" / name).mkdir(parents=True)
    (root / "var/lib/dpkg/status").touch()
    dpkg = ["dpkg", f"--root={root}", "--force-not-root", "--log=/dev/null"]
    before = {str(f) for f in root.rglob("*")}
    well(c, [*dpkg, "--install", path], "dpkg --install", env=p.env)
    status = said(["dpkg-query", f"--admindir={root}/var/lib/dpkg", "-W", "-f", "${db:Status-Status}", "cudalint"]).stdout
    c.eq(status, "installed", "dpkg: installed")
    p.does_as_binary([root / "usr/bin/cudalint", f"oci:{DEMO}", *H100], "Debian package")
    share = root / "usr/share"
    changes = gzip.decompress((share / "doc/cudalint/changelog.gz").read_bytes())
    c.ok(p.a.dist or changes == (REPO / "CHANGELOG.md").read_bytes(), "changelog")
    licence = (share / "doc/cudalint/copyright").read_text()
    c.ok(licence.startswith("Format: ") and "License: Apache-2.0 or MIT\n" in licence, "copyright")
    manual(p, share / "man/man1")
    completions(p, share)
    well(c, [*dpkg, "--purge", "cudalint"], "dpkg --purge", env=p.env)
    left = {str(f) for f in root.rglob("*") if f.is_file()} - before
    c.eq([f for f in left if "/var/lib/dpkg/" not in f], [], "dpkg: nothing is left behind")


def manual(p, pages):
    c, found = p.c, sorted(pages.iterdir())
    c.eq(sorted({f"cudalint-{n}.1.gz" for n in p.commands} - {f.name for f in found}), [], "manual pages: one for every command")
    for page in found:
        roff = p.t / page.stem
        roff.write_bytes(gzip.decompress(page.read_bytes()))
        text = well(c, ["groff", "-t", "-man", "-ww", "-Kutf8", "-Tutf8", roff], f"{roff.name}: no warnings", env=p.env)
        shown = re.sub(r"\x1b\[[0-9;]*m|.\x08", "", text)
        c.ok("NAME\n       cudalint" in shown, f"{roff.name}: rendered", shown[:300])
        if shutil.which("man"):
            well(c, ["man", "--warnings", "-E", "UTF-8", "-l", "-Tutf8", roff], f"{roff.name}: man agrees", env=p.env)


def completions(p, share):
    c, file = p.c, share / "bash-completion/completions/cudalint"
    well(c, ["bash", "-n", file], "bash -n")
    for words, want in ((["che"], {"check"}), (["check", "--host-d"], {"--host-driver"}), (["completions", "z"], {"zsh"}),
                        (["check", "--fail-on", "w"], {"warning"}), (["no-such"], {""}), (["export", "--no-such"], {""})):
        offered = well(c, ["bash", "-c", COMPLETE, "bash", file, "cudalint", *words], f"bash completes {words}", env=p.env)
        c.eq(set(offered.removesuffix("\n").split("\n")), want, f"bash completes {words}")
    offered = well(c, ["bash", "-c", COMPLETE, "bash", file, "cudalint", ""], "bash completes nothing yet", env=p.env)
    c.eq(sorted(p.commands - set(offered.split())), [], "bash offers every command")
    for shell, name in (("zsh", "zsh/vendor-completions/_cudalint"), ("fish", "fish/vendor_completions.d/cudalint.fish")):
        text = (share / name).read_text()
        c.ok(all(command in text for command in p.commands), f"{shell}: every command")
        if shutil.which(shell):
            well(c, [shell, "-n", share / name], f"{shell} -n", env=p.env)


def wheel(p):
    c, path = p.c, p.file(".whl")
    tags = path.stem.split("-")[-1].split(".")
    platforms = {f"{n}_{MACHINE}" for n in ("manylinux_2_17", "manylinux2014", "musllinux_1_1")}
    c.eq((path.name.split("-")[:4], set(tags)), (["cudalint", p.version, "py3", "none"], platforms), "wheel: name")
    with zipfile.ZipFile(path) as z:
        info = f"cudalint-{p.version}.dist-info"
        meta, head = (email.message_from_bytes(z.read(f"{info}/{n}")) for n in ("METADATA", "WHEEL"))
        names = set(z.namelist())
    c.eq((meta["Name"], meta["Version"]), ("cudalint", p.version), "wheel: name and version")
    c.eq(meta["License-Expression"], "Apache-2.0 OR MIT", "wheel: licence")
    files = meta.get_all("License-File")
    c.eq(sorted(files), ["LICENSE-APACHE", "LICENSE-MIT"], "wheel: licence files")
    c.ok({f"{info}/licenses/{n}" for n in files} <= names, "wheel: licence files are there", str(names))
    c.eq(meta.get_all("Requires-Dist"), None, "wheel: depends on nothing")
    text = meta.get_payload(decode=True).decode().strip()
    c.ok(p.a.dist or text == (REPO / "README.md").read_text().strip(), "wheel: the README is its description")
    c.eq(({*head.get_all("Tag")}, head["Root-Is-Purelib"]), ({f"py3-none-{n}" for n in tags}, "false"), "wheel: tags")
    checked = said([p.tools / "twine", "check", "--strict", path], env=p.env)
    c.ok(checked.returncode == 0 and "PASSED" in checked.stdout, "twine check --strict", checked.stdout + checked.stderr)

    pip = ["--disable-pip-version-check", "--no-index", "--no-cache-dir", "-q"]
    for system in (f"manylinux_2_17_{MACHINE}", f"manylinux2014_{MACHINE}", f"musllinux_1_1_{MACHINE}"):
        to = p.t / f"for-{system}"
        well(c, [p.tools / "python", "-m", "pip", "download", *pip, "--find-links", path.parent, "--no-deps", "--dest", to,
                 "--only-binary=:all:", "--platform", system, f"cudalint=={p.version}"], f"pip finds it for {system}", env=p.env)
    subprocess.run([sys.executable, "-m", "venv", p.t / "venv"], check=True)
    bin = p.t / "venv/bin"
    well(c, [bin / "python", "-m", "pip", "install", *pip, path], "pip install WHEEL", env=p.env)
    p.is_program(bin / "cudalint", "wheel")
    env = p.env | {"PATH": f"{bin}:{p.env['PATH']}"}
    ran = said(["bash", "-c", f"cudalint oci:fixtures/images/demo {' '.join(H100)}"], env=env, cwd=REPO)
    here = p.demo.replace(f"oci:{DEMO}", "oci:fixtures/images/demo")
    c.eq((ran.returncode, ran.stdout), (0, here), f"wheel: says what --binary says {ran.stderr[-300:]}")


def container(p):
    c, t = p.c, p.t / "container"
    (t / "bin").mkdir(parents=True)
    for tool in ("bash", "buildah", "cp", "dirname", "install", "mktemp", "rm"):      # neither docker nor podman
        (t / "bin" / tool).symlink_to(shutil.which(tool))
    (t / "storage.conf").write_text(f'[storage]\ndriver = "vfs"\nrunroot = "{t}/run"\ngraphroot = "{t}/graph"\n')
    storage = {"CONTAINERS_STORAGE_CONF": str(t / "storage.conf"), "BUILDAH_ISOLATION": "chroot"}
    env = p.env | storage | {"PATH": str(t / "bin")}
    ran = said([REPO / "packaging/container.sh", "cudalint:test"], env=env | {"CUDALINT_BINARY": str(p.a.binary)}, cwd=t)
    if not c.ok(ran.returncode == 0, "packaging/container.sh", ran.stdout[-300:] + ran.stderr[-600:]):
        return
    subprocess.run(["buildah", "push", "-q", "cudalint:test", f"oci:{t}/oci:test"], env=p.env | storage, check=True,
                   capture_output=True)
    blob = lambda about: t / "oci/blobs" / about["digest"].replace(":", "/")
    manifest = json.loads(blob(json.loads((t / "oci/index.json").read_text())["manifests"][0]).read_text())
    image = json.loads(blob(manifest["config"]).read_text())
    want = {"User": "65532:65532", "Entrypoint": ["/usr/bin/cudalint"], "Env": ["PATH=/usr/bin"]}
    c.eq({n: image["config"].get(n) for n in want}, want, "container: not root; entry point")
    c.eq((image["os"], image["architecture"], "Cmd" in image["config"]), ("linux", DEBIAN, False), "container: platform")
    root = t / "rootfs"
    root.mkdir()
    for layer in manifest["layers"]:
        subprocess.run(["tar", "--no-same-owner", "-xzf", blob(layer), "-C", root], check=True)
    files = {str(f.relative_to(root)) for f in root.rglob("*") if not f.is_dir() or f.is_symlink()}
    c.eq(files, {"usr/bin/cudalint", "etc/ssl/certs/ca-certificates.crt"}, "container: two files")
    p.is_program(root / "usr/bin/cudalint", "container")
    c.ok((root / "etc/ssl/certs/ca-certificates.crt").read_text().count("BEGIN CERTIFICATE") > 50, "container: certificates")

    looked = p.cudalint("check", "-f", "json", "containers-storage:localhost/cudalint:test", *H100, **storage)
    if c.ok(looked.rc == 0, "cudalint looks into its own image", str(looked)):
        verdicts = [target["verdict"] for target in looked.doc["targets"]]
        c.eq(verdicts, ["no-gpu-code"], "cudalint sees no GPU code in its own image")
    facts = p.cudalint.facts("containers-storage:localhost/cudalint:test", **storage) or {"files": []}
    elf = [(f["path"], f["elf"]["needed"], f["elf"]["interpreter"]) for f in facts["files"] if f["elf"]]
    c.eq(elf, [("/usr/bin/cudalint", [], None)], "cudalint sees that its image holds one static program")

    if os.geteuid():
        c.note("not root: the image is not run")
        return
    # What every engine adds: names, random bytes, and here the user's files.
    (root / "dev").mkdir()
    for name in ("random", "urandom"):
        (root / "dev" / name).write_bytes(os.urandom(1 << 16))
    (root / "etc/hosts").write_text("127.0.0.1 localhost\n127.0.0.1 registry.test\n")
    (root / "etc/resolv.conf").touch()
    place = image["config"]["WorkingDir"]
    shutil.copytree(DEMO, root / place[1:] / "demo")
    inside = ["env", "-i", "PATH=/usr/bin", shutil.which("chroot"), "--userspec=65532:65532", root, "/usr/bin/cudalint"]
    subprocess.run(["chmod", "-R", "a+rX", root], check=True)
    ran = said([*inside, f"oci:{place}/demo", *H100])
    here = p.demo.replace(f"oci:{DEMO}", f"oci:{place}/demo")
    c.eq((ran.returncode, ran.stdout), (0, here), f"in the image: says what --binary says {ran.stderr[-300:]}")
    with Registry() as registry:
        push(f"oci:{DEMO}", f"docker://{registry.host}/demo:1", "--dest-tls-verify=false")
        for name in ("127.0.0.1", "localhost", "registry.test"):
            at = f"{name}:{registry.host.split(':')[1]}/demo:1"
            ran = said([*inside, at, "--insecure", *H100])
            c.ok(ran.returncode == 0 and "RUNS" in ran.stdout, f"in the image: pulls from {name}", ran.stdout + ran.stderr)


def host(p):
    c, bin = p.c, p.t / "driver"
    bin.mkdir()

    def asked(text, code=0):
        (bin / "said").write_text(text)
        smi = bin / "nvidia-smi"
        smi.write_text(f'#!/bin/sh\n[ "$*" = "-q -x" ] || exit 6\ncat {bin}/said\nexit {code}\n')
        smi.chmod(0o755)
        return p.cudalint("host", PATH=f"{bin}:{p.env['PATH']}")

    samples = [s for s in tomllib.loads((HOSTS / "expected.toml").read_text())["sample"] if s["file"].startswith("smi_xml")]
    c.ok(len(samples) > 3, "samples of nvidia-smi -q -x")
    for sample in samples:
        name = sample["file"]
        r = asked((HOSTS / name).read_text())
        if not c.ok(r.rc == 0, f"host: {name}", str(r)):
            continue
        target, = tomllib.loads(r.out)["target"]
        known = "is not known" not in r.err
        want = (sample["driver"], DEBIAN, sample["gpus"] if known else None)
        c.eq((target["driver"], target["arch"], target.get("gpus")), want, f"host: {name}")
        (bin / "host.toml").write_text(r.out)
        facts = REPO / "fixtures/facts/torch-2.8.0.json"
        r = p.cudalint("check", "-f", "json", "--facts", facts, "--targets", bin / "host.toml")
        if known and c.ok(r.rc in (0, 1), f"host: {name}: --targets reads the profile", str(r)):
            c.eq([t["driver"] for t in r.doc["targets"]], [sample["driver"]], f"host: {name}: judged")
    if Path("/proc/driver/nvidia/version").exists():
        c.note("this machine has a driver: not asked what is said without one")
        return
    for what, r in (("nvidia-smi fails", asked((HOSTS / "smi_failed_no_driver.txt").read_text(), 9)),
                    ("nvidia-smi says nothing", asked("")), ("no nvidia-smi", p.cudalint("host", PATH=str(p.t)))):
        c.ok((r.rc, r.out) == (3, "") and "no NVIDIA driver found" in r.err, f"host: {what}", str(r))


def main():
    dist = ("--dist", {"type": Path, "help": "packages to look at in place of making them, such as those of a release"})
    a = arguments(__doc__, dist)
    c = Checks("packages.py", a.verbose)
    need("bash", "buildah", "curl", "docker-registry", "dpkg-deb", "groff", "readelf", "skopeo")
    with tempfile.TemporaryDirectory(prefix="packages.", dir=a.cache) as t:
        p = Place(a, c, Path(t))
        p.dist = a.dist.resolve() if a.dist else make(p)
        archive(p)
        debian(p)
        wheel(p)
        container(p)
        host(p)
    c.end()


if __name__ == "__main__":
    main()
