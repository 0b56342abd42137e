//! The root outside the instance: a text file.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use zeroize::Zeroizing;

use crate::key_id::KeyId;
use crate::secret_file::{self, SecretFileError};
use crate::signing::{Root, SigningKey};

const BEGIN: &str = "-----BEGIN STATUSLEDGER ROOT KEY-----";
const END: &str = "-----END STATUSLEDGER ROOT KEY-----";

/// More than the five lines ever have: an instance's name has at most 253 bytes.
const LIMIT_BYTES: usize = 1024;

/// Why a root file was not read or written. Never holds anything of its contents but the key's id.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RootFileError {
    /// The file was not read or not written.
    #[error(transparent)]
    File(#[from] SecretFileError),
    /// Not the five lines, or a line with something else in it.
    #[error(
        "not a root file: its five lines are a BEGIN line, instance, key-id, private-key and an END line"
    )]
    Malformed,
    /// The private key is not the one that the file names.
    #[error("the private key in the root file is not that of key {key_id}, which the file names")]
    Mismatch {
        /// The id in the file.
        key_id: KeyId,
    },
    /// As the others, with the file's name.
    #[error("{}: {source}", path.display())]
    In {
        /// The file read.
        path: PathBuf,
        /// What is wrong with it.
        source: Box<RootFileError>,
    },
}

/// A private root on its way out of a ring or into one. Wiped from memory when dropped; `Debug` shows its id.
///
/// As a text:
/// ```text
/// -----BEGIN STATUSLEDGER ROOT KEY-----
/// instance: status.example.com
/// key-id: 64 hexadecimal digits
/// private-key: the base64 of 32 bytes
/// -----END STATUSLEDGER ROOT KEY-----
/// ```
/// Exactly these five lines, each with a line feed. The text is not encrypted: keep it on a medium, or inside a
/// tool, that is, and more than once. Whoever has it is the instance.
pub struct RootFile {
    pub(super) instance: String,
    pub(crate) key: Arc<SigningKey<Root>>,
}

impl RootFile {
    /// The instance whose root it is.
    pub fn instance(&self) -> &str {
        &self.instance
    }

    /// The root's id.
    pub fn key_id(&self) -> KeyId {
        self.key.key_id()
    }

    /// The file's contents.
    pub fn to_text(&self) -> Zeroizing<String> {
        let secret = self.key.secret();
        let mut encoded = Zeroizing::new([0; 44]);
        STANDARD.encode_slice(*secret, encoded.as_mut_slice()).expect("the base64 of 32 bytes has 44");
        let encoded = std::str::from_utf8(encoded.as_slice()).expect("base64 is ASCII");
        // Of full size from the start: a growing string would leave copies of the secret behind.
        let mut text = Zeroizing::new(String::with_capacity(LIMIT_BYTES));
        for part in [
            BEGIN,
            "\ninstance: ",
            &self.instance,
            "\nkey-id: ",
            &self.key_id().to_string(),
            "\nprivate-key: ",
            encoded,
            "\n",
            END,
            "\n",
        ] {
            text.push_str(part);
        }
        text
    }

    /// Reads a file's contents.
    ///
    /// # Errors
    /// [`RootFileError::Malformed`], [`RootFileError::Mismatch`].
    pub fn from_text(text: &str) -> Result<Self, RootFileError> {
        let parse = || {
            let rest = text.strip_prefix(BEGIN)?.strip_prefix("\ninstance: ")?;
            let (instance, rest) = rest.split_once("\nkey-id: ")?;
            let (key_id, rest) = rest.split_once("\nprivate-key: ")?;
            let (private, rest) = rest.split_once('\n')?;
            if rest.strip_prefix(END)? != "\n" || instance.contains('\n') {
                return None;
            }
            let mut secret = Zeroizing::new([0; 32]);
            let written = STANDARD.decode_slice(private, secret.as_mut_slice()).ok()?;
            (written == secret.len()).then_some(())?;
            Some((instance.to_owned(), key_id.parse::<KeyId>().ok()?, SigningKey::from_secret(&secret)))
        };
        let (instance, key_id, key) = parse().ok_or(RootFileError::Malformed)?;
        if key.key_id() != key_id {
            return Err(RootFileError::Mismatch { key_id });
        }
        Ok(Self { instance, key: Arc::new(key) })
    }

    /// Writes a new file of mode 0600, durably. An existing file is left as it is and is an error.
    ///
    /// # Errors
    /// [`RootFileError::File`].
    pub fn write(&self, path: &Path) -> Result<(), RootFileError> {
        Ok(secret_file::create(path, self.to_text().as_bytes())?)
    }

    /// Reads a file that only its owner can use.
    ///
    /// # Errors
    /// [`RootFileError::File`], and, named by the file, those of [`RootFile::from_text`].
    pub fn read(path: &Path) -> Result<Self, RootFileError> {
        let contents = secret_file::read(path, LIMIT_BYTES)?;
        std::str::from_utf8(&contents)
            .map_err(|_| RootFileError::Malformed)
            .and_then(Self::from_text)
            .map_err(|error| RootFileError::In { path: path.to_owned(), source: Box::new(error) })
    }
}

impl fmt::Debug for RootFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RootFile")
            .field("instance", &self.instance)
            .field("key_id", &self.key_id())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn root_file() -> RootFile {
        RootFile { instance: "status.example.com".into(), key: Arc::new(SigningKey::generate().unwrap()) }
    }

    #[test]
    fn a_root_file_is_read_back_as_it_was_written() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("root.key");
        let file = root_file();
        file.write(&path).unwrap();
        let read = RootFile::read(&path).unwrap();
        assert_eq!((read.instance(), read.key_id()), ("status.example.com", file.key_id()));
        assert_eq!(*read.to_text(), std::fs::read_to_string(&path).unwrap());
        assert!(matches!(root_file().write(&path), Err(RootFileError::File(SecretFileError::Exists { .. }))));
    }

    #[test]
    fn no_other_text_is_a_root_file() {
        let text = root_file().to_text();
        for wrong in [
            String::new(),
            text.replace('\n', "\r\n"),
            format!("{}\n", *text),
            format!("\n{}", *text),
            text.trim_end().to_owned(),
            text.replace("instance", "Instance"),
            text.replace("instance: ", "instance: \n"),
            text.replace("private-key: ", "private-key:  "),
            text.replace("=\n", "\n"),
            text.replace("\nkey-id", "\nother: x\nkey-id"),
        ] {
            let error = RootFile::from_text(&wrong).unwrap_err();
            assert!(matches!(error, RootFileError::Malformed), "{wrong:?}: {error}");
        }
    }

    #[test]
    fn a_key_under_another_keys_id_is_refused() {
        let (file, other) = (root_file(), root_file());
        let text = file.to_text().replace(&file.key_id().to_string(), &other.key_id().to_string());
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("root.key");
        secret_file::create(&path, text.as_bytes()).unwrap();
        let error = RootFile::read(&path).unwrap_err().to_string();
        assert!(
            error.contains("root.key") && error.contains(&other.key_id().to_string()),
            "the error names the file and the id: {error}"
        );
    }
}
