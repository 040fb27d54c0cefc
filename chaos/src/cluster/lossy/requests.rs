//! Serves FUSE requests on [`Files`]. Owners and times are those of the files below; requests to change them have no
//! effect. Only hard links to files are supported.

use std::ffi::OsStr;
use std::fs::Metadata;
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use fuser::{
    BsdFileFlags, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation, INodeNo, LockOwner,
    OpenFlags, RenameFlags, ReplyAttr, ReplyCreate, ReplyData, ReplyDirectory, ReplyEmpty, ReplyEntry, ReplyOpen,
    ReplyStatfs, ReplyWrite, Request, TimeOrNow, WriteFlags,
};
use nix::fcntl::{FallocateFlags, OFlag};
use nix::sys::statvfs::statvfs;

use super::files::Files;

/// The kernel must not cache anything, because a power loss changes the files without its knowledge.
const TTL: Duration = Duration::ZERO;
const BLOCK_BYTES: u32 = 4096;

/// File system that is mounted.
pub struct Requests(pub Arc<Files>);

macro_rules! answer {
    ($reply:ident, $done:expr, $value:pat => $answer:expr) => {
        match $done {
            Ok($value) => $answer,
            Err(error) => $reply.error(errno(&error)),
        }
    };
}

fn errno(error: &io::Error) -> Errno {
    Errno::from_i32(error.raw_os_error().unwrap_or(nix::libc::EIO))
}

fn attributes(number: u64, metadata: &Metadata) -> FileAttr {
    let time = |time: io::Result<SystemTime>| time.unwrap_or(UNIX_EPOCH);
    let changed = u64::try_from(metadata.ctime()).map_or(UNIX_EPOCH, |s| UNIX_EPOCH + Duration::from_secs(s));
    FileAttr {
        ino: INodeNo(number),
        size: metadata.size(),
        blocks: metadata.blocks(),
        atime: time(metadata.accessed()),
        mtime: time(metadata.modified()),
        ctime: changed,
        crtime: changed,
        kind: FileType::from_std(metadata.file_type()).unwrap_or(FileType::RegularFile),
        perm: (metadata.permissions().mode() & 0o7777) as u16,
        nlink: u32::try_from(metadata.nlink()).unwrap_or(u32::MAX),
        uid: metadata.uid(),
        gid: metadata.gid(),
        rdev: 0,
        blksize: BLOCK_BYTES,
        flags: 0,
    }
}

impl Filesystem for Requests {
    fn lookup(&self, _req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        answer!(reply, self.0.look_up(parent.0, name), (number, metadata) => {
            reply.entry(&TTL, &attributes(number, &metadata), Generation(0));
        });
    }

    fn getattr(&self, _req: &Request, ino: INodeNo, fh: Option<FileHandle>, reply: ReplyAttr) {
        answer!(reply, self.0.metadata(ino.0, fh.map(|fh| fh.0)), metadata => reply.attr(&TTL, &attributes(ino.0, &metadata)));
    }

    fn setattr(
        &self,
        _req: &Request,
        ino: INodeNo,
        mode: Option<u32>,
        _uid: Option<u32>,
        _gid: Option<u32>,
        size: Option<u64>,
        _atime: Option<TimeOrNow>,
        _mtime: Option<TimeOrNow>,
        _ctime: Option<SystemTime>,
        fh: Option<FileHandle>,
        _crtime: Option<SystemTime>,
        _chgtime: Option<SystemTime>,
        _bkuptime: Option<SystemTime>,
        _flags: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let fh = fh.map(|fh| fh.0);
        let set = || {
            if let Some(size) = size {
                self.0.set_len(ino.0, fh, size)?;
            }
            if let Some(mode) = mode {
                self.0.set_permissions(ino.0, mode & 0o7777)?;
            }
            self.0.metadata(ino.0, fh)
        };
        answer!(reply, set(), metadata => reply.attr(&TTL, &attributes(ino.0, &metadata)));
    }

    fn mkdir(&self, _req: &Request, parent: INodeNo, name: &OsStr, mode: u32, umask: u32, reply: ReplyEntry) {
        answer!(reply, self.0.make_directory(parent.0, name, mode & !umask), (number, metadata) => {
            reply.entry(&TTL, &attributes(number, &metadata), Generation(0));
        });
    }

    fn unlink(&self, _req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        answer!(reply, self.0.remove(parent.0, name), () => reply.ok());
    }

    fn rmdir(&self, _req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        answer!(reply, self.0.remove_directory(parent.0, name), () => reply.ok());
    }

    fn rename(
        &self,
        _req: &Request,
        parent: INodeNo,
        name: &OsStr,
        newparent: INodeNo,
        newname: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        if !flags.is_empty() {
            return reply.error(Errno::EINVAL);
        }
        answer!(reply, self.0.rename((parent.0, name), (newparent.0, newname)), () => reply.ok());
    }

    fn link(&self, _req: &Request, ino: INodeNo, newparent: INodeNo, newname: &OsStr, reply: ReplyEntry) {
        answer!(reply, self.0.link(ino.0, newparent.0, newname), (number, metadata) => {
            reply.entry(&TTL, &attributes(number, &metadata), Generation(0));
        });
    }

    fn open(&self, _req: &Request, ino: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        answer!(reply, self.0.open(ino.0), handle => reply.opened(FileHandle(handle), FopenFlags::empty()));
    }

    fn create(
        &self,
        _req: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        flags: i32,
        reply: ReplyCreate,
    ) {
        let is_new = OFlag::from_bits_truncate(flags).contains(OFlag::O_EXCL);
        answer!(reply, self.0.create(parent.0, name, mode & !umask, is_new), (number, metadata, handle) => {
            let attributes = attributes(number, &metadata);
            reply.created(&TTL, &attributes, Generation(0), FileHandle(handle), FopenFlags::empty());
        });
    }

    fn read(
        &self,
        _req: &Request,
        _ino: INodeNo,
        fh: FileHandle,
        offset: u64,
        size: u32,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyData,
    ) {
        answer!(reply, self.0.read(fh.0, offset, size as usize), bytes => reply.data(&bytes));
    }

    fn write(
        &self,
        _req: &Request,
        _ino: INodeNo,
        fh: FileHandle,
        offset: u64,
        data: &[u8],
        _write_flags: WriteFlags,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        answer!(reply, self.0.write(fh.0, offset, data), () => {
            reply.written(u32::try_from(data.len()).unwrap_or(u32::MAX));
        });
    }

    fn flush(&self, _req: &Request, _ino: INodeNo, _fh: FileHandle, _lock_owner: LockOwner, reply: ReplyEmpty) {
        // Closing a file does not sync it.
        reply.ok();
    }

    fn release(
        &self,
        _req: &Request,
        _ino: INodeNo,
        fh: FileHandle,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        _flush: bool,
        reply: ReplyEmpty,
    ) {
        self.0.close(fh.0);
        reply.ok();
    }

    fn fsync(&self, _req: &Request, _ino: INodeNo, fh: FileHandle, _datasync: bool, reply: ReplyEmpty) {
        answer!(reply, self.0.sync(fh.0), () => reply.ok());
    }

    fn fallocate(
        &self,
        _req: &Request,
        _ino: INodeNo,
        fh: FileHandle,
        offset: u64,
        length: u64,
        mode: i32,
        reply: ReplyEmpty,
    ) {
        let is_longer = match FallocateFlags::from_bits(mode) {
            Some(flags) if flags.is_empty() => true,
            Some(FallocateFlags::FALLOC_FL_KEEP_SIZE) => false,
            // Members use no other mode.
            _ => return reply.error(Errno::EOPNOTSUPP),
        };
        answer!(reply, self.0.allocate(fh.0, offset, length, is_longer), () => reply.ok());
    }

    fn opendir(&self, _req: &Request, ino: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        answer!(reply, self.0.list(ino.0), handle => reply.opened(FileHandle(handle), FopenFlags::empty()));
    }

    fn readdir(&self, _req: &Request, ino: INodeNo, fh: FileHandle, offset: u64, mut reply: ReplyDirectory) {
        answer!(reply, self.0.listing(fh.0), listing => {
            let dots = [".", ".."].map(|name| (ino.0, FileType::Directory, OsStr::new(name)));
            let found = listing.iter().filter_map(|(number, kind, name)| {
                Some((*number, FileType::from_std(*kind)?, name.as_os_str()))
            });
            let entries = dots.into_iter().chain(found).zip(1u64..).skip_while(|(_, next)| *next <= offset);
            for ((number, kind, name), next) in entries {
                if reply.add(INodeNo(number), next, kind, name) {
                    break;
                }
            }
            reply.ok();
        });
    }

    fn releasedir(&self, _req: &Request, _ino: INodeNo, fh: FileHandle, _flags: OpenFlags, reply: ReplyEmpty) {
        self.0.close(fh.0);
        reply.ok();
    }

    fn fsyncdir(&self, _req: &Request, _ino: INodeNo, _fh: FileHandle, _datasync: bool, reply: ReplyEmpty) {
        answer!(reply, self.0.sync_names(), () => reply.ok());
    }

    fn statfs(&self, _req: &Request, _ino: INodeNo, reply: ReplyStatfs) {
        answer!(reply, statvfs(self.0.root()).map_err(io::Error::from), found => {
            let size = |bytes: u64| u32::try_from(bytes).unwrap_or(u32::MAX);
            reply.statfs(
                found.blocks(),
                found.blocks_free(),
                found.blocks_available(),
                found.files(),
                found.files_free(),
                size(found.block_size()),
                size(found.name_max()),
                size(found.fragment_size()),
            );
        });
    }
}
