//! What clients are configured with, as the Collector names it.

mod grpc;
mod http;

pub use self::grpc::{Balancer, GrpcClientConfig, GrpcCompression, KeepaliveConfig};
pub use self::http::{
    CompressionParams, CookiesConfig, HttpClient, HttpClientConfig, HttpCompression, causes,
};

use std::time::Duration;

use crate::config;
use crate::config::types::ExtensionId;
use crate::config::{Cx, Node};

config! {
    /// How requests are authenticated.
    pub struct ClientAuthConfig {
        /// The id of an authenticator listed under `extensions`.
        pub authenticator: ExtensionId = ExtensionId::default(),
    }
    validate = ClientAuthConfig::check;
}

impl ClientAuthConfig {
    fn check(&self, node: &Node, cx: &mut Cx) {
        if self.authenticator.is_empty() && node.entry("authenticator").is_none() && !node.is_null() {
            cx.error(node.pos, "'authenticator' must name an extension");
        }
    }
}

/// How long the kernel may wait for what was sent to be acknowledged before it gives the connection up. Without it
/// a peer that vanished without a word (a lost node, a forgetful firewall) is believed in for a quarter of an hour.
pub const UNACKNOWLEDGED: Duration = Duration::from_secs(30);

/// What we call ourselves when the user names nothing else: `tidegate/<version> (<os>/<arch>)`.
pub fn user_agent() -> String {
    format!("tidegate/{} ({}/{})", env!("CARGO_PKG_VERSION"), std::env::consts::OS, std::env::consts::ARCH)
}
