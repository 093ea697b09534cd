#!/usr/bin/env python3
"""One image, many ways to reach it: the facts must be the same.

Only image.reference, layers[].digest|media_type|size and timing may differ; an unpacked directory also has one
pseudo-layer in place of the layers and no image settings.

  local      OCI layout (with tag, with @index, without), OCI archive (skopeo), docker archive (skopeo), archives on
             standard input, unpacked tree (umoci), the facts document itself (--facts)
  engines    docker-daemon: and podman: from podman's API, by name and by id, containers-storage: by skopeo, by podman and by
             buildah, containerd: from a containerd that is started for it; no such image, no such socket: exit 3
  registry   plain; basic authentication by --authfile, REGISTRY_AUTH_FILE, DOCKER_CONFIG, --username with
             --password-stdin; token (the same, and an anonymous one); TLS with an own CA; mutual TLS; by digest
  encodings  gzip, zstd and uncompressed layers; docker v2 schema 2 and OCI manifests; an index with two platforms and
             attestations
  faults     a proxy that cuts connections (once, every time), answers 429 with Retry-After or 503, flips a byte, knows
             no ranges, no lengths or no digest header, redirects to a storage host: survived with the same facts, or
             exit 3 with one line on stderr and no report that says `complete: true`
  cache      a second scan with --cache-dir pulls no layer again (the registry's log and bytes_downloaded)
"""
import base64
import copy
import gzip
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.dont_write_bytecode = True
sys.path.insert(0, str(Path(__file__).resolve().parent))
from common import Checks, Cudalint, Faults, Registry, arguments, build_corpus, mkimage, need, push, raw_push


def same(d, digest=False, directory=False):
    """The part of a facts document that every source must agree on."""
    d = copy.deepcopy(d)
    d.pop("timing", None)
    d["image"].pop("reference")
    if not digest:
        d["image"].pop("digest")
    for l in d["image"]["layers"]:
        for k in ("digest", "media_type", "size"):
            l.pop(k)
    if directory:
        d.pop("image")
        for group in ("files", "links", "packages", "problems"):
            for x in d[group]:
                x.pop("layer", None)
            d[group].sort(key=lambda x: json.dumps(x, sort_keys=True))
        for x in d["links"]:                       # a tree does not say which name of a hard link was first
            if x["kind"] == "hardlink":
                x["path"], x["target"] = sorted((x["path"], x["target"]))
    return d


def compare(c, what, got, want, **kw):
    if got is None:
        return
    a, b = same(got, **kw), same(want, **kw)
    if a == b:
        return c.ok(True, what)
    for k in b:
        if isinstance(b[k], list):
            only = [x for x in a.get(k, []) if x not in b[k]][:3], [x for x in b[k] if x not in a.get(k, [])][:3]
            if any(only):
                c.ok(False, f"{what}: {k}", f"only here {json.dumps(only[0])[:500]}; missing {json.dumps(only[1])[:500]}")
                return
    for k in {**a, **b}:
        if a.get(k) != b.get(k):
            return c.eq(a.get(k), b.get(k), f"{what}: {k}")
    c.ok(False, what, "order of keys")


def main():
    a = arguments(__doc__, ("--layouts", dict(type=Path, help="directory of layouts already built, in place of building them")),
                  ("--only", dict(action="append", choices=("local", "engines", "registries", "encodings", "faults", "cache"), help="this part only; repeatable")))
    c = Checks("sources.py", a.verbose)
    need("skopeo", "umoci", "podman", "buildah", "containerd", "ctr", "docker-registry", "htpasswd", "openssl", "zstd")
    out = a.layouts or build_corpus(a.cache, "dev1-cudart122-base", "dev4-layers", "dev5-index")
    with tempfile.TemporaryDirectory(prefix="cudalint-sources.") as t:
        t = Path(t)
        lint = Cudalint(a.binary, t / "home", c)
        base = out / "dev4-layers"                      # a layer of 22 MB and small ones: enough to be cut in the middle
        parts = {"local": lambda: [local(c, lint, t / n, out / n, n) for n in ("dev1-cudart122-base", "dev4-layers")],
                 "engines": lambda: engines(c, lint, t / "engines", base),
                 "registries": lambda: registries(c, lint, t, base), "encodings": lambda: encodings(c, lint, t, out),
                 "faults": lambda: faults(c, lint, t, base), "cache": lambda: cache(c, lint, t, base)}
        for name, part in parts.items():
            if not a.only or name in a.only:
                part()
            else:
                c.note(f"left out by --only: {name}")
    c.end()


def tag_of(layout):
    return json.loads((layout / "index.json").read_text())["manifests"][0].get("annotations", {}).get("org.opencontainers.image.ref.name")


def local(c, lint, t, layout, n):
    t.mkdir()
    want = lint.facts(f"oci:{layout}")
    if not want:
        return
    tag = tag_of(layout)
    for ref in (f"oci:{layout}:{tag}", f"oci:{layout}@0", str(layout)):
        compare(c, f"{n}: {ref.replace(str(layout), 'LAYOUT')}", lint.facts(ref), want, digest=True)
    push(f"oci:{layout}:{tag}", f"oci-archive:{t}/a.tar:{tag}", "--preserve-digests")
    easy = without_zstd(layout, tag, t)
    push(easy, f"docker-archive:{t}/d.tar:example/x:1")
    for ref in (f"oci-archive:{t}/a.tar", f"oci-archive:{t}/a.tar:{tag}", f"{t}/a.tar"):
        compare(c, f"{n}: {ref.replace(str(t), '')}", lint.facts(ref), want, digest=True)
    for ref in (f"docker-archive:{t}/d.tar", f"docker-archive:{t}/d.tar:example/x:1", f"{t}/d.tar"):
        compare(c, f"{n}: {ref.replace(str(t), '')}", lint.facts(ref), want)
    for kind, file in (("OCI", "a.tar"), ("docker", "d.tar")):
        with open(t / file, "rb") as f:
            data = f.read()
        for packed, stdin in (("", data), (", compressed", gzip.compress(data, 1))):
            r = lint("scan", "-", stdin=stdin)
            if c.ok(r.rc == 0, f"{n}: scan - with an {kind} archive{packed}", str(r)):
                compare(c, f"{n}: {kind} archive on standard input{packed}", r.doc, want)
        r = lint("scan", "-", stdin=data[:len(data) * 2 // 3])
        fails(c, r, f"{n}: {kind} archive on standard input, cut", ("standard input",))
    mkimage().docker_archive(str(layout), tag, str(t / "legacy.tar"))
    for ref in (f"docker-archive:{t}/legacy.tar", f"{t}/legacy.tar"):
        compare(c, f"{n}: docker archive of the old form", lint.facts(ref), want)
    packed = t / "a.tar.gz"
    subprocess.run(f"gzip -1 < '{t}/d.tar' > '{packed}'", shell=True, check=True)
    compare(c, f"{n}: compressed docker archive", lint.facts(f"docker-archive:{packed}"), want)
    # an unpacked tree
    push(easy, f"oci:{t}/easy:x")
    subprocess.run(["umoci", "unpack", "--image", f"{t}/easy:x", t / "tree"], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    tree = t / "tree" / "rootfs"
    for ref in (f"dir:{tree}", str(tree)):
        compare(c, f"{n}: {'dir:' if ref[0] == 'd' else ''}ROOTFS", lint.facts(ref), want, directory=True)
    # judged from the facts document
    r = lint("scan", f"oci:{layout}", "-o", str(t / "facts.json"))
    c.eq(r.rc, 0, f"{n}: scan -o FILE")
    for args in (["--host-driver", "470", "--gpu", "a100"], ["--host-driver", "570", "--gpu", "b200"], []):
        one = lint("check", "-f", "json", "--no-timing", f"oci:{layout}", *args)
        two = lint("check", "-f", "json", "--no-timing", "--facts", str(t / "facts.json"), *args)
        c.eq((two.rc, two.out), (one.rc, one.out), f"{n}: check --facts {' '.join(args)} equals check of the image")
    one, two = (lint("scan", "--no-timing", f"oci:{layout}", "-j", j).out for j in ("1", "4"))
    c.eq(one == two, True, f"{n}: one job and four jobs give the same bytes")


def engines(c, lint, t, layout):
    t.mkdir()
    want = lint.facts(f"oci:{layout}")
    name = "docker.io/example/x:1"
    store = t / "storage.conf"
    store.write_text(f'[storage]\ndriver = "vfs"\nrunroot = "{t}/run"\ngraphroot = "{t}/graph"\n')
    env = {"CONTAINERS_STORAGE_CONF": str(store), "XDG_RUNTIME_DIR": str(t)}
    os.environ.update(env)
    push(without_zstd(layout, tag_of(layout), t), f"docker-archive:{t}/d.tar:{name}")
    push(f"docker-archive:{t}/d.tar", f"containers-storage:{name}")
    socket = t / "podman.sock"
    service = subprocess.Popen(["podman", "--cgroup-manager=cgroupfs", "system", "service", "--time=0", f"unix://{socket}"],
                               stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    (t / "c.toml").write_text(f'version = 2\nroot = "{t}/croot"\nstate = "{t}/cstate"\ndisabled_plugins = ["io.containerd.grpc.v1.cri"]\n'
                              f'[grpc]\n  address = "{t}/c.sock"\n')
    containerd = subprocess.Popen(["containerd", "--config", t / "c.toml"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        waited(socket, t / "c.sock")
        push(f"docker-archive:{t}/d.tar", f"oci-archive:{t}/o.tar:{name}")
        subprocess.run(["ctr", "--address", f"{t}/c.sock", "images", "import", "--no-unpack", f"{t}/o.tar"], check=True, stdout=subprocess.DEVNULL)
        image = subprocess.run(["podman", "images", "--quiet", "--no-trunc"], check=True, capture_output=True, text=True).stdout.strip()
        at = {"DOCKER_HOST": f"unix://{socket}", "CONTAINER_HOST": f"unix://{socket}", "CONTAINERD_ADDRESS": f"{t}/c.sock", **env}
        for ref in (f"docker-daemon:{name}", "podman:example/x:1", f"podman:{image}", "containers-storage:example/x:1", "containerd:example/x:1"):
            compare(c, f"engines: {ref}", lint.facts(ref, **at), want)
        for program in ("podman", "buildah"):
            alone = t / f"only-{program}"
            alone.mkdir()
            (alone / program).symlink_to(shutil.which(program))
            compare(c, f"engines: containers-storage by {program}", lint.facts(f"containers-storage:{name}", **at | {"PATH": str(alone)}), want)
        for ref in ("docker-daemon", "podman", "containers-storage", "containerd"):
            fails(c, lint("scan", f"{ref}:example/absent:1", **at), f"engines: {ref}, no such image", ("example/absent:1",))
        nowhere = {"DOCKER_HOST": "unix:///nowhere.sock", "CONTAINER_HOST": "unix:///nowhere.sock", "PATH": "/nowhere", **env}
        for ref in ("docker-daemon", "podman", "containers-storage", "containerd"):
            fails(c, lint("scan", f"{ref}:example/x:1", **nowhere), f"engines: {ref}, nobody there")
        # the second time everything comes from the cache
        cached = [lint("check", f"podman:{name}", "--cache-dir", t / "cache", "-f", "json", cache=True, **at) for _ in (1, 2)]
        c.eq([r.doc["timing"]["layers_cached"] for r in cached], [0, len(want["image"]["layers"])], "engines: layers from the cache")
    finally:
        for p in (service, containerd):
            p.terminate()
            p.wait(20)


def waited(*sockets):
    for _ in range(200):
        if all(s.exists() for s in sockets):
            return
        time.sleep(0.1)


def without_zstd(layout, tag, t):
    """The image for tools that know no zstd, as a name for skopeo."""
    if any("zstd" in l["mediaType"] for l in manifest(layout)["layers"]):
        push(f"oci:{layout}:{tag}", f"dir:{t}/plain", "--dest-decompress")
        m = json.loads((t / "plain/manifest.json").read_text())
        for l in m["layers"]:
            l["mediaType"] = "application/vnd.oci.image.layer.v1.tar"
        (t / "plain/manifest.json").write_text(json.dumps(m))
        return f"dir:{t}/plain"
    return f"oci:{layout}:{tag}"


def manifest(layout):
    d = json.loads((layout / "index.json").read_text())["manifests"][0]["digest"]
    return json.loads((layout / "blobs/sha256" / d[7:]).read_text())


def fails(c, r, what, words=()):
    lines = r.err.strip().splitlines()
    c.ok(r.rc == 3 and len(lines) == 1, f"{what}: exit 3 and one line", str(r))
    c.ok('"complete": true' not in r.out, f"{what}: no report that says complete")
    for w in words:
        c.ok(w.lower() in r.err.lower(), f"{what}: the line says {w!r}", str(r))


def registries(c, lint, t, layout):
    want = lint.facts(f"oci:{layout}")
    src = f"oci:{layout}:{tag_of(layout)}"
    digest = want["image"]["digest"]
    with Registry() as r:
        push(src, f"docker://{r.host}/t/x:1", "--preserve-digests", "--dest-tls-verify=false")
        for ref in (f"{r.host}/t/x:1", f"docker://{r.host}/t/x:1", f"registry:{r.host}/t/x:1", f"{r.host}/t/x@{digest}", f"{r.host}/t/x:1@{digest}"):
            d = lint.facts(ref)
            compare(c, f"registry {ref.replace(r.host, 'HOST')}", d, want, digest=True)
        c.ok(d["timing"]["bytes_downloaded"] >= sum(l["size"] for l in want["image"]["layers"]), "registry: bytes_downloaded counts the layers")
        fails(c, lint("scan", f"{r.host}/t/x:nosuch"), "no such tag", ["nosuch"])
        fails(c, lint("scan", f"{r.host}/t/nosuch:1"), "no such repository", ["nosuch"])
        o = lint("scan", f"{r.host}/t/x:1", "--offline")
        c.ok(o.rc in (2, 3) and "offline" in o.err and len(o.err.strip().splitlines()) == 1, "--offline: refused with one line", str(o))
    with Registry("--auth", "anna:s3cret") as r:
        push(src, f"docker://{r.host}/t/x:1", "--preserve-digests", "--dest-tls-verify=false", "--dest-creds", "anna:s3cret")
        credentials(c, lint, t, r, want, "basic")
    with Registry("--token", "anna:s3cret") as r:
        push(src, f"docker://{r.host}/t/x:1", "--preserve-digests", "--dest-tls-verify=false", "--dest-creds", "anna:s3cret")
        credentials(c, lint, t, r, want, "token")
        log = (r.path / "token.log").read_text()
        c.ok('"repository:t/x:pull"' in log, "token: the scope asked for is repository:t/x:pull")
    with Registry("--token", "anonymous") as r:
        push(src, f"docker://{r.host}/t/x:1", "--preserve-digests", "--dest-tls-verify=false", "--dest-creds", "any:body")
        compare(c, "anonymous token", lint.facts(f"{r.host}/t/x:1"), want, digest=True)
    with Registry("--tls") as r:
        certs = t / "certs"
        certs.mkdir()
        shutil.copy(r.ca, certs / "ca.crt")
        push(src, f"docker://{r.host}/t/x:1", "--preserve-digests", "--dest-cert-dir", str(certs))
        compare(c, "TLS with --ca-file", lint.facts(f"{r.host}/t/x:1", "--ca-file", r.ca), want, digest=True)
        compare(c, "TLS with --cacert", lint.facts(f"{r.host}/t/x:1", "--cacert", r.ca), want, digest=True)
        compare(c, "TLS with CUDALINT_CA_FILE", lint.facts(f"{r.host}/t/x:1", CUDALINT_CA_FILE=r.ca), want, digest=True)
        compare(c, "TLS unverified with --insecure", lint.facts(f"{r.host}/t/x:1", "--insecure"), want, digest=True)
        fails(c, lint("scan", f"{r.host}/t/x:1"), "TLS with an unknown CA")
    with Registry("--mtls") as r:
        for f, k in ((r.ca, "ca.crt"), (r.cert, "client.cert"), (r.key, "client.key")):
            shutil.copy(f, t / "certs" / k)
        push(src, f"docker://{r.host}/t/x:1", "--preserve-digests", "--dest-cert-dir", str(t / "certs"))
        compare(c, "mutual TLS", lint.facts(f"{r.host}/t/x:1", "--ca-file", r.ca, "--tls-cert", r.cert, "--tls-key", r.key), want, digest=True)
        fails(c, lint("scan", f"{r.host}/t/x:1", "--ca-file", r.ca), "mutual TLS without certificate")


def credentials(c, lint, t, r, want, kind):
    ref = f"{r.host}/t/x:1"
    auth = t / f"{kind}.json"
    entry = lambda pw: json.dumps({"auths": {r.host: {"auth": base64.b64encode(f"anna:{pw}".encode()).decode()}}})
    auth.write_text(entry("s3cret"))
    bad = t / f"{kind}-bad.json"
    bad.write_text(entry("wr0ng"))
    docker = t / f"{kind}-docker"
    docker.mkdir()
    (docker / "config.json").write_text(entry("s3cret"))
    helper = t / f"{kind}-helper"
    helper.mkdir()
    (helper / "config.json").write_text(json.dumps({"credHelpers": {r.host: "testing"}}))
    (helper / "docker-credential-testing").write_text('#!/bin/sh\nread host\necho "{\\"ServerURL\\":\\"$host\\",\\"Username\\":\\"anna\\",\\"Secret\\":\\"s3cret\\"}"\n')
    (helper / "docker-credential-testing").chmod(0o755)
    compare(c, f"{kind}: --authfile", lint.facts(ref, "--authfile", auth), want, digest=True)
    compare(c, f"{kind}: REGISTRY_AUTH_FILE", lint.facts(ref, REGISTRY_AUTH_FILE=str(auth)), want, digest=True)
    compare(c, f"{kind}: DOCKER_CONFIG", lint.facts(ref, DOCKER_CONFIG=str(docker)), want, digest=True)
    compare(c, f"{kind}: credential helper", lint.facts(ref, DOCKER_CONFIG=str(helper), PATH=f"{helper}:{os.environ['PATH']}"), want, digest=True)
    compare(c, f"{kind}: --password-stdin", lint.facts(ref, "--username", "anna", "--password-stdin", stdin="s3cret\n"), want, digest=True)
    for what, res in ((f"{kind}: no credentials", lint("scan", ref)),
                      (f"{kind}: bad password", lint("scan", ref, "--username", "anna", "--password-stdin", stdin="wr0ng\n")),
                      (f"{kind}: bad authfile", lint("scan", ref, "--authfile", bad))):
        fails(c, res, what)
        c.ok("wr0ng" not in res.err and "s3cret" not in res.err and "wr0ng" not in res.out, f"{what}: no secret is shown")


def encodings(c, lint, t, out):
    mk = mkimage()
    layer = {"items": [["tar", str(biggest(out / "dev5-amd64"))], ["text", "/etc/os-release", "ID=debian\n"], ["symlink", "/opt/x", "/etc/os-release"]], "created_by": "COPY . /"}
    second = {"items": [["text", "/opt/a.txt", "a"], ["whiteout", "/etc/nothing"]], "created_by": "RUN true"}
    docs = {}
    for name, comp, docker in (("gzip", "gzip:6", False), ("gzip fast", "gzip:1", False), ("zstd", "zstd:3", False), ("plain", "none", False),
                               ("docker v2s2 gzip", "gzip:6", True), ("docker v2s2 plain", "none", True), ("docker v2s2 zstd", "zstd:3", True)):
        d = t / ("enc-" + name.replace(" ", "-"))
        mk.build(str(d), {"tag": "x", "docker": docker, "env": {"A": "b"}, "cmd": ["python3"],
                          "layers": [{**layer, "compress": comp}, {"history": "ENV A=b"}, {**second, "compress": comp}]})
        docs[name] = lint.facts(f"oci:{d}", "--verify-diff-ids")
        compare(c, f"encoding {name}", docs[name], docs["gzip"])
    mk.build(str(t / "mixed"), {"tag": "x", "env": {"A": "b"}, "cmd": ["python3"],
                                "layers": [{**layer, "compress": "zstd:19"}, {"history": "ENV A=b"}, {**second, "compress": "none"}]})
    compare(c, "encoding mixed", lint.facts(f"oci:{t}/mixed"), docs["gzip"])
    # two platforms and attestations, from the layout and from a registry
    layout = out / "dev5-index"
    with Registry() as r:
        push(f"oci:{layout}:{tag_of(layout)}", f"docker://{r.host}/t/multi:1", "--all", "--preserve-digests", "--dest-tls-verify=false")
        for kind in ("oci", "docker"):
            for i, arch in enumerate(("amd64", "arm64/v8")):
                mk.build(str(t / kind), {"tag": "m@" + arch, "platform": "linux/" + arch, "docker": kind == "docker", "cmd": [arch], "layers": [layer, second]}, append=i > 0)
            mk.Layout(str(t / kind), append=True).group("m", kind == "docker")
        raw_push(t / "docker", "m", r.host, "t/list", "1")
        for arch in ("amd64", "arm64"):
            want = lint.facts(f"oci:{layout}", "--platform", f"linux/{arch}")
            compare(c, f"index in a registry, {arch}", lint.facts(f"{r.host}/t/multi:1", "--platform", f"linux/{arch}"), want, digest=True)
            want = lint.facts(f"oci:{t}/oci:m", "--platform", f"linux/{arch}")
            compare(c, f"docker manifest list in a layout, {arch}", lint.facts(f"oci:{t}/docker:m", "--platform", f"linux/{arch}"), want)
            compare(c, f"docker manifest list in a registry, {arch}", lint.facts(f"{r.host}/t/list:1", "--platform", f"linux/{arch}"), want)
        fails(c, lint("scan", f"{r.host}/t/multi:1", "--platform", "linux/s390x"), "no such platform in a registry", ["s390x"])


def biggest(layout):
    return max((layout / "blobs/sha256").iterdir(), key=lambda p: p.stat().st_size)


def faults(c, lint, t, layout):
    want = lint.facts(f"oci:{layout}")
    with Registry() as r:
        push(f"oci:{layout}:{tag_of(layout)}", f"docker://{r.host}/t/x:1", "--preserve-digests", "--dest-tls-verify=false")
        cases = [("cut once after 5 MB", ["--cut", "5000000:1"], True), ("cut twice after 3 MB", ["--cut", "3000000:2"], True),
                 ("cut every time after 10 MB (ranges go on)", ["--cut", "10000000"], None),
                 ("cut every time after 0 bytes", ["--cut", "0"], False),
                 ("cut every time, no ranges", ["--cut", "5000000", "--no-range"], False),
                 ("cut once, no ranges", ["--cut", "5000000:1", "--no-range"], None),
                 ("429 with Retry-After", ["--fail", "2:429:1"], True), ("503 once", ["--fail", "1:503"], True), ("503 for ever", ["--fail", "99:503"], False),
                 ("404 for ever", ["--fail", "99:404"], False), ("403 for ever", ["--fail", "99:403"], False),
                 ("429 for ever, an hour", ["--fail", "99:429:3600"], False),
                 ("flipped byte in the middle", ["--flip", "1000000"], False), ("flipped first byte", ["--flip", "0"], False),
                 ("flipped byte in small blobs too", ["--flip", "100"], False),
                 ("no ranges", ["--no-range"], True), ("no lengths", ["--no-length"], True), ("no digest header", ["--no-digest-header"], True),
                 ("redirect to storage", ["--redirect"], True), ("redirect, cut once, 503 once", ["--redirect", "--cut", "5000000:1", "--fail", "1:503"], True),
                 ("no lengths, cut once", ["--no-length", "--cut", "5000000:1"], None)]
        for what, options, survive in cases:
            with Faults(r.url, *options) as f:
                res = lint("scan", f"{f.host}/t/x:1", timeout=120)
                if survive or (survive is None and res.rc == 0):
                    if c.ok(res.rc == 0, f"fault {what}: survived", str(res)):
                        compare(c, f"fault {what}: same facts", res.doc, want, digest=True)
                else:
                    fails(c, res, f"fault {what}")
                if survive is None:
                    c.note(f"fault {what}: {'survived' if res.rc == 0 else 'exit 3'} in {res.seconds:.1f} s")
                c.ok(res.seconds < 60, f"fault {what}: an end within a minute", f"{res.seconds:.0f} s")
        with Faults(r.url, "--fail", "99:429:3600") as f:
            res = lint("scan", f"{f.host}/t/x:1", "--timeout", "2s", timeout=60)
            fails(c, res, "--timeout 2s")
            c.ok(res.seconds < 6, "--timeout 2s is kept", f"{res.seconds:.1f} s")
        with Faults(r.url, "--delay", "1500") as f:
            res = lint("scan", f"{f.host}/t/x:1", "--timeout", "1s", timeout=60)
            fails(c, res, "a slow registry with --timeout 1s")
            c.ok(res.seconds < 5, "a slow registry with --timeout 1s ends in time", f"{res.seconds:.1f} s")
    with Registry("--token", "anna:s3cret") as r:
        push(f"oci:{layout}:{tag_of(layout)}", f"docker://{r.host}/t/x:1", "--preserve-digests", "--dest-tls-verify=false", "--dest-creds", "anna:s3cret")
        log = t / "redirect.log"
        with Faults(r.url, "--redirect", log=log) as f:
            d = lint.facts(f"{f.host}/t/x:1", "--username", "anna", "--password-stdin", stdin="s3cret")
            compare(c, "redirect with a token", d, want, digest=True)
            lines = [json.loads(l) for l in log.read_text().splitlines()]
            stored = [l for l in lines if l["port"] == "storage"]
            c.ok(stored and not any(l["auth"] for l in stored), "no credentials go to the storage host of a redirect")
    r = lint("scan", "127.0.0.1:1/t/x:1")
    fails(c, r, "connection refused", ["127.0.0.1:1"])


def cache(c, lint, t, layout):
    with Registry() as r:
        push(f"oci:{layout}:{tag_of(layout)}", f"docker://{r.host}/t/x:1", "--preserve-digests", "--dest-tls-verify=false")
        where = t / "facts-cache"
        ref = f"{r.host}/t/x:1"
        first = lint.facts(ref, "--cache-dir", where, cache=True)
        before = r.pulled()
        t0 = time.time()
        second = lint.facts(ref, "--cache-dir", where, cache=True)
        if not first or not second:
            return
        layers = [l["digest"] for l in first["image"]["layers"]]
        after = r.pulled()[len(before):]
        c.eq(sorted(set(layers) & set(before)), sorted(layers), "cache: the first scan pulls every layer")
        c.eq([x for x in after if x in layers], [], "cache: the second scan asks for no layer")
        c.ok(len(after) <= 1, "cache: the second scan asks for the configuration at most", str(after))
        c.eq(second["timing"]["layers_cached"], len(layers), "cache: layers_cached")
        c.ok(second["timing"]["bytes_downloaded"] < 20000, "cache: bytes_downloaded of the second scan", second["timing"]["bytes_downloaded"])
        compare(c, f"cache: same facts ({time.time() - t0:.2f} s)", second, first, digest=True)
        # another source of the same layers uses it too; a damaged cache is no reason to fail
        compare(c, "cache: OCI layout with the registry's cache", lint.facts(f"oci:{layout}", "--cache-dir", where, cache=True), first, digest=True)
        n = 0
        for p in where.rglob("*"):
            if p.is_file():
                data = bytearray(p.read_bytes())
                if data:
                    data[len(data) // 2] ^= 0xFF
                    p.write_bytes(data[: len(data) * 3 // 4] if n % 2 else data)
                    n += 1
        compare(c, f"cache: {n} damaged files in it", lint.facts(ref, "--cache-dir", where, cache=True), first, digest=True)
        for p in where.rglob("*"):
            if p.is_file():
                p.write_bytes(b"")
        compare(c, "cache: empty files in it", lint.facts(ref, "--cache-dir", where, cache=True), first, digest=True)


main()
