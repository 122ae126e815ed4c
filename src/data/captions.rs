//! Captions for images that come only with a label: templates with the class's name filled in.
//!
//! Some templates are held out: never used in training, they show whether a model understands words it knows in a
//! sentence it does not, and whether words it does not know distract it.

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
}

/// The captions of one data set.
///
/// In a template, `{word}` stands for the class's name ("seven"), `{digit}` for its digit ("7"), `{a}` for the name with
/// its article ("an ankle boot").
#[derive(Clone, Copy, Debug)]
pub struct Captions {
    training: &'static [&'static str],
    held_out: &'static [&'static str],
    words: &'static [&'static str],
    /// The class's name with its article, by label; empty where no template asks for it.
    with_article: &'static [&'static str],
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

const CLOTHES_WITH_ARTICLE: &[&str] = &[
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
];

impl Captions {
    /// The captions of a data set.
    pub fn of(name: DatasetName) -> Captions {
        let words = name.class_names();
        match name {
            DatasetName::Mnist => {
                Captions { training: DIGITS_TRAINING, held_out: DIGITS_HELD_OUT, words, with_article: &[] }
            }
            DatasetName::FashionMnist => Captions {
                training: CLOTHES_TRAINING,
                held_out: CLOTHES_HELD_OUT,
                words,
                with_article: CLOTHES_WITH_ARTICLE,
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

    /// The caption that a template makes of a label. Panics if there is no such label or template.
    #[track_caller]
    pub fn caption(&self, split: Split, label: usize, template: usize) -> String {
        let templates = self.templates(split);
        assert!(label < self.words.len(), "label {label} of {} classes does not exist", self.words.len());
        assert!(template < templates.len(), "template {template} of {} ({split:?}) does not exist", templates.len());
        let with_article = self.with_article.get(label).copied().unwrap_or_default();
        templates[template]
            .replace("{word}", self.words[label])
            .replace("{digit}", &label.to_string())
            .replace("{a}", with_article)
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
        let labels = 0..captions.classes();
        labels
            .flat_map(|label| (0..captions.templates(split).len()).map(move |t| (label, t)))
            .map(|(label, template)| captions.caption(split, label, template))
            .collect()
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
            let every = [all(&captions, Split::Training), all(&captions, Split::HeldOut)].concat();
            assert!(every.iter().all(|caption| !caption.contains(['{', '}'])), "{every:?}");
            // So no held-out caption is a training caption, and none fits two labels.
            let different: HashSet<&String> = every.iter().collect();
            assert_eq!(different.len(), every.len());
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
