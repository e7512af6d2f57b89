//! What `run` would open, looked at without opening it: the store's directory, the addresses to listen at, and whether the
//! system lets it open as many connections.

use std::io;

use super::super::reading::Reading;
use super::super::sections::Config;
use crate::file::Denied;
use crate::server::{Address, ListenAddr, SocketFile, look_at_files};
use crate::store::{Place, look_into};

impl Reading {
    /// Reports what `run` would fail at. What another user may have is a warning.
    pub(super) fn look_at_places(&mut self, config: &Config) {
        if let Place::Directory(directory) = &config.store.url {
            let help = "name a directory whose parent is there and that tillgate may write into, or make it";
            self.take_look("store.url", look_into(directory), help);
        }
        for address in &config.listen.address {
            match address {
                ListenAddr::Tcp(address) => self.look_at_address("listen.address", *address),
                ListenAddr::Unix(path) => {
                    let help =
                        "make its directory, with the group that may come in, or name another path";
                    self.take_look("listen.address", SocketFile::look(path), help);
                }
                ListenAddr::Inherited(_) => {}
            }
        }
        self.look_at_address("admin.address", config.admin.address);
        let files = look_at_files(config.listen.max_connections);
        self.remarks.notes.extend(files);
    }

    fn take_look(&mut self, key: &str, look: Result<(), Denied>, help: &str) {
        match look {
            Err(_) if self.is_bad(key) => {}
            Ok(()) => {}
            Err(Denied::ToThisUser(why)) => self.remarks.warnings.push(format!("{key}: {why}")),
            Err(Denied::ToEverybody(why)) => self.report(key, self.place(key), why, help),
        }
    }

    fn look_at_address(&mut self, key: &str, address: Address) {
        let Err(error) = address.look() else { return };
        let (what, help) = match error.kind() {
            io::ErrorKind::AddrInUse => {
                let note = format!(
                    "{key}: the port of {address} is taken at this moment, and run needs it, unless tillgate has it already"
                );
                return self.remarks.notes.push(note);
            }
            io::ErrorKind::PermissionDenied => (
                format!("this user may not listen on {address}"),
                "take a port of 1024 or more",
            ),
            io::ErrorKind::AddrNotAvailable => (
                format!("this machine has no address {address}"),
                "name one that it has, or localhost",
            ),
            _ => (
                format!("cannot listen on {address}: {error}"),
                "name another address",
            ),
        };
        if !self.is_bad(key) {
            self.report(key, self.place(key), what, help);
        }
    }
}
