//! What people look at: 8-bit pictures made from the numbers of a model, laid out in grids and filmstrips, saved as
//! PNG with their story inside, shown in a terminal; and charts as SVG.

mod diagram;
mod grid;
mod heatmap;
mod plot;
mod png;
mod strip;
mod svg;
pub mod terminal;

pub use diagram::{Diagram, Tint};
pub use grid::{Layout, grid};
pub use heatmap::{heatmap, shades};
pub use plot::{Chart, Curve, charts};
pub use png::{Text, encode, read, write};
pub use strip::{frames, strip};

use crate::array::Array;
use crate::files::FileError;
use std::path::PathBuf;

/// An 8-bit picture: grey (1 channel) or RGB (3 channels).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Picture {
    /// Pixels a row, W.
    pub width: usize,
    /// Rows, H.
    pub height: usize,
    /// 1 (grey) or 3 (red, green, blue).
    pub channels: usize,
    /// The bytes in the order [H, W, C], row by row from the top left.
    pub pixels: Vec<u8>,
}

impl Picture {
    /// A picture of one shade, 0 (black) to 255 (white). Panics unless `channels` is 1 or 3.
    #[track_caller]
    pub fn blank(width: usize, height: usize, channels: usize, shade: u8) -> Picture {
        assert!(channels == 1 || channels == 3, "a picture has 1 or 3 channels, not {channels}");
        Picture { width, height, channels, pixels: vec![shade; width * height * channels] }
    }

    /// A picture from the numbers of a model: `values` in the order [C, H, W], -1 black and 1 white. Values beyond are
    /// clipped, halves are rounded away from zero, NaN becomes black. Panics unless C is 1 or 3 and the count fits.
    #[track_caller]
    pub fn from_values(values: &[f32], [channels, height, width]: [usize; 3]) -> Picture {
        let mut picture = Picture::blank(width, height, channels, 0);
        let plane = width * height;
        assert_eq!(values.len(), plane * channels, "picture: [{channels}, {height}, {width}] does not fit the values");
        for (i, &v) in values.iter().enumerate() {
            picture.pixels[(i % plane) * channels + i / plane] = ((v.clamp(-1.0, 1.0) + 1.0) * 127.5).round() as u8;
        }
        picture
    }

    /// The pictures of a batch [B, C, H, W], or the one of [C, H, W], as [`Picture::from_values`] makes them.
    /// Panics on any other rank, or unless C is 1 or 3.
    #[track_caller]
    pub fn from_array(images: &Array) -> Vec<Picture> {
        let [count, channels, height, width] = match images.shape()[..] {
            [channels, height, width] => [1, channels, height, width],
            [count, channels, height, width] => [count, channels, height, width],
            _ => panic!("pictures: expected [B, C, H, W] or [C, H, W], found {}", images.shape()),
        };
        let (values, size) = (images.to_f32(), channels * height * width);
        (0..count).map(|i| Picture::from_values(&values[i * size..][..size], [channels, height, width])).collect()
    }

    /// This picture `factor` times as wide and high, each pixel a square. Panics if `factor` is 0.
    #[track_caller]
    pub fn enlarged(&self, factor: usize) -> Picture {
        assert!(factor > 0, "a picture cannot be enlarged 0 times");
        let (width, height) = (self.width * factor, self.height * factor);
        let pixels = (0..height)
            .flat_map(|y| (0..width).map(move |x| (x, y)))
            .flat_map(|(x, y)| self.at(x / factor, y / factor).iter().copied())
            .collect();
        Picture { width, height, channels: self.channels, pixels }
    }

    /// The C bytes of the pixel in column `x` and row `y`. Panics outside of the picture.
    #[track_caller]
    pub fn at(&self, x: usize, y: usize) -> &[u8] {
        assert!(x < self.width && y < self.height, "no pixel ({x}, {y}) in {}x{}", self.width, self.height);
        &self.pixels[(y * self.width + x) * self.channels..][..self.channels]
    }

    /// Copies `other` into this picture, its top left corner at (x, y). Panics if it does not fit, or if the channels differ.
    #[track_caller]
    pub fn paste(&mut self, other: &Picture, x: usize, y: usize) {
        assert_eq!(
            self.channels, other.channels,
            "paste: pictures of {} and {} channels",
            self.channels, other.channels
        );
        assert!(
            x + other.width <= self.width && y + other.height <= self.height,
            "paste: {}x{} at ({x}, {y}) does not fit into {}x{}",
            other.width,
            other.height,
            self.width,
            self.height
        );
        let bytes = other.width * other.channels;
        for row in 0..other.height {
            let to = ((y + row) * self.width + x) * self.channels;
            self.pixels[to..to + bytes].copy_from_slice(&other.pixels[row * bytes..][..bytes]);
        }
    }
}

/// Why a picture could not be written or read. Nothing was overwritten.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PictureError {
    /// The file could not be read or written.
    #[error(transparent)]
    File(#[from] FileError),
    /// The file is not a PNG, or a damaged one.
    #[error("cannot read {}: not a whole PNG ({why}); make or copy it anew", path.display())]
    Damaged {
        /// The file that was read.
        path: PathBuf,
        /// What the decoder says.
        why: String,
    },
    /// A text that PNG cannot carry.
    #[error("cannot keep the text {key:?} in a PNG: {why}; change it")]
    Text {
        /// Its key.
        key: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// Numbers that do not make a PNG: no pixels, or too many.
    #[error("cannot make a PNG of {width}x{height} pixels ({why}); choose another size")]
    Size {
        /// Pixels a row.
        width: usize,
        /// Rows.
        height: usize,
        /// What the encoder says.
        why: String,
    },
}
