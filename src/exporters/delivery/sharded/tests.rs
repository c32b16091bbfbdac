//! Sharded delivery against a scripted sender, on a paused clock.
