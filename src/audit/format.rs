//! Audit entries as others read them: JSON Lines, CSV (RFC 4180), OCSF 1.3, CEF.
//!
//! The ledger's own export proves itself; these do not, and say so by naming ledger and seq of each entry.

use serde_json::{Value, json};

/// How audit entries are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Format {
    /// One object a line: the entry, and its openings where they were asked for.
    Jsonl,
    /// Comma-separated values, with a heading.
    Csv,
    /// Events of the Open Cybersecurity Schema Framework, one a line.
    Ocsf,
    /// Lines of the Common Event Format.
    Cef,
}

impl Format {
    /// Its name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Jsonl => "jsonl",
            Self::Csv => "csv",
            Self::Ocsf => "ocsf",
            Self::Cef => "cef",
        }
    }

    /// Its media type.
    #[must_use]
    pub const fn media_type(self) -> &'static str {
        match self {
            Self::Jsonl | Self::Ocsf => "application/x-ndjson",
            Self::Csv => "text/csv; charset=utf-8",
            Self::Cef => "text/plain; charset=utf-8",
        }
    }

    /// What stands before the first entry.
    #[must_use]
    pub fn heading(self) -> String {
        match self {
            Self::Csv => COLUMNS.join(",") + "\r\n",
            _ => String::new(),
        }
    }

    /// One entry, with its line's end. `entry` is the whole entry; `opened` the values of its openings by name.
    #[must_use]
    pub fn line(self, instance: &str, entry: &Value, opened: &Value) -> String {
        match self {
            Self::Jsonl => {
                let mut line = entry.clone();
                if !is_empty(opened) {
                    line["opened"] = opened.clone();
                }
                format!("{line}\n")
            }
            Self::Csv => csv(entry, opened),
            Self::Ocsf => format!("{}\n", ocsf(instance, entry, opened)),
            Self::Cef => cef(instance, entry, opened),
        }
    }
}

fn is_empty(value: &Value) -> bool {
    value.as_object().is_none_or(serde_json::Map::is_empty)
}

fn text<'a>(value: &'a Value, pointer: &str) -> &'a str {
    value.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

const COLUMNS: [&str; 16] = [
    "ledger",
    "seq",
    "timestamp",
    "action",
    "outcome",
    "reason",
    "actor_type",
    "actor_id",
    "actor_display",
    "surface",
    "targets",
    "changes",
    "details",
    "request",
    "ip",
    "user_agent",
];

/// A field of RFC 4180. One that a spreadsheet would take for a formula begins with an apostrophe.
fn field(value: &str) -> String {
    let value = match value.chars().next() {
        Some('=' | '+' | '-' | '@' | '\t' | '\r') => format!("'{value}"),
        _ => value.to_owned(),
    };
    if value.contains([',', '"', '\r', '\n']) { format!("\"{}\"", value.replace('"', "\"\"")) } else { value }
}

fn targets(entry: &Value) -> String {
    let list =
        entry.pointer("/data/targets").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let words: Vec<String> =
        list.iter().map(|target| format!("{}:{}", text(target, "/type"), text(target, "/id"))).collect();
    words.join(" ")
}

fn object(entry: &Value, pointer: &str) -> String {
    entry.pointer(pointer).filter(|v| !is_empty(v)).map(Value::to_string).unwrap_or_default()
}

fn csv(entry: &Value, opened: &Value) -> String {
    let seq = entry["seq"].to_string();
    let (targets, changes, details) =
        (targets(entry), object(entry, "/data/changes"), object(entry, "/data/details"));
    let fields = [
        text(entry, "/ledger"),
        &seq,
        text(entry, "/timestamp"),
        text(entry, "/type"),
        text(entry, "/data/outcome"),
        text(entry, "/data/reason"),
        text(entry, "/data/actor/type"),
        text(entry, "/data/actor/id"),
        text(opened, "/actor_display"),
        text(entry, "/data/surface"),
        &targets,
        &changes,
        &details,
        text(entry, "/data/request"),
        text(opened, "/ip"),
        text(opened, "/user_agent"),
    ];
    fields.map(field).join(",") + "\r\n"
}

/// Class and activity of an action: Authentication (3002), Account Change (3001), API Activity (6003).
fn class_of(kind: &str) -> (u32, u32, u32, &'static str) {
    let (class, category) = match kind {
        "audit.session.signed_in" | "audit.session.sign_in_failed" => return (3002, 3, 1, "Logon"),
        "audit.session.signed_out" | "audit.session.revoked" => return (3002, 3, 2, "Logoff"),
        k if k.starts_with("audit.member.")
            || k.starts_with("audit.passkey.")
            || k.starts_with("audit.invitation.") =>
        {
            (3001, 3)
        }
        _ => (6003, 6),
    };
    let verb = kind.rsplit('.').next().unwrap_or_default();
    let (activity, name) = match (class, verb) {
        (3001, "invited" | "joined" | "added") => (1, "Create"),
        (3001, "removed" | "revoked") => (6, "Delete"),
        (6003, "created") => (1, "Create"),
        (6003, "downloaded" | "exported" | "shown") => (2, "Read"),
        (6003, "updated" | "rotated" | "secret_rotated" | "changed" | "applied" | "migrated") => {
            (3, "Update")
        }
        (6003, "deleted" | "revoked") => (4, "Delete"),
        _ => (99, "Other"),
    };
    (class, category, activity, name)
}

fn millis(entry: &Value) -> i64 {
    use time::OffsetDateTime;
    use time::format_description::well_known::Rfc3339;
    OffsetDateTime::parse(text(entry, "/timestamp"), &Rfc3339)
        .map_or(0, |at| i64::try_from(at.unix_timestamp_nanos() / 1_000_000).unwrap_or(0))
}

fn ocsf(instance: &str, entry: &Value, opened: &Value) -> Value {
    let kind = text(entry, "/type");
    let (class, category, activity, activity_name) = class_of(kind);
    let outcome = text(entry, "/data/outcome");
    let succeeded = outcome == "success";
    let mut user = json!({ "uid": text(entry, "/data/actor/id"), "type": text(entry, "/data/actor/type"), "type_id": 99 });
    if !text(opened, "/actor_display").is_empty() {
        user["name"] = opened["actor_display"].clone();
    }
    let mut event = json!({
        "activity_id": activity,
        "activity_name": activity_name,
        "category_uid": category,
        "class_uid": class,
        "type_uid": class * 100 + activity,
        "severity_id": if succeeded { 1 } else { 3 },
        "status_id": if succeeded { 1 } else { 2 },
        "status": if succeeded { "Success" } else { "Failure" },
        "time": millis(entry),
        "message": kind,
        "metadata": {
            "version": "1.3.0",
            "uid": format!("{}/{}", text(entry, "/ledger"), entry["seq"]),
            "event_code": kind,
            "sequence": entry["seq"],
            "product": { "name": "statusledger", "vendor_name": "statusledger", "version": env!("CARGO_PKG_VERSION") },
            "log_name": format!("{instance}/{}", text(entry, "/ledger")),
        },
        "actor": { "user": user },
        "src_endpoint": { "uid": text(entry, "/data/surface") },
        "unmapped": entry["data"],
    });
    if !text(entry, "/data/reason").is_empty() {
        event["status_detail"] = entry["data"]["reason"].clone();
    }
    // An empty text is no address.
    if !text(opened, "/ip").is_empty() {
        event["src_endpoint"]["ip"] = opened["ip"].clone();
    }
    if !text(opened, "/user_agent").is_empty() {
        event["http_request"] =
            json!({ "user_agent": opened["user_agent"], "uid": text(entry, "/data/request") });
    }
    match class {
        6003 => {
            event["api"] = json!({ "operation": kind, "request": { "uid": text(entry, "/data/request") } })
        }
        3001 => {
            let whom = entry.pointer("/data/targets/0/id").and_then(Value::as_str).unwrap_or_default();
            event["user"] = json!({ "uid": whom });
        }
        _ => {
            event["user"] = user;
            event["service"] = json!({ "name": "statusledger" });
        }
    }
    event
}

/// A part of CEF's heading.
fn head(value: &str) -> String {
    value.replace('\\', "\\\\").replace('|', "\\|").replace(['\r', '\n'], " ")
}

/// A value of CEF's extension.
fn extension(value: &str) -> String {
    value.replace('\\', "\\\\").replace('=', "\\=").replace('\r', "").replace('\n', "\\n")
}

fn cef(instance: &str, entry: &Value, opened: &Value) -> String {
    let kind = text(entry, "/type");
    let outcome = text(entry, "/data/outcome");
    let severity = match outcome {
        "success" => 3,
        _ => 6,
    };
    let name = kind.trim_start_matches("audit.").replace(['.', '_'], " ");
    let (at, seq) = (millis(entry).to_string(), entry["seq"].to_string());
    let (targets, changes) = (targets(entry), object(entry, "/data/changes"));
    let details = object(entry, "/data/details");
    let pairs = [
        ("rt", at.as_str()),
        ("externalId", &seq),
        ("dvchost", instance),
        ("outcome", outcome),
        ("reason", text(entry, "/data/reason")),
        ("suid", text(entry, "/data/actor/id")),
        ("suser", text(opened, "/actor_display")),
        ("spriv", text(entry, "/data/actor/type")),
        ("src", text(opened, "/ip")),
        ("requestClientApplication", text(opened, "/user_agent")),
        ("cs1Label", "ledger"),
        ("cs1", text(entry, "/ledger")),
        ("cs2Label", "targets"),
        ("cs2", &targets),
        ("cs3Label", "changes"),
        ("cs3", &changes),
        ("cs4Label", "request"),
        ("cs4", text(entry, "/data/request")),
        ("cs5Label", "surface"),
        ("cs5", text(entry, "/data/surface")),
        ("cs6Label", if details.is_empty() { "" } else { "details" }),
        ("cs6", &details),
    ];
    let said: Vec<String> = pairs
        .iter()
        .filter(|(_, value)| !value.is_empty())
        .map(|(key, value)| format!("{key}={}", extension(value)))
        .collect();
    format!(
        "CEF:0|statusledger|statusledger|{}|{}|{}|{severity}|{}\n",
        env!("CARGO_PKG_VERSION"),
        head(kind),
        head(&name),
        said.join(" ")
    )
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::audit::Action;

    fn entry() -> Value {
        json!({
            "v": 1, "ledger": "0199b1c4-0000-7000-8000-000000000001", "seq": 7,
            "timestamp": "2026-11-22T01:02:03.000004Z", "type": "audit.destination.updated",
            "data": {
                "actor": { "type": "api_key", "id": "key_1" }, "surface": "api", "outcome": "success",
                "targets": [{ "type": "destination", "id": "ep_1" }], "request": "r",
                "changes": { "filter": { "after": "a=b|c\\d" } }, "details": { "count": 7, "route": "GET /v1" },
            },
        })
    }

    #[test]
    fn a_field_of_csv_is_one_field_and_no_formula() {
        let opened = json!({ "ip": "192.0.2.1", "user_agent": "=HYPERLINK(\"x\"),\n" });
        let line = Format::Csv.line("i", &entry(), &opened);
        assert!(line.ends_with(",192.0.2.1,\"'=HYPERLINK(\"\"x\"\"),\n\"\r\n"), "{line}");
        assert!(line.contains("\"{\"\"filter\"\":"));
        assert_eq!(Format::Csv.heading().trim_end().split(',').count(), COLUMNS.len());
    }

    #[test]
    fn what_is_not_known_is_left_out_of_an_event() {
        let event = ocsf("i", &entry(), &json!({ "ip": "", "user_agent": "", "actor_display": "" }));
        assert_eq!(event, ocsf("i", &entry(), &json!({})));
        assert_eq!(event["src_endpoint"], json!({ "uid": "api" }));
        assert!(event.get("http_request").is_none() && event["actor"]["user"].get("name").is_none());
        let opened = ocsf("i", &entry(), &json!({ "ip": "192.0.2.1", "actor_display": "Ana" }));
        assert_eq!(opened["src_endpoint"], json!({ "uid": "api", "ip": "192.0.2.1" }));
        assert_eq!(opened["actor"]["user"]["name"], "Ana");
        // Outside the entry itself nothing is empty.
        let mut rest = event;
        rest.as_object_mut().unwrap().remove("unmapped");
        assert!(!rest.to_string().contains("\"\""), "{rest}");
    }

    #[test]
    fn cef_escapes_what_would_end_a_field() {
        let line = Format::Cef.line("status.example.com", &entry(), &json!({ "user_agent": "a=b\nc" }));
        assert!(line.starts_with("CEF:0|statusledger|statusledger|"));
        assert!(line.contains("requestClientApplication=a\\=b\\nc"), "{line}");
        assert!(line.contains("cs3={\"filter\":{\"after\":\"a\\=b|c\\\\\\\\d\"}}"), "{line}");
        assert!(line.contains("cs6Label=details cs6={\"count\":7,\"route\":\"GET /v1\"}"), "{line}");
        assert_eq!(line.lines().count(), 1);
    }

    #[test]
    fn every_action_is_an_event_of_a_class_with_what_that_class_requires() {
        for action in Action::ALL {
            let mut entry = entry();
            entry["type"] = json!(action.kind());
            let event = ocsf("i", &entry, &json!({}));
            for required in
                ["activity_id", "category_uid", "class_uid", "metadata", "severity_id", "time", "type_uid"]
            {
                assert!(!event[required].is_null(), "{required} of {}", action.kind());
            }
            let class = event["class_uid"].as_u64().unwrap();
            let more = match class {
                6003 => &["actor", "api", "src_endpoint"][..],
                3002 | 3001 => &["user"][..],
                _ => panic!("{class}"),
            };
            assert!(more.iter().all(|member| event[member].is_object()), "{}", action.kind());
            assert_eq!(event["type_uid"], json!(class * 100 + event["activity_id"].as_u64().unwrap()));
            assert_eq!(event["time"], json!(1_795_309_323_000_u64));
        }
    }
}
