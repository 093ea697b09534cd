//! Numbers and texts in a library's bytes -> its version and the CUDA release it was built with.
//!
//! The encodings were read off real files and checked against what the libraries answer themselves.

use crate::facts::ElfFacts;
use crate::version::Version;

/// A version that a file states itself.
#[derive(Clone, Debug, PartialEq)]
pub struct Stated {
    pub version: Version,
    /// What it was read from: `cusparseGetVersion`, `the text "NCCL version"`.
    pub how: String,
}

/// How a number holds a version.
#[derive(Clone, Copy)]
enum Encoding {
    /// 12301 = 12.3.1
    Thousands,
    /// 120405 = 12.4.5
    TenThousands,
    /// 8907 = 8.9.7 below 10000, else 90100 = 9.1.0
    Either,
    /// 0x00090a02 = 9.10.2
    Word,
}

const NUMBERS: &[(&str, Encoding)] = &[
    ("cublasLtGetVersion", Encoding::TenThousands),
    ("cudnn_graph_version", Encoding::Word),
    ("cudnn_ops_infer_version", Encoding::Word),
    ("cudnn_ops_train_version", Encoding::Word),
    ("cudnn_cnn_infer_version", Encoding::Word),
    ("cudnn_cnn_train_version", Encoding::Word),
    ("cudnn_adv_infer_version", Encoding::Word),
    ("cudnn_adv_train_version", Encoding::Word),
    ("cudnnGetVersion", Encoding::Either),
    ("cufftGetVersion", Encoding::Thousands),
    ("curandGetVersion", Encoding::Thousands),
    ("cusolverGetVersion", Encoding::Thousands),
    ("cusparseGetVersion", Encoding::Thousands),
    ("cusparseLtGetVersion", Encoding::Thousands),
    ("cutensorGetVersion", Encoding::TenThousands),
    ("getInferLibVersion", Encoding::Either),
];

fn decode(value: u32, encoding: Encoding) -> Version {
    let (major, minor, patch) = match encoding {
        Encoding::Either if value >= 10_000 => (value / 10_000, value / 100 % 100, value % 100),
        Encoding::Thousands | Encoding::Either => (value / 1000, value / 100 % 10, value % 100),
        Encoding::TenThousands => (value / 10_000, value / 100 % 100, value % 100),
        Encoding::Word => (value >> 16, value >> 8 & 0xff, value & 0xff),
    };
    Version::triple(u64::from(major), u64::from(minor), u64::from(patch))
}

/// The version that a library of the CUDA stack states in its bytes. The CUDA runtime's is read elsewhere.
pub fn stated(component: &str, elf: &ElfFacts) -> Option<Stated> {
    let text = |what: &str| elf.version_texts.get(what).filter(|t| t.len() == 1).and_then(|t| t.first());
    let of_text =
        |version: &str, how: &str| Some(Stated { version: Version::parse(version)?, how: how.to_owned() });
    match component {
        "nccl" => {
            // Newer ones hold the version with and without its CUDA.
            let texts = elf.version_texts.get("nccl")?;
            let mut plain: Vec<&str> = texts.iter().filter_map(|t| t.split('+').next()).collect();
            plain.dedup();
            let [one] = plain.as_slice() else { return None };
            return of_text(one, "the text `NCCL version`");
        }
        "nvrtc" | "nvjitlink" => {
            return text("toolkit").and_then(|v| of_text(v, "the text `Cuda compilation tools`"));
        }
        "nvshmem" => return text("nvshmem").and_then(|v| of_text(v, "the text `NVSHMEM v`")),
        _ => {}
    }
    let (name, encoding) = NUMBERS.iter().find(|(name, _)| elf.version_numbers.contains_key(*name))?;
    let version = decode(*elf.version_numbers.get(*name)?, *encoding);
    Some(Stated { version, how: (*name).to_owned() })
}

/// The CUDA release that a library says it was built with.
pub fn built_with(component: &str, elf: &ElfFacts) -> Option<Version> {
    if component == "nccl" {
        let mut texts = elf.version_texts.get("nccl")?.iter();
        return texts.find_map(|t| Version::parse(t.split_once("+cuda")?.1));
    }
    let names = ["cudnnGetCudartVersion", "cublasLtGetCudartVersion", "cutensorGetCudartVersion"];
    names.iter().find_map(|n| elf.version_numbers.get(*n)).map(|v| Version::from_cuda_code(*v))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_decode_as_the_libraries_mean_them() {
        for (name, value, version) in [
            ("cusparseGetVersion", 12_301, "12.3.1"),
            ("curandGetVersion", 10_305, "10.3.5"),
            ("cublasLtGetVersion", 120_405, "12.4.5"),
            ("cusparseLtGetVersion", 701, "0.7.1"),
            ("cutensorGetVersion", 20_200, "2.2.0"),
            ("cudnnGetVersion", 91_002, "9.10.2"),
            ("cudnnGetVersion", 8907, "8.9.7"),
            ("cudnn_graph_version", 0x0009_0a02, "9.10.2"),
            ("getInferLibVersion", 8503, "8.5.3"),
        ] {
            let mut elf = ElfFacts::default();
            elf.version_numbers.insert(name.to_owned(), value);
            assert_eq!(stated("any", &elf).unwrap().version.as_str(), version, "{name} {value}");
        }
    }

    #[test]
    fn nccl_says_its_version_and_its_cuda() {
        let mut elf = ElfFacts::default();
        elf.version_texts.insert("nccl".to_owned(), vec!["2.21.5+cuda12.4".to_owned()]);
        assert_eq!(stated("nccl", &elf).unwrap().version.as_str(), "2.21.5");
        assert_eq!(built_with("nccl", &elf).unwrap().as_str(), "12.4");
        let v = |text: &str| Version::parse(text).unwrap();
        assert!(v("12.4.5").agrees_with(&v("12.4.5.8")) && !v("9.1.0").agrees_with(&v("9.10.2")));
    }
}
