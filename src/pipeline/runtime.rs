//! Task supervision: no task runs unseen. A task that panics is logged, counted and turns readiness red.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::task::JoinHandle;

/// Starts tasks and remembers whether one of them died. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Supervisor(Arc<State>);

#[derive(Debug, Default)]
struct State {
    panicked: AtomicUsize,
}

impl Supervisor {
    /// Runs `task` on the current runtime. `name` appears in the log if it panics. The handle may be dropped:
    /// the task goes on.
    pub fn spawn<F>(&self, name: &'static str, task: F) -> JoinHandle<()>
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let guard = Guard { name: name.to_owned(), state: self.0.clone() };
        #[allow(clippy::disallowed_methods, reason = "the one place that spawns, under a guard")]
        tokio::spawn(async move {
            let _guard = guard;
            task.await;
        })
    }

    /// Runs blocking `work` on a thread of its own, under the same watch.
    ///
    /// # Errors
    /// When the system has no thread to give.
    pub fn thread(&self, name: &str, work: impl FnOnce() + Send + 'static) -> std::io::Result<()> {
        let guard = Guard { name: name.to_owned(), state: self.0.clone() };
        std::thread::Builder::new().name(name.to_owned()).spawn(move || {
            let _guard = guard;
            work();
        })?;
        Ok(())
    }

    /// How many tasks and threads have panicked since the start.
    pub fn panicked(&self) -> usize {
        self.0.panicked.load(Ordering::Relaxed)
    }
}

/// Notices a panic while it unwinds through the task.
struct Guard {
    name: String,
    state: Arc<State>,
}

impl Drop for Guard {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.state.panicked.fetch_add(1, Ordering::Relaxed);
            tracing::error!(task = self.name, "a task or thread panicked; the agent is no longer ready");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_panic_is_seen_in_tasks_and_threads() {
        let supervisor = Supervisor::default();
        supervisor.spawn("fine", async {}).await.unwrap();
        assert_eq!(supervisor.panicked(), 0);
        assert!(supervisor.spawn("broken", async { panic!("on purpose") }).await.is_err());
        assert_eq!(supervisor.panicked(), 1);
        let (tx, rx) = std::sync::mpsc::channel::<()>();
        supervisor.thread("broken", move || drop(tx)).unwrap();
        assert!(rx.recv().is_err());
        let (tx, rx) = tokio::sync::oneshot::channel::<()>();
        let seen = supervisor.clone();
        supervisor
            .thread("broken", move || {
                let _tx = tx;
                panic!("on purpose");
            })
            .unwrap();
        let _ = rx.await;
        // The thread lets go of its end while it unwinds, just before the guard counts.
        while seen.panicked() < 2 {
            tokio::task::yield_now().await;
        }
    }
}
