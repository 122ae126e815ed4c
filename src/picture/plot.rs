//! Charts as SVG: curves, dots, arrows and bars between two axes.

mod axis;

use super::svg::{FAINT_INK, about_width, document, sideways, text, title};
use axis::Axis;

/// One line of a chart.
#[derive(Clone, Debug, PartialEq)]
pub struct Curve {
    /// Its name in the legend; none if empty.
    pub name: String,
    /// Its points (x, y), joined in this order. A point that is not finite, or not above 0 on a logarithmic axis,
    /// leaves a gap.
    pub points: Vec<(f64, f64)>,
    /// If set, the points are drawn faintly, and over them their exponential moving average with this decay a point, in
    /// [0, 1): the larger, the smoother.
    pub smoothing: Option<f64>,
    /// For each point, between which values y may lie, drawn as an upright line through it; empty for none.
    pub intervals: Vec<[f64; 2]>,
}

impl Curve {
    /// A curve as it is.
    pub fn new(name: impl Into<String>, points: Vec<(f64, f64)>) -> Curve {
        Curve { name: name.into(), points, smoothing: None, intervals: Vec::new() }
    }

    /// The curve drawn faintly, with its moving average over it, for noisy losses: 0.98 averages over about 50 points.
    /// Panics unless `decay` is in [0, 1).
    #[track_caller]
    pub fn smoothed(self, decay: f64) -> Curve {
        assert!((0.0..1.0).contains(&decay), "smoothed: the decay must be in [0, 1), not {decay}");
        Curve { smoothing: Some(decay), ..self }
    }

    /// The curve with an interval [low, high] at each point. Panics unless there are as many of them as of points.
    #[track_caller]
    pub fn with_intervals(self, intervals: Vec<[f64; 2]>) -> Curve {
        assert_eq!(intervals.len(), self.points.len(), "with_intervals: intervals, and points");
        Curve { intervals, ..self }
    }

    /// The lower and upper ends of the intervals.
    fn ends(&self) -> impl Iterator<Item = [(f64, f64); 2]> {
        self.points.iter().zip(&self.intervals).map(|(&(x, _), &[low, high])| [(x, low), (x, high)])
    }

    /// The moving average, each value divided by the weight gathered so far, so that it does not start at 0
    /// (as Adam corrects its moments, arXiv 1412.6980, section 3).
    fn average(&self, decay: f64) -> Vec<(f64, f64)> {
        let (mut sum, mut weight) = (0.0, 0.0);
        let mut next = |y: f64| {
            sum = decay * sum + (1.0 - decay) * y;
            weight = decay * weight + (1.0 - decay);
            sum / weight
        };
        self.points.iter().map(|&(x, y)| (x, if y.is_finite() { next(y) } else { y })).collect()
    }
}

/// Okabe and Ito's colours, told apart with any kind of colour vision; without their yellow, too light on white.
pub(super) const COLOURS: [&str; 7] = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000"];
const LEFT: f64 = 74.0;
/// Pixels right of a chart's axes, and below them: the labels.
const MARGIN: f64 = 24.0;
const FOOT: f64 = 58.0;

/// What is drawn between the axes.
#[derive(Clone, Debug)]
enum Mark {
    Curve(Curve),
    Dots { name: String, points: Vec<(f64, f64)>, radius: f64 },
    Arrows { name: String, arrows: Vec<[(f64, f64); 2]> },
    Bars { name: String, points: Vec<(f64, f64)> },
}

impl Mark {
    fn name(&self) -> &str {
        match self {
            Mark::Curve(Curve { name, .. })
            | Mark::Dots { name, .. }
            | Mark::Arrows { name, .. }
            | Mark::Bars { name, .. } => name,
        }
    }

    /// Every point that should have a place on the axes.
    fn points(&self) -> Vec<(f64, f64)> {
        match self {
            Mark::Curve(curve) => curve.points.iter().copied().chain(curve.ends().flatten()).collect(),
            Mark::Dots { points, .. } => points.clone(),
            Mark::Arrows { arrows, .. } => arrows.concat(),
            // a bar stands on 0
            Mark::Bars { points, .. } => points.iter().flat_map(|&(x, y)| [(x, 0.0), (x, y)]).collect(),
        }
    }
}

/// A chart as it is put together: axes, and curves, dots, arrows and bars between them, drawn in the order they were added.
///
/// ```
/// use imagen::picture::{Chart, Curve};
///
/// let loss = (1..100).map(|i| (f64::from(i), 1.0 / f64::from(i))).collect();
/// let svg = Chart::new("Training").x("step").y("loss").log_y().curve(Curve::new("mean of a batch", loss)).svg();
/// assert!(svg.starts_with("<svg"));
/// ```
#[derive(Clone, Debug)]
pub struct Chart {
    title: String,
    labels: [String; 2],
    log: [bool; 2],
    ranges: [Option<[f64; 2]>; 2],
    square: bool,
    marks: Vec<Mark>,
}

impl Chart {
    /// A chart with nothing on it yet.
    pub fn new(title: impl Into<String>) -> Chart {
        let labels = [String::new(), String::new()];
        Chart { title: title.into(), labels, log: [false; 2], ranges: [None; 2], square: false, marks: Vec::new() }
    }

    /// The label of the horizontal axis.
    pub fn x(mut self, label: impl Into<String>) -> Chart {
        self.labels[0] = label.into();
        self
    }

    /// The label of the vertical axis.
    pub fn y(mut self, label: impl Into<String>) -> Chart {
        self.labels[1] = label.into();
        self
    }

    /// A logarithmic horizontal axis; points not above 0 are left out.
    pub fn log_x(mut self) -> Chart {
        self.log[0] = true;
        self
    }

    /// A logarithmic vertical axis; points not above 0 are left out.
    pub fn log_y(mut self) -> Chart {
        self.log[1] = true;
        self
    }

    /// The ends of the horizontal axis, else those of the points. What lies beyond is not drawn. Panics unless `low` < `high`.
    #[track_caller]
    pub fn x_range(mut self, low: f64, high: f64) -> Chart {
        assert!(low < high, "a chart's axis from {low} to {high} has no length");
        self.ranges[0] = Some([low, high]);
        self
    }

    /// The ends of the vertical axis, else those of the points. What lies beyond is not drawn. Panics unless `low` < `high`.
    #[track_caller]
    pub fn y_range(mut self, low: f64, high: f64) -> Chart {
        assert!(low < high, "a chart's axis from {low} to {high} has no length");
        self.ranges[1] = Some([low, high]);
        self
    }

    /// One scale for both axes on a square, as the plane wants: a circle is a circle.
    pub fn square(mut self) -> Chart {
        self.square = true;
        self
    }

    /// A line through points.
    pub fn curve(mut self, curve: Curve) -> Chart {
        self.marks.push(Mark::Curve(curve));
        self
    }

    /// Points as dots; the more there are, the smaller.
    pub fn dots(mut self, name: impl Into<String>, points: Vec<(f64, f64)>) -> Chart {
        let radius = if points.len() > 200 { 1.6 } else { 3.0 };
        self.marks.push(Mark::Dots { name: name.into(), points, radius });
        self
    }

    /// Arrows, each from its first point to its second.
    pub fn arrows(mut self, name: impl Into<String>, arrows: Vec<[(f64, f64); 2]>) -> Chart {
        self.marks.push(Mark::Arrows { name: name.into(), arrows });
        self
    }

    /// Bars from 0 to y at every x, as wide as the points are apart.
    pub fn bars(mut self, name: impl Into<String>, points: Vec<(f64, f64)>) -> Chart {
        self.marks.push(Mark::Bars { name: name.into(), points });
        self
    }

    /// The chart as an SVG document, 760 pixels wide (500 if it is square). Axes span the points that can be drawn; without
    /// any, the chart says so. More than seven marks repeat the colours with dashes.
    pub fn svg(&self) -> String {
        let width = if self.square { 500.0 } else { 760.0 };
        let plot_height = if self.square { width - LEFT - MARGIN } else { 330.0 };
        let (body, height) = self.body(width, plot_height, self.legend(width).1);
        document(width, height, &body)
    }

    /// The legend of a chart `width` pixels wide, and its height.
    fn legend(&self, width: f64) -> (String, f64) {
        legend(&self.marks, 58.0, width - MARGIN)
    }

    /// The drawing of `width` pixels with `legend_height` above its axes and `plot_height` between them, and its whole height.
    fn body(&self, width: f64, plot_height: f64, legend_height: f64) -> (String, f64) {
        let right = width - MARGIN;
        let (legend, _) = self.legend(width);
        let top = 50.0 + legend_height;
        let bottom = top + plot_height;
        let mut body = title(LEFT, 30.0, &self.title) + &legend;
        let [x, y] = self.axes([[LEFT, right], [bottom, top]]);
        if let (Some(x), Some(y)) = (x, y) {
            body += &grid_lines(&x, &y, [LEFT, right], [top, bottom]);
            // what lies beyond given ends must not cover the labels
            body += &format!(
                "<svg x=\"{LEFT}\" y=\"{top}\" width=\"{:.1}\" height=\"{plot_height:.1}\" \
                 viewBox=\"{LEFT} {top} {:.1} {plot_height:.1}\" overflow=\"{}\">\n",
                right - LEFT,
                right - LEFT,
                if self.ranges == [None; 2] { "visible" } else { "hidden" },
            );
            for (i, mark) in self.marks.iter().enumerate() {
                body += &draw(mark, i, &x, &y);
            }
            body += "</svg>\n";
        } else {
            let style = format!(" fill=\"{FAINT_INK}\" font-size=\"14\"");
            body += &text((LEFT + right) / 2.0, (top + bottom) / 2.0, "middle", &style, "no data");
        }
        body += &format!("<path d=\"M{LEFT} {bottom}H{right}\" stroke=\"#9aa1ad\"/>\n");
        let faint = format!(" fill=\"{FAINT_INK}\"");
        body += &text((LEFT + right) / 2.0, bottom + 42.0, "middle", &faint, &self.labels[0]);
        body += &sideways(20.0, (top + bottom) / 2.0, &self.labels[1]);
        (body, bottom + FOOT)
    }

    /// The axes, if anything has a place on them.
    fn axes(&self, pixels: [[f64; 2]; 2]) -> [Option<Axis>; 2] {
        let takes = |&(x, y): &(f64, f64)| Axis::takes(x, self.log[0]) && Axis::takes(y, self.log[1]);
        let points: Vec<[f64; 2]> =
            self.marks.iter().flat_map(Mark::points).filter(takes).map(|(x, y)| [x, y]).collect();
        let margins = [if self.square { 0.04 } else { 0.0 }, 0.04];
        let axis = |way: usize| match self.ranges[way] {
            Some(ends) => {
                Axis::around(ends.into_iter(), self.log[way], pixels[way], 0.0).filter(|_| !points.is_empty())
            }
            None => Axis::around(points.iter().map(|p| p[way]), self.log[way], pixels[way], margins[way]),
        };
        let mut axes = [axis(0), axis(1)];
        if let (true, [Some(x), Some(y)]) = (self.square, &mut axes) {
            Axis::make_equal(x, y);
        }
        axes
    }
}

/// Charts in rows of `columns`, each about 380 pixels wide, as one SVG document. Panics without charts or columns.
#[track_caller]
pub fn charts(charts: &[Chart], columns: usize) -> String {
    assert!(columns > 0 && !charts.is_empty(), "charts: {} charts in {columns} columns", charts.len());
    let columns = columns.min(charts.len());
    let width = if columns == 1 { 500.0 } else { 380.0 };
    let (mut body, mut y) = (String::new(), 0.0);
    for row in charts.chunks(columns) {
        // titles and axes of a row stand on one line, whatever their legends
        let legend_height = row.iter().map(|chart| chart.legend(width).1).fold(0.0, f64::max);
        let mut tallest = 0.0_f64;
        for (i, chart) in row.iter().enumerate() {
            let plot_height = if chart.square { width - LEFT - MARGIN } else { 0.62 * width };
            let (part, height) = chart.body(width, plot_height, legend_height);
            body += &format!("<g transform=\"translate({:.1} {y:.1})\">\n{part}</g>\n", i as f64 * width);
            tallest = tallest.max(height);
        }
        y += tallest;
    }
    document(columns as f64 * width, y, &body)
}

/// Names beside a piece of their mark, in as many rows as they need, and the height of these.
fn legend(marks: &[Mark], y: f64, right: f64) -> (String, f64) {
    let (mut out, mut x, mut height) = (String::new(), LEFT, 0.0);
    for (i, mark) in marks.iter().enumerate().filter(|(_, mark)| !mark.name().is_empty()) {
        let width = 46.0 + about_width(mark.name());
        if height == 0.0 || (x + width > right && x > LEFT) {
            (x, height) = (LEFT, height + 20.0);
        }
        let row = y + height - 20.0;
        let middle = row - 4.0;
        out += &match mark {
            Mark::Curve(_) => format!("<path d=\"M{x:.1} {middle:.1}h20\" stroke-width=\"2.5\"{}/>\n", stroke(i)),
            Mark::Dots { .. } => format!("<circle cx=\"{:.1}\" cy=\"{middle:.1}\" r=\"3\"{}/>\n", x + 10.0, fill(i)),
            Mark::Bars { .. } => format!("<path d=\"M{x:.1} {middle:.1}h20\" stroke-width=\"9\"{}/>\n", stroke(i)),
            Mark::Arrows { .. } => arrow([(x, middle), (x + 20.0, middle)], i),
        };
        out += &text(x + 26.0, row, "start", &format!(" fill=\"{FAINT_INK}\""), mark.name());
        x += width;
    }
    (out, height)
}

fn draw(mark: &Mark, index: usize, x: &Axis, y: &Axis) -> String {
    let takes = |&(px, py): &(f64, f64)| Axis::takes(px, x.log) && Axis::takes(py, y.log);
    let place = |&(px, py): &(f64, f64)| (x.at(px), y.at(py));
    match mark {
        Mark::Curve(curve) => {
            let whole = curve.ends().filter(|ends| ends.iter().all(takes));
            let uprights: String = whole.map(|[low, high]| upright(place(&low), place(&high), index)).collect();
            lines(curve, index, x, y) + &uprights
        }
        Mark::Dots { points, radius, .. } => {
            let dots = points.iter().filter(|&p| takes(p)).map(place);
            let path: String = dots.map(|(px, py)| format!("M{px:.1} {py:.1}h.01")).collect();
            let colour = stroke(index);
            format!("<path d=\"{path}\" stroke-linecap=\"round\" stroke-width=\"{:.1}\"{colour}/>\n", 2.0 * radius)
        }
        Mark::Arrows { arrows, .. } => {
            let whole = arrows.iter().filter(|[from, to]| takes(from) && takes(to));
            whole.map(|[from, to]| arrow([place(from), place(to)], index)).collect()
        }
        Mark::Bars { points, .. } => {
            let places: Vec<(f64, f64)> = points.iter().filter(|&p| takes(p)).map(place).collect();
            let apart = places.windows(2).map(|pair| (pair[1].0 - pair[0].0).abs()).fold(f64::INFINITY, f64::min);
            let wide = if apart.is_finite() { (0.8 * apart).max(1.0) } else { 20.0 };
            let ground = y.ground();
            let path: String = places.iter().map(|(px, py)| format!("M{px:.1} {ground:.1}V{py:.1}")).collect();
            format!("<path d=\"{path}\" stroke-width=\"{wide:.1}\"{}/>\n", stroke(index))
        }
    }
}

/// A line from one place up to another, in pixels, with a bar at each end.
fn upright((x, low): (f64, f64), (_, high): (f64, f64), index: usize) -> String {
    let path = format!("M{:.1} {low:.1}h8M{x:.1} {low:.1}V{high:.1}M{:.1} {high:.1}h8", x - 4.0, x - 4.0);
    format!("<path d=\"{path}\" fill=\"none\" stroke-width=\"1.2\"{}/>\n", stroke(index))
}

/// An arrow between two places, in pixels; a dot if it has no length.
fn arrow([(ax, ay), (bx, by)]: [(f64, f64); 2], index: usize) -> String {
    let (dx, dy) = (bx - ax, by - ay);
    let length = dx.hypot(dy);
    if length < 0.5 {
        return format!("<circle cx=\"{ax:.1}\" cy=\"{ay:.1}\" r=\"1\"{}/>\n", fill(index));
    }
    let head = (0.4 * length).min(5.0) / length;
    let (hx, hy) = (dx * head, dy * head);
    format!(
        "<path d=\"M{ax:.1} {ay:.1}L{bx:.1} {by:.1}M{:.1} {:.1}L{bx:.1} {by:.1}L{:.1} {:.1}\" fill=\"none\" stroke-width=\"1.2\"{}/>\n",
        bx - hx - 0.5 * hy,
        by - hy + 0.5 * hx,
        bx - hx + 0.5 * hy,
        by - hy - 0.5 * hx,
        stroke(index)
    )
}

fn fill(mark: usize) -> String {
    format!(" fill=\"{}\"", COLOURS[mark % COLOURS.len()])
}

fn stroke(curve: usize) -> String {
    let dashes = if curve < COLOURS.len() { "" } else { " stroke-dasharray=\"6 4\"" };
    format!(" stroke=\"{}\"{dashes}", COLOURS[curve % COLOURS.len()])
}

fn grid_lines(x: &Axis, y: &Axis, [left, right]: [f64; 2], [top, bottom]: [f64; 2]) -> String {
    let style = format!(" fill=\"{FAINT_INK}\"");
    let (mut lines, mut labels) = (String::new(), String::new());
    for (at, label) in x.ticks(((right - left) / 80.0) as usize) {
        lines += &format!("M{at:.1} {bottom}V{top}");
        labels += &text(at, bottom + 19.0, "middle", &style, &label);
    }
    for (at, label) in y.ticks(6) {
        lines += &format!("M{left} {at:.1}H{right}");
        labels += &text(left - 9.0, at + 4.0, "end", &style, &label);
    }
    format!("<path d=\"{lines}\" stroke=\"#e6e8ec\"/>\n{labels}")
}

fn lines(curve: &Curve, index: usize, x: &Axis, y: &Axis) -> String {
    let line = |points: &[(f64, f64)], looks: &str| {
        let path = path(points, x, y);
        let fixed = "fill=\"none\" stroke-linejoin=\"round\" stroke-linecap=\"round\"";
        if path.is_empty() {
            return path;
        }
        format!("<path d=\"{path}\" {fixed}{looks}{}/>\n", stroke(index))
    };
    match curve.smoothing {
        None => line(&curve.points, " stroke-width=\"2\""),
        Some(decay) => {
            line(&curve.points, " stroke-width=\"1\" stroke-opacity=\"0.25\"")
                + &line(&curve.average(decay), " stroke-width=\"2\"")
        }
    }
}

/// The points as path commands, interrupted where a point has no place.
fn path(points: &[(f64, f64)], x: &Axis, y: &Axis) -> String {
    let mut out = String::new();
    for run in points.split(|&(px, py)| !(Axis::takes(px, x.log) && Axis::takes(py, y.log))) {
        let places: Vec<_> = run.iter().map(|&(px, py)| (x.at(px), y.at(py))).collect();
        for (i, (px, py)) in thinned(&places).into_iter().enumerate() {
            out += &format!("{}{px:.1} {py:.1}", if i == 0 { 'M' } else { 'L' });
        }
        if places.len() == 1 {
            // With round ends a line of next to no length is a dot.
            out += "h.01";
        }
    }
    out
}

/// Of the points in one column of pixels only the first, lowest, highest and last, which look the same: a long
/// run has a point a step, and the file should not.
fn thinned(places: &[(f64, f64)]) -> Vec<(f64, f64)> {
    let mut kept = Vec::new();
    for column in places.chunk_by(|a, b| a.0.floor() == b.0.floor()) {
        if column.len() <= 4 {
            kept.extend_from_slice(column);
            continue;
        }
        let by_height = |&a: &usize, &b: &usize| column[a].1.total_cmp(&column[b].1);
        let lowest = (0..column.len()).min_by(by_height).unwrap_or(0);
        let highest = (0..column.len()).max_by(by_height).unwrap_or(0);
        let mut keep = [0, lowest, highest, column.len() - 1];
        keep.sort_unstable();
        kept.extend(keep.chunk_by(|a, b| a == b).map(|same| column[same[0]]));
    }
    kept
}
