"""Telemetry of several tenants through the OpenTelemetry SDK for Python.

Usage: tenants.py GRPC_ENDPOINT HTTP_ENDPOINT
Everything says in the attribute `owner` whose it is. team-a names itself in gRPC metadata and team-b in an HTTP header;
then one program sends for three tenants and for nobody, with `tenant_id` on spans, records and points only.
"""

import logging
import sys

from opentelemetry.exporter.otlp.proto.grpc import _log_exporter as grpc_logs
from opentelemetry.exporter.otlp.proto.grpc import metric_exporter as grpc_metrics
from opentelemetry.exporter.otlp.proto.grpc import trace_exporter as grpc_traces
from opentelemetry.exporter.otlp.proto.http import _log_exporter as http_logs
from opentelemetry.exporter.otlp.proto.http import metric_exporter as http_metrics
from opentelemetry.exporter.otlp.proto.http import trace_exporter as http_traces
from opentelemetry.sdk._logs import LoggerProvider, LoggingHandler
from opentelemetry.sdk._logs.export import BatchLogRecordProcessor
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor


def send(program, exporters, owners):
    """Three items of each signal for each owner, in turn; `owners` gives the attributes that go with each."""
    spans, metrics, logs = exporters
    resource = Resource.create({"service.name": program})
    tracers = TracerProvider(resource=resource)
    tracers.add_span_processor(BatchSpanProcessor(spans))
    meters = MeterProvider(
        [PeriodicExportingMetricReader(metrics, export_interval_millis=3_600_000)], resource=resource
    )
    records = LoggerProvider(resource=resource)
    records.add_log_record_processor(BatchLogRecordProcessor(logs))
    log = logging.getLogger(program)
    log.setLevel(logging.INFO)
    log.propagate = False
    log.addHandler(LoggingHandler(logger_provider=records))
    tracer = tracers.get_tracer("tenants")
    counter = meters.get_meter("tenants").create_counter("orders")
    for n in range(3):
        for owner, more in owners.items():
            attributes = {"owner": owner, **more}
            tracer.start_span(f"order {n} of {owner}", attributes=attributes).end()
            counter.add(n + 1, attributes)
            log.info(f"order {n} of {owner}", extra=attributes)
    tracers.shutdown()
    meters.shutdown()
    records.shutdown()


def main():
    grpc, http = sys.argv[1:]

    def over_grpc(**more):
        return [
            exporter(endpoint=grpc, insecure=True, **more)
            for exporter in (
                grpc_traces.OTLPSpanExporter,
                grpc_metrics.OTLPMetricExporter,
                grpc_logs.OTLPLogExporter,
            )
        ]

    send("alone-a", over_grpc(headers=(("x-scope-orgid", "team-a"),)), {"team-a": {}})
    by_header = {"headers": {"X-Scope-OrgID": "team-b"}}
    over_http = [
        http_traces.OTLPSpanExporter(endpoint=f"{http}/v1/traces", **by_header),
        http_metrics.OTLPMetricExporter(endpoint=f"{http}/v1/metrics", **by_header),
        http_logs.OTLPLogExporter(endpoint=f"{http}/v1/logs", **by_header),
    ]
    send("alone-b", over_http, {"team-b": {}})
    mixed = {tenant: {"tenant_id": tenant} for tenant in ("team-a", "team-b", "team-c")}
    send("mixed", over_grpc(), mixed | {"shared": {}})


if __name__ == "__main__":
    main()
