//! The `qctl` binary. `quorate ctl` runs the same commands.

use std::process::ExitCode;

fn main() -> ExitCode {
    quorate_qctl::run(std::env::args_os())
}
