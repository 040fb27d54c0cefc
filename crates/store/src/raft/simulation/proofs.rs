//! Damage of the last batch of a log that was quiet, after a power cut.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use openraft::AsyncRuntime;
use openraft::entry::RaftEntry;
use openraft::storage::RaftLogStorageExt;
use openraft_rt_sim::SimRuntime;
use tokio_util::sync::CancellationToken;

use super::disk::{Disk, Entry as DiskEntry};
use super::process::{Process, simulate};
use super::random::Random;
use crate::platform;
use crate::platform::tokio::sync::oneshot;
use crate::raft::lifecycle::closing::close_signal;
use crate::raft::log::{LogOptions, LogStore};
use crate::raft::types::{Entry, LeaderId, LogId};
use crate::raft::upkeep::space::Space;

const LOG: &str = "/log";
/// Last bytes of the header of an entry's record: its kind, and the magic bytes of a record.
const ENTRY: [u8; 4] = [2, 0x51, 0x6c, 0x67];

fn open() -> std::io::Result<LogStore> {
    let space = Arc::new(Space::new(Path::new(LOG), 0, CancellationToken::new()));
    LogStore::open(Path::new(LOG), LogOptions::default(), space, close_signal().0)
}

async fn within<T: Send + 'static>(
    disk: &Arc<Disk>,
    random: &mut Random,
    work: impl Future<Output = T> + Send + 'static,
) -> T {
    let process = Process::new("p".to_owned(), disk.clone(), Random::new(random.within(0..1000)), Arc::default());
    let (sender, done) = oneshot::channel();
    process.spawn(async move { drop(sender.send(work.await)) });
    let done = done.await.expect("the process works");
    process.kill();
    done
}

/// Appends an entry, cuts the power when the log has been quiet, damages the entry, and returns whether the log is
/// refused.
async fn is_refused(seed: u64, is_proof_synced: bool) -> bool {
    let (disk, mut random) = (Arc::new(Disk::default()), Random::new(seed));
    within(&disk, &mut random, async move {
        let mut log = open().expect("the log opens");
        let entry = Entry::new_blank(LogId::new(LeaderId { term: 1, node_id: 1 }, 0));
        log.blocking_append([entry]).await.expect("appended");
        platform::tokio::time::sleep(Duration::from_secs(1)).await;
        if is_proof_synced {
            log.sync_proof();
            platform::tokio::time::sleep(Duration::from_secs(1)).await;
        }
    })
    .await;
    let files = disk.list(Path::new(LOG)).expect("a directory");
    let [(_, DiskEntry::File(segment))] = &files[..] else { panic!("one segment") };
    disk.cut_power(&mut random);
    let mut bytes = vec![0; usize::try_from(segment.length()).expect("it fits")];
    segment.read(0, &mut bytes).expect("all of it");
    let header_end =
        bytes.windows(ENTRY.len()).position(|found| found == ENTRY).expect("the entry was synced") + ENTRY.len();
    segment.write(header_end as u64, &[bytes[header_end] ^ 0x10]).expect("it fits");
    segment.sync();
    within(&disk, &mut random, async { open().is_err() }).await
}

#[test]
fn damage_of_the_last_batch_is_noticed_once_its_proof_is_synced() {
    let refused = |is_proof_synced| {
        let one = |seed: &u64| simulate(|| SimRuntime::with_seed(*seed).block_on(is_refused(*seed, is_proof_synced)));
        (0..40).filter(one).count()
    };
    assert_eq!(refused(true), 40);
    assert!((1..40).contains(&refused(false)), "a power cut loses some of the proofs that are not synced");
}
