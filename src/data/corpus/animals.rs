//! Animals: what they do, where they live, their young ones.

use super::grammar::{MEANS, PICTURES, Random, Slots};

#[derive(Clone, Copy)]
struct Animal {
    /// Words for the same; what stands twice is said twice as often.
    names: &'static [&'static str],
    young: &'static str,
    /// Fits after "it".
    sounds: &'static [&'static str],
    /// Fits after "it", too.
    does: &'static [&'static str],
    /// Fits after "lives".
    lives: &'static [&'static str],
    legs: &'static str,
    /// Fits after "has".
    parts: &'static [&'static str],
    /// Fits before the name.
    looks: &'static [&'static str],
    /// Fits no other of these animals.
    described: &'static [&'static str],
}

const ANIMALS: &[Animal] = &[
    Animal {
        names: &["bird"],
        young: "chick",
        sounds: &["sings", "chirps"],
        does: &["flies", "lays eggs", "builds a nest"],
        lives: &["in a tree", "in a nest", "in the garden"],
        legs: "two",
        parts: &["feathers", "two wings", "a beak"],
        looks: &["small", "black", "blue", "yellow"],
        described: &["an animal with feathers", "an animal that flies and has a beak"],
    },
    Animal {
        names: &["cat", "cat", "house cat"],
        young: "kitten",
        sounds: &["meows", "purrs"],
        does: &["catches mice", "climbs trees", "sleeps all day"],
        lives: &["in a house", "with people"],
        legs: "four",
        parts: &["soft fur", "whiskers", "sharp claws", "a long tail"],
        looks: &["black", "white", "grey", "striped"],
        described: &["an animal that meows", "a pet that catches mice"],
    },
    Animal {
        names: &["deer"],
        young: "fawn",
        sounds: &["bellows"],
        does: &["eats leaves", "runs from wolves", "jumps over bushes"],
        lives: &["in the forest", "in the woods"],
        legs: "four",
        parts: &["thin legs", "brown fur", "hooves"],
        looks: &["brown", "shy", "young"],
        described: &["a shy animal of the forest", "a forest animal with antlers"],
    },
    Animal {
        names: &["dog", "dog", "hound"],
        young: "puppy",
        sounds: &["barks", "growls"],
        does: &["chases cats", "guards the house", "wags its tail"],
        lives: &["in a house", "with people", "in a kennel"],
        legs: "four",
        parts: &["fur", "a wet nose", "a tail"],
        looks: &["brown", "black", "white", "big"],
        described: &["an animal that barks", "a pet that guards the house"],
    },
    Animal {
        names: &["frog"],
        young: "tadpole",
        sounds: &["croaks"],
        does: &["jumps", "swims", "eats flies"],
        lives: &["in a pond", "near water"],
        legs: "four",
        parts: &["wet skin", "long back legs", "a long tongue"],
        looks: &["green", "small", "brown"],
        described: &["an animal that croaks", "a small green animal of the pond"],
    },
    Animal {
        names: &["horse", "horse", "pony"],
        young: "foal",
        sounds: &["neighs"],
        does: &["gallops", "carries a rider", "eats grass", "pulls a cart"],
        lives: &["on a farm", "in a stable"],
        legs: "four",
        parts: &["a mane", "hooves", "a long tail"],
        looks: &["brown", "black", "white"],
        described: &["an animal that people ride", "a large farm animal with a mane"],
    },
];

const CAPTIONS: &[&str] = &[
    "a {picture} of a {name}",
    "a {picture} of a {look} {name}",
    "a {small|blurry|clear|colour} {picture} of a {name}",
    "a {look} {name}",
    "a {name} {in the grass|in the picture|on a green background}",
    "the {name} in the {picture}",
    "this is a {name}",
    "someone {saw|photographed|painted} a {name}",
    "animals: {name}",
    "a {name}",
    "{name}",
];

const FACTS: &[&str] = &[
    "a {name} {sounds}",
    "a {name} {does}",
    "a {name} lives {lives}",
    "a {name} has {legs} legs",
    "a {name} has {parts}",
    "a young {name} is called a {young}",
    "a {young} is a young {name}",
    "a {name} is an animal",
    "it {sounds}",
    "it {does}",
    "it lives {lives}",
    "it has {legs} legs",
    "it has {parts}",
];

const TEXTS: &[&str] = &[
    "{caption}",
    "{caption}",
    "{caption}.",
    "{caption}. {fact}.",
    "{caption}. {fact}. {fact}.",
    "a {picture|image} of a {name}{means}a {name} in a {picture|image}",
    "{fact}. {fact}.",
    "{fact}. {fact}. {fact}.",
    "a {name} {sounds} and {does}.",
    "a {name} {does} and lives {lives}.",
    "a {name} is {described}.",
    "a {young} grows up to be a {name}.",
    "{described}{means}a {name}",
    "a {name}{means}{described}",
    "a {young}{means}a young {name}",
    "a {picture} of {described}. it shows a {name}.",
    "a {picture|image} of {described}{means}a {picture|image} of a {name}",
    "what {sounds} and has {legs} legs? a {name}.",
    "which animal {sounds}? a {name}.",
    "what is {described}? a {name}.",
    "it {sounds} and it {does}: it is a {name}.",
    "the number of legs on a {name} is {legs}.",
];

/// A text about an animal.
pub(super) fn text(random: &mut Random) -> String {
    random.pick(ANIMALS).say(TEXTS, random)
}

impl Slots for Animal {
    fn slot(&self, name: &str, random: &mut Random) -> Option<String> {
        let words = match name {
            "name" => self.names,
            "young" => &[self.young],
            "sounds" => self.sounds,
            "does" => self.does,
            "lives" => self.lives,
            "legs" => &[self.legs],
            "parts" => self.parts,
            "look" => self.looks,
            "described" => self.described,
            "picture" => PICTURES,
            "means" => MEANS,
            "caption" => CAPTIONS,
            "fact" => FACTS,
            _ => return None,
        };
        Some(self.say(words, random))
    }
}

#[cfg(test)]
mod tests {
    use super::super::grammar::tests::assert_reachable;
    use super::*;

    #[test]
    fn every_template_is_reachable() {
        assert_reachable(&[TEXTS, CAPTIONS, FACTS], |random| random.pick(ANIMALS));
    }
}
