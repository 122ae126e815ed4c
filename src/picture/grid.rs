//! Pictures in rows and columns.

use super::Picture;

/// How a grid is laid out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    /// Pictures a row; at least 1.
    pub columns: usize,
    /// Pixels between pictures and around them all, after enlarging.
    pub gap: usize,
    /// The shade of gaps and of cells left over in the last row, 0 (black) to 255 (white).
    pub background: u8,
    /// How many times each picture is enlarged, pixels becoming squares; at least 1.
    pub enlarge: usize,
}

impl Layout {
    /// `columns` a row, 4 times enlarged, on white with a gap of 4: pleasant for images of 28 or 32 pixels.
    pub fn new(columns: usize) -> Layout {
        Layout { columns, gap: 4, background: 255, enlarge: 4 }
    }

    /// As [`Layout::new`], for `count` pictures in a square, or nearly so.
    pub fn square(count: usize) -> Layout {
        Layout::new((count as f64).sqrt().ceil() as usize)
    }
}

/// `pictures` row by row into one picture. Panics if there are none, if their sizes or channels differ, or if
/// `columns` or `enlarge` is 0.
#[track_caller]
pub fn grid(pictures: &[Picture], layout: Layout) -> Picture {
    let Layout { columns, gap, background, enlarge } = layout;
    assert!(columns > 0 && enlarge > 0, "grid: columns and enlarge must be at least 1, not {columns} and {enlarge}");
    let first = pictures.first().expect("grid: no pictures");
    let (width, height) = (first.width * enlarge + gap, first.height * enlarge + gap);
    let rows = pictures.len().div_ceil(columns);
    let mut sheet = Picture::blank(columns * width + gap, rows * height + gap, first.channels, background);
    for (i, picture) in pictures.iter().enumerate() {
        let size = |p: &Picture| [p.channels, p.height, p.width];
        assert_eq!(size(picture), size(first), "grid: picture {i} differs from the first ([C, H, W])");
        sheet.paste(&picture.enlarged(enlarge), gap + i % columns * width, gap + i / columns * height);
    }
    sheet
}
