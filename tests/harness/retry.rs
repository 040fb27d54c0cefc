//! Waiting for a condition. Deadlines are generous, because they only bound a hang.

use std::fmt::Debug;
use std::time::{Duration, Instant};

const POLL: Duration = Duration::from_millis(50);

/// Time that a condition may take on a loaded machine.
#[derive(Clone, Copy, Debug)]
pub struct Deadline(pub Duration);

impl Default for Deadline {
    fn default() -> Self {
        Deadline(Duration::from_secs(120))
    }
}

/// Polls until `check` returns `Ok`, and returns its value.
///
/// # Panics
/// With the last error, when the default [`Deadline`] passes.
pub fn eventually<T, E: Debug>(what: &str, mut check: impl FnMut() -> Result<T, E>) -> T {
    let started = Instant::now();
    loop {
        match check() {
            Ok(value) => return value,
            Err(error) if started.elapsed() > Deadline::default().0 => panic!("{what}: still {error:?}"),
            Err(_) => std::thread::sleep(POLL),
        }
    }
}

/// Async variant of [`eventually`].
///
/// # Panics
/// With the last error, when the default [`Deadline`] passes.
pub async fn eventually_async<T, E: Debug, F: Future<Output = Result<T, E>>>(
    what: &str,
    mut check: impl FnMut() -> F,
) -> T {
    let started = Instant::now();
    loop {
        match check().await {
            Ok(value) => return value,
            Err(error) if started.elapsed() > Deadline::default().0 => panic!("{what}: still {error:?}"),
            Err(_) => tokio::time::sleep(POLL).await,
        }
    }
}
