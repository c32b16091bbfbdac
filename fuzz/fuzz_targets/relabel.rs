//! Any rules on any request: what is left can be counted and is what was not dropped, the same in any pieces; rules that
//! say nothing about items leave them alone.
#![no_main]

use std::sync::Arc;
use std::time::Instant;

use libfuzzer_sys::fuzz_target;
use tidegate::config::{Config, Cx, Node};
use tidegate::pdata::{Batch, ClientInfo, Rope, Signal, Tenant, check, count};
use tidegate::pipeline::{Acks, BuildContext, Ledger, Stage};
use tidegate::processors::edit::{Applied, Program};
use tidegate::processors::relabel::{RelabelProcessorConfig, build};
use tidegate::telemetry::Metrics;
use tidegate_fuzz::Input;
use tidegate_fuzz::oracle::oracle;

fuzz_target!(|data: &[u8]| {
    // The rules as JSON up to the first zero, then the request.
    let at = data.iter().position(|b| *b == 0).unwrap_or(data.len());
    let (rules, rest) = data.split_at(at);
    let Some(input) = Input::new(rest.get(1..).unwrap_or_default()) else { return };
    let Ok(rules) = serde_json::from_slice::<serde_json::Value>(rules) else { return };
    let (mut config, mut cx) = (RelabelProcessorConfig::default(), Cx::default());
    config.decode_into(&Node::from_json(&serde_json::json!({ "rules": rules })), &mut cx);
    // Long lists of rules are slow and show nothing new.
    if !cx.diags.is_empty() || config.rules.len() > 16 {
        return;
    }
    let signal = input.signal;
    let context =
        BuildContext { id: "fuzz".to_owned(), metrics: Metrics::new(), ledger: Ledger::new(usize::MAX) };
    let Ok(Stage::Edit(edit)) = build(&config, signal, &context) else { return };
    let program = Program::new(signal, vec![edit]);
    let (out, items, applied) = run(&program, signal, Rope::from(input.request.to_vec()));
    assert!(applied.changed || out == input.request);
    if let Ok(before) = count(signal, input.request) {
        assert_eq!(count(signal, &out), Ok(items));
        assert_eq!(items + applied.dropped, before);
        assert_eq!(run(&program, signal, input.rope()), (out.clone(), items, applied.clone()));
    }
    if check(signal, input.request).is_ok() {
        assert_eq!(check(signal, &out), Ok(items));
        // Text that is UTF-8 stays so.
        if oracle(signal, input.request).is_ok() {
            assert_eq!(oracle(signal, &out), Ok(items));
        }
    }
});

fn run(program: &Program, signal: Signal, rope: Rope) -> (Vec<u8>, usize, Applied) {
    let items = count(signal, &rope.to_bytes()).unwrap_or_default();
    let mut batch = Batch {
        signal,
        rope,
        items,
        client: Arc::new(ClientInfo::default()),
        tenant: Some(Tenant::new("team")),
        demoted: false,
        received: Instant::now(),
        leases: Default::default(),
        acks: Acks::none(),
    };
    let applied = program.apply(&mut batch);
    (batch.rope.to_bytes().to_vec(), batch.items, applied)
}
