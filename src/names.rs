//! The small words every stage shares: digests, paths inside an image, layer indices, platforms.
//! Text -> checked values; nothing here opens anything.

use std::fmt;

/// A content digest as OCI writes it: `sha256:` + 64 hexadecimal digits (sha384 and sha512 are
/// accepted by the grammar and refused where bytes must be checked).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest(String);

impl Digest {
    /// Checks `algorithm:hex`; `None` where the text is no digest.
    pub fn parse(text: &str) -> Option<Digest> {
        let (algorithm, hex) = text.split_once(':')?;
        let hex_len = match algorithm {
            "sha256" => 64,
            "sha384" => 96,
            "sha512" => 128,
            _ => return None,
        };
        let is_hex = hex.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
        (hex.len() == hex_len && is_hex).then(|| Digest(text.to_owned()))
    }

    /// The SHA-256 digest of raw hash bytes.
    pub fn sha256(hash: &[u8]) -> Digest {
        Digest(format!("sha256:{}", hex(hash)))
    }

    /// The SHA-256 digest of `bytes`.
    pub fn of(bytes: &[u8]) -> Digest {
        use sha2::Digest as _;
        Digest::sha256(&sha2::Sha256::digest(bytes))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// `sha256`, `sha384` or `sha512`.
    pub fn algorithm(&self) -> &str {
        self.0.split(':').next().unwrap_or_default()
    }

    /// The hexadecimal part.
    pub fn hex(&self) -> &str {
        self.0.split(':').nth(1).unwrap_or_default()
    }

    /// `sha256:` and the first eight digits, for people.
    pub fn short(&self) -> &str {
        self.0.get(..self.algorithm().len() + 9).unwrap_or(&self.0)
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Two lower-case digits for each byte.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

/// An absolute, normalised path inside the image: `/usr/lib/libcudart.so.12`. Never on this machine's disk.
/// Bytes that are not UTF-8 are kept as replacement characters: such names take no part in the CUDA stack.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ImagePath(String);

impl ImagePath {
    /// Normalises a tar member name: leading `./` and `/` dropped, empty and `.` parts dropped, `..` clamped at
    /// the root as a chroot would, everything after a NUL byte ignored.
    pub fn from_bytes(name: &[u8]) -> ImagePath {
        let name = name.split(|&b| b == 0).next().unwrap_or_default();
        ImagePath::new(&String::from_utf8_lossy(name))
    }

    /// As [`ImagePath::from_bytes`], from text.
    pub fn new(name: &str) -> ImagePath {
        ImagePath::from_normal(extended(String::with_capacity(name.len() + 1), name))
    }

    /// As [`ImagePath::new`]; a text that is normal already is taken as it is.
    pub fn from_owned(path: String) -> ImagePath {
        let odd = |part: &str| matches!(part, "" | "." | "..");
        let is_normal = path.strip_prefix('/').is_some_and(|rest| !rest.split('/').any(odd));
        if is_normal { ImagePath(path) } else { ImagePath::new(&path) }
    }

    /// From a text that is normal already, but for the root, which is empty.
    pub(crate) fn from_normal(path: String) -> ImagePath {
        if path.is_empty() { ImagePath("/".to_owned()) } else { ImagePath(path) }
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    pub fn is_root(&self) -> bool {
        self.0 == "/"
    }

    /// The last part; empty for the root.
    pub fn file_name(&self) -> &str {
        self.0.rsplit('/').next().unwrap_or_default()
    }

    /// The directory that holds this path; the root is its own parent.
    pub fn parent(&self) -> ImagePath {
        match self.0.rfind('/') {
            Some(0) | None => ImagePath("/".to_owned()),
            Some(at) => ImagePath(self.0[..at].to_owned()),
        }
    }

    /// `name` below this directory; `name` may hold several parts and `..`.
    pub fn join(&self, name: &str) -> ImagePath {
        if name.starts_with('/') {
            return ImagePath::new(name);
        }
        let mut path = String::with_capacity(self.0.len() + 1 + name.len());
        if !self.is_root() {
            path.push_str(&self.0);
        }
        ImagePath::from_normal(extended(path, name))
    }

    /// Whether `self` lies below `dir` (a path is not below itself).
    pub fn is_below(&self, dir: &ImagePath) -> bool {
        dir.is_root() && !self.is_root()
            || self.0.len() > dir.0.len()
                && self.0.starts_with(&dir.0)
                && self.0.as_bytes()[dir.0.len()] == b'/'
    }
}

/// A normal path, empty for the root, and the parts of `name` below it.
fn extended(mut path: String, name: &str) -> String {
    for part in name.split('/') {
        match part {
            "" | "." => {}
            ".." => path.truncate(path.rfind('/').unwrap_or(0)),
            part => {
                path.push('/');
                path.push_str(part);
            }
        }
    }
    path
}

/// Looked up by text: both compare alike.
impl std::borrow::Borrow<str> for ImagePath {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ImagePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// 0-based index into the manifest's layers, base layer first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LayerIndex(pub u32);

/// `os/architecture[/variant]` as OCI names it: `linux/amd64`, `linux/arm64/v8`.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Platform {
    pub os: String,
    pub architecture: String,
    pub variant: Option<String>,
}

impl Platform {
    /// Linux on the architecture of this machine.
    pub fn of_this_machine() -> Platform {
        Platform {
            os: "linux".to_owned(),
            architecture: oci_architecture(std::env::consts::ARCH).to_owned(),
            variant: None,
        }
    }

    /// Accepts `linux/arm64/v8`, `linux/amd64`, a bare architecture (`arm64`, `x86_64`), which means Linux, and `linux`,
    /// which means the architecture of this machine.
    pub fn parse(text: &str) -> Option<Platform> {
        let valid =
            |s: &str| !s.is_empty() && s.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b));
        let parts: Vec<&str> = text.split('/').collect();
        if !parts.iter().all(|p| valid(p)) {
            return None;
        }
        let (os, architecture, variant) = match parts.as_slice() {
            ["linux"] => return Some(Platform::of_this_machine()),
            [architecture] => ("linux", *architecture, None),
            [os, architecture] => (*os, *architecture, None),
            [os, architecture, variant] => (*os, *architecture, Some((*variant).to_owned())),
            _ => return None,
        };
        Some(Platform { os: os.to_owned(), architecture: oci_architecture(architecture).to_owned(), variant })
    }

    /// Whether an image of platform `self` is what was asked for. amd64 matches any amd64 image without a
    /// higher variant; arm64 and arm64/v8 are one.
    pub fn satisfies(&self, wanted: &Platform) -> bool {
        if self.os != wanted.os || self.architecture != wanted.architecture {
            return false;
        }
        let normal = |p: &Platform| match (p.architecture.as_str(), p.variant.as_deref()) {
            ("arm64", Some("v8")) | ("amd64", Some("v1")) => None,
            (_, v) => v.map(str::to_owned),
        };
        match (normal(self), normal(wanted)) {
            (have, Some(want)) => have.as_deref() == Some(want.as_str()),
            (have, None) => have.is_none() || self.architecture != "amd64",
        }
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        match &self.variant {
            Some(variant) => write!(f, "/{variant}"),
            None => Ok(()),
        }
    }
}

/// The OCI (Go) name of an architecture that others call `x86_64` or `aarch64`.
pub fn oci_architecture(name: &str) -> &str {
    match name {
        "x86_64" | "x64" => "amd64",
        "aarch64" => "arm64",
        "powerpc64le" => "ppc64le",
        other => other,
    }
}

/// What is wrong with a TOML text, on one line with the line's number, without the text itself: it may be a file that holds secrets.
pub fn located(text: &str, error: &toml::de::Error) -> String {
    let line = error.span().map(|s| text.get(..s.start).unwrap_or_default().matches('\n').count() + 1);
    let message = error.message().split_whitespace().collect::<Vec<_>>().join(" ");
    line.map_or_else(|| message.clone(), |line| format!("line {line}: {message}"))
}

/// Everything but letters, digits, `-._~` and the bytes in `kept` as `%XX`: parts of addresses and of package URLs.
pub fn percent_encoded(text: &str, kept: &[u8]) -> String {
    let mut out = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) || kept.contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tar_names_become_absolute_and_stay_inside_the_root() {
        for (given, wanted) in [
            ("./usr/lib/a.so", "/usr/lib/a.so"),
            ("/usr//lib/./a.so/", "/usr/lib/a.so"),
            ("../../etc/passwd", "/etc/passwd"),
            ("./", "/"),
            ("a/../../b", "/b"),
        ] {
            assert_eq!(ImagePath::new(given).as_str(), wanted);
        }
        assert_eq!(ImagePath::from_bytes(b"a\0b").as_str(), "/a");
    }

    #[test]
    fn below_means_a_whole_path_part() {
        let dir = ImagePath::new("/a");
        assert!(ImagePath::new("/a/b").is_below(&dir));
        assert!(!ImagePath::new("/ab").is_below(&dir));
        assert!(!dir.is_below(&dir));
        assert!(dir.is_below(&ImagePath::new("/")));
    }

    #[test]
    fn arm64_and_arm64_v8_are_one_platform() {
        let v8 = Platform::parse("linux/arm64/v8").unwrap();
        let plain = Platform::parse("aarch64").unwrap();
        assert!(v8.satisfies(&plain) && plain.satisfies(&v8));
        assert!(!Platform::parse("linux/amd64/v3").unwrap().satisfies(&Platform::parse("amd64").unwrap()));
        assert!(Platform::parse("linux//amd64").is_none());
    }

    #[test]
    fn a_digest_is_lower_case_hexadecimal_of_the_right_length() {
        assert!(Digest::parse("sha256:abc").is_none());
        assert!(Digest::parse(&format!("sha256:{}", "A".repeat(64))).is_none());
        let digest = Digest::parse(&format!("sha256:{}", "a".repeat(64))).unwrap();
        assert_eq!(digest.short(), "sha256:aaaaaaaa");
    }
}
