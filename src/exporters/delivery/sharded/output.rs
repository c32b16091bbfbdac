//! What an encoder says while it encodes: where each item went and which requests are closed.
//!
//! A [`Report`] knows nothing of the engine, so that an encoder can be tested, benched and fuzzed with one alone.

use super::ShardBody;

/// A request that was closed while encoding.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Closed<B> {
    /// Whose request it is.
    pub shard: usize,
    /// The request.
    pub body: B,
    /// How many items of the present batch it carries, besides those of earlier ones. `None` for an extra request,
    /// which carries no items and leaves the open one open.
    pub items: Option<usize>,
}

/// What an encoder reported of one batch.
#[derive(Debug)]
pub struct Report<B> {
    /// Items of the batch in the open request of each shard.
    pub(super) open: Vec<usize>,
    pub(super) closed: Vec<Closed<B>>,
    pub(super) dropped: Vec<(usize, &'static str)>,
}

/// Where an encoder reports to.
#[derive(Debug)]
pub struct Output<'a, B>(&'a mut Report<B>);

impl<B> Report<B> {
    /// An empty report for this many shards.
    pub fn new(shards: usize) -> Self {
        Report { open: vec![0; shards], closed: Vec::new(), dropped: Vec::new() }
    }

    /// To be written to by an encoder.
    pub fn output(&mut self) -> Output<'_, B> {
        Output(self)
    }

    /// Items reported for the open request of each shard.
    pub fn open(&self) -> &[usize] {
        &self.open
    }

    /// Requests closed, in order.
    pub fn closed(&self) -> &[Closed<B>] {
        &self.closed
    }

    /// Takes the closed requests out.
    pub fn take_closed(&mut self) -> Vec<Closed<B>> {
        std::mem::take(&mut self.closed)
    }

    /// Items dropped, with reasons.
    pub fn dropped(&self) -> &[(usize, &'static str)] {
        &self.dropped
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        self.open.fill(0);
        self.closed.clear();
        self.dropped.clear();
    }
}

impl<B: ShardBody> Output<'_, B> {
    /// One item of the batch has been appended to the shard's open request.
    #[inline]
    pub fn item(&mut self, shard: usize) {
        if let Some(items) = self.0.open.get_mut(shard) {
            *items += 1;
        }
    }

    /// The shard's open request has been closed; items reported from now on are in a new one.
    pub fn full(&mut self, shard: usize, body: B) {
        let items = self.0.open.get_mut(shard).map(std::mem::take).unwrap_or_default();
        self.0.closed.push(Closed { shard, body, items: Some(items) });
    }

    /// These items have no form in the protocol. Reasons come from a small fixed set.
    pub fn dropped(&mut self, items: usize, reason: &'static str) {
        self.0.dropped.push((items, reason));
    }

    /// A request without items, to be sent in the shard's line and booked as nothing. The open request stays open
    /// and comes after it.
    pub fn extra(&mut self, shard: usize, body: B) {
        self.0.closed.push(Closed { shard, body, items: None });
    }
}
