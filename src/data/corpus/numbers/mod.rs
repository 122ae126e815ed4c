//! Numbers: their names, what is before and after them, sums, things that come in that number, pictures of digits.

mod tables;
#[cfg(test)]
mod tests;

use super::grammar::{Random, Slots};
use tables::{KINDS, MONTHS, NAMES, NUMBERS, SHAPES, TEXTS, THINGS, table};

/// How numbers are written in a sentence.
#[derive(Clone, Copy)]
enum Writing {
    Words,
    Numerals,
    Roman,
}

/// A number, and what one sentence says about it.
struct Number {
    value: usize,
    writing: Writing,
    /// A summand, at most the value.
    part: usize,
    /// Is added, to be taken away again.
    extra: usize,
    /// Divides the value.
    factor: usize,
}

/// A text about a number.
pub(super) fn text(random: &mut Random) -> String {
    Number::new(value(random), random).say(TEXTS, random)
}

/// What number a text is about: three times in four a digit.
fn value(random: &mut Random) -> usize {
    let row = if random.chance(75) { random.below(10) } else { 10 + random.below(NUMBERS.len() - 10) };
    NUMBERS[row].0
}

impl Number {
    fn new(value: usize, random: &mut Random) -> Number {
        let writing = match random.below(10) {
            0 => Writing::Roman,
            1..4 => Writing::Numerals,
            _ => Writing::Words,
        };
        let step = step(value);
        let factors: Vec<usize> = (1..=value.max(10)).filter(|&factor| value.is_multiple_of(factor)).collect();
        Number {
            value,
            writing,
            part: step * random.below(value / step + 1),
            extra: step * (1 + random.below(9)),
            factor: random.pick(&factors),
        }
    }

    /// The number that a slot stands for.
    fn number(&self, name: &str, random: &mut Random) -> Option<usize> {
        let (value, step) = (self.value, step(self.value));
        match name {
            "n" => Some(value),
            "part" => Some(self.part),
            "rest" => Some(value - self.part),
            "extra" => Some(self.extra),
            "sum" => Some(value + self.extra),
            "factor" => Some(self.factor),
            "quotient" => Some(value / self.factor),
            "smaller" => (value > 0).then(|| step * random.below(value / step)),
            "larger" => Some(value + step * (1 + random.below(9))),
            _ => {
                let (sign, by) = name.split_at_checked(1)?;
                let by: usize = by.parse().ok()?;
                match sign {
                    "+" => Some(value + by),
                    "-" => value.checked_sub(by),
                    "*" => Some(value * by),
                    "/" => value.is_multiple_of(by).then(|| value / by),
                    _ => None,
                }
            }
        }
    }
}

impl Slots for Number {
    fn slot(&self, name: &str, random: &mut Random) -> Option<String> {
        if let Some(table) = table(name) {
            // A new choice of the other numbers: a text should not say one thing twice.
            return Some(Number::new(self.value, random).say(table, random));
        }
        match name {
            "word" => spelled(self.value, Writing::Words),
            "digit" => spelled(self.value, Writing::Numerals),
            "roman" => spelled(self.value, Writing::Roman),
            "name" => spelled(self.value, random.pick(&[Writing::Words, Writing::Numerals])),
            "ordinal" => {
                let ordinal = row(self.value)?.2;
                (!ordinal.is_empty()).then(|| ordinal.into())
            }
            "month" => MONTHS.get(self.value.checked_sub(1)?).map(|&month| month.into()),
            "parity" => Some(if self.value.is_multiple_of(2) { "even" } else { "odd" }.into()),
            "kind" => Some(if self.value < 10 { random.pick(KINDS) } else { "number" }.into()),
            "are" => Some(if self.value == 1 { "is" } else { "are" }.into()),
            "things" | "counted things" => {
                let (_, things, whole) = one_of(THINGS, |thing| thing.0 == self.value, random)?;
                let one = name == "counted things" && self.value == 1;
                Some(format!("{} {whole}", if one { things.trim_end_matches('s') } else { things }))
            }
            "other name" => one_of(NAMES, |name| name.0 == self.value, random).map(|name| name.1.into()),
            "shape" => one_of(SHAPES, |shape| shape.0 == self.value, random).map(|shape| shape.1.into()),
            _ => match name.strip_prefix('#') {
                Some(name) => spelled(self.number(name, random)?, Writing::Numerals),
                None => spelled(self.number(name, random)?, self.writing),
            },
        }
    }
}

/// The step that a number is counted in.
fn step(value: usize) -> usize {
    if value > 20 { 10 } else { 1 }
}

fn row(value: usize) -> Option<(usize, &'static str, &'static str, &'static str)> {
    NUMBERS.iter().find(|row| row.0 == value).copied()
}

/// The number written so, or `None` if it cannot be.
fn spelled(value: usize, writing: Writing) -> Option<String> {
    let (_, word, _, roman) = row(value)?;
    match writing {
        Writing::Words => Some(word.into()),
        Writing::Numerals => Some(value.to_string()),
        Writing::Roman => (!roman.is_empty()).then(|| roman.into()),
    }
}

/// One of the rows that `is` is true of, each equally likely.
fn one_of<T: Copy>(rows: &[T], is: impl Fn(&T) -> bool, random: &mut Random) -> Option<T> {
    let rows: Vec<T> = rows.iter().copied().filter(is).collect();
    (!rows.is_empty()).then(|| random.pick(&rows))
}
