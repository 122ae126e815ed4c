//! Coloured shapes and where they are: the same scene told from both sides.

use super::grammar::{MEANS, PICTURES, Random, Slots};

const COLOURS: &[&str] =
    &["red", "blue", "green", "yellow", "orange", "purple", "black", "white", "grey", "pink", "brown"];

const SHAPES: &[&str] =
    &["circle", "square", "triangle", "star", "rectangle", "oval", "heart", "ring", "cross", "hexagon", "diamond"];

/// Words for each size.
const SIZES: &[&[&str]] = &[&[""], &["small ", "little ", "tiny "], &["large ", "big ", "huge "]];

/// Each pair of opposite places, in several wordings.
const PLACES: &[[&[&str]; 2]] = &[
    [&["above", "over", "higher than"], &["below", "under", "beneath", "lower than"]],
    [&["left of", "to the left of", "on the left of"], &["right of", "to the right of", "on the right of"]],
    [&["on top of"], &["underneath"]],
    [&["in front of"], &["behind", "at the back of"]],
    [&["inside", "within"], &["around"]],
    [&["next to", "beside", "near"], &["next to", "beside", "near"]],
];

/// `{first}` and `{second}` are the things; `{at}` is where the first is, seen from the second, and `{at'}` where the
/// second is, seen from the first.
const TEXTS: &[&str] = &[
    "{first} {at} {second}",
    "{first} {at} {second}.",
    "{first} and {second}",
    "a {picture} of {first}",
    "a {picture} of {first} and {second}",
    "a {picture} of {first} {at} {second}",
    "{first} {is} {at} {second}.",
    "{first} {is} {at} {second}. {second} {is'} {at'} {first}.",
    "{first} {at} {second}. {second} {is'} {at'} {first}.",
    "{first} {at} {second}. so {second} {is'} {at'} {first}.",
    "{first} {at} {second}{means}{second} {at'} {first}",
    "{first} {at} {second}{means}{second} {at'} {first}",
    "{first} {at} {second}{means}{first} {at} {second}",
    "{first} and {second}{means}{second} and {first}",
    "a {picture|image} of {first} {at} {second}{means}a {picture|image} of {second} {at'} {first}",
    "a {picture} of {first} {at} {second}. {second} {is'} {at'} {first}.",
    "there {is} {first} {at} {second}.",
    "in the {picture} {first} {is} {at} {second}.",
    "{at} {second} {is} {first}.",
    "please {draw|paint|sketch} {first} {at} {second}",
    "someone {drew|painted|sketched} {first} {at} {second}. {second} {is'} {at'} {first}.",
    "what is {at} {second}? {first}.",
    "where {is} {first}? {at} {second}.",
    "{first}. the colour is {colour}, the shape is {a shape}.",
    "{first}. what colour? {colour}. what shape? {a shape}.",
    "{first} and {second}: {total} shapes.",
    "{first} and {second}. {total} shapes together.",
    "{first} and {second}. one colour is {colour}, the other is {colour'}.",
    "{fact}.",
    "{fact}.",
    "{fact}. {fact}.",
];

const FACTS: &[&str] = &[
    "{red and yellow|yellow and red} {make|mixed make|give} orange",
    "{blue and yellow|yellow and blue} {make|mixed make|give} green",
    "{red and blue|blue and red} {make|mixed make|give} purple",
    "{red and white|white and red} {make|mixed make|give} pink",
    "{black and white|white and black} {make|mixed make|give} grey",
    "{orange|green|purple} is mixed from two colours",
    "{red|blue|yellow} is a primary colour",
    "black is darker than {white|grey|yellow|pink}",
    "white is {lighter|brighter} than {black|grey|blue|red}",
    "the sky is blue by day and black at night",
    "{grass|a leaf in summer} is green",
    "{snow|milk|chalk} is white",
    "{coal|ink|soot} is {black|dark}",
    "{a banana|a lemon|the sun} is yellow",
    "{a tomato|a strawberry|blood} is red",
    "{an orange|a pumpkin|a carrot} is orange",
    "{tiny|little} means {small|very small}",
    "{huge|big} means {large|very large}",
    "{small|little|tiny} is the opposite of {large|big|huge}",
    "the opposite of above is {below|under}",
    "the opposite of left is right",
    "the opposite of in front of is behind",
    "over means above, and {under|beneath} means below",
    "beside means next to",
    "a {circle|ring} is round and has no corners",
    "a circle has no sides, a triangle has three",
    "a triangle has three {sides|corners}",
    "a {square|rectangle|diamond} has four {sides|corners}",
    "a hexagon has six {sides|corners}",
    "a square has four equal sides",
    "an oval is a long circle",
    "a cross is made of two lines",
    "a dark background is nearly black",
    "a {background|backdrop} is what is behind the thing in {a picture|a photo}",
    "white on black is the opposite of black on white",
    "{a photo|a photograph} is a picture made with a camera",
    "a {drawing|sketch} is a picture made by hand",
    "a painting is a picture made with a brush",
    "{an image|a picture} of a circle shows a circle",
];

const COUNTS: [&str; 11] = ["no", "a", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"];

/// Some equal shapes.
struct Group {
    count: usize,
    size: usize,
    colour: &'static str,
    shape: &'static str,
}

/// Two groups of shapes, one somewhere beside the other.
struct Scene {
    groups: [Group; 2],
    /// Where the first is, seen from the second; and the converse.
    places: [&'static [&'static str]; 2],
}

/// A text about a scene, or about colours, shapes and places.
pub(super) fn text(random: &mut Random) -> String {
    Scene::new(random).say(TEXTS, random)
}

impl Scene {
    /// The two groups differ in colour and in shape, so that each can be told by either.
    fn new(random: &mut Random) -> Scene {
        let [colours, shapes] = [COLOURS, SHAPES].map(|words| two(words, random));
        let mut group = |i: usize| Group {
            count: if random.chance(65) { 1 } else { 2 + random.below(4) },
            size: random.below(SIZES.len()),
            colour: colours[i],
            shape: shapes[i],
        };
        let groups = [group(0), group(1)];
        let [here, there] = random.pick(PLACES);
        Scene { groups, places: if random.chance(50) { [here, there] } else { [there, here] } }
    }
}

impl Group {
    /// "a big red circle", "two small blue squares".
    fn phrase(&self, random: &mut Random) -> String {
        let plural = match (self.count, self.shape) {
            (1, _) => "",
            (_, "cross") => "es",
            _ => "s",
        };
        let size = random.pick(SIZES[self.size]);
        format!("{} {size}{} {}{plural}", COUNTS[self.count], self.colour, self.shape)
    }

    fn is(&self) -> &'static str {
        if self.count == 1 { "is" } else { "are" }
    }
}

impl Slots for Scene {
    fn slot(&self, name: &str, random: &mut Random) -> Option<String> {
        let [first, second] = &self.groups;
        let text = match name {
            "first" => return Some(first.phrase(random)),
            "second" => return Some(second.phrase(random)),
            "is" => first.is(),
            "is'" => second.is(),
            "at" => random.pick(self.places[0]),
            "at'" => random.pick(self.places[1]),
            "colour" => first.colour,
            "colour'" => second.colour,
            "a shape" => return Some(format!("a {}", first.shape)),
            "total" => COUNTS[first.count + second.count],
            "picture" => random.pick(PICTURES),
            "means" => random.pick(MEANS),
            "fact" => return Some(self.say(FACTS, random)),
            _ => return None,
        };
        Some(text.into())
    }
}

/// Two different items.
fn two<T: Copy>(items: &[T], random: &mut Random) -> [T; 2] {
    let first = random.below(items.len());
    let second = (first + 1 + random.below(items.len() - 1)) % items.len();
    [items[first], items[second]]
}

#[cfg(test)]
mod tests {
    use super::super::grammar::tests::assert_reachable;
    use super::*;

    #[test]
    fn every_template_is_reachable() {
        assert_reachable(&[TEXTS, FACTS], Scene::new);
    }
}
