//! Authentication as servers and clients see it; extensions implement it.

use http::HeaderMap;

use crate::pdata::ClientInfo;

/// Decides whether a request may come in.
pub trait ServerAuth: Send + Sync {
    /// Checks the request's headers (gRPC metadata are headers too) and says who the client is, as pairs
    /// for [`ClientInfo::auth`].
    ///
    /// # Errors
    /// Why the client is refused; answered as 401 or UNAUTHENTICATED.
    fn authenticate(&self, headers: &HeaderMap) -> Result<Vec<(String, String)>, AuthError>;
}

/// Adds credentials to requests going out.
pub trait ClientAuth: Send + Sync {
    /// Sets headers for one request. `client` is who sent the data, where the batch still knows it.
    ///
    /// # Errors
    /// There are no usable credentials, now or for this data at all.
    fn authorize(&self, client: &ClientInfo, headers: &mut HeaderMap) -> Result<(), Unauthorized>;

    /// What it takes from clients into headers. Data of clients that differ in any of it must not share a request.
    fn reads(&self) -> Vec<ClientKey> {
        Vec::new()
    }
}

/// Something that may be known of a client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClientKey {
    /// A metadata key of its request, in any case.
    Metadata(String),
    /// What the authenticator calls it.
    Auth(String),
}

impl ClientKey {
    /// Whether another key finds the same.
    pub fn same(&self, other: &ClientKey) -> bool {
        match (self, other) {
            (ClientKey::Metadata(a), ClientKey::Metadata(b)) => a.eq_ignore_ascii_case(b),
            _ => self == other,
        }
    }

    /// Makes values known of a client.
    pub fn add_to(&self, client: &mut ClientInfo, values: &[String]) {
        match self {
            ClientKey::Metadata(key) => client.metadata.push((key.clone(), values.iter().cloned().collect())),
            ClientKey::Auth(key) => client.auth.extend(values.iter().map(|v| (key.clone(), v.clone()))),
        }
    }

    /// The values of a client.
    pub fn values<'c>(&'c self, client: &'c ClientInfo) -> impl Iterator<Item = &'c str> {
        let (metadata, auth) = match self {
            ClientKey::Metadata(key) => (client.metadata(key).unwrap_or_default(), None),
            ClientKey::Auth(key) => (&[][..], Some(key.as_str())),
        };
        let of_auth = client.auth.iter().filter(move |(key, _)| auth == Some(key)).map(|(_, v)| v.as_str());
        metadata.iter().map(String::as_str).chain(of_auth)
    }
}

/// Why credentials were refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct AuthError(pub String);

/// Why a request going out has no credentials.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unauthorized {
    /// There are none now; the request is sent later.
    #[error("{0}")]
    NotNow(String),
    /// There are none for this data, however often it is sent.
    #[error("{0}")]
    Never(String),
}
