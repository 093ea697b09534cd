//! Inventory + target + catalog -> findings. One file per rule; this list is the order in which they are asked.
//!
//! A rule says what follows; what is true of the world stands in the catalog. A conclusion that rests on an INFERRED
//! row alone never breaks a verdict: it makes it unknown ([`breaks_if`]).

#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

mod arch_specific_code_only;
mod bitsandbytes_variant_missing;
mod build_machine_path;
mod built_for_another_torch;
mod c_library_too_old;
mod checks_disabled;
mod code_not_read;
mod compat;
mod compat_needs_entry_point;
mod compat_older_than_driver;
mod conflicting_distributions;
mod cpu_only_build;
mod cublas_pair_mixed;
mod cuda_version_variable;
mod cudnn;
mod cudnn_incomplete;
mod cudnn_mixed;
mod cudnn_older_than_built;
mod cudnn_without_gpu;
mod cupy_libraries_missing;
mod damaged_file;
mod development_toolkit;
mod driver_below_documented_minimum;
mod driver_capability_missing;
mod driver_end_of_life;
mod driver_library_in_image;
mod driver_needed_at_import;
mod driver_needs_library;
mod driver_not_decisive;
mod driver_security_fix_missing;
mod driver_too_old;
mod drivers_differ;
mod engine_for_another_gpu;
mod engine_for_another_tensorrt;
mod feature_branch_driver;
mod floating_reference;
mod forward_compatibility;
mod forward_compatibility_unusable;
mod gpu_dropped_by_driver;
mod gpu_unknown_to_driver;
mod image_incomplete;
mod jax_library_too_old;
mod jax_versions_disagree;
mod jit_only;
mod jit_setting;
mod judge;
mod kernel_module_flavour;
mod known_library_bug;
mod library_for_another_cuda;
mod link_out_of_image;
mod linking;
mod loader_cache_missing;
mod loader_variable_in_image;
mod lto_ir_only;
mod minor_version_compatibility;
mod missing_library;
mod misspelt_setting;
mod mount_target_is_link;
mod musl_image;
mod nccl_linked_statically;
mod no_code_for_gpu;
mod no_gpu_requested;
mod nvidia_require;
mod nvrtc_builtins_missing;
mod onnxruntime_libraries_missing;
mod partial_gpu_cover;
mod pins_not_met;
mod ptx_too_new;
mod ptxas_too_old;
mod reasoning;
mod requirement_disagrees;
mod requirement_not_met;
mod requirements;
mod setting_refused;
mod settings;
mod several_cuda_majors;
mod shadowed_library;
mod stub_driver;
mod tegra_code_mismatch;
mod tensorflow_libraries_missing;
mod toolkit_security_fix_missing;
mod torch_companion_cuda;
mod triton_assembler_too_new;
mod undefined_symbol;
mod unpinned_framework;
mod version_disagrees;
mod wrong_cpu_architecture;

pub use judge::Judge;

use crate::catalog::Catalog;
use crate::inventory::Inventory;
use crate::report::{Finding, Level, Outcome, RuleId, RuntimeError};
use crate::target::profile::RuntimeMode;
use crate::target::{Driver, Gpu, Host};

/// What a rule may look at. What it does not declare in [`Rule::reads`] is hidden from it.
pub struct Case<'a> {
    pub inventory: &'a Inventory<'a>,
    pub driver: Option<&'a Driver>,
    pub gpu: Option<&'a Gpu>,
    pub host: &'a Host,
    /// A Jetson, by GPU, driver or what the target says.
    pub jetson: bool,
    pub catalog: &'a Catalog,
    pub policy: &'a Policy,
    code: &'a reasoning::CodeReach,
}

/// What the people who run the image want beyond that it works.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Policy {
    /// Without one, the rules of policy say nothing.
    pub profile: Option<Profile>,
    /// The day that counts, `YYYY-MM-DD`.
    pub as_of: String,
    /// Driver branches of all hosts that are judged.
    pub drivers: Vec<u32>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Profile {
    /// What policy has to say is a note.
    Development,
    /// It is a warning.
    Production,
}

/// Notes that are warnings in production: the rules of policy, and those of security and order.
const OF_PRODUCTION: [RuleId; 9] = [
    floating_reference::RULE.id,
    development_toolkit::RULE.id,
    driver_end_of_life::RULE.id,
    feature_branch_driver::RULE.id,
    unpinned_framework::RULE.id,
    drivers_differ::RULE.id,
    several_cuda_majors::RULE.id,
    driver_security_fix_missing::RULE.id,
    toolkit_security_fix_missing::RULE.id,
];

impl Policy {
    /// Gives a finding the level that it has under the policy.
    fn apply(&self, mut finding: Finding) -> Finding {
        let raised = self.profile == Some(Profile::Production) && finding.level == Level::Note;
        if raised && OF_PRODUCTION.contains(&finding.rule) {
            finding.level = Level::Warning;
        }
        finding
    }
}

/// One rule.
pub struct Rule {
    pub id: RuleId,
    /// One line for `cudalint rules`.
    pub summary: &'static str,
    pub reads: Reads,
    judge: fn(&Case<'_>) -> Vec<Finding>,
}

/// What a rule looks at beside the image: where two targets agree in that, its answer is the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reads {
    pub driver: bool,
    pub gpu: bool,
    pub host: bool,
}

impl Reads {
    const IMAGE: Reads = Reads { driver: false, gpu: false, host: false };
    const DRIVER: Reads = Reads { driver: true, ..Reads::IMAGE };
    const GPU: Reads = Reads { gpu: true, ..Reads::IMAGE };
    const HOST: Reads = Reads { host: true, ..Reads::IMAGE };
    const ALL: Reads = Reads { driver: true, gpu: true, host: true };

    const fn and(self, other: Reads) -> Reads {
        Reads {
            driver: self.driver || other.driver,
            gpu: self.gpu || other.gpu,
            host: self.host || other.host,
        }
    }
}

/// Every rule, in report order.
pub const RULES: &[Rule] = &[
    driver_too_old::RULE,
    driver_below_documented_minimum::RULE,
    minor_version_compatibility::RULE,
    forward_compatibility::RULE,
    forward_compatibility_unusable::RULE,
    gpu_unknown_to_driver::RULE,
    gpu_dropped_by_driver::RULE,
    driver_not_decisive::RULE,
    wrong_cpu_architecture::RULE,
    kernel_module_flavour::RULE,
    no_code_for_gpu::RULE,
    jit_only::RULE,
    ptx_too_new::RULE,
    partial_gpu_cover::RULE,
    arch_specific_code_only::RULE,
    tegra_code_mismatch::RULE,
    lto_ir_only::RULE,
    engine_for_another_gpu::RULE,
    missing_library::RULE,
    undefined_symbol::RULE,
    c_library_too_old::RULE,
    cublas_pair_mixed::RULE,
    cudnn_mixed::RULE,
    cudnn_incomplete::RULE,
    nvrtc_builtins_missing::RULE,
    library_for_another_cuda::RULE,
    several_cuda_majors::RULE,
    shadowed_library::RULE,
    build_machine_path::RULE,
    known_library_bug::RULE,
    cudnn_without_gpu::RULE,
    nccl_linked_statically::RULE,
    driver_needed_at_import::RULE,
    version_disagrees::RULE,
    cudnn_older_than_built::RULE,
    tensorflow_libraries_missing::RULE,
    onnxruntime_libraries_missing::RULE,
    cupy_libraries_missing::RULE,
    jax_library_too_old::RULE,
    engine_for_another_tensorrt::RULE,
    cpu_only_build::RULE,
    pins_not_met::RULE,
    torch_companion_cuda::RULE,
    built_for_another_torch::RULE,
    conflicting_distributions::RULE,
    jax_versions_disagree::RULE,
    triton_assembler_too_new::RULE,
    bitsandbytes_variant_missing::RULE,
    checks_disabled::RULE,
    ptxas_too_old::RULE,
    compat_older_than_driver::RULE,
    stub_driver::RULE,
    driver_library_in_image::RULE,
    requirement_not_met::RULE,
    requirement_disagrees::RULE,
    cuda_version_variable::RULE,
    setting_refused::RULE,
    driver_capability_missing::RULE,
    no_gpu_requested::RULE,
    misspelt_setting::RULE,
    jit_setting::RULE,
    mount_target_is_link::RULE,
    compat_needs_entry_point::RULE,
    musl_image::RULE,
    loader_cache_missing::RULE,
    driver_needs_library::RULE,
    loader_variable_in_image::RULE,
    link_out_of_image::RULE,
    driver_security_fix_missing::RULE,
    toolkit_security_fix_missing::RULE,
    floating_reference::RULE,
    development_toolkit::RULE,
    driver_end_of_life::RULE,
    feature_branch_driver::RULE,
    unpinned_framework::RULE,
    drivers_differ::RULE,
    damaged_file::RULE,
    image_incomplete::RULE,
    code_not_read::RULE,
];

/// Every rule by its two names.
pub fn ids() -> Vec<RuleId> {
    RULES.iter().map(|r| r.id).collect()
}

/// The rule of a code or name.
pub fn find(text: &str) -> Option<&'static Rule> {
    RULES.iter().find(|r| r.id.code.eq_ignore_ascii_case(text) || r.id.name.eq_ignore_ascii_case(text))
}

/// `Breaks` where the facts behind it are measured or documented, `Unknown` where they are only inferred.
fn breaks_if(facts_are_sure: bool) -> Outcome {
    if facts_are_sure { Outcome::Breaks } else { Outcome::Unknown }
}

impl Case<'_> {
    /// The container runtime's mode, and whether it is derived.
    fn mode(&self) -> Option<(RuntimeMode, bool)> {
        self.host.mode(self.jetson)
    }

    /// Whether what is known of the driver carries an error. The driver number that Jetson modules of the Thor
    /// generation print is not reliable; their CUDA version is.
    fn driver_is_sure(&self) -> bool {
        let desktop_number = |d: &Driver| !d.known.tegra && d.version.is_some();
        self.driver.is_some_and(|d| d.known.sure && !(self.jetson && desktop_number(d)))
    }

    /// The error of a code, with the text of the runtime library.
    fn error(&self, code: i64) -> Option<RuntimeError> {
        let row = self.catalog.error(code)?;
        let name = row.runtime_name.clone().or_else(|| row.driver_name.clone());
        Some(RuntimeError { code: Some(code), name, text: row.text.clone().unwrap_or_default() })
    }
}
