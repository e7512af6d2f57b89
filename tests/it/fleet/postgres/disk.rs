//! A disk that is soon full.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

use tokio::process::Command;

use super::Options;
use super::template::{give_away, is_root, succeeds};
use crate::harness::skip;

/// Whether small disks can be had here; if not, the test is left out.
pub fn has_small_disks() -> bool {
    let directory = tempfile::tempdir().expect("a directory");
    let found = is_root() && Mount::new(directory.path(), 1, false).is_some();
    found || skip("no file system can be mounted here (that takes root)")
}

/// A file system in memory, gone when this is dropped.
pub struct Mount {
    pub path: PathBuf,
    pub is_for_log: bool,
}

impl Mount {
    fn new(path: &Path, mebibytes: u32, is_for_log: bool) -> Option<Self> {
        fs::create_dir_all(path).expect("a directory");
        let mounted = std::process::Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={mebibytes}m,mode=0700")])
            .arg("tmpfs")
            .arg(path)
            .output()
            .ok()?;
        mounted.status.success().then(|| Self {
            path: path.to_owned(),
            is_for_log,
        })
    }

    /// Takes all the room that is left.
    pub fn fill(&self) -> Ballast {
        let path = self.path.join("ballast");
        let mut file = File::create(&path).expect("a file");
        let zeros = vec![0; 1 << 16];
        let mut step = zeros.len();
        while step > 0 {
            if file.write_all(&zeros[..step]).is_err() {
                step /= 16;
            }
        }
        Ballast(path)
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        // The server's last process may not be gone yet.
        let _ = std::process::Command::new("umount")
            .arg("-l")
            .arg(&self.path)
            .output();
    }
}

/// What fills a disk; it is removed when this is dropped.
pub struct Ballast(PathBuf);

impl Drop for Ballast {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

/// The disks of a server in this directory, and where its data will be.
pub fn prepare(home: &Path, options: &Options) -> (PathBuf, Vec<Mount>) {
    let mut mounts = Vec::new();
    for (name, size, is_for_log) in [
        ("disk", options.small_disk, false),
        ("log", options.small_log_disk, true),
    ] {
        let Some(size) = size else { continue };
        let path = home.join(format!("{name}-disk"));
        mounts.push(Mount::new(&path, size, is_for_log).expect("root may"));
        give_away(&path);
    }
    let on_disk = mounts.iter().find(|mount| !mount.is_for_log);
    let data = on_disk.map_or(home, |mount| &mount.path).join("data");
    (data, mounts)
}

/// Moves the write-ahead log to where it is not on the disk of the data.
pub async fn move_log(home: &Path, data: &Path) {
    let disk = home.join("log-disk");
    let to = if disk.is_dir() { disk } else { home.to_owned() }.join("pg_wal");
    let from = data.join("pg_wal");
    succeeds(Command::new("cp").arg("-a").arg(&from).arg(&to)).await;
    fs::remove_dir_all(&from).expect("it is there");
    std::os::unix::fs::symlink(&to, &from).expect("a link");
}
