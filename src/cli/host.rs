//! `cudalint host`: the profile of this machine, as a targets file.

use super::args::HostArgs;
use super::{load, output, remark, status, targets};
use crate::image::{Error, ErrorKind};
use crate::target::{file, host};

pub(super) fn run(args: &HostArgs) -> Result<u8, Error> {
    let catalog = load::catalog(args.catalog.as_deref())?;
    // Nothing typed is wrong: the machine cannot be looked at.
    let (target, remarks) =
        host::this_machine(&catalog).map_err(|e| Error { kind: ErrorKind::Look, ..targets::usage(e) })?;
    for text in &remarks {
        remark(text);
    }
    output::to_stdout(file::write(&target, &catalog).as_bytes())?;
    Ok(status::OK)
}
