//! Snapshots on the wire: file after file in chunks, each file with its length and checksum.

use std::io;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::Stream;
use hyper::body::Body;

use super::frames::{self, FrameError, FrameReader};
use super::messages::SnapshotPart;
use crate::platform::tokio::fs::File;
use crate::platform::tokio::io::{AsyncReadExt, AsyncWriteExt};
use crate::platform::{fs, random, tokio};
use crate::raft::state::snapshot::SnapshotDir;
use crate::raft::types::{SnapshotMeta, Vote};

const CHUNK_BYTES: usize = 512 << 10;
/// How long to wait for the next part before the transfer is given up.
const PART_DEADLINE: Duration = Duration::from_secs(30);

/// Why a snapshot could not be received.
#[derive(Debug, thiserror::Error)]
pub enum ReceiveError {
    #[error(transparent)]
    Frame(#[from] FrameError),
    #[error("the sender stopped sending")]
    Silent,
    #[error("the stream ended early, or out of order at {0}")]
    Order(&'static str),
    #[error("{0:?} is not the name of a snapshot's file")]
    Name(String),
    #[error("the file {0} arrived damaged")]
    Damaged(String),
    #[error("cannot write the snapshot: {0}")]
    Write(#[from] io::Error),
}

/// Returns a stream of the parts of a snapshot, read from disk on demand.
pub fn send(
    vote: Vote,
    meta: SnapshotMeta,
    dir: Arc<SnapshotDir>,
) -> impl Stream<Item = Result<Bytes, FrameError>> + Send + 'static {
    let sender = SnapshotSender {
        dir,
        begin: Some((vote, meta)),
        files: Vec::new().into_iter(),
        sent: 0,
        open: None,
        ended: false,
    };
    futures::stream::unfold(Some(sender), async |sender| {
        let mut sender = sender?;
        match sender.next().await {
            Ok(Some(part)) => Some((frames::frame(&part), Some(sender))),
            Ok(None) => None,
            Err(error) => Some((Err(FrameError::Source(error)), None)),
        }
    })
}

struct SnapshotSender {
    dir: Arc<SnapshotDir>,
    begin: Option<(Vote, SnapshotMeta)>,
    files: std::vec::IntoIter<String>,
    sent: u32,
    open: Option<OpenFile>,
    ended: bool,
}

struct OpenFile {
    file: File,
    size: u64,
    crc: crc32fast::Hasher,
}

impl SnapshotSender {
    async fn next(&mut self) -> io::Result<Option<SnapshotPart>> {
        if let Some((vote, meta)) = self.begin.take() {
            self.files = self.dir.files()?.into_iter();
            return Ok(Some(SnapshotPart::Begin { vote, meta: Box::new(meta) }));
        }
        if let Some(mut open) = self.open.take() {
            let mut chunk = Vec::with_capacity(CHUNK_BYTES);
            (&mut open.file).take(CHUNK_BYTES as u64).read_to_end(&mut chunk).await?;
            if chunk.is_empty() {
                self.sent += 1;
                return Ok(Some(SnapshotPart::FileEnd { size: open.size, crc32: open.crc.finalize() }));
            }
            open.size += chunk.len() as u64;
            open.crc.update(&chunk);
            self.open = Some(open);
            return Ok(Some(SnapshotPart::Chunk(chunk.into())));
        }
        if let Some(name) = self.files.next() {
            let file = File::open(self.dir.path().join(&name)).await?;
            self.open = Some(OpenFile { file, size: 0, crc: crc32fast::Hasher::new() });
            return Ok(Some(SnapshotPart::File { name }));
        }
        Ok(if std::mem::replace(&mut self.ended, true) { None } else { Some(SnapshotPart::End { files: self.sent }) })
    }
}

/// Receives a snapshot into a new directory below `parent`, checks it, and makes it durable.
///
/// # Errors
/// When the snapshot did not arrive completely; its directory is then removed.
pub async fn receive<B>(
    parts: &mut FrameReader<B>,
    parent: &Path,
) -> Result<(Vote, SnapshotMeta, SnapshotDir), ReceiveError>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: std::fmt::Display,
{
    let Some(SnapshotPart::Begin { vote, meta }) = next(parts).await? else {
        return Err(ReceiveError::Order("the beginning"));
    };
    let dir = SnapshotDir::adopt(fresh_directory(parent)?);
    let mut received = 0;
    loop {
        match next(parts).await? {
            Some(SnapshotPart::File { name }) => {
                receive_file(parts, &dir, name).await?;
                received += 1;
            }
            Some(SnapshotPart::End { files }) if files == received => break,
            _ => return Err(ReceiveError::Order("a file")),
        }
    }
    crate::raft::state::snapshot::sync_directory(dir.path())?;
    Ok((vote, *meta, dir))
}

async fn receive_file<B>(parts: &mut FrameReader<B>, dir: &SnapshotDir, name: String) -> Result<(), ReceiveError>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: std::fmt::Display,
{
    let mut components = Path::new(&name).components();
    if !matches!((components.next(), components.next()), (Some(Component::Normal(_)), None)) {
        return Err(ReceiveError::Name(name));
    }
    let mut file = File::create_new(dir.path().join(&name)).await?;
    let mut written = 0;
    let mut crc = crc32fast::Hasher::new();
    loop {
        match next(parts).await? {
            Some(SnapshotPart::Chunk(chunk)) => {
                written += chunk.len() as u64;
                crc.update(&chunk);
                file.write_all(&chunk).await?;
            }
            Some(SnapshotPart::FileEnd { size, crc32 }) => {
                if size != written || crc32 != crc.finalize() {
                    return Err(ReceiveError::Damaged(name));
                }
                file.sync_all().await?;
                return Ok(());
            }
            _ => return Err(ReceiveError::Order("a chunk")),
        }
    }
}

async fn next<B>(parts: &mut FrameReader<B>) -> Result<Option<SnapshotPart>, ReceiveError>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: std::fmt::Display,
{
    let part = tokio::time::timeout(PART_DEADLINE, parts.next()).await.map_err(|_| ReceiveError::Silent)?;
    Ok(part?)
}

fn fresh_directory(parent: &Path) -> io::Result<PathBuf> {
    let path = parent.join(format!("incoming-{:016x}", random::<u64>()));
    fs::create_dir_all(parent)?;
    fs::create_dir(&path)?;
    Ok(path)
}

#[cfg(test)]
mod tests {
    use futures::StreamExt;

    use super::*;
    use crate::platform::tokio;

    fn a_snapshot(parent: &Path) -> Arc<SnapshotDir> {
        let path = parent.join("made");
        std::fs::create_dir(&path).expect("a directory");
        std::fs::write(path.join("CURRENT"), b"MANIFEST-1").expect("a file");
        std::fs::write(path.join("empty"), b"").expect("a file");
        std::fs::write(path.join("1.sst"), vec![7; 3 * CHUNK_BYTES + 5]).expect("a file");
        Arc::new(SnapshotDir::adopt(path))
    }

    async fn wire(parent: &Path) -> Vec<Bytes> {
        let parts = send(Vote::new_committed(1, 1), SnapshotMeta::default(), a_snapshot(parent));
        parts.map(|part| part.expect("a part")).collect().await
    }

    fn reader(parts: Vec<Bytes>) -> FrameReader<frames::PeerBody> {
        FrameReader::new(frames::stream(futures::stream::iter(parts.into_iter().map(Ok))))
    }

    #[tokio::test]
    async fn a_sent_snapshot_arrives_completely() {
        let (from, to) = (tempfile::tempdir().expect("a directory"), tempfile::tempdir().expect("a directory"));
        let parts = wire(from.path()).await;
        let (_, _, dir) = receive(&mut reader(parts), to.path()).await.expect("all of it");
        assert_eq!(dir.files().expect("readable"), ["1.sst", "CURRENT", "empty"]);
        let file = std::fs::read(dir.path().join("1.sst")).expect("readable");
        assert_eq!(file, vec![7; 3 * CHUNK_BYTES + 5]);
    }

    #[tokio::test]
    async fn a_cut_or_damaged_stream_leaves_nothing() {
        let (from, to) = (tempfile::tempdir().expect("a directory"), tempfile::tempdir().expect("a directory"));
        let parts = wire(from.path()).await;
        for cut in 0..parts.len() {
            receive(&mut reader(parts[..cut].to_vec()), to.path()).await.expect_err("it is cut");
        }
        let mut damaged = parts.clone();
        let chunk = damaged.iter().position(|part| part.len() > CHUNK_BYTES / 2).expect("a chunk");
        let mut bytes = damaged[chunk].to_vec();
        *bytes.last_mut().expect("not empty") ^= 1;
        damaged[chunk] = bytes.into();
        receive(&mut reader(damaged), to.path()).await.expect_err("it is damaged");
        assert_eq!(std::fs::read_dir(to.path()).expect("readable").count(), 0);
    }

    #[tokio::test]
    async fn file_names_outside_the_directory_are_refused() {
        let to = tempfile::tempdir().expect("a directory");
        for name in ["../x", "/etc/passwd", "a/b", ".."] {
            let begin = SnapshotPart::Begin { vote: Vote::new_committed(1, 1), meta: Box::default() };
            let parts = [begin, SnapshotPart::File { name: name.to_owned() }];
            let parts = parts.iter().map(|part| frames::frame(part).expect("short")).collect();
            let refused = receive(&mut reader(parts), to.path()).await;
            assert!(matches!(refused, Err(ReceiveError::Name(_))), "{refused:?}");
        }
    }
}
