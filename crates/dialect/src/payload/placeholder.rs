//! Placeholders: what a document leaves to be filled in, and somebody has pasted as it stands.

use serde_json::Value;

use crate::payload::field::Invalid;

/// Returns whether a text is a placeholder and nothing else: `<your key>`, `...` or `…`.
pub fn is_placeholder(text: &str) -> bool {
    let text = text.trim();
    let inner = text.strip_prefix('<').and_then(|text| text.strip_suffix('>'));
    matches!(text, "..." | "…") || inner.is_some_and(|inner| !inner.contains(['<', '>']))
}

/// Returns whether a placeholder stands anywhere in a value.
pub(crate) fn holds_placeholder(value: &Value) -> bool {
    match value {
        Value::String(text) => is_placeholder(text),
        Value::Array(items) => items.iter().any(holds_placeholder),
        Value::Object(members) => members.values().any(holds_placeholder),
        _ => false,
    }
}

pub(crate) fn placeholder(path: &str, rule: &str) -> Invalid {
    Invalid::new(
        path,
        format!("{path} is a placeholder, not a value"),
        format!("put the value itself in its place; {path}: {rule}"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_to_be_filled_in() {
        for text in ["<your key>", "<APP_KEY>", " <from HyperVerge> ", "<>", "...", "…", " ... "] {
            assert!(is_placeholder(text), "{text}");
        }
        for text in ["", "<", ">", "a<b>c", "<b", "b>", "....", "..", "<a> and <b>", "<#> is not one", "x...", "...x"] {
            assert!(!is_placeholder(text), "{text}");
        }
    }
}
