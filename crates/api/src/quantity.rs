//! Amounts of resources (`250m`, `1.5Gi`, `2e3`): Kubernetes' `resource.Quantity`.
//!
//! An amount is stored exactly in billionths. Finer amounts are rounded away from zero, and amounts above 2^63-1 are
//! capped, as the API defines.

use std::cmp::Ordering;
use std::fmt;
use std::ops::{Add, AddAssign, Neg, Sub, SubAssign};
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

const NANOS: i128 = 1_000_000_000;
const MAX_NANOS: i128 = i64::MAX as i128 * NANOS;

/// Suffixes of the canonical form, by powers of 1000 from 10^-9 and by powers of 1024 from 1.
const DECIMAL_SUFFIXES: [&str; 10] = ["n", "u", "m", "", "k", "M", "G", "T", "P", "E"];
const BINARY_SUFFIXES: [&str; 7] = ["", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"];

/// The notation in which an amount was written, and is written again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// `1500m`, `2k`
    #[default]
    DecimalSi,
    /// `2Ki`
    BinarySi,
    /// `2e3`
    DecimalExponent,
}

/// A text is not a quantity. The messages are apimachinery's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum QuantityError {
    #[error("quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'")]
    Malformed,
    #[error("unable to parse quantity's suffix")]
    Suffix,
}

/// An amount of something. Comparisons ignore the notation.
#[derive(Clone, Copy, Debug, Default)]
pub struct Quantity {
    nanos: i128,
    format: Format,
}

impl Quantity {
    pub const ZERO: Quantity = Quantity { nanos: 0, format: Format::DecimalSi };

    /// Returns an amount of whole units.
    #[must_use]
    pub fn from_value(value: i64) -> Self {
        Quantity { nanos: i128::from(value) * NANOS, format: Format::DecimalSi }
    }

    /// Returns an amount of whole units in binary notation, such as memory.
    #[must_use]
    pub fn from_bytes(bytes: i64) -> Self {
        Quantity { nanos: i128::from(bytes) * NANOS, format: Format::BinarySi }
    }

    /// Returns an amount of thousandths, such as cpu.
    #[must_use]
    pub fn from_milli(milli: i64) -> Self {
        Quantity { nanos: i128::from(milli) * (NANOS / 1000), format: Format::DecimalSi }
    }

    /// # Errors
    /// When `text` is not a number with one of the known suffixes.
    pub fn parse(text: &str) -> Result<Self, QuantityError> {
        let (negative, unsigned) = match text.as_bytes().first() {
            Some(b'-') => (true, &text[1..]),
            Some(b'+') => (false, &text[1..]),
            _ => (false, text),
        };
        let end = unsigned.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(unsigned.len());
        let (number, suffix) = unsigned.split_at(end);
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if fraction.contains('.') || (whole.is_empty() && fraction.is_empty()) {
            return Err(QuantityError::Malformed);
        }
        let scale = Scale::parse(suffix)?;
        let nanos = nanos(whole, fraction, scale.power_of_ten, scale.power_of_two).min(MAX_NANOS);
        Ok(Quantity { nanos: if negative { -nanos } else { nanos }, format: scale.format })
    }

    /// Returns the amount in whole units, rounded away from zero.
    #[must_use]
    pub fn value(self) -> i128 {
        div_away_from_zero(self.nanos, NANOS)
    }

    /// Returns the amount in thousandths, rounded away from zero.
    #[must_use]
    pub fn milli_value(self) -> i128 {
        div_away_from_zero(self.nanos, NANOS / 1000)
    }

    /// Returns the amount rounded to whole thousandths, away from zero, in the same notation.
    #[must_use]
    pub fn rounded_to_milli(self) -> Self {
        Quantity { nanos: self.milli_value().saturating_mul(NANOS / 1000), format: self.format }
    }

    /// Returns the amount rounded to whole units, away from zero, in the same notation.
    #[must_use]
    pub fn rounded_to_integer(self) -> Self {
        Quantity { nanos: self.value().saturating_mul(NANOS), format: self.format }
    }

    #[must_use]
    pub fn is_zero(self) -> bool {
        self.nanos == 0
    }

    #[must_use]
    pub fn is_negative(self) -> bool {
        self.nanos < 0
    }

    /// Returns whether the amount is a whole number of units.
    #[must_use]
    pub fn is_integer(self) -> bool {
        self.nanos % NANOS == 0
    }

    #[must_use]
    pub fn format(self) -> Format {
        self.format
    }
}

/// The factor of a suffix.
struct Scale {
    power_of_ten: i32,
    power_of_two: u32,
    format: Format,
}

impl Scale {
    fn parse(suffix: &str) -> Result<Scale, QuantityError> {
        if let Some(step) = DECIMAL_SUFFIXES.iter().position(|s| *s == suffix) {
            let power_of_ten = i32::try_from(step).map_err(|_| QuantityError::Suffix)? * 3 - 9;
            return Ok(Scale { power_of_ten, power_of_two: 0, format: Format::DecimalSi });
        }
        if let Some(step) = BINARY_SUFFIXES.iter().position(|s| *s == suffix) {
            let power_of_two = u32::try_from(step).map_err(|_| QuantityError::Suffix)? * 10;
            return Ok(Scale { power_of_ten: 0, power_of_two, format: Format::BinarySi });
        }
        let exponent = suffix.strip_prefix(['e', 'E']).ok_or(match suffix.chars().all(is_suffix_char) {
            true => QuantityError::Suffix,
            false => QuantityError::Malformed,
        })?;
        let power_of_ten = exponent.parse().map_err(|_| QuantityError::Suffix)?;
        Ok(Scale { power_of_ten, power_of_two: 0, format: Format::DecimalExponent })
    }
}

fn is_suffix_char(c: char) -> bool {
    c.is_ascii_digit() || "eEinumkKMGTP+-".contains(c)
}

/// Computes `whole.fraction × 10^power_of_ten × 2^power_of_two` in billionths, rounded up and saturating.
fn nanos(whole: &str, fraction: &str, power_of_ten: i32, power_of_two: u32) -> i128 {
    // 20 digits times 2^60 still fit. Later digits only matter if one of them is not zero.
    const EXACT_DIGITS: usize = 20;
    let digits: Vec<u8> =
        whole.bytes().chain(fraction.bytes()).map(|b| b - b'0').skip_while(|digit| *digit == 0).collect();
    let kept = &digits[..digits.len().min(if power_of_two == 0 { 37 } else { EXACT_DIGITS })];
    let dropped = &digits[kept.len()..];
    let mantissa = kept.iter().fold(0_i128, |m, digit| m * 10 + i128::from(*digit));
    if mantissa == 0 {
        return 0;
    }
    let mut inexact = dropped.iter().any(|digit| *digit != 0);
    let length = |n: usize| i64::try_from(n).unwrap_or(i64::MAX);
    let exponent = i64::from(power_of_ten) + 9 - length(fraction.len()) + length(dropped.len());
    let mut value = mantissa << power_of_two.min(60);
    for _ in 0..exponent.clamp(0, 60) {
        value = value.saturating_mul(10);
    }
    for _ in 0..exponent.min(0).unsigned_abs().min(60) {
        inexact |= value % 10 != 0;
        value /= 10;
    }
    value.saturating_add(i128::from(inexact))
}

fn div_away_from_zero(amount: i128, unit: i128) -> i128 {
    amount / unit + if amount % unit == 0 { 0 } else { amount.signum() }
}

impl FromStr for Quantity {
    type Err = QuantityError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Quantity::parse(text)
    }
}

impl TryFrom<&k8s_openapi::apimachinery::pkg::api::resource::Quantity> for Quantity {
    type Error = QuantityError;

    fn try_from(quantity: &k8s_openapi::apimachinery::pkg::api::resource::Quantity) -> Result<Self, Self::Error> {
        Quantity::parse(&quantity.0)
    }
}

impl From<Quantity> for k8s_openapi::apimachinery::pkg::api::resource::Quantity {
    fn from(quantity: Quantity) -> Self {
        k8s_openapi::apimachinery::pkg::api::resource::Quantity(quantity.to_string())
    }
}

impl fmt::Display for Quantity {
    /// Formats the canonical form: no fraction, and the largest suffix that keeps the amount exact.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.nanos == 0 {
            return f.write_str("0");
        }
        let binary = self.format == Format::BinarySi && self.is_integer() && self.nanos.abs() >= 1024 * NANOS;
        if binary {
            let (mantissa, step) = strip(self.nanos / NANOS, 1024, BINARY_SUFFIXES.len() - 1);
            return write!(f, "{mantissa}{}", BINARY_SUFFIXES[step]);
        }
        let (mantissa, step) = strip(self.nanos, 1000, DECIMAL_SUFFIXES.len() - 1);
        match (self.format, step) {
            (Format::DecimalExponent, 3) => write!(f, "{mantissa}"),
            (Format::DecimalExponent, _) => {
                let sign = if step < 3 { "-" } else { "" };
                write!(f, "{mantissa}e{sign}{}", step.abs_diff(3) * 3)
            }
            _ => write!(f, "{mantissa}{}", DECIMAL_SUFFIXES[step]),
        }
    }
}

/// Divides by `base` while the division is exact, at most `max` times. Returns the quotient and the number of
/// divisions.
fn strip(mut mantissa: i128, base: i128, max: usize) -> (i128, usize) {
    let mut steps = 0;
    while steps < max && mantissa % base == 0 {
        mantissa /= base;
        steps += 1;
    }
    (mantissa, steps)
}

impl PartialEq for Quantity {
    fn eq(&self, other: &Self) -> bool {
        self.nanos == other.nanos
    }
}

impl Eq for Quantity {}

impl PartialOrd for Quantity {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Quantity {
    fn cmp(&self, other: &Self) -> Ordering {
        self.nanos.cmp(&other.nanos)
    }
}

impl AddAssign for Quantity {
    fn add_assign(&mut self, other: Self) {
        if self.nanos == 0 {
            self.format = other.format;
        }
        self.nanos = self.nanos.saturating_add(other.nanos);
    }
}

impl SubAssign for Quantity {
    fn sub_assign(&mut self, other: Self) {
        *self += -other;
    }
}

impl Add for Quantity {
    type Output = Quantity;

    fn add(mut self, other: Self) -> Quantity {
        self += other;
        self
    }
}

impl Sub for Quantity {
    type Output = Quantity;

    fn sub(mut self, other: Self) -> Quantity {
        self -= other;
        self
    }
}

impl Neg for Quantity {
    type Output = Quantity;

    fn neg(self) -> Quantity {
        Quantity { nanos: -self.nanos, format: self.format }
    }
}

impl std::iter::Sum for Quantity {
    fn sum<I: Iterator<Item = Quantity>>(amounts: I) -> Quantity {
        amounts.fold(Quantity::ZERO, Add::add)
    }
}

impl Serialize for Quantity {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Quantity {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        Quantity::parse(&text).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
#[path = "quantity/tests.rs"]
mod tests;
