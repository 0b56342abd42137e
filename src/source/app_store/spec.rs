//! Apple's description, for the tests that hold this module to it.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

use std::path::PathBuf;

use serde_json::Value;

/// Apple's OpenAPI description.
pub(super) struct Description(Value);

impl Description {
    /// The description, where it is: a line is printed where it is not.
    pub(super) fn load() -> Option<Self> {
        let default = || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../shared");
        let shared = std::env::var_os("STATUSLEDGER_SHARED").map_or_else(default, PathBuf::from);
        let path = shared.join("specs/app-store-connect-openapi-4.4.1.json");
        match std::fs::read(&path) {
            Ok(text) => Some(Self(serde_json::from_slice(&text).unwrap())),
            Err(_) => {
                println!("skipped: there is no {}", path.display());
                None
            }
        }
    }

    /// The GET of a path template.
    pub(super) fn get(&self, template: &str) -> Option<&Value> {
        self.0["paths"].get(template)?.get("get")
    }

    /// The schema of a GET's query parameter.
    pub(super) fn parameter(&self, template: &str, name: &str) -> Option<&Value> {
        let parameters = self.get(template)?["parameters"].as_array()?;
        parameters.iter().find(|one| one["name"] == name && one["in"] == "query").map(|one| &one["schema"])
    }

    /// The names of a GET's required query parameters.
    pub(super) fn required(&self, template: &str) -> Vec<&str> {
        let parameters =
            self.get(template).and_then(|get| get["parameters"].as_array()).into_iter().flatten();
        let required = parameters.filter(|one| one["required"] == true && one["in"] == "query");
        required.map(|one| one["name"].as_str().unwrap()).collect()
    }

    /// Follows references.
    pub(super) fn resolve<'v>(&'v self, schema: &'v Value) -> &'v Value {
        match schema.get("$ref").and_then(Value::as_str) {
            Some(at) => self.resolve(self.0.pointer(at.strip_prefix('#').unwrap()).unwrap()),
            None => schema,
        }
    }

    /// A schema by name.
    pub(super) fn schema(&self, name: &str) -> &Value {
        self.0["components"]["schemas"].get(name).unwrap_or_else(|| panic!("no schema {name}"))
    }

    /// The schemas of resources of a type, by name: some have two.
    pub(super) fn resources(&self, kind: &str) -> Vec<(&str, &Value)> {
        let schemas = self.0["components"]["schemas"].as_object().unwrap();
        schemas
            .iter()
            .filter(|(_, schema)| {
                schema["properties"]["type"]["enum"] == serde_json::json!([kind])
                    && schema.get("title").is_some()
            })
            .map(|(name, schema)| (name.as_str(), schema))
            .collect()
    }

    /// The closed list of values of an attribute of a schema, where it has one; `a.b` is a member of an attribute.
    pub(super) fn values(&self, schema: &str, attribute: &str) -> Option<Vec<&str>> {
        let mut at = &self.schema(schema)["properties"]["attributes"];
        for name in attribute.split('.') {
            at = self.resolve(at["properties"].get(name)?);
        }
        self.values_of(at)
    }

    /// The closed list of values of a schema, or of the elements of an array.
    pub(super) fn values_of<'v>(&'v self, schema: &'v Value) -> Option<Vec<&'v str>> {
        let schema = self.resolve(schema);
        let schema = schema.get("items").map_or(schema, |items| self.resolve(items));
        Some(schema.get("enum")?.as_array()?.iter().map(|value| value.as_str().unwrap()).collect())
    }
}
