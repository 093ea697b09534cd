#!/usr/bin/env python3
"""GPU code and needed libraries of any wheel: cudalint against cuobjdump and readelf.

  wheel_vs_cuobjdump.py WHEEL|NAME==VERSION...

Every ELF file of the wheel: needed libraries, soname, rpath and runpath against `readelf -d`.  Every ELF file that has
one of the two sections which cuobjdump lists (.nv_fatbin, __nv_relfatbin): the number of entries per kind and
architecture against `cuobjdump --all-fatbin --list-elf --list-ptx`, the number of containers against a header walk of
this script.

No cuobjdump reads everything: 13.x stops at machine code below sm_75 ("Invalid ELF"), 12.4 does not know the suffixes
of new architectures.  13.x is asked first, 12.4 where it fails; which one answered is printed.  Known differences of
the tools, taken into account:
  13.x prints machine code of an `f` target without the f (it prints it for PTX);
  12.4 prints sm_50a, sm_60a, sm_61a for some old machine code (bit 0x800 of e_flags): an `a` below sm_90 is ignored;
  12.4 prints machine code and PTX from sm_100 on without suffix: there the number alone is compared.

cuobjdump: --cuobjdump PATH (repeatable), else on the PATH, else 13.x from the Python package nvidia-cuda-cuobjdump and
12.4 from Debian's nvidia-cuda-toolkit (trixie, non-free), unpacked in the cache and not installed.
"""
import importlib.util
import os
import re
import shutil
import struct
import subprocess
import sys
import tempfile
import zipfile
from collections import Counter
from pathlib import Path

sys.dont_write_bytecode = True
sys.path.insert(0, str(Path(__file__).resolve().parent))
from common import TOOLS, Checks, Cudalint, arguments, fetch_wheel, need


def version(tool):
    return re.search(r"V(\d[\d.]*)", subprocess.run([tool, "--version"], capture_output=True, text=True).stdout)[1]


def fetch_13(cache):
    d = cache / "cuobjdump-13"
    have = list(d.rglob("cuobjdump"))
    if not have:
        zipfile.ZipFile(fetch_wheel(cache, "nvidia-cuda-cuobjdump", "")).extractall(d)
        have = [p for p in d.rglob("cuobjdump") if p.is_file()]
    have[0].chmod(0o755)
    return have[0]


def fetch_12(cache):
    p = cache / "cuobjdump-12.4" / "cuobjdump"
    if not p.exists():
        spec = importlib.util.spec_from_file_location("build_corpus", TOOLS / "build_corpus.py")
        m = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(m)
        deb = m.Cache(cache / "corpus-cache").deb("nvidia-cuda-toolkit", "trixie", "amd64")
        p.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=p.parent) as td:
            data = subprocess.Popen(["dpkg-deb", "--fsys-tarfile", str(deb)], stdout=subprocess.PIPE)
            subprocess.run(["tar", "-x", "-C", td, "--wildcards", "*/bin/cuobjdump"], stdin=data.stdout, check=True)
            data.stdout.close()
            data.wait()
            found = [x for x in Path(td).rglob("cuobjdump") if x.is_file() and not x.is_symlink()]
            found[0].rename(p)
        p.chmod(0o755)
        deb.unlink()
    return p


class Tools:
    """The cuobjdumps, newest first, found or fetched only when asked for."""

    def __init__(self, given, cache):
        self.known = [str(p) for p in given]
        if not self.known and shutil.which("cuobjdump"):
            self.known = [shutil.which("cuobjdump")]
        self.known = sorted(((tuple(map(int, version(p).split("."))), p) for p in self.known), reverse=True)
        self.cache = cache

    def each(self):
        for major, fetch in ((13, fetch_13), (12, fetch_12)):
            mine = [p for v, p in self.known if v[0] == major]
            for p in mine or [str(fetch(self.cache))]:
                yield p, version(p)


def ask(tools, path):
    """(version, Counter of (kind, arch)) by the first cuobjdump that reads the whole file."""
    said = []
    for tool, v in tools.each():
        p = subprocess.run([tool, "--all-fatbin", "--list-elf", "--list-ptx", str(path)], capture_output=True, text=True, errors="replace")
        if p.returncode == 0 and "fatal" not in p.stderr and "error" not in p.stderr:
            n = Counter()
            for ext, arch in re.findall(r"^(ELF|PTX) file +\d+: .*\.(sm_\w+)\.(?:cubin|ptx)\s*$", p.stdout, re.M):
                n["sass" if ext == "ELF" else "ptx", arch] += 1
            return v, n
        said.append(f"{v}: {p.stderr.strip()[:120]}")
    return None, said


def plain(kind, arch, v):
    """The part of an architecture's name that this cuobjdump tells."""
    number, suffix = re.fullmatch(r"(?:sm|compute)_(\d+)([af]?)", arch).groups()
    if v.startswith("12."):
        suffix = suffix if 90 <= int(number) < 100 else ""
    elif kind == "sass" and suffix == "f":
        suffix = ""
    return f"{kind} {number}{suffix}"


def containers(path, sections):
    n = 0
    with open(path, "rb") as f:
        for off, size in sections:
            f.seek(off)
            pos = 0
            while pos + 16 <= size:
                f.seek(off + pos)
                magic, _, header, body = struct.unpack("<IHHQ", f.read(16))
                if magic != 0xBA55ED50:
                    pos += 8
                    continue
                n += 1
                pos += header + body
    return n


def readelf(path):
    """needed, soname, rpath, runpath, places of the sections, by readelf."""
    o = subprocess.run(["readelf", "-W", "-S", "-d", str(path)], capture_output=True, text=True, errors="replace", env={**os.environ, "LC_ALL": "C"}).stdout
    one = lambda tag: next((x for x in re.findall(rf"\({tag}\)[^\[]*\[(.*)\]", o)), None)
    at = [(int(a, 16), int(b, 16)) for a, b in re.findall(r"\] (?:\.nv_fatbin|__nv_relfatbin)\s+\S+\s+\S+\s+(\S+)\s+(\S+)", o)]
    split = lambda s: s.split(":") if s else []
    return re.findall(r"\(NEEDED\)[^\[]*\[(.*)\]", o), one("SONAME"), split(one("RPATH")), split(one("RUNPATH")), at


def main():
    a = arguments(__doc__, ("wheels", dict(nargs="+", metavar="WHEEL|NAME==VERSION")),
                  ("--cuobjdump", dict(action="append", type=Path, default=[], help="a cuobjdump to ask; repeatable")))
    c = Checks("wheel_vs_cuobjdump.py", a.verbose)
    need("readelf")
    lint, tools = Cudalint(a.binary, a.cache / "home", c), Tools(a.cuobjdump, a.cache)
    for w in a.wheels:
        wheel = Path(w)
        if not w.endswith(".whl"):
            name, _, v = w.partition("==")
            wheel = fetch_wheel(a.cache, name, v)
        d = lint.facts(f"file:{wheel.resolve()}")
        if not d:
            continue
        by = {f["path"]: f for f in d["files"]}
        answered, seen = Counter(), 0
        with zipfile.ZipFile(wheel) as z, tempfile.TemporaryDirectory(dir=a.cache) as td:
            for info in z.infolist():
                with z.open(info) as f:
                    if f.read(4) != b"\x7fELF":
                        continue
                seen += 1
                what = f"{wheel.name} {info.filename}"
                lib = Path(td) / "lib" / os.path.basename(info.filename)
                lib.parent.mkdir(exist_ok=True)
                with z.open(info) as i, open(lib, "wb") as o:
                    shutil.copyfileobj(i, o, 1 << 20)
                f = by.get("/" + info.filename)
                if c.ok(f and f["elf"], f"{what}: listed with ELF facts"):
                    needed, soname, rpath, runpath, at = readelf(lib)
                    e = f["elf"]
                    c.eq(e["needed"], needed, f"{what}: needed")
                    c.eq((e["soname"], e["rpath"], e["runpath"]), (soname, rpath, runpath), f"{what}: soname, rpath, runpath")
                    dc = f["device_code"] or {"containers": 0, "entries": []}
                    c.eq(dc["containers"], containers(lib, at), f"{what}: containers")
                    if at:
                        v, want = ask(tools, lib)
                        answered[v] += 1
                        if c.ok(v, f"{what}: some cuobjdump reads it", str(want)):
                            got, exp = Counter(), Counter()
                            for x in dc["entries"]:
                                if x["where"] == "section" and x["kind"] in ("sass", "ptx"):
                                    got[plain(x["kind"], x["arch"], v)] += x["count"]
                            for (kind, arch), n in want.items():
                                exp[plain(kind, arch, v)] += n
                            c.eq(dict(got), dict(exp), f"{what}: entries against cuobjdump {v}")
                lib.unlink()
        c.eq(sum(f["elf"] is not None for f in by.values()), seen, f"{wheel.name}: ELF files")
        c.note(f"{wheel.name}: {seen} ELF files, " + (", ".join(f"{n} answered by cuobjdump {v}" for v, n in answered.items()) or "none with GPU code"))
    c.end()


main()
