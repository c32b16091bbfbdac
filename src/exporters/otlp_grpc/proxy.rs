//! Reaching a destination through an HTTP proxy, as `HTTPS_PROXY` and `NO_PROXY` say: a CONNECT tunnel.
//!
//! As in other gRPC clients, `HTTPS_PROXY` counts for plaintext destinations too, and destinations on this machine
//! are never reached through a proxy. The proxy resolves the destination's name.

use std::io;
use std::net::IpAddr;

use http::{HeaderValue, Uri};
use hyper_util::client::proxy::matcher::Matcher;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// The longest answer to CONNECT that is read.
const MAX_HEAD: usize = 8 << 10;

/// A proxy and the destination behind it.
#[derive(Debug, Clone)]
pub(super) struct Proxy {
    proxy: Uri,
    authorization: Option<HeaderValue>,
    /// `host:port`, IPv6 in brackets.
    destination: String,
}

impl Proxy {
    /// The proxy that the environment names for `host:port`, if it names one.
    pub fn from_env(host: &str, port: u16) -> Option<Self> {
        Proxy::of(&Matcher::from_env(), host, port)
    }

    fn of(matcher: &Matcher, host: &str, port: u16) -> Option<Self> {
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        let local = bare == "localhost" || bare.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback());
        if local {
            return None;
        }
        let destination =
            if bare.contains(':') { format!("[{bare}]:{port}") } else { format!("{bare}:{port}") };
        let uri = Uri::builder().scheme("https").authority(destination.as_str()).path_and_query("/").build();
        let found = matcher.intercept(&uri.ok()?)?;
        Some(Proxy { proxy: found.uri().clone(), authorization: found.basic_auth().cloned(), destination })
    }

    /// A connection to the destination through the proxy.
    ///
    /// # Errors
    /// The proxy cannot be reached, speaks anything but plain HTTP, or refuses.
    pub async fn connect(&self) -> io::Result<TcpStream> {
        let fail = |why: String| io::Error::other(format!("proxy {}: {why}", self.name()));
        if self.proxy.scheme_str() != Some("http") {
            return Err(fail("only http:// proxies are supported".to_owned()));
        }
        let address = (self.proxy.host().unwrap_or_default(), self.proxy.port_u16().unwrap_or(80));
        let mut socket = TcpStream::connect(address).await.map_err(|e| fail(e.to_string()))?;
        let destination = &self.destination;
        let mut head = format!("CONNECT {destination} HTTP/1.1\r\nHost: {destination}\r\n").into_bytes();
        if let Some(authorization) = &self.authorization {
            head.extend_from_slice(b"Proxy-Authorization: ");
            head.extend_from_slice(authorization.as_bytes());
            head.extend_from_slice(b"\r\n");
        }
        head.extend_from_slice(b"\r\n");
        socket.write_all(&head).await?;
        // Byte by byte, once a connection: what follows the head belongs to the tunnel.
        let mut answer = Vec::new();
        while !answer.ends_with(b"\r\n\r\n") {
            if answer.len() >= MAX_HEAD {
                return Err(fail("the answer to CONNECT is too long".to_owned()));
            }
            answer.push(socket.read_u8().await.map_err(|e| fail(e.to_string()))?);
        }
        let status = String::from_utf8_lossy(&answer).lines().next().unwrap_or_default().to_owned();
        let granted =
            status.starts_with("HTTP/1.") && status.split(' ').nth(1).is_some_and(|c| c.starts_with('2'));
        if granted { Ok(socket) } else { Err(fail(format!("refused to connect to {destination}: {status}"))) }
    }

    /// The proxy without its credentials.
    pub fn name(&self) -> String {
        format!("{}:{}", self.proxy.host().unwrap_or_default(), self.proxy.port_u16().unwrap_or(80))
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    fn matcher(proxy: &str) -> Matcher {
        Matcher::builder().https(proxy).no("inside.example.com").build()
    }

    #[test]
    fn the_environment_decides_who_is_reached_through_a_proxy() {
        let proxy = matcher("http://user:word@proxy.example.com:3128");
        let cases = [
            ("tempo.example.com", Some("tempo.example.com:4317")),
            ("2001:db8::1", Some("[2001:db8::1]:4317")),
            ("inside.example.com", None),
            ("localhost", None),
            ("127.0.0.1", None),
            ("::1", None),
        ];
        for (host, want) in cases {
            let found = Proxy::of(&proxy, host, 4317);
            assert_eq!(found.as_ref().map(|p| p.destination.as_str()), want, "{host}");
            assert_eq!(found.map(|p| p.name()), want.map(|_| "proxy.example.com:3128".to_owned()));
        }
    }

    #[tokio::test]
    async fn a_tunnel_is_asked_for_and_what_follows_is_the_destination() {
        for (answer, granted) in [
            ("HTTP/1.1 200 Connection established\r\nx: y\r\n\r\nhello", true),
            ("HTTP/1.1 407 Proxy Authentication Required\r\n\r\n", false),
            ("SSH-2.0-nonsense\r\n\r\n", false),
        ] {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let port = listener.local_addr().unwrap().port();
            let proxy = matcher(&format!("http://user:word@127.0.0.1:{port}"));
            let proxy = Proxy::of(&proxy, "tempo.example.com", 4317).unwrap();
            let server = async {
                let (mut socket, _) = listener.accept().await.unwrap();
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    head.push(socket.read_u8().await.unwrap());
                }
                socket.write_all(answer.as_bytes()).await.unwrap();
                String::from_utf8(head).unwrap()
            };
            let (socket, head) = tokio::join!(proxy.connect(), server);
            assert!(head.starts_with("CONNECT tempo.example.com:4317 HTTP/1.1\r\n"), "{head}");
            assert!(head.contains("Proxy-Authorization: Basic dXNlcjp3b3Jk\r\n"), "{head}");
            match socket {
                Ok(mut socket) => {
                    let mut rest = [0; 5];
                    socket.read_exact(&mut rest).await.unwrap();
                    assert!(granted && &rest == b"hello");
                }
                Err(e) => {
                    assert!(!granted, "{e}");
                    assert!(!e.to_string().contains("word"), "{e}");
                }
            }
        }
    }
}
