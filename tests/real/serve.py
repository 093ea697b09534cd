#!/usr/bin/env python3
"""`cudalint serve` by requests: what API servers, policy engines, Harbor, registries and people send, and every answer it may give.

  serve.py [--binary PATH] [--cache DIR] [-v] [--only CASE ...]

Images are the demonstration image with other settings, built by tests/tools/mkimage.py, in a real registry; nodes are of several kinds,
with taints, labels and two architectures.  What a pod should be told is worked out here a second time: the candidate nodes by
`places`, a reading of the scheduler of its own, and the verdict on each node by `cudalint check` with a targets file.

  samples        fixtures/admission: every workload kind, what asks for a GPU, overrides, updates; verdicts, words, warnings, annotations
  affinity       the proposed affinity selects exactly the nodes that run the pod, for many placements
  modes          audit, warn, enforce, and per namespace
  doubts         unknown, cold and failed, each with allow, warn and deny; the answer within ?timeout= while a registry hangs
  dry            dry runs start no look; a cold image is known a little later; tags that move are seen
  malformed      bodies that are no reviews, other versions and kinds, 10 MB; paths and methods that are not there
  check          /v1/check and /v1/facts against the command line; pods of every kind as Kyverno sends them
  gatekeeper     the external data provider, over TLS 1.3
  harbor         the scanner adapter against fixtures/serve/harbor-openapi.yaml and against what Harbor itself checks
  clients        tokens in every form, repositories, reports of others
  notifications  fixtures/serve: every sender; a registry that notifies by itself; statements attached once, without a loop
  operation      health, metrics, a configuration file and variables with every option, wrong ones, logs without secrets
  openapi        every answer seen above, and those to generated requests (schemathesis), against docs/openapi.json
"""
import base64
import copy
import hashlib
import http.client
import io
import json
import os
import re
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

sys.dont_write_bytecode = True
sys.path.insert(0, str(Path(__file__).resolve().parent))
from common import Checks, Cudalint, REPO, Registry, Served, arguments, environment, mkimage, need, push, short, venv

PYPI = ["schemathesis==4.32.5", "jsonschema[format]==4.26.0", "prometheus_client==0.26.0", "pyyaml==6.0.3"]
SAMPLES, EVENTS = REPO / "fixtures/admission", REPO / "fixtures/serve"
OPENAPI = REPO / "docs/openapi.json"
AS_OF = ["--as-of", "2026-06-01"]
OCI = "application/vnd.oci.image."
MANIFEST, INDEX = OCI + "manifest.v1+json", OCI + "index.v1+json"
# Secrets that are sent to servers somewhere below; none may appear in any log.
SECRETS = {n: f"secret-{n}-{uuid.uuid4().hex}" for n in ("registry", "harbor", "other", "ci", "bearer", "typo")}


# ------------------------------------------------------------------------------------------------------------ images
def digest(data):
    return "sha256:" + hashlib.sha256(data).hexdigest()


def demo():
    """The demonstration image: the tars of its layers and its configuration."""
    layout = REPO / "fixtures/images/demo"
    read = lambda d: (layout / "blobs/sha256" / d[7:]).read_bytes()
    manifest = json.loads(read(json.loads((layout / "index.json").read_text())["manifests"][0]["digest"]))
    return [layout / "blobs/sha256" / l["digest"][7:] for l in manifest["layers"]], json.loads(read(manifest["config"]["digest"]))["config"]


def for_arm(tar, out):
    """The same tar with its ELF files for arm64."""
    with tarfile.open(tar) as i, tarfile.open(out, "w") as o:
        for m in i.getmembers():
            data = i.extractfile(m).read() if m.isreg() else b""
            if data[:4] == b"\x7fELF":
                data = data[:18] + b"\xb7\x00" + data[20:]
            o.addfile(m, io.BytesIO(data))
    return out


class Images:
    """Layouts of images, made from the demonstration image: CUDA 12.4, machine code for sm_80, sm_86 and sm_90."""

    def __init__(self, dir):
        self.dir, self.make = Path(dir), mkimage()
        self.dir.mkdir()
        self.layers, self.config = demo()
        self.arm = [for_arm(l, self.dir / f"arm{n}.tar") for n, l in enumerate(self.layers)]

    def build(self, name, salt=None, env=None, entrypoint=None, cmd=None, files=(), layers=None, platform="linux/amd64", append=False, tag="v1"):
        base = dict(e.split("=", 1) for e in self.config["Env"]) if layers is None else {}
        base.update(env or {})
        items = [["text", "srv/name", salt or name], *files]
        spec = {"tag": tag, "platform": platform, "env": [f"{k}={v}" for k, v in base.items()], "labels": {},
                "entrypoint": self.config["Entrypoint"] if entrypoint is None else entrypoint, "cmd": cmd or [],
                "layers": [{"items": [["tar", str(l)]], "compress": "gzip:1"} for l in (self.layers if layers is None else layers)]
                + [{"items": items, "compress": "gzip:1"}]}
        self.make.build(str(self.dir / name), spec, append=append)
        return self.dir / name

    def all(self):
        code = REPO / "fixtures/code"
        lib = lambda n: ["file", f"usr/lib/x86_64-linux-gnu/{n}", str(code / n)]
        # As in NVIDIA's framework images: compat libraries that only the entry point puts on the path.
        compat = "usr/local/cuda-12.4/compat/lib.real/libcuda.so"
        stub = self.member("usr/lib/x86_64-linux-gnu/libdl.so.2")
        ngc = [["file", compat + ".550.54.15", str(stub)], ["symlink", compat + ".1", "libcuda.so.550.54.15"],
               ["text", "opt/nvidia/nvidia_entrypoint.sh", "#!/bin/sh\nexec \"$@\"\n"]]
        self.build("runs")
        self.build("broken", files=[lib("libdemo_old.so")])
        self.build("strict", env={"NVIDIA_REQUIRE_CUDA": "cuda>=99.0"})
        self.build("strict-off", salt="strict", env={"NVIDIA_REQUIRE_CUDA": "cuda>=99.0", "NVIDIA_DISABLE_REQUIRE": "true"})
        self.build("ngc", files=ngc, entrypoint=["/opt/nvidia/nvidia_entrypoint.sh"], cmd=["/opt/demo/train"])
        self.build("ngc-command", files=ngc, entrypoint=["/opt/demo/train"])
        self.build("cpu", layers=[], entrypoint=["/bin/true"])
        for n in ("dry", "cold", "warm", "moved", "pushed", "hook", "lent"):
            self.build(n)
        env = {k: v for k, v in (e.split("=", 1) for e in self.config["Env"])}
        self.build("multi", tag="v1@amd64")
        self.build("multi", layers=self.arm, env=env | {"NVARCH": "sbsa"}, entrypoint=self.config["Entrypoint"], platform="linux/arm64", append=True,
                   tag="v1@arm64",
                   files=[["file", "usr/lib/aarch64-linux-gnu/libdemo_old.so", str(self.arm_file(code / "libdemo_old.so"))]])
        self.make.Layout(str(self.dir / "multi"), append=True).group("v1")

    def member(self, path):
        """A file of the demonstration image, as a file."""
        out = self.dir / Path(path).name
        with tarfile.open(self.layers[0]) as t:
            out.write_bytes(t.extractfile(path).read())
        out.chmod(0o755)
        return out

    def arm_file(self, file):
        data = Path(file).read_bytes()
        out = self.dir / ("arm-" + Path(file).name)
        out.write_bytes(data[:18] + b"\xb7\x00" + data[20:])
        return out


# ------------------------------------------------------------------------------------------------------------- nodes
def node(name, product, capability, driver, cuda, resources, arch="amd64", taints=(), labels=None, bare=False, spec=None):
    """A node as `kubectl get nodes -o json` shows it, with the labels of GPU Feature Discovery."""
    p, d, out = "nvidia.com/", driver.split(".") + [""], {}
    if not bare:
        for old, new in (("driver", "driver-version"), ("runtime", "runtime-version")):
            parts = d[:3] if old == "driver" else [*cuda.split("."), None]
            for a, b, v in zip(("major", "minor", "rev"), ("major", "minor", "revision"), parts):
                if v is not None:
                    out |= {f"{p}cuda.{old}.{a}": v, f"{p}cuda.{new}.{b}": v}
        major, minor = capability.split(".")
        out |= {p + "cuda.driver-version.full": driver, p + "cuda.runtime-version.full": cuda, p + "gpu.compute.major": major,
                p + "gpu.compute.minor": minor,
                p + "gpu.product": product, p + "gpu.count": "8", p + "gpu.replicas": "1", p + "gpu.memory": "40960",
                p + "gpu.sharing-strategy": "none",
                p + "mig.capable": "false"}
    if resources:
        out[p + "gpu.present"] = "true"
    out |= {"kubernetes.io/arch": arch, "kubernetes.io/os": "linux", "kubernetes.io/hostname": name, **(labels or {})}
    taint = lambda t: dict(zip(("key", "value", "effect"), t))
    return {"apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "uid": f"uid-{name}", "resourceVersion": "7", "labels": out},
            "spec": {**(spec or {}), **({"taints": [taint(t) for t in taints]} if taints else {})},
            "status": {"allocatable": {"cpu": "32", "memory": "128Gi", **resources}, "capacity": {"cpu": "32", **resources},
                       "conditions": [{"type": "Ready", "status": "True"}],
                       "nodeInfo": {"architecture": arch, "operatingSystem": "linux", "osImage": "Ubuntu 22.04.5 LTS",
                                    "kernelVersion": "5.15.0-125-generic",
                                    "containerRuntimeVersion": "containerd://1.7.24", "kubeletVersion": "v1.31.4"}}}


def node_list():
    gpu = [("nvidia.com/gpu", "present", "NoSchedule")]
    n = {"nvidia.com/gpu": "8"}
    arm = [*gpu, ("kubernetes.io/arch", "arm64", "NoSchedule")]
    return [node("t4-a", "Tesla-T4", "7.5", "535.104.05", "12.2", n, taints=gpu),
            node("t4-b", "Tesla-T4", "7.5", "535.104.05", "12.2", n, taints=gpu),
            node("h100-a", "NVIDIA-H100-80GB-HBM3", "9.0", "535.104.05", "12.2", n, taints=gpu),
            node("h100-b", "NVIDIA-H100-80GB-HBM3", "9.0", "535.104.05", "12.2", n, taints=[*gpu, ("spot", "", "PreferNoSchedule")]),
            node("h100-new", "NVIDIA-H100-80GB-HBM3", "9.0", "550.90.07", "12.4", n, taints=[*gpu, ("dedicated", "research", "NoSchedule")]),
            node("a100-a", "NVIDIA-A100-SXM4-40GB", "8.0", "535.183.06", "12.2", n, taints=gpu),
            node("a100-old", "NVIDIA-A100-SXM4-40GB", "8.0", "470.182.03", "11.4", n, taints=gpu, labels={"pool": "old"}),
            node("a100-mig", "NVIDIA-A100-SXM4-40GB", "8.0", "550.90.07", "12.4", {"nvidia.com/mig-1g.5gb": "7"}, taints=gpu,
                 labels={"nvidia.com/mig.strategy": "mixed", "nvidia.com/mig.capable": "true",
                         "nvidia.com/mig-1g.5gb.product": "NVIDIA-A100-SXM4-40GB-MIG-1g.5gb"}),
            node("rtx-shared", "NVIDIA-GeForce-RTX-4090-SHARED", "8.9", "550.90.07", "12.4", {"nvidia.com/gpu.shared": "4"}, taints=gpu,
                 labels={"nvidia.com/gpu.sharing-strategy": "time-slicing", "nvidia.com/gpu.replicas": "4"}),
            node("h100-cordoned", "NVIDIA-H100-80GB-HBM3", "9.0", "535.104.05", "12.2", n,
                 taints=[*gpu, ("node.kubernetes.io/unschedulable", "", "NoSchedule")],
                 spec={"unschedulable": True}, labels={"pool": "cordoned"}),
            node("arm-a", "NVIDIA-GH200-480GB", "9.0", "550.90.07", "12.4", {"nvidia.com/gpu": "1"}, arch="arm64", taints=arm),
            node("new-a", "", "", "", "", n, taints=[*gpu, ("example.org/new", "", "NoSchedule")], labels={"pool": "new"}, bare=True),
            node("cpu-a", "", "", "", "", {}, bare=True)]


GPU_RESOURCE = re.compile(r"nvidia\.com/(gpu(\.\S+)?|mig-\S+)$")


def holds(e, value):
    """One condition of node affinity on a label's value, None where it is missing."""
    op, values = e["operator"], e.get("values", [])
    number = lambda t: int(t) if t is not None and re.fullmatch(r"[+-]?\d+", t) else None
    if op in ("Gt", "Lt"):
        a, b = number(value), number(values[0])
        return len(values) == 1 and a is not None and b is not None and (a > b if op == "Gt" else a < b)
    return {"In": value is not None and value in values, "NotIn": value not in values, "Exists": value is not None, "DoesNotExist": value is None}[op]


def selected(expressions, nodes):
    return {n["metadata"]["name"] for n in nodes if all(holds(e, n["metadata"]["labels"].get(e["key"])) for e in expressions)}


def places(spec, nodes):
    """Names of the nodes with a GPU that the scheduler could choose for a pod, now or when they are well again."""
    out = []
    once, init, kept = {}, {}, {}
    for c in spec.get("containers", []):
        for k, v in wants(c).items():
            once[k] = once.get(k, 0) + v
    for c in spec.get("initContainers", []):
        keeps = c.get("restartPolicy") == "Always"
        for k, v in wants(c).items():
            if keeps:
                kept[k] = kept.get(k, 0) + v
            else:
                init[k] = max(init.get(k, 0), v + kept.get(k, 0))
    need_ = {k: max(once.get(k, 0) + kept.get(k, 0), init.get(k, 0)) for k in {*once, *kept, *init}}
    terms = spec.get("affinity", {}).get("nodeAffinity", {}).get("requiredDuringSchedulingIgnoredDuringExecution", {}).get("nodeSelectorTerms")
    for n in nodes:
        name, labels, have = n["metadata"]["name"], n["metadata"]["labels"], n["status"]["allocatable"]
        term = lambda t: (t.get("matchExpressions") or t.get("matchFields")) and all(holds(e, labels.get(e["key"]))
                                                                                     for e in t.get("matchExpressions", [])) \
            and all(holds(e, name) for e in t.get("matchFields", []))
        fits = any(GPU_RESOURCE.match(k) for k in have) and spec.get("nodeName") in (None, name)
        fits = fits and all(labels.get(k) == v for k, v in spec.get("nodeSelector", {}).items()) and (terms is None or any(term(t) for t in terms))
        for t in n["spec"].get("taints", []):
            hard = t["effect"] == "NoExecute" or t["effect"] == "NoSchedule" and not spec.get("nodeName")
            fits = fits and (not hard or t["key"].startswith("node.kubernetes.io/") or any(tolerates(o, t) for o in spec.get("tolerations", [])))
        if fits and all(int(have.get(k, 0)) >= v for k, v in need_.items()):
            out.append(name)
    return out


def wants(container):
    r = container.get("resources", {})
    return {k: int(v) for k, v in {**r.get("requests", {}), **r.get("limits", {})}.items() if GPU_RESOURCE.match(k)}


def tolerates(o, t):
    same = not o.get("key") or o["key"] == t["key"]
    same = same and (not o.get("effect") or o["effect"] == t["effect"])
    return same and (o.get("operator") == "Exists" or o.get("value", "") == t["value"])


TOOLKIT = {"container-toolkit": "1.17.8", "runtime-mode": "legacy"}
GPUS = {"Tesla-T4": "t4", "NVIDIA-H100-80GB-HBM3": "h100", "NVIDIA-A100-SXM4-40GB": "a100", "NVIDIA-GeForce-RTX-4090-SHARED": "rtx4090",
        "NVIDIA-GH200-480GB": "gh200"}


def hosts(nodes):
    """The same nodes as a targets file, one host each, by what a person would write."""
    out = []
    for n in nodes:
        l = n["metadata"]["labels"]
        if "nvidia.com/gpu.product" in l:
            rows = {"name": n["metadata"]["name"], "driver": l["nvidia.com/cuda.driver-version.full"], "gpus": [GPUS[l["nvidia.com/gpu.product"]]],
                    "arch": l["kubernetes.io/arch"], **{k.replace("-", "_"): v for k, v in TOOLKIT.items()}}
            out.append("[[target]]\n" + "".join(f"{k} = {json.dumps(v)}\n" for k, v in rows.items()))
    return "\n".join(out)


# ------------------------------------------------------------------------------------------------------------ server
SEEN = []


class Answer:
    def __init__(self, status, headers, body, seconds):
        self.status, self.headers, self.body, self.seconds = status, headers, body, seconds
        self.type = headers.get("Content-Type") or ""

    @property
    def doc(self):
        return json.loads(self.body)

    def __str__(self):
        return f"{self.status} {short(self.body.decode(errors='replace'), 400)}"


class Serve:
    """`cudalint serve` on a free port, with a directory of its own; ended, and looked at, when the block ends."""

    def __init__(self, c, a, dir, *options, nodes=None, allow="127.0.0.1:*", tls=None, log="debug", env=None, bare=False):
        self.c, self.dir, self.tls, self.env = c, Path(dir), tls, env or {}
        self.dir.mkdir(parents=True)
        cmd = [str(a.binary), "serve"]
        if not bare:
            cmd += ["--listen", "127.0.0.1:0", "--cache-dir", str(self.dir / "cache"), "--state-dir", str(self.dir / "state"), "--log-level", log,
                    *AS_OF]
            cmd += [*(["--allow-registry", allow] if allow else []), *(["--nodes", str(nodes)] if nodes else [])]
            cmd += ["--tls-cert", str(tls.cert), "--tls-key", str(tls.key)] if tls else []
        self.cmd, self.log_file, self.name = cmd + [str(o) for o in options], self.dir / "log", Path(dir).name

    def __enter__(self):
        with open(self.log_file, "wb") as f:
            self.p = subprocess.Popen(self.cmd, stdin=subprocess.DEVNULL, stdout=f, stderr=f, env={**environment(self.dir / "home"), **self.env})
        until = time.time() + 60
        while time.time() < until and self.p.poll() is None:
            found = re.search(r'"message":"listening","address":"[^"]+:(\d+)"', self.log_file.read_text(errors="replace"))
            if found:
                self.port = int(found[1])
                return self
            time.sleep(0.02)
        raise RuntimeError(f"{self.name} did not start: {short(self.log_file.read_text(errors='replace')[-600:])}")

    def __exit__(self, *_):
        if self.p.poll() is None:
            self.p.send_signal(signal.SIGTERM)
            try:
                self.p.wait(30)
            except subprocess.TimeoutExpired:
                self.p.kill()
                self.p.wait()
        self.c.eq(self.p.returncode, 0, f"{self.name}: exit status after SIGTERM")
        logged(self.c, self.name, self.log_file.read_text(errors="replace"))

    def connect(self, timeout):
        if not self.tls:
            return http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)
        context = ssl.create_default_context(cafile=self.tls.ca)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        if self.tls.client:
            context.load_cert_chain(*self.tls.client)
        return http.client.HTTPSConnection("localhost", self.port, timeout=timeout, context=context)

    def ask(self, method, path, body=None, timeout=60, **headers):
        headers = {k.replace("_", "-"): v for k, v in headers.items()}
        if isinstance(body, (dict, list)):
            body = json.dumps(body).encode()
            headers.setdefault("Content-Type", "application/json")
        con, t0 = self.connect(timeout), time.time()
        con.request(method, path, body, headers)
        r = con.getresponse()
        out = Answer(r.status, r.headers, r.read(), time.time() - t0)
        con.close()
        SEEN.append((method, path, out.status, out.type, out.body.decode(errors="replace")))
        return out

    def admit(self, review, timeout="30s"):
        return self.ask("POST", f"/v1/admit?timeout={timeout}", review)

    def metric(self, name, **labels):
        """The sum over the lines of a metric with these labels."""
        total = 0.0
        for l in self.ask("GET", "/metrics").body.decode().splitlines():
            if re.match(re.escape(name) + r"[ {]", l) and all(f'{k}="{v}"' in l for k, v in labels.items()):
                total += float(l.rsplit(" ", 1)[1])
        return total

    def check(self, image, token=None, **more):
        return self.ask("POST", "/v1/check", {"image": image, "wait": 20, **more}, **({"Authorization": f"Bearer {token}"} if token else {}))

    def logs(self, word):
        return [l for l in self.log_file.read_text(errors="replace").splitlines() if word in l]


def logged(c, name, text):
    """Every line of a log is JSON with time, level and message; no panic, no secret."""
    wrong, lines = [], [l for l in text.splitlines() if l.strip()]
    for l in lines:
        try:
            doc = json.loads(l)
            if not {"timestamp", "level", "message"} <= set(doc):
                wrong.append(l)
        except ValueError:
            wrong.append(l)
    c.ok(lines and not wrong, f"{name}: {len(lines)} log lines are JSON with timestamp, level and message", short(str(wrong[:2]), 300))
    c.ok("panicked" not in text and "fault of cudalint" not in text, f"{name}: no panic in the log")
    found = [n for n, s in SECRETS.items() if s in text or base64.b64encode(s.encode()).decode().rstrip("=") in text]
    c.ok(not found, f"{name}: no secret in the log", str(found))


class Tls:
    def __init__(self, registry, client=False):
        self.ca, self.cert, self.key = registry.ca, registry.path / "server.crt", registry.path / "server.key"
        self.client = (registry.cert, registry.key) if client else None


def wait_for(what, seconds=60, pause=0.05):
    end = time.time() + seconds
    while time.time() < end:
        got = what()
        if got:
            return got
        time.sleep(pause)
    return what()


# ----------------------------------------------------------------------------------------------------------- samples
class Known:
    """What the command line says of every image on every node."""

    def __init__(self, lint, images, nodes, dir, told=None):
        self.lint, self.images, self.nodes, self.dir = lint, images, {n["metadata"]["name"]: n for n in nodes}, Path(dir)
        self.told, self.file = {} if told is None else told, self.dir / "hosts.toml"
        if told is None:
            self.file.write_text(hosts(nodes))

    def among(self, names):
        """The same of some of the nodes."""
        return Known(self.lint, self.images, [n for k, n in self.nodes.items() if k in names], self.dir, self.told)

    def verdicts(self, image, arch="amd64"):
        """Node name -> verdict."""
        if (image, arch) not in self.told:
            r = self.lint("check", f"oci:{self.images.dir / image}", "--platform", f"linux/{arch}", "--targets", self.file, "-f", "json", *AS_OF,
                          cache=True)
            self.told[image, arch] = {t["name"]: t["verdict"] for t in r.doc["targets"]} if r.rc in (0, 1) else {}
        return self.told[image, arch]

    def on(self, image, name):
        """The verdict of the image's child for that node's architecture; an image that has none for it fails there."""
        labels = self.nodes[name]["metadata"]["labels"]
        if "nvidia.com/gpu.product" not in labels:
            return "unknown"
        return self.verdicts(image, labels["kubernetes.io/arch"] if image == "multi" else "amd64")[name]


RANK = ["runs", "no-gpu-code", "degraded", "unknown", "fails"]
GOOD = {"runs", "no-gpu-code", "degraded"}


def profile(n):
    """What the server calls a node's kind of host."""
    l = n["metadata"]["labels"]
    return l["nvidia.com/cuda.driver-version.full"] + "/" + l["nvidia.com/gpu.product"].replace("-SHARED", "").replace("-", " ")


def sample(name, registry, digests, namespace=None):
    text = (SAMPLES / f"{name}.json").read_text().replace("REGISTRY", registry).replace("BROKEN_DIGEST", digests["broken"])
    review = json.loads(text)
    if namespace:
        review["request"]["namespace"] = namespace
        for o in (review["request"]["object"], review["request"]["oldObject"]):
            if o:
                o["metadata"]["namespace"] = namespace
    return review


def proper(c, r, review, what):
    """What the API server demands of an answer; the response, or None."""
    if not c.ok(r.status == 200 and r.type.split(";")[0] == "application/json", f"{what}: 200 with JSON", f"{r} {r.type}"):
        return None
    doc = r.doc
    a = doc.get("response", {})
    c.eq((doc.get("apiVersion"), doc.get("kind"), a.get("uid")), ("admission.k8s.io/v1", "AdmissionReview", review["request"]["uid"]),
         f"{what}: version, kind and uid")
    c.ok(set(doc) == {"apiVersion", "kind", "response"} and set(a) <= {"uid", "allowed", "status", "warnings", "auditAnnotations"},
         f"{what}: only known fields, no patch", str(sorted(a)))
    warnings, notes = a.get("warnings", []), a.get("auditAnnotations", {})
    bad = [w for w in warnings if len(w) > 120 or not w or re.search(r"[\x00-\x1f\x7f-\x9f]", w) or w.lower().startswith("warning:")]
    c.ok(not bad and len(set(warnings)) == len(warnings) and sum(map(len, warnings)) <= 4096, f"{what}: warnings are short single lines, each once",
         str(bad or warnings))
    bad = [k for k, v in notes.items() if not re.fullmatch(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?", k) or not isinstance(v, str)
           or re.search(r"[\x00-\x1f]", v)]
    c.ok(not bad, f"{what}: annotations have valid keys and single lines", str(bad))
    s = a.get("status")
    if a.get("allowed"):
        c.ok(s is None, f"{what}: no status where it is let in", str(s))
    else:
        c.ok(s and s.get("code") == 403 and s.get("reason") == "Forbidden" and s.get("message"), f"{what}: a refusal says 403, Forbidden and why",
             str(s))
    return a


def event(name, **placeholders):
    """A sample of fixtures/serve with its placeholders replaced."""
    text = (EVENTS / f"{name}.json").read_text()
    for placeholder, value in placeholders.items():
        text = text.replace(placeholder, value)
    return text


def state(response):
    return response.get("auditAnnotations", {}).get("verdict", "not-asked")


WORKLOADS = ["deployment", "statefulset", "daemonset", "replicaset", "replicationcontroller", "job", "cronjob", "podtemplate"]
# What a sample is told.
EXPECT = {
    "pod": "runs", "pod-broken": "fails", "pod-no-gpu": "not-asked", "pod-partly": "partly", "generate-name": "fails", "digest": "fails",
    **dict.fromkeys(WORKLOADS, "fails"), "custom-resource": "not-asked", "init-container": "fails", "native-sidecar": "fails",
    "ephemeral-container": "runs", "ephemeral-container-broken": "fails", "command": "fails", "args": "runs", "env": "runs", "env-from": "fails",
    "mig": "runs", "shared-gpu": "runs", "dra-claim": "runs", "runtime-class": "fails", "cdi-annotation": "fails", "node-name": "fails",
    "affinity-terms": "runs", "affinity-nowhere": "unknown", "tolerations": "runs", "no-toleration": "unknown", "dry-run": "cold",
    "update-unchanged": "not-asked", "update-toleration": "not-asked", "update-one-image": "fails", "terminating": "not-asked", "delete": "not-asked",
    "image-volume": "runs",
    "unlabelled": "unknown", "two-architectures": "partly", "one-architecture": "partly", "cpu-image": "no-gpu-code", "not-allowed": "unknown",
    "absent": "failed",
}
# The image that is what the pod makes of its own.
LIKE = {"command": {"ngc": "ngc-command"}, "env": {"strict": "strict-off"}}
# The containers that count where not all do.
COUNT = {"ephemeral-container": {"debugger"}, "ephemeral-container-broken": {"debugger"}, "update-one-image": {"new"}}
NOT_SEEN = {"env-from": "main/TOKEN,main/envFrom", "dra-claim": "main/claim gpu"}


def spec_of(o):
    for way in (("spec", "jobTemplate", "spec", "template", "spec"), ("spec", "template", "spec"), ("template", "spec"), ("spec",)):
        at = o
        for key in way:
            at = at.get(key) if isinstance(at, dict) else None
        if at and "containers" in at:
            return at


def expected(known, name, review):
    """Node -> verdict of the pod there, from the command line."""
    spec = spec_of(review["request"]["object"] or {})
    if spec is None:
        return {}
    all_ = [*spec.get("initContainers", []), *spec["containers"], *spec.get("ephemeralContainers", [])]
    ask = [c for c in all_ if wants(c) or c.get("resources", {}).get("claims") or name in ("runtime-class", "cdi-annotation")
           or c["name"] == "debugger"]
    ask = [c for c in ask if name not in COUNT or c["name"] in COUNT[name]]
    image = lambda c: re.search(r"/([a-z-]+)[:@]", c["image"])[1]
    like = lambda i: LIKE.get(name, {}).get(i, i)
    return {n: max((known.on(like(image(c)), n) for c in ask), key=RANK.index) for n in places(spec, known.nodes.values())}


def samples(c, s, known, registry, digests):
    files = {p.stem for p in SAMPLES.glob("*.json")}
    c.eq(files, set(EXPECT), "samples: every file has what is expected of it")
    for name in sorted(files):
        review = sample(name, registry, digests)
        want, what = EXPECT[name], f"sample {name}"
        a = proper(c, s.admit(review), review, what)
        if a is None or not c.eq(state(a), want, f"{what}: verdict"):
            continue
        is_pod = review["request"]["kind"]["kind"] == "Pod"
        c.eq(a["allowed"], want != "fails" or not is_pod, f"{what}: allowed")
        notes, warnings = a.get("auditAnnotations", {}), a.get("warnings", [])
        text = a.get("status", {}).get("message", "")
        c.ok(bool(warnings) == (want not in ("runs", "not-asked")), f"{what}: warnings where something is to be said", str(warnings))
        c.eq(notes.get("not-seen"), NOT_SEEN.get(name), f"{what}: values that are not in the pod")
        if want in ("not-asked", "cold", "failed", "unknown"):
            continue
        rows = expected(known, name, review)
        told = dict(p.rsplit("=", 1) for p in notes["profiles"].split(", "))
        c.eq(told, {profile(known.nodes[n]): v for n, v in rows.items()}, f"{what}: verdicts by kind of node")
        if want == "fails" and is_pod:
            names = COUNT.get(name, {"init-container": {"warm-up"}, "native-sidecar": {"watch"}}.get(name, {"main"}))
            c.ok(all(f"container {n} (" in text for n in names), f"{what}: the message names {names}", text)
            c.ok("container old" not in text and f"{len(rows)} nodes" in text or len(rows) == 1 and "one node" in text, f"{what}: and how many nodes",
                 text)
            c.ok(re.search(r"CUL\d{3}", text) and "fix:" in text, f"{what}: and a rule and a remedy", text)
            c.ok(re.fullmatch(r"CUL\d{3}(,CUL\d{3})*", notes.get("rules", "")), f"{what}: rules in the annotations", str(notes))
        if want == "partly":
            fits = selected(parsed(notes.get("affinity", "")), [known.nodes[n] for n in rows])
            c.eq(fits, {n for n, v in rows.items() if v in GOOD}, f"{what}: the affinity {notes.get('affinity')} selects the nodes that run it")
            c.ok(any("fix: nodeAffinity" in w for w in warnings), f"{what}: the affinity is a warning", str(warnings))
            bad = {profile(known.nodes[n]) for n, v in rows.items() if v not in GOOD}
            c.ok(all(any(p in w for w in warnings) for p in bad), f"{what}: a warning for each kind of node that does not run it",
                 f"{bad} {warnings}")


def parsed(text):
    """`KEY OPERATOR A,B and …` -> conditions."""
    parts = [p.split(" ", 2) for p in text.split(" and ") if p]
    return [{"key": p[0], "operator": p[1], "values": p[2].split(",") if len(p) > 2 else []} for p in parts]


# ---------------------------------------------------------------------------------------------------------- affinity
def asking(image, name="train", namespace="ml", dry=False, **spec):
    """The review of a pod that asks for one GPU."""
    containers = [{"name": "main", "image": image, "resources": {"limits": {"nvidia.com/gpu": "1"}}}] if isinstance(image, str) else image
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": namespace}, "spec": {"containers": containers, **spec}}
    kind, resource = {"group": "", "version": "v1", "kind": "Pod"}, {"group": "", "version": "v1", "resource": "pods"}
    return {"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": {
        "uid": str(uuid.uuid4()), "kind": kind, "resource": resource, "name": name, "namespace": namespace, "operation": "CREATE", "userInfo": {},
        "object": pod, "oldObject": None, "dryRun": dry, "options": {"apiVersion": "meta.k8s.io/v1", "kind": "CreateOptions"}}}


def affinity(c, s, known, registry):
    """Pods that may land on 60 sets of nodes: what is proposed is asked of the labels by `selected`."""
    import random
    draw, names, kinds = random.Random(7), [n for n, v in known.nodes.items() if "nvidia.com/gpu" in v["status"]["allocatable"]], {}
    for i in range(60):
        image = ["runs", "strict", "ngc", "multi"][i % 4]
        chosen = draw.sample(names, draw.randint(1, 6))
        terms = [{"matchFields": [{"key": "metadata.name", "operator": "In", "values": [n]}]} for n in chosen]
        review = asking(f"{registry}/ml/{image}:v1", dry=True, tolerations=[{"operator": "Exists"}],
                        affinity={"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms}}})
        rows = {n: known.on(image, n) for n in places(review["request"]["object"]["spec"], known.nodes.values())}
        c.eq(set(rows), set(chosen), f"affinity {i}: candidates")
        good, what = {n for n, v in rows.items() if v in GOOD}, f"affinity {i}: {image} on {', '.join(sorted(chosen))}"
        r = s.admit(review)
        a = proper(c, r, review, what)
        want = ("runs" if good == set(rows) else "partly") if good else "fails" if set(rows.values()) == {"fails"} else None
        if a is None or not c.ok(state(a) == want or want is None and state(a) in ("unknown", "failed"), f"{what}: verdict {want}", str(a)):
            continue
        kinds[want] = kinds.get(want, 0) + 1
        if want != "partly":
            c.ok("affinity" not in a["auditAnnotations"], f"{what}: no affinity where none helps")
            continue
        found = parsed(a["auditAnnotations"].get("affinity", ""))
        c.eq(selected(found, [known.nodes[n] for n in rows]) if found else None, good,
             f"{what}: {a['auditAnnotations'].get('affinity')} selects exactly the good nodes")
        upper = [e for e in found if e["key"].startswith("nvidia.com/cuda.driver-version") and e["operator"] == "Lt"]
        c.ok(not upper, f"{what}: no upper bound for drivers, which every update would cross", str(found))
        whole = [w for w in a["warnings"] if "fix: nodeAffinity" in w]
        c.ok(whole and not whole[0].endswith("…"), f"{what}: the affinity is told whole", str(whole))
        j = s.ask("POST", "/v1/check", {"pod": review["request"]["object"], "namespace": "ml"}).doc
        c.eq(j["affinity"], found, f"{what}: /v1/check proposes the same")
    c.ok(kinds.get("partly", 0) > 15 and kinds.get("runs", 0) > 3 and kinds.get("fails", 0) > 3, "affinity: the draw has all kinds", str(kinds))


# ------------------------------------------------------------------------------------------------------------- modes
def modes(c, s, registry, digests):
    for mode in ("enforce", "warn", "audit"):
        namespace = {"enforce": "ml", "warn": "warn-a", "audit": "audit-a"}[mode]
        for name, refused in (("pod-broken", True), ("pod-partly", False), ("deployment", False), ("pod", False), ("cpu-image", False),
                              ("absent", False)):
            review = sample(name, registry, digests, namespace)
            what = f"mode {mode}: {name}"
            a = proper(c, s.admit(review), review, what)
            if a is None:
                continue
            c.eq((state(a), a["auditAnnotations"]["mode"]), (EXPECT[name], mode), f"{what}: verdict and mode in the annotations")
            c.eq(a["allowed"], not (refused and mode == "enforce"), f"{what}: allowed")
            c.eq(bool(a.get("warnings")), mode != "audit" and name != "pod", f"{what}: warned")
    n = s.metric("cudalint_admission_decisions_total", verdict="fails", allowed="true", mode="audit")
    c.ok(n >= 2, "modes: decisions are counted by verdict, mode and answer", str(n))


def elsewhere(c, s, image, what, token=None):
    """A pod that a selector keeps on nodes that do not run it."""
    c.eq(s.check(image, token, platform="linux/amd64").status, 200, f"{what}: the image is known")
    a = s.admit(asking(image, nodeSelector={"nvidia.com/gpu.product": "Tesla-T4"}, tolerations=[{"operator": "Exists"}])).doc["response"]
    text = a.get("status", {}).get("message", "")
    c.ok("it would run on" in text and "NVIDIA H100" in text and "H100" in a["auditAnnotations"].get("elsewhere", ""),
         f"{what}: a refusal says where else the pod would run", text)


def platforms(c, s):
    """Images for amd64 alone were named to a server whose nodes have two architectures."""
    c.ok(wait_for(lambda: s.metric("cudalint_queue_length") == 0, 5),
         "platforms: nothing waits for an image of an architecture that it does not have", f"{s.metric('cudalint_queue_length'):.0f} wait")


class Silent:
    """A registry that takes connections and says nothing."""

    def __enter__(self):
        self.socket = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.held = []
        self.host = f"127.0.0.1:{self.socket.getsockname()[1]}"
        threading.Thread(target=self.accept, daemon=True).start()
        return self

    def accept(self):
        try:
            while True:
                self.held.append(self.socket.accept()[0])
        except OSError:
            pass

    def __exit__(self, *_):
        self.socket.close()
        for s in self.held:
            s.close()


DOUBTS = {"a": {"unknown": "allow", "cold": "warn", "failed": "deny"}, "b": {"unknown": "warn", "cold": "deny", "failed": "allow"},
          "c": {"unknown": "deny", "cold": "allow", "failed": "warn"}}


def doubts(c, servers, registry, digests, silent):
    def one(letter):
        s = servers[letter]
        runs, policy = f"{registry}/ml/runs:v1", DOUBTS[letter]
        c.ok(s.check(runs).status == 200, f"doubts {letter}: the image is known")
        reviews = {"unknown": sample("affinity-nowhere", registry, digests), "failed": sample("absent", registry, digests),
                   "cold": asking(f"{silent}/ml/train:v1")}
        several = [{"name": f"c{i}", "image": f"{silent}/ml/other{i}:v1", "resources": {"limits": {"nvidia.com/gpu": "1"}}} for i in range(4)]
        for kind, review in [*reviews.items(), ("cold", asking(several))]:
            what = f"doubts: {kind} with {policy[kind]}"
            r = s.admit(review, "2s")
            a = proper(c, r, review, what)
            if a is None:
                continue
            c.eq(state(a), kind, f"{what}: verdict")
            c.eq((a["allowed"], bool(a.get("warnings"))), {"allow": (True, False), "warn": (True, True), "deny": (False, True)}[policy[kind]],
                 f"{what}: let in, warned")
            c.ok(r.seconds < 2, f"{what}: answered within ?timeout=2s, after {r.seconds:.2f} s")
            words = {"unknown": "no node with a GPU fits", "failed": "no such", "cold": "is being looked at"}[kind]
            said = a.get("status", {}).get("message", "") + " ".join(a.get("warnings", []))
            c.ok(policy[kind] == "allow" or words in said, f"{what}: says {words!r}", said)
        workload = sample("deployment", registry, digests)
        workload["request"]["object"]["spec"]["template"]["spec"]["containers"][0]["image"] = f"{registry}/ml/absent:v1"
        a = proper(c, s.admit(workload), workload, f"doubts {letter}: a Deployment")
        c.ok(a and a["allowed"], f"doubts {letter}: what makes pods is let in", str(a))

    with ThreadPoolExecutor() as pool:
        list(pool.map(one, servers))
    for text in ("1s", "1"):
        r = servers["a"].admit(asking(f"{silent}/ml/late:v1"), text)
        c.ok(r.status == 200 and r.seconds < 1, f"doubts: ?timeout={text} is kept, {r.seconds:.2f} s", str(r))


# --------------------------------------------------------------------------------------------------------------- dry
def asked(registry, word):
    return [l for l in (registry.path / "log").read_text(errors="replace").splitlines() if f"/v2/{word}/" in l]


def dry(c, s, moving, registry, digests, layouts):
    review = sample("dry-run", registry.host, digests)
    before, pushed = (s.metric("cudalint_looks_total"), s.metric("cudalint_queue_length")), len(asked(registry, "ml/dry"))
    for _ in range(2):
        a = proper(c, s.admit(review), review, "dry run")
        c.eq(state(a), "cold", "dry run: an image that nobody looked at")
        time.sleep(1.1)
    c.eq((s.metric("cudalint_looks_total"), s.metric("cudalint_queue_length")), before, "dry run: nothing is looked at, nothing waits")
    c.eq(asked(registry, "ml/dry")[pushed:], [], "dry run: the registry is not asked")
    image = f"{registry.host}/ml/cold:v1"
    a = s.admit(asking(image, nodeSelector={"nvidia.com/gpu.product": "NVIDIA-H100-80GB-HBM3"}, tolerations=[{"operator": "Exists"}]),
                "1s").doc["response"]
    c.ok(state(a) in ("cold", "runs") and a["allowed"], "cold: the first pod is let in by policy", str(a))
    again = asking(image, dry=True, nodeSelector={"nvidia.com/gpu.product": "NVIDIA-H100-80GB-HBM3"}, tolerations=[{"operator": "Exists"}])
    c.eq(wait_for(lambda: state(s.admit(again).doc["response"]) == "runs"), True, "cold: known a little later, without another word")
    c.eq(state(s.admit(again).doc["response"]), "runs", "cold: a dry run is told what is known")
    # Facts that are no longer kept.
    gpu = {"nodeSelector": {"nvidia.com/gpu.product": "NVIDIA-H100-80GB-HBM3"}, "tolerations": [{"operator": "Exists"}]}
    for name in ("runs", *(n for n in digests if n not in ("runs", "dry", "moved", "multi"))):
        c.eq(moving.check(f"{registry.host}/ml/{name}:v1").status, 200, f"dry run: {name} is known")
    shutil.rmtree(moving.dir / "cache")
    before = moving.metric("cudalint_looks_total")
    states = []
    for name in digests:
        container = {"name": "main", "image": f"{registry.host}/ml/{name}:v1", "resources": {"limits": {"nvidia.com/gpu": 1}}}
        container["env"] = [{"name": "LD_LIBRARY_PATH", "value": "/x"}]
        states.append(state(moving.admit(asking([container], dry=True, **gpu), "1s").doc["response"]))
    time.sleep(1)
    c.ok("cold" in states, "dry run: facts that went are not there", str(states))
    c.eq(moving.metric("cudalint_looks_total"), before, "dry run: nor is an image whose facts went looked at again")
    # A tag that moves.
    image = f"{registry.host}/ml/moved:v1"
    pod = asking(image, nodeSelector={"nvidia.com/gpu.product": "NVIDIA-H100-80GB-HBM3"}, tolerations=[{"operator": "Exists"}])
    c.ok(moving.check(image).status == 200 and state(moving.admit(pod).doc["response"]) == "runs", "tags: the image of today runs")
    push(f"oci:{layouts / 'broken'}:v1", f"docker://{image}", "--dest-tls-verify=false")
    t0 = time.time()
    c.eq(wait_for(lambda: state(moving.admit(pod).doc["response"]) == "fails", 20), True, "tags: one that moved is seen after --tag-age")
    c.note(f"a tag that moved is seen after {time.time() - t0:.1f} s with --tag-age 1s")


# --------------------------------------------------------------------------------------------------------- malformed
def malformed(c, s, registry):
    good = asking(f"{registry}/ml/runs:v1")
    changed = lambda **kw: {**good, **kw}
    request = lambda **kw: changed(request={**good["request"], **kw})
    bad_spec = copy.deepcopy(good)
    bad_spec["request"]["object"]["spec"]["containers"] = "none"
    no_spec = copy.deepcopy(good)
    del no_spec["request"]["object"]["spec"]
    cases = {"nothing": (b"", "no AdmissionReview"), "half a document": (json.dumps(good).encode()[:-40], "no AdmissionReview"),
             "an array": (b"[]", "no AdmissionReview"),
             "null": (b"null", "no AdmissionReview"), "no UTF-8": (b'{"kind":"\xff"}', "no AdmissionReview"),
             "YAML": (b"kind: AdmissionReview\n", "no AdmissionReview"),
             "deep nesting": (b'{"request":' + b"[" * 100000, "no AdmissionReview"),
             "v1beta1": (changed(apiVersion="admission.k8s.io/v1beta1"), "admission.k8s.io/v1"),
             "no version": ({k: v for k, v in good.items() if k != "apiVersion"}, "apiVersion"),
             "another kind": (changed(kind="ImageReview"), "AdmissionReview"),
             "no request": (changed(request=None), "no request"), "no uid": (request(uid=""), "uid"),
             "no object": (request(object=None), "no object"),
             "another operation": (request(operation="PATCH"), "PATCH"), "containers that are a text": (bad_spec, "Pod/spec"),
             "a pod without spec": (no_spec, "no /spec")}
    for name, (body, words) in cases.items():
        r = s.admit(body)
        c.ok(r.status == 400 and words in r.doc["error"]["message"], f"malformed: {name}: 400 that says {words!r}", str(r))
    for path in ("/v1/admit", "/v1/check", "/v1/notify", "/gatekeeper/v1/validate", "/api/v1/scan"):
        r = s.ask("POST", path, b" " * (10 << 20))
        said = r.doc.get("response", {}).get("systemError") or r.doc.get("error", {}).get("message", "")
        c.ok(r.status == 413 and "bytes" in said, f"malformed: 10 MB to {path}: 413 with a reason", str(r))
    large = copy.deepcopy(good)
    large["request"]["object"]["metadata"]["annotations"] = {"note": "x" * (6 << 20)}
    c.eq(s.admit(large).status, 200, "malformed: a review of 6 MiB is read")
    odd = request(uid="0/\u00fc \"x\"")
    c.eq(s.admit(odd).doc["response"]["uid"], "0/\u00fc \"x\"", "malformed: the uid comes back as it was")
    for method, path, status in (("GET", "/v1/admit", 405), ("DELETE", "/v1/check", 405), ("POST", "/healthz", 405), ("GET", "/nothing", 404),
                                 ("POST", "/", 404), ("GET", "/v1/facts/", 404),
                                 ("GET", "/v1/facts/sha256:12", 400), ("GET", "/v1/facts/%ff", 400), ("HEAD", "/healthz", 200)):
        r = s.ask(method, path)
        c.ok(r.status == status and (status == 200 or "json" in r.type and r.doc["error"]["message"]),
             f"malformed: {method} {path}: {status} with a reason", f"{r} {r.type}")
        if status == 405:
            c.ok(r.headers.get("Allow"), f"malformed: {method} {path}: Allow says which method", str(dict(r.headers)))


# ------------------------------------------------------------------------------------------------------------- check
def bare(doc):
    """Without what two looks at one image may differ in."""
    out = {k: v for k, v in doc.items() if k != "timing"}
    return {**out, "image": {k: v for k, v in doc.get("image", {}).items() if k != "reference"}}


def check(c, s, a, lint, registry, nodes_file, silent, digests):
    names = [t["name"] for t in lint("check", f"oci:{a.images.dir / 'runs'}", "--targets", nodes_file, "-f", "json", cache=True).doc["targets"]]
    for image in ("runs", "broken", "cpu"):
        ref = f"{registry}/ml/{image}:v1"
        cli = lint("check", ref, "--targets", nodes_file, "-f", "json", "--no-timing", "--platform", "linux/amd64", *AS_OF, cache=True)
        r = s.check(ref, platform="linux/amd64", targets=names)
        if c.ok(cli.rc in (0, 1) and r.status == 200, f"check {image}: both answer", f"{cli} {r}"):
            c.eq(bare(r.doc), bare(cli.doc), f"check {image}: the report of the command line")
        digest_ = cli.doc["image"]["digest"]
        facts, scan = s.ask("GET", f"/v1/facts/{digest_}"), lint("scan", f"{registry}/ml/{image}@{digest_}", "--no-timing", "--platform",
                                                                 "linux/amd64", cache=True)
        if c.ok(facts.status == 200 and scan.rc == 0, f"facts {image}: both answer", f"{facts} {scan}"):
            c.eq(bare(facts.doc), bare(scan.doc), f"facts {image}: the document of cudalint scan")
    amd = s.check(f"{registry}/ml/runs:v1", platform="linux/amd64").doc["targets"]
    c.ok(len(amd) == len(names) - 1 and not any("GH200" in t["name"] for t in amd), "check: without targets every host of the architecture",
         str([t["name"] for t in amd]))
    multi = [s.check(f"{registry}/ml/multi:v1", platform=f"linux/{p}").doc["image"] for p in ("amd64", "arm64")]
    c.ok(multi[0]["digest"] != multi[1]["digest"] and multi[1]["platform"] == "linux/arm64", "check: a platform of an index", short(str(multi)))
    for body, status, words in (
            ({"image": f"{registry}/ml/absent:v1", "wait": 20}, 502, "no such"), ({"image": "UPPER/case"}, 400, ""),
        ({"image": f"{registry}/ml/runs:v1", "platform": "a/b/c/d"}, 400, "platform"),
            ({"image": f"{registry}/ml/runs:v1", "targets": ["no such host"]}, 400, "no such host"),
        ({"image": "registry.example.org/a:1"}, 403, "not allowed"), ({}, 400, "image"),
            ({"image": "a", "pod": {}}, 400, "image"), ({"pod": {"kind": "ConfigMap"}}, 400, "ConfigMap"), ({"pod": {"kind": "Pod"}}, 400, "spec"),
        (b"{", 400, "no check"),
            ({"image": f"{registry}/ml/runs:v1", "wait": "long"}, 400, "no check"),
        ({"image": f"{registry}/ml/multi:v1", "platform": "linux/s390x", "wait": 20}, 502, "s390x")):
        r = s.ask("POST", "/v1/check", body)
        c.ok(r.status == status and words in r.doc["error"]["message"],
             f"check {short(body if isinstance(body, bytes) else json.dumps(body), 80)}: {status} {words!r}", str(r))
    r = s.ask("POST", "/v1/check", {"image": f"{silent}/ml/check:v1"})
    c.ok(r.status == 202 and r.doc == {"status": "pending"} and int(r.headers["Retry-After"]) > 0,
         "check: an image that is not known yet: 202 with Retry-After", str(r))
    c.eq(s.ask("GET", "/v1/facts/sha256:" + "0" * 64).status, 404, "facts: an unknown digest")
    # Pods as Kyverno sends them: no Content-Type, one object, Go's escapes.
    body = json.loads((EVENTS / "kyverno-check-body.json").read_text())
    body["pod"]["spec"]["containers"][0]["image"] = f"{registry}/ml/broken@{digests['broken']}"
    text = json.dumps(body, sort_keys=True).replace("<", "\\u003c") + "\n"
    con = s.connect(30)
    con.request("POST", "/v1/check", text.encode())
    r = con.getresponse()
    doc = json.loads(r.read())
    c.ok(r.status == 200 and doc["verdict"] == "fails" and "container main" in doc["message"] and doc["allowed"] is False,
         "kyverno: a pod without Content-Type", short(str(doc)))
    verdicts = {"not-asked": "no-gpu-code", "partly": "degraded", "cold": "unknown", "failed": "unknown"}
    for name in sorted(EXPECT):
        review = sample(name, registry, digests)
        o = review["request"]["object"]
        if o is None or name in ("custom-resource", "ephemeral-container", "ephemeral-container-broken", "update-unchanged", "update-toleration",
                                 "update-one-image", "terminating", "dry-run", "env-from"):
            continue
        r = s.ask("POST", "/v1/check", {"pod": o, "namespace": "ml"})
        j = r.doc
        c.eq((r.status, j.get("state"), j.get("verdict")), (200, EXPECT[name], verdicts.get(EXPECT[name], EXPECT[name])),
             f"check of the pod of {name}: state and verdict")
        c.ok(isinstance(j.get("message"), str) and j["message"], f"check of the pod of {name}: a message in every case", str(j))
        same = s.admit(review).doc["response"]
        c.eq((j["allowed"], j["warnings"], j["annotations"]), (same["allowed"], same.get("warnings", []), same.get("auditAnnotations", {})),
             f"check of the pod of {name}: as admission")
    old = sample("terminating", registry, digests)["request"]["object"]
    j = s.ask("POST", "/v1/check", {"pod": old, "namespace": "ml"}).doc
    c.eq(j["verdict"], "no-gpu-code", "check of a pod that is going away: not held up")


# -------------------------------------------------------------------------------------------------------- gatekeeper
def gatekeeper(c, s, known, registry, digests, silent):
    path = "/gatekeeper/v1/validate"
    ask = lambda keys, **kw: s.ask("POST", path, {"apiVersion": "externaldata.gatekeeper.sh/v1beta1", "kind": "ProviderRequest",
                                                  "request": {"keys": keys}, **kw})

    def answered(r, keys, what):
        j = r.doc
        c.eq((j.get("apiVersion"), j.get("kind"), set(j)), ("externaldata.gatekeeper.sh/v1beta1", "ProviderResponse",
                                                            {"apiVersion", "kind", "response"}), f"gatekeeper {what}: a ProviderResponse")
        items = j["response"].get("items") or []
        c.eq([i["key"] for i in items], keys, f"gatekeeper {what}: every key is answered")
        c.ok(all(("value" in i) != bool(i.get("error")) for i in items), f"gatekeeper {what}: a value or an error", short(str(items)))
        return {i["key"]: i for i in items}

    ref = lambda n: f"{registry}/ml/{n}:v1"
    keys_ = {"REGISTRY/ml/hook@DIGEST": f"{registry}/ml/broken@{digests['broken']}", "REGISTRY/ml/other:v2": ref("absent")}
    sent = json.loads(event("gatekeeper-request", **keys_))
    keys = sent["request"]["keys"]
    wait_for(lambda: "value" in ask(keys).doc["response"]["items"][0], 30)
    got = answered(s.ask("POST", path, sent), keys, "sample")
    c.eq(got[keys[0]]["value"]["verdict"], "fails", "gatekeeper sample: the verdict")
    c.ok("no such" in got[keys[1]]["error"], "gatekeeper sample: an image that is not there is an error", str(got))
    keys = [ref("runs"), ref("broken"), ref("absent"), "registry.example.org/a:1", "", "::", ref("runs"), "x" * 5000, ref("cpu"),
            f"{silent}/ml/gk:v1"]
    wait_for(lambda: all("value" in i for i in ask([ref("runs"), ref("broken"), ref("cpu")]).doc["response"]["items"]), 30)
    r = ask(keys)
    c.ok(r.seconds < 3, f"gatekeeper: within the three seconds of its webhook, {r.seconds:.2f} s")
    items = r.doc["response"]["items"]
    answered(r, keys, "all kinds of keys")
    c.ok(["value" in i for i in items] == [True, True, False, False, False, False, True, False, True, False],
         "gatekeeper: values for what is known, errors for the rest", short(str(items)))
    for name, item in (("runs", items[0]), ("broken", items[1]), ("cpu", items[8])):
        rows = {profile(n): known.on(name, k) for k, n in known.nodes.items()}
        v = item["value"]
        c.eq(v["profiles"], rows, f"gatekeeper {name}: the verdict on every kind of node")
        c.eq(v["verdict"], rows.popitem()[1] if len(set(rows.values())) == 1 else "degraded", f"gatekeeper {name}: the verdict over all")
        c.ok(isinstance(v["message"], str) and v["rules"] == sorted(set(v["rules"])) and v["digest"].startswith("sha256:"),
             f"gatekeeper {name}: message, rules and digest", short(str(v)))
    c.eq(r.doc["response"]["idempotent"], False, "gatekeeper: a tag is not idempotent")
    c.eq(ask([f"{registry}/ml/broken@{digests['broken']}"]).doc["response"]["idempotent"], True, "gatekeeper: a digest is")
    c.eq(answered(ask([]), [], "no keys"), {}, "gatekeeper: no keys")
    r = s.ask("POST", path, {"apiVersion": "externaldata.gatekeeper.sh/v1beta1", "kind": "ProviderRequest", "request": {}})
    c.eq((r.status, r.doc["response"]["items"], r.doc["response"]["systemError"]), (200, [], ""), "gatekeeper: a request without keys")
    c.eq(ask([], apiVersion="externaldata.gatekeeper.sh/v1alpha1").status, 200, "gatekeeper: the older version")
    for what, r, status in (("another kind", ask([], kind="X"), 400), ("another group", ask([], apiVersion="v1"), 400),
                            ("no JSON", s.ask("POST", path, b"{"), 400), ("1001 keys", ask(["a:1"] * 1001), 413),
                            ("numbers", ask([1]), 400)):
        j = r.doc["response"]
        c.ok(r.status == status and j["systemError"] and not j["items"] and r.doc["kind"] == "ProviderResponse",
             f"gatekeeper {what}: {status} with systemError", str(r))


# ------------------------------------------------------------------------------------------------------------ harbor
VULN = "application/vnd.security.vulnerability.report; version=1.1"
NATIVE = "application/vnd.scanner.adapter.vuln.report.harbor+json; version=1.0"
SBOM, RAW = "application/vnd.security.sbom.report+json; version=1.0", "application/vnd.scanner.adapter.vuln.report.raw"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"


def accepts_metadata(c, r):
    """What Harbor checks of metadata (ScannerAdapterMetadata.Validate, ConvertCapability, GetRegistryAuthorizationType)."""
    j = r.doc
    c.ok(r.status == 200 and all(j["scanner"].get(k) for k in ("name", "vendor", "version")) and j["scanner"]["name"] != "Trivy",
         "harbor: the scanner has name, vendor and version", str(r))
    c.ok(j["capabilities"] and all(DOCKER_MANIFEST in x["consumes_mime_types"] for x in j["capabilities"]),
         "harbor: every capability consumes Docker's manifests")
    c.ok(all({VULN, NATIVE, SBOM} & set(x["produces_mime_types"]) for x in j["capabilities"]),
         "harbor: every capability makes a report that Harbor reads, spelled as Harbor does")
    c.ok(all(x.get("type") == "vulnerability" for x in j["capabilities"]), "harbor: typed as a vulnerability scanner")
    made = [t for x in j["capabilities"] for t in x["produces_mime_types"]]
    c.eq(made, [VULN], "harbor: one report type, since Harbor polls for each")
    c.ok(all(isinstance(v, str) for v in j["properties"].values()), "harbor: properties are texts")
    c.ok(j["properties"].get("harbor.scanner-adapter/registry-authorization-type") in (None, "Basic", "Bearer"), "harbor: the kind of login")
    c.ok(re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z", j["properties"]["harbor.scanner-adapter/vulnerability-database-updated-at"]),
         "harbor: the day of the rule data")


def accepts_report(c, doc, what, severity):
    """What Harbor does with a report: columns of its database, links and ids that it joins, counters by key."""
    keys = [(v["id"], v["package"], v["version"]) for v in doc["vulnerabilities"]]
    c.eq(len(set(keys)), len(keys), f"{what}: id, package and version are unique")
    for v in doc["vulnerabilities"]:
        texts = [v["id"], v["package"], v["version"], v["description"], v["fix_version"]]
        good = all("\x00" not in t for t in texts) and v["id"].strip() and not v["id"].startswith("CVE")
        good = good and v["severity"] in ("Unknown", "Low", "Medium", "High", "Critical")
        good = good and all("|" not in l for l in v["links"]) and all("," not in x for x in v["cwe_ids"])
        good = good and not any("cvss" in k.lower() for k in v["vendor_attributes"])
        good = good and len((v["id"] + v["package"] + v["version"]).encode()) < 2600 and max(len(v["package"].encode()),
                                                                                             len(v["version"].encode())) <= 256
        c.ok(good, f"{what}: {v['id']} fits Harbor's columns", short(str(v)))
    rank = ["Unknown", "Negligible", "Low", "Medium", "High", "Critical"]
    worst = max((v["severity"] for v in doc["vulnerabilities"]), key=rank.index, default="Negligible")
    c.eq((doc["severity"], worst), (severity, severity), f"{what}: the report's severity is that of its worst item")


def scanned(c, s, request, what, token, accept=VULN, wanted=200):
    """Submits a scan and polls as Harbor does; the last answer."""
    at = {"Authorization": f"Bearer {token}"}
    r = s.ask("POST", "/api/v1/scan", json.dumps(request).encode(), Content_Type="application/vnd.scanner.adapter.scan.request+json; version=1.0",
              Accept="application/vnd.scanner.adapter.scan.response+json; version=1.0", **at)
    if not c.ok(r.status == 202 and set(r.doc) == {"id"} and len(r.doc["id"]) >= 16 and r.seconds < 5, f"{what}: 202 with an id", str(r)):
        return r
    place = f"/api/v1/scan/{r.doc['id']}/report"
    end = time.time() + 60
    while True:
        r = s.ask("GET", place, Accept=accept, **at)
        if r.status != 302 or time.time() > end:
            break
        after = r.headers.get("Refresh-After", "")
        if not (re.fullmatch(r"\d{1,3}", after) and 0 < int(after) < 128 and r.seconds < 5):
            c.ok(False, f"{what}: 302 with a Refresh-After that fits int8", str(dict(r.headers)))
        time.sleep(0.3)
    c.eq(r.status, wanted, f"{what}: the end of the scan ({short(r.body.decode(), 200) if r.status != wanted else ''})")
    r.place = place
    return r


def harbor(c, s, known, plain, token_registry, one, lent):
    key = {"Authorization": f"Bearer {SECRETS['harbor']}"}
    for accept in ("application/vnd.scanner.adapter.metadata+json; version=1.0", "application/vnd.scanner.adapter.metadata+json; version=1.1", "*/*",
                   None):
        r = s.ask("GET", "/api/v1/metadata", **key, **({"Accept": accept} if accept else {}))
        c.eq(r.status, 200, f"harbor: metadata for Accept {accept}")
    accepts_metadata(c, r)
    basic = "Basic " + base64.b64encode(f"robot:{SECRETS['registry']}".encode()).decode()

    def request(registry, image, authorization, **artifact):
        doc = json.loads(event("harbor-scan-request", **{"http://REGISTRY": registry.url, "AUTHORIZATION": authorization, "DIGEST": lent[image]}))
        doc["artifact"] |= {"repository": f"ml/{image}", **artifact}
        return doc

    nodes = {profile(n): k for k, n in known.nodes.items() if "nvidia.com/gpu.product" in n["metadata"]["labels"]}
    bearer = json.loads(http_get(token_registry.realm, "service=test-registry&scope=repository:ml/lent:pull", basic))["token"]
    SECRETS["token"] = bearer
    # A registry on this machine may name its neighbours there; one elsewhere may not (serve_faults.py).
    scanned(c, s, request(token_registry, "lent", basic), "harbor: a token service at another port of this machine", SECRETS["harbor"])
    for what, registry, login, image in (("Basic", plain, basic, "broken"), ("Basic", plain, basic, "cpu"),
                                         ("Basic against a token service", one, basic, "lent"),
                                         ("Bearer", token_registry, f"Bearer {bearer}", "lent")):
        what = f"harbor: {image}, {what}"
        r = scanned(c, s, request(registry, image, login), what, SECRETS["harbor"])
        if r.status != 200:
            continue
        c.eq(r.type, VULN, f"{what}: the media type asked for")
        told = {v["vendor_attributes"]["host"] for v in r.doc["vulnerabilities"] if v["severity"] == "High"}
        fails = {p for p, n in nodes.items() if known.on(image if image != "lent" else "runs", n) == "fails"}
        c.eq(told - {""}, fails, f"{what}: High for the hosts on which it fails")
        accepts_report(c, r.doc, what, "High" if fails else r.doc["severity"])
        c.eq(r.doc["artifact"]["digest"], lent[image], f"{what}: the artifact comes back")
        first = r
        again = s.ask("GET", r.place, Accept=VULN, **key)
        c.eq({k: v for k, v in again.doc.items() if k != "generated_at"}, {k: v for k, v in r.doc.items() if k != "generated_at"},
             f"{what}: the report can be asked for again")
    c.eq(s.ask("GET", first.place, Accept=NATIVE, **key).type, NATIVE, "harbor: the older media type")
    c.eq(s.ask("GET", first.place, **key).type, VULN, "harbor: no Accept")
    for accept in (RAW, SBOM, "text/html"):
        c.eq(s.ask("GET", first.place, Accept=accept, **key).status, 501, f"harbor: a report as {accept}")
    # What other clients may learn.
    other = {"Authorization": f"Bearer {SECRETS['other']}"}
    r = s.ask("GET", first.place, Accept=VULN, **other)
    c.ok(r.status == 404 and "error" in r.doc, "harbor: the report of another client is not there", str(r))
    c.eq(s.ask("GET", "/api/v1/scan/" + "0" * 32 + "/report", Accept=VULN, **key).status, 404, "harbor: an id that was never given")
    c.eq(s.ask("GET", "/api/v1/scan/%ff/report", Accept=VULN, **key).status in (400, 404), True, "harbor: an id that is no text")
    r = s.ask("GET", first.place, Accept=VULN)
    c.ok(r.status == 401 and r.doc["error"]["message"], "harbor: nobody without a token", str(r))
    # A login that is wrong ends the scan.
    typo = "Basic " + base64.b64encode(f"robot:{SECRETS['typo']}".encode()).decode()
    r = scanned(c, s, request(plain, "broken", typo), "harbor: a wrong login", SECRETS["harbor"], wanted=500)
    c.ok(r.status == 500 and r.doc["error"]["message"], "harbor: a wrong login is told, though the facts are kept", str(r))
    r = scanned(c, s, request(plain, "broken", ""), "harbor: no login", SECRETS["harbor"], wanted=500)
    good = request(plain, "broken", basic)
    edit = lambda part, **kw: {**good, part: {**good[part], **kw}}
    caps = lambda *types, kind="vulnerability": {**good, "enabled_capabilities": [{"type": kind, "produces_mime_types": list(types)}]}
    for what, body, status in (
            ("half a document", b"{", 400), ("an array", [], 400), ("a number for a text", edit("artifact", digest=1), 400),
        ("no registry URL", edit("registry", url=""), 422),
            ("a URL that is none", edit("registry", url="::"), 422), ("another scheme", edit("registry", url="ftp://x"), 422),
        ("no digest", edit("artifact", digest=""), 422),
            ("a digest that is none", edit("artifact", digest="sha256:12"), 422),
        ("a repository that is none", edit("artifact", repository="UP/per"), 422), ("no repository", edit("artifact", repository=""), 422),
            ("a login that is none", edit("registry", authorization="secret"), 422),
        ("another login", edit("registry", authorization="Digest x"), 422), ("Basic that is none", edit("registry", authorization="Basic !"), 422),
            ("a registry that is not allowed", edit("registry", url="https://registry.example.org"), 422), ("an SBOM", caps(SBOM, kind="sbom"), 501),
        ("another report", caps(RAW), 501)):
        r = s.ask("POST", "/api/v1/scan", json.dumps(body).encode() if not isinstance(body, bytes) else body,
                  Content_Type="application/vnd.scanner.adapter.scan.request+json; version=1.1", **key)
        c.ok(r.status == status and r.type == "application/vnd.scanner.adapter.error+json; version=1.0" and r.doc["error"]["message"],
             f"harbor: {what}: {status} in the scanner's form", f"{r} {r.type}")
    for body in ({k: v for k, v in good.items() if k != "enabled_capabilities"}, {**good, "enabled_capabilities": []}, caps(VULN.replace("; ", ";")),
                 edit("artifact", tag="", namespace_id=3)):
        c.eq(s.ask("POST", "/api/v1/scan", body, **key).status, 202, f"harbor: {short(str(body.get('enabled_capabilities')), 80)} is taken")


class OneHost(Served):
    """A registry and its token service under one host and port, as Harbor has them."""

    def __init__(self, registry):
        proxy, token = self, re.fullmatch(r"http://([^/]+)/token", registry.realm)[1]

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_):
                pass

            def do_GET(self):
                con = http.client.HTTPConnection(token if self.path.startswith("/token") else registry.host)
                con.request(self.command, self.path, headers={k: v for k, v in self.headers.items() if k.lower() != "host"})
                r = con.getresponse()
                body = r.read()
                self.send_response(r.status)
                for k, v in r.getheaders():
                    if k.lower() not in ("connection", "transfer-encoding", "date", "content-length"):
                        self.send_header(k, v.replace(registry.realm, f"{proxy.url}/token"))
                self.send_header("Content-Length", r.headers.get("Content-Length") or str(len(body)))
                self.end_headers()
                self.wfile.write(body)
                con.close()

            do_HEAD = do_GET

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.host = f"127.0.0.1:{self.server.server_port}"
        self.url = f"http://{self.host}"


def http_get(url, query, authorization):
    host, path = re.fullmatch(r"http://([^/]+)(/.*)", url).groups()
    con = http.client.HTTPConnection(host)
    con.request("GET", f"{path}?{query}", headers={"Authorization": authorization})
    return con.getresponse().read()


# ----------------------------------------------------------------------------------------------------------- clients
def clients_file(path, ci=None):
    """harbor may see everything, other one repository, ci what is given."""
    known_by = lambda name: f'[[client]]\nname = "{name}"\ntoken-sha256 = "{hashlib.sha256(SECRETS[name].encode()).hexdigest()}"\n'
    row = lambda name, repositories="": known_by(name) + repositories + "\n"
    path.write_text(row("harbor") + row("other", 'repositories = ["127.0.0.1:*/ml/lent"]') + row("ci", f"repositories = {json.dumps(ci)}" if ci
                                                                                                 else ""))
    return path


def clients(c, s, registry, digests):
    image, t = f"{registry}/ml/runs:v1", SECRETS["ci"]
    basic = lambda text: "Basic " + base64.b64encode(text.encode()).decode()
    for what, headers in (("Bearer", {"Authorization": f"Bearer {t}"}), ("bearer in small letters", {"Authorization": f"bearer {t}"}),
                          ("Basic", {"Authorization": basic(f"anyone:{t}")}),
                          ("an API key", {"X_ScannerAdapter_API_Key": t})):
        c.eq(s.ask("POST", "/v1/check", {"image": image, "wait": 20}, **headers).status, 200, f"clients: {what}")
    for what, headers in (("nobody", {}), ("another token", {"Authorization": "Bearer nobody"}),
                          ("the user name", {"Authorization": basic(f"{t}:x")}), ("Basic that is none", {"Authorization": "Basic !"}),
                          ("a token without scheme", {"Authorization": t}), ("an empty token", {"Authorization": "Bearer "}),
                          ("the sum", {"Authorization": "Bearer " + hashlib.sha256(t.encode()).hexdigest()})):
        for method, path, body in (("POST", "/v1/check", {"image": image}), ("POST", "/v1/notify", {"images": [image]}),
                                   ("GET", f"/v1/facts/{digests['broken']}", None), ("GET", "/api/v1/metadata", None),
                                   ("POST", "/api/v1/scan", {})):
            r = s.ask(method, path, body, **headers)
            c.ok(r.status == 401 and r.doc["error"]["message"], f"clients: {what} at {path}: 401", str(r))
            c.ok("/api/" in path or r.headers.get("WWW-Authenticate", "").startswith("Bearer"), f"clients: {what} at {path}: WWW-Authenticate",
                 str(dict(r.headers)))
    own = {"Authorization": f"Bearer {t}"}
    c.eq(s.check(f"{registry}/ml/broken:v1", token=t).status, 403, "clients: a repository of others")
    c.eq(s.ask("GET", f"/v1/facts/{digests['broken']}", **own).status, 404, "clients: facts of an image of others do not exist")
    c.eq(s.ask("GET", f"/v1/facts/{digests['runs']}", **own).status, 200, "clients: facts of the own image")
    c.eq(s.ask("POST", "/v1/notify", {"images": [f"{registry}/ml/broken:v1", image]}, **own).doc, {"queued": 1, "ignored": 1},
         "clients: a push to a repository of others is ignored")
    review = asking(image, tolerations=[{"operator": "Exists"}])
    c.eq(s.admit(review).status, 200, "clients: admission needs no token")
    c.eq(s.ask("POST", "/v1/check", {"pod": review["request"]["object"]}).status, 200, "clients: nor does the check of a pod")


def closed(c, s, registry):
    """A server that others than this machine may reach, without a file of clients."""
    image = f"{registry}/ml/runs:v1"
    for method, path, body in (("POST", "/v1/check", {"image": image}), ("POST", "/v1/notify", {"images": [image]}),
                               ("GET", "/v1/facts/sha256:" + "0" * 64, None), ("GET", "/api/v1/metadata", None),
                               ("POST", "/api/v1/scan", {}), ("GET", "/api/v1/scan/1/report", None)):
        r = s.ask(method, path, body, Authorization="Bearer x")
        c.ok(r.status == 403 and "--clients" in str(r), f"clients: none are set up: {path} is closed beyond loopback", str(r))
    c.eq([s.admit(asking(image)).status, s.ask("GET", "/readyz").status], [200, 200], "clients: none are set up: admission is open")


# ----------------------------------------------------------------------------------------------------- notifications
# Sample of fixtures/serve: what is asked for. Forms that are not read are answered all the same: some senders repeat for ever what is refused.
PUSHES = {"acr-push": (1, 0), "distribution-push-v1": (1, 0), "distribution-push-v2": (1, 0), "distribution-push-blob-v2": (0, 0),
          "distribution-delete-v2": (0, 0), "harbor-push-default": (1, 0),
          "harbor-push-cloudevents": (1, 0), "harbor-push-untagged-default": (1, 0), "dockerhub-push": (0, 1), "ecr-push": (0, 1),
          "gar-pubsub-push": (0, 1), "ghcr-package-untagged": (0, 1),
          "ghcr-registry_package": (0, 1), "quay-push": (0, 1), "quay-push-old": (0, 1)}
TYPES = {"distribution-push-v1": "application/vnd.docker.distribution.events.v1+json", "harbor-push-cloudevents": "application/cloudevents+json",
         **dict.fromkeys(("distribution-push-v2", "distribution-push-blob-v2", "distribution-delete-v2"),
                         "application/vnd.docker.distribution.events.v2+json")}


class Notifying:
    """Docker's registry with notifications to a server."""

    def __init__(self, dir, url, token):
        self.path = Path(dir)
        (self.path / "data").mkdir(parents=True)
        with socket.socket() as s:
            s.bind(("127.0.0.1", 0))
            self.host = f"127.0.0.1:{s.getsockname()[1]}"
        (self.path / "config.yml").write_text(f"""version: 0.1
log: {{level: warn, accesslog: {{disabled: false}}}}
storage: {{filesystem: {{rootdirectory: {self.path}/data}}, delete: {{enabled: true}}}}
http: {{addr: "{self.host}", host: "http://{self.host}", secret: x}}
notifications:
  events: {{includereferences: true}}
  endpoints:
  - name: cudalint
    url: {url}
    headers: {{Authorization: ["Bearer {token}"]}}
    timeout: 1s
    threshold: 10
    backoff: 1s
""")

    def __enter__(self):
        with open(self.path / "log", "wb") as f:
            self.p = subprocess.Popen(["docker-registry", "serve", str(self.path / "config.yml")], stdin=subprocess.DEVNULL, stdout=f, stderr=f,
                                      env={**os.environ, "OTEL_TRACES_EXPORTER": "none"})
        if not wait_for(lambda: connects(self.host), 10):
            raise RuntimeError("the registry that notifies did not start: " + short((self.path / "log").read_text()))
        return self

    def __exit__(self, *_):
        self.p.terminate()
        self.p.wait()

    def get(self, path, accept=MANIFEST):
        con = http.client.HTTPConnection(self.host)
        con.request("GET", path, headers={"Accept": accept})
        r = con.getresponse()
        return r.status, r.read()

    def puts(self):
        """Manifests that were written."""
        return re.findall(r'"PUT /v2/(\S+)/manifests/(\S+) HTTP', (self.path / "log").read_text(errors="replace"))


def connects(host):
    try:
        socket.create_connection(host.split(":"), 1).close()
        return True
    except OSError:
        return False


def notifications(c, s, hook, registry, layouts, digests):
    own = {"Authorization": f"Bearer {SECRETS['ci']}"}
    names = {p.stem for p in EVENTS.glob("*.json")} - {"gatekeeper-request", "harbor-scan-request", "kyverno-check-body"}
    c.eq(names, set(PUSHES), "notifications: every sample has what is expected of it")
    for name in sorted(PUSHES):
        body = event(name, REGISTRY=registry.host, INDEX=digests["multi"], DIGEST=digests["hook"])
        r = s.ask("POST", "/v1/notify", body, Content_Type=TYPES.get(name, "application/json"), **own)
        c.ok(r.status == 202 and (r.doc["queued"], r.doc["ignored"]) == PUSHES[name] and r.seconds < 1,
             f"notifications: {name}: queued and ignored {PUSHES[name]}, within a second", str(r))
    peek = lambda image: state(s.admit(asking(image, dry=True, nodeSelector={"nvidia.com/gpu.product": "NVIDIA-H100-80GB-HBM3"},
                                              tolerations=[{"operator": "Exists"}])).doc["response"])
    c.eq(wait_for(lambda: peek(f"{registry.host}/ml/hook@{digests['hook']}") == "runs", 30), True, "notifications: the image that was named is known")
    for what, body, status in (("no JSON", b"{", 400), ("no object", b"[]", 400), ("nothing known", {"hello": 1}, 202),
                               ("no events", {"events": []}, 202), ("odd events", {"events": [1, {"target": []}, None]}, 202),
                               ("an image", {"image": f"{registry.host}/ml/hook:v1"}, 202), ("1001 images", {"images": ["a:1"] * 1001}, 400),
                               ("a registry that is not allowed", {"images": ["registry.example.org/a:1"]}, 202),
                               ("no reference", {"images": ["UP", 3, ""]}, 202)):
        r = s.ask("POST", "/v1/notify", body, **own)
        c.eq(r.status, status, f"notifications: {what}")
    # A registry that notifies by itself.
    push(f"oci:{layouts / 'pushed'}:v1", f"docker://{hook.host}/ml/pushed:v1", "--dest-tls-verify=false")
    c.eq(wait_for(lambda: peek(f"{hook.host}/ml/pushed@{digests['pushed']}") == "runs", 60), True,
         "notifications: what was pushed by skopeo is known, and nobody asked")
    tag = "sha256-" + digests["pushed"][7:]
    listed = wait_for(lambda: hook.get(f"/v2/ml/pushed/manifests/{tag}", INDEX)[0] == 200
                      and json.loads(hook.get(f"/v2/ml/pushed/manifests/{tag}", INDEX)[1])["manifests"], 60)
    if not c.ok(listed and len(listed) == 1, "attached: one statement is listed beside the image",
                str(listed) + short(" ".join(s.logs("attach")), 400)):
        return
    c.eq((listed[0]["artifactType"], listed[0]["mediaType"]), ("application/vnd.in-toto+json", MANIFEST), "attached: the list says what it is")
    raw = subprocess.run(["skopeo", "inspect", "--raw", "--tls-verify=false", f"docker://{hook.host}/ml/pushed@{listed[0]['digest']}"],
                         capture_output=True, text=True)
    doc = json.loads(raw.stdout or "{}")
    c.ok(doc.get("subject", {}).get("digest") == digests["pushed"] and doc.get("artifactType") == "application/vnd.in-toto+json"
         and digest(raw.stdout.encode()) == listed[0]["digest"],
         "attached: skopeo reads the manifest, whose subject is the image", raw.stdout + raw.stderr)
    status, blob = hook.get(f"/v2/ml/pushed/blobs/{doc['layers'][0]['digest']}")
    statement = json.loads(blob)
    c.ok(status == 200 and statement["_type"] == "https://in-toto.io/Statement/v1"
         and statement["subject"][0]["digest"]["sha256"] == digests["pushed"][7:] and statement["predicate"]["complete"],
         "attached: a statement on the image", short(blob.decode()))
    push(f"oci:{layouts / 'pushed'}:v1", f"docker://{hook.host}/ml/pushed:v2", "--dest-tls-verify=false")
    before = wait_for(lambda: len(s.logs('"notified"')) and hook.puts())
    time.sleep(3)
    puts = hook.puts()
    expected = {"v1", "v2", tag, listed[0]["digest"]}
    c.ok({p[1] for p in puts} == expected and len(puts) == 4, "attached: once, and what was attached is not looked at in turn",
         f"{puts} {before and len(before)}")
    c.eq(len(json.loads(hook.get(f"/v2/ml/pushed/manifests/{tag}", INDEX)[1])["manifests"]), 1, "attached: still one statement after a second push")
    refused_ = re.findall(r"retryable endpoint.*|failed to send.*|events.*error.*", (hook.path / "log").read_text(errors="replace"))
    c.ok(not refused_, "notifications: the registry had no answer to repeat", str(refused_[:2]))


# --------------------------------------------------------------------------------------------------------- operation
def operation(c, s):
    c.eq([(r.status, r.body) for r in (s.ask("GET", "/healthz"), s.ask("GET", "/readyz"))], [(200, b"ok\n")] * 2, "health: alive and ready")
    r = s.ask("GET", "/openapi.json")
    c.ok(r.status == 200 and r.doc == json.loads(OPENAPI.read_text()), "openapi: the server has the document of docs/openapi.json",
         short(r.body.decode(), 80))
    c.ok(all(s.ask("GET", p).headers.get("Cache-Control") == "no-store" for p in ("/healthz", "/metrics", "/nothing")),
         "answers are not to be kept by others")


def settings(dir, nodes, registry, t, listen="127.0.0.1:0"):
    """Every option of `cudalint serve` with a value; files are relative to `dir`."""
    write = lambda name, text: (dir / name).write_text(text) and name
    copied = lambda name, file: (dir / name).write_bytes(Path(file).read_bytes()) and name
    (dir / "catalog").mkdir()
    (dir / "shared").mkdir()
    auth = base64.b64encode(f"robot:{SECRETS['registry']}".encode()).decode()
    pool = '[[target]]\nname = "pool-b200"\ndriver = "580"\ngpus = ["b200"]\nlabels = { pool = "b200" }\n'
    return {"listen": listen, "tls-cert": copied("server.crt", t.cert), "tls-key": copied("server.key", t.key), "client-ca": copied("ca.crt", t.ca),
            "clients": "clients.toml", "state-dir": "state",
            "wait": "20s", "queue": 50, "scans": 1, "tag-age": "5s", "drain": "1s", "attach": False, "log-format": "json", "log-level": "debug",
            "mode": "enforce", "namespace-mode": ["warn-*=warn", "audit-*=audit"],
            "unknown": "deny", "cold": "deny", "failed": "warn", "nodes": copied("nodes.json", nodes), "targets": write("pools.toml", pool),
            "container-toolkit": "1.17.8", "runtime-mode": "legacy",
            "brand": "Tesla", "catalog": "catalog", "as-of": "2026-06-01", "allow-registry": ["127.0.0.1:*", "*.example.com"],
            "platform": "linux/amd64", "share-across-registries": False,
            "authfile": write("auth.json", json.dumps({"auths": {registry.host: {"auth": auth}}})), "insecure": False,
            "ca-file": copied("registry.crt", registry.ca), "timeout": "5m", "cache-dir": "cache",
            "no-cache": False, "shared-cache": str(dir / "shared"), "shared-cache-read-only": False, "cache-key": write("key", "k" * 40),
            "cache-max-size": "1GB"}


def toml(values):
    return "".join(f"{k} = {json.dumps(v)}\n" for k, v in values.items())


def options(c, a, tmp, lint, nodes, registry, certificates, digests):
    """A file and variables with every option: each server must read an image from a registry with TLS and login, and refuse it by mode."""
    all_ = set(re.findall(r"^ +(?:-c, )?--([a-z-]+)", lint("serve", "--help").out, re.M)) - {"help", "config", "allow-any-registry"}
    files = ("tls-cert", "tls-key", "client-ca", "clients", "state-dir", "nodes", "targets", "catalog", "authfile", "ca-file", "cache-dir",
             "cache-key")
    text = lambda v: ",".join(v) if isinstance(v, list) else str(v).lower() if isinstance(v, bool) else str(v)
    for way in ("file", "variables"):
        home = tmp / f"by-{way}"
        home.mkdir()
        values = settings(home, nodes, registry, certificates)
        clients_file(home / "clients.toml")
        c.eq(set(values), all_, f"options by {way}: every option of --help has a value here")
        if way == "file":
            (home / "serve.toml").write_text(toml(values))
            s = Serve(c, a, tmp / "config", "--config", home / "serve.toml", tls=certificates, bare=True, env={"CUDALINT_UNKNOWN": "allow"})
        else:
            absolute = {k: str(home / v) if k in files else v for k, v in values.items()}
            env = {"CUDALINT_" + k.upper().replace("-", "_"): text(v) for k, v in absolute.items()}
            s = Serve(c, a, tmp / "environment", tls=certificates, bare=True, env=env)
            try:
                with Serve(c, a, tmp / "together", tls=certificates, bare=True, env=env | {"CUDALINT_STATE_DIR": str(home / "together")}):
                    c.ok(True, "options by variables: all of them together")
            except RuntimeError as e:
                c.ok(False, "options by variables: all of them together", str(e))
                of_root = {"CUDALINT_CONTAINER_TOOLKIT": "--container-toolkit", "CUDALINT_RUNTIME_MODE": "--runtime-mode",
                           "CUDALINT_BRAND": "--brand"}
                s.cmd += [x for k, o in of_root.items() for x in (o, env[k])]
                s.env = {k: v for k, v in env.items() if k not in of_root}
        with s:
            review = asking(f"{registry.host}/ml/broken:v1", tolerations=[{"operator": "Exists"}],
                            nodeSelector={"nvidia.com/gpu.product": "NVIDIA-H100-80GB-HBM3"})
            got = s.admit(review)
            c.ok(got.status == 200 and state(got.doc["response"]) == "fails" and not got.doc["response"]["allowed"],
                 f"options by {way}: login, CA file, hosts and mode count", str(got))
            review["request"]["namespace"] = "audit-x"
            c.eq(s.admit(review).doc["response"]["allowed"], True, f"options by {way}: the mode of a namespace counts")
            pools = asking(f"{registry.host}/ml/broken:v1", nodeSelector={"pool": "b200"})
            c.ok("pool-b200" in s.admit(pools).doc["response"]["auditAnnotations"].get("profiles", ""), f"options by {way}: declared pools stand in",
                 str(s.admit(pools)))
            nowhere = asking(f"{registry.host}/ml/broken:v1", nodeSelector={"pool": "none"})
            c.eq(s.admit(nowhere).doc["response"]["allowed"], way == "file", f"options by {way}: --unknown, which a variable sets over the file")
            c.eq(s.ask("GET", "/api/v1/metadata").status, 401, f"options by {way}: clients count")
            try:
                con = http.client.HTTPSConnection("localhost", s.port, timeout=10, context=ssl.create_default_context(cafile=certificates.ca))
                con.request("GET", "/healthz")
                probed = con.getresponse()
                probed.read()
                con.request("GET", "/openapi.json")
                refused = con.getresponse().status
            except OSError as e:
                probed = refused = e
            c.eq((getattr(probed, "status", probed), refused), (200, 403), f"options by {way}: without certificate a client gets probes and nothing else")
            c.ok((home / "state/journal.ndjson").exists() and any((home / "cache").rglob("*")) and any((home / "shared").rglob("*")),
                 f"options by {way}: state, cache and shared cache are where they should be")


def wrong_options(c, lint, tmp, nodes):
    base, free = ["--cache-dir", tmp / "wrong-cache"], ["--listen", "127.0.0.1:0"]
    (tmp / "wrong-shared").mkdir()
    hosts_, any_ = ["--nodes", nodes], ["--allow-any-registry"]

    def config(text):
        file = tmp / f"wrong-{abs(hash(text))}.toml"
        file.write_text(text)
        return ["--config", file]

    clear = tmp / "clear.toml"
    clear.write_text(f'[[client]]\nname = "a"\ntoken-sha256 = "{SECRETS["typo"]}"\n')
    taken = socket.create_server(("127.0.0.1", 0))
    port = taken.getsockname()[1]
    cases = {"no registry": ([*hosts_], "--allow-registry"), "no hosts": ([*any_], "--nodes"),
             "a mode that is none": ([*hosts_, *any_, "--mode", "strict"], "strict"),
             "a namespace without mode": ([*hosts_, *any_, "--namespace-mode", "ml"], "GLOB=MODE"),
             "a namespace's mode that is none": ([*hosts_, *any_, "--namespace-mode", "ml=off"], "audit, warn"),
             "a duration that is none": ([*hosts_, *any_, "--wait", "soon"], "--wait"),
             "a level that is none": ([*hosts_, *any_, "--log-level", "loud"], "loud"),
             "HTTP for everybody": ([*hosts_, *any_, "--listen", "0.0.0.0:0"], "--tls-cert"),
             "a certificate alone": ([*hosts_, *any_, "--tls-cert", "x"], "--tls-key"),
             "no such certificate": ([*hosts_, *any_, "--tls-cert", "/nowhere.crt", "--tls-key", "/nowhere.key"], "nowhere.crt"),
             "no such nodes": ([*any_, "--nodes", "/nowhere.json"], "nowhere.json"),
             "nodes that are none": ([*any_, "--nodes", clear], "--nodes"), "tokens in the clear": ([*hosts_, *any_, "--clients", clear], "sha256"),
             "an address that is taken": ([*hosts_, *any_, "--listen", f"127.0.0.1:{port}"], str(port)),
             "a glob that is none": ([*hosts_, "--allow-registry", "["], "--allow-registry"),
             "both kinds of registries": ([*hosts_, *any_, "--allow-registry", "x"], "--allow-any-registry"),
             "an unknown key": ([*hosts_, *any_, *config("moed = 'warn'\n")], "mode"),
             "an unknown key with an underscore": ([*hosts_, *any_, *config("tag_age = '1s'\n")], "tag-age"),
             "a table": ([*hosts_, *any_, *config("[mode]\na = 1\n")], "mode"), "no TOML": ([*hosts_, *any_, *config("mode = \n")], "line 1"),
             "a wrong value in the file": ([*hosts_, *any_, *config("mode = 'strict'\n")], "strict"),
             "no such file": ([*hosts_, *any_, "--config", "/nowhere.toml"], "nowhere.toml"),
             "a key of another command": ([*hosts_, *any_, *config("fail-on = 'error'\n")], "fail-on"),
             "no such nodes, with a shared cache": ([*any_, "--nodes", "/nowhere.json", "--shared-cache", tmp / "wrong-shared"], "nowhere.json"),
             "what is typed wins over the file": ([*any_, "--nodes", "/nowhere.json", *config("allow-registry = ['x']\n")], "nowhere.json"),
             "config in a file": ([*hosts_, *any_, *config("config = 'x'\n")], "config"),
             "the shared cache of single images": ([*hosts_, *any_, "--shared-cache", "referrers"], "referrers")}
    for what, (args, words) in cases.items():
        r = lint("serve", *base, *([] if "--listen" in args else free), *args, timeout=30, cache=True)
        lines = [l for l in r.err.splitlines() if l.startswith("error:")]
        c.ok(r.rc == 2 and not r.out and len(lines) == 1 and words in r.err, f"wrong options: {what}: one line that says {words!r}", str(r))
        c.ok(not [n for n, s in SECRETS.items() if s in r.err], f"wrong options: {what}: no secret on stderr")
    taken.close()
    r = lint("serve", *hosts_, *any_, timeout=30, CUDALINT_MODE="strict")
    c.ok(r.rc == 2 and "strict" in r.err, "wrong options: a variable", str(r))


# ----------------------------------------------------------------------------------------------------------- openapi
INSIDE = r"""
import json, re, sys
import yaml
from jsonschema import Draft202012Validator, FormatChecker
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse
doc, harbor, told = json.load(open(sys.argv[1])), yaml.safe_load(open(sys.argv[2])), json.load(sys.stdin)
wrong, seen = [], set()

def validate(root, schema, value):
    whole = {"$schema": "https://json-schema.org/draft/2020-12/schema", "components": root["components"], **schema}
    found = Draft202012Validator(whole, format_checker=FormatChecker()).iter_errors(value)
    return [f"{'/'.join(map(str, e.absolute_path))}: {e.message[:160]}" for e in found]

def resolve(root, x):
    while "$ref" in x:
        at = root
        for part in x["$ref"][2:].split("/"):
            at = at[part]
        x = at
    return x

def judged(root, prefix, method, path, status, kind, body):
    path = path.split("?")[0]
    if not path.startswith(prefix):
        return None
    path = path[len(prefix):]
    for template, ways in root["paths"].items():
        if not re.fullmatch(re.sub(r"\{[^}]+\}", "[^/]+", template), path) or method.lower() not in ways:
            continue
        answers = ways[method.lower()]["responses"]
        seen.add((prefix + template, str(status)))
        if str(status) not in answers:
            return f"{status} is not documented: {body[:100]}"
        content = resolve(root, answers[str(status)]).get("content")
        if content is None:
            return None
        if kind not in content:
            return f"{status}: media type {kind!r} is not documented"
        schema = content[kind].get("schema", {})
        if "json" not in kind and "report" not in kind:
            return None
        return "; ".join(validate(root, schema, json.loads(body))[:3]) or None
    return None

for method, path, status, kind, body in told["seen"]:
    for root, prefix, ours in ((doc, "", True), (harbor, "/api/v1", False)):
        # 401 and 413 are HTTP's, not the scanner specification's.
        if not ours and status in (401, 403, 408, 413):
            continue
        # The specification knows no body of a 404.
        why = judged(root, prefix, method, path, status, kind, body)
        if why:
            wrong.append(f"{'openapi' if ours else 'harbor'}: {method} {path[:80]}: {why}")
families = {}
for text in told["metrics"]:
    try:
        for f in parse(text):
            families[f.name] = f
            if not f.documentation or not f.name.startswith("cudalint_"):
                wrong.append(f"metrics: {f.name} has no help")
    except ValueError as e:
        wrong.append(f"metrics: {e}")
if not 13 <= len(families):
    wrong.append(f"metrics: only {sorted(families)}")
missing = [f"{p} {s}" for p, ways in doc["paths"].items() for w in ways.values() for s in w["responses"] if (p, s) not in seen]
json.dump({"wrong": wrong, "missing": missing, "families": sorted(families)}, sys.stdout)
"""
# Answers that no request brings about at will.
RARE = {"408", "500", "503", "504"}
RARE_AT = {"/v1/facts/{digest} 202", "/v1/facts/{digest} 502"}


def openapi(c, python, metrics):
    told = json.dumps({"seen": SEEN, "metrics": metrics})
    p = subprocess.run([python, "-c", INSIDE, OPENAPI, EVENTS / "harbor-openapi.yaml"], input=told, capture_output=True, text=True)
    if not c.ok(p.returncode == 0, "openapi: the validation runs", p.stderr[-600:]):
        return
    out = json.loads(p.stdout)
    unlike = sorted(set(out["wrong"]))
    for w in unlike[:40]:
        c.ok(False, w)
    c.ok(not unlike, f"openapi: {len(SEEN)} answers conform to docs/openapi.json and Harbor's specification, metrics parse", f"{len(unlike)} do not")
    never = [m for m in out["missing"] if m.split(" ")[1] not in RARE and m not in RARE_AT]
    c.ok(not never, "openapi: every documented answer was seen", str(never))


def generated(c, python, s):
    """Requests that schemathesis makes of the document: no 5xx that is not documented, answers as documented."""
    # 501 is an answer of the scanner specification.
    settings_ = s.dir / "schemathesis.toml"
    settings_.write_text('[checks]\nnot_a_server_error.expected-statuses = ["2xx", "3xx", "4xx", 501]\n')
    cmd = [python.parent / "st", "--no-color", "--config-file", settings_, "run", OPENAPI, "--url", f"http://127.0.0.1:{s.port}", "--phases",
           "examples,coverage,fuzzing", "--max-examples", "12", "--seed", "1",
           "--generation-database", "none", "--checks",
           "not_a_server_error,status_code_conformance,content_type_conformance,response_headers_conformance,response_schema_conformance",
           "--request-timeout", "20", "--max-redirects", "0", "--warnings", "off"]
    t0 = time.time()
    p = subprocess.run([str(x) for x in cmd], capture_output=True, text=True, cwd=s.dir, env=environment(s.dir / "home"))
    n = re.search(r"(\d+) generated", p.stdout)
    c.ok(p.returncode == 0 and n, f"schemathesis: {n[1] if n else 'no'} generated requests are answered as documented",
         p.stdout[-3000:] + p.stderr[-600:])
    c.note(f"schemathesis: {n[1] if n else '?'} requests, {time.time() - t0:.0f} s")


# -------------------------------------------------------------------------------------------------------------- main
def policy(values):
    return [x for k, v in values.items() for x in (f"--{k}", v)]


def main():
    a = arguments(__doc__, ("--only", {"nargs": "+", "metavar": "CASE", "help": "only these of the cases above"}))
    need("docker-registry", "skopeo", "openssl", "htpasswd")
    python = venv(a.cache / "venv-serve", PYPI)
    c, seconds = Checks("serve.py", a.verbose), {}

    def run(name, function, *args):
        if not a.only or name in a.only:
            t0 = time.time()
            function(*args)
            seconds[name] = seconds.get(name, 0) + time.time() - t0

    with tempfile.TemporaryDirectory(prefix="serve-") as tmp, ExitStack() as stack:
        tmp, enter = Path(tmp), stack.enter_context
        lint = Cudalint(a.binary, tmp / "home", c)
        images = a.images = Images(tmp / "images")
        images.all()
        layouts = images.dir
        top = lambda n: json.loads((layouts / n / "index.json").read_text())["manifests"][0]["digest"]
        digests = {n.name: top(n.name) for n in layouts.iterdir() if (n / "index.json").exists()}
        login = f"robot:{SECRETS['registry']}"
        registry, plain, tokens = enter(Registry()), enter(Registry("--auth", login)), enter(Registry("--token", login))
        tls, mutual = enter(Registry("--tls", "--auth", login)), enter(Registry("--mtls"))
        tokens.realm = re.search(r"realm: (\S+)", (tokens.path / "config.yml").read_text())[1]
        for name in digests:
            push(f"oci:{layouts / name}:v1", f"docker://{registry.host}/ml/{name}:v1", "--dest-tls-verify=false", "--all")
        for r, names in ((plain, ("broken", "cpu")), (tokens, ("lent",))):
            for name in names:
                push(f"oci:{layouts / name}:v1", f"docker://{r.host}/ml/{name}:v1", "--dest-tls-verify=false", "--dest-creds", login)
        nodes, file, few = node_list(), tmp / "nodes.json", tmp / "few.json"
        labelled = {n["metadata"]["name"] for n in nodes if "nvidia.com/gpu.product" in n["metadata"]["labels"] and n["metadata"]["name"] != "arm-a"}
        write = lambda f, items: f.write_text(json.dumps({"apiVersion": "v1", "kind": "List", "items": items}))
        write(file, nodes)
        write(few, [n for n in nodes if n["metadata"]["name"] in labelled])
        known = Known(lint, images, nodes, tmp)
        toolkit, certificates = policy(TOOLKIT), Tls(mutual, client=True)
        main_ = enter(Serve(c, a, tmp / "main", "--mode", "enforce", "--wait", "5s", "--namespace-mode", "warn-*=warn,audit-*=audit", *toolkit,
                            nodes=file))
        several = {k: enter(Serve(c, a, tmp / f"doubts-{k}", "--mode", "enforce", "--wait", "30s", "--tag-age", "1s", *policy(v), nodes=file)) for k,
                   v in DOUBTS.items()}
        restricted = enter(Serve(c, a, tmp / "clients", "--mode", "enforce", "--wait", "5s", *toolkit, "--clients",
                                 clients_file(tmp / "clients.toml", [f"{registry.host}/ml/runs", f"{registry.host}/ml/pu*"]), nodes=few,
                                 tls=Tls(tls)))
        told = enter(Serve(c, a, tmp / "notified", "--attach", "--clients", clients_file(tmp / "all.toml"), *toolkit, nodes=few))
        hook = enter(Notifying(tmp / "hook", f"http://127.0.0.1:{told.port}/v1/notify", SECRETS["ci"]))
        silent = enter(Silent())
        warm = [f"{registry.host}/ml/{n}:v1" for n in ("runs", "broken", "strict", "ngc", "cpu", "multi")]
        c.eq(main_.ask("POST", "/v1/notify", {"images": warm}).status, 202, "images are named to the server")
        for image in warm:
            c.eq(main_.check(image).status, 200, f"{image.split('/')[-1]} is known")
        run("samples", samples, c, main_, known, registry.host, digests)
        run("affinity", affinity, c, main_, known, registry.host)
        run("modes", modes, c, main_, registry.host, digests)
        run("modes", elsewhere, c, restricted, f"{registry.host}/ml/warm:v1", "nodes of one architecture", SECRETS["harbor"])
        run("modes", elsewhere, c, main_, f"{registry.host}/ml/warm:v1", "nodes of two architectures")
        run("notifications", platforms, c, main_)
        run("doubts", doubts, c, several, registry.host, digests, silent.host)
        run("dry", dry, c, main_, several["b"], registry, digests, layouts)
        run("malformed", malformed, c, main_, registry.host)
        run("check", check, c, several["a"], a, lint, registry.host, file, silent.host, digests)
        run("gatekeeper", gatekeeper, c, restricted, known.among(labelled), registry.host, digests, silent.host)
        run("harbor", harbor, c, restricted, known.among(labelled), plain, tokens, enter(OneHost(tokens)), digests)
        run("clients", clients, c, restricted, registry.host, digests)
        run("clients", closed, c, enter(Serve(c, a, tmp / "closed", "--listen", "0.0.0.0:0", "--allow-registry", "127.0.0.1:*", "--nodes", few,
                                              "--tls-cert", mutual.path / "server.crt", "--tls-key",
                                              mutual.path / "server.key", "--cache-dir", tmp / "closed-cache", tls=Tls(mutual), bare=True)),
            registry.host)
        run("notifications", notifications, c, told, hook, registry, layouts, digests)
        run("operation", operation, c, main_)
        run("operation", options, c, a, tmp, lint, few, filled(tls, layouts, login), certificates, digests)
        run("operation", wrong_options, c, lint, tmp, file)
        run("openapi", generated, c, python, several["c"])
        metrics = [s.ask("GET", "/metrics").body.decode() for s in (main_, restricted, told, *several.values())]
        if not a.only:
            run("openapi", openapi, c, python, metrics)
    c.note(", ".join(f"{k} {v:.0f} s" for k, v in seconds.items()))
    c.end()


def filled(registry, layouts, login):
    """The registry with TLS and a login, with an image in it."""
    push(f"oci:{layouts / 'broken'}:v1", f"docker://{registry.host}/ml/broken:v1", "--dest-creds", login, "--dest-tls-verify=false")
    return registry


if __name__ == "__main__":
    main()
