//! What the charts share: the frame of an SVG document, and its texts.

/// Text colours: titles, and everything else.
pub(super) const INK: &str = "#1f2430";
pub(super) const FAINT_INK: &str = "#5b6270";

/// A document of `width` by `height` pixels around `body`, on white (pages may be dark).
pub(super) fn document(width: f64, height: f64, body: &str) -> String {
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" viewBox=\"0 0 {width} {height}\" \
         font-family=\"system-ui, 'Segoe UI', 'Helvetica Neue', Arial, sans-serif\" font-size=\"12\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"#ffffff\"/>\n{body}</svg>\n"
    )
}

/// A line of text at (x, y), the baseline. `style` is more attributes, each with a space before it.
pub(super) fn text(x: f64, y: f64, anchor: &str, style: &str, words: &str) -> String {
    let words = escaped(words);
    format!("<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\"{style}>{words}</text>\n")
}

/// A title.
pub(super) fn title(x: f64, y: f64, words: &str) -> String {
    text(x, y, "start", &format!(" font-size=\"16\" font-weight=\"600\" fill=\"{INK}\""), words)
}

/// The label of a vertical axis, centred at (x, y), read from bottom to top.
pub(super) fn sideways(x: f64, y: f64, words: &str) -> String {
    text(x, y, "middle", &format!(" fill=\"{FAINT_INK}\" transform=\"rotate(-90 {x:.1} {y:.1})\""), words)
}

/// About how wide a text of 12 pixels is; there is no font to ask.
pub(super) fn about_width(words: &str) -> f64 {
    6.8 * words.chars().count() as f64
}

/// Text without the characters that mean something to XML, or that it forbids.
fn escaped(words: &str) -> String {
    let mut out = String::with_capacity(words.len());
    for c in words.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            c if c.is_control() || matches!(c, '\u{fffe}' | '\u{ffff}') => out.push(' '),
            c => out.push(c),
        }
    }
    out
}
