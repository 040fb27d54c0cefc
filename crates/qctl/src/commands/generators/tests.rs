use super::*;

#[test]
fn numbers_are_told_from_texts() {
    assert_eq!(number_or_text("80"), json!(80));
    assert_eq!(number_or_text("50%"), json!("50%"));
    assert_eq!(number_or_text("http"), json!("http"));
}

#[test]
fn pairs_have_a_key() {
    assert_eq!(pairs::<Value>(["a=b=c", "d="], "label").expect("pairs"), json!({"a": "b=c", "d": ""}));
    let error = pairs::<Value>(["=x"], "label").expect_err("no key").to_string();
    assert_eq!(error, "label =x is invalid and should be in format key=[value]");
}

#[test]
fn an_environment_keeps_its_order() {
    let texts = ["Z=1", "A=$(Z)", "Z=2"].map(str::to_owned);
    let expected =
        [json!({"name": "Z", "value": "1"}), json!({"name": "A", "value": "$(Z)"}), json!({"name": "Z", "value": "2"})];
    assert_eq!(environment(&texts).expect("an environment"), expected);
    let error = environment(&["A".to_owned()]).expect_err("no value").to_string();
    assert_eq!(error, "env A is invalid and should be in format key=[value]");
}
