//! Arguments -> `cli::run` -> exit status. Broken pipes end quietly, an interrupt ends with 130.

use std::process::ExitCode;

fn main() -> ExitCode {
    let status = cudalint::cli::run(std::env::args_os());
    ExitCode::from(status)
}
