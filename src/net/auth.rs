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
    /// No usable credentials now; the request is retried later.
    fn authorize(&self, client: &ClientInfo, headers: &mut HeaderMap) -> Result<(), AuthError>;
}

/// Why credentials were refused or could not be had.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct AuthError(pub String);
