//! What can only be seen in the file as a whole: references, signals, ports, the order of extensions. How pipelines
//! feed each other is in `connectors`.

mod clients;
mod connectors;

use std::collections::{HashMap, HashSet};

use super::node::{Node, Pos, Value};
use super::root::{ComponentPlan, Draft, Pipeline, PipelinePlan, Plan, Ref, article};
use super::{Cx, Diag, Severity, nearest};
use crate::components::Kind;

/// The kinds a pipeline names, in the order of [`Pipeline::refs`].
const ROLES: [Kind; 3] = [Kind::Receiver, Kind::Processor, Kind::Exporter];

/// Checks the draft and makes it a plan. The plan is only good if no error was reported.
pub(super) fn check(mut draft: Draft, cx: &mut Cx) -> Option<Plan> {
    sections(&draft, cx);
    for pipeline in &draft.pipelines {
        cx.push("service");
        cx.push("pipelines");
        cx.push(&pipeline.id);
        self::pipeline(pipeline, &draft, cx);
        (0..3).for_each(|_| cx.pop());
    }
    let order = connectors::connectors(&draft, cx);
    mark_used(&mut draft);
    let extensions = extensions(&draft, cx);
    authenticators(&draft, cx);
    clients::clients(&draft, cx);
    ports(&draft, cx);
    // Next to an error this is noise: the name that is not used may be the one that was misspelt.
    if cx.diags.iter().all(|d| d.severity != Severity::Error) {
        unused(&draft, cx);
    }
    let names = |refs: &[Ref]| {
        let mut seen = HashSet::new();
        refs.iter().filter(|r| seen.insert(r.id.as_str())).map(|r| r.id.clone()).collect::<Vec<_>>()
    };
    let plan = |p: &Pipeline| {
        let [receivers, processors, exporters] = &p.refs;
        PipelinePlan {
            id: p.id.clone(),
            signal: p.signal,
            receivers: names(receivers),
            processors: names(processors),
            exporters: names(exporters),
            pos: p.pos,
        }
    };
    let pipelines = draft.pipelines.iter().map(plan).collect();
    Some(Plan {
        components: draft.components,
        pipelines,
        order: order?,
        extensions: extensions?,
        telemetry: draft.telemetry,
    })
}

fn sections(draft: &Draft, cx: &mut Cx) {
    let has = |kind| {
        draft.broken.contains(&kind)
            || draft.components.iter().any(|c| c.kind == kind)
            || draft.unknown.iter().any(|(k, _)| *k == kind)
    };
    for kind in [Kind::Receiver, Kind::Exporter] {
        if !has(kind) {
            let message = format!("no {} configuration specified in config", kind.name());
            cx.within(kind.section(), |cx| {
                cx.error_hint(draft.root, message, format!("add {}:", kind.section()))
            });
        }
    }
    if draft.pipelines.is_empty() && !cx.diags.iter().any(|d| d.path.starts_with("service::pipelines::")) {
        cx.within("service", |cx| {
            cx.within("pipelines", |cx| {
                cx.error_hint(
                    draft.root,
                    "service must have at least one pipeline",
                    "add service: pipelines: with traces:, metrics: or logs:",
                );
            });
        });
    }
}

fn pipeline(pipeline: &Pipeline, draft: &Draft, cx: &mut Cx) {
    for ((role, refs), misspelt) in ROLES.into_iter().zip(&pipeline.refs).zip(pipeline.misspelt) {
        if refs.is_empty() && role != Kind::Processor && !misspelt {
            cx.error_hint(
                pipeline.pos,
                format!("must have at least one {}", role.name()),
                format!("add {}: [...] to the pipeline", role.section()),
            );
        }
        let mut seen: HashMap<&str, Pos> = HashMap::new();
        for (i, reference) in refs.iter().enumerate() {
            cx.push(role.section());
            cx.push(&i.to_string());
            if role == Kind::Processor {
                if let Some(first) = seen.insert(&reference.id, reference.pos) {
                    cx.twice(
                        reference.pos,
                        format!("references processor \"{}\" multiple times", reference.id),
                        first,
                    );
                }
                let found = component(draft, role, &reference.id);
                if i > 0 && found.is_some_and(|c| c.component.name == "memory_limiter") {
                    let message = "memory_limiter works best as the first processor".to_owned();
                    cx.report(Severity::Note, reference.pos, message, None);
                }
            }
            resolve(role, reference, pipeline, draft, cx);
            cx.pop();
            cx.pop();
        }
    }
}

fn resolve(role: Kind, reference: &Ref, pipeline: &Pipeline, draft: &Draft, cx: &mut Cx) {
    let id = reference.id.as_str();
    let found = match role {
        Kind::Receiver | Kind::Exporter => {
            component(draft, role, id).or_else(|| component(draft, Kind::Connector, id))
        }
        _ => component(draft, role, id),
    };
    if let Some(found) = found {
        let signals = found.component.signals;
        if !signals.contains(&pipeline.signal) {
            let message =
                format!("the {} \"{id}\" does not support {}", found.kind.name(), pipeline.signal.name());
            let names: Vec<&str> = signals.iter().map(|s| s.name()).collect();
            cx.error_hint(reference.pos, message, format!("it supports {}", names.join(", ")));
        }
        return;
    }
    let either = role != Kind::Processor && cannot_tell(draft, Kind::Connector, id);
    if either || cannot_tell(draft, role, id) {
        return;
    }
    let message = format!("references {} \"{id}\" which is not configured", role.name());
    cx.error_hint(reference.pos, message, not_configured(role, id, draft));
}

/// What to do about an id that is not defined.
fn not_configured(kind: Kind, id: &str, draft: &Draft) -> String {
    let fits = |k| k == kind || (k == Kind::Connector && matches!(kind, Kind::Receiver | Kind::Exporter));
    let defined: Vec<&str> =
        draft.components.iter().filter(|c| fits(c.kind)).map(|c| c.id.as_str()).collect();
    if let Some(near) = nearest(id, &defined) {
        return format!("did you mean \"{near}\"?");
    }
    match Kind::ALL.into_iter().find(|k| !fits(*k) && component(draft, *k, id).is_some()) {
        Some(other) => format!("\"{id}\" is {}, not {}", article(other), article(kind)),
        None if defined.is_empty() => format!("define it under {}:", kind.section()),
        None => format!("define it under {}:, or use one of: {}", kind.section(), defined.join(", ")),
    }
}

/// Whether an id that is not among the components may still be defined, in a way that has been reported.
fn cannot_tell(draft: &Draft, kind: Kind, id: &str) -> bool {
    draft.broken.contains(&kind) || draft.unknown.contains(&(kind, id.to_owned()))
}

fn component<'d>(draft: &'d Draft, kind: Kind, id: &str) -> Option<&'d ComponentPlan> {
    draft.components.iter().find(|c| c.kind == kind && c.id == id)
}

fn mark_used(draft: &mut Draft) {
    let mut used: HashSet<(Kind, String)> = HashSet::new();
    for pipeline in &draft.pipelines {
        for (role, refs) in ROLES.into_iter().zip(&pipeline.refs) {
            used.extend(refs.iter().map(|r| (role, r.id.clone())));
            if role != Kind::Processor {
                used.extend(refs.iter().map(|r| (Kind::Connector, r.id.clone())));
            }
        }
    }
    used.extend(draft.extensions.iter().map(|r| (Kind::Extension, r.id.clone())));
    for component in &mut draft.components {
        component.used = used.contains(&(component.kind, component.id.clone()));
    }
}

/// Resolves `service.extensions` and puts it in an order in which every extension follows those it refers to.
fn extensions(draft: &Draft, cx: &mut Cx) -> Option<Vec<String>> {
    let mut listed: HashMap<&str, &Ref> = HashMap::new();
    for reference in &draft.extensions {
        let id = reference.id.as_str();
        if component(draft, Kind::Extension, id).is_none() && !cannot_tell(draft, Kind::Extension, id) {
            let message = format!("references extension \"{id}\" which is not configured");
            let hint = not_configured(Kind::Extension, id, draft);
            report_at(cx, &reference.path, reference.pos, message, Some(hint));
        }
        listed.entry(id).or_insert(reference);
    }
    let mut order = Vec::new();
    let mut state: HashMap<&str, bool> = HashMap::new();
    for reference in &draft.extensions {
        if let Err(cycle) = visit(&reference.id, draft, &mut state, &mut order, &mut Vec::new()) {
            let message = format!("extensions refer to each other in a circle: {}", cycle.join(" -> "));
            let pos = component(draft, Kind::Extension, &reference.id).map_or(reference.pos, |c| c.pos);
            report_at(cx, &reference.path, pos, message, None);
            return None;
        }
    }
    order.retain(|id| listed.contains_key(id.as_str()));
    Some(order)
}

/// Depth first; `state` is false while an extension is being visited. The error is the circle.
fn visit<'d>(
    id: &'d str,
    draft: &'d Draft,
    state: &mut HashMap<&'d str, bool>,
    order: &mut Vec<String>,
    trail: &mut Vec<&'d str>,
) -> Result<(), Vec<&'d str>> {
    match state.get(id) {
        Some(true) => return Ok(()),
        Some(false) => {
            let start = trail.iter().position(|t| *t == id).unwrap_or_default();
            return Err(trail.iter().skip(start).copied().chain([id]).collect());
        }
        None => {}
    }
    state.insert(id, false);
    trail.push(id);
    if let Some(found) = component(draft, Kind::Extension, id) {
        for (_, target) in found.config.extension_refs() {
            if let Some(next) = component(draft, Kind::Extension, &target) {
                visit(&next.id, draft, state, order, trail)?;
            }
        }
    }
    trail.pop();
    state.insert(id, true);
    order.push(id.to_owned());
    Ok(())
}

/// References from components to extensions: defined, started, and able to do what they are asked.
fn authenticators(draft: &Draft, cx: &mut Cx) {
    let started: HashSet<&str> = draft.extensions.iter().map(|r| r.id.as_str()).collect();
    for user in draft.components.iter().filter(|c| c.used) {
        for (path, id) in user.config.extension_refs() {
            let full = format!("{}::{}::{path}", user.kind.section(), user.id);
            let pos = user.pos_of(path);
            let Some(target) = component(draft, Kind::Extension, &id) else {
                if !cannot_tell(draft, Kind::Extension, &id) {
                    let message = format!("references extension \"{id}\" which is not configured");
                    let hint = not_configured(Kind::Extension, &id, draft);
                    report_at(cx, &full, pos, message, Some(hint));
                }
                continue;
            };
            if !started.contains(id.as_str()) {
                let hint = format!("add \"{id}\" to service: extensions:");
                report_at(cx, &full, pos, format!("the extension \"{id}\" is not started"), Some(hint));
                continue;
            }
            let chained = path == "additional_auth";
            if !chained && !path.ends_with("authenticator") {
                continue;
            }
            // What an extension with mistakes would have been able to do cannot be known.
            let path = format!("extensions::{id}");
            let below =
                |d: &Diag| d.path.strip_prefix(&path).is_some_and(|p| p.is_empty() || p.starts_with(':'));
            if cx.diags.iter().any(|d| d.severity == Severity::Error && below(d)) {
                continue;
            }
            let sides = target.config.authenticates();
            let (able, what) = match user.kind {
                Kind::Extension if chained => (sides.client, "requests that we send"),
                // Any other extension that asks for an authenticator serves clients.
                Kind::Receiver | Kind::Extension => (sides.server, "clients that send to us"),
                Kind::Processor | Kind::Exporter | Kind::Connector => (sides.client, "requests that we send"),
            };
            if !able {
                let message = format!("the extension \"{id}\" cannot authenticate {what}");
                report_at(cx, &full, pos, message, None);
            }
        }
    }
}

/// No two listeners of components in use may want one port.
fn ports(draft: &Draft, cx: &mut Cx) {
    let reader = draft.telemetry.metrics.prometheus().map(|reader| {
        let path = "metrics::readers::0::pull::exporter::prometheus";
        let pos = deepest(&draft.telemetry_node, path);
        (reader.socket_text(), format!("service::telemetry::{path}::port"), pos)
    });
    let components = draft.components.iter().filter(|c| c.used).flat_map(|c| {
        c.config.listens().into_iter().map(move |(path, address)| {
            (address, format!("{}::{}::{path}", c.kind.section(), c.id), Some(c.pos_of(path)))
        })
    });
    let mut taken: Vec<(String, String, Option<Pos>)> = Vec::new();
    // A reader that is not written has no place: whoever collides with it does.
    for (address, path, pos) in reader.into_iter().chain(components) {
        if let Some((_, other, first)) = taken.iter().find(|(known, ..)| collide(known, &address)) {
            cx.diags.push(Diag {
                severity: Severity::Error,
                pos: pos.unwrap_or(draft.root),
                path: path.clone(),
                message: format!("{address} is already taken by {other}"),
                hint: Some("choose another port".to_owned()),
                related: first.map(|first| ("taken", first)),
            });
        }
        taken.push((address, path, pos));
    }
}

/// Whether two listeners cannot both be opened: the same port on the same or on all addresses.
fn collide(a: &str, b: &str) -> bool {
    if a.starts_with("unix:") || b.starts_with("unix:") {
        return a == b;
    }
    let (Some((host_a, port_a)), Some((host_b, port_b))) = (a.rsplit_once(':'), b.rsplit_once(':')) else {
        return false;
    };
    let every = |host: &str| matches!(host, "" | "0.0.0.0" | "[::]");
    let plain = |host: &str| match host {
        "127.0.0.1" | "[::1]" => "localhost".to_owned(),
        other => other.to_ascii_lowercase(),
    };
    port_a == port_b && port_a != "0" && (every(host_a) || every(host_b) || plain(host_a) == plain(host_b))
}

/// Where the deepest part of a path that is written stands.
fn deepest(node: &Node, path: &str) -> Option<Pos> {
    let (mut at, mut found) = (node, None);
    for segment in path.split("::") {
        let next = match &at.value {
            Value::Seq(items) => segment.parse::<usize>().ok().and_then(|i| items.get(i)).map(|n| (n.pos, n)),
            _ => at.entry(segment).map(|(key, n)| (key.pos, n)),
        };
        let Some((pos, next)) = next else { break };
        (at, found) = (next, Some(pos));
    }
    at.entry("port").map(|(_, n)| n.pos).or(found)
}

/// A component that nothing uses is worth knowing and no more: the Collector does not mind it either.
fn unused(draft: &Draft, cx: &mut Cx) {
    for component in draft.components.iter().filter(|c| !c.used) {
        let place = match component.kind {
            Kind::Extension => "service::extensions does not name it",
            _ => "no pipeline names it",
        };
        cx.diags.push(Diag {
            severity: Severity::Note,
            pos: component.pos,
            path: format!("{}::{}", component.kind.section(), component.id),
            message: format!("the {} \"{}\" is not used: {place}", component.kind.name(), component.id),
            hint: None,
            related: None,
        });
    }
}

fn report_at(cx: &mut Cx, path: &str, pos: Pos, message: String, hint: Option<String>) {
    cx.diags.push(Diag {
        severity: Severity::Error,
        pos,
        path: path.to_owned(),
        message,
        hint,
        related: None,
    });
}
