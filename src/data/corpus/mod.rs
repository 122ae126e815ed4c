//! A corpus made from a grammar, for pre-training a text encoder where none can be downloaded.
//!
//! Its texts say the same thing in different words, side by side: "the number after six is seven. it is written 7."
//! Whoever can guess a part of such a text that is left out knows that both mean the same. What they say is meant to be true.
//! Of texts about numbers the tests compute it; that a fact about an animal or a garment is one, no test can tell.

mod animals;
mod clothes;
mod grammar;
mod numbers;
mod scenes;
mod texts;
mod vehicles;

pub use texts::{Corpus, CorpusConfig, CorpusError};

use grammar::{MEANS, Random};

/// Makes a text about one subject.
type About = fn(&mut Random) -> String;

/// The subjects, and how many of 100 texts each gets.
const SUBJECTS: &[(usize, About)] =
    &[(60, numbers::text), (15, scenes::text), (10, clothes::text), (9, animals::text), (6, vehicles::text)];

/// Text number `index`: one to four short sentences about one thing. A function of seed and index alone.
pub fn text(seed: u64, index: u64) -> String {
    let mut random = Random::new(seed, index);
    let (_, about) = SUBJECTS[subject(&mut random)];
    loop {
        let text = about(&mut random);
        if !repeats(&text) {
            return punctuated(with_articles(&text), &mut random);
        }
    }
}

/// Which of the subjects a text gets.
fn subject(random: &mut Random) -> usize {
    let draw = random.below(100);
    let shares = SUBJECTS.iter().scan(0, |sum, (share, _)| {
        *sum += share;
        Some(*sum)
    });
    shares.take_while(|&sum| sum <= draw).count()
}

/// Whether a text says something twice in the same words: nothing can be learned from that.
fn repeats(text: &str) -> bool {
    let apart = MEANS.iter().fold(text.to_string(), |text, means| text.replace(means, "="));
    let parts: Vec<&str> = apart.split(['.', '?', '=']).map(str::trim).filter(|part| !part.is_empty()).collect();
    (1..parts.len()).any(|i| parts[..i].contains(&parts[i]))
}

/// The text with "a" made "an" where the next word needs it.
fn with_articles(text: &str) -> String {
    let words: Vec<&str> = text.split(' ').collect();
    let article = |i: usize| match words.get(i + 1) {
        Some(next) if words[i] == "a" && takes_an(next) => "an",
        _ => words[i],
    };
    (0..words.len()).map(article).collect::<Vec<_>>().join(" ")
}

/// Whether a word begins with the sound of a vowel when it is read.
fn takes_an(word: &str) -> bool {
    let consonant = ["one", "uni", "use"].iter().any(|start| word.starts_with(start));
    let bare = word.trim_end_matches(|c: char| !c.is_alphanumeric());
    word.starts_with(['a', 'e', 'i', 'o', 'u', '8']) && !consonant || matches!(bare, "11" | "18")
}

/// Some texts get capital letters, and some lose their last full stop, as captions do.
fn punctuated(mut text: String, random: &mut Random) -> String {
    if random.chance(30) && text.ends_with('.') {
        text.pop();
    }
    if random.chance(15) { capitalised(&text) } else { text }
}

/// The text with the first letter of each sentence in upper case.
fn capitalised(text: &str) -> String {
    let mut starts = true;
    let letter = |c: char| {
        let letter = if starts { c.to_ascii_uppercase() } else { c };
        starts = matches!(c, '.' | '?') || starts && c == ' ';
        letter
    };
    text.chars().map(letter).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashSet;

    fn texts(count: u64) -> impl Iterator<Item = String> {
        (0..count).map(|index| text(0, index))
    }

    proptest! {
        #[test]
        fn every_text_is_clean_and_repeatable(seed: u64, index: u64) {
            let text = text(seed, index);
            prop_assert_eq!(&text, &super::text(seed, index));
            prop_assert!(text.bytes().all(|byte| matches!(byte, b' '..=b'~')), "{:?}", text);
            prop_assert!(!text.contains(['{', '}', '|']), "{:?}", text);
            prop_assert!(!text.is_empty() && text.trim() == text && !text.contains("  "), "{:?}", text);
            prop_assert!(text.split(' ').count() <= 48, "{:?}", text);
        }
    }

    #[test]
    fn nearly_all_texts_differ() {
        // 18 707 of them were different when this was written.
        let different: HashSet<String> = texts(20_000).collect();
        assert!(different.len() > 18_000, "{}", different.len());
        assert_ne!(text(1, 0), text(2, 0));
    }

    #[test]
    fn subjects_get_their_shares() {
        assert_eq!(SUBJECTS.iter().map(|(share, _)| share).sum::<usize>(), 100);
        let mut counts = vec![0.0; SUBJECTS.len()];
        let n = 20_000;
        for index in 0..n {
            counts[subject(&mut Random::new(0, index))] += 1.0;
        }
        for (count, (share, _)) in counts.iter().zip(SUBJECTS) {
            let (n, p) = (n as f64, *share as f64 / 100.0);
            // Five standard deviations of Binomial(n, p).
            assert!((count - n * p).abs() < 5.0 * (n * p * (1.0 - p)).sqrt(), "{share}: {count}");
        }
    }

    #[test]
    fn every_class_is_soon_named() {
        let all = texts(5000).map(|text| format!(" {} ", text.replace(['.', ',', ':', '?'], " "))).collect::<String>();
        let named = |name: &str| all.contains(&format!(" {name} "));
        let digits =
            "zero one two three four five six seven eight nine 0 1 2 3 4 5 6 7 8 9 I II III IV V VI VII VIII IX";
        let clothes = "t-shirt trousers pullover dress coat sandal shirt sneaker bag tee pants sweater trainer handbag";
        let others = "airplane automobile bird cat deer dog frog horse ship truck plane car boat lorry";
        for name in [digits, clothes, others].iter().flat_map(|names| names.split(' ')).chain(["ankle boot"]) {
            assert!(named(name), "{name} is missing");
        }
    }

    #[test]
    fn repetitions_are_found() {
        assert!(repeats("VII, or VII") && repeats("it barks. it barks.") && repeats("a gown, also called a gown."));
        assert!(!repeats("seven, or VII") && !repeats("six is even. six is VI."));
    }

    #[test]
    fn articles_fit_the_next_word() {
        let text = "a 8 = a eight, a 18. a one, a ankle boot, a 80, a 7, a unicycle: a a";
        assert_eq!(with_articles(text), "an 8 = an eight, an 18. a one, an ankle boot, an 80, a 7, a unicycle: an a");
    }

    #[test]
    fn sentences_are_capitalised() {
        assert_eq!(capitalised("what is 7? an odd number. it is VII"), "What is 7? An odd number. It is VII");
    }

    #[test]
    fn texts_are_pinned() {
        // A change here changes every pre-training run.
        let pinned = [
            "four less than five is one. a single stroke: the number 1",
            "1 - 1, one half of zero, zero",
            "a ring is round and has no corners",
        ];
        assert_eq!([0, 1, 2].map(|index| text(0, index)), pinned);
    }
}
