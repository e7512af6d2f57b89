//! The store's file as redb wants it.

use std::fs;
use std::io;
use std::os::unix::fs::FileExt;

use redb::StorageBackend;
use tokio_util::sync::CancellationToken;

/// The file itself. It knows the one failure after which nothing about it is known.
#[derive(Debug)]
pub(super) struct Backend {
    pub(super) file: fs::File,
    /// Cancelled by that failure.
    pub(super) broken: CancellationToken,
}

impl StorageBackend for Backend {
    fn len(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.file.read_exact_at(out, offset)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.file.set_len(len)
    }

    /// After one failure the next try may report success though the data is gone: there is no next try.
    fn sync_data(&self) -> io::Result<()> {
        if self.broken.is_cancelled() {
            return Err(io::Error::other("an fsync failed before"));
        }
        self.file.sync_data().inspect_err(|_| self.broken.cancel())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.file.write_all_at(data, offset)
    }
}
