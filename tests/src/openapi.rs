//! The service's own OpenAPI document, held against what it really answers.
//!
//! Every answer that a [`crate::Caller`] receives is checked: its route and status must be documented, and
//! its body must fit the schema, with no property that the document does not know. The part of JSON Schema
//! that the document uses is understood; a keyword that is not understood fails the test, so that nothing
//! goes unchecked unnoticed.

use serde_json::Value;

#[derive(Debug)]
pub struct Api {
    pub document: Value,
}

impl Api {
    pub fn new(document: Value) -> Self {
        assert!(
            document["openapi"].as_str().is_some_and(|version| version.starts_with("3.1.")),
            "no OpenAPI 3.1"
        );
        Self { document }
    }

    /// Every documented (method in capitals, path template).
    pub fn routes(&self) -> Vec<(String, String)> {
        let paths = self.document["paths"].as_object().expect("the document has paths");
        let of_path = |(path, item): (&String, &Value)| {
            let methods = item.as_object().expect("a path has operations").keys();
            methods.map(|method| (method.to_uppercase(), path.clone())).collect::<Vec<_>>()
        };
        paths.iter().flat_map(of_path).collect()
    }

    /// What is wrong with an answer, if anything.
    pub fn faults(
        &self,
        method: &str,
        path: &str,
        status: u16,
        content_type: &str,
        body: &Value,
    ) -> Vec<String> {
        let Some((template, operation)) = self.operation(method, path) else {
            // No such route, or another method: nothing that a route could document.
            let foreign = matches!(status, 404 | 405) || path == "/";
            return if foreign { Vec::new() } else { vec![format!("{method} {path} is not documented")] };
        };
        let here = format!("{method} {template} {status}");
        let Some(response) = operation["responses"].get(status.to_string()) else {
            return vec![format!("{here}: this status is not documented (body: {body})")];
        };
        let essence = content_type.split(';').next().unwrap_or_default().trim();
        // HEAD is answered as GET would be, without the body.
        let Some(content) = response.get("content").filter(|_| method != "HEAD") else { return Vec::new() };
        let Some(media) = content.get(essence) else {
            return vec![format!("{here}: content type `{essence}` is not documented")];
        };
        let mut faults = Vec::new();
        if let (true, Some(schema)) = (essence.ends_with("json"), media.get("schema")) {
            self.validate(schema, body, &here, false, &mut faults);
        }
        faults
    }

    fn operation(&self, method: &str, path: &str) -> Option<(&str, &Value)> {
        let paths = self.document["paths"].as_object()?;
        let fits = |template: &str| {
            let (left, right): (Vec<&str>, Vec<&str>) =
                (template.split('/').collect(), path.split('/').collect());
            let same = |(a, b): (&&str, &&str)| a == b || (a.starts_with('{') && !b.is_empty());
            left.len() == right.len() && left.iter().zip(&right).all(same)
        };
        let (template, item) = paths.iter().find(|(template, _)| fits(template))?;
        Some((template, item.get(method.to_lowercase())?))
    }

    fn resolve<'a>(&'a self, schema: &'a Value) -> &'a Value {
        match schema.get("$ref").and_then(Value::as_str) {
            Some(reference) => {
                let pointer = reference.strip_prefix('#').expect("references stay in the document");
                self.document.pointer(pointer).unwrap_or_else(|| panic!("{reference} leads nowhere"))
            }
            None => schema,
        }
    }

    /// Names of members that a schema documents, in whichever of its parts and branches.
    fn members<'a>(&'a self, schema: &'a Value) -> Vec<&'a str> {
        let schema = self.resolve(schema);
        let own = schema["properties"].as_object().into_iter().flat_map(|members| members.keys());
        let mut names: Vec<&str> = own.map(String::as_str).collect();
        for parts in ["allOf", "oneOf", "anyOf"] {
            names.extend(schema[parts].as_array().into_iter().flatten().flat_map(|part| self.members(part)));
        }
        names
    }

    /// `part`: of an `allOf`, whose other parts document further members.
    fn validate(&self, schema: &Value, value: &Value, at: &str, part: bool, faults: &mut Vec<String>) {
        let schema = self.resolve(schema);
        let Some(rules) = schema.as_object() else {
            assert!(schema == &Value::Bool(true), "{at}: a schema that is none: {schema}");
            return;
        };
        for (keyword, rule) in rules {
            match keyword.as_str() {
                "type" => {
                    let types: Vec<&str> = match rule {
                        Value::Array(types) => types.iter().filter_map(Value::as_str).collect(),
                        one => one.as_str().into_iter().collect(),
                    };
                    if !types.iter().any(|expected| is(value, expected)) {
                        faults.push(format!("{at} is {value}, not {}", types.join(" or ")));
                    }
                }
                "enum" | "const" => {
                    let allowed = rule.as_array().map_or(std::slice::from_ref(rule), Vec::as_slice);
                    if !allowed.contains(value) {
                        faults.push(format!("{at} is {value}, not one of {rule}"));
                    }
                }
                "oneOf" | "anyOf" => {
                    let fitting = rule.as_array().into_iter().flatten().filter(|branch| {
                        let mut of_branch = Vec::new();
                        self.validate(branch, value, at, part, &mut of_branch);
                        of_branch.is_empty()
                    });
                    if fitting.count() == 0 {
                        faults.push(format!("{at} is {value}, which fits no branch of {rule}"));
                    }
                }
                "allOf" => {
                    for part in rule.as_array().into_iter().flatten() {
                        self.validate(part, value, at, true, faults);
                    }
                    let known = self.members(schema);
                    let unknown = |name: &&String| !part && !known.contains(&name.as_str());
                    for name in value.as_object().into_iter().flat_map(|object| object.keys()).filter(unknown)
                    {
                        faults.push(format!("{at} has `{name}`, which is not documented"));
                    }
                }
                "items" => {
                    for (index, item) in value.as_array().into_iter().flatten().enumerate() {
                        self.validate(rule, item, &format!("{at}[{index}]"), false, faults);
                    }
                }
                "required" => {
                    let Some(object) = value.as_object() else { continue };
                    for name in rule.as_array().into_iter().flatten().filter_map(Value::as_str) {
                        if !object.contains_key(name) {
                            faults.push(format!("{at} lacks `{name}`"));
                        }
                    }
                }
                "properties" => {
                    let Some(object) = value.as_object() else { continue };
                    for (name, member) in object {
                        match rule.get(name) {
                            Some(schema) => {
                                self.validate(schema, member, &format!("{at}.{name}"), false, faults);
                            }
                            None if part => {}
                            None => faults.push(format!("{at} has `{name}`, which is not documented")),
                        }
                    }
                }
                "minimum" => {
                    if value.as_f64().is_some_and(|number| rule.as_f64().is_some_and(|least| number < least))
                    {
                        faults.push(format!("{at} is {value}, below {rule}"));
                    }
                }
                "format" => {
                    if let Some(text) = value.as_str()
                        && !formatted(rule.as_str().unwrap_or_default(), text)
                    {
                        faults.push(format!("{at} is `{text}`, no {rule}"));
                    }
                }
                "description"
                | "title"
                | "example"
                | "examples"
                | "default"
                | "additionalProperties"
                | "propertyNames" => {}
                other => panic!("{at}: the schema has `{other}`, which this check does not know yet"),
            }
        }
    }
}

fn is(value: &Value, expected: &str) -> bool {
    match expected {
        "null" => value.is_null(),
        "boolean" => value.is_boolean(),
        "integer" => value.is_u64() || value.is_i64(),
        "number" => value.is_number(),
        "string" => value.is_string(),
        "array" => value.is_array(),
        "object" => value.is_object(),
        other => panic!("JSON Schema has no type `{other}`"),
    }
}

fn formatted(format: &str, text: &str) -> bool {
    match format {
        "uuid" => uuid::Uuid::try_parse(text).is_ok(),
        "date-time" => is_time(text),
        other => panic!("format `{other}` is not checked yet"),
    }
}

/// RFC 3339 as the contract wants it: UTC, with microseconds, `2026-11-24T10:00:00.000000Z`.
pub fn is_time(text: &str) -> bool {
    let pattern = b"0000-00-00T00:00:00.000000Z";
    let fits = |(byte, wanted): (u8, u8)| if wanted == b'0' { byte.is_ascii_digit() } else { byte == wanted };
    text.len() == pattern.len() && text.bytes().zip(pattern.iter().copied()).all(fits)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn faults(value: Value) -> Vec<String> {
        let api = Api::new(json!({
            "openapi": "3.1.0",
            "paths": {"/a/{id}": {"get": {"responses": {"200": {"content": {"application/json": {"schema":
                {"$ref": "#/components/schemas/A"}}}}}}}},
            "components": {"schemas": {"A": {
                "type": "object", "required": ["n", "when"],
                "properties": {
                    "n": {"type": ["integer", "null"]},
                    "when": {"type": "string", "format": "date-time"},
                    "word": {"oneOf": [{"type": "null"}, {"type": "string", "enum": ["a", "b"]}]},
                },
            }}},
        }));
        api.faults("GET", "/a/1", 200, "application/json", &value)
    }

    #[test]
    fn what_does_not_fit_is_named() {
        let when = "2026-11-24T10:00:00.000000Z";
        assert_eq!(faults(json!({"n": null, "when": when, "word": "b"})), Vec::<String>::new());
        for (bad, named) in [
            (json!({"when": when}), "lacks `n`"),
            (json!({"n": 1.5, "when": when}), "not integer or null"),
            (json!({"n": 1, "when": "yesterday"}), "no \"date-time\""),
            (json!({"n": 1, "when": when, "word": "c"}), "fits no branch"),
            (json!({"n": 1, "when": when, "more": 1}), "has `more`, which is not documented"),
        ] {
            let found = faults(bad.clone());
            assert!(found.len() == 1 && found[0].contains(named), "{bad}: {found:?}");
        }
    }

    #[test]
    fn an_undocumented_status_or_route_is_named() {
        let api = Api::new(json!({"openapi": "3.1.0", "paths": {"/a": {"get": {"responses": {"200": {}}}}}}));
        let faults = |path, status| api.faults("GET", path, status, "", &Value::Null);
        assert!(faults("/a", 200).is_empty());
        assert!(faults("/a", 418)[0].contains("not documented"));
        assert!(faults("/b", 200)[0].contains("not documented"));
        assert!(faults("/b", 404).is_empty());
    }
}
