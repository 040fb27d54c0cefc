use serde_json::json;

use super::*;

fn pods() -> Value {
    json!({
        "kind": "List",
        "items": [
            {"metadata": {"name": "a", "labels": {"app.kubernetes.io/name": "web"}}, "status": {"phase": "Running", "restarts": 3},
             "spec": {"containers": [{"name": "x", "image": "i1"}, {"name": "y", "image": "i2"}]}},
            {"metadata": {"name": "b"}, "status": {"phase": "Pending", "restarts": 0},
             "spec": {"containers": [{"name": "z", "image": "i3"}]}},
        ],
    })
}

fn check(template: &str, expected: &str) {
    let rendered = JsonPath::template(template).unwrap_or_else(|error| panic!("{error}")).render(&pods());
    assert_eq!(rendered, expected, "{template}");
}

#[test]
fn paths_select_as_kubectl_does() {
    check("{.kind}", "List");
    check("{.items[*].metadata.name}", "a b");
    check("{.items[0].metadata.name}", "a");
    check("{.items[-1].metadata.name}", "b");
    check("{.items[0:1].metadata.name}", "a");
    check("{.items[0]['metadata']['name']}", "a");
    check("{.items[0].metadata['name','none']}", "a");
    check("{.items[0,1].metadata.name}", "a b");
    check("{$.kind}", "List");
    check("{..image}", "i1 i2 i3");
    check("{.items[0].metadata.labels.app\\.kubernetes\\.io/name}", "web");
    check("{.items[1].status}", r#"{"phase":"Pending","restarts":0}"#);
    check("{.nothing.here}", "");
}

#[test]
fn filters_compare_and_test_for_existence() {
    check(r#"{.items[?(@.status.phase=="Running")].metadata.name}"#, "a");
    check("{.items[?(@.status.phase != 'Running')].metadata.name}", "b");
    check("{.items[?(@.status.restarts>0)].metadata.name}", "a");
    check("{.items[?(@.status.restarts<=0)].metadata.name}", "b");
    check("{.items[?(@.metadata.labels)].metadata.name}", "a");
    check(r#"{.items[*].spec.containers[?(@.name=="y")].image}"#, "i2");
}

#[test]
fn templates_have_ranges_and_text() {
    check(r#"{range .items[*]}{.metadata.name}{"\t"}{.status.phase}{"\n"}{end}"#, "a\tRunning\nb\tPending\n");
    check("{range .items[*]}{.metadata.name}:{range .spec.containers[*]}{.name},{end} {end}", "a:x,y, b:z, ");
    check("names: {.items[*].metadata.name}.", "names: a b.");
    check("no braces", "no braces");
}

#[test]
fn relaxed_paths_need_no_braces() {
    for path in ["{.metadata.name}", ".metadata.name", "metadata.name"] {
        let object = &pods()["items"][0];
        assert_eq!(JsonPath::relaxed(path).expect("a path").select(object), [&json!("a")], "{path}");
    }
}

#[test]
fn broken_templates_are_refused() {
    for (template, reason) in [
        ("{.items[", "unterminated array"),
        ("{.items[0}", "unterminated array"),
        ("{.items", "unclosed action"),
        ("{range .items[*]}x", "unexpected end of template: {range} lacks its {end}"),
        ("{end}", "not in range, nothing to end"),
        ("{\"x}", "unterminated quoted string"),
    ] {
        let error = JsonPath::template(template).expect_err(template);
        assert_eq!(error.reason, reason, "{template}");
    }
}
