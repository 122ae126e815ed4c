//! Clothes: what they are called, where and when they are worn, what they are made of.

use super::grammar::{MEANS, PICTURES, Random, Slots};

/// A kind of clothes.
#[derive(Clone, Copy)]
struct Garment {
    /// Words for the same that fit after "a"; what stands twice is said twice as often.
    names: &'static [&'static str],
    /// Those that fit without an article.
    bare: &'static [&'static str],
    /// Fits after "is worn".
    worn: &'static [&'static str],
    /// Fits after "is worn", too.
    when: &'static [&'static str],
    /// Fits after "is made of".
    material: &'static [&'static str],
    /// Fits after "has".
    parts: &'static [&'static str],
    /// Fits no other garment.
    described: &'static [&'static str],
}

const GARMENTS: &[Garment] = &[
    Garment {
        names: &["t-shirt", "t-shirt", "tee", "tee shirt"],
        bare: &["t-shirt", "tee"],
        worn: &["on the upper body", "on the chest and shoulders"],
        when: &["in summer", "on warm days", "when it is hot"],
        material: &["cotton", "thin cotton"],
        parts: &["short sleeves", "no collar", "a round neck"],
        described: &["a light top with short sleeves and no collar", "a shirt in the shape of the letter T"],
    },
    Garment {
        names: &["pair of trousers", "pair of trousers", "pair of pants", "pair of slacks"],
        bare: &["trousers", "trousers", "pants", "slacks"],
        worn: &["on the legs", "from the waist to the feet"],
        when: &["all year", "on every day"],
        material: &["denim", "wool", "cotton"],
        parts: &["two legs", "pockets and a belt"],
        described: &["a garment for the legs", "a garment with two legs"],
    },
    Garment {
        names: &["pullover", "pullover", "sweater", "jumper"],
        bare: &["pullover", "sweater", "jumper"],
        worn: &["on the upper body", "over a shirt"],
        when: &["in winter", "on cold days", "when it is cool"],
        material: &["wool", "knitted wool"],
        parts: &["long sleeves", "no buttons"],
        described: &["a warm knitted top", "a woollen top that is pulled over the head"],
    },
    Garment {
        names: &["dress", "dress", "gown", "frock"],
        bare: &["dress", "dress", "gown", "frock"],
        worn: &["on the whole body", "from the shoulders to the knees"],
        when: &["in summer", "at a party", "at a dance"],
        material: &["silk", "cotton", "linen"],
        parts: &["a skirt", "a narrow waist"],
        described: &["a top and a skirt in one piece", "a long garment with a skirt"],
    },
    Garment {
        names: &["coat", "coat", "overcoat", "winter coat"],
        bare: &["coat", "coat", "overcoat"],
        worn: &["over the other clothes", "outdoors"],
        when: &["in winter", "in the snow", "on cold days"],
        material: &["thick wool", "wool", "fur"],
        parts: &["long sleeves", "buttons in front", "deep pockets"],
        described: &["a long warm garment over all the others", "the outer garment of a cold day"],
    },
    Garment {
        names: &["sandal", "sandal", "open shoe", "summer shoe"],
        bare: &["sandal"],
        worn: &["on the foot", "on a bare foot"],
        when: &["in summer", "on the beach", "when it is hot"],
        material: &["leather straps", "leather", "cork"],
        parts: &["straps", "open toes"],
        described: &["a light shoe with straps", "a shoe that leaves the toes bare"],
    },
    Garment {
        names: &["shirt", "shirt", "button-up shirt", "dress shirt"],
        bare: &["shirt"],
        worn: &["on the upper body", "under a jacket"],
        when: &["in the office", "all year"],
        material: &["cotton", "linen"],
        parts: &["a collar", "buttons", "long sleeves and cuffs"],
        described: &["a top with a collar and buttons", "a garment that goes with a tie"],
    },
    Garment {
        names: &["sneaker", "sneaker", "trainer", "sports shoe", "running shoe"],
        bare: &["sneaker", "trainer"],
        worn: &["on the foot", "on the foot for sport"],
        when: &["when running", "in the gym", "for sport"],
        material: &["rubber and canvas", "cloth and rubber"],
        parts: &["laces", "a rubber sole"],
        described: &["a shoe for running", "a soft flat shoe for sport"],
    },
    Garment {
        names: &["bag", "bag", "handbag", "shoulder bag"],
        bare: &["bag", "handbag"],
        worn: &["over the shoulder", "in the hand"],
        when: &["when shopping", "on a trip"],
        material: &["leather", "cloth"],
        parts: &["a handle", "a strap and a zip"],
        described: &["a thing to carry things in", "a case with a handle for keys and money"],
    },
    Garment {
        names: &["ankle boot", "ankle boot", "short boot", "low boot"],
        bare: &["ankle boot"],
        worn: &["on the foot", "on the foot and the ankle"],
        when: &["in autumn", "in the rain", "on cold days"],
        material: &["leather", "strong leather"],
        parts: &["a heel", "a zip at the side"],
        described: &["a shoe that covers the ankle", "a boot that ends above the ankle"],
    },
];

const CAPTIONS: &[&str] = &[
    "a {picture} of a {name}",
    "a {picture} of a {name}",
    "a {small|large|black and white|grey} {picture} of a {name}",
    "a small grey {picture} of a {name}",
    "a {colour} {name}",
    "a {name} on a {black|dark|plain} background",
    "a {picture} of a {name} from a {shop|store|catalogue}",
    "this is a {name}",
    "this is {a|one} {picture} of a {name}",
    "someone {bought|wore|sold} a {name}",
    "someone bought a {name} from a {shop|store}",
    "the {bare} in the {picture}",
    "{clothes|clothing|fashion}: {bare}",
    "please {sketch|draw|paint} a {name} for a {catalogue|shop}",
    "a {name}",
    "{bare}",
];

const FACTS: &[&str] = &[
    "a {name} is worn {worn}",
    "you wear a {name} {worn}",
    "people {wear|use} a {name} {when}",
    "{when} people {wear|use} a {name}",
    "a {name} is made of {material}",
    "a {name} has {parts}",
    "it is worn {worn}",
    "it is made of {material}",
    "it has {parts}",
    "it is good {when}",
];

const TEXTS: &[&str] = &[
    "{caption}",
    "{caption}",
    "{caption}.",
    "{fact}.",
    "{fact}. {fact}.",
    "{caption}. {fact}.",
    "{caption}. {fact}. {fact}.",
    "{caption}. it is {described}.",
    "a {picture|image} of a {name}{means}a {picture|image} of a {name}",
    "a {name} is {described}.",
    "a {name} is {described}. {fact}.",
    "{described}{means}a {name}",
    "a {name}{means}{described}",
    "a {name}{means}a {name}",
    "a {name}, also called a {name}.",
    "{bare} means {bare}.",
    "a {picture} of {described}. it shows a {name}.",
    "a {picture|image} of {described}{means}a {picture|image} of a {name}",
    "someone {bought|wore} {described}: a {name}.",
    "what is {described}? a {name}.",
    "{described}? that is a {name}.",
    "what is worn {worn} and has {parts}? a {name}.",
    "something that is worn {worn} {when}, for example a {name}.",
];

const COLOURS: &[&str] = &["black", "white", "grey", "dark", "red", "blue", "green", "brown"];

/// A text about a garment.
pub(super) fn text(random: &mut Random) -> String {
    random.pick(GARMENTS).say(TEXTS, random)
}

impl Slots for Garment {
    fn slot(&self, name: &str, random: &mut Random) -> Option<String> {
        let words = match name {
            "name" => self.names,
            "bare" => self.bare,
            "worn" => self.worn,
            "when" => self.when,
            "material" => self.material,
            "parts" => self.parts,
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
        assert_reachable(&[TEXTS, CAPTIONS, FACTS], |random| random.pick(GARMENTS));
    }
}
