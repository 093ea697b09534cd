"""A composite action's action.yml -> what GitHub's runner would do with it, as far as the action can tell.

Not a test of its own. Runs `run:` steps in order with the runner's files and variables, evaluates the expressions that
the action uses, listens to workflow commands in the log as the runner does (stop-commands and the old `##[…]` form
included), and plays actions/cache and upload-sarif.
"""
import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

TOKEN = re.compile(r"\s*(?:'((?:[^']|'')*)'|(&&|\|\||==|!=|!|[()])|([\w-]+)\(\)|([\w.-]+))\s*")
HEREDOC = re.compile(r"([^=<\n]+)<<(.+)$")
COMMANDS = {"error", "warning", "notice", "debug", "group", "endgroup", "add-mask", "add-path", "set-env", "set-output",
            "save-state", "stop-commands", "echo", "add-matcher", "remove-matcher", "internal-set-repo-path"}


class Text(str):
    """A string of an expression: compared without regard to case."""

    def __eq__(self, other):
        return str.lower(self) == str.lower(other)

    def __ne__(self, other):
        return not self == other

    __hash__ = None


class Run:
    """What a run of the action left behind."""

    def __init__(self):
        self.log, self.commands, self.steps, self.uploads, self.saved, self.failed = "", [], {}, [], [], None
        self.outputs, self.summary, self.job_files = {}, "", ""

    def annotations(self, level=None):
        return [c for c in self.commands if c[0] in ("error", "warning", "notice") and level in (None, c[0])]


def properties(text):
    """`file=a,line=3` of a workflow command, unescaped."""
    out = {}
    for pair in filter(None, text.strip().split(",")):
        name, _, value = pair.partition("=")
        for code, char in (("%0D", "\r"), ("%0A", "\n"), ("%3A", ":"), ("%2C", ","), ("%25", "%")):
            value = value.replace(code, char)
        out[name] = value
    return out


def commands(log):
    """The workflow commands that the runner would act on, as (name, properties, message), and a stop token still pending."""
    found, token = [], None
    for line in re.split(r"\r\n|\r|\n", log):
        new = re.match(r"\s*::([^ :]+)(?: (.*?))?::(.*)$", line)
        old = re.search(r"##\[([^ \]]+)(?: ([^\]]*))?\](.*)$", line)
        for m in (new, old):
            if not m or (m[1].lower() not in COMMANDS and m[1] != token):
                continue
            if token:
                token = None if m[1] == token else token
            elif m[1] == "stop-commands":
                token = m[3]
            else:
                found.append((m[1].lower(), properties(m[2] or ""), m[3]))
            break
    return found, token


def pairs(text):
    """GITHUB_OUTPUT as the runner reads it; raises where the runner would."""
    out, rows = {}, iter(text.splitlines())
    for row in rows:
        if m := HEREDOC.match(row):
            value = []
            for line in rows:
                if line == m[2]:
                    break
                value.append(line)
            else:
                raise ValueError(f"no end mark for {m[1]}")
            out[m[1]] = "\n".join(value)
        elif row:
            name, equals, value = row.partition("=")
            if not equals:
                raise ValueError(f"unreadable line {row!r}")
            out[name] = value
    return out


class Runner:
    """One job's runner: a workspace, a home, a cache service."""

    def __init__(self, definition, action, root, workspace):
        self.definition, self.action, self.workspace = definition, Path(action), Path(workspace)
        self.root, self.cache, self.runs = Path(root), {}, 0
        self.github = {"repository": "me/train", "action_repository": "owner/cudalint", "actor": "me", "sha": "0" * 40}
        for name in ("home", "temp", "cache"):
            (self.root / name).mkdir(parents=True, exist_ok=True)

    def evaluate(self, expression, context):
        code = ""
        for m in TOKEN.finditer(expression):
            if m[1] is not None:
                code += f"Text({m[1]!r})"
            elif m[2]:
                code += {"&&": " and ", "||": " or ", "!": " not "}.get(m[2], m[2])
            elif m[3]:
                code += {"always": "True", "success": f"({not context['failed']})"}[m[3]]
            else:
                code += f"Text({context.get(m[4], '')!r})"
        return eval(code, {"Text": Text})

    def fill(self, text, context):
        return re.sub(r"\$\{\{(.*?)\}\}", lambda m: str(self.evaluate(m[1], context)), str(text))

    def wanted(self, step, context):
        condition = step.get("if", "success()")
        condition = re.sub(r"^\$\{\{(.*)\}\}$", r"\1", str(condition))
        if "always()" not in condition and "success()" not in condition:
            condition = f"success() && ({condition})"
        return bool(self.evaluate(condition, context))

    def run(self, inputs=None, env=None, path=None):
        """All steps with these inputs; `path` goes before PATH."""
        self.runs += 1
        result = Run()
        context = {f"github.{k}": v for k, v in self.github.items()} | {"runner.os": "Linux", "failed": False}
        context["github.run_id"] = str(1000 + self.runs)
        declared = self.definition["inputs"]
        assert set(inputs or {}) <= set(declared), "an input that action.yml does not have"
        for name, about in declared.items():
            given = (inputs or {}).get(name, about.get("default", ""))
            context[f"inputs.{name}"] = str(given).lower() if isinstance(given, bool) else str(given)
        for number, step in enumerate(self.definition["runs"]["steps"]):
            key = step.get("id", f"step{number}")
            if not self.wanted(step, context):
                result.steps[key] = "skipped"
                continue
            if "uses" in step:
                good = self.use(step, context, result)
            else:
                good = self.shell(step, key, context, result, env or {}, path)
            result.steps[key] = context[f"steps.{key}.outcome"] = "success" if good else "failure"
            if not good:
                result.failed, context["failed"] = result.failed or key, True
        result.outputs = {n: self.fill(o["value"], context) for n, o in self.definition["outputs"].items()}
        return result

    def use(self, step, context, result):
        action = step["uses"].split("@")[0]
        given = {k: self.fill(v, context) for k, v in step.get("with", {}).items()}
        if action == "github/codeql-action/upload-sarif":
            result.uploads.append(Path(given["sarif_file"]).read_text())
        elif action == "actions/cache/restore":
            keys = [given["key"], *given["restore-keys"].split()]
            held = next((k for want in keys for k in reversed(self.cache) if k.startswith(want)), None)
            if held:
                shutil.copytree(self.cache[held], given["path"], dirs_exist_ok=True)
        elif action == "actions/cache/save":
            kept = self.root / "cache" / given["key"]
            result.saved.append(given["key"])
            if Path(given["path"]).is_dir():
                self.cache[given["key"]] = shutil.copytree(given["path"], kept, dirs_exist_ok=True)
        else:
            raise AssertionError(f"unknown action {action}")
        return True

    def shell(self, step, key, context, result, env, path):
        assert step["shell"] == "bash"
        with tempfile.TemporaryDirectory(dir=self.root) as t:
            t = Path(t)
            files = {n: t / n for n in ("GITHUB_OUTPUT", "GITHUB_STEP_SUMMARY", "GITHUB_ENV", "GITHUB_PATH", "GITHUB_STATE")}
            for file in files.values():
                file.touch()
            (t / "script.sh").write_text(step["run"])
            whole = {"PATH": ":".join(filter(None, [path, os.environ["PATH"]])),
                     "HOME": str(self.root / "home"), "LC_ALL": "C.UTF-8", "RUNNER_TEMP": str(self.root / "temp"),
                     "RUNNER_OS": "Linux", "RUNNER_ARCH": "X64", "GITHUB_ACTIONS": "true", "CI": "true",
                     "GITHUB_ACTION_PATH": str(self.action), "GITHUB_WORKSPACE": str(self.workspace),
                     "GITHUB_REPOSITORY": "me/train", **{n: str(f) for n, f in files.items()}, **env,
                     **{n: self.fill(v, context) for n, v in step.get("env", {}).items()}}
            p = subprocess.run(["bash", "--noprofile", "--norc", "-eo", "pipefail", t / "script.sh"], env=whole,
                               cwd=self.workspace, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
            log = p.stdout.decode(errors="replace")
            found, pending = commands(log)
            assert pending is None, "a step ended without listening to commands again"
            result.log += log
            result.commands += found
            for name, value in pairs(files["GITHUB_OUTPUT"].read_text()).items():
                context[f"steps.{key}.outputs.{name}"] = value
            result.summary += files["GITHUB_STEP_SUMMARY"].read_text()
            result.job_files += "".join(files[n].read_text() for n in ("GITHUB_ENV", "GITHUB_PATH", "GITHUB_STATE"))
        return p.returncode == 0
