//! The `qctl` binary; `quorate ctl` is the same.

use std::process::ExitCode;

fn main() -> ExitCode {
    quorate_qctl::run(std::env::args_os())
}
