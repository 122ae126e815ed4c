//! Images that a command is given.

use super::Result;
use imagen::array::Array;
use imagen::autograd::Tensor;
use imagen::picture::{self, Picture};
use std::path::Path;

/// The image of a PNG file as [1, C, H, W] in [-1, 1]: see [`resized`].
pub fn image(path: &Path, size: [usize; 3]) -> Result<Tensor> {
    Ok(resized(&picture::read(path)?.0, size))
}

/// A picture as [1, C, H, W] in [-1, 1]: grey or in colour as the model wants it, and stretched to its size. Pixels are means of
/// rectangles, or between neighbours where the picture is not a multiple of that size.
fn resized(picture: &Picture, [channels, height, width]: [usize; 3]) -> Tensor {
    let (h, w, c) = (picture.height, picture.width, picture.channels);
    let plane = |channel: usize| -> Vec<f32> {
        let value = |pixel: &[u8]| match (channels, c) {
            (1, 3) => pixel.iter().map(|&v| f32::from(v)).sum::<f32>() / 3.0,
            (_, 1) => f32::from(pixel[0]),
            _ => f32::from(pixel[channel]),
        };
        picture.pixels.chunks_exact(c).map(|pixel| value(pixel) / 127.5 - 1.0).collect()
    };
    let values: Vec<f32> = (0..channels).flat_map(plane).collect();
    let whole = Tensor::constant(Array::from_vec([1, channels, h, w], values));
    // Each way for itself: a picture may be wide and low.
    let (down, across) = ((h / height).max(1), (w / width).max(1));
    // Rectangles of pixels: interpolation alone would skip most of a much larger picture.
    let near = whole.resize_bilinear(height * down, width * across);
    let means = near.reshape([channels, height, down, width, across]).mean(&[2, 4], false);
    means.reshape([1, channels, height, width]).clamp(-1.0, 1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_pixel_counts_however_wide_or_high_a_picture_is() {
        // Shades that differ from column to column: interpolation would take two of each 128, with these steps.
        let shade = |i: usize| (i * i % 251) as u8;
        let mean = |block: usize, size: usize| {
            let sum: f64 = (block * size..(block + 1) * size).map(|i| f64::from(shade(i))).sum();
            sum / size as f64 / 127.5 - 1.0
        };
        let wide =
            Picture { pixels: (0..32 * 1024).map(|i| shade(i % 1024)).collect(), ..Picture::blank(1024, 32, 1, 0) };
        let high =
            Picture { pixels: (0..32 * 1024).map(|i| shade(i / 32)).collect(), ..Picture::blank(32, 1024, 1, 0) };
        let (wide, high) = (resized(&wide, [1, 8, 8]).to_f64(), resized(&high, [1, 8, 8]).to_f64());
        for (row, column) in (0..64).map(|i| (i / 8, i % 8)) {
            assert!((wide[8 * row + column] - mean(column, 128)).abs() < 1e-5, "column {column}");
            assert!((high[8 * row + column] - mean(row, 128)).abs() < 1e-5, "row {row}");
        }
    }

    #[test]
    fn a_small_picture_is_stretched_and_colours_fit_the_model() {
        let two = Picture { pixels: vec![0, 255], ..Picture::blank(2, 1, 1, 0) };
        let stretched = resized(&two, [3, 2, 4]).to_f64();
        assert_eq!(stretched, [[-1.0, -0.5, 0.5, 1.0]; 6].concat());
        let colours = Picture { pixels: vec![0, 30, 60], ..Picture::blank(1, 1, 3, 0) };
        assert!((resized(&colours, [1, 1, 1]).to_f64()[0] - (30.0 / 127.5 - 1.0)).abs() < 1e-6);
    }
}
