//! `cudalint sweep LIST`: many images, several at a time -> one row of NDJSON each, and a report over all of them.
//!
//! The results file is the state: a sweep that was stopped goes on where its rows end, and one that is done does nothing.

use super::args::SweepArgs;
use super::load::{self, Loaded, Reading};
use super::{Exit, check, output, remark, say, status, targets};
use crate::catalog::Catalog;
use crate::facts::json;
use crate::image::Error;
use crate::image::reference::Reference;
use crate::image::source::Source;
use crate::names::{Digest, Platform};
use crate::render::{pretty, style};
use crate::report::Level;
use crate::rules::{Judge, Policy};
use crate::sweep::list::{self, Wanted};
use crate::sweep::rows::{Cost, ImageRowJson, Row, SWEEP_SCHEMA, StartJson, Status, judged, unreadable};
use crate::sweep::{Shard, summary};
use crate::target::Target;
use crate::{inventory, limits};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{File, TryLockError};
use std::io::{self, BufRead, BufReader, IsTerminal, Read, Seek, Write};
use std::ops::Range;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

const CATALOG: &str = "catalog:";

pub(super) fn run(args: &SweepArgs) -> Result<u8, Error> {
    if !args.results.is_empty() {
        return report_on(args);
    }
    let Some(list) = args.list.as_deref() else {
        return Err(Error::usage("no list given")
            .hint("a file of image names, catalog:HOST, or `-` for what kubectl, helm or kustomize print"));
    };
    load::one_reader(&[list.to_owned()], &args.source, args.target.targets.as_deref())?;
    if !args.source.facts.is_empty() {
        return Err(
            Error::usage("a sweep looks at images, not at facts documents").hint("cudalint check --facts")
        );
    }
    let catalog = load::catalog(args.target.catalog.as_deref())?;
    let targets = targets::targets(&args.target, &catalog)?;
    let shard = shard(args)?;
    let reading = Reading::new(&args.source)?.for_many();
    let mut wanted = wanted(list, args, &reading)?;
    wanted.retain(|image| shard.takes(&image.reference));
    let start = StartJson {
        sweep_schema: SWEEP_SCHEMA,
        tool: load::tool(&catalog),
        as_of: output::as_of(args.as_of.as_deref())?,
        targets: targets.iter().map(|t| t.name.clone()).collect(),
        settings: settings(args, &targets, &catalog),
        shard: (shard.count > 1).then(|| format!("{}/{}", shard.index, shard.count)),
    };
    let results = match args.output.as_deref() {
        Some(file) => Results::open(file, start, args)?,
        None => Results::to_stdout(start)?,
    };
    let todo: Vec<&Wanted> = wanted.iter().filter(|w| !results.done.contains(&w.reference)).collect();
    if todo.len() < wanted.len() {
        remark(&format!("{} of {} images are done already", wanted.len() - todo.len(), wanted.len()));
    }
    let sweep = Sweep { args, catalog: &catalog, targets: &targets, reading: &reading, results: &results };
    sweep.all(&todo)?;
    let mut exit = Exit::default();
    let as_of = results.start.as_of.clone();
    let rows = results.finish()?;
    // Rows of images that are no more on the list stay in the file and out of the report.
    let asked: BTreeSet<&str> = wanted.iter().map(|w| w.reference.as_str()).collect();
    let rows: Vec<ImageRowJson> =
        rows.into_iter().filter(|row| asked.contains(row.reference.as_str())).collect();
    for row in &rows {
        exit.add(status_of(row, args));
    }
    if args.output.is_some() {
        tell(&summary::summary(&as_of, rows), args)?;
    }
    Ok(exit.status())
}

/// The report over results of earlier sweeps, of all shards together.
fn report_on(args: &SweepArgs) -> Result<u8, Error> {
    let mut rows: BTreeMap<String, ImageRowJson> = BTreeMap::new();
    let mut exit = Exit::default();
    let mut starts: Vec<StartJson> = Vec::new();
    for file in &args.results {
        let found = read_results(file)?;
        let Some(start) = found.start else {
            return Err(Error::usage(format!("`{}` holds no results of a sweep", file.display())));
        };
        if let Some(first) = starts.first()
            && (&first.targets, &first.settings, &first.tool)
                != (&start.targets, &start.settings, &start.tool)
        {
            return Err(Error::usage(format!(
                "`{}` was judged for other hosts, with other settings or by another version than `{}`",
                file.display(),
                args.results.first().map(|f| f.display().to_string()).unwrap_or_default()
            )));
        }
        starts.push(start);
        rows.extend(found.rows.into_iter().map(|row| (row.reference.clone(), row)));
    }
    let shards: BTreeSet<&str> = starts.iter().filter_map(|s| s.shard.as_deref()).collect();
    let count = shards.iter().find_map(|s| s.split_once('/')?.1.parse::<usize>().ok()).unwrap_or(0);
    if shards.len() < count {
        say(&Error::look(format!("results of {} of {count} shards are missing", count - shards.len()))
            .hint("name the files of all of them with --results"));
        exit.add(status::LOOK);
    }
    for row in rows.values() {
        exit.add(status_of(row, args));
    }
    let as_of = starts.iter().map(|s| s.as_of.as_str()).max().unwrap_or_default();
    tell(&summary::summary(as_of, rows.into_values()), args)?;
    Ok(exit.status())
}

fn tell(summary: &summary::SummaryJson, args: &SweepArgs) -> Result<(), Error> {
    let text = if args.json { pretty(summary) } else { summary::text(summary) };
    output::to_stdout(text.as_bytes())
}

fn status_of(row: &ImageRowJson, args: &SweepArgs) -> u8 {
    match row.status {
        Status::Unreadable if row.error.as_ref().is_some_and(|e| e.usage) => return status::USAGE,
        Status::Unreadable | Status::Incomplete => return status::LOOK,
        Status::Judged => {}
    }
    let fails = |level: &str| {
        let level = Level::of_name(level).unwrap_or(Level::Note);
        check::threshold(args.fail_on).is_some_and(|from| level >= from)
    };
    if row.findings.iter().any(|f| !f.suppressed && fails(&f.level)) { status::FINDINGS } else { status::OK }
}

/// What rows depend on beside image and program.
fn settings(args: &SweepArgs, targets: &[Target], catalog: &Catalog) -> String {
    let platform = args.source.platform.clone().unwrap_or_else(|| Platform::of_this_machine().to_string());
    let text = format!("{targets:?} {catalog:?} {platform} {:?} {}", args.source.depth, args.with_facts);
    Digest::of(text.as_bytes()).to_string()
}

fn shard(args: &SweepArgs) -> Result<Shard, Error> {
    if args.shards == 0 || args.shards == 1 && args.shard.is_some_and(|index| index > 0) {
        return Err(
            Error::usage("--shard says which of --shards this is").hint("such as --shards 8 --shard 3")
        );
    }
    if args.shards == 1 {
        return Ok(Shard { index: 0, count: 1 });
    }
    // Kubernetes numbers the pods of an Indexed Job so.
    let of_job = || std::env::var("JOB_COMPLETION_INDEX").ok().and_then(|text| text.trim().parse().ok());
    let Some(index) = args.shard.or_else(of_job) else {
        return Err(Error::usage(format!("--shards {} needs to know which of them this is", args.shards))
            .hint("give --shard, or run as an Indexed Job, which sets JOB_COMPLETION_INDEX"));
    };
    if index >= args.shards {
        return Err(Error::usage(format!(
            "shard {index} of {}: they are numbered from 0 to {}",
            args.shards,
            args.shards - 1
        )));
    }
    Ok(Shard { index, count: args.shards })
}

fn wanted(list: &str, args: &SweepArgs, reading: &Reading) -> Result<Vec<Wanted>, Error> {
    let mut wanted = if let Some(host) = list.strip_prefix(CATALOG) {
        of_registry(host, reading)?
    } else {
        let text = read_list(list)?;
        list::read(&text).map_err(|e| Error::usage(format!("list `{list}`: {e}")))?
    };
    let only = globs("only", &args.only)?;
    let skip = globs("skip", &args.skip)?;
    wanted.retain(|w| (args.only.is_empty() || only.is_match(&w.reference)) && !skip.is_match(&w.reference));
    if wanted.is_empty() {
        remark(&format!("list `{list}` names no image"));
    }
    Ok(wanted)
}

fn globs(option: &str, patterns: &[String]) -> Result<globset::GlobSet, Error> {
    let mut set = globset::GlobSetBuilder::new();
    for pattern in patterns {
        let glob = globset::Glob::new(pattern).map_err(|e| Error::usage(format!("--{option}: {e}")))?;
        set.add(glob);
    }
    set.build().map_err(|e| Error::usage(format!("--{option}: {e}")))
}

fn read_list(list: &str) -> Result<String, Error> {
    let failed = |e: io::Error| Error::usage(format!("list `{list}`: {e}"));
    let mut bytes = Vec::new();
    let reader: Box<dyn Read> = match list {
        "-" => Box::new(io::stdin()),
        file => Box::new(File::open(file).map_err(failed)?),
    };
    reader.take(limits::LIST_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > limits::LIST_BYTES_MAX {
        return Err(Error::usage(format!("list `{list}` is larger than {} bytes", limits::LIST_BYTES_MAX)));
    }
    String::from_utf8(bytes).map_err(|_| Error::usage(format!("list `{list}` is no UTF-8 text")))
}

/// `HOST` or `HOST/PREFIX`: every tag of every repository that the registry lists.
fn of_registry(place: &str, reading: &Reading) -> Result<Vec<Wanted>, Error> {
    let (host, prefix) = place.split_once('/').unwrap_or((place, ""));
    if host.is_empty() {
        return Err(Error::usage("catalog: names no registry").hint("catalog:HOST or catalog:HOST/PREFIX"));
    }
    // A reference of that host carries connections and login; its repository is not asked for.
    let any = Reference::parse(&format!("{host}/any"))?;
    let registry = reading.registry(&any)?;
    let mut wanted = Vec::new();
    let image = |reference| Wanted { reference, wanted_by: Vec::new(), in_registry: true };
    for repository in registry.repositories()?.into_iter().filter(|name| name.starts_with(prefix)) {
        let name = format!("{host}/{repository}");
        let tags = Reference::parse(&name).and_then(|reference| reading.registry(&reference)?.tags());
        match tags {
            Ok(tags) => wanted.extend(tags.into_iter().map(|tag| image(format!("{name}:{tag}")))),
            // Looking at it will say in a row why it cannot be read.
            Err(_) => wanted.push(image(name)),
        }
        if wanted.len() > limits::CATALOG_ENTRIES_MAX {
            return Err(Error::look(format!(
                "`{host}` has more than {} images",
                limits::CATALOG_ENTRIES_MAX
            ))
            .hint("take a part of it: catalog:HOST/PREFIX"));
        }
    }
    Ok(wanted)
}

/// One sweep at work.
struct Sweep<'a> {
    args: &'a SweepArgs,
    catalog: &'a Catalog,
    targets: &'a [Target],
    reading: &'a Reading,
    results: &'a Results,
}

impl Sweep<'_> {
    fn all(&self, todo: &[&Wanted]) -> Result<(), Error> {
        let next = AtomicUsize::new(0);
        let failed: Mutex<Option<Error>> = Mutex::new(None);
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        // Small images wait for the registry more than they work.
        let jobs = if self.args.source.jobs == 0 { cores * 2 } else { self.args.source.jobs };
        let bar = self.bar(todo.len());
        std::thread::scope(|scope| {
            for _ in 0..jobs.clamp(1, limits::SWEEP_WORKERS_MAX).min(todo.len()) {
                scope.spawn(|| {
                    while let Some(wanted) = todo.get(next.fetch_add(1, Ordering::Relaxed)) {
                        let row = self.image(wanted);
                        for text in self.reading.take_remarks() {
                            remark(&text);
                        }
                        if let Some(error) = &row.error {
                            let hint = error.hint.clone();
                            say(&Error { hint, ..Error::look(error.message.clone()) });
                        }
                        bar.inc(1);
                        if let Err(error) = self.results.add(row) {
                            if let Some(error) = error {
                                failed.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
                            }
                            // Rows that cannot be kept are not worth the work.
                            next.store(usize::MAX / 2, Ordering::Relaxed);
                        }
                    }
                });
            }
        });
        bar.finish_and_clear();
        match failed.into_inner().unwrap_or_else(PoisonError::into_inner) {
            Some(error) => Err(error),
            None => Ok(()),
        }
    }

    fn bar(&self, count: usize) -> indicatif::ProgressBar {
        if self.args.no_progress || !io::stderr().is_terminal() {
            return indicatif::ProgressBar::hidden();
        }
        let style = indicatif::ProgressStyle::with_template("{pos}/{len} images {wide_bar} {eta}");
        let style = style.unwrap_or_else(|_| indicatif::ProgressStyle::default_bar());
        indicatif::ProgressBar::new(count as u64).with_style(style)
    }

    fn image(&self, wanted: &Wanted) -> ImageRowJson {
        let begin = Instant::now();
        let source = match wanted.in_registry {
            true => Reference::parse(&wanted.reference).map(Source::Registry),
            false => Source::parse(&wanted.reference),
        };
        match source.and_then(|source| self.reading.image(&source, None)) {
            Ok(loaded) => self.judged(wanted, &loaded),
            Err(error) => {
                let ms = u64::try_from(begin.elapsed().as_millis()).unwrap_or(u64::MAX);
                unreadable(wanted, &error, ms)
            }
        }
    }

    fn judged(&self, wanted: &Wanted, loaded: &Loaded) -> ImageRowJson {
        let inventory = inventory::build(&loaded.facts, self.catalog);
        let policy = Policy { as_of: self.results.start.as_of.clone(), ..Policy::default() };
        let judge = Judge::new(&inventory, self.catalog).with(policy);
        let report = crate::judged(&inventory, &judge, self.targets);
        let document = || json::write(&loaded.facts, load::tool(self.catalog), None);
        let facts = self.args.with_facts.then(document);
        let cost = Cost {
            total_ms: loaded.timing.total_ms,
            bytes_downloaded: loaded.timing.bytes_downloaded,
            layers_cached: loaded.timing.layers_cached,
        };
        judged(wanted, &report, &judge, self.targets, &loaded.errors, facts.as_ref(), cost)
    }
}

/// The file of rows, or standard output.
struct Results {
    start: StartJson,
    done: BTreeSet<String>,
    out: Mutex<Out>,
}

struct Out {
    writer: Box<dyn Write + Send>,
    name: String,
    rows: Vec<ImageRowJson>,
}

impl Results {
    fn to_stdout(start: StartJson) -> Result<Results, Error> {
        let writer = Box::new(io::stdout());
        Results::begin(start, writer, "standard output")
    }

    fn begin(start: StartJson, writer: Box<dyn Write + Send>, name: &str) -> Result<Results, Error> {
        let mut out = Out { writer, name: name.to_owned(), rows: Vec::new() };
        // A closed pipe shows again with the first row.
        if let Err(Some(error)) = out.line(&Row::Start(start.clone())) {
            return Err(error);
        }
        Ok(Results { start, done: BTreeSet::new(), out: Mutex::new(out) })
    }

    /// Opens the file for more rows. What a killed sweep left unfinished at its end is cut off; rows of images that could
    /// not be read whole are taken out, so that they are tried again and every image keeps one row.
    fn open(file: &Path, start: StartJson, args: &SweepArgs) -> Result<Results, Error> {
        let name = file.display().to_string();
        let failed = |e: io::Error| Error::usage(format!("results `{name}`: {e}"));
        let opened = lock(file, &name)?;
        if args.restart {
            opened.set_len(0).map_err(failed)?;
            return Results::begin(start, Box::new(opened), &name);
        }
        let Found { start: before, rows, spans, whole_bytes, only_begun } = read_results(file)?;
        let is_empty = opened.metadata().map_err(failed)?.len() == 0 || only_begun;
        let before = match before {
            Some(before) => before,
            None if !is_empty => {
                return Err(Error::usage(format!("`{name}` holds no results of a sweep"))
                    .hint("name another file, or write over it with --restart"));
            }
            None => {
                opened.set_len(0).map_err(failed)?;
                return Results::begin(start, Box::new(opened), &name);
            }
        };
        let same = StartJson { as_of: before.as_of.clone(), ..start.clone() } == before;
        let another_day = args.as_of.is_some() && start.as_of != before.as_of;
        if !same || another_day {
            return Err(Error::usage(format!(
                "results `{name}` were written for other hosts, another day, another shard or by another version of cudalint"
            ))
            .hint("name another file, or begin anew with --restart"));
        }
        let total = rows.len();
        let mut done = BTreeSet::new();
        let (kept, spans): (Vec<ImageRowJson>, Vec<Range<u64>>) = rows
            .into_iter()
            .zip(spans)
            .filter(|(row, _)| row.status == Status::Judged && done.insert(row.reference.clone()))
            .unzip();
        let writer = match kept.len() == total {
            true => {
                if opened.metadata().map_err(failed)?.len() != whole_bytes {
                    opened.set_len(whole_bytes).map_err(failed)?;
                }
                opened
            }
            false => rewritten(file, &before, &spans).map_err(failed)?,
        };
        let out = Out { writer: Box::new(writer), name, rows: kept };
        Ok(Results { start: before, done, out: Mutex::new(out) })
    }

    /// `Err(None)`: nobody reads standard output any more.
    fn add(&self, row: ImageRowJson) -> Result<(), Option<Error>> {
        let mut out = self.out.lock().unwrap_or_else(PoisonError::into_inner);
        let row = Row::Image(Box::new(row));
        out.line(&row)?;
        if let Row::Image(row) = row {
            // The report needs no facts, which are most of a row.
            out.rows.push(ImageRowJson { facts: None, ..*row });
        }
        Ok(())
    }

    fn finish(self) -> Result<Vec<ImageRowJson>, Error> {
        // Every row was flushed when it was written.
        let out = self.out.into_inner().unwrap_or_else(PoisonError::into_inner);
        Ok(out.rows)
    }
}

impl Out {
    /// A row in one write: a killed process leaves whole rows and at most one that is cut. `Err(None)`: a closed pipe.
    fn line(&mut self, row: &Row) -> Result<(), Option<Error>> {
        let mut line = serde_json::to_vec(row).map_err(|e| Some(Error::look(format!("a row: {e}"))))?;
        line.push(b'\n');
        let written = self.writer.write_all(&line).and_then(|()| self.writer.flush());
        written.map_err(|e| match e.kind() {
            io::ErrorKind::BrokenPipe => None,
            _ => Some(Error::look(format!("results `{}`: {e}", self.name))),
        })
    }
}

/// Opens the file for appending and locks it; file systems without locks leave that to the user.
fn lock(file: &Path, name: &str) -> Result<File, Error> {
    let failed = |e: io::Error| Error::usage(format!("results `{name}`: {e}"));
    loop {
        let opened = File::options().read(true).append(true).create(true).open(file).map_err(failed)?;
        if matches!(opened.try_lock(), Err(TryLockError::WouldBlock)) {
            return Err(Error::usage(format!("results `{name}` are being written by another sweep")));
        }
        // Another sweep may have put a new file in its place, and ended, before this one had the lock.
        let (ours, there) = (opened.metadata().map_err(failed)?, std::fs::metadata(file).map_err(failed)?);
        if (ours.dev(), ours.ino()) == (there.dev(), there.ino()) {
            return Ok(opened);
        }
    }
}

/// A new file in the place of the old one, with the rows that stand there; locked, and open for more. Written aside, so that a kill in this
/// moment loses nothing.
fn rewritten(file: &Path, start: &StartJson, spans: &[Range<u64>]) -> io::Result<File> {
    // What a link leads to is replaced, not the link.
    let real = file.canonicalize()?;
    let dir = real.parent().ok_or_else(|| io::Error::other("a file without directory"))?;
    let mut fresh = tempfile::NamedTempFile::new_in(dir)?;
    fresh.as_file().set_permissions(std::fs::metadata(&real)?.permissions())?;
    let mut text = io::BufWriter::new(fresh.as_file_mut());
    serde_json::to_writer(&mut text, &Row::Start(start.clone()))?;
    text.write_all(b"\n")?;
    let mut old = File::open(&real)?;
    for span in spans {
        old.seek(io::SeekFrom::Start(span.start))?;
        io::copy(&mut (&mut old).take(span.end - span.start), &mut text)?;
    }
    text.flush()?;
    drop(text);
    let _without_locks_no_harm = fresh.as_file().try_lock();
    let mut file = fresh.persist(&real).map_err(|e| e.error)?;
    file.seek(io::SeekFrom::End(0))?;
    Ok(file)
}

/// What a results file holds.
struct Found {
    start: Option<StartJson>,
    /// Without facts, which are most of a row and needed by nobody here.
    rows: Vec<ImageRowJson>,
    /// Where each row stands in the file.
    spans: Vec<Range<u64>>,
    /// Up to the end of the last whole line.
    whole_bytes: u64,
    /// A sweep was killed while it wrote the first line.
    only_begun: bool,
}

/// The first row and those of images; a last line without end is none.
fn read_results(file: &Path) -> Result<Found, Error> {
    let name = file.display();
    let failed = |e: io::Error| Error::usage(format!("results `{name}`: {e}"));
    let mut reader = BufReader::new(File::open(file).map_err(failed)?);
    let mut found =
        Found { start: None, rows: Vec::new(), spans: Vec::new(), whole_bytes: 0, only_begun: false };
    let mut number = 0u64;
    loop {
        let mut line = Vec::new();
        let got = (&mut reader).take(limits::FACTS_BYTES_MAX).read_until(b'\n', &mut line).map_err(failed)?;
        if got == 0 || line.last() != Some(&b'\n') {
            found.only_begun = number == 0 && line.starts_with(b"{\"kind\":\"start\"");
            return Ok(found);
        }
        number += 1;
        let span = found.whole_bytes..found.whole_bytes + got as u64;
        found.whole_bytes = span.end;
        match serde_json::from_slice::<Row>(&line) {
            Ok(Row::Start(row)) if row.sweep_schema == SWEEP_SCHEMA => found.start = Some(row),
            Ok(Row::Image(row)) if found.start.is_some() => {
                found.rows.push(ImageRowJson { facts: None, ..*row });
                found.spans.push(span);
            }
            Ok(_) => {
                return Err(Error::usage(format!("results `{name}`: of another version of cudalint"))
                    .hint("begin anew with --restart"));
            }
            Err(_) if found.start.is_none() => return Ok(found),
            Err(error) => {
                let why = style::safe(&error.to_string());
                return Err(Error::usage(format!("results `{name}`: line {number}: {why}"))
                    .hint("begin anew with --restart"));
            }
        }
    }
}
