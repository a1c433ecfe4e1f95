//! Words of Envoy's matching API, as far as they are needed here.
//!
//! Envoy finds an extension by the type of its configuration; the name beside it is for people, and short, as it is there
//! several times for each of what may be thousands of restrictions.

use std::collections::HashMap;

use envoy_types::{
    pb::{
        envoy::{
            config::{
                core::v3::TypedExtensionConfig as FilterConfig,
                rbac::v3::{Action, rbac},
            },
            r#type::matcher::v3::HttpRequestHeaderMatchInput,
        },
        google::{
            api::expr::v1alpha1::{Expr, ParsedExpr, expr},
            protobuf::Any,
        },
        xds::{
            core::v3::TypedExtensionConfig,
            r#type::{
                matcher::v3::{
                    Matcher, RegexMatcher, StringMatcher,
                    matcher::{
                        MatcherList, MatcherTree, MatcherType, OnMatch,
                        matcher_list::{
                            FieldMatcher, Predicate,
                            predicate::{self, PredicateList},
                        },
                        matcher_tree::{MatchMap, TreeType},
                        on_match,
                    },
                    regex_matcher, string_matcher,
                },
                v3::{CelExpression, cel_expression},
            },
        },
    },
    util::pack_any,
};
use prost::{Message, Name};

/// The body of an ECDS resource: the filter's configuration under its name.
pub(super) fn extension<T: Name + Message>(name: &str, filter: T) -> Any {
    pack_any(FilterConfig { name: name.to_owned(), typed_config: Some(pack_any(filter)) })
}

/// The branch of `map` whose key is what `input` has.
pub(super) fn exact(input: TypedExtensionConfig, map: HashMap<String, OnMatch>, otherwise: OnMatch) -> Matcher {
    tree(input, TreeType::ExactMatchMap(MatchMap { map }), otherwise)
}

/// The branch of `map` with the longest key that what `input` has begins with.
pub(super) fn prefix(input: TypedExtensionConfig, map: HashMap<String, OnMatch>, otherwise: OnMatch) -> Matcher {
    tree(input, TreeType::PrefixMatchMap(MatchMap { map }), otherwise)
}

fn tree(input: TypedExtensionConfig, tree: TreeType, otherwise: OnMatch) -> Matcher {
    let tree = MatcherTree { input: Some(input), tree_type: Some(tree) };
    Matcher { on_no_match: Some(Box::new(otherwise)), matcher_type: Some(MatcherType::MatcherTree(tree)) }
}

/// What follows where one of these patterns is all of what `input` has.
pub(super) fn any_of(
    input: &TypedExtensionConfig,
    patterns: impl Iterator<Item = String>,
    then: &OnMatch,
    otherwise: OnMatch,
) -> Matcher {
    let one = |regex: String| -> Predicate {
        let engine = regex_matcher::EngineType::GoogleRe2(regex_matcher::GoogleRe2 {});
        let regex = RegexMatcher { regex, engine_type: Some(engine) };
        let pattern = StringMatcher {
            match_pattern: Some(string_matcher::MatchPattern::SafeRegex(regex)),
            ..StringMatcher::default()
        };
        single(input.clone(), predicate::single_predicate::Matcher::ValueMatch(pattern))
    };
    let mut any: Vec<Predicate> = patterns.map(one).collect();
    let predicate = match any.len() {
        1 => any.pop(),
        _ => Some(Predicate { match_type: Some(predicate::MatchType::OrMatcher(PredicateList { predicate: any })) }),
    };
    list(vec![FieldMatcher { predicate, on_match: Some(then.clone()) }], otherwise)
}

/// What follows where the caller has shown a certificate that was verified. The inputs that read certificates answer
/// nothing at all without TLS, and a tree that is asked by them then denies: whoever calls in plaintext would be denied
/// as soon as anybody is.
pub(super) fn with_certificate(then: Matcher, otherwise: OnMatch) -> Matcher {
    let input = input("attributes", HttpAttributesCelMatchInput {});
    let matcher = CelMatcher { expr_match: Some(attribute("connection", "mtls")), description: String::new() };
    let matcher = predicate::single_predicate::Matcher::CustomMatch(self::input("cel", matcher));
    let field = FieldMatcher { predicate: Some(single(input, matcher)), on_match: Some(nested(then)) };
    list(vec![field], otherwise)
}

/// The CEL expression `of.name`, parsed.
fn attribute(of: &str, name: &str) -> CelExpression {
    let of = Expr { id: 1, expr_kind: Some(expr::ExprKind::IdentExpr(expr::Ident { name: of.to_owned() })) };
    let select = expr::Select { operand: Some(Box::new(of)), field: name.to_owned(), test_only: false };
    let select = Expr { id: 2, expr_kind: Some(expr::ExprKind::SelectExpr(Box::new(select))) };
    let parsed = ParsedExpr { expr: Some(select), source_info: None };
    // The form that every Envoy with CEL reads; its successor is known to the latest alone.
    #[allow(deprecated, reason = "older proxies know no other")]
    let specifier = cel_expression::ExprSpecifier::ParsedExpr(parsed);
    CelExpression { expr_specifier: Some(specifier), ..CelExpression::default() }
}

fn list(matchers: Vec<FieldMatcher>, otherwise: OnMatch) -> Matcher {
    let list = MatcherList { matchers };
    Matcher { on_no_match: Some(Box::new(otherwise)), matcher_type: Some(MatcherType::MatcherList(list)) }
}

fn single(input: TypedExtensionConfig, matcher: predicate::single_predicate::Matcher) -> Predicate {
    let single = predicate::SinglePredicate { input: Some(input), matcher: Some(matcher) };
    Predicate { match_type: Some(predicate::MatchType::SinglePredicate(single)) }
}

/// What a matcher decides further on.
pub(super) fn nested(matcher: Matcher) -> OnMatch {
    OnMatch { keep_matching: false, on_match: Some(on_match::OnMatch::Matcher(Box::new(matcher))) }
}

pub(super) fn input<T: Name + Message>(name: &str, input: T) -> TypedExtensionConfig {
    TypedExtensionConfig { name: name.to_owned(), typed_config: Some(pack_any(input)) }
}

/// A header of the request, `:path` and `:method` among them.
pub(super) fn header(name: &str) -> TypedExtensionConfig {
    let header = HttpRequestHeaderMatchInput { header_name: name.to_owned() };
    input(name, header)
}

pub(super) fn allow() -> OnMatch {
    action("qualm-allow", rbac::Action::Allow)
}

/// An answer under the name of a policy.
pub(super) fn action(name: &str, action: rbac::Action) -> OnMatch {
    let word = if action == rbac::Action::Allow { "allow" } else { "deny" };
    let action = TypedExtensionConfig {
        name: word.to_owned(),
        typed_config: Some(pack_any(Action { name: name.to_owned(), action: action.into() })),
    };
    OnMatch { keep_matching: false, on_match: Some(on_match::OnMatch::Action(action)) }
}

/// `xds.type.matcher.v3.CelMatcher`, which the crate of Envoy's types leaves out.
#[derive(Clone, PartialEq, Message)]
struct CelMatcher {
    #[prost(message, optional, tag = "1")]
    expr_match: Option<CelExpression>,
    #[prost(string, tag = "2")]
    description: String,
}

/// `xds.type.matcher.v3.HttpAttributesCelMatchInput`, likewise.
#[derive(Clone, PartialEq, Message)]
struct HttpAttributesCelMatchInput {}

impl Name for CelMatcher {
    const NAME: &'static str = "CelMatcher";
    const PACKAGE: &'static str = "xds.type.matcher.v3";

    fn type_url() -> String {
        format!("type.googleapis.com/{}", Self::full_name())
    }
}

impl Name for HttpAttributesCelMatchInput {
    const NAME: &'static str = "HttpAttributesCelMatchInput";
    const PACKAGE: &'static str = "xds.type.matcher.v3";

    fn type_url() -> String {
        format!("type.googleapis.com/{}", Self::full_name())
    }
}
