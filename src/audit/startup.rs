//! What a node finds changed at its start: the schema, its own settings. Both go on the record of the instance.

use super::{Act, Action};
use crate::config::Settings;
use crate::id::{NodeId, WorkspaceId};
use crate::ledger::{Writer, append};
use serde_json::Value;
use statusledger_verify::json;

/// The settings as entries show them: flat, by their dotted names. Only those of [`super::fields`] are recorded; the
/// addresses of databases, which may hold passwords, are not even looked at.
fn shown(settings: &Settings) -> Value {
    fn flatten(prefix: &str, value: &Value, into: &mut serde_json::Map<String, Value>) {
        match value {
            Value::Object(members) => {
                for (name, value) in members {
                    let name = if prefix.is_empty() { name.clone() } else { format!("{prefix}.{name}") };
                    flatten(&name, value, into);
                }
            }
            other => drop(into.insert(prefix.to_owned(), other.clone())),
        }
    }
    let mut all = serde_json::to_value(settings).unwrap_or_default();
    if let Some(members) = all.as_object_mut() {
        members.retain(|name, _| !name.ends_with("database_url"));
    }
    let mut flat = serde_json::Map::new();
    flatten("", &all, &mut flat);
    Value::Object(flat)
}

/// Records what differs from the last start of this node. The first start of all differs from nothing.
///
/// # Errors
/// If the database does not confirm; then the node does not start.
pub async fn record(
    writer: &Writer,
    instance: WorkspaceId,
    node: NodeId,
    settings: &Settings,
) -> Result<(), append::Error> {
    let mut locked = writer.lock(instance).await?;
    let version =
        sqlx::query_scalar!(r#"SELECT max(version) AS "version!" FROM _sqlx_migrations WHERE success"#)
            .fetch_one(&mut **locked)
            .await?;
    let settings_name = format!("settings of {node}");
    let is = shown(settings);
    let facts = [("schema", version.to_string()), (settings_name.as_str(), is.to_string())];
    let act = Act::operator();
    let mut drafts = Vec::new();
    for (name, value) in facts {
        let before = sqlx::query_scalar!("SELECT value FROM instance_facts WHERE name = $1", name)
            .fetch_optional(&mut **locked)
            .await?;
        if before.as_ref() == Some(&value) {
            continue;
        }
        sqlx::query!(
            "INSERT INTO instance_facts (name, value) VALUES ($1, $2) ON CONFLICT (name) DO UPDATE SET value = $2",
            name,
            value
        )
        .execute(&mut **locked)
        .await?;
        let Some(before) = before else { continue };
        let record = if name == "schema" {
            let number = |text: &str| json::Value::Int(text.parse().unwrap_or_default());
            act.of(Action::Migrated).detail("from", number(&before)).detail("to", number(&value))
        } else {
            let was: Value = serde_json::from_str(&before).unwrap_or_default();
            let record = act.of(Action::SettingsChanged).target("node", node).changed(
                "settings",
                Some(&was),
                Some(&is),
            );
            // Only settings that are not listed differ.
            if !record.says_changes() {
                continue;
            }
            record
        };
        drafts.push(record.draft()?);
    }
    locked.append(&drafts).await?;
    locked.commit().await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_shown_flat_and_without_addresses_of_databases() {
        let settings =
            Settings { database_url: Some("postgres://u:secret@h/d".into()), ..Settings::default() };
        let flat = shown(&settings);
        assert_eq!(flat["delivery.deadline_s"], 20.0);
        assert!(!flat.to_string().contains("secret"));
        assert!(flat.as_object().is_some_and(|members| members.values().all(|v| !v.is_object())));
    }
}
