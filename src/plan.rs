//! Images × hosts of a fleet -> the smallest set of changes with which every image runs on every host: drivers to change, images to
//! rebuild, hosts to keep images off.
//!
//! What breaks a pair of image and host decides what can mend it: a driver that does not know the GPU asks for another driver, a part
//! without code for the GPU for another build, a setting of the host for that setting. A runtime that is too new for the driver is
//! mended by either. Of those pairs the fewest hosts and images that cover all are taken (a minimum vertex cover of a bipartite graph,
//! found through a maximum matching: König's theorem).

#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use crate::catalog::{Branch, Catalog};
use crate::matrix::{Cell, target as judge_target};
use crate::report::{Finding, Outcome, RuleId, Verdict};
use crate::rules::Judge;
use crate::target::{Driver, Target};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

/// What runs where, and what to change, in the order in which it is safe.
#[derive(Clone, Debug)]
pub struct Plan {
    /// One row per image, in it one cell per target.
    pub cells: Vec<Vec<Cell>>,
    pub steps: Vec<Step>,
    /// (image, target) whose verdict is unknown: a fact is missing, nothing is planned for them.
    pub undecided: Vec<(usize, usize)>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Build the image anew, for these targets.
    Rebuild { image: usize, targets: Vec<usize>, how: Vec<String> },
    /// Bring another driver onto the hosts of a target. `after`: images that run now and not with it, to be replaced first.
    Driver { target: usize, to: String, lowest: String, older: bool, images: Vec<usize>, after: Vec<usize> },
    /// Change what the target states of the host beside its driver.
    Setting { target: usize, images: Vec<usize>, how: Vec<String> },
    /// Nothing helps: keep the image off the hosts.
    KeepOff { image: usize, targets: Vec<usize>, why: String },
}

/// Rules about driver and GPU alone: only another driver mends them.
const DRIVER_ALONE: [&str; 2] = ["gpu-unknown-to-driver", "gpu-dropped-by-driver"];

/// Rules about what else the target states of the host.
const SETTINGS: [&str; 2] = ["kernel-module-flavour", "no-gpu-requested"];

/// A build for another processor mends these, beside the one that is there: it says nothing of the other hosts.
const OTHER_PLATFORM: &str = "wrong-cpu-architecture";

/// Plans for the images of the judges. `as_of` (`YYYY-MM-DD`): which driver branches count as supported.
pub fn plan(judges: &[Judge], targets: &[Target], as_of: &str) -> Plan {
    let cells: Vec<Vec<Cell>> =
        judges.iter().map(|j| targets.iter().map(|t| judge_target(j, t)).collect()).collect();
    let mut undecided = Vec::new();
    let mut failing: Vec<Pair> = Vec::new();
    for (image, (row, judge)) in cells.iter().zip(judges).enumerate() {
        for (target, (cell, host)) in row.iter().zip(targets).enumerate() {
            match cell.verdict {
                Verdict::Fails => failing.push(Pair { image, target, broken: broken(judge, host) }),
                Verdict::Unknown => undecided.push((image, target)),
                _ => {}
            }
        }
    }
    let steps =
        Planner { judges, targets, cells: &cells, as_of, candidates: BTreeMap::new() }.steps(&failing);
    Plan { cells, steps, undecided }
}

/// An image and a host on which it fails, and everything that breaks it.
struct Pair {
    image: usize,
    target: usize,
    broken: Vec<Finding>,
}

impl Pair {
    fn has(&self, rules: &[&str]) -> bool {
        self.broken.iter().any(|f| rules.contains(&f.rule.name))
    }
}

/// What breaks an image on a target, over all its GPUs, once each.
fn broken(judge: &Judge, target: &Target) -> Vec<Finding> {
    let mut out: Vec<Finding> = Vec::new();
    for judged in judge.target(target) {
        for finding in judged.findings {
            let known = |f: &Finding| f.rule == finding.rule && f.headline == finding.headline;
            if finding.outcome == Outcome::Breaks && !out.iter().any(known) {
                out.push(finding);
            }
        }
    }
    out
}

/// A driver for a target.
#[derive(Clone, Debug)]
struct Candidate {
    text: String,
    number: u32,
    supported: bool,
    /// Failing images that run with it, but for settings.
    mends: BTreeSet<usize>,
    /// Failing images that no longer fail for driver and GPU alone, though another build may still be needed.
    knows: BTreeSet<usize>,
    /// Images that run now and no longer with it.
    breaks: Vec<usize>,
    /// What still breaks each failing image.
    left: BTreeMap<usize, Vec<Finding>>,
}

struct Planner<'p, 'a> {
    judges: &'p [Judge<'a>],
    targets: &'p [Target],
    cells: &'p [Vec<Cell>],
    as_of: &'p str,
    candidates: BTreeMap<usize, Vec<Candidate>>,
}

impl Planner<'_, '_> {
    fn steps(mut self, failing: &[Pair]) -> Vec<Step> {
        for target in failing.iter().map(|p| p.target).collect::<BTreeSet<_>>() {
            let of_target: Vec<&Pair> = failing.iter().filter(|p| p.target == target).collect();
            let list = self.candidates_for(target, &of_target);
            self.candidates.insert(target, list);
        }
        let (platform, rest): (Vec<&Pair>, Vec<&Pair>) =
            failing.iter().partition(|p| p.has(&[OTHER_PLATFORM]));
        let only_settings = |p: &&&Pair| p.broken.iter().all(|f| SETTINGS.contains(&f.rule.name));
        let open: Vec<&Pair> = rest.iter().filter(|p| !only_settings(p)).copied().collect();
        let (rebuild, raise) = self.choose(&open);
        let chosen: BTreeMap<usize, (Candidate, String)> =
            raise.iter().filter_map(|target| Some((*target, self.best(*target, &open, &rebuild)?))).collect();
        let mut out = rebuilds(&open, &rebuild, &chosen);
        out.extend(platform_builds(&platform));
        for (target, (to, lowest)) in &chosen {
            out.push(self.driver_step(*target, to, lowest, &open));
        }
        out.extend(settings(&rest));
        out.extend(kept_off(&open, &rebuild, &chosen));
        out
    }

    fn now(&self, target: usize) -> u32 {
        let driver = self.targets.get(target).and_then(|t| t.driver.as_ref());
        driver.and_then(Driver::branch).unwrap_or(0)
    }

    /// Every branch that mends something on a target. A host without driver in its profile has nothing to raise.
    fn candidates_for(&self, target: usize, failing: &[&Pair]) -> Vec<Candidate> {
        let host = self.targets.get(target).filter(|t| t.driver.is_some());
        let (Some(host), Some(catalog)) = (host, self.judges.first().map(Judge::catalog)) else {
            return Vec::new();
        };
        let now = self.now(target);
        let branches = catalog.branches.iter().filter(|b| !b.status.is_inferred() && b.branch != now);
        branches.filter_map(|branch| self.candidate((target, host), failing, branch, catalog)).collect()
    }

    fn candidate(
        &self,
        (target, host): (usize, &Target),
        failing: &[&Pair],
        branch: &Branch,
        catalog: &Catalog,
    ) -> Option<Candidate> {
        let text = branch.branch.to_string();
        let with = Target { driver: Some(Driver::parse(&text, catalog).ok()?), ..host.clone() };
        let mut out = Candidate {
            number: branch.branch,
            supported: branch.is_stable()
                && branch
                    .end_of_life
                    .as_deref()
                    .is_some_and(|end| end >= self.as_of.get(..7).unwrap_or(self.as_of)),
            text,
            mends: BTreeSet::new(),
            knows: BTreeSet::new(),
            breaks: Vec::new(),
            left: BTreeMap::new(),
        };
        for (image, judge) in self.judges.iter().enumerate() {
            let after = judge_target(judge, &with);
            if !failing.iter().any(|p| p.image == image) {
                let now = self.cells.get(image).and_then(|row| row.get(target));
                if now.is_some_and(Cell::works) && !after.works() {
                    out.breaks.push(image);
                }
                continue;
            }
            let left = broken(judge, &with);
            let is = |f: &Finding, rules: &[&str]| rules.contains(&f.rule.name);
            if after.verdict != Verdict::Unknown && left.iter().all(|f| is(f, &SETTINGS)) {
                out.mends.insert(image);
            }
            if !left.iter().any(|f| is(f, &DRIVER_ALONE)) {
                out.knows.insert(image);
            }
            out.left.insert(image, left);
        }
        (!out.mends.is_empty() || !out.knows.is_empty()).then_some(out)
    }

    fn raisable(&self, pair: &Pair) -> bool {
        self.candidates.get(&pair.target).is_some_and(|all| all.iter().any(|c| c.mends.contains(&pair.image)))
    }

    fn knowable(&self, pair: &Pair) -> bool {
        self.candidates.get(&pair.target).is_some_and(|all| all.iter().any(|c| c.knows.contains(&pair.image)))
    }

    /// The images to rebuild and the targets whose driver to change.
    fn choose(&self, open: &[&Pair]) -> (BTreeSet<usize>, BTreeSet<usize>) {
        let mut rebuild: BTreeSet<usize> = BTreeSet::new();
        let mut raise: BTreeSet<usize> = BTreeSet::new();
        for pair in open {
            match (pair.has(&DRIVER_ALONE), self.raisable(pair)) {
                // Only a driver helps; where it does not do alone, a build as well.
                (true, true) => drop(raise.insert(pair.target)),
                (true, false) if self.knowable(pair) => {
                    raise.insert(pair.target);
                    rebuild.insert(pair.image);
                }
                (false, false) => drop(rebuild.insert(pair.image)),
                _ => {}
            }
        }
        let either = |p: &&&Pair| !p.has(&DRIVER_ALONE) && self.raisable(p);
        // A build for a new GPU is no build for an old driver: what a driver mends of a rebuilt image, the driver mends.
        raise.extend(open.iter().filter(either).filter(|p| rebuild.contains(&p.image)).map(|p| p.target));
        let edges: Vec<(usize, usize)> = open
            .iter()
            .filter(either)
            .filter(|p| !raise.contains(&p.target))
            .map(|p| (p.target, p.image))
            .collect();
        // Of equally small covers the one with more hosts: that a driver helps is judged here, that a build will is hoped.
        let (targets, images) = vertex_cover(&edges);
        rebuild.extend(images);
        raise.extend(targets);
        (rebuild, raise)
    }

    /// The driver for a target: the one that mends most, newer ones first, then what breaks least, then one under support, then the
    /// nearest; beside it the lowest that would do.
    fn best(&self, target: usize, open: &[&Pair], rebuild: &BTreeSet<usize>) -> Option<(Candidate, String)> {
        let now = self.now(target);
        let of_target: Vec<&&Pair> = open.iter().filter(|p| p.target == target).collect();
        let helped = |c: &Candidate| {
            let mended = of_target.iter().filter(|p| c.mends.contains(&p.image)).count();
            let known = |p: &&&&Pair| {
                rebuild.contains(&p.image) && p.has(&DRIVER_ALONE) && c.knows.contains(&p.image)
            };
            mended * 2 + of_target.iter().filter(known).count()
        };
        let all = self.candidates.get(&target)?;
        let rank = |c: &Candidate| (Reverse(helped(c)), c.number < now, c.breaks.len());
        let key = |c: &&Candidate| (rank(c), c.number.abs_diff(now));
        let lowest = all.iter().filter(|c| helped(c) > 0).min_by_key(key)?;
        let as_good = |c: &&Candidate| c.supported && rank(c) == rank(lowest);
        let supported = all.iter().filter(as_good).min_by_key(key);
        Some((supported.unwrap_or(lowest).clone(), lowest.text.clone()))
    }

    fn driver_step(&self, target: usize, to: &Candidate, lowest: &str, open: &[&Pair]) -> Step {
        let helped = |p: &&&Pair| {
            p.target == target
                && (to.mends.contains(&p.image) || p.has(&DRIVER_ALONE) && to.knows.contains(&p.image))
        };
        Step::Driver {
            target,
            to: to.text.clone(),
            lowest: lowest.to_owned(),
            older: to.number < self.now(target),
            images: open.iter().filter(helped).map(|p| p.image).collect(),
            after: to.breaks.clone(),
        }
    }
}

/// Rebuilds come first: an image that a newer driver breaks must be there before the driver.
fn rebuilds(
    open: &[&Pair],
    rebuild: &BTreeSet<usize>,
    chosen: &BTreeMap<usize, (Candidate, String)>,
) -> Vec<Step> {
    let mut out = Vec::new();
    for image in rebuild {
        let mut targets = Vec::new();
        let mut how: Vec<String> = Vec::new();
        let mut seen: BTreeSet<(RuleId, Option<String>)> = BTreeSet::new();
        for pair in open.iter().filter(|p| p.image == *image) {
            // What the new driver mends needs no build.
            let left = chosen.get(&pair.target).and_then(|(c, _)| c.left.get(image)).unwrap_or(&pair.broken);
            let of_image = || {
                left.iter()
                    .filter(|f| !SETTINGS.contains(&f.rule.name) && !DRIVER_ALONE.contains(&f.rule.name))
            };
            if of_image().next().is_some() {
                targets.push(pair.target);
                for finding in of_image() {
                    // Several runtimes of one image ask for the same.
                    let asked = (finding.rule, remedy(finding).cloned());
                    if seen.insert(asked) {
                        how.push(in_words(finding));
                    }
                }
            }
        }
        how.sort();
        if !targets.is_empty() {
            out.push(Step::Rebuild { image: *image, targets, how });
        }
    }
    out
}

/// What neither driver nor build mends.
fn kept_off(
    open: &[&Pair],
    rebuild: &BTreeSet<usize>,
    chosen: &BTreeMap<usize, (Candidate, String)>,
) -> Vec<Step> {
    let mut out: BTreeMap<(usize, String), Vec<usize>> = BTreeMap::new();
    for pair in open {
        let by_driver = chosen.get(&pair.target).is_some_and(|(c, _)| c.mends.contains(&pair.image));
        let known = chosen.get(&pair.target).is_some_and(|(c, _)| c.knows.contains(&pair.image));
        let by_build = rebuild.contains(&pair.image) && (known || !pair.has(&DRIVER_ALONE));
        let first =
            pair.broken.iter().find(|f| DRIVER_ALONE.contains(&f.rule.name)).or_else(|| pair.broken.first());
        if let Some(first) = first.filter(|_| !by_driver && !by_build) {
            let why = format!("{} {}", first.rule.code, first.headline);
            out.entry((pair.image, why)).or_default().push(pair.target);
        }
    }
    out.into_iter().map(|((image, why), targets)| Step::KeepOff { image, targets, why }).collect()
}

/// Rule, claim and the first remedy that is about the image.
fn in_words(finding: &Finding) -> String {
    let claim = format!("{} {}", finding.rule.code, finding.headline);
    remedy(finding).map_or_else(|| claim.clone(), |remedy| format!("{claim}: {remedy}"))
}

fn remedy(finding: &Finding) -> Option<&String> {
    finding.remedies.iter().find(|r| !r.starts_with("update the host"))
}

fn platform_builds(pairs: &[&Pair]) -> Vec<Step> {
    let mut out: BTreeMap<usize, (Vec<usize>, Vec<String>)> = BTreeMap::new();
    for pair in pairs {
        let (targets, how) = out.entry(pair.image).or_default();
        targets.push(pair.target);
        let found = pair.broken.iter().filter(|f| f.rule.name == OTHER_PLATFORM).map(in_words);
        how.extend(found.filter(|h| !how.contains(h)).collect::<Vec<_>>());
    }
    out.into_iter().map(|(image, (targets, how))| Step::Rebuild { image, targets, how }).collect()
}

fn settings(pairs: &[&Pair]) -> Vec<Step> {
    let mut out: BTreeMap<usize, (Vec<usize>, Vec<String>)> = BTreeMap::new();
    for pair in pairs {
        for found in pair.broken.iter().filter(|f| SETTINGS.contains(&f.rule.name)) {
            let (images, how) = out.entry(pair.target).or_default();
            images.push(pair.image);
            let said = in_words(found);
            if !how.contains(&said) {
                how.push(said);
            }
        }
    }
    let step = |(target, (mut images, how)): (usize, (Vec<usize>, Vec<String>))| {
        images.dedup();
        Step::Setting { target, images, how }
    };
    out.into_iter().map(step).collect()
}

/// Fewest vertices of both sides that touch every edge; where several choices are equally small, the one with most of the left.
fn vertex_cover(edges: &[(usize, usize)]) -> (BTreeSet<usize>, BTreeSet<usize>) {
    let mut matched: BTreeMap<usize, usize> = BTreeMap::new();
    let left: BTreeSet<usize> = edges.iter().map(|(one, _)| *one).collect();
    for one in &left {
        augment(*one, edges, &mut matched, &mut BTreeSet::new());
    }
    let taken: BTreeSet<usize> = matched.values().copied().collect();
    let (mut seen_left, mut seen_right): (BTreeSet<usize>, BTreeSet<usize>) =
        (left.difference(&taken).copied().collect(), BTreeSet::new());
    let mut queue: Vec<usize> = seen_left.iter().copied().collect();
    while let Some(one) = queue.pop() {
        for (_, right) in edges.iter().filter(|(i, _)| *i == one) {
            if !seen_right.insert(*right) {
                continue;
            }
            if let Some(next) = matched.get(right).filter(|next| seen_left.insert(**next)) {
                queue.push(*next);
            }
        }
    }
    (left.difference(&seen_left).copied().collect(), seen_right)
}

/// One step of the matching: finds a right vertex for a left one, moving others aside.
fn augment(
    one: usize,
    edges: &[(usize, usize)],
    matched: &mut BTreeMap<usize, usize>,
    seen: &mut BTreeSet<usize>,
) -> bool {
    for (_, right) in edges.iter().filter(|(i, _)| *i == one) {
        if !seen.insert(*right) {
            continue;
        }
        let free = match matched.get(right).copied() {
            None => true,
            Some(other) => augment(other, edges, matched, seen),
        };
        if free {
            matched.insert(*right, one);
            return true;
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    fn size(edges: &[(usize, usize)]) -> usize {
        let (images, targets) = vertex_cover(edges);
        assert!(
            edges.iter().all(|(i, t)| images.contains(i) || targets.contains(t)),
            "{edges:?} not covered"
        );
        images.len() + targets.len()
    }

    /// The same by trying every choice.
    fn smallest(edges: &[(usize, usize)]) -> usize {
        (0u32..1 << 8)
            .filter(|bits| edges.iter().all(|(i, t)| bits & (1 << i) != 0 || bits & (1 << (4 + t)) != 0))
            .map(|bits| bits.count_ones() as usize)
            .min()
            .unwrap_or(0)
    }

    #[test]
    fn one_image_on_many_hosts_is_rebuilt_and_many_images_on_one_host_get_a_driver() {
        let (images, targets) = vertex_cover(&[(0, 0), (0, 1), (0, 2)]);
        assert_eq!((images.len(), targets.len()), (1, 0));
        let (images, targets) = vertex_cover(&[(0, 0), (1, 0), (2, 0)]);
        assert_eq!((images.len(), targets.len()), (0, 1));
        assert_eq!(size(&[]), 0);
    }

    proptest::proptest! {
        #[test]
        fn no_cover_is_smaller(edges in proptest::collection::btree_set((0usize..4, 0usize..4), 0..12)) {
            let edges: Vec<(usize, usize)> = edges.into_iter().collect();
            proptest::prop_assert_eq!(size(&edges), smallest(&edges));
        }
    }
}
