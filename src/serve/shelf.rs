//! Images that were looked at + profiles -> judgments, each made once and remembered as long as there is room.

use super::looks::{Known, Look, Looks, Wanted, Why};
use super::metrics::Metrics;
use crate::admission::cluster::Profile;
use crate::admission::judgment::{Judgment, judge};
use crate::admission::pods::Overrides;
use crate::catalog::Catalog;
use crate::facts::ImageFacts;
use crate::limits;
use crate::names::Digest;
use crate::rules::Policy;
use crate::target::profile::GpuRequest;
use moka::policy::EvictionPolicy;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::Semaphore;

/// Facts that are loaded at a time.
const LOADS_MAX: usize = 8;
/// Profiles whose judgments are remembered of one image.
const PROFILES_MAX: usize = 256;

/// Why there is no judgment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Missing {
    /// The facts went; they are being looked at again.
    Cold,
    /// Too many others wait.
    Overloaded,
    Failed(String),
}

/// An image as one pod starts it, judged for as many profiles as were asked for.
struct Row {
    judgments: Mutex<HashMap<Arc<str>, Arc<Judgment>>>,
    /// Held by who makes the missing ones.
    filling: tokio::sync::Mutex<()>,
}

pub struct Shelf {
    catalog: Arc<Catalog>,
    policy: Policy,
    metrics: Arc<Metrics>,
    rows: moka::sync::Cache<String, Arc<Row>>,
    facts: moka::sync::Cache<String, Arc<ImageFacts>>,
    /// Judging: as many at a time as there are cores.
    cores: Arc<Semaphore>,
    /// Loading kept facts, for which a registry may be asked.
    loads: Arc<Semaphore>,
    places: Semaphore,
}

/// Of an image, as one pod starts it.
#[derive(Clone, Copy)]
pub struct Question<'a> {
    pub overrides: &'a Overrides,
    pub request: GpuRequest,
    pub profiles: &'a [Arc<Profile>],
    /// Whether facts that are kept no longer are looked at again.
    pub why: Why,
}

impl Shelf {
    pub fn new(catalog: Arc<Catalog>, policy: Policy, metrics: Arc<Metrics>) -> Shelf {
        /// A row with judgments for some profiles and a few reasons in words.
        const ROW_BYTES: u64 = 8 << 10;
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Shelf {
            catalog,
            policy,
            metrics,
            rows: moka::sync::Cache::new(limits::SERVE_JUDGMENT_BYTES_MAX / ROW_BYTES),
            facts: moka::sync::Cache::builder()
                .max_capacity(limits::SERVE_FACTS_MAX)
                .eviction_policy(EvictionPolicy::lru())
                .build(),
            loads: Arc::new(Semaphore::new(LOADS_MAX)),
            cores: Arc::new(Semaphore::new(cores)),
            places: Semaphore::new(limits::SERVE_JUDGMENTS_MAX),
        }
    }

    /// Facts that were just read: they will be asked for.
    pub fn hold(&self, known: &Known, facts: Arc<ImageFacts>) {
        self.facts.insert(known.digest.to_string(), facts);
    }

    fn row(&self, known: &Known, overrides: &Overrides, request: GpuRequest) -> Arc<Row> {
        let own = Digest::of(format!("{overrides:?} {request:?}").as_bytes());
        let key = format!("{} {}", known.digest.hex(), own.hex());
        self.rows.get_with(key, || {
            Arc::new(Row { judgments: Mutex::default(), filling: tokio::sync::Mutex::default() })
        })
    }

    /// The judgments of an image for some profiles, in their order.
    pub async fn judgments(
        &self,
        looks: &Arc<Looks>,
        known: &Arc<Known>,
        question: Question<'_>,
    ) -> Result<Vec<Arc<Judgment>>, Missing> {
        let essence = question.overrides.essence();
        let row = self.row(known, &essence, question.request);
        if let Some(all) = row.all(question.profiles) {
            return Ok(all);
        }
        // Who waits for the same judgment takes no place of others.
        let _filling = row.filling.lock().await;
        if let Some(all) = row.all(question.profiles) {
            return Ok(all);
        }
        let Ok(_place) = self.places.try_acquire() else { return Err(Missing::Overloaded) };
        let facts = self.load(looks, known, question.why).await?;
        let all = question.profiles.len() > PROFILES_MAX;
        let lacking = if all { question.profiles.to_vec() } else { row.lacking(question.profiles) };
        let permit = Arc::clone(&self.cores).acquire_owned().await.map_err(|_| Missing::Overloaded)?;
        let (catalog, policy, filled) = (Arc::clone(&self.catalog), self.policy.clone(), Arc::clone(&row));
        let request = question.request;
        let judging = tokio::task::spawn_blocking(move || {
            let _permit = permit;
            let profiles = lacking.iter().map(AsRef::as_ref);
            let made = judge(&facts, &essence, request, profiles, &catalog, &policy);
            let mut judgments = filled.judgments.lock().unwrap_or_else(PoisonError::into_inner);
            // Hosts that were there once and are no more.
            if judgments.len() > PROFILES_MAX {
                judgments.clear();
            }
            for (profile, judgment) in lacking.iter().zip(made) {
                // Most hosts fare alike, with the same words.
                let alike = judgments.values().find(|known| ***known == judgment).map(Arc::clone);
                judgments.insert(Arc::clone(&profile.key), alike.unwrap_or_else(|| Arc::new(judgment)));
            }
        });
        self.metrics.judged();
        judging.await.map_err(|_| Missing::Failed("judging it ended in a fault of cudalint".to_owned()))?;
        row.all(question.profiles).ok_or(Missing::Cold)
    }

    /// The facts, from memory or from what is kept on disk.
    pub async fn load(
        &self,
        looks: &Arc<Looks>,
        known: &Arc<Known>,
        why: Why,
    ) -> Result<Arc<ImageFacts>, Missing> {
        let key = known.digest.to_string();
        if let Some(facts) = self.facts.get(&key) {
            return Ok(facts);
        }
        let permit = Arc::clone(&self.loads).acquire_owned().await.map_err(|_| Missing::Overloaded)?;
        let (looks_of, of) = (Arc::clone(looks), Arc::clone(known));
        let loading = tokio::task::spawn_blocking(move || {
            let _permit = permit;
            looks_of.facts(&of)
        });
        match loading.await {
            Ok(Ok(Some(facts))) => {
                let facts = Arc::new(facts);
                self.facts.insert(key, Arc::clone(&facts));
                Ok(facts)
            }
            Ok(Ok(None)) => {
                let Known { name, platform, access, .. } = known.as_ref();
                let wanted =
                    Wanted { name: name.clone(), platform: platform.clone(), access: access.clone() };
                looks.forget(&wanted);
                match looks.look(&wanted, why) {
                    Look::Cold { full: true } => Err(Missing::Overloaded),
                    _ => Err(Missing::Cold),
                }
            }
            Ok(Err(error)) => Err(Missing::Failed(error.message)),
            Err(_) => Err(Missing::Failed("loading it ended in a fault of cudalint".to_owned())),
        }
    }
}

impl Row {
    fn all(&self, profiles: &[Arc<Profile>]) -> Option<Vec<Arc<Judgment>>> {
        let judgments = self.judgments.lock().unwrap_or_else(PoisonError::into_inner);
        profiles.iter().map(|profile| judgments.get(&profile.key).cloned()).collect()
    }

    fn lacking(&self, profiles: &[Arc<Profile>]) -> Vec<Arc<Profile>> {
        let judgments = self.judgments.lock().unwrap_or_else(PoisonError::into_inner);
        profiles.iter().filter(|profile| !judgments.contains_key(&profile.key)).cloned().collect()
    }
}
