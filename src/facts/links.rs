//! Symbolic links of an image -> the real path behind a name, never leaving the image's root.

use super::{FileFacts, ImageFacts};
use crate::limits;
use crate::names::ImagePath;
use std::collections::BTreeMap;
use std::ops::Bound;

/// Whether a link in the last part of a path is followed too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Last {
    Follow,
    Keep,
}

/// `path` with its symbolic links followed; `target` tells where the link at a path points, if there is one. After
/// [`limits::SYMLINK_DEPTH_MAX`] links the rest of the path is taken as it stands.
pub fn follow<'t>(path: &str, last: Last, target: impl Fn(&ImagePath) -> Option<&'t str>) -> ImagePath {
    let split = |text: &str| -> Vec<String> {
        text.split('/').filter(|p| !p.is_empty() && *p != ".").rev().map(str::to_owned).collect()
    };
    let mut parts = split(path);
    let mut at = ImagePath::new("/");
    let mut links = 0usize;
    while let Some(part) = parts.pop() {
        if part == ".." {
            at = at.parent();
            continue;
        }
        let next = at.join(&part);
        let is_last = parts.is_empty() && last == Last::Keep;
        match target(&next).filter(|_| !is_last && links < limits::SYMLINK_DEPTH_MAX) {
            Some(target) => {
                links += 1;
                if target.starts_with('/') {
                    at = ImagePath::new("/");
                }
                parts.extend(split(target));
            }
            None => at = next,
        }
    }
    at
}

/// Files and symbolic links of a merged image by path.
pub struct Paths<'a> {
    files: BTreeMap<&'a str, &'a FileFacts>,
    links: BTreeMap<&'a str, &'a str>,
}

impl<'a> Paths<'a> {
    pub fn of(facts: &'a ImageFacts) -> Paths<'a> {
        let symlinks = facts.links.iter().filter(|l| !l.hard);
        Paths {
            files: facts.files.iter().map(|f| (f.place.path.as_str(), f)).collect(),
            links: symlinks.map(|l| (l.place.path.as_str(), l.target.as_str())).collect(),
        }
    }

    /// The real path behind `path`, whether or not anything stands there.
    pub fn real(&self, path: &str) -> ImagePath {
        follow(path, Last::Follow, |p| self.links.get(p.as_str()).copied())
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
