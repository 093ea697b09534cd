#!/usr/bin/env python3
"""Small real images against what other tools measured in them (tests/corpus/truth/*.json).

Builds the recipes of tests/corpus and compares, per image:
  ELF files      readelf: the set of files, size, soname, needed, rpath, runpath, machine, type, highest GLIBC_x
                 version, build id (of CUDA libraries)
  GPU code       cuobjdump: machine code per architecture with and without the relocatable section, PTX, and the
                 bytes of the sections; fat binaries outside the sections
  packages       importlib.metadata and dpkg-query: Python distributions with their CUDA requirements, the system
                 packages of the CUDA stack
  image          skopeo: platform, environment, entry point, command, labels, diff_ids; against the layout itself:
                 layer digests, sizes, media types, manifest digest, history
  links          symbolic links with their targets, how many there are
  versions       what the libraries answered when asked (cudaRuntimeGetVersion, ncclGetVersion, nvrtcVersion):
                 the stack rows of `cudalint check`
  loader         where the image's own ld.so found each library, in a chroot (`inspect`, key `objects`)
  verdicts       the recipe's table `targets`; rows that rest on R16 (NVIDIA_REQUIRE_*) with --runtime-mode legacy, and a
                 refused start must carry the words of nvidia-container-cli
dev5-index is looked into with --platform linux/amd64 and linux/arm64 and must give its members' facts.
The words of the tables are explained in tests/corpus/README.md.

libc6 and libstdc++6 are the Debian suite's current ones.  Where they moved since the truth was measured, their files
are left out of the comparison, and a line says so.
"""
import json
import os
import re
import sys
from collections import Counter
from pathlib import Path

sys.dont_write_bytecode = True
sys.path.insert(0, str(Path(__file__).resolve().parent))
from common import CORPUS, Checks, Cudalint, arguments, build_corpus, need

MACHINE = {"x86_64": "amd64", "aarch64": "arm64", "i386": "386"}
STACK_PACKAGE = re.compile(r"cuda|nvidia|cudnn|nccl|cublas|cufft|curand|cusolver|cusparse|nvrtc|npp|nvjpeg|libc6$|cupti|nvjitlink|musl")
REQUIRES = re.compile(r"(?i)(nvidia|cuda|torch|triton|jax|tensorrt|cupy|tensorflow)")


def blob(layout, digest):
    return json.loads((layout / "blobs/sha256" / digest.removeprefix("sha256:")).read_text())


def pip_name(s):
    return re.sub(r"[-_.]+", "-", s).lower()


def image(c, n, truth, facts, layout):
    """Image and layers, against truth and against the layout."""
    t, im = truth["image"], facts["image"]
    manifest = blob(layout, im["digest"])
    config = blob(layout, manifest["config"]["digest"])
    c.eq(im["platform"].split("/")[:2], ["linux", t["architecture"]], f"{n}: platform")
    c.eq(im["config"]["env"], dict(e.split("=", 1) for e in t["env"]), f"{n}: environment")
    c.eq(im["config"]["entrypoint"], t["entrypoint"] or [], f"{n}: entry point")
    c.eq(im["config"]["cmd"], t["cmd"] or [], f"{n}: command")
    c.eq(im["config"]["labels"], t["labels"] or {}, f"{n}: labels")
    c.eq([(l["digest"], l["media_type"], l["size"]) for l in im["layers"]],
         [(l["digest"], l["mediaType"], l["size"]) for l in manifest["layers"]], f"{n}: layers as in the manifest")
    c.eq([l["diff_id"] for l in im["layers"]], config["rootfs"]["diff_ids"], f"{n}: diff_ids as in the configuration")
    c.eq([l["created_by"] for l in im["layers"]], [h.get("created_by") for h in config["history"] if not h.get("empty_layer")], f"{n}: history")
    c.eq([l["index"] for l in im["layers"]], list(range(len(manifest["layers"]))), f"{n}: layer numbers")
    want, got = [l["diff_id"] for l in t["layers"]], [l["diff_id"] for l in im["layers"]]
    moved = [i for i in range(len(want)) if i >= len(got) or want[i] != got[i]]
    debs = {i for i in moved if "libc6" in (im["layers"][i]["created_by"] or "")}
    c.eq([got[i] for i in range(len(got)) if i not in debs], [want[i] for i in range(len(want)) if i not in debs], f"{n}: diff_ids as measured")
    for i in debs:
        c.note(f"{n}: layer {i} (libc6, libstdc++6 of the suite) has moved since the truth was measured; its files are not compared")
    return debs


def elf_files(c, n, truth, facts, debs):
    files = {f["path"].lstrip("/"): f for f in facts["files"]}
    elf = {p: f for p, f in files.items() if f["elf"]}
    left_out = {p for p, f in elf.items() if f["layer"] in debs}
    want = {e["path"]: e for e in truth["elf"]}
    if debs:
        base = re.compile(r"(usr/)?(lib|lib64|bin|sbin)/")
        want = {p: e for p, e in want.items() if p in elf and p not in left_out or not base.match(p)}
    c.eq(sorted(set(elf) - left_out), sorted(want), f"{n}: set of ELF files")
    for p, e in want.items():
        f = elf.get(p)
        if not f:
            continue
        x, what = f["elf"], f"{n} /{p}"
        split = lambda s: s.split(":") if s else []
        got = {"size": f["size"], "machine": x["machine"], "type": x["type"], "soname": x["soname"], "needed": x["needed"],
               "rpath": x["rpath"], "runpath": x["runpath"], "glibc": x["glibc"]}
        exp = {"size": e["size"], "machine": MACHINE.get(e["machine"], e["machine"]), "type": e["type"], "soname": e.get("soname"),
               "needed": e.get("needed", []), "rpath": split(e.get("rpath")), "runpath": split(e.get("runpath")),
               "glibc": e.get("max_versions", {}).get("GLIBC")}
        if "build_id" in e:
            got["build_id"], exp["build_id"] = x["build_id"], e["build_id"]
        c.eq(got, exp, f"{what}: ELF facts")
        code(c, what, e, f["device_code"])


def code(c, what, e, dc):
    sizes = e.get("sections", {})
    outside = (e.get("fatbins_outside_sections") or {}).get("count", 0)
    if not sizes and not e.get("cuobjdump") and not outside:
        c.eq(dc, None, f"{what}: no GPU code")
        return
    entries = dc["entries"] if dc else []
    plain = lambda arch: re.sub(r"^compute_", "sm_", arch)
    count = lambda kind, sections: Counter({a: sum(x["count"] for x in entries if x["where"] == "section" and x["kind"] == kind and x["section"] in sections and plain(x["arch"]) == a)
                                            for a in {plain(x["arch"]) for x in entries if x["kind"] == kind and x["where"] == "section" and x["section"] in sections}})
    c.eq((dc or {}).get("embedded_containers", 0), outside, f"{what}: containers outside the sections")
    if dc and not outside:
        c.eq(dc["bytes"], sum(v for k, v in sizes.items() if k in (".nv_fatbin", "__nv_relfatbin")), f"{what}: bytes of the sections")
    o = e.get("cuobjdump")
    if not o:
        return
    if o.get("incomplete") or o.get("relocatable_incomplete"):
        c.note(f"{what}: cuobjdump {o['tool']} stopped ({o.get('incomplete', 'relocatable part')}); counts not compared")
        return
    f_is_lost = o["tool"].startswith("13.")
    norm = lambda d: dict(Counter({re.sub("f$", "", k) if f_is_lost else k: v for k, v in d.items()}))
    c.eq(norm(count("sass", [".nv_fatbin"])), o["sass"], f"{what}: machine code, cuobjdump {o['tool']}")
    c.eq(dict(count("ptx", [".nv_fatbin"])), o["ptx"], f"{what}: PTX, cuobjdump {o['tool']}")
    if "sass_with_relocatable" in o:
        c.eq(norm(count("sass", [".nv_fatbin", "__nv_relfatbin"])), o["sass_with_relocatable"], f"{what}: machine code with the relocatable section")


def packages(c, n, truth, facts, debs):
    pip = [p for p in facts["packages"] if p["origin"] == "pip"]
    c.eq(sorted((p["name"], p["version"], str(Path(p["path"]).parent.parent).lstrip("/")) for p in pip),
         sorted((pip_name(d["name"]), d["version"], d["where"]) for d in truth["distributions"]), f"{n}: Python distributions")
    got = {p["name"]: sorted(r for r in p["requires"] if REQUIRES.match(r)) for p in pip}
    for d in truth["distributions"]:
        c.eq([re.sub(r"[\s()]", "", r) for r in got.get(pip_name(d["name"]), [])], sorted(re.sub(r"[\s()]", "", r) for r in d["requires"]),
             f"{n}: requirements of {d['name']}")
    want = {tuple(p.split()[:2]) for p in truth["dpkg"]["packages"] if STACK_PACKAGE.search(p.split()[0])}
    have = {(p["name"], p["version"]) for p in facts["packages"] if p["origin"] == "dpkg"}
    if debs:
        have, want = ({(k, v) for k, v in s if k != "libc6"} for s in (have, want))
    c.eq(sorted(have), sorted(want), f"{n}: system packages of the CUDA stack")


def links(c, n, truth, facts):
    have = {l["path"].lstrip("/"): l["target"] for l in facts["links"] if l["kind"] == "symlink"}
    c.eq({k: have.get(k) for k in truth["symlinks"]}, truth["symlinks"], f"{n}: symbolic links of the CUDA stack")
    files = {f["path"] for f in facts["files"]}
    for l in facts["links"]:
        if l["kind"] == "hardlink":
            c.ok(l["path"] in files and l["target"] in files, f"{n}: both names of the hard link {l['path']} are files")
    release = next((f["text"] for f in facts["files"] if f["path"] in ("/etc/os-release", "/usr/lib/os-release")), "") or ""
    c.eq(dict(re.findall(r'^(ID|VERSION_ID|PRETTY_NAME)="?([^"\n]*)', release, re.M)), truth["os_release"], f"{n}: os-release")


def versions(c, n, truth, stack):
    """What the libraries answered when asked, against the stack."""
    for p, said in truth["library_versions"].items():
        rows = [r for r in stack if r["path"] == "/" + p and r["linkage"] != "static"]
        v, name = None, p.rsplit("/", 1)[-1]
        if said.get("cudaRuntimeGetVersion"):
            x = said["cudaRuntimeGetVersion"]
            v = f"{x // 1000}.{x % 1000 // 10}"
        elif said.get("ncclGetVersion"):
            x = said["ncclGetVersion"]
            v = f"{x // 10000}.{x % 10000 // 100}.{x % 100}"
        elif said.get("nvrtcVersion"):
            v = ".".join(map(str, said["nvrtcVersion"]))
        c.eq(len(rows), 1, f"{n}: one stack row for /{p}")
        if v and rows:
            got = rows[0]["version"] or "unknown"
            c.ok(got == "unknown" or (got + ".").startswith(v + "."), f"{n}: version of /{p}", f"cudalint says {got} ({rows[0]['how']}), the library says {v}")
    by = {p["name"]: p for p in truth["distributions"]}
    for r in stack:
        m = re.search(r"pip package (\S+) (\S+)", r["how"])
        if m and r["path"].startswith("/usr/local/lib/python") and ".dist-info/" not in r["path"]:
            major = re.search(r"-cu(\d+)$", m[1])
            so = re.search(r"\.so\.(1[0-9])(\.|$)", r["path"])
            if major and so and r["component"] not in ("curand", "cufft", "cusolver"):
                c.eq(so[1], major[1], f"{n}: the package named for {r['path']} is of its CUDA major")
            c.ok(m[1] in by, f"{n}: {m[1]} is a distribution of the image")


def loader(c, n, truth, objects):
    """Where each library that a file needs is found, against the image's own loader."""
    by_path = {o["path"]: o for o in objects}
    compared = 0
    for p, said in truth["loader"].items():
        o = by_path.get("/" + p)
        for soname, where in said.get("libs", {}).items():
            loads = [l for l in (o or {"loads": []})["loads"] if l["soname"] == soname]
            if not loads:
                continue
            got, compared = loads[0], compared + 1
            want = None if where == "not found" else where
            if want is None:
                c.ok(got["status"] in ("missing", "injected"), f"{n} /{p}: {soname} is not found", str(got))
            else:
                # The truth has the name that the loader opened, the report the real file behind it.
                links = {"/" + k: v for k, v in truth["symlinks"].items()}
                real = links.get(want, want).rsplit("/", 1)[-1]
                c.eq((got["status"], (got["path"] or "").rsplit("/", 1)[-1]), ("found", real), f"{n} /{p}: {soname}")
    for p, said in truth["loader"].items():
        c.ok("/" + p in by_path, f"{n} /{p}: takes part in the stack")
    c.note(f"{n}: {compared} libraries looked up as the image's loader does")


def expected(word, t):
    """(holds, text) of the recipe's word for this target row of a report."""
    v, how = t["verdict"], t["how"]
    if word == "runs":
        return v == "runs"
    if word == "runs-minor":
        return v == "runs" and "minor-version-compatibility" in how
    if word == "runs-compat":
        return v == "runs" and "forward-compatibility" in how
    if word in ("cpu-only", "no-gpu-code"):
        return v == "fails" and "cpu-fallback" in how
    if word.startswith("fails-"):
        return v == "fails"
    if word == "risk":
        return v in ("degraded", "unknown")
    raise ValueError(word)


def verdicts(c, n, truth, lint, ref, options=lambda row: []):
    for row in truth["targets"]:
        gpu = {"GH200": "gh200"}.get(row["gpu"], row["gpu"].lower())
        what = f"{n}: {row['driver']} {row['gpu']}"
        mode = ("--runtime-mode", "legacy") if "R16" in row["rules"] else ()
        r = lint("check", "-f", "json", ref, "--host-driver", row["driver"], "--gpu", gpu, *mode, *options(row))
        if not c.ok(r.rc in (0, 1), f"{what}: check", str(r)):
            continue
        d = r.doc
        t = d["targets"][0]
        findings = [f["rule"] for f in d["findings"] if f["level"] != "note"]
        good = expected(row["verdict"], t) or row["verdict"] == "risk" and t["verdict"] == "runs" and any(f["level"] == "warning" for f in d["findings"])
        now = f"{t['verdict']} {t['how']} {findings}"
        c.ok(good, f"{what}: {row['verdict']} ({row['rules']})", f"cudalint says {now}; reason in the table: {row['reason']}")
        c.eq(r.rc, 1 if any(f["level"] == "error" for f in d["findings"]) else 0, f"{what}: exit status")
        if row["verdict"] == "fails-require":
            said = [f["runtime_error"]["text"] for f in d["findings"] if f["rule"] == "CUL504" and f["runtime_error"]]
            c.ok(any(s.startswith("nvidia-container-cli: requirement error: unsatisfied condition: cuda>=") for s in said),
                 f"{what}: the words of the refusal", str(said))


def main():
    a = arguments(__doc__, ("--layouts", dict(type=Path, help="directory of layouts already built, in place of building them")))
    c = Checks("corpus.py", a.verbose)
    need("zstd", "gcc", "apt-get", "dpkg-deb")
    out = a.layouts or build_corpus(a.cache)
    lint = Cudalint(a.binary, a.cache / "home", c)
    for path in sorted((CORPUS / "truth").glob("*.json")):
        truth = json.loads(path.read_text())
        n = truth["recipe"]
        layout = out / n
        if "index" in truth:
            top = json.loads((layout / "index.json").read_text())["manifests"][0]
            members = {m["platform"]["architecture"]: m["digest"] for m in blob(layout, top["digest"])["manifests"] if m["platform"]["os"] == "linux"}
            c.eq(sorted(members), ["amd64", "arm64"], f"{n}: members")
            for arch in ("amd64", "arm64"):
                d = lint.facts(f"oci:{layout}", "--platform", f"linux/{arch}", "--no-timing")
                alone = lint.facts(f"oci:{out / f'dev5-{arch}'}", "--platform", f"linux/{arch}", "--no-timing")
                if d and alone:
                    c.eq(d["image"]["digest"], members[arch], f"{n}: digest of the {arch} member")
                    for x in (d, alone):
                        del x["image"]["reference"], x["image"]["digest"]
                        for l in x["image"]["layers"]:
                            del l["digest"], l["size"]
                        x["image"]["platform"] = x["image"]["platform"].removesuffix("/v8")
                    c.eq(d, alone, f"{n}: facts of the {arch} member")
            here = {"x86_64": "amd64", "aarch64": "arm64"}.get(os.uname().machine)
            d = lint.facts(f"oci:{layout}")
            c.ok(d and (here is None or d["image"]["digest"] == members[here]), f"{n}: without --platform this machine's architecture is taken")
            d = lint.facts(f"oci:{out / 'dev5-arm64'}")
            c.ok(d and d["image"]["platform"].startswith("linux/arm64"), f"{n}: without --platform the only platform of an image is taken")
            for bad in ("linux/s390x", "unknown/unknown"):
                r = lint("scan", f"oci:{layout}", "--platform", bad)
                c.ok(r.rc == 3 and len(r.err.strip().splitlines()) == 1, f"{n}: --platform {bad} is exit 3 with one line", str(r))
            verdicts(c, n, truth, lint, f"oci:{layout}", lambda row: ["--platform", "linux/arm64" if "arm64" in row["reason"] else "linux/amd64"])
            continue
        platform = ["--platform", "linux/" + truth["image"]["architecture"]]
        d = lint.facts(f"oci:{layout}", *platform, "--verify-diff-ids")
        if not d:
            continue
        c.eq((d["complete"], d["problems"]), (True, []), f"{n}: complete, no problems")
        debs = image(c, n, truth, d, layout)
        elf_files(c, n, truth, d, debs)
        packages(c, n, truth, d, debs)
        links(c, n, truth, d)
        r = lint("check", "-f", "json", f"oci:{layout}", *platform)
        if c.ok(r.rc in (0, 1), f"{n}: check without a target", str(r)):
            versions(c, n, truth, r.doc["stack"])
        r = lint("inspect", "-f", "json", f"oci:{layout}", *platform)
        if c.ok(r.rc == 0, f"{n}: inspect", str(r)):
            loader(c, n, truth, r.doc["objects"])
        verdicts(c, n, truth, lint, f"oci:{layout}", lambda row: platform)
    c.end()


main()
