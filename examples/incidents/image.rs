//! A record's `image` -> the facts that such an image has: a Debian-like system, the CUDA release, what each framework build
//! brings by the catalog, and every statement about libraries, GPU code, compat package and environment.

use super::host::Host;
use super::libraries::{at, elf, file, place, sonames, text};
use super::words::{Framework, Statement};
use cudalint::catalog::Catalog;
use cudalint::facts::{
    CodeImage, CodeKind, CodePlace, CodeRow, Config, DeviceCode, FileFacts, FileKind, ImageFacts,
    ImageIdentity, LayerIdentity, Link, Package, PackageFact, PackageOrigin, Shape,
};
use cudalint::names::Platform;
use cudalint::version::{Arch, ComputeCapability, Version};
use serde::Deserialize;
use std::collections::BTreeMap;

/// As the record writes it; what is absent is not stated.
#[derive(Default, Deserialize)]
pub(crate) struct Image {
    #[serde(rename = "ref")]
    pub(super) reference: Option<String>,
    pub(super) base: Option<String>,
    pub(super) cuda: Option<String>,
    #[serde(default)]
    pub(super) frameworks: Vec<String>,
    #[serde(default)]
    pub(super) libs: Vec<String>,
    #[serde(default)]
    pub(super) arch_list: Vec<String>,
    pub(super) arch_min: Option<String>,
    pub(super) arch_max: Option<String>,
    pub(super) arch_of: Option<String>,
    pub(super) compat: Option<String>,
    pub(super) compat_path: Option<String>,
    #[serde(default)]
    pub(super) ldconf: Vec<String>,
    #[serde(default)]
    pub(super) env: BTreeMap<String, String>,
}

pub(super) const SITE: &str = "/usr/local/lib/python3.11/site-packages";
const LIB: &str = "/usr/lib/x86_64-linux-gnu";

/// The image while it is put together.
pub(super) struct Builder<'a> {
    pub(super) record: &'a Image,
    pub(super) catalog: &'a Catalog,
    pub(super) machine: String,
    pub(super) files: Vec<FileFacts>,
    pub(super) links: Vec<Link>,
    pub(super) packages: Vec<Package>,
    pub(super) config: Config,
    /// Directories of `/etc/ld.so.conf.d`.
    pub(super) conf: Vec<String>,
    pub(super) cuda: Option<Version>,
    pub(super) major: u64,
}

/// The facts of a record's image.
pub(crate) fn facts(record: &Image, host: &Host, catalog: &Catalog) -> ImageFacts {
    let arm = host.platform.as_deref() == Some("linux/arm64");
    let frameworks: Vec<Framework> = record.frameworks.iter().map(|f| Framework::parse(f)).collect();
    let stated = record.cuda.as_deref().or_else(|| record.base.as_deref().and_then(cuda_of_base));
    let of_variant = frameworks.iter().find_map(|f| f.cuda().1);
    let major = stated.and_then(|c| c.split('.').next()?.parse().ok()).or(of_variant);
    let mut b = Builder {
        record,
        catalog,
        machine: if arm { "arm64" } else { "amd64" }.to_owned(),
        files: Vec::new(),
        links: Vec::new(),
        packages: Vec::new(),
        config: Config { env: record.env.clone().into_iter().collect(), ..Config::default() },
        conf: Vec::new(),
        cuda: stated.and_then(Version::parse).map(|v| v.major_minor()),
        major: major.unwrap_or(12),
    };
    let musl = ["alpine", "musl"].iter().any(|w| {
        record.base.as_deref().is_some_and(|b| b.contains(w)) || record.libs.iter().any(|l| l.contains(w))
    });
    b.system(musl);
    b.toolkit(stated.is_some(), &frameworks);
    for framework in &frameworks {
        b.framework(framework);
    }
    b.code(&frameworks);
    b.statements(&frameworks);
    b.compat();
    b.finish(arm)
}

/// `12.4` of `nvidia/cuda:12.4.1-base` and of `nvidia/cuda 13.2`.
fn cuda_of_base(base: &str) -> Option<&str> {
    let rest = base.strip_prefix("nvidia/cuda")?.trim_start_matches([':', ' ']);
    let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
    (end > 0).then(|| &rest[..end])
}

impl Builder<'_> {
    fn system(&mut self, musl: bool) {
        let machine = self.machine.clone();
        if musl {
            self.files.push(at("/lib/ld-musl-x86_64.so.1", elf("libc.musl-x86_64.so.1", &machine)));
            return;
        }
        for name in
            ["libc.so.6", "libm.so.6", "libdl.so.2", "libpthread.so.0", "librt.so.1", "libstdc++.so.6"]
        {
            self.files.push(at(&format!("{LIB}/{name}"), elf(name, &machine)));
        }
        let mut python = elf("", &machine);
        python.soname = None;
        python.interpreter = Some("/lib64/ld-linux-x86-64.so.2".to_owned());
        self.files.push(at("/usr/local/bin/python3.11", python));
        self.files.push(text("/etc/ld.so.cache", ""));
    }

    /// Where the CUDA libraries of the image stand: a toolkit directory, or NVIDIA's wheels.
    fn in_wheels(&self) -> bool {
        let set =
            self.record.reference.as_deref().is_some_and(|r| r.contains("wheel") || r.contains("conda"));
        set && self.record.base.is_none()
    }

    fn toolkit_dir(&self) -> String {
        let release = self.cuda.as_ref().map_or_else(|| format!("{}.x", self.major), ToString::to_string);
        format!("/usr/local/cuda-{release}/lib64")
    }

    fn library_dir(&self) -> String {
        if self.in_wheels() { format!("{SITE}/nvidia/cuda_runtime/lib") } else { self.toolkit_dir() }
    }

    /// The CUDA runtime of the image or build, where a release is stated and the frameworks do not bring their own.
    fn toolkit(&mut self, stated: bool, frameworks: &[Framework]) {
        let brought = frameworks.iter().any(|f| f.cuda().1.is_some());
        let cpu = !frameworks.is_empty() && frameworks.iter().all(Framework::is_cpu);
        if !stated || cpu || self.in_wheels() && brought {
            return;
        }
        let dir = self.library_dir();
        self.component("cudart", self.cuda.clone(), &dir);
        if !self.in_wheels() {
            self.conf.push(dir.clone());
            let home = dir.trim_end_matches("/lib64").to_owned();
            self.link("/usr/local/cuda", &home);
        }
    }

    fn link(&mut self, path: &str, target: &str) {
        self.links.push(Link { place: place(path), target: target.to_owned(), hard: false });
    }

    /// The files of a component of the stack, unless they are there already.
    fn component(&mut self, name: &str, version: Option<Version>, dir: &str) {
        // A component's own version is no CUDA release.
        let release =
            if name == "cuda" || name == "cudart" { version.clone().or(self.cuda.clone()) } else { version };
        let major = match (name, &release) {
            ("cuda" | "cudart", Some(v)) => v.major(),
            _ => self.major,
        };
        for soname in sonames(name, release.as_ref(), major) {
            let known = |f: &FileFacts| {
                f.place.path.parent().as_str() == dir
                    && f.elf.as_ref().is_some_and(|e| e.soname.as_deref() == Some(soname.as_str()))
            };
            if self.files.iter().any(known) {
                continue;
            }
            let of_release = name != "cuda" || soname.starts_with("libcudart");
            let found = file(dir, &soname, release.as_ref().filter(|_| of_release), &self.machine);
            if found.place.path.file_name() != soname {
                self.link(&format!("{dir}/{soname}"), &found.place.path.to_string());
            }
            self.files.push(found);
        }
    }

    fn package(&mut self, name: &str, version: &str, requires: &[String]) {
        let folder = name.replace('-', "_");
        self.packages.push(Package {
            place: place(&format!("{SITE}/{folder}-{version}.dist-info/METADATA")),
            fact: PackageFact {
                origin: PackageOrigin::Pip,
                name: name.to_owned(),
                version: version.to_owned(),
                requires: requires.to_vec(),
            },
        });
    }

    /// A framework: its distribution, its version file, its main library, and the CUDA runtime that its build brings.
    fn framework(&mut self, framework: &Framework) {
        let built = self.default_build(framework);
        let framework = &built;
        let (cuda, major) = framework.cuda();
        let release = cuda.clone().or_else(|| if major.is_none() { self.cuda.clone() } else { None });
        let name = match framework.name.as_str() {
            "llama.cpp" | "nccl-tests" => return self.program(framework),
            "cupy" => {
                // Compiles its kernels at run time, and cannot be used without.
                let dir = self.library_dir();
                self.component("nvrtc", None, &dir);
                format!("cupy-cuda{}x", self.major)
            }
            name => name.to_ascii_lowercase(),
        };
        let local = framework.variant.as_deref().map(|v| format!("+{v}")).unwrap_or_default();
        let number = framework.version.clone().unwrap_or_else(|| "0".to_owned());
        let requires = self.requirements(framework);
        self.package(&name, &format!("{number}{local}"), &requires);
        if name == "torch" {
            let cuda = match (&release, framework.is_cpu()) {
                (Some(cuda), false) => format!("'{cuda}'"),
                _ => "None".to_owned(),
            };
            let version = format!(
                "__version__ = '{number}{local}'\ncuda: Optional[str] = {cuda}\nhip: Optional[str] = None\n"
            );
            // A build whose CUDA release nobody states is a GPU build all the same.
            if framework.is_cpu() || release.is_some() {
                self.files.push(text(&format!("{SITE}/torch/version.py"), &version));
            }
        }
        if framework.is_cpu() {
            return;
        }
        let mut main = elf(&Self::main_name(framework), &self.machine);
        main.runpath = vec![
            "$ORIGIN/../nvidia/cuda_runtime/lib".to_owned(),
            "$ORIGIN/../../nvidia/cuda_runtime/lib".to_owned(),
        ];
        if let (Some(major), true) = (major, release.is_some() || major.is_some()) {
            let dir = format!("{SITE}/nvidia/cuda_runtime/lib");
            let before = self.major;
            self.major = major;
            let version = cuda.clone();
            let soname = sonames("cudart", version.as_ref(), major).remove(0);
            self.files.push(file(&dir, &soname, version.as_ref(), &self.machine));
            self.major = before;
            main.needed.push(soname);
        }
        if main.needed.len() == 1 && release.is_none() {
            // A GPU build of which no more is known calls the driver.
            main.needed.push("libcuda.so.1".to_owned());
        }
        let path = Self::main_path(framework);
        self.files.push(at(&path, main));
        if name == "tensorflow" {
            self.tensorflow(release.as_ref());
        }
    }

    /// What is meant where a record names no variant: torch's build on the package index, ONNX Runtime's for GPUs where CUDA
    /// libraries are asked for.
    fn default_build(&self, framework: &Framework) -> Framework {
        let mut built = framework.clone();
        if built.name == "torch" && built.variant.is_none() && self.cuda.is_none() && self.machine == "amd64"
        {
            built.variant = Self::variant_on_index(framework);
        }
        if built.name == "onnxruntime" && self.record.libs.iter().any(|l| l.contains("libcu")) {
            "onnxruntime-gpu".clone_into(&mut built.name);
        }
        built
    }

    /// TensorFlow opens its libraries by name: those of the release that it was built with. All that the record does not call
    /// missing are there.
    fn tensorflow(&mut self, release: Option<&Version>) {
        let statements: Vec<Statement> = self.record.libs.iter().map(|l| Statement::parse(l)).collect();
        let of_verbs = |verbs: &[&str]| -> Vec<String> {
            let chosen =
                statements.iter().filter(|s| verbs.contains(&s.verb.as_str()) && s.name.contains(".so"));
            chosen.map(|s| s.name.clone()).collect()
        };
        let (mut asked, lacks) = (of_verbs(&["needs", "lacks"]), of_verbs(&["lacks"]));
        let cudnn = statements.iter().find(|s| s.verb == "needs" && s.name == "cudnn");
        asked.extend(cudnn.and_then(Statement::some_version).map(|v| format!("libcudnn.so.{}", v.major())));
        let fits = |r: &&cudalint::catalog::DlopenRow| {
            asked.iter().all(|a| r.sonames.contains(a))
                && (!asked.is_empty() || release.is_some_and(|c| r.cuda_from <= *c && *c < r.cuda_below))
        };
        let by_release = |r: &&cudalint::catalog::DlopenRow| {
            release.is_some_and(|c| r.cuda_from <= *c && *c < r.cuda_below)
        };
        let rows: Vec<_> = self.catalog.dlopens.iter().filter(fits).cloned().collect();
        let row = rows.iter().find(by_release).or(rows.first()).cloned();
        let Some(row) = row else { return };
        let cudnn = row.sonames.iter().find_map(|n| n.strip_prefix("libcudnn.so.")).unwrap_or("8").to_owned();
        let build = format!(
            "build_info = collections.OrderedDict([('cuda_version', '{}'), ('cudnn_version', '{cudnn}'), ('is_cuda_build', True)])",
            row.cuda_from
        );
        self.files.push(text(&format!("{SITE}/tensorflow/python/platform/build_info.py"), &build));
        let framework = elf("libtensorflow_framework.so.2", &self.machine);
        self.files.push(at(&format!("{SITE}/tensorflow/libtensorflow_framework.so.2"), framework));
        let dir = self.toolkit_dir();
        if !self.conf.contains(&dir) {
            self.conf.push(dir.clone());
        }
        for soname in row.sonames.iter().filter(|n| !lacks.contains(n)) {
            let there = |f: &FileFacts| {
                f.place.path.parent().as_str() == dir
                    && f.elf.as_ref().is_some_and(|e| e.soname.as_deref() == Some(soname.as_str()))
            };
            let stated = |s: &Statement| s.verb == "has" && s.name == "cudnn";
            let is_cudnn = soname.starts_with("libcudnn");
            if self.files.iter().any(there) || is_cudnn && statements.iter().any(stated) {
                continue;
            }
            // cuDNN comes with its parts.
            let major = soname.rsplit('.').next().and_then(|n| n.parse().ok()).unwrap_or(8);
            let all = match is_cudnn {
                true => sonames("cudnn", Some(&Version::of(major, 0)), self.major),
                false => vec![soname.clone()],
            };
            for soname in all {
                self.files.push(file(&dir, &soname, None, &self.machine));
            }
        }
    }

    /// A program without Python.
    fn program(&mut self, framework: &Framework) {
        let mut main = elf("", &self.machine);
        main.soname = None;
        main.interpreter = Some("/lib64/ld-linux-x86-64.so.2".to_owned());
        // As compilers of Ubuntu link programs by default.
        main.bind_now = true;
        let path = Self::main_path(framework);
        self.files.push(at(&path, main));
        self.config.entrypoint = vec![path];
    }

    fn main_name(framework: &Framework) -> String {
        match framework.name.to_ascii_lowercase().as_str() {
            "torch" => "libtorch_cuda.so".to_owned(),
            "onnxruntime-gpu" => "libonnxruntime_providers_cuda.so".to_owned(),
            "tensorflow" => "libtensorflow_cc.so.2".to_owned(),
            "jaxlib" => "xla_extension.so".to_owned(),
            _ => format!("lib{}.so", framework.module()),
        }
    }

    pub(super) fn main_path(framework: &Framework) -> String {
        let file = Self::main_name(framework);
        match framework.name.to_ascii_lowercase().as_str() {
            "llama.cpp" | "nccl-tests" => format!("/usr/local/bin/{}", framework.name),
            "torch" => format!("{SITE}/torch/lib/{file}"),
            "onnxruntime-gpu" => format!("{SITE}/onnxruntime/capi/{file}"),
            _ => format!("{SITE}/{}/{file}", framework.module()),
        }
    }

    /// What the build asks of other distributions: its own version needs of cuDNN and of the assembler.
    fn requirements(&self, framework: &Framework) -> Vec<String> {
        let statements = self.record.libs.iter().map(|l| Statement::parse(l)).filter(|s| s.verb == "needs");
        let mut out = Vec::new();
        for s in statements {
            match (s.name.as_str(), &s.version) {
                ("cudnn", Some(v)) => out.push(format!("nvidia-cudnn-cu{}>={v}", self.major)),
                ("ptxas", Some(isa)) => {
                    let cuda = self.catalog.ptx_row(isa).map(|r| r.cuda.clone());
                    out.extend(cuda.map(|c| format!("nvidia-cuda-nvcc-cu{}>={c}", c.major())));
                }
                _ => {}
            }
        }
        if self.record.frameworks.first().map(|f| Framework::parse(f).name) == Some(framework.name.clone()) {
            out
        } else {
            Vec::new()
        }
    }

    fn statements(&mut self, frameworks: &[Framework]) {
        let statements: Vec<Statement> = self.record.libs.iter().map(|l| Statement::parse(l)).collect();
        for s in &statements {
            match s.verb.as_str() {
                "has" => self.has(s),
                "first" => self.first(s, &statements),
                "symlink" => {
                    let path = s.whole.trim_start_matches("symlink ").trim().to_owned();
                    let name = path.rsplit('/').next().unwrap_or_default().to_owned();
                    self.link(&path, &format!("/etc/alternatives/{name}"));
                }
                "file" => {
                    let path = s.whole.trim_start_matches("file ").trim().to_owned();
                    let name = path.rsplit('/').next().unwrap_or_default().to_owned();
                    self.files.push(at(&path, elf(&name, &self.machine)));
                }
                "dup" => {
                    for name in s.whole.split_whitespace().skip(1) {
                        self.package(name, "0", &[]);
                    }
                }
                "plan" => self.plan(s),
                _ => {}
            }
        }
        self.needs(frameworks, &statements);
    }

    fn has(&mut self, s: &Statement) {
        if s.whole.ends_with("backend") {
            return self.backend(&s.name);
        }
        let dir = s.path.clone().unwrap_or_else(|| match s.name.as_str() {
            "cuda" | "cudart" | "cublas" => self.library_dir(),
            _ => LIB.to_owned(),
        });
        let dir = Self::absolute(&dir);
        match s.name.as_str() {
            "cuda" if s.version.as_ref().is_some_and(|v| v.len() == 1) => self.component("cuda", None, &dir),
            "cuda" => self.component("cuda", s.version.clone(), &dir),
            name => self.component(name, s.some_version(), &dir),
        }
        let in_wheels = dir.contains("-packages/");
        if dir != LIB && !in_wheels && !self.conf.contains(&dir) && s.path.is_none() {
            self.conf.push(dir);
        }
    }

    /// A library of a program that works through one interface: `CUDA`, `Vulkan`.
    fn backend(&mut self, interface: &str) {
        let name = format!("libggml-{}.so", interface.to_ascii_lowercase());
        let path = format!("/usr/lib/app/{name}");
        let mut library = elf(&name, &self.machine);
        if interface == "CUDA" {
            let dir = self.toolkit_dir();
            self.component("cudart", self.cuda.clone(), &dir);
            self.conf.push(dir);
            library.needed.push(sonames("cudart", self.cuda.as_ref(), self.major).remove(0));
        } else if interface == "Vulkan" {
            self.files.push(at(&format!("{LIB}/libvulkan.so.1"), elf("libvulkan.so.1", &self.machine)));
            library.needed.push("libvulkan.so.1".to_owned());
        }
        self.files.push(at(&path, library));
    }

    /// A directory that a record writes from the site directory on.
    fn absolute(path: &str) -> String {
        match path.strip_prefix("site-packages") {
            Some(rest) => format!("{SITE}{rest}"),
            None if path.starts_with('/') => path.to_owned(),
            None => format!("/{path}"),
        }
    }

    /// The copy that the search order finds first: its directory leads LD_LIBRARY_PATH, as nothing else makes it so.
    fn first(&mut self, s: &Statement, all: &[Statement]) {
        let stub = s.whole.contains("(stub)");
        let stated = s.path.clone().map(|p| Self::absolute(&p));
        let soname = sonames(&s.name, s.some_version().as_ref(), self.major).into_iter().next();
        let (dir, soname) = match (stated, soname) {
            (Some(path), Some(soname)) => match path.rsplit_once('/') {
                Some((dir, name)) if name.contains(".so") || name == s.name => (dir.to_owned(), soname),
                _ => (path, soname),
            },
            (Some(path), None) => return self.tool(s, &path),
            (None, Some(soname)) => ("/usr/local/lib".to_owned(), soname),
            (None, None) => return,
        };
        let version = s.some_version();
        let mut found = file(&dir, &soname, version.as_ref().filter(|_| !stub), &self.machine);
        if let Some(elf) = &mut found.elf {
            // Everything that is asked of it and that its version has.
            elf.versions_provided = vec![soname.clone()];
        }
        self.files.retain(|f| f.place.path != found.place.path);
        self.files.push(found);
        let alone = !all.iter().any(|o| o.verb == "has" && o.name == s.name);
        let named = self.config.env("LD_LIBRARY_PATH").is_some_and(|v| v.split(':').any(|d| d == dir));
        if !named && (stub || !dir.contains("-packages/") && alone || dir.contains("-packages/")) {
            let before = self.config.env("LD_LIBRARY_PATH").map(|v| format!(":{v}")).unwrap_or_default();
            self.config.env.retain(|(k, _)| k != "LD_LIBRARY_PATH");
            self.config.env.push(("LD_LIBRARY_PATH".to_owned(), format!("{dir}{before}")));
        }
    }

    /// A program of the toolkit, such as ptxas, with the version that its banner states.
    fn tool(&mut self, s: &Statement, path: &str) {
        let mut program = elf("", &self.machine);
        program.soname = None;
        program.interpreter = Some("/lib64/ld-linux-x86-64.so.2".to_owned());
        let version = s.version.iter().map(ToString::to_string).collect();
        program.version_texts.insert("toolkit".to_owned(), version);
        self.files.push(at(path, program));
    }

    fn plan(&mut self, s: &Statement) {
        let mut words = s.whole.split_whitespace();
        let version = words.find_map(Version::parse);
        let cc = s.whole.split(" cc ").nth(1).and_then(|c| ComputeCapability::parse(c.trim()));
        let mut found = text("/models/model.plan", "");
        found.kind = FileKind::Engine;
        found.text = version.map(|v| format!("tensorrt {v}"));
        if let Some(cc) = cc {
            let image = CodeImage {
                kind: CodeKind::Sass,
                arch: Arch { number: cc.sm_number(), suffix: cudalint::version::Suffix::None },
                ptx_isa: None,
            };
            let row = CodeRow {
                place: CodePlace::Cubin,
                section: None,
                image,
                toolkit: None,
                count: 1,
                bytes: 4096,
            };
            let shape = Shape { place: CodePlace::Cubin, section: None, images: vec![image], count: 1 };
            found.device_code = Some(DeviceCode {
                bytes: 4096,
                rows: vec![row],
                shapes: vec![shape],
                ..DeviceCode::default()
            });
        }
        self.files.push(found);
    }

    /// What the first framework, or a program, asks of libraries: by name, by symbol, by version.
    fn needs(&mut self, frameworks: &[Framework], statements: &[Statement]) {
        let built: Vec<Framework> = frameworks.iter().map(|f| self.default_build(f)).collect();
        let asks =
            built.iter().find(|f| !f.is_cpu() && f.name != "torch").or(built.iter().find(|f| !f.is_cpu()));
        let path = asks.map_or_else(|| "/usr/local/bin/app".to_owned(), Self::main_path);
        let name = asks.map(|f| f.name.to_ascii_lowercase()).unwrap_or_default();
        // TensorFlow and JAX open their libraries by name; the others are linked with them.
        let opens = name == "tensorflow" || name == "jaxlib";
        let mut names: Vec<String> = Vec::new();
        for s in statements.iter().filter(|s| s.verb == "needs" || s.verb == "lacks") {
            if s.name.contains(".so") && s.bound.is_none() {
                names.push(s.name.clone());
            } else if !opens
                && !s.is_symbol()
                && ["cudnn", "cublas", "tensorrt", "nccl"].contains(&s.name.as_str())
            {
                // A component is asked for by the soname of that version.
                names.extend(sonames(&s.name, s.some_version().as_ref(), self.major).into_iter().next());
            }
        }
        names.dedup();
        // What compiles at run time has its compiler.
        if let Some(s) = statements.iter().find(|s| s.verb == "needs" && s.name == "nvrtc") {
            let dir = self.library_dir();
            self.component("nvrtc", s.some_version(), &dir);
        }
        let wants_app =
            !names.is_empty() || statements.iter().any(|s| s.name.starts_with("libcuda.so") || s.is_symbol());
        if !self.files.iter().any(|f| f.place.path.as_str() == path) && (asks.is_some() || wants_app) {
            let mut app = elf("", &self.machine);
            app.soname = None;
            app.bind_now = true;
            app.interpreter = Some("/lib64/ld-linux-x86-64.so.2".to_owned());
            if names.is_empty() {
                app.needed.push("libcuda.so.1".to_owned());
            }
            self.files.push(at(&path, app));
        }
        let symbols: Vec<(String, String)> = statements
            .iter()
            .filter(|s| s.verb == "needs")
            .filter_map(|s| self.symbol(s, statements))
            .collect();
        let jax_cudnn = statements
            .iter()
            .find(|s| name == "jaxlib" && s.verb == "has" && s.name == "cudnn")
            .and_then(|s| s.version.clone());
        let Some(main) =
            self.files.iter_mut().find(|f| f.place.path.as_str() == path).and_then(|f| f.elf.as_mut())
        else {
            return;
        };
        for name in names {
            if opens { main.dlopens.push(name) } else { main.needed.push(name) }
        }
        if let Some(v) = jax_cudnn {
            main.dlopens.push(format!("libcudnn.so.{}", v.major()));
        }
        for (library, symbol) in symbols {
            main.needed.push(library.clone());
            main.imports.entry(library).or_default().push(symbol);
        }
    }

    /// The library and symbol that a `needs` statement asks for.
    /// `None` where the copy that is found has it.
    fn symbol(&self, s: &Statement, all: &[Statement]) -> Option<(String, String)> {
        let stem = |name: &str| {
            let bare = name.trim_start_matches("lib").to_ascii_lowercase();
            ["nccl", "cudnn", "cublas", "nvjitlink"].into_iter().find(|p| bare.starts_with(p))
        };
        let same = |o: &&Statement| stem(&o.name).is_some() && stem(&o.name) == stem(&s.name);
        let found = all.iter().filter(|o| o.verb == "first").find(same);
        let found = found.or_else(|| all.iter().filter(|o| o.verb == "has").find(same));
        let wanted = s.bound.as_ref().filter(|(sign, _)| *sign == '>').map(|(_, v)| v);
        if wanted.zip(found.and_then(Statement::some_version)).is_some_and(|(wanted, have)| have >= *wanted) {
            return None;
        }
        if s.is_symbol() {
            let stem = ["nccl", "cudnn", "cublas"].into_iter().find(|p| s.name.starts_with(p))?;
            let library = sonames(stem, None, self.major).into_iter().next()?;
            return Some((library, s.name.clone()));
        }
        let (_, lowest) = s.bound.as_ref().filter(|(sign, _)| *sign == '>')?;
        let jit_link = s.name.starts_with("libnvJitLink");
        // Each release adds a symbol with its number, which libcusparse of that release asks for.
        jit_link.then(|| {
            let symbol = format!("__nvJitLinkComplete_{}_{}@{}", lowest.major(), lowest.minor(), s.name);
            (s.name.clone(), symbol)
        })
    }

    fn compat(&mut self) {
        let Some(version) = &self.record.compat else { return };
        let home = self.toolkit_dir().trim_end_matches("/lib64").to_owned();
        self.links.retain(|l| l.place.path.as_str() != "/usr/local/cuda");
        self.link("/usr/local/cuda", &home);
        let how = self.record.compat_path.as_deref().unwrap_or("plain");
        let dir = match how {
            "entrypoint" => format!("{home}/compat/lib.real"),
            _ => format!("{home}/compat"),
        };
        self.files.push(at(&format!("{dir}/libcuda.so.{version}"), elf("libcuda.so.1", &self.machine)));
        match how {
            "entrypoint" => self.config.entrypoint = vec!["/opt/nvidia/nvidia_entrypoint.sh".to_owned()],
            "ld.so.conf.d" => self.conf.insert(0, "/usr/local/cuda/compat".to_owned()),
            "LD_LIBRARY_PATH" if self.config.env("LD_LIBRARY_PATH").is_none() => {
                self.config.env.push(("LD_LIBRARY_PATH".to_owned(), "/usr/local/cuda/compat".to_owned()));
            }
            _ => {}
        }
    }

    fn finish(mut self, arm: bool) -> ImageFacts {
        // What the record names comes before what the packages of the toolkit add.
        let named =
            self.record.ldconf.iter().filter_map(|entry| Some(entry.split_once("-> ")?.1.trim().to_owned()));
        self.conf = named.chain(std::mem::take(&mut self.conf)).collect();
        self.files.push(text("/etc/ld.so.conf", &self.conf.join("\n")));
        self.files.sort_by(|a, b| a.place.path.cmp(&b.place.path));
        self.links.sort();
        self.packages.sort();
        let mut image = ImageIdentity {
            reference: self.record.reference.clone().unwrap_or_default(),
            config: self.config,
            layers: vec![LayerIdentity::default()],
            ..ImageIdentity::default()
        };
        image.platform = Platform::parse(if arm { "linux/arm64" } else { "linux/amd64" }).unwrap_or_default();
        ImageFacts {
            image,
            complete: true,
            files: self.files,
            links: self.links,
            packages: self.packages,
            ..ImageFacts::default()
        }
    }
}
