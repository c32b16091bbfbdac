//! Any bytes as metrics requests for remote write, in both versions, with caches of any size: every item is in a
//! request or dropped; every request is as the protocol wants it, keeps everything when it is cut, and says in the
//! older version what it says in the newer; memory stays bounded.
#![no_main]

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use libfuzzer_sys::fuzz_target;
use prost::Message;
use tidegate::exporters::delivery::sharded::{Report, ShardBody, ShardEncoder};
use tidegate::pdata::{Batch, ClientInfo, Rope, Signal, check, count};
use tidegate::pipeline::Acks;
use tidegate::prometheus::delta::Limits;
use tidegate::prometheus::map::{MapOptions, ResourceLabels};
use tidegate::prometheus::names::{Namer, TranslationStrategy};
use tidegate::prometheus::remote::{
    Counts, Exponential, Negotiation, OutOfOrder, RemoteEncoder, RemoteOptions, Version, WriteBody,
};

fuzz_target!(|data: &[u8]| {
    let [maps, rules, sizes, cut, requests @ ..] = data else { return };
    let (first, second) = requests.split_at(requests.len() * usize::from(*cut) / 256);
    // The first comes again at the end: late, repeated and known.
    let requests = [first, second, first];
    let run = |version| {
        let options = options(version, [*maps, *rules, *sizes]);
        let (same, cap) = (comparable(&options), options.cache_bytes);
        let mut encoder = RemoteEncoder::new(options);
        let mut all = Vec::new();
        for request in requests {
            encode(&mut encoder, request, &mut all);
            assert!(encoder.cache().bytes <= cap + (8 << 20), "{:?}", encoder.cache());
        }
        close(&mut encoder, &mut all);
        (same, all)
    };
    let (same, older) = run(Version::V1);
    let (_, newer) = run(Version::V2);
    if same {
        assert_eq!(older, newer);
    }
});

fn options(version: Version, [maps, rules, sizes]: [u8; 3]) -> RemoteOptions {
    let strategies = [
        TranslationStrategy::UnderscoreEscapingWithSuffixes,
        TranslationStrategy::UnderscoreEscapingWithoutSuffixes,
        TranslationStrategy::NoUtf8EscapingWithSuffixes,
        TranslationStrategy::NoTranslation,
    ];
    let resource_labels = match maps >> 4 & 3 {
        0 | 1 => ResourceLabels::None,
        2 => ResourceLabels::All { exclude_service: true },
        _ => ResourceLabels::Chosen { included: vec!["s*".to_owned()], excluded: Vec::new() },
    };
    let external = if maps & 64 != 0 { vec![("job".to_owned(), "external".to_owned())] } else { Vec::new() };
    let limits = Limits { max_streams: 20, max_stale: Duration::from_secs(300) };
    RemoteOptions {
        map: MapOptions {
            namer: Namer::new(strategies[usize::from(maps & 3)], if maps & 128 != 0 { "ns" } else { "" }),
            external_labels: external,
            resource_labels,
            target_info: maps & 4 != 0,
            scope_labels: maps & 8 != 0,
        },
        negotiation: Arc::new(Negotiation::new(version)),
        shards: 1 + usize::from(rules >> 6),
        max_bytes: if sizes & 15 == 15 { 3_000_000 } else { 1 + 256 * usize::from(sizes & 15) },
        cache_bytes: [0, 20_000, 1 << 20, 64 << 20][usize::from(sizes >> 4 & 3)],
        out_of_order: if rules & 1 != 0 { OutOfOrder::Keep } else { OutOfOrder::Drop },
        sample_age_limit: Duration::ZERO,
        exponential: if rules & 2 != 0 { Exponential::Classic } else { Exponential::Native },
        custom_buckets: rules & 4 != 0,
        keep_classic: rules & 12 == 12,
        metadata: sizes & 64 != 0,
        senders_wait: rules & 16 != 0,
        partition_keys: Vec::new(),
        delta: (rules & 32 != 0).then_some(limits),
    }
}

/// Whether both versions send the same series in the same order: custom buckets are for 2.0 alone, shards depend on
/// the encoder's own secret, what is remembered on how large labels are in the version, and what may come again on
/// which requests were closed, since here they are never delivered.
fn comparable(options: &RemoteOptions) -> bool {
    let remembers = options.cache_bytes >= 64 << 20
        || options.out_of_order == OutOfOrder::Keep && !options.map.target_info;
    !options.custom_buckets && options.shards == 1 && remembers && !options.senders_wait
}

fn encode(encoder: &mut RemoteEncoder, request: &[u8], all: &mut Vec<TimeSeries>) {
    let counted = count(Signal::Metrics, request);
    let batch = Batch {
        signal: Signal::Metrics,
        rope: Rope::from(request.to_vec()),
        items: counted.unwrap_or_default(),
        client: Arc::new(ClientInfo::default()),
        tenant: None,
        demoted: false,
        received: Instant::now(),
        leases: Default::default(),
        acks: Acks::none(),
    };
    let before = encoder.open_items();
    let mut report = Report::new(encoder.shards());
    encoder.encode(&batch, &mut report.output());
    let dropped: usize = report.dropped().iter().map(|(items, _)| items).sum();
    let mut told = dropped + report.open().iter().sum::<usize>();
    let mut sent = 0;
    for closed in report.take_closed() {
        told += closed.items.unwrap_or_default();
        sent += closed.body.items();
        assert!(closed.items.is_some() || closed.body.items() == 0);
        verify(closed.body, all);
    }
    assert_eq!(sent + encoder.open_items() + dropped, before + told);
    if let Ok(counted) = counted {
        assert!(told <= counted);
    }
    if let Ok(items) = check(Signal::Metrics, request) {
        assert_eq!(told, items, "a sound request is accounted for to the last item");
    }
    let mut report = Report::new(encoder.shards());
    encoder.tick(&mut report.output());
    for closed in report.take_closed() {
        assert_eq!((closed.items, closed.body.items()), (None, 0));
        WriteRequest::decode(closed.body.message().unwrap()).unwrap();
    }
}

fn close(encoder: &mut RemoteEncoder, all: &mut Vec<TimeSeries>) {
    for shard in 0..encoder.shards() {
        if let Some(body) = encoder.close(shard) {
            verify(body, all);
        }
        assert!(encoder.close(shard).is_none() && encoder.open_size(shard) == 0);
    }
    assert_eq!(encoder.open_items(), 0);
}

/// Looks at a request, and appends its series.
fn verify(body: WriteBody, all: &mut Vec<TimeSeries>) {
    let series = read(&body);
    let (items, mut pieces, mut counts) = (body.items(), Vec::new(), Counts::default());
    assert!(body.items_len() <= body.message().unwrap().len());
    cut(body, &mut pieces);
    assert!(items == 0 || pieces.len() == items);
    let mut left = Vec::new();
    for piece in &pieces {
        left.extend(read(piece));
        counts.samples += piece.counts().samples;
    }
    assert_eq!(left, series);
    assert_eq!(counts.samples, series.iter().map(|s| s.samples.len()).sum::<usize>());
    all.extend(series);
}

/// Cuts a request until each piece holds one item.
fn cut(body: WriteBody, out: &mut Vec<WriteBody>) {
    match body.halve() {
        Ok([first, second]) => {
            assert!(first.items() > 0 && second.items() - first.items() <= 1);
            cut(first, out);
            cut(second, out);
        }
        Err(whole) => {
            assert!(whole.items() <= 1);
            out.push(whole);
        }
    }
}

/// The series of a request, as those of 1.0.
fn read(body: &WriteBody) -> Vec<TimeSeries> {
    let message = body.message().unwrap();
    let series = match body.version() {
        Version::V1 => WriteRequest::decode(message).unwrap().timeseries,
        Version::V2 => {
            let request = Request::decode(message).unwrap();
            let same = request.timeseries.iter().map(|s| s.read(&request.symbols)).collect::<Vec<_>>();
            let distinct: HashSet<&String> = request.symbols.iter().collect();
            assert!(request.symbols[0].is_empty() && distinct.len() == request.symbols.len());
            let older =
                snap::raw::Decoder::new().decompress_vec(&body.to_v1(64 << 20).unwrap().unwrap()).unwrap();
            assert_eq!(WriteRequest::decode(older.as_slice()).unwrap().timeseries, same);
            same
        }
    };
    let mut counts = Counts::default();
    for one in &series {
        sound(&one.labels, true);
        assert!(one.samples.is_empty() != one.histograms.is_empty());
        counts.samples += one.samples.len();
        counts.histograms += one.histograms.len();
        counts.exemplars += one.exemplars.len();
        for exemplar in &one.exemplars {
            sound(&exemplar.labels, false);
            let runes = |l: &Label| l.name.chars().count() + l.value.chars().count();
            assert!(exemplar.labels.iter().map(runes).sum::<usize>() <= 128);
        }
        assert!(one.exemplars.windows(2).all(|w| w[0].timestamp <= w[1].timestamp));
        for sample in &one.samples {
            let bits = sample.bits;
            assert!(
                !f64::from_bits(bits).is_nan()
                    || [0x7ff0_0000_0000_0002, 0x7ff8_0000_0000_0001].contains(&bits)
            );
        }
    }
    assert_eq!(counts, body.counts());
    series
}

fn sound(labels: &[Label], named: bool) {
    assert!(labels.windows(2).all(|w| w[0].name.as_bytes() < w[1].name.as_bytes()), "{labels:?}");
    assert!(labels.iter().all(|l| !l.name.is_empty() && !l.value.is_empty()), "{labels:?}");
    if named {
        let reserved: Vec<&str> =
            labels.iter().map(|l| l.name.as_str()).filter(|n| n.starts_with("__")).collect();
        assert_eq!(reserved, ["__name__"], "{labels:?}");
    }
}

#[derive(Clone, PartialEq, prost::Message)]
struct WriteRequest {
    #[prost(message, repeated, tag = "1")]
    timeseries: Vec<TimeSeries>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct TimeSeries {
    #[prost(message, repeated, tag = "1")]
    labels: Vec<Label>,
    #[prost(message, repeated, tag = "2")]
    samples: Vec<Sample>,
    #[prost(message, repeated, tag = "3")]
    exemplars: Vec<Exemplar>,
    #[prost(message, repeated, tag = "4")]
    histograms: Vec<Histogram>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Label {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, tag = "2")]
    value: String,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Sample {
    #[prost(fixed64, tag = "1")]
    bits: u64,
    #[prost(int64, tag = "2")]
    timestamp: i64,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Exemplar {
    #[prost(message, repeated, tag = "1")]
    labels: Vec<Label>,
    #[prost(fixed64, tag = "2")]
    bits: u64,
    #[prost(int64, tag = "3")]
    timestamp: i64,
}

/// What the versions have in common. Doubles are bits, so that NaNs compare.
#[derive(Clone, PartialEq, prost::Message)]
struct Histogram {
    #[prost(uint64, tag = "1")]
    count: u64,
    #[prost(fixed64, tag = "3")]
    sum: u64,
    #[prost(sint32, tag = "4")]
    schema: i32,
    #[prost(fixed64, tag = "5")]
    zero_threshold: u64,
    #[prost(uint64, tag = "6")]
    zero_count: u64,
    #[prost(message, repeated, tag = "8")]
    negative_spans: Vec<Span>,
    #[prost(sint64, repeated, tag = "9")]
    negative_deltas: Vec<i64>,
    #[prost(message, repeated, tag = "11")]
    positive_spans: Vec<Span>,
    #[prost(sint64, repeated, tag = "12")]
    positive_deltas: Vec<i64>,
    #[prost(int64, tag = "15")]
    timestamp: i64,
    #[prost(fixed64, repeated, tag = "16")]
    custom_values: Vec<u64>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Span {
    #[prost(sint32, tag = "1")]
    offset: i32,
    #[prost(uint32, tag = "2")]
    length: u32,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Request {
    #[prost(string, repeated, tag = "4")]
    symbols: Vec<String>,
    #[prost(message, repeated, tag = "5")]
    timeseries: Vec<NewSeries>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct NewSeries {
    #[prost(uint32, repeated, tag = "1")]
    labels_refs: Vec<u32>,
    #[prost(message, repeated, tag = "2")]
    samples: Vec<Sample>,
    #[prost(message, repeated, tag = "3")]
    histograms: Vec<Histogram>,
    #[prost(message, repeated, tag = "4")]
    exemplars: Vec<NewExemplar>,
    #[prost(message, tag = "5")]
    metadata: Option<Metadata>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct NewExemplar {
    #[prost(uint32, repeated, tag = "1")]
    labels_refs: Vec<u32>,
    #[prost(fixed64, tag = "2")]
    bits: u64,
    #[prost(int64, tag = "3")]
    timestamp: i64,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Metadata {
    #[prost(uint32, tag = "1")]
    kind: u32,
    #[prost(uint32, tag = "3")]
    help_ref: u32,
    #[prost(uint32, tag = "4")]
    unit_ref: u32,
}

impl NewSeries {
    fn read(&self, symbols: &[String]) -> TimeSeries {
        let metadata = self.metadata.as_ref().expect("every series has metadata");
        assert!(metadata.kind <= 7);
        for at in [metadata.help_ref, metadata.unit_ref] {
            assert!((at as usize) < symbols.len());
        }
        let exemplar = |e: &NewExemplar| Exemplar {
            labels: labels(&e.labels_refs, symbols),
            bits: e.bits,
            timestamp: e.timestamp,
        };
        TimeSeries {
            labels: labels(&self.labels_refs, symbols),
            samples: self.samples.clone(),
            exemplars: self.exemplars.iter().map(exemplar).collect(),
            histograms: self.histograms.clone(),
        }
    }
}

fn labels(refs: &[u32], symbols: &[String]) -> Vec<Label> {
    assert_eq!(refs.len() % 2, 0);
    let get = |at: u32| symbols[at as usize].clone();
    refs.chunks(2).map(|pair| Label { name: get(pair[0]), value: get(pair[1]) }).collect()
}
