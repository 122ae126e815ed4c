//! A small preview of a picture as text: a half block shows two pixels, one above the other.

use super::Picture;
use std::env;
use std::fmt::Write;
use std::io::IsTerminal;

/// The colours a terminal knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Colours {
    /// 24 bits.
    True,
    /// The greys among the 256 colours of xterm: 24 of them, black and white.
    Greys,
}

impl Colours {
    /// What `COLORTERM` promises.
    pub fn of_terminal() -> Colours {
        match env::var("COLORTERM").as_deref() {
            Ok("truecolor" | "24bit") => Colours::True,
            _ => Colours::Greys,
        }
    }

    /// The code that sets the colour `rgb` (`layer` 38: of the character, 48: behind it).
    fn code(self, layer: u8, [r, g, b]: [u8; 3]) -> String {
        match self {
            Colours::True => format!("{layer};2;{r};{g};{b}"),
            Colours::Greys => {
                // Rec. 601 luma.
                let grey = (299 * u32::from(r) + 587 * u32::from(g) + 114 * u32::from(b) + 500) / 1000;
                // xterm's greys 232..=255 are 8, 18, …, 238; black is 16 and white 231.
                let index = match grey {
                    0..=3 => 16,
                    247.. => 231,
                    _ => 232 + (grey.saturating_sub(3) / 10).min(23),
                };
                format!("{layer};5;{index}")
            }
        }
    }
}

/// Whether a preview should be printed: stdout is a terminal that is not `dumb`, and `NO_COLOR` is unset or empty.
pub fn supported() -> bool {
    let no_colour = env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    std::io::stdout().is_terminal() && !no_colour && env::var_os("TERM").is_none_or(|term| term != "dumb")
}

/// `picture` as lines of text with ANSI colours, at most `columns` characters wide: one character is one pixel wide and
/// two high. A wider picture is shrunk, each pixel the mean of those it covers; a narrower one keeps its size. Every
/// line ends with the colours reset and a newline. Empty if the picture or the terminal has no width.
pub fn preview(picture: &Picture, columns: usize, colours: Colours) -> String {
    let width = picture.width.min(columns);
    if width == 0 || picture.height == 0 {
        return String::new();
    }
    let height = ((picture.height * width + picture.width / 2) / picture.width).max(1);
    let pixel = |x, y| mean(picture, [x, width], [y, height]);
    let mut text = String::new();
    for y in (0..height).step_by(2) {
        let mut last = String::new();
        for x in 0..width {
            let mut code = colours.code(38, pixel(x, y));
            if y + 1 < height {
                code = code + ";" + &colours.code(48, pixel(x, y + 1));
            }
            if code != last {
                write!(text, "\x1b[{code}m").expect("a string takes all");
                last = code;
            }
            text.push('▀');
        }
        text.push_str("\x1b[0m\n");
    }
    text
}

/// The mean colour of what cell `x` of `width` and `y` of `height` covers.
fn mean(picture: &Picture, [x, width]: [usize; 2], [y, height]: [usize; 2]) -> [u8; 3] {
    let range = |i: usize, cells: usize, pixels: usize| {
        let start = (i * pixels / cells).min(pixels - 1);
        start..((i + 1) * pixels / cells).clamp(start + 1, pixels)
    };
    let (across, down) = (range(x, width, picture.width), range(y, height, picture.height));
    let count = across.len() * down.len();
    let mut sum = [0; 3];
    for (x, y) in down.flat_map(|y| across.clone().map(move |x| (x, y))) {
        for (channel, sum) in sum.iter_mut().enumerate() {
            *sum += usize::from(picture.at(x, y)[channel.min(picture.channels - 1)]);
        }
    }
    sum.map(|sum| ((sum + count / 2) / count) as u8)
}
