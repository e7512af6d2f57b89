//! Work that continues without the caller that asked for it, and whose result any number of callers can wait for.

use futures_util::FutureExt;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::task::TaskTracker;

/// Starts work on a task of its own.
///
/// Boxed, here and below, because tokio's part of a task is compiled twice for each kind of future.
pub(crate) fn spawn(work: impl Future<Output = ()> + Send + 'static) -> JoinHandle<()> {
    tokio::spawn(work.boxed())
}

/// Starts tasks, and waits for their end. Clones share the tasks.
#[derive(Clone, Debug, Default)]
pub(crate) struct SharedTasks(TaskTracker);

/// A task that was started. Clones wait for the same result.
#[derive(Debug)]
pub(crate) struct SharedTask<T>(watch::Receiver<Option<T>>);

impl<T> Clone for SharedTask<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

/// The other end of a [`SharedTask`], held by the work itself.
#[derive(Debug)]
pub(crate) struct Promise<T>(watch::Sender<Option<T>>);

/// Returns a result to come, and the promise of it. A promise that is dropped counts as a crash of the work.
pub(crate) fn promise<T>() -> (Promise<T>, SharedTask<T>) {
    let (promise, task) = watch::channel(None);
    (Promise(promise), SharedTask(task))
}

/// The task panicked, and has no result.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Crashed;

impl SharedTasks {
    /// Starts a task. It runs to its end whether or not a caller waits for it.
    pub(crate) fn launch<T: Clone + Send + Sync + 'static>(
        &self,
        work: impl Future<Output = T> + Send + 'static,
    ) -> SharedTask<T> {
        let (promise, task) = promise();
        // The task owns the promise, so callers notice its end even if it panics.
        self.detach(async move { promise.keep(work.await) });
        task
    }

    /// Starts work now that keeps its promise by itself.
    pub(crate) fn detach(&self, work: impl Future<Output = ()> + Send + 'static) {
        // Spawned, because a caller that hangs up must not cancel work that costs money.
        self.0.spawn(work.boxed());
    }

    /// Returns whether no task runs at this moment.
    pub(crate) fn is_idle(&self) -> bool {
        self.0.is_empty()
    }

    /// Waits until no task runs.
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
    /// Waits for the result.
    ///
    /// # Errors
    /// [`Crashed`] if the work panicked.
    pub(crate) async fn result(mut self) -> Result<T, Crashed> {
        match self.0.wait_for(Option::is_some).await {
            Ok(result) => result.clone().ok_or(Crashed),
            Err(_) => Err(Crashed),
        }
    }

    /// Returns whether the task is still running.
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
