//! What was seen before: resources and scopes, what decides a stream, streams, tenants.
//!
//! Everything is found by a keyed hash of raw bytes. When the cap is reached, all but the streams in use is forgotten,
//! between batches: refilling costs each stream one long way, after as many new ones as the cap holds.

use std::collections::HashMap;

use hashbrown::HashTable;
use xxhash_rust::xxh3::xxh3_64;

use super::LokiOptions;
use super::metadata::{Block, Metadata};
use super::names::Names;
use super::resolve::{Above, Place, Resolved, SERVICE_NAME};
use super::{check_tenant, labels::put_labels};
use crate::pdata;
use crate::pdata::wire::WireError;
use crate::prometheus::identity::Identity;

/// Seconds without an entry after which a stream is no longer counted: Loki's chunks are idle by then.
pub(super) const IDLE: i64 = 1800;

/// Tenants known at the same time.
const TENANTS: usize = 10_000;

/// Which stream a record belongs to.
#[derive(Debug)]
pub(super) struct Known {
    key: u128,
    pub end: Result<Found, &'static str>,
}

/// A stream and what its records need besides.
#[derive(Debug)]
pub(super) struct Found {
    pub stream: u32,
    /// Labels that are metadata.
    pub demoted: Option<Box<Block>>,
    /// Labels that were left out, and cut.
    pub dropped: u64,
    pub truncated: u64,
}

/// One stream.
#[derive(Debug)]
pub(super) struct Stream {
    pub labels: Box<str>,
    hash: u64,
    pub tenant: u32,
    pub shard: u32,
    /// Seconds since 1970 of the last entry.
    pub used: i64,
    /// Whether it is counted among its tenant's.
    pub active: bool,
    /// Its place in the open request with this stamp.
    pub slot: (u32, u32),
}

/// One tenant.
#[derive(Debug)]
pub(super) struct Tenant {
    pub id: Option<pdata::Tenant>,
    active: usize,
    /// Labels that have too many values.
    demoted: Vec<String>,
}

/// A label that a tenant has too many values of.
#[derive(Debug)]
pub(super) struct Guarded {
    pub tenant: Option<pdata::Tenant>,
    pub label: String,
    pub values: usize,
}

#[derive(Debug)]
pub(super) struct Cache {
    identity: Identity,
    cap: usize,
    aboves: Vec<Above>,
    above_table: HashTable<u32>,
    known: Vec<Known>,
    known_table: HashTable<u32>,
    pub streams: Vec<Stream>,
    stream_table: HashTable<u32>,
    pub tenants: Vec<Tenant>,
    /// Whose data has no tenant of its own: as configured, else the batch's.
    pub base: u32,
    tenant_table: HashMap<String, u32>,
    maker: Metadata,
    /// Bytes of what is above, and of what is known.
    bytes: usize,
    stream_bytes: usize,
    pub guarded: Vec<Guarded>,
    /// Seconds since 1970, as of the batch.
    pub now: i64,
    pub hits: u64,
    pub misses: u64,
}

impl Cache {
    pub fn new(options: &LokiOptions) -> Self {
        let mut cache = Cache {
            identity: Identity::new(),
            cap: options.cache_bytes,
            aboves: Vec::new(),
            above_table: HashTable::new(),
            known: Vec::new(),
            known_table: HashTable::new(),
            streams: Vec::new(),
            stream_table: HashTable::new(),
            tenants: Vec::new(),
            base: 0,
            tenant_table: HashMap::new(),
            maker: Metadata::unlimited(),
            bytes: 0,
            stream_bytes: 0,
            guarded: Vec::new(),
            now: 0,
            hits: 0,
            misses: 0,
        };
        cache.reset_tenants(options);
        cache
    }

    fn reset_tenants(&mut self, options: &LokiOptions) {
        self.tenant_table.clear();
        self.base = 0;
        let id = options.tenant.as_deref().map(pdata::Tenant::new);
        self.tenants = vec![Tenant { id, active: 0, demoted: Vec::new() }];
    }

    /// Begins a batch of a tenant.
    ///
    /// # Errors
    /// It is none that Loki takes.
    pub fn begin(&mut self, tenant: Option<&pdata::Tenant>) -> Result<(), &'static str> {
        self.base = 0;
        let configured = self.tenants.first().is_some_and(|tenant| tenant.id.is_some());
        self.base = self.tenant(tenant.filter(|_| !configured).map(pdata::Tenant::name))?;
        Ok(())
    }

    pub fn hash(&self, bytes: &[u8]) -> u128 {
        self.identity.hash(bytes)
    }

    /// Whether something must be forgotten.
    pub fn is_full(&self) -> bool {
        self.bytes > self.cap / 2 || self.stream_bytes > self.cap / 2
    }

    /// Whether tenants must be forgotten, and with them all the rest.
    pub fn has_many_tenants(&self) -> bool {
        self.tenants.len() > TENANTS
    }

    /// Forgets what was found under raw bytes; streams in use stay if there is room for them.
    pub fn forget(&mut self) {
        self.forget_keys();
        self.aboves.clear();
        self.above_table.clear();
        self.maker.forget();
        self.bytes = 0;
        if self.stream_bytes > self.cap / 4 {
            self.expire();
            self.streams.retain(|stream| stream.active);
            if self.streams.iter().map(Stream::held).sum::<usize>() > self.cap / 4 {
                self.streams.clear();
                self.tenants.iter_mut().for_each(|tenant| tenant.active = 0);
            }
            self.stream_bytes = self.streams.iter().map(Stream::held).sum();
            self.stream_table.clear();
            let streams = &self.streams;
            let rehash = |&at: &u32| streams.get(at as usize).map_or(0, |s| s.hash);
            for (at, stream) in streams.iter().enumerate() {
                self.stream_table.insert_unique(stream.hash, at as u32, rehash);
            }
        }
    }

    /// Forgets everything. No request may be open.
    pub fn forget_all(&mut self, options: &LokiOptions) {
        self.forget();
        self.streams.clear();
        self.stream_table.clear();
        self.stream_bytes = 0;
        self.reset_tenants(options);
    }

    /// Forgets which stream is found under what.
    fn forget_keys(&mut self) {
        self.known.clear();
        self.known_table.clear();
        self.aboves.iter_mut().for_each(|above| above.direct = None);
        self.bytes = self.aboves.iter().map(Above::held).sum();
    }

    /// Takes streams without recent entries out of the count.
    pub fn expire(&mut self) {
        let now = self.now;
        for stream in &mut self.streams {
            if stream.active && now - stream.used > IDLE {
                stream.active = false;
                if let Some(tenant) = self.tenants.get_mut(stream.tenant as usize) {
                    tenant.active = tenant.active.saturating_sub(1);
                }
            }
        }
    }

    /// What is under a hash, read if it is not known.
    pub fn above(
        &mut self,
        options: &LokiOptions,
        key: u128,
        place: &Place<'_>,
        hinted: bool,
        names: &mut Names,
    ) -> Result<u32, WireError> {
        let same = |&at: &u32| self.aboves.get(at as usize).is_some_and(|above| above.key == key);
        if let Some(&at) = self.above_table.find(key as u64, same) {
            return Ok(at);
        }
        let above = Above::read(options, key, place, hinted, names, &mut self.maker)?;
        let at = self.aboves.len() as u32;
        self.bytes += above.held();
        self.aboves.push(above);
        let aboves = &self.aboves;
        let rehash = |&at: &u32| aboves.get(at as usize).map_or(0, |above| above.key as u64);
        self.above_table.insert_unique(key as u64, at, rehash);
        Ok(at)
    }

    pub fn get_above(&self, at: u32) -> Option<&Above> {
        self.aboves.get(at as usize)
    }

    /// The stream that all records under it belong to, if that is known.
    #[inline]
    pub fn direct(&mut self, above: u32) -> Option<u32> {
        let at = self.aboves.get(above as usize)?.direct?;
        self.live(at)
    }

    /// What is known under a hash.
    #[inline]
    pub fn find(&mut self, key: u128) -> Option<u32> {
        let same = |&at: &u32| self.known.get(at as usize).is_some_and(|known| known.key == key);
        let at = *self.known_table.find(key as u64, same)?;
        self.live(at)
    }

    /// An entry whose stream is counted; one that no longer is takes the long way again.
    #[inline]
    fn live(&mut self, at: u32) -> Option<u32> {
        let live = match &self.known.get(at as usize)?.end {
            Ok(found) => self.streams.get(found.stream as usize).is_some_and(|stream| stream.active),
            Err(_) => true,
        };
        self.hits += u64::from(live);
        live.then_some(at)
    }

    pub fn known(&self, at: u32) -> Option<&Known> {
        self.known.get(at as usize)
    }

    /// The long way: finds or makes the stream of a record and remembers it.
    #[cold]
    pub fn make(
        &mut self,
        options: &LokiOptions,
        key: u128,
        above: u32,
        direct: bool,
        place: &Place<'_>,
        names: &mut Names,
    ) -> Result<u32, WireError> {
        self.misses += 1;
        let resolved = match self.aboves.get(above as usize) {
            Some(above) => above.resolve(options, place)?,
            None => Err("unencodable"),
        };
        let end = match resolved {
            Ok(resolved) => self.stream(options, resolved, names),
            Err(why) => Err(why),
        };
        let entry = Known { key, end };
        let held = match &entry.end {
            Ok(Found { demoted: Some(block), .. }) => block.held() + 128,
            _ => 64,
        };
        self.bytes += held;
        let same = |&at: &u32| self.known.get(at as usize).is_some_and(|known| known.key == key);
        let at = match self.known_table.find(key as u64, same) {
            Some(&at) => {
                if let Some(slot) = self.known.get_mut(at as usize) {
                    *slot = entry;
                }
                at
            }
            None => {
                let at = self.known.len() as u32;
                self.known.push(entry);
                let known = &self.known;
                let rehash = |&at: &u32| known.get(at as usize).map_or(0, |known| known.key as u64);
                self.known_table.insert_unique(key as u64, at, rehash);
                at
            }
        };
        if direct && let Some(above) = self.aboves.get_mut(above as usize) {
            above.direct = Some(at);
        }
        Ok(at)
    }

    fn stream(
        &mut self,
        options: &LokiOptions,
        mut resolved: Resolved,
        names: &mut Names,
    ) -> Result<Found, &'static str> {
        let tenant = self.tenant(resolved.tenant.take().as_deref())?;
        let demoted = self.tenants.get(tenant as usize).map(|t| t.demoted.clone()).unwrap_or_default();
        demoted.iter().for_each(|name| resolved.demote(name));
        resolved.complete();
        let mut at = self.activate(options, &resolved, tenant);
        if at.is_none() {
            // One label is metadata from now on; with none left the limit is passed.
            if let Some(label) = self.guard(tenant) {
                resolved.demote(&label);
                resolved.complete();
            }
            at = self.activate(options, &resolved, tenant);
        }
        let stream = match at {
            Some(at) => at,
            None => self.insert(options, &text(&resolved), tenant),
        };
        let demoted = (!resolved.demoted.is_empty()).then(|| {
            self.maker.begin(names);
            for (name, value) in &resolved.demoted {
                if let Some(id) = names.id(name.as_bytes())
                    && self.maker.claim(id)
                {
                    self.maker.put(names, id, value.as_bytes());
                }
            }
            Box::new(Block::of(&self.maker, names))
        });
        Ok(Found { stream, demoted, dropped: resolved.dropped, truncated: resolved.truncated })
    }

    /// The stream of these labels, if it is counted or may be.
    fn activate(&mut self, options: &LokiOptions, resolved: &Resolved, tenant: u32) -> Option<u32> {
        let labels = text(resolved);
        let hash = stream_hash(tenant, &labels);
        let same = |&at: &u32| {
            self.streams.get(at as usize).is_some_and(|s| s.tenant == tenant && *s.labels == *labels)
        };
        let found = self.stream_table.find(hash, same).copied();
        let counted = found.and_then(|at| self.streams.get(at as usize)).is_some_and(|s| s.active);
        if counted {
            return found;
        }
        let state = self.tenants.get_mut(tenant as usize)?;
        if options.limits.streams > 0 && state.active >= state.bound(options.limits.streams) {
            return None;
        }
        let Some(at) = found else { return Some(self.insert(options, &labels, tenant)) };
        state.active += 1;
        if let Some(stream) = self.streams.get_mut(at as usize) {
            stream.active = true;
            stream.used = self.now;
        }
        Some(at)
    }

    fn insert(&mut self, options: &LokiOptions, labels: &str, tenant: u32) -> u32 {
        let hash = stream_hash(tenant, labels);
        let same = |&at: &u32| {
            self.streams.get(at as usize).is_some_and(|s| s.tenant == tenant && *s.labels == *labels)
        };
        if let Some(state) = self.tenants.get_mut(tenant as usize) {
            state.active += 1;
        }
        if let Some(&at) = self.stream_table.find(hash, same) {
            if let Some(stream) = self.streams.get_mut(at as usize) {
                stream.active = true;
                stream.used = self.now;
            }
            return at;
        }
        let id =
            self.tenants.get(tenant as usize).and_then(|t| t.id.as_ref()).map_or("", pdata::Tenant::name);
        let placed = [id.as_bytes(), b"\xff", labels.as_bytes()].concat();
        let shard = (xxh3_64(&placed) % options.shards.max(1) as u64) as u32;
        let stream =
            Stream { labels: labels.into(), hash, tenant, shard, used: self.now, active: true, slot: (0, 0) };
        self.stream_bytes += stream.held();
        let at = self.streams.len() as u32;
        self.streams.push(stream);
        let streams = &self.streams;
        let rehash = |&at: &u32| streams.get(at as usize).map_or(0, |s| s.hash);
        self.stream_table.insert_unique(hash, at, rehash);
        at
    }

    /// Chooses the label with most values among a tenant's streams; it is metadata from now on.
    fn guard(&mut self, tenant: u32) -> Option<String> {
        let mut values: HashMap<String, std::collections::HashSet<u64>> = HashMap::new();
        for stream in self.streams.iter().filter(|s| s.active && s.tenant == tenant) {
            for (name, value) in super::labels::parse_labels(&stream.labels).unwrap_or_default() {
                values.entry(name).or_default().insert(xxh3_64(value.as_bytes()));
            }
        }
        let demoted = self.tenants.get(tenant as usize).map(|t| t.demoted.as_slice()).unwrap_or_default();
        let kept: Vec<&str> = demoted.iter().map(String::as_str).chain([SERVICE_NAME]).collect();
        let count = |(name, values): (String, std::collections::HashSet<u64>)| (values.len(), name);
        let (values, label) =
            values.into_iter().filter(|(name, _)| !kept.contains(&name.as_str())).map(count).max()?;
        // A label of one value makes no streams.
        if values < 2 {
            return None;
        }
        // Other keys of the tenant lead to streams with the label.
        self.forget_keys();
        let state = self.tenants.get_mut(tenant as usize)?;
        state.demoted.push(label.clone());
        self.guarded.push(Guarded { tenant: state.id.clone(), label: label.clone(), values });
        Some(label)
    }

    fn tenant(&mut self, id: Option<&str>) -> Result<u32, &'static str> {
        let Some(id) = id else { return Ok(self.base) };
        if let Some(&at) = self.tenant_table.get(id) {
            return Ok(at);
        }
        check_tenant(id).map_err(|_| "invalid_tenant")?;
        // By name or by default, it is one tenant.
        let default =
            self.tenants.first().and_then(|t| t.id.as_ref()).is_some_and(|known| known.name() == id);
        let at = if default { 0 } else { self.tenants.len() as u32 };
        if !default {
            self.tenants.push(Tenant { id: Some(pdata::Tenant::new(id)), active: 0, demoted: Vec::new() });
        }
        self.tenant_table.insert(id.to_owned(), at);
        Ok(at)
    }

    /// Streams in use, and bytes held.
    pub fn figures(&self) -> (usize, usize) {
        (self.tenants.iter().map(|t| t.active).sum(), self.bytes + self.stream_bytes)
    }
}

impl Tenant {
    /// The number of streams at which a label more becomes metadata. Loki counts the streams with the label on for a
    /// while, so that there must be room for those without it: a quarter of the limit, then an eighth, and so on.
    fn bound(&self, limit: usize) -> usize {
        limit - limit.checked_shr(self.demoted.len() as u32 + 2).unwrap_or(0)
    }
}

impl Stream {
    fn held(&self) -> usize {
        self.labels.len() + 96
    }
}

fn text(resolved: &Resolved) -> String {
    let mut out = String::new();
    put_labels(&resolved.labels, &mut out);
    out
}

fn stream_hash(tenant: u32, labels: &str) -> u64 {
    xxh3_64(labels.as_bytes()) ^ u64::from(tenant).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}
