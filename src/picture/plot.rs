//! Line charts as SVG.

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
}

impl Curve {
    /// A curve as it is.
    pub fn new(name: impl Into<String>, points: Vec<(f64, f64)>) -> Curve {
        Curve { name: name.into(), points, smoothing: None }
    }

    /// The curve drawn faintly, with its moving average over it, for noisy losses: 0.98 averages over about 50 points.
    /// Panics unless `decay` is in [0, 1).
    #[track_caller]
    pub fn smoothed(self, decay: f64) -> Curve {
        assert!((0.0..1.0).contains(&decay), "smoothed: the decay must be in [0, 1), not {decay}");
        Curve { smoothing: Some(decay), ..self }
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
const COLOURS: [&str; 7] = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000"];
const WIDTH: f64 = 760.0;
const LEFT: f64 = 74.0;
const RIGHT: f64 = WIDTH - 24.0;
const PLOT_HEIGHT: f64 = 330.0;

/// A chart of `curves` as an SVG document, 760 pixels wide. Axes span the points that can be drawn; without any, the
/// chart says so. More than seven curves repeat the colours with dashes.
pub fn line_chart(title_: &str, x_label: &str, y_label: &str, curves: &[Curve], log_x: bool, log_y: bool) -> String {
    let (legend, legend_height) = legend(curves, 58.0);
    let top = 50.0 + legend_height;
    let bottom = top + PLOT_HEIGHT;
    let mut body = title(LEFT, 30.0, title_) + &legend;
    let x_axis = |drawn: &[(f64, f64)]| Axis::around(drawn.iter().map(|p| p.0), log_x, [LEFT, RIGHT], 0.0);
    let y_axis = |drawn: &[(f64, f64)]| Axis::around(drawn.iter().map(|p| p.1), log_y, [bottom, top], 0.04);
    let drawn = drawable(curves, log_x, log_y);
    if let (Some(x), Some(y)) = (x_axis(&drawn), y_axis(&drawn)) {
        body += &grid_lines(&x, &y, [top, bottom]);
        for (i, curve) in curves.iter().enumerate() {
            body += &lines(curve, i, &x, &y);
        }
    } else {
        let style = format!(" fill=\"{FAINT_INK}\" font-size=\"14\"");
        body += &text((LEFT + RIGHT) / 2.0, (top + bottom) / 2.0, "middle", &style, "no data");
    }
    body += &format!("<path d=\"M{LEFT} {bottom}H{RIGHT}\" stroke=\"#9aa1ad\"/>\n");
    body += &text((LEFT + RIGHT) / 2.0, bottom + 42.0, "middle", &format!(" fill=\"{FAINT_INK}\""), x_label);
    body += &sideways(20.0, (top + bottom) / 2.0, y_label);
    document(WIDTH, bottom + 58.0, &body)
}

/// The points of all curves that have a place on both axes.
fn drawable(curves: &[Curve], log_x: bool, log_y: bool) -> Vec<(f64, f64)> {
    let points = curves.iter().flat_map(|curve| curve.points.iter().copied());
    points.filter(|&(x, y)| Axis::takes(x, log_x) && Axis::takes(y, log_y)).collect()
}

/// Names beside a piece of their line, in as many rows as they need, and the height of these.
fn legend(curves: &[Curve], y: f64) -> (String, f64) {
    let (mut out, mut x, mut height) = (String::new(), LEFT, 0.0);
    for (i, curve) in curves.iter().enumerate().filter(|(_, curve)| !curve.name.is_empty()) {
        let width = 46.0 + about_width(&curve.name);
        if height == 0.0 || (x + width > RIGHT && x > LEFT) {
            (x, height) = (LEFT, height + 20.0);
        }
        let row = y + height - 20.0;
        out += &format!("<path d=\"M{x:.1} {:.1}h20\" stroke-width=\"2.5\"{}/>\n", row - 4.0, stroke(i));
        out += &text(x + 26.0, row, "start", &format!(" fill=\"{FAINT_INK}\""), &curve.name);
        x += width;
    }
    (out, height)
}

fn stroke(curve: usize) -> String {
    let dashes = if curve < COLOURS.len() { "" } else { " stroke-dasharray=\"6 4\"" };
    format!(" stroke=\"{}\"{dashes}", COLOURS[curve % COLOURS.len()])
}

fn grid_lines(x: &Axis, y: &Axis, [top, bottom]: [f64; 2]) -> String {
    let style = format!(" fill=\"{FAINT_INK}\"");
    let (mut lines, mut labels) = (String::new(), String::new());
    for (at, label) in x.ticks(8) {
        lines += &format!("M{at:.1} {bottom}V{top}");
        labels += &text(at, bottom + 19.0, "middle", &style, &label);
    }
    for (at, label) in y.ticks(6) {
        lines += &format!("M{LEFT} {at:.1}H{RIGHT}");
        labels += &text(LEFT - 9.0, at + 4.0, "end", &style, &label);
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
            // With round ends a line without length is a dot.
            out += "h0";
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
