//! A GPU as typed -> its compute capability and what is known of the product. Names that fit several generations are
//! asked back, never resolved silently.

use super::TargetError;
use super::profile::Brand;
use crate::catalog::{self, Catalog};
use crate::version::{Arch, ComputeCapability, Suffix};
use std::collections::BTreeSet;

/// A GPU as far as it is known.
#[derive(Clone, Debug, PartialEq)]
pub struct Gpu {
    /// As typed.
    pub typed: String,
    /// The product, where one was named.
    pub product: Option<String>,
    pub cc: ComputeCapability,
    /// A Jetson module: machine code of its exact compute capability only.
    pub tegra: bool,
    /// Whether forward-compatibility packages may be used: `Some` where every product in question agrees.
    pub forward_compat: Option<bool>,
    /// OCI architecture of the hosts it comes in, where there is only one.
    pub host_arch: Option<&'static str>,
    /// Brands that libnvidia-container may see: more than one where that is not certain.
    pub brands: Vec<Brand>,
}

impl Gpu {
    /// `H100 (sm_90)`, or `sm_90` where no product was named.
    pub fn describe(&self) -> String {
        let sm = format!("sm_{}", self.cc.sm_number());
        match &self.product {
            Some(product) => format!("{} ({sm})", short_name(product)),
            None => sm,
        }
    }
}

/// Without those that describe themselves like one before.
pub fn distinct(gpus: impl IntoIterator<Item = Gpu>) -> Vec<Gpu> {
    let mut out: Vec<Gpu> = Vec::new();
    for gpu in gpus {
        if !out.iter().any(|known| known.describe() == gpu.describe()) {
            out.push(gpu);
        }
    }
    out
}

/// `NVIDIA H100` is `H100` to everybody.
fn short_name(product: &str) -> &str {
    let bare = product.strip_prefix("NVIDIA ").unwrap_or(product);
    bare.strip_prefix("GeForce ").unwrap_or(bare)
}

/// Lower case, without maker and family words, every run of other characters one hyphen: the catalog's convention.
fn normal(text: &str) -> String {
    let lower = text.to_lowercase();
    let words = lower.split(|c: char| !c.is_ascii_alphanumeric()).filter(|w| !w.is_empty());
    let kept: Vec<&str> = words.filter(|w| !matches!(*w, "nvidia" | "geforce" | "tesla" | "gpu")).collect();
    kept.join("-")
}

fn squeezed(text: &str) -> String {
    normal(text).replace('-', "")
}

/// Resolves a product, an architecture, a compute capability or a cloud instance type.
pub fn resolve(typed: &str, catalog: &Catalog) -> Result<Gpu, TargetError> {
    if let Some(cc) = capability(typed, catalog)? {
        return Ok(of_capability(typed, cc, catalog));
    }
    let name = normal(typed);
    if let Some(row) = catalog.ambiguous.iter().find(|a| squeezed(&a.alias) == squeezed(typed)) {
        return Err(ambiguous(typed, &row.candidates));
    }
    let exact: Vec<&catalog::Gpu> =
        catalog.gpus.iter().filter(|g| names(g).contains(&squeezed(typed))).collect();
    let capabilities: BTreeSet<ComputeCapability> = exact.iter().map(|g| g.cc).collect();
    match (exact.first(), capabilities.len()) {
        (Some(gpu), 1) => return Ok(of_product(typed, gpu)),
        (Some(_), _) => {
            return Err(ambiguous(typed, &exact.iter().map(|g| g.name.clone()).collect::<Vec<_>>()));
        }
        (None, _) => {}
    }
    if let Some(found) = architecture(typed, &name, catalog) {
        return found;
    }
    if let Some(found) = cloud(typed, catalog) {
        return found;
    }
    let closest = closest(&name, catalog);
    let hint = match closest.is_empty() {
        true => "a product (h100, rtx4090), an architecture (sm_90, hopper), a compute capability (9.0)"
            .to_owned(),
        false => format!("did you mean {}?", closest.join(", ")),
    };
    Err(TargetError::new(format!("GPU `{typed}` is not known"), hint))
}

fn names(gpu: &catalog::Gpu) -> Vec<String> {
    std::iter::once(&gpu.name).chain(&gpu.aliases).map(|n| squeezed(n)).collect()
}

fn ambiguous(typed: &str, candidates: &[String]) -> TargetError {
    let hint = format!("write which one: {}", candidates.join(", "));
    TargetError::new(format!("GPU `{typed}` may be several products"), hint)
}

/// `9.0`, `sm_90`, `sm90`, `compute_90`. A number that no architecture has is an error.
fn capability(typed: &str, catalog: &Catalog) -> Result<Option<ComputeCapability>, TargetError> {
    let lower = typed.trim().to_lowercase();
    let number = ["sm_", "sm", "compute_"].iter().find_map(|p| lower.strip_prefix(p));
    let cc = match number {
        Some(number) => match Arch::parse(number) {
            Some(Arch { suffix: Suffix::None, number }) => ComputeCapability::from_sm(number),
            Some(arch) => {
                let hint = format!("a GPU is sm_{}; the suffix belongs to code", arch.number);
                return Err(TargetError::new(format!("`{typed}` names a code target, not a GPU"), hint));
            }
            None => return Ok(None),
        },
        None => match ComputeCapability::parse(&lower) {
            Some(cc) => cc,
            None => return Ok(None),
        },
    };
    if catalog.arch_row(cc).is_none() {
        let known: Vec<String> = catalog.archs.iter().map(|a| a.cc.to_string()).collect();
        let message = format!("no GPU has compute capability {cc}");
        return Err(TargetError::new(message, format!("there are {}", known.join(", "))));
    }
    Ok(Some(cc))
}

pub fn of_capability(typed: &str, cc: ComputeCapability, catalog: &Catalog) -> Gpu {
    let products: Vec<&catalog::Gpu> = catalog.gpus.iter().filter(|g| g.cc == cc).collect();
    let all = |value: &str| !products.is_empty() && products.iter().all(|g| g.forward_compat == value);
    let forward_compat = if all("yes") {
        Some(true)
    } else if all("no") {
        Some(false)
    } else {
        None
    };
    let tegra = catalog.is_tegra(cc);
    let host_arch = tegra.then_some("arm64");
    let brands: BTreeSet<Brand> =
        products.iter().flat_map(|g| Brand::of_product(&g.name, &g.gpu_class)).copied().collect();
    let brands = if brands.is_empty() { Brand::ALL.to_vec() } else { brands.into_iter().collect() };
    Gpu { typed: typed.to_owned(), product: None, cc, tegra, forward_compat, host_arch, brands }
}

fn of_product(typed: &str, gpu: &catalog::Gpu) -> Gpu {
    let forward_compat = match gpu.forward_compat.as_str() {
        "yes" => Some(true),
        "no" => Some(false),
        _ => None,
    };
    // Grace superchips, GB10 and Jetson exist on arm64 hosts only; T4G is AWS's board for Graviton.
    let grace = ["GH200", "GB200", "GB300", "T4G"].iter().any(|n| gpu.name.contains(n));
    let host_arch = (grace || gpu.form != "discrete").then_some("arm64");
    Gpu {
        typed: typed.to_owned(),
        product: Some(gpu.name.clone()),
        cc: gpu.cc,
        tegra: gpu.tegra,
        forward_compat,
        host_arch,
        brands: Brand::of_product(&gpu.name, &gpu.gpu_class).to_vec(),
    }
}

/// `hopper`; names with several compute capabilities (`ampere`, `blackwell`) are asked back. Jetson parts count only
/// where an architecture has nothing else.
fn architecture(typed: &str, name: &str, catalog: &Catalog) -> Option<Result<Gpu, TargetError>> {
    let rows = catalog.archs.iter().filter(|a| normal(&a.architecture) == name);
    let (tegra, discrete): (Vec<_>, Vec<_>) = rows.partition(|a| a.tegra);
    let rows = if discrete.is_empty() { tegra } else { discrete };
    match rows.as_slice() {
        [] => None,
        [one] => Some(Ok(of_capability(typed, one.cc, catalog))),
        several => {
            let names: Vec<String> = several.iter().map(|a| format!("sm_{}", a.cc.sm_number())).collect();
            Some(Err(ambiguous(typed, &names)))
        }
    }
}

/// `p5.48xlarge`, `a3-highgpu-8g`, `Standard_ND96isr_H100_v5`.
fn cloud(typed: &str, catalog: &Catalog) -> Option<Result<Gpu, TargetError>> {
    let lower = typed.to_lowercase();
    let azure = lower.strip_prefix("standard_").map(azure_family);
    let matches = |instance: &str| {
        let instance = instance.to_lowercase();
        let family = lower
            .strip_prefix(&instance)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '-', ':']));
        family || azure.as_deref() == Some(instance.as_str())
    };
    let rows: Vec<_> = catalog.cloud.iter().filter(|c| matches(&c.instance)).collect();
    let longest = rows.iter().map(|r| r.instance.len()).max()?;
    let products: BTreeSet<&str> =
        rows.iter().filter(|r| r.instance.len() == longest).map(|r| r.gpu.as_str()).collect();
    let products: Vec<&str> = products.into_iter().collect();
    match products.as_slice() {
        [one] => catalog.gpus.iter().find(|g| g.name == *one).map(|g| Ok(of_product(typed, g))),
        several => Some(Err(ambiguous(typed, &several.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>()))),
    }
}

/// `nd96isr_h100_v5` belongs to the family `nd_h100_v5`: the digits and letters of size behind the family go.
fn azure_family(name: &str) -> String {
    let mut parts = name.split('_');
    let first: String =
        parts.next().unwrap_or_default().chars().take_while(char::is_ascii_alphabetic).collect();
    std::iter::once(first.as_str()).chain(parts).collect::<Vec<_>>().join("_")
}

fn closest(name: &str, catalog: &Catalog) -> Vec<String> {
    let bare = name.replace('-', "");
    let mut scored: Vec<(usize, &str)> = catalog
        .gpus
        .iter()
        .filter_map(|g| {
            let distance = names(g).iter().map(|n| strsim::damerau_levenshtein(n, &bare)).min()?;
            Some((distance, g.name.as_str()))
        })
        .filter(|(distance, _)| *distance <= 2.max(bare.len() / 4))
        .collect();
    scored.sort_unstable();
    scored.into_iter().take(3).map(|(_, name)| name.to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cc(typed: &str) -> String {
        let resolved = resolve(typed, &Catalog::built_in().unwrap());
        resolved.map_or_else(|e| e.to_string(), |g| g.cc.to_string())
    }

    #[test]
    fn products_architectures_capabilities_and_instances_resolve() {
        for (typed, wanted) in [
            ("h100", "9.0"),
            ("H100-SXM", "9.0"),
            ("NVIDIA H100 80GB HBM3", "9.0"),
            ("rtx4090", "8.9"),
            ("RTX 4090", "8.9"),
            ("l40s", "8.9"),
            ("a100", "8.0"),
            ("sm_90", "9.0"),
            ("sm120", "12.0"),
            ("hopper", "9.0"),
            ("turing", "7.5"),
            ("9.0", "9.0"),
            ("p5.48xlarge", "9.0"),
            ("g4dn.xlarge", "7.5"),
            ("a2-highgpu-1g", "8.0"),
            ("Standard_ND96isr_H100_v5", "9.0"),
        ] {
            assert_eq!(cc(typed), wanted, "{typed}");
        }
    }

    #[test]
    fn doubtful_names_are_asked_back() {
        assert!(cc("rtx6000").contains("several products"));
        assert!(cc("blackwell").contains("several products"));
        assert!(cc("h1000").contains("not known"));
        assert!(cc("sm_90a").contains("code target"));
        assert!(cc("9.7").contains("no GPU has"));
        let error = resolve("h10o", &Catalog::built_in().unwrap()).unwrap_err();
        assert!(error.hint.unwrap().contains("H100"));
    }

    #[test]
    fn forward_compatibility_is_known_where_all_products_agree() {
        let catalog = Catalog::built_in().unwrap();
        assert_eq!(resolve("sm_90", &catalog).unwrap().forward_compat, Some(true));
        assert_eq!(resolve("8.6", &catalog).unwrap().forward_compat, None);
        assert_eq!(resolve("rtx4090", &catalog).unwrap().forward_compat, Some(false));
        assert_eq!(resolve("gh200", &catalog).unwrap().host_arch, Some("arm64"));
    }
}
