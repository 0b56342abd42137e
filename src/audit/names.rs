//! What those who act are called now, beside the entries of a search: for whoever may list them anyway, and so nobody's
//! secret. What an entry itself has sealed is opened by other routes, and that is on the record.

use crate::access::door::{Caller, Gate};
use crate::access::people;
use crate::access::scope::Permission;
use crate::http::problem::Problem;
use crate::id::{KeyId, UserId, WorkspaceId};
use crate::sealing::DataKeys;
use std::collections::{BTreeMap, BTreeSet};
use uuid::Uuid;

/// The names of `actors` (ids, as entries have them) by id, as far as `caller` may list them in `workspace`: API keys, those
/// of the instance too for a key that reaches it, and members; in the instance's own workspace everybody. Who is gone, and
/// whoever has neither name nor address, is not among them.
///
/// # Errors
/// If the database does not answer, or a profile does not open.
pub async fn of(
    gate: &Gate,
    data_keys: &DataKeys,
    caller: &Caller,
    workspace: WorkspaceId,
    actors: &BTreeSet<String>,
) -> Result<BTreeMap<String, String>, Problem> {
    let mut names = BTreeMap::new();
    let grants = caller.grants();
    let keys: Vec<Uuid> = actors.iter().filter_map(|id| id.parse::<KeyId>().ok()).map(KeyId::uuid).collect();
    if !keys.is_empty() && grants.has(Permission::KeysRead) {
        names_of_keys(gate, workspace, &keys, &mut names).await?;
        let reaches = matches!(caller, Caller::Key { instance: true, .. });
        if reaches && workspace != gate.instance {
            names_of_keys(gate, gate.instance, &keys, &mut names).await?;
        }
    }
    let people: Vec<Uuid> =
        actors.iter().filter_map(|id| id.parse::<UserId>().ok()).map(UserId::uuid).collect();
    if people.is_empty() || !grants.has(Permission::MembersRead) {
        return Ok(names);
    }
    let mut tx = gate.database.workspace(workspace).await?;
    if workspace == gate.instance && grants.has(Permission::PeopleRead) {
        sqlx::query_scalar!("SELECT set_config('sl.people', 'all', true)").fetch_one(&mut *tx).await?;
    }
    // Whom row-level security lets the transaction see: the members, and in the second case everybody.
    let rows = sqlx::query!(
        r#"SELECT u.user_id AS "user: UserId", u.profile, m.profile AS "invited_as?"
             FROM users u LEFT JOIN members m ON m.workspace_id = $1 AND m.user_id = u.user_id
            WHERE u.user_id = ANY ($2)"#,
        workspace.uuid(),
        &people
    )
    .fetch_all(&mut *tx)
    .await?;
    drop(tx);
    let data_key = data_keys.get(gate.instance).await?;
    for row in rows {
        let profile = people::open_profile(&data_key, "users", row.user.uuid(), &row.profile)?;
        let mut invited_as = None;
        if let Some(sealed) = row.invited_as {
            let workspace_key = data_keys.get(workspace).await?;
            invited_as = people::open_profile(&workspace_key, "members", row.user.uuid(), &sealed)?.email;
        }
        let name = profile.display(invited_as.as_deref());
        names.extend(name.map(|name| (row.user.to_string(), name)));
    }
    Ok(names)
}

async fn names_of_keys(
    gate: &Gate,
    workspace: WorkspaceId,
    keys: &[Uuid],
    names: &mut BTreeMap<String, String>,
) -> Result<(), Problem> {
    let mut tx = gate.database.workspace(workspace).await?;
    let rows = sqlx::query!(
        r#"SELECT key_id AS "id: KeyId", name FROM api_keys WHERE workspace_id = $1 AND key_id = ANY ($2)"#,
        workspace.uuid(),
        keys
    )
    .fetch_all(&mut *tx)
    .await?;
    names.extend(rows.into_iter().map(|row| (row.id.to_string(), row.name)));
    Ok(())
}
