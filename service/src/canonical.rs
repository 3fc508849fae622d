//! Canonical JSON: one spelling a value, so that a hash of it means the value.

use serde_json::Value;

/// No blanks, object keys sorted by their UTF-8 bytes, strings and numbers as serde_json writes them.
pub fn to_string(value: &Value) -> String {
    match value {
        Value::Array(items) => {
            let items: Vec<String> = items.iter().map(to_string).collect();
            format!("[{}]", items.join(","))
        }
        Value::Object(members) => {
            let mut members: Vec<_> = members.iter().collect();
            members.sort_by_key(|(key, _)| *key);
            let members: Vec<String> = members
                .into_iter()
                .map(|(key, value)| format!("{}:{}", Value::String(key.clone()), to_string(value)))
                .collect();
            format!("{{{}}}", members.join(","))
        }
        scalar => scalar.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    #[test]
    fn the_order_of_keys_and_the_layout_do_not_matter() {
        let value = json!({"b": [1, {"z": null, "a": "ü\n"}], "a": 0.5});
        assert_eq!(super::to_string(&value), r#"{"a":0.5,"b":[1,{"a":"ü\n","z":null}]}"#);
    }
}
