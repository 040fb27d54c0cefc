//! `port-forward`: listens on local ports and connects each client to a port of a pod.

mod connection;
mod ports;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::ops::ControlFlow;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use self::ports::Forwarded;
use crate::error::{CliError, Result};
use crate::manifest::FileFlags;
use crate::pods::{self, Found};
use crate::remote::RunningTimeout;
use crate::session::Session;
use crate::watch::{Followed, follow};

/// Forward local ports to ports of a pod
#[derive(Debug, clap::Args)]
pub struct PortForward {
    /// POD or TYPE/NAME, and [LOCAL_PORT:]REMOTE_PORT…; without a local port (`:80`), a free one is taken
    #[arg(value_name = "TYPE/NAME [LOCAL_PORT:]REMOTE_PORT")]
    arguments: Vec<String>,
    /// Addresses to listen on; localhost is both 127.0.0.1 and ::1
    #[arg(long, value_delimiter = ',', default_value = "localhost")]
    address: Vec<String>,
    #[command(flatten)]
    timeout: RunningTimeout,
}

/// Number of accepted clients that wait to be served.
const WAITING: usize = 16;

/// A client of a forwarded port.
struct Client {
    connection: TcpStream,
    ports: Forwarded,
}

impl PortForward {
    pub async fn run(self, session: &mut Session) -> Result<()> {
        let [target, wanted @ ..] = self.arguments.as_slice() else {
            return Err(CliError::usage("TYPE/NAME and list of ports are required for port-forward"));
        };
        if wanted.is_empty() {
            return Err(CliError::usage("TYPE/NAME and list of ports are required for port-forward"));
        }
        let target = std::slice::from_ref(target);
        let found = pods::find(session, target, &FileFlags::default(), self.timeout.pod_running_timeout).await?;
        let ports = wanted
            .iter()
            .map(|text| ports::resolve(text, &found.named.object, &found.pod))
            .collect::<Result<Vec<Forwarded>>>()?;
        if found.phase() != "Running" {
            return Err(CliError::usage(format!(
                "unable to forward port because pod is not running. Current status={}",
                found.phase()
            )));
        }
        let (clients, accepted) = mpsc::channel(WAITING);
        let mut listeners = JoinSet::new();
        for ports in &ports {
            for listener in self.listen(session, *ports).await? {
                listeners.spawn(accept(listener, *ports, clients.clone()));
            }
        }
        if listeners.is_empty() {
            let ports: Vec<String> = ports.iter().map(|p| format!("{{{} {}}}", p.local, p.remote)).collect();
            return Err(CliError::usage(format!(
                "unable to listen on any of the requested ports: [{}]; choose other local ports",
                ports.join(" ")
            )));
        }
        session.streams.flush()?;
        serve(session, &found, accepted).await
    }

    /// Listens on every address, and announces it.
    async fn listen(&self, session: &mut Session, ports: Forwarded) -> Result<Vec<TcpListener>> {
        let (mut listeners, mut failures) = (Vec::new(), Vec::new());
        let mut local = ports.local;
        for address in &self.address {
            let addresses: Vec<IpAddr> = if address == "localhost" {
                vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()]
            } else {
                let invalid = |error| CliError::usage(format!("{address} is not a valid IP address: {error}"));
                vec![address.parse().map_err(invalid)?]
            };
            for ip in addresses {
                let bound = match TcpListener::bind(SocketAddr::new(ip, local)).await {
                    Ok(listener) => listener.local_addr().map(|bound| (listener, bound)),
                    Err(error) => Err(error),
                };
                match bound {
                    Ok((listener, bound)) => {
                        // All addresses get the same port.
                        local = bound.port();
                        session.streams.line(format!("Forwarding from {bound} -> {}", ports.remote))?;
                        listeners.push(listener);
                    }
                    Err(error) => failures.push(format!("{}: {error}", SocketAddr::new(ip, local))),
                }
            }
        }
        if listeners.is_empty() {
            session.streams.note(format!("Unable to listen on port {local}: {}", failures.join(", ")))?;
        }
        Ok(listeners)
    }
}

async fn accept(listener: TcpListener, ports: Forwarded, clients: mpsc::Sender<Client>) {
    loop {
        match listener.accept().await {
            Ok((connection, from)) => {
                let local = connection.local_addr().map_or(ports.local, |address| address.port());
                tracing::debug!(%from, local, "a client connected");
                let ports = Forwarded { local, ..ports };
                if clients.send(Client { connection, ports }).await.is_err() {
                    return;
                }
            }
            Err(error) => {
                // Such as too many open files; the next client may find some.
                tracing::warn!(%error, "cannot accept a client");
                tokio::time::sleep(std::time::Duration::from_millis(100)).await;
            }
        }
    }
}

/// Serves clients until the user interrupts or the pod ends.
async fn serve(session: &mut Session, found: &Found, mut accepted: mpsc::Receiver<Client>) -> Result<()> {
    let transport = session.transport.clone();
    let followed = Followed { resource: &found.resource, namespace: Some(found.namespace()), name: found.name() };
    let uid = &found.pod["metadata"]["uid"];
    let gone = follow(&transport, followed, None, |pod| {
        let runs = pod.is_some_and(|pod| {
            pod["metadata"]["uid"] == *uid && !["Succeeded", "Failed"].map(Into::into).contains(&pod["status"]["phase"])
        });
        Ok(if runs { ControlFlow::Continue(()) } else { ControlFlow::Break(()) })
    });
    let mut gone = std::pin::pin!(gone);
    let interrupt = tokio::signal::ctrl_c();
    let mut interrupt = std::pin::pin!(interrupt);
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            Some(client) = accepted.recv() => {
                let Client { connection, ports } = client;
                session.streams.line(format!("Handling connection for {}", ports.local))?;
                session.streams.flush()?;
                let path = found.path("portforward").query("ports", ports.remote);
                let transport = session.transport.clone();
                connections.spawn(async move { (ports, connection::forward(&transport, path, connection).await) });
            }
            Some(ended) = connections.join_next() => {
                let failure = match ended {
                    Ok((_, Ok(None))) => continue,
                    Ok((ports, Ok(Some(reason)))) => (ports, reason),
                    Ok((ports, Err(error))) => (ports, error.to_string()),
                    Err(error) => return Err(CliError::usage(format!("forwarding failed: {error}"))),
                };
                let (Forwarded { local, remote }, reason) = failure;
                session.streams.note(format!("an error occurred forwarding {local} -> {remote}: {reason}"))?;
            }
            outcome = &mut gone => {
                outcome?;
                return Err(CliError::usage(format!("lost connection to pod {}, which has ended", found.name())));
            }
            interrupted = &mut interrupt => {
                return interrupted.map_err(|source| CliError::io("waiting for an interrupt", source));
            }
        }
    }
}
