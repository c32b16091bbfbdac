//! `basicauth`: user and password, on either side of a connection.
//!
//! Promises: comparisons take the same time wherever they fail; files of credentials are followed while the agent
//! runs; a slow hash never stalls the data path for long (see [`super::htpasswd`]).

use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderValue};

use super::htpasswd::Users;
use crate::components::{AuthSides, BuildError, ComponentConfig};
use crate::config;
use crate::config::types::Secret;
use crate::config::{Cx, Node};
use crate::net::auth::{AuthError, ClientAuth, ServerAuth, Unauthorized};
use crate::net::watch::{Watch, read_text};
use crate::pdata::ClientInfo;
use crate::pipeline::{BuildContext, Extension, RunContext, StartError};

config! {
    /// Who may send, as lines of `user:hash`; hashes are bcrypt, apr1, `{SHA}` or plain text.
    pub struct HtpasswdConfig {
        /// A file of such lines. Changes are followed.
        pub file: String = String::new(),
        /// Such lines as text. With a file too, both count, and these win.
        pub inline: Secret = Secret::default(),
    }
}

config! {
    /// What we say when we send.
    pub struct BasicClientConfig {
        /// The user.
        pub username: String = String::new(),
        /// The password.
        pub password: Secret = Secret::default(),
        /// A file with the user's name; wins over `username`. Changes are followed.
        pub username_file: String = String::new(),
        /// A file with the password; wins over `password`. Changes are followed.
        pub password_file: String = String::new(),
    }
}

config! {
    /// HTTP basic authentication: `htpasswd` for servers, `client_auth` for clients.
    pub struct BasicAuthConfig {
        /// Checks clients; for receivers.
        pub htpasswd: Option<HtpasswdConfig> = None,
        /// Adds credentials; for exporters.
        pub client_auth: Option<BasicClientConfig> = None,
    }
    validate = BasicAuthConfig::check;
}

/// How often credential files are looked at, at most.
const LOOK: Duration = Duration::from_secs(1);

struct BasicAuth {
    config: BasicAuthConfig,
    server: OnceLock<Arc<Server>>,
    client: OnceLock<Arc<Client>>,
}

struct Server {
    config: HtpasswdConfig,
    watch: Watch,
    users: Mutex<Arc<Users>>,
}

struct Client {
    config: BasicClientConfig,
    watch: Watch,
    header: Mutex<HeaderValue>,
}

impl ComponentConfig for BasicAuthConfig {
    fn authenticates(&self) -> AuthSides {
        AuthSides { server: self.htpasswd.is_some(), client: self.client_auth.is_some() }
    }
}

impl BasicAuthConfig {
    fn check(&self, node: &Node, cx: &mut Cx) {
        let none = "no credential source provided";
        match (&self.htpasswd, &self.client_auth) {
            (Some(_), Some(_)) => cx.error(node.pos, "only one of htpasswd and client_auth can be specified"),
            (None, None) => {
                cx.error_hint(node.pos, none, "set htpasswd for a server, client_auth for a client")
            }
            (Some(server), None) => {
                let pos = node.pos_of("htpasswd");
                cx.within("htpasswd", |cx| match Users::parse(server.inline.expose()) {
                    _ if server.file.is_empty() && server.inline.expose().is_empty() => cx.error(pos, none),
                    Err(why) => cx.within("inline", |cx| cx.error(pos, why)),
                    Ok(_) => {}
                });
            }
            (None, Some(client)) => {
                let pos = node.pos_of("client_auth");
                cx.within("client_auth", |cx| {
                    if client.username.is_empty() && client.username_file.is_empty() {
                        cx.error_hint(pos, none, "set username or username_file");
                    } else if client.username.contains(':') {
                        cx.within("username", |cx| cx.error(pos, "a user name cannot contain a colon"));
                    }
                });
            }
        }
    }
}

/// Builds the extension.
///
/// # Errors
/// None: what can be wrong is found when the config is read or when files are.
pub fn build(config: &BasicAuthConfig, _: &BuildContext) -> Result<Arc<dyn Extension>, BuildError> {
    Ok(Arc::new(BasicAuth { config: config.clone(), server: OnceLock::new(), client: OnceLock::new() }))
}

#[async_trait]
impl Extension for BasicAuth {
    async fn start(&self, _: &RunContext) -> Result<(), StartError> {
        if let Some(config) = &self.config.htpasswd {
            let watch = Watch::new("basicauth", &[("htpasswd::file", &config.file)], Some(LOOK));
            let users = Mutex::new(Arc::new(users(config)?));
            let _ = self.server.set(Arc::new(Server { config: config.clone(), watch, users }));
        }
        if let Some(config) = &self.config.client_auth {
            let files =
                [("username_file", &*config.username_file), ("password_file", &*config.password_file)];
            let watch = Watch::new("basicauth", &files, Some(LOOK));
            let header = Mutex::new(header(config)?);
            let _ = self.client.set(Arc::new(Client { config: config.clone(), watch, header }));
        }
        Ok(())
    }

    async fn stop(&self) {}

    fn server_auth(&self) -> Option<Arc<dyn ServerAuth>> {
        self.server.get().map(|s| s.clone() as Arc<dyn ServerAuth>)
    }

    fn client_auth(&self) -> Option<Arc<dyn ClientAuth>> {
        self.client.get().map(|c| c.clone() as Arc<dyn ClientAuth>)
    }
}

impl ServerAuth for Server {
    fn authenticate(&self, headers: &HeaderMap) -> Result<Vec<(String, String)>, AuthError> {
        let refuse = |why: &str| AuthError(why.to_owned());
        let users = || self.users.lock().unwrap_or_else(PoisonError::into_inner);
        self.watch.poll(|| self::users(&self.config), |new| *users() = Arc::new(new));
        let value = headers.get(AUTHORIZATION).ok_or_else(|| refuse("no basic auth provided"))?;
        let value = value.to_str().map_err(|_| refuse("invalid authorization format"))?;
        let (scheme, raw) = value.split_once(' ').unwrap_or((value, ""));
        if !scheme.eq_ignore_ascii_case("basic") {
            return Err(refuse("invalid authorization scheme prefix"));
        }
        let plain = STANDARD.decode(raw.trim()).ok().and_then(|bytes| String::from_utf8(bytes).ok());
        let plain = plain.ok_or_else(|| refuse("invalid authorization format"))?;
        let (user, password) = plain.split_once(':').ok_or_else(|| refuse("invalid authorization format"))?;
        // Not under the lock: a slow hash must not hold up those who are known.
        let current = users().clone();
        if !current.verify(user, password) {
            return Err(refuse("invalid credentials"));
        }
        let pair = |key: &str, value: &str| (key.to_owned(), value.to_owned());
        Ok(vec![pair("username", user), pair("subject", user), pair("raw", raw.trim())])
    }
}

impl ClientAuth for Client {
    fn authorize(&self, _: &ClientInfo, headers: &mut HeaderMap) -> Result<(), Unauthorized> {
        let current = || self.header.lock().unwrap_or_else(PoisonError::into_inner);
        self.watch.poll(|| header(&self.config), |new| *current() = new);
        headers.insert(AUTHORIZATION, current().clone());
        Ok(())
    }
}

fn users(config: &HtpasswdConfig) -> Result<Users, StartError> {
    let mut text = String::new();
    if !config.file.is_empty() {
        text = read_text("htpasswd::file", &config.file)?;
        text.push('\n');
    }
    text.push_str(config.inline.expose());
    Users::parse(&text).map_err(|why| StartError::new(format!("htpasswd: {why}")))
}

fn header(config: &BasicClientConfig) -> Result<HeaderValue, StartError> {
    let either = |key: &'static str, path: &str, text: &str| match path {
        "" => Ok(text.to_owned()),
        path => read_text(key, path).map(|t| t.trim_end_matches(['\r', '\n']).to_owned()),
    };
    let user = either("username_file", &config.username_file, &config.username)?;
    let password = either("password_file", &config.password_file, config.password.expose())?;
    if user.is_empty() || user.contains(':') {
        return Err(StartError::new("the user name must not be empty, nor contain a colon"));
    }
    let value = format!("Basic {}", STANDARD.encode(format!("{user}:{password}")));
    let mut value = HeaderValue::try_from(value).map_err(|e| StartError::new(e.to_string()))?;
    value.set_sensitive(true);
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::extensions::testing::{context, decode, text};

    fn server(config: HtpasswdConfig) -> Server {
        let watch = Watch::new("test", &[("file", &config.file)], Some(Duration::from_nanos(1)));
        let users = Mutex::new(Arc::new(users(&config).unwrap()));
        Server { config, watch, users }
    }

    fn headers(value: &str) -> HeaderMap {
        HeaderMap::from_iter([(AUTHORIZATION, HeaderValue::try_from(value).unwrap())])
    }

    fn basic(credentials: &str) -> HeaderMap {
        headers(&format!("Basic {}", STANDARD.encode(credentials)))
    }

    #[test]
    fn clients_are_told_why_they_are_refused() {
        let server = server(HtpasswdConfig { inline: Secret::from("user:p:w"), ..Default::default() });
        let ok = server.authenticate(&basic("user:p:w")).unwrap();
        let raw = STANDARD.encode("user:p:w");
        for (key, want) in [("username", "user"), ("subject", "user"), ("raw", raw.as_str())] {
            assert!(ok.contains(&(key.to_owned(), want.to_owned())), "{key}");
        }
        assert!(server.authenticate(&headers(&format!("bAsIc {raw}"))).is_ok());
        for (headers, want) in [
            (HeaderMap::new(), "no basic auth provided"),
            (headers("Bearer x"), "invalid authorization scheme prefix"),
            (headers("Basic"), "invalid authorization format"),
            (headers("Basic %%%"), "invalid authorization format"),
            (basic("user"), "invalid authorization format"),
            (basic("user:x"), "invalid credentials"),
            (basic("other:p:w"), "invalid credentials"),
        ] {
            assert_eq!(server.authenticate(&headers), Err(AuthError(want.to_owned())));
        }
    }

    #[test]
    fn files_of_credentials_are_followed() {
        let dir = tempfile::tempdir().unwrap();
        let file = |name: &str, text: &str| {
            std::fs::write(dir.path().join(name), text).unwrap();
            dir.path().join(name).to_str().unwrap().to_owned()
        };
        let path = file("htpasswd", "a:1\nb:2");
        let server = server(HtpasswdConfig { file: path.clone(), inline: Secret::from("b:3") });
        assert!(server.authenticate(&basic("a:1")).is_ok());
        assert!(server.authenticate(&basic("b:3")).is_ok(), "the inline line wins");
        file("htpasswd", "a:new");
        assert!(server.authenticate(&basic("a:new")).is_ok());
        file("htpasswd", "a:$unknown$");
        assert!(server.authenticate(&basic("a:new")).is_ok(), "a broken file changes nothing");

        let config = BasicClientConfig {
            username: "ignored".to_owned(),
            username_file: file("user", "me\n"),
            password_file: file("password", "se cret\r\n"),
            ..Default::default()
        };
        let files = [("username_file", &*config.username_file), ("password_file", &*config.password_file)];
        let watch = Watch::new("test", &files, Some(Duration::from_nanos(1)));
        let client = Client { header: Mutex::new(header(&config).unwrap()), watch, config };
        let sent = || {
            let mut headers = HeaderMap::new();
            client.authorize(&ClientInfo::default(), &mut headers).unwrap();
            headers
        };
        assert_eq!(sent(), basic("me:se cret"));
        file("password", "new");
        assert_eq!(sent(), basic("me:new"));
        assert!(sent().values().all(HeaderValue::is_sensitive));
    }

    #[tokio::test]
    async fn each_side_is_offered_where_it_is_configured() {
        let client = BasicClientConfig { username: "u".to_owned(), ..Default::default() };
        let config = BasicAuthConfig { client_auth: Some(client), ..Default::default() };
        assert_eq!(config.authenticates(), AuthSides { server: false, client: true });
        let (run, cx) = context();
        let extension = build(&config, &cx).unwrap();
        extension.start(&run).await.unwrap();
        assert!(extension.client_auth().is_some() && extension.server_auth().is_none());

        let file = HtpasswdConfig { file: "/nonexistent".to_owned(), ..Default::default() };
        let extension = build(&BasicAuthConfig { htpasswd: Some(file), ..Default::default() }, &cx).unwrap();
        assert!(extension.start(&run).await.unwrap_err().to_string().contains("cannot read htpasswd::file"));
    }

    #[test]
    fn validation() {
        let (htpasswd, client) = (("htpasswd.inline", text("u:p")), ("client_auth.username", text("u")));
        for (entries, want) in [
            (vec![], Some("no credential source provided")),
            (
                vec![htpasswd.clone(), client.clone()],
                Some("only one of htpasswd and client_auth can be specified"),
            ),
            (vec![("htpasswd.file", text(""))], Some("no credential source provided")),
            (vec![("client_auth.password", text("p"))], Some("no credential source provided")),
            (vec![("client_auth.username", text("a:b"))], Some("a user name cannot contain a colon")),
            (vec![("htpasswd.inline", text("u:$9$x"))], Some("line 1: unsupported kind of hash")),
            (vec![htpasswd], None),
            (vec![client], None),
        ] {
            let (_, messages) = decode::<BasicAuthConfig>(&entries);
            match want {
                Some(want) => assert!(messages.iter().any(|m| m.contains(want)), "{want}: {messages:?}"),
                None => assert!(messages.is_empty(), "{messages:?}"),
            }
        }
    }
}
