//! The head of a request (RFC 9112), checked on the raw bytes.
//!
//! hyper accepts what two readers could read in two ways: two hosts, a length beside a chunked coding (and then hides
//! one of them), bare line feeds, targets that are no paths. A request that needs a second thought is refused here.

use hyper::http::uri::PathAndQuery;

use super::limits::Hosts;
use super::rejection::Rejection;

/// Most fields in one head. hyper's own limit, too.
const MAX_FIELDS: usize = 100;
/// Largest head, in bytes.
pub(super) const MAX_HEAD: usize = 16 * 1024;
/// Longest target, in bytes.
const MAX_TARGET: usize = 8 * 1024;

/// Where the body of a request ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Framing {
    /// After that number of bytes.
    Length(u64),
    /// Where its chunks say so.
    Chunked,
}

/// What a TLS hello is refused for.
pub(super) const TLS: Rejection = Rejection::Malformed(
    "it is a TLS hello, and this port speaks plain HTTP: let the URL begin with http://",
);

/// Whether these are the first bytes of a TLS handshake (RFC 8446, section 5.1). No head of HTTP begins like that.
pub(super) fn is_tls(bytes: &[u8]) -> bool {
    bytes.first() == Some(&0x16)
}

/// Where the head at the start of `bytes` ends, if it does.
pub(super) fn end_of_head(bytes: &[u8]) -> Option<usize> {
    let mut line_start = 0;
    for (i, _) in bytes.iter().enumerate().filter(|(_, byte)| **byte == b'\n') {
        let line = &bytes[line_start..i];
        if line_start > 0 && (line.is_empty() || line == b"\r") {
            return Some(i + 1);
        }
        line_start = i + 1;
    }
    None
}

/// What a head that does not end within [`MAX_HEAD`] is refused for.
pub(super) fn too_long(bytes: &[u8]) -> Rejection {
    let line = bytes.iter().take_while(|byte| **byte != b'\n').count();
    if line > MAX_TARGET {
        Rejection::TargetTooLong
    } else {
        Rejection::HeadersTooLarge
    }
}

/// What hyper gets in the place of a bad head: a good one, for the same method, target and request id if these can be
/// read, so that the service can say what was not done, and the caller finds it in the log.
pub(super) fn stand_in(head: &[u8]) -> String {
    // Only what is there however the bytes were cut: not what follows the head, nor what came beyond the limit.
    let head = &head[..end_of_head(head).unwrap_or(head.len()).min(MAX_HEAD)];
    let line = head.split(|byte| matches!(byte, b'\r' | b'\n')).next();
    let line = line.and_then(|line| std::str::from_utf8(line).ok());
    let mut words = line.unwrap_or_default().split(' ');
    let (method, target) = match (words.next(), words.next(), words.next(), words.next()) {
        (Some(method @ ("GET" | "HEAD" | "POST")), Some(target), Some(_), None)
            if is_path(target) =>
        {
            (method, target)
        }
        _ => ("GET", "/"),
    };
    let id = request_id(head).map_or_else(String::new, |id| format!("X-Request-Id: {id}\r\n"));
    format!("{method} {target} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{id}\r\n")
}

/// The one that is there, if it is of visible ASCII and all there.
fn request_id(head: &[u8]) -> Option<&str> {
    let lines = head
        .split_inclusive(|byte| *byte == b'\n')
        .filter_map(|line| line.strip_suffix(b"\r\n"));
    let fields = lines.filter_map(|line| std::str::from_utf8(line).ok()?.split_once(':'));
    let mut ids = fields
        .filter(|(name, _)| name.eq_ignore_ascii_case("x-request-id"))
        .map(|(_, id)| id.trim());
    ids.next()
        .filter(|id| ids.next().is_none() && id.bytes().all(|byte| byte.is_ascii_graphic()))
}

/// A path with an optional query, as a request has it.
fn is_path(target: &str) -> bool {
    target.starts_with('/')
        && target.len() <= MAX_TARGET
        && target
            .bytes()
            .all(|byte| byte.is_ascii_graphic() && byte != b'#')
        && PathAndQuery::try_from(target).is_ok()
}

/// Checks a whole head.
///
/// # Errors
/// The first thing that is wrong with it.
pub(super) fn check(head: &[u8], hosts: Hosts) -> Result<Framing, Rejection> {
    use Rejection::Malformed;
    if head.starts_with(b"\r\n") {
        return Err(Malformed("there are empty lines before the request line"));
    }
    if head
        .iter()
        .enumerate()
        .any(|(i, byte)| *byte == b'\n' && (i == 0 || head[i - 1] != b'\r'))
    {
        return Err(Malformed("a line of the head ends in a bare line feed"));
    }
    let mut fields = [httparse::EMPTY_HEADER; MAX_FIELDS];
    let mut request = httparse::Request::new(&mut fields);
    match request.parse(head) {
        Ok(httparse::Status::Complete(_)) => {}
        Ok(httparse::Status::Partial) => return Err(Malformed("the head is incomplete")),
        Err(httparse::Error::TooManyHeaders) => return Err(Rejection::HeadersTooLarge),
        Err(_) => return Err(Malformed("the head is not one of HTTP/1.1")),
    }
    let (Some(method), Some(target), Some(version)) =
        (request.method, request.path, request.version)
    else {
        return Err(Malformed("the request line is incomplete"));
    };
    if target.len() > MAX_TARGET {
        return Err(Rejection::TargetTooLong);
    }
    if method == "CONNECT" {
        return Err(Malformed("this is not a proxy: no CONNECT"));
    }
    if !is_path(target) {
        return Err(Malformed(
            "the target is not a path of visible ASCII, like /watch/abc",
        ));
    }
    if request.headers.iter().any(|field| field.name.contains('_')) {
        return Err(Malformed(
            "a header name has an underscore, which others read as a hyphen",
        ));
    }
    let is_exempt = hosts == Hosts::OneSinceHttp11 && version == 0;
    if !is_exempt || values(request.headers, "host").next().is_some() {
        check_host(request.headers, hosts)?;
    }
    check_framing(request.headers, version)
}

/// All values of a field.
fn values<'a>(fields: &'a [httparse::Header<'_>], name: &'a str) -> impl Iterator<Item = &'a [u8]> {
    fields
        .iter()
        .filter(move |field| field.name.eq_ignore_ascii_case(name))
        .map(|field| field.value)
}

fn check_host(fields: &[httparse::Header<'_>], hosts: Hosts) -> Result<(), Rejection> {
    let mut values = values(fields, "host");
    let host = values.next();
    if values.next().is_some() {
        return Err(Rejection::Malformed("there is more than one Host header"));
    }
    if hosts == Hosts::Any {
        return Ok(());
    }
    let host = host.ok_or(Rejection::Malformed("there is no Host header"))?;
    let well_formed = std::str::from_utf8(host).is_ok_and(|host| {
        let (name, port) = match host.rsplit_once(':') {
            Some((name, port)) if !port.ends_with(']') => (name, port),
            _ => (host, ""),
        };
        let name_ok = match name
            .strip_prefix('[')
            .and_then(|rest| rest.strip_suffix(']'))
        {
            Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
            None => {
                !name.is_empty()
                    && name
                        .bytes()
                        .all(|byte| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte))
            }
        };
        name_ok
            && port.bytes().all(|byte| byte.is_ascii_digit())
            && (port.is_empty() || port.parse::<u16>().is_ok())
    });
    if well_formed {
        Ok(())
    } else {
        Err(Rejection::Malformed(
            "the Host header is not a name with an optional port",
        ))
    }
}

fn check_framing(fields: &[httparse::Header<'_>], version: u8) -> Result<Framing, Rejection> {
    use Rejection::Malformed;
    let mut lengths = values(fields, "content-length");
    let mut codings = values(fields, "transfer-encoding");
    let framing = match (lengths.next(), codings.next()) {
        (None, None) => Framing::Length(0),
        (Some(_), Some(_)) => {
            return Err(Malformed(
                "there are both Content-Length and Transfer-Encoding",
            ));
        }
        (Some(length), None) => {
            let digits = std::str::from_utf8(length)
                .ok()
                .filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
            let length = digits.and_then(|digits| digits.parse().ok());
            Framing::Length(length.ok_or(Malformed("Content-Length is not one number"))?)
        }
        (None, Some(coding)) if version == 1 && coding.eq_ignore_ascii_case(b"chunked") => {
            Framing::Chunked
        }
        (None, Some(_)) => {
            return Err(Malformed(
                "Transfer-Encoding is something else than chunked, or in HTTP/1.0",
            ));
        }
    };
    if lengths.next().is_some() || codings.next().is_some() {
        return Err(Malformed("Content-Length or Transfer-Encoding is repeated"));
    }
    if values(fields, "trailer").next().is_some() {
        return Err(Malformed("trailers are not accepted"));
    }
    let mut expectations = values(fields, "expect");
    match (expectations.next(), expectations.next()) {
        (None, _) => Ok(framing),
        (Some(one), None) if one.eq_ignore_ascii_case(b"100-continue") => Ok(framing),
        _ => Err(Rejection::Expectation),
    }
}
