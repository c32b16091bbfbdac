// Emits what telemetry.json describes through the OpenTelemetry SDK for JavaScript.
//
// Usage: node emit.js grpc|http/protobuf|http/json ENDPOINT
// Prints one JSON object: the ids the SDK chose, and which optional things this SDK supports.

'use strict';

const fs = require('node:fs');
const path = require('node:path');
const { ROOT_CONTEXT, SpanKind, SpanStatusCode, TraceFlags, createTraceState, trace } = require('@opentelemetry/api');
const { resourceFromAttributes } = require('@opentelemetry/resources');
const { BasicTracerProvider, BatchSpanProcessor } = require('@opentelemetry/sdk-trace-base');
const { AggregationType, MeterProvider, PeriodicExportingMetricReader } = require('@opentelemetry/sdk-metrics');
const { BatchLogRecordProcessor, LoggerProvider } = require('@opentelemetry/sdk-logs');

function exporters(protocol, endpoint) {
  const suffix = { grpc: 'grpc', 'http/protobuf': 'proto', 'http/json': 'http' }[protocol];
  const make = (signal, type) => {
    const url = suffix === 'grpc' ? endpoint : `${endpoint}/v1/${signal === 'trace' ? 'traces' : signal}`;
    return new (require(`@opentelemetry/exporter-${signal}-otlp-${suffix}`)[type])({ url });
  };
  return [make('trace', 'OTLPTraceExporter'), make('metrics', 'OTLPMetricExporter'), make('logs', 'OTLPLogExporter')];
}

// A value of telemetry.json as JavaScript has it.
function plain(value) {
  const [[kind, content]] = Object.entries(value);
  if (kind === 'list') return content.map(plain);
  if (kind === 'map') return plainMap(content);
  if (kind === 'bytes') return new Uint8Array(Buffer.from(content, 'base64'));
  return content;
}

function plainMap(attributes) {
  return Object.fromEntries(Object.entries(attributes).map(([key, value]) => [key, plain(value)]));
}

// Seconds and nanoseconds, exact.
function time(nanos) {
  return [Number(BigInt(nanos) / 1_000_000_000n), Number(BigInt(nanos) % 1_000_000_000n)];
}

async function main() {
  const [protocol, endpoint] = process.argv.slice(2);
  const told = JSON.parse(fs.readFileSync(path.join(__dirname, '..', 'telemetry.json'), 'utf8'));
  const [spanExporter, metricExporter, logExporter] = exporters(protocol, endpoint);
  const resource = resourceFromAttributes(plainMap(told.resource.attributes), {
    schemaUrl: told.resource.schema_url,
  });
  const { scope, metrics } = told;
  const scopeMore = { schemaUrl: scope.schema_url };

  const tracers = new BasicTracerProvider({ resource, spanProcessors: [new BatchSpanProcessor(spanExporter)] });
  const tracer = tracers.getTracer(scope.name, scope.version, scopeMore);
  const spans = {};
  for (const want of told.spans) {
    let context = ROOT_CONTEXT;
    if (typeof want.parent === 'string') {
      context = trace.setSpan(context, spans[want.parent]);
    } else if (want.parent) {
      context = trace.setSpanContext(context, {
        traceId: want.parent.trace_id,
        spanId: want.parent.span_id,
        isRemote: true,
        traceFlags: TraceFlags.SAMPLED,
        traceState: createTraceState(want.parent.trace_state),
      });
    }
    const span = tracer.startSpan(
      want.name,
      {
        kind: SpanKind[want.kind],
        attributes: plainMap(want.attributes),
        links: want.links.map((l) => ({ context: spans[l.to].spanContext(), attributes: plainMap(l.attributes) })),
        startTime: time(want.start),
      },
      context,
    );
    for (const event of want.events) span.addEvent(event.name, plainMap(event.attributes), time(event.time));
    if (want.status.code !== 'UNSET') {
      span.setStatus({ code: SpanStatusCode[want.status.code], message: want.status.message || undefined });
    }
    spans[want.name] = span;
  }

  const reader = new PeriodicExportingMetricReader({ exporter: metricExporter, exportIntervalMillis: 3_600_000 });
  const views = [
    {
      instrumentName: metrics.exponential_histogram.name,
      aggregation: { type: AggregationType.EXPONENTIAL_HISTOGRAM },
    },
  ];
  const meters = new MeterProvider({ resource, readers: [reader], views });
  const meter = meters.getMeter(scope.name, scope.version, scopeMore);
  const about = ({ unit, description }) => ({ unit, description });
  const counter = meter.createCounter(metrics.counter.name, about(metrics.counter));
  for (const p of metrics.counter.points) counter.add(p.value, plainMap(p.attributes));
  const upDown = meter.createUpDownCounter(metrics.up_down_counter.name, about(metrics.up_down_counter));
  for (const p of metrics.up_down_counter.points) upDown.add(p.value, plainMap(p.attributes));
  const histogram = meter.createHistogram(metrics.histogram.name, {
    ...about(metrics.histogram),
    advice: { explicitBucketBoundaries: metrics.histogram.bounds },
  });
  for (const v of metrics.histogram.values) histogram.record(v, plainMap(metrics.histogram.attributes));
  const exponential = meter.createHistogram(
    metrics.exponential_histogram.name,
    about(metrics.exponential_histogram),
  );
  for (const v of metrics.exponential_histogram.values) {
    exponential.record(v, plainMap(metrics.exponential_histogram.attributes));
  }
  meter.createObservableGauge(metrics.gauge.name, about(metrics.gauge)).addCallback((result) => {
    for (const p of metrics.gauge.points) result.observe(p.value, plainMap(p.attributes));
  });

  const loggers = new LoggerProvider({ resource, processors: [new BatchLogRecordProcessor({ exporter: logExporter })] });
  const logger = loggers.getLogger(scope.name, scope.version, {
    ...scopeMore,
    attributes: plainMap(scope.attributes),
  });
  for (const want of told.logs) {
    logger.emit({
      timestamp: time(want.time),
      observedTimestamp: time(want.observed),
      context: want.span ? trace.setSpan(ROOT_CONTEXT, spans[want.span]) : ROOT_CONTEXT,
      severityNumber: want.severity_number,
      severityText: want.severity_text,
      body: plain(want.body),
      attributes: plainMap(want.attributes),
      eventName: want.event_name || undefined,
    });
  }

  for (const want of [...told.spans].reverse()) spans[want.name].end(time(want.end));
  // Shutting down flushes; flushing before it would send the metrics twice.
  for (const provider of [tracers, meters, loggers]) await provider.shutdown();
  const ids = Object.fromEntries(
    Object.entries(spans).map(([name, span]) => {
      const { traceId, spanId } = span.spanContext();
      return [name, { trace_id: traceId, span_id: spanId }];
    }),
  );
  const supports = { exemplars: false, sampled_flag: true, scope_attributes: ['logs'] };
  console.log(JSON.stringify({ spans: ids, supports, delivered: true }));
}

main().catch((error) => {
  console.error(error);
  process.exitCode = 1;
});
