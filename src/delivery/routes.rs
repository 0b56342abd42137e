//! Which entries go to which destinations.

use crate::id::{DestinationId, SourceId, WorkspaceId};
use crate::ledger::Draft;
use serde::{Deserialize, Serialize};
use sqlx::PgConnection;

/// The longest filter, in bytes of JSON: an entry shows the one before and the one after.
const LONGEST: usize = 24 << 10;

/// What a destination wants to hear of. An empty list means all, but for `audit.*`, which has to be named.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Filter {
    /// Entry types: whole, or a beginning that ends in `.*` (`store.*`).
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub types: Vec<String>,
    /// Apps, by bundle id or package name.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub apps: Vec<String>,
    /// Sources, by id.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(value_type = Vec<String>)]
    pub sources: Vec<SourceId>,
    /// Whether the first sight of a subject is told too. It is no transition, so by default it is not.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub first_seen: bool,
}

/// A filter with a pattern that could never match, or too many.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FilterError {
    /// Not a type, nor a beginning and `.*`.
    #[error("filter.types[{0}] is neither an entry type nor its beginning followed by \".*\"")]
    Type(usize),
    /// A list of more than 100.
    #[error("a filter's list holds at most 100")]
    TooMany,
    /// So long that an entry which shows it before and after would not fit.
    #[error("a filter has at most {LONGEST} bytes as JSON, this one has {0}")]
    TooLong(usize),
    /// An app's id that is empty or longer than 255 bytes.
    #[error("filter.apps[{0}] is not a bundle id or package name (1 to 255 bytes)")]
    App(usize),
}

impl Filter {
    /// Checks that each pattern can match something.
    ///
    /// # Errors
    /// The first that cannot.
    pub fn check(&self) -> Result<(), FilterError> {
        if self.types.len() > 100 || self.apps.len() > 100 || self.sources.len() > 100 {
            return Err(FilterError::TooMany);
        }
        for (i, pattern) in self.types.iter().enumerate() {
            let words = pattern.strip_suffix(".*").unwrap_or(pattern);
            let word = |w: &str| {
                !w.is_empty() && w.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
            };
            if pattern != "*" && (pattern.len() > 200 || !words.split('.').all(word)) {
                return Err(FilterError::Type(i));
            }
        }
        let length = serde_json::to_string(self).map_or(usize::MAX, |text| text.len());
        if length > LONGEST {
            return Err(FilterError::TooLong(length));
        }
        match self.apps.iter().position(|a| a.is_empty() || a.len() > 255) {
            Some(i) => Err(FilterError::App(i)),
            None => Ok(()),
        }
    }

    /// Whether it asks for audit entries.
    #[must_use]
    pub fn wants_audit(&self) -> bool {
        self.types.iter().any(|pattern| pattern.starts_with("audit."))
    }

    /// Whether an entry of this type, about this app and from this source, is wanted.
    #[must_use]
    pub fn wants(&self, kind: &str, app: Option<&str>, source: Option<SourceId>) -> bool {
        if kind.ends_with(".first_seen") && !self.first_seen {
            return false;
        }
        // Who did what is told to those who ask for it by name.
        if kind.starts_with("audit.") && !self.wants_audit() {
            return false;
        }
        let type_wanted = self.types.is_empty()
            || self.types.iter().any(|pattern| match pattern.strip_suffix('*') {
                Some(start) => kind.starts_with(start),
                None => kind == pattern,
            });
        let app_wanted = self.apps.is_empty() || app.is_some_and(|app| self.apps.iter().any(|a| a == app));
        let source_wanted = self.sources.is_empty() || source.is_some_and(|s| self.sources.contains(&s));
        type_wanted && app_wanted && source_wanted
    }
}

/// A destination as an append sees it.
#[derive(Clone, Debug)]
struct Route {
    destination: DestinationId,
    filter: Filter,
}

/// A workspace's enabled destinations. They change under the head's lock, which counts the changes, so an append
/// that built on an older count is refused and reads them again: none misses an entry, none gets one too many.
#[derive(Clone, Debug, Default)]
pub struct Routes {
    /// The head's count at which this was read.
    pub version: i64,
    routes: Vec<Route>,
}

impl Routes {
    /// Reads the enabled destinations, in the transaction that read `version` from the head.
    ///
    /// # Errors
    /// If the database does not answer.
    pub async fn read(
        tx: &mut PgConnection,
        workspace: WorkspaceId,
        version: i64,
    ) -> Result<Self, sqlx::Error> {
        let rows = sqlx::query!(
            r#"SELECT destination_id AS "destination: DestinationId", filter AS "filter: sqlx::types::Json<Filter>"
                 FROM destinations
                WHERE workspace_id = $1 AND deleted_at IS NULL AND disabled_at IS NULL
                ORDER BY destination_id"#,
            workspace.uuid()
        )
        .fetch_all(tx)
        .await?;
        let routes =
            rows.into_iter().map(|r| Route { destination: r.destination, filter: r.filter.0 }).collect();
        Ok(Self { version, routes })
    }

    /// How many destinations there are.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.routes.len()
    }

    /// Whether there are none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.routes.is_empty()
    }

    /// The destinations that `draft` goes to.
    pub fn matching<'a>(&'a self, draft: &'a Draft) -> impl Iterator<Item = DestinationId> + 'a {
        let topic = &draft.topic;
        self.routes
            .iter()
            .filter(move |route| match topic.only {
                Some(only) => route.destination == only,
                None => {
                    topic.about != Some(route.destination)
                        && route.filter.wants(draft.kind(), topic.app.as_deref(), topic.source)
                }
            })
            .map(|route| route.destination)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_filter_wants_all_but_first_sights() {
        let all = Filter::default();
        assert!(all.wants("store.version.transitioned", Some("a"), None));
        assert!(!all.wants("store.version.first_seen", Some("a"), None));
        assert!(Filter { first_seen: true, ..Filter::default() }.wants(
            "store.version.first_seen",
            None,
            None
        ));
    }

    #[test]
    fn audit_entries_go_to_who_asks_for_them_by_name() {
        let filter = |types: &[&str]| Filter {
            types: types.iter().map(|t| (*t).into()).collect(),
            ..Filter::default()
        };
        assert!(!Filter::default().wants("audit.key.created", None, None));
        assert!(!filter(&["*"]).wants("audit.key.created", None, None));
        assert!(filter(&["audit.*"]).wants("audit.key.created", None, None));
        assert!(!filter(&["audit.session.*"]).wants("audit.key.created", None, None));
    }

    #[test]
    fn a_filter_is_no_longer_than_an_entry_can_show_before_and_after() {
        let of = |n: usize| Filter {
            types: (0..100).map(|i| format!("{}{i:03}", "t".repeat(n))).collect(),
            apps: (0..100).map(|i| format!("{}{i:03}", "\u{e9}".repeat(n / 2))).collect(),
            ..Filter::default()
        };
        let longest = (1..=190).rev().find(|n| of(*n).check().is_ok()).map(of);
        let Some(longest) = longest else { panic!("none is allowed") };
        let length = serde_json::to_string(&longest).map_or(0, |text| text.len());
        assert!((LONGEST - 400..=LONGEST).contains(&length), "{length}");
        assert!(matches!(of(190).check(), Err(FilterError::TooLong(_))));
        // A change of all of it is an entry.
        let other = Filter { first_seen: true, ..longest.clone() };
        let shown = |filter: &Filter| serde_json::json!({ "filter": filter });
        let act = crate::audit::Act::operator();
        let record = act.of(crate::audit::Action::DestinationUpdated).target("destination", "ep_1");
        let record = record.changed("destination", Some(&shown(&longest)), Some(&shown(&other)));
        assert!(record.draft().is_ok());
    }

    #[test]
    fn each_list_narrows() {
        let filter = Filter { types: vec!["store.*".into()], apps: vec!["x".into()], ..Filter::default() };
        assert!(filter.wants("store.build.transitioned", Some("x"), None));
        assert!(!filter.wants("store.build.transitioned", Some("y"), None));
        assert!(!filter.wants("store.build.transitioned", None, None));
        assert!(!filter.wants("storefront.opened", Some("x"), None));
        assert!(!filter.wants("event.received", Some("x"), None));
    }

    #[test]
    fn a_pattern_that_cannot_match_is_refused() {
        for bad in ["", "Store", "store.", ".*", "store*", "a..b", "store.*.x"] {
            let filter = Filter { types: vec![bad.into()], ..Filter::default() };
            assert_eq!(filter.check(), Err(FilterError::Type(0)), "{bad}");
        }
        for good in ["*", "store.*", "event.received"] {
            assert_eq!(Filter { types: vec![good.into()], ..Filter::default() }.check(), Ok(()), "{good}");
        }
    }
}
