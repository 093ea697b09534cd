#!/usr/bin/env python3
"""The static program -> its size and what its start costs, beside /bin/true on the same machine.

  startup.py [--binary PATH] [--facts FILE] [--repeat N] [--runs DIR]

  true       /bin/true: what starting any program costs here
  --version  the start of cudalint by itself
  check      the judgment of a facts document: the start, the catalog and all rules

Each is started N times, in turn, so that all meet the same load; figures are medians.  Wall time is from before the
start until the program is reaped, CPU is user plus system time by wait4(2).  With --runs one record with the machine
goes to DIR/startup-DATE.json.  Fails if a program ends with another status than 0.
"""
import argparse
import datetime
import hashlib
import json
import os
import platform
import re
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
REPO = HERE.parent
sys.dont_write_bytecode = True
sys.path.insert(0, str(REPO / "tests/real"))
from common import environment

STATIC = REPO / f"target/{platform.machine()}-unknown-linux-gnu/release/cudalint"
TARGET = ["--host-driver", "550", "--gpu", "h100", "--no-cache", "--no-config", "--fail-on", "never"]


def start(cmd, env, null):
    """One run: wall seconds, CPU seconds, exit status."""
    cmd = [str(x) for x in cmd]
    files = [(os.POSIX_SPAWN_DUP2, null, fd) for fd in (0, 1, 2)]
    t0 = time.perf_counter()
    pid = os.posix_spawn(cmd[0], cmd, env, file_actions=files)
    _, status, u = os.wait4(pid, 0)
    wall = time.perf_counter() - t0
    return wall, u.ru_utime + u.ru_stime, os.waitstatus_to_exitcode(status)


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--binary", type=Path, default=STATIC, help="the program (default: what packaging/build.sh makes)")
    ap.add_argument("--facts", type=Path, default=REPO / "fixtures/facts/torch-2.8.0.json", help="the document that is judged")
    ap.add_argument("--repeat", type=int, default=200)
    ap.add_argument("--runs", type=Path, help="where a record is written")
    a = ap.parse_args()
    if not os.access(a.binary, os.X_OK):
        sys.exit(f"{a.binary} is not there; packaging/build.sh makes it")
    a.binary, a.facts = a.binary.resolve(), a.facts.resolve()
    commands = {"true": ["/bin/true"], "--version": [a.binary, "--version"],
                "check": [a.binary, "check", "--facts", a.facts, *TARGET]}
    runs, fails = {name: [] for name in commands}, []
    with tempfile.TemporaryDirectory(prefix="cudalint-bench.") as t:
        env = environment(Path(t) / "home")
        null = os.open(os.devnull, os.O_RDWR)
        for turn in range(a.repeat + 3):
            for name, cmd in commands.items():
                run = start(cmd, env, null)
                if turn >= 3:       # the first ones fill the page cache
                    runs[name].append(run)
        os.close(null)
        for name, cmd in commands.items():
            wrong = [run[2] for run in runs[name] if run[2]]
            if wrong:
                said = subprocess.run([str(x) for x in cmd], env=env, capture_output=True, text=True).stderr.strip()
                fails.append(f"{name}: exit {wrong[0]} in {len(wrong)} of {a.repeat} runs: {said[:200]}")
        version = subprocess.run([a.binary, "--version"], env=env, capture_output=True, text=True).stdout.split()[-1:]
    rows = []
    for name in commands:
        wall, cpu, _ = ([1000 * x for x in column] for column in zip(*runs[name]))
        tenths = statistics.quantiles(wall, n=10) if len(wall) > 1 else wall * 9
        figures = {"wall_ms": statistics.median(wall), "wall_ms_p10": tenths[0], "wall_ms_p90": tenths[8],
                   "cpu_ms": statistics.median(cpu)}
        rows.append({"name": name, **{n: round(x, 3) for n, x in figures.items()}})
    for r in rows:
        r["wall_to_true"] = round(r["wall_ms"] / rows[0]["wall_ms"], 2)
    cpu = re.search(r"model name\s*:\s*(.*)", Path("/proc/cpuinfo").read_text())
    data = a.binary.read_bytes()
    result = {"date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
              "machine": {"cpu": cpu[1] if cpu else platform.machine(), "cores": os.cpu_count(), "load": os.getloadavg()[0],
                          "kernel": platform.release()},
              "binary": {"version": version[0] if version else None, "bytes": len(data),
                         "sha256": hashlib.sha256(data).hexdigest()},
              "facts": a.facts.name, "repeat": a.repeat, "rows": rows}
    written = ""
    if a.runs:
        a.runs.mkdir(parents=True, exist_ok=True)
        target = a.runs / f"startup-{result['date'].replace(':', '').removesuffix('+0000')}.json"
        target.write_text(json.dumps(result, indent=1) + "\n")
        written = f", written to {target.name}"
    m = result["machine"]
    print(f"{len(data) / 1e6:.1f} MB; {m['cores']} cores, load {m['load']:.1f}; medians of {a.repeat}")
    print(f"{'':12}{'wall ms':>9}{'10 %':>9}{'90 %':>9}{'CPU ms':>9}{'wall/true':>11}")
    for r in rows:
        print(f"{r['name']:12}{r['wall_ms']:9.2f}{r['wall_ms_p10']:9.2f}{r['wall_ms_p90']:9.2f}{r['cpu_ms']:9.2f}"
              f"{r['wall_to_true']:11.2f}")
    for f in fails:
        print("FAIL", f)
    print(f"startup.py: {len(rows)} checks, {len(fails)} failures{written}")
    sys.exit(1 if fails else 0)


main()
