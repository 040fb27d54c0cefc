//! A load balancer before the masters' APIs, as clients with a single address use one.

use std::io;
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Time after which an address that does not answer is skipped.
const CONNECT: Duration = Duration::from_secs(2);

/// Forwards each connection to the first of its addresses that accepts it. A connection ends with its backend.
pub struct Balancer {
    address: SocketAddr,
    stopped: Arc<AtomicBool>,
}

impl Balancer {
    /// # Panics
    /// When no port can be opened.
    #[must_use]
    pub fn start(backends: Vec<SocketAddr>) -> Balancer {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
        let address = listener.local_addr().expect("the address of a listener");
        let stopped = Arc::<AtomicBool>::default();
        let stop = stopped.clone();
        std::thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                if stop.load(Ordering::Relaxed) {
                    return;
                }
                let backends = backends.clone();
                std::thread::spawn(move || forward(&client, &backends));
            }
        });
        Balancer { address, stopped }
    }

    #[must_use]
    pub fn url(&self) -> String {
        format!("https://{}", self.address)
    }
}

impl Drop for Balancer {
    fn drop(&mut self) {
        self.stopped.store(true, Ordering::Relaxed);
        // The connection wakes the listening thread. It fails if the thread has ended by itself.
        TcpStream::connect(self.address).ok();
    }
}

fn forward(client: &TcpStream, backends: &[SocketAddr]) {
    let Some(backend) = backends.iter().find_map(|address| TcpStream::connect_timeout(address, CONNECT).ok()) else {
        return;
    };
    std::thread::scope(|scope| {
        scope.spawn(|| copy(client, &backend));
        copy(&backend, client);
    });
}

/// Copies until one side ends, and then ends both.
fn copy(mut from: &TcpStream, mut to: &TcpStream) {
    // A broken connection ends the copy as an orderly end does.
    io::copy(&mut from, &mut to).ok();
    for stream in [from, to] {
        // The other direction may have done it already.
        stream.shutdown(Shutdown::Both).ok();
    }
}
