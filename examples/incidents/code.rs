//! GPU code of an image: as the record describes it, and of torch builds as the catalog knows them.

use super::image::{Builder, SITE};
use super::libraries::{at, elf};
use super::words::Framework;
use cudalint::facts::{CodeImage, CodeKind, CodePlace, CodeRow, DeviceCode, Shape};
use cudalint::version::{Arch, ComputeCapability, Version};

impl Builder<'_> {
    /// GPU code: of the library that the record describes, and of torch builds as the catalog knows them.
    pub(super) fn code(&mut self, frameworks: &[Framework]) {
        let of = self.record.arch_of.as_deref().map(str::to_ascii_lowercase);
        let described = match &of {
            None => frameworks.first(),
            Some(of) => frameworks.iter().find(|f| of.starts_with(&f.name.to_ascii_lowercase())),
        };
        let release = described.and_then(|f| f.cuda().0).or_else(|| self.cuda.clone());
        if let Some(images) = self.described(release.as_ref()) {
            let path = match (described, &of) {
                (Some(framework), None) => Self::main_path(framework),
                (Some(framework), Some(_)) => format!("{SITE}/{}/_C.abi3.so", framework.module()),
                (None, _) => "/usr/local/bin/app".to_owned(),
            };
            self.put_code(&path, &images);
        }
        let torch = frameworks.iter().find(|f| f.name == "torch" && !f.is_cpu());
        let own = described.is_some_and(|f| f.name == "torch") && self.has_arch();
        if let Some(torch) = torch.filter(|_| !own)
            && let Some(images) = self.torch_code(torch)
        {
            let path = Self::main_path(torch);
            self.put_code(&path, &images);
        }
        // JAX compiles most of its kernels, and has some of every architecture.
        for jax in frameworks
            .iter()
            .filter(|f| f.name == "jaxlib" && !f.is_cpu() && !self.has_arch())
            .collect::<Vec<_>>()
        {
            let images = self.all_of_release(None, None, jax.cuda().0.as_ref().or(release.as_ref()));
            let path = Self::main_path(jax);
            self.put_code(&path, &images);
        }
        // RAPIDS and CuPy beside another framework: GPU builds, of which the record says no more.
        for other in frameworks.iter().filter(|f| ["cudf", "cuml", "cugraph"].contains(&f.name.as_str())) {
            let images = self.all_of_release(None, None, release.as_ref());
            let path = Self::main_path(other);
            self.put_code(&path, &images);
        }
    }

    fn has_arch(&self) -> bool {
        !self.record.arch_list.is_empty() || self.record.arch_min.is_some() || self.record.arch_max.is_some()
    }

    /// The list as stated, or all machine code of the release between the bounds.
    fn described(&self, release: Option<&Version>) -> Option<Vec<CodeImage>> {
        if !self.record.arch_list.is_empty() {
            return Some(self.record.arch_list.iter().filter_map(|a| self.image(a, release)).collect());
        }
        let bound = |text: &Option<String>| text.as_deref().and_then(ComputeCapability::parse);
        let (min, max) = (bound(&self.record.arch_min), bound(&self.record.arch_max));
        (min.is_some() || max.is_some()).then(|| self.all_of_release(min, max, release))
    }

    fn all_of_release(
        &self,
        min: Option<ComputeCapability>,
        max: Option<ComputeCapability>,
        release: Option<&Version>,
    ) -> Vec<CodeImage> {
        let rows = self.catalog.archs.iter().filter(|a| !a.tegra);
        let of_release = rows.filter(|a| {
            release.is_none_or(|r| {
                a.first_toolkit.major_minor() <= *r
                    && a.last_toolkit.as_ref().is_none_or(|l| *r <= l.major_minor())
            })
        });
        let mut all: Vec<CodeImage> = of_release
            .filter(|a| min.is_none_or(|m| a.cc >= m) && max.is_none_or(|m| a.cc <= m))
            .filter_map(|a| self.image(&format!("sm_{}", a.cc.sm_number()), release))
            .collect();
        // The bounds themselves are machine code that was seen.
        for cc in [min, max].into_iter().flatten() {
            all.extend(self.image(&format!("sm_{}", cc.sm_number()), release));
        }
        all
    }

    /// `cu126` of torch 2.7.0: what `pip install torch` gives on x86-64.
    pub(super) fn variant_on_index(torch: &Framework) -> Option<String> {
        let tables: toml::Table = include_str!("../../rules/catalog/frameworks.toml").parse().ok()?;
        let text = |row: &toml::Value, key: &str| row.get(key).and_then(|v| v.as_str()).map(str::to_owned);
        let rows = tables.get("torch_release")?.as_array()?;
        let row = rows.iter().find(|r| torch.version.is_some() && text(r, "version") == torch.version)?;
        Some(text(row, "pypi_local_version")?.trim_start_matches('+').to_owned())
    }

    /// Machine code of a torch build: of the release on the package index where that is the variant, else of the variant.
    fn torch_code(&self, torch: &Framework) -> Option<Vec<CodeImage>> {
        let tables: toml::Table = include_str!("../../rules/catalog/frameworks.toml").parse().ok()?;
        let rows = |name: &str| tables.get(name).and_then(|t| t.as_array()).cloned().unwrap_or_default();
        let text = |row: &toml::Value, key: &str| row.get(key).and_then(|v| v.as_str()).map(str::to_owned);
        let version = torch.version.as_deref();
        let local = torch.variant.as_ref().map(|v| format!("+{v}"));
        let is_release = |r: &toml::Value| {
            let same = text(r, "version").as_deref() == version;
            same && (local.is_none() || text(r, "pypi_local_version") == local)
        };
        let number = version.and_then(Version::leading).map(|v| v.major_minor());
        let within = |range: &str| {
            let (from, to) = range.split_once('-').unwrap_or((range, range));
            let ends = Version::leading(from).zip(Version::leading(to).or_else(|| Version::leading(from)));
            number.as_ref().is_none_or(|n| ends.is_some_and(|(from, to)| from <= *n && *n <= to))
        };
        let is_variant = |r: &toml::Value| {
            let range = text(r, "releases").unwrap_or_default();
            let for_arm = range.contains("aarch64");
            let of_range = within(range.split(' ').next().unwrap_or_default())
                && (for_arm == (self.machine == "arm64") || !range.contains(' '));
            text(r, "variant") == torch.variant && of_range && torch.bound.is_none()
        };
        let release = rows("torch_release").into_iter().find(is_release);
        let row = release.or_else(|| rows("torch_variant").into_iter().find(is_variant))?;
        let names = row.get("pypi_sm").or_else(|| row.get("sm"))?.as_array()?;
        let (cuda, _) = torch.cuda();
        // `sm_90`, `9.0`, `12.0+PTX`.
        let images = |name: &str| {
            let bare = name.trim_start_matches("sm_");
            let digits: String =
                bare.chars().take_while(|c| c.is_ascii_digit() || *c == '.').filter(|c| *c != '.').collect();
            let ptx = bare.contains("+PTX").then(|| self.image(&format!("compute_{digits}"), cuda.as_ref()));
            [self.image(&format!("sm_{digits}"), cuda.as_ref()), ptx.flatten()]
        };
        Some(names.iter().filter_map(|n| n.as_str()).flat_map(images).flatten().collect())
    }

    /// `sm_86`, `compute_80`; PTX is of the ISA that the release emits.
    fn image(&self, name: &str, release: Option<&Version>) -> Option<CodeImage> {
        let arch = Arch::parse(name)?;
        if name.starts_with("sm") {
            return Some(CodeImage { kind: CodeKind::Sass, arch, ptx_isa: None });
        }
        let isa = release.and_then(|r| self.catalog.ptx_of_cuda(r)).map(|p| p.ptx.clone());
        let ptx_isa =
            isa.and_then(|v| Some((u16::try_from(v.major()).ok()?, u16::try_from(v.minor()).ok()?)));
        // An unknown toolkit's PTX is taken for old: nothing says that a driver cannot compile it.
        Some(CodeImage { kind: CodeKind::Ptx, arch, ptx_isa: ptx_isa.or(Some((6, 0))) })
    }

    fn put_code(&mut self, path: &str, images: &[CodeImage]) {
        let mut images = images.to_vec();
        images.sort_unstable();
        images.dedup();
        let row = |image: &CodeImage| CodeRow {
            place: CodePlace::Section,
            section: Some(".nv_fatbin".to_owned()),
            image: *image,
            toolkit: None,
            count: 1,
            bytes: 4096,
        };
        let shape = Shape {
            place: CodePlace::Section,
            section: Some(".nv_fatbin".to_owned()),
            images: images.clone(),
            count: 1,
        };
        let code = DeviceCode {
            containers: 1,
            bytes: 4096,
            rows: images.iter().map(row).collect(),
            shapes: vec![shape],
            ..DeviceCode::default()
        };
        if let Some(known) = self.files.iter_mut().find(|f| f.place.path.as_str() == path) {
            known.device_code = Some(code);
            return;
        }
        let mut app = elf("", &self.machine);
        app.soname = None;
        if !path.contains("-packages/") {
            app.interpreter = Some("/lib64/ld-linux-x86-64.so.2".to_owned());
        }
        let mut found = at(path, app);
        found.device_code = Some(code);
        self.files.push(found);
    }
}
