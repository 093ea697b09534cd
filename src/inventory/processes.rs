//! Files of an image -> the process in which each would be opened: alone, as a program, or by a Python package whose
//! import has loaded other things before.

use super::gaps;
use super::loader::{Loader, Process};
use crate::catalog::{Catalog, PreloadRow, PreloadWhen, library_stem};
use crate::facts::{ElfFacts, FileFacts, ImageFacts, Package, PackageOrigin};
use crate::version::Version;
use std::collections::BTreeMap;

/// Opens files as the image would.
pub struct Processes<'a> {
    pub loader: Loader<'a>,
    facts: &'a ImageFacts,
    preloads: Vec<PreloadRow>,
    /// Site directory -> the interpreter that reads it.
    pythons: BTreeMap<&'a str, Option<&'a FileFacts>>,
    torch: Option<Torch<'a>>,
}

/// What `import torch` loads.
struct Torch<'a> {
    site: &'a str,
    /// After its preload lists, before its own libraries.
    base: Process<'a>,
    /// After the import.
    whole: Process<'a>,
}

/// `/usr/lib/python3/site-packages/` of a path in it.
pub fn site_directory(path: &str) -> Option<&str> {
    ["/site-packages/", "/dist-packages/"].iter().find_map(|s| path.find(s).map(|at| &path[..at + s.len()]))
}

/// The part of a path behind its site directory: `torch/lib/libc10.so`.
pub fn in_site(path: &str) -> Option<&str> {
    site_directory(path).map(|site| &path[site.len()..])
}

impl<'a> Processes<'a> {
    pub fn of(facts: &'a ImageFacts, catalog: &Catalog) -> Processes<'a> {
        let loader = Loader::of(facts);
        let mut pythons = BTreeMap::new();
        for file in facts.files.iter().filter(|f| f.elf.is_some()) {
            if let Some(site) = site_directory(file.place.path.as_str()) {
                pythons.entry(site).or_insert_with(|| python_of(site, facts, &loader));
            }
        }
        let mut processes =
            Processes { loader, facts, preloads: catalog.preloads.clone(), pythons, torch: None };
        processes.torch = processes.import_torch(catalog);
        processes
    }

    /// The process in which `file` has just been opened; what was loaded before it is marked as inherited. `None` for
    /// files that no loader opens (object files, cubins).
    pub fn open(&self, file: &'a FileFacts) -> Option<Process<'a>> {
        let elf = file.elf.as_ref().filter(|e| e.kind == "DYN" || e.kind == "EXEC")?;
        if elf.interpreter.is_some() && elf.soname.is_none() {
            return Some(self.loader.start(Some(file)));
        }
        let own_torch = self
            .torch
            .as_ref()
            .filter(|t| file.place.path.as_str().starts_with(&format!("{}torch/", t.site)));
        let mut process = match own_torch {
            // What its preload lists bring is torch's own doing, and its failure torch's own.
            Some(torch) => torch.base.clone(),
            None => self.before(file).as_inherited(),
        };
        let caller = process.objects.first().filter(|o| o.elf.interpreter.is_some()).map(|_| 0);
        self.loader.open(&mut process, file, caller)?;
        Some(process)
    }

    /// What has been loaded before a file of a Python package is opened. A library of the CUDA stack or of the system
    /// is looked at alone, since anything may open it.
    fn before(&self, file: &'a FileFacts) -> Process<'a> {
        let path = file.place.path.as_str();
        let Some(site) = site_directory(path) else { return self.loader.start(None) };
        let rest = &path[site.len()..];
        if rest.starts_with("nvidia/") || rest.contains(".libs/") {
            return self.loader.start(None);
        }
        if self.uses_torch(site, file)
            && let Some(process) = self.torch()
        {
            return process.clone();
        }
        let mut process = self.start_python(site);
        let rows = self.preloads(PreloadWhen::Import, rest, site);
        self.preload(&mut process, &rows, site);
        process
    }

    fn start_python(&self, site: &str) -> Process<'a> {
        self.loader.start(self.pythons.get(site).copied().flatten())
    }

    /// The process after `import torch`.
    pub fn torch(&self) -> Option<&Process<'a>> {
        self.torch.as_ref().map(|t| &t.whole)
    }

    fn import_torch(&self, catalog: &Catalog) -> Option<Torch<'a>> {
        let is_main = |f: &&FileFacts| in_site(f.place.path.as_str()) == Some("torch/lib/libtorch_python.so");
        let main = self.facts.files.iter().find(is_main)?;
        let site = site_directory(main.place.path.as_str())?;
        let global = self.loader.paths.file(&format!("{site}torch/lib/libtorch_global_deps.so"));
        let mut process = self.start_python(site);
        if let Some(global) = global {
            let before = process.clone();
            self.loader.open(&mut process, global, None);
            // Only an error that names a CUDA library makes torch try again.
            let names_cuda = process.missing().any(|(_, load)| catalog.component_of(&load.name).is_some());
            let failed = names_cuda || !gaps::find(&process).is_empty();
            let fallback = self.preloads(PreloadWhen::LoadError, "torch/", site);
            if failed && !fallback.is_empty() {
                // What failed to load is unloaded again; the second attempt finds what the list brought.
                process = before;
                self.preload(&mut process, &fallback, site);
                self.loader.open(&mut process, global, None);
            }
        }
        let rows = self.preloads(PreloadWhen::Import, "torch/", site);
        self.preload(&mut process, &rows, site);
        let base = process.clone();
        self.loader.open(&mut process, main, None)?;
        Some(Torch { site, base, whole: process.as_inherited() })
    }

    /// Whether a file's package imports torch first: it needs torch's libraries, or its distribution requires torch.
    fn uses_torch(&self, site: &str, file: &FileFacts) -> bool {
        let needs = file.elf.as_ref().is_some_and(ElfFacts::needs_torch);
        // bitsandbytes imports torch first, though its metadata named it only from 0.43 on.
        let imports = in_site(file.place.path.as_str()).is_some_and(|rest| rest.starts_with("bitsandbytes/"));
        needs || imports || self.distribution(site, file).is_some_and(requires_torch)
    }

    /// The distribution that a file's top-level module is named after.
    fn distribution(&self, site: &str, file: &FileFacts) -> Option<&'a Package> {
        let module = file.place.path.as_str().get(site.len()..)?.split(['/', '.']).next()?;
        let name = module.to_ascii_lowercase().replace('_', "-");
        self.installed(&name, site)
    }

    /// An installed distribution by its normalised name.
    fn installed(&self, name: &str, site: &str) -> Option<&'a Package> {
        let is_it = |p: &&Package| {
            p.fact.origin == PackageOrigin::Pip
                && p.fact.name == name
                && p.place.path.as_str().starts_with(site)
        };
        self.facts.packages.iter().find(is_it)
    }

    /// Preload lists of the package that a file belongs to, for the version that is installed.
    fn preloads(&self, when: PreloadWhen, rest: &str, site: &str) -> Vec<&PreloadRow> {
        let version =
            |row: &PreloadRow| Version::leading(&self.installed(&row.distribution, site)?.fact.version);
        let fits = |row: &&PreloadRow| {
            row.when == when
                && row.modules.iter().any(|m| rest.starts_with(m.as_str()))
                && version(row).is_some_and(|v| row.from <= v && v < row.below)
        };
        self.preloads.iter().filter(fits).collect()
    }

    /// Opens the libraries of preload lists by their absolute paths below the site directory, in their order.
    fn preload(&self, process: &mut Process<'a>, rows: &[&PreloadRow], site: &str) {
        for stem in rows.iter().flat_map(|r| &r.libraries) {
            if let Some(file) = self.in_nvidia_directories(site, stem) {
                self.loader.open(process, file, None);
            }
        }
    }

    /// A library in the directories of NVIDIA's wheels: `nvidia/*/lib`, and `*/lib` for cuSPARSELt and cuTENSOR.
    pub fn in_nvidia_directories(&self, site: &str, stem: &str) -> Option<&'a FileFacts> {
        let fits = |f: &&FileFacts| {
            let Some(rest) = f.place.path.as_str().strip_prefix(site) else { return false };
            let parts: Vec<&str> = rest.split('/').collect();
            let in_place =
                matches!(parts.as_slice(), ["nvidia", _, "lib", _] | ["cusparselt" | "cutensor", "lib", _]);
            in_place && f.elf.is_some() && library_stem(f.place.path.file_name()).as_deref() == Some(stem)
        };
        self.facts.files.iter().find(fits)
    }
}

fn requires_torch(package: &Package) -> bool {
    package.fact.requires.iter().any(|r| {
        let name: String =
            r.chars().take_while(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.')).collect();
        name.eq_ignore_ascii_case("torch") && !r.contains("extra")
    })
}

/// The interpreter of a site directory: `PREFIX/bin/python3.11` of `PREFIX/lib/python3.11/site-packages`, where Debian's
/// `/usr/local` belongs to `/usr/bin`.
fn python_of<'a>(site: &str, facts: &ImageFacts, loader: &Loader<'a>) -> Option<&'a FileFacts> {
    let (prefix, rest) = site.rsplit_once("/lib/python").or_else(|| site.rsplit_once("/lib64/python"))?;
    let version = rest.split('/').next().unwrap_or_default();
    let mut prefixes = vec![prefix.to_owned()];
    if prefix == "/usr/local" {
        prefixes.push("/usr".to_owned());
    }
    let path = facts.image.config.env("PATH").unwrap_or_default();
    let on_path = path.split(':').filter_map(|d| d.strip_suffix("/bin")).map(str::to_owned);
    prefixes.extend(on_path);
    let names = [format!("python{version}"), "python3".to_owned(), "python".to_owned()];
    let all = prefixes.iter().flat_map(|p| names.iter().map(move |n| format!("{p}/bin/{n}")));
    all.filter_map(|p| loader.paths.file(&p)).find(|f| f.elf.is_some())
}
