"""Logs with Python's logging through the OpenTelemetry SDK.

Usage: logs.py ENDPOINT (OTLP over HTTP)
Prints one JSON object: the messages, and the ids of the span in which the last one was logged.
"""

import json
import logging
import sys

from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter
from opentelemetry.sdk._logs import LoggerProvider, LoggingHandler
from opentelemetry.sdk._logs.export import BatchLogRecordProcessor
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider


def main():
    (endpoint,) = sys.argv[1:]
    resource = Resource.create(
        {"service.namespace": "shop", "service.name": "checkout", "k8s.pod.name": "checkout-1"}
    )
    provider = LoggerProvider(resource=resource)
    provider.add_log_record_processor(BatchLogRecordProcessor(OTLPLogExporter(endpoint=f"{endpoint}/v1/logs")))
    log = logging.getLogger("shop.checkout")
    log.setLevel(logging.DEBUG)
    log.propagate = False
    log.addHandler(LoggingHandler(logger_provider=provider))

    messages = []

    def say(level, message, tenant, user, request, **more):
        attributes = {"tenant_id": tenant, "user_id": user, "request_id": request}
        log.log(level, message, extra=attributes, **more)
        messages.append(message)

    say(logging.INFO, "order placed", "acme", 7, "r-1")
    say(logging.WARNING, "Größe “unbekannt” 注文 😀", "Ünïcode & co", 8, "r-2")
    say(logging.INFO, "first line\nsecond line\n\tthird \"line\" \\", "acme", 42, "r-3")
    try:
        1 / 0
    except ZeroDivisionError:
        say(logging.ERROR, "payment failed", "globex", 42, "r-4", exc_info=True)
    tracer = TracerProvider(resource=resource).get_tracer("shop.checkout")
    with tracer.start_as_current_span("pay") as span:
        say(logging.DEBUG, "paid", "acme", 42, "r-5")
        ids = span.get_span_context()
    provider.shutdown()
    told = {"messages": messages, "trace_id": f"{ids.trace_id:032x}", "span_id": f"{ids.span_id:016x}"}
    print(json.dumps(told))


if __name__ == "__main__":
    main()
