//! Work that goes on when whoever asked for it has gone: one flight, any number of passengers.

use std::future::Future;

use tokio::sync::watch;
use tokio_util::task::TaskTracker;

/// Launches flights, and knows when none is in the air any more.
#[derive(Clone, Debug, Default)]
pub(crate) struct Airport(TaskTracker);

/// One piece of work under way. Clones wait for the same result.
#[derive(Clone, Debug)]
pub(crate) struct Flight<T>(watch::Receiver<Option<T>>);

/// The work panicked: there is no result, and never will be.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Crashed;

impl Airport {
    /// Starts the work now. It ends by itself, whether anybody waits for it or not.
    pub(crate) fn launch<T: Clone + Send + Sync + 'static>(
        &self,
        work: impl Future<Output = T> + Send + 'static,
    ) -> Flight<T> {
        let (done, flight) = watch::channel(None);
        // Spawned, because work that costs money is not to be cancelled with the wish for its answer. The task owns
        // the sender: who waits is told when it ends, in whatever way.
        self.0.spawn(async move {
            done.send_replace(Some(work.await));
        });
        Flight(flight)
    }

    /// Returns when nothing is in the air.
    pub(crate) async fn idle(&self) {
        self.0.close();
        self.0.wait().await;
    }
}

impl<T: Clone> Flight<T> {
    /// The result, for each who asks.
    ///
    /// # Errors
    /// [`Crashed`] if the work panicked.
    pub(crate) async fn landed(mut self) -> Result<T, Crashed> {
        match self.0.wait_for(Option::is_some).await {
            Ok(result) => result.clone().ok_or(Crashed),
            Err(_) => Err(Crashed),
        }
    }

    /// Still in the air.
    pub(crate) fn is_under_way(&self) -> bool {
        // The sender is dropped with the task.
        self.0.has_changed().is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_flight_lands_without_passengers_and_a_crash_is_told() {
        let airport = Airport::default();
        let (tell, told) = tokio::sync::oneshot::channel();
        drop(airport.launch(async move { tell.send(1).is_ok() }));
        assert_eq!(told.await, Ok(1));
        let crash = airport.launch(async { panic!("on purpose") });
        assert!(crash.clone().landed().await.map(|(): ()| ()).is_err());
        assert!(!crash.is_under_way());
        airport.idle().await;
    }
}
