"""Emits what telemetry.json describes through the OpenTelemetry SDK for Python.

Usage: emit.py grpc|http/protobuf|http/json ENDPOINT
Prints one JSON object: the ids the SDK chose, and which optional things this SDK supports.
"""

import base64
import json
import pathlib
import sys

from opentelemetry import trace
from opentelemetry._logs import LogRecord, SeverityNumber
from opentelemetry.metrics import Observation
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import BatchLogRecordProcessor
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
from opentelemetry.sdk.metrics.view import ExponentialBucketHistogramAggregation, View
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import Link, NonRecordingSpan, SpanContext, SpanKind, Status, StatusCode, TraceFlags
from opentelemetry.trace.span import TraceState


def exporters(protocol, endpoint):
    if protocol == "grpc":
        from opentelemetry.exporter.otlp.proto.grpc._log_exporter import OTLPLogExporter
        from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import OTLPMetricExporter
        from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter

        made = [e(endpoint=endpoint, insecure=True) for e in (OTLPSpanExporter, OTLPMetricExporter, OTLPLogExporter)]
        return made
    if protocol == "http/protobuf":
        from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter
        from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    else:
        from opentelemetry.exporter.otlp.json.http._log_exporter import OTLPLogExporter
        from opentelemetry.exporter.otlp.json.http.metric_exporter import OTLPMetricExporter
        from opentelemetry.exporter.otlp.json.http.trace_exporter import OTLPSpanExporter
    return [
        OTLPSpanExporter(endpoint=f"{endpoint}/v1/traces"),
        OTLPMetricExporter(endpoint=f"{endpoint}/v1/metrics"),
        OTLPLogExporter(endpoint=f"{endpoint}/v1/logs"),
    ]


def plain(value):
    """A value of telemetry.json as Python has it."""
    ((kind, content),) = value.items()
    if kind == "list":
        return [plain(v) for v in content]
    if kind == "map":
        return plain_map(content)
    if kind == "bytes":
        return base64.b64decode(content)
    return {"string": str, "int": int, "double": float, "bool": bool}[kind](content)


def plain_map(attributes):
    return {key: plain(value) for key, value in attributes.items()}


def main():
    protocol, endpoint = sys.argv[1:]
    told = json.loads((pathlib.Path(__file__).parent.parent / "telemetry.json").read_text())
    span_exporter, metric_exporter, log_exporter = exporters(protocol, endpoint)
    resource = Resource(plain_map(told["resource"]["attributes"]), told["resource"]["schema_url"])
    scope = told["scope"]
    scope_args = (scope["name"], scope["version"])
    scope_more = {"schema_url": scope["schema_url"], "attributes": plain_map(scope["attributes"])}

    tracers = TracerProvider(resource=resource)
    tracers.add_span_processor(BatchSpanProcessor(span_exporter))
    tracer = tracers.get_tracer(*scope_args, **scope_more)
    spans = {}
    for want in told["spans"]:
        parent = want["parent"]
        if isinstance(parent, dict):
            state = TraceState([tuple(pair.split("=")) for pair in parent["trace_state"].split(",")])
            remote = SpanContext(
                int(parent["trace_id"], 16), int(parent["span_id"], 16), True, TraceFlags(1), state
            )
            context = trace.set_span_in_context(NonRecordingSpan(remote))
        elif parent:
            context = trace.set_span_in_context(spans[parent])
        else:
            context = None
        span = tracer.start_span(
            want["name"],
            context=context,
            kind=SpanKind[want["kind"]],
            attributes=plain_map(want["attributes"]),
            links=[Link(spans[l["to"]].get_span_context(), plain_map(l["attributes"])) for l in want["links"]],
            start_time=int(want["start"]),
        )
        for event in want["events"]:
            span.add_event(event["name"], plain_map(event["attributes"]), int(event["time"]))
        if want["status"]["code"] != "UNSET":
            span.set_status(Status(StatusCode[want["status"]["code"]], want["status"]["message"] or None))
        spans[want["name"]] = span

    metrics = told["metrics"]
    view = View(
        instrument_name=metrics["exponential_histogram"]["name"],
        aggregation=ExponentialBucketHistogramAggregation(),
    )
    reader = PeriodicExportingMetricReader(metric_exporter, export_interval_millis=3_600_000)
    meters = MeterProvider([reader], resource=resource, views=[view])
    meter = meters.get_meter(*scope_args, **scope_more)

    def about(which):
        return {key: metrics[which][key] for key in ("name", "unit", "description")}

    def observe(_):
        return [Observation(p["value"], plain_map(p["attributes"])) for p in metrics["gauge"]["points"]]

    # Within a sampled span, so that measurements come with exemplars.
    exemplar_span = spans["GET /orders/{id}"]
    with trace.use_span(exemplar_span):
        counter = meter.create_counter(**about("counter"))
        for point in metrics["counter"]["points"]:
            counter.add(point["value"], plain_map(point["attributes"]))
        up_down = meter.create_up_down_counter(**about("up_down_counter"))
        for point in metrics["up_down_counter"]["points"]:
            up_down.add(point["value"], plain_map(point["attributes"]))
        histogram = meter.create_histogram(
            **about("histogram"), explicit_bucket_boundaries_advisory=metrics["histogram"]["bounds"]
        )
        exponential = meter.create_histogram(**about("exponential_histogram"))
        for which, instrument in (("histogram", histogram), ("exponential_histogram", exponential)):
            for value in metrics[which]["values"]:
                instrument.record(value, plain_map(metrics[which]["attributes"]))
    meter.create_observable_gauge(**about("gauge"), callbacks=[observe])

    loggers = LoggerProvider(resource=resource)
    loggers.add_log_record_processor(BatchLogRecordProcessor(log_exporter))
    logger = loggers.get_logger(*scope_args, **scope_more)
    for want in told["logs"]:
        logger.emit(
            LogRecord(
                timestamp=int(want["time"]),
                observed_timestamp=int(want["observed"]),
                context=trace.set_span_in_context(spans[want["span"]]) if want["span"] else None,
                severity_number=SeverityNumber(want["severity_number"]),
                severity_text=want["severity_text"],
                body=plain(want["body"]),
                attributes=plain_map(want["attributes"]),
                event_name=want["event_name"] or None,
            )
        )

    for want in reversed(told["spans"]):
        spans[want["name"]].end(int(want["end"]))
    delivered = tracers.force_flush() and loggers.force_flush()
    tracers.shutdown()
    # Shutting down flushes; flushing before it would send the metrics twice.
    meters.shutdown()
    loggers.shutdown()
    ids = {
        name: {"trace_id": f"{c.trace_id:032x}", "span_id": f"{c.span_id:016x}"}
        for name, c in ((name, span.get_span_context()) for name, span in spans.items())
    }
    supports = {"exemplars": True, "sampled_flag": False, "scope_attributes": ["traces", "metrics", "logs"]}
    print(json.dumps({"spans": ids, "supports": supports, "delivered": delivered}))


main()
