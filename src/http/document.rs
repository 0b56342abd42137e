//! What the OpenAPI document says of every operation alike, in one place: how requests are refused, which headers they may
//! carry, and examples. The handlers document what is their own.

use super::problem::Kind;
use super::{needs, once};
use crate::access::scope::Permission;
use serde_json::{Map, Value, json};

/// An example of a schema, by its name.
const EXAMPLES: &str = include_str!("examples.json");

/// What a status means where a handler says nothing of its own.
fn meaning(status: &str) -> &'static str {
    match status {
        "200" => "What was asked for",
        "201" => "Made",
        "202" => "Taken; it is on its way",
        "204" => "Done",
        "304" => "It is what `If-None-Match` names",
        "400" => "The request cannot be read (`bad-request`)",
        "401" => "No valid credentials (`unauthorized`)",
        "403" => {
            "Not allowed (`scope`, `role`, `instance`, `session`, `csrf`, `passkey-required`,
             `sign-in-again`), or not signed in"
        }
        "404" => "There is no such thing, or none that you may know of (`not-found`)",
        "408" => "The body did not arrive in time (`too-slow`)",
        "409" => {
            "It collides with what is there (`conflict`), is being carried out (`in-progress`), or was carried out and its \
             answer is lost (`answer-lost`)"
        }
        "412" => "It has changed since (`precondition-failed`)",
        "413" => "The body is too large (`too-large`)",
        "415" => "The body is not JSON (`unsupported-media-type`)",
        "422" => "It cannot be carried out (`invalid`)",
        "429" => "Too many requests (`too-many-requests`)",
        "303" => "Go on there",
        "502" => "An identity provider did not answer, or not as it has to (`provider-unavailable`)",
        "503" => "The service cannot answer now (`unavailable`)",
        _ => "",
    }
}

fn header(name: &str, description: &str, schema: &Value) -> Value {
    json!({ "name": name, "in": "header", "required": false, "description": description, "schema": schema })
}

/// Whether a GET has a tag of its own making: of its configuration, so that it is never 304.
fn of_configuration(operation: &Value) -> bool {
    operation["responses"]["200"]["headers"]["ETag"].is_object()
}

/// The headers that an operation of `/v1` may carry.
fn headers(method: &str, operation: &Value) -> Vec<Value> {
    let tags = json!({ "type": "string", "maxLength": 1000 });
    match method {
        "get" if of_configuration(operation) => Vec::new(),
        "get" => {
            vec![header("If-None-Match", "The `ETag` of what you have: 304 where it is still so", &tags)]
        }
        "post" => vec![header(
            "Idempotency-Key",
            "Kept for 24 hours: the same request gets the first answer again, another 409",
            &json!({ "type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[!-~]+$" }),
        )],
        _ => vec![header(
            "If-Match",
            "The `ETag` of what you want to change: 412 where it is so no more",
            &tags,
        )],
    }
}

/// The refusals that an operation can meet besides its own.
fn refusals(method: &str, path: &str, operation: &Value) -> Vec<&'static str> {
    let (body, inbound) = (operation["requestBody"].is_object(), path.starts_with("/in/"));
    let query = operation["parameters"].as_array().is_some_and(|all| all.iter().any(|p| p["in"] == "query"));
    let mut list = vec!["401", "503"];
    if !inbound {
        list.extend(["403", "429"]);
    }
    if path.contains('{') && !inbound {
        list.push("404");
    }
    if query || body || method == "post" {
        list.push("400");
    }
    if body {
        list.extend(["408", "413", "422"]);
    }
    // A POST may carry an idempotency key, and then its body is read whatever it is.
    if method == "post" {
        list.extend(["408", "409", "413"]);
    }
    if body && !inbound {
        list.push("415");
    }
    match method {
        "get" if !of_configuration(operation) => list.push("304"),
        "patch" | "put" | "delete" => list.push("412"),
        _ => {}
    }
    list
}

fn problem(status: &str) -> Value {
    let description = meaning(status);
    if status == "304" {
        return json!({ "description": description });
    }
    let kind = Kind::ALL.iter().find(|kind| kind.status().to_string() == status);
    let name = kind.map_or("internal", |kind| kind.name());
    let example = json!({
        "type": format!("/problems/{name}"),
        "title": "…",
        "status": kind.map_or(500, |kind| kind.status()),
        "detail": "…",
        "instance": "urn:uuid:0199b1c4-0000-7000-8000-000000000001",
    });
    let mut response = json!({
        "description": description,
        "content": { "application/problem+json": {
            "schema": { "$ref": "#/components/schemas/Problem" }, "example": example } },
    });
    if matches!(status, "409" | "429" | "503") {
        response["headers"] = json!({ "Retry-After": {
            "description": "Seconds after which to try again", "schema": { "type": "integer", "minimum": 1 } } });
    }
    response
}

/// The name of the schema that a body refers to.
fn schema_of(media: &Value) -> Option<&str> {
    media["schema"]["$ref"].as_str()?.rsplit('/').next()
}

fn give_example(content: &mut Value, examples: &Value) {
    let Some(media) = content.get_mut("application/json") else { return };
    let example = schema_of(media).map(|name| &examples[name]).filter(|example| !example.is_null());
    match example.cloned() {
        // Several, by name.
        Some(Value::Array(several)) => {
            let named: Map<String, Value> = several
                .into_iter()
                .enumerate()
                .map(|(i, value)| (format!("example-{i}"), json!({ "value": value })))
                .collect();
            media["examples"] = Value::Object(named);
        }
        Some(one) => media["example"] = one,
        None => {}
    }
}

/// Says which scopes a key needs: to programs where OpenAPI 3.1 has roles of a scheme, to people in the description.
fn name_scopes(permission: Permission, operation: &mut Value) {
    let scopes = permission.scopes();
    let mut security: Vec<Value> = Vec::new();
    for way in operation["security"].as_array().into_iter().flatten() {
        match way["token"].is_array() {
            // Each of several is enough.
            true if !scopes.is_empty() => {
                security.extend(scopes.iter().map(|scope| json!({ "token": [scope.name()] })));
            }
            _ => security.push(way.clone()),
        }
    }
    operation["security"] = security.into();
    let names: Vec<String> = scopes.iter().map(|scope| format!("`{scope}`")).collect();
    let mut needed = match names.is_empty() {
        true => "A key of any scope.".to_owned(),
        false => format!("A key needs {}.", names.join(" or ")),
    };
    if permission.of_the_instance() {
        needed.pop();
        needed.push_str(", and reaches the instance.");
    }
    let own = operation["description"].as_str().filter(|own| !own.is_empty());
    operation["description"] = own.map_or_else(|| needed.clone(), |own| format!("{own}\n\n{needed}")).into();
}

fn complete_operation(method: &str, path: &str, operation: &mut Value, examples: &Value) {
    let api = path.starts_with("/v1/");
    let reads_json = operation["requestBody"]["content"]["application/json"].is_object();
    if api || path.starts_with("/in/") || reads_json {
        let refusals = match api || path.starts_with("/in/") {
            true => refusals(method, path, operation),
            // Pages of sign-in say the rest themselves; what cannot be read is refused alike everywhere.
            false => vec!["400", "408", "413", "415", "422", "503"],
        };
        let Some(responses) = operation["responses"].as_object_mut() else { return };
        for status in refusals {
            let own = responses.remove(status);
            let mut response = problem(status);
            let words =
                own.as_ref().and_then(|own| own["description"].as_str()).filter(|words| !words.is_empty());
            if let Some(words) = words {
                response["description"] = words.into();
            }
            responses.insert(status.to_owned(), response);
        }
    }
    if let Some(permission) = needs::needs(method, path) {
        name_scopes(permission, operation);
    }
    if api {
        let mut parameters = operation["parameters"].as_array().cloned().unwrap_or_default();
        parameters.extend(headers(method, operation).into_iter().filter(|header| {
            header["name"].as_str().is_some_and(|name| !name.eq_ignore_ascii_case(once::HEADER))
                || method == "post"
        }));
        operation["parameters"] = parameters.into();
    }
    for parameter in operation.get_mut("parameters").and_then(Value::as_array_mut).into_iter().flatten() {
        let example = parameter["name"].as_str().map(|name| &examples["parameters"][name]);
        if let (true, Some(example)) = (parameter["in"] == "path", example.filter(|e| !e.is_null())) {
            parameter["example"] = example.clone();
        }
    }
    give_example(&mut operation["requestBody"]["content"], examples);
    if operation["requestBody"]["content"].is_null()
        && let Some(operation) = operation.as_object_mut()
    {
        operation.remove("requestBody");
    }
    let own_tag = of_configuration(operation);
    for (status, response) in operation["responses"].as_object_mut().into_iter().flatten() {
        if response["description"].as_str().is_none_or(str::is_empty) {
            response["description"] = meaning(status).into();
        }
        if api && method == "get" && status == "200" && !own_tag {
            response["headers"]["ETag"] = json!({
                "description": "A strong tag, for `If-None-Match` and `If-Match`; not with streams",
                "schema": { "type": "string" } });
        }
        if api {
            for (name, description) in [
                ("RateLimit-Policy", "`q` requests in `w` seconds (draft-ietf-httpapi-ratelimit-headers)"),
                ("RateLimit", "`r` more now, all again in `t` seconds"),
            ] {
                response["headers"][name] =
                    json!({ "description": description, "schema": { "type": "string" } });
            }
        }
        give_example(&mut response["content"], examples);
        if response["content"].is_null()
            && let Some(response) = response.as_object_mut()
        {
            response.remove("content");
        }
    }
}

/// Completes what the handlers say of themselves.
#[must_use]
pub fn complete(document: utoipa::openapi::OpenApi) -> Value {
    // Both are ours and written at build time; a document without them fails the tests.
    let mut document = serde_json::to_value(document).unwrap_or_default();
    let examples: Value = serde_json::from_str(EXAMPLES).unwrap_or_default();
    for (path, methods) in document["paths"].as_object_mut().into_iter().flatten() {
        for (method, operation) in methods.as_object_mut().into_iter().flatten() {
            complete_operation(method, path, operation, &examples);
        }
    }
    document
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::http::openapi;

    #[test]
    fn every_body_has_an_example_and_every_operation_its_refusals() {
        let examples: Value = serde_json::from_str(EXAMPLES).unwrap();
        assert!(examples.as_object().unwrap().len() > 20);
        let document = openapi();
        let mut bodies = 0;
        for (path, methods) in document["paths"].as_object().unwrap() {
            for (method, operation) in methods.as_object().unwrap() {
                assert!(operation.as_object().unwrap().values().all(|member| !member.is_null()), "{path}");
                let what = format!("{method} {path}");
                let responses = operation["responses"].as_object().unwrap();
                for (status, response) in responses {
                    assert!(!response["description"].as_str().unwrap().is_empty(), "{what} {status}");
                    let media = &response["content"]["application/json"];
                    if status.starts_with('2') && schema_of(media).is_some() {
                        assert!(media.get("example").or(media.get("examples")).is_some(), "{what} {status}");
                        bodies += 1;
                    }
                }
                let media = &operation["requestBody"]["content"]["application/json"];
                // A store's event is the store's to describe.
                if media.is_object() && path != "/in/{source}/app-store-connect" {
                    assert!(media.get("example").or(media.get("examples")).is_some(), "{what}");
                    bodies += 1;
                }
                for status in ["401", "503"].iter().filter(|_| path.starts_with("/v1/")) {
                    assert!(responses.contains_key(*status), "{what} {status}");
                }
            }
        }
        assert!(bodies > 30);
    }
}
