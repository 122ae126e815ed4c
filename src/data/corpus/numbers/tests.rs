//! Every text is read again by other code than made it, and must be true.

use super::super::grammar::tests::assert_reachable;
use super::tables::{
    ANSWERS, NAMED, NAMED_IN_INK, NAMES, NUMBERS, PHRASES, SHAPES, STATEMENTS, TEXTS, TOLD, TOLD_IN_INK,
};
use super::{Number, Random, Slots, value};

const WORDS: &str = "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen \
    sixteen seventeen eighteen nineteen twenty";
const TENS: &str = "zero ten twenty thirty forty fifty sixty seventy eighty ninety hundred";
const ORDINALS: &str = "zeroth first second third fourth fifth sixth seventh eighth ninth tenth eleventh twelfth \
    thirteenth fourteenth fifteenth sixteenth seventeenth eighteenth nineteenth twentieth";

/// The number that a token is, read without the table that texts are made from.
fn read(token: &str) -> Option<i64> {
    let place = |words: &str| words.split_whitespace().position(|word| word == token).map(|place| place as i64);
    let words = || place(WORDS).or(place(TENS).map(|tens| 10 * tens)).or(place(ORDINALS));
    token.parse().ok().or_else(words).or_else(|| read_roman(token))
}

fn read_roman(token: &str) -> Option<i64> {
    let letter = |c| [('I', 1), ('V', 5), ('X', 10)].iter().find(|(letter, _)| *letter == c).map(|(_, value)| *value);
    let values: Vec<i64> = token.chars().map(letter).collect::<Option<_>>()?;
    let signed = |i: usize| if values.get(i + 1) > Some(&values[i]) { -values[i] } else { values[i] };
    Some((0..values.len()).map(signed).sum())
}

/// A wording, and the number it makes of those that stand for `#`, or none if what it says is false. After them
/// comes the number that the text is about. `|` is between words that mean the same.
type Rule = (&'static str, fn(&[i64]) -> Option<i64>);

/// In the order in which they are used.
const RULES: &[Rule] = &[
    ("1 100", |_| Some(100)),
    ("a # upside down", |n| [6, 9].contains(&n[0]).then(|| 15 - n[0])),
    ("the square of #", |n| Some(n[0] * n[0])),
    ("the # number when counting from 1", |n| Some(n[0])),
    ("after # and # comes #", |n| steps(&n[..3], 1).then_some(n[2])),
    ("number between # and #", |n| (n[1] - n[0] == 2).then(|| n[0] + 1)),
    ("number that|which is between # and #", |n| (n[1] - n[0] == 2).then(|| n[0] + 1)),
    ("number after|following #", |n| Some(n[0] + 1)),
    ("number right|just after #", |n| Some(n[0] + 1)),
    ("number that follows #", |n| Some(n[0] + 1)),
    ("number that comes after #", |n| Some(n[0] + 1)),
    ("what follows #", |n| Some(n[0] + 1)),
    ("what comes after #", |n| Some(n[0] + 1)),
    ("successor of #", |n| Some(n[0] + 1)),
    ("number before|preceding #", |n| Some(n[0] - 1)),
    ("number right|just before #", |n| Some(n[0] - 1)),
    ("number that precedes #", |n| Some(n[0] - 1)),
    ("number that comes before #", |n| Some(n[0] - 1)),
    ("what precedes #", |n| Some(n[0] - 1)),
    ("what comes before #", |n| Some(n[0] - 1)),
    ("predecessor of #", |n| Some(n[0] - 1)),
    ("add # and|to #", |n| Some(n[0] + n[1])),
    ("take # from #", |n| Some(n[1] - n[0])),
    ("# more than #", |n| Some(n[0] + n[1])),
    ("# less than #", |n| Some(n[1] - n[0])),
    ("# plus|and|with 1 more", |n| Some(n[0] + 1)),
    ("# and # together", |n| Some(n[0] + n[1])),
    ("the sum of # and #", |n| Some(n[0] + n[1])),
    ("the difference of|between # and #", |n| Some(n[0] - n[1])),
    ("the product of # and #", |n| Some(n[0] * n[1])),
    ("# plus|+ #", |n| Some(n[0] + n[1])),
    ("# added to #", |n| Some(n[0] + n[1])),
    ("# minus|- #", |n| Some(n[0] - n[1])),
    ("# take away #", |n| Some(n[0] - n[1])),
    ("# taken|subtracted from #", |n| Some(n[1] - n[0])),
    ("# times|x #", |n| Some(n[0] * n[1])),
    ("# divided|shared by #", |n| (n[0] % n[1] == 0).then(|| n[0] / n[1])),
    ("# / #", |n| (n[0] % n[1] == 0).then(|| n[0] / n[1])),
    ("1 half of #", |n| (n[0] % 2 == 0).then(|| n[0] / 2)),
    ("half of #", |n| (n[0] % 2 == 0).then(|| n[0] / 2)),
    ("the double of #", |n| Some(2 * n[0])),
    ("twice|double #", |n| Some(2 * n[0])),
    ("# is an even number", |n| (n[0] % 2 == 0).then_some(n[0])),
    ("# is an odd number", |n| (n[0] % 2 == 1).then_some(n[0])),
    ("# is even", |n| (n[0] % 2 == 0).then_some(n[0])),
    ("# is odd", |n| (n[0] % 2 == 1).then_some(n[0])),
    ("# is larger|bigger|greater than # and smaller|less than #", |n| (n[1] < n[0] && n[0] < n[2]).then_some(n[0])),
    ("# is larger|bigger|greater than #", |n| (n[0] > n[1] && n[..2].contains(&n[2])).then_some(n[2])),
    ("# is smaller|less than #", |n| (n[0] < n[1] && n[..2].contains(&n[2])).then_some(n[2])),
    ("# lies between # and #", |n| (n[1] < n[0] && n[0] < n[2]).then_some(n[0])),
    ("between # and # is #", |n| (n[1] - n[0] == 2 && steps(&[n[0], n[2]], 1)).then_some(n[2])),
    ("# comes after #", |n| (n[0] == n[1] + 1).then_some(n[0])),
    ("# follows #", |n| (n[0] == n[1] + 1).then_some(n[0])),
    ("# comes before #", |n| (n[0] + 1 == n[1]).then_some(n[0])),
    ("# precedes #", |n| (n[0] + 1 == n[1]).then_some(n[0])),
    ("after # comes #", |n| (n[1] == n[0] + 1).then_some(n[1])),
    ("before # comes #", |n| (n[1] + 1 == n[0]).then_some(n[1])),
    ("in twos : # , # , #", |n| steps(&n[..3], 2).then_some(n[2])),
    ("in tens : # , # , #", |n| steps(&n[..3], 10).then_some(n[2])),
    ("# , # and then #", |n| steps(&n[..3], 1).then_some(n[2])),
    ("counting down|back : # , # , # , #", |n| steps(&n[..4], -1).then_some(n[3])),
    ("# , # , # , #", |n| (steps(&n[..4], 1) && n[..4].contains(&n[4])).then_some(n[4])),
    ("# , # , #", |n| (steps(&n[..3], 1) && n[1] == n[3] || steps(&n[..3], 0)).then_some(n[1])),
];

fn steps(numbers: &[i64], by: i64) -> bool {
    numbers.windows(2).all(|pair| pair[1] - pair[0] == by)
}

/// The numbers that stand for the `#` of a wording, if the tokens begin with it.
fn matched(wording: &str, tokens: &[String]) -> Option<Vec<i64>> {
    let mut numbers = vec![];
    let mut tokens = tokens.iter();
    for words in wording.split(' ') {
        let (token, number) = tokens.next().map(|token| (token, token.parse().ok()))?;
        match number {
            Some(number) if words == "#" => numbers.push(number),
            _ if words.split('|').any(|word| word == token) => (),
            _ => return None,
        }
    }
    Some(numbers)
}

/// What is left of a text about `value` when all its wordings are worked out: the numbers it speaks of. None if
/// something it says is false.
fn worked_out(text: &str, value: usize) -> Option<Vec<i64>> {
    let mut text = text.replace("half of an eight", "");
    for (_, shape) in SHAPES.iter().filter(|(_, shape)| !shape.ends_with("upside down")) {
        text = text.replace(&format!("a {shape}"), "").replace(shape, "");
    }
    for (_, name) in NAMES.iter().filter(|(_, name)| !name.starts_with("the square")) {
        text = text.replace(name, "");
    }
    for mark in [".", ",", ":", "?"] {
        text = text.replace(mark, &format!(" {mark} "));
    }
    let token = |word: &str| match word {
        "digit" | "numeral" | "figure" => "number".into(),
        _ => read(word).map_or(word.into(), |number| number.to_string()),
    };
    let mut tokens: Vec<String> = text.split_whitespace().map(token).collect();
    for (wording, makes) in RULES {
        let length = wording.split(' ').count();
        let find = |tokens: &[String]| (0..tokens.len()).find_map(|i| Some((i, matched(wording, &tokens[i..])?)));
        while let Some((at, mut numbers)) = find(&tokens) {
            numbers.push(value as i64);
            let number = makes(&numbers)?;
            tokens.splice(at..at + length, [number.to_string()]);
        }
    }
    Some(tokens.iter().filter_map(|token| token.parse().ok()).collect())
}

#[test]
fn every_text_is_true() {
    let mut random = Random::new(0, 0);
    for (value, ..) in NUMBERS {
        for _ in 0..300 {
            let text = Number::new(*value, &mut random).say(TEXTS, &mut random);
            let numbers = worked_out(&text, *value);
            assert!(
                numbers.as_ref().is_some_and(|numbers| numbers.iter().all(|n| *n == *value as i64)),
                "{value}: {text:?} says {numbers:?}"
            );
        }
    }
}

#[test]
fn what_is_false_is_found() {
    for text in [
        "six plus one is eight.",
        "the number after VI is 8.",
        "8 - 2 = 7",
        "seven is even.",
        "seven is larger than nine.",
        "five, six, eight, seven",
        "half of fifteen is seven.",
        "VII is 6",
        "the sixth number when counting from one",
    ] {
        assert!(worked_out(text, 7).is_none_or(|numbers| numbers.iter().any(|n| *n != 7)), "{text:?}");
    }
}

#[test]
fn every_template_is_reachable() {
    let tables = [TEXTS, PHRASES, NAMED, NAMED_IN_INK, TOLD, TOLD_IN_INK, ANSWERS, STATEMENTS];
    assert_reachable(&tables, |random| Number::new(NUMBERS[random.below(NUMBERS.len())].0, random));
}

#[test]
fn three_in_four_numbers_are_digits() {
    let n = 4000;
    let mut random = Random::new(0, 0);
    let digits = (0..n).filter(|_| value(&mut random) < 10).count() as i64;
    // Binomial(4000, 3/4): sd = 27.4. Five of them.
    assert!((digits - 3000).abs() < 137, "{digits}");
}
