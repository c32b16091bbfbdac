//! The slow obvious answers, by prost, that tests and fuzz targets compare with.
//!
//! The fuzz crate includes this file by its path, so it needs nothing of the crate but `super::Signal`.

use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::metrics::v1::Metric;
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use prost::Message;

use super::Signal;

/// One item with what encloses it, each part encoded: resource, scope, metric, item. An envelope without
/// items stands for itself, with what it lacks left empty.
pub type Row = [Vec<u8>; 4];

/// How many items prost finds in a request, or why it refuses it.
pub fn oracle(signal: Signal, request: &[u8]) -> Result<usize, prost::DecodeError> {
    Ok(match signal {
        Signal::Traces => {
            let request = ExportTraceServiceRequest::decode(request)?;
            request.resource_spans.iter().flat_map(|g| &g.scope_spans).map(|s| s.spans.len()).sum()
        }
        Signal::Logs => {
            let request = ExportLogsServiceRequest::decode(request)?;
            request.resource_logs.iter().flat_map(|g| &g.scope_logs).map(|s| s.log_records.len()).sum()
        }
        Signal::Metrics => {
            let request = ExportMetricsServiceRequest::decode(request)?;
            let scopes = request.resource_metrics.iter().flat_map(|g| &g.scope_metrics);
            scopes.flat_map(|s| &s.metrics).map(points).sum()
        }
    })
}

/// As [`oracle`], without the reason.
pub fn oracle_count(signal: Signal, request: &[u8]) -> Option<usize> {
    oracle(signal, request).ok()
}

/// The request as a table, by prost: the canonical form in which two requests are compared.
pub fn rows(signal: Signal, request: &[u8]) -> Vec<Row> {
    let mut rows = Vec::new();
    match signal {
        Signal::Traces => {
            for mut group in ExportTraceServiceRequest::decode(request).unwrap().resource_spans {
                let scopes = std::mem::take(&mut group.scope_spans);
                let resource = group.encode_to_vec();
                or_empty(&mut rows, [resource.clone(), vec![], vec![], vec![]], scopes, |rows, mut scope| {
                    let items = std::mem::take(&mut scope.spans);
                    let row = [resource.clone(), scope.encode_to_vec(), vec![], vec![]];
                    or_empty(rows, row.clone(), items, |rows, item| {
                        rows.push(with(&row, item.encode_to_vec()))
                    });
                });
            }
        }
        Signal::Logs => {
            for mut group in ExportLogsServiceRequest::decode(request).unwrap().resource_logs {
                let scopes = std::mem::take(&mut group.scope_logs);
                let resource = group.encode_to_vec();
                or_empty(&mut rows, [resource.clone(), vec![], vec![], vec![]], scopes, |rows, mut scope| {
                    let items = std::mem::take(&mut scope.log_records);
                    let row = [resource.clone(), scope.encode_to_vec(), vec![], vec![]];
                    or_empty(rows, row.clone(), items, |rows, item| {
                        rows.push(with(&row, item.encode_to_vec()))
                    });
                });
            }
        }
        Signal::Metrics => {
            for mut group in ExportMetricsServiceRequest::decode(request).unwrap().resource_metrics {
                let scopes = std::mem::take(&mut group.scope_metrics);
                let resource = group.encode_to_vec();
                or_empty(&mut rows, [resource.clone(), vec![], vec![], vec![]], scopes, |rows, mut scope| {
                    let metrics = std::mem::take(&mut scope.metrics);
                    let scope = scope.encode_to_vec();
                    let row = [resource.clone(), scope.clone(), vec![], vec![]];
                    or_empty(rows, row, metrics, |rows, mut metric| {
                        let points = take_points(&mut metric.data);
                        let row = [resource.clone(), scope.clone(), metric.encode_to_vec(), vec![]];
                        or_empty(rows, row.clone(), points, |rows, point| rows.push(with(&row, point)));
                    });
                });
            }
        }
    }
    rows
}

fn points(metric: &Metric) -> usize {
    match &metric.data {
        Some(Data::Gauge(d)) => d.data_points.len(),
        Some(Data::Sum(d)) => d.data_points.len(),
        Some(Data::Histogram(d)) => d.data_points.len(),
        Some(Data::ExponentialHistogram(d)) => d.data_points.len(),
        Some(Data::Summary(d)) => d.data_points.len(),
        None => 0,
    }
}

fn or_empty<T>(rows: &mut Vec<Row>, row: Row, children: Vec<T>, mut each: impl FnMut(&mut Vec<Row>, T)) {
    if children.is_empty() {
        rows.push(row);
    }
    for child in children {
        each(rows, child);
    }
}

fn with(row: &Row, item: Vec<u8>) -> Row {
    let mut row = row.clone();
    row[3] = item;
    row
}

fn take_points(data: &mut Option<Data>) -> Vec<Vec<u8>> {
    fn encoded<T: Message>(points: &mut Vec<T>) -> Vec<Vec<u8>> {
        points.drain(..).map(|p| p.encode_to_vec()).collect()
    }
    match data {
        Some(Data::Gauge(d)) => encoded(&mut d.data_points),
        Some(Data::Sum(d)) => encoded(&mut d.data_points),
        Some(Data::Histogram(d)) => encoded(&mut d.data_points),
        Some(Data::ExponentialHistogram(d)) => encoded(&mut d.data_points),
        Some(Data::Summary(d)) => encoded(&mut d.data_points),
        None => vec![],
    }
}
