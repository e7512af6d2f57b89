//! A connection to the database of a fleet, and how it is made.

use std::future::poll_fn;
use std::sync::Arc;
use std::time::Duration;

use prometheus_client::registry::Registry;
use rustls::RootCertStore;
use secrecy::{ExposeSecret, SecretString};
use tokio::sync::watch;
use tokio_postgres::config::SslMode;
use tokio_postgres::error::DbError;
use tokio_postgres::types::{FromSqlOwned, ToSql, Type};
use tokio_postgres::{AsyncMessage, Client, Row};
use tokio_util::task::AbortOnDropHandle;

use super::super::config::Config;
use super::dial::{Address, Attempt, Driver, Terms};
use super::tls;
use super::trouble::{Reason, Trouble};
use super::url::{DatabaseUrl, Host};
use super::usable::{QUESTION, usable};
use crate::file::{ReloadableFile, Settle};
use crate::{client, clock, random, tasks};

/// The shortest time limit for a connection: it takes several round trips.
const CONNECT: Duration = Duration::from_secs(2);

/// How the database of a fleet is reached. Clones share it.
#[derive(Clone)]
pub(in crate::store) struct Database(Arc<Inner>);

struct Inner {
    url: DatabaseUrl,
    password: Option<ReloadableFile<SecretString>>,
    roots: Option<ReloadableFile<RootCertStore>>,
    may_be_plain: bool,
    timeout: Duration,
}

impl Database {
    /// The files are not read before the first connection is made.
    pub(in crate::store) fn new(url: &DatabaseUrl, config: &Config) -> Self {
        let password = config.password_file.as_ref();
        let roots = config.ca_file.as_ref();
        Self(Arc::new(Inner {
            url: url.clone(),
            password: password.map(|path| ReloadableFile::unread(&path.0, parse_password)),
            roots: roots.map(|path| ReloadableFile::unread(&path.0, client::roots)),
            may_be_plain: config.allow_plain_tcp,
            timeout: config.timeout,
        }))
    }

    /// Returns the schema that has the tables.
    pub(in crate::store) fn schema(&self) -> &str {
        &self.0.url.schema
    }

    /// Returns the same as a statement names it: it may be a keyword.
    pub(in crate::store) fn quoted_schema(&self) -> String {
        format!("\"{}\"", self.schema())
    }

    /// Returns the time limit for one statement.
    pub(in crate::store) fn timeout(&self) -> Duration {
        self.0.timeout
    }

    /// Returns the hosts with their ports, for logs and errors.
    pub(in crate::store) fn place(&self) -> String {
        self.0.url.place()
    }

    /// Adds the metrics of its files.
    pub(in crate::store) fn register(&self, registry: &mut Registry) {
        if let Some(file) = &self.0.password {
            let help = "Looks at the database's password file that found nothing usable";
            registry.register(
                "store_password_reload_failures",
                help,
                file.failures.clone(),
            );
        }
        if let Some(file) = &self.0.roots {
            let help = "Looks at the file of the database's roots that found nothing usable";
            registry.register("store_tls_reload_failures", help, file.failures.clone());
        }
    }

    /// Connects to the first host of the list that takes writes. Names are looked up, and files are read, each time. Each
    /// address of a host is tried for [`Database::timeout`], and for two seconds at least.
    ///
    /// # Errors
    /// Fails if none takes writes; says why of each.
    pub(in crate::store) async fn connect(&self) -> Result<Link, Trouble> {
        let terms = self.terms().await?;
        let mut troubles = Vec::new();
        for host in &self.0.url.hosts {
            match connect_to(host, &terms).await {
                Ok(link) => return Ok(link),
                Err(of_host) => troubles.extend(of_host),
            }
        }
        Err(Trouble::together(troubles))
    }

    /// Reads the files, and says how to connect.
    async fn terms(&self) -> Result<Terms, Trouble> {
        let this = self.clone();
        let limit = self.0.timeout.max(CONNECT);
        // They may lie on a slow mount.
        let read = tokio::task::spawn_blocking(move || this.read_files());
        let files = clock::timeout(limit, read).await;
        let (password, roots) = match files {
            Ok(Ok(files)) => files?,
            Ok(Err(_)) | Err(_) => {
                let what = "store.password_file or store.ca_file could not be read in time";
                return Err(Trouble::new(Reason::Timeout, what));
            }
        };
        let tls = tls::config(roots)
            .map_err(|what| Trouble::new(Reason::Refused, format!("store.ca_file: {what}")))?;
        let url = &self.0.url;
        let mut login = tokio_postgres::Config::new();
        login
            .user(&url.user)
            .dbname(&url.database)
            .application_name(&url.application_name)
            // It is done before the login.
            .ssl_mode(SslMode::Disable);
        if let Some(password) = password {
            login.password(password.expose_secret());
        }
        Ok(Terms {
            login,
            tls,
            may_be_plain: self.0.may_be_plain,
            limit,
            user_timeout: self.0.timeout * 2,
        })
    }

    /// Returns the password and the roots. What was good last stays in use while a file is bad.
    fn read_files(&self) -> Result<(Option<SecretString>, Option<Arc<RootCertStore>>), Trouble> {
        fn read<T>(file: &ReloadableFile<T>, key: &str) -> Result<Arc<T>, Trouble> {
            file.reload(Settle::Briefly);
            file.get().ok_or_else(|| {
                let path = file.path().display();
                let what = format!("{key}: {path} is missing or cannot be used");
                Trouble::new(Reason::Refused, what)
            })
        }
        let password = match &self.0.password {
            Some(file) => Some(SecretString::clone(&*read(file, "store.password_file")?)),
            None => self.0.url.password.clone(),
        };
        let roots = self.0.roots.as_ref();
        let roots = roots.map(|file| read(file, "store.ca_file")).transpose()?;
        Ok((password, roots))
    }
}

/// Parses the content of a password file.
///
/// # Errors
/// Says what is wrong, without quoting the content.
pub(crate) fn parse_password(bytes: &[u8]) -> Result<SecretString, String> {
    let text = std::str::from_utf8(bytes).map_err(|_| "it is not UTF-8")?;
    if text.is_empty() {
        return Err("it is empty".to_owned());
    }
    if text.contains(char::is_control) {
        return Err("it has more than one line, or a control character".to_owned());
    }
    Ok(SecretString::from(Box::<str>::from(text)))
}

/// Tries the addresses of a host, one after the other: one of them may be a standby.
async fn connect_to(host: &Host, terms: &Terms) -> Result<Link, Vec<Trouble>> {
    let password = terms
        .login
        .get_password()
        .and_then(|bytes| std::str::from_utf8(bytes).ok());
    let (addresses, looked_up_in) = Address::of(host, terms.limit)
        .await
        .map_err(|trouble| vec![trouble.at(&host.to_string(), None)])?;
    let mut troubles = Vec::new();
    for address in &addresses {
        match Link::make(host, address, terms).await {
            Ok(mut link) => {
                if let Address::Tcp(_) = address {
                    link.steps.insert(0, ("DNS", looked_up_in));
                }
                return Ok(link);
            }
            Err(trouble) => {
                let (host, address) = (host.to_string(), address.to_string());
                let place = match addresses.len() {
                    1 => host,
                    _ => format!("{host} ({address})"),
                };
                troubles.push(trouble.at(&place, password));
            }
        }
    }
    Err(troubles)
}

/// A connection to a server that takes writes. It ends when this is dropped.
pub(in crate::store) struct Link {
    client: Client,
    /// Closed when the connection has ended; then it has the reason, if there is one.
    ended: watch::Receiver<Option<Trouble>>,
    _driver: AbortOnDropHandle<()>,
    place: String,
    version: String,
    pub(super) steps: Vec<(&'static str, Duration)>,
    pub(super) is_tls: bool,
}

impl Link {
    async fn make(host: &Host, address: &Address, terms: &Terms) -> Result<Self, Trouble> {
        let mut attempt = Attempt::new(terms, host, address);
        let (client, driver) = attempt.log_in().await?;
        let (ends, ended) = watch::channel(None);
        let driver = tasks::spawn(drive(driver, ends));
        let mut link = Self {
            client,
            ended,
            _driver: AbortOnDropHandle::new(driver),
            place: host.to_string(),
            version: String::new(),
            steps: Vec::new(),
            is_tls: attempt.is_tls,
        };
        let rows = attempt
            .step("first answer", link.query(QUESTION, &[]))
            .await??;
        link.version = usable(&rows)?;
        link.steps = attempt.steps;
        Ok(link)
    }

    /// Sends one statement, and returns its rows. It is one round trip with the unnamed statement, which works behind a
    /// pooler too. Many may be under way at once; the server carries them out in turn. It has no deadline of its own, and
    /// dropping the future cancels nothing.
    ///
    /// # Errors
    /// Fails if the server refuses it, or if the connection ends before the answer.
    pub(in crate::store) async fn query(
        &self,
        sql: &str,
        parameters: &[(&(dyn ToSql + Sync), Type)],
    ) -> Result<Vec<Row>, Trouble> {
        self.check_open()?;
        let rows = self.client.query_typed(sql, parameters).await;
        rows.map_err(|error| self.trouble(&error))
    }

    /// Sends one statement that has one more parameter than these, the last one, and returns that in the last column of each
    /// row. There is one at least: a pooler that was out of step may give a connection what another one has asked for.
    ///
    /// # Errors
    /// See [`Link::query`]. Fails too if the answer is not to this question.
    pub(super) async fn ask(
        &self,
        sql: &str,
        parameters: &[(&(dyn ToSql + Sync), Type)],
    ) -> Result<Vec<Row>, Trouble> {
        let asked = random::token(12);
        let mut all = parameters.to_vec();
        all.push((&asked, Type::TEXT));
        let rows = self.query(sql, &all).await?;
        let is_own = |row: &Row| {
            let last = row.len().saturating_sub(1);
            row.try_get::<_, &str>(last).is_ok_and(|last| last == asked)
        };
        match rows.is_empty() || !rows.iter().all(is_own) {
            true => Err(Trouble::crossed()),
            false => Ok(rows),
        }
    }

    /// Sends one statement that returns no row.
    ///
    /// # Errors
    /// See [`Link::ask`].
    pub(super) async fn tell(
        &self,
        sql: &str,
        parameters: &[(&(dyn ToSql + Sync), Type)],
    ) -> Result<(), Trouble> {
        match self.query(sql, parameters).await?.is_empty() {
            true => Ok(()),
            false => Err(Trouble::crossed()),
        }
    }

    /// Sends several statements without parameters, which are one transaction if none of them begins another.
    ///
    /// # Errors
    /// See [`Link::query`].
    pub(in crate::store) async fn batch(&self, sql: &str) -> Result<(), Trouble> {
        self.check_open()?;
        let done = self.client.batch_execute(sql).await;
        done.map_err(|error| self.trouble(&error))
    }

    /// Returns the server, as the URL names it.
    pub(in crate::store) fn place(&self) -> &str {
        &self.place
    }

    /// Returns the name and the number of the server's version, like `PostgreSQL 15.18`.
    pub(in crate::store) fn version(&self) -> &str {
        &self.version
    }

    /// Returns whether the connection has ended.
    pub(in crate::store) fn is_closed(&self) -> bool {
        self.client.is_closed()
    }

    /// Returns when the connection has ended.
    pub(in crate::store) async fn closed(&self) {
        let mut ended = self.ended.clone();
        while ended.changed().await.is_ok() {}
    }

    /// Fails before anything is sent if the connection has ended.
    fn check_open(&self) -> Result<(), Trouble> {
        if !self.is_closed() {
            return Ok(());
        }
        let why = self.ended.borrow().clone();
        let closed = || Trouble::new(Reason::Unreachable, "the connection has ended");
        Err(why.unwrap_or_else(closed).into_not_sent())
    }

    fn trouble(&self, error: &tokio_postgres::Error) -> Trouble {
        match &*self.ended.borrow() {
            // It says more than that the connection is closed.
            Some(why) if error.is_closed() => why.clone().into_unknown(),
            _ => Trouble::of_statement(error),
        }
    }
}

/// Returns the value of a column.
///
/// # Errors
/// If it has another type.
pub(super) fn get<T: FromSqlOwned>(row: &Row, column: usize) -> Result<T, Trouble> {
    let value = row.try_get(column);
    value.map_err(|error| Trouble::of_statement(&error))
}

/// Moves the bytes of a connection until it ends.
async fn drive(mut driver: Driver, ends: watch::Sender<Option<Trouble>>) {
    let why = loop {
        match poll_fn(|cx| driver.poll_message(cx)).await {
            // The statement will be answered as if the standby had it.
            Some(Ok(AsyncMessage::Notice(notice))) if is_unconfirmed(&notice) => {
                break Some(Trouble::unconfirmed());
            }
            Some(Ok(_)) => {}
            Some(Err(error)) => break Some(Trouble::of_statement(&error)),
            None => break None,
        }
    };
    ends.send_replace(why);
    // Only now: who still waits for an answer finds the reason.
    drop(driver);
}

/// Returns whether the server says that it no longer waits for a synchronous standby. Its message may be in any language;
/// the function that sends it has one name.
fn is_unconfirmed(notice: &DbError) -> bool {
    notice.routine() == Some("SyncRepWaitForLSN")
}

#[cfg(test)]
mod tests;
