"""What the tests against real images share: running cudalint, counting checks, fetching wheels, starting registries.

Not a test of its own.  Python 3.11+, standard library only.
"""
import argparse
import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import zipfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
REPO = HERE.parent.parent
TOOLS = HERE.parent / "tools"
CORPUS = HERE.parent / "corpus"
EXPECTED = HERE.parent / "expected"
CUDA_LIB = re.compile(r"lib(cuda|cudart|cublas|cublasLt|cudnn\w*|nccl|cufft\w*|curand|cusolver\w*|cusparse\w*|nvrtc\S*|nvJitLink|"
                      r"cupti|nvToolsExt|nvjpeg|npp\w+|nvshmem\S*|cufile\w*|cutensor\w*)(-[0-9a-f]{8}|\.[0-9a-f]{8})?\.so")


def arguments(doc, *more):
    """The options every script has; `more` are (name, keywords) pairs."""
    ap = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--binary", type=Path, default=REPO / "target/release/cudalint", help="the cudalint to test (default: target/release/cudalint)")
    ap.add_argument("--cache", type=Path, default=Path(os.environ.get("CUDALINT_TEST_CACHE", REPO / "target/real-cache")),
                    help="where downloads and built images stay (default: target/real-cache)")
    ap.add_argument("-v", "--verbose", action="store_true", help="print every check, not only the failed ones")
    for name, kw in more:
        ap.add_argument(*([name] if isinstance(name, str) else name), **kw)
    a = ap.parse_args()
    a.binary = a.binary.resolve()
    a.cache = a.cache.resolve()
    a.cache.mkdir(parents=True, exist_ok=True)
    if not os.access(a.binary, os.X_OK):
        sys.exit(f"{a.binary} is not there; build it or give --binary")
    return a


class Checks:
    """Counts checks, prints the failed ones, ends with one summary line."""

    def __init__(self, name, verbose=False):
        self.name, self.verbose, self.n, self.bad, self.t0, self.notes = name, verbose, 0, 0, time.time(), []

    def ok(self, good, what, detail=""):
        self.n += 1
        if not good:
            self.bad += 1
            print(f"FAIL {what}" + (f": {detail}" if detail else ""), flush=True)
        elif self.verbose:
            print(f"ok   {what}", flush=True)
        return bool(good)

    def eq(self, got, want, what):
        if got == want:
            return self.ok(True, what)
        g, w = short(got), short(want)
        if isinstance(got, (dict, list)) and isinstance(want, type(got)):
            g, w = difference(got, want)
        return self.ok(False, what, f"cudalint says {g}, expected {w}")

    def note(self, text):
        print(f"note {text}", flush=True)

    def end(self):
        print(f"{self.name}: {self.n} checks, {self.bad} failures ({time.time() - self.t0:.0f} s)", flush=True)
        sys.exit(1 if self.bad or not self.n else 0)


def short(x, n=600):
    s = x if isinstance(x, str) else json.dumps(x, sort_keys=True, default=str)
    return s if len(s) <= n else s[:n] + "…"


def difference(got, want):
    """The parts that differ, for messages."""
    if isinstance(got, dict):
        keys = [k for k in {**got, **want} if got.get(k, "-") != want.get(k, "-")]
        return short({str(k): got.get(k, "absent") for k in keys[:6]}), short({str(k): want.get(k, "absent") for k in keys[:6]})
    a, b = [json.dumps(x, sort_keys=True) for x in got], [json.dumps(x, sort_keys=True) for x in want]
    only_a, only_b = [x for x in a if x not in b], [x for x in b if x not in a]
    if not only_a and not only_b:
        return short(a), short(b)
    return "also [" + short(", ".join(only_a), 400) + "]", "also [" + short(", ".join(only_b), 400) + "]"


class Result:
    def __init__(self, rc, out, err, seconds, command):
        self.rc, self.out, self.err, self.seconds, self.command = rc, out, err, seconds, command

    @property
    def doc(self):
        return json.loads(self.out)

    def __str__(self):
        return f"exit {self.rc}, stderr {short(self.err.strip(), 300)!r}"


def environment(home):
    """A clean environment: no credentials, configuration or cache of the person who runs the tests."""
    env = {k: v for k, v in os.environ.items() if not k.startswith(("CUDALINT_", "DOCKER_", "REGISTRY_"))
           and k.lower() not in ("http_proxy", "https_proxy", "all_proxy", "no_proxy")}
    home = Path(home)
    home.mkdir(parents=True, exist_ok=True)
    env |= {"HOME": str(home), "XDG_CACHE_HOME": str(home / "cache"), "XDG_RUNTIME_DIR": str(home / "run"),
            "XDG_CONFIG_HOME": str(home / "config"), "LC_ALL": "C.UTF-8"}
    return env


class Cudalint:
    """Runs the binary; every run is checked for a panic."""

    def __init__(self, binary, home, checks):
        self.binary, self.home, self.checks = str(binary), Path(home), checks
        self.env = environment(home)

    def __call__(self, *args, stdin=None, timeout=300, cache=False, **env):
        cmd = [self.binary, *map(str, args)]
        if not cache:
            env["CUDALINT_NO_CACHE"] = "true"
        with tempfile.TemporaryFile() as i, tempfile.TemporaryFile() as o, tempfile.TemporaryFile() as e:
            i.write(stdin.encode() if isinstance(stdin, str) else stdin or b"")
            i.seek(0)
            t0 = time.time()
            p = subprocess.Popen(cmd, stdin=i, stdout=o, stderr=e, env={**self.env, **env})
            late = threading.Event()
            timer = threading.Timer(timeout, lambda: (late.set(), os.kill(p.pid, signal.SIGKILL)))
            timer.start()
            _, status, usage = os.wait4(p.pid, 0)
            timer.cancel()
            p.returncode = rc = "timeout" if late.is_set() else os.waitstatus_to_exitcode(status)
            o.seek(0)
            e.seek(0)
            r = Result(rc, o.read().decode(errors="replace"), e.read().decode(errors="replace"), time.time() - t0, cmd[1:])
        r.rss, r.cpu = usage.ru_maxrss / 1024, usage.ru_utime + usage.ru_stime
        if "panicked" in r.err or rc == 101 or rc == "timeout" or rc < 0:
            self.checks.ok(False, "no crash, no endless run: cudalint " + " ".join(cmd[1:]), str(r))
        return r

    def facts(self, *args, **kw):
        """scan; None, and a failed check, where that does not work."""
        r = self("scan", "-f", "json", *args, **kw)
        if not self.checks.ok(r.rc == 0, "scan " + " ".join(map(str, args)), str(r)):
            return None
        return r.doc


def need(*commands):
    missing = [c for c in commands if not shutil.which(c)]
    if missing:
        sys.exit(f"missing: {', '.join(missing)} (tests/real/run.sh installs what is needed)")


def venv(directory, packages):
    """The Python of a virtual environment with these packages; made again only when they changed."""
    python, stamp = Path(directory) / "bin/python", Path(directory) / "installed"
    if not stamp.exists() or stamp.read_text() != "\n".join(packages):
        subprocess.run([sys.executable, "-m", "venv", "--clear", directory], check=True)
        subprocess.run([python, "-m", "pip", "install", "-q", "--disable-pip-version-check", *packages], check=True)
        stamp.write_text("\n".join(packages))
    return python


def sha256(path):
    with open(path, "rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()


# ----------------------------------------------------------------------------------------------------- wheels
def wheel_options(filename):
    """pip options that choose exactly this wheel."""
    py, abi, plat = filename[:-4].split("-")[-3:]
    m = re.match(r"cp(\d)(\d+)$", py.split(".")[0])
    out = ["--implementation", "cp", "--python-version", f"{m[1]}.{m[2]}" if m else "3.11"]
    for x in abi.split("."):
        out += ["--abi", x]
    for x in plat.split("."):
        out += ["--platform", x]
    return out


def fetch_wheel(cache, name, version, filename=None):
    """The wheel's path; downloaded once with pip, in the cache afterwards."""
    d = Path(cache) / "wheels"
    d.mkdir(parents=True, exist_ok=True)
    if filename and (d / filename).exists():
        return d / filename
    plain = re.sub(r"[-_.]+", "_", name).lower()
    have = sorted(p for p in d.glob("*.whl") if p.name.lower().startswith(f"{plain}-{version}-"))
    if not filename and have:
        return have[0]
    cmd = [sys.executable, "-m", "pip", "download", "-q", "--disable-pip-version-check", "--no-deps", "--no-cache-dir", "--only-binary=:all:"]
    if filename:
        cmd += wheel_options(filename)
    with tempfile.TemporaryDirectory(dir=d) as td:
        p = subprocess.run([*cmd, "-d", td, f"{name}=={version}" if version else name], stderr=subprocess.PIPE, text=True)
        got = list(Path(td).glob("*.whl"))
        if p.returncode or not got or (filename and got[0].name != filename):
            raise RuntimeError(f"pip did not bring {filename or name}: {p.stderr.strip()[-300:]}")
        got[0].rename(d / got[0].name)
        return d / got[0].name


def member(wheel, path, target):
    """Unpacks one file of a wheel; target is its path outside."""
    target = Path(target)
    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        part = target.with_name(target.name + ".part")
        with zipfile.ZipFile(wheel) as z, z.open(path) as i, open(part, "wb") as o:
            shutil.copyfileobj(i, o, 1 << 20)
        part.rename(target)
    return target


# ------------------------------------------------------------------------------------------------- registries
class Served:
    """A server of this process, which runs while the `with` lasts; who inherits makes `self.server`."""

    def __enter__(self):
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_):
        self.server.shutdown()
        self.server.server_close()


class Registry:
    """A registry of tests/tools/registry-up, ended when the block ends."""

    def __init__(self, *options, dir=None):
        self.options, self.dir = options, dir

    def __enter__(self):
        cmd = [str(TOOLS / "registry-up"), *map(str, self.options)]
        if self.dir:
            cmd += ["--dir", str(self.dir)]
        p = subprocess.run(cmd, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        if p.returncode:
            raise RuntimeError(p.stderr.strip())
        v = dict(l.split("=", 1) for l in p.stdout.split())
        self.host, self.url, self.path = v["REGISTRY"], v["REGISTRY_URL"], Path(v["REGISTRY_DIR"])
        self.ca, self.cert, self.key = v.get("REGISTRY_CA"), v.get("REGISTRY_CERT"), v.get("REGISTRY_KEY")
        return self

    def pulled(self):
        """The digests of all blobs asked for with GET, in order."""
        return re.findall(r'"GET /v2/\S*/blobs/(sha256:[0-9a-f]{64})', (self.path / "log").read_text(errors="replace"))

    def __exit__(self, *_):
        subprocess.run([str(TOOLS / "registry-down"), str(self.path), *([] if self.dir else ["--purge"])])


class Faults:
    """registry-faults.py in front of a registry."""

    def __init__(self, upstream, *options, log=None):
        self.cmd = [sys.executable, str(TOOLS / "registry-faults.py"), "--upstream", upstream, *map(str, options)]
        if log:
            self.cmd += ["--log", str(log)]

    def __enter__(self):
        self.p = subprocess.Popen(self.cmd, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, start_new_session=True)
        line = self.p.stdout.readline()
        if not line.startswith("FAULTS="):
            raise RuntimeError("registry-faults.py did not start")
        self.host = line.strip().split("=", 1)[1]
        return self

    def __exit__(self, *_):
        self.p.send_signal(signal.SIGTERM)
        self.p.wait()


def push(source, target, *options):
    p = subprocess.run(["skopeo", "copy", "-q", "--insecure-policy", *options, source, target], stdout=subprocess.DEVNULL,
                       stderr=subprocess.PIPE, text=True, env={**os.environ, "no_proxy": "*"})
    if p.returncode:
        raise RuntimeError(f"skopeo copy {source} {target}: {p.stderr.strip()[-400:]}")


def mkimage():
    """tests/tools/mkimage.py as a module."""
    import importlib.util
    spec = importlib.util.spec_from_file_location("mkimage", TOOLS / "mkimage.py")
    m = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(m)
    return m


def build_corpus(cache, *names):
    """Builds recipes of tests/corpus (all without names); the directory of the layouts."""
    out = Path(cache) / "corpus"
    subprocess.run([sys.executable, str(TOOLS / "build_corpus.py"), "build", "--out", str(out), "--cache", str(Path(cache) / "corpus-cache"),
                    *(names or ["--all"])], check=True)
    return out


def raw_push(layout, tag, host, repository, name):
    """Puts what the layout has under `tag` into a registry, byte for byte, without a tool that has views of its own."""
    import http.client
    blobs = Path(layout) / "blobs/sha256"
    top = next(m for m in json.loads((Path(layout) / "index.json").read_text())["manifests"]
               if m.get("annotations", {}).get("org.opencontainers.image.ref.name") == tag)

    def send(method, url, body=b"", kind="application/octet-stream"):
        con = http.client.HTTPConnection(host)
        con.request(method, url, body, {"Content-Type": kind, "Content-Length": str(len(body))})
        r = con.getresponse()
        said = r.read()
        if r.status >= 300:
            raise RuntimeError(f"{method} {url}: {r.status} {said[:200]}")
        return r.headers.get("Location") or ""

    def put(desc, where):
        data = (blobs / desc["digest"][7:]).read_bytes()
        doc = json.loads(data)
        for m in doc.get("manifests", []):
            put(m, m["digest"])
        for b in [doc.get("config"), *doc.get("layers", [])] if "manifests" not in doc else []:
            place = send("POST", f"/v2/{repository}/blobs/uploads/")
            place = re.sub(r"^https?://[^/]+", "", place)
            send("PUT", place + ("&" if "?" in place else "?") + "digest=" + b["digest"], (blobs / b["digest"][7:]).read_bytes())
        send("PUT", f"/v2/{repository}/manifests/{where}", data, desc["mediaType"])

    put(top, name)
