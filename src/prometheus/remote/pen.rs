//! Writes the series of a point that has several.
//!
//! Nothing can go wrong here: what is begun is written whole. Costs: a copy of the labels for each series.

use super::Version;
use super::body::Step;
use super::cache::Symbols;
use super::families::{Known, Suffix};
use super::open::{Open, Sample};
use super::points::{End, Scratch, ordinary};
use super::series::Clash;
use crate::pdata::wire::put_bytes;
use crate::prometheus::exemplars::ExemplarText;
use crate::prometheus::native::STALE;

/// Writes the series of one point that differ in name suffix and one label.
pub(super) struct Pen<'e> {
    /// Labels before the name, between it and the one label, and after that.
    pub labels: [&'e [u8]; 3],
    pub known: &'e Known,
    pub open: &'e mut Open,
    pub symbols: &'e Symbols,
    pub version: Version,
    pub shard: usize,
    pub time: i64,
    pub start: i64,
    pub stale: bool,
    pub clash: Option<Clash<'e>>,
    /// Whether anything was written.
    pub any: bool,
}

impl Pen<'_> {
    /// Whether a series is this point's to write.
    fn is_mine(&mut self, parts: &[&[u8]]) -> bool {
        let mine = match &mut self.clash {
            Some(clash) => clash.is_first(self.version, self.symbols, parts, self.time),
            None => true,
        };
        self.any |= mine;
        mine
    }

    fn sample(&self, bits: u64) -> Sample {
        Sample { bits: if self.stale { STALE } else { bits }, time: self.time, start: self.start }
    }

    fn series(&mut self, name: &[u8], own: &[u8], bits: u64) {
        self.series_with(name, own, bits, &[], &mut Vec::new());
    }

    /// A series with exemplars, which are encoded into `extra`.
    fn series_with(
        &mut self,
        name: &[u8],
        own: &[u8],
        bits: u64,
        exemplars: &[ExemplarText],
        extra: &mut Vec<u8>,
    ) {
        let [first, second, third] = self.labels;
        let sample = self.sample(bits);
        let parts = [first, name, second, own, third];
        if !self.is_mine(&parts) {
            return;
        }
        extra.clear();
        for exemplar in exemplars {
            self.open.exemplar(self.symbols, exemplar, extra);
        }
        self.open.series(self.symbols, &parts, Some(sample), extra, self.known.meta);
    }

    pub fn classic(
        &mut self,
        count: u64,
        sum: Option<u64>,
        bounds: impl Iterator<Item = f64>,
        mut counts: impl Iterator<Item = u64>,
        scratch: &mut Scratch,
    ) {
        let known = self.known;
        if let Some(sum) = sum {
            self.series(known.name(Suffix::Sum), &[], ordinary(f64::from_bits(sum)));
        }
        self.series(known.name(Suffix::Count), &[], (count as f64).to_bits());
        let mut below = 0_u64;
        let mut exemplars = std::mem::take(&mut scratch.exemplars);
        let mut at = 0;
        for bound in bounds.take_while(|bound| *bound < f64::INFINITY) {
            // The label of a bound without a count is passed over.
            let block = known.bounds.block(at);
            at += 1;
            let Some(inside) = counts.next() else { continue };
            below = below.saturating_add(inside);
            let value = (below as f64).to_bits();
            self.series_with(
                known.name(Suffix::Bucket),
                block,
                value,
                exemplars.up_to(bound),
                &mut scratch.extra,
            );
        }
        self.series_with(
            known.name(Suffix::Bucket),
            known.bounds.block(at),
            (count as f64).to_bits(),
            exemplars.up_to(f64::INFINITY),
            &mut scratch.extra,
        );
        scratch.exemplars = exemplars;
    }

    pub fn native(&mut self, scratch: &mut Scratch) {
        let [first, second, third] = self.labels;
        let known = self.known;
        let parts = [first, &known.names[0], second, third];
        if !self.is_mine(&parts) {
            return;
        }
        let start = if self.version == Version::V2 { self.start } else { 0 };
        scratch.message.clear();
        scratch.native.encode(self.time, start, &mut scratch.message);
        let mut extra = std::mem::take(&mut scratch.extra);
        extra.clear();
        let number = if self.version == Version::V2 { 3 } else { 4 };
        put_bytes(&mut extra, number, &scratch.message);
        self.open.count_histogram();
        scratch.exemplars.sort_by_time();
        for exemplar in scratch.exemplars.all() {
            self.open.exemplar(self.symbols, exemplar, &mut extra);
        }
        self.open.series(self.symbols, &parts, None, &extra, known.meta);
        scratch.extra = extra;
        // The classic form may follow.
        scratch.exemplars.sort_by_value();
    }

    pub fn summary(&mut self, count: u64, sum: u64, values: impl Iterator<Item = u64>) {
        let known = self.known;
        self.series(known.name(Suffix::Sum), &[], ordinary(f64::from_bits(sum)));
        self.series(known.name(Suffix::Count), &[], (count as f64).to_bits());
        for (at, value) in values.enumerate() {
            self.series(&known.names[0], known.quantiles.block(at), value);
        }
    }

    pub fn end(self, step: Option<Step>) -> End {
        if !self.any {
            return Err("collision");
        }
        self.open.end_item(step);
        Ok(self.shard)
    }
}
