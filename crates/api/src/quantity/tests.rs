use proptest::prelude::*;

use super::*;

fn parse(text: &str) -> Quantity {
    Quantity::parse(text).expect(text)
}

#[test]
fn canonical_forms() {
    for (text, canonical) in [
        ("0", "0"),
        ("-0", "0"),
        ("0.0Gi", "0"),
        ("1", "1"),
        ("+1", "1"),
        (".5", "500m"),
        ("5.", "5"),
        ("0.25", "250m"),
        ("1000m", "1"),
        ("1500m", "1500m"),
        ("1000", "1k"),
        ("1024", "1024"),
        ("1024Ki", "1Mi"),
        ("1.5Gi", "1536Mi"),
        ("0.5Ki", "512"),
        ("0.5Gi", "512Mi"),
        ("1.1Ki", "1126400m"),
        ("128974848", "128974848"),
        ("129e6", "129e6"),
        ("12e4", "120e3"),
        ("1E3", "1e3"),
        ("1E", "1E"),
        ("5e-3", "5e-3"),
        ("1e2", "100"),
        ("123M", "123M"),
        ("0.1n", "1n"),
        ("-0.1n", "-1n"),
        ("0.0000000001", "1n"),
        ("1.0000000001", "1000000001n"),
        ("-250m", "-250m"),
        ("9223372036854775807", "9223372036854775807"),
        ("9223372036854775808", "9223372036854775807"),
        ("100000E", "9223372036854775807"),
        ("9Ei", "9223372036854775807"),
        ("1e100", "9223372036854775807"),
        ("1e-100", "1e-9"),
        ("1000000000000000000000n", "1T"),
        ("0.00000000000000000000000000000000000000000000000000001", "1n"),
    ] {
        assert_eq!(parse(text).to_string(), canonical, "{text}");
    }
}

#[test]
fn malformed_quantities_are_refused() {
    for text in [
        "", "+", "-", ".", "1.2.3", "a", "1 ", " 1", "1kk", "1ki", "1K", "1mi", "Ki", "1e", "1e+-3", "1e1.5", "٣", "1é",
    ] {
        assert!(Quantity::parse(text).is_err(), "{text}");
    }
    assert_eq!(Quantity::parse("1x"), Err(QuantityError::Malformed));
    assert_eq!(Quantity::parse("1Kk"), Err(QuantityError::Suffix));
}

#[test]
fn amounts_below_a_thousandth_are_rounded_up() {
    for (text, rounded) in [
        ("100u", "1m"),
        ("1500u", "2m"),
        ("0.1m", "1m"),
        ("1n", "1m"),
        ("1500m", "1500m"),
        ("1e-6", "1e-3"),
        ("1Gi", "1Gi"),
        ("-1u", "-1m"),
        ("0", "0"),
    ] {
        assert_eq!(parse(text).rounded_to_milli().to_string(), rounded, "{text}");
    }
}

#[test]
fn rounds_up_and_compares_by_amount() {
    assert_eq!(parse("1500m").value(), 2);
    assert_eq!(parse("-1500m").value(), -2);
    assert_eq!(parse("1u").milli_value(), 1);
    assert_eq!(parse("0.1").milli_value(), 100);
    assert_eq!(parse("1Gi").value(), 1 << 30);
    assert_eq!(parse("1024Mi"), parse("1Gi"));
    assert!(parse("999m") < parse("1"));
    assert_eq!((parse("1Gi") + parse("512Mi")).to_string(), "1536Mi");
    assert_eq!((parse("1") - parse("1500m")).to_string(), "-500m");
    assert_eq!([parse("1Gi"), parse("1Gi")].into_iter().sum::<Quantity>().to_string(), "2Gi");
}

proptest! {
    #[test]
    fn canonical_form_keeps_the_amount(
        whole in 0_u64..1 << 40,
        fraction in 0_u32..1_000_000,
        suffix in prop::sample::select(vec!["", "n", "u", "m", "k", "M", "G", "Ki", "Mi", "Gi", "e3", "e-3", "E2"]),
    ) {
        let quantity = parse(&format!("{whole}.{fraction:06}{suffix}"));
        let again = parse(&quantity.to_string());
        prop_assert_eq!(quantity, again);
        prop_assert_eq!(quantity.to_string(), again.to_string());
    }

    #[test]
    fn never_panics(text in "\\PC{0,24}") {
        if let Ok(quantity) = Quantity::parse(&text) {
            prop_assert_eq!(parse(&quantity.to_string()), quantity);
        }
    }
}
