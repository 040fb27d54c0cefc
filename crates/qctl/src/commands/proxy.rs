//! `proxy`: serves the API on a local port, with the kubeconfig's credentials, and files beside it.

mod filter;
mod gateway;

use std::net::IpAddr;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};
use tokio::task::JoinSet;
use tokio_util::task::TaskTracker;

use self::filter::Filter;
use self::gateway::Gateway;
use crate::error::{CliError, Result};
use crate::session::Session;

/// Serve the API on a local port
#[derive(Debug, clap::Args)]
pub struct Proxy {
    /// The port to listen on; 0 for a free one [default: 8001]
    #[arg(short = 'p', long)]
    port: Option<u16>,
    /// The address to listen on
    #[arg(long, default_value = "127.0.0.1")]
    address: String,
    /// A Unix socket to listen on instead
    #[arg(short = 'u', long, value_name = "FILE")]
    unix_socket: Option<PathBuf>,
    /// Prefix of the API's paths
    #[arg(long, default_value = "/")]
    api_prefix: String,
    /// A directory with files to serve
    #[arg(short = 'w', long, value_name = "DIRECTORY")]
    www: Option<PathBuf>,
    /// Prefix of the files' paths
    #[arg(short = 'P', long, default_value = "/static/")]
    www_prefix: String,
    /// Regular expressions of the paths to serve
    #[arg(long, default_value = "^.*")]
    accept_paths: String,
    /// Regular expressions of the paths not to serve
    #[arg(long, default_value = "^/api/.*/pods/.*/exec,^/api/.*/pods/.*/attach")]
    reject_paths: String,
    /// Regular expressions of the Host headers to serve
    #[arg(long, default_value = r"^localhost$,^127\.0\.0\.1$,^\[::1\]$")]
    accept_hosts: String,
    /// Regular expressions of the methods not to serve
    #[arg(long, default_value = "^$")]
    reject_methods: String,
    /// Serve everything to everyone who reaches the port
    #[arg(long)]
    disable_filter: bool,
}

const DEFAULT_PORT: u16 = 8001;
/// Time until the next client is accepted after one could not be.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

impl Proxy {
    pub async fn run(self, session: &mut Session) -> Result<()> {
        if self.port.is_some() && self.unix_socket.is_some() {
            return Err(CliError::usage("cannot set --unix-socket and --port at the same time"));
        }
        let filter = if self.disable_filter {
            if self.unix_socket.is_none() {
                session.streams.note(
                    "Warning: Request filter disabled, your proxy is vulnerable to XSRF attacks, please be cautious",
                )?;
            }
            None
        } else {
            Some(Filter::new(&self.accept_paths, &self.reject_paths, &self.accept_hosts, &self.reject_methods)?)
        };
        let files = self.www.map(|directory| (slash_ended(self.www_prefix), directory));
        let gateway = Gateway {
            transport: session.transport.clone(),
            prefix: slash_ended(self.api_prefix),
            filter,
            files,
            upgraded: TaskTracker::new(),
        };
        match &self.unix_socket {
            Some(path) => {
                let listener = listen_at(path)?;
                session.streams.line(format!("Starting to serve on {}", path.display()))?;
                session.streams.flush()?;
                serve(gateway, async || listener.accept().await.map(|(stream, _)| stream)).await
            }
            None => {
                let address: IpAddr = if self.address == "localhost" { "127.0.0.1" } else { &self.address }
                    .parse()
                    .map_err(|error| CliError::usage(format!("{}: {error}", self.address)))?;
                let port = self.port.unwrap_or(DEFAULT_PORT);
                let failed = |source| CliError::io(format!("cannot listen on {address} port {port}"), source);
                let listener = TcpListener::bind((address, port)).await.map_err(failed)?;
                session.streams.line(format!("Starting to serve on {}", listener.local_addr().map_err(failed)?))?;
                session.streams.flush()?;
                serve(gateway, async || listener.accept().await.map(|(stream, _)| stream)).await
            }
        }
    }
}

fn slash_ended(mut prefix: String) -> String {
    if !prefix.ends_with('/') {
        prefix.push('/');
    }
    prefix
}

/// Listens on a socket that only this user can reach. A socket that a former proxy left is replaced.
fn listen_at(path: &Path) -> Result<UnixListener> {
    let failed = |source| CliError::io(format!("cannot listen on {}", path.display()), source);
    if std::fs::symlink_metadata(path).is_ok_and(|metadata| metadata.file_type().is_socket()) {
        std::fs::remove_file(path).map_err(failed)?;
    }
    let before = rustix::process::umask(rustix::fs::Mode::from_bits_truncate(0o077));
    let listener = UnixListener::bind(path);
    rustix::process::umask(before);
    listener.map_err(failed)
}

/// Serves connections until the program ends.
async fn serve<S>(gateway: Gateway, accept: impl AsyncFn() -> std::io::Result<S>) -> !
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = accept() => {
                let stream = match accepted {
                    Ok(stream) => stream,
                    Err(error) => {
                        // Such as too many open files; the next client may find some.
                        tracing::warn!(%error, "cannot accept a client");
                        tokio::time::sleep(ACCEPT_PAUSE).await;
                        continue;
                    }
                };
                let gateway = gateway.clone();
                let service = hyper::service::service_fn(move |request| gateway.clone().answer(request));
                let connection = hyper::server::conn::http1::Builder::new()
                    .serve_connection(TokioIo::new(stream), service)
                    .with_upgrades();
                connections.spawn(connection);
            }
            Some(ended) = connections.join_next() => match ended {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::debug!(%error, "a client's connection failed"),
                Err(error) => tracing::error!(%error, "a connection's task failed"),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};
    use tokio::sync::Mutex;

    use super::*;
    use crate::transport::Transport;

    #[tokio::test]
    async fn a_failed_accept_does_not_end_the_proxy() {
        let gateway = Gateway {
            transport: Arc::new(Transport::new(Vec::new(), None)),
            prefix: "/k8s/".to_owned(),
            filter: None,
            files: None,
            upgraded: TaskTracker::new(),
        };
        let (mut client, server) = duplex(4096);
        let (waiting, failures) = (Mutex::new(Some(server)), AtomicUsize::new(2));
        let accept = async || {
            if failures.load(Ordering::Relaxed) > 0 {
                failures.fetch_sub(1, Ordering::Relaxed);
                return Err(std::io::Error::from_raw_os_error(rustix::io::Errno::MFILE.raw_os_error()));
            }
            match waiting.lock().await.take() {
                Some(server) => Ok(server),
                None => std::future::pending().await,
            }
        };
        let ask = async {
            client.write_all(b"GET /other HTTP/1.1\r\nConnection: close\r\n\r\n").await.expect("written");
            let mut answer = String::new();
            client.read_to_string(&mut answer).await.expect("an answer");
            answer
        };
        let answer = tokio::select! {
            answer = ask => answer,
            () = async { serve(gateway, accept).await } => unreachable!("the proxy serves until the program ends"),
        };
        assert!(answer.starts_with("HTTP/1.1 404"), "{answer}");
    }
}
