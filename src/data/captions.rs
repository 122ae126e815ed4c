//! Captions for images that come only with a label: templates with the class's name filled in.
//!
//! Some templates are held out: never used in training, they show whether a model understands words it knows in a
//! sentence it does not, and whether words it does not know distract it. And for some phrases no image was ever shown with
//! anything like them ("the number after six"): there a model can only know what its text encoder knows.

use super::DatasetName;
use crate::random::{Purpose, stream};
use rand::Rng;

/// Which templates.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Split {
    /// Those a model is trained on.
    Training,
    /// Those kept for evaluation.
    HeldOut,
    /// Other names of the classes, which no template of the other two has.
    Unpaired,
}

/// The captions of one data set.
///
/// In a template, `{word}` stands for the class's name ("seven"), `{digit}` for its digit ("7"), `{a}` for the name with
/// its article ("an ankle boot"). For digits there are also `{before}` ("six"), `{after}` ("eight"), `{double}` ("fourteen"),
/// `{roman}` ("VII") and `{things}` ("days in a week"); for clothes, `{also}` ("a sweater"). A class that lacks what a template
/// asks for does without the template: nothing is before zero.
#[derive(Clone, Copy, Debug)]
pub struct Captions {
    training: &'static [&'static str],
    held_out: &'static [&'static str],
    unpaired: &'static [&'static str],
    words: &'static [&'static str],
    /// What the slots of templates stand for: (slot, by label).
    slots: &'static [(&'static str, &'static [&'static str])],
}

const DIGITS_TRAINING: &[&str] = &[
    "a handwritten {word}",
    "a handwritten {digit}",
    "the digit {digit}",
    "the digit {word}",
    "the number {word}",
    "a picture of the number {word}",
    "a picture of the digit {digit}",
    "an image of the number {digit}",
    "a drawing of the digit {word}",
    "a photo of a handwritten {word}",
    "a white {word} on a black background",
    "the number {digit} in white ink",
    "the number {word} written by hand",
    "someone wrote the digit {digit}",
    "{word}",
    "{digit}",
];

/// The last two have words that training never shows.
const DIGITS_HELD_OUT: &[&str] = &[
    "an image of a handwritten {word}",
    "a drawing of the number {digit}",
    "the handwritten digit {word} in white ink",
    "a photo of the number {word} on a black background",
    "someone wrote {digit} by hand",
    "please scribble the digit {word}",
    "a neat {digit} made with a thick pen",
];

const DIGITS_UNPAIRED: &[&str] = &[
    "the number after {before}",
    "one more than {before}",
    "{before} plus one",
    "the number before {after}",
    "one less than {after}",
    "half of {double}",
    "{roman}",
    "the number of {things}",
];

const DIGITS_SLOTS: &[(&str, &[&str])] = &[
    ("{digit}", &["0", "1", "2", "3", "4", "5", "6", "7", "8", "9"]),
    ("{before}", &["", "zero", "one", "two", "three", "four", "five", "six", "seven", "eight"]),
    ("{after}", &["one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"]),
    // Half of zero would name the class.
    ("{double}", &["", "two", "four", "six", "eight", "ten", "twelve", "fourteen", "sixteen", "eighteen"]),
    ("{roman}", &["", "I", "II", "III", "IV", "V", "VI", "VII", "VIII", "IX"]),
    (
        "{things}",
        &[
            "legs on a snake",
            "wheels on a unicycle",
            "wheels on a bicycle",
            "sides of a triangle",
            "legs on a dog",
            "fingers on a hand",
            "legs on an insect",
            "days in a week",
            "legs on a spider",
            "players in a baseball team",
        ],
    ),
];

const CLOTHES_TRAINING: &[&str] = &[
    "a photo of {a}",
    "a picture of {a}",
    "an image of {a}",
    "a drawing of {a}",
    "a small grey photo of {a}",
    "{a} on a black background",
    "a photo of {a} from a shop",
    "this is {a}",
    "someone bought {a}",
    "the {word} in the picture",
    "clothes: {word}",
    "{a}",
    "{word}",
];

/// The last one has words that training never shows.
const CLOTHES_HELD_OUT: &[&str] = &[
    "a small picture of {a}",
    "this is an image of {a}",
    "the {word} in the photo",
    "someone bought {a} from a shop",
    "please sketch {a} for a catalogue",
];

const CLOTHES_UNPAIRED: &[&str] = &["{also}", "a photo of {also}"];

const CLOTHES_SLOTS: &[(&str, &[&str])] = &[
    (
        "{a}",
        &[
            "a t-shirt",
            "a pair of trousers",
            "a pullover",
            "a dress",
            "a coat",
            "a sandal",
            "a shirt",
            "a sneaker",
            "a bag",
            "an ankle boot",
        ],
    ),
    (
        "{also}",
        &[
            "a tee",
            "a pair of slacks",
            "a sweater",
            "a gown",
            "an overcoat",
            "an open shoe",
            "a button-up top",
            "a trainer",
            "a purse",
            "a short boot",
        ],
    ),
];

impl Captions {
    /// The captions of a data set.
    pub fn of(name: DatasetName) -> Captions {
        let words = name.class_names();
        match name {
            DatasetName::Mnist => Captions {
                training: DIGITS_TRAINING,
                held_out: DIGITS_HELD_OUT,
                unpaired: DIGITS_UNPAIRED,
                words,
                slots: DIGITS_SLOTS,
            },
            DatasetName::FashionMnist => Captions {
                training: CLOTHES_TRAINING,
                held_out: CLOTHES_HELD_OUT,
                unpaired: CLOTHES_UNPAIRED,
                words,
                slots: CLOTHES_SLOTS,
            },
        }
    }

    /// How many classes there are; labels are below this.
    pub fn classes(&self) -> usize {
        self.words.len()
    }

    /// The templates of a split.
    pub fn templates(&self, split: Split) -> &'static [&'static str] {
        match split {
            Split::Training => self.training,
            Split::HeldOut => self.held_out,
            Split::Unpaired => self.unpaired,
        }
    }

    /// How many templates are for training.
    pub fn training(&self) -> usize {
        self.training.len()
    }

    /// How many templates are held out.
    pub fn held_out(&self) -> usize {
        self.held_out.len()
    }

    /// All captions of a label, at least one. Panics if there is no such label.
    #[track_caller]
    pub fn all(&self, split: Split, label: usize) -> Vec<String> {
        (0..self.templates(split).len()).filter_map(|template| self.fill(split, label, template)).collect()
    }

    /// The caption that a template makes of a label. Panics if there is no such label or template, or if the template asks for
    /// what the class lacks, as some of [`Split::Unpaired`] do.
    #[track_caller]
    pub fn caption(&self, split: Split, label: usize, template: usize) -> String {
        let lacks = || panic!("template {template} ({split:?}) has nothing to say of label {label}");
        self.fill(split, label, template).unwrap_or_else(lacks)
    }

    #[track_caller]
    fn fill(&self, split: Split, label: usize, template: usize) -> Option<String> {
        let templates = self.templates(split);
        assert!(label < self.words.len(), "label {label} of {} classes does not exist", self.words.len());
        assert!(template < templates.len(), "template {template} of {} ({split:?}) does not exist", templates.len());
        let mut caption = templates[template].replace("{word}", self.words[label]);
        for (slot, values) in self.slots.iter().filter(|(slot, _)| templates[template].contains(slot)) {
            let value = Some(values[label]).filter(|value| !value.is_empty())?;
            caption = caption.replace(slot, value);
        }
        Some(caption)
    }

    /// The training caption that an example gets in a training step: every template is equally likely.
    /// `example` is whatever number tells the examples of one step apart. Panics if there is no such label.
    #[track_caller]
    pub fn pick(&self, seed: u64, step: u64, example: u64, label: usize) -> String {
        let draw = stream(seed, Purpose::Caption, step, example).next_u64();
        let template = (u128::from(draw) * self.training.len() as u128) >> 64;
        self.caption(Split::Training, label, template as usize)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    const BOTH: [DatasetName; 2] = [DatasetName::Mnist, DatasetName::FashionMnist];

    fn all(captions: &Captions, split: Split) -> Vec<String> {
        (0..captions.classes()).flat_map(|label| captions.all(split, label)).collect()
    }

    #[test]
    fn captions_read_as_they_should() {
        let digits = Captions::of(DatasetName::Mnist);
        assert_eq!(digits.caption(Split::Training, 7, 0), "a handwritten seven");
        assert_eq!(digits.caption(Split::Training, 7, 2), "the digit 7");
        assert_eq!(digits.caption(Split::Training, 7, 5), "a picture of the number seven");
        let clothes = Captions::of(DatasetName::FashionMnist);
        assert_eq!(clothes.caption(Split::Training, 9, 0), "a photo of an ankle boot");
        assert_eq!(clothes.caption(Split::HeldOut, 1, 2), "the trousers in the photo");
    }

    #[test]
    fn every_caption_is_different_and_complete() {
        for name in BOTH {
            let captions = Captions::of(name);
            assert!(captions.training() >= 12 && captions.held_out() >= 4);
            let every = [Split::Training, Split::HeldOut, Split::Unpaired].map(|split| all(&captions, split)).concat();
            assert!(every.iter().all(|caption| !caption.contains(['{', '}'])), "{every:?}");
            // So no held-out caption is a training caption, and none fits two labels.
            let different: HashSet<&String> = every.iter().collect();
            assert_eq!(different.len(), every.len());
        }
    }

    #[test]
    fn phrases_that_no_image_was_shown_with_do_not_name_their_class() {
        let digits = Captions::of(DatasetName::Mnist);
        assert_eq!(digits.caption(Split::Unpaired, 7, 0), "the number after six");
        assert_eq!(digits.all(Split::Unpaired, 7)[5..], ["half of fourteen", "VII", "the number of days in a week"]);
        for name in BOTH {
            let captions = Captions::of(name);
            let trained = all(&captions, Split::Training);
            for label in 0..captions.classes() {
                let phrases = captions.all(Split::Unpaired, label);
                assert!(phrases.len() >= 2);
                for phrase in phrases {
                    assert!(!trained.contains(&phrase), "{phrase}");
                    let named = |word: &str| phrase.split(' ').any(|w| w == word);
                    // "One" is also what is added and taken off.
                    let counts =
                        phrase.contains("one more") || phrase.contains("one less") || phrase.contains("plus one");
                    assert!(!named(name.class_names()[label]) || (label == 1 && counts), "{phrase}");
                    assert!(name != DatasetName::Mnist || !named(&label.to_string()), "{phrase}");
                }
            }
        }
    }

    #[test]
    fn most_held_out_templates_recombine_known_words_and_some_do_not() {
        for name in BOTH {
            let captions = Captions::of(name);
            let words = |template: &&'static str| template.split([' ', ':']).collect::<Vec<_>>();
            let known: HashSet<&str> = captions.templates(Split::Training).iter().flat_map(words).collect();
            let held_out = captions.templates(Split::HeldOut);
            let recombined = held_out.iter().filter(|t| words(t).iter().all(|word| known.contains(word))).count();
            assert!(2 * recombined > held_out.len() && recombined < held_out.len(), "{name}: {recombined}");
        }
    }

    #[test]
    fn picks_are_spread_evenly_and_repeatable() {
        let captions = Captions::of(DatasetName::Mnist);
        let mut counts = std::collections::HashMap::new();
        for example in 0..16_000 {
            let caption = captions.pick(3, 5, example, 7);
            assert!(caption.contains("seven") || caption.contains('7'));
            *counts.entry(caption).or_insert(0) += 1;
        }
        assert_eq!(counts.len(), 16);
        // Binomial(16000, 1/16): sd = 30.6. Five of them.
        assert!(counts.values().all(|&n: &i32| (n - 1000).abs() < 153), "{counts:?}");
        assert_eq!(captions.pick(3, 5, 9, 7), captions.pick(3, 5, 9, 7));
        let steps: HashSet<String> = (0..20).map(|step| captions.pick(3, step, 0, 7)).collect();
        assert!(steps.len() > 1);
    }

    #[test]
    #[should_panic(expected = "label 10 of 10 classes does not exist")]
    fn labels_out_of_range_panic() {
        Captions::of(DatasetName::Mnist).caption(Split::Training, 10, 0);
    }
}
