//! What the files of an image need -> the `NVIDIA_REQUIRE_CUDA` that says so.

use crate::inventory::Inventory;
use crate::inventory::requirements::payload;

/// The value, such as `cuda>=12.0`: what the newest CUDA runtime accepts that something in the image loads. `None` where there is
/// no runtime of known version.
pub fn value(inventory: &Inventory) -> Option<String> {
    payload(inventory).map(|(_, version)| format!("cuda>={version}"))
}
