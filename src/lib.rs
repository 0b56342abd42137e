//! statusledger: what the stores say about a team's apps, as a ledger that proves itself.
//!
//! The modules, in the order of the data's way:
//!
//! * [`config`]: every setting · [`id`]: identifiers · [`name`]: what people call things · [`database`]: Postgres, embedded or the operator's
//! * [`source`]: where observations come from · [`observation`]: what was said, and whether it is news
//! * [`ledger`]: the append-only log, its tree, its checkpoints, its export · [`receipt`]: entry, proof, signature
//! * [`delivery`]: destinations, lanes, sending
//! * [`keyring`]: the signing keys · [`sealing`]: the data keys · [`key_encryption`]: what both lie under
//! * [`access`]: who may ask · [`audit`]: who did what
//! * [`workspace`]: tenants · [`instance`]: the instance's own name, ledger and workspace
//! * [`retention`]: how long what stands beside the ledgers is kept
//! * [`room`]: memory that is given out by the byte
//! * [`http`]: the routes · [`node`]: all of it in one process · [`peers`]: the other nodes · [`cli`]: the commands
//! * [`doctor`]: everything stored, verified again · [`self_audit`]: the same a little at a time, all the time

pub mod access;
pub mod audit;
pub mod cli;
pub mod config;
pub mod database;
pub mod delivery;
pub mod doctor;
pub mod http;
pub mod id;
pub mod instance;
pub mod key_encryption;
pub mod keyring;
pub mod ledger;
pub mod name;
pub mod node;
pub mod observation;
pub mod peers;
pub mod receipt;
mod redacted;
pub mod retention;
pub mod room;
pub mod sealing;
pub mod self_audit;
pub mod source;
pub mod workspace;
