//! An edited request holds as many items as before, decodes if it did, is the same whatever pieces it came
//! in, and is not changed again by actions that are done.
#![no_main]

use std::sync::{Arc, LazyLock};
use std::time::Instant;

use libfuzzer_sys::fuzz_target;
use tidegate::config::types::Any;
use tidegate::pdata::{Batch, ClientInfo, Rope, Signal, check, count};
use tidegate::pipeline::{Acks, BuildContext, Ledger, Stage};
use tidegate::processors::attributes::{self, AttributesProcessorConfig};
use tidegate::processors::edit::{Action, ActionKind, Applied, ConvertedType, Edit, Program};
use tidegate::processors::matching::{AttributeCriterion, MatchConfig, MatchType};
use tidegate::processors::resource::{self, ResourceProcessorConfig};
use tidegate::telemetry::Metrics;
use tidegate_fuzz::Input;
use tidegate_fuzz::oracle::oracle;

/// For each signal the programs of every choice of the processors below.
static PROGRAMS: LazyLock<[Vec<Program>; 3]> = LazyLock::new(|| {
    Signal::ALL.map(|signal| {
        let chosen = |mask: usize| {
            let edits = processors(signal).into_iter().enumerate();
            edits.filter(|(i, _)| mask & (1 << i) != 0).map(|(_, edit)| edit).collect()
        };
        (0..64).map(|mask| Program::new(signal, chosen(mask))).collect()
    })
});

/// Actions that leave nothing to do for a second run, unless keys stand twice.
static ONCE: LazyLock<[Program; 3]> = LazyLock::new(|| {
    Signal::ALL.map(|signal| {
        let actions = vec![put(ActionKind::Upsert, "a", Any::Int(7)), select(ActionKind::Delete, "^b")];
        Program::new(signal, vec![on_resource(actions.clone()), on_items(signal, actions, None)])
    })
});

fuzz_target!(|data: &[u8]| {
    let Some(input) = Input::new(data) else { return };
    let signal = input.signal;
    let program = &PROGRAMS[signal.index()][input.size % 64];
    let (out, applied) = run(program, signal, Rope::from(input.request.to_vec()));
    assert!(applied.changed || out == input.request);
    if let Ok(items) = count(signal, input.request) {
        assert_eq!(count(signal, &out), Ok(items));
        assert_eq!(run(program, signal, input.rope()), (out.clone(), applied.clone()));
    }
    if let Ok(items) = check(signal, input.request) {
        assert_eq!(applied.malformed, 0);
        assert_eq!(check(signal, &out), Ok(items));
        // An edit may take away what prost alone refuses, such as text that is not UTF-8; it never adds it.
        if let Ok(items) = oracle(signal, input.request) {
            assert_eq!(oracle(signal, &out), Ok(items));
        }
    }
    let once = &ONCE[signal.index()];
    let (first, applied) = run(once, signal, Rope::from(input.request.to_vec()));
    if applied.malformed == 0 {
        assert!(!run(once, signal, Rope::from(first)).1.changed);
    }
});

fn run(program: &Program, signal: Signal, rope: Rope) -> (Vec<u8>, Applied) {
    let mut batch = Batch {
        signal,
        rope,
        items: 0,
        client: Arc::new(ClientInfo::default()),
        tenant: None,
        demoted: false,
        received: Instant::now(),
        leases: Default::default(),
        acks: Acks::none(),
    };
    let applied = program.apply(&mut batch);
    (batch.rope.to_bytes().to_vec(), applied)
}

fn processors(signal: Signal) -> Vec<Edit> {
    let convert = Action {
        key: "a".to_owned(),
        action: Some(ActionKind::Convert),
        converted_type: Some(ConvertedType::Str),
        ..Default::default()
    };
    let copy = Action {
        key: "c".to_owned(),
        action: Some(ActionKind::Insert),
        from_attribute: "a".to_owned(),
        ..Default::default()
    };
    let mut extract = select(ActionKind::Extract, "(?P<b>.)(?P<d>.*)");
    extract.key = "a".to_owned();
    let include = MatchConfig {
        match_type: Some(MatchType::Regexp),
        resources: vec![AttributeCriterion { key: "a".to_owned(), value: Any::Str("[a-m]".to_owned()) }],
        ..Default::default()
    };
    vec![
        on_resource(vec![put(ActionKind::Upsert, "a", Any::Str("x".to_owned())), copy.clone()]),
        on_items(signal, vec![extract.clone(), select(ActionKind::Hash, "d")], None),
        on_items(signal, vec![put(ActionKind::Insert, "e", Any::Bool(true))], Some(include)),
        on_resource(vec![extract, select(ActionKind::Delete, "a")]),
        on_items(signal, vec![convert.clone(), copy], None),
        on_resource(vec![convert]),
    ]
}

fn put(kind: ActionKind, key: &str, value: Any) -> Action {
    Action { key: key.to_owned(), action: Some(kind), value, ..Default::default() }
}

fn select(kind: ActionKind, pattern: &str) -> Action {
    Action { action: Some(kind), pattern: pattern.to_owned(), ..Default::default() }
}

fn on_resource(attributes: Vec<Action>) -> Edit {
    edit(resource::build(&ResourceProcessorConfig { attributes }, Signal::Traces, &context()))
}

fn on_items(signal: Signal, actions: Vec<Action>, include: Option<MatchConfig>) -> Edit {
    edit(attributes::build(
        &AttributesProcessorConfig { actions, include, exclude: None },
        signal,
        &context(),
    ))
}

fn context() -> BuildContext {
    BuildContext { id: "fuzz".to_owned(), metrics: Metrics::new(), ledger: Ledger::new(usize::MAX) }
}

fn edit(stage: Result<Stage, String>) -> Edit {
    match stage.expect("a valid config") {
        Stage::Edit(edit) => edit,
        _ => unreachable!("an editing processor"),
    }
}
