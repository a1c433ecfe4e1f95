//! Label selectors: whom one selects, and which labels make it so.

use serde_json::Value;

use super::text;

/// Whether a selector selects what bears these labels. An empty one selects everything.
pub(super) fn selects(selector: &Value, labels: &Value) -> bool {
    let mut equal = selector["matchLabels"].as_object().into_iter().flatten();
    equal.all(|(key, value)| labels[key] == *value) && expressions(selector).all(|of| holds(of, labels))
}

/// A label without which it would not select; `None` where none of them makes it so.
pub(super) fn decisive(selector: &Value) -> Option<&str> {
    let equal = selector["matchLabels"].as_object().and_then(|of| of.keys().next());
    let asked = || expressions(selector).find(|of| matches!(text(of, "operator"), "In" | "Exists"));
    equal.map(String::as_str).or_else(|| asked().map(|of| text(of, "key")))
}

fn expressions(selector: &Value) -> impl Iterator<Item = &Value> {
    selector["matchExpressions"].as_array().into_iter().flatten()
}

fn holds(expression: &Value, labels: &Value) -> bool {
    let is = &labels[text(expression, "key")];
    let is_among = || expression["values"].as_array().is_some_and(|values| values.contains(is));
    match text(expression, "operator") {
        "In" => is_among(),
        "NotIn" => !is_among(),
        "DoesNotExist" => is.is_null(),
        "Exists" => !is.is_null(),
        // What is not known may select it: better told of than left out.
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_selector_selects_by_every_one_of_its_conditions() {
        let labels = json!({ "app": "cart", "tier": "web" });
        let in_web = json!({ "key": "tier", "operator": "In", "values": ["web", "api"] });
        for (selector, expected) in [
            (json!({}), true),
            (json!({ "matchLabels": { "app": "cart" } }), true),
            (json!({ "matchLabels": { "app": "mail" } }), false),
            (json!({ "matchLabels": { "app": "cart" }, "matchExpressions": [in_web] }), true),
            (json!({ "matchExpressions": [in_web, { "key": "app", "operator": "NotIn", "values": ["cart"] }] }), false),
            (json!({ "matchExpressions": [{ "key": "old", "operator": "NotIn", "values": ["yes"] }] }), true),
            (json!({ "matchExpressions": [{ "key": "old", "operator": "DoesNotExist" }] }), true),
            (json!({ "matchExpressions": [{ "key": "old", "operator": "Exists" }] }), false),
        ] {
            assert_eq!(selects(&selector, &labels), expected, "{selector}");
        }
    }

    #[test]
    fn only_a_label_that_is_asked_for_can_be_taken_away() {
        assert_eq!(decisive(&json!({ "matchLabels": { "app": "cart" } })), Some("app"));
        let exists = json!({ "matchExpressions": [{ "key": "old", "operator": "DoesNotExist" }, { "key": "app", "operator": "Exists" }] });
        assert_eq!(decisive(&exists), Some("app"));
        assert_eq!(decisive(&json!({})), None);
    }
}
