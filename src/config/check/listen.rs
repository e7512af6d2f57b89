//! `[listen]` and `[admin]`: where to listen, and who is let in.

use std::sync::Arc;

use super::super::environment::Environment;
use super::super::reading::Reading;
use super::super::sections::Config;
use crate::api::Tokens;
use crate::file::ReloadableFile;
use crate::server::{InheritedSocket, ListenAddr, SocketFile};

impl Reading {
    /// Returns the socket that `listen.address` names, if it names an inherited one and there is one.
    pub(super) fn check_listen_addr(
        &mut self,
        config: &Config,
        environment: &Environment,
    ) -> Option<InheritedSocket> {
        const KEY: &str = "listen.address";
        match &config.listen.address {
            ListenAddr::Inherited(number) => {
                environment.inherited(*number).unwrap_or_else(|what| {
                    let help =
                        "name one that listens, or repair what passes it (systemd: the socket unit)";
                    self.report(KEY, self.place(KEY), what, help);
                    None
                })
            }
            ListenAddr::Unix(path) => {
                if let Some(what) = SocketFile::in_the_way(path) {
                    let help = "remove it, or name another path";
                    self.report(KEY, self.place(KEY), what, help);
                }
                None
            }
            ListenAddr::Tcp(_) => None,
        }
    }

    /// The admin listener must not have the address of the API.
    pub(super) fn check_admin_addr(&mut self, config: &Config) {
        const KEY: &str = "admin.address";
        if let ListenAddr::Tcp(api) = config.listen.address
            && api == config.admin.address
            && api.port() > 0
        {
            let what = "it is the same as listen.address";
            self.report(KEY, self.place(KEY), what, "take another port, like 8701");
        }
    }

    /// Returns `Some(None)` where no tokens are configured, and none are needed.
    pub(super) fn check_tokens(
        &mut self,
        config: &Config,
        inherited: Option<&InheritedSocket>,
    ) -> Option<Option<Arc<ReloadableFile<Tokens>>>> {
        const FILE: &str = "listen.token_file";
        let Some(path) = &config.listen.token_file else {
            let exposed = match &config.listen.address {
                ListenAddr::Tcp(address) => !address.is_loopback(),
                ListenAddr::Inherited(_) => inherited.is_some_and(InheritedSocket::is_exposed),
                ListenAddr::Unix(_) => false,
            };
            if exposed {
                let key = "listen.address";
                let what = "other machines can reach this address, and without tokens all of them could start payments";
                let help = "listen on localhost:8700, or set listen.token_file";
                self.report(key, self.place(key), what, help);
            }
            return Some(None);
        };
        match ReloadableFile::open(&path.0, Tokens::parse) {
            Ok(file) if file.get().is_some() => Some(Some(Arc::new(file))),
            other => {
                let what = other
                    .err()
                    .unwrap_or_else(|| "the file is missing".to_owned());
                let help = "write one token a line, for example with: openssl rand -hex 32";
                self.report(FILE, self.named(path, FILE), what, help);
                None
            }
        }
    }
}
