//! A disk in memory, which may lose unsynced data in a power cut.
//!
//! Names are journalled, as on common file systems: syncing a file's metadata or a directory makes all earlier changes
//! of names durable, and a power cut keeps a prefix of the later ones. A power cut keeps all, none, a prefix, or any of
//! the sectors of the bytes written to a file since its last sync.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;

use super::process::Process;
use super::random::Random;
use crate::platform::tokio::time::sleep;

const SECTOR_BYTES: usize = 512;

/// A simulated disk.
#[derive(Debug, Default)]
pub struct Disk {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    names: BTreeMap<PathBuf, Entry>,
    durable: BTreeMap<PathBuf, Entry>,
    /// Changes that are in `names` and not yet in `durable`.
    changes: Vec<Change>,
    sync_fault: Option<SyncFault>,
}

/// Fault of the next sync.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SyncFault {
    /// The sync fails.
    Fails,
    /// The process ends during the sync.
    Ends,
}

#[derive(Clone, Debug)]
pub enum Entry {
    Directory,
    File(Arc<Inode>),
}

#[derive(Clone, Debug)]
enum Change {
    Insert(PathBuf, Entry),
    Remove(PathBuf),
    Rename(PathBuf, PathBuf),
}

impl Change {
    fn apply(&self, names: &mut BTreeMap<PathBuf, Entry>) {
        match self {
            Change::Insert(path, entry) => {
                names.insert(path.clone(), entry.clone());
            }
            Change::Remove(path) => names.retain(|name, _| !name.starts_with(path)),
            Change::Rename(from, to) => {
                let moved: Vec<_> = names.keys().filter(|name| name.starts_with(from)).cloned().collect();
                for name in moved {
                    let Some(entry) = names.remove(&name) else { continue };
                    let rest = name.strip_prefix(from).unwrap_or(Path::new(""));
                    let target = if rest.as_os_str().is_empty() { to.clone() } else { to.join(rest) };
                    names.insert(target, entry);
                }
            }
        }
    }
}

/// Contents of a file.
#[derive(Debug, Default)]
pub struct Inode {
    contents: Mutex<Contents>,
}

#[derive(Debug, Default)]
struct Contents {
    bytes: Vec<u8>,
    durable: Vec<u8>,
    /// Writes that are in `bytes` and not yet in `durable`.
    unsynced: Vec<Write>,
}

/// The unsynced writes that a power cut keeps.
#[derive(Clone, Copy, Debug)]
enum Left {
    Nothing,
    All,
    /// A random subset of the written sectors.
    Sectors,
    /// All writes before this position, and a prefix of the write at it.
    Before(usize),
}

#[derive(Debug)]
enum Write {
    Bytes(usize, Vec<u8>),
    Length(usize),
}

fn put(bytes: &mut Vec<u8>, at: usize, new: &[u8]) {
    let end = at + new.len();
    if bytes.len() < end {
        bytes.resize(end, 0);
    }
    bytes[at..end].copy_from_slice(new);
}

impl Inode {
    pub fn write(&self, at: u64, new: &[u8]) -> io::Result<()> {
        let at = usize::try_from(at).map_err(io::Error::other)?;
        let mut contents = self.contents.lock();
        put(&mut contents.bytes, at, new);
        contents.unsynced.push(Write::Bytes(at, new.to_vec()));
        Ok(())
    }

    pub fn read(&self, at: u64, into: &mut [u8]) -> io::Result<()> {
        let at = usize::try_from(at).map_err(io::Error::other)?;
        let contents = self.contents.lock();
        let found = contents.bytes.get(at..at + into.len()).ok_or(io::ErrorKind::UnexpectedEof)?;
        into.copy_from_slice(found);
        Ok(())
    }

    pub fn length(&self) -> u64 {
        self.contents.lock().bytes.len() as u64
    }

    pub fn set_length(&self, length: u64) -> io::Result<()> {
        let length = usize::try_from(length).map_err(io::Error::other)?;
        let mut contents = self.contents.lock();
        contents.bytes.resize(length, 0);
        contents.unsynced.push(Write::Length(length));
        Ok(())
    }

    pub fn sync(&self) {
        let mut contents = self.contents.lock();
        let Contents { durable, unsynced, .. } = &mut *contents;
        for write in unsynced.drain(..) {
            match write {
                Write::Bytes(at, new) => put(durable, at, &new),
                Write::Length(length) => durable.resize(length, 0),
            }
        }
    }

    fn cut_power(&self, random: &mut Random) {
        let mut contents = self.contents.lock();
        let Contents { bytes, durable, unsynced } = &mut *contents;
        let left = match random.within(0..4) {
            0 => Left::Nothing,
            1 => Left::All,
            2 => Left::Sectors,
            _ => Left::Before(random.index(unsynced.len() + 1)),
        };
        for (i, write) in unsynced.drain(..).enumerate() {
            let is_kept = match left {
                Left::Nothing => false,
                Left::All => true,
                Left::Sectors => random.percent(50),
                Left::Before(place) => i < place,
            };
            match (write, left) {
                (Write::Length(length), _) if is_kept => durable.resize(length, 0),
                (Write::Bytes(at, new), _) if is_kept => put(durable, at, &new),
                (Write::Bytes(at, new), Left::Before(place)) if i == place => {
                    put(durable, at, &new[..random.index(new.len() + 1)]);
                }
                (Write::Bytes(at, new), Left::Sectors) => {
                    for (sector, part) in new.chunks(SECTOR_BYTES).enumerate() {
                        if random.percent(50) {
                            put(durable, at + sector * SECTOR_BYTES, part);
                        }
                    }
                }
                (Write::Length(_) | Write::Bytes(..), _) => {}
            }
        }
        bytes.clone_from(durable);
    }
}

impl Disk {
    /// Plans a fault for the next sync.
    pub fn set_sync_fault(&self, sync_fault: Option<SyncFault>) {
        self.state.lock().sync_fault = sync_fault;
    }

    pub fn has_sync_fault(&self) -> bool {
        self.state.lock().sync_fault.is_some()
    }

    pub fn take_sync_fault(&self) -> Option<SyncFault> {
        self.state.lock().sync_fault.take()
    }

    /// Loses unsynced changes, or some of them.
    pub fn cut_power(&self, random: &mut Random) {
        let mut state = self.state.lock();
        let State { names, durable, changes, .. } = &mut *state;
        let kept = random.index(changes.len() + 1);
        changes.drain(..).take(kept).for_each(|change| change.apply(durable));
        names.clone_from(durable);
        for entry in names.values() {
            if let Entry::File(inode) = entry {
                inode.cut_power(random);
            }
        }
    }

    pub fn find(&self, path: &Path) -> Option<Entry> {
        self.state.lock().names.get(path).cloned()
    }

    fn change(&self, change: Change) {
        let mut state = self.state.lock();
        change.apply(&mut state.names);
        state.changes.push(change);
    }

    pub fn make_directory(&self, path: &Path) {
        self.change(Change::Insert(path.to_owned(), Entry::Directory));
    }

    pub fn make_file(&self, path: &Path) -> Arc<Inode> {
        let inode = Arc::new(Inode::default());
        self.change(Change::Insert(path.to_owned(), Entry::File(inode.clone())));
        inode
    }

    /// Removes a file, or a directory with its contents.
    pub fn remove(&self, path: &Path) -> io::Result<()> {
        self.find(path).ok_or(io::ErrorKind::NotFound)?;
        self.change(Change::Remove(path.to_owned()));
        Ok(())
    }

    pub fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.find(from).ok_or(io::ErrorKind::NotFound)?;
        self.change(Change::Rename(from.to_owned(), to.to_owned()));
        Ok(())
    }

    /// Lists the direct entries of a directory.
    pub fn list(&self, path: &Path) -> io::Result<Vec<(PathBuf, Entry)>> {
        let state = self.state.lock();
        if !matches!(state.names.get(path), Some(Entry::Directory)) {
            return Err(io::ErrorKind::NotFound.into());
        }
        let inside = state.names.iter().filter(|(name, _)| name.parent() == Some(path));
        Ok(inside.map(|(name, entry)| (name.clone(), entry.clone())).collect())
    }

    /// Makes all changes of names durable.
    pub fn sync_names(&self) {
        let mut state = self.state.lock();
        let State { durable, changes, .. } = &mut *state;
        changes.drain(..).for_each(|change| change.apply(durable));
    }
}

/// Runs the writer of a disk as a task, in place of its thread.
pub fn start_writer(writer: impl Future<Output = ()> + Send + 'static) {
    if let Some(process) = Process::current() {
        process.spawn(writer);
    }
}

/// Waits for the simulated duration of a write.
pub async fn delay() {
    let Some(process) = Process::current() else { return };
    let delay = {
        let mut random = process.random();
        if random.percent(2) { random.millis(5..60) } else { random.micros(50..2000) }
    };
    sleep(delay).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_power_cut_loses_only_unsynced_data() {
        let (mut left_something, mut left_nothing) = (false, false);
        for seed in 0..100 {
            let mut random = Random::new(seed);
            let disk = Disk::default();
            let path = Path::new("/a");
            let file = disk.make_file(path);
            disk.sync_names();
            file.write(0, b"synced").expect("it fits");
            file.sync();
            file.write(6, &[7; 2000]).expect("it fits");
            disk.make_file(Path::new("/b"));
            disk.cut_power(&mut random);
            let Some(Entry::File(file)) = disk.find(path) else { panic!("its name was synced") };
            let mut found = [0; 6];
            file.read(0, &mut found).expect("synced bytes");
            assert_eq!(&found, b"synced");
            left_nothing |= file.length() == 6;
            left_something |= file.length() > 6;
        }
        assert!(left_something && left_nothing);
    }
}
