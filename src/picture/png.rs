//! PNG files that carry their story (prompt, seed, settings) as text.

use super::{Picture, PictureError};
use crate::files;
use ::png::text_metadata::{ITXtChunk, TEXtChunk};
use ::png::{BitDepth, ColorType, Decoder, DecodingError, Encoder, EncodingError};
use image::{ImageError, ImageFormat};
use std::collections::BTreeMap;
use std::io::Cursor;
use std::path::Path;

/// The texts of a PNG: key to value. A key has 1 to 79 Latin-1 characters; a value is any text without NUL.
pub type Text = BTreeMap<String, String>;

/// Writes `picture` and `text` to the file `path`, atomically as [`files::write`] does. Panics unless the picture holds as many
/// bytes as its size says.
pub fn write(path: &Path, picture: &Picture, text: &Text) -> Result<(), PictureError> {
    Ok(files::write(path, &encode(picture, text)?)?)
}

/// The bytes of a PNG file of `picture` and `text`. Errors on a text or a size that PNG cannot carry. Panics unless the
/// picture holds as many bytes as its size says.
#[track_caller]
pub fn encode(picture: &Picture, text: &Text) -> Result<Vec<u8>, PictureError> {
    let &Picture { width, height, channels, ref pixels } = picture;
    assert_eq!(pixels.len(), width * height * channels, "picture: {width}x{height}x{channels} does not fit its bytes");
    text.iter().try_for_each(|(key, value)| check(key, value))?;
    let (Ok(w), Ok(h)) = (u32::try_from(width), u32::try_from(height)) else {
        return Err(PictureError::Size { width, height, why: "too large".into() });
    };
    let mut bytes = Vec::new();
    let written = || -> Result<(), EncodingError> {
        let mut encoder = Encoder::new(&mut bytes, w, h);
        encoder.set_color(if channels == 1 { ColorType::Grayscale } else { ColorType::Rgb });
        encoder.set_depth(BitDepth::Eight);
        let mut writer = encoder.write_header()?;
        for (key, value) in text {
            if value.chars().all(is_latin1) {
                writer.write_text_chunk(&TEXtChunk::new(key, value))?;
            } else {
                writer.write_text_chunk(&ITXtChunk::new(key, value))?;
            }
        }
        writer.write_image_data(pixels)?;
        writer.finish()
    }();
    // Memory does not fail, and the texts are checked: what is left is the size.
    written.map_err(|error| PictureError::Size { width, height, why: error.to_string() })?;
    Ok(bytes)
}

/// What a tEXt chunk may hold by the PNG specification (11.3.3): printable Latin-1 and newlines.
fn is_latin1(c: char) -> bool {
    matches!(c, '\n' | ' '..='~' | '\u{a0}'..='\u{ff}')
}

fn check(key: &str, value: &str) -> Result<(), PictureError> {
    let refuse = |why| Err(PictureError::Text { key: key.into(), why });
    match () {
        () if !(1..=79).contains(&key.chars().count()) => refuse("a key has 1 to 79 characters"),
        () if !key.chars().all(|c| is_latin1(c) && c != '\n') => refuse("a key is one line of printable Latin-1"),
        () if key.trim() != key => refuse("a key does not begin or end with a space"),
        () if value.contains('\0') => refuse("a value must not hold the NUL character"),
        () => Ok(()),
    }
}

/// Reads a PNG: grey or RGB of 8 bits (palettes and smaller or larger depths are converted, alpha is dropped), and its
/// texts. Of a key that comes twice, the last value counts.
pub fn read(path: &Path) -> Result<(Picture, Text), PictureError> {
    let bytes = files::read(path)?;
    let damaged = |why: String| PictureError::Damaged { path: path.into(), why };
    let picture = pixels(&bytes).map_err(|e| damaged(e.to_string()))?;
    Ok((picture, texts(&bytes).map_err(|e| damaged(e.to_string()))?))
}

fn pixels(bytes: &[u8]) -> Result<Picture, ImageError> {
    let image = image::load_from_memory_with_format(bytes, ImageFormat::Png)?;
    let (width, height) = (image.width() as usize, image.height() as usize);
    let (channels, pixels) = match image.color().has_color() {
        true => (3, image.into_rgb8().into_raw()),
        false => (1, image.into_luma8().into_raw()),
    };
    Ok(Picture { width, height, channels, pixels })
}

fn texts(bytes: &[u8]) -> Result<Text, DecodingError> {
    let mut reader = Decoder::new(Cursor::new(bytes)).read_info()?;
    // Texts may stand after the image.
    reader.finish()?;
    let info = reader.info();
    let mut text = Text::new();
    text.extend(info.uncompressed_latin1_text.iter().map(|chunk| (chunk.keyword.clone(), chunk.text.clone())));
    for chunk in &info.compressed_latin1_text {
        text.insert(chunk.keyword.clone(), chunk.get_text()?);
    }
    for chunk in &info.utf8_text {
        text.insert(chunk.keyword.clone(), chunk.get_text()?);
    }
    Ok(text)
}
