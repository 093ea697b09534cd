#!/usr/bin/env python3
"""Exports against their own schemas, attached documents in a real registry, and the heat map in a real browser.

  fleet.py [--binary PATH] [--cache DIR] [-v]

CycloneDX against the schema of cyclonedx-python-lib, node affinity against the Kubernetes schemas of kubernetes-validate,
in-toto statements against in-toto-attestation (all three from PyPI, in a virtual environment under --cache); referrers
read back with skopeo from a registry that keeps no list of them; the HTML matrix in headless Chromium: it fits 1280 pixels,
light and dark have enough contrast, every cell is reached by keyboard and shows its reason, and no script is in it.
"""
import json
import subprocess
import sys
import tempfile
from pathlib import Path

sys.dont_write_bytecode = True
from common import Checks, REPO, Registry, arguments, push, venv

PYPI = ["cyclonedx-python-lib[json-validation]==11.12.0", "kubernetes-validate==1.37.0", "in-toto-attestation==0.9.3", "selenium==4.38.0",
        "pyyaml"]
FACTS = ["torch-2.5.1", "cuda-12.4-plain", "compat-13.1-with-note", "require-12.4", "alpine", "cudnn-mixed", "jax-0.10", "arm64"]

INSIDE = r"""
import json, sys, yaml, kubernetes_validate
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from google.protobuf import json_format
import in_toto_attestation.v1.statement_pb2 as pb
from in_toto_attestation.v1.statement import Statement
kind, text = sys.argv[1], sys.stdin.read()
if kind == "cyclonedx":
    error = JsonStrictValidator(SchemaVersion.V1_6).validate_str(text)
    sys.exit(str(error) if error else 0)
elif kind == "node-affinity":
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"},
           "spec": {"containers": [{"name": "c", "image": "i"}], **yaml.safe_load(text)}}
    kubernetes_validate.validate(pod, "1.33", strict=True)
elif kind == "nfd":
    d = yaml.safe_load(text)
    assert d["version"] == "v1alpha1" and set(d) == {"version", "compatibilities"}
    for c in d["compatibilities"]:
        for r in c["rules"]:
            assert r["name"] and set(r) <= {"name", "matchFeatures", "matchAny"}
            for m in r["matchAny"]:
                for f in m["matchFeatures"]:
                    assert set(f) == {"feature", "matchExpressions"}
                    for e in f["matchExpressions"].values():
                        assert e["op"] in ("In", "Gt", "Lt") and all(isinstance(v, str) for v in e["value"])
                        assert e["op"] == "In" or len(e["value"]) == 1
elif kind == "in-toto":
    statement = json_format.Parse(text, pb.Statement())
    Statement.copy_from_pb(statement).validate()
"""

BROWSER = r"""
import sys
from selenium import webdriver
from selenium.webdriver.chrome.options import Options
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
page, shots = sys.argv[1], sys.argv[2]
o = Options()
for a in ("--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
          "--disable-component-update --disable-sync").split():
    o.add_argument(a)
o.binary_location = "/usr/bin/chromium"
d = webdriver.Chrome(options=o, service=Service("/usr/bin/chromedriver"))
d.set_window_size(1280, 1000)
CONTRAST = '''
const lin = v => { v /= 255; return v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4 };
const lum = c => { const [r, g, b] = c.match(/[0-9.]+/g).map(Number); return 0.2126 * lin(r) + 0.7152 * lin(g) + 0.0722 * lin(b) };
let worst = 99;
for (const e of document.querySelectorAll('td a, td span, h1, .legend, .id, th, article p, dt, dd, summary, .level, li, li span, li a, pre, small, code')) {
  let ground = e; while (ground && getComputedStyle(ground).backgroundColor === 'rgba(0, 0, 0, 0)') ground = ground.parentElement;
  const a = lum(getComputedStyle(e).color), b = lum(ground ? getComputedStyle(ground).backgroundColor : 'rgb(255,255,255)');
  worst = Math.min(worst, (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05));
}
return worst'''
out = {}
for mode in ("light", "dark"):
    d.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [{"name": "prefers-color-scheme", "value": mode}]})
    d.get("file://" + page)
    d.save_screenshot(f"{shots}/{mode}.png")
    out[mode] = d.execute_script(CONTRAST)
out["fits"] = d.execute_script("return document.documentElement.scrollWidth <= innerWidth && innerWidth <= 1280")
out["table"] = d.execute_script("return [...document.querySelectorAll('.scroll')].every(s => s.scrollWidth <= s.clientWidth)")
out["scripts"] = d.execute_script("return document.scripts.length")
out["ground"] = d.execute_script("return getComputedStyle(document.body).backgroundColor")
cells = d.execute_script("return document.querySelectorAll('tbody td:not(.low)').length")
reached, failing = set(), 0
body = d.find_element(By.TAG_NAME, "body")
stops = d.execute_script("return document.querySelectorAll('a, summary, [tabindex=\"0\"]').length")
for _ in range(stops + 3):
    d.switch_to.active_element.send_keys(Keys.TAB)
    why = d.switch_to.active_element.get_attribute("data-why")
    if why:
        reached.add(why)
        shown = d.execute_script("return getComputedStyle(document.activeElement, '::after').content")
        failing += why.split(':')[0] not in shown
out["cells"], out["reached"], out["hidden"] = cells, len(reached), failing
link = d.find_element(By.CSS_SELECTOR, "td.fails a")
link.send_keys(Keys.ENTER)
target = d.execute_script("const e = document.querySelector(':target'); return e ? e.innerText : ''")
out["leads"] = "CUL" in target
d.quit()
import json
print(json.dumps(out))
"""


def main():
    a = arguments(__doc__)
    c = Checks("fleet.py", a.verbose)
    python = venv(a.cache / "venv-fleet", PYPI)

    def run(*args):
        return subprocess.run([a.binary, *map(str, args)], capture_output=True, text=True)

    def valid(kind, text):
        return subprocess.run([python, "-c", INSIDE, kind], input=text, capture_output=True, text=True)

    for name in FACTS:
        for form in ("cyclonedx", "node-affinity", "nfd"):
            p = run("export", "--facts", REPO / f"fixtures/facts/{name}.json", "--as", form)
            if p.returncode == 2 and ("no driver and GPU is known" in p.stderr or "nothing in the image uses" in p.stderr):
                c.ok(form != "cyclonedx", f"{name} {form}: no host at all", p.stderr)
                continue
            v = valid(form, p.stdout)
            c.ok(p.returncode == 0 and v.returncode == 0, f"{name} {form}", (p.stderr + v.stderr)[-600:])
    demo = f"oci:{REPO / 'fixtures/images/demo'}"
    for form in ("cyclonedx", "node-affinity", "nfd", "in-toto"):
        p = run("export", demo, "--as", form, "--no-cache")
        v = valid(form, p.stdout)
        c.ok(p.returncode == 0 and v.returncode == 0, f"demo {form}", (p.stderr + v.stderr)[-600:])

    with tempfile.TemporaryDirectory() as tmp:
        for login in (None, "--auth", "--token"):
            options = [login, "me:pw"] if login else []
            with Registry(*options) as registry:
                referrers(c, a, registry, login)
        facts = ["--facts", REPO / "fixtures/facts/torch-2.5.1.json", "--as-of", "2026-11-20"]
        hosts = ["--host-driver", "470,535", "--gpu", "h100,t4,b200"]
        for name, command, status in (("matrix", ["matrix"], 0), ("report", ["check", *hosts], 1)):
            page = Path(tmp) / f"{name}.html"
            p = run(*command, *facts, "-o", f"html={page}")
            c.ok(p.returncode == status, f"{name} html", p.stderr)
            browser(c, python, name, page, tmp)
    sys.exit(c.end())


def browser(c, python, name, page, tmp):
    b = subprocess.run([python, "-c", BROWSER, str(page), tmp], capture_output=True, text=True)
    if not c.ok(b.returncode == 0, f"{name}: chromium", b.stderr[-800:]):
        return
    seen = json.loads(b.stdout)
    c.ok(seen["light"] >= 4.5 and seen["dark"] >= 4.5, f"{name}: contrast of 4.5 in both schemes", str(seen))
    c.ok(seen["ground"] == "rgb(20, 23, 26)", f"{name}: the dark scheme is dark", seen["ground"])
    c.ok(seen["fits"] and seen["table"], f"{name}: nothing is cut at 1280 pixels", str(seen))
    c.ok(seen["scripts"] == 0, f"{name}: no script")
    c.ok(seen["reached"] == seen["cells"], f"{name}: every cell is reached by keyboard", str(seen))
    c.ok(seen["hidden"] == 0, f"{name}: a focused cell shows its reason", str(seen))
    c.ok(seen["leads"], f"{name}: a cell leads to its reason")


def referrers(c, a, registry, login):
    creds = ["--username", "me", "--password-stdin"] if login else []
    word = "me:pw" if login else None
    push(f"oci:{REPO / 'fixtures/images/demo'}", f"docker://{registry.host}/ml/demo:1", "--dest-tls-verify=false",
         *(["--dest-creds", word] if word else []))
    at = f"{registry.host}/ml/demo:1"
    seen = set()
    for form in ("nfd", "in-toto", "report"):
        p = subprocess.run([a.binary, "attach", at, "--as", form, "--no-cache", *creds], input="pw\n", capture_output=True, text=True)
        c.ok(p.returncode == 0, f"attach {form} {login}", p.stderr)
        seen.add(p.stdout.split("@")[-1].split()[0] if p.stdout else form)
        tag = p.stdout.split()[-1]
    extra = ["--creds", word] if word else []
    raw = subprocess.run(["skopeo", "inspect", "--raw", "--tls-verify=false", *extra, f"docker://{registry.host}/ml/demo:{tag}"],
                         capture_output=True, text=True)
    listed = {m["digest"] for m in json.loads(raw.stdout or '{"manifests":[]}')["manifests"]}
    c.ok(listed == seen, f"the tag lists all three ({login})", raw.stderr + raw.stdout)
    for digest in listed:
        one = subprocess.run(["skopeo", "inspect", "--raw", "--tls-verify=false", *extra, f"docker://{registry.host}/ml/demo@{digest}"],
                             capture_output=True, text=True)
        document = json.loads(one.stdout or "{}")
        c.ok(document.get("subject", {}).get("digest", "") == "sha256:" + tag.removeprefix("sha256-"), "the subject is the image", one.stderr)
    if login:
        p = subprocess.run([a.binary, "attach", at, "--as", "nfd", "--no-cache"], capture_output=True, text=True)
        c.ok(p.returncode == 3, f"attach without login {login}", p.stderr)


if __name__ == "__main__":
    main()
