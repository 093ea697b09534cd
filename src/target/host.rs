//! This machine -> its driver version. The only part of `target` that looks at the machine.

#![allow(clippy::disallowed_methods, reason = "asks the running host on purpose: `--host-driver auto`")]

use super::{TargetError, outputs};

/// Where the kernel module tells its version.
const PLACES: [&str; 2] = ["/proc/driver/nvidia/version", "/sys/module/nvidia/version"];

/// Version of the loaded kernel module.
pub fn driver_version() -> Result<String, TargetError> {
    let texts: Vec<String> = PLACES.iter().filter_map(|p| std::fs::read_to_string(p).ok()).collect();
    texts.into_iter().find_map(|t| version_in(&t)).ok_or_else(|| {
        let message = format!("no NVIDIA driver found on this machine ({} is absent)", PLACES[0]);
        TargetError::new(message, "name the driver: --host-driver 535.183.01".to_owned())
    })
}

/// `NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.183.01  Sun May 12 …`, or the bare number.
fn version_in(text: &str) -> Option<String> {
    let bare = || text.lines().map(str::trim).find(|l| outputs::is_driver_version(l)).map(str::to_owned);
    outputs::kernel_module(text).driver.or_else(bare)
}

#[cfg(test)]
mod tests {
    use super::version_in;

    #[test]
    fn both_flavours_of_the_kernel_module_are_read() {
        let open = "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  550.54.14  Release Build  (dvs-builder@x)\n\
                    GCC version:  gcc version 12.2.0 (Debian 12.2.0-14)\n";
        let closed =
            "NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.183.01  Sun May 12 19:39:15 UTC 2024\n";
        assert_eq!(version_in(open).as_deref(), Some("550.54.14"));
        assert_eq!(version_in(closed).as_deref(), Some("535.183.01"));
        assert_eq!(version_in("390.157\n").as_deref(), Some("390.157"));
        assert_eq!(version_in("GCC version 12.2.0"), None);
    }
}
