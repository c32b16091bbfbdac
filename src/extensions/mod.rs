//! Helpers off the data path: health checks and authenticators.
