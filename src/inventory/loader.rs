//! ELF facts, links and image settings -> what the image's own dynamic loader would load, from where, and what it
//! would not find. glibc (`ld.so(8)`) and musl, inside the image's root only.
//!
//! Not modelled: `glibc-hwcaps` directories (no CUDA library ships there), `DF_1_NODEFLIB`, audit libraries.

use crate::facts::links::Paths;
use crate::facts::{ElfFacts, FileFacts, ImageFacts};
use crate::limits;
use crate::names::ImagePath;
use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};

/// Objects in one process at most: more is a loop or an attack.
const OBJECTS_MAX: usize = 4096;
/// Directories that are named where nothing was found; all are counted.
const TRIED_KEPT: usize = 4;

/// How a library was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Via {
    Rpath,
    Runpath,
    LibraryPath,
    Preload,
    Cache,
    Conf,
    Default,
    /// Something loaded it before: the importing package.
    Importer,
}

impl Via {
    pub fn name(self) -> &'static str {
        match self {
            Via::Rpath => "rpath",
            Via::Runpath => "runpath",
            Via::LibraryPath => "LD_LIBRARY_PATH",
            Via::Preload => "LD_PRELOAD",
            Via::Cache => "ld.so.cache",
            Via::Conf => "ld.so.conf",
            Via::Default => "default",
            Via::Importer => "importer",
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Status {
    Found,
    Missing,
    /// The container runtime supplies it from the host.
    Injected,
    /// Files of that name exist, for another architecture only.
    Incompatible,
}

impl Status {
    pub fn name(self) -> &'static str {
        match self {
            Status::Found => "found",
            Status::Missing => "missing",
            Status::Injected => "injected",
            Status::Incompatible => "incompatible",
        }
    }
}

/// What the loader does with one name that an object asks for.
#[derive(Clone, Debug, PartialEq)]
pub struct Load<'a> {
    /// As asked for.
    pub name: String,
    pub file: Option<&'a FileFacts>,
    pub status: Status,
    pub via: Option<Via>,
    /// The object of the process that stands for it.
    pub object: Option<usize>,
    /// Other files of that name further down the search.
    pub shadows: Vec<&'a FileFacts>,
    /// The first directories that were searched, where nothing was found, and how many there were.
    pub tried: Vec<String>,
    pub tried_count: usize,
}

impl Load<'_> {
    /// Whether it came to nothing.
    pub fn is_lost(&self) -> bool {
        matches!(self.status, Status::Missing | Status::Incompatible)
    }
}

/// An object in a process.
#[derive(Clone, Debug)]
pub struct Object<'a> {
    pub file: &'a FileFacts,
    pub elf: &'a ElfFacts,
    /// The path under which it was opened, links and `..` not followed: `$ORIGIN` is its directory.
    opened_as: String,
    /// Who asked for it first.
    pub loader: Option<usize>,
    /// How it was found then; `None` for what was opened by its path.
    pub via: Option<Via>,
    /// Other files of its name further down the search that found it.
    shadows: Vec<&'a FileFacts>,
    pub loads: Vec<Load<'a>>,
}

/// A process as far as it has loaded objects.
#[derive(Clone, Debug, Default)]
pub struct Process<'a> {
    pub objects: Vec<Object<'a>>,
    by_name: BTreeMap<String, usize>,
    by_path: BTreeMap<&'a str, usize>,
    /// Objects below this index were there before the root that is looked at.
    pub inherited: usize,
}

/// Which C library's loader the image has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Libc {
    Glibc,
    Musl,
    None,
}

/// The loader of an image.
pub struct Loader<'a> {
    pub paths: Paths<'a>,
    pub libc: Libc,
    library_path: Vec<String>,
    preload: Vec<String>,
    cache: BTreeMap<&'a str, Vec<&'a str>>,
    conf_dirs: Vec<String>,
    default_dirs: Vec<String>,
    lib: &'static str,
    /// Libraries of the directories that ldconfig visits, by soname, in the order of the directories.
    by_soname: BTreeMap<&'a str, Vec<(Via, &'a FileFacts)>>,
    /// Paths looked at so far: bounded, since a few kilobytes of names can ask for billions.
    lookups: Cell<u64>,
}

/// Names that the container runtime mounts from the host driver (libnvidia-container, nvidia-container-toolkit).
pub fn is_injected(name: &str) -> bool {
    const DRIVER: [&str; 8] = [
        "libcuda.so",
        "libcudadebugger.so",
        "libnvcuvid.so",
        "libnvidia-",
        "libnvoptix.so",
        "libGLX_nvidia.so",
        "libEGL_nvidia.so",
        "libvdpau_nvidia.so",
    ];
    // Container tools and the CUDA toolkit have libraries of that prefix too, which no driver brings.
    const NOT_DRIVER: [&str; 2] = ["libnvidia-container", "libnvidia-ml-stub"];
    DRIVER.iter().any(|d| name.starts_with(d)) && !NOT_DRIVER.iter().any(|d| name.starts_with(d))
}

impl<'a> Loader<'a> {
    pub fn of(facts: &'a ImageFacts) -> Loader<'a> {
        let paths = Paths::of(facts);
        let libc = libc_of(facts);
        let split = |name: &str, at: &[char]| -> Vec<String> {
            let value = facts.image.config.env(name).unwrap_or_default();
            value.split(at).filter(|e| !e.is_empty()).map(str::to_owned).collect()
        };
        let (default_dirs, lib) = default_dirs(facts, &paths, libc);
        let conf_dirs = if libc == Libc::Musl { Vec::new() } else { conf_dirs(facts, &paths) };
        let separators: &[char] = if libc == Libc::Musl { &[':', '\n'] } else { &[':', ';'] };
        let mut preload = split("LD_PRELOAD", &[':', ' ']);
        let file =
            paths.file("/etc/ld.so.preload").and_then(|f| f.text.as_deref()).filter(|_| libc == Libc::Glibc);
        preload.extend(
            file.unwrap_or_default()
                .split([' ', '\t', '\n', ':'])
                .filter(|e| !e.is_empty())
                .map(str::to_owned),
        );
        let by_soname = match libc {
            Libc::Musl => BTreeMap::new(),
            Libc::Glibc | Libc::None => by_soname(&paths, &conf_dirs, &default_dirs),
        };
        Loader {
            libc,
            library_path: split("LD_LIBRARY_PATH", separators),
            preload,
            cache: cache_of(facts),
            conf_dirs,
            default_dirs,
            lib,
            by_soname,
            lookups: Cell::new(0),
            paths,
        }
    }

    /// Whether more was asked for than is looked up: what was found is then not the whole truth.
    pub fn gave_up(&self) -> bool {
        self.lookups.get() > limits::LIBRARY_LOOKUPS_MAX
    }

    fn spend(&self, lookups: usize) -> bool {
        self.lookups.set(self.lookups.get().saturating_add(lookups as u64));
        !self.gave_up()
    }

    /// The entries of LD_LIBRARY_PATH.
    pub fn library_path(&self) -> &[String] {
        &self.library_path
    }

    /// Directories of `/etc/ld.so.conf`, in its order.
    pub fn conf_dirs(&self) -> &[String] {
        &self.conf_dirs
    }

    /// A directory as LD_LIBRARY_PATH or ld.so.conf spells it, which may lead over links.
    pub fn as_named(&self, dir: &ImagePath) -> String {
        let entry =
            self.library_path.iter().chain(&self.conf_dirs).find(|entry| self.paths.real(entry) == *dir);
        entry.map_or_else(|| dir.to_string(), Clone::clone)
    }

    /// A new process: `program` as its main object if there is one, and what LD_PRELOAD names.
    pub fn start(&self, program: Option<&'a FileFacts>) -> Process<'a> {
        let mut process = Process::default();
        let root = program.and_then(|p| self.insert(&mut process, p, p.place.path.as_str(), None, None));
        // The interpreter is the loader itself, which libc needs by its name.
        let interpreter = program.and_then(|p| p.elf.as_ref()?.interpreter.as_deref());
        if let Some((path, file)) = interpreter.and_then(|i| Some((i, self.paths.file(i)?))) {
            let name = path.rsplit('/').next();
            self.insert(&mut process, file, path, None, name);
        }
        for name in &self.preload {
            let object = root.and_then(|r| process.objects.get(r));
            let name = object.map_or_else(|| name.clone(), |o| self.expand(name, o));
            let index = match (name.starts_with('/'), root) {
                (true, _) => self
                    .paths
                    .file(&name)
                    .and_then(|f| self.insert(&mut process, f, &name, None, Some(&name))),
                (false, Some(by)) => self.load(&mut process, by, &name).object,
                (false, None) => None,
            };
            if let Some(object) = index.and_then(|i| process.objects.get_mut(i)) {
                object.via = Some(Via::Preload);
            }
        }
        self.settle(&mut process, 0);
        process
    }

    /// Opens a file as `dlopen` with an absolute path does, with everything it needs. `caller`: the object that asks.
    pub fn open(
        &self,
        process: &mut Process<'a>,
        file: &'a FileFacts,
        caller: Option<usize>,
    ) -> Option<usize> {
        let from = process.objects.len();
        let index = self.insert(process, file, file.place.path.as_str(), caller, None)?;
        self.settle(process, from);
        Some(index)
    }

    /// Opens a name without directory as `dlopen` called from object `caller` does, with everything it needs.
    pub fn open_name(&self, process: &mut Process<'a>, caller: usize, name: &str) -> Load<'a> {
        let from = process.objects.len();
        let load = self.load(process, caller, name);
        self.settle(process, from);
        load
    }

    /// Loads what the objects from `from` on need, breadth first.
    fn settle(&self, process: &mut Process<'a>, from: usize) {
        let mut at = from;
        while let Some(object) = process.objects.get(at).filter(|_| !self.gave_up()) {
            let needed = &object.elf.needed;
            let loads = needed.iter().map(|name| self.load(process, at, name)).collect();
            if let Some(object) = process.objects.get_mut(at) {
                object.loads = loads;
            }
            at += 1;
        }
    }

    fn insert(
        &self,
        process: &mut Process<'a>,
        file: &'a FileFacts,
        opened_as: &str,
        loader: Option<usize>,
        name: Option<&str>,
    ) -> Option<usize> {
        let elf = file.elf.as_ref()?;
        if let Some(&known) = process.by_path.get(file.place.path.as_str()) {
            process.learn(known, name);
            return Some(known);
        }
        // Every object costs, whether it is searched for or not.
        if process.objects.len() >= OBJECTS_MAX || !self.spend(10) {
            return None;
        }
        let index = process.objects.len();
        let opened_as = opened_as.to_owned();
        process.objects.push(Object {
            file,
            elf,
            opened_as,
            loader,
            via: None,
            shadows: Vec::new(),
            loads: Vec::new(),
        });
        process.by_path.insert(file.place.path.as_str(), index);
        process.learn(index, name);
        // musl knows a library by the name it was found under only.
        process.learn(index, elf.soname.as_deref().filter(|_| self.libc != Libc::Musl));
        Some(index)
    }

    /// What object `by` gets when it asks for `name`.
    fn load(&self, process: &mut Process<'a>, by: usize, name: &str) -> Load<'a> {
        let mut load = Load {
            name: name.to_owned(),
            file: None,
            status: Status::Missing,
            via: None,
            object: None,
            shadows: Vec::new(),
            tried: Vec::new(),
            tried_count: 0,
        };
        if !self.spend(1) {
            return load;
        }
        if let Some(&known) = process.by_name.get(name) {
            let Some(object) = process.objects.get(known) else { return load };
            load.object = Some(known);
            load.file = Some(object.file);
            load.status = Status::Found;
            load.via = if known < process.inherited { Some(Via::Importer) } else { object.via };
            load.shadows.clone_from(&object.shadows);
            return load;
        }
        if name.contains('/') {
            let expanded = process.objects.get(by).map(|o| self.expand(name, o)).unwrap_or_default();
            // A relative path depends on a working directory that nobody knows.
            if let Some(file) = self.paths.file(&expanded).filter(|_| expanded.starts_with('/')) {
                self.found(process, &mut load, file, by, &expanded, None);
            }
            return load;
        }
        let mut incompatible = false;
        let mut tried = BTreeSet::new();
        let candidates = self.candidates(process, by, name);
        if !self.spend(candidates.len()) {
            return load;
        }
        for (via, path) in candidates {
            let Some(file) = self.paths.file(&path).filter(|f| f.elf.is_some()) else {
                let dir = path.rsplit_once('/').map_or("", |(dir, _)| dir);
                if load.file.is_none() && tried.insert(dir.to_owned()) && load.tried.len() < TRIED_KEPT {
                    load.tried.push(dir.to_owned());
                }
                continue;
            };
            if !Self::fits(process, by, file) {
                incompatible = true;
                continue;
            }
            match load.file {
                None => self.found(process, &mut load, file, by, &path, Some(via)),
                Some(found) => push_other(&mut load.shadows, found, file),
            }
        }
        load.tried_count = tried.len();
        if load.file.is_none() {
            let fitting = |(_, file): &&(Via, &'a FileFacts)| Self::fits(process, by, file);
            // The container runtime runs ldconfig at start, which links every library of the searched directories
            // under its soname: a link that the image lacks is there then.
            if let Some(&(via, file)) = self.by_soname.get(name).and_then(|all| all.iter().find(fitting)) {
                self.found(process, &mut load, file, by, file.place.path.as_str(), Some(via));
            }
        }
        if let Some(object) = load.object.and_then(|i| process.objects.get_mut(i)) {
            object.shadows.clone_from(&load.shadows);
            load.tried.clear();
        } else {
            load.status = match () {
                () if is_injected(name) => Status::Injected,
                () if incompatible => Status::Incompatible,
                () => Status::Missing,
            };
        }
        load
    }

    fn found(
        &self,
        process: &mut Process<'a>,
        load: &mut Load<'a>,
        file: &'a FileFacts,
        by: usize,
        path: &str,
        via: Option<Via>,
    ) {
        load.object = self.insert(process, file, path, Some(by), Some(&load.name));
        load.file = Some(file);
        load.status = Status::Found;
        load.via = via;
        if let Some(object) = load.object.and_then(|i| process.objects.get_mut(i)) {
            object.via = object.via.or(via);
        }
    }

    /// Same word size and machine as who asks.
    fn fits(process: &Process<'a>, by: usize, file: &FileFacts) -> bool {
        let asks = process.objects.get(by).map(|o| o.elf);
        matches!((asks, &file.elf), (Some(a), Some(b)) if a.bits == b.bits && a.machine == b.machine)
    }

    /// Paths at which `name` is looked for, in order.
    fn candidates(&self, process: &Process<'a>, by: usize, name: &str) -> Vec<(Via, String)> {
        let mut out: Vec<(Via, String)> = Vec::new();
        // An empty or relative element means the working directory, which nobody knows.
        let mut add = |via: Via, dir: &str| {
            if dir.starts_with('/') {
                out.push((via, in_directory(dir, name)));
            }
        };
        let root = process.objects.first();
        let library_path = |add: &mut dyn FnMut(Via, &str)| {
            for dir in &self.library_path {
                match root.filter(|_| dir.contains('$') && self.libc != Libc::Musl) {
                    Some(root) => add(Via::LibraryPath, &self.expand(dir, root)),
                    None => add(Via::LibraryPath, dir),
                }
            }
        };
        let search = |add: &mut dyn FnMut(Via, &str), via: Via, dirs: &[String], object: &Object| {
            for dir in dirs {
                add(via, &self.expand(dir, object));
            }
        };
        if self.libc == Libc::Musl {
            library_path(&mut add);
            for object in process.chain(by) {
                let elf = object.elf;
                match elf.runpath.is_empty() {
                    true => search(&mut add, Via::Rpath, &elf.rpath, object),
                    false => search(&mut add, Via::Runpath, &elf.runpath, object),
                }
            }
        } else {
            let asks = process.objects.get(by);
            if asks.is_some_and(|o| o.elf.runpath.is_empty()) {
                // DT_RPATH is ignored where DT_RUNPATH stands beside it.
                for object in process.chain(by).filter(|o| o.elf.runpath.is_empty()) {
                    search(&mut add, Via::Rpath, &object.elf.rpath, object);
                }
            }
            library_path(&mut add);
            if let Some(object) = asks {
                search(&mut add, Via::Runpath, &object.elf.runpath, object);
            }
        }
        for path in self.cache.get(name).into_iter().flatten().filter(|p| p.starts_with('/')) {
            out.push((Via::Cache, (*path).to_owned()));
        }
        let mut add = |via: Via, dir: &str| out.push((via, in_directory(dir, name)));
        self.conf_dirs.iter().for_each(|d| add(Via::Conf, d));
        self.default_dirs.iter().for_each(|d| add(Via::Default, d));
        out
    }

    /// `$ORIGIN`, `$LIB` and `$PLATFORM`, with or without braces, in one pass; links and `..` stay as they are.
    fn expand(&self, text: &str, object: &Object) -> String {
        if !text.contains('$') {
            return text.to_owned();
        }
        let origin = object.opened_as.rsplit_once('/').map_or("", |(dir, _)| dir);
        let platform = match object.elf.machine.as_str() {
            "amd64" => "x86_64",
            "arm64" => "aarch64",
            other => other,
        };
        let mut out = String::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once('$') {
            out.push_str(before);
            let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
            let (name, behind) = match after.strip_prefix('{').and_then(|a| a.split_once('}')) {
                Some(braced) => braced,
                None => after.split_at(after.find(|c| !is_word(c)).unwrap_or(after.len())),
            };
            match name {
                "ORIGIN" => out.push_str(origin),
                // musl knows no other word, and drops the element.
                "LIB" if self.libc != Libc::Musl => out.push_str(self.lib),
                "PLATFORM" if self.libc != Libc::Musl => out.push_str(platform),
                _ => return String::new(),
            }
            rest = behind;
        }
        out.push_str(rest);
        out
    }
}

/// Libraries of directories that ldconfig visits, by soname: `lib*.so*`, as ldconfig takes them.
fn by_soname<'a>(
    paths: &Paths<'a>,
    conf_dirs: &[String],
    default_dirs: &[String],
) -> BTreeMap<&'a str, Vec<(Via, &'a FileFacts)>> {
    let conf = conf_dirs.iter().map(|d| (Via::Conf, d));
    let default = default_dirs.iter().map(|d| (Via::Default, d));
    let mut seen = BTreeSet::new();
    let mut out: BTreeMap<&str, Vec<(Via, &FileFacts)>> = BTreeMap::new();
    for (via, dir) in conf.chain(default).map(|(via, d)| (via, paths.real(d))) {
        if !seen.insert(dir.clone()) {
            continue;
        }
        for file in paths.files_in(&dir) {
            let name = file.place.path.file_name();
            let soname = file.elf.as_ref().and_then(|e| e.soname.as_deref());
            if let Some(soname) = soname.filter(|_| name.starts_with("lib") && name.contains(".so")) {
                out.entry(soname).or_default().push((via, *file));
            }
        }
    }
    out
}

fn push_other<'a>(others: &mut Vec<&'a FileFacts>, found: &FileFacts, file: &'a FileFacts) {
    let known = |f: &FileFacts| f.place.path == file.place.path;
    if !known(found) && !others.iter().any(|o| known(o)) {
        others.push(file);
    }
}

impl<'a> Process<'a> {
    fn learn(&mut self, object: usize, name: Option<&str>) {
        if let Some(name) = name {
            self.by_name.entry(name.to_owned()).or_insert(object);
        }
    }

    /// The object, who loaded it, who loaded that, and so on; the program comes last even where it loaded nothing.
    fn chain(&self, from: usize) -> impl Iterator<Item = &Object<'a>> {
        let mut indices = vec![from];
        // Who loads comes before what it loads, so numbers fall; a dlopen of something older ends the chain.
        while let Some(next) = indices.last().and_then(|&i| self.objects.get(i)?.loader.filter(|l| *l < i)) {
            indices.push(next);
        }
        let is_program = self.objects.first().is_some_and(|o| o.elf.interpreter.is_some());
        if is_program && indices.last() != Some(&0) {
            indices.push(0);
        }
        indices.into_iter().filter_map(|i| self.objects.get(i))
    }

    /// The object that stands for a name.
    pub fn object(&self, name: &str) -> Option<&Object<'a>> {
        self.by_name.get(name).and_then(|&i| self.objects.get(i))
    }

    /// Says that everything loaded so far was there before what comes.
    #[must_use]
    pub fn as_inherited(mut self) -> Process<'a> {
        self.inherited = self.objects.len();
        self
    }

    /// Names that were asked for and not found, with who asked, in the order of loading.
    pub fn missing(&self) -> impl Iterator<Item = (&Object<'a>, &Load<'a>)> {
        let all = self.objects.iter().skip(self.inherited).flat_map(|o| o.loads.iter().map(move |l| (o, l)));
        all.filter(|(_, l)| l.is_lost())
    }
}

fn libc_of(facts: &ImageFacts) -> Libc {
    let system = |f: &FileFacts| {
        let dir = f.place.path.parent();
        ["/lib", "/usr/lib"].iter().any(|d| dir.as_str().starts_with(d))
    };
    let has = |prefixes: &[&str]| {
        let named = |f: &FileFacts| prefixes.iter().any(|p| f.place.path.file_name().starts_with(p));
        facts.files.iter().any(|f| f.elf.is_some() && system(f) && named(f))
    };
    match () {
        () if has(&["libc.so.6", "libc-2.", "ld-linux", "ld-2."]) => Libc::Glibc,
        () if has(&["ld-musl-", "libc.musl-"]) => Libc::Musl,
        () => Libc::None,
    }
}

/// The last directories of the search, and what `$LIB` stands for.
fn default_dirs(facts: &ImageFacts, paths: &Paths, libc: Libc) -> (Vec<String>, &'static str) {
    let list = |dirs: &[&str]| dirs.iter().map(|d| (*d).to_owned()).collect::<Vec<_>>();
    if libc == Libc::Musl {
        let path = facts.files.iter().find(|f| {
            let path = f.place.path.as_str();
            path.starts_with("/etc/ld-musl-") && path.ends_with(".path")
        });
        let text = path.and_then(|f| f.text.as_deref());
        let named =
            text.map(|t| t.split([':', '\n']).filter(|d| d.starts_with('/')).map(str::to_owned).collect());
        return (named.unwrap_or_else(|| list(&["/lib", "/usr/local/lib", "/usr/lib"])), "lib");
    }
    // Debian and its children compile their multiarch directories in; the others have lib64.
    for (dir, dirs) in [
        ("lib/x86_64-linux-gnu", ["/lib/x86_64-linux-gnu", "/usr/lib/x86_64-linux-gnu", "/lib", "/usr/lib"]),
        (
            "lib/aarch64-linux-gnu",
            ["/lib/aarch64-linux-gnu", "/usr/lib/aarch64-linux-gnu", "/lib", "/usr/lib"],
        ),
    ] {
        if paths.file(&format!("/{dir}/libc.so.6")).is_some()
            || paths.file(&format!("/usr/{dir}/libc.so.6")).is_some()
        {
            return (list(&dirs), dir);
        }
    }
    if paths.file("/lib64/libc.so.6").is_some() || paths.file("/usr/lib64/libc.so.6").is_some() {
        return (list(&["/lib64", "/usr/lib64"]), "lib64");
    }
    let multiarch = if facts.image.platform.architecture == "arm64" { "aarch64" } else { "x86_64" };
    let mut dirs = list(&["/lib64", "/usr/lib64", "/lib", "/usr/lib"]);
    dirs.push(format!("/lib/{multiarch}-linux-gnu"));
    dirs.push(format!("/usr/lib/{multiarch}-linux-gnu"));
    (dirs, "lib64")
}

/// `ld.so.cache` as the scan wrote it: lines `name => path`.
fn cache_of(facts: &ImageFacts) -> BTreeMap<&str, Vec<&str>> {
    let file = facts.files.iter().find(|f| f.place.path.as_str() == "/etc/ld.so.cache");
    let mut out: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for line in file.and_then(|f| f.text.as_deref()).unwrap_or_default().lines() {
        if let Some((name, path)) = line.split_once(" => ") {
            out.entry(name).or_default().push(path);
        }
    }
    out
}

/// Directories of `/etc/ld.so.conf` and what it includes, in the order in which ldconfig takes them.
fn conf_dirs(facts: &ImageFacts, paths: &Paths) -> Vec<String> {
    let mut out = Vec::new();
    let mut files = vec!["/etc/ld.so.conf".to_owned()];
    let mut read = BTreeSet::new();
    while let Some(path) = files.pop().filter(|_| read.len() < 1000) {
        let Some(text) =
            paths.file(&path).and_then(|f| f.text.as_deref()).filter(|_| read.insert(path.clone()))
        else {
            continue;
        };
        let mut included = Vec::new();
        for line in text.lines().map(|l| l.split('#').next().unwrap_or_default().trim()) {
            if let Some(patterns) = line.strip_prefix("include ") {
                included.extend(patterns.split_whitespace().flat_map(|p| glob(facts, p)));
            } else if line.starts_with('/') {
                out.push(line.split(['\t', ' ', '=']).next().unwrap_or(line).to_owned());
            }
        }
        files.extend(included.into_iter().rev());
    }
    out
}

/// Files that a pattern with one `*` in its last part names, sorted.
fn glob(facts: &ImageFacts, pattern: &str) -> Vec<String> {
    let pattern = if pattern.starts_with('/') { pattern.to_owned() } else { format!("/etc/{pattern}") };
    let Some((front, back)) = pattern.split_once('*') else { return vec![pattern] };
    let fits = |path: &&str| {
        path.len() >= front.len() + back.len()
            && path.starts_with(front)
            && path.ends_with(back)
            && !path[front.len()..].contains('/')
    };
    facts.files.iter().map(|f| f.place.path.as_str()).filter(fits).map(str::to_owned).collect()
}
/// `/DIR/NAME`. Written out: a loader asks for tens of thousands of names.
fn in_directory(dir: &str, name: &str) -> String {
    let dir = dir.trim_matches('/');
    let mut path = String::with_capacity(dir.len() + name.len() + 2);
    for part in ["/", dir, "/", name] {
        path.push_str(part);
    }
    path
}
