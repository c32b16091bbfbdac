//! Typed requests of any signal as one tree, to and fro.

use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{InstrumentationScope, KeyValue};
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::resource::v1::Resource;
use prost::Message;
use std::collections::BTreeMap;

use crate::pdata::Signal;
use crate::processors::edit::Level;

/// A resource, scope, metric or item.
#[derive(Debug, Clone)]
pub(super) struct Node {
    pub(super) level: Level,
    /// Which one it was in the message above it.
    at: usize,
    pub(super) attrs: Vec<KeyValue>,
    pub(super) name: String,
    pub(super) kind: String,
    pub(super) severity: String,
    /// Scratch labels set at this node.
    pub(super) scratch: BTreeMap<String, String>,
    pub(super) children: Vec<Node>,
    held: bool,
}

impl Node {
    pub(super) fn new(level: Level, at: usize, attrs: Vec<KeyValue>, children: Vec<Node>) -> Node {
        let held = !children.is_empty();
        let (name, kind, severity) = Default::default();
        Node { level, at, attrs, name, kind, severity, scratch: BTreeMap::new(), children, held }
    }

    /// Takes out what has lost all it held; `false` if that is this node.
    pub(super) fn prune(&mut self) -> bool {
        self.children.retain_mut(Node::prune);
        !self.held || !self.children.is_empty()
    }
}

pub(super) fn read(signal: Signal, bytes: &[u8]) -> Vec<Node> {
    match signal {
        Signal::Traces => {
            let request = ExportTraceServiceRequest::decode(bytes).unwrap();
            nodes(&request.resource_spans, |at, group| {
                let scopes = nodes(&group.scope_spans, |at, scope| {
                    let items = nodes(&scope.spans, |at, span| {
                        let kinds = ["", "internal", "server", "client", "producer", "consumer"];
                        let kind = kinds.get(span.kind as usize).copied().unwrap_or_default().to_owned();
                        let node = Node::new(Level::Item, at, span.attributes.clone(), Vec::new());
                        Node { name: span.name.clone(), kind, ..node }
                    });
                    Node::new(Level::Scope, at, of_scope(&scope.scope), items)
                });
                Node::new(Level::Resource, at, of_resource(&group.resource), scopes)
            })
        }
        Signal::Logs => {
            let request = ExportLogsServiceRequest::decode(bytes).unwrap();
            nodes(&request.resource_logs, |at, group| {
                let scopes = nodes(&group.scope_logs, |at, scope| {
                    let items = nodes(&scope.log_records, |at, log| {
                        let severity = match log.severity_number {
                            _ if !log.severity_text.is_empty() => log.severity_text.clone(),
                            n @ 1..=24 => {
                                let name = ["TRACE", "DEBUG", "INFO", "WARN", "ERROR", "FATAL"]
                                    [(n as usize - 1) / 4];
                                let suffix = ["", "2", "3", "4"][(n as usize - 1) % 4];
                                format!("{name}{suffix}")
                            }
                            _ => String::new(),
                        };
                        let node = Node::new(Level::Item, at, log.attributes.clone(), Vec::new());
                        Node { name: log.event_name.clone(), severity, ..node }
                    });
                    Node::new(Level::Scope, at, of_scope(&scope.scope), items)
                });
                Node::new(Level::Resource, at, of_resource(&group.resource), scopes)
            })
        }
        Signal::Metrics => {
            let mut request = ExportMetricsServiceRequest::decode(bytes).unwrap();
            let groups = request.resource_metrics.iter_mut().enumerate();
            groups
                .map(|(at, group)| {
                    let scopes = group.scope_metrics.iter_mut().enumerate();
                    let scopes = scopes.map(|(at, scope)| {
                        let metrics = scope.metrics.iter_mut().enumerate();
                        let metrics = metrics.map(|(at, metric)| {
                            let mut points = Vec::new();
                            each_point(&mut metric.data, &mut |attrs| {
                                points.push(Node::new(Level::Item, points.len(), attrs.clone(), Vec::new()));
                                true
                            });
                            let kind = match metric.data {
                                Some(Data::Gauge(_)) => "gauge",
                                Some(Data::Sum(_)) => "sum",
                                Some(Data::Histogram(_)) => "histogram",
                                Some(Data::ExponentialHistogram(_)) => "exponential_histogram",
                                Some(Data::Summary(_)) => "summary",
                                None => "",
                            };
                            let node = Node::new(Level::Metric, at, Vec::new(), points);
                            Node { name: metric.name.clone(), kind: kind.to_owned(), ..node }
                        });
                        let metrics = metrics.collect();
                        Node::new(Level::Scope, at, of_scope(&scope.scope), metrics)
                    });
                    let scopes = scopes.collect();
                    Node::new(Level::Resource, at, of_resource(&group.resource), scopes)
                })
                .collect()
        }
    }
}

/// The request again, encoded, with what became of the nodes.
pub(super) fn write(signal: Signal, bytes: &[u8], nodes: &[Node]) -> Vec<u8> {
    match signal {
        Signal::Traces => {
            let mut request = ExportTraceServiceRequest::decode(bytes).unwrap();
            request.resource_spans = rebuilt(&request.resource_spans, nodes, |group, node| {
                group.resource.get_or_insert_default().attributes.clone_from(&node.attrs);
                group.scope_spans = rebuilt(&group.scope_spans, &node.children, |scope, node| {
                    scope.scope.get_or_insert_default().attributes.clone_from(&node.attrs);
                    scope.spans = rebuilt(&scope.spans, &node.children, |span, node| {
                        span.attributes.clone_from(&node.attrs);
                        span.name.clone_from(&node.name);
                    });
                });
            });
            request.encode_to_vec()
        }
        Signal::Logs => {
            let mut request = ExportLogsServiceRequest::decode(bytes).unwrap();
            request.resource_logs = rebuilt(&request.resource_logs, nodes, |group, node| {
                group.resource.get_or_insert_default().attributes.clone_from(&node.attrs);
                group.scope_logs = rebuilt(&group.scope_logs, &node.children, |scope, node| {
                    scope.scope.get_or_insert_default().attributes.clone_from(&node.attrs);
                    scope.log_records = rebuilt(&scope.log_records, &node.children, |log, node| {
                        log.attributes.clone_from(&node.attrs);
                        log.event_name.clone_from(&node.name);
                    });
                });
            });
            request.encode_to_vec()
        }
        Signal::Metrics => {
            let mut request = ExportMetricsServiceRequest::decode(bytes).unwrap();
            request.resource_metrics = rebuilt(&request.resource_metrics, nodes, |group, node| {
                group.resource.get_or_insert_default().attributes.clone_from(&node.attrs);
                group.scope_metrics = rebuilt(&group.scope_metrics, &node.children, |scope, node| {
                    scope.scope.get_or_insert_default().attributes.clone_from(&node.attrs);
                    scope.metrics = rebuilt(&scope.metrics, &node.children, |metric, node| {
                        metric.name.clone_from(&node.name);
                        let (mut at, mut left) = (0, node.children.iter().peekable());
                        each_point(&mut metric.data, &mut |attrs| {
                            at += 1;
                            let point = left.next_if(|point| point.at == at - 1);
                            point.is_some_and(|point| {
                                attrs.clone_from(&point.attrs);
                                true
                            })
                        });
                    });
                });
            });
            request.encode_to_vec()
        }
    }
}

/// The request decoded and encoded again; no resource or scope and an empty one are the same, and so are no value and an
/// empty one.
pub(super) fn normal(signal: Signal, bytes: &[u8]) -> Vec<u8> {
    let mut nodes = read(signal, bytes);
    fn fill(node: &mut Node) {
        for pair in &mut node.attrs {
            pair.value.get_or_insert_default();
        }
        node.children.iter_mut().for_each(fill);
    }
    nodes.iter_mut().for_each(fill);
    write(signal, bytes, &nodes)
}

fn nodes<T>(all: &[T], node: impl Fn(usize, &T) -> Node) -> Vec<Node> {
    all.iter().enumerate().map(|(at, one)| node(at, one)).collect()
}

fn rebuilt<T: Clone>(all: &[T], nodes: &[Node], mut edit: impl FnMut(&mut T, &Node)) -> Vec<T> {
    let one = |node: &Node| {
        let mut one = all[node.at].clone();
        edit(&mut one, node);
        one
    };
    nodes.iter().map(one).collect()
}

/// Shows the attributes of each data point and takes out those of which the function says so.
fn each_point(data: &mut Option<Data>, keep: &mut dyn FnMut(&mut Vec<KeyValue>) -> bool) {
    match data {
        Some(Data::Gauge(d)) => d.data_points.retain_mut(|p| keep(&mut p.attributes)),
        Some(Data::Sum(d)) => d.data_points.retain_mut(|p| keep(&mut p.attributes)),
        Some(Data::Histogram(d)) => d.data_points.retain_mut(|p| keep(&mut p.attributes)),
        Some(Data::ExponentialHistogram(d)) => d.data_points.retain_mut(|p| keep(&mut p.attributes)),
        Some(Data::Summary(d)) => d.data_points.retain_mut(|p| keep(&mut p.attributes)),
        None => {}
    }
}

fn of_resource(resource: &Option<Resource>) -> Vec<KeyValue> {
    resource.as_ref().map(|r| r.attributes.clone()).unwrap_or_default()
}

fn of_scope(scope: &Option<InstrumentationScope>) -> Vec<KeyValue> {
    scope.as_ref().map(|s| s.attributes.clone()).unwrap_or_default()
}
