//! What components promise each other.
//!
//! Data moves by calls, not channels: a receiver's task runs the edits of its pipeline and offers the batch to
//! every exporter's queue before it returns. The answer travels back through [`super::Acks`].

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;

use super::runtime::Supervisor;
use super::{Ledger, Readiness};
use crate::net::auth::{ClientAuth, ServerAuth};
use crate::pdata::{Batch, Signal};
use crate::telemetry::Metrics;

/// Whatever takes batches: a pipeline's entry, one of its stages, a fan-out, an exporter.
pub trait Consumer: Send + Sync {
    /// Takes a batch. Never blocks and never awaits; the verdict goes through `batch.acks`.
    fn consume(&self, batch: Batch);

    /// Whether acknowledgements must be held until this consumer has resolved them: true when what it promises
    /// is more than memory (persistent queue, no queue) and while it has no room. A stage that buffers (such
    /// as `batch`) acknowledges at once only while this is false.
    fn holds_acks(&self) -> bool;
}

/// What a component may use while it runs. Cheap to clone.
#[derive(Clone)]
pub struct RunContext {
    /// Starts tasks; a task that panics turns readiness red.
    pub supervisor: Supervisor,
    /// The byte ledger.
    pub ledger: Arc<Ledger>,
    /// The agent's own metrics.
    pub metrics: Arc<Metrics>,
    /// Started extensions by id, for authenticators.
    pub extensions: Arc<HashMap<String, Arc<dyn Extension>>>,
    /// Where the agent is between start and stop, for health checks.
    pub readiness: Readiness,
}

impl RunContext {
    /// The server side of the authenticator `id`.
    ///
    /// # Errors
    /// When the extension is not running or cannot authenticate clients.
    pub fn server_auth(&self, id: &str) -> Result<Arc<dyn ServerAuth>, StartError> {
        self.extension(id)?
            .server_auth()
            .ok_or_else(|| StartError::new(format!("the extension \"{id}\" is not a server authenticator")))
    }

    /// The client side of the authenticator `id`.
    ///
    /// # Errors
    /// When the extension is not running or cannot authenticate requests.
    pub fn client_auth(&self, id: &str) -> Result<Arc<dyn ClientAuth>, StartError> {
        self.extension(id)?
            .client_auth()
            .ok_or_else(|| StartError::new(format!("the extension \"{id}\" is not a client authenticator")))
    }

    fn extension(&self, id: &str) -> Result<&Arc<dyn Extension>, StartError> {
        self.extensions.get(id).ok_or_else(|| {
            StartError::new(format!("failed to resolve authenticator \"{id}\": authenticator not found"))
        })
    }
}

/// Why a component could not start: a port in use, an unreadable certificate, a missing authenticator.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct StartError {
    message: String,
}

impl StartError {
    /// An error with one sentence for the user.
    pub fn new(message: impl Into<String>) -> Self {
        StartError { message: message.into() }
    }
}

/// A receiver's way out: the entry of the pipelines of each signal, or `None` where no pipeline uses it.
pub type Outputs = [Option<Arc<dyn Consumer>>; 3];

/// Takes telemetry in and hands it on. Owns its sockets.
#[async_trait]
pub trait Receiver: Send {
    /// Opens every port and starts serving. When this returns, clients can connect.
    ///
    /// # Errors
    /// Whatever keeps a port from opening; nothing is left running then.
    async fn start(&mut self, outputs: Outputs, cx: &RunContext) -> Result<(), StartError>;

    /// Stops intake: no new connections, no new requests; returns when every request read so far has its
    /// answer, at the latest at `deadline`.
    async fn stop(&mut self, deadline: Instant);
}

/// Regroups batches over time (such as `batch`). Pure: no I/O, no await, no clock but the one passed in.
pub trait Processor: Send {
    /// Takes a batch and emits what is ready. `hold` says whether acknowledgements must travel on with the
    /// data (see [`Consumer::holds_acks`]); when it is false the processor resolves them itself. Returns how many
    /// items it neither kept nor emitted, having answered or counted them.
    fn process(&mut self, now: Instant, batch: Batch, hold: bool, out: &mut Vec<Batch>) -> usize;

    /// Emits what is due at `now`, or everything when `all` is set.
    fn flush(&mut self, now: Instant, all: bool, out: &mut Vec<Batch>);

    /// When `flush` has to be called next.
    fn deadline(&self) -> Option<Instant>;

    /// How many items it keeps.
    fn held(&self) -> usize;
}

/// Tells apart what a batch holds: one batch in, several out, each with a tenant. Pure but for its own counters: no
/// I/O, no clock but the one passed in; called by many tasks at once.
pub trait Split: Send + Sync {
    /// Takes a batch and emits its parts. What it does not emit it has answered and counted.
    fn split(&self, now: Instant, batch: Batch, out: &mut Vec<Batch>) -> Gone;
}

/// What a stage has to find out before telemetry comes.
#[async_trait]
pub trait Prepare: Send + Sync {
    /// Finds it out. Called once extensions run, and once for each pipeline the stage is in.
    ///
    /// # Errors
    /// What it cannot do without.
    async fn start(&self, cx: &RunContext) -> Result<(), StartError>;
}

/// Items that a stage took and did not pass on.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Gone {
    /// Refused to their sender.
    pub refused: usize,
    /// Dropped, with a counted reason.
    pub dropped: usize,
}

/// A destination for one signal, with its queue and senders.
#[async_trait]
pub trait Exporter: Consumer {
    /// Starts senders. A destination that cannot be reached is no start error.
    ///
    /// # Errors
    /// Unreadable certificates, a missing authenticator, an unwritable path.
    async fn start(&self, cx: &RunContext) -> Result<(), StartError>;

    /// Called after intake has stopped and the pipelines are flushed: sends what is queued and returns when
    /// nothing is left, or at `deadline`; says what it could not deliver.
    async fn drain(&self, deadline: Instant) -> Leftover;
}

/// What an exporter could not deliver before its deadline.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Leftover {
    /// Items lost because they were only in memory.
    pub lost: u64,
    /// Items kept on disk for the next start.
    pub kept: u64,
}

/// A helper that is not on the data path: health checks, authenticators.
#[async_trait]
pub trait Extension: Send + Sync {
    /// Starts it. Extensions start before everything else and stop last.
    ///
    /// # Errors
    /// Whatever keeps it from doing its work.
    async fn start(&self, cx: &RunContext) -> Result<(), StartError>;

    /// Ends it.
    async fn stop(&self);

    /// Its server side once started, if it authenticates clients.
    fn server_auth(&self) -> Option<Arc<dyn ServerAuth>> {
        None
    }

    /// Its client side once started, if it authenticates requests.
    fn client_auth(&self) -> Option<Arc<dyn ClientAuth>> {
        None
    }
}

/// What a component's constructor is told. Constructors open nothing: `validate` runs them too.
#[derive(Clone)]
pub struct BuildContext {
    /// The component's id as the user wrote it, such as `otlp/2`.
    pub id: String,
    /// The agent's own metrics.
    pub metrics: Arc<Metrics>,
    /// The byte ledger.
    pub ledger: Arc<Ledger>,
}

/// What a processor's constructor returns.
pub enum Stage {
    /// Edits items in place; fused with its neighbours into one walk.
    Edit(crate::processors::edit::Edit),
    /// The same, with something to be found out before.
    Prepared(crate::processors::edit::Edit, Arc<dyn Prepare>),
    /// Tells tenants apart. The edit, if there is one, is fused with those that follow.
    Split(Box<dyn Split>, Option<crate::processors::edit::Edit>),
    /// Regroups batches.
    Regroup(Box<dyn Processor>),
    /// Lets everything pass and looks at it: a processor whose work is done elsewhere, as `memory_limiter`'s is
    /// done by the ledger.
    Observe(Box<dyn Fn(&Batch) + Send + Sync>),
}

/// How long shutdown may take when nothing else is said.
pub const DRAIN_BUDGET: Duration = Duration::from_secs(25);

/// The pipelines' entry for a signal, for tests and for telemetry of our own making.
pub fn output(outputs: &Outputs, signal: Signal) -> Option<&Arc<dyn Consumer>> {
    outputs.get(signal.index()).and_then(Option::as_ref)
}
