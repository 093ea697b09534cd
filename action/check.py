#!/usr/bin/env python3
"""The action's inputs -> one run of cudalint, its reports, annotations, job summary and step outputs.

Ends with 0 whatever cudalint says: a later step fails the job with the output `exit-code`, once the reports are uploaded.

An image may hold text that looks like workflow commands. What cudalint says therefore reaches the log only while the
runner does not listen to commands, annotations are relayed one by one, and outputs have random end marks.
"""
import json
import os
import re
import secrets
import shlex
import subprocess
import sys
import tempfile

FORMATS = ("sarif", "json", "text", "github", "gitlab", "junit", "markdown", "html")
WORST_FIRST = ("fails", "unknown", "degraded", "runs", "no-gpu-code")
ANNOTATION = re.compile(r"::(error|warning|notice) .*")
SUMMARY_BYTES = 900_000     # GitHub refuses a summary of more than 1 MiB, all of it


class Misuse(Exception):
    """Inputs that cannot be meant so."""


def value(name, default=""):
    """An input. What is empty was not set: GitHub does not tell the two apart."""
    return os.environ.get("INPUT_" + name.upper().replace("-", "_"), "").strip() or default


def lines(name):
    return [line.strip() for line in value(name).split("\n") if line.strip()]


def switch(name):
    said = value(name, "true").lower()
    if said not in ("true", "false"):
        raise Misuse(f"`{name}` is `{said}`, neither true nor false")
    return said == "true"


def images():
    if not value("path"):
        return lines("image")
    if value("image"):
        raise Misuse("both `image` and `path` are set; `path` is a file or directory in place of an image")
    path = os.path.abspath(value("path"))
    if not os.path.exists(path):
        raise Misuse(f"`path`: {path} does not exist")
    return [path]


def arguments(reports):
    """cudalint's arguments. `--NAME=VALUE` and `--` keep every value from being read as an option."""
    form, output = value("format", "sarif"), value("output")
    if form not in FORMATS:
        raise Misuse(f"`format: {form}` is none of {', '.join(FORMATS)}")
    wanted = [*reports.items(), ("text" if output or form == "sarif" else form, "-")]
    if output:
        os.makedirs(os.path.dirname(os.path.abspath(output)), exist_ok=True)
        wanted.append((form, output))
    options = [f"--output={form}={file}" for form, file in wanted]
    options += [f"--{name}={one}" for name in ("host-driver", "gpu") for one in lines(name)]
    for name in ("platform", "config", "username"):
        options += [f"--{name}={value(name)}"] if value(name) else []
    # As GitHub names files, so that annotations find theirs.
    options += [f"--dockerfile={os.path.relpath(value('dockerfile'))}"] if value("dockerfile") else []
    options += [f"--targets={value('targets-file')}"] if value("targets-file") else []
    # `error` is cudalint's default, too: not said here, so that a configuration file can be stricter.
    options += [f"--fail-on={value('fail-on')}"] if value("fail-on", "error") != "error" else []
    options += [f"--cache-dir={value('cache-dir')}"] if value("cache-dir") else ["--no-cache"]
    options += ["--password-stdin"] if value("password") else []
    try:
        options += shlex.split(value("args"))
    except ValueError as error:
        raise Misuse(f"`args` cannot be split: {error}") from error
    return ["check", *options, "--", *images()]


def inert(text):
    """Into the log, without a word of it being a command."""
    token = secrets.token_hex(16)
    print(f"::stop-commands::{token}\n{text}\n::{token}::", flush=True)


def annotate(message):
    escaped = message.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")
    print(f"::error title=cudalint::{escaped}", flush=True)


def read(path):
    try:
        with open(path, encoding="utf-8", errors="replace", newline="") as file:
            return file.read()
    except FileNotFoundError:       # cudalint ended before it had a report
        return ""


def summarize(text):
    """Appends to the job summary; what is too long is cut at the end of a line."""
    if len(text.encode()) > SUMMARY_BYTES:
        kept = text.encode()[:SUMMARY_BYTES].decode(errors="ignore")
        text = kept[:kept.rfind("\n")] + "\n\nThe rest is in the reports.\n"
    with open(os.environ["GITHUB_STEP_SUMMARY"], "a", encoding="utf-8") as file:
        file.write(text + "\n")


def figures(text):
    """The step outputs that the JSON report gives."""
    if not text:
        return {}
    document = json.loads(text)
    reports = document.get("reports", [document])
    verdicts = {target["verdict"] for report in reports for target in report["targets"]}
    levels = [f["level"] for report in reports for f in report["findings"] if not f["suppressed"]]
    needs = [report["requirements"] for report in reports]
    drivers = [need["min_driver"] for need in needs if need["min_driver"]]
    archs = [need["architectures"]["native"] for need in needs if need["architectures"]["native"]]
    return {
        "verdict": next((v for v in WORST_FIRST if v in verdicts), ""),
        "errors": levels.count("error"),
        "warnings": levels.count("warning"),
        # What suits all images: the highest of the lowest drivers, and the GPUs for which each has machine code.
        "min-driver": max(drivers, key=lambda v: [int(n) for n in v.split(".")], default=""),
        "gpu-archs": ",".join(a for a in archs[0] if all(a in other for other in archs)) if archs else "",
    }


def output(outputs):
    with open(os.environ["GITHUB_OUTPUT"], "a", encoding="utf-8") as file:
        for name, content in outputs.items():
            end = secrets.token_hex(16)
            file.write(f"{name}<<{end}\n{content}\n{end}\n")


def check():
    """Runs cudalint; the step outputs."""
    work = tempfile.mkdtemp(prefix="cudalint-", dir=os.environ["RUNNER_TEMP"])
    wanted = ["sarif", "json", *(["github"] if switch("annotations") else []), *(["markdown"] if switch("summary") else [])]
    reports = {form: os.path.join(work, f"cudalint.{form}") for form in wanted}
    command = [os.environ["BINARY"], *arguments(reports)]
    # Credential helpers and the like need not see the password.
    environment = {name: v for name, v in os.environ.items() if not name.startswith("INPUT_")}
    run = subprocess.run(command, input=os.environ["INPUT_PASSWORD"].encode(), env=environment, capture_output=True, check=False)
    said = run.stderr.decode(errors="replace")
    inert(run.stdout.decode(errors="replace") + said)
    code = run.returncode if run.returncode >= 0 else 128 - run.returncode
    if code not in (0, 1):
        annotate(said.strip() or f"cudalint ended with {code}")
    for line in re.split(r"[\r\n]+", read(reports.get("github", os.devnull))):
        if ANNOTATION.fullmatch(line):
            print(line, flush=True)
    if "markdown" in reports:
        summarize(read(reports["markdown"]))
    paths = {form: reports[form] if os.path.exists(reports[form]) else "" for form in ("sarif", "json")}
    return {"exit-code": code, **paths, **figures(read(reports["json"]))}


def main():
    sys.stdout.reconfigure(encoding="utf-8", errors="replace")
    try:
        output(check())
    except Misuse as error:
        annotate(str(error))
        output({"exit-code": 2})


if __name__ == "__main__":
    main()
