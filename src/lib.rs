//! statusledger
