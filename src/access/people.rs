//! People: who somebody is. Names and addresses are sealed under the instance's data key, and looked up by keyed hashes.

use super::secret::{AccessSecret, Purpose};
use crate::id::{UserId, WorkspaceId};
use crate::name;
use crate::redacted::redacted;
use crate::sealing::{self, DataKeys};
use serde::{Deserialize, Serialize};
use statusledger_keys::envelope::{Cell, DataKey};
use utoipa::ToSchema;

redacted!(Profile);

/// What is known of a person.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Profile {
    /// Their address, as they wrote it.
    pub email: Option<String>,
    /// What they call themselves.
    pub name: Option<String>,
}

impl Profile {
    /// Name and address in a line, as far as there are any: `Ana <ana@example.com>`. Where no provider has verified an address,
    /// the one that a member was invited by, and that it is no more than that: `Ana (invited as ana@example.com)`.
    #[must_use]
    pub fn display(&self, invited_as: Option<&str>) -> Option<String> {
        // What somebody calls themselves must not look like an address that was verified.
        let name = self.name.as_deref().map(|name| name.replace(['<', '>', '(', ')'], ""));
        match (name, &self.email, invited_as) {
            (Some(name), Some(email), _) => Some(format!("{name} <{email}>")),
            (None, Some(email), _) => Some(email.clone()),
            (Some(name), None, Some(invited)) => Some(format!("{name} (invited as {invited})")),
            (None, None, Some(invited)) => Some(format!("invited as {invited}")),
            (Some(name), None, None) if name.contains('@') => Some(format!("{name} (not verified)")),
            (name, None, None) => name,
        }
    }

    /// What can be kept of what others say of somebody: a name without what is hidden in it, cut, and an address that is
    /// one.
    #[must_use]
    pub fn cleaned(&self) -> Self {
        let email = self.email.as_deref().map(str::trim).filter(|email| is_email(email));
        Self { email: email.map(str::to_owned), name: self.name.as_deref().and_then(name::cleaned) }
    }
}

/// An address as it is compared: without white space around it, in lower case.
#[must_use]
pub fn comparable(email: &str) -> String {
    email.trim().to_lowercase()
}

/// Whether it looks like an address: something, `@`, something with a dot, nothing odd.
#[must_use]
pub fn is_email(email: &str) -> bool {
    let fine = |part: &str| {
        !part.is_empty() && part.chars().all(|c| !name::is_hidden(c) && !c.is_whitespace() && c != '@')
    };
    email.len() <= 254
        && email.split_once('@').is_some_and(|(local, host)| fine(local) && fine(host) && host.contains('.'))
}

/// What an address is looked up by.
#[must_use]
pub fn email_index(secret: &AccessSecret, email: &str) -> [u8; 32] {
    secret.mac(Purpose::Email, comparable(email).as_bytes())
}

/// What an identity is looked up by: the issuer's address, which has no line break in it, and the subject there.
#[must_use]
pub fn subject_index(secret: &AccessSecret, issuer: &str, subject: &str) -> [u8; 32] {
    secret.mac(Purpose::Subject, format!("{issuer}\n{subject}").as_bytes())
}

/// Seals a profile for its row of `table` (`users`, `invitations`, `members`).
///
/// # Errors
/// If it is too long.
pub fn seal_profile(
    key: &DataKey,
    table: &str,
    id: uuid::Uuid,
    profile: &Profile,
) -> Result<Vec<u8>, sealing::Error> {
    let text = serde_json::to_vec(profile).unwrap_or_default();
    Ok(key.seal(&Cell { table, row: &[id.as_bytes()], column: "profile" }, &text)?)
}

/// Opens one.
///
/// # Errors
/// If it was sealed for another row, or changed.
pub fn open_profile(
    key: &DataKey,
    table: &str,
    id: uuid::Uuid,
    sealed: &[u8],
) -> Result<Profile, sealing::Error> {
    let text = key.open(&Cell { table, row: &[id.as_bytes()], column: "profile" }, sealed)?;
    Ok(serde_json::from_slice(&text).unwrap_or_default())
}

/// Makes a person, in a transaction that sees them (`sl.user`). What identity providers say of them is cleaned
/// ([`Profile::cleaned`]).
///
/// # Errors
/// If the address is another's, or the database does not confirm.
pub async fn insert(
    tx: &mut sqlx::PgConnection,
    secret: &AccessSecret,
    data_keys: &DataKeys,
    instance: WorkspaceId,
    id: UserId,
    profile: &Profile,
) -> Result<(), sealing::Error> {
    let data_key = data_keys.get(instance).await?;
    let profile = profile.cleaned();
    let sealed = seal_profile(&data_key, "users", id.uuid(), &profile)?;
    sqlx::query!(
        "INSERT INTO users (user_id, email_index, profile) VALUES ($1, $2, $3)",
        id.uuid(),
        profile.email.as_deref().map(|email| email_index(secret, email).to_vec()),
        sealed
    )
    .execute(tx)
    .await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_compared_without_case() {
        let secret = AccessSecret::test();
        assert_eq!(email_index(&secret, " Ana@Example.com"), email_index(&secret, "ana@example.com"));
        assert_ne!(email_index(&secret, "ana@example.com"), email_index(&secret, "ana@example.org"));
        for good in ["a@b.c", "ana.b+x@mail.example.com"] {
            assert!(is_email(good), "{good}");
        }
        for bad in ["", "a", "a@b", "@b.c", "a@@b.c", "a b@c.d", "a@b .c", "a\u{202e}@b.c", "a@b\u{200b}.c"] {
            assert!(!is_email(bad), "{bad}");
        }
    }

    #[test]
    fn an_address_that_nobody_verified_is_not_shown_as_one_that_somebody_did() {
        let of = |name: Option<&str>, email: Option<&str>, invited| {
            Profile { email: email.map(str::to_owned), name: name.map(str::to_owned) }.display(invited)
        };
        let (ana, mail, other) = (Some("Ana"), Some("ana@example.com"), Some("a@example.org"));
        for (shown, expected) in [
            (of(ana, mail, other), Some("Ana <ana@example.com>")),
            (of(None, mail, other), Some("ana@example.com")),
            (of(ana, None, other), Some("Ana (invited as a@example.org)")),
            (of(None, None, other), Some("invited as a@example.org")),
            (of(ana, None, None), Some("Ana")),
            (of(None, None, None), None),
        ] {
            assert_eq!(shown.as_deref(), expected);
        }
    }

    #[test]
    fn what_a_provider_says_of_somebody_is_kept_as_far_as_it_can_be_shown() {
        let said = |email: &str, name: &str| {
            Profile { email: Some(email.into()), name: Some(name.into()) }.cleaned()
        };
        let kept = said(" ana@example.com", &format!("\u{202e}\u{1b}Ana\u{0}{}", "a".repeat(400_000)));
        assert_eq!(kept.email.as_deref(), Some("ana@example.com"));
        assert!(kept.name.is_some_and(|name| name.starts_with("Anaa") && name.len() == 100));
        assert_eq!(said("\u{1b}[31m", "\u{200b}"), Profile::default());
        assert_eq!(said(&format!("{}@b.c", "a".repeat(400_000)), " ").email, None);
    }
}
