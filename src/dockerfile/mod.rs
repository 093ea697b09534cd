//! A Dockerfile and an image's history -> the lines that made each layer, and those that set each variable.

#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

mod history;
mod parse;

use crate::facts::ImageIdentity;
use crate::report::{Evidence, Report, SourceLine};
use parse::{Instruction, Stage};

/// A parsed Dockerfile.
#[derive(Debug)]
pub struct Dockerfile {
    /// As typed, for findings.
    file: String,
    stages: Vec<Stage>,
}

/// What an image owes to a Dockerfile.
pub struct Attribution {
    /// One per layer; `None` where it cannot be told.
    layers: Vec<Option<SourceLine>>,
    /// Assignments of ENV and LABEL, in order: name, line.
    settings: Vec<(String, SourceLine)>,
    /// Why nothing fits, for the person who gave the file.
    pub misfit: Option<&'static str>,
}

impl Dockerfile {
    /// Reads a Dockerfile. `file` is its name as findings show it. An error says in words what is wrong.
    pub fn parse(file: &str, text: &str) -> Result<Dockerfile, String> {
        Ok(Dockerfile { file: file.to_owned(), stages: parse::stages(text)? })
    }

    /// Matches the image's history with the stage that fits it best.
    pub fn attribute(&self, image: &ImageIdentity) -> Attribution {
        let entries = history::entries(image);
        let weights = history::weights(self.stages.iter().flat_map(|s| &s.instructions), &entries);
        let fits = (0..self.stages.len()).map(|stage| {
            let chain = self.chain(stage);
            let fit = history::fit(&chain, &entries, &weights, image.layers.len());
            (fit, chain)
        });
        // Of stages that fit equally well the last is what `docker build` builds.
        let best = fits.max_by_key(|(fit, _)| (fit.fits, fit.score));
        let Some((fit, chain)) = best.filter(|(fit, _)| fit.fits) else {
            let misfit = Some("its instructions are not those of the image's history");
            return Attribution { layers: vec![None; image.layers.len()], settings: Vec::new(), misfit };
        };
        let line = |made: &history::Made| match made {
            history::Made::By(i) => chain.instructions.get(*i).map(|i| self.line(i, false)),
            history::Made::Base => chain.base.map(|i| self.line(i, true)),
            history::Made::Unknown => None,
        };
        let layers: Vec<Option<SourceLine>> = fit.layers.iter().map(line).collect();
        let squashed = !layers.is_empty() && layers.iter().all(Option::is_none);
        let settings = chain
            .instructions
            .iter()
            .flat_map(|i| parse::assignments(i).into_iter().map(|name| (name, self.line(i, false))))
            .collect();
        let misfit = squashed.then_some("the image is squashed: no layer is the work of one instruction");
        Attribution { layers, settings, misfit }
    }

    /// The instructions of a stage after those of the stages that it begins from.
    fn chain(&self, stage: usize) -> Chain<'_> {
        let mut order = Vec::new();
        let mut at = Some(stage);
        // A stage can only begin from an earlier one, so this ends.
        while let Some(stage) = at.and_then(|i| self.stages.get(i)) {
            order.push(stage);
            at = at.and_then(|i| self.stages.get(..i)?.iter().rposition(|s| s.is_named(&stage.base)));
        }
        let base = order.last().filter(|s| s.base != "scratch").map(|s| &s.from);
        let own = order.into_iter().rev().enumerate();
        let (stages, instructions) =
            own.flat_map(|(number, s)| s.instructions.iter().map(move |i| (number, i))).unzip();
        Chain { base, instructions, stages }
    }

    fn line(&self, instruction: &Instruction, base: bool) -> SourceLine {
        SourceLine {
            file: self.file.clone(),
            start: instruction.start,
            end: instruction.end,
            instruction: instruction.text.clone(),
            base,
        }
    }
}

/// What a build of one stage executes.
struct Chain<'a> {
    /// The FROM that names an image from outside; `None` for `scratch`.
    base: Option<&'a Instruction>,
    instructions: Vec<&'a Instruction>,
    /// Which stage of the chain each instruction belongs to, counted from its beginning.
    stages: Vec<usize>,
}

impl Attribution {
    /// The line of each layer.
    pub fn layers(&self) -> &[Option<SourceLine>] {
        &self.layers
    }

    /// Puts every finding on the line that brought it in: of its first evidence that has one, the layer's line, or for a
    /// setting the line that sets it last.
    pub fn apply(&self, report: &mut Report) {
        for reported in &mut report.findings {
            let evidence = &reported.finding.evidence;
            let layer = |e: &Evidence| self.layers.get(e.place.layer.0 as usize)?.as_ref();
            let set_by = |e: &Evidence| {
                self.settings.iter().rev().find(|(name, _)| sets(&e.detail, name)).map(|(_, line)| line)
            };
            // A finding about a setting belongs to the line that sets it, or to none: not to that of a file it also names.
            let line = match evidence.first() {
                Some(first) if first.place.path.is_root() => {
                    evidence.iter().filter(|e| e.place.path.is_root()).find_map(set_by)
                }
                _ => evidence.iter().filter(|e| !e.place.path.is_root()).find_map(layer),
            };
            reported.line = line.cloned();
        }
    }
}

/// Whether a detail speaks of the setting: its name as a word. Names in small letters are words of every detail; those are not
/// looked for, unless they have the dots of a label.
fn sets(detail: &str, name: &str) -> bool {
    let own = name.contains('.') || !name.bytes().any(|b| b.is_ascii_lowercase());
    own && detail.match_indices(name).any(|(at, _)| {
        let word = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '.' || c == '-';
        let before = detail.get(..at).and_then(|t| t.chars().next_back());
        let after = detail.get(at + name.len()..).and_then(|t| t.chars().next());
        !before.is_some_and(word) && !after.is_some_and(|c| word(c) && c != '.')
    })
}
