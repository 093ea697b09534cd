//! Options about hosts -> [`Target`]s.

use super::args::{StackArgs, TargetArgs};
use super::remark;
use crate::catalog::Catalog;
use crate::image::Error;
use crate::target::{self, Driver, Host, Target, TargetError, profile};
use std::path::Path;

/// The profiles of a file, or every driver with every GPU.
pub(super) fn targets(args: &TargetArgs, catalog: &Catalog) -> Result<Vec<Target>, Error> {
    if let Some(file) = &args.targets {
        return from_file(file, &args.target, args.cordoned, catalog);
    }
    // Not the parser's to refuse: the configuration file may name the targets.
    if !args.target.is_empty() || args.cordoned {
        return Err(Error::usage("--target and --cordoned choose from --targets, which is not given"));
    }
    let mut drivers = Vec::new();
    for text in &args.host_driver {
        let version =
            if text == "auto" { target::host::driver_version().map_err(usage)? } else { text.clone() };
        drivers.push(Driver::parse(&version, catalog).map_err(usage)?);
    }
    for text in &args.host_cuda {
        drivers.push(Driver::from_cuda(text, catalog).map_err(usage)?);
    }
    let gpus: Result<Vec<_>, _> = args.gpu.iter().map(|g| target::resolve_gpu(g, catalog)).collect();
    let host = host(&args.stack)?;
    if host != Host::default() && drivers.is_empty() && args.gpu.is_empty() {
        let hint = "add --host-driver or --gpu".to_owned();
        return Err(Error::usage("a container toolkit, mode or brand alone is no target").hint(hint));
    }
    Ok(target::cross(drivers, gpus.map_err(usage)?, &host))
}

/// What was said of the container stack.
pub(super) fn host(args: &StackArgs) -> Result<Host, Error> {
    let toolkit = args.container_toolkit.as_deref().map(profile::toolkit_version).transpose();
    let mode = args.runtime_mode.as_deref().map(profile::RuntimeMode::parse).transpose();
    let brand = args.brand.as_deref().map(profile::Brand::check_nvml).transpose();
    Ok(Host {
        container_toolkit: toolkit.map_err(usage)?,
        runtime_mode: mode.map_err(usage)?,
        brand: brand.map_err(usage)?,
        ..Host::default()
    })
}

pub(super) fn usage(error: TargetError) -> Error {
    match error.hint {
        Some(hint) => Error::usage(error.message).hint(hint),
        None => Error::usage(error.message),
    }
}

pub(super) fn from_file(
    file: &Path,
    chosen: &[String],
    cordoned: bool,
    catalog: &Catalog,
) -> Result<Vec<Target>, Error> {
    let name = file.display();
    let text = if file == Path::new("-") {
        std::io::read_to_string(std::io::stdin().lock())
    } else {
        std::fs::read_to_string(file)
    };
    let text = text.map_err(|e| Error::usage(format!("targets `{name}`: {e}")))?;
    let fleet = target::fleet::read(&text, cordoned, catalog).map_err(|e| {
        usage(TargetError { message: format!("targets `{name}`: {}", e.message), hint: e.hint })
    })?;
    for text in &fleet.remarks {
        remark(&format!("targets `{name}`: {text}"));
    }
    let mut all = fleet.targets;
    if let Some(unknown) = chosen.iter().find(|c| !all.iter().any(|t| t.name == **c)) {
        let names: Vec<String> = all.iter().map(|t| format!("`{}`", t.name)).collect();
        let hint = format!("it has {}", names.join(", "));
        return Err(Error::usage(format!("targets `{name}` has no target `{unknown}`")).hint(hint));
    }
    all.retain(|t| chosen.is_empty() || chosen.contains(&t.name));
    Ok(all)
}
