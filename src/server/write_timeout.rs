//! How long what there is for the other side may wait to be read.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::Sleep;

use crate::clock;

/// Longest that what there is for the other side waits to be read.
pub(super) const WRITE_TIMEOUT: Duration = Duration::from_secs(10);
/// What the other side has to take of what waits for it, or all of it, within [`WRITE_TIMEOUT`].
const ENOUGH: usize = 64 * 1024;

/// Runs while something waits for the other side to read. A new one takes its place when all is out.
#[derive(Default)]
pub(super) struct WriteTimeout {
    timer: Option<Pin<Box<Sleep>>>,
    /// Bytes taken since the timer runs.
    taken: usize,
}

impl WriteTimeout {
    /// What came of writing; `TimedOut` once the other side has been too slow. It has to take [`ENOUGH`], or all that
    /// there is, before the time starts anew, so that a byte now and then does not help it.
    pub(super) fn written(
        &mut self,
        cx: &mut Context<'_>,
        written: Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        if let Poll::Ready(Ok(bytes)) = written {
            self.taken += bytes;
            if self.taken >= ENOUGH {
                *self = Self::default();
            }
        }
        if written.is_pending() && self.timer.is_none() {
            *self = Self {
                timer: Some(Box::pin(clock::sleep(WRITE_TIMEOUT))),
                taken: 0,
            };
        }
        let is_over = self
            .timer
            .as_mut()
            .is_some_and(|timer| timer.as_mut().poll(cx).is_ready());
        if is_over {
            Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
        } else {
            written
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
    use tokio_util::sync::CancellationToken;

    use super::super::gate::Gate;
    use super::super::places::Places;
    use super::super::rejection::Verdicts;
    use super::super::{Hosts, Limits};
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    /// Writes an answer of that size to one who reads so much every second; says how long that took.
    async fn write(size: usize, each_second: usize) -> io::Result<Duration> {
        let (near, mut far): (DuplexStream, _) = duplex(1024);
        let limits = Limits {
            max_connections: 1,
            header_timeout: HOUR,
            idle_timeout: HOUR,
            hosts: Hosts::One,
        };
        let mut gate = Gate::new(
            near,
            limits,
            Arc::new(Places::new(1)).take(),
            Verdicts::default(),
            CancellationToken::new(),
        );
        let reader = tokio::spawn(async move {
            let mut bytes = vec![0; each_second];
            while far.read_exact(&mut bytes).await.is_ok() {
                clock::sleep(Duration::from_secs(1)).await;
            }
        });
        let began = clock::now();
        let written = async {
            gate.write_all(&vec![b'x'; size]).await?;
            gate.flush().await
        };
        let written = written.await;
        drop(gate);
        reader.await?;
        written.map(|()| clock::now() - began)
    }

    #[tokio::test(start_paused = true)]
    async fn who_reads_slowly_gets_all_of_it() {
        // Eight kibibytes a second are enough, for as long as it takes.
        let took = write(8 * 1024 * 100, 8 * 1024).await.expect("all of it");
        assert!(took > Duration::from_secs(90), "{took:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn who_reads_a_little_now_and_then_is_cut_off() {
        let error = write(1 << 20, 1024).await.expect_err("it is cut off");
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }
}
