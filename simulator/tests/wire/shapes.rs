//! The stores' descriptions as a judge: everything in an answer has to stand in them.
//!
//! Stricter than JSON Schema: a member that the description does not have is an error.

use std::path::PathBuf;

use serde_json::{Map, Value};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// A description; Apple's is OpenAPI, Google's are discovery documents.
pub(crate) struct Description(Value);

impl Description {
    /// Apple's, or `None` with a line where the descriptions are absent.
    pub(crate) fn apple() -> Option<Self> {
        Self::load("app-store-connect-openapi-4.4.1.json")
    }

    /// Google's publisher API.
    pub(crate) fn publisher() -> Option<Self> {
        Self::load("google-androidpublisher-v3.json")
    }

    /// Google's reporting API.
    pub(crate) fn reporting() -> Option<Self> {
        Self::load("google-playdeveloperreporting-v1beta1.json")
    }

    fn load(name: &str) -> Option<Self> {
        let shared = std::env::var_os("STATUSLEDGER_SHARED")
            .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../shared"), PathBuf::from);
        let path = shared.join("specs").join(name);
        match std::fs::read(&path) {
            Ok(text) => Some(Self(serde_json::from_slice(&text).unwrap())),
            Err(_) => {
                println!("skipped: there is no {}", path.display());
                None
            }
        }
    }

    /// The values of an enumeration among Apple's schemas, at a pointer below them.
    pub(crate) fn values(&self, pointer: &str) -> Vec<&str> {
        let found = self.0.pointer(pointer).unwrap_or_else(|| panic!("no {pointer}"));
        found["enum"].as_array().unwrap().iter().map(|value| value.as_str().unwrap()).collect()
    }

    /// Whether Apple's description has this path.
    pub(crate) fn has_path(&self, template: &str) -> bool {
        self.0["paths"].get(template).is_some()
    }

    /// The schema of a query parameter of one of Apple's GETs.
    pub(crate) fn parameter(&self, template: &str, name: &str) -> Option<&Value> {
        let parameters = self.0["paths"][template]["get"]["parameters"].as_array().unwrap();
        parameters.iter().find(|parameter| parameter["name"] == name).map(|parameter| &parameter["schema"])
    }

    /// Checks an answer of one of Apple's GETs against the schema for its status; statuses that the
    /// description does not list are errors of the common shape.
    pub(crate) fn check_apple(&self, template: &str, status: u16, body: &Value) {
        let responses = &self.0["paths"][template]["get"]["responses"];
        let listed = &responses[status.to_string()]["content"]["application/json"]["schema"];
        let fallback = &self.0["components"]["schemas"]["ErrorResponse"];
        assert!(!listed.is_null() || status >= 400, "{template} has no {status}");
        let schema = if listed.is_null() { fallback } else { listed };
        self.check(schema, body, template);
    }

    /// Checks an answer against a schema of one of Google's descriptions, by its name.
    pub(crate) fn check_google(&self, schema: &str, body: &Value) {
        self.check(&self.0["schemas"][schema], body, schema);
    }

    /// The GET of one of Google's descriptions that has this path.
    pub(crate) fn method(&self, flat_path: &str) -> Option<&Value> {
        self.method_of(flat_path, "GET")
    }

    /// The method of one of Google's descriptions that has this path and this HTTP method.
    pub(crate) fn method_of(&self, flat_path: &str, http: &str) -> Option<&Value> {
        fn find<'a>(at: &'a Value, flat_path: &str, http: &str) -> Option<&'a Value> {
            let mut methods = at["methods"].as_object().into_iter().flat_map(Map::values);
            let below = at["resources"].as_object().into_iter().flat_map(Map::values);
            methods
                .find(|method| method["flatPath"] == flat_path && method["httpMethod"] == http)
                .or_else(|| below.into_iter().find_map(|resource| find(resource, flat_path, http)))
        }
        find(&self.0, flat_path, http)
    }

    #[track_caller]
    fn check(&self, schema: &Value, value: &Value, at: &str) {
        if let Err(error) = self.validate(schema, value, at) {
            panic!("{error}\n{value:#}");
        }
    }

    fn validate(&self, schema: &Value, value: &Value, at: &str) -> Result<(), String> {
        if let Some(reference) = schema["$ref"].as_str() {
            let found = match reference.strip_prefix('#') {
                Some(pointer) => self.0.pointer(pointer),
                None => self.0["schemas"].get(reference),
            };
            return self.validate(found.ok_or_else(|| format!("{at}: no schema {reference}"))?, value, at);
        }
        if let Some(choices) = schema["oneOf"].as_array() {
            return self.validate_one_of(schema, choices, value, at);
        }
        if let Some(values) = schema["enum"].as_array()
            && !values.contains(value)
        {
            return Err(format!("{at}: {value} is not in the enumeration"));
        }
        let wrong = |wanted: &str| Err(format!("{at}: {value} is no {wanted}"));
        match schema["type"].as_str() {
            Some("object") => self.validate_object(schema, value, at),
            Some("array") => {
                let Some(items) = value.as_array() else { return wrong("array") };
                for (index, item) in items.iter().enumerate() {
                    self.validate(&schema["items"], item, &format!("{at}[{index}]"))?;
                }
                Ok(())
            }
            Some("string") => {
                let Some(text) = value.as_str() else { return wrong("string") };
                match schema["format"].as_str() {
                    Some("date-time") if OffsetDateTime::parse(text, &Rfc3339).is_err() => wrong("time"),
                    Some("int64") if text.parse::<i64>().is_err() => wrong("number in a string"),
                    _ => Ok(()),
                }
            }
            Some("integer") if value.as_i64().is_none() => wrong("integer"),
            Some("number") if value.as_f64().is_none() => wrong("number"),
            Some("boolean") if value.as_bool().is_none() => wrong("boolean"),
            Some("integer" | "number" | "boolean") => Ok(()),
            other => Err(format!("{at}: the judge does not know the type {other:?}")),
        }
    }

    fn validate_one_of(
        &self,
        schema: &Value,
        choices: &[Value],
        value: &Value,
        at: &str,
    ) -> Result<(), String> {
        if let Some(mapping) = schema["discriminator"]["mapping"].as_object() {
            let kind = value["type"].as_str().unwrap_or_default();
            let reference = mapping.get(kind).ok_or_else(|| format!("{at}: no type {kind}"))?;
            return self.validate(&serde_json::json!({ "$ref": reference }), value, at);
        }
        let fitting = choices.iter().filter(|choice| self.validate(choice, value, at).is_ok()).count();
        if fitting == 1 { Ok(()) } else { Err(format!("{at}: {fitting} of the alternatives fit")) }
    }

    fn validate_object(&self, schema: &Value, value: &Value, at: &str) -> Result<(), String> {
        let Some(members) = value.as_object() else { return Err(format!("{at}: {value} is no object")) };
        for name in schema["required"].as_array().into_iter().flatten() {
            if !members.contains_key(name.as_str().unwrap()) {
                return Err(format!("{at}: {name} is missing"));
            }
        }
        for (name, member) in members {
            let known = &schema["properties"][name];
            if known.is_null() {
                return Err(format!("{at}: {name} does not stand in the description"));
            }
            self.validate(known, member, &format!("{at}.{name}"))?;
        }
        Ok(())
    }
}
