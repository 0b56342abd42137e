//! All that touches secret bytes.

pub mod envelope;
pub mod key_encryption;
pub mod key_id;
pub mod sealing;
pub mod secret_file;
pub mod signing;
