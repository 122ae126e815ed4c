//! Vehicles: where they go, what they carry, who steers them.

use super::grammar::{MEANS, PICTURES, Random, Slots};

#[derive(Clone, Copy)]
struct Vehicle {
    /// Words for the same; what stands twice is said twice as often.
    names: &'static [&'static str],
    /// Fits after "it".
    goes: &'static [&'static str],
    /// Fits after "it carries".
    carries: &'static [&'static str],
    /// Who steers it.
    driver: &'static str,
    /// Fits after "has".
    wheels: &'static str,
    /// Fits after "has", too.
    parts: &'static [&'static str],
    /// Fits after "stops".
    stops: &'static [&'static str],
    /// Fits no other of these vehicles.
    described: &'static [&'static str],
}

const VEHICLES: &[Vehicle] = &[
    Vehicle {
        names: &["airplane", "plane", "aeroplane"],
        goes: &["flies through the air", "flies in the sky", "flies above the clouds"],
        carries: &["people to far countries", "passengers"],
        driver: "pilot",
        wheels: "some wheels",
        parts: &["two wings", "engines", "a tail"],
        stops: &["at an airport"],
        described: &["a vehicle that flies", "a vehicle with wings"],
    },
    Vehicle {
        names: &["automobile", "car", "car", "motor car"],
        goes: &["drives on the road", "drives through the town"],
        carries: &["a family", "a few people"],
        driver: "driver",
        wheels: "four wheels",
        parts: &["doors and windows", "an engine", "headlights"],
        stops: &["in a garage", "at a red light"],
        described: &["a vehicle for a family", "a small vehicle of the road"],
    },
    Vehicle {
        names: &["ship", "ship", "vessel"],
        goes: &["sails on the sea", "floats on water", "crosses the ocean"],
        carries: &["goods and people", "sailors"],
        driver: "captain",
        wheels: "no wheels",
        parts: &["a deck", "an anchor", "a mast and sails"],
        stops: &["in a harbour", "in a port"],
        described: &["a large boat", "a vehicle that floats on water"],
    },
    Vehicle {
        names: &["truck", "truck", "lorry"],
        goes: &["drives on the road", "drives on the motorway"],
        carries: &["heavy loads", "sand and stones", "goods to the shops"],
        driver: "driver",
        wheels: "four wheels or more",
        parts: &["a cab", "a strong engine", "big wheels"],
        stops: &["in a yard", "at a red light"],
        described: &["a large vehicle for heavy loads", "a vehicle that carries goods on the road"],
    },
];

const CAPTIONS: &[&str] = &[
    "a {picture} of a {name}",
    "a {colour} {name}",
    "a {picture} of a {colour} {name}",
    "a {small|blurry|clear|colour} {picture} of a {name}",
    "the {name} in the {picture}",
    "this is a {name}",
    "someone {saw|photographed|bought} a {name}",
    "a {name} {stops}",
    "vehicles: {name}",
    "a {name}",
    "{name}",
];

const FACTS: &[&str] = &[
    "a {name} {goes}",
    "a {name} carries {carries}",
    "a {name} has {wheels}",
    "a {name} has {parts}",
    "a {name} stops {stops}",
    "a {driver} steers a {name}",
    "a {name} is a vehicle",
    "it {goes}",
    "it carries {carries}",
    "it has {wheels}",
    "it has {parts}",
    "it is steered by a {driver}",
];

const TEXTS: &[&str] = &[
    "{caption}",
    "{caption}",
    "{caption}.",
    "{caption}. {fact}.",
    "{caption}. {fact}. {fact}.",
    "a {picture|image} of a {name}{means}a {picture|image} of a {name}",
    "{fact}. {fact}.",
    "{fact}. {fact}. {fact}.",
    "a {name} {goes} and carries {carries}.",
    "a {name} is {described}.",
    "a {name} is {described}. {fact}.",
    "a {name}, also called a {name}.",
    "{described}{means}a {name}",
    "a {name}{means}{described}",
    "a {name}{means}a {name}",
    "a {picture} of {described}. it shows a {name}.",
    "a {picture|image} of {described}{means}a {picture|image} of a {name}",
    "what {goes} and has {parts}? a {name}.",
    "what is {described}? a {name}.",
    "it {goes} and it carries {carries}: it is a {name}.",
];

const COLOURS: &[&str] = &["red", "blue", "white", "yellow", "green", "grey", "large", "old", "new"];

/// A text about a vehicle.
pub(super) fn text(random: &mut Random) -> String {
    random.pick(VEHICLES).say(TEXTS, random)
}

impl Slots for Vehicle {
    fn slot(&self, name: &str, random: &mut Random) -> Option<String> {
        let words = match name {
            "name" => self.names,
            "goes" => self.goes,
            "carries" => self.carries,
            "driver" => &[self.driver],
            "wheels" => &[self.wheels],
            "parts" => self.parts,
            "stops" => self.stops,
            "described" => self.described,
            "picture" => PICTURES,
            "colour" => COLOURS,
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
        assert_reachable(&[TEXTS, CAPTIONS, FACTS], |random| random.pick(VEHICLES));
    }
}
