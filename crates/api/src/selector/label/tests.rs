use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelectorRequirement;
use proptest::prelude::*;

use super::*;

fn labels(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
}

#[test]
fn selectors_print_their_canonical_form() {
    for (text, canonical) in [
        ("", ""),
        ("  ", ""),
        ("a=b", "a=b"),
        ("a==b", "a==b"),
        ("a != b", "a!=b"),
        ("a", "a"),
        (" ! a ", "!a"),
        ("x in (c,a , b)", "x in (a,b,c)"),
        ("z,x notin (a),!b", "!b,x notin (a),z"),
        ("a=", "a="),
        ("a=,b", "a=,b"),
        ("x in ()", ""),
        ("x in (,a)", "x in (,a)"),
        ("x in (,)", "x in (,)"),
        ("x notin (,,)", "x notin (,)"),
        ("a>1,b<2", "a>1,b<2"),
        ("in in (in,notin)", "in in (in,notin)"),
        ("example.com/app=web", "example.com/app=web"),
    ] {
        match LabelSelector::parse(text) {
            Ok(selector) => assert_eq!(selector.to_string(), canonical, "{text}"),
            Err(error) => assert!(text == "x in ()" && error == SelectorError::EmptySet, "{text}: {error}"),
        }
    }
}

#[test]
fn selectors_that_kubernetes_refuses_are_refused() {
    for bad in [
        ",",
        "a,",
        ",a",
        "=a",
        "a=b=c",
        "a in",
        "a in b",
        "a in (b",
        "a in (b c)",
        "!a=b",
        "!",
        "a b",
        "(a)",
        "a>b",
        "a>",
        "a in (b)c",
        "a=b c",
        "-a=b",
        "a=-b",
        "a/b/c",
    ] {
        assert!(LabelSelector::parse(bad).is_err(), "{bad}");
    }
    let error = LabelSelector::parse("a=b,").expect_err("dangling comma");
    assert_eq!(error.to_string(), "unable to parse requirement: found '', expected: identifier after ','");
}

#[test]
fn selectors_match_labels() {
    let web = labels(&[("app", "web"), ("tier", "front"), ("cpus", "8")]);
    for (text, expected) in [
        ("", true),
        ("app=web", true),
        ("app==api", false),
        ("app!=api", true),
        ("missing!=x", true),
        ("missing notin (x)", true),
        ("missing in (x)", false),
        ("tier in (front,back)", true),
        ("tier notin (front,back)", false),
        ("app,tier", true),
        ("!app", false),
        ("!missing", true),
        ("cpus>4", true),
        ("cpus>8", false),
        ("cpus<9", true),
        ("app>1", false),
        ("app=web,tier=back", false),
    ] {
        assert_eq!(LabelSelector::parse(text).expect(text).matches(&web), expected, "{text}");
    }
    assert!(!LabelSelector::nothing().matches(&web));
}

#[test]
fn object_form_prints_like_kubernetes() {
    let object = meta::LabelSelector {
        match_labels: Some(labels(&[("app", "web")])),
        match_expressions: Some(vec![
            LabelSelectorRequirement {
                key: "tier".to_owned(),
                operator: "In".to_owned(),
                values: Some(vec!["b".to_owned(), "a".to_owned()]),
            },
            LabelSelectorRequirement { key: "a".to_owned(), operator: "DoesNotExist".to_owned(), values: None },
        ]),
    };
    let selector = LabelSelector::from_object(&object).expect("selector");
    assert_eq!(selector.to_string(), "!a,app=web,tier in (a,b)");
    assert!(LabelSelector::from_object(&meta::LabelSelector::default()).expect("empty").is_everything());
}

proptest! {
    #[test]
    fn canonical_form_parses_to_itself(text in "(!?[a-c](=|!=|==| in | notin |>|<|)[a-c(),0-9]{0,6},?){0,3}") {
        if let Ok(selector) = LabelSelector::parse(&text) {
            let printed = selector.to_string();
            prop_assert_eq!(LabelSelector::parse(&printed).expect("canonical form"), selector);
        }
    }

    #[test]
    fn never_panics(text in "\\PC{0,40}") {
        if let Ok(selector) = LabelSelector::parse(&text) {
            prop_assert_eq!(selector.matches(&BTreeMap::new()), selector.matches_with(|_| None));
        }
    }
}
