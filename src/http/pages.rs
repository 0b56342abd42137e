//! Pages for people, made from what the program knows of itself: `/docs`, the API from its own document, and
//! `/problems/{kind}`, where the `type` of a problem leads. No script, nothing from elsewhere.

use super::problem::{Kind, Problem};
use axum::extract::Path;
use axum::http::{HeaderName, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fmt::Write;

const STYLE: &str = "body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color:#1c1c1c;\
background:#fff}code,pre{font:14px/1.4 ui-monospace,monospace;background:#f2f2f2;border-radius:4px}code{padding:0 .25em}\
pre{padding:.75em;overflow:auto}summary{cursor:pointer;padding:.3em 0}details{border-top:1px solid #ddd}\
table{border-collapse:collapse;width:100%}td,th{text-align:left;vertical-align:top;padding:.25em .75em .25em 0}\
.m{display:inline-block;min-width:4.5em;font-weight:600}@media(prefers-color-scheme:dark){body{background:#161616;\
color:#e8e8e8}code,pre{background:#262626}details{border-color:#333}a{color:#8ab4f8}}";

/// Text as HTML shows it.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            other => out.push(other),
        }
    }
    out
}

/// Escaped text, with what stands between backticks as code.
fn prose(text: &str) -> String {
    let mut out = String::new();
    for (number, part) in text.split('`').enumerate() {
        let part = escaped(part);
        let _ = if number % 2 == 1 { write!(out, "<code>{part}</code>") } else { write!(out, "{part}") };
    }
    out
}

fn page(title: &str, body: &str) -> Response {
    let html = format!(
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\"><title>{title}</title>\
         <meta name=\"viewport\" content=\"width=device-width\"><link rel=\"stylesheet\" href=\"/docs/style.css\">\
         </head><body>{body}</body></html>"
    );
    let policy =
        "default-src 'none'; style-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";
    (
        [
            (header::CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8")),
            (header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(policy)),
            (HeaderName::from_static("referrer-policy"), HeaderValue::from_static("no-referrer")),
        ],
        html,
    )
        .into_response()
}

/// The style of both.
pub async fn style() -> Response {
    let headers = [(header::CONTENT_TYPE, "text/css"), (header::CACHE_CONTROL, "public, max-age=3600")];
    (headers, STYLE).into_response()
}

/// What whoever opens the address finds: where everything else is.
pub async fn root() -> Response {
    page(
        "statusledger",
        "<h1>statusledger</h1><p>App store status as a verifiable ledger. There is no dashboard; this instance is asked over \
         its API, by programs and by the command line (<code>statusledger status</code>).</p>\
         <ul><li><a href=\"/sign-in\">Sign in</a>, then <a href=\"/account\">your account</a>\
         <li><a href=\"/docs\">The API</a>, and its <a href=\"/openapi.json\">OpenAPI document</a>\
         <li><a href=\"/.well-known/statusledger-keys.json\">The keys that it signs with</a>\
         <li><a href=\"/readyz\">Whether it is ready</a></ul>",
    )
}

/// All kinds of problems.
pub async fn problems() -> Response {
    let mut body =
        "<h1>Problems</h1><p>Errors are problem details (RFC 9457). Programs go by the last segment of \
        <code>type</code>.</p><table><tr><th>Kind<th>Status<th>Meaning"
            .to_owned();
    for kind in Kind::ALL {
        let (name, status, means) = (kind.name(), kind.status(), prose(kind.means()));
        let _ = write!(body, "<tr><td><a href=\"/problems/{name}\">{name}</a><td>{status}<td>{means}");
    }
    body.push_str("</table>");
    page("Problems", &body)
}

/// One kind of problem: what it means, what to do.
///
/// # Errors
/// Where there is no such kind.
pub async fn problem(Path(name): Path<String>) -> Result<Response, Problem> {
    let kind = Kind::ALL
        .iter()
        .find(|kind| kind.name() == name)
        .ok_or_else(|| Problem::not_found("There is no such kind of problem; /problems/ lists all."))?;
    let (name, status) = (kind.name(), kind.status());
    let (means, remedy) = (prose(kind.means()), prose(kind.remedy()));
    let body = format!(
        "<h1>{name}</h1><p>HTTP status {status}.</p><h2>What it means</h2><p>{means}</p>\
         <h2>What to do</h2><p>{remedy}</p><p><a href=\"/problems/\">All problems</a> · <a href=\"/docs\">API</a></p>"
    );
    Ok(page(name, &body))
}

fn text<'a>(value: &'a Value, name: &str) -> &'a str {
    value[name].as_str().unwrap_or_default()
}

fn parameters(operation: &Value, out: &mut String) {
    let Some(list) = operation["parameters"].as_array().filter(|list| !list.is_empty()) else { return };
    out.push_str("<h4>Parameters</h4><table>");
    for parameter in list {
        let required = if parameter["required"] == true { "required" } else { "" };
        let _ = write!(
            out,
            "<tr><td><code>{}</code><td>{} {required}<td>{}",
            escaped(text(parameter, "name")),
            escaped(text(parameter, "in")),
            prose(text(parameter, "description"))
        );
    }
    out.push_str("</table>");
}

/// The first example of a body, as it would be sent.
fn example(content: &Value, out: &mut String) {
    let Some(media) = content.as_object().and_then(|all| all.iter().next()) else { return };
    let _ = write!(out, "<p><code>{}</code></p>", escaped(media.0));
    let first = media.1["examples"].as_object().and_then(|all| all.values().next());
    let value = first.map_or(&media.1["example"], |example| &example["value"]);
    if !value.is_null() {
        let shown = serde_json::to_string_pretty(value).unwrap_or_default();
        let _ = write!(out, "<pre>{}</pre>", escaped(&shown));
    }
}

fn operation(method: &str, path: &str, operation: &Value, out: &mut String) {
    let _ = write!(
        out,
        "<details id=\"{}\"><summary><span class=\"m\">{}</span> <code>{}</code> {}</summary>",
        escaped(text(operation, "operationId")),
        escaped(&method.to_uppercase()),
        escaped(path),
        prose(text(operation, "summary"))
    );
    if !text(operation, "description").is_empty() {
        let _ = write!(out, "<p>{}</p>", prose(text(operation, "description")));
    }
    parameters(operation, out);
    if operation["requestBody"].is_object() {
        out.push_str("<h4>Body</h4>");
        example(&operation["requestBody"]["content"], out);
    }
    out.push_str("<h4>Answers</h4>");
    for (status, response) in operation["responses"].as_object().into_iter().flatten() {
        let _ = write!(out, "<p><strong>{status}</strong> {}</p>", prose(text(response, "description")));
        if status.starts_with('2') {
            example(&response["content"], out);
        }
    }
    out.push_str("</details>");
}

/// The API, for people: made once, from the document.
#[must_use]
pub fn docs(document: &Value) -> String {
    let mut by_tag: BTreeMap<&str, String> = BTreeMap::new();
    for (path, methods) in document["paths"].as_object().into_iter().flatten() {
        for (method, of) in methods.as_object().into_iter().flatten() {
            let tag = of["tags"][0].as_str().unwrap_or("other");
            operation(method, path, of, by_tag.entry(tag).or_default());
        }
    }
    let mut body = format!(
        "<h1>{}</h1><p>{}</p><p><a href=\"/openapi.json\">OpenAPI document</a> · <a href=\"/problems/\">Problems</a></p>",
        escaped(text(&document["info"], "title")),
        prose(text(&document["info"], "description"))
    );
    for (tag, operations) in by_tag {
        let _ = write!(body, "<h2>{}</h2>{operations}", escaped(tag));
    }
    body
}

/// Answers with the page about the API.
pub async fn show_docs(body: std::sync::Arc<str>) -> Response {
    page("statusledger API", &body)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_document_says_is_text_and_never_markup() {
        let document = serde_json::json!({
            "info": { "title": "<b>", "description": "`<i>`" },
            "paths": { "/<x>": { "get": { "summary": "\"<script>", "responses": {} } } },
        });
        let page = docs(&document);
        for markup in ["<b>", "<i>", "<script>", "<x>"] {
            assert!(!page.contains(markup), "{page}");
        }
        assert!(page.contains("<code>&lt;i&gt;</code>"));
    }
}
