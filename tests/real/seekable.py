#!/usr/bin/env python3
"""Layers with a table of contents, read in part: the facts are those of the whole layer, or it is read whole and says why.

  seekable.py [--binary PATH] [--cache DIR] [-v] [--only PART]

`--depth libraries` reads zstd:chunked and eStargz through their tables; --verify-blobs and layers without a table are read whole.
Only image.reference, layers[].digest|diff_id|media_type|size and timing may differ (an eStargz layer has two files more).

  forms       zstd:chunked by skopeo, podman and buildah, with the annotations of older and newer writers, eStargz by
              tests/tools/estargz.py in several chunk sizes, from a registry and from an OCI layout: ranges = whole = gzip
  difference  full facts without GPU code and without what is found by searching whole files are the libraries' facts
  gate        no verdict better than unknown, CUL903, exit 0 or 4; what does not depend on GPU code still fails
  entries     links, whiteouts, opaque directories, devices, long and odd names, holes, names above the root, empty layers
  lies        wrong digests, positions, chunks, sizes, JSON; bombs: right facts and a row that says why, or exit 3, in bounded
              time and within 300 MB; what is not checked is as documented
  network     no ranges, 503, cut connections, redirects
  cache       facts by table are facts of that table only; found there, nothing is asked for but the manifest
  sources     --verify-diff-ids, archives, standard input, directory, file: whole, and the depth is said
"""
import copy
import gzip
import hashlib
import io
import itertools
import json
import os
import random
import re
import resource
import shutil
import struct
import subprocess
import sys
import tarfile
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

sys.dont_write_bytecode = True
sys.path[:0] = [str(Path(__file__).resolve().parent), str(Path(__file__).resolve().parent.parent / "tools")]
from common import Checks, Cudalint, Faults, REPO, Registry, Result, TOOLS, arguments, fetch_wheel, mkimage, need, push, raw_push, short
import estargz

WHEELS = (("torchvision", "0.16.2", "torchvision-0.16.2-cp311-cp311-manylinux1_x86_64.whl"),
          ("torchaudio", "2.1.2", "torchaudio-2.1.2-cp311-cp311-manylinux1_x86_64.whl"))
OCI = "application/vnd.oci.image."
ZSTD = {"mediaType": OCI + "layer.v1.tar+zstd"}
OLD, NEW = "io.containers.zstd-chunked.", "io.github.containers.zstd-chunked."
NOTE = "read by their tables of contents"
DEPTH = ("--depth", "libraries")
CODE = REPO / "fixtures/code"
RSS = 300
sha256 = estargz.sha256


# ------------------------------------------------------------------------------------------------------- making images
def tar(*members, end=True):
    """Of (name, bytes), TarInfo or (TarInfo, bytes); a long name and a PAX header make the tar of their form."""
    out = bytearray()
    for m in members:
        info, data = m if isinstance(m, tuple) else (m, b"")
        info = tarfile.TarInfo(info) if isinstance(info, str) else info
        info.size = len(data)
        form = tarfile.PAX_FORMAT if info.pax_headers else tarfile.GNU_FORMAT
        out += info.tobuf(form, "utf-8", "surrogateescape") + data + bytes(-len(data) % 512)
    return bytes(out + bytes(1024 if end else 0))


def info(name, kind=tarfile.REGTYPE, link="", **more):
    i = tarfile.TarInfo(name)
    i.type, i.linkname = kind, link
    for k, v in more.items():
        setattr(i, k, v)
    return i


class Layout:
    """An OCI layout written by hand. Layers are (blob, descriptor, diff_id); what the descriptor says wins."""

    def __init__(self, path, *layers, config=None, tag="x", kept=False):
        self.path, self.ref = Path(path), f"oci:{path}:{tag}"
        self.blobs = self.path / "blobs/sha256"
        self.blobs.mkdir(parents=True, exist_ok=True)
        rows = []
        for blob, descriptor, _ in layers:
            rows.append({"mediaType": estargz.MEDIA_TYPE, "digest": descriptor.get("digest") or self.put(blob), "size": len(blob), **descriptor})
        c = {"architecture": "amd64", "os": "linux", "config": {"Env": ["PATH=/usr/bin"]},
             "history": [{"created_by": f"L{i}"} for i in range(len(layers))], **(config or {}),
             "rootfs": {"type": "layers", "diff_ids": [l[2] for l in layers]}}
        cfg = json.dumps(c).encode()
        m = json.dumps({"schemaVersion": 2, "mediaType": OCI + "manifest.v1+json", "layers": rows,
                        "config": {"mediaType": OCI + "config.v1+json", "digest": self.put(cfg), "size": len(cfg)}}).encode()
        top = {"mediaType": OCI + "manifest.v1+json", "digest": self.put(m), "size": len(m),
               "annotations": {"org.opencontainers.image.ref.name": tag}}
        (self.path / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
        index = self.path / "index.json"
        others = json.loads(index.read_text())["manifests"] if kept and index.exists() else []
        index.write_text(json.dumps({"schemaVersion": 2, "manifests": [*others, top]}))
        self.manifest, self.config = json.loads(m), c

    def put(self, data):
        (self.blobs / sha256(data)[7:]).write_bytes(data)
        return sha256(data)


def read_layout(path):
    """(manifest, configuration, blobs of the layers) of a layout with one image."""
    read = lambda d: (Path(path) / "blobs/sha256" / d["digest"][7:]).read_bytes()
    manifest = json.loads(read(json.loads((Path(path) / "index.json").read_text())["manifests"][0]))
    return manifest, json.loads(read(manifest["config"])), [read(l) for l in manifest["layers"]]


def seekable(descriptor):
    """Without what the registry says anew."""
    return {k: v for k, v in descriptor.items() if k in ("mediaType", "annotations")}


def skopeo_chunked(source, target):
    push(source, target, "--dest-compress", "--dest-compress-format", "zstd:chunked")


def frame(data):
    """A zstd frame of blocks that are stored as they are."""
    parts = [data[i:i + (1 << 17)] for i in range(0, len(data), 1 << 17)] or [b""]
    blocks = (((len(p) << 3) | (i == len(parts) - 1)).to_bytes(3, "little") + p for i, p in enumerate(parts))
    return b"\x28\xb5\x2f\xfd\xa0" + len(data).to_bytes(4, "little") + b"".join(blocks)


def skippable(data):
    return b"\x50\x2a\x4d\x18" + len(data).to_bytes(4, "little") + data


def packed_table(rows):
    """A table of these entries, packed, and its length unpacked. It is never whole in memory: that of this process counts as that of
    the programs it starts."""
    with tempfile.TemporaryFile() as out:
        p = subprocess.Popen(["zstd", "-q", "-c"], stdin=subprocess.PIPE, stdout=out)
        size = p.stdin.write(b'{"version":1,"entries":[')
        rows, between = iter(rows), b""
        while part := b",".join(itertools.islice(rows, 10_000)):
            size += p.stdin.write(between + part)
            between = b","
        size += p.stdin.write(b"]}")
        p.stdin.close()
        p.wait()
        out.seek(0)
        return out.read(), size


def chunked(files, chunk=8 << 20, edit=None, toc=None, packed=None, position=None, digest=None, prefix=NEW, more=b""):
    """A zstd:chunked layer of (name, bytes), or with `toc` and `packed` in place of the right table -> (blob, descriptor, diff_id).
    `more` stands in front of the table."""
    out, entries = bytearray(), []
    for name, data in files:
        out += frame(tar((name, data), end=False)[:512])
        e = {"type": "reg", "name": name, "mode": 0o644, "size": len(data), "digest": sha256(data)}
        for at in range(0, len(data), chunk):
            part = data[at:at + chunk]
            e["offset"] = len(out)
            out += frame(part)
            if len(data) > chunk:
                e.update(chunkSize=len(part), chunkDigest=sha256(part))
                if at:
                    e["chunkOffset"] = at
            e["endOffset"] = len(out)
            entries.append(e)
            e = {"type": "chunk", "name": name}
        if not data:
            entries.append(e)
        if len(data) % 512:
            out += frame(bytes(-len(data) % 512))
    out += frame(bytes(1024)) + more
    table = {"version": 1, "entries": entries}
    edited = edit(table) if edit else None
    toc = toc if toc is not None else edited if isinstance(edited, bytes) else json.dumps(table).encode()
    packed = packed or frame(toc)
    at = len(out) + 8
    out += skippable(packed) + skippable(struct.pack("<7Q", at, len(packed), len(toc), 1, 0, 0, 0) + b"GNUlInUx")
    notes = {prefix + "manifest-position": position or f"{at}:{len(packed)}:{len(toc)}:1", prefix + "manifest-checksum": digest or sha256(packed)}
    return bytes(out), {**ZSTD, "annotations": notes}, sha256(tar(*files))


def stargz(data, **how):
    blob, made = estargz.convert(data, **how)
    return blob, seekable(made), made["diff_id"]


def plain(data):
    return gzip.compress(data, 1), {}, sha256(data)


# ----------------------------------------------------------------------------------------------------------- comparing
def same(d, drop=()):
    """The part of a facts document that every form must agree on."""
    d = copy.deepcopy(d)
    d.pop("timing")
    for k in ("reference", "digest"):
        d["image"].pop(k)
    for l in d["image"]["layers"]:
        for k in ("digest", "diff_id", "media_type", "size"):
            l.pop(k)
    for k in drop:
        d.pop(k)
    return d


def compare(c, what, got, want, drop=()):
    a, b = same(got, drop), same(want, drop)
    for k in {**a, **b}:
        if not isinstance(a.get(k), list) or not isinstance(b.get(k), list):
            if a.get(k) != b.get(k):
                return c.eq(a.get(k), b.get(k), f"{what}: {k}")
        elif a[k] != b[k]:
            only, lost = [x for x in a[k] if x not in b[k]], [x for x in b[k] if x not in a[k]]
            return c.ok(False, f"{what}: {k}", f"only here {short(only, 400)}; missing {short(lost, 400)}" if only or lost else "another order")
    return c.ok(True, what)


def by_table(c, lint, what, ref, want, layers=1, **kw):
    """Read in part: the note once, the same facts. `ref` may be a run that has ended."""
    r = ref if isinstance(ref, Result) else lint("scan", ref, *DEPTH, **kw)
    if not c.ok(r.rc == 0, f"{what}: exit 0", str(r)):
        return None
    d = r.doc
    c.eq(d["timing"]["layers_by_table"], layers, f"{what}: layers_by_table")
    c.ok(r.err.count(NOTE) == 1 and len(r.err.strip().splitlines()) == 1, f"{what}: the note is there once, and nothing else", str(r))
    c.eq(d["timing"]["elf_files"], want["timing"]["elf_files"], f"{what}: ELF files")
    compare(c, what, d, want)
    return d


def whole(c, lint, what, ref, want, *options, **kw):
    """Read whole, and in silence."""
    r = ref if isinstance(ref, Result) else lint("scan", ref, *DEPTH, *options, **kw)
    if not c.ok(r.rc == 0, f"{what}: exit 0", str(r)):
        return None
    d = r.doc
    c.eq(d["timing"]["layers_by_table"], 0, f"{what}: layers_by_table")
    c.ok(not r.err.strip(), f"{what}: nothing on stderr", str(r))
    compare(c, what, d, want)
    return d


class Test:
    def __init__(self, c, lint, t, cache):
        self.c, self.lint, self.t, self.cache, self.later = c, lint, t, cache, []

    def layout(self, name, *layers, **kw):
        return Layout(self.t / name, *layers, **kw)


# --------------------------------------------------------------------------------------------------------------- parts
def version_library(t):
    """A library that tells its version by a function, as those of CUDA do."""
    lib = t / "libcurand.so.10.3.4"
    (t / "curand.c").write_text("int curandGetVersion(int *v) { *v = 10304; return 0; }\n")
    subprocess.run(["gcc", "-shared", "-nostdlib", "-O1", "-Wl,-soname,libcurand.so.10", "-o", lib, t / "curand.c"], check=True)
    return lib


def archive(*members):
    """An ar archive."""
    out = b"!<arch>\n"
    for name, data in members:
        out += f"{name + '/':16}{0:<12}{0:<6}{0:<6}{644:<8}{len(data):<10}`\n".encode() + data + b"\n"[:len(data) % 2]
    return out


def content(x):
    """The image of the parts `forms` and `difference`: uncompressed, and the same as gzip."""
    t = x.t
    engine = (b"ftrt\0\0\0\0" + struct.pack("<I", 239) + bytes(12) + bytes([10, 3, 0, 26])).ljust(4096, b"\0") + (CODE / "demo.cubin").read_bytes()
    (t / "model.plan").write_bytes(engine)
    (t / "libdemo.a").write_bytes(archive(("demo.o", (CODE / "libdemo_train.so").read_bytes())))
    # New in every run: skopeo, podman and buildah do not compress again what they know. No one looks beyond the first piece of it.
    (t / "fresh").write_bytes(os.urandom(6_000_000))
    items = [["wheel", str(fetch_wheel(x.cache, *WHEELS[0]))], ["file", "/opt/fresh", str(t / "fresh")], ["dir", str(CODE)],
             ["file", "/opt/model.plan", str(t / "model.plan")], ["file", "/opt/libdemo.a", str(t / "libdemo.a")],
             ["file", "/usr/local/cuda-12.1/lib64/libcurand.so.10.3.4", str(version_library(t))],
             ["symlink", "/usr/local/cuda-12.1/lib64/libcurand.so.10", "libcurand.so.10.3.4"],
             ["text", "/etc/os-release", "ID=debian\nVERSION_ID=12\n"], ["text", "/etc/ld.so.conf", "/usr/local/cuda-12.1/lib64\n"],
             ["text", "/var/lib/dpkg/status", "Package: libc6\nStatus: install ok installed\nVersion: 2.36-9\n\n"
              "Package: cuda-cudart-12-1\nStatus: install ok installed\nVersion: 12.1.105-1\n"]]
    spec = {"tag": "x", "env": {"LD_LIBRARY_PATH": "/usr/local/nvidia/lib64"}, "cmd": ["python3"]}
    mk = mkimage()
    mk.build(str(t / "plain"), {**spec, "layers": [{"items": items, "compress": "none"}]})
    manifest, x.config, _ = read_layout(t / "plain")
    x.tar = t / "plain/blobs/sha256" / manifest["layers"][0]["digest"][7:]
    mk.build(str(t / "gzip"), {**spec, "layers": [{"items": [["raw-tar", str(x.tar)]], "compress": "gzip:1"}]})


def engine_store(x):
    """A storage of images for podman and buildah with two small images in it."""
    t = x.t / "engine"
    t.mkdir()
    (t / "storage.conf").write_text(f'[storage]\ndriver = "vfs"\nrunroot = "{t}/run"\ngraphroot = "{t}/graph"\n')
    env = {**os.environ, "CONTAINERS_STORAGE_CONF": str(t / "storage.conf"), "XDG_RUNTIME_DIR": str(t), "no_proxy": "*"}
    layouts = {}
    for program in ("podman", "buildah"):
        hole = (CODE / "libdemo_train.so").read_bytes()
        data = tar(("usr/lib/libdemo.so", hole), ("usr/lib/libhole.so", with_hole(hole, 3 << 20)), ("opt/fresh", os.urandom(50_000)),
                   ("etc/os-release", b"ID=debian\n"), info("usr/lib/libdemo.so.1", tarfile.SYMTYPE, "libdemo.so"),
                   info("usr/lib/libsame.so", tarfile.LNKTYPE, "usr/lib/libdemo.so"))
        layouts[program] = x.layout(f"for-{program}", (data, {"mediaType": OCI + "layer.v1.tar"}, sha256(data)))
        subprocess.run(["skopeo", "copy", "-q", "--insecure-policy", layouts[program].ref, f"containers-storage:docker.io/example/{program}:1"],
                       check=True, env=env, stderr=subprocess.PIPE)
    return env, layouts


def engine_push(x, host, program, env):
    subprocess.run([program, "push", "-q", "--tls-verify=false", "--format", "oci", "--compression-format", "zstd:chunked",
                    f"example/{program}:1", f"docker://{host}/{program}/x:1"], check=True, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


def forms(x):
    """Starts making the same content in every form: jobs that end with {name: layout}."""
    t = x.t

    def by_skopeo():
        skopeo_chunked(f"oci:{t}/plain:x", f"oci:{t}/skopeo:x")
        manifest, config, blobs = read_layout(t / "skopeo")
        row = manifest["layers"][0]
        notes = {k.replace(OLD, NEW): v for k, v in row["annotations"].items()}
        notes[NEW + "tarsplit-position"], notes[NEW + "tarsplit-checksum"] = "1:2:3", sha256(b"")
        newer = Layout(t / "newer", (blobs[0], {**seekable(row), "annotations": notes}, config["rootfs"]["diff_ids"][0]), config=config)
        return {"skopeo": t / "skopeo", "newer annotations": newer.path}

    def by_estargz(name, *options):
        out = t / f"{name}.tgz"
        p = subprocess.run([sys.executable, TOOLS / "estargz.py", x.tar, out, "--level", "1", *options], check=True, stdout=subprocess.PIPE, text=True)
        said = json.loads(p.stdout)
        layout = Layout(t / f"estargz-{name}", (out.read_bytes(), {"digest": said["digest"], "size": said["size"], **seekable(said)}, said["diff_id"]), config=x.config)
        layout.put(out.read_bytes())
        return {f"estargz {name}": layout.path}

    return [x.builders.submit(by_skopeo)] + [x.builders.submit(by_estargz, *a) for a in
            (("default",), ("1000000", "--chunk-size", "1000000"), ("50001", "--chunk-size", "50001", "--prefetch", "40"),
             ("shared", "--chunk-size", "300000", "--min-chunk-size", "200000"))]


def ordinary_readers(x, made):
    """gzip and tar see in eStargz what is in the plain tar, and two files more."""
    listed = lambda file: subprocess.run(["tar", "tvf", file, "--full-time"], check=True, stdout=subprocess.PIPE, text=True).stdout.splitlines()
    want = listed(x.tar)
    with tarfile.open(x.tar) as tf:
        files = {m.name: hashlib.sha256(tf.extractfile(m).read()).digest() for m in tf if m.isreg()}
    for name in [n for n in made if n.startswith("estargz")]:
        file = x.t / f"{name.split()[1]}.tgz"
        x.c.ok(subprocess.run(["gzip", "-t", file]).returncode == 0, f"{name}: gzip reads it")
        rows = listed(file)
        own = [l for l in rows if l not in want]
        x.c.eq((len(rows), [l.split()[-1] for l in own if "landmark" not in l]), (len(want) + 2, [estargz.TOC]), f"{name}: tar lists the same entries")
        x.c.eq([l.split()[-1].split(".")[-1] for l in own if "landmark" in l], ["landmark"], f"{name}: one landmark")
        with tarfile.open(file) as tf:
            got = {m.name: hashlib.sha256(tf.extractfile(m).read()).digest() for m in tf if m.isreg()}
        x.c.eq({k: v for k, v in got.items() if k in files}, files, f"{name}: the same content")
        data = file.read_bytes()
        x.c.eq((data[-51:-35], data[-19:]), (b"\x1f\x8b\x08\4\0\0\0\0\0\xff\x1a\0SG\x16\0", b"STARGZ\1\0\0\xff\xff" + bytes(8)), f"{name}: footer")
        with tarfile.open(fileobj=io.BytesIO(gzip.decompress(data[int(data[-35:-19], 16):-51]))) as tf:
            notes = read_layout(made[name])[0]["layers"][0]["annotations"]
            x.c.eq((tf.getnames(), notes[estargz.DIGEST], int(notes[estargz.SIZE])), ([estargz.TOC], sha256(tf.extractfile(estargz.TOC).read()), len(gzip.decompress(data))), f"{name}: the footer points to the table, the annotations are right")


def part_forms(x):
    c, lint, r = x.c, x.lint, x.registry
    made = {"gzip": x.t / "gzip"}
    for job in x.forms:
        made.update(job.result())
    ordinary_readers(x, made)
    x.want = want = lint.facts(f"oci:{made['gzip']}", *DEPTH)
    c.eq((want["depth"], want["complete"], want["problems"], len(want["files"]) > 12), ("libraries", True, [], True), "gzip: depth, complete, no problems, files")
    for name, path in made.items():
        size = read_layout(path)[0]["layers"][0]["size"]
        at = name.replace(" ", "-")
        raw_push(path, "x", r.host, f"forms/{at}", "1")
        for place, ref in (("layout", f"oci:{path}"), ("registry", f"{r.host}/forms/{at}:1")):
            what = f"{name} in a {place}"
            if name == "gzip":
                whole(c, lint, what, ref, want)
                continue
            d = by_table(c, lint, what, ref, want)
            if d:
                got = d["timing"]["bytes_downloaded"]
                c.ok(0 < got < size if place == "registry" else got == 0, f"{what}: fewer bytes than the layer has", f"{got} of {size}")
            d = whole(c, lint, f"{what}, --verify-blobs", ref, want, "--verify-blobs")
            if d and place == "registry":
                c.ok(d["timing"]["bytes_downloaded"] >= size, f"{what}, --verify-blobs: all bytes come")
    x.made = made
    env, layouts = x.engines.result()
    for program, layout in layouts.items():
        engine_push(x, r.host, program, env)
        data = read_layout(layout.path)[2][0]
        want = lint.facts(x.layout(f"{program}-gzip", plain(data), config=layout.config).ref, *DEPTH)
        ref = f"{r.host}/{program}/x:1"
        push(f"docker://{ref}", f"oci:{x.t}/by-{program}:x", "--preserve-digests", "--src-tls-verify=false")
        for place in (ref, f"oci:{x.t}/by-{program}"):
            by_table(c, lint, f"{program} in {place.split(':')[0]}", place, want)
            whole(c, lint, f"{program} in {place.split(':')[0]}, --verify-blobs", place, want, "--verify-blobs")


def part_difference(x):
    """Exactly these are missing at this depth."""
    c = x.c
    full, got = x.lint.facts(f"oci:{x.made['skopeo']}"), x.lint.facts(f"oci:{x.made['skopeo']}", *DEPTH)
    c.eq((full["depth"], full["timing"]["layers_by_table"]), ("full", 0), "a full scan reads seekable layers whole")
    code_only, seen, left = ("cubin", "fatbin", "ptx", "engine", "archive"), set(), []
    for f in full["files"]:
        if f["kind"] in code_only:
            seen.add(f["kind"])
            continue
        seen |= {"device_code"} if f["device_code"] else set()
        f["device_code"] = None
        if f["elf"]:
            for k, without in (("cudart", None), ("dlopens", []), ("version_texts", {}), ("version_numbers", {})):
                seen |= {k} if f["elf"][k] else set()
                f["elf"][k] = without
        left.append(f)
    full["files"], full["depth"] = left, "libraries"
    c.eq(sorted(seen), sorted([*code_only, "device_code", "cudart", "dlopens", "version_texts", "version_numbers"]), "the image has something of all that is missing")
    compare(c, "full facts without GPU code and searches are the libraries' facts", got, full)


def part_gate(x):
    c, lint, t = x.c, x.lint, x.t
    demo = REPO / "fixtures/images/demo"
    _, config, blobs = read_layout(demo)
    layers = [stargz(b) for b in blobs]
    ref = x.layout("demo", *layers, config={k: v for k, v in config.items() if k != "rootfs"}).ref
    facts = t / "libraries.json"
    facts.write_text(json.dumps(lint.facts(ref, *DEPTH)))
    codes = lambda r: {f["rule"] for f in r.doc["findings"]}
    verdicts = lambda r: [row["verdict"] for row in r.doc["targets"]]
    judge = lambda *a: lint("check", "-f", "json", *a)
    hosts = ["--host-driver", "550", "--gpu", "h100", "--as-of", "2026-11-20"]
    c.eq(verdicts(judge(ref, *hosts)), ["runs"], "gate: in full the image runs")
    for what, args in (("by table", (ref, *DEPTH)), ("whole", (ref, *DEPTH, "--verify-blobs")), ("original", (f"oci:{demo}", *DEPTH)), ("--facts", ("--facts", facts))):
        r = judge(*args, *hosts)
        c.eq((r.rc, verdicts(r), "CUL903" in codes(r)), (0, ["unknown"], True), f"gate, {what}: exit 0, unknown, CUL903")
        c.eq([k for k in codes(r) if k.startswith("CUL2")], [], f"gate, {what}: no rule about GPU code speaks")
        c.eq(judge(*args, *hosts, "--strict").rc, 4, f"gate, {what}: exit 4 with --strict")
        old = judge(*args, "--host-driver", "470", "--gpu", "a100", "--as-of", "2026-11-20")
        c.eq((old.rc, verdicts(old), "CUL101" in codes(old)), (1, ["fails"], True), f"gate, {what}: a driver too old fails")
    many = judge(ref, *DEPTH, *(w for d in ("470", "525", "535", "550", "570", "580") for w in ("--host-driver", d)),
                 *(w for g in ("v100", "a100", "l4", "h100", "b200", "rtx5090") for w in ("--gpu", g)), "--as-of", "2026-11-20")
    c.ok(len(verdicts(many)) >= 36 and set(verdicts(many)) <= {"unknown", "fails"}, "gate: no verdict better than unknown on 36 hosts", short(verdicts(many)))
    second = x.layout("demo-2", *layers, config={**{k: v for k, v in config.items() if k != "rootfs"}, "author": "another"}).ref
    (t / "images.txt").write_text(f"{ref}\n{second}\n")
    for what, images in (("check", (ref, second)), ("sweep", (t / "images.txt", "-j", "1"))):
        r = lint(what, *images, *DEPTH, *hosts)
        lines = r.err.strip().splitlines()
        c.ok(0 < len(lines) == len(set(lines)), f"gate: {what} of two images does not say the same twice", str(r))
    text = lint("check", ref, *DEPTH, *hosts)
    c.ok(text.rc == 0 and "RUNS" not in text.out and "CUL903" in text.out, "gate: the text says it too", str(text))
    c.ok(text.err.count(NOTE) == 1, "gate: check has the note", str(text))


def with_hole(elf, hole):
    """The library with its section headers behind zeros."""
    at, = struct.unpack_from("<Q", elf, 40)
    size, count = struct.unpack_from("<HH", elf, 58)
    out = bytearray(elf + bytes(-len(elf) % 8 + hole))
    struct.pack_into("<Q", out, 40, len(out))
    return bytes(out) + elf[at:at + size * count]


def metadata(name, version="1.0"):
    return f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n".encode()


def odd_layers():
    """The tars of four layers."""
    elf = {k: (CODE / f"libdemo_{k}.so").read_bytes() for k in ("train", "old", "rdc", "serve", "hopper", "cu13")}
    lower = tar(info("opt/", tarfile.DIRTYPE), info("opt/low/", tarfile.DIRTYPE), ("opt/low/libgone.so", elf["train"]), ("opt/low/libgone2.so", elf["train"]),
                ("opt/low/libgone3.so", elf["train"]), ("opt/low/libkept.so", elf["old"]), ("opt/low/replaced.so", elf["rdc"]), ("opt/hidden/libhidden.so", elf["serve"]),
                ("opt/hidden2/libhidden.so", elf["serve"]), ("opt/linked.so", elf["hopper"]), ("opt/torch-1.dist-info/METADATA", metadata("torch", "2.0")),
                ("etc/os-release", b"ID=debian\n"))
    d, s, h, k = tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE
    long, longer = "opt/" + "d" * 90 + "/" + "n" * 90 + "/liblong.so", "opt/" + "/".join("e" * 200 for _ in range(4)) + "/liblonger.so"
    upper = tar(info("./opt/", d), info("opt/links/", d), info("opt/links/relative.so", s, "../low/libkept.so"), info("opt/links/absolute.so", s, "/opt/low/libkept.so"),
                info("opt/links/above.so", s, "../../../../opt/low/libkept.so"), info("opt/links/nowhere.so", s, "/nowhere"), info("opt/links/dir", s, "/opt/low"),
                info("opt/links/long.so", s, "/" + longer), ("opt/here.so", elf["train"]), info("opt/links/hard.so", h, "opt/here.so"),
                info("opt/links/hard-lower.so", h, "opt/linked.so"), info("opt/links/hard-nowhere.so", h, "opt/nowhere.so"), info("opt/links/hard-hard.so", h, "opt/links/hard.so"),
                ("opt/low/.wh.libgone.so", b""), ("opt/low/.wh.libgone2.so", b"not empty"), info("opt/low/libgone3.so", k), ("opt/.wh..wh.aufs", b""),
                ("opt/.wh.never-there", b""), ("opt/low/replaced.so", elf["cu13"]), info("opt/hidden/", d), ("opt/hidden/.wh..wh..opq", b""), ("opt/hidden/libnew.so", elf["old"]),
                info("opt/hidden2/", d, pax_headers={"SCHILY.xattr.trusted.overlay.opaque": "y"}), ("opt/hidden2/libnew.so", elf["old"]),
                info("dev/null", k, devmajor=1, devminor=3), info("dev/pipe", tarfile.FIFOTYPE), info("dev/disk", tarfile.BLKTYPE, devmajor=8, devminor=1),
                ("opt/empty", b""), ("opt/empty.so", b""), ("opt/x-1.dist-info/METADATA", b""), ("opt/one", b"\x7f"), ("opt/magic.so", b"\x7fELF"),
                (long, elf["rdc"]), (longer, elf["rdc"]), (info("opt/" + "p" * 120 + ".so", pax_headers={"comment": "x"}), elf["serve"]),
                ("opt/libhole.so", with_hole(elf["train"], 3 << 20)), ("opt/zeros.so", bytes(2 << 20)), ("opt/head-hole.so", bytes(1 << 20) + elf["train"]),
                ("opt/torch-2.dist-info/METADATA", metadata("torch", "2.1") + bytes(200_000) + b"\nName: other\n"),
                ("opt/big.so", with_hole(elf["hopper"] + random.Random(1).randbytes(1_500_000), 4096)),
                ("../../x.so", elf["old"]), ("opt/../../y.so", elf["old"]), ("./opt/./dot.so", elf["old"]), ("/opt/rooted.so", elf["old"]),
                ("opt/naïve/либ/lib名前.so", elf["cu13"]), ("opt/latin-\udce9t\udce9.so", elf["cu13"]), ("opt/quote\"\\<&>.so", elf["cu13"]), ("opt/new\nline.so", elf["cu13"]),
                ("opt/twice.so", elf["train"]), ("opt/twice.so", elf["old"]), ("opt/chang\u0065\u0301.so", elf["old"]),
                ("opt/cut.so", elf["train"][:9000]), ("stargz.index.json.so", elf["old"]))
    return lower, upper, tar(info("srv/", d), info("srv/a/", d, mode=0o700), info("srv/a/b/", d)), tar()


def part_entries(x):
    c, lint, t = x.c, x.lint, x.t
    tars = odd_layers()
    want = lint.facts(x.layout("odd-gzip", *map(plain, tars)).ref, *DEPTH)
    paths = {f["path"] for f in want["files"]}
    c.ok({"/x.so", "/y.so", "/opt/libhole.so", "/opt/naïve/либ/lib名前.so", "/opt/latin-\ufffdt\ufffd.so"} <= paths and "/opt/low/libgone.so" not in paths, "entries: the whole layers have them", short(sorted(paths)))
    c.ok(any("climbs" in p["detail"] for p in want["problems"]), "entries: a name above the root is a problem")
    forms = {}
    for size in (4 << 20, 4096, 100):
        forms[f"estargz {size}"] = [stargz(d, chunk_size=size, level=1) for d in (tars if size > 100 else (tars[0], tar(("etc/os-release", b"ID=debian\n"))))]
    forms["estargz shared"] = [stargz(d, chunk_size=50_000, min_chunk_size=30_000, level=1) for d in tars]
    forms["estargz prefetch"] = [stargz(d, prefetch=2, level=1) for d in tars]
    x.layout("odd-plain", *((d, {"mediaType": OCI + "layer.v1.tar"}, sha256(d)) for d in tars))
    skopeo_chunked(f"oci:{t}/odd-plain:x", f"oci:{t}/odd-skopeo:x")
    for name, layers in forms.items():
        ref = x.layout(f"odd-{name}", *layers).ref
        right = want if len(layers) == len(tars) else lint.facts(x.layout("odd-few", plain(tars[0]), plain(tar(("etc/os-release", b"ID=debian\n")))).ref, *DEPTH)
        by_table(c, lint, f"entries, {name}", ref, right, layers=len(layers))
        whole(c, lint, f"entries, {name}, --verify-blobs", ref, right, "--verify-blobs")
    toc = subprocess.run(["zstd", "-dqc"], input=table_of(t / "odd-skopeo", 1), stdout=subprocess.PIPE).stdout
    c.ok(b'"zeros"' in toc, "entries: skopeo wrote holes as chunks of zeros")
    by_table(c, lint, "entries, skopeo", f"oci:{t}/odd-skopeo", want, layers=len(tars))
    whole(c, lint, "entries, skopeo, --verify-blobs", f"oci:{t}/odd-skopeo", want, "--verify-blobs")


def table_of(layout, index):
    """The packed table of a zstd:chunked layer."""
    manifest, _, blobs = read_layout(layout)
    offset, size = map(int, manifest["layers"][index]["annotations"][OLD + "manifest-position"].split(":")[:2])
    return blobs[index][offset:offset + size]


FILES = (("etc/os-release", b"ID=debian\n"), ("opt/torch-2.dist-info/METADATA", metadata("torch", "2.1")), ("opt/libdemo.so", (CODE / "libdemo_train.so").read_bytes()),
         ("opt/libold.so", (CODE / "libdemo_old.so").read_bytes()))


def lie(x, what, ref, want, words=(), limit=30, rows=1, may_be_used=False, args=()):
    """Right facts of the whole layer and one row that says why, or one clear line and exit 3."""
    c = x.c
    r = x.lint("scan", ref, *DEPTH, *args, timeout=limit)
    if r.rc == "timeout":
        return
    c.ok(r.rss < RSS, f"lie, {what}: within {RSS} MB", f"{r.rss:.0f} MB")
    if r.rc == 3:
        return c.ok(len(r.err.strip().splitlines()) == 1 and '"complete": true' not in r.out, f"lie, {what}: one clear line", str(r))
    if not c.ok(r.rc == 0, f"lie, {what}: exit 0 or 3", str(r)):
        return
    d = r.doc
    why = [p["detail"] for p in d["problems"] if p["path"] == "/"]
    d["problems"] = [p for p in d["problems"] if p["path"] != "/"]
    said = len(why) == rows and all("read whole" in w and all(word in w for word in words) for w in why)
    silent = d["timing"]["layers_by_table"] == 0 and NOTE not in r.err
    if may_be_used and not why or c.ok(said and silent, f"lie, {what}: read whole, and one row says why", f"rows {short(why)}, expected {words}; {r}"):
        if rows == 1:
            compare(c, f"lie, {what}: right facts", d, want)


def set_in(name, **fields):
    """An edit of the entries of a file; a function gets the old value."""
    def edit(table):
        for e in table["entries"]:
            if e["name"].endswith(name):
                e.update({k: v(e.get(k)) if callable(v) else v for k, v in fields.items()})
    return edit


def chunk_edit(place, **fields):
    """An edit of the chunk at `place` of the large library."""
    def edit(table):
        rows = [e for e in table["entries"] if e["name"].endswith("libdemo.so")]
        rows[place].update({k: v(rows[place].get(k, 0)) if callable(v) else v for k, v in fields.items()})
        for k in [k for k, v in rows[place].items() if v is None]:
            del rows[place][k]
    return edit


def part_lies(x):
    c, lint, t = x.c, x.lint, x.t
    data = tar(*FILES)
    want = lint.facts(x.layout("honest-gzip", plain(data)).ref, *DEPTH)
    by_table(c, lint, "own zstd:chunked", x.layout("honest", chunked(FILES, chunk=8192)).ref, want)
    by_table(c, lint, "own zstd:chunked, old annotations", x.layout("honest", chunked(FILES, prefix=OLD)).ref, want)
    other, n = sha256(b"another"), 0

    def lying(what, layer, words=(), **kw):
        nonlocal n
        n += 1
        lie(x, what, x.layout(f"lie-{n}", layer, **kw).ref, want, words)

    # What the manifest says of the table, and the table.
    size = len(chunked(FILES)[0])
    notes = lambda row, **more: {**row, "annotations": {**row["annotations"], **{next(k for k in row["annotations"] if k.endswith(w.replace("_", "-"))): v for w, v in more.items()}}}
    lying("zstd:chunked, digest of the table", chunked(FILES, digest=other), ["digest"])
    for where in (f"{size}:100:200:1", f"{size - 10}:100:200:1", f"{2**63}:{2**63}:200:1", f"{2**64 - 1}:2:200:1", f"0:{2**40}:200:1", f"10:100:{2**40}:1", f"0:{size}:1000:1", "0:0:0:1", "10:0:10:1"):
        lying(f"zstd:chunked, position {where}", chunked(FILES, position=where), ["table of contents"])
    for what, toc in (("no JSON", b"hello"), ("empty", b""), ("a list", b"[]"), ("nothing in it", b"{}"), ("no version", b'{"entries":[]}'),
                      ("of another version", b'{"version":2,"entries":[]}'), ("entries are no list", b'{"entries":{}}'), ("entries are numbers", b'{"entries":[1,2]}'),
                      ("cut", b'{"version":1,"entries":[{"type":"reg","name":'), ("no UTF-8", b'{"entries":[{"type":"reg","name":"\xff\xfe"}]}'),
                      ("deep", b'{"entries":' + b"[" * 100_000 + b"]" * 100_000 + b"}"), ("negative size", b'{"entries":[{"type":"reg","name":"x","size":-1}]}'),
                      ("size as text", b'{"entries":[{"type":"reg","name":"x","size":"1"}]}'), ("size too large", b'{"entries":[{"type":"reg","name":"x","size":99999999999999999999}]}'),
                      ("a chunk first", b'{"entries":[{"type":"chunk","name":"x","size":9,"offset":10}]}')):
        lying(f"zstd:chunked, table: {what}", chunked(FILES, toc=toc), ["table of contents"])
        lying(f"estargz, table: {what}", stargz(data, edit=lambda _, toc=toc: toc), ["table of contents"])
    lying("zstd:chunked, table is not compressed", chunked(FILES, toc=b'{"entries":[]}', packed=b'{"entries":[]}'), ["table of contents"])
    # Chunks, in a table whose digest is right.
    for form, make in (("zstd:chunked", lambda edit: chunked(FILES, chunk=8192, edit=edit)), ("estargz", lambda edit: stargz(data, chunk_size=8192, edit=edit))):
        end = "endOffset" if form == "zstd:chunked" else "nothing"
        for what, edit in (("digest of the first chunk", chunk_edit(0, chunkDigest=other)), ("digest of the last chunk", chunk_edit(-1, chunkDigest=other)),
                           ("digest of a small file", set_in("METADATA", digest=other, chunkDigest=other)), ("no digest", chunk_edit(1, chunkDigest=None)),
                           ("an empty digest", chunk_edit(1, chunkDigest="")), ("another algorithm", chunk_edit(1, chunkDigest="md5:" + "0" * 32)),
                           ("overlap", chunk_edit(1, offset=lambda o: o - 100)), ("the offset of another", chunk_edit(1, offset=1)), ("offset 0", chunk_edit(0, offset=0)),
                           ("offset beyond the layer", chunk_edit(1, offset=size * 2, **{end: size * 2 + 100})), ("offset near 2^64", chunk_edit(1, offset=2**64 - 10, **{end: 2**64 - 1})),
                           ("end before the beginning", chunk_edit(1, **{end: 1, "offset": lambda o: o + 50_000})), ("a gap", chunk_edit(1, chunkOffset=lambda o: o + 1)),
                           ("chunks overlap in the file", chunk_edit(1, chunkOffset=lambda o: o - 1)), ("chunk offset near 2^64", chunk_edit(1, chunkOffset=2**64 - 1)),
                           ("a chunk too long", chunk_edit(1, chunkSize=9000)), ("a chunk too short", chunk_edit(1, chunkSize=8000)), ("chunk size 2^64-1", chunk_edit(1, chunkSize=2**64 - 1)),
                           ("a chunk of zeros with the digest of another", chunk_edit(1, chunkType="zeros")),
                           ("the file is longer", chunk_edit(0, size=lambda s: s + 1)), ("the file is shorter", chunk_edit(0, size=lambda s: s - 1)),
                           ("the file is 2^64-1 long", chunk_edit(0, size=2**64 - 1)), ("the file is 2^63 long", chunk_edit(0, size=2**63)),
                           ("the file is small", set_in("METADATA", size=9)), ("the file is larger than it is", set_in("METADATA", size=9000))):
            lying(f"{form}, {what}", make(edit))
    # The end of an eStargz layer.
    blob, row, diff = stargz(data)
    cut = lambda new: (blob[:-51] + new, row, diff)
    at = int(blob[-35:-19], 16)
    lying("estargz, no footer", cut(b""), ["footer"])
    lying("estargz, footer of the older form", cut(b"\x1f\x8b\x08\4\0\0\0\0\0\xff\x16\0" + b"%016xSTARGZ" % at + b"\1\0\0\xff\xff" + bytes(8)), ["footer"])
    lying("estargz, footer without number", cut(blob[-51:].replace(b"%016x" % at, b"z" * 16)), ["footer"])
    for what, offset in (("itself", len(blob) - 51), ("beyond the layer", len(blob) * 2), ("near 2^64", 2**64 - 1)):
        lying(f"estargz, footer points to {what}", cut(estargz.footer(offset)), ["footer"])
    for what, offset in (("the beginning", 0), ("the middle of a member", at + 5), ("another member", len(blob) - 60)):
        lying(f"estargz, footer points to {what}", cut(estargz.footer(offset)), ["table of contents"])
    lying("estargz, digest of the table", (blob, notes(row, **{"digest": other}), diff), ["digest"])
    tiny = (gzip.compress(b"") * 2, row, sha256(b""))
    lie(x, "estargz, a layer of 40 bytes", x.layout("tiny", tiny).ref, lint.facts(x.layout("tiny-gzip", (tiny[0], {}, tiny[2])).ref, *DEPTH), ["short"])
    lying("estargz, table without stargz.index.json", (lambda head: (head + gzip.compress(tar(("other.json", b"{}"))) + estargz.footer(len(head)), row, sha256(data[:-1024] + tar(("other.json", b"{}")))))(gzip.compress(data[:-1024])), ["table of contents"])
    # Another image's layer, the annotations of a third.
    third = tar(("etc/os-release", b"ID=alpine\n"))
    zblob, zrow, zdiff = chunked(FILES)
    lying("zstd:chunked with the annotations of a third", (zblob, chunked((("etc/os-release", b"ID=alpine\n"),))[1], zdiff), ["table of contents"])
    lying("estargz with the annotations of a third", (blob, stargz(third)[1], diff), ["digest"])
    lying("estargz with the annotations of zstd:chunked", (blob, {**zrow, "mediaType": estargz.MEDIA_TYPE}, diff), ["table of contents"])
    lying("zstd:chunked with the annotations of eStargz", (zblob, {**row, **ZSTD}, zdiff), ["footer"])
    lying("gzip with the annotations of eStargz", (gzip.compress(data), row, sha256(data)), ["footer"])
    # Annotations that say nothing are none, and a table whose kind is not known is none.
    for what, changed in (("position in words", {"manifest_position": "a:b:c:1"}), ("position of three numbers", {"manifest_position": "1:2:3"}), ("negative", {"manifest_position": "-1:2:3:1"}),
                          ("table of another kind", {"manifest_position": zrow["annotations"][NEW + "manifest-position"][:-1] + "2"}), ("digest in words", {"manifest_checksum": "x"}),
                          ("digest of another algorithm", {"manifest_checksum": "sha512:" + "0" * 128})):
        n += 1
        whole(c, lint, f"annotations, {what}", x.layout(f"lie-{n}", (zblob, notes(zrow, **changed), zdiff)).ref, want)
    # A table that says otherwise than the tar, with right digests: followed, as docs/sweep.md says, and not with --verify-blobs.
    ref = x.layout("otherwise", chunked(FILES, edit=lambda table: table["entries"].pop(1))).ref
    r = lint("scan", ref, *DEPTH)
    c.ok(r.rc == 0 and r.doc["packages"] == [] and r.err.count("layers as a whole are not") == 1, "a table without an entry of the tar: followed, and the note says so", str(r))
    whole(c, lint, "a table without an entry of the tar, --verify-blobs", ref, want, "--verify-blobs")
    # Damaged in a part that is read: whole, and the digest is wrong.
    layout = x.layout("damaged", chunked(FILES))
    file = layout.blobs / layout.manifest["layers"][0]["digest"][7:]
    bad = bytearray(file.read_bytes())
    bad[bad.find(b"\x7fELF") + 20] ^= 1
    file.write_bytes(bad)
    r = lint("scan", layout.ref, *DEPTH)
    c.ok(r.rc == 3 and "digest" in r.err and len(r.err.strip().splitlines()) == 1 and '"complete": true' not in r.out, "a damaged piece: exit 3, one line", str(r))
    # What is said of it in a report.
    judged = [lint("check", "-f", "json", ref, *DEPTH, "--host-driver", "550", "--gpu", "h100") for ref in (f"oci:{t}/honest-gzip:x", f"oci:{t}/lie-1:x")]
    c.eq(*([r.rc, [row["verdict"] for row in r.doc["targets"]]] for r in judged), "check of a layer with a wrong table: the same verdict")
    said = [f["message"] for f in judged[1].doc["findings"] if "read whole" in f["message"]]
    c.ok(len(said) == 1 and not any("could not be read completely" in m for m in said), "check of a layer with a wrong table: one finding, which does not say that something was not read", short(said))
    bombs(x, want)


def repeated(byte, size):
    """A zstd frame of one byte, repeated: 4 bytes for 128 KiB."""
    sizes = [1 << 17] * (size >> 17) + [size % (1 << 17)]
    blocks = ((n << 3 | 2 | (i == len(sizes) - 1)).to_bytes(3, "little") + byte for i, n in enumerate(sizes))
    return b"\x28\xb5\x2f\xfd\x00\x38" + b"".join(blocks)


def inflated(header, size, end=b""):
    """An eStargz layer whose table stands behind `header` and `size` zeros. Its diff_id is not right; no one looks at it."""
    part = gzip.compress(bytes(50 << 20), 1)
    head = gzip.compress(tar(*FILES)[:-1024], 1)
    toc = b'{"version":1,"entries":[]}'
    blob = head + gzip.compress(header) + part * (size // (50 << 20)) + gzip.compress(end or tar((estargz.TOC, toc))) + estargz.footer(len(head))
    return blob, {"annotations": {estargz.DIGEST: sha256(toc)}}, sha256(b"")


def header(name, kind, size):
    """A tar header that announces content."""
    i = info(name, kind)
    i.size = size
    return i.tobuf(tarfile.GNU_FORMAT)


def huge_piece(path, size):
    """A table that names nearly the whole of a layer, where there are zeros, as the stored bytes of a small file. The digest of the
    layer is wrong: whoever reads it whole says so."""
    blob, row, diff = chunked(FILES, more=b"\x50\x2a\x4d\x18" + size.to_bytes(4, "little"), edit=lambda table: table["entries"][-1].update(endOffset=size))
    at, length, rest = row["annotations"][NEW + "manifest-position"].split(":", 2)
    row = {**row, "digest": sha256(b"huge"), "size": len(blob) + size, "annotations": {**row["annotations"], NEW + "manifest-position": f"{int(at) + size}:{length}:{rest}"}}
    layout = Layout(path, (blob, row, diff))
    with open(layout.blobs / sha256(b"huge")[7:], "wb") as f:
        f.write(blob[:int(at) - 8])
        f.seek(size, 1)
        f.write(blob[int(at) - 8:])


def bombs(x, want):
    """Tables that cost much."""
    c, lint, t = x.c, x.lint, x.t
    n = 0

    def bomb(what, make, words=(), **kw):
        nonlocal n
        n += 1
        path = t / f"bomb-{n}"
        make(path)
        lie(x, what, f"oci:{path}:x", want, words, **kw)
        shutil.rmtree(path)

    def table(packed, size, layers=1):
        """Layouts with this table; each layer has a digest of its own."""
        at = len(chunked(FILES, toc=b"", packed=b"x")[0]) - 73
        return lambda path: Layout(path, *(chunked(FILES, packed=packed, toc=b"", position=f"{at + 8 * i}:{len(packed)}:{size}:1", more=skippable(b"") * i) for i in range(layers)))

    bomb("1 GB announced as 100 bytes", table(repeated(b" ", 1 << 30), 100), ["longer"])
    bomb("1 GB announced as such", table(repeated(b" ", 1 << 30), 1 << 30), ["position"])
    bomb("200 MB of spaces", table(repeated(b" ", 200 << 20), 200 << 20), ["table of contents"])
    bomb("four layers with 100 MB of spaces, four at a time", table(repeated(b" ", 100 << 20), 100 << 20, layers=4), ["table of contents"], rows=4, args=("-j", "4"))
    bomb("2,100,000 empty entries", table(*packed_table(itertools.repeat(b"{}", 2_100_000))), ["entries"])
    bomb("one piece of 400 MB", lambda path: huge_piece(path, 400 << 20), may_be_used=True)
    bomb("gzip, a table of 300 MB", lambda path: Layout(path, inflated(header(estargz.TOC, tarfile.REGTYPE, 300 << 20), 300 << 20, tar(end=True))), ["table of contents"])
    bomb("gzip, a name of 500 MB in front of the table", lambda path: Layout(path, inflated(header("././@LongLink", tarfile.GNUTYPE_LONGNAME, 500 << 20), 500 << 20)))
    bomb("190 GiB of texts", table(*packed_table(b'{"type":"reg","name":"a/%d.dist-info/METADATA","size":67108864,"chunkType":"zeros"}' % i for i in range(3000))), limit=20)
    # Honest, but many.
    table(*packed_table(b'{"type":"dir","name":"a/%d/"}' % i for i in range(1_000_000)))(t / "million")
    r = lint("scan", f"oci:{t}/million:x", *DEPTH, timeout=20)
    c.ok(r.rc in (0, 3), "1,000,000 entries: an end", str(r))
    c.ok(r.rss < RSS, f"1,000,000 entries: within {RSS} MB", f"{r.rss:.0f} MB")
    c.ok(r.seconds < 10, "1,000,000 entries: within 10 s", f"{r.seconds:.1f} s")


FAULTS = (("503 twice for each blob", ["--fail", "2:503"]), ("429 with Retry-After", ["--fail", "1:429:1"]), ("cut once after 20 kB", ["--cut", "20000:1"]),
          ("cut three times after 100 kB", ["--cut", "100000:3"]), ("redirect", ["--redirect"]),
          ("redirect, cut once, 503 once", ["--redirect", "--cut", "100000:1", "--fail", "1:503"]), ("no lengths", ["--no-length"]),
          ("no digest header", ["--no-digest-header"]), ("no ranges", ["--no-range"]), ("no ranges, 503 once", ["--no-range", "--fail", "1:503"]),
          ("cut every time after 400 kB", ["--cut", "400000"]))


def part_network(x):
    """The runs, which mostly wait, are started here and looked at when the other parts are done."""
    c, lint, r = x.c, x.lint, x.registry

    def run(at, options):
        with Faults(r.url, *options) as f:
            return lint("scan", f"{f.host}/{at}:1", *DEPTH, timeout=60)

    runs = [(f"{name}, {what}", options, x.pool.submit(run, at, options))
            for name, at in (("skopeo", "forms/skopeo"), ("estargz", "forms/estargz-1000000")) for what, options in FAULTS
            if name == "skopeo" or what != "cut every time after 400 kB"]

    def look():
        for what, options, job in runs:
            res = job.result()
            (whole if "--no-range" in options else by_table)(c, lint, what, res, x.want)
            c.ok(res.seconds < 60, f"{what}: an end within a minute", f"{res.seconds:.1f} s")

    x.later.append(look)


def part_cache(x):
    c, lint, t, r = x.c, x.lint, x.t, x.registry
    ref, where = f"{r.host}/cache/x:1", ("--cache-dir", t / "facts")
    raw_push(x.made["skopeo"], "x", r.host, "cache/x", "1")
    asked = lambda: re.findall(r'"GET (/v2/cache/x/blobs/\S*)', (r.path / "log").read_text(errors="replace"))
    cached = lambda d: (d["timing"]["layers_cached"], d["timing"]["layers_by_table"])
    scan = lambda ref, *a: lint("scan", ref, *a, *where, cache=True)
    first = scan(ref, *DEPTH)
    c.eq(cached(first.doc), (0, 1), "cache: the first look")
    time.sleep(0.1)
    before = len(asked())
    second = scan(ref, *DEPTH)
    c.eq(second.doc["timing"]["layers_cached"], 1, "cache: the same image again is there")
    compare(c, "cache: the same facts again", second.doc, x.want)
    c.eq(second.err.count(NOTE), 1, "cache: the note is there again, since the digest of the layer was never checked")
    time.sleep(0.1)
    c.eq(asked()[before:], [], "cache: nothing is asked for but the manifest")
    compare(c, "cache: from the layout of the same layer", scan(f"oci:{x.made['skopeo']}", *DEPTH).doc, x.want)
    verified = scan(ref, *DEPTH, "--verify-blobs")
    c.eq(cached(verified.doc), (0, 0), "cache: not for --verify-blobs")
    c.ok(not verified.err.strip(), "cache: no note with --verify-blobs", str(verified))
    c.eq(cached(scan(ref, *DEPTH, "--verify-blobs").doc), (1, 0), "cache: --verify-blobs finds its own again")
    full = scan(ref)
    c.eq((cached(full.doc), full.doc["depth"]), ((0, 0), "full"), "cache: not for a full scan")
    compare(c, "cache: full facts", full.doc, lint.facts(f"oci:{x.made['gzip']}"))
    c.eq(cached(scan(ref).doc), (1, 0), "cache: a full scan finds its own again")
    compare(c, "cache: a full scan in it is not for libraries", scan(ref, *DEPTH).doc, x.want)
    c.eq(scan(ref, *DEPTH, "--verify-diff-ids").doc["timing"]["layers_cached"], 0, "cache: not for --verify-diff-ids")

    # One blob with two tables: which of them is the right one the manifest says.
    inner = []

    def without(table):
        inner.append(json.dumps({**table, "entries": table["entries"][:1]}).encode())

    chunked(FILES, edit=without)
    second_table = frame(inner[0])
    blob, one, diff = chunked(FILES, more=skippable(second_table))
    at = blob.index(second_table)
    two = {**ZSTD, "annotations": {NEW + "manifest-position": f"{at}:{len(second_table)}:{len(inner[0])}:1", NEW + "manifest-checksum": sha256(second_table)}}
    a, b, none = x.layout("one-table", (blob, one, diff)), x.layout("two-tables", (blob, two, diff)), x.layout("no-table", (blob, ZSTD, diff))
    packages = lambda d: [p["name"] for p in d["packages"]]
    got = [scan(l.ref, *DEPTH).doc for l in (a, b, none, a, b, none)]
    c.eq(a.manifest["layers"][0]["digest"], b.manifest["layers"][0]["digest"], "cache: two manifests name one blob")
    c.eq([packages(d) for d in got], [["torch"], [], ["torch"]] * 2, "cache: facts of one table are not those of another, nor of the whole")
    c.eq([cached(d) for d in got], [(0, 1), (0, 1), (0, 0), (1, 1), (1, 1), (1, 0)], "cache: each finds its own again")
    # The same layer found whole, with the row that says why, leaves nothing to the right manifest.
    for what, notes in (("digest", {NEW + "manifest-checksum": sha256(b"")}), ("position", {NEW + "manifest-position": f"{len(blob)}:100:200:1"})):
        empty = ("--cache-dir", t / f"facts-{what}")
        wrong = x.layout(f"wrong-{what}", (blob, {**one, "annotations": {**one["annotations"], **notes}}, diff))
        docs = [lint("scan", l.ref, *DEPTH, *empty, cache=True).doc for l in (wrong, a, none)]
        c.eq([len(d["problems"]) for d in docs], [1, 0, 0], f"cache: a manifest with a wrong {what} leaves no problem to the right one")


def part_sources(x):
    c, lint, t = x.c, x.lint, x.t
    data = tar(*FILES)
    want = lint.facts(x.layout("small", plain(data)).ref, *DEPTH)
    layout = x.layout("small-chunked", chunked(FILES))
    star = x.layout("small-estargz", stargz(data))
    for name, l in (("zstd:chunked", layout), ("estargz", star)):
        whole(c, lint, f"{name}, --verify-diff-ids", l.ref, want, "--verify-diff-ids")
    wrong = x.layout("wrong-diff-id", (*chunked(FILES)[:2], sha256(b"x")))
    by_table(c, lint, "a wrong diff_id is not seen by table", wrong.ref, want)
    r = lint("scan", wrong.ref, *DEPTH, "--verify-diff-ids")
    c.ok(r.rc == 3 and "digest" in r.err and '"complete": true' not in r.out, "a wrong diff_id with --verify-diff-ids: exit 3", str(r))
    push(star.ref, f"docker-archive:{t}/small.tar:example/x:1")
    push(layout.ref, f"oci-archive:{t}/small-oci.tar:x")
    for ref in (f"docker-archive:{t}/small.tar", f"{t}/small.tar", f"oci-archive:{t}/small-oci.tar", f"{t}/small-oci.tar"):
        d = whole(c, lint, f"source {ref.replace(str(t), '')}", ref, want)
        c.eq(d and d["depth"], "libraries", f"source {ref.replace(str(t), '')}: depth")
    for file in ("small.tar", "small-oci.tar"):
        d = whole(c, lint, f"source -, {file}", "-", want, stdin=(t / file).read_bytes())
        c.eq(d and d["depth"], "libraries", f"source -, {file}: depth")
    tree = t / "tree"
    for name, bytes_ in FILES:
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / name).write_bytes(bytes_)
    r = lint("scan", f"dir:{tree}", *DEPTH)
    c.eq((r.rc, r.err, r.doc["depth"], r.doc["timing"]["layers_by_table"]), (0, "", "libraries", 0), "source dir:")
    c.eq(r.doc["files"], want["files"], "source dir: files")
    c.eq(r.doc["packages"], want["packages"], "source dir: packages")
    lib = CODE / "libdemo_train.so"
    r = lint("scan", f"file:{lib}", *DEPTH)
    file = next(f for f in want["files"] if f["path"].endswith("libdemo.so"))
    c.eq((r.rc, r.err, r.doc["depth"], [f["elf"] for f in r.doc["files"]], [f["device_code"] for f in r.doc["files"]]), (0, "", "libraries", [file["elf"]], [None]), "source file: a library")
    r = lint("scan", f"file:{CODE / 'demo.cubin'}", *DEPTH)
    c.eq((r.rc, r.doc["depth"], r.doc["files"]), (0, "libraries", []), "source file: a cubin has nothing at this depth")
    wheel = fetch_wheel(x.cache, *WHEELS[1])
    full, part = lint.facts(f"file:{wheel}"), lint.facts(f"file:{wheel}", *DEPTH)
    c.eq((part["depth"], [f["path"] for f in part["files"]], [p for p in part["packages"]], any(f["device_code"] for f in part["files"])),
         ("libraries", [f["path"] for f in full["files"]], full["packages"], False), "source file: a wheel")
    r = lint("check", "-f", "json", f"file:{wheel}", *DEPTH, "--host-driver", "550", "--gpu", "h100")
    c.ok({row["verdict"] for row in r.doc["targets"]} <= {"unknown", "fails"}, "source file: no verdict better than unknown", str(r))


PARTS = {"gate": part_gate, "entries": part_entries, "sources": part_sources, "forms": part_forms, "difference": part_difference, "network": part_network,
         "cache": part_cache, "lies": part_lies}
NEED_FORMS = {"difference", "network", "cache"}


def main():
    a = arguments(__doc__, ("--only", dict(action="append", choices=tuple(PARTS), help="this part only; repeatable")))
    c = Checks("seekable.py", a.verbose)
    need("skopeo", "podman", "buildah", "docker-registry", "zstd", "gcc", "tar", "gzip")
    wanted = set(a.only or PARTS)
    if wanted & NEED_FORMS:
        wanted.add("forms")
    with tempfile.TemporaryDirectory(prefix="cudalint-seekable.") as t, Registry() as r, ThreadPoolExecutor(2) as builders, ThreadPoolExecutor(8) as pool:
        x = Test(c, Cudalint(a.binary, Path(t) / "home", c), Path(t), a.cache)
        x.registry, x.builders, x.pool = r, builders, pool
        if "forms" in wanted:
            content(x)
            x.forms, x.engines = forms(x), builders.submit(engine_store, x)
        parts = [(name, (lambda part=part: part(x))) for name, part in PARTS.items() if name in wanted]
        parts.append(("waiting for the network", lambda: [look() for look in x.later]))
        for name, part in parts:
            t0, n = time.time(), c.n
            part()
            if a.verbose:
                print(f"     {name}: {c.n - n} checks, {time.time() - t0:.1f} s", flush=True)
        for name in PARTS.keys() - wanted:
            c.note(f"left out by --only: {name}")
        if a.verbose:
            print(f"     memory of this process: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10} MB", flush=True)
    c.end()


main()
