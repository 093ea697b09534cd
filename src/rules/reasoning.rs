//! Thoughts that several rules share: whether a runtime fits a driver, which PTX a driver compiles,
//! and how far each group of GPU code reaches. Findings are made by the rules, not here.

use super::Case;
use super::compat::{CompatUse, compat, lifts};
use crate::catalog::CodeRole;
use crate::facts::Place;
use crate::inventory::gpu_code::{CodeFile, CodeGroup, Coverage, GroupRole, Reach, coverage};
use crate::inventory::{Linkage, Runtime, RuntimeVersion};
use crate::report::{Evidence, Outcome};
use crate::target::Driver;
use crate::version::{ComputeCapability, Version};
use std::cell::{OnceCell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;

/// Evidence lines of one finding; more of the same kind are counted, not listed.
const EVIDENCE_MAX: usize = 6;

/// How a runtime stands to a driver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fit {
    /// The driver reports the runtime's release or a newer one.
    Backward,
    /// Same major, older minor: minor-version compatibility.
    Minor,
    /// libcudart answers with error 35.
    TooOld,
    /// The runtime's version is not known.
    Unknown,
}

/// From CUDA 11 on libcudart compares majors only (measured); before, major and minor.
pub(super) fn fit(runtime: &RuntimeVersion, driver: &Driver) -> Fit {
    let Some(reported) = &driver.known.cuda else { return Fit::TooOld };
    fit_cuda(runtime, reported)
}

pub(super) fn fit_cuda(runtime: &RuntimeVersion, reported: &Version) -> Fit {
    match runtime {
        RuntimeVersion::Unknown => Fit::Unknown,
        RuntimeVersion::Exactly(version) if version.major_minor() <= *reported => Fit::Backward,
        RuntimeVersion::Exactly(version) if version.major() >= 11 && version.major() <= reported.major() => {
            Fit::Minor
        }
        // Before 11 the minor decides, and the soname alone does not tell it.
        RuntimeVersion::Major(major) if *major == reported.major() && *major < 11 => Fit::Unknown,
        RuntimeVersion::Major(major) if *major <= reported.major() => Fit::Backward,
        RuntimeVersion::Exactly(_) | RuntimeVersion::Major(_) => Fit::TooOld,
    }
}

/// Runtimes of one release, with the files that bring it.
pub(super) fn releases<'a>(case: &Case<'a>) -> Vec<(RuntimeVersion, Vec<&'a Runtime>)> {
    let mut out: BTreeMap<RuntimeVersion, Vec<&Runtime>> = BTreeMap::new();
    for runtime in &case.inventory.runtimes {
        let release = match &runtime.version {
            RuntimeVersion::Exactly(version) => RuntimeVersion::Exactly(version.major_minor()),
            other => other.clone(),
        };
        out.entry(release).or_default().push(runtime);
    }
    out.into_iter().collect()
}

pub(super) fn runtime_evidence(runtimes: &[&Runtime]) -> Vec<Evidence> {
    let line = |r: &&Runtime| {
        let linkage = match r.linkage {
            Linkage::Dynamic => "CUDA runtime",
            Linkage::Static => "statically linked CUDA runtime",
        };
        let detail = match r.version {
            RuntimeVersion::Unknown => format!("{linkage} of unknown version"),
            _ => format!("{linkage} {} (from {})", r.version, r.how),
        };
        Evidence { place: r.place.clone(), detail }
    };
    limited(runtimes.iter().map(line).collect(), "runtimes of this release")
}

/// At most [`EVIDENCE_MAX`] lines; the last one says how many more there are.
pub(super) fn limited(mut lines: Vec<Evidence>, what: &str) -> Vec<Evidence> {
    let more = lines.len().saturating_sub(EVIDENCE_MAX);
    lines.truncate(EVIDENCE_MAX);
    counted(lines, more, what)
}

fn counted(mut lines: Vec<Evidence>, more: usize, what: &str) -> Vec<Evidence> {
    if let Some(last) = lines.last_mut().filter(|_| more > 0) {
        last.detail = format!("{} (and {more} more {what})", last.detail);
    }
    lines
}

/// The newest PTX ISA that the loaded driver library compiles, and who that library is.
pub(super) struct PtxLimit {
    pub(super) isa: Version,
    /// `driver 535` or `the compat package (CUDA 12.4)`.
    pub(super) who: String,
    pub(super) cuda: Version,
    pub(super) sure: bool,
    pub(super) by_compat: bool,
}

pub(super) fn ptx_limit(case: &Case) -> Option<PtxLimit> {
    let driver = case.driver?;
    if let Some((library, CompatUse::Usable { sure })) = compat(case) {
        let cuda = library.cuda.clone()?;
        let row = case.catalog.ptx_of_cuda(&cuda)?;
        let who = format!("the compat package (CUDA {cuda})");
        return Some(PtxLimit { isa: row.ptx.clone(), who, cuda, sure, by_compat: true });
    }
    let cuda = driver.known.cuda.clone()?;
    let row = case.catalog.ptx_of_cuda(&cuda)?;
    let who = driver.describe();
    // A compat package that may or may not work leaves the limit open upwards.
    let open = matches!(
        compat(case),
        Some((_, CompatUse::Unknown { .. } | CompatUse::Unusable { sure: false, .. }))
    );
    Some(PtxLimit { isa: row.ptx.clone(), who, cuda, sure: case.driver_is_sure() && !open, by_compat: false })
}

/// Whether every runtime of the image gets past the version check.
pub(super) fn runtimes_start(case: &Case) -> bool {
    let Some(driver) = case.driver else { return true };
    let lifted = |v: &RuntimeVersion| match compat(case) {
        Some((library, CompatUse::Usable { .. })) => lifts(library, v),
        _ => false,
    };
    case.inventory.runtimes.iter().all(|r| fit(&r.version, driver) != Fit::TooOld || lifted(&r.version))
}

/// What the loss of a group means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Weight {
    /// Nothing works without it.
    Decides,
    /// A part is lost.
    Part,
}

impl Weight {
    /// What follows where the GPU cannot use the group.
    pub(super) fn of_loss(self) -> Outcome {
        match self {
            Weight::Decides => Outcome::Breaks,
            Weight::Part => Outcome::Degrades,
        }
    }
}

/// One group of GPU code on the target's GPU.
pub(super) struct Judgement<'a> {
    pub(super) group: &'a CodeGroup,
    pub(super) weight: Weight,
    pub(super) reach: Reach,
    reached: Rc<Reached>,
}

/// How far one group reaches.
struct Reached {
    group: usize,
    weight: Weight,
    /// Positions of the files that decide, best first, with their coverage.
    files: Vec<(usize, Coverage)>,
    evidence: OnceCell<Vec<Evidence>>,
}

/// How far code reaches, by what that depends on: compute capability and the newest PTX that is compiled. Several rules and
/// many hosts ask the same.
#[derive(Default)]
pub(super) struct CodeReach(RefCell<BTreeMap<CodeKey, Rc<[Rc<Reached>]>>>);

type CodeKey = (ComputeCapability, Option<Version>);

impl Judgement<'_> {
    /// Files that decide, best first, with their coverage.
    pub(super) fn files(&self) -> impl Iterator<Item = (&CodeFile, &Coverage)> {
        self.reached.files.iter().filter_map(|(index, c)| Some((self.group.files.get(*index)?, c)))
    }

    /// Coverage of the best file.
    pub(super) fn best(&self) -> Coverage {
        self.reached.files.first().map(|(_, c)| c.clone()).unwrap_or_default()
    }

    pub(super) fn evidence(&self) -> Vec<Evidence> {
        self.reached.evidence.get_or_init(|| code_lines(self.files().map(|(file, _)| file))).clone()
    }
}

/// Every group that says something about the GPU; vendor libraries whose code decides nothing are left out.
pub(super) fn judge_code<'a>(case: &Case<'a>) -> Vec<Judgement<'a>> {
    let Some(gpu) = case.gpu else { return Vec::new() };
    let key = (gpu.cc, ptx_limit(case).map(|l| l.isa));
    let known = case.code.0.borrow().get(&key).cloned();
    let all = known.unwrap_or_else(|| {
        let all = reach_of_code(case, gpu.cc, key.1.as_ref());
        case.code.0.borrow_mut().insert(key, Rc::clone(&all));
        all
    });
    let one = |reached: &Rc<Reached>| {
        let group = case.inventory.code.get(reached.group)?;
        let reach = reached.files.first().map_or(Reach::None, |(_, c)| c.reach());
        Some(Judgement { group, weight: reached.weight, reach, reached: Rc::clone(reached) })
    };
    all.iter().filter_map(one).collect()
}

fn reach_of_code(case: &Case, gpu: ComputeCapability, isa: Option<&Version>) -> Rc<[Rc<Reached>]> {
    let mut out = Vec::new();
    for (index, group) in case.inventory.code.iter().enumerate() {
        let Some(weight) = weight(case, group) else { continue };
        let any_main = group.files.iter().any(|f| f.main);
        let deciding = group.files.iter().enumerate().filter(|(_, f)| f.main || !any_main);
        let mut files: Vec<(usize, Coverage)> =
            deciding.map(|(at, f)| (at, coverage(f, gpu, isa, case.catalog))).collect();
        let share = |c: &Coverage| (c.covered().saturating_mul(1000)).checked_div(c.counted).unwrap_or(0);
        files.sort_by_key(|(_, c)| (c.reach(), std::cmp::Reverse(share(c))));
        out.push(Rc::new(Reached { group: index, weight, files, evidence: OnceCell::new() }));
    }
    out.into()
}

fn weight(case: &Case, group: &CodeGroup) -> Option<Weight> {
    let anything_else = case.inventory.code.iter().any(|g| g.role == GroupRole::Application);
    let used = || !anything_else || group.files.iter().any(|f| f.asked_for);
    match group.role {
        GroupRole::Application => Some(Weight::Decides),
        GroupRole::Vendor(CodeRole::Core) => used().then_some(Weight::Decides),
        GroupRole::Vendor(CodeRole::Part) => used().then_some(Weight::Part),
        GroupRole::Vendor(_) => None,
    }
}

/// Files with what their containers hold.
pub(super) fn code_lines<'a>(files: impl Iterator<Item = &'a CodeFile>) -> Vec<Evidence> {
    let files: Vec<&CodeFile> = files.collect();
    let lines = files.iter().take(EVIDENCE_MAX).map(|f| code_line(f)).collect();
    counted(lines, files.len().saturating_sub(EVIDENCE_MAX), "files")
}

fn code_line(file: &CodeFile) -> Evidence {
    Evidence { place: file.place.clone(), detail: holds(file) }
}

/// `12 containers: machine code sm_80 sm_86 sm_90, PTX 8.4 for compute_90`.
fn holds(file: &CodeFile) -> String {
    use crate::facts::{CodeKind, json::arch_name};
    let count = file.shapes.iter().fold(0u64, |sum, s| sum.saturating_add(s.count));
    let images = || file.shapes.iter().flat_map(|s| &s.images);
    let mut native: Vec<_> = images().filter(|i| i.kind == CodeKind::Sass).map(|i| i.arch).collect();
    native.sort_unstable();
    native.dedup();
    let mut ptx: Vec<_> = images().filter(|i| i.kind == CodeKind::Ptx).collect();
    ptx.sort_unstable();
    ptx.dedup();
    let mut parts = Vec::new();
    if !native.is_empty() {
        let names: Vec<String> = native.iter().map(|a| format!("sm_{a}")).collect();
        parts.push(format!("machine code for {}", names.join(" ")));
    }
    if !ptx.is_empty() {
        let name = |i: &&crate::facts::CodeImage| {
            let (major, minor) = i.ptx_isa.unwrap_or_default();
            format!("{} (PTX {major}.{minor})", arch_name(i))
        };
        parts.push(format!("PTX for {}", ptx.iter().map(name).collect::<Vec<_>>().join(" ")));
    }
    if images().any(|i| i.kind == CodeKind::LtoIr) {
        parts.push("LTO-IR".to_owned());
    }
    let containers = if count == 1 { "1 container".to_owned() } else { format!("{count} containers") };
    format!("{containers}: {}", if parts.is_empty() { "no code".to_owned() } else { parts.join(", ") })
}

/// Says a PTX ISA tuple as text.
pub(super) fn isa_text(isa: Option<(u16, u16)>) -> String {
    isa.map_or_else(|| "?".to_owned(), |(major, minor)| format!("{major}.{minor}"))
}

/// The driver branch and CUDA release that a PTX ISA needs.
pub(super) fn driver_for_ptx(case: &Case, isa: Option<(u16, u16)>) -> Option<(u32, Version)> {
    let (major, minor) = isa?;
    let row = case.catalog.ptx_row(&Version::of(u64::from(major), u64::from(minor)))?;
    Some((row.driver_branch, row.cuda.clone()))
}

/// Evidence for a statement about the image as a whole.
pub(super) fn about_image(case: &Case, detail: String) -> Vec<Evidence> {
    let path = crate::names::ImagePath::new("/");
    let layer = case.inventory.facts.files.first().map(|f| f.place.layer).unwrap_or_default();
    vec![Evidence { place: Place { layer, path }, detail }]
}
