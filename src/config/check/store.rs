//! `[store]`: what a database needs, and nothing else may have.

use super::super::reading::Reading;
use super::super::sections::Config;
use crate::client;
use crate::file::ReloadableFile;
use crate::store::{self, Place, parse_password};
use crate::text::FilePath;

const URL: &str = "store.url";
const PASSWORD: &str = "store.password_file";
const ROOTS: &str = "store.ca_file";

impl Reading {
    /// A password file that is missing is not an error: it may be mounted later.
    pub(super) fn check_store(&mut self, config: &Config) {
        let store = &config.store;
        if self.is_bad(URL) {
            return;
        }
        let Place::Fleet(url) = &store.url else {
            return self.check_no_database(store);
        };
        if url.has_password() && store.password_file.is_some() {
            let what = "the password is in store.url too, and only one of the two may have it";
            let help = "take it out of store.url, and keep password_file";
            self.report(PASSWORD, self.place(PASSWORD), what, help);
        }
        if let Some(path) = &store.password_file {
            self.check_password_file(path);
        }
        let help = "give a file with the root certificate of the database as PEM";
        let _ = self.open_file(ROOTS, store.ca_file.as_ref(), client::roots, help);
    }

    /// Without a database its settings would be silently useless.
    fn check_no_database(&mut self, store: &store::Config) {
        let default = store::Config::default();
        for (key, is_set) in [
            (PASSWORD, store.password_file.is_some()),
            (ROOTS, store.ca_file.is_some()),
            (
                "store.allow_plain_tcp",
                store.allow_plain_tcp != default.allow_plain_tcp,
            ),
            ("store.timeout", store.timeout != default.timeout),
        ] {
            if is_set {
                let what = "it is for a database, and store.url names none";
                let help = "set store.url = \"postgres://USER@HOST/DATABASE\", or remove it";
                self.report(key, self.place(key), what, help);
            }
        }
    }

    fn check_password_file(&mut self, path: &FilePath) {
        if path.could_be_a_secret() {
            let what = "no file has that name, and it could be the password itself, so it is not shown here";
            let help = "give the path of the file that holds the password";
            return self.report(PASSWORD, self.place(PASSWORD), what, help);
        }
        if let Err(what) = ReloadableFile::open(&path.0, parse_password) {
            let help = "put the password, and nothing else, into that file";
            self.report(PASSWORD, self.named(path, PASSWORD), what, help);
        }
    }
}
