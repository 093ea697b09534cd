#!/usr/bin/env python3
"""The GitHub Action and the CI snippets, run as their runners would run them.

  action.py [--binary PATH] [--cache DIR] [-v]

  definition  action.yml and .github/workflows against their schemas (check-jsonschema) and zizmor
  install     a release of the binary from a local server; what has another checksum, or none, is refused
  check       hostile values in every input, and a stand-in for cudalint that tries to forge commands and outputs
  real        the binary itself: gate, reports, cache, credentials, a hostile image
  dockerfile  an image made by buildah in a local registry: SARIF results and annotations at the lines of its Dockerfile
  snippets    examples/ci and .pre-commit-hooks.yaml, run
"""
import base64
import http.server
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import xml.etree.ElementTree as ElementTree
from functools import partial
from pathlib import Path

sys.dont_write_bytecode = True
from common import Checks, REPO, Registry, Served, arguments, environment, mkimage, need, push, sha256, venv
from github_runner import Runner

PYPI = ["pyyaml==6.0.3", "zizmor==1.32.0", "check-jsonschema==0.39.0", "pre-commit==4.7.0"]
DEMO = REPO / "fixtures/images/demo"
DEFAULTS = {"fail-on": "error", "format": "sarif", "annotations": "true", "summary": "true", "upload-sarif": "false",
            "cache": "true"}
INPUTS = {"image", "path", "host-driver", "gpu", "targets-file", "platform", "config", "output", "dockerfile", "version",
          "cache-dir", "username", "password", "args", *DEFAULTS}
OUTPUTS = {"verdict", "exit-code", "errors", "warnings", "sarif", "json", "min-driver", "gpu-archs"}
T4 = {"path": DEMO, "host-driver": "535", "gpu": "t4"}     # fails with one error and one warning

# What an image's author could write into a label, a file name or an error message.
EVIL = "\n".join(["::set-output name=verdict::runs", "::error::forged", "##[add-mask]forged", " ::add-path::/forged",
                  "verdict=forged", "verdict<<EOF", "forged", "EOF", "\r::warning::forged", "::stop-commands::forged",
                  "::forged::", "::notice title=a::forged"])

# A cudalint that notes how it was called and writes EVIL wherever it can.
STAND_IN = f"""#!{sys.executable}
import json, os, sys
args, evil = sys.argv[1:], os.environ.get("EVIL", "")
if args == ["--version"]:
    print("cudalint 9.9.9")
    sys.exit()
with open(os.environ["CALLED"], "w") as f:
    json.dump({{"args": args, "stdin": sys.stdin.read(), "env": dict(os.environ)}}, f)
finding = lambda level, suppressed: {{"level": level, "suppressed": suppressed}}
report = {{"targets": [{{"verdict": "runs"}}, {{"verdict": "fails"}}], "requirements": {{"min_driver": "525.60.13",
          "architectures": {{"native": ["sm_80" + evil]}}}},
          "findings": [finding("error", None), finding("error", {{"reason": "x"}}), finding("warning", None),
                       finding("note", None)]}}
texts = {{"json": json.dumps(report), "sarif": "{{}}",
         "github": "::error file=a,line=3,title=t::true\\n" + evil.replace("::notice ", ""),
         "markdown": "### report\\n" + evil + "\\nlong line" * int(os.environ.get("LONG", "0"))}}
for form, _, file in (a[len("--output="):].partition("=") for a in args if a.startswith("--output=")):
    text = texts.get(form, evil)
    sys.stdout.write(text) if file == "-" else open(file, "w").write(text)
sys.stderr.write(evil)
code = int(os.environ.get("ENDS", "0"))
os.kill(os.getpid(), -code) if code < 0 else sys.exit(code)
"""

DOCKERFILE = """\
# syntax=docker/dockerfile:1
FROM scratch AS build
ADD demo.tar /

FROM scratch
ENV NVIDIA_VISIBLE_DEVICES=all \\
    CUDA_VERSION=12.4.1
ADD rootfs.tar /
ADD cuda.tar /
COPY --from=build \\
     /opt/demo \\
     /opt/demo
ENTRYPOINT ["/opt/demo/train"]
"""
ENV_LINES, COPY_LINES = (6, 7), (10, 12)


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


class Server(Served):
    """A directory over HTTP."""

    def __init__(self, directory):
        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=directory))
        self.url = f"http://127.0.0.1:{self.server.server_port}"


class Place:
    """Everything a test needs: the tools, the action, a workspace, runners."""

    def __init__(self, a, c, t):
        self.a, self.c, self.t = a, c, t
        self.python = venv(a.cache / "venv-action", PYPI)
        self.tools = self.python.parent
        self.definition = self.yaml(REPO / "action.yml")
        self.workspace = t / "workspace"
        self.workspace.mkdir()
        self.stand_in = script(t / "stand-in", STAND_IN)
        self.called = t / "called.json"
        self.runners = 0

    def yaml(self, path):
        code = "import json, sys, yaml; print(json.dumps(yaml.load(open(sys.argv[1]), yaml.BaseLoader)))"
        return json.loads(subprocess.check_output([self.python, "-c", code, path]))

    def runner(self, action=REPO):
        self.runners += 1
        return Runner(self.definition, action, self.t / f"runner{self.runners}", self.workspace)

    def stand(self, inputs=None, runner=None, **env):
        """A run with the stand-in; what it noted is in .called, None where it was not called."""
        self.called.unlink(missing_ok=True)
        env = {"CUDALINT_BINARY": str(self.stand_in), "CALLED": str(self.called), "EVIL": EVIL, **env}
        r = (runner or self.runner()).run({"version": "preinstalled", **(inputs or {})}, env)
        r.called = json.loads(self.called.read_text()) if self.called.exists() else None
        self.nothing_forged(r, inputs)
        return r

    def real(self, inputs, runner=None, **env):
        r = (runner or self.runner()).run({"version": "preinstalled", **inputs}, {"CUDALINT_BINARY": str(self.a.binary), **env})
        self.nothing_forged(r, inputs)
        return r

    def nothing_forged(self, r, what):
        strange = [x for x in r.commands if x not in r.annotations() or x[2].startswith("forged")]
        good = not strange and not r.job_files and "forged" not in r.outputs["verdict"]
        self.c.ok(good, f"nothing forged: {what}", str(strange))


def script(path, text):
    path.write_text(text)
    path.chmod(0o755)
    return path


def said(command, **how):
    return subprocess.run(command, capture_output=True, text=True, **how)


def gate(c, r, code, what):
    """The whole run ended as cudalint did, in the last step and not before."""
    c.eq((r.outputs["exit-code"], r.failed), (str(code), "gate" if code else None), f"{what}: exit-code and gate")


def definition(p):
    c, d = p.c, p.definition
    text = (REPO / "action.yml").read_text()
    c.eq((set(d["inputs"]), set(d["outputs"])), (INPUTS, OUTPUTS), "inputs and outputs")
    c.eq({n: i["default"] for n, i in d["inputs"].items() if "default" in i}, DEFAULTS, "defaults")
    steps = d["runs"]["steps"]
    c.ok(not any("${{" in s.get("run", "") for s in steps), "no expression in a shell script")
    c.eq([s["id"] for s in steps if "run" in s], ["install", "check", "gate"], "the gate is the last of the scripts")
    order = [s["name"] for s in steps]
    c.ok(all("always()" in s["if"] for s in steps[order.index("Check") + 1:]), "what follows the check always runs")
    uses = re.findall(r"uses: (\S+)(.*)", text)
    allowed = {"actions/cache/restore", "actions/cache/save", "github/codeql-action/upload-sarif"}
    for name, rest in uses:
        action, _, commit = name.partition("@")
        pinned = re.fullmatch("[0-9a-f]{40}", commit) and re.fullmatch(r" # v\d+\.\d+\.\d+", rest)
        c.ok(action in allowed and pinned, f"pinned: {name}")
    c.eq({s["uses"] for s in steps if "uses" in s}, {n for n, _ in uses}, "every use is seen")
    workflows = sorted((REPO / ".github/workflows").glob("*.yml"))
    tools = [["zizmor", "--offline", "--no-progress", "--persona", "pedantic", "action.yml", ".github/workflows"],
             ["check-jsonschema", "--builtin-schema", "vendor.github-actions", "action.yml"],
             ["check-jsonschema", "--builtin-schema", "vendor.github-workflows", *workflows, "examples/ci/github.yml"],
             ["check-jsonschema", "--builtin-schema", "vendor.gitlab-ci", "examples/ci/gitlab-ci.yml"],
             ["pre-commit", "validate-manifest", ".pre-commit-hooks.yaml"]]
    for name, *args in tools:
        ran = said([p.tools / name, *args], cwd=REPO, env=environment(p.t / "home"))
        c.ok(ran.returncode == 0, f"{name} {args[-1]}", ran.stdout[-600:] + ran.stderr[-600:])


def release(at, version, file, machine="linux-x86_64"):
    """Writes a release's archive below `at`; its line in checksums.txt."""
    name = f"cudalint-{version}-{machine}"
    path = at / f"v{version}/{name}.tar.gz"
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w:gz", compresslevel=1) as tar:
        tar.add(file, f"{name}/cudalint")
    return f"{sha256(path)}  {path.name}\n"


def action_with(p, name, *sums):
    """A copy of the action whose list has these lines."""
    to = p.t / name
    shutil.copytree(REPO / "action", to / "action")
    with open(to / "action/checksums.txt", "a") as f:
        f.writelines(sums)
    return to


def install(p, base):
    c, files = p.c, p.t / "releases"
    canary = p.t / "canary"
    evil = script(p.t / "evil", f"#!/bin/sh\ntouch {canary}\necho cudalint 1\n")
    old, new = release(files, "0.0.1", p.stand_in), release(files, "0.1.0", p.a.binary)
    arm = release(files, "0.1.0", p.stand_in, "linux-aarch64")
    wrong = "0" * 64 + release(files, "0.0.2", evil)[64:]
    gone = "0" * 64 + "  cudalint-0.0.3-linux-x86_64.tar.gz\n"
    action = action_with(p, "listed", wrong, gone, old, arm, new)
    env = {"CUDALINT_RELEASE_BASE": base, "CALLED": str(p.called)}

    def run(version, at=action, path=None, **more):
        return p.runner(at).run({**T4, "version": version}, {**env, **more}, path)

    r = run("")
    c.eq(r.outputs["exit-code"], "1", "the newest release of the list is installed and runs")
    r = run("v0.0.1")
    c.ok(p.called.exists() and r.outputs["verdict"] == "fails", "an older release, written with v", r.log)
    p.called.unlink(missing_ok=True)
    r = run("0.1.0", RUNNER_ARCH="ARM64")
    c.ok(p.called.exists(), "arm64 gets its own archive", r.log)

    def refused(r, words, what):
        why = " ".join(m for _, _, m in r.commands)
        good = r.failed == "install" and r.steps["check"] == "skipped" and len(r.commands) == 1 and words in why
        c.ok(good, f"refused: {what}", r.log)
        c.eq(set(r.outputs.values()), {""}, f"refused: {what}: no outputs")

    refused(run("0.0.2"), "checksums.txt says 000", "another checksum")
    c.ok(not canary.exists(), "what has another checksum never runs")
    refused(run("0.0.3"), "404", "a release that is not there")
    refused(run("0.0.9"), "is not in this action's checksums.txt", "a release that is not listed")
    none = action_with(p, "empty")
    (none / "action/checksums.txt").write_text("# <sha256>  cudalint-<version>-linux-x86_64.tar.gz\n")
    refused(run("", none), "lists no release", "an empty list")
    for version in ("../../0.1.0", "0.1", "latest", "0.1.0\n::error::forged", "$(touch x)", "0.1.0/../0.0.2"):
        refused(run(version), "is neither", f"version {version!r}")
    refused(run("", RUNNER_OS="Windows"), "no cudalint for Windows", "another system")
    refused(run("preinstalled"), "none", "preinstalled, and none is there")
    (p.t / "bin").mkdir()
    shutil.copy(p.stand_in, p.t / "bin/cudalint")
    p.called.unlink()
    r = run("preinstalled", path=str(p.t / "bin"))
    c.ok(p.called.exists() and r.outputs["exit-code"] == "0", "preinstalled: from PATH", r.log)
    # Where it would go without a base: asked of a curl that only says what it was told.
    (p.t / "curl").mkdir()
    script(p.t / "curl/curl", '#!/bin/sh\necho "told $*" >&2\nexit 22\n')
    for name, repository in (("owner/cudalint", "owner/cudalint"), ("", "me/train")):
        runner = p.runner(action)
        runner.github["action_repository"] = name
        r = runner.run({**T4, "version": "0.1.0"}, {}, str(p.t / "curl"))
        url = f"https://github.com/{repository}/releases/download/v0.1.0/cudalint-0.1.0-linux-x86_64.tar.gz"
        refused(r, f"--url {url}", f"the release of {repository}")


def inputs_of(p):
    """Every input, hostile, empty and well."""
    c, canary = p.c, p.workspace / "canary"
    nasty = "x'\"; $(touch canary) `touch canary` ${IFS}| touch canary & \\\n::set-output name=verdict::runs\n--help\n" + EVIL
    options = {n: f"--{n}=" for n in ("platform", "config", "username")} | {"targets-file": "--targets="}
    for name in sorted(INPUTS - {"version"}):
        r = p.stand({"image": "a", name: nasty} if name != "path" else {name: f"{nasty}absent"})
        c.ok(not canary.exists(), f"{name}: nothing in it runs")
        args = r.called["args"] if r.called else []
        if name in options:
            c.ok(options[name] + nasty.strip() in args, f"{name}: one argument, byte for byte", str(args))
        elif name in ("host-driver", "gpu"):
            c.eq([x.partition("=")[2] for x in args if x.startswith(f"--{name}=")],
                 [x.strip() for x in nasty.split("\n")], f"{name}: one argument a line")
        elif name == "image":
            c.eq(args[args.index("--") + 1:], [x.strip() for x in nasty.split("\n")], "image: one a line, after --")
        elif name in ("args", "path", "format", "annotations", "summary"):
            c.ok(r.called is None and r.outputs["exit-code"] == "2" and r.failed == "gate", f"{name}: refused", r.log)
        elif name == "password":
            c.eq(r.called["stdin"], nasty, "password: standard input, byte for byte")
    r = p.stand({"image": "a"})
    plain = r.called["args"]
    empty = p.stand({"image": "a", **{n: "" for n in INPUTS - {"image", "version"}}}).called["args"]
    hide = lambda args: [re.sub(r"runner\d+/temp/cudalint-[^/]*", "TEMP", x) for x in args]
    c.eq(hide(empty), hide(plain), "an empty input is one that was not set")
    options = [x for x in plain if not x.startswith(("--output=", "--cache-dir="))]
    c.eq(options, ["check", "--", "a"], "without inputs, no options")

    secret = 'hunter2 "$(id)" %0A'
    r = p.stand({"image": "a", "username": "me", "password": secret})
    c.eq(r.called["stdin"], secret, "password on standard input")
    shown = json.dumps(r.called["args"] + sorted(r.called["env"].values())) + r.log
    c.ok("hunter2" not in shown, "password: not in arguments, environment or log")
    r = p.stand({"image": "a", "args": "--strict  --brand='a b' \"$(touch canary)\" ''"})
    split = ["--strict", "--brand=a b", "$(touch canary)", "", "--", "a"]
    c.eq(r.called["args"][-6:], split, "args are split as in a shell, not run")
    r = p.stand({"image": "a", "dockerfile": f"{p.workspace}/docker/../Dockerfile", "fail-on": "warning"})
    good = {"--dockerfile=Dockerfile", "--fail-on=warning"} <= set(r.called["args"])
    c.ok(good, "dockerfile as GitHub names it; fail-on", str(r.called["args"]))
    for given, want in (({"format": "junit", "output": "out/x.xml"}, ["text=-", "junit=out/x.xml"]),
                        ({"output": "x.sarif"}, ["text=-", "sarif=x.sarif"]), ({"format": "html"}, ["html=-"])):
        r = p.stand({"image": "a", "annotations": "false", "summary": "false", **given})
        outputs = [x.removeprefix("--output=") for x in r.called["args"] if x.startswith("--output=")]
        c.eq([x for x in outputs if "/temp/" not in x], want, f"{given}")
        c.ok(not r.annotations() and not r.summary, f"{given}: no annotations, no summary")
    for given in ({"image": "a", "path": "x"}, {"path": "no/such"}, {"args": "'"}, {"annotations": "yes"}, {"format": "pdf"}):
        r = p.stand(given)
        c.ok(r.called is None and len(r.annotations("error")) == 1, f"{given}: refused with one annotation", r.log)
        gate(c, r, 2, f"{given}")
    c.eq(p.stand({"image": "a", "cache-dir": "a\nb"}).failed, "install", "cache-dir of two lines: refused")


def behaviour(p):
    """Outputs, gate, summary, uploads and cache, whatever cudalint does."""
    c = p.c
    for code in (0, 1, 2, 3, 4, 101):
        r = p.stand({"image": "a", "upload-sarif": "true"}, ENDS=str(code))
        gate(c, r, code, f"cudalint ends with {code}")
        c.eq((len(r.uploads), len(r.saved), "### report" in r.summary), (1, 1, True), f"{code}: reports are out before the gate")
        c.eq(len(r.annotations("error")), 1 if code in (0, 1) else 2, f"{code}: annotations")
    gate(c, p.stand({"image": "a"}, ENDS="-9"), 137, "cudalint is killed")
    r = p.stand({"image": "a"})
    c.eq([r.outputs[n] for n in ("verdict", "errors", "warnings", "min-driver")], ["fails", "1", "1", "525.60.13"], "outputs")
    c.eq(r.outputs["gpu-archs"], ("sm_80" + EVIL).replace("\r", "\n"), "an output with line breaks stays one output")
    c.eq(r.annotations(), [("error", {"file": "a", "line": "3", "title": "t"}, "true")], "annotations are relayed, nothing else")
    c.eq(r.uploads, [], "no upload unless asked")
    r = p.stand({"image": "a"}, LONG="300000")
    c.ok(800_000 < len(r.summary.encode()) < 1 << 20 and "The rest" in r.summary, "a long summary is cut")
    c.ok(Path(r.outputs["sarif"]).exists() and Path(r.outputs["json"]).exists(), "paths of the reports")
    home = p.t / "runner1/home"
    for given, want in (({}, "temp/cudalint-cache"), ({"cache-dir": "~/x"}, "home/x"),
                        ({"cache-dir": "x/y"}, p.workspace / "x/y"),
                        ({"cache": "false", "cache-dir": home}, home), ({"cache": "false"}, None)):
        runner = p.runner()
        r = p.stand({"image": "a", **given}, runner)
        option = f"--cache-dir={runner.root / want}" if want else "--no-cache"
        c.ok(option in r.called["args"] and bool(r.saved) == ("cache" not in given), f"cache: {given}", str(r.called["args"]))


def document(r):
    return json.loads(Path(r.outputs["json"]).read_text())


def results(r):
    """The results of the SARIF report that was uploaded."""
    return [x for report in r.uploads for run in json.loads(report)["runs"] for x in run["results"]]


def real(p):
    c = p.c
    r = p.real({**T4, "upload-sarif": "true", "output": "out/report.json", "format": "json"})
    gate(c, r, 1, "demo on a T4")
    figures = [r.outputs[n] for n in ("verdict", "errors", "min-driver", "gpu-archs")]
    c.eq(figures, ["fails", "1", "525.60.13", "sm_80,sm_86,sm_90"], "demo: outputs")
    c.eq([x["ruleId"] for x in results(r) if x["level"] == "error"], ["CUL201"], "demo: SARIF was uploaded")
    c.ok("CUL201" in r.summary and "CUL201" in r.log, "demo: summary and log name the rule")
    errors = r.annotations("error")
    c.ok(len(errors) == 1 and "CUL201" in str(errors), "demo: one annotation of level error", str(r.commands))
    c.eq(document(r), json.loads((p.workspace / "out/report.json").read_text()), "demo: `output` is the report, too")
    runner = p.runner()
    for again in (False, True):
        shutil.rmtree(runner.root / "temp/cudalint-cache", ignore_errors=True)
        r = p.real({**T4, "gpu": "h100"}, runner)
        gate(c, r, 0, "demo on an H100")
        c.eq(r.outputs["verdict"], "runs", "demo on an H100: verdict")
        c.eq(document(r)["timing"]["layers_cached"], 3 if again else 0, f"layers from the cache, second run: {again}")
    gate(c, p.real({**T4, "fail-on": "never"}), 0, "fail-on never")
    gate(c, p.real({**T4, "gpu": "h100", "fail-on": "note"}), 1, "fail-on note")
    (p.workspace / "lax.toml").write_text('fail-on = "never"\n')
    gate(c, p.real({**T4, "config": "lax.toml"}), 0, "a configuration file says fail-on")
    r = p.real({**T4, "gpu": "h1000"})
    gate(c, r, 2, "an unknown GPU")
    c.ok("h1000" in str(r.annotations("error")), "an unknown GPU: an annotation says so", r.log)
    c.eq((r.outputs["sarif"], r.outputs["json"]), ("", ""), "an unknown GPU: no report")
    r = p.real({"image": f"oci:{DEMO}\noci:{DEMO}-serve", "host-driver": "535", "gpu": "h100"})
    reports = document(r)["reports"]
    c.eq(len(reports), 2, "two images, two reports")
    levels = [f["level"] for one in reports for f in one["findings"] if not f["suppressed"]]
    c.eq([r.outputs[n] for n in ("errors", "warnings")], [str(levels.count(n)) for n in ("error", "warning")],
         "two images: counts")
    gate(c, r, 1 if "error" in levels else 0, "two images")
    with Registry("--auth", "me:hunter2") as registry:
        at = f"{registry.host}/t/demo"
        push(f"oci:{DEMO}", f"docker://{at}:1", "--dest-tls-verify=false", "--dest-creds", "me:hunter2")
        login = {"host-driver": "535", "gpu": "h100", "username": "me", "password": "hunter2"}
        r = p.real({**login, "image": f"{at}:1"})
        gate(c, r, 0, "a registry with a password")
        c.ok("hunter2" not in r.log + r.summary, "the password is not shown")
        gate(c, p.real({**login, "image": f"{at}:1", "password": "wrong"}), 3, "a wrong password")
        r = p.real({**login, "image": f"{at}:no"})
        gate(c, r, 3, "no such tag")
        c.ok("no" in str(r.annotations("error")), "no such tag: an annotation says so", r.log)
    library = f"/opt/{EVIL.replace('/', '-')}/libdemo_train.so"
    layer = {"items": [["file", library, str(REPO / "fixtures/code/libdemo_train.so")]], "created_by": f"COPY x{EVIL}"}
    env = {"NVIDIA_REQUIRE_CUDA": f"cuda>=99{EVIL}", "LD_LIBRARY_PATH": EVIL, "CUDA_VERSION": EVIL}
    mkimage().build(str(p.t / "hostile"), {"layers": [layer], "labels": {"a": EVIL, EVIL: "a"}, "cmd": [EVIL], "env": env})
    r = p.real({**T4, "path": p.t / "hostile", "upload-sarif": "true"})
    gate(c, r, 1, "a hostile image")
    good = r.outputs["verdict"] == "fails" and r.annotations("error") and r.summary
    c.ok(good, "a hostile image: judged like any other", r.log)


def built(p, registry, login):
    """An image made from the workspace's Dockerfile, in the registry as train:1 and serve:1."""
    docker = p.workspace / "docker"
    docker.mkdir()
    (docker / "Dockerfile").write_text(DOCKERFILE)
    blob = lambda about: DEMO / "blobs/sha256" / about["digest"].removeprefix("sha256:")
    index = json.loads((DEMO / "index.json").read_text())
    for name, layer in zip(("rootfs", "cuda", "demo"), json.loads(blob(index["manifests"][0]).read_text())["layers"]):
        shutil.copy(blob(layer), docker / f"{name}.tar")
    storage = p.t / "storage.conf"
    storage.write_text(f'[storage]\ndriver = "vfs"\nrunroot = "{p.t}/run"\ngraphroot = "{p.t}/graph"\n')
    env = {**os.environ, "CONTAINERS_STORAGE_CONF": str(storage), "BUILDAH_ISOLATION": "chroot", "no_proxy": "*"}

    def buildah(*command):
        subprocess.run(["buildah", *command], env=env, check=True, stdout=subprocess.DEVNULL)

    buildah("bud", "--layers", "-q", "-t", "train", docker)
    for name in ("train", "serve"):
        buildah("push", "-q", "--tls-verify=false", "--creds", login, "train", f"docker://{registry.host}/me/{name}:1")
    return f"{registry.host}/me"


def dockerfile(p, at, login):
    c = p.c
    username, password = login.split(":")
    r = p.real({"image": f"{at}/train:1", "host-driver": "535", "gpu": "t4", "dockerfile": "./docker/Dockerfile",
                "upload-sarif": "true", "username": username, "password": password})
    gate(c, r, 1, "the built image on a T4")
    within = lambda lines, first, last: lines[0] <= first <= last <= lines[1]
    sarif, report = {x["ruleId"]: x for x in results(r)}, {f["rule"]: f for f in document(r)["findings"]}
    for rule, lines in (("CUL201", COPY_LINES), ("CUL504", ENV_LINES)):
        place = sarif[rule]["locations"][0]["physicalLocation"]
        region = place["region"]
        c.eq(place["artifactLocation"]["uri"], "docker/Dockerfile", f"{rule}: SARIF names the Dockerfile")
        c.ok(within(lines, region["startLine"], region.get("endLine", region["startLine"])), f"{rule}: SARIF", str(region))
        made = report[rule]["dockerfile"] or {"file": None, "start_line": 0, "end_line": 0}
        good = made["file"] == "docker/Dockerfile" and within(lines, made["start_line"], made["end_line"])
        c.ok(good, f"{rule}: JSON", str(made))
        notes = [about for _, about, message in r.annotations() if rule in message + about.get("title", "")]
        c.ok(len(notes) == 1, f"{rule}: one annotation", str(r.annotations()))
        for about in notes:
            first, last = int(about["line"]), int(about.get("endLine", about["line"]))
            c.ok(about["file"] == "docker/Dockerfile" and within(lines, first, last), f"{rule}: annotation", str(about))
    c.eq((report["CUL201"]["dockerfile"] or {}).get("end_line"), COPY_LINES[1], "an instruction of several lines is known whole")


def snippets(p, at, login, base):
    c = p.c
    username, password = login.split(":")
    host = at.split("/")[0]
    sums = release(p.t / "releases", "0.1.0", p.a.binary)
    action = action_with(p, "example", sums)

    # GitHub: each job's step that uses the action. The short one stands for a job that has logged in.
    for name, job in p.yaml(REPO / "examples/ci/github.yml")["jobs"].items():
        runner = p.runner(action)
        auth = json.dumps({"auths": {host: {"auth": base64.b64encode(login.encode()).decode()}}})
        (runner.root / "home/.docker").mkdir()
        (runner.root / "home/.docker/config.json").write_text(auth if name == "short" else "{}")
        context = {"vars.REGISTRY": at, "github.sha": "1", "github.actor": username, "secrets.GITHUB_TOKEN": password}
        step = next(s for s in job["steps"] if s["uses"].startswith("OWNER/cudalint@"))
        inputs = {k: runner.fill(v, context) for k, v in step["with"].items()}
        r = runner.run(inputs, {"CUDALINT_RELEASE_BASE": base})
        p.nothing_forged(r, name)
        gate(c, r, 1, f"github.yml, {name}")
        c.eq(r.outputs["verdict"], "fails", f"github.yml, {name}: verdict")
        c.eq(len(r.uploads), 1 if name == "long" else 0, f"github.yml, {name}: uploads")

    # GitLab: all lines of `script` in one shell, as its runner does.
    job = p.yaml(REPO / "examples/ci/gitlab-ci.yml")["cudalint"]
    env = environment(p.t / "gitlab-home") | {"CI_REGISTRY_IMAGE": f"{at}/train", "CI_COMMIT_SHORT_SHA": "1",
                                              "CI_REGISTRY_USER": username, "CI_REGISTRY_PASSWORD": password}
    for name, text in job["variables"].items():
        env[name] = re.sub(r"\$(\w+)", lambda m: env[m[1]], text)
    env |= {"RELEASE_URL": f"{base}/v0.1.0/cudalint-0.1.0-linux-x86_64.tar.gz"}

    def gitlab(sum):
        script = "\n".join(job["script"])
        return said(["bash", "-eo", "pipefail", "-c", script], cwd=p.workspace, env=env | {"RELEASE_SHA256": sum})

    ran = gitlab("0" * 64)
    stopped = ran.returncode != 0 and not (p.workspace / ".cudalint/cudalint").exists()
    c.ok(stopped, "gitlab-ci.yml: another checksum stops the job", ran.stderr)
    ran = gitlab(sums.split()[0])
    if c.eq(ran.returncode, 1, f"gitlab-ci.yml: the job fails as cudalint does: {ran.stderr[-300:]}"):
        files = job["artifacts"]["reports"]
        report = json.loads((p.workspace / files["codequality"]).read_text())
        paths = {x["location"]["path"] for x in report}
        c.ok("docker/Dockerfile" in paths, "gitlab-ci.yml: code quality at the Dockerfile", str(paths))
        tree = ElementTree.parse(p.workspace / files["junit"])
        c.ok(tree.findall(".//failure"), "gitlab-ci.yml: JUnit has a failure")
    c.ok(password not in ran.stdout + ran.stderr, "gitlab-ci.yml: the password is not shown")

    # Jenkins: the `sh` step, traced as Jenkins traces it. Groovy joins lines at a backslash.
    shell, = re.findall(r"sh '''(.*?)'''", (REPO / "examples/ci/Jenkinsfile").read_text(), re.S)
    (p.t / "path").mkdir()
    (p.t / "path/cudalint").symlink_to(p.a.binary)
    path = f"{p.t / 'path'}:{os.environ['PATH']}"
    env = environment(p.t / "jenkins-home") | {"PATH": path, "IMAGE": f"{at}/train:1",
                                               "REGISTRY_USER": username, "REGISTRY_PASSWORD": password}
    (p.workspace / "cudalint.xml").unlink(missing_ok=True)
    ran = said(["sh", "-xe", "-c", shell.replace("\\\n", "")], cwd=p.workspace, env=env)
    if c.eq(ran.returncode, 1, f"Jenkinsfile: the stage fails as cudalint does: {ran.stderr[-300:]}"):
        c.ok(ElementTree.parse(p.workspace / "cudalint.xml").findall(".//failure"), "Jenkinsfile: JUnit has a failure")
        c.ok(json.loads((p.workspace / "cudalint.sarif").read_text())["runs"], "Jenkinsfile: SARIF")
    c.ok(password not in ran.stdout + ran.stderr, "Jenkinsfile: the password is not shown")

    # pre-commit: a repository with the hook, and one that uses it.
    env = environment(p.t / "home") | {"PATH": path, "PRE_COMMIT_HOME": str(p.t / "pre-commit"),
                                       "GIT_CONFIG_GLOBAL": str(p.t / "gitconfig")}
    (p.t / "gitconfig").write_text("[user]\nname = me\nemail = me@example.com\n")
    hooks, user = p.t / "hooks", p.t / "user"

    def git(where, *args):
        return said(["git", "-C", where, *args], env=env, check=True).stdout.strip()

    for repository in (hooks, user):
        repository.mkdir()
        git(repository, "init", "-q")
    shutil.copy(REPO / ".pre-commit-hooks.yaml", hooks)
    git(hooks, "add", ".")
    git(hooks, "commit", "-qm", "hooks")
    for gpu, code in (("h100", 0), ("t4", 1)):
        hook = {"id": "cudalint", "args": [f"oci:{DEMO}", "--host-driver", "535", "--gpu", gpu]}
        config = {"repos": [{"repo": str(hooks), "rev": git(hooks, "rev-parse", "HEAD"), "hooks": [hook]}]}
        (user / ".pre-commit-config.yaml").write_text(json.dumps(config))
        git(user, "add", ".")
        ran = said([p.tools / "pre-commit", "run"], cwd=user, env=env)
        c.eq((ran.returncode, "CUL201" in ran.stdout), (code, bool(code)), f"pre-commit, {gpu}: {ran.stdout[-400:]}{ran.stderr}")


def main():
    a = arguments(__doc__)
    c = Checks("action.py", a.verbose)
    need("buildah", "curl", "docker-registry", "git", "htpasswd", "skopeo")
    with tempfile.TemporaryDirectory(prefix="cudalint-action.") as t:
        p = Place(a, c, Path(t))
        (p.t / "releases").mkdir()
        definition(p)
        inputs_of(p)
        behaviour(p)
        with Server(p.t / "releases") as server:
            install(p, server.url)
            real(p)
            login = "me:hunter2"
            with Registry("--auth", login) as registry:
                at = built(p, registry, login)
                dockerfile(p, at, login)
                snippets(p, at, login, server.url)
    c.end()


if __name__ == "__main__":
    main()
