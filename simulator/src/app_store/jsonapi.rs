//! The part of JSON:API that App Store Connect speaks: sparse fields, includes one level deep, filters,
//! sorting, and pages by cursor.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Map, Value, json};
use url::form_urlencoded;

use crate::app_store::errors::ApiError;
use crate::app_store::fields::fields_of;

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
    pub(crate) attributes: Vec<(&'static str, Option<Value>)>,
    pub(crate) relationships: Vec<Relationship>,
}

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

/// What a list endpoint allows.
pub(crate) struct Listing {
    /// The type of its resources.
    pub(crate) kind: &'static str,
    /// The relationships that `include` may name, with their types.
    pub(crate) includes: &'static [(&'static str, &'static str)],
    /// Those of them that take a `limit[…]`.
    pub(crate) limited: &'static [&'static str],
    /// The filters.
    pub(crate) filters: &'static [&'static str],
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
}

impl Query {
    /// Reads a query string as strictly as the store does: what the list does not allow is an error.
    pub(crate) fn parse(query: &str, listing: &Listing) -> Result<Self, ApiError> {
        let mut parsed = Self { limit: DEFAULT_LIMIT, ..Self::default() };
        for (name, value) in form_urlencoded::parse(query.as_bytes()) {
            let values = || value.split(',').filter(|part| !part.is_empty()).map(str::to_owned);
            match (name.as_ref(), bracketed(&name)) {
                (_, Some(("fields", kind))) => {
                    let known = fields_of(kind).filter(|_| {
                        kind == listing.kind || listing.includes.iter().any(|(_, included)| *included == kind)
                    });
                    let known = known.ok_or_else(|| illegal(&name))?;
                    if let Some(field) = values().find(|field| !known.contains(&field.as_str())) {
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
                    if !listing.filters.contains(&field) {
                        return Err(illegal(&name));
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
                ("limit", None) => parsed.limit = number("limit", &value, MAX_LIMIT)?,
                ("cursor", None) => {
                    let offset = read_cursor(&value);
                    let invalid =
                        || ApiError::parameter("cursor", format!("'{value}' is not a valid cursor"));
                    parsed.offset = offset.ok_or_else(invalid)?;
                }
                _ => return Err(illegal(&name)),
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
        self.filter(field).is_none_or(|values| values.iter().any(|wanted| wanted == value))
    }
}

/// The body of a page: the resources that the query asks for, those they include, and the way on.
/// `lookup` finds a resource by type and id.
pub(crate) fn page(
    base: &str,
    path: &str,
    query_text: &str,
    query: &Query,
    mut resources: Vec<Resource>,
    lookup: &dyn Fn(&str, &str) -> Option<Resource>,
) -> Value {
    if let Some((field, down)) = &query.sort {
        resources.sort_by_key(|resource| sort_key(resource, field));
        if *down {
            resources.reverse();
        }
    }
    let total = resources.len();
    let end = query.offset.saturating_add(query.limit).min(total);
    let shown = resources.get(query.offset.min(total)..end).unwrap_or_default();
    let mut included = Vec::new();
    let mut seen = BTreeSet::new();
    for resource in shown {
        for relationship in &resource.relationships {
            if !query.include.iter().any(|name| name == relationship.name) {
                continue;
            }
            for id in ids(relationship, query) {
                if seen.insert((relationship.kind, id.clone())) {
                    included.extend(
                        lookup(relationship.kind, id).map(|found| render(base, &found, query, false)),
                    );
                }
            }
        }
    }
    let mut links = json!({ "self": address(base, path, query_text, None) });
    let mut paging = json!({ "total": total, "limit": query.limit });
    if end < total {
        let cursor = write_cursor(end);
        links["next"] = address(base, path, query_text, Some(&cursor)).into();
        paging["nextCursor"] = cursor.into();
    }
    let data: Vec<_> = shown.iter().map(|resource| render(base, resource, query, true)).collect();
    let mut body = json!({ "data": data, "links": links, "meta": { "paging": paging } });
    if !query.include.is_empty() {
        body["included"] = included.into();
    }
    body
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
            let (kind, id, name) = (resource.kind, &resource.id, relationship.name);
            shown.insert(
                "links".to_owned(),
                json!({
                    "self": format!("{base}/v1/{kind}/{id}/relationships/{name}"),
                    "related": format!("{base}/v1/{kind}/{id}/{name}"),
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
    rendered["links"] = json!({ "self": format!("{base}/v1/{}/{}", resource.kind, resource.id) });
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
