//! What several rules about environment variables of the image share.

use super::Case;
use super::nvidia_require::is_legacy_image;
use crate::target::profile::GpuRequest;
use crate::version::Version;

/// Alternatives of a requirement that are shown.
const ALTERNATIVES_SHOWN: usize = 2;

/// Characters of a value of the image that are shown.
const VALUE_SHOWN: usize = 120;

/// A value of the image, to its first 120 characters.
pub(super) fn clipped(value: &str) -> String {
    match value.char_indices().nth(VALUE_SHOWN) {
        Some((end, _)) => format!("{} … ({} characters)", &value[..end], value.chars().count()),
        None => value.to_owned(),
    }
}

/// `cuda>=12.4 brand=tesla,driver>=470,driver<471 … (30 alternatives)`.
pub(super) fn shortened(expression: &str) -> String {
    let all: Vec<&str> = expression.split(' ').filter(|a| !a.is_empty()).collect();
    match all.get(..ALTERNATIVES_SHOWN) {
        Some(first) if all.len() > ALTERNATIVES_SHOWN => {
            format!("{} … ({} alternatives)", clipped(&first.join(" ")), all.len())
        }
        _ => clipped(expression),
    }
}

/// Whether the container runtime prepares the container for a GPU at all: its hook does nothing where no device is asked
/// for. Who asks is not known unless the target says; judging for a GPU, somebody does.
pub(super) fn is_gpu_container(case: &Case<'_>) -> bool {
    match case.host.gpu_request {
        Some(GpuRequest::Nobody) => false,
        Some(GpuRequest::Image) => asks_for_gpu(case),
        Some(GpuRequest::Engine) | None => true,
    }
}

/// Whether the image itself asks for devices.
pub(super) fn asks_for_gpu(case: &Case<'_>) -> bool {
    let config = &case.inventory.facts.image.config;
    match config.env("NVIDIA_VISIBLE_DEVICES") {
        None => is_legacy_image(config),
        Some(value) => {
            let mut words = value.split(',').map(str::trim).filter(|w| !w.is_empty()).peekable();
            words.peek().is_some() && words.all(|w| w != "void")
        }
    }
}

/// The words of `NVIDIA_DRIVER_CAPABILITIES`, with what holds where it is not set.
pub(super) fn capabilities(case: &Case<'_>) -> Vec<String> {
    let config = &case.inventory.facts.image.config;
    let all = || case.catalog.capabilities.iter().map(|c| c.id.clone()).collect();
    let value = config.env("NVIDIA_DRIVER_CAPABILITIES");
    match value.filter(|v| !v.is_empty()) {
        None if value.is_none() && is_legacy_image(config) => all(),
        // The default since container toolkit 1.3; before, it was `utility` alone, and libcuda did not come.
        None if case.host.container_toolkit.as_ref().is_some_and(|v| *v < Version::of(1, 3)) => {
            vec!["utility".to_owned()]
        }
        None => vec!["utility".to_owned(), "compute".to_owned()],
        Some(words) if words.split(',').any(|w| w.trim() == "all") => all(),
        Some(words) => words.split(',').map(str::trim).filter(|w| !w.is_empty()).map(str::to_owned).collect(),
    }
}
