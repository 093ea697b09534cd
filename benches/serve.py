#!/usr/bin/env python3
"""A running server under admission reviews -> latencies, memory and what happens beyond its capacity.

  serve.py [--binary PATH] [--load PATH] [--cache DIR] [--rate N] [--seconds N] [--minutes N] [--plain] [--runs DIR]

  warm      reviews at --rate (2000 a second) for --seconds, over TLS, on facts that are known: two real images and one that fails, 200 nodes of
            six kinds, pods with their own command lines, variables and selectors, pods without GPU, Deployments
  ceiling   rates above, until less is answered than was asked
  overload  every review names an image that nobody has looked at: answered by policy
  soak      --minutes at a quarter of the rate: memory at the beginning and at the end

The load generator (examples/admission_load) runs on the same cores, and its requests are due at fixed times.  Needs docker-registry, skopeo and openssl.
With --runs one record with the machine goes to DIR/serve-DATE.json.
"""
import argparse
import copy
import datetime
import json
import os
import platform
import random
import re
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

HERE = Path(__file__).resolve().parent
REPO = HERE.parent
sys.dont_write_bytecode = True
sys.path.insert(0, str(REPO / "tests/real"))
from common import Registry, build_corpus, environment, push

STATIC = REPO / f"target/{platform.machine()}-unknown-linux-gnu/release/cudalint"
IMAGES = ["dev1-cudart122-base", "dev3-bitsandbytes", "dev4-layers"]
KINDS = [("535.104.05", "NVIDIA-H100-80GB-HBM3", "9", "0"), ("550.107.02", "NVIDIA-A100-SXM4-80GB", "8", "0"),
         ("470.82.01", "Tesla-T4", "7", "5"), ("570.86.15", "NVIDIA-L40S", "8", "9"), ("580.65.06", "NVIDIA-B200", "10", "0"),
         ("535.183.01", "NVIDIA-A10", "8", "6")]


def nodes(count):
    out = []
    for n in range(count):
        driver, product, major, minor = KINDS[n % len(KINDS)]
        a, b, c = driver.split(".")
        labels = {"kubernetes.io/hostname": f"n{n}", "kubernetes.io/arch": "amd64", "nvidia.com/gpu.product": product, "pool": product.lower(),
                  "nvidia.com/gpu.compute.major": major, "nvidia.com/gpu.compute.minor": minor, "nvidia.com/gpu.count": "8",
                  "nvidia.com/cuda.driver-version.major": a, "nvidia.com/cuda.driver-version.minor": b,
                  "nvidia.com/cuda.driver-version.revision": c, "nvidia.com/cuda.driver-version.full": driver, "nvidia.com/gpu.present": "true"}
        out.append({"kind": "Node", "metadata": {"name": f"n{n}", "labels": labels}, "spec": {"taints": [{"key": "nvidia.com/gpu", "effect": "NoSchedule"}]},
                    "status": {"allocatable": {"nvidia.com/gpu": "8"}, "capacity": {"nvidia.com/gpu": "8"}, "nodeInfo": {"architecture": "amd64"}}})
    return {"kind": "List", "items": out}


def review(n, image, rng):
    """A pod as controllers make it, some 4 kB."""
    env = [{"name": f"SETTING_{i}", "value": f"value-{n}-{i}"} for i in range(20)] + [{"name": "RANK", "value": str(n)}, {"name": "NCCL_DEBUG", "value": "INFO"}]
    container = {"name": "main", "image": image, "command": ["python", "train.py", "--seed", str(n)], "env": env,
                 "resources": {"limits": {"nvidia.com/gpu": "1", "cpu": "8", "memory": "64Gi"}, "requests": {"nvidia.com/gpu": "1", "cpu": "8", "memory": "64Gi"}},
                 "volumeMounts": [{"name": f"v{i}", "mountPath": f"/mnt/{i}"} for i in range(8)]}
    sidecar = {"name": "logs", "image": "registry.example/logs:1", "resources": {"requests": {"cpu": "100m"}}}
    spec = {"containers": [container, sidecar], "tolerations": [{"key": "nvidia.com/gpu", "operator": "Exists"}],
            "volumes": [{"name": f"v{i}", "emptyDir": {}} for i in range(8)]}
    if n % 3 == 0:
        spec["nodeSelector"] = {"pool": rng.choice(KINDS)[1].lower()}
    if n % 10 == 7:
        del container["resources"]["limits"]["nvidia.com/gpu"], container["resources"]["requests"]["nvidia.com/gpu"]
    meta = {"generateName": f"train-{n}-", "namespace": "ml", "labels": {f"l{i}": str(n) for i in range(10)}}
    kind, obj = {"group": "", "version": "v1", "kind": "Pod"}, {"metadata": meta, "spec": spec}
    if n % 10 == 3:
        kind, obj = {"group": "apps", "version": "v1", "kind": "Deployment"}, {"metadata": meta, "spec": {"template": {"metadata": meta, "spec": spec}}}
    return {"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": {
        "uid": f"uid-{n}", "kind": kind, "name": "", "namespace": "ml", "operation": "CREATE", "object": obj, "oldObject": None, "dryRun": False}}


def write_reviews(directory, images, count, seed=1):
    rng = random.Random(seed)
    directory.mkdir()
    for n in range(count):
        (directory / f"{n:05}.json").write_text(json.dumps(review(n, images[n % len(images)], rng)))
    return directory


class Server:
    def __init__(self, binary, work, registry, plain):
        with socket.socket() as s:
            s.bind(("127.0.0.1", 0))
            self.address = f"127.0.0.1:{s.getsockname()[1]}"
        (work / "nodes.json").write_text(json.dumps(nodes(200)))
        cmd = [binary, "serve", "--listen", self.address, "--nodes", work / "nodes.json", "--allow-registry", registry, "--mode", "enforce",
               "--cache-dir", work / "cache", "--state-dir", work / "state", "--log-level", "error", "--tag-age", "5m"]
        self.ca = None
        if not plain:
            self.ca = work / "tls.crt"
            subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2", "-keyout", work / "tls.key",
                            "-out", self.ca, "-subj", "/CN=bench", "-addext", "subjectAltName=IP:127.0.0.1", "-addext", "basicConstraints=critical,CA:FALSE"],
                           check=True, stderr=subprocess.DEVNULL)
            cmd += ["--tls-cert", self.ca, "--tls-key", work / "tls.key"]
        self.p = subprocess.Popen([str(c) for c in cmd], env=environment(work / "home"))
        self.url = f"http{'' if plain else 's'}://{self.address}"
        for _ in range(100):
            try:
                self.get("/readyz")
                return
            except OSError:
                time.sleep(0.1)
        raise RuntimeError("the server did not start")

    def get(self, path, data=None):
        import ssl
        context = ssl.create_default_context(cafile=str(self.ca)) if self.ca else None
        return urllib.request.urlopen(urllib.request.Request(self.url + path, data), context=context, timeout=30).read()

    def rss(self):
        return int(re.search(r"VmRSS:\s+(\d+)", Path(f"/proc/{self.p.pid}/status").read_text())[1]) / 1024

    def cpu(self):
        fields = Path(f"/proc/{self.p.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def load(self, program, reviews, rate, seconds, connections=64):
        cmd = [program, "--to", self.address, "--reviews", reviews, "--rate", rate, "--seconds", seconds, "--connections", connections]
        cmd += ["--ca", self.ca] if self.ca else []
        before, t0 = self.cpu(), time.time()
        p = subprocess.run([str(c) for c in cmd], stdout=subprocess.PIPE, check=True)
        r = json.loads(p.stdout)
        r |= {"asked_per_second": rate, "server_cores": round((self.cpu() - before) / (time.time() - t0), 2), "rss_mb": round(self.rss())}
        return r


def show(name, r):
    ms = r["milliseconds"]
    print(f"{name:10} asked {r['asked_per_second']:>6}/s  answered {r['per_second']:>7.0f}/s  p50 {ms['p50']} p99 {ms['p99']} p99.9 {ms['p999']} max {ms['max']} ms  "
          f"server {r['server_cores']} cores  {r['rss_mb']} MB  failures {r['failures']}  {r['verdicts']}", flush=True)


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--binary", type=Path, default=STATIC)
    ap.add_argument("--load", type=Path, default=REPO / "target/release/examples/admission_load", help="cargo build --release --example admission_load")
    ap.add_argument("--cache", type=Path, default=REPO / "target/real-cache")
    ap.add_argument("--rate", type=int, default=2000)
    ap.add_argument("--seconds", type=int, default=30)
    ap.add_argument("--minutes", type=float, default=0)
    ap.add_argument("--plain", action="store_true", help="without TLS")
    ap.add_argument("--runs", type=Path)
    a = ap.parse_args()
    corpus = build_corpus(a.cache, *IMAGES)
    record = {"date": datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%dT%H%M%S"), "machine": platform.machine(), "cores": os.cpu_count(), "tls": not a.plain}
    with tempfile.TemporaryDirectory() as td, Registry() as registry:
        work = Path(td)
        names = []
        for name in IMAGES:
            push(f"oci:{corpus / name}", f"docker://{registry.host}/ml/{name}:v1", "--dest-tls-verify=false")
            names.append(f"{registry.host}/ml/{name}:v1")
        warm = write_reviews(work / "warm", names, 600)
        cold = write_reviews(work / "cold", [f"{registry.host}/cold/{n}:v1" for n in range(3000)], 3000)
        server = Server(a.binary, work, registry.host, a.plain)
        try:
            begin = time.time()
            for name in names:
                body = json.dumps(review(0, name, random.Random(1))).encode()
                while json.loads(server.get("/v1/admit", body))["response"].get("auditAnnotations", {}).get("verdict") == "cold":
                    time.sleep(0.2)
            print(f"images known after {time.time() - begin:.1f} s")
            server.load(a.load, warm, 500, 3)
            record["warm"] = server.load(a.load, warm, a.rate, a.seconds)
            show("warm", record["warm"])
            record["ceiling"] = []
            for rate in (2, 3, 4, 6):
                r = server.load(a.load, warm, a.rate * rate, 8, 128)
                record["ceiling"].append(r)
                show("ceiling", r)
                if r["per_second"] < 0.95 * a.rate * rate:
                    break
            record["overload"] = server.load(a.load, cold, a.rate, 10, 512)
            show("overload", record["overload"])
            record["after"] = server.load(a.load, warm, a.rate, 8)
            show("after", record["after"])
            if a.minutes:
                samples = []
                end = time.time() + a.minutes * 60
                while time.time() < end:
                    r = server.load(a.load, warm, a.rate // 4, min(60, a.minutes * 60))
                    samples.append(r["rss_mb"])
                    show("soak", r)
                record["soak"] = {"minutes": a.minutes, "rss_mb": samples}
        finally:
            server.p.terminate()
            record["exit"] = server.p.wait(30)
    if a.runs:
        a.runs.mkdir(exist_ok=True)
        (a.runs / f"serve-{record['date']}.json").write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
