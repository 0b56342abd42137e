//! JSON:API documents, as far as App Store Connect uses them. Resources are read one by one, so that one bad resource
//! spoils none of the others.

use std::collections::HashMap;

use serde::Deserialize;
use serde_json::{Map, Value};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::requests::RELATED;
use crate::source::fetch::StoreError;

/// A page of a list.
#[derive(Deserialize)]
pub(super) struct Document {
    pub(super) data: Vec<Value>,
    #[serde(default)]
    pub(super) included: Vec<Value>,
    #[serde(default)]
    pub(super) links: Links,
    #[serde(default)]
    meta: Value,
}

/// A document of one resource, or of none.
#[derive(Deserialize)]
pub(super) struct Single {
    /// None where the store says `null`: the relationship is there, and points at nothing.
    pub(super) data: Option<Resource>,
    #[serde(default)]
    pub(super) included: Vec<Value>,
}

/// A page's links.
#[derive(Default, Deserialize)]
pub(super) struct Links {
    pub(super) next: Option<String>,
}

/// A resource.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Resource {
    pub(super) id: String,
    #[serde(default)]
    attributes: Option<Map<String, Value>>,
    #[serde(default)]
    relationships: Value,
}

/// A relationship to many, as far as the answer tells it.
pub(super) struct Many<'a> {
    /// The ids that it tells.
    pub(super) ids: Vec<&'a str>,
    /// Whether there are no others.
    pub(super) complete: bool,
}

impl Document {
    pub(super) fn parse(body: &[u8]) -> Result<Self, StoreError> {
        parse(body, "a page of a list")
    }

    /// How many resources the whole list has, by the store's count.
    pub(super) fn total(&self) -> Option<u64> {
        self.meta.pointer("/paging/total")?.as_u64()
    }
}

impl Single {
    pub(super) fn parse(body: &[u8]) -> Result<Self, StoreError> {
        parse(body, "a resource")
    }
}

fn parse<'d, D: Deserialize<'d>>(body: &'d [u8], what: &'static str) -> Result<D, StoreError> {
    serde_json::from_slice(body)
        .map_err(|error| if error.is_data() { StoreError::Malformed { what } } else { StoreError::NotJson })
}

impl Resource {
    /// An attribute, unless it is null.
    pub(super) fn attribute(&self, name: &str) -> Option<&Value> {
        self.attributes.as_ref()?.get(name).filter(|value| !value.is_null())
    }

    /// A text attribute.
    pub(super) fn text(&self, name: &str) -> Option<&str> {
        self.attribute(name)?.as_str()
    }

    /// A text attribute, kept.
    pub(super) fn owned(&self, name: &str) -> Option<String> {
        self.text(name).map(str::to_owned)
    }

    /// A time.
    pub(super) fn date(&self, name: &str) -> Option<OffsetDateTime> {
        date(self.text(name)?)
    }

    /// Type and id of what a relationship to one points at.
    pub(super) fn one(&self, relationship: &str) -> Option<(&str, &str)> {
        let data = self.relationships.get(relationship)?.get("data")?;
        Some((data.get("type")?.as_str()?, data.get("id")?.as_str()?))
    }

    /// The relationships to one that point at something: name, type, id.
    pub(super) fn ones(&self) -> impl Iterator<Item = (&str, &str, &str)> {
        self.relationships.as_object().into_iter().flatten().filter_map(|(name, _)| {
            let (kind, id) = self.one(name)?;
            Some((name.as_str(), kind, id))
        })
    }

    /// What a relationship to many points at. One that is not told is not complete, and one that is told without a
    /// count is only where there was room for more.
    pub(super) fn many(&self, relationship: &str) -> Many<'_> {
        let found = self.relationships.get(relationship);
        let Some(data) = found.and_then(|found| found.get("data")?.as_array()) else {
            return Many { ids: Vec::new(), complete: false };
        };
        let ids: Vec<_> = data.iter().filter_map(|one| one.get("id")?.as_str()).collect();
        let total = found.and_then(|found| found.pointer("/meta/paging/total")?.as_u64());
        let complete =
            ids.len() == data.len() && total.map_or(ids.len() < RELATED, |total| total <= ids.len() as u64);
        Many { ids, complete }
    }
}

/// The resources that a page includes, by type and id.
pub(super) struct Related<'a>(HashMap<(&'a str, &'a str), &'a Value>);

impl<'a> Related<'a> {
    pub(super) fn of(included: &'a [Value]) -> Self {
        let keyed = included.iter().filter_map(|resource| {
            Some(((resource.get("type")?.as_str()?, resource.get("id")?.as_str()?), resource))
        });
        Self(keyed.collect())
    }

    /// An included resource.
    pub(super) fn get(&self, kind: &str, id: &str) -> Option<Resource> {
        Resource::deserialize(*self.0.get(&(kind, id))?).ok()
    }

    /// The included resource that a relationship to one points at.
    pub(super) fn one(&self, of: &Resource, relationship: &str) -> Option<Resource> {
        let (kind, id) = of.one(relationship)?;
        self.get(kind, id)
    }
}

/// Whether an id stays a segment of an address, so that what is asked for by it is that and nothing above it.
pub(super) fn is_segment(id: &str) -> bool {
    !id.is_empty() && id != "." && id != ".."
}

/// Reads a time with an offset and up to nine fraction digits; the store has written offsets without a colon, too.
pub(super) fn date(text: &str) -> Option<OffsetDateTime> {
    if let Ok(date) = OffsetDateTime::parse(text, &Rfc3339) {
        return Some(date);
    }
    let split = text.len().checked_sub(2).filter(|split| text.is_char_boundary(*split))?;
    let (head, minutes) = text.split_at(split);
    OffsetDateTime::parse(&format!("{head}:{minutes}"), &Rfc3339).ok()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use serde_json::json;
    use time::macros::datetime;

    use super::*;

    #[test]
    fn times_are_read_with_every_offset_and_fraction() {
        for text in [
            "2026-01-05T10:20:30Z",
            "2026-01-05T02:20:30-08:00",
            "2026-01-05T10:20:30.000+0000",
            "2026-01-05T02:20:30-0800",
        ] {
            assert_eq!(date(text), Some(datetime!(2026-01-05 10:20:30 UTC)), "{text}");
        }
        assert_eq!(date("2026-01-05T10:20:30.123456Z"), Some(datetime!(2026-01-05 10:20:30.123456 UTC)));
        for wrong in ["", "Z", "2026-01-05", "yesterday", "2026-01-05T10:20:30", "é"] {
            assert_eq!(date(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_relationship_is_complete_only_where_all_of_it_came() {
        let many = |relationship: Value| {
            let resource = json!({ "id": "1", "relationships": { "r": relationship } });
            let resource: Resource = serde_json::from_value(resource).unwrap();
            let many = resource.many("r");
            (many.ids.len(), many.complete)
        };
        let ids = |count: usize| vec![json!({ "type": "t", "id": "x" }); count];
        let counted = |count: usize, total: u64| json!({ "data": ids(count), "meta": { "paging": { "total": total, "limit": 50 } } });
        assert_eq!(many(counted(0, 0)), (0, true));
        assert_eq!(many(counted(50, 50)), (50, true));
        assert_eq!(many(counted(50, 51)), (50, false));
        assert_eq!(many(counted(3, 4)), (3, false));
        assert_eq!(many(json!({ "data": ids(49) })), (49, true));
        assert_eq!(many(json!({ "data": ids(50) })), (50, false));
        assert_eq!(many(json!({ "data": [{ "type": "t" }, { "type": "t", "id": "x" }] })), (1, false));
        assert_eq!(many(json!({ "links": { "related": "x" } })), (0, false));
        assert_eq!(many(json!(null)), (0, false));
    }
}
