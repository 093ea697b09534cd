#!/usr/bin/env python3
"""Checks the locked dependencies against deny.toml: licences, banned crates, sources. What `cargo deny check licenses
bans sources` says, without installing it."""
import json
import re
import subprocess
import sys
import tomllib

rules = tomllib.load(open("deny.toml", "rb"))
allowed = set(rules["licenses"]["allow"])
banned = {entry["crate"]: entry["reason"] for entry in rules["bans"]["deny"]}
output = subprocess.run(["cargo", "metadata", "--format-version", "1", "--locked"], check=True, capture_output=True)
metadata = json.loads(output.stdout)
resolved = {node["id"] for node in metadata["resolve"]["nodes"]}


def fits(expression: str) -> bool:
    """SPDX: any alternative of an OR whose every AND part is allowed; `/` is the old spelling of OR."""
    text = expression.replace("/", " OR ").replace("(", " ").replace(")", " ")
    alternatives = re.split(r"\s+OR\s+", text.strip())
    return any(all(part.strip() in allowed for part in re.split(r"\s+AND\s+", a)) for a in alternatives)


problems = []
packages = [p for p in metadata["packages"] if p["id"] in resolved]
for package in packages:
    name = f"{package['name']} {package['version']}"
    if package["name"] in banned:
        problems.append(f"{name} is banned: {banned[package['name']]}")
    if not package.get("license") and not package.get("license_file"):
        problems.append(f"{name} states no licence")
    elif package.get("license") and not fits(package["license"]):
        problems.append(f"{name} has the licence {package['license']}, which deny.toml does not allow")
    source = package.get("source")
    if source is not None and not source.startswith("registry+https://github.com/rust-lang/crates.io-index"):
        problems.append(f"{name} comes from {source}")
for problem in problems:
    print(problem)
print(f"deny: {len(packages)} crates, {len(problems)} problems")
sys.exit(1 if problems else 0)
