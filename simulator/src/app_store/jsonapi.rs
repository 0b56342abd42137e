//! The part of JSON:API that App Store Connect speaks: sparse fields, includes one level deep, filters,
//! sorting, and pages by cursor.

use std::collections::{BTreeMap, HashSet};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Map, Value, json};
use url::form_urlencoded;

use crate::app_store::errors::ApiError;
use crate::app_store::fields::{fields_of, is_foreign};
use crate::app_store::view::{Node, View};
use crate::random::Random;

/// The size of a page that no `limit` asks for.
const DEFAULT_LIMIT: usize = 50;

/// The largest page.
const MAX_LIMIT: usize = 200;

/// How many related resources of a resource are included where no `limit[…]` says.
const DEFAULT_RELATED: usize = 10;

/// The most related resources of a resource.
const MAX_RELATED: usize = 50;

/// A resource before it is made sparse.
#[derive(Debug)]
pub(crate) struct Resource {
    pub(crate) kind: &'static str,
    pub(crate) id: String,
    /// Where it can be read by its id, without the id; the store has no such path for every type.
    pub(crate) collection: Option<&'static str>,
    pub(crate) attributes: Vec<(&'static str, Option<Value>)>,
    pub(crate) relationships: Vec<Relationship>,
}

impl Resource {
    fn home(&self, base: &str) -> String {
        let encoded = utf8_percent_encode(&self.id, ID);
        format!("{base}{}/{encoded}", self.collection.unwrap_or_default())
    }
}

/// What is escaped in an id that stands in a path.
const ID: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');

/// A relationship of a resource.
#[derive(Debug)]
pub(crate) struct Relationship {
    pub(crate) name: &'static str,
    pub(crate) kind: &'static str,
    pub(crate) target: Target,
    /// Whether the description gives it `links`.
    pub(crate) linked: bool,
}

/// What a relationship points at, by id.
#[derive(Debug)]
pub(crate) enum Target {
    One(Option<String>),
    Many(Vec<String>),
    /// Resources that the simulator does not have: only their addresses are told.
    Elsewhere,
}

/// What a read allows.
pub(crate) struct Listing {
    /// The type of its resources.
    pub(crate) kind: &'static str,
    /// Whether it lists: only then is there a way on, a `limit` and `sort`.
    pub(crate) paged: bool,
    /// The relationships that `include` may name, with their types.
    pub(crate) includes: &'static [(&'static str, &'static str)],
    /// Those of them that take a `limit[…]`.
    pub(crate) limited: &'static [&'static str],
    /// The filters, with the values that they take; none is any.
    pub(crate) filters: &'static [(&'static str, &'static [&'static str])],
    /// The filters that have to be there.
    pub(crate) required: &'static [&'static str],
    /// The attributes that `sort` may name.
    pub(crate) sorts: &'static [&'static str],
}

/// What a request asks of a list.
#[derive(Debug, Default)]
pub(crate) struct Query {
    fields: BTreeMap<String, HashSet<String>>,
    include: Vec<String>,
    related_limits: BTreeMap<String, usize>,
    filters: Vec<(String, Vec<String>)>,
    sort: Option<(String, bool)>,
    limit: usize,
    offset: usize,
    /// How the store answers other than it should.
    distorted: Distortion,
}

/// How a list is told other than it should be.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Distortion {
    /// Filters are read, and let everything through.
    pub(crate) unfiltered: bool,
    /// The order is drawn from this.
    pub(crate) shuffled: Option<u64>,
    /// Each page has the data of the first.
    pub(crate) repeated: bool,
}

impl Query {
    /// Reads a query string as strictly as the store does: what the list does not allow is an error.
    pub(crate) fn parse(query: &str, listing: &Listing, distorted: Distortion) -> Result<Self, ApiError> {
        let mut parsed = Self { limit: DEFAULT_LIMIT, distorted, ..Self::default() };
        for (name, value) in form_urlencoded::parse(query.as_bytes()) {
            let values = || value.split(',').filter(|part| !part.is_empty()).map(str::to_owned);
            match (name.as_ref(), bracketed(&name)) {
                (_, Some(("fields", kind))) => {
                    let known = fields_of(kind).filter(|_| {
                        kind == listing.kind || listing.includes.iter().any(|(_, included)| *included == kind)
                    });
                    let known = known.ok_or_else(|| illegal(&name))?;
                    let foreign = |field: &String| {
                        !known.contains(&field.as_str()) || is_foreign(listing.kind, kind, field)
                    };
                    if let Some(field) = values().find(foreign) {
                        return Err(ApiError::parameter(
                            &name,
                            format!("'{field}' is not a valid field name"),
                        ));
                    }
                    parsed.fields.insert(kind.to_owned(), values().collect());
                }
                (_, Some(("limit", relationship))) => {
                    if !listing.limited.contains(&relationship) {
                        return Err(illegal(&name));
                    }
                    let limit = number(&name, &value, MAX_RELATED)?;
                    parsed.related_limits.insert(relationship.to_owned(), limit);
                }
                (_, Some(("filter", field))) => {
                    let found = listing.filters.iter().find(|(known, _)| *known == field);
                    let (_, known) = found.ok_or_else(|| illegal(&name))?;
                    let unknown = |value: &String| !known.is_empty() && !known.contains(&value.as_str());
                    if let Some(value) = values().find(unknown) {
                        let detail = format!("'{value}' is not a valid filter value");
                        return Err(ApiError::parameter(&name, detail));
                    }
                    parsed.filters.push((field.to_owned(), values().collect()));
                }
                ("include", None) => {
                    for included in values() {
                        if !listing.includes.iter().any(|(known, _)| *known == included) {
                            let detail = format!("'{included}' is not a valid relationship name");
                            return Err(ApiError::parameter("include", detail));
                        }
                        parsed.include.push(included);
                    }
                }
                ("sort", None) => {
                    let (field, down) = value.strip_prefix('-').map_or((&*value, false), |rest| (rest, true));
                    if !listing.sorts.contains(&field) {
                        return Err(ApiError::parameter("sort", format!("'{value}' is not a valid sort")));
                    }
                    parsed.sort = Some((field.to_owned(), down));
                }
                ("limit", None) if listing.paged => parsed.limit = number("limit", &value, MAX_LIMIT)?,
                ("cursor", None) if listing.paged => {
                    let offset = read_cursor(&value);
                    let invalid =
                        || ApiError::parameter("cursor", format!("'{value}' is not a valid cursor"));
                    parsed.offset = offset.ok_or_else(invalid)?;
                }
                _ => return Err(illegal(&name)),
            }
        }
        for name in listing.required {
            if parsed.filter(name).is_none_or(<[_]>::is_empty) {
                return Err(ApiError::missing_parameter(&format!("filter[{name}]")));
            }
        }
        Ok(parsed)
    }

    /// The values of a filter.
    pub(crate) fn filter(&self, field: &str) -> Option<&[String]> {
        self.filters.iter().find(|(name, _)| name == field).map(|(_, values)| values.as_slice())
    }

    /// Whether a value passes a filter, which it does where there is none.
    pub(crate) fn passes(&self, field: &str, value: &str) -> bool {
        self.distorted.unfiltered
            || self.filter(field).is_none_or(|values| values.iter().any(|wanted| wanted == value))
    }
}

/// Where an answer comes from: its address, its query as it came and as it was read, and what a team sees.
pub(crate) struct Asked<'a, 'v> {
    pub(crate) base: &'a str,
    pub(crate) path: &'a str,
    pub(crate) query_text: &'a str,
    pub(crate) query: &'a Query,
    pub(crate) kind: &'static str,
    pub(crate) view: &'a View<'v>,
}

impl Asked<'_, '_> {
    /// The body of a page: the resources that the query asks for, those they include, and the way on.
    pub(crate) fn page(&self, mut nodes: Vec<Node<'_>>) -> Value {
        let query = self.query;
        if let Some((field, down)) = &query.sort {
            nodes.sort_by_cached_key(|node| sort_key(&self.view.resource(*node), field));
            if *down {
                nodes.reverse();
            }
        }
        if let Some(seed) = query.distorted.shuffled {
            nodes.sort_by_cached_key(|node| Random::new(seed, &self.view.resource(*node).id).bits());
        }
        let total = nodes.len();
        let end = query.offset.saturating_add(query.limit).min(total);
        let (from, to) = if query.distorted.repeated {
            (0, query.limit.min(total))
        } else {
            (query.offset.min(total), end)
        };
        let shown: Vec<_> = nodes[from..to].iter().map(|node| self.view.resource(*node)).collect();
        let mut links = json!({ "self": address(self.base, self.path, self.query_text, None) });
        let mut paging = json!({ "total": total, "limit": query.limit });
        if end < total {
            let cursor = write_cursor(end);
            links["next"] = address(self.base, self.path, self.query_text, Some(&cursor)).into();
            paging["nextCursor"] = cursor.into();
        }
        let data: Vec<_> = shown.iter().map(|resource| render(self.base, resource, query, true)).collect();
        let body = json!({ "data": data, "links": links, "meta": { "paging": paging } });
        self.with_included(body, &shown)
    }

    /// The body of one resource, with those it includes.
    pub(crate) fn one(&self, node: Node<'_>) -> Value {
        let resource = self.view.resource(node);
        let links = json!({ "self": address(self.base, self.path, self.query_text, None) });
        let body = json!({ "data": render(self.base, &resource, self.query, true), "links": links });
        self.with_included(body, &[resource])
    }

    fn with_included(&self, mut body: Value, shown: &[Resource]) -> Value {
        let query = self.query;
        if query.include.is_empty() {
            return body;
        }
        let mut included = Vec::new();
        let mut seen = HashSet::new();
        let wanted =
            |relationship: &&Relationship| query.include.iter().any(|name| name == relationship.name);
        for relationship in shown.iter().flat_map(|resource| &resource.relationships).filter(wanted) {
            for id in ids(relationship, query) {
                if seen.insert((relationship.kind, id)) {
                    let found = self.view.find(relationship.kind, id, self.kind);
                    let rendered =
                        found.map(|node| render(self.base, &self.view.resource(node), query, false));
                    included.extend(rendered);
                }
            }
        }
        body["included"] = included.into();
        body
    }
}

/// One resource, only with the fields that the query asks of its type. A relationship shows its data only
/// where it is included, and nothing of it where `fields` leaves it out.
fn render(base: &str, resource: &Resource, query: &Query, primary: bool) -> Value {
    let wanted = query.fields.get(resource.kind);
    let shows = |name: &str| wanted.is_none_or(|fields| fields.contains(name));
    let attributes: Map<String, Value> = resource
        .attributes
        .iter()
        .filter(|(name, _)| shows(name))
        .filter_map(|(name, value)| Some(((*name).to_owned(), value.clone()?)))
        .collect();
    let mut relationships = Map::new();
    for relationship in resource.relationships.iter().filter(|relationship| shows(relationship.name)) {
        let mut shown = Map::new();
        let included = primary && query.include.iter().any(|name| name == relationship.name);
        if included {
            let data = |id: &String| json!({ "type": relationship.kind, "id": id });
            match &relationship.target {
                Target::One(Some(id)) => {
                    shown.insert("data".to_owned(), data(id));
                }
                Target::One(None) | Target::Elsewhere => {}
                Target::Many(all) => {
                    let paging = json!({ "total": all.len(), "limit": related_limit(relationship, query) });
                    shown.insert("meta".to_owned(), json!({ "paging": paging }));
                    shown.insert("data".to_owned(), ids(relationship, query).map(data).collect());
                }
            }
        }
        if relationship.linked {
            let (name, home) = (relationship.name, resource.home(base));
            shown.insert(
                "links".to_owned(),
                json!({
                    "self": format!("{home}/relationships/{name}"),
                    "related": format!("{home}/{name}"),
                }),
            );
        }
        relationships.insert(relationship.name.to_owned(), shown.into());
    }
    let mut rendered = json!({ "type": resource.kind, "id": resource.id });
    if !attributes.is_empty() {
        rendered["attributes"] = attributes.into();
    }
    if !relationships.is_empty() {
        rendered["relationships"] = relationships.into();
    }
    if resource.collection.is_some() {
        rendered["links"] = json!({ "self": resource.home(base) });
    }
    rendered
}

fn ids<'r>(relationship: &'r Relationship, query: &Query) -> impl Iterator<Item = &'r String> + use<'r> {
    let (one, many): (&'r [String], usize) = match &relationship.target {
        Target::One(id) => (id.as_slice(), 1),
        Target::Many(ids) => (ids, related_limit(relationship, query)),
        Target::Elsewhere => (&[], 0),
    };
    one.iter().take(many)
}

fn related_limit(relationship: &Relationship, query: &Query) -> usize {
    query.related_limits.get(relationship.name).copied().unwrap_or(DEFAULT_RELATED)
}

fn sort_key(resource: &Resource, field: &str) -> String {
    let found = resource.attributes.iter().find(|(name, _)| *name == field);
    found.and_then(|(_, value)| value.as_ref()?.as_str()).unwrap_or_default().to_owned()
}

fn bracketed(name: &str) -> Option<(&str, &str)> {
    name.strip_suffix(']')?.split_once('[')
}

fn number(name: &str, value: &str, most: usize) -> Result<usize, ApiError> {
    let parsed = value.parse().ok().filter(|limit| (1..=most).contains(limit));
    parsed.ok_or_else(|| ApiError::parameter(name, format!("'{value}' is not between 1 and {most}")))
}

fn illegal(name: &str) -> ApiError {
    ApiError::parameter(name, format!("The parameter '{name}' can not be used with this request"))
}

fn write_cursor(offset: usize) -> String {
    URL_SAFE_NO_PAD.encode(format!("offset:{offset}"))
}

fn read_cursor(cursor: &str) -> Option<usize> {
    let text = String::from_utf8(URL_SAFE_NO_PAD.decode(cursor).ok()?).ok()?;
    text.strip_prefix("offset:")?.parse().ok()
}

/// The address of a page: as asked, with another cursor where there is one.
fn address(base: &str, path: &str, query: &str, cursor: Option<&str>) -> String {
    let mut serializer = form_urlencoded::Serializer::new(String::new());
    for (name, value) in form_urlencoded::parse(query.as_bytes()) {
        if cursor.is_none() || name != "cursor" {
            serializer.append_pair(&name, &value);
        }
    }
    if let Some(cursor) = cursor {
        serializer.append_pair("cursor", cursor);
    }
    let query = serializer.finish();
    if query.is_empty() { format!("{base}{path}") } else { format!("{base}{path}?{query}") }
}
