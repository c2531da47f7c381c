//! One text for one JSON value, for digests. `docs/spec/grammar.md`, 2.3.

use serde_json::{Number, Value};

/// The value without white space: members in their own order, texts and numbers as RFC 8785
/// writes them, but integers in decimal however large.
pub fn canonical(value: &Value) -> String {
    let mut text = String::new();
    write(value, &mut text);
    text
}

fn write(value: &Value, out: &mut String) {
    match value {
        Value::Number(number) => out.push_str(&number_text(number)),
        Value::Array(items) => {
            out.push('[');
            for (at, item) in items.iter().enumerate() {
                if at > 0 {
                    out.push(',');
                }
                write(item, out);
            }
            out.push(']');
        }
        Value::Object(members) => {
            out.push('{');
            for (at, (name, value)) in members.iter().enumerate() {
                if at > 0 {
                    out.push(',');
                }
                out.push_str(&Value::from(name.as_str()).to_string());
                out.push(':');
                write(value, out);
            }
            out.push('}');
        }
        // serde_json escapes no more than RFC 8785 does.
        plain => out.push_str(&plain.to_string()),
    }
}

/// ECMAScript's `Number::toString`, but for integers.
fn number_text(number: &Number) -> String {
    let float = match number.as_f64() {
        Some(float) if number.is_f64() => float,
        _ => return number.to_string(),
    };
    let sign = if float < 0.0 { "-" } else { "" };
    // Rust's shortest digits, as `d.ddde-n`.
    let shortest = format!("{:e}", float.abs());
    let (digits, exponent) = shortest
        .split_once('e')
        .expect("Rust writes an exponent in this format");
    let digits = digits.replace('.', "");
    let exponent: i32 = exponent
        .parse()
        .expect("Rust writes the exponent in decimal");
    let count = i32::try_from(digits.len()).expect("a double has at most 17 digits");
    let zeros = |count: i32| "0".repeat(usize::try_from(count).unwrap_or_default());
    // The digits stand for 0.digits × 10^point.
    let point = exponent + 1;
    let magnitude = match point {
        _ if float == 0.0 => "0".to_owned(),
        1..=21 if point >= count => digits + &zeros(point - count),
        1..=21 => {
            let (whole, rest) = digits.split_at(point as usize);
            format!("{whole}.{rest}")
        }
        -5..=0 => format!("0.{}{digits}", zeros(-point)),
        _ => {
            let (first, rest) = digits.split_at(1);
            let joint = if rest.is_empty() { "" } else { "." };
            let plus = if exponent > 0 { "+" } else { "" };
            format!("{first}{joint}{rest}e{plus}{exponent}")
        }
    };
    format!("{sign}{magnitude}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::json::parse;

    #[test]
    fn values_have_one_text() {
        let check = |text: &str, want: &str| {
            assert_eq!(canonical(&parse(text.as_bytes()).unwrap()), want);
        };
        check(
            r#" { "b" : [ 1 , true , null ] , "a" : "\u00e9\u001f\/\u2028\"" } "#,
            "{\"b\":[1,true,null],\"a\":\"é\\u001f/\u{2028}\\\"\"}",
        );
        // As JSON.stringify writes them.
        for (number, want) in [
            ("1.0", "1"),
            ("-0.0", "0"),
            ("1.50", "1.5"),
            ("1e16", "10000000000000000"),
            ("1e21", "1e+21"),
            ("1.25e22", "1.25e+22"),
            ("123456789.125", "123456789.125"),
            ("0.000001", "0.000001"),
            ("0.00000015", "1.5e-7"),
            ("-2.5e-10", "-2.5e-10"),
            ("5e-324", "5e-324"),
            ("18446744073709551615", "18446744073709551615"),
            ("-7", "-7"),
        ] {
            check(number, want);
        }
    }
}
