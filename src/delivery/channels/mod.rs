//! The ways a notification travels, a file each: what is sent, and what counts as its having arrived.

pub mod webhook;
