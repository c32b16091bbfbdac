//! The tests' own tools, against each other: a client and a backend that keep honest books without an agent in
//! between. What holds here is what the other tests may rely on.

mod support;

use std::time::Duration;

use support::load::{self, Target, Told};
use support::payload::{self, Template};
use support::sink::{Faults, Options, Sink};
use support::{Compression, Signal, grpc, sink};

fn everything(sink: &Sink, items: u64) -> load::Options {
    load::Options {
        targets: vec![Target::Grpc(sink.grpc), Target::Http(sink.http)],
        connections: 4,
        in_flight: 4,
        items_per_request: vec![1, 10, 100],
        signals: Signal::ALL.to_vec(),
        compressions: vec![Compression::None, Compression::Gzip, Compression::Zstd],
        items,
        max_backoff: Duration::from_millis(20),
        ..Default::default()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_faults_every_item_arrives_once() {
    let items = 20_000;
    let sink = Sink::start(Options { items, ..Default::default() }).await;
    let report = load::run(everything(&sink, items)).await;
    assert_eq!((report.sent, report.acknowledged, report.refused, report.unknown), (items, items, 0, 0));
    assert!((1..=items).all(|n| sink.ledger().stored(n) == 1));
    assert_eq!(sink.ledger().unknown(), 0);
    assert_eq!(sink.violations(), Vec::<String>::new());
    assert!(Signal::ALL.into_iter().all(|signal| sink.items_of(signal) > 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_faults_the_books_still_agree() {
    let items = 20_000;
    let sink = Sink::start(Options { items, ..Default::default() }).await;
    sink.set_faults(Faults {
        cut: 2,
        fail: (5, grpc::UNAVAILABLE),
        throttle: (5, Duration::from_millis(20)),
        lose_answer: 2,
        delay: (5, Duration::from_millis(20)),
        ..Default::default()
    });
    let mut options = everything(&sink, items);
    options.targets.truncate(1);
    options.retry_for = Duration::from_secs(60);
    let running = load::start(options);
    support::eventually(Duration::from_secs(30), "a part is through", || running.acknowledged() > items / 4)
        .await;
    sink.leave().await;
    assert!(std::net::TcpStream::connect(sink.grpc).is_err(), "a backend that is away accepts no connection");
    sink.come_back().await;
    let report = running.finish().await;
    assert_eq!((report.sent, report.acknowledged), (items, items), "{report:?}");
    assert!(!report.retryable.is_empty() && !report.broken.is_empty(), "no fault was injected");
    let ledger = sink.ledger();
    for n in 1..=items {
        assert_eq!(report.books.told(n), Told::Acknowledged);
        let (stored, excused) = (ledger.stored(n), 1 + ledger.unanswered(n));
        assert!(
            (1..=excused).contains(&stored),
            "item {n}: stored {stored} times, at most {excused} excused"
        );
    }
    assert!((1..=items).any(|n| ledger.stored(n) > 1), "no answer was lost");
}

#[tokio::test]
async fn a_hanging_backend_goes_on_where_it_stopped() {
    let sink = Sink::start(Options { items: 100, ..Default::default() }).await;
    sink.set_faults(Faults { hang: true, ..Default::default() });
    let mut options = everything(&sink, 100);
    options.targets.truncate(1);
    let running = load::start(options);
    support::eventually(Duration::from_secs(5), "a connection is open", || sink.connections() > 0).await;
    assert_eq!(sink.items(), 0);
    sink.set_faults(Faults::default());
    let report = running.finish().await;
    assert_eq!(report.acknowledged, 100);
    assert_eq!(sink.items(), 100);
}

#[tokio::test]
async fn refusals_are_told_apart() {
    let sink = Sink::start(Options { items: 10, ..Default::default() }).await;
    let cases = [
        (grpc::UNAVAILABLE, Target::Grpc(sink.grpc), "grpc 14", true),
        (grpc::RESOURCE_EXHAUSTED, Target::Grpc(sink.grpc), "grpc 8", false),
        (grpc::INTERNAL, Target::Grpc(sink.grpc), "grpc 13", false),
        (grpc::UNAVAILABLE, Target::Http(sink.http), "http 503", true),
        (grpc::RESOURCE_EXHAUSTED, Target::Http(sink.http), "http 429", true),
        (grpc::INTERNAL, Target::Http(sink.http), "http 500", false),
    ];
    for (status, target, what, retryable) in cases {
        sink.set_faults(Faults { fail: (100, status), ..Default::default() });
        let options = load::Options {
            targets: vec![target],
            in_flight: 1,
            items: 10,
            items_per_request: vec![10],
            retry_for: Duration::ZERO,
            ..Default::default()
        };
        let report = load::run(options).await;
        let (yes, no) = if retryable {
            (&report.retryable, &report.permanent)
        } else {
            (&report.permanent, &report.retryable)
        };
        assert!(yes.keys().next().is_some_and(|k| k.starts_with(what)), "{what}: {report:?}");
        assert!(no.is_empty(), "{what}: {report:?}");
        assert_eq!(report.books.told(1), Told::Refused);
    }
}

#[test]
fn counting_agrees_with_decoding() {
    for signal in Signal::ALL {
        for items in [1, 15, 16, 17, 512] {
            let mut body = Vec::new();
            Template::new(signal, items, 0).write(1, &mut body);
            assert_eq!(sink::count_items(signal, &body), items as u64);
        }
    }
}

#[test]
fn a_template_is_numbered_and_of_the_promised_size() {
    for (signal, want) in [(Signal::Traces, 500), (Signal::Logs, 500), (Signal::Metrics, 230)] {
        for items in [1, 10, 512] {
            let mut body = Vec::new();
            Template::new(signal, items, 3).write(1000, &mut body);
            let numbers: Vec<u64> = (1000..1000 + items as u64).collect();
            assert_eq!(payload::numbers(signal, &body).unwrap(), numbers);
        }
        let per_item = Template::new(signal, 512, 0).bytes() / 512;
        assert!(per_item.abs_diff(want) * 10 <= want, "{signal:?}: {per_item} bytes an item");
    }
}
