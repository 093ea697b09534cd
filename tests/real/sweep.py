#!/usr/bin/env python3
"""Sweeps over a thousand images of a real registry, killed, resumed and divided, and caches that several machines share.

  sweep.py [--binary PATH] [--cache DIR] [-v]

The images are written into the storage of Docker's registry before it starts: 1,000 with the same five base layers (programs and
libraries of this machine, over 1 MB each) and one layer of their own, by whose version a row shows whose facts it holds.

  thousand   every layer comes over the wire once, every image has one row of the schema with its own facts; a sweep that is
             done asks for nothing and writes nothing
  killed     SIGKILL after some rows, at once after the start, a last line cut in the middle: no row lost, none twice, none anew
  workers    shards by --shard and by JOB_COMPLETION_INDEX at the same time on one shared cache; two whole sweeps on one
             shared cache; the report over all results
  faulty     no such image, damaged layers, a malformed name: rows with a status, exit status 2 over 3 over 1, tried again
  lists      plain, `kubectl get pods -o json`, `helm template`, standard input, catalogs with and without login, globs, wrong lists
  results    other hosts, --restart, two sweeps on one file, files of others beside it
  directory  a shared directory: damaged entries, keys, read-only, not one blob on the second machine
  store      a shared HTTP store that works, refuses, fails or is down
  registry   a shared cache beside the image (referrers), with and without the API of OCI 1.1, and for who may only pull
  upkeep     `cache size`, `cache prune`, `cache clear`, --cache-max-size
"""
import gzip
import hashlib
import http.client
import io
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
from collections import Counter, namedtuple
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

sys.dont_write_bytecode = True
sys.path.insert(0, str(Path(__file__).resolve().parent))
from common import Checks, Cudalint, Faults, REPO, Registry, Served, TOOLS, arguments, mkimage, need

IMAGES, BASES, REPOSITORIES = 1000, 5, 20
HOST = ["--host-driver", "535", "--gpu", "h100", "--runtime-mode", "legacy", "--as-of", "2026-11-20"]
# What two looks at one image may differ in.
COST = ("total_ms", "bytes_downloaded", "layers_cached")
MANIFEST, CONFIG = "application/vnd.oci.image.manifest.v1+json", "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"
SIGNED = "entries without a signature of the cache key are not used"


# ------------------------------------------------------------------------------------------------------------ images
def digest(data):
    return "sha256:" + hashlib.sha256(data).hexdigest()


Layer = namedtuple("Layer", "data digest diff_id")
Image = namedtuple("Image", "digest version fails layers config")


def layer(files):
    """A gzip layer of (path, bytes or member of a tar)."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.GNU_FORMAT) as tf:
        for path, data in files:
            ti = data[0] if isinstance(data, tuple) else tarfile.TarInfo(path)
            data = data[1] if isinstance(data, tuple) else data
            if not isinstance(ti.mtime, int) or not ti.isreg():
                tf.addfile(ti)
                continue
            ti.size, ti.mode = len(data), 0o755
            tf.addfile(ti, io.BytesIO(data))
    raw = out.getvalue()
    packed = gzip.compress(raw, 1, mtime=0)
    return Layer(packed, digest(packed), digest(raw))


def demo():
    """Members of all layers of the demonstration image: CUDA 12.4, machine code for the H100."""
    layout = REPO / "fixtures/images/demo"
    read = lambda d: (layout / "blobs/sha256" / d["digest"][7:]).read_bytes()
    manifest = json.loads(read(json.loads((layout / "index.json").read_text())["manifests"][0]))
    for l in manifest["layers"]:
        with tarfile.open(fileobj=io.BytesIO(read(l))) as tf:
            for m in tf.getmembers():
                yield m.name, (m, tf.extractfile(m).read() if m.isreg() else b"")


def bases():
    """Five layers that every image shares: ELF of this machine, 1 MB that no compressor makes smaller; CUDA in the first."""
    elf = [Path(p).read_bytes() for p in ("/bin/ls", "/bin/tar", "/bin/cp", "/bin/mv", "/bin/cat")]
    out = []
    for i in range(BASES):
        out.append(layer([*(demo() if i == 0 else ()), (f"usr/lib/x86_64-linux-gnu/libpart{i}.so", elf[i]),
                          (f"opt/data{i}", random.Random(i).randbytes(1 << 20))]))
    return out


class Shelf:
    """The storage of a registry (distribution, version 2 of its layout), written without it: a thousand images in a second."""

    def __init__(self, path):
        self.path, self.images, self.known = Path(path), {}, {}
        self.root = self.path / "docker/registry/v2"

    def write(self, path, data):
        if self.known.get(path) != data:
            self.known[path] = data
            path = self.root / path
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)

    def blob(self, data, name=None):
        name = name or digest(data)
        self.write(f"blobs/sha256/{name[7:9]}/{name[7:]}/data", data)
        return name

    def link(self, repository, where, name):
        self.write(f"repositories/{repository}/{where}/link", name.encode())

    def put(self, repository, tag, manifest, blobs):
        """A manifest's bytes under a tag; `blobs` are (digest, bytes)."""
        for name, data in blobs:
            self.blob(data, name)
            self.link(repository, f"_layers/sha256/{name[7:]}", name)
        name = self.blob(manifest)
        self.link(repository, f"_manifests/revisions/sha256/{name[7:]}", name)
        self.link(repository, f"_manifests/tags/{tag}/current", name)
        return name

    def image(self, repository, tag, layers, version, fails):
        env = ["LD_LIBRARY_PATH=/usr/local/nvidia/lib:/usr/local/nvidia/lib64", "NVIDIA_VISIBLE_DEVICES=all",
               "NVIDIA_DRIVER_CAPABILITIES=compute,utility", f"NVIDIA_REQUIRE_CUDA=cuda>=12.{9 if fails else 0}"]
        config = json.dumps({"architecture": "amd64", "os": "linux", "config": {"Env": env, "Entrypoint": ["/opt/demo/train"]},
                             "rootfs": {"type": "layers", "diff_ids": [l.diff_id for l in layers]}, "history": []}).encode()
        manifest = json.dumps({"schemaVersion": 2, "mediaType": MANIFEST,
                               "config": {"mediaType": CONFIG, "digest": digest(config), "size": len(config)},
                               "layers": [{"mediaType": LAYER, "digest": l.digest, "size": len(l.data)} for l in layers]}).encode()
        name = self.put(repository, tag, manifest, [(digest(config), config), *((l.digest, l.data) for l in layers)])
        self.images[f"{repository}:{tag}"] = Image(name, version, fails, [l.digest for l in layers], digest(config))

    def numbered(self, repository, tag, n, shared, fails=None):
        version = f"2.5.{n}"
        text = f"Metadata-Version: 2.1\nName: torch\nVersion: {version}\n".encode()
        own = layer([(f"usr/local/lib/python3.11/site-packages/torch-{version}.dist-info/METADATA", text)])
        self.image(repository, tag, [*shared, own], version, n % 4 == 0 if fails is None else fails)

    def layout(self, repository, layout):
        """The one image of an OCI layout, under the tag `1`."""
        read = lambda d: (Path(layout) / "blobs/sha256" / d["digest"][7:]).read_bytes()
        top = json.loads((Path(layout) / "index.json").read_text())["manifests"][0]
        manifest = json.loads(read(top))
        self.put(repository, "1", read(top), [(d["digest"], read(d)) for d in [manifest["config"], *manifest["layers"]]])


class Serve(Registry):
    """The registry over a shelf. It ends in the background: that takes it a second or two."""
    ending, started = [], 0

    def __init__(self, shelf, *options):
        Serve.started += 1
        super().__init__(*options, dir=shelf.path.with_name(f"{shelf.path.name}-served-{Serve.started}"))
        self.dir.mkdir()
        (self.dir / "data").symlink_to(shelf.path)

    def __exit__(self, *_):
        Serve.ending.append(subprocess.Popen([str(TOOLS / "registry-down"), str(self.path)]))


class Asked:
    """What a registry was asked for since the last look at its own log."""

    def __init__(self, registry):
        self.registry, self.at, self.n = registry, 0, 0

    def since(self):
        """(method, path) of each request."""
        self.n += 1
        mark = f"/v2/mark{self.n}/tags/list"
        host, port = self.registry.host.split(":")
        con = http.client.HTTPConnection(host, int(port))
        con.request("GET", mark)
        con.getresponse().read()
        con.close()
        for _ in range(200):
            text = (self.registry.path / "log").read_text(errors="replace")
            if mark in text:
                break
            time.sleep(0.02)
        time.sleep(0.05)
        with open(self.registry.path / "log", errors="replace") as f:
            f.seek(self.at)
            text = f.read()
            self.at = f.tell()
        return [(m, p) for m, p in re.findall(r'"([A-Z]+) (/v2/\S*) HTTP', text) if "/v2/mark" not in p]


def blobs(requests):
    """Digests of blobs that were asked for with GET."""
    return [p.rsplit("/", 1)[1].split("?")[0] for m, p in requests if m == "GET" and "/blobs/sha256:" in p]


def logged(file):
    """The same of a log of registry-faults.py, which is emptied."""
    lines = [json.loads(l) for l in file.read_text().splitlines()] if file.exists() else []
    file.write_text("")
    return [(l["method"], l["path"]) for l in lines]


# -------------------------------------------------------------------------------------------------------------- rows
def lines(file):
    """Whole lines of results."""
    data = Path(file).read_bytes() if Path(file).exists() else b""
    return data[:data.rfind(b"\n") + 1].splitlines(keepends=True)


def rows(file):
    """Reference -> row; of one that stands there twice the last."""
    return {r["reference"]: r for r in map(json.loads, lines(file)[1:])}


def counted(c, file, wanted, what):
    """Every image of `wanted` has exactly one row, no other has one, and the first line is the start."""
    docs = [json.loads(l) for l in lines(file)]
    kinds = [d["kind"] for d in docs]
    c.ok(kinds[:1] == ["start"] and set(kinds[1:]) <= {"image"}, f"{what}: the first line is the start, the others are images", str(kinds[:3]))
    n = Counter(d["reference"] for d in docs[1:])
    twice = [k for k, v in n.items() if v > 1]
    c.ok(not twice, f"{what}: no image twice", str(twice[:5]))
    lost, more = set(wanted) - set(n), set(n) - set(wanted)
    return c.ok(not lost and not more, f"{what}: one row for each of {len(wanted)} images", f"lost {sorted(lost)[:5]}, not wanted {sorted(more)[:5]}")


def own(c, host, images, found, what):
    """Each row holds the facts of its own image."""
    wrong = []
    for name, image in images.items():
        r = found.get(f"{host}/{name}") or {}
        verdict = "fails" if image.fails else "runs"
        torch = [s["version"] for s in r.get("stack", []) if s["component"] == "torch"]
        if (r.get("digest"), r.get("status"), r.get("verdict"), r.get("layers"), torch) != \
                (image.digest, "judged", verdict, len(image.layers), [image.version]) or r.get("error") is not None:
            wrong.append((name, verdict, image.version, {k: r.get(k) for k in ("digest", "status", "verdict", "layers", "error")}, torch))
    c.ok(not wrong, f"{what}: rows hold the facts and the verdict of their own image", f"{len(wrong)} do not: {wrong[:2]}")


def bare(row):
    return {k: v for k, v in row.items() if k not in COST}


def schema(c, lint, file, what):
    """Every line against `cudalint schema sweep`."""
    doc = lint("schema", "sweep").doc
    docs = [json.loads(l) for l in lines(file)]
    try:
        import jsonschema
        v = jsonschema.Draft202012Validator(doc)
        wrong = [(d.get("reference"), e.message[:200]) for d in docs for e in v.iter_errors(d)]
    except ImportError:
        kinds = {o["properties"]["kind"]["const"]: doc["$defs"][o["$ref"].rsplit("/", 1)[1]] for o in doc["oneOf"]}
        wrong = []
        for d in docs:
            k = kinds[d["kind"]]
            if not set(k["required"]) <= set(d) or not set(d) <= {*k["properties"], "kind"}:
                wrong.append((d.get("reference"), sorted(d)))
    c.ok(not wrong, f"{what}: every line matches the schema", str(wrong[:3]))


def listed(path, host, names):
    path = Path(path)
    path.write_text("".join(f"{host}/{n}\n" for n in names))
    return path


def notes(res, word=""):
    return [l for l in res.err.splitlines() if l.startswith("note:") and word in l]


def refused(c, res, what, words, status=2):
    """One clear line on stderr, nothing on stdout."""
    err = res.err.strip().splitlines()
    c.ok(res.rc == status and not res.out and len([l for l in err if l.startswith("error:")]) == 1, f"{what}: refused with one line", str(res))
    for w in words:
        c.ok(w in res.err, f"{what}: the line says {w!r}", str(res))


def tree(path):
    """What a directory holds: name -> bytes and time."""
    return {str(p.relative_to(path)): (p.read_bytes(), p.stat().st_mtime_ns) for p in sorted(Path(path).rglob("*")) if p.is_file()}


# ------------------------------------------------------------------------------------------------- a thousand images
def thousand(c, lint, t, r, shelf, asked):
    refs = listed(t / "thousand.txt", r.host, shelf.images)
    wanted = refs.read_text().split()
    file = t / "thousand.ndjson"
    asked.since()
    res = lint("sweep", refs, "-o", file, "--cache-dir", t / "c1", *HOST, cache=True)
    c.note(f"a thousand images: {res.seconds:.1f} s, {res.cpu:.1f} s of work, {res.rss:.0f} MB")
    c.ok(res.rc == 1 and not res.err.strip(), "thousand: exit 1 for findings, nothing on stderr", str(res))
    c.ok(res.out.startswith(f"{IMAGES} images, {IMAGES} distinct\n"), "thousand: the report counts them", res.out[:100])
    if not counted(c, file, wanted, "thousand"):
        return
    found = rows(file)
    own(c, r.host, shelf.images, found, "thousand")
    schema(c, lint, file, "thousand")
    requests = asked.since()
    pulled = Counter(blobs(requests))
    layers = {d for i in shelf.images.values() for d in i.layers}
    c.eq(len(layers), BASES + IMAGES, "thousand: distinct layers of the images themselves")
    c.eq({d: n for d, n in pulled.items() if d in layers and n != 1}, {}, "thousand: no layer comes twice")
    c.eq(len(layers - set(pulled)), 0, "thousand: layers that were never asked for")
    configs = {i.config for i in shelf.images.values()}
    c.ok(all(pulled[d] <= 1 for d in configs), "thousand: no configuration comes twice")
    c.eq(len(set(pulled) - layers - configs), 0, "thousand: no other blob is asked for")
    c.eq(sum(x["layers_cached"] for x in found.values()), IMAGES * (BASES + 1) - len(layers), "thousand: layers_cached of all rows")
    size = lambda d: (shelf.root / f"blobs/sha256/{d[7:9]}/{d[7:]}/data").stat().st_size
    least = sum(map(size, layers))
    most = least + sum(map(size, configs)) + sum(size(i.digest) for i in shelf.images.values())
    total = sum(x["bytes_downloaded"] for x in found.values())
    c.ok(least <= total <= most, "thousand: bytes_downloaded of all rows are those of the distinct blobs", f"{total}, from {least} to {most}")

    before, stat = file.read_bytes(), file.stat()
    res = lint("sweep", refs, "-o", file, "--cache-dir", t / "c1", "--json", *HOST, cache=True)
    c.ok(res.rc == 1 and notes(res, f"{IMAGES} of {IMAGES} images are done"), "done: the same exit status, and a note", str(res))
    c.eq(asked.since(), [], "done: the registry is asked for nothing")
    c.ok(file.read_bytes() == before, "done: no byte of the results changes")
    c.ok((file.stat().st_ino, file.stat().st_mtime_ns) == (stat.st_ino, stat.st_mtime_ns), "done: the results are not written again")
    fails = sum(i.fails for i in shelf.images.values())
    summed(c, res, IMAGES, fails, "done")


def summed(c, res, n, fails, what):
    """The report as JSON counts n images."""
    try:
        d = res.doc
    except ValueError:
        return c.ok(False, f"{what}: the report is JSON", str(res))
    t = (d["targets"] or [{}])[0]
    got = {"images": d["images"], "distinct": d["distinct"], "read": [len(d["unreadable"]), len(d["incomplete"])],
           **{k: t.get(k) for k in ("runs", "fails", "degraded", "unknown", "no_gpu_code")}}
    c.eq(got, {"images": n, "distinct": n, "read": [0, 0], "runs": n - fails, "fails": fails, "degraded": 0, "unknown": 0, "no_gpu_code": 0},
         f"{what}: counts of the report")
    if fails and t.get("drivers"):
        c.eq((t["drivers"][-1]["images"], t["no_driver_helps"]), (fails, 0), f"{what}: a newer driver helps those that fail")


def killed(c, lint, t, r, shelf, asked):
    refs, file = t / "thousand.txt", t / "killed.ndjson"
    wanted = refs.read_text().split()
    command = [lint.binary, "sweep", str(refs), "-o", str(file), "--cache-dir", str(t / "c2"), *HOST]
    asked.since()
    stood, looks = [], Counter()

    def look():
        """References whose manifests were asked for since."""
        return Counter(p[4:].replace("/manifests/", ":") for m, p in asked.since() if m == "GET" and "/manifests/v" in p)

    def go(enough=None, seconds=None):
        """Starts the sweep and kills it."""
        p = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=lint.env)
        until = time.time() + (seconds or 60)
        while p.poll() is None and time.time() < until and (seconds or len(lines(file)) < enough):
            time.sleep(0.002)
        running = p.poll() is None
        p.kill()
        p.wait()
        return running

    def check(what, anew=()):
        """What stood there still stands there, byte for byte and in order; only `anew` may be looked at again."""
        nonlocal stood
        now = lines(file)
        c.ok(now[:len(stood)] == stood, f"{what}: rows that stood there stand there",
             f"{len(stood)} before, {len(now)} now, first that differs: {next((i for i, (a, b) in enumerate(zip(stood, now)) if a != b), '-')}")
        names = {json.loads(l)["reference"].split("/", 1)[1] for l in stood[1:]} - set(anew)
        again = names & set(look())
        c.ok(not again, f"{what}: none of them is looked at again", str(sorted(again)[:5]))
        stood = now

    c.ok(go(enough=60), "killed: the sweep runs when it is killed")
    check("killed early")
    c.ok(len(stood) >= 60, "killed early: rows are there at once", str(len(stood)))
    for ms in (1, 4, 8, 12, 16, 24, 40):
        go(seconds=ms / 1000)
    check("killed at the start")
    c.ok(go(enough=len(stood) + 150), "killed: the second one runs when it is killed")
    check("killed again")
    # What a kill or a full disk leaves: a last line without end.
    cut = stood.pop()
    end = sum(map(len, stood))
    os.truncate(file, end + len(cut) // 2)
    name = json.loads(cut)["reference"].split("/", 1)[1]
    c.ok(go(enough=len(stood) + 50), "killed: the third one runs when it is killed")
    check("a line cut in the middle", [name])
    c.ok(any(json.loads(l)["reference"].endswith("/" + name) for l in stood[1:]), "a line cut in the middle: that image is done first")
    # The rest from a full cache.
    res = lint("sweep", refs, "-o", file, "--cache-dir", t / "c1", *HOST, cache=True)
    c.ok(res.rc == 1 and notes(res, "images are done already"), "killed: the last one ends", str(res))
    check("killed, resumed")
    counted(c, file, wanted, "killed, resumed")
    found = rows(file)
    own(c, r.host, shelf.images, found, "killed, resumed")
    schema(c, lint, file, "killed, resumed")
    whole = rows(t / "thousand.ndjson")
    c.ok(all(bare(whole[k]) == bare(found.get(k, {})) for k in whole), "killed, resumed: the rows are those of a sweep that was not killed")
    left = sorted(p.name for p in t.glob("killed*") if p.name != file.name)
    c.eq(left, [], "killed: no other file is left beside the results")


def workers(c, lint, t, r, shelf):
    names = list(shelf.images)[:300]
    images = {n: shelf.images[n] for n in names}
    refs = listed(t / "workers.txt", r.host, names)
    wanted, shared = refs.read_text().split(), t / "shared-shards"
    asked = Asked(r)
    asked.since()

    def shard(i):
        how = ["--shard", 1] if i else []
        env = {} if i else {"JOB_COMPLETION_INDEX": "0"}
        return lint("sweep", refs, "-o", t / f"shard.{i}", "--shards", 2, *how, "--cache-dir", t / f"shard-cache-{i}",
                    "--shared-cache", shared, *HOST, cache=True, **env)

    with ThreadPoolExecutor(2) as pool:
        out = list(pool.map(shard, (0, 1)))
    for i, res in enumerate(out):
        c.ok(res.rc == 1 and not res.err.strip(), f"shard {i}: exit 1, nothing on stderr", str(res))
    parts = [rows(t / f"shard.{i}") for i in (0, 1)]
    c.eq([json.loads(lines(t / f"shard.{i}")[0])["shard"] for i in (0, 1)], ["0/2", "1/2"], "shards: the first line says which it is")
    c.eq(sorted(set(parts[0]) & set(parts[1])), [], "shards: no image in both")
    c.ok(set(parts[0]) | set(parts[1]) == set(wanted) and sum(len(lines(t / f"shard.{i}")) for i in (0, 1)) == len(wanted) + 2,
         "shards: together one row for each image")
    c.ok(min(map(len, parts)) > len(wanted) // 4, "shards: both have something to do", str([len(p) for p in parts]))
    own(c, r.host, images, {**parts[0], **parts[1]}, "shards")
    pulled = Counter(blobs(asked.since()))
    mine = {i.layers[-1] for i in images.values()}
    c.ok(all(pulled[d] == 1 for d in mine), "shards: an image's own layer comes once")
    # At the same moment both may begin with the same layer; nothing locks a directory of several machines.
    base = next(iter(images.values())).layers[:-1]
    c.ok(all(1 <= pulled[d] <= 2 for d in base), "shards: a base layer comes once per worker at most", str({d: pulled[d] for d in base}))
    fails = sum(i.fails for i in images.values())
    res = lint("sweep", "--results", t / "shard.0", "--results", t / "shard.1", "--json")
    c.ok(res.rc == 1, "report over shards: exit 1 for findings", str(res))
    summed(c, res, len(wanted), fails, "report over shards")
    one = lint("sweep", "--results", t / "shard.0", "--json")
    summed(c, one, len(parts[0]), sum(images[k.split("/", 1)[1]].fails for k in parts[0]), "report over one shard")
    refused(c, lint("sweep", refs, "-o", t / "shard.0", "--shards", 2, "--shard", 1, *HOST), "another shard into the same results", ["shard", "--restart"])

    # Both go on at once, as pods of a Job that was evicted; the names differ in what follows the dot.
    before = [lines(t / f"shard.{i}") for i in (0, 1)]
    for i in (0, 1):
        (t / f"shard.{i}").write_bytes(b"".join(before[i][:-20]))
    again = []
    with ThreadPoolExecutor(2) as pool:
        again = list(pool.map(shard, (0, 1)))
    c.ok(all(x.rc == 1 for x in again), "shards that go on at once: exit 1", " / ".join(map(str, again)))
    for i in (0, 1):
        c.ok(set(rows(t / f"shard.{i}")) == set(parts[i]) and len(lines(t / f"shard.{i}")) == len(before[i]),
             f"shards that go on at once: {i} is whole", f"{len(lines(t / f'shard.{i}'))} lines, {len(before[i])} expected")

    some = [n for n in names if int(shelf.images[n].version.rsplit(".", 1)[1]) < 100]
    refs = listed(t / "whole.txt", r.host, some)

    def whole(i):
        return lint("sweep", refs, "-o", t / f"whole-{i}.ndjson", "--cache-dir", t / f"whole-cache-{i}",
                    "--shared-cache", t / "shared-whole", *HOST, cache=True)

    with ThreadPoolExecutor(2) as pool:
        out = list(pool.map(whole, (0, 1)))
    c.ok(all(x.rc == 1 and not x.err.strip() for x in out), "two whole sweeps: exit 1, nothing on stderr", " / ".join(map(str, out)))
    both = [rows(t / f"whole-{i}.ndjson") for i in (0, 1)]
    for i in (0, 1):
        counted(c, t / f"whole-{i}.ndjson", refs.read_text().split(), f"whole sweep {i}")
    differ = [k for k in both[0] if bare(both[0][k]) != bare(both[1].get(k, {}))]
    c.ok(not differ, "two whole sweeps: the rows agree but for what they cost", str(differ[:3]))
    res = lint("sweep", "--results", t / "whole-0.ndjson", "--results", t / "whole-1.ndjson", "--json")
    summed(c, res, len(some), sum(shelf.images[n].fails for n in some), "report over two sweeps of the same images")

    for what, args, env, words in (("--shards without a number", ["--shards", 2], {}, ["--shard", "JOB_COMPLETION_INDEX"]),
                                   ("shard 2 of 2", ["--shards", 2, "--shard", 2], {}, ["from 0 to 1"]),
                                   ("JOB_COMPLETION_INDEX=x", ["--shards", 2], {"JOB_COMPLETION_INDEX": "x"}, ["--shard"]),
                                   ("--shard without --shards", ["--shard", 1], {}, ["--shards"]),
                                   ("no shard at all", ["--shards", 0], {}, ["--shards"])):
        res = lint("sweep", refs, *args, *HOST, "--only", "nothing", **env)
        refused(c, res, what, words)


# ---------------------------------------------------------------------------------------------------------- faulty images
def faulty(c, lint, t, shared):
    shelf = Shelf(t / "faulty")
    for n in (1, 2, 3, 4):
        shelf.numbered("team/good", f"v{n}", n, shared[:2])
    good = dict(shelf.images)
    mk = mkimage()
    for what in ("truncate", "digest"):
        mk.build(str(t / f"broken-{what}"), {"tag": "1", "layers": [{"items": [["text", "/etc/os-release", "ID=debian\n"]]},
                                                                   {"items": [["file", "/opt/ls", "/bin/ls"]], "break": what}]})
        shelf.layout(f"team/{what}", t / f"broken-{what}")
    file = t / "faulty.ndjson"
    with Serve(shelf) as r:
        asked = Asked(r)
        at = lambda *names: [f"{r.host}/{n}" for n in names]
        broken, missing, malformed = at("team/truncate:1", "team/digest:1"), at("team/good:v5"), [f"{r.host}/Team//x::y"]
        refs = t / "faulty.txt"

        def sweep(names, *args, output=True):
            refs.write_text("\n".join(names) + "\n")
            return lint("sweep", refs, *(["-o", file] if output else []), "--cache-dir", t / "faulty-cache", *HOST, *args, cache=True)

        names = [*at("team/good:v1"), *malformed, *at("team/good:v2"), *missing, *broken, *at("team/good:v3", "team/good:v4", "team/good:v1")]
        for what, some, args, status in (("all", names, [], 2), ("--fail-on never", names, ["--fail-on", "never"], 2),
                                         ("none malformed", [n for n in names if n not in malformed], [], 3),
                                         ("a damaged layer", at("team/good:v4") + broken, [], 3),
                                         ("no such image alone", missing, [], 3), ("findings alone", at("team/good:v4", "team/good:v1"), [], 1),
                                         ("findings and --fail-on never", at("team/good:v4"), ["--fail-on", "never"], 0),
                                         ("none of that", at("team/good:v1"), [], 0)):
            res = sweep(some, *args, output=False)
            c.ok(res.rc == status, f"exit status, {what}: {status}", str(res))
            docs = [json.loads(l) for l in res.out.splitlines()]
            c.eq(sorted(d["reference"] for d in docs[1:]), sorted(set(some)), f"rows on standard output, {what}")
        res = sweep(names)
        c.ok(res.rc == 2, "faulty: exit 2", str(res))
        counted(c, file, set(names), "faulty")
        schema(c, lint, file, "faulty")
        own(c, r.host, good, rows(file), "faulty: the others")
        found = rows(file)
        got = lambda name: (found[name]["status"], bool((found[name]["error"] or {}).get("message")), (found[name]["error"] or {}).get("usage"))
        c.eq([got(n) for n in malformed], [("unreadable", True, True)], "faulty: the malformed name")
        c.eq([got(n) for n in missing], [("unreadable", True, False)], "faulty: the image that does not exist")
        c.eq([got(n) for n in broken], [("incomplete", True, False)] * 2, "faulty: images with a damaged layer")
        for n in malformed + missing:
            c.ok(found[n]["verdict"] is None and not found[n]["targets"], f"faulty: no verdict on {n.split('/')[-1]}", str(found[n]["verdict"]))
        for n in broken:
            c.ok(found[n]["verdict"] == "unknown" and found[n]["digest"], f"faulty: verdict unknown on {n.split('/')[-1]}", str(found[n]["verdict"]))
        said = [l for l in res.err.splitlines() if l.startswith("error:")]
        c.ok(any("v5" in l for l in said) and any("Team//x" in l for l in said), "faulty: stderr says what could not be opened", str(res))
        for n in ("v5", "Team//x"):
            c.ok(n in res.out.partition("not read")[2], f"faulty: the report names {n} as not read", res.out[-400:])
        c.ok("2 not read" in res.out and "2 read in part" in res.out, "faulty: the report counts them", res.out[:100])

        before = {json.loads(l).get("reference"): l for l in lines(file)}
        asked.since()
        res = sweep(names)
        c.ok(res.rc == 2, "faulty, resumed: exit 2", str(res))
        after = {json.loads(l).get("reference"): l for l in lines(file)}
        counted(c, file, set(names), "faulty, resumed")
        c.eq([n for n in at(*good) if before[n] != after.get(n)], [], "faulty, resumed: rows of the others stay as they are")
        looked = {p[4:].replace("/manifests/", ":") for _, p in asked.since() if "/manifests/" in p}
        c.eq(sorted(looked), ["team/digest:1", "team/good:v5", "team/truncate:1"], "faulty, resumed: what could not be read whole is tried again")
        shelf.numbered("team/good", "v5", 5, shared[:2])
        res = sweep(names)
        own(c, r.host, shelf.images, rows(file), "faulty, when the image is there")
        counted(c, file, set(names), "faulty, when the image is there")
        res = sweep([n for n in names if n not in malformed and n not in broken])
        c.ok(res.rc == 1 and "not read" not in res.out, "faulty: what is no more on the list is not in the report", str(res) + res.out[:60])


# ---------------------------------------------------------------------------------------------------------------- lists
PODS = """{"apiVersion": "v1", "kind": "List", "items": [
 {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "train-0", "namespace": "ml"},
  "spec": {"initContainers": [{"name": "fetch", "image": "HOST/team/b:v2"}], "containers": [{"name": "main", "image": "HOST/team/a:moved"}]},
  "status": {"phase": "Running", "containerStatuses": [{"name": "main", "image": "HOST/team/a:moved", "imageID": "HOST/team/a@DIGEST"}],
             "initContainerStatuses": [{"name": "fetch", "image": "HOST/team/b:v2", "imageID": "CONFIG"}]}},
 {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "serve-0", "namespace": "web"},
  "spec": {"containers": [{"name": "one", "image": "HOST/team/b:v2"}, {"name": "two", "image": "HOST/team/b:v3"}]},
  "status": {"phase": "Pending"}}], "metadata": {"resourceVersion": ""}}"""

HELM = """---
# Source: chart/templates/serve.yaml
apiVersion: apps/v1
kind: Deployment
metadata:
  name: serve
  namespace: ml
spec:
  replicas: 2
  template:
    spec:
      initContainers:
        - name: wait
          image: HOST/team/b:v3
      containers:
        - name: main
          image: "HOST/team/a:v1"
---
apiVersion: batch/v1
kind: CronJob
metadata: {name: nightly}
spec:
  jobTemplate:
    spec:
      template:
        spec:
          containers: [{name: main, image: HOST/team/a:v1}]
---
apiVersion: kubeflow.org/v1
kind: PyTorchJob
metadata: {name: fine, namespace: ml}
spec:
  pytorchReplicaSpecs:
    Worker:
      template:
        spec:
          containers: [{name: pytorch, image: 'HOST/other/x:v9'}]
---
apiVersion: v1
kind: ConfigMap
metadata: {name: settings}
data:
  image: HOST/not/one:1
---
"""


def lists(c, lint, t, shared):
    shelf = Shelf(t / "lists")
    for name, n in (("team/a:v1", 1), ("team/a:moved", 7), ("team/b:v2", 2), ("team/b:v3", 3), ("other/x:v9", 9)):
        shelf.numbered(*name.split(":"), n, shared[:1])
    ran = shelf.images["team/a:moved"]
    shelf.numbered("team/a", "moved", 8, shared[:1])          # the tag moves on, the pod does not
    images, path = shelf.images, t / "list"

    def check(what, r, text, want, *args, **kw):
        """The rows are exactly those of `want`: reference -> (image, who wants it)."""
        path.write_text(text)
        res = lint("sweep", kw.pop("place", path), "--cache-dir", t / "lists-cache", *HOST, *args, cache=True, **kw)
        got = {}
        for l in res.out.splitlines()[1:]:
            d = json.loads(l)
            got[d["reference"]] = (d["digest"], d["wanted_by"], (d["error"] or {}).get("message"))
        c.eq(got, {f"{r.host}/{k}": (i.digest, by, None) for k, (i, by) in want.items()}, f"list: {what}")
        c.ok(res.rc in (0, 1), f"list: {what}: exit 0 or 1", str(res))
        return res

    with Serve(shelf) as r:
        all_of = lambda *names: {n: (images[n], []) for n in names}
        fill = lambda text: text.replace("HOST", r.host).replace("DIGEST", ran.digest).replace("CONFIG", images["team/b:v2"].config)
        plain = fill("# what we run\n\nHOST/team/a:v1\n   HOST/team/b:v2   # pinned\n#HOST/team/b:v3\nHOST/team/a:v1\n")
        check("plain with comments", r, plain, all_of("team/a:v1", "team/b:v2"))
        check("plain with CR LF", r, plain.replace("\n", "\r\n"), all_of("team/a:v1", "team/b:v2"))
        check("plain with a byte order mark", r, "\ufeff" + fill("HOST/team/a:v1\nHOST/team/b:v2\n"), all_of("team/a:v1", "team/b:v2"))
        by_digest = f"team/b@{images['team/b:v2'].digest}"
        check("plain by digest", r, fill(f"HOST/{by_digest}\n"), {by_digest: (images["team/b:v2"], [])})
        pods = {f"team/a:moved@{ran.digest}": (ran, ["Pod ml/train-0"]), "team/b:v2": (images["team/b:v2"], ["Pod ml/train-0", "Pod web/serve-0"]),
                "team/b:v3": (images["team/b:v3"], ["Pod web/serve-0"])}
        check("pods of kubectl", r, fill(PODS), pods)
        check("pods with docker-pullable://", r, fill(PODS.replace('"imageID": "HOST', '"imageID": "docker-pullable://HOST')), pods)
        helm = {"team/a:v1": (images["team/a:v1"], ["Deployment ml/serve", "CronJob nightly"]), "team/b:v3": (images["team/b:v3"], ["Deployment ml/serve"]),
                "other/x:v9": (images["other/x:v9"], ["PyTorchJob ml/fine"])}
        check("manifests of helm", r, fill(HELM), helm)
        check("manifests without dashes", r, fill(HELM).removeprefix("---\n"), helm)
        for what, text, want in (("plain", plain, all_of("team/a:v1", "team/b:v2")), ("kubectl", fill(PODS), pods), ("helm", fill(HELM), helm)):
            check(f"standard input, {what}", r, "", want, place="-", stdin=text)
        every = all_of(*images)
        check("catalog", r, "", every, place=f"catalog:{r.host}")
        check("catalog with prefix", r, "", {k: v for k, v in every.items() if k.startswith("team/")}, place=f"catalog:{r.host}/team")
        check("catalog with one repository", r, "", {k: v for k, v in every.items() if k.startswith("team/a:")}, place=f"catalog:{r.host}/team/a")
        check("--only", r, "", all_of("team/a:v1", "other/x:v9"), "--only", "*/a:v1", "--only", "*/other/*", place=f"catalog:{r.host}")
        check("--skip", r, "", all_of("team/b:v3", "other/x:v9"), "--skip", "*/team/a:*", "--skip", "*:v2", place=f"catalog:{r.host}")
        check("--only and --skip", r, fill(PODS), {"team/b:v3": pods["team/b:v3"]}, "--only", "*/team/b*", "--skip", "*v2")
        res = check("a list of nothing", r, "# nothing\n", {})
        c.ok(notes(res, "names no image"), "list: a list of nothing is told", str(res))
        res = check("--only that fits nothing", r, plain, {}, "--only", "nothing")
        c.ok(notes(res), "list: --only that fits nothing is told", str(res))

        path.write_text(plain)
        path_of = lambda text: (t / "wrong").write_text(text) and t / "wrong"
        for what, args, words in (("no list", [], ["no list"]), ("no such file", [t / "nosuch"], ["nosuch"]), ("a directory", [t], [str(t)]),
                                  ("JSON that ends early", [path_of('{"items": [')], ["JSON"])):
            refused(c, lint("sweep", *args, *HOST), f"list: {what}", words)
        refused(c, lint("sweep", path_of("apiVersion: v1\nkind: [\n"), *HOST), "list: YAML that ends early", ["YAML"])
        refused(c, lint("sweep", path, "--only", "[", *HOST), "list: a pattern that is none", ["--only"])
        refused(c, lint("sweep", "-", "--password-stdin", "--username", "x", *HOST, stdin=plain), "list: standard input asked for twice, password", ["standard input"])
        refused(c, lint("sweep", "-", "--targets", "-", stdin=plain), "list: standard input asked for twice, targets", ["standard input"])
        res = lint("sweep", path, "--facts", REPO / "fixtures/facts/torch-2.5.1.json", *HOST)
        c.ok(res.rc == 2 or "torch-2.5.1" in res.out, "list: --facts is judged or refused, not overlooked", str(res))
        res = lint("sweep", path, "--offline", *HOST)
        c.ok(res.rc == 2 and "offline" in res.err, "list: --offline, images of a registry: exit 2", str(res))
        refused(c, lint("sweep", f"catalog:{r.host}", "--offline", *HOST), "list: --offline, catalog", ["--offline"])
        refused(c, lint("sweep", "catalog:", *HOST), "list: catalog without host", ["catalog:"])
        res = lint("sweep", "catalog:127.0.0.1:1", *HOST)
        refused(c, res, "list: catalog of nobody", ["127.0.0.1:1"], 3)
        # The list may name what is no registry.
        path.write_text(f"oci:{REPO}/fixtures/images/demo\n")
        res = lint("sweep", path, *HOST, "--with-facts")
        row = json.loads(res.out.splitlines()[-1])
        want = lint.facts(f"oci:{REPO}/fixtures/images/demo")
        same = lambda d: {k: v for k, v in d.items() if k != "timing"}
        c.ok(row["facts"] and want and same(row["facts"]) == same(want), "list: an OCI layout; --with-facts gives what scan gives", str(res))
    with Serve(shelf, "--token", "anna:s3cret") as r:
        login = {"stdin": "s3cret\n"}
        every = {n: (i, []) for n, i in images.items()}
        check("token registry, names", r, f"{r.host}/team/a:v1\n{r.host}/other/x:v9\n", {n: every[n] for n in ("team/a:v1", "other/x:v9")},
              "--username", "anna", "--password-stdin", **login)
        path.write_text("")
        res = lint("sweep", f"catalog:{r.host}", "--username", "anna", "--password-stdin", *HOST, **login)
        if res.rc in (0, 1):
            c.eq(sorted(json.loads(l)["reference"] for l in res.out.splitlines()[1:]), sorted(f"{r.host}/{n}" for n in images), "token registry, catalog")
        else:
            refused(c, res, "token registry, catalog", [r.host], 3)
        c.note(f"token registry, catalog: {res}")
        for what, args, kw in (("no login", [], {}), ("a wrong password", ["--username", "anna", "--password-stdin"], {"stdin": "wr0ng\n"})):
            res = lint("sweep", f"catalog:{r.host}", *args, *HOST, **kw)
            refused(c, res, f"token registry, catalog, {what}", [r.host], 3)
            c.ok("wr0ng" not in res.err, f"token registry, catalog, {what}: no secret is shown", res.err)
    with Serve(shelf, "--auth", "anna:s3cret") as r:
        check("catalog with basic login", r, "", {n: (i, []) for n, i in images.items()}, "--username", "anna", "--password-stdin",
              place=f"catalog:{r.host}", stdin="s3cret\n")
        refused(c, lint("sweep", f"catalog:{r.host}", *HOST), "list: catalog without login", [r.host], 3)


# -------------------------------------------------------------------------------------------------------------- results
def results(c, lint, t, shared):
    shelf = Shelf(t / "results")
    for n in range(1, 13):
        shelf.numbered("team/x", f"v{n}", n, shared[:1])
    with Serve(shelf) as r:
        refs = listed(t / "results.txt", r.host, shelf.images)
        wanted = refs.read_text().split()
        file = t / "of-hosts.ndjson"
        run = lambda *args, **kw: lint("sweep", refs, "-o", file, "--cache-dir", t / "results-cache", *args, cache=True, **kw)
        base = ["--host-driver", "535", "--gpu", "h100"]
        c.ok(run(*base, "--as-of", "2026-11-20").rc in (0, 1), "results: the first sweep")
        before = file.read_bytes()
        for what, args in (("another driver", ["--host-driver", "550", "--gpu", "h100"]), ("another GPU", ["--host-driver", "535", "--gpu", "t4"]),
                           ("one more host", ["--host-driver", "535,550", "--gpu", "h100"]), ("another runtime", [*base, "--runtime-mode", "legacy"]),
                           ("another day", [*base, "--as-of", "2026-11-19"]), ("another platform", [*base, "--platform", "linux/arm64"]),
                           ("facts too", [*base, "--with-facts"])):
            refused(c, run(*args), f"results: {what}", [file.name, "--restart"])
            c.ok(file.read_bytes() == before, f"results: {what}: nothing is lost")
        res = run(*base)
        c.ok(res.rc in (0, 1) and file.read_bytes() == before, "results: without --as-of the day of the results stays", str(res))
        res = run("--host-driver", "550", "--gpu", "h100", "--restart")
        counted(c, file, wanted, "results: --restart")
        c.ok({x["name"] for v in rows(file).values() for x in v["targets"]} == {"550/h100"}, "results: --restart judges for the new host", str(res))
        other = t / "other-file"
        other.write_text("precious\n")
        refused(c, lint("sweep", refs, "-o", other, *base), "results: a file of something else", ["other-file", "--restart"])
        c.ok(other.read_text() == "precious\n", "results: a file of something else stays")
        refused(c, lint("sweep", refs, "-o", t / "no/dir/x", *base), "results: no such directory", ["no/dir/x"])
        refused(c, lint("sweep", "--results", other, "--json"), "report: a file of something else", ["other-file"])
        refused(c, lint("sweep", "--results", t / "nosuch.ndjson"), "report: no such file", ["nosuch.ndjson"])
        lint("sweep", refs, "-o", t / "h535.ndjson", "--cache-dir", t / "results-cache", *base, cache=True)
        refused(c, lint("sweep", "--results", t / "h535.ndjson", "--results", file), "report: results for other hosts", ["h535.ndjson"])

        # The name of the results is the user's, and so are the files beside it.
        near, mine = t / "near.ndjson", t / "near.part"
        lint("sweep", refs, "-o", near, "--cache-dir", t / "results-cache", *base, cache=True)
        mine.write_text("precious\n")
        res = lint("sweep", refs, "-o", near, "--cache-dir", t / "results-cache", *base, cache=True)
        c.ok(mine.exists() and mine.read_text() == "precious\n", "results: another file beside them stays when a sweep goes on", str(res))
        part = t / "mine.part"
        lint("sweep", refs, "-o", part, "--cache-dir", t / "results-cache", *base, cache=True)
        res = lint("sweep", refs, "-o", part, "--cache-dir", t / "results-cache", *base, cache=True)
        c.ok(res.rc in (0, 1), "results: a file called *.part goes on, too", str(res))
        if part.exists():
            counted(c, part, wanted, "results: a file called *.part")
        link, real = t / "link.ndjson", t / "real.ndjson"
        link.symlink_to(real)
        for _ in range(2):
            res = lint("sweep", refs, "-o", link, "--cache-dir", t / "results-cache", *base, cache=True)
        c.ok(link.is_symlink() and real.exists(), "results: a symbolic link stays one when a sweep goes on", str(res))

        # Two sweeps on one file.
        with Faults(r.url, "--delay", "20") as f:
            slow = listed(t / "slow.txt", f.host, shelf.images)
            wanted = slow.read_text().split()
            both = t / "both.ndjson"
            command = [lint.binary, "sweep", str(slow), "-o", str(both), "--cache-dir", str(t / "slow-cache"), "-j", "1", *base]
            for what in ("a first", "one that goes on"):
                p = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=lint.env)
                while p.poll() is None and len(lines(both)) < (3 if what == "a first" else 6):
                    time.sleep(0.005)
                p.send_signal(signal.SIGSTOP)                  # it holds the file for as long as the others try
                for args in ([], ["--restart"]):
                    refused(c, lint(*command[1:], *args), f"two sweeps on one file, {what} {' '.join(args)}", ["both.ndjson", "another sweep"])
                c.ok(p.poll() is None, f"two sweeps on one file: {what} still runs")
                p.send_signal(signal.SIGCONT)
                if what == "a first":
                    p.kill()
                    p.wait()
            c.ok(p.wait() in (0, 1), "two sweeps on one file: it ends well", str(p.returncode))
            counted(c, both, wanted, "two sweeps on one file")

        # With everything in a row, what stood there stays byte for byte.
        facts = t / "facts.ndjson"
        full = lambda: lint("sweep", refs, "-o", facts, "--cache-dir", t / "results-cache", "--with-facts", *base, cache=True)
        full()
        whole = lines(facts)
        facts.write_bytes(b"".join(whole[:-3]))
        res = full()
        c.ok(lines(facts)[:-3] == whole[:-3] and len(lines(facts)) == len(whole), "results: rows with facts stay byte for byte", str(res))
        schema(c, lint, facts, "results: rows with facts")


# ------------------------------------------------------------------------------------------------- a shared directory
def plain(doc):
    """Facts without what they cost."""
    return {k: v for k, v in (doc or {}).items() if k != "timing"}


class Machine:
    """Scans as machines that never saw the image: each time with a cache directory of its own."""

    def __init__(self, c, lint, t, name):
        self.c, self.lint, self.t, self.name, self.n = c, lint, t, name, 0

    def __call__(self, ref, *args, **kw):
        self.n += 1
        self.last = self.t / f"{self.name}-machine-{self.n}"
        return self.lint("scan", "-f", "json", ref, "--cache-dir", self.last, *args, cache=True, **kw)

    def check(self, what, res, want, cached=None):
        """The facts are right; so many layers came from a cache."""
        if not self.c.ok(res.rc == 0, f"{what}: exit 0", str(res)):
            return
        self.c.eq(plain(res.doc), plain(want), f"{what}: the facts are right")
        if cached is not None:
            self.c.eq(res.doc["timing"]["layers_cached"], cached, f"{what}: layers_cached")


def directory(c, lint, t, shared):
    shelf = Shelf(t / "directory")
    shelf.numbered("team/x", "v1", 1, shared[:3])
    image = shelf.images["team/x:v1"]
    n = len(image.layers)
    scan = Machine(c, lint, t, "dir")
    with Serve(shelf) as r:
        asked, ref, place = Asked(r), f"{r.host}/team/x:v1", t / "dir"
        want = lint.facts(ref)
        asked.since()
        res = scan(ref, "--shared-cache", place)
        scan.check("directory, the first machine", res, want, 0)
        c.eq(sorted(d for d in blobs(asked.since()) if d in image.layers), sorted(image.layers), "directory: the first machine pulls every layer once")
        res = scan(ref, "--shared-cache", place)
        scan.check("directory, the second machine", res, want, n)
        requests = asked.since()
        c.eq(blobs(requests), [], "directory: the second machine asks for no blob at all")
        c.ok(requests and all("/manifests/" in p or p == "/v2/" for _, p in requests), "directory: the second machine asks for manifests only", str(requests))
        c.ok(not res.err.strip(), "directory: nothing on stderr", res.err)
        good = {k: v[0] for k, v in tree(place).items()}
        entries = sorted(k for k in good if k.startswith("layers-"))
        configs = sorted(k for k in good if k.startswith("configs-"))
        c.eq((len(entries), len(configs), len(good)), (n, 1, n + 1), "directory: one entry per layer and the configuration")

        def restore():
            shutil.rmtree(place)
            for k, v in good.items():
                (place / k).parent.mkdir(parents=True, exist_ok=True)
                (place / k).write_bytes(v)

        def flipped(at):
            return lambda k, v: v[:at(v)] + bytes([v[at(v)] ^ 1]) + v[at(v) + 1:]

        other = dict(zip(entries, entries[1:] + entries[:1]))
        header = lambda v: v.index(b"\n")
        for what, change in (("cut in the middle", lambda k, v: v[:len(v) // 2]), ("without the last byte", lambda k, v: v[:-1]),
                             ("without the first line", lambda k, v: v[header(v) + 1:]), ("the first line alone", lambda k, v: v[:header(v) + 1]),
                             ("a bit in the middle", flipped(lambda v: (header(v) + len(v)) // 2)), ("the last bit", flipped(lambda v: len(v) - 1)),
                             ("a bit of the first line", flipped(lambda v: header(v) // 2)), ("of another layer", lambda k, v: good[other[k]]),
                             ("of another layer with the own first line", lambda k, v: v[:header(v)] + good[other[k]][header(good[other[k]]):]),
                             ("garbage", lambda k, v: random.Random(k).randbytes(5000)), ("empty", lambda k, v: b""),
                             ("text of a proxy", lambda k, v: b"<html>please log in</html>\n")):
            restore()
            for k in entries:
                (place / k).write_bytes(change(k, good[k]))
            scan.check(f"entries {what}", scan(ref, "--shared-cache", place), want, 0)
            c.ok({k: v[0] for k, v in tree(place).items()} == good, f"entries {what}: they are made again")
        # One of them only: the others count.
        restore()
        (place / entries[1]).write_bytes(good[entries[0]])
        scan.check("one entry of another layer", scan(ref, "--shared-cache", place), want, n - 1)
        for what, data in (("cut", good[configs[0]][:-5]), ("another", good[configs[0]].replace(b"12.0", b"12.9")), ("garbage", b"\0\1\2")):
            restore()
            (place / configs[0]).write_bytes(data)
            scan.check(f"configuration {what}", scan(ref, "--shared-cache", place), want, n)
        restore()
        (place / entries[0]).unlink()
        (place / entries[0]).mkdir()
        scan.check("a directory in place of an entry", scan(ref, "--shared-cache", place), want)
        restore()

        # The same in the machine's own directory.
        mine = scan.last
        for k in list(tree(mine)):
            data = (mine / k).read_bytes()
            (mine / k).write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
        res = lint("scan", "-f", "json", ref, "--cache-dir", mine, "--shared-cache", place, cache=True)
        scan.check("a damaged directory of the machine, the shared one is whole", res, want, n)

        # Keys.
        key, foreign, short = t / "key", t / "foreign", t / "short"
        key.write_text("0123456789abcdef0123\n")
        foreign.write_text("fedcba98765432100123\n")
        short.write_text("short\n")
        signed = t / "signed"
        scan.check("signed, the first machine", scan(ref, "--shared-cache", signed, "--cache-key", key), want, 0)
        kept = tree(signed)
        res = scan(ref, "--shared-cache", signed, "--cache-key", key)
        scan.check("signed, the second machine", res, want, n)
        c.ok(not res.err.strip(), "signed, the second machine: nothing on stderr", res.err)
        scan.check("signed, read without a key", scan(ref, "--shared-cache", signed), want, n)
        for what, where, k in (("unsigned entries, a key", place, key), ("entries of another key", signed, foreign)):
            res = scan(ref, "--shared-cache", where, "--cache-key", k, "--shared-cache-read-only")
            scan.check(what, res, want, 0)
            c.eq(len(notes(res, SIGNED)), 1, f"{what}: one note says so")
            c.ok("0123" not in res.err, f"{what}: no secret is shown", res.err)
        c.ok(tree(signed) == kept, "signed: who has another key and reads only changes nothing")
        # The own directory is trusted: what came from an unsigned place must not count there once a key is asked for.
        mine = t / "mine"
        lint("scan", "-f", "json", ref, "--cache-dir", mine, "--shared-cache", place, cache=True)
        res = lint("scan", "-f", "json", ref, "--cache-dir", mine, "--shared-cache", place, "--cache-key", key, cache=True)
        scan.check("a key, what came unsigned stands in the own directory", res, want)
        refused(c, scan(ref, "--shared-cache", place, "--cache-key", short), "a key of five bytes", ["16"])
        refused(c, scan(ref, "--shared-cache", place, "--cache-key", t / "nosuch"), "no such key", ["nosuch"])
        # In a sweep the note is told once, too.
        for i in range(2, 8):
            shelf.numbered("team/y", f"v{i}", i, shared[:3])
        refs = listed(t / "keys.txt", r.host, shelf.images)
        lint("sweep", refs, "--cache-dir", t / "keys-1", "--shared-cache", place, *HOST, cache=True)
        res = lint("sweep", refs, "--cache-dir", t / "keys-2", "--shared-cache", place, "--cache-key", key, "--shared-cache-read-only", *HOST, cache=True)
        c.ok(len(notes(res, SIGNED)) == 1, "sweep, unsigned entries, a key: one note says so", f"{len(notes(res, SIGNED))} notes")

        # Read-only.
        before = tree(place)
        res = scan(ref, "--shared-cache", place, "--shared-cache-read-only")
        scan.check("read-only", res, want, n)
        empty = t / "empty"
        empty.mkdir()
        for where in (empty, t / "absent"):
            res = scan(ref, "--shared-cache", where, "--shared-cache-read-only")
            scan.check(f"read-only, {where.name}", res, want, 0)
            c.ok(not res.err.strip(), f"read-only, {where.name}: nothing on stderr", res.err)
        c.ok(tree(place) == before and not list(empty.iterdir()) and not (t / "absent").exists(), "read-only: nothing is written")
        res = scan(ref, "--shared-cache", empty, "--no-cache")
        scan.check("--no-cache", res, want, 0)
        c.ok(not list(empty.iterdir()), "--no-cache: nothing is written in the shared place")
        blocked = t / "blocked"
        blocked.write_text("a file\n")
        res = scan(ref, "--shared-cache", blocked)
        scan.check("a file in place of the directory", res, want, 0)
        c.eq(len(notes(res)), 1, "a file in place of the directory: one note")
        refused(c, scan(ref, "--shared-cache", "ftp://host/x"), "a place that is none", ["ftp://host/x"])
    return want


# ------------------------------------------------------------------------------------------------------ a shared store
class Web(Served):
    """A store of objects behind GET and PUT; `answer` may say another status for a method."""

    def __init__(self):
        web = self
        self.objects, self.answer, self.seen, self.lock = {}, {}, [], threading.Lock()

        class Handler(BaseHTTPRequestHandler):
            protocol_version, wbufsize = "HTTP/1.1", 1 << 16

            def log_message(self, *args):
                pass

            def end(self, status, data=b""):
                with web.lock:
                    web.seen.append((self.command, self.path, status))
                self.send_response(status)
                for k, v in (("Content-Length", len(data)), ("Last-Modified", "Thu, 19 Nov 2026 00:00:00 GMT"), ("ETag", f'"{len(data)}"')):
                    self.send_header(k, str(v))
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(data)

            def work(self):
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                path = self.path.split("?")[0]
                status = web.answer.get(self.command)
                if isinstance(status, bytes):
                    return self.end(200, status)
                if status:
                    return self.end(status, b"no")
                if self.command == "PUT":
                    web.objects[path] = body
                    return self.end(201)
                if self.command in ("GET", "HEAD"):
                    return self.end(200, web.objects[path]) if path in web.objects else self.end(404)
                self.end(405)

            do_GET = do_PUT = do_HEAD = do_DELETE = do_MKCOL = do_PROPFIND = work

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.host = f"127.0.0.1:{self.server.server_port}"
        self.url = f"http://{self.host}/facts/of layers"

    def since(self):
        with self.lock:
            out, self.seen = self.seen, []
        return out


def store(c, lint, t, shared):
    shelf = Shelf(t / "store")
    for i in (1, 2, 3, 4):
        shelf.numbered("team/x", f"v{i}", i, shared[:3])
    image = shelf.images["team/x:v1"]
    n = len(image.layers)
    scan = Machine(c, lint, t, "web")
    with Serve(shelf) as r, Web() as web:
        asked, ref = Asked(r), f"{r.host}/team/x:v1"
        want, demo_facts = lint.facts(ref), lint.facts(f"oci:{REPO}/fixtures/images/demo")
        scan.check("store, the first machine", scan(ref, "--shared-cache", web.url), want, 0)
        c.eq(sum(m == "PUT" for m, _, _ in web.since()), n + 1, "store: the first machine writes every layer and the configuration")
        asked.since()
        res = scan(ref, "--shared-cache", web.url)
        scan.check("store, the second machine", res, want, n)
        c.ok(not res.err.strip(), "store, the second machine: nothing on stderr", res.err)
        c.eq(blobs(asked.since()), [], "store: the second machine asks for no blob at all")
        c.ok(all(m == "GET" and s == 200 for m, _, s in web.since()), "store: the second machine only reads")
        kept = dict(web.objects)

        def told(what, res, cached):
            scan.check(what, res, demo_facts if "at the same time" in what else want, cached)
            c.ok(len(notes(res)) == 1, f"{what}: one note", f"{len(notes(res))} notes: {res.err[:700]}")
            c.ok(all(len(l) < 400 for l in notes(res)), f"{what}: the note is short", res.err[:500])

        for what, answer, objects, cached in (("store, 403 on PUT", {"PUT": 403}, {}, 0), ("store, 403 on GET and PUT", {"GET": 403, "PUT": 403}, kept, 0)):
            web.objects, web.answer = dict(objects), answer
            web.since()
            told(what, scan(ref, "--shared-cache", web.url), cached)
            c.ok(web.objects == objects, f"{what}: nothing is written")
        web.objects, web.answer = {}, {"GET": b"<html>please log in</html>"}
        res = scan(ref, "--shared-cache", web.url)
        scan.check("store that answers with a page", res, want, 0)
        web.objects, web.answer = dict(kept), {"PUT": 403}
        res = scan(ref, "--shared-cache", web.url)
        scan.check("store that may be read only, all is there", res, want, n)
        c.ok(not notes(res), "store that may be read only, all is there: no note", res.err)
        # v2 has a layer that cannot be kept there; v1 stands there whole.
        refs = listed(t / "store.txt", r.host, ["team/x:v2", "team/x:v1"])
        res = lint("sweep", refs, "--cache-dir", t / "web-sweep", "--shared-cache", web.url, "-j", 1, *HOST, cache=True)
        found = {d["reference"]: d for d in map(json.loads, res.out.splitlines()[1:])}
        c.ok(res.rc in (0, 1) and len(notes(res)) == 1, "sweep, store that may be read only: one note", str(res))
        own(c, r.host, {k: v for k, v in shelf.images.items() if k in ("team/x:v2", "team/x:v1")}, found, "sweep, store that may be read only")
        c.eq(found.get(f"{r.host}/team/x:v1", {}).get("layers_cached"), n, "sweep, store that may be read only: what stands there is used after a refused PUT")
        # One note in a sweep of several at a time.
        refs = listed(t / "store.txt", r.host, shelf.images)
        web.objects, web.answer = {}, {"PUT": 403}
        res = lint("sweep", refs, "--cache-dir", t / "web-sweep-2", "--shared-cache", web.url, *HOST, cache=True)
        c.ok(res.rc == 1 and len(notes(res)) == 1, "sweep, 403 on PUT: one note", f"exit {res.rc}, {len(notes(res))} notes")
        web.answer = {"GET": 403, "PUT": 403}
        res = scan(f"oci:{REPO}/fixtures/images/demo", "--shared-cache", web.url)
        told("store, 403, layers at the same time", res, 0)
        secret = f"http://anna:s3cret@{web.host}/facts?sig=s3cret"
        res = scan(ref, "--shared-cache", secret)
        c.ok("s3cret" not in res.err and "s3cret" not in res.out, "store, 403: no secret of the URL is shown", res.err[:400])
        # These two wait and try again, so they wait at the same time.
        with Web() as gone:
            down = gone.url
        web.objects, web.answer = dict(kept), {"GET": 500, "PUT": 500}
        with ThreadPoolExecutor(2) as pool:
            for what, res in zip(("store, 500 on everything", "store that is down"), pool.map(lambda url: scan(ref, "--shared-cache", url), (web.url, down))):
                told(what, res, 0)
        c.ok(web.objects == kept, "store, 500 on everything: nothing is written")


# ---------------------------------------------------------------------------------------------- beside the image
class PullOnly(Served):
    """A registry behind which nobody may write."""

    def __init__(self, upstream):
        host, port = upstream.removeprefix("http://").split(":")

        class Handler(BaseHTTPRequestHandler):
            protocol_version, wbufsize = "HTTP/1.1", 1 << 16

            def log_message(self, *args):
                pass

            def work(self):
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                status, headers, data = 403, [("Content-Type", "application/json")], b'{"errors":[{"code":"DENIED","message":"pull only"}]}'
                if self.command in ("GET", "HEAD"):
                    con = http.client.HTTPConnection(host, int(port))
                    con.request(self.command, self.path, body or None, {k: v for k, v in self.headers.items() if k.lower() != "connection"})
                    res = con.getresponse()
                    status, headers, data = res.status, res.getheaders(), res.read()
                    con.close()
                self.send_response(status)
                length = str(len(data))
                for k, v in headers:
                    if k.lower() == "content-length" and self.command == "HEAD":
                        length = v
                    if k.lower() not in ("content-length", "transfer-encoding", "connection", "date", "server"):
                        self.send_header(k, v)
                self.send_header("Content-Length", length)
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(data)

            do_GET = do_HEAD = do_PUT = do_POST = do_PATCH = do_DELETE = work

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.host = f"127.0.0.1:{self.server.server_port}"


def registry(c, lint, t, shared):
    scan = Machine(c, lint, t, "ref")
    key = t / "registry-key"
    key.write_text("0123456789abcdef0123\n")
    fresh = lambda name: numbered(Shelf(t / name), shared)

    def numbered(shelf, shared):
        for i in range(1, 7):
            shelf.numbered("team/x", f"v{i}", i, shared[:3])
        return shelf

    for what, options in (("referrers", ["--referrers"]), ("referrers, no API", [])):
        shelf = fresh(f"ref-shelf-{len(options)}")
        image = shelf.images["team/x:v1"]
        n = len(image.layers)
        log = t / f"ref-{len(options)}.log"
        with ExitStack() as stack:
            f = r = stack.enter_context(Serve(shelf))
            requests_of = Asked(r).since
            if options:
                f = stack.enter_context(Faults(r.url, *options, log=log))
                requests_of = lambda: logged(log)
            ref = f"{f.host}/team/x:v1"
            want = lint.facts(ref)
            requests_of()
            res = scan(ref, "--shared-cache", "referrers")
            first = scan.last
            scan.check(f"{what}, the first machine", res, want, 0)
            c.ok(not res.err.strip(), f"{what}, the first machine: nothing on stderr", res.err)
            c.eq(sorted(d for d in blobs(requests_of()) if d in image.layers), sorted(image.layers), f"{what}: the first machine pulls every layer once")
            res = scan(ref, "--shared-cache", "referrers")
            scan.check(f"{what}, the second machine", res, want, n)
            c.ok(not res.err.strip(), f"{what}, the second machine: nothing on stderr", res.err)
            requests = requests_of()
            c.eq([d for d in blobs(requests) if d in image.layers], [], f"{what}: the second machine asks for no layer")
            c.eq([m for m, _ in requests if m not in ("GET", "HEAD")], [], f"{what}: the second machine writes nothing")
            # The first machine once more: it has everything itself and finds that the registry has it, too.
            res = lint("scan", "-f", "json", ref, "--cache-dir", first, "--shared-cache", "referrers", cache=True)
            scan.check(f"{what}, the first machine again", res, want, n)
            requests = requests_of()
            c.eq([m for m, _ in requests if m not in ("GET", "HEAD")], [], f"{what}, the first machine again: it writes nothing")
            # A key: what others wrote is not used.
            res = scan(ref, "--shared-cache", "referrers", "--cache-key", key, "--shared-cache-read-only")
            scan.check(f"{what}, unsigned entries, a key", res, want, 0)
            c.eq(len(notes(res, SIGNED)), 1, f"{what}, unsigned entries, a key: one note says so")
            requests = requests_of()
            c.eq([m for m, _ in requests if m not in ("GET", "HEAD")], [], f"{what}, read-only: nothing is written")
            scan(ref, "--shared-cache", "referrers", "--cache-key", key)
            scan.check(f"{what}, signed entries", scan(ref, "--shared-cache", "referrers", "--cache-key", key), want, n)
            # Several images, that others then need no layer of.
            refs = listed(t / "ref.txt", f.host, shelf.images)
            sweep = lambda i: lint("sweep", refs, "--cache-dir", t / f"ref-{len(options)}-sweep-{i}", "--shared-cache", "referrers", *HOST, cache=True)
            one = sweep(1)
            requests_of()
            two = sweep(2)
            by = [{d["reference"]: d for d in map(json.loads, x.out.splitlines()[1:])} for x in (one, two)]
            own(c, f.host, shelf.images, by[1], f"{what}, sweep")
            c.ok(one.rc == two.rc == 1 and not one.err.strip() + two.err.strip(), f"{what}, sweep: exit 1, nothing on stderr", f"{one} / {two}")
            layers = {d for i in shelf.images.values() for d in i.layers}
            c.eq([d for d in blobs(requests_of()) if d in layers], [], f"{what}, sweep: the second machine asks for no layer")
            # Artifacts beside images are no images.
            res = lint("sweep", f"catalog:{f.host}", "--cache-dir", t / "ref-catalog", *HOST, cache=True)
            names = {json.loads(l)["reference"] for l in res.out.splitlines()[1:]}
            c.eq(sorted(names), sorted(refs.read_text().split()), f"{what}: the catalog has the images and not what stands beside them")
            c.ok(res.rc == 1, f"{what}: the catalog's exit status is that of its images", str(res))
            # An artifact with entries that are none.
            name = forged(f.host, "team/x", image, [p.name for p in first.glob("layers-v*")])
            requests_of()
            res = scan(ref, "--shared-cache", "referrers")
            scan.check(f"{what}, entries of garbage", res, want)
            c.ok(any(name in p for _, p in requests_of()), f"{what}, entries of garbage: they were looked at")

    # Who may only pull.
    shelf = fresh("ref-pull")
    image = shelf.images["team/x:v1"]
    with Serve(shelf, "--auth", "anna:s3cret") as r, PullOnly(r.url) as gate:
        login, word = ["--username", "anna", "--password-stdin"], {"stdin": "s3cret\n"}
        pull_only(c, lint, t, scan, shelf, gate.host, login, word, "403 on every write")
    with Serve(shelf, "--read-only") as r:
        pull_only(c, lint, t, scan, shelf, r.host, [], {}, "a registry that is read-only")
    layout = f"oci:{REPO}/fixtures/images/demo"
    res = scan(layout, "--shared-cache", "referrers")
    c.ok(res.rc == 0, "referrers, an image of no registry: exit 0", str(res))
    refused(c, lint("scan", layout, "--shared-cache", "referrers", "--offline", cache=True), "referrers with --offline", ["--offline"])


def forged(host, repository, image, places):
    """An artifact beside the image whose entries are garbage."""
    con = http.client.HTTPConnection(host)

    def send(method, url, body=b"", kind="application/octet-stream"):
        con.request(method, url, body, {"Content-Type": kind})
        res = con.getresponse()
        res.read()
        return res.headers.get("Location") or ""

    def blob(data):
        at = re.sub(r"^https?://[^/]+", "", send("POST", f"/v2/{repository}/blobs/uploads/"))
        send("PUT", at + ("&" if "?" in at else "?") + "digest=" + digest(data), data)
        return {"digest": digest(data), "size": len(data)}

    parts = []
    for place in places:
        for d in image.layers:
            title = {"org.opencontainers.image.title": f"{place}/sha256-{d[7:]}.full"}
            parts.append({"mediaType": "application/vnd.cudalint.layer-facts.v1", **blob(f"cudalint-facts garbage {d}".encode()), "annotations": title})
    con.request("GET", f"/v2/{repository}/manifests/{image.digest}", headers={"Accept": MANIFEST})
    size = len(con.getresponse().read())
    kind = "application/vnd.cudalint.layers.v1"
    doc = json.dumps({"schemaVersion": 2, "mediaType": MANIFEST, "artifactType": kind,
                      "config": {"mediaType": "application/vnd.oci.empty.v1+json", **blob(b"{}")}, "layers": parts,
                      "subject": {"mediaType": MANIFEST, "digest": image.digest, "size": size}}).encode()
    send("PUT", f"/v2/{repository}/manifests/{digest(doc)}", doc, MANIFEST)
    # Where the registry keeps no list, the tag does.
    tag = f"/v2/{repository}/manifests/{image.digest.replace(':', '-')}"
    con.request("GET", tag, headers={"Accept": "application/vnd.oci.image.index.v1+json"})
    res = con.getresponse()
    index = res.read()
    if res.status == 200:
        index = json.loads(index)
        index["manifests"].append({"mediaType": MANIFEST, "digest": digest(doc), "size": len(doc), "artifactType": kind})
        send("PUT", tag, json.dumps(index).encode(), "application/vnd.oci.image.index.v1+json")
    con.close()
    return digest(doc)


def pull_only(c, lint, t, scan, shelf, host, login, word, what):
    ref = f"{host}/team/x:v1"
    want = lint.facts(ref, *login, **word)
    res = scan(ref, "--shared-cache", "referrers", *login, **word)
    scan.check(f"pull only, {what}", res, want, 0)
    c.ok(len(notes(res, "nothing more is kept")) == 1 and len(res.err.strip().splitlines()) == 1, f"pull only, {what}: one note", str(res))
    c.ok("s3cret" not in res.err, f"pull only, {what}: no secret is shown", res.err)
    res = scan(ref, "--shared-cache", "referrers", "--shared-cache-read-only", *login, **word)
    scan.check(f"pull only, {what}, --shared-cache-read-only", res, want, 0)
    c.ok(not res.err.strip(), f"pull only, {what}, --shared-cache-read-only: no note", res.err)
    check = lint("check", ref, "--cache-dir", t / f"pull-{scan.n}", "--shared-cache", "referrers", *login, *HOST, cache=True, **word)
    c.ok(check.rc == 0, f"pull only, {what}: the exit status of check stays", str(check))
    refs = listed(t / "pull.txt", host, shelf.images)
    res = lint("sweep", refs, "--cache-dir", t / f"pull-sweep-{scan.n}", "--shared-cache", "referrers", *login, *HOST, cache=True, **word)
    own(c, host, shelf.images, {d["reference"]: d for d in map(json.loads, res.out.splitlines()[1:])}, f"pull only, {what}, sweep")
    c.ok(res.rc == 1, f"pull only, {what}, sweep: the exit status stays", str(res))
    c.ok(len(notes(res)) == 1, f"pull only, {what}, sweep: one note, not one per image", f"{len(notes(res))} notes for {len(shelf.images)} images")


# --------------------------------------------------------------------------------------------------------------- upkeep
def upkeep(c, lint, t, shared):
    shelf = Shelf(t / "upkeep")
    for i in range(1, 7):
        shelf.numbered("team/x", f"v{i}", i, shared[:2])
    with Serve(shelf) as r:
        refs = listed(t / "upkeep.txt", r.host, shelf.images)
        mine, place = t / "upkeep-mine", t / "upkeep-shared"
        lint("sweep", refs, "--cache-dir", mine, "--shared-cache", place, *HOST, cache=True)

        def size(*args):
            res = lint("cache", "size", *args, cache=True)
            m = re.match(r"(\d+) entr(?:y|ies), (\S+ \S+)\n$", res.out)
            c.ok(res.rc == 0 and m, "cache size " + str(args[0]) + ": N entries, SIZE", str(res) + res.out)
            return int(m[1]) if m else None

        held = lambda d: {k: v for k, v in tree(d).items() if k != "README"}
        n = len(shelf.images)
        for what, args, d in (("own", ["--cache-dir", mine], mine), ("shared", ["--shared", place], place)):
            c.eq(len(held(d)), 2 + n + n, f"upkeep, {what}: an entry per distinct layer and per configuration")
            c.eq(size(*args), len(held(d)), f"upkeep, {what}: cache size counts the files")
        (place / "README").write_text("ours\n")
        # The oldest goes first.
        names = sorted(held(place))
        for i, k in enumerate(names):
            os.utime(place / k, (1_790_000_000 + i, 1_790_000_000 + i))
        kept = held(place)
        old = str(4000 * 366)
        res = lint("cache", "prune", "--shared", place, "--max-size", "1KB", "--older-than", old, cache=True)
        left = held(place)
        c.ok(res.rc == 0 and res.out.startswith(f"removed {len(kept) - len(left)} entr"), "upkeep: prune says what it removed", str(res) + res.out)
        c.ok(0 < len(left) and sum(len(v[0]) for v in left.values()) <= 1000, "upkeep: at most 1 KB is left", str({k: len(v[0]) for k, v in left.items()}))
        c.eq(sorted(left), names[len(names) - len(left):], "upkeep: the oldest went first")
        c.ok((place / "README").read_text() == "ours\n", "upkeep: what is not ours stays")
        c.eq(size("--shared", place), len(left), "upkeep: cache size after prune")
        want = lint.facts(f"{r.host}/team/x:v1")
        scan = Machine(c, lint, t, "upkeep")
        scan.check("upkeep, after prune", scan(f"{r.host}/team/x:v1", "--shared-cache", place), want)
        res = lint("cache", "prune", "--shared", place, "--older-than", 30, cache=True)
        c.ok(res.rc == 0 and not any(k in held(place) for k in left), "upkeep: prune removes what is older than 30 days", str(res))
        res = lint("cache", "clear", "--shared", place, cache=True)
        c.ok(res.rc == 0 and not held(place) and (place / "README").exists(), "upkeep: clear leaves nothing of ours", str(res))
        c.eq(size("--shared", place), 0, "upkeep: cache size of an empty place")
        c.eq(size("--shared", t / "upkeep-absent"), 0, "upkeep: cache size of a place that is not there")
        c.ok(not (t / "upkeep-absent").exists(), "upkeep: a look does not make the place")
        refused(c, lint("cache", "prune", "--shared", "referrers", cache=True), "upkeep: prune of registries", ["object store"])
        refused(c, lint("cache", "prune", "--shared", place, "--max-size", "lots", cache=True), "upkeep: a size that is none", ["lots"])
        refused(c, lint("cache", "size", "--shared", "http://127.0.0.1:1/x", cache=True), "upkeep: size of a store that is down", ["127.0.0.1:1"], 3)

        # A small directory costs time, no answer.
        small = t / "upkeep-small"
        file = t / "upkeep.ndjson"
        res = lint("sweep", refs, "-o", file, "--cache-dir", small, "--cache-max-size", "1KB", *HOST, cache=True)
        own(c, r.host, shelf.images, rows(file), "--cache-max-size 1KB")
        c.ok(res.rc == 1 and sum(len(v[0]) for v in tree(small).values()) <= 1000, "--cache-max-size 1KB is kept", str(res))
        res = lint("cache", "prune", "--cache-dir", mine, "--max-size", "2KB", cache=True)
        c.ok(res.rc == 0 and sum(len(v[0]) for v in tree(mine).values()) <= 2000, "cache prune --max-size on the own directory", str(res))
        refused(c, lint("sweep", refs, "--cache-max-size", "lots", *HOST, cache=True), "--cache-max-size lots", ["lots"])


def main():
    a = arguments(__doc__, ("--only", {"nargs": "+", "help": "only these parts (killed needs thousand)"}))
    need("docker-registry", "htpasswd", "openssl")
    c = Checks("sweep.py", a.verbose)
    lint = Cudalint(a.binary, a.cache / "home", c)
    todo = lambda name: not a.only or name in a.only
    # Tens of thousands of small files: a disk takes longer to remove them than the tests take.
    memory = Path("/dev/shm")
    roomy = memory.is_dir() and os.access(memory, os.W_OK) and shutil.disk_usage(memory).free > 500_000_000
    with tempfile.TemporaryDirectory(dir=memory if roomy else None) as tmp:
        t = Path(tmp)
        shared = bases()
        c.ok(all(len(l.data) > 1_000_000 for l in shared), "every base layer is larger than 1 MB")
        def timed(part, *more):
            if todo(part.__name__):
                t0 = time.time()
                part(c, lint, t, *more)
                if a.verbose:
                    c.note(f"{part.__name__}: {time.time() - t0:.1f} s")

        if any(map(todo, ("thousand", "killed", "workers"))):
            shelf = Shelf(t / "shelf")
            for n in range(IMAGES):
                i = n % REPOSITORIES
                shelf.numbered(f"team{i % 4}/app{i}", f"v{n}", n, shared)
            with Serve(shelf) as r:
                asked = Asked(r)
                timed(thousand, r, shelf, asked)
                timed(killed, r, shelf, asked)
                timed(workers, r, shelf)
        for part in (faulty, lists, results, directory, store, registry, upkeep):
            timed(part, shared)
        for p in Serve.ending:
            p.wait()
    c.end()


if __name__ == "__main__":
    main()
