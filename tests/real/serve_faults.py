#!/usr/bin/env python3
"""The server when something else fails, is slow, lies or attacks, and what one tenant may learn of another.

  serve_faults.py [--binary PATH] [--cache DIR] [-v] [--only CASE ...]

Registries, stores and the API server are small ones in this process, so that every fault is exact; what a real API server sends
stands in fixtures/serve/recorded.

  recorded           requests, list and watch of kube-apiserver 1.36.2, and the same answers as live
  tenants            clients by token: facts, checks, scans, reports and notifications of another's image are as of none
  repositories       facts known through one repository are not given through another that does not have all of the image
  logins             the scanner adapter reads with the login of its request and no other
  nowhere_else       no connection to registries that are not allowed, nor to what a registry names on this machine
  liar               a registry that says it has a layer, which it never sends, does not get the facts of that layer
  killed             SIGKILL after promises, at four moments; a journal that was cut: no promised image is lost
  twice              two servers on one state directory
  state_full         a full disk under the state directory, and directories that cannot be used
  registry           fourteen faults of registries at the same time beside one that is well, and all well again
  hosts              two registries that hang, and a third
  same_layer         a layer that trickles from one registry, and comes at once from another
  base_layer         many images on a large layer that is being read, and one that is not on it
  policies           --failed and --cold in each mode
  watched            the watch of nodes: 403, cut in the middle of a line, 410, 500, down; heartbeats; 1234 nodes
  file_of_nodes      --nodes FILE: replaced, broken, renamed into place, removed
  shared_store       a shared HTTP store that refuses, fails or hangs, and is back
  shared_directory   a shared directory that goes, and the local one
  certificates       rotated as the kubelet does it, files one after the other, wrong pairs
  bodies             10 MB, endless announcements, malformed ones
  slowloris          headers, bodies and handshakes byte by byte, and silence
  crowd              more connections than there are places for
  many_streams       300 requests at once on HTTP/2
  overload           cold images, overrides and missing images by the hundred
  stopped            SIGTERM during load and with idle connections
  clock              jumps of the clock
"""
import base64
import hashlib
import http.client
import io
import json
import os
import re
import resource
import shutil
import socket
import ssl
import subprocess
import tarfile
import tempfile
import threading
import time
import traceback
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

from common import REPO, Checks, Served, arguments, environment, need, short

RECORDED = REPO / "fixtures/serve/recorded"
OCI = "application/vnd.oci.image."
MANIFEST, INDEX = OCI + "manifest.v1+json", OCI + "index.v1+json"
GPU = "nvidia.com/gpu"


# ----------------------------------------------------------------------------------------------------------- images
class Image:
    """The demo image of the fixtures, which runs on an H100, with a layer of its own; or one with code for older GPUs alone."""

    def __init__(self, fails=False, salt="", layers=1, size=300_000):
        layout = REPO / "fixtures/images/demo"
        read = lambda d: (layout / "blobs/sha256" / d[7:]).read_bytes()
        manifest = json.loads(read(json.loads((layout / "index.json").read_text())["manifests"][0]["digest"]))
        config = json.loads(read(manifest["config"]["digest"]))
        self.blobs = {}
        rows = [(l["digest"], read(l["digest"]), l["mediaType"], d) for l, d in zip(manifest["layers"], config["rootfs"]["diff_ids"])]
        for n in range(layers):
            files = {f"srv/{n}": (salt or "-").encode() + bytes(size if layers > 1 else 0)}
            if fails and not n:
                files["usr/lib/x86_64-linux-gnu/libdemo_old.so"] = (REPO / "fixtures/code/libdemo_old.so").read_bytes()
            raw = tar(files)
            rows.append((digest(raw), raw, OCI + "layer.v1.tar", digest(raw)))
        root = {"type": "layers", "diff_ids": [r[3] for r in rows]}
        config = {"architecture": "amd64", "os": "linux", "config": config["config"], "rootfs": root, "history": []}
        config = json.dumps(config).encode()
        doc = {"schemaVersion": 2, "mediaType": MANIFEST, "config": {"mediaType": OCI + "config.v1+json", "digest": digest(config), "size": len(config)},
               "layers": [{"mediaType": k, "digest": d, "size": len(b)} for d, b, k, _ in rows]}
        self.finish(doc, {digest(config): config, **{d: b for d, b, _, _ in rows}})

    def over(self, base):
        """The same on the last layer of another image."""
        first = base.doc["layers"][-1]
        config = json.loads(self.blobs.pop(self.config))
        config["rootfs"]["diff_ids"].insert(0, first["digest"])
        config = json.dumps(config).encode()
        doc = {**self.doc, "config": {**self.doc["config"], "digest": digest(config), "size": len(config)}, "layers": [first, *self.doc["layers"]]}
        self.finish(doc, {**self.blobs, digest(config): config, first["digest"]: base.blobs[first["digest"]]})
        return self

    def finish(self, doc, blobs):
        self.doc, self.blobs, self.manifest = doc, blobs, json.dumps(doc).encode()
        self.digest, self.config, self.layers = digest(self.manifest), doc["config"]["digest"], [l["digest"] for l in doc["layers"]]


def tar(files):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as t:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            t.addfile(info, io.BytesIO(data))
    return out.getvalue()


def digest(data):
    return "sha256:" + hashlib.sha256(data).hexdigest()


class Fake(Served):
    """A registry in this process. `fault(handler, kind, repository, reference)` may answer in its place: true where it has."""

    def __init__(self, host="127.0.0.1", port=0, logins=None, anonymous=True):
        self.blobs, self.manifests, self.log, self.fault, self.realm = {}, {}, [], None, None
        self.logins, self.anonymous, self.redirect = logins or {}, anonymous, None
        registry = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_):
                pass

            def handle(self):
                try:
                    super().handle()
                except OSError:
                    pass

            def say(self, status, body=b"", kind="application/json", **headers):
                self.send_response(status)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(body)))
                for k, v in headers.items():
                    self.send_header(k.replace("_", "-"), v)
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(body)

            def do_GET(self):
                registry.log.append((time.time(), self.command, self.path, self.headers.get("Authorization") or ""))
                registry.answer(self)

            do_HEAD = do_GET

        class Server(ThreadingHTTPServer):
            daemon_threads, request_queue_size = True, 256

        self.server = Server((host, port), Handler)
        self.server.handle_error = lambda *_: None
        self.port = self.server.server_port
        self.host = f"{host}:{self.port}"

    def put(self, repository, tag, image, without=()):
        m = self.manifests.setdefault(repository, {})
        m[tag] = m[image.digest] = (MANIFEST, image.manifest)
        self.blobs.setdefault(repository, {}).update({d: b for d, b in image.blobs.items() if d not in without})
        return f"{self.host}/{repository}@{image.digest}"

    def raw(self, repository, tag, kind, body):
        m = self.manifests.setdefault(repository, {})
        m[tag] = m[digest(body)] = (kind, body)
        return digest(body)

    def answer(self, h):
        found = re.match(r"/v2/(.+)/(manifests|blobs)/([^/?]+)", h.path)
        repository, kind, ref = found.groups() if found else ("", "base", "")
        if self.fault and self.fault(h, kind, repository, ref):
            return
        if kind == "base":
            return h.say(200, b"{}") if not self.realm else h.say(401, WWW_Authenticate=f'Bearer realm="{self.realm}",service="x"')
        if self.realm and "Bearer" not in (h.headers.get("Authorization") or ""):
            return h.say(401, WWW_Authenticate=f'Bearer realm="{self.realm}",service="x"')
        wanted = self.logins.get(repository)
        if wanted:
            shown = h.headers.get("Authorization") or ""
            got = base64.b64decode(shown[6:]).decode() if shown.startswith("Basic ") else None
            if got != wanted:
                return h.say(401, b'{"errors":[{"code":"UNAUTHORIZED"}]}', WWW_Authenticate='Basic realm="x"')
        if kind == "manifests":
            stored = self.manifests.get(repository, {}).get(ref)
            if stored:
                return h.say(200, stored[1], stored[0], Docker_Content_Digest=digest(stored[1]))
            return h.say(404, b'{"errors":[{"code":"MANIFEST_UNKNOWN"}]}')
        blob = self.blobs.get(repository, {}).get(ref)
        if blob is None:
            return h.say(404, b'{"errors":[{"code":"BLOB_UNKNOWN"}]}')
        if self.redirect:
            return h.say(307, Location=self.redirect)
        h.say(200, blob, "application/octet-stream", Docker_Content_Digest=ref)

    def asked(self, word="", method=None):
        return [(m, p) for _, m, p, _ in list(self.log) if word in p and method in (None, m)]


class Counting(Served):
    """A port that only counts who comes."""

    def __init__(self, host="127.0.0.1"):
        self.came = []
        owner = self

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *_):
                pass

            def do_GET(self):
                owner.came.append(self.path)
                self.send_response(200)
                self.send_header("Content-Length", "0")
                self.end_headers()

            do_HEAD = do_POST = do_GET

            def handle(self):
                owner.came.append("connection")
                try:
                    super().handle()
                except OSError:
                    pass

        self.server = ThreadingHTTPServer((host, 0), Handler)
        self.port = self.server.server_port


# ----------------------------------------------------------------------------------------------------------- server
class Answer:
    def __init__(self, status, headers, body):
        self.status, self.headers, self.body = status, headers, body

    @property
    def doc(self):
        return json.loads(self.body)

    def __str__(self):
        return f"{self.status} {short(self.body.decode(errors='replace'), 400)}"


class Serve:
    """`cudalint serve` in a directory of its own. Ended, and looked at for panics, when the block ends."""
    all = []

    def __init__(self, c, a, dir, *options, nodes=None, state=True, allow="127.0.0.1:*", tls=None, env=None, wait="1s", log="debug", prefix=()):
        self.c, self.dir, self.tls, self.extra, self.prefix = c, Path(dir), tls, env or {}, list(prefix)
        self.dir.mkdir(parents=True, exist_ok=True)
        cmd = [str(a.binary), "serve", "--listen", "127.0.0.1:0", "--cache-dir", str(self.dir / "cache"), "--wait", wait,
               "--log-level", log, "--as-of", "2026-06-01"]
        cmd += ["--state-dir", str(self.dir / "state")] if state else []
        cmd += ["--allow-registry", allow] if allow else []
        if nodes is None and "--targets" not in options and "--nodes" not in options:
            nodes = self.dir / "nodes.json"
            if not nodes.exists():
                nodes.write_text(node_list())
        cmd += ["--nodes", str(nodes)] if nodes else []
        cmd += ["--tls-cert", str(tls / "tls.crt"), "--tls-key", str(tls / "tls.key")] if tls else []
        self.cmd = self.prefix + cmd + list(map(str, options))
        self.err = self.dir / "log"
        self.p = None

    def __enter__(self):
        return self if self.p and self.p.poll() is None else self.start()

    def start(self, expect=True):
        self.dir.joinpath("home").mkdir(exist_ok=True)
        at = self.err.stat().st_size if self.err.exists() else 0
        with open(self.err, "ab") as e:
            self.p = subprocess.Popen(self.cmd, stdin=subprocess.DEVNULL, stdout=e, stderr=e, env={**environment(self.dir / "home"), **self.extra})
        Serve.all.append(self.p)
        until = time.time() + 30
        while time.time() < until:
            text = self.err.read_bytes()[at:].decode(errors="replace")
            found = re.search(r'"message":"listening","address":"([^"]+)"', text)
            if found:
                self.address = found[1]
                self.port = int(found[1].rsplit(":", 1)[1])
                return self
            if self.p.poll() is not None:
                break
            time.sleep(0.02)
        if expect:
            raise RuntimeError(f"the server did not start: {short(text[-600:])}")
        self.said = text
        return self

    def kill(self):
        self.p.kill()
        self.p.wait()

    def stop(self, within=30):
        if self.p.poll() is None:
            self.p.terminate()
            try:
                self.p.wait(within)
            except subprocess.TimeoutExpired:
                self.c.ok(False, f"{self.dir.name}: ends after SIGTERM")
                self.kill()
        return self.p.returncode

    def __exit__(self, *_):
        if self.p and self.p.poll() is None:
            rc = self.stop()
            self.c.eq(rc, 0, f"{self.dir.name}: exit status after SIGTERM")
        text = self.log()
        self.c.ok("panicked" not in text and "fault of cudalint" not in text, f"{self.dir.name}: no panic",
                  "; ".join(l for l in text.splitlines() if "panicked" in l or "fault of" in l)[:400])

    def log(self):
        return self.err.read_text(errors="replace")

    def lines(self, word=""):
        out = []
        for l in self.log().splitlines():
            if word in l and l.startswith("{"):
                out.append(json.loads(l))
        return out

    def rss(self, peak=False):
        m = re.search(r"%s:\s+(\d+) kB" % ("VmHWM" if peak else "VmRSS"), Path(f"/proc/{self.p.pid}/status").read_text())
        return int(m[1]) / 1024

    def connect(self, timeout=40):
        if self.tls:
            ctx = ssl.create_default_context(cafile=str(self.tls / "ca.crt")) if (self.tls / "ca.crt").exists() else ssl._create_unverified_context()
            return http.client.HTTPSConnection("localhost", self.port, timeout=timeout, context=ctx)
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)

    def ask(self, method, path, body=None, con=None, timeout=40, **headers):
        own = con or self.connect(timeout)
        if isinstance(body, (dict, list)):
            body = json.dumps(body).encode()
            headers.setdefault("Content_Type", "application/json")
        own.request(method, path, body, {k.replace("_", "-"): v for k, v in headers.items()})
        r = own.getresponse()
        out = Answer(r.status, r.headers, r.read())
        if not con:
            own.close()
        return out

    def admit(self, image, timeout=10, **kw):
        """(allowed, state, message, seconds) of a pod."""
        t0 = time.time()
        r = self.ask("POST", f"/v1/admit?timeout={timeout}s", review(image, **kw))
        took = time.time() - t0
        if r.status != 200:
            return (None, r.status, r.body.decode(errors="replace"), took)
        s = r.doc["response"]
        said = s.get("status", {}).get("message", "") or " ".join(s.get("warnings", []))
        return (s["allowed"], s.get("auditAnnotations", {}).get("verdict", "not-asked"), said, took)

    def until(self, image, states, seconds=60, **kw):
        """Admits until the state is one of those; the last answer."""
        end = time.time() + seconds
        while True:
            got = self.admit(image, **kw)
            if got[1] in states or time.time() > end:
                return got
            time.sleep(0.1)

    def check(self, image, wait=15, token=None):
        return self.ask("POST", "/v1/check", {"image": image, "wait": wait}, **({"Authorization": f"Bearer {token}"} if token else {}))

    def notify(self, *images, **headers):
        return self.ask("POST", "/v1/notify", {"images": list(images)}, **headers)

    def metric(self, name):
        text = self.ask("GET", "/metrics").body.decode()
        return sum(float(l.rsplit(" ", 1)[1]) for l in text.splitlines() if re.match(re.escape(name) + r"[ {]", l))


uids = iter(range(1, 10 ** 9))


def pod(image, name="p", gpu=True, **spec):
    c = {"name": "c", "image": image}
    if gpu:
        c["resources"] = {"limits": {GPU: "1"}}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": "ml"}, "spec": {"containers": [c], **spec}}


def review(image, operation="CREATE", dry=False, old=None, env=None, **spec):
    obj = pod(image, **spec)
    if env:
        obj["spec"]["containers"][0]["env"] = [{"name": k, "value": v} for k, v in env.items()]
    return {"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": {
        "uid": f"u{next(uids)}", "kind": {"group": "", "version": "v1", "kind": "Pod"}, "resource": {"group": "", "version": "v1", "resource": "pods"},
        "name": "p", "namespace": "ml", "operation": operation, "userInfo": {}, "object": obj, "oldObject": old, "dryRun": dry, "options": None}}


def node(name, product="NVIDIA-H100-80GB-HBM3", capability=(9, 0), driver="550.90.07", cuda=(12, 4), version="1"):
    major, minor, rev = driver.split(".")
    p = "nvidia.com/"
    labels = {p + "cuda.driver-version.full": driver, p + "cuda.driver-version.major": major, p + "cuda.driver-version.minor": minor,
              p + "cuda.driver-version.revision": rev, p + "cuda.driver.major": major, p + "cuda.driver.minor": minor, p + "cuda.driver.rev": rev,
              p + "cuda.runtime-version.full": f"{cuda[0]}.{cuda[1]}", p + "cuda.runtime-version.major": str(cuda[0]),
              p + "cuda.runtime-version.minor": str(cuda[1]), p + "gpu.compute.major": str(capability[0]), p + "gpu.compute.minor": str(capability[1]),
              p + "gpu.product": product, p + "gpu.count": "1", p + "gpu.replicas": "1", p + "gpu.memory": "81559", p + "gpu.present": "true",
              p + "mig.capable": "false", p + "gpu.sharing-strategy": "none", "kubernetes.io/arch": "amd64", "kubernetes.io/os": "linux",
              "kubernetes.io/hostname": name}
    return {"apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "uid": "u-" + name, "resourceVersion": version, "labels": labels},
            "spec": {}, "status": {"allocatable": {GPU: "1", "cpu": "8", "memory": "64Gi", "pods": "110"},
                                   "capacity": {GPU: "1"}, "conditions": [{"type": "Ready", "status": "True"}],
                                   "nodeInfo": {"architecture": "amd64", "operatingSystem": "linux"}}}


T4 = dict(product="Tesla-T4", capability=(7, 5))


def node_list(*nodes):
    return json.dumps({"apiVersion": "v1", "kind": "List", "items": list(nodes or [node("h100")])})


def wait_for(what, seconds=20, pause=0.05):
    end = time.time() + seconds
    while time.time() < end:
        got = what()
        if got:
            return got
        time.sleep(pause)
    return what()


STRICT = ("--mode", "enforce", "--cold", "deny", "--failed", "deny", "--unknown", "deny")


def elsewhere():
    """An address of this machine that is not loopback; None where it has none."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        try:
            s.connect(("192.0.2.254", 9))
            return None if s.getsockname()[0].startswith("127.") else s.getsockname()[0]
        except OSError:
            return None


def clients_file(path, **tokens):
    """name=(token, globs or None)"""
    path.write_text("".join(f'[[client]]\nname = "{n}"\ntoken-sha256 = "{hashlib.sha256(t.encode()).hexdigest()}"\n'
                            + (f"repositories = {json.dumps(g)}\n" if g else "") for n, (t, g) in tokens.items()))
    return path


def no_secret(c, s, what, *secrets, answers=()):
    texts = {"log": s.log(), "metrics": s.ask("GET", "/metrics").body.decode(), "answers": "\n".join(map(str, answers))}
    state = s.dir / "state/journal.ndjson"
    texts["journal"] = state.read_text(errors="replace") if state.exists() else ""
    for secret in secrets:
        for form in (secret, base64.b64encode(secret.encode()).decode(), base64.b64encode(("u:" + secret).encode()).decode()):
            for where, text in texts.items():
                c.ok(form not in text, f"{what}: no secret in {where}", form)


def scan(s, host, repository, digest, authorization="", token=None, wait=30):
    """A scan of the scanner adapter: (status of the request, status of the report, report)."""
    own = {"Authorization": f"Bearer {token}"} if token else {}
    r = s.ask("POST", "/api/v1/scan", {"registry": {"url": f"http://{host}", "authorization": authorization},
                                       "artifact": {"repository": repository, "digest": digest, "mime_type": MANIFEST}}, **own)
    if r.status != 202:
        return r.status, None, r
    end = time.time() + wait
    while True:
        got = s.ask("GET", f"/api/v1/scan/{r.doc['id']}/report", **own)
        if got.status != 302 or time.time() > end:
            return r.status, got.status, got
        time.sleep(0.2)


# -------------------------------------------------------------------------------------------------------- isolation
def tenants(c, a, t):
    with Fake() as r:
        mine, other = Image(salt="tenant a"), Image(salt="tenant b")
        ref = r.put("a/x", "v1", mine)
        r.put("b/y", "v1", other)
        file = clients_file(t / "clients.toml", a=("token-of-a", [f"{r.host}/a/**"]), b=("token-of-b", [f"{r.host}/b/**"]))
        with Serve(c, a, t / "tenants", "--clients", file, *STRICT) as s:
            A, B = {"Authorization": "Bearer token-of-a"}, {"Authorization": "Bearer token-of-b"}
            got = s.check(ref, token="token-of-a")
            c.eq(got.status, 200, "tenants: a client's own image")
            own = s.ask("GET", f"/v1/facts/{mine.digest}", **A)
            c.ok(own.status == 200 and own.doc["facts_schema"], "tenants: facts of a client's own image", str(own))
            unknown = s.ask("GET", f"/v1/facts/sha256:{'0' * 64}", **B)
            others = s.ask("GET", f"/v1/facts/{mine.digest}", **B)
            whole = lambda got: (got.status, got.body, {k.lower(): v for k, v in got.headers.items() if k.lower() != "date"})
            c.ok(others.status == 404 and whole(others) == whole(unknown), "tenants: facts of another's image are like those of none", f"{others} / {unknown}")
            for d in (mine.config, *mine.layers):
                c.eq(s.ask("GET", f"/v1/facts/{d}", **A).status, 404, "tenants: a blob's digest is no image's")
            c.eq(s.check(ref, token="token-of-b").status, 403, "tenants: a check of another's image")
            c.eq(s.check(f"{r.host}/a/nothing:1", token="token-of-b").status, 403, "tenants: a check of what is not even there")
            c.eq(scan(s, r.host, "a/x", mine.digest, token="token-of-b")[0], 422, "tenants: a scan of another's image")
            for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": "Basic " + base64.b64encode(b"u:wrong").decode()}):
                for method, path, body in (("GET", f"/v1/facts/{mine.digest}", None), ("POST", "/v1/check", {"image": ref}),
                                           ("POST", "/v1/notify", {"images": [ref]}), ("GET", "/api/v1/metadata", None),
                                           ("POST", "/api/v1/scan", {}), ("GET", "/api/v1/scan/x/report", None)):
                    c.eq(s.ask(method, path, body, **headers).status, 401, f"tenants: {method} {path} by nobody")
            made = s.ask("POST", "/api/v1/scan", {"registry": {"url": f"http://{r.host}", "authorization": ""},
                                                  "artifact": {"repository": "a/x", "digest": mine.digest}}, **A)
            path = f"/api/v1/scan/{made.doc['id']}/report"
            c.eq(wait_for(lambda: s.ask("GET", path, **A).status == 200), True, "tenants: the report of a client's own scan")
            theirs, none = s.ask("GET", path, **B), s.ask("GET", f"/api/v1/scan/{'0' * 32}/report", **B)
            c.ok((theirs.status, theirs.body) == (none.status, none.body) == (404, none.body), "tenants: another's report is like none", str(theirs))
            n = len(r.log)
            got = s.notify(ref, f"{r.host}/b/y@{other.digest}", **B)
            c.eq((got.status, got.doc), (202, {"queued": 1, "ignored": 1}), "tenants: a notification of another's image is not heeded")
            c.eq(wait_for(lambda: s.ask("GET", f"/v1/facts/{other.digest}", **B).status == 200), True, "tenants: one's own is")
            c.eq([p for _, p in r.asked("/a/x/")[n:]], [], "tenants: nothing is asked for it")
            no_secret(c, s, "tenants", "token-of-a", "token-of-b")


def repositories(c, a, t):
    with Fake() as r, Serve(c, a, t / "repositories", *STRICT) as s:
        image = Image(salt="secret base")
        ref = r.put("a/x", "v1", image)
        c.eq(s.until(ref, ("runs",))[:2], (True, "runs"), "repositories: known through one")
        c.eq(s.admit(f"{r.host}/b/x@{image.digest}")[:2], (False, "failed"), "repositories: not through one that does not have it")
        r.manifests["c/x"] = dict(r.manifests["a/x"])
        c.eq(s.admit(f"{r.host}/c/x@{image.digest}")[:2], (False, "failed"), "repositories: not through one with its manifest alone")
        r.put("d/x", "v1", image, without=(image.layers[-1],))
        c.eq(s.admit(f"{r.host}/d/x@{image.digest}")[:2], (False, "failed"), "repositories: not through one that lacks a layer")
        r.blobs["e/x"] = dict(image.blobs)
        c.eq(s.admit(f"{r.host}/e/x@{image.digest}")[:2], (False, "failed"), "repositories: not through one that lacks its manifest")
        r.put("f/x", "v1", image)
        c.eq(s.until(f"{r.host}/f/x@{image.digest}", ("runs",))[:2], (True, "runs"), "repositories: through one that has it all")
        c.eq(r.asked("/f/x/blobs/" + image.layers[-1], "GET"), [], "repositories: and no layer is read again")
        # A manifest of an attacker's own, with the layer of somebody else in it.
        theirs = Image(salt="attacker")
        theirs.finish({**theirs.doc, "layers": [theirs.doc["layers"][0], *image.doc["layers"][1:]]}, theirs.blobs)
        ref = r.put("g/x", "v1", theirs)
        got = s.admit(ref)
        c.ok(got[:2] == (False, "failed") and "libdemo" not in got[2], "repositories: a manifest does not give what its repository does not have", got)
        c.eq(s.check(ref).status, 502, "repositories: nor to a check")
        c.eq(scan(s, r.host, "g/x", theirs.digest)[1], 500, "repositories: nor to a scan")
        c.eq(s.ask("GET", f"/v1/facts/{theirs.digest}").status, 404, "repositories: nor are there facts")


def liar(c, a, t):
    with Fake() as r, Fake() as evil, Serve(c, a, t / "liar", *STRICT) as s:
        image = Image(salt="victim")
        c.eq(s.until(r.put("a/x", "v1", image), ("runs",))[1], "runs", "liar: an image of somebody else is known")
        theirs = Image(fails=True, salt="liar")
        theirs.finish({**theirs.doc, "layers": [theirs.doc["layers"][0], *image.doc["layers"][1:]]}, theirs.blobs)
        ref = evil.put("e/x", "v1", theirs)
        sizes = {l["digest"]: l["size"] for l in theirs.doc["layers"]}

        def lie(h, kind, repository, what):
            if h.command != "HEAD" or what not in sizes:
                return False
            h.send_response(200)
            h.send_header("Content-Length", str(sizes[what]))
            h.end_headers()
            return True
        evil.fault = lie
        c.ok(s.admit(ref)[1] in ("failed", "cold"), "liar: its pod is not judged by another's layers")
        got = s.ask("GET", f"/v1/facts/{theirs.digest}")
        c.ok(got.status != 200, "liar: nor are facts of them given", f"{got.status}, with {len(got.body)} bytes")


def logins(c, a, t):
    """The scanner adapter reads with the login that comes with the request."""
    with Fake(logins={"p/x": "u:right-secret", "q/x": "u:other-secret"}) as r:
        image = Image(salt="private")
        r.put("p/x", "v1", image)
        r.put("q/x", "v1", image)
        auth = t / "auth.json"
        auth.write_text(json.dumps({"auths": {r.host: {"auth": base64.b64encode(b"u:right-secret").decode()}}}))
        basic = lambda x: "Basic " + base64.b64encode(x.encode()).decode()
        with Serve(c, a, t / "logins", "--authfile", auth, *STRICT) as s:
            ref = f"{r.host}/p/x@{image.digest}"
            c.eq(s.until(ref, ("runs",))[:2], (True, "runs"), "logins: known with the server's own")
            n, answers = len(r.log), []
            for login, what in (("", "no login"), (basic("u:wrong-secret"), "a wrong login"), (basic("u:other-secret"), "another repository's login"),
                                ("Bearer wrong-token", "a wrong token")):
                for repeat in range(2):
                    got = scan(s, r.host, "p/x", image.digest, login)
                    answers.append(got[2])
                    c.ok(got[0] == 202 and got[1] == 500 and b"vulnerabilities" not in got[2].body, f"logins: no report with {what}", str(got[2]))
            shown = {x[3] for x in r.log[n:]}
            c.ok(basic("u:right-secret") not in shown, "logins: the server's own login is never sent for a scan")
            got = scan(s, r.host, "p/x", image.digest, basic("u:right-secret"))
            c.eq(got[:2], (202, 200), "logins: a report with the right login")
            c.eq([p for _, p in r.asked("/blobs/" + image.layers[-1], "GET")], [f"/v2/p/x/blobs/{image.layers[-1]}"], "logins: layers are read once")
            got = scan(s, r.host, "q/x", image.digest, basic("u:right-secret"))
            c.eq(got[:2], (202, 500), "logins: the right login of another repository gives nothing here")
            c.eq(s.admit(f"{r.host}/q/x@{image.digest}")[:2], (False, "failed"), "logins: nor does the server's own")
            c.eq(scan(s, r.host, "p/x", image.digest, "Negotiate x")[0], 422, "logins: another scheme is refused")
            no_secret(c, s, "logins", "right-secret", "wrong-secret", "other-secret", "wrong-token", answers=answers)


def nowhere_else(c, a, t):
    """No connection but to registries that are allowed, and to nothing that they name on this machine."""
    with Counting() as port, Fake() as r:
        image = Image(salt="ssrf")
        inside = f"127.0.0.1:{port.port}"
        with Serve(c, a, t / "allowed", *STRICT, allow=f"{r.host},{inside}/ok/**") as s:
            for ref in (f"{inside}/x/y:1", f"{inside}/ok:1", f"localhost:{port.port}/ok/x:1", f"127.1:{port.port}/ok/x:1",
                        f"[::1]:{port.port}/ok/x:1", f"{r.host}@{inside}/x:1", f"{inside}/ok/../x/y:1", f"0.0.0.0:{port.port}/ok/x:1"):
                s.admit(ref)
                s.check(ref, wait=1)
                s.ask("POST", "/gatekeeper/v1/validate", {"apiVersion": "externaldata.gatekeeper.sh/v1beta1", "kind": "ProviderRequest",
                                                          "request": {"keys": [ref]}})
                s.notify(ref)
            for url in (f"http://{inside}", f"http://u:p@{inside}", f"http://{r.host}@{inside}", f"http://{inside}/#{r.host}",
                        f"http://{inside}?{r.host}"):
                s.ask("POST", "/api/v1/scan", {"registry": {"url": url, "authorization": "Basic dTpw"},
                                               "artifact": {"repository": "x/y", "digest": image.digest}})
            # Notifications of every form, with an URL to somewhere else.
            s.ask("POST", "/v1/notify", {"events": [{"action": "push", "target": {"mediaType": MANIFEST, "digest": image.digest, "repository": "x/y",
                                                     "url": f"http://{inside}/v2/x/y/manifests/1"}, "request": {"host": inside}}]})
            time.sleep(1)
            c.eq(port.came, [], "nowhere else: no connection to a registry that is not allowed")
    address = elsewhere()
    if not address:
        return c.note("skipped: redirects and realms of a registry that is not on loopback, because this machine has no other address")
    image = Image(salt="from elsewhere")
    with Counting() as port, Fake(host=address) as r:
        ref = r.put("a/x", "v1", image)
        bait = [f"http://127.0.0.1:{port.port}", f"http://localhost:{port.port}", f"http://[::1]:{port.port}", f"http://2130706433:{port.port}",
                f"http://[::ffff:127.0.0.1]:{port.port}", f"http://0.0.0.0:{port.port}", f"http://0x7f.1:{port.port}"]
        with Serve(c, a, t / "elsewhere", "--insecure", *STRICT, allow=f"{address}:*") as s:
            bait += ["http://169.254.169.254/latest/meta-data", "http://metadata.google.internal/computeMetadata/v1", "file:///etc/passwd"]
            for n, to in enumerate(bait):
                one = Image(salt=f"redirect {n}")
                ref = r.put("a/r", f"r{n}", one)
                r.redirect = to + "/x"
                got = s.admit(ref, timeout=5)
                c.ok(got[0] is False, f"nowhere else: a redirect of blobs to {to}", got)
                r.redirect = None
                r.realm = to + "/token"
                one = Image(salt=f"realm {n}")
                got = s.admit(r.put("a/t", f"t{n}", one), timeout=5)
                c.ok(got[0] is False, f"nowhere else: a token realm at {to}", got)
                r.realm = None
                foreign = Image(salt=f"foreign {n}")
                rows = foreign.doc["layers"]
                foreign.finish({**foreign.doc, "layers": [*rows[:-1], {**rows[-1], "urls": [to + "/layer"],
                                "mediaType": "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"}]}, foreign.blobs)
                s.admit(r.put("a/f", f"f{n}", foreign, without=(foreign.layers[-1],)), timeout=5)
            c.eq(port.came, [], "nowhere else: what a registry names on this machine is not asked")
            c.eq(s.until(r.put("a/x", "v1", image), ("runs",))[:2], (True, "runs"), "nowhere else: the registry itself is read")


# ------------------------------------------------------------------------------------------------------------ kill -9
def trickle(h, body, seconds, step=0.1):
    """A body that takes its time."""
    h.send_response(200)
    h.send_header("Content-Length", str(len(body)))
    h.end_headers()
    n = max(1, int(seconds / step))
    size = -(-len(body) // n)
    for at in range(0, len(body), size):
        h.wfile.write(body[at:at + size])
        h.wfile.flush()
        time.sleep(step)


def known(s, ref, seconds=30):
    """Whether an image gets known without being asked for: a dry run looks at nothing."""
    return s.until(ref, ("runs",), seconds, dry=True)[1] == "runs"


def killed(c, a, t):
    with Fake() as r:
        refs = [r.put("k/x", f"v{n}", Image(salt=f"k{n}", layers=3)) for n in range(12)]
        slow = lambda h, kind, repository, ref: kind == "blobs" and h.command == "GET" and ref in r.blobs["k/x"] and \
            len(r.blobs["k/x"][ref]) > 200_000 and (trickle(h, r.blobs["k/x"][ref], 1.5) or True)
        s = Serve(c, a, t / "killed", *STRICT, log="info")
        promised = []
        for moment, pause in (("at once after the answer", 0), ("while manifests are read", 0.15), ("while layers are read", 1.2), ("later", 2.5)):
            r.fault = slow
            s.start()
            for ref in refs[len(promised):len(promised) + 3]:
                got = s.notify(ref)
                c.eq((got.status, got.doc), (202, {"queued": 1, "ignored": 0}), f"killed: a promise ({moment})")
                promised.append(ref)
            time.sleep(pause)
            s.kill()
        journal = s.dir / "state/journal.ndjson"
        c.ok(journal.read_text().count('"want"') >= 1, "killed: promises are in the journal")
        # A line that was cut in the middle of being written, and one that no version wrote.
        with open(journal, "ab") as f:
            f.write(b'{"something":"else"}\n\xff\xfe\n{"want":{"id":99999,"reference":"' + refs[0].encode()[:20])
        r.fault = None
        with s.start():
            lost = [x for x in promised if not known(s, x)]
            c.ok(not lost, "killed: every promised image gets known without being asked for", str(lost))
            c.eq(wait_for(lambda: s.metric("cudalint_queue_length") == 0), True, "killed: nothing waits at the end")
            got = s.notify(r.put("k/x", "late", Image(salt="late")))
            c.eq(got.status, 202, "killed: a promise after a damaged journal")
            s.kill()
            s.start()
            c.ok(known(s, f"{r.host}/k/x@{Image(salt='late').digest}"), "killed: which is kept, too")
            r.log.clear()
            s.kill()
            s.start()
            time.sleep(1)
            c.eq(r.asked("k/x"), [], "killed: what was kept is not looked at once more")


def twice(c, a, t):
    with Serve(c, a, t / "twice") as one:
        two = Serve(c, a, t / "twice-2", "--state-dir", one.dir / "state", state=False)
        two.start(expect=False)
        started = two.p.poll() is None
        if not c.ok(not started, "twice: a second server on one state directory is refused", "it serves"):
            two.stop()
        else:
            c.ok(two.p.returncode == 2 and "another server" in two.said, "twice: with a clear message", two.said)
    with one.start():
        c.eq(one.ask("GET", "/readyz").status, 200, "twice: after the first has ended the directory is free")


@contextmanager
def full_disk(path):
    """A file system of 64 KiB; None where none can be mounted."""
    path.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(path)], stderr=subprocess.DEVNULL).returncode:
        yield None
        return
    try:
        yield path
    finally:
        subprocess.run(["umount", "-l", str(path)])


def state_full(c, a, t):
    with full_disk(t / "small") as small, Fake() as r:
        if not small:
            return c.note("skipped: a full disk under the state directory, because nothing can be mounted here")
        refs = [r.put("s/x", f"v{n}", Image(salt=f"s{n}")) for n in range(40)]
        s = Serve(c, a, t / "full", "--state-dir", small / "state", *STRICT, state=False).start()
        r.fault = lambda h, *_: h.say(503) or True
        promised, refused = refs[:3], []
        for ref in promised:
            c.eq(s.notify(ref).status, 202, "full: a promise while there is room")
        with open(small / "filler", "wb", buffering=0) as f:
            try:
                while f.write(bytes(4096)):
                    pass
            except OSError:
                pass
        for ref in refs[3:-2]:
            got = s.notify(ref)
            c.ok(got.status in (202, 503), "full: a notification is promised or not", str(got))
            (promised if got.status == 202 else refused).append(ref)
            if len(refused) == 3:
                break
        c.ok(refused, "full: what cannot be written down is answered with 503")
        c.eq(s.ask("GET", "/readyz").status, 200, "full: decisions go on")
        (small / "filler").unlink()
        again = [ref for ref in refused + refs[-2:] if s.notify(ref).status == 202]
        c.eq(again, refused + refs[-2:], "full: when there is room again, promises are made again")
        s.kill()
        r.fault = None
        with s.start():
            lost = [ref for ref in promised + again if not known(s, ref, 15)]
            c.ok(not lost, f"full: {len(promised) + len(again)} promises are kept", f"lost {lost}")
    if os.geteuid():
        (t / "readonly").mkdir(mode=0o555)
        two = Serve(c, a, t / "ro", "--state-dir", t / "readonly/state", state=False).start(expect=False)
        c.ok(two.p.poll() == 2 and "--state-dir" in two.said, "full: a state directory that cannot be made is refused at the start", two.said)
    else:
        with full_disk(t / "ro-disk") as disk:
            subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
            two = Serve(c, a, t / "ro", "--state-dir", disk / "state", state=False).start(expect=False)
            c.ok(two.p.poll() == 2 and "--state-dir" in two.said, "full: a state directory that cannot be made is refused at the start", two.said)
    (t / "file").write_text("")
    two = Serve(c, a, t / "ro2", "--state-dir", t / "file", state=False).start(expect=False)
    c.ok(two.p.poll() == 2 and "--state-dir" in two.said, "full: a file as state directory is refused at the start", two.said)


# ------------------------------------------------------------------------------------------------------ registry faults
def hang(h, *_):
    time.sleep(300)
    return True


def endless(h, *_):
    h.send_response(200)
    h.send_header("Content-Type", MANIFEST)
    h.end_headers()
    while True:
        h.wfile.write(bytes(1 << 16))
        time.sleep(0.001)


def faults(r):
    """Name -> fault of a registry."""
    index = lambda d: json.dumps({"schemaVersion": 2, "mediaType": INDEX, "manifests": [
        {"mediaType": MANIFEST, "digest": d, "size": 400, "platform": {"os": "linux", "architecture": "amd64"}}]}).encode()
    html = b"<html><body>Sign in</body></html>"
    of = lambda h, repository, ref: r.manifests[repository][ref][1] if "/manifests/" in h.path else r.blobs[repository].get(ref, b"")
    only = lambda wanted, do: lambda h, kind, repository, ref: kind == wanted and h.command == "GET" and (do(h, repository, ref) or True)

    def cut(h, repository, ref):
        body = of(h, repository, ref)
        h.send_response(200)
        h.send_header("Content-Length", str(len(body)))
        h.end_headers()
        h.wfile.write(body[:len(body) // 2])
        h.close_connection = True

    flipped = lambda b: bytes([b[0] ^ 1]) + b[1:]
    return {
        "hangs": hang,
        "500": lambda h, *_: h.say(500) or True,
        "429 for an hour": lambda h, *_: h.say(429, Retry_After="3600") or True,
        "another manifest": only("manifests", lambda h, p, x: h.say(200, of(h, p, x) + b" ", MANIFEST)),
        "another digest header": only("manifests", lambda h, p, x: h.say(200, of(h, p, x), MANIFEST, Docker_Content_Digest="sha256:" + "0" * 64)),
        "html": lambda h, *_: h.say(200, html, "text/html") or True,
        "html for blobs": only("blobs", lambda h, p, x: h.say(200, html, "text/html")),
        "wrong blobs": only("blobs", lambda h, p, x: h.say(200, flipped(of(h, p, x)), "application/octet-stream")),
        "cut blobs": only("blobs", cut),
        "empty blobs": only("blobs", lambda h, p, x: h.say(200)),
        "endless manifest": only("manifests", endless),
        "endless blobs": only("blobs", endless),
        "index to nowhere": only("manifests", lambda h, p, x: h.say(200, index("sha256:" + "1" * 64), INDEX) if x == "v1" else h.say(404)),
        "trickling blobs": only("blobs", lambda h, p, x: trickle(h, of(h, p, x), 200, 1)),
    }


def registry(c, a, t):
    """Every fault at the same time, each in a registry of its own, and one that is well."""
    with ExitStack() as stack:
        s = stack.enter_context(Serve(c, a, t / "registry", *STRICT))
        sick = {}
        for name in faults(None):
            r = stack.enter_context(Fake())
            r.put("f/x", "v1", Image(salt=name))
            r.fault = faults(r)[name]
            sick[name] = r
        # Another manifest than the tag had is no fault: that one is asked for by its digest.
        ref = lambda r: f"{r.host}/f/x@{Image(salt='another manifest').digest}" if r is sick["another manifest"] else f"{r.host}/f/x:v1"
        well = stack.enter_context(Fake())
        with ThreadPoolExecutor(40) as pool:
            asked = {name: [pool.submit(s.admit, ref(r), 5) for _ in range(2)] for name, r in sick.items()}
            more = [pool.submit(s.admit, well.put("w/x", f"v{n}", Image(salt=f"well {n}")), 20) for n in range(5)]
            for name, futures in asked.items():
                for f in futures:
                    got = f.result()
                    c.ok(got[0] is False and got[1] in ("failed", "cold") and got[3] < 5, f"registry {name}: nothing is let in, in time", got)
            for f in more:
                c.ok(f.result()[1] in ("runs", "cold"), "registry: another registry's image meanwhile", f.result())
        # What is well is answered while others hang and trickle.
        for n in range(5):
            got = s.until(f"{well.host}/w/x:v{n}", ("runs",), 20)
            c.eq(got[1], "runs", "registry: another registry's images get known while others hang")
        for name, r in sick.items():
            got = s.until(ref(r), ("failed", "cold"), 0)
            c.ok(got[0] is False, f"registry {name}: a second time", got)
            r.fault = None
            c.eq(s.notify(ref(r)).status, 202, f"registry {name}: a promise")
        for name, r in sick.items():
            if name in ("hangs", "trickling blobs", "endless blobs", "endless manifest"):
                continue
            got = s.until(ref(r), ("runs",), 60, dry=True)
            c.eq(got[1], "runs", f"registry {name}: known when it is well again, without being asked for")
        for name in ("endless manifest", "endless blobs"):
            got = s.until(ref(sick[name]), ("runs",), 60, dry=True)
            c.eq(got[1], "runs", f"registry {name}: known when it is well again")
        said = [l for l in s.lines("could not be looked at") if l["level"] == "WARN"]
        c.ok(said, "registry: failures are logged")
        c.note("registry: " + "; ".join(sorted({l["error"][:100] for l in said}))[:1500])


def policies(c, a, t):
    """`--failed` and `--cold` in each mode."""
    with Fake() as dead, Fake() as slow:
        dead.fault = lambda h, *_: h.say(500) or True
        slow.fault = hang
        for n in range(30):
            slow.put("s/x", f"v{n}", Image(salt=f"c{n}"))

        def one(n, mode, doubt):
            with Serve(c, a, t / f"policy-{n}", "--mode", mode, "--failed", doubt, "--cold", doubt, "--unknown", "allow" if doubt == "deny" else "deny",
                       wait="1s") as s:
                for state, ref in (("failed", f"{dead.host}/x/y:1"), ("cold", f"{slow.host}/s/x:v{n}")):
                    s.until(ref, (state,), 20) if state == "failed" else None
                    r = s.ask("POST", "/v1/admit?timeout=5s", review(ref)).doc["response"]
                    c.eq(r.get("auditAnnotations", {}).get("verdict"), state, f"policy {mode} {doubt}: {state}")
                    c.eq(r["allowed"], doubt != "deny" or mode != "enforce", f"policy {mode} {doubt}: {state}, let in or not")
                    c.eq(bool(r.get("warnings")), mode != "audit" and doubt != "allow", f"policy {mode} {doubt}: {state}, warned or not")
                    if not r["allowed"]:
                        c.eq(r["status"]["code"], 403, f"policy {mode} {doubt}: {state}, status")
        with ThreadPoolExecutor(3) as pool:
            both = [(m, d) for m in ("audit", "warn", "enforce") for d in ("allow", "warn", "deny")]
            list(pool.map(lambda x: one(x[0], *x[1]), enumerate(both)))


# -------------------------------------------------------------------------------------------------------------- nodes
class Api(Served):
    """The part of a Kubernetes API server that lists and watches nodes, in the form that a real one was recorded with."""

    def __init__(self, *nodes):
        self.lock, self.rv, self.nodes, self.events = threading.Condition(), 100, {}, []
        self.status, self.cut, self.floor, self.log, self.lists, self.bookmarks = 200, 0, 0, [], 0, True
        for n in nodes:
            self.change("ADDED", n)
        api = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_):
                pass

            def handle(self):
                try:
                    super().handle()
                except OSError:
                    pass

            def say(self, status, doc):
                body = json.dumps(doc).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def do_GET(self):
                url = urlsplit(self.path)
                query = {k: v[0] for k, v in parse_qs(url.query).items()}
                api.log.append((url.path, query))
                if api.status != 200:
                    return self.say(api.status, {"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": api.status,
                                                 "reason": "Forbidden" if api.status == 403 else "InternalError",
                                                 "message": 'nodes is forbidden: User "u" cannot list resource "nodes"'})
                if url.path != "/api/v1/nodes":
                    return self.say(404, {"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "NotFound", "code": 404})
                if query.get("watch") in ("true", "1"):
                    return self.watch(int(query.get("resourceVersion") or 0), query)
                with api.lock:
                    api.lists += 1
                    items, rv = list(api.nodes.values()), api.rv
                at, limit = int(query.get("continue") or 0), int(query.get("limit") or 10 ** 6)
                meta = {"resourceVersion": str(rv)}
                if at + limit < len(items):
                    meta |= {"continue": str(at + limit), "remainingItemCount": len(items) - at - limit}
                self.say(200, {"kind": "NodeList", "apiVersion": "v1", "metadata": meta, "items": items[at:at + limit]})

            def line(self, doc, part=False):
                data = json.dumps(doc).encode() + b"\n"
                data = data[:len(data) // 2] if part else data
                self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))
                self.wfile.flush()

            def watch(self, since, query):
                self.send_response(200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Transfer-Encoding", "chunked")
                self.end_headers()
                if since < api.floor:
                    self.line({"type": "ERROR", "object": {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "code": 410,
                                                           "reason": "Expired", "message": f"too old resource version: {since} ({api.floor})"}})
                    return self.wfile.write(b"0\r\n\r\n")
                mine = api.cut
                while True:
                    with api.lock:
                        new = [e for e in api.events if e[0] > since]
                        if not new:
                            api.lock.wait(0.2)
                        broken = api.cut != mine
                    if broken or api.status != 200:
                        self.line({"type": "MODIFIED", "object": next(iter(api.nodes.values()), {})}, part=True)
                        self.close_connection = True
                        return
                    for rv, kind, obj in new:
                        self.line({"type": kind, "object": obj})
                        since = rv
                    if new and api.bookmarks and query.get("allowWatchBookmarks") == "true":
                        self.line({"type": "BOOKMARK", "object": {"kind": "Node", "apiVersion": "v1", "metadata": {"resourceVersion": str(since)}}})

        class Server(ThreadingHTTPServer):
            daemon_threads, allow_reuse_address = True, True

        self.handler, self.kind = Handler, Server
        self.server = Server(("127.0.0.1", 0), Handler)
        self.server.handle_error = lambda *_: None
        self.port = self.server.server_port

    def change(self, kind, n):
        with self.lock:
            self.rv += 1
            n = json.loads(json.dumps(n))
            n["metadata"]["resourceVersion"] = str(self.rv)
            if kind == "DELETED":
                self.nodes.pop(n["metadata"]["name"], None)
            else:
                self.nodes[n["metadata"]["name"]] = n
            self.events.append((self.rv, kind, n))
            self.lock.notify_all()

    def drop(self, floor=False):
        """Cuts open watches in the middle of a line; with `floor`, what was before is forgotten (410)."""
        with self.lock:
            self.cut += 1
            if floor:
                self.rv += 50
                self.floor, self.events = self.rv, []
            self.lock.notify_all()

    def down(self):
        self.drop()
        self.server.shutdown()
        self.server.server_close()

    def up(self):
        self.server = self.kind(("127.0.0.1", self.port), self.handler)
        self.server.handle_error = lambda *_: None
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def kubeconfig(self, path):
        path.write_text(json.dumps({"apiVersion": "v1", "kind": "Config", "current-context": "t", "clusters": [{"name": "t", "cluster": {
            "server": f"http://127.0.0.1:{self.port}"}}], "users": [{"name": "t", "user": {"token": "kube-secret-token"}}],
            "contexts": [{"name": "t", "context": {"cluster": "t", "user": "t"}}]}))
        return path



def watched(c, a, t):
    with Fake() as r, Api(node("h100")) as api:
        api.status = 403
        ref = r.put("n/x", "v1", Image(salt="watched"))
        with Serve(c, a, t / "watched", "--nodes", "kubernetes", *STRICT, env={"KUBECONFIG": str(api.kubeconfig(t / "kubeconfig"))}) as s:
            time.sleep(3)
            got = s.ask("GET", "/readyz")
            c.ok(got.status == 503 and b"nodes" in got.body, "watch: not ready while the nodes are not known", str(got))
            c.eq(s.admit(ref)[:2], (False, "unknown"), "watch: and nothing is let in that the policy forbids")
            c.eq(s.metric("cudalint_nodes_current"), 0, "watch: the metric says so")
            n = len(s.lines("the nodes cannot be listed"))
            c.eq(n, 1, "watch: an outage is logged once")
            api.status = 200
            c.eq(wait_for(lambda: s.ask("GET", "/readyz").status == 200, 30), True, "watch: ready when they may be listed")
            c.eq(s.until(ref, ("runs",))[:2], (True, "runs"), "watch: decisions")
            c.ok(all(q.get("watch") or p != "/api/v1/nodes" or "limit" in q for p, q in api.log), "watch: lists come in pages", str(api.log[:3]))
            asked = len(r.log)

            api.change("ADDED", node("t4", **T4))
            c.eq(wait_for(lambda: s.admit(ref)[1] == "partly", 10), True, "watch: a new node counts")
            api.change("MODIFIED", node("h100", driver="470.57.02", cuda=(11, 4)))
            c.eq(wait_for(lambda: s.admit(ref)[1] == "fails", 10), True, "watch: a change of a node counts")
            c.eq(wait_for(lambda: s.lines("runs on none of them"), 10) != [], True, "watch: that an image runs nowhere any more is told")
            api.change("DELETED", node("t4", **T4))
            api.change("MODIFIED", node("h100"))
            c.eq(wait_for(lambda: s.admit(ref)[1] == "runs", 10), True, "watch: a removal counts")
            made = s.metric("cudalint_judgments_total")
            api.change("MODIFIED", node("h100"))
            time.sleep(1)
            c.eq(s.metric("cudalint_judgments_total"), made, "watch: a heartbeat costs no judgment")

            api.drop()
            c.eq(wait_for(lambda: len([1 for p, q in api.log if q.get("watch")]) >= 2, 15), True, "watch: cut in the middle of a line, it is taken up")
            api.change("ADDED", node("t4", **T4))
            c.eq(wait_for(lambda: s.metric("cudalint_nodes") == 2, 20), True, "watch: and goes on")
            lists = api.lists
            api.drop(floor=True)
            with api.lock:
                api.nodes.pop("t4")
            c.eq(wait_for(lambda: s.metric("cudalint_nodes") == 1, 20), True, "watch: after 410 the nodes are listed anew, without those that went")
            c.ok(api.lists > lists, "watch: by a list")

            cuts = len(s.lines("the watch of the nodes is cut"))
            api.drop(floor=True)
            api.status = 500
            c.eq(wait_for(lambda: s.metric("cudalint_nodes_current") == 0, 20), True, "watch: an outage shows in the metric")
            end, seen = time.time() + 5, []
            while time.time() < end:
                seen.append((s.metric("cudalint_nodes_current"), s.metric("cudalint_nodes"), s.ask("GET", "/readyz").status, s.admit(ref)[1]))
                time.sleep(0.05)
            c.eq(dict(Counter(seen)).keys(), {(0, 1, 200, "runs")}, "watch: while it lasts the nodes are kept, ready, and the metric stays")
            cuts = len(s.lines("the watch of the nodes is cut")) - cuts
            c.ok(cuts <= 2, "watch: which is logged once", str(cuts))
            api.status = 200
            c.eq(wait_for(lambda: s.metric("cudalint_nodes_current") == 1, 60), True, "watch: caught up")

            api.down()
            time.sleep(3)
            c.eq((s.metric("cudalint_nodes_current"), s.admit(ref)[1]), (0, "runs"), "watch: down")
            with api.lock:
                api.change("ADDED", node("t4", **T4))
            api.up()
            c.eq(wait_for(lambda: s.metric("cudalint_nodes_current") == 1 and s.admit(ref)[1] == "partly", 60), True, "watch: up again, and caught up")
            c.eq(r.asked()[asked:], [], "watch: through all of this nothing is asked of the registry")
            no_secret(c, s, "watch", "kube-secret-token")
            # A node that says nonsense, and one without labels.
            api.change("ADDED", {**node("odd"), "status": {"allocatable": {GPU: "many"}}})
            api.change("ADDED", {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "bare", "labels": None}, "spec": {}, "status": {}})
            c.eq(wait_for(lambda: s.metric("cudalint_nodes") >= 3, 10), True, "watch: nodes that say little are taken")
            c.eq(s.admit(ref)[1], "partly", "watch: and change nothing")
        many = [node(f"n{i:04}") for i in range(1234)]
        with Api(*many) as big:
            with Serve(c, a, t / "many", "--nodes", "kubernetes", *STRICT, env={"KUBECONFIG": str(big.kubeconfig(t / "kubeconfig2"))}) as s:
                c.eq(wait_for(lambda: s.metric("cudalint_nodes") == 1234, 20), True, "watch: a list in pages is read whole")


def recorded(c, a, t):
    """What kube-apiserver 1.36.2 sent, and the same answers as it was given then."""
    docs = {p.stem: json.loads(p.read_text()) for p in sorted(RECORDED.glob("*.json")) if p.stem != "watch"}
    c.ok(len(docs) > 20, "recorded: requests")
    text = json.dumps(docs)
    refs = sorted(set(re.findall(r"(127\.0\.0\.1:\d+)/ml/train@(sha256:[0-9a-f]{64})", text)))
    with Fake() as r:
        images = {i.digest: i for i in (Image(), Image(fails=True, salt="bad"), Image(salt="cold"))}
        for n, i in enumerate(images.values()):
            r.put("ml/train", f"v{n + 1}", i)
        c.eq({d for _, d in refs}, set(images), "recorded: the images are the same")
        claims = {"gpu": "gpu.nvidia.com", "site": "site-gpu", "nic": "nic"}

        watch = json.loads((RECORDED / "watch.json").read_text())
        with Api() as api:
            api.nodes = {n["metadata"]["name"]: n for n in watch["list"]["items"]}
            api.rv = int(watch["list"]["metadata"]["resourceVersion"])
            api.events = [(int(e["object"]["metadata"]["resourceVersion"]), e["type"], e["object"]) for e in watch["events"]]
            api.bookmarks = False
            plain = api.handler.do_GET

            def get(h):
                url = urlsplit(h.path)
                found = re.match(r"/apis/resource.k8s.io/v1/(?:namespaces/ml/(resourceclaimtemplates)|(deviceclasses))/([\w.-]+)$", url.path)
                if found and found[1] and found[3] in claims:
                    request = {"name": "r", "exactly": {"deviceClassName": claims[found[3]], "allocationMode": "ExactCount", "count": 1}}
                    return h.say(200, {"apiVersion": "resource.k8s.io/v1", "kind": "ResourceClaimTemplate", "metadata": {"name": found[3]},
                                       "spec": {"spec": {"devices": {"requests": [request]}}}})
                if found and found[2]:
                    driver = "nic.example.com" if found[3] == "nic" else "gpu.nvidia.com"
                    return h.say(200, {"apiVersion": "resource.k8s.io/v1", "kind": "DeviceClass", "metadata": {"name": found[3]}, "spec": {
                        "selectors": [{"cel": {"expression": f"device.driver == '{driver}'"}}]}})
                plain(h)
            api.handler.do_GET = get
            with Serve(c, a, t / "recorded", "--nodes", "kubernetes", "--mode", "enforce", "--cold", "deny", "--failed", "deny", wait="5s",
                       env={"KUBECONFIG": str(api.kubeconfig(t / "kubeconfig3"))}) as s:
                c.eq(wait_for(lambda: s.metric("cudalint_nodes") == 2, 10), True, "recorded: the list and the watch of nodes")
                c.eq(s.lines("cut"), [], "recorded: no word of a cut watch")
                # What was not known when the dry run came.
                order = sorted(docs, key=lambda n: n != "pod-cold-dry-run")
                for name in order:
                    doc = docs[name]
                    body = json.dumps(doc["review"]).replace(refs[0][0], r.host)
                    got = s.ask("POST", doc["path"], body.encode(), Content_Type="application/json")
                    said = got.doc.get("response", {}) if got.status == 200 else {}
                    c.eq((got.status, said.get("uid"), said.get("allowed"), said.get("auditAnnotations", {}).get("verdict"), bool(said.get("warnings"))),
                         (200, doc["review"]["request"]["uid"], doc["allowed"], doc["verdict"], doc["warned"]), f"recorded: {name}")
                with api.lock:
                    api.events.append((api.rv + 1000, "ERROR", watch["gone"]["object"]))
                    api.floor = 0
                    api.lock.notify_all()
                lists = api.lists
                c.eq(wait_for(lambda: api.lists > lists, 10), True, "recorded: 410 as it was sent makes for a new list")


def file_of_nodes(c, a, t):
    with Fake() as r:
        ref = r.put("n/x", "v1", Image(salt="file"))
        file = t / "nodes.json"
        file.write_text(node_list(node("h100")))
        with Serve(c, a, t / "file-of-nodes", *STRICT, nodes=file) as s:
            c.eq(s.until(ref, ("runs",))[:2], (True, "runs"), "nodes in a file")
            n = len(r.log)
            file.write_text(node_list(node("t4", **T4)))
            c.eq(s.until(ref, ("fails",), 20)[:2], (False, "fails"), "nodes in a file: another")
            file.write_text(node_list(node("h100"))[:300])
            time.sleep(11)
            c.eq(s.admit(ref)[1], "fails", "nodes in a file: while it is broken those before count")
            c.eq(s.metric("cudalint_nodes_current"), 0, "nodes in a file: and the metric says that they are not current")
            c.eq(len([l for l in s.lines() if l["level"] == "ERROR"]), 1, "nodes in a file: which is logged once")
            new = t / "nodes.new"
            new.write_text(node_list(node("h100"), node("t4", **T4)))
            new.rename(file)
            c.eq(s.until(ref, ("partly",), 20)[1], "partly", "nodes in a file: renamed into its place")
            c.eq(s.metric("cudalint_nodes_current"), 1, "nodes in a file: current again")
            file.unlink()
            time.sleep(6)
            c.eq((s.admit(ref)[1], s.ask("GET", "/readyz").status), ("partly", 200), "nodes in a file: removed, those before count")
            c.eq(s.metric("cudalint_nodes_current"), 0, "nodes in a file: which the metric says")
            file.write_text(node_list(node("h100"), node("t4", **T4)))
            c.eq(wait_for(lambda: s.metric("cudalint_nodes_current") == 1, 8), True, "nodes in a file: the same as before the outage")
            file.write_text(node_list(node("h100")))
            c.eq(s.until(ref, ("runs",), 20)[1], "runs", "nodes in a file: back again")
            c.eq(r.log[n:], [], "nodes in a file: nothing is asked of the registry")


def hosts(c, a, t):
    with ExitStack() as stack:
        s = stack.enter_context(Serve(c, a, t / "hosts", *STRICT))
        bad, good = [stack.enter_context(Fake()) for _ in range(2)], stack.enter_context(Fake())
        for r in bad:
            r.fault = hang
        with ThreadPoolExecutor(20) as pool:
            list(pool.map(lambda x: s.admit(x, 5), [f"{r.host}/h/x:v{n}" for r in bad for n in range(6)]))
        t0 = time.time()
        got = s.until(good.put("h/x", "v1", Image(salt="hosts")), ("runs",), 90)
        c.eq(got[1], "runs", "hosts: two that hang do not hold up a third for good")
        c.note(f"hosts: an image of a third registry was known after {time.time() - t0:.0f} s while two hung")


def same_layer(c, a, t):
    """A layer that one registry does not get done with is no reason for an image of another to wait."""
    with Fake() as bad, Fake() as good, Serve(c, a, t / "same-layer", *STRICT) as s:
        image = Image(salt="same layer")
        is_layer = lambda h, ref: h.command == "GET" and ref in image.layers
        bad.fault = lambda h, kind, repository, ref: is_layer(h, ref) and (trickle(h, image.blobs[ref], 40, 1) or True)
        s.admit(bad.put("l/x", "v1", image), 3)
        time.sleep(0.5)
        got = s.until(good.put("l/x", "v1", image), ("runs",), 20)
        c.eq(got[1], "runs", "same layer: an image of one registry while another trickles the same layer")


def base_layer(c, a, t):
    """While a large layer is read, images on it wait, and nobody else does."""
    with ExitStack() as stack:
        s = stack.enter_context(Serve(c, a, t / "base-layer", *STRICT))
        base, third = Image(salt="base"), stack.enter_context(Fake())
        refs = []
        for k in range(2):
            r = stack.enter_context(Fake())
            r.fault = lambda h, kind, repository, ref: ref == base.layers[-1] and h.command == "GET" and (trickle(h, base.blobs[ref], 40, 1) or True)
            refs += [r.put("b/x", f"v{n}", Image(salt=f"on base {k} {n}").over(base)) for n in range(6)]
        with ThreadPoolExecutor(12) as pool:
            list(pool.map(lambda ref: s.admit(ref, 3), refs))
        got = s.until(third.put("b/x", "v1", Image(salt="not on base")), ("runs",), 20)
        c.eq(got[1], "runs", "base layer: an image without it, of a third registry, is known meanwhile")
        left = [ref for ref in refs if s.until(ref, ("runs",), 60)[1] != "runs"]
        c.eq(left, [], "base layer: and at the end those on it are")


# -------------------------------------------------------------------------------------------------------- shared cache
class Store(Served):
    """Objects behind GET and PUT; `fault` as a registry's."""

    def __init__(self):
        self.objects, self.seen, self.fault = {}, [], None
        store = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_):
                pass

            def handle(self):
                try:
                    super().handle()
                except OSError:
                    pass

            def say(self, status, body=b""):
                self.send_response(status)
                for k, v in (("Content-Length", len(body)), ("Last-Modified", "Thu, 19 Nov 2026 00:00:00 GMT"), ("ETag", f'"{len(body)}"')):
                    self.send_header(k, str(v))
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(body)

            def work(self):
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                path = self.path.split("?")[0]
                store.seen.append((self.command, path))
                if store.fault and store.fault(self):
                    return
                if self.command == "PUT":
                    store.objects[path] = body
                    return self.say(201)
                if path in store.objects:
                    return self.say(200, store.objects[path])
                self.say(404)

            do_GET = do_HEAD = do_PUT = do_DELETE = do_PROPFIND = do_MKCOL = work

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.server.handle_error = lambda *_: None
        self.url = f"http://127.0.0.1:{self.server.server_port}/facts"


def shared_store(c, a, t):
    def one(name, fault):
        with Store() as store, Fake() as r, Serve(c, a, t / f"store-{name}", "--shared-cache", store.url, *STRICT, wait="5s", log="info") as s:
            put = lambda salt: r.put("c/x", re.sub(r"\W", "", salt), Image(salt=f"{name} {salt}"))
            c.eq(s.until(put("before"), ("runs",), 20)[1], "runs", f"store {name}: before")
            c.ok(store.objects, f"store {name}: facts are kept there")
            for outage in (1, 2):
                store.fault = fault
                got = s.until(put(f"down {outage}"), ("runs",), 15)
                c.ok(got[1] == "runs", f"store {name}: decisions go on while it is down", got)
                for n in range(4):
                    got = s.until(put(f"down {outage} {n}"), ("runs",), 5)
                    c.ok(got[1] == "runs", f"store {name}: and are quick", got)
                time.sleep(1.5)
                told = [l for l in s.lines('"remark"') if "cannot be" in l["remark"]]
                c.eq(len(told), outage, f"store {name}: outage {outage} is logged once")
                if outage == 1:
                    store.fault, n = None, len(store.objects)
                    time.sleep(31)
                    s.until(put("back"), ("runs",), 10)
                    c.ok(len(store.objects) > n, f"store {name}: used again when it is back")
                    time.sleep(1.5)
                    c.eq(len([l for l in s.lines('"remark"') if "answers again" in l["remark"]]), 1, f"store {name}: which is logged")
    with ThreadPoolExecutor(4) as pool:
        cases = {"refuses": lambda h: h.say(403) or True, "fails": lambda h: h.say(500) or True, "hangs": hang}
        list(pool.map(lambda x: one(*x), cases.items()))


def shared_directory(c, a, t):
    with Fake() as r:
        place = t / "shared"
        place.mkdir()
        with Serve(c, a, t / "directory", "--shared-cache", place, *STRICT, wait="5s") as s:
            c.eq(s.until(r.put("c/x", "v1", Image(salt="dir 1")), ("runs",), 20)[1], "runs", "shared directory: before")
            place.rename(t / "away")
            c.eq(s.until(r.put("c/x", "v2", Image(salt="dir 2")), ("runs",), 20)[1], "runs", "shared directory: gone")
            shutil.rmtree(place, ignore_errors=True)
            place.write_text("a file")
            c.eq(s.until(r.put("c/x", "v3", Image(salt="dir 3")), ("runs",), 20)[1], "runs", "shared directory: a file in its place")
            shutil.rmtree(s.dir / "cache")
            (s.dir / "cache").write_text("a file")
            c.eq(s.until(r.put("c/x", "v4", Image(salt="dir 4")), ("runs",), 20)[1], "runs", "shared directory: the local one is gone, too")
            c.eq(s.ask("GET", "/readyz").status, 200, "shared directory: ready all the time")


# -------------------------------------------------------------------------------------------------------- certificates
def certificate(dir, ca=None, name="localhost"):
    """tls.crt and tls.key in `dir`, self-signed, with the same in ca.crt."""
    dir.mkdir(parents=True, exist_ok=True)
    subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2", "-subj", f"/CN={name}",
                    "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1", "-keyout", str(dir / "tls.key"), "-out", str(dir / "tls.crt")],
                   check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return dir


def shown(s):
    return ssl.get_server_certificate(("127.0.0.1", s.port)).strip()


def certificates(c, a, t):
    one, two, three = (certificate(t / n) for n in ("one", "two", "three"))
    pem = lambda d: (d / "tls.crt").read_text().strip()
    # As the kubelet lays out a Secret: tls.crt -> ..data/tls.crt, ..data -> a directory.
    mount = t / "mount"
    mount.mkdir()
    for n, d in (("..1", one), ("..2", two), ("..3", three)):
        shutil.copytree(d, mount / n)
    (mount / "..data").symlink_to("..1")
    for n in ("tls.crt", "tls.key"):
        (mount / n).symlink_to(f"..data/{n}")
    errors, stop = [], threading.Event()
    with Serve(c, a, t / "certificates", *STRICT, tls=mount) as s:
        def ask():
            while not stop.is_set():
                try:
                    if s.ask("GET", "/healthz").status != 200:
                        errors.append("status")
                except OSError as e:
                    errors.append(repr(e))
                time.sleep(0.05)
        thread = threading.Thread(target=ask)
        thread.start()
        old = s.connect()
        old.connect()
        c.eq(shown(s), pem(one), "certificates: the first")
        (mount / "..tmp").symlink_to("..2")
        (mount / "..tmp").rename(mount / "..data")
        c.eq(wait_for(lambda: shown(s) == pem(two), 15), True, "certificates: a swapped link is taken up")
        c.eq(s.ask("GET", "/healthz", con=old).status, 200, "certificates: connections of before live on")
        # One file after the other: between them they do not fit.
        (mount / "..2/tls.crt").write_text((three / "tls.crt").read_text())
        time.sleep(7)
        c.eq(shown(s), pem(two), "certificates: a pair that does not fit is not shown")
        (mount / "..2/tls.key").write_text((three / "tls.key").read_text())
        c.eq(wait_for(lambda: shown(s) == pem(three), 15), True, "certificates: it is when the key has come")
        (mount / "..2/tls.crt").write_text("")
        (mount / "..2/tls.key").unlink()
        time.sleep(6)
        c.eq(shown(s), pem(three), "certificates: empty and missing files change nothing")
        stop.set()
        thread.join()
        c.eq(errors[:3], [], "certificates: no connection is refused meanwhile")
        c.eq(s.metric("cudalint_tls_reloads_total"), 2, "certificates: the metric counts")
        old.close()
        no_secret(c, s, "certificates", (one / "tls.key").read_text().splitlines()[1], (three / "tls.key").read_text().splitlines()[1])


# ------------------------------------------------------------------------------------------------------- bad clients
def bodies(c, a, t):
    with Serve(c, a, t / "bodies", *STRICT) as s:
        for path in ("/v1/admit", "/v1/check", "/v1/notify", "/gatekeeper/v1/validate", "/api/v1/scan"):
            con = s.connect()
            got = s.ask("POST", path, b"x" * (10 << 20), con=con)
            c.eq(got.status, 413, f"bodies: 10 MB to {path}")
            c.eq(s.ask("GET", "/healthz", con=con).status, 200, f"bodies: and the connection to {path} is clean")
            con.close()
            con = s.connect()
            con.request("POST", path, iter([b"y" * (1 << 20)] * 10), {"Transfer-Encoding": "chunked"}, encode_chunked=True)
            c.eq(con.getresponse().status, 413, f"bodies: 10 MB in chunks to {path}")
            con.close()
            for body in (b"", b"{", b"[" * 100_000, b'{"a":' * 100_000, b"\xff\xfe", b"null", b"[]", b'"x"', b"1e999"):
                got = s.ask("POST", path, body)
                c.ok(400 <= got.status < 500, f"bodies: {body[:8]!r} to {path}", str(got))
        huge = s.connect()
        huge.putrequest("POST", "/v1/admit")
        huge.putheader("Content-Length", str(1 << 50))
        huge.endheaders()
        c.eq(huge.getresponse().status, 413, "bodies: a petabyte that is only announced")
        huge.close()
        c.ok(s.rss() < 400, "bodies: memory", f"{s.rss():.0f} MB")
        c.eq(s.ask("POST", "/v1/admit", review("x", gpu=False)).doc["response"]["allowed"], True, "bodies: decisions go on")


def opened(s, n, send=b""):
    out = []
    for _ in range(n):
        x = socket.create_connection(("127.0.0.1", s.port), 5)
        if send:
            x.sendall(send)
        out.append(x)
    return out


def ended(x, wait=0.0):
    """Whether the other side has closed."""
    x.settimeout(wait or 0.001)
    try:
        while True:
            if not x.recv(65536):
                return True
    except TimeoutError:
        return False
    except OSError:
        return True


def slowloris(c, a, t):
    tls = certificate(t / "tls")
    shutil.copy(tls / "tls.crt", tls / "ca.crt")
    with Fake() as r, Serve(c, a, t / "slow-plain", *STRICT) as plain, Serve(c, a, t / "slow-tls", *STRICT, tls=tls) as secure:
        ref = r.put("s/x", "v1", Image(salt="slow"))
        for s in (plain, secure):
            c.eq(s.until(ref, ("runs",))[1], "runs", "slow clients: known")
        head = b"POST /v1/admit HTTP/1.1\r\nHost: x\r\nContent-Length: 5000\r\n"
        kinds = {"headers": opened(plain, 200, head), "bodies": opened(plain, 200, head + b"\r\n{"), "silence": opened(plain, 200),
                 "half a preface": opened(plain, 50, b"PRI * HTTP/2.0\r\n"), "handshakes": opened(secure, 200),
                 "half a handshake": opened(secure, 200, b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03")}
        wrapped = ssl._create_unverified_context()
        kinds["silence after the handshake"] = [wrapped.wrap_socket(x, server_hostname="localhost") for x in opened(secure, 50)]
        gone, worst, t0 = {}, 0, time.time()
        while time.time() - t0 < 45 and len(gone) < len(kinds):
            for kind, sockets in kinds.items():
                if kind not in ("silence", "handshakes", "silence after the handshake", "half a preface"):
                    for x in sockets:
                        try:
                            x.send(b"a" if kind != "half a handshake" else b"\0")
                        except OSError:
                            pass
                if kind not in gone and all(ended(x) for x in sockets[:10]) and all(ended(x) for x in sockets):
                    gone[kind] = time.time() - t0
            for s in (plain, secure):
                got = s.admit(ref)
                worst = max(worst, got[3])
                if got[1] != "runs":
                    c.ok(False, "slow clients: others are answered meanwhile", got)
            time.sleep(1)
        c.ok(worst < 5, "slow clients: others are answered soon", f"{worst:.1f} s")
        for kind in kinds:
            c.ok(kind in gone, f"slow clients: {kind}: ended", "still open after 45 s")
        c.note("slow clients: ended after " + ", ".join(f"{k} {v:.0f} s" for k, v in gone.items()))
        for sockets in kinds.values():
            for x in sockets:
                x.close()
        for s in (plain, secure):
            c.eq(wait_for(lambda: s.metric("cudalint_connections") <= 2, 10), True, "slow clients: no connection is left")


def crowd(c, a, t):
    """More connections than there are places for."""
    if resource.getrlimit(resource.RLIMIT_NOFILE)[0] < 10_000:
        return c.note("skipped: more connections than allowed, because this process may not open so many")
    with Serve(c, a, t / "crowd", *STRICT, log="info") as s:
        more = []
        try:
            while len(more) < 4300:
                more += opened(s, 1)
        except OSError:
            pass
        c.ok(s.rss() < 600, "crowd: memory", f"{s.rss():.0f} MB")
        t0 = time.time()

        def answered():
            try:
                return s.ask("GET", "/healthz", timeout=10).status
            except OSError:
                # One address has no more places for now.
                return None

        c.eq(wait_for(answered, 40), 200, "crowd: connections that say nothing make room in time")
        c.note(f"crowd: answered after {time.time() - t0:.0f} s")
        for x in more:
            x.close()
        c.eq(wait_for(lambda: s.ask("GET", "/healthz", timeout=10).status, 20), 200, "crowd: when they are gone, it goes on")
        c.eq(wait_for(lambda: s.metric("cudalint_connections") <= 2, 20), True, "crowd: none is left")


# ------------------------------------------------------------------------------------------------------ overload, end
def overload(c, a, t):
    with Fake() as r:
        shared = [Image(salt=f"o{n}") for n in range(150)]
        for n, i in enumerate(shared):
            r.put("o/x", f"v{n}", i)
        with Serve(c, a, t / "overload", "--queue", "50", *STRICT, log="info") as s:
            first = f"{r.host}/o/x@{shared[0].digest}"
            c.eq(s.until(first, ("runs",))[1], "runs", "overload: one is known")
            before = s.rss()
            with ThreadPoolExecutor(100) as pool:
                cold = [pool.submit(s.admit, f"{r.host}/o/x@{i.digest}", 5) for i in shared[1:]]
                other = [pool.submit(s.admit, first, 5, env={"N": str(n), "LD_LIBRARY_PATH": f"/x{n}"}) for n in range(600)]
                missing = [pool.submit(s.admit, f"{r.host}/o/none:{n}", 5) for n in range(300)]
                states = Counter()
                for what, futures in (("cold", cold), ("overrides", other), ("missing", missing)):
                    for f in futures:
                        allowed, state, message, took = f.result()
                        states[what, state] += 1
                        if not (allowed is (state == "runs") and state in ("runs", "cold", "overloaded", "failed") and took < 30):
                            c.ok(False, f"overload: {what} are answered by policy", (allowed, state, message, took))
            c.ok(states["overrides", "runs"] > 0, "overload: some are decided", str(states))
            c.note("overload: " + ", ".join(f"{w} {k} {n}" for (w, k), n in sorted(states.items())))
            c.ok(s.rss(peak=True) < before + 500, "overload: memory", f"{before:.0f} MB before, {s.rss(peak=True):.0f} MB at most")
            c.eq(wait_for(lambda: s.metric("cudalint_queue_length") == 0, 60), True, "overload: the queue empties")
            left = [i for i in shared[:20] if s.until(f"{r.host}/o/x@{i.digest}", ("runs",), 30)[1] != "runs"]
            c.eq(len(left), 0, "overload: and it recovers")
            got = s.notify(*[f"{r.host}/o/x@{i.digest}" for i in shared[:60]])
            c.eq(got.status, 400, "overload: more promises than the queue has places are never made")


def stopped(c, a, t):
    with Fake() as r:
        ref = r.put("e/x", "v1", Image(salt="end"))
        s = Serve(c, a, t / "stopped", "--drain", "3s", *STRICT, wait="4s").start()
        c.eq(s.until(ref, ("runs",))[1], "runs", "stop: known")
        r.fault = hang
        with ThreadPoolExecutor(30) as pool:
            waiting = [pool.submit(s.admit, f"{r.host}/e/x:w{n}", 10) for n in range(10)]
            time.sleep(0.5)
            s.p.terminate()
            time.sleep(0.7)
            got = s.ask("GET", "/readyz")
            c.ok(got.status == 503 and b"stopping" in got.body, "stop: not ready while it drains", str(got))
            c.eq(s.ask("GET", "/healthz").status, 200, "stop: but alive")
            c.eq(s.admit(ref)[1], "runs", "stop: new requests are answered while it drains")
            c.eq([f.result()[1] for f in waiting], ["cold"] * 10, "stop: answers in work are given")
        t0 = time.time()
        c.eq(s.p.wait(30), 0, "stop: exit status")
        c.ok(time.time() - t0 < 15, "stop: soon", f"{time.time() - t0:.1f} s")
        with s.start():
            con = s.connect()
            c.eq(s.ask("GET", "/healthz", con=con).status, 200, "stop: a connection that stays open")
            idle = opened(s, 5)
            t0 = time.time()
            s.p.terminate()
            s.p.wait(40)
            took = time.time() - t0
            c.ok(took < 12, "stop: idle connections do not hold it up", f"{took:.0f} s")
            for x in idle:
                x.close()


def many_streams(c, a, t):
    """HTTP/2, where curl has it."""
    if "HTTP2" not in subprocess.run(["curl", "-V"], capture_output=True, text=True).stdout:
        return c.note("skipped: HTTP/2, because this curl has none")
    tls = certificate(t / "tls")
    shutil.copy(tls / "tls.crt", tls / "ca.crt")
    with Fake() as r, Serve(c, a, t / "streams", *STRICT, tls=tls) as s:
        ref = r.put("h/x", "v1", Image(salt="h2"))
        c.eq(s.until(ref, ("runs",))[1], "runs", "streams: known")
        (t / "body").write_text(json.dumps(review(ref)))
        (t / "urls").write_text("".join(f'url = "https://localhost:{s.port}/v1/admit?timeout=9s&n={n}"\noutput = /dev/null\n' for n in range(300)))
        p = subprocess.run(["curl", "-sk", "--http2", "-Z", "--parallel-max", "300", "--max-time", "60", "-H", "Content-Type: application/json",
                            "--data-binary", f"@{t / 'body'}", "-w", "%{http_version} %{http_code}\n", "-K", str(t / "urls")],
                           capture_output=True, text=True)
        c.eq(dict(Counter(p.stdout.split("\n")[:-1])), {"2 200": 300}, "streams: 300 at once on HTTP/2")


def clock(c, a, t):
    """The day jumps; the monotonic clock does not, which a library in front of the C library can only do to programs that use it."""
    lib = next((p for p in Path("/usr/lib").glob("*/faketime/libfaketime.so.1")), None)
    with open(a.binary, "rb") as f:
        is_dynamic = b"/ld-" in f.read(4096)
    if not lib or not is_dynamic:
        return c.note("skipped: jumps of the clock, because libfaketime is not here or the binary is static")
    at = t / "at"
    at.write_text("+0")
    with Fake() as r, Serve(c, a, t / "clock", *STRICT, env={"LD_PRELOAD": str(lib), "FAKETIME_TIMESTAMP_FILE": str(at), "FAKETIME_NO_CACHE": "1",
                                                              "DONT_FAKE_MONOTONIC": "1"}) as s:
        for n, jump in enumerate(("+0", "+1d", "-1h", "+10y", "+0")):
            at.write_text(jump)
            got = s.until(r.put("c/x", f"v{n}", Image(salt=f"clock {n}")), ("runs",), 20)
            c.eq(got[1], "runs", f"clock: {jump}: a new image")
            c.eq(s.admit(f"{r.host}/c/x:v0")[1], "runs", f"clock: {jump}: a tag that is known")
            c.eq(s.notify(f"{r.host}/c/x:v{n}").status, 202, f"clock: {jump}: a promise")
            c.eq(scan(s, r.host, "c/x", Image(salt=f"clock {n}").digest)[:2], (202, 200), f"clock: {jump}: a scan")
        c.eq(wait_for(lambda: s.metric("cudalint_queue_length") == 0, 20), True, "clock: nothing is stuck")


CASES = (recorded, tenants, repositories, logins, nowhere_else, liar, killed, twice, state_full, registry, hosts, same_layer, base_layer, policies,
         watched, file_of_nodes, shared_store, shared_directory, certificates, bodies, slowloris, crowd, many_streams, overload, stopped, clock)


def main():
    a = arguments(__doc__, ("--only", {"nargs": "*", "metavar": "CASE", "help": "these alone"}))
    need("openssl", "curl")
    c = Checks("serve_faults", a.verbose)
    chosen = [f for f in CASES if not a.only or f.__name__ in a.only]
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
    # Most of the time is spent waiting for time limits of the server: the longest begin.
    first = (slowloris, crowd, shared_store, hosts, watched, file_of_nodes)
    chosen.sort(key=lambda f: f not in first)

    def run(case):
        (t / case.__name__).mkdir()
        try:
            case(c, a, t / case.__name__)
        except Exception:
            c.ok(False, f"{case.__name__} runs to its end", f"{traceback.format_exc()[-700:]}")
    with tempfile.TemporaryDirectory(prefix="serve-faults-", ignore_cleanup_errors=True) as t:
        t = Path(t)
        try:
            with ThreadPoolExecutor(8) as pool:
                list(pool.map(run, chosen))
        finally:
            for p in Serve.all:
                if p.poll() is None:
                    p.kill()
    c.end()


if __name__ == "__main__":
    main()
