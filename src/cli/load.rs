//! Options -> opened image -> facts, with the catalog, the cache and the password they need.

use super::args::{DepthName, OutputArgs, SourceArgs, StoreArgs};
use super::{Exit, progress, remark, say, say_layers, status, status_of};
use crate::catalog::Catalog;
use crate::facts::json::{TimingJson, ToolJson};
use crate::facts::{Depth, ImageFacts, json};
use crate::image::reference::Reference;
use crate::image::registry::{Registry, RegistryOptions};
use crate::image::source::Source;
use crate::image::{self, Error, Image, OpenOptions};
use crate::limits;
use crate::names::Platform;
use crate::scan::cache::referrers::Referrers;
use crate::scan::cache::{Cache, ObjectStore, Place, Secret};
use crate::{Examined, examine, examine_stream, scan};
use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

/// Facts, how they were come by, and what was missed.
pub(super) struct Loaded {
    pub(super) facts: ImageFacts,
    pub(super) timing: TimingJson,
    pub(super) errors: Vec<Error>,
}

/// The images or the facts documents that were typed; an error where neither or both are there.
pub(super) fn inputs(images: &[String], source: &SourceArgs) -> Result<Vec<Input>, Error> {
    one_reader(images, source, None)?;
    match (images, source.facts.as_slice()) {
        ([], []) => Err(Error::usage("no image given").hint("cudalint IMAGE --host-driver 535 --gpu h100")),
        ([], files) => Ok(files.iter().map(|f| Input::Facts(f.clone())).collect()),
        (images, []) => Ok(images.iter().map(|i| Input::Image(i.clone())).collect()),
        (_, _) => Err(Error::usage("an image and --facts exclude each other")),
    }
}

/// Standard input can be read once: as an image, as the targets, or as a password.
pub(super) fn one_reader(
    images: &[String],
    source: &SourceArgs,
    targets: Option<&Path>,
) -> Result<(), Error> {
    let images = images.iter().filter(|i| *i == "-").count();
    let others = usize::from(targets == Some(Path::new("-"))) + usize::from(source.password_stdin);
    match images + others {
        0 | 1 => Ok(()),
        _ => Err(Error::usage(
            "standard input is asked for more than once: image `-`, --targets -, --password-stdin",
        )),
    }
}

/// The one image or facts document of a command that takes no more.
pub(super) fn one_input(image: Option<&String>, source: &SourceArgs) -> Result<Input, Error> {
    let images: Vec<String> = image.into_iter().cloned().collect();
    let mut inputs = inputs(&images, source)?;
    match (inputs.pop(), inputs.len()) {
        (Some(input), 0) => Ok(input),
        (_, more) => Err(Error::usage(format!("this command takes one facts document, not {}", more + 1))),
    }
}

pub(super) enum Input {
    Image(String),
    Facts(PathBuf),
}

/// Loads one input.
pub(super) fn load(input: &Input, source: &SourceArgs, output: &OutputArgs) -> Result<Loaded, Error> {
    match input {
        Input::Facts(file) => from_document(file),
        Input::Image(image) => Reading::new(source)?.bars(image, output),
    }
}

/// Loads every input and hands it over. One image out of several that cannot be opened is said and left out: the others are
/// still examined. Gives the exit statuses of what was missed.
pub(super) fn each(
    inputs: &[Input],
    source: &SourceArgs,
    output: &OutputArgs,
    mut take: impl FnMut(Loaded) -> Result<(), Error>,
) -> Result<Exit, Error> {
    let mut exit = Exit::default();
    let reading = match inputs.iter().any(|i| matches!(i, Input::Image(_))) {
        true => Some(Reading::new(source)?),
        false => None,
    };
    for input in inputs {
        let loaded = match (input, &reading) {
            (Input::Image(image), Some(reading)) => reading.bars(image, output),
            _ => load(input, source, output),
        };
        match loaded {
            Ok(loaded) => {
                say_layers(&loaded.errors);
                if !loaded.errors.is_empty() || !loaded.facts.complete {
                    exit.add(status::LOOK);
                }
                take(loaded)?;
            }
            Err(error) if inputs.len() > 1 => {
                say(&error);
                exit.add(status_of(&error));
            }
            Err(error) => return Err(error),
        }
    }
    Ok(exit)
}

/// Loads every input, for what looks at all of them together.
pub(super) fn all(
    inputs: &[Input],
    source: &SourceArgs,
    output: &OutputArgs,
) -> Result<(Vec<Loaded>, Exit), Error> {
    let mut out = Vec::new();
    let exit = each(inputs, source, output, |loaded| {
        out.push(loaded);
        Ok(())
    })?;
    Ok((out, exit))
}

fn from_document(file: &Path) -> Result<Loaded, Error> {
    let name = file.display();
    let opened =
        std::fs::File::open(file).map_err(|e| Error::usage(format!("facts document `{name}`: {e}")))?;
    let mut bytes = Vec::new();
    opened
        .take(limits::FACTS_BYTES_MAX)
        .read_to_end(&mut bytes)
        .map_err(|e| Error::usage(format!("facts document `{name}`: {e}")))?;
    let mut facts = json::read(&bytes).map_err(|e| Error::usage(format!("facts document `{name}`: {e}")))?;
    let reference = &facts.image.reference;
    facts.image.repository =
        Source::parse(reference).map_or_else(|_| reference.clone(), |source| source.repository());
    let counts = facts.counts;
    let timing = TimingJson { files: counts.files, elf_files: counts.elf_files, ..TimingJson::default() };
    let missing =
        || Error::look(format!("facts document `{name}`: a layer could not be read when it was made"));
    let errors = if facts.complete { Vec::new() } else { vec![missing().hint("scan the image again")] };
    Ok(Loaded { facts, timing, errors })
}

/// The word for a shared cache that stands beside each image in its registry.
pub(super) const REFERRERS: &str = "referrers";

/// What all images of one command are read with.
pub(super) struct Reading {
    open: OpenOptions,
    cache: Cache,
    scan: scan::Options,
    /// See [`Kept::referrers`].
    referrers: Option<(AtomicBool, Option<Secret>)>,
}

impl Reading {
    pub(super) fn new(args: &SourceArgs) -> Result<Reading, Error> {
        if args.hash_files && args.depth == DepthName::Libraries {
            return Err(Error::usage("--hash-files reads whole files, --depth libraries does not")
                .hint("leave one of them out"));
        }
        let Kept { cache, referrers } = kept(&args.store, args.offline, None)?;
        let mut open = open_options(args)?;
        open.documents = Some(Arc::new(cache.clone()));
        let scan = scan::Options {
            jobs: args.jobs,
            hash_files: args.hash_files,
            verify_diff_ids: args.verify_diff_ids,
            depth: match args.depth {
                DepthName::Full => Depth::Full,
                DepthName::Libraries => Depth::Libraries,
            },
            verify_blobs: args.verify_blobs,
            ..scan::Options::default()
        };
        Ok(Reading { open, cache, scan, referrers })
    }

    /// The same for images that are looked at at the same time: each takes its layers one by one, and all of them share
    /// the memory of one.
    pub(super) fn for_many(mut self) -> Reading {
        self.scan.jobs = 1;
        self.scan.budget = Some(scan::Budget::default());
        self
    }

    /// A repository, over the connections of the images.
    pub(super) fn registry(&self, reference: &Reference) -> Result<Registry, Error> {
        self.may_ask(reference)?;
        self.open.connections.registry(reference, &self.open.registry)
    }

    fn may_ask(&self, what: &dyn std::fmt::Display) -> Result<(), Error> {
        match self.open.offline {
            true => {
                Err(Error::usage(format!("`{what}` is in a registry, and --offline forbids the network")))
            }
            false => Ok(()),
        }
    }

    pub(super) fn take_remarks(&self) -> Vec<String> {
        self.cache.take_remarks()
    }

    /// Loads an image, with bars on a terminal.
    fn bars(&self, typed: &str, output: &OutputArgs) -> Result<Loaded, Error> {
        let loaded = Source::parse(typed).and_then(|source| self.image(&source, Some(output)));
        for text in self.take_remarks() {
            remark(&text);
        }
        loaded
    }

    /// Loads an image.
    pub(super) fn image(&self, source: &Source, output: Option<&OutputArgs>) -> Result<Loaded, Error> {
        let begin = Instant::now();
        if matches!(source, Source::Registry(_)) {
            self.may_ask(source)?;
        }
        let (image, examined) = if let Some(stream) = image::stream(source, &self.open)? {
            examine_stream(stream, source, &self.open, &self.cache, &self.scan)?
        } else {
            let image = Image::open(source, &self.open)?;
            let progress = output.and_then(|output| progress::start(&image, output));
            let listener = progress.as_ref().map(progress::Bars::listener);
            let examined = self.examine(&image, listener);
            if let Some(progress) = progress {
                progress.finish();
            }
            (image, examined)
        };
        self.cache.keep_small();
        let counts = examined.facts.counts;
        if counts.by_table > 0 {
            let text = "layers are read by their tables of contents: tables and files are checked against their digests, \
                        layers as a whole are not (--verify-blobs reads them)";
            self.cache.remark(text, text.to_owned());
        }
        let timing = TimingJson {
            total_ms: u64::try_from(begin.elapsed().as_millis()).unwrap_or(u64::MAX),
            bytes_downloaded: image.bytes_downloaded(),
            bytes_decompressed: counts.bytes_decompressed,
            files: counts.files,
            elf_files: counts.elf_files,
            layers_cached: examined.layers_cached,
            layers_by_table: counts.by_table,
            spills: counts.spills,
        };
        Ok(Loaded { facts: examined.facts, timing, errors: examined.errors })
    }

    fn examine(&self, image: &Image, listener: Option<Arc<dyn scan::Progress>>) -> Examined {
        let options = scan::Options { progress: listener, ..self.scan.clone() };
        let (Some((may_write, secret)), Some(registry), Some(digest)) =
            (&self.referrers, image.registry(), &image.identity.digest)
        else {
            return examine(image, &self.cache, &options);
        };
        let place = Arc::new(Referrers::new(registry.clone(), digest.as_str()));
        let writes = may_write.load(Ordering::Relaxed);
        let cache = self.cache.with(Arc::clone(&place) as Arc<dyn Place>, writes, secret.clone());
        let examined = examine(image, &cache, &options);
        if let Err(error) = place.push() {
            // The next image is in the same registry, most often, and refused alike.
            may_write.store(false, Ordering::Relaxed);
            let text =
                format!("{} cannot be written: {}; nothing more is kept there", place.name(), error.message);
            self.cache.remark(&place.name(), text);
        }
        examined
    }
}

/// The caches of one command.
pub(super) struct Kept {
    pub(super) cache: Cache,
    /// Facts stand beside each image in its registry, signed with a secret or not; whether to write them.
    referrers: Option<(AtomicBool, Option<Secret>)>,
}

impl Kept {
    pub(super) fn is_in_registries(&self) -> bool {
        self.referrers.is_some()
    }
}

pub(super) fn kept(args: &StoreArgs, offline: bool, patience: Option<Duration>) -> Result<Kept, Error> {
    let mut cache = cache(args.cache_dir.as_deref(), args.no_cache, args.cache_max_size);
    let secret = args.cache_key.as_deref().map(Secret::read).transpose();
    let secret = secret.map_err(|why| Error::usage(format!("--cache-key {why}")))?;
    let may_write = !args.shared_cache_read_only;
    let mut referrers = None;
    match args.shared_cache.as_deref().filter(|place| !place.is_empty() && !args.no_cache) {
        None => {}
        Some(place)
            if offline && (place == REFERRERS || place.contains("://") && !place.starts_with("file://")) =>
        {
            return Err(Error::usage(format!("--shared-cache {place}: --offline forbids the network")));
        }
        Some(REFERRERS) => referrers = Some((AtomicBool::new(may_write), secret)),
        Some(place) => {
            let store = ObjectStore::open(place, environment())?;
            let store = match patience {
                Some(patience) => store.patience(patience),
                None => store,
            };
            cache = cache.with(Arc::new(store), may_write, secret);
        }
    }
    Ok(Kept { cache, referrers })
}

/// Where credentials of object stores come from.
pub(super) fn environment() -> Vec<(String, String)> {
    std::env::vars_os().filter_map(|(k, v)| Some((k.into_string().ok()?, v.into_string().ok()?))).collect()
}

pub(super) fn open_options(args: &SourceArgs) -> Result<OpenOptions, Error> {
    let platform = match &args.platform {
        Some(text) => Some(Platform::parse(text).ok_or_else(|| {
            Error::usage(format!("`{text}` is no platform"))
                .hint("os/architecture[/variant], such as linux/arm64")
        })?),
        None => None,
    };
    let password = match args.password_stdin {
        true => Some(password_from_stdin()?),
        false => None,
    };
    let timeout = match &args.timeout {
        Some(text) => Some(duration(text).ok_or_else(|| {
            Error::usage(format!("`{text}` is no duration"))
                .hint("a number with s, m or h, such as 90s or 10m")
        })?),
        None => None,
    };
    let registry = RegistryOptions {
        username: args.username.clone(),
        password,
        token: args.registry_token.clone(),
        authfile: args.authfile.clone(),
        insecure: args.insecure,
        ca_file: args.ca_file.clone(),
        tls_cert: args.tls_cert.clone(),
        tls_key: args.tls_key.clone(),
        timeout,
        lent: false,
        confined: false,
    };
    Ok(OpenOptions { platform, registry, offline: args.offline, ..OpenOptions::default() })
}

/// Standard input gives it once; a command may log in twice.
static PASSWORD: OnceLock<String> = OnceLock::new();

fn password_from_stdin() -> Result<String, Error> {
    if let Some(known) = PASSWORD.get() {
        return Ok(known.clone());
    }
    const PASSWORD_BYTES_MAX: u64 = 64 << 10;
    let mut text = String::new();
    std::io::stdin()
        .take(PASSWORD_BYTES_MAX)
        .read_to_string(&mut text)
        .map_err(|e| Error::usage(format!("--password-stdin: {e}")))?;
    let password = text.trim_end_matches(['\r', '\n']).to_owned();
    if password.is_empty() {
        return Err(Error::usage("--password-stdin: standard input is empty"));
    }
    Ok(PASSWORD.get_or_init(|| password).clone())
}

pub(super) fn duration(text: &str) -> Option<Duration> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let number: u64 = digits.parse().ok()?;
    let seconds = match text.get(digits.len()..)? {
        "ms" => return Some(Duration::from_millis(number)),
        "" | "s" => 1,
        "m" => 60,
        "h" => 3600,
        _ => return None,
    };
    Some(Duration::from_secs(number.checked_mul(seconds)?))
}

/// `--cache-dir`, else `$XDG_CACHE_HOME/cudalint`, else `~/.cache/cudalint`; no cache where none of them is known.
pub(super) fn cache(dir: Option<&Path>, none: bool, bytes_max: u64) -> Cache {
    if none {
        return Cache::none();
    }
    let set = |name: &str| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
    let default = || {
        set("XDG_CACHE_HOME").or_else(|| Some(set("HOME")?.join(".cache"))).map(|base| base.join("cudalint"))
    };
    dir.map(Path::to_owned).or_else(default).map_or_else(Cache::none, |dir| Cache::at(&dir, bytes_max))
}

/// The built-in catalog, with the TOML files of `dir` laid over it.
pub(super) fn catalog(dir: Option<&Path>) -> Result<Catalog, Error> {
    let mut overlay = BTreeMap::new();
    if let Some(dir) = dir {
        let failed = |e: std::io::Error| Error::usage(format!("--catalog `{}`: {e}", dir.display()));
        for entry in std::fs::read_dir(dir).map_err(failed)? {
            let path = entry.map_err(failed)?.path();
            let is_toml = path.extension().is_some_and(|e| e == "toml");
            if let Some(stem) = path.file_stem().filter(|_| is_toml) {
                let text = std::fs::read_to_string(&path).map_err(failed)?;
                overlay.insert(stem.to_string_lossy().into_owned(), text);
            }
        }
    }
    Catalog::with_overlay(&overlay).map_err(|e| Error::usage(e.to_string()))
}

/// Who wrote a document, and how new its knowledge is.
pub(super) fn tool(catalog: &Catalog) -> ToolJson {
    let overlay = match catalog.overlays.is_empty() {
        true => String::new(),
        false => format!(" + {}", catalog.overlays.join(", ")),
    };
    ToolJson {
        name: "cudalint".to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        facts: format!("{}{overlay}", catalog.as_of),
    }
}
