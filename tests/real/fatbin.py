#!/usr/bin/env python3
"""GPU code of real libraries against tests/expected/fatbin_expected.json.

The expected values come from cuobjdump (which version answered is in each record) and from a header walk of
another program.  Every wheel named there is downloaded and scanned with `cudalint scan file:WHEEL`; every library
named there is unpacked, its SHA-256 compared, and scanned once more on its own with `cudalint scan file:LIBRARY`.
Compared per library: containers; per (section, kind, architecture with suffix) the count; the PTX ISA versions with
counts; SHA-256 and size; the version of a static CUDA runtime; the CUDA libraries that it needs.
"""
import json
import sys
from collections import Counter
from pathlib import Path

sys.dont_write_bytecode = True
sys.path.insert(0, str(Path(__file__).resolve().parent))
from common import CUDA_LIB, EXPECTED, Checks, Cudalint, arguments, fetch_wheel, member, sha256


def compare(c, name, want, f):
    if not c.ok(f is not None and f["device_code"], f"{name}: device code listed"):
        return
    dc = f["device_code"]
    c.eq(f["size"], want["size"], f"{name}: size")
    c.eq((f["sha256"] or "").removeprefix("sha256:"), want["sha256"], f"{name}: SHA-256 with --hash-files")
    c.eq(dc["containers"], want["containers"], f"{name}: containers in sections")
    got, isa = Counter(), Counter()
    for e in dc["entries"]:
        if e["where"] == "section":
            got[f'{e["section"]} {e["kind"]} {e["arch"]}'] += e["count"]
            if e["kind"] == "ptx":
                isa[f'{e["section"]} {e["arch"]} {e["ptx_isa"]}'] += e["count"]
    exp, exp_isa = Counter(), Counter()
    for e in want["entries"]:
        kind = {"elf": "sass", "ptx": "ptx"}[e["kind"]]
        arch = e["arch"].replace("sm_", "compute_") if kind == "ptx" else e["arch"]
        exp[f'{e["section"]} {kind} {arch}'] += e["count"]
        for v, n in e.get("ptx_isa", {}).items():
            exp_isa[f'{e["section"]} {arch} {v}'] += n
    c.eq(dict(got), dict(exp), f"{name}: counts per section, kind and architecture")
    c.eq(dict(isa), dict(exp_isa), f"{name}: PTX ISA versions")
    c.eq(sum(got.values()), want["entry_count"], f"{name}: entries")
    c.eq(dc["bytes"] if not dc["embedded_containers"] else None,
         sum(s["size"] for s in want["sections"]) if not dc["embedded_containers"] else None, f"{name}: bytes of the sections")
    rt = f["elf"]["cudart"]
    c.eq(rt["version"] if rt and rt["linkage"] == "static" else None, want["static_cudart"], f"{name}: static CUDA runtime")
    c.eq(sorted(n for n in f["elf"]["needed"] if CUDA_LIB.match(n)), sorted(want["needed_cuda"]), f"{name}: needed CUDA libraries")


def main():
    a = arguments(__doc__)
    c = Checks("fatbin.py", a.verbose)
    lint = Cudalint(a.binary, a.cache / "home", c)
    wheels = {}
    for f in json.loads((EXPECTED / "fatbin_expected.json").read_text())["files"]:
        wheels.setdefault((f["package"], f["version"], f["wheel"]), []).append(f)
    for (package, version, filename), files in sorted(wheels.items()):
        try:
            wheel = fetch_wheel(a.cache, package, version, filename)
        except RuntimeError as e:
            c.ok(False, filename, str(e))
            continue
        d = lint.facts(f"file:{wheel}", "--hash-files")
        by = {x["path"]: x for x in d["files"]} if d else {}
        for want in files:
            lib = member(wheel, want["path"], a.cache / "expected" / filename[:-4] / want["path"])
            if not c.eq(sha256(lib), want["sha256"], f'{want["path"]}: the file is the expected one'):
                continue
            if d:
                compare(c, f'{filename} {want["path"]}', want, by.get("/" + want["path"]))
            one = lint.facts(f"file:{lib}", "--hash-files")
            if one:
                compare(c, f"file:{lib.name}", want, one["files"][0] if one["files"] else None)
                c.eq([x["path"] for x in one["files"]], ["/" + lib.name], f"file:{lib.name}: its path")
    c.end()


main()
