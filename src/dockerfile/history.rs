//! Instructions and history entries, both in order -> which instruction made which layer.
//!
//! What builders write: BuildKit `RUN |1 A=b /bin/sh -c CMD # buildkit`, `COPY SRC DST # buildkit`; the classic builder and
//! buildah `/bin/sh -c CMD`, `/bin/sh -c #(nop) COPY file:HASH in DST`; kaniko the instruction itself. The longest common
//! sequence of both decides, so that an instruction that was edited since costs only its own layer.

use super::Chain;
use super::parse::Instruction;
use crate::facts::ImageIdentity;
use std::collections::BTreeMap;

/// One entry of the history.
pub(super) struct Entry {
    text: String,
    /// The layer that it made.
    layer: Option<usize>,
}

/// Where a layer comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Made {
    /// Position in the chain of instructions.
    By(usize),
    /// The image that the chain begins with.
    Base,
    Unknown,
}

pub(super) struct Fit {
    /// How much of the history is explained.
    pub(super) score: u32,
    pub(super) layers: Vec<Made>,
    /// Enough fits for something to be said.
    pub(super) fits: bool,
}

/// Entries that are compared; more than this is no history of a build.
const ENTRIES_MAX: usize = 1024;

/// The history of an image; that of its layers alone where it is all that is known.
pub(super) fn entries(image: &ImageIdentity) -> Vec<Entry> {
    let made = image.history.iter().filter(|h| !h.empty).count();
    if made == 0 || made != image.layers.len() || image.history.len() > ENTRIES_MAX {
        let layers = image.layers.iter().enumerate();
        let entry = |(i, l): (usize, &crate::facts::LayerIdentity)| {
            Some(Entry { text: plain(l.created_by.as_deref()?), layer: Some(i) })
        };
        return layers.filter_map(entry).collect();
    }
    let mut next = 0;
    let entry = |h: &crate::facts::HistoryEntry| {
        let layer = (!h.empty).then_some(next);
        next += usize::from(!h.empty);
        Entry { text: plain(&h.created_by), layer }
    };
    image.history.iter().map(entry).collect()
}

/// One space between words, without the marks of builders.
fn plain(created_by: &str) -> String {
    let text = collapse(created_by);
    let text = text.strip_suffix("# buildkit").map_or(text.as_str(), str::trim_end);
    let text = text.rsplit_once("|force-mtime=").map_or(text, |(before, _)| before.trim_end());
    // What buildah mounted into a RUN stands behind it by its digest.
    let text =
        text.rsplit_once(":sha256:").filter(|(_, hex)| !hex.contains(' ')).map_or(text, |(before, _)| before);
    // Whatever the shell, `#(nop)` runs nothing: what follows is an instruction.
    let text = text
        .split_once("-c #(nop)")
        .filter(|(shell, _)| shell.starts_with('/'))
        .map_or(text, |(_, rest)| rest);
    text.trim().to_owned()
}

fn collapse(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Instructions that change files. WORKDIR does so only where the directory is new.
fn makes_layer(instruction: &Instruction) -> bool {
    matches!(instruction.keyword.as_str(), "RUN" | "COPY" | "ADD")
}

fn is_setting(instruction: &Instruction) -> bool {
    let keyword = instruction.keyword.as_str();
    matches!(keyword, "ENV" | "LABEL" | "CMD" | "ENTRYPOINT" | "USER" | "EXPOSE" | "VOLUME" | "STOPSIGNAL")
}

pub(super) fn fit(chain: &Chain, entries: &[Entry], weights: &Weights, layers: usize) -> Fit {
    let pairs = align(&chain.instructions, weights, entries.len());
    let score = pairs.iter().map(|p| p.weight).sum();
    let wanted = chain.instructions.iter().filter(|i| makes_layer(i)).count();
    let of = |p: &Pair| chain.instructions.get(p.instruction).copied();
    let found: Vec<&Pair> = pairs.iter().filter(|p| of(p).is_some_and(makes_layer)).collect();
    let whole = is_one_snapshot(chain, entries, &pairs);
    // Without an instruction that changes files, every setting must be there word for word.
    let settings = chain.instructions.iter().filter(|i| is_setting(i)).count();
    let sure = pairs.iter().filter(|p| p.weight >= LIKELY && of(p).is_some_and(is_setting)).count();
    let fits = match wanted {
        0 => settings > 0 && sure == settings,
        _ => !found.is_empty() && found.len() * 2 >= wanted || whole,
    };
    let mut made = vec![Made::Unknown; layers];
    if !fits {
        return Fit { score, layers: made, fits };
    }
    for stage in 0..=chain.stages.iter().copied().max().unwrap_or(0) {
        let in_stage = |p: &&Pair| chain.stages.get(p.instruction) == Some(&stage);
        let of_stage: Vec<&Pair> = pairs.iter().filter(in_stage).collect();
        mark_own(chain, entries, &of_stage, stage, &mut made);
    }
    // What lies below the first instruction came with the base image, if that first instruction was found.
    let first_wanted = chain.instructions.iter().position(|i| makes_layer(i));
    let first = match first_wanted {
        Some(first) if !whole => pairs.iter().find(|p| p.instruction == first),
        _ => pairs.first(),
    };
    if let (Some(first), Some(_)) = (first, chain.base) {
        let below = entries.iter().take(first.entry).filter_map(|e| e.layer);
        let only_settings = first_wanted.is_none();
        let below = below.chain((0..layers).filter(|_| only_settings));
        for layer in below {
            if let Some(slot) = made.get_mut(layer).filter(|m| **m == Made::Unknown) {
                *slot = Made::Base;
            }
        }
    }
    Fit { score, layers: made, fits }
}

/// The layers of one stage: each of one instruction, or one of all.
fn mark_own(chain: &Chain, entries: &[Entry], pairs: &[&Pair], stage: usize, made: &mut [Made]) {
    let of = |p: &Pair| chain.instructions.get(p.instruction).copied();
    let layer_of = |p: &Pair| entries.get(p.entry).and_then(|e| e.layer);
    let found: Vec<&Pair> = pairs.iter().copied().filter(|p| of(p).is_some_and(makes_layer)).collect();
    let mut mark = |layer: Option<usize>, instruction: usize| {
        if let Some(slot) = layer.and_then(|l| made.get_mut(l)) {
            *slot = Made::By(instruction);
        }
    };
    if !is_squashed(chain, entries, &found) {
        for pair in pairs {
            let changes = of(pair).is_some_and(|i| makes_layer(i) || i.keyword == "WORKDIR");
            mark(layer_of(pair).filter(|_| changes), pair.instruction);
        }
        return;
    }
    // One layer holds the work of all; that is the work of one where there is only one.
    let wanted =
        chain.instructions.iter().zip(&chain.stages).filter(|(i, s)| **s == stage && makes_layer(i)).count();
    if let ([only], 1) = (found.as_slice(), wanted) {
        mark(pairs.iter().rev().find_map(|p| layer_of(p)), only.instruction);
    }
}

/// The last entry has the layer and is a setting, word for word the last of the Dockerfile: some builders write one layer for
/// all instructions and hang it there.
fn is_one_snapshot(chain: &Chain, entries: &[Entry], pairs: &[Pair]) -> bool {
    let (Some(instruction), Some(entry), Some(pair)) =
        (chain.instructions.last(), entries.last(), pairs.last())
    else {
        return false;
    };
    let both_last = pair.instruction + 1 == chain.instructions.len() && pair.entry + 1 == entries.len();
    let setting = !makes_layer(instruction) && instruction.keyword != "WORKDIR";
    both_last && setting && entry.layer.is_some() && entry.text == instruction.text
}

/// Instructions that change files stand without a layer of their own. A RUN may do so because it changed nothing, which the
/// classic builder writes; a COPY never does, and where no more than one of all has a layer, it holds the others' work.
fn is_squashed(chain: &Chain, entries: &[Entry], found: &[&Pair]) -> bool {
    let is_empty = |p: &&&Pair| entries.get(p.entry).is_some_and(|e| e.layer.is_none());
    let copies = |p: &Pair| chain.instructions.get(p.instruction).is_some_and(|i| i.keyword != "RUN");
    let empty = found.iter().filter(is_empty).count();
    let empty_copy = found.iter().filter(is_empty).any(|p| copies(p));
    empty_copy || empty > 0 && found.len() - empty <= 1
}

/// How surely each entry is the work of the instruction that begins on a line.
pub(super) type Weights = BTreeMap<u32, Vec<u32>>;

/// Weighs every instruction of the file against every entry, once for all stages.
pub(super) fn weights<'i>(instructions: impl Iterator<Item = &'i Instruction>, entries: &[Entry]) -> Weights {
    let of = |i: &'i Instruction| {
        let commands = if i.keyword == "RUN" { commands(i) } else { Vec::new() };
        (i.start, entries.iter().map(|e| weight(i, &commands, &e.text)).collect())
    };
    instructions.map(of).collect()
}

struct Pair {
    instruction: usize,
    entry: usize,
    weight: u32,
}

/// The heaviest common sequence; of equal ones that which ends last, since a base image may have run the same commands.
fn align(instructions: &[&Instruction], weights: &Weights, columns: usize) -> Vec<Pair> {
    let rows = instructions.len();
    let mut best = vec![vec![0u32; columns + 1]; rows + 1];
    let at = |table: &[Vec<u32>], r: usize, c: usize| {
        table.get(r).and_then(|row| row.get(c)).copied().unwrap_or(0)
    };
    let weight_at = |r: usize, c: usize| {
        instructions.get(r).map_or(0, |i| weights.get(&i.start).map_or(0, |w| w.get(c).copied().unwrap_or(0)))
    };
    for r in 0..rows {
        for c in 0..columns {
            let weight = weight_at(r, c);
            let with = if weight > 0 { at(&best, r, c) + weight } else { 0 };
            let value = with.max(at(&best, r, c + 1)).max(at(&best, r + 1, c));
            if let Some(slot) = best.get_mut(r + 1).and_then(|row| row.get_mut(c + 1)) {
                *slot = value;
            }
        }
    }
    let mut out = Vec::new();
    let (mut r, mut c) = (rows, columns);
    while r > 0 && c > 0 {
        let weight = weight_at(r - 1, c - 1);
        if weight > 0 && at(&best, r, c) == at(&best, r - 1, c - 1) + weight {
            out.push(Pair { instruction: r - 1, entry: c - 1, weight });
            r -= 1;
            c -= 1;
        } else if at(&best, r, c) == at(&best, r - 1, c) {
            r -= 1;
        } else {
            c -= 1;
        }
    }
    out.reverse();
    out
}

const SURE: u32 = 4;
const LIKELY: u32 = 2;
const WEAK: u32 = 1;

/// How surely an entry is the work of an instruction; 0: it is not.
fn weight(instruction: &Instruction, commands: &[String], entry: &str) -> u32 {
    let after = |keyword: &str| {
        let (first, rest) = entry.split_once(' ')?;
        first.eq_ignore_ascii_case(keyword).then_some(rest)
    };
    match instruction.keyword.as_str() {
        "RUN" => match run(commands, entry) {
            true => SURE,
            false => 0,
        },
        keyword @ ("COPY" | "ADD") => match after(keyword).map(|rest| copy(instruction, rest)) {
            Some(Likeness::Same) => SURE,
            Some(Likeness::SameDestination) => LIKELY,
            _ => 0,
        },
        "WORKDIR" => match after("WORKDIR") {
            Some(dir) if like(&collapse(&instruction.rest), dir) => LIKELY,
            Some(dir) if ends_in(dir, &walked(&instruction.rest)) => WEAK,
            _ => 0,
        },
        // Settings are written in other forms than typed: quotes, brackets, variables. Their names must be the same.
        keyword => match after(keyword).map(|rest| (rest, instruction.rest.as_str())) {
            Some((entry, typed)) if entry == collapse(typed) => LIKELY,
            Some((entry, typed)) if first_name(entry) == first_name(typed) => WEAK,
            _ => 0,
        },
    }
}

/// A relative directory without `..`: `sub/../lib` is `lib`.
fn walked(dir: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in dir.trim().split('/') {
        match part {
            ".." => drop(parts.pop()),
            "." => {}
            part => parts.push(part),
        }
    }
    parts.join("/")
}

fn first_name(text: &str) -> &str {
    let text = text.trim_start_matches(['[', '"', ' ', '{']);
    text.split(['=', ' ', '"', ',', ']', '\'']).next().unwrap_or_default()
}

/// Whether the entry ends in the command, behind nothing but arguments and a shell.
fn run(commands: &[String], entry: &str) -> bool {
    let entry = entry.strip_prefix("RUN ").unwrap_or(entry);
    commands.iter().any(|command| {
        let Some(before) = entry.strip_suffix(command.as_str()) else { return false };
        // A command begins where a word does.
        (before.is_empty() || before.ends_with(' ')) && is_shell(before.trim_end())
    })
}

/// What stands before a command: nothing, or arguments of the build, a shell by its path or name, and `-c`.
fn is_shell(before: &str) -> bool {
    if before.is_empty() || before.starts_with('|') {
        return true;
    }
    let shell = before.split(' ').next().and_then(|w| w.rsplit(['/', '\\']).next());
    // Options of options: `-euo pipefail -c`.
    let told = before.rsplit(' ').next().is_some_and(|last| last.starts_with(['-', '/']));
    told && shell.is_some_and(|s| SHELLS.contains(&s))
}

/// Programs that a SHELL instruction names.
const SHELLS: [&str; 14] = [
    "sh",
    "bash",
    "dash",
    "ash",
    "zsh",
    "ksh",
    "busybox",
    "cmd",
    "cmd.exe",
    "powershell",
    "pwsh",
    "python",
    "python3",
    "perl",
];

/// The forms in which the command of a RUN may stand in the history.
fn commands(instruction: &Instruction) -> Vec<String> {
    let command = without_flags(&instruction.rest);
    if instruction.heredocs.is_empty() {
        let exec = exec_form(command).map(|words| collapse(&words.join(" ")));
        let typed = [collapse(command), collapse(&instruction.rest)];
        return exec.into_iter().chain(typed).filter(|c| !c.is_empty()).collect();
    }
    let bodies: Vec<&str> = instruction.heredocs.iter().map(|h| h.body.as_str()).collect();
    let ended: Vec<String> = instruction.heredocs.iter().map(|h| format!("{} {}", h.body, h.end)).collect();
    let (bodies, ended) = (bodies.join(" "), ended.join(" "));
    let forms =
        [bodies.clone(), command.to_owned(), format!("{command} {bodies}"), format!("{command} {ended}")];
    let mut out: Vec<String> = forms.iter().map(|f| collapse(f)).collect();
    // A body that begins with #! is a file of its own, named after its mark.
    out.extend(instruction.heredocs.iter().map(|h| format!("/dev/pipes/{}", h.end)));
    out.retain(|c| !c.is_empty());
    out
}

/// Flags such as `--mount=…` stand before everything else and not in the history.
fn without_flags(rest: &str) -> &str {
    let mut rest = rest.trim_start();
    while rest.starts_with("--") {
        let Some((_, more)) = rest.split_once(char::is_whitespace) else { return "" };
        rest = more.trim_start();
    }
    rest
}

fn exec_form(text: &str) -> Option<Vec<String>> {
    if !text.starts_with('[') {
        return None;
    }
    serde_json::from_str(text).ok()
}

enum Likeness {
    Same,
    SameDestination,
    Different,
}

fn copy(instruction: &Instruction, entry: &str) -> Likeness {
    let typed = without_flags(&instruction.rest);
    let typed: Vec<String> =
        exec_form(typed).unwrap_or_else(|| typed.split_whitespace().map(str::to_owned).collect());
    let entry = without_flags(entry);
    let Some((destination, sources)) = typed.split_last() else { return Likeness::Different };
    // The classic builder and buildah: `file:HASH in DST`.
    if let Some((hashed, at)) = entry.split_once(" in ")
        && ["file:", "dir:", "multi:"].iter().any(|p| hashed.starts_with(p))
    {
        return if like(destination, at) || ends_in(at, destination) {
            Likeness::Same
        } else {
            Likeness::Different
        };
    }
    if like(&collapse(&typed.join(" ")), entry) {
        return Likeness::Same;
    }
    let words: Vec<&str> = entry.split(' ').collect();
    let Some((at, of)) = words.split_last() else { return Likeness::Different };
    if !(like(destination, at) || ends_in(at, destination)) {
        return Likeness::Different;
    }
    let same = of.len() == sources.len() && of.iter().zip(sources).all(|(e, s)| like(s, e));
    if same || sources.iter().any(|s| s.starts_with("<<")) {
        Likeness::Same
    } else {
        Likeness::SameDestination
    }
}

/// A relative destination, as the history makes it absolute.
fn ends_in(absolute: &str, typed: &str) -> bool {
    let bare = |t: &str| t.trim_start_matches("./").trim_matches('/').to_owned();
    let typed = bare(typed.trim());
    let absolute = bare(absolute);
    matches!(typed.as_str(), "" | ".") || absolute == typed || absolute.ends_with(&format!("/{typed}"))
}

/// Whether `typed`, whose variables may stand for anything, can have become `written`.
fn like(typed: &str, written: &str) -> bool {
    let literals = literals(typed.trim_end_matches('/'));
    let written = written.trim_end_matches('/');
    let (Some((first, between)), Some(last)) = (literals.split_first(), literals.last()) else {
        return false;
    };
    if between.is_empty() {
        return first == written;
    }
    let Some(mut rest) = written.strip_prefix(first.as_str()) else { return false };
    for literal in between.get(..between.len() - 1).unwrap_or_default() {
        let Some(at) = rest.find(literal.as_str()) else { return false };
        rest = rest.get(at + literal.len()..).unwrap_or_default();
    }
    rest.ends_with(last.as_str())
}

/// The text around variables: one piece more than there are variables. An escaped `$` is no variable.
fn literals(typed: &str) -> Vec<String> {
    let mut out = vec![String::new()];
    let mut chars = typed.chars().peekable();
    while let Some(c) = chars.next() {
        let escaped = matches!(c, '\\' | '`') && chars.peek() == Some(&'$');
        if c == '$' {
            if chars.next_if_eq(&'{').is_some() {
                while chars.next().is_some_and(|c| c != '}') {}
            } else {
                while chars.next_if(|c| c.is_ascii_alphanumeric() || *c == '_').is_some() {}
            }
            out.push(String::new());
            continue;
        }
        let kept = if escaped { chars.next() } else { Some(c).filter(|c| !matches!(c, '"' | '\'')) };
        if let Some(last) = out.last_mut() {
            last.extend(kept);
        }
    }
    out
}
