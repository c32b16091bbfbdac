//! Whether what a processor asks about clients is known where it stands. Where it is not, nothing breaks: the
//! processor finds nothing, which is rarely what was meant.

use crate::components::{ClientFact, Kind};
use crate::config::root::{Draft, Pipeline};
use crate::config::{Cx, Diag, Severity};

use super::component;

/// Warns of questions that have no answer.
pub(super) fn clients(draft: &Draft, cx: &mut Cx) {
    let mut found: Vec<Diag> = Vec::new();
    for pipeline in &draft.pipelines {
        for diag in asked(pipeline, draft) {
            // A processor may stand in several pipelines.
            if !found.contains(&diag) {
                found.push(diag);
            }
        }
    }
    cx.diags.extend(found);
}

fn asked(pipeline: &Pipeline, draft: &Draft) -> Vec<Diag> {
    let [receivers, processors, _] = &pipeline.refs;
    let sources: Option<Vec<_>> = receivers.iter().map(|r| component(draft, Kind::Receiver, &r.id)).collect();
    // What comes out of another pipeline has been asked about there.
    let Some(sources) = sources else { return Vec::new() };
    let mut out = Vec::new();
    for (at, reference) in processors.iter().enumerate() {
        let Some(user) = component(draft, Kind::Processor, &reference.id) else { continue };
        for (path, fact) in user.config.asks_of_clients() {
            let before = processors.iter().take(at).filter_map(|r| component(draft, Kind::Processor, &r.id));
            let forgetful = before.into_iter().find(|c| !c.config.keeps_of_clients(&fact));
            let deaf = sources.iter().all(|s| !s.config.knows_of_clients(&fact));
            let (message, hint) = match (&fact, forgetful, deaf) {
                (_, _, true) => {
                    let (what, hint) = match fact {
                        ClientFact::Metadata(_) => {
                            ("the metadata of requests", "write include_metadata: true there")
                        }
                        ClientFact::Certificate => {
                            ("certificates of clients", "write tls: client_ca_file there")
                        }
                        ClientFact::Auth => ("who clients are", "write auth: authenticator there"),
                    };
                    let names: Vec<String> = receivers.iter().map(|r| format!("\"{}\"", r.id)).collect();
                    (format!("finds nothing: {} does not know {what}", names.join(", ")), hint.to_owned())
                }
                (_, Some(by), _) => (
                    format!("finds nothing: nothing of it is known behind \"{}\"", by.id),
                    format!("write \"{}\" before \"{}\" in the pipeline", user.id, by.id),
                ),
                _ => continue,
            };
            let full = format!("{}::{}::{path}", user.kind.section(), user.id);
            let pos = user.pos_of(&path);
            let (severity, hint) = (Severity::Warning, Some(hint));
            out.push(Diag { severity, pos, path: full, message, hint, related: None });
        }
    }
    out
}
