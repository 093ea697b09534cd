//! Images × hosts of a fleet -> the smallest set of changes with which every image runs on every host: drivers to change, images to
//! rebuild, hosts to keep images off.
//!
//! A pair that fails is mended by a newer driver on the host or by another build of the image. Pairs that only one of the two mends
//! decide for themselves; of the rest the fewest hosts and images that cover all pairs are taken (a minimum vertex cover of a
//! bipartite graph, found through a maximum matching: König's theorem).

#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use crate::catalog::{Branch, Catalog};
use crate::matrix::{Cell, Reason, target as judge_target};
use crate::report::Verdict;
use crate::rules::Judge;
use crate::target::{Driver, Target};
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
    /// Bring another driver onto the hosts of a target.
    Driver { target: usize, to: String, lowest: String, older: bool, images: Vec<usize>, after: Vec<usize> },
    /// Neither helps: keep the image off the hosts.
    KeepOff { image: usize, targets: Vec<usize>, why: String },
}

/// Rules about host and GPU alone: no build of the image mends them.
const HOST_ALONE: [&str; 3] = ["gpu-unknown-to-driver", "gpu-dropped-by-driver", "kernel-module-flavour"];

/// A build for another processor mends these, beside the one that is there: it says nothing of the other hosts.
const OTHER_PLATFORM: &str = "wrong-cpu-architecture";

/// Plans for the images of the judges. `as_of` (`YYYY-MM-DD`): which driver branches count as supported.
pub fn plan(judges: &[Judge], targets: &[Target], as_of: &str) -> Plan {
    let cells: Vec<Vec<Cell>> =
        judges.iter().map(|j| targets.iter().map(|t| judge_target(j, t)).collect()).collect();
    let mut plan = Plan { undecided: Vec::new(), steps: Vec::new(), cells };
    let mut failing: Vec<(usize, usize)> = Vec::new();
    for (image, row) in plan.cells.iter().enumerate() {
        for (target, cell) in row.iter().enumerate() {
            match cell.verdict {
                Verdict::Fails => failing.push((image, target)),
                Verdict::Unknown => plan.undecided.push((image, target)),
                _ => {}
            }
        }
    }
    let options = Options::of(judges, targets, &failing, as_of);
    let (rebuild, raise) = cover(&plan.cells, &options, &failing);
    plan.steps = steps(&plan, &options, &failing, &rebuild, &raise);
    plan
}

/// A driver that mends pairs of a target.
#[derive(Clone, Debug)]
struct Candidate {
    text: String,
    number: u32,
    supported: bool,
    /// Failing images that run with it.
    mends: BTreeSet<usize>,
    /// Images that run now and no longer with it.
    breaks: Vec<usize>,
}

/// What could be done, per target.
struct Options {
    candidates: BTreeMap<usize, Vec<Candidate>>,
    now: BTreeMap<usize, u32>,
}

impl Options {
    fn of(judges: &[Judge], targets: &[Target], failing: &[(usize, usize)], as_of: &str) -> Options {
        let mut options = Options { candidates: BTreeMap::new(), now: BTreeMap::new() };
        let concerned: BTreeSet<usize> = failing.iter().map(|(_, target)| *target).collect();
        for index in concerned {
            let Some(target) = targets.get(index) else { continue };
            // A host without driver in its profile has nothing to raise.
            let Some(now) = target.driver.as_ref() else { continue };
            options.now.insert(index, now.branch().unwrap_or(0));
            let Some(catalog) = judges.first().map(Judge::catalog) else { continue };
            let branches = catalog.branches.iter().filter(|b| !b.status.is_inferred());
            let list = branches
                .filter(|b| Some(b.branch) != now.branch())
                .filter_map(|b| candidate(judges, target, b, catalog, as_of));
            options.candidates.insert(index, list.collect());
        }
        options
    }

    /// Whether some driver mends the pair.
    fn raisable(&self, (image, target): (usize, usize)) -> bool {
        self.candidates.get(&target).is_some_and(|all| all.iter().any(|c| c.mends.contains(&image)))
    }

    /// The driver for the images: newer ones first, one under support if there is one, the lowest of those.
    fn best(&self, target: usize, images: &BTreeSet<usize>) -> Option<(&Candidate, &Candidate)> {
        let now = self.now.get(&target).copied().unwrap_or(0);
        let all = self.candidates.get(&target)?;
        let fits: Vec<&Candidate> = all.iter().filter(|c| images.is_subset(&c.mends)).collect();
        let key = |c: &&&Candidate| (c.number < now, c.breaks.len(), c.number.abs_diff(now));
        let lowest = fits.iter().min_by_key(key)?;
        let same_side =
            |c: &&&Candidate| (c.number < now, c.breaks.len()) == (lowest.number < now, lowest.breaks.len());
        let supported = fits.iter().filter(same_side).filter(|c| c.supported).min_by_key(key);
        Some((supported.unwrap_or(lowest), lowest))
    }
}

fn candidate(
    judges: &[Judge],
    target: &Target,
    branch: &Branch,
    catalog: &Catalog,
    as_of: &str,
) -> Option<Candidate> {
    let text = branch.branch.to_string();
    let with = Target { driver: Some(Driver::parse(&text, catalog).ok()?), ..target.clone() };
    let mut mends = BTreeSet::new();
    let mut breaks = Vec::new();
    for (image, judge) in judges.iter().enumerate() {
        let (before, after) = (judge_target(judge, target), judge_target(judge, &with));
        match (before.verdict, after.works()) {
            (Verdict::Fails, true) => {
                mends.insert(image);
            }
            (Verdict::Runs | Verdict::Degraded, false) => breaks.push(image),
            _ => {}
        }
    }
    let stable = matches!(branch.kind.as_str(), "PB" | "LTSB");
    let supported =
        stable && branch.end_of_life.as_deref().is_some_and(|end| end >= as_of.get(..7).unwrap_or(as_of));
    (!mends.is_empty()).then_some(Candidate { text, number: branch.branch, supported, mends, breaks })
}

/// The images to rebuild and the targets whose driver to change.
fn cover(
    cells: &[Vec<Cell>],
    options: &Options,
    failing: &[(usize, usize)],
) -> (BTreeSet<usize>, BTreeSet<usize>) {
    let rebuildable = |(image, target): (usize, usize)| {
        let reason = cells.get(image).and_then(|r| r.get(target)).and_then(|c| c.reason.as_ref());
        !reason.is_some_and(|r| HOST_ALONE.contains(&r.rule.name) || r.rule.name == OTHER_PLATFORM)
    };
    let mut rebuild: BTreeSet<usize> = BTreeSet::new();
    let mut raise: BTreeSet<usize> = BTreeSet::new();
    for pair in failing {
        match (rebuildable(*pair), options.raisable(*pair)) {
            (true, false) => drop(rebuild.insert(pair.0)),
            (false, true) => drop(raise.insert(pair.1)),
            _ => {}
        }
    }
    // An image that is rebuilt anyway is made for the host as it is; a driver that is raised anyway serves all images it can.
    let open = |pair: &&(usize, usize)| {
        let both = rebuildable(**pair) && options.raisable(**pair);
        both && !rebuild.contains(&pair.0) && !raise.contains(&pair.1)
    };
    // Of equally small covers the one with more hosts: that a driver helps is judged here, that a build will is hoped.
    let edges: Vec<(usize, usize)> =
        failing.iter().filter(open).map(|(image, target)| (*target, *image)).collect();
    let (targets, images) = vertex_cover(&edges);
    rebuild.extend(images);
    raise.extend(targets);
    (rebuild, raise)
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

/// Rebuilds first: an image that a newer driver breaks must be there before the driver.
fn steps(
    plan: &Plan,
    options: &Options,
    failing: &[(usize, usize)],
    rebuild: &BTreeSet<usize>,
    raise: &BTreeSet<usize>,
) -> Vec<Step> {
    let reason = |image: usize, target: usize| {
        plan.cells.get(image).and_then(|r| r.get(target)).and_then(|c| c.reason.as_ref())
    };
    let mut drivers = Vec::new();
    let mut mended: BTreeSet<(usize, usize)> = BTreeSet::new();
    for target in raise {
        let wanted: BTreeSet<usize> = failing
            .iter()
            .filter(|(image, t)| t == target && !rebuild.contains(image) && options.raisable((*image, *t)))
            .map(|(image, _)| *image)
            .collect();
        // Where no one driver mends all of them, the one that mends most.
        let one = |image: usize| BTreeSet::from([image]);
        let best = options
            .best(*target, &wanted)
            .or_else(|| wanted.iter().find_map(|image| options.best(*target, &one(*image))));
        let Some((to, lowest)) = best else { continue };
        let images: Vec<usize> = wanted.iter().copied().filter(|i| to.mends.contains(i)).collect();
        mended.extend(images.iter().map(|i| (*i, *target)));
        drivers.push(Step::Driver {
            target: *target,
            to: to.text.clone(),
            lowest: lowest.text.clone(),
            older: options.now.get(target).is_some_and(|now| to.number < *now),
            images,
            after: to.breaks.clone(),
        });
    }
    let other_platform = |(image, target): (usize, usize)| {
        reason(image, target).is_some_and(|r| r.rule.name == OTHER_PLATFORM)
    };
    let mut out = Vec::new();
    for (image, for_platform) in
        rebuild.iter().map(|i| (*i, false)).chain((0..plan.cells.len()).map(|i| (i, true)))
    {
        let of_image =
            failing.iter().filter(|pair| pair.0 == image && other_platform(**pair) == for_platform);
        let targets: Vec<usize> = of_image.filter(|pair| !mended.contains(pair)).map(|(_, t)| *t).collect();
        if targets.is_empty() {
            continue;
        }
        mended.extend(targets.iter().map(|t| (image, *t)));
        let how = reasons(targets.iter().filter_map(|t| reason(image, *t)));
        out.push(Step::Rebuild { image, targets, how });
    }
    out.extend(drivers);
    let mut left: BTreeMap<(usize, String), Vec<usize>> = BTreeMap::new();
    for (image, target) in failing.iter().filter(|pair| !mended.contains(pair)) {
        let why =
            reason(*image, *target).map_or_else(String::new, |r| format!("{} {}", r.rule.code, r.headline));
        left.entry((*image, why)).or_default().push(*target);
    }
    out.extend(left.into_iter().map(|((image, why), targets)| Step::KeepOff { image, targets, why }));
    out
}

/// Rule, claim and the first remedy that is about the image, once each.
fn reasons<'r>(all: impl Iterator<Item = &'r Reason>) -> Vec<String> {
    let mut out: Vec<String> = Vec::new();
    for found in all {
        let mut about_image = found.remedies.iter().filter(|r| !r.starts_with("update the host"));
        let claim = format!("{} {}", found.rule.code, found.headline);
        let said = about_image.next().map_or_else(|| claim.clone(), |remedy| format!("{claim}: {remedy}"));
        if !out.contains(&said) {
            out.push(said);
        }
    }
    out
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
