//! Tables of numbers as SVG, each cell coloured by its value: confusion matrices.

use super::svg::{FAINT_INK, INK, about_width, document, sideways, text, title};

/// Pixels of a cell, each way.
const CELL: f64 = 44.0;
/// From white to a deep blue: the ends of one hue, so that darker is always more.
const LIGHT: [f64; 3] = [246.0, 249.0, 252.0];
const DARK: [f64; 3] = [8.0, 64.0, 129.0];

/// A table of `values` [rows, columns], row-major, as an SVG document: `rows` and `columns` are the labels, `axes` what
/// they mean (rows, columns). The shade goes with the square root of value / largest value, so that rare confusions
/// show; each cell tells its number unless that is 0. Negative and non-finite values are left white.
///
/// Panics unless there are rows.len() * columns.len() values.
#[track_caller]
pub fn heatmap(
    title_: &str,
    axes: (&str, &str),
    rows: &[impl AsRef<str>],
    columns: &[impl AsRef<str>],
    values: &[f64],
) -> String {
    assert_eq!(
        values.len(),
        rows.len() * columns.len(),
        "heatmap: {} values for {} rows and {} columns",
        values.len(),
        rows.len(),
        columns.len()
    );
    let labels = rows.iter().map(|row| about_width(row.as_ref())).fold(0.0, f64::max);
    let (left, top) = (58.0 + labels, 104.0);
    let (across, down) = (CELL * columns.len() as f64, CELL * rows.len() as f64);
    let faint = format!(" fill=\"{FAINT_INK}\"");
    let mut body = title(20.0, 30.0, title_);
    body += &text(left + across / 2.0, 64.0, "middle", &faint, axes.1);
    body += &sideways(30.0, top + down / 2.0, axes.0);
    for (i, column) in columns.iter().enumerate() {
        body += &text(left + CELL * (i as f64 + 0.5), top - 10.0, "middle", &faint, column.as_ref());
    }
    for (i, row) in rows.iter().enumerate() {
        body += &text(left - 10.0, top + CELL * (i as f64 + 0.5) + 4.0, "end", &faint, row.as_ref());
    }
    let largest = values.iter().copied().filter(|v| v.is_finite()).fold(0.0, f64::max);
    for (i, &value) in values.iter().enumerate() {
        let (x, y) = ((i % columns.len()) as f64, (i / columns.len()) as f64);
        body += &cell(left + CELL * x, top + CELL * y, value, largest);
    }
    let width = (left + across + 24.0).max(40.0 + 1.4 * about_width(title_));
    document(width.ceil(), top + down + 24.0, &body)
}

fn cell(x: f64, y: f64, value: f64, largest: f64) -> String {
    let shade = share(value, largest).sqrt();
    let square = square(x, y, CELL, shade);
    if value == 0.0 {
        return square;
    }
    let ink = if shade > 0.5 { "#ffffff" } else { INK };
    square + &text(x + CELL / 2.0, y + CELL / 2.0 + 4.0, "middle", &format!(" fill=\"{ink}\""), &number(value))
}

/// A cell of `side` pixels, with a gap of two to the next; `shade` in [0, 1].
fn square(x: f64, y: f64, side: f64, shade: f64) -> String {
    let [r, g, b] = [0, 1, 2].map(|i| (LIGHT[i] + shade * (DARK[i] - LIGHT[i])).round() as u8);
    let size = side - 2.0;
    format!(
        "<rect x=\"{:.1}\" y=\"{:.1}\" width=\"{size}\" height=\"{size}\" rx=\"3\" fill=\"rgb({r},{g},{b})\"/>\n",
        x + 1.0,
        y + 1.0
    )
}

/// value / largest; 0 for what is negative or no number.
fn share(value: f64, largest: f64) -> f64 {
    if value.is_finite() && value > 0.0 { value / largest } else { 0.0 }
}

/// A number of at most five or so characters.
fn number(value: f64) -> String {
    match value {
        v if !v.is_finite() => "–".into(),
        v if v == v.trunc() && v.abs() < 1e5 => format!("{v:.0}"),
        v if (0.01..1e3).contains(&v.abs()) => format!("{v:.2}"),
        v => format!("{v:.0e}"),
    }
}

/// Pixels of a cell in [`shades`], each way.
const SMALL: f64 = 22.0;

/// Square tables side by side, as an SVG document: each panel has a title and `values` [n, n], row-major, with the n `labels` for
/// its rows and columns. The shade goes with value / largest value of the panel; negative and non-finite values are left white.
///
/// Panics unless there are panels and each has n * n values.
#[track_caller]
pub fn shades(title_: &str, labels: &[impl AsRef<str>], panels: &[(String, Vec<f64>)]) -> String {
    let n = labels.len();
    assert!(!panels.is_empty() && n > 0, "shades: no panels, or no labels");
    let longest = labels.iter().map(|label| about_width(label.as_ref())).fold(0.0, f64::max);
    let (left, top, side) = (30.0 + longest, 92.0 + longest, SMALL * n as f64);
    let faint = format!(" fill=\"{FAINT_INK}\"");
    let mut body = title(20.0, 30.0, title_);
    for (i, label) in labels.iter().enumerate() {
        body += &text(left - 8.0, top + SMALL * (i as f64 + 0.5) + 4.0, "end", &faint, label.as_ref());
    }
    for (p, (name, values)) in panels.iter().enumerate() {
        assert_eq!(values.len(), n * n, "shades: panel {name} has {} values for {n} labels", values.len());
        let x = left + (side + 28.0) * p as f64;
        body += &text(x + side / 2.0, 60.0, "middle", "", name);
        for (i, label) in labels.iter().enumerate() {
            let (cx, cy) = (x + SMALL * (i as f64 + 0.5) + 4.0, top - 8.0);
            let turned = format!("{faint} transform=\"rotate(-90 {cx:.1} {cy:.1})\"");
            body += &text(cx, cy, "start", &turned, label.as_ref());
        }
        let largest = values.iter().copied().filter(|v| v.is_finite()).fold(0.0, f64::max);
        for (i, &value) in values.iter().enumerate() {
            let (column, row) = ((i % n) as f64, (i / n) as f64);
            body += &square(x + SMALL * column, top + SMALL * row, SMALL, share(value, largest));
        }
    }
    let width = left + (side + 28.0) * panels.len() as f64;
    document(width.max(40.0 + 1.4 * about_width(title_)).ceil(), (top + side + 24.0).ceil(), &body)
}
