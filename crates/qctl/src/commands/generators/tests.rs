use super::*;

#[test]
fn numbers_are_told_from_texts() {
    assert_eq!(number_or_text("80"), json!(80));
    assert_eq!(number_or_text("50%"), json!("50%"));
    assert_eq!(number_or_text("http"), json!("http"));
}

#[test]
fn pairs_have_a_key() {
    assert_eq!(Value::from(pairs(["a=b=c", "d="], "label").expect("pairs")), json!({"a": "b=c", "d": ""}));
    let error = pairs(["=x"], "label").expect_err("no key").to_string();
    assert_eq!(error, "label =x is invalid and should be in format key=[value]");
}
