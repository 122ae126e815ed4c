//! PNG files that carry their story (prompt, seed, settings) as text.

use super::{Picture, PictureError};
use crate::files::{self, FileError};
use ::png::text_metadata::{ITXtChunk, TEXtChunk};
use ::png::{BitDepth, ColorType, Decoder, DecodingError, Encoder, EncodingError, Transformations};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufReader, ErrorKind};
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
    decode(path).map_err(|error| match error {
        DecodingError::IoError(source) if source.kind() != ErrorKind::UnexpectedEof => {
            FileError::new("read", path, source).into()
        }
        DecodingError::IoError(_) => PictureError::Damaged { path: path.into(), why: "it ends too early".into() },
        other => PictureError::Damaged { path: path.into(), why: other.to_string() },
    })
}

fn decode(path: &Path) -> Result<(Picture, Text), DecodingError> {
    let mut decoder = Decoder::new(BufReader::new(File::open(path)?));
    decoder.set_transformations(Transformations::normalize_to_color8());
    let mut reader = decoder.read_info()?;
    let size = reader.output_buffer_size().ok_or(DecodingError::LimitsExceeded)?;
    let mut bytes = vec![0; size];
    let frame = reader.next_frame(&mut bytes)?;
    // Texts may stand after the image.
    reader.finish()?;
    bytes.truncate(frame.buffer_size());
    let (stored, channels) = match frame.color_type {
        ColorType::Grayscale | ColorType::Indexed => (1, 1),
        ColorType::GrayscaleAlpha => (2, 1),
        ColorType::Rgb => (3, 3),
        ColorType::Rgba => (4, 3),
    };
    let pixels = bytes.chunks_exact(stored).flat_map(|pixel| &pixel[..channels]).copied().collect();
    let mut text = Text::new();
    let info = reader.info();
    text.extend(info.uncompressed_latin1_text.iter().map(|chunk| (chunk.keyword.clone(), chunk.text.clone())));
    for chunk in &info.compressed_latin1_text {
        text.insert(chunk.keyword.clone(), chunk.get_text()?);
    }
    for chunk in &info.utf8_text {
        text.insert(chunk.keyword.clone(), chunk.get_text()?);
    }
    Ok((Picture { width: frame.width as usize, height: frame.height as usize, channels, pixels }, text))
}
