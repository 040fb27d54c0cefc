//! Connections to ports of a pod, made inside its network namespace, so that a server that listens only on localhost is
//! reached too.

use std::fs::File;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::time::Duration;

use nix::sched::{CloneFlags, setns};
use tokio::sync::oneshot;

use super::exec::is_of_container;

/// Maximum time for a connection to a port.
const WITHIN: Duration = Duration::from_secs(10);

/// Why a port was not reached.
#[derive(Debug, thiserror::Error)]
pub(super) enum DialError {
    /// The namespace cannot be entered: the engine runs on another machine, or the agent has not the rights.
    #[error("cannot enter the pod's network namespace: {0}")]
    Namespace(std::io::Error),
    #[error("{0}")]
    Connect(std::io::Error),
}

/// Connects to a port on localhost as the process `pid` of the container sees it.
pub(super) async fn inside(pid: i32, container: String, port: u16) -> Result<tokio::net::TcpStream, DialError> {
    let (sender, receiver) = oneshot::channel();
    // The namespace is a property of the thread, so the thread ends with the attempt and is never reused.
    let thread = std::thread::Builder::new().name("port-forward".to_owned()).spawn(move || {
        if sender.send(enter(pid, &container).and_then(|()| localhost(port))).is_err() {
            tracing::debug!(port, "a client went away while a port was being connected to");
        }
    });
    thread.map_err(DialError::Namespace)?;
    let connection = receiver.await.map_err(|error| DialError::Connect(std::io::Error::other(error)))??;
    tokio::net::TcpStream::from_std(connection).map_err(DialError::Connect)
}

fn enter(pid: i32, container: &str) -> Result<(), DialError> {
    let namespace = File::open(format!("/proc/{pid}/ns/net")).map_err(DialError::Namespace)?;
    // Another process may have got the pid before the file was opened.
    if !is_of_container(pid, container) {
        return Err(DialError::Namespace(std::io::Error::other("the process does not belong to the container")));
    }
    setns(namespace, CloneFlags::CLONE_NEWNET).map_err(|errno| DialError::Namespace(errno.into()))
}

fn localhost(port: u16) -> Result<TcpStream, DialError> {
    let dial = |address: IpAddr| {
        let connection = TcpStream::connect_timeout(&SocketAddr::new(address, port), WITHIN)?;
        connection.set_nonblocking(true)?;
        connection.set_nodelay(true)?;
        Ok(connection)
    };
    // A server may listen only on the other family. The first error is the one that users know.
    dial(Ipv4Addr::LOCALHOST.into())
        .or_else(|error: std::io::Error| dial(Ipv6Addr::LOCALHOST.into()).map_err(|_: std::io::Error| error))
        .map_err(DialError::Connect)
}

/// Connects to a port at an address of the pod.
pub(super) async fn address(ip: &str, port: u16) -> Result<tokio::net::TcpStream, DialError> {
    let dial = tokio::time::timeout(WITHIN, tokio::net::TcpStream::connect((ip, port)));
    let connection = dial.await.map_err(|late| DialError::Connect(late.into()))?.map_err(DialError::Connect)?;
    connection.set_nodelay(true).map_err(DialError::Connect)?;
    Ok(connection)
}
