//! JSON numbers, compared by value.

/// The value of a JSON number (RFC 8259, section 6). Two numbers are equal if their values are, however they are
/// written: `1000`, `1000.00` and `1e3` are one value.
///
/// Reading and comparing take time in proportion to the length of the text, whatever its exponent says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Decimal {
    negative: bool,
    /// The digits without zeros at either end; empty for zero.
    digits: String,
    /// The value is `0.digits` times ten to the power of this.
    exponent: i64,
}

impl Decimal {
    /// Parses a number; `None` if the text is not exactly one JSON number.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (negative, unsigned) = text
            .strip_prefix('-')
            .map_or((false, text), |rest| (true, rest));
        let (mantissa, exponent) = split(unsigned, &['e', 'E']);
        let (whole, fraction) = split(mantissa, &['.']);
        let is_well_formed = is_digits(whole)
            && (whole == "0" || !whole.starts_with('0'))
            && fraction.is_none_or(is_digits)
            && exponent.is_none_or(|exponent| {
                is_digits(exponent.strip_prefix(['+', '-']).unwrap_or(exponent))
            });
        if !is_well_formed {
            return None;
        }
        let all = [whole, fraction.unwrap_or_default()].concat();
        let significant = all.trim_start_matches('0');
        let digits = significant.trim_end_matches('0');
        if digits.is_empty() {
            return Some(Self {
                negative: false,
                digits: String::new(),
                exponent: 0,
            });
        }
        let place = || {
            let zeros = i64::try_from(all.len() - significant.len()).ok()?;
            let place = i64::try_from(whole.len()).ok()?.checked_sub(zeros)?;
            exponent
                .map_or(Some(0), |exponent| exponent.parse::<i64>().ok())?
                .checked_add(place)
        };
        Some(match place() {
            Some(exponent) => Self {
                negative,
                digits: digits.to_owned(),
                exponent,
            },
            // The exponent is out of range, as no amount has it: such a number equals only one that is written the same.
            None => Self {
                negative,
                digits: unsigned.to_owned(),
                exponent: i64::MAX,
            },
        })
    }
}

/// Returns the parts before and after the first of these characters.
fn split<'a>(text: &'a str, at: &[char]) -> (&'a str, Option<&'a str>) {
    text.split_once(at)
        .map_or((text, None), |(before, behind)| (before, Some(behind)))
}

fn is_digits(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn equal(a: &str, b: &str) -> bool {
        Decimal::parse(a).expect(a) == Decimal::parse(b).expect(b)
    }

    #[test]
    fn the_same_value_is_equal_however_it_is_written() {
        for text in [
            "1000",
            "1000.00",
            "1e3",
            "1E+3",
            "1e003",
            "0.1e4",
            "100000e-2",
            "1000.0e0",
        ] {
            assert!(equal("1000", text), "{text}");
        }
        for text in [
            "1001",
            "1000.01",
            "-1000",
            "100",
            "1e4",
            "0",
            "1000.000000000000000000000000000001",
        ] {
            assert!(!equal("1000", text), "{text}");
        }
        assert!(equal("0", "-0.000e99999999999999999999"));
    }

    #[test]
    fn an_exponent_without_bound_costs_nothing_and_equals_only_itself() {
        let huge = [
            "1e9223372036854775807",
            "1e99999999999999999999",
            "1e99999999999999999998",
            "1e-99999999999999999999",
        ];
        for (i, a) in huge.iter().enumerate() {
            for (j, b) in huge.iter().enumerate() {
                assert_eq!(equal(a, b), i == j, "{a} {b}");
            }
            assert!(!equal(a, "1000"));
        }
        let long = format!("1{}", "0".repeat(100_000));
        assert!(equal(&long, "1e100000") && equal(&format!("{long}e-99997"), "1000"));
    }

    #[test]
    fn only_a_json_number_is_one() {
        for text in [
            "", "-", "+1", " 1", "1 ", "01", "-01", "1.", ".5", "1e", "1e+", "1e1.0", "1_000",
            "1,000", "0x10", "NaN", "Infinity", "true", "null", "١", "1.5.5", "1e5e5", "--1",
            "1\n",
        ] {
            assert_eq!(Decimal::parse(text), None, "{text:?}");
        }
    }

    /// A number, and its value as a whole multiple of 10^-12.
    fn written() -> impl Strategy<Value = (String, i128)> {
        (
            any::<bool>(),
            0_u32..2000,
            0_usize..=6,
            -6_i32..=6,
            0_usize..3,
            any::<bool>(),
        )
            .prop_map(|(negative, mantissa, point, exponent, zeros, capital)| {
                let digits = format!("{mantissa:0width$}", width = point + 1);
                let (whole, fraction) = digits.split_at(digits.len() - point);
                let whole = whole.trim_start_matches('0');
                let fraction = format!("{fraction}{}", "0".repeat(zeros));
                let mut text = format!(
                    "{}{}",
                    if negative { "-" } else { "" },
                    if whole.is_empty() { "0" } else { whole }
                );
                if !fraction.is_empty() {
                    text.push_str(&format!(".{fraction}"));
                }
                if exponent != 0 || capital {
                    text.push_str(&format!("{}{exponent:+}", if capital { 'E' } else { 'e' }));
                }
                let power = u32::try_from(12 + exponent - i32::try_from(point).unwrap()).unwrap();
                let value = i128::from(mantissa) * 10_i128.pow(power);
                (text, if negative { -value } else { value })
            })
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, cases: 2000, ..ProptestConfig::default() })]

        #[test]
        fn two_numbers_are_equal_exactly_if_their_values_are((a, first) in written(), (b, second) in written()) {
            prop_assert_eq!(equal(&a, &b), first == second, "{} {}", a, b);
            prop_assert!(serde_json::from_str::<serde_json::Value>(&a).is_ok(), "{}", a);
        }

        #[test]
        fn what_one_reader_of_json_takes_for_a_number_this_one_does(text in "[-+0-9.eE]{0,8}") {
            let number = serde_json::from_str::<&serde_json::value::RawValue>(&text);
            prop_assert_eq!(Decimal::parse(&text).is_some(), number.is_ok(), "{}", text);
        }
    }
}
