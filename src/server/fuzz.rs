//! The gate alone, for the programs in `tests/fuzz`: not a part of tillgate.

use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use tokio::io::{AsyncRead, ReadBuf};
use tokio_util::sync::CancellationToken;

use super::gate::Gate;
use super::places::Places;
use super::rejection::Verdicts;
use super::{Hosts, Limits};

/// What the gate makes of the bytes of a connection.
#[derive(Debug, PartialEq, Eq)]
pub struct LetThrough {
    /// What hyper gets.
    pub bytes: Vec<u8>,
    /// What each request in there is refused for.
    pub verdicts: Vec<Option<String>>,
    /// Something was wrong with the body that was being let through.
    pub broken: bool,
}

/// Lets a connection through that comes in these pieces and then ends.
pub fn gate<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> LetThrough {
    let limits = Limits {
        max_connections: 1,
        header_timeout: Duration::MAX,
        idle_timeout: Duration::MAX,
        hosts: Hosts::One,
    };
    let verdicts = Verdicts::default();
    let socket = Pieces(
        pieces
            .into_iter()
            .filter(|piece| !piece.is_empty())
            .collect(),
    );
    let mut gate = Gate::new(
        socket,
        limits,
        Arc::new(Places::new(1)).take(),
        verdicts.clone(),
        CancellationToken::new(),
    );
    let mut cx = Context::from_waker(Waker::noop());
    let (mut bytes, mut broken) = (Vec::new(), false);
    loop {
        let mut buffer = [0; 1024];
        let mut read = ReadBuf::new(&mut buffer);
        match Pin::new(&mut gate).poll_read(&mut cx, &mut read) {
            Poll::Ready(Ok(())) if !read.filled().is_empty() => {
                bytes.extend_from_slice(read.filled())
            }
            Poll::Ready(Err(_)) => broken = true,
            // The end, or nothing more is let through.
            Poll::Ready(Ok(())) | Poll::Pending => break,
        }
    }
    let verdicts = verdicts.lock().unwrap_or_else(PoisonError::into_inner);
    let verdicts = verdicts
        .iter()
        .map(|verdict| verdict.map(|rejection| format!("{rejection:?}")))
        .collect();
    LetThrough {
        bytes,
        verdicts,
        broken,
    }
}

/// A socket that gives one piece at each read, as far as there is room for it.
struct Pieces<'a>(VecDeque<&'a [u8]>);

impl AsyncRead for Pieces<'_> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        out: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if let Some(piece) = self.0.front_mut() {
            let (now, later) = piece.split_at(piece.len().min(out.remaining()));
            out.put_slice(now);
            *piece = later;
            if later.is_empty() {
                self.0.pop_front();
            }
        }
        Poll::Ready(Ok(()))
    }
}
