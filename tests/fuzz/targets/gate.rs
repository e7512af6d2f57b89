//! The bytes of a connection, in pieces. What the gate lets through is read again by a reader that forgives nothing,
//! and however the bytes are cut into pieces, the same is let through.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tillgate::fuzz::server::{self, LetThrough};

fuzz_target!(|data: &[u8]| {
    let Some((seed, bytes)) = data.split_first_chunk::<2>() else {
        return;
    };
    let whole = server::gate([bytes]);
    let pieces = cut(bytes, u16::from_le_bytes(*seed));
    let cut = server::gate(pieces);
    assert_eq!(whole, cut, "it matters how the bytes were cut");
    assert_eq!(
        server::gate(bytes.chunks(1)),
        cut,
        "it matters that they came one by one"
    );
    read_again(bytes, &whole);
});

/// Cuts at places that follow from the seed.
fn cut(mut bytes: &[u8], seed: u16) -> Vec<&[u8]> {
    let (mut state, mut pieces) = (u32::from(seed) | 1 << 16, Vec::new());
    while !bytes.is_empty() {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        // Mostly short pieces, now and then a long one.
        let length = if state >> 28 == 0 {
            4096
        } else {
            1 + (state >> 24) as usize % 64
        };
        let (piece, rest) = bytes.split_at(length.min(bytes.len()));
        pieces.push(piece);
        bytes = rest;
    }
    pieces
}

/// Each request that was let through is of good form, and stands so in what came.
fn read_again(mut came: &[u8], let_through: &LetThrough) {
    let mut rest = &let_through.bytes[..];
    for (i, verdict) in let_through.verdicts.iter().enumerate() {
        assert!(!rest.is_empty(), "a verdict about nothing");
        if verdict.is_some() {
            assert_eq!(
                i + 1,
                let_through.verdicts.len(),
                "something was let through after a refusal"
            );
            assert!(!let_through.broken);
            let stand_in = std::str::from_utf8(rest).expect("a stand-in is ASCII");
            assert!(
                stand_in.ends_with(" HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"),
                "{stand_in:?}"
            );
            read_head(rest);
            return;
        }
        came = came.strip_prefix(b"\r\n").unwrap_or(came);
        let (head, body) = read_head(rest);
        let body = match body {
            Body::Length(length) => usize::try_from(length)
                .unwrap_or(usize::MAX)
                .min(rest.len() - head),
            Body::Chunked => read_chunks(&rest[head..]),
        };
        let (request, later) = rest.split_at(head + body);
        assert!(
            came.starts_with(request),
            "what was let through is not what came"
        );
        came = &came[request.len()..];
        rest = later;
    }
    assert!(
        rest.is_empty(),
        "bytes were let through that nobody decided about: {rest:?}"
    );
}

enum Body {
    Length(u64),
    Chunked,
}

fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// How long the head is, and what body it announces (RFC 9112, without anything that a reader may forgive).
fn read_head(bytes: &[u8]) -> (usize, Body) {
    let end = bytes
        .windows(4)
        .position(|window| window == b"\r\n\r\n")
        .expect("a whole head")
        + 4;
    assert!(end <= 16 * 1024, "a head of {end} bytes");
    let head = &bytes[..end - 4];
    let mut lines = head
        .split(|byte| *byte == b'\n')
        .map(|line| line.strip_suffix(b"\r").unwrap_or(line));
    assert!(
        head.iter().enumerate().all(
            |(i, byte)| (*byte != b'\n' || i > 0 && head[i - 1] == b'\r')
                && (*byte != b'\r' || head.get(i + 1) == Some(&b'\n'))
        ),
        "a bare line end"
    );
    let words: Vec<_> = lines
        .next()
        .expect("a request line")
        .split(|byte| *byte == b' ')
        .collect();
    let [method, target, version] = words[..] else {
        panic!("not three words: {words:?}")
    };
    assert!(
        !method.is_empty() && method.iter().all(|byte| is_token(*byte)) && method != b"CONNECT",
        "{method:?}"
    );
    assert!(
        target.starts_with(b"/") && target.iter().all(u8::is_ascii_graphic) && target.len() <= 8192,
        "{target:?}"
    );
    assert!(!target.contains(&b'#'), "a fragment");
    assert!(
        version == b"HTTP/1.1" || version == b"HTTP/1.0",
        "{version:?}"
    );
    let (mut hosts, mut lengths, mut codings, mut count) = (Vec::new(), Vec::new(), Vec::new(), 0);
    for line in lines {
        count += 1;
        let colon = line.iter().position(|byte| *byte == b':').expect("a colon");
        let (name, value) = (
            line[..colon].to_ascii_lowercase(),
            line[colon + 1..].trim_ascii(),
        );
        assert!(
            !name.is_empty() && name.iter().all(|byte| is_token(*byte) && *byte != b'_'),
            "{name:?}"
        );
        assert!(
            value
                .iter()
                .all(|byte| *byte == b'\t' || *byte >= b' ' && *byte != 0x7f),
            "{name:?}: {value:?}"
        );
        match &name[..] {
            b"host" => hosts.push(value),
            b"content-length" => lengths.push(value),
            b"transfer-encoding" => codings.push(value),
            b"trailer" => panic!("trailers are announced"),
            b"expect" => assert!(value.eq_ignore_ascii_case(b"100-continue"), "{value:?}"),
            _ => {}
        }
    }
    assert!(count <= 100, "{count} fields");
    let [host] = hosts[..] else {
        panic!("not one Host: {hosts:?}")
    };
    assert!(
        !host.is_empty()
            && host
                .iter()
                .all(|byte| byte.is_ascii_alphanumeric() || b"-._~:[]".contains(byte))
    );
    let body = match (&lengths[..], &codings[..]) {
        ([], []) => Body::Length(0),
        ([length], []) => {
            assert!(
                !length.is_empty() && length.iter().all(u8::is_ascii_digit),
                "{length:?}"
            );
            Body::Length(
                std::str::from_utf8(length)
                    .expect("digits")
                    .parse()
                    .expect("a number of 64 bits"),
            )
        }
        ([], [coding]) => {
            assert!(
                coding.eq_ignore_ascii_case(b"chunked") && version == b"HTTP/1.1",
                "{coding:?}"
            );
            Body::Chunked
        }
        _ => panic!("two framings"),
    };
    (end, body)
}

/// How long the chunked body is, as far as it is there.
fn read_chunks(bytes: &[u8]) -> usize {
    let mut at = 0;
    loop {
        let Some(line) = bytes[at..].windows(2).position(|window| window == b"\r\n") else {
            assert!(bytes[at..].is_empty(), "half a line was let through");
            return at;
        };
        let text = std::str::from_utf8(&bytes[at..at + line]).expect("ASCII");
        let (size, extension) = text.split_once(';').unwrap_or((text, "x"));
        assert!(
            !size.is_empty() && size.bytes().all(|byte| byte.is_ascii_hexdigit()),
            "{text:?}"
        );
        assert!(
            !extension.is_empty()
                && extension
                    .bytes()
                    .all(|byte| byte == b' ' || byte.is_ascii_graphic())
        );
        assert!(text.len() <= 256, "a line of {} bytes", text.len());
        let size = u64::from_str_radix(size, 16).expect("a size of 64 bits");
        at += line + 2;
        let there = usize::try_from(size)
            .unwrap_or(usize::MAX)
            .min(bytes.len() - at);
        at += there;
        if at == bytes.len() {
            return at;
        }
        assert!(
            bytes[at..].starts_with(b"\r\n"),
            "a chunk is longer than it says, or there is a trailer"
        );
        at += 2;
        if size == 0 {
            return at;
        }
    }
}
