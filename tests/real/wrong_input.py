#!/usr/bin/env python3
"""Wrong, damaged and hostile input: the exit status, one line on stderr, never a panic, never a hang.

  typed      what was typed is wrong: exit 2 with exactly one line on stderr
  absent     the image is not there or may not be read: exit 3, one line
  registry   answers that no registry should give: exit 3, one line
  damaged    layers, manifests, archives: exit 3, one line, no report that says `complete: true`, no verdict better
             than unknown; with --verify-diff-ids a wrong diff_id too
  unsuited   schema 1, encrypted layers, Windows, artifacts: exit 3, one line
  tars       odd but legal tars are read as tar and the layer rules say (the last of two members counts, `..` cannot
             leave the root); damaged ones are exit 3
  elf        damaged libraries: a problem of the file, not of the image; 200 variants with a fixed seed (flips in ELF
             header, program headers, section headers, dynamic section, fat binaries; truncations) end within 5 seconds
             and 300 MB without a crash, alone and 20 to a layer
  many       600 layers, symlink loops, deep paths, many files, a gzip bomb

Where the interface leaves two exit statuses open, both are allowed (given as a set below).
"""
import gzip
import hashlib
import io
import json
import os
import random
import re
import signal
import struct
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

sys.dont_write_bytecode = True
sys.path.insert(0, str(Path(__file__).resolve().parent))
from common import Checks, Cudalint, Registry, arguments, fetch_wheel, member, need, push, short

OCI = "application/vnd.oci.image."
TARGET = ("--host-driver", "535.183.01", "--gpu", "h100")


def digest(data):
    return "sha256:" + hashlib.sha256(data).hexdigest()


class Image:
    """An OCI layout written by hand, so that anything in it can be wrong."""

    def __init__(self, path, layers=(), config=None, manifest=None, index=None, kind="gzip", diff_ids=None, raw_manifest=None):
        self.path = Path(path)
        self.blobs = self.path / "blobs/sha256"
        self.blobs.mkdir(parents=True, exist_ok=True)
        rows, ids = [], []
        for l in layers:
            if isinstance(l, bytes):
                l = {"tar": l}
            data = l.get("blob", gzip.compress(l["tar"], 1) if kind == "gzip" else l.get("tar"))
            ids.append(l.get("diff_id") or digest(l.get("tar", b"")))
            d = self.put(data)
            rows.append({"mediaType": l.get("type", OCI + "layer.v1.tar" + ("+gzip" if kind == "gzip" else "")), "digest": l.get("digest", d), "size": l.get("size", len(data))})
        c = {"architecture": "amd64", "os": "linux", "config": {"Env": ["PATH=/usr/bin"], "Cmd": ["sh"]},
             "rootfs": {"type": "layers", "diff_ids": ids if diff_ids is None else diff_ids}, "history": [{"created_by": f"L{i}"} for i in range(len(ids))]}
        c.update(config or {})
        cfg = json.dumps(c).encode()
        m = {"schemaVersion": 2, "mediaType": OCI + "manifest.v1+json",
             "config": {"mediaType": OCI + "config.v1+json", "digest": self.put(cfg), "size": len(cfg)}, "layers": rows}
        m.update(manifest or {})
        data = json.dumps(m).encode() if raw_manifest is None else raw_manifest
        row = {"mediaType": m["mediaType"], "digest": self.put(data), "size": len(data), "annotations": {"org.opencontainers.image.ref.name": "x"}}
        row.update(index or {})
        (self.path / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
        (self.path / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [row]}))
        self.manifest, self.ref = m, f"oci:{path}"

    def put(self, data):
        (self.blobs / digest(data)[7:]).write_bytes(data)
        return digest(data)

    def blob(self, i):
        return self.blobs / self.manifest["layers"][i]["digest"][7:]


def tar(*members, end=True, fmt=tarfile.GNU_FORMAT):
    """members: (name, bytes) or a TarInfo or (TarInfo, bytes) or raw bytes."""
    out = io.BytesIO()
    for m in members:
        if isinstance(m, bytes):
            out.write(m)
            continue
        info, data = m if isinstance(m, tuple) else (m, b"")
        if isinstance(info, str):
            name, info = info, tarfile.TarInfo(info)
            info.name = name
        if data:
            info.size = len(data)
        out.write(info.tobuf(fmt, "utf-8", "surrogateescape"))
        out.write(data + b"\0" * (-len(data) % 512))
    if end:
        out.write(b"\0" * 1024)
    return out.getvalue()


def link(name, target, kind=tarfile.SYMTYPE):
    i = tarfile.TarInfo(name)
    i.type, i.linkname = kind, target
    return i


def header(name, size_field, kind=b"0"):
    """A tar header with a size field of one's own."""
    h = bytearray(tarfile.TarInfo(name).tobuf(tarfile.GNU_FORMAT))
    h[124:136], h[156:157], h[148:156] = size_field, kind, b" " * 8
    h[148:156] = b"%06o\0 " % sum(h)
    return bytes(h)


class Test:
    def __init__(self, c, lint, t):
        self.c, self.lint, self.t = c, lint, t

    def run(self, what, codes, *args, words=(), limit=20, rss=400, **kw):
        codes = {codes} if isinstance(codes, int) else set(codes)
        r = self.lint(*args, timeout=60, **kw)
        c = self.c
        c.ok(r.rc in codes, f"{what}: exit {' or '.join(map(str, sorted(codes)))}", str(r))
        if r.rc in (2, 3):
            c.eq(len([l for l in r.err.splitlines() if l.strip()]), 1, f"{what}: lines on stderr ({short(r.err.strip(), 200)!r})")
            c.ok('"complete": true' not in r.out, f"{what}: no report that says complete")
            if r.out.lstrip().startswith("{"):
                for row in r.doc.get("targets", []):
                    c.ok(row["verdict"] in ("unknown", "fails"), f"{what}: verdict of an incomplete look", row["verdict"])
        for w in words:
            c.ok(w.lower() in r.err.lower(), f"{what}: the line names {w!r}", str(r))
        c.ok(not re.search(r"[\x00-\x08\x0b-\x1f\x7f]", r.err + r.out), f"{what}: no control characters", short((r.err + r.out), 200))
        c.ok(r.seconds < limit, f"{what}: within {limit} s", f"{r.seconds:.1f} s")
        c.ok(r.rss < rss, f"{what}: within {rss} MB", f"{r.rss:.0f} MB")
        return r

    def both(self, what, codes, ref, *args, **kw):
        self.run(f"scan {what}", codes, "scan", ref, *args, **kw)
        judged = {1 if k == 0 else k for k in ({codes} if isinstance(codes, int) else codes)} | ({0} if 0 in ({codes} if isinstance(codes, int) else codes) else set())
        self.run(f"check {what}", judged, "check", "-f", "json", ref, *TARGET, *args, **kw)


def typed(x):
    good = Image(x.t / "good", [tar(("etc/os-release", b"ID=debian\n"))]).ref
    x.good = good
    x.run("good image", 0, "scan", good)
    for ref in ("", ":", "Repo/UPPER:1", "a//b", "host:99999999/x", "x:bad tag", "x@sha256:123", "x@md5:d41d8cd98f00b204e9800998ecf8427e", "docker://", "oci:", "http://example.com/x:1",
                "a:b:c:d", "-x", "x" * 5000, "registry:", "oci-archive:", "docker-archive:", "dir:", "file:", "x:" + "t" * 200, "\x1b[31mred"):
        x.run(f"reference {short(ref, 40)!r}", 2, "scan", *(["--"] if ref.startswith("-") else []), ref)
    for ref in ("/nonexistent/image.tar", "./nonexistent", "../nonexistent.tar", "oci:/nonexistent", "oci-archive:/nonexistent.tar", "docker-archive:/nonexistent.tar", "dir:/nonexistent", "file:/nonexistent.so"):
        x.run(f"path {ref}", 2, "scan", ref, words=["nonexistent"])
    x.run("unknown GPU", 2, "check", good, "--gpu", "h1000", words=["h1000", "h100"])
    x.run("unknown GPU far off", 2, "check", good, "--gpu", "zzzzzz", words=["zzzzzz"])
    x.run("ambiguous GPU", 2, "check", good, "--gpu", "rtx6000", words=["rtx6000", "ada"])
    for g in ("", "sm_", "sm_1", "9.9.9", "-1", "h100 h200", "\x1b[31m"):
        x.run(f"GPU {g!r}", 2, "check", good, f"--gpu={g}")
    for d in ("abc", "", "535.", "535.x", "-5", "99999999999999999999999", "535.183.01.2.3.4", "5 35"):
        x.run(f"driver {d!r}", 2, "check", good, f"--host-driver={d}")
    for d in ("abc", "12", "99.99", "12.", "-1.0"):
        x.run(f"--host-cuda {d!r}", {0, 1, 2} if d in ("12", "99.99") else 2, "check", good, f"--host-cuda={d}")
    x.run("--platform linux", {0, 2}, "scan", good, "--platform", "linux")
    x.run("--platform a/b/c/d", 2, "scan", good, "--platform", "a/b/c/d")
    x.run("--timeout soon", 2, "scan", good, "--timeout", "soon")
    x.run("--as-of yesterday", 2, "check", good, "--as-of", "yesterday")
    x.run("--format pdf", 2, "check", good, "-f", "pdf")
    x.run("unknown option", 2, "scan", good, "--no-such-option")
    x.run("unknown rule", 2, "explain", "CUL999")
    x.run("--catalog absent", 2, "check", good, "--catalog", "/nonexistent")
    x.run("no image", 2, "scan")
    x.run("no image for check", 2, "check")
    x.run("-o in an absent directory", {2, 3}, "scan", good, "-o", "/nonexistent/dir/x.json")
    x.run("--facts absent", 2, "check", "--facts", "/nonexistent/facts.json")
    for name, text in (("empty", ""), ("no JSON", "hello"), ("other JSON", "[1, 2]"), ("empty object", "{}"), ("later schema", '{"facts_schema": 99}'), ("deep", "[" * 100000)):
        (x.t / "facts.json").write_text(text)
        x.run(f"--facts {name}", {2, 3}, "check", "--facts", x.t / "facts.json", *TARGET)
    facts = x.lint("scan", good).doc
    facts["complete"] = False
    (x.t / "facts.json").write_text(json.dumps(facts))
    x.run("--facts of an incomplete look", 3, "check", "-f", "json", "--facts", x.t / "facts.json", *TARGET)
    x.run("facts and an image", 2, "check", good, "--facts", x.t / "facts.json")
    x.run("2 wins over 3", 2, "check", "127.0.0.1:1/t/x:1", "--gpu", "nosuchgpu")
    x.run("authfile absent", {2, 3}, "scan", "127.0.0.1:1/t/x:1", "--authfile", "/nonexistent.json")
    x.run("CA file absent", {2, 3}, "scan", "127.0.0.1:1/t/x:1", "--ca-file", "/nonexistent.pem")
    (x.t / "ca.pem").write_text("no certificate")
    x.run("CA file without certificate", {2, 3}, "scan", "127.0.0.1:1/t/x:1", "--ca-file", x.t / "ca.pem")
    x.run("--tls-cert without --tls-key", 2, "scan", "127.0.0.1:1/t/x:1", "--tls-cert", x.t / "ca.pem")
    x.run("--password-stdin without --username", 2, "scan", "127.0.0.1:1/t/x:1", "--password-stdin", stdin="pw")
    # a reader that goes away, and Ctrl-C
    p = subprocess.run(f"'{x.lint.binary}' scan '{good}' --no-cache | true; exit ${{PIPESTATUS[0]}}", shell=True, executable="/bin/bash", capture_output=True, text=True, env=x.lint.env)
    x.c.ok("panicked" not in p.stderr and not p.stderr.strip(), "closed pipe: quiet", p.stderr[:200])


def absent(x):
    x.run("connection refused", 3, "scan", "127.0.0.1:1/t/x:1", words=["127.0.0.1:1"])
    x.run("host that does not exist", 3, "scan", "registry.invalid/t/x:1", words=["registry.invalid"], limit=60)
    with Registry("--auth", "anna:s3cret") as r:
        push(x.good + ":x", f"docker://{r.host}/t/x:1", "--preserve-digests", "--dest-tls-verify=false", "--dest-creds", "anna:s3cret")
        login = ("--username", "anna", "--password-stdin")
        x.run("with the password", 0, "scan", f"{r.host}/t/x:1", *login, stdin="s3cret")
        x.run("no such tag", 3, "scan", f"{r.host}/t/x:nosuch", *login, stdin="s3cret", words=["nosuch"])
        x.run("no such repository", 3, "scan", f"{r.host}/t/nosuch:1", *login, stdin="s3cret", words=["nosuch"])
        x.run("no such digest", 3, "scan", f"{r.host}/t/x@sha256:{'0' * 64}", *login, stdin="s3cret")
        x.run("no credentials", 3, "scan", f"{r.host}/t/x:1")
        o = x.run("wrong password", 3, "scan", f"{r.host}/t/x:1", *login, stdin="wr0ngpass")
        x.c.ok("wr0ngpass" not in o.err + o.out, "wrong password: not shown")
        x.run("empty password", {2, 3}, "scan", f"{r.host}/t/x:1", *login, stdin="")
        for name, text in (("no JSON", "hello"), ("no object", "[]"), ("bad base64", json.dumps({"auths": {r.host: {"auth": "%%%"}}})), ("helper absent", json.dumps({"credHelpers": {r.host: "no-such-helper"}}))):
            (x.t / "auth.json").write_text(text)
            x.run(f"authfile {name}", {2, 3}, "scan", f"{r.host}/t/x:1", "--authfile", x.t / "auth.json")
    for name, path, codes in (("0-byte archive", "empty.tar", 3), ("text in place of an archive", "text.tar", {2, 3}), ("zeros in place of an archive", "zeros.tar", {2, 3}), ("half an archive", "half.tar", 3)):
        f = x.t / path
        if path == "half.tar":
            push(x.good + ":x", f"docker-archive:{x.t}/whole.tar:t/x:1")
            f.write_bytes((x.t / "whole.tar").read_bytes()[:2000])
        else:
            f.write_bytes({"empty.tar": b"", "text.tar": b"hello\n" * 100, "zeros.tar": bytes(10240)}[path])
        for kind in ("", "docker-archive:", "oci-archive:", "file:"):
            if kind != "file:":
                x.run(f"{kind or 'bare path to '}{name}", codes if kind else {2, 3}, "scan", f"{kind}{f}")
            else:
                x.run(f"file: {name}", {0, 2, 3}, "scan", f"{kind}{f}")
    (x.t / "emptydir").mkdir()
    (x.t / "afile").write_text("x")
    for kind in ("oci:", "docker-archive:", "oci-archive:", "file:"):
        x.run(f"{kind} with an empty directory", {2, 3}, "scan", f"{kind}{x.t}/emptydir")
    for kind in ("oci:", "dir:"):
        x.run(f"{kind} with a file", {2, 3}, "scan", f"{kind}{x.t}/afile")
    x.run("bare path to an empty directory", {0, 2, 3}, "scan", f"{x.t}/emptydir")
    if os.path.exists("/dev/full"):
        x.run("dir: with a device", {2, 3}, "scan", "file:/dev/full")
    x.run("no such tag in a layout", 3, "scan", x.good + ":nosuch", words=["nosuch"])
    x.run("no such index in a layout", {2, 3}, "scan", x.good + "@7")


class Fake:
    """A registry that says what a table says: {path: (status, headers, body)}."""

    def __init__(self, table, default=(404, {}, b'{"errors":[{"code":"NOT_FOUND"}]}')):
        class H(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *a):
                pass

            def do_GET(self):
                status, headers, body = table.get(self.path, table.get("*", default) if self.path != "/v2/" else (200, {}, b"{}"))
                try:
                    self.send_response(status)
                    for k, v in headers.items():
                        self.send_header(k, v.replace("HOST", self.headers.get("Host", "")))
                    if "Content-Length" not in headers:
                        self.send_header("Content-Length", str(len(body)))
                    self.end_headers()
                    if self.command != "HEAD":
                        if body == b"ENDLESS":
                            for _ in range(200):
                                self.wfile.write(b" " * (1 << 20))
                        self.wfile.write(body)
                except OSError:
                    pass

            do_HEAD = do_GET

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), H)
        self.server.handle_error = lambda *_: None      # clients that hang up are what is tested
        self.host = f"127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.server.shutdown()
        self.server.server_close()


def registry(x):
    kind = {"Content-Type": OCI + "manifest.v1+json"}
    layer = gzip.compress(tar(("a", b"b")))
    cfg = json.dumps({"architecture": "amd64", "os": "linux", "config": {}, "rootfs": {"type": "layers", "diff_ids": [digest(tar(("a", b"b")))]}}).encode()
    m = {"schemaVersion": 2, "mediaType": OCI + "manifest.v1+json", "config": {"mediaType": OCI + "config.v1+json", "digest": digest(cfg), "size": len(cfg)},
         "layers": [{"mediaType": OCI + "layer.v1.tar+gzip", "digest": digest(layer), "size": len(layer)}]}
    man = json.dumps(m).encode()
    base = {"/v2/t/x/manifests/1": (200, kind, man), f"/v2/t/x/blobs/{digest(cfg)}": (200, {}, cfg), f"/v2/t/x/blobs/{digest(layer)}": (200, {}, layer)}
    one = "/v2/t/x/manifests/1"
    cases = [("all as it should be", {}, 0), ("HTML in place of a manifest", {one: (200, {"Content-Type": "text/html"}, b"<html><body>sign in</body></html>")}, 3),
             ("no JSON", {one: (200, kind, b"{{{")}, 3), ("empty manifest", {one: (200, kind, b"")}, 3), ("JSON that is no manifest", {one: (200, kind, b"[]")}, 3),
             ("manifest without layers key", {one: (200, kind, json.dumps({k: v for k, v in m.items() if k != "layers"}).encode())}, 3),
             ("endless manifest", {one: (200, {**kind, "Content-Length": "999999999"}, b"ENDLESS")}, 3),
             ("deeply nested JSON", {one: (200, kind, b"[" * 200000)}, 3),
             ("Docker-Content-Digest of another manifest", {one: (200, {**kind, "Docker-Content-Digest": digest(b"other")}, man)}, {0, 3}),
             ("500", {one: (500, {}, b"oops")}, 3), ("418", {one: (418, {}, b"")}, 3), ("401 without challenge", {one: (401, {}, b"")}, 3),
             ("401 with a strange challenge", {one: (401, {"WWW-Authenticate": "Negotiate"}, b"")}, 3),
             ("401 with a realm that is no URL", {one: (401, {"WWW-Authenticate": 'Bearer realm="nonsense",service="x"'}, b"")}, 3),
             ("401 with a token service that is away", {one: (401, {"WWW-Authenticate": 'Bearer realm="http://127.0.0.1:1/token",service="x"'}, b"")}, 3),
             ("401 with a token service of nonsense", {one: (401, {"WWW-Authenticate": 'Bearer realm="http://HOST/token",service="x"'}, b""), "/token": (200, {}, b"nonsense")}, 3),
             ("redirect to itself", {one: (307, {"Location": "http://HOST/v2/t/x/manifests/1"}, b"")}, 3),
             ("redirect to file:", {one: (307, {"Location": "file:///etc/passwd"}, b"")}, 3),
             ("redirect without place", {one: (307, {}, b"")}, 3),
             ("configuration absent", {f"/v2/t/x/blobs/{digest(cfg)}": (404, {}, b"{}")}, 3),
             ("configuration of other bytes", {f"/v2/t/x/blobs/{digest(cfg)}": (200, {}, cfg.replace(b"amd64", b"arm64"))}, 3),
             ("layer absent", {f"/v2/t/x/blobs/{digest(layer)}": (404, {}, b"{}")}, 3),
             ("layer of other bytes", {f"/v2/t/x/blobs/{digest(layer)}": (200, {}, gzip.compress(tar(("c", b"d"))))}, 3),
             ("layer longer than said", {f"/v2/t/x/blobs/{digest(layer)}": (200, {}, layer + bytes(5000))}, 3),
             ("endless layer", {f"/v2/t/x/blobs/{digest(layer)}": (200, {"Content-Length": "999999999"}, b"ENDLESS")}, 3),
             ("escape sequences in an error", {one: (403, {}, b'{"errors":[{"code":"DENIED","message":"\\u001b[31mred\\u0007"}]}')}, 3)]
    for what, change, codes in cases:
        with Fake({**base, **change}) as f:
            x.run(f"registry: {what}", codes, "scan", f"{f.host}/t/x:1", limit=30)
    for name, v1 in (("v1", {"schemaVersion": 1, "name": "t/x", "tag": "1", "architecture": "amd64", "fsLayers": [{"blobSum": digest(layer)}], "history": [{"v1Compatibility": "{}"}]}),):
        with Fake({**base, one: (200, {"Content-Type": "application/vnd.docker.distribution.manifest.v1+prettyjws"}, json.dumps(v1).encode())}) as f:
            x.run("registry: schema 1 manifest", 3, "scan", f"{f.host}/t/x:1", words=["schema"])
    # Ctrl-C in the middle of a pull
    with Fake({**base, f"/v2/t/x/blobs/{digest(layer)}": (200, {"Content-Length": str(1 << 30)}, b"x")}) as f:
        p = subprocess.Popen([x.lint.binary, "scan", f"{f.host}/t/x:1", "--no-cache"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL, env=x.lint.env)
        time.sleep(1)
        p.send_signal(signal.SIGINT)
        try:
            out, err = p.communicate(timeout=10)
            x.c.ok(p.returncode in (130, -signal.SIGINT) and b"panicked" not in err, "SIGINT ends with 130", f"exit {p.returncode} {err[:200]}")
            x.c.ok(not out, "SIGINT: no half report", out[:100])
        except subprocess.TimeoutExpired:
            p.kill()
            x.c.ok(False, "SIGINT ends the pull", "still running after 10 s")


def damaged(x):
    body = os.urandom(300000)
    plain = tar(("opt/a.bin", body), ("opt/b.txt", b"b"))
    gz = gzip.compress(plain, 1)
    flip = lambda data, at: data[:at] + bytes([data[at] ^ 0xFF]) + data[at + 1:]

    def break_blob(i, change):
        p = i.blob(0)
        p.write_bytes(change(p.read_bytes()))
        return i.ref

    at = lambda n: x.t / f"damaged-{n}"
    x.both("truncated layer", 3, break_blob(Image(at(1), [plain]), lambda d: d[: len(d) // 2]))
    x.both("layer without its last byte", 3, break_blob(Image(at(2), [plain]), lambda d: d[:-1]))
    x.both("empty blob in place of a layer", 3, break_blob(Image(at(3), [plain]), lambda d: b""))
    x.both("layer with a byte more", 3, break_blob(Image(at(4), [plain]), lambda d: d + b"x"))
    for i, pos in enumerate((0, 3, 10, 1000, len(gz) // 2, len(gz) - 6, len(gz) - 2)):
        x.both(f"flipped byte {pos} of a gzip layer", 3, break_blob(Image(at(f"5-{i}"), [plain]), lambda d, pos=pos: flip(d, pos)), words=["layer 0"])
    for pos in (5, 600, 200000, len(plain) - 1):
        x.both(f"flipped byte {pos} of a plain layer", 3, break_blob(Image(at(f"6-{pos}"), [plain], kind="none"), lambda d, pos=pos: flip(d, pos)), words=["layer 0"])
    x.both("two flipped layers", 3, two_flipped(at(61), plain, flip))
    i = Image(at(7), [plain])
    i.blob(0).unlink()
    x.both("layer blob absent", 3, i.ref)
    x.both("wrong size in the manifest, smaller", 3, Image(at(8), [{"tar": plain, "size": 1000}]).ref)
    x.both("wrong size in the manifest, larger", 3, Image(at(9), [{"tar": plain, "size": 10**9}]).ref)
    x.both("negative size in the manifest", 3, Image(at(10), [{"tar": plain, "size": -1}]).ref)
    x.run("wrong diff_id, not asked", 0, "scan", Image(at(11), [{"tar": plain, "diff_id": digest(b"other")}]).ref)
    x.both("wrong diff_id with --verify-diff-ids", 3, f"oci:{at(11)}", "--verify-diff-ids", words=["uncompressed"])
    x.run("right diff_id with --verify-diff-ids", 0, "scan", Image(at(12), [plain]).ref, "--verify-diff-ids")
    x.both("digest that is not the blob's", 3, wrong_digest(at(13), plain))
    x.both("fewer diff_ids than layers", {0, 3}, Image(at(14), [plain, plain], diff_ids=[digest(plain)]).ref)
    x.both("more diff_ids than layers", {0, 3}, Image(at(15), [plain], diff_ids=[digest(plain)] * 3).ref)
    x.both("no gzip behind a gzip media type", {0, 3}, Image(at(16), [{"tar": plain, "blob": plain}]).ref)
    x.both("garbage behind a gzip media type", 3, Image(at(17), [{"tar": plain, "blob": body}]).ref)
    x.both("gzip of no tar", 3, Image(at(18), [body]).ref)
    x.both("valid gzip of half a tar", 3, Image(at(19), [plain[: 200000]]).ref)
    x.both("tar that ends inside a header", 3, Image(at(20), [plain[:300]]).ref)
    x.both("two gzip members", 0, Image(at(21), [{"tar": plain, "blob": gzip.compress(plain[:100000]) + gzip.compress(plain[100000:])}]).ref)
    x.both("garbage after the gzip stream", {0, 3}, Image(at(22), [{"tar": plain, "blob": gz + b"garbage" * 9}]).ref)
    x.both("manifest that is no JSON", 3, Image(at(23), [plain], raw_manifest=b"{{").ref)
    x.both("empty manifest", 3, Image(at(24), [plain], raw_manifest=b"").ref)
    for name, cfg in (("list", []), ("string", "x"), ("null", None)):
        x.both(f"configuration of another type: {name}", {0, 3}, Image(at(f"25-{name}"), [plain], config={"config": cfg}).ref)
    x.both("environment of odd entries", 0, Image(at(26), [plain], config={"config": {"Env": ["NOEQUALS", "=x", "A=1", "A=2", "B=\x1b[31m"]}}).ref)
    i = Image(at(27), [plain])
    (i.path / "index.json").write_text("{}")
    x.both("index without manifests", 3, i.ref)
    i = Image(at(28), [plain])
    (i.path / "index.json").write_text('{"schemaVersion": 2, "manifests": []}')
    x.both("index of nothing", 3, i.ref)
    i = Image(at(29), [plain])
    d = i.put(json.dumps({"schemaVersion": 2, "mediaType": OCI + "index.v1+json", "manifests": []}).encode())
    nested = {"mediaType": OCI + "index.v1+json", "digest": d, "size": 90}
    for _ in range(40):
        data = json.dumps({"schemaVersion": 2, "mediaType": OCI + "index.v1+json", "manifests": [nested]}).encode()
        nested = {"mediaType": OCI + "index.v1+json", "digest": i.put(data), "size": len(data)}
    (i.path / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [nested]}))
    x.both("index in index, 40 deep", 3, i.ref)
    i = Image(at(30), [plain])
    doc = json.loads((i.path / "index.json").read_text())
    doc["manifests"][0]["digest"] = "sha256:../../../etc/passwd"
    (i.path / "index.json").write_text(json.dumps(doc))
    x.both("digest that is a path", 3, i.ref)
    x.both("oversized layer count in an archive manifest", 3, archive_of(x, at(31), [{"Config": "c.json", "RepoTags": ["t/x:1"], "Layers": ["a/layer.tar"] * 3}]))
    x.both("archive with a path that leaves it", 3, archive_of(x, at(32), [{"Config": "../../etc/hostname", "RepoTags": ["t/x:1"], "Layers": []}]))
    x.both("archive without image", 3, archive_of(x, at(33), []))


def two_flipped(path, plain, flip):
    i = Image(path, [plain, tar(("opt/c.bin", os.urandom(200000)))])
    for n in (0, 1):
        i.blob(n).write_bytes(flip(i.blob(n).read_bytes(), 5000))
    return i.ref


def wrong_digest(path, plain):
    i = Image(path, [plain])
    p = i.blob(0)
    p.write_bytes(gzip.compress(plain, 9, mtime=0) + b"")
    return i.ref


def archive_of(x, path, manifest):
    p = Path(str(path) + ".tar")
    p.write_bytes(tar(("c.json", b'{"architecture":"amd64","os":"linux","config":{},"rootfs":{"type":"layers","diff_ids":[]}}'), ("manifest.json", json.dumps(manifest).encode())))
    return f"docker-archive:{p}"


def unsuited(x):
    plain = tar(("a", b"b"))
    at = lambda n: x.t / f"unsuited-{n}"
    v1 = json.dumps({"schemaVersion": 1, "name": "t/x", "tag": "1", "architecture": "amd64", "fsLayers": [], "history": []}).encode()
    x.both("schema 1 manifest in a layout", 3, Image(at(1), [plain], raw_manifest=v1, index={"mediaType": "application/vnd.docker.distribution.manifest.v1+prettyjws"}).ref, words=["schema"])
    x.both("encrypted layer", 3, Image(at(2), [{"tar": plain, "type": OCI + "layer.v1.tar+gzip+encrypted"}]).ref, words=["encrypt"])
    x.both("unknown layer media type", {0, 3}, Image(at(3), [{"tar": plain, "type": "application/octet-stream"}]).ref)
    x.both("Windows image", 3, Image(at(4), [plain], config={"os": "windows"}, index={"platform": {"os": "windows", "architecture": "amd64"}}).ref, words=["windows"])
    x.both("Windows image, platform only in its configuration", 3, Image(at(5), [plain], config={"os": "windows"}).ref, words=["windows"])
    x.both("artifact", 3, Image(at(6), [{"tar": plain, "type": "application/vnd.cncf.helm.chart.content.v1.tar+gzip"}], manifest={"artifactType": "application/vnd.cncf.helm.config.v1+json", "config": {
        "mediaType": "application/vnd.oci.empty.v1+json", "digest": digest(b"{}"), "size": 2}}).ref, words=["artifact"])
    x.both("image without layers", {0, 3}, Image(at(7), []).ref)
    x.both("empty layer", 0, Image(at(8), [tar()]).ref)
    x.both("layer of no byte at all", {0, 3}, Image(at(9), [b""]).ref)
    x.both("platform asked for is another", 3, Image(at(10), [plain], index={"platform": {"os": "linux", "architecture": "amd64"}}).ref, "--platform", "linux/arm64", words=["arm64"])
    x.both("only attestations", 3, Image(at(11), [plain], index={"platform": {"os": "unknown", "architecture": "unknown"}, "annotations": {"vnd.docker.reference.type": "attestation-manifest", "org.opencontainers.image.ref.name": "x"}}).ref)


def paths(r):
    return sorted(f["path"] for f in r.doc["files"])


def tars(x, lib, other):
    """lib, other: bytes of two true libraries with different sonames."""
    at = lambda n: x.t / f"tar-{n}"
    so = lambda r: {f["path"]: f["elf"] and f["elf"]["soname"] for f in r.doc["files"]}
    def good(what, layers, want=None, codes=0, kind="gzip"):
        r = x.run(f"tar: {what}", codes, "scan", Image(at(what.replace(" ", "-").replace("/", "_")), layers, kind=kind).ref)
        if r.rc == 0:
            x.c.ok(not any(".." in p.split("/") for p in paths(r)), f"tar: {what}: no `..` in paths", str(paths(r)))
            if want is not None:
                x.c.eq(so(r), want, f"tar: {what}: files and sonames")
        return r

    one = x.lint("scan", file_with(x, "one.so", lib)).doc["files"][0]["elf"]["soname"]
    two = x.lint("scan", file_with(x, "two.so", other)).doc["files"][0]["elf"]["soname"]
    x.c.ok(one != two, "tar: two libraries to tell apart", f"{one} {two}")
    good("one library", [tar(("opt/a.so", lib))], {"/opt/a.so": one})
    good("uncompressed", [tar(("opt/a.so", lib))], {"/opt/a.so": one}, kind="none")
    good("same name twice in a layer", [tar(("opt/a.so", lib), ("opt/a.so", other))], {"/opt/a.so": two})
    good("library and then text of its name", [tar(("opt/a.so", lib), ("opt/a.so", b"text"))], {})
    good("same name in two layers", [tar(("opt/a.so", lib)), tar(("opt/a.so", other))], {"/opt/a.so": two})
    good("absolute and dotted names", [tar(("/opt/a.so", lib), ("./opt/./b.so", other), ("opt//c.so", lib))], {"/opt/a.so": one, "/opt/b.so": two, "/opt/c.so": one})
    good("names with ..", [tar(("../../opt/a.so", lib), ("opt/../b.so", other), ("usr/../../../c.so", lib))], None, {0, 3})
    good("whiteout of a file", [tar(("opt/a.so", lib), ("opt/b.so", other)), tar(("opt/.wh.a.so", b""))], {"/opt/b.so": two})
    good("whiteout of a directory", [tar(("opt/x/a.so", lib), ("b.so", other)), tar(("opt/.wh.x", b""))], {"/b.so": two})
    good("opaque directory with a file of its own, in either order", [tar(("opt/a.so", lib)), tar(("opt/b.so", other), ("opt/.wh..wh..opq", b""))], {"/opt/b.so": two})
    good("whiteout in the same layer", [tar(("opt/a.so", lib), ("opt/.wh.a.so", b""))], {"/opt/a.so": one})
    good("whiteouts of nothing and odd ones", [tar((".wh.nothing", b""), ("opt/.wh.", b""), ("opt/.wh..", b""), ("opt/.wh...", b""), (".wh..wh.plnk", b""), ("opt/a.so", lib))], {"/opt/a.so": one}, {0, 3})
    good("a file in place of a directory", [tar(("opt/a.so", lib)), tar(("opt", other))], {"/opt": two})
    good("a directory in place of a file", [tar(("opt", lib)), tar(("opt/a.so", other))], {"/opt/a.so": two})
    good("a symbolic link in place of a directory", [tar(("opt/a.so", lib)), tar(link("opt", "srv"))], {})
    good("through a symbolic link to a directory", [tar(("real/lib/x", b""), link("lib", "real/lib")), tar(("lib/a.so", lib))], {"/real/lib/a.so": one})
    good("symbolic link loops", [tar(link("a", "b"), link("b", "a"), link("c", "c"), link("d", "d/d/d"), ("a/x.so", lib), link("e/f", "../e/f"), ("opt/a.so", other))], None, {0, 3})
    good("symbolic link out of the root", [tar(link("opt", "../../../../etc"), ("opt/a.so", lib))], {"/etc/a.so": one})
    good("chain of 200 symbolic links", [tar(*[link(f"l{i}", f"l{i + 1}") for i in range(200)], ("l200/a.so", lib), ("l0/b.so", other))], None, {0, 3})
    good("hard link", [tar(("opt/a.so", lib), link("opt/b.so", "opt/a.so", tarfile.LNKTYPE))], {"/opt/a.so": one, "/opt/b.so": one})
    good("hard link into a lower layer", [tar(("opt/a.so", lib)), tar(link("opt/b.so", "opt/a.so", tarfile.LNKTYPE))], {"/opt/a.so": one, "/opt/b.so": one})
    good("hard link to a file that a later layer replaces", [tar(("opt/a.so", lib), link("opt/b.so", "opt/a.so", tarfile.LNKTYPE)), tar(("opt/a.so", other))], {"/opt/a.so": two, "/opt/b.so": one})
    good("hard link whose target is deleted later", [tar(("opt/a.so", lib), link("opt/b.so", "opt/a.so", tarfile.LNKTYPE)), tar(("opt/.wh.a.so", b""))], {"/opt/b.so": one})
    good("hard link to nothing, to itself, before its target", [tar(link("x", "nothing", tarfile.LNKTYPE), link("y", "y", tarfile.LNKTYPE), link("z.so", "late.so", tarfile.LNKTYPE), ("late.so", lib))], None, {0, 3})
    special = tarfile.TarInfo("dev/null")
    special.type, special.devmajor, special.devminor = tarfile.CHRTYPE, 1, 3
    fifo = tarfile.TarInfo("fifo")
    fifo.type = tarfile.FIFOTYPE
    good("devices and pipes", [tar(special, fifo, ("opt/a.so", lib))], {"/opt/a.so": one})
    old = tarfile.TarInfo("opt/a.so")
    old.type, old.size = tarfile.AREGTYPE, len(lib)
    good("old regular type and contiguous type", [tar((old, lib))], {"/opt/a.so": one})
    long = "opt/" + "d" * 90 + "/" + "e" * 90 + "/" + "f" * 90 + "/a.so"
    for fmt, f in (("gnu", tarfile.GNU_FORMAT), ("pax", tarfile.PAX_FORMAT)):
        good(f"long names, {fmt}", [tar((long, lib), link("l" * 150, "t" * 150), fmt=f)], {"/" + long: one})
    good("a name of 60 000 characters", [tar(("opt/" + "n/" * 30000 + "a.so", lib), ("opt/b.so", other))], None, {0, 3})
    good("a name that is not UTF-8", [tar((b"opt/\xff\xfe.so".decode(errors="surrogateescape"), lib), ("opt/b.so", other))], None)
    good("control characters in a name", [tar(("opt/\x1b[31mred\x07\n.so", lib))], None)
    r = x.run("tar: control characters, as text", {0, 1}, "inspect", f"oci:{at('control-characters-in-a-name')}", "--color", "never")
    x.c.ok("\x1b" not in r.out, "tar: control characters never reach the terminal")
    pax = tarfile.TarInfo("opt/a.so")
    pax.size, pax.pax_headers = len(lib), {"comment": "x" * 100000, "LIBARCHIVE.creationtime": "1", "mtime": "1.5"}
    good("large PAX headers", [tar((pax, lib), fmt=tarfile.PAX_FORMAT)], {"/opt/a.so": one})
    big = b"\x80" + (len(lib)).to_bytes(11, "big")
    good("base-256 size", [tar(header("opt/a.so", big), lib + b"\0" * (-len(lib) % 512))], {"/opt/a.so": one})
    good("base-256 size beyond the end", [tar(header("opt/a.so", b"\x80" + (1 << 60).to_bytes(11, "big")), lib)], None, 3)
    good("negative base-256 size", [tar(header("opt/a.so", b"\xff" * 12), lib)], None, {0, 3})
    good("size of all sevens", [tar(header("opt/a.so", b"777777777777"), lib)], None, 3)
    good("size that is no number", [tar(header("opt/a.so", b"hello world\0"), lib)], None, {0, 3})
    good("wrong header checksum", [tar(("opt/b.so", other), bytes(header("opt/a.so", b"00000000000\0")[:100]) + b"9" * 412)], None, 3)
    good("no end of archive", [tar(("opt/a.so", lib), end=False)], {"/opt/a.so": one}, {0, 3})
    good("bytes after the end of the archive", [tar(("opt/a.so", lib)) + b"rubbish" * 500], {"/opt/a.so": one}, {0, 3})
    good("only zeros", [bytes(1 << 20)], {})
    good("GNU sparse file", [sparse_gnu(lib)], None, {0, 3})
    good("PAX sparse file", [sparse_pax(lib)], None, {0, 3})
    good("unknown member types", [tar(header("opt/x", b"00000000000\0", b"Z"), header("opt/y", b"00000000000\0", b"M"), ("opt/a.so", lib))], None, {0, 3})
    good("GNU long name of a gigabyte", [tar(header("././@LongLink", b"07777777777\0", b"L"), b"x" * 2048)], None, 3)
    good("PAX header of a gigabyte", [tar(header("PaxHeader", b"07777777777\0", b"x"), b"x" * 2048)], None, 3)
    good("PAX record with a wrong length", [tar(header("PaxHeader", b"00000000012\0", b"x"), b"99 path=a\n".ljust(512, b"\0"), ("opt/a.so", lib))], None, {0, 3})


def sparse_gnu(lib):
    h = bytearray(header("opt/a.so", b"%011o\0" % 1024, b"S"))
    h[386:410] = b"%011o\0%011o\0" % (0, 1024)
    h[483:495] = b"%011o\0" % (1 << 33)
    h[148:156] = b" " * 8
    h[148:156] = b"%06o\0 " % sum(h)
    return tar(bytes(h), lib[:1024], ("opt/b", b"b"))


def sparse_pax(lib):
    i = tarfile.TarInfo("GNUSparseFile.0/a.so")
    data = b"1\n0\n1024\n".ljust(512, b"\0") + lib[:1024]
    i.size = len(data)
    i.pax_headers = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.name": "opt/a.so", "GNU.sparse.realsize": str(1 << 33)}
    return tar((i, data), fmt=tarfile.PAX_FORMAT)


def file_with(x, name, data):
    p = x.t / name
    p.write_bytes(data)
    return f"file:{p}"


def regions(lib):
    """Places in the ELF file where a flip hurts most."""
    shoff, = struct.unpack_from("<Q", lib, 0x28)
    phoff, = struct.unpack_from("<Q", lib, 0x20)
    shentsize, shnum, shstrndx = struct.unpack_from("<HHH", lib, 0x3A)
    phentsize, phnum = struct.unpack_from("<HH", lib, 0x36)
    out = {"ELF header": [(0, 64)], "program headers": [(phoff, phentsize * phnum)], "section headers": [(shoff, shentsize * shnum)], "dynamic": [], "versions": [], "fat binaries": []}
    names = struct.unpack_from("<Q", lib, shoff + shstrndx * shentsize + 0x18)[0]
    for i in range(shnum):
        at = shoff + i * shentsize
        name = lib[names + struct.unpack_from("<I", lib, at)[0]:].split(b"\0", 1)[0]
        off, size = struct.unpack_from("<QQ", lib, at + 0x18)
        if name in (b".dynamic", b".dynstr"):
            out["dynamic"].append((off, size))
        elif name in (b".gnu.version_r", b".gnu.version_d", b".note.gnu.build-id"):
            out["versions"].append((off, size))
        elif name in (b".nv_fatbin", b"__nv_relfatbin"):
            pos = off
            while pos + 16 <= off + size and lib[pos:pos + 4] == b"\x50\xed\x55\xba":
                out["fat binaries"].append((pos, 16))
                end = pos + 16 + struct.unpack_from("<Q", lib, pos + 8)[0]
                e = pos + 16
                while e + 64 <= end:
                    out["fat binaries"].append((e, 64))
                    e += sum(struct.unpack_from("<IQ", lib, e + 4))
                pos = end
    return {k: v for k, v in out.items() if v}


def variants(lib, n):
    rnd = random.Random(20240607)
    places = regions(lib)
    kinds = list(places) + ["truncated"]
    for i in range(n):
        kind = kinds[i % len(kinds)]
        if kind == "truncated":
            size = rnd.choice([0, 1, 3, 4, 15, 16, 63, 64, 65, 100, 4096]) if rnd.random() < 0.3 else rnd.randrange(len(lib))
            yield f"variant {i}: truncated to {size}", lib[:size]
            continue
        data = bytearray(lib)
        said = []
        for _ in range(rnd.choice([1, 1, 2, 8])):
            off, size = rnd.choice(places[kind])
            at = off + rnd.randrange(size)
            how = rnd.randrange(3)
            if how == 0:
                data[at] ^= 1 << rnd.randrange(8)
            elif how == 1:
                data[at] = rnd.choice([0, 0xFF, 0x7F, 0x80])
            else:
                at &= ~7
                struct.pack_into("<Q", data, at, rnd.choice([0, 1, (1 << 64) - 1, 1 << 63, (1 << 63) - 1, len(lib), len(lib) - 1, 1 << 32, 0xFFFFFFFF]))
            said.append(at)
        yield f"variant {i}: {kind} at {said}", bytes(data)


def elf(x, lib):
    r = x.run("library cut in a layer", 0, "scan", Image(x.t / "elf-cut", [tar(("opt/cut.so", lib[: len(lib) // 2]), ("opt/good.so", lib))]).ref)
    if r.rc == 0:
        d = r.doc
        x.c.ok(any(p["path"] == "/opt/cut.so" for p in d["problems"]), "library cut in a layer: a problems row names it", str(d["problems"]))
        x.c.ok(any(f["path"] == "/opt/good.so" and f["device_code"] for f in d["files"]), "library cut in a layer: the good one is seen")
        x.c.eq(d["complete"], True, "library cut in a layer: the look is complete")
    r = x.run("check of it", {0, 1}, "check", "-f", "json", f"oci:{x.t}/elf-cut", *TARGET)
    x.c.ok(any(f["rule"].startswith("CUL9") for f in r.doc["findings"]), "library cut in a layer: a finding of family 9xx", str([f["rule"] for f in r.doc["findings"]]))
    slow, batch, crashed = 0, [], 0
    for what, data in variants(lib, 200):
        p = x.t / "v.so"
        p.write_bytes(data)
        r = x.lint("scan", f"file:{p}", timeout=20)
        good = r.rc in (0, 3) and r.seconds < 5 and r.rss < 300 and len(r.err.splitlines()) == (1 if r.rc == 3 else 0)
        x.c.ok(good, what, f"{r}, {r.seconds:.1f} s, {r.rss:.0f} MB")
        crashed += not good
        slow = max(slow, r.seconds)
        batch.append((f"opt/v{len(batch)}.so", data))
        if len(batch) == 20:
            r = x.run(f"20 variants in a layer, up to {what.split(':')[0]}", 0, "scan", Image(x.t / f"batch-{what.split()[1]}", [tar(*batch), tar(("opt/good.so", lib))]).ref, limit=10)
            if r.rc == 0:
                d = r.doc
                x.c.ok(any(f["path"] == "/opt/good.so" and f["device_code"] for f in d["files"]), "… the good library is seen beside them")
                told = {f["path"] for f in d["files"]} | {p["path"] for p in d["problems"]}
                lost = [n for n, b in batch if "/" + n not in told and b[:4] == b"\x7fELF"]
                x.c.eq(lost, [], f"… each of them is listed or a problem ({what.split(':')[0]})")
            x.run("check of these", {0, 1}, "check", "-f", "json", f"oci:{x.t}/batch-{what.split()[1]}", *TARGET, limit=10)
            batch = []
    x.c.note(f"200 damaged libraries, slowest {slow:.2f} s")


def many(x, lib):
    for n, codes in ((500, 0), (600, {0, 3}), (5000, {0, 3})):
        layers = [tar((f"opt/f{i}.txt", b"x"), ("opt/last.so", lib if i == n - 1 else b"text")) for i in range(n)]
        r = x.run(f"{n} layers", codes, "scan", Image(x.t / f"many{n}", layers).ref)
        if r.rc == 0:
            x.c.eq((len(r.doc["image"]["layers"]), [f["layer"] for f in r.doc["files"]]), (n, [n - 1]), f"{n} layers: all listed, the last counts")
    x.run("20 000 small files", 0, "scan", Image(x.t / "files", [tar(*[(f"opt/d{i % 100}/f{i}.py", b"x") for i in range(20000)])]).ref)
    x.run("2000 packages", 0, "scan", Image(x.t / "dists", [tar(*[(f"usr/lib/python3/site-packages/nvidia_x{i}-1.dist-info/METADATA", b"Metadata-Version: 2.1\nName: nvidia-x%d\nVersion: 1\n" % i) for i in range(2000)])]).ref)
    # 4 GB of zeros in 4 MB, as one member of a tar
    size = 4 << 30
    z = gzip.compress(bytes(64 << 20), 9)
    start = gzip.compress(header("opt/zeros.bin", b"%011o\0" % size if size < 8 << 30 else b"\x80" + size.to_bytes(11, "big")), 1)
    bomb = start + z * (size // (64 << 20)) + gzip.compress(tar(("opt/a.so", lib)), 1)
    r = x.run("gzip bomb of 4 GB", {0, 3}, "scan", Image(x.t / "bomb", [{"tar": b"", "blob": bomb}]).ref, limit=40)
    if r.rc == 0:
        x.c.eq([f["path"] for f in r.doc["files"]], ["/opt/a.so"], "gzip bomb: the file after it is seen")
        x.c.ok(r.doc["timing"]["bytes_decompressed"] > size, "gzip bomb: all of it was read", str(r.doc["timing"]))
    x.c.note(f"gzip bomb of 4 GB: exit {r.rc}, {r.cpu:.1f} CPU s, {r.rss:.0f} MB")
    # an ELF file that says it is 4 GB, all zeros after its header
    big = start_elf(lib, size)
    r = x.run("library of 4 GB of zeros", {0, 3}, "scan", Image(x.t / "bomb2", [{"tar": b"", "blob": big}]).ref, limit=60)
    x.c.note(f"library of 4 GB of zeros: exit {r.rc}, {r.cpu:.1f} CPU s, {r.rss:.0f} MB")
    text = gzip.compress(header("usr/lib/python3/site-packages/x-1.dist-info/METADATA", b"%011o\0" % (1 << 30)), 1) + z * 16 + gzip.compress(tar(("opt/a.so", lib)), 1)
    x.run("metadata of 1 GB", {0, 3}, "scan", Image(x.t / "bomb3", [{"tar": b"", "blob": text}]).ref, limit=40)


def start_elf(lib, size):
    head = lib[: 1 << 20]
    fill = size - len(head)
    step = 64 << 20
    z = gzip.compress(bytes(step), 9)
    return gzip.compress(header("opt/big.so", b"%011o\0" % size) + head, 1) + z * (fill // step) + gzip.compress(bytes(fill % step), 9) + gzip.compress(bytes(1024))


def main():
    parts = ("typed", "absent", "registry", "damaged", "unsuited", "tars", "elf", "many")
    a = arguments(__doc__, ("--only", dict(action="append", choices=parts, help="this part only; repeatable")))
    c = Checks("wrong_input.py", a.verbose)
    need("skopeo", "docker-registry", "htpasswd")
    stem = "torchaudio-2.1.2-cp311-cp311-manylinux1_x86_64"
    wheel = fetch_wheel(a.cache, "torchaudio", "2.1.2", stem + ".whl")
    lib = member(wheel, "torchaudio/lib/libtorchaudio.so", a.cache / "expected" / stem / "torchaudio/lib/libtorchaudio.so").read_bytes()
    stem = "torchvision-0.16.2-cp311-cp311-manylinux1_x86_64"
    wheel = fetch_wheel(a.cache, "torchvision", "0.16.2", stem + ".whl")
    other = member(wheel, "torchvision.libs/libcudart.7ec1eba6.so.12", a.cache / "expected" / stem / "torchvision.libs/libcudart.7ec1eba6.so.12").read_bytes()
    with tempfile.TemporaryDirectory(prefix="cudalint-wrong.") as t:
        x = Test(c, Cudalint(a.binary, Path(t) / "home", c), Path(t))
        x.good = Image(x.t / "good0", [tar(("etc/os-release", b"ID=debian\n"))]).ref
        todo = {"typed": lambda: typed(x), "absent": lambda: absent(x), "registry": lambda: registry(x), "damaged": lambda: damaged(x), "unsuited": lambda: unsuited(x),
                "tars": lambda: tars(x, lib, other), "elf": lambda: elf(x, lib), "many": lambda: many(x, lib)}
        for name in parts:
            t0 = time.time()
            if a.only and name not in a.only:
                c.note(f"left out by --only: {name}")
                continue
            n = c.n
            todo[name]()
            print(f"     {name}: {c.n - n} checks, {time.time() - t0:.0f} s", flush=True)
    c.end()


main()
