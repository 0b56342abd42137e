//! The envelope for stored secrets and openings: a data key for each workspace, under the key-encryption key.
//!
//! A value is sealed for its [`Cell`]: the table, row and column it stands in, in the data key's workspace.
//! Copied to any other place it does not open. Deleting a workspace's wrapped data key makes everything
//! sealed under it unreadable at once, wherever copies lie.
//!
//! A rotation of the key-encryption key re-wraps the data keys ([`DataKey::rewrap`]) and touches no value.

use std::fmt;

use crate::held_keys::KeyHolder;
use crate::key_encryption::KeyEncryptionKey;
use crate::sealing::{SealError, SealPurpose, SealingKey, SealingKeyId};

use zeroize::Zeroizing;

const ID_LABEL: &[u8] = b"statusledger/v1/id/data-key\n";

/// A workspace's UUID, in bytes. What belongs to no workspace has all zeros.
pub type WorkspaceId = [u8; 16];

/// Where in the database a sealed value stands, inside its data key's workspace.
#[derive(Clone, Copy, Debug)]
pub struct Cell<'a> {
    /// The table's name.
    pub table: &'a str,
    /// The row's primary key without the workspace, a part a column, each as bytes that do not change (a
    /// UUID's 16 bytes, an integer's big-endian bytes, a name).
    pub row: &'a [&'a [u8]],
    /// The column's name.
    pub column: &'a str,
}

/// A workspace's data key. Wiped from memory when dropped; `Debug` shows its id only.
pub struct DataKey {
    key: SealingKey,
    workspace: WorkspaceId,
}

impl DataKey {
    /// A new key for a workspace.
    ///
    /// # Errors
    /// [`SealError::Random`].
    pub fn generate(workspace: WorkspaceId) -> Result<Self, SealError> {
        Ok(Self { key: SealingKey::generate(ID_LABEL)?, workspace })
    }

    /// The key as it is stored: sealed under the key-encryption key, for this workspace.
    ///
    /// # Errors
    /// [`SealError::Random`].
    pub fn wrap(&self, key_encryption_key: &KeyEncryptionKey) -> Result<Vec<u8>, SealError> {
        key_encryption_key.sealing().seal(SealPurpose::DataKey, &[&self.workspace], self.key.bytes())
    }

    /// Reads a stored key.
    ///
    /// # Errors
    /// [`SealError::WrongKey`] or [`SealError::NotHeld`] names the key-encryption key that it needs;
    /// [`SealError::NotAuthentic`] where it was altered or belongs to another workspace.
    pub fn unwrap(
        holder: &impl KeyHolder,
        workspace: WorkspaceId,
        wrapped: &[u8],
    ) -> Result<Self, SealError> {
        let key_encryption_key = holder.key_for(SealingKeyId::of_ciphertext(wrapped)?)?;
        let plaintext = key_encryption_key.sealing().open(SealPurpose::DataKey, &[&workspace], wrapped)?;
        let mut bytes = Box::new(Zeroizing::new([0; 32]));
        if plaintext.len() != bytes.len() {
            return Err(SealError::Malformed { length: wrapped.len() });
        }
        bytes.copy_from_slice(&plaintext);
        Ok(Self { key: SealingKey::new(bytes, ID_LABEL), workspace })
    }

    /// The stored form under another key-encryption key. The data key, and so everything sealed under it,
    /// stays.
    ///
    /// # Errors
    /// As [`DataKey::unwrap`] under `from`, and [`SealError::Random`].
    pub fn rewrap(
        from: &impl KeyHolder,
        to: &KeyEncryptionKey,
        workspace: WorkspaceId,
        wrapped: &[u8],
    ) -> Result<Vec<u8>, SealError> {
        Self::unwrap(from, workspace, wrapped)?.wrap(to)
    }

    /// Names the key; stands in each value sealed under it.
    pub fn id(&self) -> SealingKeyId {
        self.key.id()
    }

    /// The workspace the key belongs to.
    pub fn workspace(&self) -> WorkspaceId {
        self.workspace
    }

    /// Seals a value for its place. There is no practical limit to how many values a key seals: see
    /// [`crate::sealing`].
    ///
    /// # Errors
    /// [`SealError::Random`], [`SealError::TooLong`].
    pub fn seal(&self, cell: &Cell<'_>, plaintext: &[u8]) -> Result<Vec<u8>, SealError> {
        self.with_parts(cell, |parts| self.key.seal(SealPurpose::Cell, parts, plaintext))
    }

    /// Opens what [`DataKey::seal`] sealed for the same place.
    ///
    /// # Errors
    /// [`SealError::WrongKey`] where it stands under another data key; [`SealError::NotAuthentic`] where it
    /// was altered or stands in another place than it was sealed for.
    pub fn open(&self, cell: &Cell<'_>, ciphertext: &[u8]) -> Result<Zeroizing<Vec<u8>>, SealError> {
        self.with_parts(cell, |parts| self.key.open(SealPurpose::Cell, parts, ciphertext))
    }

    #[cfg(test)]
    pub(crate) fn secret(&self) -> &[u8; 32] {
        self.key.bytes()
    }

    /// Workspace, table, column, then the row's parts: only the last may differ in number.
    fn with_parts<T>(&self, cell: &Cell<'_>, then: impl FnOnce(&[&[u8]]) -> T) -> T {
        let mut parts = Vec::with_capacity(3 + cell.row.len());
        parts.extend([&self.workspace[..], cell.table.as_bytes(), cell.column.as_bytes()]);
        parts.extend(cell.row);
        then(&parts)
    }
}

impl fmt::Debug for DataKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DataKey").field("id", &self.id()).finish_non_exhaustive()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const WORKSPACE: WorkspaceId = [1; 16];
    const OTHER: WorkspaceId = [2; 16];

    /// The same 32 bytes as the data key of another workspace, as a thief with both databases would try.
    fn of_workspace(key: &DataKey, workspace: WorkspaceId) -> DataKey {
        let key = SealingKey::new(Box::new(Zeroizing::new(*key.key.bytes())), ID_LABEL);
        DataKey { key, workspace }
    }

    #[test]
    fn a_wrapped_key_opens_what_the_key_sealed() {
        let kek = KeyEncryptionKey::generate().unwrap();
        let key = DataKey::generate(WORKSPACE).unwrap();
        let cell = Cell { table: "source", row: &[&[9; 16]], column: "private_key" };
        let sealed = key.seal(&cell, b"-----BEGIN PRIVATE KEY-----").unwrap();
        let wrapped = key.wrap(&kek).unwrap();
        let read = DataKey::unwrap(&kek, WORKSPACE, &wrapped).unwrap();
        assert_eq!(read.id(), key.id());
        assert_eq!(*read.open(&cell, &sealed).unwrap(), b"-----BEGIN PRIVATE KEY-----");
    }

    #[test]
    fn a_value_moved_to_any_other_place_does_not_open() {
        let key = DataKey::generate(WORKSPACE).unwrap();
        let home = Cell { table: "source", row: &[b"row", b"1"], column: "secret" };
        let sealed = key.seal(&home, b"value").unwrap();
        for cell in [
            Cell { table: "destination", ..home },
            Cell { column: "previous_secret", ..home },
            Cell { row: &[b"row", b"2"], ..home },
            Cell { row: &[b"row1"], ..home },
            Cell { row: &[b"row", b"1", b""], ..home },
            Cell { row: &[], ..home },
            Cell { table: "sourcesecret", column: "", ..home },
            Cell { table: "secret", column: "source", ..home },
        ] {
            assert_eq!(key.open(&cell, &sealed), Err(SealError::NotAuthentic), "{cell:?}");
        }
        assert_eq!(of_workspace(&key, OTHER).open(&home, &sealed), Err(SealError::NotAuthentic));
        assert_eq!(*key.open(&home, &sealed).unwrap(), b"value");
    }

    #[test]
    fn another_key_is_named_in_the_error() {
        let key = DataKey::generate(WORKSPACE).unwrap();
        let other = DataKey::generate(WORKSPACE).unwrap();
        let cell = Cell { table: "source", row: &[], column: "secret" };
        let sealed = key.seal(&cell, b"value").unwrap();
        let error = other.open(&cell, &sealed).unwrap_err();
        assert_eq!(error, SealError::WrongKey { sealed_under: key.id(), given: other.id() });
        assert!(error.to_string().contains(&key.id().to_string()), "{error}");
    }

    #[test]
    fn a_wrapped_key_belongs_to_its_workspace_and_to_its_key_encryption_key() {
        let kek = KeyEncryptionKey::generate().unwrap();
        let other = KeyEncryptionKey::generate().unwrap();
        let wrapped = DataKey::generate(WORKSPACE).unwrap().wrap(&kek).unwrap();
        assert_eq!(DataKey::unwrap(&kek, OTHER, &wrapped).unwrap_err(), SealError::NotAuthentic);
        assert_eq!(
            DataKey::unwrap(&other, WORKSPACE, &wrapped).unwrap_err(),
            SealError::WrongKey { sealed_under: kek.id(), given: other.id() }
        );
    }

    #[test]
    fn a_value_sealed_in_a_cell_cannot_be_passed_off_as_a_wrapped_key() {
        // An attacker who may choose a value that is sealed chooses 32 bytes and copies the ciphertext.
        let bytes = [5; 32];
        let kek = KeyEncryptionKey(SealingKey::new(Box::new(Zeroizing::new(bytes)), ID_LABEL));
        let key =
            DataKey { key: SealingKey::new(Box::new(Zeroizing::new(bytes)), ID_LABEL), workspace: WORKSPACE };
        let sealed = key.seal(&Cell { table: "", row: &[], column: "" }, &[6; 32]).unwrap();
        assert_eq!(DataKey::unwrap(&kek, WORKSPACE, &sealed).unwrap_err(), SealError::NotAuthentic);
    }

    #[test]
    fn rewrapping_keeps_the_data_key_and_leaves_nothing_under_the_old_one() {
        let (old, new) = (KeyEncryptionKey::generate().unwrap(), KeyEncryptionKey::generate().unwrap());
        let key = DataKey::generate(WORKSPACE).unwrap();
        let wrapped = key.wrap(&old).unwrap();
        assert_eq!(SealingKeyId::of_ciphertext(&wrapped), Ok(old.id()));
        let rewrapped = DataKey::rewrap(&old, &new, WORKSPACE, &wrapped).unwrap();
        assert_eq!(SealingKeyId::of_ciphertext(&rewrapped), Ok(new.id()));
        assert_eq!(DataKey::unwrap(&new, WORKSPACE, &rewrapped).unwrap().id(), key.id());
        assert!(DataKey::unwrap(&old, WORKSPACE, &rewrapped).is_err());
        assert!(DataKey::rewrap(&old, &new, WORKSPACE, &rewrapped).is_err());
    }

    type Place = (String, String, Vec<Vec<u8>>);

    fn place() -> impl Strategy<Value = Place> {
        // Few letters and short parts, so that ambiguous encodings would collide.
        ("[ab]{0,2}", "[ab]{0,2}", prop::collection::vec(prop::collection::vec(97u8..=98, 0..3), 0..3))
    }

    proptest! {
        #[test]
        fn a_value_opens_in_its_place_and_in_no_other(
            from in place(),
            to in place(),
            plaintext in prop::collection::vec(any::<u8>(), 0..100),
        ) {
            let key = DataKey::generate(WORKSPACE).unwrap();
            let rows: Vec<Vec<&[u8]>> =
                [&from, &to].iter().map(|place| place.2.iter().map(Vec::as_slice).collect()).collect();
            let home = Cell { table: &from.0, column: &from.1, row: &rows[0] };
            let away = Cell { table: &to.0, column: &to.1, row: &rows[1] };
            let sealed = key.seal(&home, &plaintext).unwrap();
            prop_assert_eq!(&*key.open(&home, &sealed).unwrap(), &plaintext);
            prop_assert_eq!(key.open(&away, &sealed).is_ok(), from == to);
        }
    }
}
