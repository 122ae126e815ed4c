//! Boxes and arrows as SVG: graphs of computations, networks.

use super::svg::{FAINT_INK, INK, document, text};

/// The colour of a box.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tint {
    /// Hardly a colour, for what is given.
    Grey,
    /// For computations.
    Blue,
    /// For results, and what is new.
    Orange,
    /// For parameters, and what is learned.
    Green,
    /// For what stands apart.
    Pink,
}

impl Tint {
    /// Of the area and of the line around it.
    fn colours(self) -> [&'static str; 2] {
        match self {
            Tint::Grey => ["#f3f4f6", "#9aa1ad"],
            Tint::Blue => ["#e3f0f9", "#0072b2"],
            Tint::Orange => ["#fdeee0", "#d55e00"],
            Tint::Green => ["#e0f4ed", "#009e73"],
            Tint::Pink => ["#f8eaf2", "#cc79a7"],
        }
    }
}

/// A drawing of boxes and arrows. Pixels count from the top left corner.
///
/// ```
/// use imagen::picture::{Diagram, Tint};
///
/// let mut drawing = Diagram::new(300.0, 80.0);
/// let a = drawing.block(20.0, 20.0, 80.0, 40.0, &["a", "2.0"], Tint::Grey);
/// let b = drawing.block(200.0, 20.0, 80.0, 40.0, &["a²", "4.0"], Tint::Blue);
/// drawing.arrow(a, b, "square");
/// assert!(drawing.svg().starts_with("<svg"));
/// ```
#[derive(Clone, Debug)]
pub struct Diagram {
    size: [f64; 2],
    /// (x, y, width, height) of every box.
    blocks: Vec<[f64; 4]>,
    body: String,
}

impl Diagram {
    /// An empty drawing of `width` by `height` pixels.
    pub fn new(width: f64, height: f64) -> Diagram {
        Diagram { size: [width, height], blocks: Vec::new(), body: String::new() }
    }

    /// A box with its top left corner at (x, y) and `lines` of text in its middle, the first in bold if there are more.
    /// Returns its number, for [`Diagram::arrow`].
    pub fn block(&mut self, x: f64, y: f64, width: f64, height: f64, lines: &[&str], tint: Tint) -> usize {
        let [area, line] = tint.colours();
        self.body += &format!(
            "<rect x=\"{x:.1}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"{height:.1}\" rx=\"6\" fill=\"{area}\" stroke=\"{line}\"/>\n"
        );
        let first = y + height / 2.0 + 4.0 - 8.0 * (lines.len() as f64 - 1.0);
        for (i, words) in lines.iter().enumerate() {
            let style = match i {
                0 if lines.len() > 1 => format!(" fill=\"{INK}\" font-weight=\"600\""),
                0 => format!(" fill=\"{INK}\""),
                _ => format!(" fill=\"{FAINT_INK}\""),
            };
            self.body += &text(x + width / 2.0, first + 16.0 * i as f64, "middle", &style, words);
        }
        self.blocks.push([x, y, width, height]);
        self.blocks.len() - 1
    }

    /// A straight arrow from the edge of box `from` to the edge of box `to`, with `label` at its middle. Panics if there is
    /// no such box.
    #[track_caller]
    pub fn arrow(&mut self, from: usize, to: usize, label: &str) {
        let (a, b) = (self.middle(from), self.middle(to));
        let (start, end) = (self.edge(from, b), self.edge(to, a));
        self.line(&[start, end], label);
    }

    /// An arrow along `points`, with `label` at the middle of its longest piece. Panics with fewer than two points.
    #[track_caller]
    pub fn line(&mut self, points: &[(f64, f64)], label: &str) {
        assert!(points.len() >= 2, "an arrow needs two points");
        let (from, to) = (points[points.len() - 2], points[points.len() - 1]);
        let length = (to.0 - from.0).hypot(to.1 - from.1).max(1e-9);
        let (ux, uy) = ((to.0 - from.0) / length, (to.1 - from.1) / length);
        let path: Vec<String> = points.iter().map(|(x, y)| format!("{x:.1} {y:.1}")).collect();
        let side = |sign: f64| (to.0 - 7.0 * ux - sign * 4.0 * uy, to.1 - 7.0 * uy + sign * 4.0 * ux);
        let (left, right) = (side(1.0), side(-1.0));
        self.body += &format!(
            "<path d=\"M{}\" fill=\"none\" stroke=\"{FAINT_INK}\" stroke-width=\"1.3\"/>\n\
             <path d=\"M{:.1} {:.1}L{:.1} {:.1}L{:.1} {:.1}Z\" fill=\"{FAINT_INK}\"/>\n",
            path.join("L"),
            left.0,
            left.1,
            to.0,
            to.1,
            right.0,
            right.1,
        );
        if label.is_empty() {
            return;
        }
        let far = |pair: &&[(f64, f64)]| (pair[1].0 - pair[0].0).hypot(pair[1].1 - pair[0].1);
        let longest = points.windows(2).max_by(|a, b| far(a).total_cmp(&far(b))).unwrap_or(points);
        let (x, y) = ((longest[0].0 + longest[1].0) / 2.0, (longest[0].1 + longest[1].1) / 2.0);
        let steep = (longest[1].1 - longest[0].1).abs() > (longest[1].0 - longest[0].0).abs();
        let (x, y, anchor) = if steep { (x + 8.0, y + 4.0, "start") } else { (x, y - 7.0, "middle") };
        self.body += &text(x, y, anchor, &format!(" fill=\"{FAINT_INK}\""), label);
    }

    /// Words with the middle of their line at (x, y).
    pub fn text(&mut self, x: f64, y: f64, words: &str) {
        self.body += &text(x, y, "middle", &format!(" fill=\"{FAINT_INK}\""), words);
    }

    /// The drawing as an SVG document.
    pub fn svg(&self) -> String {
        document(self.size[0], self.size[1], &self.body)
    }

    fn middle(&self, block: usize) -> (f64, f64) {
        let [x, y, width, height] = self.blocks[block];
        (x + width / 2.0, y + height / 2.0)
    }

    /// Where the line from the middle of `block` to `towards` leaves it.
    fn edge(&self, block: usize, towards: (f64, f64)) -> (f64, f64) {
        let [_, _, width, height] = self.blocks[block];
        let (x, y) = self.middle(block);
        let (dx, dy) = (towards.0 - x, towards.1 - y);
        let share = (width / 2.0 / dx.abs()).min(height / 2.0 / dy.abs()).min(1.0);
        (x + share * dx, y + share * dy)
    }
}
