//! Writes the first inputs of the fuzz targets into a folder: `fuzz-seeds FOLDER`.

use std::path::Path;
use std::process::ExitCode;

#[expect(clippy::print_stderr, reason = "a command reports to its user")]
fn main() -> ExitCode {
    let Some(folder) = std::env::args_os().nth(1) else {
        eprintln!("usage: fuzz-seeds FOLDER");
        return ExitCode::FAILURE;
    };
    match quorate_fuzz::seeds::write(Path::new(&folder)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: the seeds cannot be written: {error}");
            ExitCode::FAILURE
        }
    }
}
