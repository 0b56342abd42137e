//! What a subject, and what happened to it, is called in a column.

use super::terminal::{Colour, clean};
use serde_json::{Map, Value};
use std::cmp::Ordering;
use std::time::Duration;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use time::macros::format_description;

/// A member of an object as text; none where it is absent or something else.
#[must_use]
pub fn text<'a>(of: &'a Map<String, Value>, name: &str) -> Option<&'a str> {
    of.get(name).and_then(Value::as_str).filter(|text| !text.is_empty())
}

/// A platform, as people write it.
#[must_use]
pub fn platform(name: &str) -> &str {
    match name {
        "IOS" => "iOS",
        "MAC_OS" => "macOS",
        "TV_OS" => "tvOS",
        "VISION_OS" => "visionOS",
        other => other,
    }
}

/// Where a subject is: a platform of Apple's, a track of Google's; empty where neither is known.
#[must_use]
pub fn place(description: &Map<String, Value>) -> String {
    match (text(description, "platform"), text(description, "track")) {
        (Some(name), _) => platform(name).to_owned(),
        (None, Some(track)) => format!("Play {track}"),
        (None, None) => String::new(),
    }
}

/// A store, as people call it, by the kind of its sources; empty where there is none.
#[must_use]
pub fn store(kind: &str) -> &'static str {
    match kind {
        "app_store" => "App Store",
        "google_play" => "Google Play",
        _ => "",
    }
}

/// Days of a phased release, by Apple's schedule.
const PHASED_DAYS: u64 = 7;

/// A state, and how far it is: the part of the users that a rollout has reached, the day that a phased release is at.
#[must_use]
pub fn how_far(state: &str, facts: &Map<String, Value>, description: &Map<String, Value>) -> String {
    let part = text(facts, "user_fraction").and_then(percent);
    let day = description.get("day").and_then(Value::as_u64);
    match (part, day, state) {
        (Some(part), _, _) => format!("{state} {part}"),
        (None, Some(day), "ACTIVE" | "PAUSED") => format!("{state} day {day} of {PHASED_DAYS}"),
        _ => state.to_owned(),
    }
}

/// `0.25` as `25 %`; none where it is no number.
fn percent(fraction: &str) -> Option<String> {
    let part: f64 = fraction.parse().ok().filter(|part: &f64| part.is_finite())?;
    // To a ten-thousandth of a per cent: nobody rolls out to less, and the rest is binary fractions.
    let text = format!("{:.4}", part * 100.0);
    Some(format!("{} %", text.trim_end_matches('0').trim_end_matches('.')))
}

/// The version codes of a release, joined.
fn codes(description: &Map<String, Value>) -> Option<String> {
    let codes = description.get("version_codes")?.as_array()?;
    let codes: Vec<&str> = codes.iter().filter_map(Value::as_str).collect();
    (!codes.is_empty()).then(|| codes.join("+"))
}

/// The version that a subject belongs to: a version string, or a release's name; none where it has none.
#[must_use]
pub fn version(description: &Map<String, Value>) -> Option<String> {
    let named = text(description, "version").or_else(|| text(description, "release"));
    named.map(str::to_owned).or_else(|| codes(description))
}

/// What a subject is within its place: the version first, so that what belongs together stands together.
#[must_use]
pub fn line(kind: &str, id: &str, description: &Map<String, Value>) -> String {
    let version = version(description);
    let build = text(description, "build");
    let mut out = version.clone().unwrap_or_default();
    let mut add = |word: &str| {
        if !out.is_empty() {
            out.push(' ');
        }
        out.push_str(word);
    };
    match kind {
        "version" => {
            if let Some(build) = build {
                add(&format!("({build})"));
            }
        }
        "release" => {
            if let Some(codes) = codes(description).filter(|codes| version.as_ref() != Some(codes)) {
                add(&format!("({codes})"));
            }
        }
        kind => {
            add(&kind.replace('_', " "));
            if let Some(build) = build {
                add(build);
            }
            if version.is_none() && build.is_none() {
                let names = ["title", "reference_name", "product_id", "label"];
                let named = names.iter().find_map(|name| text(description, name));
                add(named.unwrap_or_else(|| if kind == "app" { "" } else { id }));
            }
        }
    }
    if out.is_empty() { id.to_owned() } else { out.trim_end().to_owned() }
}

/// Versions in the order of their numbers: 1.10 is newer than 1.9. What is no number is compared as text.
#[must_use]
pub fn compare_versions(a: &str, b: &str) -> Ordering {
    fn parts(text: &str) -> impl Iterator<Item = (Option<u64>, &str)> {
        text.split(|c: char| !c.is_alphanumeric()).map(|part| (part.parse().ok(), part))
    }
    parts(a)
        .map(Some)
        .chain(std::iter::repeat(None))
        .zip(parts(b).map(Some).chain(std::iter::repeat(None)))
        .take_while(|pair| *pair != (None, None))
        .map(|pair| match pair {
            (Some((Some(a), _)), Some((Some(b), _))) => a.cmp(&b),
            // 2.0 is 2, and newer than 2.0-beta.
            (None, Some((Some(n), _))) => 0.cmp(&n),
            (Some((Some(n), _)), None) => n.cmp(&0),
            (None, Some(_)) => Ordering::Greater,
            (Some(_), None) => Ordering::Less,
            (Some((Some(_), _)), Some(_)) => Ordering::Greater,
            (Some(_), Some((Some(_), _))) => Ordering::Less,
            (Some((None, a)), Some((None, b))) => a.cmp(b),
            (None, None) => Ordering::Equal,
        })
        .find(|order| order.is_ne())
        .unwrap_or(Ordering::Equal)
}

/// How long ago `then` was at `now`, in words.
#[must_use]
pub fn ago(now: OffsetDateTime, then: OffsetDateTime) -> String {
    const MINUTE: u64 = 60;
    const HOUR: u64 = 60 * MINUTE;
    const DAY: u64 = 24 * HOUR;
    let passed = Duration::try_from(now - then).unwrap_or_default().as_secs();
    match passed {
        0..5 => "now".to_owned(),
        5..MINUTE => format!("{passed} s ago"),
        MINUTE..HOUR => format!("{} min ago", passed / MINUTE),
        HOUR..172_800 => format!("{} h ago", passed / HOUR),
        _ if passed < 60 * DAY => format!("{} d ago", passed / DAY),
        _ => date(then),
    }
}

/// A span of time as people give it: `45s`, `90m`, `24h`, `7d`.
#[must_use]
pub fn span(text: &str) -> Option<time::Duration> {
    const UNITS: [(char, i64); 4] = [('s', 1), ('m', 60), ('h', 3600), ('d', 86_400)];
    UNITS.iter().find_map(|(unit, seconds)| {
        let count: i64 = text.strip_suffix(*unit)?.parse::<u32>().ok()?.into();
        Some(time::Duration::seconds(count.checked_mul(*seconds)?))
    })
}

/// The day of `at`.
fn date(at: OffsetDateTime) -> String {
    let format = format_description!("[year]-[month]-[day]");
    at.to_offset(time::UtcOffset::UTC).format(&format).unwrap_or_default()
}

/// A point in time that has passed, as people give it: a day, a time (RFC 3339), or an age.
///
/// # Errors
/// If it is none of them.
pub fn when(text: &str) -> Result<OffsetDateTime, String> {
    let age = span(text).and_then(|age| OffsetDateTime::now_utc().checked_sub(age));
    age.or_else(|| OffsetDateTime::parse(text, &Rfc3339).ok())
        .or_else(|| OffsetDateTime::parse(&format!("{text}T00:00:00Z"), &Rfc3339).ok())
        .ok_or_else(|| "a day (2026-11-22), a time (RFC 3339) or an age (90m, 24h, 7d)".into())
}

/// A time as entries have it, to the second: `2026-11-22 03:52:43`. What is no time is left as it is, fit for a terminal.
#[must_use]
pub fn second(time: &str) -> String {
    let format = format_description!("[year]-[month]-[day] [hour]:[minute]:[second]");
    OffsetDateTime::parse(time, &Rfc3339)
        .ok()
        .and_then(|at| at.to_offset(time::UtcOffset::UTC).format(&format).ok())
        .unwrap_or_else(|| clean(time).into_owned())
}

/// An entry, as far as it can be put in columns.
#[derive(Clone, Debug)]
pub struct Told {
    /// Its place in the ledger.
    pub seq: u64,
    /// When it was recorded.
    pub timestamp: String,
    /// Its type.
    pub kind: String,
    /// The app, if it is about one.
    pub app: Option<String>,
    /// Its `data`.
    pub data: Map<String, Value>,
}

impl Told {
    /// Reads an entry; none where it is not one.
    #[must_use]
    pub fn of(entry: &Value) -> Option<Self> {
        let data = entry.get("data")?.as_object()?.clone();
        Some(Self {
            seq: entry.get("seq")?.as_u64()?,
            timestamp: entry.get("timestamp")?.as_str()?.to_owned(),
            kind: entry.get("type")?.as_str()?.to_owned(),
            app: text(&data, "app").map(str::to_owned),
            data,
        })
    }

    /// The kind of its subject, and what happened: `store.version.transitioned` is `version` and `transitioned`.
    #[must_use]
    pub fn of_store(&self) -> Option<(&str, &str)> {
        self.kind.strip_prefix("store.")?.rsplit_once('.')
    }

    /// The id of what it is about, where that is no app: a source, a destination, or what somebody acted on.
    #[must_use]
    pub fn about(&self) -> Option<&str> {
        let named = ["source", "destination"].iter().find_map(|member| text(&self.data, member));
        named.or_else(|| self.data.get("targets")?.get(0)?.get("id")?.as_str())
    }

    /// What it is about, in words.
    #[must_use]
    pub fn subject(&self) -> String {
        let Some((kind, _)) = self.of_store() else {
            return self.kind.replace(['.', '_'], " ");
        };
        let empty = Map::new();
        let subject = self.data.get("subject").and_then(Value::as_object).unwrap_or(&empty);
        let line = line(kind, text(subject, "id").unwrap_or_default(), subject);
        format!("{} {line}", place(subject)).trim().to_owned()
    }

    /// What changed, in words, and the colour of where it led.
    #[must_use]
    pub fn change(&self) -> (String, Colour) {
        let (from, to) = (text(&self.data, "from"), text(&self.data, "to"));
        let what = self.of_store().map_or("", |(_, what)| what);
        let empty = Map::new();
        let member = |name: &str| self.data.get(name).and_then(Value::as_object).unwrap_or(&empty);
        let same = from == to;
        let reached = to.map(|to| how_far(to, member("facts"), member("subject")));
        let mut words = match (what, from, reached.as_deref()) {
            ("first_seen", _, Some(to)) => format!("first seen: {to}"),
            ("no_longer_visible", Some(from), _) => format!("no longer visible (was {from})"),
            ("visible_again", _, Some(to)) => format!("visible again: {to}"),
            ("transitioned", None, Some(to)) => format!("? → {to}"),
            // Only something else about it changed.
            (_, Some(_), Some(to)) if same && self.data.contains_key("changed") => to.to_owned(),
            (_, Some(from), Some(to)) => format!("{from} → {to}"),
            ("" | "transitioned", _, _) => String::new(),
            (what, _, _) => what.replace('_', " "),
        };
        for fact in self.facts() {
            words.push_str(if words.is_empty() { "" } else { ", " });
            words.push_str(&fact);
        }
        if self.data.get("late").and_then(Value::as_bool) == Some(true) {
            words.push_str(" (learned late)");
        }
        if let Some(detail) = text(&self.data, "detail").filter(|_| self.of_store().is_none()) {
            words.push_str(": ");
            words.push_str(detail);
        }
        let colour = match what {
            "no_longer_visible" => Colour::Red,
            "first_seen" => Colour::Dim,
            _ => to.map_or(Colour::Plain, Colour::of_state),
        };
        (words.trim_start_matches(": ").to_owned(), colour)
    }

    /// What else changed: `changed` has the names, whose values are in `facts`, or the values themselves.
    fn facts(&self) -> Vec<String> {
        let plain = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        match self.data.get("changed") {
            Some(Value::Array(names)) => {
                let facts = self.data.get("facts").and_then(Value::as_object);
                let value = |name: &str| facts.and_then(|f| f.get(name)).map_or("gone".into(), plain);
                // How far a rollout is stands beside its state.
                let others = names.iter().filter_map(Value::as_str).filter(|n| *n != "user_fraction");
                others.map(|n| format!("{n}: {}", value(n))).collect()
            }
            Some(Value::Object(changed)) => changed
                .iter()
                .map(|(name, change)| {
                    let side = |side: &str| change.get(side).map_or_else(|| "?".into(), plain);
                    format!("{name}: {} → {}", side("from"), side("to"))
                })
                .collect(),
            _ => Vec::new(),
        }
    }

    /// How it came to be known.
    #[must_use]
    pub fn via(&self) -> &str {
        text(&self.data, "via").unwrap_or_default()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn versions_are_numbers_between_dots() {
        let mut versions = ["1.9", "1.10", "1.10.1", "2.0-beta", "2.0", "10.0", "1.9.0.1", "nightly"];
        versions.sort_by(|a, b| compare_versions(a, b));
        assert_eq!(versions, ["nightly", "1.9", "1.9.0.1", "1.10", "1.10.1", "2.0-beta", "2.0", "10.0"]);
        assert_eq!(compare_versions("2", "2.0.0"), Ordering::Equal);
    }

    #[test]
    fn what_is_no_time_is_fit_for_a_terminal() {
        assert_eq!(second("2026-11-22T03:52:43.123Z"), "2026-11-22 03:52:43");
        assert_eq!(second("soon \u{1b}]0;P\u{7}\u{202e}"), "soon \u{fffd}]0;P\u{fffd}\u{fffd}");
    }

    #[test]
    fn ages_are_rounded_down() {
        let now = OffsetDateTime::UNIX_EPOCH + time::Duration::days(1000);
        let words = |seconds| ago(now, now - time::Duration::seconds(seconds));
        let expected = [
            (-9, "now"),
            (4, "now"),
            (59, "59 s ago"),
            (60, "1 min ago"),
            (3599, "59 min ago"),
            (3600, "1 h ago"),
        ];
        for (seconds, expected) in expected {
            assert_eq!(words(seconds), expected);
        }
        assert_eq!(words(2 * 86_400), "2 d ago");
        assert_eq!(words(100 * 86_400), "1972-06-19");
    }

    #[test]
    fn every_shape_of_a_change_is_said() {
        let told = |kind: &str, data: Value| {
            Told::of(&json!({ "seq": 1, "timestamp": "t", "type": kind, "data": data })).unwrap().change().0
        };
        let t = "store.rollout.transitioned";
        assert_eq!(told(t, json!({ "from": "a", "to": "b" })), "a → b");
        assert_eq!(told(t, json!({ "to": "b" })), "? → b");
        let facts = json!({ "from": "a", "to": "a", "changed": ["user_fraction"], "facts": { "user_fraction": "0.2" } });
        assert_eq!(told(t, facts), "a 20 %");
        let facts = json!({ "from": "a", "to": "b", "facts": { "user_fraction": "0.005", "in_app_update_priority": 3 }, "changed": ["in_app_update_priority"] });
        assert_eq!(told(t, facts), "a → b 0.5 %, in_app_update_priority: 3");
        let ended = json!({ "from": "a", "to": "completed", "changed": ["user_fraction"] });
        assert_eq!(told(t, ended), "a → completed");
        let day = json!({ "from": "PAUSED", "to": "ACTIVE", "subject": { "day": 3 } });
        assert_eq!(told("store.phased_release.transitioned", day), "PAUSED → ACTIVE day 3 of 7");
        let facts =
            json!({ "from": "a", "to": "a", "changed": { "user_fraction": { "from": "0.1", "to": "0.2" } } });
        assert_eq!(told(t, facts), "a, user_fraction: 0.1 → 0.2");
        assert_eq!(told(t, json!({ "from": "a", "to": "b", "late": true })), "a → b (learned late)");
        assert_eq!(told("store.app.no_longer_visible", json!({ "from": "a" })), "no longer visible (was a)");
        let health = json!({ "from": "ok", "to": "degraded", "detail": "away" });
        assert_eq!(told("source.health_changed", health), "ok → degraded: away");
        assert_eq!(told("workspace.created", json!({})), "");
    }
}
