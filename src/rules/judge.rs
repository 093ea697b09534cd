//! Inventory + targets -> findings. Every rule is asked once for whatever it looks at: over a fleet or a matrix of hosts most
//! answers are had already, and a target judged among many is judged as it would be alone.

use super::reasoning::CodeReach;
use super::{Case, Policy, RULES, Rule, code_not_read};
use crate::catalog::{Branch, Catalog};
use crate::facts::Depth;
use crate::inventory::Inventory;
use crate::report::build::Judged;
use crate::report::{Finding, Outcome};
use crate::target::profile::Kind;
use crate::target::{Driver, Gpu, Host, Target};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

/// The rules of one image, with the answers they gave.
pub struct Judge<'a> {
    inventory: &'a Inventory<'a>,
    catalog: &'a Catalog,
    policy: Policy,
    /// Of each rule, in the order of [`RULES`].
    answers: Vec<Answers>,
    drivers: Seen<Driver>,
    gpus: Seen<Gpu>,
    hosts: Seen<Host>,
    code: CodeReach,
    lowest: RefCell<BTreeMap<(Vec<usize>, usize), Lowest>>,
}

/// A branch number and its text.
type Lowest = Option<(u32, String)>;

/// What one rule said.
type Answers = RefCell<BTreeMap<Key, Rc<[Finding]>>>;

/// Whether it is a Jetson, and the driver, GPU and host that the rule looks at; 0 = none.
type Key = (bool, usize, usize, usize);

/// Values in the order they were met, for short keys.
struct Seen<T>(RefCell<Vec<T>>);

impl<T: Clone + PartialEq> Seen<T> {
    fn new() -> Seen<T> {
        Seen(RefCell::default())
    }

    /// 1 for the first.
    fn number(&self, value: &T) -> usize {
        let mut all = self.0.borrow_mut();
        let known = all.iter().position(|v| v == value);
        known.unwrap_or_else(|| {
            all.push(value.clone());
            all.len() - 1
        }) + 1
    }
}

/// One driver, GPU and host with their numbers.
struct Asked<'a> {
    driver: Option<(usize, &'a Driver)>,
    gpu: Option<(usize, &'a Gpu)>,
    host: (usize, &'a Host),
    jetson: bool,
}

impl<'a> Judge<'a> {
    pub fn new(inventory: &'a Inventory<'a>, catalog: &'a Catalog) -> Judge<'a> {
        let (drivers, gpus, hosts) = (Seen::new(), Seen::new(), Seen::new());
        let answers = RULES.iter().map(|_| RefCell::default()).collect();
        let lowest = RefCell::default();
        let policy = Policy::default();
        Judge {
            policy,
            inventory,
            catalog,
            answers,
            drivers,
            gpus,
            hosts,
            code: CodeReach::default(),
            lowest,
        }
    }

    /// With what people want beyond that it works.
    pub fn with(mut self, policy: Policy) -> Judge<'a> {
        self.policy = policy;
        self
    }

    pub fn inventory(&self) -> &'a Inventory<'a> {
        self.inventory
    }

    pub fn catalog(&self) -> &'a Catalog {
        self.catalog
    }

    /// What every rule says of one driver and GPU on one host, in report order.
    pub fn answers(&self, driver: Option<&Driver>, gpu: Option<&Gpu>, host: &Host) -> Vec<Rc<[Finding]>> {
        let asked = self.asked(driver, gpu, host);
        RULES.iter().zip(&self.answers).map(|(rule, known)| self.ask(rule, known, &asked)).collect()
    }

    fn asked<'t>(&self, driver: Option<&'t Driver>, gpu: Option<&'t Gpu>, host: &'t Host) -> Asked<'t> {
        let by_driver = driver.is_some_and(|d| d.known.tegra);
        Asked {
            driver: driver.map(|d| (self.drivers.number(d), d)),
            gpu: gpu.map(|g| (self.gpus.number(g), g)),
            host: (self.hosts.number(host), host),
            jetson: by_driver || gpu.is_some_and(|g| g.tegra) || host.kind == Some(Kind::Tegra),
        }
    }

    fn ask(&self, rule: &Rule, answers: &Answers, asked: &Asked<'_>) -> Rc<[Finding]> {
        if self.inventory.facts.depth == Depth::Libraries && code_not_read::silences(rule.id) {
            return Rc::new([]);
        }
        let driver = asked.driver.filter(|_| rule.reads.driver);
        let gpu = asked.gpu.filter(|_| rule.reads.gpu);
        let host = Some(asked.host).filter(|_| rule.reads.host);
        let number = |n: Option<usize>| n.unwrap_or(0);
        let key = (
            asked.jetson,
            number(driver.map(|(n, _)| n)),
            number(gpu.map(|(n, _)| n)),
            number(host.map(|(n, _)| n)),
        );
        if let Some(known) = answers.borrow().get(&key) {
            return Rc::clone(known);
        }
        let nothing_known = Host::default();
        let case = Case {
            inventory: self.inventory,
            driver: driver.map(|(_, d)| d),
            gpu: gpu.map(|(_, g)| g),
            host: host.map_or(&nothing_known, |(_, h)| h),
            jetson: asked.jetson,
            catalog: self.catalog,
            policy: &self.policy,
            code: &self.code,
        };
        let answer: Rc<[Finding]> = (rule.judge)(&case).into_iter().map(|f| self.policy.apply(f)).collect();
        answers.borrow_mut().insert(key, Rc::clone(&answer));
        answer
    }

    /// Judges one target: once per GPU, or once without GPU.
    pub fn target(&self, target: &Target) -> Vec<Judged> {
        target
            .each_gpu()
            .into_iter()
            .map(|gpu| {
                let answers = self.answers(target.driver.as_ref(), gpu, &target.host);
                let mut findings: Vec<Finding> = answers.iter().flat_map(|a| a.iter().cloned()).collect();
                self.one_update(&mut findings, gpu, &target.host);
                Judged { gpu: gpu.cloned(), findings }
            })
            .collect()
    }

    /// Judges the image without any target: its inner consistency.
    pub fn alone(&self) -> Vec<Finding> {
        self.answers(None, None, &Host::default()).iter().flat_map(|a| a.iter().cloned()).collect()
    }

    /// Several findings may each ask for a newer driver; only the newest of them mends all, so that one is named.
    pub fn one_update(&self, findings: &mut [Finding], gpu: Option<&Gpu>, host: &Host) {
        const UPDATE: &str = "update the host to driver ";
        let asks =
            |f: &Finding| f.outcome == Outcome::Breaks && f.remedies.iter().any(|r| r.starts_with(UPDATE));
        if !findings.iter().any(asks) {
            return;
        }
        let gpus: Vec<&Gpu> = gpu.into_iter().collect();
        let Some((_, lowest)) = self.lowest(&gpus, host) else { return };
        for finding in findings.iter_mut().filter(|f| asks(f)) {
            for remedy in finding.remedies.iter_mut().filter(|r| r.starts_with(UPDATE)) {
                *remedy = format!("{UPDATE}{lowest} or newer");
            }
        }
    }

    /// The lowest driver on which every target has its work done, with its own GPUs and container stack; `None` where one of
    /// them has none.
    pub fn lowest_driver(&self, targets: &[Target]) -> Option<String> {
        let unknown = Host::default();
        let mut asked: Vec<(Vec<&Gpu>, &Host)> = Vec::new();
        for target in targets {
            let one = (target.gpus.iter().collect(), &target.host);
            if !asked.contains(&one) {
                asked.push(one);
            }
        }
        if asked.is_empty() {
            asked.push((Vec::new(), &unknown));
        }
        let each: Option<Vec<(u32, String)>> =
            asked.iter().map(|(gpus, host)| self.lowest(gpus, host)).collect();
        each?.into_iter().max().map(|(_, text)| text)
    }

    /// The lowest branch from which on none of the GPUs meets a breaking or undecided check, as text: the documented
    /// minimum where that is of the branch.
    fn lowest(&self, gpus: &[&Gpu], host: &Host) -> Lowest {
        let key = (gpus.iter().map(|g| self.gpus.number(g)).collect(), self.hosts.number(host));
        if let Some(known) = self.lowest.borrow().get(&key) {
            return known.clone();
        }
        let found = self.look_for_lowest(gpus, host);
        self.lowest.borrow_mut().insert(key, found.clone());
        found
    }

    fn look_for_lowest(&self, gpus: &[&Gpu], host: &Host) -> Lowest {
        let inventory = self.inventory;
        if inventory.runtimes.is_empty() && inventory.code.is_empty() {
            return None;
        }
        let minimum = inventory.requirements.min_driver.as_ref();
        let works = |b: &&Branch| {
            let driver = Driver::parse(&b.branch.to_string(), self.catalog);
            let one = |gpu: Option<&Gpu>| driver.as_ref().is_ok_and(|d| self.decided(d, gpu, host));
            if gpus.is_empty() { one(None) } else { gpus.iter().all(|g| one(Some(g))) }
        };
        // Requirements may let single old branches pass: "or newer" must hold, so the last unbroken run counts.
        let mut newest_first = self.catalog.branches.iter().rev().skip_while(|b| !works(b));
        let branch = newest_first.by_ref().take_while(works).last()?;
        let documented = minimum.filter(|m| m.major() == u64::from(branch.branch));
        let text = documented.map_or_else(|| format!("branch {}", branch.branch), ToString::to_string);
        Some((branch.branch, text))
    }

    /// Whether nothing breaks and nothing is open.
    fn decided(&self, driver: &Driver, gpu: Option<&Gpu>, host: &Host) -> bool {
        let asked = self.asked(Some(driver), gpu, host);
        let clear =
            |(rule, known)| self.ask(rule, known, &asked).iter().all(|f| f.outcome < Outcome::Unknown);
        RULES.iter().zip(&self.answers).all(clear)
    }
}
