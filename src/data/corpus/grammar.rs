//! How a sentence is made of a template, and the random choices on the way.
//!
//! In a template, `{name}` stands for something about the thing that is spoken of, and `{small|little|tiny}` for one of
//! several words, each equally likely.

use crate::random::{Purpose, stream};
use rand::Rng;
use rand::rngs::ChaCha8Rng;

/// What pictures are called.
pub(super) const PICTURES: &[&str] = &["picture", "photo", "image", "drawing", "sketch", "photograph", "painting"];

/// What is between two ways of saying the same.
pub(super) const MEANS: &[&str] = &[
    " = ",
    ": ",
    " means ",
    " is the same as ",
    ", that is ",
    ", in other words ",
    ", also called ",
    ", or ",
    " or ",
    ", ",
];

/// The choices of one text.
pub(super) struct Random(ChaCha8Rng);

impl Random {
    /// The choices of text number `index`.
    pub(super) fn new(seed: u64, index: u64) -> Random {
        Random(stream(seed, Purpose::Corpus, 0, index))
    }

    /// A number from 0 to `n` - 1, each equally likely; 0 if `n` is 0. By multiplication, so that it does not change
    /// with the library's versions.
    pub(super) fn below(&mut self, n: usize) -> usize {
        ((u128::from(self.0.next_u64()) * n as u128) >> 64) as usize
    }

    /// One of `items`, each equally likely. Panics if there are none.
    #[track_caller]
    pub(super) fn pick<T: Copy>(&mut self, items: &[T]) -> T {
        items[self.below(items.len())]
    }

    /// True in `percent` of 100 cases.
    pub(super) fn chance(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }
}

/// Something that templates can speak of.
pub(super) trait Slots {
    /// What stands for `{name}`, or `None` if the thing has nothing of that name: then the template does not fit it.
    fn slot(&self, name: &str, random: &mut Random) -> Option<String>;

    /// The template with its slots filled, or `None` if it does not fit. Panics if a brace is not closed.
    #[track_caller]
    fn fill(&self, template: &str, random: &mut Random) -> Option<String> {
        let (mut text, mut rest) = (String::new(), template);
        while let Some((before, slot)) = rest.split_once('{') {
            let (name, after) = slot.split_once('}').expect("every slot of a template is closed");
            text += before;
            if name.contains('|') {
                text += random.pick(&name.split('|').collect::<Vec<_>>());
            } else {
                text += &self.slot(name, random)?;
            }
            rest = after;
        }
        Some(text + rest)
    }

    /// One of the templates that fit, filled. Does not return if none fits.
    fn say(&self, templates: &[&str], random: &mut Random) -> String {
        loop {
            if let Some(text) = self.fill(random.pick(templates), random) {
                return text;
            }
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// Panics unless every template fits something that `thing` makes.
    pub(in super::super) fn assert_reachable<T: Slots>(tables: &[&[&str]], thing: impl Fn(&mut Random) -> T) {
        let mut random = Random::new(0, 0);
        for template in tables.iter().copied().flatten() {
            let fits = (0..2000).any(|_| thing(&mut random).fill(template, &mut random).is_some());
            assert!(fits, "{template:?} fits nothing");
        }
    }

    struct Cat;

    impl Slots for Cat {
        fn slot(&self, name: &str, _: &mut Random) -> Option<String> {
            (name == "sound").then(|| "meows".into())
        }
    }

    #[test]
    fn slots_are_filled_and_alternatives_chosen() {
        let mut random = Random::new(0, 0);
        let mut said: Vec<String> =
            (0..50).map(|_| Cat.say(&["a {small|big} cat {sound}", "it {barks}"], &mut random)).collect();
        said.sort();
        said.dedup();
        assert_eq!(said, ["a big cat meows", "a small cat meows"]);
    }

    #[test]
    fn a_template_without_its_slot_does_not_fit() {
        assert_eq!(Cat.fill("a cat has {wheels}", &mut Random::new(0, 0)), None);
    }

    #[test]
    #[should_panic(expected = "every slot of a template is closed")]
    fn open_slots_panic() {
        Cat.fill("a cat {sound", &mut Random::new(0, 0));
    }

    #[test]
    fn choices_are_spread_evenly() {
        let mut random = Random::new(1, 2);
        let mut counts = [0i32; 3];
        for _ in 0..6000 {
            counts[random.below(3)] += 1;
        }
        // Binomial(6000, 1/3): sd = 36.5. Five of them.
        assert!(counts.iter().all(|n| (n - 2000).abs() < 183), "{counts:?}");
    }
}
