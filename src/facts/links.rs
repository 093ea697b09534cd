//! Symbolic links of an image -> the real path behind a name, never leaving the image's root.

use super::{FileFacts, ImageFacts};
use crate::limits;
use crate::names::ImagePath;
use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};
use std::ops::Bound;

/// Whether a link in the last part of a path is followed too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Last {
    Follow,
    Keep,
}

/// `path` with its symbolic links followed; `target` tells where the link at a path points, if there is one. After
/// [`limits::SYMLINK_DEPTH_MAX`] links the rest of the path is taken as it stands. Called for every name that a loader tries:
/// one buffer grows and shrinks.
pub fn follow<'t>(path: &'t str, last: Last, target: impl Fn(&str) -> Option<&'t str>) -> ImagePath {
    // What is still to go: the rest of a link's target above the rest of the path that the link stood in.
    let mut rests: Vec<&str> = vec![path];
    // Empty at the root.
    let mut at = String::with_capacity(path.len() + 1);
    let mut links = 0usize;
    while let Some(rest) = rests.last_mut() {
        let (part, behind) = rest.split_once('/').unwrap_or((rest, ""));
        *rest = behind;
        if behind.is_empty() {
            rests.pop();
        }
        match part {
            "" | "." => continue,
            ".." => {
                at.truncate(at.rfind('/').unwrap_or(0));
                continue;
            }
            _ => {}
        }
        let parent = at.len();
        at.push('/');
        at.push_str(part);
        let Some(target) = target(&at).filter(|_| links < limits::SYMLINK_DEPTH_MAX) else { continue };
        let is_last = || rests.iter().all(|rest| rest.split('/').all(|p| matches!(p, "" | ".")));
        if last == Last::Keep && is_last() {
            continue;
        }
        links += 1;
        at.truncate(if target.starts_with('/') { 0 } else { parent });
        rests.push(target);
    }
    ImagePath::from_normal(at)
}

/// Files and symbolic links of a merged image by path.
pub struct Paths<'a> {
    files: BTreeMap<&'a str, &'a FileFacts>,
    links: BTreeMap<&'a str, &'a str>,
    /// Real paths of directories that were asked for: a loader asks for many names in few of them.
    dirs: RefCell<HashMap<String, ImagePath>>,
}

impl<'a> Paths<'a> {
    pub fn of(facts: &'a ImageFacts) -> Paths<'a> {
        let symlinks = facts.links.iter().filter(|l| !l.hard);
        Paths {
            files: facts.files.iter().map(|f| (f.place.path.as_str(), f)).collect(),
            links: symlinks.map(|l| (l.place.path.as_str(), l.target.as_str())).collect(),
            dirs: RefCell::default(),
        }
    }

    /// The real path behind `path`, whether or not anything stands there.
    pub fn real(&self, path: &str) -> ImagePath {
        let follow = |path: &str| follow(path, Last::Follow, |p| self.links.get(p).copied());
        let Some((dir, name)) = path.rsplit_once('/').filter(|(_, name)| !matches!(*name, "" | "." | ".."))
        else {
            return follow(path);
        };
        let mut dirs = self.dirs.borrow_mut();
        let below = match dirs.get(dir) {
            Some(real) => real.join(name),
            None => dirs.entry(dir.to_owned()).or_insert_with(|| follow(dir)).join(name),
        };
        // Links in a row count from here on only: a chain this long is a loop or an attack either way.
        if self.links.contains_key(below.as_str()) { follow(below.as_str()) } else { below }
    }

    /// Files directly in a directory, by its real path.
    pub fn files_in<'s>(&'s self, dir: &ImagePath) -> impl Iterator<Item = &'s &'a FileFacts> + 's {
        let prefix = if dir.is_root() { "/".to_owned() } else { format!("{dir}/") };
        let from = self.files.range::<str, _>((Bound::Included(prefix.as_str()), Bound::Unbounded));
        let below = prefix.clone();
        let inside = from.take_while(move |(path, _)| path.starts_with(&below));
        inside.filter(move |(path, _)| !path[prefix.len()..].contains('/')).map(|(_, file)| file)
    }

    /// The file behind `path`, if it is one that facts were kept of.
    pub fn file(&self, path: &str) -> Option<&'a FileFacts> {
        // Most lookups are for names that do not exist; links need not be followed for the others.
        match self.files.get(path) {
            Some(file) => Some(file),
            None => self.files.get(self.real(path).as_str()).copied(),
        }
    }
}
