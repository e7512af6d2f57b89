//! Work that goes on when the caller that asked for it has gone, and whose result any number of callers wait for.

use std::future::Future;

use tokio::sync::watch;
use tokio_util::task::TaskTracker;

/// Starts tasks, and knows when none of them runs any more.
#[derive(Clone, Debug, Default)]
pub(crate) struct SharedTasks(TaskTracker);

/// One piece of work under way. Clones wait for the same result.
#[derive(Clone, Debug)]
pub(crate) struct SharedTask<T>(watch::Receiver<Option<T>>);

/// The other end of a [`SharedTask`]: whoever does the work holds it.
#[derive(Debug)]
pub(crate) struct Promise<T>(watch::Sender<Option<T>>);

/// A result to come, and the promise of it. A promise that is dropped counts as a crash of the work.
pub(crate) fn promise<T>() -> (Promise<T>, SharedTask<T>) {
    let (promise, task) = watch::channel(None);
    (Promise(promise), SharedTask(task))
}

/// The work panicked: there is no result, and never will be.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Crashed;

impl SharedTasks {
    /// Starts the work now. It ends by itself, whether anybody waits for it or not.
    pub(crate) fn launch<T: Clone + Send + Sync + 'static>(
        &self,
        work: impl Future<Output = T> + Send + 'static,
    ) -> SharedTask<T> {
        let (promise, task) = promise();
        // The task owns the promise: those who wait notice its end, in whatever way it comes.
        self.detach(async move { promise.keep(work.await) });
        task
    }

    /// Starts work now that keeps a promise by itself.
    pub(crate) fn detach(&self, work: impl Future<Output = ()> + Send + 'static) {
        // Spawned, because work that costs money is not to be cancelled with the wish for its answer.
        self.0.spawn(work);
    }

    /// Returns when no task runs any more.
    pub(crate) async fn idle(&self) {
        self.0.close();
        self.0.wait().await;
    }
}

impl<T> Promise<T> {
    /// Gives the result to all who wait for it.
    pub(crate) fn keep(self, result: T) {
        self.0.send_replace(Some(result));
    }
}

impl<T: Clone> SharedTask<T> {
    /// The result, for each who asks.
    ///
    /// # Errors
    /// [`Crashed`] if the work panicked.
    pub(crate) async fn result(mut self) -> Result<T, Crashed> {
        match self.0.wait_for(Option::is_some).await {
            Ok(result) => result.clone().ok_or(Crashed),
            Err(_) => Err(Crashed),
        }
    }

    /// Whether the task still runs.
    pub(crate) fn is_under_way(&self) -> bool {
        // The sender is dropped with the task.
        self.0.has_changed().is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_task_ends_without_waiters_and_a_crash_is_reported() {
        let tasks = SharedTasks::default();
        let (tell, told) = tokio::sync::oneshot::channel();
        drop(tasks.launch(async move { tell.send(1).is_ok() }));
        assert_eq!(told.await, Ok(1));
        let crash = tasks.launch(async { panic!("on purpose") });
        assert!(crash.clone().result().await.map(|(): ()| ()).is_err());
        assert!(!crash.is_under_way());
        tasks.idle().await;
    }
}
