//! What a node finds changed at its start: the schema, its own settings. Both go on the record of the instance.

use super::{Act, Action, fields};
use crate::config::Settings;
use crate::id::{NodeId, WorkspaceId};
use crate::ledger::{Writer, append, draft};
use serde_json::Value;
use statusledger_verify::json;

/// What is shown of an identity provider: who it is, and where it is asked.
const OF_A_PROVIDER: [&str; 7] = ["id", "kind", "issuer", "client_id", "scopes", "url", "api_url"];

/// The settings as entries show them: flat, by their dotted names. Only those of [`super::fields`] are recorded.
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
    let of_a_provider = |listed: bool| {
        move |provider: &Value| -> Value {
            let members = provider.as_object().into_iter().flatten();
            let kept = members
                .filter(|(name, value)| !value.is_null() && OF_A_PROVIDER.contains(&name.as_str()) == listed);
            Value::Object(kept.map(|(name, value)| (name.clone(), value.clone())).collect())
        }
    };
    let providers = all["access"]["providers"].as_array().cloned().unwrap_or_default();
    for (name, listed) in [("access.providers", true), ("access.providers_other", false)] {
        flat.insert(name.to_owned(), providers.iter().map(of_a_provider(listed)).collect());
    }
    Value::Object(flat)
}

/// The names of what differs.
fn differing(before: &Value, after: &Value) -> Vec<String> {
    let empty = serde_json::Map::new();
    let (before, after) = (before.as_object().unwrap_or(&empty), after.as_object().unwrap_or(&empty));
    let mut names: Vec<String> = before.keys().chain(after.keys()).cloned().collect();
    names.sort();
    names.dedup();
    names.retain(|name| before.get(name).unwrap_or(&Value::Null) != after.get(name).unwrap_or(&Value::Null));
    names
}

/// The entry of a change of settings: what the listed ones were and are; of others only that they differ.
fn changed(node: NodeId, was: &Value, is: &Value) -> Result<draft::Draft, draft::Error> {
    let act = Act::operator();
    let differing = differing(was, is);
    let others = differing.iter().any(|name| !fields::is_listed("settings", name));
    let record = || {
        let record = act.of(Action::SettingsChanged).target("node", node);
        if others { record.detail("others_changed", json::Value::Bool(true)) } else { record }
    };
    match record().changed("settings", Some(was), Some(is)).draft() {
        // Thousands of networks do not fit an entry: then it says which settings they are.
        Err(draft::Error::TooLong(_)) => {
            let names = differing.into_iter().filter(|name| fields::is_listed("settings", name));
            record().detail("changed", json::Value::Array(names.map(json::Value::String).collect())).draft()
        }
        drafted => drafted,
    }
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
        if name == "schema" {
            let number = |text: &str| json::Value::Int(text.parse().unwrap_or_default());
            let record = act.of(Action::Migrated);
            drafts.push(record.detail("from", number(&before)).detail("to", number(&value)).draft()?);
        } else {
            let was: Value = serde_json::from_str(&before).unwrap_or_default();
            drafts.push(changed(node, &was, &is)?);
        }
    }
    locked.append(&drafts).await?;
    locked.commit().await
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::config::{ProviderKind, ProviderSettings};
    use serde_json::json;

    /// Settings that no entry shows, each with the reason. That they differ is told all the same, but for addresses of
    /// databases, which may hold passwords and are not even looked at.
    const UNLISTED: [(&str, &str); 4] = [
        ("database_url", "may hold a password"),
        ("worker_database_url", "may hold a password"),
        ("owner_database_url", "may hold a password"),
        ("access.providers_other", "names on buttons, and the files of clients' secrets"),
    ];

    fn with_a_provider(name: &str, issuer: &str) -> Settings {
        let mut settings = Settings::default();
        settings.access.providers.push(ProviderSettings {
            id: "one".into(),
            kind: ProviderKind::Oidc,
            name: name.into(),
            issuer: Some(issuer.into()),
            client_id: "client".into(),
            client_secret_file: Some("/a/secret/file".into()),
            scopes: vec!["email".into()],
            url: None,
            api_url: None,
        });
        settings
    }

    #[test]
    fn settings_are_shown_flat_and_without_addresses_of_databases() {
        let settings =
            Settings { database_url: Some("postgres://u:secret@h/d".into()), ..Settings::default() };
        let flat = shown(&settings);
        assert_eq!(flat["delivery.deadline_s"], 20.0);
        assert!(!flat.to_string().contains("secret"));
        assert!(flat.as_object().is_some_and(|members| members.values().all(|v| !v.is_object())));
    }

    #[test]
    fn every_setting_is_shown_in_entries_or_named_with_a_reason() {
        let all = serde_json::to_value(with_a_provider("One", "https://one.example")).unwrap();
        let mut names: Vec<String> = shown(&with_a_provider("One", "https://one.example"))
            .as_object()
            .unwrap()
            .keys()
            .cloned()
            .collect();
        names.extend(all.as_object().unwrap().keys().filter(|n| n.ends_with("database_url")).cloned());
        assert!(names.len() > 35, "{names:?}");
        for name in &names {
            let listed = fields::is_listed("settings", name);
            let unlisted = UNLISTED.iter().any(|(unlisted, _)| unlisted == name);
            assert!(listed != unlisted, "{name} is neither listed nor named, or both");
        }
        for (name, why) in UNLISTED {
            assert!(names.iter().any(|known| known == name) && !why.is_empty(), "{name} is no setting");
        }
        let provider = all["access"]["providers"][0].as_object().unwrap();
        let others: Vec<_> = provider.keys().filter(|name| !OF_A_PROVIDER.contains(&name.as_str())).collect();
        assert_eq!(others, ["client_secret_file", "name"], "a provider's field is shown, or not worth it");
    }

    #[test]
    fn an_entry_says_what_the_listed_settings_were_and_of_others_that_they_differ() {
        let node = NodeId::new();
        let none = shown(&Settings::default());
        let one = shown(&with_a_provider("One", "https://one.example"));
        let data = |was: &Value, is: &Value| -> Value {
            serde_json::from_str(changed(node, was, is).unwrap().data()).unwrap()
        };
        let added = data(&none, &one);
        let provider = &added["changes"]["access.providers"]["after"][0];
        assert_eq!(
            (&provider["issuer"], &provider["client_id"]),
            (&json!("https://one.example"), &json!("client"))
        );
        assert!(!added.to_string().contains("secret"), "{added}");
        let other = data(&one, &shown(&with_a_provider("One", "https://two.example")));
        assert_eq!(other["changes"]["access.providers"]["after"][0]["issuer"], "https://two.example");
        assert_eq!(other.get("details"), None);
        let renamed = data(&one, &shown(&with_a_provider("Another name", "https://one.example")));
        assert_eq!(renamed.get("changes"), None);
        assert_eq!(renamed["details"], json!({ "others_changed": true }));
        // More than fits is told by its name.
        let many = Settings { trusted_proxies: vec!["2001:db8::/32".into(); 9000], ..Settings::default() };
        assert_eq!(data(&none, &shown(&many))["details"]["changed"], json!(["trusted_proxies"]));
    }
}
