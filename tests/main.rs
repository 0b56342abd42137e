//! The service, tested from outside: one binary, one private Postgres cluster for all of it, a database and a data
//! directory for each test. Nothing has to run and no variable has to be set.

#![allow(clippy::unwrap_used, clippy::print_stderr)]

mod harness;

mod crash;
mod delivery;
mod embedded;
mod http;
mod isolation;
mod keys;
mod ledger;
mod proofs;
mod sources;
mod stores;
mod tamper;
mod webhook;
