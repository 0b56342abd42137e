//! Which fields of what an audit entry shows before and after.
//!
//! A field that is not in the list is not recorded. What may be personal, or hold a secret in passing (an address with
//! a token in it), is sealed; what is a secret is never in the list.

use statusledger_verify::json::{Object, Value};

/// How a field is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shown {
    /// As it is.
    Clear,
    /// As a salted hash, with its opening beside the ledger.
    Sealed,
}

use Shown::{Clear, Sealed};

/// By the kind of thing.
const FIELDS: &[(&str, &[(&str, Shown)])] = &[
    ("workspace", &[("name", Clear), ("passkey_required", Clear)]),
    (
        "source",
        &[("kind", Clear), ("name", Sealed), ("webhook_secret_set", Clear), ("rollout_by_edits", Clear)],
    ),
    (
        "destination",
        &[
            ("kind", Clear),
            ("name", Sealed),
            ("url", Sealed),
            ("filter", Clear),
            ("openings", Clear),
            ("max_in_flight", Clear),
            ("enabled", Clear),
        ],
    ),
    ("api_key", &[("name", Sealed), ("scopes", Clear), ("instance", Clear), ("expires_at", Clear)]),
    ("member", &[("role", Clear), ("email", Sealed)]),
    (
        "settings",
        &[
            ("instance", Clear),
            ("data_dir", Clear),
            ("listen", Clear),
            ("port", Clear),
            ("database_connections", Clear),
            ("database_pooled", Clear),
            ("key_encryption_key_file", Clear),
            ("key_encryption_key_other_files", Clear),
            ("kms.key", Clear),
            ("kms.other_keys", Clear),
            ("kms.region", Clear),
            ("kms.endpoint", Clear),
            ("postgres_bin", Clear),
            ("public_url", Clear),
            ("trusted_proxies", Clear),
            ("access.session_idle_h", Clear),
            ("access.session_longest_h", Clear),
            ("access.deletion_waits_h", Clear),
            ("http.connections", Clear),
            ("http.head_timeout_s", Clear),
            ("access.sign_in_requests_per_minute", Clear),
            ("access.sign_ins_per_identity_per_minute", Clear),
            ("access.providers", Clear),
            ("api.requests_per_minute", Clear),
            ("api.burst", Clear),
            ("delivery.schedule_s", Clear),
            ("delivery.jitter", Clear),
            ("delivery.deadline_s", Clear),
            ("delivery.disable_after_s", Clear),
            ("delivery.breaker_failures", Clear),
            ("delivery.retry_after_cap_s", Clear),
            ("delivery.allow_http", Clear),
            ("delivery.allow_networks", Clear),
            ("delivery.extra_roots", Clear),
            ("polling.interval_s", Clear),
            ("polling.settled_s", Clear),
            ("polling.allow_other_hosts", Clear),
            ("polling.time_scale", Clear),
            ("self_audit.entries_per_second", Clear),
            ("self_audit.interval_s", Clear),
            ("retention.attempts_days", Clear),
            ("retention.deliveries_days", Clear),
            ("retention.openings_days", Clear),
        ],
    ),
];

/// Whether a field of this kind of thing is shown.
pub(super) fn is_listed(of: &str, field: &str) -> bool {
    FIELDS.iter().any(|(kind, fields)| *kind == of && fields.iter().any(|(name, _)| *name == field))
}

/// A JSON value as entries can carry it: numbers that are no integers become text.
fn canonical(value: &serde_json::Value) -> Value {
    use serde_json::Value as V;
    match value {
        V::Null => Value::Null,
        V::Bool(b) => Value::Bool(*b),
        V::Number(n) => n
            .as_i64()
            .filter(|n| n.unsigned_abs() < 1 << 53)
            .map_or_else(|| Value::String(n.to_string()), Value::Int),
        V::String(s) => Value::String(s.clone()),
        V::Array(items) => Value::Array(items.iter().map(canonical).collect()),
        V::Object(members) => {
            let mut object = Object::default();
            for (name, value) in members {
                object.insert(name.clone(), canonical(value));
            }
            Value::Object(object)
        }
    }
}

/// What differs of the listed fields: `{"field":{"before":…,"after":…}}`, and apart from that what is sealed, under the
/// names `<field>_before` and `<field>_after`.
pub(super) fn differences(
    of: &'static str,
    before: Option<&serde_json::Value>,
    after: Option<&serde_json::Value>,
) -> (Object, Vec<(&'static str, Value)>) {
    let (mut clear, mut sealed) = (Object::default(), Vec::new());
    let listed = FIELDS.iter().find(|(kind, _)| *kind == of).map_or(&[][..], |(_, fields)| fields);
    for (field, shown) in listed {
        let of = |side: Option<&serde_json::Value>| {
            side.and_then(|object| object.get(*field)).filter(|v| !v.is_null()).cloned()
        };
        let (was, is) = (of(before), of(after));
        if was == is {
            continue;
        }
        match shown {
            Clear => {
                let mut change = Object::default();
                if let Some(was) = &was {
                    change.insert("before".into(), canonical(was));
                }
                if let Some(is) = &is {
                    change.insert("after".into(), canonical(is));
                }
                clear.insert((*field).into(), Value::Object(change));
            }
            Sealed => {
                let (name_before, name_after) = sealed_names(field);
                sealed.extend(was.map(|was| (name_before, canonical(&was))));
                sealed.extend(is.map(|is| (name_after, canonical(&is))));
            }
        }
    }
    (clear, sealed)
}

const fn sealed_names(field: &str) -> (&'static str, &'static str) {
    match field.as_bytes() {
        b"name" => ("name_before", "name_after"),
        b"url" => ("url_before", "url_after"),
        b"email" => ("email_before", "email_after"),
        _ => ("before", "after"),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde_json::json;

    #[test]
    fn only_listed_fields_are_shown_and_personal_ones_sealed() {
        let before = json!({"name": "old", "enabled": true, "secret": "whsec_x", "new_field": 1});
        let after = json!({"name": "new", "enabled": false, "secret": "whsec_y", "new_field": 2});
        let (clear, sealed) = differences("destination", Some(&before), Some(&after));
        assert_eq!(Value::Object(clear).canonical(), r#"{"enabled":{"after":false,"before":true}}"#);
        let names: Vec<_> = sealed.iter().map(|(name, _)| *name).collect();
        assert_eq!(names, ["name_before", "name_after"]);
    }

    #[test]
    fn every_sealed_field_has_a_name_of_its_own() {
        for (kind, fields) in FIELDS {
            for (field, shown) in *fields {
                assert!(*shown == Clear || sealed_names(field).0 != "before", "{kind}.{field}");
                assert!(!field.contains("secret") || *field == "webhook_secret_set", "{kind}.{field}");
            }
        }
    }
}
