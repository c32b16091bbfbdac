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
        let guard = Guard { name, state: self.0.clone() };
        #[allow(clippy::disallowed_methods, reason = "the one place that spawns, under a guard")]
        tokio::spawn(async move {
            let _guard = guard;
            task.await;
        })
    }

    /// How many tasks have panicked since the start.
    pub fn panicked(&self) -> usize {
        self.0.panicked.load(Ordering::Relaxed)
    }
}

/// Notices a panic while it unwinds through the task.
struct Guard {
    name: &'static str,
    state: Arc<State>,
}

impl Drop for Guard {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.state.panicked.fetch_add(1, Ordering::Relaxed);
            tracing::error!(task = self.name, "a task panicked; the agent is no longer ready");
        }
    }
}
