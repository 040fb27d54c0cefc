//! `cp`: copies files and directories to and from containers, with the container's tar.

use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::mpsc;

use crate::archive::{self, PieceReader, PieceWriter};
use crate::error::{CliError, Result};
use crate::manifest::FileFlags;
use crate::path::RequestPath;
use crate::pods::{self, Found};
use crate::remote::{self, Connected, Ended, Inputs, Source};
use crate::session::Session;

/// Copy files and directories to and from containers, which need a tar program
#[derive(Debug, clap::Args)]
pub struct Cp {
    /// PATH, or [NAMESPACE/]POD:PATH
    #[arg(value_name = "SOURCE DESTINATION")]
    arguments: Vec<String>,
    /// The container
    #[arg(short = 'c', long)]
    container: Option<String>,
    /// Do not preserve ownership and permissions in the container
    #[arg(long)]
    no_preserve: bool,
    /// How often a copy from a container is resumed after the connection broke; -1 for ever
    #[arg(long, default_value_t = 0, allow_negative_numbers = true)]
    retries: i64,
}

/// Number of pieces that wait between the connection and the disk.
const WAITING: usize = 16;

/// One side of a copy.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Side {
    Local(PathBuf),
    Remote { namespace: Option<String>, pod: String, path: PathBuf },
}

impl Side {
    fn parse(text: &str) -> Result<Self> {
        let malformed = || CliError::usage("filespec must match the canonical format: [[namespace/]pod:]file/path");
        let Some((pod, path)) = text.split_once(':') else { return Ok(Side::Local(text.into())) };
        let (namespace, pod) = match pod.split('/').collect::<Vec<_>>().as_slice() {
            [pod] => (None, (*pod).to_owned()),
            [namespace, pod] => (Some((*namespace).to_owned()), (*pod).to_owned()),
            _ => return Err(malformed()),
        };
        if pod.is_empty() { Err(malformed()) } else { Ok(Side::Remote { namespace, pod, path: path.into() }) }
    }

    fn is_empty(&self) -> bool {
        let (Side::Local(path) | Side::Remote { path, .. }) = self;
        path.as_os_str().is_empty()
    }
}

/// A container to copy to or from.
struct Container {
    found: Found,
    name: String,
}

impl Container {
    fn exec(&self, words: &[String], connected: Connected) -> RequestPath {
        connected.query(self.found.exec(&self.name, words))
    }

    /// Reports the end of tar.
    fn report(&self, session: &mut Session, ended: Ended) -> Result<()> {
        let missing = match &ended {
            Ended::Code(code) => [126, 127].contains(code),
            Ended::Failed(reason) => reason.contains("executable file not found") || reason.contains("no such file"),
        };
        if missing {
            let (name, pod) = (&self.name, self.found.name());
            return Err(CliError::usage(format!(
                "cannot run tar in container {name} of pod {pod}; cp needs a container with a tar program, such as one of `qctl debug`"
            )));
        }
        ended.report(&mut session.streams)
    }
}

impl Cp {
    pub async fn run(self, session: &mut Session) -> Result<()> {
        let [source, destination] = self.arguments.as_slice() else {
            return Err(CliError::usage("source and destination are required"));
        };
        let (source, destination) = (Side::parse(source)?, Side::parse(destination)?);
        if source.is_empty() || destination.is_empty() {
            return Err(CliError::usage("filepath can not be empty"));
        }
        match (source, destination) {
            (Side::Local(local), Side::Remote { namespace, pod, path }) => {
                if let Err(error) = std::fs::symlink_metadata(&local) {
                    tracing::debug!(%error, "the source cannot be read");
                    return Err(CliError::usage(format!("{} doesn't exist in local filesystem", local.display())));
                }
                let container = self.container(session, namespace, &pod).await?;
                self.upload(session, &container, local, path).await
            }
            (Side::Remote { namespace, pod, path }, Side::Local(local)) => {
                let container = self.container(session, namespace, &pod).await?;
                self.download(session, &container, &path, &local).await
            }
            (Side::Local(_), Side::Local(_)) => {
                Err(CliError::usage("one of src or dest must be a remote file specification"))
            }
            (Side::Remote { .. }, Side::Remote { .. }) => {
                Err(CliError::usage("one of src or dest must be a local file specification"))
            }
        }
    }

    async fn container(&self, session: &mut Session, namespace: Option<String>, pod: &str) -> Result<Container> {
        if let Some(namespace) = namespace {
            session.namespace = namespace;
        }
        let found = pods::find(session, &[pod.to_owned()], &FileFlags::default(), Duration::ZERO).await?;
        found.must_not_be_completed("exec into")?;
        let name = pods::choose_container(session, &found.pod, self.container.as_deref(), false)?;
        Ok(Container { found, name })
    }

    async fn upload(
        &self,
        session: &mut Session,
        container: &Container,
        local: PathBuf,
        mut remote: PathBuf,
    ) -> Result<()> {
        let test = ["test", "-d", &text(&remote)].map(str::to_owned);
        let test = container.exec(&test, Connected::default());
        let tested = remote::run(&session.transport, test, Inputs::default(), |_, _| Ok(())).await?;
        if let (Ended::Code(0), Some(name)) = (tested, local.file_name()) {
            remote.push(name);
        }
        let name = PathBuf::from(remote.file_name().unwrap_or(".".as_ref()));
        let mut words = vec!["tar".to_owned()];
        if self.no_preserve {
            words.extend(["--no-same-permissions", "--no-same-owner"].map(str::to_owned));
        }
        words.extend(["-xmf", "-"].map(str::to_owned));
        match remote.parent() {
            Some(parent) if parent.as_os_str().is_empty() => {}
            Some(parent) => words.extend(["-C".to_owned(), text(parent)]),
            None => words.extend(["-C", "/"].map(str::to_owned)),
        }
        let (sender, stdin) = mpsc::channel::<Result<Bytes>>(WAITING);
        let packing = tokio::task::spawn_blocking(move || {
            if let Err(error) = archive::pack(&local, &name, PieceWriter(sender.clone()))
                && let Err(unsent) = sender.blocking_send(Err(error))
            {
                tracing::debug!(error = ?unsent.0.err(), "the container read no further");
            }
        });
        let path = container.exec(&words, Connected { stdin: true, tty: false });
        let inputs = Inputs { stdin: Some(stdin), sizes: None };
        let transport = session.transport.clone();
        let ended = remote::run(&transport, path, inputs, |source, bytes| match source {
            Source::Stdout => session.streams.text(bytes),
            Source::Stderr => session.streams.error_text(bytes),
        })
        .await?;
        packing.await.map_err(|error| CliError::usage(format!("packing failed: {error}")))?;
        container.report(session, ended)
    }

    async fn download(&self, session: &mut Session, container: &Container, remote: &Path, local: &Path) -> Result<()> {
        let (pieces, reader) = std::sync::mpsc::sync_channel(WAITING);
        let (asked, target) = (remote.to_owned(), local.to_owned());
        let hint = format!(
            " (consider using \"qctl exec -n {:?} {:?} -- tar cf - {remote:?} | tar xf -\")",
            container.found.namespace(),
            container.found.name(),
        );
        let unpacking =
            tokio::task::spawn_blocking(move || archive::unpack(PieceReader::new(reader), &asked, &target, &hint));
        let ended = self.receive(session, container, &text(remote), pieces).await;
        let unpacked = unpacking.await.map_err(|error| CliError::usage(format!("unpacking failed: {error}")))?;
        match ended {
            // The cause is that the archive was not accepted.
            Err(CliError::Io { source, .. })
                if source.kind() == std::io::ErrorKind::BrokenPipe && unpacked.is_err() => {}
            Ok(Ended::Code(0)) => {}
            // When tar failed, its report matters more than the damaged archive.
            Ok(ended) => container.report(session, ended)?,
            Err(error) => return Err(error),
        }
        unpacked?.into_iter().try_for_each(|warning| session.streams.note(warning))
    }

    /// Passes the container's archive on, and asks for the rest after the connection broke.
    async fn receive(
        &self,
        session: &mut Session,
        container: &Container,
        remote: &str,
        pieces: std::sync::mpsc::SyncSender<Bytes>,
    ) -> Result<Ended> {
        let (mut received, mut retry) = (0_u64, 0);
        let transport = session.transport.clone();
        loop {
            let path = container.exec(&pack_command(remote, self.retries != 0, received), Connected::default());
            let ended = remote::run(&transport, path, Inputs::default(), |source, bytes| match source {
                Source::Stdout => {
                    received += bytes.len() as u64;
                    let sent = pieces.send(Bytes::copy_from_slice(bytes));
                    sent.map_err(|_| CliError::io("unpacking", std::io::ErrorKind::BrokenPipe.into()))
                }
                Source::Stderr => session.streams.error_text(bytes),
            })
            .await;
            match ended {
                Err(CliError::Lost { .. } | CliError::Broken { .. }) if self.retries < 0 || retry < self.retries => {
                    retry += 1;
                    let progress = format!("Resuming copy at {received} bytes, retry {retry}/{}", self.retries);
                    session.streams.note(progress)?;
                }
                ended => return ended,
            }
        }
    }
}

/// Returns the command that packs a path, from the byte `from` on if the copy can be resumed.
fn pack_command(path: &str, resumable: bool, from: u64) -> Vec<String> {
    if !resumable {
        return ["tar", "cf", "-", path].map(str::to_owned).to_vec();
    }
    let quoted = path.replace('\'', r"'\''");
    ["sh", "-c", &format!("tar cf - '{quoted}' | tail -c+{}", from + 1)].map(str::to_owned).to_vec()
}

fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sides_have_a_pod_and_a_namespace() {
        let remote = |namespace: Option<&str>, pod: &str, path: &str| Side::Remote {
            namespace: namespace.map(str::to_owned),
            pod: pod.into(),
            path: path.into(),
        };
        assert_eq!(Side::parse("/tmp/a").expect("local"), Side::Local("/tmp/a".into()));
        assert_eq!(Side::parse("pod:/tmp/a").expect("remote"), remote(None, "pod", "/tmp/a"));
        assert_eq!(Side::parse("ns/pod:a:b").expect("remote"), remote(Some("ns"), "pod", "a:b"));
        assert!(Side::parse(":/tmp").is_err() && Side::parse("a/b/c:/tmp").is_err());
    }

    #[test]
    fn a_resumed_copy_skips_the_bytes_that_arrived() {
        assert_eq!(pack_command("/a b", false, 0), ["tar", "cf", "-", "/a b"]);
        assert_eq!(pack_command("it's", true, 10), ["sh", "-c", r"tar cf - 'it'\''s' | tail -c+11"]);
    }
}
