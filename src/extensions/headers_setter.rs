//! `headers_setter`: headers of requests going out, from the config, from files, or from what is known of the client
//! that sent the data.
//!
//! Promises: no header is made from a value that is not there, so that data without a tenant never becomes some
//! tenant's; a client that sent a key twice is never guessed at; files are followed while the agent runs; values never
//! show in logs.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use http::{HeaderMap, HeaderName, HeaderValue};

use crate::components::{AuthSides, BuildError, ComponentConfig};
use crate::config::types::{ExtensionId, Secret};
use crate::config::{Cx, Node};
use crate::net::auth::{ClientAuth, ClientKey, Unauthorized};
use crate::net::watch::{Watch, read_text};
use crate::pdata::ClientInfo;
use crate::pipeline::{BuildContext, Extension, RunContext, StartError};
use crate::telemetry::Counter;
use crate::{config, config_enum};

config_enum! {
    /// What is done with a header.
    pub enum HeaderAction {
        /// Sets it if the request does not have it.
        Insert = "insert",
        /// Sets it if the request has it.
        Update = "update",
        /// Sets it always.
        Upsert = "upsert",
        /// Takes it out of the request.
        Delete = "delete",
    }
}

#[allow(clippy::derivable_impls, reason = "the macro derives no default")]
impl Default for HeaderAction {
    fn default() -> Self {
        HeaderAction::Upsert
    }
}

config! {
    /// One header. Exactly one of `value`, `value_file`, `from_context` and `from_attribute`, and none for `delete`.
    pub struct HeaderConfig {
        /// The header's name. Required.
        pub key: String = String::new(),
        /// `upsert`: sets the header always. `insert`: if the request does not have it. `update`: if it has it.
        /// `delete`: takes it out.
        pub action: Option<HeaderAction> = None,
        /// The value itself.
        pub value: Option<Secret> = None,
        /// A file with the value; white space around it does not count. Changes are followed.
        pub value_file: Option<String> = None,
        /// A key of the client's request metadata, in any case, such as `X-Scope-OrgID`. The receiver needs
        /// `include_metadata: true`, a `batch` processor the key in `metadata_keys`. A client that sent several values
        /// has its data refused.
        pub from_context: Option<String> = None,
        /// What the receiver's authenticator said of the client, such as `subject` or `username`.
        pub from_attribute: Option<String> = None,
        /// The value where the client has none. Without it the header is not set then.
        pub default_value: Option<Secret> = None,
    }
    validate = HeaderConfig::check;
}

config! {
    /// Sets headers of requests that exporters send. Exporters name it as their `auth::authenticator`.
    pub struct HeadersSetterConfig {
        /// The headers, in the order in which they are set. Required.
        pub headers: Vec<HeaderConfig> = Vec::new(),
        /// Another authenticator, which sets its headers before these.
        pub additional_auth: ExtensionId = ExtensionId::default(),
    }
    validate = HeadersSetterConfig::check;
}

/// How often a file is looked at, at most.
const LOOK: Duration = Duration::from_secs(1);

/// Headers that say how the body is sent; a request with another value is broken.
const RESERVED: [&str; 9] = [
    "connection",
    "content-encoding",
    "content-length",
    "content-type",
    "keep-alive",
    "proxy-connection",
    "te",
    "transfer-encoding",
    "upgrade",
];

struct HeadersSetter {
    config: HeadersSetterConfig,
    missing: Vec<Counter>,
    client: OnceLock<Arc<Client>>,
}

struct Client {
    before: Option<Arc<dyn ClientAuth>>,
    headers: Vec<Header>,
}

struct Header {
    name: HeaderName,
    action: HeaderAction,
    source: Source,
    missing: Counter,
    /// Whether the log knows that clients lack the value.
    said: AtomicBool,
}

enum Source {
    /// For `delete`.
    None,
    Value(HeaderValue),
    File {
        path: String,
        watch: Watch,
        value: Mutex<HeaderValue>,
    },
    Client {
        key: ClientKey,
        default: Option<HeaderValue>,
    },
}

impl ComponentConfig for HeadersSetterConfig {
    fn extension_refs(&self) -> Vec<(&'static str, String)> {
        let other = Some(&self.additional_auth).filter(|id| !id.is_empty());
        other.map(|id| ("additional_auth", id.as_str().to_owned())).into_iter().collect()
    }

    fn authenticates(&self) -> AuthSides {
        AuthSides { server: false, client: true }
    }
}

impl HeadersSetterConfig {
    fn check(&self, node: &Node, cx: &mut Cx) {
        if self.headers.is_empty() {
            let hint = "add headers: with at least one {key, action, from_context}";
            cx.error_hint(node.pos_of("headers"), "missing header configuration", hint);
        }
    }
}

impl HeaderConfig {
    fn check(&self, node: &Node, cx: &mut Cx) {
        if self.key.is_empty() {
            cx.error(node.pos_of("key"), "missing header name");
        } else if let Err(why) = header_name(&self.key) {
            cx.within("key", |cx| cx.error(node.pos_of("key"), why));
        }
        let given = |key: &str| node.get(key).is_some_and(|n| !n.is_null());
        let sources: Vec<&str> = ["value", "value_file", "from_context", "from_attribute"]
            .into_iter()
            .filter(|k| given(k))
            .collect();
        if self.action == Some(HeaderAction::Delete) {
            if let Some(key) = sources.first().copied().or(given("default_value").then_some("default_value"))
            {
                cx.within(key, |cx| {
                    cx.error(node.pos_of(key), format!("the action \"delete\" takes no {key}"))
                });
            }
            return;
        }
        if !given("action") {
            cx.warn(node.pos, "the header has no action: \"upsert\" is taken; write it out");
        }
        let [source] = sources[..] else {
            let (what, pos) = match sources.get(1) {
                None => ("missing header source, must be", node.pos),
                Some(second) => ("invalid header source, must be only one of", node.pos_of(second)),
            };
            return cx
                .error(pos, format!("{what} 'from_context', 'from_attribute', 'value' or 'value_file'"));
        };
        let text = [&self.value_file, &self.from_context, &self.from_attribute];
        if text.into_iter().flatten().any(String::is_empty) {
            cx.within(source, |cx| cx.error(node.pos_of(source), format!("'{source}' must not be empty")));
        }
        if given("default_value") && source.starts_with("value") {
            let why = format!("default_value has no effect next to {source}");
            cx.within("default_value", |cx| cx.error(node.pos_of("default_value"), why));
        }
        for (key, value) in [("value", &self.value), ("default_value", &self.default_value)] {
            if let Some(value) = value
                && let Err(why) = header_value(value.expose())
            {
                cx.within(key, |cx| cx.error(node.pos_of(key), format!("the value {why}")));
            }
        }
    }

    /// Where the value comes from; reads a file.
    fn source(&self) -> Result<Source, StartError> {
        let value = |secret: &Secret| {
            header_value(secret.expose())
                .map_err(|why| StartError::new(format!("{}: the value {why}", self.key)))
        };
        if self.action == Some(HeaderAction::Delete) {
            return Ok(Source::None);
        }
        if let Some(text) = &self.value {
            return Ok(Source::Value(value(text)?));
        }
        if let Some(path) = &self.value_file {
            let watch = Watch::new("headers_setter", &[("value_file", path)], Some(LOOK));
            let value = Mutex::new(read_value(path)?);
            return Ok(Source::File { path: path.clone(), watch, value });
        }
        let key = match (&self.from_context, &self.from_attribute) {
            (Some(key), _) => ClientKey::Metadata(key.clone()),
            (None, Some(key)) => ClientKey::Auth(key.clone()),
            (None, None) => return Err(StartError::new(format!("{}: missing header source", self.key))),
        };
        let default = self.default_value.as_ref().map(value).transpose()?;
        Ok(Source::Client { key, default })
    }
}

/// Builds the extension.
///
/// # Errors
/// None: what can be wrong is found when the config is read or when files are.
pub fn build(config: &HeadersSetterConfig, cx: &BuildContext) -> Result<Arc<dyn Extension>, BuildError> {
    let missing = |header: &HeaderConfig| {
        let key = header.key.to_ascii_lowercase();
        cx.metrics.series(
            "tidegate_headers_setter_missing_values",
            "Requests sent without a header because the client had no value for it.",
            &[("extension", &cx.id), ("header", &key)],
        )
    };
    let missing = config.headers.iter().map(missing).collect();
    Ok(Arc::new(HeadersSetter { config: config.clone(), missing, client: OnceLock::new() }))
}

#[async_trait]
impl Extension for HeadersSetter {
    async fn start(&self, cx: &RunContext) -> Result<(), StartError> {
        let before = match &self.config.additional_auth {
            none if none.is_empty() => None,
            id => Some(cx.client_auth(id.as_str())?),
        };
        let mut headers = Vec::new();
        for (config, missing) in self.config.headers.iter().zip(&self.missing) {
            headers.push(Header {
                name: header_name(&config.key).map_err(StartError::new)?,
                action: config.action.unwrap_or_default(),
                source: config.source()?,
                missing: missing.clone(),
                said: AtomicBool::new(false),
            });
        }
        let _ = self.client.set(Arc::new(Client { before, headers }));
        Ok(())
    }

    async fn stop(&self) {}

    fn client_auth(&self) -> Option<Arc<dyn ClientAuth>> {
        self.client.get().map(|c| c.clone() as Arc<dyn ClientAuth>)
    }
}

impl ClientAuth for Client {
    fn authorize(&self, client: &ClientInfo, headers: &mut HeaderMap) -> Result<(), Unauthorized> {
        if let Some(before) = &self.before {
            before.authorize(client, headers)?;
        }
        for header in &self.headers {
            header.apply(client, headers)?;
        }
        Ok(())
    }

    fn reads(&self) -> Vec<ClientKey> {
        let mut keys = self.before.as_ref().map(|before| before.reads()).unwrap_or_default();
        for header in &self.headers {
            if let Source::Client { key, .. } = &header.source
                && !keys.contains(key)
            {
                keys.push(key.clone());
            }
        }
        keys
    }
}

impl Header {
    fn apply(&self, client: &ClientInfo, headers: &mut HeaderMap) -> Result<(), Unauthorized> {
        let value = match &self.source {
            Source::None => None,
            Source::Value(value) => Some(value.clone()),
            Source::File { path, watch, value } => {
                let current = || value.lock().unwrap_or_else(PoisonError::into_inner);
                watch.poll(|| read_value(path), |new| *current() = new);
                Some(current().clone())
            }
            Source::Client { key, default } => match self.of_client(key, client)? {
                Some(value) => Some(value),
                None => default.clone(),
            },
        };
        // A header without a value is as good as none.
        let there = headers.get(&self.name).is_some_and(|value| !value.is_empty());
        match (self.action, value) {
            (HeaderAction::Delete, _) => {
                headers.remove(&self.name);
            }
            (HeaderAction::Insert, _) if there => {}
            (HeaderAction::Update, _) if !there => {}
            (_, Some(value)) => {
                headers.insert(self.name.clone(), value);
            }
            (_, None) => self.miss(),
        }
        Ok(())
    }

    /// The client's only value that is not empty.
    fn of_client(&self, key: &ClientKey, client: &ClientInfo) -> Result<Option<HeaderValue>, Unauthorized> {
        let never = |why: String| Unauthorized::Never(format!("failed to determine the source: {why}"));
        let mut values = key.values(client);
        let Some(value) = values.next() else { return Ok(None) };
        let more = values.count();
        if more > 0 {
            let found = more + 1;
            let why = "source keys found in the context, can't determine which one to use";
            return Err(never(format!("{found} {why}")));
        }
        if value.is_empty() {
            return Ok(None);
        }
        header_value(value).map(Some).map_err(|why| never(format!("the client's {} {why}", self.name)))
    }

    fn miss(&self) {
        self.missing.add(1);
        if !self.said.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                header = %self.name,
                "a client has no value for the header and there is no default_value: requests go out without it"
            );
        }
    }
}

fn header_name(name: &str) -> Result<HeaderName, String> {
    let parsed = HeaderName::try_from(name).map_err(|_| format!("\"{name}\" is not a header name"))?;
    if RESERVED.contains(&parsed.as_str()) || parsed.as_str().starts_with("grpc-") {
        return Err(format!("\"{name}\" belongs to the protocol and cannot be set"));
    }
    Ok(parsed)
}

/// What follows "the value" is the error.
fn header_value(text: &str) -> Result<HeaderValue, &'static str> {
    let mut value = HeaderValue::from_bytes(text.as_bytes())
        .map_err(|_| "cannot be sent in a header: it has control characters")?;
    value.set_sensitive(true);
    Ok(value)
}

fn read_value(path: &str) -> Result<HeaderValue, StartError> {
    let text = read_text("value_file", path)?;
    match text.trim() {
        "" => Err(StartError::new(format!("value_file \"{path}\" is empty"))),
        text => header_value(text)
            .map_err(|why| StartError::new(format!("value_file \"{path}\": the value {why}"))),
    }
}

#[cfg(test)]
mod tests;
