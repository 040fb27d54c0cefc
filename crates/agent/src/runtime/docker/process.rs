//! Finds the engine's process, whose mount namespace decides what containers see of the agent's mounts.

use std::time::Duration;

use tokio::net::UnixStream;

use super::DEFAULT_ENDPOINT;
use super::logs::Engine;

/// Maximum time to connect to the engine's socket.
const CONNECT_DEADLINE: Duration = Duration::from_secs(5);

/// The process that listens on the engine's socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum EngineProcess {
    Pid(i32),
    /// The process is in another process namespace, so one of the two is in a container.
    OtherNamespace,
    /// No engine listens on the socket yet, or the endpoint is not a socket of this machine.
    Unknown,
}

/// Asks the kernel which process listens on the engine's socket.
pub(crate) async fn engine_process(endpoint: Option<&str>) -> EngineProcess {
    let Engine::Unix(socket) = Engine::new(endpoint.unwrap_or(DEFAULT_ENDPOINT)) else { return EngineProcess::Unknown };
    let connected = tokio::time::timeout(CONNECT_DEADLINE, UnixStream::connect(&socket)).await;
    let Ok(Ok(stream)) = connected else { return EngineProcess::Unknown };
    match stream.peer_cred() {
        Ok(peer) => peer.pid().filter(|pid| *pid > 0).map_or(EngineProcess::OtherNamespace, EngineProcess::Pid),
        Err(error) => {
            tracing::debug!(%socket, error = %error, "cannot ask which process listens on the engine's socket");
            EngineProcess::Unknown
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_process_behind_a_socket_is_found() {
        let dir = tempfile::tempdir().expect("a directory");
        let socket = dir.path().join("docker.sock");
        assert_eq!(engine_process(socket.to_str()).await, EngineProcess::Unknown, "nobody listens");
        let _listener = tokio::net::UnixListener::bind(&socket).expect("a socket");
        let own = i32::try_from(std::process::id()).expect("a pid");
        assert_eq!(engine_process(socket.to_str()).await, EngineProcess::Pid(own));
        assert_eq!(engine_process(Some("tcp://127.0.0.1:1")).await, EngineProcess::Unknown);
    }
}
