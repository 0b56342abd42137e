//! The key-encryption key: the one secret that a node holds outside the database.
//!
//! Everything secret in Postgres stands, directly or through a data key, under it. It is 32 bytes, written as
//! one line of base64 (`openssl rand -base64 32` makes one), in a file or in an environment variable.
//! Losing it loses every stored secret, every opening and the signing keys; the ledger itself stays readable
//! and verifiable.

use std::fmt;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use zeroize::Zeroizing;

use crate::sealing::{SealError, SealingKey, SealingKeyId, random_secret};
use crate::secret_file::{self, SecretFileError};

const ID_LABEL: &[u8] = b"statusledger/v1/id/key-encryption-key\n";

/// 32 bytes in base64.
const BASE64_BYTES: usize = 44;

/// The line and its end, `\r\n` at most.
const FILE_LIMIT_BYTES: usize = BASE64_BYTES + 2;

/// Why there is no key-encryption key. Never holds anything of what was read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KeyEncryptionError {
    /// The file was not read or not written.
    #[error(transparent)]
    File(#[from] SecretFileError),
    /// The file's contents are not a key.
    #[error(
        "{} does not hold a key-encryption key: one line with the base64 of 32 bytes (openssl rand -base64 32)",
        path.display()
    )]
    FileContents {
        /// The file read.
        path: PathBuf,
    },
    /// The value given directly is not a key.
    #[error("the value is not a key-encryption key: the base64 of 32 bytes (openssl rand -base64 32)")]
    Value,
    /// What a key management service unwrapped is not a key.
    #[error("{length} bytes were unwrapped, and a key-encryption key has 32")]
    Unwrapped {
        /// How many bytes it gave.
        length: usize,
    },
    /// The operating system gave no random bytes for a new key.
    #[error(transparent)]
    Random(SealError),
}

/// Where a key-encryption key comes from that the node has to itself.
///
/// One kept by AWS KMS is not read from here: KMS decrypts 32 bytes that lie wrapped in the database, once at
/// start ([`KeyEncryptionKey::from_unwrapped`]), and everything after that is as with a file. So sealing needs
/// no network and no second implementation.
#[non_exhaustive]
pub enum KeyEncryptionSource {
    /// A file that is created at first run, for an installation that looks after itself.
    CreatedFile(PathBuf),
    /// A file that the operator put there; its absence is an error, so that a mount that failed is not taken
    /// for a first run.
    File(PathBuf),
    /// The base64 itself, from an environment variable.
    Value(Zeroizing<String>),
}

impl KeyEncryptionSource {
    /// Fetches the key.
    ///
    /// # Errors
    /// See [`KeyEncryptionKey::load_or_create`], [`KeyEncryptionKey::load`] and
    /// [`KeyEncryptionKey::from_base64`].
    pub fn load(&self) -> Result<KeyEncryptionKey, KeyEncryptionError> {
        match self {
            Self::CreatedFile(path) => KeyEncryptionKey::load_or_create(path),
            Self::File(path) => KeyEncryptionKey::load(path),
            Self::Value(value) => KeyEncryptionKey::from_base64(value),
        }
    }
}

impl fmt::Debug for KeyEncryptionSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::CreatedFile(path) => f.debug_tuple("CreatedFile").field(path).finish(),
            Self::File(path) => f.debug_tuple("File").field(path).finish(),
            Self::Value(_) => f.write_str("Value(..)"),
        }
    }
}

/// The key-encryption key. Wiped from memory when dropped; `Debug` shows its id only.
pub struct KeyEncryptionKey(pub(crate) SealingKey);

impl KeyEncryptionKey {
    /// A new key, kept nowhere yet: for a rotation, or a test.
    ///
    /// # Errors
    /// [`KeyEncryptionError::Random`].
    pub fn generate() -> Result<Self, KeyEncryptionError> {
        Ok(Self(SealingKey::generate(ID_LABEL).map_err(KeyEncryptionError::Random)?))
    }

    /// Reads the key from its base64; white space around it is let pass, since files and secret stores add
    /// line ends.
    ///
    /// # Errors
    /// [`KeyEncryptionError::Value`]: not the base64 of exactly 32 bytes.
    pub fn from_base64(text: &str) -> Result<Self, KeyEncryptionError> {
        let mut bytes = Box::new(Zeroizing::new([0; 32]));
        let written = STANDARD
            .decode_slice(text.trim_ascii(), bytes.as_mut_slice())
            .map_err(|_| KeyEncryptionError::Value)?;
        if written != bytes.len() {
            return Err(KeyEncryptionError::Value);
        }
        Ok(Self(SealingKey::new(bytes, ID_LABEL)))
    }

    /// The key that a key management service unwrapped. The bytes are wiped here; what the service's client
    /// keeps of its answer is beyond this.
    ///
    /// # Errors
    /// [`KeyEncryptionError::Unwrapped`]: not 32 bytes.
    pub fn from_unwrapped(plaintext: Vec<u8>) -> Result<Self, KeyEncryptionError> {
        let plaintext = Zeroizing::new(plaintext);
        let mut bytes = Box::new(Zeroizing::new([0; 32]));
        if plaintext.len() != bytes.len() {
            return Err(KeyEncryptionError::Unwrapped { length: plaintext.len() });
        }
        bytes.copy_from_slice(&plaintext);
        Ok(Self(SealingKey::new(bytes, ID_LABEL)))
    }

    /// Reads the key from a file that only its owner can use.
    ///
    /// # Errors
    /// [`KeyEncryptionError::File`] where the file is absent, a symbolic link, not a regular file, usable by
    /// group or others, of another account, or too long; [`KeyEncryptionError::FileContents`] where it does
    /// not hold a key. Each names the file.
    pub fn load(path: &Path) -> Result<Self, KeyEncryptionError> {
        let contents = secret_file::read(path, FILE_LIMIT_BYTES).map_err(|error| match error {
            SecretFileError::TooLong { path, .. } => KeyEncryptionError::FileContents { path },
            other => other.into(),
        })?;
        std::str::from_utf8(&contents)
            .ok()
            .and_then(|text| Self::from_base64(text).ok())
            .ok_or_else(|| KeyEncryptionError::FileContents { path: path.to_owned() })
    }

    /// Reads the key from the file, or makes one there with mode 0600 if there is none. Processes that start
    /// at once agree on one key, and when this returns, the file is durable.
    ///
    /// # Errors
    /// As [`KeyEncryptionKey::load`], and what goes wrong in creating the file.
    pub fn load_or_create(path: &Path) -> Result<Self, KeyEncryptionError> {
        match Self::load(path) {
            Ok(key) => {
                // Whoever made the file may not have come as far as syncing its name.
                secret_file::sync_directory(path)?;
                return Ok(key);
            }
            Err(KeyEncryptionError::File(SecretFileError::Io { source, .. }))
                if source.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        let secret = random_secret().map_err(KeyEncryptionError::Random)?;
        let mut line = Zeroizing::new([b'\n'; BASE64_BYTES + 1]);
        STANDARD
            .encode_slice(secret.as_slice(), &mut line[..BASE64_BYTES])
            .expect("the base64 of 32 bytes has 44");
        match secret_file::create(path, line.as_slice()) {
            Ok(()) | Err(SecretFileError::Exists { .. }) => Self::load(path),
            Err(error) => Err(error.into()),
        }
    }

    /// Names the key; stands in each ciphertext made under it.
    pub fn id(&self) -> SealingKeyId {
        self.0.id()
    }

    pub(crate) fn sealing(&self) -> &SealingKey {
        &self.0
    }
}

impl fmt::Debug for KeyEncryptionKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyEncryptionKey").field("id", &self.id()).finish_non_exhaustive()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::os::unix::fs::{MetadataExt, PermissionsExt};
    use std::sync::Barrier;

    use super::*;

    #[test]
    fn the_first_run_makes_a_file_of_mode_0600_and_the_next_ones_read_it() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("key");
        let made = KeyEncryptionKey::load_or_create(&path).unwrap();
        assert_eq!(path.metadata().unwrap().mode() & 0o7777, 0o600);
        assert_eq!(path.metadata().unwrap().len(), 45);
        assert_eq!(KeyEncryptionKey::load_or_create(&path).unwrap().id(), made.id());
        assert_eq!(KeyEncryptionKey::load(&path).unwrap().id(), made.id());
        let text = std::fs::read_to_string(&path).unwrap();
        assert_eq!(KeyEncryptionKey::from_base64(&text).unwrap().id(), made.id());
    }

    #[test]
    fn threads_that_start_at_once_agree_on_one_key() {
        for _ in 0..50 {
            let directory = tempfile::tempdir().unwrap();
            let path = directory.path().join("key");
            let barrier = Barrier::new(8);
            let ids: Vec<SealingKeyId> = std::thread::scope(|scope| {
                let threads: Vec<_> = (0..8)
                    .map(|_| {
                        scope.spawn(|| {
                            barrier.wait();
                            KeyEncryptionKey::load_or_create(&path).unwrap().id()
                        })
                    })
                    .collect();
                threads.into_iter().map(|thread| thread.join().unwrap()).collect()
            });
            assert!(ids.iter().all(|id| *id == ids[0]), "{ids:?}");
            assert_eq!(directory.path().read_dir().unwrap().count(), 1);
        }
    }

    #[test]
    fn a_file_that_the_operator_promised_is_not_made_up() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("key");
        let error = KeyEncryptionSource::File(path.clone()).load().unwrap_err();
        assert!(error.to_string().contains(path.to_str().unwrap()), "{error}");
        assert!(!path.exists());
        KeyEncryptionSource::CreatedFile(path.clone()).load().unwrap();
        KeyEncryptionSource::File(path).load().unwrap();
    }

    #[test]
    fn a_readable_file_is_refused_and_left_as_it_is() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("key");
        KeyEncryptionKey::load_or_create(&path).unwrap();
        let before = std::fs::read(&path).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
        let error = KeyEncryptionKey::load_or_create(&path).unwrap_err().to_string();
        assert!(error.contains(path.to_str().unwrap()) && error.contains("0640"), "{error}");
        assert_eq!(std::fs::read(&path).unwrap(), before);
    }

    #[test]
    fn contents_of_another_length_or_alphabet_are_refused_by_name_without_being_shown() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("key");
        for contents in [
            String::new(),
            "\n".into(),
            STANDARD.encode([7; 31]),
            STANDARD.encode([7; 33]),
            STANDARD.encode([7; 32]) + "\n\n\n",
            STANDARD.encode([7; 32]).replace('=', ""),
            "BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwd=".into(),
            "-_cHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc=".into(),
            "\u{7}".repeat(32),
        ] {
            std::fs::write(&path, &contents).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
            let error = KeyEncryptionKey::load(&path).unwrap_err();
            assert!(matches!(&error, KeyEncryptionError::FileContents { path: named } if *named == path));
            assert!(!format!("{error} {error:?}").contains("BwcHBw"), "{error:?}");
        }
        std::fs::write(&path, STANDARD.encode([7; 32]) + "\r\n").unwrap();
        KeyEncryptionKey::load(&path).unwrap();
    }

    #[test]
    fn a_value_is_read_with_white_space_around_it_and_in_no_other_form() {
        let text = STANDARD.encode([7; 32]);
        let id = KeyEncryptionKey::from_base64(&text).unwrap().id();
        assert_eq!(KeyEncryptionKey::from_base64(&format!(" {text}\n")).unwrap().id(), id);
        for wrong in [&text[..43], &text[1..], "", "passphrase", &format!("{}\n{}", &text[..20], &text[20..])]
        {
            assert!(matches!(KeyEncryptionKey::from_base64(wrong), Err(KeyEncryptionError::Value)));
        }
        assert_ne!(KeyEncryptionKey::from_base64(&STANDARD.encode([8; 32])).unwrap().id(), id);
        // However it came, it is the same key.
        assert_eq!(KeyEncryptionKey::from_unwrapped(vec![7; 32]).unwrap().id(), id);
        for length in [0, 16, 31, 33, 64] {
            let error = KeyEncryptionKey::from_unwrapped(vec![7; length]).unwrap_err();
            assert!(matches!(error, KeyEncryptionError::Unwrapped { length: found } if found == length));
        }
    }
}
