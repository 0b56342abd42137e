//! The service, tested from outside: one binary, one private Postgres cluster for all of it, a database and a data
//! directory for each test. Nothing has to run and no variable has to be set.

#![allow(clippy::unwrap_used, clippy::print_stderr)]

mod harness;

mod api;
mod audit;
mod chaos;
mod cli;
mod conditions;
mod crash;
mod crash_points;
mod delivery;
mod documents;
mod door;
mod embedded;
mod ended;
mod failover;
mod histories;
mod http;
mod isolation;
mod keys;
mod kms;
mod ledger;
mod lies;
mod manage;
mod nodes;
mod openings;
mod outages;
mod overload;
mod plans;
mod pooled;
mod proofs;
mod reach;
mod recorded;
mod refusals;
mod retention;
mod secrecy;
mod self_audit;
mod shared_commit;
mod sign_in;
mod source_health;
mod source_keys;
mod sources;
mod standing;
mod statements;
mod store_webhooks;
mod stores;
mod surfaces;
mod tamper;
mod truth;
mod walk;
mod webhook;
mod workspaces;
