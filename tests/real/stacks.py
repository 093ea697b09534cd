#!/usr/bin/env python3
"""Turns package names of GPU Python stacks into root file systems, and these into measured truth about their libraries.

    stacks.py --work DIR [--only root|truth|versions] STACK...

The stacks are the names in STACKS below.  DIR gets
    base/               a Debian 12 with python3.11
    NAME/               base plus the stack's packages in /usr/local/lib/python3.11/dist-packages (hard links)
    NAME.env.json       the environment that an image of it would have, a list of K=V
    NAME.truth.json     "loader": what the root's own ld.so finds for every library that has to do with CUDA, and the
                        undefined symbols that matter; "imports": what real imports map, and how they fail;
                        "dlopen": what a library beside a given one, with the same run path, gets for a name;
                        "errors": what loading single libraries says
    extra/NAME-VERSION/ single wheels, unpacked
    versions.json       what the version functions of the libraries answer

All of it comes from programs that are not cudalint: ld.so, python3.11 and the libraries themselves, in a chroot, on a
machine without a GPU.  Needs root, Linux on x86_64, uv, debootstrap, gcc, readelf, and 45 GB for all the stacks.
Python 3.11+, standard library only.
"""
import argparse
import concurrent.futures
import hashlib
import json
import os
import re
import shutil
import struct
import subprocess
import sys
import tempfile
from pathlib import Path

SUITE = "bookworm"
PACKAGES = ("libc6 libstdc++6 libgcc-s1 zlib1g libgomp1 libexpat1 libssl3 libffi8 libbz2-1.0 liblzma5 libsqlite3-0 libreadline8 "
            "libncursesw6 libtinfo6 libuuid1 libdb5.3 python3.11-minimal python3.11 libpython3.11-stdlib base-files libc-bin").split()
PYTHON = "3.11"
PLATFORM = "x86_64-manylinux_2_28"
SITE = f"usr/local/lib/python{PYTHON}/dist-packages"
NVIDIA = f"/{SITE}/nvidia"
PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

TORCH_ASK = """
import torch
answer = {"torch": torch.__version__, "cuda": torch.version.cuda}
for k, f in (("is_available", lambda: torch.cuda.is_available()), ("cudnn", lambda: torch.backends.cudnn.version()),
             ("nccl", lambda: torch.cuda.nccl.version()), ("cusparselt", lambda: torch._C._cusparselt.getVersionInt()),
             ("cudart", lambda: torch._C._cuda_getCompiledVersion())):
    try:
        answer[k] = f()
    except Exception as e:
        answer[k] = type(e).__name__ + ": " + str(e)
"""
TORCH = {"import torch": "import torch", "import torch; torch._C": "import torch; torch._C", "torch versions": TORCH_ASK}
CDLL = "import ctypes; ctypes.CDLL({!r})"
# An empty library in place of the driver's, so that what else is missing shows; in a file that goes away.
NO_DRIVER = "import ctypes; ctypes.CDLL('/mnt/empty/libcuda.so.1')\n"
# ctypes adds RTLD_NOW, cuDNN itself opens its libraries with RTLD_LAZY.
LAZY = """
import ctypes
c = ctypes.CDLL(None)
c.dlopen.restype = ctypes.c_void_p
c.dlerror.restype = ctypes.c_char_p
c.dlsym.restype = ctypes.c_void_p
c.dlsym.argtypes = [ctypes.c_void_p, ctypes.c_char_p]
def load(p):
    h = c.dlopen(p.encode(), 1 | 0x100)
    if not h:
        raise OSError(c.dlerror().decode())
    return lambda f: ctypes.CFUNCTYPE(ctypes.c_size_t)(c.dlsym(h, f.encode()))()
"""
CUDNN = f"{NVIDIA}/cudnn/lib"
OTHER_CUDNN = "/usr/local/cuda/lib64"


def graph_and_ops(graph, ops):
    now = (f"import ctypes\ng = ctypes.CDLL('{graph}/libcudnn_graph.so.9', ctypes.RTLD_GLOBAL)\no = ctypes.CDLL('{ops}/libcudnn_ops.so.9')\n"
           "answer = {'cudnnGetVersion': g.cudnnGetVersion(), 'cudnnOpsVersionCheck': o.cudnnOpsVersionCheck()}")
    lazy = (LAZY + f"g = load('{graph}/libcudnn_graph.so.9')\no = load('{ops}/libcudnn_ops.so.9')\n"
            "answer = {'cudnnGetVersion': g('cudnnGetVersion'), 'cudnnOpsVersionCheck': o('cudnnOpsVersionCheck')}")
    return now, lazy


GRAPH_OPS = {f"graph of {g}, ops of {o}, {how}": code
             for g, o in ((CUDNN, OTHER_CUDNN), (OTHER_CUDNN, CUDNN), (OTHER_CUDNN, OTHER_CUDNN)) for how, code in zip(("RTLD_NOW", "RTLD_LAZY"), graph_and_ops(g, o))}

# pip: what to install; of: the stack to start from instead of base; add: wheels whose libraries go to a folder of the
# root; env: more of the image's environment; imports: name -> Python code; dlopen: (library, names that it opens).
STACKS = {
    "ort": dict(
        pip=["onnxruntime-gpu[cuda,cudnn]==1.31.1"],
        imports={
            "import onnxruntime": "import onnxruntime",
            "onnxruntime.preload_dlls()": "import onnxruntime; onnxruntime.preload_dlls()",
            "import onnxruntime; CDLL providers_cuda": "import onnxruntime\n" + CDLL.format(f"/{SITE}/onnxruntime/capi/libonnxruntime_providers_cuda.so"),
            "preload_dlls(); CDLL providers_cuda":
                "import onnxruntime; onnxruntime.preload_dlls()\n" + CDLL.format(f"/{SITE}/onnxruntime/capi/libonnxruntime_providers_cuda.so"),
        },
        errors={
            "providers_shared": CDLL.format(f"/{SITE}/onnxruntime/capi/libonnxruntime_providers_shared.so"),
            "providers_cuda": CDLL.format(f"/{SITE}/onnxruntime/capi/libonnxruntime_providers_cuda.so"),
            "providers_cuda after providers_shared":
                f"import ctypes; ctypes.CDLL('/{SITE}/onnxruntime/capi/libonnxruntime_providers_shared.so', ctypes.RTLD_GLOBAL)\n"
                + CDLL.format(f"/{SITE}/onnxruntime/capi/libonnxruntime_providers_cuda.so"),
            "preload_dlls(), an empty libcuda.so.1, then providers_cuda":
                "import onnxruntime; onnxruntime.preload_dlls()\n" + NO_DRIVER + CDLL.format(f"/{SITE}/onnxruntime/capi/libonnxruntime_providers_cuda.so"),
            "an empty libcuda.so.1, then providers_cuda": NO_DRIVER + CDLL.format(f"/{SITE}/onnxruntime/capi/libonnxruntime_providers_cuda.so"),
            "providers_tensorrt": CDLL.format(f"/{SITE}/onnxruntime/capi/libonnxruntime_providers_tensorrt.so"),
        }),
    "jax": dict(
        pip=["jax[cuda12]==0.10.2"],
        imports={
            "import jax": "import jax",
            "import jax_plugins.xla_cuda12": "import jax_plugins.xla_cuda12",
            "jax_plugins.xla_cuda12.initialize()": "import jax\nimport jax_plugins.xla_cuda12 as p\np.initialize()",
            "jax.devices()": "import jax\nanswer = str(jax.devices())",
        }),
    "torch-new": dict(pip=["torch==2.15.0"], imports=TORCH),
    "tf": dict(
        pip=["tensorflow[and-cuda]==2.21.0"],
        imports={
            "import tensorflow": "import tensorflow",
            "tf.config.list_physical_devices": "import tensorflow as tf\nanswer = str(tf.config.list_physical_devices())",
        },
        dlopen=([f"{SITE}/tensorflow/libtensorflow_framework.so.2", f"{SITE}/tensorflow/libtensorflow_cc.so.2"], "import tensorflow",
                "libcudart.so.12 libcublas.so.12 libcublasLt.so.12 libcudnn.so.9 libcufft.so.11 libcurand.so.10 libcusolver.so.11 libcusparse.so.12 "
                "libnccl.so.2 libcupti.so.12 libnvJitLink.so.12 libnvrtc.so.12 libnvinfer.so.10 libcuda.so.1".split())),
    "torch-mid": dict(pip=["torch==2.5.1"], imports=TORCH),
    "torch-old": dict(pip=["torch==1.13.1"], imports=TORCH),
    "shadow": dict(
        of="torch-mid", add={"usr/local/cuda-12.1/lib64": ["nvidia-cublas-cu12==12.1.3.1", "nvidia-nvjitlink-cu12==12.1.105"]},
        env=["LD_LIBRARY_PATH=/usr/local/cuda-12.1/lib64"], imports=TORCH,
        errors={
            "cusparse": CDLL.format(f"{NVIDIA}/cusparse/lib/libcusparse.so.12"),
            "cusolver": CDLL.format(f"{NVIDIA}/cusolver/lib/libcusolver.so.11"),
            "cublas": CDLL.format(f"{NVIDIA}/cublas/lib/libcublas.so.12"),
            "torch_cuda": CDLL.format(f"/{SITE}/torch/lib/libtorch_cuda.so"),
        }),
    "cudnn-mix": dict(
        of="torch-mid", add={"usr/local/cuda/lib64": ["nvidia-cudnn-cu12==9.5.1.17"]},
        env=["LD_LIBRARY_PATH=/usr/local/cuda/lib64"], imports=TORCH,
        errors={
            **GRAPH_OPS,
            "checks through libcudnn.so.9 of the wheel":
                f"import ctypes\nl = ctypes.CDLL('{CUDNN}/libcudnn.so.9')\nanswer = {{'cudnnGetVersion': l.cudnnGetVersion()}}\n"
                "for x in 'Graph Ops Cnn Adv'.split(): answer['cudnn' + x + 'VersionCheck'] = getattr(l, 'cudnn' + x + 'VersionCheck')()",
        }),
    "vllm": dict(
        pip=["vllm==0.7.3"],
        imports={**TORCH, "import torchvision": "import torchvision", "import vllm": "import vllm", "import vllm._C": "import torch\nimport vllm._C",
                 "import vllm._moe_C": "import torch\nimport vllm._moe_C"}),
}

# Single wheels for versions.json.
EXTRA = """
nvidia-cublas-cu11==11.11.3.6 nvidia-cublas-cu12==12.1.3.1 nvidia-cusparselt-cu12==0.6.3 nvidia-cusparselt-cu12==0.7.1 cutensor-cu12==2.0.2
cutensor-cu12==2.2.0 nvidia-nvjpeg-cu12==12.3.1.117 nvidia-nvjpeg-cu12==12.4.0.76 nvidia-npp-cu12==12.2.5.30 nvidia-npp-cu12==12.4.1.87
nvidia-cufile-cu12==1.11.1.6 nvidia-cufile-cu12==1.14.1.1 nvidia-cudss-cu12==0.4.0.2 nvidia-cudss-cu12==0.6.0.5 nvidia-nvcomp-cu12==4.1.1.1
nvidia-nvcomp-cu12==4.2.0.14 nvidia-nvshmem-cu12==3.1.7 nvidia-nvshmem-cu12==3.3.9 nvidia-nccl-cu11==2.21.5 nvidia-nccl-cu12==2.26.2
nvidia-cudnn-cu11==8.9.6.50 nvidia-cudnn-cu12==8.9.7.29 nvidia-cudnn-cu12==9.5.1.17 nvidia-cuda-cupti-cu11==11.8.87 nvidia-cuda-cupti-cu12==12.1.105
nvidia-cuda-nvrtc-cu11==11.8.89 nvidia-cuda-nvrtc-cu12==12.1.105 nvidia-nvjitlink-cu12==12.1.105 nvidia-nvjitlink-cu12==12.8.93
nvidia-cuda-runtime-cu11==11.8.89 nvidia-cuda-runtime-cu12==12.1.105 nvidia-cufft-cu11==10.9.0.58 nvidia-curand-cu11==10.3.0.86
nvidia-cusolver-cu11==11.4.1.48 nvidia-cusparse-cu11==11.7.5.86 libucx-cu12==1.17.0 libucx-cu12==1.18.1 nvidia-nvtx-cu11==11.8.86 nvidia-nvtx-cu12==12.4.127
nvidia-dali-cuda120==2.4.0
""".split()

# A library is looked at when its own name or a DT_NEEDED of it looks like this.
WANTED = re.compile(r"^(lib)?(cu|nv|nccl|npp|torch|c10|onnxruntime|xla|tensorflow|jax|ucx|ucp|caffe2|shm|triton|cutensor|_pywrap_tensorflow)", re.I)
CUDA_SONAME = re.compile(r"^lib(cu|nv|nccl|npp)\S*\.so")
TORCH_SYMBOL = re.compile(r"^_ZN[KV]?(3c10|2at|5torch)")


def log(*a):
    print(*a, file=sys.stderr, flush=True)


def run(cmd, **kw):
    kw.setdefault("check", True)
    return subprocess.run([str(c) for c in cmd], **kw)


def uv_install(work, target, packages, *more):
    run(["uv", "pip", "install", "-q", "--python-version", PYTHON, "--python-platform", PLATFORM, "--target", target, "--link-mode", "hardlink", *more, *packages],
        env={**os.environ, "UV_CACHE_DIR": str(work / "uvcache")})


def write_json(p, x):
    p.write_text(json.dumps(x, indent=1, sort_keys=True) + "\n")


# ------------------------------------------------------------------------------------------------------ root file systems
def make_base(work):
    d = work / "base"
    if (work / "base.installed").exists():
        return d
    shutil.rmtree(d, ignore_errors=True)
    run(["debootstrap", "--variant=minbase", "--include=" + ",".join(PACKAGES), SUITE, d], stdout=subprocess.DEVNULL)
    for g in ("var/cache/apt/archives/*.deb", "var/lib/apt/lists/*", "var/cache/apt/*.bin", "var/log/*.log"):
        for p in d.glob(g):
            shutil.rmtree(p) if p.is_dir() else p.unlink()
    run(["ldconfig", "-r", d])
    run(["chroot", d, "/usr/bin/python3.11", "-c", "print(1)"], stdout=subprocess.DEVNULL)
    (work / "base.installed").touch()
    return d


def make_root(work, name):
    s, root = STACKS[name], work / name
    write_json(work / f"{name}.env.json", [PATH, *s.get("env", [])])
    if (work / f"{name}.installed").exists():
        return root
    shutil.rmtree(root, ignore_errors=True)
    run(["cp", "-al", make_root(work, s["of"]) if "of" in s else make_base(work), root])
    if "pip" in s:
        uv_install(work, root / SITE, s["pip"])
    for folder, wheels in s.get("add", {}).items():
        (root / folder).mkdir(parents=True, exist_ok=True)
        for w in wheels:
            for p in sorted(extra(work, w).rglob("*.so*")):
                os.link(p, root / folder / p.name)
    (work / f"{name}.installed").touch()
    return root


def extra(work, wheel):
    d = work / "extra" / wheel.replace("==", "-")
    if not d.exists():
        part = d.with_name(d.name + ".part")
        shutil.rmtree(part, ignore_errors=True)
        uv_install(work, part, [wheel], "--no-deps")
        part.rename(d)
    return d


# -------------------------------------------------------------------------------------------------------------------- ELF
def elf_facts(p):
    """type, needed, soname, rpath, runpath of a 64-bit little-endian ELF file for x86_64; None for any other file."""
    with open(p, "rb") as f:
        h = f.read(64)
        if len(h) < 64 or h[:6] != b"\x7fELF\x02\x01":
            return None
        kind, machine = struct.unpack_from("<HH", h, 16)
        phoff, = struct.unpack_from("<Q", h, 32)
        phsize, phnum = struct.unpack_from("<HH", h, 54)
        if machine != 62 or kind not in (2, 3):
            return None
        f.seek(phoff)
        t = f.read(phsize * phnum)
        ph = [struct.unpack_from("<IIQQQQ", t, i * phsize) for i in range(phnum)]

        def at(va, n):
            for x in ph:
                if x[0] == 1 and x[3] <= va < x[3] + x[5]:
                    f.seek(x[2] + va - x[3])
                    return f.read(n)
            return b""

        dyn = []
        for x in ph:
            if x[0] == 2:
                f.seek(x[2])
                for tag, v in struct.iter_unpack("<qQ", f.read(x[5] // 16 * 16)):
                    if tag == 0:
                        break
                    dyn.append((tag, v))
        d = dict(dyn)
        text = at(d.get(5, 0), d.get(10, 0)) if 5 in d else b""

        def s(o):
            return text[o:text.find(b"\0", o)].decode("utf-8", "replace")

        one = {n: s(d[tag]) for n, tag in (("soname", 14), ("rpath", 15), ("runpath", 29)) if tag in d}
        return {"type": kind, "dynamic": bool(dyn), "needed": [s(v) for tag, v in dyn if tag == 1], **one}


def elf_files(root):
    """Every regular ELF file of a root: (path in it, facts)."""
    for dp, dn, fn in os.walk(root):
        if Path(dp) == root:
            dn[:] = [x for x in dn if x not in ("proc", "sys", "dev", "tmp")]
        dn.sort()
        for n in sorted(fn):
            p = os.path.join(dp, n)
            if not os.path.islink(p) and os.path.isfile(p) and (e := elf_facts(p)):
                yield "/" + os.path.relpath(p, root), e


# ----------------------------------------------------------------------------------------------------------------- loader
# LD_* is for the traced loader only, so it is set after the chroot.
LOADER_CODE = "import os,sys\nroot,ld,p=sys.argv[1:4]\nos.chroot(root);os.chdir('/')\nenv=dict(a.split('=',1) for a in sys.argv[4:])\nos.execve(ld,[ld,p],env)\n"


def trace(root, path, env):
    r = run([sys.executable, "-c", LOADER_CODE, root, "/lib64/ld-linux-x86-64.so.2", path, *env], check=False, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            text=True, errors="replace", timeout=600)
    libs, twice, undefined, errors = {}, set(), set(), []
    for line in (r.stdout + r.stderr).splitlines():
        if m := re.match(r"\t(\S+) => (not found|\S+)", line):
            # a name can be missing for one library and found through the run path of a later one
            if m[1] in libs and "not found" in (libs[m[1]], m[2]) and libs[m[1]] != m[2]:
                twice.add(m[1])
            if m[2] != "not found" or m[1] not in libs:
                libs[m[1]] = m[2] if m[2] == "not found" else os.path.normpath(m[2])
        elif m := re.search(r"undefined symbol: ([^\s,]+)(?:, version (\S+))?\s+\((\S+)\)", line):
            undefined.add((m[1], m[2] or "", os.path.normpath(m[3])))
        elif m := re.search(r"symbol ([^\s,]+), version (\S+) not defined in file (\S+) with link time reference\s+\((\S+)\)", line):
            undefined.add((m[1], m[2], os.path.normpath(m[4])))
        elif not re.match(r"\t(\S+ \(0x|statically linked)", line) and line.strip():
            errors.append(line.strip()[:300])
    return r.returncode, libs, undefined, errors, sorted(twice)


def loader(root, env):
    le = [e for e in env if e.startswith("LD_")]
    found = [(p, e) for p, e in elf_files(root)
             if e["type"] == 3 and e["dynamic"] and not os.path.basename(p).startswith("ld-linux") and any(WANTED.match(n) for n in [os.path.basename(p), *e["needed"]])]

    def one(pe):
        p, e = pe
        o = {"needed": e["needed"], **{k: e[k] for k in ("soname", "rpath", "runpath") if k in e}}
        warn = ["LD_TRACE_LOADED_OBJECTS=1", "LD_WARN=yes", *le]
        code, o["libs"], lazy, errors, twice = trace(root, p, warn)
        if code:
            o["exit"] = code
        if errors:
            o["errors"] = errors[:12]
        if twice:
            o["also_not_found"] = twice
        _, libs, undefined, *_ = trace(root, p, [*warn, "LD_BIND_NOW=yes"])
        assert libs == o["libs"], p
        keep = sorted(u for u in undefined if CUDA_SONAME.match(u[1]) or TORCH_SYMBOL.match(u[0]))
        if keep:
            o["undefined_count"] = len(keep)
            o["undefined"] = [dict(zip(("symbol", "version", "file"), u)) for u in keep[:12]]
            if at_once := sorted(u for u in lazy if u in keep):
                o["undefined_without_bind_now_count"] = len(at_once)
        return p, o

    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as ex:
        return dict(ex.map(one, found))


# ---------------------------------------------------------------------------------------------------------------- imports
# Runs code in the image's python, then says what is mapped.  argv: code.
PROBE = r"""
import sys, json
g, out = {"__name__": "probe"}, {"ok": True}
try:
    exec(sys.argv[1], g)
except BaseException as e:
    out = {"ok": False, "exception": type(e).__name__, "text": str(e)}
    c = e.__cause__ or e.__context__
    if c is not None:
        out["cause"] = type(c).__name__ + ": " + str(c)
if "answer" in g:
    out["answer"] = g["answer"]
m = set()
for l in open("/proc/self/maps"):
    p = l.split(None, 5)[5:]
    if p and ".so" in p[0].rsplit("/", 1)[-1]:
        m.add(p[0].strip())
out["mapped"] = sorted(m)
sys.stdout.flush()
print("\nPROBE " + json.dumps(out, default=str), flush=True)
import os
os._exit(0)
"""
# proc, and a /tmp for what a probe leaves, are mounted in a mount namespace of its own, which goes away with the process.  argv: root, environment..., --, command...
CHROOT = ("import os,sys\ni=sys.argv.index('--')\nos.chroot(sys.argv[1]);os.chdir('/')\n"
          "os.execve(sys.argv[i+1],sys.argv[i+1:],dict(a.split('=',1) for a in sys.argv[2:i]))\n")


def in_root(root, env, command, timeout=900):
    return run(["unshare", "-m", "--propagation", "private", "sh", "-c", 'mount -t proc proc "$1/proc" && mount -t tmpfs tmpfs "$1/tmp" && py=$2 code=$3 && shift 3 && exec "$py" -c "$code" "$@"', "sh",
                root, sys.executable, CHROOT, root, *env, "HOME=/tmp", "PYTHONDONTWRITEBYTECODE=1", "--", *command],
               check=False, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, errors="replace", timeout=timeout)


def probe(root, env, code):
    r = in_root(root, env, ["/usr/bin/python3.11", "-c", PROBE, code])
    m = re.search(r"^PROBE (.*)$", r.stdout, re.M)
    o = {"code": code.strip(), "exit": r.returncode, **(json.loads(m[1]) if m else {"ok": False})}
    if tail := [x[:400] for x in r.stderr.splitlines() if x.strip()][-12:]:
        o["stderr_tail"] = tail
    return o


def dlopen_truth(root, env, libraries, first, names):
    """What a library beside each of `libraries`, with the same run path, gets when it opens `names`."""
    source = """
#define _GNU_SOURCE
#include <dlfcn.h>
#include <link.h>
const char *probe_open(const char *n) {
  void *h = dlopen(n, RTLD_NOW | RTLD_LOCAL);
  struct link_map *m;
  if (!h) return dlerror();
  return dlinfo(h, RTLD_DI_LINKMAP, &m) ? "dlinfo failed" : m->l_name;
}
"""
    out = {}
    for lib in libraries:
        if not (root / lib).exists():
            continue
        e = elf_facts(root / lib)
        here = (root / lib).parent / "libprobe_open.so"
        flags = ["-Wl,--enable-new-dtags,-rpath," + e["runpath"]] if "runpath" in e else ["-Wl,--disable-new-dtags,-rpath," + e["rpath"]] if "rpath" in e else []
        with tempfile.TemporaryDirectory() as t:
            (Path(t) / "p.c").write_text(source)
            run(["gcc", "-shared", "-fPIC", "-o", here, Path(t) / "p.c", *flags, "-ldl"])
        try:
            o = {k: e[k] for k in ("rpath", "runpath") if k in e}
            for label, before in (("alone", ""), ("after " + first, first + "\n")):
                each = {}
                for n in names:
                    # one process for a name, as an opened library answers the next by its soname
                    code = (f"{before}import ctypes, os\nl = ctypes.CDLL('/{lib.rsplit('/', 1)[0]}/libprobe_open.so')\nl.probe_open.restype = ctypes.c_char_p\n"
                            f"answer = os.path.normpath(l.probe_open({n.encode()!r}).decode())")
                    if before:
                        # the import takes long: all names in one process, which is also what the program does
                        code = code.replace(f"answer = os.path.normpath(l.probe_open({n.encode()!r}).decode())",
                                            f"answer = {{n: os.path.normpath(l.probe_open(n.encode()).decode()) for n in {names!r}}}")
                        each = probe(root, env, code).get("answer", {})
                        break
                    each[n] = probe(root, env, code).get("answer")
                o[label] = each
            out["/" + lib] = o
        finally:
            here.unlink()
    return out


def truth(work, name):
    s, root = STACKS[name], work / name
    env = json.loads((work / f"{name}.env.json").read_text())
    t = {"stack": name, "env": env, "packages": sorted(p.name.removesuffix(".dist-info").replace("-", " ", 1) for p in (root / SITE).glob("*.dist-info"))}
    t["imports"] = {k: probe(root, env, code) for k, code in s.get("imports", {}).items()}
    empty = root / "mnt/empty"
    empty.mkdir()
    try:
        run(["gcc", "-shared", "-nostdlib", "-xc", "/dev/null", "-o", empty / "libcuda.so.1", "-Wl,-soname,libcuda.so.1"])
        t["errors"] = {k: probe(root, env, code) for k, code in s.get("errors", {}).items()}
    finally:
        shutil.rmtree(empty)
    if "dlopen" in s:
        t["dlopen"] = dlopen_truth(root, env, *s["dlopen"])
    write_json(work / f"{name}.truth.json", t)
    t["loader"] = loader(root, env)
    write_json(work / f"{name}.truth.json", t)


# --------------------------------------------------------------------------------------------------------------- versions
# Each function is asked in a process of its own: argv: library, function, how, libraries to load before.  Prints JSON.
ASK = r"""
import ctypes as C, json, os, sys
path, name, how, *before = sys.argv[1:]
for b in before:
    C.CDLL(b, C.RTLD_GLOBAL)
lib = C.CDLL(path, C.RTLD_GLOBAL if how == "status" else C.RTLD_LOCAL)
try:
    f = getattr(lib, name)
except AttributeError:
    print("NONE")
    sys.exit(0)
class Info(C.Structure):
    _fields_ = [("fname", C.c_char_p), ("fbase", C.c_void_p), ("sname", C.c_char_p), ("saddr", C.c_void_p)]
i = Info()
C.CDLL(None).dladdr(C.cast(f, C.c_void_p), C.byref(i))
if os.path.realpath(i.fname.decode()) != os.path.realpath(path):
    print("NONE")
    sys.exit(0)
def p(n, t=C.c_int):
    v = [t(-7) if t is C.c_int else t(0) for _ in range(n)]
    r = f(*[C.byref(x) for x in v])
    return [x.value for x in v] if r == 0 else {"status": r}
def prop():
    o = []
    for k in range(3):
        v = C.c_int(-7)
        r = f(k, C.byref(v))
        if r:
            return {"status": r}
        o.append(v.value)
    return o
if how == "size_t":
    f.restype = C.c_size_t; a = f()
elif how == "int":
    a = f()
elif how == "status":
    a = {"status": f()}
elif how == "text":
    f.restype = C.c_char_p; a = f().decode()
elif how == "out1":
    a = p(1); a = a[0] if isinstance(a, list) else a
elif how == "out2":
    a = p(2)
elif how == "out4":
    a = p(4)
elif how == "void3":
    f.restype = None; v = [C.c_int(-7) for _ in range(3)]; f(*[C.byref(x) for x in v]); a = [x.value for x in v]
elif how == "prop":
    a = prop()
elif how == "struct3":
    f.restype = C.POINTER(C.c_int * 3); a = list(f().contents)
elif how == "struct2":
    v = (C.c_uint32 * 16)(); r = f(C.byref(v)); a = list(v[:2]) if r == 0 else {"status": r}
print("ANSWER " + json.dumps(a), flush=True)
os._exit(0)
"""


def d3(n):
    return f"{n // 10000}.{n // 100 % 100}.{n % 100}"


def d3k(n):
    return f"{n // 1000}.{n // 100 % 10}.{n % 100}"


def cuda(n):
    return f"{n // 1000}.{n % 1000 // 10}"


def cudnn(n):
    return d3(n) if n >= 90000 else d3k(n)


def dotted(a):
    return ".".join(map(str, a))


# the library's name -> (function, how it answers, what the answer says)
FUNCTIONS = [
    (r"cudart", [("cudaRuntimeGetVersion", "out1", cuda)]),
    (r"cublas", [("cublasGetProperty", "prop", dotted), ("cublasGetCudartVersion", "size_t", cuda)]),
    (r"cublasLt", [("cublasLtGetVersion", "size_t", d3), ("cublasLtGetCudartVersion", "size_t", cuda), ("cublasLtGetProperty", "prop", dotted)]),
    (r"cudnn(_graph|_ops|_cnn|_adv|_(ops|cnn|adv)_(infer|train))?", [("cudnnGetVersion", "size_t", cudnn), ("cudnnGetCudartVersion", "size_t", cuda), ("cudnnGetProperty", "prop", dotted)]
     + [(f"cudnn{x}VersionCheck", "status", None)
        for x in "Graph Ops Cnn Adv OpsInfer OpsTrain CnnInfer CnnTrain AdvInfer AdvTrain".split()]),
    (r"nccl", [("ncclGetVersion", "out1", lambda n: d3(n) if n >= 20900 else d3k(n))]),
    (r"cufft\w*", [("cufftGetVersion", "out1", d3k), ("cufftGetProperty", "prop", dotted)]),
    (r"curand", [("curandGetVersion", "out1", d3k), ("curandGetProperty", "prop", dotted)]),
    (r"cusolver\w*", [("cusolverGetVersion", "out1", d3k), ("cusolverGetProperty", "prop", dotted)]),
    (r"cusparse", [("cusparseGetProperty", "prop", dotted)]),
    (r"cusparseLt", [("cusparseLtGetProperty", "prop", dotted)]),
    (r"cutensor", [("cutensorGetVersion", "size_t", d3), ("cutensorGetCudartVersion", "size_t", cuda)]),
    (r"nvrtc", [("nvrtcVersion", "out2", dotted)]),
    (r"nvJitLink", [("nvJitLinkVersion", "out2", dotted)]),
    (r"nvfatbin", [("nvFatbinVersion", "out2", dotted)]),
    (r"nvvm", [("nvvmVersion", "out2", dotted), ("nvvmIRVersion", "out4", dotted)]),
    (r"cupti", [("cuptiGetVersion", "out1", str)]),
    (r"nvjpeg", [("nvjpegGetProperty", "prop", dotted), ("nvjpegGetCudartProperty", "prop", dotted)]),
    (r"nppc", [("nppGetLibVersion", "struct3", dotted)]),
    (r"cudss", [("cudssGetProperty", "prop", dotted)]),
    (r"nvcomp\w*", [("nvcompGetProperties", "struct2", lambda a: f"{d3k(a[0])} cudart {cuda(a[1])}")]),
    (r"nvshmem_host", [("nvshmemx_vendor_get_version_info", "void3", dotted)]),
    (r"cufile", [("cuFileGetVersion", "out1", cuda)]),
    (r"nvinfer\w*", [("getInferLibVersion", "int", d3)]),
    (r"ucp", [("ucp_get_version_string", "text", str)]),
]
FUNCTIONS = [(re.compile(rf"^lib{n}(-[0-9a-f]{{8,16}}|\.alt)?\.so"), fs) for n, fs in FUNCTIONS]


def wheel_of(site):
    """path below site -> 'name version' from the RECORD files there."""
    o = {}
    for d in site.glob("*.dist-info"):
        name, version = d.name.removesuffix(".dist-info").split("-", 1)
        if (d / "RECORD").exists():
            for line in (d / "RECORD").read_text().splitlines():
                o[line.split(",")[0].strip('"')] = f"{name.replace('_', '-')} {version}"
    return o


def versions(work, names):
    roots = [(n, work / n, work / n / SITE) for n in names] + [(f"extra/{d.name}", d, d) for d in sorted((work / "extra").glob("*-*")) if not d.name.endswith(".part")]
    libs, dirs = {}, {}  # one entry for each inode: the first stack that has it, or the first that knows its wheel
    for label, root, site in roots:
        owner = wheel_of(site)
        dirs[label] = []
        for p, e in elf_files(root):
            if e["type"] == 3 and "/stubs/" not in p and any(r.match(os.path.basename(p)) for r, _ in FUNCTIONS):
                full = root / p.lstrip("/")
                dirs[label].append(str(full.parent))
                st = full.stat()
                wheel = owner.get(os.path.relpath(full, site), "")
                if not libs.get((st.st_dev, st.st_ino), ("",) * 5)[4]:
                    libs[st.st_dev, st.st_ino] = (label, p, e, full, wheel)
    by_major = {m: [d for lab in dirs if not lab.startswith("extra/") for d in dict.fromkeys(dirs[lab]) if any(Path(d).glob(f"lib*.so.{m}"))] for m in (11, 12, 13)}
    work_items = []
    for label, p, e, full, wheel in libs.values():
        own = [str(full.parent), *dict.fromkeys(dirs[label])]
        if label.startswith("extra/"):
            m = re.search(r"cu(?:da)?(1[123])", label)
            own += by_major[int(m[1])] if m else []  # a single wheel takes what it needs from a stack of its CUDA major
        for r, fs in FUNCTIONS:
            if r.match(full.name):
                work_items += [(label, p, e, full, wheel, own, f) for f in fs]

    def one(it):
        label, p, e, full, wheel, own, (function, how, decode) = it
        # cuDNN 8.5 takes the failed search of cuBLAS for a driver for its own when it is the first to load cuBLAS.
        before = [x for d in own for x in sorted(Path(d).glob("libcublas.so.*"))][:1] if full.name.startswith("libcudnn") else []
        try:
            r = run([sys.executable, "-c", ASK, full, function, how, *before], check=False, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, errors="replace", timeout=120,
                    env={"PATH": os.environ["PATH"], "LD_LIBRARY_PATH": ":".join(own)})
        except subprocess.TimeoutExpired:
            return None
        m = re.search(r"^ANSWER (.*)$", r.stdout, re.M)
        o = {"path": p, "stack": label, "soname": e.get("soname"), "wheel": wheel, "ask": function, "file_size": full.stat().st_size}
        if m:
            o["answer"] = json.loads(m[1])
            good = not isinstance(o["answer"], dict) and decode
            o["version"] = decode(o["answer"]) if good else None
        else:
            error = "no such function in it" if r.stdout.strip() == "NONE" else (r.stderr.strip().splitlines() or [""])[-1][:300]
            o |= {"answer": None, "version": None, "exit": r.returncode, "error": error}
        return o | {"full": full}

    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as ex:
        found = [o for o in ex.map(one, work_items) if o]
    # a function that is not there is worth a line only where the library has none of those asked for
    has = {o["full"] for o in found if o.get("error") != "no such function in it"}
    found = [o for o in found if o.get("error") != "no such function in it" or o["full"] not in has]
    sums = {}
    for o in found:
        full = o.pop("full")
        if full not in sums:
            with open(full, "rb") as f:
                sums[full] = hashlib.file_digest(f, "sha256").hexdigest()
        o["sha256"] = sums[full]
    write_json(work / "versions.json", sorted(found, key=lambda o: (o["wheel"], o["path"], o["ask"])))


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--work", type=Path, required=True, help="where everything goes")
    ap.add_argument("--only", choices=["root", "truth", "versions"], action="append", help="only this step (may be repeated)")
    ap.add_argument("stacks", nargs="*", metavar="STACK", help="stacks to make (default: all): " + " ".join(STACKS))
    a = ap.parse_args()
    names = a.stacks or list(STACKS)
    if bad := [n for n in names if n not in STACKS]:
        ap.error("no such stack: " + " ".join(bad))
    work = a.work.resolve()
    work.mkdir(parents=True, exist_ok=True)
    steps = a.only or ["root", "truth", "versions"]
    for n in names:
        if "root" in steps:
            log("root", n)
            make_root(work, n)
        if "truth" in steps:
            log("truth", n)
            truth(work, n)
    if "versions" in steps:
        for w in EXTRA:
            log("extra", w)
            extra(work, w)
        log("versions")
        versions(work, [n for n in STACKS if (work / f"{n}.installed").exists()])


main()
