//! Arguments -> `cli::run` -> exit status. Broken pipes end quietly, an interrupt ends with 130.

use std::process::ExitCode;

fn main() -> ExitCode {
    cudalint::cli::exit_on_interrupt();
    let status = cudalint::cli::run(std::env::args_os());
    ExitCode::from(status)
}
