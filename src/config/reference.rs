//! What the config types say of themselves: a JSON schema of the whole file, and reference pages.
//!
//! Both come from the table of components and nothing else, and are the same on every machine: the files under
//! `docs/reference` are these strings, which a test compares.

use std::collections::BTreeMap;

use serde_json::{Map, Value as Json, json};

use super::TelemetryConfig;
use super::{Config, Schema, SchemaField, SchemaKind};
use crate::components::{Component, Kind};

/// The JSON schema of a config file, for editors. It lets `${…}` stand for any value.
pub fn json_schema(table: &[Component]) -> Json {
    let mut properties = Map::new();
    for kind in Kind::ALL {
        let mut types = Map::new();
        for component in table.iter().filter(|c| c.kind == kind) {
            let names: Vec<&str> =
                std::iter::once(component.name).chain(component.aliases.iter().copied()).collect();
            let mut schema = type_schema(&(component.schema)());
            if let Json::Object(object) = &mut schema {
                object.insert("description".to_owned(), component.about.into());
            }
            types.insert(format!("^\\s*({})\\s*(/.+)?$", names.join("|")), nullable(schema));
        }
        let mut section = json!({ "type": ["object", "null"], "additionalProperties": false });
        if let Json::Object(object) = &mut section {
            object.insert("patternProperties".to_owned(), Json::Object(types));
        }
        properties.insert(kind.section().to_owned(), section);
    }
    let ids = json!({ "type": ["array", "string", "null"], "items": { "type": "string" } });
    properties.insert(
        "service".to_owned(),
        json!({
            "type": "object",
            "additionalProperties": false,
            "properties": {
                "extensions": ids,
                "pipelines": {
                    "type": "object",
                    "additionalProperties": false,
                    "patternProperties": {
                        "^\\s*(traces|metrics|logs)\\s*(/.+)?$": {
                            "type": "object",
                            "additionalProperties": false,
                            "properties": { "receivers": ids, "processors": ids, "exporters": ids },
                        },
                    },
                },
                "telemetry": nullable(type_schema(&TelemetryConfig::schema())),
            },
        }),
    );
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Tidegate configuration",
        "type": "object",
        "additionalProperties": false,
        "properties": properties,
        "$defs": { "reference": { "type": "string", "pattern": "\\$\\{", "description": "${env:NAME} and the like" } },
    })
}

/// The reference: path below the directory to content.
pub fn pages(table: &[Component]) -> BTreeMap<String, String> {
    let mut out = BTreeMap::new();
    let mut index = String::from(GENERATED);
    index.push_str(
        "# Configuration reference\n\nOne page for each component, written from its config type.\n",
    );
    for kind in Kind::ALL {
        let mut rows: Vec<&Component> = table.iter().filter(|c| c.kind == kind).collect();
        rows.sort_by_key(|c| c.name);
        if rows.is_empty() {
            continue;
        }
        index.push_str(&format!(
            "\n## {}\n\n| Type | Stability | Signals | |\n|---|---|---|---|\n",
            title(kind)
        ));
        for component in rows {
            let path = format!("{}/{}.md", kind.section(), component.name);
            index.push_str(&format!(
                "| [`{}`]({path}) | {} | {} | {} |\n",
                component.name,
                component.stability.name(),
                signals(component),
                cell(component.about)
            ));
            out.insert(path, component_page(component));
        }
    }
    index.push_str(
        "\n## Service\n\n[`service`](service.md): pipelines, extensions, the agent's own telemetry.\n",
    );
    out.insert("README.md".to_owned(), index);
    out.insert("service.md".to_owned(), service_page());
    let schema = serde_json::to_string_pretty(&json_schema(table)).unwrap_or_default();
    out.insert("config.schema.json".to_owned(), format!("{schema}\n"));
    out
}

/// Kinds of values that many keys take.
const VALUES: &[(&str, &str)] = &[
    ("string", "Text. Numbers and words such as `true` need quotes."),
    (
        "duration",
        "A number with a unit, or several: `300ms`, `1.5s`, `1h30m`. A bare integer is nanoseconds.",
    ),
    ("size", "Bytes, or a number with a unit: `512KiB`, `64MiB`, `10MB`."),
    ("endpoint", "Where a server listens: `host:port`, `[ipv6]:port` or `unix:///path`."),
    ("grpc_endpoint", "What a gRPC client dials: `host:port`, `dns:///host:port` or `unix:///path`."),
    ("url", "A URL that starts with `http://` or `https://`."),
    (
        "regex",
        "A regular expression in RE2 syntax; it need not match the whole text unless it says so (`^…$`).",
    ),
    ("secret", "Text that is never shown: `print-config` and logs have `[REDACTED]` in its place."),
    ("extension_id", "The id of an extension, `type` or `type/name`, that `service.extensions` names."),
];

const GENERATED: &str = "<!-- Written by `tidegate reference docs/reference`; do not edit. -->\n\n";

fn title(kind: Kind) -> &'static str {
    match kind {
        Kind::Receiver => "Receivers",
        Kind::Processor => "Processors",
        Kind::Exporter => "Exporters",
        Kind::Connector => "Connectors",
        Kind::Extension => "Extensions",
    }
}

fn signals(component: &Component) -> String {
    let names: Vec<&str> = component.signals.iter().map(|s| s.name()).collect();
    if names.is_empty() { "none".to_owned() } else { names.join(", ") }
}

fn component_page(component: &Component) -> String {
    let mut out = String::from(GENERATED);
    out.push_str(&format!("# `{}` {}\n\n{}\n\n", component.name, component.kind.name(), component.about));
    out.push_str(&format!("* Stability: {}\n", component.stability.name()));
    if !component.signals.is_empty() {
        out.push_str(&format!("* Signals: {}\n", signals(component)));
    }
    if !component.aliases.is_empty() {
        let aliases: Vec<String> = component.aliases.iter().map(|a| format!("`{a}`")).collect();
        out.push_str(&format!("* Older names, still accepted: {}\n", aliases.join(", ")));
    }
    let schema = (component.schema)();
    if let SchemaKind::Struct { doc, .. } = &schema.kind {
        let doc = prose(doc);
        if !doc.is_empty() && doc != component.about {
            out.push_str(&format!("\n{doc}\n"));
        }
    }
    keys(&schema, &mut out);
    out
}

fn service_page() -> String {
    let mut out = String::from(GENERATED);
    out.push_str(
        "# `service`\n\n\
         | Key | Type | |\n|---|---|---|\n\
         | `extensions` | list of ids | The extensions to start. One that is only defined is not started. |\n\
         | `pipelines.<id>` | block | An id is `traces`, `metrics` or `logs`, perhaps with `/name`. |\n\
         | `pipelines.<id>.receivers` | list of ids | Where telemetry comes from: receivers and connectors; at least one. |\n\
         | `pipelines.<id>.processors` | list of ids | What it passes, in this order. |\n\
         | `pipelines.<id>.exporters` | list of ids | Where it goes: exporters and connectors; at least one. |\n\n\
         ## `telemetry`\n",
    );
    keys(&TelemetryConfig::schema(), &mut out);
    out
}

fn keys(schema: &Schema, out: &mut String) {
    let mut rows = Vec::new();
    collect(schema, "", None, &mut rows);
    if rows.is_empty() {
        out.push_str("\nIt takes no keys.\n");
        return;
    }
    out.push_str("\n| Key | Type | Default | |\n|---|---|---|---|\n");
    for row in rows {
        out.push_str(&row);
    }
}

/// One row for every key below a type; `default` is what the whole has when nothing is written.
fn collect(schema: &Schema, path: &str, default: Option<&Json>, rows: &mut Vec<String>) {
    match &schema.kind {
        SchemaKind::Struct { fields, .. } => {
            for field in fields.iter().filter(|f| f.schema.kind != SchemaKind::Unsupported) {
                let dot = if path.is_empty() { "" } else { "." };
                let path = format!("{path}{dot}{}", field.key);
                let default = default.and_then(|d| d.get(field.key)).unwrap_or(&field.default);
                rows.push(row(field, &path, default));
                collect(&field.schema, &path, Some(default).filter(|d| d.is_object()), rows);
            }
        }
        SchemaKind::Optional(inner) => collect(inner, path, default, rows),
        SchemaKind::List(inner) => collect(inner, &format!("{path}[]"), None, rows),
        SchemaKind::Map(inner) => collect(inner, &format!("{path}.<name>"), None, rows),
        _ => {}
    }
}

fn row(field: &SchemaField, path: &str, default: &Json) -> String {
    let default = match (&field.schema.kind, default) {
        (SchemaKind::Optional(inner), Json::Null) if matches!(inner.kind, SchemaKind::Struct { .. }) => {
            "off".to_owned()
        }
        (SchemaKind::Optional(inner), Json::Object(_)) if matches!(inner.kind, SchemaKind::Struct { .. }) => {
            "on".to_owned()
        }
        (SchemaKind::Struct { .. }, _) | (_, Json::Null) => String::new(),
        (_, Json::Array(items)) if items.iter().any(Json::is_object) => "see below".to_owned(),
        (_, default) => format!("`{default}`"),
    };
    format!(
        "| `{path}` | {} | {} | {} |\n",
        cell(&type_name(&field.schema)),
        cell(&default),
        cell(&prose(field.doc))
    )
}

fn type_name(schema: &Schema) -> String {
    match &schema.kind {
        SchemaKind::Bool => "boolean".to_owned(),
        SchemaKind::Fixed(value) => format!("`{value}`"),
        SchemaKind::Int { .. } => "integer".to_owned(),
        SchemaKind::Float => "number".to_owned(),
        SchemaKind::Text(_) if VALUES.iter().any(|(name, _)| *name == schema.name) => {
            schema.name.replace('_', " ")
        }
        SchemaKind::Text("text") => schema.name.to_owned(),
        SchemaKind::Text(shape) => format!("{}: {shape}", schema.name),
        SchemaKind::Enum(words) => words
            .iter()
            .map(|w| format!("`{}`", if w.is_empty() { "\"\"" } else { w }))
            .collect::<Vec<_>>()
            .join(", "),
        SchemaKind::List(_) if schema.name == "groups" => "list of texts, or of blocks".to_owned(),
        SchemaKind::List(inner) => match inner.kind {
            SchemaKind::Struct { .. } => "list of blocks".to_owned(),
            _ => format!("list of {}", type_name(inner)),
        },
        SchemaKind::Map(_) if schema.name == "headers" => "mapping, or list of {name, value}".to_owned(),
        SchemaKind::Map(inner) => match inner.kind {
            SchemaKind::Struct { .. } => "mapping to blocks".to_owned(),
            _ => format!("mapping to {}", type_name(inner)),
        },
        SchemaKind::Struct { .. } => "block".to_owned(),
        SchemaKind::Optional(inner) => match inner.kind {
            SchemaKind::Struct { .. } => "optional block".to_owned(),
            _ => type_name(inner),
        },
        SchemaKind::Any | SchemaKind::Unsupported => "any".to_owned(),
    }
}

/// A doc comment as one paragraph; links to items in the source become their names.
fn prose(doc: &str) -> String {
    let text = doc.lines().map(str::trim).filter(|l| !l.is_empty()).collect::<Vec<_>>().join(" ");
    text.replace("[`", "`").replace("`]", "`")
}

fn cell(text: &str) -> String {
    text.replace('|', "\\|")
}

fn type_schema(schema: &Schema) -> Json {
    match &schema.kind {
        SchemaKind::Bool => or_reference(json!({ "type": ["boolean", "null"] })),
        SchemaKind::Fixed(value) => or_reference(json!({ "enum": [value, null] })),
        SchemaKind::Int { min, max } => {
            let mut object = Map::new();
            object.insert("type".to_owned(), json!(["number", "null"]));
            // Numbers beyond 2^53 are not exact in JSON; such a bound says nothing an editor could check.
            for (key, bound) in [("minimum", *min), ("maximum", *max)] {
                if let Some(bound) = i64::try_from(bound).ok().filter(|b| b.unsigned_abs() < 1 << 53) {
                    object.insert(key.to_owned(), bound.into());
                }
            }
            or_reference(Json::Object(object))
        }
        SchemaKind::Float => or_reference(json!({ "type": ["number", "null"] })),
        SchemaKind::Text(_) if matches!(schema.name, "duration" | "size") => {
            json!({ "type": ["string", "number", "null"] })
        }
        SchemaKind::Text(_) => json!({ "type": ["string", "null"] }),
        SchemaKind::Enum(words) => or_reference(json!({ "enum": words })),
        SchemaKind::List(inner) if schema.name == "groups" => {
            let items = json!({ "anyOf": [{ "type": "string" }, type_schema(inner)] });
            or_reference(json!({ "type": ["array", "null"], "items": items }))
        }
        SchemaKind::List(inner) => match inner.kind {
            SchemaKind::Text(_) => {
                json!({ "type": ["array", "string", "null"], "items": type_schema(inner) })
            }
            _ => or_reference(json!({ "type": ["array", "null"], "items": type_schema(inner) })),
        },
        SchemaKind::Map(_) if matches!(schema.name, "headers" | "resource") => {
            json!({ "type": ["object", "array", "string", "null"] })
        }
        SchemaKind::Map(inner) => {
            or_reference(json!({ "type": ["object", "null"], "additionalProperties": type_schema(inner) }))
        }
        SchemaKind::Struct { fields, .. } => object(fields, false),
        SchemaKind::Optional(inner) => nullable(match &inner.kind {
            SchemaKind::Struct { fields, .. } => object(fields, true),
            _ => type_schema(inner),
        }),
        SchemaKind::Any | SchemaKind::Unsupported => json!({}),
    }
}

/// A block; `optional` ones may always be switched off.
fn object(fields: &[SchemaField], optional: bool) -> Json {
    let mut properties = Map::new();
    if optional && fields.iter().all(|f| f.key != "enabled") {
        let doc = "Whether the block is on.";
        properties.insert("enabled".to_owned(), json!({ "type": "boolean", "description": doc }));
    }
    for field in fields.iter().filter(|f| f.schema.kind != SchemaKind::Unsupported) {
        let mut schema = match type_schema(&field.schema) {
            Json::Object(object) => object,
            _ => Map::new(),
        };
        schema.insert("description".to_owned(), prose(field.doc).into());
        if !field.default.is_null() && !field.default.is_object() {
            schema.insert("default".to_owned(), field.default.clone());
        }
        properties.insert(field.key.to_owned(), Json::Object(schema));
    }
    json!({ "type": ["object", "null"], "additionalProperties": false, "properties": properties })
}

fn nullable(mut schema: Json) -> Json {
    if let Some(Json::String(one)) = schema.get("type").cloned()
        && let Json::Object(object) = &mut schema
    {
        object.insert("type".to_owned(), json!([one, "null"]));
    }
    schema
}

fn or_reference(schema: Json) -> Json {
    json!({ "anyOf": [schema, { "$ref": "#/$defs/reference" }] })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::types::Optional;

    crate::config! {
        /// What the inner block is for.
        pub struct Inner {
            /// A | bar.
            pub bar: u16 = 1,
        }
    }

    crate::config! {
        /// What the outer block
        /// is for.
        pub struct Outer {
            /// Off until written.
            pub off: Optional<Inner> = Optional::off(Inner { bar: 7 }),
            /// On.
            pub on: Optional<Inner> = Optional::on(Inner { bar: 8 }),
            /// Words.
            pub words: Vec<String> = vec!["a".to_owned()],
            /// Blocks.
            pub blocks: Vec<Inner> = Vec::new(),
        }
    }

    #[test]
    fn rows_show_the_defaults_in_place() {
        let mut out = String::new();
        keys(&Outer::schema(), &mut out);
        assert_eq!(
            out,
            "\n| Key | Type | Default | |\n|---|---|---|---|\n\
             | `off` | optional block | off | Off until written. |\n\
             | `off.bar` | integer | `7` | A \\| bar. |\n\
             | `on` | optional block | on | On. |\n\
             | `on.bar` | integer | `8` | A \\| bar. |\n\
             | `words` | list of string | `[\"a\"]` | Words. |\n\
             | `blocks` | list of blocks | `[]` | Blocks. |\n\
             | `blocks[].bar` | integer | `1` | A \\| bar. |\n"
        );
    }

    #[test]
    fn the_schema_knows_optional_blocks_and_references() {
        let schema = type_schema(&Outer::schema());
        let on = &schema["properties"]["on"];
        assert_eq!(on["properties"]["enabled"]["type"], "boolean");
        assert_eq!(on["additionalProperties"], false);
        assert_eq!(on["properties"]["bar"]["anyOf"][1]["$ref"], "#/$defs/reference");
        assert_eq!(on["properties"]["bar"]["anyOf"][0]["maximum"], 65535);
        assert_eq!(schema["properties"]["words"]["default"], json!(["a"]));
    }

    /// `cargo run -- reference docs/reference` writes them anew.
    #[test]
    fn committed_pages_are_current() {
        let dir = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/reference");
        let pages = pages(crate::components::COMPONENTS);
        for (name, text) in &pages {
            let committed = std::fs::read_to_string(dir.join(name)).unwrap_or_default();
            assert!(&committed == text, "docs/reference/{name} is not current");
        }
        for section in Kind::ALL.map(Kind::section) {
            for entry in std::fs::read_dir(dir.join(section)).into_iter().flatten() {
                let name = format!("{section}/{}", entry.unwrap().file_name().to_string_lossy());
                assert!(pages.contains_key(&name), "docs/reference/{name} belongs to no component");
            }
        }
    }
}
