//! What the person who did something is called, sealed with the entry: after they are gone, `usr_…` says nothing to anybody.
//!
//! It is looked up where the entry is appended, in its own transaction, so that nobody who records an act can forget it.

use crate::access::people;
use crate::id::{UserId, WorkspaceId};
use crate::ledger::{Draft, append};
use crate::sealing::DataKeys;
use sqlx::PgConnection;
use statusledger_verify::json::Value;
use std::collections::HashMap;

/// The sealed value's name in entries.
pub const NAME: &str = "actor_display";

/// The same drafts, with what each person is called.
///
/// # Errors
/// If the database does not answer, or a person's profile does not open.
pub async fn sealed(
    tx: &mut PgConnection,
    data_keys: &DataKeys,
    drafts: &[Draft],
) -> Result<Vec<Draft>, append::Error> {
    let mut called: HashMap<UserId, Option<String>> = HashMap::new();
    let mut named = Vec::with_capacity(drafts.len());
    for draft in drafts {
        let draft = draft.clone();
        let Some(person) = draft.person else {
            named.push(draft);
            continue;
        };
        let display = match called.get(&person) {
            Some(display) => display.clone(),
            None => {
                let display = look_up(tx, data_keys, person).await?;
                called.insert(person, display.clone());
                display
            }
        };
        named.push(match display {
            // An act of which there is no room to say who it was is recorded all the same: its id says it.
            Some(display) => draft.clone().sealing_too(NAME, &Value::String(display)).unwrap_or(draft),
            None => draft,
        });
    }
    Ok(named)
}

/// A person's name and address, as far as there are any; the address that they were invited by into the workspace that the
/// transaction sees, where there is no other.
async fn look_up(
    tx: &mut PgConnection,
    data_keys: &DataKeys,
    person: UserId,
) -> Result<Option<String>, append::Error> {
    // Whoever the transaction was told to look at, it looks at them again afterwards.
    let before = sqlx::query!(
        r#"SELECT COALESCE(current_setting('sl.user', true), '') AS "before!", set_config('sl.user', $1, true) AS now"#,
        person.uuid().to_string()
    )
    .fetch_one(&mut *tx)
    .await?
    .before;
    let row = sqlx::query!(
        r#"SELECT u.profile, i.workspace_id AS "instance: WorkspaceId", m.workspace_id AS "workspace?: WorkspaceId",
                  m.profile AS "invited_as?"
             FROM users u CROSS JOIN instance i
             LEFT JOIN members m ON m.user_id = u.user_id
                  AND m.workspace_id = NULLIF(current_setting('sl.workspace', true), '')::uuid
            WHERE u.user_id = $1"#,
        person.uuid()
    )
    .fetch_optional(&mut *tx)
    .await?;
    sqlx::query_scalar!("SELECT set_config('sl.user', $1, true)", before).fetch_one(&mut *tx).await?;
    let Some(row) = row else { return Ok(None) };
    let data_key = data_keys.get(row.instance).await?;
    let profile = people::open_profile(&data_key, "users", person.uuid(), &row.profile)?;
    let mut invited_as = None;
    if let (None, Some(workspace), Some(sealed)) = (&profile.email, row.workspace, row.invited_as) {
        let data_key = data_keys.get(workspace).await?;
        invited_as = people::open_profile(&data_key, "members", person.uuid(), &sealed)?.email;
    }
    Ok(profile.display(invited_as.as_deref()))
}
