//! What is answered, held against the OpenAPI document.

use bytes::Bytes;
use futures_util::StreamExt;
use http_body_util::BodyDataStream;
use http_body_util::combinators::UnsyncBoxBody;
use hyper::{Method, Response};
use serde_json::Value;

use crate::described::{DOCUMENT, Document};

/// A whole answer.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: hyper::HeaderMap,
    pub body: String,
}

impl Answer {
    pub(super) fn of(response: Response<Bytes>) -> Self {
        let (head, body) = response.into_parts();
        let body = String::from_utf8(body.to_vec()).expect("UTF-8");
        Self {
            status: head.status.as_u16(),
            headers: head.headers,
            body,
        }
    }

    /// All of these bytes, as answers one after the other.
    pub fn all(mut bytes: &[u8]) -> Result<Vec<Self>, String> {
        let mut answers = Vec::new();
        while !bytes.is_empty() {
            let first = first_answer(bytes);
            let (answer, length) = first
                .ok_or_else(|| format!("half an answer: {:?}", String::from_utf8_lossy(bytes)))?;
            bytes = &bytes[length..];
            answers.push(answer);
        }
        Ok(answers)
    }

    /// The body as JSON.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.body))
    }

    /// A member of the body that is a text, as it is written there.
    pub fn text(&self, name: &str) -> &str {
        let (_, rest) = self
            .body
            .split_once(&format!("\"{name}\":\""))
            .unwrap_or_else(|| panic!("no {name}: {}", self.body));
        let mut is_escaped = false;
        let end = rest.find(|c| {
            let is_end = c == '"' && !is_escaped;
            is_escaped = c == '\\' && !is_escaped;
            is_end
        });
        &rest[..end.unwrap()]
    }

    /// The value of a metric, where this is a page of them: a count, or whole seconds. The name has its labels as they
    /// are printed. A series with labels is 0 until it is there; one without them is always there.
    pub fn metric(&self, name: &str) -> u64 {
        let mut lines = self.body.lines();
        match lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')) {
            Some(value) => {
                let (whole, _) = value.split_once('.').unwrap_or((value, ""));
                whole
                    .parse()
                    .unwrap_or_else(|error| panic!("{error}: {name} {value}"))
            }
            None if name.ends_with('}') => 0,
            None => panic!("no {name} in:\n{}", self.body),
        }
    }

    /// The other listeners give no request an id.
    pub(super) fn is_of_the_api(&self) -> bool {
        self.headers.contains_key("x-request-id")
    }

    /// A header, the empty text if it is not there.
    pub fn header(&self, name: &str) -> &str {
        self.headers
            .get(name)
            .map_or("", |value| value.to_str().unwrap())
    }
}

/// The answer at the start of these bytes and its length; `None` while it is not whole.
pub(super) fn first_answer(bytes: &[u8]) -> Option<(Answer, usize)> {
    let mut fields = [httparse::EMPTY_HEADER; 64];
    let mut head = httparse::Response::new(&mut fields);
    let shown = || String::from_utf8_lossy(bytes).into_owned();
    let start = match head
        .parse(bytes)
        .unwrap_or_else(|error| panic!("no answer: {error}: {}", shown()))
    {
        httparse::Status::Complete(start) => start,
        httparse::Status::Partial => return None,
    };
    let status = head.code.unwrap();
    let mut response = Response::builder().status(status);
    for field in head.headers.iter() {
        response = response.header(field.name, field.value);
    }
    let length = match response.headers_ref().unwrap().get("content-length") {
        Some(length) => length.to_str().unwrap().parse().unwrap(),
        None if matches!(status, 100..200 | 204 | 304) => 0,
        None => panic!("an answer without a length: {}", shown()),
    };
    let body = bytes.get(start..start + length)?;
    let answer = Answer::of(response.body(Bytes::copy_from_slice(body)).unwrap());
    // What was asked is not known here.
    if answer.is_of_the_api()
        && let Err(fault) = DOCUMENT.some_answer(&answer)
    {
        panic!("openapi.json does not describe this answer to anything: {fault}");
    }
    Some((answer, start + length))
}

/// Fails the test if `/openapi.json` does not know this answer to this request. What it says of a start depends on how
/// the sidecar is configured: where the usual one does not fit, its own is asked for.
pub(super) async fn is_described(
    method: &Method,
    target: &str,
    headers: &hyper::HeaderMap,
    body: &str,
    answer: &Answer,
    own: impl AsyncFnOnce() -> Answer,
) {
    if let Err(fault) = DOCUMENT.answer(method, target, answer) {
        panic!("openapi.json does not describe this answer to {method} {target}: {fault}");
    }
    if answer.status < 400
        && DOCUMENT.request(method, target, headers, body).is_err()
        && let Err(fault) = Document::new(own().await.json()).request(method, target, headers, body)
    {
        panic!(
            "openapi.json does not describe this request, and it was granted: {method} {target}: {fault}"
        );
    }
}

/// Server-sent events, read as a client of theirs reads them.
pub struct Stream {
    pub(super) target: String,
    pub status: u16,
    pub headers: hyper::HeaderMap,
    /// When to come back after the end, in milliseconds, as it was said last. It is the stream's, not its event's.
    pub retry: String,
    pub(super) body: BodyDataStream<UnsyncBoxBody<Bytes, Box<dyn std::error::Error + Send + Sync>>>,
    pub(super) read: String,
}

impl Stream {
    /// The blocks of a body in chunks, of which none is cut in two.
    pub fn blocks(body: &str) -> Vec<Block> {
        let is_size =
            |line: &&str| !line.is_empty() && line.bytes().all(|byte| byte.is_ascii_hexdigit());
        let lines: Vec<_> = body.split("\r\n").filter(|line| !is_size(line)).collect();
        lines
            .concat()
            .split_terminator("\n\n")
            .map(Block::parse)
            .collect()
    }

    /// The next block, whatever it is; `None` at the end.
    pub async fn block(&mut self) -> Option<Block> {
        loop {
            if let Some((block, rest)) = self.read.split_once("\n\n") {
                let mut block = Block::parse(block);
                self.read = rest.to_owned();
                self.take_retry(&mut block);
                return Some(block);
            }
            match self.body.next().await {
                Some(bytes) => self
                    .read
                    .push_str(std::str::from_utf8(&bytes.expect("a good body")).expect("UTF-8")),
                None => {
                    assert!(
                        self.read.is_empty(),
                        "half a block at the end: {}",
                        self.read
                    );
                    return None;
                }
            }
        }
    }

    /// The next event with data, where the other side may be killed at any moment: half a block is none.
    pub async fn event_before_the_end(&mut self) -> Option<Block> {
        loop {
            while let Some((block, rest)) = self.read.split_once("\n\n") {
                let block = Block::parse(block);
                self.read = rest.to_owned();
                if !block.data.is_empty() {
                    return Some(block);
                }
            }
            let bytes = self.body.next().await?.ok()?;
            self.read.push_str(std::str::from_utf8(&bytes).ok()?);
        }
    }

    /// Some clients take a block without data and comment for an event.
    fn take_retry(&mut self, block: &mut Block) {
        assert!(
            !block.data.is_empty() || !block.comment.is_empty(),
            "neither an event nor a comment: {block:?}"
        );
        assert!(
            !block.retry.is_empty() || !self.retry.is_empty(),
            "the first block does not say when to come back: {block:?}"
        );
        if !block.retry.is_empty() {
            self.retry = std::mem::take(&mut block.retry);
        }
    }

    /// The next event with data, as a client is told of it; `None` at the end.
    pub async fn event(&mut self) -> Option<Block> {
        loop {
            let block = self.block().await?;
            if !block.data.is_empty() {
                if let Err(fault) = DOCUMENT.event(&self.target, &block) {
                    panic!("openapi.json does not describe this event: {fault}");
                }
                return Some(block);
            }
        }
    }
}

/// One block of a stream: the values of its fields, empty where a field is not there.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Block {
    pub event: String,
    pub id: String,
    pub data: String,
    pub retry: String,
    pub comment: String,
}

impl Block {
    /// The data as JSON.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.data).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// One block, without the empty line after it.
    pub fn parse(text: &str) -> Self {
        let mut block = Self::default();
        for line in text.lines() {
            let (name, value) = line
                .split_once(':')
                .unwrap_or_else(|| panic!("not a field: {line}"));
            let field = match name {
                "event" => &mut block.event,
                "id" => &mut block.id,
                "data" => &mut block.data,
                "retry" => &mut block.retry,
                "" => &mut block.comment,
                _ => panic!("no field of a stream: {line}"),
            };
            assert!(field.is_empty(), "twice: {text}");
            value.strip_prefix(' ').unwrap_or(value).clone_into(field);
        }
        block
    }
}
