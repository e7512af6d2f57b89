//! The URL of a database, as libpq writes it. What no fleet needs is refused by name.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::path::PathBuf;
use std::str::FromStr;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use rustls::pki_types::ServerName;
use secrecy::SecretString;

/// The form of such a URL, for errors.
pub(in crate::store) const FORM: &str = "postgres://USER@HOST/DATABASE";

const PORT: u16 = 5432;
/// The schema of a URL that names none.
pub(crate) const SCHEMA: &str = "tillgate";
const APPLICATION_NAME: &str = "tillgate";
/// The longest name that PostgreSQL keeps whole.
const MAX_NAME: usize = 63;
/// What is percent-encoded.
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');

/// `postgres://USER[:PASSWORD]@HOST[:PORT][,HOST[:PORT]…]/DATABASE[?PARAMETERS]`. Its text has `[redacted]` in place of the
/// password.
#[derive(Clone, Debug)]
pub(crate) struct DatabaseUrl {
    pub(super) user: String,
    pub(super) password: Option<SecretString>,
    /// In the order in which they are tried; never empty.
    pub(super) hosts: Vec<Host>,
    pub(super) database: String,
    /// An identifier that needs no quotes, unless it is a keyword.
    pub(super) schema: String,
    pub(super) application_name: String,
}

/// Where a server listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Host {
    /// An address, or a name that a certificate can be for.
    Tcp { name: String, port: u16 },
    /// The directory of a Unix socket, whose name is made of the port.
    Unix { directory: PathBuf, port: u16 },
}

impl DatabaseUrl {
    /// Returns whether the password stands in the URL.
    pub(crate) fn has_password(&self) -> bool {
        self.password.is_some()
    }

    /// Returns whether each server is on this machine, so that no other one sees what is sent.
    pub(crate) fn is_local(&self) -> bool {
        self.hosts.iter().all(Host::is_local)
    }

    /// Returns the user that logs in.
    pub(crate) fn user(&self) -> &str {
        &self.user
    }

    /// Returns the hosts with their ports.
    pub(crate) fn place(&self) -> String {
        let hosts: Vec<_> = self.hosts.iter().map(Host::to_string).collect();
        hosts.join(",")
    }

    /// Returns the schema that has the tables.
    pub(crate) fn schema(&self) -> &str {
        &self.schema
    }
}

impl Host {
    /// Returns whether it is this machine. `localhost` is never looked up (RFC 6761), so no name server decides this.
    pub(super) fn is_local(&self) -> bool {
        match self {
            Self::Unix { .. } => true,
            Self::Tcp { name, .. } => {
                is_localhost(name) || name.parse().is_ok_and(|ip: IpAddr| ip.is_loopback())
            }
        }
    }
}

/// Returns whether this name is that of every machine for itself.
pub(super) fn is_localhost(name: &str) -> bool {
    let bare = name.strip_suffix('.').unwrap_or(name);
    bare.eq_ignore_ascii_case("localhost")
}

/// Writes it for people.
impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { name, port } if name.contains(':') => write!(f, "[{name}]{}", Port(*port)),
            Self::Tcp { name, port } => write!(f, "{name}{}", Port(*port)),
            Self::Unix { directory, port } => write!(f, "{}{}", directory.display(), Port(*port)),
        }
    }
}

/// A port behind a host, where it is not the default one.
struct Port(u16);

impl fmt::Display for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            PORT => Ok(()),
            port => write!(f, ":{port}"),
        }
    }
}

impl fmt::Display for DatabaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "postgres://{}", encoded(&self.user))?;
        if self.has_password() {
            f.write_str(":[redacted]")?;
        }
        for (i, host) in self.hosts.iter().enumerate() {
            f.write_str(if i == 0 { "@" } else { "," })?;
            match host {
                Host::Tcp { .. } => host.fmt(f)?,
                Host::Unix { directory, port } => {
                    let directory = directory.to_string_lossy();
                    write!(f, "{}{}", encoded(&directory), Port(*port))?;
                }
            }
        }
        write!(f, "/{}", encoded(&self.database))?;
        let mut mark = '?';
        for (name, value, default) in [
            ("schema", &self.schema, SCHEMA),
            ("application_name", &self.application_name, APPLICATION_NAME),
        ] {
            if value != default {
                write!(f, "{mark}{name}={}", encoded(value))?;
                mark = '&';
            }
        }
        Ok(())
    }
}

fn encoded(text: &str) -> impl fmt::Display {
    utf8_percent_encode(text, ENCODED)
}

impl FromStr for DatabaseUrl {
    type Err = String;

    /// The error quotes nothing that may be a part of the password, however wrongly it was written.
    fn from_str(text: &str) -> Result<Self, String> {
        let rest = ["postgres://", "postgresql://"]
            .iter()
            .find_map(|scheme| text.strip_prefix(scheme))
            .ok_or_else(|| format!("write it {FORM}"))?;
        // The last one: a password that has another one unencoded is refused, and not shown as a host.
        let (login, rest) = rest
            .rsplit_once('@')
            .ok_or_else(|| format!("it names no user: write it {FORM}"))?;
        let (user, password) = parse_login(login)?;
        let (place, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (hosts, database) = place.split_once('/').unwrap_or((place, ""));
        let database = decoded(database).filter(|name| is_name(name));
        let database = database.ok_or_else(|| format!("it names no database: write it {FORM}"))?;
        let parameters = Parameters::parse(query)?;
        let hosts = match (parameters.host, hosts) {
            (Some(directory), "") => vec![Host::Unix {
                directory,
                port: parameters.port.unwrap_or(PORT),
            }],
            (Some(_), _) => return Err("it has a host, and a host parameter too".to_owned()),
            (None, _) if parameters.port.is_some() => {
                return Err("write the port behind the host: HOST:PORT".to_owned());
            }
            (None, hosts) => hosts
                .split(',')
                .map(Host::parse)
                .collect::<Result<_, _>>()?,
        };
        Ok(Self {
            user,
            password,
            hosts,
            database,
            schema: parameters.schema.unwrap_or_else(|| SCHEMA.to_owned()),
            application_name: parameters
                .application_name
                .unwrap_or_else(|| APPLICATION_NAME.to_owned()),
        })
    }
}

fn parse_login(login: &str) -> Result<(String, Option<SecretString>), String> {
    const UNENCODED: &str = "write @ / ? # % and blanks in the user or the password percent-encoded (@ is %40), or put the password into store.password_file";
    if login.contains(|c: char| "@/?#[]".contains(c) || c.is_whitespace()) {
        return Err(UNENCODED.to_owned());
    }
    let (user, password) = match login.split_once(':') {
        Some((user, password)) => (user, Some(password)),
        None => (login, None),
    };
    let user = decoded(user).ok_or(UNENCODED)?;
    if !is_name(&user) {
        return Err(format!("it names no user: write it {FORM}"));
    }
    let password = match password {
        None | Some("") => None,
        Some(text) => Some(SecretString::from(decoded(text).ok_or(UNENCODED)?)),
    };
    Ok((user, password))
}

/// Decodes text that is percent-encoded; `None` if it is malformed, not UTF-8 or has a control character.
fn decoded(text: &str) -> Option<String> {
    let is_hex =
        |bytes: Option<&[u8]>| bytes.is_some_and(|bytes| bytes.iter().all(u8::is_ascii_hexdigit));
    let bytes = text.as_bytes();
    let is_well_formed = bytes
        .iter()
        .enumerate()
        .all(|(i, byte)| *byte != b'%' || is_hex(bytes.get(i + 1..i + 3)));
    if !is_well_formed {
        return None;
    }
    let text = percent_decode_str(text).decode_utf8().ok()?;
    (!text.contains(char::is_control)).then(|| text.into_owned())
}

fn is_name(text: &str) -> bool {
    (1..=MAX_NAME).contains(&text.len())
}

impl Host {
    fn parse(text: &str) -> Result<Self, String> {
        let bad = || match text {
            "" => format!("it names no host: write it {FORM}"),
            text => format!(
                "{text:?} is no host: write HOST, HOST:PORT, [IPV6]:PORT, or the directory of a Unix socket as %2Frun%2Fpostgresql"
            ),
        };
        let is_bracketed = text.starts_with('[');
        let end = if is_bracketed { text.find(']') } else { None };
        let (host, port) = match end {
            Some(end) => (&text[1..end], &text[end + 1..]),
            None => text.split_at(text.find(':').unwrap_or(text.len())),
        };
        let port = match port.strip_prefix(':') {
            Some(port) if !port.contains(':') => parse_port(port)?,
            None if port.is_empty() => PORT,
            _ => return Err(bad()),
        };
        let host = decoded(host).unwrap_or_default();
        if host.starts_with('/') {
            let directory = PathBuf::from(host);
            return Ok(Self::Unix { directory, port });
        }
        let is_good = match is_bracketed {
            true => host.parse::<Ipv6Addr>().is_ok(),
            false => ServerName::try_from(host.strip_suffix('.').unwrap_or(&host)).is_ok(),
        };
        match is_good {
            true => Ok(Self::Tcp { name: host, port }),
            false => Err(bad()),
        }
    }
}

fn parse_port(text: &str) -> Result<u16, String> {
    let port = text.parse().ok().filter(|port| *port > 0);
    port.ok_or_else(|| format!("{text:?} is no port"))
}

/// What follows the question mark.
#[derive(Default)]
struct Parameters {
    schema: Option<String>,
    application_name: Option<String>,
    host: Option<PathBuf>,
    port: Option<u16>,
}

impl Parameters {
    fn parse(query: &str) -> Result<Self, String> {
        let mut found = Self::default();
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let value = decoded(value).ok_or_else(|| format!("{name:?} is not well-formed"))?;
            let is_again = match name {
                "schema" => found.schema.replace(parse_schema(value)?).is_some(),
                "application_name" => {
                    let name = parse_application_name(value)?;
                    found.application_name.replace(name).is_some()
                }
                "host" if value.starts_with('/') => found.host.replace(value.into()).is_some(),
                "host" => return Err("host= is for the directory of a Unix socket, which begins with a slash; write other hosts behind the @".to_owned()),
                "port" => found.port.replace(parse_port(&value)?).is_some(),
                _ => return Err(unknown(name)),
            };
            if is_again {
                return Err(format!("{name} is there twice"));
            }
        }
        Ok(found)
    }
}

fn unknown(name: &str) -> String {
    let what = match name {
        name if name.starts_with("ssl") => format!(
            "there is no {name} here: TLS is always used to other machines, and always verified; store.ca_file names the roots"
        ),
        "password" | "user" | "dbname" => format!("write {name} before the question mark: {FORM}"),
        "connect_timeout" => "there is no connect_timeout here: set store.timeout".to_owned(),
        "target_session_attrs" => {
            "there is no target_session_attrs here: the first host that takes writes is used"
                .to_owned()
        }
        name => format!("there is no parameter {name:?}"),
    };
    format!("{what} (known are schema and application_name, and host and port for a Unix socket)")
}

fn parse_schema(name: String) -> Result<String, String> {
    let is_letter = |c: char| c.is_ascii_lowercase() || c == '_';
    let is_identifier = name.starts_with(is_letter)
        && name.chars().all(|c| is_letter(c) || c.is_ascii_digit())
        && name.len() <= MAX_NAME;
    if !is_identifier || name.starts_with("pg_") || name == "information_schema" {
        return Err(format!(
            "schema: {name:?} is no name of a schema: lower case letters, digits and underscores, 63 at most, no digit and no pg_ first"
        ));
    }
    Ok(name)
}

fn parse_application_name(name: String) -> Result<String, String> {
    if is_name(&name) && name.chars().all(|c| c == ' ' || c.is_ascii_graphic()) {
        Ok(name)
    } else {
        Err("application_name: it is printable ASCII, 63 characters at most".to_owned())
    }
}

#[cfg(test)]
mod tests;
