//! An image reference and a credential -> facts, or what is missing. Blocks; called from the threads that look at images.
//!
//! What is kept of layers was read from some registry with some credential. It is used for another credential only after the
//! registry has said that this one, too, gets every layer of the image from that repository, and for another registry never (unless
//! all are trusted alike): one that lies could name anybody's layers.

use super::journal::Journal;
use crate::facts::ImageFacts;
use crate::image::reference::Reference;
use crate::image::registry::RegistryOptions;
use crate::image::source::Source;
use crate::image::{Error, ErrorKind, Image, Manifests, OpenOptions};
use crate::names::{Digest, Platform};
use crate::scan::cache::Cache;
use crate::{examine, scan};
use std::fmt;
use std::sync::Arc;

/// With whose rights an image is read.
#[derive(Clone, Default)]
pub enum Access {
    /// The server's own.
    #[default]
    Server,
    /// Those that came with a request; good for its artifact only, and never written down.
    Lent { login: Login, digest: Digest },
}

/// A login as a request brings it.
#[derive(Clone)]
pub enum Login {
    Anonymous,
    Basic { username: String, password: String },
    Bearer(String),
}

impl Access {
    pub fn lent(login: Login) -> Access {
        let text = match &login {
            Login::Anonymous => String::new(),
            Login::Basic { username, password } => format!("{username}\n{password}"),
            Login::Bearer(token) => token.clone(),
        };
        Access::Lent { login, digest: Digest::of(text.as_bytes()) }
    }

    /// Tells one from another without giving it away.
    pub fn id(&self) -> &str {
        match self {
            Access::Server => "",
            Access::Lent { digest, .. } => digest.hex(),
        }
    }
}

impl fmt::Debug for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Access::Server => "Server",
            Access::Lent { .. } => "Lent",
        })
    }
}

/// What reads images.
pub struct Reader {
    pub open: OpenOptions,
    pub cache: Cache,
    pub scan: scan::Options,
    pub journal: Arc<Journal>,
    /// What is kept of one registry's layers serves images of all: they are all trusted alike.
    pub shares: bool,
}

/// An image whose manifest was read.
pub struct Opened {
    pub image: Image,
    /// Of the platform's manifest.
    pub digest: Digest,
    /// The registry that gave it.
    host: String,
}

impl Reader {
    /// Reads manifests and config, and sees to it that who asks may read the image.
    pub fn open(
        &self,
        name: &Reference,
        platform: Option<&Platform>,
        access: &Access,
    ) -> Result<Opened, Error> {
        let repository = name.repository_name();
        let is_own = matches!(access, Access::Server);
        let is_proven = |digest: &Digest| is_own && self.journal.is_proven(&repository, digest);
        let mut open = self.open.clone();
        open.platform = platform.cloned();
        open.manifests = match name.digest.as_ref().is_some_and(is_proven) {
            true => Manifests::Known,
            false => Manifests::Kept,
        };
        if let Access::Lent { login, .. } = access {
            open.registry = lent(&open.registry, login);
        }
        let image = Image::open(&Source::Registry(name.clone()), &open)?;
        let digest = image.identity.digest.clone();
        let digest = digest.ok_or_else(|| Error::look(format!("{name}: the registry told no digest")))?;
        if !is_proven(&digest) {
            image.is_present()?;
            if is_own {
                for proven in name.digest.iter().chain([&digest]) {
                    self.journal.proven(&repository, proven);
                }
            }
        }
        Ok(Opened { image, digest, host: name.api_host().to_owned() })
    }

    fn options(&self, opened: &Opened) -> scan::Options {
        let scope = (!self.shares).then(|| opened.host.clone());
        // A thread that waits for another one reads nothing.
        scan::Options { scope, impatient: true, ..self.scan.clone() }
    }

    /// The facts, where all of them are kept; nothing is read from the registry.
    pub fn kept(&self, opened: &Opened) -> Option<ImageFacts> {
        let options = scan::Options { cached_only: true, ..self.options(opened) };
        let examined = examine(&opened.image, &self.cache, &options);
        examined.errors.is_empty().then_some(examined.facts)
    }

    /// The facts, with layers read that nothing is kept of.
    pub fn look(&self, opened: &Opened) -> Result<ImageFacts, Error> {
        let mut examined = examine(&opened.image, &self.cache, &self.options(opened));
        self.cache.keep_small();
        // Half an image would be judged as if it were whole. What went wrong comes before what only takes longer.
        examined.errors.sort_by_key(|e| e.kind != ErrorKind::Busy);
        match examined.errors.pop() {
            None => Ok(examined.facts),
            Some(error) => Err(error),
        }
    }
}

fn lent(options: &RegistryOptions, login: &Login) -> RegistryOptions {
    let mut options = RegistryOptions {
        username: None,
        password: None,
        token: None,
        authfile: None,
        lent: true,
        ..options.clone()
    };
    match login {
        Login::Anonymous => {}
        Login::Basic { username, password } => {
            options.username = Some(username.clone());
            options.password = Some(password.clone());
        }
        Login::Bearer(token) => options.token = Some(token.clone()),
    }
    options
}
