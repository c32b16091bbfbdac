//! What filters drop and keep, by decoding what is left; and what can be wrong with their configuration.

mod any;
mod conditions;
mod config;
mod older;
