//! Helpers off the data path: health checks and authenticators.

pub mod basicauth;
pub mod bearertokenauth;
pub mod headers_setter;
pub mod health_check;
mod htpasswd;

#[cfg(test)]
mod testing;
